"""The handshake worker: descriptors, timers, steps, and that those who serve channels go first (spec handshake §9)."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from netchan.net import worker as w


class Recorder:
    """A job that notes what it is told, and acts when asked."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.seen: list[object] = []
        self.act = act
        self.told = threading.Event()

    def on_io(self, mask: int) -> None:
        self.seen.append(mask)
        self.act()
        self.told.set()

    def step(self) -> None:
        self.seen.append("step")
        self.act()
        self.told.set()

    def on_fault(self, error: BaseException) -> None:
        self.seen.append(error)
        self.told.set()

    def close_copy(self) -> None:
        """Not forked here."""

    def on_stop(self) -> None:
        self.seen.append("stop")


@pytest.fixture
def worker() -> Iterator[w.Worker]:
    one = w.Worker()
    yield one
    one.stop()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[float], float]]:
    """Who goes first, empty."""
    asked: list[Callable[[float], float]] = []
    monkeypatch.setattr(w._process, "served", asked)
    return asked


def test_watch_change_and_forget_a_descriptor(worker: w.Worker) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        job = Recorder(lambda: worker.watch(ours.fileno(), 0, job))
        worker.post(lambda: worker.watch(ours.fileno(), w.READ | w.WRITE, job))
        assert job.told.wait(5)
        assert job.seen == [w.WRITE]
        job.told.clear()
        theirs.send(b"x")
        worker.post(lambda: worker.watch(ours.fileno(), w.READ, job))
        assert job.told.wait(5)
        assert job.seen == [w.WRITE, w.READ]


def test_a_hang_up_shows_as_what_was_watched(worker: w.Worker) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        job = Recorder(lambda: worker.watch(ours.fileno(), 0, job))
        theirs.close()
        worker.post(lambda: worker.watch(ours.fileno(), w.READ, job))
        assert job.told.wait(5)
        assert job.seen == [w.READ]


def test_a_report_of_a_closed_descriptor_does_not_reach_the_next_owner_of_its_number(worker: w.Worker) -> None:
    # Two descriptors are ready in one look; whoever is told first closes the other and opens one with its number.
    pairs = [socket.socketpair() for _ in range(2)]
    heirs: list[tuple[socket.socket, socket.socket]] = []
    heir = Recorder()
    done = threading.Event()

    def inherit(other: int) -> Callable[[], None]:
        def act() -> None:
            if heirs:
                return
            for mine, _ in pairs:
                worker.watch(mine.fileno(), 0, jobs[0])
            number = pairs[other][0].fileno()
            pairs[other][0].close()
            heirs.append(socket.socketpair())
            fresh = heirs[0][0]
            if fresh.fileno() != number:
                os.dup2(fresh.fileno(), number)
            worker.watch(number, w.READ, heir)
            worker.post(done.set)

        return act

    jobs = [Recorder(inherit(1)), Recorder(inherit(0))]

    def begin() -> None:
        for (mine, theirs), job in zip(pairs, jobs, strict=True):
            theirs.send(b"x")
            worker.watch(mine.fileno(), w.READ, job)

    worker.post(begin)
    assert done.wait(5)
    time.sleep(0.05)
    assert heir.seen == []
    for sock in (*pairs[0], *pairs[1], *heirs[0]):
        sock.close()


