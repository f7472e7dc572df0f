"""The calls of a test by their names: the methods of a handle, and a few that are no method of one.

Used on both sides of a case in two processes, so that a call means the same in each. ``named(target, verb)`` gives what
to call (async front: and to await); without a target it is one of the functions here. Blocking calls on a handle get
``timeout=PATIENCE`` unless they are given another.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import netchan
from netchan import sync
from netchan.channel import fronts as async_fronts
from netchan.sync import fronts as sync_fronts

PATIENCE = float(os.environ.get("NETCHAN_PATIENCE", "20"))
"""Seconds after which a call that should have returned is a failure."""


class Verbs:
    """What both fronts have in common."""

    module: Any

    def pipe(self, capacity: int) -> tuple[Any, Any]:
        near, far = self.module.pipe(capacity=capacity)
        return near, far

    def after(self, seconds: float) -> Any:
        return netchan.after(seconds)

    def seed(self, number: int) -> None:
        """Make the choices of ``select`` repeatable."""
        random.seed(number)


class AsyncVerbs(Verbs):
    """Functions of the async front; those that wait are coroutine functions."""

    module = async_fronts

    def named(self, target: Any, verb: str) -> Callable[..., Any]:
        return getattr(self if target is None else target, verb)  # type: ignore[no-any-return]

    def merge(self, *receivers: Any) -> Any:
        return netchan.merge(*receivers)

    def ticker(self, seconds: float) -> Any:
        return netchan.ticker(seconds)

    async def dial(self, address: str) -> Any:
        return await netchan.dial(address)

    async def listen(self, place: str, **options: Any) -> Any:
        return await netchan.listen(place, **options)

    async def select(self, *ops: Any, **options: Any) -> Any:
        return await netchan.select(*ops, **options)

    async def drain(self, source: Any) -> list[Any]:
        return [value async for value in source]

    async def step(self, source: Any, default: Any = None) -> Any:
        return await anext(source, default)

    async def enter(self, context: Any) -> Any:
        return await context.__aenter__()

    async def leave(self, context: Any, why: str = "") -> None:
        """Leave a with-block, by an exception if there is a reason."""
        error = ArithmeticError(why) if why else None
        await context.__aexit__(type(error) if error else None, error, None)


class BlockingVerbs(Verbs):
    """The same names on the blocking front."""

    module = sync_fronts

    def named(self, target: Any, verb: str) -> Callable[..., Any]:
        if target is None:
            return getattr(self, verb)  # type: ignore[no-any-return]
        call = getattr(target, verb)
        return lambda *args, **options: call(*args, **({"timeout": PATIENCE} | options))

    def merge(self, *receivers: Any) -> Any:
        return sync.merge(*receivers)

    def ticker(self, seconds: float) -> Any:
        return sync.ticker(seconds)

    def dial(self, address: str) -> Any:
        return sync.dial(address, timeout=PATIENCE)

    def listen(self, place: str, **options: Any) -> Any:
        return sync.listen(place, **options)

    def select(self, *ops: Any, **options: Any) -> Any:
        return sync.select(*ops, **({"timeout": PATIENCE} | options))

    def drain(self, source: Any) -> list[Any]:
        return list(source)

    def step(self, source: Any, default: Any = None) -> Any:
        return next(source, default)

    def enter(self, context: Any) -> Any:
        return context.__enter__()

    def leave(self, context: Any, why: str = "") -> None:
        error = ArithmeticError(why) if why else None
        context.__exit__(type(error) if error else None, error, None)
