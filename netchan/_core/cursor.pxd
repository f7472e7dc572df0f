# cursor: big-endian load/store, varints, and bounds-checked read and write cursors. Layer: _core, rung b; inline only.
#
# 1. A reader walks [p, end): nc_rd; a writer walks [p, end): nc_wr. Both borrow their bytes from the caller.
# 2. Every rd_*/wr_* either does all of its step or none: on failure the cursor and *out stay as they were.
# 3. Codes: NC_OK, NC_ETRUNC (reader: bytes end before the item), NC_ESPACE (writer: buffer full),
#    NC_ELIMIT (rd_vbytes: length above the caller's limit), NC_EINVAL (writer: value above VARINT_MAX, our mistake).
# Threads: a cursor belongs to one thread. Integers: fixed fields big-endian, variable ones as in RFC 9000 §16.
# Longer than shortest varints are accepted (RFC 9000 §16 allows them); who needs the shortest form compares
# the step with varint_len(value).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from netchan._core cimport defs

cdef extern from *:
    """
    #ifndef NC_CURSOR_H
    #define NC_CURSOR_H
    #include <stdint.h>
    #define NC_VARINT_MAX ((uint64_t)0x3fffffffffffffffULL)
    #define NC_LIKELY(x) __builtin_expect(!!(x), 1)
    #endif
    """
    const uint64_t VARINT_MAX "NC_VARINT_MAX"       # 2^62 - 1, RFC 9000 §16: the largest value a varint can carry
    bint _likely "NC_LIKELY"(bint x) noexcept nogil

cdef enum:
    VARINT_SIZE_MAX = 8                              # bytes of the longest varint

ctypedef struct nc_rd:
    const uint8_t* p                                 # next byte to read; borrowed
    const uint8_t* end                               # one past the last byte; p <= end always

ctypedef struct nc_wr:
    uint8_t* p                                       # next byte to write; borrowed
    uint8_t* end                                     # one past the last byte; p <= end always


# --- load and store, unchecked: the caller owns the bounds; no alignment needed ------------------------------

cdef inline uint16_t load_u16(const uint8_t* p) noexcept nogil:
    return <uint16_t>((<uint32_t>p[0] << 8) | p[1])


cdef inline uint32_t load_u32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | <uint32_t>p[3]


cdef inline uint64_t load_u64(const uint8_t* p) noexcept nogil:
    return (
        (<uint64_t>p[0] << 56) | (<uint64_t>p[1] << 48) | (<uint64_t>p[2] << 40) | (<uint64_t>p[3] << 32)
        | (<uint64_t>p[4] << 24) | (<uint64_t>p[5] << 16) | (<uint64_t>p[6] << 8) | <uint64_t>p[7]
    )


cdef inline void store_u16(uint8_t* p, uint16_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 8)
    p[1] = <uint8_t>v


cdef inline void store_u32(uint8_t* p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 24)
    p[1] = <uint8_t>(v >> 16)
    p[2] = <uint8_t>(v >> 8)
    p[3] = <uint8_t>v


cdef inline void store_u64(uint8_t* p, uint64_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 56)
    p[1] = <uint8_t>(v >> 48)
    p[2] = <uint8_t>(v >> 40)
    p[3] = <uint8_t>(v >> 32)
    p[4] = <uint8_t>(v >> 24)
    p[5] = <uint8_t>(v >> 16)
    p[6] = <uint8_t>(v >> 8)
    p[7] = <uint8_t>v


# --- varints, RFC 9000 §16: two top bits of the first byte = log2 of the size ---------------------------------

# Bytes of the shortest form: 1, 2, 4 or 8; 0 when v > VARINT_MAX (no form exists).
cdef inline size_t varint_len(uint64_t v) noexcept nogil:
    if v < 0x40:
        return 1
    if v < 0x4000:
        return 2
    if v < 0x40000000:
        return 4
    if v <= VARINT_MAX:
        return 8
    return 0


# Writes v in exactly n bytes (n = 1, 2, 4, 8) and returns n; returns 0 and writes nothing when v does not fit in
# n bytes or n is none of these. p has room for n bytes. For lengths that are patched in after the body is known.
cdef inline size_t varint_write_n(uint8_t* p, uint64_t v, size_t n) noexcept nogil:
    if n == 1 and v < 0x40:
        p[0] = <uint8_t>v
        return 1
    if n == 2 and v < 0x4000:
        store_u16(p, <uint16_t>(v | 0x4000))
        return 2
    if n == 4 and v < 0x40000000:
        store_u32(p, <uint32_t>(v | <uint32_t>0x80000000))
        return 4
    if n == 8 and v <= VARINT_MAX:
        store_u64(p, v | (<uint64_t>0xC0 << 56))
        return 8
    return 0


# Writes the shortest form and returns its size; p has room for varint_len(v) bytes. 0 when v > VARINT_MAX.
cdef inline size_t varint_write(uint8_t* p, uint64_t v) noexcept nogil:
    if _likely(v < 0x40):
        p[0] = <uint8_t>v
        return 1
    return varint_write_n(p, v, varint_len(v))


# --- read cursor ----------------------------------------------------------------------------------------------

# Borrows [p, p + n) until the last use of r.
cdef inline void rd_init(nc_rd* r, const uint8_t* p, size_t n) noexcept nogil:
    r.p = p
    r.end = p + n


cdef inline size_t rd_left(const nc_rd* r) noexcept nogil:
    return <size_t>(r.end - r.p)


cdef inline int rd_u8(nc_rd* r, uint8_t* out) noexcept nogil:
    if r.p == r.end:
        return defs.NC_ETRUNC
    out[0] = r.p[0]
    r.p += 1
    return defs.NC_OK


