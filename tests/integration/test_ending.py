"""How channels and sessions end: close, stop, abort, leaving, being dropped, being lost; and what the errors say."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import time
import warnings
from typing import Any

import pytest

import netchan
from netchan import ChannelAborted, ChannelClosed, ChannelEnded, Code, Config, ConfigError, SessionLost
from tests.integration.kit import BOSS, KEY, TCP, Wire, fill, joined, listening, program, session, until
from tests.integration.programs import Program

SETTLED = 0.05


async def ends(call: Any) -> type[BaseException]:
    with pytest.raises(netchan.ChannelError) as caught:
        await call
    return caught.type


# --- the ends of a channel -------------------------------------------------------------------------------------------


@program
async def test_r27_close_ends_one_direction_behind_its_values() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 8)
        await there.send_many(range(5))
        there.close()
        there.close()
        assert [v async for v in here] == [0, 1, 2, 3, 4]
        assert await ends(here.recv()) is ChannelEnded
        await here.send(1)
        assert await there.recv() == 1


@program
async def test_r27_last_of_the_counted_senders_ends_the_direction() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 8)
        tx, _rx = there.split()
        other = tx.clone()
        await tx.send(1)
        tx.close()
        await other.send(2)
        assert await here.recv_many(2, min=2) == [1, 2]
        with pytest.raises(netchan.WouldBlock):
            here.recv_nowait()
        other.close()
        assert await ends(here.recv()) is ChannelEnded


@program
async def test_r28_senders_blocked_at_close_raise_and_are_not_accepted() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 2)
        assert fill(there) == 2
        blocked = [asyncio.create_task(there.send(9)) for _ in range(3)]
        await until(lambda: there.stats().senders_waiting == 3)
        there.close()
        for task in blocked:
            assert await ends(task) is ChannelClosed
        assert await ends(there.send(9)) is ChannelClosed
        assert [v async for v in here] == [0, 0]


@program
async def test_r29_stop_discards_counts_and_ends_the_other_sides_sends() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 4)
        assert fill(there) == 4
        await until(lambda: here.pending == 4)
        blocked = asyncio.create_task(there.send(9))
        await until(lambda: there.stats().senders_waiting == 1)
        here.stop()
        assert here.stats().discarded == 4
        assert await ends(blocked) is ChannelClosed
        assert await ends(there.send(1)) is ChannelClosed
        assert await ends(here.recv()) is ChannelClosed
        await here.send(7)
        assert await there.recv() == 7


@program
async def test_r30_leaving_a_channel_closes_flushes_and_stops() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 64)
        async with there:
            await there.send_many(range(64))
        assert here.pending == 64, "it had arrived when the block ended"
        assert [v async for v in here] == list(range(64))
        await until(lambda: here._ep.send_over)
        assert await ends(here.send(1)) is ChannelClosed
        assert await ends(there.recv()) is ChannelClosed


@program
async def test_r30_leaving_a_channel_is_bounded_by_close_timeout() -> None:
    async with listening(config=Config(lease=0)) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        near = await netchan.dial(address, config=Config(close_timeout=0.3))
        far = await listener.recv()
        there, here = await joined(near, far, "x")
        wire.hold()
        await there.send(1)
        begun = time.monotonic()
        await there.aclose()
        assert 0.25 < time.monotonic() - begun < 3
        wire.go_on()
        assert [v async for v in here] == [1]
        near.close()
        await wire.cut()


@pytest.mark.parametrize("cancelled", [False, True])
@program
async def test_r31_channel_left_by_an_exception_is_not_a_clean_end(cancelled: bool) -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int)

        async def leave() -> None:
            async with there:
                await there.send(1)
                if cancelled:
                    await asyncio.Event().wait()
                raise KeyError("secret")

        task = asyncio.create_task(leave())
        await until(lambda: here.pending == 1)
        task.cancel()
        await asyncio.wait([task])
        assert await here.recv() == 1, "what arrives in order can still be received"
        with pytest.raises(ChannelAborted) as caught:
            await here.recv()
        assert (caught.value.code, caught.value.by_us, caught.value.reason) == (Code.LEFT_BY_EXCEPTION, False, "")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("side", ["dialled", "came", "listener"])
@program
async def test_r31_session_left_by_an_exception_is_not_a_clean_end(side: str) -> None:
    stack: list[Any] = []
    try:
        listener = await netchan.listen(TCP, identity=BOSS, trust="any")
        stack.append(listener)
        dialled = await netchan.dial(listener.addresses[0])
        stack.append(dialled)
        came = await listener.recv()
        leaving = {"dialled": dialled, "came": came, "listener": listener}[side]
        mine, theirs = (dialled, came) if side == "dialled" else (came, dialled)
        there, here = await joined(mine, theirs, "x")
        begun = time.monotonic()
        with pytest.raises(KeyError):
            async with leaving:
                await there.send(1)
                raise KeyError
        assert time.monotonic() - begun < 1, "no waiting here"
        assert await here.recv() == 1
        with pytest.raises(ChannelAborted) as caught:
            await here.recv()
        assert caught.value.code == Code.LEFT_BY_EXCEPTION
        with pytest.raises(ChannelAborted):
            await anext(theirs)
    finally:
        for peer in reversed(stack):
            peer.close()


@pytest.mark.parametrize("code", [0, 1, 2**30 - 1])
@program
async def test_r32_abort_ends_both_directions_at_once_with_code_and_reason(code: int) -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 4)
        assert (fill(there), fill(here)) == (4, 4)
        await until(lambda: (here.pending, there.pending) == (4, 4))
        waiting = [asyncio.create_task(there.send(1)), asyncio.create_task(here.send(1))]
        await until(lambda: there.stats().senders_waiting == here.stats().senders_waiting == 1)
        reason = "ä" * 128
        there.abort(code, reason)
        await until(lambda: here.closed)
        here.abort(7, "too late")
        mine: list[Any] = [waiting[0], lambda: there.send(1), there.recv]
        theirs: list[Any] = [waiting[1], lambda: here.send(1), here.recv, here.recv_many, here.flush]
        for n, call in enumerate(mine + theirs):
            with pytest.raises(ChannelAborted) as caught:
                await (call() if callable(call) else call)
            assert (caught.value.code, caught.value.reason) == (code, reason)
            assert caught.value.by_us == (n < len(mine))
        assert (there.stats().discarded, here.stats().discarded) == (4, 4)


@program
async def test_r32_codes_and_reasons_out_of_range_are_refused() -> None:
    async with session() as (near, far):
        there, _ = await joined(near, far, "x")
        for arguments in ((-1,), (2**30,), (1, "ä" * 129), (1, b"x")):
            with pytest.raises(ConfigError):
                there.abort(*arguments)
        assert not there.closed


# --- leaving sessions ------------------------------------------------------------------------------------------------


@program
async def test_r43_leaving_is_bounded_by_close_timeout_and_logs_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        async with listening(config=Config(lease=0)) as listener:
            wire, address = await Wire.to(listener.addresses[0])
            peer = await netchan.dial(address, config=Config(close_timeout=0.3))
            far = await listener.recv()
            there, _here = await joined(peer, far, "x")
            wire.hold()
            await there.send(1)
            begun = time.monotonic()
            await peer.aclose()
            assert 0.25 < time.monotonic() - begun < 3
            assert peer.closed
            await wire.cut()
            await far.wait_closed()
    assert [r for r in caplog.records if "1 channels whose values had not all arrived" in r.getMessage()]


@program
async def test_r43_other_side_that_ends_the_session_first_is_not_blamed(caplog: pytest.LogCaptureFixture) -> None:
    """It may have what it wanted, and its acknowledgement has crossed our leaving: no deadline has passed."""
    caplog.clear()
    async with session() as (near, far):
        await far.aclose()
        await near.wait_closed()
        with caplog.at_level(logging.WARNING):
            near._core.finish_leaving(1, late=False)
    assert not caplog.records


@program
async def test_r43_close_starts_and_wait_closed_waits() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        await there.send_many(range(100))
        waiting = asyncio.create_task(far.wait_closed())
        near.close()
        await waiting
        assert [v async for v in here] == list(range(100))
        assert near.closed
        assert await ends(there.send(1)) is ChannelClosed


@program
async def test_r43_leaving_a_listener_leaves_its_peers_side_by_side() -> None:
    async with listening(config=Config(close_timeout=0.4, lease=0)) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        dialled = [await netchan.dial(address) for _ in range(5)]
        stuck = []
        for mine in dialled:
            came = await listener.recv()
            there, here = await joined(came, mine, "x")
            stuck += [there, here]
        wire.hold()
        for there in stuck[::2]:
            await there.send(1)
        begun = time.monotonic()
        await listener.aclose()
        assert 0.35 < time.monotonic() - begun < 1.6, "one after the other it would be 2 s"
        await wire.cut()
        for mine in dialled:
            await mine.wait_closed()


@program
async def test_r44_serve_runs_handlers_and_cancelling_it_ends_them() -> None:
    seen: list[str] = []

    async def handler(peer: netchan.Peer) -> None:
        try:
            async for channel in peer:
                async with channel:
                    async for value in channel:
                        if value == "fail":
                            raise ZeroDivisionError
                        await channel.send(value)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        seen.append("returned")

    async with listening() as listener:
        serving = asyncio.create_task(listener.serve(handler))
        address = listener.addresses[0]
        async with netchan.dial(address) as first, first.open("e", str) as channel:
            await channel.send("hi")
            assert await channel.recv() == "hi"
        await until(lambda: seen == ["returned"])
        logging.disable()
        second = await netchan.dial(address)
        bad = second.open("e", str)
        await bad.send("fail")
        await second.wait_closed()
        logging.disable(logging.NOTSET)
        assert isinstance(second.error, ChannelAborted)
        third = await netchan.dial(address)
        alive = third.open("e", str)
        await alive.send("hi")
        assert await alive.recv() == "hi"
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert seen == ["returned", "cancelled"]
        await third.wait_closed()
        assert listener.closed


# --- dropped, exited -------------------------------------------------------------------------------------------------


@program
async def test_r46_channel_collected_unclosed_gives_its_values_and_then_dropped() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x")
        await there.send(1)
        with pytest.warns(ResourceWarning, match="channel 'x' .* without close"):
            del there
            gc.collect()
            assert await here.recv() == 1
            with pytest.raises(ChannelAborted) as caught:
                await here.recv()
        assert caught.value.code == Code.DROPPED
        # no warning where the other side's end was taken
        there, here = await joined(near, far, "y")
        here.close()
        assert await ends(there.recv()) is ChannelEnded
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del there
            gc.collect()


@program
async def test_r43_channels_of_a_handler_that_returns_end_cleanly() -> None:
    """Its handles are collected with its frame, an instant before the peer is left (decision 0002)."""

    async def handler(peer: netchan.Peer) -> None:
        out = peer.open("out", int)
        await out.send_many(range(100))
        await peer.open("quick", int).send(7)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with listening() as listener:
            serving = asyncio.create_task(listener.serve(handler))
            for _ in range(20):
                peer = await netchan.dial(listener.addresses[0])
                out, quick = peer.open("out", int), peer.open("quick", int)
                assert [v async for v in out] == list(range(100))
                assert [v async for v in quick] == [7]
                await peer.wait_closed()
                assert peer.error is None
            serving.cancel()
        gc.collect()


@program
async def test_r43_channels_of_a_function_that_returned_inside_the_with_block_end_cleanly() -> None:
    async def work(peer: netchan.Peer) -> None:
        await peer.open("x", int).send_many(range(5))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with listening() as listener:
            async with netchan.dial(listener.addresses[0]) as near:
                far = await listener.recv()
                here = far.open("x", int)
                await work(near)
            assert [v async for v in here] == [0, 1, 2, 3, 4]


@program
async def test_r46_channel_lost_in_a_handler_that_goes_on_is_dropped() -> None:
    gate = asyncio.Event()

    async def handler(peer: netchan.Peer) -> None:
        await peer.open("x", int).send(1)
        await gate.wait()

    async with listening() as listener:
        serving = asyncio.create_task(listener.serve(handler))
        async with netchan.dial(listener.addresses[0]) as peer:
            here = peer.open("x", int)
            with pytest.warns(ResourceWarning, match="without close"):
                assert await here.recv() == 1
                with pytest.raises(ChannelAborted) as caught:
                    await here.recv()
            assert caught.value.code == Code.DROPPED
            gate.set()
        serving.cancel()


@program
async def test_r46_handler_that_raises_or_opens_the_name_again_gets_no_clean_end_for_what_it_lost() -> None:
    async def handler(peer: netchan.Peer) -> None:
        await peer.open("x", int).send(1)
        again = peer.open("x", int)
        await again.send(2)
        if await peer.open("go", bool).recv():
            raise ZeroDivisionError

    async with listening() as listener:
        serving = asyncio.create_task(listener.serve(handler))
        logging.disable()
        for fails in (True, False):
            with pytest.warns(ResourceWarning, match="channel 'x' .* without close"):
                peer = await netchan.dial(listener.addresses[0])
                first = peer.open("x", int)
                assert await first.recv() == 1
                with pytest.raises(ChannelAborted) as caught:
                    await first.recv()
            async with peer:
                assert caught.value.code == Code.DROPPED
                second = peer.open("x", int)
                assert await second.recv() == 2
                await peer.open("go", bool).send(fails)
                if fails:
                    with pytest.raises(ChannelAborted) as caught:
                        await second.recv()
                    assert caught.value.code == Code.LEFT_BY_EXCEPTION
                else:
                    assert await ends(second.recv()) is ChannelEnded
        logging.disable(logging.NOTSET)
        serving.cancel()


@program
async def test_r46_peer_and_listener_collected_unclosed_are_left_as_by_an_exception() -> None:
    async with listening() as listener:
        peer = await netchan.dial(listener.addresses[0])
        came = await listener.recv()
        with pytest.warns(ResourceWarning, match="without close"):
            del peer
            gc.collect()
        await came.wait_closed()
        assert isinstance(came.error, ChannelAborted)
        assert came.error.code == Code.LEFT_BY_EXCEPTION
    other = await netchan.listen(TCP, trust="any")
    peer = await netchan.dial(other.addresses[0])
    with pytest.warns(ResourceWarning, match="without close"):
        del other
        gc.collect()
    await peer.wait_closed()
    assert isinstance(peer.error, ChannelAborted)


@program
async def test_r46_process_that_exits_aborts_its_sessions_at_once_and_one_that_is_killed_loses_them() -> None:
    for how, kind in (("exit", ChannelAborted), ("kill", SessionLost)):
        async with listening(config=Config(lease=1)) as listener:
            with Program("echo", listener.addresses[0]) as child:
                peer = await listener.recv()
                channel = peer.open("echo", str)
                await channel.send("hi")
                assert await channel.recv() == "hi"
                begun = time.monotonic()
                if how == "kill":
                    child.signal(signal.SIGKILL)
                else:
                    await channel.send("exit")
                with pytest.raises(kind) as caught:
                    await channel.recv()
                assert time.monotonic() - begun < 5
                if how == "exit":
                    assert caught.value.code == Code.PROCESS_EXIT  # type: ignore[attr-defined]
                await peer.wait_closed()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_r47_tree_of_errors_is_what_handlers_rely_on() -> None:
    tree = {
        netchan.ConfigError: (netchan.NetchanError, ValueError),
        netchan.CodecError: (netchan.NetchanError, ValueError),
        netchan.MessageTooLarge: (netchan.CodecError,),
        netchan.WouldBlock: (netchan.NetchanError,),
        netchan.ForkError: (netchan.NetchanError, RuntimeError),
        netchan.ListenError: (netchan.NetchanError, OSError),
        netchan.DialError: (netchan.NetchanError, ConnectionError),
        netchan.DialTimeout: (netchan.DialError, TimeoutError),
        netchan.HandshakeError: (netchan.DialError,),
        netchan.AuthError: (netchan.HandshakeError,),
        netchan.ProtocolError: (netchan.NetchanError,),
        ChannelClosed: (netchan.ChannelError,),
        ChannelEnded: (netchan.ChannelError, EOFError),
        ChannelAborted: (netchan.ChannelError,),
        SessionLost: (netchan.ChannelError, ConnectionError),
    }
    for kind, bases in tree.items():
        assert all(issubclass(kind, base) for base in bases), kind


@program
async def test_r48_what_send_and_recv_raise() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", int, 2)
        with pytest.raises(netchan.WouldBlock):
            here.recv_nowait()
        assert fill(there) == 2
        with pytest.raises(netchan.WouldBlock):
            there.send_nowait(1)
        there.close()
        assert await ends(there.send(1)) is ChannelClosed
        assert await here.recv_many(2, min=2) == [0, 0], "values first"
        assert await ends(here.recv()) is ChannelEnded
        await here.aclose()
        assert await ends(there.recv()) is ChannelEnded
        own, other = await joined(near, far, "y")
        await own.aclose()
        assert await ends(own.recv()) is ChannelClosed, "after our own aclose"
        assert await ends(other.recv()) is ChannelEnded


@program
async def test_r49_messages_name_channel_peer_and_next_step_and_escape_what_the_peer_said() -> None:
    async with session() as (near, far):
        for n, (end, words) in enumerate((("close", "open the name again"), ("abort", "open a new channel"))):
            there, here = await joined(near, far, f"chan{n}")
            if end == "close":
                there.close()
                call = there.send(1)
            else:
                there.abort(3, "\x1b[31mred\n")
                await until(lambda here=here: here.closed)  # type: ignore[misc]
                call = here.recv()
            with pytest.raises(netchan.ChannelError) as caught:
                await call
            text = str(caught.value)
            assert f"chan{n}" in text
            assert (BOSS.node_id if end == "close" else KEY.node_id) in text
            assert words in text
            assert text.isprintable()
            assert caught.value.transient is False
            assert caught.value.channel == f"chan{n}"


@program
async def test_r50_failure_that_nobody_waits_for_is_found_where_one_looks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    handled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: handled.append(context))
    async with listening(config=Config(lease=0)) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        near = await netchan.dial(address)
        far = await listener.recv()
        there, here = await joined(near, far, "x")
        with caplog.at_level(logging.WARNING, "netchan.session"):
            await wire.cut()
            await near.wait_closed()
            await far.wait_closed()
            await until(lambda: len(caplog.records) >= 2)
        for end, peer in ((there, near), (here, far)):
            assert await ends(end.recv()) is SessionLost
            assert await ends(end.send(1)) is SessionLost
            with pytest.raises(SessionLost):
                await anext(peer)
            lines = [r for r in caplog.records if peer.node_id in r.getMessage()]
            assert [(r.name, r.levelname) for r in lines] == [("netchan.session", "WARNING")]
    gc.collect()
    assert handled == []


@pytest.mark.parametrize("seed", range(6))
@program
async def test_r51_loss_report_accounts_for_every_accepted_value(seed: int) -> None:
    rng = random.Random(seed)
    async with listening(config=Config(lease=0)) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        near = await netchan.dial(address)
        far = await listener.recv()
        size = rng.choice([0, 0, 3000])
        there, here = await joined(near, far, "x", tuple[int, bytes] if size else int, rng.choice([1, 8, 64, 500]))
        accepted: list[int] = []
        received: list[int] = []

        async def send() -> None:
            for n in range(100_000):
                await there.send((n, bytes(size)) if size else n)
                accepted.append(n)

        async def receive() -> None:
            async for value in here:
                received.append(value[0] if size else value)
                if rng.random() < 0.05:
                    await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(send()), asyncio.create_task(receive())]
        await asyncio.sleep(rng.random() * 0.15)
        if rng.random() < 0.6:
            wire.hold()
            await asyncio.sleep(rng.random() * 0.05)
        await wire.cut()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [SessionLost, SessionLost], errors
        loss = errors[0]
        assert isinstance(loss, SessionLost)
        undelivered = [v[0] if size else v for v in loss.undelivered]
        doubt = [d.number for d in loss.in_doubt]
        where = f"seed={seed} accepted={len(accepted)} received={len(received)} {len(undelivered)}+{len(doubt)}"
        print(where)
        assert received == accepted[: len(received)], where
        assert set(received) | set(undelivered) | set(doubt) == set(accepted), where
        assert not set(received) & set(undelivered), where
        assert not set(undelivered) & set(doubt), where
        for item in loss.in_doubt:
            try:
                value = item.value
            except LookupError:
                continue
            assert (value[0] if size else value) == item.number
        with pytest.raises(SessionLost) as again:
            await there.send(0 if not size else (0, b""))
        assert list(again.value.undelivered) == list(loss.undelivered), "reading again gives the same"
        assert [d.number for d in again.value.in_doubt] == doubt
        assert loss.transient


@program
async def test_r55_silent_path_is_given_up_after_the_heartbeats() -> None:
    async with listening(config=Config(heartbeat=0.2, lease=0)) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        near = await netchan.dial(address, config=Config(heartbeat=0.2))
        far = await listener.recv()
        there, here = await joined(near, far, "x")
        await there.send(1)
        assert await here.recv() == 1
        await asyncio.sleep(1.0)
        assert not near.closed, "heartbeats keep a quiet path up"
        await wire.cut()
        assert await ends(here.recv()) is SessionLost


def test_r46_log_of_an_unclean_end_counts_the_channels_that_were_open(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with session() as (near, far):
            ends = [await joined(near, far, name) for name in "ab"]
            with pytest.raises(RuntimeError):
                async with far:
                    raise RuntimeError("left")
            with pytest.raises(netchan.NetchanError):
                await ends[0][0].recv()
            await near.wait_closed()
            await until(lambda: "channels open here" in caplog.text)

    asyncio.run(body())
    assert "(2 channels open here" in caplog.text
