# events: what became of the paths of a session, kept for the application until it looks. Layer: _core, rung h; inline,
# baton. Spec: docs/spec/session.md §5.9.
#
# The last EVENTS_KEPT are kept; of those before them there is a count.

from libc.stdint cimport uint32_t, uint8_t

from netchan._core.state cimport (
    EVENTS_KEPT, MODE_FAILOVER, STATE_ACTIVE, STATE_STANDBY, STATE_SUSPECT, nc_path, nc_path_event, nc_session,
)


cdef inline void event_note(nc_session* s, uint32_t path, uint8_t what, uint8_t before) noexcept nogil:
    cdef nc_path_event* x
    if s.n_events == <uint32_t>EVENTS_KEPT:
        s.events_first += 1
        s.n_events -= 1
        s.events_lost += 1
    x = &s.events[(s.events_first + s.n_events) & (EVENTS_KEPT - 1)]
    x.path = path
    x.what = what
    x.before = before
    s.n_events += 1
    s.events_new = 1
    s.ready_any = 1


# As the program sees it.
cdef inline uint8_t path_state(const nc_session* s, const nc_path* p) noexcept nogil:
    if p.suspect:
        return STATE_SUSPECT
    if p == s.control or (s.mode != MODE_FAILOVER and not p.aside):
        return STATE_ACTIVE
    return STATE_STANDBY


# Notes each path whose state is another one than was noted last.
cdef inline void events_show(nc_session* s) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef uint8_t now
    while p is not NULL:
        now = path_state(s, p)
        if now != p.shown:
            event_note(s, p.id, now, p.shown)
            p.shown = now
        p = p.next
