"""Opens the erasure code and its field to pytest and to the benchmarks; test-only, never in wheels.

Layer: beside _core; nothing imports it but tests. Functions return what the C function returned, codes as numbers. Rows
are bytearrays and are changed in place.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from netchan._core cimport defs, erasure, gf256
from netchan._core.ranges cimport RANGES_MAX, nc_ranges, ranges_add, ranges_free, ranges_init

OK = defs.NC_OK
EINVAL = defs.NC_EINVAL
SYMBOLS_MAX = defs.PARITY_SYMBOLS_MAX
BYTES_MAX = defs.PARITY_BYTES_MAX
INDEX_MAX = erasure.PARITY_INDEX_MAX
MISSING_MAX = erasure.PARITY_MISSING_MAX

cdef enum:
    ROWS = 40                           # more than any code has, so that too many can be asked for
    GUARD = 64                          # bytes in front of and behind what may be written


cdef inline int64_t _now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef uint8_t* _bytes_of(bytearray row, size_t need) except NULL:
    if <size_t>PyByteArray_GET_SIZE(row) < need:
        raise ValueError("row too short for this test")
    return <uint8_t*>PyByteArray_AS_STRING(row)


# --- field ----------------------------------------------------------------------------------------------------------

def mul(uint8_t a, uint8_t b):
    return gf256.gf_mul(a, b)


def inv(uint8_t a):
    return gf256.gf_inv(a)


def mul_add(uint8_t c, bytes src, bytes dst, int shift_dst=0, int shift_src=0, uint8_t guard=0xa5):
    """dst + c * src, both at a given distance from a multiple of 32; src ends where its memory does.

    Returns:
        What lies from ``GUARD`` bytes before dst to as many behind it.
    """
    cdef size_t n = len(src)
    cdef uint8_t* room = NULL
    cdef uint8_t* from_ = NULL
    cdef uint8_t* d
    if len(dst) != len(src) or not 0 <= shift_dst < 32 or not 0 <= shift_src < 32:
        raise ValueError("lengths or shifts")
    try:
        # One byte more where there is none: an address all the same.
        if (posix_memalign(<void**>&room, 32, n + 2 * GUARD + shift_dst) != 0
                or posix_memalign(<void**>&from_, 32, n + shift_src if n + shift_src else 1) != 0):
            raise MemoryError
        d = room + shift_dst
        memset(d, guard, n + 2 * GUARD)
        memcpy(d + GUARD, <const uint8_t*>dst, n)
        memcpy(from_ + shift_src, <const uint8_t*>src, n)
        gf256.gf_mul_add(d + GUARD, from_ + shift_src, c, n)
        return (<const char*>d)[:n + 2 * GUARD]
    finally:
        free(room)
        free(from_)


def mul_add_rows(bytes c, bytes src, list rows, size_t at=0):
    """rows[r][at:] += c[r] * src, all at once."""
    cdef uint8_t* dst[ROWS]
    cdef size_t n = len(src)
    if len(c) != len(rows) or len(rows) > ROWS:
        raise ValueError("rows")
    for i, row in enumerate(rows):
        dst[<int>i] = _bytes_of(row, at + n) + at
    gf256.gf_mul_add_rows(dst, <const uint8_t*>c, <int>len(rows), <const uint8_t*>src, n)


# --- code -----------------------------------------------------------------------------------------------------------

def coefficient(int j, int i):
    return erasure.parity_coefficient(j, i)


def add(list rows, size_t S, size_t at, bytes data, bytes index=None):
    """parity_add; ``index`` None: row r is of parity symbol r."""
    cdef uint8_t* dst[ROWS]
    cdef const uint8_t* indices = NULL
    if len(rows) > ROWS or (index is not None and len(index) != len(rows)):
        raise ValueError("rows")
    for i, row in enumerate(rows):
        dst[<int>i] = _bytes_of(row, S)
    if index is not None:
        indices = <const uint8_t*>index
    return erasure.parity_add(dst, indices, <int>len(rows), S, at, <const uint8_t*>data, len(data))


def invert(bytes missing, bytes held):
    """parity_invert: a list of e rows, one for each of ``held``; or the code."""
    cdef uint8_t[defs.PARITY_SYMBOLS_MAX * defs.PARITY_SYMBOLS_MAX] out
    cdef int e = <int>len(missing)
    if len(held) != e or e > defs.PARITY_SYMBOLS_MAX:
        raise ValueError("as many parity symbols as missing ones")
    rc = erasure.parity_invert(<const uint8_t*>missing, <const uint8_t*>held, e, out)
    return rc if rc < 0 else [(<const char*>out)[a * e:(a + 1) * e] for a in range(e)]


def solve(list rows, list inverse, size_t start, size_t n):
    """parity_solve on the columns from ``start`` on."""
    cdef uint8_t* at[ROWS]
    cdef bytes flat = b"".join(inverse)
    if len(rows) > ROWS or len(flat) != len(rows) * len(rows):
        raise ValueError("rows")
    for i, row in enumerate(rows):
        at[<int>i] = _bytes_of(row, start + n) + start
    return erasure.parity_solve(at, <const uint8_t*>flat, <int>len(rows), n)


def gaps(list got, uint64_t received, uint64_t start, uint64_t end, size_t S, size_t column):
    """parity_gaps: (missing symbols, stop), or the code."""
    cdef nc_ranges r
    cdef uint8_t[erasure.PARITY_INDEX_MAX + 1] missing
    cdef size_t stop = 0
    ranges_init(&r, RANGES_MAX)
    try:
        for lo, hi in got:
            if ranges_add(&r, lo, hi) < 0:
                raise ValueError("ranges")
        rc = erasure.parity_gaps(&r, received, start, end, S, column, missing, &stop)
    finally:
        ranges_free(&r)
    return rc if rc < 0 else ((<const char*>missing)[:rc], stop)


# --- speed ----------------------------------------------------------------------------------------------------------

def bench_mul_add(size_t n, uint8_t c, long rounds):
    """Nanoseconds per gf_mul_add of n bytes."""
    cdef long _i
    cdef int64_t t0
    cdef int64_t t1
    cdef uint8_t* room = <uint8_t*>calloc(2, n + 64)
    if room == NULL:
        raise MemoryError
    memset(room, 0x5a, n)
    with nogil:
        t0 = _now_ns()
        for _i in range(rounds):
            gf256.gf_mul_add(room + n + 64, room, c, n)
        t1 = _now_ns()
    free(room)
    return (t1 - t0) / <double>rounds


def bench_add(int k, int m, size_t S, size_t piece, long rounds):
    """Nanoseconds per group of k symbols of S bytes, added to m rows in pieces of ``piece`` bytes."""
    cdef uint8_t* rows[ROWS]
    cdef long _i
    cdef size_t at, n
    cdef int j
    cdef int64_t t0
    cdef int64_t t1
    cdef uint8_t* room
    if not 1 <= m <= ROWS or piece == 0:
        raise ValueError("m or piece")
    room = <uint8_t*>calloc(k + m, S)
    if room == NULL:
        raise MemoryError
    memset(room, 0x5a, k * S)
    for j in range(m):
        rows[j] = room + (k + j) * S
    with nogil:
        t0 = _now_ns()
        for _i in range(rounds):
            at = 0
            while at < k * S:
                n = piece if piece < k * S - at else k * S - at
                erasure.parity_add(rows, NULL, m, S, at, room + at, n)
                at += n
        t1 = _now_ns()
    free(room)
    return (t1 - t0) / <double>rounds


def bench_solve(int e, size_t n, long rounds):
    """Nanoseconds per parity_invert and parity_solve of e missing symbols, the last e parity symbols held."""
    cdef uint8_t* rows[ROWS]
    cdef uint8_t[ROWS] missing
    cdef uint8_t[ROWS] held
    cdef uint8_t[erasure.PARITY_MISSING_MAX * erasure.PARITY_MISSING_MAX] inverse
    cdef long _i
    cdef int a
    cdef int64_t t0
    cdef int64_t t1
    cdef uint8_t* room
    if not 1 <= e <= erasure.PARITY_MISSING_MAX:
        raise ValueError("e")
    room = <uint8_t*>calloc(e, n)
    if room == NULL:
        raise MemoryError
    for a in range(e):
        rows[a] = room + a * n
        missing[a] = held[a] = <uint8_t>(a + 1 if a + 1 < e or e == 1 else 0)
    with nogil:
        t0 = _now_ns()
        for _i in range(rounds):
            erasure.parity_invert(missing, held, e, inverse)
            erasure.parity_solve(rows, inverse, e, n)
        t1 = _now_ns()
    free(room)
    return (t1 - t0) / <double>rounds
