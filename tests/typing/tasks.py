"""What a type checker knows of a call that is given to somebody else to run; checked by ``make lint``, never run."""

from __future__ import annotations

import asyncio
from typing import assert_type

import trio

import netchan


async def on_asyncio(ch: netchan.Channel[int], words: netchan.Receiver[str], address: str) -> None:
    assert_type(asyncio.create_task(ch.send(1)), asyncio.Task[None])
    assert_type(asyncio.create_task(ch.recv()), asyncio.Task[int])
    assert_type(asyncio.create_task(ch.recv_many()), asyncio.Task[list[int]])
    assert_type(asyncio.create_task(ch.send_many([1])), asyncio.Task[int])
    assert_type(asyncio.create_task(netchan.dial(address)), asyncio.Task[netchan.Peer])
    assert_type(asyncio.create_task(netchan.select(ch.recv_op())), asyncio.Task[netchan.Op])
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(ch.recv()), asyncio.Task[int])
    assert_type(await asyncio.gather(ch.recv(), words.recv()), tuple[int, str])
    assert_type(await asyncio.wait_for(ch.recv(), 1.0), int)
    async with asyncio.timeout(1.0):
        assert_type(await ch.recv(), int)


def with_a_loop_of_its_own(ch: netchan.Channel[int], address: str) -> None:
    assert_type(asyncio.run(ch.recv()), int)
    assert_type(asyncio.run(netchan.dial(address)), netchan.Peer)


async def on_trio(ch: netchan.Channel[int]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ch.send, 1)
        nursery.start_soon(ch.recv)
        nursery.start_soon(ch.send, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
