"""Sessions as Python holds them: how one is made of a socket and a finished handshake, its ends, keys and counters.

Layer: _engine; threads as in engine_handle.pyx. Channels of a session are end_handle's.
Spec: docs/spec/session.md §1, §7; docs/spec/keys.md.
"""

import os
from hashlib import sha256

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_grow, cache_wants_grow
from netchan._core.datagram cimport CID_SIZE, DATAGRAM_MOST, DATAGRAM_MTU, TOKEN_SIZE
from netchan._core.ecn cimport ECN_CAPABLE
from netchan._core.ends cimport session_close
from netchan._core.flight cimport CHALLENGED_NEVER, flight_free, flight_new, flight_token
from netchan._core.inbound cimport session_recv
from netchan._core.auto cimport auto_figures
from netchan._core.keys cimport (
    keys_export, keys_join_mac, keys_may_update, keys_new, keys_take_warning, keys_ticket_secret, nc_keys_warning,
)
from netchan._core.leaf cimport leaf_lock, leaf_unlock, load_acq_u32, store_seq_u32, xchg_u32
from netchan._core.modes cimport mirrors, spreads
from netchan._core.ratchet cimport session_ratchet_secret, session_ratchet_send
from netchan._core.rate cimport path_rate
from netchan._core.resume cimport (
    path_find, session_add, session_join, session_may_add, session_mode, session_path_lost, session_resume,
)
from netchan._core.session cimport session_at_rest, session_free, session_init, session_on_deadline
from netchan._core.take cimport in_pending
from netchan._core.state cimport (
    MODE_AUTO, SESSION_SUSPENDED, TOKEN_CAME, nc_auto, nc_dgram, nc_end, nc_figures, nc_params, nc_path, nc_session,
)
from netchan._core.ticket cimport session_ticket_send
from netchan._engine cimport sys
from netchan._engine.clock cimport engine_now
from netchan._engine.engine_handle cimport Engine, Listed, check_fork
from netchan._engine.carrier cimport CARRIER_UDP, carrier_setup
from netchan._engine.engine cimport (
    baton_give, baton_take, engine_add, engine_dirty, fork_count, node_drawn, slot_free,
)
from netchan._engine.links cimport (
    link_answer, slot_link, slot_lose, slot_lose_all, slot_move, slot_reap, slot_replaced,
)
from netchan._engine.news cimport engine_collect, engine_poke, path_news
from netchan._engine.state cimport PATHS_AGAIN, PATHS_MORE, nc_engine, nc_link, nc_offer_event, nc_slot


cdef struct nc_path_seen:           # of a path, for the application
    uint32_t id
    int64_t srtt
    uint64_t sent
    uint64_t received
    uint64_t in_flight
    uint64_t rate
    int64_t lost
    uint64_t marks
    bint control
    bint suspect
    bint aside
    bint ecn
    bint token


cdef void path_see(nc_path* p, nc_session* s, nc_path_seen* seen) noexcept nogil:
    seen.id = p.id
    seen.srtt = p.srtt
    seen.sent = p.tx_number
    seen.received = p.rx_number
    seen.in_flight = p.tx_number - p.acked
    seen.rate = <uint64_t>path_rate(p)
    seen.control = p == s.control
    seen.suspect = p.suspect != 0
    seen.aside = p.aside
    seen.lost = <int64_t>p.d.n_lost - <int64_t>p.d.n_found if p.d is not NULL else 0
    seen.marks = p.d.n_marked if p.d is not NULL else 0
    seen.ecn = p.d is not NULL and p.d.ecn.state == ECN_CAPABLE
    seen.token = p.d is not NULL and p.d.token_known != 0


cdef tuple NEWS = ("", "lost", "up", "suspect", "fewer", "more")      # by nc_path_news


cdef void wipe(uint8_t* p, size_t n) noexcept:
    cdef volatile uint8_t* q = p
    cdef size_t i
    for i in range(n):
        q[i] = 0


cdef int fill_params(nc_params* p, d) except -1:
    p.max_record = d["max_record"]
    p.ack_delay_ns = <uint64_t>(d["ack_delay"]) * 1000
    p.ack_interval = d["ack_interval"]
    p.initial_msgs = d["initial_msgs"]
    p.initial_bytes = d["initial_bytes"]
    p.max_streams = d["max_streams"]
    p.max_message = d["max_message"]
    p.max_channels = 1
    p.trunk = 0
    p.parity = 0
    p.session_bytes = 0
    p.node_bytes = 0
    p.heartbeat_ns = 0
    p.dead_ns = 0
    p.lease_ns = 0
    p.max_paths = 1
    p.max_datagram = 0
    p.datagrams = 0
    return 0


