"""``hand_over`` and ``take_over``: the sessions of a program go on in the process that takes its place.

Layer 6; netchan/sync/handover.py is made from this file by tools/async_to_sync.py. Spec: docs/spec/handover.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from netchan.config import Config
from netchan.errors import ConfigError
from netchan.net.handover import Giving, Taking
from netchan.net.identity import Identity

# async-only: begin
from netchan.net.manager import loop_home

# async-only: end
# sync-only: from netchan.net.manager import caller_home, check_blocking_trust
from netchan.net.record import Membership
from netchan.net.trust import Trust  # async-only

# sync-only: from netchan.net.trust import BlockingTrust
from netchan.node.estate import Estate
from netchan.node.legacy import Legacy
from netchan.node.listener import Listener
from netchan.node.opening import (
    Opening,  # async-only
    open_inherited,
    open_listener,
)
from netchan.node.peer import Peer
from netchan.node.plan import NETWORK, Pq, plan_dial, plan_listen
from netchan.node.waits import new_waiter, wait_until

_DEFAULTS = Config()


async def hand_over(path: str | os.PathLike[str], *given: Listener | Peer, wait: float = 60.0) -> None:
    """Give listeners, with the peers that came out of them, and dialled peers to the process that asks for them.

    A ``Node`` is given with all its listeners and all that it dialled.

    Waits at ``path`` until a process of the same user calls ``take_over`` there. Then the listening sockets go over,
    and the sessions after them, a few at a time: each stops for a moment and lives on in that process; its other side
    notices a pause. Calls that wait here, or are made later, raise SessionLost with empty reports and ``cause.code``
    HANDED_OVER: what was accepted and not taken has moved. When anything goes wrong, there or on the way, the sessions
    that have not moved by then go on here, and the listeners accept again; each is in one process at any moment.

    Args:
        path: of a Unix socket that is made here, for this user only, and removed in the end; in a directory to which
            nobody else may write.
        given: listeners of ``listen``, and peers of ``dial``.
        wait: seconds to wait for the other process. A session is held for 5 s at most.

    Raises:
        HandoverError: not all has moved; what has not goes on here. The text says how many have.
        ConfigError: nothing to give, or something that is neither.
        OSError: the socket cannot be made.

    Cancelled: no more moves.
    """
    moves = [item._moves() for item in given if isinstance(item, Listener)]
    cores = [item._core for item in given if isinstance(item, Peer)]
    if not given or len(moves) + len(cores) != len(given):
        raise ConfigError("hand_over() gives nodes, listeners and dialled peers: hand_over(path, listener, peer)")
    halls = [hall for found, _ in moves for hall in found]
    cores += [core for _, found in moves for core in found if core not in cores]
    if not halls and not cores:
        raise ConfigError("hand_over() of a node that neither listens nor has dialled: there is nothing to give")
    if any(not core.session.initiator for core in cores):
        raise ConfigError("a peer that came out of a listener moves with its listener; give that")
    giving = Giving(os.fspath(path), Estate(halls, cores), wait)
    outcome = giving.outcome
    giving.start()
    engine = halls[0].engine if halls else cores[0].engine
    try:
        # async-only: begin
        await wait_until(outcome.is_done, outcome.queue, new_waiter(engine))
        # async-only: end
        # sync-only: wait_until(outcome.is_done, outcome.queue, new_waiter(engine, None))
        outcome.take()
    except BaseException:
        giving.cancel()
        raise


class TakenOver:
    """What another process gives: ``listen`` and ``dial`` find in it what they would make, and make what is not there.

    So a program is the same when it is started for the first time and when it takes over. The listening sockets are
    here at once; sessions come a few at a time, each to the listener that has claimed its socket, also when the ``async
    with`` is over by then. Its end ends what nobody has claimed: such sessions are closed, and their other sides get
    ChannelAborted with ``Code.HANDED_OVER``. An exception that leaves it ends the taking: what has not come by then
    goes on in the other process.

    Attributes:
        happened: True if another process gave something.
    """

    __slots__ = ("_legacy", "_taking", "happened")

    def __init__(self, legacy: Legacy, happened: bool, taking: Taking) -> None:
        self._legacy, self.happened, self._taking = legacy, happened, taking

    # async-only: begin
    def listen(
        self,
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
        """As ``netchan.listen``, over the sockets that the other process had for these addresses.

        The listener also gives the peers that had come out of the other one, as they come from there.
        ``Peer.open`` of a name finds the channel that was open over there; what had come out of iteration there, and
        what is half closed, comes out of it again.

        Arguments (psk: bytes) and errors as ``netchan.listen``; ConfigError also: the other process was another node.

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
        came = self._legacy.claim_listener(plan.addresses, plan.handshake.identity.node_id)
        return Opening(open_listener(plan, came=came))

    def dial(
        self,
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
    ) -> Opening[Peer]:
        """As ``netchan.dial``; the peer that the other process had dialled there, if it gives one, when it is here.

        Arguments (psk: bytes) and errors as ``netchan.dial``.

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
            ticket=None,
        )
        return Opening(open_inherited(plan, self._legacy))

    # async-only: end
    # sync-only: def listen(
    # sync-only:     self,
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
    # sync-only:     """As ``netchan.sync.listen``, over the sockets of the other process; see ``netchan.TakenOver``.
    # sync-only:
    # sync-only:     psk: bytes, as there. Errors as there; ConfigError also: the other process was another node.
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
    # sync-only:     came = self._legacy.claim_listener(plan.addresses, plan.handshake.identity.node_id)
    # sync-only:     return open_listener(plan, came=came, timeout=timeout)
    # sync-only:
    # sync-only: def dial(
    # sync-only:     self,
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
    # sync-only:     timeout: float | None = None,
    # sync-only: ) -> Peer:
    # sync-only:     """As ``netchan.sync.dial``; the peer that the other process had dialled there, if it gave one.
    # sync-only:
    # sync-only:     psk: bytes, as there. Errors as there.
    # sync-only:     TimeoutError: ``timeout`` seconds passed first; nothing stays open.
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
    # sync-only:         ticket=None,
    # sync-only:     )
    # sync-only:     return open_inherited(plan, self._legacy, timeout=timeout)

    async def finished(self) -> None:  # + timeout
        """Wait until every session of the other process is here.

        Nothing needs it to go on; a program that is about to tell somebody that the restart is over does.

        Raises:
            HandoverError: no more will come, and not all have: the other process has died, or keeps them. Those that
                came go on here.

        Cancelled: nothing has changed; they still come.
        """
        outcome = self._taking.finished
        await wait_until(outcome.is_done, outcome.queue, new_waiter(self._legacy.home.engine))
        outcome.take()

    def close(self) -> None:
        """End what nobody has claimed, now and when it comes. Idempotent; what was claimed is not touched."""
        self._legacy.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._taking.cancel()
        self.close()

    def __repr__(self) -> str:
        return f"<TakenOver {'from another process' if self.happened else 'nothing'}>"


