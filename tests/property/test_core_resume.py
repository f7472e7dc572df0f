"""A session whose paths are cut at any byte (docs/spec/session.md §5.2): nothing is lost, doubled or out of order.

A program of sends, takes, closes, aborts, offers and withdrawals runs on both sides in virtual time. The bytes on their
way are cut anywhere, the answer to a JOIN may be lost any number of times, and the outcome is checked value by value.
"""

from __future__ import annotations

import os
import random

import pytest

from netchan._core import _selftest_session as st
from tests.property.core_lines import (
    LEASE_NS,
    OK,
    Also,
    Line,
    block_of,
    check,
    finish,
    more,
    nothing,
    noting,
    settle,
    steps,
)

SEEDS = int(os.environ.get("NETCHAN_RESUME_SEEDS", "200"))
UP = 0


def rejoin(pair: st.Pair, rng: random.Random, path: int) -> int:
    """JOIN by the initiator, as net/join.py does it; gives the next free path id."""
    a, b = pair.a, pair.b
    a.path_lost()  # the dialler has noticed; the other side perhaps not
    pair.ab.clear()
    pair.ba.clear()
    while True:
        last, got = a.state()["path"], a.state()["rx"]
        there = b.join(path, last)
        assert there >= 0
        b.path_lost()
        binding = rng.randbytes(32)
        assert b.resume(path, last, got, binding) == OK
        if rng.random() < 0.3:  # the answer does not arrive, and what the other side sent behind it does not either
            if rng.random() < 0.5:
                pair.collect(rng.choice([700, 65536]))
            pair.ab.clear()
            pair.ba.clear()
            path += 2
            continue
        assert a.resume(path, last, there, binding) == OK
        return path + 2


def play(seed: int, also: Also = nothing) -> tuple[int, int]:
    rng = random.Random(seed)
    params = {"lease_ns": LEASE_NS}
    limits = {"use_ns": rng.choice([10_000_000, 10**18])}  # the first: new keys all the time
    pair = st.Pair(mine=params, peer=params, limits=limits, seed=seed)
    path = 2
    lines: list[Line] = []
    for i in range(rng.randrange(1, 5)):
        more(pair, lines, f"c{i}", rng)
    cuts = 0
    for turn in range(rng.randrange(10, 40)):
        if rng.random() < 0.1:
            more(pair, lines, f"d{turn}", rng)
        steps(pair, lines, rng)
        also(pair, lines, rng)
        pair.a.ready(), pair.b.ready()
        pair.a.now = pair.b.now = pair.a.now + rng.choice([0, 10_000, 30_000_000])
        what = rng.random()
        if what < 0.4:
            pair.run(rounds=200, chunk=lambda: rng.choice([1, 17, 400, 1 << 20]))
        elif what < 0.75:  # some bytes arrive, the rest is lost with the path
            for _ in range(rng.randrange(3)):
                pair.collect(rng.choice([700, 65536]))
                pair.deliver(rng.randrange(3000), rng.randrange(3000))
            pair.collect(rng.choice([700, 65536]))
            pair.deliver(rng.randrange(len(pair.ab) + 1), rng.randrange(len(pair.ba) + 1))
            if rng.random() < 0.3:
                pair.b.path_lost()  # this side saw it first, and goes on without a path
                steps(pair, lines, rng)
                pair.b.send()
            path = rejoin(pair, rng, path)
            cuts += 1
        for side in (pair.a, pair.b):
            side.on_deadline()
            assert side.state()["state"] == UP, side.state()
        for line in lines:
            settle(line)
            if not line.aborted:
                check(line)
    # healed: everything arrives
    finish(lines, pair.sleep)
    for side in (pair.a, pair.b):
        state = side.state()
        # what asks for no acknowledgement stays until the next one
        assert state["state"] == UP and state["again"] == 0 and state["log"] < 2000, state
    resent = pair.a.state()["resent"] + pair.b.state()["resent"]
    for line in lines:
        line.send.release()
    pair.a.released(), pair.b.released()
    pair.free()
    return cuts, resent


@pytest.mark.parametrize("block", range(10))
def test_nothing_is_lost_or_doubled_whatever_is_cut(block: int) -> None:
    cuts = resent = 0
    for seed in block_of(SEEDS, block):
        with noting(seed):
            a, b = play(seed)
        cuts, resent = cuts + a, resent + b
    assert cuts > 0 and resent > 0
