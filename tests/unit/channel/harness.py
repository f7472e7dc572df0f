"""Makers of (Sender, Receiver) pairs and the two fronts, so that one program tests them all.

A test is a coroutine; ``Front.do`` runs a call of the async front on the loop, one of the blocking front in a thread.
The maker for channels across a session joins MAKERS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netchan.channel import fronts as async_fronts
from netchan.sync import fronts as sync_fronts

PATIENCE = 20.0
"""Seconds after which a call that should have returned is a failure."""


@dataclass
class Ends:
    """The two halves of one direction, and whole ends where there are two."""

    tx: Any
    rx: Any
    near: Any
    far: Any


class Front:
    def __init__(self, maker: str, module: Any) -> None:
        self.maker = maker
        self.module = module
        self.blocking = module is sync_fronts
        self._made: list[Ends] = []

    def make(self, capacity: int) -> Ends:
        ends = self._make(capacity)
        self._made.append(ends)
        return ends

    def end_all(self) -> None:
        """End every channel made, so that only tests about dropped handles drop any."""
        for ends in self._made:
            for handle in (ends.tx, ends.rx, ends.near, ends.far):
                if handle is not None:
                    handle.abort()
        self._made.clear()

    def _make(self, capacity: int) -> Ends:
        if self.maker == "channel":
            ch = self.module.channel(capacity=capacity)
            tx, rx = ch.split()
            return Ends(tx, rx, ch, ch)
        near, far = self.module.pipe(capacity=capacity)
        tx, _ = near.split()
        _, rx = far.split()
        return Ends(tx, rx, near, far)

    async def do(self, handle: Any, verb: str, *args: Any, **options: Any) -> Any:
        method = getattr(handle, verb)
        if self.blocking:
            return await asyncio.to_thread(method, *args, timeout=PATIENCE, **options)
        async with asyncio.timeout(PATIENCE):
            return await method(*args, **options)

    def start(self, handle: Any, verb: str, *args: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.do(handle, verb, *args, **options))

    async def drain(self, handle: Any) -> list[Any]:
        if self.blocking:
            return await asyncio.to_thread(list, handle)
        return [value async for value in handle]


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks and threads run until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


FRONTS = [Front(maker, module) for maker in ("channel", "pipe") for module in (async_fronts, sync_fronts)]
FRONT_IDS = [f"{f.maker}-{'blocking' if f.blocking else 'asyncio'}" for f in FRONTS]
