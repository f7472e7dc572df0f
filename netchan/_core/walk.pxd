# walk: one description of a layout that writes fields into a growing buffer, or reads them back. Layer: _core, rung c;
# inline. docs/spec/handover.md §4.
#
# Who describes a struct calls walk_* for its fields in order; `reads` says which way they go. So what is written and
# what is read cannot differ. Integers have fixed sizes, big-endian. After the first failure (rc) nothing is read any
# more and what is read is 0, so that a walk need not look after each field; it must before it allots or loops.
# Ownership: `buf` belongs to the walk until the caller takes it, and is wiped when it grows: it holds keys.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.cursor cimport load_u16, load_u32, load_u64, store_u16, store_u32, store_u64

ctypedef struct nc_walk:
    uint8_t reads
    int rc                          # NC_OK, or the first failure
    uint8_t* buf                    # writing: owned
    size_t len
    size_t cap
    size_t most                     # bytes that may be written
    const uint8_t* p                # reading: borrowed
    const uint8_t* end


cdef inline void walk_wipe(uint8_t* p, size_t n) noexcept nogil:
    cdef volatile uint8_t* q = p
    cdef size_t i
    for i in range(n):
        q[i] = 0


cdef inline void walk_write(nc_walk* w, size_t most) noexcept nogil:
    memset(w, 0, sizeof(nc_walk))
    w.most = most


cdef inline void walk_read(nc_walk* w, const uint8_t* p, size_t n) noexcept nogil:
    memset(w, 0, sizeof(nc_walk))
    w.reads = 1
    w.p = p
    w.end = p + n


cdef inline void walk_drop(nc_walk* w) noexcept nogil:
    if w.buf is not NULL:
        walk_wipe(w.buf, w.len)
        free(w.buf)
    w.buf = NULL


cdef inline void walk_fail(nc_walk* w, int rc) noexcept nogil:
    if w.rc == defs.NC_OK:
        w.rc = rc


cdef inline size_t walk_left(const nc_walk* w) noexcept nogil:
    return <size_t>(w.end - w.p)


# Room for n bytes more, or NULL.
cdef inline uint8_t* walk_room(nc_walk* w, size_t n) noexcept nogil:
    cdef uint8_t* bigger
    cdef size_t cap = w.cap if w.cap else 4096
    if w.rc < 0:
        return NULL
    if n > w.most - w.len:
        walk_fail(w, defs.NC_ELIMIT)
        return NULL
    if w.len + n > w.cap:
        while cap < w.len + n:
            cap *= 2
        bigger = <uint8_t*>malloc(cap)
        if bigger is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return NULL
        if w.buf is not NULL:
            memcpy(bigger, w.buf, w.len)
            walk_wipe(w.buf, w.len)
            free(w.buf)
        w.buf = bigger
        w.cap = cap
    w.len += n
    return w.buf + w.len - n


# The next n bytes of what is read, or NULL.
cdef inline const uint8_t* walk_next(nc_walk* w, size_t n) noexcept nogil:
    if w.rc < 0:
        return NULL
    if n > walk_left(w):
        walk_fail(w, defs.NC_ETRUNC)
        return NULL
    w.p += n
    return w.p - n


cdef inline void walk_u64(nc_walk* w, uint64_t* v) noexcept nogil:
    cdef uint8_t* to
    cdef const uint8_t* at
    if w.reads:
        at = walk_next(w, 8)
        v[0] = load_u64(at) if at is not NULL else 0
    else:
        to = walk_room(w, 8)
        if to is not NULL:
            store_u64(to, v[0])


cdef inline void walk_u32(nc_walk* w, uint32_t* v) noexcept nogil:
    cdef uint8_t* to
    cdef const uint8_t* at
    if w.reads:
        at = walk_next(w, 4)
        v[0] = load_u32(at) if at is not NULL else 0
    else:
        to = walk_room(w, 4)
        if to is not NULL:
            store_u32(to, v[0])


cdef inline void walk_u16(nc_walk* w, uint16_t* v) noexcept nogil:
    cdef uint8_t* to
    cdef const uint8_t* at
    if w.reads:
        at = walk_next(w, 2)
        v[0] = load_u16(at) if at is not NULL else 0
    else:
        to = walk_room(w, 2)
        if to is not NULL:
            store_u16(to, v[0])


cdef inline void walk_raw(nc_walk* w, void* v, size_t n) noexcept nogil:
    cdef uint8_t* to
    cdef const uint8_t* at
    if n == 0:
        return
    if w.reads:
        at = walk_next(w, n)
        if at is not NULL:
            memcpy(v, at, n)
        else:
            memset(v, 0, n)
    else:
        to = walk_room(w, n)
        if to is not NULL:
            memcpy(to, v, n)


cdef inline void walk_u8(nc_walk* w, uint8_t* v) noexcept nogil:
    walk_raw(w, v, 1)


cdef inline void walk_i64(nc_walk* w, int64_t* v) noexcept nogil:
    walk_u64(w, <uint64_t*>v)


cdef inline void walk_size(nc_walk* w, size_t* v) noexcept nogil:
    walk_u64(w, <uint64_t*>v)


# 0 or 1.
cdef inline void walk_flag(nc_walk* w, uint8_t* v) noexcept nogil:
    walk_u8(w, v)
    if v[0] > 1:
        walk_fail(w, defs.NC_EFRAME)
        v[0] = 0


cdef inline void walk_flag32(nc_walk* w, uint32_t* v) noexcept nogil:
    cdef uint8_t flag = 1 if v[0] else 0
    walk_flag(w, &flag)
    v[0] = flag


# A position in a stream or on a path, a count: at most 2^62.
cdef inline void walk_pos(nc_walk* w, uint64_t* v) noexcept nogil:
    walk_u64(w, v)
    if v[0] > <uint64_t>1 << 62:
        walk_fail(w, defs.NC_EFRAME)
        v[0] = 0


# A reading of the clock, or 0, or never.
cdef inline void walk_time(nc_walk* w, int64_t* v) noexcept nogil:
    walk_i64(w, v)
    if w.reads and (v[0] < 0 or (v[0] > <int64_t>1 << 61 and v[0] != <int64_t>0x7FFFFFFFFFFFFFFF)):
        walk_fail(w, defs.NC_EFRAME)
        v[0] = 0


# A span of time: no sum of some of them overflows.
cdef inline void walk_span(nc_walk* w, int64_t* v) noexcept nogil:
    walk_i64(w, v)
    if w.reads and not (0 <= v[0] <= <int64_t>1 << 54):
        walk_fail(w, defs.NC_EFRAME)
        v[0] = 0


# How many items follow, each of `least` bytes at least: nothing is allotted for what is not there.
cdef inline uint32_t walk_count(nc_walk* w, uint32_t n, uint32_t most, size_t least) noexcept nogil:
    walk_u32(w, &n)
    if w.reads and (n > most or n * least > walk_left(w)):
        walk_fail(w, defs.NC_EFRAME)
    return n if w.rc == defs.NC_OK else 0


# What cannot be: the walk fails unless yes.
cdef inline void walk_need(nc_walk* w, bint yes) noexcept nogil:
    if not yes:
        walk_fail(w, defs.NC_EFRAME)
