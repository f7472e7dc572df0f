"""The far process as a test sees it: a ``Child`` that obeys, and ``Far`` objects that stand for what lives there.

Calls that do not wait are made through and answered while this thread stands still, so ``far.pending`` or
``far.recv_nowait()`` read like those of a handle here. Calls that may wait are begun by ``Child.run``, which is
awaited; cancelling it cancels the call over there. The child is far_agent.py; it runs from this tree.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import netchan
from tests.unit.channel.far_data import METHOD, Plain, cancelled
from tests.unit.channel.verbs import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
CHUNK = 1 << 16
START_SECONDS = 30.0
EXIT_SECONDS = 5.0


class ChildDied(Exception):
    """The far process is gone; the text holds the end of what it printed."""


class Far:
    """Stands for an object in the child: attributes are read and methods called over there.

    The same object is always the same Far, so ``is`` and ``==`` work.
    """

    __slots__ = ("__weakref__", "child", "count", "kind", "number")

    def __init__(self, child: Child, number: int, kind: str) -> None:
        self.child, self.number, self.kind = child, number, kind
        self.count = 0
        """References that came from there: all are given back when this object goes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if (self.kind, name) not in self.child.methods:
            value = self.child.ask("get", self, name)
            if value is not METHOD:
                return value
            self.child.methods.add((self.kind, name))
        return partial(self.child.call, self, name)

    def __repr__(self) -> str:
        return f"<far {self.kind} {self.number}>"

    def __del__(self) -> None:
        self.child.gone.append((self.number, self.count))


def child_of(*things: Any) -> Child | None:
    """Where the first of these that is far lives; None if all are here."""
    return next((thing.child for thing in things if isinstance(thing, Far)), None)


class Child:
    """One far process.

    Args:
        library: front that it uses.

    Attributes:
        methods: (class, name) of what is known to be a method over there.
        gone: numbers of Far objects that were collected, told with the next command.
    """

    def __init__(self, library: str) -> None:
        self.methods: set[tuple[str, str]] = set()
        self.gone: deque[tuple[int, int]] = deque()
        self._plain = Plain(self._number_of, self._object_of)
        self._known: weakref.WeakValueDictionary[int, Far] = weakref.WeakValueDictionary()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Callable[[bool, Any], object]] = {}
        self._lock = threading.Lock()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._owner = os.getpid()
        self._over = False
        started: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting[0] = lambda _ok, value: started.put(value)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.channel.far_agent", library],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )
        self._reader = threading.Thread(target=self._read, name=f"far-{library}", daemon=True)
        self._reader.start()
        atexit.register(self.close)
        where = started.get(timeout=START_SECONDS)
        if isinstance(where, BaseException):
            raise where
        if where != netchan.__file__:
            raise ChildDied(f"the child runs another tree: {where}")

    @property
    def alive(self) -> bool:
        return not self._over and self.process.poll() is None

    def ask(self, what: str, *rest: Any) -> Any:
        """A command that is answered at once; its result, or its exception is raised."""
        answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        number = self._tell(lambda ok, value: answers.put((ok, value)), what, *rest)
        try:
            ok, value = answers.get(timeout=PATIENCE)
        except queue.Empty:
            self._waiting.pop(number, None)
            self.close(hard=True)
            raise TimeoutError(f"no answer to {what!r} within {PATIENCE:g} s; {self._said()}") from None
        return _outcome(ok, value)

    def call(self, target: Far | None, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of a far object (None: one of verbs.py) that does not wait."""
        return self.ask("call", target, name, args, options)

    async def run(self, target: Far | None, verb: str, *args: Any, **options: Any) -> Any:
        """Begin a call that may wait, and wait for its outcome.

        Cancelled: the far call is cancelled, and this one ends as that does: its result is returned if it had happened.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(ok: bool, value: Any) -> None:
            if not done.done():
                done.set_result((ok, value))

        def answered(ok: bool, value: Any) -> None:
            try:
                loop.call_soon_threadsafe(settle, ok, value)
            except RuntimeError:  # the loop was closed: nobody waits any more
                pass

        plain = [bytes(arg) if isinstance(arg, bytearray) else arg for arg in args]
        number = self._tell(answered, "run", target, verb, plain, options)
        try:
            async with asyncio.timeout(PATIENCE):
                ok, value = await asyncio.shield(done)
        except asyncio.CancelledError:
            self._tell(None, "cancel", number)
            ok, value = await asyncio.wait_for(done, PATIENCE)
        value = _outcome(ok, value)
        if verb == "recv_into":
            value, args[0][:] = value
        return value

    def close(self, *, hard: bool = False) -> None:
        """End the process: by the end of its input, or at once."""
        if self._over or os.getpid() != self._owner:
            return
        self._over = True
        atexit.unregister(self.close)
        with self._lock:
            if hard:
                self.process.kill()
            assert self.process.stdin is not None
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._printed.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _tell(self, answered: Callable[[bool, Any], object] | None, what: str, *rest: Any) -> int:
        number = next(self._numbers)
        if answered is not None:
            self._waiting[number] = answered
        gone = []
        while self.gone:
            gone.append(self.gone.popleft())
        data = self._plain.pack([number, what, [list(one) for one in gone], *rest])
        try:
            with self._lock:
                assert self.process.stdin is not None
                while data:
                    data = data[os.write(self.process.stdin.fileno(), data) :]
        except (OSError, ValueError) as error:
            self._waiting.pop(number, None)
            raise ChildDied(f"{error}; {self._said()}") from None
        return number

    def _read(self) -> None:
        """The thread that takes the answers, as long as the child lives."""
        unpacker = self._plain.unpacker()
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            while data := os.read(stream.fileno(), CHUNK):
                unpacker.feed(data)
                for number, ok, value in unpacker:
                    answered = self._waiting.pop(number, None)
                    if answered is not None:
                        answered(ok, value)
                    value = answered = None
        while self._waiting:
            self._waiting.popitem()[1](False, ChildDied(f"the far process ended; {self._said()}"))

    def _said(self) -> str:
        if self._printed.closed:
            return "it was ended"
        self._printed.seek(0)
        return f"it printed: {self._printed.read()[-2000:].decode(errors='replace') or 'nothing'}"

    def _number_of(self, thing: Any) -> tuple[int, str]:
        if isinstance(thing, Far) and thing.child is self:
            return thing.number, thing.kind
        raise TypeError(f"{thing!r} lives in this process and cannot be used in the other one")

    def _object_of(self, number: int, kind: str) -> Far:
        far = self._known.get(number)
        if far is None:
            far = self._known[number] = Far(self, number, kind)
        far.count += 1
        return far


def _outcome(ok: bool, value: Any) -> Any:
    if ok:
        return value
    raise cancelled() if value is None else value