def test_steps_take_turns_and_a_broken_one_ends_its_job_only(
    worker: w.Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    bad, good = Recorder(broken), Recorder()
    worker.post(lambda: (worker.ready(bad), worker.ready(good)))
    assert good.told.wait(5)
    assert bad.seen[0] == "step"
    assert isinstance(bad.seen[1], RuntimeError)
    assert "a step of the handshake worker failed" in caplog.text


def test_timers_run_in_order_of_time_and_not_when_cancelled(worker: w.Worker) -> None:
    ran: list[str] = []
    done = threading.Event()

    def begin() -> None:
        now = time.monotonic_ns()
        worker.at(now + 30_000_000, lambda: (ran.append("late"), done.set()))
        worker.at(now + 10_000_000, lambda: ran.append("early"))
        worker.at(now + 20_000_000, lambda: ran.append("never")).cancel()

    worker.post(begin)
    assert done.wait(5)
    assert ran == ["early", "late"]


def test_before_a_step_and_between_its_parts_those_who_serve_channels_go_first(
    worker: w.Worker, served: list[Callable[[float], float]]
) -> None:
    order: list[str] = []

    def wait(limit: float) -> float:
        order.append(f"waited {limit == w.GIVE_WAY_S}")
        return 0.0

    served.append(wait)
    job = Recorder(lambda: (order.append("first half"), worker.give_way(), order.append("second half")))
    worker.post(lambda: worker.ready(job))
    assert job.told.wait(5)
    # nobody waits before the call that was posted: whoever posted it may be waiting for it
    assert order == ["waited True", "first half", "waited True", "second half"]


def test_before_a_descriptor_is_looked_at_those_who_serve_channels_go_first(
    worker: w.Worker, served: list[Callable[[float], float]]
) -> None:
    order: list[str] = []
    ours, theirs = socket.socketpair()

    def wait(limit: float) -> float:
        order.append("waited")
        return 0.0

    class Reader(Recorder):
        def on_io(self, mask: int) -> None:
            order.append("read")
            worker.watch(ours.fileno(), 0, self)
            self.told.set()

    job = Reader()
    worker.post(lambda: (worker.watch(ours.fileno(), w.READ, job), served.append(wait)))
    theirs.send(b"x")
    assert job.told.wait(5)
    assert order == ["waited", "read"]
    ours.close()
    theirs.close()


def test_all_who_go_first_share_one_limit(worker: w.Worker, served: list[Callable[[float], float]]) -> None:
    limits: list[float] = []

    def wait(limit: float) -> float:
        limits.append(limit)
        return limit / 2

    served += [wait, wait]
    worker.give_way()
    assert limits == [w.GIVE_WAY_S, w.GIVE_WAY_S / 2]


def test_a_queue_that_has_waited_long_is_not_held_up_any_more(
    worker: w.Worker, served: list[Callable[[float], float]]
) -> None:
    asked: list[int] = []

    def wait(limit: float) -> float:
        asked.append(1)
        return 0.0

    served.append(wait)
    first = Recorder(lambda: time.sleep(2 * w.GIVE_WAY_QUEUE_NS / 1e9))
    second, third = Recorder(), Recorder()
    worker.post(lambda: (worker.ready(first), worker.ready(second), worker.ready(third)))
    assert third.told.wait(5)
    assert second.told.is_set()
    # the first was let wait, the second began while the third had waited too long, the third left an empty queue
    assert len(asked) == 2


def test_post_to_a_worker_that_has_ended_does_nothing() -> None:
    """As when what is left open is collected at the very end of the process."""
    one = w.Worker()
    one.stop()
    one.thread.join(5)
    one.post(lambda: None)


def test_what_can_wait_runs_when_there_is_nothing_else_to_do(
    worker: w.Worker, served: list[Callable[[float], float]]
) -> None:
    order: list[str] = []
    done = threading.Event()
    served.append(lambda limit: order.append("waited") or 0.0)  # type: ignore[func-returns-value]

    def idle(name: str, last: bool = False) -> Callable[[], object]:
        return lambda: (order.append(name), done.set() if last else worker.post(lambda: order.append("posted")))

    first = Recorder(lambda: order.append("step"))

    def begin() -> None:
        worker.when_idle(idle("one"))
        worker.when_idle(idle("two", last=True))
        worker.ready(first)
        order.append("begun")

    worker.post(begin)
    assert done.wait(5)
    # what was asked for goes before what can wait, and those who serve channels before both
    assert order == ["begun", "waited", "step", "waited", "one", "posted", "waited", "two"]
