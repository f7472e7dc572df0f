"""Tasks and threads that belong to one ``serve`` call.

Layer: net (L3), beside wait.py: the layers above import neither asyncio nor threading. A group holds its tasks until
they are done, so none is lost to the collector, and never lets an exception of one touch another.
Spec: docs/spec/session.md §7.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, cast

from netchan.net.wait import trio_front, trio_runs


class TaskGroup:
    """Tasks of the running loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, call: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Run ``call(*arguments)`` as a task; it must handle its own exceptions."""
        task = asyncio.get_running_loop().create_task(call(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def join(self) -> None:
        """Wait until all are done. Cancelled: they go on."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def cancel(self) -> None:
        """Cancel all and wait until they are done; a second cancellation of the caller stops the waiting."""
        for task in self._tasks:
            task.cancel()
        await self.join()


def task_group() -> TaskGroup:
    """A group for the running task's library, asyncio or trio."""
    if trio_runs():
        return cast("TaskGroup", trio_front().TrioGroup())
    return TaskGroup()


class ThreadGroup:
    """Daemon threads."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()

    def __len__(self) -> int:
        return len(self._threads)

    def start(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run ``call(*arguments)`` on a thread of its own; it must handle its own exceptions."""
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        thread = threading.Thread(target=call, args=arguments, name="netchan-handler", daemon=True)
        self._threads.add(thread)
        thread.start()

    def join(self) -> None:
        """Wait until all are done."""
        for thread in self._threads:
            thread.join()
