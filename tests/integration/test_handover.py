"""Sessions under load whose server is restarted again and again (docs/spec/handover.md): real processes, real sockets.

Each server process notes which values came in it and how many it sent; joined, they have to be all of them, once and in
order. The long run (make handover) has 1 000 sessions and 50 restarts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

import netchan
from netchan import Code, HandoverError, Identity, SessionLost
from netchan._engine import handover_handle
from netchan.net import handover as talk
from tests.integration.proxy import Direction, Link, Proxy

SESSIONS = int(os.environ.get("NETCHAN_HANDOVER_SESSIONS", "20"))
RESTARTS = int(os.environ.get("NETCHAN_HANDOVER_RESTARTS", "5"))
LONG = SESSIONS > 100
HERE = Path(__file__).resolve().parent
WAIT = 600.0 if LONG else 40.0
PLACES = {"tcp": "tcp://127.0.0.1:0", "unix": "unix://{}/node.sock", "udp": "udp://127.0.0.1:0"}
pytestmark = pytest.mark.timeout(2 * WAIT)


class Process:
    """A server process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, place: str, folder: Path, which: str, *more: str) -> Process:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, HERE / "handover_server.py", place, folder / "key", folder / "hand", which, *more),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"HANDOVER_PAUSE": "0.02" if LONG else "0.002"},
            )
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def hear(self, word: str) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, f"the server ended with {await self.process.wait()}"
        said = json.loads(line)
        assert word in said, said
        return said[word]

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Client:
    """One session: counts up on "up", and notes what comes on "down"."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = 0
        self.came: dict[int, int] = {}
        self.at: list[float] = []
        self.stopping = False

    async def run(self, address: str) -> None:
        async with netchan.dial(address, trust="any", config=netchan.Config(lease=20, dial_timeout=30)) as peer:
            up, down = peer.open("up", Any), peer.open("down", Any)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.listen(down))
                while not self.stopping:
                    await up.send((self.name, self.sent))
                    self.sent += 1
                    await asyncio.sleep(0.02 if LONG else 0.001)
                await up.flush("received")
                task.cancel()

    async def listen(self, down: netchan.Channel[Any]) -> None:
        async for pid, n, _ in down:
            assert n == self.came.get(pid, -1) + 1, (pid, n, self.came)
            assert pid == next(reversed(self.came), pid) or n == 0, "a value of a process that was followed by another"
            self.came[pid] = n
            self.at.append(time.monotonic())

    @property
    def longest(self) -> float:
        """Seconds between two values, at most."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)


def check(clients: list[Client], reports: list[dict[str, Any]]) -> None:
    """All that was sent was received once and in order, by one process after the other."""
    assert not [broken for report in reports for broken in report["breaks"]]
    for client in clients:
        runs = [report["heard"][client.name] for report in reports if client.name in report["heard"]]
        assert runs[0][0] == 0
        for (_, last), (first, _) in itertools.pairwise(runs):
            assert first == last + 1, (client.name, runs)
        for report in reports[:-1]:
            accepted = report["sent"].get(client.name, 0)
            assert client.came.get(report["pid"], -1) == accepted - 1, client.name
        assert sum(last + 1 - first for first, last in runs) <= client.sent


@asynccontextmanager
async def served(carrier: str, folder: Path, sessions: int) -> AsyncIterator[tuple[str, Process, list[Client]]]:
    """A server and clients that talk to it."""
    place = PLACES[carrier].format(folder)
    first = await Process.start(place, folder, "first")
    address = await first.hear("ready")
    clients = [Client(f"c{i}") for i in range(sessions)]
    tasks = [asyncio.create_task(client.run(address)) for client in clients]
    try:
        while not all(client.at for client in clients):
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        yield place, first, clients
    finally:
        for client in clients:
            client.stopping = True
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WAIT)
        await first.kill()
    assert ended == [None] * sessions, [end for end in ended if end is not None][:3]


async def restart(place: str, folder: Path, old: Process) -> tuple[Process, dict[str, Any], float]:
    old.say("give")
    began = time.monotonic()
    new = await Process.start(place, folder, "next")
    await new.hear("ready")
    took = time.monotonic() - began
    report = await old.hear("gave")
    assert await old.process.wait() == 0
    return new, report, took


