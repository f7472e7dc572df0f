"""The gate's memory of tags (spec handshake §5): a model of a set, its bound, and what a stranger can do to it."""

from __future__ import annotations

import random

import pytest

from netchan.net import gate, seen


def tags(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


def test_it_knows_what_was_added_and_nothing_else() -> None:
    one, model = seen.SeenSet(), set[bytes]()
    known, strangers = tags(3000), tags(3000, 2)
    assert known[0] not in one
    for tag in known:
        assert one.add(tag)
        model.add(tag)
        assert one.add(tag)
        assert len(one) == len(model)
    assert all(tag in one for tag in known)
    assert not any(tag in one for tag in strangers)


def test_it_takes_as_many_as_the_gate_may_keep() -> None:
    one = seen.SeenSet()
    assert seen.SLOTS // 2 >= gate.MAX_REPLAY
    known = tags(gate.MAX_REPLAY)
    assert all(one.add(tag) for tag in known)
    assert len(one) == gate.MAX_REPLAY
    assert all(tag in one for tag in known[:: gate.MAX_REPLAY // 500])


def test_a_tag_that_begins_with_zeros_is_known_too() -> None:
    one = seen.SeenSet()
    assert one.add(bytes(16))
    assert bytes(16) in one


def test_a_run_that_is_too_long_is_refused_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "hash", lambda tag: 7, raising=False)
    one = seen.SeenSet()
    known = tags(seen.RUN_MAX)
    assert all(one.add(tag) for tag in known)
    more = tags(1, 3)[0]
    assert not one.add(more)
    assert more not in one
    assert len(one) == seen.RUN_MAX
    assert known[-1] in one
