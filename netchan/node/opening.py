"""``dial`` and ``listen``: objects to ``await`` or to ``async with``.

Layer 6; netchan/sync/opening.py is made from this file by tools/async_to_sync.py, where both return the object itself.
Arguments are checked by the call; nothing else happens before the first step. Spec: docs/spec/handshake.md §3, §7.
"""

from __future__ import annotations

import os
from collections.abc import (
    Coroutine,  # async-only
    Generator,  # async-only
    Sequence,
)
from functools import partial
from types import TracebackType  # async-only
from typing import (
    TYPE_CHECKING,
    Any,  # async-only
    Generic,  # async-only
    Protocol,  # async-only
    TypeVar,  # async-only
)

from netchan.config import Config
from netchan.net.dial import Dial, DialPlan, Link
from netchan.net.identity import Identity
from netchan.net.listen import ListenPlan

# async-only: begin
from netchan.net.manager import ask_in_loop, loop_home

# async-only: end
# sync-only: from netchan.net.manager import caller_home, check_blocking_trust, refuse_awaitables
from netchan.net.record import Membership
from netchan.net.trust import Trust  # async-only

# sync-only: from netchan.net.trust import BlockingTrust
from netchan.net.wait import AsyncWaiter
from netchan.node.hall import Hall
from netchan.node.legacy import Claim, Heir, Legacy
from netchan.node.listener import Listener
from netchan.node.peer import Peer
from netchan.node.plan import NETWORK, Pq, plan_dial, plan_listen
from netchan.node.session import PeerCore
from netchan.node.waits import new_waiter, wait_until

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

# async-only: begin


class _Left(Protocol):
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


O_co = TypeVar("O_co", bound=_Left, covariant=True)


class Opening(Coroutine[Any, Any, O_co], Generic[O_co]):
    """What ``dial`` and ``listen`` return: a coroutine that is a context manager too; to be used once.

    ``peer = await dial(...)`` leaves the closing to you, ``async with dial(...) as peer`` closes it.
    """

    __slots__ = ("__weakref__", "_made", "_run")

    def __init__(self, run: Coroutine[Any, Any, O_co]) -> None:
        self._run = run
        self._made: O_co | None = None

    def __await__(self) -> Generator[Any, Any, O_co]:
        return self._run.__await__()

    def send(self, value: Any, /) -> Any:
        """One step, as of any coroutine: StopIteration brings the result. RuntimeError: it has run before."""
        return self._run.send(value)

    def throw(self, *error: Any) -> Any:
        """One step that begins with an error, as of any coroutine; RuntimeError: it has run before."""
        return self._run.throw(*error)

    def close(self) -> None:
        """Give up what has not been awaited to its end, as with any coroutine."""
        self._run.close()

    async def __aenter__(self) -> O_co:
        made = self._made = await self._run
        return made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        made, self._made = self._made, None
        if made is not None:
            await made.__aexit__(kind, error, trace)


