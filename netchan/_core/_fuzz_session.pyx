"""Fuzz targets over frames, streams, records and sessions. Test-only, never in a wheel.

Layer: beside _core. ``run(name, data)`` is for the corpus test; libFuzzer reaches the C functions directly.
``session_frames`` seals the frames of the input under the right keys, so that the state machine behind the
records is what is fuzzed.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_new, nc_cache
from netchan._core.cursor cimport nc_rd, nc_wr, rd_bytes, rd_init, rd_left, rd_u8, rd_u16, rd_varint, wr_init
from netchan._core.frame cimport frame_next, frame_next_range, message_head, nc_frame
from netchan._core.idmap cimport idmap_next
from netchan._core.keys cimport keys_free, keys_new, keys_path_add, keys_path_remove
from netchan._core.keystore cimport ks_new, nc_keystore
from netchan._core.provider cimport Provider, cipher_id_of, provider_table
from netchan._core.record cimport nc_sealer, record_head_size, record_seal
from netchan._core.ends cimport end_mark, end_open, end_release, end_request, session_next_offer, session_next_ready
from netchan._core.inbound cimport session_recv
from netchan._core.outbound cimport session_said, session_send
from netchan._core.ratchet cimport session_ratchet_secret
from netchan._core.resume cimport session_add, session_forget_gone, session_mode, session_path_lost, session_resume
from netchan._core.ticket cimport session_ticket_send
from netchan._core.timer cimport TIMER_NEVER
from netchan._core.session cimport session_deadline, session_free, session_init, session_on_deadline
from netchan._core.state cimport (
    REQ_ABORT, REQ_ASK, REQ_END_AFTER, REQ_POS, REQ_STOP, REQ_WANT, REQ_WITHDRAW,
    SESSION_OVER, SESSION_SUSPENDED, SESSION_UP, nc_end, nc_offer, nc_params, nc_path, nc_session,
)
from netchan._core.budget cimport budget_init, nc_budget
from netchan._core.inbox cimport in_data, in_free, in_init, in_over, in_pos, nc_in
from netchan._core.leaf cimport store_seq_u32
from netchan._core.segment cimport nc_seg, seg_new, seg_room
from netchan._core.take cimport (
    in_advance, in_claim, in_copy, in_discard, in_expire, in_peek, in_run, in_run_end, nc_msg, nc_run, run_next,
    run_pass,
)
from netchan._core.outbox cimport APPEND_OFFER, out_append, out_close, out_end, out_offer_let_go, out_offer_want
from netchan._core.lossy cimport lossy_append
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_NOT, OVER_STOPPED

from netchan._core import provider as provider_module

TARGETS = ("frame", "stream_in", "take", "session_frames", "session_raw")

cdef Provider PROVIDER = provider_module.load()
cdef nc_keystore* STORE = ks_new(provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0])), 256, 4, 7, 0)
cdef nc_cache* CACHE = cache_new(provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0])), 64, 7)
if STORE is NULL or CACHE is NULL:
    raise MemoryError("key store")

cdef enum:
    TX_ROOM = 65536
    STREAM_ROOM = 4096              # bytes of the stream that stream_in models
    TTL_MS = 20
    HELD_MAX = 1 << 20              # more than window and marks of a stream that may lose messages


def run(str name, bytes data):
    """Runs one target on an exact copy of ``data``; returns 0 or the number of the check that failed."""
    cdef size_t n = <size_t>len(data)
    cdef const uint8_t* src = data
    cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
    cdef int rc
    if p == NULL:
        raise MemoryError
    memcpy(p, src, n)
    try:
        if name == "frame":
            rc = fuzz_frame(p, n)
        elif name == "stream_in":
            rc = fuzz_stream_in(p, n)
        elif name == "take":
            rc = fuzz_take(p, n)
        elif name == "session_frames":
            rc = fuzz_session_frames(p, n)
        elif name == "session_raw":
            rc = fuzz_session_raw(p, n)
        else:
            raise KeyError(name)
    finally:
        free(p)
    return rc


# First byte: the tag of the record; the rest: its frames.
cdef int fuzz_frame(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_rd r
    cdef nc_rd walk
    cdef nc_frame f
    cdef const uint8_t* at
    cdef uint64_t tag, gap, length
    cdef uint32_t pairs
    cdef size_t i
    cdef uint64_t sum_ = 0
    cdef int rc
    if n == 0:
        return 0
    tag = data[0] if data[0] < 2 else 16 + (data[0] & 7)
    rd_init(&r, data + 1, n - 1)
    while True:
        at = r.p
        rc = frame_next(&r, tag, &f)
        if rc == defs.NC_EAGAIN:
            return 0 if r.p == r.end else 1
        if rc < 0:
            return 0 if rc == defs.NC_ETRUNC or rc == defs.NC_EFRAME or rc == defs.NC_EUNKNOWN else 2
        if r.p <= at or r.p > r.end:
            return 3
        if f.len and (f.data < at or f.data + f.len > r.p):
            return 4
        for i in range(f.len):                      # every byte may be read
            sum_ += f.data[i]
        if f.type == defs.FRAME_ACK or f.type == defs.FRAME_POS:
            rd_init(&walk, f.data, f.len)
            pairs = 0
            while frame_next_range(&walk, &gap, &length) == 0:
                pairs += 1
            if pairs != f.n or pairs > (64 if f.type == defs.FRAME_ACK else 32) or rd_left(&walk):
                return 5
        elif f.type == defs.FRAME_DATA or f.type == defs.FRAME_TRUNK_DATA:
            if f.a + f.len > <uint64_t>0x3FFFFFFFFFFFFFFF or f.stream < 16:
                return 6
        elif f.type < 0x20 and f.type != defs.FRAME_PADDING and tag != 0:
            return 7
        elif f.type >= 64 and f.type & 1:
            return 8
        elif f.len > <size_t>defs.RECORD_BODY_MAX:
            return 9


# The first two bytes: how many bytes the stream has; then its bytes; then steps (op, offset u16, length u16) that give
# parts of it in any order. The oracle parses the bytes at once.
cdef int fuzz_stream_in(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_in s
    cdef int rc
    in_init(&s, 16)
    s.granted_bytes = STREAM_ROOM
    s.granted_msgs = 40
    s.capacity = 40
    rc = stream_steps(&s, data, n)
    in_free(&s)
    return rc


# A block of a message that was given out: whole fields that may be skipped, and deliver exactly where one says so.
cdef int block_rule(const uint8_t* p, size_t n, int deliver) noexcept nogil:
    cdef nc_rd r
    cdef uint64_t field = 0, length = 0
    cdef const uint8_t* value = NULL
    cdef int seen = 0
    if n > <size_t>defs.EXT_MAX:
        return 11
    rd_init(&r, p, n)
    while rd_left(&r):
        if rd_varint(&r, &field) < 0 or rd_varint(&r, &length) < 0 or rd_bytes(&r, length, &value) < 0:
            return 12
        if field == 1 and length == 0:
            seen = 1
        elif field & 1 or field == 6:
            return 13
    return 0 if seen == deliver else 14


# Takes up to n messages where they lie; *at is where the next one begins, as the oracle sees it.
cdef int take_some(nc_in* s, uint64_t n, const uint8_t* bytes_, uint64_t total, uint64_t* at) noexcept nogil:
    cdef const uint8_t* p = NULL
    cdef uint64_t length = 0, body = 0, before = s.taken, count = 0
    cdef int ext = 0, used
    cdef nc_run r
    if not in_run(s, &r):
        return 0
    while count < n and run_next(&r, &p, &length):
        used = message_head(bytes_ + at[0], <size_t>(total - at[0]), &body, &ext)
        if used < 0 or ext or body != length or at[0] + <uint64_t>used + body > s.end:
            return 16
        if memcmp(p, bytes_ + at[0] + used, <size_t>length) != 0:
            return 17
        at[0] += <uint64_t>used + body
        run_pass(&r)
        count += 1
    in_run_end(s, &r)
    return 0 if s.taken == before + count and s.taken <= s.msgs and s.take_off == at[0] else 18


cdef int stream_steps(nc_in* s, const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_rd r
    cdef const uint8_t* bytes_ = NULL
    cdef uint8_t[64] pos
    cdef uint8_t* out
    cdef nc_wr w
    cdef nc_msg m
    cdef uint16_t total = 0, offset = 0, length = 0
    cdef uint8_t op = 0
    cdef uint64_t next_, block, body = 0
    cdef nc_budget budget
    cdef int ext = 0, used, rc
    cdef uint64_t preface
    cdef nc_rd x
    cdef uint64_t msgs, granted, grown
    budget_init(&budget, 100000)
    rd_init(&r, data, n)
    if rd_u16(&r, &total) < 0 or total > STREAM_ROOM or rd_bytes(&r, total, &bytes_) < 0 or total == 0:
        return 0
    # Where the first message begins, as the oracle sees it.
    used = message_head(bytes_, total, &body, &ext)
    preface = 0 if used < 0 else <uint64_t>used + body * 2 + <uint64_t>ext
    next_ = preface
    while rd_u8(&r, &op) == 0:
        if op & 0x50 == 0x50:
            rc = take_some(s, op & 15, bytes_, total, &next_)
            if rc:
                return rc
            continue
        if op & 0x40:
            rc = in_peek(s, &m)
            if rc == defs.NC_OK:
                if m.total > STREAM_ROOM or next_ + m.total > s.end or m.number != s.taken:
                    return 1
                used = message_head(bytes_ + next_, <size_t>(total - next_), &body, &ext)
                if used < 0 or body != m.len:
                    return 2
                block = 0
                if ext:
                    x.p = bytes_ + next_ + used
                    x.end = bytes_ + total
                    used = message_head(x.p, <size_t>(x.end - x.p), &block, &ext)
                    block = block * 2 + <uint64_t>ext
                    rc = block_rule(x.p + used, <size_t>block, m.deliver)
                    if rc:
                        return rc
                    block += <uint64_t>used
                    used = message_head(bytes_ + next_, <size_t>(total - next_), &body, &ext)
                if m.total != <uint64_t>used + block + body:
                    return 3
                out = <uint8_t*>malloc(m.len if m.len else 1)
                if out is NULL:
                    return 0
                in_copy(s, &m, out)
                rc = memcmp(out, bytes_ + next_ + used + block, m.len)
                free(out)
                if rc != 0:
                    return 4
                next_ += m.total
                in_advance(s, &m)
                if s.take_off != next_:
                    return 5
            elif rc != defs.NC_EAGAIN and rc != defs.NC_ECLOSED:
                return 6
            continue
        if op & 0x20:
            wr_init(&w, pos, 64)
            msgs = s.granted_msgs
            granted = s.granted_bytes
            grown = s.grown
            rc = in_pos(s, &w, op & 1, &budget)
            if rc < 0 or s.granted_msgs < msgs or s.granted_bytes < granted or s.grown < grown \
                    or budget.left + <int64_t>budget.drawn != 100000:
                return 7
            continue
        if rd_u16(&r, &offset) < 0 or rd_u16(&r, &length) < 0:
            return 0
        if offset > total:
            offset = total
        if length > total - offset:
            length = total - offset
        msgs = s.msgs
        rc = in_data(s, offset, bytes_ + offset, length, 1 if op & 1 and offset + length == total else 0, 2000)
        if rc < 0:
            if (rc != defs.NC_ECREDIT and rc != defs.NC_ELIMIT and rc != defs.NC_ESTATE and rc != defs.NC_EFRAME
                    and rc != defs.NC_EUNKNOWN and rc != defs.NC_EAGAIN):
                return 8
            if rc != defs.NC_EAGAIN:
                return 0
        if (s.received > total or s.end > s.received or s.msgs < msgs or s.started < s.msgs
                or s.started > s.granted_msgs or s.n_early > <uint32_t>defs.EARLY_MAX):
            return 9
        if s.block_left > <uint64_t>defs.EXT_MAX or s.field_left > <uint64_t>defs.EXT_MAX:
            return 15
        if (s.preface_done and s.received >= preface and s.preface_len
                and memcmp(s.preface, bytes_ + (preface - s.preface_len), s.preface_len) != 0):
            return 10
    return 0


# Bytes as they are, in an inbox that says that one message is in them: what takes messages out reads their heads a
# second time, and must not believe them either. First byte: how long the first segment is (each other one has 64
# bytes); second byte: so many bytes at the end do not count yet.
cdef int fuzz_take(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_in s
    cdef int rc
    if n < 2:
        return 0
    in_init(&s, 16)
    rc = take_steps(&s, data + 2, n - 2, data[0] + <size_t>1, data[1])
    in_free(&s)
    return rc


cdef int take_steps(nc_in* s, const uint8_t* p, size_t n, size_t first, size_t hidden) noexcept nogil:
    cdef nc_seg** link = &s.head
    cdef size_t at = 0
    cdef size_t k = first
    cdef nc_msg m
    cdef nc_rd r
    cdef uint64_t body = 0, block = 0
    cdef uint8_t* out
    cdef int ext = 0, used, rc
    while at < n:
        k = k if k < n - at else n - at
        link[0] = seg_new(k, at)                    # no byte too many: a read behind it is seen
        if link[0] is NULL:
            break
        memcpy(seg_room(link[0]), p + at, k)
        link[0].len = k
        s.tail = link[0]
        link = &link[0].next
        at += k
        k = 64
    s.msgs = 1
    s.end = at - hidden if hidden < at else 0
    rc = in_peek(s, &m)
    if rc != defs.NC_OK:
        return 0 if rc == defs.NC_EFRAME or rc == defs.NC_ESTATE else 1
    rd_init(&r, p, <size_t>s.end)
    used = message_head(p, <size_t>s.end, &body, &ext)
    if used < 0 or body != m.len:
        return 2
    rd_bytes(&r, <uint64_t>used, &p)
    if ext and (rd_varint(&r, &block) < 0 or rd_bytes(&r, block, &p) < 0):
        return 3                                    # the block is longer than what is there
    if m.total != s.end - rd_left(&r) + body:
        return 4
    if body > rd_left(&r):
        return 0
    out = <uint8_t*>malloc(<size_t>body if body else 1)
    if out is NULL:
        return 0
    in_copy(s, &m, out)
    rc = memcmp(out, r.p, <size_t>body)
    free(out)
    return 5 if rc else 0


# --- sessions ---------------------------------------------------------------------------------------------------------

cdef struct nc_arena_way:
    nc_path* path
    int key                         # index in the attacker's keys
    uint64_t number

cdef struct nc_arena_of_one:        # one session under attack and what the attacker holds
    nc_session s
    nc_sealer peer
    nc_arena_way[2] ways            # paths that it has; path NULL: none
    int at                          # the one that the next record goes on
    uint32_t path_id                # given last
    nc_end* ends[4]
    uint8_t* tx
    int64_t now


cdef void params_fill(nc_params* p) noexcept nogil:
    memset(p, 0, sizeof(nc_params))
    p.max_record = 16384
    p.ack_delay_ns = 25000000
    p.ack_interval = 4096
    p.initial_msgs = 8
    p.initial_bytes = 128                           # less than an input may bring
    p.max_streams = 6
    p.max_message = 5000
    p.max_channels = 5
    p.session_bytes = 100000
    p.trunk = 1
    p.parity = 1
    p.heartbeat_ns = 5000000000
    p.dead_ns = 10000000000
    p.lease_ns = 30000000000
    p.max_paths = 3


cdef nc_arena_of_one* arena_make() noexcept nogil:
    cdef nc_arena_of_one* a = <nc_arena_of_one*>calloc(1, sizeof(nc_arena_of_one))
    cdef nc_params p
    cdef uint8_t[32] secret
    if a is NULL:
        return NULL
    memset(secret, 9, 32)
    params_fill(&p)
    a.now = 1000000000
    a.tx = <uint8_t*>malloc(TX_ROOM)
    a.s.sealer.cache = CACHE
    a.s.sealer.keys = keys_new(STORE, secret, 1, NULL)
    a.peer.cache = CACHE
    a.peer.keys = keys_new(STORE, secret, 0, NULL)
    if a.tx is NULL or a.s.sealer.keys is NULL or a.peer.keys is NULL:
        keys_free(a.s.sealer.keys, CACHE)
        keys_free(a.peer.keys, CACHE)
        free(a.tx)
        free(a)
        return NULL
    a.ways[0].key = keys_path_add(a.peer.keys, 0, 1)
    session_init(&a.s, 1, &p, &p, secret, NULL, 3, a.now)
    a.ways[0].path = a.s.control
    arena_open(a, 0)
    arena_open(a, 1)
    return a


# 0 and 1: on the trunk; 2 drops the oldest of three, or is a rendezvous (rendezvous_step); 3 is the end of a reference
# whose values last 20 ms.
cdef void arena_open(nc_arena_of_one* a, int i) noexcept nogil:
    cdef uint8_t[16] name
    cdef uint8_t[16] schema
    memset(schema, 0, 16)
    memset(name, 97 + i, 16)
    if a.ends[i] is not NULL:
        return
    if i < 2:
        a.ends[i] = end_open(&a.s, defs.PREFACE_NAME, name, 1, 1, schema, 5 if i else 0, 0, 0, 1)
    elif i == 2:
        a.ends[i] = end_open(&a.s, defs.PREFACE_NAME, name, 1, 1, schema, 4, defs.OVERFLOW_DROP_OLD, 0, 1)
    else:
        a.ends[i] = end_open(&a.s, defs.PREFACE_TOKEN, name, defs.TOKEN_SIZE, 1, schema, 0, 0, TTL_MS, 0)


# Takes what is there; 0 or the number of the check that failed.
cdef int arena_take(nc_arena_of_one* a, int i) noexcept nogil:
    cdef nc_end* e = a.ends[i]
    cdef nc_msg m
    cdef uint8_t* out
    cdef int due
    if e is NULL or not e.paired:
        return 0
    if in_expire(e.in_, a.now):
        end_request(e, REQ_POS)
    if in_peek(e.in_, &m) != defs.NC_OK:
        return 0
    if m.skip or (e.in_.lossy and in_claim(e.in_, &m) != 1):
        return 19                               # the head of such a stream is never a mark
    if m.len > 5000 or e.in_.taken >= e.in_.msgs or e.in_.take_off + m.total > e.in_.end:
        return 20
    out = <uint8_t*>malloc(m.len if m.len else 1)
    if out is not NULL:
        in_copy(e.in_, &m, out)
        free(out)
    due = in_advance(e.in_, &m)
    if due:
        end_request(e, REQ_POS)
    return 0


cdef void arena_drop(nc_arena_of_one* a, int i) noexcept nogil:
    if a.ends[i] is not NULL:
        end_release(a.ends[i], &a.s.pins)
        a.ends[i] = NULL


# Memory that a stream holds, with the heads of its segments.
cdef size_t in_bytes(const nc_in* i) noexcept nogil:
    cdef const nc_seg* at = i.head
    cdef size_t n = 0
    while at is not NULL:
        n += at.cap + sizeof(nc_seg)
        at = at.next
    return n


cdef int arena_check(nc_arena_of_one* a) noexcept nogil:
    cdef nc_end* e
    cdef nc_offer* o
    cdef uint32_t at = 0
    cdef int i
    if a.s.n_offers != a.s.offers.len or a.s.n_offers > a.s.mine.max_streams or a.s.ins.len > a.s.outs.len:
        return 21
    if a.s.outs.len > a.s.mine.max_channels or a.s.budget.left + <int64_t>a.s.budget.drawn != 100000 \
            or (a.s.control is not NULL and a.s.control.acked > a.s.control.tx_number):
        return 22
    if a.s.state == SESSION_UP and (a.s.control is NULL or a.s.last is not NULL):
        return 23
    if a.s.state == SESSION_SUSPENDED and (a.s.n_paths or a.s.last is NULL):
        return 24
    while True:
        o = <nc_offer*>idmap_next(&a.s.offers, &at)
        if o is NULL:
            break
        if a.s.state == SESSION_UP and (o.in_.received > o.in_.granted_bytes or o.in_.started > o.in_.granted_msgs):
            return 42
    for i in range(4):
        e = a.ends[i]
        if e is NULL:
            continue
        if e.refs == 0 or e.refs > 8:
            return 23
        if (e.out.acked > e.out.sent or e.out.sent > e.out.appended or e.out.received > e.out.sent
                or e.out.taken > e.out.accepted):
            return 24
        if (e.out.sent > e.out.max_bytes and not e.out.lossy) or e.out.sent_msgs > e.out.accepted:
            return 25
        if e.paired and (e.in_.received > e.in_.granted_bytes or e.in_.started > e.in_.granted_msgs
                         or e.in_.taken > e.in_.msgs
                         or e.in_.gaps.len > <uint32_t>defs.GAPS_MAX or e.in_.window > <uint64_t>defs.STREAM_BYTES_MAX):
            return 26
        if e.out.lossy and (e.out.gap_bytes > e.out.appended - e.out.sent or e.out.fresh_num > e.out.accepted
                            or e.out.gap_msgs > e.out.fresh_num):
            return 28
        if e.paired and e.in_.lossy and not e.in_.over \
                and (e.in_.skip_ahead > e.in_.msgs - e.in_.taken or e.in_.held or in_bytes(e.in_) > HELD_MAX):
            return 29
        # Without an id it was opened since and is cut by the next send.
        if a.s.state == SESSION_OVER and e.out.over == OVER_NOT and e.out.id:
            return 27
    return 0


cdef int arena_flush(nc_arena_of_one* a) noexcept nogil:
    cdef int64_t n
    cdef int turns = 0
    cdef nc_end* e
    cdef nc_path* p = a.s.control
    cdef uint32_t bits = 0
    while True:
        n = session_send(&a.s, p, a.tx, TX_ROOM, a.now)
        if n > TX_ROOM:
            return 30
        turns += 1
        if turns > 200:
            return 31                           # it never comes to rest
        if n > 0:
            continue
        if n < 0 and a.s.state != SESSION_OVER:
            return 32
        if n < 0 or p is NULL:
            break
        if p == a.s.control:
            p = a.s.paths
        else:
            p = p.next
        if p == a.s.control:
            p = p.next
        if p is NULL:
            break
    session_said(&a.s)
    ways_sweep(a)
    while True:
        e = session_next_ready(&a.s, &bits)
        if e is NULL:
            break
        end_release(e, &a.s.pins)
    while session_next_offer(&a.s) is not NULL:
        pass
    return 0


cdef int arena_close(nc_arena_of_one* a) noexcept nogil:
    cdef int i
    cdef int rc = 0
    session_free(&a.s)
    for i in range(4):
        if a.ends[i] is not NULL and a.ends[i].refs != 1:
            rc = 40                             # the session is gone: only the application's reference may be left
        arena_drop(a, i)
    if a.s.pins is not NULL:
        rc = 41                                 # nothing was pinned here
    keys_free(a.s.sealer.keys, CACHE)
    keys_free(a.peer.keys, CACHE)
    free(a.tx)
    free(a)
    return rc


# Steps: op u8; below 0x80 a record (length u16, frames; the op has its tag and whether it comes in two pieces), else an
# act of application or clock.
cdef int fuzz_session_frames(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_arena_of_one* a = arena_make()
    cdef int rc, end
    if a is NULL:
        return 0
    rc = arena_flush(a)
    if rc == 0:
        rc = frames_steps(a, data, n)
    end = arena_close(a)
    return rc if rc else end


cdef int frames_steps(nc_arena_of_one* a, const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_rd r
    cdef uint8_t op = 0
    cdef uint8_t[32] secret
    cdef const uint8_t* body = NULL
    cdef uint8_t* rec
    cdef nc_arena_way* way
    cdef uint16_t length = 0
    cdef size_t take, head
    cdef uint64_t tag
    cdef int size, rc
    memset(secret, 9, 32)
    rd_init(&r, data, n)
    while rd_u8(&r, &op) == 0:
        if op < 0x80:
            if rd_u16(&r, &length) < 0:
                return 0
            take = length if length < rd_left(&r) else rd_left(&r)
            rd_bytes(&r, take, &body)
            if a.ways[a.at].path is NULL:
                continue                        # no path, and its key is gone: nothing to seal with
            tag = op & 31
            if 2 <= tag < 16:
                tag = 0
            head = record_head_size(tag)
            rec = <uint8_t*>malloc(head + take + 16)
            if rec is NULL or take > <size_t>defs.RECORD_BODY_MAX:
                free(rec)
                return 0
            memcpy(rec + head, body, take)
            way = &a.ways[a.at]
            size = record_seal(&a.peer, way.key, way.number, tag, rec, take, NULL, 0,
                               secret if way.number == 0 else NULL, a.now)
            if size < 0:
                free(rec)
                return 50
            way.number += 1
            head = <size_t>size >> 1 if op & 0x40 else 0        # in two pieces
            if way.path is not NULL and way.path.alive:
                if head == 0 or session_recv(&a.s, way.path, rec, head, a.now) >= 0:
                    session_recv(&a.s, way.path, rec + head, <size_t>size - head, a.now)
                if a.s.state != SESSION_OVER and not way.path.alive and a.s.sealer.keys.limits.failed_max \
                        and way.path.rx_number < way.number - 1:
                    free(rec)
                    return 51                   # a record of ours did not open
            ways_sweep(a)
            free(rec)
        else:
            rc = app_step(a, op)
            if rc:
                return rc
        if not op & 0x20:
            rc = arena_flush(a)
            if rc:
                return rc
        rc = arena_check(a)
        if rc:
            return rc
    return 0


cdef int app_step(nc_arena_of_one* a, uint8_t op) noexcept nogil:
    cdef int i = op & 3
    cdef int act = (op >> 2) & 7
    cdef nc_end* e = a.ends[i]
    cdef int64_t at
    if op & 0x40 and act >= 4:
        rendezvous_step(a, act, i)
        return 0
    if op & 0x40:
        # The clock: to the next deadline, or two seconds.
        at = session_deadline(&a.s)
        a.now = at if a.now < at < TIMER_NEVER and act & 1 else a.now + (10000000 if act & 2 else 2000000000)
        session_on_deadline(&a.s, a.now)
        ways_sweep(a)
        return 0
    if act == 0:
        arena_open(a, i)
        return 0
    if e is NULL:
        return 0
    if act == 1:
        if e.out.lossy:
            lossy_append(&e.out, a.tx, 700, 0, NULL, a.now + TTL_MS * 1000000 if e.out.ttl_ms else 0, &a.s.pins)
        else:
            out_append(&e.out, a.tx, 700, 0, NULL)
        end_mark(e)
    elif act == 2:
        return arena_take(a, i)
    elif act == 3:
        out_close(&e.out)
        end_mark(e)
    elif act == 4:
        if e.paired:
            in_over(e.in_, OVER_STOPPED, 0, NULL, 0)
            in_discard(e.in_)
        else:
            e.over = OVER_STOPPED
        end_request(e, REQ_STOP)
    elif act == 5:
        if not e.over_by_us and e.over_code == 0:
            e.over_by_us = 1
            e.over_code = e.abort_code = 7
            out_end(&e.out, OVER_ABORT)
            if e.paired:
                in_over(e.in_, OVER_ABORT, 7, NULL, 0)
                in_discard(e.in_)
            else:
                e.over = OVER_ABORT
            end_request(e, REQ_ABORT)
    elif act == 6:
        if e.out.over == OVER_NOT and not e.out.closing:
            e.end_code = 8
            out_end(&e.out, OVER_ABORT_AFTER)
            end_request(e, REQ_END_AFTER)
        else:
            e.ask_taken = e.out.accepted
            end_request(e, REQ_ASK)
    else:
        arena_drop(a, i)
    return 0


# Offers made, wanted back, and receivers that wait for one; the secret of a ratchet; keys that are used up.
cdef void rendezvous_step(nc_arena_of_one* a, int act, int i) noexcept nogil:
    cdef nc_end* e = a.ends[i]
    cdef uint8_t[32] secret
    cdef uint64_t last
    if act == 6 and i == 3:
        path_step(a)
        return
    if act == 6 and i == 1:
        path_more(a)
        return
    if act == 7 and i == 3:
        a.s.sealer.keys.limits.failed_max = 0               # so many records did not open that none may be tried
        return
    if act == 7:
        memset(secret, 5, 32)
        session_ratchet_secret(&a.s, 1, secret)
        session_ticket_send(&a.s, 9, secret, 32)
        return
    if i != 2:
        return
    if e is NULL:
        if act == 4:                                # "c" without a policy
            memset(secret, 0, 32)
            a.ends[i] = end_open(&a.s, defs.PREFACE_NAME, b"c", 1, 1, secret, 1, 0, 0, 0)
        return
    if e.out.lossy:
        return                                      # nothing is offered there
    if act == 4:
        out_append(&e.out, a.tx, 300, APPEND_OFFER, NULL)
        end_mark(e)
    elif act == 5:
        if e.out.accepted:
            last = e.out.accepted - 1
            if out_offer_want(&e.out, last):
                end_request(e, REQ_WITHDRAW)
            out_offer_let_go(&e.out, last)
    else:
        store_seq_u32(&e.parked, 1 - e.parked)
        end_request(e, REQ_WANT)


# What is over is forgotten: the next record goes on a path that lives, if there is one.
cdef void ways_sweep(nc_arena_of_one* a) noexcept nogil:
    cdef int i
    for i in range(2):
        if a.ways[i].path is not NULL and not a.ways[i].path.alive:
            a.ways[i].path = NULL
            keys_path_remove(a.peer.keys, CACHE, a.ways[i].key, a.now)
    if a.ways[a.at].path is NULL and a.ways[1 - a.at].path is not NULL:
        a.at = 1 - a.at
    session_forget_gone(&a.s)


# All paths are lost, and another one comes: the attacker has got as many of our records as it likes.
cdef void path_step(nc_arena_of_one* a) noexcept nogil:
    cdef uint8_t[32] secret
    cdef uint64_t span, acked
    while a.s.paths is not NULL:
        session_path_lost(&a.s, a.s.paths, a.now)
    ways_sweep(a)
    if a.s.state != SESSION_SUSPENDED:
        return
    memset(secret, 9, 32)
    acked = a.s.last.acked
    span = a.s.last.tx_number - acked + 1
    a.path_id += 2
    if session_resume(&a.s, a.path_id, a.s.last.id, acked + (a.path_id * 7 + a.path_id) % span, secret, NULL, a.now,
                      &a.ways[a.at].path) < 0:
        a.ways[a.at].path = NULL
        return
    a.ways[a.at].key = keys_path_add(a.peer.keys, a.path_id, 1)
    a.ways[a.at].number = 0


# A second path; with two of them it goes on over the other one, or changes what they are used for.
cdef void path_more(nc_arena_of_one* a) noexcept nogil:
    cdef uint8_t[32] secret
    cdef nc_arena_way* other = &a.ways[1 - a.at]
    if other.path is not NULL:
        a.at = 1 - a.at
        session_mode(&a.s, <int>(a.path_id >> 1) % 4, 2, 1, a.now)
        return
    memset(secret, 9, 32)
    a.path_id += 2
    if session_add(&a.s, a.path_id, secret, NULL, a.now, &other.path) < 0:
        other.path = NULL
        return
    other.key = keys_path_add(a.peer.keys, a.path_id, 1)
    other.number = 0
    ways_sweep(a)


# The bytes of the input as they are, in pieces given by the first byte; nothing of them may be believed.
cdef int fuzz_session_raw(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_arena_of_one* a
    cdef uint8_t* copy
    cdef size_t step, k
    cdef size_t at = 1
    cdef int rc, end
    if n == 0:
        return 0
    a = arena_make()
    if a is NULL:
        return 0
    step = <size_t>data[0] + 1
    rc = arena_flush(a)
    while rc == 0 and at < n:
        k = step if step < n - at else n - at
        copy = <uint8_t*>malloc(k)
        if copy is NULL:
            break
        memcpy(copy, data + at, k)
        session_recv(&a.s, a.ways[0].path, copy, k, a.now)
        free(copy)
        at += k
        rc = arena_check(a)
        if a.s.stats.records_received or a.s.n_offers or a.ways[0].path.left_cap > 65537:
            rc = 60
        if not a.ways[0].path.alive:
            at = n                              # nothing more is read from such a path
    if rc == 0:
        rc = arena_flush(a)
    end = arena_close(a)
    return rc if rc else end
