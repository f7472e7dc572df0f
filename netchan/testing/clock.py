"""The only fake clock: what programs of a simulation ask of ``time``, ``os.urandom`` and ``random``.

Layer: testing. While a simulation runs, the thread that runs it sees virtual time and seeded randomness; other threads
see the system's. Functions that netchan's own modules have imported by name are exchanged there too; where a module is
imported meanwhile it keeps one of ours, which asks the system once no simulation runs.

Threads: one simulation at a time in a process. Spec: docs/spec/simulation.md §2.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from netchan._engine import waitq

_REAL: Final[dict[str, Callable[[], Any]]] = {
    name: getattr(time, name)
    for name in ("monotonic", "monotonic_ns", "time", "time_ns", "perf_counter", "perf_counter_ns")
}
_sleep: Final = time.sleep
_urandom: Final = os.urandom
_running: Final = threading.Lock()


class Now:
    """What the running simulation answers with."""

    def __init__(self) -> None:
        self.thread = 0
        self.monotonic_ns: Callable[[], int] = time.monotonic_ns
        self.wall_ns: Callable[[], int] = time.time_ns
        self.bytes: Callable[[int], bytes] = os.urandom


_now: Final = Now()


def _here() -> bool:
    return _now.thread == threading.get_ident()


def _monotonic() -> float:
    return _now.monotonic_ns() / 1e9 if _here() else float(_REAL["monotonic"]())


def _monotonic_ns() -> int:
    return _now.monotonic_ns() if _here() else int(_REAL["monotonic_ns"]())


def _time() -> float:
    return _now.wall_ns() / 1e9 if _here() else float(_REAL["time"]())


def _time_ns() -> int:
    return _now.wall_ns() if _here() else int(_REAL["time_ns"]())


def _perf_counter() -> float:
    return _now.monotonic_ns() / 1e9 if _here() else float(_REAL["perf_counter"]())


def _perf_counter_ns() -> int:
    return _now.monotonic_ns() if _here() else int(_REAL["perf_counter_ns"]())


def _virtual_sleep(seconds: Any) -> None:
    if _here():
        raise RuntimeError("time.sleep would stop all hosts of the simulation; await asyncio.sleep instead")
    _sleep(seconds)


def _virtual_urandom(size: int) -> bytes:
    return _now.bytes(size) if _here() else _urandom(size)


_OURS: Final[dict[str, Callable[[], Any]]] = {
    "monotonic": _monotonic,
    "monotonic_ns": _monotonic_ns,
    "time": _time,
    "time_ns": _time_ns,
    "perf_counter": _perf_counter,
    "perf_counter_ns": _perf_counter_ns,
}


def _exchange(before: Callable[[], Any], after: Callable[[], Any]) -> None:
    """In every module of netchan that has imported it by name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("netchan.") and name != __name__:
            for key, value in list(vars(module).items()):
                if value is before:
                    setattr(module, key, after)


@contextmanager
def borrowed(monotonic_ns: Callable[[], int], wall_ns: Callable[[], int], rng: random.Random) -> Iterator[None]:
    """Meanwhile this thread sees this time and this randomness.

    Raises:
        RuntimeError: another simulation runs.
    """
    if not _running.acquire(blocking=False):
        raise RuntimeError("a simulation runs already; one at a time in a process")
    state = random.getstate()
    clock = waitq.set_clock(_monotonic)
    try:
        _now.monotonic_ns, _now.wall_ns, _now.bytes = monotonic_ns, wall_ns, rng.randbytes
        _now.thread = threading.get_ident()
        random.seed(rng.getrandbits(64))
        for name, ours in _OURS.items():
            setattr(time, name, ours)
            _exchange(_REAL[name], ours)
        time.sleep = _virtual_sleep
        os.urandom = _virtual_urandom
        random._urandom = _virtual_urandom  # type: ignore[attr-defined]  # of SystemRandom, and so of secrets
        yield
    finally:
        random._urandom = _urandom  # type: ignore[attr-defined]
        os.urandom = _urandom
        time.sleep = _sleep
        for name, ours in _OURS.items():
            setattr(time, name, _REAL[name])
            _exchange(ours, _REAL[name])
        _now.thread = 0
        waitq.set_clock(clock)
        random.setstate(state)
        _running.release()
