"""Sessions that lose their path and come back (docs/spec/session.md §5.2, docs/spec/handshake.md §11)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import Config, SessionLost, sync
from netchan.net import resume
from tests.integration.kit import BOSS, KEY, TCP, Wire, fill, program, until
from tests.integration.proxy import HEADER, JOIN, Direction, Link, Proxy, Tap

SOON = 2.0
"""Seconds: the first attempts are 50 to 400 ms apart."""


@asynccontextmanager
async def through(
    proxy_options: dict[str, Any] | None = None, far: Config | None = None, **config: Any
) -> AsyncIterator[tuple[netchan.Peer, netchan.Peer, Proxy, netchan.Listener]]:
    """A session over a proxy: dialler, the peer that came out of the listener, the proxy, the listener.

    The dialler leaves first, and the proxy may be gone before its last word is through: the listener waits for no more.
    """
    settings = Config(**config)
    far = far or Config(**({"close_timeout": 0.5} | config))
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=far) as listener:
        with Proxy(listener.addresses[0], **(proxy_options or {})) as proxy:
            async with netchan.dial(proxy.address, identity=KEY, config=settings) as near:
                yield near, await listener.recv(), proxy, listener


def guarded() -> tuple[threading.Event, Tap]:
    """A tap that ends every connection that begins with a JOIN until the event is set."""
    gate = threading.Event()

    def tap(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        return unit if gate.is_set() or unit[0] != JOIN else None

    return gate, tap


def resumes(peer: netchan.Peer) -> int:
    return peer.stats()["resumes"]


async def gone_and_back(proxy: Proxy, *peers: netchan.Peer) -> None:
    """Cut the path and wait until all have another."""
    before = [resumes(peer) for peer in peers]
    proxy.links[-1].cut()
    await until(lambda: all(resumes(p) > n for p, n in zip(peers, before, strict=True)), "no path came back")


@program
async def test_values_in_both_directions_survive_cuts_at_any_moment() -> None:
    rng = random.Random(7)
    async with through() as (near, far, proxy, _):
        a, b = (peer.open("x", bytes, capacity=64) for peer in (near, far))
        values = [n.to_bytes(4, "big") + bytes(rng.choice([0, 60, 3000, 70_000])) for n in range(300)]

        async def send(channel: netchan.Channel[bytes]) -> None:
            for value in values:
                await channel.send(value)
            channel.close()

        async def cut() -> None:
            for _ in range(8):
                await asyncio.sleep(rng.random() * 0.04)
                proxy.links[-1].cut()

        async def all_of(channel: netchan.Channel[bytes]) -> list[bytes]:
            return [value async for value in channel]

        got = await asyncio.gather(all_of(a), all_of(b), send(a), send(b), cut())
        assert got[0] == values and got[1] == values
        assert resumes(near) >= 1 and near.stats()["nonce_repeats"] == 0


@program
async def test_r45_without_a_path_nothing_raises_and_sends_go_on_up_to_capacity() -> None:
    gate, closed_door = guarded()
    gate.set()
    async with through({"tap": closed_door}) as (near, far, proxy, listener):
        a, b = (peer.open("x", int, capacity=4) for peer in (near, far))
        for n in range(3):
            await b.send(n)
        await until(lambda: a.pending == 3)
        gate.clear()
        proxy.links[-1].cut()
        await until(lambda: near.path_count == 0 and far.path_count == 0)
        assert not near.closed and near.error is None
        assert fill(a) == 4
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await a.send(4)
        assert [a.recv_nowait() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await a.recv()
        waiting = asyncio.create_task(a.send(4))
        deliver = asyncio.create_task(b.deliver(9))
        await asyncio.sleep(0.2)
        assert not waiting.done() and not deliver.done()
        gate.set()
        assert [await b.recv() for _ in range(5)] == [0, 0, 0, 0, 4]
        assert await a.recv() == 9
        await asyncio.gather(waiting, deliver)
        assert near.path_count == far.path_count == 1
        # it is the same session: nobody comes out of the listener
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await listener.recv()


@program
async def test_session_comes_back_without_traffic_and_for_calls_that_wait() -> None:
    async with through() as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=0) for peer in (near, far))
        taking = asyncio.create_task(b.recv())
        await asyncio.sleep(0.05)
        for _ in range(3):
            await gone_and_back(proxy, near, far)
        await a.send(5)
        assert await taking == 5
        offered = asyncio.create_task(b.send(6))
        await asyncio.sleep(0.05)
        await gone_and_back(proxy, near, far)
        assert await a.recv() == 6
        await offered
        await until(lambda: near.stats()["ratchets"] >= 1)  # fresh keys after a resume


@program
async def test_session_of_a_psk_comes_back_through_its_gate() -> None:
    psk = os.urandom(32)
    async with netchan.listen(TCP, identity=BOSS, psk=psk) as listener:
        with Proxy(listener.addresses[0]) as proxy:
            async with netchan.dial(proxy.address, identity=KEY, psk=psk) as near:
                far = await listener.recv()
                a, b = (peer.open("x", int, capacity=4) for peer in (near, far))
                await gone_and_back(proxy, near, far)
                await a.send(1)
                assert await b.recv() == 1


@program
async def test_only_the_dialler_has_noticed() -> None:
    async with through() as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=16) for peer in (near, far))
        await a.send(1)
        assert await b.recv() == 1
        link = proxy.links[-1]
        before = resumes(near)
        link.client.shutdown(socket.SHUT_RDWR)  # the listener's half of this connection stays open, and silent
        for n in range(10):
            await b.send(n)
        await until(lambda: resumes(near) > before)
        assert [await a.recv() for _ in range(10)] == list(range(10))
        assert near.path_count == far.path_count == 1


@program
async def test_full_backlog_does_not_keep_a_session_from_coming_back() -> None:
    async with netchan.listen(TCP, identity=BOSS, trust="any", config=Config(backlog=1)) as listener:
        with Proxy(listener.addresses[0]) as proxy:
            near = await netchan.dial(proxy.address, identity=KEY)
            far = await listener.recv()
            a, b = (peer.open("x", int, capacity=16) for peer in (near, far))
            waiting = await netchan.dial(listener.addresses[0])
            await until(lambda: listener.stats().pending == 1)
            late = asyncio.create_task(netchan.dial(listener.addresses[0]).__aenter__())
            await asyncio.sleep(0.1)
            await gone_and_back(proxy, near, far)
            await a.send(1)
            assert await b.recv() == 1
            assert not late.done() and listener.stats().pending == 1 and listener.stats().resumed == 1
            second = await listener.recv()
            third = await late
            fourth = await listener.recv()
            for peer in (near, waiting, third, second, fourth):
                await peer.aclose()


@program
async def test_path_that_is_silent_is_left_for_one_that_answers() -> None:
    swallowed = threading.Event()

    def silent(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        return b"" if swallowed.is_set() and link is proxy.links[0] else unit

    async with through({"tap": lambda *given: silent(*given)}) as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=16) for peer in (near, far))
        await a.send(0)
        assert await b.recv() == 0
        swallowed.set()
        begun = time.monotonic()
        await a.send(1)
        assert await b.recv() == 1
        assert 0.9 < time.monotonic() - begun < 4.0  # not the 10 s after which such a path is dead
        await until(lambda: near.path_count == far.path_count == 1)
        assert resumes(near) == 0 and near.stats()["resent"] > 0
        await b.send(2)
        assert await a.recv() == 2


@program
async def test_path_that_was_only_slow_is_kept() -> None:
    config = Config(close_timeout=0.5)  # the wire may be cut before the last word is through
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        near = await netchan.dial(address, identity=KEY)
        far = await listener.recv()
        a, b = (peer.open("x", int, capacity=16) for peer in (near, far))
        await a.send(0)
        assert await b.recv() == 0
        wire.hold()
        await a.send(1)
        await asyncio.sleep(0.7)
        wire.go_on()
        assert await b.recv() == 1
        await asyncio.sleep(0.6)
        assert resumes(near) == resumes(far) == 0
        await near.aclose()
        await wire.cut()


@program
async def test_record_that_does_not_open_costs_the_path_and_not_the_session() -> None:
    async with through() as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=16) for peer in (near, far))
        await a.send(1)
        assert await b.recv() == 1
        for direction in ("up", "down"):
            before = resumes(near)
            proxy.links[-1].inject(direction, b"\0\x20" + os.urandom(32))  # type: ignore[arg-type]
            await until(lambda n=before: resumes(near) > n and resumes(far) > n)
            await a.send(2)
            await b.send(3)
            assert await b.recv() == 2
            assert await a.recv() == 3


@program
async def test_cancelled_rendezvous_does_not_wait_for_a_path() -> None:
    gate, closed_door = guarded()
    async with through({"tap": closed_door}) as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=0) for peer in (near, far))
        before, while_cut = (asyncio.create_task(a.send(n)) for n in (1, 2))
        await until(lambda: b._ep.can_recv())
        proxy.links[-1].cut()
        await until(lambda: near.path_count == 0)
        begun = time.monotonic()
        for task in (before, while_cut):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert time.monotonic() - begun < 0.5
        gate.set()
        await until(lambda: near.path_count == 1)
        # both were in doubt, and are withdrawn as soon as that can be said; what is sent now arrives
        sending = asyncio.create_task(a.send(3))
        got = [await b.recv()]
        while got[-1] != 3:
            got.append(await b.recv())
        assert len(set(got)) == len(got) and set(got) <= {1, 2, 3}
        await sending


@program
async def test_lease_that_runs_out_is_session_lost_with_its_report() -> None:
    async with through(lease=1) as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=8) for peer in (near, far))
        await a.send(1)
        assert await b.recv() == 1
        proxy.close()
        await until(lambda: near.path_count == 0)
        begun = time.monotonic()
        room = fill(a, 2)
        assert room >= 7
        with pytest.raises(SessionLost) as caught:
            await a.send(3)
        assert 0.5 < time.monotonic() - begun < 4.0
        assert list(caught.value.undelivered) == [2] * room
        await until(lambda: far.closed)
        with pytest.raises(SessionLost):
            await b.recv()


@program
async def test_without_a_lease_the_session_is_lost_with_its_path() -> None:
    async with through(far=Config(lease=0), lease=30) as (near, far, proxy, _):
        a = near.open("x", int)
        proxy.links[-1].cut()
        await until(lambda: near.closed and far.closed)
        with pytest.raises(SessionLost):
            await a.recv()


@program
async def test_leaving_while_suspended_is_bounded_by_close_timeout() -> None:
    async with through(close_timeout=0.3) as (near, far, proxy, _):
        a, _b = (peer.open("x", int, capacity=8) for peer in (near, far))
        await a.send(1)
        proxy.close()
        await until(lambda: near.path_count == 0 and far.path_count == 0)
        begun = time.monotonic()
        await asyncio.gather(near.aclose(), far.aclose())
        assert 0.25 < time.monotonic() - begun < 2.0


@program
async def test_leaving_while_suspended_waits_for_a_path_that_comes_in_time() -> None:
    gate, closed_door = guarded()
    async with through({"tap": closed_door}) as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=8) for peer in (near, far))
        proxy.links[-1].cut()
        await until(lambda: near.path_count == 0)
        await a.send(1)
        near.close()
        await asyncio.sleep(0.1)
        assert near.path_count == 0 and near.error is None
        gate.set()
        assert [value async for value in b] == [1]
        await far.wait_closed()
        assert far.error is None and near.error is None


@program
async def test_other_side_that_has_left_meanwhile_says_so() -> None:
    gate, closed_door = guarded()
    for forget in (False, True):
        gate.clear()
        # without a path nobody answers the last word
        async with through({"tap": closed_door}, close_timeout=0.2) as (near, far, proxy, _):
            a = near.open("x", int)
            proxy.links[-1].cut()
            await until(lambda n=near, f=far: n.path_count == 0 and f.path_count == 0)
            await far.aclose()
            if forget:
                del far
                gc.collect()
            await asyncio.sleep(0.05)
            assert not near.closed
            gate.set()
            with pytest.raises(SessionLost):
                await a.recv()


@program
async def test_each_resume_has_a_name_and_a_path_of_its_own() -> None:
    """Who watches the network cannot tell by the name that two connections are of one session."""
    async with through() as (near, far, proxy, _):
        for _ in range(4):
            await gone_and_back(proxy, near, far)
        first = [link.units["up"][0] for link in proxy.links[1:] if link.units["up"]]
        good = [unit[HEADER.size :] for unit in first if unit[0] == JOIN]
        names = {unit[:16] for unit in good}
        paths = [int.from_bytes(unit[16:20], "big") for unit in good]
        assert len(names) >= resumes(near) == 4
        assert len(set(paths)) == len(paths) and all(path % 2 == 0 for path in paths)


@program
async def test_pauses_between_attempts_grow() -> None:
    gate, closed_door = guarded()
    async with through({"tap": closed_door}) as (near, _far, proxy, _):
        made = len(proxy.links)
        proxy.links[-1].cut()
        begun = time.monotonic()
        await until(lambda: time.monotonic() - begun > 1.5)
        # at most 50, 100, 200, 400, 800 ms, and as short as 10: at least 4 attempts; more than 16 in one run of 10⁵
        assert 4 <= len(proxy.links) - made <= 16
        gate.set()
        await until(lambda: near.path_count == 1)


@program
async def test_second_address_takes_over() -> None:
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as other:
            with Proxy(listener.addresses[0]) as proxy:
                near = await netchan.dial([proxy.address, other.addresses[0]], identity=KEY)
                far = await listener.recv()
                a, b = (peer.open("x", int) for peer in (near, far))
                await a.send(1)
                assert await b.recv() == 1
                proxy.close()
                await a.send(2)
                assert await b.recv() == 2
                # the path to the second address had joined before, or comes now
                assert near.path_count == 1
                assert near.paths[0].address == other.addresses[0].replace(f"{BOSS.node_id}@", "")
                await near.aclose()


@program
async def test_join_of_a_stranger_changes_nothing() -> None:
    async with through() as (near, far, proxy, listener):
        a, b = (peer.open("x", int) for peer in (near, far))
        await gone_and_back(proxy, near, far)
        heard = proxy.links[-1].units["up"][0]
        assert heard[0] == JOIN
        host, _, port = listener.addresses[0].rpartition("@")[2].rpartition(":")
        counts = []
        for frame in (heard, heard[:-40] + bytes((heard[-40] ^ 1,)) + heard[-39:], b"\x06\x01\0\x97" + os.urandom(147)):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(frame)
                raw.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    counts.append(await asyncio.to_thread(raw.recv, 4096))
        assert counts == []  # replayed, or the gate was not proved: silence
        await a.send(3)
        assert await b.recv() == 3
        assert resumes(far) == 1


@program
async def test_answer_that_is_lost_is_asked_for_again() -> None:
    lost = []

    def tap(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        if direction == "down" and number == 0 and unit[0] == JOIN and len(lost) < 3:
            lost.append(unit)
            return None
        return unit

    async with through({"tap": tap}) as (near, far, proxy, _):
        a, b = (peer.open("x", int, capacity=64) for peer in (near, far))
        for n in range(20):
            await a.send(n)
            await b.send(n)
        await gone_and_back(proxy, near, far)
        assert [await b.recv() for _ in range(20)] == [await a.recv() for _ in range(20)] == list(range(20))
        assert len(lost) == 3


def test_of_too_many_suspended_sessions_the_oldest_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SUSPENDED_MAX", 2)
    config = Config(close_timeout=0.5)  # nobody is there to answer
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        with Proxy(listener.addresses[0]) as proxy:
            near = [sync.dial(proxy.address, identity=KEY, config=config) for _ in range(2)]
            far = [listener.recv(timeout=5) for _ in near]
            proxy.close()
            end = time.monotonic() + 5
            while not any(peer.closed for peer in (*near, *far)):
                assert time.monotonic() < end
                for peer in (*near, *far):
                    with contextlib.suppress(TimeoutError):
                        peer.wait_closed(timeout=0.02)
            for peer in (*near, *far):
                peer.close()


@pytest.mark.parametrize("carrier", ["tcp", "unix"])
def test_blocking_front_comes_back_too(carrier: str) -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        place = TCP if carrier == "tcp" else f"unix://{Path(folder, 's')}"
        with sync.listen(place, identity=BOSS, trust=[KEY.node_id]) as listener:
            with sync.dial(listener.addresses[0], identity=KEY) as near:
                far = listener.recv(timeout=5)
                a, b = (peer.open("x", int, capacity=64) for peer in (near, far))
                taken: list[int] = []
                reader = threading.Thread(target=lambda: taken.extend(b))
                reader.start()
                for n in range(2000):
                    a.send(n)
                    if n % 400 == 200:
                        _shut_all()
                a.close()
                reader.join(20)
                assert not reader.is_alive() and taken == list(range(2000))
                assert resumes(near) >= 1


def _shut_all() -> None:
    """Shut all connected sockets of this process down that have an address, as a network that resets would."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with sock, contextlib.suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            if sock.family in (socket.AF_INET, socket.AF_UNIX) and (sock.getsockname() or sock.getpeername()):
                sock.shutdown(socket.SHUT_RDWR)


