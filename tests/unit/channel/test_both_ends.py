"""What one end does, as the other end sees it: more cases of every pair of ends and every front.

Where a rule is about the sender and the receiver in turn, the case runs in both directions, so that each of its verbs
is used in both processes where there are two. Spec: docs/spec/channel-end.md; api rules R3, R10-R32, R48.
"""

# ruff: noqa: N805 - the decorator adds self

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from netchan.errors import (
    ChannelAborted,
    ChannelClosed,
    ChannelEnded,
    Code,
    ConfigError,
    SessionLost,
    WouldBlock,
)
from tests.unit.channel.harness import GIVEN_UP, SHORT, Ends, Front, until
from tests.unit.channel.test_conformance import CAPACITIES, capacities, front, only, program, pytest_generate_tests

__all__ = ["front", "pytest_generate_tests"]
pytestmark = pytest.mark.timeout(60)

BOTH_WAYS = (False, True)
MIB = 1 << 20
two_ends = only(lambda front: front.maker != "channel")
"""The test is about what holds only where each side has a direction of its own."""
by_name = only(lambda front: front.two_processes)
"""The test is about peers, which the session in one process does without."""


async def fill(front: Front, ends: Ends, capacity: int) -> None:
    """Send 0, 1, ... until there is no room, and wait until all are over there."""
    for n in range(capacity):
        await front.do(ends.tx, "send", n)
    await until(lambda: ends.rx.pending == capacity)


