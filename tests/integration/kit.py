"""What the tests of the rules share: programs on both loops, a session in one process, a wire that can be cut."""

from __future__ import annotations

import asyncio
import inspect
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

import netchan
from netchan import Identity, Listener, Peer

TCP = "tcp://127.0.0.1:0"
WAIT = 20.0
"""Seconds after which anything that should have happened is a failure."""
BOSS, KEY = Identity.generate(), Identity.generate()
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def program(body: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function: run under asyncio and under uvloop, bounded by WAIT."""

    def run(loop_kind: str, **arguments: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(WAIT):
                await body(**arguments)

        with asyncio.Runner(loop_factory=LOOPS[loop_kind]) as runner:
            runner.run(bounded())

    run.__name__, run.__doc__, run.__module__ = body.__name__, body.__doc__, body.__module__
    kind = inspect.Parameter("loop_kind", inspect.Parameter.KEYWORD_ONLY)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(body).parameters.values()]
    run.__signature__ = inspect.Signature([kind, *own])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop_kind", list(LOOPS))(run)


@asynccontextmanager
async def session(carrier: str = "unix", *, far: Any = None, **config: Any) -> AsyncIterator[tuple[Peer, Peer]]:
    """The peer that dialled and the peer that came out of the listener; ``far``: Config of the listening side."""
    settings = netchan.Config(**config)
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        place = TCP if carrier == "tcp" else f"unix://{Path(folder, 'node.sock')}"
        async with netchan.listen(place, identity=BOSS, trust=[KEY.node_id], config=far or settings) as listener:
            async with netchan.dial(listener.addresses[0], identity=KEY, config=settings) as dialled:
                yield dialled, await listener.recv()


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Listener]:
    async with netchan.listen(TCP, **({"identity": BOSS, "trust": "any"} | options)) as listener:
        yield listener


async def until(condition: Callable[[], bool], what: str = "it never happened") -> None:
    """Let everything run until the condition holds."""
    end = time.monotonic() + WAIT / 2
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.001)


async def joined(near: Peer, far: Peer, name: str, type: Any = int, capacity: int | None = None) -> tuple[Any, Any]:
    """Both ends of a channel, open on both sides and known to both."""
    there, here = near.open(name, type, capacity=capacity), far.open(name, type, capacity=capacity)
    await until(lambda: there._ep.paired and here._ep.paired)
    return there, here


def fill(channel: Any, value: Any = 0, most: int = 1 << 20) -> int:
    """Send without waiting until there is no room; how many were accepted."""
    for n in range(most):
        try:
            channel.send_nowait(value)
        except netchan.WouldBlock:
            return n
    return most


class Wire:
    """A TCP forwarder in this loop: what goes through can be held back, and the connection cut without a word."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._flowing = asyncio.Event()
        self._flowing.set()

    @classmethod
    async def to(cls, address: str) -> tuple[Wire, str]:
        """A wire to a listener's address, and the address to dial instead."""
        self = cls()
        node, _, place = address.removeprefix("tcp://").partition("@")
        host, _, port = place.rpartition(":")

        async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner, outer = await asyncio.open_connection(host, int(port))
            self._ends += [writer, outer]
            self._tasks += [asyncio.create_task(self._carry(*pair)) for pair in ((reader, outer), (inner, writer))]

        self._server = await asyncio.start_server(joined, "127.0.0.1", 0)
        return self, f"tcp://{node}@127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    def hold(self) -> None:
        """Nothing goes through any more; the connections stay."""
        self._flowing.clear()

    def go_on(self) -> None:
        """What was held back goes through, and all that follows."""
        self._flowing.set()

    async def cut(self) -> None:
        """End all connections at once."""
        for task in self._tasks:
            task.cancel()
        for end in self._ends:
            end.transport.abort()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


Step = Callable[[random.Random | None, Callable[[], object] | None], None]
"""``step(rng, hit)`` has ``hit()`` called at moments drawn from ``rng``; ``step(None, None)`` ends that."""


def at_steps(loop: Any, span: int, most: int) -> Step:
    """Hits before 1 to ``most`` - 1 of the next ``span`` steps of a CountingLoop."""
    taken = 0
    at: list[int] = []
    call: Callable[[], object] = lambda: None  # noqa: E731

    def on_step() -> None:
        nonlocal taken
        taken += 1
        while at and at[0] <= taken:
            at.pop(0)
            call()

    def step(rng: random.Random | None, hit: Callable[[], object] | None) -> None:
        nonlocal taken, call
        loop.on_step = None
        if rng is not None and hit is not None:
            taken, call = 0, hit
            at[:] = sorted(rng.randrange(1, span) for _ in range(rng.randrange(1, most)))
            loop.on_step = on_step

    return step


def at_turns(span: int, most: int) -> Step:
    """The same with turns of the running loop, whatever loop it is."""

    def step(rng: random.Random | None, hit: Callable[[], object] | None) -> None:
        if rng is None or hit is None:
            return
        loop = asyncio.get_running_loop()
        left = [rng.randrange(1, span) for _ in range(rng.randrange(1, most))]

        def turn() -> None:
            left[:] = [n - 1 for n in left]
            for _ in range(left.count(0)):
                hit()
            if any(n > 0 for n in left):
                loop.call_soon(turn)

        loop.call_soon(turn)

    return step
