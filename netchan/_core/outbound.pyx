"""The turns of what is to be sent: a control record, then one record for each stream of the line.

Layer: _core, rung m. Baton. Flow on the path that carries control: session_send -> take_dirty -> send_again ->
send_control -> send_line -> send_turn -> send_data or send_trunk. On the others: session_send -> send_beside. What goes
into a record is in fill, which path a stream takes in modes.
Spec: docs/spec/wire.md §3; docs/spec/session.md §4, §5.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from netchan._core cimport defs
from netchan._core.auto cimport AUTO_LOOK_NS
from netchan._core.cursor cimport nc_wr, wr_init
from netchan._core.dealing cimport late_for, late_waits
from netchan._core.ends cimport end_release, session_ended, settle_end, take_dirty
from netchan._core.fill cimport (
    CONTROL_ROOM, close_copies, positions_wait, send_control, send_data, send_own, send_positions_first, send_symbol,
    send_trunk,
)
from netchan._core.flight cimport (
    flight_number, flight_open, flight_probe, flight_probed, flight_token_due, flight_unproved,
)
from netchan._core.frame cimport frame_put_path_probe
from netchan._core.group cimport group_open, group_waits
from netchan._core.idmap cimport idmap_next
from netchan._core.keys cimport keys_deadline, keys_tick
from netchan._core.modes cimport copies_due, fits_trunk, its_turn, may_stripe, mirrors, spreads
from netchan._core.ratchet cimport rekey_due, rekey_first
from netchan._core.order cimport order_room
from netchan._core.resume cimport session_pass_late
from netchan._core.sent cimport (
    SENT_RESERVE, epoch_begun, finish_record, path_head, send_again, send_copy, sent_room, trunk_room,
)
from netchan._core.ticket cimport ticket_due
from netchan._core.state cimport (
    CTL_ABORT, CTL_ASK, CTL_POS, OWN_AUTO, SESSION_CLOSING, SESSION_OVER, SESSION_SUSPENDED, SESSION_UP, load_ptr,
    nc_end, nc_group, nc_path, nc_session, take_active, want_ctl, want_data,
)
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    ROUND_BYTES = 1024              # deficit round robin: least share of a stream's turn
    UNPROVED_MOST = 256             # bytes on a path whose peer may be another one than asked; a JOIN has 151
    UNPROVED_EACH = 96              # of these for a datagram with PING


# Streams whose long value waited for the budget look again; the one that waited longest has the turn if it is free.
cdef void wake_waiting(nc_session* s) noexcept nogil:
    cdef uint32_t at = 0
    cdef nc_end* e
    cdef nc_end* first = NULL
    s.budget.freed = 0
    while True:
        e = <nc_end*>idmap_next(&s.ins, &at)
        if e is NULL:
            break
        if e.in_.waits and not e.in_done:
            want_ctl(s, e, CTL_POS)
            if first is NULL or e.in_.waits < first.in_.waits:
                first = e
    if first is not NULL and s.budget.turn == 0:
        s.budget.turn = first.in_.id


cdef int session_wants_send(nc_session* s) noexcept nogil:
    cdef nc_path* p = s.paths
    if s.state == SESSION_OVER:
        return 0
    if s.budget.freed:
        return 1
    if s.state == SESSION_SUSPENDED:
        return 1 if load_ptr(<void**>&s.dirty_head) is not NULL else 0
    if s.replay.next < s.replay.n:
        return 1
    if s.ctl_head is not NULL or s.active_head is not NULL:
        return 1
    if load_ptr(<void**>&s.dirty_head) is not NULL:
        return 1
    if load_ptr(<void**>&s.open_head) is not NULL and s.opened < s.max_streams:
        return 1
    if s.sealer.keys.wants_update and s.sealer.keys.acked and s.rekey_state != 2:
        return 1
    if (s.ratchet_out_step != 0xFF and s.ratchet_out is not NULL) or ticket_due(s):
        return 1
    if rekey_due(s):
        return 1
    if s.offer_pos is not NULL or s.max_streams_due or s.n_closes \
            or (s.state == SESSION_CLOSING and not s.close_sent):
        return 1
    while p is not NULL:
        if p.ping_due or flight_token_due(p):
            return 1
        p = p.next
    return 0


# One record of what e has to send, or of several ends where it may ride on the trunk; e has left the line. Returns its
# size, 0, or a negative code.
cdef int64_t send_turn(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef size_t share = defs.RECORD_BODY_DEFAULT
    cdef int64_t size = 0
    if fits_trunk(e) and trunk_room(p) and not group_open(e):
        return send_trunk(s, p, e, out, cap, now)
    if group_waits(e):
        size = send_symbol(s, p, e.group, out, cap, now) if not e.out_done else 0
        want_data(s, e)
        end_release(e, &s.pins)
        return size
    if s.n_active:
        share = 65536 // s.n_active
        if share < ROUND_BYTES:
            share = ROUND_BYTES
        elif share > defs.RECORD_BODY_DEFAULT:
            share = defs.RECORD_BODY_DEFAULT
    if e.bound and (not e.out_done or e.out.sent == 0):
        size = send_data(s, p, e, out, cap, share, now)
    if size > 0:
        if e.ctl:
            want_ctl(s, e, 0)
        want_data(s, e)                         # to the end of the line; leaves it when nothing is ready
        if e.out.fin_sent and not e.out_done:
            if e.out.received >= e.out.fin_at:
                e.out.fin_acked = 1             # every byte was there before the end was said
            settle_end(s, e)
    end_release(e, &s.pins)
    return size


# The streams that wait take their turns on this path, as far as it may carry them.
cdef int64_t send_line(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef size_t used = 0
    cdef int64_t size
    cdef int shared = spreads(s) and s.n_paths > 1
    cdef nc_group* late
    cdef nc_end* before = NULL
    cdef nc_end* e = s.active_head
    # Room in which a record is begun: into a datagram goes one.
    cdef size_t least = defs.RECORD_BODY_DEFAULT + 256 if p.d is NULL else cap
    while s.late is not NULL and cap - used >= least and sent_room(p, SENT_RESERVE):
        late = late_for(s, p)
        if late is NULL:
            break
        size = send_symbol(s, p, late, out + used, cap - used, now)
        if size < 0:
            return size
        used += <size_t>size
    while e is not NULL and cap - used >= least and sent_room(p, SENT_RESERVE):
        if s.order is not NULL and not order_room(s.order) and not may_stripe(s, e):
            before = e
            e = e.active_next
            continue
        if shared:
            # What may not, or not now, stays where it is: prefaces go in the order of their ids.
            if p != s.control if not may_stripe(s, e) else not its_turn(s, p, e):
                before = e
                e = e.active_next
                continue
        take_active(s, before, e)
        size = send_turn(s, p, e, out + used, cap - used, now)
        if size < 0:
            return size
        used += <size_t>size
        e = before.active_next if before is not NULL else s.active_head
    return <int64_t>used


cdef int64_t send_copies(nc_session* s, nc_path* p, uint8_t* out, size_t cap, size_t used, int64_t now) noexcept nogil:
    cdef int64_t size = 1
    while size > 0 and sent_room(p, SENT_RESERVE):
        size = send_copy(s, p, out + used, cap - used, now)
        if size < 0:
            return size
        used += <size_t>size
    return <int64_t>used


# On a path that does not carry control: what it has to say for itself; copies, or bulk data beside the one that does.
cdef int64_t send_beside(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef int64_t own, size = 0
    if not sent_room(p, 0):
        p.ack_at = TIMER_NEVER                  # as in session_send
        return 0
    if cap < CONTROL_ROOM:
        return 0
    own = send_own(s, p, out, 1, now)
    if own >= 0 and s.state == SESSION_UP and not p.aside:
        if copies_due(s, p):
            own = send_copies(s, p, out, cap, <size_t>own, now)
        if own >= 0 and s.ctl_head is not NULL and sent_room(p, 0):
            size = send_positions_first(s, p, out + own, cap - <size_t>own, now)
            own = size if size < 0 else own + size
    if own < 0 or s.state != SESSION_UP or not spreads(s) or p.aside or s.replay.next < s.replay.n:
        return own
    size = send_line(s, p, out + own, cap - <size_t>own, now)
    return size if size < 0 else own + size


# Where a mode is picked: something moves, so there is something to look at.
cdef inline void look_at_traffic(nc_session* s, int64_t now) noexcept nogil:
    if (s.picks or s.own_modes & <uint8_t>OWN_AUTO) and s.auto_at == TIMER_NEVER and s.active_head is not NULL:
        s.auto_at = now + AUTO_LOOK_NS


cdef int64_t session_send(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil:
    cdef size_t used = 0
    cdef int64_t size
    if s.state == SESSION_OVER:
        take_dirty(s)                           # ends that were opened since are cut
        return defs.NC_ECLOSED
    take_dirty(s)
    if s.budget.freed:
        wake_waiting(s)
    look_at_traffic(s, now_ns)
    if p is NULL or not p.alive:
        return 0
    if p != s.control:
        size = send_beside(s, p, out, cap, now_ns)
        if s.state == SESSION_CLOSING and all_told(s):
            session_ended(s)
        return size
    while s.replay.next < s.replay.n and sent_room(p, 0):
        size = send_again(s, p, out + used, cap - used, now_ns)
        if size < 0:
            return size
        if size == 0:
            break
        used += <size_t>size
    if s.replay.next < s.replay.n or cap - used < CONTROL_ROOM:
        return <int64_t>used                    # what follows was said later
    if not sent_room(p, 0):
        p.ack_at = TIMER_NEVER                  # nothing can be said, so nothing is due; with the next that comes again
        return <int64_t>used
    new_keys(s, now_ns)
    size = send_control(s, p, out + used, cap - used, now_ns)
    if size < 0:
        return size
    used += <size_t>size
    if size and p.beside_upto == p.tx_number and cap - used >= CONTROL_ROOM and sent_room(p, 0):
        size = send_control(s, p, out + used, cap - used, now_ns)   # that was POS alone
        if size < 0:
            return size
        used += <size_t>size
    if s.state == SESSION_CLOSING:
        if all_told(s):
            session_ended(s)
        return <int64_t>used
    size = send_line(s, p, out + used, cap - used, now_ns)
    if size < 0:
        return size
    used += <size_t>size
    if s.ctl_head is not NULL and used and cap - used >= CONTROL_ROOM and s.ctl_head.ctl & (CTL_ABORT | CTL_ASK):
        if sent_room(p, 0):
            size = send_control(s, p, out + used, cap - used, now_ns)
            if size < 0:
                return size
            used += <size_t>size
    return <int64_t>used


# 1: a datagram that asks for an answer would have something to say on this path.
cdef int wants_datagram(nc_session* s, nc_path* p) noexcept nogil:
    if p.ping_due or s.state == SESSION_CLOSING or flight_token_due(p):
        return 1
    if p != s.control:
        if s.state != SESSION_UP or p.aside:
            return 0
        if mirrors(s) and (p.copied < s.control.tx_number or (s.control.late and s.active_head is not NULL)):
            return 1
        if p.copied < s.control.beside_upto or (s.ctl_head is not NULL and positions_wait(s)):
            return 1
        if not spreads(s) or s.replay.next < s.replay.n:
            return 0
        return 1 if s.active_head is not NULL or late_waits(s, p) else 0
    if s.replay.next < s.replay.n or s.ctl_head is not NULL or s.active_head is not NULL or late_waits(s, p):
        return 1
    if s.offer_pos is not NULL or s.max_streams_due or s.n_closes or s.ratchet_out_step != 0xFF \
            or ticket_due(s) or rekey_due(s):
        return 1
    return 0


# Our next epoch, if it is time for it; what an announcement waits for comes first.
cdef inline void new_keys(nc_session* s, int64_t now) noexcept nogil:
    if rekey_first(s):
        return
    if s.sealer.keys.wants_update or 0 <= keys_deadline(s.sealer.keys) <= now:
        if keys_tick(s.sealer.keys, s.sealer.cache, now) == 1:
            epoch_begun(s)                      # something to acknowledge in the new epoch


# What follows is said in one datagram on the path that carries control.
cdef int64_t send_one(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil:
    cdef int64_t size = 0
    if s.replay.next < s.replay.n:
        size = send_again(s, p, out, cap, now)
    if size == 0:
        size = send_control(s, p, out, cap, now)
    if size == 0 and s.state == SESSION_UP:
        size = send_line(s, p, out, cap, now)
    return size


cdef int64_t session_send_probe(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil:
    cdef nc_wr w
    cdef size_t head
    cdef uint8_t* begin
    if s.state != SESSION_UP or not p.alive or p.d.challenged != 1 or not sent_room(p, 0):
        return 0
    flight_number(s, p)
    head = path_head(p, defs.TAG_CONTROL)
    begin = out + head
    if not sent_room(p, 0) or cap < head + defs.AEAD_TAG_SIZE + 16:
        return 0
    wr_init(&w, begin, cap - head - defs.AEAD_TAG_SIZE)
    frame_put_path_probe(&w, 0, p.d.challenge)
    memset(w.p, 0, <size_t>(w.end - w.p))       # filled up: it also shows how much goes through
    return finish_record(s, p, out, defs.TAG_CONTROL, <size_t>(w.end - begin), NULL, 0, 0, 0, 0, 1, now_ns)


# A datagram that finds out whether the path carries so much: PING and PADDING.
cdef int64_t send_length(nc_session* s, nc_path* p, uint8_t* out, size_t room, int64_t now) noexcept nogil:
    cdef uint32_t length = flight_probe(p, now)
    cdef size_t head = path_head(p, defs.TAG_CONTROL)
    cdef int64_t size
    if length == 0 or length > room or s.state != SESSION_UP or not flight_open(p, length, now):
        return 0
    memset(out + head, 0, length - head - defs.AEAD_TAG_SIZE)
    out[head] = defs.FRAME_PING
    size = finish_record(s, p, out, defs.TAG_CONTROL, length - head - defs.AEAD_TAG_SIZE, NULL, 0, 0, 0, 0, 1, now)
    if size > 0:
        flight_probed(p)
    return size


# In a datagram of its own, which does not come again: it would, on any path, and is said of this one.
cdef int64_t send_response(nc_session* s, nc_path* p, uint8_t* out, int64_t now) noexcept nogil:
    cdef nc_wr w
    cdef size_t head = path_head(p, defs.TAG_CONTROL)
    wr_init(&w, out + head, CONTROL_ROOM - head - defs.AEAD_TAG_SIZE)
    frame_put_path_probe(&w, 1, p.d.response)
    p.d.response_due = 0
    return finish_record(s, p, out, defs.TAG_CONTROL, <size_t>(w.p - (out + head)), NULL, 0, 0, 0, 0, 1, now)


# On a path whose peer has not shown that it hears us there: enough for it to find out that the path lives, and no more
# than three times what asked for it (RFC 9000 §8.1).
cdef int64_t send_unproved(nc_session* s, nc_path* p, uint8_t* out, int64_t now) noexcept nogil:
    cdef int closing = s.state == SESSION_CLOSING
    if p.tx_bytes + UNPROVED_EACH + (s.reason_len if closing else 0) <= <uint64_t>UNPROVED_MOST:
        return send_own(s, p, out, 1, now)
    if closing:
        p.close_said = <uint8_t>close_copies(p)     # there is no room for it here
        s.close_sent = 1
    return 0


cdef int64_t session_send_datagram(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil:
    cdef int64_t size
    cdef size_t room
    take_dirty(s)
    if s.state == SESSION_OVER:
        return defs.NC_ECLOSED
    if s.budget.freed:
        wake_waiting(s)
    look_at_traffic(s, now_ns)
    if not p.alive:
        return 0
    if p == s.control:
        new_keys(s, now_ns)
    room = cap
    if cap > p.d.mtu:
        cap = p.d.mtu
    flight_number(s, p)
    if not sent_room(p, 0):
        p.ack_at = TIMER_NEVER                  # nothing can be said, so nothing is due; with the next that comes again
        return 0
    size = 0 if flight_unproved(p) else send_length(s, p, out, room, now_ns)
    if size:
        return size
    if flight_unproved(p):
        size = send_unproved(s, p, out, now_ns)
    elif p.d.response_due and s.state == SESSION_UP and flight_open(p, cap, now_ns):
        size = send_response(s, p, out, now_ns)
    elif not wants_datagram(s, p) or not flight_open(p, cap, now_ns):
        size = send_own(s, p, out, 0, now_ns)
    elif p == s.control:
        size = send_one(s, p, out, cap, now_ns)
    else:
        size = send_own(s, p, out, 1, now_ns)
        if size == 0 and s.state == SESSION_UP and not p.aside:
            if copies_due(s, p):
                size = send_copy(s, p, out, cap, now_ns)
            if size == 0 and mirrors(s) and s.active_head is not NULL and session_pass_late(s, p):
                return send_one(s, p, out, cap, now_ns)
            if size == 0 and s.ctl_head is not NULL:
                size = send_positions_first(s, p, out, cap, now_ns)
            if size == 0 and spreads(s) and s.replay.next == s.replay.n:
                size = send_line(s, p, out, cap, now_ns)
    if s.state == SESSION_CLOSING and all_told(s):
        session_ended(s)
    return size


# 1: CLOSE was said on each path that may still carry it.
cdef int all_told(nc_session* s) noexcept nogil:
    cdef nc_path* p = s.paths
    while p is not NULL:
        if p.close_said < close_copies(p) and not p.suspect:
            return 0
        p = p.next
    return s.close_sent


cdef void session_said(nc_session* s) noexcept nogil:
    if s.state == SESSION_CLOSING and s.close_sent:
        session_ended(s)
