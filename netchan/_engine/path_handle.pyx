"""What is known of the paths of a session from outside, what the program wants of them, and what became of them.

Layer: _engine; threads as in engine_handle.pyx. Beside session_handle.pyx, which makes and ends paths.
Spec: docs/spec/session.md §5.3, §5.9, §5.10.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core.events cimport path_state
from netchan._core.leaf cimport load_acq_u32, xchg_u32
from netchan._core.resume cimport path_find, session_path_doubt, session_standby
from netchan._core.state cimport EVENTS_KEPT, SESSION_UP, nc_path, nc_path_event
from netchan._engine cimport sys
from netchan._engine.clock cimport engine_now
from netchan._engine.engine cimport baton_give, baton_take, engine_dirty
from netchan._engine.engine_handle cimport check_fork
from netchan._engine.news cimport path_news
from netchan._engine.session_handle cimport Session
from netchan._engine.state cimport PATHS_SILENT, nc_engine, nc_link, nc_slot

cdef enum:
    NAME_MOST = 128                 # bytes of a socket address
    PATHS_MOST = 64

STATES = ("new", "active", "standby", "suspect", "lost", "suspended", "resumed")     # by nc_path_state


def endpoints(Session session):
    """Where the connections of the paths begin and end.

    Returns:
        list of (path id, its state as in ``STATES``, our socket address, theirs) with addresses as the kernel has them;
        b"" where it has none any more. Not while the session is about to move to another process.
    """
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_link* k
    cdef uint8_t[64][2][128] names
    cdef int[64][2] sizes
    cdef uint32_t[64] ids
    cdef uint8_t[64] states
    cdef int n = 0, i
    check_fork(g)
    with nogil:
        baton_take(g)
        k = t.links if not t.held and t.session.state == SESSION_UP else NULL
        while k is not NULL and n < PATHS_MOST:
            if k.path.alive and not k.candidate:
                ids[n] = k.path.id
                states[n] = path_state(&t.session, k.path)
                sizes[n][0] = sys.socket_name(k.fd, 0, names[n][0], NAME_MOST)
                sizes[n][1] = sys.socket_name(k.fd, 1, names[n][1], NAME_MOST)
                n += 1
            k = k.next
        baton_give(g)
    return [
        (
            ids[i],
            STATES[states[i]],
            PyBytes_FromStringAndSize(<char*>names[i][0], sizes[i][0]),
            PyBytes_FromStringAndSize(<char*>names[i][1], sizes[i][1]),
        )
        for i in range(n)
    ]


def doubt(Session session, path_ids):
    """The ways of these paths are gone, as far as somebody knows: suspect until something comes; PING asks.

    Returns:
        True if no path is left that is not silent.
    """
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_path* p
    cdef uint32_t[64] ids
    cdef uint32_t before
    cdef int n = 0, i
    cdef bint silent = False
    check_fork(g)
    for path_id in list(path_ids)[:PATHS_MOST]:
        ids[n] = path_id
        n += 1
    with nogil:
        baton_take(g)
        if not t.held:
            before = load_acq_u32(&t.session.suspect)
            for i in range(n):
                p = path_find(&t.session, ids[i])
                if p is not NULL:
                    session_path_doubt(&t.session, p, engine_now(g))
            silent = load_acq_u32(&t.session.suspect) != 0
            if silent and not before:
                path_news(g, t, PATHS_SILENT)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
        baton_give(g)
    session.engine.notify()
    return silent


def set_standby(Session session, uint32_t path_id, bint standby):
    """Want this path used only where no other one lives, or no more. False: there is none of this id, or will be none
    beside it."""
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_path* p
    cdef bint done = False
    check_fork(g)
    with nogil:
        baton_take(g)
        p = path_find(&t.session, path_id)
        if p is not NULL and not t.held and t.session.state == SESSION_UP and t.session.mine.lease_ns \
                and t.session.mine.max_paths > 1:
            done = True
            session_standby(&t.session, p, standby)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
        baton_give(g)
    session.engine.notify()
    return done


def standbys(Session session):
    """Ids of the paths that this side wants to stand by, and of those that the other side does."""
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_path* p
    cdef uint32_t[64] ids
    cdef uint8_t[64] bits
    cdef int n = 0, i
    check_fork(g)
    with nogil:
        baton_take(g)
        p = t.session.paths
        while p is not NULL and n < PATHS_MOST:
            ids[n] = p.id
            bits[n] = p.standby
            n += 1
            p = p.next
        baton_give(g)
    return [ids[i] for i in range(n) if bits[i] & 1], [ids[i] for i in range(n) if bits[i] & 2]


def take_events(Session session):
    """What became of the paths since the last call, oldest first.

    Returns:
        list of (path id, what, what it was before), words as in ``STATES``; "new" before: the path was added; and how
        many are missing because nobody looked in time.
    """
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_path_event[16] found
    cdef uint64_t lost
    cdef uint32_t n, i
    check_fork(g)
    with nogil:
        baton_take(g)
        n = t.session.n_events
        for i in range(n):
            found[i] = t.session.events[(t.session.events_first + i) & (EVENTS_KEPT - 1)]
        t.session.events_first += n
        t.session.n_events = 0
        lost = t.session.events_lost
        t.session.events_lost = 0
        baton_give(g)
    return [(found[i].path, STATES[found[i].what], STATES[found[i].before]) for i in range(n)], lost
