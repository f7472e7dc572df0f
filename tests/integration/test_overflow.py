"""Directions that may lose values, with real engines and threads (docs/spec/session.md §4.2, channel-end.md §8)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan._engine.engine_handle import Engine
from netchan.errors import ChannelEnded
from netchan.sync import fronts
from netchan.testing.pair import Side, joined

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    """Two sessions, each driven by whoever calls, and by its guardian."""
    pair = joined(engines=(Engine("caller"), Engine("caller")))
    yield pair
    for side in pair:
        side.session.close(0)


def opened(sides: tuple[Side, Side], type: Any, capacity: int, **policy: Any) -> tuple[Any, Any]:
    near = fronts.Channel(sides[0].open("x", type, capacity, **policy))
    far = fronts.Channel(sides[1].open("x", type))
    end = time.monotonic() + 10
    while not (near._ep.paired and far._ep.paired):
        assert time.monotonic() < end
        time.sleep(0.001)
    return near, far


def test_program_that_only_sends_still_reads(sides: tuple[Side, Side]) -> None:
    """R7: a send that never waits never looks at the carrier, so the guardian does."""
    near, far = opened(sides, int, 4, overflow="latest")
    end = time.monotonic() + 10.0
    n = 0
    while near._ep.positions()["max_bytes"] <= 200_000:
        assert time.monotonic() < end, near._ep.positions()
        near.send(n)
        n += 1
    near.abort()
    far.abort()


@pytest.mark.parametrize(
    "policy", [{"overflow": "drop_old"}, {"overflow": "latest"}, {"overflow": "drop_old", "ttl": 0.002}]
)
def test_values_are_whole_and_in_order_while_they_are_pushed_out(
    sides: tuple[Side, Side], policy: dict[str, Any]
) -> None:
    """The sender drops what the engine is about to seal, the engine what the receiver is about to copy."""
    near, far = opened(sides, bytes, 4, **policy)
    seconds, wrong = 1.5, []
    taken = 0

    def receive() -> None:
        nonlocal taken
        last = -1
        try:
            for value in far:
                number, size = int(value[:10]), int(value[10:20])
                if len(value) != size or value[20:] != bytes([number % 251]) * (size - 20) or number <= last:
                    wrong.append((number, last, size, len(value)))
                last = number
                taken += 1
        except BaseException as error:
            wrong.append(error)

    reader = threading.Thread(target=receive)
    reader.start()
    end = time.monotonic() + seconds
    number = 0
    sizes = (20, 100, 3000, 40, 70_000, 500, 20_000)
    while time.monotonic() < end:
        size = sizes[number % len(sizes)]
        near.send(b"%010d%010d" % (number, size) + bytes([number % 251]) * (size - 20))
        number += 1
    near.close()
    reader.join(20)
    assert not reader.is_alive() and not wrong, wrong[:3]
    there = far.stats()
    assert taken == there.taken > 50
    assert there.taken + there.dropped == number, (there, near.stats())


def test_stopped_subscriber_costs_the_others_nothing() -> None:
    async def main() -> None:
        async with netchan.listen("tcp://127.0.0.1:0", trust="any") as listener:
            address = listener.addresses[0]
            clients = await asyncio.gather(*(netchan.dial(address, trust="any") for _ in range(20)))
            peers = [await listener.recv() for _ in clients]
            feeds = [peer.open("ticks", int, capacity=8, overflow="drop_old") for peer in peers]
            subscribed = [client.open("ticks", int) for client in clients]
            slow, *fast = subscribed
            got: list[list[int]] = [[] for _ in fast]

            async def follow(channel: Any, into: list[int]) -> None:
                async for value in channel:
                    into.append(value)

            async with asyncio.TaskGroup() as group:
                for channel, into in zip(fast, got, strict=True):
                    group.create_task(follow(channel, into))
                for tick in range(400):
                    for feed in feeds:
                        feed.send_nowait(tick)
                    await asyncio.sleep(0.001)
                for feed in feeds:
                    feed.close()
            assert all(into == list(range(400)) for into in got), [len(into) for into in got]
            assert [value async for value in slow] == list(range(392, 400))
            assert slow.stats().dropped == 392
            for client in clients:
                await client.aclose()

    asyncio.run(main())


def test_report_of_a_lost_session_names_only_what_is_left() -> None:
    async def main() -> None:
        async with netchan.listen("tcp://127.0.0.1:0", trust="any") as listener:
            client = await netchan.dial(listener.addresses[0], trust="any")
            peer = await listener.recv()
            near = client.open("x", int, capacity=3, overflow="drop_old")
            await near.send(0)
            await near.flush()
            for n in range(1, 10):
                near.send_nowait(n)
            peer._core.leave_by_exception()
            await client.wait_closed()
            with pytest.raises(netchan.ChannelError) as caught:
                await near.send(99)
            if isinstance(caught.value, netchan.SessionLost):
                assert all(value in range(1, 10) for value in caught.value.undelivered)
                assert len(caught.value.undelivered) <= 3

    asyncio.run(main())


def test_drained_end_of_a_direction_that_lost_values_is_an_end(sides: tuple[Side, Side]) -> None:
    near, far = opened(sides, int, 2, overflow="drop_old", ttl=0.01)
    for n in range(50):
        near.send(n)
    near.close()
    time.sleep(0.05)
    with pytest.raises(ChannelEnded):
        while True:
            far.recv(timeout=5)


def test_report_of_a_lost_session_has_every_value_though_the_policy_came_later(sides: tuple[Side, Side]) -> None:
    """Values that were accepted before the other side said its policy lie together, later ones apart."""
    near_side, far_side = sides
    near = fronts.Channel(near_side.open("x", bytes, 50))
    values = [b"early", b"", b"x" * 700, b"y" * 40_000]
    for value in values:
        near.send(value)
    far = fronts.Channel(far_side.open("x", bytes, 50, "drop_old", ttl=60))
    end = time.monotonic() + 10
    while not (near._ep.paired and far._ep.paired):
        assert time.monotonic() < end
        time.sleep(0.001)
    assert near._ep.lossy
    values += [b"late", b"z" * 50_000, b"last"]
    for value in values[4:]:
        near.send(value)
    far_side.session.close(4)
    while not near._ep.send_over:
        assert time.monotonic() < end
        time.sleep(0.001)
    with pytest.raises(netchan.SessionLost) as caught:
        near.send(b"no more")
    lost = caught.value
    told = {doubt.number for doubt in lost.in_doubt}
    assert told | set(range(len(values) - len(lost.undelivered), len(values))) == set(range(len(values)))
    for doubt in lost.in_doubt:
        with contextlib.suppress(LookupError):
            assert doubt.value == values[doubt.number]
    assert list(lost.undelivered) == values[len(values) - len(lost.undelivered) :]


class TestAcceptedByIterating:
    """The channel was opened when iteration gave it, without a policy; a later ``open`` of the name may give one."""

    @staticmethod
    @contextlib.asynccontextmanager
    async def accepted(capacity: int | None, **policy: Any) -> AsyncIterator[tuple[Any, Any, Any]]:
        """(our peer, our end, the end over there)."""
        async with (
            netchan.listen("tcp://127.0.0.1:0", trust="any") as listener,
            netchan.dial(listener.addresses[0], trust="any") as client,
        ):
            far = client.open("feed", int, capacity=capacity, **policy)
            peer = await listener.recv()
            yield peer, await anext(aiter(peer)), far

    def test_policy_of_this_side_alone_can_be_given_later(self) -> None:
        async def main() -> None:
            async with self.accepted(3) as (peer, near, far):
                for n in range(3):
                    await near.send(n)
                waiting = asyncio.create_task(near.send(3))
                await asyncio.sleep(0.01)
                assert not waiting.done()
                assert peer.open("feed", int, overflow="drop_new") == near
                await asyncio.wait_for(waiting, 10)  # a sender that waited for room drops its value
                near.send_nowait(4)
                assert near.stats().dropped == 2 and near.stats().sent == 3
                assert peer.open("feed", overflow="drop_new") == near == peer.open("feed")
                with pytest.raises(netchan.ConfigError, match="another overflow"):
                    peer.open("feed", overflow="block")
                with pytest.raises(netchan.ConfigError, match="may drop"):
                    near.deliver(1)
                near.close()
                assert [n async for n in far] == [0, 1, 2]

        asyncio.run(main())

    def test_receiver_that_does_not_keep_up_can_be_cut_off(self) -> None:
        async def main() -> None:
            async with self.accepted(1) as (peer, near, far):
                near.send_nowait(0)
                peer.open("feed", overflow="disconnect")
                with pytest.raises(netchan.ChannelAborted, match="did not keep up"):
                    near.send_nowait(1)
                with pytest.raises(netchan.ChannelAborted):
                    while True:
                        await far.recv()

        asyncio.run(main())

    @pytest.mark.parametrize(
        "policy", [{"overflow": "drop_old"}, {"overflow": "latest"}, {"ttl": 1}, {"overflow": ...}]
    )
    def test_what_the_other_side_would_have_to_know_is_refused(self, policy: dict[str, Any], tmp_path: Path) -> None:
        async def main() -> None:
            async with self.accepted(1) as (peer, near, far):
                given = {"overflow": netchan.spill(tmp_path, 1 << 20)} if policy.get("overflow") is ... else policy
                with pytest.raises(netchan.ConfigError, match="before it was given"):
                    peer.open("feed", int, **given)
                near.send_nowait(0)
                with pytest.raises(netchan.WouldBlock):
                    near.send_nowait(1)
                assert peer.open("feed", int, overflow="block") == near and await far.recv() == 0

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("capacity", "theirs"), [(0, {}), (4, {"overflow": "drop_old"}), (4, {"overflow": "latest"})]
    )
    def test_rendezvous_and_what_the_other_side_has_said_stay(self, capacity: int, theirs: dict[str, Any]) -> None:
        async def main() -> None:
            async with self.accepted(capacity, **theirs) as (peer, near, _far):
                with pytest.raises(netchan.ConfigError, match="before it was given"):
                    peer.open("feed", overflow="drop_new")
                assert near._ep.lossy == bool(theirs)

        asyncio.run(main())

    def test_open_that_is_refused_for_its_type_gives_no_policy(self) -> None:
        async def main() -> None:
            async with self.accepted(1) as (peer, near, _far):
                with pytest.raises(netchan.ConfigError, match="open with type"):
                    peer.open("feed", bytes, overflow="drop_new")
                near.send_nowait(0)
                with pytest.raises(netchan.WouldBlock):
                    near.send_nowait(1)

        asyncio.run(main())
