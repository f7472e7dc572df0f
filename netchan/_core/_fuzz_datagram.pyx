"""Fuzz target over a session whose one path is a datagram path. Test-only, never in a wheel.

Layer: beside _core. ``run(name, data)`` is for the corpus test; libFuzzer reaches the C function directly.
The frames of the input are sealed under the right keys, in datagrams of the input's own layout: what is fuzzed is what
acts on them, with loss, repeats and any order; and the header, whose mask is put on here.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_new, nc_cache
from netchan._core.cursor cimport nc_rd, rd_bytes, rd_init, rd_left, rd_u8, rd_u16
from netchan._core.datagram cimport DATAGRAM_PAD, dgram_head_size, dgram_mask, dgram_seal
from netchan._core.ecn cimport ecn_turn
from netchan._core.ends cimport end_mark, end_open, end_release, end_request, session_next_offer, session_next_ready
from netchan._core.flight cimport flight_free, flight_new, flight_token
from netchan._core.inbound cimport session_recv_datagram
from netchan._core.keys cimport KEYS_HP_SEND, keys_free, keys_new, keys_path_add
from netchan._core.keystore cimport ks_new, nc_keystore
from netchan._core.order cimport ORDER_WINDOW
from netchan._core.outbound cimport session_said, session_send_datagram
from netchan._core.outbox cimport out_append
from netchan._core.provider cimport Provider, cipher_id_of, provider_table
from netchan._core.record cimport nc_sealer
from netchan._core.resume cimport session_forget_gone
from netchan._core.session cimport session_deadline, session_free, session_init, session_on_deadline
from netchan._core.state cimport (
    REQ_POS, REQ_STOP, SENT_FLIGHT, SESSION_OVER, SESSION_UP, nc_dgram, nc_end, nc_params, nc_path,
    nc_sent, nc_session,
)
from netchan._core.take cimport in_advance, in_peek, nc_msg
from netchan._core.timer cimport TIMER_NEVER

from netchan._core import provider as provider_module

TARGETS = ("datagram_frames",)

cdef Provider PROVIDER = provider_module.load()
cdef nc_keystore* STORE = ks_new(provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0])), 256, 4, 7, 0)
cdef nc_cache* CACHE = cache_new(provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0])), 64, 7)
if STORE is NULL or CACHE is NULL:
    raise MemoryError("key store")

cdef enum:
    HELD = 8                        # datagrams that wait to come late
    ROOM = 2048
    TALK_MOST = 3000                # datagrams of one flush

cdef struct nc_lab:
    nc_session s
    nc_sealer peer
    int key
    uint64_t number                 # of the peer's next datagram
    int64_t now
    nc_end* ends[2]
    uint8_t* held[HELD]
    size_t held_len[HELD]


def run(str name, bytes data):
    """Number of the check that failed, 0 if none."""
    if name != "datagram_frames":
        raise KeyError(name)
    return fuzz_datagram_frames(<const uint8_t*><const char*>data, len(data))


cdef nc_lab* lab_make() noexcept nogil:
    cdef nc_lab* a = <nc_lab*>calloc(1, sizeof(nc_lab))
    cdef nc_params p
    cdef uint8_t[32] secret
    cdef uint8_t[8] cid
    cdef nc_dgram* d
    if a is NULL:
        return NULL
    memset(secret, 9, 32)
    memset(cid, 5, 8)
    memset(&p, 0, sizeof(p))
    p.max_record = 65535
    p.ack_delay_ns = 25000000
    p.ack_interval = 262144
    p.initial_msgs = 8
    p.initial_bytes = 4096
    p.max_streams = 8
    p.max_message = 5000
    p.max_channels = 8
    p.session_bytes = 100000
    p.node_bytes = <uint64_t>1 << 40
    p.trunk = 1
    p.parity = 1
    p.heartbeat_ns = 5000000000
    p.dead_ns = 10000000000
    p.lease_ns = 60000000000
    p.max_paths = 4
    p.datagrams = 1
    a.now = 1000000000
    a.s.sealer.cache = CACHE
    a.s.sealer.keys = keys_new(STORE, secret, 1, NULL)
    a.peer.cache = CACHE
    a.peer.keys = keys_new(STORE, secret, 0, NULL)
    d = flight_new(cid, cid, 1200, 3)
    if a.s.sealer.keys is NULL or a.peer.keys is NULL or d is NULL:
        keys_free(a.s.sealer.keys, CACHE)
        keys_free(a.peer.keys, CACHE)
        flight_free(d)
        free(a)
        return NULL
    flight_token(d, secret)
    a.key = keys_path_add(a.peer.keys, 0, 2)
    session_init(&a.s, 1, &p, &p, secret, d, 3, a.now)
    return a


cdef void lab_open(nc_lab* a, int i) noexcept nogil:
    cdef uint8_t[16] name
    cdef uint8_t[16] schema
    memset(schema, 0, 16)
    memset(name, 97 + i, 16)
    if a.ends[i] is NULL:
        a.ends[i] = end_open(&a.s, defs.PREFACE_NAME, name, 1, 1, schema, 5 if i else 0, 0, 0, 1)


cdef int lab_flush(nc_lab* a) noexcept nogil:
    cdef uint8_t[ROOM] out
    cdef nc_end* e
    cdef uint32_t bits = 0
    cdef int64_t n = 1
    cdef int turns = 0
    while n > 0 and a.s.control is not NULL:
        n = session_send_datagram(&a.s, a.s.control, out, ROOM, a.now)
        turns += 1
        if n > 1452:
            return 1
        if turns > TALK_MOST:
            return 2                            # it never comes to rest
        if n < 0 and a.s.state != SESSION_OVER:
            return 3
    session_said(&a.s)
    session_forget_gone(&a.s)
    while True:
        e = session_next_ready(&a.s, &bits)
        if e is NULL:
            break
        end_release(e, &a.s.pins)
    while session_next_offer(&a.s) is not NULL:
        pass
    return 0


cdef int lab_check(nc_lab* a) noexcept nogil:
    cdef nc_path* p = a.s.control
    cdef nc_sent* x
    cdef uint64_t i, flying = 0
    cdef uint32_t eliciting = 0
    if a.s.state == SESSION_UP and p is NULL:
        return 10
    if a.s.order.next - a.s.order.floor > <uint64_t>ORDER_WINDOW or a.s.order.n_kept > <uint32_t>ORDER_WINDOW:
        return 11
    if a.s.replay.n > 2 * <uint32_t>defs.SENT_MAX:
        return 12
    if p is NULL or p.d is NULL:
        return 0
    if p.acked > p.tx_number or p.d.largest_acked > p.tx_number or p.d.got.len > 64 or p.d.scan > p.tx_number:
        return 13
    for i in range(p.acked, p.tx_number):
        x = &p.sent[i & (p.sent_cap - 1)]
        if x.state == SENT_FLIGHT:
            flying += x.size
            eliciting += x.eliciting
    if flying != p.d.cc.in_flight or eliciting != p.d.eliciting:
        return 14
    if p.d.cc.cwnd < 2 * <uint64_t>1200 or p.log_next - p.log_first > <uint64_t>defs.LOG_MAX:
        return 15
    return 0


cdef void deliver(nc_lab* a, const uint8_t* data, size_t n) noexcept nogil:
    cdef uint8_t* copy = <uint8_t*>malloc(n if n else 1)
    if copy is NULL:
        return
    memcpy(copy, data, n)
    if a.s.control is not NULL and a.s.state != SESSION_OVER:
        session_recv_datagram(&a.s, a.s.control, copy, n, a.now)
    free(copy)


# A datagram of the peer with these frames. op: 5 bits of the tag; 0x20: twice; 0x40: kept, to come late.
cdef int frames_step(nc_lab* a, uint8_t op, const uint8_t* body, size_t n) noexcept nogil:
    cdef uint8_t[8] cid
    cdef uint8_t[32] secret
    cdef uint64_t tag = op & 31
    cdef size_t head, pad = 0
    cdef uint8_t* buf
    cdef int size
    memset(cid, 5, 8)
    memset(secret, 9, 32)
    if 2 <= tag < 16:
        tag = 0
    head = dgram_head_size(4, tag)
    if n < <size_t>DATAGRAM_PAD:
        pad = DATAGRAM_PAD - n                  # in front, as PADDING
    buf = <uint8_t*>malloc(head + pad + n + 16)
    if buf is NULL:
        return 0
    memset(buf + head, 0, pad)
    memcpy(buf + head + pad, body, n)
    size = dgram_seal(&a.peer, a.key, cid, a.number, 4, tag, secret, buf, pad + n, NULL, 0, a.now)
    if size < 0:
        free(buf)
        return 20
    a.number += 1
    if op & 0x40 and a.held[a.number & (HELD - 1)] is NULL:
        a.held[a.number & (HELD - 1)] = buf
        a.held_len[a.number & (HELD - 1)] = <size_t>size
        return 0
    deliver(a, buf, <size_t>size)
    if op & 0x20:
        deliver(a, buf, <size_t>size)
    free(buf)
    return 0


# Any bytes, with the mask of the peer on them: a header that is as the input says.
cdef void header_step(nc_lab* a, const uint8_t* body, size_t n) noexcept nogil:
    cdef uint8_t* buf = <uint8_t*>malloc(n if n else 1)
    if buf is NULL:
        return
    memcpy(buf, body, n)
    if n >= 40:
        buf[0] = <uint8_t>(0x40 | (buf[0] & 0x3F))
        dgram_mask(&a.peer, KEYS_HP_SEND, buf, n)
    deliver(a, buf, n)
    free(buf)


cdef int act_step(nc_lab* a, uint8_t op) noexcept nogil:
    cdef int i = op & 1
    cdef int act = (op >> 1) & 7
    cdef nc_end* e = a.ends[i]
    cdef uint8_t[3000] body
    cdef nc_msg m
    cdef int64_t at
    cdef int j, _turn
    if act == 0:
        lab_open(a, i)
    elif act == 1 and e is not NULL:
        memset(body, 7, sizeof(body))
        if out_append(&e.out, body, 3000 if op & 0x10 else 10, 0, NULL) == defs.NC_OK:
            end_mark(e)
    elif act == 2 and e is not NULL and e.paired:
        if in_peek(e.in_, &m) == defs.NC_OK:
            if in_advance(e.in_, &m):
                end_request(e, REQ_POS)
    elif act == 3 and e is not NULL and e.paired:
        end_request(e, REQ_STOP)
    elif act == 4 and op & 0x20:                # what the network did with the marks of what comes next
        if a.s.control is not NULL:
            a.s.control.d.ecn.here = (op >> 4 & 1) << 1 | op & 1
            ecn_turn(&a.s.control.d.ecn, a.s.control.tx_number, a.s.control.d.pto_count)
    elif act == 4:
        for j in range(HELD):
            if a.held[j] is not NULL:
                deliver(a, a.held[j], a.held_len[j])
                free(a.held[j])
                a.held[j] = NULL
    else:
        at = session_deadline(&a.s)
        a.now = at if a.now < at < TIMER_NEVER and act & 1 else a.now + (10000000 if op & 0x10 else 2000000000)
        for _turn in range(8):                  # what one call does may be followed by what was due as well
            session_on_deadline(&a.s, a.now)
            session_forget_gone(&a.s)
            if lab_flush(a) or session_deadline(&a.s) >= a.now:
                return 0
        return 30                               # a deadline that does not move on
    return 0


# Steps: op u8; below 0x80 a datagram (length u16, frames), below 0xc0 a header (length u16, bytes), else an act of the
# application, the network or the clock.
cdef int fuzz_datagram_frames(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_lab* a = lab_make()
    cdef nc_rd r
    cdef uint8_t op = 0
    cdef uint16_t length = 0
    cdef const uint8_t* body = NULL
    cdef size_t take
    cdef int i
    cdef int rc = 0
    if a is NULL:
        return 0
    lab_open(a, 0)
    rc = lab_flush(a)
    rd_init(&r, data, n)
    while rc == 0 and rd_u8(&r, &op) == 0:
        if op < 0xC0:
            if rd_u16(&r, &length) < 0:
                break
            take = length if length < rd_left(&r) else rd_left(&r)
            if take > 1400:
                take = 1400
            rd_bytes(&r, take, &body)
            if op < 0x80:
                rc = frames_step(a, op, body, take)
            else:
                header_step(a, body, take)
        else:
            rc = act_step(a, op)
        if rc == 0:
            rc = lab_flush(a)
        if rc == 0:
            rc = lab_check(a)
    session_free(&a.s)
    for i in range(2):
        if a.ends[i] is not NULL:
            end_release(a.ends[i], &a.s.pins)
    for i in range(HELD):
        free(a.held[i])
    keys_free(a.s.sealer.keys, CACHE)
    keys_free(a.peer.keys, CACHE)
    free(a)
    return rc
