"""The contract between the benchmark and one peer, and the measuring loops that all peers share.

A peer module gives a ``Peer`` (name, fronts, what it can do) whose ``side()`` makes one end. A side listens and accepts
or dials; both give a link. A link has four verbs (send, recv, send_batch, recv_batch) written as a good user of that
library would write them; the loops round them are here, so that all rows pay the same for counting and checking.
A peer whose natural use is not "call send in a loop" overrides the loop itself.

Blocking and asyncio links have the same names; the loops exist twice because an ``await`` costs something and belongs
to what is measured.

W3 and W3b have ``FAN`` connections between the two processes. Every connection that is read, and in W3 every one that
is written, has a thread of its own on the blocking front and a task of its own on a loop, as a program that knows
nothing of the others has it. In W3b one thread or task gives each message to all connections, one after the other.
W3c and its kin go over many channels of one session in turn.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.e2e.values import SOURCE_AT, Expected

BLOCKING, ASYNCIO, UVLOOP = "blocking", "asyncio", "uvloop"
FRONTS = (BLOCKING, ASYNCIO, UVLOOP)
ONE, BATCH = "one", "batch"
FAN = 8  # connections of W3 and W3b
FANS = ("w3", "w3b")
CHANNELS = 1000  # W3c


@dataclass(frozen=True)
class Turns:
    """How W3c and its kin go round: `each` values one after the other on a channel, then on to the next one."""

    each: int
    trunk: bool


TURNS = {"w3c": Turns(1, False), "w3ct": Turns(1, True), "w3cs": Turns(8, False), "w3cst": Turns(8, True)}


class Miscount(Exception):
    """A message was lost, doubled, reordered or changed on its way: the row is void."""


@dataclass(frozen=True)
class Spec:
    """What a side is made for.

    Attributes:
        folder: temporary folder with the keys that ``Peer.prepare`` wrote.
        front: ``blocking``, ``asyncio`` or ``uvloop``.
        workload: a name of bench/README.md: ``w1``, ``w2``, ``w3`` ...
        style: ``one`` or ``batch``.
        size: length of a message in bytes.
    """

    folder: Path
    front: str
    workload: str
    style: str
    size: int


class Link:
    """One session as a blocking program uses it."""

    send: Any
    recv: Any

    def send_batch(self, values: list[bytes]) -> None:
        """Send all values with one call."""
        raise NotImplementedError

    def recv_batch(self) -> Sequence[object]:
        """Return the values that are here, at least one."""
        raise NotImplementedError

    def flush(self) -> None:
        """Return when nothing waits in this process any more, where the library has such a call."""

    def close(self) -> None:
        """End the session."""
        raise NotImplementedError

    def send_each(self, values: Iterable[bytes]) -> None:
        """W1, one call a message."""
        send = self.send
        for value in values:
            send(value)

    def recv_each(self, wants: Iterable[object]) -> None:
        """W1, one call a message; every message is compared with what was sent."""
        recv = self.recv
        for want in wants:
            if recv() != want:
                raise Miscount(f"expected {want!r:.80}")

    def send_batches(self, batches: Iterable[list[bytes]]) -> None:
        """W1, one call a batch."""
        send_batch = self.send_batch
        for batch in batches:
            send_batch(batch)

    def recv_batches(self, expected: Expected, n: int) -> None:
        """W1, as many messages a call as are here; every message is compared with what was sent."""
        recv_batch = self.recv_batch
        while n > 0:
            got = recv_batch()
            if got != expected.take(len(got)):
                raise Miscount(f"a batch of {len(got)} differs, {n} messages were to come")
            n -= len(got)
        if n:
            raise Miscount(f"{-n} messages too many")

    def send_share(self, values: Iterable[bytes]) -> None:
        """W3, what one of the connections carries."""
        self.send_each(values)
        self.flush()

    def recv_mixed(self, due: Sequence[Iterator[bytes]], n: int) -> None:
        """W3, all senders through one queue; every message is compared with the next one of its sender."""
        recv = self.recv
        for _ in range(n):
            check_mixed(recv(), due)

    def ping(self, values: Iterable[bytes]) -> list[int]:
        """W2: round-trip times in ns."""
        clock, send, recv = time.perf_counter_ns, self.send, self.recv
        trips = []
        for value in values:
            start = clock()
            send(value)
            got = recv()
            trips.append(clock() - start)
            if got != value:
                raise Miscount("the echo differs")
        return trips

    def pong(self, n: int) -> None:
        """W2: send n messages back."""
        send, recv = self.send, self.recv
        for _ in range(n):
            send(recv())


class AsyncLink:
    """One session as an asyncio program uses it; the same verbs as coroutines."""

    send: Any
    recv: Any

    async def send_batch(self, values: list[bytes]) -> None:
        """Send all values with one call."""
        raise NotImplementedError

    async def recv_batch(self) -> Sequence[object]:
        """Return the values that are here, at least one."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Return when nothing waits in this process any more, where the library has such a call."""

    async def close(self) -> None:
        """End the session."""
        raise NotImplementedError

    async def send_each(self, values: Iterable[bytes]) -> None:
        """W1, one await a message."""
        send = self.send
        for value in values:
            await send(value)

    async def recv_each(self, wants: Iterable[object]) -> None:
        """W1, one await a message; every message is compared with what was sent."""
        recv = self.recv
        for want in wants:
            if await recv() != want:
                raise Miscount(f"expected {want!r:.80}")

    async def send_batches(self, batches: Iterable[list[bytes]]) -> None:
        """W1, one await a batch."""
        send_batch = self.send_batch
        for batch in batches:
            await send_batch(batch)

    async def recv_batches(self, expected: Expected, n: int) -> None:
        """W1, as many messages an await as are here; every message is compared with what was sent."""
        recv_batch = self.recv_batch
        while n > 0:
            got = await recv_batch()
            if got != expected.take(len(got)):
                raise Miscount(f"a batch of {len(got)} differs, {n} messages were to come")
            n -= len(got)
        if n:
            raise Miscount(f"{-n} messages too many")

    async def send_share(self, values: Iterable[bytes]) -> None:
        """W3, what one of the connections carries."""
        await self.send_each(values)
        await self.flush()

    async def recv_mixed(self, due: Sequence[Iterator[bytes]], n: int) -> None:
        """W3, all senders through one queue; every message is compared with the next one of its sender."""
        recv = self.recv
        for _ in range(n):
            check_mixed(await recv(), due)

    async def ping(self, values: Iterable[bytes]) -> list[int]:
        """W2: round-trip times in ns."""
        clock, send, recv = time.perf_counter_ns, self.send, self.recv
        trips = []
        for value in values:
            start = clock()
            await send(value)
            got = await recv()
            trips.append(clock() - start)
            if got != value:
                raise Miscount("the echo differs")
        return trips

    async def pong(self, n: int) -> None:
        """W2: send n messages back."""
        send, recv = self.send, self.recv
        for _ in range(n):
            await send(await recv())