SERVER = """
import sys
import netchan
from netchan import sync
me = netchan.Identity.load_or_create(sys.argv[1])
with sync.listen(f"tcp://127.0.0.1:{sys.argv[2]}", identity=me, trust="any",
                 config=netchan.Config(lease=1.5)) as listener:
    print(listener.addresses[0], flush=True)
    peer = listener.recv()
    channel = peer.open("x", int, capacity=8)
    for value in channel:
        pass
"""


def test_peer_process_that_is_killed_is_lost_when_the_lease_is_over(tmp_path: Path) -> None:
    def start(port: int) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(tmp_path / "key"), str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    first, address = start(0)
    second = None
    try:
        with sync.dial(address, config=Config(lease=1.5)) as near:
            channel = near.open("x", int, capacity=8)
            for n in range(50):
                channel.send(n, timeout=5)
            channel.deliver(50, timeout=5)
            begun = time.monotonic()
            os.kill(first.pid, signal.SIGKILL)
            first.wait(5)
            second, _ = start(
                int(address.rpartition(":")[2])
            )  # the same identity at the same place, without the session
            with pytest.raises(SessionLost) as caught:
                while True:
                    channel.send(1, timeout=10)
            assert 1.4 < time.monotonic() - begun < 8.0
            report = caught.value
            assert len(report.undelivered) + sum(len(range(d.first, d.last + 1)) for d in report.in_doubt) == 8
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait(5)
                assert process.stdout is not None
                process.stdout.close()


