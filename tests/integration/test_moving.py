"""Channels and ends of channels in values, across sessions (docs/spec/channel-end.md §9, api R40)."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy
import pytest
from numpy.typing import NDArray

import netchan
from netchan import sync
from netchan.channel import forward
from netchan.errors import (
    ChannelAborted,
    ChannelClosed,
    ChannelEnded,
    Code,
    CodecError,
    ConfigError,
    SessionLost,
)
from tests.integration.kit import at_steps
from tests.unit.channel.test_cancel import CountingLoop

pytestmark = pytest.mark.timeout(60)
PATIENCE = 10


class Ask(msgspec.Struct):
    """A request with a place for its answer."""

    number: int
    reply: netchan.Sender[int]


def program(body: Callable[[], Any]) -> Callable[[], None]:
    """Run a coroutine function; afterwards nothing is forwarded any more."""

    def run() -> None:
        async def bounded() -> None:
            async with asyncio.timeout(40):
                await body()

        asyncio.run(bounded())
        end = time.monotonic() + PATIENCE
        while forward.running and time.monotonic() < end:
            gc.collect()
            time.sleep(0.01)
        assert not forward.running

    run.__name__, run.__doc__ = body.__name__, body.__doc__
    return run


@asynccontextmanager
async def session() -> AsyncIterator[tuple[Any, Any]]:
    """The two peers of a session."""
    async with (
        netchan.listen("tcp://127.0.0.1:0", trust="any") as listener,
        netchan.dial(listener.addresses[0], trust="any") as near,
    ):
        yield near, await listener.recv()


@asynccontextmanager
async def link(**options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Both ends of an untyped channel across a session."""
    async with session() as (near, far):
        yield near.open("x", **options), far.open("x")


async def soon(coroutine: Any) -> Any:
    return await asyncio.wait_for(coroutine, PATIENCE)


# --- a sender moves --------------------------------------------------------------------------------------------------


@program
async def test_reply_channel_in_a_request() -> None:
    async with link() as (asks, work):

        async def serve() -> None:
            async for ask in work:
                async with ask["reply"] as reply:
                    await reply.send(ask["number"] * 2)

        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            for number in range(20):
                tx, rx = netchan.channel(int, capacity=1).split()
                await asks.send({"number": number, "reply": tx})
                assert await soon(rx.recv()) == 2 * number
                with pytest.raises(ChannelEnded):
                    await soon(rx.recv())
            asks.close()


@program
async def test_typed_field_gives_a_typed_end() -> None:
    async with session() as (near, far):
        asks, work = near.open("ask", Ask), far.open("ask", Ask)
        tx, rx = netchan.channel(int, capacity=1).split()
        await asks.send(Ask(7, tx))
        ask = await soon(work.recv())
        assert isinstance(ask.reply, netchan.Sender)
        with pytest.raises(CodecError):
            ask.reply.send("no int")
        await ask.reply.send(8)
        assert await soon(rx.recv()) == 8
        ask.reply.close()


@program
async def test_field_of_another_type_is_refused() -> None:
    class Wrong(msgspec.Struct):
        number: int
        reply: netchan.Sender[str]

    async with session() as (near, far):
        asks, work = near.open("ask"), far.open("ask", Wrong)
        tx, rx = netchan.channel(int, capacity=1).split()
        await asks.send({"number": 7, "reply": tx})
        with pytest.raises(CodecError, match="was asked"):
            await soon(work.recv())
        gc.collect()
        with pytest.raises(ChannelAborted) as caught:
            await soon(rx.recv())
        assert caught.value.code == Code.DROPPED


@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_all_values_of_a_moved_sender_arrive_in_order(capacity: int) -> None:
    @program
    async def run() -> None:
        async with link() as (a, b):
            tx, rx = netchan.channel(int, capacity=capacity).split()
            await a.send(tx)
            there = await soon(b.recv())
            assert there.capacity == capacity

            async def feed() -> None:
                for n in range(300):
                    await there.send(n)
                there.close()

            async with asyncio.TaskGroup() as group:
                group.create_task(feed())
                assert [n async for n in rx] == list(range(300))

    run()


@pytest.mark.parametrize("form", [numpy.ndarray, NDArray[numpy.int16]], ids=["arrays", "arrays of a dtype"])
def test_receiver_of_arrays_moves(form: Any) -> None:
    @program
    async def body() -> None:
        async with link() as (here, there):
            tx, rx = netchan.channel(form, capacity=4).split()
            await here.send({"rx": rx})
            moved = (await soon(there.recv()))["rx"]
            await tx.send(numpy.arange(6, dtype="i2").reshape(2, 3)[:, ::-1])
            got = await soon(moved.recv())
            assert got.tolist() == [[2, 1, 0], [5, 4, 3]]
            assert got.dtype == "i2"
            assert got.flags.writeable
            tx.close()
            with pytest.raises(ChannelEnded):
                await soon(moved.recv())

    body()


