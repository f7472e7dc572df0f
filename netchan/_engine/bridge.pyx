"""The bridge: what Python holds of the engine: Engine, Session, StreamEnd.

Layer: _engine; the only place where C state meets Python objects. A StreamEnd keeps the promises of
channel.base.Endpoint for one end of a channel over a session; codecs, wait queues and errors are given to it by the
layer above (channel/remote.py).
Threads: every method may be called from any thread that holds the GIL. The GIL is released only around a pump, a flush
or a sleep; no Python object is touched under a leaf lock or the baton. Objects are made after a lock is left, because
making one may run the collector and come back in here; what was looked at before is therefore looked at again.
Spec: docs/spec/value.md, docs/spec/session.md §4, §6.
"""

import atexit
import os
import time
import weakref

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.crypto cimport NC_CIPHER_AES256GCM, NC_CIPHER_CHACHA20POLY1305, nc_crypto
from netchan._core.ctxcache cimport CACHE_CONTEXTS, cache_grow, cache_new, cache_wants_grow
from netchan._core.frame cimport message_head
from netchan._core.keys cimport (
    keys_export, keys_may_update, keys_new, keys_path_add, keys_take_warning, nc_keys_warning,
)
from netchan._core.keystore cimport ks_new
from netchan._core.leaf cimport (
    fetch_add_u32, fetch_and_u32, fetch_or_u32, leaf_lock, leaf_unlock, load_acq_u32, load_acq_u64, load_seq_u32,
    load_seq_u64, store_rel_u32, store_seq_u32, xchg_u32,
)
from netchan._core.provider cimport Provider, provider_table
from netchan._core.ends cimport end_mark, end_open, end_release, session_close
from netchan._core.inbound cimport session_recv
from netchan._core.ratchet cimport session_ratchet_secret, session_ratchet_send
from netchan._core.session cimport session_init
from netchan._core.state cimport (
    EV_ACK, EV_RECV, EV_SEND, EV_STATE, REQ_ABORT, REQ_ASK, REQ_END_AFTER, REQ_POS, REQ_STOP, nc_end, nc_params,
    nc_session,
)
from netchan._core.inbox cimport in_advance, in_copy, in_discard, in_over, in_peek, in_pending, nc_in, nc_msg
from netchan._core.outbox cimport (
    out_append, out_append_run, out_close, out_end, out_has_room, out_reserve, out_unreserve,
)
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_FIN, OVER_NOT, OVER_STOPPED
from netchan._core.segment cimport nc_seg, COPY_MAX
from netchan._engine.carrier cimport carrier_setup
from netchan._engine.engine cimport (
    CIPHERS, ENGINE_CALLER, ENGINE_LOOP, PINS_SOFT, baton_give, baton_take, engine_add, engine_appended, engine_close,
    engine_collect, engine_dirty, engine_open, engine_poke, engine_pump, engine_returned, engine_told, engine_try_flush,
    engine_wait, engine_wanted, engine_yield,
    fork_count, fork_watch, nc_engine, nc_offer_event, nc_slot, slot_free,
)
from netchan._engine cimport sys

from netchan._core import provider as provider_module
from netchan.errors import ConfigError, ForkError
from netchan.markers import EMPTY

cimport cython

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int Py_AddPendingCall(int (*fn)(void*) noexcept, void* arg) noexcept nogil

cdef enum:
    RUN_MAX = 64                    # values that one step under a leaf lock accepts
    PIN_MIN = 32768                 # immutable bytes from this size on are not copied but held until acknowledged
    SESSION_BLOCKS = 4096           # sessions whose secrets fit into one key store

cdef object EMPTY_ = EMPTY
cdef uint64_t FLUSH_NOW = 1 << 20    # more than any threshold: leaves at once
cdef object monotonic = time.monotonic
_engines = weakref.WeakSet()

if fork_watch() != 0:
    raise ImportError("netchan: cannot watch for fork (pthread_atfork failed)")


cdef int check_fork(nc_engine* g) except -1:
    if g.fork_count != fork_count():
        raise ForkError(
            "this channel belongs to the parent process: a forked child has no part in its sessions; "
            "dial anew in the child, or start it with the spawn or forkserver method"
        )
    return 0


cdef void drop_pins(nc_seg* s):
    cdef nc_seg* following
    while s is not NULL:
        following = s.next
        Py_DECREF(<object>s.pin)
        free(s)
        s = following


cdef int on_pins(void* arg) noexcept:
    cdef nc_engine* g = <nc_engine*>arg
    cdef nc_seg* pins
    store_seq_u32(&g.pins_asked, 0)
    leaf_lock(&g.app_lock)
    pins = g.pins
    g.pins = NULL
    g.n_pins_bytes = 0
    leaf_unlock(&g.app_lock)
    drop_pins(pins)
    return 0


# From any thread, without the GIL: the main thread releases what is held, though the program is elsewhere.
cdef void ask_pins(nc_engine* g) noexcept nogil:
    if Py_AddPendingCall(on_pins, g) != 0:
        store_seq_u32(&g.pins_asked, 0)         # the list is full: the next one asks again


def processors():
    """Processors that this process may use at once: its affinity, or less by a cgroup's quota."""
    n = len(os.sched_getaffinity(0))
    for path in ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"):
        try:
            with open(path) as f:
                words = f.read().split()
            period = 100_000.0
            if len(words) > 1:
                period = float(words[1])
            if words[0] not in ("max", "-1"):
                n = min(n, int(float(words[0]) / period))
        except (OSError, ValueError, IndexError):
            continue
    return n


