"""What every pair of (Sender, Receiver) does, on both fronts (docs/spec/channel-end.md)."""

# ruff: noqa: N805 - the decorator adds self; the drop is two statements

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from netchan.errors import (
    ChannelAborted,
    ChannelClosed,
    ChannelEnded,
    Code,
    CodecError,
    ConfigError,
    MessageTooLarge,
    WouldBlock,
)
from tests.unit.channel.harness import FRONT_IDS, FRONTS, Front, until

pytestmark = pytest.mark.timeout(60)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every front, with each capacity the test names."""
    capacities = getattr(metafunc.function, "capacities", None)
    cases = [
        pytest.param(front, capacity, id=name if capacities is None else f"{name}-{capacity}")
        for front, name in zip(FRONTS, FRONT_IDS, strict=True)
        for capacity in capacities or (None,)
        if getattr(metafunc.function, "fits", bool)(front)
    ]
    if capacities is None:
        cases = [pytest.param(case.values[0], id=case.id) for case in cases]
        metafunc.parametrize("front", cases, indirect=True)
    else:
        metafunc.parametrize(("front", "capacity"), cases, indirect=["front"])


@pytest.fixture
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    yield request.param
    request.param.end_all()


def program(body: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test method of a coroutine function without ``self``."""

    async def bounded(front: Front, **arguments: Any) -> None:
        try:
            await body(front=front, **arguments)
        except BaseException:
            front.end_all()  # threads that are still blocked would keep the loop from closing
            raise

    def run(_self: object, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=arguments["front"].loop_factory) as runner:
            runner.run(bounded(**arguments))

    run.__name__, run.__doc__ = body.__name__, body.__doc__
    me = inspect.Parameter("_self", inspect.Parameter.POSITIONAL_ONLY)
    run.__signature__ = inspect.Signature([me, *inspect.signature(body).parameters.values()])  # type: ignore[attr-defined]
    return run


def capacities(*figures: int) -> Callable[[Any], Any]:
    """The test is run with each of these capacities; 0 in process only."""

    def mark(run: Any) -> Any:
        run.capacities = figures
        return run

    return mark


def only(fits: Callable[[Front], bool]) -> Callable[[Any], Any]:
    """The test is about what holds on these fronts only."""

    def mark(run: Any) -> Any:
        run.fits = fits
        return run

    return mark


local = only(lambda front: not front.remote)
"""The test is about what holds in process only."""


CAPACITIES = capacities(0, 1, 64)


