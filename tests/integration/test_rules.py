"""What a user may rely on for a channel across a session: opening, values, capacity, sending and receiving.

Each test is named after the rule it proves; tests/rules.py lists them. Ending and leaving are in test_ending.py,
progress in test_progress.py, cancellation in test_cancellation.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import itertools
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest

import netchan
from netchan import ChannelAborted, Code, CodecError, Config, ConfigError
from tests import rules
from tests.integration.kit import BOSS, KEY, TCP, fill, joined, listening, program, session, until

SETTLED = 0.05
"""Seconds in which what must not happen could have happened many times over."""


def test_every_rule_has_a_test() -> None:
    found = rules.collect()
    assert [number for number in rules.RULES if not found[number] and number not in rules.LATER] == []


# --- objects and calls -----------------------------------------------------------------------------------------------


@program
async def test_r1_split_gives_both_halves_and_keeps_the_channel() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        tx, rx = there.split()
        assert isinstance(there, netchan.Sender)
        assert isinstance(there, netchan.Receiver)
        await tx.send(1)
        await there.send(2)
        assert [await here.recv(), await here.recv()] == [1, 2]
        await here.send(3)
        assert await rx.recv() == 3


@program
async def test_r3_values_are_copies_and_mutation_after_send_is_not_seen() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", Any)
        value = {"list": [1, 2]}
        buffer = bytearray(b"before")
        await there.send(value)
        await there.send(buffer)
        value["list"].append(3)
        buffer[:] = b"after!"
        assert await here.recv() == {"list": [1, 2]}
        assert await here.recv() == b"before"


@program
async def test_r3_attributes_say_name_peer_capacity_pending_closed_and_stats() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 5)
        assert (there.name, there.peer, there.capacity, there.closed) == ("x", near, 5, False)
        await there.send_many([1, 2, 3])
        await there.flush()
        assert (here.pending, here.peer) == (3, far)
        stats = here.stats()
        assert (stats.received, stats.taken, stats.pending, there.stats().sent) == (3, 0, 3, 3)
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.sent = 1  # type: ignore[misc]
        back, other = await joined(far, near, "y", int, 5)
        await back.send(4)
        assert await other.recv() == 4
        for peer, sent, received in ((near, 3, 1), (far, 1, 3)):
            counts = peer.stats()
            assert (counts["messages_sent"], counts["messages_received"]) == (sent, received)


@program
async def test_r4_async_methods_give_coroutines_that_do_nothing_before_their_first_step() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        calls = [there.send(1), there.flush(), here.recv(), here.recv_many(), near.aclose(), near.wait_closed()]
        for call in calls:
            assert isinstance(call, Coroutine)
            assert inspect.iscoroutine(call)
        for call in calls:
            call.close()
        await asyncio.sleep(SETTLED)
        assert there.stats().sent == 0
        with pytest.warns(RuntimeWarning, match="never awaited"):
            there.send(1)
            gc.collect()
        await asyncio.gather(there.send(1), asyncio.wait_for(there.send(2), 5))
        async with asyncio.TaskGroup() as group:
            got = group.create_task(here.recv_many(2, min=2))
        assert got.result() == [1, 2]


@program
async def test_r5_ready_calls_let_others_run_and_a_pending_cancellation_through() -> None:
    async with session() as (near, far):
        there, _here = await joined(near, far, "x", int, 100_000)
        done = 0

        async def busy() -> None:
            nonlocal done
            while done < 50_000:
                await there.send(done)
                done += 1

        task = asyncio.create_task(busy())
        for _ in range(50):
            before = done
            await asyncio.sleep(0)
            assert done - before <= 128
        assert done > 500
        before = done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done - before <= 128


@program
async def test_r6_wrong_arguments_raise_from_the_call() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        with pytest.raises(CodecError):
            there.send("text")
        with pytest.raises(CodecError):
            there.deliver(1.5)
        with pytest.raises(TypeError):
            there.send_many(3)
        with pytest.raises(ConfigError):
            there.flush("gone")
        with pytest.raises(ConfigError):
            here.recv_many(0)
        with pytest.raises(ConfigError):
            there.abort(-1)
        with pytest.raises(TypeError):
            here.recv_into(b"read only")
        await there.send(2**63)
        assert await here.recv() == 2**63


# --- opening by name -------------------------------------------------------------------------------------------------


@program
async def test_r8_open_announces_the_name_at_once() -> None:
    async with session() as (near, far):
        opened = [near.open(name, bytes) for name in ("a", "ä" * 127, "x" * 255)]
        offered = [await anext(far) for _ in opened]
        assert [channel.name for channel in offered] == ["a", "ä" * 127, "x" * 255]


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128, "a\0", "a\n", "\x9f", "netchan.x", b"x", None])
@program
async def test_r8_other_names_are_config_errors(name: Any) -> None:
    async with session() as (near, _far):
        with pytest.raises(ConfigError):
            near.open(name)


@program
async def test_r9_kth_pairs_with_kth_whoever_is_first_and_when_opens_cross() -> None:
    async with session() as (near, far):
        for ahead, behind in ((near, far), (far, near)):
            ends = []
            for n in range(10):
                end = ahead.open("ahead", int)
                await end.send(n)
                end.close()
                ends.append(end)
            for n in range(10):
                end = behind.open("ahead", int)
                assert [v async for v in end] == [n]
                end.close()
        for n in range(50):  # both at once, without a step of the loop in between
            left, right = near.open("cross", int), far.open("cross", int)
            assert left != right
            await asyncio.gather(left.send(n), right.send(-n))
            assert (await left.recv(), await right.recv()) == (-n, n)
            left.close(), right.close()


@program
async def test_r10_bound_name_is_the_same_channel_until_closed_aborted_or_its_end_was_taken() -> None:
    async with session() as (near, far):
        for n, ending in enumerate(("close", "abort", "their end", "their abort")):
            name = f"n{n}"
            first, here = await joined(near, far, name)
            again = near.open(name, int)
            assert again == first
            assert hash(again) == hash(first)
            for options in ({"type": str}, {"type": int, "capacity": 7}):
                with pytest.raises(ConfigError, match="open with"):
                    near.open(name, **options)
            if ending == "close":
                first.close()
            elif ending == "abort":
                first.abort(1)
            elif ending == "their end":
                here.close()
                with pytest.raises(netchan.ChannelEnded):
                    await first.recv()
            else:
                here.abort(1)
                with pytest.raises(ChannelAborted):
                    await first.recv()
            second = near.open(name, int)
            assert second != first
            assert again == first
            second.close()
            if ending == "close":
                await here.send(9)  # old handles keep working
                assert await first.recv() == 9
                first.stop()


# --- types -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Job:
    number: int
    name: str


@pytest.mark.parametrize(
    ("form", "value", "bad"),
    [
        (bytes, b"\0\xff", "text"),
        (str, "ä", b"x"),
        (int, -(2**63), 2**64),
        (float, 1.5, "1.5"),
        (bool, True, 1),
        (Job, Job(3, "x"), Job("3", "x")),  # type: ignore[arg-type]
        (list[int], [1, 2], ["1"]),
    ],
    ids=str,
)
@program
async def test_r11_type_is_checked_at_the_sender_before_anything_waits(form: Any, value: Any, bad: Any) -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", form, 1)
        with pytest.raises(CodecError):
            there.send(bad)
        await there.send(value)
        got = await here.recv()
        assert (got, type(got)) == (value, type(value))


@program
async def test_r11_bytes_takes_any_contiguous_buffer_and_gives_bytes() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", bytes)
        for value in (b"", bytearray(b"ab"), memoryview(b"abc"), memoryview(b"abcdefgh").cast("I"), b"x" * 300_000):
            await there.send(value)
            got = await here.recv()
            assert type(got) is bytes
            assert got == bytes(value)
        with pytest.raises(CodecError):
            there.send(memoryview(b"abcd")[::2])


@program
async def test_r12_untyped_takes_its_domain_and_nothing_else() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", Any)
        deep: Any = []
        for _ in range(31):
            deep = [deep]
        good = [None, True, -(2**63), 2**64 - 1, 1.5, "ä", b"b", [1, [2]], {"k": 1, b"b": 2, 3: None}, deep]
        for value in good:
            await there.send(value)
            assert await here.recv() == value
        await there.send((1, (2,)))
        assert await here.recv() == [1, [2]]
        for bad in (object(), {1, 2}, 2**64, -(2**63) - 1, 1j, {1.5: 1}, [deep]):
            with pytest.raises(CodecError):
                there.send(bad)


@pytest.mark.parametrize(
    ("mine", "theirs", "fits"),
    [(int, int, True), (int, str, False), (bytes, str, False), (bytes, Any, False), (Any, int, True), (str, Any, True)],
    ids=str,
)
@program
async def test_r13_types_that_do_not_fit_abort_both_ends(mine: Any, theirs: Any, fits: bool) -> None:
    async with session() as (near, far):
        there, here = near.open("x", mine), far.open("x", theirs)
        if fits:
            value = "v" if str in (mine, theirs) else 3
            await there.send(value)
            assert await here.recv() == value
            return
        texts = []
        for end in (there, here):
            with pytest.raises(ChannelAborted) as caught:
                await end.recv()
            assert caught.value.code == Code.TYPE_MISMATCH
            texts.append(str(caught.value))
            await until(lambda end=end: end._ep.send_over)  # type: ignore[misc]
            with pytest.raises(ChannelAborted):
                await end.send({bytes: b"x", int: 1, str: "x", Any: 1}[end._ep.type])
            with pytest.raises(ChannelAborted):
                await end.recv_many()
        for text in texts:
            for form in (mine, theirs):
                assert getattr(form, "__name__", "Any") in text, text


# --- capacity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["near first", "far first", "crossing"])
@pytest.mark.parametrize(
    ("mine", "theirs", "holds"), [(None, None, 1024), (None, 5, 5), (5, None, 5), (3, 8, 3), (8, 3, 3), (1, 1, 1)]
)
@program
async def test_r14_capacity_is_the_smaller_figure_for_both(
    mine: int | None, theirs: int | None, holds: int, order: str
) -> None:
    async with session() as (near, far):
        if order == "far first":
            here = far.open("x", int, capacity=theirs)
            await until(lambda: near._core.session.stats()["offered"] > 0)
            there = near.open("x", int, capacity=mine)
        else:
            there = near.open("x", int, capacity=mine)
            if order == "near first":
                await until(lambda: far._core.session.stats()["offered"] > 0)
            here = far.open("x", int, capacity=theirs)
        await until(lambda: there._ep.paired and here._ep.paired)
        assert (there.capacity, here.capacity) == (holds, holds)
        for tx, rx in ((there, here), (here, there)):
            accepted = [fill(tx)]  # before the other side's figure is here, only what was granted in advance
            await until(lambda tx=tx, a=accepted: a.append(fill(tx)) or sum(a) >= holds)  # type: ignore[misc]
            await until(lambda rx=rx: rx.pending == holds)  # type: ignore[misc]
            assert sum(accepted) + fill(tx) == holds


@pytest.mark.parametrize("carrier", ["tcp", "unix"])
@pytest.mark.parametrize("capacity", [1, 2, 7, 64, 1000, 4096])
@program
async def test_r15_exactly_capacity_values_are_accepted_and_not_yet_received(capacity: int, carrier: str) -> None:
    async with session(carrier) as (near, far):
        there, here = await joined(near, far, "x", int, capacity)
        for tx, rx in ((there, here), (here, there)):
            assert fill(tx) == capacity
            await until(lambda rx=rx: rx.pending == capacity)  # type: ignore[misc]
            await asyncio.sleep(SETTLED)  # all has arrived, and that makes no more room
            assert fill(tx) == 0
            for taken in (1, capacity):
                assert len(await rx.recv_many(taken, min=taken)) == taken
                accepted = tx.stats().sent
                task = asyncio.create_task(tx.send_many(itertools.repeat(1)))
                await until(lambda tx=tx, all=accepted + taken: tx.stats().sent >= all)  # type: ignore[misc]
                await asyncio.sleep(SETTLED / 5)
                assert tx.stats().sent == accepted + taken
                task.cancel()
                await asyncio.wait([task])
                await until(lambda rx=rx: rx.pending == capacity)  # type: ignore[misc]


@pytest.mark.parametrize("size", [1 << 10, 10_000, 1 << 16, 300_000])
@program
async def test_r16_stopped_receiver_bounds_the_bytes_ahead_of_it(size: int) -> None:
    async with session("tcp") as (near, far):
        there, here = await joined(near, far, "x", bytes, 1 << 20)
        value = bytes(size)
        accepted = 0

        async def send_on() -> None:
            nonlocal accepted
            while True:
                await there.send(value)
                accepted += 1

        task = asyncio.create_task(send_on())
        seen = -1
        while seen != accepted:
            seen = accepted
            await asyncio.sleep(0.2)
        print(f"\n{size} bytes a value: {accepted} accepted, {accepted * size} bytes")
        assert 64 * 1024 - size <= accepted * size <= 4 * 1024 * 1024 + size
        assert not task.done()
        # the floor of another channel is its own
        other, beside = await joined(near, far, "y", bytes)
        await other.send(b"through")
        assert await beside.recv() == b"through"
        # and a receiver that takes again gets all of it, growing the window on the way
        while here.stats().taken < 3 * seen:
            assert await here.recv() == value
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("carrier", ["tcp", "unix"])
@program
async def test_r16_value_larger_than_every_budget_gets_through(carrier: str) -> None:
    async with session(carrier, session_bytes=64 * 1024) as (near, far):
        there, here = await joined(near, far, "x", bytes)
        value = bytes(range(256)) * (9 << 12)  # 9 MiB
        task = asyncio.create_task(there.deliver(value))
        assert await here.recv() == value
        await task


@pytest.mark.parametrize(("capacity", "accepted"), [(None, 64), (3, 3), (64, 64), (500, 64)])
@program
async def test_r17_before_the_other_side_has_opened_few_values_are_accepted(capacity: Any, accepted: int) -> None:
    async with session() as (near, far):
        there = near.open("x", int, capacity=capacity)
        assert fill(there) == accepted
        await asyncio.sleep(SETTLED)
        assert fill(there) == 0
        here = await anext(far)
        await until(lambda: here.pending == accepted, "they travel at once")
        assert await here.recv_many(accepted, min=accepted) == [0] * accepted
        await there.send(1)
        assert await here.recv() == 1


@program
async def test_r17_before_the_other_side_has_opened_sixteen_kib_are_accepted() -> None:
    async with session() as (near, far):
        there = near.open("x", bytes)
        accepted = fill(there, bytes(1000))
        assert 16 <= accepted <= 17
        here = await anext(far)
        assert await here.recv_many(accepted, min=accepted) == [bytes(1000)] * accepted


@program
async def test_r17_at_most_256_channels_wait_unopened_and_the_rest_comes_later() -> None:
    async with session() as (near, far):
        ends = [near.open(f"c{n}", int) for n in range(400)]
        await until(lambda: far._core.session.stats()["offered"] >= 256)
        await asyncio.sleep(SETTLED)
        assert far._core.session.stats()["offered"] == 256
        got = []
        for n, end in enumerate(ends):
            here = await anext(far)
            got.append(here)
            assert here.name == f"c{n}"
            await end.send(n)
            assert await here.recv() == n


@program
async def test_r19_iteration_gives_offers_in_order_and_values_outlive_a_quick_client() -> None:
    async with listening() as listener:
        async with netchan.dial(listener.addresses[0]) as near:
            for name in ("one", "two", "three"):
                end = near.open(name, str)
                await end.send_many([name, name.upper()])
                end.close()
        far = await listener.recv()
        await until(lambda: far.closed)
        got = []
        async for channel in far:
            got.append((channel.name, [value async for value in channel]))
        assert got == [("one", ["one", "ONE"]), ("two", ["two", "TWO"]), ("three", ["three", "THREE"])]


@program
async def test_r19_iteration_after_an_abort_gives_what_came_and_then_raises() -> None:
    async with listening() as listener:
        with pytest.raises(KeyError):
            async with netchan.dial(listener.addresses[0]) as near:
                end = near.open("one", int)
                await end.send(1)
                far = await listener.recv()
                await until(lambda: far._core.session.stats()["offered"] > 0)
                raise KeyError
        await far.wait_closed()
        channel = await anext(far)
        assert await channel.recv() == 1
        with pytest.raises(ChannelAborted) as caught:
            await channel.recv()
        assert caught.value.code == Code.LEFT_BY_EXCEPTION
        with pytest.raises(ChannelAborted):
            await anext(far)


# --- sending and receiving -------------------------------------------------------------------------------------------


@program
async def test_r20_senders_are_served_first_come_first_and_a_cancelled_place_passes_on() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 1)
        await there.send(-1)
        tasks = []
        for n in range(8):
            tasks.append(asyncio.create_task(there.send(n)))
            await until(lambda n=n: there.stats().senders_waiting == n + 1)  # type: ignore[misc]
        tasks[0].cancel()
        tasks[3].cancel()
        assert await here.recv_many(1) == [-1]
        assert [await here.recv() for _ in range(6)] == [1, 2, 4, 5, 6, 7]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [n for n, r in enumerate(results) if isinstance(r, asyncio.CancelledError)] == [0, 3]


@program
async def test_r22_flush_received_taken_and_deliver() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 16)
        await there.send_many(range(5))
        await there.flush()
        assert here.pending == 5
        taken = asyncio.create_task(there.flush("taken"))
        delivered = asyncio.create_task(there.deliver(5))
        await asyncio.sleep(SETTLED)
        assert not taken.done()
        assert await here.recv_many(5, min=5) == [0, 1, 2, 3, 4]
        await taken
        await asyncio.sleep(SETTLED)
        assert not delivered.done()
        assert await here.recv() == 5
        await delivered
        lost = asyncio.create_task(there.deliver(6))
        await until(lambda: here.pending == 1)
        lost.cancel()
        await asyncio.wait([lost])
        assert await here.recv() == 6, "cancelled in its second part, the value stays sent"


@program
async def test_r23_send_many_leaves_in_the_iterator_what_was_not_accepted() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 4)
        items = iter([*range(20)])
        task = asyncio.create_task(there.send_many(n for n in items))
        await until(lambda: there.stats().senders_waiting == 1)
        task.cancel()
        await asyncio.wait([task])
        assert list(items) == [*range(4, 20)]
        assert await here.recv_many(9, min=4) == [0, 1, 2, 3]
        assert await there.send_many([7, 8]) == 2


@program
async def test_r24_cancelled_recv_leaves_the_value_at_the_head() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        for n in range(50):
            task = asyncio.create_task(here.recv())
            await asyncio.sleep(0)
            there.send_nowait(n)
            if n % 2:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            got = await here.recv() if task.cancelled() else task.result()
            assert got == n


@program
async def test_r25_recv_many_and_recv_into() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", bytes, 8)
        await there.send_many([b"a", b"bb", b"ccc", b"dddd"])
        await there.flush()
        assert await here.recv_many(2) == [b"a", b"bb"]
        small, large = bytearray(2), bytearray(9)
        with pytest.raises(netchan.MessageTooLarge) as caught:
            await here.recv_into(small)
        assert (caught.value.needed, caught.value.limit) == (3, 2)
        assert await here.recv_into(large) == 3
        there.close()
        assert await here.recv_many(5, min=3) == [b"dddd"], "what is left before the end"
        with pytest.raises(netchan.ChannelEnded):
            await here.recv_many()


@program
async def test_r25_recv_many_min_of_large_values_is_not_held_up_by_the_byte_budget() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", bytes, 8)
        task = asyncio.create_task(there.send_many([bytes(60_000)] * 4))
        async with asyncio.timeout(5):
            assert [len(v) for v in await here.recv_many(4, min=4)] == [60_000] * 4
        await task


@program
async def test_r25_recv_many_min_above_the_capacity_is_refused_not_waited_for() -> None:
    async with session() as (near, far):
        _there, here = await joined(near, far, "x", int, 4)
        with pytest.raises(ConfigError, match="capacity is 4"):
            here.recv_many(9, min=5)
        # not known yet when the call is made: refused when it is
        early = near.open("late", int)
        waiting = asyncio.create_task(early.recv_many(9, min=5))
        await asyncio.sleep(SETTLED)
        late = far.open("late", int, capacity=2)
        await late.send(1)
        with pytest.raises(ConfigError, match="capacity is 2"):
            await waiting
        assert await early.recv() == 1


@program
async def test_r26_anext_with_a_default_is_go_s_v_ok() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        await there.send(1)
        there.close()
        assert await anext(here, None) == 1
        assert await anext(here, None) is None


# --- listening and dialling ------------------------------------------------------------------------------------------


@program
async def test_r41_peer_that_has_left_still_comes_out_of_the_listener() -> None:
    async with listening() as listener:
        for _ in range(5):
            async with netchan.dial(listener.addresses[0]):
                pass
        got = [await listener.recv() for _ in range(5)]
        for peer in got:
            await peer.wait_closed()
        assert {peer.error for peer in got} == {None}
        awaited = await netchan.dial(listener.addresses[0])
        await awaited.aclose()


@program
async def test_r42_dial_returns_when_both_accepted_and_says_what_failed() -> None:
    async with listening(trust=[KEY.node_id]) as listener:
        address = listener.addresses[0]
        async with netchan.dial(address, identity=KEY) as peer:
            assert peer.node_id == BOSS.node_id
            assert peer.path_count == 1
        with pytest.raises(netchan.AuthError):
            await netchan.dial(address)
        with pytest.raises(netchan.DialTimeout):
            await netchan.dial(address.replace(BOSS.node_id, KEY.node_id), config=Config(dial_timeout=0.3))
        with pytest.raises(netchan.DialError) as caught:
            await netchan.dial(["tcp://127.0.0.1:1", "tcp://localhost:1"], trust="any")
        assert len(caught.value.causes) == 2
        first, second = await netchan.dial(address, identity=KEY), await netchan.dial(address, identity=KEY)
        assert first != second, "each dial is a new session"
        first.close(), second.close()


@program
async def test_r52_bind_failure_is_a_listen_error() -> None:
    async with listening() as listener:
        place = "tcp://" + listener.addresses[0].partition("@")[2]
        with pytest.raises(netchan.ListenError):
            await netchan.listen(place, trust="any")
        with pytest.raises(netchan.ListenError):
            await netchan.listen("unix:///nonexistent-folder/x.sock")


@program
async def test_r53_trust_is_explicit_and_each_policy_decides() -> None:
    for call in (lambda: netchan.listen(TCP), lambda: netchan.dial("tcp://127.0.0.1:1")):
        with pytest.raises(ConfigError, match="trust"):
            call()
    with pytest.raises(ConfigError, match="bytes"):
        netchan.listen(TCP, psk="x" * 32)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="32"):
        netchan.listen(TCP, psk=b"x" * 31)

    async def only_key(node_id: str) -> bool:
        return node_id == KEY.node_id

    def raises(node_id: str) -> bool:
        raise LookupError

    secret = bytes(range(32))
    for options, key, dialling, accepted in (
        ({"trust": "any"}, None, {}, True),
        ({"trust": [KEY.node_id]}, KEY, {}, True),
        ({"trust": [KEY.node_id]}, None, {}, False),
        ({"trust": only_key}, KEY, {}, True),
        ({"trust": only_key}, None, {}, False),
        ({"trust": raises}, KEY, {}, False),
        ({"trust": None, "psk": secret}, None, {"psk": secret}, True),
        ({"trust": [KEY.node_id], "psk": secret}, KEY, {"psk": secret}, True),
        ({"trust": [KEY.node_id], "psk": secret}, None, {"psk": secret}, False),
    ):
        async with listening(**options) as listener:
            if accepted:
                async with netchan.dial(listener.addresses[0], identity=key, **dialling):
                    pass
            else:
                with pytest.raises(netchan.AuthError):
                    await netchan.dial(listener.addresses[0], identity=key, **dialling)


@program
async def test_r54_addresses_carry_the_node_id_and_can_be_dialled_as_they_stand() -> None:
    async with netchan.listen([TCP, "tcp://[::1]:0"], identity=BOSS, trust="any") as listener:
        for address in listener.addresses:
            assert address.startswith(f"tcp://{BOSS.node_id}@")
            async with netchan.dial(address) as peer:
                assert peer.node_id == BOSS.node_id


def test_r55_config_is_frozen_and_refuses_what_it_cannot_keep() -> None:
    names = (
        "lease dial_timeout handshake_timeout close_timeout heartbeat max_message max_channels backlog session_bytes"
    )
    for name in (*names.split(), "node_bytes", "await_spin", "limits"):
        assert hasattr(Config(), name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().lease = 3  # type: ignore[misc]
    for options in ({"lease": -1}, {"backlog": 0}, {"close_timeout": float("nan")}, {"max_message": "1"}):
        with pytest.raises(ConfigError):
            Config(**options)  # type: ignore[arg-type]


@program
async def test_r58_second_close_is_no_error_and_send_after_it_is_an_exception() -> None:
    async with session() as (near, far):
        there, _here = await joined(near, far, "x")
        there.close()
        there.close()
        with pytest.raises(netchan.ChannelClosed):
            await there.send(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await near.aclose()
            await near.aclose()
