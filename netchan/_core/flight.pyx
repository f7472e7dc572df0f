"""What a datagram path has on its way: acknowledgements both ways, loss, probe timeouts.

Layer: _core, rung k. Baton. Flow of an ACK: flight_acked -> on_newly -> sent_arrived, then find_lost -> give_up ->
sent_again. Spec: docs/spec/session.md §5.5; RFC 9002 (names as there), RFC 9000 §13.2.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from netchan._core.congestion cimport (
    cc_acked, cc_collapse, cc_event, cc_found, cc_init, cc_lost, cc_marked, cc_open, cc_pace, cc_round_trip,
)
from netchan._core cimport defs
from netchan._core.cursor cimport nc_rd, nc_wr, rd_init
from netchan._core.datagram cimport CID_SIZE, DATAGRAM_LEAST, DATAGRAM_MOST, DATAGRAM_MTU, TOKEN_SIZE
from netchan._core.ecn cimport ecn_lost, ecn_marked, ecn_received, ecn_said, ecn_seen
from netchan._core.frame cimport frame_ack_ecn, frame_next_range, frame_put_ack_ranges, nc_frame
from netchan._core.ranges cimport (
    ranges_add, ranges_drop_first, ranges_end, ranges_find, ranges_first_gap, ranges_free, ranges_init,
    ranges_remove_below,
)
from netchan._core.replay cimport REPLAY_BITS, replay_free, replay_init
from netchan._core.sent cimport epoch_settled, sent_again, sent_arrived, sent_off, sent_pop, sent_room, sent_settled
from netchan._core.state cimport (
    PATH_HEARD, SENT_ACKED, SENT_FLIGHT, SENT_LOST, SENT_NONE, TOKEN_KNOWN, TOKEN_NONE, nc_dgram, nc_path, nc_sent,
    nc_session,
)
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    REORDER = 3                     # kPacketThreshold
    REORDER_MOST = 64               # and what it may grow to
    RANGES_KEPT = 64                # of received numbers
    RANGES_SAID = 32                # in one ACK
    ACK_EVERY = 2                   # eliciting datagrams (RFC 9000 §13.2.2)
    SKIP_FIRST = 64                 # numbers are left out at random distances around this and this many times more
    PTO_DOUBLED = 6                 # times at most
    PROBE_STEPS = 3                 # lengths that are tried
    PROBE_TRIES = 2                 # of each
    LONG_ROUNDS = 3                 # lost in so many rounds, and none arrived: the path carries no long datagrams

cdef int64_t GRANULARITY = 1000000              # kGranularity
cdef int64_t INITIAL_RTT = 333000000            # kInitialRtt
cdef int64_t PTO_MOST = 5 * 1000000000          # so that a path that comes back is found soon
cdef int64_t ACK_DELAY_MOST = 25000000
cdef int64_t RAISE_NS = <int64_t>600 * 1000000000       # RFC 8899 §5.1.1: PMTU_RAISE_TIMER


cdef nc_dgram* flight_new(const uint8_t* cid, const uint8_t* own_cid, uint32_t mtu, uint64_t seed) noexcept nogil:
    cdef nc_dgram* d = <nc_dgram*>calloc(1, sizeof(nc_dgram))
    if d is NULL:
        return NULL
    if replay_init(&d.window, REPLAY_BITS) < 0:
        free(d)
        return NULL
    memcpy(d.cid, cid, CID_SIZE)
    memcpy(d.own_cid, own_cid, CID_SIZE)
    # Below the least a record with a number would not fit, and the size of a header be more than there is.
    mtu = DATAGRAM_MTU if mtu < <uint32_t>DATAGRAM_MTU else DATAGRAM_MOST if mtu > <uint32_t>DATAGRAM_MOST else mtu
    d.mtu = mtu
    d.number_size = 2
    d.reordered = REORDER
    d.loss_at = d.pace_at = TIMER_NEVER
    d.skip_at = SKIP_FIRST + (seed & (SKIP_FIRST - 1))
    ranges_init(&d.got, RANGES_KEPT)
    ranges_init(&d.acked, 1024)
    cc_init(&d.cc, mtu)
    return d


cdef void flight_free(nc_dgram* d) noexcept nogil:
    if d is NULL:
        return
    replay_free(&d.window)
    ranges_free(&d.got)
    ranges_free(&d.acked)
    free(d)


# --- round trip -------------------------------------------------------------------------------------------------------

# RFC 9002 §5. delay: what the peer says it waited before it acknowledged.
cdef void round_trip(nc_session* s, nc_path* p, int64_t latest, int64_t delay, int64_t now) noexcept nogil:
    cdef int64_t adjusted = latest
    cdef int64_t dev
    p.d.latest_rtt = latest
    if p.min_rtt == 0 or latest < p.min_rtt:
        p.min_rtt = latest if latest else 1
    if p.d.first_rtt_at == 0:
        p.d.first_rtt_at = now
        p.srtt = latest if latest else 1
        p.rttvar = latest // 2
        return
    if delay > <int64_t>s.peer.ack_delay_ns:
        delay = <int64_t>s.peer.ack_delay_ns
    if latest >= p.min_rtt + delay:
        adjusted = latest - delay
    dev = p.srtt - adjusted if p.srtt > adjusted else adjusted - p.srtt
    p.rttvar = (3 * p.rttvar + dev) // 4
    p.srtt = (7 * p.srtt + adjusted) // 8
    if p.srtt == 0:
        p.srtt = 1                              # 0 says that there was no sample yet


# Without what grows with each timeout in a row.
cdef int64_t pto_base(const nc_session* s, const nc_path* p) noexcept nogil:
    cdef int64_t spread = 4 * p.rttvar if 4 * p.rttvar > GRANULARITY else GRANULARITY
    if p.srtt == 0:
        return 3 * INITIAL_RTT
    return p.srtt + spread + <int64_t>s.peer.ack_delay_ns


# --- loss -------------------------------------------------------------------------------------------------------------

cdef int give_up(nc_session* s, nc_path* p, nc_sent* x, uint64_t number, int64_t now) noexcept nogil:
    if sent_again(s, p, x) < 0:
        return defs.NC_ENOMEM
    if number + 1 == p.d.probe_number:
        probe_failed(p.d, now + 3 * pto_base(s, p), now)        # RFC 9000 §14.4: says nothing of congestion
    elif x.eliciting:
        cc_event(&p.d.cc, x.at, now)
        cc_lost(&p.d.cc, x.at)
        ecn_lost(&p.d.ecn, number)
        p.d.n_lost += 1
        if x.size > <uint32_t>DATAGRAM_MTU and x.at > p.d.long_at:
            p.d.long_at = now
            p.d.long_lost += 1
            if p.d.long_lost >= <uint32_t>LONG_ROUNDS:
                p.d.mtu = p.d.cc.mtu = DATAGRAM_MTU     # RFC 9000 §14.3: else what is lost would be lost for ever
                p.d.probe_step = 0
                p.d.probe_at = now + RAISE_NS
    sent_off(p, x)
    x.state = SENT_LOST
    return defs.NC_OK


# RFC 9002 §6.1: what lies so many datagrams, or so much time, before the largest that was acknowledged.
cdef int find_lost(nc_session* s, nc_path* p, int64_t now) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef int64_t longest = p.srtt if p.srtt > d.latest_rtt else d.latest_rtt
    cdef int64_t delay = longest + longest // 8
    cdef uint64_t i = d.scan if d.scan > p.acked else p.acked
    cdef uint64_t open_from = d.largest_acked       # first that is still in flight
    cdef int64_t first_at = 0, outage = 0
    cdef nc_sent* x
    if delay < GRANULARITY:
        delay = GRANULARITY
    d.loss_at = TIMER_NEVER
    while i < d.largest_acked:
        x = &p.sent[i & (p.sent_cap - 1)]
        if x.state == SENT_FLIGHT:
            if i + d.reordered < d.largest_acked or x.at + delay <= now:
                if give_up(s, p, x, i, now) < 0:
                    return defs.NC_ENOMEM
                if x.eliciting and x.at > d.first_rtt_at > 0:
                    if first_at == 0:
                        first_at = x.at
                    if x.at - first_at > outage:
                        outage = x.at - first_at
            else:
                if open_from == d.largest_acked:
                    open_from = i
                if x.at + delay < d.loss_at:
                    d.loss_at = x.at + delay
        elif x.state == SENT_ACKED:
            first_at = 0                        # what lies between two losses was no outage
        i += 1
    if open_from > d.scan:                      # all was given up beyond it, when the path was suspect
        d.scan = open_from
    # §7.6: nothing arrived for longer than two timeouts in a row would take
    if outage > 3 * pto_base(s, p):
        cc_collapse(&d.cc)
    return defs.NC_OK


# --- the search for the length ----------------------------------------------------------------------------------------

cdef inline uint32_t probe_size(int step) noexcept nogil:
    return DATAGRAM_MOST if step == 0 else 1392 if step == 1 else 1320


cdef uint32_t flight_probe(const nc_path* p, int64_t now) noexcept nogil:
    cdef const nc_dgram* d = p.d
    if d.probe_number or d.mtu >= <uint32_t>DATAGRAM_MOST or d.first_rtt_at == 0 or now < d.probe_at \
            or p.suspect != PATH_HEARD or d.mtu >= probe_size(d.probe_step):
        return 0
    return probe_size(d.probe_step)


cdef void flight_probed(nc_path* p) noexcept nogil:
    p.d.probe_number = p.tx_number
    p.d.probe_tries += 1


# Not so long, then; after all lengths it rests for a while.
cdef void probe_failed(nc_dgram* d, int64_t next_at, int64_t now) noexcept nogil:
    d.probe_number = 0
    d.probe_at = next_at
    if d.probe_tries < PROBE_TRIES:
        return
    d.probe_tries = 0
    d.probe_step += 1
    if d.probe_step == PROBE_STEPS:
        d.probe_step = 0
        d.probe_at = now + RAISE_NS


# --- ACK --------------------------------------------------------------------------------------------------------------

# Datagrams [lo, hi) arrived. Of those that are news: when the largest was sent, whether one asked for an answer, how
# many were marked.
cdef int on_newly(nc_session* s, nc_path* p, uint64_t lo, uint64_t hi, int64_t now, int64_t* sent_at,
                  int* eliciting, uint64_t* marked) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef nc_sent* x
    cdef uint64_t i
    for i in range(lo, hi):
        x = &p.sent[i & (p.sent_cap - 1)]
        if x.state == SENT_NONE:
            return defs.NC_EFRAME
        if x.state == SENT_ACKED:
            continue
        if ecn_marked(&d.ecn, i):
            marked[0] += 1
        if x.state == SENT_FLIGHT:
            if x.eliciting:
                cc_acked(&d.cc, x.size, x.at, now, p.srtt)
                d.eliciting -= 1
                eliciting[0] = 1
        else:
            d.n_found += 1                      # RFC 9002 §6.1: it was late, not lost
            if x.size:                          # else it was none of the losses of the window
                cc_found(&d.cc, x.at)
            if x.eliciting:
                eliciting[0] = 1                # and it tells the round trip: each number is sent once
            if i + d.reordered < d.largest_acked and d.reordered < <uint32_t>REORDER_MOST:
                d.reordered += 1
        if i + 1 > d.largest_acked:
            d.largest_acked = i + 1
            sent_at[0] = x.at
        if x.size > <uint32_t>DATAGRAM_MTU:
            d.long_lost = 0
        if i + 1 == d.probe_number:
            d.probe_number = 0
            if x.size > d.mtu:
                d.mtu = d.cc.mtu = x.size
        if x.pos:
            # RFC 9000 §13.2.4: the peer has seen what this one said of lower numbers, and needs not be told again.
            ranges_remove_below(&d.got, x.pos - 1)
        x.state = SENT_ACKED
        if p.epoch_waits and i >= p.epoch_at:
            p.epoch_waits = 0
        sent_arrived(s, p, x)
    return defs.NC_OK


cdef int flight_acked(nc_session* s, nc_path* p, const nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef uint64_t hi = f.b + 1
    cdef uint64_t lo = f.b - f.d
    cdef uint64_t at, end, gap = 0, length = 0
    cdef uint64_t before = d.largest_acked
    cdef uint64_t marked = 0
    cdef uint64_t[3] counts
    cdef uint32_t k
    cdef int64_t sent_at = -1
    cdef int eliciting = 0
    cdef int rc
    cdef nc_rd r
    if hi > p.tx_number:
        return defs.NC_EFRAME
    rd_init(&r, f.data, f.len)
    while True:
        at = lo if lo > p.acked else p.acked
        while at < hi:
            at = ranges_first_gap(&d.acked, at)
            if at >= hi:
                break
            k = ranges_find(&d.acked, at)
            end = d.acked.v[k].lo if k < d.acked.len and d.acked.v[k].lo < hi else hi
            rc = on_newly(s, p, at, end, now, &sent_at, &eliciting, &marked)
            if rc < 0:
                return rc
            at = end
        if lo < hi and hi > p.acked:
            ranges_add(&d.acked, lo if lo > p.acked else p.acked, hi)   # full: these are looked at again
        if frame_next_range(&r, &gap, &length) < 0:
            break
        if gap + 1 > lo or length + 1 > lo - gap - 1:
            return defs.NC_EFRAME
        hi = lo - gap - 1                       # one below the last run's smallest, gap + 1 are missing
        lo = hi - length - 1
    if d.largest_acked > before and sent_at >= 0 and eliciting:
        round_trip(s, p, now - sent_at, <int64_t>f.c * 1000 if f.c < <uint64_t>16777216 else 0, now)
        cc_round_trip(&d.cc, now - sent_at, d.largest_acked - 1, p.tx_number)
    # An ACK that was overtaken counts less than the one before it.
    if d.largest_acked > before and sent_at >= 0 \
            and ecn_said(&d.ecn, p.tx_number, marked, counts if frame_ack_ecn(f, counts) else NULL):
        d.n_marked += 1
        cc_marked(&d.cc, sent_at, now)
    d.cc.limited = 0
    if eliciting:
        d.pto_count = 0
    if find_lost(s, p, now) < 0:
        return defs.NC_ENOMEM
    sent_pop(p, now - 3 * pto_base(s, p))
    owes(p)
    if not p.epoch_waits:
        epoch_settled(s)
    sent_settled(s)
    return defs.NC_OK


# Since when the path owes an acknowledgement.
cdef void owes(nc_path* p) noexcept nogil:
    cdef uint64_t i
    cdef nc_sent* x
    p.oldest_at = 0
    if p.d.eliciting == 0:
        return
    for i in range(p.d.scan, p.tx_number):
        x = &p.sent[i & (p.sent_cap - 1)]
        if x.state == SENT_FLIGHT and x.eliciting:
            p.oldest_at = x.at
            return


# --- time -------------------------------------------------------------------------------------------------------------

cdef int64_t pto_at(const nc_session* s, const nc_path* p) noexcept nogil:
    cdef int64_t span
    if p.d.eliciting == 0 and p.suspect == PATH_HEARD:
        return TIMER_NEVER
    span = pto_base(s, p) << (p.d.pto_count if p.d.pto_count < <uint32_t>PTO_DOUBLED else PTO_DOUBLED)
    return p.d.eliciting_at + (span if span < PTO_MOST else PTO_MOST)


cdef int64_t flight_deadline(const nc_session* s, const nc_path* p) noexcept nogil:
    cdef int64_t at = p.d.loss_at if p.d.loss_at != TIMER_NEVER else pto_at(s, p)
    return at if at < p.d.pace_at else p.d.pace_at


cdef int flight_on_deadline(nc_session* s, nc_path* p, int64_t now) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef uint64_t i
    cdef nc_sent* x
    if d.pace_at <= now:
        d.pace_at = TIMER_NEVER
    if d.loss_at <= now:
        if find_lost(s, p, now) < 0:
            return defs.NC_ENOMEM
        owes(p)
        return defs.NC_OK
    if d.loss_at != TIMER_NEVER or now < pto_at(s, p):
        return defs.NC_OK
    # RFC 9002 §6.2.4: two probes. What was sent first and not acknowledged is most likely what is missing.
    d.pto_count += 1
    d.n_timeouts += 1
    d.probes = 2
    d.eliciting_at = now
    p.ping_due = 1
    # What waits to be sent again is as good a probe, and would grow with each timeout as long as nothing can leave.
    if p.suspect != PATH_HEARD or s.replay.next < s.replay.n:
        return defs.NC_OK
    for i in range(d.scan if d.scan > p.acked else p.acked, p.tx_number):
        x = &p.sent[i & (p.sent_cap - 1)]
        if x.state == SENT_FLIGHT and x.eliciting:
            return sent_again(s, p, x)
    return defs.NC_OK


cdef int flight_open(nc_path* p, uint64_t n, int64_t now) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef int64_t at
    if d.probes:
        return 1
    if not cc_open(&d.cc, n):
        d.cc.limited = 1
        return 0
    at = cc_pace(&d.cc, n, p.srtt, now)
    if at > now:
        d.cc.limited = 1
        d.pace_at = at
        return 0
    return 1


cdef void flight_number(nc_session* s, nc_path* p) noexcept nogil:
    cdef nc_sent* x
    cdef uint64_t z
    # From the largest acknowledged on: what was given up long ago may be forgotten beyond it.
    p.d.number_size = 2 if p.tx_number - p.d.largest_acked < 8192 else 4
    if p.tx_number != p.d.skip_at or not sent_room(p, 0):
        return
    x = &p.sent[p.tx_number & (p.sent_cap - 1)]
    x.state = SENT_NONE
    x.eliciting = 0
    x.log_len = 0
    x.log_at = <uint32_t>p.log_next
    p.tx_number += 1
    z = s.seed + p.tx_number * <uint64_t>0x9E3779B97F4A7C15         # splitmix64
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    p.d.skip_at = p.tx_number + SKIP_FIRST + ((z ^ (z >> 31)) & (16 * SKIP_FIRST - 1))


# --- receiver ---------------------------------------------------------------------------------------------------------

cdef void flight_received(nc_session* s, nc_path* p, uint64_t number, int eliciting, int64_t now) noexcept nogil:
    cdef nc_dgram* d = p.d
    cdef uint64_t next_ = ranges_end(&d.got)
    cdef int64_t delay = <int64_t>s.mine.ack_delay_ns
    ecn_received(&d.ecn)
    if number >= next_:
        d.largest_at = now
    while ranges_add(&d.got, number, number + 1) == defs.NC_ELIMIT:
        if number < d.got.v[0].lo:
            break                               # older than all that is kept
        ranges_drop_first(&d.got)
    if not eliciting:
        return
    d.unacked += 1
    # §13.2.1: at once where something is missing, so that the other side finds its losses soon
    if d.unacked >= <uint32_t>ACK_EVERY or number != next_ or d.got.len > 1 and d.got.v[d.got.len - 1].lo == number:
        p.ack_at = now
    elif p.ack_at == TIMER_NEVER:
        p.ack_at = now + (delay if delay < ACK_DELAY_MOST else ACK_DELAY_MOST)


cdef int flight_put_ack(nc_session* s, nc_path* p, nc_wr* w, int64_t now) noexcept nogil:
    cdef nc_dgram* d = p.d
    if d.unacked == 0 or d.got.len == 0:        # no memory for the first one
        return 0
    if frame_put_ack_ranges(w, p.id, &d.got, <uint64_t>(now - d.largest_at) // 1000 if now > d.largest_at else 0,
                            RANGES_SAID, d.ecn.got if ecn_seen(&d.ecn) else NULL) < 0:
        return 0
    d.unacked = 0
    d.ack_here = ranges_end(&d.got)
    p.ack_at = TIMER_NEVER
    p.acked_at = now
    s.stats.acks += 1
    return 1


# --- a new address of the peer ----------------------------------------------------------------------------------------

cdef void flight_challenge(nc_dgram* d, const uint8_t* token8) noexcept nogil:
    memcpy(d.challenge, token8, 8)
    d.challenged = 1


cdef void flight_challenged(nc_dgram* d, const uint8_t* token8) noexcept nogil:
    memcpy(d.response, token8, 8)               # of several the last one is answered
    d.response_due = 1


cdef void flight_response(nc_dgram* d, const uint8_t* token8) noexcept nogil:
    if d.challenged == 1 and memcmp(d.challenge, token8, 8) == 0:
        d.challenged = 2


# --- a peer that has forgotten the path -------------------------------------------------------------------------------

# All bytes are looked at whatever they are: how long it takes says nothing of how many are right.
cdef inline int same_token(const uint8_t* a, const uint8_t* b) noexcept nogil:
    cdef uint64_t x[2]
    cdef uint64_t y[2]
    memcpy(x, a, TOKEN_SIZE)
    memcpy(y, b, TOKEN_SIZE)
    return 1 if ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0 else 0


cdef void flight_token(nc_dgram* d, const uint8_t* cid_token24) noexcept nogil:
    memcpy(d.own_cid, cid_token24, CID_SIZE)
    memcpy(d.own_token, cid_token24 + CID_SIZE, TOKEN_SIZE)
    d.token_due = 1


cdef int flight_new_cid(nc_dgram* d, const nc_frame* f) noexcept nogil:
    if f.b != 1 or f.c != 1:
        return defs.NC_EFRAME                   # a path has the cid of its exchange, then one that was told
    if d.token_known == <uint8_t>TOKEN_NONE:
        memcpy(d.cid, f.data, CID_SIZE)
        memcpy(d.token, f.data + CID_SIZE, TOKEN_SIZE)
        d.token_known = TOKEN_KNOWN
        return defs.NC_OK
    if memcmp(f.data, d.cid, CID_SIZE) != 0 or not same_token(d.token, f.data + CID_SIZE):
        return defs.NC_EFRAME
    return defs.NC_OK


cdef int flight_is_reset(const nc_dgram* d, const uint8_t* buf_untrusted, size_t n) noexcept nogil:
    if d.token_known == <uint8_t>TOKEN_NONE or n < <size_t>DATAGRAM_LEAST:
        return 0
    return same_token(d.token, buf_untrusted + n - TOKEN_SIZE)