cdef class Engine:
    """One epoll set with the sessions assigned to it, driven by a loop or by blocked callers.

    Args:
        kind: "loop" (a loop watches ``fd`` and calls ``pump``) or "caller" (threads blocked in ``drive``).

    Raises:
        ValueError: unknown kind. OSError: descriptors or the guardian thread could not be made.
    """

    cdef nc_engine* g
    cdef unsigned long loop_thread
    cdef object schedule
    cdef object flush_later
    cdef dict providers
    cdef readonly str kind
    cdef object __weakref__

    def __cinit__(self, str kind):
        cdef int rc
        if kind not in ("loop", "caller"):
            raise ValueError(f"engine kind {kind!r} is not one of 'loop', 'caller'")
        self.kind = kind
        self.g = <nc_engine*>calloc(1, sizeof(nc_engine))
        if self.g is NULL:
            raise MemoryError("netchan engine")
        self.g.ask_pins = ask_pins
        rc = engine_open(self.g, ENGINE_LOOP if kind == "loop" else ENGINE_CALLER, processors() >= 2)
        if rc < 0:
            raise OSError(f"netchan engine could not start (code {rc}): descriptors or threads are used up")
        self.providers = {}
        self.flush_later = self.flush
        _engines.add(self)

    def __dealloc__(self):
        cdef nc_engine* g = self.g
        if g is not NULL and g.fork_count == fork_count() and g.guarded:
            with nogil:
                engine_close(g)
        # The struct stays: a slot that was let go late still names it. Its descriptors and thread are gone.

    @property
    def fd(self):
        """Descriptor that is readable when ``pump`` has something to do."""
        return self.g.poller

    @property
    def ciphers(self):
        """Record ciphers that the crypto library offers, best first: 1 AES-256-GCM, 2 ChaCha20-Poly1305."""
        p = provider_module.load()
        known = {"aes-256-gcm": NC_CIPHER_AES256GCM, "chacha20-poly1305": NC_CIPHER_CHACHA20POLY1305}
        return tuple(known[name] for name in p.ciphers)

    def set_loop(self, thread_id, schedule):
        """LOOP: the thread of the running loop and its ``call_soon``; ``(None, None)``: none drives this engine now."""
        self.loop_thread = 0 if thread_id is None else thread_id
        self.schedule = schedule
        self.g.kind = ENGINE_CALLER if thread_id is None else ENGINE_LOOP

    def pump(self):
        """One turn: everything that is ready, then the notifications."""
        cdef nc_engine* g = self.g
        if g.fork_count != fork_count():
            return
        store_rel_u32(&g.returning, 1)
        with nogil:
            engine_pump(g)
        engine_returned(g)
        self.tell()

    def give_way(self, double limit):
        """Wait without the GIL while a thread that serves these channels wants it or has just had it.

        Args:
            limit: seconds after which this returns in any case.

        Returns:
            Seconds waited.
        """
        cdef nc_engine* g = self.g
        cdef int64_t waited = 0
        if g.fork_count == fork_count() and engine_wanted(g):
            with nogil:
                waited = engine_yield(g, <int64_t>(limit * 1e9))
        return waited * 1e-9

    def flush(self):
        """Send what was appended, if nobody else is at it."""
        cdef nc_engine* g = self.g
        if g.fork_count != fork_count():
            return
        store_rel_u32(&g.returning, 1)
        with nogil:
            engine_try_flush(g)
        engine_returned(g)
        if load_acq_u32(&g.app_any):
            self.tell()

    def notify(self):
        """From any thread: the driver runs its notifications soon."""
        engine_poke(self.g)
        engine_told(self.g)

    def check_blocking(self):
        """Raises RuntimeError on the thread whose running loop drives this engine."""
        check_fork(self.g)
        if self.loop_thread and self.loop_thread == PyThread_get_thread_ident():
            raise RuntimeError(
                "a blocking call on the thread of the event loop that drives this channel would wait for itself; "
                "await the async method instead, or call from another thread"
            )

    def drive(self, waiter, deadline):
        """Move the sessions until ``waiter.woken`` or ``deadline`` (seconds of time.monotonic, None: no end)."""
        cdef nc_engine* g = self.g
        cdef int64_t until = INT64_MAX
        cdef uint32_t wakes
        cdef int rc
        if deadline is not None:
            until = <int64_t>(<double>deadline * 1e9)
        while True:
            wakes = load_seq_u32(&g.wakes)      # before the look: a wake-up behind it ends the wait
            if waiter.woken:
                return
            check_fork(g)
            with nogil:
                rc = engine_wait(g, until, wakes)
            if load_acq_u32(&g.app_any):
                self.tell()
            if rc == defs.NC_EAGAIN:
                PyErr_CheckSignals()
            elif rc == 0 and until != INT64_MAX and sys.now_ns() >= until:
                return

    def poke(self, waiter):
        """``waiter.woken`` was set by another thread: let its ``drive`` look."""
        cdef nc_engine* g = self.g
        fetch_add_u32(&g.wakes, 1)
        if load_seq_u32(&g.role):
            engine_poke(g)
        engine_told(g)

    cdef tell(self):
        """Hands what happened to the objects concerned. GIL, no lock."""
        cdef nc_engine* g = self.g
        cdef nc_end* e
        cdef nc_slot* t
        cdef nc_seg* pins = NULL
        cdef uint32_t bits
        cdef int over
        cdef StreamEnd end
        cdef Session session
        store_seq_u32(&g.app_any, 0)
        while True:
            leaf_lock(&g.app_lock)
            e = g.app_ends
            if e is not NULL:
                g.app_ends = e.app_next
                bits = e.app_bits
                e.app_bits = 0
                e.in_app = 0
            leaf_unlock(&g.app_lock)
            if e is NULL:
                break
            if e.user is not NULL:
                end = <StreamEnd>e.user
                end.on_ready(bits)
                end = None
            end_release(e, &pins)
        while True:
            leaf_lock(&g.app_lock)
            t = g.app_slots
            over = 0
            if t is not NULL:
                g.app_slots = t.app_next
                t.in_app = 0
                over = t.app_over
                t.app_over = 0
            leaf_unlock(&g.app_lock)
            if t is NULL:
                break
            if t.session.user is not NULL:
                session = <Session>t.session.user
                session.on_listed(over)
                session = None
        drop_pins(pins)
        if g.pins is not NULL:
            self.release_pins()
        engine_told(g)

    cdef release_pins(self):
        cdef nc_engine* g = self.g
        cdef nc_seg* pins
        leaf_lock(&g.app_lock)
        pins = g.pins
        g.pins = NULL
        g.n_pins_bytes = 0
        leaf_unlock(&g.app_lock)
        drop_pins(pins)

    cdef int prepare_cipher(self, int cipher) except -1:
        """The key store and the cipher contexts of one cipher: made once, on a Python thread."""
        cdef nc_engine* g = self.g
        cdef Provider p
        cdef const nc_crypto* table
        cdef uint64_t seed
        if cipher < 1 or cipher >= CIPHERS:
            raise ValueError(f"unknown cipher {cipher}")
        if g.caches[cipher] is not NULL:
            return 0
        p = provider_module.load()
        table = provider_table(p, cipher)
        if table is NULL:
            raise ConfigError(
                f"the crypto library {p.version} has no cipher {cipher}; the handshake must not choose it"
            )
        self.providers[cipher] = p
        seed = int.from_bytes(os.urandom(8), "little") | 1
        with nogil:
            baton_take(g)
            if g.caches[cipher] is NULL:
                g.stores[cipher] = ks_new(table, 8192, SESSION_BLOCKS, seed, 0)
                g.caches[cipher] = cache_new(table, CACHE_CONTEXTS, seed ^ <uint64_t>0x9E3779B97F4A7C15)
            baton_give(g)
        if g.caches[cipher] is NULL or g.stores[cipher] is NULL:
            raise MemoryError("netchan: key store")
        return 0

    def attach(self, int fd, *, int carrier, initiator, root, bytes binding, int cipher, mine, peer, bytes early,
               int max_channels, int64_t session_bytes, double heartbeat, double dead=10.0):
        """Make a session of a connected, non-blocking socket whose handshake has ended.

        Args:
            fd: the descriptor; owned by the engine from now on, also when this raises.
            carrier: 1 TCP, 2 Unix.
            initiator: True on the side that dialled.
            root: 32 bytes (handshake.md §4); borrowed, the caller wipes it.
            binding: 32 bytes, the handshake hash.
            cipher: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
            mine, peer: transport parameters by name.
            early: bytes of the stream behind the handshake.
            max_channels, session_bytes (bytes), heartbeat and dead (s): our own limits.

        Raises:
            ConfigError, MemoryError, ForkError, OSError.
        """
        cdef nc_engine* g = self.g
        cdef nc_slot* t = NULL
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
        cdef Session session
        try:
            check_fork(g)
            if len(binding) != 32:
                raise ValueError("binding must be 32 bytes")
            self.prepare_cipher(cipher)
            fill_params(&m, mine)
            fill_params(&q, peer)
            m.max_channels = max_channels
            m.session_bytes = session_bytes
            m.heartbeat_ns = <int64_t>(heartbeat * 1e9)
            m.dead_ns = <int64_t>(dead * 1e9)
            t = <nc_slot*>calloc(1, sizeof(nc_slot))
            if t is NULL:
                raise MemoryError("netchan session")
            session = Session.__new__(Session)
        except BaseException:
            sys.close(fd)
            raise
        PyObject_GetBuffer(root, &view, PyBUF_SIMPLE)
        if view.len != 32:
            PyBuffer_Release(&view)
            sys.close(fd)
            free(t)
            raise ValueError("root must be 32 bytes")
        memcpy(secret, view.buf, 32)
        PyBuffer_Release(&view)
        t.fd = fd
        session.t = t
        session.engine = self
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
                t.session.sealer.path = keys_path_add(t.session.sealer.keys, 0, 1)
                rc = session_init(&t.session, role, &m, &q, bind_p, seed, sys.now_ns())
            if rc == defs.NC_OK:
                rc = engine_add(g, t)
            if rc == defs.NC_OK and rest_n:
                session_recv(&t.session, rest_p, rest_n, sys.now_ns())
                engine_collect(g, t)
            baton_give(g)
        wipe(secret, 32)
        if rc < 0:
            t.session.user = NULL
            session.t = NULL
            sys.close(fd)
            with nogil:
                baton_take(g)
                slot_free(t)
                baton_give(g)
            raise MemoryError(f"netchan: session could not be made (code {rc})")
        self.notify()
        return session

    def stats(self):
        """Counters of the engine, as a dict."""
        cdef nc_engine* g = self.g
        return {
            "sessions": g.n_slots,
            "pumps": g.pumps,
            "guardian_pumps": g.guardian_pumps,
            "guardian_flushes": g.guardian_flushes,
        }

    def close(self):
        """Stop the guardian and close every descriptor. For the end of the process."""
        cdef nc_engine* g = self.g
        if g.fork_count != fork_count():
            return
        with nogil:
            engine_close(g)

    def leave_all(self, int code):
        """Say SESSION_CLOSE(code) on every session, without waiting."""
        cdef nc_engine* g = self.g
        cdef nc_slot* t
        if g.fork_count != fork_count():
            return
        with nogil:
            baton_take(g)
            t = g.slots
            while t is not NULL:
                session_close(&t.session, <uint16_t>code, NULL, 0)
                if xchg_u32(&t.session.dirty_any, 1) == 0:
                    engine_dirty(g, t)
                t = t.all_next
            baton_give(g)


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
    p.session_bytes = 0
    p.heartbeat_ns = 0
    p.dead_ns = 0
    return 0


