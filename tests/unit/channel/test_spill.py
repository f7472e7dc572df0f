"""Channels that spill to disk, in process and across a session, on every front (docs/spec/channel-end.md §8.1)."""

# ruff: noqa: N805 - the decorator adds self

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan.channel import spool
from netchan.channel.overflow import spill
from netchan.errors import (
    ChannelAborted,
    ChannelClosed,
    ChannelEnded,
    Code,
    CodecError,
    ConfigError,
    MessageTooLarge,
    SpillError,
    WouldBlock,
)
from netchan.testing.pair import joined
from tests.unit.channel.harness import GIVEN_UP, Front, until
from tests.unit.channel.test_conformance import program
from tests.unit.channel.test_overflow import PLACES, make

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=[f for f, _ in PLACES], ids=[n for _, n in PLACES])
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    yield request.param
    request.param.end_all()


@pytest.fixture
def policy(tmp_path: Path) -> dict[str, Any]:
    """A small file: 4 096 bytes, so about a hundred small values."""
    return {"overflow": spill(tmp_path, 4096)}


@pytest.fixture
def large(tmp_path: Path) -> dict[str, Any]:
    return {"overflow": spill(tmp_path, 1 << 20)}


async def fill(near: Any) -> list[bytes]:
    """Send until nothing is accepted any more."""
    sent: list[bytes] = []
    while True:
        value = b"%d" % len(sent) + b"." * 600
        try:
            near.send_nowait(value)
        except WouldBlock:
            return sent
        sent.append(value)


