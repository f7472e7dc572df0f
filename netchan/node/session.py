"""One session as both fronts see it: which channels are bound, which are offered, and how it is left.

Layer 6: no waiting (peer.py and its blocking twin wait), no sockets. Any thread; one leaf lock per session guards the
tables, and nothing is called under it.

Names: ``open`` gives the bound channel, else a new one that takes the oldest offer of the name, else one that an offer
yet to come will find. What is left of the offers comes out of iteration, in order of arrival.
Leaving: every open channel's sending direction ends behind its values; when all has arrived and no close could overtake
anything (``Session.at_rest``), or ``close_timeout`` is over, the session is closed. That runs on the worker, so it goes
on when the program does something else. A channel whose last handle was collected unclosed waits for that a moment
before it is given up (decision 0002).
Spec: docs/spec/session.md §3, §7.
"""

from __future__ import annotations

import sys
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from netchan.channel.codec import ID_BYTES, Codec, codec_by_id, codec_for, fits_offer
from netchan.channel.overflow import NO_TERMS, Overflow, Terms, check_overflow, check_trunk, check_ttl, spill_of
from netchan.channel.redundancy import Redundancy, read_mode
from netchan.config import Config, check_capacity
from netchan.errors import (
    ChannelError,
    Code,
    ConfigError,
    HandoverError,
    NetchanError,
    ProtocolError,
    SessionLost,
    channel_aborted,
    handed_over,
    quote,
    session_lost,
)
from netchan.net import changes
from netchan.net.dial import Link
from netchan.net.manager import CLOSE_CLEAN, CLOSE_EXCEPTION, check_fork, log, remember_leaver
from netchan.net.wait import WaitQueue, leaf_lock
from netchan.net.worker import Worker, forks, running_worker, worker
from netchan.node.events import EventLog
from netchan.node.hints import Hint

if TYPE_CHECKING:
    from netchan._engine.engine_handle import Engine
    from netchan._engine.session_handle import Session
    from netchan.channel.remote import RemoteEndpoint

RESERVED: Final = "netchan."
"""Names that begin so are the library's own."""
LOOK_MIN_NS, LOOK_MAX_NS = 1_000_000, 20_000_000
"""While a session is being left its channels are looked at in growing steps, beside what the engine tells."""
DROP_GRACE_NS: Final = 100_000_000
"""How long after its last handle was collected a channel is ended as dropped, unless its peer is left meanwhile."""
TIMEOUT = 13
"""SESSION_CLOSE code that our own side notes when the last path ended without a close."""
DUPLICATE = 15
"""SESSION_CLOSE code for a session beside another one of the same two nodes, which is kept."""
REPLACED = 16
"""SESSION_CLOSE code for a session whose other side has begun another one with a ticket of it."""
PROTOCOL = 4
"""SESSION_CLOSE code for bytes that no conforming peer sends (session.md section 9.1)."""
_ABORTS: Final = {1: Code.LEFT_BY_EXCEPTION, 2: Code.PROCESS_EXIT, 3: Code.HANDED_OVER}
_FIN, _ABORT_AFTER, _ABORT = 1, 2, 3


class _Name:
    """What is known of one name.

    Attributes:
        bound: the newest channel of the name that this side opened or got.
        early: channels opened here before anything was heard of an offer, oldest first.
        offers: numbers of offers that nobody has opened or got, oldest first.
    """

    __slots__ = ("bound", "early", "offers")

    def __init__(self) -> None:
        self.bound: RemoteEndpoint | None = None
        self.early: list[RemoteEndpoint] = []
        self.offers: list[int] = []

    def waits_for(self, just_opened: RemoteEndpoint | None) -> bool:
        """True if a fresh offer belongs to a channel that was opened here already; that channel is then settled.

        The engine tells of no offer that found its channel at once, so a paired channel has had its offer; only one
        that was opened while the news was on its way (``just_opened``) has it still coming.
        """
        self.early = [end for end in self.early if end is just_opened or not (end.paired or end.send_over)]
        if not self.early:
            return False
        del self.early[0]
        return True


