"""The executable model of streams, offers and select holds, and each rule in it is needed.

Explores docs/spec/model with small parameters; the full run is `python docs/spec/model.py`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "spec"))

run: Any = importlib.import_module("model.run")
checker: Any = importlib.import_module("model.checker")

QUICK = list(run.quick())
BROKEN = run.broken()
Moves = dict[int, list[tuple[int, str | None]]]


class Counter:
    """A toy model for the checker itself: a number that may be raised, lowered, or stuck."""

    name = "toy"
    params = ""

    def __init__(self, moves: Moves, goals: set[int]) -> None:
        self.moves = moves
        self.goals = goals

    def initial(self) -> int:
        return 0

    def steps(self, s: int) -> list[tuple[str, str | None, int]]:
        return [(f"to {t}", cls, t) for t, cls in self.moves.get(s, [])]

    def bad(self, s: int) -> str | None:
        return "nine" if s == 9 else None

    def bad_step(self, s: int, t: int) -> str | None:
        return "back from 8" if s == 8 else None

    def bad_menu(self, s: int, labels: set[str]) -> str | None:
        return "no way to 7" if s == 6 and "to 7" not in labels else None

    def goal(self, s: int) -> bool:
        return s in self.goals


class TestChecker:
    def test_invariant_broken_gives_shortest_trace(self) -> None:
        moves: Moves = {0: [(1, "a"), (2, "a")], 1: [(3, "a")], 2: [(9, "a")], 3: [(9, "a")]}
        result = checker.check(Counter(moves, set()))
        assert (result.problem, result.trace) == ("nine", ["to 2", "to 9"])

    def test_step_and_menu_rules_are_asked(self) -> None:
        assert checker.check(Counter({0: [(8, "a")], 8: [(0, "a")]}, {0})).problem == "back from 8"
        assert checker.check(Counter({0: [(6, "a")], 6: [(0, "a")]}, {0})).problem == "no way to 7"

    def test_no_move_outside_goal_is_deadlock(self) -> None:
        assert "deadlock" in str(checker.check(Counter({0: [(1, "a")]}, {0})).problem)
        assert checker.check(Counter({0: [(1, "a")]}, {1})).problem is None

    def test_goal_reached_only_by_unpromised_step_is_dead_end(self) -> None:
        assert "dead end" in str(checker.check(Counter({0: [(1, None)]}, {1})).problem)

    def test_cycle_with_exit_of_other_class_is_endless_only_if_exit_can_be_impossible(self) -> None:
        always: Moves = {0: [(1, "a"), (2, "out")], 1: [(0, "a"), (2, "out")]}
        assert checker.check(Counter(always, {2})).problem is None
        sometimes: Moves = {0: [(1, "a"), (2, "out")], 1: [(0, "a")]}
        assert "endless" in str(checker.check(Counter(sometimes, {2})).problem)

    def test_more_states_than_limit_raises(self) -> None:
        with pytest.raises(checker.LimitReached):
            checker.check(Counter({0: [(1, "a")], 1: [(2, "a")]}, {2}), limit=2)


class TestModelHolds:
    @pytest.mark.parametrize("model", QUICK, ids=[f"{m.name} {m.params}" for m in QUICK])
    def test_small_parameters_all_properties_hold(self, model: Any) -> None:
        result = checker.check(model)
        assert result.problem is None, result.text()
        assert result.goals > 0

    def test_every_pair_of_selects_holds(self) -> None:
        result = run.together("pairs", run.every_pair())
        assert result.problem is None, result.text()


class TestBrokenRules:
    @pytest.mark.parametrize(("rule", "model"), BROKEN, ids=[f"{m.name[0]} {rule}" for rule, m in BROKEN])
    def test_broken_rule_is_found(self, rule: str, model: Any) -> None:
        result = checker.check(model)
        assert result.problem is not None, f"nothing wrong found with: {rule}"
        assert result.trace

    def test_unknown_rule_name_breaks_nothing_so_each_listed_name_is_read_by_its_model(self) -> None:
        folder = Path(run.__file__).parent
        for rule, model in BROKEN:
            for name in getattr(model, "broken"):  # noqa: B009
                source = (folder / f"{type(model).__module__.rpartition('.')[2]}.py").read_text(encoding="utf-8")
                assert source.count(f'"{name}"') >= 2, rule
