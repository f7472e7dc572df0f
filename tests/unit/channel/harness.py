"""Makers of (Sender, Receiver) pairs and the two fronts, so that one program tests them all.

A test is a coroutine on asyncio; ``Front.do`` runs a call of the async front on its loop, or on a trio run in a thread
of its own, and one of the blocking front in a thread.

Makers in process: "channel", "pipe". Makers across a session: "session" has both sides in this process (a socket pair
and no handshake), and so has "threads", where each side's engine has a thread of its own; "unix" and "tcp" have the
other side in a process of its own (far.py), which uses the same front and dials this one, and whose half is a ``Far``
object with the same verbs. There is one such process for each maker and front for as long as the tests last. The other
engines of the async front belong to the running loop, those of the blocking front are driven by the threads that wait.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import uvloop

from netchan._engine.engine_handle import Engine
from netchan.channel import fronts as async_fronts
from netchan.config import Config
from netchan.net.manager import caller_home, loop_engine
from netchan.testing.pair import Side, joined
from tests.unit.channel.far import Child, Far, child_of
from tests.unit.channel.verbs import PATIENCE, AsyncVerbs, BlockingVerbs

__all__ = ["PATIENCE", "Ends", "Front", "until"]
CLOSE_CLEAN = 0
SHORT = 0.05
"""Seconds after which a blocking call is to give up."""
GIVEN_UP = object()
"""What ``Front.give_up`` gives when all is well."""


@dataclass
class Ends:
    """The two halves of one direction, and the whole ends that they belong to: ``near`` sends, ``far`` receives."""

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
    async def make(cls, module: Any, *, threads: bool = False, **options: Any) -> SocketPair:
        if threads:
            return cls(module, joined(engines=_threads_engines(), **options))
        if module is async_fronts:
            engine = await loop_engine()
            return cls(module, joined(engines=(engine, engine), **options))
        return cls(module, joined(engines=_caller_engines(), **options))

    def open(self, name: str, type: Any, capacities: tuple[int, int]) -> tuple[Any, Any]:
        near, far = (
            self._module.Channel(side.open(name, type, capacity))
            for side, capacity in zip(self._sides, capacities, strict=True)
        )
        return near, far

    def close(self) -> None:
        for side in self._sides:
            side.session.close(CLOSE_CLEAN)


class Dialled:
    """A session with the far process: the peer here, which came out of a listener, and the one over there."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._folder = tempfile.TemporaryDirectory(prefix="netchan-")
        self.listener: Any = None
        self.peers: tuple[Any, Any] = (None, None)

    async def make(self, front: Front) -> None:
        place = "tcp://127.0.0.1:0" if front.maker == "tcp" else f"unix://{Path(self._folder.name, 'node.sock')}"
        options = {"config": Config(lease=1)} | ({"trust": "any"} if front.maker == "tcp" else {})
        self.listener = await front.do(None, "listen", place, **options)
        dialled = await self.child.run(None, "dial", self.listener.addresses[0])
        self.peers = (await front.do(self.listener, "recv"), dialled)

    def open(self, name: str, type: Any, capacities: tuple[int, int]) -> tuple[Any, Any]:
        near, far = (
            peer.open(name, type, capacity=capacity) for peer, capacity in zip(self.peers, capacities, strict=True)
        )
        return near, far

    def close(self) -> None:
        """End the session and whatever the far process has left of it; its complaints fail the test."""
        try:
            complaints = self.child.ask("end") if self.child.alive else []
        finally:
            near = self.peers[0]
            if near is not None:
                near._core.leave_by_exception()
            if self.listener is not None:
                self.listener._hall.leave_by_exception()
            end = time.monotonic() + PATIENCE
            while near is not None and not near._core.over and time.monotonic() < end:
                time.sleep(0.001)
            self._folder.cleanup()
        assert not complaints, f"in the far process: {complaints}"


_blocking_engines: list[Engine] = []