class TestCapacity:
    @program
    async def test_r14_smaller_figure_holds_and_both_sides_see_it(front: Front) -> None:
        for one, other, back in ((3, 5, False), (5, 3, False), (3, 5, True), (5, 3, True)):
            ends = await front.make(one, other=other, back=back)
            for handle in (ends.tx, ends.rx, ends.near, ends.far):
                assert handle.capacity == 3
            for n in range(3):
                ends.tx.send_nowait(n)
            with pytest.raises(WouldBlock):
                ends.tx.send_nowait(3)
            assert await front.do(ends.rx, "recv_many", min=3) == [0, 1, 2]

    @program
    async def test_r14_zero_on_either_side_is_a_rendezvous(front: Front) -> None:
        for one, other in ((0, 4), (4, 0)):
            ends = await front.make(one, other=other)
            assert ends.tx.capacity == ends.rx.capacity == 0
            with pytest.raises(WouldBlock):
                ends.tx.send_nowait(1)
            sending = front.start(ends.tx, "send", 1)
            await until(lambda ends=ends: ends.tx.stats().senders_waiting == 1)  # type: ignore[misc]
            assert not sending.done()
            assert await front.do(ends.rx, "recv") == 1
            await sending

    @capacities(1, 2, 64)
    @program
    async def test_r15_far_sender_has_exactly_the_capacity(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        for n in range(capacity):
            ends.tx.send_nowait(n)
        with pytest.raises(WouldBlock, match="no room"):
            ends.tx.send_nowait(-1)
        blocked = front.start(ends.tx, "send", capacity)
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        await until(lambda: ends.rx.pending == capacity)
        assert not blocked.done()
        assert await front.do(ends.rx, "recv") == 0
        await blocked
        await until(lambda: ends.rx.pending == capacity)
        with pytest.raises(WouldBlock):
            ends.tx.send_nowait(-1)
        assert [ends.rx.recv_nowait() for _ in range(capacity)] == list(range(1, capacity + 1))

    @CAPACITIES
    @program
    async def test_r3_counts_of_both_sides_agree(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            job = front.start(ends.tx, "send_many", list(range(10)))
            assert [await front.do(ends.rx, "recv") for _ in range(7)] == list(range(7))
            room = min(capacity, 3)
            await until(lambda ends=ends, room=room: ends.rx.pending == room)  # type: ignore[misc]
            # an offer that was taken counts as sent when the news of it is back
            await until(lambda ends=ends, room=room: ends.tx.stats().sent == 7 + room)  # type: ignore[misc]
            there, here = ends.tx.stats(), ends.rx.stats()
            assert (there.sent, here.received, here.taken, here.pending) == (7 + room, 7 + room, 7, room)
            assert there.capacity == here.capacity == capacity
            assert await front.do(ends.rx, "recv_many", 3, min=1 if capacity < 3 else 3)
            rest = asyncio.create_task(front.drain(ends.rx))
            assert await job == 10
            ends.tx.close()
            await rest
            assert (ends.tx.stats().sent, ends.rx.stats().taken, ends.rx.stats().discarded) == (10, 10, 0)


class TestValues:
    @CAPACITIES
    @program
    async def test_r16_value_of_a_mebibyte_comes_whole_among_small_ones(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, bytes, back=back)
            large = bytes(range(256)) * (MIB // 256)
            sent = [b"before", large, b"", large[::-1], b"after"]
            job = front.start(ends.tx, "send_many", sent)
            got = [await front.do(ends.rx, "recv") for _ in sent]
            assert await job == len(sent)
            assert [len(value) for value in got] == [len(value) for value in sent]
            assert got == sent

    @CAPACITIES
    @program
    async def test_r20_thousands_of_values_keep_their_order(front: Front, capacity: int) -> None:
        total = 3000 if capacity == 64 else 300
        for back in BOTH_WAYS:
            ends = await front.make(capacity, int, back=back)
            job = front.start(ends.tx, "send_many", list(range(total)))
            got: list[int] = []
            while len(got) < total:
                got += await front.do(ends.rx, "recv_many", 100)
            assert await job == total
            assert got == list(range(total))

    @capacities(64)
    @program
    async def test_r12_plain_values_arrive_as_they_were(front: Front, capacity: int) -> None:
        values = [
            -(1 << 63),
            (1 << 64) - 1,
            -0.5,
            1e300,
            "é\0𝄞",
            b"\0\xff",
            [1, [2.5, [None, True]], {}],
            {"a": {"b": [b"c"]}, 1: "int key", b"k": None},
            "x" * 70_000,
        ]
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            assert await front.do(ends.tx, "send_many", values) == len(values)
            got = [await front.do(ends.rx, "recv") for _ in values]
            assert got == values
            assert list(map(type, got)) == list(map(type, values))

    @capacities(0, 4)
    @program
    async def test_r11_typed_channel_carries_its_type(front: Front, capacity: int) -> None:
        typed: list[tuple[Any, list[Any]]] = [
            (int, [0, -1, 1 << 40]),
            (str, ["", "é"]),
            (float, [0.0, -1.5]),
            (bool, [True, False]),
            (bytes, [b"", b"\0" * 300]),
        ]
        for form, values in typed:
            ends = await front.make(capacity, form)
            job = front.start(ends.tx, "send_many", values)
            got = [await front.do(ends.rx, "recv") for _ in values]
            assert got == values
            assert {type(value) for value in got} == {form}
            await job

    @capacities(64)
    @program
    async def test_r25_recv_many_takes_what_is_here_up_to_its_limit(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            await fill(front, ends, 9)
            assert await front.do(ends.rx, "recv_many", 2) == [0, 1]
            assert await front.do(ends.rx, "recv_many", 4, min=3) == [2, 3, 4, 5]
            assert await front.do(ends.rx, "recv_many") == [6, 7, 8]
            ends.tx.close()
            with pytest.raises(ChannelEnded):
                await front.do(ends.rx, "recv_many")


class TestEnds:
    @CAPACITIES
    @program
    async def test_r26_next_with_a_default_is_value_and_ok(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        sending = front.start(ends.tx, "send", None)
        assert await front.do(None, "step", ends.rx, "over") is None
        await sending
        waiting = front.start(None, "step", ends.rx, "over")
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        ends.tx.close()
        assert await waiting == "over"
        assert await front.do(None, "step", ends.rx, "over") == "over"

    @CAPACITIES
    @program
    async def test_r27_iteration_that_ended_stays_ended_and_both_sides_know(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            assert not ends.tx.closed
            assert not ends.rx.closed
            job = asyncio.create_task(front.drain(ends.rx))
            await front.do(ends.tx, "send_many", ["a", "b"])
            ends.tx.close()
            assert await job == ["a", "b"]
            assert ends.rx.closed
            assert ends.tx.closed
            assert await front.drain(ends.rx) == []
            for _ in range(2):
                with pytest.raises(ChannelEnded):
                    await front.do(ends.rx, "recv")

    @capacities(4)
    @program
    async def test_r27_clones_of_a_far_sender_are_counted(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        second = ends.tx.clone()
        third = second.clone()
        got = asyncio.create_task(front.drain(ends.rx))
        for number, handle in enumerate((second, ends.tx, third)):
            await front.do(handle, "send", number)
            handle.close()
            with pytest.raises(ChannelClosed, match="this Sender was closed"):
                handle.send_nowait(-1)
            if handle is not third:
                assert not third.closed
        assert await got == [0, 1, 2]

    @CAPACITIES
    @program
    async def test_r28_close_of_a_far_end_meets_its_own_waiting_sender(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        await fill(front, ends, capacity)
        blocked = front.start(ends.tx, "send", "lost")
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        ends.near.close()
        with pytest.raises(ChannelClosed):
            await blocked
        with pytest.raises(ChannelClosed):
            await front.do(ends.tx, "deliver", "late")
        assert await front.drain(ends.rx) == list(range(capacity))

    @CAPACITIES
    @program
    async def test_r29_stop_ends_its_own_waiting_receivers_and_a_far_waiting_sender(
        front: Front, capacity: int
    ) -> None:
        ends = await front.make(capacity, back=True)
        waiting = [front.start(ends.rx, "recv"), asyncio.create_task(front.drain(ends.rx))]
        await until(lambda: ends.rx.stats().receivers_waiting == 2)
        ends.rx.stop()
        for job in waiting:
            with pytest.raises(ChannelClosed):
                await job
        assert ends.rx.closed
        ends = await front.make(capacity, back=True)
        await fill(front, ends, capacity)
        blocked = front.start(ends.tx, "send_many", ["a", "b"])
        await until(lambda: ends.tx.stats().senders_waiting == 1)
        ends.rx.stop()
        with pytest.raises(ChannelClosed):
            await blocked
        await until(lambda: ends.tx.closed)
        assert ends.rx.stats().taken == 0

    @capacities(1, 64)
    @program
    async def test_r30_aclose_comes_back_when_the_values_are_there_and_loses_none(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, bytes, back=back)
            sent = [*(b"%d" % n for n in range(capacity - 1)), bytes(MIB)]
            for value in sent:
                await front.do(ends.tx, "send", value)
            await front.do(ends.tx, "aclose")
            assert ends.rx.pending == capacity
            with pytest.raises(ChannelClosed):
                ends.tx.send_nowait(b"late")
            assert await front.drain(ends.rx) == sent

    @capacities(1, 64)
    @program
    async def test_r30_what_a_quick_leaver_sent_is_received_after_it_left(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            context, whole = await front.enter(ends.near)
            assert whole is ends.near
            for n in range(capacity):
                ends.tx.send_nowait(n)
            await front.leave(context)
            if front.maker != "channel":
                with pytest.raises(ChannelClosed):
                    await front.do(ends.near, "recv")
                stays, _ = ends.far.split()
                await until(lambda stays=stays: stays.closed)  # type: ignore[misc]
            assert await front.drain(ends.rx) == list(range(capacity))

    @CAPACITIES
    @program
    async def test_r31_leaving_by_an_exception_is_an_abort_behind_the_values(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            context, _ = await front.enter(ends.tx)
            got = [front.start(ends.rx, "recv") for _ in range(2)]
            for value in ("a", "b"):
                await front.do(ends.tx, "send", value)
            assert sorted([await job for job in got]) == ["a", "b"]
            for n in range(capacity):
                await front.do(ends.tx, "send", n)  # what was taken gives its room back a little later
            await front.leave(context, "a fault of the program")
            assert [await front.do(ends.rx, "recv") for _ in range(capacity)] == list(range(capacity))
            for verb in ("recv", "recv_many"):
                with pytest.raises(ChannelAborted) as caught:
                    await front.do(ends.rx, verb)
                assert caught.value.code == Code.LEFT_BY_EXCEPTION
                assert "a fault" not in str(caught.value)
            with pytest.raises(ChannelAborted):
                await front.drain(ends.rx)

    @CAPACITIES
    @program
    async def test_r32_abort_by_the_receiver_reaches_a_waiting_sender(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            await fill(front, ends, capacity)
            waiting = front.start(ends.tx, "send", -1)
            await until(lambda ends=ends: ends.tx.stats().senders_waiting == 1)  # type: ignore[misc]
            ends.rx.abort(2**30 - 1, "é" * 128)
            with pytest.raises(ChannelAborted) as caught:
                await waiting
            assert (caught.value.code, caught.value.reason) == (2**30 - 1, "é" * 128)
            assert caught.value.by_us is (front.maker == "channel")
            with pytest.raises(ChannelAborted) as caught:
                ends.rx.recv_nowait()
            assert (caught.value.code, caught.value.by_us) == (2**30 - 1, True)
            assert ends.tx.closed
            assert ends.rx.closed

    @CAPACITIES
    @program
    async def test_r32_abort_by_the_sender_reaches_waiting_receivers_and_counts_once(
        front: Front, capacity: int
    ) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            waiting = [
                front.start(ends.rx, "recv"),
                front.start(ends.rx, "recv_many", 5),
                asyncio.create_task(front.drain(ends.rx)),
            ]
            await until(lambda ends=ends: ends.rx.stats().receivers_waiting == 3)  # type: ignore[misc]
            ends.tx.abort()
            ends.tx.abort(9, "second")
            for job in waiting:
                with pytest.raises(ChannelAborted) as caught:
                    await job
                assert (caught.value.code, caught.value.reason) == (0, "")

    @capacities(4)
    @program
    async def test_r46_dropped_far_sender_is_never_a_clean_end(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        await front.do(ends.tx, "send", 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            front.lose(ends, "near", "tx", *(["far"] if front.maker == "channel" else []))
            assert await front.do(ends.rx, "recv") == 1
            with pytest.raises(ChannelAborted) as caught:
                await front.do(ends.rx, "recv")
        assert caught.value.code == Code.DROPPED


class TestLevels:
    @capacities(2, 64)
    @program
    async def test_r22_delivers_return_one_by_one_as_their_values_are_taken(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            jobs = [front.start(ends.tx, "deliver", "a")]
            await until(lambda ends=ends: ends.rx.pending == 1)  # type: ignore[misc]
            jobs.append(front.start(ends.tx, "deliver", "b"))
            await until(lambda ends=ends: ends.rx.pending == 2)  # type: ignore[misc]
            assert not jobs[0].done()
            assert await front.do(ends.rx, "recv") == "a"
            await jobs[0]
            assert not jobs[1].done()
            assert await front.do(ends.rx, "recv") == "b"
            await jobs[1]

    @capacities(4)
    @program
    async def test_r22_flush_of_nothing_is_done_and_taken_fails_where_they_stop(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            for level in ("received", "taken"):
                await front.do(ends.tx, "flush", level)
            for n in range(3):
                ends.tx.send_nowait(n)
            await front.do(ends.tx, "flush")
            assert ends.rx.pending == 3
            taken = front.start(ends.tx, "flush", "taken")
            assert await front.do(ends.rx, "recv") == 0
            ends.rx.stop()
            with pytest.raises(ChannelClosed):
                await taken


class TestGivenUp:
    @CAPACITIES
    @program
    async def test_r24_receive_that_was_given_up_leaves_the_value_to_the_next(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            stats = ends.rx.stats
            once = lambda stats=stats: stats().receivers_waiting == 1  # noqa: E731
            assert await front.give_up(ends.rx, "recv", once=once) is GIVEN_UP
            assert ends.rx.stats().receivers_waiting == 0
            sending = front.start(ends.tx, "send", "v")
            assert await front.do(ends.rx, "recv") == "v"
            await sending
            assert ends.rx.stats().taken == 1

    @CAPACITIES
    @program
    async def test_r24_place_of_a_receive_that_was_given_up_passes_on(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        rest: list[asyncio.Task[Any]] = []

        def behind() -> bool:
            if not rest and ends.rx.stats().receivers_waiting == 1:
                rest.append(front.start(ends.rx, "recv"))
            return bool(ends.rx.stats().receivers_waiting == 2)

        assert await front.give_up(ends.rx, "recv", once=behind) is GIVEN_UP
        await until(lambda: ends.rx.stats().receivers_waiting == 1)
        await front.do(ends.tx, "send", "v")
        assert await rest[0] == "v"

    @CAPACITIES
    @program
    async def test_r20_send_that_was_given_up_was_not_accepted(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            await fill(front, ends, capacity)
            stats = ends.tx.stats
            once = lambda stats=stats: stats().senders_waiting == 1  # noqa: E731
            assert await front.give_up(ends.tx, "send", "never", once=once) is GIVEN_UP
            assert ends.tx.stats().senders_waiting == 0
            assert ends.tx.stats().sent == capacity
            last = front.start(ends.tx, "send", "last")
            assert [await front.do(ends.rx, "recv") for _ in range(capacity + 1)] == [*range(capacity), "last"]
            await last

    @capacities(1, 64)
    @program
    async def test_r22_deliver_that_was_given_up_behind_acceptance_has_sent(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            once = lambda ends=ends: ends.rx.pending == 1  # noqa: E731
            assert await front.give_up(ends.tx, "deliver", "v", once=once) is GIVEN_UP
            ends.tx.close()
            assert await front.drain(ends.rx) == ["v"]

    @capacities(3, 64)
    @program
    async def test_r25_recv_many_that_was_given_up_took_nothing(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            await fill(front, ends, 2)
            stats = ends.rx.stats
            once = lambda stats=stats: stats().receivers_waiting == 1  # noqa: E731
            assert await front.give_up(ends.rx, "recv_many", 9, min=3, once=once) is GIVEN_UP
            assert ends.rx.pending == 2
            assert await front.do(ends.rx, "recv_many", min=2) == [0, 1]

    @capacities(2, 64)
    @program
    async def test_r23_iterator_of_a_send_many_that_was_given_up_holds_the_rest(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        items = iter(range(capacity + 5))
        once = lambda: ends.tx.stats().senders_waiting == 1  # noqa: E731
        assert await front.give_up(ends.tx, "send_many", items, once=once) is GIVEN_UP
        assert list(items) == list(range(capacity, capacity + 5))
        ends.tx.close()
        assert await front.drain(ends.rx) == list(range(capacity))

    @capacities(1)
    @program
    async def test_r26_reserve_that_was_given_up_holds_no_place(front: Front, capacity: int) -> None:
        for back in BOTH_WAYS:
            ends = await front.make(capacity, back=back)
            await fill(front, ends, capacity)
            if front.blocking:
                with pytest.raises(TimeoutError):
                    await front.enter(ends.tx.reserve(timeout=SHORT))
            else:
                stats = ends.tx.stats
                once = lambda stats=stats: stats().senders_waiting == 1  # noqa: E731
                assert await front.give_up(None, "enter", ends.tx.reserve(), once=once) is GIVEN_UP
            assert ends.tx.stats().senders_waiting == 0
            assert await front.do(ends.rx, "recv") == 0
            await front.do(ends.tx, "send", "next")
            assert await front.do(ends.rx, "recv") == "next"

    @capacities(1, 3)
    @program
    async def test_r26_far_permits_hold_places_until_they_are_used_or_left(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        entered = [await front.enter(ends.tx.reserve()) for _ in range(capacity)]
        with pytest.raises(WouldBlock):
            ends.tx.send_nowait("no room")
        entered[0][1].send("mine")
        assert not entered[0][1].held
        for reservation, _ in entered:
            await front.leave(reservation)
        assert await front.do(ends.rx, "recv") == "mine"
        for n in range(capacity):
            await front.do(ends.tx, "send", n)
        ends.tx.close()
        assert await front.drain(ends.rx) == list(range(capacity))


class TestTwoDirections:
    @CAPACITIES
    @two_ends
    @program
    async def test_r27_other_direction_goes_on_after_a_close_and_after_a_stop(front: Front, capacity: int) -> None:
        for ending in ("close", "stop"):
            ends = await front.make(capacity)
            getattr(ends.near if ending == "close" else ends.far, ending)()
            if ending == "close":
                with pytest.raises(ChannelEnded):
                    await front.do(ends.far, "recv")
            else:
                await until(lambda ends=ends: ends.tx.closed)  # type: ignore[misc]
            job = front.start(ends.far, "send_many", [1, 2, 3])
            assert [await front.do(ends.near, "recv") for _ in range(3)] == [1, 2, 3]
            assert await job == 3
            ends.far.close()
            assert await front.drain(ends.near) == []

    @capacities(1, 64)
    @two_ends
    @program
    async def test_r2_both_ends_send_at_once_and_each_gets_the_others(front: Front, capacity: int) -> None:
        ends = await front.make(capacity)
        jobs = [
            front.start(ends.near, "send_many", list(range(0, 400, 2))),
            front.start(ends.far, "send_many", list(range(1, 400, 2))),
        ]

        async def take(end: Any) -> list[Any]:
            got: list[Any] = []
            while len(got) < 200:
                got += await front.do(end, "recv_many", 16)
            return got

        odd, even = await asyncio.gather(take(ends.near), take(ends.far))
        assert await asyncio.gather(*jobs) == [200, 200]
        assert even == list(range(0, 400, 2))
        assert odd == list(range(1, 400, 2))


class TestPeers:
    @capacities(2)
    @by_name
    @program
    async def test_r10_name_used_again_after_its_end_is_a_new_channel(front: Front, capacity: int) -> None:
        await front.make(1)
        here, there = front.peers
        seen = []
        for turn in range(3):
            near, far = (peer.open("again", int, capacity=capacity) for peer in (here, there))
            assert near not in seen
            assert far not in seen
            assert here.open("again", int, capacity=capacity) == near
            with pytest.raises(ConfigError):
                here.open("again", str, capacity=capacity)
            seen += [near, far]
            await front.do(near, "send", turn)
            await front.do(far, "send", -turn)
            near.close()
            far.close()
            assert await front.drain(far) == [turn]
            assert await front.drain(near) == [-turn]

    @capacities(2)
    @by_name
    @program
    async def test_r13_types_that_do_not_fit_abort_both_ends(front: Front, capacity: int) -> None:
        await front.make(1)
        here, there = front.peers
        near, far = here.open("typed", int, capacity=capacity), there.open("typed", str, capacity=capacity)
        for end in (near, far):
            with pytest.raises(ChannelAborted, match="TYPE_MISMATCH") as caught:
                await front.do(end, "recv")
            assert caught.value.code == Code.TYPE_MISMATCH
            assert "int" in caught.value.reason
            assert "str" in caught.value.reason

    @capacities(4)
    @by_name
    @program
    async def test_r19_values_of_a_peer_that_left_are_received_and_then_end(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        await front.do(ends.tx, "send_many", [1, 2, 3])
        here, there = front.peers
        await front.do(there, "aclose")
        await until(lambda: here.closed)
        assert await front.drain(ends.rx) == [1, 2, 3]
        with pytest.raises(ChannelClosed):
            await front.do(ends.far, "send", 4)

    @capacities(4)
    @by_name
    @program
    async def test_r32_killed_process_is_a_loss_behind_the_values_never_an_end(front: Front, capacity: int) -> None:
        ends = await front.make(capacity, back=True)
        await front.do(ends.tx, "send_many", [1, 2, 3])
        await until(lambda: ends.rx.pending == 3)
        ends.far.send_nowait("in doubt")
        child = front.child  # asked again it may be the next one
        child.process.kill()
        child.process.wait()
        assert [await front.do(ends.rx, "recv") for _ in range(3)] == [1, 2, 3]
        with pytest.raises(SessionLost) as caught:
            await front.do(ends.rx, "recv")
        lost = caught.value
        assert [*lost.undelivered, *(doubt.value for doubt in lost.in_doubt)] == ["in doubt"]
        with pytest.raises(SessionLost):
            await front.do(ends.far, "send", "late")