cdef class Session:
    """One session of an engine; what the layer above needs of it. Made by ``Engine.attach``.

    Attributes:
        on_offers: called without arguments when ``take_offers`` has something.
        on_over: called once, without arguments, when the session is over.
        on_ratchet: called without arguments when ``take_ratchet`` has something.
    """

    cdef nc_slot* t
    cdef readonly Engine engine
    cdef public object on_offers
    cdef public object on_over
    cdef public object on_ratchet
    cdef bint told
    cdef object __weakref__

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
        engine_poke(g)

    cdef on_listed(self, int over):
        if self.t.offers is not NULL and self.on_offers is not None:
            self.on_offers()
        if self.t.ratchet_new and self.on_ratchet is not None:
            self.on_ratchet()
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

    def open(self, bytes name, uint64_t codec, bytes schema, capacity):
        """Open a channel by name; never waits. ``StreamEnd`` must be set up (``configure``) before it is used."""
        return StreamEnd(self, name, codec, schema, capacity)

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
            "bytes_sent": s.stats.bytes_sent,
            "bytes_received": s.stats.bytes_received,
            "dropped_bytes": s.stats.dropped_bytes,
            "pings": s.stats.pings,
            "acks": s.stats.acks,
            "rtt_us": s.path.srtt // 1000,
            "epoch": s.sealer.keys.owner.send_epoch,
            "rekeys": s.sealer.keys.updates,
            "ratchets": s.ratchets,
            "sealed": s.sealer.keys.sealed,
            "nonce_checked": s.sealer.keys.mono is not NULL,
            "nonce_repeats": s.sealer.keys.mono_violations,
            "channels": s.outs.len,
            "offered": s.n_offers,
        }


