# keystore: derivations, and the derived keys and session secrets of one engine in locked pages. Layer: _core, rung d.
# Thread rule: _new and _free on a Python-side thread that holds the engine's baton; the rest by the holder of the
# baton, on any thread; nothing there allocates.
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from netchan._core.arena cimport nc_arena
from netchan._core.crypto cimport nc_crypto, nc_hash

cdef enum:
    KS_WAYS = 4                     # places where one key may stand
    KS_SIDE = 4                     # keys of tags that have not held yet stand beside the table
    KS_GHOSTS = 4                   # marks of evicted keys per slot
    KS_SLOTS_MIN = 256              # never fewer, even when they cannot be locked
    KS_SLOTS_MAX = 1048576
    KS_SESSIONS_MAX = 65536
    KS_INFO_MAX = 128               # label and context of one derivation of ours

# What one (tag, epoch, direction) needs: 44 bytes, docs/spec/keys.md §2.
cdef struct nc_key:
    uint8_t key[32]
    uint8_t iv[12]

# Secrets of one session, in the arena; wiped by ks_session_end.
cdef struct nc_secrets:
    uint8_t send[32]                # master of the epoch that we seal with
    uint8_t recv_prev[32]           # masters of the peer's epochs: the one before,
    uint8_t recv[32]                # the newest that held,
    uint8_t recv_next[32]           # and the one derived on sight
    uint8_t mix[32]                 # announced for recv_next
    uint8_t hp[2][32]               # header protection by direction byte
    uint8_t exporter[32]
    uint8_t join[32]
    uint8_t resumption[32]
    uint8_t reset[32]

# The session behind a stored key; what an evicted key had used is kept as a floor for all keys of that epoch, so that
# a key that returns never forgets its use.
cdef struct nc_key_owner:
    uint64_t serial                 # unique in the engine, never reused; 0 = ended
    uint32_t send_epoch
    uint64_t floor_blocks           # of send_epoch
    uint64_t floor_messages

cdef struct nc_key_meta:
    nc_key_owner *owner             # borrowed until ks_forget; NULL = free
    uint64_t tag
    uint64_t blocks                 # 16-byte blocks sealed with this key
    uint64_t messages               # records sealed with it
    uint32_t epoch
    uint32_t used                   # clock of the last use
    uint8_t dir                     # direction byte: 0 initiator to responder, 1 the other way

cdef struct nc_keystore:
    const nc_crypto *t              # shared
    nc_hash *h                      # owned
    nc_arena secrets_pages          # owned; first the canary, then n_sessions nc_secrets
    nc_arena key_pages              # owned; n_slots + KS_SIDE keys
    nc_key *keys                    # inside key_pages
    nc_key_meta *meta               # owned, beside the keys: nothing secret
    uint32_t *ghosts                # owned; marks of evicted keys, so that a second derivation is counted
    uint8_t *taken                  # owned; 1 per session block in use
    uint64_t seed                   # random: tags are chosen by peers
    uint64_t next_serial
    uint32_t n_slots                # power of two
    uint32_t n_sessions
    uint32_t clock
    uint32_t side_next
    uint64_t derived                # keys derived
    uint64_t keys_rederived         # of those, again because the table was too small (a lower bound)
    uint64_t evicted

# slots: keys that may be retained (rounded to a power of two, KS_SLOTS_MIN..KS_SLOTS_MAX), sessions 1..KS_SESSIONS_MAX,
# seed: random, lock_bytes_max: locked memory allowed, 0 = what the system grants. If not all slots can be locked their
# number is halved until they can, down to KS_SLOTS_MIN. Owned result; NULL = out of memory or range.
cdef nc_keystore *ks_new(const nc_crypto *t, size_t slots, size_t sessions, uint64_t seed,
                         size_t lock_bytes_max) noexcept nogil
cdef void ks_free(nc_keystore *s) noexcept nogil                 # NULL is allowed; wipes everything
# 1 in the process that made the store, 0 in a forked child: there the pages read as zeros and must not be used.
cdef int ks_alive(const nc_keystore *s) noexcept nogil
# A block for one session: owned by it until ks_session_end; owner.serial is set. NULL = all blocks are taken.
cdef nc_secrets *ks_session_begin(nc_keystore *s, nc_key_owner *owner) noexcept nogil
cdef void ks_session_end(nc_keystore *s, nc_key_owner *owner, nc_secrets *x) noexcept nogil
# What the keys of our epoch have used becomes the floor: it is all that another process learns of it.
cdef void ks_note_use(nc_keystore *s, nc_key_owner *owner, uint8_t dir) noexcept nogil

# out = HKDF-Expand(prk, "netchan v1 " || label || context, out_len), docs/spec/keys.md §1. prk: 32 bytes; label: text
# with its length. NC_OK, NC_EINVAL (label and context over KS_INFO_MAX), NC_ECRYPTO (out is zero).
cdef int ks_expand(nc_keystore *s, const uint8_t *prk, const char *label, size_t label_len,
                   const uint8_t *context, size_t context_len, uint8_t *out, size_t out_len) noexcept nogil

# Place of a stored key, or -1; places >= n_slots are beside the table. Counts as a use.
cdef int32_t ks_find(nc_keystore *s, const nc_key_owner *owner, uint64_t tag, uint32_t epoch,
                     uint8_t dir) noexcept nogil
# Derives a key from a master and stores it: in the table, or beside it until ks_confirm. Its place, or NC_ECRYPTO.
cdef int32_t ks_make(nc_keystore *s, nc_key_owner *owner, const uint8_t *master, uint64_t tag, uint32_t epoch,
                     uint8_t dir, bint beside) noexcept nogil
cdef int32_t ks_confirm(nc_keystore *s, int32_t place) noexcept nogil       # its tag held: into the table; new place
# Wipes stored keys of an owner: those of one direction byte and epoch, or (ks_forget_all) every one. Returns how many.
cdef int ks_forget(nc_keystore *s, const nc_key_owner *owner, uint8_t dir, uint32_t epoch) noexcept nogil
cdef int ks_forget_all(nc_keystore *s, const nc_key_owner *owner) noexcept nogil
