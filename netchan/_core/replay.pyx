"""Sliding anti-replay window over datagram numbers: asked before the tag is checked, moved after it held.

Layer: _core, rung d. No clock, no key. Contract in ``replay.pxd``; idea: RFC 6479 (a ring of bits, no shifting).
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from netchan._core cimport defs


cdef inline bint _size_ok(uint32_t n_bits) noexcept nogil:
    return REPLAY_BITS_MIN <= n_bits <= REPLAY_BITS_MAX and (n_bits & (n_bits - 1)) == 0


cdef int replay_init(nc_replay* w, uint32_t n_bits) noexcept nogil:
    memset(w, 0, sizeof(nc_replay))
    if not _size_ok(n_bits):
        return defs.NC_EINVAL
    w.bits = <uint64_t*>calloc(n_bits >> 6, sizeof(uint64_t))
    if w.bits == NULL:
        return defs.NC_ENOMEM
    w.n_bits = n_bits
    return defs.NC_OK


cdef void replay_free(nc_replay* w) noexcept nogil:
    free(w.bits)
    w.bits = NULL
    w.n_bits = 0
    w.floor = REPLAY_LAST


cdef inline bint _get(const nc_replay* w, uint64_t n) noexcept nogil:
    cdef uint32_t at = <uint32_t>(n & (w.n_bits - 1))
    return (w.bits[at >> 6] >> (at & 63)) & 1


cdef inline void _set(nc_replay* w, uint64_t n) noexcept nogil:
    cdef uint32_t at = <uint32_t>(n & (w.n_bits - 1))
    w.bits[at >> 6] |= <uint64_t>1 << (at & 63)


cdef int replay_grow(nc_replay* w, uint32_t n_bits) noexcept nogil:
    cdef nc_replay big
    cdef uint64_t n
    if not _size_ok(n_bits):
        return defs.NC_EINVAL
    if n_bits <= w.n_bits:
        return defs.NC_OK
    big = w[0]
    big.bits = <uint64_t*>calloc(n_bits >> 6, sizeof(uint64_t))
    if big.bits == NULL:
        return defs.NC_ENOMEM
    big.n_bits = n_bits
    n = w.next - w.n_bits if w.next > w.n_bits else 0
    if n > big.floor:
        big.floor = n
    while n < w.next:
        if _get(w, n):
            _set(&big, n)
        n += 1
    free(w.bits)
    w[0] = big
    return defs.NC_OK


cdef int replay_check(nc_replay* w, uint64_t n) noexcept nogil:
    if n >= REPLAY_LAST:
        w.n_last += 1
        return 0
    if n < w.floor or (n < w.next and w.next - n > w.n_bits):
        w.n_too_old += 1
        return 0
    if n < w.next and _get(w, n):
        w.n_seen += 1
        return 0
    return 1


# Clears the bits of the numbers [lo, hi); hi - lo < n_bits.
cdef inline void _clear(nc_replay* w, uint64_t lo, uint64_t hi) noexcept nogil:
    cdef uint32_t at
    cdef uint32_t n
    while lo < hi:
        at = <uint32_t>(lo & (w.n_bits - 1))
        n = 64 - (at & 63)                          # up to the end of this word
        if n > hi - lo:
            n = <uint32_t>(hi - lo)
        if n == 64:
            w.bits[at >> 6] = 0
        else:
            w.bits[at >> 6] &= ~(((<uint64_t>1 << n) - 1) << (at & 63))
        lo += n


cdef int replay_commit(nc_replay* w, uint64_t n) noexcept nogil:
    if replay_check(w, n) == 0:
        return defs.NC_EREPLAY
    if n >= w.next:
        if n - w.next >= w.n_bits:
            memset(w.bits, 0, w.n_bits >> 3)
        else:
            _clear(w, w.next, n)
        w.next = n + 1
    _set(w, n)
    return defs.NC_OK