@program
async def test_moved_sender_is_held_back() -> None:
    async with link() as (a, b):
        ch = netchan.channel(int, capacity=2)
        tx, rx = ch.split()
        await a.send(tx)
        there = await soon(b.recv())
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await there.send(sent)
                    sent += 1
        assert ch.pending == 2 and sent == 4, "its own capacity there, and that of the channel here"
        assert [await soon(rx.recv()) for _ in range(4)] == [0, 1, 2, 3]
        there.close()


@program
async def test_rendezvous_is_one_from_end_to_end() -> None:
    async with link() as (a, b):
        tx, rx = netchan.channel(int).split()
        await a.send(tx)
        there = await soon(b.recv())
        sending = asyncio.create_task(there.send(1))
        await asyncio.sleep(0.2)
        assert not sending.done(), "nobody has taken it"
        assert await soon(rx.recv()) == 1
        await soon(sending)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await there.send(2)
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(rx.recv())
        await asyncio.sleep(0.1)
        assert not waiting.done(), "the value that was taken back is not received"
        await there.send(3)
        assert await soon(waiting) == 3
        there.close()


@program
async def test_giver_has_the_end_no_more_and_a_clone_stays() -> None:
    async with link() as (a, b):
        tx, rx = netchan.channel(int, capacity=4).split()
        mine = tx.clone()
        await a.send(tx)
        with pytest.raises(ChannelClosed, match="sent away"):
            await tx.send(1)
        there = await soon(b.recv())
        await there.send(1)
        assert await soon(rx.recv()) == 1
        there.close()
        await asyncio.sleep(0.05)
        await mine.send(2)
        mine.close()
        assert [n async for n in rx] == [2], "the last sender ends the channel"


@program
async def test_every_ending_of_a_moved_sender_is_told() -> None:
    async with link() as (a, b):
        for ending, code in (("drop", Code.DROPPED), ("error", Code.LEFT_BY_EXCEPTION), ("abort", 7)):
            tx, rx = netchan.channel(int, capacity=2).split()
            await a.send(tx)
            there = await soon(b.recv())
            await there.send(1)
            assert await soon(rx.recv()) == 1
            if ending == "drop":
                with pytest.warns(ResourceWarning, match="without close"):
                    del there
                    gc.collect()
            elif ending == "error":
                with pytest.raises(KeyError):
                    async with there:
                        raise KeyError
            else:
                there.abort(7, "why not")
            with pytest.raises(ChannelAborted) as caught:
                await soon(rx.recv())
            assert caught.value.code == code


@program
async def test_receiver_that_stops_here_stops_the_sender_there() -> None:
    async with link() as (a, b):
        tx, rx = netchan.channel(int, capacity=2).split()
        await a.send(tx)
        there = await soon(b.recv())
        rx.stop()
        with pytest.raises(ChannelClosed):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await there.send(1)
                    await asyncio.sleep(0.001)


# --- a receiver moves, a channel is shared ---------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 3])
def test_all_values_go_to_a_moved_receiver(capacity: int) -> None:
    @program
    async def run() -> None:
        async with link() as (a, b):
            tx, rx = netchan.channel(int, capacity=capacity).split()
            await a.send([rx])
            (there,) = await soon(b.recv())

            async def feed() -> None:
                for n in range(100):
                    await tx.send(n)
                tx.close()

            async with asyncio.TaskGroup() as group:
                group.create_task(feed())
                assert [n async for n in there] == list(range(100))

    run()


@program
async def test_values_stay_here_until_somebody_takes_them_there() -> None:
    async with link() as (a, b):
        ch = netchan.channel(int, capacity=3)
        await a.send(ch.split()[1])
        there = await soon(b.recv())
        for n in range(3):
            await ch.send(n)
        await asyncio.sleep(0.1)
        assert ch.pending == 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                while True:
                    await there.recv()
        there.stop()
        await asyncio.sleep(0.1)
        assert ch.pending == 0, "ch is still a receiver" if ch.pending else ""


@program
async def test_receivers_here_and_there_share_the_queue_and_lose_nothing() -> None:
    async with link() as (a, b):
        ch = netchan.channel(int, capacity=4)
        await a.send(ch)
        there = await soon(b.recv())
        got: list[int] = []

        async def take(channel: Any) -> None:
            while True:
                try:
                    async with asyncio.timeout(0.003):
                        got.append(await channel.recv())
                except TimeoutError:
                    pass
                except ChannelEnded:
                    return

        async with asyncio.TaskGroup() as group:
            for channel in (ch, there, there):
                group.create_task(take(channel))
            for n in range(300):
                await (ch if n % 2 else there).send(n)
                if n % 10 == 0:
                    await asyncio.sleep(0.002)
            await there.flush("taken")
            ch.close()
        assert sorted(got) == list(range(300))


