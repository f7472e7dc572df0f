"""Waiting: queues of tasks and threads, and how each of them sleeps and is woken.

Layer 3; the only module that imports asyncio or threading. Holds no value and no channel state.

A call that finds nothing joins the ``WaitQueue`` of its endpoint (_engine/waitq.pyx) with one of the waiters below,
tries again, then parks. Another async library means another waiter and pause here and nothing elsewhere.
Spec: docs/spec/channel-end.md.
"""

# ruff: noqa: D102 - overriding methods keep the contract of Waiter

from __future__ import annotations

import asyncio
import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator, Sequence
from importlib import import_module
from time import monotonic
from typing import Any, Final, Protocol, cast

from netchan._engine.waitq import BlockingWaiter, Waiter, WaitQueue
from netchan.net.bells import hear_bell

__all__ = [
    "READY_CALLS_MAX",
    "READY_SECONDS_MAX",
    "THREAD",
    "AsyncWaiter",
    "BlockingWaiter",
    "Driver",
    "Drivers",
    "ThreadWaiter",
    "WaitQueue",
    "Waiter",
    "blocking_waiter",
    "leaf_lock",
    "pause",
    "run_aside",
    "task_waiter",
    "trio_front",
    "trio_runs",
]

READY_CALLS_MAX: Final = 128
"""Ready calls of one task without a real suspension; the next one yields to the loop (bounds how long others wait)."""
READY_SECONDS_MAX: Final = 0.0005
"""The same in seconds."""
SIGNAL_SLICE: Final = 0.1
"""Seconds that the main thread sleeps at a stretch: a signal that arrives between Python's last look and the sleep does
not end the sleep, and Ctrl-C must be answered within 100 ms. Other threads get no signals and sleep without limit."""


TURN_MIN, TURN_MAX = 0.0002, 0.005
"""Seconds for which one of several drivers is moved before the next one (``Drivers``)."""


class Driver(Protocol):
    """What moves a network endpoint while a thread waits for it; endpoints in process have none."""

    @property
    def has_loop(self) -> bool:
        """True while a running event loop, or a thread of its own, moves it: then a blocked thread only sleeps."""

    @property
    def rings(self) -> bool:
        """True if loops hear of its endpoints by their bells (net/bells.py)."""

    def check_blocking(self) -> None:
        """Raise RuntimeError on the thread whose running loop drives this engine: blocking there would wait for itself.

        Called once per call that is about to wait, before it joins a queue.
        """

    def drive(self, waiter: BlockingWaiter, deadline: float | None) -> None:
        """Do the engine's work until ``waiter.woken`` is true or ``deadline`` passed; may return early.

        Args:
            waiter: of this thread; ``waiter.woken`` may turn true at any time, ``poke`` follows.
            deadline: in seconds of ``time.monotonic()``, or None.

        Raises:
            KeyboardInterrupt: within 100 ms of the signal; and whatever else a signal handler raises.
        """

    def poke(self, waiter: BlockingWaiter) -> None:
        """``waiter.woken`` was set: make its ``drive`` return soon. From any thread, never blocks, never raises."""


# --- asyncio ---------------------------------------------------------------------------------------------------------


class AsyncWaiter(Waiter):
    """A waiting asyncio task: asleep on a future of its own loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, deadline: float | None = None) -> None:
        super().__init__(deadline)
        self.mortal = True
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None

    async def park(self, until: float | None = None) -> None:
        """Wait for the wake-up, or until ``until`` (seconds of ``time.monotonic()``), which is no error.

        Raises:
            asyncio.CancelledError: the task was cancelled; the wake-up, if any, stays pending.
            TimeoutError: the deadline passed first.
        """
        budget = THREAD.budget
        while self.asleep():
            future: asyncio.Future[None] = self._loop.create_future()
            self._future = future
            if not self.asleep():  # another thread was between our two looks: it saw no future to set
                self._future = None
                break
            timer = None
            end = earlier(self.deadline, until)
            if end is not None:
                timer = self._loop.call_later(max(0.0, end - monotonic()), _set, future)
            try:
                await future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
                budget.calls = 0
            if until is not None and monotonic() >= until:
                return
            if self.deadline is not None and self.asleep() and monotonic() >= self.deadline:
                raise TimeoutError("the time given for this call passed")

    def gone(self) -> bool:
        return self._loop.is_closed()

    def excuse(self, error: BaseException) -> bool:
        if isinstance(error, TimeoutError):
            return True
        if not isinstance(error, asyncio.CancelledError):
            return False
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            _owe(task, self._loop)
        return True

    def _notify(self) -> None:
        future = self._future
        if future is None:
            return
        if asyncio._get_running_loop() is self._loop:
            _set(future)
        else:
            try:
                self._loop.call_soon_threadsafe(_set, future)
            except RuntimeError:
                pass  # the loop was closed; the queue drops such waiters


def earlier(a: float | None, b: float | None) -> float | None:
    """The earlier of two times, None = never."""
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Budget:
    """Ready calls of the running task since this thread's loop last got control from inside netchan.

    One count per thread is enough for "per task": between two calls of one task that did not suspend no other task of
    the thread ran. A task that suspended elsewhere starts with what is left, so it yields too early, never too late.

    Attributes:
        calls: ready calls so far; on trio always the most, so that every call passes through ``pause``.
        since: ``time.monotonic()`` of the first of them.
        turns: the count on trio.
    """

    __slots__ = ("calls", "since", "turns")

    def __init__(self) -> None:
        self.calls = self.turns = 0
        self.since = 0.0

    def start(self) -> None:
        """The first call of a count begins."""
        self.since = monotonic()
        if trio_runs():
            self.calls = READY_CALLS_MAX


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.budget = Budget()


THREAD: Final = _PerThread()
"""``THREAD.budget`` is the running thread's."""
_owed: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()


