"""The contract between the benchmark and one peer, and the measuring loops that all peers share.

A peer module gives a ``Peer`` (name, fronts, what it can do) whose ``side()`` makes one end. A side listens and accepts
or dials; both give a link. A link has four verbs (send, recv, send_batch, recv_batch) written as a good user of that
library would write them; the loops round them are here, so that all rows pay the same for counting and checking.
A peer whose natural use is not "call send in a loop" overrides the loop itself.

Blocking and asyncio links have the same names; the loops exist twice because an ``await`` costs something and belongs
to what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.e2e.values import Expected

BLOCKING, ASYNCIO, UVLOOP = "blocking", "asyncio", "uvloop"
FRONTS = (BLOCKING, ASYNCIO, UVLOOP)
ONE, BATCH = "one", "batch"


class Miscount(Exception):
    """A message was lost, doubled, reordered or changed on its way: the row is void."""


@dataclass(frozen=True)
class Spec:
    """What a side is made for.

    Attributes:
        folder: temporary folder with the keys that ``Peer.prepare`` wrote.
        front: ``blocking``, ``asyncio`` or ``uvloop``.
        workload: ``w1``, ``w2``, ``w4``, ``w5`` or ``w5c``.
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
    """One library under test. ``rows`` says which workload and style exist on which front."""

    name: str
    encrypted: bool
    mutual: bool

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
