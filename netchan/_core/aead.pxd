# aead: one record sealed or opened in place; nonce construction; counters. Layer: _core, rung d.
# Thread rule: context, buffer and counters belong to the holder of the engine's baton.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core cimport crypto
from netchan._core.crypto cimport nc_ctx

cdef enum:
    AEAD_NONCE_BYTES = 12

cdef uint64_t AEAD_NUMBER_MAX       # 2^62 - 1, the largest datagram or record number

# Counters of one engine or session; they only grow.
cdef struct nc_aead_stats:
    uint64_t sealed                 # records
    uint64_t sealed_bytes           # plaintext bytes
    uint64_t opened
    uint64_t opened_bytes
    uint64_t failed                 # tags that did not hold
    uint64_t errors                 # calls that the library or a limit refused

# nonce = iv xor (path_id u32 big-endian || number u64 big-endian), docs/spec/keys.md §4.
cdef inline void nonce_make(uint8_t *out, const uint8_t *iv, uint32_t path_id, uint64_t number) noexcept nogil:
    cdef int i
    for i in range(4):
        out[i] = iv[i] ^ <uint8_t>(path_id >> (24 - 8 * i))
    for i in range(8):
        out[4 + i] = iv[4 + i] ^ <uint8_t>(number >> (56 - 8 * i))

# Seals buf[0..len) in place and writes the tag behind it. iv: 12 bytes; buf: borrowed, room for len + 16 bytes.
# Returns len + 16, or NC_EINVAL (len or aad_len over 65 535), NC_EEXHAUSTED (number over AEAD_NUMBER_MAX),
# NC_ESTATE (context not keyed for sealing), NC_ECRYPTO (library failed: buf is unusable).
cdef int aead_seal(nc_ctx *c, const uint8_t *iv, uint32_t path_id, uint64_t number, const uint8_t *aad, size_t aad_len,
                   uint8_t *buf, size_t n, nc_aead_stats *st) noexcept nogil

# As aead_seal for one message of two segments: head (may equal out), then body (pinned until return, not written),
# joined in out, which has room for head_len + body_len + 16 bytes. Returns that sum.
cdef int aead_seal2(nc_ctx *c, const uint8_t *iv, uint32_t path_id, uint64_t number, const uint8_t *aad, size_t aad_len,
                    const uint8_t *head, size_t head_len, const uint8_t *body, size_t body_len,
                    uint8_t *out, nc_aead_stats *st) noexcept nogil

# Opens buf[0..n) (n counts the tag of 16) in place. 1 = yes, buf[0..n-16) is the plaintext; 0 = no, and the
# n - 16 bytes before the tag are zero. A failure changes no other state: numbers and windows move only after a 1.
cdef int aead_open(nc_ctx *c, const uint8_t *iv, uint32_t path_id, uint64_t number, const uint8_t *aad, size_t aad_len,
                   uint8_t *buf_untrusted, size_t n, nc_aead_stats *st) noexcept nogil
