"""Print, for each rule of the public contract, the tests that prove it: ``make rules``.

A test proves a rule when its name begins ``test_r<number>_`` (several numbers may follow each other), or when it is
listed below: the conformance suite and older tests carry names of their own. Ends with status 1 if a rule has no test.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RULES = range(1, 59)
NAMED = re.compile(r"^test((?:_r\d+)+)_")

# rule: (file, part of the test's name)
ELSEWHERE = {
    1: [("unit/channel/test_conformance.py", "handles_compare")],
    2: [("unit/channel/test_conformance.py", "values_sent_arrive_in_order")],
    5: [("unit/net/test_wait.py", "budget")],
    9: [("integration/test_dial_listen.py", "crossing_opens")],
    10: [
        ("integration/test_dial_listen.py", "open_while_bound"),
        ("integration/test_dial_listen.py", "reopened_after"),
    ],
    15: [("unit/channel/test_conformance.py", "accepts_exactly_capacity")],
    18: [
        ("integration/test_dial_listen.py", "options_that_do_not_exist"),
        ("unit/channel/test_overflow.py", "no_send_waits"),
        ("unit/channel/test_spill.py", "no_send_waits"),
        ("unit/core/test_lossy.py", "takes_the_word_of_the_other"),
    ],
    19: [("integration/test_dial_listen.py", "iteration_gives_what_was_not_opened")],
    20: [("unit/channel/test_conformance.py", "senders_are_served"), ("unit/channel/test_cancel.py", "cancel")],
    21: [("unit/channel/test_cancel.py", "test_next_netchan_call"), ("unit/channel/test_cancel.py", "timeout_block")],
    22: [("unit/channel/test_conformance.py", "deliver"), ("unit/channel/test_conformance.py", "flush")],
    23: [("unit/channel/test_conformance.py", "send_many")],
    24: [("unit/channel/test_conformance.py", "receivers_are_served")],
    25: [("unit/channel/test_conformance.py", "recv_many"), ("unit/channel/test_conformance.py", "recv_into")],
    27: [
        ("unit/channel/test_conformance.py", "close_wakes"),
        ("unit/channel/test_conformance.py", "last_closed_sender"),
    ],
    29: [("unit/channel/test_conformance.py", "stop_discards")],
    32: [("unit/channel/test_conformance.py", "abort_")],
    40: [
        ("integration/test_moving.py", "moved_sender"),
        ("integration/test_moving.py", "moved_receiver"),
        ("integration/test_moving.py", "shared_channel"),
        ("integration/test_moving.py", "third_process"),
        ("integration/test_moving.py", "lost_session"),
    ],
    44: [("integration/test_dial_listen.py", "serve_runs"), ("integration/test_dial_listen.py", "handler_that_raises")],
    46: [("unit/channel/test_conformance.py", "dropped_")],
    47: [("unit/test_errors.py", "test_")],
    52: [("integration/test_dial_listen.py", "accept_is_counted")],
    53: [("integration/test_dial_listen.py", "tofu"), ("integration/test_dial_listen.py", "psk")],
    55: [("unit/test_config.py", "test_")],
    56: [("unit/channel/test_blocking.py", "timeout_zero"), ("unit/channel/test_blocking.py", "timed_out")],
}
LATER = {
    45: "resuming a session that has lost its path comes later; until then it is lost at once",
}


def tests_of(path: Path) -> list[str]:
    """Names of all test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test")]


def collect() -> dict[int, list[str]]:
    """Rule -> its tests, as path::name."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        place = path.relative_to(ROOT).as_posix()
        for name in tests_of(path):
            match = NAMED.match(name)
            for number in re.findall(r"\d+", match[1]) if match else ():
                found[int(number)].append(f"{place}::{name}")
    for number, entries in ELSEWHERE.items():
        for file, part in entries:
            path = ROOT / "tests" / file
            there = [f"tests/{file}::{name}" for name in tests_of(path) if part in name]
            if not there:
                raise LookupError(f"tests/rules.py: R{number} names {part!r} in {file}, where no test is called so")
            found[number] += there
    return found


def main() -> int:
    """Print the table; the number of rules without a test decides the status."""
    found = collect()
    missing = 0
    for number in RULES:
        if found[number]:
            print(f"R{number}")
            for test in sorted(set(found[number])):
                print(f"    {test}")
        else:
            print(f"R{number}\n    {LATER.get(number, 'NO TEST')}")
            missing += number not in LATER
    print(f"{len(RULES)} rules, {sum(len(set(found[n])) for n in RULES)} tests, {missing} rules without a test")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
