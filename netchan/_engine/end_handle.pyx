"""One end of a channel over a session: the compiled half of an Endpoint.

Layer: _engine; threads as in engine_handle.pyx. A StreamEnd keeps the promises of channel.base.Endpoint; codecs, wait
queues and errors are given to it by the layer above (channel/remote.py).
Spec: docs/spec/value.md, docs/spec/session.md §4, §6.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.ends cimport end_mark, end_open, end_release
from netchan._core.handover_ends cimport end_hold
from netchan._core.frame cimport message_head
from netchan._core.inbox cimport in_over, nc_in
from netchan._core.take cimport (
    in_advance, in_claim, in_copy, in_discard, in_expire, in_peek, in_pending, in_run, in_run_end, nc_msg, nc_run,
    run_next, run_pass,
)
from netchan._core.leaf cimport (
    fetch_and_u32, fetch_or_u32, leaf_lock, leaf_unlock, load_acq_u32, load_rlx_u64, load_seq_u32, load_seq_u64,
    store_rel_u32, xchg_u32,
)
from netchan._core.lossy cimport lossy_append
from netchan._core.auto cimport auto_figures
from netchan._core.modes cimport stream_mode
from netchan._core.outbox cimport (
    APPEND_OFFER, APPEND_RESERVED, out_append, out_append_run, out_close, out_end, out_has_room, out_offer_let_go,
    out_offer_room, out_offer_state, out_offer_want, out_reserve, out_unreserve,
)
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_FIN, OVER_LOST, OVER_NOT, OVER_STOPPED
from netchan._core.rendezvous cimport OFFER_OUT
from netchan._core.segment cimport nc_seg, COPY_MAX
from netchan._core.state cimport (
    EV_ACK, EV_RECV, EV_SEND, EV_STATE, MODE_AUTO, REQ_ABORT, REQ_ASK, REQ_END_AFTER, REQ_POS, REQ_STOP, REQ_WANT,
    REQ_WITHDRAW, mode_of, nc_auto, nc_end, nc_figures,
)
from netchan._engine.engine_handle cimport Listed, check_fork, drop_pins
from netchan._engine.engine cimport (
    baton_give, baton_take, engine_appended, engine_dirty, engine_returned, engine_try_flush, fork_count,
)
from netchan._engine.news cimport engine_poke
from netchan._engine.session_handle cimport Session, told_of
from netchan._engine.state cimport FLUSH_BYTES, PINS_SOFT, nc_engine, nc_slot
from netchan._engine.sys cimport now_ns

from netchan.errors import CodecError, ConfigError
from netchan.markers import EMPTY, CarriesEnds, Carrying

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    # Items of a list or tuple, borrowed: no reference is taken for a look at each.
    PyObject** sequence_items "PySequence_Fast_ITEMS"(object) noexcept
    bint is_bytes "PyBytes_CheckExact"(PyObject*) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject*) noexcept
    char* bytes_data "PyBytes_AS_STRING"(PyObject*) noexcept

cdef enum:
    RUN_MAX = 64                    # values that one step under a leaf lock accepts
    PIN_MIN = 32768                 # immutable bytes from this size on are not copied but held until acknowledged

cdef object EMPTY_ = EMPTY
cdef object CARRIES_ENDS = CarriesEnds
cdef object CARRYING = Carrying
cdef bytes TOO_SLOW = b"overflow='disconnect': the other side did not keep up"
cdef uint64_t FLUSH_NOW = 1 << 42    # more than any threshold and any value: leaves at once


@cython.final
cdef class Items:
    """The items of a list or tuple in order, like its own iterator; ``try_send_many`` takes several in one step."""

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


cdef class StreamEnd(Listed):
    """One end of a channel over a session: the compiled half of an Endpoint.

    Attributes:
        tx_waiters, rx_waiters, ack_waiters, end_waiters: wait queues, given by ``configure``.
        decode: called with the bytes of a value, or None for bytes channels. An array codec gets a bytearray that is
            its own: the memory of the array, which so is writable without a second copy.
        encode: called with a value, gives what ``try_send`` takes; raises if it does not fit.
        plain_max: ``bytes`` objects up to this length need no ``encode``; -1: all need it.
    """

    def __init__(self, Session session, bytes name, uint64_t codec, bytes schema, capacity, uint8_t overflow=0,
                 uint64_t ttl_ms=0, bint trunk=False, *, bint token=False, adopt=None):
        cdef nc_slot* t = session.t
        cdef uint64_t figure = 0 if capacity is None else <uint64_t>capacity + 1
        check_fork(t.engine)
        self.plain_max = -1
        self.writable = codec == defs.CODEC_ARRAY
        if len(schema) != 16:
            raise ValueError("schema hash must be 16 bytes")
        self.session = session
        self.engine = session.engine
        self.g = t.engine
        self.marks = []
        if adopt is not None:
            self.adopt(t, adopt)
            return
        self.e = end_open(
            &t.session, defs.PREFACE_TOKEN if token else defs.PREFACE_NAME, <const uint8_t*><char*>name, len(name),
            codec, <const uint8_t*><char*>schema, figure, overflow, ttl_ms, trunk,
        )
        if self.e is NULL:
            raise ConfigError(
                f"channel name {name!r} is not 1-255 bytes of UTF-8 without control characters, or memory is used up"
            )
        self.e.user = <void*>self
        if t.held:                              # it waits like all others, and is unheld, or cut, with them
            end_hold(self.e)
        self.mark(0)

    cdef int adopt(self, nc_slot* t, uint32_t place) except -1:
        """Attach to a channel that came with the session from another process."""
        if place >= t.session.n_adopted or t.session.adopted[place] is NULL:
            raise LookupError(f"no channel waits at place {place}")
        self.e = t.session.adopted[place]
        t.session.adopted[place] = NULL
        self.e.user = <void*>self
        self.aborted_here = bool(self.e.over_by_us)
        self.discard_aborted()
        self.mark(0)
        return 0

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
            if self.end_waiters is not None and self.send_over:
                self.end_waiters.wake_all()
        # First come first served: only the head is woken, and who leaves the queue wakes the next one.
        if bits & EV_RECV and self.rx_waiters is not None:
            self.rx_waiters.wake_all() if self.recv_state() else self.rx_waiters.nudge()
        if bits & EV_SEND and self.tx_waiters is not None:
            self.tx_waiters.wake_all() if self.send_over else self.tx_waiters.nudge()
            if self.e.out.rendezvous and self.ack_waiters is not None and self.ack_waiters.waiting:
                # Whose offer is out stands there alone, and a select takes its own back once nobody waits for it.
                if self.wanted == 0:
                    self.ack_waiters.wake_all()
        if bits & EV_ACK and self.ack_waiters is not None:
            self.ack_waiters.wake_all()

    cdef int discard_aborted(self) except -1:
        """What nobody may take any more is counted, and its memory goes."""
        if load_acq_u32(&self.e.paired) and load_acq_u32(&self.e.in_.over) == OVER_ABORT:
            in_discard(self.e.in_)
        return 0

    cdef int mark(self, uint64_t n) except -1:
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
        if rc == 1 and g.desk is not NULL and n != FLUSH_NOW and load_rlx_u64(&g.pending) >= FLUSH_BYTES:
            engine_poke(g)                      # its thread seals while the program makes more
        elif rc == 1:
            store_rel_u32(&g.returning, 1)
            with nogil:
                engine_try_flush(g)
            engine_returned(g)
            if load_acq_u32(&g.app_any) and g.desk is NULL:
                engine_poke(g)                  # a THREADS engine has rung
        elif rc == 2:
            self.engine.schedule(self.engine.flush_later)
        if load_rlx_u64(&g.n_pins_bytes) > PINS_SOFT:
            self.engine.release_pins()
        return 0

    cdef int request(self, uint32_t bits) except -1:
        fetch_or_u32(&self.e.requests, bits)
        return self.mark(FLUSH_NOW)

    # --- sending ---------------------------------------------------------------------------------------------------

    cdef int64_t append(self, value, int flags, int64_t age_ns=0) except -2:
        """Position of the accepted value, 0 without room, -1: the direction is over. flags: 1 reserved, 2 an offer.

        age_ns: so much of its time to live has passed.
        """
        cdef nc_end* e = self.e
        cdef Py_buffer view
        cdef const uint8_t* p
        cdef size_t n
        cdef void* pin = NULL
        cdef int rc
        cdef int how = APPEND_OFFER if flags == 2 else APPEND_RESERVED if flags == 1 else 0
        cdef uint64_t position
        cdef int64_t due = 0
        cdef nc_seg* pins = NULL
        cdef bint carrying = False
        if e.out.lossy and e.out.ttl_ms:
            due = max(now_ns() + <int64_t>e.out.ttl_ms * 1000000 - age_ns, 1)
        if PyBytes_CheckExact(value):
            p = <const uint8_t*>PyBytes_AS_STRING(value)
            n = <size_t>PyBytes_GET_SIZE(value)
            if n >= PIN_MIN:
                pin = <void*>value
                Py_INCREF(value)
            if e.out.lossy:
                rc = lossy_append(&e.out, p, n, how, pin, due, &pins)
                drop_pins(pins)
            else:
                rc = out_append(&e.out, p, n, how, pin)
            if rc < 0 and pin is not NULL:
                Py_DECREF(value)
        else:
            carrying = isinstance(value, CARRYING)
            PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
            n = <size_t>view.len
            if e.out.lossy:
                rc = lossy_append(&e.out, <const uint8_t*>view.buf, n, how, NULL, due, &pins)
                drop_pins(pins)
            else:
                rc = out_append(&e.out, <const uint8_t*>view.buf, n, how, NULL)
            PyBuffer_Release(&view)
        if flags == 1 and rc < 0:
            out_unreserve(&e.out)
        if rc == defs.NC_OK:
            position = e.out.accepted
            self.mark(n)
            if carrying and flags != 2:
                self.commit(value, position)
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
        cdef PyObject** value
        cdef Py_ssize_t size
        cdef Py_ssize_t most = len(items.source) - items.at
        if self.e.out.lossy:
            return 0                            # each value is asked for its place, and its time
        most = min(most, limit, RUN_MAX)
        # From here to the append no Python code runs: the sequence holds the values, and the GIL holds the sequence.
        value = sequence_items(items.source) + items.at
        while count < most and is_bytes(value[count]):
            size = bytes_size(value[count])
            together += <size_t>size + 8
            if size > self.plain_max or together > COPY_MAX:
                break
            p[count] = <const uint8_t*>bytes_data(value[count])
            n[count] = <size_t>size
            count += 1
        if count < 2:
            return 0
        rc = out_append_run(&self.e.out, p, n, count, &total)
        if rc <= 0:
            return 0
        items.at += rc
        self.mark(total)
        return rc

    def encode(self, value):
        """The bytes of a value; overridden by the layer above."""
        raise NotImplementedError

    def commit(self, carried, position):
        """A value that carries ends of channels was accepted; overridden by the layer above."""
        raise NotImplementedError

    def decode_carrying(self, data):
        """As ``decode``, for a value that carries ends of channels; overridden by the layer above."""
        raise NotImplementedError

    cdef decoded(self, object data):
        try:
            return self.decode(data)
        except CARRIES_ENDS:
            return self.decode_carrying(data)

    def put_back(self, value):
        """Make a value that was taken the head again; it is here, not over there, and counts as taken."""
        if self.returned is None:
            self.returned = []
        self.returned.append(value)
        if self.rx_waiters is not None:
            self.rx_waiters.nudge()

    cdef bint has_returned(self):
        """True when such a value is the head; an abort or a stop throws them away like all that is here."""
        cdef uint32_t over
        if self.returned is None or self.e.out.held:
            return False
        over = load_acq_u32(&self.e.in_.over if load_acq_u32(&self.e.paired) else &self.e.over)
        if over == OVER_ABORT or over == OVER_STOPPED:
            self.returned = None
        return bool(self.returned)

    def prepare(self, value):
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
            if position == 0 and self.e.overflow > defs.OVERFLOW_BLOCK:
                return self.overflowed()
            if position >= 0:
                return position
        raise self.send_error()

    def try_send_aged(self, prepared, int64_t age_ns):
        """As ``try_send``, for a value that was accepted before: so much of its time to live has passed."""
        cdef int64_t position
        check_fork(self.g)
        position = self.append(prepared, 0, age_ns)
        if position == 0:
            fetch_or_u32(&self.e.waiting, EV_SEND)
            position = self.append(prepared, 0, age_ns)
        if position < 0:
            raise self.send_error()
        return position

    cdef int64_t overflowed(self) except -2:
        """There is no room and the direction does not wait: what ``try_send`` gives, or raises."""
        if self.e.out.held:
            raise self.send_error()
        if self.e.overflow == defs.OVERFLOW_DISCONNECT:
            self.abort_both(defs.CODE_LIMIT, TOO_SLOW)
            raise self.send_error()
        self.refused += 1
        return <int64_t>self.e.out.accepted if self.e.out.accepted else 1

    @property
    def waits(self):
        """True where a value without room waits for it; else ``try_send`` never says 0."""
        return self.e.overflow <= defs.OVERFLOW_BLOCK

    @property
    def lossy(self):
        """True when a value that ``send`` took may be dropped."""
        return self.e.overflow in (defs.OVERFLOW_DROP_NEW, defs.OVERFLOW_DROP_OLD, defs.OVERFLOW_LATEST) \
            or bool(self.e.out.ttl_ms)

    def set_overflow(self, uint8_t overflow):
        """Another answer to "no room" than the channel was opened with: block, drop new or disconnect.

        False: the other side would have to know of it (what was accepted may be dropped, before or now), or there is no
        room to speak of (capacity 0, or not known yet).
        """
        cdef nc_end* e = self.e
        if overflow not in (defs.OVERFLOW_BLOCK, defs.OVERFLOW_DROP_NEW, defs.OVERFLOW_DISCONNECT):
            return False
        if load_acq_u32(&e.paired) == 0 or e.capacity == 0:
            return False
        if e.overflow in (defs.OVERFLOW_DROP_OLD, defs.OVERFLOW_LATEST):
            return False
        e.overflow = overflow
        self.wake(self.tx_waiters)
        return True

    @property
    def mode(self):
        """What several paths are used for by our direction: as ``Session.mode``; None: as by the session."""
        cdef nc_end* e = self.e
        if e.auto is not NULL:
            return MODE_AUTO, 0, 0
        if e.own == 0:
            return None
        return e.own - 1, e.parity_k, e.parity_m

    @mode.setter
    def mode(self, mode):
        cdef nc_slot* t = self.session.t
        cdef nc_engine* g = t.engine
        cdef int number, k, m, rc
        number, k, m = mode if mode is not None else (-1, 0, 0)
        check_fork(g)
        with nogil:
            baton_take(g)
            rc = stream_mode(&t.session, self.e, number, k, m, now_ns())
            if xchg_u32(&t.session.dirty_any, 1) == 0:
                engine_dirty(g, t)
            baton_give(g)
        if rc < 0:
            raise MemoryError("netchan channel")
        self.engine.notify()

    def told_redundancy(self):
        """What is in force for our direction and why: as session_handle.told_of."""
        cdef nc_slot* t = self.session.t
        cdef nc_engine* g = t.engine
        cdef nc_end* e = self.e
        cdef nc_figures f
        cdef nc_auto a
        cdef bint picks
        cdef int mode, k, m
        check_fork(g)
        with nogil:
            baton_take(g)
            auto_figures(&t.session, &f, now_ns())
            picks = e.auto is not NULL or (e.own == 0 and t.session.picks)
            a = e.auto[0] if e.auto is not NULL else t.session.auto
            mode = mode_of(&t.session, e)
            k = e.parity_k if e.own else t.session.parity_k
            m = e.parity_m if e.own else t.session.parity_m
            baton_give(g)
        return told_of(mode, k, m, &f, &a if picks else NULL)

    # --- permits: room first, the value later -----------------------------------------------------------------------

    def try_reserve(self):
        """True: a place is held until ``send_reserved`` or ``unreserve``. Raises what ended the direction."""
        cdef int rc
        check_fork(self.g)
        rc = out_reserve(&self.e.out)
        if rc == defs.NC_EAGAIN:
            fetch_or_u32(&self.e.waiting, EV_SEND)
            rc = out_reserve(&self.e.out)
        if rc == defs.NC_ECLOSED:
            raise self.send_error()
        return rc == defs.NC_OK

    def unreserve(self):
        """Give a held place back; finalisers may."""
        if self.g.fork_count != fork_count():
            return
        out_unreserve(&self.e.out)
        if self.tx_waiters is not None:
            self.tx_waiters.nudge()

    def send_reserved(self, prepared):
        """Position of the value, accepted in a held place; the place is gone also when this raises."""
        cdef int64_t position
        check_fork(self.g)
        position = self.append(prepared, 1)
        if position <= 0:
            raise self.send_error()
        return position

    # --- offers: capacity 0 (session.md §4.1) ------------------------------------------------------------------------

    def try_offer(self, prepared):
        """Position, from 1, of the value that was offered; 0: not now, ``tx_waiters`` are told when it may be.

        Raises what ended the direction.
        """
        cdef int64_t position
        check_fork(self.g)
        position = self.append(prepared, 2)
        if position == 0:
            fetch_or_u32(&self.e.waiting, EV_SEND)
            position = self.append(prepared, 2)
        if position < 0:
            raise self.send_error()
        fetch_or_u32(&self.e.waiting, EV_ACK)
        return position

    def offer_state(self, uint64_t position):
        """0: nobody knows yet (``ack_waiters`` are told), 1: taken, 2: withdrawn."""
        cdef int state = out_offer_state(&self.e.out, position - 1)
        if state == OFFER_OUT:
            fetch_or_u32(&self.e.waiting, EV_ACK)
            state = out_offer_state(&self.e.out, position - 1)
        return state

    def offer_withdraw(self, uint64_t position):
        """Ask for the offer back; ``offer_state`` tells what became of it. Idempotent."""
        if out_offer_want(&self.e.out, position - 1):
            self.request(REQ_WITHDRAW)

    def offer_let_go(self, uint64_t position):
        """Nobody asks for this offer any more; it makes room for another as soon as its fate is known."""
        out_offer_let_go(&self.e.out, position - 1)

    @property
    def offer_room(self):
        """True when ``try_offer`` would offer or raise now; if not, ``tx_waiters`` are told when it would."""
        if out_offer_room(&self.e.out):
            return True
        fetch_or_u32(&self.e.waiting, EV_SEND)
        return bool(out_offer_room(&self.e.out))

    @property
    def wanted(self):
        """Receivers that wait over there, as they last said; ``tx_waiters`` are told when that changes."""
        fetch_or_u32(&self.e.waiting, EV_SEND)
        return self.e.out.parked

    @property
    def send_ended(self):
        """True when no offer that is out can be taken any more."""
        return self.e.out.over != 0

    def parked(self, uint32_t n):
        """So many receivers wait here now: senders of a rendezvous are told."""
        store_rel_u32(&self.e.parked, n)
        if load_acq_u32(&self.e.paired) and self.e.in_.rendezvous:
            self.request(REQ_WANT)

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
            if e.overflow > defs.OVERFLOW_BLOCK:        # never waits for room
                if self.send_over:                      # asked before an item leaves the iterator
                    if done:
                        return done, False
                    raise self.send_error()
                value = next(values, EMPTY_)
                if value is EMPTY_:
                    return done, True
                self.try_send(self.prepare(value))
                done += 1
                continue
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
        if self.e.out.rendezvous and not self.send_over:
            return False
        if self.e.overflow > defs.OVERFLOW_BLOCK:
            return True
        if out_has_room(&self.e.out):
            return True
        fetch_or_u32(&self.e.waiting, EV_SEND)
        return bool(out_has_room(&self.e.out))

    @property
    def send_over(self):
        """True when ``try_send`` would raise."""
        cdef bint over
        leaf_lock(&self.e.out.lock)
        over = self.e.out.over != 0 or self.e.out.closing != 0
        leaf_unlock(&self.e.out.lock)
        return over

    @property
    def held(self):
        """True while the session is about to move to another process."""
        return self.e.out.held != 0

    @property
    def stream_id(self):
        """Of our direction; 0: it has none yet."""
        return self.e.out.id

    def take_returned(self):
        """Values that were put back, the last one is the head; they are not here any more."""
        returned, self.returned = self.returned, None
        return returned or []

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

    def ask(self, str level, uint64_t position):
        """Ask the other side to report as soon as the first ``position`` values have got to this level."""
        cdef nc_end* e = self.e
        self.note_mark()
        for count, offset in self.marks:
            if count >= position:
                if offset > e.ask_received:
                    e.ask_received = offset
                break
        if level == "taken" and position > e.ask_taken:
            e.ask_taken = position
        self.request(REQ_ASK)

    def close_send(self):
        """End the sending direction behind its values. Idempotent."""
        check_fork(self.g)
        if out_close(&self.e.out) == defs.NC_OK:
            self.mark(FLUSH_NOW)
            self.wake(self.tx_waiters)
            self.wake(self.ack_waiters)
            self.wake(self.end_waiters)

    def end_after(self, uint64_t code):
        """End the sending direction behind its values, but not cleanly: the other side gets ChannelAborted(code)."""
        if self.e.out.over or self.e.out.closing:
            return
        self.e.end_code = code
        out_end(&self.e.out, OVER_ABORT_AFTER)
        self.request(REQ_END_AFTER)
        self.wake(self.tx_waiters)
        self.wake(self.ack_waiters)
        self.wake(self.end_waiters)

    # --- receiving ---------------------------------------------------------------------------------------------------

    cdef int head(self, nc_msg* m) noexcept:
        """NC_OK: *m is the message at the head; NC_EAGAIN, NC_ECLOSED as in_peek."""
        cdef nc_end* e = self.e
        if load_acq_u32(&e.paired) == 0:
            if load_acq_u32(&e.over) == OVER_NOT:
                return defs.NC_EAGAIN
            return defs.NC_ECLOSED if load_acq_u32(&e.paired) == 0 else in_peek(e.in_, m)
        if e.in_.due is not NULL:
            self.drop_expired()
        return in_peek(e.in_, m)

    cdef void drop_expired(self) noexcept:
        """Values at the head whose time has passed are dropped, and the other side hears of the room."""
        if in_expire(self.e.in_, now_ns()):
            fetch_or_u32(&self.e.requests, REQ_POS)
            if end_mark(self.e):
                engine_dirty(self.g, self.session.t)
            engine_poke(self.g)

    cdef object take(self, nc_msg* m, int* due):
        """The bytes of the head message m, taken; None if somebody else took it while memory was made."""
        cdef nc_in* i = self.e.in_
        cdef object data
        cdef uint8_t* p
        if self.writable:
            data = PyByteArray_FromStringAndSize(NULL, <Py_ssize_t>m.len)
            p = <uint8_t*>PyByteArray_AS_STRING(data)
        else:
            data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>m.len)
            p = <uint8_t*>PyBytes_AS_STRING(data)
        if i.taken != m.number or i.hidden or load_acq_u32(&i.over) in (OVER_ABORT, OVER_STOPPED):
            return None
        cdef int rc = in_claim(i, m) if i.lossy or i.rendezvous else 1
        if rc == 0:
            in_advance(i, m)                    # its sender took it back
            self.passed_over += 1
            self.took(1)
        if rc <= 0:
            return None
        in_copy(i, m, p)
        due[0] |= in_advance(i, m)
        return data

    cdef int take_run(self, list out, Py_ssize_t limit, int* due) except -1:
        """Takes messages that lie together, up to limit, into out: 1; 0: none, let the next one be tried alone."""
        cdef nc_in* i = self.e.in_
        cdef const uint8_t* p
        cdef uint64_t n
        cdef nc_run r
        if not load_acq_u32(&self.e.paired) or not in_run(i, &r):
            return 0
        # Making bytes runs no Python code: nobody else takes these meanwhile.
        try:
            while limit > 0 and run_next(&r, &p, &n):
                out.append(PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>n))
                run_pass(&r)
                limit -= 1
        finally:
            due[0] |= in_run_end(i, &r)
        return 1 if r.at != r.start else 0

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
        cdef object data
        if self.g.fork_count != fork_count():
            check_fork(self.g)
        if self.failure is not None:
            self.raise_failure()
        if self.returned is not None and self.has_returned():
            return self.returned.pop()
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
            return self.decoded(data)

    def try_recv_many(self, Py_ssize_t limit):
        """Up to ``limit`` values; [] = none now."""
        cdef nc_msg m
        cdef list out = []
        cdef int rc
        cdef int due = 0
        cdef object data
        cdef object decode = self.decode
        check_fork(self.g)
        if self.failure is not None:
            self.raise_failure()
        while self.has_returned() and len(out) < limit:
            out.append(self.returned.pop())
        while len(out) < limit:
            if decode is None and not self.writable and self.take_run(out, limit - len(out), &due):
                continue
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
                    out.append(self.decoded(data))
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
        if self.decode is not None:
            raise CodecError("recv_into wants a channel of bytes, and this one carries others; take them with recv()")
        if self.has_returned():
            data = self.returned[len(self.returned) - 1]
            if type(data) is not bytes:
                data = self.encode(data)
            room = memoryview(buffer).cast("B")
            if len(room) < len(data):
                return -<int64_t>len(data)
            self.returned.pop()
            room[:len(data)] = data
            return len(data)
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
            if self.e.in_.taken != m.number or self.e.in_.hidden:
                PyBuffer_Release(&view)
                continue
            rc = in_claim(self.e.in_, &m)
            if rc <= 0:
                PyBuffer_Release(&view)
                if rc == 0:
                    in_advance(self.e.in_, &m)
                    self.passed_over += 1
                    self.took(1)
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
        if self.has_returned():
            return True
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
        return not self.has_returned() and self.head(&m) == defs.NC_ECLOSED

    cpdef uint64_t pending(self):
        """Values here, not yet taken; offers are their sender's."""
        cdef uint64_t back = <uint64_t>len(self.returned) if self.has_returned() else 0
        if not load_acq_u32(&self.e.paired) or self.e.in_.rendezvous:
            return back
        return back + in_pending(self.e.in_)

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

    cdef bint lost(self):
        """The session was lost before: nobody can be told anything, and what is here can still be taken."""
        if self.e.out.over == OVER_LOST:
            return True
        return load_acq_u32(&self.e.in_.over if load_acq_u32(&self.e.paired) else &self.e.over) == OVER_LOST

    def stop_recv(self):
        """Take no more: what is here is discarded and counted. Idempotent."""
        cdef nc_end* e = self.e
        check_fork(self.g)
        if self.lost():
            return
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
        if e.over_by_us or e.over_code or e.out.over == OVER_ABORT or self.lost():
            return
        self.aborted_here = True
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
        self.wake(self.end_waiters)

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
    def holds(self):
        """Most of the other side's values that can be here untaken; None while nobody has said."""
        if load_acq_u32(&self.e.paired) and self.e.in_.keep:
            return self.e.in_.keep
        return self.capacity

    @property
    def peer_codec(self):
        """(codec id, schema hash) of the other side, None before it has opened."""
        if not load_acq_u32(&self.e.paired):
            return None
        return self.e.peer_codec, PyBytes_FromStringAndSize(<char*>self.e.peer_schema, 16)

    def counts(self):
        """sent, received, taken, discarded, pending, credit_stalls, dropped.

        ``sent``: with offers that are out or were taken back. ``dropped``: by overflow or age, on this side or, as SKIP
        said, on the other.
        """
        cdef nc_end* e = self.e
        cdef uint64_t taken, skipped, dropped, received
        if not load_acq_u32(&e.paired):
            return e.out.accepted, 0, 0, 0, 0, e.out.credit_stalls, e.out.dropped + self.refused
        self.discard_aborted()                  # the engine may not have had a chance to tell of it
        if e.in_.rendezvous:
            # Offers are their sender's: what was passed over or thrown away here was never received.
            taken = e.in_.taken - e.in_.discarded - self.passed_over
            return e.out.accepted, taken, taken, 0, 0, e.out.credit_stalls, 0
        leaf_lock(&e.in_.lock)                  # figures of one moment: the engine may be dropping
        skipped = e.in_.skipped
        dropped = e.in_.dropped
        taken = e.in_.taken - e.in_.discarded - dropped - (skipped - e.in_.skip_ahead)
        received = e.in_.msgs - skipped
        leaf_unlock(&e.in_.lock)
        return (e.out.accepted, received, taken, e.in_.discarded, self.pending(),
                e.out.credit_stalls, e.out.dropped + self.refused + dropped + skipped)

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
            list of (number from 0, bytes or None if no longer held, sealed at least once?), ascending. Of messages that
            were dropped it has those at most that the other process might have.
        """
        cdef nc_end* e = self.e
        cdef nc_seg* s = e.out.head
        cdef uint64_t first = load_seq_u64(&e.out.taken)
        cdef uint64_t number = 0, begin = 0
        cdef bytearray run = bytearray()
        cdef list out = []
        cdef bint known = False                 # the number of the first message in `run`
        while s is not NULL:
            if s.first_off != ~<uint64_t>0 and (not known or begin + <uint64_t>len(run) != s.start):
                # The first one, or behind a gap of dropped ones: from here on messages lie together again.
                if known:
                    self.split_run(run, number, begin, first, out)
                else:
                    out += self.gone_ahead(first, s.first_num)
                known = True
                number = s.first_num
                begin = s.first_off
                run = bytearray((<const char*>s.data + (s.first_off - s.start))[:s.len - (s.first_off - s.start)])
            elif known:
                run += (<const char*>s.data)[:s.len]
            s = s.next
        if known:
            self.split_run(run, number, begin, first, out)
        else:
            out += self.gone_ahead(first, e.out.accepted)
        return out

    cdef list gone_ahead(self, uint64_t first, uint64_t upto):
        """Numbers that the other process has, as far as we know: where the oldest make room, the newest of them."""
        cdef uint64_t keep = self.e.out.keep
        if keep and upto > keep and upto - keep > first:
            first = upto - keep
        return [(n, None, True) for n in range(first, upto)]

    cdef split_run(self, bytearray run, uint64_t number, uint64_t begin, uint64_t first, list out):
        """The messages of a run of bytes, from ``number`` on; its first byte has the offset ``begin``."""
        cdef uint64_t at = 0, body = 0
        cdef size_t left, block
        cdef int ext = 0
        cdef int used
        cdef const uint8_t* p
        while at < <uint64_t>len(run):
            p = <const uint8_t*><char*>run + at
            left = len(run) - <size_t>at
            used = message_head(p, left, &body, &ext)
            # A block of ours is a deadline: shorter than 64 bytes, so its length takes one.
            block = 1 + p[used] if used > 0 and ext and <size_t>used < left else 0
            if used < 0 or <size_t>used + block + body > left:
                break
            if number >= first:
                value = bytes(run[at + used + block:at + used + block + body])
                out.append((number, value, begin + at < self.e.out.sent))
            number += 1
            at += <uint64_t>used + block + body