@pytest.mark.parametrize("carrier", list(PLACES))
def test_server_restarted_under_load_loses_and_doubles_nothing(carrier: str, tmp_path: Path) -> None:
    async def body() -> None:
        reports, pauses = [], []
        async with served(carrier, tmp_path, SESSIONS) as (place, process, clients):
            for _ in range(RESTARTS):
                await asyncio.sleep(0.3)
                for client in clients:
                    client.at = client.at[-1:]
                process, report, _ = await restart(place, tmp_path, process)
                reports.append(report)
                await asyncio.sleep(0.3)
                pauses += [client.longest for client in clients]
            for client in clients:
                client.stopping = True
            await asyncio.sleep(1.0)
            last, report, _ = await restart(place, tmp_path, process)
            reports.append(report)
        await last.kill()
        check(clients, reports)
        pauses.sort()
        p99 = pauses[int(len(pauses) * 0.99) - 1]
        print(
            f"\n{carrier}: {SESSIONS} sessions, {RESTARTS} restarts: pause p50 {pauses[len(pauses) // 2] * 1e3:.0f} ms,"
            f" p99 {p99 * 1e3:.0f} ms, {sum(client.sent for client in clients)} values up"
        )
        assert p99 < 5.0

    asyncio.run(asyncio.wait_for(body(), WAIT))


HELLO, BEGIN, ITEM, DATA, END, READY, REFUSED, RELEASE, CANCEL = range(1, 10)


class Between:
    """Stands between a giver and a taker, passes their packets on, and cuts in before one of them.

    Args:
        giver, taker: paths: where the giver offers, and where the taker asks.
        cut: a packet of this kind is not passed on; both connections end instead.
        before: called then, first.
    """

    def __init__(self, giver: Path, taker: Path, cut: int, before: Any = None) -> None:
        self.giver, self.cut, self.before = giver, cut, before
        self.seen: list[int] = []
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.door.bind(str(taker))
        self.door.listen()

    def run(self) -> None:
        self.door.settimeout(20)
        new, _ = self.door.accept()
        old = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        until = time.monotonic() + 10
        while True:
            try:
                old.connect(str(self.giver))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < until
                time.sleep(0.01)
        with new, old, self.door:
            ways = {new: old, old: new}
            while True:
                for sock in select.select([new, old], [], [])[0]:
                    data, fds, _, _ = socket.recv_fds(sock, 70_000, 253)
                    if not data:
                        return
                    self.seen.append(data[0])
                    if data[0] == self.cut:
                        for fd in fds:
                            os.close(fd)
                        if self.before is not None:
                            self.before()
                        return
                    socket.send_fds(ways[sock], [data], fds)
                    for fd in fds:
                        os.close(fd)


async def pass_on(between: Between) -> None:
    await asyncio.wait_for(asyncio.to_thread(between.run), WAIT)


async def settle(clients: list[Client]) -> None:
    """Each client hears something new."""
    before = [len(client.at) for client in clients]
    while any(len(client.at) <= n + 20 for client, n in zip(clients, before, strict=True)):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("cut", [BEGIN, ITEM, DATA, END, READY], ids=["BEGIN", "ITEM", "DATA", "END", "READY"])
