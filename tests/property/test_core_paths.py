"""A session with several paths that come, fall silent, recover and go (docs/spec/session.md §5, §5.3).

Programs as in test_core_resume run in virtual time over up to four paths. Each path keeps its order, nothing else does:
records overtake each other, come twice, and come late on a path that had been given up. The outcome is checked value by
value.
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
    wish,
)

SEEDS = int(os.environ.get("NETCHAN_PATHS_SEEDS", "200"))
UP, SUSPENDED = 0, 3
MOST = 4
SYMBOLS = ((2, 1), (3, 1), (1, 1), (4, 2))  # of parity


class Wire:
    """One path: what is on its way each ``way``, 0 from a to b."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.number = number
        self.room = rng.choice([500, 5000, 1 << 20])  # of what a side can leave there
        self.pipes = (bytearray(), bytearray())
        self.silent = False


class Net:
    """Two sides and the paths between them; ``pair`` is there for its sides."""

    def __init__(self, rng: random.Random, seed: int) -> None:
        params = {"lease_ns": LEASE_NS, "max_paths": MOST, "parity": True}
        limits = {"use_ns": rng.choice([10_000_000, 10**18])}  # the first: new keys all the time
        self.pair = st.Pair(mine=params, peer=params, limits=limits, seed=seed)
        self.rng = rng
        self.wires = {0: Wire(0, rng)}
        self.next_id = 2
        self.ratchets = 0
        self.counts = dict.fromkeys(("lost", "added", "all lost", "silent", "late", "beside"), 0)

    @property
    def sides(self) -> tuple[st.Side, st.Side]:
        return self.pair.a, self.pair.b

    def has(self, way: int, number: int) -> bool:
        return number in self.sides[way].paths()[0]

    def collect(self, cap: int = 0) -> int:
        """What both sides have to say, control first."""
        total = 0
        cap = cap or self.rng.choice([17_000, 65_536])
        for way, side in enumerate(self.sides):
            numbers, control = side.paths()
            if numbers and self.rng.random() < 0.1 and side.pass_control(self.rng.choice(numbers)):
                numbers, control = side.paths()  # what carried takes nothing now
            for number in sorted(numbers, key=lambda n: n != control):
                pipe = self.wires[number].pipes[way]
                while self.has(way, number) and len(pipe) < self.wires[number].room:
                    got = side.send(cap, number)
                    if isinstance(got, int) or not got:
                        break
                    pipe.extend(got)
                    total += len(got)
                    if number != control and len(got) > 1000:
                        self.counts["beside"] += 1
            if not numbers:
                side.send(cap)  # acts on what was asked
            side.said()
        return total

    def deliver(self, wire: Wire, way: int, n: int) -> None:
        data = bytes(wire.pipes[way][:n])
        del wire.pipes[way][:n]
        if data and self.has(1 - way, wire.number):
            self.sides[1 - way].recv(data, wire.number)

    def reconcile(self) -> None:
        """Where one side has ended a path the other one finds out, after some of what was on its way."""
        for wire in list(self.wires.values()):
            here = [self.has(way, wire.number) for way in (0, 1)]
            if all(here):
                continue
            for way in (0, 1):
                if here[way]:
                    self.deliver(wire, 1 - way, self.rng.randrange(len(wire.pipes[1 - way]) + 1))
                    if self.has(way, wire.number):
                        self.sides[way].path_lost(wire.number)
            del self.wires[wire.number]

    def run(self, rounds: int = 300) -> None:
        """Until nothing moves; silent wires keep what is on them."""
        for _ in range(rounds):
            said = self.collect()
            busy = [w for w in self.wires.values() if not w.silent and (w.pipes[0] or w.pipes[1])]
            if not said and not busy:
                return
            self.rng.shuffle(busy)
            for wire in busy:
                for way in (0, 1):
                    self.deliver(wire, way, self.rng.choice([1, 17, 400, 5000, 1 << 20, 1 << 20]))
            self.reconcile()
        raise AssertionError("still talking")

    def some(self) -> None:
        """A few bytes move."""
        self.collect(self.rng.choice([700, 65536]))
        for wire in self.rng.sample(list(self.wires.values()), self.rng.randrange(len(self.wires) + 1)):
            if not wire.silent:
                self.deliver(wire, 0, self.rng.randrange(3000))
                self.deliver(wire, 1, self.rng.randrange(3000))
        self.reconcile()

    def add(self) -> None:
        """JOIN beside the others, by the initiator."""
        number = self.next_id
        self.next_id += 2
        binding = self.rng.randbytes(32)
        if self.sides[0].state()["state"] != UP or len(self.sides[0].paths()[0]) >= MOST:
            return
        self.sides[0].several_paths()  # the other side may use it before its answer is here
        if self.sides[1].add(number, binding) != OK:
            return
        self.wires[number] = Wire(number, self.rng)
        self.counts["added"] += 1
        if self.rng.random() < 0.2:  # the answer does not arrive
            if self.rng.random() < 0.5:
                self.collect_unanswered(number)
            self.reconcile()
            return
        assert self.sides[0].add(number, binding) == OK

    def collect_unanswered(self, number: int) -> None:
        self.sides[1].send(self.rng.choice([700, 65536]), number)

    def lose(self) -> None:
        """One side ends a path, and the other one hears of it."""
        wire = self.rng.choice(list(self.wires.values()))
        way = self.rng.randrange(2)
        if self.rng.random() < 0.5:
            self.collect(self.rng.choice([700, 65536]))
        if self.has(way, wire.number):
            self.sides[way].path_lost(wire.number)
            self.counts["lost"] += 1
        self.reconcile()

    def rejoin(self) -> None:
        """The initiator has lost all paths: JOIN instead of them."""
        a, b = self.sides
        numbers = a.paths()[0]
        self.rng.shuffle(numbers)
        for number in numbers:
            a.path_lost(number)
        for wire in self.wires.values():
            if self.rng.random() < 0.5:
                self.deliver(wire, 0, self.rng.randrange(len(wire.pipes[0]) + 1))
        while True:
            number = self.next_id
            self.next_id += 2
            last, got = a.state()["path"], a.state()["rx"]
            there = b.join(number, last)
            assert there >= 0, there
            for other in b.paths()[0]:
                if other != last:
                    b.path_lost(other)
            if self.has(1, last):
                b.path_lost(last)
            self.wires = {number: Wire(number, self.rng)}
            binding = self.rng.randbytes(32)
            assert b.resume(number, last, got, binding) == OK
            if self.rng.random() < 0.3:  # the answer does not arrive
                if self.rng.random() < 0.5:
                    b.send(self.rng.choice([700, 65536]))
                continue
            assert a.resume(number, last, there, binding) == OK
            self.counts["all lost"] += 1
            return

    def ratchet(self) -> None:
        """Both sides have agreed on a secret for their next keys."""
        if any(side.state()["have"] or side.state()["rekey"] for side in self.sides):
            return
        self.ratchets += 1
        secret = self.rng.randbytes(32)
        for side in reversed(self.sides):
            side.ratchet(self.ratchets, secret)

    def mend(self) -> None:
        """Whatever has happened, the initiator has a path again."""
        self.reconcile()
        if any(side.state()["state"] == SUSPENDED for side in self.sides):
            self.rejoin()

    def come_to_rest(self) -> None:
        """A path that was silent for long may turn out to be of no use: keys have changed twice meanwhile."""
        self.mend()
        self.run()
        while any(side.state()["state"] == SUSPENDED for side in self.sides):
            self.mend()
            self.run()

    def sleep(self, ns: int) -> None:
        """The clocks move on, deadline by deadline, and all that is due is exchanged."""
        a, b = self.sides
        until = a.now + ns
        self.come_to_rest()
        for _ in range(1000):
            at = min(a.deadline(), b.deadline())
            if at > until:
                break
            a.now = b.now = max(a.now, at)
            a.on_deadline()
            b.on_deadline()
            self.come_to_rest()
        else:
            raise AssertionError("deadlines do not move on")
        a.now = b.now = until


