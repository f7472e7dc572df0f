"""What a type checker knows of the blocking front: the same names and types, ``timeout=`` on every call that can wait.

Checked by ``make lint``, never run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import netchan
from netchan import sync
from netchan.channel.base import ChannelStats
from netchan.node.hall import ListenerStats
from netchan.node.roster import NodeStats
from netchan.sync.permit import Permit, Reservation

ADDRESS = "tcp://127.0.0.1:7000"


class Animal: ...


class Dog(Animal): ...


@dataclass
class Job:
    number: int


# --- making, variance -----------------------------------------------------------------------------------------------


def forms() -> None:
    assert_type(sync.channel(), sync.Channel[Any])
    assert_type(sync.channel(int, capacity=2), sync.Channel[int])
    assert_type(sync.channel(list[int]), sync.Channel[list[int]])
    assert_type(sync.channel(int | None), sync.Channel[int | None])
    assert_type(sync.channel(Job), sync.Channel[Job])
    assert_type(sync.pipe(), tuple[sync.Channel[Any], sync.Channel[Any]])
    assert_type(sync.pipe(int), tuple[sync.Channel[int], sync.Channel[int]])
    sync.channel(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def halves(dogs: sync.Channel[Dog], animals: sync.Channel[Animal], other: netchan.Channel[Dog]) -> None:
    assert_type(dogs.split(), tuple[sync.Sender[Dog], sync.Receiver[Dog]])
    give_dogs(animals)
    give_animals(dogs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    take_animals(dogs)
    take_dogs(animals)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    give_dogs(other)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    take_dogs(other)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def give_dogs(tx: sync.Sender[Dog]) -> None: ...
def give_animals(tx: sync.Sender[Animal]) -> None: ...
def take_dogs(rx: sync.Receiver[Dog]) -> None: ...
def take_animals(rx: sync.Receiver[Animal]) -> None: ...


# --- sending, receiving ---------------------------------------------------------------------------------------------


def sending(tx: sync.Sender[int]) -> None:
    assert_type(tx.send(1), None)
    assert_type(tx.send(1, timeout=0), None)
    assert_type(tx.send(1, timeout=None), None)
    assert_type(tx.send_nowait(1), None)
    assert_type(tx.send_many([1], timeout=1.5), int)
    assert_type(tx.deliver(1, timeout=1), None)
    assert_type(tx.flush("taken", timeout=1), None)
    assert_type(tx.send_op(), sync.SendOp[int])
    assert_type(tx.send_op(1), netchan.SendOp[int])
    assert_type(tx.clone(), sync.Sender[int])
    assert_type(tx.async_view(), netchan.Sender[int])
    assert_type(sync.channel(int).async_view(), netchan.Channel[int])
    assert_type(sync.channel(int).split()[1].async_view(), netchan.Receiver[int])
    assert_type(tx.close(), None)
    assert_type(tx.aclose(timeout=1), None)
    assert_type(tx.abort(1, "enough"), None)
    assert_type(tx.reserve(timeout=1), Reservation[int])
    with tx.reserve() as permit:
        assert_type(permit, Permit[int])
        assert_type(permit.held, bool)
        assert_type(permit.send(1), None)
        assert_type(permit.release(), None)
    with tx as same:
        assert_type(same, sync.Sender[int])


async def sending_wrong(tx: sync.Sender[int]) -> None:
    tx.send("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tx.send(1, 0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tx.send(1, timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tx.send_nowait(1, timeout=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tx.flush("sent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tx.send(1)  # type: ignore[func-returns-value, misc]  # pyright: ignore[reportGeneralTypeIssues]
    async with tx:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


def receiving(rx: sync.Receiver[Job]) -> None:
    assert_type(rx.recv(), Job)
    assert_type(rx.recv(timeout=1), Job)
    assert_type(rx.recv_nowait(), Job)
    assert_type(rx.recv_many(10, min=2, timeout=1), list[Job])
    assert_type(rx.recv_op(), sync.RecvOp[Job])
    for job in rx:
        assert_type(job, Job)
    assert_type(next(rx), Job)
    assert_type(next(rx, None), Job | None)
    assert_type([job.number for job in rx], list[int])
    assert_type(rx.stop(), None)
    assert_type(rx.aclose(timeout=1), None)
    assert_type(rx.abort(), None)
    with rx as same:
        assert_type(same, sync.Receiver[Job])


async def receiving_wrong(rx: sync.Receiver[Job], data: sync.Receiver[bytes]) -> None:
    assert_type(data.recv_into(bytearray(4), timeout=1), int)
    rx.recv_into(bytearray(4))  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    rx.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    async for _ in rx:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass


def looking(ch: sync.Channel[int]) -> None:
    assert_type(ch.name, str)
    assert_type(ch.peer, sync.Peer | None)
    assert_type(ch.capacity, int | None)
    assert_type(ch.pending, int)
    assert_type(ch.closed, bool)
    assert_type(ch.stats(), ChannelStats)
    assert_type(ch.close(), None)
    assert_type(ch.stop(), None)
    assert_type(ch.aclose(timeout=1), None)
    with ch as same:
        assert_type(same, sync.Channel[int])


# --- select, merge --------------------------------------------------------------------------------------------------


def selecting(ch: sync.Channel[int], words: sync.Receiver[str]) -> None:
    number, word, give = ch.recv_op(), words.recv_op(), ch.send_op(1)
    hit = sync.select(number, word, give, sync.after(1), None, timeout=2)
    assert_type(hit, sync.Op)
    if hit is number:
        assert_type(number.value, int)
    elif hit is word:
        assert_type(word.value, str)
    assert_type(give.set(2), sync.SendOp[int])
    assert_type(sync.after(1), sync.TimerOp)
    assert_type(sync.select(number, default=None), sync.Op | None)
    assert_type(sync.select(number, default="none", timeout=1), sync.Op | str)
    sync.select(ch)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with sync.ticker(0.1) as beat:
        assert_type(beat, sync.Receiver[float])
        assert_type(beat.recv(timeout=1), float)


def merging(a: sync.Receiver[int], b: sync.Channel[str], c: sync.Receiver[bytes]) -> None:
    assert_type(sync.merge(a), Iterator[tuple[sync.Receiver[int], int]])
    for two in sync.merge(a, b):
        assert_type(two, tuple[sync.Receiver[int], int] | tuple[sync.Receiver[str], str])
    for three in sync.merge(a, b, c):
        assert_type(
            three, tuple[sync.Receiver[int], int] | tuple[sync.Receiver[str], str] | tuple[sync.Receiver[bytes], bytes]
        )
    for many in sync.merge(a, a, a, a):
        assert_type(many, tuple[sync.Receiver[int], int])


# --- peers ----------------------------------------------------------------------------------------------------------


def opening(key: netchan.Identity) -> None:
    assert_type(sync.dial(ADDRESS, identity=key, timeout=1), sync.Peer)
    assert_type(sync.listen(ADDRESS, trust=lambda node_id: node_id != "", timeout=1), sync.Listener)
    with sync.dial([ADDRESS], psk=bytes(32)) as peer, sync.listen(ADDRESS, psk=[bytes(32)]) as listener:
        assert_type(peer, sync.Peer)
        assert_type(listener, sync.Listener)


async def opening_wrong() -> None:
    async def ask(node_id: str) -> bool:
        return node_id != ""

    sync.listen(ADDRESS, trust=ask)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sync.dial(ADDRESS, trust=ask)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await sync.dial(ADDRESS)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


def being_with(peer: sync.Peer) -> None:
    assert_type(peer.open("jobs"), sync.Channel[Any])
    assert_type(peer.open("jobs", int, capacity=2), sync.Channel[int])
    assert_type(peer.open("jobs", int, trunk=True), sync.Channel[int])
    assert_type(peer.open("jobs", list[int]), sync.Channel[list[int]])
    assert_type(peer.open("jobs", int | None), sync.Channel[int | None])
    assert_type(peer.open("jobs", Job), sync.Channel[Job])
    assert_type(peer.node_id, str)
    assert_type(peer.local_address, str)
    assert_type(peer.remote_address, str)
    assert_type(peer.path_count, int)
    assert_type(peer.by_ticket, bool)
    assert_type(peer.capabilities, frozenset[int])
    assert_type(peer.ticket, bytes | None)
    assert_type(peer.wait_ticket(timeout=1), bytes | None)
    assert_type(peer.paths, tuple[netchan.PathInfo, ...])
    assert_type(peer.add_path("unix:///run/n.sock", timeout=1), netchan.PathInfo)
    peer.remove_path(peer.paths[0])
    peer.remove_path(2)
    peer.set_standby(2)
    assert_type(peer.events, sync.PeerEvents)
    assert_type(peer.events.take(), netchan.PeerEvent | None)
    assert_type(peer.events.get(timeout=1), netchan.PeerEvent | None)
    for event in peer.events:
        assert_type(event, netchan.PeerEvent)
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
    for ch in peer:
        assert_type(ch, sync.Channel[Any])
    assert_type(peer.close(), None)
    assert_type(peer.aclose(timeout=1), None)
    assert_type(peer.wait_closed(timeout=1), None)
    with peer as same:
        assert_type(same, sync.Peer)
    peer.open("jobs", 5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def as_a_node(key: netchan.Identity, before: sync.TakenOver) -> None:
    with sync.Node(identity=key, trust="any", psk=bytes(32)) as node:
        assert_type(node.listen(ADDRESS, timeout=1), tuple[str, ...])
        assert_type(node.dial(ADDRESS, inherit=before, timeout=1), sync.Peer)
        assert_type(node.peer([ADDRESS], timeout=1), sync.Peer)
        assert_type(node.peers, tuple[sync.Peer, ...])
        assert_type(node.stats(), NodeStats)
        sync.hand_over("hand", node)


def taking_peers(listener: sync.Listener) -> None:
    assert_type(listener.recv(timeout=1), sync.Peer)
    for peer in listener:
        assert_type(peer, sync.Peer)
    assert_type(listener.addresses, tuple[str, ...])
    assert_type(listener.node_id, str)
    assert_type(listener.stats(), ListenerStats)
    assert_type(listener.stats().handshakes_failed, Mapping[str, int])
    assert_type(listener.close(), None)
    assert_type(listener.stop(), None)
    assert_type(listener.abort(), None)
    assert_type(listener.aclose(timeout=1), None)
    with listener as same:
        assert_type(same, sync.Listener)


def serving(listener: sync.Listener) -> None:
    def handle(peer: sync.Peer) -> None:
        peer.close()

    def handle_channel(ch: sync.Channel[int]) -> None:
        ch.close()

    assert_type(listener.serve(handle), None)
    assert_type(listener.serve(lambda peer: peer.path_count, timeout=1), None)
    listener.serve(handle_channel)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def restarting(listener: sync.Listener, peer: sync.Peer) -> None:
    assert_type(sync.hand_over("/run/app/hand-over", listener, peer, wait=5.0), None)
    with sync.take_over("/run/app/hand-over", wait=5.0) as before:
        assert_type(before, sync.TakenOver)
        assert_type(before.happened, bool)
        assert_type(before.listen("tcp://127.0.0.1:7000", trust="any", timeout=1), sync.Listener)
        assert_type(before.dial("tcp://127.0.0.1:7000", trust="any"), sync.Peer)
        assert_type(before.finished(timeout=1), None)
        assert_type(before.close(), None)
