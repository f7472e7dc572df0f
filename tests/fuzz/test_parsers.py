"""The Python parsers of outside bytes under mutated inputs: refused with their own error, or what they promise holds.

5 000 mutations of each, from seed 0; ``NETCHAN_FUZZ=100`` makes a hundred times as many, and each value of
``NETCHAN_FUZZ_SEED`` others.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.parsers import PARSERS, Parser, mutations

COUNT = 5_000 * int(os.environ.get("NETCHAN_FUZZ", "1"))
SEED = int(os.environ.get("NETCHAN_FUZZ_SEED", "0"))
SLOW = {"hello": 10, "forgery": 10, "talk": 5, "record": 4, "member": 4, "resume": 2, "asked": 4}
"""So many times fewer: they make keys, verify signatures or use sockets."""
pytestmark = pytest.mark.timeout(60 + COUNT // 100)


@pytest.mark.parametrize("parser", PARSERS, ids=[parser.name for parser in PARSERS])
def test_parser_refuses_with_its_own_error_or_keeps_its_promise(parser: Parser) -> None:
    for data in (*parser.inputs, *mutations(parser.inputs, COUNT // SLOW.get(parser.name, 1), SEED)):
        try:
            parser.check(data)
        except BaseException as error:
            raise AssertionError(f"{parser.name}: bytes.fromhex({data.hex()!r})") from error


@pytest.mark.parametrize("parser", PARSERS, ids=[parser.name for parser in PARSERS])
def test_input_cut_at_every_byte_is_refused_or_keeps_its_promise(parser: Parser) -> None:
    for data in parser.inputs:
        for cut in range(0, min(len(data), 400), 1 if parser.name not in SLOW else 7):
            parser.check(data[:cut])


def test_mutations_of_a_seed_are_the_same_again_and_differ_from_their_inputs() -> None:
    inputs = [b"one input", b"another"]
    first = list(mutations(inputs, 500, 3))
    assert first == list(mutations(inputs, 500, 3)) != list(mutations(inputs, 500, 4))
    assert sum(data not in inputs for data in first) > 400
