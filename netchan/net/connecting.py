"""One connection before its session: connect, shake hands, then hand over, linger or stay silent.

Layer: net (L3). Lives on the worker's thread only. Its owner (a dial or a listener) decides what comes of it.
Flow: CONNECTING -> HANDSHAKE -> SENDING (the last bytes) -> handed over, LINGER (so that a refusal is not destroyed by
a reset) or DRAIN (the gate was not proved: read, throw away, close at a random time).
The descriptor belongs to this object until ``take_fd``. Spec: docs/spec/handshake.md §2.2, §2.3, §4.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any, Final, Protocol

from netchan.net.handshake import Ask, Drain, Established, Event, Failed, Initiator, Responder, Send, State
from netchan.net.join import Joiner
from netchan.net.machine import Joined
from netchan.net.worker import READ, WRITE, Timer, Worker

READ_BYTES: Final = 16_384
"""One read; nothing more is read before it was looked at, so this bounds what a stranger can make us keep."""
LINGER_NS: Final = 1_000_000_000
"""How long a refused connection is read on, so that our last bytes arrive before the end."""
RETRY_NS: Final = 20_000_000
"""A Unix listener whose queue was full is tried again after this."""


class Phase(Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    HANDSHAKE = "handshake"
    SENDING = "sending the last bytes"
    LINGER = "lingering"
    DRAIN = "silent"
    OVER = "over"


class Owner(Protocol):
    """Who wants the connection."""

    def may_step(self, conn: Connecting) -> bool:
        """False: keep the bytes; the owner calls ``resume`` later."""

    def on_heard(self, conn: Connecting) -> None:
        """The peer has proved the gate."""

    def on_stepped(self, conn: Connecting) -> None:
        """A step that ``may_step`` allowed was done; what came of it was told before."""

    def on_waiting(self, conn: Connecting) -> None:
        """A JOIN waits for a session from another process: call ``go_on`` when it is here, or ``no_room``."""

    def on_established(self, conn: Connecting, event: Established) -> None:
        """Both sides accepted and all our bytes are sent: call ``take_fd`` now, or ``close``."""

    def on_joined(self, conn: Connecting, event: Joined) -> None:
        """A session that exists has a new path, and all our bytes are sent: call ``take_fd`` now, or ``close``."""

    def on_failed(self, conn: Connecting, error: BaseException, reason: str) -> None:
        """No session. ``reason``: one word for counters. The connection ends by itself."""

    def on_drain(self, conn: Connecting, reason: str) -> int | None:
        """The gate was not proved: until when (monotonic ns) to be silent; None = close at once."""

    def on_over(self, conn: Connecting) -> None:
        """The descriptor is closed or handed over; called once."""

    def ask(self, pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        """Await a trust callable somewhere; call ``answer`` once, on the worker's thread."""


class Dialling:
    """An owner that dials: what is never said of its connections, and what it does with what it did not ask for."""

    def may_step(self, conn: Connecting) -> bool:
        """Nothing is held back."""
        return True

    def on_heard(self, conn: Connecting) -> None:
        """Never: said of a responder's connections."""

    def on_stepped(self, conn: Connecting) -> None:
        """Nothing waits for the end of a step."""

    def on_waiting(self, conn: Connecting) -> None:
        """Never: said of a responder's connections."""

    def on_drain(self, conn: Connecting, reason: str) -> int | None:
        """Never: said of a responder's connections."""
        return None

    def on_established(self, conn: Connecting, event: Established) -> None:
        """Never, unless it makes new sessions."""
        conn.close()

    def on_joined(self, conn: Connecting, event: Joined) -> None:
        """Never, unless it brings sessions back."""
        conn.close()


