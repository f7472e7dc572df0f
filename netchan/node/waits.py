"""The one wait of this layer: until something that was asked for is so.

Layer 6; netchan/sync/node_waits.py is made from this file by tools/async_to_sync.py. Spec: docs/spec/session.md §7.
"""

from __future__ import annotations

from collections.abc import Callable

from netchan.net.wait import (
    AsyncWaiter,
    Driver,
    WaitQueue,
    task_waiter,  # async-only
)

# sync-only: from netchan.net.wait import blocking_waiter

# async-only: begin


def new_waiter(driver: Driver | None) -> AsyncWaiter:
    """A waiter for the running task."""
    return task_waiter(rings=driver is not None and driver.rings)


# async-only: end
# sync-only:
# sync-only:
# sync-only: def new_waiter(driver: Driver | None, timeout: float | None) -> BlockingWaiter:
# sync-only:     """A waiter for this thread, which drives the engine while it waits."""
# sync-only:     return blocking_waiter(driver, timeout)
# sync-only:
# sync-only:


async def wait_until(done: Callable[[], bool], queue: WaitQueue, waiter: AsyncWaiter) -> None:
    """Wait until ``done()``; ``queue`` is woken when that may have changed.

    Cancelled: nothing has changed.
    """
    queue.join(waiter)
    try:
        while not done():
            await waiter.park()
            waiter.rearm()
    finally:
        queue.leave(waiter, done)
