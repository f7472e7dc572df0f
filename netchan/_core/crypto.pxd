# crypto: types of the function table that an AEAD provider fills. Layer: _core, rung b; types and sizes only,
# no header and no link of any crypto library. Spec: docs/spec/keys.md.
#
# Thread rule: every `..._new` and `..._free` runs on a Python-side thread (a library's exit handlers must never meet
# a creation or a release in a C thread); all other functions may run anywhere, but one context or hash object is used
# by one thread at a time. No function of the table allocates except `..._new`.
from libc.stdint cimport uint8_t

# forget_registers(): zeroes the vector registers that a call may leave dirty. A key that stays in one is written to the
# stack by the next save of registers (a lazily bound call of any library, a signal), and nobody wipes that. The upper
# sixteen of AVX-512 are those that glibc's memcpy works with, and nothing else overwrites them for a long time.
cdef extern from * nogil:
    """
    #ifndef NC_FORGET_REGISTERS
    #define NC_FORGET_REGISTERS
    #if defined(__has_attribute)
    #if __has_attribute(zero_call_used_regs)
    #define NC_ZERO_REGISTERS __attribute__((noinline, unused, zero_call_used_regs("all")))
    #endif
    #endif
    #ifndef NC_ZERO_REGISTERS
    #define NC_ZERO_REGISTERS __attribute__((noinline, unused))   /* GCC before 11, clang before 15 */
    #endif
    #if defined(__x86_64__)
    static __attribute__((noinline, unused, target("avx512f"))) void nc_zero_zmm(void) {
        #define NC_ONE(i) __asm__ volatile("vpxorq %%zmm" #i ", %%zmm" #i ", %%zmm" #i ::: "xmm" #i);
        NC_ONE(16) NC_ONE(17) NC_ONE(18) NC_ONE(19) NC_ONE(20) NC_ONE(21) NC_ONE(22) NC_ONE(23)
        NC_ONE(24) NC_ONE(25) NC_ONE(26) NC_ONE(27) NC_ONE(28) NC_ONE(29) NC_ONE(30) NC_ONE(31)
        #undef NC_ONE
    }
    static NC_ZERO_REGISTERS void forget_registers(void) {
        if (__builtin_cpu_supports("avx512f")) nc_zero_zmm();
        __asm__ volatile("");   /* no tail call: it would leave before the registers are zeroed */
    }
    #else
    static NC_ZERO_REGISTERS void forget_registers(void) { __asm__ volatile(""); }
    #endif
    #endif
    """
    void forget_registers() noexcept

cdef enum:
    NC_KEY_BYTES = 32               # both ciphers
    NC_IV_BYTES = 12
    NC_TAG_BYTES = 16
    NC_HASH_BYTES = 32              # SHA-256
    NC_HMAC_BLOCK = 64              # SHA-256 block; longer HMAC keys are refused, none of ours is
    NC_AEAD_MAX = 65535             # longest plaintext and longest associated data of one record, in bytes
    NC_HKDF_INFO_MAX = 512          # longest `info`: bounds a stack buffer
    NC_HKDF_OUT_MAX = 8160          # 255 blocks, RFC 5869 §2.3

cdef enum nc_cipher_id:
    NC_CIPHER_AES256GCM = 1
    NC_CIPHER_CHACHA20POLY1305 = 2

cdef enum nc_direction:
    NC_DIR_NONE = 0
    NC_DIR_SEAL = 1
    NC_DIR_OPEN = 2

cdef struct nc_crypto               # completed below

# One reusable cipher context: owned by whoever called ctx_new, keyed for one direction at a time.
cdef struct nc_ctx:
    const nc_crypto *t              # borrowed for the process's life
    void *h                         # the library's own context, owned
    int direction                   # nc_direction of the loaded key, NC_DIR_NONE before the first

# One reusable hash object for HMAC-SHA256 and HKDF.
cdef struct nc_hash:
    const nc_crypto *t              # borrowed for the process's life
    void *h                         # the library's own digest context, owned
    uint8_t pad[NC_HMAC_BLOCK]      # key xor opad between begin and end, wiped by end

