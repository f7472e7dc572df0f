"""Peer ``c-udp``: udp_sealed.c with the libcrypto that netchan uses, sealed datagrams of 1 400 bytes or one of 64 there
and back.

It has no messages: its rate on W1 is bytes of payload by the size of one. It is no library, so the ratios of the report
leave it out; ``python -m bench.udp`` has them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, Side, Spec
from bench.e2e.machine import Load
from bench.e2e.peers import installed
from bench.e2e.runner import Row, Run, RunFailed, cpus_of

SOURCE = Path(__file__).parent / "udp_sealed.c"
PROGRAM = "udp_sealed"
DATAGRAM_BYTES = 1400
OVERHEAD_BYTES = 24  # number and tag of a datagram
MORE_S = 10.0


class Program:
    """The program in place of the two processes of a row; used like ``runner.Bench``."""

    def __init__(self, row: Row, folder: Path, pin: str) -> None:
        self._row, self._program = row, folder / PROGRAM
        self._cpus = [str(cpus[0]) if cpus else "-1" for cpus in cpus_of(pin)]

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def measure(self, seconds: float) -> Run:
        """Run it for `seconds`.

        Raises:
            RunFailed: it failed, or lost what it sent.
        """
        trips = self._row.workload == "w2"
        size = self._row.size + OVERHEAD_BYTES if trips else DATAGRAM_BYTES
        command = [self._program, _libcrypto(), str(size), str(seconds), "ping" if trips else "flow", *self._cpus]
        before = Load.now()
        begun = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + MORE_S, check=False)
        except subprocess.TimeoutExpired as failure:
            raise RunFailed(f"{PROGRAM} did not end") from failure
        whole = time.monotonic() - begun
        after = Load.now()
        if done.returncode:
            raise RunFailed(done.stderr.strip() or f"{PROGRAM} ended with {done.returncode}")
        first, second, third, sender, receiver = map(float, done.stdout.split())
        others = after.used_s - before.used_s - sender - receiver + after.stolen_s - before.stolen_s
        foreign = max(0.0, others) / whole / len(os.sched_getaffinity(0))
        if trips:
            return Run(first, int(third), seconds, sender, receiver, foreign, {"p50": first, "p99": second})
        if third != second:
            raise RunFailed(f"{second - third:.0f} of {second:.0f} datagrams were lost")
        n = third * (DATAGRAM_BYTES - OVERHEAD_BYTES) / self._row.size
        rate = first / self._row.size
        return Run(rate, int(n), n / rate, sender, receiver, foreign, {"MB/s": first / 1e6})


def _libcrypto() -> str:
    provider: Any = import_module("netchan._core.provider").load()
    return str(provider.path)


class UdpLimit:
    """The C limit of UDP paths."""

    name = "c-udp"
    encrypted = True
    mutual = False
    joins = False

    def missing(self) -> str | None:
        if reason := installed("netchan._core.provider"):
            return reason
        if shutil.which("cc") is None:
            return "no C compiler named cc"
        if "libcrypto" not in Path(_libcrypto()).name:
            return f"netchan seals with {_libcrypto()}, the program with a libcrypto of OpenSSL"
        return None

    def versions(self) -> dict[str, str]:
        return {}  # the provider of netchan, which the result names

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return front == BLOCKING and workload in ("w1", "w2")

    def prepare(self, folder: Path) -> None:
        subprocess.run(["cc", "-O3", "-o", folder / PROGRAM, SOURCE, "-ldl"], check=True)

    def side(self, spec: Spec) -> Side:
        raise NotImplementedError("a program of its own, no side of a session")


PEERS = {"c-udp": UdpLimit()}
