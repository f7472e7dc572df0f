"""Derivations of the key schedule, and a bounded store of what was derived, in pages made for secrets.

Layer: _core, rung d. It knows labels, masters and tags, but neither epochs' rules nor limits: keys (rung e) does.

Every derivation is HKDF-Expand(prk, "netchan v1 " || label || context, n); labels and contexts: docs/spec/keys.md §1.

1. A derived key stands in one of four places of its set (set chosen by a keyed hash: peers choose tags). A full set
   gives up its least recently used key; the next use derives it again (about 1 us, counter ``keys_rederived``), and
   what it had sealed becomes the floor of every key of its epoch, which is never more than the epoch's total.
2. Keys of incoming tags that have not held yet stand beside the table, so forged tags evict nothing.
3. Only as many keys are retained as can be locked in memory.
4. The first 8 bytes of the secrets' pages are a canary: zero means a forked child, which must not go on.

Threads: baton holder; see keystore.pxd. Spec: docs/spec/keys.md §1, §2, §5.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.arena cimport arena_map, arena_unmap
from netchan._core.crypto cimport forget_registers, nc_crypto

cdef const char *PREFIX = b"netchan v1 "

cdef enum:
    PREFIX_LEN = 11
    CANARY_BYTES = 64               # keeps the blocks behind it aligned
    CANARY = 0x6e657463


cdef nc_keystore *ks_new(const nc_crypto *t, size_t slots, size_t sessions, uint64_t seed,
                         size_t lock_bytes_max) noexcept nogil:
    cdef nc_keystore *s
    cdef size_t n = KS_SLOTS_MIN
    cdef size_t fixed = CANARY_BYTES + sessions * sizeof(nc_secrets)
    cdef int lock
    if sessions < 1 or sessions > KS_SESSIONS_MAX or slots > KS_SLOTS_MAX:
        return NULL
    s = <nc_keystore *>calloc(1, sizeof(nc_keystore))
    if s == NULL:
        return NULL
    s.t = t
    s.seed = seed | 1
    s.next_serial = 1
    s.n_sessions = <uint32_t>sessions
    s.h = t.hash_new(t)
    s.taken = <uint8_t *>calloc(sessions, 1)
    lock = lock_bytes_max == 0 or fixed <= lock_bytes_max
    if s.h == NULL or s.taken == NULL or arena_map(&s.secrets_pages, fixed, lock) < 0:
        ks_free(s)
        return NULL
    (<uint64_t *>s.secrets_pages.p)[0] = CANARY
    while n < slots:
        n *= 2
    while True:
        fixed = (n + KS_SIDE) * sizeof(nc_key)
        lock = lock_bytes_max == 0 or fixed <= lock_bytes_max
        if arena_map(&s.key_pages, fixed, lock) < 0:
            ks_free(s)
            return NULL
        if s.key_pages.locked or n == KS_SLOTS_MIN:
            break
        arena_unmap(&s.key_pages)
        n //= 2
    s.n_slots = <uint32_t>n
    s.keys = <nc_key *>s.key_pages.p
    s.meta = <nc_key_meta *>calloc(n + KS_SIDE, sizeof(nc_key_meta))
    s.ghosts = <uint32_t *>calloc(n * KS_GHOSTS, sizeof(uint32_t))
    if s.meta == NULL or s.ghosts == NULL:
        ks_free(s)
        return NULL
    return s


cdef void ks_free(nc_keystore *s) noexcept nogil:
    if s == NULL:
        return
    arena_unmap(&s.key_pages)
    arena_unmap(&s.secrets_pages)
    s.t.hash_free(s.h)
    free(s.meta)
    free(s.ghosts)
    free(s.taken)
    free(s)


cdef int ks_alive(const nc_keystore *s) noexcept nogil:
    return (<uint64_t *>s.secrets_pages.p)[0] == CANARY


cdef nc_secrets *ks_session_begin(nc_keystore *s, nc_key_owner *owner) noexcept nogil:
    cdef uint32_t i
    for i in range(s.n_sessions):
        if s.taken[i] == 0:
            s.taken[i] = 1
            memset(owner, 0, sizeof(nc_key_owner))
            owner.serial = s.next_serial
            s.next_serial += 1
            return &(<nc_secrets *>(s.secrets_pages.p + CANARY_BYTES))[i]
    return NULL


cdef void ks_session_end(nc_keystore *s, nc_key_owner *owner, nc_secrets *x) noexcept nogil:
    ks_forget_all(s, owner)
    s.t.cleanse(x, sizeof(nc_secrets))
    s.taken[x - <nc_secrets *>(s.secrets_pages.p + CANARY_BYTES)] = 0
    owner.serial = 0


cdef void ks_note_use(nc_keystore *s, nc_key_owner *owner, uint8_t dir) noexcept nogil:
    cdef nc_key_meta *m
    cdef uint32_t i
    for i in range(s.n_slots + KS_SIDE):
        m = &s.meta[i]
        if m.owner == owner and m.dir == dir and m.epoch == owner.send_epoch:
            owner.floor_blocks = max(owner.floor_blocks, m.blocks)
            owner.floor_messages = max(owner.floor_messages, m.messages)


cdef int ks_expand(nc_keystore *s, const uint8_t *prk, const char *label, size_t label_len,
                   const uint8_t *context, size_t context_len, uint8_t *out, size_t out_len) noexcept nogil:
    cdef uint8_t info[PREFIX_LEN + KS_INFO_MAX]
    cdef int rc
    if label_len > KS_INFO_MAX or context_len > KS_INFO_MAX - label_len:
        return defs.NC_EINVAL
    memcpy(info, PREFIX, PREFIX_LEN)
    memcpy(info + PREFIX_LEN, label, label_len)
    if context_len != 0:
        memcpy(info + PREFIX_LEN + label_len, context, context_len)
    rc = s.t.hkdf_expand(s.h, prk, info, PREFIX_LEN + label_len + context_len, out, out_len)
    s.t.cleanse(info, sizeof(info))         # a context may hold a mix
    forget_registers()
    return rc


# --- stored keys ----------------------------------------------------------------------------------------------------

cdef inline uint64_t hash_of(const nc_keystore *s, const nc_key_owner *owner, uint64_t tag, uint32_t epoch,
                             uint8_t dir) noexcept nogil:
    cdef uint64_t x = (tag ^ s.seed) * <uint64_t>0x9E3779B97F4A7C15
    x ^= x >> 29
    x = (x + owner.serial) * s.seed
    x ^= x >> 32
    x = (x + (<uint64_t>epoch << 1) + dir) * <uint64_t>0xD6E8FEB86659FD93
    return x ^ (x >> 31)


cdef inline bint is_it(const nc_key_meta *m, const nc_key_owner *owner, uint64_t tag, uint32_t epoch,
                       uint8_t dir) noexcept nogil:
    return m.owner == owner and m.tag == tag and m.epoch == epoch and m.dir == dir


cdef int32_t ks_find(nc_keystore *s, const nc_key_owner *owner, uint64_t tag, uint32_t epoch,
                     uint8_t dir) noexcept nogil:
    cdef uint32_t first = <uint32_t>(hash_of(s, owner, tag, epoch, dir) & (s.n_slots - 1)) & ~<uint32_t>(KS_WAYS - 1)
    cdef uint32_t i
    for i in range(first, first + KS_WAYS):
        if is_it(&s.meta[i], owner, tag, epoch, dir):
            s.clock += 1
            s.meta[i].used = s.clock
            return <int32_t>i
    for i in range(s.n_slots, s.n_slots + KS_SIDE):
        if is_it(&s.meta[i], owner, tag, epoch, dir):
            return <int32_t>i
    return -1


cdef int32_t ks_make(nc_keystore *s, nc_key_owner *owner, const uint8_t *master, uint64_t tag, uint32_t epoch,
                     uint8_t dir, bint beside) noexcept nogil:
    cdef uint8_t context[9]
    cdef uint64_t x = hash_of(s, owner, tag, epoch, dir)
    cdef uint32_t mark = <uint32_t>(x >> 32) | 1
    cdef uint32_t *ghost = &s.ghosts[x & (s.n_slots * KS_GHOSTS - 1)]
    cdef uint32_t i
    cdef int j
    if beside:
        i = s.n_slots + s.side_next
        s.side_next = (s.side_next + 1) % KS_SIDE
        drop(s, i)
    else:
        i = room(s, x)
    context[0] = dir
    for j in range(8):
        context[1 + j] = <uint8_t>(tag >> (56 - 8 * j))
    if ks_expand(s, master, "ch", 2, context, 9, <uint8_t *>&s.keys[i], sizeof(nc_key)) < 0:
        return defs.NC_ECRYPTO
    s.derived += 1
    if ghost[0] == mark:
        s.keys_rederived += 1
        ghost[0] = 0
    claim(s, i, owner, tag, epoch, dir)
    return <int32_t>i


cdef int32_t ks_confirm(nc_keystore *s, int32_t place) noexcept nogil:
    cdef nc_key_meta *m = &s.meta[place]
    cdef uint32_t i
    if <uint32_t>place < s.n_slots:
        return place
    i = room(s, hash_of(s, m.owner, m.tag, m.epoch, m.dir))
    memcpy(&s.keys[i], &s.keys[place], sizeof(nc_key))
    forget_registers()
    claim(s, i, m.owner, m.tag, m.epoch, m.dir)
    drop(s, place)
    return <int32_t>i


cdef int ks_forget(nc_keystore *s, const nc_key_owner *owner, uint8_t dir, uint32_t epoch) noexcept nogil:
    cdef uint32_t i
    cdef int n = 0
    for i in range(s.n_slots + KS_SIDE):
        if s.meta[i].owner == owner and s.meta[i].dir == dir and s.meta[i].epoch == epoch:
            drop(s, i)
            n += 1
    return n


cdef int ks_forget_all(nc_keystore *s, const nc_key_owner *owner) noexcept nogil:
    cdef uint32_t i
    cdef int n = 0
    for i in range(s.n_slots + KS_SIDE):
        if s.meta[i].owner == owner:
            drop(s, i)
            n += 1
    return n


cdef uint32_t room(nc_keystore *s, uint64_t x) noexcept nogil:
    """A free place of the set, after its least recently used key went if there was none."""
    cdef uint32_t first = <uint32_t>(x & (s.n_slots - 1)) & ~<uint32_t>(KS_WAYS - 1)
    cdef uint32_t best = first
    cdef uint32_t i
    cdef nc_key_meta *m
    for i in range(first, first + KS_WAYS):
        if s.meta[i].owner == NULL:
            return i
        if s.clock - s.meta[i].used > s.clock - s.meta[best].used:
            best = i
    m = &s.meta[best]
    x = hash_of(s, m.owner, m.tag, m.epoch, m.dir)
    s.ghosts[x & (s.n_slots * KS_GHOSTS - 1)] = <uint32_t>(x >> 32) | 1
    if m.blocks != 0 and m.epoch == m.owner.send_epoch:
        m.owner.floor_blocks = max(m.owner.floor_blocks, m.blocks)
        m.owner.floor_messages = max(m.owner.floor_messages, m.messages)
    s.evicted += 1
    drop(s, best)
    return best


cdef void claim(nc_keystore *s, uint32_t i, nc_key_owner *owner, uint64_t tag, uint32_t epoch,
                uint8_t dir) noexcept nogil:
    cdef nc_key_meta *m = &s.meta[i]
    s.clock += 1
    m.owner = owner
    m.tag = tag
    m.epoch = epoch
    m.dir = dir
    m.used = s.clock
    m.blocks = owner.floor_blocks
    m.messages = owner.floor_messages


cdef void drop(nc_keystore *s, uint32_t i) noexcept nogil:
    s.t.cleanse(&s.keys[i], sizeof(nc_key))
    memset(&s.meta[i], 0, sizeof(nc_key_meta))
