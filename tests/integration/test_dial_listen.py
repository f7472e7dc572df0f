"""Listening, dialling, opening by name, leaving: the asyncio front over real sockets, both sides in one process.

Rules: session.md §3, §7; handshake.md §5, §7, §9. Waits are bounded by ``asyncio.timeout``, none sleeps to be safe.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import Code, Config, Identity, Listener, Peer

TCP = "tcp://127.0.0.1:0"
BOSS, KEY = Identity.generate(), Identity.generate()


def run(body: Callable[[], Awaitable[None]], seconds: float = 20.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await body()

    asyncio.run(bounded())


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Listener, Peer, Peer]]:
    """A listener, the peer that dialled, and the peer that came out of the listener."""
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id], **options) as listener:
        async with netchan.dial(listener.addresses[0], identity=KEY) as dialled:
            yield listener, dialled, await listener.recv()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll a count that nothing announces."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.005)


class TestSession:
    def test_dial_and_recv_give_each_others_node_id_and_addresses(self) -> None:
        async def body() -> None:
            async with two() as (listener, dialled, came):
                assert (dialled.node_id, came.node_id) == (BOSS.node_id, KEY.node_id)
                assert listener.addresses == (f"tcp://{BOSS.node_id}@{dialled.remote_address.removeprefix('tcp://')}",)
                assert came.remote_address == dialled.local_address
                assert dialled.path_count == 1
                assert not dialled.closed
                assert listener.stats().handshakes_ok == 1
                assert listener.stats().peers == 1

        run(body)

    def test_values_go_both_ways_and_the_end_is_seen(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):
                there, here = dialled.open("numbers", int), came.open("numbers", int)
                await there.send_many(range(500))
                there.close()
                assert [n async for n in here] == list(range(500))
                await here.send(7)
                assert await there.recv() == 7

        run(body)

    def test_create_task_takes_a_dial(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                task = asyncio.create_task(netchan.dial(listener.addresses[0]))
                peer = await task
                peer.close()
                await peer.wait_closed()

        run(body)

    def test_several_diallers_come_out_in_their_own_sessions(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                keys = [Identity.generate() for _ in range(5)]
                dialled = await asyncio.gather(*(netchan.dial(listener.addresses[0], identity=key) for key in keys))
                came = await listener.recv_many(5, min=5)
                assert {peer.node_id for peer in came} == {key.node_id for key in keys}
                for peer in dialled:
                    peer.close()

        run(body)


class TestOpen:
    def test_open_while_bound_is_the_same_channel(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):
                first = dialled.open("x", int, capacity=4)
                again = dialled.open("x", int)
                assert first == again
                assert hash(first) == hash(again)
                other = dialled.open("y")
                assert other != first
                for options in ({"type": str}, {"type": int, "capacity": 5}):
                    with pytest.raises(netchan.ConfigError, match="is open with"):
                        dialled.open("x", **options)
                assert [(await anext(came)).close() for _ in range(2)] == [None, None]

        run(body)

    def test_name_reopened_after_close_is_the_next_channel_on_both_sides(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):
                for n in range(3):
                    there = dialled.open("x", int)
                    await there.send(n)
                    there.close()
                for n in range(3):
                    here = came.open("x", int)
                    assert [v async for v in here] == [n]
                    here.close()

        run(body)

    def test_crossing_opens_pair_in_order(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):

                async def side(peer: Peer, say: str) -> list[str]:
                    got = []
                    for n in range(20):
                        channel = peer.open("ping", str)
                        await channel.send(f"{say}{n}")
                        got.append(await channel.recv())
                        channel.close()
                    return got

                left, right = await asyncio.gather(side(dialled, "a"), side(came, "b"))
                assert left == [f"b{n}" for n in range(20)]
                assert right == [f"a{n}" for n in range(20)]

        run(body)

    def test_iteration_gives_what_was_not_opened_here_in_order(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):
                mine = came.open("opened here first", int)
                ends = [mine, *(dialled.open(name, int) for name in ("b", "opened here first", "a", "b2"))]
                await ends[2].send(5)
                assert await mine.recv() == 5
                offered = [await anext(came) for _ in range(3)]
                assert [channel.name for channel in offered] == ["b", "a", "b2"]

        run(body)

    def test_offered_channel_gets_its_type_by_opening_it(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):
                there = dialled.open("n", int)
                await there.send(3)
                offered = await anext(came)
                typed = came.open("n", int)
                assert typed == offered
                assert await typed.recv() == 3
                with pytest.raises(netchan.ConfigError):
                    came.open("n", str)

        run(body)

    @pytest.mark.parametrize(
        "name", ["", "x" * 256, "é" * 128, "a\nb", "a\x7f", "a\x85b", "netchan.internal", "\ud800", 7, b"x", None]
    )
    def test_bad_name_raises_at_the_call(self, name: Any) -> None:
        async def body() -> None:
            async with two() as (_, dialled, _came):
                with pytest.raises(netchan.ConfigError, match="channel name"):
                    dialled.open(name)

        run(body)

    def test_options_that_do_not_exist_are_type_errors(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, _came):
                with pytest.raises(TypeError):
                    dialled.open("x", priority="high")  # type: ignore[call-overload]
                for capacity in (-1, 1.5, 2**31, "4", True):
                    with pytest.raises(netchan.ConfigError):
                        dialled.open("x", int, capacity=capacity)  # type: ignore[call-overload]

        run(body)


class TestLeaving:
    def test_clean_leave_ends_channels_behind_their_values(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                async with netchan.dial(listener.addresses[0], identity=KEY) as dialled:
                    came = await listener.recv()
                    here = came.open("in", int)
                    there = dialled.open("in", int)
                    await there.send_many(range(1000))
                assert dialled.closed
                assert [n async for n in here] == list(range(1000))
                await came.wait_closed()
                assert came.error is None
                assert [channel async for channel in came] == []

        run(body)

    def test_leaving_by_an_exception_is_no_clean_end(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                here = None
                with pytest.raises(KeyError):
                    async with netchan.dial(listener.addresses[0], identity=KEY) as dialled:
                        came = await listener.recv()
                        here = came.open("in", int)
                        there = dialled.open("in", int)
                        await there.send(1)
                        assert await here.recv() == 1
                        raise KeyError
                assert here is not None
                with pytest.raises(netchan.ChannelAborted) as caught:
                    await here.recv()
                assert caught.value.code == Code.LEFT_BY_EXCEPTION
                assert not caught.value.by_us
                with pytest.raises(netchan.ChannelAborted):
                    await anext(came)

        run(body)

    def test_close_returns_at_once_and_goes_on_while_the_loop_sleeps(self) -> None:
        async def body() -> None:
            async with two() as (_, dialled, came):
                here, there = came.open("in", int), dialled.open("in", int)
                await there.send(1)
                assert await here.recv() == 1
                dialled.close()
                time.sleep(0.3)
                assert dialled._core.over
                await came.wait_closed()

        run(body)

    def test_loop_that_ended_is_let_go_of_and_the_next_one_works(self) -> None:
        from netchan.net import manager

        async def body() -> None:
            async with two() as (_, dialled, came):
                there, here = dialled.open("x", int), came.open("x", int)
                await there.send(1)
                assert await here.recv() == 1
                assert asyncio.get_running_loop() in manager._engines.loops

        for _ in range(3):
            run(body)
        assert not manager._engines.loops

    def test_uvloop_works_like_asyncio(self) -> None:
        uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

        async def body() -> None:
            async with asyncio.timeout(20), two() as (_, dialled, came):
                there, here = dialled.open("x", int), came.open("x", int)
                await there.send_many(range(100))
                there.close()
                assert [n async for n in here] == list(range(100))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(body())

    def test_listener_leaves_its_peers(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                dialled = await netchan.dial(listener.addresses[0], identity=KEY)
                came = await listener.recv()
            assert came.closed
            await dialled.wait_closed()
            assert dialled.error is None
            with pytest.raises(netchan.ChannelClosed):
                await listener.recv()

        run(body)

    def test_peer_that_nobody_closed_is_warned_of_and_left_as_by_an_exception(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                held = [await netchan.dial(listener.addresses[0], identity=KEY)]
                came = await listener.recv()
                with pytest.warns(ResourceWarning, match="garbage-collected without close"):
                    held.clear()
                await came.wait_closed()
                assert isinstance(came.error, netchan.ChannelAborted)
                assert came.error.code == Code.LEFT_BY_EXCEPTION

        run(body)

    def test_lost_connection_is_logged_once_with_counts(self, caplog: pytest.LogCaptureFixture) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                peer = netchan.Identity.generate()
                del peer
                dialled = await netchan.dial(listener.addresses[0], identity=KEY)
                came = await listener.recv()
                with caplog.at_level(logging.WARNING, "netchan.session"):
                    dialled._core.leave_by_exception()
                    with pytest.raises(netchan.ChannelAborted):
                        await anext(came)
                    with pytest.raises(netchan.ChannelAborted):
                        await anext(came)
                lines = [r for r in caplog.records if r.name == "netchan.session" and KEY.node_id in r.getMessage()]
                assert len(lines) == 1
                assert "channels open here" in lines[0].getMessage()

        run(body)


class TestServe:
    def test_serve_runs_a_handler_per_peer_and_closes_its_peer(self) -> None:
        async def body() -> None:
            async def echo(peer: Peer) -> None:
                async for channel in peer:
                    async with channel:
                        async for value in channel:
                            await channel.send(value)

            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                serving = asyncio.create_task(listener.serve(echo))
                for _ in range(3):
                    async with netchan.dial(listener.addresses[0]) as peer, peer.open("e", str) as channel:
                        await channel.send("hi")
                        assert await channel.recv() == "hi"
                        channel.close()
                        with pytest.raises(netchan.ChannelEnded):
                            await channel.recv()
                serving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await serving
                assert listener.closed

        run(body)

    def test_handler_that_raises_is_logged_and_costs_its_own_peer_only(self, caplog: pytest.LogCaptureFixture) -> None:
        async def body() -> None:
            async def handler(peer: Peer) -> None:
                async with peer.open("say", str) as say:
                    if await say.recv() == "bad":
                        raise ZeroDivisionError
                    await say.send("good")

            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                serving = asyncio.create_task(listener.serve(handler))
                first = await netchan.dial(listener.addresses[0])
                say = first.open("say", str)
                await say.send("bad")
                await first.wait_closed()
                assert isinstance(first.error, netchan.ChannelAborted)
                async with netchan.dial(listener.addresses[0]) as second:
                    say = second.open("say", str)
                    await say.send("x")
                    assert await say.recv() == "good"
                listener.close()
                await serving
            assert [r for r in caplog.records if "ZeroDivisionError" in (r.exc_text or "")]

        run(body)


class TestTrust:
    def test_stranger_is_refused_with_auth_error_on_both_sides(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                with pytest.raises(netchan.AuthError, match="UNTRUSTED") as caught:
                    await netchan.dial(listener.addresses[0])
                assert not caught.value.transient
                assert len(caught.value.causes) == 1
                await until(lambda: listener.stats().handshakes_failed == {"untrusted": 1}, "not counted")
                assert listener.pending == 0

        run(body)

    def test_async_trust_is_awaited_in_this_loop(self) -> None:
        async def body() -> None:
            loops: list[object] = []

            async def allow(node_id: str) -> bool:
                await asyncio.sleep(0)
                loops.append(asyncio.get_running_loop())
                return node_id == KEY.node_id

            async with netchan.listen(TCP, identity=BOSS, trust=allow) as listener:
                async with netchan.dial(listener.addresses[0], identity=KEY):
                    pass
                with pytest.raises(netchan.AuthError):
                    await netchan.dial(listener.addresses[0])
            assert loops == [asyncio.get_running_loop()] * 2

        run(body)

    def test_psk_alone_opens_and_a_wrong_one_gets_silence(self) -> None:
        async def body() -> None:
            key = os.urandom(32)
            quick = Config(dial_timeout=0.4)
            async with netchan.listen(TCP, psk=key) as listener:
                place = listener.addresses[0].partition("@")[2]
                async with netchan.dial(f"tcp://{place}", psk=key):
                    pass
                with pytest.raises(netchan.DialTimeout, match="wrong PSK"):
                    await netchan.dial(f"tcp://{place}", psk=os.urandom(32), config=quick)
                assert listener.stats().drained == 1

        run(body)

    def test_wrong_node_id_with_the_right_psk_is_an_autherror_that_says_so(self) -> None:
        async def body() -> None:
            key = os.urandom(32)
            async with netchan.listen(TCP, identity=BOSS, psk=key) as listener:
                wrong = listener.addresses[0].replace(BOSS.node_id, KEY.node_id)
                with pytest.raises(netchan.AuthError, match=r"WRONG_ID .*another node answers there") as caught:
                    await netchan.dial(wrong, psk=key)
                assert KEY.node_id in str(caught.value)
                assert BOSS.node_id not in str(caught.value)
                assert listener.stats().handshakes_failed == {"wrong_id": 1}
                # who lacks the PSK is not told
                with pytest.raises(netchan.DialTimeout, match="wrong node id"):
                    await netchan.dial(wrong, psk=os.urandom(32), config=Config(dial_timeout=0.3))
                assert listener.stats().handshakes_failed == {"wrong_id": 1}
                assert listener.stats().drained == 1

        run(body)

    def test_wrong_node_id_gets_silence(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                wrong = listener.addresses[0].replace(BOSS.node_id, KEY.node_id)
                begun = time.monotonic()
                with pytest.raises(netchan.DialTimeout, match="wrong node id"):
                    await netchan.dial(wrong, config=Config(dial_timeout=0.4))
                assert 0.3 < time.monotonic() - begun < 3

        run(body)

    def test_tofu_remembers_the_first_and_refuses_another(self, tmp_path: Path) -> None:
        async def body() -> None:
            known = tmp_path / "known"
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                place = "tcp://" + listener.addresses[0].partition("@")[2]
                async with netchan.dial(place, trust="tofu", known_nodes=known):
                    pass
                assert known.read_text() == f"{place} {BOSS.node_id}\n"
            async with netchan.listen(place, identity=Identity.generate(), trust="any"):
                with pytest.raises(netchan.AuthError, match="when first seen"):
                    await netchan.dial(place, trust="tofu", known_nodes=known)

        run(body)

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda: netchan.dial("tcp://127.0.0.1:1"), "whom to trust"),
            (lambda: netchan.listen(TCP), "whom to trust"),
            (lambda: netchan.listen(TCP, trust="tofu"), "dial only"),
            (lambda: netchan.listen(TCP, psk="secret" * 9), "psk must be bytes"),
            (lambda: netchan.dial("tcp://127.0.0.1:1", psk=b"short"), "at least 32"),
            (lambda: netchan.dial("ws://127.0.0.1:1", trust="any"), "there are"),
            (lambda: netchan.dial("tcp://127.0.0.1:1", trust=KEY.node_id), "goes into a list"),
            (lambda: netchan.dial("tcp://127.0.0.1:1", trust="any", identity="me"), "identity is a str"),
            (lambda: netchan.dial("tcp://127.0.0.1:1", trust="any", config={}), "config is a dict"),
            (lambda: netchan.dial("tcp://127.0.0.1:1", trust="any", pq="maybe"), "pq="),
            (lambda: netchan.listen(f"tcp://{KEY.node_id}@127.0.0.1:0", identity=BOSS, trust="any"), "another node"),
        ],
    )
    def test_wrong_arguments_raise_from_the_call(self, call: Callable[[], object], words: str) -> None:
        with pytest.raises(netchan.ConfigError, match=words):
            call()


class TestDialErrors:
    def test_refused_connection_is_a_dial_error_with_its_cause(self) -> None:
        async def body() -> None:
            with socket.create_server(("127.0.0.1", 0)) as closed:
                port = closed.getsockname()[1]
            with pytest.raises(netchan.DialError, match="refused") as caught:
                await netchan.dial([f"tcp://127.0.0.1:{port}", f"tcp://localhost:{port}"], trust="any")
            assert type(caught.value) is netchan.DialError
            assert [type(cause) for cause in caught.value.causes] == [ConnectionRefusedError] * 2
            assert caught.value.transient

        run(body)

    def test_second_address_works_when_the_first_refuses(self) -> None:
        async def body() -> None:
            with socket.create_server(("127.0.0.1", 0)) as closed:
                port = closed.getsockname()[1]
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                async with netchan.dial([f"tcp://127.0.0.1:{port}", *listener.addresses]) as peer:
                    assert peer.node_id == BOSS.node_id

        run(body)

    def test_address_that_never_answers_delays_the_next_by_the_stagger_only(self) -> None:
        async def body() -> None:
            with socket.create_server(("127.0.0.1", 0)) as mute:
                port = mute.getsockname()[1]
                async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                    begun = time.monotonic()
                    async with netchan.dial([f"tcp://127.0.0.1:{port}", *listener.addresses]):
                        assert 0.2 < time.monotonic() - begun < 2
                    assert listener.stats().accepted == 1

        run(body)

    def test_slow_first_address_and_a_quick_second_make_one_session(self) -> None:
        """The FINISH of the first is on its way when the second could overtake it: it must not."""

        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                host, _, port = listener.addresses[0].partition("@")[2].rpartition(":")
                done = asyncio.Event()

                async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    there, back = await asyncio.open_connection(host, int(port))

                    async def copy() -> None:
                        while data := await there.read(4096):
                            writer.write(data)
                        writer.close()

                    copying = asyncio.create_task(copy())
                    back.write(await reader.read(4096))
                    finish = await reader.read(4096)
                    await asyncio.sleep(0.6)
                    back.write(finish)
                    while data := await reader.read(4096):
                        back.write(data)
                    back.close()
                    await copying
                    await asyncio.gather(back.wait_closed(), writer.wait_closed())
                    done.set()

                slow = await asyncio.start_server(relay, "127.0.0.1", 0)
                place = f"tcp://127.0.0.1:{slow.sockets[0].getsockname()[1]}"
                async with slow:
                    async with netchan.dial([place, *listener.addresses]):
                        await asyncio.sleep(0.5)
                    assert listener.stats().handshakes_ok == 1
                    await done.wait()

        run(body)

    def test_cancelled_dial_leaves_nothing_open(self) -> None:
        async def body() -> None:
            with socket.create_server(("127.0.0.1", 0)) as mute:
                port = mute.getsockname()[1]
                task = asyncio.create_task(netchan.dial(f"tcp://127.0.0.1:{port}", trust="any"))
                mute.settimeout(5)
                conn, _ = await asyncio.to_thread(mute.accept)
                with conn:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    # the end has to come from the cancellation, not from the time of the handshake (5 s)
                    conn.settimeout(3)
                    while await asyncio.to_thread(conn.recv, 4096):
                        pass

        run(body)


class TestListen:
    def test_port_in_use_is_a_listen_error(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                place = "tcp://" + listener.addresses[0].partition("@")[2]
                with pytest.raises(netchan.ListenError, match="cannot listen on") as caught:
                    await netchan.listen(place, trust="any")
                assert caught.value.errno == errno.EADDRINUSE

        run(body)

    def test_accepting_goes_on_while_the_loop_sleeps(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                dialling = netchan.dial(listener.addresses[0])
                task = asyncio.create_task(dialling)
                await asyncio.sleep(0)
                time.sleep(0.5)
                assert listener.pending == 1
                (await task).close()

        run(body)

    def test_backlog_bounds_the_peers_that_wait_and_room_lets_the_next_in(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any", config=Config(backlog=2)) as listener:
                tasks = [asyncio.create_task(netchan.dial(listener.addresses[0])) for _ in range(5)]
                await until(lambda: listener.pending == 2, "two never came")
                await asyncio.sleep(0.2)
                assert listener.pending == 2
                assert sum(task.done() for task in tasks) == 2
                for _ in range(5):
                    (await listener.recv()).close()
                for task in tasks:
                    (await task).close()

        run(body)

    def test_failed_accept_is_counted_and_the_listener_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                door = listener._hall.listening._doors[0]
                real = door.sock

                class Failing:
                    left = 3

                    def accept(self) -> Any:
                        if self.left:
                            self.left -= 1
                            raise OSError(errno.EMFILE, "Too many open files")
                        return real.accept()

                    def __getattr__(self, name: str) -> Any:
                        return getattr(real, name)

                monkeypatch.setattr(door, "sock", Failing())
                async with netchan.dial(listener.addresses[0]):
                    pass
                assert listener.stats().accept_errors == 3

        run(body)

    def test_unix_socket_is_private_accepts_our_user_and_is_removed(self, tmp_path: Path) -> None:
        async def body() -> None:
            path = tmp_path / "node.sock"
            async with netchan.listen(f"unix://{path}", identity=BOSS) as listener:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert listener.addresses == (f"unix://{BOSS.node_id}@{path}",)
                async with netchan.dial(f"unix://{path}") as peer:
                    assert peer.node_id == BOSS.node_id
                    channel = peer.open("x", bytes)
                    await channel.send(b"over unix")
                    there = (await listener.recv()).open("x", bytes)
                    assert await there.recv() == b"over unix"
            await until(lambda: not path.exists(), "the socket file is still there")

        run(body)

    def test_stale_unix_socket_file_is_replaced_and_a_living_one_is_not(self, tmp_path: Path) -> None:
        async def body() -> None:
            path = tmp_path / "node.sock"
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
            async with netchan.listen(f"unix://{path}"):
                with pytest.raises(netchan.ListenError):
                    await netchan.listen(f"unix://{path}")
            other = tmp_path / "file"
            other.write_text("not a socket")
            with pytest.raises(netchan.ListenError):
                await netchan.listen(f"unix://{other}")
            assert other.read_text() == "not a socket"

        run(body)


class TestStrangers:
    """handshake.md §2.2: who has not proved the gate gets no byte."""

    def test_garbage_gets_no_byte_and_no_early_close(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                host, _, port = listener.addresses[0].partition("@")[2].rpartition(":")
                for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(3000), b"\x01" * 22):
                    with socket.create_connection((host, int(port))) as stranger:
                        stranger.sendall(garbage)
                        stranger.settimeout(0.3)
                        with pytest.raises(TimeoutError):
                            await asyncio.to_thread(stranger.recv, 1)
                await until(lambda: listener.stats().drained == 3, "not drained")

        run(body)

    def test_hundred_silent_connections_do_not_keep_a_peer_out(self) -> None:
        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                host, _, port = listener.addresses[0].partition("@")[2].rpartition(":")
                silent = [socket.create_connection((host, int(port))) for _ in range(100)]
                try:
                    begun = time.monotonic()
                    async with netchan.dial(listener.addresses[0]):
                        assert time.monotonic() - begun < 3
                    assert listener.stats().half_open == 100
                finally:
                    for sock in silent:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        sock.close()

        run(body)
