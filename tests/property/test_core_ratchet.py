"""Ratchets over paths that are cut anywhere (docs/spec/keys.md §2.1, docs/spec/session.md §5.2)."""

from __future__ import annotations

import random

import pytest

from netchan._core import _selftest_session as st
from tests.property.core_lines import block_of, noting
from tests.property.test_core_resume import LEASE_NS, UP, rejoin

SEEDS = 200


def play(seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    params = {"lease_ns": LEASE_NS}
    pair = st.Pair(mine=params, peer=params, seed=seed)
    a, b = (side.open("x", capacity=1000) for side in (pair.a, pair.b))
    pair.run()
    sent: tuple[list[bytes], list[bytes]] = ([], [])
    got: tuple[list[bytes], list[bytes]] = ([], [])
    path, number = 2, 0
    for _ in range(rng.randrange(5, 40)):
        for end, values in ((a, sent[0]), (b, sent[1])):
            for _ in range(rng.randrange(3)):
                value = rng.randbytes(rng.choice([5, 700, 3000]))
                assert end.send(value) == 0
                values.append(value)
        if not pair.a.state()["have"]:  # the other side may still wait for the acknowledgement of its announcement
            number += 1
            secret = rng.randbytes(32)
            pair.b.ratchet(number, secret)
            pair.a.ratchet(number, secret)
        pair.a.now = pair.b.now = pair.a.now + rng.choice([0, 10_000, 30_000_000])
        for _ in range(rng.randrange(4)):
            pair.collect(rng.choice([700, 65536]))
            pair.deliver(rng.randrange(3000), rng.randrange(3000))
        what = rng.random()
        if what < 0.4:
            pair.run(rounds=200)
        elif what < 0.8:
            pair.collect(rng.choice([700, 65536]))
            pair.deliver(rng.randrange(len(pair.ab) + 1), rng.randrange(len(pair.ba) + 1))
            path = rejoin(pair, rng, path)
        for side in (pair.a, pair.b):
            side.on_deadline()
            state = side.state()
            assert state["state"] == UP and state["alive"], state
        got[0].extend(a.take_all())
        got[1].extend(b.take_all())
    for _ in range(40):
        pair.sleep(40_000_000)
        got[0].extend(a.take_all())
        got[1].extend(b.take_all())
    assert got[1] == sent[0] and got[0] == sent[1]
    for side in (pair.a, pair.b):
        state = side.state()
        assert state["state"] == UP and state["alive"]
        assert (state["ratchets"], state["rekey"], state["have"]) == (number, 0, 0)
    pair.free()
    return path, number


@pytest.mark.parametrize("block", range(10))
def test_ratchets_survive_cuts_at_any_byte(block: int) -> None:
    paths = ratchets = 0
    for seed in block_of(SEEDS, block):
        with noting(seed):
            path, number = play(seed)
        paths, ratchets = paths + path, ratchets + number
    assert paths > 50 and ratchets > 50
