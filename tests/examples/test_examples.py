"""Every example, and the first one of the README, run as a user runs them: fresh interpreter, empty home."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SECONDS = 30

# What each prints. Those that are missing here have a test of their own below, or elsewhere (demo.py).
EXPECTED = {
    "echo": [f"{name} {value}" for name in ("one", "two") for value in (f"hello on {name}", 42, {"lists": [1, 2, 3]})],
    "farm": ["sum of the squares: 70210", "every job done once: True", "the slow worker did the fewest: True"],
    "pubsub": [
        "both saw the ticks in order: True",
        "the slow one lost some: True",
        "the newest came to both: True",
        "received or counted as dropped: True",
    ],
    "request": ["fifty at once: True", "no answer to this one: None"],
    "ticker": ["every reading, in order: True", "several reports on the way: True"],
    "camera": ["two at most are waiting: True", "frames: 30", "whole and in order: True"],
    "nursery": ["[9, 16, 25]", "gave up: True", "and lost nothing: 36"],
    "timeouts": [
        "nothing came within 50 ms",
        "accepted 2, then no room for 200 ms",
        "received 20.0 21.0",
        "and then 99.0",
        "nothing more; the timer won",
    ],
    "cancellation": [
        "sending was cancelled",
        "received and left over make the whole: True",
        "some of each: True",
        "still there: 7",
    ],
    "restart": ["every number once and in order: True", "processes that answered: 4"],
    "shutdown": [
        "a client has left; its sum is 500500",
        "a client is told to go; its sum is 5",
        "the server has stopped",
        "the second client gets ChannelAborted",
        "every session is over",
    ],
    "array_stream": ["50 frames, each as it was sent: True"],
    "notebook": [
        "connected to the thermometer",
        "[20.0, 20.1, 20.2]",
        "[20.3, 20.4, 20.5]",
        "94 more, the last one 29.9",
        "closed",
    ],
}
PAIRS = {"boss", "worker", "async_server", "sync_client"}
ELSEWHERE = {"demo"}


def environment(home: Path, *first: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NETCHAN_")}
    return kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(map(str, (*first, ROOT)))}


def python(home: Path, *arguments: object, first: tuple[Path, ...] = ()) -> list[str]:
    """Run to the end with warnings as errors; its lines. Fails on a status other than 0."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=home,
        env=environment(home, *first),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def readme() -> tuple[str, str]:
    """The program and the output block of the first example."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.split("<!-- first example -->")[1].split("<!-- /first example -->")[0]
    found = re.search(r"```python\n(.*?)```.*?```\n(.*?)```", part, re.DOTALL)
    assert found
    return found[1], found[2]


def test_every_example_is_executed_somewhere() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(EXPECTED) | PAIRS | ELSEWHERE


@pytest.mark.parametrize("name", EXPECTED)
def test_example_run_as_it_stands_prints_what_it_says(tmp_path: Path, name: str) -> None:
    assert python(tmp_path, EXAMPLES / f"{name}.py") == EXPECTED[name]


def test_readme_example_pasted_into_a_file_prints_the_block_below_it(tmp_path: Path) -> None:
    program, output = readme()
    (tmp_path / "first.py").write_text(program, encoding="utf-8")
    assert python(tmp_path, "first.py") == output.splitlines()


def test_readme_example_without_msgspec_prints_the_same(tmp_path: Path) -> None:
    program, output = readme()
    (tmp_path / "first.py").write_text(program + "\nimport sys\nprint(sys.modules['msgspec'])\n", encoding="utf-8")
    hook = tmp_path / "hook"
    hook.mkdir()
    # None in sys.modules makes `import msgspec` raise ImportError, as if it were not installed.
    (hook / "sitecustomize.py").write_text("import sys\nsys.modules['msgspec'] = None\n", encoding="utf-8")
    assert python(tmp_path, "first.py", first=(hook,)) == [*output.splitlines(), "None"]


class TestPairs:
    """Two programs in two processes, started as their docstrings say."""

    def run_pair(self, home: Path, server: str, client: str, key: str) -> tuple[list[str], list[str]]:
        (node_id,) = python(home, "-m", "netchan.cli", "key", "new", key)
        with subprocess.Popen(
            [sys.executable, "-W", "error", EXAMPLES / f"{server}.py", node_id],
            cwd=home,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout
                address = process.stdout.readline().strip()
                assert re.fullmatch(r"tcp://[a-z2-7]{52}@127\.0\.0\.1:\d+", address), address
                client_lines = python(home, EXAMPLES / f"{client}.py", address)
                server_text, _ = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
            assert process.returncode == 0, server_text
        return server_text.splitlines(), client_lines

    def test_boss_and_worker_in_two_processes_square_the_numbers(self, tmp_path: Path) -> None:
        boss, worker = self.run_pair(tmp_path, "boss", "worker", "worker.key")
        assert boss == [f"{n} * {n} = {n * n}" for n in range(1, 6)]
        assert worker == []

    def test_blocking_client_of_an_asyncio_server_gets_the_means(self, tmp_path: Path) -> None:
        server, client = self.run_pair(tmp_path, "async_server", "sync_client", "client.key")
        assert server == ["3 numbers, mean 6.0"]
        assert client == [
            "after 3.0 the mean is 3.0",
            "after 5.0 the mean is 4.0",
            "after 10.0 the mean is 6.0",
            "no more means without numbers",
        ]
