"""Command ``python -m bench.e2e``: choose rows, run them in turn over several rounds, print, store, compare."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from bench.e2e import peers, report
from bench.e2e.contract import BATCH, FANS, FRONTS, ONE, TURNS, UVLOOP
from bench.e2e.runner import Bench, Row, Run, RunFailed
from bench.limits.udp import Program

SIZES = (64, 1024, 65536, 1 << 20)
CELLS = (
    *(("w1", size, style) for size in SIZES for style in (ONE, BATCH)),
    ("w2", 64, ONE),
    *((name, 1024, ONE) for name in FANS),
    *((name, 64, ONE) for name in TURNS),
    ("w4", 64, ONE),
    ("w4c", 64, ONE),
    ("w5", 64, ONE),
    ("w5c", 64, ONE),
)
WORKLOADS = tuple(dict.fromkeys(cell[0] for cell in CELLS))
QUICK = {
    "rounds": 1,
    "seconds": 0.2,
    "workloads": ["w1", "w2", "w4", "w5", "w5c"],
    "sizes": [64, 65536],
    "peers": ["netchan", "tls", "zmq-curve"],
    "fronts": ["blocking", "asyncio"],
}
FULL = {"rounds": 3, "seconds": 1.0}
RESULTS = Path(__file__).parents[1] / "results"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.e2e", description="End-to-end benchmark with peers.")
    comma = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--workloads", type=comma, help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--peers", type=comma, help=f"of {','.join(peers.NAMES)}")
    parser.add_argument("--fronts", type=comma, help=f"of {','.join(FRONTS)}")
    parser.add_argument("--styles", type=comma, help="of one,batch")
    parser.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], help="bytes, for w1")
    parser.add_argument("--rows", action="append", metavar="GLOB", help="workload/size/style/front/peer; repeatable")
    parser.add_argument("--rounds", type=int, help="runs of each row (default 3)")
    parser.add_argument("--seconds", type=float, help="length of a run (default 1)")
    parser.add_argument("--quick", action="store_true", help="a minute: few rows, one short round; indicative only")
    parser.add_argument("--pin", choices=("free", "one", "split"), default="free", help="CPUs of the two processes")
    parser.add_argument("--list", action="store_true", help="print the rows and leave")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", nargs="?", const=RESULTS, help="write JSON (default name in bench/results)"
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="print a stored result instead of measuring")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with a stored result of this machine")
    chosen = parser.parse_args(argv)
    for name, known in (
        ("peers", peers.NAMES),
        ("fronts", FRONTS),
        ("styles", (ONE, BATCH)),
        ("sizes", SIZES),
        ("workloads", WORKLOADS),
    ):
        if unknown := [word for word in getattr(chosen, name) or () if word not in known]:
            parser.error(f"--{name}: {unknown} is not among {list(known)}")
    for name, value in (QUICK if chosen.quick else FULL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if chosen.rounds < 1 or not 0 < chosen.seconds <= 30:
        parser.error("--rounds is at least 1, --seconds above 0 and at most 30")
    return chosen


def usable(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the peers that can run here, and why the others cannot."""
    able, skipped = [], {}
    for name in names:
        reason = peers.find(name).missing()
        if reason is None:
            able.append(name)
        else:
            skipped[name] = reason
    return able, skipped


def choose(chosen: argparse.Namespace, names: Sequence[str]) -> list[list[Row]]:
    """Return the rows that were asked for, grouped by cell."""
    groups = []
    fronts = [front for front in chosen.fronts or FRONTS if front != UVLOOP or peers.installed("uvloop") is None]
    for workload, size, style in CELLS:
        if workload not in (chosen.workloads or [workload]) or style not in (chosen.styles or [style]):
            continue
        if workload == "w1" and size not in (chosen.sizes or [size]):
            continue
        group = [
            Row(workload, size, style, front, name)
            for name in names
            for front in fronts
            if peers.find(name).offers(front, workload, style, size)
        ]
        if chosen.rows:
            group = [row for row in group if any(fnmatch(row.id, glob) for glob in chosen.rows)]
        if group:
            groups.append(group)
    return groups


def in_turn(groups: list[list[Row]], rounds: int) -> Iterator[tuple[int, Row]]:
    """Yield (round, row): in a round every cell's rows one after the other, beginning with another one each round."""
    for number in range(rounds):
        for group in groups:
            turn = number % len(group)
            for row in group[turn:] + group[:turn]:
                yield number + 1, row


def measure(groups: list[list[Row]], chosen: argparse.Namespace, skipped: dict[str, str]) -> report.Result:
    """Run all rows; Ctrl-C ends early with what was measured so far."""
    runs: dict[Row, list[Run]] = {row: [] for group in groups for row in group}
    failures: dict[Row, list[str]] = {row: [] for row in runs}
    options = {"rounds": chosen.rounds, "seconds": chosen.seconds, "pin": chosen.pin}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        for name in {row.peer for row in runs}:
            peers.find(name).prepare(folder)
        try:
            for number, row in in_turn(groups, chosen.rounds):
                words = f"round {number}  {row.id:<40}"
                try:
                    make = Program if row.peer in peers.LIMITS else Bench
                    with make(row, folder, chosen.pin) as bench:
                        run = bench.measure(chosen.seconds)
                except RunFailed as failure:
                    failures[row].append(str(failure))
                    print(f"{words} FAILED: {failure}", file=sys.stderr, flush=True)
                    continue
                runs[row].append(run)
                print(f"{words} {run.value:>14,.1f} {row.unit}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            options["stopped"] = True
            print("stopped early", file=sys.stderr)
    rows = [report.row_result(row, runs[row], failures[row]) for row in runs if runs[row] or failures[row]]
    return report.result(rows, options, skipped)


def run(chosen: argparse.Namespace) -> report.Result | None:
    """Measure the rows that were asked for, store the result if asked to; None when they were only listed, or none."""
    names, skipped = usable(chosen.peers or peers.USUAL)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    groups = choose(chosen, names)
    if chosen.list or not groups:
        print("\n".join(row.id for group in groups for row in group) or "no rows chosen")
        return None
    found = measure(groups, chosen, skipped)
    if chosen.out:
        path = RESULTS / report.file_name(found) if chosen.out == RESULTS else chosen.out
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 when a row failed or none was chosen, 2 when a comparison was refused."""
    chosen = arguments(argv)
    found = report.load(chosen.show) if chosen.show else run(chosen)
    if found is None:
        return 0 if chosen.list else 1
    print(report.table(found))
    if chosen.compare:
        text, allowed = report.compare(found, report.load(chosen.compare))
        print("\n" + text)
        if not allowed:
            return 2
    return 1 if any(row["failed"] for row in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
