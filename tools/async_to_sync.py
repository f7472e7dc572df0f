"""Make the blocking front from the async one: ``python tools/async_to_sync.py`` writes, ``--check`` compares.

The sources say what differs, line by line:

====================  ==============================================================================================
``# async-only``      at the end of a line: the line is left out
``# async-only: begin/end``  the lines between are left out
``# sync-only: X``    becomes ``X``
``# + timeout``       after a ``def`` line: gets the keyword ``timeout: float | None = None``
``new_waiter(x)``     in such a function becomes ``new_waiter(x, timeout)``
====================  ==============================================================================================

Everything else is a change of words: ``async`` and ``await`` go, special methods and the waiter get their other name.
A test makes the files again and compares them with those in the tree.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAIRS = {
    "netchan/channel/waits.py": "netchan/sync/waits.py",
    "netchan/channel/permit.py": "netchan/sync/permit.py",
    "netchan/channel/sender.py": "netchan/sync/sender.py",
    "netchan/channel/receiver.py": "netchan/sync/receiver.py",
    "netchan/channel/fronts.py": "netchan/sync/fronts.py",
    "netchan/channel/selecting.py": "netchan/sync/selecting.py",
    "netchan/node/waits.py": "netchan/sync/node_waits.py",
    "netchan/node/peer.py": "netchan/sync/peer.py",
    "netchan/node/watching.py": "netchan/sync/watching.py",
    "netchan/node/listener.py": "netchan/sync/listener.py",
    "netchan/node/opening.py": "netchan/sync/opening.py",
    "netchan/node/node.py": "netchan/sync/node.py",
    "netchan/node/handover.py": "netchan/sync/handover.py",
}
"""Source and what is made from it."""

NAMES = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "StopAsyncIteration": "StopIteration",
    "AsyncWaiter": "BlockingWaiter",
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
}

WORDS = [
    ("``async with``", "``with``"),
    ("Cancelled:", "TimeoutError after ``timeout`` seconds:"),
    ("cancellable", "with a timeout"),
    (" (from the call, before any await)", ""),
    (" (from the call)", ""),
]
"""Said in docstrings and comments only."""

_DEF = re.compile(r"\) ->")
_TIMEOUT = "timeout: float | None = None"


def convert(source: str, origin: str) -> str:
    """Return the blocking twin of an async module.

    Args:
        source: its text.
        origin: its path from the root of the tree, for the head of the result.

    Raises:
        ValueError: an unpaired or unusable directive, with its line number.
    """
    text = "".join(_select(source.splitlines(keepends=True), origin))
    text = _rename(text)
    for made_from, made in PAIRS.items():
        text = text.replace(f"from {_module(made_from)} import", f"from {_module(made)} import")
    head, brk, rest = text.partition('"""\n')
    note = (
        f"# Made from {origin} by tools/async_to_sync.py: edit that file, then run the tool.\n"
        "# ruff: noqa: I001, RUF100 - the order is that of the source\n"
    )
    return note + re.sub(r"\n{3,}(?=    )", "\n\n", re.sub(r"\n{4,}", "\n\n\n", head + brk + rest))


def _module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _select(lines: list[str], origin: str) -> list[str]:
    out: list[str] = []
    skipping = 0
    timed = False
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if word == "# async-only: begin":
            if skipping:
                raise ValueError(f"{origin}:{number}: async-only inside async-only (begun at line {skipping})")
            skipping = number
            continue
        if word == "# async-only: end":
            if not skipping:
                raise ValueError(f"{origin}:{number}: end without begin")
            skipping = 0
            continue
        if skipping or line.rstrip().endswith("# async-only"):
            continue
        stripped = line.lstrip()
        if stripped.startswith("# sync-only:"):
            indent = line[: len(line) - len(stripped)]
            body = stripped.removeprefix("# sync-only:").removeprefix(" ").rstrip("\n").removesuffix("  # noqa: E501")
            out.append(f"{indent}{body}\n" if body else "\n")
            continue
        if re.match(r"\s*(async )?def ", line):
            timed = "# + timeout" in line
            if timed:
                line = line.replace("  # + timeout", "")
                star = "" if "*, " in line else "*, "
                line, n = _DEF.subn(f", {star}{_TIMEOUT}) ->", line, count=1)
                if n != 1:
                    raise ValueError(f"{origin}:{number}: '# + timeout' wants a one-line def with a return type")
        elif timed:
            line = re.sub(r"\bnew_waiter\(([\w.]+)\)", r"new_waiter(\1, timeout)", line)
        out.append(line)
    if skipping:
        raise ValueError(f"{origin}:{skipping}: async-only without end")
    return out


def _rename(text: str) -> str:
    edits: list[tuple[int, int, int, str]] = []
    lines = text.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, start = token.start
        end = token.end[1]
        if token.type == tokenize.NAME:
            if token.string in ("async", "await"):
                edits.append((row, start, end + 1, ""))
            elif token.string in NAMES:
                edits.append((row, start, end, NAMES[token.string]))
    for row, start, end, new in sorted(edits, reverse=True):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + new + line[end:]
    text = "".join(lines)
    for old, new in WORDS:
        text = text.replace(old, new)
    return text


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` say which differ; returns the exit status."""
    stale = 0
    for source, target in PAIRS.items():
        made = convert((ROOT / source).read_text(encoding="utf-8"), source)
        path = ROOT / target
        if path.exists() and path.read_text(encoding="utf-8") == made:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"{target} is not what {source} gives; run tools/async_to_sync.py")
        else:
            path.write_text(made, encoding="utf-8")
            print(f"wrote {target}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
