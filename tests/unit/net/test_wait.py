"""Queues of waiters, the budget of ready calls, loops that go away (docs/spec/channel-end.md §3)."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import warnings
import weakref
from collections.abc import Coroutine
from time import monotonic
from typing import Any

import pytest
import trio

from netchan._engine import waitq
from netchan.channel import waits
from netchan.channel.fronts import channel, pipe
from netchan.channel.making import channel_endpoint
from netchan.net.wait import READY_CALLS_MAX, THREAD, AsyncWaiter, ThreadWaiter, Waiter, WaitQueue
from netchan.sync import waits as sync_waits
from tests.unit.channel.harness import until

pytestmark = pytest.mark.timeout(60)


class Bell(Waiter):
    """A waiter that counts its wake-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.rung = 0
        self.dead = False
        self.mortal = True

    def _notify(self) -> None:
        self.rung += 1

    def gone(self) -> bool:
        return self.dead


class TestWaitQueue:
    def test_wake_reaches_the_head_alone_and_wake_all_everybody_once(self) -> None:
        queue, bells = WaitQueue(), [Bell() for _ in range(4)]
        for bell in bells:
            queue.join(bell)
        queue.wake()
        queue.wake(2)
        assert [b.rung for b in bells] == [1, 0, 0, 0]
        queue.wake_all()
        assert [b.rung for b in bells] == [1, 1, 1, 1]

    def test_leaver_passes_on_only_if_there_is_more(self) -> None:
        queue, bells = WaitQueue(), [Bell() for _ in range(3)]
        for bell in bells:
            queue.join(bell)
        queue.wake()
        queue.leave(bells[0], lambda: False)
        assert bells[1].rung == 0
        queue.leave(bells[1], lambda: True)
        assert bells[2].rung == 1
        assert len(queue) == 1

    def test_turn_belongs_to_the_head_even_if_others_are_awake(self) -> None:
        queue, first, second = WaitQueue(), Bell(), Bell()
        queue.join(first)
        queue.join(second)
        assert queue.may_try(first)
        assert not queue.may_try(second)
        assert not queue.reserved()
        queue.wake()
        assert queue.reserved()
        queue.wake_all()
        assert not queue.may_try(second)
        queue.leave(first, lambda: True)
        assert second.woken
        assert queue.may_try(second)

    def test_waiter_that_is_gone_does_not_block_the_rest(self) -> None:
        queue, dead, alive = WaitQueue(), Bell(), Bell()
        queue.join(dead)
        queue.wake()
        dead.dead = True
        queue.join(alive)
        assert queue.may_try(alive)
        assert len(queue) == 1

    def test_waiter_may_stand_in_several_queues_but_once_in_each(self) -> None:
        queues, both = [WaitQueue() for _ in range(3)], Bell()
        for queue in queues:
            queue.join(both)
        with pytest.raises(RuntimeError):
            queues[1].join(both)
        queues[1].leave(both, lambda: False)
        assert [len(queue) for queue in queues] == [1, 0, 1]
        queues[0].leave(both, lambda: False)
        queues[0].leave(both, lambda: False)  # as after an error: leaving twice is nothing
        queues[1].join(both)
        assert [len(queue) for queue in queues] == [0, 1, 1]
        queues[2].wake()
        assert both.rung == 1

    def test_who_stands_aside_is_woken_but_not_waited_for(self) -> None:
        queue, bells = WaitQueue(), [Bell() for _ in range(3)]
        for bell in bells:
            queue.join(bell)
        queue.stand_aside(bells[0])
        queue.stand_aside(bells[0])
        assert not queue.turn(bells[0])
        assert queue.turn(bells[1])
        queue.wake()
        assert [b.rung for b in bells] == [1, 1, 0]
        assert queue.reserved()
        assert bells[1].woken  # turn() takes no wake-up away
        queue.leave(bells[1], lambda: True)
        assert [b.rung for b in bells] == [1, 1, 1]
        for bell in bells:
            bell.woken = False
        queue.nudge(bells[0])
        assert [b.rung for b in bells] == [1, 1, 2]
        queue.stand_aside(bells[0], False)
        assert queue.turn(bells[0])
        assert not queue.turn(bells[2])

    def test_queue_of_those_who_stand_aside_is_vacant(self) -> None:
        queue, one = WaitQueue(), Bell()
        assert queue.vacant()
        queue.join(one)
        assert not queue.vacant()
        queue.stand_aside(one)
        assert queue.vacant()
        assert not queue.reserved()
        queue.stand_aside(Bell())  # stands elsewhere: nothing
        queue.nudge(one)
        assert one.rung == 0
        queue.wake_all()
        assert one.rung == 1
        queue.leave(one, lambda: False)
        assert len(queue) == 0
        queue.join(one)
        assert queue.turn(one)

    def test_order_of_arrival_survives_leavers_anywhere(self) -> None:
        queue, bells = WaitQueue(), [Bell() for _ in range(7)]
        for bell in bells:
            queue.join(bell)
        for index in (0, 3, 6):
            queue.leave(bells[index], lambda: False)
        queue.join(bells[3])
        served = []
        while queue.waiting:
            head = next(bell for bell in bells if queue.may_try(bell))
            served.append(bells.index(head))
            queue.leave(head, lambda: False)
        assert served == [1, 2, 4, 5, 3]

    def test_waking_may_change_the_queue(self) -> None:
        queue = WaitQueue()

        class Leaver(Bell):
            def _notify(self) -> None:
                super()._notify()
                queue.leave(self, lambda: True)

        bells = [Leaver() for _ in range(3)]
        for bell in bells:
            queue.join(bell)
        queue.wake_all()
        assert [bell.rung for bell in bells] == [1, 2, 2]  # each leaver wakes the next, who is then woken with all
        assert queue.waiting == 0

    def test_waiters_and_queues_are_freed(self) -> None:
        queue, bell = WaitQueue(), Bell()
        queue.join(bell)
        seen = weakref.ref(bell)
        queue.leave(bell, lambda: False)
        del bell
        assert seen() is None
        bell = Bell()
        queue.join(bell)
        seen = weakref.ref(bell)
        del queue, bell
        gc.collect()
        assert seen() is None


