# keys: epochs, limits and records of one session. Layer: _core, rung e.
# Thread rule: keys_new and keys_free on a Python-side thread that holds the engine's baton; the rest by the holder of
# the baton, on any thread; nothing there allocates. Times are monotonic nanoseconds given by the caller.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.aead cimport nc_aead_stats
from netchan._core.ctxcache cimport nc_cache
from netchan._core.keystore cimport nc_key_owner, nc_keystore, nc_secrets

cdef enum:
    KEYS_PATHS = 64                 # paths of one session at once (the largest max_paths)
    KEYS_MONO = 1024                # (key, path) pairs that the debug build watches

cdef enum nc_keys_role:
    KEYS_INITIATOR = 0              # its sending direction has byte 0
    KEYS_RESPONDER = 1

cdef enum nc_keys_secret:
    KEYS_HP_SEND = 0
    KEYS_HP_RECV = 1
    KEYS_EXPORTER = 2
    KEYS_JOIN = 3
    KEYS_RESUMPTION = 4
    KEYS_RESET = 5

# docs/spec/keys.md §3; tests put small ones.
cdef struct nc_keys_limits:
    uint64_t soft_blocks            # per key: the epoch should change
    uint64_t hard_blocks            # per key: no more sealing
    uint64_t failed_max             # per session: tags that did not hold
    uint64_t warn_messages          # per session: records sealed with it before a warning
    int64_t use_ns                  # from the first record of an epoch: the epoch should change

cdef struct nc_keys_path:
    uint32_t path_id                # goes into the nonce
    uint32_t recv_epoch             # newest epoch of which a record held on this path
    uint64_t send_next              # smallest number that may be sealed
    int64_t old_until_ns            # datagram path: old records until then, once recv_epoch is the newest
    uint8_t kind                    # 0 = free, 1 = stream path, 2 = datagram path

cdef struct nc_keys_mono:           # debug build: last number per (epoch, tag, path)
    uint64_t tag
    uint64_t next_number
    uint32_t epoch
    uint32_t path_id
    uint8_t live

cdef struct nc_keys_warning:
    uint64_t session_messages
    uint64_t key_messages           # of the key that crossed the threshold
    uint64_t tag
    uint32_t epoch

cdef struct nc_keys:
    nc_key_owner owner              # first: the store keeps a pointer to it
    nc_keystore *store              # borrowed, outlives the session
    nc_secrets *x                   # owned block of the store
    nc_keys_limits limits
    uint8_t send_dir                # direction byte of what we seal; the peer's is 1 - send_dir
    uint8_t has_prev                # recv_prev is live
    uint8_t has_next                # recv_next is derived
    uint8_t mix_len                 # 0 or 32: mix announced for recv_epoch + 1
    uint8_t acked                   # the peer has acknowledged a record of our epoch on every active path
    uint8_t wants_update            # soft limit or time: update when that is allowed
    uint8_t warned                  # 1 = warning waits to be taken, 2 = taken
    uint32_t recv_epoch             # newest epoch of the peer of which a record held; ours is owner.send_epoch
    int64_t first_use_ns            # first record sealed in our epoch, -1 = none
    uint64_t sealed                 # records, whole session
    uint64_t refused                # incoming records of an epoch that is not accepted
    uint64_t updates                # our epochs after the first
    nc_aead_stats st
    nc_keys_warning warning
    nc_keys_path paths[KEYS_PATHS]
    int64_t path_top[2]             # largest path id / 2 ever added, by parity (who allots it); -1 = none
    uint64_t path_seen[2]           # bit i: path_top - i was added; older ones count as added
    nc_keys_mono *mono              # owned; NULL unless NETCHAN_DEBUG
    uint64_t mono_violations

cdef void keys_limits_default(nc_keys_limits *l) noexcept nogil
# root: 32 bytes of docs/spec/handshake.md §4, borrowed for the call (the caller wipes it; nothing of it is kept).
# limits: NULL = default. Owned result; NULL = out of memory or of session blocks.
cdef nc_keys *keys_new(nc_keystore *s, const uint8_t *root, int role, const nc_keys_limits *limits) noexcept nogil
# The same without any secret: for keys that come from another process (handover_keys.pxd).
cdef nc_keys *keys_blank(nc_keystore *s, int role, const nc_keys_limits *limits) noexcept nogil
# Wipes all secrets, stored keys and contexts of the session. NULL is allowed.
cdef void keys_free(nc_keys *k, nc_cache *c) noexcept nogil
cdef const uint8_t *keys_secret(const nc_keys *k, int which) noexcept nogil      # 32 bytes, borrowed until keys_free
# out = export for label and context (docs/spec/keys.md §1): label 1..64 bytes, context 0..48 bytes, n 1..8160.
# NC_OK, NC_EINVAL, NC_ECRYPTO.
cdef int keys_export(nc_keys *k, const char *label, size_t label_len, const uint8_t *context, size_t context_len,
                     uint8_t *out, size_t n) noexcept nogil