class TestSection2Acceptance:
    @CAPACITIES
    @program
    async def test_values_sent_arrive_in_order_and_end(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        job = asyncio.create_task(front.drain(ends.rx))
        for n in range(100):
            await front.do(ends.tx, "send", n)
        ends.tx.close()
        assert await job == list(range(100))

    @capacities(1, 2, 64)
    @program
    async def test_send_nowait_accepts_exactly_capacity(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        for n in range(capacity):
            ends.tx.send_nowait(n)
        with pytest.raises(WouldBlock, match="no room"):
            ends.tx.send_nowait(-1)
        await until(lambda: ends.rx.pending == capacity)
        assert ends.tx.capacity == capacity
        blocked = front.start(ends.tx, "send", capacity)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        assert not blocked.done()
        assert ends.rx.recv_nowait() == 0
        await blocked
        await until(lambda: ends.rx.pending == capacity)
        assert [ends.rx.recv_nowait() for _ in range(capacity)] == list(range(1, capacity + 1))

    @local
    @program
    async def test_rendezvous_send_returns_only_when_taken(front: Front) -> None:
        ends = await front.make(0)
        with pytest.raises(WouldBlock):
            ends.tx.send_nowait(1)
        sending = front.start(ends.tx, "send", "v")
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sending.done()
        assert ends.rx.pending == 0
        assert ends.rx.recv_nowait() == "v"
        await sending
        with pytest.raises(WouldBlock):
            ends.rx.recv_nowait()

    @CAPACITIES
    @program
    async def test_none_and_empty_values_are_values(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        odd: list[Any] = [None, 0, False, "", b"", [], *([] if front.remote else [Ellipsis])]
        job = asyncio.create_task(front.drain(ends.rx))
        assert await front.do(ends.tx, "send_many", odd) == len(odd)
        ends.tx.close()
        assert await job == odd

    @local
    @program
    async def test_values_in_process_pass_by_reference(front: Front) -> None:
        ends = await front.make(1)
        value = object()
        ends.tx.send_nowait(value)
        assert ends.rx.recv_nowait() is value

    @CAPACITIES
    @program
    async def test_deliver_returns_when_its_value_was_taken(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        job = front.start(ends.tx, "deliver", "d")
        await until(lambda: ends.rx.pending == 1 or (capacity == 0 and ends.tx.stats().senders_waiting == 1))
        if capacity > 1:
            ends.tx.send_nowait("later")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not job.done()
        # an offer is seen by whoever receives, so nothing here tells that it has come
        assert (await front.do(ends.rx, "recv") if capacity == 0 else ends.rx.recv_nowait()) == "d"
        await job  # "later" is still there: only its own value counts
        await until(lambda: ends.rx.pending == (1 if capacity > 1 else 0))

    @program
    async def test_flush_taken_waits_for_all_and_received_does_not(front: Front) -> None:
        ends = await front.make(4)
        for n in range(3):
            ends.tx.send_nowait(n)
        await front.do(ends.tx, "flush")
        job = front.start(ends.tx, "flush", "taken")
        for n in range(3):
            await asyncio.sleep(0)
            assert not job.done()
            assert ends.rx.recv_nowait() == n
        await job
        with pytest.raises(ConfigError, match="level"):
            ends.tx.flush("gone")

    @capacities(1, 3, 64)
    @program
    async def test_send_many_takes_an_item_only_when_there_is_room(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        items = iter([*range(capacity + 5)])
        generator = (n for n in items)
        job = front.start(ends.tx, "send_many", generator)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        ends.rx.stop()
        with pytest.raises(ChannelClosed):
            await job
        assert list(items) == list(range(capacity, capacity + 5))

    @program
    async def test_send_many_of_a_list_that_fits_does_not_wait(front: Front) -> None:
        ends = await front.make(3)
        assert await front.do(ends.tx, "send_many", [1, 2, 3]) == 3
        assert await front.do(ends.tx, "send_many", []) == 0
        assert await front.do(ends.rx, "recv_many", min=3) == [1, 2, 3]
        assert await front.do(ends.tx, "send_many", iter((4, 5, 6))) == 3
        with pytest.raises(TypeError):
            ends.tx.send_many(3)

    @CAPACITIES
    @program
    async def test_send_many_passes_on_the_iterators_error(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)

        def items() -> Any:
            yield 1
            raise KeyError("mine")

        job = front.start(ends.tx, "send_many", items())
        assert await front.do(ends.rx, "recv") == 1
        receiver = front.start(ends.rx, "recv")
        with pytest.raises(KeyError, match="mine"):
            await job
        await front.do(ends.tx, "send", 2)
        assert await receiver == 2

    @program
    async def test_recv_many_of_a_full_channel_gives_min_and_the_rest_at_the_end(front: Front) -> None:
        ends = await front.make(4)
        job = front.start(ends.rx, "recv_many", 10, min=4)
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        for n in range(3):
            await front.do(ends.tx, "send", n)
        await until(lambda: ends.rx.pending == 3)
        assert not job.done()
        await front.do(ends.tx, "send", 3)
        assert await job == [0, 1, 2, 3]
        job = front.start(ends.rx, "recv_many", 10, min=4)
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        await front.do(ends.tx, "send_many", [4, 5])
        ends.tx.close()
        assert await job == [4, 5]
        with pytest.raises(ChannelEnded):
            await front.do(ends.rx, "recv_many")

    @local
    @program
    async def test_recv_many_waits_for_min_above_the_capacity(front: Front) -> None:
        ends = await front.make(2)
        job = front.start(ends.rx, "recv_many", 10, min=4)
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        for n in range(3):
            await front.do(ends.tx, "send", n)  # one more than the capacity
        await asyncio.sleep(0)
        assert not job.done()
        await front.do(ends.tx, "send", 3)
        assert await job == [0, 1, 2, 3]
        for n in range(2):
            ends.tx.send_nowait(n)
        with pytest.raises(WouldBlock):
            ends.tx.send_nowait(9)  # the capacity holds again
        job = front.start(ends.rx, "recv_many", 10, min=4)
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        ends.tx.close()
        assert await job == [0, 1]
        with pytest.raises(ChannelEnded):
            await front.do(ends.rx, "recv_many")

    @program
    async def test_recv_many_refuses_numbers_that_cannot_be_met(front: Front) -> None:
        for args, options in (((0,), {}), ((5,), {"min": 6}), ((True,), {}), ((5,), {"min": 0})):
            with pytest.raises(ConfigError):
                (await front.make(4)).rx.recv_many(*args, **options)
        if front.remote:
            return
        with pytest.raises(ConfigError, match="capacity-0"):
            (await front.make(0)).rx.recv_many(5, min=2)

    @CAPACITIES
    @program
    async def test_recv_many_at_any_capacity_gives_one_or_more(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        job = front.start(ends.tx, "send_many", range(200))
        got: list[int] = []
        while len(got) < 200:
            batch = await front.do(ends.rx, "recv_many", 7)
            assert 1 <= len(batch) <= 7
            got += batch
        assert await job == 200
        assert got == list(range(200))

    @program
    async def test_recv_into_copies_and_keeps_what_does_not_fit(front: Front) -> None:
        for capacity in (0, 2):
            ends = await front.make(capacity, bytes)
            job = front.start(ends.tx, "send", b"12345")
            small, large = bytearray(4), bytearray(8)
            with pytest.raises(MessageTooLarge) as caught:
                await front.do(ends.rx, "recv_into", small)
            assert (caught.value.needed, caught.value.limit) == (5, 4)
            assert await front.do(ends.rx, "recv_into", large) == 5
            assert large == b"12345\0\0\0"
            await job
            if front.remote:  # the sender's own type sees to it that nothing but bytes comes
                continue
            job = front.start(ends.tx, "send", "text")
            with pytest.raises(CodecError, match="str"):
                await front.do(ends.rx, "recv_into", large)
            assert await front.do(ends.rx, "recv") == "text"
            await job
        with pytest.raises(TypeError, match="writable"):
            ends.rx.recv_into(b"readonly")


class TestSection3Waiting:
    @CAPACITIES
    @program
    async def test_receivers_are_served_first_come_first(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        jobs = []
        for n in range(4):
            jobs.append(front.start(ends.rx, "recv"))
            await until(lambda n=n: ends.rx.stats().receivers_waiting == n + 1)  # type: ignore[misc]
        for n, job in enumerate(jobs):
            await front.do(ends.tx, "send", n)
            assert await job == n

    @CAPACITIES
    @program
    async def test_senders_are_served_first_come_first(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        for _ in range(capacity):
            ends.tx.send_nowait("fill")
        jobs = []
        for n in range(4):
            jobs.append(front.start(ends.tx, "send", n))
            await until(lambda n=n: ends.tx.stats().senders_waiting == n + 1)  # type: ignore[misc]
        for _ in range(capacity):
            assert await front.do(ends.rx, "recv") == "fill"
        assert [await front.do(ends.rx, "recv") for _ in range(4)] == [0, 1, 2, 3]
        await asyncio.gather(*jobs)

    @program
    async def test_newcomer_does_not_overtake_a_waiting_receiver(front: Front) -> None:
        ends = await front.make(4)
        waiting = front.start(ends.rx, "recv")
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        ends.tx.send_nowait("first")
        if (
            front.library in ("asyncio", "uvloop") and front.maker != "threads"
        ):  # there the news may still be on its way
            with pytest.raises(WouldBlock):
                ends.rx.recv_nowait()
        ends.tx.send_nowait("second")
        newcomer = front.start(ends.rx, "recv")
        assert await waiting == "first"
        assert await newcomer == "second"

    @CAPACITIES
    @program
    async def test_many_senders_and_receivers_lose_and_double_nothing(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        senders = [front.start(ends.tx, "send_many", range(k, 300, 3)) for k in range(3)]
        receivers = [asyncio.create_task(front.drain(ends.rx)) for _ in range(2)]
        assert sum(await asyncio.gather(*senders)) == 300
        ends.tx.close()
        got = await asyncio.gather(*receivers)
        assert sorted(itertools.chain(*got)) == list(range(300))
        for part in got:
            for k in range(3):
                mine = [n for n in part if n % 3 == k]
                assert mine == sorted(mine)


class TestSection1Ending:
    @CAPACITIES
    @program
    async def test_close_wakes_blocked_senders_and_receivers_drain(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        for n in range(capacity):
            ends.tx.send_nowait(n)
        blocked = front.start(ends.tx, "send", "lost")
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        ends.near.close()
        ends.near.close()
        with pytest.raises(ChannelClosed):
            await blocked
        with pytest.raises(ChannelClosed):
            ends.tx.send_nowait(0)
        assert ends.tx.closed
        assert await front.drain(ends.rx) == list(range(capacity))
        with pytest.raises(ChannelEnded):
            ends.rx.recv_nowait()
        with pytest.raises(ChannelEnded):
            await front.do(ends.rx, "recv")
        assert ends.rx.closed

    @CAPACITIES
    @program
    async def test_close_wakes_blocked_receivers(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        jobs = [front.start(ends.rx, "recv") for _ in range(3)]
        await until(lambda: ends.rx.stats().receivers_waiting == 3)
        ends.tx.close()
        for job in jobs:
            with pytest.raises(ChannelEnded):
                await job

    @CAPACITIES
    @program
    async def test_stop_discards_counts_and_refuses_senders(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        for n in range(capacity):
            ends.tx.send_nowait(n)
        blocked = front.start(ends.tx, "send", 0)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        await until(lambda: ends.rx.pending == capacity)
        ends.rx.stop()
        ends.rx.stop()
        with pytest.raises(ChannelClosed):
            await blocked
        with pytest.raises(ChannelClosed):
            ends.tx.send_nowait(0)
        with pytest.raises(ChannelClosed):
            ends.rx.recv_nowait()
        await until(lambda: ends.rx.stats().discarded == capacity)

    @CAPACITIES
    @program
    async def test_abort_reaches_everybody_with_code_and_reason(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        for n in range(capacity):
            ends.tx.send_nowait(n)
        sender = front.start(ends.tx, "send", 0)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        await until(lambda: ends.rx.pending == capacity)
        ends.tx.abort(7, "mind\x1b")
        await until(lambda: ends.rx.closed)
        ends.rx.abort(8, "too late")
        jobs = [sender, front.start(ends.rx, "recv"), front.start(ends.tx, "send", 1)]
        for job in jobs:
            with pytest.raises(ChannelAborted, match=r"code 7 \(mind\\x1b\)") as caught:
                await job
            assert (caught.value.code, caught.value.reason) == (7, "mind\x1b")
        if front.maker != "channel":
            with pytest.raises(ChannelAborted) as caught:
                ends.far.send_nowait(1)
            assert not caught.value.by_us
            with pytest.raises(ChannelAborted) as caught:
                ends.near.recv_nowait()
            assert caught.value.by_us
        await until(lambda: ends.rx.stats().discarded == capacity)

    @program
    async def test_abort_refuses_codes_and_reasons_out_of_range(front: Front) -> None:
        ends = await front.make(1)
        for bad in (-1, 1 << 30, True, "1"):
            with pytest.raises(ConfigError, match="code"):
                ends.tx.abort(bad)
        with pytest.raises(ConfigError, match="256"):
            ends.tx.abort(1, "é" * 129)
        ends.tx.send_nowait(1)  # nothing happened
        assert await front.do(ends.rx, "recv") == 1

    @program
    async def test_deliver_raises_when_the_receiver_stops(front: Front) -> None:
        ends = await front.make(2)
        job = front.start(ends.tx, "deliver", 1)
        await until(lambda: ends.rx.pending == 1)
        ends.rx.stop()
        with pytest.raises(ChannelClosed):
            await job


class TestSection5Handles:
    @program
    async def test_last_closed_sender_ends_the_direction(front: Front) -> None:
        ends = await front.make(4)
        other = ends.tx.clone()
        ends.tx.send_nowait(1)
        ends.tx.close()
        ends.tx.close()
        with pytest.raises(ChannelClosed, match="this Sender was closed"):
            ends.tx.send_nowait(2)
        with pytest.raises(ChannelClosed):
            await front.do(ends.tx, "send", 2)
        with pytest.raises(ChannelClosed):
            ends.tx.clone()
        other.send_nowait(3)
        assert not other.closed
        other.close()
        assert await front.drain(ends.rx) == [1, 3]

    @capacities(0, 1)
    @program
    async def test_close_of_one_clone_wakes_its_own_senders_only(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        if capacity:
            ends.tx.send_nowait("fill")
        other = ends.tx.clone()
        mine, theirs = front.start(ends.tx, "send", "mine"), front.start(other, "send", "theirs")
        await until(lambda: ends.tx.stats().senders_waiting == 2)
        ends.tx.close()
        with pytest.raises(ChannelClosed):
            await mine
        if capacity:
            assert await front.do(ends.rx, "recv") == "fill"
        assert await front.do(ends.rx, "recv") == "theirs"
        await theirs
        other.close()

    @program
    async def test_dropped_sender_is_never_a_clean_end(front: Front) -> None:
        ends = await front.make(4)
        ends.tx.send_nowait(1)
        front.lose(ends, "near", *(["far"] if front.maker == "channel" else []))
        with pytest.warns(ResourceWarning, match="without close"):
            front.lose(ends, "tx")
            assert await front.do(ends.rx, "recv") == 1
            with pytest.raises(ChannelAborted) as caught:
                await front.do(ends.rx, "recv")
        assert caught.value.code == Code.DROPPED

    @program
    async def test_dropped_receiver_stops_the_sender(front: Front) -> None:
        ends = await front.make(1)
        ends.tx.send_nowait(1)
        blocked = front.start(ends.tx, "send", 2)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # a whole pipe end goes, and its sending direction too
            front.lose(ends, "far", "rx", *(["near"] if front.maker == "channel" else []))
            with pytest.raises(ChannelClosed):
                await blocked
            if ends.near is not None:
                with pytest.raises(ChannelAborted):
                    await front.do(ends.near, "recv")

    @program
    async def test_handles_compare_by_endpoint_and_do_not_pickle(front: Front) -> None:
        ends = await front.make(1)
        again, _ = ends.near.split()
        assert again == ends.tx
        assert hash(again) == hash(ends.tx)
        assert ends.tx != ends.rx
        assert ends.tx != (await front.make(1)).tx
        with pytest.raises(TypeError, match="pickled"):
            ends.tx.__reduce__()
        again.close()


class TestSection2Permits:
    @capacities(1, 3)
    @program
    async def test_r26_permits_hold_places_and_the_value_comes_later(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        entered = [await front.enter(ends.tx.reserve()) for _ in range(capacity)]
        with pytest.raises(WouldBlock):
            ends.tx.send_nowait("no room")
        behind = front.start(ends.tx, "send", "behind")
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        assert ends.rx.pending == 0
        for number, (_, permit) in reversed(list(enumerate(entered))):
            assert permit.held
            permit.send(number)
            assert not permit.held
            with pytest.raises(RuntimeError, match="used or given back"):
                permit.send(number)
        for reservation, _ in entered:
            await front.leave(reservation)
        got = [await front.do(ends.rx, "recv") for _ in range(capacity + 1)]
        assert got == [*reversed(range(capacity)), "behind"]
        await behind
        assert ends.tx.stats().sent == capacity + 1

    @capacities(1)
    @program
    async def test_r26_place_that_was_not_used_goes_to_the_next_in_line(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        reservation, permit = await front.enter(ends.tx.reserve())
        next_one = asyncio.create_task(front.enter(ends.tx.reserve()))
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        last = front.start(ends.tx, "send", "last")
        await until(lambda: ends.tx.stats().senders_waiting == 2)
        await front.leave(reservation)
        assert not permit.held
        second, held = await next_one
        assert ends.tx.stats().senders_waiting == 1
        held.release()
        held.release()
        await last
        assert await front.do(ends.rx, "recv") == "last"
        await front.leave(second)
        with pytest.raises(RuntimeError, match="entered before"):
            await front.enter(second)

    @capacities(1)
    @program
    async def test_r26_permit_of_an_ended_direction_raises_and_does_not_hold_up_the_end(
        front: Front, capacity: int
    ) -> None:
        ends = await front.make(capacity)
        reservation, permit = await front.enter(ends.tx.reserve())
        ends.tx.close()
        assert await front.drain(ends.rx) == []
        with pytest.raises(ChannelClosed):
            permit.send(1)
        await front.leave(reservation)
        with pytest.raises(ChannelClosed):
            await front.enter(ends.tx.reserve())

    @capacities(1)
    @program
    async def test_r26_lost_permit_gives_its_place_back(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        entered = await front.enter(ends.tx.reserve())
        sending = front.start(ends.tx, "send", 1)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        del entered
        gc.collect()
        await sending
        assert await front.do(ends.rx, "recv") == 1

    @capacities(0)
    @program
    async def test_r26_reserve_needs_a_capacity(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        with pytest.raises(ConfigError, match="capacity"):
            await front.enter(ends.tx.reserve())
        assert ends.tx.stats().senders_waiting == 0

    @capacities(4)
    @only(lambda front: front.remote)
    @program
    async def test_r26_value_that_does_not_fit_leaves_the_place_held(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, int)
        reservation, permit = await front.enter(ends.tx.reserve())
        with pytest.raises(CodecError):
            permit.send("text")
        assert permit.held
        permit.send(5)
        assert await front.do(ends.rx, "recv") == 5
        await front.leave(reservation)

    @capacities(1)
    @only(lambda front: front.library in ("asyncio", "uvloop"))
    @program
    async def test_r5_ready_reservations_let_a_deadline_fire(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                for _ in range(1_000_000):
                    async with ends.tx.reserve():
                        pass
