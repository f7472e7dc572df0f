"""``Node``: one identity that listens and dials, and the receiver of all peers that come.

Layer 6; netchan/sync/node.py is made from this file by tools/async_to_sync.py. All state is in roster.py; this adds
waiting. Spec: docs/spec/node.md.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import (
    Coroutine,  # async-only
    Sequence,
)
from typing import (
    TYPE_CHECKING,
    Any,  # async-only
    Final,
)

from netchan.channel.making import channel_endpoint
from netchan.channel.receiver import Receiver
from netchan.config import Config
from netchan.errors import ConfigError
from netchan.net.address import parse_addresses
from netchan.net.dial import DialPlan
from netchan.net.identity import Identity, parse_node_id
from netchan.net.listen import ListenPlan

# async-only: begin
from netchan.net.manager import ask_in_loop, loop_home

# async-only: end
# sync-only: from netchan.net.manager import caller_home, check_blocking_trust, refuse_awaitables
from netchan.net.record import Membership
from netchan.net.trust import Trust  # async-only

# sync-only: from netchan.net.trust import BlockingTrust
from netchan.node.hall import Hall
from netchan.node.legacy import Claim
from netchan.node.listener import Listener
from netchan.node.lobby import Lobby
from netchan.node.opening import (
    Opening,  # async-only
    dialled,
    listening,
)
from netchan.node.peer import Peer
from netchan.node.plan import NETWORK, Pq, check_node, check_number, plan_dial, plan_listen
from netchan.node.pool import Pool
from netchan.node.roster import LISTENERS_MAX, NodeStats, Roster
from netchan.node.session import PeerCore
from netchan.node.waits import new_waiter, wait_until

if TYPE_CHECKING:
    from netchan.node.handover import TakenOver


POOL_MAX: Final = 1 << 20
POOL_IDLE_MAX: Final = 1e9


class Node(Listener):
    """One identity that listens and dials: the receiver of the peers of all its listeners.

    ``async with`` leaves it, and with it every session of it, whichever side dialled. In a child after ``fork`` its
    calls raise ForkError.

    Args:
        identity: who we are; None = a fresh key in memory.
        trust: whom to accept, here and there, as for ``listen`` and ``dial``.
        psk: secrets of 32 bytes or more, up to 16; dials use the first.
        config: settings of every listener and every dial.
        network, pq, membership: as for ``dial``.
        known_nodes: as for ``dial``.
        single_session: keep one session for each other node; of two that both sides began, the one that the smaller
            node id began. Without, each dial is a session.
        pool_size: so many sessions that ``peer`` dialled are kept though nobody uses them; 0 to 2^20.
        pool_idle: seconds, 0 to 1e9; one that nobody has used for so long is left.

    Raises:
        ConfigError: an argument cannot be used.
    """

    __slots__ = ("_given", "_identity", "_psks", "_roster")

    def __init__(
        self,
        *,
        identity: Identity | None = None,
        # sync-only: trust: BlockingTrust | None = None,
        trust: Trust | None = None,  # async-only
        psk: bytes | Sequence[bytes] | None = None,
        config: Config | None = None,
        network: str = NETWORK,
        pq: Pq = "require",
        membership: Membership | bytes | None = None,
        known_nodes: str | os.PathLike[str] | None = None,
        single_session: bool = False,
        pool_size: int = 64,
        pool_idle: float = 60.0,
    ) -> None:
        # sync-only: check_blocking_trust(trust)
        self._identity, self._psks, settings = check_node(identity, psk, config)
        check_number("pool_size", pool_size, 0, POOL_MAX)
        check_number("pool_idle", pool_idle, 0, POOL_IDLE_MAX)
        self._given = (trust, settings, network, pq, membership, known_nodes)
        endpoint = channel_endpoint(Peer, LISTENERS_MAX * settings.backlog)
        lobby, pool = Lobby(endpoint, Peer), Pool(pool_size, float(pool_idle))
        self._roster = self._hall = Roster(self._identity, settings, lobby, pool, single=bool(single_session))
        Receiver.__init__(self, endpoint)

    def stats(self) -> NodeStats:
        """A frozen snapshot: the counts of all its listeners together, its dials, its pool."""
        return self._roster.stats(Receiver.stats(self))

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The living sessions, whichever side began them; those included that nobody has taken yet."""
        return self._roster.peers()

    # --- listening ---------------------------------------------------------------------------------------------------

    # async-only: begin
    def listen(
        self, addresses: str | Sequence[str], *, stealth: bool = False, inherit: TakenOver | None = None
    ) -> Coroutine[Any, Any, tuple[str, ...]]:
        """Listen there, too; the peers come out of this node. To be awaited.

        Args:
            addresses: as for ``netchan.listen``.
            stealth: answer only those who know our node id and have a clock.
            inherit: what ``take_over`` returned: sockets and sessions of the process before are used.

        Returns:
            Where it can be dialled, node id and port included.

        Raises:
            ConfigError: an argument cannot be used, or there are 32 listeners (from the call itself). ListenError: an
                address cannot be bound.

        Cancelled: nothing stays open.
        """
        plan = self._plan_listen(addresses, stealth)
        return self._listen(plan, _claim(plan, inherit))

    def dial(self, addresses: str | Sequence[str], *, inherit: TakenOver | None = None) -> Opening[Peer]:
        """Open a session with one node; ``await`` it, or ``async with`` it.

        With ``single_session`` it is the one that is there, if the addresses name a node with which there is one.

        Args:
            addresses: as for ``netchan.dial``.
            inherit: what ``take_over`` returned: the session that the process before had dialled there, if it gave one.

        Raises:
            As ``netchan.dial``. DialError: the node is closed.

        Cancelled: nothing stays open.
        """
        return Opening(self._dial(self._plan_dial(addresses), inherit))

    def peer(  # type: ignore[override]  # a Receiver's says whose channel it is: a node is nobody's
        self, where: str | Sequence[str]
    ) -> Coroutine[Any, Any, Peer]:
        """The living session with a node, whoever began it; else one that is dialled now. To be awaited.

        All who ask for it have the same peer: close it only when nobody else may use it. One that was dialled here is
        left by the node when no channel was open on it for ``pool_idle`` seconds; ask again then.

        Args:
            where: a node id, of which an address is known from an earlier call; or addresses, one at least with the
                node id: ``tcp://<id>@host:port``.

        Raises:
            ConfigError: neither (from the call itself). DialError: no address of it is known, or the node is closed;
                and as ``netchan.dial``.

        Cancelled: a dial goes on as long as somebody waits for it.
        """
        node_id, addresses = _named(where)
        return self._peer(node_id, None if addresses is None else self._plan_dial(addresses))

    # async-only: end
    # sync-only: def listen(
    # sync-only:     self,
    # sync-only:     addresses: str | Sequence[str],
    # sync-only:     *,
    # sync-only:     stealth: bool = False,
    # sync-only:     inherit: TakenOver | None = None,
    # sync-only:     timeout: float | None = None,
    # sync-only: ) -> tuple[str, ...]:
    # sync-only:     """Listen there, too; arguments and errors as ``netchan.Node.listen``.
    # sync-only:
    # sync-only:     TimeoutError: looking the addresses up took more than ``timeout`` seconds; nothing stays open.
    # sync-only:     """
    # sync-only:     plan = self._plan_listen(addresses, stealth)
    # sync-only:     return self._listen(plan, _claim(plan, inherit), timeout=timeout)
    # sync-only:
    # sync-only: def dial(
    # sync-only:     self,
    # sync-only:     addresses: str | Sequence[str],
    # sync-only:     *,
    # sync-only:     inherit: TakenOver | None = None,
    # sync-only:     timeout: float | None = None,
    # sync-only: ) -> Peer:
    # sync-only:     """Open a session with one node; arguments and errors as ``netchan.Node.dial``.
    # sync-only:
    # sync-only:     TimeoutError: ``timeout`` seconds (besides ``Config.dial_timeout``) passed first; nothing is open.
    # sync-only:     """
    # sync-only:     return self._dial(self._plan_dial(addresses), inherit, timeout=timeout)
    # sync-only:
    # sync-only: def peer(  # type: ignore[override]  # a Receiver's says whose channel it is: a node is nobody's
    # sync-only:     self, where: str | Sequence[str], *, timeout: float | None = None
    # sync-only: ) -> Peer:
    # sync-only:     """The living session with a node, or a dial; arguments and errors as ``netchan.Node.peer``.
    # sync-only:
    # sync-only:     TimeoutError: ``timeout`` seconds (besides ``Config.dial_timeout``) passed first; a dial goes on as
    # sync-only:     long as somebody waits for it.
    # sync-only:     """
    # sync-only:     node_id, addresses = _named(where)
    # sync-only:     plan = None if addresses is None else self._plan_dial(addresses)
    # sync-only:     return self._peer(node_id, plan, timeout=timeout)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _moves(self) -> tuple[list[Hall], list[PeerCore]]:
        return list(self._roster.halls), self._roster.living()

    def _plan_listen(self, addresses: str | Sequence[str], stealth: bool) -> ListenPlan:
        trust, config, network, pq, membership, _ = self._given
        return plan_listen(
            addresses,
            identity=self._identity,
            trust=trust,
            psk=self._psks or None,
            config=config,
            network=network,
            pq=pq,
            membership=membership,
            stealth=stealth,
        )

    def _plan_dial(self, addresses: str | Sequence[str]) -> DialPlan:
        trust, config, network, pq, membership, known_nodes = self._given
        return plan_dial(
            addresses,
            identity=self._identity,
            trust=trust,
            psk=self._psks[0] if self._psks else None,
            config=config,
            network=network,
            pq=pq,
            membership=membership,
            known_nodes=known_nodes,
            ticket=None,
        )

    async def _listen(self, plan: ListenPlan, came: Claim | None) -> tuple[str, ...]:  # + timeout
        # async-only: begin
        home = await loop_home(plan.config)
        ask = ask_in_loop()
        # async-only: end
        # sync-only: home = caller_home(plan.config)
        # sync-only: ask = refuse_awaitables
        hall = Hall(plan, home, ask, None if came is None else came.sockets)
        self._roster.add(hall)
        try:
            await listening(hall, came, new_waiter(home.engine))
        except BaseException:
            self._roster.drop(hall)
            raise
        return hall.addresses

    async def _dial(self, plan: DialPlan, inherit: TakenOver | None) -> Peer:  # + timeout
        roster = self._roster
        if inherit is not None:
            legacy = inherit._legacy
            await wait_until(lambda: legacy.may_claim(plan), legacy.news, new_waiter(legacy.home.engine))
            heir = legacy.claim_dialled(plan)
            if heir is not None:
                core = heir.core(plan.config)
                inherited: Peer = roster.adopt(core, Peer(core))
                return inherited
        found: Peer | None = roster.find_single(plan)
        if found is not None:
            return found
        # async-only: begin
        home = await loop_home(plan.config)
        ask = ask_in_loop()
        # async-only: end
        # sync-only: home = caller_home(plan.config)
        # sync-only: ask = refuse_awaitables
        return await dialled(roster.begin(plan, home, ask, Peer), new_waiter(home.engine))

    async def _peer(self, node_id: str, plan: DialPlan | None) -> Peer:  # + timeout
        roster = self._roster
        found: Peer | None = roster.find(node_id)
        if plan is not None:
            roster.remember(node_id, [str(place) for place in plan.addresses])
        if found is not None:
            return found
        if plan is None:
            plan = self._plan_dial(roster.known(node_id))
        # async-only: begin
        home = await loop_home(plan.config)
        ask = ask_in_loop()
        # async-only: end
        # sync-only: home = caller_home(plan.config)
        # sync-only: ask = refuse_awaitables
        flight = roster.fly(node_id, plan, home, ask, Peer)
        try:
            await wait_until(flight.is_done, flight.waiters, new_waiter(home.engine))
            peer: Peer = flight.result()
            return peer
        finally:
            flight.part()

    # --- the object --------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "closed" if self._roster.closed else "open"
        return f"<Node {self.node_id} {state} {' '.join(self.addresses)}>".replace(" >", ">")

    def __del__(self) -> None:
        roster: Roster | None = getattr(self, "_roster", None)
        if roster is not None and roster.collected() and not sys.is_finalizing():
            warnings.warn(
                f"the node {roster.node_id} was garbage-collected without close(): its sessions are left as by an "
                "exception; call close() or use 'async with'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        Receiver.__del__(self)


def _claim(plan: ListenPlan, inherit: TakenOver | None) -> Claim | None:
    if inherit is None:
        return None
    return inherit._legacy.claim_listener(plan.addresses, plan.handshake.identity.node_id)


def _named(where: str | Sequence[str]) -> tuple[str, list[str] | None]:
    """(node id, addresses that all name it; None: it was given alone). ConfigError: neither names a node."""
    if isinstance(where, str) and "://" not in where:
        try:
            parse_node_id(where)
        except ValueError as error:
            raise ConfigError(f"{where!r} is neither a node id nor an address ({error})") from None
        return where, None
    places = parse_addresses(where)
    node_id = next((place.node_id for place in places if place.node_id), None)
    if node_id is None:
        raise ConfigError(
            f"peer({where!r}) does not say of which node; write tcp://<node id>@host:port, or use dial() if it may be "
            "anybody"
        )
    return node_id, [str(place.with_id(node_id)) for place in places]