@types.coroutine
def _give_way() -> Generator[None, None, None]:
    yield


async def pause() -> None:
    """Let the loop run: the budget of ready calls is used up, or a cancellation is owed to this task.

    Raises:
        asyncio.CancelledError: one is pending or owed; the call that pauses has done nothing yet.
    """
    if trio_runs():
        await trio_front().pause()
        return
    budget = THREAD.budget
    if _owed:
        task = asyncio.current_task()
        if task is not None and task in _owed:
            _owed.discard(task)
            if task.cancelling() > 0:
                raise asyncio.CancelledError
    budget.calls = 0
    await _give_way()
    budget.calls = 1
    budget.since = monotonic()


def _owe(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Postpone a cancellation that met an operation which had already happened.

    It is raised by the task's next netchan call, or thrown into whatever else the task sleeps on in the next loop turn;
    both only while the task is still being cancelled, so that a ``timeout()`` block that ended leaves nothing behind.
    """
    _owed.add(task)
    THREAD.budget.calls = READY_CALLS_MAX  # sends this task's next call, which runs before any other's, into pause()
    loop.call_soon(_collect_debt, task)


def _collect_debt(task: asyncio.Task[Any]) -> None:
    THREAD.budget.calls = 0  # the loop has turned
    if task in _owed:
        _owed.discard(task)
        if task.cancelling() > 0 and not task.done():
            task.uncancel()
            task.cancel()


# --- which library ---------------------------------------------------------------------------------------------------


def trio_runs() -> bool:
    """True if the running task is trio's. Costs next to nothing where trio was never imported."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


def trio_front() -> Any:
    """The module of that name: loaded where trio runs, and only there."""
    return import_module("netchan.net.trio_front")


def task_waiter(*, rings: bool) -> AsyncWaiter:
    """A waiter for the running task, of asyncio or trio. RuntimeError: neither runs here.

    Args:
        rings: the loop is to hear the bell of what is waited for.
    """
    if trio_runs():
        return cast("AsyncWaiter", trio_front().TrioWaiter(rings=rings))
    if rings:
        hear_bell()
    return AsyncWaiter()


# --- threads ---------------------------------------------------------------------------------------------------------


class ThreadWaiter(BlockingWaiter):
    """A blocked thread of an endpoint in process, which nobody has to drive: asleep on a lock."""

    __slots__ = ("_sleep",)

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__(None, timeout)
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def park(self, until: float | None = None) -> None:
        """As BlockingWaiter; on POSIX a signal ends the wait for a lock, so Ctrl-C comes at once as a rule."""
        while self.asleep():
            end = earlier(self.deadline, until)
            left = -1.0 if end is None else max(0.0, end - monotonic())
            if threading.get_ident() == threading.main_thread().ident:
                left = min(left, SIGNAL_SLICE) if left >= 0.0 else SIGNAL_SLICE
            self._sleep.acquire(timeout=min(left, threading.TIMEOUT_MAX))
            if until is not None and monotonic() >= until:
                return
            self.check_deadline()

    def _notify(self) -> None:
        try:
            self._sleep.release()
        except RuntimeError:
            pass  # a former wake-up that the sleeper did not need is still there


class Drivers:
    """Several drivers that one blocked thread has to move: it takes turns between them.

    Only a select over channels of several engines that no loop drives needs it: that of the blocking front, and that of
    a loop that has ended. Turns grow from 0.2 to 5 ms while nothing happens.
    """

    has_loop = False
    rings = False

    def __init__(self, drivers: Sequence[Driver]) -> None:
        self._drivers = drivers

    def check_blocking(self) -> None:
        """As Driver."""
        for one in self._drivers:
            one.check_blocking()

    def drive(self, waiter: BlockingWaiter, deadline: float | None) -> None:
        """As Driver."""
        turn = TURN_MIN
        while waiter.asleep():
            for one in self._drivers:
                now = monotonic()
                if deadline is not None and now >= deadline:
                    return
                one.drive(waiter, earlier(deadline, now + turn))
                if not waiter.asleep():
                    return
            turn = min(2 * turn, TURN_MAX)

    def poke(self, waiter: BlockingWaiter) -> None:
        """As Driver."""
        for one in self._drivers:
            one.poke(waiter)


def blocking_waiter(driver: Driver | None, timeout: float | None) -> BlockingWaiter:
    """A waiter for this thread, at an endpoint with this driver."""
    return ThreadWaiter(timeout) if driver is None else BlockingWaiter(driver, timeout)


# --- for the layers above, which import neither library --------------------------------------------------------------


def leaf_lock() -> threading.RLock:
    """A lock for a bounded step, re-entrant because a finaliser may run inside it."""
    return threading.RLock()


def run_aside(step: Callable[[], object]) -> None:
    """Run a short step soon on a thread of its own: for finalisers that met a lock in use. Not at interpreter exit."""
    try:
        threading.Thread(target=step, name="netchan-finaliser", daemon=True).start()
    except RuntimeError:
        pass  # the interpreter is going down, and the waiters with it
