"""Records that the other side has not acknowledged: the list of a path, its log, and their second life on another path.

Layer: _core, rung j. Baton. See sent.pxd.
Spec: docs/spec/session.md §5, §5.2; docs/decisions/0005-what-was-lost-is-sent-as-it-was.md.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from netchan._core cimport defs
from netchan._core.congestion cimport cc_paced, cc_sent
from netchan._core.cursor cimport nc_rd, nc_wr, rd_init, rd_varint, wr_init, wr_left
from netchan._core.datagram cimport DATAGRAM_PAD, dgram_seal
from netchan._core.ends cimport fail, settle_end
from netchan._core.frame cimport frame_next, frame_put_data_head, nc_frame
from netchan._core.idmap cimport idmap_get
from netchan._core.keys cimport keys_update, keys_update_acked
from netchan._core.order cimport order_acked, order_arrived
from netchan._core.outbox cimport out_ack_part, out_peek
from netchan._core.ranges cimport ranges_remove_below
from netchan._core.ratchet cimport ratchet_settled, rekey_done
from netchan._core.record cimport record_seal
from netchan._core.rate cimport rate_mark
from netchan._core.state cimport (
    SENT_FLIGHT, SENT_LOST, copies_all, nc_end, nc_path, nc_replay, nc_sent, nc_session, nc_trunk_sent,
)

cdef enum:
    TRUNK_SENT_MAX = 65536          # parts of trunk records kept until they are acknowledged
    LOST_KEPT = 32768               # datagrams behind the oldest that was given up, before it is forgotten
    HEAD_SLACK = 16                 # room behind the frames of what waits to be sent again: a cut makes a head longer


# --- rings ------------------------------------------------------------------------------------------------------------

# A ring of twice the places (at first `least`) with the items first … next - 1 of the old one, which is freed; `item`
# is the size of one. NULL: no memory, and the old one stays.
cdef void* ring_doubled(void* old, uint32_t* cap, uint32_t least, size_t item, uint64_t first,
                        uint64_t next_) noexcept nogil:
    cdef uint32_t more = cap[0] * 2 if cap[0] else least
    cdef uint8_t* ring = <uint8_t*>calloc(more, item)
    if ring is NULL:
        return NULL
    while first < next_:
        memcpy(ring + (first & (more - 1)) * item, <uint8_t*>old + (first & (cap[0] - 1)) * item, item)
        first += 1
    free(old)
    cap[0] = more
    return ring


cdef int sent_room(nc_path* p, uint64_t spare) noexcept nogil:
    cdef void* ring
    if p.tx_number - p.acked + spare >= <uint64_t>defs.SENT_MAX:
        return 0
    if p.log_next - p.log_first + LOG_RECORD + (LOG_RESERVE if spare else 0) > <uint64_t>defs.LOG_MAX:
        return 0
    if p.tx_number - p.acked < p.sent_cap:
        return 1
    ring = ring_doubled(p.sent, &p.sent_cap, 16, sizeof(nc_sent), p.acked, p.tx_number)
    if ring is NULL:
        return 0
    p.sent = <nc_sent*>ring
    return 1


cdef int trunk_room(nc_path* p) noexcept nogil:
    cdef void* ring
    if p.d is not NULL:
        return 1                                # what was in a datagram is read from its frames
    if p.trunk_next - p.trunk_first < p.trunk_cap:
        return 1
    if p.trunk_cap >= TRUNK_SENT_MAX:
        return 0
    ring = ring_doubled(p.trunk, &p.trunk_cap, 64, sizeof(nc_trunk_sent), p.trunk_first, p.trunk_next)
    if ring is NULL:
        return 0
    p.trunk = <nc_trunk_sent*>ring
    return 1


cdef void trunk_note(nc_path* p, uint64_t stream, uint64_t upto, uint64_t len_) noexcept nogil:
    cdef nc_trunk_sent* part
    if p.d is not NULL:
        return
    part = &p.trunk[p.trunk_next & (p.trunk_cap - 1)]
    part.number = p.tx_number
    part.stream = stream
    part.upto = upto
    part.len = len_
    p.trunk_next += 1


# --- the log ----------------------------------------------------------------------------------------------------------

cdef void ring_write(uint8_t* ring, uint32_t cap, uint64_t at, const uint8_t* src, size_t n) noexcept nogil:
    cdef size_t place = <size_t>(at & (cap - 1))
    cdef size_t first = cap - place
    if n == 0:
        return                                  # there may be no ring
    if first > n:
        first = n
    memcpy(ring + place, src, first)
    memcpy(ring, src + first, n - first)


cdef void ring_read(const uint8_t* ring, uint32_t cap, uint64_t at, uint8_t* dst, size_t n) noexcept nogil:
    cdef size_t place = <size_t>(at & (cap - 1))
    cdef size_t first = cap - place
    if n == 0:
        return
    if first > n:
        first = n
    memcpy(dst, ring + place, first)
    memcpy(dst + first, ring, n - first)


cdef int log_put(nc_path* p, const uint8_t* src, size_t n) noexcept nogil:
    cdef uint64_t held = p.log_next - p.log_first
    cdef uint32_t cap = p.log_cap if p.log_cap else LOG_FIRST
    cdef uint8_t* ring
    cdef uint64_t at = p.log_first
    cdef size_t run
    if held + n > p.log_cap:
        while cap < held + n:
            cap *= 2
        ring = <uint8_t*>malloc(cap)
        if ring is NULL:
            return defs.NC_ENOMEM
        while at < p.log_next:                  # up to the end of the old ring, then from its start
            run = p.log_cap - <size_t>(at & (p.log_cap - 1))
            if run > p.log_next - at:
                run = <size_t>(p.log_next - at)
            ring_write(ring, cap, at, p.log + (at & (p.log_cap - 1)), run)
            at += run
        free(p.log)
        p.log = ring
        p.log_cap = cap
    ring_write(p.log, p.log_cap, p.log_next, src, n)
    p.log_next += n
    return defs.NC_OK


# --- sending ----------------------------------------------------------------------------------------------------------

cdef int64_t finish_record(nc_session* s, nc_path* p, uint8_t* rec, uint64_t tag, size_t body, const uint8_t* tail,
                           size_t tail_len, size_t kept, uint64_t upto, uint64_t len_, int eliciting,
                           int64_t now) noexcept nogil:
    cdef nc_sent* x = &p.sent[p.tx_number & (p.sent_cap - 1)]
    cdef int size
    x.log_len = 0
    x.tail_len = 0
    x.rekey = s.rekey_here
    s.rekey_here = 0
    x.copy = s.copy_here
    x.numbered = s.numbered_here
    x.order = <uint32_t>s.order_here
    s.numbered_here = 0
    if s.mine.lease_ns or p.d is not NULL:
        x.log_at = <uint32_t>p.log_next
        if log_put(p, rec + path_head(p, tag), kept) < 0:       # now: sealing is done in place
            return defs.NC_ENOMEM
        x.log_len = <uint32_t>kept
        x.tail_len = <uint32_t>(body + tail_len - kept) if x.copy != <uint8_t>SENT_ONCE else 0
    if p.d is NULL:
        size = record_seal(&s.sealer, p.key, p.tx_number, tag, rec, body, tail, tail_len,
                           p.binding if p.tx_number == 0 else NULL, now)
    else:
        if body + tail_len < <size_t>DATAGRAM_PAD and tag < <uint64_t>defs.TAG_FIRST_STREAM:
            memset(rec + path_head(p, tag) + body, 0, DATAGRAM_PAD - body)
            body = DATAGRAM_PAD
        size = dgram_seal(&s.sealer, p.key, p.d.cid, p.tx_number, p.d.number_size, tag, p.binding, rec, body, tail,
                          tail_len, now)
    if size < 0:
        p.log_next -= x.log_len
        return size
    x.stream = tag
    x.upto = upto
    x.len = len_
    x.at = now
    x.eliciting = <uint8_t>eliciting
    if x.numbered and s.order.next == s.order_here:
        s.order.next += 1
    if p.d is not NULL:
        x.state = SENT_FLIGHT
        x.size = <uint32_t>size if eliciting else 0             # RFC 9002 §2: what asks for no answer is not in flight
        if eliciting:
            cc_sent(&p.d.cc, <uint64_t>size)
            cc_paced(&p.d.cc, <uint64_t>size)
            p.d.eliciting += 1
            p.d.eliciting_at = now
            if p.d.probes:
                p.d.probes -= 1
    if p.oldest_at == 0 and eliciting:
        p.oldest_at = now
    if p.d is NULL and eliciting:
        rate_mark(p, now)
    p.tx_number += 1
    p.tx_bytes += <uint64_t>size
    x.pos = p.tx_bytes
    if p.d is not NULL:
        x.pos = p.d.ack_here
        p.d.ack_here = 0
    s.stats.records_sent += 1
    s.stats.bytes_sent += <uint64_t>size
    p.tx_at = now
    return size


# Bytes of a stream need no other path.
cdef void acked(nc_session* s, uint64_t stream, uint64_t upto, uint64_t len_) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, stream)
    if e is not NULL:
        out_ack_part(&e.out, upto - len_, upto, &s.pins)
        if e.out_done or e.abort_flags & defs.ABORT_AFTER_DATA:
            settle_end(s, e)


# Behind PADDING and the number in the order of the session, which stand first.
cdef void pass_number(nc_rd* r) noexcept nogil:
    cdef uint64_t number
    while r.p < r.end and r.p[0] == defs.FRAME_PADDING:
        r.p += 1
    if r.p < r.end and r.p[0] == defs.FRAME_ORDER:
        r.p += 1
        rd_varint(r, &number)


# The data in a datagram of the trunk, read from its frames.
cdef void acked_parts(nc_session* s, nc_path* p, const nc_sent* x) noexcept nogil:
    cdef uint8_t[2048] frames
    cdef nc_rd r
    cdef nc_frame f
    if x.log_len > sizeof(frames):
        return                                  # no datagram is so long
    ring_read(p.log, p.log_cap, log_place(p, x), frames, x.log_len)
    rd_init(&r, frames, x.log_len)
    pass_number(&r)
    while frame_next(&r, defs.TAG_TRUNK, &f) >= 0:
        if f.type == defs.FRAME_TRUNK_DATA:
            acked(s, f.stream, f.a + f.len, f.len)


cdef inline uint64_t log_place(const nc_path* p, const nc_sent* x) noexcept nogil:
    return p.log_first + <uint32_t>(x.log_at - <uint32_t>p.log_first)


cdef inline uint64_t whole_order(nc_session* s, const nc_sent* x) noexcept nogil:
    return s.order.floor + <uint64_t><int64_t><int32_t>(x.order - <uint32_t>s.order.floor)


cdef void sent_arrived(nc_session* s, nc_path* p, nc_sent* x) noexcept nogil:
    if x.numbered:
        order_acked(s.order, whole_order(s, x))
    if x.rekey > s.rekey_told:                  # an earlier one that was late counts no more
        s.rekey_told = x.rekey
        s.rekey_order = whole_order(s, x) + 1 if x.numbered else 0
    if x.stream == defs.TAG_TRUNK:
        acked_parts(s, p, x)
    elif x.stream:
        acked(s, x.stream, x.upto, x.len)


cdef void sent_settled(nc_session* s) noexcept nogil:
    # The peer knows what to mix in: switch. On no path is the epoch before it still waited for (put_ratchet). What was
    # said before the announcement has to be there, too: it may have to come again, and in keys that can be read.
    if s.rekey_state == 2 and s.rekey_told == s.sealer.keys.owner.send_epoch + 1 \
            and (s.order is NULL or s.order.floor >= s.rekey_order):
        if keys_update(s.sealer.keys, s.sealer.cache, s.rekey_mix, 32) == defs.NC_OK:
            epoch_begun(s)
        rekey_done(s)
        ratchet_settled(s)


# Forgets what was sent again already: where there is always something left the list would grow for ever.
cdef void replay_shift(nc_replay* r) noexcept nogil:
    cdef size_t first = <size_t>r.items[r.next].pos
    cdef uint32_t i
    memmove(r.items, r.items + r.next, (r.n - r.next) * sizeof(nc_sent))
    memmove(r.log, r.log + first, r.log_len - first)
    r.n -= r.next
    r.next = 0
    r.log_len -= first
    for i in range(r.n):
        r.items[i].pos -= first


cdef int sent_again(nc_session* s, nc_path* p, const nc_sent* x) noexcept nogil:
    cdef nc_replay* again = &s.replay
    cdef nc_sent* items
    cdef uint8_t* log
    cdef size_t need = again.log_len + x.log_len + HEAD_SLACK
    cdef uint32_t cap
    cdef size_t room
    if not sent_answers(x) or not x.eliciting or (x.log_len == 0 and x.stream == defs.TAG_CONTROL):
        return defs.NC_OK                       # the last: it only asked what goes through, or for an answer
    if x.numbered and order_arrived(s.order, whole_order(s, x)):
        return defs.NC_OK
    if again.next and (again.n == again.cap or need > again.log_cap):
        replay_shift(again)
        need = again.log_len + x.log_len + HEAD_SLACK
    if again.n == again.cap:
        cap = again.cap * 2 if again.cap else 16
        items = <nc_sent*>realloc(again.items, cap * sizeof(nc_sent))
        if items is NULL:
            return defs.NC_ENOMEM
        again.items = items
        again.cap = cap
    if need > again.log_cap:
        room = again.log_cap if again.log_cap else 4096
        while room < need:
            room *= 2
        log = <uint8_t*>realloc(again.log, room)
        if log is NULL:
            return defs.NC_ENOMEM
        again.log = log
        again.log_cap = room
    again.items[again.n] = x[0]
    again.items[again.n].pos = again.log_len
    ring_read(p.log, p.log_cap, log_place(p, x), again.log + again.log_len, x.log_len)
    again.log_len = need
    again.n += 1
    return defs.NC_OK


cdef void sent_pop(nc_path* p, int64_t before) noexcept nogil:
    cdef nc_sent* x
    while p.acked < p.tx_number:
        x = &p.sent[p.acked & (p.sent_cap - 1)]
        if x.state == SENT_FLIGHT and (x.eliciting or p.acked >= p.d.scan):
            break
        if x.state == SENT_LOST and x.at > before and p.tx_number - p.acked < LOST_KEPT:
            break                               # should it have arrived after all, its bytes need not be sent again
        p.log_first += x.log_len
        p.acked += 1
    if p.d.scan < p.acked:
        p.d.scan = p.acked
    ranges_remove_below(&p.d.acked, p.acked)
    log_settle(p)


cdef inline void log_settle(nc_path* p) noexcept nogil:
    if p.log_first == p.log_next and p.log_cap > LOG_IDLE:
        free(p.log)
        p.log = NULL
        p.log_cap = 0


cdef int64_t sent_acked(nc_session* s, nc_path* p, uint64_t number, int64_t now) noexcept nogil:
    cdef nc_sent* x
    cdef nc_trunk_sent* part
    cdef int64_t at = -1
    while p.acked <= number:
        x = &p.sent[p.acked & (p.sent_cap - 1)]
        if p.acked >= p.moved:
            p.log_first += x.log_len
        if x.eliciting:
            at = x.at
        if x.numbered:
            order_acked(s.order, whole_order(s, x))
        if x.rekey > s.rekey_told:
            s.rekey_told = x.rekey
            s.rekey_order = whole_order(s, x) + 1 if x.numbered else 0
        if x.stream == defs.TAG_TRUNK:
            while p.trunk_first < p.trunk_next and p.trunk[p.trunk_first & (p.trunk_cap - 1)].number <= p.acked:
                part = &p.trunk[p.trunk_first & (p.trunk_cap - 1)]
                acked(s, part.stream, part.upto, part.len)
                p.trunk_first += 1
        elif x.stream:
            acked(s, x.stream, x.upto, x.len)
        p.acked += 1
        p.acked_bytes = x.pos
    log_settle(p)
    if p.epoch_waits and p.acked > p.epoch_at:
        p.epoch_waits = 0
        epoch_settled(s)
    sent_settled(s)
    return at


cdef void epoch_begun(nc_session* s) noexcept nogil:
    cdef nc_path* p = s.paths
    while p is not NULL:
        p.epoch_at = p.tx_number
        p.epoch_waits = 1
        p.ping_due = 1
        p = p.next


cdef void epoch_settled(nc_session* s) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef int heard = 0
    cdef int waits = 0
    while p is not NULL:
        if p.epoch_waits and not p.suspect:
            return
        heard |= not p.suspect
        waits |= p.epoch_waits
        p = p.next
    if waits and not heard:
        return
    keys_update_acked(s.sealer.keys, s.sealer.keys.owner.send_epoch)


# --- sending again ----------------------------------------------------------------------------------------------------

# Nobody but who has them now answers for the records below `upto`.
cdef void let_go(nc_path* p, uint64_t upto) noexcept nogil:
    cdef uint64_t i
    for i in range(sent_own(p), upto):
        p.log_first += p.sent[i & (p.sent_cap - 1)].log_len
    if upto > p.moved:
        p.moved = upto


cdef int sent_move(nc_session* s, nc_path* p, uint64_t upto) noexcept nogil:
    if p.d is not NULL:
        return flight_move(s, p)
    return move(s, p, upto, 0)


cdef int sent_give(nc_session* s, nc_path* p, uint64_t upto) noexcept nogil:
    return move(s, p, upto, 1)


# 1: it has to be sent again; copied: others have copies of what the session mirrors.
cdef inline int moves(const nc_sent* x, int copied) noexcept nogil:
    return x.copy == <uint8_t>SENT_ALONE if copied else sent_answers(x)


cdef int move(nc_session* s, nc_path* p, uint64_t upto, int copied) noexcept nogil:
    cdef nc_replay* old = &s.replay
    cdef nc_sent* items
    cdef nc_sent* x
    cdef uint8_t* log
    cdef uint64_t number = sent_own(p), at = p.log_first, total = 0, i
    cdef uint32_t n = 0, k = 0
    for i in range(number, upto):
        x = &p.sent[i & (p.sent_cap - 1)]
        if moves(x, copied):
            n += 1
            total += x.log_len
    if n == 0:
        let_go(p, upto)
        return defs.NC_OK
    for i in range(old.next, old.n):
        total += old.items[i].log_len
    n += old.n - old.next
    total += n * <uint64_t>HEAD_SLACK
    items = <nc_sent*>malloc(n * sizeof(nc_sent))
    log = <uint8_t*>malloc(<size_t>total if total else 1)
    if items is NULL or log is NULL:
        free(items)
        free(log)
        return defs.NC_ENOMEM
    total = 0
    for i in range(number, upto):
        x = &p.sent[i & (p.sent_cap - 1)]
        at += x.log_len
        if not moves(x, copied):
            continue
        items[k] = x[0]
        ring_read(p.log, p.log_cap, at - x.log_len, log + total, x.log_len)
        items[k].pos = total
        total += items[k].log_len + HEAD_SLACK
        k += 1
    for i in range(old.next, old.n):
        items[k] = old.items[i]
        memcpy(log + total, old.log + old.items[i].pos, items[k].log_len)
        items[k].pos = total
        total += items[k].log_len + HEAD_SLACK
        k += 1
    replay_free(s)
    old.items = items
    old.log = log
    old.n = old.cap = n
    old.log_len = old.log_cap = <size_t>total
    let_go(p, upto)
    return defs.NC_OK


# All datagrams of the path that may still be on their way are given up.
cdef int flight_move(nc_session* s, nc_path* p) noexcept nogil:
    cdef nc_sent* x
    cdef uint64_t i
    for i in range(p.acked, p.tx_number):
        x = &p.sent[i & (p.sent_cap - 1)]
        if x.state != SENT_FLIGHT:
            continue
        if sent_again(s, p, x) < 0:
            return defs.NC_ENOMEM
        sent_off(p, x)
        x.state = SENT_LOST
        x.size = 0                              # given to another path, not lost: nothing for the window
    p.d.scan = p.tx_number
    return defs.NC_OK


# The parts of a trunk record that is sealed anew. NC_OK, or NC_EAGAIN: no room in the list for them now.
cdef int note_parts(nc_path* p, const uint8_t* body, size_t n) noexcept nogil:
    cdef nc_rd r
    cdef nc_frame f
    cdef uint64_t before = p.trunk_next
    if p.d is not NULL:
        return defs.NC_OK
    rd_init(&r, body, n)
    pass_number(&r)
    while frame_next(&r, defs.TAG_TRUNK, &f) >= 0:
        if f.type != defs.FRAME_TRUNK_DATA:
            continue
        if not trunk_room(p):
            p.trunk_next = before
            return defs.NC_EAGAIN
        trunk_note(p, f.stream, f.a + f.len, f.len)
    return defs.NC_OK


# Seals record x anew on path p; its frames are at `at` in a log, which is a ring of ring_cap bytes, 0: no ring. Its
# size; 0: no room, or (gone[0] = 1) the outbox holds its bytes no more.
cdef int64_t seal_again(nc_session* s, nc_path* p, const nc_sent* x, const uint8_t* ring, uint32_t ring_cap,
                        uint64_t at, int copy, uint8_t* out, size_t room, int64_t now, int* gone) noexcept nogil:
    cdef nc_end* e
    cdef int64_t size
    cdef uint8_t* body = out + path_head(p, x.stream)
    cdef size_t kept = x.log_len
    gone[0] = 0
    if p.d is not NULL and x.log_len + x.tail_len < <uint32_t>DATAGRAM_PAD:
        memset(body, 0, DATAGRAM_PAD)           # in front: data without a length runs to the end
        kept += DATAGRAM_PAD
    if room < path_head(p, x.stream) + kept + x.tail_len + defs.AEAD_TAG_SIZE:
        return 0
    if ring_cap:
        ring_read(ring, ring_cap, at, body + kept - x.log_len, x.log_len)
    else:
        memcpy(body + kept - x.log_len, ring + at, x.log_len)
    if x.tail_len:
        e = <nc_end*>idmap_get(&s.outs, x.stream)
        if e is NULL or not out_peek(&e.out, x.upto - x.tail_len, body + kept, x.tail_len):
            gone[0] = 1
            return 0
    if x.stream == defs.TAG_TRUNK and note_parts(p, body, kept) < 0:
        return 0
    s.rekey_here = x.rekey
    s.copy_here = <uint8_t>copy
    if x.numbered:
        s.numbered_here = 1
        s.order_here = whole_order(s, x)
    size = finish_record(s, p, out, x.stream, kept + x.tail_len, NULL, 0, 0 if copy == SENT_ONCE else kept, x.upto,
                         x.len, x.eliciting, now)
    s.copy_here = 0
    return size


cdef int64_t send_again(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_replay* again = &s.replay
    cdef nc_sent* x
    cdef int64_t size
    cdef int gone
    while again.next < again.n:
        x = &again.items[again.next]
        if x.numbered and order_arrived(s.order, whole_order(s, x)):
            next_again(s)
            continue
        if s.order is not NULL and x.tail_len and not x.numbered:
            trim(s, x)
        if p.d is not NULL and x.stream >= <uint64_t>defs.TAG_FIRST_STREAM and not x.numbered \
                and cap < path_head(p, x.stream) + x.log_len + x.tail_len + defs.AEAD_TAG_SIZE:
            size = send_piece(s, p, x, out, cap, now, &gone)
        else:
            size = seal_again(s, p, x, again.log, 0, x.pos, x.copy, out, cap, now, &gone)
        if size > 0:
            s.stats.resent += 1
            if not gone:
                next_again(s)
        if gone != 1:
            return size
        if not s.in_order and not x.numbered and strip(s, x):
            continue
        # The outbox holds its bytes no more, so they have come, and with them all of the record.
        if x.numbered:
            order_acked(s.order, whole_order(s, x))
        if s.in_order:
            # No: it has said with POS that the bytes had come, and with JOIN that the record had not.
            fail(s, defs.CLOSE_PROTOCOL)
            replay_free(s)
            return 0
        next_again(s)
    return 0


# 1: the paths beside the one that carries control have it, too.
cdef inline int is_mirrored(const nc_session* s, const nc_sent* x) noexcept nogil:
    if x.copy == <uint8_t>SENT_MIRRORED:
        return 1
    return 1 if copies_all(s) and x.copy < <uint8_t>SENT_ONCE else 0


# Where copies are made of all, who has the copies may answer for them; else they are one more chance.
cdef inline int copy_kind(const nc_session* s) noexcept nogil:
    return SENT_COPY if copies_all(s) else SENT_ONCE


cdef int64_t send_copy(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_path* c = s.control
    cdef nc_sent* x
    cdef int64_t size
    cdef int gone
    if s.order is not NULL:
        return send_copy_free(s, p, out, cap, now)
    if p.copied < sent_own(c):                  # what has arrived meanwhile need not come twice
        p.copied = sent_own(c)
        p.copy_at = c.log_first
    while p.copied < c.tx_number:
        x = &c.sent[p.copied & (c.sent_cap - 1)]
        if not is_mirrored(s, x):
            p.copied += 1
            p.copy_at += x.log_len
            continue
        size = seal_again(s, p, x, c.log, c.log_cap, p.copy_at, copy_kind(s), out, cap, now, &gone)
        if size == 0 and not gone:
            return 0
        if size < 0:
            return size
        p.copied += 1
        p.copy_at += x.log_len
        if size:
            return size
    return 0


# The same where the order of the session restores itself: from the list of either kind of path, what fits.
cdef int64_t send_copy_free(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_path* c = s.control
    cdef nc_sent* x
    cdef int64_t size = 0
    cdef int gone
    if p.copied < sent_own(c):
        p.copied = sent_own(c)
    while p.copied < c.tx_number and size == 0:
        x = &c.sent[p.copied & (c.sent_cap - 1)]
        p.copied += 1
        if (c.d is not NULL and x.state != SENT_FLIGHT) or not x.eliciting or not is_mirrored(s, x):
            continue
        size = seal_again(s, p, x, c.log, c.log_cap, log_place(c, x), copy_kind(s), out, cap, now, &gone)
        if size == 0 and not gone and p.d is NULL:
            p.copied -= 1                       # a stream path takes any record: with the next call
            return 0
    return size


# The bytes of a record are over there, perhaps by parity alone, and not known here any more: what else it said has to
# come, and that it was the end. 0: nothing is left of it.
cdef int strip(nc_session* s, nc_sent* x) noexcept nogil:
    cdef uint8_t* log = s.replay.log + x.pos
    cdef size_t lead
    cdef nc_frame f
    cdef nc_wr w
    if not x.tail_len or not find_data(log, x, &f, &lead) or f.len:
        return 0
    wr_init(&w, log + lead, x.log_len - lead + HEAD_SLACK)
    if f.flags & defs.DATA_FIN and frame_put_data_head(&w, x.upto, defs.DATA_FIN, 0, 0, -1) < 0:
        return 0
    x.log_len = <uint32_t>(w.p - log)
    x.tail_len = 0
    x.len = 0
    return x.log_len > 0


# Some pieces of a record that was cut for datagrams may have come: what is left begins behind the bytes that have.
cdef void trim(nc_session* s, nc_sent* x) noexcept nogil:
    cdef uint8_t* log = s.replay.log + x.pos
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, x.stream)
    cdef uint64_t first = x.upto - x.tail_len
    cdef uint64_t held
    cdef size_t lead
    cdef nc_frame f
    cdef nc_wr w
    if e is NULL:
        return
    held = e.out.received if e.out.received > e.out.acked else e.out.acked
    if held <= first or held >= x.upto or not find_data(log, x, &f, &lead) or f.len:
        return
    wr_init(&w, log + lead, x.log_len - lead + HEAD_SLACK)
    if frame_put_data_head(&w, held, f.flags & defs.DATA_FIN, 0, 0, -1) < 0:
        return
    x.log_len = <uint32_t>(w.p - log)
    x.tail_len -= <uint32_t>(held - first)
    x.len = x.tail_len


# The DATA frame of a record, which is its last; `lead` bytes stand before it.
cdef int find_data(const uint8_t* log, const nc_sent* x, nc_frame* f, size_t* lead) noexcept nogil:
    cdef nc_rd r
    rd_init(&r, log, x.log_len)
    lead[0] = 0
    while frame_next(&r, x.stream, f) >= 0:
        if f.type == defs.FRAME_DATA:
            return 1
        lead[0] = <size_t>(r.p - log)
    return 0


# The first bytes of a record of data that is longer than a datagram; the rest waits on in its place: *gone = 2.
cdef int64_t send_piece(nc_session* s, nc_path* p, nc_sent* x, uint8_t* out, size_t cap, int64_t now,
                        int* gone) noexcept nogil:
    cdef uint8_t* log = s.replay.log + x.pos
    cdef size_t head = path_head(p, x.stream)
    cdef nc_wr w
    cdef nc_frame f
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, x.stream)
    cdef size_t lead, n
    cdef int64_t size
    gone[0] = 1
    if e is NULL or not find_data(log, x, &f, &lead) or f.len:
        return 0                                # all that is longer than a datagram has its bytes in the outbox
    wr_init(&w, out + head, cap - head - defs.AEAD_TAG_SIZE)
    if wr_left(&w) < lead:
        return 0
    memcpy(w.p, log, lead)
    w.p += lead
    if frame_put_data_head(&w, f.a, 0, f.flags & defs.DATA_MSG, f.b, -1) < 0:
        return 0
    n = <size_t>(w.end - w.p)
    if n >= x.tail_len:
        n = x.tail_len - 1
    if not out_peek(&e.out, x.upto - x.tail_len, w.p, n):
        return 0
    s.copy_here = x.copy
    size = finish_record(s, p, out, x.stream, <size_t>(w.p - (out + head)) + n, NULL, 0, <size_t>(w.p - (out + head)),
                         x.upto - x.tail_len + n, n, 1, now)
    s.copy_here = SENT_OWN
    if size < 0:
        return size
    wr_init(&w, log, x.log_len + HEAD_SLACK)
    frame_put_data_head(&w, f.a + n, f.flags & defs.DATA_FIN, 0, 0, -1)
    x.log_len = <uint32_t>(w.p - log)
    x.tail_len -= <uint32_t>n
    x.len -= n
    gone[0] = 2
    return size


cdef void next_again(nc_session* s) noexcept nogil:
    s.replay.next += 1
    if s.replay.next == s.replay.n:
        replay_free(s)


cdef void sent_free(nc_path* p) noexcept nogil:
    free(p.sent)
    free(p.log)
    free(p.trunk)
    free(p.left)
    p.sent = NULL
    p.log = NULL
    p.trunk = NULL
    p.left = NULL
    p.sent_cap = p.log_cap = p.trunk_cap = 0


cdef void replay_free(nc_session* s) noexcept nogil:
    free(s.replay.items)
    free(s.replay.log)
    memset(&s.replay, 0, sizeof(s.replay))