def exchange(cut_at: int, direction: Direction) -> tuple[int, bool]:
    """A scripted exchange whose first connection ends behind ``cut_at`` bytes of a direction: bytes in all, cut?"""
    done = {"up": 0, "down": 0}
    cut = threading.Event()

    def tap(link: Link, way: Direction, number: int, unit: bytes) -> bytes | None:
        if link is not proxy.links[0] or (unit[0] < 10 and number < 2 and len(unit) > 40 and unit[1] == 1):
            return unit  # of the handshake, or of a later connection
        done[way] += len(unit)
        if way == direction and done[way] > cut_at and not cut.is_set():
            cut.set()
            rest = len(unit) - (done[way] - cut_at)
            with contextlib.suppress(OSError), link.lock[way]:
                (link.server if way == "up" else link.client).sendall(unit[:rest])
            return None
        return unit

    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with Proxy(listener.addresses[0], tap=tap) as proxy:
            with sync.dial(proxy.address, identity=KEY) as near:
                far = listener.recv(timeout=5)
                a, b = (peer.open("x", bytes, capacity=4) for peer in (near, far))
                c, d = (peer.open("y", int, capacity=0) for peer in (near, far))
                for n in range(3):
                    a.send(bytes([n]) * (50 + 400 * n), timeout=5)
                assert [b.recv(timeout=5)[0] for _ in range(3)] == [0, 1, 2]
                b.send(b"back", timeout=5)
                assert a.recv(timeout=5) == b"back"
                sender = threading.Thread(target=c.send, args=(7,), kwargs={"timeout": 10})
                sender.start()
                assert d.recv(timeout=5) == 7
                sender.join(5)
                assert not sender.is_alive()
                a.send(b"last", timeout=5)
                assert b.recv(timeout=5) == b"last"
                a.close()
                with pytest.raises(netchan.ChannelEnded):
                    b.recv(timeout=5)
                assert resumes(near) <= cut.is_set()
    return done[direction], cut.is_set()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_cut_at_every_17th_byte_of_an_exchange(direction: Direction) -> None:
    total, was_cut = exchange(1 << 30, direction)
    assert not was_cut and total > 300
    step = 1 if os.environ.get("NETCHAN_SEEDS") else 17
    for at in range(0, total, step):
        exchange(at, direction)


def test_linger_is_not_confused_with_a_lost_path() -> None:
    """A peer that leaves cleanly is over at once, whoever closes the connection first, and however."""
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        for hard in (False, True):
            with Proxy(listener.addresses[0]) as proxy:
                near = sync.dial(proxy.address, identity=KEY)
                far = listener.recv(timeout=5)
                near.close()
                far.wait_closed(timeout=SOON)
                assert far.error is None
                if hard:
                    with contextlib.suppress(OSError):
                        proxy.links[0].client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                near.wait_closed(timeout=SOON)
