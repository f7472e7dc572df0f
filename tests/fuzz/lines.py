"""Print which lines of each parser of outside bytes the stored inputs reach (``make fuzz-coverage``).

Compiled parsers: netchan/_core is built once more, apart (build/coverage), with gcc's line counters, and each file
below corpus/ goes through its target, once and whole. The C says by comments which line of which .pyx or .pxd it is
of; only the C of the functions themselves is looked at. Python parsers: the inputs of parsers.py and, from a fixed
seed, ``MUTATIONS`` changes of them.

A line counts if the compiler made code of it; declarations, comments and the lines of ``cdef`` and ``def`` do not. What
cannot be reached stands in ``UNREACHED`` with its reason; the figure counts these lines as not reached all the same. An
entry whose line is reached, or is not there any more, is an error: mend the list with the code.

Exit: 0 if each parser has ``ENOUGH``; 1 if one has not, or the list is wrong; 3 without gcc or gcov.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CORE = ROOT / "netchan" / "_core"
OUT = ROOT / "build" / "coverage"
ENOUGH = 95.0
MUTATIONS, SEED = 500, 0

# file below netchan/_core: the functions that read bytes from outside ("*": all of the file)
COMPILED: dict[str, tuple[str, ...]] = {
    "cursor.pxd": ("load_*", "rd_*"),
    "frame.pyx": ("rd_*", "parse_*", "frame_next*", "message_head", "utf8_sequence", "name_is_valid"),
    "msgshape.pyx": ("shape_check", "_load"),
    "ranges.pyx": ("*",),
    "replay.pyx": ("*",),
    "record.pyx": ("record_size", "make_aad", "record_open"),
    "inbox.pyx": (
        *("in_varint", "in_scan", "in_note_due", "in_number", "in_store", "in_preface", "in_order", "in_keep"),
        *("in_data", "in_reached", "in_mark", "in_skip"),
    ),
    "take.pyx": ("in_gather", "in_fields", "in_head"),
    "ends.pyx": ("read_preface", "offer_ready"),
    "inbound.pyx": ("*",),
    "ratchet.pyx": ("on_*",),
    "outbox.pyx": ("out_pos", "out_want", "out_answer"),
}

NO_MEMORY = "only if the allocator fails"
# (file, function, text of the line, which of those alike in the function, from 1): why no input reaches it
UNREACHED: dict[tuple[str, str, str, int], str] = {
    ("ranges.pyx", "ranges_init", "return defs.NC_EINVAL", 1): "all callers give a constant",
    ("ranges.pyx", "ranges_reserve", "return defs.NC_EINVAL", 1): "_grow asks for no more than the most there may be",
    ("ranges.pyx", "ranges_reserve", "return defs.NC_OK", 1): "_grow asks only when there is no room",
    ("ranges.pyx", "ranges_reserve", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("replay.pyx", "replay_init", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("replay.pyx", "replay_grow", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    (
        "record.pyx",
        "record_open",
        "return defs.NC_EFRAME",
        2,
    ): "record_size lets no record pass that is shorter than a tag",
    ("inbox.pyx", "in_scan", "return rc", 2): NO_MEMORY,
    ("inbox.pyx", "in_note_due", "return defs.NC_OK", 2): "65 536 values with deadlines that nobody takes first",
    ("inbox.pyx", "in_note_due", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("inbox.pyx", "in_skip", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("ratchet.pyx", "on_ratchet", "return", 1): NO_MEMORY,
    ("inbox.pyx", "in_store", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("inbox.pyx", "in_preface", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("inbox.pyx", "in_order", "return rc", 2): NO_MEMORY,
    ("inbox.pyx", "in_keep", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("inbound.pyx", "on_new_stream", "fail(s, defs.CLOSE_INTERNAL)", 1): NO_MEMORY,
    ("inbound.pyx", "on_new_stream", "return NULL", 4): NO_MEMORY,
    ("inbound.pyx", "on_new_stream", "free(o.in_)", 1): NO_MEMORY,
    ("inbound.pyx", "on_new_stream", "free(o)", 1): NO_MEMORY,
    ("inbound.pyx", "on_new_stream", "fail(s, defs.CLOSE_STREAMS)", 3): NO_MEMORY,
    ("inbound.pyx", "on_new_stream", "return NULL", 5): NO_MEMORY,
    ("inbound.pyx", "refuse", "fail(s, defs.CLOSE_INTERNAL)", 1): NO_MEMORY,
    ("inbound.pyx", "on_session_close", "return", 1): "on_record looks at no frame of a session that is over",
    ("inbound.pyx", "keep_left", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("inbound.pyx", "session_recv", "fail(s, defs.CLOSE_INTERNAL)", 1): NO_MEMORY,
    ("inbound.pyx", "session_recv", "return defs.NC_ENOMEM", 1): NO_MEMORY,
    ("inbound.pyx", "session_recv", "fail(s, defs.CLOSE_INTERNAL)", 2): NO_MEMORY,
    ("inbound.pyx", "session_recv", "return defs.NC_ENOMEM", 2): NO_MEMORY,
    ("net/gate.py", "Gate.look", 'return GateResult(Verdict.SILENCE, "replay set is full")', 1): "65 536 HELLOs first",
    ("net/gate.py", "Gate._may_ask", "self._windows[1].add(self._asked.popitem(last=False)[0])", 1): (
        "1 025 HELLOs first"
    ),
    (
        *("net/gate.py", "Gate.check"),
        "return self.look(frame, wall_s, now_ns, rng, address=address, busy=busy, kind=kind, full=True)",
        1,
    ): "65 536 HELLOs first",
    ("net/gate.py", "Gate.look", 'return GateResult(Verdict.BUSY, "replay set is full", header, keys)', 1): (
        "65 536 HELLOs first"
    ),
}


@dataclass
class Function:
    """One function and what is known of its lines."""

    first: int
    last: int
    hit: dict[int, bool] = field(default_factory=dict)


def functions_of(path: Path) -> dict[str, Function]:
    """The functions of a .pyx or .pxd, by name, with their first and last lines."""
    found: dict[str, Function] = {}
    open_: str | None = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        head = re.match(r"(?:cdef|cpdef|def)\s[^=]*?(\w+)\(", line)
        if head and not line.startswith(" "):
            open_ = head[1]
            found[open_] = Function(number, number)
        elif line.strip() and not line.startswith((" ", "#", ")")):
            open_ = None
        elif open_ is not None and line.strip():
            found[open_].last = number
    return found


def is_declaration(line: str) -> bool:
    """True for lines that are no step of the program."""
    text = line.split("#")[0].strip()
    return not text or (text.startswith("cdef ") and "=" not in text) or text in ("else:", "pass")


def picked(names: tuple[str, ...], name: str) -> bool:
    return any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in names)


def build() -> Path:
    """The counting build; the folder of its modules."""
    done = subprocess.run(
        [HERE / "instrument.sh", "coverage", os.environ.get("CC", "gcc"), "-O0", "--coverage"],
        env={**os.environ, "PYTHON": sys.executable},
        check=False,
    )
    if done.returncode:
        raise SystemExit(3)
    return OUT / "lib"


REPLAY = """
import importlib, sys
from pathlib import Path
failed = inputs = 0
for module in sorted(Path(sys.argv[1]).glob("_fuzz*.pyx")):
    made = importlib.import_module("netchan._core." + module.stem)
    for name in made.TARGETS:
        for path in sorted(Path(sys.argv[2], name).iterdir()):
            inputs += 1
            rc = made.run(name, path.read_bytes())
            if rc:
                failed += 1
                print(name, path.name, "check", rc)
