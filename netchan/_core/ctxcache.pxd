# ctxcache: keyed cipher contexts of one engine, least recently used first out. Layer: _core, rung d.
# Thread rule: _new, _grow and _free on a Python-side thread that holds the engine's baton; the rest by the holder of
# the baton, on any thread; nothing there allocates.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from netchan._core cimport crypto
from netchan._core.crypto cimport nc_crypto, nc_ctx

cdef enum:
    CACHE_CONTEXTS = 2048           # default capacity: 2.4 MiB of contexts; a miss costs one re-key
    CACHE_BLOCK = 64                # contexts made at a time
    CACHE_SIDE = 4                  # contexts that unproven tags may use: forged ones never evict a good one

# A keyed context is found by (session, tag, epoch, direction); session is unique in the engine.
cdef struct nc_cache_entry:
    nc_ctx *ctx                     # owned
    uint64_t session
    uint64_t tag                    # key tag of the stream
    uint32_t epoch
    int direction                   # nc_direction; NC_DIR_NONE = unused, then the key in it is zero
    int32_t older                   # neighbours in order of use, -1 = end
    int32_t newer
    int32_t chain                   # next of the same bucket, -1 = end

cdef struct nc_cache:
    const nc_crypto *t              # shared
    nc_cache_entry *entries         # owned, capacity of them, n_ready with a context
    int32_t *buckets                # owned, first entry of each chain or -1
    nc_cache_entry side[CACHE_SIDE]
    nc_ctx *mask[2]                 # owned: what we send, what we receive; NULL: the library has only seal for it
    uint64_t mask_session[2]        # whose key is in it; 0: nobody's
    uint64_t seed                   # odd, random: tags are chosen by peers
    int32_t capacity
    int32_t n_ready                 # grows in steps of CACHE_BLOCK
    int32_t n_used
    int32_t newest
    int32_t oldest                  # unused entries are at this end
    int32_t side_next               # the side entry that is replaced next
    int bits                        # log2 of the number of buckets
    uint64_t hits
    uint64_t misses                 # re-keyed into the main part
    uint64_t evicted
    uint64_t side_loads             # re-keyed into the side part
    uint64_t promoted               # side entries whose tag held

# capacity 1..65536, rounded up to CACHE_BLOCK; seed: random. Owned result with the first block ready; NULL = no memory.
cdef nc_cache *cache_new(const nc_crypto *t, int capacity, uint64_t seed) noexcept nogil
# Makes up to CACHE_BLOCK more contexts. Returns how many are ready now, or NC_ENOMEM.
cdef int cache_grow(nc_cache *c) noexcept nogil
# 1 if every ready context is in use and more are allowed: the next Python-side call should grow.
cdef int cache_wants_grow(const nc_cache *c) noexcept nogil
# NULL is allowed. Frees and wipes all contexts.
cdef void cache_free(nc_cache *c) noexcept nogil
# Context for sealing, keyed with key (32 bytes, borrowed for the call) unless it is there already. Borrowed until the
# next call on this cache. NULL = the library refused the key.
cdef nc_ctx *cache_seal(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch, const uint8_t *key) noexcept nogil
# The same for opening; what was not there is loaded beside the main part until cache_confirm.
cdef nc_ctx *cache_open(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch, const uint8_t *key) noexcept nogil
# A tag held: its context moves to the main part (no re-key). Unknown ones are ignored.
cdef void cache_confirm(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch) noexcept nogil
# 16 bytes of keystream under the header key of a session for a nonce of 12 bytes; which: 0 what it sends, 1 receives.
# NC_OK, NC_ECRYPTO.
cdef int cache_mask(nc_cache *c, uint64_t session, int which, const uint8_t *key, const uint8_t *nonce,
                    uint8_t *out) noexcept nogil
# Zeroes the keys of a session; direction NC_DIR_NONE = both, epoch -1 = all. Returns how many contexts.
cdef int cache_forget(nc_cache *c, uint64_t session, int direction, int64_t epoch) noexcept nogil