def test_taker_dies_before_the_release_and_everything_goes_on_where_it_was(cut: int, tmp_path: Path) -> None:
    async def body() -> None:
        async with served("tcp", tmp_path, 4) as (place, old, clients):
            between = Between(tmp_path / "hand", tmp_path / "other", cut)
            os.rename(tmp_path / "other", tmp_path / "asked")  # the new one finds the path below
            old.say("give")
            new = await asyncio.create_subprocess_exec(
                *(sys.executable, HERE / "handover_server.py", place, tmp_path / "key", tmp_path / "asked", "next"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            between.before = new.kill
            await pass_on(between)
            assert cut in between.seen
            assert await old.hear("kept")
            await new.wait()
            await settle(clients)
            assert len({pid for client in clients for pid in client.came}) == 1
            process, report, _ = await restart(place, tmp_path, old)
            await settle(clients)
            for client in clients:
                client.stopping = True
            await asyncio.sleep(0.5)
            last, final, _ = await restart(place, tmp_path, process)
        await last.kill()
        check(clients, [report, final])

    asyncio.run(asyncio.wait_for(body(), WAIT))


def test_giver_dies_after_ready_and_the_taker_goes_on_with_everything(tmp_path: Path) -> None:
    async def body() -> None:
        async with served("tcp", tmp_path, 4) as (place, old, clients):
            for client in clients:
                client.at.clear()
            between = Between(tmp_path / "hand", tmp_path / "asked", RELEASE, old.process.kill)
            old.say("give")
            new = Process(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, HERE / "handover_server.py", place, tmp_path / "key", tmp_path / "asked", "next"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
            await pass_on(between)
            assert READY in between.seen and RELEASE in between.seen
            await new.hear("ready")
            await settle(clients)
            assert {len(client.came) for client in clients} == {2}
            for client in clients:
                client.stopping = True
            await asyncio.sleep(0.5)
        await new.kill()

    asyncio.run(asyncio.wait_for(body(), WAIT))


def test_giver_dies_before_everything_was_said_and_the_taker_takes_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with netchan.listen("tcp://127.0.0.1:0", trust="any") as listener:
            async with netchan.dial(listener.addresses[0], trust="any") as peer:
                other = await listener.recv()
                between = Between(tmp_path / "hand", tmp_path / "asked", END)
                passing = asyncio.create_task(pass_on(between))
                giving = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=5))
                with pytest.raises(HandoverError):
                    async with netchan.take_over(tmp_path / "asked", wait=5):
                        raise AssertionError("nothing was there to take")
                with pytest.raises(HandoverError):
                    await giving
                await passing
                assert peer.path_count == other.path_count == 1

    asyncio.run(asyncio.wait_for(body(), WAIT))


def test_taker_that_may_open_no_descriptors_refuses_and_everything_is_taken_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with served("tcp", tmp_path, 20) as (place, old, clients):
            old.say("give")
            new = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    HERE / "handover_server.py",
                    place,
                    tmp_path / "key",
                    tmp_path / "hand",
                    "next",
                    "24",
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert "descriptors" in await old.hear("kept")
            assert b"descriptors" in (await new.communicate())[1]
            await settle(clients)
            assert len({pid for client in clients for pid in client.came}) == 1

    asyncio.run(asyncio.wait_for(body(), WAIT))


# --- in one process ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def giving(folder: Path, address: str = "tcp://127.0.0.1:0") -> AsyncIterator[tuple[Any, ...]]:
    """A listener, a peer that dialled it, and the peer that came out of it."""
    me = Identity.generate()
    config = netchan.Config(lease=20)
    async with netchan.listen(address, identity=me, trust="any", config=config) as listener:
        async with netchan.dial(listener.addresses[0], trust="any", config=config) as client:
            yield me, listener, client, await listener.recv()


def run(body: Any) -> None:
    asyncio.run(asyncio.wait_for(body, WAIT))


async def moved(path: Path, given: list[Any], me: Identity, address: str) -> Any:
    """(what was taken over, its listener)."""
    handing = asyncio.create_task(netchan.hand_over(path, *given, wait=5))
    before = await netchan.take_over(path, wait=5)
    await handing
    return before, await before.listen(address, identity=me, trust="any", config=netchan.Config(lease=20))


def test_calls_that_wait_in_the_old_process_hear_where_their_session_is(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(tmp_path) as (me, listener, client, peer):
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


def test_channels_are_found_again_by_name_by_iteration_and_as_offers(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(tmp_path) as (me, listener, client, peer):
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
        async with giving(tmp_path) as (_, listener, client, peer):
            here, there = client.open("c", int), peer.open("c", int)
            await here.send(1)
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", client, wait=5))
            async with netchan.take_over(tmp_path / "hand", wait=5) as before:
                await handing
                fresh = await before.dial(listener.addresses[0], trust="any", config=netchan.Config(lease=20))
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
        async with giving(tmp_path) as (_, listener, client, _peer):
            channel = client.open("c", int)
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=5))
            async with netchan.take_over(tmp_path / "hand", wait=5) as before:
                await handing
                assert before.happened
            with pytest.raises(netchan.ChannelAborted) as caught:
                await channel.recv()
            assert caught.value.code == Code.HANDED_OVER

    run(body())


def test_channel_that_came_in_a_value_is_aborted_and_one_in_an_untaken_value_moves(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(tmp_path) as (me, listener, client, peer):
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
        async with giving(tmp_path) as (_, listener, client, peer):
            with pytest.raises(HandoverError, match="nobody came"):
                await netchan.hand_over(tmp_path / "hand", listener, wait=0.1)
            assert not (tmp_path / "hand").exists()
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1
            async with netchan.take_over(tmp_path / "hand") as before:
                assert not before.happened

    run(body())


def talk_to(path: Path, packets: list[bytes], fds: list[int] | None = None) -> bytes:
    """Say these packets to a giver; the last thing it says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        while True:
            try:
                sock.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):  # not there, or not listening yet
                time.sleep(0.01)
        last = b""
        for packet in packets:
            socket.send_fds(sock, [packet], fds or [])
        while True:
            data, came, _, _ = socket.recv_fds(sock, 70_000, 253)
            for fd in came:
                os.close(fd)
            if not data:
                return last
            last = data


@pytest.mark.parametrize(
    "packets",
    [[b"\x01\0\2"], [b"\x01"], [b"\x01\0\1", b"\x07full"], [b"\x01\0\1", b"\x42"], [b"\x08"], [b"\xff" * 60_000]],
    ids=["version", "short", "refused", "unknown", "release", "noise"],
)
def test_giver_takes_everything_back_whatever_the_other_one_says(packets: list[bytes], tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(tmp_path) as (_, listener, client, peer):
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=5))
            await asyncio.to_thread(talk_to, tmp_path / "hand", packets)
            with pytest.raises(HandoverError):
                await handing
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1

    run(body())


def give_noise(path: Path, packets: list[tuple[bytes, list[int]]]) -> list[bytes]:
    """Offer these packets at a path; what the taker said."""
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(path))
        door.listen()
        door.settimeout(10)
        conn, _ = door.accept()
        with conn:
            conn.settimeout(10)
            heard.append(conn.recv(100))
            try:
                for packet, fds in packets:
                    socket.send_fds(conn, [packet], fds)
                heard.append(conn.recv(70_000))
            except OSError:
                pass
    return heard


def item(about: Any, state: bytes = b"", n_fds: int = 0) -> list[tuple[bytes, list[int]]]:
    data = msgpack.packb(about)
    head = struct.pack("!BHQQ", ITEM, n_fds, len(data), len(state))
    return [(head, []), *((bytes((DATA,)) + part, []) for part in (data, state) if part)]


ONE = (struct.pack("!BHI", BEGIN, 1, 1), [])
SESSION = {
    "session": -1,
    "cipher": 1,
    "link": ["tcp", "", "", "x" * 52, 1, True],
    "links": [],
    "where": {},
    "ratchet": 0,
    "answered": 0,
    "known": [],
    "redial": None,
    "channels": {"accepted": [], "returned": {}},
}


@pytest.mark.parametrize(
    "packets",
    [
        [(struct.pack("!BHI", BEGIN, 2, 1), [])],
        [(struct.pack("!BHI", BEGIN, 1, 1 << 20), [])],
        [(b"\x02", [])],
        [ONE, (struct.pack("!BHQQ", ITEM, 0, 1 << 40, 0), [])],
        [ONE, (struct.pack("!BHQQ", ITEM, 0, 4, 1 << 40), [])],
        [ONE, (struct.pack("!BHQQ", ITEM, 1, 4, 0), [])],
        [ONE, *item(["no dict"])],
        [ONE, *item({"cipher": 1})],
        [ONE, *item(SESSION, b"noise" * 100)],
        [ONE, *item(SESSION, b"ncho\0\0\0\2" + bytes(600))],
        [ONE, *item(SESSION | {"cipher": 9}, bytes(600))],
        [ONE, (bytes((DATA,)), [])],
        [ONE, (bytes((END,)), [])],
        [ONE, (bytes((CANCEL,)) + b"no", [])],
    ],
    ids=lambda packets: packets[-1][0][:12].hex() if isinstance(packets, list) else None,
)
def test_taker_refuses_what_is_no_hand_over_and_keeps_nothing(packets: list[Any], tmp_path: Path) -> None:
    async def body() -> None:
        open_before = len(os.listdir("/proc/self/fd"))
        given = asyncio.create_task(asyncio.to_thread(give_noise, tmp_path / "hand", packets))
        await asyncio.sleep(0.05)
        with pytest.raises(HandoverError):
            async with netchan.take_over(tmp_path / "hand", wait=5):
                raise AssertionError("something was taken")
        heard = await given
        assert heard[0] == b"\x01\0\1"
        assert len(heard) < 2 or heard[1][:1] in (b"", bytes((REFUSED,)))
        while len(os.listdir("/proc/self/fd")) > open_before + 8:  # a loop and the worker
            await asyncio.sleep(0.01)

    run(body())


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_another_user_gets_nothing_and_gives_nothing(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys, time\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "try:\n    s.connect(sys.argv[1])\n"
        "except PermissionError:\n    print('no'); sys.exit()\n"
        "s.settimeout(5)\ns.send(bytes((1, 0, 1)))\nprint(repr(s.recv(100)))\n"
    )

    async def ask(path: Path) -> str:
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return (await asking.communicate())[0].decode()

    async def body() -> None:
        folder = tmp_path
        while folder != Path("/tmp"):
            folder.chmod(0o755)
            folder = folder.parent
        async with giving(tmp_path) as (_, listener, client, peer):
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=3))
            while not (tmp_path / "hand").exists():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert (tmp_path / "hand").stat().st_mode & 0o777 == 0o600
            assert await ask(tmp_path / "hand") == "no\n"
            (tmp_path / "hand").chmod(0o666)  # somebody has opened it by mistake: credentials count
            said = await ask(tmp_path / "hand")
            assert re.search(r"ConnectionReset|BrokenPipe|^b''$", said, re.MULTILINE), said
            handing.cancel()
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1

    run(body())


def test_limits_are_those_that_are_written_down() -> None:
    assert (talk.FDS_MAX, talk.ITEMS_MAX, talk.STATE_MAX) == (253, 65_536, 1 << 28)


def test_record_that_the_kernel_took_half_of_goes_on_in_the_new_process(tmp_path: Path) -> None:
    """The network takes nothing for a while: sealed bytes wait in the old process, and go first in the new one."""

    async def body() -> None:
        me = Identity.generate()
        config = netchan.Config(lease=20)
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
