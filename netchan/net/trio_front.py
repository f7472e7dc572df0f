"""The async front on trio: how a trio task sleeps and is woken, what drives its engine, and the tasks of a ``serve``.

Layer: net (L3), beside wait.py, manager.py and tasks.py, which turn here when the running task is trio's. Imported only
then: trio comes with the extra ``netchan[trio]``.

1. A call on trio first lets a pending cancellation through, before it has done anything. It is a schedule point by the
   same budget as on asyncio (every 129th ready call, or after 0.5 ms), which differs from trio's own rule.
2. A send at capacity 0 that was taken while it was being cancelled returns; the scope cancels the next checkpoint.
   While the answer to WITHDRAW is awaited the task is shielded, for ``ANSWER_SECONDS`` at most.
3. One engine per run, driven by a system task that waits for the engine's descriptor; and one bell (bells.py) with a
   task that listens to it, where sessions have engines with threads of their own.

Spec: docs/spec/channel-end.md §3, §4; api rules R5, R21.
"""

# ruff: noqa: D102 - overriding methods keep the contract of Waiter

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

import trio

from netchan.net.bells import new_bell
from netchan.net.wait import READY_CALLS_MAX, READY_SECONDS_MAX, THREAD, AsyncWaiter, earlier

if TYPE_CHECKING:
    from netchan._engine.bell import Bell
    from netchan._engine.engine_handle import Engine


class TrioWaiter(AsyncWaiter):
    """A waiting trio task."""

    __slots__ = ("_shield", "_task", "_thread", "_token")

    def __init__(self, deadline: float | None = None, *, rings: bool = False) -> None:
        self.deadline = deadline
        self._token = trio.lowlevel.current_trio_token()
        if rings and self._token not in _bells:
            _bells[self._token] = bell = new_bell()
            trio.lowlevel.spawn_system_task(_hear, bell, name="netchan bell")
        self._thread = threading.get_ident()
        self._task: trio.lowlevel.Task | None = None
        self._shield = False

    async def park(self, until: float | None = None) -> None:
        """Wait for the wake-up, or until ``until`` (seconds of ``time.monotonic()``), which is no error.

        Raises:
            trio.Cancelled: the task was cancelled; the wake-up, if any, stays pending.
            TimeoutError: the deadline passed first.
        """
        budget = THREAD.budget
        while self.asleep():
            end = earlier(self.deadline, until)
            limit = float("inf") if end is None else trio.current_time() + max(0.0, end - monotonic())
            shield = self._shield and self.deadline is not None and monotonic() < self.deadline
            with trio.CancelScope(deadline=limit, shield=shield):
                self._task = trio.lowlevel.current_task()
                try:
                    await trio.lowlevel.wait_task_rescheduled(self._abort)
                finally:
                    self._task = None
                    budget.since = monotonic()
            if until is not None and monotonic() >= until:
                return
            if self.deadline is not None and self.asleep() and monotonic() >= self.deadline:
                raise TimeoutError("the time given for this call passed")

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def persist(self) -> None:
        super().persist()
        self._shield = True

    def gone(self) -> bool:
        return False  # a run ends when all its tasks have

    def excuse(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError | trio.Cancelled)

    def _notify(self) -> None:
        if threading.get_ident() == self._thread and trio.lowlevel.in_trio_run():
            self._resume()
            return
        try:
            self._token.run_sync_soon(self._resume)
        except trio.RunFinishedError:
            pass

    def _resume(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


async def pause() -> None:
    """What every call on trio begins with: see the module head. trio.Cancelled: the call has done nothing."""
    budget = THREAD.budget
    now = monotonic()
    budget.turns += 1
    if budget.turns > READY_CALLS_MAX or now - budget.since > READY_SECONDS_MAX:
        budget.turns = 0
        await trio.lowlevel.checkpoint()
        budget.since = monotonic()
    else:
        await trio.lowlevel.checkpoint_if_cancelled()
    budget.calls = READY_CALLS_MAX  # the next call comes here too


# --- the engine of a run ---------------------------------------------------------------------------------------------

_engines: weakref.WeakKeyDictionary[trio.lowlevel.TrioToken, Engine] = weakref.WeakKeyDictionary()
_bells: weakref.WeakKeyDictionary[trio.lowlevel.TrioToken, Bell] = weakref.WeakKeyDictionary()


def run_engine(new: Callable[[], Engine]) -> Engine:
    """The engine of this run; ``new`` makes one on first use."""
    token = trio.lowlevel.current_trio_token()
    engine = _engines.get(token)
    if engine is None:
        engine = new()
        engine.set_loop(threading.get_ident(), token.run_sync_soon)
        trio.lowlevel.spawn_system_task(_drive, engine, name="netchan engine")
        _engines[token] = engine
    return engine


async def _drive(engine: Engine) -> None:
    try:
        while True:
            await trio.lowlevel.wait_readable(engine.fd)
            engine.pump()
    finally:
        engine.set_loop(None, None)


async def _hear(bell: Bell) -> None:
    try:
        while True:
            await trio.lowlevel.wait_readable(bell.fd)
            bell.hear()
    finally:
        bell.close()


def ask_in_run(
    answer_soon: Callable[[Callable[[], None]], None],
) -> Callable[[Awaitable[object], float, Callable[[bool], None]], None]:
    """How a listener or dial of this run awaits an async trust callable (manager.AskTrust).

    Args:
        answer_soon: runs a call on the worker's thread.
    """
    token = trio.lowlevel.current_trio_token()

    async def awaited(pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        allowed = False
        try:
            with trio.move_on_after(timeout_s):
                allowed = (await pending) is True
        except Exception:  # the spec says: raising refuses, whatever is raised
            allowed = False
        answer_soon(lambda: answer(allowed))

    def ask(pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        def start() -> None:
            trio.lowlevel.spawn_system_task(awaited, pending, timeout_s, answer)

        try:
            token.run_sync_soon(start)
        except trio.RunFinishedError:
            if isinstance(pending, Coroutine):
                pending.close()
            answer(False)

    return ask


class TrioGroup:
    """Tasks of one ``serve`` (tasks.TaskGroup)."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, trio.Event] = {}

    def __len__(self) -> int:
        return len(self._scopes)

    def start(self, call: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Run ``call(*arguments)`` as a task; it must handle its own exceptions."""
        scope = trio.CancelScope()
        self._scopes[scope] = trio.Event()

        async def run() -> None:
            try:
                with scope:
                    await call(*arguments)
            finally:
                self._scopes.pop(scope).set()

        trio.lowlevel.spawn_system_task(run, name="netchan handler")

    async def join(self) -> None:
        """Wait until all are done. Cancelled: they go on."""
        while self._scopes:
            await next(iter(self._scopes.values())).wait()

    async def cancel(self) -> None:
        """Cancel all and wait until they are done."""
        for scope in list(self._scopes):
            scope.cancel()
        with trio.CancelScope(shield=True):
            await self.join()
