"""The responder's side: sockets that listen, the limits on strangers, and the hand-over of those who got in.

Layer: net (L3). Runs on the worker's thread; ``close``, ``room`` and ``counts`` may be called from any thread.

1. ``start`` resolves and binds; ``outcome`` gets the addresses that can be dialled, or ListenError.
2. Accepted connections pass limits.HalfOpen; those that do not prove the gate end in limits.DeadSockets, unanswered.
3. At most ``backlog`` peers wait for the program: beyond that no HELLO is answered and nothing is accepted from the
   kernel's queue until ``room`` is called, unless a session waits for its next path; from a UDP socket they are taken,
   because paths move through it, and wait as half-open. A place is taken by a FINISH, not
   by a HELLO, so who proves the gate and then says nothing holds up nobody; what it does hold is a place among the
   half-open, and limits.HalfOpen takes that.
4. A failed accept is counted and tried again; it never ends the listener.

Spec: docs/spec/handshake.md §2.2, §5, §9.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from netchan.config import Config
from netchan.errors import ListenError
from netchan.net import changes, giving, moved, resume
from netchan.net.address import Address
from netchan.net.connecting import Connecting, Phase
from netchan.net.datagrams import MTU_SAFE, Exchange, is_first, mtu_to
from netchan.net.dial import Link, Outcome, link_of
from netchan.net.doors import bind_door, is_alone, open_door, open_to_peer, recv_from, reply
from netchan.net.ephemeral import stock_of
from netchan.net.gate import CLOSE, COOKIE, HELLO, JOIN, Gate, Verdict, seal_frame
from netchan.net.handshake import Established, HandshakeConfig, Responder, State
from netchan.net.limits import DeadSockets, HalfOpen, drain_deadline
from netchan.net.machine import Joined
from netchan.net.manager import CARRIER_NUMBERS, AskTrust, Home, attach, log
from netchan.net.params import Refusal
from netchan.net.passed import passed
from netchan.net.places import numeric, resolve, same_user, socket_text
from netchan.net.resets import CID_BYTES, Resets
from netchan.net.stack import stack
from netchan.net.ticket import ticket_keys
from netchan.net.trust import Policy
from netchan.net.worker import READ, Worker, worker

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

ACCEPT_BATCH: Final = 16
"""Connections taken per look at a socket, so that one busy socket does not keep the others waiting."""
ACCEPT_PAUSE_NS: Final = 100_000_000
"""How long a socket rests after a failed accept (no descriptors left, most often): bounds what the failure costs."""
_NOT_OURS: Final = frozenset((errno.EADDRINUSE, errno.EACCES))
_SCARCE: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


@dataclass(frozen=True)
class ListenPlan:
    """Checked arguments of a listen; as DialPlan.

    Attributes:
        addresses: where to listen.
        handshake: identity and what we offer.
        policies: by carrier.
        gate: who gets an answer; wiped when the listener closes.
        config: settings.
    """

    addresses: tuple[Address, ...]
    handshake: HandshakeConfig
    policies: dict[str, Policy]
    gate: Gate
    config: Config


@dataclass(frozen=True, slots=True)
class ListenCounts:
    """What happened at a listener so far, and what is going on.

    Attributes:
        accepted: connections taken from the kernel.
        handshakes_ok: handshakes that led to a session.
        resumed: sessions that had come in before and got another path.
        by_ticket: of ``handshakes_ok`` those that began with a ticket.
        tickets_refused: tickets that began nothing, by reason; a full handshake may have followed.
        moved: datagrams of a path that came from a new address of its peer, which is then proved.
        resets: datagrams of a path that is not known here whose sender was told so.
        cookies: first messages over UDP that came under load and got nothing but a cookie.
        handshakes_failed: handshakes that did not, by reason (lower-case names of the codes; "carrier", "fault").
        drained: connections that did not prove the gate and got no answer.
        refused: connections closed unread because a limit on strangers was reached.
        half_open: handshakes going on now.
        held: silent connections held open now; over UDP those that may have to hear their refusal again.
        accept_errors: failed accepts.
        waiting: peers that the program has not taken yet.
    """

    accepted: int = 0
    handshakes_ok: int = 0
    resumed: int = 0
    by_ticket: int = 0
    tickets_refused: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    moved: int = 0
    resets: int = 0
    cookies: int = 0
    handshakes_failed: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    drained: int = 0
    refused: int = 0
    half_open: int = 0
    held: int = 0
    accept_errors: int = 0
    waiting: int = 0


Inherited = dict[str, list[tuple[Address, socket.socket]]]


class _Door:
    """One listening socket."""

    def __init__(self, owner: Listening, sock: socket.socket, address: Address) -> None:
        self.owner, self.sock, self.address = owner, sock, address
        self.asked = ""
        self.fd = sock.fileno()
        self.resting = self.told = False
        self.inode: tuple[int, int] | None = None
        self.alone = False  # no other process can have paths of this address: one that is not known here is nowhere
        self.peers: dict[Any, Exchange] = {}

    def on_io(self, mask: int) -> None:
        self.owner.on_door(self)

    def step(self) -> None:
        """Never asked for."""

    def on_fault(self, error: BaseException) -> None:
        self.owner.on_door_error(self)

    def close_copy(self) -> None:
        self.sock.close()

    def on_stop(self) -> None:
        if self.inode is not None:
            _unlink(Path(self.address.path), self.inode)
        self.sock.close()


class Listening:
    """All sockets of one ``listen``.

    Args:
        plan: what to do.
        home: where the sessions will live.
        deliver: takes a new session; runs on the worker's thread. What it raises costs that session only.
        ask: awaits trust callables.
        inherited: sockets that listen already, with their addresses, by the address that is asked for.
    """

    def __init__(
        self,
        plan: ListenPlan,
        home: Home,
        deliver: Callable[[Session, Link], object],
        ask: AskTrust,
        inherited: Inherited | None = None,
    ) -> None:
        self.plan, self.outcome = plan, Outcome[tuple[str, ...]]()
        self.closed = self.paused = False
        self._inherited: Inherited = inherited or {}
        self._home, self._deliver, self._ask = home, deliver, ask
        self._worker: Worker = worker()
        limits = plan.config.limits
        self._half_open = HalfOpen(
            per_address=limits.half_open_per_address,
            load=limits.half_open,
            rate_per_s=limits.handshake_rate,
            burst=limits.handshake_burst,
        )
        self._dead = DeadSockets()
        self._doors: list[_Door] = []
        self._door_of: dict[Connecting, _Door] = {}
        # who waits for room: with a FINISH, which has cost both sides, before with a HELLO
        self._parked_finish: deque[Connecting] = deque()
        self._parked_hello: deque[Connecting] = deque()
        # whose FINISH is being looked at; each has a place in the backlog until it is delivered or refused
        self._placed: set[Connecting] = set()
        self._room_lock = threading.Lock()
        self._waiting = 0
        self._unresolved = 0
        self._accepted = self._ok = self._by_ticket = self._resumed = self._moved = self._resets_said = 0
        self._cookies = 0
        self._resets = Resets(plan.handshake.identity.reset_key())
        self._drained = self._refused = self._accept_errors = 0
        self._failed: Counter[str] = Counter()
        self._no_ticket: Counter[str] = Counter()

    # --- any thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; ``outcome`` follows."""
        self._worker.post(self._begin)

    def room(self, taken: int = 1) -> None:
        """The program took ``taken`` peers."""
        with self._room_lock:
            self._waiting -= taken
        self._worker.post(self._go_on)

    def close(self) -> None:
        """Take nobody in any more, at once; sockets and half-open connections are closed soon. Idempotent."""
        if not self.closed:
            self.closed = True
            self._worker.post(self._close)

    def later(self, call: Callable[[], object]) -> None:
        """Run ``call`` on the worker's thread; for finalisers, which must not wait for anything."""
        self._worker.post(call)

    def counts(self) -> ListenCounts:
        """A snapshot."""
        return ListenCounts(
            accepted=self._accepted,
            handshakes_ok=self._ok,
            resumed=self._resumed,
            by_ticket=self._by_ticket,
            tickets_refused=MappingProxyType(dict(self._no_ticket)),
            moved=self._moved,
            resets=self._resets_said,
            cookies=self._cookies,
            handshakes_failed=MappingProxyType(dict(self._failed)),
            drained=self._drained,
            refused=self._refused,
            half_open=len(self._half_open),
            held=len(self._dead),
            accept_errors=self._accept_errors,
            waiting=self._waiting,
        )

    # --- binding ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        places: dict[int, list[tuple[int, Any]] | OSError] = {}
        for index, address in enumerate(self.plan.addresses):
            if str(address) in self._inherited:
                places[index] = []
            elif address.is_numeric:
                try:
                    places[index] = [numeric(address)]
                except OSError as error:
                    places[index] = error
            else:
                self._unresolved += 1
                resolve(address.host, address.port, partial(self._resolved, places, index))
        if not self._unresolved:
            self._bind_all(places)

    def _resolved(
        self,
        places: dict[int, list[tuple[int, Any]] | OSError],
        index: int,
        found: list[tuple[int, Any]] | OSError,
    ) -> None:
        places[index] = found
        self._unresolved -= 1
        if not self._unresolved:
            self._bind_all(places)

    def _bind_all(self, places: dict[int, list[tuple[int, Any]] | OSError]) -> None:
        if self.closed:
            self.outcome.fail(ListenError("the listener was closed before it was up; listen again"))
            return
        try:
            for index, address in enumerate(self.plan.addresses):
                found = places[index]
                if isinstance(found, OSError):
                    raise _listen_error(address, found)
                self._bind_one(address, found)
        except ListenError as error:
            self.closed = True
            self._close()
            self.outcome.fail(error)
            return
        except Exception as error:
            self.closed = True
            self._close()
            self.outcome.fail(ListenError(f"cannot listen: {error}"))
            raise
        me = self.plan.handshake.identity.node_id
        for door in self._doors:
            self._worker.watch(door.fd, READ, door)
        self.outcome.set(tuple(str(door.address.with_id(me)) for door in self._doors))

    def _bind_one(self, address: Address, found: list[tuple[int, Any]]) -> None:
        """Bind an address; a name with several addresses needs one that works, and all share the port of the first."""
        bound, last, port = 0, OSError("the name has no address"), 0
        for place, sock in self._inherited.pop(str(address), ()):
            door = self._adopt(place, sock)
            door.asked = str(address)
            self._doors.append(door)
            bound += 1
        for family, sockaddr in found:
            target = (sockaddr[0], port, *sockaddr[2:]) if port else sockaddr
            try:
                door = self._bind(address, family, target)
            except OSError as error:
                last = error
                continue
            door.asked = str(address)
            self._doors.append(door)
            bound += 1
            if not address.port:
                port = door.address.port
        if not bound:
            raise _listen_error(address, last)

    def _bind(self, address: Address, family: int, sockaddr: Any) -> _Door:
        kind = socket.SOCK_DGRAM if address.carrier == "udp" else socket.SOCK_STREAM
        given = passed().take(kind, sockaddr)
        if given is not None:
            return self._use(given, address)
        sock = stack().socket(family, kind)
        try:
            if family == socket.AF_UNIX:
                return self._bind_unix(sock, address)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            alone = False
            if address.carrier == "udp":
                alone = bind_door(sock, sockaddr)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(sockaddr)
                sock.listen(self.plan.config.backlog)
            name = sock.getsockname()
            host = address.host if address.is_numeric else name[0]
            door = _Door(self, sock, Address(address.carrier, host=host, port=name[1]))
            door.alone = alone
            return door
        except BaseException:
            sock.close()
            raise

    def _use(self, sock: socket.socket, address: Address) -> _Door:
        """A socket that whoever started this process has bound; a socket file is not ours to remove."""
        sock.setblocking(False)
        door = _Door(self, sock, address)
        if address.carrier == "udp":
            open_door(sock)
            door.alone = is_alone(sock)
        else:
            sock.listen(self.plan.config.backlog)
        return door

    def _adopt(self, address: Address, sock: socket.socket) -> _Door:
        """A socket that another process has listened on."""
        sock.setblocking(False)
        door = _Door(self, sock, address)
        if sock.family == socket.AF_UNIX:
            door.inode = _inode(Path(address.path))
        return door

    def _bind_unix(self, sock: socket.socket, address: Address) -> _Door:
        path = Path(address.path)
        try:
            sock.bind(address.path)
        except OSError as error:
            if not _is_stale(error, path):
                raise
            path.unlink()
            sock.bind(address.path)
        # nobody can connect before listen(): the mode is right when the first one may
        path.chmod(0o600)
        sock.listen(self.plan.config.backlog)
        door = _Door(self, sock, address)
        door.inode = _inode(path)
        return door

    # --- accepting ----------------------------------------------------------------------------------------------------

    def on_door(self, door: _Door) -> None:
        """Take what waits at a socket."""
        if door.address.carrier == "udp":
            self._on_datagrams(door)
            return
        for _ in range(ACCEPT_BATCH):
            if self.closed or self.paused or self._shut():
                break
            try:
                sock, peer = door.sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                self._accept_errors += 1
                continue
            except OSError:
                self.on_door_error(door)
                return
            self._accepted += 1
            self._worker.give_way()
            self._admit(door, sock, peer)
        self._watch_doors()

    def _on_datagrams(self, door: _Door) -> None:
        """First messages of strangers; a datagram of a path comes to the socket of that path."""
        for _ in range(ACCEPT_BATCH):
            if self.closed or self.paused:
                break
            try:
                data, there, peer = recv_from(door.sock)
            except BlockingIOError:
                return
            except OSError:
                continue  # what ICMP has told of an answer
            if moved.is_of_a_path(data):
                if moved.knows(data[moved.CID]):
                    self._moved += moved.follow(data, partial(self._socket_to, door, there, peer))
                elif door.alone and not resume.any_coming():
                    self._reset(door, data, there, peer)
                continue
            if not is_first(data):
                self._drained += 1
                continue
            known = door.peers.get(peer)
            if known is not None:
                known.take_first(data)
                continue
            if not self._passes(door, data, there, peer):
                continue
            sock = self._socket_to(door, there, peer)
            if sock is None:
                if door.resting:
                    return
                continue
            self._accepted += 1
            self._worker.give_way()
            conn = self._admit(door, sock, peer)
            if isinstance(conn, Exchange):
                door.peers[peer] = conn
                conn.peer = peer
                conn.take_first(data)
        self._watch_doors()

    def _passes(self, door: _Door, data: bytes, there: Any, peer: Any) -> bool:
        """True if this first message is worth a socket; under load its sender first shows where it is.

        What it gets till then is shorter than what it sent, and nothing is kept.
        """
        # a JOIN is asked for no cookie: what costs more than a few hashes is behind the code of a session
        address = None if data[0] == JOIN else socket_text(door.sock.family, peer, "udp").encode()
        busy = self._half_open.under_load(self._worker.queue_wait_ns())
        result = self.plan.gate.look(
            data, time.time(), time.monotonic_ns(), os.urandom, address=address, busy=busy, kind=data[0]
        )
        header, keys = result.header, result.keys
        if header is None or keys is None:
            self._drained += 1
            return False
        if result.verdict is Verdict.COOKIE:
            self._cookies += 1
            said = seal_frame(header._replace(kind=COOKIE), result.cookie, keys.to_initiator)
        else:
            proof = resume.nowhere(data) if data[0] == JOIN and result.verdict is Verdict.NOISE else None
            if proof is None:
                return True
            self._failed["gone"] += 1
            body = int(Refusal.GONE).to_bytes(2, "big") + proof
            said = seal_frame(header._replace(kind=CLOSE), body, keys.to_initiator)
        try:
            reply(door.sock, said, there, peer)
        except OSError:
            pass  # lost, as on any network
        return False

    def _reset(self, door: _Door, data: bytes, there: Any, peer: Any) -> None:
        """Nobody here knows the path of this datagram: say so, if that can be said and has not been too often."""
        said = self._resets.answer(data, there, peer, time.monotonic_ns(), os.urandom)
        if said is None:
            return
        try:
            reply(door.sock, said, there, peer)
        except OSError:
            return  # lost, as on any network
        self._resets_said += 1

    def _name(self, conn: Connecting) -> bytes:
        """Connection id and token of the path that this exchange has made; b"": it is no datagram path."""
        if not isinstance(conn, Exchange):
            return b""
        return self._resets.name(conn.sock.getsockname(), os.urandom, moved.knows)

    def _socket_to(self, door: _Door, there: Any, peer: Any) -> socket.socket | None:
        """A socket of the address of the door that has this peer only; None: an error, which is counted."""
        try:
            return open_to_peer(there, peer, door.sock.family)
        except OSError as error:
            if error.errno in _SCARCE:
                self.on_door_error(door)
                return None
            self._accept_errors += 1  # no way to this one peer
            if error.errno in _NOT_OURS and not door.told:
                door.told = True
                log.error(
                    "%s takes in nobody: %s; a process that changes its user has to do so before it listens",
                    door.address.location,
                    (error.strerror or str(error)).lower(),
                )
            return None

    def on_door_error(self, door: _Door) -> None:
        """An accept failed: let the socket rest, then go on."""
        self._accept_errors += 1
        door.resting = True
        self._worker.watch(door.fd, 0, door)

        def wake() -> None:
            door.resting = False
            self._watch_doors()

        self._worker.at(time.monotonic_ns() + ACCEPT_PAUSE_NS, wake)

    def _admit(self, door: _Door, sock: socket.socket, peer: Any) -> Connecting | None:
        """Begin with it, unless a limit forbids; None: closed."""
        sock.setblocking(False)
        unix = sock.family == socket.AF_UNIX
        datagrams = door.address.carrier == "udp"
        conn: Connecting
        if datagrams:
            conn = Exchange(self._worker, sock, self, socket_text(sock.family, peer, "udp"))
        else:
            if not unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conn = Connecting(self._worker, sock, self, socket_text(sock.family, peer))
        now = time.monotonic_ns()
        admission = self._half_open.admit(conn, None if unix else peer[0], now, self._worker.queue_wait_ns())
        for old in admission.drop:
            if isinstance(old, Connecting):
                if not old.heard:
                    self._refused += 1
                old.turn_away()
        if not admission.admitted:
            self._refused += 1
            sock.close()
            return None
        plan = self.plan
        conn.machine = Responder(
            plan.handshake,
            plan.policies[door.address.carrier],
            plan.gate,
            os.urandom,
            now,
            address=conn.where,
            datagram_source=conn.where.encode() if datagrams else None,
            same_user=unix and same_user(sock),
            busy=lambda: self._half_open.under_load(self._worker.queue_wait_ns()),
            pause=self._worker.give_way,
            ahead=stock_of(self._worker),
            reach=resume,
            tickets=ticket_keys() if plan.config.tickets else None,
        )
        self._door_of[conn] = door
        conn.start()
        return conn

    def _full(self) -> bool:
        return self._waiting + len(self._placed) >= self.plan.config.backlog

    def _shut(self) -> bool:
        """Nothing is accepted: no room, and nobody who came in before could come back."""
        return self._full() and not resume.any_suspended()

    def _on_path(self, reference: weakref.ref[Session], node_id: str, where: str, news: str) -> None:
        """See Session.on_path; any thread."""

        def told() -> None:
            resume.note(reference, node_id, where, news)
            self._watch_doors()

        self._worker.post(told)

    def _go_on(self) -> None:
        """There may be room again."""
        while (self._parked_finish or self._parked_hello) and not self._full():
            conn = (self._parked_finish or self._parked_hello).popleft()
            if conn.phase is Phase.HANDSHAKE:
                conn.resume()
                return  # the end of its step brings us here again
        self._watch_doors()

    def _watch_doors(self) -> None:
        if self.closed or self.paused:
            return
        shut = self._shut()
        for door in self._doors:
            if not door.resting:
                # datagrams of paths that move come here, too; a HELLO waits behind the door, as one half-open
                self._worker.watch(door.fd, 0 if shut and door.address.carrier != "udp" else READ, door)

    # --- Connecting's owner -------------------------------------------------------------------------------------------

    def may_step(self, conn: Connecting) -> bool:
        """Bytes are looked at only while there is room for one more peer; those of a FINISH or RESUME take the room.

        A JOIN brings no peer more.
        """
        if conn in self._placed or (not conn.heard and conn.begins_with(JOIN)):
            return True
        if self._full():
            (self._parked_finish if conn.heard else self._parked_hello).append(conn)
            return False
        if conn.heard or not conn.begins_with(HELLO):  # a RESUME, or the rest of one
            self._placed.add(conn)
        return True

    def on_heard(self, conn: Connecting) -> None:
        """The gate was proved: from now on it has to go on."""
        self._half_open.heard(conn, time.monotonic_ns())

    def on_stepped(self, conn: Connecting) -> None:
        """Give the place back if what came was a part of a FINISH, or a refused ticket; let the next one go on."""
        machine = conn.machine
        if conn in self._placed:
            if machine is not None and machine.state in (State.WAIT_FINISH, State.WAIT_HELLO):
                self._placed.discard(conn)
            else:
                self._half_open.went_on(conn)
        self._go_on()

    def on_waiting(self, conn: Connecting) -> None:
        """Its session may be on its way from another process."""
        if conn.phase is Phase.HANDSHAKE and not resume.park(conn.waits_for, conn.go_on):
            conn.no_room()

    def on_drain(self, conn: Connecting, reason: str) -> int | None:
        """No answer: hold the connection for a while, and throw away what comes."""
        self._drained += 1
        if self.closed:
            return None
        until = drain_deadline(conn.made_ns, os.urandom)
        oldest = self._dead.hold(conn, until)
        self._half_open.done(conn, False)
        self._placed.discard(conn)
        if isinstance(oldest, Connecting):
            oldest.close()
        self._go_on()
        return until

    def on_established(self, conn: Connecting, event: Established) -> None:
        """A new session."""
        door = self._door_of.get(conn)
        if self.closed or door is None:
            conn.close()
            return
        self._half_open.done(conn, True)
        if door.address.carrier == "udp" and not event.agreement.datagrams:
            self._failed["capability"] += 1
            conn.close()
            return
        local = socket_text(
            conn.sock.family, conn.sock.getsockname(), "udp" if door.address.carrier == "udp" else "tcp"
        )
        link = link_of(door.address.carrier, local, conn.where, event)
        mtu, answer = _datagram_facts(conn)
        token = self._name(conn)
        with self._room_lock:
            self._waiting += 1
        try:
            self._worker.give_way()
            # no giving way from here on: what the new session wants cannot be served before its peer is delivered
            engine = self._home.choose()
            config = self.plan.config
            if event.predecessor:
                giving.replaced(event.predecessor)
            session = attach(
                engine,
                conn.take_fd(),
                link.carrier,
                event,
                config,
                mtu=mtu,
                answer=answer,
                token=token,
                gives=self.plan.handshake,
            )
            if door.address.carrier == "udp":
                moved.keep_findable(session, 0, (moved.cid_of(event.binding), token[:CID_BYTES]))
            if session.lease:
                resume.keep_reachable(session)
                session.on_path = partial(self._on_path, weakref.ref(session), event.node_id, link.remote)
                if config.watch_network:
                    changes.watch(session)
                if session.suspended:
                    session.on_path("lost")  # before anybody listened
            self._deliver(session, link)
        except Exception:
            with self._room_lock:
                self._waiting -= 1
            self._failed["fault"] += 1
            log.exception("the session with %s could not be started and was closed", event.node_id)
            return
        self._ok += 1
        self._by_ticket += event.by_ticket

    def on_joined(self, conn: Connecting, event: Joined) -> None:
        """A session that came in before has a new path; it is not handed out again."""
        door = self._door_of.get(conn)
        session = event.session
        if self.closed or door is None:
            conn.close()
            return
        self._half_open.done(conn, True)
        found = cast("Session", session)
        carrier = CARRIER_NUMBERS[door.address.carrier]
        mtu, answer = _datagram_facts(conn)
        token = self._name(conn)
        done = resume.take_path(found, conn.take_fd(), carrier, event, conn.where, mtu=mtu, answer=answer, token=token)
        self._resumed += done and not event.beside
        if done and door.address.carrier == "udp":
            moved.keep_findable(found, event.path_id, (moved.cid_of(event.binding), token[:CID_BYTES]))

    def on_failed(self, conn: Connecting, error: BaseException, reason: str) -> None:
        """No session; the reason is counted."""
        self._failed[reason] += 1
        self._half_open.done(conn, False)
        self._placed.discard(conn)
        if isinstance(conn, Exchange) and not self.closed:
            # it may say its refusal again; what strangers can make us hold is bounded like all that is silent
            oldest = self._dead.hold(conn, conn.made_ns)
            if isinstance(oldest, Connecting):
                oldest.close()
        log.debug("handshake with %s failed: %s", conn.where, error)
        self._go_on()

    def on_over(self, conn: Connecting) -> None:
        """Forget it everywhere."""
        self._half_open.done(conn, False)
        self._dead.forget(conn)
        self._placed.discard(conn)
        if conn.waits_for:
            resume.unpark(conn.waits_for, conn.go_on)
        if isinstance(conn.machine, Responder) and conn.machine.no_ticket:
            self._no_ticket[conn.machine.no_ticket] += 1
        door = self._door_of.pop(conn, None)
        if door is not None and isinstance(conn, Exchange):
            door.peers.pop(conn.peer, None)
        if conn.parked:
            self._parked_finish = deque(other for other in self._parked_finish if other is not conn)
            self._parked_hello = deque(other for other in self._parked_hello if other is not conn)
        self._go_on()

    def ask(self, pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        """Await a trust callable."""
        self._ask(pending, timeout_s, answer)

    # --- to another process -------------------------------------------------------------------------------------------

    def occupy(self) -> None:
        """A peer that came from another process waits for the program. Any thread."""
        with self._room_lock:
            self._waiting += 1

    def vacate(self) -> None:
        """It does not, after all. Any thread."""
        with self._room_lock:
            self._waiting -= 1

    def reach(self, came: list[tuple[Session, str, str, int]]) -> None:
        """Sessions from another process, which came in by one of these sockets, may lose their path and get another.

        Args:
            came: (session, node id, where its peer is, JOINs that were answered) of each.
        """
        self._worker.post(partial(self._reach, came))

    def _reach(self, came: list[tuple[Session, str, str, int]]) -> None:
        for session, node_id, where, number in came:
            if session.lease and not session.over:
                session.on_path = partial(self._on_path, weakref.ref(session), node_id, where)
                resume.keep_reachable(session, number)
                if self.plan.config.watch_network:
                    changes.watch(session)
                if session.suspended:
                    session.on_path("lost")

    def pause(self) -> None:
        """Accept nothing for a while; who has begun may go on.

        Another process may have these sockets from now on, and paths that are not known here: none is denied any more.
        """
        self.paused = True
        for door in self._doors:
            door.alone = False
            self._worker.watch(door.fd, 0, door)

    @property
    def busy(self) -> bool:
        """True while handshakes are going on."""
        return len(self._half_open) > 0

    def go_on(self) -> None:
        """Accept again."""
        self.paused = False
        self._watch_doors()

    def sockets(self) -> list[tuple[str, str, int]]:
        """(address asked for, address, descriptor) of each socket."""
        return [(door.asked, str(door.address), door.fd) for door in self._doors]

    def leave_sockets(self) -> None:
        """Another process listens on them: close them here and remove nothing."""
        for door in self._doors:
            door.inode = None
        self.closed = True
        self._close()

    # --- closing ------------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        doors, self._doors = self._doors, []
        for door in doors:
            self._worker.watch(door.fd, 0, door)
            if door.inode is not None:
                _unlink(Path(door.address.path), door.inode)
            door.sock.close()
        for conn in list(self._door_of):
            conn.close()
        self.plan.gate.wipe()
        self._resets.wipe()


def _datagram_facts(conn: Connecting) -> tuple[int, bytes]:
    """How long its datagrams may be, and what the peer may have to hear again."""
    if isinstance(conn, Exchange):
        return mtu_to(conn.sock.getpeername()), conn.answer
    return MTU_SAFE, b""


def _listen_error(address: Address, error: OSError) -> ListenError:
    why = (error.strerror or str(error)).lower()
    text = f"cannot listen on {address}: {why}; give another address, or port 0 for any free one"
    return ListenError(text) if error.errno is None else ListenError(error.errno, text)


def _is_stale(error: OSError, path: Path) -> bool:
    """True if a socket file stands in the way that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _inode(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_dev, info.st_ino


def _unlink(path: Path, inode: tuple[int, int]) -> None:
    """Remove the socket file unless somebody has put another one there."""
    try:
        info = path.stat()
        if (info.st_dev, info.st_ino) == inode:
            path.unlink()
    except OSError:
        pass
