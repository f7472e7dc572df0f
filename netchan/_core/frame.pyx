"""Frames inside an opened record: one reader, one writer per frame.

Layer: _core, rung d; pure functions over borrowed bytes, no state. Everything the layouts of docs/spec/wire.md §5, §6,
§7 and §9 allow is accepted, everything else is NC_EFRAME, NC_ETRUNC or (unknown odd extension) NC_EUNKNOWN.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from netchan._core cimport defs
from netchan._core.cursor cimport (
    nc_rd, nc_wr, rd_bytes, rd_init, rd_left, rd_u8, rd_varint, rd_vbytes, varint_len, wr_bytes, wr_left, wr_u8, wr_u16,
    wr_varint, wr_vbytes,
)

cdef enum:
    ACK_ECN = 1                     # flag of ACK: three counts of congestion marks follow
    ECN_COUNTS_MOST = 24            # bytes of them


cdef int rd_two(nc_rd* r, uint64_t* a, uint64_t* b) noexcept nogil:
    cdef int rc = rd_varint(r, a)
    return rc if rc < 0 else rd_varint(r, b)


cdef int rd_three(nc_rd* r, uint64_t* a, uint64_t* b, uint64_t* c) noexcept nogil:
    cdef int rc = rd_two(r, a, b)
    return rc if rc < 0 else rd_varint(r, c)


# A varint-counted byte string of at most limit bytes into f.data, f.len.
cdef int rd_blob(nc_rd* r, size_t limit, nc_frame* f) noexcept nogil:
    return rd_vbytes(r, limit, &f.data, &f.len)


# n (gap, len) pairs stay encoded in f.data; only their count and bounds are checked here.
cdef int rd_pairs(nc_rd* r, uint32_t limit, nc_frame* f) noexcept nogil:
    cdef uint64_t n, gap, length
    cdef uint32_t _i
    cdef int rc = rd_varint(r, &n)
    if rc < 0:
        return rc
    if n > limit:
        return defs.NC_EFRAME
    f.n = <uint32_t>n
    f.data = r.p
    for _i in range(f.n):
        rc = rd_two(r, &gap, &length)
        if rc < 0:
            return rc
    f.len = <size_t>(r.p - f.data)
    return defs.NC_OK


cdef int parse_ack(nc_rd* r, nc_frame* f) noexcept nogil:
    cdef uint64_t x
    cdef const uint8_t* skipped
    cdef int _i
    cdef int rc = rd_varint(r, &f.a)            # path
    if rc >= 0:
        rc = rd_u8(r, &f.flags)
    if rc >= 0:
        rc = rd_two(r, &f.b, &f.c)              # largest, delay
    if rc < 0:
        return rc
    if (f.flags & 0xFC) != 0 or (f.a >> 32) != 0:
        return defs.NC_EFRAME
    # `n` stands before `first` on the wire: read n, then first, then the pairs.
    cdef uint64_t n, gap, length
    rc = rd_two(r, &n, &f.d)
    if rc < 0:
        return rc
    if n > <uint64_t>defs.ACK_RANGES_MAX or f.d > f.b:
        return defs.NC_EFRAME
    f.n = <uint32_t>n
    f.data = r.p
    for _i in range(<int>n):
        rc = rd_two(r, &gap, &length)
        if rc < 0:
            return rc
    f.len = <size_t>(r.p - f.data)
    if f.flags & ACK_ECN:
        for _i in range(3):
            rc = rd_varint(r, &x)
            if rc < 0:
                return rc
    if f.flags & 2:
        return rd_bytes(r, 4, &skipped)
    return defs.NC_OK


cdef int parse_pos(nc_rd* r, nc_frame* f) noexcept nogil:
    cdef int rc = rd_three(r, &f.stream, &f.a, &f.b)        # stream, received, taken
    if rc >= 0:
        rc = rd_two(r, &f.c, &f.d)                          # max_msgs, max_bytes
    return rc if rc < 0 else rd_pairs(r, defs.POS_RANGES_MAX, f)


cdef int parse_abort(nc_rd* r, nc_frame* f) noexcept nogil:
    cdef int rc = rd_varint(r, &f.stream)
    if rc >= 0:
        rc = rd_u8(r, &f.flags)
    if rc >= 0:
        rc = rd_two(r, &f.a, &f.b)              # code, final offset
    if rc >= 0:
        rc = rd_blob(r, defs.REASON_MAX, f)
    if rc >= 0 and (f.flags & 0xFC) != 0:
        return defs.NC_EFRAME
    return rc


# Fields of the frames that are laid out in the table but acted on by later path management.
cdef int parse_control_rest(nc_rd* r, nc_frame* f) noexcept nogil:
    cdef int rc, _i
    cdef int t = <int>f.type
    if t == defs.FRAME_PATH_CHALLENGE or t == defs.FRAME_PATH_RESPONSE:
        f.len = 8
        return rd_bytes(r, 8, &f.data)
    if t == defs.FRAME_PATH_STATUS:
        rc = rd_two(r, &f.a, &f.b)
        if rc >= 0:
            rc = rd_u8(r, &f.flags)
        if rc >= 0:
            rc = rd_varint(r, &f.c)
        return defs.NC_EFRAME if rc >= 0 and f.flags > 1 else rc
    if t == defs.FRAME_PATH_CLOSE or t == defs.FRAME_RETIRE_CID:
        return rd_two(r, &f.a, &f.b)
    if t == defs.FRAME_NEW_CID:
        rc = rd_three(r, &f.a, &f.b, &f.c)
        f.len = 24
        return rc if rc < 0 else rd_bytes(r, 24, &f.data)
    if t == defs.FRAME_ADDRESSES:
        rc = rd_two(r, &f.a, &f.b)
        if rc < 0:
            return rc
        if f.b > defs.ADDRESSES_MAX:
            return defs.NC_EFRAME
        for _i in range(<int>f.b):
            rc = rd_blob(r, 255, f)
            if rc < 0:
                return rc
        return defs.NC_OK
    if t == defs.FRAME_OBSERVED_ADDRESS:
        rc = rd_two(r, &f.a, &f.b)
        return rc if rc < 0 else rd_blob(r, 255, f)
    if t == defs.FRAME_REKEY:
        rc = rd_u8(r, &f.flags)
        if rc >= 0:
            rc = rd_varint(r, &f.a)
        if rc < 0:
            return rc
        if f.flags == 1:
            f.len = 32
            return rd_bytes(r, 32, &f.data)
        return rd_varint(r, &f.b) if f.flags == 2 else defs.NC_EFRAME
    if t == defs.FRAME_RATCHET:
        rc = rd_varint(r, &f.a)
        if rc >= 0:
            rc = rd_u8(r, &f.flags)
        if rc >= 0:
            rc = rd_blob(r, defs.RATCHET_MAX, f)
        return defs.NC_EFRAME if rc >= 0 and f.flags > 2 else rc
    if t == defs.FRAME_LOCATORS:
        rc = rd_varint(r, &f.a)
        if rc < 0:
            return rc
        if f.a > defs.LOCATORS_MAX:
            return defs.NC_EFRAME
        f.len = 16 * <size_t>f.a
        return rd_bytes(r, f.len, &f.data)
    if t == defs.FRAME_TICKET:
        rc = rd_varint(r, &f.a)
        return rc if rc < 0 else rd_blob(r, defs.TICKET_MAX, f)
    if t == defs.FRAME_DRAIN:
        return rd_varint(r, &f.a)
    return defs.NC_EFRAME


cdef int parse_control(nc_rd* r, nc_frame* f) noexcept nogil:
    cdef int t = <int>f.type
    cdef const uint8_t* code
    cdef int rc
    if t == defs.FRAME_PING:
        return defs.NC_OK
    if t == defs.FRAME_STOP:
        return rd_three(r, &f.stream, &f.a, &f.b)
    if t == defs.FRAME_ABORT:
        return parse_abort(r, f)
    if t == defs.FRAME_MAX_STREAMS:
        return rd_varint(r, &f.a)
    if t == defs.FRAME_WANT or t == defs.FRAME_ASK:
        return rd_three(r, &f.stream, &f.a, &f.b)
    if t == defs.FRAME_WITHDRAW:
        return rd_two(r, &f.stream, &f.a)
    if t == defs.FRAME_WITHDRAWN:
        rc = rd_two(r, &f.stream, &f.a)
        if rc >= 0:
            rc = rd_u8(r, &f.flags)
        return defs.NC_EFRAME if rc >= 0 and f.flags > 1 else rc
    if t == defs.FRAME_SESSION_CLOSE:
        f.eliciting = 0
        rc = rd_bytes(r, 2, &code)
        if rc < 0:
            return rc
        f.a = (<uint64_t>code[0] << 8) | code[1]
        return rd_blob(r, defs.REASON_MAX, f)
    return parse_control_rest(r, f)


# DATA and trunk DATA: the flag bits are in the type.
cdef int parse_data(nc_rd* r, nc_frame* f, int bits, int trunk) noexcept nogil:
    cdef int rc = defs.NC_OK
    cdef uint64_t length
    f.flags = <uint8_t>bits
    if trunk:
        rc = rd_varint(r, &f.stream)
        if rc < 0:
            return rc
        if f.stream < defs.TAG_FIRST_STREAM:
            return defs.NC_EFRAME
    rc = rd_varint(r, &f.a)                     # offset
    if rc >= 0 and bits & defs.DATA_MSG:
        rc = rd_varint(r, &f.b)                 # message number
    if rc < 0:
        return rc
    if bits & defs.DATA_LEN:
        rc = rd_varint(r, &length)
        if rc < 0:
            return rc
    else:
        length = rd_left(r)
    rc = rd_bytes(r, length, &f.data)
    f.len = <size_t>length
    # Offsets stay within 2^62 - 1 (wire.md §1): the sum cannot wrap because both are below 2^62.
    if rc >= 0 and f.a + length > <uint64_t>0x3FFFFFFFFFFFFFFF:
        return defs.NC_EFRAME
    return rc


cdef int parse_stream_rest(nc_rd* r, nc_frame* f) noexcept nogil:
    cdef int rc
    cdef uint64_t x
    if f.type == defs.FRAME_SKIP:
        rc = rd_two(r, &f.a, &f.b)
        if rc >= 0:
            rc = rd_u8(r, &f.flags)
        if rc >= 0:
            rc = rd_two(r, &f.c, &f.d)
        return defs.NC_EFRAME if rc >= 0 and (f.flags < 1 or f.flags > 3) else rc
    if f.type == defs.FRAME_PARITY:
        rc = rd_three(r, &f.a, &f.b, &f.c)
        if rc >= 0:
            rc = rd_two(r, &f.d, &x)
        if rc < 0:
            return rc
        # Bytes of the group, so that f.c - 1 cannot wrap and the sum stays an offset.
        if f.b == 0 or f.b > defs.PARITY_BYTES_MAX or f.c == 0 or f.d == 0 or x >= f.d \
                or f.d > defs.PARITY_SYMBOLS_MAX or f.c > defs.PARITY_SYMBOLS_MAX * <uint64_t>f.b \
                or (f.c - 1) // f.b + 1 + f.d > defs.PARITY_SYMBOLS_MAX or f.a + f.c > <uint64_t>0x3FFFFFFFFFFFFFFF:
            return defs.NC_EFRAME
        f.n = <uint32_t>x
        rc = rd_blob(r, defs.PARITY_BYTES_MAX, f)
        if rc >= 0 and f.len and f.len != (f.c if f.c < f.b else f.b):
            return defs.NC_EFRAME
        return rc
    if f.type == defs.FRAME_DATAGRAM:
        return rd_blob(r, defs.RECORD_BODY_MAX, f)
    return defs.NC_EFRAME


cdef int frame_next(nc_rd* r, uint64_t tag, nc_frame* f) noexcept nogil:
    cdef uint64_t t
    cdef int rc, bits
    if rd_left(r) == 0:
        return defs.NC_EAGAIN
    rc = rd_varint(r, &t)
    if rc < 0:
        return rc
    f.type = t
    f.stream = tag
    f.a = f.b = f.c = f.d = 0
    f.flags = 0
    f.eliciting = 1
    f.n = 0
    f.data = NULL
    f.len = 0
    # Most frequent first.
    if (t & ~<uint64_t>7) == defs.FRAME_DATA:
        if tag < defs.TAG_FIRST_STREAM:
            return defs.NC_EFRAME
        f.type = defs.FRAME_DATA
        bits = <int>(t & 7)
        rc = parse_data(r, f, bits, 0)
    elif t == defs.FRAME_ACK:
        f.eliciting = 0
        rc = parse_ack(r, f)
    elif t == defs.FRAME_POS:
        rc = parse_pos(r, f)
    elif t == defs.FRAME_PADDING:
        f.eliciting = 0
        rc = defs.NC_OK
    elif t >= defs.FRAME_EXTENSION:
        rc = rd_blob(r, defs.RECORD_BODY_MAX, f)
        if rc >= 0 and t & 1:
            rc = defs.NC_EUNKNOWN
        elif rc == defs.NC_ELIMIT:
            rc = defs.NC_EFRAME
        return rc
    elif (t & ~<uint64_t>7) == defs.FRAME_TRUNK_DATA:
        if tag != defs.TAG_TRUNK:
            return defs.NC_EFRAME
        f.type = defs.FRAME_TRUNK_DATA
        bits = <int>(t & 7)
        rc = parse_data(r, f, bits, 1)
    elif t < 0x20:
        if tag != defs.TAG_CONTROL:
            return defs.NC_EFRAME
        rc = parse_control(r, f)
    else:
        if tag < defs.TAG_FIRST_STREAM:
            return defs.NC_EFRAME
        rc = parse_stream_rest(r, f)
    # A counted field above its stated limit is malformed, not an unknown extension.
    return defs.NC_EFRAME if rc == defs.NC_ELIMIT else rc


cdef int frame_next_range(nc_rd* r, uint64_t* gap, uint64_t* length) noexcept nogil:
    if rd_left(r) == 0:
        return defs.NC_EAGAIN
    return rd_two(r, gap, length)


# --- writing: each puts the whole frame or nothing ------------------------------------------------------------

cdef int wr_fields(nc_wr* w, int type, const uint64_t* v, int n) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int i
    cdef int rc = wr_u8(&at, <uint8_t>type)
    for i in range(n):
        if rc < 0:
            return rc
        rc = wr_varint(&at, v[i])
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_ack(nc_wr* w, uint64_t path, uint64_t largest, uint64_t delay_us, uint64_t first) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_u8(&at, defs.FRAME_ACK)
    if rc >= 0:
        rc = wr_varint(&at, path)
    if rc >= 0:
        rc = wr_u8(&at, 0)
    if rc >= 0:
        rc = wr_varint(&at, largest)
    if rc >= 0:
        rc = wr_varint(&at, delay_us)
    if rc >= 0:
        rc = wr_u8(&at, 0)
    if rc >= 0:
        rc = wr_varint(&at, first)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_ack_ecn(const nc_frame* f, uint64_t* counts) noexcept nogil:
    cdef nc_rd r
    cdef int i
    if not f.flags & ACK_ECN:
        return 0
    rd_init(&r, f.data + f.len, ECN_COUNTS_MOST)    # parse_ack has read them: they are there, and it ends no later
    for i in range(3):
        rd_varint(&r, &counts[i])
    return 1


cdef int frame_put_ack_ranges(nc_wr* w, uint64_t path, const nc_ranges* got, uint64_t delay_us, uint32_t most,
                              const uint64_t* counts) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef nc_wr more
    cdef size_t tail = 0 if counts is NULL else ECN_COUNTS_MOST
    cdef uint8_t* count
    cdef uint32_t i = got.len - 1
    cdef int n = 0
    cdef int rc = wr_u8(&at, defs.FRAME_ACK)
    if rc >= 0:
        rc = wr_varint(&at, path)
    if rc >= 0:
        rc = wr_u8(&at, 0 if counts is NULL else ACK_ECN)
    if rc >= 0:
        rc = wr_varint(&at, got.v[i].hi - 1)
    if rc >= 0:
        rc = wr_varint(&at, delay_us)
    count = at.p
    if rc >= 0:
        rc = wr_u8(&at, 0)
    if rc >= 0:
        rc = wr_varint(&at, got.v[i].hi - 1 - got.v[i].lo)
    if rc < 0:
        return rc
    if <size_t>(at.end - at.p) < tail:
        return defs.NC_ETRUNC
    at.end -= tail
    while i > 0 and n + 1 < <int>most:          # RFC 9000 §19.3.1
        i -= 1
        more = at
        if wr_varint(&more, got.v[i + 1].lo - got.v[i].hi - 1) < 0 \
                or wr_varint(&more, got.v[i].hi - got.v[i].lo - 1) < 0:
            break
        at = more
        n += 1
    count[0] = <uint8_t>n
    at.end += tail
    if counts is not NULL:
        for n in range(3):
            wr_varint(&at, counts[n])
    w[0] = at
    return defs.NC_OK


cdef int frame_put_order(nc_wr* w, uint64_t number) noexcept nogil:
    return wr_fields(w, defs.FRAME_ORDER, &number, 1)


cdef int frame_put_path_close(nc_wr* w, uint64_t path, uint64_t code) noexcept nogil:
    cdef uint64_t[2] v
    v[0] = path
    v[1] = code
    return wr_fields(w, defs.FRAME_PATH_CLOSE, v, 2)


cdef int frame_put_path_status(nc_wr* w, uint64_t path, uint64_t seq, int standby) noexcept nogil:
    if wr_left(w) < 2 + varint_len(path) + varint_len(seq) + 1:
        return defs.NC_ESPACE
    wr_u8(w, defs.FRAME_PATH_STATUS)
    wr_varint(w, path)
    wr_varint(w, seq)
    wr_u8(w, <uint8_t>standby)
    return wr_varint(w, 0)                      # no weight: what a path delivers is measured


cdef int frame_put_new_cid(nc_wr* w, uint64_t path, const uint8_t* cid8, const uint8_t* token16) noexcept nogil:
    if wr_left(w) < 3 + varint_len(path) + 24:
        return defs.NC_ESPACE
    wr_u8(w, defs.FRAME_NEW_CID)
    wr_varint(w, path)
    wr_varint(w, 1)                             # the second cid of the path, instead of the first
    wr_varint(w, 1)
    wr_bytes(w, cid8, 8)
    return wr_bytes(w, token16, 16)


cdef int frame_put_path_probe(nc_wr* w, int response, const uint8_t* token8) noexcept nogil:
    if wr_left(w) < 9:
        return defs.NC_ESPACE
    wr_u8(w, defs.FRAME_PATH_RESPONSE if response else defs.FRAME_PATH_CHALLENGE)
    return wr_bytes(w, token8, 8)


cdef int frame_put_pos(nc_wr* w, uint64_t stream, uint64_t received, uint64_t taken, uint64_t max_msgs,
                       uint64_t max_bytes) noexcept nogil:
    cdef uint64_t[6] v
    v[0] = stream
    v[1] = received
    v[2] = taken
    v[3] = max_msgs
    v[4] = max_bytes
    v[5] = 0
    return wr_fields(w, defs.FRAME_POS, v, 6)


cdef int frame_put_ask(nc_wr* w, uint64_t stream, uint64_t received, uint64_t taken) noexcept nogil:
    cdef uint64_t[3] v
    v[0] = stream
    v[1] = received
    v[2] = taken
    return wr_fields(w, defs.FRAME_ASK, v, 3)


cdef int frame_put_want(nc_wr* w, uint64_t stream, uint64_t version, uint64_t parked) noexcept nogil:
    cdef uint64_t[3] v
    v[0] = stream
    v[1] = version
    v[2] = parked
    return wr_fields(w, defs.FRAME_WANT, v, 3)


cdef int frame_put_withdraw(nc_wr* w, uint64_t stream, uint64_t number) noexcept nogil:
    cdef uint64_t[2] v
    v[0] = stream
    v[1] = number
    return wr_fields(w, defs.FRAME_WITHDRAW, v, 2)


cdef int frame_put_withdrawn(nc_wr* w, uint64_t stream, uint64_t number, uint8_t outcome) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef uint64_t[2] v
    cdef int rc
    v[0] = stream
    v[1] = number
    rc = wr_fields(&at, defs.FRAME_WITHDRAWN, v, 2)
    if rc >= 0:
        rc = wr_u8(&at, outcome)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_abort(nc_wr* w, uint64_t stream, uint8_t flags, uint64_t code, uint64_t final,
                         const uint8_t* reason, size_t reason_len) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_u8(&at, defs.FRAME_ABORT)
    if rc >= 0:
        rc = wr_varint(&at, stream)
    if rc >= 0:
        rc = wr_u8(&at, flags)
    if rc >= 0:
        rc = wr_varint(&at, code)
    if rc >= 0:
        rc = wr_varint(&at, final)
    if rc >= 0:
        rc = wr_vbytes(&at, reason, reason_len)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_stop(nc_wr* w, uint64_t stream, uint64_t code, uint64_t taken) noexcept nogil:
    cdef uint64_t[3] v
    v[0] = stream
    v[1] = code
    v[2] = taken
    return wr_fields(w, defs.FRAME_STOP, v, 3)


cdef int frame_put_skip(nc_wr* w, uint64_t first, uint64_t n, uint8_t reason, uint64_t offset,
                        uint64_t bytes) noexcept nogil:
    cdef uint64_t[2] v
    cdef uint8_t* begin = w.p
    v[0] = first
    v[1] = n
    if wr_fields(w, defs.FRAME_SKIP, v, 2) < 0 or wr_u8(w, reason) < 0 or wr_varint(w, offset) < 0 \
            or wr_varint(w, bytes) < 0:
        w.p = begin
        return defs.NC_ESPACE
    return defs.NC_OK


cdef int frame_put_parity(nc_wr* w, uint64_t start, uint64_t size, uint64_t n, int m, int j, const uint8_t* p,
                          size_t len_) noexcept nogil:
    cdef uint64_t[5] v
    cdef uint8_t* begin = w.p
    v[0] = start
    v[1] = size
    v[2] = n
    v[3] = <uint64_t>m
    v[4] = <uint64_t>j
    if wr_fields(w, defs.FRAME_PARITY, v, 5) < 0 or wr_vbytes(w, p, len_) < 0:
        w.p = begin
        return defs.NC_ESPACE
    return defs.NC_OK


cdef int frame_put_max_streams(nc_wr* w, uint64_t count) noexcept nogil:
    return wr_fields(w, defs.FRAME_MAX_STREAMS, &count, 1)


cdef int frame_put_ping(nc_wr* w) noexcept nogil:
    return wr_u8(w, defs.FRAME_PING)


cdef int frame_put_rekey(nc_wr* w, uint8_t kind, uint64_t epoch, uint64_t ratchet, const uint8_t* mix32) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_u8(&at, defs.FRAME_REKEY)
    if rc >= 0:
        rc = wr_u8(&at, kind)
    if rc >= 0:
        rc = wr_varint(&at, epoch)
    if rc >= 0:
        rc = wr_bytes(&at, mix32, 32) if kind == 1 else wr_varint(&at, ratchet)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_ratchet(nc_wr* w, uint64_t ratchet, uint8_t step, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_u8(&at, defs.FRAME_RATCHET)
    if rc >= 0:
        rc = wr_varint(&at, ratchet)
    if rc >= 0:
        rc = wr_u8(&at, step)
    if rc >= 0:
        rc = wr_vbytes(&at, p, n)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_ticket(nc_wr* w, uint64_t life_s, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_fields(&at, defs.FRAME_TICKET, &life_s, 1)
    if rc >= 0:
        rc = wr_vbytes(&at, p, n)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_session_close(nc_wr* w, uint16_t code, const uint8_t* reason, size_t n) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_u8(&at, defs.FRAME_SESSION_CLOSE)
    if rc >= 0:
        rc = wr_u16(&at, code)
    if rc >= 0:
        rc = wr_vbytes(&at, reason, n)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_extension(nc_wr* w, uint64_t type, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int rc = wr_varint(&at, type)
    if rc >= 0:
        rc = wr_vbytes(&at, p, n)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_trunk_head(nc_wr* w, uint64_t stream, uint64_t offset, int fin, int has_number, uint64_t number,
                              uint64_t length) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int bits = (defs.DATA_FIN if fin else 0) | (defs.DATA_MSG if has_number else 0) | defs.DATA_LEN
    cdef int rc = wr_u8(&at, <uint8_t>(defs.FRAME_TRUNK_DATA | bits))
    if rc >= 0:
        rc = wr_varint(&at, stream)
    if rc >= 0:
        rc = wr_varint(&at, offset)
    if rc >= 0 and has_number:
        rc = wr_varint(&at, number)
    if rc >= 0:
        rc = wr_varint(&at, length)
    if rc >= 0:
        w[0] = at
    return rc


cdef int frame_put_data_head(nc_wr* w, uint64_t offset, int fin, int has_number, uint64_t number,
                             long long length) noexcept nogil:
    cdef nc_wr at = w[0]
    cdef int bits = (defs.DATA_FIN if fin else 0) | (defs.DATA_MSG if has_number else 0)
    cdef int rc
    if length >= 0:
        bits |= defs.DATA_LEN
    rc = wr_u8(&at, <uint8_t>(defs.FRAME_DATA | bits))
    if rc >= 0:
        rc = wr_varint(&at, offset)
    if rc >= 0 and has_number:
        rc = wr_varint(&at, number)
    if rc >= 0 and length >= 0:
        rc = wr_varint(&at, <uint64_t>length)
    if rc >= 0:
        w[0] = at
    return rc


# --- messages and names ---------------------------------------------------------------------------------------

cdef int message_head(const uint8_t* p, size_t n, uint64_t* body_len, int* has_ext) noexcept nogil:
    cdef nc_rd r
    cdef uint64_t v
    r.p = p
    r.end = p + n
    if rd_varint(&r, &v) < 0:
        return defs.NC_EAGAIN
    body_len[0] = v >> 1
    has_ext[0] = <int>(v & 1)
    return <int>(r.p - p)


# Length of the UTF-8 sequence at p, 0 when it is not one (overlong forms, surrogates, above U+10FFFF are not).
cdef size_t utf8_sequence(const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t c = p[0]
    if c < 0x80:
        return 1
    if c < 0xC2 or n < 2 or (p[1] & 0xC0) != 0x80:
        return 0
    if c < 0xE0:
        return 2
    if n < 3 or (p[2] & 0xC0) != 0x80:
        return 0
    if c < 0xF0:
        if (c == 0xE0 and p[1] < 0xA0) or (c == 0xED and p[1] > 0x9F):
            return 0
        return 3
    if n < 4 or (p[3] & 0xC0) != 0x80 or c > 0xF4:
        return 0
    if (c == 0xF0 and p[1] < 0x90) or (c == 0xF4 and p[1] > 0x8F):
        return 0
    return 4


cdef int name_is_valid(const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t step
    if n == 0 or n > defs.NAME_MAX:
        return 0
    while n:
        step = utf8_sequence(p, n)
        if step == 0 or (step == 1 and (p[0] < 0x20 or p[0] == 0x7F)):
            return 0
        if step == 2 and p[0] == 0xC2 and p[1] < 0xA0:      # C1 controls
            return 0
        p += step
        n -= step
    return 1
