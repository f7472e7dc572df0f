"""Seals, opens and masks by the functions that libcrypto 3 registers for its ciphers (provider-cipher(7)).

Layer: _core, rung c. Opens no library itself and trusts nothing that provider.pyx has not proved for this form too.

The EVP layer looks the length of the nonce up by its name for each message, and wraps the tag in a parameter through
three calls: 1 030 of the 6 205 instructions that sealing 1 360 bytes takes with 3.0, and a fifth of its time. The
functions below it are documented: they come from OSSL_PROVIDER_query_operation, of the provider that EVP has fetched
the cipher from, and EVP passes them the same arguments. Hashes stay with EVP.

A context is the provider's; a key is loaded once, a message loads its nonce.
Error queue: as evp.pyx. Threads: see crypto.pxd. Spec: docs/spec/keys.md §7.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strcspn, strlen, strncmp

from netchan._core cimport crypto, defs
from netchan._core.crypto cimport forget_registers, nc_crypto, nc_ctx

cdef extern from "dlfcn.h" nogil:
    void *dlsym(void *handle, const char *name)

# Numbers of core_dispatch.h, the same in 3.0 to 4.x: they are what providers are compiled against.
cdef enum:
    OP_CIPHER = 2
    NEWCTX = 1
    ENCRYPT_INIT = 2
    DECRYPT_INIT = 3
    UPDATE = 4
    FINAL = 5
    ONE_SHOT = 6
    FREECTX = 7
    GET_CTX_PARAMS = 10
    SET_CTX_PARAMS = 11
    FUNCTIONS = 12
    OCTET_STRING = 5
    DISPATCH_MOST = 64              # entries of one table; the longest known has 20
    ALGORITHMS_MOST = 1024          # ciphers of one provider; the longest known list has 140

cdef struct ossl_dispatch:
    int id
    void *function

cdef struct ossl_algorithm:
    const char *names               # separated by colons
    const char *properties
    const ossl_dispatch *functions
    const char *description

cdef struct ossl_param:
    const char *key
    unsigned int kind
    void *data
    size_t size
    size_t returned

ctypedef void *(*fn_get)(const void *p) noexcept nogil
ctypedef const char *(*fn_name)(const void *p) noexcept nogil
ctypedef const ossl_algorithm *(*fn_query)(const void *provider, int op, int *no_store) noexcept nogil
ctypedef void (*fn_unquery)(const void *provider, int op, const ossl_algorithm *list) noexcept nogil
ctypedef void (*fn_clear)() noexcept nogil

ctypedef void *(*fn_newctx)(void *provider_ctx) noexcept nogil
ctypedef void (*fn_freectx)(void *c) noexcept nogil
ctypedef int (*fn_init)(void *c, const uint8_t *key, size_t key_len, const uint8_t *iv, size_t iv_len,
                        const ossl_param *params) noexcept nogil
ctypedef int (*fn_update)(void *c, uint8_t *out, size_t *outl, size_t out_size, const uint8_t *src,
                          size_t n) noexcept nogil
ctypedef int (*fn_final)(void *c, uint8_t *out, size_t *outl, size_t out_size) noexcept nogil
ctypedef int (*fn_params)(void *c, ossl_param *params) noexcept nogil

# The functions of one cipher.
cdef struct nc_direct:
    void *provider_ctx
    fn_newctx newctx
    fn_freectx freectx
    fn_init enc_init
    fn_init dec_init
    fn_update update
    fn_final final
    fn_update one_shot
    fn_params get_params
    fn_params set_params

# What the table's `cipher` points to.
cdef struct nc_direct_lib:
    nc_direct aead
    nc_direct ecb                   # for masks
    fn_clear err_clear

# nc_ctx first: masks and records are freed by one function.
cdef struct nc_direct_ctx:
    nc_ctx base
    const nc_direct *f


cdef int direct_load(void *handle, const nc_crypto *evp, nc_crypto *t) noexcept nogil:
    cdef nc_direct_lib *lib
    cdef fn_clear err_clear = <fn_clear>dlsym(handle, "ERR_clear_error")
    if err_clear == NULL:
        return 0
    lib = <nc_direct_lib *>calloc(1, sizeof(nc_direct_lib))
    if lib == NULL:
        return 0
    lib.err_clear = err_clear
    if not find(handle, evp.cipher, NULL, &lib.aead) or lib.aead.final == NULL or lib.aead.dec_init == NULL \
            or lib.aead.update == NULL or lib.aead.get_params == NULL or lib.aead.set_params == NULL:
        free(lib)
        return 0
    memcpy(t, evp, sizeof(nc_crypto))
    t.cipher = lib
    t.ctx_new = ctx_new
    t.ctx_free = ctx_free
    t.ctx_key = ctx_key
    t.seal = seal
    t.seal2 = seal2
    t.open = open_
    t.mask_new = NULL               # without one of its own a mask is made by seal (ctxcache.pyx)
    t.mask_key = NULL
    t.mask = NULL
    if evp.mask_new != NULL and find(handle, evp.cipher, "AES-256-ECB", &lib.ecb) and lib.ecb.one_shot != NULL:
        t.mask_new = mask_new
        t.mask_key = mask_key
        t.mask = mask
    return 1


# The functions behind a fetched cipher, or behind another one of the same provider that is called `name`.
cdef int find(void *handle, const void *cipher, const char *name, nc_direct *f) noexcept nogil:
    cdef fn_get provider_of = <fn_get>dlsym(handle, "EVP_CIPHER_get0_provider")
    cdef fn_name name_of = <fn_name>dlsym(handle, "EVP_CIPHER_get0_name")
    cdef fn_get context_of = <fn_get>dlsym(handle, "OSSL_PROVIDER_get0_provider_ctx")
    cdef fn_query query = <fn_query>dlsym(handle, "OSSL_PROVIDER_query_operation")
    cdef fn_unquery unquery = <fn_unquery>dlsym(handle, "OSSL_PROVIDER_unquery_operation")
    cdef const ossl_algorithm *all_
    cdef const void *provider
    cdef int no_store = 0
    cdef int i
    cdef int good = 0
    if provider_of == NULL or name_of == NULL or context_of == NULL or query == NULL or unquery == NULL:
        return 0
    provider = provider_of(cipher)
    if name == NULL:
        name = name_of(cipher)
    if provider == NULL or name == NULL:
        return 0
    all_ = query(provider, OP_CIPHER, &no_store)
    if all_ == NULL:
        return 0
    for i in range(ALGORITHMS_MOST):
        if all_[i].names == NULL:
            break
        if strcspn(all_[i].names, ":") == strlen(name) and strncmp(all_[i].names, name, strlen(name)) == 0:
            good = take(all_[i].functions, f)
            break
    unquery(provider, OP_CIPHER, all_)
    # What a provider does not let anybody keep may be gone by now.
    if no_store:
        return 0
    f.provider_ctx = context_of(provider)
    return good


cdef int take(const ossl_dispatch *d, nc_direct *f) noexcept nogil:
    cdef void *found[FUNCTIONS]
    cdef int i
    memset(found, 0, sizeof(found))
    for i in range(DISPATCH_MOST):
        if d[i].id == 0:
            break
        if 0 < d[i].id < FUNCTIONS:
            found[d[i].id] = d[i].function
    f.newctx = <fn_newctx>found[NEWCTX]
    f.freectx = <fn_freectx>found[FREECTX]
    f.enc_init = <fn_init>found[ENCRYPT_INIT]
    f.dec_init = <fn_init>found[DECRYPT_INIT]
    f.update = <fn_update>found[UPDATE]
    f.final = <fn_final>found[FINAL]
    f.one_shot = <fn_update>found[ONE_SHOT]
    f.get_params = <fn_params>found[GET_CTX_PARAMS]
    f.set_params = <fn_params>found[SET_CTX_PARAMS]
    return f.newctx != NULL and f.freectx != NULL and f.enc_init != NULL


# --- contexts -----------------------------------------------------------------------------------------------------

cdef nc_ctx *new(const nc_crypto *t, const nc_direct *f) noexcept nogil:
    cdef nc_direct_ctx *c = <nc_direct_ctx *>calloc(1, sizeof(nc_direct_ctx))
    if c == NULL:
        return NULL
    c.base.t = t
    c.f = f
    c.base.h = f.newctx(f.provider_ctx)
    if c.base.h == NULL:
        (<const nc_direct_lib *>t.cipher).err_clear()
        free(c)
        return NULL
    c.base.direction = crypto.NC_DIR_NONE
    return &c.base


cdef nc_ctx *ctx_new(const nc_crypto *t) noexcept nogil:
    cdef nc_ctx *c = new(t, &(<const nc_direct_lib *>t.cipher).aead)
    cdef uint8_t zero[crypto.NC_KEY_BYTES]
    if c == NULL:
        return NULL
    memset(zero, 0, sizeof(zero))
    # Both directions once, with a key: whatever is allocated lazily is allocated here, on a Python thread.
    if ctx_key(c, zero, crypto.NC_DIR_SEAL) < 0 or ctx_key(c, zero, crypto.NC_DIR_OPEN) < 0:
        ctx_free(c)
        return NULL
    c.direction = crypto.NC_DIR_NONE
    return c


cdef void ctx_free(nc_ctx *c) noexcept nogil:
    if c == NULL:
        return
    (<nc_direct_ctx *>c).f.freectx(c.h)         # wipes it
    free(c)


cdef int ctx_key(nc_ctx *c, const uint8_t *key, int direction) noexcept nogil:
    cdef const nc_direct *f = (<nc_direct_ctx *>c).f
    cdef int ok
    if direction == crypto.NC_DIR_SEAL:
        ok = f.enc_init(c.h, key, crypto.NC_KEY_BYTES, NULL, crypto.NC_IV_BYTES, NULL)
    else:
        ok = f.dec_init(c.h, key, crypto.NC_KEY_BYTES, NULL, crypto.NC_IV_BYTES, NULL)
    forget_registers()
    if ok != 1:
        (<const nc_direct_lib *>c.t.cipher).err_clear()
        c.direction = crypto.NC_DIR_NONE
        return defs.NC_ECRYPTO
    c.direction = direction
    return defs.NC_OK


cdef inline void tag_param(ossl_param *p, uint8_t *tag) noexcept nogil:
    p[0].key = "tag"
    p[0].kind = OCTET_STRING
    p[0].data = tag
    p[0].size = crypto.NC_TAG_BYTES
    p[0].returned = 0
    memset(&p[1], 0, sizeof(ossl_param))


# --- records ------------------------------------------------------------------------------------------------------

cdef int seal(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
              const uint8_t *src, size_t src_len, uint8_t *out, uint8_t *tag) noexcept nogil:
    return seal2(c, nonce, aad, aad_len, src, src_len, NULL, 0, out, tag)


cdef int seal2(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
               const uint8_t *src1, size_t src1_len, const uint8_t *src2, size_t src2_len,
               uint8_t *out, uint8_t *tag) noexcept nogil:
    cdef const nc_direct *f = (<nc_direct_ctx *>c).f
    cdef ossl_param params[2]
    cdef size_t n = 0
    cdef uint8_t rest[32]           # as in evp.pyx: nothing is written there
    if c.direction != crypto.NC_DIR_SEAL:
        return defs.NC_ESTATE
    if (aad_len > crypto.NC_AEAD_MAX or src1_len > crypto.NC_AEAD_MAX
            or src2_len > <size_t>crypto.NC_AEAD_MAX - src1_len):
        return defs.NC_EINVAL
    tag_param(params, tag)
    if (f.enc_init(c.h, NULL, 0, nonce, crypto.NC_IV_BYTES, NULL) != 1
            or (aad_len != 0 and f.update(c.h, NULL, &n, aad_len, aad, aad_len) != 1)
            or (src1_len != 0 and f.update(c.h, out, &n, src1_len, src1, src1_len) != 1)
            or (src2_len != 0 and f.update(c.h, out + src1_len, &n, src2_len, src2, src2_len) != 1)
            or f.final(c.h, rest, &n, sizeof(rest)) != 1
            or f.get_params(c.h, params) != 1):
        (<const nc_direct_lib *>c.t.cipher).err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK


cdef int open_(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
               const uint8_t *src, size_t src_len, uint8_t *out, const uint8_t *tag) noexcept nogil:
    cdef const nc_direct *f = (<nc_direct_ctx *>c).f
    cdef ossl_param params[2]
    cdef size_t n = 0
    cdef uint8_t rest[32]
    if (c.direction != crypto.NC_DIR_OPEN or aad_len > crypto.NC_AEAD_MAX or src_len > crypto.NC_AEAD_MAX):
        return 0
    tag_param(params, <uint8_t *>tag)
    if (f.dec_init(c.h, NULL, 0, nonce, crypto.NC_IV_BYTES, NULL) != 1
            or (aad_len != 0 and f.update(c.h, NULL, &n, aad_len, aad, aad_len) != 1)
            or (src_len != 0 and f.update(c.h, out, &n, src_len, src, src_len) != 1)
            or f.set_params(c.h, params) != 1):
        (<const nc_direct_lib *>c.t.cipher).err_clear()
        memset(out, 0, src_len)
        return 0
    if f.final(c.h, rest, &n, sizeof(rest)) != 1:
        memset(out, 0, src_len)     # bytes that were not authenticated never leave this function
        return 0
    return 1


# --- masks --------------------------------------------------------------------------------------------------------

cdef nc_ctx *mask_new(const nc_crypto *t) noexcept nogil:
    cdef nc_ctx *c = new(t, &(<const nc_direct_lib *>t.cipher).ecb)
    cdef uint8_t zero[crypto.NC_KEY_BYTES]
    memset(zero, 0, sizeof(zero))
    if c != NULL and mask_key(c, zero) < 0:
        ctx_free(c)
        return NULL
    return c


cdef int mask_key(nc_ctx *c, const uint8_t *key) noexcept nogil:
    cdef int ok = (<nc_direct_ctx *>c).f.enc_init(c.h, key, crypto.NC_KEY_BYTES, NULL, 0, NULL)
    forget_registers()
    if ok != 1:
        (<const nc_direct_lib *>c.t.cipher).err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK


# As in evp.pyx: the first block that GCM encrypts with.
cdef int mask(nc_ctx *c, const uint8_t *nonce, uint8_t *out) noexcept nogil:
    cdef uint8_t block[16]
    cdef size_t n = 0
    memcpy(block, nonce, crypto.NC_IV_BYTES)
    block[12] = block[13] = block[14] = 0
    block[15] = 2
    if (<nc_direct_ctx *>c).f.one_shot(c.h, out, &n, 16, block, 16) != 1 or n != 16:
        (<const nc_direct_lib *>c.t.cipher).err_clear()
        return defs.NC_ECRYPTO
    return defs.NC_OK
