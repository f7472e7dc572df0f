"""What both kinds of Listener share: the acceptor, and the sessions that came in. The queue of peers is lobby.py.

Layer 6: no waiting, no sockets. ``welcome`` runs on the worker's thread, everything else on any.
Spec: docs/spec/session.md §7; docs/spec/handshake.md §9.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from netchan.channel.base import ChannelStats
from netchan.config import Config
from netchan.errors import ChannelError
from netchan.net.dial import Link
from netchan.net.listen import Inherited, Listening, ListenPlan
from netchan.net.manager import AskTrust, Home, check_fork
from netchan.net.wait import WaitQueue, leaf_lock
from netchan.net.worker import forks
from netchan.node.session import PeerCore

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.node.lobby import Lobby
    from netchan.node.roster import Roster


@dataclass(frozen=True, slots=True)
class ListenerStats(ChannelStats):
    """What ``Listener.stats()`` returns: the counts of the queue of peers, and those of the door.

    Attributes:
        peers: sessions that came in and are not over.
        accepted: connections taken from the kernel.
        handshakes_ok: handshakes that led to a session.
        resumed: sessions that had come in before and came back over another connection.
        by_ticket: of ``handshakes_ok`` those that began with a ticket of an earlier session.
        tickets_refused: tickets that began nothing, by reason; a full handshake may have followed.
        moved: times that a UDP path was heard from a new address of its peer, which is then proved.
        resets: datagrams of UDP paths that this process does not know whose senders were told so.
        cookies: first messages over UDP that came under load and were asked to prove their address.
        handshakes_failed: handshakes that did not, by reason (lower-case names of the codes; "carrier", "fault").
        drained: connections that did not prove the gate and got no answer.
        refused: connections closed unread because a limit on strangers was reached.
        half_open: handshakes going on now.
        held: silent connections held open now; over UDP those that may have to hear their refusal again.
        accept_errors: failed accepts.
    """

    peers: int = 0
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


class Hall:
    """See the module head.

    Args:
        plan: checked arguments.
        home: where the sessions live.
        ask: awaits trust callables.
        inherited: sockets that another process listened on (Listening).
    """

    def __init__(self, plan: ListenPlan, home: Home, ask: AskTrust, inherited: Inherited | None = None) -> None:
        self.config: Config = plan.config
        self.engine = home.engine
        self.node_id = plan.handshake.identity.node_id
        self.addresses: tuple[str, ...] = ()
        self.made = forks()
        self.end_waiters = WaitQueue()
        self.closed = False
        self.arriving = 0  # hand-overs that still bring sessions to it
        me = weakref.ref(self)

        def deliver(session: Session, link: Link) -> None:
            hall = me()
            if hall is None:
                raise RuntimeError("the listener is gone")
            hall._welcome(session, link)

        self.listening = Listening(plan, home, deliver, ask, inherited)
        self._lock = leaf_lock()
        self._cores: weakref.WeakSet[PeerCore] = weakref.WeakSet()
        self._lobby: Lobby | None = None
        self._roster: weakref.ref[Roster] | None = None
        self._heirs: deque[Any] = deque()

    def give_to(self, lobby: Lobby, roster: Roster | None = None) -> None:
        """Let peers wait there; ``roster`` shares it with others, and is asked who comes out."""
        self._lobby = lobby
        lobby.endpoint.driver = self.engine
        if roster is not None:
            self._roster = weakref.ref(roster)

    @property
    def lobby(self) -> Lobby:
        """Where peers wait. RuntimeError: there is none yet."""
        if self._lobby is None:
            raise RuntimeError("no queue yet")
        return self._lobby

    def start(self) -> None:
        """Open the door; the outcome is that of ``listening``."""
        self.listening.start()

    # --- peers come and go -------------------------------------------------------------------------------------------

    def _welcome(self, session: Session, link: Link) -> None:
        core = PeerCore(session.engine, session, link, self.config)
        lobby, me = self.lobby, weakref.ref(self)
        core.when_over = lambda: _over(me)
        with self._lock:
            self._cores.add(core)
        peer = lobby.make(core)
        roster = self._roster() if self._roster is not None else None
        if roster is None or roster.came(self, core, peer):
            self.give_out(core, peer)

    def give_out(self, core: PeerCore, peer: object) -> None:
        """It waits for the program from now on."""
        if self.closed or not self.lobby.put(self, peer):
            core.leave_by_exception()

    def inherit(self, cores: list[PeerCore]) -> None:
        """Sessions that came in when another process listened: given out as there is room for them. Any thread."""
        lobby, me = self.lobby, weakref.ref(self)
        roster = self._roster() if self._roster is not None else None
        for core in cores:
            core.when_over = lambda: _over(me)
            peer = lobby.make(core)
            with self._lock:
                self._cores.add(core)
            if roster is None or roster.enter(core):
                with self._lock:
                    self._heirs.append(peer)
        self._give_out()
        if self.closed:  # it was left before they came
            for core in cores:
                core.leave_by_exception()

    def _give_out(self) -> None:
        lobby = self.lobby
        while not self.closed:
            with self._lock:
                peer = self._heirs.popleft() if self._heirs else None
            if peer is None:
                return
            self.listening.occupy()
            try:
                sent = lobby.put(self, peer)
            except ChannelError:
                return  # the listener was left meanwhile
            if not sent:
                self.listening.vacate()
                with self._lock:
                    self._heirs.appendleft(peer)
                if lobby.waiting(self) >= self.config.backlog:
                    return  # whoever takes one comes here again

    def queued(self) -> int:
        """Peers that the program has not taken yet."""
        return len(self._heirs) + (0 if self.closed else self.lobby.waiting(self))

    def took(self, n: int) -> None:
        """So many of its peers were taken by the program."""
        self._give_out()
        self.listening.room(n)

    def living(self) -> list[PeerCore]:
        """Sessions that are not over."""
        with self._lock:
            return [core for core in self._cores if not core.over]

    def is_empty(self) -> bool:
        """True when every session is over."""
        return not self.living()

    def gone(self) -> None:
        """A session is over."""
        self.end_waiters.wake_all()
        roster = self._roster() if self._roster is not None else None
        if roster is not None:
            roster.gone()

    # --- leaving -----------------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Another process listens, and has the peers, those that wait here too. On the worker's thread."""
        self.closed = True
        self.listening.leave_sockets()
        self._heirs.clear()
        self.lobby.empty()
        self.gone()

    def stop(self) -> None:
        """Stop accepting; the peers stay."""
        check_fork(self.made)
        self.closed = True
        self.listening.close()

    def leave(self) -> None:
        """Stop accepting, begin to leave every peer."""
        self.stop()
        for core in self.living():
            core.leave()
        if self._lobby is not None and self._roster is None:
            self._lobby.end()
        self.gone()

    def leave_by_exception(self) -> None:
        """Stop accepting, leave every peer as by an exception."""
        self.stop()
        for core in self.living():
            core.leave_by_exception()
        if self._lobby is not None and self._roster is None:
            self._lobby.end()
        self.gone()

    def collected(self) -> bool:
        """The front is gone: close the door; True if it was open and its user should hear of it."""
        if self.closed or self.made != forks():
            return False
        self.closed = True
        self.listening.close()
        # peers in the queue go with it, those that were taken are left as well: peers do not outlive their listener
        living = self.living()
        self.listening.later(lambda: _leave_all(living))
        return bool(self.addresses)

    def stats(self, queue: ChannelStats) -> ListenerStats:
        """The snapshot for users."""
        counts = self.listening.counts()
        return ListenerStats(
            sent=queue.sent,
            received=queue.received,
            taken=queue.taken,
            discarded=queue.discarded,
            pending=queue.pending,
            capacity=queue.capacity,
            senders_waiting=0,
            receivers_waiting=queue.receivers_waiting,
            credit_limited=None,
            peers=len(self.living()),
            accepted=counts.accepted,
            handshakes_ok=counts.handshakes_ok,
            resumed=counts.resumed,
            by_ticket=counts.by_ticket,
            tickets_refused=counts.tickets_refused,
            moved=counts.moved,
            resets=counts.resets,
            cookies=counts.cookies,
            handshakes_failed=counts.handshakes_failed,
            drained=counts.drained,
            refused=counts.refused,
            half_open=counts.half_open,
            held=counts.held,
            accept_errors=counts.accept_errors,
        )


def _leave_all(cores: list[PeerCore]) -> None:
    for core in cores:
        core.leave_by_exception()


def _over(reference: weakref.ref[Hall]) -> None:
    hall = reference()
    if hall is not None:
        hall.gone()
