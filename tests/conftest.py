"""What all tests share: hypothesis profiles, the folder of public vectors, and the count at the end."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import layout

ROOT = Path(__file__).resolve().parents[1]
REPORTED_FILES = 5

# A failing example is printed with the line that replays it. CI looks at more examples and never at the wall clock.
settings.register_profile("dev", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=200)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of public test vectors: NETCHAN_VECTORS, by default ``../shared/vectors`` beside the repository."""
    folder = Path(ROOT, os.environ.get("NETCHAN_VECTORS", "../shared/vectors")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no public vectors at {folder}; set NETCHAN_VECTORS to their folder")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests passed per folder, and the largest source files."""
    paths = [report.nodeid.split("::")[0].split("/") for report in terminalreporter.stats.get("passed", [])]
    passed = Counter(path[1] if path[0] == "tests" else path[0] for path in paths)
    if passed:
        parts = ", ".join(f"{folder} {count}" for folder, count in sorted(passed.items()))
        terminalreporter.write_line(f"passed: {sum(passed.values())} ({parts})")
    largest = ", ".join(f"{path} {lines}" for lines, path in layout.file_sizes(ROOT)[:REPORTED_FILES])
    terminalreporter.write_line(f"largest files (lines): {largest}")
