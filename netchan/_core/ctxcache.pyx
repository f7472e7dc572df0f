"""Keyed cipher contexts of one engine: at most 2 048, the least recently used is re-keyed; a side room for strangers.

Layer: _core, rung d. A context costs 1.2 KiB and loading a key about 140 ns, so idle streams hold none.

1. Sealing uses the main part: found by hash, moved to the newest end, or the oldest one re-keyed.
2. Opening looks in the main part too, but loads what is missing into one of four side entries; only when a tag held
   does the entry change places with the oldest of the main part. A flood of forged tags turns over four contexts.
3. Contexts are made in blocks by Python-side calls only (crypto.pxd says why); a C thread re-keys what is there.

Hash keyed by a random odd factor: the tags of incoming records are chosen by peers.
Threads: baton holder; see ctxcache.pxd. Spec: docs/spec/keys.md §6.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memset

from netchan._core cimport crypto, defs
from netchan._core.crypto cimport nc_crypto, nc_ctx

cdef enum:
    MASK_TAG = 2                    # and 3: tags that no record has, for masks that seal has to make

cdef uint32_t MASK_EPOCH = 0xFFFFFFFF


cdef nc_cache *cache_new(const nc_crypto *t, int capacity, uint64_t seed) noexcept nogil:
    cdef nc_cache *c
    cdef int i
    if capacity < 1 or capacity > 65536:
        return NULL
    c = <nc_cache *>calloc(1, sizeof(nc_cache))
    if c == NULL:
        return NULL
    c.t = t
    c.seed = seed | 1
    c.capacity = (capacity + CACHE_BLOCK - 1) // CACHE_BLOCK * CACHE_BLOCK
    c.newest = c.oldest = -1
    c.bits = 7
    while (<int32_t>1 << c.bits) < 2 * c.capacity:
        c.bits += 1
    c.entries = <nc_cache_entry *>calloc(c.capacity, sizeof(nc_cache_entry))
    c.buckets = <int32_t *>malloc((<size_t>1 << c.bits) * sizeof(int32_t))
    if c.entries == NULL or c.buckets == NULL:
        cache_free(c)
        return NULL
    for i in range(<int32_t>1 << c.bits):
        c.buckets[i] = -1
    for i in range(CACHE_SIDE):
        c.side[i].ctx = t.ctx_new(t)
        if c.side[i].ctx == NULL:
            cache_free(c)
            return NULL
    if cache_grow(c) < 0:
        cache_free(c)
        return NULL
    masks_new(c)
    return c


cdef int cache_grow(nc_cache *c) noexcept nogil:
    cdef int32_t i
    cdef int32_t end = c.n_ready + CACHE_BLOCK
    if end > c.capacity:
        return c.n_ready
    for i in range(c.n_ready, end):
        c.entries[i].ctx = c.t.ctx_new(c.t)
        if c.entries[i].ctx == NULL:
            return defs.NC_ENOMEM    # those made stay; n_ready counts them, so cache_free finds them
        c.entries[i].chain = -1
        link_oldest(c, i)
        c.n_ready = i + 1
    return c.n_ready


cdef int cache_wants_grow(const nc_cache *c) noexcept nogil:
    return c.n_used == c.n_ready and c.n_ready < c.capacity


cdef void cache_free(nc_cache *c) noexcept nogil:
    cdef int i
    if c == NULL:
        return
    if c.entries != NULL:
        for i in range(c.n_ready):
            c.t.ctx_free(c.entries[i].ctx)
    for i in range(CACHE_SIDE):
        c.t.ctx_free(c.side[i].ctx)
    for i in range(2):
        c.t.ctx_free(c.mask[i])
    free(c.entries)
    free(c.buckets)
    free(c)


cdef nc_ctx *cache_seal(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch, const uint8_t *key) noexcept nogil:
    cdef int32_t i = lookup(c, session, tag, epoch, crypto.NC_DIR_SEAL)
    if i >= 0:
        touch(c, i)
        return c.entries[i].ctx
    c.misses += 1
    i = take_oldest(c)
    if c.t.ctx_key(c.entries[i].ctx, key, crypto.NC_DIR_SEAL) < 0:
        return NULL
    install(c, i, session, tag, epoch, crypto.NC_DIR_SEAL)
    return c.entries[i].ctx


cdef nc_ctx *cache_open(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch, const uint8_t *key) noexcept nogil:
    cdef nc_cache_entry *e
    cdef int32_t i = lookup(c, session, tag, epoch, crypto.NC_DIR_OPEN)
    if i >= 0:
        touch(c, i)
        return c.entries[i].ctx
    i = side_of(c, session, tag, epoch)
    if i >= 0:
        return c.side[i].ctx
    c.side_loads += 1
    e = &c.side[c.side_next]
    c.side_next = (c.side_next + 1) % CACHE_SIDE
    e.direction = crypto.NC_DIR_NONE
    if c.t.ctx_key(e.ctx, key, crypto.NC_DIR_OPEN) < 0:
        return NULL
    e.session = session
    e.tag = tag
    e.epoch = epoch
    e.direction = crypto.NC_DIR_OPEN
    return e.ctx


cdef void cache_confirm(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch) noexcept nogil:
    cdef int32_t side = side_of(c, session, tag, epoch)
    cdef int32_t i
    cdef nc_ctx *spare
    if side < 0:
        return
    i = take_oldest(c)
    spare = c.entries[i].ctx
    c.entries[i].ctx = c.side[side].ctx
    install(c, i, session, tag, epoch, crypto.NC_DIR_OPEN)
    c.side[side].ctx = spare        # still holds the evicted key until it is re-keyed or forgotten with its session
    c.side[side].direction = crypto.NC_DIR_NONE
    c.side_next = side
    blank(c, spare)
    c.promoted += 1


# Contexts for masks, if the library has them and they give what seal gives.
cdef void masks_new(nc_cache *c) noexcept nogil:
    cdef uint8_t key[crypto.NC_KEY_BYTES]
    cdef uint8_t nonce[crypto.NC_IV_BYTES]
    cdef uint8_t zeros[16]
    cdef uint8_t a[16]
    cdef uint8_t b[16]
    cdef uint8_t tag[16]
    cdef int i
    if c.t.mask_new == NULL:
        return
    for i in range(crypto.NC_KEY_BYTES):
        key[i] = <uint8_t>(7 * i + 1)
    memset(zeros, 0, 16)
    for i in range(2):
        c.mask[i] = c.t.mask_new(c.t)
        memset(nonce, 3 + i, sizeof(nonce))
        if (c.mask[i] == NULL or c.t.mask_key(c.mask[i], key) < 0 or c.t.mask(c.mask[i], nonce, a) < 0
                or c.t.ctx_key(c.side[0].ctx, key, crypto.NC_DIR_SEAL) < 0
                or c.t.seal(c.side[0].ctx, nonce, NULL, 0, zeros, 16, b, tag) < 0 or memcmp(a, b, 16) != 0):
            c.t.ctx_free(c.mask[i])
            c.mask[i] = NULL
    blank(c, c.side[0].ctx)


cdef int cache_mask(nc_cache *c, uint64_t session, int which, const uint8_t *key, const uint8_t *nonce,
                    uint8_t *out) noexcept nogil:
    cdef uint8_t zeros[16]
    cdef uint8_t tag[16]
    cdef nc_ctx *ctx
    if c.mask[which] != NULL:
        if c.mask_session[which] != session:
            c.mask_session[which] = 0
            if c.t.mask_key(c.mask[which], key) < 0:
                return defs.NC_ECRYPTO
            c.mask_session[which] = session
        return c.t.mask(c.mask[which], nonce, out)
    ctx = cache_seal(c, session, MASK_TAG + which, MASK_EPOCH, key)
    if ctx == NULL:
        return defs.NC_ECRYPTO
    memset(zeros, 0, 16)
    return c.t.seal(ctx, nonce, NULL, 0, zeros, 16, out, tag)


cdef int cache_forget(nc_cache *c, uint64_t session, int direction, int64_t epoch) noexcept nogil:
    cdef uint8_t zero[crypto.NC_KEY_BYTES]
    cdef int32_t i
    cdef int n = 0
    for i in range(c.n_ready):
        if matches(&c.entries[i], session, direction, epoch):
            unhash(c, i)
            unlink(c, i)
            link_oldest(c, i)
            c.entries[i].direction = crypto.NC_DIR_NONE
            c.n_used -= 1
            blank(c, c.entries[i].ctx)
            n += 1
    for i in range(CACHE_SIDE):
        if matches(&c.side[i], session, direction, epoch):
            c.side[i].direction = crypto.NC_DIR_NONE
            blank(c, c.side[i].ctx)
            n += 1
    if epoch < 0 and direction == crypto.NC_DIR_NONE:
        for i in range(2):
            if c.mask_session[i] == session:
                memset(zero, 0, sizeof(zero))
                c.t.mask_key(c.mask[i], zero)
                c.mask_session[i] = 0
    return n


cdef inline bint matches(const nc_cache_entry *e, uint64_t session, int direction, int64_t epoch) noexcept nogil:
    return (e.direction != crypto.NC_DIR_NONE and e.session == session
            and (direction == crypto.NC_DIR_NONE or e.direction == direction)
            and (epoch < 0 or e.epoch == <uint32_t>epoch))


cdef void blank(nc_cache *c, nc_ctx *ctx) noexcept nogil:
    cdef uint8_t zero[crypto.NC_KEY_BYTES]
    memset(zero, 0, sizeof(zero))
    c.t.ctx_key(ctx, zero, crypto.NC_DIR_OPEN)
    ctx.direction = crypto.NC_DIR_NONE          # refuses to work until a key is loaded


# --- order of use and hash chains -----------------------------------------------------------------------------------

cdef inline int32_t bucket_of(const nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch,
                              int direction) noexcept nogil:
    cdef uint64_t x = (tag ^ c.seed) * <uint64_t>0x9E3779B97F4A7C15
    x ^= x >> 29
    x = (x + session) * c.seed
    x ^= x >> 32
    x = (x + (<uint64_t>epoch << 2) + <uint64_t>direction) * <uint64_t>0xD6E8FEB86659FD93
    return <int32_t>(x >> (64 - c.bits))


cdef inline int32_t lookup(nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch, int direction) noexcept nogil:
    cdef nc_cache_entry *e
    cdef int32_t i = c.newest       # the stream of the record before
    cdef bint first = True
    while i >= 0:
        e = &c.entries[i]
        if e.tag == tag and e.session == session and e.epoch == epoch and e.direction == direction:
            c.hits += 1
            return i
        if first:
            first = False
            i = c.buckets[bucket_of(c, session, tag, epoch, direction)]
        else:
            i = e.chain
    return -1


cdef inline int32_t side_of(const nc_cache *c, uint64_t session, uint64_t tag, uint32_t epoch) noexcept nogil:
    cdef int32_t i
    for i in range(CACHE_SIDE):
        if (c.side[i].direction == crypto.NC_DIR_OPEN and c.side[i].tag == tag and c.side[i].session == session
                and c.side[i].epoch == epoch):
            return i
    return -1


cdef int32_t take_oldest(nc_cache *c) noexcept nogil:
    cdef int32_t i = c.oldest
    if c.entries[i].direction != crypto.NC_DIR_NONE:
        unhash(c, i)
        c.entries[i].direction = crypto.NC_DIR_NONE
        c.n_used -= 1
        c.evicted += 1
    return i


cdef void install(nc_cache *c, int32_t i, uint64_t session, uint64_t tag, uint32_t epoch, int direction) noexcept nogil:
    cdef nc_cache_entry *e = &c.entries[i]
    cdef int32_t b = bucket_of(c, session, tag, epoch, direction)
    e.session = session
    e.tag = tag
    e.epoch = epoch
    e.direction = direction
    e.chain = c.buckets[b]
    c.buckets[b] = i
    c.n_used += 1
    touch(c, i)


cdef void unhash(nc_cache *c, int32_t i) noexcept nogil:
    cdef nc_cache_entry *e = &c.entries[i]
    cdef int32_t *at = &c.buckets[bucket_of(c, e.session, e.tag, e.epoch, e.direction)]
    while at[0] >= 0 and at[0] != i:
        at = &c.entries[at[0]].chain
    at[0] = e.chain
    e.chain = -1


cdef inline void touch(nc_cache *c, int32_t i) noexcept nogil:
    if c.newest == i:
        return
    unlink(c, i)
    c.entries[i].older = c.newest
    c.entries[i].newer = -1
    if c.newest >= 0:
        c.entries[c.newest].newer = i
    c.newest = i
    if c.oldest < 0:
        c.oldest = i


cdef void unlink(nc_cache *c, int32_t i) noexcept nogil:
    cdef nc_cache_entry *e = &c.entries[i]
    if e.older >= 0:
        c.entries[e.older].newer = e.newer
    else:
        c.oldest = e.newer
    if e.newer >= 0:
        c.entries[e.newer].older = e.older
    else:
        c.newest = e.older


cdef void link_oldest(nc_cache *c, int32_t i) noexcept nogil:
    c.entries[i].older = -1
    c.entries[i].newer = c.oldest
    if c.oldest >= 0:
        c.entries[c.oldest].older = i
    c.oldest = i
    if c.newest < 0:
        c.newest = i
