"""Modes that are picked (session.md §5.3, Auto), in virtual time."""

from __future__ import annotations

import random

import pytest

from tests.property.core_net import MS
from tests.unit.core.stalls import OK, RTT, session

FAILOVER, STRIPE, MIRROR, PARITY, AUTO = range(5)
ONE_PATH, SOUND, BULK, LOSS, TROUBLE = range(1, 6)


class Traffic:
    """A session over two paths or more, and a channel whose mode is picked."""

    def __init__(self, datagrams: bool = True, paths: int = 2) -> None:
        self.net, self.x, self.y = session(datagrams, (RTT,) * paths, 1)
        self.net.run(self.net.now + 31_000 * MS)  # the first path, which was lost, is forgotten
        assert self.x.mode(AUTO) == OK
        self.changes: list[int] = []

    @property
    def picked(self) -> tuple[int, int]:
        _, mode, why = self.x.picked()
        return mode, why

    def lose(self, share: float) -> None:
        for path in self.net.paths.values():
            for link in path.links:
                link.fate.loss = share

    def run(self, ms: int, size: int = 10, every: int = 4) -> None:
        """Values of ``size`` bytes, one each so many ms, for so long."""
        for _ in range(ms // every):
            self.x.send(bytes(size))
            self.net.run(self.net.now + every * MS)
            self.y.take_all()
            mode = self.picked[0]
            if mode != (self.changes[-1] if self.changes else FAILOVER):
                self.changes.append(mode)


def test_sound_paths_and_small_values_need_nothing() -> None:
    t = Traffic()
    t.run(5000)
    assert t.picked == (FAILOVER, SOUND) and t.changes == []


def test_loss_makes_small_values_go_twice_until_it_has_long_been_over() -> None:
    t = Traffic()
    t.lose(0.02)
    t.run(6000)
    assert t.picked == (MIRROR, LOSS)
    t.lose(0)
    t.run(500)
    assert t.picked == (MIRROR, LOSS)
    t.run(60_000, every=20)
    assert t.picked == (FAILOVER, SOUND) and t.changes == [MIRROR, FAILOVER]


def test_three_paths_that_lose_have_parity_where_copies_would_cost_much() -> None:
    t = Traffic(paths=3)
    t.lose(0.004)
    t.run(8000, size=1200)
    assert t.picked == (PARITY, LOSS)


def test_bulk_is_striped() -> None:
    t = Traffic(datagrams=False)
    t.run(4000, size=30_000, every=2)
    assert t.picked == (STRIPE, BULK) and t.changes == [STRIPE]


def test_path_that_fell_silent_is_remembered() -> None:
    t = Traffic(datagrams=False)
    t.run(1000)
    for link in t.net.paths[2].links:
        link.fate.dead = True
    t.net.sides[0].path_ping(2)
    t.run(4000)
    assert t.picked == (FAILOVER, ONE_PATH)
    for link in t.net.paths[2].links:
        link.fate.dead = False
    t.net.revive(t.net.paths[2])
    t.run(4000)
    assert t.picked == (MIRROR, TROUBLE)
    t.run(40_000, every=20)
    assert t.picked == (FAILOVER, SOUND)


def test_traffic_to_and_fro_around_a_limit_changes_nothing_and_never_often() -> None:
    t = Traffic(datagrams=False)
    for turn in range(30):  # 400 ms of bulk, then none: the looks, 250 ms apart, see some of it
        t.run(400, size=40_000 if turn % 2 else 10)
    assert t.changes == []
    t = Traffic(datagrams=False)
    rng = random.Random(5)
    for _ in range(60):
        t.run(500, size=rng.choice([10, 40_000]))
    assert len(t.changes) <= 8  # in 30 s; 13 where each look counts


def test_idle_channel_is_not_looked_at() -> None:
    t = Traffic()
    t.run(2000)
    t.net.run(t.net.now + 2000 * MS)
    assert not t.net.sides[0].looks()
    t.x.send(b"v")
    t.net.run(t.net.now + MS)
    assert t.net.sides[0].looks()


@pytest.mark.parametrize("mode", [FAILOVER, STRIPE, MIRROR, PARITY])
def test_what_is_said_ends_the_picking(mode: int) -> None:
    t = Traffic()
    t.x.mode(mode)
    t.lose(0.02)
    t.run(5000)
    assert t.x.picked() == (False, mode, 0)


def test_session_picks_from_all_that_it_sends() -> None:
    t = Traffic()
    t.x.mode(-1)
    a = t.net.sides[0]
    a.mode(AUTO)
    t.lose(0.02)
    t.run(6000)
    assert a.modes() == (MIRROR, {})


def test_same_looks_give_the_same_modes() -> None:
    def once() -> list[int]:
        t = Traffic()
        t.lose(0.005)
        t.run(10_000)
        return t.changes

    assert once() == once()
