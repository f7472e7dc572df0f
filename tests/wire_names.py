"""Print, for each frame, close code and abort code of the wire, the tests that name it: ``make wire-names``.

A test names a frame when its own name begins ``test_wire_frame_<name>_``, a code of SESSION_CLOSE with
``test_wire_close_<name>_``, a code of ABORT and STOP with ``test_wire_code_<name>_``. The numbers are read out of the
code (netchan/_core/defs.pxd); docs/spec has the same ones, or it is said here. Ends with status 1 if a name has no
test, or code and pages differ; a test that names what is not there is an error.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from tests.rules import ROOT, tests_of

KINDS = {"frame": "FRAME_", "close": "CLOSE_", "code": "CODE_"}
"""What a test's name begins with, and what the constant's name does."""
_ENUMS = {"frame": "nc_frame_type", "close": "nc_close_code", "code": "nc_code"}
_NAMED = re.compile(r"^test_wire_(frame|close|code)_")


def of_code() -> dict[str, dict[str, int]]:
    """kind -> name -> number, as _core/defs.pxd has them."""
    text = (ROOT / "netchan" / "_core" / "defs.pxd").read_text(encoding="utf-8")
    found: dict[str, dict[str, int]] = {}
    for kind, enum in _ENUMS.items():
        block = re.search(rf"cdef enum {enum}:.*\n((?:    .*\n)+)", text)
        assert block, enum
        lines = re.findall(rf"^    {KINDS[kind]}(\w+) = (\w+)", block[1], re.MULTILINE)
        found[kind] = {name: int(number, 0) for name, number in lines}
    return found


def of_pages() -> dict[str, dict[str, int]]:
    """kind -> name -> number, as docs/spec/wire.md and docs/spec/session.md have them."""
    wire, session = ((ROOT / "docs" / "spec" / name).read_text(encoding="utf-8") for name in ("wire.md", "session.md"))
    frames = {name: int(number, 16) for number, name in re.findall(r"^\| 0x(\w\w) \| ([A-Z_]+) \|", wire, re.MULTILINE)}
    for name, where in (
        ("DATA", r"### 6\.1 DATA\n.*\n.*\n\| 0x(\w\w)–"),
        ("TRUNK_DATA", r"### 6\.4 Trunk\n.* each DATA frame has type 0x(\w\w)–"),
    ):
        row = re.search(where, wire)
        assert row, where
        frames[name] = int(row[1], 16)
    growth = re.search(r"^Frame types.* from (\d+) on", wire, re.MULTILINE)
    assert growth
    frames["EXTENSION"] = int(growth[1])
    _, rest = session.split("### 9.1 SESSION_CLOSE")
    closes, aborts = rest.split("### 9.2 ABORT, STOP")
    listed = re.search(r"`netchan\.Code`\): ([^.]*)\.", aborts)
    assert listed
    names = re.findall(r"[A-Z][A-Z_]+", re.sub(r"\(.*?\)", "", listed[1]))
    return {
        "frame": frames,
        "close": {name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", closes, re.MULTILINE)},
        "code": {name: (1 << 30) + place for place, name in enumerate(names)},
    }


def named_by(test: str, known: dict[str, dict[str, int]]) -> tuple[str, str] | None:
    """(kind, name) that a test's own name names; None: none. The longest name counts.

    Raises:
        LookupError: it begins like one, and there is no such name.
    """
    begins = _NAMED.match(test)
    if begins is None:
        return None
    kind, rest = begins[1], test[begins.end() :]
    fitting = [name for name in known[kind] if rest.startswith(name.lower() + "_")]
    if not fitting:
        raise LookupError(f"{test} names no {kind} of the wire")
    return kind, max(fitting, key=len)


def collect(folder: Path = ROOT / "tests") -> dict[tuple[str, str], list[str]]:
    """(kind, name) -> its tests, as path::name."""
    known = of_code()
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        for test in tests_of(path):
            what = named_by(test, known)
            if what is not None:
                found[what].append(f"{path.relative_to(folder.parent).as_posix()}::{test}")
    return found


def main() -> int:
    """Print the table; what is missing decides the status."""
    known, pages, found = of_code(), of_pages(), collect()
    missing = 0
    for kind, numbers in known.items():
        for name, number in sorted(numbers.items(), key=lambda item: item[1]):
            tests = found[kind, name]
            print(f"{kind} {number:#x} {name}")
            print("\n".join(f"    {test}" for test in tests) if tests else "    NO TEST")
            missing += not tests
        for name in sorted(numbers.keys() ^ pages[kind].keys()):
            print(f"{kind} {name}: only {'the code' if name in numbers else 'docs/spec'} has it")
        for name in sorted(numbers.keys() & pages[kind].keys()):
            if numbers[name] != pages[kind][name]:
                print(f"{kind} {name}: {numbers[name]:#x} in the code, {pages[kind][name]:#x} in docs/spec")
    total = sum(len(numbers) for numbers in known.values())
    print(f"{total} names, {sum(len(tests) for tests in found.values())} tests, {missing} names without a test")
    return 1 if missing or known != pages else 0


if __name__ == "__main__":
    sys.exit(main())
