"""Paths of a session: how they come and go, which of them carries, and what happens while there is none.

Layer: _core, rung l. Baton. What has to be sent again is in sent.pyx; the exchange that leads here is net/join.py.
Spec: docs/spec/session.md §1, §5, §5.2, §5.3; docs/spec/handshake.md §11.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netchan._core.beat cimport beat_due
from netchan._core cimport defs
from netchan._core.ends cimport fail, session_ended
from netchan._core.events cimport event_note, events_show
from netchan._core.flight cimport CHALLENGED_NEVER, flight_free
from netchan._core.auto cimport auto_begin
from netchan._core.congestion cimport cc_open
from netchan._core.group cimport groups_settle
from netchan._core.idmap cimport idmap_next
from netchan._core.keys cimport keys_may_update, keys_path_add, keys_path_free, keys_path_remove
from netchan._core.leaf cimport load_acq_u32, store_seq_u32
from netchan._core.sent cimport (
    SENT_COPY, SENT_OWN, epoch_settled, sent_acked, sent_free, sent_give, sent_move, sent_own, sent_room,
)
from netchan._core.state cimport (
    EV_ACK, EV_SEND, MODE_AUTO, MODE_MIRROR, OWN_AUTO, PATH_CLOSES, PATH_HEARD, PATH_SILENT, SESSION_OVER,
    SESSION_SUSPENDED, SESSION_UP, STANDBY_OURS, STANDBY_THEIRS, STATE_LOST, STATE_RESUMED, STATE_SUSPENDED,
    copies_all, nc_dgram, nc_end, nc_ended, nc_path, nc_session, notify,
)
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    ENDED_KEPT = 8                  # paths of which is known how much came on them after they have ended


# --- list of paths ----------------------------------------------------------------------------------------------------

cdef nc_path* path_find(nc_session* s, uint32_t path_id) noexcept nogil:
    cdef nc_path* p = s.paths
    while p is not NULL and p.id != path_id:
        p = p.next
    return p


# A path that was agreed upon: behind the others. NULL: no memory, too many, or the id was used.
cdef nc_path* path_new(nc_session* s, uint32_t path_id, const uint8_t* binding32, nc_dgram* d,
                       int64_t now_ns) noexcept nogil:
    cdef nc_path** link = &s.paths
    cdef nc_path* p
    if s.n_paths >= s.mine.max_paths:
        return NULL
    p = <nc_path*>calloc(1, sizeof(nc_path))
    if p is NULL:
        return NULL
    p.key = keys_path_add(s.sealer.keys, path_id, 1 if d is NULL else 2)
    if p.key < 0:
        free(p)
        return NULL
    if not sent_room(p, 0):
        keys_path_remove(s.sealer.keys, s.sealer.cache, p.key, now_ns)
        free(p)
        return NULL
    p.id = path_id
    p.d = d
    p.alive = 1
    memcpy(p.binding, binding32, 32)
    p.rx_at = p.tx_at = now_ns
    p.ack_at = TIMER_NEVER
    p.ping_gap = s.mine.heartbeat_ns
    p.ping_at = beat_due(s, now_ns, p.ping_gap)
    # All that is said here belongs to our newest epoch: where that waits for an acknowledgement, one from here counts.
    p.epoch_waits = 0 if keys_may_update(s.sealer.keys) else 1
    while link[0] is not NULL:
        link = &link[0].next
    link[0] = p
    s.n_paths += 1
    if path_id > s.path_top:
        s.path_top = path_id
    if s.control is not NULL:
        copies_begin(s, s.control, p)
    return p


# Takes a path off the list: nothing is sent or read on it any more.
cdef void path_off(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil:
    cdef nc_path** link = &s.paths
    cdef nc_ended* x = &s.ended[s.n_ended & (ENDED_KEPT - 1)]
    while link[0] != p:
        link = &link[0].next
    link[0] = p.next
    p.next = NULL
    p.alive = 0
    s.n_paths -= 1
    if s.state != SESSION_OVER:
        event_note(s, p.id, STATE_LOST, p.shown)
    if p.rx_number:                             # of all others it is 0
        x.id = p.id
        x.rx = p.rx_number
        s.n_ended += 1
    if s.control == p:
        s.control = NULL
    keys_path_remove(s.sealer.keys, s.sealer.cache, p.key, now_ns)


cdef void path_gone(nc_session* s, nc_path* p) noexcept nogil:
    sent_free(p)
    p.next = s.gone
    s.gone = p


cdef void session_forget_gone(nc_session* s) noexcept nogil:
    cdef nc_path* p
    while s.gone is not NULL:
        p = s.gone
        s.gone = p.next
        flight_free(p.d)
        free(p)


# p may copy what c, which carries control, has in flight, and has to begin with it: what is said behind it must not
# come before it.
cdef void copies_begin(const nc_session* s, const nc_path* c, nc_path* p) noexcept nogil:
    cdef uint64_t i
    p.copies = p.tx_number
    if s.order is not NULL:
        p.copied = c.tx_number                  # what is in flight is the other one's to bring again
        return
    p.copy_from = p.copied = c.whole_from if c.whole_from > c.acked else c.acked
    p.copy_at = c.log_first
    for i in range(sent_own(c), p.copied):
        p.copy_at += c.sent[i & (c.sent_cap - 1)].log_len


# What `best` has copies of it answers for itself, instead of the path that carried so far: 1. 0: they do not go back to
# what that one has in flight, and nothing has changed.
cdef int take_copies(nc_session* s, nc_path* before, nc_path* best) noexcept nogil:
    cdef uint64_t i
    if s.order is not NULL or not copies_all(s):
        return 0                                # what has arrived is known over there by its number; or all is its own
    if before.acked < best.copy_from and before.whole_from < best.copy_from:
        return 0
    # What it sent before it carried control was not copied, and need not come before anything.
    if sent_own(before) < best.copy_from and sent_move(s, before, best.copy_from) < 0:
        return 0
    if sent_give(s, before, best.copied) < 0:
        return 0
    for i in range(best.copies if best.copies > best.acked else best.acked, best.tx_number):
        if best.sent[i & (best.sent_cap - 1)].copy == <uint8_t>SENT_COPY:
            best.sent[i & (best.sent_cap - 1)].copy = SENT_OWN
    best.whole_from = best.copies
    return 1


# This path carries control from now on. All that may have to come first waits to be sent again, or `took`: it has
# copies.
cdef void carry(nc_session* s, nc_path* c, int took) noexcept nogil:
    cdef nc_path* p = s.paths
    if s.control == c:
        return
    s.control = c
    if not took:
        c.whole_from = c.tx_number
    while p is not NULL:
        copies_begin(s, c, p)
        p = p.next


# 1: p would rather be used than q: one that is not to stand by, then the one with the shorter round trip.
cdef inline int better(const nc_path* p, const nc_path* q) noexcept nogil:
    if (p.standby != 0) != (q.standby != 0):
        return 1 if q.standby else 0
    return 1 if p.srtt and (q.srtt == 0 or p.srtt < q.srtt) else 0


# Of the paths that are not suspect the best one; NULL: all are.
cdef nc_path* best_path(nc_session* s) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef nc_path* best = NULL
    while p is not NULL:
        if not p.suspect and (best is NULL or better(p, best)):
            best = p
        p = p.next
    return best


# Which paths are not to be used: suspect ones, and those that stand by while one lives that does not.
cdef void set_aside(nc_session* s) noexcept nogil:
    cdef nc_path* best = best_path(s)
    cdef nc_path* p = s.paths
    while p is not NULL:
        p.aside = 1 if p.suspect or (p.standby and not best.standby) else 0
        p = p.next


# Which path carries now. What was sent on one that is suspect is sent again on the one that takes its place.
cdef void paths_weigh(nc_session* s) noexcept nogil:
    cdef nc_path* p
    cdef nc_path* best
    cdef uint32_t silent = 1 if s.state == SESSION_UP and s.mine.lease_ns else 0
    cdef int took = 0
    set_aside(s)
    best = s.control if s.control is not NULL and not s.control.aside else best_path(s)
    if best is not NULL and s.control is not NULL and best != s.control:
        took = take_copies(s, s.control, best)
    p = s.paths
    while p is not NULL:
        if p.suspect != PATH_SILENT:
            silent = 0
        if best is not NULL and (p.suspect or (p == s.control and p != best)):
            # No memory: it is tried again with the next news of a path, and until then nothing new overtakes it.
            if sent_move(s, p, p.tx_number) < 0 and p == s.control:
                best = p
            if p.epoch_waits:
                p.ping_due = 1                  # what asked for an acknowledgement is given to the other path
        p = p.next
    if best is not NULL:
        carry(s, best, took)
        p = s.paths
        while p is not NULL:
            if p.aside:
                copies_begin(s, best, p)           # it answers for nothing any more: what it has copied counts no more
            p = p.next
    elif s.control is NULL and s.paths is not NULL:
        carry(s, s.paths, 0)
    if load_acq_u32(&s.suspect) != silent:
        store_seq_u32(&s.suspect, silent)
    if s.paths is not NULL:
        epoch_settled(s)
        events_show(s)


cdef void session_mode(nc_session* s, int mode, int k, int m, int64_t now_ns) noexcept nogil:
    s.picks = 1 if mode == MODE_AUTO else 0
    if s.picks:
        auto_begin(&s.auto, now_ns)
        s.auto_at = now_ns                      # the first look
        return
    if not s.own_modes & <uint8_t>OWN_AUTO:
        s.auto_at = TIMER_NEVER
    session_use(s, mode, k, m)


cdef void session_use(nc_session* s, int mode, int k, int m) noexcept nogil:
    cdef nc_path* p = s.paths
    s.mode = <uint8_t>mode
    s.parity_k = <uint8_t>k
    s.parity_m = <uint8_t>m
    groups_settle(s)
    while p is not NULL and s.control is not NULL:
        copies_begin(s, s.control, p)
        p = p.next
    events_show(s)


cdef int session_pass(nc_session* s, nc_path* p) noexcept nogil:
    cdef nc_path* before
    if s.order is not NULL or s.mode != MODE_MIRROR or s.control is NULL or p == s.control or p.aside or not p.alive \
            or p.copied != s.control.tx_number or not take_copies(s, s.control, p):
        return 0
    before = s.control
    carry(s, p, 1)
    before.copy_from = before.copied = p.tx_number      # it has all that p has copied
    before.copy_at = p.log_next
    before.copies = before.tx_number
    return 1


cdef int session_pass_late(nc_session* s, nc_path* p) noexcept nogil:
    cdef nc_path* c = s.control
    if s.order is NULL or c.d is NULL or not c.late or cc_open(&c.d.cc, c.d.mtu) or p.aside or p.late \
            or p.copied != c.tx_number:
        return 0
    carry(s, p, 0)                              # what is in flight stays the other one's: its number restores the order
    return 1


cdef void session_path_heard(nc_session* s, nc_path* p) noexcept nogil:
    p.suspect = PATH_HEARD
    if p.epoch_waits:
        p.ping_due = 1                          # what asked for an acknowledgement may have been given to another path
    paths_weigh(s)


cdef void session_path_silent(nc_session* s, nc_path* p, int how, int64_t now_ns) noexcept nogil:
    if s.n_paths > 1:
        s.trouble_at = now_ns
    p.suspect = <uint8_t>how
    paths_weigh(s)


cdef void session_path_doubt(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil:
    if s.state != SESSION_UP or s.mine.lease_ns == 0:
        return
    p.ping_due = 1                              # should it be as good as ever its answer says so at once
    if p.suspect != PATH_SILENT:
        session_path_silent(s, p, PATH_SILENT, now_ns)


cdef void session_standby(nc_session* s, nc_path* p, int standby) noexcept nogil:
    if (p.standby & STANDBY_OURS) == (STANDBY_OURS if standby else 0):
        return
    p.standby ^= <uint8_t>STANDBY_OURS
    p.status_said += 1
    p.status_due = p.ping_due = 1
    paths_weigh(s)


cdef void on_path_status(nc_session* s, uint64_t path_id, uint64_t seq, int standby) noexcept nogil:
    cdef nc_path* p
    if s.mine.lease_ns == 0 or s.mine.max_paths < 2 or path_id >> 32:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    p = path_find(s, <uint32_t>path_id)
    if p is NULL or seq < p.status_heard:
        return                                  # of a path that is over, or an old one that comes again
    p.status_heard = seq + 1
    if (p.standby & STANDBY_THEIRS) != (STANDBY_THEIRS if standby else 0):
        p.standby ^= <uint8_t>STANDBY_THEIRS
        paths_weigh(s)


# --- one less ---------------------------------------------------------------------------------------------------------

cdef void session_path_lost(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil:
    cdef nc_path* best
    cdef nc_end* e
    cdef uint32_t i = 0
    cdef int carried, took
    if not p.alive:
        return
    if s.n_paths > 1 and s.state != SESSION_OVER:
        s.trouble_at = now_ns
        if p.d is not NULL and s.n_closes < <uint8_t>PATH_CLOSES:
            s.closes[s.n_closes] = p.id         # nothing of the carrier would tell the other side
            s.n_closes += 1
        carried = s.control == p
        path_off(s, p, now_ns)
        best = best_path(s)
        took = take_copies(s, p, best) if carried and best is not NULL else 0
        if sent_move(s, p, p.tx_number) < 0:
            fail(s, defs.CLOSE_INTERNAL)        # what it held cannot be sent again
        if carried and best is not NULL:
            carry(s, best, took)
        path_gone(s, p)
        paths_weigh(s)
        s.ready_any = 1
        return
    path_off(s, p, now_ns)
    if s.state != SESSION_UP or s.mine.lease_ns == 0:
        path_gone(s, p)
        if s.state == SESSION_UP:
            s.abrupt = 1
            s.close_code = defs.CLOSE_TIMEOUT
        if s.state != SESSION_OVER:
            session_ended(s)
        return
    s.state = SESSION_SUSPENDED
    event_note(s, p.id, STATE_SUSPENDED, 0)
    store_seq_u32(&s.suspended, 1)
    store_seq_u32(&s.suspect, 0)
    if p.rx_number or s.lease_until == 0:       # else the other side has not been heard of since the last time
        s.lease_until = now_ns + s.mine.lease_ns
    p.left_len = 0                              # the half of a record
    s.last = p
    # Who waits for the answer to a WITHDRAW does not wait for a path (session.md §4.1, 7).
    while True:
        e = <nc_end*>idmap_next(&s.outs, &i)
        if e is NULL:
            break
        if e.out.rendezvous:
            notify(s, e, EV_ACK | EV_SEND)
    s.ready_any = 1


# --- one more ---------------------------------------------------------------------------------------------------------

# A session that was suspended has this path, and what was sent on the last one is to be sent again.
cdef int path_after(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil:
    if sent_move(s, s.last, s.last.tx_number) < 0:
        path_off(s, p, now_ns)
        path_gone(s, p)
        return defs.NC_ENOMEM
    path_gone(s, s.last)
    s.last = NULL
    s.state = SESSION_UP
    event_note(s, p.id, STATE_RESUMED, 0)
    store_seq_u32(&s.suspended, 0)
    s.stats.resumes += 1
    return defs.NC_OK


# The other side knows by a record of ours that we have its answer.
cdef void path_begin(nc_session* s, nc_path* p) noexcept nogil:
    if p.d is not NULL and s.role:
        p.d.challenged = CHALLENGED_NEVER       # one message was all that came
    p.ping_due = 1
    paths_weigh(s)
    s.ready_any = 1


cdef int session_may_add(nc_session* s, uint32_t path_id) noexcept nogil:
    if s.state != SESSION_UP and s.state != SESSION_SUSPENDED:
        return defs.NC_ECLOSED
    if s.mine.lease_ns == 0:
        return defs.NC_ESTATE                   # nothing is kept that could be sent again
    if s.n_paths >= s.mine.max_paths:
        return defs.NC_ELIMIT
    return defs.NC_OK if keys_path_free(s.sealer.keys, path_id) else defs.NC_EINVAL


cdef int session_add(nc_session* s, uint32_t path_id, const uint8_t* binding32, nc_dgram* d, int64_t now_ns,
                     nc_path** out) noexcept nogil:
    cdef int rc = session_may_add(s, path_id)
    cdef nc_path* p
    if rc < 0:
        return rc
    if d is not NULL and s.order is NULL:
        return defs.NC_ESTATE
    p = path_new(s, path_id, binding32, d, now_ns)
    if p is NULL:
        return defs.NC_ENOMEM
    s.in_order = 0
    if s.state == SESSION_SUSPENDED and path_after(s, p, now_ns) < 0:
        p.d = NULL                              # the caller's
        return defs.NC_ENOMEM
    path_begin(s, p)
    out[0] = p
    return defs.NC_OK


cdef int64_t session_join(nc_session* s, uint32_t path_id, uint32_t last) noexcept nogil:
    cdef nc_path* p
    cdef int i
    if s.state != SESSION_UP and s.state != SESSION_SUSPENDED:
        return defs.NC_ECLOSED
    if s.mine.lease_ns == 0:
        return defs.NC_ESTATE
    # A JOIN that was given up may arrive behind one that was made after it: only ids that grow are of use.
    if path_id <= s.path_top or not keys_path_free(s.sealer.keys, path_id):
        return defs.NC_EINVAL
    p = path_find(s, last)
    if p is NULL and s.last is not NULL and s.last.id == last:
        p = s.last
    if p is not NULL:
        return <int64_t>p.rx_number
    for i in range(ENDED_KEPT):
        if s.ended[i].rx and s.ended[i].id == last:
            return <int64_t>s.ended[i].rx
    return 0


cdef int session_resume(nc_session* s, uint32_t path_id, uint32_t last, uint64_t received, const uint8_t* binding32,
                        nc_dgram* d, int64_t now_ns, nc_path** out) noexcept nogil:
    cdef int64_t here = session_join(s, path_id, last)
    cdef nc_path* p
    cdef nc_path* before = s.last
    if here < 0:
        return <int>here
    if s.state != SESSION_SUSPENDED or (d is not NULL and s.order is NULL):
        return defs.NC_ESTATE
    # With several paths the other side may have forgotten how much came on one that it saw end before many others.
    if last == before.id and before.d is NULL \
            and (received > before.tx_number or (s.in_order and received < before.acked)):
        return defs.NC_EFRAME
    p = path_new(s, path_id, binding32, d, now_ns)
    if p is NULL:
        return defs.NC_ENOMEM
    if last == before.id and before.d is not NULL:
        pass                                    # all that was not acknowledged is sent again, and known by its number
    elif last == before.id:
        if received > before.acked:
            sent_acked(s, before, received - 1, now_ns)
    elif before.rx_number or before.acked:
        s.in_order = 0                          # had it not been used, nothing of it had arrived over there
    if path_after(s, p, now_ns) < 0:
        p.d = NULL
        return defs.NC_ENOMEM
    path_begin(s, p)
    out[0] = p
    return defs.NC_OK
