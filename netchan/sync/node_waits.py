# Made from netchan/node/waits.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""The one wait of this layer: until something that was asked for is so.

Layer 6; netchan/sync/node_waits.py is made from this file by tools/async_to_sync.py. Spec: docs/spec/session.md §7.
"""

from __future__ import annotations

from collections.abc import Callable

from netchan.net.wait import (
    BlockingWaiter,
    Driver,
    WaitQueue,
)

from netchan.net.wait import blocking_waiter


def new_waiter(driver: Driver | None, timeout: float | None) -> BlockingWaiter:
    """A waiter for this thread, which drives the engine while it waits."""
    return blocking_waiter(driver, timeout)


def wait_until(done: Callable[[], bool], queue: WaitQueue, waiter: BlockingWaiter) -> None:
    """Wait until ``done()``; ``queue`` is woken when that may have changed.

    TimeoutError after ``timeout`` seconds: nothing has changed.
    """
    queue.join(waiter)
    try:
        while not done():
            waiter.park()
            waiter.rearm()
    finally:
        queue.leave(waiter, done)