def play(seed: int, also: Also = nothing) -> dict[str, int]:
    rng, wishes = random.Random(seed), random.Random(~seed)
    net = Net(rng, seed)
    lines: list[Line] = []
    for i in range(rng.randrange(1, 5)):
        more(net.pair, lines, f"c{i}", rng)
    net.run()
    for _ in range(rng.randrange(3)):
        net.add()
    for side in net.sides:
        side.mode(rng.choice(MODES), *rng.choice(SYMBOLS))
    own = rng.random() < 0.7  # channels have modes of their own
    for turn in range(rng.randrange(10, 40)):
        if rng.random() < 0.1:
            more(net.pair, lines, f"d{turn}", rng)
        steps(net.pair, lines, rng)
        also(net.pair, lines, rng)
        if own and rng.random() < 0.2:
            change_modes(lines, rng)
        if rng.random() < 0.1:
            net.ratchet()
        wish(net.sides, wishes)
        for side in net.sides:
            side.ready()
        what = rng.random()
        if what < 0.25:
            net.run()
        elif what < 0.45:
            for _ in range(rng.randrange(1, 4)):
                net.some()
        elif what < 0.57:
            net.add()
        elif what < 0.62:
            net.lose()
        elif what < 0.72:
            wire = rng.choice(list(net.wires.values()))
            wire.silent = not wire.silent
            net.counts["silent" if wire.silent else "late"] += 1
        elif what < 0.74:
            net.rejoin()
        elif what < 0.82:
            rng.choice(net.sides).mode(rng.choice(MODES), *rng.choice(SYMBOLS))
        else:
            step = rng.choice([0, 10_000, 30_000_000, 80_000_000, 300_000_000, 3_000_000_000])
            for side in net.sides:
                side.now += step
                side.on_deadline()
        net.mend()
        for side in net.sides:
            assert side.state()["state"] == UP, side.state()
            named, held = side.groups()
            assert named == held, "a group names an end that is forgotten"
        for line in lines:
            settle(line)
            if not line.aborted:
                check(line)
    # healed: everything arrives
    for wire in net.wires.values():
        wire.silent = False
        wire.room = 1 << 20
    finish(lines, net.sleep)
    for side in net.sides:
        state = side.state()
        assert state["state"] == UP and state["again"] == 0 and state["log"] < 4000, state
        assert set(side.paths()[0]) == set(net.wires)
    agreed(*net.sides)
    net.counts["ratchets"] = sum(side.state()["ratchets"] for side in net.sides)
    for what in ("resent", "parity_sent", "rebuilt"):
        net.counts[what] = sum(side.state()[what] for side in net.sides)
    for line in lines:
        line.send.release()
    net.pair.a.released(), net.pair.b.released()
    net.pair.free()
    return net.counts


@pytest.mark.parametrize("block", range(10))
def test_nothing_is_lost_or_doubled_whatever_the_paths_do(block: int) -> None:
    counts: dict[str, int] = {}
    for seed in block_of(SEEDS, block):
        with noting(seed):
            found = play(seed)
        counts = {name: counts.get(name, 0) + n for name, n in found.items()}
    assert all(n for what, n in counts.items() if what != "rebuilt"), counts  # of few losses none may need it
