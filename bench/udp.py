"""netchan over UDP beside QUIC and what the machine allows: ``python -m bench.udp``.

The rows are those of ``python -m bench.e2e`` and so are the options; without any, W1 of 1 KiB and 64 KiB and W2. What
differs is the table: every row against the C limit and against the best QUIC peer of its cell, whatever front that has.
``--show`` takes several results that were measured apart; a row is compared only within its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.e2e import report
from bench.e2e.__main__ import arguments, run

LIMIT = "c-udp"
QUIC = ("aioquic", "qh3", "zenoh-quic")
ASKED = ("--peers", ",".join(("netchan-udp", *QUIC, LIMIT)), "--workloads", "w1,w2", "--sizes", "1024,65536")
HEAD = f"  {'':<22} {'median':>15} {'+-':>5} {'x limit':>8} {'x best QUIC':>12} {'cpu s/GB':>9}"


def factor(row: dict[str, Any], base: dict[str, Any] | None) -> str:
    """Return a row's value by another one's, for times the other way round, so that more is better."""
    if base is None:
        return "-"
    share = row["median"] / base["median"] if row["more_is_better"] else base["median"] / row["median"]
    return f"{share:.2f}"


def table(found: report.Result) -> str:
    """Return a result for reading."""
    lines = [report.machine_line(found), f"options: {found['options']}"]
    lines += [f"skipped {name}: {reason}" for name, reason in found["skipped"].items()]
    for (workload, size, style), rows in report.cells(found).items():
        lines += ["", f"{workload} {size} B {style}", HEAD]
        good = [row for row in rows if "median" in row]
        limit = next((row for row in good if row["peer"] == LIMIT), None)
        best = next((row for row in good if row["peer"] in QUIC), None)
        for row in rows:
            name = LIMIT if row["peer"] == LIMIT else f"{row['peer']} {row['front']}"
            if row not in good:
                lines.append(f"  {name:<22} failed: {row['failed'][0]}")
                continue
            cpu = f"{report.cpu_s_per_gb(row):.2f}" if workload == "w1" else ""
            lines.append(
                f"  {name:<22} {report.figure(row):>15} {row['spread'] / 2:>5.0%} {factor(row, limit):>8} "
                f"{factor(row, best):>12} {cpu:>9}  {', '.join(row['warnings'] + row['failed'])}".rstrip()
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 when a row failed or none was chosen."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--show"]:
        results = [report.load(Path(word)) for word in words[1:]]
    else:
        chosen = arguments([*ASKED, *words])
        found = run(chosen)
        if found is None:
            return 0 if chosen.list else 1
        results = [found]
    print("\n\n".join(map(table, results)))
    return 1 if any(row["failed"] for found in results for row in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
