"""What goes into a record: control frames, the data of one stream, small data of several, a parity symbol.

Layer: _core, rung l. Baton. Which record comes next is decided in outbound, which path it takes in modes.
Spec: docs/spec/wire.md §3, §5, §6; docs/spec/session.md §4, §5; docs/spec/parity.md §2.1.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from netchan._core cimport defs
from netchan._core.cursor cimport nc_wr, varint_len, wr_init
from netchan._core.datagram cimport DATAGRAM_PAD
from netchan._core.ends cimport end_release, settle_end
from netchan._core.flight cimport flight_put_ack, flight_token_due
from netchan._core.frame cimport (
    frame_put_abort, frame_put_ack, frame_put_ask, frame_put_data_head, frame_put_max_streams, frame_put_new_cid,
    frame_put_order, frame_put_parity, frame_put_path_close, frame_put_path_status, frame_put_ping,
    frame_put_session_close, frame_put_skip, frame_put_stop, frame_put_trunk_head, frame_put_want, frame_put_withdraw,
    frame_put_withdrawn,
)
from netchan._core.group cimport group_begin, group_left, group_length, group_open, group_put, group_said
from netchan._core.leaf cimport load_acq_u32, load_acq_u64
from netchan._core.modes cimport TRUNK_SHARE, fits_trunk, goes_beside, heard_beside, may_stripe
from netchan._core.ratchet cimport put_ratchet, rekey_due
from netchan._core.order cimport ORDER_BODY, order_room
from netchan._core.sent cimport (
    KEEP_MAX, SENT_ALONE, SENT_MIRRORED, SENT_ONCE, SENT_OWN, finish_record, path_head, trunk_note, trunk_room,
)
from netchan._core.ticket cimport put_ticket, ticket_due
from netchan._core.state cimport (
    CTL_ABORT, CTL_ASK, CTL_POS, CTL_STOP, CTL_WANT, CTL_WITHDRAW, CTL_WITHDRAWN, MODE_MIRROR, MODE_PARITY,
    SESSION_CLOSING, STANDBY_OURS, copies_all, mode_of, nc_end, nc_group, nc_path, nc_session, pop_active, want_ctl,
    want_data,
)
from netchan._core.inbox cimport in_pos, in_pos_due, nc_in
from netchan._core.lossy cimport lossy_claim, lossy_expire, lossy_gap, lossy_passed
from netchan._core.outbox cimport out_next_withdraw, out_pass, out_read, out_ready, out_span, out_withdraw_said
from netchan._core.rendezvous cimport offer_bit
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    DIRECT_MIN = 2048               # payloads that lie together are sealed from where they are, from this size on
    DATA_HEAD_MOST = 24             # type, offset and number of a DATA that runs to the end of its record
    RECORD_SLACK = 64               # room kept for POS and ACK in a stream's record
    TRUNK_FRAME = 33                # the head of its DATA: type and four varints
    TRUNK_HEAD = 96                 # room for that and for POS
    TRUNK_PARTS = 256               # streams in one record of the trunk
    LONE_ACKS = 256                 # records in a row that nobody acknowledges
    POSITIONS_LOOKS = 64            # ends that wait for control and are looked at for another path


cdef int put_ack(nc_session* s, nc_path* p, nc_wr* w, int64_t now) noexcept nogil:
    cdef int rc
    # A path on which we only acknowledge asks for an acknowledgement itself now and then (RFC 9000 §13.2.4): else the
    # list of what was sent would fill up, and the path be mute.
    if p.oldest_at == 0 and p.tx_number - p.acked >= <uint64_t>LONE_ACKS:
        p.ping_due = 1
    if p.d is not NULL:
        return flight_put_ack(s, p, w, now)
    if p.unacked_records == 0:
        return 0
    rc = frame_put_ack(w, p.id, p.rx_number - 1, <uint64_t>(now - p.rx_at) // 1000 if now > p.rx_at else 0,
                       p.rx_number - 1)
    if rc < 0:
        return rc
    p.unacked_records = 0
    p.unacked_bytes = 0
    p.ack_at = TIMER_NEVER
    p.acked_at = now
    s.stats.acks += 1
    return 1


# 1: there is something to acknowledge, whether or not it is due.
cdef inline int owes_ack(const nc_path* p) noexcept nogil:
    return 1 if p.unacked_records or (p.d is not NULL and p.d.unacked) else 0


# The next record has a number: its first frame.
cdef void put_order(nc_session* s, nc_wr* w) noexcept nogil:
    if frame_put_order(w, s.order.next) >= 0:
        s.numbered_here = 1
        s.order_here = s.order.next


# Where the order has to be restored: 1: something of what is to be said has to come in order. Positions, versions and
# counts need none; but the last POS of a stream stays behind the answers to WITHDRAW.
cdef int control_in_order(nc_session* s) noexcept nogil:
    cdef nc_end* e = s.ctl_head
    if s.ratchet_out_step != 0xFF or ticket_due(s) or rekey_due(s):
        return 1
    while e is not NULL:
        if e.ctl & ~<uint8_t>(CTL_POS | CTL_WANT) or (e.in_ is not NULL and load_acq_u32(&e.in_.over)):
            return 1
        e = e.ctl_next
    return 0


# Control frames of one end. NC_ESPACE: the rest later. Returns 1 if something was written.
cdef int put_end_control(nc_session* s, nc_end* e, nc_wr* w) noexcept nogil:
    cdef int rc = 0
    cdef int wrote = 0
    cdef uint64_t final, n = 0
    cdef uint32_t said
    if e.ctl & CTL_STOP:
        rc = frame_put_stop(w, e.in_.id, defs.CODE_STOPPED, load_acq_u64(&e.in_.taken) - e.in_.discarded)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_STOP
        wrote = 1
    # Before POS: a sender that sees its stream finished without an answer knows that it came too late.
    if e.ctl & CTL_WITHDRAWN and e.in_ is not NULL:
        while e.answers:
            n = e.in_.claims.passed - <uint64_t>defs.OFFERS_MAX
            while not e.answers & offer_bit(n):
                n += 1
            rc = frame_put_withdrawn(w, e.in_.id, n, 1 if e.outcomes & offer_bit(n) else 0)
            if rc < 0:
                return rc
            e.answers &= ~offer_bit(n)
            wrote = 1
        e.ctl &= <uint8_t>~CTL_WITHDRAWN
    if e.ctl & CTL_POS:
        rc = 0
        if e.in_ is not NULL and not e.in_done:
            rc = in_pos(e.in_, w, 1, &s.budget)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_POS
        wrote |= rc
    if e.ctl & CTL_WANT and e.in_ is not NULL:
        said = load_acq_u32(&e.parked)
        if said != e.want_said:
            rc = frame_put_want(w, e.in_.id, e.want_version + 1, said)
            if rc < 0:
                return rc
            e.want_version += 1
            e.want_said = said
            wrote = 1
        e.ctl &= <uint8_t>~CTL_WANT
    # What speaks of our stream waits for its preface: before that the other side knows no such stream, and names keep
    # their order (session.md §6).
    if e.ctl & CTL_ASK and e.out.sent:
        rc = frame_put_ask(w, e.out.id, e.ask_received, e.ask_taken)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_ASK
        wrote = 1
    if e.ctl & CTL_WITHDRAW and e.out.sent:
        while out_next_withdraw(&e.out, &n):
            rc = frame_put_withdraw(w, e.out.id, n)
            if rc < 0:
                return rc
            out_withdraw_said(&e.out, n)
            wrote = 1
        e.ctl &= <uint8_t>~CTL_WITHDRAW
    if e.ctl & CTL_ABORT and e.out.sent:
        final = e.out.appended if e.abort_flags & defs.ABORT_AFTER_DATA else e.out.sent
        rc = frame_put_abort(w, e.out.id, e.abort_flags, e.abort_code, final, e.reason, e.reason_len)
        if rc < 0:
            return rc
        e.ctl &= <uint8_t>~CTL_ABORT
        wrote = 1
    return wrote


# What is said on every path, for itself: that records came, that it lives, that the session ends. 1: it elicits.
cdef int put_own(nc_session* s, nc_path* p, nc_wr* w, int64_t now) noexcept nogil:
    cdef int eliciting = 0
    if p.ack_at <= now or (owes_ack(p) and p == s.control and s.ctl_head is not NULL):
        put_ack(s, p, w, now)
    if p.ping_due and frame_put_ping(w) >= 0:
        p.ping_due = 0
        s.stats.pings += 1
        eliciting = 1
    if p.status_due and frame_put_path_status(w, p.id, p.status_said, 1 if p.standby & STANDBY_OURS else 0) >= 0:
        p.status_due = 0
        eliciting = 1
    if flight_token_due(p) and frame_put_new_cid(w, p.id, p.d.own_cid, p.d.own_token) >= 0:
        p.d.token_due = 0
        eliciting = 1
    return eliciting


cdef void put_close(nc_session* s, nc_path* p, nc_wr* w) noexcept nogil:
    if s.state == SESSION_CLOSING and p.close_said < close_copies(p):
        if frame_put_session_close(w, s.close_code, s.reason, s.reason_len) >= 0:
            p.close_said += 1
            s.close_sent = 1


# What a path says for itself; not open: nothing that asks for an answer. Size of the record, 0, or a negative code.
cdef int64_t send_own(nc_session* s, nc_path* p, uint8_t* out, int open, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef size_t head = path_head(p, defs.TAG_CONTROL)
    cdef uint8_t* begin = out + head
    cdef int eliciting = 0
    wr_init(&w, begin, CONTROL_ROOM - head - defs.AEAD_TAG_SIZE)
    if open:
        eliciting = put_own(s, p, &w, now)
    elif p.ack_at <= now:
        put_ack(s, p, &w, now)
    put_close(s, p, &w)
    if w.p == begin:
        return 0
    return finish_record(s, p, out, defs.TAG_CONTROL, <size_t>(w.p - begin), NULL, 0, <size_t>(w.p - begin), 0, 0,
                         eliciting, now)


# The positions of streams whose data come on several paths, in a record that has nothing else, so that it may overtake
# what was said before: the others copy it (session.md §5.3). Those that control begins with; it is said again if lost.
cdef int64_t send_positions(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef nc_end* e
    cdef size_t head = path_head(p, defs.TAG_CONTROL)
    cdef uint8_t* begin = out + head
    cdef int64_t size
    wr_init(&w, begin, positions_room(s, cap, head))
    while s.ctl_head is not NULL and goes_beside(s, s.ctl_head):
        e = s.ctl_head
        if in_pos(e.in_, &w, 1, &s.budget) < 0:
            break
        e.ctl &= <uint8_t>~CTL_POS
        if e.ctl:
            break                               # it has more to say, in the record that follows
        s.ctl_head = e.ctl_next
        e.in_ctl = 0
        settle_end(s, e)
        end_release(e, &s.pins)
    if w.p == begin:
        return 0
    s.copy_here = SENT_MIRRORED
    size = finish_record(s, p, out, defs.TAG_CONTROL, <size_t>(w.p - begin), NULL, 0, <size_t>(w.p - begin), 0, 0, 1,
                         now)
    s.copy_here = SENT_OWN
    if size > 0:
        p.beside_upto = p.tx_number
    return size


# All of it only grows: it has changed if this has.
cdef inline uint64_t told(const nc_in* i) noexcept nogil:
    return i.granted_bytes + i.granted_msgs + i.told_taken + i.told_received


cdef int64_t send_positions_first(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef nc_end* e = s.ctl_head
    cdef size_t head = path_head(p, defs.TAG_CONTROL)
    cdef uint8_t* begin = out + head
    cdef uint8_t* said
    cdef uint64_t before
    cdef int looks = POSITIONS_LOOKS
    cdef int64_t size
    if cap < CONTROL_ROOM:
        return 0
    wr_init(&w, begin, positions_room(s, cap, head))
    while e is not NULL and looks:
        if goes_beside(s, e):
            said = w.p
            before = told(e.in_)
            if in_pos(e.in_, &w, 0, &s.budget) < 0:
                break
            if told(e.in_) == before:
                w.p = said                      # nothing new, and due again at once: it would be said for ever
        e = e.ctl_next                          # it stays due where control is said, since nobody answers for this one
        looks -= 1
    if w.p == begin:
        return 0
    s.copy_here = SENT_ONCE
    size = finish_record(s, p, out, defs.TAG_CONTROL, <size_t>(w.p - begin), NULL, 0, 0, 0, 0, 1, now)
    s.copy_here = SENT_OWN
    return size


cdef int positions_wait(nc_session* s) noexcept nogil:
    cdef nc_end* e = s.ctl_head
    cdef int looks = POSITIONS_LOOKS
    while e is not NULL and looks:
        if goes_beside(s, e) and in_pos_due(e.in_):
            return 1
        e = e.ctl_next
        looks -= 1
    return 0


cdef inline size_t positions_room(const nc_session* s, size_t cap, size_t head) noexcept nogil:
    cdef size_t room = cap - head - defs.AEAD_TAG_SIZE
    if room > s.peer.max_record - 64:
        room = <size_t>s.peer.max_record - 64
    return room if room < <size_t>ORDER_BODY else ORDER_BODY        # into a datagram, on whatever path


# Writes the control record if something is due. Returns its size, 0, or a negative code.
cdef int64_t send_control(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef nc_end* e
    cdef int rc, eliciting
    cdef size_t head = path_head(p, defs.TAG_CONTROL)
    cdef uint8_t* begin = out + head
    cdef uint8_t* first = begin
    cdef size_t room
    cdef int64_t size
    if cap < CONTROL_ROOM:
        return 0
    if s.ctl_head is not NULL and goes_beside(s, s.ctl_head):
        size = send_positions(s, p, out, cap, now)
        if size:
            return size
    room = cap - head - defs.AEAD_TAG_SIZE
    if room > s.peer.max_record - 64:
        room = <size_t>s.peer.max_record - 64
    if s.order is not NULL:
        if room > <size_t>ORDER_BODY:
            room = ORDER_BODY                   # it may have to come again in a datagram
        wr_init(&w, begin, room)
        if control_in_order(s):
            if not order_room(s.order):
                return send_own(s, p, out, 1, now)
            put_order(s, &w)
            first = w.p
    else:
        wr_init(&w, begin, room)
    eliciting = put_own(s, p, &w, now)
    if s.max_streams_due and frame_put_max_streams(&w, s.peer_max) >= 0:
        s.max_streams_due = 0
        s.peer_max_told = s.peer_max
        eliciting = 1
    while s.n_closes and frame_put_path_close(&w, s.closes[s.n_closes - 1], defs.CLOSE_NONE) >= 0:
        s.n_closes -= 1
        eliciting = 1
    put_ratchet(s, &w, &eliciting)
    put_ticket(s, &w, &eliciting)
    while s.offer_pos is not NULL and in_pos(s.offer_pos.in_, &w, 1, &s.budget) >= 0:
        s.offer_pos.pos_due = 0
        s.offer_pos = s.offer_pos.pos_next
        eliciting = 1
    while s.ctl_head is not NULL:
        e = s.ctl_head
        if goes_beside(s, e):
            break                               # in a record of its own
        rc = put_end_control(s, e, &w)
        if rc < 0:
            break
        if rc > 0:
            eliciting = 1
        s.ctl_head = e.ctl_next
        e.in_ctl = 0                            # what is left in e.ctl waits for the preface; send_data lists it again
        settle_end(s, e)
        end_release(e, &s.pins)
    put_close(s, p, &w)
    if w.p == first:
        s.numbered_here = 0
        if s.ctl_head is not NULL and goes_beside(s, s.ctl_head):
            return send_positions(s, p, out, cap, now)
        return 0
    if s.numbered_here:
        eliciting = 1                           # a number that is lost would stop all behind it
    return finish_record(s, p, out, defs.TAG_CONTROL, <size_t>(w.p - begin), NULL, 0, <size_t>(w.p - begin), 0, 0,
                         eliciting, now)


# 1: the next data of e begins a message whose number is said: any but the first one of the stream.
cdef inline int says_number(const nc_end* e) noexcept nogil:
    return 1 if e.out.at_boundary and e.out.sent_msgs > 0 else 0


# Bytes for data behind type, offset and the number, where it is said. Datagrams are filled to the last byte: those of a
# long value are of one size, and leave in one call.
cdef inline size_t data_room(const nc_path* p, const nc_end* e, const nc_wr* w) noexcept nogil:
    cdef size_t head = DATA_HEAD_MOST
    if p.d is not NULL:
        head = 1 + <size_t>varint_len(e.out.sent) + (<size_t>varint_len(e.out.sent_msgs) if says_number(e) else 0)
    return <size_t>(w.end - w.p) - head


# What of a stream that has a mode of its own becomes of the copies of its next record. What has to come in order, and
# what rides on the trunk, goes as the session does.
cdef inline uint8_t copies_of(nc_session* s, nc_end* e) noexcept nogil:
    if e.own == 0 or not may_stripe(s, e):
        return SENT_OWN
    if not copies_all(s):
        return SENT_MIRRORED if e.own == MODE_MIRROR + 1 else SENT_OWN
    return SENT_OWN if e.own == MODE_MIRROR + 1 or e.own == MODE_PARITY + 1 else SENT_ALONE


cdef int64_t send_data(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, size_t share,
                       int64_t now) noexcept nogil:
    cdef int64_t size
    s.copy_here = copies_of(s, e)
    size = put_data(s, p, e, out, cap, share, now)
    s.copy_here = SENT_OWN
    return size


# One record with data of one stream. Returns its size, 0 if there is nothing, or a negative code.
cdef int64_t put_data(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, size_t share,
                      int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef int fin = 0
    cdef uint64_t counted = e.out.seen_msgs
    cdef uint64_t ready = out_ready(&e.out, &fin)
    cdef size_t head = path_head(p, e.out.id)
    cdef uint8_t* begin = out + head
    cdef uint8_t* said                  # what follows asks for an answer
    cdef int numbered = s.order is not NULL and not may_stripe(s, e)
    cdef int grouped = 0
    cdef size_t room, n, kept
    cdef const uint8_t* span
    cdef uint64_t upto
    cdef uint64_t before = e.out.sent
    cdef uint64_t first, gap = 0, gap_at, gap_bytes
    cdef uint8_t reason
    cdef int rc
    s.stats.messages_sent += e.out.seen_msgs - counted
    if e.out.lossy:
        lossy_expire(&e.out, now, &s.pins)
        lossy_gap(&e.out, &first, &gap, &reason, &gap_at, &gap_bytes)
        fin = 0
        ready = out_ready(&e.out, &fin)
    if ready == 0 and not fin and not gap:
        return 0
    if mode_of(s, e) == MODE_PARITY and may_stripe(s, e):
        grouped = group_begin(s, e)
        if grouped and copies_all(s):
            s.copy_here = SENT_ALONE            # its parity stands in for the copies
    room = cap - head - defs.AEAD_TAG_SIZE
    if room > s.peer.max_record - 64:
        room = <size_t>s.peer.max_record - 64
    if room > defs.RECORD_BODY_DEFAULT + RECORD_SLACK:
        room = defs.RECORD_BODY_DEFAULT + RECORD_SLACK
    if numbered and room > <size_t>ORDER_BODY:
        room = ORDER_BODY
    wr_init(&w, begin, room)
    if p.d is not NULL and ready < <uint64_t>DATAGRAM_PAD:
        memset(w.p, 0, DATAGRAM_PAD)            # PADDING in front: the data runs to the end
        w.p += DATAGRAM_PAD
    if numbered:
        put_order(s, &w)
        if not load_acq_u32(&e.paired) or not e.out.acked:
            e.named_at = s.order_here
    # What we owe anyway rides along: one seal for a whole turn of a ping-pong.
    if owes_ack(p) and (p.ack_at <= now or p.unacked_bytes >= 65536 or now - p.tx_at > 1000000):
        put_ack(s, p, &w, now)
    said = w.p
    if p == s.control and e.in_ is not NULL and not e.in_done and (e.ctl & CTL_POS or in_pos_due(e.in_)):
        if heard_beside(s, e) or (s.copy_here == <uint8_t>SENT_ALONE and copies_all(s)):
            want_ctl(s, e, CTL_POS)             # others copy it, and not this record
        elif in_pos(e.in_, &w, 1, &s.budget) > 0:
            e.ctl &= <uint8_t>~CTL_POS
    if gap and frame_put_skip(&w, first, gap, reason, gap_at, gap_bytes) >= 0:
        lossy_passed(&e.out, gap, gap_bytes)
        ready = out_ready(&e.out, &fin)
        if ready == 0 and not fin:
            return finish_record(s, p, out, e.out.id, <size_t>(w.p - begin), NULL, 0, <size_t>(w.p - begin), e.out.sent,
                                 e.out.sent - before, 1, now)
    n = data_room(p, e, &w)
    if n > share:
        n = share
    if n > ready:
        n = <size_t>ready
    if fin and n < ready:
        fin = 0
    if e.out.lossy and n:
        n = lossy_claim(&e.out, n, now)
        if n == 0 and not fin:                  # the application dropped it meanwhile
            if p.d is not NULL and w.p - begin < DATAGRAM_PAD:
                memset(w.p, 0, DATAGRAM_PAD)    # a number alone is less than a datagram has to have
                w.p += DATAGRAM_PAD
            return finish_record(s, p, out, e.out.id, <size_t>(w.p - begin), NULL, 0, <size_t>(w.p - begin), e.out.sent,
                                 e.out.sent - before, 1 if numbered or w.p != said else 0, now) if w.p != begin else 0
    if grouped:
        if e.group.announce and frame_put_parity(&w, e.group.start, e.group.size, <uint64_t>e.group.k * e.group.size,
                                                 e.group.m, 0, NULL, 0) >= 0:
            room = data_room(p, e, &w)
            if n > room:
                n = room
                fin = 0
        if n > group_left(e):
            n = <size_t>group_left(e)
            fin = 0
    rc = frame_put_data_head(&w, e.out.sent, fin, says_number(e) and n > 0, e.out.sent_msgs, -1)
    if rc < 0:
        return rc
    upto = e.out.sent + n
    s.stats.data_sent += n
    span = NULL
    if n >= <size_t>(DIRECT_MIN if p.d is NULL else KEEP_MAX + 1) and out_span(&e.out, &span, n) == n:
        out_pass(&e.out, n)
        if grouped:
            group_put(s, e, p, span, n, fin, now)
        if fin:
            e.out.fin_sent = 1
        return finish_record(s, p, out, e.out.id, <size_t>(w.p - begin), span, n, <size_t>(w.p - begin), upto,
                             upto - before, 1, now)
    kept = <size_t>(w.p - begin) + (n if n <= <size_t>KEEP_MAX else 0)
    out_read(&e.out, w.p, n)
    if grouped:
        group_put(s, e, p, w.p, n, fin, now)
    w.p += n
    if fin:
        e.out.fin_sent = 1
    return finish_record(s, p, out, e.out.id, <size_t>(w.p - begin), NULL, 0, kept, upto, upto - before, 1, now)


# A parity symbol of a group. It is not kept: lost, it is not sent again.
cdef int64_t send_symbol(nc_session* s, nc_path* p, nc_group* g, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef uint64_t stream = g.stream
    cdef size_t head = path_head(p, stream)
    cdef uint8_t* begin = out + head
    cdef size_t n = group_length(g)
    cdef int64_t size
    wr_init(&w, begin, cap - head - defs.AEAD_TAG_SIZE)
    if frame_put_parity(&w, g.start, g.size, g.n, g.m, g.said, g.rows + <size_t>g.said * g.size, n) < 0:
        group_said(s, g, p)                     # the path carries less by now than when the group began
        return 0
    if p.d is not NULL and w.p - begin < DATAGRAM_PAD:
        memset(w.p, 0, DATAGRAM_PAD)
        w.p += DATAGRAM_PAD
    s.copy_here = SENT_ONCE
    size = finish_record(s, p, out, stream, <size_t>(w.p - begin), NULL, 0, 0, 0, 0, 1, now)
    s.copy_here = SENT_OWN
    if size > 0:
        group_said(s, g, p)
    return size


# One record with small DATA of e and of those behind it in the line, each of which leaves it: the line's reference goes
# here. Returns the size of the record, 0 if nothing was ready, or a negative code.
cdef int64_t send_trunk(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef size_t head = path_head(p, defs.TAG_TRUNK)
    cdef uint8_t* begin = out + head
    cdef size_t room = cap - head - defs.AEAD_TAG_SIZE
    cdef uint64_t ready, counted, left
    cdef int fin, more
    cdef int parts = 0
    cdef int64_t size
    cdef uint8_t* first = begin
    cdef uint8_t* said                  # what follows asks for an answer
    if room > s.peer.max_record - 64:
        room = <size_t>s.peer.max_record - 64
    if room > defs.RECORD_BODY_DEFAULT + RECORD_SLACK:
        room = defs.RECORD_BODY_DEFAULT + RECORD_SLACK
    if s.order is not NULL and room > <size_t>ORDER_BODY:
        room = ORDER_BODY
    wr_init(&w, begin, room)
    if s.order is not NULL:
        put_order(s, &w)
        first = w.p
    if owes_ack(p) and (p.ack_at <= now or p.unacked_bytes >= 65536 or now - p.tx_at > 1000000):
        put_ack(s, p, &w, now)
    said = w.p
    while True:
        fin = 0
        counted = e.out.seen_msgs
        ready = out_ready(&e.out, &fin)
        s.stats.messages_sent += e.out.seen_msgs - counted
        left = <uint64_t>(w.end - w.p) - TRUNK_FRAME
        if left > <uint64_t>TRUNK_SHARE:
            left = TRUNK_SHARE
        more = ready > left
        if more:                                # it has grown since, or records are very short
            ready = left
            fin = 0
        if (ready or fin) and frame_put_trunk_head(&w, e.out.id, e.out.sent, fin, e.out.at_boundary and ready > 0
                                                   and e.out.sent_msgs > 0, e.out.sent_msgs, ready) >= 0:
            out_read(&e.out, w.p, <size_t>ready)
            w.p += ready
            s.stats.data_sent += ready
            trunk_note(p, e.out.id, e.out.sent, ready)
            parts += 1
            if fin:
                e.out.fin_sent = 1
                if e.out.received >= e.out.fin_at:
                    e.out.fin_acked = 1         # every byte was there before the end was said
            if e.in_ is not NULL and not e.in_done and (e.ctl & CTL_POS or in_pos_due(e.in_)):
                if heard_beside(s, e):
                    e.ctl |= <uint8_t>CTL_POS
                elif in_pos(e.in_, &w, 1, &s.budget) > 0:
                    e.ctl &= <uint8_t>~CTL_POS
            if e.ctl:
                want_ctl(s, e, 0)
            if more:
                want_data(s, e)
            if fin:
                settle_end(s, e)
        end_release(e, &s.pins)
        if s.active_head is NULL or not fits_trunk(s.active_head) or group_open(s.active_head) or not trunk_room(p):
            break
        # A record with a number has never so much room: what the next one has to send is to fit.
        left = TRUNK_SHARE if s.order is NULL else s.active_head.out.appended - s.active_head.out.sent
        if <uint64_t>(w.end - w.p) < left + TRUNK_HEAD or parts >= TRUNK_PARTS:
            break
        e = pop_active(s)
    if w.p == first:
        s.numbered_here = 0
        return 0
    size = finish_record(s, p, out, defs.TAG_TRUNK, <size_t>(w.p - begin), NULL, 0, <size_t>(w.p - begin), 0, 0,
                         1 if w.p != said or s.order is not NULL else 0, now)
    if size > 0:
        s.stats.trunk_records += 1
    return size
