"""The same script shows the same trace on netchan and on Go's channels; the differences are those of R58 and no other.

tests/interop/oracle holds the scripts, the traces that Go made and the player. A script with ``select`` is collected
where ``netchan.select`` is; how many are left out until then is printed at the end of a run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import netchan
from tests.interop.oracle import play
from tests.interop.oracle.fronts import CARRIERS, AsyncioFront, SessionFront, ThreadFront, TrioFront, UvloopFront
from tests.interop.oracle.script import (
    ARITY,
    ARM_ARITY,
    HERE,
    SCRIPTS,
    TRACES,
    Script,
    digest,
    read_scripts,
    read_traces,
)

FRONTS: dict[str, Any] = {
    "asyncio": AsyncioFront,
    "uvloop": UvloopFront,
    "trio": TrioFront,
    "blocking": ThreadFront,
}
SEEDS: dict[str, tuple[int | None, ...]] = {
    "asyncio": (None, *range(12)),
    "uvloop": (None, 1, 2),
    "trio": (None, 1, 2),
    "blocking": (None, 1, 2),
}
SEEDS_TIMED: tuple[int | None, ...] = (None,)
"""Schedules tried of each script; those with a timer cost real time."""

ALL = read_scripts()
OUTCOMES = read_traces()
SCRIPTS_HERE = [one for one in ALL if hasattr(netchan, "select") or not one.selects]
"""Collected by presence of the feature: conftest.py prints how many are left out."""
GO = shutil.which("go")
BLOCK_WORDS = {"range", "loop", "for", "if", "else", "end", "break", "case"}
"""Words that become jumps."""
CHECK_RUNS = 12
"""How often Go plays each script when the traces are checked; ``make oracle-traces`` plays them more often."""


def seeds_for(script: Script, front: str) -> tuple[int | None, ...]:
    return SEEDS_TIMED if script.words & {"sleep", "case after"} else SEEDS[front]


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("script", SCRIPTS_HERE, ids=lambda script: script.name)
def test_script_shows_a_trace_of_go(script: Script, front: str, carrier: str) -> None:
    expected = play.allowed(script, OUTCOMES[script.name])
    for seed in seeds_for(script, front):
        result = FRONTS[front](CARRIERS[carrier]).play(script, seed)
        assert result.trace in expected, f"seed {seed}"


@pytest.mark.parametrize(
    "script",
    [one for one in SCRIPTS_HERE if "make" in one.words and not (one.looks or one.needs)],
    ids=lambda script: script.name,
)
def test_script_over_a_session_shows_a_trace_of_go(script: Script) -> None:
    assert SessionFront().play(script).trace in play.allowed(script, OUTCOMES[script.name])


@pytest.mark.parametrize("script", [one for one in ALL if one.handoff], ids=lambda script: script.name)
def test_script_marked_as_handoff_does_differ(script: Script) -> None:
    """A mark that is no longer needed would hide a later change."""
    strict = {play.translate(trace) for trace in OUTCOMES[script.name].traces}
    assert AsyncioFront(CARRIERS["channel"]).play(script).trace not in strict


def test_scripts_and_traces_belong_together() -> None:
    assert [one.name for one in ALL] == list(OUTCOMES)
    assert all(one.about for one in ALL)
    assert all(OUTCOMES[one.name].traces for one in ALL)
    assert all(bool(OUTCOMES[one.name].loose) == one.handoff for one in ALL)


def test_scripts_use_every_word_of_the_language() -> None:
    words = set().union(*(one.words for one in ALL))
    assert words >= {word for word in ARITY if word not in BLOCK_WORDS} | {f"case {kind}" for kind in ARM_ARITY}


def test_scripts_meet_every_difference_of_r58() -> None:
    met: Counter[str] = Counter()
    for script in SCRIPTS_HERE:
        met += AsyncioFront(CARRIERS["channel"]).play(script).differences
    by_select = {play.NO_ARM_RAISES} if hasattr(netchan, "select") else set()
    assert set(met) == {play.SECOND_CLOSE, play.CLOSED_RAISES} | by_select


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("*.txt")), ids=lambda file: file.stem)
def test_traces_were_made_from_these_scripts_by_this_program(file: Path) -> None:
    assert f"# sources: {digest(file)}\n" in (TRACES / file.name).read_text(), "run make oracle-traces"


if GO is not None:  # without it the digests above are what holds the traces to their source; conftest.py says so

    def test_traces_made_again_by_go_are_the_same(tmp_path: Path) -> None:
        # Nothing is fetched, and nothing is written but the build cache.
        settings = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOCACHE": str(tmp_path / "cache")}
        command = [GO, "run", ".", "-scripts", SCRIPTS, "-traces", TRACES, "-check", "-runs", str(CHECK_RUNS)]
        done = subprocess.run(
            command, cwd=HERE / "go", env=os.environ | settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(" possible traces seen") == len(ALL)
