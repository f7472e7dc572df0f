"""What the tests of the hand-over share: servers as processes, clients that count, and somebody between the two.

Each server process notes which values came in it and how many it sent; joined, they have to be all of them, once and in
order (``check``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import netchan
from netchan import Identity

SESSIONS = int(os.environ.get("NETCHAN_HANDOVER_SESSIONS", "20"))
RESTARTS = int(os.environ.get("NETCHAN_HANDOVER_RESTARTS", "5"))
LONG = SESSIONS >= 1_000
HERE = Path(__file__).resolve().parent
WAIT = 1_800.0 if LONG else 60.0
DIALLING = netchan.Config(lease=60, dial_timeout=60, handshake_timeout=30)
PLACES = {"tcp": "tcp://127.0.0.1:0", "unix": "unix://{}/node.sock", "udp": "udp://127.0.0.1:0"}


class Process:
    """A server process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, place: str, folder: Path, which: str, *more: str, hand: str = "hand") -> Process:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, HERE / "handover_server.py", place, folder / "key", folder / hand, which, *more),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,  # a report is one line
                env=os.environ | {"HANDOVER_PAUSE": "0.1" if LONG else "0.002"},
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

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.name = self.identity.node_id
        self.sent = 0
        self.came: dict[int, int] = {}
        self.at: list[float] = []
        self.stopping = False
        self.peer: netchan.Peer | None = None
        self.nonces = (False, 0)

    async def run(self, address: str, few: asyncio.Semaphore | None = None) -> None:
        async with few or contextlib.nullcontext():
            peer = await netchan.dial(address, identity=self.identity, trust="any", config=DIALLING)
        async with peer:
            self.peer = peer
            up, down = peer.open("up", Any), peer.open("down", Any)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.listen(down))
                while not self.stopping:
                    await up.send(self.sent)
                    self.sent += 1
                    await asyncio.sleep(0.5 if LONG else 0.001)
                await up.flush("received")
                task.cancel()
            stats = peer._core.session.stats()
            self.nonces = stats["nonce_checked"], stats["nonce_repeats"]

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
    assert not any(report["nonce_repeats"] for report in reports)
    assert not any(client.nonces[1] for client in clients)
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
async def served(
    carrier: str, folder: Path, sessions: int, *, whole: bool = True
) -> AsyncIterator[tuple[str, Process, list[Client]]]:
    """A server and clients that talk to it; ``whole``: at the end all that they said has to arrive."""
    place = PLACES[carrier].format(folder)
    first = await Process.start(place, folder, "first")
    address = await first.hear("ready")
    clients = [Client() for _ in range(sessions)]
    few = asyncio.Semaphore(16)
    tasks = [asyncio.create_task(client.run(address, few)) for client in clients]
    try:
        while not all(client.at for client in clients):
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        yield place, first, clients
    finally:
        for client in clients:
            client.stopping = True
        for task in [] if whole else tasks:
            task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WAIT)
        await first.kill()
    assert not whole or ended == [None] * sessions, [end for end in ended if end is not None][:3]


async def restart(place: str, folder: Path, old: Process) -> tuple[Process, dict[str, Any]]:
    """A new process with everything that the old one had, and the report of the old one."""
    old.say("give")
    new = await Process.start(place, folder, "next")
    await new.hear("ready")
    report = await old.hear("gave")
    await new.hear("all")
    assert await old.process.wait() == 0
    return new, report


class Between:
    """Stands between a giver and a taker, passes their packets on, and cuts in before one of them.

    Args:
        giver, taker: paths: where the giver offers, and where the taker asks.
        cut: before a packet of this kind is passed on ``before`` is called; both connections end then, unless that
            returns True.
        nth: the how many-th packet of this kind it is, from 1.
    """

    def __init__(
        self, giver: Path, taker: Path, cut: int = 0, nth: int = 1, before: Callable[[], object] | None = None
    ) -> None:
        self.giver, self.cut, self.nth, self.before = giver, cut, nth, before
        self.seen: Counter[int] = Counter()
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.door.bind(str(taker))
        self.door.listen()

    def run(self) -> None:
        """Until both are through with each other."""
        self.door.settimeout(30)
        new, _ = self.door.accept()
        old = connected(self.giver)
        with new, old, self.door:
            ways = {new: old, old: new}
            while True:
                for sock in select.select([new, old], [], [], 60)[0]:
                    try:
                        data, fds, _, _ = socket.recv_fds(sock, 70_000, 253)
                    except ConnectionResetError:  # it died with something unread
                        return
                    try:
                        if not data:
                            return
                        self.seen[data[0]] += 1
                        if (data[0], self.seen[data[0]]) == (self.cut, self.nth) and not (
                            self.before is not None and self.before() is True
                        ):
                            return
                        socket.send_fds(ways[sock], [data], fds)
                    except (BrokenPipeError, ConnectionResetError):
                        return
                    finally:
                        for fd in fds:
                            os.close(fd)


def connected(path: Path) -> socket.socket:
    """A connection to a giver that is about to offer there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(30)
    until = time.monotonic() + 30
    while True:
        try:
            sock.connect(str(path))
            return sock
        except (FileNotFoundError, ConnectionRefusedError):  # not there, or not listening yet
            assert time.monotonic() < until
            time.sleep(0.01)


async def pass_on(between: Between) -> None:
    await asyncio.wait_for(asyncio.to_thread(between.run), WAIT)


async def until(done: Callable[[], object]) -> None:
    """Wait until something is so, half a minute at most."""
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end, "it has not happened in half a minute"
        await asyncio.sleep(0.01)


async def settle(clients: list[Client]) -> None:
    """Each client hears something new."""
    before = [len(client.at) for client in clients]
    await until(lambda: all(len(client.at) > n + 5 for client, n in zip(clients, before, strict=True)))


# --- in one process ---------------------------------------------------------------------------------------------------


CONFIG = netchan.Config(lease=30)


@asynccontextmanager
async def giving(address: str = "tcp://127.0.0.1:0", clients: int = 1) -> AsyncIterator[tuple[Any, ...]]:
    """Identity of a listener, the listener, peers that dialled it, and the peers that came out of it; in order."""
    me = Identity.generate()
    async with netchan.listen(address, identity=me, trust="any", config=CONFIG) as listener:
        mine, theirs = [], []
        for _ in range(clients):
            mine.append(await netchan.dial(listener.addresses[0], trust="any", config=CONFIG))
            theirs.append(await listener.recv())
        try:
            yield me, listener, mine, theirs
        finally:
            for client in mine:
                client.close()


def run(body: Any) -> None:
    asyncio.run(asyncio.wait_for(body, WAIT))


async def moved(path: Path, given: list[Any], me: Identity, address: str) -> Any:
    """(what was taken over, its listener)."""
    handing = asyncio.create_task(netchan.hand_over(path, *given, wait=30))
    before = await netchan.take_over(path, wait=30)
    listener = await before.listen(address, identity=me, trust="any", config=CONFIG)
    await before.finished()
    await handing
    return before, listener
