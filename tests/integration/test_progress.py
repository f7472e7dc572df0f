"""Progress does not depend on the user (R7): a program that is elsewhere loses no path and goes on accepting.

NETCHAN_LONG=1 sleeps the full minute of the rule; the default run proves the same in 12 s with a shorter dead time.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import netchan
from netchan import Config, sync
from netchan.net import manager
from netchan.net.manager import loop_engine
from netchan.testing.pair import joined as joined_sides
from tests.integration.kit import BOSS, LOOPS, TCP, program, session
from tests.integration.programs import Program

LONG = bool(os.environ.get("NETCHAN_LONG"))
WAIT = 10.0


def compute(seconds: float) -> None:
    """Hold the GIL, but for the interpreter's own switches."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(2000))


@pytest.mark.parametrize("carrier", ["tcp", "unix"])
def test_r7_listen_dial_and_exchange_in_one_blocking_thread(carrier: str, tmp_path: Any) -> None:
    place = TCP if carrier == "tcp" else f"unix://{tmp_path}/node.sock"
    with sync.listen(place, identity=BOSS, trust="any") as listener:
        with sync.dial(listener.addresses[0]) as near:
            far = listener.recv(timeout=WAIT)
            there, here = near.open("x", int, capacity=3), far.open("x", int)
            for n in range(300):
                there.send(n, timeout=WAIT)
                assert here.recv(timeout=WAIT) == n
                here.send(-n, timeout=WAIT)
                assert there.recv(timeout=WAIT) == -n
            there.send(1, timeout=WAIT)
            there.flush(timeout=WAIT)
            assert here.pending == 1
            there.close()
            assert list(here) == [1]


@pytest.mark.timeout(150)
def test_r7_program_that_sleeps_loses_no_path_and_takes_what_comes() -> None:
    """The other side dials, sends up to the capacity, and keeps its path for far longer than its dead time."""
    kinds = ["asyncio", "uvloop", "blocking"]
    with ThreadPoolExecutor(len(kinds)) as pool:  # each sleeps in a thread of its own
        list(pool.map(sleeps, kinds))


def sleeps(kind: str) -> None:
    """The program of one kind, in this thread."""
    seconds = 60.0 if LONG else 12.0 if kind == "asyncio" else 5.0
    options = {} if LONG else {"heartbeat": 0.5, "dead": 2.0}

    def exchange(side: Any) -> None:
        # the other side is a thread of its own with a blocking engine: its sends are accepted up to the capacity
        out = sync.Channel(side.open("x", int, 50))
        begun = time.monotonic()
        accepted = 0
        while time.monotonic() - begun < seconds - 1:
            try:
                out.send(accepted, timeout=0.5)
                accepted += 1
            except TimeoutError:
                pass
        counts.append(accepted)
        out.close()

    counts: list[int] = []

    def check(side: Any, values: list[int], other: Any) -> None:
        assert not side.session.over
        assert not other.session.over
        assert counts == [50], "accepted up to the capacity while nobody was inside"
        assert values == list(range(50))

    if kind == "blocking":
        here, there = joined_sides(**options)
        rx = sync.Channel(here.open("x", int, 50))
        thread = threading.Thread(target=exchange, args=(there,))
        thread.start()
        time.sleep(seconds)
        thread.join(WAIT)
        check(here, list(rx), there)
        rx.close()
        here.session.close(0)
        return

    async def body() -> None:
        engine = await loop_engine()
        other = manager.new_engine("caller")
        here, there = joined_sides(engines=(engine, other), **options)
        rx = netchan.Channel(here.open("x", int, 50))
        thread = threading.Thread(target=exchange, args=(there,))
        thread.start()
        time.sleep(seconds)  # in the thread of the loop
        thread.join(WAIT)
        check(here, [value async for value in rx], there)
        rx.close()
        here.session.close(0)

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(body())


@program
async def test_r7_accepts_and_hands_over_while_the_loop_is_busy() -> None:
    async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:

        def other() -> float:
            with sync.dial(listener.addresses[0], timeout=WAIT) as peer, peer.open("x", int, capacity=10) as channel:
                begun = time.monotonic()
                channel.send_many(range(10), timeout=WAIT)
                channel.flush(timeout=WAIT)
                return time.monotonic() - begun

        task = asyncio.create_task(asyncio.to_thread(other))
        await asyncio.sleep(0)
        time.sleep(1.0)  # the loop does nothing, the handshake, the offer and the values go on
        assert listener.pending == 1
        took = await task
        assert took < 1.0
        peer = await listener.recv()
        channel = await anext(peer)
        assert [value async for value in channel] == list(range(10))