class TestBudget:
    @pytest.mark.parametrize("verb", ["send", "recv", "iterate", "recv_many", "flush"])
    def test_ready_calls_yield_after_the_budget_and_not_before(self, verb: str) -> None:
        async def main() -> tuple[int, int]:
            ch = channel(int, capacity=1000)
            for n in range(500):
                ch.send_nowait(n)
            calls = {
                "send": lambda: ch.send(1),
                "recv": ch.recv,
                "iterate": ch.__anext__,
                "recv_many": lambda: ch.recv_many(1),
                "flush": ch.flush,
            }
            turns: list[int] = []
            done = 0

            def turned() -> None:
                turns.append(done)

            await asyncio.sleep(0)
            THREAD.budget.calls = 0
            asyncio.get_running_loop().call_soon(turned)
            for _ in range(READY_CALLS_MAX + 1):
                await calls[verb]()
                THREAD.budget.since += 10.0  # the clock does not run here
                done += 1
            ch.close()
            ch.stop()
            return turns[0], len(turns)

        assert asyncio.run(main()) == (READY_CALLS_MAX, 1)

    def test_ready_calls_yield_after_half_a_millisecond(self) -> None:
        async def main() -> None:
            ch = channel(int, capacity=10)
            turned = []
            THREAD.budget.calls = 0
            await ch.send(1)
            asyncio.get_running_loop().call_soon(lambda: turned.append(1))
            THREAD.budget.since += 10.0
            await ch.send(1)
            assert not turned
            THREAD.budget.since -= 20.0
            await ch.send(1)
            assert turned
            ch.close()

        asyncio.run(main())

    def test_deadline_fires_in_a_loop_of_ready_calls(self) -> None:
        async def main() -> None:
            ch = channel(int, capacity=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    while True:
                        await ch.send(1)
                        await ch.recv()
            assert ch.pending in (0, 1)
            ch.close()

        asyncio.run(main())

    def test_send_many_into_a_large_channel_yields(self) -> None:
        async def main() -> None:
            ch = channel(int, capacity=100_000)
            turned = []
            asyncio.get_running_loop().call_soon(lambda: turned.append(ch.pending))
            await ch.send_many(range(10_000))
            assert turned[0] <= 2 * READY_CALLS_MAX
            ch.close()

        asyncio.run(main())


class TestCoroutines:
    def test_every_async_method_gives_a_coroutine_that_waits_for_its_first_step(self) -> None:
        async def main() -> None:
            a, b = pipe(bytes, capacity=4)
            for make in (
                lambda: a.send(b"x"),
                lambda: a.send_many([b"y"]),
                lambda: a.deliver(b"z"),
                lambda: a.flush(),
                lambda: b.recv(),
                lambda: b.recv_many(2),
                lambda: b.recv_into(bytearray(4)),
                lambda: b.__anext__(),
                lambda: a.aclose(),
            ):
                made = make()
                assert isinstance(made, Coroutine)
                assert inspect.iscoroutine(made)
                assert b.pending == 0
                made.close()
            assert not a.closed
            task = asyncio.create_task(a.send(b"x"))
            assert await asyncio.wait_for(b.recv(), 5) == b"x"
            await task
            a.close()
            assert await anext(b, None) is None
            b.close()

        asyncio.run(main())

    def test_never_awaited_warns_with_the_public_name(self) -> None:
        ch = channel(int, capacity=1)
        for name in ("send", "recv", "deliver", "send_many", "flush", "recv_many"):
            args: tuple[Any, ...] = {"send": (1,), "deliver": (1,), "send_many": ([],)}.get(name, ())
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                getattr(ch, name)(*args)
                gc.collect()
            assert [w.category for w in caught] == [RuntimeWarning]
            assert f".{name}' was never awaited" in str(caught[0].message)
        ch.close()


class TestLoops:
    def test_one_channel_serves_loops_and_threads_in_turn(self) -> None:
        ch = channel(int, capacity=2)
        got: list[int] = []

        def other_loop() -> None:
            async def run() -> None:
                async for n in ch:
                    got.append(n)

            asyncio.run(run())

        thread = threading.Thread(target=other_loop)
        thread.start()

        async def main() -> None:
            for n in range(500):
                await ch.send(n)
            ch.close()

        asyncio.run(main())
        thread.join(20)
        assert got == list(range(500))

    def test_waiter_of_a_closed_loop_does_not_hold_up_others(self) -> None:
        ch = channel(int, capacity=2)
        loop = asyncio.new_event_loop()
        lost = loop.create_task(ch.recv())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

        async def main() -> int:
            ch.send_nowait(1)
            async with asyncio.timeout(5):
                return await ch.recv()

        assert asyncio.run(main()) == 1
        ch.close()
        lost._log_destroy_pending = False  # type: ignore[attr-defined]
        lost.get_coro().close()

    def test_park_keeps_to_its_deadline(self) -> None:
        async def main() -> None:
            waiter = AsyncWaiter()
            waiter.at_most(0.002)
            with pytest.raises(TimeoutError):
                await waiter.park()
            assert waiter.bounded

        asyncio.run(main())

    def test_park_until_a_time_is_no_error_and_the_deadline_is(self) -> None:
        async def main() -> None:
            waiter = AsyncWaiter()
            begun = monotonic()
            await waiter.park(begun + 0.02)
            assert monotonic() - begun >= 0.02
            waiter.at_most(0.01)
            with pytest.raises(TimeoutError):
                await waiter.park(monotonic() + 5)
            waiter.wake()
            await waiter.park(monotonic() + 5)

        asyncio.run(main())
        for make in (lambda: ThreadWaiter(), lambda: ThreadWaiter(0.01)):
            thread = make()
            begun = monotonic()
            if thread.deadline is None:
                thread.park(begun + 0.02)
                assert monotonic() - begun >= 0.02
            else:
                with pytest.raises(TimeoutError):
                    thread.park(begun + 5)

    def test_newcomers_wait_behind_parked_receivers(self) -> None:
        async def main() -> None:
            ch = channel(int, capacity=4)
            order: list[str] = []

            async def take(name: str) -> None:
                await ch.recv()
                order.append(name)

            tasks = [asyncio.create_task(take("first")), asyncio.create_task(take("second"))]
            await until(lambda: ch.stats().receivers_waiting == 2)
            await ch.send_many([1, 2, 3])
            await take("newcomer")
            await asyncio.gather(*tasks)
            assert order == ["first", "second", "newcomer"]
            ch.close()

        asyncio.run(main())


class MuteOffer:
    """An offer whose taking back is never answered: the other side goes on with everything but that."""

    number = 0

    stranded = False

    def settled(self) -> bool:
        return False

    def withdraw(self) -> bool | None:
        return None

    def let_go(self) -> None:
        pass


class TestAnswerThatDoesNotCome:
    """A call that was cancelled hears of it after ANSWER_SECONDS at the latest; the value is in doubt."""

    def test_cancelled_task_is_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waitq, "ANSWER_SECONDS", 0.05)

        async def main() -> None:
            job = asyncio.create_task(waits._settle(MuteOffer(), lambda: None, AsyncWaiter()))
            await asyncio.sleep(0)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await job

        asyncio.run(main())

    def test_cancelled_trio_task_is_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waitq, "ANSWER_SECONDS", 0.05)

        async def main() -> None:
            with trio.move_on_after(0.01) as scope:
                begun = monotonic()
                await waits._settle(MuteOffer(), lambda: None, waits.new_waiter(channel_endpoint(int, 0)))
            assert scope.cancelled_caught
            assert 0.05 < monotonic() - begun < 5

        trio.run(main)

    def test_thread_that_timed_out_is_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waitq, "ANSWER_SECONDS", 0.05)
        begun = monotonic()
        with pytest.raises(TimeoutError):
            sync_waits._settle(MuteOffer(), lambda: None, ThreadWaiter(0.01))
        assert 0.05 < monotonic() - begun < 5