def dial(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None = None,
    trust: Trust | None = None,
    psk: bytes | None = None,
    config: Config | None = None,
    network: str = NETWORK,
    pq: Pq = "require",
    membership: Membership | bytes | None = None,
    known_nodes: str | os.PathLike[str] | None = None,
    ticket: bytes | None = None,
) -> Opening[Peer]:
    """Open a session with one node; ``await`` it, or ``async with`` it.

    Args:
        addresses: one or up to 32 of the same node: ``tcp://[node-id@]host:port``, ``unix://[node-id@]/path``. They are
            tried 250 ms apart; the first that leads to a session wins.
        identity: who we are; None = a fresh key in memory.
        trust: whom to accept: "any", "tofu", node ids, an authority, or a function of the node id (an async one is
            awaited in this loop). Not needed with a node id in the address, a psk, or a Unix socket of our own user.
        psk: a secret of 32 bytes or more that both sides hold.
        config: settings; ``dial_timeout`` bounds the whole call.
        network: name of the network; both sides need the same.
        pq: "require" the hybrid post-quantum key exchange, or "off"; both sides need the same.
        membership: what an authority issued for us.
        known_nodes: file for "tofu"; None = ``~/.config/netchan/known_nodes``.
        ticket: bytes of ``peer.ticket`` of a session that this identity had, perhaps in another process: the handshake
            is shorter, and what is left of that session at the other side is lost at once. Good for one dial; one that
            cannot be used makes no difference.

    Raises:
        ConfigError: an argument cannot be used (from the call itself).
        AuthError: one side does not accept the other. HandshakeError: it answered, but no session came of it.
        DialTimeout: no answer in ``Config.dial_timeout`` seconds. DialError: no address led to a session (``.causes``).

    Cancelled: nothing stays open.
    """
    plan = plan_dial(
        addresses,
        identity=identity,
        trust=trust,
        psk=psk,
        config=config,
        network=network,
        pq=pq,
        membership=membership,
        known_nodes=known_nodes,
        ticket=ticket,
    )
    return Opening(open_peer(plan))


def listen(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None = None,
    trust: Trust | None = None,
    psk: bytes | Sequence[bytes] | None = None,
    config: Config | None = None,
    network: str = NETWORK,
    pq: Pq = "require",
    membership: Membership | bytes | None = None,
    stealth: bool = False,
) -> Opening[Listener]:
    """Listen for sessions; ``await`` it, or ``async with`` it.

    Args:
        addresses: one or up to 32: ``tcp://host:port`` (port 0: any free one), ``unix:///path``.
        identity: who we are; None = a fresh key in memory.
        trust: whom to accept: "any", node ids, an authority, or a function of the node id (also async). Not needed with
            a psk, or on a Unix socket for our own user.
        psk: secrets of 32 bytes or more, up to 16; who holds none gets no answer at all.
        config: settings; ``backlog`` bounds the peers that wait here.
        network: as for ``dial``.
        pq: as for ``dial``.
        membership: as for ``dial``.
        stealth: answer only those who know our node id and have a clock.

    Raises:
        ConfigError: an argument cannot be used (from the call itself). ListenError: an address cannot be bound.

    Cancelled: nothing stays open.
    """
    plan = plan_listen(
        addresses,
        identity=identity,
        trust=trust,
        psk=psk,
        config=config,
        network=network,
        pq=pq,
        membership=membership,
        stealth=stealth,
    )
    return Opening(open_listener(plan))


# async-only: end
# sync-only: def dial(
# sync-only:     addresses: str | Sequence[str],
# sync-only:     *,
# sync-only:     identity: Identity | None = None,
# sync-only:     trust: BlockingTrust | None = None,
# sync-only:     psk: bytes | None = None,
# sync-only:     config: Config | None = None,
# sync-only:     network: str = NETWORK,
# sync-only:     pq: Pq = "require",
# sync-only:     membership: Membership | bytes | None = None,
# sync-only:     known_nodes: str | os.PathLike[str] | None = None,
# sync-only:     ticket: bytes | None = None,
# sync-only:     timeout: float | None = None,
# sync-only: ) -> Peer:
# sync-only:     """Open a session with one node; arguments and errors as ``netchan.dial``.
# sync-only:
# sync-only:     TimeoutError: ``timeout`` seconds (besides ``Config.dial_timeout``) passed first; nothing stays open.
# sync-only:     """
# sync-only:     check_blocking_trust(trust)
# sync-only:     plan = plan_dial(
# sync-only:         addresses,
# sync-only:         identity=identity,
# sync-only:         trust=trust,
# sync-only:         psk=psk,
# sync-only:         config=config,
# sync-only:         network=network,
# sync-only:         pq=pq,
# sync-only:         membership=membership,
# sync-only:         known_nodes=known_nodes,
# sync-only:         ticket=ticket,
# sync-only:     )
# sync-only:     return open_peer(plan, timeout=timeout)
# sync-only:
# sync-only:
# sync-only: def listen(
# sync-only:     addresses: str | Sequence[str],
# sync-only:     *,
# sync-only:     identity: Identity | None = None,
# sync-only:     trust: BlockingTrust | None = None,
# sync-only:     psk: bytes | Sequence[bytes] | None = None,
# sync-only:     config: Config | None = None,
# sync-only:     network: str = NETWORK,
# sync-only:     pq: Pq = "require",
# sync-only:     membership: Membership | bytes | None = None,
# sync-only:     stealth: bool = False,
# sync-only:     timeout: float | None = None,
# sync-only: ) -> Listener:
# sync-only:     """Listen for sessions; arguments and errors as ``netchan.listen``.
# sync-only:
# sync-only:     TimeoutError: looking the addresses up took more than ``timeout`` seconds; nothing stays open.
# sync-only:     """
# sync-only:     check_blocking_trust(trust)
# sync-only:     plan = plan_listen(
# sync-only:         addresses,
# sync-only:         identity=identity,
# sync-only:         trust=trust,
# sync-only:         psk=psk,
# sync-only:         config=config,
# sync-only:         network=network,
# sync-only:         pq=pq,
# sync-only:         membership=membership,
# sync-only:         stealth=stealth,
# sync-only:     )
# sync-only:     return open_listener(plan, timeout=timeout)


