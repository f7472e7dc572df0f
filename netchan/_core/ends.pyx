"""Ends of channels: opening and pairing by name, ending of channels and sessions, what applications ask for.

Layer: _core, rung h. Everything runs under the baton but the functions whose names begin with end_ (application, GIL);
see state.pxd.
Spec: docs/spec/session.md §2, §3, §6, §7.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove

from netchan._core cimport defs
from netchan._core.cursor cimport (
    nc_rd, rd_bytes, rd_init, rd_left, rd_u8, rd_varint, rd_vbytes, varint_len, varint_write,
)
from netchan._core.frame cimport name_is_valid
from netchan._core.idmap cimport idmap_next, idmap_pop, idmap_put
from netchan._core.leaf cimport (
    cas_u64, fetch_add_u32, fetch_or_u32, fetch_sub_u32, leaf_lock, leaf_unlock, load_acq_u32, load_acq_u64,
    store_rel_u32, store_rlx_u64, store_seq_u32, xchg_u32, xchg_u64,
)
from netchan._core.state cimport (
    CTL_ABORT, CTL_ASK, CTL_POS, CTL_STOP, CTL_WANT, CTL_WITHDRAW, EV_ACK, EV_RECV, EV_SEND, EV_STATE, NAME_BUCKETS,
    REQ_ABORT, REQ_ASK, REQ_END_AFTER, REQ_POS, REQ_STOP, REQ_WANT, REQ_WITHDRAW, SESSION_CLOSING, SESSION_OVER,
    SESSION_SUSPENDED, SESSION_UP, nc_end, nc_offer, nc_session, notify, want_ctl, want_data,
)
from netchan._core.budget cimport budget_leave, budget_return
from netchan._core.inbox cimport in_free, in_give_back, in_over, nc_in
from netchan._core.lossy cimport lossy_begin
from netchan._core.outbox cimport out_end, out_free, out_init, out_narrow, out_preface, out_rendezvous
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_FIN, OVER_LEFT, OVER_LOST, OVER_NOT, OVER_STOPPED
from netchan._core.segment cimport nc_seg

cdef enum:
    PREFACE_LOSSY = 1               # flags of a preface: SKIP may occur
    PREFACE_TRUNK = 2               # the trunk is wanted
    TTL_MS_MAX = 0x3FFFFFFF         # what a deadline of 4 bytes can say, 12 days


cdef int end_mark(nc_end* e) noexcept nogil:
    cdef nc_session* s = e.session
    cdef uint64_t head
    if xchg_u32(&e.dirty, 1) == 0:
        fetch_add_u32(&e.refs, 1)               # the list's own reference
        while True:
            head = load_acq_u64(<uint64_t*>&s.dirty_head)
            e.dirty_next = <nc_end*>head
            if cas_u64(<uint64_t*>&s.dirty_head, head, <uint64_t>e):
                break
    return 1 if xchg_u32(&s.dirty_any, 1) == 0 else 0


cdef int end_request(nc_end* e, uint32_t bits) noexcept nogil:
    fetch_or_u32(&e.requests, bits)
    return end_mark(e)


cdef void end_release(nc_end* e, nc_seg** pins) noexcept nogil:
    if fetch_sub_u32(&e.refs, 1) != 1:
        return
    out_free(&e.out, pins)
    if e.in_ is not NULL:
        in_free(e.in_)
        free(e.in_)
    free(e.auto)
    free(e)


cdef uint64_t hash_name(nc_session* s, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint64_t h = s.seed ^ (<uint64_t>n * <uint64_t>0x9E3779B97F4A7C15)
    cdef size_t i
    for i in range(n):
        h = (h ^ p[i]) * <uint64_t>0x100000001B3
        h ^= h >> 29
    return h ^ (h >> 32)


cdef nc_end* end_open(nc_session* s, uint8_t kind, const uint8_t* name, size_t name_len, uint64_t codec,
                      const uint8_t* schema16, uint64_t capacity_wanted, uint8_t overflow, uint64_t ttl_ms,
                      int trunk) noexcept nogil:
    cdef uint8_t[512] preface
    cdef uint8_t[8] head
    cdef size_t n = 0, h
    cdef nc_end* e
    cdef uint64_t first
    if kind == defs.PREFACE_TOKEN and name_len != <size_t>defs.TOKEN_SIZE:
        return NULL
    if kind == defs.PREFACE_NAME and not name_is_valid(name, name_len):
        return NULL
    e = <nc_end*>calloc(1, sizeof(nc_end))
    if e is NULL:
        return NULL
    e.session = s
    e.refs = 2                                  # one for the application, one for the session
    e.capacity_wanted = capacity_wanted
    e.overflow = e.overflow_wanted = overflow
    e.ttl_wanted = ttl_ms
    e.trunk_wanted = 1 if trunk and s.mine.trunk else 0
    e.codec = codec
    memcpy(e.schema, schema16, 16)
    memcpy(e.name, name, name_len)
    e.name_len = <uint16_t>name_len
    e.kind = kind
    e.name_hash = hash_name(s, name, name_len)
    out_init(&e.out, 0)
    # Preface, wire.md §6.3.
    preface[n] = kind
    n += 1
    if kind == defs.PREFACE_NAME:
        n += varint_write(preface + n, name_len)
    memcpy(preface + n, name, name_len)
    n += name_len
    n += varint_write(preface + n, codec)
    memcpy(preface + n, schema16, 16)
    n += 16
    n += varint_write(preface + n, capacity_wanted)
    preface[n] = 1                              # class: normal
    preface[n + 1] = (PREFACE_LOSSY if may_lose(overflow, ttl_ms) else 0) | (PREFACE_TRUNK if e.trunk_wanted else 0)
    preface[n + 2] = 0                          # compression
    n += 3
    if overflow:
        n += varint_write(preface + n, defs.PREFACE_OVERFLOW)
        preface[n] = 1
        preface[n + 1] = overflow
        n += 2
    if ttl_ms:
        n += varint_write(preface + n, defs.PREFACE_TTL)
        preface[n] = <uint8_t>varint_len(ttl_ms)
        n += 1
        n += varint_write(preface + n, ttl_ms)
    h = varint_write(head, n)
    memmove(preface + h, preface, n)
    memcpy(preface, head, h)
    # Credit before the other side has opened (session.md §4); the peer's figures are fixed since the handshake.
    first = s.peer.initial_msgs
    if capacity_wanted and capacity_wanted - 1 < first:
        first = capacity_wanted - 1
    e.out.max_msgs = first
    e.out.max_bytes = s.peer.initial_bytes
    if may_lose(overflow, ttl_ms):
        lossy_begin(&e.out, kept(overflow, capacity_wanted - 1 if capacity_wanted else defs.DEFAULT_CAPACITY), ttl_ms)
    if out_preface(&e.out, preface, n + h) < 0:
        free(e)
        return NULL
    leaf_lock(&s.open_lock)
    if s.open_tail is NULL:
        s.open_head = e
    else:
        s.open_tail.open_next = e
    s.open_tail = e
    leaf_unlock(&s.open_lock)
    return e


cdef nc_end* session_next_ready(nc_session* s, uint32_t* bits) noexcept nogil:
    cdef nc_end* e = s.ready_head
    if e is NULL:
        s.ready_any = 1 if s.new_head is not NULL and not s.new_head.seen else 0
        return NULL
    s.ready_head = e.ready_next
    e.in_ready = 0
    bits[0] = e.ready
    e.ready = 0
    return e


cdef nc_offer* session_next_offer(nc_session* s) noexcept nogil:
    cdef nc_offer* o = s.new_head
    if o is NULL:
        return NULL
    s.new_head = o.queue_next
    if s.new_head is NULL:
        s.new_tail = NULL
    s.n_new -= 1
    o.queue_next = NULL
    o.seen = 1
    return o


# 1: values of such a direction may be dropped after they were accepted: it has SKIP (session.md §4.2).
cdef inline int may_lose(uint8_t overflow, uint64_t ttl_ms) noexcept nogil:
    return 1 if overflow == defs.OVERFLOW_DROP_OLD or overflow == defs.OVERFLOW_LATEST or ttl_ms else 0


# How many untaken values stay when more come; 0: all, what does not fit is not accepted.
cdef inline uint64_t kept(uint8_t overflow, uint64_t capacity) noexcept nogil:
    if overflow == defs.OVERFLOW_LATEST:
        return 1
    return capacity if overflow == defs.OVERFLOW_DROP_OLD else 0


# 1: what one codec encodes the other decodes (wire.md §8).
cdef int codecs_fit(nc_end* e, nc_offer* o) noexcept nogil:
    if e.codec == o.codec:
        return 1 if memcmp(e.schema, o.schema, 16) == 0 else 0
    if e.codec in (defs.CODEC_BYTES, defs.CODEC_ARRAY) or o.codec in (defs.CODEC_BYTES, defs.CODEC_ARRAY):
        return 0
    return 1 if e.codec == defs.CODEC_ANY or o.codec == defs.CODEC_ANY else 0


cdef void pair(nc_session* s, nc_end* e, nc_offer* o) noexcept nogil:
    cdef nc_in* i = o.in_
    cdef uint64_t mine = e.capacity_wanted, theirs = o.capacity_wanted
    cdef uint64_t capacity = defs.DEFAULT_CAPACITY
    cdef uint8_t theirs_overflow = o.overflow if o.overflow else e.overflow_wanted
    cdef uint64_t ttl = e.ttl_wanted if e.ttl_wanted else o.ttl_ms
    cdef uint64_t their_ttl = o.ttl_ms if o.ttl_ms else e.ttl_wanted
    if mine and theirs:
        capacity = (mine if mine < theirs else theirs) - 1
    elif mine or theirs:
        capacity = (mine | theirs) - 1
    e.overflow = e.overflow_wanted if e.overflow_wanted else o.overflow
    if capacity == 0 and (e.overflow > defs.OVERFLOW_BLOCK or o.overflow > defs.OVERFLOW_BLOCK or ttl or their_ttl
                          or o.flags & PREFACE_LOSSY):
        capacity = 1                            # a policy about what does not fit needs a place where it could
    e.capacity = capacity
    e.peer_codec = o.codec
    memcpy(e.peer_schema, o.schema, 16)
    idmap_pop(&s.offers, i.id)
    if idmap_put(&s.ins, i.id, e) < 0:
        fail(s, defs.CLOSE_INTERNAL)
    fetch_add_u32(&e.refs, 1)                   # what follows may end both directions and with them the session's hold
    i.capacity = capacity if capacity else <uint64_t>defs.OFFERS_MAX
    i.rendezvous = 1 if capacity == 0 else 0
    i.window = defs.STREAM_BYTES_MIN if s.ins.len <= <uint32_t>defs.FLOOR_STREAMS else defs.STREAM_BYTES_LOW
    store_rlx_u64(&i.pos_at_msgs, 0)
    s.n_offers -= 1
    s.peer_max += 1
    if s.peer_max - s.peer_max_told >= 64 or s.peer_max_told * 2 < ((s.next_in >> 1) - 8) * 2 + 256:
        s.max_streams_due = 1
    e.in_ = i
    if capacity == 0:
        out_rendezvous(&e.out)
    e.trunk = 1 if e.trunk_wanted and o.flags & PREFACE_TRUNK else 0
    i.keep = kept(theirs_overflow, capacity)
    i.lossy |= may_lose(theirs_overflow, their_ttl)
    if may_lose(e.overflow, ttl):
        lossy_begin(&e.out, kept(e.overflow, capacity), ttl)
    if not kept(e.overflow, capacity):
        out_narrow(&e.out, capacity if capacity else <uint64_t>defs.OFFERS_MAX)
    if load_acq_u32(&e.over) == OVER_ABORT:
        # Aborted before there was anything to abort: nothing of what is here is given out.
        in_over(i, OVER_ABORT, e.over_code, e.reason, e.reason_len)
        i.stopped = 1
    store_seq_u32(&e.paired, 1)
    if not codecs_fit(e, o):
        e.abort_code = defs.CODE_TYPE_MISMATCH
        fetch_or_u32(&e.requests, REQ_ABORT)
    if o.aborted:
        peer_aborted(s, e, o.aborted & defs.ABORT_CHANNEL, o.abort_code, NULL, 0)
    if not e.in_done:
        want_ctl(s, e, CTL_POS)
    take_requests(s, e)                         # a stop that waited for a stream to stop
    notify(s, e, EV_STATE | EV_RECV | EV_SEND | EV_ACK)
    drop_offer(s, o)
    end_release(e, &s.pins)


cdef void unqueue_offer(nc_session* s, nc_offer* o) noexcept nogil:
    cdef nc_offer* at = s.new_head
    cdef nc_offer* before = NULL
    while at is not NULL and at is not o:
        before = at
        at = at.queue_next
    if at is NULL:
        return
    if before is NULL:
        s.new_head = o.queue_next
    else:
        before.queue_next = o.queue_next
    if s.new_tail is o:
        s.new_tail = before
    s.n_new -= 1


# An offer of this name that nobody has opened, taken off its chain; NULL: none.
cdef nc_offer* take_offer(nc_session* s, nc_end* e) noexcept nogil:
    cdef nc_offer** link = &s.offer_names[<uint32_t>e.name_hash % NAME_BUCKETS]
    cdef nc_offer* o
    while link[0] is not NULL and not (link[0].name_hash == e.name_hash and link[0].name_len == e.name_len
                                       and link[0].kind == e.kind and memcmp(link[0].name, e.name, e.name_len) == 0):
        link = &link[0].next
    o = link[0]
    if o is not NULL:
        link[0] = o.next
    return o


# Opened after the session has ended: what the other side had sent under this name can still be taken (api R19).
cdef void open_late(nc_session* s, nc_end* e) noexcept nogil:
    cdef nc_offer* o = take_offer(s, e)
    if o is not NULL:
        idmap_pop(&s.offers, o.in_.id)
        s.n_offers -= 1
        e.in_ = o.in_
        e.peer_codec = o.codec
        memcpy(e.peer_schema, o.schema, 16)
        if not codecs_fit(e, o):
            e.over_code = defs.CODE_TYPE_MISMATCH
            in_over(e.in_, OVER_ABORT, defs.CODE_TYPE_MISMATCH, NULL, 0)
        elif o.aborted:
            e.over_code = o.abort_code
        e.capacity = o.capacity_wanted - 1 if o.capacity_wanted else defs.DEFAULT_CAPACITY
        store_seq_u32(&e.paired, 1)
        drop_offer(s, o)
    end_cut(s, e)
    end_release(e, &s.pins)


# An offer that has been opened: off the lists it may be on, and gone. Its stream lives on in the end.
cdef void drop_offer(nc_session* s, nc_offer* o) noexcept nogil:
    cdef nc_offer** link = &s.offer_pos
    if not o.seen:
        unqueue_offer(s, o)                     # the application opened it before it was told of it
    while link[0] is not NULL and link[0] is not o:
        link = &link[0].pos_next
    if link[0] is o:
        link[0] = o.pos_next
    free(o)


# Gives ids to new ends, in the order in which they were opened, as far as the peer allows.
cdef void bind_opens(nc_session* s) noexcept nogil:
    cdef nc_end* e
    cdef nc_offer* o
    cdef nc_end** link
    cdef uint32_t bucket
    while s.opened < s.max_streams:
        leaf_lock(&s.open_lock)
        e = s.open_head
        if e is not NULL:
            s.open_head = e.open_next
            if s.open_head is NULL:
                s.open_tail = NULL
        leaf_unlock(&s.open_lock)
        if e is NULL:
            return
        e.open_next = NULL
        if s.state == SESSION_OVER:
            open_late(s, e)
            continue
        e.out.id = s.next_out
        if idmap_put(&s.outs, e.out.id, e) < 0:
            # Too many channels: this one is over before it began; its reference of the session ends here.
            e.over_code = defs.CODE_LIMIT
            e.over_by_us = 1
            out_end(&e.out, OVER_ABORT)
            store_rel_u32(&e.over, OVER_ABORT)
            notify(s, e, EV_STATE | EV_RECV | EV_SEND | EV_ACK)
            end_release(e, &s.pins)
            continue
        s.next_out += 2
        s.opened += 1
        e.bound = 1
        want_data(s, e)
        bucket = <uint32_t>e.name_hash % NAME_BUCKETS
        o = take_offer(s, e)
        if o is not NULL:
            pair(s, e, o)
        else:
            link = &s.end_names[bucket]
            while link[0] is not NULL:
                link = &link[0].name_next
            link[0] = e
            e.name_next = NULL
            e.unpaired = 1


# A reference that its giver took back before the value was received: nobody will open it.
cdef void forget_offer(nc_session* s, nc_offer* o) noexcept nogil:
    cdef nc_offer** link = &s.offer_names[<uint32_t>o.name_hash % NAME_BUCKETS]
    while link[0] is not NULL and link[0] is not o:
        link = &link[0].next
    if link[0] is o:
        link[0] = o.next
    idmap_pop(&s.offers, o.in_.id)
    in_free(o.in_)
    free(o.in_)
    s.n_offers -= 1
    s.peer_max += 1
    s.max_streams_due = 1
    drop_offer(s, o)


# Reads the preface of an offered stream. NC_OK or NC_EFRAME, NC_EUNKNOWN (unknown odd field).
cdef int read_preface(nc_offer* o) noexcept nogil:
    cdef nc_rd r
    cdef nc_rd field
    cdef uint8_t kind, klass
    cdef const uint8_t* p
    cdef size_t n
    cdef uint64_t t
    rd_init(&r, o.in_.preface, o.in_.preface_len)
    if rd_u8(&r, &kind) < 0 or kind > defs.PREFACE_TOKEN:
        return defs.NC_EFRAME
    o.kind = kind
    if kind == defs.PREFACE_TOKEN:
        n = defs.TOKEN_SIZE
        if rd_bytes(&r, n, &p) < 0:
            return defs.NC_EFRAME
    elif rd_vbytes(&r, defs.NAME_MAX, &p, &n) < 0 or not name_is_valid(p, n):
        return defs.NC_EFRAME
    memcpy(o.name, p, n)
    o.name_len = <uint16_t>n
    if rd_varint(&r, &o.codec) < 0 or rd_bytes(&r, 16, &p) < 0:
        return defs.NC_EFRAME
    memcpy(o.schema, p, 16)
    if (rd_varint(&r, &o.capacity_wanted) < 0 or rd_u8(&r, &klass) < 0 or rd_u8(&r, &o.flags) < 0
            or rd_varint(&r, &t) < 0):
        return defs.NC_EFRAME
    if klass > 2 or o.flags > 7 or o.capacity_wanted > (<uint64_t>1 << 40):
        return defs.NC_EFRAME
    while rd_left(&r):
        if rd_varint(&r, &t) < 0 or rd_vbytes(&r, defs.PREFACE_MAX, &p, &n) < 0:
            return defs.NC_EFRAME
        if t < defs.FRAME_EXTENSION:
            return defs.NC_EFRAME
        if t & 1:
            return defs.NC_EUNKNOWN
        if t == defs.PREFACE_OVERFLOW:
            if n != 1 or p[0] < defs.OVERFLOW_BLOCK or p[0] > defs.OVERFLOW_DISCONNECT:
                return defs.NC_EFRAME
            o.overflow = p[0]
        elif t == defs.PREFACE_TTL:
            rd_init(&field, p, n)
            if rd_varint(&field, &o.ttl_ms) < 0 or rd_left(&field) or o.ttl_ms == 0 or o.ttl_ms > TTL_MS_MAX:
                return defs.NC_EFRAME
    if o.flags & PREFACE_LOSSY:
        o.in_.lossy = 1
    free(o.in_.preface)
    o.in_.preface = NULL
    return defs.NC_OK


# The preface of an offered stream is complete: pair it or put it before the application.
cdef void offer_ready(nc_session* s, nc_offer* o) noexcept nogil:
    cdef nc_end** link
    cdef nc_offer** at
    cdef nc_end* e
    cdef uint32_t bucket
    cdef int rc = read_preface(o)
    if rc < 0:
        fail(s, defs.CLOSE_UNSUPPORTED if rc == defs.NC_EUNKNOWN else defs.CLOSE_PROTOCOL)
        return
    if o.capacity_wanted and o.capacity_wanted - 1 < o.in_.granted_msgs:
        o.in_.granted_msgs = o.capacity_wanted - 1
        if o.in_.started > o.in_.granted_msgs:
            fail(s, defs.CLOSE_CREDIT)          # more in the first record than its own figure allows
            return
    o.name_hash = hash_name(s, o.name, o.name_len)
    bucket = <uint32_t>o.name_hash % NAME_BUCKETS
    link = &s.end_names[bucket]
    while link[0] is not NULL and not (link[0].name_hash == o.name_hash and link[0].name_len == o.name_len
                                       and link[0].kind == o.kind and memcmp(link[0].name, o.name, o.name_len) == 0):
        link = &link[0].name_next
    if link[0] is not NULL:
        e = link[0]
        link[0] = e.name_next
        e.name_next = NULL
        e.unpaired = 0
        o.seen = 1                              # never queued
        pair(s, e, o)
        return
    at = &s.offer_names[bucket]
    while at[0] is not NULL:
        at = &at[0].next
    at[0] = o
    if o.kind == defs.PREFACE_TOKEN:
        o.seen = 1                              # nobody opens it who has not got the value that it came with
        return
    if s.new_tail is NULL:
        s.new_head = o
    else:
        s.new_tail.queue_next = o
    s.new_tail = o
    s.n_new += 1
    s.ready_any = 1


cdef void drop_end_name(nc_session* s, nc_end* e) noexcept nogil:
    cdef nc_end** link = &s.end_names[<uint32_t>e.name_hash % NAME_BUCKETS]
    while link[0] is not NULL and link[0] is not e:
        link = &link[0].name_next
    if link[0] is e:
        link[0] = e.name_next
    e.unpaired = 0


# A fault of the peer (or ours): the session ends with this code, said to the peer by the next session_send.
cdef void fail(nc_session* s, uint16_t code) noexcept nogil:
    if s.state == SESSION_UP:
        s.abrupt = 1
        session_close(s, code, NULL, 0)


# Cuts both directions of an end because the session is over.
cdef void end_cut(nc_session* s, nc_end* e) noexcept nogil:
    cdef int why = s.close_code
    cdef int said = why == defs.CLOSE_EXCEPTION or why == defs.CLOSE_PROCESS_EXIT or why == defs.CLOSE_HANDED_OVER
    cdef uint64_t code = 0
    cdef uint32_t over
    cdef int clean = why == defs.CLOSE_NONE and not s.abrupt
    if why == defs.CLOSE_EXCEPTION:
        code = defs.CODE_LEFT_BY_EXCEPTION
    elif why == defs.CLOSE_PROCESS_EXIT:
        code = defs.CODE_PROCESS_EXIT
    elif why == defs.CLOSE_HANDED_OVER:
        code = defs.CODE_HANDED_OVER
    if said and not s.abrupt:
        if e.over_code == 0 and not e.over_by_us:       # else it was over before, for a reason of its own
            e.over_code = code
            e.over_by_us = s.close_by_us
        out_end(&e.out, OVER_ABORT)
        if e.in_ is not NULL:
            over = load_acq_u32(&e.in_.over)
            if over == OVER_NOT or (over == OVER_ABORT_AFTER and e.in_.received < e.in_.final):
                e.in_.has_final = 1
                e.in_.final = e.in_.received            # nothing more comes: what is here is all
                in_over(e.in_, OVER_ABORT_AFTER, code, s.reason, s.reason_len)
        else:
            store_rel_u32(&e.over, OVER_ABORT)
    else:
        out_end(&e.out, OVER_LEFT if clean else OVER_LOST)
        if e.in_ is not NULL:
            in_over(e.in_, OVER_LOST, 0, NULL, 0)
        else:
            store_rel_u32(&e.over, OVER_LEFT if clean else OVER_LOST)
    notify(s, e, EV_STATE | EV_RECV | EV_SEND | EV_ACK)


cdef void session_ended(nc_session* s) noexcept nogil:
    cdef uint32_t i = 0
    cdef nc_end* e
    if s.state == SESSION_OVER:
        return
    s.state = SESSION_OVER
    store_seq_u32(&s.over, 1)
    store_seq_u32(&s.suspended, 0)
    # Ends that never got an id are cut too.
    s.max_streams = ~<uint64_t>0 >> 1
    bind_opens(s)
    while True:
        e = <nc_end*>idmap_next(&s.outs, &i)
        if e is NULL:
            break
        end_cut(s, e)
    i = 0
    while True:
        e = <nc_end*>idmap_next(&s.ins, &i)
        if e is NULL:
            break
        if e.out_done:                          # else it was in the first table
            end_cut(s, e)
    budget_leave(&s.budget)
    s.ready_any = 1


cdef void session_close(nc_session* s, uint16_t code, const uint8_t* reason, size_t n) noexcept nogil:
    cdef int nobody = s.state == SESSION_SUSPENDED
    if s.state != SESSION_UP and not nobody:
        return
    s.state = SESSION_CLOSING
    store_seq_u32(&s.suspect, 0)                # what is left to say goes over this path; nobody looks for another
    s.close_by_us = 1
    s.close_code = code
    if code == defs.CLOSE_DUPLICATE:
        s.abrupt = 1                            # nobody wanted to leave: lost on both sides
    if n > <size_t>defs.REASON_MAX:
        n = defs.REASON_MAX
    if n:
        memcpy(s.reason, reason, n)
    s.reason_len = <uint16_t>n
    if nobody:
        session_ended(s)                        # no path on which to say it


# Both directions said all they have to say: the session forgets the end.
cdef void settle_end(nc_session* s, nc_end* e) noexcept nogil:
    cdef nc_in* i = e.in_
    cdef uint32_t over
    if e.bound and not e.out_done and e.out.fin_acked and load_acq_u64(&e.out.taken) >= e.out.accepted:
        e.out_done = 1
        out_end(&e.out, OVER_FIN)
    elif e.bound and not e.out_done and e.abort_flags & defs.ABORT_AFTER_DATA and not e.ctl & CTL_ABORT \
            and e.out.acked >= e.out.appended:
        e.out_done = 1                          # ended behind its data, and all of it is over there
    if i is not NULL and not e.in_done:
        over = load_acq_u32(&i.over)
        # POS that is still to be said may have been said on a path that does not answer for it.
        if over == OVER_FIN and load_acq_u64(&i.take_off) == load_acq_u64(&i.end) and not e.ctl & CTL_POS \
                and i.told_taken == load_acq_u64(&i.taken) and i.told_received == i.received:
            e.in_done = 1
        elif over == OVER_ABORT_AFTER and i.received >= i.final:
            e.in_done = 1
        elif (over == OVER_STOPPED or over == OVER_ABORT) and i.has_final and i.received >= i.final:
            e.in_done = 1
    # A reference that was taken back before anybody opened it: nobody will.
    if e.kind == defs.PREFACE_TOKEN and e.unpaired and e.out_done and e.out.sent and e.ctl == 0 \
            and e.abort_flags & defs.ABORT_CHANNEL and e.abort_code == <uint64_t>defs.CODE_DROPPED:
        e.in_done = 1
    # Where the session may be resumed what was sent may have to be sent again.
    if e.out_done and e.in_done and e.bound and e.ctl == 0 and (s.mine.lease_ns == 0 or e.out.acked >= e.out.sent):
        e.bound = 0
        if e.group is not NULL:
            e.group.end = NULL                  # group_sweep frees it
            e.group = NULL
            s.group_orphans = 1
        idmap_pop(&s.outs, e.out.id)
        if i is not NULL:
            idmap_pop(&s.ins, i.id)
            in_give_back(i, &s.budget)
            budget_return(&s.budget, i.grown)
            i.grown = 0
        if e.unpaired:
            drop_end_name(s, e)
        end_release(e, &s.pins)


# ABORT for the peer's stream of e (or of the whole channel).
cdef void peer_aborted(nc_session* s, nc_end* e, uint8_t flags, uint64_t code, const uint8_t* reason,
                       size_t n) noexcept nogil:
    if e.in_ is not NULL and not (flags & defs.ABORT_AFTER_DATA):
        in_over(e.in_, OVER_ABORT, code, reason, n)
        e.in_done = 1
    if flags & defs.ABORT_CHANNEL:
        if e.over_code == 0 and not e.over_by_us:           # the first one counts
            e.over_code = code
        if not e.out_done:
            if not e.out.fin_sent:
                e.abort_flags = 0
                e.abort_code = code
                want_ctl(s, e, CTL_ABORT)
            e.out_done = 1
        out_end(&e.out, OVER_ABORT)
    notify(s, e, EV_RECV | EV_SEND | EV_ACK | EV_STATE)
    settle_end(s, e)


# Acts on what the application asked of one end.
cdef void take_requests(nc_session* s, nc_end* e) noexcept nogil:
    cdef uint32_t bits = xchg_u32(&e.requests, 0)
    if bits & REQ_ABORT and not e.out_done:
        e.abort_flags = defs.ABORT_CHANNEL
        e.over_code = e.abort_code
        e.over_by_us = 1
        out_end(&e.out, OVER_ABORT)
        want_ctl(s, e, CTL_ABORT)
        e.out_done = 1
        if e.in_ is not NULL:
            in_over(e.in_, OVER_ABORT, e.abort_code, e.reason, e.reason_len)
            e.in_.stopped = 1
            in_give_back(e.in_, &s.budget)
    elif bits & REQ_ABORT and e.in_ is not NULL and not e.in_done:
        bits |= REQ_STOP                        # our direction has ended before: what is left is to stop theirs
    if bits & REQ_END_AFTER and not e.out_done and not e.out.closing:
        e.abort_flags = defs.ABORT_AFTER_DATA
        e.abort_code = e.end_code
        want_ctl(s, e, CTL_ABORT)
    if bits & REQ_STOP and e.in_ is not NULL and not e.in_done and not e.in_.stopped:
        in_over(e.in_, OVER_STOPPED, 0, NULL, 0)
        e.in_.stopped = 1
        in_give_back(e.in_, &s.budget)
        # Said also when all is here: the sender waits to hear that its values were taken, and they never will be.
        want_ctl(s, e, CTL_STOP)
    elif bits & REQ_STOP and e.in_ is NULL:
        fetch_or_u32(&e.requests, REQ_STOP)     # said as soon as there is a stream to stop
    if bits & REQ_ASK:
        want_ctl(s, e, CTL_ASK)
    if e.in_ is not NULL and bits & REQ_POS:
        want_ctl(s, e, CTL_POS)
    if bits & REQ_WITHDRAW and not e.out_done:
        want_ctl(s, e, CTL_WITHDRAW)
    if bits & REQ_WANT and e.in_ is not NULL and not e.in_done and load_acq_u32(&e.parked) != e.want_said:
        want_ctl(s, e, CTL_WANT)
    want_data(s, e)
    settle_end(s, e)


cdef void take_dirty(nc_session* s) noexcept nogil:
    cdef nc_end* e
    cdef nc_end* following
    cdef nc_end* ordered = NULL
    bind_opens(s)
    e = <nc_end*>xchg_u64(<uint64_t*>&s.dirty_head, 0)
    while e is not NULL:                        # the stack gives the newest first
        following = e.dirty_next
        e.dirty_next = ordered
        ordered = e
        e = following
    while ordered is not NULL:
        e = ordered
        ordered = e.dirty_next
        store_seq_u32(&e.dirty, 0)
        take_requests(s, e)
        end_release(e, &s.pins)
