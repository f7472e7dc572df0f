"""A session that moves to another process again and again (docs/spec/handover.md): nothing is lost, doubled or out of
order, and no number is used again under a key.

The programs of test_core_resume.py, test_core_paths.py and test_core_datagrams.py, and at random moments the session of
one side is held, written, destroyed, read back and goes on; or it is held, written, and taken back.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from netchan._core import _selftest_session as st
from tests.property import test_core_datagrams, test_core_paths, test_core_resume
from tests.property.core_lines import Line, block_of, noting

SEEDS = int(os.environ.get("NETCHAN_HANDOVER_SEEDS", "200"))
ECLOSED, EAGAIN = st.RC["ECLOSED"], st.RC["EAGAIN"]


def ends_of(lines: list[Line], side: st.Side) -> list[tuple[Line, str, st.End]]:
    """The ends that lie on this side, each with the line and the half of it that it is."""
    return [
        (line, half, end)
        for line in lines
        for half, end in (("send", line.send), ("recv", line.recv))
        if end.side is side
    ]


class Mover:
    """Moves sessions, or is about to; see ``Also``.

    Attributes:
        often: chance of a move at a turn.
        counts: what was done.
    """

    def __init__(self, often: float) -> None:
        self.often = often
        self.counts: Counter[str] = Counter()
        self.epochs: dict[str, int] = {}

    def __call__(self, pair: st.Pair, lines: list[Line], rng: random.Random) -> None:
        if rng.random() >= self.often:
            return
        which = rng.choice("ab")
        side: st.Side = getattr(pair, which)
        side.hold()
        mine = ends_of(lines, side)
        self.try_to_use(mine, rng)
        state = side.write()
        assert isinstance(state, bytes), state
        fresh = st.Side.read(state, now=side.now, seed=rng.randrange(1 << 60), mix=rng.randbytes(32))
        assert isinstance(fresh, st.Side), fresh
        assert side.write() == state  # what was held has not changed
        if rng.random() < 0.2:
            fresh.free()
            side.unhold()
            self.counts["taken back"] += 1
            return
        self.same(side, fresh)
        self.move(side, fresh, mine)
        setattr(pair, which, fresh)
        self.epochs[which] = fresh.state()["epoch"]
        self.counts["moved"] += 1
        self.counts["bytes"] += len(state)

    @staticmethod
    def try_to_use(mine: list[tuple[Line, str, st.End]], rng: random.Random) -> None:
        """Whoever calls meanwhile has to wait."""
        for line, half, end in mine:
            if rng.random() < 0.8:
                continue
            if half == "recv":
                assert end.take() in (EAGAIN, ECLOSED)
            elif line.offers:
                assert end.offer(b"late") < 0
            else:
                assert end.send(b"late") < 0

    @staticmethod
    def same(old: st.Side, new: st.Side) -> None:
        """Numbers on the paths go on, and what is known of the session."""
        assert old.paths() == new.paths() and old.modes() == new.modes()
        here, there = old.state(), new.state()
        for name in ("tx", "rx", "acked", "epoch", "opened", "offers", "budget", "log", "again", "suspended"):
            assert here[name] == there[name], name
        assert here["outs"] == there["outs"] and here["ins"] == there["ins"]

    @staticmethod
    def same_end(old: st.End, new: st.End) -> None:
        """What is held of a channel, but for what is hidden of the old one."""
        differ = {"segments", "own_bytes", "pinned_bytes", "held_bytes", "early_bytes", "msgs", "over", "pending"}
        for here, there in ((old.out(), new.out()), (old.in_(), new.in_())):
            assert (here is None) == (there is None)
            if here is not None:
                assert {k: v for k, v in here.items() if k not in differ} == {
                    k: v for k, v in there.items() if k not in differ
                }

    @staticmethod
    def move(old: st.Side, new: st.Side, mine: list[tuple[Line, str, st.End]]) -> None:
        """The lines go on with the ends of the new side; the old side is destroyed."""
        found = {name: new.adopt(place) for place, name, _ in new.adopted()}
        for line, half, end in mine:
            fresh = found.get(end.name)
            if fresh is None:  # over in both directions, and nothing left to take
                assert not end.bound and not end.in_()["pending"]
                continue
            assert fresh.id == end.id
            Mover.same_end(end, fresh)
            fresh.wait()
            setattr(line, half, fresh)
            if half == "send" and line.offers:
                line.gone |= set(range(len(line.sent)))  # whoever waited for these is not here
        old.moved()
        assert not any(old.secrets())
        for _, _, end in mine:
            assert end.send(b"late") == ECLOSED
            assert end.take() == ECLOSED or not end.bound
        old.free()
        old.released()

    def check(self, pair: st.Pair) -> None:
        """The first thing that was announced is new keys, and they are in use."""
        for which, epoch in self.epochs.items():
            side: st.Side = getattr(pair, which)
            assert side.state()["epoch"] > epoch
            assert side.nonce_violations in (0, None)


PROGRAMS = {
    "one path, cut": test_core_resume.play,
    "several paths": test_core_paths.play,
    "datagrams": test_core_datagrams.play,
}


@pytest.mark.parametrize("block", range(10))
@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_lost_or_doubled_whoever_holds_the_session(program: str, block: int) -> None:
    counts: Counter[str] = Counter()
    for seed in block_of(SEEDS, block):
        mover = Mover(often=(0.05, 0.3, 1.0)[seed % 3])
        with noting(seed):
            PROGRAMS[program](seed, mover)
        counts += mover.counts
    assert counts["moved"] > 0 and counts["taken back"] > 0, counts


def test_announcement_of_keys_that_was_lost_and_comes_late_does_not_hide_the_next() -> None:
    """Of two that are under way the earlier one is acknowledged last: this seed has it so."""
    test_core_datagrams.play(3035, Mover(often=1.0))
