"""What a path received: records, then the frames of the peer, each acted on in a function of its name.

Layer: _core, rung m. Baton. Flow: session_recv -> recv_record -> record_open -> on_record -> on_*.
Spec: docs/spec/wire.md §3, §5, §6; docs/spec/session.md.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from netchan._core.beat cimport beat_heard, beat_over, beat_used
from netchan._core cimport defs
from netchan._core.cursor cimport nc_rd, rd_init, rd_left, rd_varint
from netchan._core.datagram cimport dgram_open, dgram_unmask, nc_dgram_head
from netchan._core.ends cimport bind_opens, fail, forget_offer, offer_ready, peer_aborted, session_ended, settle_end
from netchan._core.flight cimport (
    flight_acked, flight_challenged, flight_is_reset, flight_new_cid, flight_received, flight_response,
)
from netchan._core.frame cimport frame_next, nc_frame
from netchan._core.idmap cimport idmap_get, idmap_put
from netchan._core.leaf cimport load_acq_u32, load_seq_u64, store_seq_u32, store_seq_u64
from netchan._core.order cimport ORDER_BODY, nc_kept, order_due, order_keep, order_look, order_pass
from netchan._core.ratchet cimport on_ratchet, on_rekey
from netchan._core.rebuild cimport rebuild_held, rebuild_symbol
from netchan._core.rate cimport rate_round_trip, rate_sample
from netchan._core.record cimport record_open, record_size
from netchan._core.replay cimport replay_check, replay_commit
from netchan._core.rendezvous cimport offer_bit
from netchan._core.resume cimport on_path_status, path_find, session_path_heard, session_path_lost
from netchan._core.ticket cimport on_ticket
from netchan._core.sent cimport sent_acked
from netchan._core.state cimport (
    CTL_ABORT, CTL_POS, CTL_WITHDRAWN, EV_ACK, EV_RECV, EV_SEND, EV_STATE, SESSION_CLOSING, SESSION_OVER, SESSION_UP,
    STANDBY_OURS, TOKEN_CAME, nc_end, nc_offer, nc_path, nc_session, notify, want_ctl, want_data,
)
from netchan._core.inbox cimport (
    BESIDE_NEW, in_data, in_give_turn, in_init, in_make_room, in_number, in_over, in_pos_due, in_skip, in_withdraw,
    nc_in,
)
from netchan._core.outbox cimport out_answer, out_end, out_limit, out_pos, out_want
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_STOPPED
from netchan._core.take cimport in_drop
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    ACK_DELAY_US_MAX = 16777216     # a larger delay in an ACK is not believed
    TAGS_AHEAD = 256                # stream ids beyond the newest for which a datagram may come
    ACK_SHARED = 16384              # beside other paths acknowledgements come sooner: after so many bytes
    ACK_SHARED_NS = 2000000         # and so much time, or four times as many


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
            elif o.kind == defs.PREFACE_TOKEN and f.a == defs.CODE_DROPPED:
                forget_offer(s, o)
            else:
                o.aborted = 1 | (f.flags & defs.ABORT_CHANNEL)
                o.abort_code = f.a
                in_over(o.in_, OVER_ABORT, f.a, f.data, f.len)
        return
    if f.flags & defs.ABORT_AFTER_DATA and load_acq_u32(&e.in_.over) == OVER_ABORT:
        return                                  # said again, behind the one that took its place
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
    if load_seq_u64(&e.out.taken) < f.b <= e.out.accepted:
        store_seq_u64(&e.out.taken, f.b)        # offers below it that are not wanted back were taken
    if not e.out_done:
        out_end(&e.out, OVER_STOPPED)
        if not e.out.fin_sent:
            e.abort_flags = 0
            e.abort_code = defs.CODE_STOPPED
            want_ctl(s, e, CTL_ABORT)
        e.out_done = 1
    notify(s, e, EV_SEND | EV_ACK | EV_STATE)
    settle_end(s, e)


# What the sender wants back: the core answers, whatever the program does.
cdef void on_withdraw(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef uint32_t bit = offer_bit(f.a)
    cdef int rc
    if e is NULL:
        return                                  # forgotten here: its end was said, which answers it too
    rc = in_withdraw(e.in_, f.a)
    if rc == defs.NC_EAGAIN and not s.in_order:
        return                                  # said again on another path, and answered
    if rc < 0:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    e.answers |= bit
    e.outcomes = e.outcomes | bit if rc else e.outcomes & ~bit
    want_ctl(s, e, CTL_WITHDRAWN)
    if rc == 0:
        notify(s, e, EV_RECV)                   # it may be the head, which is to be passed over


cdef void on_withdrawn(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, f.stream)
    cdef int rc
    if e is NULL:
        if f.stream >= s.next_out or (f.stream & 1) != s.role:
            fail(s, defs.CLOSE_PROTOCOL)
        return
    rc = out_answer(&e.out, f.a, f.flags)
    if rc < 0:
        fail(s, defs.CLOSE_PROTOCOL)
    elif rc:
        notify(s, e, EV_ACK | EV_SEND)


cdef void on_want(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.outs, f.stream)
    if e is NULL:
        if f.stream >= s.next_out or (f.stream & 1) != s.role:
            fail(s, defs.CLOSE_PROTOCOL)
        return
    if out_want(&e.out, f.a, f.b):
        notify(s, e, EV_SEND)


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
    if not load_acq_u32(&o.in_.asked) or o.in_.received < o.in_.ask_received:
        return
    if o.in_.told_received >= o.in_.ask_received:
        return
    if not o.pos_due:
        o.pos_due = 1
        o.pos_next = s.offer_pos
        s.offer_pos = o


cdef void on_ask(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef nc_offer* o = NULL
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
    store_seq_u32(&i.asked, 1)                  # before `taken` is looked at: in_advance does it the other way round
    if o is not NULL:
        answer_offer(s, o)
    elif in_pos_due(i):
        want_ctl(s, e, CTL_POS)


# The other side has given a datagram path up. Of a stream path its carrier tells, and what comes on a path shows that
# it is not.
cdef void on_path_close(nc_session* s, nc_path* p, nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_path* q = path_find(s, <uint32_t>f.a) if f.a <= <uint64_t>0xFFFFFFFF else NULL
    if q is not NULL and q != p and q.d is not NULL:
        session_path_lost(s, q, now)


# How the other side wants a datagram path to be called, and the token by which is known later that it has forgotten it.
cdef void on_new_cid(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_path* p
    if s.order is NULL or f.a >> 32:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    p = path_find(s, <uint32_t>f.a)
    if p is not NULL and (p.d is NULL or flight_new_cid(p.d, f) < 0):
        fail(s, defs.CLOSE_PROTOCOL)


# DATA in a record of the trunk: of a channel that both sides wanted there.
cdef void on_trunk(nc_session* s, nc_path* p, nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    if e is not NULL and e.trunk:
        on_data(s, p, f, now)
    elif e is NULL and idmap_get(&s.offers, f.stream) is NULL and f.stream < s.next_in and (f.stream & 1) != s.role:
        s.stats.dropped_bytes += f.len          # forgotten here
    else:
        fail(s, defs.CLOSE_PROTOCOL)


# How long windows have to last: for the longest path.
cdef void windows_last(nc_session* s) noexcept nogil:
    cdef nc_path* q = s.paths
    s.budget.rtt = 0
    while q is not NULL:
        if rate_round_trip(q) > s.budget.rtt:
            s.budget.rtt = rate_round_trip(q)
        q = q.next


cdef void on_ack(nc_session* s, nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_path* p = path_find(s, <uint32_t>f.a) if f.a <= <uint64_t>0xFFFFFFFF else NULL
    cdef int64_t sample = -1
    cdef int64_t at
    cdef int64_t dev
    cdef uint64_t number
    if p is NULL:
        return                                  # of one that is no more
    if p.d is not NULL:
        if flight_acked(s, p, f, now) < 0:
            fail(s, defs.CLOSE_PROTOCOL)
        windows_last(s)
        return
    if f.b >= p.tx_number or f.n != 0 or f.d != f.b:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    at = sent_acked(s, p, f.b, now)
    if at >= 0:
        sample = now - at - (<int64_t>f.c * 1000 if f.c < ACK_DELAY_US_MAX else 0)
    rate_sample(p, now)
    if sample >= 0:
        if p.min_rtt == 0 or sample < p.min_rtt:
            p.min_rtt = sample if sample else 1
        if p.srtt == 0:
            p.srtt = sample
            p.rttvar = sample // 2
        else:
            dev = sample - p.srtt if sample > p.srtt else p.srtt - sample
            p.rttvar = (3 * p.rttvar + dev) // 4
            p.srtt = (7 * p.srtt + sample) // 8
        windows_last(s)
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
    # Prefaces go on the path that carries control, so ids come in order; a gap is a fault.
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


# What the bytes of a stream broke ends the session.
cdef void refuse(nc_session* s, int rc) noexcept nogil:
    if rc == defs.NC_ECREDIT:
        fail(s, defs.CLOSE_CREDIT)
    elif rc == defs.NC_ELIMIT:
        fail(s, defs.CLOSE_MESSAGE_SIZE)
    elif rc == defs.NC_ESTATE:
        fail(s, defs.CLOSE_FINAL_SIZE)
    elif rc == defs.NC_EFRAME:
        fail(s, defs.CLOSE_PROTOCOL)
    elif rc == defs.NC_EUNKNOWN:
        fail(s, defs.CLOSE_UNSUPPORTED)
    else:
        fail(s, defs.CLOSE_INTERNAL)


# Messages that will never come.
cdef void on_skip(nc_session* s, nc_frame* f) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef nc_offer* o = NULL
    cdef nc_in* i
    cdef int rc
    if e is not NULL:
        i = e.in_
    else:
        o = <nc_offer*>idmap_get(&s.offers, f.stream)
        if o is NULL:
            if f.stream >= s.next_in:
                fail(s, defs.CLOSE_PROTOCOL)    # of a stream that has no preface yet
            return
        i = o.in_
    if not i.lossy:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    rc = in_skip(i, f.a, f.b, f.c, f.d)
    if rc < 0:
        refuse(s, rc)
        return
    in_drop(i)
    if e is NULL:
        return
    if in_pos_due(i):
        want_ctl(s, e, CTL_POS)
    if load_acq_u32(&i.over):
        notify(s, e, EV_RECV)
        settle_end(s, e)


# A parity symbol: what it makes up for counts as received.
cdef void on_parity(nc_session* s, nc_path* p, nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef uint64_t had
    cdef int rc
    if e is NULL:
        # Of a stream that is over here; one that is not open on both sides has no groups.
        if f.stream >= s.next_in or idmap_get(&s.offers, f.stream) is not NULL:
            fail(s, defs.CLOSE_PROTOCOL)
        return
    if e.in_.lossy or e.in_.rendezvous:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    if s.in_order:
        return                                  # there is nothing to make up for
    e.in_.beside |= <uint8_t>(BESIDE_NEW if p != s.control else 0)
    had = e.in_.msgs
    e.in_.now_ns = now
    rc = rebuild_symbol(e.in_, f, &s.budget, s.mine.max_message)
    if rc:
        rebuilt(s, e, had, rc)


# Bytes of e's stream were made up for (rc > 0), or they are not what they should be.
cdef void rebuilt(nc_session* s, nc_end* e, uint64_t had, int rc) noexcept nogil:
    cdef nc_in* i = e.in_
    if rc < 0:
        refuse(s, rc)
        return
    s.stats.rebuilt += 1
    s.stats.messages_received += i.msgs - had
    if s.budget.turn == i.id and i.msgs != had:
        in_give_turn(i, &s.budget)
    want_ctl(s, e, CTL_POS)                     # so that it is not sent again
    if i.msgs != had or load_acq_u32(&i.over):
        notify(s, e, EV_RECV)
        if load_acq_u32(&i.over):
            settle_end(s, e)                    # may be the end of e


cdef void on_data(nc_session* s, nc_path* p, nc_frame* f, int64_t now) noexcept nogil:
    cdef nc_end* e = <nc_end*>idmap_get(&s.ins, f.stream)
    cdef nc_offer* o = NULL
    cdef nc_in* i
    cdef uint64_t had, had_held
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
    if s.in_order:
        if f.a > i.received and f.a + f.len <= i.granted_bytes and not (i.has_final and f.a + f.len > i.final):
            # Nothing can overtake on a single stream path: such bytes are an attack on memory (limits.md, GAPS_MAX).
            fail(s, defs.CLOSE_PROTOCOL)
            return
    else:
        i.beside |= <uint8_t>(BESIDE_NEW if p != s.control else 0)
    if f.flags & defs.DATA_MSG and in_number(i, f.a, f.b) < 0:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    i.now_ns = now
    rc = in_data(i, f.a, f.data, f.len, f.flags & defs.DATA_FIN, s.mine.max_message)
    if rc == defs.NC_EAGAIN and not s.in_order:
        s.unkept = 1                            # too many gaps: the record has to come again
        return
    if rc < 0:
        refuse(s, rc)
        return
    s.stats.messages_received += i.msgs - had
    if s.budget.turn == i.id and i.msgs != had:
        in_give_turn(i, &s.budget)              # whoever waits for it is not to wait until this one is taken
    if i.lossy and i.msgs != had:
        if i.keep:
            in_make_room(i, &s.budget)
        in_drop(i)
    if o is not NULL and not had_preface and i.preface_done:
        offer_ready(s, o)                       # may free o
        e = <nc_end*>idmap_get(&s.ins, f.stream)
    if e is NULL:
        o = <nc_offer*>idmap_get(&s.offers, f.stream)
        if o is not NULL:
            answer_offer(s, o)
        return
    if i.parity is not NULL and i.parity.held is not NULL:
        had_held = i.msgs
        rc = rebuild_held(i, f.a, f.a + f.len, &s.budget, s.mine.max_message)
        if rc:
            notify(s, e, EV_RECV)               # the message that came by itself, too
            rebuilt(s, e, had_held, rc)
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
        s.reason_len = <uint16_t>(f.len if f.len < <size_t>defs.REASON_MAX else defs.REASON_MAX)
        if s.reason_len:
            memcpy(s.reason, f.data, s.reason_len)
    session_ended(s)


# What a record that waits for its turn acknowledges has nothing to wait for: the other side would else send again what
# is here, and take the wait for a long round trip. At its turn it is said again and changes nothing.
cdef void early_acks(nc_session* s, uint64_t tag, const uint8_t* body, size_t n, int64_t now) noexcept nogil:
    cdef nc_rd r
    cdef nc_frame f
    rd_init(&r, body, n)
    while s.state != SESSION_OVER and frame_next(&r, tag, &f) >= 0:
        if f.type == defs.FRAME_ACK:
            on_ack(s, &f, now)


# One opened record. Where the order of some has to be restored one that comes before its turn is kept until then.
# Returns 1 if an acknowledgement is due for it.
cdef int on_record(nc_session* s, nc_path* p, uint64_t tag, const uint8_t* body, size_t n, int64_t now) noexcept nogil:
    cdef nc_rd r
    cdef nc_kept* k
    cdef uint64_t number = 0
    cdef int rc
    cdef int eliciting
    if s.order is NULL:
        return on_frames(s, p, tag, body, n, now)
    rd_init(&r, body, n)
    while rd_left(&r) and r.p[0] == defs.FRAME_PADDING:
        r.p += 1
    if rd_left(&r) == 0 or r.p[0] != defs.FRAME_ORDER:
        eliciting = on_frames(s, p, tag, body, n, now)
    else:
        r.p += 1
        rc = rd_varint(&r, &number)
        if rc >= 0 and n <= <size_t>ORDER_BODY:
            rc = order_look(s.order, number)
        if n > <size_t>ORDER_BODY or (rc < 0 and rc != defs.NC_EAGAIN):
            fail(s, defs.CLOSE_PROTOCOL)
            return 0
        if rc == 0:
            return 1                            # it was here before
        if rc == defs.NC_EAGAIN:
            if order_keep(s.order, number, tag, r.p, rd_left(&r)) < 0:
                s.unkept = 1
            else:
                early_acks(s, tag, r.p, rd_left(&r), now)
            return 1
        on_frames(s, p, tag, r.p, rd_left(&r), now)
        eliciting = 1
        if s.unkept:
            return 1
        order_pass(s.order)
    k = order_due(s.order)
    while k is not NULL and s.state != SESSION_OVER and not s.unkept:
        on_frames(s, p, k.tag, k.body, k.len, now)
        if s.unkept:
            s.unkept = 0                        # it is here, and tried again with the next one
            break
        order_pass(s.order)
        k = order_due(s.order)
    return eliciting


# All frames of one record whose turn it is. Returns 1 if one of them asks for an acknowledgement.
cdef int on_frames(nc_session* s, nc_path* p, uint64_t tag, const uint8_t* body, size_t n, int64_t now) noexcept nogil:
    cdef nc_rd r
    cdef nc_frame f
    cdef int rc
    cdef int eliciting = 0
    cdef int count = 0
    rd_init(&r, body, n)
    while s.state != SESSION_OVER and not s.unkept:
        rc = frame_next(&r, tag, &f)
        if rc == defs.NC_EAGAIN:
            break
        count += 1
        if rc < 0 or count > defs.FRAMES_PER_RECORD:
            fail(s, defs.CLOSE_UNSUPPORTED if rc == defs.NC_EUNKNOWN else defs.CLOSE_PROTOCOL)
            break
        eliciting |= f.eliciting
        if f.type == defs.FRAME_PING:
            beat_over(s, p, now)
        elif f.eliciting:
            beat_used(s, now)
        if s.state == SESSION_CLOSING and f.type != defs.FRAME_SESSION_CLOSE and f.type != defs.FRAME_ACK:
            continue
        if f.type == defs.FRAME_DATA:
            on_data(s, p, &f, now)
        elif f.type == defs.FRAME_SKIP:
            on_skip(s, &f)
        elif f.type == defs.FRAME_PARITY and s.mine.parity:
            on_parity(s, p, &f, now)
        elif f.type == defs.FRAME_TRUNK_DATA:
            on_trunk(s, p, &f, now)
        elif f.type == defs.FRAME_POS:
            on_pos(s, &f)
        elif f.type == defs.FRAME_ACK:
            on_ack(s, &f, now)
        elif f.type == defs.FRAME_ASK:
            on_ask(s, &f)
        elif f.type == defs.FRAME_WANT:
            on_want(s, &f)
        elif f.type == defs.FRAME_WITHDRAW:
            on_withdraw(s, &f)
        elif f.type == defs.FRAME_WITHDRAWN:
            on_withdrawn(s, &f)
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
        elif f.type == defs.FRAME_PATH_CLOSE and s.order is not NULL:
            on_path_close(s, p, &f, now)
        elif f.type == defs.FRAME_PATH_STATUS:
            on_path_status(s, f.a, f.b, f.flags)
        elif f.type == defs.FRAME_NEW_CID:
            on_new_cid(s, &f)
        elif f.type == defs.FRAME_PATH_CHALLENGE and p.d is not NULL:
            flight_challenged(p.d, f.data)
        elif f.type == defs.FRAME_PATH_RESPONSE and p.d is not NULL:
            flight_response(p.d, f.data)
        elif f.type == defs.FRAME_RATCHET:
            on_ratchet(s, &f)
        elif f.type == defs.FRAME_TICKET:
            on_ticket(s, &f)
        elif f.type == defs.FRAME_PING or f.type == defs.FRAME_PADDING or f.type >= defs.FRAME_EXTENSION:
            pass
        else:
            # Laid out in the spec, but its capability is not announced by this version.
            fail(s, defs.CLOSE_PROTOCOL)
        if s.state == SESSION_CLOSING and s.abrupt:
            break
    return eliciting


# On a stream path nothing can be lost or repeated: this is an attack or a fault, and the path is over; with it the
# session, where that cannot be resumed.
cdef void unreadable(nc_session* s, nc_path* p, int64_t now) noexcept nogil:
    if s.mine.lease_ns and s.state == SESSION_UP:
        session_path_lost(s, p, now)
    else:
        fail(s, defs.CLOSE_CRYPTO)


cdef int recv_record(nc_session* s, nc_path* p, uint8_t* rec, size_t size, int64_t now) noexcept nogil:
    cdef uint64_t tag
    cdef uint8_t* body
    cdef size_t n
    cdef int rc = record_open(&s.sealer, p.key, p.rx_number, rec, size, p.binding if p.rx_number == 0 else NULL, now,
                              &tag, &body, &n)
    if rc < 0:
        unreadable(s, p, now)
        return rc
    p.rx_number += 1
    s.stats.records_received += 1
    rc = on_record(s, p, tag, body, n, now)
    if s.unkept:
        # What was received of a stream path is acknowledged all or not at all: this and what follows comes on another.
        s.unkept = 0
        p.rx_number -= 1
        session_path_lost(s, p, now)
        return defs.NC_EAGAIN
    if rc:
        p.unacked_records += 1
        p.unacked_bytes += size
        if p.ack_at == TIMER_NEVER:
            p.ack_at = now + <int64_t>s.mine.ack_delay_ns
        if p.unacked_bytes >= s.peer.ack_interval or p.unacked_records >= <uint64_t>defs.ACK_RECORDS:
            p.ack_at = now
        elif s.n_paths > 1 and p.unacked_bytes >= <uint64_t>ACK_SHARED \
                and (p.unacked_bytes >= 4 * <uint64_t>ACK_SHARED or now - p.acked_at >= ACK_SHARED_NS):
            p.ack_at = now                      # the sender divides by it what it sends
    return defs.NC_OK


# 1: a peer may send records of this tag: control, the trunk, its streams that were opened or may be.
cdef inline int tag_may_come(const nc_session* s, uint64_t tag) noexcept nogil:
    if tag < <uint64_t>defs.TAG_FIRST_STREAM:
        return 1
    return 1 if (tag & 1) != s.role and tag < s.next_in + 2 * <uint64_t>TAGS_AHEAD else 0


cdef int session_recv_datagram(nc_session* s, nc_path* p, uint8_t* buf_untrusted, size_t n,
                               int64_t now_ns) noexcept nogil:
    cdef nc_dgram_head h
    cdef uint8_t* at
    cdef uint32_t i
    cdef int64_t wait = 3 * (p.srtt + 4 * p.rttvar + 50000000)
    cdef int eliciting = 0
    cdef int rc
    if flight_is_reset(p.d, buf_untrusted, n):
        # Before it is opened: nothing that opens ends so, and it is no forgery.
        p.d.token_known = TOKEN_CAME
        s.stats.resets += 1
        session_path_lost(s, p, now_ns)
        return defs.NC_ECLOSED
    rc = dgram_unmask(&s.sealer, buf_untrusted, n, p.d.window.next, &h)
    if rc >= 0 and not replay_check(&p.d.window, h.number):
        rc = defs.NC_EREPLAY
    if rc >= 0:
        for i in range(h.n):
            if not tag_may_come(s, h.tags[i]):
                rc = defs.NC_ECRYPTO            # no key is made for it
    if rc >= 0:
        rc = dgram_open(&s.sealer, p.key, &h, p.binding, buf_untrusted, now_ns, now_ns + wait)
    if rc < 0:
        p.d.n_refused += 1
        if rc == defs.NC_ELIMIT:
            fail(s, defs.CLOSE_CRYPTO)
        return rc
    p.rx_at = now_ns
    p.late = 0
    beat_heard(s, p, now_ns)
    if p.suspect:
        session_path_heard(s, p)
    s.stats.bytes_received += n
    at = buf_untrusted + h.size
    for i in range(h.n):
        if s.state == SESSION_OVER:
            return defs.NC_ECLOSED
        eliciting |= on_record(s, p, h.tags[i], at, h.lens[i] - defs.AEAD_TAG_SIZE, now_ns)
        at += h.lens[i]
        s.stats.records_received += 1
        if s.unkept:
            s.unkept = 0
            return defs.NC_EAGAIN               # not received: it comes again
    replay_commit(&p.d.window, h.number)
    if p.rx_number == 0 and p.standby & STANDBY_OURS:
        p.status_due = p.ping_due = 1           # what was said before may have found nobody
    p.rx_number += 1
    flight_received(s, p, h.number, eliciting, now_ns)
    return defs.NC_OK if s.state != SESSION_OVER else defs.NC_ECLOSED


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


cdef int session_recv(nc_session* s, nc_path* p, uint8_t* buf_untrusted, size_t n, int64_t now_ns) noexcept nogil:
    cdef uint8_t* at = buf_untrusted
    cdef size_t k
    cdef int size
    p.rx_at = now_ns
    p.late = 0
    beat_heard(s, p, now_ns)
    if p.suspect:
        session_path_heard(s, p)
    s.stats.bytes_received += n
    # 1. Complete the record that was begun.
    while p.left_len and n and s.state != SESSION_OVER:
        k = defs.RECORD_LEN_SIZE - p.left_len if p.left_len < defs.RECORD_LEN_SIZE else 0
        if k == 0:
            size = record_size(p.left)
            if size < 0:
                unreadable(s, p, now_ns)
                return size
            k = <size_t>size - p.left_len
        if k > n:
            k = n
        if keep_left(p, at, k,
                     p.left_len + k if p.left_len < defs.RECORD_LEN_SIZE else <size_t>record_size(p.left)) < 0:
            fail(s, defs.CLOSE_INTERNAL)
            return defs.NC_ENOMEM
        at += k
        n -= k
        if p.left_len >= defs.RECORD_LEN_SIZE and <int>p.left_len == record_size(p.left):
            p.left_len = 0
            if recv_record(s, p, p.left, <size_t>record_size(p.left), now_ns) < 0:
                return defs.NC_ECLOSED
    # 2. Whole records where they lie.
    while n >= defs.RECORD_LEN_SIZE and s.state != SESSION_OVER:
        size = record_size(at)
        if size < 0:
            unreadable(s, p, now_ns)
            return size
        if <size_t>size > n:
            break
        if recv_record(s, p, at, <size_t>size, now_ns) < 0:
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
