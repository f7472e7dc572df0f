"""A sorted, bounded set of disjoint half-open ranges: acks, gaps, received offsets.

Layer: _core, rung c. No clock, no socket, no lock: the owner of the set calls. Contract in ``ranges.pxd``.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

from netchan._core cimport defs


cdef int ranges_init(nc_ranges* r, uint32_t max_ranges) noexcept nogil:
    if max_ranges == 0 or max_ranges > RANGES_MAX:
        return defs.NC_EINVAL
    r.v = NULL
    r.len = 0
    r.cap = 0
    r.max = max_ranges
    r.total = 0
    return defs.NC_OK


cdef void ranges_free(nc_ranges* r) noexcept nogil:
    free(r.v)
    r.v = NULL
    r.len = 0
    r.cap = 0
    r.total = 0


cdef int ranges_reserve(nc_ranges* r, uint32_t n) noexcept nogil:
    cdef void* v
    if n > r.max:
        return defs.NC_EINVAL
    if n <= r.cap:
        return defs.NC_OK
    v = realloc(r.v, n * sizeof(nc_range))
    if v == NULL:
        return defs.NC_ENOMEM
    r.v = <nc_range*>v
    r.cap = n
    return defs.NC_OK


# Room for one range more. Called before anything is changed, so that failure leaves the set whole.
cdef inline int _grow(nc_ranges* r) noexcept nogil:
    cdef uint32_t n
    if r.len >= r.max:
        return defs.NC_ELIMIT
    if r.len < r.cap:
        return defs.NC_OK
    n = r.cap * 2 if r.cap else RANGES_FIRST
    return ranges_reserve(r, n if n < r.max else r.max)


cdef uint32_t ranges_find(const nc_ranges* r, uint64_t x) noexcept nogil:
    cdef uint32_t lo = 0
    cdef uint32_t hi = r.len
    cdef uint32_t mid
    while lo < hi:
        mid = (lo + hi) >> 1
        if r.v[mid].hi > x:
            hi = mid
        else:
            lo = mid + 1
    return lo


# Closes the hole [i, j) in the array.
cdef inline void _cut(nc_ranges* r, uint32_t i, uint32_t j) noexcept nogil:
    if i < j:
        memmove(&r.v[i], &r.v[j], (r.len - j) * sizeof(nc_range))
        r.len -= j - i


# A new range at index i; room is there.
cdef inline void _insert(nc_ranges* r, uint32_t i, uint64_t lo, uint64_t hi) noexcept nogil:
    memmove(&r.v[i + 1], &r.v[i], (r.len - i) * sizeof(nc_range))
    r.v[i].lo = lo
    r.v[i].hi = hi
    r.len += 1


cdef int64_t ranges_add(nc_ranges* r, uint64_t lo, uint64_t hi) noexcept nogil:
    cdef nc_range* last
    cdef uint32_t i
    cdef uint32_t j
    cdef uint64_t had = 0
    cdef uint64_t end
    cdef int rc
    if lo > hi or hi > RANGES_END:
        return defs.NC_EINVAL
    if lo == hi:
        return 0
    if r.len:
        last = &r.v[r.len - 1]
        if lo >= last.lo and lo <= last.hi:         # the common case: bytes in order extend the last range
            if hi <= last.hi:
                return 0
            had = hi - last.hi
            last.hi = hi
            r.total += had
            return <int64_t>had
    if r.len == 0 or lo > r.v[r.len - 1].hi:
        rc = _grow(r)
        if rc < 0:
            return rc
        r.v[r.len].lo = lo
        r.v[r.len].hi = hi
        r.len += 1
        r.total += hi - lo
        return <int64_t>(hi - lo)

    # Ranges [i, j) overlap or touch [lo, hi) and become one. Touching on the left: hi == lo, hence find(lo - 1).
    i = ranges_find(r, lo - 1) if lo else 0
    j = i
    end = hi
    while j < r.len and r.v[j].lo <= hi:
        had += r.v[j].hi - r.v[j].lo
        end = r.v[j].hi
        j += 1
    if i == j:
        rc = _grow(r)
        if rc < 0:
            return rc
        _insert(r, i, lo, hi)
        r.total += hi - lo
        return <int64_t>(hi - lo)
    if r.v[i].lo > lo:
        r.v[i].lo = lo
    r.v[i].hi = end if end > hi else hi
    end = r.v[i].hi - r.v[i].lo - had
    _cut(r, i + 1, j)
    r.total += end
    return <int64_t>end


cdef int64_t ranges_remove(nc_ranges* r, uint64_t lo, uint64_t hi) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t j
    cdef uint64_t old_hi
    cdef uint64_t gone = 0
    cdef int rc
    if lo > hi or hi > RANGES_END:
        return defs.NC_EINVAL
    if lo == hi:
        return 0
    i = ranges_find(r, lo)
    if i == r.len or r.v[i].lo >= hi:
        return 0
    if r.v[i].lo < lo and r.v[i].hi > hi:           # a cut in the middle: one range becomes two
        rc = _grow(r)
        if rc < 0:
            return rc
        old_hi = r.v[i].hi
        r.v[i].hi = lo
        _insert(r, i + 1, hi, old_hi)
        r.total -= hi - lo
        return <int64_t>(hi - lo)
    if r.v[i].lo < lo:
        gone = r.v[i].hi - lo
        r.v[i].hi = lo
        i += 1
    j = i
    while j < r.len and r.v[j].hi <= hi:
        gone += r.v[j].hi - r.v[j].lo
        j += 1
    if j < r.len and r.v[j].lo < hi:
        gone += hi - r.v[j].lo
        r.v[j].lo = hi
    _cut(r, i, j)
    r.total -= gone
    return <int64_t>gone


cdef uint64_t ranges_remove_below(nc_ranges* r, uint64_t x) noexcept nogil:
    cdef uint32_t i = 0
    cdef uint64_t gone = 0
    while i < r.len and r.v[i].hi <= x:
        gone += r.v[i].hi - r.v[i].lo
        i += 1
    if i < r.len and r.v[i].lo < x:
        gone += x - r.v[i].lo
        r.v[i].lo = x
    _cut(r, 0, i)
    r.total -= gone
    return gone


cdef int ranges_covered(const nc_ranges* r, uint64_t lo, uint64_t hi) noexcept nogil:
    cdef uint32_t i
    if lo >= hi:
        return 1
    i = ranges_find(r, lo)
    if i == r.len:
        return 0
    return 1 if r.v[i].lo <= lo and r.v[i].hi >= hi else 0


cdef uint64_t ranges_first_gap(const nc_ranges* r, uint64_t x) noexcept nogil:
    cdef uint32_t i = ranges_find(r, x)
    if i < r.len and r.v[i].lo <= x:
        return r.v[i].hi
    return x
