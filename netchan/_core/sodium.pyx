"""AEAD and HMAC-SHA256 from the libsodium that PyNaCl carries.

Layer: _core, rung c. Opens no library itself (provider does) and knows no key schedule.

libsodium leaves what it worked on in vector registers, so everything here that touches a key ends with
``forget_registers`` (crypto.pxd).

libsodium has no streaming AEAD, so ``seal2`` joins its two segments in the output first (one copy) and seals that in
place. Its functions allocate nothing, have no error queue and verify the tag before they decrypt.
Threads: see crypto.pxd. Spec: docs/spec/keys.md §7.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset

from netchan._core cimport crypto, defs
from netchan._core.crypto cimport forget_registers, nc_crypto, nc_ctx, nc_hash

cdef extern from "dlfcn.h" nogil:
    void *dlsym(void *handle, const char *name)

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void **out, size_t align, size_t n)

cdef enum:
    AES_STATE_BYTES = 512           # crypto_aead_aes256gcm_state, checked against ..._statebytes()
    HMAC_STATE_BYTES = 256          # room for crypto_auth_hmacsha256_state (208), checked likewise

ctypedef int (*fn_int)() noexcept nogil
ctypedef size_t (*fn_size)() noexcept nogil
ctypedef const char *(*fn_text)() noexcept nogil
ctypedef int (*fn_seal)(uint8_t *out, uint8_t *tag, unsigned long long *tag_len, const uint8_t *src,
                        unsigned long long n, const uint8_t *aad, unsigned long long aad_len, const uint8_t *nsec,
                        const uint8_t *nonce, const void *key_or_state) noexcept nogil
ctypedef int (*fn_open)(uint8_t *out, uint8_t *nsec, const uint8_t *src, unsigned long long n, const uint8_t *tag,
                        const uint8_t *aad, unsigned long long aad_len, const uint8_t *nonce,
                        const void *key_or_state) noexcept nogil
ctypedef int (*fn_beforenm)(void *state, const uint8_t *key) noexcept nogil
ctypedef int (*fn_hmac_init)(void *state, const uint8_t *key, size_t n) noexcept nogil
ctypedef int (*fn_hmac_update)(void *state, const uint8_t *p, unsigned long long n) noexcept nogil
ctypedef int (*fn_hmac_final)(void *state, uint8_t *out) noexcept nogil
ctypedef void (*fn_memzero)(void *p, size_t n) noexcept nogil

cdef struct sodium_lib:
    fn_beforenm aes_key
    fn_seal aes_seal
    fn_open aes_open
    fn_seal chacha_seal
    fn_open chacha_open
    fn_hmac_init hmac_init
    fn_hmac_update hmac_update
    fn_hmac_final hmac_final
    fn_text version
    fn_memzero cleanse


cdef int sodium_load(void *handle, nc_crypto *tables, void **lib_out) noexcept nogil:
    cdef sodium_lib *lib
    cdef fn_int init = <fn_int>dlsym(handle, "sodium_init")
    cdef fn_int has_aes = <fn_int>dlsym(handle, "crypto_aead_aes256gcm_is_available")
    cdef fn_size aes_bytes = <fn_size>dlsym(handle, "crypto_aead_aes256gcm_statebytes")
    cdef fn_size hmac_bytes = <fn_size>dlsym(handle, "crypto_auth_hmacsha256_statebytes")
    cdef int n = 0
    lib_out[0] = NULL
    if init == NULL or hmac_bytes == NULL or hmac_bytes() > HMAC_STATE_BYTES or init() < 0:
        return -1
    lib = <sodium_lib *>calloc(1, sizeof(sodium_lib))
    if lib == NULL:
        return -1
    lib.aes_key = <fn_beforenm>dlsym(handle, "crypto_aead_aes256gcm_beforenm")
    lib.aes_seal = <fn_seal>dlsym(handle, "crypto_aead_aes256gcm_encrypt_detached_afternm")
    lib.aes_open = <fn_open>dlsym(handle, "crypto_aead_aes256gcm_decrypt_detached_afternm")
    lib.chacha_seal = <fn_seal>dlsym(handle, "crypto_aead_chacha20poly1305_ietf_encrypt_detached")
    lib.chacha_open = <fn_open>dlsym(handle, "crypto_aead_chacha20poly1305_ietf_decrypt_detached")
    lib.hmac_init = <fn_hmac_init>dlsym(handle, "crypto_auth_hmacsha256_init")
    lib.hmac_update = <fn_hmac_update>dlsym(handle, "crypto_auth_hmacsha256_update")
    lib.hmac_final = <fn_hmac_final>dlsym(handle, "crypto_auth_hmacsha256_final")
    lib.version = <fn_text>dlsym(handle, "sodium_version_string")
    lib.cleanse = <fn_memzero>dlsym(handle, "sodium_memzero")
    if lib.hmac_init == NULL or lib.hmac_update == NULL or lib.hmac_final == NULL or lib.cleanse == NULL:
        free(lib)
        return -1
    if (has_aes != NULL and aes_bytes != NULL and aes_bytes() <= AES_STATE_BYTES and has_aes() == 1
            and lib.aes_key != NULL and lib.aes_seal != NULL and lib.aes_open != NULL):
        fill(&tables[n], lib, crypto.NC_CIPHER_AES256GCM)
        n += 1
    if lib.chacha_seal != NULL and lib.chacha_open != NULL:
        fill(&tables[n], lib, crypto.NC_CIPHER_CHACHA20POLY1305)
        n += 1
    lib_out[0] = lib
    return n


cdef const char *sodium_version(void *lib) noexcept nogil:
    cdef fn_text text = (<sodium_lib *>lib).version
    return text() if text != NULL else NULL


cdef void sodium_release(void *lib) noexcept nogil:
    free(lib)


cdef void fill(nc_crypto *t, sodium_lib *lib, int cipher_id) noexcept nogil:
    t.lib = lib
    t.cipher = NULL
    t.cipher_id = cipher_id
    t.ctx_new = ctx_new
    t.ctx_free = ctx_free
    t.ctx_key = ctx_key
    t.seal = seal
    t.seal2 = seal2
    t.open = open_
    t.hash_new = hash_new
    t.hash_free = hash_free
    t.hmac_begin = hmac_begin
    t.hmac_add = hmac_add
    t.hmac_end = hmac_end
    t.cleanse = lib.cleanse


cdef nc_ctx *ctx_new(const nc_crypto *t) noexcept nogil:
    cdef nc_ctx *c = <nc_ctx *>calloc(1, sizeof(nc_ctx))
    if c == NULL:
        return NULL
    c.t = t
    # Expanded AES key (16-byte aligned by the library's contract) or the 32 key bytes of ChaCha20.
    if posix_memalign(&c.h, 64, AES_STATE_BYTES) != 0:
        free(c)
        return NULL
    memset(c.h, 0, AES_STATE_BYTES)
    return c


cdef void ctx_free(nc_ctx *c) noexcept nogil:
    if c == NULL:
        return
    (<const sodium_lib *>c.t.lib).cleanse(c.h, AES_STATE_BYTES)
    free(c.h)
    free(c)


cdef int ctx_key(nc_ctx *c, const uint8_t *key, int direction) noexcept nogil:
    cdef int rc = 0
    if c.t.cipher_id == crypto.NC_CIPHER_AES256GCM:
        rc = (<const sodium_lib *>c.t.lib).aes_key(c.h, key)
    else:
        memcpy(c.h, key, crypto.NC_KEY_BYTES)
    forget_registers()
    c.direction = direction if rc == 0 else crypto.NC_DIR_NONE
    return defs.NC_OK if rc == 0 else defs.NC_ECRYPTO


cdef int seal(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
              const uint8_t *src, size_t src_len, uint8_t *out, uint8_t *tag) noexcept nogil:
    cdef const sodium_lib *lib = <const sodium_lib *>c.t.lib
    cdef unsigned long long n = 0
    cdef int rc
    cdef fn_seal f = lib.aes_seal if c.t.cipher_id == crypto.NC_CIPHER_AES256GCM else lib.chacha_seal
    if c.direction != crypto.NC_DIR_SEAL:
        return defs.NC_ESTATE
    if aad_len > crypto.NC_AEAD_MAX or src_len > crypto.NC_AEAD_MAX:
        return defs.NC_EINVAL
    rc = f(out, tag, &n, src, src_len, aad, aad_len, NULL, nonce, c.h)
    forget_registers()
    return defs.NC_OK if rc == 0 else defs.NC_ECRYPTO


cdef int seal2(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
               const uint8_t *src1, size_t src1_len, const uint8_t *src2, size_t src2_len,
               uint8_t *out, uint8_t *tag) noexcept nogil:
    if src1_len > crypto.NC_AEAD_MAX or src2_len > <size_t>crypto.NC_AEAD_MAX - src1_len:
        return defs.NC_EINVAL
    if c.direction != crypto.NC_DIR_SEAL:
        return defs.NC_ESTATE       # before the copy: a refused call leaves the output alone
    if src1_len != 0 and src1 != out:
        memmove(out, src1, src1_len)
    if src2_len != 0 and src2 != out + src1_len:
        memmove(out + src1_len, src2, src2_len)
    return seal(c, nonce, aad, aad_len, out, src1_len + src2_len, out, tag)


cdef int open_(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
               const uint8_t *src, size_t src_len, uint8_t *out, const uint8_t *tag) noexcept nogil:
    cdef const sodium_lib *lib = <const sodium_lib *>c.t.lib
    cdef int rc
    cdef fn_open f = lib.aes_open if c.t.cipher_id == crypto.NC_CIPHER_AES256GCM else lib.chacha_open
    if (c.direction != crypto.NC_DIR_OPEN or aad_len > crypto.NC_AEAD_MAX or src_len > crypto.NC_AEAD_MAX):
        return 0
    rc = f(out, NULL, src, src_len, tag, aad, aad_len, nonce, c.h)
    forget_registers()
    if rc != 0:
        memset(out, 0, src_len)
        return 0
    return 1


cdef nc_hash *hash_new(const nc_crypto *t) noexcept nogil:
    cdef nc_hash *h = <nc_hash *>calloc(1, sizeof(nc_hash))
    if h == NULL:
        return NULL
    h.t = t
    if posix_memalign(&h.h, 64, HMAC_STATE_BYTES) != 0:
        free(h)
        return NULL
    memset(h.h, 0, HMAC_STATE_BYTES)
    return h


cdef void hash_free(nc_hash *h) noexcept nogil:
    if h == NULL:
        return
    (<const sodium_lib *>h.t.lib).cleanse(h.h, HMAC_STATE_BYTES)
    free(h.h)
    free(h)


cdef int hmac_begin(nc_hash *h, const uint8_t *key, size_t key_len) noexcept nogil:
    if key_len > crypto.NC_HMAC_BLOCK:
        return defs.NC_EINVAL
    return defs.NC_OK if (<const sodium_lib *>h.t.lib).hmac_init(h.h, key, key_len) == 0 else defs.NC_ECRYPTO


cdef int hmac_add(nc_hash *h, const uint8_t *p, size_t n) noexcept nogil:
    return defs.NC_OK if (<const sodium_lib *>h.t.lib).hmac_update(h.h, p, n) == 0 else defs.NC_ECRYPTO


cdef int hmac_end(nc_hash *h, uint8_t *out) noexcept nogil:
    cdef const sodium_lib *lib = <const sodium_lib *>h.t.lib
    cdef int rc = lib.hmac_final(h.h, out)
    lib.cleanse(h.h, HMAC_STATE_BYTES)
    forget_registers()
    return defs.NC_OK if rc == 0 else defs.NC_ECRYPTO