# What a datagram path has beside others. Its ids are 8 bytes of what both sides know of the exchange that made it.
cdef nc_dgram* new_flight(bytes binding, int role, uint32_t mtu, uint64_t seed, bytes token) except NULL:
    cdef bytes out = sha256(b"netchan cid v1\0" + bytes((role,)) + binding).digest()
    cdef bytes into = sha256(b"netchan cid v1\0" + bytes((1 - role,)) + binding).digest()
    cdef nc_dgram* d
    if not DATAGRAM_MTU <= mtu <= DATAGRAM_MOST:
        raise ValueError(f"mtu must be {DATAGRAM_MTU} to {DATAGRAM_MOST}, not {mtu}")
    if token and len(token) != CID_SIZE + TOKEN_SIZE:
        raise ValueError(f"a connection id and its token have {CID_SIZE + TOKEN_SIZE} bytes, not {len(token)}")
    d = flight_new(<const uint8_t*><char*>out, <const uint8_t*><char*>into, mtu, seed)
    if d is NULL:
        raise MemoryError("netchan datagram path")
    if token:
        flight_token(d, <const uint8_t*><char*>token)
    return d


def attach(Engine engine, int fd, *, int carrier, initiator, root, bytes binding, int cipher, mine, peer, bytes early,
           int max_channels, int64_t session_bytes, double heartbeat, double dead=10.0, bint trunk=False,
           uint64_t node_bytes=256 << 20, double lease=0.0, uint32_t max_paths=8, bint datagrams=False,
           bint parity=False, uint32_t mtu=DATAGRAM_MTU, bytes answer=b"", bint proved=True, bytes token=b""):
    """Make a session of a connected, non-blocking socket whose handshake has ended.

    Args:
        engine: drives it, for life.
        fd: the descriptor; owned by the engine from now on, also when this raises.
        carrier: 1 TCP, 2 Unix, 3 UDP (a socket that is connected to the peer).
        initiator: True on the side that dialled.
        root: 32 bytes (handshake.md §4); borrowed, the caller wipes it.
        binding: 32 bytes, the handshake hash.
        cipher: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
        mine, peer: transport parameters by name.
        early: bytes of the stream behind the handshake.
        max_channels, session_bytes, node_bytes (bytes), heartbeat and dead (s): our own limits.
        trunk: both sides know it.
        lease: seconds for which the session is kept without a path, as agreed; 0: not at all.
        max_paths: at a time, 1 to 64, as agreed.
        datagrams: the session may have datagram paths, as agreed.
        parity: both sides know parity symbols.
        mtu: bytes of a datagram at most, 1 200 to 1 452.
        answer: datagram paths: our last word of the handshake, said again when the peer asks again.
        proved: datagram paths: something came from the peer that it could not say without having heard us.
        token: datagram paths: the connection id by which we want to be called, 8 bytes, and 16 by which the peer is to
            know that we have forgotten the path; b"": none is told.

    Raises:
        ConfigError, MemoryError, ForkError, OSError.
    """
    cdef nc_engine* g = engine.g
    cdef nc_slot* t = NULL
    cdef nc_dgram* d = NULL
    cdef nc_params m, q
    cdef Py_buffer view
    cdef uint8_t[32] secret
    cdef bytearray rest = bytearray(early)
    cdef uint8_t* rest_p
    cdef size_t rest_n = len(rest)
    cdef uint64_t seed = int.from_bytes(os.urandom(8), "little")
    cdef int role = 0 if initiator else 1
    cdef int rc
    cdef const uint8_t* bind_p = <const uint8_t*><char*>binding
    cdef const uint8_t* answer_p = <const uint8_t*><char*>answer
    cdef size_t answer_n = len(answer)
    cdef Session session
    try:
        check_fork(g)
        if len(binding) != 32:
            raise ValueError("binding must be 32 bytes")
        engine.prepare_cipher(cipher)
        fill_params(&m, mine)
        fill_params(&q, peer)
        m.max_channels = max_channels
        m.session_bytes = session_bytes
        m.trunk = trunk
        m.node_bytes = node_bytes
        m.heartbeat_ns = <int64_t>(heartbeat * 1e9)
        m.dead_ns = <int64_t>(dead * 1e9)
        m.lease_ns = <int64_t>(lease * 1e9)
        m.max_paths = max_paths
        m.datagrams = datagrams
        m.parity = parity
        if carrier == CARRIER_UDP:
            if not datagrams:
                raise ValueError("a datagram path needs a session that may have some")
            d = new_flight(binding, role, mtu, seed, token)
            if not proved:
                d.challenged = CHALLENGED_NEVER
        t = <nc_slot*>calloc(1, sizeof(nc_slot))
        if t is NULL:
            raise MemoryError("netchan session")
        session = Session.__new__(Session)
    except BaseException:
        sys.close(fd)
        flight_free(d)
        raise
    PyObject_GetBuffer(root, &view, PyBUF_SIMPLE)
    if view.len != 32:
        PyBuffer_Release(&view)
        sys.close(fd)
        flight_free(d)
        free(t)
        raise ValueError("root must be 32 bytes")
    memcpy(secret, view.buf, 32)
    PyBuffer_Release(&view)
    session.t = t
    session.engine = engine
    t.session.user = <void*>session
    rest_p = <uint8_t*><char*>rest
    with nogil:
        carrier_setup(fd, carrier)
        baton_take(g)
        if cache_wants_grow(g.caches[cipher]):
            cache_grow(g.caches[cipher])
        t.session.sealer.cache = g.caches[cipher]
        t.session.sealer.keys = keys_new(g.stores[cipher], secret, role, NULL)
        rc = defs.NC_ENOMEM
        if t.session.sealer.keys is not NULL:
            rc = session_init(&t.session, role, &m, &q, bind_p, d, seed, engine_now(g))
            t.session.budget.node_used = node_drawn()
        if rc == defs.NC_OK:
            rc = engine_add(g, t, fd)
        if rc == defs.NC_OK and d is not NULL:
            link_answer(<nc_link*>t.session.control.carrier, answer_p, answer_n)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)              # the side that dialled begins with PING: the other one may wait for it
        elif rc == defs.NC_OK and rest_n:
            if session_recv(&t.session, t.session.control, rest_p, rest_n, engine_now(g)) < 0:
                slot_reap(g, t)
            engine_collect(g, t)
        if t.session.control is NULL:
            flight_free(d)
        baton_give(g)
    wipe(secret, 32)
    if rc < 0:
        t.session.user = NULL
        session.t = NULL
        sys.close(fd)
        with nogil:
            baton_take(g)
            session_free(&t.session)
            slot_free(t)
            baton_give(g)
        raise MemoryError(f"netchan: session could not be made (code {rc})")
    engine.notify()
    return session


