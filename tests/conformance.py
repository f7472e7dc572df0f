"""Run the conformance suites and print a table: each case on each pair of ends and each front (``make conformance``).

A case is a test of one of the SUITES; a cell is "ok", with the number of its capacities, or "FAIL". On "unix" and "tcp"
the two ends are two processes (tests/unit/channel/far.py), on "session" they are one. Cases that hold for some pairs
only, by their nature, stand in a table of their own. Ends with status 1 if a case fails, or if fewer than LEAST hold
everywhere.
"""

from __future__ import annotations

import io
import re
import sys
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITES = tuple(f"tests/unit/channel/test_{name}.py" for name in ("conformance", "both_ends", "select"))
MAKERS = ("channel", "pipe", "session", "unix", "tcp")
LIBRARIES = ("asyncio", "uvloop", "trio", "blocking")
COLUMNS = [f"{maker}-{library}" for maker in MAKERS for library in LIBRARIES]
LEAST = 60
"""Cases without an empty cell."""
NODE = re.compile(r"::(?:\w+::)?test_(\w+)\[((?:" + "|".join(MAKERS) + r")-(?:" + "|".join(LIBRARIES) + r"))")


class Table:
    """A pytest plugin that notes what came of each case."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = NODE.search(report.nodeid)
        if found and (report.when == "call" or report.failed):
            self.cells[found[1]][found[2]].append(report.passed)


def show(rows: dict[str, dict[str, list[bool]]]) -> None:
    """One line per case, the columns grouped by pair of ends."""
    width = max((len(name) for name in rows), default=0)
    for level in range(2):
        heads = [column.split("-")[level] for column in COLUMNS]
        print(" " * width, *(f"{head[:5]:>5}" for head in heads))
    for name, cells in rows.items():
        line = []
        for column in COLUMNS:
            results = cells.get(column, [])
            line.append("-" if not results else "FAIL" if not all(results) else f"ok {len(results)}")
        print(f"{name:{width}}", *(f"{cell:>5}" for cell in line))


def main() -> int:
    """Run, print, and say whether all is well."""
    table = Table()
    said = io.StringIO()
    with redirect_stdout(said):
        status = pytest.main(["-q", *(str(ROOT / suite) for suite in SUITES)], plugins=[table])
    if status:
        print(said.getvalue())
    whole = {name: cells for name, cells in table.cells.items() if set(cells) == set(COLUMNS)}
    part = {name: cells for name, cells in table.cells.items() if name not in whole}
    show(whole)
    print("\ncases that hold for some pairs or fronts only:")
    show(part)
    results = [ok for cells in table.cells.values() for column in cells.values() for ok in column]
    failed = results.count(False)
    print(
        f"\n{len(whole)} cases in all {len(COLUMNS)} columns, {len(part)} in some; {len(results)} runs, {failed} failed"
    )
    return 1 if failed or len(whole) < LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