class Connecting:
    """See the module head.

    Args:
        worker: whose thread this is.
        sock: non-blocking, connected or about to be (``connect_to``).
        owner: see Owner.
        where: the address for messages.

    Attributes:
        heard: the peer has proved the gate (a responder's connection).
        parked: bytes are here that the owner lets wait.
    """

    def __init__(self, worker: Worker, sock: socket.socket, owner: Owner, where: str) -> None:
        self.sock, self.owner, self.where = sock, owner, where
        self.fd = sock.fileno()
        self.phase = Phase.HANDSHAKE
        self.machine: Initiator | Joiner | Responder | None = None
        self.begin: Callable[[], Initiator | Joiner | Responder | None] | None = None
        self.made_ns = time.monotonic_ns()
        self.parked = False
        self._worker = worker
        self._input = bytearray()
        self._out = bytearray()
        self.heard = False
        self._eof = False
        self._queued = False
        self._result: Established | Joined | Failed | None = None
        self._timer: Timer | None = None

    # --- by the owner ------------------------------------------------------------------------------------------------

    def connect_to(self, sockaddr: Any) -> None:
        """Start to connect; ``begin`` makes the machine when the connection is up; None: it is not wanted any more.

        OSError: it failed at once.
        """
        self.phase = Phase.CONNECTING
        try:
            self.sock.connect(sockaddr)
        except BlockingIOError:
            if self.sock.family == socket.AF_UNIX:
                # the listener's queue is full; unlike TCP nothing is under way, so nothing would ever become ready
                self._set_timer(time.monotonic_ns() + RETRY_NS, lambda: self._connect_again(sockaddr))
            else:
                self._watch(WRITE)
        else:
            self._connected()

    def start(self) -> None:
        """An accepted connection: wait for its first bytes."""
        self._watch(READ)
        self._set_deadline()

    def begins_with(self, kind: int) -> bool:
        """True if what came and was not looked at yet is a message of this type."""
        return self._input[:1] == bytes((kind,))

    def resume(self) -> None:
        """The owner lets it go on."""
        if self.parked:
            self.parked = False
            self._queue()

    @property
    def waits_for(self) -> bytes:
        """Locator of the session for which a JOIN waits or has waited."""
        return self.machine.waits_for if isinstance(self.machine, Responder) else b""

    def go_on(self) -> None:
        """The session for which a JOIN waits is here, or will not come."""
        if self.phase is Phase.HANDSHAKE and isinstance(self.machine, Responder):
            self._resolved(self.machine.go_on(time.monotonic_ns()))

    def no_room(self) -> None:
        """It may not wait for its session here."""
        if self.phase is Phase.HANDSHAKE and isinstance(self.machine, Responder):
            self._resolved(self.machine.no_room())

    def give_up(self, error: BaseException, reason: str) -> None:
        """End it now from our side, without a word; the owner hears of it like of any failure."""
        if self.phase in (Phase.CONNECTING, Phase.HANDSHAKE, Phase.SENDING):
            self.phase = Phase.OVER
            self.owner.on_failed(self, error, reason)
            self._end()

    def turn_away(self) -> None:
        """Its place is wanted: say BUSY if it has proved the gate, as far as the kernel takes it at once, and close."""
        machine = self.machine
        if self.phase is not Phase.HANDSHAKE or not isinstance(machine, Responder):
            self.close()
            return
        for event in machine.turn_away():
            if isinstance(event, Send):
                self._out += event.data
            elif isinstance(event, Failed):
                self._result = event
        if self._out:
            try:
                self.sock.send(self._out, socket.MSG_NOSIGNAL)
            except OSError:
                pass  # it does not read, or is gone
        if isinstance(self._result, Failed):
            self.give_up(self._result.error, self._result.code.name.lower())
        else:
            self.close()

    def out_of_time(self) -> BaseException | None:
        """The error that fits a handshake which has to end now; None before the connection was up."""
        machine = self.machine
        if machine is None or machine.deadline_ns is None:
            return None
        events = machine.tick(machine.deadline_ns)
        return next((event.error for event in events if isinstance(event, Failed)), None)

    def take_fd(self) -> int:
        """Hand the descriptor over to the caller."""
        self._worker.watch(self.fd, 0, self)
        self.phase = Phase.OVER
        fd = self.sock.detach()
        self._let_go()
        self.owner.on_over(self)
        return fd

    def close(self) -> None:
        """Close the descriptor without a word. Idempotent."""
        if self.phase is not Phase.OVER:
            self.phase = Phase.OVER
            self._end()

    # --- by the worker -----------------------------------------------------------------------------------------------

    def on_io(self, mask: int) -> None:
        """See worker.Job."""
        if self.phase is Phase.CONNECTING:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._failed(OSError(code, os.strerror(code)), "connect")
            else:
                self._connected()
            return
        if mask & WRITE:
            self._write()
        if mask & READ and self.phase is not Phase.OVER:
            self._read()

    def step(self) -> None:
        """See worker.Job: make the machine, or feed it what came."""
        self._queued = False
        if self.phase is not Phase.HANDSHAKE:
            return
        if self.machine is None:
            if self.begin is None:
                return
            machine = self.machine = self.begin()
            if machine is None:
                self.close()
                return
            if not isinstance(machine, Responder):
                self._handle(machine.start(time.time(), time.monotonic_ns()))
            self._set_deadline()
            self._watch_more()
            return
        # an end without bytes needs nobody's leave
        if self._input and not self.owner.may_step(self):
            self.parked = True
            return
        data = bytes(self._input)
        self._input.clear()
        now = time.monotonic_ns()
        events = self.machine.feed(data, time.time(), now) if data else self.machine.tick(now)
        self._tell_heard()
        self._worker.give_way()
        self._handle(events)
        if self._eof and self.phase is Phase.HANDSHAKE:
            self._handle(self.machine.eof())
        self._worker.give_way()
        self._watch_more()
        if data and self.machine.state is State.WAIT_SESSION:
            self._set_deadline()
            self.owner.on_waiting(self)
        self.owner.on_stepped(self)

    def on_fault(self, error: BaseException) -> None:
        """See worker.Job."""
        self._failed(error, "fault")

    def close_copy(self) -> None:
        """See worker.Job."""
        self.sock.close()

    def on_stop(self) -> None:
        """See worker.Job."""
        self.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _resolved(self, events: Sequence[Event]) -> None:
        self._handle(events)
        self._watch_more()
        self.owner.on_stepped(self)

    def _connect_again(self, sockaddr: Any) -> None:
        if self.phase is Phase.CONNECTING:
            try:
                self.connect_to(sockaddr)
            except OSError as error:
                self._failed(error, "connect")

    def _connected(self) -> None:
        self.phase = Phase.HANDSHAKE
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(0)
        self._queue()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._worker.ready(self)

    def _watch(self, mask: int) -> None:
        self._worker.watch(self.fd, mask, self)

    def _watch_more(self) -> None:
        """After a step: look for bytes again, and for room if something is unsent."""
        if self.phase is Phase.HANDSHAKE:
            self._watch((0 if self._queued or self.parked or self._eof else READ) | (WRITE if self._out else 0))

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self.phase in (Phase.LINGER, Phase.DRAIN):
            if not data:
                self.close()
            return
        if data:
            self._input += data
        else:
            self._eof = True
        self._queue()
        self._watch_more()

    def _write(self) -> None:
        while self._out:
            try:
                sent = self.sock.send(self._out, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._watch(WRITE | (READ if self.phase is Phase.HANDSHAKE and not self._queued else 0))
                return
            except OSError as error:
                self._out.clear()
                if self.phase is not Phase.SENDING or isinstance(self._result, Established | Joined):
                    self._failed(error, "carrier")
                    return
                break
            del self._out[:sent]
        if self.phase is Phase.SENDING:
            self._sent_all()
        elif self.phase is Phase.HANDSHAKE:
            self._watch_more()

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Send):
                self._out += event.data
            elif isinstance(event, Ask):
                self._ask(event)
            elif isinstance(event, Drain):
                self._drain(event.reason)
                return
            else:
                self._result = event
                self.phase = Phase.SENDING
        if self._out or self.phase is Phase.SENDING:
            self._write()

    def _ask(self, event: Ask) -> None:
        machine = self.machine
        left = 0.0
        if machine is not None and machine.deadline_ns is not None:
            left = (machine.deadline_ns - time.monotonic_ns()) / 1e9

        def answer(allowed: bool) -> None:
            if self.phase is Phase.HANDSHAKE and machine is not None and not isinstance(machine, Joiner):
                self._handle(machine.resolve(allowed, time.time(), time.monotonic_ns()))
                self._watch_more()
                if self.phase is Phase.HANDSHAKE:  # a ticket was refused, and it goes on in full
                    self.owner.on_stepped(self)

        self.owner.ask(event.pending, max(0.0, left), answer)

    def _sent_all(self) -> None:
        result = self._result
        if isinstance(result, Established):
            self.owner.on_established(self, result)
        elif isinstance(result, Joined):
            self.owner.on_joined(self, result)
        elif result is not None:
            self.owner.on_failed(self, result.error, result.code.name.lower())
            self._linger()

    def _linger(self) -> None:
        if self._eof:
            self.close()
            return
        self.phase = Phase.LINGER
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._watch(READ)
        self._set_timer(time.monotonic_ns() + LINGER_NS, self.close)

    def _drain(self, reason: str) -> None:
        until = self.owner.on_drain(self, reason)
        if until is None or self._eof:
            self.close()
            return
        self.phase = Phase.DRAIN
        self._watch(READ)
        self._set_timer(until, self.close)

    def _tell_heard(self) -> None:
        if not self.heard and isinstance(self.machine, Responder) and self.machine.heard:
            self.heard = True
            self.owner.on_heard(self)

    def _failed(self, error: BaseException, reason: str) -> None:
        if self.phase in (Phase.CONNECTING, Phase.HANDSHAKE, Phase.SENDING):
            self.phase = Phase.OVER
            self.owner.on_failed(self, error, reason)
            self._end()
        else:
            self.close()

    def _set_deadline(self) -> None:
        if self.machine is not None and self.machine.deadline_ns is not None and self.phase is Phase.HANDSHAKE:
            self._set_timer(self.machine.deadline_ns, self._deadline)

    def _deadline(self) -> None:
        if self.phase is Phase.HANDSHAKE and self.machine is not None:
            self._handle(self.machine.tick(time.monotonic_ns()))
        elif self.phase is Phase.SENDING:
            self._failed(TimeoutError(f"{self.where} does not take our bytes; see whether its process runs"), "timeout")

    def _set_timer(self, when_ns: int, call: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = self._worker.at(when_ns, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._worker.watch(self.fd, 0, self)
        if self.machine is not None:
            self.machine.close()
        self.sock.close()
        self._let_go()
        self.owner.on_over(self)

    def _let_go(self) -> None:
        """Drop what refers back to this object, so that no cycle is left to the collector."""
        self._stop_timer()
        self.begin = self._result = None