# The mode in force, k as far as so many paths allow, m; and where it is picked why (nc_auto_why), since when in ns of
# the monotonic clock, and from what: paths, parts in a million lost, shortest round trip in ns, bytes of values a
# second, of a value, and that waited, a path in trouble. Else of these the paths, the loss and the round trip of now.
cdef told_of(int mode, int k, int m, const nc_figures* now, const nc_auto* a):
    cdef int most = m * (now.paths - 1)
    cdef const nc_figures* f = now if a is NULL else &a.decided
    return (mode, most if now.paths > 1 and k > most else k, m, -1 if a is NULL else a.why,
            -1 if a is NULL else a.since, f.paths, f.loss, f.rtt, f.rate, f.size, f.waits, f.trouble != 0)


cdef class Session(Listed):
    """One session of an engine; what the layer above needs of it. Made by ``Engine.attach``.

    Attributes:
        on_offers: called without arguments when ``take_offers`` has something.
        on_over: called once, without arguments, when the session is over.
        on_ratchet: called without arguments when ``take_ratchet`` has something.
        on_ticket: called without arguments when ``take_ticket`` has something.
        kept: the newest ticket of this session, in the form of the layer above (net/kept.py).
        where: path id -> the other end of its connection, for messages, of all paths but the first; None: no others.
        maker: who makes paths (net/redial.py), or None: the other side does.
        on_path: called with "lost" when the last path is and the session waits for another, "up" when it has one again,
            "suspect" when all paths are silent where they should not be, "fewer" and "more" when one of several was
            lost or has come. Several between two looks are told as the last.
        on_events: called without arguments when ``path_handle.take_events`` has something.
    """

    def __dealloc__(self):
        cdef nc_slot* t = self.t
        cdef nc_engine* g
        if t is NULL:
            return
        g = t.engine
        if g.fork_count != fork_count():
            return
        t.session.user = NULL
        # The engine acts, not the finaliser: a session still up is left as by an exception.
        store_seq_u32(&t.orphan, 1)
        if xchg_u32(&t.session.dirty_any, 1) == 0:
            engine_dirty(g, t)
        store_seq_u32(&t.orphan, 2)             # the last touch: another thread may sweep it now
        engine_poke(g)

    cdef on_ready(self, uint32_t over):
        cdef uint8_t path
        if self.t.offers is not NULL and self.on_offers is not None:
            self.on_offers()
        if self.t.ratchet_new and self.on_ratchet is not None:
            self.on_ratchet()
        if self.t.ticket is not NULL and self.on_ticket is not None:
            self.on_ticket()
        leaf_lock(&self.t.engine.app_lock)
        path = self.t.app_path
        self.t.app_path = 0
        leaf_unlock(&self.t.engine.app_lock)
        if path and not over and self.on_path is not None:
            self.on_path(NEWS[path])
        if self.t.session.n_events and self.on_events is not None:
            self.on_events()
        if over and not self.told:
            self.told = True
            if self.on_over is not None:
                self.on_over()

    def take_offers(self):
        """Channels that the other side opened, in order of arrival.

        Returns:
            list of (name, codec id, schema hash, capacity figure or None, flags).
        """
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_offer_event* x
        cdef list out = []
        check_fork(g)
        while True:
            leaf_lock(&g.app_lock)
            x = t.offers
            if x is not NULL:
                t.offers = x.next
                if t.offers is NULL:
                    t.offers_tail = NULL
            leaf_unlock(&g.app_lock)
            if x is NULL:
                return out
            try:
                out.append((
                    PyBytes_FromStringAndSize(<char*>x.name, x.name_len),
                    x.codec,
                    PyBytes_FromStringAndSize(<char*>x.schema, 16),
                    None if x.capacity_wanted == 0 else x.capacity_wanted - 1,
                    x.flags,
                ))
            finally:
                free(x)

    def take_ratchet(self):
        """(number, step, Noise bytes) of a ratchet message that came, or None (keys.md §2)."""
        cdef nc_slot* t = self.t
        cdef uint8_t[1024] copy
        cdef size_t n
        cdef uint64_t number
        cdef int step
        leaf_lock(&t.engine.app_lock)
        if not t.ratchet_new:
            leaf_unlock(&t.engine.app_lock)
            return None
        t.ratchet_new = 0
        n = t.ratchet_len
        number = t.ratchet_number
        step = t.ratchet_step
        memcpy(copy, t.ratchet, n)
        leaf_unlock(&t.engine.app_lock)
        return number, step, PyBytes_FromStringAndSize(<char*>copy, n)

    def ratchet_send(self, uint64_t number, int step, bytes data):
        """Send a ratchet message: step 0 asks for a start, 1 and 2 are the Noise messages."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef const uint8_t* p = <const uint8_t*><char*>data
        cdef size_t n = len(data)
        cdef int rc
        check_fork(g)
        with nogil:
            baton_take(g)
            rc = session_ratchet_send(&t.session, number, step, p, n)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        if rc < 0:
            raise ValueError(f"ratchet message of {n} bytes, step {step} (code {rc})")

    @property
    def ratchet_pending(self):
        """True while the secret of a ratchet waits to be mixed in by one of the two directions."""
        return bool(self.t.session.ratchet_have)

    def ratchet_secret(self, uint64_t number, secret):
        """The 32-byte result of ratchet ``number``; borrowed, the caller wipes it."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef Py_buffer view
        cdef uint8_t[32] copy
        check_fork(g)
        PyObject_GetBuffer(secret, &view, PyBUF_SIMPLE)
        if view.len != 32:
            PyBuffer_Release(&view)
            raise ValueError("a ratchet secret has 32 bytes")
        memcpy(copy, view.buf, 32)
        PyBuffer_Release(&view)
        with nogil:
            baton_take(g)
            session_ratchet_secret(&t.session, number, copy)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        wipe(copy, 32)

    # --- tickets (handshake.md §12) ---

    def ticket_secret(self, bytes id16):
        """What the ticket of this session with an id of 16 bytes stands for, 32 bytes; the caller wipes them."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef bytearray out = bytearray(32)
        cdef uint8_t* p = <uint8_t*><char*>out
        cdef const uint8_t* id_p = <const uint8_t*><char*>id16
        cdef int rc
        check_fork(g)
        if len(id16) != 16:
            raise ValueError("the id of a ticket has 16 bytes")
        with nogil:
            baton_take(g)
            rc = keys_ticket_secret(t.session.sealer.keys, id_p, p)
            baton_give(g)
        if rc < 0:
            raise RuntimeError(f"netchan: no secret of a ticket (code {rc})")
        return out

    def ticket_send(self, uint64_t life_s, bytes ticket):
        """Give the peer a ticket of 1 to 1 024 bytes; on the side that was dialled."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef const uint8_t* p = <const uint8_t*><char*>ticket
        cdef size_t n = len(ticket)
        cdef int rc
        check_fork(g)
        with nogil:
            baton_take(g)
            rc = session_ticket_send(&t.session, life_s, p, n)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        if rc < 0:
            raise ValueError(f"ticket of {n} bytes (code {rc})")

    def take_ticket(self):
        """(seconds it lives, ticket) of the newest one that came, once; or None."""
        cdef nc_slot* t = self.t
        cdef uint8_t* p
        cdef uint64_t life
        cdef size_t n
        leaf_lock(&t.engine.app_lock)
        p = t.ticket
        life = t.ticket_life
        n = t.ticket_len
        t.ticket = NULL
        leaf_unlock(&t.engine.app_lock)
        if p is NULL:
            return None
        try:
            return life, PyBytes_FromStringAndSize(<char*>p, n)
        finally:
            free(p)

    def replaced(self):
        """The peer has shown with a ticket of this session that it is over there: it is lost at once.

        Returns:
            False: it was over, or being left, already.
        """
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef bint lost
        check_fork(g)
        with nogil:
            baton_take(g)
            lost = slot_replaced(g, t, engine_now(g))
            baton_give(g)
        self.engine.notify()
        return lost

    def export(self, bytes label, bytes context, Py_ssize_t n):
        """A secret of this session for another use (keys.md §1): label 1-64, context 0-48 and n 1-8160 bytes."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef bytearray out = bytearray(n)
        cdef uint8_t* p = <uint8_t*><char*>out
        cdef const char* lab = label
        cdef size_t lab_n = len(label)
        cdef const uint8_t* ctx = <const uint8_t*><char*>context
        cdef size_t ctx_n = len(context)
        cdef size_t want = n
        cdef int rc
        check_fork(g)
        with nogil:
            baton_take(g)
            rc = keys_export(t.session.sealer.keys, lab, lab_n, ctx, ctx_n, p, want)
            baton_give(g)
        if rc < 0:
            raise ValueError(f"export of {n} bytes with a label of {lab_n} and a context of {ctx_n} bytes (code {rc})")
        return out

    def take_usage_warning(self):
        """(records sealed in all, with one key, its tag, its epoch) once, when a key was used much (keys.md §3)."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_keys_warning w
        cdef int got
        check_fork(g)
        with nogil:
            baton_take(g)
            got = keys_take_warning(t.session.sealer.keys, &w)
            baton_give(g)
        return (w.session_messages, w.key_messages, w.tag, w.epoch) if got == 1 else None

    def rekey(self):
        """Start the next epoch of our direction now; True if it could (the last one is acknowledged)."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef int may
        check_fork(g)
        with nogil:
            baton_take(g)
            may = keys_may_update(t.session.sealer.keys)
            if may:
                t.session.sealer.keys.wants_update = 1
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        return may == 1

    def close(self, int code, bytes reason=b""):
        """Say SESSION_CLOSE(code) behind what is queued in the core, then end. Idempotent."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef const uint8_t* p = <const uint8_t*><char*>reason
        cdef size_t n = len(reason)
        check_fork(g)
        with nogil:
            baton_take(g)
            session_close(&t.session, <uint16_t>code, p, n)
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        self.engine.notify()

    def at_rest(self):
        """True when a SESSION_CLOSE that is said now cannot overtake anything that was said before."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef int rest
        check_fork(g)
        with nogil:
            baton_take(g)
            rest = 0 if t.held else session_at_rest(&t.session)
            baton_give(g)
        return rest != 0

    # --- paths (handshake.md §11) ---

    @property
    def suspended(self):
        """True while the session has no path and waits for one."""
        return load_acq_u32(&self.t.session.suspended) != 0

    @property
    def forgotten(self):
        """True while the session has no path because the other side has said that it does not know the last one."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef bint said = False
        check_fork(g)
        with nogil:
            baton_take(g)
            if t.session.last is not NULL and t.session.last.d is not NULL:
                said = t.session.last.d.token_known == <uint8_t>TOKEN_CAME
            baton_give(g)
        return said

    @property
    def suspect(self):
        """True while all paths owe an acknowledgement and nothing is heard on them."""
        return load_acq_u32(&self.t.session.suspect) != 0

    @property
    def lease(self):
        """Seconds for which the session is kept without a path; 0: not at all."""
        return self.t.session.mine.lease_ns * 1e-9

    def lose(self):
        """The lease of a suspended session is over now."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        check_fork(g)
        with nogil:
            baton_take(g)
            if t.session.state == SESSION_SUSPENDED and not t.held:
                t.session.lease_until = 0
                session_on_deadline(&t.session, engine_now(g))
                if xchg_u32(&t.session.dirty_any, 1) == 0:
                    engine_dirty(g, t)
            baton_give(g)
        self.engine.notify()

    def join_mac(self, bytes data):
        """32 bytes that only the two sides of this session can make of ``data``."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef bytes digest = sha256(data).digest()
        cdef const uint8_t* p = <const uint8_t*><char*>digest
        cdef uint8_t[32] mac
        cdef int rc
        check_fork(g)
        with nogil:
            baton_take(g)
            rc = keys_join_mac(t.session.sealer.keys, p, mac)
            baton_give(g)
        if rc < 0:
            raise RuntimeError(f"netchan: no code under the join key (code {rc})")
        return PyBytes_FromStringAndSize(<char*>mac, 32)

    def path(self):
        """(id of the last path, records received on it)."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_path* p
        cdef uint32_t number = 0
        cdef uint64_t received = 0
        check_fork(g)
        with nogil:
            baton_take(g)
            p = t.session.last if t.session.last is not NULL else t.session.control
            if p is not NULL:
                number = p.id
                received = p.rx_number
            baton_give(g)
        return number, received

    def paths(self):
        """The paths that live, oldest first.

        Returns:
            list of dicts: ``id``; ``control``, True for the one that carries what must come in order; ``suspect``, True
            while it is silent where it should not be; ``aside``, True for one that is suspect, or that stands by while
            another one lives; ``rtt_us``, 0 without a sample; ``rate``, bytes a second that
            arrive over there, 0 where it was not measured; ``sent`` and ``received``, records; ``lost``, those of a
            datagram path that were given up; ``in_flight``, records that were not acknowledged yet;
            ``token``, True if the other side could say that it has forgotten the path.
        """
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_path* p
        cdef nc_path_seen* seen
        cdef int n = 0, i
        check_fork(g)
        seen = <nc_path_seen*>PyMem_Malloc(t.session.mine.max_paths * sizeof(nc_path_seen))
        if seen is NULL:
            raise MemoryError("netchan paths")
        with nogil:
            baton_take(g)
            p = t.session.paths
            while p is not NULL and n < <int>t.session.mine.max_paths:
                path_see(p, &t.session, &seen[n])
                n += 1
                p = p.next
            baton_give(g)
        out = [
            {
                "id": seen[i].id,
                "control": bool(seen[i].control),
                "suspect": bool(seen[i].suspect),
                "aside": bool(seen[i].aside),
                "rtt_us": seen[i].srtt // 1000,
                "sent": seen[i].sent,
                "received": seen[i].received,
                "rate": seen[i].rate,
                "lost": seen[i].lost,
                "in_flight": seen[i].in_flight,
                "ecn": bool(seen[i].ecn),
                "token": bool(seen[i].token),
                "marks": seen[i].marks,
            }
            for i in range(n)
        ]
        PyMem_Free(seen)
        return out

    @property
    def mode(self):
        """What several paths are used for in our direction: 0 failover, 1 stripe, 2 mirror, 3 parity, 4 as is measured;
        and of parity the data and parity symbols of a group, else 0."""
        cdef nc_session* s = &self.t.session
        if s.picks:
            return MODE_AUTO, 0, 0
        return s.mode, s.parity_k, s.parity_m

    @mode.setter
    def mode(self, mode):
        cdef nc_slot* t = self.t
        cdef int number, k, m
        cdef nc_engine* g = t.engine
        number, k, m = mode
        check_fork(g)
        with nogil:
            baton_take(g)
            session_mode(&t.session, number, k, m, engine_now(g))
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        self.engine.notify()

    @property
    def spreads(self):
        """True if paths beside the one of control carry values now."""
        return spreads(&self.t.session) or mirrors(&self.t.session)

    def redundancy(self):
        """What is in force and why: as ``told_of``."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_figures f
        cdef nc_auto a
        cdef int mode, k, m
        check_fork(g)
        with nogil:
            baton_take(g)
            auto_figures(&t.session, &f, engine_now(t.engine))
            a = t.session.auto
            mode, k, m = t.session.mode, t.session.parity_k, t.session.parity_m
            baton_give(g)
        return told_of(mode, k, m, &f, &a if t.session.picks else NULL)

    def drop(self, uint32_t path_id):
        """End a path; what was sent on it is sent again on another. False: it is the only one, or there is none of this
        id."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_path* p
        cdef bint done = False
        check_fork(g)
        with nogil:
            baton_take(g)
            p = path_find(&t.session, path_id)
            if p is not NULL and t.session.n_paths > 1 and not t.held:
                done = True
                slot_lose(g, t, p, engine_now(g))
                if xchg_u32(&t.session.dirty_any, 1) == 0:
                    engine_dirty(g, t)
            baton_give(g)
        self.engine.notify()
        return done

    def join(self, uint32_t path_id, uint32_t last):
        """A JOIN with a good MAC has come, for a path instead of all others: they end, nothing more is read from them.

        Returns:
            Records received on path ``last``, or None: the session is over, cannot be resumed, or cannot mean these
            paths; then nothing has changed.
        """
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef nc_path* p
        cdef nc_path* following
        cdef int64_t received
        check_fork(g)
        with nogil:
            baton_take(g)
            # even ids are made by the side that dialled the session
            received = defs.NC_EINVAL
            if (path_id & 1) != t.session.role and not t.held:
                received = session_join(&t.session, path_id, last)
            if received >= 0:
                p = t.session.paths
                while p is not NULL:            # the one that it names goes last: how much of it came is known exactly
                    following = p.next
                    if p.id != last:
                        session_path_lost(&t.session, p, engine_now(g))
                    p = following
                slot_lose_all(g, t, engine_now(g))
                engine_collect(g, t)
            baton_give(g)
        self.engine.notify()
        return None if received < 0 else received

    def expect_more(self):
        """A path is about to be asked for: the other side may have it, and send on it, before its answer comes."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        check_fork(g)
        with nogil:
            baton_take(g)
            t.session.in_order = 0
            baton_give(g)

    def may_add(self, uint32_t path_id):
        """A JOIN with a good MAC has come, for a path beside those that live: True if it may be added."""
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef int rc = defs.NC_EINVAL
        check_fork(g)
        with nogil:
            baton_take(g)
            if (path_id & 1) != t.session.role and not t.held:
                rc = session_may_add(&t.session, path_id)
            baton_give(g)
        return rc == defs.NC_OK

    def resume(self, int fd, *, int carrier, uint32_t path_id, uint32_t last, uint64_t received, bytes binding,
               bytes early, uint32_t mtu=DATAGRAM_MTU, bytes answer=b"", bytes token=b""):
        """Go on over a connected, non-blocking socket.

        Args:
            fd: owned by the engine from now on, also when this gives False.
            carrier: 1 TCP, 2 Unix, 3 UDP.
            path_id: of the new path.
            last: the path that both sides mean by the last one; received: records of it that the other side has got.
            binding: 32 bytes, what the first record of each direction is bound to.
            early: bytes of the stream behind the exchange.
            mtu, answer, token: of a datagram path, as ``attach``.

        Returns:
            False: the session is not suspended any more, or the figures cannot be.
        """
        return self.new_path(fd, carrier, path_id, False, last, received, binding, early, mtu, answer, token)

    def add(self, int fd, *, int carrier, uint32_t path_id, bytes binding, bytes early, uint32_t mtu=DATAGRAM_MTU,
            bytes answer=b"", bytes token=b""):
        """Another path beside those that live; arguments as those of ``resume``.

        Returns:
            False: the session is over or has no lease, there are as many paths as were agreed, or the id was used.
        """
        return self.new_path(fd, carrier, path_id, True, 0, 0, binding, early, mtu, answer, token)

    cdef bint new_path(self, int fd, int carrier, uint32_t path_id, bint beside, uint32_t last, uint64_t received,
                       bytes binding, bytes early, uint32_t mtu, bytes answer, bytes token) except -1:
        cdef nc_slot* t = self.t
        cdef nc_dgram* d = NULL
        cdef const uint8_t* answer_p = <const uint8_t*><char*>answer
        cdef size_t answer_n = len(answer)
        cdef nc_engine* g = t.engine
        cdef bytearray rest = bytearray(early)
        cdef uint8_t* rest_p
        cdef size_t rest_n = len(rest)
        cdef const uint8_t* bind_p = <const uint8_t*><char*>binding
        cdef nc_path* p = NULL
        cdef int64_t now
        cdef bint again
        cdef int rc
        if len(binding) != 32:
            raise ValueError("binding must be 32 bytes")
        check_fork(g)
        rest_p = <uint8_t*><char*>rest
        if carrier == CARRIER_UDP:
            try:
                d = new_flight(binding, t.session.role, mtu, int.from_bytes(os.urandom(8), "little"), token)
            except BaseException:
                sys.close(fd)
                raise
        with nogil:
            carrier_setup(fd, carrier)
            baton_take(g)
            now = engine_now(g)
            again = t.parted
            rc = defs.NC_ESTATE
            if t.held:
                pass
            elif not t.closed and beside:
                rc = session_add(&t.session, path_id, bind_p, d, now, &p)
            elif t.parted and not t.closed:
                rc = session_resume(&t.session, path_id, last, received, bind_p, d, now, &p)
            if rc < 0:
                flight_free(d)
            if rc == defs.NC_OK:
                rc = slot_link(g, t, p, fd)
                if rc == defs.NC_OK:
                    path_news(g, t, PATHS_AGAIN if again else PATHS_MORE)
                    if d is not NULL:
                        link_answer(<nc_link*>p.carrier, answer_p, answer_n)
                    elif rest_n and session_recv(&t.session, p, rest_p, rest_n, now) < 0:
                        slot_reap(g, t)
                else:
                    session_path_lost(&t.session, p, now)
                    slot_reap(g, t)
                if xchg_u32(&t.session.dirty_any, 1) == 0:
                    engine_dirty(g, t)
                engine_collect(g, t)
            baton_give(g)
        if rc < 0:
            sys.close(fd)
            return False
        self.engine.notify()
        return True

    def move(self, uint32_t path_id, int fd, data):
        """A datagram of a path has come from another address of the peer, to which ``fd`` is connected.

        Args:
            path_id: which path the datagram names.
            fd: the descriptor; the engine's if this gives True, else the caller's.
            data: the datagram.

        Returns:
            True if it was sound and newer than all others: the address is being proved, and the path goes there then.
        """
        cdef nc_slot* t = self.t
        cdef nc_engine* g = t.engine
        cdef bytearray buf = bytearray(data)
        cdef bytes token = os.urandom(8)
        cdef const uint8_t* token_p = <const uint8_t*><char*>token
        cdef uint8_t* p = <uint8_t*><char*>buf
        cdef size_t n = len(buf)
        cdef nc_path* path
        cdef int rc = defs.NC_EINVAL
        check_fork(g)
        with nogil:
            baton_take(g)
            path = path_find(&t.session, path_id)
            if not t.closed and not t.held and path is not NULL and path.d is not NULL:
                rc = slot_move(g, t, path, fd, p, n, token_p)
            baton_give(g)
        self.engine.notify()
        return rc == defs.NC_OK

    @property
    def datagrams(self):
        """True if the session may have datagram paths."""
        return self.t.session.order is not NULL

    @property
    def handed_over(self):
        """True once the session lives in another process."""
        return bool(self.t.session.close_code == defs.CLOSE_HANDED_OVER and self.t.session.abrupt)

    @property
    def initiator(self):
        """True on the side that dialled."""
        return self.t.session.role == 0

    def adopted(self):
        """Channels that came with the session from another process and that nobody has attached to, oldest first.

        Returns:
            list of (place for ``StreamEnd``, name, True for a token, codec id, schema hash, capacity figure or None,
            overflow, ttl_ms, trunk, stream id, sending is over, receiving is over, values to take).
        """
        cdef nc_slot* t = self.t
        cdef nc_end* e
        cdef list out = []
        check_fork(t.engine)
        for i in range(t.session.n_adopted):
            e = t.session.adopted[i]
            if e is NULL:
                continue
            out.append((
                i,
                PyBytes_FromStringAndSize(<char*>e.name, e.name_len),
                e.kind == defs.PREFACE_TOKEN,
                e.codec,
                PyBytes_FromStringAndSize(<char*>e.schema, 16),
                None if e.capacity_wanted == 0 else e.capacity_wanted - 1,
                e.overflow_wanted,
                e.ttl_wanted,
                bool(e.trunk_wanted),
                e.out.id,
                bool(e.out.over or e.out.closing),
                load_acq_u32(&e.in_.over) != 0 if e.in_ is not NULL else load_acq_u32(&e.over) != 0,
                in_pending(e.in_) if e.in_ is not NULL else 0,
            ))
        return out

    @property
    def over(self):
        """True once the session has ended, whoever ended it."""
        return load_acq_u32(&self.t.session.over) != 0

    @property
    def close_code(self):
        """SESSION_CLOSE code (session.md §9.1), valid once over."""
        return self.t.session.close_code

    @property
    def close_by_us(self):
        return bool(self.t.session.close_by_us)

    @property
    def lost(self):
        """True if the session ended without a clean leave of either side."""
        return bool(self.t.session.abrupt)

    @property
    def close_reason(self):
        return PyBytes_FromStringAndSize(<char*>self.t.session.reason, self.t.session.reason_len)

    def stats(self):
        """Counters since the session began, as a dict; ``rtt_us`` is 0 without a sample."""
        cdef nc_session* s = &self.t.session
        return {
            "records_sent": s.stats.records_sent,
            "records_received": s.stats.records_received,
            "messages_sent": s.stats.messages_sent,
            "messages_received": s.stats.messages_received,
            "bytes_sent": s.stats.bytes_sent,
            "bytes_received": s.stats.bytes_received,
            "dropped_bytes": s.stats.dropped_bytes,
            "trunk_records": s.stats.trunk_records,
            "pings": s.stats.pings,
            "acks": s.stats.acks,
            "resumes": s.stats.resumes,
            "resent": s.stats.resent,
            "resets": s.stats.resets,
            "parity_sent": s.stats.parity_sent,
            "rebuilt": s.stats.rebuilt,
            "redundancy_picks": s.stats.picks,
            "rtt_us": s.control.srtt // 1000 if s.control is not NULL else 0,
            "paths": s.n_paths,
            "epoch": s.sealer.keys.owner.send_epoch,
            "rekeys": s.sealer.keys.updates,
            "ratchets": s.ratchets,
            "sealed": s.sealer.keys.sealed,
            "nonce_checked": s.sealer.keys.mono is not NULL,
            "nonce_repeats": s.sealer.keys.mono_violations,
            "channels": s.outs.len,
            "offered": s.n_offers,
            "held_bytes": s.budget.drawn,
        }
