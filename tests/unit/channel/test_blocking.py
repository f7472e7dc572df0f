"""The blocking front alone: timeouts, Ctrl-C, threads, and that it is what the async one gives."""

from __future__ import annotations

import ast
import importlib.util
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from netchan import sync
from netchan.errors import ChannelEnded
from netchan.net.wait import BlockingWaiter

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.timeout(60)


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("async_to_sync", ROOT / "tools" / "async_to_sync.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_what_the_tool_makes() -> None:
    made = tool()
    for source, target in made.PAIRS.items():
        text = made.convert((ROOT / source).read_text(encoding="utf-8"), source)
        assert text == (ROOT / target).read_text(encoding="utf-8"), f"run tools/async_to_sync.py: {target} is stale"
        waits = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
        assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, waits)], target


@pytest.mark.parametrize(
    "source",
    ["# async-only: begin\nx = 1\n", "# async-only: end\n", "def g():  # + timeout\n    pass\n"],
    ids=["begin", "end", "no-return-type"],
)
def test_tool_refuses_directives_it_cannot_follow(source: str) -> None:
    with pytest.raises(ValueError, match=r"x\.py:"):
        tool().convert(source, "x.py")


def test_timeout_zero_tries_once() -> None:
    ch = sync.channel(int, capacity=1)
    with pytest.raises(TimeoutError):
        ch.recv(timeout=0)
    ch.send(1, timeout=0)
    with pytest.raises(TimeoutError):
        ch.send(2, timeout=0)
    assert ch.recv(timeout=0) == 1
    assert ch.pending == 0
    ch.close()


@pytest.mark.parametrize(
    ("verb", "capacity"),
    [(v, c) for v in ("send", "deliver", "recv", "recv_many", "send_many") for c in (0, 1)] + [("flush", 1)],
)
def test_timed_out_call_leaves_no_trace(verb: str, capacity: int) -> None:
    ch = sync.channel(int, capacity=capacity)
    items = iter([7, 8])
    calls = {
        "send": lambda: ch.send(1, timeout=0.005),
        "deliver": lambda: ch.deliver(1, timeout=0.005),
        "send_many": lambda: ch.send_many((n for n in items), timeout=0.005),
        "recv": lambda: ch.recv(timeout=0.005),
        "recv_many": lambda: ch.recv_many(4, timeout=0.005),
        "flush": lambda: ch.flush("taken", timeout=0.005),
    }
    left = []
    if capacity and verb in ("send", "send_many", "flush"):
        ch.send_nowait(0)
        left = [0]
    if capacity and verb == "deliver":
        left = [1]  # accepted, not taken: it stays sent
    with pytest.raises(TimeoutError):
        calls[verb]()
    stats = ch.stats()
    assert (stats.senders_waiting, stats.receivers_waiting) == (0, 0)
    if verb == "send_many":
        assert list(items) == [7, 8]
    ch.close()
    assert list(ch) == left


def test_iteration_ends_as_in_go() -> None:
    ch = sync.channel(int, capacity=3)
    ch.send_many([1, 2, 3])
    ch.close()
    assert list(ch) == [1, 2, 3]
    assert next(ch, None) is None
    with pytest.raises(ChannelEnded):
        ch.recv()


def test_with_block_closes_and_an_exception_is_no_clean_end() -> None:
    a, b = sync.pipe(int, capacity=2)
    with a:
        a.send(1)
    assert list(b) == [1]
    b.close()
    a, b = sync.pipe(int, capacity=2)
    with pytest.raises(KeyError), a:
        a.send(1)
        raise KeyError
    assert b.recv() == 1
    with pytest.raises(sync_errors().ChannelAborted) as caught:
        b.recv()
    assert caught.value.code == sync_errors().Code.LEFT_BY_EXCEPTION
    with pytest.raises(sync_errors().ChannelClosed):
        b.send(1)


def sync_errors() -> Any:
    from netchan import errors

    return errors


@pytest.mark.parametrize("verb", ["send", "recv"])
def test_ctrl_c_leaves_a_blocked_call_at_once(verb: str) -> None:
    ch = sync.channel(int)
    started = threading.Event()

    def interrupt() -> None:
        started.wait()
        while not (ch.stats().senders_waiting or ch.stats().receivers_waiting):
            pass
        marks.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    marks: list[float] = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started.set()
        with pytest.raises(KeyboardInterrupt):
            ch.send(1, timeout=20) if verb == "send" else ch.recv(timeout=20)
        took = time.monotonic() - marks[0]
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert took < 1.0, f"{took:.3f} s (100 ms on a machine that is not busy)"
    assert (ch.stats().senders_waiting, ch.stats().receivers_waiting) == (0, 0)
    ch.close()


@pytest.mark.parametrize("capacity", [0, 1, 64])
def test_threads_hammering_one_channel_lose_and_double_nothing(capacity: int) -> None:
    ch = sync.channel(int, capacity=capacity)
    total, parts = 1500, 3
    got: list[list[int]] = [[] for _ in range(3)]
    failures: list[BaseException] = []

    def guard(work: Any, *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            failures.append(error)

    def send(part: int) -> None:
        for n in range(part, total, parts):
            if n % 7 == 0:
                while True:
                    try:
                        ch.send(n, timeout=0.001)
                        break
                    except TimeoutError:
                        continue
            elif n % 5 == 0:
                ch.deliver(n)
            else:
                ch.send(n)

    def receive(mine: list[int]) -> None:
        while True:
            try:
                if len(mine) % 3 == 0:
                    mine += ch.recv_many(5, timeout=0.001)
                else:
                    mine.append(ch.recv(timeout=0.001))
            except TimeoutError:
                continue
            except ChannelEnded:
                return

    senders = [threading.Thread(target=guard, args=(send, part)) for part in range(parts)]
    receivers = [threading.Thread(target=guard, args=(receive, mine)) for mine in got]
    for thread in (*senders, *receivers):
        thread.start()
    for thread in senders:
        thread.join(50)
    ch.close()
    for thread in receivers:
        thread.join(50)
    assert not failures
    assert sorted(n for mine in got for n in mine) == list(range(total))
    for mine in got:
        for part in range(parts):
            own = [n for n in mine if n % parts == part]
            assert own == sorted(own)


class LoopbackDriver:
    """A driver whose engine needs driving: the value is put in by ``drive`` itself, on the waiting thread."""

    def __init__(self, ch: Any) -> None:
        self.ch = ch
        self.calls: list[str] = []
        self.refuse = False

    def check_blocking(self) -> None:
        self.calls.append("check")
        if self.refuse:
            raise RuntimeError("this loop drives the engine")

    def drive(self, waiter: BlockingWaiter, deadline: float | None) -> None:
        self.calls.append("drive")
        if not self.ch.pending and not waiter.woken:
            self.ch.send_nowait(42)

    def poke(self, waiter: BlockingWaiter) -> None:
        self.calls.append("poke")


def test_blocked_call_runs_the_driver_of_its_endpoint() -> None:
    ch = sync.channel(int, capacity=1)
    driver = LoopbackDriver(ch)
    ch._ep.driver = driver
    assert ch.recv() == 42
    assert driver.calls == ["check", "drive", "poke"]
    driver.refuse = True
    with pytest.raises(RuntimeError, match="loop"):
        ch.recv()
    assert ch.stats().receivers_waiting == 0
    ch.close()
