# datagram: frames <-> protected datagrams. Layer: _core, rung g. docs/spec/wire.md §4, docs/spec/keys.md §1, §4.
#
# Sending puts one record into a datagram; receiving takes up to DATAGRAM_RECORDS. Threads: baton. Buffers are borrowed.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.record cimport nc_sealer

cdef enum:
    CID_SIZE = 8
    TOKEN_SIZE = 16                 # of a reset, at its end
    DATAGRAM_LEAST = 40             # shorter ones are none: the sample must not lie in what it masks
    DATAGRAM_MTU = 1200             # bytes that every path carries (RFC 9000 §14)
    DATAGRAM_MOST = 1452            # and that this version sends at most
    DATAGRAM_RECORDS = 16
    DATAGRAM_HEAD_MOST = 176        # flags, cid, number, epoch, n and 16 pairs of tag and length
    DATAGRAM_FRAMES = 8             # bytes of a record's frames at least: so none is shorter than DATAGRAM_LEAST
    DATAGRAM_PAD = 12               # and of what is sent: a reset, which is shorter, can answer each

ctypedef struct nc_dgram_head:      # of a datagram whose mask was taken off
    uint64_t number
    uint8_t epoch
    uint32_t n
    uint64_t tags[DATAGRAM_RECORDS]
    uint32_t lens[DATAGRAM_RECORDS]
    size_t size

# Bytes in which a number is sent when `unacked` numbers up to it were not acknowledged: 2 or 4 (RFC 9000 §17.1).
cdef int dgram_number_size(uint64_t unacked) noexcept nogil
# Size of the header of a datagram with one record: where its frames go.
cdef inline size_t dgram_head_size(int number_size, uint64_t tag) noexcept nogil:
    return 13 + <size_t>number_size + (1 if tag < 0x40 else 2 if tag < 0x4000 else 4 if tag < 0x40000000 else 8)


# Finishes a datagram at buf: head_size bytes of room, then body_len bytes of frames (DATAGRAM_FRAMES at the least,
# with the tail), then tail_len bytes from `tail`, and room for the AEAD tag. Returns its size, or as record_seal.
cdef int dgram_seal(nc_sealer* k, int path, const uint8_t* cid, uint64_t number, int number_size, uint64_t tag,
                    const uint8_t* binding, uint8_t* buf, size_t body_len, const uint8_t* tail, size_t tail_len,
                    int64_t now_ns) noexcept nogil
# Puts the mask on, or takes it off; which: KEYS_HP_SEND or KEYS_HP_RECV; n at least DATAGRAM_LEAST. NC_OK, NC_ECRYPTO.
cdef int dgram_mask(nc_sealer* k, int which, uint8_t* buf, size_t n) noexcept nogil
# Takes the mask off and reads the header; `expected` is one above the largest number received. NC_OK; NC_EFRAME: no
# datagram; NC_ECRYPTO.
cdef int dgram_unmask(nc_sealer* k, uint8_t* buf_untrusted, size_t n, uint64_t expected,
                      nc_dgram_head* h) noexcept nogil
# Opens all its records in place. NC_OK: each tag held; NC_ECRYPTO; NC_ELIMIT: too many forgeries. old_until_ns: how
# long records of the last epoch are accepted here, should a new one begin.
cdef int dgram_open(nc_sealer* k, int path, const nc_dgram_head* h, const uint8_t* binding, uint8_t* buf_untrusted,
                    int64_t now_ns, int64_t old_until_ns) noexcept nogil
