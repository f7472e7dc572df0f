"""AEAD, HMAC-SHA256 and their contexts from a libcrypto that was found at run time.

Layer: _core, rung c. Opens no library itself (provider does) and knows no key schedule.

1. ``evp_load`` looks up every function by name (real functions only, no macro of any header), checks the version
   and fetches each cipher once: nothing is fetched afterwards.
2. A context holds one EVP_CIPHER_CTX made for the fetched cipher; ``ctx_key`` loads a key, a seal or open loads
   only the nonce, which is what makes small records cheap.
3. HMAC hashes the two pads itself over one digest context: copying a pre-hashed context allocates, and nothing may
   be allocated on a C thread.

Error queue: the queue belongs to the thread and is shared with every other user of this libcrypto (``ssl``), so each
failing call is followed by ERR_clear_error, except the tag check, which leaves none (checked at load).
Threads: see crypto.pxd. Spec: docs/spec/keys.md §7.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netchan._core cimport crypto, defs
from netchan._core.crypto cimport forget_registers, nc_crypto, nc_ctx, nc_hash

cdef extern from "dlfcn.h" nogil:
    void *dlsym(void *handle, const char *name)

# Control numbers of EVP_CIPHER_CTX_ctrl, the same in 1.1.1 to 4.x.
cdef enum:
    CTRL_AEAD_GET_TAG = 0x10
    CTRL_AEAD_SET_TAG = 0x11
    VERSION_MIN = 0x10101000        # 1.1.1
    VERSION_3 = 0x30000000          # 2.x is LibreSSL's claim and is refused

cdef unsigned long VERSION_END = 0x50000000

ctypedef unsigned long (*fn_version_num)() noexcept nogil
ctypedef const char *(*fn_version)(int kind) noexcept nogil
ctypedef void *(*fn_new)() noexcept nogil
ctypedef void (*fn_free)(void *c) noexcept nogil
ctypedef int (*fn_cipher_init)(void *c, const void *cipher, void *engine, const uint8_t *key,
                               const uint8_t *iv) noexcept nogil
ctypedef int (*fn_cipher_update)(void *c, uint8_t *out, int *outl, const uint8_t *src, int n) noexcept nogil
ctypedef int (*fn_cipher_final)(void *c, uint8_t *out, int *outl) noexcept nogil
ctypedef int (*fn_ctrl)(void *c, int kind, int arg, void *ptr) noexcept nogil
ctypedef const void *(*fn_const)() noexcept nogil
ctypedef const void *(*fn_fetch)(void *libctx, const char *name, const char *props) noexcept nogil
ctypedef int (*fn_md_init)(void *c, const void *md, void *engine) noexcept nogil
ctypedef int (*fn_md_update)(void *c, const void *p, size_t n) noexcept nogil
ctypedef int (*fn_md_final)(void *c, uint8_t *out, unsigned int *n) noexcept nogil
ctypedef int (*fn_mark)() noexcept nogil
ctypedef void (*fn_clear)() noexcept nogil
ctypedef unsigned long (*fn_peek)() noexcept nogil
ctypedef void (*fn_cleanse)(void *p, size_t n) noexcept nogil

cdef struct evp_lib:
    fn_version_num version_num
    fn_version version
    fn_new ctx_new
    fn_free ctx_free
    fn_cipher_init enc_init
    fn_cipher_update enc_update
    fn_cipher_final enc_final
    fn_cipher_init dec_init
    fn_cipher_update dec_update
    fn_cipher_final dec_final
    fn_ctrl ctrl
    fn_new md_new
    fn_free md_free
    fn_md_init md_init
    fn_md_update md_update
    fn_md_final md_final
    fn_clear err_clear
    fn_peek err_peek_last
    fn_mark err_set_mark
    fn_mark err_pop_mark
    fn_cleanse cleanse
    const void *sha256              # fetched once, kept for the process's life
    const void *ecb                 # AES-256 of single blocks, the same; NULL: not there


cdef int evp_load(void *handle, nc_crypto *tables, void **lib_out) noexcept nogil:
    cdef evp_lib *lib
    cdef fn_fetch cipher_fetch
    cdef fn_fetch md_fetch
    cdef fn_const get
    cdef const void *cipher
    cdef unsigned long version
    cdef int n = 0
    cdef int i
    lib_out[0] = NULL
    lib = <evp_lib *>calloc(1, sizeof(evp_lib))
    if lib == NULL:
        return EVP_NOT_LIBCRYPTO
    if not bind(handle, lib):
        free(lib)
        return EVP_NOT_LIBCRYPTO
    version = lib.version_num()
    if version < VERSION_MIN or version >= VERSION_END or 0x20000000 <= version < VERSION_3:
        free(lib)
        return EVP_BAD_VERSION
    lib.err_set_mark()
    cipher_fetch = <fn_fetch>dlsym(handle, "EVP_CIPHER_fetch")
    md_fetch = <fn_fetch>dlsym(handle, "EVP_MD_fetch")
    if md_fetch != NULL:
        lib.sha256 = md_fetch(NULL, "SHA256", NULL)
    else:
        get = <fn_const>dlsym(handle, "EVP_sha256")
        lib.sha256 = get() if get != NULL else NULL
    if cipher_fetch != NULL:
        lib.ecb = cipher_fetch(NULL, "AES-256-ECB", NULL)
    else:
        get = <fn_const>dlsym(handle, "EVP_aes_256_ecb")
        lib.ecb = get() if get != NULL else NULL
    if lib.sha256 != NULL:
        for i in range(2):
            if cipher_fetch != NULL:
                cipher = cipher_fetch(NULL, "AES-256-GCM" if i == 0 else "ChaCha20-Poly1305", NULL)
            else:
                get = <fn_const>dlsym(handle, "EVP_aes_256_gcm" if i == 0 else "EVP_chacha20_poly1305")
                cipher = get() if get != NULL else NULL
            if cipher == NULL:
                continue            # a FIPS configuration has no ChaCha20
            fill(&tables[n], lib, cipher,
                 crypto.NC_CIPHER_AES256GCM if i == 0 else crypto.NC_CIPHER_CHACHA20POLY1305)
            n += 1
    lib.err_pop_mark()
    if lib.sha256 == NULL:
        free(lib)
        return EVP_NO_HASH
    lib_out[0] = lib
    return n


cdef const char *evp_version(void *lib) noexcept nogil:
    return (<evp_lib *>lib).version(0)


cdef unsigned long evp_mark(void *lib) noexcept nogil:
    (<evp_lib *>lib).err_set_mark()
    return (<evp_lib *>lib).err_peek_last()


cdef unsigned long evp_unmark(void *lib) noexcept nogil:
    cdef unsigned long newest = (<evp_lib *>lib).err_peek_last()
    (<evp_lib *>lib).err_pop_mark()
    return newest


cdef void evp_release(void *lib) noexcept nogil:
    free(lib)


cdef int bind(void *h, evp_lib *lib) noexcept nogil:
    lib.version_num = <fn_version_num>dlsym(h, "OpenSSL_version_num")
    lib.version = <fn_version>dlsym(h, "OpenSSL_version")
    lib.ctx_new = <fn_new>dlsym(h, "EVP_CIPHER_CTX_new")
    lib.ctx_free = <fn_free>dlsym(h, "EVP_CIPHER_CTX_free")
    lib.enc_init = <fn_cipher_init>dlsym(h, "EVP_EncryptInit_ex")
    lib.enc_update = <fn_cipher_update>dlsym(h, "EVP_EncryptUpdate")
    lib.enc_final = <fn_cipher_final>dlsym(h, "EVP_EncryptFinal_ex")
    lib.dec_init = <fn_cipher_init>dlsym(h, "EVP_DecryptInit_ex")
    lib.dec_update = <fn_cipher_update>dlsym(h, "EVP_DecryptUpdate")
    lib.dec_final = <fn_cipher_final>dlsym(h, "EVP_DecryptFinal_ex")
    lib.ctrl = <fn_ctrl>dlsym(h, "EVP_CIPHER_CTX_ctrl")
    lib.md_new = <fn_new>dlsym(h, "EVP_MD_CTX_new")
    lib.md_free = <fn_free>dlsym(h, "EVP_MD_CTX_free")
    lib.md_init = <fn_md_init>dlsym(h, "EVP_DigestInit_ex")
    lib.md_update = <fn_md_update>dlsym(h, "EVP_DigestUpdate")
    lib.md_final = <fn_md_final>dlsym(h, "EVP_DigestFinal_ex")
    lib.err_clear = <fn_clear>dlsym(h, "ERR_clear_error")
    lib.err_peek_last = <fn_peek>dlsym(h, "ERR_peek_last_error")
    lib.err_set_mark = <fn_mark>dlsym(h, "ERR_set_mark")
    lib.err_pop_mark = <fn_mark>dlsym(h, "ERR_pop_to_mark")
    lib.cleanse = <fn_cleanse>dlsym(h, "OPENSSL_cleanse")
    return (lib.version_num != NULL and lib.version != NULL and lib.ctx_new != NULL and lib.ctx_free != NULL
            and lib.enc_init != NULL and lib.enc_update != NULL and lib.enc_final != NULL
            and lib.dec_init != NULL and lib.dec_update != NULL and lib.dec_final != NULL and lib.ctrl != NULL
            and lib.md_new != NULL and lib.md_free != NULL and lib.md_init != NULL and lib.md_update != NULL
            and lib.md_final != NULL and lib.err_clear != NULL and lib.err_peek_last != NULL
            and lib.err_set_mark != NULL and lib.err_pop_mark != NULL and lib.cleanse != NULL)


cdef void fill(nc_crypto *t, evp_lib *lib, const void *cipher, int cipher_id) noexcept nogil:
    t.lib = lib
    t.cipher = cipher
    t.cipher_id = cipher_id
    t.ctx_new = ctx_new
    t.ctx_free = ctx_free
    t.ctx_key = ctx_key
    t.seal = seal
    t.seal2 = seal2
    t.open = open_
    if cipher_id == crypto.NC_CIPHER_AES256GCM and lib.ecb != NULL:
        t.mask_new = mask_new
        t.mask_key = mask_key
        t.mask = mask
    t.hash_new = hash_new
    t.hash_free = hash_free
    t.hmac_begin = hmac_begin
    t.hmac_add = hmac_add
    t.hmac_end = hmac_end
    t.cleanse = lib.cleanse


# --- cipher contexts ----------------------------------------------------------------------------------------------

cdef nc_ctx *ctx_new(const nc_crypto *t) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>t.lib
    cdef uint8_t zero[crypto.NC_KEY_BYTES]
    cdef nc_ctx *c = <nc_ctx *>calloc(1, sizeof(nc_ctx))
    if c == NULL:
        return NULL
    c.t = t
    c.h = lib.ctx_new()
    memset(zero, 0, sizeof(zero))
    # Both directions once, with a key: whatever the library allocates lazily is allocated here, on a Python thread.
    if (c.h == NULL or lib.enc_init(c.h, t.cipher, NULL, zero, zero) != 1
            or lib.dec_init(c.h, NULL, NULL, zero, zero) != 1):
        lib.err_clear()
        ctx_free(c)
        return NULL
    c.direction = crypto.NC_DIR_NONE
    return c


cdef void ctx_free(nc_ctx *c) noexcept nogil:
    if c == NULL:
        return
    if c.h != NULL:
        (<const evp_lib *>c.t.lib).ctx_free(c.h)
    free(c)


cdef int ctx_key(nc_ctx *c, const uint8_t *key, int direction) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>c.t.lib
    cdef int ok
    if direction == crypto.NC_DIR_SEAL:
        ok = lib.enc_init(c.h, NULL, NULL, key, NULL)
    else:
        ok = lib.dec_init(c.h, NULL, NULL, key, NULL)
    forget_registers()
    if ok != 1:
        lib.err_clear()
        c.direction = crypto.NC_DIR_NONE
        return defs.NC_ECRYPTO
    c.direction = direction
    return defs.NC_OK


# --- records ------------------------------------------------------------------------------------------------------

cdef int seal(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
              const uint8_t *src, size_t src_len, uint8_t *out, uint8_t *tag) noexcept nogil:
    return seal2(c, nonce, aad, aad_len, src, src_len, NULL, 0, out, tag)


cdef int seal2(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
               const uint8_t *src1, size_t src1_len, const uint8_t *src2, size_t src2_len,
               uint8_t *out, uint8_t *tag) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>c.t.lib
    cdef int n = 0
    cdef uint8_t rest[32]           # Final of a stream mode writes nothing; the room is for the library's contract
    if c.direction != crypto.NC_DIR_SEAL:
        return defs.NC_ESTATE
    if (aad_len > crypto.NC_AEAD_MAX or src1_len > crypto.NC_AEAD_MAX
            or src2_len > <size_t>crypto.NC_AEAD_MAX - src1_len):
        return defs.NC_EINVAL
    if (lib.enc_init(c.h, NULL, NULL, NULL, nonce) != 1
            or (aad_len != 0 and lib.enc_update(c.h, NULL, &n, aad, <int>aad_len) != 1)
            or (src1_len != 0 and lib.enc_update(c.h, out, &n, src1, <int>src1_len) != 1)
            or (src2_len != 0 and lib.enc_update(c.h, out + src1_len, &n, src2, <int>src2_len) != 1)
            or lib.enc_final(c.h, rest, &n) != 1
            or lib.ctrl(c.h, CTRL_AEAD_GET_TAG, crypto.NC_TAG_BYTES, tag) != 1):
        lib.err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK


cdef int open_(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
               const uint8_t *src, size_t src_len, uint8_t *out, const uint8_t *tag) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>c.t.lib
    cdef int n = 0
    cdef uint8_t rest[32]
    if (c.direction != crypto.NC_DIR_OPEN or aad_len > crypto.NC_AEAD_MAX or src_len > crypto.NC_AEAD_MAX):
        return 0
    if (lib.dec_init(c.h, NULL, NULL, NULL, nonce) != 1
            or (aad_len != 0 and lib.dec_update(c.h, NULL, &n, aad, <int>aad_len) != 1)
            or (src_len != 0 and lib.dec_update(c.h, out, &n, src, <int>src_len) != 1)
            or lib.ctrl(c.h, CTRL_AEAD_SET_TAG, crypto.NC_TAG_BYTES, <void *>tag) != 1):
        lib.err_clear()
        memset(out, 0, src_len)
        return 0
    if lib.dec_final(c.h, rest, &n) != 1:
        memset(out, 0, src_len)     # bytes that were not authenticated never leave this function
        return 0
    return 1


# --- masks --------------------------------------------------------------------------------------------------------

cdef nc_ctx *mask_new(const nc_crypto *t) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>t.lib
    cdef uint8_t zero[crypto.NC_KEY_BYTES]
    cdef nc_ctx *c = <nc_ctx *>calloc(1, sizeof(nc_ctx))
    if c == NULL:
        return NULL
    c.t = t
    c.h = lib.ctx_new()
    memset(zero, 0, sizeof(zero))
    if c.h == NULL or lib.enc_init(c.h, lib.ecb, NULL, zero, NULL) != 1:
        lib.err_clear()
        ctx_free(c)
        return NULL
    return c


cdef int mask_key(nc_ctx *c, const uint8_t *key) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>c.t.lib
    cdef int ok = lib.enc_init(c.h, NULL, NULL, key, NULL)
    forget_registers()
    if ok != 1:
        lib.err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK


# GCM counts its blocks from 2 on, 1 is for the tag (NIST SP 800-38D section 7.1).
cdef int mask(nc_ctx *c, const uint8_t *nonce, uint8_t *out) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>c.t.lib
    cdef uint8_t block[16]
    cdef int n = 0
    memcpy(block, nonce, crypto.NC_IV_BYTES)
    block[12] = block[13] = block[14] = 0
    block[15] = 2
    if lib.enc_update(c.h, out, &n, block, 16) != 1 or n != 16:
        lib.err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK


# --- HMAC-SHA256 --------------------------------------------------------------------------------------------------

cdef nc_hash *hash_new(const nc_crypto *t) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>t.lib
    cdef nc_hash *h = <nc_hash *>calloc(1, sizeof(nc_hash))
    if h == NULL:
        return NULL
    h.t = t
    h.h = lib.md_new()
    if h.h == NULL or lib.md_init(h.h, lib.sha256, NULL) != 1:
        lib.err_clear()
        hash_free(h)
        return NULL
    return h


cdef void hash_free(nc_hash *h) noexcept nogil:
    if h == NULL:
        return
    if h.h != NULL:
        (<const evp_lib *>h.t.lib).md_free(h.h)
    (<const evp_lib *>h.t.lib).cleanse(h.pad, sizeof(h.pad))
    free(h)


cdef int hmac_begin(nc_hash *h, const uint8_t *key, size_t key_len) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>h.t.lib
    cdef size_t i
    cdef int ok
    if key_len > crypto.NC_HMAC_BLOCK:
        return defs.NC_EINVAL
    for i in range(<size_t>crypto.NC_HMAC_BLOCK):
        h.pad[i] = 0x36 ^ (key[i] if i < key_len else 0)
    ok = lib.md_init(h.h, NULL, NULL) == 1 and lib.md_update(h.h, h.pad, crypto.NC_HMAC_BLOCK) == 1
    for i in range(<size_t>crypto.NC_HMAC_BLOCK):
        h.pad[i] ^= 0x36 ^ 0x5c
    if not ok:
        lib.err_clear()
        lib.cleanse(h.pad, sizeof(h.pad))
        return defs.NC_ECRYPTO
    return defs.NC_OK


cdef int hmac_add(nc_hash *h, const uint8_t *p, size_t n) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>h.t.lib
    if n != 0 and lib.md_update(h.h, p, n) != 1:
        lib.err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK


cdef int hmac_end(nc_hash *h, uint8_t *out) noexcept nogil:
    cdef const evp_lib *lib = <const evp_lib *>h.t.lib
    cdef unsigned int n = 0
    cdef uint8_t inner[64]
    # The last init overwrites the hash state, which otherwise holds the result.
    cdef int ok = (lib.md_final(h.h, inner, &n) == 1 and lib.md_init(h.h, NULL, NULL) == 1
                   and lib.md_update(h.h, h.pad, crypto.NC_HMAC_BLOCK) == 1
                   and lib.md_update(h.h, inner, crypto.NC_HASH_BYTES) == 1
                   and lib.md_final(h.h, out, &n) == 1 and lib.md_init(h.h, NULL, NULL) == 1)
    lib.cleanse(inner, sizeof(inner))
    lib.cleanse(h.pad, sizeof(h.pad))
    if not ok:
        lib.err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK
