"""One session: takes bytes apart into records and frames, moves the streams, and writes what is due.

Layer: _core, rung g. Sans-IO: bytes and the clock are arguments. It conducts; the algorithms are in stream, record, frame and keys.
Threads: everything here runs under the engine's baton but the functions whose names begin with end_ (application, GIL); see session.pxd.
Flow: session_recv -> record_open -> frame_next -> on_* ; session_send -> take_dirty -> control record -> one record per stream in turn.
Spec: docs/spec/session.md, docs/spec/wire.md §3, §5, §6.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from netchan._core cimport defs
from netchan._core.cursor cimport nc_rd, nc_wr, load_u16, rd_init, rd_left, rd_u8, rd_varint, rd_vbytes, rd_bytes, varint_len, varint_write, wr_init
from netchan._core.frame cimport (
    frame_next, frame_put_abort, frame_put_ack, frame_put_ask, frame_put_data_head, frame_put_max_streams,
    frame_put_ping, frame_put_ratchet, frame_put_rekey, frame_put_session_close, frame_put_stop, name_is_valid, nc_frame,
)
from netchan._core.idmap cimport idmap_free, idmap_get, idmap_init, idmap_next, idmap_pop, idmap_put
from netchan._core.leaf cimport (
    cas_u64, fetch_add_u32, fetch_or_u32, fetch_sub_u32, leaf_init, leaf_lock, leaf_unlock, load_acq_u32, load_acq_u64,
    load_seq_u32, store_rel_u32, store_seq_u32, store_rlx_u64, xchg_u32, xchg_u64,
)
from netchan._core.keys cimport keys_deadline, keys_may_update, keys_mix_announced, keys_tick, keys_update, keys_update_acked
from netchan._core.record cimport record_head_size, record_open, record_seal, record_size
from netchan._core.stream cimport (
    OVER_ABORT, OVER_ABORT_AFTER, OVER_FIN, OVER_LEFT, OVER_LOST, OVER_NOT, OVER_STOPPED, REASON_MAX, in_data,
    in_free, in_init, in_over, in_pos, in_pos_due, nc_in, nc_out, nc_seg, out_ack, out_end, out_free, out_init,
    out_limit, out_narrow, out_pass, out_pos, out_preface, out_read, out_ready, out_span,
)
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    CTL_POS = 1
    CTL_STOP = 2
    CTL_ABORT = 4
    CTL_ASK = 8
    NAME_BUCKETS = 64
    DIRECT_MIN = 2048               # payloads that lie together are sealed from where they are, from this size on
    ROUND_BYTES = 1024              # deficit round robin: least share of a stream's turn
    RECORD_SLACK = 64               # room kept for POS and ACK in a stream's record
    CONTROL_ROOM = 640              # least room in which a control record is begun
    SENT_RESERVE = 1024             # of SENT_MAX, kept for control: acknowledgements must go when data may not
    ACK_DELAY_US_MAX = 16777216     # a larger delay in an ACK is not believed

cdef int64_t PING_MAX_NS = 60 * 1000000000


# --- the application's side --------------------------------------------------------------------------------------

cdef inline void* load_ptr(void** p) noexcept nogil:
    return <void*>load_acq_u64(<uint64_t*>p)


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
    free(e)


cdef uint64_t hash_name(nc_session* s, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint64_t h = s.seed ^ (<uint64_t>n * <uint64_t>0x9E3779B97F4A7C15)
    cdef size_t i
    for i in range(n):
        h = (h ^ p[i]) * <uint64_t>0x100000001B3
        h ^= h >> 29
    return h ^ (h >> 32)


cdef nc_end* end_open(nc_session* s, const uint8_t* name, size_t name_len, uint64_t codec, const uint8_t* schema16,
                      uint64_t capacity_wanted) noexcept nogil:
    cdef uint8_t[512] preface
    cdef uint8_t[8] head
    cdef size_t n = 0, h
    cdef nc_end* e
    cdef uint64_t first
    if not name_is_valid(name, name_len):
        return NULL
    e = <nc_end*>calloc(1, sizeof(nc_end))
    if e is NULL:
        return NULL
    e.session = s
    e.refs = 2                                  # one for the application, one for the session
    e.capacity_wanted = capacity_wanted
    e.codec = codec
    memcpy(e.schema, schema16, 16)
    memcpy(e.name, name, name_len)
    e.name_len = <uint16_t>name_len
    e.name_hash = hash_name(s, name, name_len)
    out_init(&e.out, 0)
    # Preface, wire.md §6.3.
    preface[n] = 0
    n += 1
    n += varint_write(preface + n, name_len)
    memcpy(preface + n, name, name_len)
    n += name_len
    n += varint_write(preface + n, codec)
    memcpy(preface + n, schema16, 16)
    n += 16
    n += varint_write(preface + n, capacity_wanted)
    preface[n] = 1                              # class: normal
    preface[n + 1] = 0                          # flags
    preface[n + 2] = 0                          # compression
    n += 3
    h = varint_write(head, n)
    memmove(preface + h, preface, n)
    memcpy(preface, head, h)
    # Credit before the other side has opened (session.md §4); the peer's figures are fixed since the handshake.
    first = capacity_wanted - 1 if capacity_wanted and capacity_wanted - 1 < s.peer.initial_msgs else s.peer.initial_msgs
    e.out.max_msgs = first
    e.out.max_bytes = s.peer.initial_bytes
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


# --- lists of ends ---------------------------------------------------------------------------------------------------

cdef inline void notify(nc_session* s, nc_end* e, uint32_t bits) noexcept nogil:
    bits &= load_seq_u32(&e.waiting) | EV_STATE
    if bits == 0:
        return
    e.ready |= bits
    if not e.in_ready:
        e.in_ready = 1
        fetch_add_u32(&e.refs, 1)
        e.ready_next = s.ready_head
        s.ready_head = e
    s.ready_any = 1


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


cdef inline void want_ctl(nc_session* s, nc_end* e, uint8_t bits) noexcept nogil:
    e.ctl |= bits
    if not e.in_ctl:
        e.in_ctl = 1
        fetch_add_u32(&e.refs, 1)
        e.ctl_next = s.ctl_head
        s.ctl_head = e


cdef inline void want_data(nc_session* s, nc_end* e) noexcept nogil:
    # What was aborted before it began still says its name: ids and names keep their order (session.md §6).
    if e.active or not e.bound or (e.out_done and e.out.sent):
        return
    e.active = 1
    fetch_add_u32(&e.refs, 1)
    e.active_next = NULL
    if s.active_tail is NULL:
        s.active_head = e
    else:
        s.active_tail.active_next = e
    s.active_tail = e
    s.n_active += 1


cdef inline nc_end* pop_active(nc_session* s) noexcept nogil:
    cdef nc_end* e = s.active_head
    s.active_head = e.active_next
    if s.active_head is NULL:
        s.active_tail = NULL
    s.n_active -= 1
    e.active = 0
    return e


# --- opening and pairing (session.md §3) --------------------------------------------------------------------------------

# 1: what one codec encodes the other decodes (wire.md §8).
cdef int codecs_fit(nc_end* e, nc_offer* o) noexcept nogil:
    if e.codec == o.codec:
        return 1 if memcmp(e.schema, o.schema, 16) == 0 else 0
    if e.codec == defs.CODEC_BYTES or o.codec == defs.CODEC_BYTES:
        return 0
    return 1 if e.codec == defs.CODEC_ANY or o.codec == defs.CODEC_ANY else 0


cdef void pair(nc_session* s, nc_end* e, nc_offer* o) noexcept nogil:
    cdef nc_in* i = o.in_
    cdef uint64_t mine = e.capacity_wanted, theirs = o.capacity_wanted
    cdef uint64_t capacity = defs.DEFAULT_CAPACITY
    if mine and theirs:
        capacity = (mine if mine < theirs else theirs) - 1
    elif mine or theirs:
        capacity = (mine | theirs) - 1
    e.capacity = capacity
    e.peer_codec = o.codec
    memcpy(e.peer_schema, o.schema, 16)
    idmap_pop(&s.offers, i.id)
    if idmap_put(&s.ins, i.id, e) < 0:
        fail(s, defs.CLOSE_INTERNAL)
    fetch_add_u32(&e.refs, 1)                   # what follows may end both directions and with them the session's hold
    i.capacity = capacity if capacity else 1
    i.window = defs.STREAM_BYTES_MIN
    store_rlx_u64(&i.pos_at_msgs, 0)
    s.n_offers -= 1
    s.peer_max += 1
    if s.peer_max - s.peer_max_told >= 64 or s.peer_max_told * 2 < ((s.next_in >> 1) - 8) * 2 + 256:
        s.max_streams_due = 1
    e.in_ = i
    out_narrow(&e.out, capacity if capacity else 1)
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
                                       and memcmp(link[0].name, e.name, e.name_len) == 0):
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


# Reads the preface of an offered stream. NC_OK or NC_EFRAME, NC_ELIMIT (unknown odd field).
cdef int read_preface(nc_offer* o) noexcept nogil:
    cdef nc_rd r
    cdef uint8_t kind, klass
    cdef const uint8_t* p
    cdef size_t n
    cdef uint64_t t
    rd_init(&r, o.in_.preface, o.in_.preface_len)
    if rd_u8(&r, &kind) < 0 or kind != 0:
        return defs.NC_EFRAME
    if rd_vbytes(&r, defs.NAME_MAX, &p, &n) < 0 or not name_is_valid(p, n):
        return defs.NC_EFRAME
    memcpy(o.name, p, n)
    o.name_len = <uint16_t>n
    if rd_varint(&r, &o.codec) < 0 or rd_bytes(&r, 16, &p) < 0:
        return defs.NC_EFRAME
    memcpy(o.schema, p, 16)
    if rd_varint(&r, &o.capacity_wanted) < 0 or rd_u8(&r, &klass) < 0 or rd_u8(&r, &o.flags) < 0 or rd_varint(&r, &t) < 0:
        return defs.NC_EFRAME
    if klass > 2 or o.flags > 7 or o.capacity_wanted > (<uint64_t>1 << 40):
        return defs.NC_EFRAME
    while rd_left(&r):
        if rd_varint(&r, &t) < 0 or rd_vbytes(&r, defs.PREFACE_MAX, &p, &n) < 0:
            return defs.NC_EFRAME
        if t < defs.FRAME_EXTENSION:
            return defs.NC_EFRAME
        if t & 1:
            return defs.NC_ELIMIT
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
        fail(s, defs.CLOSE_UNSUPPORTED if rc == defs.NC_ELIMIT else defs.CLOSE_PROTOCOL)
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
                                       and memcmp(link[0].name, o.name, o.name_len) == 0):
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


# --- ending ------------------------------------------------------------------------------------------------------------

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
    s.ready_any = 1


cdef void session_close(nc_session* s, uint16_t code, const uint8_t* reason, size_t n) noexcept nogil:
    if s.state != SESSION_UP:
        return
    s.state = SESSION_CLOSING
    s.close_by_us = 1
    s.close_code = code
    if n > REASON_MAX:
        n = REASON_MAX
    if n:
        memcpy(s.reason, reason, n)
    s.reason_len = <uint16_t>n


cdef void session_path_lost(nc_session* s, int64_t now_ns) noexcept nogil:
    s.path.alive = 0
    if s.state == SESSION_OVER:
        return
    if s.state == SESSION_UP:
        s.abrupt = 1
        s.close_code = defs.CLOSE_TIMEOUT
    session_ended(s)


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
        if over == OVER_FIN and load_acq_u64(&i.take_off) == i.final and i.told_taken == load_acq_u64(&i.taken) \
                and i.told_received == i.received:
            e.in_done = 1
        elif over == OVER_ABORT_AFTER and i.received >= i.final:
            e.in_done = 1
        elif (over == OVER_STOPPED or over == OVER_ABORT) and i.has_final and i.received >= i.final:
            e.in_done = 1
    if e.out_done and e.in_done and e.bound and e.ctl == 0:
        e.bound = 0
        idmap_pop(&s.outs, e.out.id)
        if i is not NULL:
            idmap_pop(&s.ins, i.id)
            s.budget += <int64_t>i.grown
            i.grown = 0
        if e.unpaired:
            drop_end_name(s, e)
        end_release(e, &s.pins)


# --- frames of the peer ------------------------------------------------------------------------------------------------

# ABORT for the peer's stream of e (or of the whole channel).
cdef void peer_aborted(nc_session* s, nc_end* e, uint8_t flags, uint64_t code, const uint8_t* reason, size_t n) noexcept nogil:
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


cdef void on_abort(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_offer* o
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    if e is NULL:
        o = <nc_offer*>idmap_get(&s.offers, f.stream)
        if o is not NULL:
            if f.flags & defs.ABORT_AFTER_DATA:
                o.in_.has_final = 1
                o.in_.final = f.b
                in_over(o.in_, OVER_ABORT_AFTER, f.a, f.data, f.len)
            else:
                o.aborted = 1 | (f.flags & defs.ABORT_CHANNEL)
                o.abort_code = f.a
                in_over(o.in_, OVER_ABORT, f.a, f.data, f.len)
        return
    if f.flags & defs.ABORT_AFTER_DATA:
        if e.in_.has_final and e.in_.final != f.b or f.b < e.in_.received:
            fail(s, defs.CLOSE_FINAL_SIZE)
            return
        e.in_.has_final = 1
        e.in_.final = f.b
        in_over(e.in_, OVER_ABORT_AFTER, f.a, f.data, f.len)
    else:
        e.in_.has_final = 1
        e.in_.final = f.b
    peer_aborted(s, e, f.flags, f.a, f.data, f.len)


cdef void on_stop(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, f.stream)
    if e is NULL:
        return
    if not e.out_done:
        out_end(&e.out, OVER_STOPPED)
        if not e.out.fin_sent:
            e.abort_flags = 0
            e.abort_code = defs.CODE_STOPPED
            want_ctl(s, e, CTL_ABORT)
        e.out_done = 1
    notify(s, e, EV_SEND | EV_ACK | EV_STATE)
    settle_end(s, e)


cdef void on_pos(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, f.stream)
    cdef uint64_t had_msgs, had_bytes, had_received, had_taken
    cdef uint32_t bits = 0
    cdef int rc
    if e is NULL:
        # Ids below the next one were ours once and are forgotten: nothing waits for them.
        if f.stream >= s.next_out or (f.stream & 1) != s.role:
            fail(s, defs.CLOSE_PROTOCOL)
        return
    had_msgs = out_limit(&e.out)
    had_bytes = e.out.max_bytes
    had_received = e.out.received
    had_taken = e.out.taken
    rc = out_pos(&e.out, f.a, f.b, f.c, f.d, &s.pins)
    if rc < 0:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    if rc:
        if out_limit(&e.out) > had_msgs or e.out.max_bytes > had_bytes:
            bits |= EV_SEND
            want_data(s, e)
        if e.out.received > had_received or e.out.taken > had_taken:
            bits |= EV_ACK
        notify(s, e, bits)
        settle_end(s, e)


# The sender of a channel that nobody has opened here asks whether its bytes have come: they have, or it is said later.
cdef void answer_offer(nc_session* s, nc_offer* o) noexcept nogil:
    if not load_acq_u32(&o.in_.asked) or o.in_.received < o.in_.ask_received or o.in_.told_received >= o.in_.ask_received:
        return
    if not o.pos_due:
        o.pos_due = 1
        o.pos_next = s.offer_pos
        s.offer_pos = o


cdef void on_ask(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef nc_offer* o
    cdef nc_in* i
    if e is NULL:
        o = <nc_offer*>idmap_get(&s.offers, f.stream)
        if o is NULL:
            return
        i = o.in_
    else:
        i = e.in_
    if f.a > i.ask_received:
        i.ask_received = f.a
    if f.b > i.ask_taken:
        i.ask_taken = f.b
    store_rel_u32(&i.asked, 1)
    if e is NULL:
        answer_offer(s, o)
    elif in_pos_due(i):
        want_ctl(s, e, CTL_POS)


cdef void on_ack(nc_session* s, nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef nc_sent* x
    cdef nc_end* e
    cdef int64_t sample = -1
    cdef int64_t dev
    cdef uint64_t number
    if f.a != p.id:
        return
    if f.b >= p.tx_number or f.n != 0 or f.d != f.b:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    while p.acked <= f.b:
        x = &p.sent[p.acked & (p.sent_cap - 1)]
        if x.stream:
            e = <nc_end*>idmap_get(&s.outs, x.stream)
            if e is not NULL:
                out_ack(&e.out, x.upto, &s.pins)
                if e.abort_flags & defs.ABORT_AFTER_DATA:
                    settle_end(s, e)
        if x.eliciting:
            sample = now - x.at - (<int64_t>f.c * 1000 if f.c < ACK_DELAY_US_MAX else 0)
        p.acked += 1
    if s.rekey_state == 2 and p.acked > s.rekey_at:
        # The peer knows what to mix in: switch.
        s.rekey_state = 0
        if keys_update(s.sealer.keys, s.sealer.cache, s.ratchet_secret, 32) == defs.NC_OK:
            s.ratchets += 1
            s.epoch_at = p.tx_number
            s.epoch_waits = 1
            s.ping_due = 1
        ratchet_settled(s)
    if s.epoch_waits and p.acked > s.epoch_at:
        # A record of our newest epoch was acknowledged: the next update may come.
        s.epoch_waits = 0
        keys_update_acked(s.sealer.keys, s.sealer.keys.owner.send_epoch)
    if sample >= 0:
        if p.srtt == 0:
            p.srtt = sample
            p.rttvar = sample // 2
        else:
            dev = sample - p.srtt if sample > p.srtt else p.srtt - sample
            p.rttvar = (3 * p.rttvar + dev) // 4
            p.srtt = (7 * p.srtt + sample) // 8
    # Only a record that asks for an acknowledgement can be waited for.
    number = p.acked
    while number < p.tx_number and not p.sent[number & (p.sent_cap - 1)].eliciting:
        number += 1
    p.oldest_at = p.sent[number & (p.sent_cap - 1)].at if number < p.tx_number else 0


# A stream id of the peer that is not in a table: new, or closed.
cdef nc_offer* on_new_stream(nc_session* s, uint64_t id) noexcept nogil:
    cdef nc_offer* o
    if (id & 1) == s.role or id < 16:
        fail(s, defs.CLOSE_STREAMS)
        return NULL
    if id < s.next_in:
        return NULL                             # closed here: late bytes are dropped and counted
    # On the one stream path of this version ids come in order; a gap is a fault.
    if id != s.next_in or (id - 16) >> 1 >= s.peer_max:
        fail(s, defs.CLOSE_STREAMS)
        return NULL
    o = <nc_offer*>calloc(1, sizeof(nc_offer))
    if o is NULL:
        fail(s, defs.CLOSE_INTERNAL)
        return NULL
    o.in_ = <nc_in*>malloc(sizeof(nc_in))
    if o.in_ is NULL or idmap_put(&s.offers, id, o) < 0:
        free(o.in_)
        free(o)
        fail(s, defs.CLOSE_STREAMS)
        return NULL
    in_init(o.in_, id)
    o.in_.granted_msgs = s.mine.initial_msgs
    o.in_.granted_bytes = s.mine.initial_bytes
    o.in_.window = s.mine.initial_bytes
    s.next_in = id + 2
    s.n_offers += 1
    return o


cdef void on_data(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef nc_offer* o = NULL
    cdef nc_in* i
    cdef uint64_t had
    cdef uint8_t had_preface
    cdef int rc
    if e is not NULL:
        i = e.in_
    else:
        o = <nc_offer*>idmap_get(&s.offers, f.stream)
        if o is NULL:
            o = on_new_stream(s, f.stream)
            if o is NULL:
                s.stats.dropped_bytes += f.len
                return
        i = o.in_
    had = i.msgs
    had_preface = i.preface_done
    rc = in_data(i, f.a, f.data, f.len, f.flags & defs.DATA_FIN, s.mine.max_message)
    if rc < 0:
        if rc == defs.NC_ECREDIT:
            fail(s, defs.CLOSE_CREDIT)
        elif rc == defs.NC_ELIMIT:
            fail(s, defs.CLOSE_MESSAGE_SIZE)
        elif rc == defs.NC_ESTATE:
            fail(s, defs.CLOSE_FINAL_SIZE)
        elif rc == defs.NC_EFRAME:
            fail(s, defs.CLOSE_PROTOCOL)
        else:
            fail(s, defs.CLOSE_INTERNAL)
        return
    if o is not NULL and not had_preface and i.preface_done:
        offer_ready(s, o)                       # may free o
        e = <nc_end*>idmap_get(&s.ins, f.stream)
    if e is NULL:
        o = <nc_offer*>idmap_get(&s.offers, f.stream)
        if o is not NULL:
            answer_offer(s, o)
        return
    if in_pos_due(i):
        want_ctl(s, e, CTL_POS)
    if i.msgs != had or load_acq_u32(&i.over):
        notify(s, e, EV_RECV)
        if load_acq_u32(&i.over):
            settle_end(s, e)                    # may be the end of e


cdef void on_session_close(nc_session* s, nc_frame* f) noexcept nogil:
    if s.state == SESSION_OVER:
        return
    if s.state == SESSION_UP:
        s.close_code = <uint16_t>f.a
        s.abrupt = 1 if f.a >= defs.CLOSE_PROTOCOL and f.a < 256 else 0
        s.reason_len = <uint16_t>(f.len if f.len < REASON_MAX else REASON_MAX)
        if s.reason_len:
            memcpy(s.reason, f.data, s.reason_len)
    session_ended(s)


# --- ratchet (keys.md §2) ---------------------------------------------------------------------------------------------

cdef void cleanse(uint8_t* p, size_t n) noexcept nogil:
    cdef volatile uint8_t* q = p
    cdef size_t i
    for i in range(n):
        q[i] = 0


cdef int session_ratchet_send(nc_session* s, uint64_t number, int step, const uint8_t* p, size_t n) noexcept nogil:
    if n > <size_t>defs.RATCHET_MAX or step < 0 or step > 2:
        return defs.NC_EINVAL
    if s.ratchet_out is NULL:
        s.ratchet_out = <uint8_t*>malloc(defs.RATCHET_MAX)
        if s.ratchet_out is NULL:
            return defs.NC_ENOMEM
    memcpy(s.ratchet_out, p, n)
    s.ratchet_out_len = n
    s.ratchet_out_number = number
    s.ratchet_out_step = <uint8_t>step
    return defs.NC_OK


cdef void session_ratchet_secret(nc_session* s, uint64_t number, const uint8_t* secret32) noexcept nogil:
    memcpy(s.ratchet_secret, secret32, 32)
    s.ratchet_number = number
    s.ratchet_have = 1
    s.ratchet_theirs = 0
    if s.role == 0:
        s.rekey_state = 1


# The secret is wiped once neither direction needs it.
cdef void ratchet_settled(nc_session* s) noexcept nogil:
    if s.ratchet_theirs and s.rekey_state == 0:
        s.ratchet_have = 0
        cleanse(s.ratchet_secret, 32)


cdef void on_ratchet(nc_session* s, nc_frame* f) noexcept nogil:
    if s.ratchet_in is NULL:
        s.ratchet_in = <uint8_t*>malloc(defs.RATCHET_MAX)
        if s.ratchet_in is NULL:
            return
    # The newest one counts: a second before the first was looked at takes its place.
    memcpy(s.ratchet_in, f.data, f.len)
    s.ratchet_in_len = f.len
    s.ratchet_in_number = f.a
    s.ratchet_in_step = f.flags
    s.ratchet_in_new = 1
    s.ready_any = 1


cdef void on_rekey(nc_session* s, nc_frame* f) noexcept nogil:
    cdef int rc
    if f.flags == 1:
        rc = keys_mix_announced(s.sealer.keys, s.sealer.cache, <uint32_t>f.a, f.data, 32)
    elif s.ratchet_have and f.b == s.ratchet_number:
        rc = keys_mix_announced(s.sealer.keys, s.sealer.cache, <uint32_t>f.a, s.ratchet_secret, 32)
        s.ratchet_theirs = 1
        if s.role == 1 and s.rekey_state == 0:
            s.rekey_state = 1
    else:
        rc = defs.NC_ESTATE
    if rc < 0 or f.a >> 32:
        fail(s, defs.CLOSE_PROTOCOL)


cdef void put_ratchet(nc_session* s, nc_wr* w, int* eliciting) noexcept nogil:
    if s.ratchet_out_step != 0xFF and s.ratchet_out is not NULL:
        if frame_put_ratchet(w, s.ratchet_out_number, s.ratchet_out_step, s.ratchet_out, s.ratchet_out_len) >= 0:
            s.ratchet_out_step = 0xFF
            eliciting[0] = 1
    if s.rekey_state == 1 and keys_may_update(s.sealer.keys):
        if frame_put_rekey(w, 2, <uint64_t>s.sealer.keys.owner.send_epoch + 1, s.ratchet_number, NULL) >= 0:
            s.rekey_state = 2
            s.rekey_at = s.path.tx_number
            eliciting[0] = 1


# All frames of one opened record. Returns 1 if an acknowledgement is due for it.
cdef int on_record(nc_session* s, uint64_t tag, const uint8_t* body, size_t n, int64_t now) noexcept nogil:
    cdef nc_rd r
    cdef nc_frame f
    cdef int rc
    cdef int eliciting = 0
    cdef int count = 0
    rd_init(&r, body, n)
    while s.state != SESSION_OVER:
        rc = frame_next(&r, tag, &f)
        if rc == defs.NC_EAGAIN:
            break
        count += 1
        if rc < 0 or count > defs.FRAMES_PER_RECORD:
            fail(s, defs.CLOSE_UNSUPPORTED if rc == defs.NC_ELIMIT else defs.CLOSE_PROTOCOL)
            break
        eliciting |= f.eliciting
        if f.eliciting and f.type != defs.FRAME_PING and s.path.ping_gap != s.mine.heartbeat_ns:
            s.path.ping_gap = s.mine.heartbeat_ns           # no quiet time any more; the answer to a PING is none
            s.path.ping_at = now + s.path.ping_gap
        if s.state == SESSION_CLOSING and f.type != defs.FRAME_SESSION_CLOSE and f.type != defs.FRAME_ACK:
            continue
        if f.type == defs.FRAME_DATA:
            on_data(s, &f)
        elif f.type == defs.FRAME_POS:
            on_pos(s, &f)
        elif f.type == defs.FRAME_ACK:
            on_ack(s, &f, now)
        elif f.type == defs.FRAME_ASK:
            on_ask(s, &f)
        elif f.type == defs.FRAME_ABORT:
            on_abort(s, &f)
        elif f.type == defs.FRAME_STOP:
            on_stop(s, &f)
        elif f.type == defs.FRAME_MAX_STREAMS:
            if f.a > s.max_streams and f.a < (<uint64_t>1 << 61):
                s.max_streams = f.a
                bind_opens(s)
        elif f.type == defs.FRAME_SESSION_CLOSE:
            on_session_close(s, &f)
        elif f.type == defs.FRAME_REKEY:
            on_rekey(s, &f)
        elif f.type == defs.FRAME_RATCHET:
            on_ratchet(s, &f)
        elif f.type == defs.FRAME_PING or f.type == defs.FRAME_PADDING or f.type >= defs.FRAME_EXTENSION:
            pass
        else:
            # Laid out in the spec, but its capability is not announced by this version.
            fail(s, defs.CLOSE_PROTOCOL)
        if s.state == SESSION_CLOSING and s.abrupt:
            break
    return eliciting


cdef int recv_record(nc_session* s, uint8_t* rec, size_t size, int64_t now) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef uint64_t tag
    cdef uint8_t* body
    cdef size_t n
    cdef int rc = record_open(&s.sealer, p.rx_number, rec, size, p.binding if p.rx_number == 0 else NULL, now,
                              &tag, &body, &n)
    if rc < 0:
        # On a stream path nothing can be lost or repeated: the path is over, and with it the session (lease 0).
        fail(s, defs.CLOSE_CRYPTO)
        return rc
    p.rx_number += 1
    s.stats.records_received += 1
    if on_record(s, tag, body, n, now):
        p.unacked_records += 1
        p.unacked_bytes += size
        if p.ack_at == TIMER_NEVER:
            p.ack_at = now + <int64_t>s.mine.ack_delay_ns
        if p.unacked_bytes >= s.peer.ack_interval or p.unacked_records >= <uint64_t>defs.ACK_RECORDS:
            p.ack_at = now
    return defs.NC_OK


cdef int keep_left(nc_path* p, const uint8_t* buf, size_t n, size_t need) noexcept nogil:
    cdef uint8_t* bigger
    if p.left_cap < need:
        bigger = <uint8_t*>realloc(p.left, need)
        if bigger is NULL:
            return defs.NC_ENOMEM
        p.left = bigger
        p.left_cap = need
    memcpy(p.left + p.left_len, buf, n)
    p.left_len += n
    return defs.NC_OK


cdef int session_recv(nc_session* s, uint8_t* buf_untrusted, size_t n, int64_t now_ns) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef uint8_t* at = buf_untrusted
    cdef size_t k
    cdef int size
    p.rx_at = now_ns
    p.ping_at = now_ns + p.ping_gap
    s.stats.bytes_received += n
    # 1. Complete the record that was begun.
    while p.left_len and n and s.state != SESSION_OVER:
        k = defs.RECORD_LEN_SIZE - p.left_len if p.left_len < defs.RECORD_LEN_SIZE else 0
        if k == 0:
            size = record_size(p.left)
            if size < 0:
                fail(s, defs.CLOSE_CRYPTO)
                return size
            k = <size_t>size - p.left_len
        if k > n:
            k = n
        if keep_left(p, at, k, p.left_len + k if p.left_len < defs.RECORD_LEN_SIZE else <size_t>record_size(p.left)) < 0:
            fail(s, defs.CLOSE_INTERNAL)
            return defs.NC_ENOMEM
        at += k
        n -= k
        if p.left_len >= defs.RECORD_LEN_SIZE and <int>p.left_len == record_size(p.left):
            p.left_len = 0
            if recv_record(s, p.left, <size_t>record_size(p.left), now_ns) < 0:
                return defs.NC_ECLOSED
    # 2. Whole records where they lie.
    while n >= defs.RECORD_LEN_SIZE and s.state != SESSION_OVER:
        size = record_size(at)
        if size < 0:
            fail(s, defs.CLOSE_CRYPTO)
            return size
        if <size_t>size > n:
            break
        if recv_record(s, at, <size_t>size, now_ns) < 0:
            return defs.NC_ECLOSED
        at += size
        n -= <size_t>size
    # 3. Keep the begun one; give the memory back when nothing is left over.
    if s.state == SESSION_OVER:
        return defs.NC_ECLOSED
    if n:
        if keep_left(p, at, n, <size_t>record_size(at) if n >= defs.RECORD_LEN_SIZE else n) < 0:
            fail(s, defs.CLOSE_INTERNAL)
            return defs.NC_ENOMEM
    elif p.left_len == 0 and p.left_cap > 4096:
        free(p.left)
        p.left = NULL
        p.left_cap = 0
    return defs.NC_OK


# --- what is to be sent -------------------------------------------------------------------------------------------------

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
    elif bits & REQ_ABORT and e.in_ is not NULL and not e.in_done:
        bits |= REQ_STOP                        # our direction has ended before: what is left is to stop theirs
    if bits & REQ_END_AFTER and not e.out_done and not e.out.closing:
        e.abort_flags = defs.ABORT_AFTER_DATA
        e.abort_code = e.end_code
        want_ctl(s, e, CTL_ABORT)
    if bits & REQ_STOP and e.in_ is not NULL and not e.in_done and not e.in_.stopped:
        in_over(e.in_, OVER_STOPPED, 0, NULL, 0)
        e.in_.stopped = 1
        # Said also when all is here: the sender waits to hear that its values were taken, and they never will be.
        want_ctl(s, e, CTL_STOP)
    elif bits & REQ_STOP and e.in_ is NULL:
        fetch_or_u32(&e.requests, REQ_STOP)     # said as soon as there is a stream to stop
    if bits & REQ_ASK:
        want_ctl(s, e, CTL_ASK)
    if e.in_ is not NULL and bits & REQ_POS:
        want_ctl(s, e, CTL_POS)
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


cdef int put_ack(nc_session* s, nc_wr* w, int64_t now) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef int rc
    if p.unacked_records == 0:
        return 0
    rc = frame_put_ack(w, p.id, p.rx_number - 1, <uint64_t>(now - p.rx_at) // 1000 if now > p.rx_at else 0, p.rx_number - 1)
    if rc < 0:
        return rc
    p.unacked_records = 0
    p.unacked_bytes = 0
    p.ack_at = TIMER_NEVER
    s.stats.acks += 1
    return 1


# Control frames of one end. NC_ESPACE: the rest later. Returns 1 if something was written.
cdef int put_end_control(nc_session* s, nc_end* e, nc_wr* w) noexcept nogil:
    cdef int rc = 0
    cdef int wrote = 0
    cdef uint64_t final
    if e.ctl & CTL_STOP:
        rc = frame_put_stop(w, e.in_.id, defs.CODE_STOPPED, load_acq_u64(&e.in_.taken) - e.in_.discarded)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_STOP
        wrote = 1
    if e.ctl & CTL_POS:
        rc = 0
        if e.in_ is not NULL and not e.in_done:
            rc = in_pos(e.in_, w, 1, &s.budget)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_POS
        wrote |= rc
    # What speaks of our stream waits for its preface: before that the other side knows no such stream, and names keep
    # their order (session.md §6).
    if e.ctl & CTL_ASK and e.out.sent:
        rc = frame_put_ask(w, e.out.id, e.ask_received, e.ask_taken)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_ASK
        wrote = 1
    if e.ctl & CTL_ABORT and e.out.sent:
        final = e.out.appended if e.abort_flags & defs.ABORT_AFTER_DATA else e.out.sent
        rc = frame_put_abort(w, e.out.id, e.abort_flags, e.abort_code, final, e.reason, e.reason_len)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_ABORT
        wrote = 1
    return wrote


# Seals the record that was built and notes it as sent. Returns its size or a negative code.
cdef int64_t finish_record(nc_session* s, uint8_t* rec, uint64_t tag, size_t body, const uint8_t* tail, size_t tail_len,
                           uint64_t upto, int eliciting, int64_t now) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef nc_sent* x
    cdef int size
    size = record_seal(&s.sealer, p.tx_number, tag, rec, body, tail, tail_len,
                       p.binding if p.tx_number == 0 else NULL, now)
    if size < 0:
        return size
    x = &p.sent[p.tx_number & (p.sent_cap - 1)]
    x.stream = tag
    x.upto = upto
    x.at = now
    x.eliciting = eliciting
    if p.oldest_at == 0 and eliciting:
        p.oldest_at = now
    p.tx_number += 1
    s.stats.records_sent += 1
    s.stats.bytes_sent += <uint64_t>size
    p.tx_at = now
    return size


# Room in the list of sent records beside `spare` entries: 1 yes, 0 no (sending waits for an ACK).
cdef int sent_room(nc_path* p, uint64_t spare) noexcept nogil:
    cdef nc_sent* bigger
    cdef uint32_t cap, i
    cdef uint64_t number
    if p.tx_number - p.acked + spare >= <uint64_t>defs.SENT_MAX:
        return 0
    if p.tx_number - p.acked < p.sent_cap:
        return 1
    cap = p.sent_cap * 2 if p.sent_cap else 16
    bigger = <nc_sent*>calloc(cap, sizeof(nc_sent))
    if bigger is NULL:
        return 0
    number = p.acked
    while number < p.tx_number:
        bigger[number & (cap - 1)] = p.sent[number & (p.sent_cap - 1)]
        number += 1
    free(p.sent)
    p.sent = bigger
    p.sent_cap = cap
    return 1


# Writes the control record if something is due. Returns its size, 0, or a negative code.
cdef int64_t send_control(nc_session* s, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef nc_end* e
    cdef int rc
    cdef int eliciting = 0
    cdef size_t head = record_head_size(defs.TAG_CONTROL)
    cdef uint8_t* begin = out + head
    cdef size_t room
    cdef int64_t size
    if cap < CONTROL_ROOM:
        return 0
    room = cap - head - defs.AEAD_TAG_SIZE
    if room > s.peer.max_record - 64:
        room = <size_t>s.peer.max_record - 64
    wr_init(&w, begin, room)
    if s.path.ack_at <= now or (s.path.unacked_records and s.ctl_head is not NULL):
        put_ack(s, &w, now)
    if s.max_streams_due and frame_put_max_streams(&w, s.peer_max) >= 0:
        s.max_streams_due = 0
        s.peer_max_told = s.peer_max
        eliciting = 1
    if s.ping_due and frame_put_ping(&w) >= 0:
        s.ping_due = 0
        s.stats.pings += 1
        eliciting = 1
    put_ratchet(s, &w, &eliciting)
    while s.offer_pos is not NULL and in_pos(s.offer_pos.in_, &w, 1, &s.budget) >= 0:
        s.offer_pos.pos_due = 0
        s.offer_pos = s.offer_pos.pos_next
        eliciting = 1
    while s.ctl_head is not NULL:
        e = s.ctl_head
        rc = put_end_control(s, e, &w)
        if rc < 0:
            break
        if rc > 0:
            eliciting = 1
        s.ctl_head = e.ctl_next
        e.in_ctl = 0                            # what is left in e.ctl waits for the preface; send_data lists it again
        settle_end(s, e)
        end_release(e, &s.pins)
    if s.state == SESSION_CLOSING and not s.close_sent:
        if frame_put_session_close(&w, s.close_code, s.reason, s.reason_len) >= 0:
            s.close_sent = 1
    if w.p == begin:
        return 0
    size = finish_record(s, out, defs.TAG_CONTROL, <size_t>(w.p - begin), NULL, 0, 0, eliciting, now)
    return size


# One record with data of one stream. Returns its size, 0 if there is nothing, or a negative code.
cdef int64_t send_data(nc_session* s, nc_end* e, uint8_t* out, size_t cap, size_t share, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef int fin = 0
    cdef uint64_t ready = out_ready(&e.out, &fin)
    cdef size_t head = record_head_size(e.out.id)
    cdef uint8_t* begin = out + head
    cdef size_t room, n
    cdef const uint8_t* span
    cdef uint64_t upto
    cdef int rc
    if ready == 0 and not fin:
        return 0
    room = cap - head - defs.AEAD_TAG_SIZE
    if room > s.peer.max_record - 64:
        room = <size_t>s.peer.max_record - 64
    if room > defs.RECORD_BODY_DEFAULT + RECORD_SLACK:
        room = defs.RECORD_BODY_DEFAULT + RECORD_SLACK
    wr_init(&w, begin, room)
    # What we owe anyway rides along: one seal for a whole turn of a ping-pong.
    if s.path.unacked_records and (s.path.ack_at <= now or s.path.unacked_bytes >= 65536 or now - s.path.tx_at > 1000000):
        put_ack(s, &w, now)
    if e.in_ is not NULL and not e.in_done and (e.ctl & CTL_POS or in_pos_due(e.in_)):
        if in_pos(e.in_, &w, 1, &s.budget) > 0:
            e.ctl &= <uint8_t>~CTL_POS
    n = <size_t>(w.end - w.p) - 24              # type, offset, number
    if n > share:
        n = share
    if n > ready:
        n = <size_t>ready
    if fin and n < ready:
        fin = 0
    rc = frame_put_data_head(&w, e.out.sent, fin, e.out.at_boundary and n > 0 and e.out.sent_msgs > 0, e.out.sent_msgs, -1)
    if rc < 0:
        return rc
    upto = e.out.sent + n
    span = NULL
    if n >= DIRECT_MIN and out_span(&e.out, &span, n) == n:
        out_pass(&e.out, n)
        if fin:
            e.out.fin_sent = 1
        return finish_record(s, out, e.out.id, <size_t>(w.p - begin), span, n, upto, 1, now)
    out_read(&e.out, w.p, n)
    w.p += n
    if fin:
        e.out.fin_sent = 1
    return finish_record(s, out, e.out.id, <size_t>(w.p - begin), NULL, 0, upto, 1, now)


cdef int session_wants_send(nc_session* s) noexcept nogil:
    if s.state == SESSION_OVER:
        return 0
    if s.ctl_head is not NULL or s.active_head is not NULL:
        return 1
    if load_ptr(<void**>&s.dirty_head) is not NULL or (load_ptr(<void**>&s.open_head) is not NULL and s.opened < s.max_streams):
        return 1
    if s.sealer.keys.wants_update and s.sealer.keys.acked and s.rekey_state != 2:
        return 1
    if (s.ratchet_out_step != 0xFF and s.ratchet_out is not NULL) or (s.rekey_state == 1 and keys_may_update(s.sealer.keys)):
        return 1
    if s.offer_pos is not NULL or s.max_streams_due or s.ping_due or (s.state == SESSION_CLOSING and not s.close_sent):
        return 1
    return 0


cdef int64_t session_send(nc_session* s, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil:
    cdef size_t used = 0
    cdef size_t share
    cdef int64_t size
    cdef nc_end* e
    if s.state == SESSION_OVER:
        take_dirty(s)                           # ends that were opened since are cut
        return defs.NC_ECLOSED
    take_dirty(s)
    if not sent_room(&s.path, 0):
        return 0
    if s.rekey_state != 2 and (s.sealer.keys.wants_update or 0 <= keys_deadline(s.sealer.keys) <= now_ns):
        if keys_tick(s.sealer.keys, s.sealer.cache, now_ns) == 1:
            s.epoch_at = s.path.tx_number
            s.epoch_waits = 1
            s.ping_due = 1                      # something to acknowledge in the new epoch
    size = send_control(s, out, cap, now_ns)
    if size < 0:
        return size
    used = <size_t>size
    if s.state == SESSION_CLOSING:
        if s.close_sent:
            session_ended(s)
        return <int64_t>used
    while s.active_head is not NULL and cap - used >= defs.RECORD_BODY_DEFAULT + 256 and sent_room(&s.path, SENT_RESERVE):
        e = pop_active(s)
        share = defs.RECORD_BODY_DEFAULT
        if s.n_active:
            share = 65536 // s.n_active
            if share < ROUND_BYTES:
                share = ROUND_BYTES
            elif share > defs.RECORD_BODY_DEFAULT:
                share = defs.RECORD_BODY_DEFAULT
        size = 0
        if e.bound and (not e.out_done or e.out.sent == 0):
            size = send_data(s, e, out + used, cap - used, share, now_ns)
        if size < 0:
            end_release(e, &s.pins)
            return size
        used += <size_t>size
        if size > 0:
            if e.ctl:
                want_ctl(s, e, 0)
            want_data(s, e)                     # to the end of the line; leaves it when nothing is ready
            if e.out.fin_sent and not e.out_done:
                if e.out.received >= e.out.fin_at:
                    e.out.fin_acked = 1         # every byte was there before the end was said
                settle_end(s, e)
        end_release(e, &s.pins)
    if s.ctl_head is not NULL and used and cap - used >= CONTROL_ROOM and s.ctl_head.ctl & (CTL_ABORT | CTL_ASK):
        if sent_room(&s.path, 0):
            size = send_control(s, out + used, cap - used, now_ns)
            if size < 0:
                return size
            used += <size_t>size
    return <int64_t>used


# --- time -----------------------------------------------------------------------------------------------------------------

cdef int64_t session_deadline(nc_session* s) noexcept nogil:
    cdef int64_t at = TIMER_NEVER
    cdef int64_t silent
    cdef nc_path* p = &s.path
    if s.state == SESSION_OVER:
        return at
    if p.ack_at < at:
        at = p.ack_at
    if p.ping_at < at:
        at = p.ping_at
    if 0 <= keys_deadline(s.sealer.keys) < at:
        at = keys_deadline(s.sealer.keys)
    if p.oldest_at:
        silent = p.oldest_at if p.oldest_at > p.rx_at else p.rx_at
        if silent + s.mine.dead_ns < at:
            at = silent + s.mine.dead_ns
    return at


cdef void session_on_deadline(nc_session* s, int64_t now_ns) noexcept nogil:
    cdef nc_path* p = &s.path
    if s.state == SESSION_OVER:
        return
    if p.oldest_at and now_ns - p.oldest_at >= s.mine.dead_ns and now_ns - p.rx_at >= s.mine.dead_ns:
        s.close_code = defs.CLOSE_TIMEOUT
        session_path_lost(s, now_ns)
        return
    if p.ping_at <= now_ns:
        s.ping_due = 1
        p.ping_gap = p.ping_gap * 2 if p.ping_gap * 2 < PING_MAX_NS else PING_MAX_NS
        p.ping_at = now_ns + p.ping_gap


# --- life -----------------------------------------------------------------------------------------------------------------

cdef int session_init(nc_session* s, int role, const nc_params* mine, const nc_params* peer, const uint8_t* binding32,
                      uint64_t seed, int64_t now_ns) noexcept nogil:
    s.role = <uint8_t>role
    s.state = SESSION_UP
    s.mine = mine[0]
    s.peer = peer[0]
    s.seed = seed
    leaf_init(&s.open_lock)
    idmap_init(&s.outs, <uint32_t>mine.max_channels, seed ^ <uint64_t>0x5851F42D4C957F2D)
    idmap_init(&s.ins, <uint32_t>mine.max_channels, seed ^ <uint64_t>0x14057B7EF767814F)
    idmap_init(&s.offers, <uint32_t>mine.max_streams + 1, seed ^ <uint64_t>0x2545F4914F6CDD1D)
    s.next_out = <uint64_t>(defs.TAG_FIRST_STREAM + role)
    s.next_in = <uint64_t>(defs.TAG_FIRST_STREAM + 1 - role)
    s.max_streams = peer.max_streams
    s.peer_max = mine.max_streams
    s.peer_max_told = mine.max_streams
    s.budget = mine.session_bytes
    s.path.alive = 1
    s.ratchet_out_step = 0xFF
    memcpy(s.path.binding, binding32, 32)
    s.path.rx_at = s.path.tx_at = now_ns
    s.path.ack_at = TIMER_NEVER
    s.path.ping_gap = mine.heartbeat_ns
    s.path.ping_at = now_ns + mine.heartbeat_ns
    return defs.NC_OK if sent_room(&s.path, 0) else defs.NC_ENOMEM


cdef void session_free(nc_session* s) noexcept nogil:
    cdef nc_end* e
    cdef nc_offer* o
    cdef uint32_t i = 0
    cdef uint32_t bits
    session_ended(s)
    take_dirty(s)
    while True:
        e = session_next_ready(s, &bits)
        if e is NULL:
            break
        end_release(e, &s.pins)
    while s.active_head is not NULL:
        e = pop_active(s)
        end_release(e, &s.pins)
    while s.ctl_head is not NULL:
        e = s.ctl_head
        s.ctl_head = e.ctl_next
        e.in_ctl = 0
        end_release(e, &s.pins)
    while True:
        e = <nc_end*>idmap_next(&s.outs, &i)
        if e is NULL:
            break
        e.bound = 0
        end_release(e, &s.pins)
    i = 0
    while True:
        o = <nc_offer*>idmap_next(&s.offers, &i)
        if o is NULL:
            break
        in_free(o.in_)
        free(o.in_)
        free(o)
    idmap_free(&s.outs)
    idmap_free(&s.ins)
    idmap_free(&s.offers)
    free(s.path.sent)
    free(s.path.left)
    s.path.sent = NULL
    s.path.left = NULL
    cleanse(s.ratchet_secret, 32)
    free(s.ratchet_out)
    free(s.ratchet_in)
    s.ratchet_out = NULL
    s.ratchet_in = NULL
