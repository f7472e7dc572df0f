"""A few seconds of tests/long/soak.py: all that happens in it happens, and each value comes once and in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_soak_of_a_few_seconds() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.long.soak", "4", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"'values': (\d+), 'channels': (\d+), 'cuts': (\d+)", done.stdout.splitlines()[-2])
    assert found is not None and all(int(figure) > 0 for figure in found.groups()), done.stdout
