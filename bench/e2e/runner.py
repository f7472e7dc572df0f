"""Runs one row: two processes, calibration, one measured run; owns the processes and ends them whatever happens.

1. Spawn receiver and sender, each with one end of a socket pair; hand them the address and make the session.
2. Repeat short runs on that session until two of a length last ``CALIBRATE_S``; they are the warm-up too.
3. One run of the asked length, measured; foreign CPU use is read before and after it.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.e2e.contract import CHANNELS, FAN, FANS, TURNS
from bench.e2e.machine import Load
from bench.e2e.values import batch_msgs

CALIBRATE_S = 0.08
ANSWER_S = 60.0  # a child that is silent for longer has hung
LEAVE_S = 5.0
FOREIGN_SHARE = 0.05  # of the machine's CPUs; more than that spoils a figure
TRIPS_MIN = 10_000  # W2: below this p99 says little
SESSIONS = 500  # W5
IDLE_CHANNELS = 10_000  # W5c, in one session
REST_S = 0.5  # W5: time to come to rest before memory is read
RATES = ("w1", *FANS, *TURNS)  # workloads whose value is messages a second
_ROOT = Path(__file__).parents[2]
_PERCENTILES = {"p10": 0.10, "p50": 0.50, "p90": 0.90, "p99": 0.99, "p99.9": 0.999}


class RunFailed(Exception):
    """A child reported an error, died, or hung."""


@dataclass(frozen=True)
class Row:
    """One cell of the result: what is measured, of whom, how."""

    workload: str
    size: int
    style: str
    front: str
    peer: str

    @property
    def id(self) -> str:
        """The row's name for ``--rows``: workload/size/style/front/peer."""
        return f"{self.workload}/{self.size}/{self.style}/{self.front}/{self.peer}"

    @property
    def unit(self) -> str:
        """The unit of the row's value."""
        units = {"w2": "us", "w4": "sessions/s", "w4c": "sessions/s", "w5": "KiB/session", "w5c": "KiB/channel"}
        return "msg/s" if self.is_rate else units[self.workload]

    @property
    def is_rate(self) -> bool:
        """Whether the value is messages a second."""
        return self.workload in RATES

    @property
    def more_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self.is_rate or self.workload in ("w4", "w4c")


@dataclass
class Run:
    """One measured run of a row.

    Attributes:
        value: the figure in the row's unit (W2: p50).
        n: messages, round trips, sessions or channels counted at the receiver (W3b: at all of them together).
        wall_s: from the sender's first message to the receiver's last.
        cpu_sender_s, cpu_receiver_s: CPU seconds of each process in that time, kernel included.
        foreign: share of the machine's CPUs that others used or the hypervisor took in that time.
        extra: MB/s, percentiles in µs, bytes, values per encrypted record and the part of these that channels share.
    """

    value: float
    n: int
    wall_s: float
    cpu_sender_s: float
    cpu_receiver_s: float
    foreign: float
    extra: dict[str, float] = field(default_factory=dict)