@dataclass(frozen=True)
class _Waiting:
    """A channel that came with its session from another process and to which nobody here has attached.

    Attributes:
        place: in ``Session.adopted``.
        name, codec_id, schema, capacity, terms: as it was opened over there.
        accepted: it comes out of iteration: it did over there, or it is half closed.
        bound: ``open`` gives it.
        returned: values that had been taken and were given back.
    """

    place: int
    name: str
    codec_id: int
    schema: bytes
    capacity: int | None
    terms: Terms
    accepted: bool
    bound: bool
    returned: list[bytes]


class PeerCore:
    """See the module head.

    Attributes:
        engine: drives it.
        session: the engine's.
        link: its path.
        offer_waiters: callers that wait for an offered channel; end_waiters: for the end of the session;
            ticket_waiters: for its first ticket.
    """

    def __init__(self, engine: Engine, session: Session, link: Link, config: Config) -> None:
        self.engine, self.session, self.link, self.config = engine, session, link, config
        self.made = forks()
        self.offer_waiters, self.end_waiters = WaitQueue(), WaitQueue()
        self.ticket_waiters = WaitQueue()
        self.front: weakref.ref[Any] = lambda: None  # type: ignore[assignment]
        self.handles: Any = None
        self.when_over: Callable[[], object] | None = None
        self.left = self.duplicate = False
        self._lock = leaf_lock()
        self._names: dict[str, _Name] = {}
        self._offers: OrderedDict[int, tuple[str, int, bytes]] = OrderedDict()
        self._numbers = 0
        self._accepted: weakref.WeakSet[RemoteEndpoint] = weakref.WeakSet()
        self._open: dict[int, RemoteEndpoint] = {}
        self._leaving: _Leaving | None = None
        self._logged = False
        self._waiting: list[_Waiting] = []
        self._events: EventLog | None = None

    def begin(self, front: object) -> None:
        """The front is there: look at what has happened since the session began, and listen."""
        self.front = weakref.ref(front)
        self.handles = type(front)._handles  # type: ignore[attr-defined]
        me = weakref.ref(self)
        self.session.on_offers = lambda: _tell(me, PeerCore.take_offers)
        self.session.on_over = lambda: _tell(me, PeerCore._on_over)
        if self.session.kept is not None:
            self.session.kept.told = lambda: _tell(me, PeerCore._on_ticket)
        remember_leaver(self)
        self.take_offers()
        if self.session.over:
            self._on_over()

    # --- to and from another process ---------------------------------------------------------------------------------

    def check_movable(self) -> None:
        """HandoverError: a channel has values here that cannot move."""
        for end in self.endpoints():
            if end.terms.spill is not None and not (self.left or self.over):
                raise HandoverError(
                    f"channel {quote(end.name)!r} with {self.link.node_id} spills to a file of this process; close it "
                    "before its session moves"
                )

    def about_channels(self) -> dict[str, Any]:
        """What the core does not know of the channels, for ``inherit``.

        Raises:
            HandoverError: one has values here that cannot move.
        """
        self.check_movable()
        returned: dict[int, list[bytes]] = {}
        for end in list(self._open.values()):
            back = end.take_returned()
            for value in back:
                end.put_back(value)
            if back:
                returned[end.stream_id] = [bytes(end.encode(value)) for value in back]
        accepted = [end.stream_id for end in self._accepted if not (end.send_over and end.recv_over)]
        return {"accepted": accepted, "returned": returned}

    def endpoints(self) -> list[RemoteEndpoint]:
        """The channels that this side has open, or had and may still take from."""
        with self._lock:
            return list(self._open.values())

    def inherit(self, about: dict[str, Any]) -> None:
        """The session came from another process: its channels wait for ``open`` and for iteration. Before ``begin``."""
        accepted, returned = set(about["accepted"]), about["returned"]
        for row in self.session.adopted():
            place, raw, token, codec_id, schema, capacity, overflow, ttl_ms, trunk, stream, sent, got, rest = row
            values = returned.get(stream, [])
            left = rest or values
            if token or (sent and got and not left):
                continue
            bound = not sent and not (got and not left)
            self._waiting.append(
                _Waiting(
                    place,
                    raw.decode(),
                    codec_id,
                    schema,
                    capacity,
                    Terms(overflow, ttl_ms, trunk),
                    stream in accepted or not bound,
                    bound,
                    values,
                )
            )

    def _attach(self, found: _Waiting, type: Any, codec: Codec, terms: Terms) -> RemoteEndpoint:
        endpoint = self._make(found.name, type, codec, found.capacity, terms, adopt=found.place)
        for data in found.returned:
            endpoint.put_back(data if endpoint.decode is None else endpoint.decode(data))
        with self._lock:
            self._names.setdefault(found.name, _Name()).bound = endpoint
        if found.accepted:
            self._accepted.add(endpoint)
        return endpoint

    def _open_waiting(
        self, found: _Waiting, codec: Codec, type: Any, capacity: int | None, terms: Terms
    ) -> RemoteEndpoint:
        """``open`` of a channel that came from another process, where it was open with options of its own."""
        if any(terms[:3]) and terms[:3] != found.terms[:3]:
            raise ConfigError(
                f"channel {quote(found.name)!r} to {self.link.node_id} came from another process with another "
                "overflow, ttl or trunk; give the same, or none"
            )
        same = codec.id == found.codec_id and codec.schema_hash == found.schema
        if type is Any and not same:
            codec = codec_by_id(found.codec_id, found.schema) or codec
            type, same = _FORMS.get(codec.id, Any), True
        if not same and not (found.accepted and fits_offer(codec, found.codec_id, found.schema)):
            raise ConfigError(
                f"channel {quote(found.name)!r} to {self.link.node_id} came from another process, where it was open "
                f"with another type than {codec.type_name}; open it with the same"
            )
        with self._lock:
            self._waiting.remove(found)
        endpoint = self._attach(found, type, codec, terms if any(terms) else found.terms)
        if capacity is not None and capacity != endpoint.capacity:
            raise ConfigError(
                f"channel {quote(found.name)!r} to {self.link.node_id} came from another process with capacity "
                f"{endpoint.capacity}, not {capacity}; give the same figure, or none"
            )
        return endpoint

    # --- names -------------------------------------------------------------------------------------------------------

    def open(
        self,
        name: str,
        type: Any,
        capacity: int | None,
        overflow: Overflow | None = None,
        ttl: float | None = None,
        trunk: bool = False,
        redundancy: Redundancy | None = None,
    ) -> RemoteEndpoint:
        """The channel that is bound to ``name``, or a new one; see Peer.open."""
        check_fork(self.made)
        check_name(name)
        mode = None if redundancy is None else read_mode(redundancy)
        endpoint = self._opened(name, type, capacity, overflow, ttl, trunk, mode)
        if mode is not None and endpoint.mode is None:
            endpoint.mode = mode
        return endpoint

    def _opened(
        self,
        name: str,
        type: Any,
        capacity: int | None,
        overflow: Overflow | None,
        ttl: float | None,
        trunk: bool,
        mode: tuple[int, int, int] | None,
    ) -> RemoteEndpoint:
        codec = codec_for(type)
        check_capacity(capacity, none_ok=True)
        terms = Terms(
            check_overflow(overflow, capacity), check_ttl(ttl, capacity), check_trunk(trunk), spill_of(overflow)
        )
        self.take_offers()
        with self._lock:
            entry = self._names.setdefault(name, _Name())
            bound = entry.bound
        if bound is not None and bound.dropped:
            _drop(bound)
        if bound is not None and is_bound(bound):
            if mode is not None and bound.mode not in (None, mode):
                raise ConfigError(
                    f"channel {quote(name)!r} to {self.link.node_id} is open with redundancy="
                    f"{bound.redundancy!r}; give the same, or none, or set its redundancy to another"
                )
            self._same(bound, codec, type, capacity, terms)
            return bound
        came = next((item for item in self._waiting if item.name == name and item.bound), None)
        if came is not None:
            return self._open_waiting(came, codec, type, capacity, terms)
        endpoint = self._make(name, type, codec, capacity, terms)
        with self._lock:
            entry.bound = endpoint
            if entry.offers:
                del self._offers[entry.offers.pop(0)]
                return endpoint
            entry.early.append(endpoint)
        self.take_offers(endpoint)
        return endpoint

    def next_offer(self) -> RemoteEndpoint | None:
        """The oldest offered channel that nobody has opened or got; None if there is none now."""
        check_fork(self.made)
        self.take_offers()
        came = next((item for item in self._waiting if item.accepted), None)
        if came is not None:
            with self._lock:
                self._waiting.remove(came)
            codec = codec_by_id(came.codec_id, came.schema) or codec_for(Any)
            return self._attach(came, _FORMS.get(codec.id, Any), codec, came.terms)
        with self._lock:
            if not self._offers:
                return None
            number, (name, codec_id, schema) = self._offers.popitem(last=False)
            entry = self._names[name]
            entry.offers.remove(number)
        codec = codec_by_id(codec_id, schema) or codec_for(Any)
        endpoint = self._make(name, _FORMS.get(codec.id, Any), codec, None)
        with self._lock:
            entry.bound = endpoint
        self._accepted.add(endpoint)
        return endpoint

    def has_offer(self) -> bool:
        """True when ``next_offer`` would give a channel, or the iteration would end."""
        came = any(item.accepted for item in self._waiting)
        return came or bool(self._offers) or bool(self.session.over)

    def take_offers(self, just_opened: RemoteEndpoint | None = None) -> None:
        """Enter what the engine has; ``just_opened``: the channel that this call follows."""
        fresh = 0
        for raw, codec_id, schema, _capacity, _flags in self.session.take_offers():
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                self.session.close(PROTOCOL, b"a channel name is no UTF-8")
                return
            with self._lock:
                entry = self._names.setdefault(name, _Name())
                if entry.waits_for(just_opened):
                    just_opened = None
                    continue
                self._numbers += 1
                self._offers[self._numbers] = (name, codec_id, schema)
                entry.offers.append(self._numbers)
            fresh += 1
        if fresh:
            self.offer_waiters.wake(fresh)

    def _make(
        self,
        name: str,
        type: Any,
        codec: Codec,
        capacity: int | None,
        terms: Terms = NO_TERMS,
        *,
        adopt: int | None = None,
    ) -> RemoteEndpoint:
        from netchan.channel.remote import open_endpoint

        endpoint = open_endpoint(
            self.session,
            name=name,
            type=type,
            capacity=capacity,
            peer=self.front(),
            peer_id=self.link.node_id,
            driver=self.engine,
            close_timeout=self.config.close_timeout,
            max_message=self.link.max_message,
            codec=codec,
            keeps=self.link.keeps,
            terms=terms,
            adopt=adopt,
        )
        endpoint.put_off, endpoint.register, endpoint.front = self._put_off, self._note, self.handles
        self._note(endpoint)
        return endpoint

    def _note(self, endpoint: RemoteEndpoint) -> None:
        """Remember a channel that leaving has to end."""
        with self._lock:
            if len(self._open) >= 64 and len(self._open) & (len(self._open) - 1) == 0:
                self._forget_done()
            self._open[id(endpoint)] = endpoint

    def _put_off(self, endpoint: RemoteEndpoint) -> bool:
        """The last sending handle was collected; runs in its finaliser, so it takes no lock and waits for nothing.

        A program that leaves the peer loses the handles of the function that has just returned an instant before:
        leaving ends those channels cleanly. Only what is still open after the grace was really lost.
        """
        found = running_worker()
        if found is None or self.made != forks():
            return False
        put_off = weakref.ref(endpoint)

        def settle() -> None:
            end = put_off()
            if end is not None and end.dropped:
                _drop(end)

        found.post(lambda: found.at(time.monotonic_ns() + DROP_GRACE_NS, settle))
        return True

    def _forget_done(self) -> None:
        """Drop names and channels that need no memory; called when the table has doubled, and at the end."""
        lost = self.session.over and isinstance(self.end_error(), SessionLost)
        for key, endpoint in list(self._open.items()):
            if _is_done(endpoint):
                if lost and endpoint.has_loss():
                    continue  # ``lost`` tells of it
                del self._open[key]
        for name, entry in list(self._names.items()):
            entry.early = [end for end in entry.early if id(end) in self._open and not end.paired]
            if not entry.early and not entry.offers and (entry.bound is None or id(entry.bound) not in self._open):
                del self._names[name]

    def _same(self, bound: RemoteEndpoint, codec: Codec, type: Any, capacity: int | None, terms: Terms) -> None:
        """Check that options of a further ``open`` fit the bound channel, and give an accepted one its type and terms.

        An accepted channel was opened before this side had a say. The other side knows of that opening, so what it need
        not know can still be said: the type, and what happens here to a value without room.
        """
        late = bound in self._accepted and not any(bound.terms)
        if not late and any(mine and mine != theirs for mine, theirs in zip(terms, bound.terms, strict=True)):
            raise ConfigError(
                f"channel {quote(bound.name)!r} to {self.link.node_id} is open with another overflow, ttl or trunk; "
                "give the same, or none, or close it first"
            )
        if capacity is not None and capacity != bound.capacity:
            raise ConfigError(
                f"channel {quote(bound.name)!r} to {self.link.node_id} is open with capacity {bound.capacity}, not "
                f"{capacity}; "
                "give the same figure, or none, or close it first"
            )
        retype = type is not Any and type != bound.type
        if retype:
            theirs = bound.peer_codec
            if bound not in self._accepted or theirs is None or not fits_offer(codec, *theirs):
                raise ConfigError(
                    f"channel {quote(bound.name)!r} to {self.link.node_id} is open with type {bound.codec.type_name}, "
                    f"not {codec.type_name}; open it with the same type, or close it first"
                )
        if late and any(terms):
            if terms != Terms(terms.overflow) or not bound.set_overflow(terms.overflow):
                raise ConfigError(
                    f"channel {quote(bound.name)!r} to {self.link.node_id} was accepted before it was given this "
                    "overflow, ttl or trunk; only 'block', 'drop_new' and 'disconnect' can be given so late (with a "
                    "capacity above 0, and nothing else said over there); open the name before you iterate over the "
                    "peer, or let the other side say it"
                )
            bound.terms = terms
        if retype:
            bound.codec, bound.type = codec, type
            bound.decode = None if codec.id == ID_BYTES else codec.decode

    # --- tickets -----------------------------------------------------------------------------------------------------

    def ticket(self) -> bytes | None:
        """The newest ticket of this session, as a program may store it."""
        check_fork(self.made)
        box = self.session.kept
        return None if box is None or box.newest is None else box.newest.pack()

    def has_ticket(self) -> bool:
        """True when there is a ticket, or will be none."""
        check_fork(self.made)
        box = self.session.kept
        return box is None or box.newest is not None or self.session.over

    def _on_ticket(self) -> None:
        self.ticket_waiters.wake_all()

    # --- events ------------------------------------------------------------------------------------------------------

    def events(self) -> EventLog:
        """What became of the session and its paths; kept from the first call on."""
        check_fork(self.made)
        with self._lock:
            log = self._events
            if log is None:
                log = self._events = EventLog(self.session, self.link.node_id, self.link.remote)
        me = weakref.ref(self)
        self.session.on_events = lambda: _tell(me, PeerCore._on_events)
        log.look()
        if self.session.over:
            log.end(self._end_cause())
        return log

    def _on_events(self) -> None:
        log = self._events
        if log is not None:
            log.look()

    def _end_cause(self) -> BaseException | None:
        return self.loss_cause() or self.end_error()

    # --- the end -----------------------------------------------------------------------------------------------------

    @property
    def in_use(self) -> bool:
        """True while a channel is open here, or one that came was not taken."""
        if self._offers or self._waiting:
            return True
        return any(not _is_done(endpoint) for endpoint in self.endpoints())

    @property
    def over(self) -> bool:
        """True when the session has ended."""
        return bool(self.session.over)

    def is_over(self) -> bool:
        """``over`` as a function."""
        return bool(self.session.over)

    def end_error(self) -> NetchanError | None:
        """Why the session ended: None = cleanly, or left by us."""
        session = self.session
        if session.handed_over:
            return handed_over("", self.link.node_id)
        if session.close_by_us and not session.lost:
            return None
        code = session.close_code
        if code in _ABORTS:
            return channel_aborted("", self.link.node_id, code=_ABORTS[code], reason="", by_us=False)
        if code or session.lost:
            return session_lost("", self.link.node_id, _why(code, bool(session.lost)), cause=self.loss_cause())
        return None

    def lost(self) -> tuple[SessionLost, ...]:
        """Reports of all channels that have something to report."""
        if not self.session.over or not isinstance(self.end_error(), SessionLost) or self.session.handed_over:
            return ()
        reports = [end.loss() for end in self.endpoints()]
        return tuple(report for report in reports if report is not None)

    def loss_cause(self) -> BaseException | None:
        """The fault behind a lost session: ProtocolError, ConnectionError, or None."""
        session = self.session
        if not session.over:
            return None
        if session.handed_over:
            return handed_over("", self.link.node_id).cause
        code = session.close_code
        if code == TIMEOUT and session.lost:
            return ConnectionResetError(
                f"the connection with {self.link.node_id} at {self.link.remote} was cut, or it was silent too long; "
                "dial again when it can be reached"
            )
        if code == DUPLICATE:
            return ConnectionResetError(
                f"both sides have dialled, and the other session with {self.link.node_id} is kept; use that: "
                "node.peer() gives it"
            )
        if code == REPLACED:
            here = session.close_by_us
            return ConnectionResetError(
                f"{self.link.node_id if here else 'another process of this identity'} has begun a new session with a "
                f"ticket of this one; {'its peer comes from the listener' if here else 'only one can go on'}"
            )
        if code >= PROTOCOL:
            said = quote(session.close_reason)
            who = "this side, for what came from it" if session.close_by_us else "it, for what it says we sent"
            return ProtocolError(
                f"the session with {self.link.node_id} was closed by {who}: code {code}{f' ({said})' if said else ''}; "
                "run the same version on both sides, and report it if they do",
                remote=bool(session.close_by_us),
            )
        if not session.lost:
            return None
        return ConnectionResetError(
            f"the connection with {self.link.node_id} at {self.link.remote} ended without a close; dial again"
        )

    def leave(self) -> None:
        """Begin to leave cleanly; ``is_over`` tells when it is done. Idempotent, any thread, never waits."""
        check_fork(self.made)
        with self._lock:
            if self.left or self.session.over:
                return
            self.left = True
            endpoints = list(self._open.values())
        leaving = self._leaving = _Leaving(self, endpoints)
        leaving.start()

    def leave_as_duplicate(self) -> None:
        """Another session with the same node is kept: over now, and lost on both sides. Never waits."""
        self.duplicate = True
        if not self.session.over:
            self.session.close(DUPLICATE)
        self._woken()

    def leave_by_exception(self) -> None:
        """Leave now: the other side gets what arrives in order, then ChannelAborted. Never waits."""
        check_fork(self.made)
        self.left = True
        if not self.session.over:
            self.session.close(CLOSE_EXCEPTION)
        self._woken()

    def finish_leaving(self, rest: int, late: bool) -> None:
        """All has arrived, or time is over (``late``), or the session is: close it.

        ``rest``: channels that still had values.
        """
        if rest and self.session.suspended:
            log.warning(
                "left %s, to which there was no path for %g s, with %d channels whose values had not all arrived",
                self.link.node_id,
                self.config.close_timeout,
                rest,
            )
        elif rest and not self.session.over:
            log.warning(
                "left %s with %d channels whose values had not all arrived after %g s; see whether it reads, or raise "
                "Config.close_timeout",
                self.link.node_id,
                rest,
                self.config.close_timeout,
            )
        elif late and not self.session.over:
            log.warning(
                "left %s before all that was sent to it was acknowledged, after %g s; what it has not got is lost",
                self.link.node_id,
                self.config.close_timeout,
            )
        self._leaving = None
        if not self.session.over:
            self.session.close(CLOSE_CLEAN)
        self._woken()

    def exit_process(self) -> None:
        """The process ends: say what is lost."""
        if self.session.over or self.made != forks():
            return
        values = sum(end.sent() for end in list(self._open.values()) if not _arrived(end, end.sent()))
        log.warning(
            "process exits with an open session to %s: %d channels; %d values in those that had not all arrived; "
            "close() the peer before, or leave it by 'with'",
            self.link.node_id,
            len(self._open),
            values,
        )

    def _on_over(self) -> None:
        channels = len(self._open)  # before those that are done are let go
        changes.ended()
        if self._events is not None:
            self._events.end(self._end_cause())
        self._woken()
        error = self.end_error()
        if self.session.handed_over:
            log.info("the session with %s lives on in another process", self.link.node_id)
        elif error is not None and not self._logged:
            self._logged = True
            stats = self.session.stats()
            log.warning(
                "%s (%d channels open here, %d bytes sent, %d received)",
                error,
                channels,
                stats.get("bytes_sent", 0),
                stats.get("bytes_received", 0),
            )

    def must_warn(self) -> bool:
        """True if the front is collected while nobody has ended the session."""
        return self.made == forks() and not (self.left or self.duplicate or self.session.over)

    def _woken(self) -> None:
        if self.session.over:
            # channels hold their peer: what is done is let go here, so that no cycle is left to the collector
            with self._lock:
                self._forget_done()
            if self.when_over is not None:
                self.when_over()
        self.end_waiters.wake_all()
        self.offer_waiters.wake_all()
        self.ticket_waiters.wake_all()