@cython.final
cdef class Items:
    """The items of a list or tuple in order, like its own iterator; ``try_send_many`` takes several in one step."""

    cdef object source
    cdef Py_ssize_t at

    def __init__(self, source):
        if type(source) is not list and type(source) is not tuple:
            raise TypeError("Items are of a list or a tuple")
        self.source = source

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= len(self.source):
            raise StopIteration
        self.at += 1
        return self.source[self.at - 1]


cdef class StreamEnd:
    """One end of a channel over a session: the compiled half of an Endpoint.

    Attributes:
        tx_waiters, rx_waiters, ack_waiters: wait queues (``wake(n)``, ``wake_all()``), given by ``configure``.
        decode: called with the bytes of a value, or None for bytes channels.
        encode: called with a value, gives what ``try_send`` takes; raises if it does not fit.
        plain_max: ``bytes`` objects up to this length need no ``encode``; -1: all need it.
    """

    cdef nc_end* e
    cdef nc_engine* g                   # for the finaliser, which may find the objects gone
    cdef Engine engine
    cdef readonly Session session
    cdef public object tx_waiters
    cdef public object rx_waiters
    cdef public object ack_waiters
    cdef public object decode
    cdef public object encode
    cdef public Py_ssize_t plain_max
    cdef list marks
    cdef object failure
    cdef object __weakref__

    def __init__(self, Session session, bytes name, uint64_t codec, bytes schema, capacity):
        cdef nc_slot* t = session.t
        cdef uint64_t figure = 0 if capacity is None else <uint64_t>capacity + 1
        check_fork(t.engine)
        self.plain_max = -1
        if len(schema) != 16:
            raise ValueError("schema hash must be 16 bytes")
        self.session = session
        self.engine = session.engine
        self.g = t.engine
        self.marks = []
        self.e = end_open(
            &t.session, <const uint8_t*><char*>name, len(name), codec, <const uint8_t*><char*>schema, figure
        )
        if self.e is NULL:
            raise ConfigError(
                f"channel name {name!r} is not 1-255 bytes of UTF-8 without control characters, or memory is used up"
            )
        self.e.user = <void*>self
        self.mark(0)

    def __dealloc__(self):
        cdef nc_seg* pins = NULL
        if self.e is NULL:
            return
        if self.g.fork_count != fork_count():
            return
        self.e.user = NULL
        end_release(self.e, &pins)
        drop_pins(pins)

    # --- the engine's side -----------------------------------------------------------------------------------------

    cdef on_ready(self, uint32_t bits):
        fetch_and_u32(&self.e.waiting, ~bits)
        if bits & EV_STATE:
            self.discard_aborted()
        # First come first served: only the head is woken, and who leaves the queue wakes the next one.
        if bits & EV_RECV and self.rx_waiters is not None:
            self.rx_waiters.wake_all() if self.recv_state() else self.rx_waiters.nudge()
        if bits & EV_SEND and self.tx_waiters is not None:
            self.tx_waiters.wake_all() if self.send_over else self.tx_waiters.nudge()
        if bits & EV_ACK and self.ack_waiters is not None:
            self.ack_waiters.wake_all()

    cdef int discard_aborted(self) except -1:
        """What nobody may take any more is counted, and its memory goes."""
        if load_acq_u32(&self.e.paired) and load_acq_u32(&self.e.in_.over) == OVER_ABORT:
            in_discard(self.e.in_)
        return 0

    cdef inline int mark(self, uint64_t n) except -1:
        """What was changed is to be sent: n bytes, by the flush rule."""
        cdef nc_end* e = self.e
        cdef nc_slot* t = self.session.t
        cdef nc_engine* g = t.engine
        cdef int rc
        cdef unsigned long loop = self.engine.loop_thread
        if load_seq_u32(&e.dirty) == 0 or load_seq_u32(&t.session.dirty_any) == 0:
            if end_mark(e):
                engine_dirty(g, t)
        rc = engine_appended(g, n + 8, loop != 0 and loop == PyThread_get_thread_ident())
        if rc == 1:
            store_rel_u32(&g.returning, 1)
            with nogil:
                engine_try_flush(g)
            engine_returned(g)
            if load_acq_u32(&g.app_any):
                engine_poke(g)
        elif rc == 2:
            self.engine.schedule(self.engine.flush_later)
        if g.n_pins_bytes > PINS_SOFT:
            self.engine.release_pins()
        return 0

    cdef inline int request(self, uint32_t bits) except -1:
        fetch_or_u32(&self.e.requests, bits)
        return self.mark(FLUSH_NOW)

    # --- sending ---------------------------------------------------------------------------------------------------

    cdef int64_t append(self, value, int flags) except -2:
        """Position of the accepted value, 0 without room, -1: the direction is over."""
        cdef nc_end* e = self.e
        cdef Py_buffer view
        cdef const uint8_t* p
        cdef size_t n
        cdef void* pin = NULL
        cdef int rc
        cdef uint64_t position
        if PyBytes_CheckExact(value):
            p = <const uint8_t*>PyBytes_AS_STRING(value)
            n = <size_t>PyBytes_GET_SIZE(value)
            if n >= PIN_MIN:
                pin = <void*>value
                Py_INCREF(value)
            if flags:
                out_unreserve(&e.out)
            rc = out_append(&e.out, p, n, 0, pin)
            if rc < 0 and pin is not NULL:
                Py_DECREF(value)
        else:
            PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
            n = <size_t>view.len
            if flags:
                out_unreserve(&e.out)
            rc = out_append(&e.out, <const uint8_t*>view.buf, n, 0, NULL)
            PyBuffer_Release(&view)
        if rc == defs.NC_OK:
            position = e.out.accepted
            self.mark(n)
            return <int64_t>position
        if rc == defs.NC_EAGAIN:
            return 0
        if rc == defs.NC_ECLOSED:
            return -1
        raise MemoryError("netchan: no memory for the value")

    cdef int append_run(self, Items items, Py_ssize_t limit) except -1:
        """How many of the next items were accepted in one step; 0: let them be tried one by one, which says why."""
        cdef const uint8_t* p[RUN_MAX]
        cdef size_t[RUN_MAX] n
        cdef uint64_t total = 0
        cdef size_t together = 0
        cdef int count = 0
        cdef int rc
        cdef object value
        cdef Py_ssize_t have = len(items.source)
        # From here to the append no Python code runs: the sequence holds the values, and the GIL holds the sequence.
        while count < RUN_MAX and count < limit and items.at + count < have:
            if type(items.source) is list:
                value = (<list>items.source)[items.at + count]
            else:
                value = (<tuple>items.source)[items.at + count]
            if not PyBytes_CheckExact(value) or PyBytes_GET_SIZE(value) > self.plain_max:
                break
            together += <size_t>PyBytes_GET_SIZE(value) + 8
            if together > COPY_MAX:
                break
            p[count] = <const uint8_t*>PyBytes_AS_STRING(value)
            n[count] = <size_t>PyBytes_GET_SIZE(value)
            count += 1
        if count < 2:
            return 0
        rc = out_append_run(&self.e.out, p, n, count, &total)
        if rc <= 0:
            return 0
        items.at += rc
        self.mark(total)
        return rc

    def prepare_value(self, value):
        """What ``try_send`` takes for this value."""
        if PyBytes_CheckExact(value) and PyBytes_GET_SIZE(value) <= self.plain_max:
            return value
        return self.encode(value)

    def try_send(self, prepared):
        """Position of the accepted value, from 1; 0: no room now. Raises what ended the direction."""
        cdef int64_t position
        if self.g.fork_count != fork_count():
            check_fork(self.g)
        position = self.append(prepared, 0)
        if position > 0:
            return position
        if position == 0:
            # Said before the second look, so that room that comes now is told.
            fetch_or_u32(&self.e.waiting, EV_SEND)
            position = self.append(prepared, 0)
            if position >= 0:
                return position
        raise self.send_error()

    def iterate(self, values):
        """``iter(values)``, or what ``try_send_many`` is faster with."""
        return Items(values) if type(values) is list or type(values) is tuple else iter(values)

    def try_send_many(self, values, Py_ssize_t limit):
        """(accepted now, iterator exhausted?); an item is taken from the iterator only when there is room for it."""
        cdef nc_end* e = self.e
        cdef Py_ssize_t done = 0
        cdef int rc
        cdef object encode = self.encode
        cdef object value
        check_fork(self.g)
        while done < limit:
            if type(values) is Items and self.plain_max >= 0:
                rc = self.append_run(<Items>values, limit - done)
                if rc > 0:
                    done += rc
                    continue
            rc = out_reserve(&e.out)
            if rc == defs.NC_EAGAIN:
                fetch_or_u32(&e.waiting, EV_SEND)
                rc = out_reserve(&e.out)
                if rc == defs.NC_EAGAIN:
                    return done, False
            if rc == defs.NC_ECLOSED:
                if done:
                    return done, False
                raise self.send_error()
            try:
                value = next(values)
                if not PyBytes_CheckExact(value) or PyBytes_GET_SIZE(value) > self.plain_max:
                    value = encode(value)
            except StopIteration:
                out_unreserve(&e.out)
                return done, True
            except BaseException:
                out_unreserve(&e.out)
                raise
            if self.append(value, 1) <= 0:
                if done:
                    return done, False
                raise self.send_error()
            done += 1
        return done, False

    def can_send(self):
        """True when ``try_send`` would accept or raise now."""
        if out_has_room(&self.e.out):
            return True
        fetch_or_u32(&self.e.waiting, EV_SEND)
        return bool(out_has_room(&self.e.out))

    @property
    def send_over(self):
        """True when ``try_send`` would raise."""
        return self.e.out.over != 0 or self.e.out.closing != 0

    def sent(self):
        """Values accepted so far."""
        return self.e.out.accepted

    def reached(self, str level, uint64_t position):
        """True when the first ``position`` values were received, or taken, over there."""
        cdef nc_end* e = self.e
        cdef uint64_t received
        if self.g.fork_count != fork_count():
            check_fork(self.g)
        if position == 0 or load_seq_u64(&e.out.taken) >= position:
            return True
        if level == "received":
            received = load_seq_u64(&e.out.received)
            self.note_mark()
            while self.marks and received >= self.marks[0][1]:
                if self.marks[0][0] >= position:
                    return True
                if len(self.marks) > 1 and self.marks[1][1] <= received:
                    self.marks.pop(0)
                else:
                    break
        fetch_or_u32(&e.waiting, EV_ACK)
        if load_seq_u64(&e.out.taken) >= position:
            return True
        if level == "received" and self.received_now(position):
            return True
        if e.out.over > OVER_FIN:
            raise self.send_error()
        return False

    cdef bint received_now(self, uint64_t position):
        cdef uint64_t received = load_seq_u64(&self.e.out.received)
        for count, offset in self.marks:
            if count >= position:
                return received >= offset
        return False

    cdef note_mark(self):
        """Remembers which offset stands behind the values accepted so far."""
        cdef uint64_t count, offset
        leaf_lock(&self.e.out.lock)
        count = self.e.out.accepted
        offset = self.e.out.appended
        leaf_unlock(&self.e.out.lock)
        if not self.marks or self.marks[len(self.marks) - 1][0] != count:
            if len(self.marks) >= 64:
                self.marks.pop()
            self.marks.append((count, offset))

    def ask(self, str level):
        """Ask the other side to report this level for what was accepted so far as soon as it is reached."""
        cdef nc_end* e = self.e
        self.note_mark()
        if e.out.appended > e.ask_received:
            e.ask_received = e.out.appended
        if level == "taken" and e.out.accepted > e.ask_taken:
            e.ask_taken = e.out.accepted
        self.request(REQ_ASK)

    def close_send(self):
        """End the sending direction behind its values. Idempotent."""
        check_fork(self.g)
        if out_close(&self.e.out) == defs.NC_OK:
            self.mark(FLUSH_NOW)
            self.wake(self.tx_waiters)

    def end_after(self, uint64_t code):
        """End the sending direction behind its values, but not cleanly: the other side gets ChannelAborted(code)."""
        if self.e.out.over or self.e.out.closing:
            return
        self.e.end_code = code
        out_end(&self.e.out, OVER_ABORT_AFTER)
        self.request(REQ_END_AFTER)
        self.wake(self.tx_waiters)

    # --- receiving ---------------------------------------------------------------------------------------------------

    cdef int head(self, nc_msg* m) noexcept:
        """NC_OK: *m is the message at the head; NC_EAGAIN, NC_ECLOSED as in_peek."""
        cdef nc_end* e = self.e
        if load_acq_u32(&e.paired) == 0:
            if load_acq_u32(&e.over) == OVER_NOT:
                return defs.NC_EAGAIN
            return defs.NC_ECLOSED if load_acq_u32(&e.paired) == 0 else in_peek(e.in_, m)
        return in_peek(e.in_, m)

    cdef bytes take(self, nc_msg* m, int* due):
        """The bytes of the head message m, taken; None if somebody else took it while memory was made."""
        cdef nc_in* i = self.e.in_
        cdef bytes data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>m.len)
        if i.taken != m.number or load_acq_u32(&i.over) in (OVER_ABORT, OVER_STOPPED):
            return None
        in_copy(i, m, <uint8_t*>PyBytes_AS_STRING(data))
        due[0] |= in_advance(i, m)
        return data

    cdef int took(self, int due) except -1:
        """Positions moved: tell the sender when that is due."""
        if due:
            fetch_or_u32(&self.e.requests, REQ_POS)
            self.mark(1024)
        return 0

    def try_recv(self):
        """The value at the head, taken, or ``EMPTY``. Raises what ended the direction when nothing is left."""
        cdef nc_msg m
        cdef int rc
        cdef int due = 0
        cdef bytes data
        if self.g.fork_count != fork_count():
            check_fork(self.g)
        if self.failure is not None:
            self.raise_failure()
        while True:
            rc = self.head(&m)
            if rc == defs.NC_EAGAIN:
                if self.e.waiting & EV_RECV:
                    return EMPTY_
                fetch_or_u32(&self.e.waiting, EV_RECV)
                continue                        # once more, so that what comes now is told
            if rc != defs.NC_OK:
                raise self.recv_error()
            data = self.take(&m, &due)
            if data is None:
                continue
            self.took(due)
            if self.decode is None:
                return data
            return self.decode(data)

    def try_recv_many(self, Py_ssize_t limit):
        """Up to ``limit`` values; [] = none now."""
        cdef nc_msg m
        cdef list out = []
        cdef int rc
        cdef int due = 0
        cdef bytes data
        cdef object decode = self.decode
        check_fork(self.g)
        if self.failure is not None:
            self.raise_failure()
        while len(out) < limit:
            rc = self.head(&m)
            if rc == defs.NC_EAGAIN:
                if out or self.e.waiting & EV_RECV:
                    break
                fetch_or_u32(&self.e.waiting, EV_RECV)
                continue
            if rc != defs.NC_OK:
                if out:
                    break
                raise self.recv_error()
            data = self.take(&m, &due)
            if data is None:
                continue
            if decode is None:
                out.append(data)
            else:
                try:
                    out.append(decode(data))
                except Exception as bad:
                    if not out:
                        self.took(due)
                        raise
                    # What was taken before is given now, the error at the next call.
                    self.failure = bad
                    break
        self.took(due)
        return out

    def try_recv_into(self, buffer):
        """Bytes copied into the writable buffer, ``EMPTY``, or -n: the value needs n bytes and stays at the head."""
        cdef nc_msg m
        cdef Py_buffer view
        cdef int rc
        check_fork(self.g)
        while True:
            rc = self.head(&m)
            if rc == defs.NC_EAGAIN:
                if self.e.waiting & EV_RECV:
                    return EMPTY_
                fetch_or_u32(&self.e.waiting, EV_RECV)
                continue
            if rc != defs.NC_OK:
                raise self.recv_error()
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
            if <uint64_t>view.len < m.len:
                PyBuffer_Release(&view)
                return -<int64_t>m.len
            if self.e.in_.taken != m.number:
                PyBuffer_Release(&view)
                continue
            in_copy(self.e.in_, &m, <uint8_t*>view.buf)
            rc = in_advance(self.e.in_, &m)
            PyBuffer_Release(&view)
            self.took(rc)
            return m.len

    cdef raise_failure(self):
        failure = self.failure
        self.failure = None
        raise failure

    def can_recv(self):
        """True when ``try_recv`` would give a value or raise now."""
        cdef nc_msg m
        if self.head(&m) != defs.NC_EAGAIN:
            return True
        fetch_or_u32(&self.e.waiting, EV_RECV)
        return self.head(&m) != defs.NC_EAGAIN

    cdef bint recv_state(self):
        """True when the direction is over, values left or not."""
        if load_acq_u32(&self.e.paired):
            return load_acq_u32(&self.e.in_.over) != OVER_NOT
        return load_acq_u32(&self.e.over) != OVER_NOT

    @property
    def recv_over(self):
        """True when ``try_recv`` would raise."""
        cdef nc_msg m
        return self.head(&m) == defs.NC_ECLOSED

    cpdef uint64_t pending(self):
        """Values here, not yet taken."""
        return in_pending(self.e.in_) if load_acq_u32(&self.e.paired) else 0

    def has(self, uint64_t n):
        """True when n values are here, not yet taken; if not, ``rx_waiters`` are woken when more have come."""
        if self.pending() >= n:
            return True
        fetch_or_u32(&self.e.waiting, EV_RECV)
        if load_acq_u32(&self.e.paired) and self.e.in_.wanted < n:
            store_rel_u32(&self.e.in_.wanted, <uint32_t>n)
            self.request(REQ_POS)
        return self.pending() >= n

    def unwant(self, uint32_t n):
        """Nobody waits for n values any more; others that wait say so again."""
        if load_acq_u32(&self.e.paired):
            store_rel_u32(&self.e.in_.wanted, 0)
            self.wake(self.rx_waiters)

    def stop_recv(self):
        """Take no more: what is here is discarded and counted. Idempotent."""
        cdef nc_end* e = self.e
        check_fork(self.g)
        if load_acq_u32(&e.paired):
            in_over(e.in_, OVER_STOPPED, 0, NULL, 0)
            in_discard(e.in_)
        else:
            store_rel_u32(&e.over, OVER_STOPPED)
        self.request(REQ_STOP)
        self.wake(self.rx_waiters)

    def abort_both(self, uint64_t code, bytes reason):
        """End both directions at once; queued values are discarded. The first call counts."""
        cdef nc_end* e = self.e
        check_fork(self.g)
        if e.over_by_us or e.over_code or e.out.over == OVER_ABORT:
            return
        e.over_by_us = 1
        e.over_code = code
        e.abort_code = code
        e.reason_len = <uint16_t>min(len(reason), <int>defs.REASON_MAX)
        memcpy(e.reason, <const uint8_t*><char*>reason, e.reason_len)
        out_end(&e.out, OVER_ABORT)
        if load_acq_u32(&e.paired):
            in_over(e.in_, OVER_ABORT, code, e.reason, e.reason_len)
            in_discard(e.in_)
        else:
            store_rel_u32(&e.over, OVER_ABORT)
        self.request(REQ_ABORT)
        self.wake(self.tx_waiters)
        self.wake(self.rx_waiters)
        self.wake(self.ack_waiters)

    cdef wake(self, queue):
        if queue is not None:
            queue.wake_all()

    # --- for the layer above ------------------------------------------------------------------------------------------

    def send_error(self):
        """The exception that a send raises now; overridden by the layer above."""
        return RuntimeError("direction is over")

    def recv_error(self):
        """The exception that a receive raises now; overridden by the layer above."""
        return RuntimeError("direction is over")

    @property
    def state(self):
        """(why sends are over, why receives are over, code, by us?, reason): the numbers of ``Over``."""
        cdef nc_end* e = self.e
        cdef uint32_t rx = load_acq_u32(&e.in_.over) if load_acq_u32(&e.paired) else load_acq_u32(&e.over)
        cdef uint64_t code = e.over_code
        cdef bytes reason = b""
        if load_acq_u32(&e.paired):
            reason = PyBytes_FromStringAndSize(<char*>e.in_.reason, e.in_.reason_len)
            if code == 0:
                code = e.in_.abort_code
        if not reason and e.reason_len:
            reason = PyBytes_FromStringAndSize(<char*>e.reason, e.reason_len)
        return e.out.over, rx, bool(e.out.closing), code, bool(e.over_by_us), reason

    @property
    def paired(self):
        """True once both sides have opened the channel."""
        return load_acq_u32(&self.e.paired) != 0

    @property
    def capacity(self):
        """Settled capacity, our own figure before, None while nobody has said."""
        if load_acq_u32(&self.e.paired):
            return self.e.capacity
        return self.e.capacity_wanted - 1 if self.e.capacity_wanted else None

    @property
    def peer_codec(self):
        """(codec id, schema hash) of the other side, None before it has opened."""
        if not load_acq_u32(&self.e.paired):
            return None
        return self.e.peer_codec, PyBytes_FromStringAndSize(<char*>self.e.peer_schema, 16)

    def counts(self):
        """sent, received, taken, discarded, pending, credit_stalls."""
        cdef nc_end* e = self.e
        if not load_acq_u32(&e.paired):
            return e.out.accepted, 0, 0, 0, 0, e.out.credit_stalls
        self.discard_aborted()                  # the engine may not have had a chance to tell of it
        return (e.out.accepted, load_acq_u64(&e.in_.msgs), e.in_.taken - e.in_.discarded, e.in_.discarded,
                self.pending(), e.out.credit_stalls)

    def positions(self):
        """Where both directions stand, for diagnosis: offsets in bytes, counts of messages (session.md §4)."""
        cdef nc_end* e = self.e
        cdef dict d = {
            "appended": e.out.appended, "sent": e.out.sent, "acked": e.out.acked, "max_msgs": e.out.max_msgs,
            "max_bytes": e.out.max_bytes, "their_taken": load_seq_u64(&e.out.taken),
        }
        if load_acq_u32(&e.paired):
            d |= {
                "received": e.in_.received, "take_off": e.in_.take_off, "window": e.in_.window,
                "granted_msgs": e.in_.granted_msgs, "granted_bytes": e.in_.granted_bytes,
            }
        return d

    def unsettled(self):
        """After the session is over: what this side sent and does not know to be taken.

        Returns:
            list of (number from 0, bytes or None if no longer held, sealed at least once?), ascending.
        """
        cdef nc_end* e = self.e
        cdef nc_seg* s
        cdef uint64_t first, number, at, body, sent
        cdef int ext, used
        cdef list out = []
        cdef bytearray held = bytearray()
        cdef uint64_t begin = 0
        cdef const uint8_t* p
        cdef size_t left
        first = load_seq_u64(&e.out.taken)
        sent = e.out.sent
        number = e.out.accepted
        s = e.out.head
        while s is not NULL and s.first_off == ~<uint64_t>0:
            s = s.next
        if s is not NULL:
            number = s.first_num
            begin = s.first_off
            held += (<const char*>s.data + (s.first_off - s.start))[:s.len - (s.first_off - s.start)]
            s = s.next
            while s is not NULL:
                held += (<const char*>s.data)[:s.len]
                s = s.next
        for at in range(first, number):
            out.append((at, None, True))
        at = 0
        while at < <uint64_t>len(held):
            p = <const uint8_t*><char*>held + at
            left = len(held) - <size_t>at
            used = message_head(p, left, &body, &ext)
            if used < 0 or ext or at + used + body > <uint64_t>len(held):
                break
            if number >= first:
                out.append((number, bytes(held[at + used:at + used + body]), begin + at < sent))
            number += 1
            at += <uint64_t>used + body
        return out


def _at_exit():
    """A process that exits without closing aborts its sessions, without waiting (api R46)."""
    for engine in list(_engines):
        engine.leave_all(defs.CLOSE_PROCESS_EXIT)
        engine.close()


atexit.register(_at_exit)