cdef inline int rd_u16(nc_rd* r, uint16_t* out) noexcept nogil:
    if rd_left(r) < 2:
        return defs.NC_ETRUNC
    out[0] = load_u16(r.p)
    r.p += 2
    return defs.NC_OK


cdef inline int rd_u32(nc_rd* r, uint32_t* out) noexcept nogil:
    if rd_left(r) < 4:
        return defs.NC_ETRUNC
    out[0] = load_u32(r.p)
    r.p += 4
    return defs.NC_OK


cdef inline int rd_u64(nc_rd* r, uint64_t* out) noexcept nogil:
    if rd_left(r) < 8:
        return defs.NC_ETRUNC
    out[0] = load_u64(r.p)
    r.p += 8
    return defs.NC_OK


# The 2-, 4- and 8-byte forms; apart from rd_varint so that the one-byte form stays small where it is inlined.
cdef inline int rd_varint_long(nc_rd* r, uint64_t* out) noexcept nogil:
    cdef size_t left = rd_left(r)
    cdef uint8_t first = r.p[0]
    if first < 0x80:
        if left < 2:
            return defs.NC_ETRUNC
        out[0] = load_u16(r.p) & <uint64_t>0x3FFF
        r.p += 2
        return defs.NC_OK
    if first < 0xC0:
        if left < 4:
            return defs.NC_ETRUNC
        out[0] = load_u32(r.p) & <uint64_t>0x3FFFFFFF
        r.p += 4
        return defs.NC_OK
    if left < 8:
        return defs.NC_ETRUNC
    out[0] = load_u64(r.p) & VARINT_MAX
    r.p += 8
    return defs.NC_OK


# Any size of varint; *out <= VARINT_MAX.
cdef inline int rd_varint(nc_rd* r, uint64_t* out) noexcept nogil:
    if r.p == r.end:
        return defs.NC_ETRUNC
    if _likely(r.p[0] < 0x40):
        out[0] = r.p[0]
        r.p += 1
        return defs.NC_OK
    return rd_varint_long(r, out)


# The next n bytes, not copied: *out is borrowed until the bytes under the cursor change. n is a uint64_t so that a
# length from the wire needs no cast that could cut it.
cdef inline int rd_bytes(nc_rd* r, uint64_t n, const uint8_t** out) noexcept nogil:
    if n > <uint64_t>rd_left(r):
        return defs.NC_ETRUNC
    out[0] = r.p
    r.p += <size_t>n
    return defs.NC_OK


# A varint length and that many bytes (borrowed as in rd_bytes). Length above limit_bytes: NC_ELIMIT, found before
# the bytes need to be there.
cdef inline int rd_vbytes(nc_rd* r, uint64_t limit_bytes, const uint8_t** out, size_t* out_len) noexcept nogil:
    cdef nc_rd at = r[0]
    cdef uint64_t n = 0
    cdef int rc = rd_varint(&at, &n)
    if rc < 0:
        return rc
    if n > limit_bytes:
        return defs.NC_ELIMIT
    rc = rd_bytes(&at, n, out)
    if rc < 0:
        return rc
    out_len[0] = <size_t>n
    r[0] = at
    return defs.NC_OK


# --- write cursor ---------------------------------------------------------------------------------------------

# Borrows [p, p + n) until the last use of w.
cdef inline void wr_init(nc_wr* w, uint8_t* p, size_t n) noexcept nogil:
    w.p = p
    w.end = p + n


cdef inline size_t wr_left(const nc_wr* w) noexcept nogil:
    return <size_t>(w.end - w.p)


cdef inline int wr_u8(nc_wr* w, uint8_t v) noexcept nogil:
    if w.p == w.end:
        return defs.NC_ESPACE
    w.p[0] = v
    w.p += 1
    return defs.NC_OK


cdef inline int wr_u16(nc_wr* w, uint16_t v) noexcept nogil:
    if wr_left(w) < 2:
        return defs.NC_ESPACE
    store_u16(w.p, v)
    w.p += 2
    return defs.NC_OK


cdef inline int wr_u32(nc_wr* w, uint32_t v) noexcept nogil:
    if wr_left(w) < 4:
        return defs.NC_ESPACE
    store_u32(w.p, v)
    w.p += 4
    return defs.NC_OK


cdef inline int wr_u64(nc_wr* w, uint64_t v) noexcept nogil:
    if wr_left(w) < 8:
        return defs.NC_ESPACE
    store_u64(w.p, v)
    w.p += 8
    return defs.NC_OK


# Shortest form. NC_EINVAL when v > VARINT_MAX.
cdef inline int wr_varint(nc_wr* w, uint64_t v) noexcept nogil:
    cdef size_t n = varint_len(v)
    if n == 0:
        return defs.NC_EINVAL
    if wr_left(w) < n:
        return defs.NC_ESPACE
    w.p += varint_write_n(w.p, v, n)
    return defs.NC_OK


# Copies n bytes from src (borrowed for the call; may be NULL when n is 0); the ranges must not overlap.
cdef inline int wr_bytes(nc_wr* w, const uint8_t* src, size_t n) noexcept nogil:
    if n > wr_left(w):
        return defs.NC_ESPACE
    if n:
        memcpy(w.p, src, n)
        w.p += n
    return defs.NC_OK


# A varint length and the bytes (as wr_bytes).
cdef inline int wr_vbytes(nc_wr* w, const uint8_t* src, size_t n) noexcept nogil:
    cdef size_t head = varint_len(n)
    if head == 0:
        return defs.NC_EINVAL
    if n > wr_left(w) or wr_left(w) - n < head:
        return defs.NC_ESPACE
    w.p += varint_write_n(w.p, n, head)
    return wr_bytes(w, src, n)
