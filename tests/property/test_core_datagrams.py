"""A session over datagram paths that lose, double, corrupt and reorder, beside stream paths (docs/spec/session.md §5.4,
§5.5). Programs as in test_core_paths in virtual time; the outcome is checked value by value.
"""

from __future__ import annotations

import os
import random

import pytest

from netchan._core import _selftest_session as st
from tests.property.core_lines import (
    LEASE_NS,
    MODES,
    OK,
    Also,
    Line,
    agreed,
    block_of,
    change_modes,
    check,
    finish,
    more,
    nothing,
    noting,
    settle,
    steps,
    take_rest,
    wish,
)
from tests.property.core_net import MS, Fate, Net, Path

SEEDS = int(os.environ.get("NETCHAN_DATAGRAM_SEEDS", "200"))
UP, OVER, SUSPENDED = 0, 2, 3
MOST = 4
SYMBOLS = ((2, 1), (3, 1), (1, 1), (4, 2))  # of parity


def fate(rng: random.Random) -> Fate:
    return Fate(
        delay=rng.choice([50_000, 2 * MS, 10 * MS, 60 * MS]),
        jitter=rng.choice([0, 0, 1 * MS, 20 * MS]),
        loss=rng.choice([0, 0, 0, 0.01, 0.05, 0.3, 0.6]),
        twice=rng.choice([0, 0, 0.05]),
        corrupt=rng.choice([0, 0, 0.03]),
        old=rng.choice([0, 0, 0.05]),
        rate=rng.choice([0, 0, 200_000, 5_000_000]),
        queue=rng.choice([5_000, 30_000]),
        most=rng.choice([1200, 1350, 1452, 1500]),
    )


