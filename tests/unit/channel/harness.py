"""Makers of (Sender, Receiver) pairs and the two fronts, so that one program tests them all.

A test is a coroutine on asyncio; ``Front.do`` runs a call of the async front on its loop, or on a trio run in a thread
of its own, and one of the blocking front in a thread.
Makers in process: "channel", "pipe". Makers across a session, both sides in this process: "session" (a socket pair and
no handshake), "tcp" and "unix" (``listen`` and ``dial``). The engines of the async front belong to the running loop,
those of the blocking front are driven by the threads that wait.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import trio
import uvloop

import netchan
from netchan import sync
from netchan._engine.engine_handle import Engine
from netchan.channel import fronts as async_fronts
from netchan.net.manager import loop_engine
from netchan.sync import fronts as sync_fronts
from netchan.testing.pair import Side, joined

PATIENCE = float(os.environ.get("NETCHAN_PATIENCE", "20"))
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


class TrioRun:
    """A trio run on a thread of its own, for as long as the tests last."""

    def __init__(self) -> None:
        self._token: Any = None
        self._up = threading.Event()

    def call(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run an async function there; from any other thread."""
        if self._token is None:
            threading.Thread(target=trio.run, args=(self._main,), name="trio", daemon=True).start()
            self._up.wait(PATIENCE)

        async def bounded() -> Any:
            with trio.fail_after(PATIENCE):
                return await call(*args, **options)

        return trio.from_thread.run(bounded, trio_token=self._token)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        end = trio.Event()
        atexit.register(self._token.run_sync_soon, end.set)
        self._up.set()
        await end.wait()


TRIO = TrioRun()


class Front:
    def __init__(self, maker: str, library: str) -> None:
        self.maker = maker
        self.library = library
        self.blocking = library == "blocking"
        self.loop_factory = uvloop.new_event_loop if library == "uvloop" else None
        self.module = sync_fronts if self.blocking else async_fronts
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
            if self.maker == "session":
                self._link = await self.run(SocketPair.make, self.module)
            else:
                self._link = await self.run(Dialled.make, self.maker, self.module)
        near, far = self._link.open(f"c{next(self._numbers)}", type, capacity)
        # both sides know of each other: what holds before is R17 and has tests of its own
        await until(lambda: near._ep.paired and far._ep.paired)
        return near, far

    async def run(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Await an async function where this front's calls run: on the loop, or on trio."""
        if self.library == "trio":
            return await asyncio.to_thread(TRIO.call, call, *args, **options)
        async with asyncio.timeout(PATIENCE):
            return await call(*args, **options)

    async def do(self, handle: Any, verb: str, *args: Any, **options: Any) -> Any:
        method = getattr(handle, verb)
        if self.blocking:
            return await asyncio.to_thread(method, *args, timeout=PATIENCE, **options)
        return await self.run(method, *args, **options)

    def start(self, handle: Any, verb: str, *args: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.do(handle, verb, *args, **options))

    async def enter(self, context: Any) -> tuple[Any, Any]:
        """A context manager of this front, entered: it, and what it gave."""
        if self.blocking:
            return context, await asyncio.to_thread(context.__enter__)
        return context, await self.run(context.__aenter__)

    async def leave(self, context: Any) -> None:
        if self.blocking:
            await asyncio.to_thread(context.__exit__, None, None, None)
        else:
            await self.run(context.__aexit__, None, None, None)

    async def drain(self, handle: Any) -> list[Any]:
        if self.blocking:
            return await asyncio.to_thread(list, handle)

        async def everything() -> list[Any]:
            return [value async for value in handle]

        return cast("list[Any]", await self.run(everything))


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks and threads run until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


LOCAL, REMOTE = ("channel", "pipe"), ("session", "tcp", "unix")
LIBRARIES = ("asyncio", "uvloop", "trio", "blocking")
FRONTS = [Front(maker, library) for maker in (*LOCAL, *REMOTE) for library in LIBRARIES]
FRONT_IDS = [f"{front.maker}-{front.library}" for front in FRONTS]
