"""Each frame and each code of the wire has a test that names it, and one number in the code and on the pages."""

from __future__ import annotations

import pytest

from netchan.errors import Code
from tests.wire_names import KINDS, collect, named_by, of_code, of_pages

KNOWN = of_code()


@pytest.mark.parametrize("kind", KINDS)
def test_code_and_pages_have_the_same_names_and_numbers(kind: str) -> None:
    assert KNOWN[kind] == of_pages()[kind]


def test_all_of_the_wire_is_read() -> None:
    assert KNOWN["frame"].keys() >= {"PADDING", "ASK", "DATA", "SKIP", "TRUNK_DATA", "EXTENSION"}
    assert [*range(0x1A)] == [number for number in KNOWN["frame"].values() if number < 0x20]
    assert [*range(18)] == list(KNOWN["close"].values())
    assert [*range(1 << 30, (1 << 30) + 8)] == list(KNOWN["code"].values())


def test_each_frame_and_code_has_a_test_that_names_it() -> None:
    found = collect()
    assert [(kind, name) for kind, names in KNOWN.items() for name in names if not found[kind, name]] == []


@pytest.mark.parametrize(
    ("test", "what"),
    [
        ("test_wire_frame_withdraw_is_answered", ("frame", "WITHDRAW")),
        ("test_wire_frame_withdrawn_settles", ("frame", "WITHDRAWN")),
        ("test_wire_frame_path_status_is_refused", ("frame", "PATH_STATUS")),
        ("test_wire_close_none_is_clean", ("close", "NONE")),
        ("test_wire_code_type_mismatch_is_said", ("code", "TYPE_MISMATCH")),
        ("test_close_wakes_receivers", None),
        ("test_values_arrive", None),
    ],
)
def test_name_of_a_test_says_what_it_names(test: str, what: tuple[str, str] | None) -> None:
    assert named_by(test, KNOWN) == what


@pytest.mark.parametrize(
    "test", ["test_wire_frame_pong_is_answered", "test_wire_close_twice_is_harmless", "test_wire_code_ping"]
)
def test_name_that_is_not_of_the_wire_is_an_error(test: str) -> None:
    with pytest.raises(LookupError):
        named_by(test, KNOWN)


def test_codes_of_the_program_are_those_of_the_wire() -> None:
    assert {code.name: int(code) for code in Code}.items() <= KNOWN["code"].items()
