# Made from netchan/node/opening.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``dial`` and ``listen``: objects to ``await`` or to ``with``.

Layer 6; netchan/sync/opening.py is made from this file by tools/async_to_sync.py, where both return the object itself.
Arguments are checked by the call; nothing else happens before the first step. Spec: docs/spec/handshake.md §3, §7.
"""

from __future__ import annotations

import os
from collections.abc import (
    Sequence,
)
from functools import partial
from typing import (
    TYPE_CHECKING,
)

from netchan.config import Config
from netchan.net.dial import Dial, DialPlan, Link
from netchan.net.identity import Identity
from netchan.net.listen import ListenPlan

from netchan.net.manager import caller_home, check_blocking_trust, refuse_awaitables
from netchan.net.record import Membership

from netchan.net.trust import BlockingTrust
from netchan.net.wait import BlockingWaiter
from netchan.node.hall import Hall
from netchan.node.legacy import Claim, Heir, Legacy
from netchan.sync.listener import Listener
from netchan.sync.peer import Peer
from netchan.node.plan import NETWORK, Pq, plan_dial, plan_listen
from netchan.node.session import PeerCore
from netchan.sync.node_waits import new_waiter, wait_until

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

def dial(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None = None,
    trust: BlockingTrust | None = None,
    psk: bytes | None = None,
    config: Config | None = None,
    network: str = NETWORK,
    pq: Pq = "require",
    membership: Membership | bytes | None = None,
    known_nodes: str | os.PathLike[str] | None = None,
    ticket: bytes | None = None,
    timeout: float | None = None,
) -> Peer:
    """Open a session with one node; arguments and errors as ``netchan.dial``.

    TimeoutError: ``timeout`` seconds (besides ``Config.dial_timeout``) passed first; nothing stays open.
    """
    check_blocking_trust(trust)
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
    return open_peer(plan, timeout=timeout)


def listen(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None = None,
    trust: BlockingTrust | None = None,
    psk: bytes | Sequence[bytes] | None = None,
    config: Config | None = None,
    network: str = NETWORK,
    pq: Pq = "require",
    membership: Membership | bytes | None = None,
    stealth: bool = False,
    timeout: float | None = None,
) -> Listener:
    """Listen for sessions; arguments and errors as ``netchan.listen``.

    TimeoutError: looking the addresses up took more than ``timeout`` seconds; nothing stays open.
    """
    check_blocking_trust(trust)
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
    return open_listener(plan, timeout=timeout)


def open_inherited(plan: DialPlan, legacy: Legacy, *, timeout: float | None = None) -> Peer:
    """As ``open_peer``; the session that another process had there, which may be on its way."""
    wait_until(partial(legacy.may_claim, plan), legacy.news, new_waiter(legacy.home.engine, timeout))
    return open_peer(plan, heir=legacy.claim_dialled(plan))


def open_peer(plan: DialPlan, *, heir: Heir | None = None, timeout: float | None = None) -> Peer:
    """A peer by a plan; or of a session that another process had before."""
    if heir is not None:
        return Peer(heir.core(plan.config))
    home = caller_home(plan.config)
    ask = refuse_awaitables
    return dialled(Dial(plan, home, partial(_make, plan.config), _drop, ask), new_waiter(home.engine, timeout))


def _make(config: Config, session: Session, link: Link) -> Peer:
    return Peer(PeerCore(session.engine, session, link, config))


def _drop(peer: Peer) -> None:
    peer._core.leave_by_exception()


def open_listener(plan: ListenPlan, *, came: Claim | None = None, timeout: float | None = None) -> Listener:
    """A listener by a plan; with sockets and sessions that another process had before."""
    home = caller_home(plan.config)
    ask = refuse_awaitables
    hall = Hall(plan, home, ask, None if came is None else came.sockets)
    listener = Listener(hall)
    try:
        listening(hall, came, new_waiter(home.engine, timeout))
    except BaseException:
        hall.leave_by_exception()
        raise
    return listener


def dialled(attempt: Dial[Peer], waiter: BlockingWaiter) -> Peer:
    """Start this dial and wait for its peer; what ends the wait ends the dial."""
    outcome = attempt.outcome
    attempt.start()
    try:
        wait_until(outcome.is_done, outcome.queue, waiter)
        peer = outcome.take()
    except BaseException:
        attempt.cancel()
        raise
    if peer is None:
        raise RuntimeError("the result of a dial was taken twice")
    return peer


def listening(hall: Hall, came: Claim | None, waiter: BlockingWaiter) -> None:
    """Start this hall and wait until its sockets are open; it takes over the sessions that came with them."""
    outcome = hall.listening.outcome
    hall.start()
    wait_until(outcome.is_done, outcome.queue, waiter)
    hall.addresses = outcome.take() or ()
    if came is not None:
        came.settle(hall)
