"""What forwards of ends in values owe when others misbehave, give up or compete (docs/spec/channel-end.md §9)."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import netchan
from netchan.errors import ChannelAborted, ChannelClosed, ChannelEnded, Code
from tests.integration.kit import until
from tests.integration.test_moving import link, program, session, soon

pytestmark = pytest.mark.timeout(60)


async def given_up(task: asyncio.Task[Any]) -> bool:
    """Cancel a call; True if it had not happened."""
    task.cancel()
    return isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


@program
async def test_value_that_does_not_fit_ends_the_far_sender_and_its_place_here() -> None:
    async with link() as (a, b):
        tx, rx = netchan.channel(list[int], capacity=2).split()
        await a.send(tx)
        there = await soon(b.recv())
        await there.send([1])
        assert await soon(rx.recv()) == [1]
        await there.send({"no": "list"})
        with pytest.raises(ChannelAborted) as caught:
            await soon(rx.recv())
        assert caught.value.code == Code.DROPPED
        with pytest.raises((ChannelAborted, ChannelClosed)):
            while True:
                await soon(there.send([2]))


@program
async def test_value_of_another_sender_goes_on_behind_one_that_does_not_fit() -> None:
    async with link() as (a, b):
        ch = netchan.channel(list[int], capacity=1)
        tx, rx = ch.split()
        await a.send(tx.clone())
        there = await soon(b.recv())
        await there.send("no list")
        for n in range(5):  # the place that was held for it is free again
            await soon(tx.send([n]))
            assert await soon(rx.recv()) == [n]
        tx.close()
        ch.close()


@program
async def test_rendezvous_over_two_sessions_loses_nothing_when_others_give_up() -> None:
    async with session() as (left, receiver), session() as (right, holder):
        here, out = left.open("z", int, capacity=0), receiver.open("z", int, capacity=0)
        give, take = right.open("give"), holder.open("give")
        tx, _ = here.split()
        await give.send(tx.clone())
        there = await soon(take.recv())
        sent = asyncio.create_task(there.send(1))
        for _ in range(2):
            beside = asyncio.create_task(tx.send(2))
            await asyncio.sleep(0.05)
            assert not sent.done(), "nobody waits for it"
            assert await given_up(beside)
        asking = asyncio.create_task(out.recv())
        await soon(sent)
        assert await soon(asking) == 1
        assert await given_up(asyncio.create_task(there.send(3)))
        for end in (there, tx, here, out):
            end.close()


@program
async def test_value_offered_to_a_holder_that_gave_up_is_there_for_others() -> None:
    async with link() as (a, b):
        here = netchan.channel(int, capacity=4)
        tx, rx = here.split()
        await a.send(rx)
        there = await soon(b.recv())
        for n in range(150):
            asking = asyncio.create_task(there.recv())
            await asyncio.sleep(0.001 if n % 2 else 0.003)
            sending = asyncio.create_task(tx.send(n))
            for _ in range(n % 30):
                await asyncio.sleep(0)
            got = n if not await given_up(asking) else await soon(here.recv())
            assert got == n
            await sending
        here.close()


@program
async def test_value_that_came_back_is_seen_by_every_verb() -> None:
    async with session() as (left, right):
        here, there = left.open("x", bytes), right.open("x", bytes)
        for n in range(3):
            await there.send(b"%d" % n)
        await there.flush("received")

        async def back() -> None:
            here._ep.put_back(await soon(here.recv()))

        await back()
        assert here.stats().pending == 3
        assert await soon(here.recv_many(min=3)) == [b"0", b"1", b"2"]
        await there.send(b"next")
        await there.send(b"last")
        await back()
        room = bytearray(3)
        with pytest.raises(netchan.MessageTooLarge):
            await soon(here.recv_into(room))
        room = bytearray(8)
        assert await soon(here.recv_into(room)) == 4 and room[:4] == b"next"
        await back()
        here.abort(7, "enough")
        with pytest.raises(ChannelAborted):
            await soon(here.recv())


@program
async def test_end_that_went_to_and_fro_ends_all_its_forwards() -> None:
    async with link() as (a, b):
        tx, rx = netchan.channel(int, capacity=1).split()
        for _ in range(100):
            await a.send(rx)
            rx = await soon(b.recv())
            a, b = b, a
        await soon(tx.send(7))
        assert await soon(rx.recv()) == 7
        tx.close()
        with pytest.raises(ChannelEnded):
            await soon(rx.recv())


@pytest.mark.parametrize("how", ["stop", "close", "abort", "drop"])
def test_holder_that_sends_nothing_hears_of_the_end(how: str) -> None:
    @program
    async def run() -> None:
        async with session() as (left, right):
            give, take = left.open("give"), right.open("give")
            here = netchan.channel(int, capacity=2)
            tx, rx = here.split()
            await give.send(tx)
            there = await soon(take.recv())
            await there.send(1)
            assert await soon(rx.recv()) == 1
            await asyncio.sleep(0.05)  # nothing is on its way any more that would have the forward look
            if how == "stop":
                rx.stop()
            elif how == "close":
                here.close()
            elif how == "abort":
                here.abort(7, "enough")
            else:
                del here, rx
                gc.collect()
            await until(lambda: there._ep.send_over)
            with pytest.raises(ChannelAborted if how == "abort" else ChannelClosed) as caught:
                await soon(there.send(1))
            if isinstance(caught.value, ChannelAborted):
                assert (caught.value.code, caught.value.reason) == (7, "enough")

    run()


@program
async def test_holder_hears_of_the_end_of_a_channel_of_the_network() -> None:
    async with session() as (left, receiver), session() as (right, holder):
        here, out = left.open("z", int), receiver.open("z", int)
        give, take = right.open("give"), holder.open("give")
        tx, rx = here.split()
        await give.send(tx)
        there = await soon(take.recv())
        await there.send(1)
        assert await soon(out.recv()) == 1
        out.stop()
        await until(lambda: there._ep.send_over)
        rx.stop()
        out.close()
