"""The keys of one session: epochs per direction, limits of use, and records sealed and opened under the right key.

Layer: _core, rung e. It reads no clock, draws no randomness and knows no frame; header bytes are the caller's.

1. root -> one master per direction. A master gives a key and IV per key tag ("ch"); the next master comes from the
   one before ("ku"), with 32 mixed-in bytes when the sender has announced some.
2. Epochs belong to their sender. We change ours when a key is used up or old and the change before is acknowledged.
   The peer's next epoch is derived on sight of its number, and becomes ours to follow only after a tag held.
3. The peer's last epoch is kept until each path has moved on: a stream path with its first record of the new epoch,
   a datagram path after the deadline that the caller gives.
4. Numbers of a path only grow, so (key, path, number) never repeats; the debug build also watches each key.
5. An incoming tag that fails moves nothing but the count of failures.

Threads: baton holder; see keys.pxd. Spec: docs/spec/keys.md.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netchan._core cimport crypto, defs
from netchan._core.aead cimport aead_open, aead_seal2
from netchan._core.crypto cimport nc_ctx
from netchan._core.ctxcache cimport cache_confirm, cache_forget, cache_open, cache_seal, nc_cache
from netchan._core.keystore cimport (ks_alive, ks_confirm, ks_expand, ks_find, ks_forget, ks_make, ks_session_begin,
                                     ks_session_end, nc_key_meta, nc_keystore)

cdef extern from * nogil:
    """
    #ifndef NETCHAN_DEBUG
    #define NETCHAN_DEBUG 0
    #endif
    """
    const int NETCHAN_DEBUG

cdef enum:
    PATH_STREAM = 1
    PATH_DATAGRAM = 2
    MIX_BYTES = 32
    EXPORT_LABEL_MAX = 64
    EXPORT_CONTEXT_MAX = 48


cdef void keys_limits_default(nc_keys_limits *l) noexcept nogil:
    l.soft_blocks = <uint64_t>1 << 34           # RFC 9001 appendix B.1: 2^35 blocks for an advantage of 2^-57
    l.hard_blocks = <uint64_t>1 << 35
    l.failed_max = <uint64_t>1 << 36            # RFC 9001 §6.6, ChaCha20-Poly1305
    l.warn_messages = <uint64_t>1 << 40
    l.use_ns = <int64_t>120 * 1000000000


cdef nc_keys *keys_blank(nc_keystore *s, int role, const nc_keys_limits *limits) noexcept nogil:
    cdef nc_keys *k
    if role != KEYS_INITIATOR and role != KEYS_RESPONDER:
        return NULL
    k = <nc_keys *>calloc(1, sizeof(nc_keys))
    if k == NULL:
        return NULL
    k.store = s
    k.x = ks_session_begin(s, &k.owner)
    if NETCHAN_DEBUG:
        k.mono = <nc_keys_mono *>calloc(KEYS_MONO, sizeof(nc_keys_mono))
    if k.x == NULL or (NETCHAN_DEBUG and k.mono == NULL):
        keys_free(k, NULL)
        return NULL
    k.send_dir = <uint8_t>role
    k.acked = 1
    k.first_use_ns = -1
    k.path_top[0] = k.path_top[1] = -1
    if limits == NULL:
        keys_limits_default(&k.limits)
    else:
        k.limits = limits[0]
    return k


cdef nc_keys *keys_new(nc_keystore *s, const uint8_t *root, int role, const nc_keys_limits *limits) noexcept nogil:
    cdef nc_keys *k = keys_blank(s, role, limits)
    cdef uint8_t send_dir = <uint8_t>role
    cdef uint8_t recv_dir = 1 - send_dir
    cdef uint8_t zero = 0
    cdef uint8_t one = 1
    cdef int rc = 0
    if k == NULL:
        return NULL
    rc |= ks_expand(s, root, "master", 6, &send_dir, 1, k.x.send, 32)
    rc |= ks_expand(s, root, "master", 6, &recv_dir, 1, k.x.recv, 32)
    rc |= ks_expand(s, root, "hp", 2, &zero, 1, k.x.hp[0], 32)
    rc |= ks_expand(s, root, "hp", 2, &one, 1, k.x.hp[1], 32)
    rc |= ks_expand(s, root, "exporter", 8, NULL, 0, k.x.exporter, 32)
    rc |= ks_expand(s, root, "join", 4, NULL, 0, k.x.join, 32)
    rc |= ks_expand(s, root, "resumption", 10, NULL, 0, k.x.resumption, 32)
    rc |= ks_expand(s, root, "reset", 5, NULL, 0, k.x.reset, 32)
    if rc < 0:
        keys_free(k, NULL)
        return NULL
    return k


cdef void keys_free(nc_keys *k, nc_cache *c) noexcept nogil:
    if k == NULL:
        return
    if c != NULL:
        cache_forget(c, k.owner.serial, crypto.NC_DIR_NONE, -1)
    if k.x != NULL:
        ks_session_end(k.store, &k.owner, k.x)
    free(k.mono)
    free(k)


cdef const uint8_t *keys_secret(const nc_keys *k, int which) noexcept nogil:
    if which == KEYS_HP_SEND:
        return k.x.hp[k.send_dir]
    if which == KEYS_HP_RECV:
        return k.x.hp[1 - k.send_dir]
    if which == KEYS_EXPORTER:
        return k.x.exporter
    if which == KEYS_JOIN:
        return k.x.join
    if which == KEYS_RESUMPTION:
        return k.x.resumption
    if which == KEYS_RESET:
        return k.x.reset
    return NULL


cdef int keys_export(nc_keys *k, const char *label, size_t label_len, const uint8_t *context, size_t context_len,
                     uint8_t *out, size_t n) noexcept nogil:
    cdef uint8_t bytes_[2 + EXPORT_LABEL_MAX + EXPORT_CONTEXT_MAX]
    if label_len < 1 or label_len > EXPORT_LABEL_MAX or context_len > EXPORT_CONTEXT_MAX:
        return defs.NC_EINVAL
    if not ks_alive(k.store):
        return defs.NC_EFORK
    bytes_[0] = <uint8_t>label_len
    memcpy(bytes_ + 1, label, label_len)
    bytes_[1 + label_len] = <uint8_t>context_len
    if context_len != 0:
        memcpy(bytes_ + 2 + label_len, context, context_len)
    return ks_expand(k.store, k.x.exporter, "export", 6, bytes_, 2 + label_len + context_len, out, n)


cdef int keys_join_mac(nc_keys *k, const uint8_t *digest32, uint8_t *mac) noexcept nogil:
    if not ks_alive(k.store):
        return defs.NC_EFORK
    return ks_expand(k.store, k.x.join, "mac", 3, digest32, 32, mac, 32)


cdef int keys_ticket_secret(nc_keys *k, const uint8_t *id16, uint8_t *secret) noexcept nogil:
    if not ks_alive(k.store):
        return defs.NC_EFORK
    return ks_expand(k.store, k.x.resumption, "ticket", 6, id16, 16, secret, 32)


# --- paths ----------------------------------------------------------------------------------------------------------

cdef int keys_path_add(nc_keys *k, uint32_t path_id, int kind) noexcept nogil:
    cdef int who = path_id & 1
    cdef int64_t back = k.path_top[who] - <int64_t>(path_id >> 1)
    cdef int i
    if kind != PATH_STREAM and kind != PATH_DATAGRAM:
        return defs.NC_EINVAL
    if not keys_path_free(k, path_id):
        return defs.NC_EINVAL
    for i in range(KEYS_PATHS):
        if k.paths[i].kind == 0:
            break
    else:
        return defs.NC_ELIMIT
    if back < 0:
        k.path_seen[who] = k.path_seen[who] << -back if back > -64 else 0
        k.path_top[who] = path_id >> 1
        back = 0
    k.path_seen[who] |= <uint64_t>1 << back
    memset(&k.paths[i], 0, sizeof(nc_keys_path))
    k.paths[i].path_id = path_id
    k.paths[i].kind = <uint8_t>kind
    # records of the last epoch may be on their way to a path that was offered before the peer changed its epoch
    k.paths[i].recv_epoch = k.recv_epoch - k.has_prev
    k.paths[i].old_until_ns = -1
    return i


cdef int keys_path_free(const nc_keys *k, uint32_t path_id) noexcept nogil:
    cdef int64_t back = k.path_top[path_id & 1] - <int64_t>(path_id >> 1)
    return 0 if back >= 64 or (back >= 0 and k.path_seen[path_id & 1] >> back & 1) else 1


cdef int keys_path_remove(nc_keys *k, nc_cache *c, int path, int64_t now_ns) noexcept nogil:
    if path < 0 or path >= KEYS_PATHS or k.paths[path].kind == 0:
        return defs.NC_EINVAL
    k.paths[path].kind = 0
    retire(k, c, now_ns)
    return defs.NC_OK


# --- epochs ---------------------------------------------------------------------------------------------------------

cdef int next_master(nc_keys *k, const uint8_t *master, uint32_t next_epoch, const uint8_t *mix, size_t mix_len,
                     uint8_t *out) noexcept nogil:
    cdef uint8_t context[4 + MIX_BYTES]
    cdef int i
    cdef int rc
    for i in range(4):
        context[i] = <uint8_t>(next_epoch >> (24 - 8 * i))
    if mix_len != 0:
        memcpy(context + 4, mix, mix_len)
    rc = ks_expand(k.store, master, "ku", 2, context, 4 + mix_len, out, 32)
    k.store.t.cleanse(context, sizeof(context))
    return rc


cdef int keys_may_update(const nc_keys *k) noexcept nogil:
    return k.acked


cdef int keys_update(nc_keys *k, nc_cache *c, const uint8_t *mix, size_t mix_len) noexcept nogil:
    cdef uint8_t fresh[32]
    cdef int rc
    cdef uint32_t old = k.owner.send_epoch
    if not ks_alive(k.store):
        return defs.NC_EFORK
    if mix_len != 0 and mix_len != MIX_BYTES:
        return defs.NC_EINVAL
    if not k.acked:
        return defs.NC_ESTATE
    if old == <uint32_t>0xFFFFFFFF:
        return defs.NC_EEXHAUSTED
    rc = next_master(k, k.x.send, old + 1, mix, mix_len, fresh)
    if rc < 0:
        return rc
    memcpy(k.x.send, fresh, 32)                 # nobody seals with the old one again
    k.store.t.cleanse(fresh, sizeof(fresh))
    ks_forget(k.store, &k.owner, k.send_dir, old)
    if c != NULL:
        cache_forget(c, k.owner.serial, crypto.NC_DIR_SEAL, old)
    k.owner.send_epoch = old + 1
    k.owner.floor_blocks = 0
    k.owner.floor_messages = 0
    k.acked = 0
    k.wants_update = 0
    k.first_use_ns = -1
    k.updates += 1
    return defs.NC_OK


cdef int keys_update_acked(nc_keys *k, uint32_t epoch) noexcept nogil:
    if epoch > k.owner.send_epoch:
        return defs.NC_EINVAL
    if epoch == k.owner.send_epoch:
        k.acked = 1
    return defs.NC_OK


cdef int keys_mix_announced(nc_keys *k, nc_cache *c, uint32_t epoch, const uint8_t *mix, size_t mix_len) noexcept nogil:
    if not ks_alive(k.store):
        return defs.NC_EFORK
    if mix_len != MIX_BYTES:
        return defs.NC_EINVAL
    if epoch != k.recv_epoch + 1:
        return defs.NC_ESTATE
    forget_next(k, c)                           # a forged record may have made us derive it without the mix
    memcpy(k.x.mix, mix, MIX_BYTES)
    k.mix_len = MIX_BYTES
    return defs.NC_OK


cdef void forget_next(nc_keys *k, nc_cache *c) noexcept nogil:
    if not k.has_next:
        return
    k.store.t.cleanse(k.x.recv_next, 32)
    k.has_next = 0
    ks_forget(k.store, &k.owner, 1 - k.send_dir, k.recv_epoch + 1)
    if c != NULL:
        cache_forget(c, k.owner.serial, crypto.NC_DIR_OPEN, <int64_t>k.recv_epoch + 1)


cdef void forget_prev(nc_keys *k, nc_cache *c) noexcept nogil:
    if not k.has_prev:
        return
    k.store.t.cleanse(k.x.recv_prev, 32)
    k.has_prev = 0
    ks_forget(k.store, &k.owner, 1 - k.send_dir, k.recv_epoch - 1)
    if c != NULL:
        cache_forget(c, k.owner.serial, crypto.NC_DIR_OPEN, <int64_t>k.recv_epoch - 1)


cdef void commit_next(nc_keys *k, nc_cache *c) noexcept nogil:
    forget_prev(k, c)                           # at most three epochs of the peer exist here
    memcpy(k.x.recv_prev, k.x.recv, 32)
    memcpy(k.x.recv, k.x.recv_next, 32)
    k.store.t.cleanse(k.x.recv_next, 32)
    k.store.t.cleanse(k.x.mix, MIX_BYTES)
    k.mix_len = 0
    k.has_next = 0
    k.has_prev = 1
    k.recv_epoch += 1


cdef bint needs_old(const nc_keys *k, const nc_keys_path *p, int64_t now_ns) noexcept nogil:
    """1 while a record of the epoch before may still come on this path."""
    if p.kind == 0:
        return False
    return p.recv_epoch != k.recv_epoch or (p.kind == PATH_DATAGRAM and now_ns < p.old_until_ns)


cdef void retire(nc_keys *k, nc_cache *c, int64_t now_ns) noexcept nogil:
    cdef int i
    if not k.has_prev:
        return
    for i in range(KEYS_PATHS):
        if needs_old(k, &k.paths[i], now_ns):
            return
    forget_prev(k, c)


cdef int keys_tick(nc_keys *k, nc_cache *c, int64_t now_ns) noexcept nogil:
    cdef int rc
    if not ks_alive(k.store):
        return defs.NC_EFORK
    retire(k, c, now_ns)
    if k.first_use_ns >= 0 and now_ns - k.first_use_ns >= k.limits.use_ns:
        k.wants_update = 1
    if not k.wants_update or not k.acked:
        return 0
    rc = keys_update(k, c, NULL, 0)
    return rc if rc < 0 else 1


cdef int64_t keys_deadline(const nc_keys *k) noexcept nogil:
    cdef int64_t best = -1
    cdef int64_t due = -1
    cdef int i
    if k.first_use_ns >= 0 and k.acked:
        best = k.first_use_ns + k.limits.use_ns
    if k.has_prev:
        # When the last path needs the old master no more; one that has not moved on yet sets no time.
        for i in range(KEYS_PATHS):
            if k.paths[i].kind and k.paths[i].recv_epoch != k.recv_epoch:
                return best
            if k.paths[i].kind == PATH_DATAGRAM and k.paths[i].old_until_ns > due:
                due = k.paths[i].old_until_ns
        if due >= 0 and (best < 0 or due < best):
            best = due
    return best


cdef int keys_take_warning(nc_keys *k, nc_keys_warning *out) noexcept nogil:
    if k.warned != 1:
        return 0
    k.warned = 2
    out[0] = k.warning
    return 1


# --- records --------------------------------------------------------------------------------------------------------

cdef int keys_seal(nc_keys *k, nc_cache *c, int path, uint64_t number, uint64_t tag, const uint8_t *aad, size_t aad_len,
                   uint8_t *buf, size_t n, int64_t now_ns) noexcept nogil:
    return keys_seal2(k, c, path, number, tag, aad, aad_len, buf, n, NULL, 0, buf, now_ns)


cdef int keys_seal2(nc_keys *k, nc_cache *c, int path, uint64_t number, uint64_t tag, const uint8_t *aad,
                    size_t aad_len, const uint8_t *head, size_t head_len, const uint8_t *body, size_t body_len,
                    uint8_t *out, int64_t now_ns) noexcept nogil:
    cdef nc_keys_path *p
    cdef nc_key_meta *m
    cdef nc_ctx *ctx
    cdef uint64_t blocks
    cdef int32_t place
    cdef int rc
    if path < 0 or path >= KEYS_PATHS or k.paths[path].kind == 0:
        return defs.NC_EINVAL
    if not ks_alive(k.store):
        return defs.NC_EFORK
    p = &k.paths[path]
    if number < p.send_next:
        return defs.NC_EINVAL
    if (aad_len > crypto.NC_AEAD_MAX or head_len > crypto.NC_AEAD_MAX
            or body_len > <size_t>crypto.NC_AEAD_MAX - head_len):
        return defs.NC_EINVAL
    place = ks_find(k.store, &k.owner, tag, k.owner.send_epoch, k.send_dir)
    if place < 0:
        place = ks_make(k.store, &k.owner, k.x.send, tag, k.owner.send_epoch, k.send_dir, False)
        if place < 0:
            return place
    m = &k.store.meta[place]
    blocks = (head_len + body_len) // 16 + aad_len // 16 + 2
    if m.blocks + blocks > k.limits.hard_blocks:
        k.wants_update = 1
        return defs.NC_EEXHAUSTED
    if NETCHAN_DEBUG and not mono_check(k.mono, k.owner.send_epoch, tag, p.path_id, number):
        k.mono_violations += 1
        return defs.NC_EINVAL
    ctx = cache_seal(c, k.owner.serial, tag, k.owner.send_epoch, k.store.keys[place].key)
    if ctx == NULL:
        return defs.NC_ECRYPTO
    rc = aead_seal2(ctx, k.store.keys[place].iv, p.path_id, number, aad, aad_len, head, head_len, body, body_len, out,
                    &k.st)
    if rc < 0:
        return rc
    # On a datagram path the records of one datagram share its number, each under its own tag.
    p.send_next = number + 1 if p.kind == PATH_STREAM else number
    if k.first_use_ns < 0:
        k.first_use_ns = now_ns
    elif now_ns - k.first_use_ns >= k.limits.use_ns:
        k.wants_update = 1
    m.blocks += blocks
    m.messages += 1
    k.sealed += 1
    if m.blocks >= k.limits.soft_blocks:
        k.wants_update = 1
    if k.sealed >= k.limits.warn_messages and k.warned == 0:
        k.warned = 1
        k.warning.session_messages = k.sealed
        k.warning.key_messages = m.messages
        k.warning.tag = tag
        k.warning.epoch = k.owner.send_epoch
    return rc


cdef int keys_open(nc_keys *k, nc_cache *c, int path, uint64_t number, uint8_t epoch_byte, uint64_t tag,
                   const uint8_t *aad, size_t aad_len, uint8_t *buf_untrusted, size_t n, int64_t now_ns,
                   int64_t old_until_ns) noexcept nogil:
    cdef nc_keys_path *p
    cdef nc_ctx *ctx
    cdef const uint8_t *master
    cdef uint32_t epoch
    cdef uint8_t ahead
    cdef int32_t place
    if path < 0 or path >= KEYS_PATHS or k.paths[path].kind == 0:
        return defs.NC_EINVAL
    if not ks_alive(k.store):
        return defs.NC_EFORK
    if k.st.failed >= k.limits.failed_max:
        return defs.NC_EEXHAUSTED
    p = &k.paths[path]
    ahead = epoch_byte - <uint8_t>k.recv_epoch
    if ahead == 0:
        epoch = k.recv_epoch
        master = k.x.recv
    elif ahead == 1 and k.recv_epoch != <uint32_t>0xFFFFFFFF:
        epoch = k.recv_epoch + 1
        master = k.x.recv_next
        if not k.has_next:
            if next_master(k, k.x.recv, epoch, k.x.mix, k.mix_len, k.x.recv_next) < 0:
                return defs.NC_ECRYPTO
            k.has_next = 1
    elif ahead == 255 and k.has_prev and needs_old(k, p, now_ns):
        epoch = k.recv_epoch - 1
        master = k.x.recv_prev
    else:
        k.refused += 1
        return defs.NC_ECRYPTO
    place = ks_find(k.store, &k.owner, tag, epoch, 1 - k.send_dir)
    if place < 0:
        place = ks_make(k.store, &k.owner, master, tag, epoch, 1 - k.send_dir, True)
        if place < 0:
            return place
    ctx = cache_open(c, k.owner.serial, tag, epoch, k.store.keys[place].key)
    if ctx == NULL:
        return defs.NC_ECRYPTO
    if aead_open(ctx, k.store.keys[place].iv, p.path_id, number, aad, aad_len, buf_untrusted, n, &k.st) != 1:
        return 0
    cache_confirm(c, k.owner.serial, tag, epoch)
    ks_confirm(k.store, place)
    if epoch == k.recv_epoch + 1 and ahead == 1:
        commit_next(k, c)
    if p.recv_epoch != k.recv_epoch and epoch == k.recv_epoch:
        p.recv_epoch = epoch
        p.old_until_ns = old_until_ns if p.kind == PATH_DATAGRAM else -1
    if k.has_prev:
        retire(k, c, now_ns)
    return 1


cdef int mono_check(nc_keys_mono *table, uint32_t epoch, uint64_t tag, uint32_t path_id,
                    uint64_t number) noexcept nogil:
    cdef uint64_t x = (tag * <uint64_t>0x9E3779B97F4A7C15 + path_id) * <uint64_t>0xD6E8FEB86659FD93
    cdef uint32_t first = <uint32_t>(x >> 40)
    cdef nc_keys_mono *e = NULL
    cdef uint32_t i
    for i in range(8):
        e = &table[(first + i) % KEYS_MONO]
        if not e.live or (e.tag == tag and e.path_id == path_id):
            break
    if e.live and e.tag == tag and e.path_id == path_id and e.epoch == epoch:
        if number < e.next_number:
            return 0
    # a new pair, a new epoch of a known pair, or a full neighbourhood: the last one looked at makes room
    e.live = 1
    e.tag = tag
    e.path_id = path_id
    e.epoch = epoch
    e.next_number = number + 1
    return 1