ctypedef nc_ctx *(*nc_ctx_new_fn)(const nc_crypto *t) noexcept nogil
ctypedef void (*nc_ctx_free_fn)(nc_ctx *c) noexcept nogil
ctypedef int (*nc_ctx_key_fn)(nc_ctx *c, const uint8_t *key, int direction) noexcept nogil
ctypedef int (*nc_seal_fn)(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                           const uint8_t *src, size_t src_len, uint8_t *out, uint8_t *tag) noexcept nogil
ctypedef int (*nc_seal2_fn)(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                            const uint8_t *src1, size_t src1_len, const uint8_t *src2, size_t src2_len,
                            uint8_t *out, uint8_t *tag) noexcept nogil
ctypedef int (*nc_open_fn)(nc_ctx *c, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                           const uint8_t *src, size_t src_len, uint8_t *out, const uint8_t *tag) noexcept nogil
ctypedef nc_hash *(*nc_hash_new_fn)(const nc_crypto *t) noexcept nogil
ctypedef void (*nc_hash_free_fn)(nc_hash *h) noexcept nogil
ctypedef int (*nc_hmac_begin_fn)(nc_hash *h, const uint8_t *key, size_t key_len) noexcept nogil
ctypedef int (*nc_hmac_add_fn)(nc_hash *h, const uint8_t *p, size_t n) noexcept nogil
ctypedef int (*nc_hmac_end_fn)(nc_hash *h, uint8_t *out) noexcept nogil
ctypedef int (*nc_hkdf_extract_fn)(nc_hash *h, const uint8_t *salt, size_t salt_len,
                                   const uint8_t *ikm, size_t ikm_len, uint8_t *out) noexcept nogil
ctypedef int (*nc_hkdf_expand_fn)(nc_hash *h, const uint8_t *prk, const uint8_t *info, size_t info_len,
                                  uint8_t *out, size_t out_len) noexcept nogil
ctypedef int (*nc_mask_key_fn)(nc_ctx *c, const uint8_t *key) noexcept nogil
ctypedef int (*nc_mask_fn)(nc_ctx *c, const uint8_t *nonce, uint8_t *out) noexcept nogil
ctypedef void (*nc_cleanse_fn)(void *p, size_t n) noexcept nogil

# One table per (library, cipher), filled once at load, then read-only and never freed.
cdef struct nc_crypto:
    const void *lib                 # the library's function pointers, private to its provider file
    const void *cipher              # fetched cipher object, private to its provider file
    int cipher_id                   # nc_cipher_id

    nc_ctx_new_fn ctx_new           # Python side only. Owned result, NULL = out of memory
    nc_ctx_free_fn ctx_free         # Python side only. NULL is allowed; wipes the key
    nc_ctx_key_fn ctx_key           # key: borrowed 32 bytes. NC_OK or NC_ECRYPTO; the old key is gone either way
    # out may equal src, else they must not overlap; tag: 16 bytes. NC_OK, NC_ESTATE (not keyed for sealing),
    # NC_EINVAL (length), NC_ECRYPTO (the library failed).
    nc_seal_fn seal
    # One message of two segments, joined in out. src1 may equal out; src2 may equal out + src1_len, else no overlap.
    # Return codes as seal.
    nc_seal2_fn seal2
    # The first 16 bytes of keystream for a nonce, which seal gives for zero bytes, without what seal does besides. All
    # three or none (NULL). The context is of mask_new and for mask alone; ctx_free frees it. NC_OK or NC_ECRYPTO.
    nc_ctx_new_fn mask_new          # Python side only
    nc_mask_key_fn mask_key
    nc_mask_fn mask
    nc_open_fn open                 # out may equal src. 1 = the tag holds; 0 = no, and out is all zero bytes
    nc_hash_new_fn hash_new         # Python side only. Owned result, NULL = out of memory
    nc_hash_free_fn hash_free       # Python side only. NULL is allowed
    nc_hmac_begin_fn hmac_begin     # key_len <= NC_HMAC_BLOCK. NC_OK, NC_EINVAL, NC_ECRYPTO
    nc_hmac_add_fn hmac_add         # NC_OK or NC_ECRYPTO
    nc_hmac_end_fn hmac_end         # out: 32 bytes; wipes the state. NC_OK or NC_ECRYPTO
    nc_hkdf_extract_fn hkdf_extract  # RFC 5869 §2.2, out: 32 bytes. Codes as hmac_begin
    # RFC 5869 §2.3, prk: 32 bytes, out_len 1..NC_HKDF_OUT_MAX, info_len <= NC_HKDF_INFO_MAX. Codes as hmac_begin; on
    # failure out is all zero bytes.
    nc_hkdf_expand_fn hkdf_expand
    nc_cleanse_fn cleanse           # overwrites in a way that the compiler keeps
