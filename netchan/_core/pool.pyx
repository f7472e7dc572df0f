"""Fixed-size, reference-counted buffers with headroom and tailroom, bounded in bytes.

Layer: _core, rung c. Any thread may get and put: a leaf lock guards the lists; malloc and free happen outside it.
Contract and layout in ``pool.pxd``.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free
from libc.string cimport memset

from netchan._core cimport defs, leaf

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size)


# Bytes of one block of a class, all included; a multiple of 64, as aligned_alloc wants.
cdef inline uint64_t _block_bytes(uint32_t cls) noexcept nogil:
    return <uint64_t>POOL_BLOCK_HEAD + POOL_HEADROOM + pool_class_bytes(cls) + POOL_TAILROOM


cdef int pool_init(nc_pool* p, uint64_t max_bytes, uint64_t cache_bytes) noexcept nogil:
    cdef uint32_t cls
    cdef uint64_t n
    if sizeof(nc_buf) > POOL_BLOCK_HEAD or max_bytes == 0:
        return defs.NC_EINVAL
    memset(p, 0, sizeof(nc_pool))
    leaf.leaf_init(&p.lock)
    p.max_bytes = max_bytes
    for cls in range(<uint32_t>POOL_CLASSES):
        n = cache_bytes // _block_bytes(cls)
        p.cache_max[cls] = <uint32_t>n if n < <uint32_t>-1 else <uint32_t>-1
    return defs.NC_OK


cdef inline void _free_list(nc_buf* b) noexcept nogil:
    cdef nc_buf* next_one
    while b != NULL:
        next_one = b.next
        free(b)
        b = next_one


# Under the lock: takes kept blocks of every class out until need bytes fit below the bound; returns them, linked.
cdef nc_buf* _evict(nc_pool* p, uint64_t need) noexcept nogil:
    cdef nc_buf* out = NULL
    cdef nc_buf* b
    cdef uint32_t cls = POOL_CLASSES
    while cls and (p.st.bytes > p.max_bytes or p.max_bytes - p.st.bytes < need):
        b = p.kept[cls - 1]
        if b == NULL:
            cls -= 1
            continue
        p.kept[cls - 1] = b.next
        p.st.cached[cls - 1] -= 1
        p.st.bytes -= _block_bytes(cls - 1)
        b.next = out
        out = b
    return out


cdef uint64_t pool_trim(nc_pool* p) noexcept nogil:
    cdef nc_buf* out
    cdef uint64_t before
    leaf.leaf_lock(&p.lock)
    before = p.st.bytes
    out = _evict(p, <uint64_t>-1)
    before -= p.st.bytes
    leaf.leaf_unlock(&p.lock)
    _free_list(out)
    return before


cdef uint64_t pool_close(nc_pool* p) noexcept nogil:
    cdef uint64_t used = 0
    cdef uint32_t cls
    leaf.leaf_lock(&p.lock)
    p.closed = 1
    for cls in range(<uint32_t>POOL_CLASSES):
        used += p.st.used[cls]
    leaf.leaf_unlock(&p.lock)
    pool_trim(p)
    return used


cdef nc_buf* pool_get(nc_pool* p, uint32_t payload_bytes) noexcept nogil:
    cdef uint32_t cls = 0
    cdef uint64_t need
    cdef nc_buf* b = NULL
    cdef nc_buf* out = NULL
    cdef bint make = False
    while cls < <uint32_t>POOL_CLASSES and pool_class_bytes(cls) < payload_bytes:
        cls += 1
    if cls < <uint32_t>POOL_CLASSES:
        need = _block_bytes(cls)
        leaf.leaf_lock(&p.lock)
        b = p.kept[cls]
        if p.closed:
            b = NULL
        elif b != NULL:
            p.kept[cls] = b.next
            p.st.cached[cls] -= 1
            p.st.used[cls] += 1
            p.st.n_reused += 1
        else:
            out = _evict(p, need)
            if p.st.bytes <= p.max_bytes and p.max_bytes - p.st.bytes >= need:
                p.st.bytes += need                  # booked before the lock is left: the bound holds at every moment
                p.st.used[cls] += 1
                p.st.n_made += 1
                make = True
        leaf.leaf_unlock(&p.lock)
        _free_list(out)
        if make:
            b = <nc_buf*>aligned_alloc(64, need)
            if b == NULL:
                leaf.leaf_lock(&p.lock)
                p.st.bytes -= need
                p.st.used[cls] -= 1
                p.st.n_made -= 1
                leaf.leaf_unlock(&p.lock)
            else:
                b.base = <uint8_t*>b + POOL_BLOCK_HEAD
                b.pool = p
                b.cap = POOL_HEADROOM + pool_class_bytes(cls) + POOL_TAILROOM
                b.cls = cls
    if b == NULL:
        leaf.leaf_lock(&p.lock)
        p.st.n_failed += 1
        leaf.leaf_unlock(&p.lock)
        return NULL
    b.next = NULL
    buf_reset(b)
    leaf.store_rel_u32(&b.refs, 1)
    return b


cdef void _bad_put(nc_buf* b) noexcept nogil:
    cdef nc_pool* p = b.pool
    if POOL_DEBUG:
        abort()
    leaf.fetch_add_u32(&b.refs, 1)
    leaf.leaf_lock(&p.lock)
    p.st.n_bad_puts += 1
    leaf.leaf_unlock(&p.lock)


cdef void pool_put(nc_buf** slot) noexcept nogil:
    cdef nc_buf* b = slot[0]
    cdef nc_pool* p
    cdef uint32_t cls
    cdef uint32_t was
    slot[0] = NULL
    if b == NULL:
        return
    was = leaf.fetch_sub_u32(&b.refs, 1)
    if was > 1:
        return
    if was == 0:
        _bad_put(b)
        return
    p = b.pool
    cls = b.cls
    b.next = NULL
    b.head = 0
    b.len = 0
    if POOL_DEBUG:
        memset(b.base, 0xDD, b.cap)                 # a late reader sees rubbish, not somebody else's bytes
    leaf.leaf_lock(&p.lock)
    p.st.used[cls] -= 1
    if not p.closed and p.st.cached[cls] < p.cache_max[cls]:
        b.next = p.kept[cls]
        p.kept[cls] = b
        p.st.cached[cls] += 1
        b = NULL
    else:
        p.st.bytes -= _block_bytes(cls)
    leaf.leaf_unlock(&p.lock)
    free(b)


cdef void pool_stats(nc_pool* p, nc_pool_stats* out) noexcept nogil:
    leaf.leaf_lock(&p.lock)
    out[0] = p.st
    leaf.leaf_unlock(&p.lock)
