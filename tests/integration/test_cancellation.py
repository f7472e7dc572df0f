"""Cancellation and timeouts across a session: nothing is lost, nothing doubled (R20-R25), at any scheduling point.

Each seed is one short program of senders and receivers over one channel of a Unix socket pair; the figures in a
failure's
message replay it. NETCHAN_SEEDS multiplies the number of seeds (default 1: 2 000 programs in all).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from netchan import sync
from netchan.channel.fronts import Channel
from netchan.config import Config
from netchan.errors import ChannelEnded
from netchan.net.manager import caller_home, loop_home
from netchan.testing.pair import Side, joined
from tests.integration.kit import at_steps, at_turns
from tests.unit.channel.test_cancel import CountingLoop, Source

FACTOR = int(os.environ.get("NETCHAN_SEEDS", "1"))
VERBS = ("send", "recv", "send_many", "recv_many", "deliver", "flush")
STEPPED, LOOSE, THREADED = 111 * FACTOR, 30 * FACTOR, 26 * FACTOR
"""Seeds per verb and capacity: cancelled at counted steps, cancelled under uvloop, timed out in threads. 2 004 in
all."""
pytestmark = pytest.mark.timeout(120 * FACTOR)


class Ledger:
    """What was accepted, perhaps accepted, and received; and whether that adds up."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.doubtful: list[int] = []
        self.got: list[list[int]] = []

    def check(self, where: str, parts: int) -> None:
        got = [n for mine in self.got for n in mine]
        assert len(got) == len(set(got)), f"{where}: doubled in {got}"
        assert set(self.sent) <= set(got), f"{where}: lost {set(self.sent) - set(got)}"
        extra = set(got) - set(self.sent) - set(self.doubtful)
        assert not extra, f"{where}: raised and yet sent {extra}"
        for mine in self.got:
            for k in range(parts):
                own = [n for n in mine if n % parts == k]
                assert own == sorted(own), f"{where}: out of order {own}"


async def run_seed(seed: int, ends: tuple[Channel[int], Channel[int]], verb: str, step: Any, where: str) -> int:
    """One program; ``step(hit)`` arranges that ``hit()`` is called at some points. Returns how many tasks it ended."""
    rng = random.Random(seed)
    tx, rx = ends
    book = Ledger()
    total, parts = 14, 2

    async def send(values: list[int]) -> None:
        if verb == "send_many":
            source = Source(values)
            try:
                await tx.send_many(source)
            finally:
                book.sent.extend(values[: len(values) - len(source.left)])
            return
        for value in values:
            try:
                await (tx.deliver(value) if verb == "deliver" else tx.send(value))
            except asyncio.CancelledError:
                if verb == "deliver":
                    book.doubtful.append(value)  # may have been accepted; never twice
                raise
            book.sent.append(value)
            if verb == "flush":
                await tx.flush(rng.choice(("received", "taken")))
            if rng.random() < 0.3:
                await asyncio.sleep(0)

    async def receive() -> None:
        mine: list[int] = []
        book.got.append(mine)
        try:
            while True:
                if verb == "recv_many" or rng.random() < 0.2:
                    mine.extend(await rx.recv_many(3))
                else:
                    mine.append(await rx.recv())
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
        except ChannelEnded:
            pass

    senders = [asyncio.create_task(send(list(range(k, total, parts)))) for k in range(parts)]
    receivers = [asyncio.create_task(receive()) for _ in range(3)]
    victims = receivers[:2] if verb.startswith("recv") else [*senders, receivers[0]]
    step(rng, lambda: rng.choice(victims).cancel())
    await asyncio.wait(senders, timeout=20)
    tx.close()
    await asyncio.wait(receivers, timeout=20)
    step(None, None)
    for task in (*senders, *receivers):
        assert task.done(), f"{where}: hangs, {tx!r} {tx.stats()} {rx!r} {rx.stats()}"
        if not task.cancelled() and task.exception() is not None:
            raise AssertionError(where) from task.exception()
    book.check(where, parts)
    rx.close()
    return sum(task.cancelled() for task in (*senders, *receivers))


async def on_loop(seeds: range, capacity: int, verb: str, step: Any, io_threads: int = 0) -> int:
    """Run the seeds on a session of the running loop, or of two engines with threads of their own."""
    engines = (await loop_home(Config(io_threads=io_threads))).engines
    sides: tuple[Side, Side] = joined(engines=(engines[0], engines[-1]))
    hit = 0
    for seed in seeds:
        ends = [Channel(side.open(f"c{seed}", int, capacity)) for side in sides]
        if seed % 3:  # else the first sends go before either side knows of the other
            while not all(end._ep.paired for end in ends):
                await asyncio.sleep(0)
        where = f"seed={seed} capacity={capacity} verb={verb}"
        hit += await run_seed(seed, (ends[0], ends[1]), verb, step, where)
    for side in sides:
        side.session.close(0)
    return hit


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("capacity", [1, 64])
def test_r20_r24_cancel_at_any_step_loses_and_doubles_nothing(capacity: int, verb: str) -> None:
    loop = CountingLoop()
    step = at_steps(loop, 60, 3)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        hits = runner.run(on_loop(range(STEPPED), capacity, verb, step))
    assert hits > STEPPED // 10, "the cancellations hardly hit anything"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("capacity", [1, 64])
