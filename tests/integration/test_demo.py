"""The demo as a user runs it: its own processes, an empty home folder, the end line and the exit status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VALUES = 20_000
OK_LINE = re.compile(
    r"demo: ok sent=(\d+) received=(\d+) lost=(\d+) doubled=(\d+) reordered=(\d+) sha256=([0-9a-f]{64})"
)


def environment(home: Path, settings: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NETCHAN_")}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | settings


def run_demo(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        cwd=home,
        env=environment(home, {"NETCHAN_DEMO_VALUES": str(VALUES)} | settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_demo_without_fault_ends_with_the_proof_and_status_0(tmp_path: Path) -> None:
    done = run_demo(tmp_path, NETCHAN_DEMO_SEED="one")
    assert done.returncode == 0, done.stdout + done.stderr
    last = OK_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert last
    assert [int(figure) for figure in last.groups()[:5]] == [VALUES, VALUES, 0, 0, 0]
    assert done.stderr == ""
    assert "both sides authenticated by node id" in done.stdout
    assert "crypto" in done.stdout
    assert list(tmp_path.iterdir()) == []  # nothing is left behind in the home folder


def test_demo_with_one_seed_gives_one_digest_and_another_seed_another(tmp_path: Path) -> None:
    digests = []
    for seed in ("one", "one", "two"):
        found = OK_LINE.search(run_demo(tmp_path, NETCHAN_DEMO_SEED=seed, NETCHAN_DEMO_VALUES="2000").stdout)
        assert found
        digests.append(found[6])
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        ("drop", f"sent={VALUES} received={VALUES - 1} lost=1 doubled=0 reordered=0"),
        ("double", f"sent={VALUES} received={VALUES + 1} lost=0 doubled=1 reordered=0"),
        ("swap", f"sent={VALUES} received={VALUES} lost=0 doubled=0 reordered=1"),
    ],
)
def test_demo_with_a_fault_behind_netchan_fails_and_says_which(tmp_path: Path, fault: str, counts: str) -> None:
    done = run_demo(tmp_path, NETCHAN_DEMO_FAULT=fault)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"demo: FAILED {counts} ")
    assert "differ=small-0 to-listener" in last
    assert "demo: ok" not in done.stdout


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"NETCHAN_DEMO_FAULT": "burn"}, "NETCHAN_DEMO_FAULT='burn' is not one of drop, double, swap"),
        ({"NETCHAN_DEMO_VALUES": "many"}, "NETCHAN_DEMO_VALUES='many' is not a whole number of at least 100"),
        ({"NETCHAN_DEMO_VALUES": "100000000", "NETCHAN_DEMO_SECONDS": "2"}, "not done within 2 s"),
    ],
)
def test_demo_that_cannot_finish_fails_with_the_reason(tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    done = run_demo(tmp_path, **settings)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"demo: FAILED {reason}"


@pytest.mark.parametrize("role", ["listener", "dialler"])
def test_demo_whose_process_is_killed_fails_and_leaves_no_process(tmp_path: Path, role: str) -> None:
    settings = {"NETCHAN_DEMO_VALUES": "100000000"}
    command = [sys.executable, ROOT / "examples" / "demo.py"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as demo:
        pids: dict[str, int] = {}
        last = ""
        assert demo.stdout
        for line in demo.stdout:
            if found := re.match(r"  (listener|dialler) +pid (\d+) ", line):
                pids[found[1]] = int(found[2])
                if len(pids) == 2:
                    os.kill(pids[role], signal.SIGKILL)
            last = line
        assert demo.wait(timeout=20) == 1
    assert re.match(r"demo: FAILED the (listener|dialler) ended early with status -?\d+", last)
    until = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids.values()):
        assert time.monotonic() < until, "a process of the demo is still there"
        time.sleep(0.01)