# async-only: begin
def take_over(path: str | os.PathLike[str], *, wait: float = 0.0, config: Config | None = None) -> Opening[TakenOver]:
    """Take what another process gives by ``hand_over`` at ``path``; ``await`` it, or ``async with`` it.

    Args:
        path: the same as there.
        wait: seconds to wait until somebody gives there; 0: if nobody does now, nobody will.
        config: ``io_threads`` says where the sessions will live.

    Returns:
        What comes, which may be nothing: then its ``listen`` and ``dial`` are like those of netchan.

    Raises:
        HandoverError: somebody gives, but it could not be taken; the other process goes on with all of it.

    Cancelled: nothing is taken, unless that cannot be stopped any more; then what came is closed.
    """
    return Opening(_take_over(os.fspath(path), wait, config or _DEFAULTS))


# async-only: end
# sync-only: def take_over(
# sync-only:     path: str | os.PathLike[str], *, wait: float = 0.0, config: Config | None = None
# sync-only: ) -> TakenOver:
# sync-only:     """Take what another process gives by ``hand_over`` at ``path``; arguments as ``netchan.take_over``.
# sync-only:
# sync-only:     HandoverError: somebody gives, but it could not be taken; the other process goes on with all of it.
# sync-only:     """
# sync-only:     return _take_over(os.fspath(path), wait, config or _DEFAULTS)


async def _take_over(path: str, wait: float, config: Config) -> TakenOver:
    home = await loop_home(config)  # async-only
    # sync-only: home = caller_home(config)
    legacy = Legacy(home)
    taking = Taking(path, wait, legacy)
    outcome = taking.outcome
    taking.start()
    try:
        await wait_until(outcome.is_done, outcome.queue, new_waiter(home.engine))  # async-only
        # sync-only: wait_until(outcome.is_done, outcome.queue, new_waiter(home.engine, None))
        happened = outcome.take()
    except BaseException:
        taking.cancel()
        legacy.leave()
        raise
    return TakenOver(legacy, bool(happened), taking)