@program
async def test_close_of_a_shared_channel_is_seen_on_both_sides() -> None:
    async with link() as (a, b):
        ch = netchan.channel(str, capacity=2)
        await a.send(ch)
        there = await soon(b.recv())
        await there.send("last")
        there.close()
        assert [v async for v in ch] == ["last"]
        with pytest.raises(ChannelClosed):
            await ch.send("late")


@program
async def test_end_of_a_channel_of_the_network_moves_on_to_a_third_process() -> None:
    async with session() as (near, far), session() as (left, right):
        jobs, _ = near.open("jobs", int, capacity=3), None
        source = far.open("jobs", int)
        road, end = left.open("road"), right.open("road")
        await road.send(jobs.split()[1])
        del jobs
        there = await soon(end.recv())
        for n in range(10):
            await source.send(n)
            assert await soon(there.recv()) == n
        source.close()
        with pytest.raises(ChannelEnded):
            await soon(there.recv())


@program
async def test_end_that_was_received_is_passed_on() -> None:
    async with session() as (near, far), session() as (left, right):
        first, second = near.open("x"), far.open("x")
        third, fourth = left.open("y"), right.open("y")
        tx, rx = netchan.channel(int, capacity=1).split()
        await first.send(tx)
        await third.send(await soon(second.recv()))
        there = await soon(fourth.recv())
        for n in range(20):
            await there.send(n)
            assert await soon(rx.recv()) == n
        there.close()
        with pytest.raises(ChannelEnded):
            await soon(rx.recv())


# --- the value is not received, the session is lost ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "abort", "leave"])
def test_end_in_a_value_that_nobody_receives_is_dropped(how: str) -> None:
    @program
    async def run() -> None:
        async with session() as (near, far):
            a, b = near.open("x"), far.open("x")
            tx, rx = netchan.channel(int, capacity=1).split()
            await a.send(tx)
            await a.flush()
            if how == "stop":
                b.stop()
            elif how == "abort":
                b.abort(3)
            else:
                await far.aclose()
            with pytest.raises((ChannelAborted, SessionLost)) as caught:
                await soon(rx.recv())
            if isinstance(caught.value, ChannelAborted):
                assert caught.value.code == Code.DROPPED

    run()


@program
async def test_lost_session_is_no_end() -> None:
    async with session() as (near, far):
        a, b = near.open("x"), far.open("x")
        tx, rx = netchan.channel(int, capacity=1).split()
        here, theirs = netchan.channel(int, capacity=1).split()
        await a.send([tx, theirs])
        there, _back = await soon(b.recv())
        await there.send(1)
        assert await soon(rx.recv()) == 1
        far._core.leave_by_exception()
        with pytest.raises((SessionLost, ChannelAborted)):
            await soon(rx.recv())
        with pytest.raises((SessionLost, ChannelAborted, ChannelClosed)):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await here.send(1)
                    await asyncio.sleep(0.005)


@program
async def test_cancelled_send_gives_nothing_away() -> None:
    async with link(capacity=1) as (a, b):
        await a.send("first")
        tx, rx = netchan.channel(int, capacity=1).split()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await a.send(tx)
        await tx.send(5)
        assert await rx.recv() == 5
        assert await soon(b.recv()) == "first"
        await a.send(tx)
        there = await soon(b.recv())
        await there.send(6)
        assert await soon(rx.recv()) == 6
        there.close()


@program
async def test_end_goes_by_a_rendezvous_only_when_it_is_taken() -> None:
    async with link(capacity=0) as (a, b):
        tx, rx = netchan.channel(int, capacity=1).split()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await a.send(tx)
        await tx.send(1)
        assert await rx.recv() == 1
        sending = asyncio.create_task(a.send(tx))
        there = await soon(b.recv())
        await soon(sending)
        await there.send(2)
        assert await soon(rx.recv()) == 2
        there.close()


# --- what cannot be sent ---------------------------------------------------------------------------------------------


@program
async def test_what_cannot_move_is_refused_at_the_call() -> None:
    async with session() as (near, far):
        a, _ = near.open("x"), far.open("x")
        tx, rx = netchan.channel(int, capacity=1).split()
        for wrong in ([tx, tx], [rx, rx], [netchan.channel(capacity=1).split()[0] for _ in range(17)]):
            with pytest.raises(CodecError):
                a.send(wrong)
        for form in (bytes, int, list[int]):
            with pytest.raises(CodecError):
                near.open(f"y{form}", form).send(tx)
        with pytest.raises(CodecError, match="may drop"):
            near.open("z", overflow="latest").send(tx)
        with pytest.raises(CodecError, match="could not travel"):
            a.send(netchan.channel(complex).split()[0])
        tx.close()
        with pytest.raises(CodecError, match="closed"):
            a.send(tx)
        with pytest.raises((ConfigError, CodecError)):
            near.open("w", dict[str, complex]).send({})


