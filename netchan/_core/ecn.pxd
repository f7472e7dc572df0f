# ecn: marks of congestion on a datagram path. Layer: _core, rung c. Threads: baton.
# RFC 3168, RFC 9000 §13.4; docs/spec/session.md §5.7.
#
# The sender marks its datagrams as capable (ECT(0)); a router that is about to be full changes the mark (CE) instead of
# dropping them; the receiver counts both and says so in ACK. A way that loses marks, or what is marked, is found out.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum nc_ecn_mark:              # the two low bits of the traffic class
    MARK_NONE = 0
    MARK_ECT1 = 1
    MARK_ECT0 = 2
    MARK_CE = 3

cdef enum nc_ecn_state:
    ECN_TESTING = 0                 # the first datagrams are marked
    ECN_WAITING = 1                 # for what becomes of these
    ECN_CAPABLE = 2
    ECN_FAILED = 3                  # not on this path

cdef enum:
    ECN_TESTS = 10                  # datagrams (RFC 9000 §13.4.2)
    ECN_TIMEOUTS = 2                # probe timeouts in a row, then nothing is marked: marks may be what is dropped

ctypedef struct nc_ecn:
    # sender
    uint8_t state                   # nc_ecn_state
    uint8_t marking                 # what is sealed now leaves with a mark
    uint64_t first                  # numbers from here on were marked
    uint64_t end                    # up to here, where marking is 0
    uint64_t counted                # numbers below are in `sent`
    uint64_t sent                   # datagrams that may have left with a mark
    uint64_t tests_lost
    uint64_t[2] said                # ECT(0) and CE, by the newest ACK
    # receiver
    uint8_t here                    # nc_ecn_mark of the datagrams that are handed in next
    uint64_t[3] got                 # ECT(0), ECT(1), CE, as in ACK

# Before datagrams are sealed that leave together, the first with number `next`: 1 if they leave with a mark.
# timeouts: probe timeouts in a row.
cdef int ecn_turn(nc_ecn* e, uint64_t next_, uint32_t timeouts) noexcept nogil
cdef inline int ecn_marked(const nc_ecn* e, uint64_t number) noexcept nogil:
    return e.first <= number and (e.marking or number < e.end)


cdef void ecn_lost(nc_ecn* e, uint64_t number) noexcept nogil
# An ACK that names a larger number than all before; next: number of the next datagram; fresh: marked ones that are
# acknowledged by it and were not before; counts: its three, or NULL. 1: a router on the way is about to be full.
cdef int ecn_said(nc_ecn* e, uint64_t next_, uint64_t fresh, const uint64_t* counts) noexcept nogil
# One datagram was received, and not before.
cdef inline void ecn_received(nc_ecn* e) noexcept nogil:
    if e.here:
        e.got[0 if e.here == MARK_ECT0 else 1 if e.here == MARK_ECT1 else 2] += 1


cdef inline int ecn_seen(const nc_ecn* e) noexcept nogil:                       # ACK says counts
    return 1 if e.got[0] or e.got[1] or e.got[2] else 0
