"""What both kinds of Node share: its listeners, the sessions of its identity, and which of them is whose.

Layer 6: no waiting, no sockets. ``came``, ``made`` and what a dial ends with run on the worker's thread, so of two
sessions one is always the first; everything else on any. Spec: docs/spec/node.md.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from netchan.channel.base import ChannelStats
from netchan.config import Config
from netchan.errors import ConfigError, DialError
from netchan.net.dial import Dial, DialPlan, Link
from netchan.net.identity import Identity
from netchan.net.manager import AskTrust, Home, check_fork
from netchan.net.wait import WaitQueue, leaf_lock
from netchan.net.worker import forks, worker
from netchan.node.flight import Flight
from netchan.node.hall import Hall, ListenerStats
from netchan.node.hints import Hint
from netchan.node.lobby import Lobby
from netchan.node.pool import Pool
from netchan.node.session import PeerCore

if TYPE_CHECKING:
    from netchan._engine.engine_handle import Engine
    from netchan._engine.session_handle import Session

LISTENERS_MAX: Final = 32
"""Listeners of one node."""
KNOWN_MAX: Final = 4096
"""Nodes whose addresses are remembered."""
HOLD_S: Final = 1.0
"""A session that came in waits so long at most for a dial to its node that is under way."""


@dataclass(frozen=True, slots=True)
class NodeStats(ListenerStats):
    """What ``Node.stats()`` returns: the counts of all its listeners together, and of what it dialled.

    Attributes:
        dialled: sessions that this node has begun and that are not over.
        pooled: of these, those that ``peer`` keeps.
        dials: dials that were begun.
        reused: times that ``peer``, or ``dial`` with ``single_session``, gave a session that was there.
        left_unused: pooled sessions that were left since nobody used them.
        duplicates: sessions that were closed because another one with the same node is kept.
    """

    dialled: int = 0
    pooled: int = 0
    dials: int = 0
    reused: int = 0
    left_unused: int = 0
    duplicates: int = 0


@dataclass
class _Held:
    """A session that came in and waits for the end of our dial to the same node; ``hall`` is where it came in."""

    hall: Hall
    core: PeerCore
    peer: Any
    until: float


class Roster:
    """See the module head.

    Args:
        identity, config: of the node.
        lobby: where peers wait for the program.
        single: one session for a pair of nodes.
        pool: of sessions that ``peer`` dials.

    Attributes:
        end_waiters: woken when a session is over.
    """

    def __init__(self, identity: Identity, config: Config, lobby: Lobby, pool: Pool, *, single: bool) -> None:
        self.identity, self.config, self.lobby, self.pool = identity, config, lobby, pool
        self.node_id = identity.node_id
        self.engine: Engine | None = None
        self.made_in = forks()
        self.closed = False
        self.end_waiters = WaitQueue()
        self.halls: list[Hall] = []
        self._single = single
        self._lock = leaf_lock()
        self._cores: dict[str, list[weakref.ref[PeerCore]]] = {}
        self._dialled: weakref.WeakSet[PeerCore] = weakref.WeakSet()
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._flying = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._dials: Counter[str] = Counter()  # under way, by the node that they name
        self._attempts: weakref.WeakSet[Dial[Any]] = weakref.WeakSet()
        self._held: dict[str, deque[_Held]] = {}
        self._begun = self._reused = self._duplicates = 0

    # --- listeners ---------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be dialled."""
        return tuple(address for hall in self.halls for address in hall.addresses)

    def add(self, hall: Hall) -> None:
        """One more listener. ConfigError: too many, or the node was left."""
        check_fork(self.made_in)
        with self._lock:
            if self.closed:
                raise ConfigError("the node is closed; make another one")
            if len(self.halls) >= LISTENERS_MAX:
                raise ConfigError(f"a node has {LISTENERS_MAX} listeners at most; give one of them several addresses")
            self.halls.append(hall)
        if self.engine is None:
            self.engine = hall.engine
        hall.give_to(self.lobby, self)

    def drop(self, hall: Hall) -> None:
        """It did not come up."""
        with self._lock:
            self.halls.remove(hall)
        hall.leave_by_exception()

    # --- sessions ----------------------------------------------------------------------------------------------------

    def came(self, hall: Hall, core: PeerCore, peer: object) -> bool:
        """A session came in; False: it does not come out of the node, at least for now. On the worker's thread."""
        node_id = core.link.node_id
        with self._lock:
            hold = self._single and self._dials[node_id] > 0 and self.node_id < node_id
            if hold:
                until = time.monotonic() + HOLD_S
                self._held.setdefault(node_id, deque()).append(_Held(hall, core, peer, until))
        if hold:
            worker().at(int(until * 1e9), lambda: self._let_go(node_id, late=True))
            return False
        if self.enter(core):
            return True
        hall.listening.room()
        return False

    def made(self, make: Callable[[PeerCore], Any], pooled: bool, session: Session, link: Link) -> Any:
        """The peer of a session that we have dialled: of this one, or of the one that is kept instead."""
        core = PeerCore(session.engine, session, link, self.config)
        return self.adopt(core, make(core), pooled=pooled)

    def adopt(self, core: PeerCore, peer: object, *, pooled: bool = False) -> Any:
        """A session that was dialled, here or in the process before."""
        me = weakref.ref(self)
        core.when_over = lambda: _over(me)
        if not self.enter(core):
            kept = self.find(core.link.node_id)
            if kept is not None:
                return kept
        self._dialled.add(core)
        if pooled:
            self.pool.keep(core, peer)
        return peer

    def find(self, node_id: str) -> Any:
        """The peer of a living session with this node: one with a path, the newest; None: there is none."""
        check_fork(self.made_in)
        best: PeerCore | None = None
        for core in self._alive(node_id):
            if best is None or not core.session.suspended or best.session.suspended:
                best = core
        peer = None if best is None else best.front()
        if best is None or peer is None or not self.pool.use(best):
            return None
        self._reused += 1
        return peer

    def find_single(self, plan: DialPlan) -> Any:
        """With one session for a pair of nodes: the peer that such a dial would be beside; else None."""
        named = next((place.node_id for place in plan.addresses if place.node_id), None)
        return self.find(named) if self._single and named is not None else None

    def peers(self) -> tuple[Any, ...]:
        """Of all living sessions."""
        with self._lock:
            known = list(self._cores)
        found = [core.front() for node_id in known for core in self._alive(node_id)]
        return tuple(peer for peer in found if peer is not None)

    def _alive(self, node_id: str) -> list[PeerCore]:
        """Neither over nor being left, and somebody has its front; oldest first."""
        with self._lock:
            cores = [core for ref in self._cores.get(node_id, ()) if (core := ref()) is not None and not core.over]
            if cores:
                self._cores[node_id] = [weakref.ref(core) for core in cores]
            else:
                self._cores.pop(node_id, None)
        return [core for core in cores if not (core.left or core.duplicate) and core.front() is not None]

    def enter(self, core: PeerCore) -> bool:
        """It is one of ours from now on; False: another one with this node is kept, and it is over."""
        node_id = core.link.node_id
        others = self._alive(node_id) if self._single else []
        ours_first = self.node_id < node_id
        for other in others:
            mine, its = bool(core.session.initiator), bool(other.session.initiator)
            if mine != its and mine != ours_first:
                self._end(core)
                return False
        with self._lock:
            self._cores.setdefault(node_id, []).append(weakref.ref(core))
        for other in others:
            self._end(other)
        flight = self._flights.get(node_id)
        # Where ours would be kept, a dial that the other side has answered goes on: over there this one may be over.
        came = self._single and not core.session.initiator
        if came and flight is not None and not (ours_first and flight.attempt.answered):
            flight.settle(core.front())
        return True

    def _end(self, core: PeerCore) -> None:
        self._duplicates += 1
        core.leave_as_duplicate()

    def _let_go(self, node_id: str, *, late: bool = False) -> None:
        """Who waits for our dials to this node comes in now. On the worker's thread."""
        while True:
            with self._lock:
                held = self._held.get(node_id)
                if not held or (late and time.monotonic() < held[0].until):
                    return
                if self._dials[node_id] > 0 and not late:
                    return
                one = held.popleft()
                if not held:
                    del self._held[node_id]
            if one.core.over or self.closed or not self.enter(one.core):
                one.hall.listening.room()
            else:
                one.hall.give_out(one.core, one.peer)

    # --- dials -------------------------------------------------------------------------------------------------------

    def begin(self, plan: DialPlan, home: Home, ask: AskTrust, make: Callable[[PeerCore], Any]) -> Dial[Any]:
        """A dial of its own; to be started by the caller."""
        return self._dial(plan, home, ask, make, pooled=False)

    def fly(self, node_id: str, plan: DialPlan, home: Home, ask: AskTrust, make: Callable[[PeerCore], Any]) -> Flight:
        """The dial to this node that is under way, or a new one; the caller has joined it."""
        with self._flying:
            before = self._flights.get(node_id)
            if before is not None and before.join():
                return before
            flight = Flight(
                self._dial(plan, home, ask, make, pooled=True),
                lambda: self.find(node_id),
                lambda: self._landed(node_id),
            )
            flight.join()
            self._flights[node_id] = flight
        flight.start()
        return flight

    def _landed(self, node_id: str) -> None:
        with self._flying:
            found = self._flights.get(node_id)
            if found is not None and found.done:
                del self._flights[node_id]

    def _dial(
        self, plan: DialPlan, home: Home, ask: AskTrust, make: Callable[[PeerCore], Any], *, pooled: bool
    ) -> Dial[Any]:
        check_fork(self.made_in)
        if self.closed:
            raise DialError("the node is closed; make another one")
        if self.engine is None:
            self.engine = self.lobby.endpoint.driver = home.engine
        named = next((place.node_id for place in plan.addresses if place.node_id), None)
        attempt: Dial[Any] = Dial(plan, home, lambda session, link: self.made(make, pooled, session, link), _drop, ask)
        self._begun += 1
        self._attempts.add(attempt)
        if named is not None:
            self.remember(named, [str(place) for place in plan.addresses])
            with self._lock:
                self._dials[named] += 1
            attempt.outcome.queue.join(Hint(lambda: self._dialled_out(named)))
        return attempt

    def _dialled_out(self, node_id: str) -> None:
        with self._lock:
            self._dials[node_id] -= 1
            if self._dials[node_id] <= 0:
                del self._dials[node_id]
        self._let_go(node_id)

    def remember(self, node_id: str, addresses: Sequence[str]) -> None:
        """Where this node can be dialled."""
        with self._lock:
            self._known[node_id] = tuple(addresses)
            self._known.move_to_end(node_id)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    def known(self, node_id: str) -> tuple[str, ...]:
        """Where this node can be dialled; DialError: nobody has said."""
        with self._lock:
            found = self._known.get(node_id)
            if found is None:
                raise DialError(f"no address of {node_id} is known and no session with it is there; give its addresses")
            self._known.move_to_end(node_id)
            return found

    # --- leaving -----------------------------------------------------------------------------------------------------

    def living(self) -> list[PeerCore]:
        """Dialled sessions that are not over."""
        return [core for core in list(self._dialled) if not core.over]

    def is_empty(self) -> bool:
        """True when every session is over."""
        return not self.living() and all(hall.is_empty() for hall in self.halls)

    def gone(self) -> None:
        """A session is over."""
        self.end_waiters.wake_all()

    def stop(self) -> None:
        """Neither listen nor dial any more; the peers stay."""
        check_fork(self.made_in)
        with self._lock:
            self.closed = True
            attempts = list(self._attempts)
        for attempt in attempts:
            if not attempt.outcome.done:
                attempt.cancel()
        for hall in self.halls:
            hall.stop()

    def leave(self) -> None:
        """Stop, and begin to leave every peer."""
        self._leave(PeerCore.leave)

    def leave_by_exception(self) -> None:
        """Stop, and leave every peer as by an exception."""
        self._leave(PeerCore.leave_by_exception)

    def _leave(self, how: Callable[[PeerCore], None]) -> None:
        self.stop()
        for core in [*self.living(), *(core for hall in self.halls for core in hall.living())]:
            how(core)
        self.pool.clear()
        self.lobby.end()
        self.gone()

    def collected(self) -> bool:
        """The front is gone: close the doors; True if its user should hear of it."""
        if self.closed or self.made_in != forks():
            return False
        self.closed = True
        self.pool.clear()
        living = self.living()
        told = [hall.collected() for hall in self.halls]
        if living:
            worker().post(lambda: _leave_all(living))
        return any(told) or bool(living)

    def stats(self, queue: ChannelStats) -> NodeStats:
        """The snapshot for users."""
        total = _values(queue, _QUEUE)
        for hall in self.halls:
            for name, value in _values(hall.stats(queue), _DOOR).items():
                total[name] = _sum(total[name], value) if name in total else value
        return NodeStats(
            **total,
            dialled=len(self.living()),
            pooled=len(self.pool),
            dials=self._begun,
            reused=self._reused,
            left_unused=self.pool.left,
            duplicates=self._duplicates,
        )


_QUEUE: Final = tuple(field.name for field in fields(ChannelStats))
_DOOR: Final = tuple(field.name for field in fields(ListenerStats) if field.name not in _QUEUE)


def _values(stats: ChannelStats, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(stats, name) for name in names}


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, int):
        return one + other
    return {name: one.get(name, 0) + other.get(name, 0) for name in {*one, *other}}


def _drop(peer: Any) -> None:
    peer._core.leave_by_exception()


def _leave_all(cores: list[PeerCore]) -> None:
    for core in cores:
        core.leave_by_exception()


def _over(reference: weakref.ref[Roster]) -> None:
    roster = reference()
    if roster is not None:
        roster.gone()
