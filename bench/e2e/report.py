"""Results as a file, a table and a comparison.

The JSON file: ``{schema, when, commit, machine, options, skipped, rows: [{id, workload, size, style, front, peer,
encrypted, mutual, unit, more_is_better, median, min, max, spread, warnings, failed, runs: [...]}]}``; runs are
``runner.Run`` as they were measured, in order of rounds.
"""

from __future__ import annotations

import datetime
import json
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.e2e import machine, peers
from bench.e2e.contract import TURNS
from bench.e2e.runner import FOREIGN_SHARE, RATES, Row, Run, spread

SCHEMA = 1
Result = dict[str, Any]


def row_result(row: Row, runs: list[Run], failures: list[str]) -> dict[str, Any]:
    """Make one row of the result from its runs and its failures (either may be empty)."""
    peer = peers.find(row.peer)
    made: dict[str, Any] = {"id": row.id} | asdict(row)
    made |= {"encrypted": peer.encrypted, "mutual": peer.mutual, "unit": row.unit, "more_is_better": row.more_is_better}
    made |= {"failed": failures, "warnings": [], "runs": [asdict(run) for run in runs]}
    if runs:
        values = [run.value for run in runs]
        made |= {"median": statistics.median(values), "min": min(values), "max": max(values), "spread": spread(values)}
        disturbed = [run.foreign for run in runs if run.foreign > FOREIGN_SHARE]
        if disturbed:
            made["warnings"].append(f"foreign CPU up to {max(disturbed):.0%} in {len(disturbed)}/{len(runs)} runs")
    return made


def result(rows: Iterable[dict[str, Any]], options: dict[str, Any], skipped: dict[str, str]) -> Result:
    """Make the whole result."""
    return {
        "schema": SCHEMA,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "options": options,
        "skipped": skipped,
        "rows": list(rows),
    }


def load(path: Path) -> Result:
    """Read a result file.

    Raises:
        ValueError: it is not one, or of another schema.
    """
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not a result file of schema {SCHEMA}")
    return found


def file_name(found: Result) -> str:
    """Return ``<date>-<machine>.json``, the machine as its processor and their number."""
    words = re.sub(r"[^a-z0-9]+", "-", found["machine"]["cpu"].lower()).strip("-")
    return f"{found['when'][:10]}-{words}-x{found['machine']['cpus']}.json"


def machine_line(found: Result) -> str:
    """Return the conditions of a result in one line."""
    facts = found["machine"]
    versions = facts["versions"]
    return (
        f"{facts['cpu']} x{facts['cpus']}, {facts['kernel']}, {facts['python']}, ssl: {versions.get('ssl', '?')}, "
        f"netchan provider: {facts['provider']}, commit {found['commit']}, {found['when'][:10]}"
    )


def figure(row: dict[str, Any]) -> str:
    """Return the median of a row with its unit."""
    if "median" not in row:
        return "failed"
    value = row["median"]
    if row["workload"] not in RATES:
        return f"{value:.1f} {row['unit']}"
    if row["size"] >= 65536:
        return f"{value * row['size'] / 1e6:,.0f} MB/s"
    return f"{value / 1e6:.3f} M msg/s" if value >= 1e6 else f"{value / 1e3:.1f} k msg/s"


def cpu_s_per_gb(row: dict[str, Any]) -> float:
    """Return the CPU seconds of both sides for 10^9 bytes of messages of a W1 row, the median of its runs."""
    return statistics.median(
        (run["cpu_sender_s"] + run["cpu_receiver_s"]) / (run["n"] * row["size"] / 1e9) for run in row["runs"]
    )


def _extra(row: dict[str, Any]) -> str:
    """Return p99 of W2, values a record of W3c, and the CPU seconds of each side per second of wall time."""
    runs = row["runs"]
    if not runs:
        return row["failed"][0] if row["failed"] else ""
    words = []
    if row["workload"] == "w2":
        words.append(f"p99 {statistics.median(run['extra']['p99'] for run in runs):.0f} us")
    if row["workload"] in TURNS:
        packed, shared = (statistics.median(run["extra"][key] for run in runs) for key in ("values/record", "shared"))
        words.append(f"{packed:.1f} values/record, {shared:.0%} shared")
    if row["workload"] in ("w2", "w4", "w4c", *RATES):
        sender, receiver = (
            statistics.median(run[key] / run["wall_s"] for run in runs) for key in ("cpu_sender_s", "cpu_receiver_s")
        )
        words.append(f"cpu {sender:.2f}+{receiver:.2f}")
    if row["workload"] == "w1" and row["size"] >= 65536:
        words.append(f"{cpu_s_per_gb(row):.2f} cpu s/GB")
    return ", ".join(words + row["warnings"] + row["failed"])


