"""Listening and dialling with the blocking front, in one thread and from several; fork; the exit of the process.

Rules: session.md §3, §7. Every blocking call has a timeout.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import netchan
from netchan import Code, Config, Identity, sync

TCP = "tcp://127.0.0.1:0"
BOSS, KEY = Identity.generate(), Identity.generate()
WAIT = 10.0


@pytest.fixture
def listener() -> Iterator[sync.Listener]:
    with sync.listen(TCP, identity=BOSS, trust="any") as made:
        yield made


class TestOneThread:
    def test_listen_dial_and_recv_work_in_one_thread(self, listener: sync.Listener) -> None:
        with sync.dial(listener.addresses[0], identity=KEY) as dialled:
            came = listener.recv(timeout=WAIT)
            assert (dialled.node_id, came.node_id) == (BOSS.node_id, KEY.node_id)
            there, here = dialled.open("x", int), came.open("x", int)
            for n in range(200):
                there.send(n, timeout=WAIT)
            there.close()
            assert list(here) == list(range(200))
            here.send(5, timeout=WAIT)
            assert there.recv(timeout=WAIT) == 5

    def test_peer_that_left_has_ended_its_channels(self, listener: sync.Listener) -> None:
        with sync.dial(listener.addresses[0]) as dialled:
            came = listener.recv(timeout=WAIT)
            here, there = came.open("x", int), dialled.open("x", int)
            there.send(1, timeout=WAIT)
        assert list(here) == [1]
        came.wait_closed(timeout=WAIT)
        assert came.error is None
        assert list(came) == []

    def test_leaving_by_an_exception_aborts(self, listener: sync.Listener) -> None:
        with pytest.raises(KeyError), sync.dial(listener.addresses[0]) as dialled:
            came = listener.recv(timeout=WAIT)
            here, there = came.open("x", int), dialled.open("x", int)
            there.send(1, timeout=WAIT)
            assert here.recv(timeout=WAIT) == 1
            raise KeyError
        with pytest.raises(netchan.ChannelAborted) as caught:
            here.recv(timeout=WAIT)
        assert caught.value.code == Code.LEFT_BY_EXCEPTION

    def test_offered_channels_come_out_of_iteration(self, listener: sync.Listener) -> None:
        with sync.dial(listener.addresses[0]) as dialled:
            came = listener.recv(timeout=WAIT)
            ends = [dialled.open(name, bytes) for name in "abc"]
            offered = [next(came) for _ in ends]
            assert [channel.name for channel in offered] == ["a", "b", "c"]
        came.wait_closed(timeout=WAIT)


class TestTimeouts:
    def test_recv_of_a_listener_times_out(self, listener: sync.Listener) -> None:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            listener.recv(timeout=0.2)
        assert 0.15 < time.monotonic() - begun < 5
        with pytest.raises(netchan.WouldBlock):
            listener.recv_nowait()

    def test_dial_timeout_leaves_nothing_open(self) -> None:
        with sync.listen(TCP, identity=BOSS, trust="any") as listener:
            wrong = listener.addresses[0].replace(BOSS.node_id, KEY.node_id)
            with pytest.raises(TimeoutError) as caught:
                sync.dial(wrong, timeout=0.3)
            assert not isinstance(caught.value, netchan.DialTimeout)
            with pytest.raises(netchan.DialTimeout, match="wrong node id"):
                sync.dial(wrong, config=Config(dial_timeout=0.3))

    def test_async_trust_callable_is_a_config_error(self) -> None:
        async def allow(node_id: str) -> bool:
            return True

        with pytest.raises(netchan.ConfigError, match="plain function"):
            sync.listen(TCP, trust=allow)

    def test_callable_trust_decides(self) -> None:
        asked: list[str] = []

        def allow(node_id: str) -> bool:
            asked.append(node_id)
            return node_id == KEY.node_id

        with sync.listen(TCP, identity=BOSS, trust=allow) as listener:
            with sync.dial(listener.addresses[0], identity=KEY):
                pass
            with pytest.raises(netchan.AuthError):
                sync.dial(listener.addresses[0])
        assert len(asked) == 2


class TestThreads:
    def test_serve_runs_handlers_on_threads_until_the_listener_is_closed(self) -> None:
        seen: list[int] = []

        def handler(peer: sync.Peer) -> None:
            for channel in peer:
                with channel:
                    seen.extend(channel)

        with sync.listen(TCP, identity=BOSS, trust="any") as listener:
            serving = threading.Thread(target=listener.serve, args=(handler,))
            serving.start()
            for n in range(3):
                with sync.dial(listener.addresses[0]) as peer, peer.open("in", int) as channel:
                    channel.send(n, timeout=WAIT)
            end = time.monotonic() + WAIT
            while len(seen) < 3 and time.monotonic() < end:
                time.sleep(0.01)
            listener.close()
            serving.join(WAIT)
            assert not serving.is_alive()
        assert sorted(seen) == [0, 1, 2]

    def test_channels_of_a_handler_that_returns_end_cleanly(self) -> None:
        """Decision 0002, on threads; also from a function inside a with-block."""

        def handler(peer: sync.Peer) -> None:
            out = peer.open("out", int)
            out.send_many(range(50), timeout=WAIT)

        def work(peer: sync.Peer) -> None:
            peer.open("in", int).send(1, timeout=WAIT)

        got: list[list[int]] = []

        def reading(peer: sync.Peer) -> None:
            channel = peer.open("in", int)
            with channel:
                got.append(list(channel))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for serve in (handler, reading):
                with sync.listen(TCP, identity=BOSS, trust="any") as listener:
                    serving = threading.Thread(target=listener.serve, args=(serve,))
                    serving.start()
                    for _ in range(10):
                        with sync.dial(listener.addresses[0]) as peer:
                            if serve is handler:
                                got.append(list(peer.open("out", int)))
                            else:
                                work(peer)
                    end = time.monotonic() + WAIT
                    while len(got) < 10 and time.monotonic() < end:
                        time.sleep(0.01)
                    listener.close()
                    serving.join(WAIT)
                    assert not serving.is_alive()
                assert got == ([list(range(50))] if serve is handler else [[1]]) * 10
                got.clear()

    def test_channel_lost_while_its_handler_goes_on_is_dropped(self) -> None:
        gate = threading.Event()

        def handler(peer: sync.Peer) -> None:
            peer.open("x", int).send(1, timeout=WAIT)
            gate.wait(WAIT)

        with sync.listen(TCP, identity=BOSS, trust="any") as listener:
            serving = threading.Thread(target=listener.serve, args=(handler,))
            serving.start()
            with sync.dial(listener.addresses[0]) as peer:
                here = peer.open("x", int)
                with pytest.warns(ResourceWarning, match="without close"):
                    assert here.recv(timeout=WAIT) == 1
                    with pytest.raises(netchan.ChannelAborted) as caught:
                        here.recv(timeout=WAIT)
                assert caught.value.code == Code.DROPPED
                gate.set()
            listener.close()
            serving.join(WAIT)

    def test_async_and_blocking_sides_talk_to_each_other(self) -> None:
        def blocking(address: str) -> list[int]:
            with sync.dial(address) as peer:
                channel = peer.open("x", int)
                channel.send_many(range(100), timeout=WAIT)
                channel.close()
                return list(channel)

        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener, asyncio.timeout(20):
                other = asyncio.create_task(asyncio.to_thread(blocking, listener.addresses[0]))
                peer = await listener.recv()
                channel = peer.open("x", int)
                async for n in channel:
                    await channel.send(2 * n)
                channel.close()
                assert await other == [2 * n for n in range(100)]

        asyncio.run(body())


def child(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a little program that imports this tree."""
    root = str(Path(netchan.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


class TestProcess:
    def test_exit_without_closing_aborts_the_sessions_at_once(self, listener: sync.Listener) -> None:
        code = (
            "import sys\nfrom netchan import sync\n"
            "peer = sync.dial(sys.argv[1]); channel = peer.open('x', int); channel.send(1)\n"
            "assert channel.recv(timeout=10) == 2\n"
        )
        done: list[subprocess.CompletedProcess[str]] = []
        thread = threading.Thread(target=lambda: done.append(child(code, listener.addresses[0])))
        thread.start()
        came = listener.recv(timeout=WAIT)
        channel = came.open("x", int)
        assert channel.recv(timeout=WAIT) == 1
        channel.send(2, timeout=WAIT)
        with pytest.raises(netchan.ChannelAborted) as caught:
            channel.recv(timeout=WAIT)
        assert caught.value.code == Code.PROCESS_EXIT
        thread.join(WAIT)
        assert done[0].returncode == 0, done[0].stderr
        assert "process exits with an open session" in done[0].stderr

    def test_unix_socket_file_is_gone_after_the_exit(self, tmp_path: Path) -> None:
        path = tmp_path / "node.sock"
        result = child(
            "import sys\nfrom netchan import sync\nl = sync.listen(sys.argv[1]); del sys.argv[1:]", f"unix://{path}"
        )
        assert result.returncode == 0, result.stderr
        assert not path.exists()

    def test_child_of_a_fork_gets_fork_error_and_can_dial_anew(self) -> None:
        code = """
import os, sys
import netchan
from netchan import sync
boss = netchan.Identity.generate()
with sync.listen("tcp://127.0.0.1:0", identity=boss, trust="any") as listener:
    peer = sync.dial(listener.addresses[0]); came = listener.recv(timeout=10)
    pid = os.fork()
    if pid == 0:
        for call in (lambda: peer.open("x"), lambda: next(peer), peer.close, listener.close):
            try:
                call()
            except netchan.ForkError:
                continue
            os._exit(3)
        with sync.dial(listener.addresses[0]) as mine:
            with mine.open("from the child", int) as channel:
                channel.send(7, timeout=10)
                channel.recv(timeout=10)
        os._exit(0)
    child = listener.recv(timeout=10)
    channel = next(child)
    assert channel.recv(timeout=10) == 7
    channel.send(8, timeout=10)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    there, here = peer.open("y", int), came.open("y", int)
    there.send(1, timeout=10)
    assert here.recv(timeout=10) == 1
    peer.close()
print("fine")
"""
        result = child(code)
        assert result.returncode == 0, result.stderr
        assert result.stdout == "fine\n"
