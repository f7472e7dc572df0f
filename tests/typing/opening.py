"""What a type checker knows of dialling, listening, peers and their settings; checked by ``make lint``, never run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_type

import netchan
from netchan.net.record import Membership
from netchan.net.trust import CARoot
from netchan.node.hall import ListenerStats
from netchan.node.opening import Opening
from netchan.node.roster import NodeStats

ADDRESS = "tcp://127.0.0.1:7000"


@dataclass
class Job:
    number: int


# --- dial, listen ---------------------------------------------------------------------------------------------------


async def dialling(key: netchan.Identity) -> None:
    assert_type(netchan.dial(ADDRESS), Opening[netchan.Peer])
    assert_type(await netchan.dial(ADDRESS, identity=key), netchan.Peer)
    assert_type(await netchan.dial([ADDRESS, "unix:///tmp/x"], trust="tofu", known_nodes=Path("known")), netchan.Peer)
    assert_type(await netchan.dial(ADDRESS, identity=key, ticket=bytes(100)), netchan.Peer)
    async with netchan.dial((ADDRESS,), psk=bytes(32), pq="off", network="farm") as peer:
        assert_type(peer, netchan.Peer)


async def listening(key: netchan.Identity) -> None:
    assert_type(netchan.listen(ADDRESS), Opening[netchan.Listener])
    assert_type(await netchan.listen(ADDRESS, identity=key, trust=[key.node_id]), netchan.Listener)
    async with netchan.listen([ADDRESS], psk=[bytes(32), bytes(32)], stealth=True) as listener:
        assert_type(listener, netchan.Listener)


async def as_a_node(key: netchan.Identity, before: netchan.TakenOver) -> None:
    async with netchan.Node(identity=key, trust="any", single_session=True, pool_size=8, pool_idle=5) as node:
        assert_type(node, netchan.Node)
        assert_type(await node.listen(ADDRESS), tuple[str, ...])
        assert_type(await node.listen([ADDRESS], stealth=True, inherit=before), tuple[str, ...])
        assert_type(node.dial(ADDRESS), Opening[netchan.Peer])
        async with node.dial([ADDRESS], inherit=before) as peer:
            assert_type(peer, netchan.Peer)
        assert_type(await node.peer(key.node_id), netchan.Peer)
        assert_type(node.peers, tuple[netchan.Peer, ...])
        assert_type(await node.recv(), netchan.Peer)
        assert_type(node.stats(), NodeStats)
        await netchan.hand_over("hand", node)
        netchan.Node(key)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await node.peer(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def opening_wrong() -> None:
    netchan.dial()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    netchan.dial(7000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.dial(ADDRESS, ticket="t")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.dial(ADDRESS, psk="secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.dial(ADDRESS, timeout=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    netchan.listen(ADDRESS, pq="on")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.listen(ADDRESS, known_nodes="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    netchan.dial(ADDRESS).open("jobs")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with netchan.dial(ADDRESS):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


# --- trust ----------------------------------------------------------------------------------------------------------


async def trusting(known: set[str], authority: netchan.CA, ask: Callable[[str], Awaitable[bool]]) -> None:
    async def look_up(node_id: str) -> bool:
        return node_id in known

    def echo(node_id: str) -> str:
        return node_id

    netchan.listen(ADDRESS, trust="any")
    netchan.listen(ADDRESS, trust=known)
    netchan.listen(ADDRESS, trust=lambda node_id: node_id in known)
    netchan.listen(ADDRESS, trust=known.__contains__)
    netchan.listen(ADDRESS, trust=look_up)
    netchan.listen(ADDRESS, trust=ask)
    netchan.listen(ADDRESS, trust=authority)
    netchan.listen(ADDRESS, trust=authority.root.require("workers"))
    netchan.listen(ADDRESS, trust=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.listen(ADDRESS, trust=echo)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def vouching(authority: netchan.CA, node_id: str, now: float) -> None:
    assert_type(authority.root, CARoot)
    assert_type(authority.root.require("a", "b"), CARoot)
    member = authority.issue(node_id, now, groups=["workers"], life_s=60)
    assert_type(member, Membership)
    netchan.dial(ADDRESS, membership=member)
    netchan.dial(ADDRESS, membership=member.raw)


def being_somebody(path: Path) -> None:
    assert_type(netchan.Identity.generate(), netchan.Identity)
    assert_type(netchan.Identity.load_or_create(path), netchan.Identity)
    key = netchan.Identity.load_or_create("key", passphrase=b"open")
    assert_type(key.node_id, str)
    assert_type(key.sign(b"data"), bytes)
    assert_type(key.close(), None)
    key.node_id = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    netchan.CA(key.node_id)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(netchan.CA(key).root.public, bytes)


# --- peers ----------------------------------------------------------------------------------------------------------


def opening_by_name(peer: netchan.Peer, form: type[Job]) -> None:
    assert_type(peer.open("jobs"), netchan.Channel[Any])
    assert_type(peer.open("jobs", capacity=2), netchan.Channel[Any])
    assert_type(peer.open("jobs", trunk=True), netchan.Channel[Any])
    assert_type(peer.open("jobs", Any), netchan.Channel[Any])
    assert_type(peer.open("jobs", int), netchan.Channel[int])
    assert_type(peer.open("jobs", bytes, capacity=None), netchan.Channel[bytes])
    assert_type(peer.open("jobs", list[int]), netchan.Channel[list[int]])
    assert_type(peer.open("jobs", int | None), netchan.Channel[int | None])
    assert_type(peer.open("jobs", Literal["on", "off"]), netchan.Channel[Literal["on", "off"]])
    assert_type(peer.open("jobs", Job), netchan.Channel[Job])
    assert_type(peer.open("jobs", form), netchan.Channel[Job])
    assert_type(peer.open("jobs", type=tuple[int, str]), netchan.Channel[tuple[int, str]])


def opening_by_name_wrong(peer: netchan.Peer) -> None:
    peer.open()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    peer.open(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    peer.open("jobs", 5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    peer.open("jobs", int, 5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    peer.open("jobs", int, ordered=False)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    words: netchan.Channel[str] = peer.open("jobs", int)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    words.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def about_paths(path: netchan.PathInfo) -> None:
    assert_type(path.id, int)
    assert_type(path.address, str)
    assert_type(path.state, Literal["active", "standby", "suspect"])
    assert_type(path.rtt, float)
    assert_type(path.rate, float)
    assert_type(path.loss, float)
    assert_type(path.in_flight, int)


async def being_with(peer: netchan.Peer) -> None:
    assert_type(peer.node_id, str)
    assert_type(peer.local_address, str)
    assert_type(peer.remote_address, str)
    assert_type(peer.path_count, int)
    assert_type(peer.by_ticket, bool)
    assert_type(peer.capabilities, frozenset[int])
    assert_type(peer.ticket, bytes | None)
    assert_type(await peer.wait_ticket(), bytes | None)
    assert_type(peer.paths, tuple[netchan.PathInfo, ...])
    assert_type(await peer.add_path("unix:///run/n.sock"), netchan.PathInfo)
    peer.remove_path(peer.paths[0])
    peer.remove_path(2)
    peer.set_standby(2)
    peer.set_standby(peer.paths[0], False)
    peer.set_standby(2, "yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(peer.events, netchan.PeerEvents)
    assert_type(peer.events.take(), netchan.PeerEvent | None)
    assert_type(await peer.events.get(), netchan.PeerEvent | None)
    async for event in peer.events:
        assert_type(event, netchan.PeerEvent)
        assert_type(event.path, int | None)
        assert_type(event.cause, BaseException | None)
    peer.redundancy = "stripe"
    peer.redundancy = "parity(4, 1)"
    peer.redundancy = 1  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(peer.redundancy_info, netchan.RedundancyInfo)
    own = peer.open("own", int, redundancy="mirror")
    assert_type(own.redundancy, str | None)
    own.redundancy = None
    assert_type(own.redundancy_info, netchan.RedundancyInfo | None)
    assert_type(peer.closed, bool)
    assert_type(peer.loss_cause, BaseException | None)
    assert_type(peer.lost, tuple[netchan.SessionLost, ...])
    assert_type(peer.error, netchan.NetchanError | None)
    assert_type(peer.stats(), dict[str, int])
    async for ch in peer:
        assert_type(ch, netchan.Channel[Any])
    assert_type(await anext(peer), netchan.Channel[Any])
    assert_type(peer.close(), None)
    assert_type(await peer.wait_closed(), None)
    assert_type(await peer.aclose(), None)
    async with peer as same:
        assert_type(same, netchan.Peer)
    peer.wait_closed()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    for _ in peer:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass


# --- listeners ------------------------------------------------------------------------------------------------------


async def taking_peers(listener: netchan.Listener) -> None:
    as_receiver: netchan.Receiver[netchan.Peer] = listener
    assert_type(await as_receiver.recv(), netchan.Peer)
    assert_type(await listener.recv(), netchan.Peer)
    assert_type(await listener.recv_many(), list[netchan.Peer])
    assert_type(listener.recv_op(), netchan.RecvOp[netchan.Peer])
    async for peer in listener:
        assert_type(peer, netchan.Peer)
    assert_type(listener.addresses, tuple[str, ...])
    assert_type(listener.node_id, str)
    assert_type(listener.stats(), ListenerStats)
    assert_type(listener.stats().handshakes_failed, Mapping[str, int])
    assert_type(listener.close(), None)
    assert_type(listener.stop(), None)
    assert_type(listener.abort(), None)
    assert_type(await listener.aclose(), None)
    async with listener as same:
        assert_type(same, netchan.Listener)


async def serving(listener: netchan.Listener) -> None:
    async def handle(peer: netchan.Peer) -> None:
        assert_type(peer.node_id, str)

    async def handle_and_count(peer: netchan.Peer) -> int:
        return peer.path_count

    async def handle_channel(ch: netchan.Channel[int]) -> None:
        await ch.recv()

    def handle_blocking(peer: netchan.Peer) -> None:
        peer.close()

    assert_type(await listener.serve(handle), None)
    await listener.serve(handle_and_count)
    await listener.serve(lambda peer: peer.aclose())
    await listener.serve(handle_channel)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await listener.serve(handle_blocking)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await listener.serve(handle, timeout=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# --- to another process ---------------------------------------------------------------------------------------------


async def restarting(listener: netchan.Listener, peer: netchan.Peer) -> None:
    try:
        assert_type(await netchan.hand_over("/run/app/hand-over", listener, peer, wait=5.0), None)
    except netchan.HandoverError as error:
        assert_type(error.transient, bool)
    await netchan.hand_over("/run/app/hand-over", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with netchan.take_over("/run/app/hand-over", wait=5.0) as before:
        assert_type(before, netchan.TakenOver)
        assert_type(before.happened, bool)
        async with before.listen(ADDRESS, trust="any") as again:
            assert_type(again, netchan.Listener)
        assert_type(await before.dial(ADDRESS, trust="any"), netchan.Peer)
        assert_type(await before.finished(), None)
        assert_type(before.close(), None)


# --- settings -------------------------------------------------------------------------------------------------------


def settings() -> None:
    config = netchan.Config(lease=60, close_timeout=1.0, limits=netchan.Limits(paths=2))
    assert_type(config.lease, float)
    assert_type(config.dial_timeout, float)
    assert_type(config.handshake_timeout, float)
    assert_type(config.close_timeout, float)
    assert_type(config.heartbeat, float)
    assert_type(config.max_message, int)
    assert_type(config.max_channels, int)
    assert_type(config.backlog, int)
    assert_type(config.session_bytes, int)
    assert_type(config.node_bytes, int)
    assert_type(config.await_spin, bool)
    assert_type(config.limits, netchan.Limits)
    assert_type(config.limits.handshake_rate, float)
    assert_type(config.limits.unopened_bytes, int)
    netchan.dial(ADDRESS, config=config)
    config.lease = 1.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    netchan.Config(capabilities={0x8000}, required_capabilities=[0x8001])
    netchan.Config(capabilities=0x8000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.Config(60.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    netchan.Config(leese=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    netchan.Config(backlog=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
