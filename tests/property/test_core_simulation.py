"""Short programs over the core's network with all of its faults at once: bursts, cuts of one direction, corrupt,
doubled, replayed and reordered datagrams, lengths that do not go through, wrong clocks, mixed carriers, all modes
(docs/spec/session.md §5). A run costs a few milliseconds, so that hundreds of thousands can be had.

``NETCHAN_CORE_SIMULATION_SEEDS`` asks for more; a seed that fails is the same run again, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import random

import pytest

from tests.property.core_lines import Line, block_of, check, check_whole, more, noting, settle, steps, take_rest
from tests.property.core_net import MS, Fate, Net, Path
from tests.property.test_core_datagrams import MODES, UP, World, fate

SEEDS = int(os.environ.get("NETCHAN_CORE_SIMULATION_SEEDS", "200"))


class Wire(Net):
    """A network that notes what goes over it."""

    digest = hashlib.sha256()

    def give(self, path: Path, way: int, data: bytes) -> None:
        self.digest.update(b"%d %d %d " % (self.now, path.number, way) + data)
        super().give(path, way, data)


class Short(World):
    """A world in which everything may go wrong, for a while."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.net.__class__ = Wire
        self.net.digest = hashlib.sha256()  # type: ignore[attr-defined]
        self.counts |= dict.fromkeys(("one_way", "skewed", "streams", "datagrams"), 0)

    def open_path(self, datagram: bool) -> Path:
        path = super().open_path(datagram)
        self.counts["datagrams" if datagram else "streams"] += 1
        if datagram and not self.healed:
            for link in path.links:
                if self.rng.random() < 0.3:
                    link.fate = fate(self.rng)
                    link.fate.most = max(link.fate.most, 1200 if path.mtu == 1200 else 1452)
                link.fate.burst = self.rng.choice([0, 0, 0.05])
        return path

    def one_way(self) -> None:
        """Nothing comes through in one direction of a path, and nobody is told."""
        path = self.rng.choice(list(self.net.paths.values()))
        path.links[self.rng.randrange(2)].fate.dead = True
        self.counts["one_way"] += 1

    def skew(self) -> None:
        """The clock of one side is too fast or too slow from now on."""
        self.net.skew(self.rng.randrange(2), self.rng.choice([0.8, 0.97, 1.05, 1.25]))
        self.counts["skewed"] += 1


def begin(seed: int) -> tuple[Short, list[Line]]:
    world = Short(seed)
    rng = world.rng
    world.net.paths[0].links[0].fate = Fate(delay=MS)  # each direction has its own
    world.net.paths[0].links[1].fate = Fate(delay=MS)
    lines: list[Line] = []
    for i in range(rng.randrange(1, 3)):
        more(world.pair, lines, f"c{i}", rng)
    for _ in range(rng.randrange(3)):
        world.add(rng.random() < 0.7)
    if len(world.net.paths) > 1 and rng.random() < 0.4:
        world.net.sides[0].path_lost(0)
        world.mend()
    for side in world.net.sides:
        side.mode(rng.choice(MODES))
    return world, lines


def trouble(world: Short, lines: list[Line]) -> None:
    """One turn of the program, and perhaps a fault."""
    rng, net = world.rng, world.net
    steps(world.pair, lines, rng)
    for side in net.sides:
        side.ready()
    what = rng.random()
    if what < 0.15:
        world.add(rng.random() < 0.7)
    elif what < 0.22:
        world.lose()
    elif what < 0.32:
        world.toggle(True)
    elif what < 0.42 and net.paths:
        world.one_way()
    elif what < 0.5:
        world.skew()
    elif what < 0.6:
        rng.choice(net.sides).mode(rng.choice(MODES))
    elif what < 0.7:
        world.ratchet()
    world.run(rng.choice([0, 100_000, 5 * MS, 40 * MS, 300 * MS]))
    for side in net.sides:
        assert side.state()["state"] == UP, side.state()
    for line in lines:
        settle(line)
        if not line.aborted:
            check(line)


def end(world: Short, lines: list[Line]) -> None:
    """All links are sound again: soon all has come, and what either side has to know it knows."""
    world.heal()
    for line in lines:
        line.recv.park(3)
    for _ in range(40):
        world.run(500 * MS)
        take_rest(lines)
        if all(len(line.got) >= len(line.sent) or line.offers or line.lossy or line.aborted for line in lines):
            break
    for line in lines:
        line.send.ask(taken=len(line.sent))
    for _ in range(40):
        world.run(500 * MS)
        take_rest(lines)
        try:
            check_whole(lines)
            return
        except (AssertionError, IndexError):  # a lossy line that has nothing yet
            continue
    check_whole(lines)


def play(seed: int) -> tuple[dict[str, int], str]:
    """One run; what happened in it, and the hash of all that went over its links."""
    world, lines = begin(seed)
    for _ in range(world.rng.randrange(2, 7)):
        trouble(world, lines)
    end(world, lines)
    for line in lines:
        line.send.release()
    counts = world.counts | world.net.counts
    counts["rebuilt"] = sum(side.state()["rebuilt"] for side in world.net.sides)
    world.pair.a.released(), world.pair.b.released()
    world.pair.free()
    return counts, world.net.digest.hexdigest()  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", range(10))
def test_all_faults_at_once_lose_nothing_and_double_nothing(block: int) -> None:
    counts: dict[str, int] = {}
    for seed in block_of(SEEDS, block):
        with noting(seed):
            found, _ = play(seed)
        counts = {name: counts.get(name, 0) + n for name, n in found.items()}
    if SEEDS >= 200:
        for what in ("one_way", "skewed", "streams", "datagrams", "dropped"):
            assert counts[what], counts


def test_same_seed_is_the_same_run() -> None:
    for seed in range(5):
        assert play(seed) == play(seed)


def test_checks_go_red_when_a_value_is_doubled() -> None:
    world, lines = begin(3)
    random.seed(1)
    while not any(line.sent and not line.offers for line in lines):
        steps(world.pair, lines, world.rng)
    world.run(300 * MS)
    take_rest(lines)
    line = next(line for line in lines if line.got and not line.offers)
    line.got.append(line.got[-1])
    with pytest.raises(AssertionError):
        check_whole(lines)
    world.pair.free()
