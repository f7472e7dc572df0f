"""The handshake worker: one thread per process that accepts, connects and shakes hands, whatever the program does.

Layer: net (L3); the reactor only, it knows neither sockets' meaning nor sessions. With it a program that sleeps in its
loop, or whose only thread is blocked in a dial, still accepts.

1. ``worker()`` gives the thread, started on first use, a daemon that is joined at exit.
2. Anyone posts steps to it (``post``); descriptors and timers are its own and touched on its thread only.
3. Steps that cost (cryptography) are queued by ``ready`` and run one at a time, round robin over their jobs.
4. Before it looks at a descriptor, before a step and between the parts of one, the thread gives way, so that a busy
   loop waits for one primitive, never for a whole step. Posted calls are short, and whoever posted one often waits for
   it: they run at once.

After a fork the child has no worker; the first use makes one, and the parent's descriptors are closed in the child.
Spec: docs/spec/handshake.md §2.2, §9.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

GIVE_WAY_S: Final = 0.000_3
"""Longest pause between two parts of a step while a thread that serves channels wants the interpreter."""
GIVE_WAY_QUEUE_NS: Final = 20_000_000
"""Once a step has waited so long there is no pause any more: a busy program must not keep the door shut."""
PURGE_MIN: Final = 256
"""Timers in the heap before cancelled ones are looked for."""
JOIN_S: Final = 2.0
"""How long the exit of the process waits for the thread."""
READ, WRITE = select.EPOLLIN, select.EPOLLOUT

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
    """The thread with its descriptors, timers and queue of steps.

    Args:
        threaded: False: no thread; whoever made it calls ``turn``, and ``end`` at last.
    """

    def __init__(self, *, threaded: bool = True) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Job]] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, READ)
        self._posted: deque[Callable[[], object]] = deque()
        self._steps: deque[tuple[Job, int]] = deque()
        self._idle: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._purge_at = PURGE_MIN
        self._stopping = False
        self.thread: threading.Thread | None = None
        if threaded:
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
        except (OSError, ValueError):  # closed, or forgotten
            if not self._stopping:
                raise

    def stop(self) -> None:
        """End the thread and wait for it, at most two seconds; for the exit of the process and for tests."""
        self._stopping = True
        self.post(lambda: None)
        if self.thread is not None and threading.current_thread() is not self.thread:
            self.thread.join(JOIN_S)

    def give_way(self) -> None:
        """To be called between the costly parts of a step: threads that serve channels go first.

        They wait for the interpreter, which a thread that only passes it on for a moment gets back before the one that
        waits has woken up; so this stays away until they are through, at most ``GIVE_WAY_S``.
        """
        if self.queue_wait_ns() < GIVE_WAY_QUEUE_NS:
            left = GIVE_WAY_S
            for wait in _process.served:
                left -= wait(left)

    # --- the worker's thread ----------------------------------------------------------------------------------------

    def watch(self, fd: int, mask: int, job: Job) -> None:
        """Call ``job.on_io`` when ``fd`` is ready; ``mask`` 0 stops that, another mask replaces the one before."""
        known = self._watched.get(fd)
        if known == (mask, job):
            return
        if mask:
            self._watched[fd] = (mask, job)
            if known is None:
                self._epoll.register(fd, mask)
            else:
                self._epoll.modify(fd, mask)
        elif known is not None:
            del self._watched[fd]
            self._epoll.unregister(fd)

    def ready(self, job: Job) -> None:
        """Queue one costly step of ``job``."""
        self._steps.append((job, time.monotonic_ns()))

    def when_idle(self, call: Callable[[], object]) -> None:
        """Run ``call`` when there is nothing else to do; a few tens of microseconds at most."""
        self._idle.append(call)

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
            self.turn(self._patience())
        self.end()

    def turn(self, patience: float | None) -> None:
        """Wait for something to do, at most so many seconds, and do it."""
        ready = [(fd, bits, self._watched.get(fd)) for fd, bits in self._poll(patience)]
        if self._idle and not (ready or self._posted or self._steps):
            self.give_way()
            self._guarded(None, self._idle.popleft())
        for fd, bits, entry in ready:
            if fd == self._wake:
                os.eventfd_read(fd)
            elif entry is not None and self._watched.get(fd) is entry:  # else the number is somebody else's by now
                mask, job = entry
                self.give_way()
                # an error or a hang-up shows in whatever is tried next
                self._guarded(job, partial(job.on_io, mask if bits & ~(READ | WRITE) else bits & mask))
        while self._posted:
            self._guarded(None, self._posted.popleft())
        self._run_timers()
        if self._steps:
            job, _ = self._steps.popleft()
            self.give_way()
            self._guarded(job, job.step)

    def end(self) -> None:
        """Nobody calls ``turn`` any more: the jobs stop, and the descriptors are closed."""
        for job in self._jobs():
            self._guarded(None, job.on_stop)
        self._epoll.close()
        self._forget_wake()

    def _poll(self, patience: float | None) -> list[tuple[int, int]]:
        return self._epoll.poll(patience)

    def _forget_wake(self) -> None:
        """Close the descriptor; the number may be somebody else's from now on, so it is forgotten first."""
        self._stopping = True
        wake, self._wake = self._wake, -1
        os.close(wake)

    def _jobs(self) -> list[Job]:
        return list({id(job): job for _, job in self._watched.values()}.values())

    def _patience(self) -> float | None:
        if self._steps or self._posted or self._idle:
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
        self._epoll.close()
        self._forget_wake()


