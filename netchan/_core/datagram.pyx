"""Datagrams: header, its protection, seal, open (docs/spec/wire.md §4).

Layer: _core, rung g. Glue between the frames of the session and the keys; owns nothing. Only the holder of the baton
calls it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_mask
from netchan._core.cursor cimport load_u16, nc_rd, rd_init, rd_left, rd_varint, store_u16, varint_write
from netchan._core.keys cimport (
    KEYS_HP_RECV, KEYS_HP_SEND, keys_epoch_byte, keys_open, keys_seal, keys_seal2, keys_secret,
)

cdef enum:
    MASK_SIZE = 16                  # low bits of `flags`, and 15 bytes behind the cid
    MASK_NONCE = 12                 # last bytes of the datagram
    MASK_AT = 1 + CID_SIZE
    MASK_BITS = 0x3F
    FIXED = 0x40                    # top bits of `flags`


# The first block of the cipher's keystream under the nonce at the end of the datagram: AES-256(hp, nonce, 2) or
# ChaCha20(hp, 1, nonce).
cdef inline int make_mask(nc_sealer* k, int which, const uint8_t* end, uint8_t* mask) noexcept nogil:
    return cache_mask(k.cache, k.keys.owner.serial, 0 if which == KEYS_HP_SEND else 1, keys_secret(k.keys, which),
                      end - MASK_NONCE, mask)


cdef inline void apply_mask(uint8_t* buf, const uint8_t* mask) noexcept nogil:
    cdef int i
    buf[0] ^= mask[0] & MASK_BITS
    for i in range(MASK_SIZE - 1):
        buf[MASK_AT + i] ^= mask[1 + i]


cdef inline size_t make_aad(uint8_t* aad, const uint8_t* buf, size_t head, const uint8_t* binding) noexcept nogil:
    memcpy(aad, buf, head)
    memcpy(aad + head, binding, defs.BINDING_SIZE)
    return head + defs.BINDING_SIZE


cdef int dgram_number_size(uint64_t unacked) noexcept nogil:
    return 2 if unacked < (1 << 14) else 4


cdef int dgram_seal(nc_sealer* k, int path, const uint8_t* cid, uint64_t number, int number_size, uint64_t tag,
                    const uint8_t* binding, uint8_t* buf, size_t body_len, const uint8_t* tail, size_t tail_len,
                    int64_t now_ns) noexcept nogil:
    cdef uint8_t[DATAGRAM_HEAD_MOST + 32] aad
    cdef uint8_t[MASK_SIZE] mask
    cdef size_t head = dgram_head_size(number_size, tag)
    cdef size_t aad_len
    cdef uint8_t* at = buf + MASK_AT
    cdef int i, rc
    if body_len + tail_len > <size_t>defs.RECORD_BODY_MAX or body_len + tail_len < <size_t>DATAGRAM_FRAMES:
        return defs.NC_EINVAL
    buf[0] = <uint8_t>(FIXED | (number_size - 1))
    memcpy(buf + 1, cid, CID_SIZE)
    for i in range(number_size):
        at[i] = <uint8_t>(number >> (8 * (number_size - 1 - i)))
    at += number_size
    at[0] = keys_epoch_byte(k.keys)
    at[1] = 1
    at += 2
    at += varint_write(at, tag)
    store_u16(at, <int>(body_len + tail_len + defs.AEAD_TAG_SIZE))
    aad_len = make_aad(aad, buf, head, binding)
    if tail is NULL:
        rc = keys_seal(k.keys, k.cache, path, number, tag, aad, aad_len, buf + head, body_len, now_ns)
    else:
        rc = keys_seal2(k.keys, k.cache, path, number, tag, aad, aad_len, buf + head, body_len, tail, tail_len,
                        buf + head, now_ns)
    if rc < 0:
        return rc
    if make_mask(k, KEYS_HP_SEND, buf + head + rc, mask) < 0:
        return defs.NC_ECRYPTO
    apply_mask(buf, mask)
    return <int>head + rc


cdef int dgram_mask(nc_sealer* k, int which, uint8_t* buf, size_t n) noexcept nogil:
    cdef uint8_t[MASK_SIZE] mask
    if make_mask(k, which, buf + n, mask) < 0:
        return defs.NC_ECRYPTO
    apply_mask(buf, mask)
    return defs.NC_OK


# The number whose low bytes these are: of those the one next to the expected (RFC 9000 appendix A.3).
cdef inline uint64_t whole_number(uint64_t expected, uint64_t low, int size) noexcept nogil:
    cdef uint64_t span = <uint64_t>1 << (8 * size)
    cdef uint64_t number = (expected & ~(span - 1)) | low
    if number + span // 2 <= expected and number + span < (<uint64_t>1 << 62):
        return number + span
    if number > expected + span // 2 and number >= span:
        return number - span
    return number


cdef int dgram_unmask(nc_sealer* k, uint8_t* buf_untrusted, size_t n, uint64_t expected,
                      nc_dgram_head* h) noexcept nogil:
    cdef uint8_t[MASK_SIZE] mask
    cdef uint64_t low = 0
    cdef size_t total = 0
    cdef uint32_t i, j
    cdef nc_rd r
    cdef int size, at
    if n < <size_t>DATAGRAM_LEAST or n > <size_t>65535 or (buf_untrusted[0] & 0xC0) != FIXED:
        return defs.NC_EFRAME
    if make_mask(k, KEYS_HP_RECV, buf_untrusted + n, mask) < 0:
        return defs.NC_ECRYPTO
    apply_mask(buf_untrusted, mask)
    if buf_untrusted[0] & 0x3C:
        return defs.NC_EFRAME                   # no key has vouched for it yet: it is dropped, not refused
    size = (buf_untrusted[0] & 3) + 1
    for at in range(size):
        low = low << 8 | buf_untrusted[MASK_AT + at]
    h.number = whole_number(expected, low, size)
    h.epoch = buf_untrusted[MASK_AT + size]
    h.n = buf_untrusted[MASK_AT + size + 1]
    if h.n == 0 or h.n > <uint32_t>DATAGRAM_RECORDS:
        return defs.NC_EFRAME
    rd_init(&r, buf_untrusted + MASK_AT + size + 2, n - MASK_AT - <size_t>size - 2)
    for i in range(h.n):
        if rd_varint(&r, &h.tags[i]) < 0 or rd_left(&r) < 2:
            return defs.NC_EFRAME
        h.lens[i] = load_u16(r.p)
        r.p += 2
        if h.lens[i] < <uint32_t>defs.AEAD_TAG_SIZE or 1 < h.tags[i] < <uint64_t>defs.TAG_FIRST_STREAM:
            return defs.NC_EFRAME
        for j in range(i):
            if h.tags[j] == h.tags[i]:
                return defs.NC_EFRAME           # two records under one key and number
        total += h.lens[i]
    h.size = <size_t>(r.p - buf_untrusted)
    return defs.NC_OK if rd_left(&r) == total else defs.NC_EFRAME


cdef int dgram_open(nc_sealer* k, int path, const nc_dgram_head* h, const uint8_t* binding, uint8_t* buf_untrusted,
                    int64_t now_ns, int64_t old_until_ns) noexcept nogil:
    cdef uint8_t[DATAGRAM_HEAD_MOST + 32] aad
    cdef size_t aad_len
    cdef uint8_t* at = buf_untrusted + h.size
    cdef uint32_t i
    cdef int rc
    if h.size > <size_t>DATAGRAM_HEAD_MOST:
        return defs.NC_EFRAME
    aad_len = make_aad(aad, buf_untrusted, h.size, binding)
    for i in range(h.n):
        rc = keys_open(k.keys, k.cache, path, h.number, h.epoch, h.tags[i], aad, aad_len, at, h.lens[i], now_ns,
                       old_until_ns)
        if rc == defs.NC_EEXHAUSTED:
            return defs.NC_ELIMIT
        if rc != 1:
            return defs.NC_ECRYPTO
        at += h.lens[i]
    return defs.NC_OK