class TestOrder:
    @program
    async def test_no_send_waits_and_nothing_is_lost(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 3, **large)
        for n in range(50):
            await front.do(near, "send", n)
        near.send_nowait(50)
        assert await front.do(near, "send_many", list(range(51, 200))) == 149
        assert await front.do(near, "send_many", iter(range(200, 300))) == 100
        assert near.stats().sent == 300 and 0 < near.stats().on_disk <= near.stats().spilled
        near.close()
        assert await front.drain(far) == list(range(300))
        stats = near.stats()
        assert stats.on_disk == stats.on_disk_bytes == stats.dropped == 0 and far.stats().taken == 300
        assert stats.spilled_bytes > 36 * stats.spilled > 36 * 100

    @program
    async def test_channel_that_is_received_from_goes_on_for_ever(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 2, **policy)
        sent = taken = 0
        for _ in range(40):
            for _ in range(20):
                await front.do(near, "send", sent)
                sent += 1
            for _ in range(20):
                assert await front.do(far, "recv") == taken
                taken += 1
        assert near.stats().sent == sent == 800 and near.stats().spilled > 100
        await until(lambda: near.stats().on_disk == 0)

    @program
    async def test_room_in_memory_is_used_first(front: Front, policy: dict[str, Any], tmp_path: Path) -> None:
        near, far = await make(front, 4, **policy)
        for n in range(4):
            await front.do(near, "send", n)
        assert near.stats().spilled == 0
        near.close()
        assert await front.drain(far) == [0, 1, 2, 3]

    @program
    async def test_full_file_makes_the_sender_wait(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 2, **policy)
        sent = await fill(near)
        before = near.stats()
        assert before.on_disk_bytes > 4096 - 650 and before.on_disk == len(sent) - 2
        waiting = front.start(near, "send", b"last")
        second = front.start(near, "send", b"x" * 600)
        await until(lambda: near.stats().senders_waiting == 2 or waiting.done())
        if not waiting.done():  # the short one may just have had room
            assert await front.do(far, "recv") == sent.pop(0)
        while not second.done():
            await front.do(far, "recv")
            sent.pop(0)
            await asyncio.sleep(0.01)
        await waiting
        near.close()
        rest = await front.drain(far)
        assert rest[: len(sent)] == sent and sorted(rest[len(sent) :]) == [b"last", b"x" * 600]

    @program
    async def test_file_is_filled_to_the_last_byte_and_no_further(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 1, type=bytes, **policy)
        await front.do(near, "send_many", [b"in memory", b"x" * 3000])
        left = 4096 - near.stats().on_disk_bytes - 36
        assert left == 1024
        with pytest.raises(WouldBlock):
            near.send_nowait(bytes(left + 1))
        near.send_nowait(bytes(left))
        assert near.stats().on_disk_bytes == 4096
        with pytest.raises(WouldBlock):
            near.send_nowait(b"")
        near.close()
        assert await front.drain(far) == [b"in memory", b"x" * 3000, bytes(left)]

    @program
    async def test_waiting_sender_goes_on_when_one_value_has_left_the_file(
        front: Front, policy: dict[str, Any]
    ) -> None:
        near, far = await make(front, 1, type=bytes, **policy)
        values = [bytes([n]) * 1200 for n in range(6)]
        await front.do(near, "send_many", values[:4])
        waiting = []
        for value in values[4:]:
            waiting.append(front.start(near, "send", value))
            await until(lambda: near.stats().senders_waiting == len(waiting))
        for n in range(2):
            assert await front.do(far, "recv") == values[n]
            await waiting[n]
        near.close()
        assert await front.drain(far) == values[2:]

    @program
    async def test_waiting_sender_gives_up_and_has_not_sent(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 2, **policy)
        sent = await fill(near)
        gave = await front.give_up(near, "send", b"x" * 600, once=lambda: near.stats().senders_waiting == 1)
        assert gave is GIVEN_UP and near.stats().senders_waiting == 0 and near.stats().sent == len(sent)
        items = iter([b"a" * 600, b"b" * 600])
        assert await front.give_up(near, "send_many", items, once=lambda: near.stats().senders_waiting == 1) is GIVEN_UP
        left = list(items)
        near.close()
        assert await front.drain(far) == sent + [b"a" * 600][: 2 - len(left)]

    @program
    async def test_several_senders_each_keep_their_order(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 3, **large)
        senders = [near.split()[0] for _ in range(4)]
        clone = senders[0].clone()
        senders.append(clone)

        async def send(k: int, tx: Any) -> None:
            for n in range(60):
                await front.do(tx, "send", [k, n])
            tx.close()

        draining = asyncio.create_task(front.drain(far))
        await asyncio.gather(*(send(k, tx) for k, tx in enumerate(senders)))
        got = await draining
        assert len(got) == 300
        for k in range(5):
            assert [n for who, n in got if who == k] == list(range(60))

    @program
    async def test_value_is_a_copy_and_may_be_changed_after_the_call(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        value = {"n": [1]}
        for n in range(5):
            value["n"][0] = n
            await front.do(near, "send", value)
        near.close()
        got = await front.drain(far)
        assert got == [{"n": [n]} for n in range(5)] and all(one is not value for one in got)


class TestProgress:
    @program
    async def test_deliver_waits_for_a_value_on_disk(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 2, **large)
        for n in range(10):
            await front.do(near, "send", n)
        delivering = front.start(near, "deliver", 10)
        flushing = front.start(near, "flush", "taken")
        await asyncio.sleep(0.02)
        for n in range(10):
            assert not delivering.done()
            assert await front.do(far, "recv") == n
        assert await front.do(far, "recv") == 10
        await delivering
        await flushing

    @program
    async def test_flush_returns_once_all_has_arrived(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 2, **large)
        await front.do(near, "send_many", list(range(40)))
        flushing = front.start(near, "flush", "received")
        await asyncio.sleep(0.02)
        if front.remote:
            assert not flushing.done(), "38 of them are on this side's disk"
        got = [await front.do(far, "recv") for _ in range(39)]
        await flushing
        assert [*got, await front.do(far, "recv")] == list(range(40))

    @program
    async def test_flush_of_what_is_on_disk_is_told_of_the_last_value(front: Front, large: dict[str, Any]) -> None:
        """Positions are reported now and then; who waits for one is told at once, also if it left the disk later."""
        near, far = await make(front, 64, **large)
        await front.do(near, "send_many", list(range(100)))
        flushing = front.start(near, "flush", "taken")
        await asyncio.sleep(0.02)
        for n in range(100):
            assert await front.do(far, "recv") == n
        await flushing

    @program
    async def test_pending_and_recv_many(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 4, **large)
        await front.do(near, "send_many", list(range(20)))
        if front.remote:
            await until(lambda: far.pending == 4)
            assert near.stats().on_disk == 16
        else:
            assert far.pending == 20 == far.stats().pending
        assert await front.do(far, "recv_many", 10, min=4) == list(range(4))
        await until(lambda: near.stats().on_disk == 12)
        got: list[int] = []
        while len(got) < 16:
            got += await front.do(far, "recv_many", 10)
        assert got == list(range(4, 20)) and far.pending == 0

    @program
    async def test_select_sends_and_spills(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        op = near.send_op(0)
        for n in range(10):
            assert await front.do(None, "select", op.set(n)) is op
        assert near.stats().spilled >= 8
        near.close()
        assert await front.drain(far) == list(range(10))

    @program
    async def test_select_waits_while_the_file_is_full(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 1, **policy)
        sent = await fill(near)
        selecting = front.start(None, "select", near.send_op(b"x" * 600))
        await until(lambda: near.stats().senders_waiting == 1)
        assert await front.do(far, "recv") == sent[0]
        while not selecting.done():
            await front.do(far, "recv")
            await asyncio.sleep(0.01)
        await selecting
        near.close()
        assert (await front.drain(far))[-1] == b"x" * 600


class TestPermits:
    @program
    async def test_reserve_finds_room_where_send_does(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 2, **large)
        for n in range(6):
            context, permit = await front.enter(near.reserve())
            permit.send(n)
            await front.leave(context)
        near.close()
        assert await front.drain(far) == list(range(6))

    @program
    async def test_permit_never_waits_and_its_value_keeps_its_turn(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 2, **policy)
        context, permit = await front.enter(near.reserve())
        sent = await fill(near)
        permit.send(b"permitted" * 100)
        await front.leave(context)
        with pytest.raises(WouldBlock):
            near.send_nowait(b"")
        assert near.stats().sent == len(sent) + 1 and near.stats().on_disk == len(sent) - 2
        assert near.stats().on_disk_bytes <= 4096
        near.close()
        assert await front.drain(far) == [*sent, b"permitted" * 100]

    @program
    async def test_as_many_permits_as_the_capacity(front: Front, policy: dict[str, Any]) -> None:
        near, _ = await make(front, 2, **policy)
        first, _one = await front.enter(near.reserve())
        _second, _two = await front.enter(near.reserve())
        third = front.start(None, "enter", near.reserve())
        await until(lambda: near.stats().senders_waiting == 1)
        assert not third.done()
        await front.leave(first)
        (await third).release()

    @program
    async def test_permit_of_a_closed_direction_raises(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        _, permit = await front.enter(near.reserve())
        await front.do(near, "send_many", [1, 2, 3])
        near.close()
        with pytest.raises(ChannelClosed):
            permit.send(4)
        assert await front.drain(far) == [1, 2, 3]


class TestEnds:
    @program
    async def test_close_comes_behind_what_is_on_disk(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        await front.do(near, "send_many", list(range(30)))
        near.close()
        near.close()
        for verb in ("send", "deliver"):
            with pytest.raises(ChannelClosed):
                await front.do(near, verb, 1)
        with pytest.raises(ChannelClosed):
            near.send_nowait(1)
        with pytest.raises(ChannelClosed):
            await front.enter(near.reserve())
        items = iter([1, 2])
        with pytest.raises(ChannelClosed):
            await front.do(near, "send_many", items)
        assert list(items) == [1, 2]
        assert [await front.do(far, "recv") for _ in range(30)] == list(range(30))
        with pytest.raises(ChannelEnded):
            await front.do(far, "recv")

    @program
    async def test_close_ends_a_sender_that_waits(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 1, **policy)
        sent = await fill(near)
        waiting = front.start(near, "send", b"x" * 600)
        await until(lambda: near.stats().senders_waiting == 1)
        near.close()
        with pytest.raises(ChannelClosed):
            await waiting
        assert await front.drain(far) == sent

    @program
    async def test_block_left_by_an_exception_aborts_behind_the_values(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        await front.do(near, "send_many", list(range(10)))
        near._ep.close_unclean()
        assert [await front.do(far, "recv") for _ in range(10)] == list(range(10))
        with pytest.raises(ChannelAborted) as caught:
            await front.do(far, "recv")
        assert caught.value.code == Code.LEFT_BY_EXCEPTION

    @program
    async def test_abort_throws_the_file_away(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        await front.do(near, "send_many", list(range(100)))
        near.abort(7, "enough")
        with pytest.raises(ChannelAborted) as caught:
            while True:
                await front.do(far, "recv")
        assert caught.value.code == 7
        await until(lambda: near.stats().on_disk == 0)
        with pytest.raises(ChannelAborted):
            await front.do(near, "send", 1)

    @program
    async def test_stop_throws_the_file_away(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        await front.do(near, "send_many", list(range(100)))
        far.stop()
        with pytest.raises(ChannelClosed):
            for _ in range(1000):
                await front.do(near, "send", 1)
                await asyncio.sleep(0.001)
        await until(lambda: near.stats().on_disk == 0)
        if not front.remote:
            assert near.stats().discarded == near.stats().sent and near.stats().pending == 0

    @program
    async def test_ttl_counts_from_acceptance(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, ttl=0.15, **large)
        await front.do(near, "send_many", list(range(10)))
        await asyncio.sleep(0.2)
        receiving = front.start(far, "recv")
        await front.do(near, "send", "young")
        assert await receiving == "young"
        await until(lambda: max(near.stats().dropped, far.stats().dropped) == 10)
        with pytest.raises(ConfigError, match="may drop it"):
            near.deliver(1)


class TestFaults:
    @program
    async def test_full_disk_is_told_and_the_channel_goes_on(
        front: Front, large: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        near, far = await make(front, 1, **large)
        await front.do(near, "send_many", [0, 1, 2])
        await until(lambda: near.stats().spilled >= 1)
        with monkeypatch.context() as patch:
            patch.setattr(spool.os, "pwritev", full)
            for verb, value in (("send", 3), ("deliver", 3)):
                with pytest.raises(SpillError, match="No space") as caught:
                    await front.do(near, verb, value)
                assert caught.value.errno == errno.ENOSPC
            with pytest.raises(SpillError):
                near.send_nowait(3)
            with pytest.raises(SpillError):
                await front.do(None, "select", near.send_op(3))
            assert near.stats().sent == 3
            items = iter([3, 4, 5])
            with pytest.raises(SpillError):
                await front.do(near, "send_many", items)
            assert list(items) == [4, 5] and near.stats().sent == 4, "the one that it had fetched is accepted"
            waiting = front.start(near, "send", 4)
            await until(lambda: near.stats().senders_waiting == 1)
        assert [await front.do(far, "recv") for _ in range(4)] == [0, 1, 2, 3]
        await waiting
        await front.do(near, "send_many", [5, 6, 7])
        near.close()
        assert await front.drain(far) == [4, 5, 6, 7]

    @program
    async def test_what_cannot_be_read_back_ends_the_channel(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, **large)
        await front.do(near, "send_many", list(range(10)))
        near.close()
        backlog = near._ep.tx.backlog if not front.remote else near._ep._backlog
        file = backlog.spool
        at = (file._at + 3 * (1 + spool.OVERHEAD)) % file.max_bytes
        os.pwrite(file._fd, b"?" * 40, at)
        got = []
        with pytest.raises(ChannelAborted, match="on disk") as caught:
            while True:
                got.append(await front.do(far, "recv"))
        assert caught.value.code == Code.DROPPED
        assert got == list(range(len(got))) and len(got) < 8
        await until(lambda: near.stats().on_disk == 0)

    @program
    async def test_value_that_can_never_fit_is_refused_at_the_call(front: Front, policy: dict[str, Any]) -> None:
        near, far = await make(front, 8, **policy)
        for call in (near.send, near.send_nowait, near.send_op, near.deliver):
            with pytest.raises(MessageTooLarge):
                call(bytes(4096))
        with pytest.raises(MessageTooLarge):
            await front.do(near, "send_many", [bytes(4096)])
        await front.do(near, "send", bytes(4000))
        assert await front.do(far, "recv") == bytes(4000)

    @program
    async def test_channels_in_values_are_refused(front: Front, policy: dict[str, Any]) -> None:
        near, _ = await make(front, 8, **policy)
        with pytest.raises(CodecError, match="carries no channels"):
            near.send({"reply": netchan.channel()})

    @program
    async def test_value_without_a_codec_is_refused(front: Front, policy: dict[str, Any]) -> None:
        near, _ = await make(front, 8, **policy)
        with pytest.raises(CodecError):
            near.send(object())


class TestTypes:
    @program
    async def test_bytes_are_taken_into_a_buffer(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, type=bytes, **large)
        for n in range(5):
            await front.do(near, "send", memoryview(b"value %d" % n))
        buffer = bytearray(16)
        for n in range(5):
            assert await front.do(far, "recv_into", buffer) == 7 and bytes(buffer[:7]) == b"value %d" % n

    @program
    async def test_type_is_looked_at_by_the_call(front: Front, large: dict[str, Any]) -> None:
        near, far = await make(front, 1, type=int, **large)
        with pytest.raises(CodecError):
            near.send("seven")
        await front.do(near, "send_many", [1, 2, 3])
        near.close()
        assert await front.drain(far) == [1, 2, 3]


class TestArguments:
    def test_policy_needs_a_place(self, policy: dict[str, Any]) -> None:
        for call in (netchan.channel, netchan.pipe):
            with pytest.raises(ConfigError, match="at least 1"):
                call(**policy)
        near, far = joined()
        with pytest.raises(ConfigError, match="at least 1"):
            near.open("x", Any, 0, **policy)
        for side in (near, far):
            side.session.close(0)

    def test_channel_that_nobody_receives_from_leaves_nothing(self, tmp_path: Path) -> None:
        def open_files() -> list[str]:
            found = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    found.append(os.readlink(f"/proc/self/fd/{fd}"))
                except OSError:
                    pass  # the one that was listed with
            return [name for name in found if name.startswith(str(tmp_path))]

        channel = netchan.channel(int, capacity=1, overflow=spill(tmp_path, 1 << 20))
        for n in range(1000):
            channel.send_nowait(n)
        assert len(open_files()) == 1 and "deleted" in open_files()[0] and not list(tmp_path.iterdir())
        channel.close()
        del channel
        assert not open_files()

    def test_representation_and_stats_of_both_ends_from_two_threads(self, tmp_path: Path) -> None:
        near, far = netchan.pipe(int, capacity=1, overflow=spill(tmp_path, 1 << 20))
        for end in (near, far):
            for n in range(50):
                end.send_nowait(n)

        async def look() -> None:
            def many(end: Any) -> None:
                for _ in range(300):
                    assert end.stats().on_disk == 49 and "pending=50/1" in repr(end)

            async with asyncio.timeout(20):
                await asyncio.gather(*(asyncio.to_thread(many, end) for end in (near, far, near, far)))

        asyncio.run(look())
        near.abort()


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
