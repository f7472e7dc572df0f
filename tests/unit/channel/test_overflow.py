"""Overflow policies and time to live, on both halves and every front (docs/spec/channel-end.md §8)."""

# ruff: noqa: N805 - the decorator adds self

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import netchan
from netchan.errors import ChannelAborted, ChannelClosed, Code, ConfigError, WouldBlock
from netchan.testing.pair import joined
from tests.unit.channel.harness import FRONT_IDS, FRONTS, Ends, Front, SocketPair, until
from tests.unit.channel.test_conformance import program

pytestmark = pytest.mark.timeout(60)

PLACES = [(f, n) for f, n in zip(FRONTS, FRONT_IDS, strict=True) if f.maker in ("channel", "pipe", "session")]

SESSIONS = [f for f, _ in PLACES if f.maker == "session"]


@pytest.fixture(params=[f for f, _ in PLACES], ids=[n for _, n in PLACES])
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    yield request.param
    request.param.end_all()


async def make(front: Front, capacity: int, **policy: Any) -> Any:
    """(near, far) of a channel; the policy is near's."""
    near, far = await open_both(front, capacity, **policy)
    front._made.append(Ends(None, None, near, far))
    return near, far


async def open_both(front: Front, capacity: int, type: Any = Any, **policy: Any) -> Any:
    if front.maker == "channel":
        end = front.module.channel(type, capacity=capacity, **policy)
        return end, end
    if front.maker == "pipe":
        near, far = front.module.pipe(type, capacity=capacity, **policy)
        return near, far
    if front._link is None:
        front._link = await front.run(SocketPair.make, front.module)
    name = f"c{next(front._numbers)}"
    near, far = (
        front.module.Channel(side.open(name, type, capacity, **given))
        for side, given in zip(front._link._sides, (policy, {}), strict=True)
    )
    await until(lambda: near._ep.paired and far._ep.paired)
    return near, far


async def moved(front: Front, near: Any) -> None:
    """Wait until the other side has, or was told of, all that was accepted."""
    await front.do(near, "flush")


class TestPolicies:
    @pytest.mark.parametrize(("overflow", "left"), [("drop_new", [0, 1, 2]), ("drop_old", [7, 8, 9]), ("latest", [9])])
    @program
    async def test_no_send_waits_and_the_right_values_stay(front: Front, overflow: str, left: list[int]) -> None:
        near, far = await make(front, 3, overflow=overflow)
        for n in range(10):
            await front.do(near, "send", n)
            if overflow != "drop_new":
                await moved(front, near)
        near.close()
        assert await front.drain(far) == left
        assert max(near.stats().dropped, far.stats().dropped) == 10 - len(left)
        assert far.stats().taken == len(left)

    @pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "latest"])
    @program
    async def test_send_nowait_send_many_and_select_always_find_room(front: Front, overflow: str) -> None:
        near, far = await make(front, 2, overflow=overflow)
        for n in range(5):
            near.send_nowait(n)
        assert await front.do(near, "send_many", list(range(5, 15))) == 10
        assert await front.do(near, "send_many", iter(range(15, 20))) == 5
        near.close()
        got = await front.drain(far)
        assert got == sorted(got) and (got[0] == 0 if overflow == "drop_new" else got[-1] == 19)
        assert near.stats().dropped or far.stats().dropped

    @program
    async def test_newest_value_is_there_after_a_long_pause(front: Front) -> None:
        near, far = await make(front, 4, overflow="latest")
        for n in range(300):
            await front.do(near, "send", n)
        await moved(front, near)
        assert await front.do(far, "recv") == 299

    @program
    async def test_slow_receiver_is_cut_off(front: Front) -> None:
        near, far = await make(front, 2, overflow="disconnect")
        await front.do(near, "send", 1)
        await front.do(near, "send", 2)
        with pytest.raises(ChannelAborted, match="did not keep up") as caught:
            await front.do(near, "send", 3)
        assert caught.value.code == Code.LIMIT and caught.value.by_us
        with pytest.raises(ChannelAborted) as there:
            while True:
                await front.do(far, "recv")
        assert there.value.code == Code.LIMIT

    @program
    async def test_receiver_that_keeps_up_loses_nothing(front: Front) -> None:
        near, far = await make(front, 2, overflow="disconnect")
        for n in range(50):
            await front.do(near, "send", n)
            assert await front.do(far, "recv") == n
            await front.do(near, "flush", "taken")
        assert near.stats().dropped == far.stats().dropped == 0

    @program
    async def test_block_waits_as_without_a_policy(front: Front) -> None:
        near, far = await make(front, 1, overflow="block")
        near.send_nowait(1)
        with pytest.raises(WouldBlock):
            near.send_nowait(2)
        assert await front.do(far, "recv") == 1 and near.stats().dropped == 0

    @program
    async def test_closed_direction_refuses_as_ever(front: Front) -> None:
        near, _ = await make(front, 1, overflow="drop_old")
        near.close()
        with pytest.raises(ChannelClosed):
            await front.do(near, "send", 1)

    @pytest.mark.parametrize("policy", [{"overflow": "drop_new"}, {"overflow": "latest"}, {"ttl": 5}])
    @program
    async def test_deliver_of_what_may_be_dropped_is_refused(front: Front, policy: dict[str, Any]) -> None:
        near, _ = await make(front, 1, **policy)
        with pytest.raises(ConfigError, match="may drop it"):
            near.deliver(1)

    @pytest.mark.parametrize("policy", [{"overflow": "latest"}, {"overflow": "drop_old"}, {"ttl": 5}])
    @pytest.mark.parametrize("front", SESSIONS, ids=[n for _, n in PLACES if n.startswith("session")], indirect=True)
    @program
    async def test_deliver_does_not_take_a_dropped_value_for_a_taken_one(front: Front, policy: dict[str, Any]) -> None:
        """The other side opens the channel when the value is accepted already, and says that values may be dropped."""
        near, _ = await make(front, 4)  # the session is there
        side, other = front._link._sides
        near = front.module.Channel(side.open("late", Any, 4))
        delivering = front.start(near, "deliver", 0)
        await until(lambda: near.stats().sent == 1)
        await front.do(near, "send_many", [1, 2])
        assert not delivering.done()
        far = front.module.Channel(other.open("late", Any, 1, **policy))
        front._made.append(Ends(None, None, near, far))
        near.close()
        got = await front.drain(far)
        assert got == sorted(got) and got[-1] == 2
        with pytest.raises(ConfigError, match="may have been dropped"):
            await delivering

    @pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "latest", "disconnect"])
    @program
    async def test_reserve_where_no_send_waits_is_refused(front: Front, overflow: str) -> None:
        near, _ = await make(front, 1, overflow=overflow)
        with pytest.raises(ConfigError, match="never waits"):
            await front.enter(near.reserve())

    @program
    async def test_flush_taken_passes_what_was_dropped(front: Front) -> None:
        near, far = await make(front, 1, overflow="drop_old")
        for n in range(5):
            await front.do(near, "send", n)
        flushing = front.start(near, "flush", "taken")
        while await front.do(far, "recv") != 4:
            pass
        await flushing

    @program
    async def test_flush_taken_waits_for_what_was_accepted(front: Front) -> None:
        near, far = await make(front, 2, overflow="drop_new")
        for n in range(8):
            await front.do(near, "send", n)
        await moved(front, near)
        flushing = front.start(near, "flush", "taken")
        await asyncio.sleep(0.05)
        assert not flushing.done(), "six were refused, but of those two that were not none was taken"
        assert [await front.do(far, "recv") for _ in range(2)] == [0, 1]
        await flushing

    @program
    async def test_no_more_can_be_waited_for_than_stays(front: Front) -> None:
        near, far = await make(front, 8, overflow="latest")
        with pytest.raises(ConfigError):
            await front.do(far, "recv_many", 4, min=2)
        await front.do(near, "send", 1)
        await moved(front, near)
        assert await front.do(far, "recv_many", 4, min=1) == [1]

    @pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "disconnect"])
    @program
    async def test_iterator_of_send_many_keeps_what_a_closed_direction_does_not_take(
        front: Front, overflow: str
    ) -> None:
        near, _ = await make(front, 1, overflow=overflow)
        near.close()
        items = iter(range(3))
        with pytest.raises(ChannelClosed):
            await front.do(near, "send_many", items)
        assert list(items) == [0, 1, 2]

    @program
    async def test_waiting_receiver_is_woken(front: Front) -> None:
        near, far = await make(front, 1, overflow="latest")
        waiting = front.start(far, "recv")
        await until(lambda: far.stats().receivers_waiting == 1)
        await front.do(near, "send", "now")
        assert await waiting == "now"


