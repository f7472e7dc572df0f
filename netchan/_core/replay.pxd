# replay: the sliding window that refuses a datagram number seen before. Layer: _core, rung d.
#
# 1. replay_check(w, n) before the tag is verified: yes/no, moves nothing (it only counts refusals).
# 2. replay_commit(w, n) after the tag held: marks n, moves the window.
# The bitmap is a ring indexed by n modulo its size, so the window moves without shifting (the idea of RFC 6479); bits
# are cleared exactly, so all n_bits numbers up to the largest are told apart. Anything older is refused.
# The last number, 2^62 - 1, is never accepted: "one above the largest" must stay a number.
# Threads: the holder of the baton; no lock inside. One window per datagram path and direction.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #define NC_REPLAY_LAST (((uint64_t)1 << 62) - 1)
    """
    const uint64_t REPLAY_LAST "NC_REPLAY_LAST"     # 2^62 - 1, refused

cdef enum:
    REPLAY_BITS = 8192                               # numbers told apart at first: 1 KiB
    REPLAY_BITS_MIN = 64
    REPLAY_BITS_MAX = 65536                          # at most, for fast paths: 8 KiB; bounds the clearing of one jump

ctypedef struct nc_replay:
    uint64_t* bits                                   # owned; bit n % n_bits: n was committed
    uint64_t next                                    # one above the largest committed; 0 = none yet
    uint64_t floor                                   # numbers below were already out of a smaller window: too old
    uint32_t n_bits                                  # power of two, REPLAY_BITS_MIN..REPLAY_BITS_MAX
    uint64_t n_too_old                               # refused: behind the window
    uint64_t n_seen                                  # refused: committed before
    uint64_t n_last                                  # refused: number not usable (>= REPLAY_LAST)

# Empty window. NC_OK, NC_EINVAL (n_bits no power of two in range), NC_ENOMEM.
cdef int replay_init(nc_replay* w, uint32_t n_bits) noexcept nogil
# Gives the memory back; harmless on a zeroed struct. A freed window refuses everything.
cdef void replay_free(nc_replay* w) noexcept nogil
# A larger window from now on; what the smaller one had forgotten stays refused. NC_OK (also when it is no larger),
# NC_EINVAL (no power of two in range), NC_ENOMEM (nothing changed).
cdef int replay_grow(nc_replay* w, uint32_t n_bits) noexcept nogil
# 1: n was not seen and is inside or above the window. 0: refuse, counted. Does not advance.
cdef int replay_check(nc_replay* w, uint64_t n) noexcept nogil
# Marks n as seen. NC_OK; NC_EREPLAY when replay_check would say no (also counted), nothing moved then.
cdef int replay_commit(nc_replay* w, uint64_t n) noexcept nogil
