"""The fronts on which scripts are played: coroutines (asyncio, uvloop, trio) and threads; channels in this process.

A carrier is a function (module, capacity) -> Chan, where module is ``netchan`` or ``netchan.sync``. "channel" is one
queue; "pipe" is two joined ends, of which one sends and the other receives. Carriers across a session give ends of two
peers in the same way; another loop is a front with its own ``event``, ``spawn``, ``pause`` and ``play``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import trio
import uvloop

import netchan
from netchan import sync
from netchan.net.wait import ThreadWaiter
from tests.interop.oracle.play import PATIENCE, Chan, Result, Run, Task, interpret
from tests.interop.oracle.script import Env, Script

QUIET_TURNS = 12
"""Turns of the loop without a move after which nobody is about to move: a wake-up in process takes one or two."""
PAUSE = 0.0005
"""Seconds between two looks whether everybody waits."""
TICK = 0.06
"""Seconds of one unit of a script's time."""

Carrier = Callable[[Any, int], Chan]


def make_channel(module: Any, capacity: int) -> Chan:
    one = module.channel(capacity=capacity)
    return Chan(one, one)


def make_halves(module: Any, capacity: int) -> Chan:
    return Chan(*module.channel(capacity=capacity).split())


def make_pipe(module: Any, capacity: int) -> Chan:
    return Chan(*module.pipe(capacity=capacity))


CARRIERS: dict[str, Carrier] = {"channel": make_channel, "halves": make_halves, "pipe": make_pipe}


class AsyncioFront:
    """A task of the script is an asyncio task."""

    module: Any = netchan

    def __init__(self, carrier: Carrier, tick: float = TICK) -> None:
        self.carrier, self.tick = carrier, tick
        self.event = asyncio.Event

    def make(self, capacity: int) -> Chan:
        return self.carrier(self.module, capacity)

    def after(self, seconds: float) -> Any:
        return self.module.after(seconds)

    async def send(self, chan: Chan, value: Any) -> None:
        await chan.tx.send(value)

    async def recv(self, chan: Chan) -> Any:
        return await chan.rx.recv()

    async def next(self, chan: Chan, default: Any) -> Any:
        return await anext(chan.rx, default)

    async def select(self, *arms: Any, **default: Any) -> Any:
        return await self.module.select(*arms, **default)

    async def join(self, *tasks: Task) -> None:
        for task in tasks:
            await task.over.wait()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def settle(self, run: Run, me: Task | None) -> None:
        quiet, moves = 0, -1
        while quiet < QUIET_TURNS and not run.ending:
            await self.pause()
            quiet = quiet + 1 if run.waiting(me) and run.moves == moves else 0
            moves = run.moves

    def spawn(self, run: Run, task: Task) -> None:
        task.handle = asyncio.create_task(self._drive(run, task), name=task.name)

    async def _drive(self, run: Run, task: Task) -> None:
        steps, failure = interpret(run, task), None
        try:
            resume: Callable[[Any], Any] = steps.send
            result: Any = None
            while True:
                word, args, keywords = resume(result)
                task.waits, task.timed = word, task.timed or word == "sleep"
                try:
                    resume, result = steps.send, await getattr(self, word)(*args, **keywords)
                except Exception as error:
                    resume, result = steps.throw, error
                finally:
                    task.waits, task.timed = "", False
                    run.moves += word != "pause"
        except StopIteration:
            pass
        except (asyncio.CancelledError, Exception) as error:
            failure = error
        finally:
            steps.close()
            run.finish(task, failure)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def play(self, script: Script, seed: int | None = None) -> Result:
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(asyncio.wait_for(self.play_here(script, seed), PATIENCE))

    async def play_here(self, script: Script, seed: int | None = None) -> Result:
        """Play on the running loop."""
        run = Run(script, self, None if seed is None else random.Random(seed))
        try:
            run.start("main", "main", Env())
            while True:
                await self.settle(run, None)
                if run.stuck():
                    return run.result()
                await asyncio.sleep(PAUSE)  # only timers are left
        finally:
            run.end()
            await asyncio.gather(*(task.handle for task in run.tasks.values()))


class UvloopFront(AsyncioFront):
    """The same on uvloop."""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return uvloop.new_event_loop()


class TrioFront(AsyncioFront):
    """A task of the script is a trio task; trio itself draws in which order those run that are ready."""

    def __init__(self, carrier: Carrier, tick: float = TICK) -> None:
        super().__init__(carrier, tick)
        self.event = trio.Event
        self._nursery: trio.Nursery | None = None

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def pause(self) -> None:
        await trio.lowlevel.checkpoint()

    def spawn(self, run: Run, task: Task) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._drive, run, task, name=task.name)

    def play(self, script: Script, seed: int | None = None) -> Result:
        return trio.run(self.play_here, script, seed)

    async def play_here(self, script: Script, seed: int | None = None) -> Result:
        run = Run(script, self, None if seed is None else random.Random(seed))
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as self._nursery:
                try:
                    run.start("main", "main", Env())
                    while True:
                        await self.settle(run, None)
                        if run.stuck():
                            return run.result()
                        await trio.sleep(PAUSE)  # only timers are left
                finally:
                    run.end()