async def open_inherited(plan: DialPlan, legacy: Legacy) -> Peer:  # + timeout
    """As ``open_peer``; the session that another process had there, which may be on its way."""
    await wait_until(partial(legacy.may_claim, plan), legacy.news, new_waiter(legacy.home.engine))
    return await open_peer(plan, heir=legacy.claim_dialled(plan))


async def open_peer(plan: DialPlan, *, heir: Heir | None = None) -> Peer:  # + timeout
    """A peer by a plan; or of a session that another process had before."""
    if heir is not None:
        return Peer(heir.core(plan.config))
    # async-only: begin
    home = await loop_home(plan.config)
    ask = ask_in_loop()
    # async-only: end
    # sync-only: home = caller_home(plan.config)
    # sync-only: ask = refuse_awaitables
    return await dialled(Dial(plan, home, partial(_make, plan.config), _drop, ask), new_waiter(home.engine))


def _make(config: Config, session: Session, link: Link) -> Peer:
    return Peer(PeerCore(session.engine, session, link, config))


def _drop(peer: Peer) -> None:
    peer._core.leave_by_exception()


async def open_listener(plan: ListenPlan, *, came: Claim | None = None) -> Listener:  # + timeout
    """A listener by a plan; with sockets and sessions that another process had before."""
    # async-only: begin
    home = await loop_home(plan.config)
    ask = ask_in_loop()
    # async-only: end
    # sync-only: home = caller_home(plan.config)
    # sync-only: ask = refuse_awaitables
    hall = Hall(plan, home, ask, None if came is None else came.sockets)
    listener = Listener(hall)
    try:
        await listening(hall, came, new_waiter(home.engine))
    except BaseException:
        hall.leave_by_exception()
        raise
    return listener


async def dialled(attempt: Dial[Peer], waiter: AsyncWaiter) -> Peer:
    """Start this dial and wait for its peer; what ends the wait ends the dial."""
    outcome = attempt.outcome
    attempt.start()
    try:
        await wait_until(outcome.is_done, outcome.queue, waiter)
        peer = outcome.take()
    except BaseException:
        attempt.cancel()
        raise
    if peer is None:
        raise RuntimeError("the result of a dial was taken twice")
    return peer


async def listening(hall: Hall, came: Claim | None, waiter: AsyncWaiter) -> None:
    """Start this hall and wait until its sockets are open; it takes over the sessions that came with them."""
    outcome = hall.listening.outcome
    hall.start()
    await wait_until(outcome.is_done, outcome.queue, waiter)
    hall.addresses = outcome.take() or ()
    if came is not None:
        came.settle(hall)
