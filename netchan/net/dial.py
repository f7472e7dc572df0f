"""The initiator's side: several addresses of one node, tried one after the other until one leads to a session.

Layer: net (L3). Runs on the worker's thread; the front waits for ``outcome``.

1. Names are resolved on threads of their own, at most sixteen in the process.
2. A new place is tried every 250 ms, or at once when one fails; connections and handshakes run side by side.
3. Only one handshake at a time gets past the other side's REPLY, so a listener never sees a session of ours twice.
4. The first that is established wins, the others are closed. All failed: one error with the causes per address.

Spec: docs/spec/handshake.md §2.3, §8.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from netchan.config import CAPABILITY_FIRST, Config
from netchan.errors import AuthError, DialError, DialTimeout, HandshakeError
from netchan.net import kept
from netchan.net.address import Address
from netchan.net.connecting import Connecting, Dialling, Owner
from netchan.net.datagrams import Exchange, mtu_to, open_socket
from netchan.net.ephemeral import stock_of
from netchan.net.handshake import Established, HandshakeConfig, Initiator, State
from netchan.net.manager import CARRIER_NUMBERS, AskTrust, Home, attach, turn_ratchet
from netchan.net.places import numeric, resolve, same_user, socket_text
from netchan.net.redial import Redial
from netchan.net.stack import stack
from netchan.net.trust import Policy
from netchan.net.wait import WaitQueue
from netchan.net.worker import Timer, Worker, worker

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

STAGGER_NS: Final = 250_000_000
"""The next place is tried this long after the one before (RFC 8305 section 8 recommends 250 ms)."""
MAX_PLACES: Final = 64
"""Socket addresses of one dial: bounds what a name server can make us try."""

T = TypeVar("T")


@dataclass(frozen=True)
class Link:
    """What a front learns about the one path of a new session."""

    carrier: str
    local: str
    remote: str
    node_id: str
    max_message: int
    keeps: bool
    by_ticket: bool = False
    caps: frozenset[int] = frozenset()


def link_of(carrier: str, local: str, remote: str, event: Established) -> Link:
    """The link of a finished handshake; ``keeps`` (channel/base.py): our process's rank is the lower one.

    Equal ranks are two ends in one process, which both give way and then wait for a random time (session.md §4.1).
    ``caps`` are those of the application that both sides have.
    """
    keeps = event.local.params.instance < event.remote.params.instance
    caps = frozenset(cap for cap in event.agreement.caps if cap >= CAPABILITY_FIRST)
    return Link(carrier, local, remote, event.node_id, event.remote.params.max_message, keeps, event.by_ticket, caps)


class Outcome(Generic[T]):
    """The result of what the worker does: set once, awaited through ``queue`` by any front."""

    __slots__ = ("_error", "_value", "done", "queue")

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.done = False
        self._value: list[T] = []
        self._error: BaseException | None = None

    def set(self, value: T) -> None:
        """It worked."""
        self.keep(value)
        self.tell()

    def keep(self, value: T) -> None:
        """It worked; ``tell`` follows, when no frame of the caller refers to the value any more."""
        self._value.append(value)

    def tell(self) -> None:
        """Let ``take`` have what was kept."""
        self.done = True
        self.queue.wake_all()

    def fail(self, error: BaseException) -> None:
        """It did not."""
        self._error = error
        self.done = True
        self.queue.wake_all()

    def is_done(self) -> bool:
        """True when ``take`` will not fail for want of a result."""
        return self.done

    def take(self) -> T | None:
        """The value, once; None if it was taken. Raises the error it failed with."""
        if self._error is not None:
            raise self._error
        return self._value.pop() if self._value else None


@dataclass(frozen=True)
class DialPlan:
    """Checked arguments of a dial.

    Attributes:
        addresses: of one node.
        handshake: identity and what we offer.
        policies: by carrier; made when the arguments were checked, so that mistakes raise there.
        psk: 32 bytes or more, or None.
        config: settings.
        tickets: how many are kept in memory; 0: none are asked for.
        ticket: one to begin with, that the program had stored.
    """

    addresses: tuple[Address, ...]
    handshake: HandshakeConfig
    policies: dict[str, Policy]
    psk: bytes | None
    config: Config
    tickets: int = 0
    ticket: kept.Kept | None = None


def connecting(thread: Worker, address: Address, family: int, owner: Owner) -> Connecting:
    """A connection to be made to this address. OSError: no socket."""
    if address.carrier == "udp":
        return Exchange(thread, open_socket(family), owner, address.location)
    return Connecting(thread, stack().socket(family, socket.SOCK_STREAM), owner, address.location)


@dataclass(frozen=True)
class _Place:
    index: int
    family: int
    sockaddr: Any
    where: str


class Dial(Dialling, Generic[T]):
    """One dial; ``start`` it, wait for ``outcome``, ``cancel`` it when nobody waits any more.

    Args:
        plan: what to do.
        home: where the session will live.
        make: turns the session into what the caller gets; runs on the worker's thread.
        drop: undoes ``make`` when the caller was gone before it could take the result.
        ask: awaits trust callables.
    """

    def __init__(
        self,
        plan: DialPlan,
        home: Home,
        make: Callable[[Session, Link], T],
        drop: Callable[[T], object],
        ask: AskTrust,
    ) -> None:
        self.plan, self.outcome = plan, Outcome[T]()
        self._home, self._make, self._drop, self._ask = home, make, drop, ask
        self._worker: Worker = worker()
        self._places: deque[_Place] = deque()
        self._unresolved = 0
        self._tried = 0
        self._live: dict[Connecting, _Place] = {}
        self._committed: Connecting | None = None
        self._ticket = plan.ticket
        self._mark = kept.mark_of(plan.psk) if plan.tickets or plan.ticket else kept.NO_PSK
        self._causes: dict[int, BaseException] = {}
        self._timers: list[Timer] = []

    def start(self) -> None:
        """Begin; any thread."""
        self._worker.post(self._begin)

    def cancel(self) -> None:
        """Nobody waits any more: stop, and give back what was made; any thread, idempotent."""
        self._worker.post(self._cancel)

    # --- the worker's thread ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        now = time.monotonic_ns()
        self._timers.append(self._worker.at(now + int(self.plan.config.dial_timeout * 1e9), self._out_of_time))
        for index, address in enumerate(self.plan.addresses):
            if address.is_numeric:
                try:
                    family, sockaddr = numeric(address)
                except OSError as error:
                    self._causes[index] = error
                else:
                    self._places.append(_Place(index, family, sockaddr, address.location))
            else:
                self._unresolved += 1
                resolve(address.host, address.port, partial(self._resolved, index))
        self._next()

    def _resolved(self, index: int, found: list[tuple[int, Any]] | OSError) -> None:
        self._unresolved -= 1
        if self.outcome.done:
            return
        if isinstance(found, OSError):
            self._causes[index] = found
        else:
            where = self.plan.addresses[index].location
            self._places += [_Place(index, family, sockaddr, where) for family, sockaddr in found]
        self._next()

    def _next(self) -> None:
        """Try the next place; the one after it follows by timer."""
        if self.outcome.done:
            return
        while self._places and self._tried < MAX_PLACES:
            place = self._places.popleft()
            self._tried += 1
            try:
                self._try(place)
            except OSError as error:
                self._causes[place.index] = error
                continue
            if self._places:
                self._timers.append(self._worker.at(time.monotonic_ns() + STAGGER_NS, self._next))
            return
        self._check_end()

    def _try(self, place: _Place) -> None:
        address = self.plan.addresses[place.index]
        conn = connecting(self._worker, address, place.family, self)
        sock = conn.sock

        def begin() -> Initiator:
            return Initiator(
                self.plan.handshake,
                self.plan.policies[address.carrier],
                os.urandom,
                psk=self.plan.psk,
                address=address.location,
                same_user=sock.family == socket.AF_UNIX and same_user(sock),
                pause=self._worker.give_way,
                ahead=stock_of(self._worker),
                kept=self._choose_ticket(conn, address),
                datagrams=isinstance(conn, Exchange),
            )

        conn.begin = begin
        self._live[conn] = place
        try:
            conn.connect_to(place.sockaddr)
        except OSError:
            del self._live[conn]
            conn.close()
            raise

    def _place_of(self, address: Address) -> kept.Place:
        """For which dials the tickets of this one are."""
        config = self.plan.handshake
        expected = self.plan.policies[address.carrier].expected_id
        return kept.Place(
            config.identity.id_pub, config.network_id, config.primitives, self._mark, address.location, expected
        )

    def _choose_ticket(self, conn: Connecting, address: Address) -> kept.Kept | None:
        """A ticket for a connection that is up, or None.

        With it the other side may begin a session as soon as it hears of us, so no other handshake goes on meanwhile;
        and none is tried over UDP, where perhaps nobody is, while there are other addresses.
        """
        plan, place = self.plan, self._place_of(address)
        if self._committed is not None or (
            address.carrier == "udp" and any(other.carrier != "udp" for other in plan.addresses)
        ):
            return None
        chosen, self._ticket = self._ticket, None
        if chosen is None or not chosen.is_for(plan.handshake.identity, *place[1:4], place.expected_id):
            chosen = kept.take(place) if plan.tickets else None
        if chosen is None or chosen.age_ms(time.time()) is None:
            return None
        kept.forget(chosen)
        self._committed = conn
        return chosen

    def _check_end(self) -> None:
        if self.outcome.done or self._live or self._unresolved or self._places:
            return
        self._finish()
        self.outcome.fail(self._error(timed_out=False))

    def _out_of_time(self) -> None:
        if self.outcome.done:
            return
        for conn, place in self._live.items():
            error = conn.out_of_time() or DialTimeout(
                f"{place.where}: no connection in time; check the address, and that nothing on the way drops packets"
            )
            self._causes.setdefault(place.index, error)
        self._finish()
        self.outcome.fail(self._error(timed_out=True))

    @property
    def answered(self) -> bool:
        """The other side may have a session by now. On the worker's thread."""
        return self._committed is not None or self.outcome.done

    def cancel_here(self) -> None:
        """As ``cancel``, at once. On the worker's thread."""
        self._cancel()

    def _cancel(self) -> None:
        if not self.outcome.done:
            self._finish()
            self.outcome.fail(DialError("the dial was given up"))
            return
        try:
            made = self.outcome.take()
        except BaseException:
            return  # it failed: nothing to give back
        if made is not None:
            self._drop(made)

    def _finish(self) -> None:
        for timer in self._timers:
            timer.cancel()
        live, self._live = self._live, {}
        for conn in live:
            conn.close()
        self._committed = None
        self._places.clear()

    def _error(self, *, timed_out: bool) -> DialError:
        plan = self.plan
        causes = [
            self._causes.get(index, DialTimeout(f"{address.location}: not tried in time; raise Config.dial_timeout"))
            for index, address in enumerate(plan.addresses)
        ]
        if len(causes) == 1 and isinstance(causes[0], DialError):
            only = causes[0]
            only.causes = (only,) if not only.causes else only.causes
            return only
        text = "; ".join(f"{address}: {_say(cause)}" for address, cause in zip(plan.addresses, causes, strict=True))
        kind: type[DialError] = DialError
        if any(isinstance(cause, AuthError) for cause in causes):
            kind = AuthError
        elif timed_out or all(isinstance(cause, DialTimeout) for cause in causes):
            kind = DialTimeout
        elif all(isinstance(cause, HandshakeError) for cause in causes):
            kind = HandshakeError
        advice = "check the address and that somebody listens there" if kind is DialError else "see .causes"
        within = f" within {plan.config.dial_timeout:g} s" if kind is DialTimeout else ""
        return kind(f"no session{within}: {text}; {advice}", causes)

    # --- Connecting's owner -------------------------------------------------------------------------------------------

    def may_step(self, conn: Connecting) -> bool:
        """Only one handshake of this dial goes past REPLY."""
        if conn.machine is not None and conn.machine.state is State.WAIT_REPLY:
            if self._committed is None:
                self._committed = conn
            return self._committed is conn
        return True

    def on_stepped(self, conn: Connecting) -> None:
        """What came over datagrams for REPLY was none: it holds up nobody."""
        machine = conn.machine
        waits = isinstance(machine, Initiator) and machine.state is State.WAIT_REPLY and not machine.may_begin
        if waits and self._committed is conn:
            self._committed = None
            for other in list(self._live):
                if other is not conn:
                    other.resume()

    def on_established(self, conn: Connecting, event: Established) -> None:
        """We have won: start the session, close the others."""
        place = self._live.pop(conn, None)
        if place is None or self.outcome.done:
            conn.close()
            return
        address = self.plan.addresses[place.index]
        try:
            self.plan.policies[address.carrier].established(event.claim)
            if address.carrier == "udp" and not event.agreement.datagrams:
                raise HandshakeError(f"{address.location}: the other side has no datagram paths; see Config.datagrams")
            local = socket_text(place.family, conn.sock.getsockname(), "udp" if address.carrier == "udp" else "tcp")
            link = link_of(address.carrier, local, address.location, event)
            mtu = mtu_to(place.sockaddr)
            session = attach(self._home.choose(), conn.take_fd(), address.carrier, event, self.plan.config, mtu=mtu)
            if self.plan.tickets and event.remote.params.tickets:
                me, most = self.plan.handshake.identity, self.plan.tickets
                kept.watch(session, event, me, self._place_of(address), most, time.time)
            if session.lease:
                self._keep(session, event, address)
            # kept before the caller is woken: it may drop the peer at once, and is the only one to hold it then
            self.outcome.keep(self._make(session, link))
        except Exception as error:  # whatever it is, the caller must hear of it
            conn.close()
            self._finish()
            self.outcome.fail(error)
            return
        self._finish()
        self.outcome.tell()

    def _keep(self, session: Session, event: Established, address: Address) -> None:
        """The session makes its other paths, and those that are lost again."""
        claim = event.claim.id_pub
        redial = Redial(session, self.plan, address, claim, event.node_id, CARRIER_NUMBERS, turn_ratchet, connecting)
        session.maker = redial
        session.on_path = redial.on_path
        if session.suspended:
            redial.on_path("lost")  # before anybody listened
        redial.begin()

    def on_failed(self, conn: Connecting, error: BaseException, reason: str) -> None:
        """One place failed: go on with the next."""
        place = self._live.pop(conn, None)
        if place is None:
            return
        self._causes[place.index] = error
        if self._committed is conn:
            self._committed = None
            for other in list(self._live):
                other.resume()
        self._next()

    def on_over(self, conn: Connecting) -> None:
        """Nothing to give back."""

    def ask(self, pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        """Await a trust callable."""
        self._ask(pending, timeout_s, answer)


def _say(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
