"""Seals and opens one record in place under a context that is keyed already.

Layer: _core, rung d. It chooses no key, keeps no number and knows no frame: keys (rung e) does the first two.
One baton holder at a time; nothing is allocated. Spec: docs/spec/keys.md §4, RFC 5116 §2.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core cimport crypto, defs
from netchan._core.crypto cimport nc_ctx

cdef uint64_t AEAD_NUMBER_MAX = (<uint64_t>1 << 62) - 1


cdef int aead_seal(nc_ctx *c, const uint8_t *iv, uint32_t path_id, uint64_t number, const uint8_t *aad, size_t aad_len,
                   uint8_t *buf, size_t n, nc_aead_stats *st) noexcept nogil:
    return aead_seal2(c, iv, path_id, number, aad, aad_len, buf, n, NULL, 0, buf, st)


cdef int aead_seal2(nc_ctx *c, const uint8_t *iv, uint32_t path_id, uint64_t number, const uint8_t *aad, size_t aad_len,
                    const uint8_t *head, size_t head_len, const uint8_t *body, size_t body_len,
                    uint8_t *out, nc_aead_stats *st) noexcept nogil:
    cdef uint8_t nonce[AEAD_NONCE_BYTES]
    cdef int rc
    cdef size_t n
    if (aad_len > crypto.NC_AEAD_MAX or head_len > crypto.NC_AEAD_MAX
            or body_len > <size_t>crypto.NC_AEAD_MAX - head_len):
        st.errors += 1
        return defs.NC_EINVAL
    if number > AEAD_NUMBER_MAX:
        st.errors += 1
        return defs.NC_EEXHAUSTED
    n = head_len + body_len
    nonce_make(nonce, iv, path_id, number)
    if body_len == 0:
        rc = c.t.seal(c, nonce, aad, aad_len, head, head_len, out, out + n)
    else:
        rc = c.t.seal2(c, nonce, aad, aad_len, head, head_len, body, body_len, out, out + n)
    if rc < 0:
        st.errors += 1
        return rc
    st.sealed += 1
    st.sealed_bytes += n
    return <int>(n + crypto.NC_TAG_BYTES)


cdef int aead_open(nc_ctx *c, const uint8_t *iv, uint32_t path_id, uint64_t number, const uint8_t *aad, size_t aad_len,
                   uint8_t *buf_untrusted, size_t n, nc_aead_stats *st) noexcept nogil:
    cdef uint8_t nonce[AEAD_NONCE_BYTES]
    if (n < crypto.NC_TAG_BYTES or n - crypto.NC_TAG_BYTES > crypto.NC_AEAD_MAX or aad_len > crypto.NC_AEAD_MAX
            or number > AEAD_NUMBER_MAX):
        st.errors += 1
        return 0
    n -= crypto.NC_TAG_BYTES
    nonce_make(nonce, iv, path_id, number)
    if c.t.open(c, nonce, aad, aad_len, buf_untrusted, n, buf_untrusted, buf_untrusted + n) != 1:
        st.failed += 1
        return 0
    st.opened += 1
    st.opened_bytes += n
    return 1