def check_mixed(value: bytes, due: Sequence[Iterator[bytes]]) -> None:
    """Compare a message with the next one that is due of its sender.

    Raises:
        Miscount: it is another one, or that sender has nothing left to send, or there is no such sender.
    """
    source = value[SOURCE_AT]
    if source >= len(due) or next(due[source], None) != value:
        raise Miscount(f"not the next message of sender {source}: {value!r:.80}")


def send_to_all(links: Sequence[Link], values: Iterable[bytes]) -> None:
    """W3b: each message on every link, then the next one."""
    sends = [link.send for link in links]
    for value in values:
        for send in sends:
            send(value)
    for link in links:
        link.flush()


async def await_send_to_all(links: Sequence[AsyncLink], values: Iterable[bytes]) -> None:
    """W3b on a loop."""
    sends = [link.send for link in links]
    for value in values:
        for send in sends:
            await send(value)
    for link in links:
        await link.flush()


def in_threads(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls at the same time, each in a thread; the first error is raised without waiting for the others."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as failure:
            ended.put(failure)
        else:
            ended.put(None)

    for call in calls:
        threading.Thread(target=run, args=(call,), daemon=True).start()
    for _ in calls:
        if failure := ended.get():
            raise failure


class Side(Protocol):
    """One end in one process. In the asyncio fronts every method gives an awaitable."""

    def listen(self) -> Any:
        """Receiver: bind, give the address to dial as a string."""

    def accept(self) -> Any:
        """Receiver: give the link of the next session."""

    def dial(self, address: str) -> Any:
        """Sender: give a link to the receiver."""

    def stop(self) -> Any:
        """Both: let go of everything."""


class Peer(Protocol):
    """One library under test. ``offers`` says which workload and style exist on which front.

    ``joins`` says that the library itself brings the messages of several connections into one queue and gives one
    message to several connections: the receiver of W3 and the sender of W3b then have one link instead of ``FAN``.
    """

    name: str
    encrypted: bool
    mutual: bool
    joins: bool

    def missing(self) -> str | None:
        """Say why it cannot run here, or None."""

    def versions(self) -> dict[str, str]:
        """Give the versions that decide its figures."""

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        """Say whether this row exists."""

    def prepare(self, folder: Path) -> None:
        """Write keys and certificates; called once, before any process starts."""

    def side(self, spec: Spec) -> Side:
        """Make one end, in the process that uses it."""
