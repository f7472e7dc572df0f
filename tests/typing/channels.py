"""What a type checker knows of channels and their halves; checked by ``make lint``, never run.

A wrong use carries the code under which mypy and pyright must refuse it; an ignore that is not needed is an error.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import netchan
from netchan import sync
from netchan.channel.base import ChannelStats
from netchan.channel.overflow import Spill
from netchan.channel.permit import Permit, Reservation


class Animal: ...


class Dog(Animal): ...


@dataclass
class Job:
    number: int


# --- making ---------------------------------------------------------------------------------------------------------


def forms() -> None:
    assert_type(netchan.channel(), netchan.Channel[Any])
    assert_type(netchan.channel(capacity=2), netchan.Channel[Any])
    assert_type(netchan.channel(int), netchan.Channel[int])
    assert_type(netchan.channel(int, capacity=2), netchan.Channel[int])
    assert_type(netchan.channel(Any), netchan.Channel[Any])
    assert_type(netchan.channel(list[int]), netchan.Channel[list[int]])
    assert_type(netchan.channel(int | None), netchan.Channel[int | None])
    assert_type(netchan.channel(Job), netchan.Channel[Job])
    assert_type(netchan.channel(dict[str, list[Job]]), netchan.Channel[dict[str, list[Job]]])
    assert_type(netchan.channel(netchan.Sender[int]), netchan.Channel[netchan.Sender[int]])
    assert_type(netchan.channel(type=str), netchan.Channel[str])
    assert_type(netchan.pipe(), tuple[netchan.Channel[Any], netchan.Channel[Any]])
    assert_type(netchan.pipe(int, capacity=1), tuple[netchan.Channel[int], netchan.Channel[int]])
    assert_type(netchan.pipe(int | None), tuple[netchan.Channel[int | None], netchan.Channel[int | None]])


def forms_that_are_none() -> None:
    netchan.channel(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    netchan.channel(int, 5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    netchan.channel(int, capacity="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    netchan.pipe(int, capacity=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


# --- variance (R1) --------------------------------------------------------------------------------------------------


def sender_takes_less(animals: netchan.Sender[Animal]) -> None:
    give_dogs(animals)
    give_animals(animals)


def sender_takes_no_more(dogs: netchan.Sender[Dog]) -> None:
    give_dogs(dogs)
    give_animals(dogs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def receiver_gives_more(dogs: netchan.Receiver[Dog]) -> None:
    take_dogs(dogs)
    take_animals(dogs)


def receiver_gives_no_less(animals: netchan.Receiver[Animal]) -> None:
    take_animals(animals)
    take_dogs(animals)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def channel_is_exact_and_either_half(dogs: netchan.Channel[Dog], animals: netchan.Channel[Animal]) -> None:
    use_dogs(dogs)
    use_dogs(animals)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    use_animals(dogs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    give_dogs(dogs)
    give_dogs(animals)
    give_animals(dogs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    take_dogs(dogs)
    take_dogs(animals)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    take_animals(dogs)


def give_dogs(tx: netchan.Sender[Dog]) -> None: ...
def give_animals(tx: netchan.Sender[Animal]) -> None: ...
def take_dogs(rx: netchan.Receiver[Dog]) -> None: ...
def take_animals(rx: netchan.Receiver[Animal]) -> None: ...
def use_dogs(ch: netchan.Channel[Dog]) -> None: ...
def use_animals(ch: netchan.Channel[Animal]) -> None: ...


def halves(ch: netchan.Channel[int]) -> None:
    tx, rx = ch.split()
    assert_type(tx, netchan.Sender[int])
    assert_type(rx, netchan.Receiver[int])
    tx.recv_nowait()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    rx.send_nowait(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    rx.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


# --- sending --------------------------------------------------------------------------------------------------------


async def sending(tx: netchan.Sender[int]) -> None:
    call: Coroutine[Any, Any, None] = tx.send(1)
    assert_type(await call, None)
    assert_type(await tx.send(1), None)
    assert_type(tx.send_nowait(1), None)
    assert_type(await tx.send_many([1, 2]), int)
    assert_type(await tx.send_many(n for n in range(3)), int)
    assert_type(await tx.deliver(1), None)
    assert_type(await tx.flush(), None)
    assert_type(await tx.flush("taken"), None)
    assert_type(tx.send_op(), netchan.SendOp[int])
    assert_type(tx.send_op(1), netchan.SendOp[int])
    assert_type(tx.clone(), netchan.Sender[int])
    assert_type(tx.sync_view(), sync.Sender[int])
    assert_type(netchan.channel(int).sync_view(), sync.Channel[int])
    assert_type(netchan.channel(int).split()[1].sync_view(), sync.Receiver[int])
    assert_type(netchan.channel(int, capacity=2, overflow="drop_old", ttl=0.5), netchan.Channel[int])
    assert_type(netchan.spill("/var/tmp", 1 << 20), Spill)
    assert_type(
        netchan.channel(int, capacity=2, overflow=netchan.spill(Path("/var/tmp"), 1 << 20)), netchan.Channel[int]
    )
    assert_type(sync.channel(int, capacity=2, overflow=sync.spill("/var/tmp", 1 << 20)), sync.Channel[int])
    netchan.channel(int, capacity=2, overflow="spill")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    netchan.spill("/var/tmp", "1 MB")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(tx.close(), None)
    assert_type(await tx.aclose(), None)
    assert_type(tx.abort(1, "enough"), None)
    async with tx as same:
        assert_type(same, netchan.Sender[int])


async def sending_wrong(tx: netchan.Sender[int], ch: netchan.Channel[int]) -> None:
    await tx.send("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tx.send(1, timeout=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await ch.send(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tx.send_many(["1"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await tx.send_many(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tx.deliver("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tx.flush("sent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tx.send_nowait("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tx.send_op("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tx.abort("enough")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tx.send(1)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    with tx:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def room_first(tx: netchan.Sender[int]) -> None:
    assert_type(tx.reserve(), Reservation[int])
    async with tx.reserve() as permit:
        assert_type(permit, Permit[int])
        assert_type(permit.held, bool)
        assert_type(permit.send(1), None)
        assert_type(permit.release(), None)
        permit.send("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- receiving ------------------------------------------------------------------------------------------------------


async def receiving(rx: netchan.Receiver[Job]) -> None:
    call: Coroutine[Any, Any, Job] = rx.recv()
    assert_type(await call, Job)
    assert_type(await rx.recv(), Job)
    assert_type(rx.recv_nowait(), Job)
    assert_type(await rx.recv_many(), list[Job])
    assert_type(await rx.recv_many(10, min=2), list[Job])
    assert_type(rx.recv_op(), netchan.RecvOp[Job])
    async for job in rx:
        assert_type(job, Job)
    assert_type(await anext(rx), Job)
    assert_type(await anext(rx, None), Job | None)
    assert_type([job.number async for job in rx], list[int])
    assert_type(rx.stop(), None)
    assert_type(await rx.aclose(), None)
    assert_type(rx.abort(), None)
    async with rx as same:
        assert_type(same, netchan.Receiver[Job])


async def receiving_wrong(rx: netchan.Receiver[Job]) -> None:
    await rx.recv(timeout=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await rx.recv_many(max=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    rx.recv()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    for _ in rx:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass


async def receiving_bytes(
    rx: netchan.Receiver[bytes], untyped: netchan.Channel[Any], numbers: netchan.Channel[int]
) -> None:
    assert_type(await rx.recv_into(bytearray(4)), int)
    assert_type(await untyped.recv_into(memoryview(bytearray(4))), int)
    await rx.recv_into("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await numbers.recv_into(bytearray(4))  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def untyped(ch: netchan.Channel[Any]) -> None:
    assert_type(await ch.recv(), Any)
    await ch.send({"any": [1, b"two", None]})


# --- looking, leaving -----------------------------------------------------------------------------------------------


async def looking(ch: netchan.Channel[int], tx: netchan.Sender[int], rx: netchan.Receiver[int]) -> None:
    for handle in (ch, tx, rx):
        assert_type(handle.name, str)
        assert_type(handle.peer, netchan.Peer | None)
        assert_type(handle.capacity, int | None)
        assert_type(handle.pending, int)
        assert_type(handle.closed, bool)
        assert_type(handle.stats(), ChannelStats)
    assert_type(ch.stats().sent, int)
    assert_type(ch.stats().capacity, int | None)
    assert_type(ch == tx, bool)
    ch.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    ch.stats().sent = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def leaving(ch: netchan.Channel[int]) -> None:
    assert_type(ch.close(), None)
    assert_type(ch.stop(), None)
    assert_type(await ch.aclose(), None)
    assert_type(ch.abort(reason="enough"), None)
    async with ch as same:
        assert_type(same, netchan.Channel[int])
        assert_type(await same.recv(), int)
    async with netchan.pipe(int)[0] as made:
        assert_type(made, netchan.Channel[int])