class World:
    """A session whose paths come and go."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        params = {"lease_ns": LEASE_NS, "max_paths": MOST, "datagrams": True, "parity": True}
        self.busy = rng.random() < 0.5  # new keys all the time
        limits = {"use_ns": 50 * MS if self.busy else 10**18}
        self.pair = st.Pair(mine=params, peer=params, limits=limits, seed=seed)
        self.net = Net(rng, self.pair)
        self.net.add(Path(0, None, (Fate(delay=MS), Fate(delay=MS))))
        self.next_id = 2
        self.ratchets = 0
        self.tickets = 0
        self.ticket_here = 0
        self.healed = False
        self.counts = dict.fromkeys(("added", "lost", "dead", "back", "rejoined"), 0)

    def open_path(self, datagram: bool) -> Path:
        number = self.next_id
        self.next_id += 2
        if datagram:
            fates = fate(self.rng), fate(self.rng)
            long = all(each.most >= 1452 for each in fates)
            if self.healed:
                fates = Fate(delay=fates[0].delay), Fate(delay=fates[1].delay)
            return Path(number, self.rng.choice([1200, 1452 if long else 1200]), fates)
        slow = Fate(delay=self.rng.choice([MS, 30 * MS]), rate=self.rng.choice([0, 500_000]))
        return Path(number, None, (slow, slow))

    def add(self, datagram: bool) -> None:
        a, b = self.net.sides
        if a.state()["state"] != UP or len(a.paths()[0]) >= MOST:
            return
        path = self.open_path(datagram)
        binding = self.rng.randbytes(32)
        if b.add(path.number, binding, path.mtu, True) != OK:
            return
        assert a.add(path.number, binding, path.mtu, True) == OK
        self.net.add(path)
        self.counts["added"] += 1

    def lose(self) -> None:
        if not self.net.paths:
            return
        path = self.rng.choice(list(self.net.paths.values()))
        self.net.sides[self.rng.randrange(2)].path_lost(path.number)
        self.net.reconcile()
        self.counts["lost"] += 1

    def toggle(self, dead: bool) -> None:
        """One path falls silent, or is heard again."""
        able = [path for path in self.net.paths.values() if path.links[0].fate.dead != dead]
        if not able:
            return
        path = self.rng.choice(able)
        for link in path.links:
            link.fate.dead = dead
        self.counts["dead" if dead else "back"] += 1
        if not dead and path.mtu is None:
            self.net.revive(path)

    def mend(self) -> None:
        """Whatever has happened, both sides have a path."""
        net, (a, b) = self.net, self.net.sides
        net.reconcile()
        if not any(side.state()["state"] == SUSPENDED for side in net.sides):
            return
        for side in net.sides:  # JOIN instead of all others: what one side still takes for alive is over
            for number in side.paths()[0]:
                side.path_lost(number)
        path = self.open_path(self.rng.random() < 0.7)
        last, got = a.state()["path"], a.state()["rx"]
        there = b.join(path.number, last)
        assert there >= 0, there
        binding = self.rng.randbytes(32)
        assert b.resume(path.number, last, got, binding, path.mtu, True) == OK
        assert a.resume(path.number, last, there, binding, path.mtu, True) == OK
        net.paths = {path.number: path}
        self.counts["rejoined"] += 1

    def ratchet(self) -> None:
        if any(side.state()["have"] or side.state()["rekey"] for side in self.net.sides):
            return
        self.ratchets += 1
        secret = self.rng.randbytes(32)
        for side in reversed(self.net.sides):
            side.ratchet(self.ratchets, secret)

    def ticket(self) -> None:
        self.tickets += 1
        assert self.net.sides[1].ticket_send(self.tickets, self.tickets.to_bytes(2, "big") * 200) == 0

    def take_ticket(self) -> None:
        got = self.net.sides[0].ticket_take()
        if got is not None:
            number, data = got
            assert data == number.to_bytes(2, "big") * 200
            assert self.ticket_here < number <= self.tickets  # in order, and each once
            self.ticket_here = number

    def run(self, ns: int) -> None:
        until = self.net.now + ns
        while True:
            self.mend()
            self.net.run(until)
            if not any(side.state()["state"] == SUSPENDED for side in self.net.sides):
                return

    def heal(self) -> None:
        """From here on nothing is lost, on the paths that are there and on those to come."""
        self.healed = True
        for path in self.net.paths.values():
            for link in path.links:
                link.fate = Fate(delay=link.fate.delay)
            if path.mtu is None:
                self.net.revive(path)


def pour(lines: list[Line], rng: random.Random) -> None:
    """One value that is much longer than a datagram, and often the end right behind it."""
    able = [line for line in lines if not (line.offers or line.closed or line.aborted)]
    if not able:
        return
    line = rng.choice(able)
    body = len(line.sent).to_bytes(4, "big") + rng.randbytes(4) * rng.choice([15_000, 40_000])
    if line.send.send(body, pin=rng.random() < 0.5) == OK:
        line.sent.append(body)
    if rng.random() < 0.5:
        line.send.close()
        line.closed = True


def tell(side: st.Side) -> dict[str, object]:
    state = {name: side.state()[name] for name in ("state", "again", "rekey", "have", "ratchets", "epoch")}
    return state | {"order": side.order()} | {n: side.flying(n) for n in side.paths()[0]}


def quiet(net: Net, busy: bool) -> bool:
    """Both sides agree about the order and have nothing to say again; on its way is nothing, but where keys change all
    the time (busy).
    """
    a, b = net.sides
    for side, twin in ((a, b), (b, a)):
        state = side.state()
        said, floor, _, _ = side.order()
        acted, kept = twin.order()[2:]
        if state["state"] != UP or state["again"] or state["have"] or (floor, acted, kept) != (said, said, 0):
            return False
        if not busy and any(
            flying["in_flight"] or flying["eliciting"] for n in side.paths()[0] if (flying := side.flying(n))
        ):
            return False
    return True


def play(seed: int, also: Also = nothing) -> dict[str, int]:
    world = World(seed)
    rng, net = world.rng, world.net
    wishes = random.Random(~seed)
    lines: list[Line] = []
    for i in range(rng.randrange(1, 4)):
        more(world.pair, lines, f"c{i}", rng)
    for _ in range(rng.randrange(1, 3)):
        world.add(True)
    if rng.random() < 0.7:  # nothing but datagrams
        net.sides[0].path_lost(0)
        world.mend()
    for side in net.sides:
        side.mode(rng.choice(MODES), *rng.choice(SYMBOLS))
    own = rng.random() < 0.7  # channels have modes of their own
    for turn in range(rng.randrange(5, 16)):
        if rng.random() < 0.1:
            more(world.pair, lines, f"d{turn}", rng)
        steps(world.pair, lines, rng)
        if rng.random() < 0.1:
            pour(lines, rng)
        also(world.pair, lines, rng)
        if own and rng.random() < 0.3:
            change_modes(lines, rng)
        if rng.random() < 0.1:
            world.ratchet()
        if rng.random() < 0.15:
            world.ticket()
        if rng.random() < 0.5:
            world.take_ticket()
        wish(net.sides, wishes)
        for side in net.sides:
            side.ready()
        what = rng.random()
        if what < 0.15:
            world.add(rng.random() < 0.7)
        elif what < 0.2:
            world.lose()
        elif what < 0.3:
            world.toggle(True)
        elif what < 0.4:
            rng.choice(net.sides).mode(rng.choice(MODES), *rng.choice(SYMBOLS))
        elif what < 0.44:
            for path in list(net.paths.values()):
                net.sides[0].path_lost(path.number)
            net.reconcile()
        if rng.random() < 0.2:
            world.toggle(False)
        silence = 13_000 * MS if rng.random() < 0.03 else 0  # whatever is dead now is seen to be
        world.run(silence or rng.choice([0, 100_000, 5 * MS, 40 * MS, 300 * MS]))
        for side in net.sides:
            assert side.state()["state"] == UP, side.state()
            named, held = side.groups()
            assert named == held, "a group names an end that is forgotten"
        for line in lines:
            settle(line)
            if not line.aborted:
                check(line)
    world.heal()
    world.run(12_000 * MS)  # what was far away from its next probe, and paths that only one side still has
    finish(lines, lambda ns: world.run(10 * ns))
    for _ in range(400):  # a heartbeat may be on its way
        if quiet(net, world.busy):
            break
        world.run(7 * MS)
    assert quiet(net, world.busy), [tell(side) for side in net.sides]
    agreed(*net.sides)
    world.take_ticket()
    assert world.ticket_here == world.tickets
    if world.busy:  # each side has got on with its keys
        assert min(side.state()["updates"] for side in net.sides) > 10
    counts = world.counts | net.counts
    counts["ratchets"] = sum(side.state()["ratchets"] for side in net.sides)
    for what in ("resent", "parity_sent", "rebuilt"):
        counts[what] = sum(side.state()[what] for side in net.sides)
    counts["tickets"] = world.tickets
    for line in lines:
        line.send.release()
    world.pair.a.released(), world.pair.b.released()
    world.pair.free()
    return counts


@pytest.mark.parametrize("block", range(10))
def test_nothing_is_lost_or_doubled_over_datagrams(block: int) -> None:
    counts: dict[str, int] = {}
    for seed in block_of(SEEDS, block):
        with noting(seed):
            found = play(seed)
        counts = {name: counts.get(name, 0) + n for name, n in found.items()}
    assert all(n for what, n in counts.items() if what != "rebuilt"), counts  # of few losses none may need it


def leave(seed: int) -> str:
    """One side closes while values are on their way, over links that lose; what the other side knows of it then."""
    world = World(seed)
    rng, net = world.rng, world.net
    lines: list[Line] = []
    for i in range(rng.randrange(1, 3)):
        more(world.pair, lines, f"c{i}", rng)
    for _ in range(rng.randrange(1, 3)):
        world.add(True)
    net.sides[0].path_lost(0)
    world.mend()
    for side in net.sides:
        side.mode(rng.choice(MODES), *rng.choice(SYMBOLS))
    for _ in range(rng.randrange(1, 5)):
        steps(world.pair, lines, rng)
        world.run(rng.choice([0, 5 * MS, 40 * MS]))
    here, there = rng.sample(net.sides, 2)
    if rng.random() < 0.2:
        for path in net.paths.values():
            path.links[net.sides.index(here)].fate.dead = True
    here.close(0)
    for _ in range(40):  # as the engine does: the side that leaves is done when it has said so
        net.run(net.now + 1000 * MS)
        if there.state()["state"] != UP:
            break
    assert here.state()["state"] == OVER and not here.state()["abrupt"]
    state = there.state()
    take_rest(lines)
    for line in lines:
        check(line)
    for line in lines:
        line.send.release()
    world.pair.free()
    if state["state"] == OVER:
        assert state["code"] == 0 and not state["abrupt"]
        return "told"
    assert state["state"] in (UP, SUSPENDED)
    return "left alone"


def test_close_over_datagrams_that_are_lost() -> None:
    """Three datagrams say it; where all are lost the other side finds out that the path is dead, and nobody is busy."""
    found: dict[str, int] = {}
    for seed in range(SEEDS):
        with noting(seed):
            what = leave(seed)
        found[what] = found.get(what, 0) + 1
    assert found["told"] > SEEDS * 2 // 3 and found.get("left alone", 0) > 0, found
