"""Draws a stored result: ``python -m bench.plots RESULT.json [OUT.svg|OUT.png]``; needs matplotlib.

Two bar charts: W1 64 B in million messages a second and W2 p50 in microseconds, encrypted rows only, the best row of
each library per front, ours in another colour, the conditions written underneath.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

from bench.e2e import peers, report

OURS_COLOUR, PEER_COLOUR = "#c2410c", "#64748b"
PANELS = (
    # workload, size, style, title, unit on the axis, divisor of the median, format
    ("w1", 64, "one", "one way, 64 B, one call a message", "million messages / s (more is better)", 1e6, "{:.3g}"),
    ("w1", 64, "batch", "one way, 64 B, batch calls", "million messages / s (more is better)", 1e6, "{:.3g}"),
    ("w2", 64, "one", "round trip, 64 B, median", "µs (less is better)", 1.0, "{:.1f}"),
)


def bars(found: report.Result, workload: str, size: int, style: str) -> list[dict[str, Any]]:
    """Return the encrypted rows of one cell that have a figure, best first."""
    rows = report.cells(found).get((workload, size, style), [])
    return [row for row in rows if row["encrypted"] and "median" in row]


def draw(found: report.Result, out: Path) -> None:
    """Write the chart; the suffix of `out` chooses the format.

    Raises:
        ValueError: the result holds none of the rows that are drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same result gives the same file
    from matplotlib import pyplot

    panels = [(panel, rows) for panel in PANELS if (rows := bars(found, *panel[:3]))]
    if not panels:
        raise ValueError("no encrypted row of w1/64 or w2/64 in this result")
    heights = [len(rows) + 2 for _, rows in panels]
    figure, axes = pyplot.subplots(
        len(panels), figsize=(9, 0.3 * sum(heights) + 0.8), gridspec_kw={"height_ratios": heights}, squeeze=False
    )
    for axis, ((_, _, _, title, unit, divisor, form), rows) in zip(axes[:, 0], panels, strict=True):
        names = [f"{row['peer']} ({row['front']})" for row in rows]
        middle = [row["median"] / divisor for row in rows]
        reach = [
            [(row["median"] - row["min"]) / divisor for row in rows],
            [(row["max"] - row["median"]) / divisor for row in rows],
        ]
        colours = [OURS_COLOUR if row["peer"] == peers.OURS else PEER_COLOUR for row in rows]
        drawn = axis.barh(names, middle, color=colours, xerr=reach, ecolor="#1e293b", capsize=2, height=0.7)
        axis.bar_label(drawn, [form.format(value) for value in middle], padding=6, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axis.set_xlabel(unit, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.set_xlim(0, max(row["max"] for row in rows) / divisor * 1.12)
        axis.spines[["top", "right"]].set_visible(False)
    options = found["options"]
    line = report.machine_line(found) + f"; {options['rounds']} rounds of {options['seconds']} s, cpus {options['pin']}"
    if any(row["warnings"] for row in found["rows"]):
        line += "; measured while other programs ran: indicative only"
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    figure.text(0.01, 0.01, textwrap.fill(line, 150), fontsize=6.5, color="#475569")
    figure.savefig(out, dpi=150, metadata={"Date": None} if out.suffix == ".svg" else None)
    pyplot.close(figure)


def main() -> int:
    """Run the command; return 1 when the result cannot be drawn."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots")
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="default: beside the result, .svg")
    chosen = parser.parse_args()
    out = chosen.out or chosen.result.with_suffix(".svg")
    try:
        draw(report.load(chosen.result), out)
    except (ImportError, ValueError) as failure:
        print(f"no plot: {failure}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
