"""Waiting: queues of tasks and threads, and how each of them sleeps and is woken.

Layer 3; the only module that imports asyncio or threading. Holds no value and no channel state.

1. A call that finds nothing joins the ``WaitQueue`` of its endpoint with a waiter, tries again, then parks.
2. A change at the endpoint wakes waiters in order of arrival. A wake-up is a hint and owns nothing: the waiter takes
   the value in its own step, so a cancelled one has nothing to give back.
3. Whoever leaves the queue, served or not, nudges the next one if there may be more to take. So a wake-up is never
   lost with a waiter, and as long as something is ready and somebody waits, somebody is awake.

Threads: a queue's lock is a leaf and re-entrant, because a finaliser may run inside it; a finaliser only ever wakes.
Another async library means another ``AsyncLibrary`` here and nothing elsewhere. Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

READY_CALLS_MAX: Final = 128
"""Ready calls of one task without a real suspension; the next one yields to the loop."""
READY_SECONDS_MAX: Final = 0.0005
"""The same in seconds: the longest that netchan lets one task keep its loop."""


class Driver(Protocol):
    """What moves a network endpoint while a thread waits for it; None for endpoints in process."""

    def check_blocking(self) -> None:
        """Raise RuntimeError on the thread whose running loop drives this engine: blocking there would wait for itself.

        Called once per call that is about to wait, before it joins a queue.
        """

    def drive(self, waiter: ThreadWaiter, deadline: float | None) -> None:
        """Do the engine's work until ``waiter.woken`` is true or ``deadline`` passed; may return early.

        Args:
            waiter: of this thread; ``waiter.woken`` may turn true at any time, ``poke`` follows.
            deadline: in seconds of ``time.monotonic()``, or None.

        Raises:
            KeyboardInterrupt: within 100 ms of the signal, and whatever else a signal handler raises.
        """

    def poke(self, waiter: ThreadWaiter) -> None:
        """Another thread set ``waiter.woken``: make its ``drive`` return soon. From any thread, never blocks."""


class Waiter:
    """One parked call. ``woken`` belongs to its queue's lock; reading it is free.

    Attributes:
        woken: a wake-up was given and not yet looked at.
    """

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken = False

    def wake(self) -> None:
        """Give a wake-up; from any thread, never blocks, does nothing when one is pending."""
        if not self.woken:
            self.woken = True
            self._notify()

    def _notify(self) -> None:
        raise NotImplementedError


class WaitQueue:
    """Waiters of one kind at one endpoint, first come first served over tasks, threads and loops.

    Attributes:
        order: the waiters by arrival; only this class changes it, testing it for emptiness is free.
    """

    __slots__ = ("_lock", "order")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.order: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.order)

    def join(self, waiter: Waiter) -> None:
        """Queue up at the tail."""
        with self._lock:
            self.order[waiter] = None

    def may_try(self, waiter: Waiter) -> bool:
        """True when it is this waiter's turn (woken, or nobody is before it); takes the pending wake-up away."""
        with self._lock:
            if waiter.woken:
                waiter.woken = False
                return True
            return next(iter(self.order), None) is waiter

    def leave(self, waiter: Waiter, more: Callable[[], bool]) -> None:
        """Leave the queue, served or not; the next one is woken if ``more()`` says there may be something to take."""
        with self._lock:
            self.order.pop(waiter, None)
            waiter.woken = False
        if self.order and more():
            self.nudge()

    def nudge(self) -> None:
        """See to it that the head is awake."""
        with self._lock:
            for waiter in self.order:
                waiter.wake()
                break

    def reserved(self) -> bool:
        """True when the head was woken and has not looked yet: a newcomer must not overtake it."""
        with self._lock:
            head = next(iter(self.order), None)
            return head is not None and head.woken

    def wake(self, n: int = 1) -> None:
        """Wake the first ``n`` waiters that have no wake-up pending; from any thread, never blocks."""
        if not self.order:
            return
        with self._lock:
            for waiter in self.order:
                if not waiter.woken:
                    waiter.wake()
                    n -= 1
                    if n <= 0:
                        break

    def wake_all(self) -> None:
        """Wake everybody."""
        self.wake(1 << 62)


# --- threads ---------------------------------------------------------------------------------------------------------


class ThreadWaiter(Waiter):
    """A blocked thread: asleep on a lock, or driving the engine of its endpoint while it waits.

    Attributes:
        driver: what to run instead of sleeping, or None.
        deadline: seconds of ``time.monotonic()``, or None for no limit.
    """

    __slots__ = ("_sleep", "deadline", "driver")

    def __init__(self, driver: Driver | None, deadline: float | None) -> None:
        super().__init__()
        self.driver = driver
        self.deadline = deadline
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def park(self) -> None:
        """Wait for the wake-up.

        Raises:
            TimeoutError: the deadline passed first.
            KeyboardInterrupt: at once on POSIX: a lock's wait is left for a signal handler.
        """
        while not self.woken:
            if self.driver is not None:
                self.driver.drive(self, self.deadline)
            elif self.deadline is None:
                self._sleep.acquire()
            else:
                self._sleep.acquire(timeout=max(0.0, min(self.deadline - monotonic(), threading.TIMEOUT_MAX)))
            if not self.woken and self.deadline is not None and monotonic() >= self.deadline:
                raise TimeoutError("the call's timeout passed; nothing was sent or taken by it")

    def _notify(self) -> None:
        try:
            self._sleep.release()
        except RuntimeError:
            pass  # already released by a wake-up that the sleeper has not consumed
        if self.driver is not None:
            self.driver.poke(self)
