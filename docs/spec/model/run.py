"""Runs the models with a table of what was explored; `--quick` is what the test suite runs.

Layer: specification only. Exit status 1 if a property fails or a broken rule is not found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from . import meet, offers, stream
from .checker import Model, Result, check
from .meet import crowd, every_pair, every_ring, fork, pair, ring
from .offers import Offers
from .stream import Stream

ENDS = ("close", "drop", "abort", "stop")
HEAD = f"{'model':<9} {'parameters':<84} {'states':>9} {'transitions':>12} {'CPU s':>8}  properties"


def quick() -> Iterator[Model[Any]]:
    """Small parameters of every model: every rule takes part, each run takes seconds."""
    yield Stream(1, 2, ends=ENDS, cancels=0, repeat=0)
    yield Stream(1, 3, cancels=0)
    yield Stream(2, 2)
    yield Offers(1, 1, stop=True, repeat=0, leaves=0)
    yield Offers(1, 2, repeat=0, leaves=0, loss=0)
    yield Offers(2, 2, repeat=0, cuts=0, leaves=0)
    yield pair()
    yield pair(loss=1, cuts=1)
    yield pair(repeat=1, cancels=1)
    yield pair(2)
    yield fork(cancels=1, loss=1)
    yield ring(cancels=1)
    yield ring(loss=1)
    yield crowd()


def full() -> Iterator[Model[Any]]:
    """What docs/spec/model.md reports."""
    yield Stream(1, 3)
    yield Stream(1, 4)
    yield Stream(2, 3)
    yield Stream(2, 4, cancels=0, repeat=0)
    yield Stream(1, 3, cuts=2, loss=0)
    yield Stream(2, 2, ends=ENDS, cancels=0)
    yield Stream(1, 3, initial=2, ends=("close", "stop"), repeat=0, cancels=0)
    yield Stream(2, 3, initial=1, ends=ENDS, repeat=0, cancels=0)
    yield Offers(1, 1, cancels=2, stop=True)
    yield Offers(1, 2, stop=True, leaves=0, repeat=0)
    yield Offers(1, 2)
    yield Offers(2, 2, leaves=0)
    yield Offers(2, 2, cancels=2, leaves=0, repeat=0, cuts=0, stop=True)
    yield Offers(2, 2, cancels=2, leaves=0, repeat=0, loss=0)
    yield Offers(1, 3, leaves=0, repeat=0, loss=0)
    yield Offers(2, 3, leaves=0, repeat=0, cuts=0)
    yield Offers(2, 3, leaves=0, loss=0, cuts=0)
    yield Offers(2, 3, leaves=0, repeat=0, loss=0)
    yield pair(loss=1, repeat=1, cuts=1, cancels=1)
    yield pair(2, cancels=1)
    yield pair(2, loss=1)
    yield pair(2, cuts=1)
    yield fork(loss=1, repeat=1, cuts=1, cancels=1)
    yield ring(loss=1, repeat=1)
    yield ring(cuts=1)
    yield ring(loss=1, cancels=1)
    yield ring(cuts=1, cancels=1)
    yield crowd()
    yield crowd(cancels=1)
    yield crowd(loss=1)


def broken() -> list[tuple[str, Model[Any]]]:
    """Every deliberately broken rule with a model in which it must be found."""
    return [*stream.mutants(), *offers.mutants(), *meet.mutants()]


def row(result: Result) -> str:
    """Return one line of the table."""
    verdict = "hold" if result.problem is None else "FAIL"
    return (
        f"{result.name:<9} {result.params:<84} {result.states:>9,} {result.edges:>12,} {result.seconds:>8.1f}"
        f"  {verdict}"
    )


def together(name: str, models: Iterable[Model[Any]]) -> Result:
    """Check a family of models and add the figures up; stops at the first that fails."""
    total = Result("C select", name)
    count = 0
    for model in models:
        count += 1
        one = check(model)
        total.states += one.states
        total.edges += one.edges
        total.seconds += one.seconds
        if one.problem is not None:
            total.problem, total.trace = f"{one.params}: {one.problem}", one.trace
            break
    total.params = f"{name}, {count} models"
    return total


def results(small: bool) -> Iterator[Result]:
    """Yield the verdict of each run, quick or full."""
    for model in quick() if small else full():
        yield check(model)
    yield together("every pair of selects, 2 nodes, 3 streams, cancel=1", every_pair())
    if not small:
        yield together("every three selects, 3 nodes, 6 streams", every_ring())


def main(argv: list[str] | None = None) -> int:
    """Print the table and the broken rules; return 0 if all is as it must be."""
    parser = argparse.ArgumentParser(description="Exhaustive model of streams, offers and select")
    parser.add_argument("--quick", action="store_true", help="small parameters only, under 40 s")
    parser.add_argument("--traces", action="store_true", help="print how each broken rule goes wrong")
    options = parser.parse_args(argv)
    failed = 0
    print(HEAD)
    states = edges = 0
    seconds = 0.0
    for result in results(options.quick):
        print(row(result), flush=True)
        states, edges, seconds = states + result.states, edges + result.edges, seconds + result.seconds
        if result.problem is not None:
            failed = 1
            print(result.text())
    print(f"{'total':<94} {states:>9,} {edges:>12,} {seconds:>8.1f}")
    print("\nbroken on purpose:")
    for rule, model in broken():
        result = check(model)
        if result.problem is None:
            failed = 1
        print(f"  {result.name[0]} {rule:<40} {result.problem or 'NOT FOUND'}")
        if options.traces and result.problem is not None:
            print("\n".join("      " + line for line in result.text().splitlines()[1:]))
    return failed


if __name__ == "__main__":
    sys.exit(main())
