"""One session: its life and its clock. What it reads is in inbound, what it writes in outbound, its channels in ends.

Layer: _core, rung n. Sans-IO: bytes, the clock and randomness are arguments. Baton; see state.pxd.
Spec: docs/spec/session.md §1, §5, §8.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free

from netchan._core.auto cimport AUTO_LOOK_NS, AUTO_PARITY_K, auto_figures, auto_look
from netchan._core.beat cimport beat_over
from netchan._core.budget cimport budget_init
from netchan._core cimport defs
from netchan._core.ends cimport end_release, fail, session_ended, session_next_ready, take_dirty
from netchan._core.flight cimport flight_deadline, flight_free, flight_on_deadline
from netchan._core.group cimport groups_free, groups_on_deadline
from netchan._core.idmap cimport idmap_free, idmap_init, idmap_next
from netchan._core.keys cimport keys_deadline
from netchan._core.leaf cimport leaf_init
from netchan._core.order cimport order_free, order_new
from netchan._core.outbound cimport session_wants_send
from netchan._core.ratchet cimport cleanse, rekey_first
from netchan._core.ticket cimport ticket_free
from netchan._core.modes cimport mirrors, spreads, stream_use
from netchan._core.resume cimport (
    path_new, session_forget_gone, session_path_lost, session_path_silent, session_use,
)
from netchan._core.sent cimport replay_free, sent_answers, sent_free, sent_own
from netchan._core.state cimport (
    MODE_PARITY, OWN_AUTO, PATH_HEARD, PATH_SILENT, PATH_SUSPECT, SENT_FLIGHT, SESSION_OVER, SESSION_SUSPENDED,
    SESSION_UP, STATE_ACTIVE, nc_dgram, nc_end, nc_figures, nc_offer, nc_params, nc_path, nc_sent, nc_session,
    load_ptr, pop_active,
)
from netchan._core.inbox cimport in_free
from netchan._core.timer cimport TIMER_NEVER

cdef int64_t SUSPECT_LEAST_NS = 50 * 1000000
cdef int64_t LATE_LEAST_NS = 2 * 1000000             # beside the round trip


# When the path, an acknowledgement owed and nothing heard, is dead; TIMER_NEVER: nothing is owed.
cdef int64_t dead_at(const nc_session* s, const nc_path* p) noexcept nogil:
    if p.oldest_at == 0:
        return TIMER_NEVER
    return (p.oldest_at if p.oldest_at > p.rx_at else p.rx_at) + s.mine.dead_ns


# When it is suspect, where another one could take its place, and silent (session.md §5). TIMER_NEVER: it is, or that
# makes no difference.
cdef int64_t suspect_at(const nc_session* s, const nc_path* p) noexcept nogil:
    cdef int64_t period = p.srtt + 4 * p.rttvar + 25000000
    cdef int64_t least = <int64_t>defs.SUSPECT_MS * 1000000
    cdef int64_t since = p.oldest_at if p.oldest_at > p.rx_at else p.rx_at
    if s.state != SESSION_UP or s.mine.lease_ns == 0 or p.oldest_at == 0 or p.suspect == PATH_SILENT:
        return TIMER_NEVER
    if p.suspect == PATH_HEARD and s.n_paths > 1:
        return since + (period if period > SUSPECT_LEAST_NS else SUSPECT_LEAST_NS)
    return since + (3 * period if 3 * period > least else least)


# When it is late: what waits for its turn there need not wait until it is suspect. TIMER_NEVER: it is, or nothing does.
cdef inline int64_t late_at(const nc_session* s, const nc_path* p) noexcept nogil:
    cdef int64_t more = 4 * p.rttvar
    if p.late or p.suspect or p.oldest_at == 0 or s.n_paths < 2 or s.state != SESSION_UP \
            or not (mirrors(s) or spreads(s)):
        return TIMER_NEVER
    if more < LATE_LEAST_NS:
        more = LATE_LEAST_NS
    return p.oldest_at + p.srtt + more


cdef int64_t session_deadline(nc_session* s) noexcept nogil:
    cdef int64_t at = TIMER_NEVER
    cdef nc_path* p = s.paths
    if s.state == SESSION_OVER:
        return at
    if s.state == SESSION_SUSPENDED:
        return s.lease_until
    if s.group_at < at:
        at = s.group_at
    if s.auto_at < at:
        at = s.auto_at
    if not rekey_first(s) and 0 <= keys_deadline(s.sealer.keys) < at:
        at = keys_deadline(s.sealer.keys)
    while p is not NULL:
        if p.ack_at < at:
            at = p.ack_at
        if p.ping_at < at:
            at = p.ping_at
        if dead_at(s, p) < at:
            at = dead_at(s, p)
        if suspect_at(s, p) < at:
            at = suspect_at(s, p)
        if late_at(s, p) < at:
            at = late_at(s, p)
        if p.d is not NULL and flight_deadline(s, p) < at:
            at = flight_deadline(s, p)
        p = p.next
    return at


cdef void path_on_deadline(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil:
    if now_ns >= dead_at(s, p):
        session_path_lost(s, p, now_ns)
        return
    if now_ns >= late_at(s, p):
        p.late = 1
    while now_ns >= suspect_at(s, p):
        session_path_silent(s, p, PATH_SUSPECT if p.suspect == PATH_HEARD and s.n_paths > 1 else PATH_SILENT,
                            now_ns)
    if p.d is not NULL and flight_on_deadline(s, p, now_ns) < 0:
        fail(s, defs.CLOSE_INTERNAL)
        return
    if p.ping_at <= now_ns:
        p.ping_due = 1
        beat_over(s, p, now_ns)


# Modes that are picked: what was sent since the last look, and what is to be done about it.
cdef void look(nc_session* s, int64_t now) noexcept nogil:
    cdef nc_figures f
    cdef nc_end* e = s.active_head
    cdef uint64_t waits = 0
    cdef uint32_t at = 0
    cdef int mode
    cdef int moved = 0
    auto_figures(s, &f, now)
    if s.picks:
        while e is not NULL:
            if e.own == 0:
                waits += e.out.appended - e.out.sent
            e = e.active_next
        mode = auto_look(&s.auto, &f, s.stats.data_sent, s.stats.messages_sent, waits, s.mode, now, &moved)
        if mode != s.mode:
            session_use(s, mode, AUTO_PARITY_K if mode == MODE_PARITY else 0, 1 if mode == MODE_PARITY else 0)
            s.stats.picks += 1
    while s.own_modes & <uint8_t>OWN_AUTO:
        e = <nc_end*>idmap_next(&s.outs, &at)
        if e is NULL:
            break
        if e.auto is NULL or e.out_done:
            continue
        mode = auto_look(e.auto, &f, e.out.sent, e.out.sent_msgs, e.out.appended - e.out.sent, e.own - 1, now, &moved)
        if mode != e.own - 1:
            stream_use(s, e, mode, AUTO_PARITY_K if mode == MODE_PARITY else 0, 1 if mode == MODE_PARITY else 0)
            s.stats.picks += 1
    s.auto_at = now + AUTO_LOOK_NS if moved else TIMER_NEVER


cdef void session_on_deadline(nc_session* s, int64_t now_ns) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef nc_path* following
    if s.state == SESSION_OVER:
        return
    if s.state == SESSION_SUSPENDED:
        if now_ns >= s.lease_until:
            s.abrupt = 1
            s.close_code = defs.CLOSE_TIMEOUT
            session_ended(s)
        return
    groups_on_deadline(s, now_ns)
    if s.auto_at <= now_ns:
        look(s, now_ns)
    while p is not NULL:
        following = p.next
        path_on_deadline(s, p, now_ns)
        p = following


# Something that was said on the path, and for which it answers, is not known to have arrived.
cdef int path_waits(const nc_path* p) noexcept nogil:
    cdef const nc_sent* x
    cdef uint64_t i
    for i in range(sent_own(p), p.tx_number):
        x = &p.sent[i & (p.sent_cap - 1)]
        if not x.eliciting or not sent_answers(x) or (x.log_len == 0 and x.stream == <uint64_t>defs.TAG_CONTROL):
            continue                            # as in sent_again
        if p.d is NULL or x.state == SENT_FLIGHT:
            return 1
    return 0


cdef int session_at_rest(nc_session* s) noexcept nogil:
    cdef const nc_path* p = s.paths
    if s.state != SESSION_UP:
        return 1 if s.state == SESSION_OVER else 0
    take_dirty(s)
    if s.opened == 0 and s.next_in == <uint64_t>(defs.TAG_FIRST_STREAM + 1 - s.role) \
            and load_ptr(<void**>&s.open_head) is NULL:
        return 1                                # no channel was opened, so nobody has said anything
    if session_wants_send(s):
        return 0
    if s.n_paths == 1 and p.d is NULL:
        return 1                                # what is said next comes behind all of it
    while p is not NULL:
        # What was sent on a suspect path is another one's to bring, where there is one.
        if (not p.suspect or p == s.control) and path_waits(p):
            return 0
        p = p.next
    return 1


cdef int session_bare(nc_session* s, int role, const nc_params* mine, const nc_params* peer,
                      uint64_t seed) noexcept nogil:
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
    budget_init(&s.budget, mine.session_bytes)
    s.budget.node_most = mine.node_bytes
    s.in_order = 0 if mine.datagrams else 1
    if mine.datagrams:
        s.order = order_new()
        if s.order is NULL:
            return defs.NC_ENOMEM
    s.ratchet_out_step = 0xFF
    s.group_at = s.auto_at = TIMER_NEVER
    return defs.NC_OK


cdef int session_init(nc_session* s, int role, const nc_params* mine, const nc_params* peer, const uint8_t* binding32,
                      nc_dgram* d, uint64_t seed, int64_t now_ns) noexcept nogil:
    if session_bare(s, role, mine, peer, seed) < 0:
        return defs.NC_ENOMEM
    s.control = path_new(s, 0, binding32, d, now_ns)
    if s.control is NULL:
        return defs.NC_ENOMEM
    if d is not NULL and role == 0:
        s.control.ping_due = 1                  # the other side knows then that we have its last word, and where we are
    s.control.shown = STATE_ACTIVE              # nobody needs to be told of the first one
    return defs.NC_OK


cdef void free_paths(nc_session* s) noexcept nogil:
    cdef nc_path* p
    while s.paths is not NULL:
        p = s.paths
        s.paths = p.next
        sent_free(p)
        flight_free(p.d)
        free(p)
    if s.last is not NULL:
        sent_free(s.last)
        flight_free(s.last.d)
        free(s.last)
        s.last = NULL
    s.control = NULL
    s.n_paths = 0
    session_forget_gone(s)


cdef void session_free(nc_session* s) noexcept nogil:
    cdef nc_end* e
    cdef nc_offer* o
    cdef uint32_t i = 0
    cdef uint32_t bits
    groups_free(s)                              # first: they name ends
    session_ended(s)
    take_dirty(s)
    for i in range(s.n_adopted):
        if s.adopted[i] is not NULL:
            end_release(s.adopted[i], &s.pins)
    free(s.adopted)
    s.adopted = NULL
    s.n_adopted = 0
    i = 0
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
    free_paths(s)
    replay_free(s)
    order_free(s.order)
    s.order = NULL
    cleanse(s.ratchet_secret, 32)
    cleanse(s.rekey_mix, 32)
    cleanse(s.bump_mix, 32)
    free(s.ratchet_out)
    free(s.ratchet_in)
    ticket_free(s)
    s.ratchet_out = NULL
    s.ratchet_in = NULL
