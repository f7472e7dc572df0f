"""SIGKILL of either process under load, over each carrier and over several paths (docs/spec/session.md §8).

What the killed process took is a prefix of what was sent to it; of the rest each value is in the report, and nobody
waits longer than the lease and ten seconds. ``NETCHAN_KILLS=5`` (make kills) does it five times with each carrier.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("NETCHAN_KILLS", "0"))
LEASE = 1.0
SLACK = 10.0
"""Seconds beyond the lease in which a survivor has to know: as long as a path may be silent."""
NOISE = 0.5
"""Seconds that a busy machine may take beside."""
PATIENCE = 100.0
CARRIERS = {
    "tcp": ["tcp://127.0.0.1:0"],
    "unix": ["unix://{}/s"],
    "udp": ["udp://127.0.0.1:0"],
    "several": ["tcp://127.0.0.1:0", "unix://{}/s", "udp://127.0.0.1:0"],
}


class Process:
    """One side. ``lines`` it wrote so far, and ``ended_at``, when the last of them came."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "integration" / "kill_side.py"), *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
        )
        self.lines: list[str] = []

    def read(self, word: str) -> str:
        """Up to the line that begins with the word, and that line's rest."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode()
            self.lines.append(line)
            if line.startswith(word):
                return line[len(word) :].strip()
        raise AssertionError(f"the process ended without {word!r}: {self.lines[-3:]}")

    def rest(self) -> None:
        assert self.process.stdout is not None
        self.lines += [raw.decode() for raw in self.process.stdout]

    def taken(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"few": [], "some": [], "many": []}
        for line in self.lines:
            if line.startswith("t ") and line.endswith("\n"):
                _, name, number = line.split()
                found[name].append(int(number))
        return found


def settle(name: str, received: list[int], accepted: int, report: dict[str, Any]) -> str:
    """Check the account of one channel; a line about it."""
    undelivered = report["undelivered"]
    doubted = [number for number, _ in report["in_doubt"]]
    assert all(value in (None, number) for number, value in report["in_doubt"])
    assert received == list(range(len(received))), f"{name}: no prefix was taken"
    assert len(set(undelivered)) == len(undelivered) and len(set(doubted)) == len(doubted), name
    assert not set(received) & set(undelivered), f"{name}: received, and reported as never sent"
    told = set(received) | set(undelivered) | set(doubted)
    # One may have been taken by the program over there, which was killed before it could write that down.
    missing = set(range(accepted)) - told
    assert told <= set(range(accepted)) and missing <= {len(received)}, f"{name}: missing {sorted(missing)[:10]}"
    return f"{name}: {accepted} = {len(received)} taken + {len(undelivered)} undelivered + {len(doubted)} in doubt"


def kill(carrier: str, victim: str, folder: Path, load: float) -> str:
    places = [place.format(folder) for place in CARRIERS[carrier]]
    listener = Process("listen", str(LEASE), *places)
    started = [listener]
    try:
        dialler = Process("dial", str(LEASE), *listener.read("at ").split())
        started.append(dialler)
        for each in started:
            each.read("up")
            each.read("t many 50")  # values go both ways by now
        time.sleep(load)
        dying, living = (listener, dialler) if victim == "listener" else (dialler, listener)
        dying.process.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        said = json.loads(living.read("end "))
        waited = time.monotonic() - killed_at
        dying.rest()
    finally:
        for each in started:
            each.process.kill()
            each.process.communicate(timeout=PATIENCE)
    assert said["hang"] == []
    assert said["cause"] == "ConnectionResetError"
    assert said["lost"].keys() == {n for n, r in said["reports"].items() if r["undelivered"] or r["in_doubt"]}
    assert all(said["reports"][name] == report for name, report in said["lost"].items())
    for name, received in living.taken().items():
        assert received == list(range(len(received))), f"{name}: what the survivor took is no prefix"
    taken = dying.taken()
    lines = [settle(name, taken[name], said["accepted"][name], said["reports"][name]) for name in taken]
    if KILLS:
        assert waited <= LEASE + SLACK + NOISE, f"waited {waited:.2f} s"
    return f"{carrier}, {victim} killed: told {waited:.2f} s after; {'; '.join(lines)}"


@pytest.mark.timeout(2000 if KILLS else 150)
@pytest.mark.parametrize("victim", ["listener", "dialler"])
@pytest.mark.parametrize("carrier", list(CARRIERS) if KILLS else ["tcp"])
def test_killed_process_leaves_an_account_without_a_gap(carrier: str, victim: str, tmp_path: Path) -> None:
    rng = random.Random(f"{carrier} {victim}")
    for number in range(KILLS or 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        print(f"\n{kill(carrier, victim, folder, rng.uniform(0.0, 0.5))}")