class Process:
    """The worker of this process, how often its ancestors forked, and other things of which it has one.

    Attributes:
        things: by their names (``thing_of``); a forked child has none.
    """

    __slots__ = ("forks", "graves", "instance", "lock", "making", "served", "things", "worker")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.making = threading.RLock()  # what is made may need another one
        self.worker: Worker | None = None
        self.served: list[Callable[[float], float]] = []
        self.forks = 0
        self.instance = os.urandom(16)
        self.things: dict[str, Any] = {}
        self.graves: list[object] = []


_process: Process = Process()


def become(process: Process) -> Process:
    """Be this process from here on, and return the one before: a simulation runs several in one, by turns."""
    global _process
    before, _process = _process, process
    return before


def thing_of(name: str, make: Callable[[], Any]) -> Any:
    """What this process has one of; made on first use."""
    found = _process.things.get(name)
    if found is None:
        with _process.making:
            found = _process.things.get(name)
            if found is None:
                found = _process.things[name] = make()
    return found


def worker() -> Worker:
    """The worker of this process; started on first use."""
    with _process.lock:
        if _process.worker is None:
            _process.worker = Worker()
        return _process.worker


def running_worker() -> Worker | None:
    """The worker if there is one."""
    return _process.worker


def serve_first(wait: Callable[[float], float]) -> None:
    """Between the parts of a step the worker calls ``wait(limit)``: seconds it waited, for those who go first."""
    _process.served.append(wait)


def forks() -> int:
    """Forks between the first process and this one: what is made here is usable while the figure stays the same."""
    return _process.forks


def instance() -> bytes:
    """16 random bytes of this process; a forked child has others."""
    return _process.instance


def stop_worker() -> None:
    """End the thread; the next ``worker()`` starts another. For the exit of the process."""
    with _process.lock:
        found, _process.worker = _process.worker, None
    if found is not None:
        found.stop()


def _after_fork() -> None:
    _process.lock, _process.making = threading.Lock(), threading.RLock()
    _process.forks += 1
    _process.instance = os.urandom(16)
    _process.graves.append(_process.things)
    _process.things = {}
    found, _process.worker = _process.worker, None
    if found is not None:
        # kept for ever: no finaliser may run in the child
        _process.graves.append(found)
        found.close_copies()


os.register_at_fork(after_in_child=_after_fork)
