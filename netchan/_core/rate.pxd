# rate: how fast a path delivers, how much bulk data may be in flight on it beside others, and when a record would
# arrive. Layer: _core, rung h; inline. docs/spec/session.md §5.3. Threads: baton.
#
# Without a limit the first path would take all that credit allows into the buffers on its way, and the others nothing.
# Half as much again as it delivers in a round trip keeps it busy and leaves the rest to others; twice as much
# while that still shows that it delivers more (Cardwell et al. 2016, BBR; here over a transport with a congestion
# control of its own). A datagram path has its window for that.

from libc.stdint cimport int64_t, uint64_t

from netchan._core.congestion cimport cc_open
from netchan._core.state cimport nc_path

cdef enum:
    FLIGHT_FIRST = 131072           # bytes in flight before anything was measured
    FLIGHT_LEAST = 32768            # two records: one is acknowledged when all of it has come
    FLIGHT_SLACK_NS = 5000000       # for acknowledgements, which come in steps
    RATE_SPAN_NS = 10000000         # of one sample at the least
    RATE_STEADY = 3                 # samples in a row that show no more than a quarter more
    QUEUE_NS = 10000000             # of a round trip may be spent in queues of our own before a window grows no more


cdef inline uint64_t flight_limit(const nc_path* p) noexcept nogil:
    cdef double gain = 1.5 if p.rate_steady >= RATE_STEADY else 2.0
    cdef double span = (gain * <double>p.min_rtt + <double>FLIGHT_SLACK_NS) * 1e-9
    if p.rate == 0:
        return FLIGHT_FIRST
    return <uint64_t>FLIGHT_LEAST + <uint64_t>(<double>p.rate * span)


# 1: as much is in flight as there should be.
cdef inline int flight_full(const nc_path* p) noexcept nogil:
    return 1 if p.tx_bytes - p.acked_bytes >= flight_limit(p) else 0


# 1: nothing more should be sent before an acknowledgement.
cdef inline int path_full(const nc_path* p) noexcept nogil:
    return flight_full(p) if p.d is NULL else not cc_open(&p.d.cc, p.d.mtu)


# How long a window has to last: the round trip without most of what our own data makes of it by queueing.
cdef inline int64_t rate_round_trip(const nc_path* p) noexcept nogil:
    cdef int64_t most = 2 * p.min_rtt + QUEUE_NS
    return p.srtt if p.srtt < most else most


# Bytes a second that arrive over there; 0: not measured.
cdef inline double path_rate(const nc_path* p) noexcept nogil:
    if p.d is NULL:
        return <double>p.rate
    return <double>p.d.cc.cwnd * 1e9 / <double>p.srtt if p.srtt else 0.0


# In how many ns the last of n further bytes would be over there. A path that is busy delivers at its rate, and what it
# has delivered is known half a round trip later; else they take that half, and where nothing was measured, at least.
cdef inline double path_arrival(const nc_path* p, uint64_t n) noexcept nogil:
    cdef uint64_t flight = p.tx_bytes - p.acked_bytes if p.d is NULL else p.d.cc.in_flight
    cdef double rate = path_rate(p)
    cdef double half = <double>p.min_rtt * 0.5
    cdef double busy
    if rate == 0.0:
        return half
    busy = <double>(flight + n) * 1e9 / rate - half
    return busy if busy > half else half


# Record tx_number is about to be sent: one in each round trip is the mark of a sample.
cdef inline void rate_mark(nc_path* p, int64_t now) noexcept nogil:
    if not p.rate_marked:
        p.rate_marked = 1
        p.rate_number = p.tx_number
        p.rate_at = now
        p.rate_bytes = p.acked_bytes


# After an acknowledgement. A sample is what arrived between a record and its acknowledgement: also where a path stood
# still and then brings all at once it is no more than what was delivered in that time (Cheng et al., BBR delivery rate
# estimation, draft-cheng-iccrg-delivery-rate-estimation-00). Where the path could have carried more it only shows that
# an earlier figure was too low.
cdef inline void rate_sample(nc_path* p, int64_t now) noexcept nogil:
    cdef int64_t span = now - p.rate_at
    cdef uint64_t n = p.acked_bytes - p.rate_bytes
    cdef uint64_t sample
    cdef int busy
    if not p.rate_marked:
        return
    if p.acked <= p.rate_number or span < RATE_SPAN_NS:
        if p.tx_bytes == p.acked_bytes:         # a pause follows: it says nothing of the path
            p.rate_marked = 0
            p.limited = 0
        return
    sample = <uint64_t>(<double>n * 1e9 / <double>span)
    busy = p.limited or (n >= <uint64_t>FLIGHT_LEAST and span > p.min_rtt + (p.min_rtt >> 1) + RATE_SPAN_NS)
    if p.limited and p.rate_steady < RATE_STEADY:
        p.rate_steady = 0 if sample > p.rate + (p.rate >> 2) else p.rate_steady + 1
    if p.rate == 0:
        p.rate = sample if busy else 0
    elif sample > p.rate:
        p.rate = sample
    elif busy:
        p.rate = (3 * p.rate + sample) // 4
    p.limited = 0
    p.rate_marked = 0