print(inputs, "stored inputs")
sys.exit(failed != 0)
"""


def count_compiled() -> dict[str, dict[str, Function]]:
    """file: function: lines, after all stored inputs."""
    lib = build()
    for old in OUT.rglob("*.gcda"):
        old.unlink()
    env = {**os.environ, "PYTHONPATH": str(lib), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
    subprocess.run([sys.executable, "-c", REPLAY, CORE, HERE / "corpus"], cwd=OUT, env=env, check=True)
    names = {file: functions_of(CORE / file) for file in COMPILED}
    for data in sorted(OUT.rglob("*.gcda")):
        said = subprocess.run(
            ["gcov", "--json-format", "--stdout", data], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for text in said.splitlines():
            for file in json.loads(text)["files"]:
                if (ROOT / file["file"]).parent == OUT / "c":
                    note(ROOT / file["file"], file, names)
    return {
        file: {name: one for name, one in names[file].items() if picked(wanted, name) and one.hit}
        for file, wanted in COMPILED.items()
    }


MARK = re.compile(r'\s*/\* "(?:[^"]*/)?([^/"]+)":(\d+)$')


def note(made: Path, counted: dict[str, Any], names: dict[str, dict[str, Function]]) -> None:
    """Put the counts of a C file to the lines that it was made from; the same line may come from several files."""
    text = made.read_text().splitlines()
    sources = {file: (CORE / file).read_text().splitlines() for file in names}
    counts: dict[int, int] = defaultdict(int)
    for line in counted["lines"]:
        counts[line["line_number"]] += line["count"]
    for function in counted["functions"]:
        if not function["name"].startswith("__pyx_f_"):
            continue
        file, at = "", 0
        for number in range(function["start_line"], function["end_line"] + 1):
            mark = MARK.match(text[number - 1])
            if mark:
                file, at = mark[1], int(mark[2])
            if number not in counts or file not in names:
                continue
            for one in names[file].values():
                if one.first < at <= one.last and not is_declaration(sources[file][at - 1]):
                    one.hit[at] = one.hit.get(at, False) or counts[number] > 0


def count_python() -> dict[str, dict[str, Function]]:
    """As count_compiled, for the parsers of parsers.py."""
    import coverage

    from tests.fuzz.parsers import PARSERS, mutations

    wanted: dict[str, list[str]] = defaultdict(list)
    for parser in PARSERS:
        for file, names in parser.reads.items():
            wanted[file] += names
    files = [str(ROOT / "netchan" / file) for file in wanted]
    counter = coverage.Coverage(data_file=None, config_file=False, include=files)
    counter.start()
    inputs = 0
    for parser in PARSERS:
        for data in (*parser.inputs, *mutations(parser.inputs, MUTATIONS, SEED)):
            parser.check(data)
            inputs += 1
    counter.stop()
    print(inputs, "inputs of the parsers in Python")
    out: dict[str, dict[str, Function]] = {}
    for file, names in wanted.items():
        _, statements, _, missing, _ = counter.analysis2(str(ROOT / "netchan" / file))
        out[file] = {}
        for name, one in python_functions(ROOT / "netchan" / file).items():
            if name in names:
                one.hit = {n: n not in missing for n in statements if one.first <= n <= one.last}
                out[file][name] = one
        absent = set(names) - set(out[file])
        if absent:
            raise LookupError(f"{file} has no {sorted(absent)}")
    return out


def python_functions(path: Path) -> dict[str, Function]:
    """The functions and methods of a module, by qualified name, from their first statement on."""
    found: dict[str, Function] = {}

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                found[prefix + node.name] = Function(first.lineno, node.end_lineno or first.lineno)

    walk(ast.parse(path.read_text()).body, "")
    return found


def report(base: Path, counted: dict[str, dict[str, Function]], verbose: bool) -> tuple[int, set[object]]:
    """Print the table; (parsers below ENOUGH, lines that are not reached)."""
    poor = 0
    unreached: set[object] = set()
    for file, functions in counted.items():
        source = (base / file).read_text().splitlines()
        hit = sum(sum(one.hit.values()) for one in functions.values())
        total = sum(len(one.hit) for one in functions.values())
        share = 100.0 * hit / total
        poor += share < ENOUGH
        print(f"{file:18} {hit:4} of {total:4} lines {share:6.1f} %{'   TOO FEW' if share < ENOUGH else ''}")
        for name, one in functions.items():
            if verbose:
                print(f"    {name:22} {sum(one.hit.values()):4} of {len(one.hit):4}")
            seen: dict[str, int] = defaultdict(int)
            for number in sorted(one.hit):
                text = source[number - 1].split("  #")[0].strip()
                seen[text] += 1
                if not one.hit[number]:
                    key = (file, name, text, seen[text])
                    unreached.add(key)
                    print(f"    {name}:{number}: {text}   [{UNREACHED.get(key, 'no input reaches it')}]")
    return poor, unreached


def main() -> int:
    """See the module head; ``-v`` prints each function."""
    if not shutil.which(os.environ.get("CC", "gcc")) or not shutil.which("gcov") or not sysconfig.get_path("include"):
        print("lines.py needs gcc and gcov")
        return 3
    verbose = "-v" in sys.argv
    compiled, python = count_compiled(), count_python()
    print()
    poor, unreached = report(CORE, compiled, verbose)
    more, others = report(ROOT / "netchan", python, verbose)
    stale = [key for key in UNREACHED if key not in unreached | others]
    for key in stale:
        print(f"UNREACHED is wrong: {key} is reached, or not there any more")
    print(f"\n{len(compiled) + len(python)} files of parsers, {poor + more} below {ENOUGH:g} %")
    return 1 if poor + more or stale else 0


if __name__ == "__main__":
    sys.exit(main())