def test_r20_r24_cancel_under_uvloop_loses_and_doubles_nothing(capacity: int, verb: str) -> None:
    step = at_turns(30, 3)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        hits = runner.run(on_loop(range(LOOSE), capacity, verb, step))
    assert hits > LOOSE // 10, "the cancellations hardly hit anything"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("capacity", [1, 64])
def test_r20_r24_timeouts_in_threads_lose_and_double_nothing(capacity: int, verb: str) -> None:
    assert in_threads(joined(), range(THREADED), capacity, verb) > 0


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("capacity", [1, 64])
def test_r20_r24_engines_with_threads_lose_and_double_nothing(capacity: int, verb: str) -> None:
    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        hits = 0
        for turn in range(5):  # with another thread a call has as many steps as it happens: more seeds if few were hit
            seeds = range(turn * LOOSE, (turn + 1) * LOOSE)
            hits += runner.run(on_loop(seeds, capacity, verb, at_steps(loop, 60, 3), io_threads=2))
            if hits > LOOSE // 10:
                break
    assert hits > LOOSE // 10, "the cancellations hardly hit anything"
    first, second = caller_home(Config(io_threads=2)).engines
    assert in_threads(joined(engines=(first, second)), range(THREADED // 3), capacity, verb) > 0


def in_threads(sides: tuple[Side, Side], seeds: range, capacity: int, verb: str) -> int:
    """Run the seeds with blocked threads; gives how many calls timed out."""
    timeouts = 0
    for seed in seeds:
        ends = tuple(sync.Channel(side.open(f"c{seed}", int, capacity)) for side in sides)
        timeouts += _threads(seed, ends, verb, f"seed={seed} capacity={capacity} verb={verb}")
    for side in sides:
        side.session.close(0)
    print(f"\n{timeouts} timeouts")
    return timeouts


def _threads(seed: int, ends: tuple[Any, ...], verb: str, where: str) -> int:
    rng = random.Random(seed)
    tx, rx = ends
    book = Ledger()
    total, parts = 20, 2
    timeouts = 0
    failures: list[BaseException] = []

    def brief() -> float:
        return rng.choice((0.0, 0.00005, 0.0005, 0.002))

    def guard(work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            failures.append(error)

    def again(call: Callable[[], object]) -> None:
        nonlocal timeouts
        while True:
            try:
                call()
                return
            except TimeoutError:
                timeouts += 1

    def send(values: list[int]) -> None:
        nonlocal timeouts
        if verb == "send_many":
            source = Source(values)
            again(lambda: tx.send_many(source, timeout=brief()))
            book.sent.extend(values)
            return
        for value in values:
            if verb == "deliver":
                try:
                    tx.deliver(value, timeout=brief())
                    book.sent.append(value)
                except TimeoutError:
                    timeouts += 1
                    book.doubtful.append(value)
                continue
            again(lambda value=value: tx.send(value, timeout=brief()))  # type: ignore[misc]
            book.sent.append(value)
            if verb == "flush":
                again(lambda: tx.flush(rng.choice(("received", "taken")), timeout=brief()))

    def receive(mine: list[int]) -> None:
        nonlocal timeouts
        while True:
            try:
                if verb == "recv_many":
                    mine += rx.recv_many(3, timeout=brief())
                else:
                    mine.append(rx.recv(timeout=brief()))
            except TimeoutError:
                timeouts += 1
            except ChannelEnded:
                return

    book.got = [[], []]
    senders = [threading.Thread(target=guard, args=(send, [*range(k, total, parts)])) for k in range(parts)]
    receivers = [threading.Thread(target=guard, args=(receive, mine)) for mine in book.got]
    for thread in (*senders, *receivers):
        thread.start()
    for thread in senders:
        thread.join(20)
    tx.close()
    for thread in receivers:
        thread.join(20)
    alive = [thread for thread in (*senders, *receivers) if thread.is_alive()]
    if alive:
        tx.abort()
    assert not alive, f"{where}: hangs, {tx!r} {tx.stats()} {rx!r} {rx.stats()}"
    assert not failures, f"{where}: {failures}"
    book.check(where, parts)
    rx.close()
    return timeouts
