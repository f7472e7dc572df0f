"""News that nobody collects: the worker does, for forwarded channels and for programs whose loop or threads are busy.

Layer: net (L3). One eventfd for the process; the guardians write to it, and the THREADS engines do (their desk).
``collect_from`` and ``collect_paths`` may be called by any thread; the rest runs on the worker's.
Spec: docs/explanation/ownership.md.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, cast

from netchan.net.worker import READ, thing_of, worker

if TYPE_CHECKING:
    from netchan._engine.engine_handle import Engine

_log = logging.getLogger("netchan.session")


class Aside:
    """Collects the news of engines in which nobody is: a job of the worker."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        # replaced whole, so that it can be gone through without the lock
        self._engines: tuple[weakref.ref[Engine], ...] = ()

    def add(self, engine: Engine) -> None:
        """Collect from this one, too; idempotent."""
        with self._lock:
            living = [reference for reference in self._engines if reference() is not None]
            if all(reference() is not engine for reference in living):
                living.append(weakref.ref(engine))
            self._engines = tuple(living)

    def on_io(self, mask: int) -> None:
        """See net.worker.Job."""
        os.eventfd_read(self.fd)
        for reference in self._engines:
            engine = reference()
            if engine is not None:
                engine.collect()

    def step(self) -> None:
        """Never asked for."""

    def on_fault(self, error: BaseException) -> None:
        """What goes wrong for one end goes wrong in its own step."""
        _log.error("news of a channel", exc_info=error)

    def close_copy(self) -> None:
        """See net.worker.Job."""
        os.close(self.fd)

    def on_stop(self) -> None:
        """See net.worker.Job; the engines may still write to it."""


def _watched() -> Aside:
    made = Aside()
    worker().post(lambda: worker().watch(made.fd, READ, made))
    return made


def _here() -> Aside:
    """The one of this process; a forked child has another."""
    return cast("Aside", thing_of("aside", _watched))


def be_ready() -> None:
    """Make the descriptor, so that collecting from an engine that is about to be made cannot fail.

    OSError: descriptors are used up.
    """
    _here()


def collect_from(engine: Engine) -> None:
    """The worker collects the news of this engine when nobody else does.

    OSError: descriptors are used up.
    """
    found = _here()
    found.add(engine)
    engine.watch_aside(found.fd)


def collect_paths(engine: Engine) -> None:
    """The worker hears at once when a session of this engine has lost its path.

    OSError: descriptors are used up.
    """
    found = _here()
    found.add(engine)
    engine.watch_paths(found.fd)
