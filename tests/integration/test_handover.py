"""What a session is in the process that it was handed over to (docs/spec/handover.md §1, §2, §6), in one process."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import Code, HandoverError, Identity, SessionLost
from netchan._engine import handover_handle
from tests.integration.handover_kit import CONFIG, giving, moved, run
from tests.integration.proxy import Direction, Link, Proxy

pytestmark = pytest.mark.timeout(120)


def test_calls_that_wait_in_the_old_process_hear_where_their_session_is(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (me, listener, [client], [peer]):
            full = peer.open("full", bytes, capacity=1)
            theirs = client.open("full", bytes, capacity=1)
            await full.send(b"kept")
            calls = [
                asyncio.create_task(call)
                for call in (
                    full.send(b"not accepted"),
                    full.recv(),
                    anext(peer),
                    peer.open("meeting", bytes, capacity=0).send(b"nobody takes it"),
                    netchan.select(full.send_op(b"neither")),  # a receive arm would win, with the error on it
                )
            ]
            await asyncio.sleep(0.05)
            _, listener2 = await moved(tmp_path / "hand", [listener], me, "tcp://127.0.0.1:0")
            for call in calls:
                with pytest.raises(SessionLost) as caught:
                    await call
                assert caught.value.cause is not None and caught.value.cause.code == Code.HANDED_OVER
                assert not caught.value.undelivered and not caught.value.in_doubt
            with pytest.raises(SessionLost):
                await full.send(b"later")
            assert peer.path_count == 0 and [other async for other in listener] == []
            assert await theirs.recv() == b"kept"
            async with listener2:
                await client.aclose()

    run(body())


def test_channel_that_is_opened_while_its_session_is_held_accepts_nothing_that_would_not_move() -> None:
    async def body() -> None:
        async with giving() as (_, _, [client], [peer]):
            assert handover_handle.hold(peer._core.session, []) is not None
            late = peer.open("late", int)
            sending = asyncio.create_task(late.send(1))
            await asyncio.sleep(0.05)
            assert not sending.done()
            handover_handle.unhold(peer._core.session)
            await sending
            there = client.open("late", int)
            assert await there.recv() == 1

            assert handover_handle.hold(peer._core.session, []) is not None
            later = peer.open("later", int)
            sending = asyncio.create_task(later.send(1))
            await asyncio.sleep(0.05)
            handover_handle.moved(peer._core.session)
            for call in (sending, later.send(2), later.recv(), peer.open("last", int).send(3)):
                with pytest.raises(SessionLost) as caught:
                    await call
                assert caught.value.cause is not None and caught.value.cause.code == Code.HANDED_OVER

    run(body())


def test_channels_are_found_again_by_name_by_iteration_and_as_offers(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (me, listener, [client], [peer]):
            named, iterated, offered, closed = (client.open(f"ch{i}", int) for i in range(4))
            for channel in (named, iterated):
                await channel.send_many(range(5))
            mine = peer.open("ch0", int)
            assert await mine.recv() == 0
            theirs = await anext(peer)
            assert (theirs.name, await theirs.recv()) == ("ch1", 0)
            await closed.send_many(range(5))
            half = peer.open("ch3", int)
            assert await half.recv() == 0
            half.close()
            await offered.send_many(range(5))
            await asyncio.sleep(0.05)
            _, listener2 = await moved(tmp_path / "hand", [listener], me, "tcp://127.0.0.1:0")
            async with listener2:
                fresh = await listener2.recv()
                again = fresh.open("ch0", int)
                assert [await again.recv() for _ in range(4)] == [1, 2, 3, 4]
                rest = {}
                async for channel in fresh:
                    rest[channel.name] = channel
                    if len(rest) == 3:
                        break
                assert list(rest) == ["ch1", "ch3", "ch2"]
                assert [await rest["ch1"].recv() for _ in range(4)] == [1, 2, 3, 4]
                assert [await rest["ch3"].recv() for _ in range(4)] == [1, 2, 3, 4]
                assert [await rest["ch2"].recv() for _ in range(5)] == [0, 1, 2, 3, 4]
                await again.send(77)
                assert await named.recv() == 77
                with pytest.raises(netchan.ConfigError, match=r"came|is open with"):
                    fresh.open("ch0", str)
                await client.aclose()

    run(body())


def test_dialled_session_moves_and_makes_its_path_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (_, listener, [client], [peer]):
            here, there = client.open("c", int), peer.open("c", int)
            await here.send(1)
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", client, wait=30))
            async with netchan.take_over(tmp_path / "hand", wait=30) as before:
                await handing
                fresh = await before.dial(listener.addresses[0], trust="any", config=CONFIG)
            again = fresh.open("c", int)
            await again.send(2)
            assert [await there.recv(), await there.recv()] == [1, 2]
            peer._core.session.join(2, 0)  # the listening side ends its path
            while fresh._core.session.stats()["resumes"] == 0:
                await asyncio.sleep(0.02)
            await again.send(3)
            assert await there.recv() == 3
            await fresh.aclose()
            with pytest.raises(SessionLost):
                await here.recv()

    run(body())


def test_what_nobody_claims_is_closed_with_handed_over(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (_, listener, [client], _):
            channel = client.open("c", int)
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=30))
            async with netchan.take_over(tmp_path / "hand", wait=30) as before:
                await handing
                assert before.happened
            with pytest.raises(netchan.ChannelAborted) as caught:
                await channel.recv()
            assert caught.value.code == Code.HANDED_OVER

    run(body())


def test_channel_that_came_in_a_value_is_aborted_and_one_in_an_untaken_value_moves(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (me, listener, [client], [peer]):
            ends, mine = client.open("ends", Any), peer.open("ends", Any)
            ours, theirs = [netchan.channel(str, capacity=4) for _ in range(2)], []
            await ends.send({"reply": ours[0].split()[0]})
            theirs.append((await mine.recv())["reply"])
            await theirs[0].send("before")
            assert await ours[0].recv() == "before"
            await ends.send({"reply": ours[1].split()[0]})
            await asyncio.sleep(0.05)
            _, listener2 = await moved(tmp_path / "hand", [listener], me, "tcp://127.0.0.1:0")
            async with listener2:
                fresh = await listener2.recv()
                again = fresh.open("ends", Any)
                untaken = (await again.recv())["reply"]
                await untaken.send("after")
                assert await ours[1].recv() == "after"
                with pytest.raises(SessionLost):
                    await theirs[0].send("late")
                untaken.close()
                await client.aclose()

    run(body())


def test_process_that_gives_to_nobody_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (_, listener, [client], [peer]):
            with pytest.raises(HandoverError, match="nobody came"):
                await netchan.hand_over(tmp_path / "hand", listener, wait=0.1)
            assert not (tmp_path / "hand").exists()
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1
            async with netchan.take_over(tmp_path / "hand") as before:
                assert not before.happened

    run(body())


def test_record_that_the_kernel_took_half_of_goes_on_in_the_new_process(tmp_path: Path) -> None:
    """The network takes nothing for a while: sealed bytes wait in the old process, and go first in the new one."""

    async def body() -> None:
        me = Identity.generate()
        config = CONFIG
        async with netchan.listen("tcp://127.0.0.1:0", identity=me, trust="any", config=config) as listener:
            tap = threading.Event()
            tap.set()

            def passed(_link: Link, _way: Direction, _number: int, data: bytes) -> bytes:
                tap.wait(10)
                return data

            with Proxy(listener.addresses[0], tap=passed) as proxy:
                async with netchan.dial(proxy.address, trust="any", config=config) as client:
                    peer = await listener.recv()
                    many = range(60)
                    there = [peer.open(f"c{i}", bytes) for i in many]
                    here = [client.open(f"c{i}", bytes) for i in many]
                    for i in many:
                        await there[i].send(b"first")
                        assert await here[i].recv() == b"first"
                    proxy.links[0].server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
                    tap.clear()
                    values = [bytes((i, n)) * 16_000 for i in many for n in range(2)]
                    for value in values:
                        await there[value[0]].send(value)
                    await asyncio.sleep(0.2)
                    found = handover_handle.hold(peer._core.session, [])
                    assert found is not None
                    handover_handle.unhold(peer._core.session)
                    assert found[2][0][2], "the kernel has taken everything"
                    _, listener2 = await moved(tmp_path / "hand", [listener], me, "tcp://127.0.0.1:0")
                    async with listener2:
                        fresh = await listener2.recv()
                        again = fresh.open("c0", bytes)
                        tap.set()
                        for value in values:
                            assert await here[value[0]].recv() == value
                        await again.send(b"last")
                        assert await here[0].recv() == b"last"
                        assert client._core.session.stats()["resumes"] == 0
                        await client.aclose()

    run(body())
