"""Sessions that leave for another process, or come from one, as Python holds them.

Layer: _engine; threads as in engine_handle.pyx. The old process: ``hold``, then ``moved`` or ``unhold``. The new one:
``read``, then ``start`` or ``abandon``. What goes between them, and when each may, is netchan/net/handover.py.
Spec: docs/spec/handover.md §2, §3.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_grow, cache_wants_grow
from netchan._core.handover cimport session_hold, session_may_move, session_read, session_unhold, session_write
from netchan._core.leaf cimport leaf_lock, leaf_unlock, store_seq_u32, xchg_u32
from netchan._core.resume cimport path_find
from netchan._core.session cimport session_free
from netchan._core.state cimport SESSION_SUSPENDED, nc_end, nc_path
from netchan._core.take cimport in_pending
from netchan._core.walk cimport walk_wipe
from netchan._engine cimport sys
from netchan._engine.clock cimport engine_now
from netchan._engine.end_handle cimport StreamEnd
from netchan._engine.engine cimport baton_give, baton_take, engine_dirty, engine_list, node_drawn, slot_free
from netchan._engine.engine_handle cimport Engine, check_fork
from netchan._engine.links cimport link_answer, link_keep, slot_hold, slot_link, slot_lose, slot_moved, slot_unhold
from netchan._engine.news cimport engine_collect
from netchan._engine.session_handle cimport Session
from netchan._engine.state cimport CIPHERS, nc_engine, nc_link, nc_slot


# With the GIL held one must not wait for the baton (engine.pxd).
cdef void take_both(nc_engine* g) noexcept:
    while sys.pthread_mutex_trylock(&g.baton) != 0:
        with nogil:
            baton_take(g)
            baton_give(g)


# The C side of these ends; free() it.
cdef nc_end** ends_of(list ends) except NULL:
    cdef nc_end** out = <nc_end**>malloc((len(ends) + 1) * sizeof(nc_end*))
    cdef StreamEnd end
    cdef uint32_t n = 0
    if out is NULL:
        raise MemoryError("netchan hand-over")
    for end in ends:
        out[n] = end.e
        n += 1
    return out


# Of these ends those that the session has forgotten and of which values are left to take, in front; how many.
cdef uint32_t loose_of(nc_end** ends, uint32_t n) noexcept nogil:
    cdef uint32_t i, found = 0
    cdef nc_end* e
    for i in range(n):
        e = ends[i]
        if e.bound == 0 and e.out.id != 0 and e.in_ is not NULL and in_pending(e.in_) != 0:
            ends[found] = e
            found += 1
    return found


cdef bytes copied(const uint8_t* p, size_t n):
    return PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n) if n else b""


def hold(Session session, list ends):
    """Stop a session and write down all that it is.

    From now on its application waits, and nothing is read, written or due, until ``unhold`` or ``moved``.

    Args:
        session: of this process.
        ends: the StreamEnds of its channels, for values of channels that it has forgotten.

    Returns:
        (state: a bytearray that holds keys and is to be wiped; cipher: 1 or 2; links: list of (path id, descriptor,
        sealed bytes that were not written yet, the last word of the exchange that made the path)). Or None: it is being
        closed, or is over; nothing has changed.

    Raises:
        MemoryError: or its state is longer than 256 MiB; the session is held. ForkError.
    """
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_end** loose = NULL
    cdef nc_link* k
    cdef uint32_t n_loose = 0
    cdef uint8_t* p = NULL
    cdef size_t n = 0
    cdef int64_t now = engine_now(g)
    cdef int rc, cipher = 0
    cdef list links = []
    check_fork(g)
    loose = ends_of(ends)
    session.loose = ends
    take_both(g)
    # The GIL is held, so no call of the application is half done; the baton is, so the engine does nothing either.
    if t.closed or t.held or not session_may_move(&t.session):
        baton_give(g)
        free(loose)
        return None
    n_loose = loose_of(loose, <uint32_t>len(ends))
    session_hold(&t.session, loose, n_loose)
    slot_hold(g, t)
    leaf_lock(&g.app_lock)
    if t.ratchet_new and t.session.ratchet_in is not NULL and not t.session.ratchet_in_new:
        t.session.ratchet_in_new = 1            # the application has not looked at it
    leaf_unlock(&g.app_lock)
    # The interpreter is kept through all of this: with others in line it would not be had back for some milliseconds,
    # at each of the steps of each session, and they stand still meanwhile.
    rc = session_write(&t.session, loose, n_loose, now, &p, &n)
    free(loose)
    for i in range(CIPHERS):
        if g.caches[i] == t.session.sealer.cache and g.caches[i] is not NULL:
            cipher = i
    engine_collect(g, t)
    baton_give(g)
    k = t.links                                 # it is held: nobody touches them
    while k is not NULL:
        links.append((k.path.id, k.fd, copied(k.pend + k.pend_off, k.pend_len), copied(k.answer, k.answer_len)))
        k = k.next
    if rc < 0:
        raise MemoryError(f"netchan: the state of a session could not be written (code {rc})")
    try:
        state = PyByteArray_FromStringAndSize(<char*>p, <Py_ssize_t>n)
    finally:
        walk_wipe(p, n)
        free(p)
    return state, cipher, links


def unhold(Session session):
    """The session goes on here: nothing has happened."""
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef list ends = session.loose or []
    cdef nc_end** loose
    check_fork(g)
    loose = ends_of(ends)
    take_both(g)
    if t.held:
        session_unhold(&t.session, loose, <uint32_t>len(ends))
        slot_unhold(g, t)
        if xchg_u32(&t.session.dirty_any, 1) == 0:
            engine_dirty(g, t)
        engine_collect(g, t)
    with nogil:
        baton_give(g)
    free(loose)
    session.loose = []
    session.engine.notify()


def moved(Session session):
    """The session lives in another process: over here, its keys wiped, its descriptors closed without a word."""
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    check_fork(g)
    take_both(g)
    if not t.closed:
        slot_moved(g, t)
    baton_give(g)
    session.loose = []
    session.engine.notify()


def read(Engine engine, state, int cipher):
    """A session from the bytes that ``hold`` gave in another process. It does nothing before ``start``.

    Args:
        engine: drives it, for life.
        state: the bytes; wiped by the caller.
        cipher: 1 AES-256-GCM, 2 ChaCha20-Poly1305.

    Raises:
        ValueError: not such bytes, of another version, or of another host. MemoryError, ConfigError, ForkError.
    """
    cdef nc_engine* g = engine.g
    cdef nc_slot* t
    cdef Session session
    cdef Py_buffer view
    cdef bytes mix = os.urandom(32)
    cdef const uint8_t* mix_p = <const uint8_t*><char*>mix
    cdef uint64_t seed = int.from_bytes(os.urandom(8), "little")
    cdef int rc
    check_fork(g)
    engine.prepare_cipher(cipher)
    t = <nc_slot*>calloc(1, sizeof(nc_slot))
    if t is NULL:
        raise MemoryError("netchan session")
    try:
        session = Session.__new__(Session)
        PyObject_GetBuffer(state, &view, PyBUF_SIMPLE)
    except BaseException:
        free(t)
        raise
    t.held = 1
    session.loose = []
    take_both(g)
    if cache_wants_grow(g.caches[cipher]):
        cache_grow(g.caches[cipher])
    t.session.sealer.cache = g.caches[cipher]
    rc = session_read(&t.session, <const uint8_t*>view.buf, <size_t>view.len, g.stores[cipher], node_drawn(), seed,
                      mix_p, engine_now(g))
    if rc == defs.NC_OK:
        store_seq_u32(&t.session.dirty_any, 0)          # it is on no list yet, whatever was asked of it
        rc = engine_list(g, t)
    if rc < 0:
        session_free(&t.session)
        slot_free(t)
    baton_give(g)
    PyBuffer_Release(&view)
    if rc == defs.NC_OK:
        session.t = t
        session.engine = engine
        t.session.user = <void*>session
        return session
    if rc == defs.NC_EUNKNOWN:
        raise ValueError("the state of a session was written by another version of netchan")
    if rc == defs.NC_ESTATE:
        raise ValueError("the state of a session comes from another host, or is an hour old")
    if rc == defs.NC_ENOMEM:
        raise MemoryError("netchan: no memory for a session from another process")
    raise ValueError(f"the state of a session is not one (code {rc})")


def start(Session session, list links):
    """The session goes on in this process.

    Args:
        session: of ``read``.
        links: as ``hold`` gave them, with the descriptors of this process; the engine's from now on, in any case. A
            path without one is lost.
    """
    cdef nc_slot* t = session.t
    cdef nc_engine* g = t.engine
    cdef nc_path* p
    cdef nc_path* following
    cdef nc_link* k
    cdef bytes pend, answer
    cdef int rc, fd
    check_fork(g)
    take_both(g)
    t.held = 0
    for path_id, fd, pend, answer in links:
        p = path_find(&t.session, path_id)
        rc = defs.NC_EINVAL
        if p is not NULL and p.carrier is NULL:
            rc = slot_link(g, t, p, fd)
        if rc < 0:
            sys.close(fd)
            continue
        k = <nc_link*>p.carrier
        # What was sealed before it came here goes first: it has numbers that come before all others.
        if pend and link_keep(k, <const uint8_t*><char*>pend, <size_t>len(pend)) < 0:
            k.broken = 1
        if answer:
            link_answer(k, <const uint8_t*><char*>answer, <size_t>len(answer))
    p = t.session.paths
    while p is not NULL:
        following = p.next
        if p.carrier is NULL:
            slot_lose(g, t, p, engine_now(g))
        p = following
    if t.session.state == SESSION_SUSPENDED:
        t.parted = 1
    if xchg_u32(&t.session.dirty_any, 1) == 0:
        engine_dirty(g, t)
    engine_collect(g, t)
    baton_give(g)
    session.engine.notify()


def abandon(Session session):
    """The session does not go on in this process: it is over here, and its peer hears nothing of it."""
    moved(session)
