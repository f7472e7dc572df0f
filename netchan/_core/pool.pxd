# pool: fixed-size, reference-counted buffers with headroom and tailroom. Layer: _core, rung c.
#
# A block is one allocation: nc_buf (64 bytes), then POOL_HEADROOM + payload + POOL_TAILROOM bytes, the payload on a
# cache line. Header and tag are written around the payload in place:
#
#   base          base+head              base+head+len           base+cap
#   | headroom    | bytes in use (len)   | tailroom              |
#
# 1. pool_get -> refs 1, len 0, head = POOL_HEADROOM.   2. buf_ref for every further holder (shared).
# 3. pool_put(&p) by every holder: p becomes NULL; the last one gives the block back to the pool.
# Bounds: max_bytes over all blocks, in use or kept; cache_bytes of kept blocks per size class.
# Threads: any thread may get and put; the pool's leaf lock is never held over malloc or free. The bytes and
# head/len/next of a buffer belong to its one writer; a buffer with refs > 1 is read-only by agreement.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core cimport leaf

cdef extern from *:
    """
    #ifndef NETCHAN_DEBUG
    #define NETCHAN_DEBUG 0
    #endif
    """
    const int POOL_DEBUG "NETCHAN_DEBUG"             # 1: double release aborts, blocks given back are overwritten

cdef enum:
    POOL_CLASSES = 4
    POOL_HEADROOM = 64                               # before the payload: datagram or record header
    POOL_TAILROOM = 64                               # behind it: tag and padding
    POOL_BLOCK_HEAD = 64                             # room of nc_buf at the front of a block
    POOL_PAYLOAD_MAX = 65536                         # payload of the largest class

ctypedef nc_buf_s nc_buf
ctypedef nc_pool_s nc_pool

cdef struct nc_buf_s:
    nc_buf* next                                     # free for the owner (queues); NULL at get, cleared at put
    uint8_t* base                                    # owned by the block; cap bytes
    nc_pool* pool                                    # where it goes back
    uint32_t head                                    # offset of the first byte in use
    uint32_t len                                     # bytes in use; head + len <= cap
    uint32_t cap                                     # POOL_HEADROOM + payload + POOL_TAILROOM
    uint32_t refs                                    # holders; atomic; 0 = kept by the pool
    uint32_t cls                                     # size class

ctypedef struct nc_pool_stats:
    uint64_t used[POOL_CLASSES]                      # blocks handed out now
    uint64_t cached[POOL_CLASSES]                    # blocks kept now
    uint64_t bytes                                   # of all blocks, in use and kept
    uint64_t n_reused                                # gets served from kept blocks
    uint64_t n_made                                  # gets served by malloc
    uint64_t n_failed                                # gets refused: bound reached, or malloc failed
    uint64_t n_bad_puts                              # releases of a block nobody held (release build; debug aborts)

cdef struct nc_pool_s:
    leaf.nc_leaf lock                                # protects all below
    uint32_t closed                                  # 1: gets fail, puts free
    uint64_t max_bytes
    uint32_t cache_max[POOL_CLASSES]                 # blocks kept at most
    nc_buf* kept[POOL_CLASSES]                       # owned; linked by next
    nc_pool_stats st

# Allocates nothing. cache_bytes: kept per class (0 = keep none). NC_EINVAL: max_bytes 0.
cdef int pool_init(nc_pool* p, uint64_t max_bytes, uint64_t cache_bytes) noexcept nogil
# Frees what is kept, refuses further gets. Returns the blocks still handed out: each is freed at its last put, and
# the struct must stay until this returns 0 (call again).
cdef uint64_t pool_close(nc_pool* p) noexcept nogil
# Frees what is kept now; the pool goes on. Returns the bytes given back to the system.
cdef uint64_t pool_trim(nc_pool* p) noexcept nogil
# A buffer with room for payload_bytes (smallest class that fits), owned, refs 1. NULL: bound reached, no memory,
# payload_bytes > POOL_PAYLOAD_MAX, or closed; the caller says NC_EAGAIN.
cdef nc_buf* pool_get(nc_pool* p, uint32_t payload_bytes) noexcept nogil
# One holder less; *slot becomes NULL. NULL in *slot: nothing to do.
cdef void pool_put(nc_buf** slot) noexcept nogil
# A moment's copy of the counters.
cdef void pool_stats(nc_pool* p, nc_pool_stats* out) noexcept nogil


# Payload bytes of a size class.
cdef inline uint32_t pool_class_bytes(uint32_t cls) noexcept nogil:
    return <uint32_t>1024 << (2 * cls)


# One holder more; returns b for the new holder.
cdef inline nc_buf* buf_ref(nc_buf* b) noexcept nogil:
    leaf.fetch_add_u32(&b.refs, 1)
    return b


# 1: the caller is the only holder (it may write).
cdef inline int buf_is_sole(const nc_buf* b) noexcept nogil:
    return 1 if leaf.load_acq_u32(&b.refs) == 1 else 0


# First byte in use; borrowed until the caller's put.
cdef inline uint8_t* buf_data(nc_buf* b) noexcept nogil:
    return b.base + b.head


cdef inline uint32_t buf_headroom(const nc_buf* b) noexcept nogil:
    return b.head


cdef inline uint32_t buf_tailroom(const nc_buf* b) noexcept nogil:
    return b.cap - b.head - b.len


# n bytes more in front / behind: pointer to the new bytes (not written), NULL when there is no room.
cdef inline uint8_t* buf_push_head(nc_buf* b, uint32_t n) noexcept nogil:
    if n > b.head:
        return NULL
    b.head -= n
    b.len += n
    return b.base + b.head


cdef inline uint8_t* buf_push_tail(nc_buf* b, uint32_t n) noexcept nogil:
    cdef uint8_t* at
    if n > buf_tailroom(b):
        return NULL
    at = b.base + b.head + b.len
    b.len += n
    return at


# n bytes less in front / behind: 1 done, 0 when fewer are in use (nothing changed).
cdef inline int buf_pull_head(nc_buf* b, uint32_t n) noexcept nogil:
    if n > b.len:
        return 0
    b.head += n
    b.len -= n
    return 1


cdef inline int buf_pull_tail(nc_buf* b, uint32_t n) noexcept nogil:
    if n > b.len:
        return 0
    b.len -= n
    return 1


# Empty again, as pool_get gave it.
cdef inline void buf_reset(nc_buf* b) noexcept nogil:
    b.head = POOL_HEADROOM
    b.len = 0
