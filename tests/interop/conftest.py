"""What is said at the end of a run about the comparison with Go."""

import shutil

import pytest

import netchan
from tests.interop.oracle.script import read_scripts

MODULE = "tests/interop/test_go_oracle.py"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what of the Go oracle could not be collected here, and why."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    if not any(getattr(report, "nodeid", "").startswith(MODULE) for report in reports):
        return
    if not hasattr(netchan, "select"):
        left_out = sum(script.selects for script in read_scripts())
        terminalreporter.write_line(f"go oracle: {left_out} scripts with select left out: there is no netchan.select")
    carried = sum(script.needs == "channels in values" and not script.selects for script in read_scripts())
    terminalreporter.write_line(f"go oracle: {carried} scripts with channels in values played in process only")
    if shutil.which("go") is None:
        terminalreporter.write_line(
            "go oracle: Go is not installed (Debian: golang-go): the traces were compared by digest and not made again"
        )