def cells(found: Result) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    """Return the rows by (workload, size, style), each cell best first, rows without a figure last."""
    made: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        made.setdefault((row["workload"], row["size"], row["style"]), []).append(row)
    for rows in made.values():
        rows.sort(key=lambda row: ("median" not in row, -row.get("median", 0) * (1 if row["more_is_better"] else -1)))
    return made


def ratio(rows: list[dict[str, Any]], keep: Callable[[dict[str, Any]], bool]) -> str | None:
    """Return ours against the best encrypted peer among the rows that `keep` chooses, as a line, or None."""
    chosen = [row for row in rows if "median" in row and row["encrypted"] and keep(row)]
    ours = [row for row in chosen if row["peer"] == peers.OURS]
    theirs = [row for row in chosen if not row["peer"].startswith((peers.OURS, *peers.LIMITS))]
    if not ours or not theirs:
        return None
    one, best = ours[0], theirs[0]
    return f"{one['front']}: {one['median'] / best['median']:.2f} x {best['peer']} ({best['front']})"


def share_of_w1(rows: list[dict[str, Any]], w1: list[dict[str, Any]], front: str) -> str | None:
    """Return ours over many channels (W3c) against ours over one (W1, the same size), as a line, or None."""
    many, one = (
        [row["median"] for row in group if "median" in row and row["front"] == front and row["peer"] == peers.OURS]
        for group in (rows, w1)
    )
    return f"{front}: {many[0] / one[0]:.2f} x w1 of one channel" if many and one else None


def table(found: Result) -> str:
    """Return the result for reading."""
    lines = [machine_line(found), f"options: {found['options']}"]
    lines += [f"skipped {name}: {reason}" for name, reason in found["skipped"].items()]
    grouped = cells(found)
    for (workload, size, style), rows in grouped.items():
        lines += ["", f"{workload} {size} B {style}"]
        for row in rows:
            mark = "*" if row["encrypted"] else " "
            noise = f"+-{row['spread'] / 2:.0%} n={len(row['runs'])}" if "median" in row else ""
            lines.append(f"  {mark} {row['peer']:<10} {row['front']:<9} {figure(row):>18}  {noise:<12} {_extra(row)}")
        for front in ("blocking", "asyncio", "uvloop"):
            line = ratio(rows, lambda row, front=front: row["front"] == front)  # type: ignore[misc]
            if workload in TURNS:
                line = share_of_w1(rows, grouped.get(("w1", size, style), []), front)
            if line:
                lines.append(f"    ratio {line}")
    return "\n".join([*lines, "", "* = encrypted; w2 value is p50; ratio = ours / best encrypted peer on that front"])


def compare(now: Result, base: Result) -> tuple[str, bool]:
    """Return the rows that both have, side by side, and whether the two may be compared at all."""
    if not machine.same_machine(now["machine"], base["machine"]):
        return (
            f"not compared: other machine or software\n  now  {machine_line(now)}\n  base {machine_line(base)}",
            False,
        )
    if now["options"]["pin"] != base["options"]["pin"]:
        return "not compared: pinned differently", False
    before = {row["id"]: row for row in base["rows"] if "median" in row}
    lines = [f"base: {machine_line(base)}", f"{'row':<40} {'base':>18} {'now':>18}  better by"]
    for row in now["rows"]:
        old = before.get(row["id"])
        if old is None or "median" not in row:
            continue
        gain = row["median"] / old["median"] if row["more_is_better"] else old["median"] / row["median"]
        apart = row["min"] > old["max"] or row["max"] < old["min"]
        note = "" if apart else "  (ranges overlap)"
        lines.append(f"{row['id']:<40} {figure(old):>18} {figure(row):>18}  {gain:.2f} x{note}")
    return "\n".join(lines), True