def _caller_engines() -> tuple[Engine, Engine]:
    """One engine per side, so that each side's thread drives its own; made once, like those of a process."""
    while len(_blocking_engines) < 2:
        _blocking_engines.append(Engine("caller"))
    return _blocking_engines[0], _blocking_engines[1]


def _threads_engines() -> tuple[Engine, Engine]:
    """Those of this process: one for each side."""
    engines = caller_home(Config(io_threads=2)).engines
    return engines[0], engines[1]


class TrioRun:
    """A trio run on a thread of its own, for as long as the tests last."""

    def __init__(self) -> None:
        self._token: Any = None
        self._nursery: Any = None
        self._up = threading.Event()

    async def run(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Await an async function there, from a loop of another thread.

        Cancelled: the call there is cancelled too; what it returns is returned if it had happened.
        """
        if self._token is None:
            threading.Thread(target=trio.run, args=(self._main,), name="trio", daemon=True).start()
            self._up.wait(PATIENCE)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        scope = trio.CancelScope()

        def settle(value: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_result((value, error))

        async def bounded() -> None:
            value: Any = None
            error: BaseException | None = asyncio.CancelledError()
            try:
                with trio.fail_after(PATIENCE), scope:
                    value = await call(*args, **options)
                    error = None
            except Exception as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:  # the loop was closed: nobody waits any more
                pass

        self._token.run_sync_soon(self._nursery.start_soon, bounded)
        try:
            value, error = await asyncio.shield(done)
        except asyncio.CancelledError:
            self._token.run_sync_soon(scope.cancel)
            value, error = await done
        if error is not None:
            raise error
        return value

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        end = trio.Event()
        atexit.register(self._token.run_sync_soon, end.set)
        async with trio.open_nursery() as self._nursery:
            self._up.set()
            await end.wait()
            self._nursery.cancel_scope.cancel()


TRIO = TrioRun()


class Front:
    """One pair of ends under one library; see the module head."""

    def __init__(self, maker: str, library: str) -> None:
        self.maker = maker
        self.library = library
        self.blocking = library == "blocking"
        self.loop_factory = uvloop.new_event_loop if library == "uvloop" else None
        self.verbs = BlockingVerbs() if self.blocking else AsyncVerbs()
        self.module = self.verbs.module
        self.remote = maker in REMOTE
        self.two_processes = maker in ("unix", "tcp")
        self._made: list[Ends] = []
        self._link: Any = None
        self._child: Child | None = None
        self._numbers = itertools.count(1)

    # --- ends --------------------------------------------------------------------------------------------------------

    async def make(self, capacity: int, type: Any = Any, *, back: bool = False, other: int | None = None) -> Ends:
        """A new pair of ends, known to each other.

        Args:
            capacity: that the near end gives.
            type: of both ends.
            back: let the far end send and the near end receive.
            other: the capacity that the far end gives, where each gives one.
        """
        near, far = await self._whole(capacity, type, capacity if other is None else other)
        if back:
            near, far = far, near
        tx, _ = near.split()
        _, rx = far.split()
        ends = Ends(tx, rx, near, far)
        self._made.append(ends)
        return ends

    async def mixed(self, capacity: int, *, far: bool = False) -> tuple[Ends, Ends]:
        """Two pairs, of which the receiver of the first and the sender of the second are in one process.

        That is what a select with both kinds of arms needs; ``far``: in the far process.
        """
        return await self.make(capacity, back=not far), await self.make(capacity, back=far)

    async def _whole(self, capacity: int, type: Any, other: int) -> tuple[Any, Any]:
        if self.maker == "channel":
            ch = self.module.channel(capacity=min(capacity, other))
            return ch, ch
        if self.maker == "pipe":
            return self.verbs.pipe(min(capacity, other))
        if self._link is None:
            if self.two_processes:
                self._link = Dialled(self.child)
                await self._link.make(self)
            else:
                self._link = await self.run(SocketPair.make, self.module, threads=self.maker == "threads")
        near, far = self._link.open(f"c{next(self._numbers)}", type, (capacity, other))
        # both sides know of each other: what holds before is R17 and has tests of its own
        await until(lambda: near._ep.paired and far._ep.paired)
        return near, far

    @property
    def child(self) -> Child:
        """The far process; started when it is needed, and again if it has died."""
        if self._child is None or not self._child.alive:
            self._child = Child(self.library)
        return self._child

    @property
    def peers(self) -> tuple[Any, Any]:
        """The peer here and the one in the far process, after the first ``make``."""
        return self._link.peers  # type: ignore[no-any-return]

    def lose(self, ends: Ends, *names: str) -> None:
        """Drop handles as a program does that forgets them, and let the collector run where they were."""
        held = [getattr(ends, name) for name in names]
        for name in names:
            setattr(ends, name, None)
        far = [handle for handle in held if isinstance(handle, Far)]
        if far:
            far[0].child.ask("lose", *far)
            far[0].child.ask("collect")
        del held, far
        gc.collect()

    def end_all(self) -> None:
        """End every channel and session made, so that only tests about dropped handles drop any."""
        for ends in self._made:
            for handle in (ends.tx, ends.rx, ends.near, ends.far):
                if handle is not None and not isinstance(handle, Far):
                    handle.abort()
        self._made.clear()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    # --- calls -------------------------------------------------------------------------------------------------------

    async def run(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Await an async function where this front's calls run: on the loop, or on trio."""
        if self.library == "trio":
            return await TRIO.run(call, *args, **options)
        async with asyncio.timeout(PATIENCE):
            return await call(*args, **options)

    async def do(self, target: Any, verb: str, *args: Any, **options: Any) -> Any:
        """Make a call that may wait: of a handle, or one of verbs.py (no target); it runs where its objects live."""
        child = child_of(target, *args)
        if child is not None:
            return await child.run(target, verb, *args, **options)
        call = self.verbs.named(target, verb)
        if self.blocking:
            return await asyncio.to_thread(call, *args, **options)
        return await self.run(call, *args, **options)

    def start(self, target: Any, verb: str, *args: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.do(target, verb, *args, **options))

    def plain(self, name: str, *args: Any, beside: Any = None) -> Any:
        """One of verbs.py that does not wait, made where its arguments live, or ``beside`` another object."""
        child = child_of(beside, *args)
        return getattr(self.verbs, name)(*args) if child is None else child.call(None, name, *args)

    async def enter(self, context: Any) -> tuple[Any, Any]:
        """A context manager of this front, entered: it, and what it gave."""
        return context, await self.do(None, "enter", context)

    async def leave(self, context: Any, why: str = "") -> None:
        """Leave a context manager; by an exception if there is a reason."""
        await self.do(None, "leave", context, why)

    async def drain(self, source: Any) -> list[Any]:
        """All values of an iteration."""
        return await self.do(None, "drain", source)  # type: ignore[no-any-return]

    async def give_up(self, target: Any, verb: str, *args: Any, once: Callable[[], bool], **options: Any) -> Any:
        """Begin a call and cancel it when ``once`` holds; one of the blocking front times out instead.

        Returns:
            GIVEN_UP if the call says so, else what it returned, which should not have happened.
        """
        expected: type[BaseException] = asyncio.CancelledError
        if self.blocking:
            expected, options["timeout"] = TimeoutError, SHORT
        job = self.start(target, verb, *args, **options)
        await until(lambda: once() or (self.blocking and job.done()))
        if not self.blocking:
            job.cancel()
        try:
            return await job
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, expected):
                return GIVEN_UP
            raise


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks and threads run until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


LOCAL, REMOTE = ("channel", "pipe"), ("session", "threads", "tcp", "unix")
LIBRARIES = ("asyncio", "uvloop", "trio", "blocking")
FRONTS = [Front(maker, library) for maker in (*LOCAL, *REMOTE) for library in LIBRARIES]
FRONT_IDS = [f"{front.maker}-{front.library}" for front in FRONTS]
