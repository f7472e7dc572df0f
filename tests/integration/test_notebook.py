"""In a notebook: cells of a real IPython kernel, each run to its end before the next (api: R7, R41, R46, R57)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

import netchan
from netchan import Config, sync
from tests.integration.kit import BOSS, TCP

WHY = "needs a kernel; pip install ipykernel jupyter_client, which are in the dependency group test"
pytest.importorskip("ipykernel", reason=WHY)
jupyter_client = pytest.importorskip("jupyter_client", reason=WHY)

ROOT = Path(__file__).resolve().parents[2]
WAIT = 30.0


@dataclass
class Ran:
    """What a cell did: what it printed on both streams, and the name of what it raised, "" if nothing."""

    out: str
    err: str
    error: str


class Kernel:
    """An IPython kernel in a process of its own; its settings and history stay in ``home``."""

    def __init__(self, home: Path) -> None:
        place = str(home / "kernel.json")
        jupyter_client.connect.write_connection_file(place, ip="127.0.0.1", key=os.urandom(16).hex().encode())
        self._log = (home / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "always::ResourceWarning", "-m", "ipykernel_launcher", "-f", place],
            cwd=home,
            env=os.environ | {"HOME": str(home), "IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT)},
            stdout=self._log,
            stderr=self._log,
        )
        self._client = jupyter_client.BlockingKernelClient(connection_file=place)
        self._client.load_connection_file()
        self._client.start_channels()
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _wait_ready(self) -> None:
        end = time.monotonic() + WAIT
        while True:
            try:
                self._client.wait_for_ready(timeout=WAIT)
                return
            except RuntimeError:  # so it says, too, of a kernel whose heart does not beat yet
                assert self.process.poll() is None and time.monotonic() < end, "the kernel did not start"

    def start(self, code: str) -> str:
        """Begin a cell; ``ran`` waits for its end."""
        return str(self._client.execute(code, store_history=True))

    def ran(self, cell: str) -> Ran:
        got = {"stdout": "", "stderr": ""}
        error = ""
        end = time.monotonic() + WAIT
        while True:
            try:
                message: dict[str, Any] = self._client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                raise AssertionError(f"the cell did not end; so far {got}") from None
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                got[content["name"]] += content["text"]
            elif kind == "error":
                error = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return Ran(got["stdout"], got["stderr"], error)

    def run(self, code: str) -> Ran:
        return self.ran(self.start(code))

    def good(self, code: str) -> str:
        """What a cell prints that must not raise or warn."""
        done = self.run(code)
        assert (done.error, done.err) == ("", ""), done
        return done.out.strip()

    def shutdown(self) -> None:
        """As the menu does; returns when the process has ended."""
        self._client.shutdown()
        self.process.wait(WAIT)

    def close(self) -> None:
        self._client.stop_channels()
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    made = Kernel(tmp_path_factory.mktemp("kernel"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def kernel(running: Kernel) -> Iterator[Kernel]:
    """The kernel, with no names of other tests and a listener and a peer of its own."""
    running.good("%reset -f")
    running.good("import asyncio, gc, os, time, warnings, netchan")
    yield running
    running.run("peer.close(); listener.close(); await asyncio.wait_for(listener.wait_closed(), 5)")
    running.run("%reset -f\nimport gc; gc.collect()")


PAIR = """
key = netchan.Identity.generate()
listener = await netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id])
"""
DIAL = """
peer = await netchan.dial(listener.addresses[0], identity=key)
came = await listener.recv()
"""


def test_r41_r57_objects_live_from_cell_to_cell(kernel: Kernel) -> None:
    kernel.good(PAIR)
    kernel.good(DIAL)
    kernel.good('here, there = peer.open("x", int, capacity=4), came.open("x", int, capacity=4)')
    kernel.good("await here.send_many([1, 2, 3])")
    assert kernel.good("print(await there.recv(), await there.recv())") == "1 2"
    kernel.good("here.close()")
    assert kernel.good("print([n async for n in there])") == "[3]"
    kernel.good("await peer.aclose(); await listener.aclose()")


@pytest.mark.parametrize("more", ["", 'x = peer.open("x", int)\ngc.collect()'], ids=["bare", "with a channel"])
def test_r46_cell_run_again_ends_the_peer_it_rebinds(kernel: Kernel, more: str) -> None:
    kernel.good(PAIR)
    kernel.good(DIAL + more)
    kernel.good("first, fds = came, []")
    for n in range(6):
        done = kernel.run(DIAL + more + "\nfds.append(len(os.listdir('/proc/self/fd')))")
        assert done.error == ""
        if n == 0:
            assert "ResourceWarning" in done.err and "without close" in done.err, done.err
            kernel.good("await asyncio.wait_for(first.wait_closed(), 5)")
            assert kernel.good("print(type(first.error).__name__, first.error.code.name)") == (
                "ChannelAborted LEFT_BY_EXCEPTION"
            )
            kernel.good("del first")
    kernel.good("gc.collect(); await asyncio.sleep(0.2)")
    got = kernel.good("print(fds[-1] - fds[1], sum(type(o) is netchan.Peer for o in gc.get_objects()))").split()
    assert int(got[0]) <= 2, "descriptors of sessions that were left"
    assert int(got[1]) == 2, "peers alive: the one dialled last, and the one that came"
    kernel.good('await peer.open("x", int).send(5)')
    assert kernel.good('print(await came.open("x", int).recv())') == "5"


@pytest.mark.parametrize("work", ["time.sleep(3)", "end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"])
def test_r7_r57_session_lives_through_a_cell_that_blocks(kernel: Kernel, work: str) -> None:
    quick = Config(heartbeat=0.2)
    with sync.listen(TCP, identity=BOSS, trust="any", config=quick) as listener:
        kernel.good(
            f"peer = await netchan.dial({listener.addresses[0]!r}, config=netchan.Config(heartbeat=0.2))\n"
            'here = peer.open("x", int, capacity=8)'
        )
        peer = listener.recv(timeout=WAIT)
        there = peer.open("x", int, capacity=8)
        there.send(0, timeout=WAIT)
        assert kernel.good("print(await here.recv())") == "0"
        cell = kernel.start(work)
        time.sleep(0.3)
        begin = time.monotonic()
        there.send_many([1, 2, 3], timeout=WAIT)
        there.flush(timeout=WAIT)
        assert time.monotonic() - begin < 2, "it was received while the cell held up the loop"
        assert kernel.ran(cell).error == ""
        assert kernel.good("print([await here.recv() for _ in range(3)])") == "[1, 2, 3]"
        kernel.good("await here.send(4)\nawait peer.aclose()")
        assert there.recv(timeout=WAIT) == 4


def test_r57_blocking_front_works_in_a_cell(kernel: Kernel) -> None:
    kernel.good("import threading, netchan.sync as sync")
    kernel.good(
        'listener = sync.listen("tcp://127.0.0.1:0", trust="any")\n'
        "peer = sync.dial(listener.addresses[0], timeout=10)\n"
        "came = listener.recv(timeout=10)"
    )
    kernel.good('here, there = peer.open("x", str), came.open("x", str)\nhere.send("hello", timeout=10)')
    assert kernel.good("print(there.recv(timeout=10))") == "hello"
    assert kernel.run("there.recv(timeout=0.05)").error == "TimeoutError"
    assert kernel.good("here.close(); print(list(there))") == "[]"
    kernel.good("peer.aclose(); listener.aclose()")


@pytest.mark.parametrize("wait", ["await there.recv()", "blocking.recv()"])
def test_r56_cell_that_waits_is_interrupted_and_nothing_is_lost(kernel: Kernel, wait: str) -> None:
    kernel.good(PAIR + DIAL + 'here, there = peer.open("x", int), came.open("x", int)')
    kernel.good("import netchan.sync as sync\nlocal = sync.channel(int, capacity=1)\nblocking = local")
    cell = kernel.start(wait)
    time.sleep(0.5)
    kernel.process.send_signal(signal.SIGINT)
    assert kernel.ran(cell).error in ("KeyboardInterrupt", "CancelledError")
    kernel.good("await here.send(7); local.send(8, timeout=5)")
    assert kernel.good("print(await there.recv(), blocking.recv(timeout=5))") == "7 8"


def test_r46_kernel_that_is_shut_down_aborts_its_sessions(tmp_path: Path) -> None:
    with sync.listen(TCP, identity=BOSS, trust="any") as listener:
        leaving = Kernel(tmp_path)
        try:
            leaving.good(f"import netchan\npeer = await netchan.dial({listener.addresses[0]!r})")
            leaving.good('x = peer.open("x", int)\nawait x.send(1)')
            here = listener.recv(timeout=WAIT).open("x", int)
            assert here.recv(timeout=WAIT) == 1
            leaving.shutdown()
            with pytest.raises(netchan.ChannelAborted) as caught:
                here.recv(timeout=WAIT)
            assert caught.value.code == netchan.Code.PROCESS_EXIT
        finally:
            leaving.close()


def test_example_run_cell_by_cell_prints_the_same(kernel: Kernel) -> None:
    cells = re.split(r"^# %%.*\n", (ROOT / "examples/notebook.py").read_text(), flags=re.MULTILINE)[1:]
    assert len(cells) == 6
    printed = [kernel.good(cell) for cell in cells]
    assert [text for text in printed if text] == [
        "connected to the thermometer",
        "[20.0, 20.1, 20.2]",
        "[20.3, 20.4, 20.5]",
        "94 more, the last one 29.9",
        "closed",
    ]