class Child:
    """One measured process and the socket that commands it."""

    def __init__(self, row: Row, folder: Path, cpus: list[int]) -> None:
        self._sock, theirs = socket.socketpair()
        order = asdict(row) | {"folder": str(folder), "cpus": cpus}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  owned, closed by end()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.e2e.child", str(theirs.fileno()), json.dumps(order)],
            cwd=_ROOT,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
        )
        theirs.close()
        self._held = b""

    def fileno(self) -> int:
        """The command socket, for a selector."""
        return self._sock.fileno()

    def tell(self, verb: str, **fields: Any) -> None:
        """Send a command."""
        try:
            self._sock.sendall(json.dumps(fields | {"do": verb}).encode() + b"\n")
        except OSError as failure:
            raise RunFailed(self.last_words()) from failure

    def poll(self) -> dict[str, Any] | None:
        """Read what has come; give an answer when it is whole."""
        if b"\n" not in self._held:
            more = self._sock.recv(1 << 20)
            if not more:
                raise RunFailed(self.last_words())
            self._held += more
        line, newline, rest = self._held.partition(b"\n")
        if not newline:
            return None
        self._held = rest
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RunFailed(answer["error"])
        return answer

    @property
    def holds_answer(self) -> bool:
        """Whether a whole answer is here already."""
        return b"\n" in self._held

    def last_words(self) -> str:
        """Return the last line the process printed."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"process ended with {self._process.poll()}"

    def end(self) -> None:
        """Let the process leave; kill it when it does not."""
        try:
            self.tell("bye")
        except RunFailed:
            pass
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sock.close()
        self._errors.close()


def answers(*children: Child, within_s: float = ANSWER_S) -> list[dict[str, Any]]:
    """Wait for one answer of each child, in the order given.

    Raises:
        RunFailed: one reported an error, ended, or was silent too long; the others are not waited for.
    """
    got: dict[Child, dict[str, Any]] = {}
    until = time.monotonic() + within_s
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ, child)
        while len(got) < len(children):
            ready = [child for child in children if child not in got and child.holds_answer]
            if not ready:
                ready = [key.data for key, _ in selector.select(max(0.0, until - time.monotonic()))]
                if not ready:
                    raise RunFailed(f"no answer within {within_s:.0f} s")
            for child in ready:
                answer = child.poll()
                if answer is not None:
                    got[child] = answer
                    selector.unregister(child)
    return [got[child] for child in children]


def cpus_of(pin: str) -> tuple[list[int], list[int]]:
    """Return the CPUs of receiver and sender for a value of ``--pin``; none where the kernel chooses."""
    cpus = sorted(os.sched_getaffinity(0))
    return {"free": ([], []), "one": ([cpus[0]], [cpus[0]]), "split": ([cpus[0]], [cpus[-1]])}[pin]


class Bench:
    """Two processes and the runs on them; use as a context manager."""

    def __init__(self, row: Row, folder: Path, pin: str) -> None:
        here, there = cpus_of(pin)
        self._row = row
        self._receiver = Child(row, folder, here)
        self._sender = Child(row, folder, there)
        self._address = ""

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.end()
        self._receiver.end()

    def _listen(self) -> None:
        self._receiver.tell("listen")
        (answer,) = answers(self._receiver)
        self._address = answer["address"]

    def _connect(self) -> None:
        self._listen()
        self._receiver.tell("accept")
        self._sender.tell("dial", address=self._address)
        answers(self._receiver, self._sender)

    def _both(self, receiver: str, sender: str, n: int, **more: Any) -> tuple[dict[str, Any], dict[str, Any], float]:
        """Run one pair of verbs; return both answers and the foreign share."""
        self._receiver.tell(receiver, n=n)
        answers(self._receiver)
        load, own = Load.now(), time.process_time()
        self._sender.tell(sender, n=n, **more)
        theirs, ours = answers(self._receiver, self._sender)
        after = Load.now()
        if theirs["n"] != n:
            raise RunFailed(f"receiver counted {theirs['n']} of {n}")
        wall = (max(theirs["end"], ours["end"]) - ours["start"]) / 1e9
        others = after.used_s - load.used_s - theirs["cpu"] - ours["cpu"] - (time.process_time() - own)
        stolen = after.stolen_s - load.stolen_s
        return theirs, ours, max(0.0, others + stolen) / wall / len(os.sched_getaffinity(0))

    def _timed(self, pair: tuple[str, str], seconds: float, step: int, least: int, **more: Any) -> Run:
        """Calibrate, then run for about `seconds`; n is a multiple of `step` and at least `least`."""

        def took_s() -> float:
            theirs, ours, _ = self._both(*pair, n, **more)
            return float(theirs["end"] - ours["start"]) / 1e9

        n, enough = step, min(CALIBRATE_S, seconds)
        while True:
            took = took_s()
            if took >= enough:  # once more: connecting at the first message, or a stall, is not the length of a run
                took = min(took, took_s())
            if took >= enough:
                break
            n = max(n + step, min(n * 8, int(n * 1.3 * CALIBRATE_S / max(took, 1e-6))) // step * step)
        n = max(step, least, int(n * seconds / took)) // step * step
        theirs, ours, foreign = self._both(*pair, n, **more)
        end = ours["end"] if pair[0] == "serve" else theirs["end"]
        wall = (end - ours["start"]) / 1e9
        run = Run(n / wall, n, wall, ours["cpu"], theirs["cpu"], foreign)
        if "records" in ours:
            run.extra["values/record"] = n / max(1, ours["records"])
            run.extra["shared"] = ours["shared"] / max(1, ours["records"])
        if "trips" in ours:
            trips = sorted(ours["trips"])
            run.extra = {name: trips[int(len(trips) * part)] / 1e3 for name, part in _PERCENTILES.items()}
            run.extra["max"] = trips[-1] / 1e3
            run.value = run.extra["p50"]
        return run

    def measure(self, seconds: float) -> Run:
        """Make one measured run.

        Raises:
            RunFailed: a process failed; the row has no figure.
        """
        row = self._row
        if row.workload == "w1":
            self._connect()
            run = self._timed(("recv", "send"), seconds, batch_msgs(row.size) if row.style == "batch" else 1, 1)
            run.extra["MB/s"] = run.value * row.size / 1e6
            return run
        if row.workload in FANS:
            self._connect()
            pair = ("recv_apart", "send_apart") if row.workload == "w3" else ("recv_alike", "send_alike")
            return self._timed(pair, seconds, FAN, FAN)
        if row.workload in TURNS:
            self._connect()
            self._open_more(CHANNELS)
            step = CHANNELS * TURNS[row.workload].each
            return self._timed(("recv_turns", "send_turns"), seconds, step, step)
        if row.workload == "w2":
            self._connect()
            return self._timed(("pong", "ping"), seconds, 1, TRIPS_MIN if seconds >= 1 else 1)
        if row.workload in ("w4", "w4c"):
            self._listen()
            return self._timed(("serve", "trips"), seconds, 1, 1, address=self._address)
        return self._memory()

    def _memory(self) -> Run:
        """Memory of the receiving side per idle session or channel: after minus before, divided by their number."""
        channels = self._row.workload == "w5c"
        n = IDLE_CHANNELS if channels else SESSIONS
        more: dict[str, Any] = {}
        if channels:
            self._connect()
        else:
            self._listen()
            more["address"] = self._address
            self._pair(("keep", {"n": 1}), ("hold", {"n": 1} | more))  # code and tables that any first session needs
        before = self._idle()
        start = time.monotonic()
        if channels:
            self._open_more(n)
        else:
            self._pair(("keep", {"n": n}), ("hold", {"n": n} | more))
        wall = time.monotonic() - start
        grown = self._idle() - before
        return Run(grown / n / 1024, n, wall, 0.0, 0.0, 0.0, {"rss_before": before, "grown": grown})

    def _open_more(self, n: int) -> None:
        """Let both sides open n channels beside the first one."""
        self._pair(("open_more", {"n": n, "first": False}), ("open_more", {"n": n, "first": True}))

    def _pair(self, receiver: tuple[str, dict[str, Any]], sender: tuple[str, dict[str, Any]]) -> None:
        self._receiver.tell(receiver[0], **receiver[1])
        answers(self._receiver)
        self._sender.tell(sender[0], **sender[1])
        answers(self._receiver, self._sender)

    def _idle(self) -> int:
        self._receiver.tell("idle", seconds=REST_S)
        (answer,) = answers(self._receiver)
        return int(answer["rss"])


def spread(values: list[float]) -> float:
    """Return (max - min) / median of a row's values, 0 for one value."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0