class _Notice:
    """Warns when it is collected, which is at once: a warning that is made an error is then reported like that of any
    finaliser, and does not stop the caller, who has nothing to do with it.
    """

    __slots__ = ("_end",)

    def __init__(self, end: RemoteEndpoint) -> None:
        self._end = end

    def __del__(self) -> None:
        end = self._end
        if not sys.is_finalizing():
            warnings.warn(
                f"the last sender of channel {quote(end.name)!r} to {end.peer_id} was garbage-collected without close()"
                ", and the peer was not left: the receiver gets ChannelAborted, not an end; call close() or use a "
                "with-block",
                ResourceWarning,
                stacklevel=2,
                source=end,
            )


def _drop(end: RemoteEndpoint) -> None:
    """Give a channel up whose last sending handle is gone."""
    # The warning first: who receives the abort may leave the block that expects it.
    if end.missed:
        _Notice(end)
    end.drop_now()


class _Leaving:
    """The clean end of one session, driven by the worker."""

    def __init__(self, core: PeerCore, endpoints: list[RemoteEndpoint]) -> None:
        self._core = core
        self._deadline_ns = time.monotonic_ns() + int(core.config.close_timeout * 1e9)
        self._delay_ns = LOOK_MIN_NS
        self._worker: Worker = worker()
        self._hint = Hint(lambda: self._worker.post(self._look))
        self._rest: list[tuple[RemoteEndpoint, int]] = []
        self._done = False
        for endpoint in endpoints:
            if endpoint.handles.unclean:
                endpoint.close_unclean()
            else:
                endpoint.close_send()
            self._rest.append((endpoint, endpoint.sent()))

    def start(self) -> None:
        """Look at once, then on the worker. Without a path there is somebody to hear of it only if one comes."""
        self._rest = [item for item in self._rest if not _arrived(*item)]
        if not self._rest and self._core.session.at_rest():
            self._finish()
            return
        for endpoint, position in self._rest:
            endpoint.ask("received", position)
            endpoint.ack_waiters.join(self._hint)
        self._worker.post(self._tick)

    def _tick(self) -> None:
        self._look()
        if not self._done:
            self._worker.at(time.monotonic_ns() + self._delay_ns, self._tick)
            self._delay_ns = min(2 * self._delay_ns, LOOK_MAX_NS)

    def _look(self) -> None:
        if self._done:
            return
        self._hint.rearm()
        here = []
        for endpoint, position in self._rest:
            if _arrived(endpoint, position):
                endpoint.ack_waiters.leave(self._hint, _no)
            else:
                here.append((endpoint, position))
        self._rest = here
        session = self._core.session
        done = session.over or (not here and session.at_rest())
        late = not done and time.monotonic_ns() >= self._deadline_ns
        if done or late:
            self._finish(late=late)

    def _finish(self, *, late: bool = False) -> None:
        self._done = True
        rest, self._rest = self._rest, []
        for endpoint, _ in rest:
            endpoint.ack_waiters.leave(self._hint, _no)
        self._hint.forget()
        self._core.finish_leaving(len(rest), late)


