"""One session: its life and its clock. What it reads is in inbound, what it writes in outbound, its channels in ends.

Layer: _core, rung l. Sans-IO: bytes, the clock and randomness are arguments. Baton; see state.pxd.
Spec: docs/spec/session.md §1, §5, §8.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from netchan._core.budget cimport budget_init
from netchan._core cimport defs
from netchan._core.ends cimport end_release, session_ended, session_next_ready, take_dirty
from netchan._core.idmap cimport idmap_free, idmap_init, idmap_next
from netchan._core.keys cimport keys_deadline
from netchan._core.leaf cimport leaf_init, load_acq_u32, store_seq_u32
from netchan._core.ratchet cimport cleanse
from netchan._core.resume cimport session_path_lost
from netchan._core.sent cimport replay_free, sent_free, sent_room
from netchan._core.state cimport (
    SESSION_OVER, SESSION_SUSPENDED, SESSION_UP, nc_end, nc_offer, nc_params, nc_path, nc_session, pop_active,
)
from netchan._core.inbox cimport in_free
from netchan._core.timer cimport TIMER_NEVER

cdef int64_t PING_MAX_NS = 60 * 1000000000


# When the path, an acknowledgement owed and nothing heard, is dead; TIMER_NEVER: nothing is owed.
cdef int64_t dead_at(const nc_session* s) noexcept nogil:
    cdef const nc_path* p = &s.path
    if p.oldest_at == 0:
        return TIMER_NEVER
    return (p.oldest_at if p.oldest_at > p.rx_at else p.rx_at) + s.mine.dead_ns


# When it becomes suspect (session.md §5); TIMER_NEVER: it is, or nobody would look for another.
cdef int64_t suspect_at(nc_session* s) noexcept nogil:
    cdef const nc_path* p = &s.path
    cdef int64_t period = 3 * (p.srtt + 4 * p.rttvar + 25000000)
    cdef int64_t least = <int64_t>defs.SUSPECT_MS * 1000000
    if s.state != SESSION_UP or s.mine.lease_ns == 0 or p.oldest_at == 0 or load_acq_u32(&s.suspect):
        return TIMER_NEVER
    return (p.oldest_at if p.oldest_at > p.rx_at else p.rx_at) + (period if period > least else least)


cdef int64_t session_deadline(nc_session* s) noexcept nogil:
    cdef int64_t at = TIMER_NEVER
    cdef nc_path* p = &s.path
    if s.state == SESSION_OVER:
        return at
    if s.state == SESSION_SUSPENDED:
        return s.lease_until
    if p.ack_at < at:
        at = p.ack_at
    if p.ping_at < at:
        at = p.ping_at
    if s.rekey_state != 2 and 0 <= keys_deadline(s.sealer.keys) < at:       # else the announced epoch comes first
        at = keys_deadline(s.sealer.keys)
    if dead_at(s) < at:
        at = dead_at(s)
    if suspect_at(s) < at:
        at = suspect_at(s)
    return at


cdef void session_on_deadline(nc_session* s, int64_t now_ns) noexcept nogil:
    cdef nc_path* p = &s.path
    if s.state == SESSION_OVER:
        return
    if s.state == SESSION_SUSPENDED:
        if now_ns >= s.lease_until:
            s.abrupt = 1
            s.close_code = defs.CLOSE_TIMEOUT
            session_ended(s)
        return
    if now_ns >= dead_at(s):
        session_path_lost(s, now_ns)
        return
    if now_ns >= suspect_at(s):
        store_seq_u32(&s.suspect, 1)
    if p.ping_at <= now_ns:
        s.ping_due = 1
        p.ping_gap = p.ping_gap * 2 if p.ping_gap * 2 < PING_MAX_NS else PING_MAX_NS
        p.ping_at = now_ns + p.ping_gap


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
    budget_init(&s.budget, mine.session_bytes)
    s.budget.node_most = mine.node_bytes
    s.path.alive = 1
    s.in_order = 1
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
    sent_free(&s.path)
    replay_free(s)
    cleanse(s.ratchet_secret, 32)
    cleanse(s.rekey_mix, 32)
    free(s.ratchet_out)
    free(s.ratchet_in)
    s.ratchet_out = NULL
    s.ratchet_in = NULL
