"""The demo as a user runs it: its own processes, an empty home folder, the end line and the exit status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Runs = dict[str, "subprocess.CompletedProcess[str]"]
VALUES = 8_000
PATIENCE = 55.0
"""Seconds for a run, whatever the machine does beside it; it needs three."""
OK_LINE = re.compile(
    r"demo: ok sent=(\d+) received=(\d+) lost=(\d+) doubled=(\d+) reordered=(\d+) sha256=([0-9a-f]{64})"
)


def environment(home: Path, settings: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NETCHAN_")}
    return kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join((str(ROOT), kept.get("PYTHONPATH", "")))} | settings


def run_demo(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        cwd=home,
        env=environment(home, {"NETCHAN_DEMO_VALUES": str(VALUES)} | settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert list(home.iterdir()) == []  # nothing is left behind in the home folder
    return done


RUNS: dict[str, dict[str, str]] = {
    "plain": {"NETCHAN_DEMO_SEED": "one", "NETCHAN_DEMO_TABLE": "plain"},
    "live": {"NETCHAN_DEMO_SEED": "one", "NETCHAN_DEMO_TABLE": "live"},
    "without rich": {"NETCHAN_DEMO_SEED": "two", "NETCHAN_DEMO_TABLE": "live"},
    **{fault: {"NETCHAN_DEMO_FAULT": fault} for fault in ("drop", "double", "swap")},
}
"""Most of the time of a run is waiting, so they run side by side."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("demo")
    blocked = folder / "blocked" / "rich"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('as if it were not installed')\n")
    hidden = {"PYTHONPATH": os.pathsep.join((str(blocked.parent), str(ROOT)))}
    with ThreadPoolExecutor(3) as pool:
        started = {
            name: pool.submit(run_demo, folder / name, **settings, **(hidden if name == "without rich" else {}))
            for name, settings in RUNS.items()
        }
        return {name: run.result() for name, run in started.items()}


@pytest.mark.parametrize("name", ["plain", "live", "without rich"])
def test_demo_without_fault_ends_with_the_proof_and_status_0(runs: Runs, name: str) -> None:
    done = runs[name]
    assert done.returncode == 0, done.stdout + done.stderr
    last = OK_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert last
    assert [int(figure) for figure in last.groups()[:5]] == [VALUES, VALUES, 0, 0, 0]
    assert done.stderr == ""
    assert "both sides authenticated by node id" in done.stdout
    assert "crypto" in done.stdout


@pytest.mark.parametrize("name", ["plain", "live", "without rich"])
def test_all_of_the_script_happens_in_each_run(runs: Runs, name: str) -> None:
    said = runs[name].stdout
    happened = re.findall(r"(redundancy is now [a-z]+|(?:tcp a|tcp b|udp|unix) is (?:cut|back))", said)
    four = ["tcp a", "tcp b", "udp", "unix"]
    assert happened == [
        *("redundancy is now stripe", "tcp a is cut", "tcp a is back", "redundancy is now mirror", "udp is cut"),
        *("unix is cut", "udp is back", "unix is back", "redundancy is now failover", "redundancy is now parity"),
        *(f"{path} is {what}" for what in ("cut", "back") for path in four),
        *("redundancy is now stripe", "tcp b is cut", "tcp b is back", "redundancy is now failover"),
    ]
    pids = re.findall(r"pid (\d+)", said)  # listener, dialler, and the listener after it
    assert len(pids) == len(set(pids)) == 3
    assert "8 cuts, 8 restored, 1 process replaced" in said


def test_table_is_live_where_rich_is_installed_and_lines_otherwise(runs: Runs) -> None:
    pytest.importorskip("rich")
    assert "round trip" in runs["live"].stdout and "\x1b[" in runs["live"].stdout
    for name in ("plain", "without rich"):
        assert "round trip" not in runs[name].stdout and "\x1b" not in runs[name].stdout
        assert "values/s    MB/s  paths" in runs[name].stdout


def test_demo_with_one_seed_gives_one_digest_and_another_seed_another(runs: Runs) -> None:
    digests = [runs[name].stdout.rpartition("sha256=")[2] for name in ("plain", "live", "without rich")]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        ("drop", f"sent={VALUES} received={VALUES - 1} lost=1 doubled=0 reordered=0"),
        ("double", f"sent={VALUES} received={VALUES + 1} lost=0 doubled=1 reordered=0"),
        ("swap", f"sent={VALUES} received={VALUES} lost=0 doubled=0 reordered=1"),
    ],
)
def test_demo_with_a_fault_behind_netchan_fails_and_says_which(runs: Runs, fault: str, counts: str) -> None:
    done = runs[fault]
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"demo: FAILED {counts} "), done.stdout
    assert "differ=small-0 to-listener" in last
    assert "demo: ok" not in done.stdout


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"NETCHAN_DEMO_FAULT": "burn"}, "NETCHAN_DEMO_FAULT='burn' is not one of drop, double, swap"),
        ({"NETCHAN_DEMO_VALUES": "many"}, "NETCHAN_DEMO_VALUES='many' is not a whole number of at least 1000"),
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
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids.values()):
        assert time.monotonic() < until, "a process of the demo is still there"
        time.sleep(0.01)