@program
async def test_value_of_the_channel_that_cannot_travel_ends_the_far_receiver_and_stays() -> None:
    async with link() as (a, b):
        ch = netchan.channel(capacity=2)
        await a.send(ch.split()[1])
        there = await soon(b.recv())
        await ch.send(object())
        with pytest.raises(ChannelAborted) as caught:
            await soon(there.recv())
        assert caught.value.code == Code.TYPE_MISMATCH
        assert ch.pending == 1
        ch.close()


# --- other fronts, and a program that is elsewhere -------------------------------------------------------------------


def test_blocking_front_gets_ends_of_its_own_and_forwards_while_the_program_is_elsewhere() -> None:
    with sync.listen("tcp://127.0.0.1:0", trust="any") as listener:
        near = sync.dial(listener.addresses[0], trust="any")
        far = listener.recv(timeout=PATIENCE)
        a, b = near.open("x"), far.open("x")
        tx, rx = sync.channel(int, capacity=50).split()
        a.send(tx)
        there = b.recv(timeout=PATIENCE)
        assert isinstance(there, sync.Sender)
        for n in range(50):
            there.send(n)
        time.sleep(0.5)  # nobody is inside netchan: the guardians and the worker go on
        assert rx.pending == 50
        there.close()
        assert list(rx) == list(range(50))
        near.close()


@program
async def test_many_requests_leave_nothing_behind() -> None:
    async with link() as (asks, work):

        async def serve() -> None:
            async for reply in work:
                await reply.send(1)
                reply.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            for _ in range(500):
                tx, rx = netchan.channel(int, capacity=1).split()
                await asks.send(tx)
                assert await soon(rx.recv()) == 1
            asks.close()
        assert len(forward.running) < 20


# --- cancelled at any step, a fault while it is opened ---------------------------------------------------------------


def test_r40_cancelled_send_of_an_end_has_happened_or_not() -> None:
    """The sender is here or over there, never both and never nowhere; what was sent into it arrives once."""
    loop = CountingLoop()
    step = at_steps(loop, 60, 3)
    moved = stayed = 0

    async def main() -> None:
        nonlocal moved, stayed
        async with session() as (near, far):
            for seed in range(150):
                rng = random.Random(seed)
                capacity = rng.choice([0, 1, 4])
                a, b = near.open(f"x{seed}", capacity=capacity), far.open(f"x{seed}")
                tx, rx = netchan.channel(int, capacity=2).split()
                if capacity and rng.random() < 0.5:
                    for _ in range(capacity):
                        a.send_nowait("full")
                sending = asyncio.create_task(a.send({"end": tx}))

                async def take(channel: Any = b, turns: int = rng.choice([0, 50])) -> Any:
                    for _ in range(turns):  # an offer is out meanwhile, and can be taken back
                        await asyncio.sleep(0)
                    while True:
                        value = await channel.recv()
                        if value != "full":
                            return value["end"]

                taking = asyncio.create_task(take())
                step(rng, sending.cancel)
                await asyncio.wait([sending], timeout=PATIENCE)
                step(None, None)
                assert sending.done(), f"{seed=} hangs"
                if sending.cancelled():
                    stayed += 1
                    await tx.send(seed)
                    assert await soon(rx.recv()) == seed, f"{seed=}"
                    taking.cancel()
                    tx.close()
                    for late in await asyncio.gather(taking, return_exceptions=True):
                        if isinstance(late, netchan.Sender):
                            late.close()  # cancelled a second time while it asked: in doubt, and of no use over there
                else:
                    moved += 1
                    there = await soon(taking)
                    await soon(there.send(seed))
                    assert await soon(rx.recv()) == seed, f"{seed=}"
                    with pytest.raises(ChannelClosed, match="sent away"):
                        tx.send_nowait(0)
                    there.close()
                a.close()
                b.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert moved > 10 and stayed > 10, (moved, stayed)


@program
async def test_end_that_cannot_be_opened_is_dropped_and_not_forgotten() -> None:
    async with link() as (a, b):

        def refuse(*_: object, **__: object) -> None:
            raise MemoryError

        tx, rx = netchan.channel(int, capacity=1).split()
        a._ep.sibling = refuse
        await a.send([tx])
        with pytest.raises(ChannelAborted) as caught:
            await soon(rx.recv())
        assert caught.value.code == Code.DROPPED
        (there,) = await soon(b.recv())
        there.abort()
