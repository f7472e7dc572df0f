"""``select``, ``after``, ``ticker`` and ``merge`` on every pair of ends and both fronts (R33-R39)."""

# ruff: noqa: N805 - the decorator adds self

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

import netchan
from netchan.errors import ChannelAborted, ChannelClosed, ChannelEnded, CodecError, WouldBlock
from tests.unit.channel.harness import GIVEN_UP, PATIENCE, Ends, Front, until
from tests.unit.channel.test_conformance import CAPACITIES, capacities, front, only, program, pytest_generate_tests

__all__ = ["front", "pytest_generate_tests"]
pytestmark = pytest.mark.timeout(60)


async def choose(front: Front, *ops: Any, **options: Any) -> Any:
    return await front.do(None, "select", *ops, **options)


async def two(front: Front, capacity: int) -> tuple[Ends, Ends]:
    return await front.make(capacity), await front.make(capacity)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class TestR33Choice:
    @CAPACITIES
    @program
    async def test_r33_ready_receive_wins_and_the_loser_has_no_value(front: Front, capacity: int) -> None:
        one, other = await two(front, capacity)
        sending = front.start(one.tx, "send", "v")
        mine, theirs = one.rx.recv_op(), other.rx.recv_op()
        assert await choose(front, mine, theirs) is mine
        assert mine.value == "v"
        assert not mine.closed
        assert mine.error is None
        await sending
        with pytest.raises(LookupError, match="did not win"):
            _ = theirs.value

    @CAPACITIES
    @program
    async def test_r33_waiting_select_is_woken_by_each_kind_of_arm(front: Front, capacity: int) -> None:
        one, other = await front.mixed(capacity)
        for n in range(capacity):
            await front.do(other.tx, "send", n)
        mine, theirs = one.rx.recv_op(), other.tx.send_op("late")
        waiting = asyncio.create_task(choose(front, mine, theirs))
        await until(lambda: one.rx.stats().receivers_waiting == 1)
        await front.do(one.tx, "send", "v")
        assert await waiting is mine
        assert mine.value == "v"
        waiting = asyncio.create_task(choose(front, mine, theirs))
        await until(lambda: one.rx.stats().receivers_waiting == 1)
        assert await front.do(other.rx, "recv") == (0 if capacity else "late")
        assert await waiting is theirs
        rest = [await front.do(other.rx, "recv") for _ in range(capacity)]
        assert rest == [*range(1, capacity), *(["late"] if capacity else [])]
        with pytest.raises(LookupError):
            _ = mine.value

    @CAPACITIES
    @program
    async def test_r33_losing_arms_leave_no_trace(front: Front, capacity: int) -> None:
        one, other = await front.mixed(capacity, far=True)
        for n in range(capacity):
            await front.do(other.tx, "send", n)
        mine, theirs = one.rx.recv_op(), other.tx.send_op("never")
        for n in range(10):
            waiting = asyncio.create_task(choose(front, mine, theirs))
            await until(lambda: one.rx.stats().receivers_waiting == 1)
            await front.do(one.tx, "send", n)
            assert await waiting is mine
            assert mine.value == n
        assert other.tx.stats().sent == capacity
        assert other.tx.stats().senders_waiting == 0
        assert one.rx.stats().receivers_waiting == 0
        other.tx.close()
        assert await front.drain(other.rx) == list(range(capacity))

    @capacities(64)
    @program
    async def test_r33_ready_arms_win_with_the_same_chance(front: Front, capacity: int) -> None:
        one, other = await two(front, capacity)
        third = await front.make(capacity, back=True)
        front.plain("seed", 7, beside=third.tx)
        for n in range(60):
            for ends in (one, other):
                await front.do(ends.tx, "send", n)
        arms = [one.rx.recv_op(), other.rx.recv_op(), third.tx.send_op("x")]
        await until(lambda: one.rx.pending == other.rx.pending == 60)
        won = Counter([arms.index(await choose(front, *arms)) for _ in range(60)])
        assert all(8 <= won[n] <= 36 for n in range(3)), won  # 20 expected, 3.3 standard deviations at least

    @CAPACITIES
    @program
    async def test_r33_default_comes_back_at_once_and_only_if_nothing_is_ready(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        mine = one.rx.recv_op()
        assert await choose(front, mine, default="none") == "none"
        sending = front.start(one.tx, "send", 1)
        if capacity:
            await sending
        await until(one.rx._ep.can_recv)
        assert await choose(front, mine, default=None) is mine
        assert mine.value == 1
        await sending
        assert await choose(front, default=3) == 3
        full = one.tx.send_op(0)
        for _ in range(capacity):
            await until(one.tx._ep.can_send)
            assert await choose(front, full, default=None) is full
        assert await choose(front, full, default=None) is None

    @capacities(1)
    @program
    async def test_r33_send_arm_sends_its_value_until_another_is_set(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        arm = one.tx.send_op("a")
        for value in ("a", "a", "b"):
            if value == "b":
                assert arm.set("b") is arm
            assert await choose(front, arm) is arm
            assert await front.do(one.rx, "recv") == value
        with pytest.raises(TypeError, match="no value"):
            await choose(front, one.tx.send_op())

    @capacities(1)
    @only(lambda front: front.remote)  # in process values are not looked at
    @program
    async def test_r33_value_is_checked_where_it_is_given(front: Front, capacity: int) -> None:
        one = await front.make(capacity, int)
        with pytest.raises(CodecError):
            one.tx.send_op("text")
        arm = one.tx.send_op(1)
        with pytest.raises(CodecError):
            arm.set("text")
        assert await choose(front, arm) is arm
        assert await front.do(one.rx, "recv") == 1

    @CAPACITIES
    @program
    async def test_r33_receivers_and_selects_are_served_in_order_of_arrival(front: Front, capacity: int) -> None:
        one, other = await two(front, capacity)
        first = front.start(one.rx, "recv")
        await until(lambda: one.rx.stats().receivers_waiting == 1)
        mine = one.rx.recv_op()
        second = asyncio.create_task(choose(front, mine, other.rx.recv_op()))
        await until(lambda: one.rx.stats().receivers_waiting == 2)
        third = front.start(one.rx, "recv")
        await until(lambda: one.rx.stats().receivers_waiting == 3)
        for n in range(3):
            await front.do(one.tx, "send", n)
        assert await first == 0
        assert await second is mine
        assert mine.value == 1
        assert await third == 2

    @capacities(64)
    @program
    async def test_r33_only_the_winner_has_a_value_even_if_both_were_ready(front: Front, capacity: int) -> None:
        one, other = await two(front, capacity)
        for n in range(12):
            for ends in (one, other):
                await front.do(ends.tx, "send", n)
        await until(lambda: one.rx.pending == other.rx.pending == 12)
        arms = one.rx.recv_op(), other.rx.recv_op()
        for _ in range(12):
            won = await choose(front, *arms)
            assert won.value >= 0
            loser = arms[won is arms[0]]
            with pytest.raises(LookupError):
                _ = loser.value

    @capacities(1, 64)
    @only(lambda front: not front.remote and front.library in ("asyncio", "uvloop"))
    @program
    async def test_r33_newcomer_leaves_the_value_to_the_receiver_that_was_woken(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        for polls in (True, False):
            first = front.start(one.rx, "recv")
            await until(lambda: one.rx.stats().receivers_waiting == 1)
            one.tx.send_nowait(polls)  # wakes it; it has not run yet
            arm = one.rx.recv_op()
            if polls:
                assert await netchan.select(arm, default=None) is None
            else:
                with pytest.raises(WouldBlock):
                    one.rx.recv_nowait()
                late = netchan.after(0.02)
                assert await netchan.select(arm, late) is late
            assert await first is polls


class TestR33BothEnds:
    @capacities(0)
    @program
    async def test_r33_selects_on_both_ends_of_a_rendezvous_meet(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        received: list[list[int]] = [[], []]

        async def side(end: Any, who: int) -> int:
            sent = 0
            take, give = end.recv_op(), end.send_op(0)
            for n in range(60):
                won = await choose(front, take, give.set(2 * n + who))
                if won is take:
                    received[who].append(take.value)
                else:
                    sent += 1
            return sent

        sent = await asyncio.gather(side(one.near, 0), side(one.far, 1))
        assert sum(sent) == 60 == sum(map(len, received))
        got = [n for side in received for n in side]
        assert len(set(got)) == len(got)

    @capacities(0)
    @program
    async def test_r33_crossing_offers_do_not_refuse_each_other(front: Front, capacity: int) -> None:
        back, there = await front.mixed(capacity)
        for n in range(20):
            left_take, left_give = back.far.recv_op(), there.near.send_op(f"left {n}")
            right_take, right_give = there.far.recv_op(), back.near.send_op(f"right {n}")
            left = asyncio.create_task(choose(front, left_take, left_give))
            right = asyncio.create_task(choose(front, right_take, right_give))
            won = (await left, await right)
            assert won in ((left_take, right_give), (left_give, right_take))
            if won[0] is left_take:
                assert left_take.value == f"right {n}"
            else:
                assert right_take.value == f"left {n}"

    @capacities(0)
    @program
    async def test_r33_plain_receiver_behind_a_select_with_an_offer_is_served(front: Front, capacity: int) -> None:
        one, other = await front.mixed(capacity)
        keeps = asyncio.create_task(choose(front, one.rx.recv_op(), other.tx.send_op("offer")))
        await until(lambda: one.rx.stats().receivers_waiting == 1)
        behind = front.start(one.rx, "recv")
        await until(lambda: one.rx.stats().receivers_waiting == 2)
        assert await front.do(other.rx, "recv") == "offer"
        await keeps
        await front.do(one.tx, "send", 5)
        assert await behind == 5

    @capacities(0)
    @only(lambda front: front.remote)
    @program
    async def test_r33_select_offers_across_a_session_only_while_somebody_waits(front: Front, capacity: int) -> None:
        other, one = await front.mixed(capacity)
        arm = one.tx.send_op(1)
        waiting = asyncio.create_task(choose(front, arm, other.rx.recv_op()))
        await until(lambda: other.rx.stats().receivers_waiting == 1)
        await asyncio.sleep(0.02)
        assert one.tx._ep.offers_out == one.tx._ep.offers_back == 0
        assert await front.do(one.rx, "recv") == 1
        assert await waiting is arm

    @capacities(0)
    @only(lambda front: front.remote)
    @program
    async def test_r33_offer_across_a_session_stays_out_beside_a_ticker(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        ticks = front.plain("ticker", 5.0)
        one.rx._ep.parked(1)  # somebody over there waits, as far as this side knows
        await until(lambda: one.tx._ep.wanted == 1)
        waiting = asyncio.create_task(choose(front, one.tx.send_op(7), ticks.recv_op()))
        await until(lambda: one.tx._ep.offers_out == 1)
        await asyncio.sleep(0.05)
        assert one.tx._ep.offers_back == 0
        assert await front.do(one.rx, "recv") == 7
        await waiting
        ticks.stop()


class TestR34Closed:
    @CAPACITIES
    @program
    async def test_r34_receive_arm_of_an_ended_channel_wins_behind_the_values(front: Front, capacity: int) -> None:
        one, other = await two(front, capacity)
        for n in range(capacity):
            await front.do(one.tx, "send", n)
        one.tx.close()
        mine, theirs = one.rx.recv_op(), other.rx.recv_op()
        for n in range(capacity):
            assert await choose(front, mine, theirs) is mine
            assert mine.value == n
        for _ in range(2):
            assert await choose(front, mine, theirs) is mine
            assert mine.closed
            assert isinstance(mine.error, ChannelEnded)
            with pytest.raises(ChannelEnded):
                _ = mine.value

    @CAPACITIES
    @program
    async def test_r34_waiting_receive_arm_wins_when_its_channel_ends_or_is_aborted(
        front: Front, capacity: int
    ) -> None:
        for ending, error in (("close", ChannelEnded), ("abort", ChannelAborted)):
            one, other = await two(front, capacity)
            mine, theirs = one.rx.recv_op(), other.rx.recv_op()
            waiting = asyncio.create_task(choose(front, mine, theirs))
            await until(lambda one=one: one.rx.stats().receivers_waiting == 1)  # type: ignore[misc]
            getattr(one.tx, ending)()
            assert await waiting is mine
            assert mine.closed
            assert isinstance(mine.error, error)

    @capacities(1)
    @program
    async def test_r34_own_stop_is_the_reason_then(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        mine = one.rx.recv_op()
        one.rx.stop()
        assert await choose(front, mine) is mine
        assert isinstance(mine.error, ChannelClosed)


class TestR35SendThatCannot:
    @CAPACITIES
    @program
    async def test_r35_send_arm_that_can_never_happen_raises_from_select(front: Front, capacity: int) -> None:
        other, one = await front.mixed(capacity)
        arm = one.tx.send_op(1)
        one.rx.stop()
        await until(lambda: one.tx.closed)
        with pytest.raises(ChannelClosed) as caught:
            await choose(front, other.rx.recv_op(), arm)
        assert caught.value.op is arm
        assert arm.closed

    @CAPACITIES
    @program
    async def test_r35_it_raises_while_the_select_waits(front: Front, capacity: int) -> None:
        for ending, error in (("stop", ChannelClosed), ("abort", ChannelAborted)):
            other, one = await front.mixed(capacity, far=ending == "abort")
            for n in range(capacity):
                await front.do(one.tx, "send", n)
            mine, arm = other.rx.recv_op(), one.tx.send_op(-1)
            waiting = asyncio.create_task(choose(front, mine, arm))
            await until(lambda other=other: other.rx.stats().receivers_waiting == 1)  # type: ignore[misc]
            getattr(one.rx, ending)()
            with pytest.raises(error) as caught:
                await waiting
            assert caught.value.op is arm
            # the other arm stands nowhere any more, and the op may be used again
            assert other.rx.stats().receivers_waiting == 0
            job = front.start(other.tx, "send", 1)
            assert await choose(front, mine) is mine
            await job

    @capacities(1)
    @program
    async def test_r35_closed_handle_is_refused_although_its_channel_is_open(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        mine = one.tx.clone()
        arm = mine.send_op(1)
        mine.close()
        with pytest.raises(ChannelClosed, match="this Sender was closed") as caught:
            await choose(front, arm)
        assert caught.value.op is arm


class TestR36R37Arms:
    @capacities(1)
    @program
    async def test_r36_none_is_an_arm_that_is_off(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        await front.do(one.tx, "send", 1)
        arm = one.rx.recv_op()
        assert await choose(front, None, arm, None) is arm
        for ops in ((), (None,), (None, None)):
            with pytest.raises(ValueError, match="no live arm"):
                await choose(front, *ops)
            assert await choose(front, *ops, default=0) == 0
        with pytest.raises(TypeError, match="takes ops"):
            await choose(front, one.rx)

    @capacities(1)
    @program
    async def test_r37_an_op_is_in_one_select_at_a_time(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        arm, other = one.rx.recv_op(), one.rx.recv_op()
        waiting = asyncio.create_task(choose(front, arm))
        await until(lambda: one.rx.stats().receivers_waiting == 1)
        with pytest.raises(RuntimeError, match="in a select already"):
            await choose(front, other, arm)
        with pytest.raises(RuntimeError, match="in a select already"):
            await choose(front, other, other)
        await front.do(one.tx, "send", 1)
        assert await waiting is arm
        await front.do(one.tx, "send", 2)
        assert await choose(front, other) is other
        assert other.value == 2
        send = one.tx.send_op(3)
        await front.do(one.tx, "send", 0)
        waiting = asyncio.create_task(choose(front, send))
        await until(lambda: one.tx.stats().senders_waiting == 1)
        with pytest.raises(RuntimeError, match="in a select now"):
            send.set(4)
        assert await front.do(one.rx, "recv") == 0
        assert await waiting is send
        assert await front.do(one.rx, "recv") == 3


class TestR38Time:
    @CAPACITIES
    @program
    async def test_r38_timer_arm_wins_when_its_time_has_passed_and_is_armed_again(front: Front, capacity: int) -> None:
        one = await front.make(capacity)
        late, arm = front.plain("after", 0.03, beside=one.rx), one.rx.recv_op()
        for _ in range(2):
            begun = time.monotonic()
            assert await choose(front, arm, late) is late
            assert time.monotonic() - begun >= 0.03
        job = front.start(one.tx, "send", 1)
        assert await choose(front, arm, front.plain("after", PATIENCE, beside=one.rx)) is arm
        await job
        now = front.plain("after", 0)
        assert await choose(front, now, default=None) is now

    @capacities(1)
    @program
    async def test_r38_ticker_ticks_and_drops_what_is_missed(front: Front, capacity: int) -> None:
        ticks = front.plain("ticker", 0.02)
        first = await front.do(ticks, "recv")
        arm = ticks.recv_op()
        assert await choose(front, arm) is arm
        assert arm.value == pytest.approx(first + 0.02, abs=1e-6) or arm.value > first
        await asyncio.sleep(0.07)
        kept = await front.do(ticks, "recv")
        following = await front.do(ticks, "recv")
        assert following > kept
        assert following - first == pytest.approx(round((following - first) / 0.02) * 0.02, abs=1e-6)
        ticks.stop()
        assert await choose(front, arm) is arm
        assert arm.closed


class TestR39Merge:
    @CAPACITIES
    @program
    async def test_r39_merge_gives_all_values_with_their_receiver_and_ends_with_the_last(
        front: Front, capacity: int
    ) -> None:
        one, other = await two(front, capacity)

        async def feed(ends: Ends, base: int, count: int) -> None:
            for n in range(count):
                await front.do(ends.tx, "send", base + n)
            ends.tx.close()

        jobs = [asyncio.create_task(feed(one, 0, 15)), asyncio.create_task(feed(other, 100, 5))]
        merged = front.plain("merge", one.rx, other.rx)
        got = await front.drain(merged)
        await asyncio.gather(*jobs)
        assert [v for r, v in got if r is one.rx] == list(range(15))
        assert [v for r, v in got if r is other.rx] == list(range(100, 105))
        assert await front.drain(merged) == []
        assert await front.drain(front.plain("merge")) == []

    @capacities(4)
    @program
    async def test_r39_break_loses_nothing_and_an_abort_raises_once(front: Front, capacity: int) -> None:
        one, other = await two(front, capacity)
        for n in range(4):
            await front.do(one.tx, "send", n)
            await front.do(other.tx, "send", n)
        await until(lambda: one.rx.pending == other.rx.pending == 4)
        merged = front.plain("merge", one.rx, other.rx)

        receiver, value = await front.do(None, "step", merged)
        assert value == 0
        assert receiver in (one.rx, other.rx)
        assert receiver.pending == 3
        assert one.rx.pending + other.rx.pending == 7
        one.tx.abort(7, "gone")
        other.tx.close()
        await until(lambda: one.rx.closed)
        left, aborts = [], 0
        while True:
            try:
                item = await front.do(None, "step", merged)
            except ChannelAborted:
                aborts += 1
                continue
            if item is None:
                break
            left.append(item)
        assert aborts == 1
        assert [v for r, v in left if r is other.rx] == list(range(1 if receiver is other.rx else 0, 4))


class TestCancellation:
    @CAPACITIES
    @program
    async def test_select_that_was_given_up_has_done_nothing(front: Front, capacity: int) -> None:
        for far in (False, True):
            one, other = await front.mixed(capacity, far=far)
            for n in range(capacity):
                await front.do(other.tx, "send", n)
            arms = one.rx.recv_op(), other.tx.send_op("never")
            waits = one.rx.stats
            gone = await front.give_up(None, "select", *arms, once=lambda waits=waits: waits().receivers_waiting == 1)  # type: ignore[misc]
            assert gone is GIVEN_UP
            assert one.rx.stats().receivers_waiting == other.tx.stats().senders_waiting == 0
            sending = front.start(one.tx, "send", 1)
            assert await front.do(one.rx, "recv") == 1
            await sending
            other.tx.close()
            assert await front.drain(other.rx) == list(range(capacity))
