"""How event loops hear of sessions whose engines have threads of their own: one bell for each loop.

Layer: net (L3), beside wait.py and manager.py; knows asyncio because a bell lives as long as its loop.

1. A call on such a session asks ``hear_bell`` before it waits; the loop's first one hangs a bell up and watches it.
2. An engine rings; the loop's callback hands out what is new (``Bell.hear``), for every loop and thread concerned.
3. The loop ends: the bell comes down. A trio run has a system task that listens.

Spec: docs/explanation/ownership.md.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from netchan._engine.bell import Bell

_bells: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bell]] = weakref.WeakKeyDictionary()
_keepers: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object]] = weakref.WeakKeyDictionary()
_graves: Final[list[object]] = []


def new_bell() -> Bell:
    """A bell where the engines see it; what they told of before is handed out."""
    from netchan._engine.bell import Bell

    bell = Bell()
    bell.hear()
    return bell


def hear_bell() -> None:
    """See to it that the running asyncio loop has a bell."""
    loop = asyncio.get_running_loop()
    if loop in _bells:
        return
    bell = _bells[loop] = new_bell()
    fd = bell.fd
    loop.add_reader(fd, bell.hear)
    reference = weakref.ref(loop)

    def ended() -> None:
        ending = reference()
        if ending is not None:
            _bells.pop(ending, None)
            _keepers.pop(ending, None)
            if not ending.is_closed():
                ending.remove_reader(fd)
        bell.close()

    _keepers[loop] = keep(ended)
    weakref.finalize(loop, bell.close)


def keep(ended: Callable[[], object]) -> AsyncGenerator[None, None]:
    """Call ``ended`` when the running asyncio loop ends, if what this returns is kept so long.

    A loop closes its asynchronous generators when it ends: that is the one sign of it that all loops give.
    """
    keeper = _until_closed(ended)
    first: Any = keeper.__anext__()
    try:
        first.send(None)  # to its yield; nothing on the way waits
    except StopIteration:
        pass
    return keeper


async def _until_closed(ended: Callable[[], object]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        ended()


def _after_fork() -> None:
    # kept for ever: the parent's loops still watch them, and no finaliser may run in the child
    _graves.extend((*_bells.values(), *_keepers.values()))
    _bells.clear()
    _keepers.clear()


os.register_at_fork(after_in_child=_after_fork)