def _no() -> bool:
    return False


def _tell(reference: weakref.ref[PeerCore], call: Callable[[PeerCore], object]) -> None:
    core = reference()
    if core is not None:
        call(core)


def _arrived(endpoint: RemoteEndpoint, position: int) -> bool:
    if endpoint.backlogged:
        return False
    if not endpoint.paired:
        # nobody over there has opened it, so nobody reports; its few values (limits.unopened_*) travel before the
        # close, which waits until the session is at rest
        return True
    try:
        return bool(endpoint.reached("received", position))
    except ChannelError:
        return True  # it never will: nothing to wait for


def is_bound(endpoint: RemoteEndpoint) -> bool:
    """R10: until this side has closed its sending direction, aborted, or taken the other side's end."""
    tx, rx, closing, *_ = endpoint.state
    if closing or tx in (_FIN, _ABORT_AFTER, _ABORT) or rx == _ABORT:
        return False
    return not (rx in (_FIN, _ABORT_AFTER) and endpoint.recv_over)


def _is_done(endpoint: RemoteEndpoint) -> bool:
    """Both directions are over, and all that was sent has arrived."""
    return bool(endpoint.send_over and endpoint.recv_over and _arrived(endpoint, endpoint.sent()))


def check_name(name: object) -> None:
    """ConfigError unless ``name`` is 1 to 255 bytes of UTF-8 without control characters, and not reserved."""
    if not isinstance(name, str):
        raise ConfigError(f"channel name {name!r} is a {type(name).__name__}; give a str")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"channel name {name[:80]!a} holds a lone surrogate; give text for UTF-8") from None
    if not 1 <= size <= 255:
        raise ConfigError(f"channel name has {size} bytes of UTF-8; give 1 to 255")
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in name):
        raise ConfigError(f"channel name {name[:80]!a} holds a control character; give printable text")
    if name.startswith(RESERVED):
        raise ConfigError(f"channel name {name[:80]!a} begins with {RESERVED!r}, which is reserved; choose another")


_FORMS: Final[dict[int, Any]] = {codec_for(form).id: form for form in (bytes, str, int, float, bool)}


def _why(code: int, lost: bool) -> str:
    if code == REPLACED:
        return "a new one was begun with a ticket of it"
    if code == DUPLICATE:
        return "another one with the same node is kept"
    if code and not (code == TIMEOUT and lost):
        return f"it was closed with code {code}"
    return "the connection ended without a close" if lost else "it ended"
