"""Which path carries the next bytes of a stream.

Layer: _core, rung k. Baton. See modes.pxd.
Spec: docs/spec/session.md §5.3.
"""

from libc.stdint cimport int64_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free

from netchan._core cimport defs
from netchan._core.auto cimport auto_begin
from netchan._core.group cimport group_begin, group_path, groups_settle
from netchan._core.rate cimport flight_full, path_arrival, path_rate
from netchan._core.state cimport (
    MODE_AUTO, MODE_FAILOVER, MODE_MIRROR, MODE_PARITY, MODE_STRIPE, OWN_AUTO, OWN_MIRRORS, OWN_OTHER, OWN_SPREADS,
    SESSION_OVER, nc_auto, nc_end, nc_path, nc_session, mode_of, want_data,
)


# 1: another path would bring all that e has to send before this one brings a record: e waits for that path (earliest
# completion first, Lim et al. 2017). Nobody waits for ever: the path that would be first of all waits for none, and
# what fills it up is acknowledged.
cdef int another_first(const nc_session* s, const nc_path* p, const nc_end* e) noexcept nogil:
    cdef const nc_path* q = s.paths
    cdef uint64_t waits = e.out.appended - e.out.sent
    cdef uint64_t record = waits if waits < <uint64_t>defs.RECORD_BODY_DEFAULT else defs.RECORD_BODY_DEFAULT
    cdef double here = path_arrival(p, record)
    while q is not NULL:
        if q != p and not q.aside and path_rate(q) > 0.0 and path_arrival(q, waits) < here:
            return 1
        q = q.next
    return 0


# 1: the next record of e goes on this path.
cdef int its_turn(nc_session* s, nc_path* p, nc_end* e) noexcept nogil:
    cdef int mode = mode_of(s, e)
    if mode == MODE_FAILOVER or mode == MODE_MIRROR:
        return 1 if p == s.control else 0       # copies are made of what it has said
    # What a stream path is full of cannot be overtaken there; a datagram path has its window.
    if p.d is NULL and flight_full(p):
        p.limited = 1
        return 0
    if mode == MODE_STRIPE:
        return 0 if another_first(s, p, e) else 1
    group_begin(s, e)
    return 1 if group_path(s, e) == p else 0


cdef int stream_mode(nc_session* s, nc_end* e, int mode, int k, int m, int64_t now_ns) noexcept nogil:
    if s.state == SESSION_OVER:
        return defs.NC_OK
    if mode != MODE_AUTO:
        free(e.auto)
        e.auto = NULL
        stream_use(s, e, mode, k, m)
        return defs.NC_OK
    if e.auto is NULL:
        e.auto = <nc_auto*>calloc(1, sizeof(nc_auto))
        if e.auto is NULL:
            return defs.NC_ENOMEM
        auto_begin(e.auto, now_ns)
        if e.own == 0:
            stream_use(s, e, MODE_FAILOVER, 0, 0)
    s.own_modes |= <uint8_t>OWN_AUTO
    s.auto_at = now_ns
    return defs.NC_OK


cdef void stream_use(nc_session* s, nc_end* e, int mode, int k, int m) noexcept nogil:
    e.own = <uint8_t>(mode + 1)
    e.parity_k = <uint8_t>k
    e.parity_m = <uint8_t>m
    if mode == MODE_STRIPE or mode == MODE_PARITY:
        s.own_modes |= <uint8_t>OWN_SPREADS
    elif mode == MODE_MIRROR:
        s.own_modes |= <uint8_t>OWN_MIRRORS
    elif mode == MODE_FAILOVER:
        s.own_modes |= <uint8_t>OWN_OTHER
    groups_settle(s)                            # the symbols of a group that is given up are made by nobody
    want_data(s, e)
