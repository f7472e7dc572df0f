"""The erasure code of parity: a systematic Reed-Solomon code with coefficients of a Cauchy matrix, over GF(2^8).

Layer: _core, rung d. No clock, no socket, no lock, no state but the table of coefficients. Contract and flow in
``erasure.pxd``. Spec: docs/spec/parity.md §1.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.gf256 cimport gf_inv, gf_mul, gf_mul_add_rows
from netchan._core.ranges cimport nc_ranges, ranges_find

cdef enum:
    INDICES = PARITY_INDEX_MAX + 1
    STRIP = 256                         # bytes of each row that parity_solve works on at a time, on the stack

# [i][j]: what a data symbol brings to all parity symbols lies together.
cdef uint8_t[INDICES][INDICES] _coefficient


# Points of the Cauchy matrix: y of data symbol i, x of parity symbol j. No x is a y, so no sum of two is 0.
cdef inline uint8_t y_of(int i) noexcept nogil:
    return <uint8_t>i


cdef inline uint8_t x_of(int j) noexcept nogil:
    return <uint8_t>(defs.PARITY_SYMBOLS_MAX + j)


cdef inline uint8_t gf_div(uint8_t a, uint8_t b) noexcept nogil:
    return gf_mul(a, gf_inv(b))


# C[j][i] = row_scale(j) * column_scale(i) / (x_j + y_i): row 0 and column 0 are all ones.
cdef inline uint8_t row_scale(int j) noexcept nogil:
    return x_of(j) ^ y_of(0)


cdef inline uint8_t column_scale(int i) noexcept nogil:
    return gf_div(x_of(0) ^ y_of(i), x_of(0) ^ y_of(0))


cdef void _fill() noexcept nogil:
    cdef int i, j
    for i in range(INDICES):
        for j in range(INDICES):
            _coefficient[i][j] = gf_div(gf_mul(row_scale(j), column_scale(i)), x_of(j) ^ y_of(i))


_fill()


cdef uint8_t parity_coefficient(int j, int i) noexcept nogil:
    return _coefficient[i][j] if 0 <= i < INDICES and 0 <= j < INDICES else 0


cdef int parity_add(uint8_t** rows, const uint8_t* index, int n_rows, size_t S, size_t at, const uint8_t* p,
                    size_t n) noexcept nogil:
    cdef uint8_t[INDICES] c
    cdef uint8_t* dst[INDICES]
    cdef size_t i, step
    cdef int r
    if n_rows < 1 or n_rows > INDICES or S < 1 or S > defs.PARITY_BYTES_MAX:
        return defs.NC_EINVAL
    if at > INDICES * S or n > INDICES * S - at:
        return defs.NC_EINVAL
    if index != NULL:
        for r in range(n_rows):
            if index[r] >= INDICES:
                return defs.NC_EINVAL
    i = at // S
    at -= i * S
    while n > 0:
        step = S - at if n > S - at else n
        for r in range(n_rows):
            c[r] = _coefficient[i][r if index == NULL else index[r]]
            dst[r] = rows[r] + at
        gf_mul_add_rows(dst, c, n_rows, p, step)
        p += step
        n -= step
        i += 1
        at = 0
    return defs.NC_OK


# Closed form (a Cauchy matrix has one, so nothing is eliminated and nothing can fail on the way): with the missing y
# and the held x, the inverse of 1 / (x + y) has the entries u[a] * v[b] / (x_a + y_b), where
#   u[a] = product over all y of (x_a + y) / product over the other x of (x_a + x)
#   v[b] = product over all x of (x + y_b) / product over the other y of (y + y_b).
# The scales of rows and columns are taken out of u and v again.
cdef int parity_invert(const uint8_t* missing, const uint8_t* held, int e, uint8_t* inverse) noexcept nogil:
    cdef uint8_t[PARITY_MISSING_MAX] u
    cdef uint8_t[PARITY_MISSING_MAX] v
    cdef uint8_t over_u, under_u, over_v, under_v
    cdef int a, b
    if e < 1 or e > PARITY_MISSING_MAX:
        return defs.NC_EINVAL
    for a in range(e):
        if missing[a] >= INDICES or held[a] >= INDICES:
            return defs.NC_EINVAL
    for a in range(e):
        over_u = over_v = under_u = under_v = 1
        for b in range(e):
            over_u = gf_mul(over_u, x_of(held[a]) ^ y_of(missing[b]))
            over_v = gf_mul(over_v, x_of(held[b]) ^ y_of(missing[a]))
            if a != b:
                under_u = gf_mul(under_u, x_of(held[a]) ^ x_of(held[b]))
                under_v = gf_mul(under_v, y_of(missing[a]) ^ y_of(missing[b]))
        if under_u == 0 or under_v == 0:
            return defs.NC_EINVAL                   # an index that is there twice
        u[a] = gf_div(over_u, gf_mul(under_u, row_scale(held[a])))
        v[a] = gf_div(over_v, gf_mul(under_v, column_scale(missing[a])))
    for a in range(e):
        for b in range(e):
            inverse[a * e + b] = gf_div(gf_mul(u[a], v[b]), x_of(held[a]) ^ y_of(missing[b]))
    return defs.NC_OK


cdef int parity_solve(uint8_t** rows, const uint8_t* inverse, int e, size_t n) noexcept nogil:
    cdef uint8_t[PARITY_MISSING_MAX * STRIP] strip
    cdef uint8_t* out[PARITY_MISSING_MAX]
    cdef size_t x = 0
    cdef size_t step
    cdef int a
    if e < 1 or e > PARITY_MISSING_MAX:
        return defs.NC_EINVAL
    if e == 1 and inverse[0] == 1:
        return defs.NC_OK                           # plain xor: the sum is the missing symbol
    for a in range(e):
        out[a] = strip + a * STRIP
    while x < n:
        step = n - x if n - x < STRIP else STRIP
        memset(strip, 0, e * STRIP)
        for a in range(e):
            gf_mul_add_rows(out, inverse + a * e, e, rows[a] + x, step)
        for a in range(e):
            memcpy(rows[a] + x, out[a], step)
        x += step
    return defs.NC_OK


cdef int parity_gaps(const nc_ranges* got, uint64_t received, uint64_t start, uint64_t end, size_t S, size_t column,
                     uint8_t* missing, size_t* stop) noexcept nogil:
    cdef uint64_t x, until, base
    cdef size_t last = S
    cdef uint32_t g
    cdef int e = 0
    cdef int i
    # An end before the start wraps around to a length that is out of range.
    if S < 1 or S > defs.PARITY_BYTES_MAX or column >= S or end - start > INDICES * S:
        return defs.NC_EINVAL
    for i in range(INDICES):
        base = start + <uint64_t>i * S
        x = base + column
        if x >= end:
            break                                   # zero from here on, in this column and in all behind it
        until = end
        if x < received:
            if received < until:
                until = received
        else:
            g = ranges_find(got, x)
            if g == got.len or got.v[g].lo > x:
                missing[e] = <uint8_t>i
                e += 1
                if g < got.len and got.v[g].lo < until:
                    until = got.v[g].lo
            elif got.v[g].hi < until:
                until = got.v[g].hi
        if until - base < last:
            last = <size_t>(until - base)
    stop[0] = last
    return e
