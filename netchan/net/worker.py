"""The handshake worker: one thread per process that accepts, connects and shakes hands, whatever the program does.

Layer: net (L3); the reactor only, it knows neither sockets' meaning nor sessions. With it a program that sleeps in its
loop, or whose only thread is blocked in a dial, still accepts.

1. ``worker()`` gives the thread, started on first use, a daemon that is joined at exit.
2. Anyone posts steps to it (``post``); descriptors and timers are its own and touched on its thread only.
3. Steps that cost (cryptography) are queued by ``ready`` and run one at a time, round robin over their jobs; after each
   the thread gives way, so that a busy loop waits for one step of a handshake, never for a whole one.

After a fork the child has no worker; the first use makes one, and the parent's descriptors are closed in the child.
Spec: docs/spec/handshake.md §2.2, §9.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

GIVE_WAY_S: Final = 0.000_1
"""Pause after each costly step: enough for a thread that waits for the interpreter to get it, 10 % of a step."""
PURGE_MIN: Final = 256
"""Timers in the heap before cancelled ones are looked for."""
JOIN_S: Final = 2.0
"""How long the exit of the process waits for the thread."""
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_log = logging.getLogger("netchan.session")


class Job(Protocol):
    """Something that owns a descriptor of the worker."""

    def on_io(self, mask: int) -> None:
        """The descriptor is ready; must not block nor compute for long."""

    def step(self) -> None:
        """One costly step, asked for with ``ready``."""

    def on_fault(self, error: BaseException) -> None:
        """A call of this job raised what it must not: give up and close the descriptor."""

    def close_copy(self) -> None:
        """In a forked child: close the descriptor, tell nobody."""

    def on_stop(self) -> None:
        """The process ends: close the descriptor and leave nothing behind."""


class Timer:
    """A call that was put off; ``cancel`` it on the worker's thread, or leave it to run."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not call. Idempotent."""
        self.call = None


class Worker:
    """The thread with its descriptors, timers and queue of steps."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, READ, None)
        self._posted: deque[Callable[[], object]] = deque()
        self._steps: deque[tuple[Job, int]] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._purge_at = PURGE_MIN
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="netchan-handshake", daemon=True)
        self.thread.start()

    # --- any thread -------------------------------------------------------------------------------------------------

    def post(self, call: Callable[[], object]) -> None:
        """Run ``call`` soon on the worker's thread; calls run in the order in which they were posted. Never blocks."""
        self._posted.append(call)
        try:
            os.eventfd_write(self._wake, 1)
        except BlockingIOError:
            pass  # the counter is full: it is awake
        except OSError:
            if not self._stopping:
                raise

    def stop(self) -> None:
        """End the thread and wait for it, at most two seconds; for the exit of the process and for tests."""
        self._stopping = True
        self.post(lambda: None)
        if threading.current_thread() is not self.thread:
            self.thread.join(JOIN_S)

    # --- the worker's thread ----------------------------------------------------------------------------------------

    def watch(self, fd: int, mask: int, job: Job) -> None:
        """Call ``job.on_io`` when ``fd`` is ready; ``mask`` 0 stops that, another mask replaces the one before."""
        known = fd in self._selector.get_map()
        if not mask:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, mask, job)
        else:
            self._selector.register(fd, mask, job)

    def ready(self, job: Job) -> None:
        """Queue one costly step of ``job``."""
        self._steps.append((job, time.monotonic_ns()))

    def at(self, when_ns: int, call: Callable[[], object]) -> Timer:
        """Run ``call`` at ``when_ns`` of the monotonic clock."""
        timer = Timer(call)
        if len(self._timers) >= self._purge_at:
            # cancelled ones wait for their time; a busy listener would gather thousands
            self._timers = [item for item in self._timers if item[2].call is not None]
            heapq.heapify(self._timers)
            self._purge_at = max(PURGE_MIN, 2 * len(self._timers))
        heapq.heappush(self._timers, (when_ns, next(self._order), timer))
        return timer

    def queue_wait_ns(self) -> int:
        """How long the oldest costly step has waited, in nanoseconds."""
        return time.monotonic_ns() - self._steps[0][1] if self._steps else 0

    # --- inside -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select(self._patience()):
                if key.data is None:
                    os.eventfd_read(self._wake)
                else:
                    self._guarded(key.data, partial(key.data.on_io, mask))
            while self._posted:
                self._guarded(None, self._posted.popleft())
            self._run_timers()
            if self._steps:
                job, _ = self._steps.popleft()
                self._guarded(job, job.step)
                time.sleep(GIVE_WAY_S)
        for job in self._jobs():
            self._guarded(None, job.on_stop)
        self._selector.close()
        self._forget_wake()

    def _forget_wake(self) -> None:
        """Close the descriptor; the number may be somebody else's from now on, so it is forgotten first."""
        self._stopping = True
        wake, self._wake = self._wake, -1
        os.close(wake)

    def _jobs(self) -> list[Job]:
        jobs = [key.data for key in self._selector.get_map().values() if key.data is not None]
        return list({id(job): job for job in jobs}.values())

    def _patience(self) -> float | None:
        if self._steps or self._posted:
            return 0.0
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9)

    def _run_timers(self) -> None:
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                self._guarded(None, call)

    def _guarded(self, job: Job | None, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            # one broken job must not end the thread that all the others need
            _log.exception("a step of the handshake worker failed")
            if job is not None:
                job.on_fault(error)

    def close_copies(self) -> None:
        """In a forked child: close this process's copies of the descriptors; the parent's stay as they are."""
        for job in self._jobs():
            job.close_copy()
        os.close(self._selector.fileno())  # type: ignore[attr-defined,unused-ignore]
        self._forget_wake()


class _Process:
    """The worker of this process and how often its ancestors forked."""

    __slots__ = ("forks", "graves", "lock", "worker")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: Worker | None = None
        self.forks = 0
        self.graves: list[Worker] = []


_process: Final = _Process()


def worker() -> Worker:
    """The worker of this process; started on first use."""
    with _process.lock:
        if _process.worker is None:
            _process.worker = Worker()
        return _process.worker


def running_worker() -> Worker | None:
    """The worker if there is one."""
    return _process.worker


def forks() -> int:
    """Forks between the first process and this one: what is made here is usable while the figure stays the same."""
    return _process.forks


def stop_worker() -> None:
    """End the thread; the next ``worker()`` starts another. For the exit of the process."""
    with _process.lock:
        found, _process.worker = _process.worker, None
    if found is not None:
        found.stop()


def _after_fork() -> None:
    _process.lock = threading.Lock()
    _process.forks += 1
    found, _process.worker = _process.worker, None
    if found is not None:
        # kept for ever: no finaliser may close its selector again, when the number is somebody else's
        _process.graves.append(found)
        found.close_copies()


os.register_at_fork(after_in_child=_after_fork)
