"""Records of a stream path: header, seal, open (docs/spec/wire.md §3).

Layer: _core, rung f. Glue between the frames of the session and the keys; owns nothing. Only the holder of the baton
calls it.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.cursor cimport load_u16, nc_rd, rd_init, rd_varint, store_u16, varint_len, varint_write
from netchan._core.keys cimport keys_epoch_byte, keys_open, keys_seal, keys_seal2


cdef size_t record_head_size(uint64_t tag) noexcept nogil:
    return 4 + varint_len(tag)


cdef int record_size(const uint8_t* rec) noexcept nogil:
    cdef int n = load_u16(rec)
    # epoch, flags, tag, AEAD tag: nothing shorter is a record.
    return n + defs.RECORD_LEN_SIZE if n >= 3 + defs.AEAD_TAG_SIZE else defs.NC_EFRAME


# The header and, for the first record of a path, the binding hash: what is authenticated beside the frames.
cdef inline size_t make_aad(uint8_t* aad, const uint8_t* rec, size_t head, const uint8_t* binding) noexcept nogil:
    memcpy(aad, rec, head)
    if binding is NULL:
        return head
    memcpy(aad + head, binding, defs.BINDING_SIZE)
    return head + defs.BINDING_SIZE


cdef int record_seal(nc_sealer* k, int path, uint64_t number, uint64_t tag, uint8_t* rec, size_t body_len,
                     const uint8_t* tail, size_t tail_len, const uint8_t* binding, int64_t now_ns) noexcept nogil:
    cdef uint8_t[64] aad
    cdef size_t head = record_head_size(tag)
    cdef size_t aad_len
    cdef int rc
    if body_len + tail_len > <size_t>defs.RECORD_BODY_MAX:
        return defs.NC_EINVAL
    store_u16(rec, <int>(head - defs.RECORD_LEN_SIZE + body_len + tail_len + defs.AEAD_TAG_SIZE))
    rec[2] = keys_epoch_byte(k.keys)
    rec[3] = 0
    varint_write(rec + 4, tag)
    aad_len = make_aad(aad, rec, head, binding)
    if tail is NULL:
        rc = keys_seal(k.keys, k.cache, path, number, tag, aad, aad_len, rec + head, body_len, now_ns)
    else:
        rc = keys_seal2(k.keys, k.cache, path, number, tag, aad, aad_len, rec + head, body_len, tail, tail_len,
                        rec + head, now_ns)
    return rc if rc < 0 else <int>head + rc


cdef int record_open(nc_sealer* k, int path, uint64_t number, uint8_t* rec_untrusted, size_t size,
                     const uint8_t* binding, int64_t now_ns, uint64_t* tag, uint8_t** body,
                     size_t* body_len) noexcept nogil:
    cdef uint8_t[64] aad
    cdef size_t head, aad_len
    cdef nc_rd r
    cdef int rc
    if rec_untrusted[3] != 0:
        return defs.NC_EFRAME
    rd_init(&r, rec_untrusted + 4, size - 4)
    if rd_varint(&r, tag) < 0:
        return defs.NC_EFRAME
    head = <size_t>(r.p - rec_untrusted)
    if size < head + defs.AEAD_TAG_SIZE or (tag[0] > 1 and tag[0] < <uint64_t>defs.TAG_FIRST_STREAM):
        return defs.NC_EFRAME
    aad_len = make_aad(aad, rec_untrusted, head, binding)
    rc = keys_open(k.keys, k.cache, path, number, rec_untrusted[2], tag[0], aad, aad_len, rec_untrusted + head,
                   size - head, now_ns, 0)
    if rc == defs.NC_EEXHAUSTED:
        return defs.NC_ELIMIT
    if rc != 1:
        return defs.NC_ECRYPTO
    body[0] = rec_untrusted + head
    body_len[0] = size - head - defs.AEAD_TAG_SIZE
    return defs.NC_OK
