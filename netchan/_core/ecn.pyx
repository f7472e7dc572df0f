"""Marks of congestion on a datagram path: whether the way keeps them, and what they say.

Layer: _core, rung c. See ecn.pxd.
"""

from libc.stdint cimport uint32_t, uint64_t


cdef int ecn_turn(nc_ecn* e, uint64_t next_, uint32_t timeouts) noexcept nogil:
    cdef int marks
    if e.marking:
        e.sent += next_ - e.counted             # numbers that were left out among them: it is the most there can be
    e.counted = next_
    if e.state == ECN_TESTING and e.sent >= ECN_TESTS:
        e.state = ECN_WAITING
    marks = 1 if (e.state == ECN_TESTING or e.state == ECN_CAPABLE) and timeouts < ECN_TIMEOUTS else 0
    if marks and not e.marking:
        e.first = next_                         # of an earlier run it is not known any more: the check is milder then
    elif e.marking and not marks:
        e.end = next_
    e.marking = <uint8_t>marks
    return marks


cdef void ecn_lost(nc_ecn* e, uint64_t number) noexcept nogil:
    if e.state <= ECN_WAITING and ecn_marked(e, number):
        e.tests_lost += 1
        if e.state == ECN_WAITING and e.tests_lost >= e.sent:
            e.state = ECN_FAILED                # all of them: what is marked does not pass


cdef int ecn_said(nc_ecn* e, uint64_t next_, uint64_t fresh, const uint64_t* counts) noexcept nogil:
    cdef int congested
    cdef uint64_t most = e.sent + (next_ - e.counted if e.marking else 0)
    if e.state == ECN_FAILED:
        return 0
    if counts is NULL:
        if fresh:
            e.state = ECN_FAILED                # the marks were washed away, or the other side does not see them
        return 0
    # The counts of a later ACK are no lower, hold what is acknowledged, and no more than was sent (§13.4.2.1).
    if counts[0] < e.said[0] or counts[2] < e.said[1] or counts[1] \
            or counts[0] - e.said[0] + counts[2] - e.said[1] < fresh \
            or counts[0] + counts[2] > most:
        e.state = ECN_FAILED
        return 0
    congested = 1 if counts[2] > e.said[1] else 0
    e.said[0] = counts[0]
    e.said[1] = counts[2]
    if fresh:
        e.state = ECN_CAPABLE
    return congested
