"""Makers of (Sender, Receiver) pairs and the two fronts, so that one program tests them all.

A test is a coroutine; ``Front.do`` runs a call of the async front on the loop, one of the blocking front in a thread.
Makers in process: "channel", "pipe". Makers across a session, both sides in this process: "session" (a socket pair and
no handshake), "tcp" and "unix" (``listen`` and ``dial``). The engines of the async front belong to the running loop,
those of the blocking front are driven by the threads that wait.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netchan
from netchan import sync
from netchan._engine.engine_handle import Engine
from netchan.channel import fronts as async_fronts
from netchan.net.manager import loop_engine
from netchan.sync import fronts as sync_fronts
from netchan.testing.pair import Side, joined

PATIENCE = 20.0
"""Seconds after which a call that should have returned is a failure."""
CLOSE_CLEAN = 0


@dataclass
class Ends:
    """The two halves of one direction, and whole ends where there are two."""

    tx: Any
    rx: Any
    near: Any
    far: Any


class SocketPair:
    """Two sessions over a socket pair, opened by name like peers."""

    def __init__(self, module: Any, sides: tuple[Side, Side]) -> None:
        self._module = module
        self._sides = sides

    @classmethod
    async def make(cls, module: Any, **options: Any) -> SocketPair:
        if module is async_fronts:
            engine = await loop_engine()
            return cls(module, joined(engines=(engine, engine), **options))
        return cls(module, joined(engines=_caller_engines(), **options))

    def open(self, name: str, type: Any, capacity: int | None) -> tuple[Any, Any]:
        near, far = (self._module.Channel(side.open(name, type, capacity)) for side in self._sides)
        return near, far

    def close(self) -> None:
        for side in self._sides:
            side.session.close(CLOSE_CLEAN)


class Dialled:
    """The two peers of a session made with ``listen`` and ``dial``."""

    def __init__(self, carrier: str, blocking: bool) -> None:
        self.carrier, self.blocking = carrier, blocking
        self.listener: Any = None
        self.peers: tuple[Any, Any] = (None, None)

    @classmethod
    async def make(cls, carrier: str, module: Any, **config: Any) -> Dialled:
        self = cls(carrier, module is sync_fronts)
        self._folder = tempfile.TemporaryDirectory(prefix="netchan-")
        place = "tcp://127.0.0.1:0" if carrier == "tcp" else f"unix://{Path(self._folder.name, 'node.sock')}"
        settings = netchan.Config(**config)
        options: dict[str, Any] = {"config": settings} | ({"trust": "any"} if carrier == "tcp" else {})
        if self.blocking:
            self.listener = sync.listen(place, **options)
            peer = sync.dial(self.listener.addresses[0], config=settings, timeout=PATIENCE)
            self.peers = (peer, self.listener.recv(timeout=PATIENCE))
        else:
            async with asyncio.timeout(PATIENCE):
                self.listener = await netchan.listen(place, **options)
                peer = await netchan.dial(self.listener.addresses[0], config=settings)
                self.peers = (peer, await self.listener.recv())
        return self

    def open(self, name: str, type: Any, capacity: int | None) -> tuple[Any, Any]:
        near, far = (peer.open(name, type, capacity=capacity) for peer in self.peers)
        return near, far

    def close(self) -> None:
        for peer in self.peers:
            peer._core.leave_by_exception()
        self.listener._hall.leave_by_exception()
        end = time.monotonic() + PATIENCE
        while not all(peer._core.over for peer in self.peers) and time.monotonic() < end:
            time.sleep(0.001)
        self._folder.cleanup()


_blocking_engines: list[Engine] = []


def _caller_engines() -> tuple[Engine, Engine]:
    """One engine per side, so that each side's thread drives its own; made once, like those of a process."""
    while len(_blocking_engines) < 2:
        _blocking_engines.append(Engine("caller"))
    return _blocking_engines[0], _blocking_engines[1]


class Front:
    def __init__(self, maker: str, module: Any) -> None:
        self.maker = maker
        self.module = module
        self.blocking = module is sync_fronts
        self.remote = maker in ("session", "tcp", "unix")
        self._made: list[Ends] = []
        self._link: Any = None
        self._numbers = itertools.count(1)

    async def make(self, capacity: int, type: Any = Any) -> Ends:
        ends = await self._make(capacity, type)
        self._made.append(ends)
        return ends

    def end_all(self) -> None:
        """End every channel and session made, so that only tests about dropped handles drop any."""
        for ends in self._made:
            for handle in (ends.tx, ends.rx, ends.near, ends.far):
                if handle is not None:
                    handle.abort()
        self._made.clear()
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _make(self, capacity: int, type: Any) -> Ends:
        if self.maker == "channel":
            ch = self.module.channel(capacity=capacity)
            tx, rx = ch.split()
            return Ends(tx, rx, ch, ch)
        if self.remote:
            near, far = await self._across(capacity, type)
        else:
            near, far = self.module.pipe(capacity=capacity)
        tx, _ = near.split()
        _, rx = far.split()
        return Ends(tx, rx, near, far)

    async def _across(self, capacity: int, type: Any) -> tuple[Any, Any]:
        if self._link is None:
            make = SocketPair.make(self.module) if self.maker == "session" else Dialled.make(self.maker, self.module)
            self._link = await make
        near, far = self._link.open(f"c{next(self._numbers)}", type, capacity)
        # both sides know of each other: what holds before is R17 and has tests of its own
        await until(lambda: near._ep.paired and far._ep.paired)
        return near, far

    async def do(self, handle: Any, verb: str, *args: Any, **options: Any) -> Any:
        method = getattr(handle, verb)
        if self.blocking:
            return await asyncio.to_thread(method, *args, timeout=PATIENCE, **options)
        async with asyncio.timeout(PATIENCE):
            return await method(*args, **options)

    def start(self, handle: Any, verb: str, *args: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.do(handle, verb, *args, **options))

    async def enter(self, context: Any) -> tuple[Any, Any]:
        """A context manager of this front, entered: it, and what it gave."""
        if self.blocking:
            return context, await asyncio.to_thread(context.__enter__)
        async with asyncio.timeout(PATIENCE):
            return context, await context.__aenter__()

    async def leave(self, context: Any) -> None:
        if self.blocking:
            await asyncio.to_thread(context.__exit__, None, None, None)
        else:
            await context.__aexit__(None, None, None)

    async def drain(self, handle: Any) -> list[Any]:
        if self.blocking:
            return await asyncio.to_thread(list, handle)
        return [value async for value in handle]


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks and threads run until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


LOCAL, REMOTE = ("channel", "pipe"), ("session", "tcp", "unix")
FRONTS = [Front(maker, module) for maker in (*LOCAL, *REMOTE) for module in (async_fronts, sync_fronts)]
FRONT_IDS = [f"{f.maker}-{'blocking' if f.blocking else 'asyncio'}" for f in FRONTS]
