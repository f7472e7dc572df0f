"""A session without a path, and how it gets the next one.

Layer: _core, rung k. Baton. What has to be sent again is in sent.pyx; the exchange that leads here is net/join.py.
Spec: docs/spec/session.md §1, §5.2; docs/spec/handshake.md §11.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.ends cimport session_ended
from netchan._core.idmap cimport idmap_next
from netchan._core.keys cimport keys_path_add, keys_path_free, keys_path_remove
from netchan._core.leaf cimport store_seq_u32
from netchan._core.sent cimport sent_acked, sent_free, sent_keep, sent_room
from netchan._core.state cimport (
    EV_ACK, EV_SEND, SESSION_OVER, SESSION_SUSPENDED, SESSION_UP, nc_end, nc_path, nc_session, notify,
)
from netchan._core.timer cimport TIMER_NEVER

cdef uint64_t NEVER_ACKED = ~<uint64_t>0


cdef void session_path_lost(nc_session* s, int64_t now_ns) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef nc_end* e
    cdef uint32_t i = 0
    p.alive = 0
    if s.state == SESSION_OVER or s.state == SESSION_SUSPENDED:
        return
    if s.state != SESSION_UP or s.mine.lease_ns == 0:
        if s.state == SESSION_UP:
            s.abrupt = 1
            s.close_code = defs.CLOSE_TIMEOUT
        session_ended(s)
        return
    s.state = SESSION_SUSPENDED
    store_seq_u32(&s.suspended, 1)
    store_seq_u32(&s.suspect, 0)
    if p.rx_number or s.lease_until == 0:       # else the other side has not been heard of since the last time
        s.lease_until = now_ns + s.mine.lease_ns
    p.left_len = 0                              # the half of a record
    p.oldest_at = 0
    p.unacked_records = p.unacked_bytes = 0
    p.ack_at = p.ping_at = TIMER_NEVER
    s.ping_due = 0
    # Who waits for the answer to a WITHDRAW does not wait for a path (session.md §4.1, 7).
    while True:
        e = <nc_end*>idmap_next(&s.outs, &i)
        if e is NULL:
            break
        if e.out.rendezvous:
            notify(s, e, EV_ACK | EV_SEND)
    s.ready_any = 1


cdef int64_t session_join(nc_session* s, uint32_t path_id, uint32_t last) noexcept nogil:
    if s.state != SESSION_UP and s.state != SESSION_SUSPENDED:
        return defs.NC_ECLOSED
    if s.mine.lease_ns == 0:
        return defs.NC_ESTATE
    # A JOIN that was given up may arrive behind one that was made after it: only ids that grow are of use.
    if path_id <= s.path.id or not keys_path_free(s.sealer.keys, path_id):
        return defs.NC_EINVAL
    if last == s.path.id:
        return <int64_t>s.path.rx_number
    # The answer that made the present path did not arrive, so nothing was sent on it from over there.
    if s.path.id and last == s.before_id and s.path.rx_number == 0 and s.path.acked == 0:
        return <int64_t>s.before_rx
    return defs.NC_ESTATE


cdef int session_resume(nc_session* s, uint32_t path_id, uint32_t last, uint64_t received, const uint8_t* binding32,
                        int64_t now_ns) noexcept nogil:
    cdef nc_path* p = &s.path
    cdef int64_t here = session_join(s, path_id, last)
    cdef int index
    if here < 0:
        return <int>here
    if s.state != SESSION_SUSPENDED:
        return defs.NC_ESTATE
    if last == p.id:
        if received < p.acked or received > p.tx_number:
            return defs.NC_EFRAME
    elif received != s.before_told:
        return defs.NC_EFRAME
    index = keys_path_add(s.sealer.keys, path_id, 1)
    if index < 0:
        return index
    if last == p.id:
        s.before_id = p.id
        s.before_rx = p.rx_number
        s.before_told = received
        if received > p.acked:
            sent_acked(s, received - 1, now_ns)
    if sent_keep(s, p.acked) < 0:
        keys_path_remove(s.sealer.keys, s.sealer.cache, index, now_ns)
        return defs.NC_ENOMEM
    keys_path_remove(s.sealer.keys, s.sealer.cache, s.sealer.path, now_ns)
    s.sealer.path = index
    sent_free(p)
    memset(p, 0, sizeof(nc_path))
    p.id = path_id
    p.alive = 1
    memcpy(p.binding, binding32, 32)
    p.rx_at = p.tx_at = now_ns
    p.ack_at = TIMER_NEVER
    p.ping_gap = s.mine.heartbeat_ns
    p.ping_at = now_ns + p.ping_gap
    # Numbers of the old path mean nothing here: what is sent again announces anew, and everything has our newest epoch.
    s.rekey_at = NEVER_ACKED
    s.epoch_at = 0
    s.state = SESSION_UP
    store_seq_u32(&s.suspended, 0)
    s.ping_due = 1                              # the other side knows by a record of ours that we have its answer
    s.ready_any = 1
    if not sent_room(p, 0):
        session_path_lost(s, now_ns)
        return defs.NC_ENOMEM
    s.stats.resumes += 1
    return defs.NC_OK