# mac = the code of JOIN over what has this SHA-256 (docs/spec/keys.md §1), 32 bytes. NC_OK, NC_EFORK, NC_ECRYPTO.
cdef int keys_join_mac(nc_keys *k, const uint8_t *digest32, uint8_t *mac) noexcept nogil

# secret = what a ticket with this id of 16 bytes stands for, 32 bytes. NC_OK, NC_EFORK, NC_ECRYPTO.
cdef int keys_ticket_secret(nc_keys *k, const uint8_t *id16, uint8_t *secret) noexcept nogil

# --- paths ---
# Index for the calls below. NC_EINVAL: kind unknown, or an id that was added before (or is 128 below the newest of its
# parity): the number would start again under the same keys. NC_ELIMIT: KEYS_PATHS are there.
cdef int keys_path_add(nc_keys *k, uint32_t path_id, int kind) noexcept nogil
cdef int keys_path_free(const nc_keys *k, uint32_t path_id) noexcept nogil    # 1: this id was never used
cdef int keys_path_remove(nc_keys *k, nc_cache *c, int path, int64_t now_ns) noexcept nogil

# --- our epoch ---
cdef inline uint8_t keys_epoch_byte(const nc_keys *k) noexcept nogil:            # for the header of the next record
    return <uint8_t>k.owner.send_epoch
cdef int keys_may_update(const nc_keys *k) noexcept nogil                        # 1 = the last update is acknowledged
# Starts our next epoch. mix: 32 bytes or NULL with mix_len 0. NC_OK; NC_ESTATE (last update not acknowledged);
# NC_EINVAL (mix_len); NC_EEXHAUSTED (2^32 epochs); NC_ECRYPTO; NC_EFORK.
cdef int keys_update(nc_keys *k, nc_cache *c, const uint8_t *mix, size_t mix_len) noexcept nogil
# Records of `epoch` are acknowledged on every active path. NC_OK, NC_EINVAL for an epoch that we have not reached.
cdef int keys_update_acked(nc_keys *k, uint32_t epoch) noexcept nogil
# The peer announced a mix for its epoch (REKEY). NC_OK; NC_ESTATE (not the next one); NC_EINVAL (mix_len); NC_ECRYPTO.
cdef int keys_mix_announced(nc_keys *k, nc_cache *c, uint32_t epoch, const uint8_t *mix, size_t mix_len) noexcept nogil
# What is due now: an ordinary update, old keys to wipe. 1 = our epoch changed, 0 = not, negative as keys_update.
cdef int keys_tick(nc_keys *k, nc_cache *c, int64_t now_ns) noexcept nogil
cdef int64_t keys_deadline(const nc_keys *k) noexcept nogil                      # next useful keys_tick, -1 = none
cdef int keys_take_warning(nc_keys *k, nc_keys_warning *out) noexcept nogil      # 1 once, when the limit nears

# --- records ---
# As aead_seal and aead_seal2, under the key of (tag, our epoch) for a path of keys_path_add. number: grows on each path
# (on a datagram path records of several tags may share one). Further codes: NC_EINVAL (path, number), NC_EEXHAUSTED
# (hard limit: an update must come first), NC_EFORK (forked child), NC_ECRYPTO.
cdef int keys_seal(nc_keys *k, nc_cache *c, int path, uint64_t number, uint64_t tag, const uint8_t *aad, size_t aad_len,
                   uint8_t *buf, size_t n, int64_t now_ns) noexcept nogil
cdef int keys_seal2(nc_keys *k, nc_cache *c, int path, uint64_t number, uint64_t tag, const uint8_t *aad,
                    size_t aad_len, const uint8_t *head, size_t head_len, const uint8_t *body, size_t body_len,
                    uint8_t *out, int64_t now_ns) noexcept nogil
# 1 = the tag holds (state may have moved to the next epoch); 0 = it does not, nothing moved but the count of failures;
# NC_ECRYPTO = epoch not accepted on this path; NC_EEXHAUSTED = failed_max reached: close the session; NC_EINVAL (path);
# NC_EFORK. The caller has made sure that tag is an open stream or may be opened. old_until_ns: on a datagram path, how
# long old records are accepted if this is its first record of a new epoch (now + 3 PTO).
cdef int keys_open(nc_keys *k, nc_cache *c, int path, uint64_t number, uint8_t epoch_byte, uint64_t tag,
                   const uint8_t *aad, size_t aad_len, uint8_t *buf_untrusted, size_t n, int64_t now_ns,
                   int64_t old_until_ns) noexcept nogil

# Debug build's check, open to tests: 1 = number is new for (epoch, tag, path), 0 = a repeat or a step back.
cdef int mono_check(nc_keys_mono *table, uint32_t epoch, uint64_t tag, uint32_t path_id, uint64_t number) noexcept nogil