class TestTimeToLive:
    @program
    async def test_old_value_is_not_received(front: Front) -> None:
        near, far = await make(front, 4, ttl=0.05)
        await front.do(near, "send", "old")
        await moved(front, near)
        await asyncio.sleep(0.08)
        await front.do(near, "send", "new")
        assert await front.do(far, "recv") == "new"
        assert far.stats().dropped == 1 and far.stats().taken == 1

    @program
    async def test_value_that_is_taken_in_time_is_received(front: Front) -> None:
        near, far = await make(front, 4, ttl=30)
        assert await front.do(near, "send_many", [1, 2, 3]) == 3
        near.close()
        assert await front.drain(far) == [1, 2, 3] and far.stats().dropped == 0

    @program
    async def test_place_of_an_old_value_becomes_free(front: Front) -> None:
        near, far = await make(front, 1, ttl=0.05)
        await front.do(near, "send", "old")
        waiting = front.start(near, "send", "new")
        await asyncio.sleep(0.08)
        assert await front.do(far, "recv") == "new"
        await waiting

    @program
    async def test_permit_and_recv_many_and_pending_know_ages(front: Front) -> None:
        near, far = await make(front, 4, ttl=0.05)
        context, permit = await front.enter(near.reserve())
        permit.send("old")
        await front.leave(context)
        await moved(front, near)
        await asyncio.sleep(0.08)
        await front.do(near, "send", "new")
        assert await front.do(far, "recv_many", 10) == ["new"]
        assert far.pending == 0


class TestArguments:
    @pytest.mark.parametrize(
        "policy",
        [
            {"overflow": "drop"},
            {"overflow": 3},
            {"ttl": 0},
            {"ttl": "1"},
            {"ttl": 2e6},
            {"ttl": float("nan")},
            {"ttl": True},
        ],
    )
    def test_policy_that_cannot_be_meant_is_refused(self, policy: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            netchan.channel(capacity=1, **policy)
        with pytest.raises(ConfigError):
            netchan.pipe(capacity=1, **policy)
        near, far = joined()
        with pytest.raises(ConfigError):
            near.open("x", Any, 1, **policy)
        for side in (near, far):
            side.session.close(0)

    @pytest.mark.parametrize("policy", [{"overflow": "drop_old"}, {"overflow": "disconnect"}, {"ttl": 1}])
    def test_policy_needs_a_place(self, policy: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            netchan.channel(**policy)
        assert netchan.channel(overflow="block").capacity == 0
