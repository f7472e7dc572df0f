# rate: how fast a path delivers, and how much bulk data may be in flight on it beside others. Layer: _core, rung h;
# inline. docs/spec/session.md §5.3. Threads: baton.
#
# Without a limit the first path would take all that credit allows into the buffers on its way, and the others nothing.
# Twice what it delivers in a round trip keeps it busy and leaves the rest to others (Cardwell et al. 2016, BBR; here
# over a transport with a congestion control of its own).

from libc.stdint cimport int64_t, uint64_t

from netchan._core.state cimport nc_path

cdef enum:
    FLIGHT_FIRST = 131072           # bytes in flight before anything was measured
    FLIGHT_LEAST = 32768
    FLIGHT_SLACK_NS = 5000000       # for acknowledgements, which come in steps
    RATE_SPAN_NS = 10000000         # of one sample at the least
    QUEUE_NS = 10000000             # of a round trip may be spent in queues of our own before a window grows no more


cdef inline uint64_t flight_limit(const nc_path* p) noexcept nogil:
    cdef double span = <double>(p.min_rtt + FLIGHT_SLACK_NS) * 1e-9
    cdef uint64_t most
    if p.rate == 0:
        return FLIGHT_FIRST
    most = <uint64_t>(2.0 * <double>p.rate * span)
    return most if most > <uint64_t>FLIGHT_LEAST else <uint64_t>FLIGHT_LEAST


# 1: as much is in flight as there should be.
cdef inline int flight_full(const nc_path* p) noexcept nogil:
    return 1 if p.tx_bytes - p.acked_bytes >= flight_limit(p) else 0


# How long a window has to last: the round trip without most of what our own data makes of it by queueing.
cdef inline int64_t rate_round_trip(const nc_path* p) noexcept nogil:
    cdef int64_t most = 2 * p.min_rtt + QUEUE_NS
    return p.srtt if p.srtt < most else most


# After an acknowledgement. What came slower than before counts only if the path could have sent more.
cdef inline void rate_sample(nc_path* p, int64_t now) noexcept nogil:
    cdef int64_t span
    cdef uint64_t sample
    if p.rate_at == 0:
        p.rate_at = now
        p.rate_bytes = p.acked_bytes
        return
    span = now - p.rate_at
    if span < RATE_SPAN_NS or span < p.min_rtt:
        if p.tx_bytes == p.acked_bytes:         # a pause follows: it says nothing of the path
            p.rate_at = 0
            p.limited = 0
        return
    sample = <uint64_t>(<double>(p.acked_bytes - p.rate_bytes) * 1e9 / <double>span)
    if sample > p.rate:
        p.rate = sample
    elif p.limited:
        p.rate = (3 * p.rate + sample) // 4
    p.limited = 0
    p.rate_at = now if p.tx_bytes > p.acked_bytes else 0
    p.rate_bytes = p.acked_bytes
