"""Cancelling at every scheduling point: an operation that raised has not happened (docs/spec/channel-end.md §4).

A loop that counts its turns cancels a chosen task after a chosen turn. Each seed is one short program of senders and
receivers; the figures in the failure message replay it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netchan.channel.fronts import Channel, channel, pipe
from netchan.errors import ChannelClosed, ChannelEnded
from tests.unit.channel.harness import until

SEEDS = 600
"""Per capacity and verb: 5 400 in all."""
pytestmark = pytest.mark.timeout(120)


class CountingLoop(asyncio.SelectorEventLoop):
    """Calls ``on_step`` before every callback it runs: between any two scheduling points."""

    on_step: Callable[[], None] | None = None

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        def stepped(*inner: Any) -> None:
            if self.on_step is not None:
                self.on_step()
            callback(*inner)

        return super().call_soon(stepped, *args, context=context)


class Source:
    """An iterator that remembers what it gave out."""

    def __init__(self, values: list[int]) -> None:
        self.left = list(values)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


async def run_seed(seed: int, loop: CountingLoop, capacity: int, verb: str, two_queues: bool) -> int:
    rng = random.Random(seed)
    ends: tuple[Channel[int], Channel[int]]
    if two_queues:
        ends = pipe(int, capacity=capacity)
    else:
        one = channel(int, capacity=capacity)
        ends = (one, one)
    tx, rx = ends
    got: list[int] = []
    sent: list[int] = []
    doubtful: list[int] = []

    async def send(values: list[int]) -> None:
        if verb == "send_many":
            source = Source(values)
            try:
                await tx.send_many(source)
            finally:
                sent.extend(values[: len(values) - len(source.left)])
            return
        for value in values:
            try:
                if verb == "deliver":
                    await tx.deliver(value)
                else:
                    await tx.send(value)
            except asyncio.CancelledError:
                # A deliver may be cancelled after acceptance: the value is sent or not, but never twice.
                if verb == "deliver":
                    doubtful.append(value)
                raise
            sent.append(value)
            if rng.random() < 0.3:
                await asyncio.sleep(0)

    async def receive() -> None:
        try:
            while True:
                if rng.random() < 0.2:
                    got.extend(await rx.recv_many(3))
                else:
                    got.append(await rx.recv())
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
        except ChannelEnded:
            pass

    total = 12
    senders = [asyncio.create_task(send(list(range(k, total, 2)))) for k in range(2)]
    receivers = [asyncio.create_task(receive()) for _ in range(3)]
    victims = [*senders, *receivers[:2]]
    at = sorted(rng.randrange(1, 30) for _ in range(rng.randrange(1, 3)))
    step = 0

    def on_step() -> None:
        nonlocal step
        step += 1
        while at and at[0] <= step:
            at.pop(0)
            rng.choice(victims).cancel()

    loop.on_step = on_step
    await asyncio.wait(senders)
    loop.on_step = None
    tx.close()
    await asyncio.wait(receivers)
    where = f"seed={seed} capacity={capacity} verb={verb} two_queues={two_queues}"
    for task in (*senders, *receivers):
        if not task.cancelled() and task.exception() is not None:
            raise AssertionError(where) from task.exception()
    assert len(got) == len(set(got)), f"{where}: doubled in {got}"
    assert set(sent) <= set(got), f"{where}: lost {set(sent) - set(got)}"
    assert set(got) <= set(sent) | set(doubtful), f"{where}: raised and yet sent {set(got) - set(sent)}"
    ends[1].close()
    rx.stop()
    return sum(task.cancelled() for task in (*senders, *receivers))


@pytest.mark.parametrize("verb", ["send", "send_many", "deliver"])
@pytest.mark.parametrize("capacity", [0, 1, 64])
def test_cancel_at_any_step_loses_and_doubles_nothing(capacity: int, verb: str) -> None:
    loop = CountingLoop()
    cancelled = 0
    try:
        for seed in range(SEEDS):
            cancelled += loop.run_until_complete(run_seed(seed, loop, capacity, verb, seed % 2 == 0))
    finally:
        loop.close()
    assert cancelled > SEEDS // 10  # the cancellations did hit something


def test_cancelled_receiver_passes_its_wake_up_on() -> None:
    async def main() -> None:
        ch = channel(int, capacity=4)
        first, second = asyncio.create_task(ch.recv()), asyncio.create_task(ch.recv())
        await until(lambda: ch.stats().receivers_waiting == 2)
        ch.send_nowait(1)  # wakes the first ...
        first.cancel()  # ... which is cancelled before it runs
        assert await second == 1
        assert first.cancelled()

    asyncio.run(main())


def test_cancelled_sender_passes_its_place_on() -> None:
    async def main() -> None:
        ch = channel(int, capacity=1)
        ch.send_nowait(0)
        first, second = asyncio.create_task(ch.send(1)), asyncio.create_task(ch.send(2))
        await until(lambda: ch.stats().senders_waiting == 2)
        assert ch.recv_nowait() == 0
        first.cancel()
        await second
        assert ch.recv_nowait() == 2
        assert first.cancelled()

    asyncio.run(main())


class TestOwedCancellation:
    """A capacity-0 send taken while it was being cancelled (R21); in process the window is one turn of the loop."""

    @staticmethod
    def taken_and_cancelled(ch: Channel[int], task: asyncio.Task[Any]) -> int:
        value = ch.recv_nowait()  # taken: the sender is woken but has not run
        task.cancel()
        return value

    def test_next_netchan_call_raises_it_before_doing_anything(self) -> None:
        async def main() -> None:
            ch, log = channel(int), channel(int, capacity=1)
            after = []

            async def sender() -> None:
                await ch.send(1)
                after.append("sent")
                await log.send(2)
                after.append("not reached")

            task = asyncio.create_task(sender())
            await until(lambda: ch.stats().senders_waiting == 1)
            assert self.taken_and_cancelled(ch, task) == 1
            with pytest.raises(asyncio.CancelledError):
                await task
            assert after == ["sent"]
            assert log.pending == 0

        asyncio.run(main())

    def test_a_loop_of_sends_ends_and_counts_right(self) -> None:
        async def main() -> None:
            ch = channel(int)
            sent = []

            async def sender() -> None:
                for n in range(10):
                    await ch.send(n)
                    sent.append(n)

            task = asyncio.create_task(sender())
            await until(lambda: ch.stats().senders_waiting == 1)
            assert self.taken_and_cancelled(ch, task) == 0
            with pytest.raises(asyncio.CancelledError):
                await task
            assert sent == [0]

        asyncio.run(main())

    def test_a_long_sleep_after_the_send_is_cancelled(self) -> None:
        async def main() -> None:
            ch = channel(int)

            async def sender() -> None:
                await ch.send(1)
                await asyncio.Event().wait()

            task = asyncio.create_task(sender())
            await until(lambda: ch.stats().senders_waiting == 1)
            self.taken_and_cancelled(ch, task)
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await task
            assert task.cancelled()

        asyncio.run(main())

    def test_the_same_inside_a_timeout_block_that_did_not_expire(self) -> None:
        async def main() -> None:
            ch = channel(int)

            async def sender() -> None:
                async with asyncio.timeout(5):
                    await ch.send(1)
                    await asyncio.Event().wait()

            task = asyncio.create_task(sender())
            await until(lambda: ch.stats().senders_waiting == 1)
            self.taken_and_cancelled(ch, task)
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    def test_an_expired_timeout_round_the_send_leaves_nothing_behind(self) -> None:
        async def main() -> None:
            ch = channel(int)
            log = []

            async def sender() -> None:
                try:
                    async with asyncio.timeout(None) as scope:
                        scopes.append(scope)
                        await ch.send(1)
                        log.append("sent")
                except TimeoutError:
                    log.append("timeout")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                log.append("alive")

            scopes: list[asyncio.Timeout] = []
            task = asyncio.create_task(sender())
            await until(lambda: ch.stats().senders_waiting == 1)
            scopes[0].reschedule(asyncio.get_running_loop().time() - 1)
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: log.append(str(ch.recv_nowait())))
            await task
            assert log[0] == "1"
            assert "sent" in log
            assert log[-1] == "alive"

        asyncio.run(main())

    def test_a_failing_sibling_still_ends_the_task_group(self) -> None:
        async def main() -> None:
            ch = channel(int)
            sent = []

            async def sender() -> None:
                await ch.send(1)
                sent.append(1)
                await asyncio.Event().wait()

            async def sibling() -> None:
                await until(lambda: ch.stats().senders_waiting == 1)
                assert ch.recv_nowait() == 1
                raise KeyError("sibling")

            with pytest.raises(ExceptionGroup):
                async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                    group.create_task(sender())
                    group.create_task(sibling())
            assert sent == [1]

        asyncio.run(main())


def test_timeout_around_recv_leaves_the_value() -> None:
    async def main() -> None:
        ch = channel(int, capacity=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await ch.recv()
        ch.send_nowait(5)
        assert await ch.recv() == 5
        assert ch.stats().receivers_waiting == 0
        with pytest.raises(ChannelClosed):
            ch.close()
            await ch.send(1)

    asyncio.run(main())
