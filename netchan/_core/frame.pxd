# frame: parse and write the frames inside an opened record. Layer: _core, rung d. docs/spec/wire.md §5-§7, §9.
#
# 1. frame_next reads one frame from the cursor into nc_frame; pointers in it are borrowed from the record's buffer
#    until that buffer is reused. It checks everything that can be checked without knowing the session.
# 2. frame_put_* write one frame or nothing (NC_ESPACE).
# Threads: none; pure functions.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from netchan._core.cursor cimport nc_rd, nc_wr
from netchan._core.ranges cimport nc_ranges

cdef struct nc_frame:
    uint64_t type           # FRAME_*; DATA and trunk DATA without their flag bits; extensions as they came
    uint64_t stream         # stream id (DATA, SKIP, PARITY: that of the record unless trunk)
    uint64_t a              # first field after the id: offset, path, received, number, count, code …
    uint64_t b              # next fields in wire order
    uint64_t c
    uint64_t d
    uint8_t flags           # flag byte or flag bits of the frame
    uint8_t eliciting       # 1: an acknowledgement is due for a record with this frame
    uint32_t n              # ranges of ACK and POS; entries of lists
    const uint8_t* data     # borrowed: payload, reason, or encoded ranges
    size_t len              # bytes at data

# Reads the next frame of a record with this tag. NC_OK; NC_EAGAIN: the record is at its end; NC_ETRUNC and NC_EFRAME:
# malformed (close PROTOCOL); NC_EUNKNOWN: unknown odd extension (close UNSUPPORTED).
cdef int frame_next(nc_rd* r, uint64_t tag, nc_frame* f) noexcept nogil

# Next (gap, len) pair of f.data, which the caller walks with a cursor: NC_OK or NC_EAGAIN at the end.
cdef int frame_next_range(nc_rd* r, uint64_t* gap, uint64_t* length) noexcept nogil

# The three counts of congestion marks of an ACK that has them: 1, else 0.
cdef int frame_ack_ecn(const nc_frame* f, uint64_t* counts) noexcept nogil

cdef int frame_put_ack(nc_wr* w, uint64_t path, uint64_t largest, uint64_t delay_us, uint64_t first) noexcept nogil
# The same with ranges of numbers, the newest `most` of them as far as there is room; the set is not empty. counts:
# three of congestion marks, or NULL.
cdef int frame_put_ack_ranges(nc_wr* w, uint64_t path, const nc_ranges* got, uint64_t delay_us, uint32_t most,
                              const uint64_t* counts) noexcept nogil
cdef int frame_put_order(nc_wr* w, uint64_t number) noexcept nogil
cdef int frame_put_path_close(nc_wr* w, uint64_t path, uint64_t code) noexcept nogil
cdef int frame_put_path_status(nc_wr* w, uint64_t path, uint64_t seq, int standby) noexcept nogil
# The cid of the path by which we want to be called instead of its first one, with its token of 16 bytes.
cdef int frame_put_new_cid(nc_wr* w, uint64_t path, const uint8_t* cid8, const uint8_t* token16) noexcept nogil
cdef int frame_put_path_probe(nc_wr* w, int response, const uint8_t* token8) noexcept nogil     # challenge or response
cdef int frame_put_pos(nc_wr* w, uint64_t stream, uint64_t received, uint64_t taken, uint64_t max_msgs,
                       uint64_t max_bytes) noexcept nogil
cdef int frame_put_ask(nc_wr* w, uint64_t stream, uint64_t received, uint64_t taken) noexcept nogil
cdef int frame_put_abort(nc_wr* w, uint64_t stream, uint8_t flags, uint64_t code, uint64_t final,
                         const uint8_t* reason, size_t reason_len) noexcept nogil
cdef int frame_put_want(nc_wr* w, uint64_t stream, uint64_t version, uint64_t parked) noexcept nogil
cdef int frame_put_withdraw(nc_wr* w, uint64_t stream, uint64_t number) noexcept nogil
cdef int frame_put_withdrawn(nc_wr* w, uint64_t stream, uint64_t number, uint8_t outcome) noexcept nogil
cdef int frame_put_stop(nc_wr* w, uint64_t stream, uint64_t code, uint64_t taken) noexcept nogil
cdef int frame_put_skip(nc_wr* w, uint64_t first, uint64_t n, uint8_t reason, uint64_t offset,
                        uint64_t bytes) noexcept nogil
# Symbol j of m over the n bytes from start on, in symbols of `size` bytes; len_ 0: only that there will be such a
# group.
cdef int frame_put_parity(nc_wr* w, uint64_t start, uint64_t size, uint64_t n, int m, int j, const uint8_t* p,
                          size_t len_) noexcept nogil
cdef int frame_put_max_streams(nc_wr* w, uint64_t count) noexcept nogil
cdef int frame_put_ping(nc_wr* w) noexcept nogil
cdef int frame_put_rekey(nc_wr* w, uint8_t kind, uint64_t epoch, uint64_t ratchet, const uint8_t* mix32) noexcept nogil
cdef int frame_put_ratchet(nc_wr* w, uint64_t ratchet, uint8_t step, const uint8_t* p, size_t n) noexcept nogil
cdef int frame_put_ticket(nc_wr* w, uint64_t life_s, const uint8_t* p, size_t n) noexcept nogil
cdef int frame_put_session_close(nc_wr* w, uint16_t code, const uint8_t* reason, size_t n) noexcept nogil
cdef int frame_put_extension(nc_wr* w, uint64_t type, const uint8_t* p, size_t n) noexcept nogil
# Head of a DATA frame; the bytes follow and the caller puts them. len < 0: no LEN field (to the end of the record).
# The head of DATA of one stream in a record of the trunk; the bytes follow.
cdef int frame_put_trunk_head(nc_wr* w, uint64_t stream, uint64_t offset, int fin, int has_number, uint64_t number,
                              uint64_t length) noexcept nogil
cdef int frame_put_data_head(nc_wr* w, uint64_t offset, int fin, int has_number, uint64_t number,
                             long long length) noexcept nogil

# Head of a message (wire.md §7). Returns bytes used (> 0), NC_EAGAIN when more bytes are needed.
cdef int message_head(const uint8_t* p, size_t n, uint64_t* body_len, int* has_ext) noexcept nogil
# 1: UTF-8 of 1-255 bytes without control characters (wire.md §6.3).
cdef int name_is_valid(const uint8_t* p, size_t n) noexcept nogil


# Bytes before the body of a message that lies whole in p[0:n] and says no more than its length, which has one or two
# bytes; 0: another one.
cdef inline size_t plain_head(const uint8_t* p, size_t n, uint64_t* body) noexcept nogil:
    cdef size_t used = 1
    cdef uint64_t v
    if n < 2:
        return 0
    v = p[0]
    if v >= 0x40:
        if v >= 0x80:
            return 0
        v = ((v << 8) | p[1]) & 0x3FFF
        used = 2
    if v & 1 or (v >> 1) > n - used:
        return 0
    body[0] = v >> 1
    return used