class SessionFront(AsyncioFront):
    """Asyncio again, each channel by name over one session on a Unix socket; both peers are in this process."""

    QUIET_SECONDS = 0.05
    """Without a move for so long nobody is about to move: a value takes a fraction of a millisecond to the other."""

    def __init__(self, tick: float = TICK) -> None:
        super().__init__(self._open, tick)
        self._peers: tuple[Any, ...] = ()
        self._names = itertools.count()

    def _open(self, module: Any, capacity: int) -> Chan:
        name = f"c{next(self._names)}"
        return Chan(*(peer.open(name, capacity=capacity) for peer in self._peers))

    async def settle(self, run: Run, me: Task | None) -> None:
        since, moves = time.monotonic(), -1
        while time.monotonic() < since + self.QUIET_SECONDS and not run.ending:
            await asyncio.sleep(PAUSE)
            if not run.waiting(me) or run.moves != moves:
                since, moves = time.monotonic(), run.moves

    async def play_here(self, script: Script, seed: int | None = None) -> Result:
        with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
            async with netchan.listen(f"unix://{folder}/node.sock") as listener:
                near, far = await asyncio.gather(netchan.dial(listener.addresses[0]), listener.recv())
                self._peers = (near, far)
                try:
                    return await super().play_here(script, seed)
                finally:
                    await asyncio.gather(near.aclose(), far.aclose())


class ThreadFront:
    """A task of the script is a thread."""

    module: Any = sync

    def __init__(self, carrier: Carrier, tick: float = TICK) -> None:
        self.carrier, self.tick = carrier, tick
        self.event = threading.Event

    def make(self, capacity: int) -> Chan:
        return self.carrier(self.module, capacity)

    def after(self, seconds: float) -> Any:
        return self.module.after(seconds)

    def send(self, chan: Chan, value: Any) -> None:
        chan.tx.send(value)

    def recv(self, chan: Chan) -> Any:
        return chan.rx.recv()

    def next(self, chan: Chan, default: Any) -> Any:
        return next(chan.rx, default)

    def select(self, *arms: Any, **default: Any) -> Any:
        return self.module.select(*arms, **default)

    def join(self, *tasks: Task) -> None:
        for task in tasks:
            task.over.wait()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def pause(self) -> None:
        time.sleep(0)

    def settle(self, run: Run, me: Task | None) -> None:
        while not run.ending:
            moves = run.moves
            if run.waiting(me) and self._asleep(run, me) and run.moves == moves:
                return
            if time.monotonic() > run.deadline:
                raise TimeoutError(f"{run.script.name} is not over after {PATIENCE} s")
            time.sleep(PAUSE)

    @staticmethod
    def _asleep(run: Run, me: Task | None) -> bool:
        """True if every thread that is in an operation sleeps there and nobody has woken it.

        Of a channel operation the innermost frame tells: it is the ``park`` of a waiter.
        """
        frames = sys._current_frames()
        for task in run.open():
            if task is me or task.waits == "sleep":
                continue
            if task.waits == "join":
                if all(other.done for other in task.joins):
                    return False
                continue
            frame = frames.get(task.handle.ident)
            waiter = frame.f_locals.get("self") if frame is not None and frame.f_code.co_name == "park" else None
            if not isinstance(waiter, ThreadWaiter) or not waiter.asleep():
                return False
        return True

    def spawn(self, run: Run, task: Task) -> None:
        task.handle = threading.Thread(target=self._drive, args=(run, task), name=task.name, daemon=True)
        task.handle.start()

    def _drive(self, run: Run, task: Task) -> None:
        steps, failure = interpret(run, task), None
        try:
            resume: Callable[[Any], Any] = steps.send
            result: Any = None
            while True:
                word, args, keywords = resume(result)
                task.waits, task.timed = word, task.timed or word == "sleep"
                try:
                    resume, result = steps.send, getattr(self, word)(*args, **keywords)
                except Exception as error:
                    resume, result = steps.throw, error
                finally:
                    task.waits, task.timed = "", False
                    run.moves += word != "pause"
        except StopIteration:
            pass
        except Exception as error:
            failure = error
        finally:
            steps.close()
            run.finish(task, failure)

    def play(self, script: Script, seed: int | None = None) -> Result:
        run = Run(script, self, None if seed is None else random.Random(seed))
        try:
            run.start("main", "main", Env())
            while True:
                self.settle(run, None)
                if run.stuck():
                    return run.result()
                time.sleep(PAUSE)
        finally:
            run.end()
            for task in run.tasks.values():
                task.handle.join(PATIENCE)
