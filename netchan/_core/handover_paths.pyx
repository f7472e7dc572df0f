"""The paths of a session on their way to another process: numbers, records in flight, their log, the half of a record.

Layer: _core, rung l. One walk for both directions (walk.pxd). What is read is checked as bytes of a stranger are: lists
are as long as they say, the log is as long as its records need, and what points into it is counted anew.
Spec: docs/spec/handover.md §4.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from netchan._core cimport defs
from netchan._core.congestion cimport cc_init
from netchan._core.datagram cimport DATAGRAM_MOST, DATAGRAM_MTU
from netchan._core.ecn cimport ECN_FAILED, nc_ecn
from netchan._core.flight cimport CHALLENGED_NEVER, flight_new
from netchan._core.order cimport ORDER_BODY, ORDER_WINDOW, nc_order, order_keep, order_look, order_new
from netchan._core.ranges cimport nc_ranges, ranges_add, ranges_end
from netchan._core.replay cimport REPLAY_BITS_MAX, REPLAY_BITS_MIN, replay_grow
from netchan._core.sent cimport LOG_RECORD, LOG_RESERVE, SENT_MIRRORED, sent_own
from netchan._core.state cimport (
    PATH_SILENT, SENT_FLIGHT, SENT_NONE, SESSION_SUSPENDED, STANDBY_OURS, STANDBY_THEIRS, STATE_SUSPECT, TOKEN_CAME,
    nc_dgram, nc_path, nc_replay, nc_sent, nc_session, nc_trunk_sent,
)
from netchan._core.walk cimport (
    nc_walk, walk_count, walk_fail, walk_flag, walk_need, walk_next, walk_pos, walk_raw, walk_span, walk_time, walk_u16,
    walk_u32, walk_u64, walk_u8,
)

cdef enum:
    SENT_SIZE = 64                  # bytes of one sent record
    PART_SIZE = 32                  # of one part of a trunk record
    KEPT_SIZE = 18                  # of a record that was kept, at least
    TRUNK_MOST = 65536              # parts of trunk records in flight
    AGAIN_MOST = 4194304            # records that wait to be sent again: those of 64 paths
    HEAD_SLACK = 16                 # as in sent.pyx
    RECORD_MOST = 65535             # bytes of a record, without its length

cdef uint64_t AGAIN_BYTES = <uint64_t>1 << 28   # and their frames


# --- small parts ------------------------------------------------------------------------------------------------------

cdef void walk_ranges(nc_walk* w, nc_ranges* r) noexcept nogil:
    cdef uint64_t lo, hi
    cdef uint32_t n = walk_count(w, r.len, r.max, 16)
    cdef uint32_t i
    for i in range(n):
        if not w.reads:
            lo = r.v[i].lo
            hi = r.v[i].hi
        walk_pos(w, &lo)
        walk_pos(w, &hi)
        if not w.reads:
            continue
        walk_need(w, lo < hi and (r.len == 0 or lo > ranges_end(r)))
        if w.rc == defs.NC_OK and ranges_add(r, lo, hi) < 0:
            walk_fail(w, defs.NC_ENOMEM)


cdef void walk_order(nc_walk* w, nc_session* s) noexcept nogil:
    cdef nc_order* o
    cdef uint8_t has = 1 if s.order is not NULL else 0
    cdef uint64_t number = 0, tag = 0, k
    cdef uint8_t[1100] body
    cdef uint16_t len_ = 0
    cdef uint32_t n, i, _i
    walk_flag(w, &has)
    walk_need(w, has == (1 if s.mine.datagrams else 0))
    if w.rc < 0 or not has:
        return
    if s.order is NULL:
        s.order = order_new()
    o = s.order
    if o is NULL:
        walk_fail(w, defs.NC_ENOMEM)
        return
    walk_pos(w, &o.next)
    walk_pos(w, &o.floor)
    walk_need(w, o.floor <= o.next and o.next - o.floor <= <uint64_t>ORDER_WINDOW)
    for i in range(16):
        walk_u64(w, &o.acked[i])
    walk_pos(w, &o.want)
    n = walk_count(w, o.n_kept, ORDER_WINDOW, KEPT_SIZE)
    k = o.want
    for _i in range(n):
        if not w.reads:
            while o.kept[k & (ORDER_WINDOW - 1)].body is NULL:
                k += 1
            number = k
            tag = o.kept[k & (ORDER_WINDOW - 1)].tag
            len_ = <uint16_t>o.kept[k & (ORDER_WINDOW - 1)].len
            k += 1
        walk_pos(w, &number)
        walk_pos(w, &tag)
        walk_u16(w, &len_)
        walk_need(w, len_ <= ORDER_BODY)
        if w.rc < 0:
            return
        if not w.reads:
            walk_raw(w, o.kept[number & (ORDER_WINDOW - 1)].body, len_)
            continue
        walk_raw(w, body, len_)
        walk_need(w, number == o.want or order_look(o, number) == defs.NC_EAGAIN)
        walk_need(w, o.kept is NULL or o.kept[number & (ORDER_WINDOW - 1)].body is NULL)
        if w.rc == defs.NC_OK and order_keep(o, number, tag, body, len_) < 0:
            walk_fail(w, defs.NC_ENOMEM)


# --- records in flight ------------------------------------------------------------------------------------------------

cdef void walk_sent(nc_walk* w, nc_session* s, nc_sent* x) noexcept nogil:
    walk_pos(w, &x.stream)
    walk_pos(w, &x.upto)
    walk_pos(w, &x.len)
    walk_time(w, &x.at)
    walk_u64(w, &x.pos)
    walk_u32(w, &x.log_len)
    walk_u32(w, &x.tail_len)
    walk_u32(w, &x.rekey)
    walk_flag(w, &x.eliciting)
    walk_u8(w, &x.copy)
    walk_need(w, x.copy <= <uint8_t>SENT_MIRRORED)
    walk_u8(w, &x.state)
    walk_flag(w, &x.numbered)
    walk_u32(w, &x.order)
    walk_u32(w, &x.size)
    if w.reads:
        walk_need(w, x.len <= x.upto and x.log_len <= <uint32_t>LOG_RECORD)
        walk_need(w, x.stream < <uint64_t>defs.TAG_FIRST_STREAM or x.tail_len <= x.upto)
        walk_need(w, x.tail_len <= <uint32_t>RECORD_MOST and x.state <= SENT_NONE)
        walk_need(w, not x.numbered or s.order is not NULL)


cdef inline uint32_t ring_size(uint64_t n, uint32_t least) noexcept nogil:
    cdef uint32_t cap = least
    while cap < n:
        cap *= 2
    return cap


cdef void walk_records(nc_walk* w, nc_session* s, nc_path* p) noexcept nogil:
    cdef uint64_t logged = 0, total
    cdef uint64_t number
    cdef uint64_t own = sent_own(p)
    cdef uint32_t n = walk_count(w, <uint32_t>(p.tx_number - p.acked), defs.SENT_MAX, SENT_SIZE)
    cdef nc_sent* x
    if w.reads:
        walk_need(w, n == p.tx_number - p.acked)
        if w.rc < 0:
            return
        p.sent_cap = ring_size(n + 1, 16)
        p.sent = <nc_sent*>calloc(p.sent_cap, sizeof(nc_sent))
        if p.sent is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
    for number in range(p.acked, p.tx_number):
        x = &p.sent[number & (p.sent_cap - 1)]
        walk_sent(w, s, x)
        if w.rc < 0:
            return
        if number >= own:
            if w.reads:
                x.log_at = <uint32_t>(p.log_first + logged)
            logged += x.log_len
    total = p.log_next - p.log_first
    walk_u64(w, &total)
    walk_need(w, total == logged and total <= <uint64_t>defs.LOG_MAX + LOG_RECORD + LOG_RESERVE)
    walk_log(w, p, total)


cdef void walk_log(nc_walk* w, nc_path* p, uint64_t total) noexcept nogil:
    cdef const uint8_t* at
    cdef uint64_t i
    cdef size_t run
    if w.rc < 0:
        return
    if not w.reads:
        i = p.log_first
        while i < p.log_next and w.rc == defs.NC_OK:    # up to the end of the ring, then from its start
            run = p.log_cap - <size_t>(i & (p.log_cap - 1))
            if run > p.log_next - i:
                run = <size_t>(p.log_next - i)
            walk_raw(w, p.log + (i & (p.log_cap - 1)), run)
            i += run
        return
    p.log_next = p.log_first
    at = walk_next(w, <size_t>total)
    if at is NULL or total == 0:
        return
    p.log_cap = ring_size(total, 256)
    p.log = <uint8_t*>malloc(p.log_cap)
    if p.log is NULL:
        p.log_cap = 0
        walk_fail(w, defs.NC_ENOMEM)
        return
    for i in range(total):
        p.log[(p.log_first + i) & (p.log_cap - 1)] = at[i]
    p.log_next = p.log_first + total


cdef void walk_trunk(nc_walk* w, nc_path* p) noexcept nogil:
    cdef uint32_t n = walk_count(w, <uint32_t>(p.trunk_next - p.trunk_first), TRUNK_MOST, PART_SIZE)
    cdef uint64_t i
    if w.reads:
        p.trunk_first = 0
        p.trunk_next = n
        if n:
            p.trunk_cap = ring_size(n, 64)
            p.trunk = <nc_trunk_sent*>calloc(p.trunk_cap, sizeof(nc_trunk_sent))
            if p.trunk is NULL:
                p.trunk_next = p.trunk_cap = 0
                walk_fail(w, defs.NC_ENOMEM)
    for i in range(p.trunk_first, p.trunk_next):
        walk_pos(w, &p.trunk[i & (p.trunk_cap - 1)].number)
        walk_pos(w, &p.trunk[i & (p.trunk_cap - 1)].stream)
        walk_pos(w, &p.trunk[i & (p.trunk_cap - 1)].upto)
        walk_pos(w, &p.trunk[i & (p.trunk_cap - 1)].len)
        walk_need(w, p.trunk[i & (p.trunk_cap - 1)].len <= p.trunk[i & (p.trunk_cap - 1)].upto)


# The begun record at the end of what was received.
cdef void walk_left_over(nc_walk* w, nc_path* p) noexcept nogil:
    cdef uint32_t n = walk_count(w, <uint32_t>p.left_len, RECORD_MOST + 2, 1)
    if not w.reads:
        walk_raw(w, p.left, n)
        return
    if n == 0 or w.rc < 0:
        return
    p.left = <uint8_t*>malloc(n)
    if p.left is NULL:
        walk_fail(w, defs.NC_ENOMEM)
        return
    walk_raw(w, p.left, n)
    p.left_len = p.left_cap = n


# --- a datagram path --------------------------------------------------------------------------------------------------

# What was counted. What was sealed before the hand-over counts as not marked there: the check of these is milder.
cdef void walk_ecn(nc_walk* w, nc_path* p) noexcept nogil:
    cdef nc_ecn* e = &p.d.ecn
    cdef uint64_t sent = e.sent + (p.tx_number - e.counted if e.marking else 0)
    cdef int i
    walk_u8(w, &e.state)
    walk_need(w, e.state <= ECN_FAILED)
    walk_pos(w, &sent)
    walk_pos(w, &e.tests_lost)
    for i in range(2):
        walk_pos(w, &e.said[i])
    for i in range(3):
        walk_pos(w, &e.got[i])
    if w.reads:
        e.sent = sent


cdef void walk_dgram(nc_walk* w, nc_dgram* d) noexcept nogil:
    cdef uint32_t bits = d.window.n_bits
    cdef uint8_t challenged = 0
    cdef uint32_t i
    walk_raw(w, d.cid, 8)
    walk_raw(w, d.own_cid, 8)
    walk_raw(w, d.token, 16)
    walk_raw(w, d.own_token, 16)
    walk_u8(w, &d.token_known)
    walk_need(w, d.token_known <= TOKEN_CAME)
    walk_flag(w, &d.token_due)
    walk_u32(w, &d.mtu)
    walk_need(w, <uint32_t>DATAGRAM_MTU <= d.mtu <= <uint32_t>DATAGRAM_MOST)
    walk_u32(w, &bits)
    walk_need(w, <uint32_t>REPLAY_BITS_MIN <= bits <= <uint32_t>REPLAY_BITS_MAX and bits & (bits - 1) == 0)
    if w.rc < 0:
        return
    if w.reads:
        if replay_grow(&d.window, bits) < 0:
            walk_fail(w, defs.NC_ENOMEM)
            return
        walk_need(w, bits == d.window.n_bits)
        if w.rc < 0:
            return
    for i in range(bits // 64):
        walk_u64(w, &d.window.bits[i])
    walk_pos(w, &d.window.next)
    walk_pos(w, &d.window.floor)
    walk_u64(w, &d.window.n_too_old)
    walk_u64(w, &d.window.n_seen)
    walk_u64(w, &d.window.n_last)
    walk_ranges(w, &d.got)
    walk_time(w, &d.largest_at)
    walk_u32(w, &d.unacked)
    walk_ranges(w, &d.acked)
    walk_pos(w, &d.largest_acked)
    walk_pos(w, &d.scan)
    walk_time(w, &d.loss_at)
    walk_time(w, &d.eliciting_at)
    walk_u32(w, &d.pto_count)
    walk_u32(w, &d.probes)
    walk_pos(w, &d.skip_at)
    walk_u32(w, &d.reordered)
    walk_time(w, &d.pace_at)
    walk_raw(w, d.challenge, 8)
    walk_flag(w, &challenged)                   # a new address that was being proved is proved again
    walk_flag(w, &d.response_due)
    walk_raw(w, d.response, 8)
    walk_span(w, &d.latest_rtt)
    walk_time(w, &d.first_rtt_at)
    walk_pos(w, &d.probe_number)
    walk_time(w, &d.probe_at)
    walk_u8(w, &d.probe_step)
    walk_u8(w, &d.probe_tries)
    walk_u32(w, &d.long_lost)
    walk_time(w, &d.long_at)
    walk_u64(w, &d.n_lost)
    walk_u64(w, &d.n_found)
    walk_u64(w, &d.n_refused)
    walk_u64(w, &d.n_timeouts)
    walk_u64(w, &d.n_marked)
    if w.reads:
        walk_need(w, d.probe_step <= 3 and 3 <= d.reordered <= 64 and d.window.floor <= d.window.next)
        cc_init(&d.cc, d.mtu)


# What is in flight is counted anew.
cdef void count_flight(nc_walk* w, nc_path* p) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef nc_sent* x
    cdef uint64_t number
    d.eliciting = 0
    walk_need(w, d.scan >= p.acked and d.scan <= p.tx_number and d.largest_acked <= p.tx_number)
    if w.rc < 0:
        return
    for number in range(p.acked, p.tx_number):
        x = &p.sent[number & (p.sent_cap - 1)]
        walk_need(w, x.size <= <uint32_t>RECORD_MOST)
        if x.state == SENT_FLIGHT and x.eliciting:
            d.eliciting += 1
            d.cc.in_flight += x.size


# --- a path -----------------------------------------------------------------------------------------------------------

cdef void walk_path(nc_walk* w, nc_session* s, nc_path* p) noexcept nogil:
    walk_u8(w, &p.suspect)
    walk_need(w, p.suspect <= PATH_SILENT)
    walk_u8(w, &p.standby)
    walk_need(w, p.standby <= (STANDBY_OURS | STANDBY_THEIRS))
    walk_flag(w, &p.aside)
    walk_flag(w, &p.status_due)
    walk_u8(w, &p.shown)
    walk_need(w, p.shown <= STATE_SUSPECT)
    walk_pos(w, &p.status_said)
    walk_pos(w, &p.status_heard)
    walk_flag(w, &p.ping_due)
    walk_u8(w, &p.close_said)
    walk_flag(w, &p.epoch_waits)
    walk_pos(w, &p.epoch_at)
    walk_pos(w, &p.tx_number)
    walk_pos(w, &p.rx_number)
    walk_pos(w, &p.acked)
    walk_pos(w, &p.moved)
    walk_pos(w, &p.whole_from)
    walk_pos(w, &p.copied)
    walk_pos(w, &p.copies)
    walk_pos(w, &p.copy_from)
    walk_need(w, p.acked <= p.tx_number and p.moved <= p.tx_number and p.whole_from <= p.tx_number)
    walk_need(w, p.d is NULL or p.moved == 0)
    walk_pos(w, &p.log_first)
    if w.rc < 0:
        return
    walk_records(w, s, p)
    walk_trunk(w, p)
    walk_left_over(w, p)
    walk_raw(w, p.binding, 32)
    walk_time(w, &p.rx_at)
    walk_time(w, &p.tx_at)
    walk_time(w, &p.oldest_at)
    walk_u64(w, &p.unacked_records)
    walk_u64(w, &p.unacked_bytes)
    walk_time(w, &p.ack_at)
    walk_time(w, &p.acked_at)
    walk_time(w, &p.ping_at)
    walk_span(w, &p.ping_gap)
    walk_span(w, &p.srtt)
    walk_span(w, &p.rttvar)
    walk_span(w, &p.min_rtt)
    walk_pos(w, &p.tx_bytes)
    walk_pos(w, &p.acked_bytes)
    walk_u64(w, &p.rate)
    walk_pos(w, &p.rate_number)
    walk_time(w, &p.rate_at)
    walk_flag(w, &p.rate_marked)
    walk_u8(w, &p.rate_steady)
    walk_pos(w, &p.rate_bytes)
    walk_flag(w, &p.limited)
    if w.reads and w.rc == defs.NC_OK:
        walk_need(w, p.ping_gap > 0 and p.acked_bytes <= p.tx_bytes and p.rate_bytes <= p.acked_bytes)
        if p.d is not NULL:
            count_flight(w, p)


# Where copies of what the path of control has in flight are made from: its log may begin elsewhere here.
cdef void point_copies(nc_walk* w, nc_session* s) noexcept nogil:
    cdef nc_path* c = s.control
    cdef nc_path* p = s.paths
    cdef uint64_t i
    while p is not NULL:
        if p == c or c is NULL:
            p.copied = p.copies = p.copy_from = 0
        walk_need(w, c is NULL or (p.copied <= c.tx_number and p.copy_from <= c.tx_number))
        walk_need(w, p.copies <= p.tx_number)
        if w.rc < 0:
            return
        if c is not NULL and p != c and s.order is NULL:
            if p.copied < sent_own(c):
                p.copied = sent_own(c)
            p.copy_at = c.log_first
            for i in range(sent_own(c), p.copied):
                p.copy_at += c.sent[i & (c.sent_cap - 1)].log_len
        p = p.next


cdef nc_path* fresh_path(nc_walk* w, nc_session* s, uint32_t id, uint8_t kind) noexcept nogil:
    cdef nc_path* p = <nc_path*>calloc(1, sizeof(nc_path))
    cdef uint8_t[8] none
    if p is NULL:
        walk_fail(w, defs.NC_ENOMEM)
        return NULL
    memset(none, 0, 8)
    p.id = id
    if kind == 2:
        p.d = flight_new(none, none, DATAGRAM_MTU, 0)
        if p.d is NULL:
            free(p)
            walk_fail(w, defs.NC_ENOMEM)
            return NULL
    return p


# One path of the list, or the last one of a suspended session; it hangs on the session as soon as it is there.
cdef void walk_one(nc_walk* w, nc_session* s, nc_path** at, uint8_t alive) noexcept nogil:
    cdef nc_path* p = at[0]
    cdef uint32_t id = p.id if p is not NULL else 0
    cdef uint8_t kind = 0 if p is NULL else 1 if p.d is NULL else 2
    cdef uint8_t key = <uint8_t>p.key if p is not NULL else 0
    walk_u32(w, &id)
    walk_u8(w, &kind)
    walk_u8(w, &key)
    if w.reads:
        walk_need(w, kind == 1 or (kind == 2 and s.order is not NULL))
        if alive:
            walk_need(w, key < 64)
            walk_need(w, w.rc < 0 or (s.sealer.keys.paths[key].kind == kind
                                      and s.sealer.keys.paths[key].path_id == id))
        if w.rc < 0:
            return
        p = fresh_path(w, s, id, kind)
        if p is NULL:
            return
        at[0] = p
        p.key = key
        p.alive = alive
        s.n_paths += alive
    if p.d is not NULL:
        walk_dgram(w, p.d)
        walk_ecn(w, p)
    if w.rc == defs.NC_OK:
        walk_path(w, s, p)
    if w.reads and w.rc == defs.NC_OK and p.d is not NULL and s.role and p.rx_number == 0:
        p.d.challenged = CHALLENGED_NEVER       # whatever it was: nothing has come from there yet


cdef void walk_again(nc_walk* w, nc_session* s) noexcept nogil:
    cdef nc_replay* r = &s.replay
    cdef uint32_t n = walk_count(w, r.n - r.next, AGAIN_MOST, SENT_SIZE)
    cdef uint64_t total = 0
    cdef uint8_t* bigger
    cdef uint32_t i
    cdef nc_sent* x
    if w.reads and n:
        r.items = <nc_sent*>calloc(n, sizeof(nc_sent))
        if r.items is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        r.cap = n
    for i in range(n):
        x = &r.items[r.next + i]
        if not w.reads:
            walk_sent(w, s, x)
            walk_raw(w, r.log + x.pos, x.log_len)
            continue
        walk_sent(w, s, x)
        walk_need(w, total < AGAIN_BYTES)
        if w.rc < 0:
            return
        if total + x.log_len + HEAD_SLACK > r.log_cap:
            r.log_cap = <size_t>(2 * total) + x.log_len + 4096
            bigger = <uint8_t*>realloc(r.log, r.log_cap)
            if bigger is NULL:
                walk_fail(w, defs.NC_ENOMEM)
                return
            r.log = bigger
        x.pos = total
        walk_raw(w, r.log + total, x.log_len)
        total += x.log_len + HEAD_SLACK
        r.n = i + 1
        r.log_len = <size_t>total


cdef void walk_paths(nc_walk* w, nc_session* s) noexcept nogil:
    cdef nc_path** at = &s.paths
    cdef nc_path* p
    cdef uint8_t control = 0xFF, has_last = 1 if s.last is not NULL else 0
    cdef uint32_t n, i
    if not w.reads:
        p = s.paths
        i = 0
        while p is not NULL:
            if p == s.control:
                control = <uint8_t>i
            i += 1
            p = p.next
    n = walk_count(w, s.n_paths, s.mine.max_paths, 64)
    walk_u8(w, &control)
    walk_flag(w, &has_last)
    walk_need(w, has_last == (1 if s.state == SESSION_SUSPENDED else 0) and (n == 0) == (s.state == SESSION_SUSPENDED))
    walk_need(w, n == 0 or control < n)
    for i in range(n):
        if w.rc < 0:
            return
        walk_one(w, s, at, 1)
        if at[0] is NULL:
            return
        if w.reads and i == control:
            s.control = at[0]
        at = &at[0].next
    if has_last and w.rc == defs.NC_OK:
        walk_one(w, s, &s.last, 0)
    if w.rc == defs.NC_OK:
        walk_again(w, s)
    if w.reads and w.rc == defs.NC_OK:
        point_copies(w, s)
    walk_u32(w, &s.path_top)
    walk_time(w, &s.used_at)
    walk_u8(w, &s.n_ended)
    for i in range(8):
        walk_u32(w, &s.ended[i].id)
        walk_pos(w, &s.ended[i].rx)
    walk_u8(w, &s.n_closes)
    walk_need(w, s.n_closes <= 8)
    for i in range(8):
        walk_u32(w, &s.closes[i])
