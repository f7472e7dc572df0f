"""What a process has one of, and the descriptor by which the worker hears of engines (net/aside.py)."""

from __future__ import annotations

import errno
import os
import resource
import threading
from typing import Any

import pytest

from netchan import Config
from netchan.net import aside, manager, worker
from netchan.net.manager import caller_home
from netchan.net.worker import Process, thing_of


@pytest.fixture
def fresh() -> Any:
    """A process that has nothing yet."""
    before = worker.become(Process())
    engines = manager.become(manager.Engines())
    try:
        yield
    finally:
        worker.stop_worker()
        manager.become(engines)
        worker.become(before)


def test_thing_is_made_once_though_two_threads_want_it(fresh: None) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made: list[object] = []

    def make() -> object:
        begun.set()
        assert go_on.wait(30)
        made.append(object())
        return made[-1]

    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(thing_of("x", make))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and got == [made[0], made[0]]


def test_no_engine_with_threads_is_there_that_nobody_listens_to(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack() -> aside.Aside:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(aside, "_watched", lack)
    with pytest.raises(OSError, match="Too many open files"):
        caller_home(Config(io_threads=1))
    assert not manager._engines.threads


def test_who_dials_or_listens_where_descriptors_are_used_up_hears_of_it(fresh: None) -> None:
    """Not the worker, when a session has come by which nobody would be told that its path is lost."""
    caller_home(Config())  # the engine is there, and the worker
    worker._process.things.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # no number below it is free
    try:
        with pytest.raises(OSError, match="Too many open files"):
            caller_home(Config())  # what every dial and listen begins with
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
