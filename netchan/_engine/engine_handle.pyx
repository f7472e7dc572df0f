"""Engines as Python holds them, and how news of sessions and channels reaches their objects.

Layer: _engine; with session_handle and end_handle the only place where C state meets Python objects.
Threads: every method may be called from any thread that holds the GIL. The GIL is released only around a pump, a flush
or a sleep; no Python object is touched under a leaf lock or the baton. Objects are made after a lock is left, because
making one may run the collector and come back in here; what was looked at before is therefore looked at again.
Spec: docs/explanation/ownership.md.
"""

import atexit
import os
import weakref

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF
from libc.stdint cimport INT64_MAX, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from netchan._core cimport defs
from netchan._core.crypto cimport NC_CIPHER_AES256GCM, NC_CIPHER_CHACHA20POLY1305, nc_crypto
from netchan._core.ctxcache cimport CACHE_CONTEXTS, cache_new
from netchan._core.ends cimport end_release, session_close
from netchan._core.keystore cimport ks_new
from netchan._core.leaf cimport (
    fetch_add_u32, leaf_lock, leaf_unlock, load_acq_u32, load_rlx_u64, load_seq_u32, store_rel_u32, store_rlx_u64,
    store_seq_u32, xchg_u32,
)
from netchan._core.provider cimport Provider, provider_table
from netchan._core.segment cimport nc_seg
from netchan._core.state cimport nc_end
from netchan._core.timer cimport TIMER_NEVER
from netchan._engine.clock cimport engine_now
from netchan._engine.desk cimport desk_here, desk_take, desk_wait, desk_wake, nc_sleeper
from netchan._engine.engine cimport (
    baton_give, baton_take, engine_close, engine_deadline, engine_dirty, engine_open, engine_pump, engine_release,
    engine_returned, engine_told, engine_try_flush, engine_wait, engine_wanted, engine_yield, fork_count,
    fork_watch,
)
from netchan._engine.news cimport engine_poke
from netchan._engine.state cimport CIPHERS, ENGINE_CALLER, ENGINE_LOOP, ENGINE_THREADS, nc_engine, nc_slot

from netchan._core import provider as provider_module
from netchan.errors import ConfigError, ForkError

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int Py_AddPendingCall(int (*fn)(void*) noexcept, void* arg) noexcept nogil

cdef enum:
    SESSION_BLOCKS = 4096           # sessions whose secrets fit into one key store

_engines = weakref.WeakSet()
cdef list _threaded = []            # THREADS engines that are not closed, also those of a parent process

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
    store_rlx_u64(&g.n_pins_bytes, 0)
    leaf_unlock(&g.app_lock)
    drop_pins(pins)
    return 0


# From any thread, without the GIL: the main thread releases what is held, though the program is elsewhere.
cdef void ask_pins(nc_engine* g) noexcept nogil:
    if Py_AddPendingCall(on_pins, g) != 0:
        store_seq_u32(&g.pins_asked, 0)         # the list is full: the next one asks again


cdef int collect_threads() except -1:
    cdef Engine engine
    cdef Py_ssize_t i = 0
    cdef uint64_t forks = fork_count()
    desk_take(desk_here(forks))                 # first: see desk.pyx
    while i < len(_threaded):                   # telling runs Python code, which may make or close one
        engine = <Engine>_threaded[i]
        if engine.g.fork_count == forks and load_seq_u32(&engine.g.app_any):
            engine.tell()
        i += 1
    return 0


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


cdef class Listed:
    """What an engine tells of: a channel's end or a session."""

    cdef on_ready(self, uint32_t bits):
        raise NotImplementedError


