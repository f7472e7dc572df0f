"""The outbox: bytes of accepted messages until the other side has them.

Layer: _core, rung e; no clock, no key, no frame of its own. Threads and ownership: see the head of outbox.pxd.
Spec: docs/spec/session.md §2, §4, §6 and docs/spec/value.md (moments 4-6, 8 and 9 at the sender).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.cursor cimport VARINT_MAX, store_u16, varint_len, varint_write
from netchan._core.leaf cimport leaf_init, leaf_lock, leaf_unlock, store_seq_u64, load_seq_u64
from netchan._core.over cimport OVER_FIN, OVER_NOT
from netchan._core.ranges cimport nc_ranges, ranges_add, ranges_first_gap, ranges_free, ranges_init, ranges_remove_below
from netchan._core.rendezvous cimport (
    OFFER_OUT, OFFER_TAKEN, offer_bit, offers_answer, offers_let_go, offers_next, offers_room, offers_state,
    offers_want,
)
from netchan._core.segment cimport COPY_MAX, SEG_FIRST, SEG_MAX, nc_seg, seg_new, seg_release, seg_room

cdef uint64_t NOWHERE = ~<uint64_t>0


cdef void out_init(nc_out* o, uint64_t id) noexcept nogil:
    memset(o, 0, sizeof(nc_out))
    leaf_init(&o.lock)
    o.id = id
    o.next_cap = SEG_FIRST
    o.at_boundary = 1


# Links segment s behind the tail; under lock.
cdef void out_link(nc_out* o, nc_seg* s) noexcept nogil:
    s.start = o.appended
    if o.tail is NULL:
        o.head = s
    else:
        o.tail.next = s
    o.tail = s


cdef int out_preface(nc_out* o, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_seg* s = seg_new(n, 0)
    if s is NULL:
        return defs.NC_ENOMEM
    memcpy(seg_room(s), p, n)
    s.len = n
    leaf_lock(&o.lock)
    out_link(o, s)
    o.appended += n
    leaf_unlock(&o.lock)
    return defs.NC_OK


# Under lock: why a message cannot be accepted now, or NC_OK. A rendezvous takes offers, everything else takes none.
cdef int out_gate(nc_out* o, uint32_t offer) noexcept nogil:
    if o.over or o.closing:
        return defs.NC_ECLOSED
    if o.held or o.rendezvous != offer or (offer and not offers_room(&o.offers, o.accepted)):
        return defs.NC_EAGAIN
    if o.accepted + o.reserved >= out_limit(o) or o.appended >= o.max_bytes:
        return defs.NC_EAGAIN
    return defs.NC_OK


# Under lock: the gate of one append. A reserved place needs no room now: credit for bytes may have gone to others, and
# what is accepted beyond it waits here until it may travel.
cdef inline int append_gate(nc_out* o, int flags) noexcept nogil:
    if flags & APPEND_RESERVED:
        return defs.NC_ECLOSED if o.over or o.closing else defs.NC_EAGAIN if o.held else defs.NC_OK
    return out_gate(o, 1 if flags & APPEND_OFFER else 0)


cdef int out_append(nc_out* o, const uint8_t* p, size_t n, int flags, void* pin) noexcept nogil:
    cdef int deliver = flags & APPEND_DELIVER
    cdef uint32_t offer = 1 if flags & APPEND_OFFER else 0
    cdef uint8_t[16] head
    cdef size_t head_len = varint_write(head, (<uint64_t>n << 1) | (1 if deliver else 0))
    cdef size_t small
    cdef nc_seg* spare = NULL
    cdef nc_seg* pinned = NULL
    cdef nc_seg* t
    cdef int rc
    cdef int whole = pin is NULL and n > COPY_MAX       # copied before the lock, into a segment of its own
    if deliver:
        head[head_len] = 2                              # block of 2 bytes: type, length 0
        head[head_len + 1] = defs.FIELD_DELIVER
        head[head_len + 2] = 0
        head_len += 3
    small = head_len if pin is not NULL else head_len + n
    leaf_lock(&o.lock)
    rc = append_gate(o, flags)
    if rc == defs.NC_OK and offer and n > <size_t>defs.OFFER_FREE and o.parked == 0:
        rc = defs.NC_EAGAIN
    t = o.tail
    if rc < 0:
        leaf_unlock(&o.lock)
        return rc
    if whole or t is NULL or t.cap < t.len + small or pin is not NULL:
        leaf_unlock(&o.lock)
        if whole:
            spare = seg_new(small, 0)
        elif t is NULL or t.cap < t.len + small:
            spare = seg_new(small if small > o.next_cap else o.next_cap, 0)
        if pin is not NULL:
            pinned = seg_new(0, 0)
        if (spare is NULL and (whole or t is NULL or t.cap < t.len + small)) or (pinned is NULL and pin is not NULL):
            free(spare)
            free(pinned)
            return defs.NC_ENOMEM
        if whole:
            memcpy(seg_room(spare), head, head_len)
            memcpy(seg_room(spare) + head_len, p, n)
        leaf_lock(&o.lock)
        rc = append_gate(o, flags)
        # The tail may have been acknowledged and freed meanwhile (then it is NULL, and we may have no spare).
        if rc == defs.NC_OK and spare is NULL and (o.tail is NULL or o.tail.cap < o.tail.len + small):
            leaf_unlock(&o.lock)
            free(pinned)
            return out_append(o, p, n, flags, pin)
        if rc < 0:
            leaf_unlock(&o.lock)
            free(spare)
            free(pinned)
            return rc
        if spare is not NULL:
            out_link(o, spare)
            if not whole and o.next_cap < SEG_MAX:
                o.next_cap <<= 1
        t = o.tail
    if t.first_off == NOWHERE:
        t.first_off = o.appended
        t.first_num = o.accepted
    if not whole:
        memcpy(seg_room(t), head, head_len)
        if pin is NULL:
            memcpy(seg_room(t) + head_len, p, n)
    t.len += small
    o.appended += small
    if pin is not NULL:
        pinned.data = p
        pinned.len = n
        pinned.pin = pin
        out_link(o, pinned)
        o.appended += n
    if flags & APPEND_RESERVED:
        o.reserved -= 1
    o.accepted += 1
    leaf_unlock(&o.lock)
    return defs.NC_OK


# Under lock, and the gate is open: puts messages behind each other into segment t, as far as credit and its room go.
# How many; *used are their bytes.
cdef int out_put_run(nc_out* o, nc_seg* t, const uint8_t** p, const size_t* n, int count,
                     uint64_t* used) noexcept nogil:
    cdef uint64_t room = out_limit(o) - o.accepted - o.reserved     # it only grows while we hold the lock
    cdef uint64_t credit = o.max_bytes - o.appended
    cdef uint8_t* start = seg_room(t)
    cdef uint8_t* at = start
    # a segment that holds a pinned value has no room, and its bytes are elsewhere
    cdef const uint8_t* end = start + (t.cap - <size_t>t.len if t.cap > t.len else 0)
    cdef uint64_t head
    cdef size_t head_len
    cdef int done = 0
    if <uint64_t>count > room:
        count = <int>room
    while done < count and <uint64_t>(at - start) < credit:
        head = <uint64_t>n[done] << 1
        head_len = 1 if head < 0x40 else 2 if head < 0x4000 else varint_len(head)
        if <size_t>(end - at) < head_len + n[done]:
            break
        if head_len == 2:
            store_u16(at, <uint16_t>(head | 0x4000))
        else:
            varint_write(at, head)
        memcpy(at + head_len, p[done], n[done])
        at += head_len + n[done]
        done += 1
    used[0] = <uint64_t>(at - start)
    if done and t.first_off == NOWHERE:
        t.first_off = o.appended
        t.first_num = o.accepted
    t.len += used[0]
    o.appended += used[0]
    o.accepted += <uint64_t>done
    return done


cdef int out_append_run(nc_out* o, const uint8_t** p, const size_t* n, int count, uint64_t* total) noexcept nogil:
    cdef size_t need = 0
    cdef uint64_t used = 0
    cdef nc_seg* spare = NULL
    cdef nc_seg* t
    cdef int done = 0
    cdef int rc
    while True:
        leaf_lock(&o.lock)
        if spare is not NULL and (o.tail is NULL or o.tail.cap < o.tail.len + need):
            out_link(o, spare)
            spare = NULL
            if o.next_cap < SEG_MAX:
                o.next_cap <<= 1
        t = o.tail
        rc = out_gate(o, 0)
        if rc == defs.NC_OK and t is not NULL:
            done += out_put_run(o, t, p + done, n + done, count - done, &used)
            total[0] += used
            if done < count:
                rc = out_gate(o, 0)
        leaf_unlock(&o.lock)
        if done == count or rc < 0:
            break
        need = varint_len(<uint64_t>n[done] << 1) + n[done]
        if spare is NULL:                           # else it was too small for another thread's sake: it fits the next
            spare = seg_new(need if need > o.next_cap else o.next_cap, 0)
            if spare is NULL:
                rc = defs.NC_ENOMEM
                break
    free(spare)
    return done if done else rc


cdef int out_reserve(nc_out* o) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = out_gate(o, 0)
    if rc == defs.NC_OK:
        o.reserved += 1
    leaf_unlock(&o.lock)
    return rc


cdef void out_unreserve(nc_out* o) noexcept nogil:
    leaf_lock(&o.lock)
    o.reserved -= 1
    leaf_unlock(&o.lock)


cdef int out_has_room(nc_out* o) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = out_gate(o, 0)
    leaf_unlock(&o.lock)
    return 1 if rc != defs.NC_EAGAIN else 0


cdef int out_close(nc_out* o) noexcept nogil:
    cdef int rc = defs.NC_OK
    leaf_lock(&o.lock)
    if o.over or o.closing:
        rc = defs.NC_ECLOSED
    else:
        o.closing = 1
        o.fin_at = o.appended
    leaf_unlock(&o.lock)
    return rc


cdef void out_end(nc_out* o, uint32_t over) noexcept nogil:
    leaf_lock(&o.lock)
    if o.over == OVER_NOT:
        o.over = over
    leaf_unlock(&o.lock)


# Under lock: no further than to a gap, which SKIP has to say, and to the last message that credit allows: what is
# accepted without credit (lossy.pyx) waits for it here.
cdef inline uint64_t fresh_limit(nc_out* o, uint64_t upto) noexcept nogil:
    cdef uint64_t first = o.fresh.start if o.fresh is not NULL else o.appended
    cdef uint64_t number = o.fresh_num
    cdef nc_seg* s = o.fresh
    if o.gap_msgs and first - o.gap_bytes < upto:
        return first - o.gap_bytes
    if o.fresh is NULL or number + o.n_fresh <= o.max_msgs:
        return upto
    while s is not NULL and not (s.first_off != NOWHERE and number >= o.max_msgs):
        if s.first_off != NOWHERE:
            number += 1
        s = s.next
    return s.start if s is not NULL and s.start < upto else upto


# Under lock: offset up to which bytes may be sealed now.
cdef uint64_t out_limit_bytes(nc_out* o) noexcept nogil:
    cdef uint64_t upto = o.appended if o.appended < o.max_bytes else o.max_bytes
    if upto < o.sent:
        upto = o.sent                           # SKIP needs no credit for bytes
    return fresh_limit(o, upto) if o.lossy else upto


# Under lock: the first message of which no byte was sealed is about to be.
cdef void out_begun(nc_out* o) noexcept nogil:
    o.before = o.fresh
    if o.before.next is not NULL and o.before.next.first_off == NOWHERE:
        o.before = o.before.next
    o.fresh = o.before.next
    o.n_fresh -= 1
    o.fresh_num += 1


cdef uint64_t out_ready(nc_out* o, int* fin) noexcept nogil:
    cdef uint64_t upto
    leaf_lock(&o.lock)
    o.seen_msgs = o.accepted
    upto = out_limit_bytes(o)
    fin[0] = 1 if o.closing and upto == o.fin_at and not o.fin_sent else 0
    if upto < o.appended and o.sent >= upto:
        o.credit_stalls += 1
    # The bytes up to here are the application's last word: a record that ends here ends at a message boundary.
    if o.sent == upto and not fin[0]:
        upto = o.sent
    leaf_unlock(&o.lock)
    return upto - o.sent if upto > o.sent else 0


cdef inline void out_settle(nc_out* o) noexcept nogil:
    if o.cur is NULL:
        o.cur = o.head
    while o.cur is not NULL and o.sent >= o.cur.start + o.cur.len and o.cur.next is not NULL:
        o.cur = o.cur.next


cdef size_t out_span(nc_out* o, const uint8_t** p, size_t n) noexcept nogil:
    cdef size_t have
    leaf_lock(&o.lock)
    out_settle(o)
    if o.cur is NULL:
        leaf_unlock(&o.lock)
        return 0
    p[0] = o.cur.data + (o.sent - o.cur.start)
    have = <size_t>(o.cur.start + o.cur.len - o.sent)
    leaf_unlock(&o.lock)
    return have if have < n else n


cdef void out_pass(nc_out* o, size_t n) noexcept nogil:
    leaf_lock(&o.lock)
    o.sent += n
    o.at_boundary = 1 if o.sent == o.appended else 0
    if o.at_boundary:
        o.sent_msgs = o.accepted
    leaf_unlock(&o.lock)


cdef void out_read(nc_out* o, uint8_t* dst, size_t n) noexcept nogil:
    cdef const uint8_t* p
    cdef size_t k
    while n:
        k = out_span(o, &p, n)
        if k == 0:
            return
        memcpy(dst, p, k)
        out_pass(o, k)
        dst += k
        n -= k


cdef int out_peek(nc_out* o, uint64_t at, uint8_t* dst, size_t n) noexcept nogil:
    cdef nc_seg* s
    cdef size_t k
    leaf_lock(&o.lock)
    s = o.head
    while n and s is not NULL and s.start <= at:
        if at < s.start + s.len:
            k = <size_t>(s.start + s.len - at)
            if k > n:
                k = n
            memcpy(dst, s.data + (at - s.start), k)
            at += k
            dst += k
            n -= k
        s = s.next
    leaf_unlock(&o.lock)
    return 1 if n == 0 else 0


cdef void out_ack(nc_out* o, uint64_t upto, nc_seg** pins) noexcept nogil:
    cdef nc_seg* gone = NULL
    cdef nc_seg* last = NULL
    cdef nc_seg* s
    if upto <= o.acked:
        return
    if upto > o.sent:
        upto = o.sent
    if o.early is not NULL:
        upto = ranges_first_gap(o.early, upto)
        ranges_remove_below(o.early, upto)
        if o.early.len == 0:
            early_free(o)
    o.acked = upto
    leaf_lock(&o.lock)
    while o.head is not NULL and o.head.start + o.head.len <= upto:
        s = o.head
        if s == o.tail:
            # An own tail that is small stays for the next append; a large or pinned one goes.
            if s.cap and s.cap <= SEG_FIRST and s.len < s.cap:
                break
            o.tail = NULL
            o.next_cap = SEG_FIRST if s.cap <= SEG_FIRST else s.cap >> 1
            if o.next_cap > SEG_MAX:
                o.next_cap = SEG_MAX
        if o.cur == s:
            o.cur = s.next
        if o.before == s:
            o.before = NULL
        o.head = s.next
        s.next = NULL
        if gone is NULL:
            gone = s
        else:
            last.next = s
        last = s
    leaf_unlock(&o.lock)
    while gone is not NULL:
        s = gone.next
        seg_release(gone, pins)
        gone = s


cdef void early_free(nc_out* o) noexcept nogil:
    if o.early is not NULL:
        ranges_free(o.early)
        free(o.early)
        o.early = NULL


cdef void out_ack_part(nc_out* o, uint64_t first, uint64_t upto, nc_seg** pins) noexcept nogil:
    if first <= o.acked:
        out_ack(o, upto, pins)
        return
    if o.early is NULL:
        o.early = <nc_ranges*>calloc(1, sizeof(nc_ranges))
        if o.early is NULL:
            return                              # POS tells the same, later
        ranges_init(o.early, defs.GAPS_MAX)
    ranges_add(o.early, first, upto)            # without room for it, too


cdef int out_pos(nc_out* o, uint64_t received, uint64_t taken, uint64_t max_msgs, uint64_t max_bytes,
                 nc_seg** pins) noexcept nogil:
    cdef int moved = 0
    if received == VARINT_MAX and taken == VARINT_MAX and o.fin_sent:      # finished and forgotten over there
        received = o.sent
        taken = o.accepted
    if received > o.sent or taken > (o.sent_msgs if o.at_boundary else o.accepted):
        return defs.NC_EFRAME
    if received > o.received:
        store_seq_u64(&o.received, received)
        moved = 1
    if o.fin_sent and not o.fin_acked and o.received >= o.fin_at:
        o.fin_acked = 1                         # also when all bytes were there before the end was said
        moved = 1
    if taken > o.taken:
        store_seq_u64(&o.taken, taken)
        moved = 1
    if max_msgs > o.max_msgs or max_bytes > o.max_bytes:
        leaf_lock(&o.lock)
        if max_msgs > o.max_msgs:
            o.max_msgs = max_msgs
        if max_bytes > o.max_bytes:
            o.max_bytes = max_bytes
        leaf_unlock(&o.lock)
        moved = 1
    out_ack(o, received, pins)
    return moved


cdef void out_narrow(nc_out* o, uint64_t capacity) noexcept nogil:
    leaf_lock(&o.lock)
    o.capacity = capacity
    leaf_unlock(&o.lock)


cdef uint64_t out_limit(nc_out* o) noexcept nogil:
    cdef uint64_t most
    if o.capacity == 0:
        return o.max_msgs
    most = load_seq_u64(&o.taken) + o.capacity
    return most if most < o.max_msgs else o.max_msgs


cdef void out_rendezvous(nc_out* o) noexcept nogil:
    leaf_lock(&o.lock)
    o.rendezvous = 1
    o.offers.low = o.accepted
    leaf_unlock(&o.lock)


cdef int out_want(nc_out* o, uint64_t version, uint64_t parked) noexcept nogil:
    cdef int moved
    leaf_lock(&o.lock)
    moved = 1 if version > o.want_version and parked != o.parked else 0
    if version > o.want_version:
        o.want_version = version
        o.parked = parked
    leaf_unlock(&o.lock)
    return moved


cdef int out_answer(nc_out* o, uint64_t n, int taken) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = offers_answer(&o.offers, n, taken)
    leaf_unlock(&o.lock)
    return rc


cdef int out_next_withdraw(nc_out* o, uint64_t* n) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = offers_next(&o.offers, n)
    leaf_unlock(&o.lock)
    return rc


cdef void out_withdraw_said(nc_out* o, uint64_t n) noexcept nogil:
    leaf_lock(&o.lock)
    o.offers.told |= offer_bit(n)
    leaf_unlock(&o.lock)


cdef int out_offer_state(nc_out* o, uint64_t n) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = offers_state(&o.offers, n, load_seq_u64(&o.taken))
    if rc == OFFER_OUT and o.over == OVER_FIN:
        rc = OFFER_TAKEN                        # finished over there before WITHDRAW came: no answer follows
    leaf_unlock(&o.lock)
    return rc


cdef int out_offer_want(nc_out* o, uint64_t n) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = offers_want(&o.offers, n, load_seq_u64(&o.taken))
    leaf_unlock(&o.lock)
    return rc


cdef void out_offer_let_go(nc_out* o, uint64_t n) noexcept nogil:
    leaf_lock(&o.lock)
    offers_let_go(&o.offers, n)
    leaf_unlock(&o.lock)


cdef int out_offer_room(nc_out* o) noexcept nogil:
    cdef int rc
    leaf_lock(&o.lock)
    rc = out_gate(o, 1)
    leaf_unlock(&o.lock)
    return 1 if rc != defs.NC_EAGAIN else 0


cdef void out_free(nc_out* o, nc_seg** pins) noexcept nogil:
    cdef nc_seg* s
    leaf_lock(&o.lock)
    s = o.head
    o.head = o.tail = o.cur = o.fresh = o.before = NULL
    leaf_unlock(&o.lock)
    early_free(o)
    cdef nc_seg* following
    while s is not NULL:
        following = s.next
        seg_release(s, pins)
        s = following
