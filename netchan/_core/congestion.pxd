# congestion: how many bytes may be on their way on a datagram path, and when the next one may leave. Layer: _core,
# rung c. CUBIC (RFC 9438) with HyStart++ (RFC 9406), pacing (RFC 9002 §7.7), and the way back from a loss that was
# none.
# docs/spec/session.md §5.5. Threads: baton; no clock, no randomness of its own.
#
# All sizes are bytes, all times ns. Another algorithm fills the same struct; nothing outside looks at more than cwnd,
# in_flight and the calls below.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    CC_INITIAL = 10                 # datagrams of the first window (RFC 9002 §7.2)
    CC_LEAST = 2                    # and of the smallest
    PACE_BURST = 10                 # datagrams that may leave together
    PACE_BURST_NS = 2000000         # or what the path carries in this time, if that is more
    PACE_STEP_NS = 250000           # no timer for less

ctypedef struct nc_cc:
    uint64_t cwnd
    uint64_t ssthresh
    uint64_t in_flight
    uint32_t mtu
    uint8_t limited                 # the window, and not the application, held data back since the last look
    int64_t recovery_at             # datagrams sent up to then belong to the last congestion event; 0: none yet
    # CUBIC, in datagrams
    double w_max
    double w_est                    # what Reno would have
    double k                        # s until w_max is reached again
    int64_t epoch_at                # begin of this stage of congestion avoidance; 0: with the next acknowledgement
    # before the last congestion event, should all its losses turn out to be none
    uint64_t undo_cwnd
    uint64_t undo_ssthresh
    double undo_w_max
    double undo_k
    int64_t undo_epoch
    int64_t undo_from               # datagrams sent up to then belong to the event before
    uint32_t losses                 # datagrams of the event that count as lost
    uint8_t marked                  # it was said by a mark, too: that is never taken back
    # HyStart++: one round is what was in flight at its begin
    uint64_t round_end              # datagram number that ends it
    int64_t round_rtt               # shortest round trip in it; 0: none
    int64_t last_rtt                # in the one before
    int64_t css_rtt                 # when conservative slow start began; 0: it has not
    uint32_t round_samples
    uint32_t css_rounds
    # pacing
    double budget                   # bytes that may leave now
    int64_t budget_at

cdef void cc_init(nc_cc* c, uint32_t mtu) noexcept nogil
cdef inline void cc_sent(nc_cc* c, uint64_t n) noexcept nogil:
    c.in_flight += n


cdef inline void cc_gone(nc_cc* c, uint64_t n) noexcept nogil:                  # lost, or given to another path
    c.in_flight = c.in_flight - n if n < c.in_flight else 0


# n bytes that were sent at `at` were acknowledged; srtt of the path.
cdef void cc_acked(nc_cc* c, uint64_t n, int64_t at, int64_t now, int64_t srtt) noexcept nogil
# A sample of the round trip with the acknowledgement of datagram `number`; `next` is the number of the next one sent.
cdef void cc_round_trip(nc_cc* c, int64_t rtt, uint64_t number, uint64_t next) noexcept nogil
# A datagram that was sent at `at` was lost, or marked: one congestion event a round trip.
cdef void cc_event(nc_cc* c, int64_t at, int64_t now) noexcept nogil
cdef void cc_marked(nc_cc* c, int64_t at, int64_t now) noexcept nogil           # the same, said by a mark
cdef void cc_lost(nc_cc* c, int64_t at) noexcept nogil                          # counts it to the event
# It has come after all. 1: so have all others of the event, and the window is what it was before.
cdef int cc_found(nc_cc* c, int64_t at) noexcept nogil
cdef void cc_collapse(nc_cc* c) noexcept nogil                                  # persistent congestion (RFC 9002 §7.6)
# When n bytes may leave, by the window: 1 now, 0 not before something is acknowledged.
cdef inline int cc_open(const nc_cc* c, uint64_t n) noexcept nogil:
    return 1 if c.in_flight + n <= c.cwnd else 0


# By the pace: a time at or before now, or when. srtt 0: not known yet.
cdef int64_t cc_pace(nc_cc* c, uint64_t n, int64_t srtt, int64_t now) noexcept nogil
cdef inline void cc_paced(nc_cc* c, uint64_t n) noexcept nogil:                 # they have left
    c.budget -= <double>n