cdef class Engine:
    """One epoll set with the sessions assigned to it, driven by a loop, by blocked callers or by a thread of its own.

    Args:
        kind: "loop" (a loop watches ``fd`` and calls ``pump``), "caller" (threads blocked in ``drive``) or "threads"
            (a C thread; it lives until ``close``, and so does the handle).
        now_ns: the time, for an engine that is pumped by whoever moves its clock ("loop" only); 0: the system's tells.

    Raises:
        ValueError: unknown kind, or one that has no use for a clock. OSError: descriptors or the guardian thread could
            not be made.
    """

    def __cinit__(self, str kind, int64_t now_ns=0):
        cdef int rc
        if kind not in ("loop", "caller", "threads"):
            raise ValueError(f"engine kind {kind!r} is not one of 'loop', 'caller', 'threads'")
        if now_ns and kind != "loop":
            raise ValueError(f"an engine of kind {kind!r} has threads, which follow no clock but the system's")
        self.kind = kind
        self.g = <nc_engine*>calloc(1, sizeof(nc_engine))
        if self.g is NULL:
            raise MemoryError("netchan engine")
        self.g.ask_pins = ask_pins
        self.g.clock_ns = now_ns
        number = ENGINE_CALLER
        if kind == "loop":
            number = ENGINE_LOOP
        elif kind == "threads":
            number = ENGINE_THREADS
            self.g.desk = desk_here(fork_count())
            if self.g.desk is NULL:
                raise MemoryError("netchan engine")
        rc = engine_open(self.g, number, processors() >= 2)
        if rc < 0:
            raise OSError(f"netchan engine could not start (code {rc}): descriptors or threads are used up")
        self.providers = {}
        _engines.add(self)
        if kind == "threads":
            _threaded.append(self)

    def __dealloc__(self):
        cdef nc_engine* g = self.g
        cdef nc_seg* pins = NULL
        if g is not NULL and g.fork_count == fork_count() and g.guarded:
            with nogil:
                engine_close(g)
            engine_release(g, &pins)
            drop_pins(pins)
        # The struct stays: a slot that was let go late still names it. Its descriptors, thread and memory are gone.

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
        # Made once for each loop; without one it is no cycle, so that the engine goes with whoever lets go of it last.
        self.flush_later = None if schedule is None else self.flush
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

    def set_now(self, int64_t now_ns):
        """Move its clock; for one that was made with a time."""
        if self.g.clock_ns and now_ns > self.g.clock_ns:
            self.g.clock_ns = now_ns

    def deadline(self):
        """When ``pump`` is due though nothing comes, in nanoseconds of its clock; None: never. For one with a clock."""
        cdef int64_t at = TIMER_NEVER
        if self.g.fork_count == fork_count():
            at = engine_deadline(self.g)
        return None if at == TIMER_NEVER else at

    def watch_aside(self, int fd):
        """This eventfd is written to when there is news that nobody inside this engine collects."""
        self.g.aside_fd = fd
        if self.g.desk is not NULL:
            store_seq_u32(&self.g.desk.aside_fd, <uint32_t>fd)

    def watch_paths(self, int fd):
        """This eventfd is written to when a session has lost its path."""
        self.g.path_fd = fd

    def collect(self):
        """Hand on what is known by now, without a pump; for whoever ``watch_aside`` told."""
        if self.g.fork_count != fork_count():
            return
        if self.g.desk is not NULL:
            collect_threads()
        elif load_acq_u32(&self.g.app_any):
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

    @property
    def has_loop(self):
        """True while a running loop, or a thread of its own, drives this engine: a blocked thread need not."""
        return self.loop_thread != 0 or self.g.desk is not NULL

    @property
    def rings(self):
        """True if loops hear of these sessions by their bells (THREADS)."""
        return self.g.desk is not NULL

    @property
    def sessions(self):
        """How many there are, about: those that have just ended are still counted."""
        return self.g.n_slots

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
        if g.desk is not NULL:
            self.drive_threads(waiter, deadline)
            return
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
            elif rc == 0 and until != INT64_MAX and engine_now(g) >= until:
                return

    cdef drive_threads(self, BlockingWaiter waiter, deadline):
        """The thread of the engine moves the sessions; a blocked one sleeps, and collects news when it is woken."""
        cdef nc_engine* g = self.g
        cdef nc_sleeper s
        cdef int64_t until = INT64_MAX
        cdef int rc
        if deadline is not None:
            until = <int64_t>(<double>deadline * 1e9)
        waiter.sleeper = &s
        try:
            while True:
                store_seq_u32(&s.word, 0)       # before the look: a wake-up behind it ends the wait
                if waiter.woken:
                    return
                check_fork(g)
                with nogil:
                    rc = desk_wait(g.desk, &s, until)
                if load_seq_u32(&g.desk.news):
                    collect_threads()
                if rc == defs.NC_EAGAIN:
                    PyErr_CheckSignals()
                elif rc == 0:
                    return
        finally:
            waiter.sleeper = NULL

    def poke(self, waiter):
        """``waiter.woken`` was set by another thread: let its ``drive`` look."""
        cdef nc_engine* g = self.g
        cdef BlockingWaiter sleeping
        if g.desk is not NULL:
            sleeping = waiter
            if sleeping.sleeper is not NULL:
                desk_wake(<nc_sleeper*>sleeping.sleeper)
            return
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
        cdef Listed end
        cdef Listed session
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
                end = <Listed>e.user
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
                session = <Listed>t.session.user
                session.on_ready(<uint32_t>over)
                session = None
        drop_pins(pins)
        if load_rlx_u64(&g.n_pins_bytes):
            self.release_pins()
        engine_told(g)

    cdef release_pins(self):
        cdef nc_engine* g = self.g
        cdef nc_seg* pins
        leaf_lock(&g.app_lock)
        pins = g.pins
        g.pins = NULL
        store_rlx_u64(&g.n_pins_bytes, 0)
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
        """Stop the engine's thread and close every descriptor. For the end of the process."""
        cdef nc_engine* g = self.g
        if g.fork_count != fork_count():
            return
        if self in _threaded:
            _threaded.remove(self)
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


def _at_exit():
    """A process that exits without closing aborts its sessions, without waiting (api R46)."""
    for engine in list(_engines):
        engine.leave_all(defs.CLOSE_PROCESS_EXIT)
        engine.close()


atexit.register(_at_exit)