@program
async def test_r7_blocked_thread_and_loop_on_one_session() -> None:
    async with session(lease=300.0) as (near, far):
        there, here = near.open("x", int, capacity=4), far.open("x", int)
        back, forth = near.open("y", int, capacity=4), far.open("y", int)
        blocking = sync.Channel(here._ep)

        def echo() -> int:
            n = 0
            for value in blocking:
                sync.Channel(forth._ep).send(-value, timeout=WAIT)
                n += 1
            return n

        async def ask() -> None:
            for n in range(300):
                await there.send(n)
            there.close()

        thread = asyncio.create_task(asyncio.to_thread(echo))
        asking = asyncio.create_task(ask())
        assert [await back.recv() for _ in range(300)] == [-n for n in range(300)]
        await asking
        assert await thread == 300
        forth.close()


def test_r7_blocking_program_that_computes_without_calling_in() -> None:
    """Sends leave, and what comes is acknowledged, while the program computes; nobody else drives its engine."""
    with sync.listen(TCP, identity=BOSS, trust="any", config=Config(heartbeat=0.5)) as listener:
        with Program("echo", listener.addresses[0]) as child:
            peer = listener.recv(timeout=WAIT)
            channel = peer.open("echo", str, capacity=100)
            channel.send("first", timeout=WAIT)
            assert channel.recv(timeout=WAIT) == "first"
            for n in range(20):
                channel.send(str(n), timeout=WAIT)
            compute(1.5)
            assert not peer.closed
            assert channel.stats().received == 21, "they were sent, came back and were taken in meanwhile"
            assert [channel.recv(timeout=0) for _ in range(20)] == [str(n) for n in range(20)]
            channel.close()
            assert child.wait(WAIT) is not None
            peer.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_r57_blocking_call_on_the_loop_that_drives_the_engine_is_a_runtime_error(kind: str) -> None:
    async def body() -> None:
        async with session() as (near, far):
            there, here = near.open("x", int), far.open("x", int)
            blocking = sync.Channel(here._ep)
            with pytest.raises(RuntimeError, match="await"):
                blocking.recv(timeout=1)
            await there.send(1)
            assert await asyncio.to_thread(blocking.recv, timeout=WAIT) == 1

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(body())


@program
async def test_r57_blocking_front_has_an_engine_of_its_own_and_works_inside_a_running_loop() -> None:
    with sync.listen(TCP, identity=BOSS, trust="any") as listener, sync.dial(listener.addresses[0]) as near:
        far = listener.recv(timeout=WAIT)
        there, here = near.open("x", int), far.open("x", int)
        there.send(1, timeout=WAIT)
        assert here.recv(timeout=WAIT) == 1


def test_r57_channel_is_used_from_other_loops_and_threads() -> None:
    async def own() -> None:
        async with session() as (near, far):
            there, here = near.open("x", int, capacity=2), far.open("x", int)

            async def send_all() -> None:
                for n in range(50):
                    await there.send(n)
                there.close()

            async def take_all() -> list[int]:
                return [value async for value in here]

            sending = asyncio.create_task(asyncio.to_thread(asyncio.run, send_all()))
            assert await asyncio.to_thread(asyncio.run, take_all()) == list(range(50))
            await sending

    asyncio.run(own())


def test_r57_leaving_a_peer_wakes_every_thread_and_task() -> None:
    async def own() -> None:
        woken: list[type[BaseException]] = []

        async with session() as (near, far):
            there = near.open("x", int)
            here = far.open("x", int)
            blocking = sync.Channel(there._ep)

            def wait() -> None:
                try:
                    blocking.recv(timeout=WAIT)
                except Exception as error:
                    woken.append(type(error))

            threads = [asyncio.create_task(asyncio.to_thread(wait)) for _ in range(3)]
            tasks = [asyncio.create_task(there.recv()) for _ in range(3)]
            while there.stats().receivers_waiting < 6:
                await asyncio.sleep(0.001)
            begun = time.monotonic()
            near.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*threads)
            assert time.monotonic() - begun < 2
            assert {type(r) for r in results} | set(woken) == {netchan.ChannelClosed}
            assert len(woken) == 3
            here.close()

    asyncio.run(own())


@program
async def test_r57_nothing_pickles() -> None:
    import pickle

    async with session() as (near, far):
        there, _here = near.open("x", int), far.open("x", int)
        listener = await netchan.listen(TCP, trust="any")
        for thing in (near, there, *there.split(), listener):
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(thing)
        await listener.aclose()
