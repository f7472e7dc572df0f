"""A session whose paths are cut at any byte (docs/spec/session.md §5.2): nothing is lost, doubled or out of order.

A program of sends, takes, closes, aborts, offers and withdrawals runs on both sides in virtual time. The bytes on their
way are cut anywhere, the answer to a JOIN may be lost any number of times, and the outcome is checked value by value.
"""

from __future__ import annotations

import os
import random

import pytest

from netchan._core import _selftest_session as st

OK, EAGAIN, ECLOSED = (st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED"))
LEASE_NS = 300_000_000_000
SEEDS = int(os.environ.get("NETCHAN_RESUME_SEEDS", "200"))
UP = 0
DROP_OLD, LATEST = 3, 4


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


class Line:
    """One direction of a channel and what is known of it."""

    def __init__(self, send: st.End, recv: st.End, capacity: int) -> None:
        self.send, self.recv, self.offers = send, recv, capacity == 0
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.back: set[int] = set()
        self.gone: set[int] = set()
        self.closed = self.aborted = self.lossy = False


def steps(pair: st.Pair, lines: list[Line], rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 12)):
        line = rng.choice(lines)
        what = rng.random()
        if what < 0.55:
            size = rng.choice([0, 1, 5, 60, 500, 600, 3000, 20000])
            body = len(line.sent).to_bytes(4, "big") + rng.randbytes(4) * (size // 4)
            if line.offers:
                rc = line.send.offer(body)
                if rc >= 0:
                    line.sent.append(body)
            elif line.send.send(body, deliver=rng.random() < 0.1, pin=rng.random() < 0.3) == OK:
                line.sent.append(body)
        elif what < 0.85:
            for _ in range(rng.choice([1, 1, 4, 40])):
                got = line.recv.take()
                if isinstance(got, int):
                    break
                line.got.append(got)
        elif what < 0.92:
            if line.offers and line.sent:
                n = rng.randrange(len(line.sent))
                if n not in line.gone and line.send.offer_state(n) == 0:
                    line.send.withdraw(n)
                    line.back.add(n)
            else:
                line.send.ask(taken=len(line.sent))
        elif what < 0.94 and not line.closed:
            line.send.close()
            line.closed = True
        elif what < 0.945 and not line.closed:
            line.send.abort(7)
            line.closed = line.aborted = True
        else:
            line.recv.park(rng.randrange(3))


def settle(line: Line) -> None:
    if line.offers:
        for n in range(len(line.sent)):
            if n not in line.gone and line.send.offer_state(n):
                line.gone.add(n)
                line.send.let_go(n)


def check(line: Line) -> None:
    """What was received is what was sent, but for what came back; in order and once."""
    if line.offers:
        taken = [int.from_bytes(v[:4], "big") for v in line.got]
        assert taken == sorted(set(taken))
        assert all(line.got[i] == line.sent[n] for i, n in enumerate(taken))
    elif line.lossy:
        taken = [int.from_bytes(v[:4], "big") for v in line.got]
        assert taken == sorted(set(taken)) and all(line.got[i] == line.sent[n] for i, n in enumerate(taken))
    else:
        assert line.got == line.sent[: len(line.got)]


def play(seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    params = {"lease_ns": LEASE_NS}
    limits = {"use_ns": rng.choice([10_000_000, 10**18])}  # the first: new keys all the time
    pair = st.Pair(mine=params, peer=params, limits=limits, seed=seed)
    path = 2
    lines: list[Line] = []

    def more(name: str) -> None:
        capacity = rng.choice([0, 1, 4, 64, None])
        trunk = rng.random() < 0.4
        overflow = rng.choice([0, 0, 0, DROP_OLD, LATEST])
        x, y = (side.open(name, capacity=capacity, trunk=trunk, overflow=overflow) for side in (pair.a, pair.b))
        if overflow and capacity == 0:
            capacity = 1
        for end in (x, y):
            end.wait()
        pairs = [Line(x, y, 1 if capacity is None else capacity), Line(y, x, 1 if capacity is None else capacity)]
        for line in pairs:
            line.lossy = overflow != 0
        lines.extend(pairs)

    for i in range(rng.randrange(1, 5)):
        more(f"c{i}")
    cuts = 0
    for turn in range(rng.randrange(10, 40)):
        if rng.random() < 0.1:
            more(f"d{turn}")
        steps(pair, lines, rng)
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
    for line in lines:
        line.recv.park(3)
    for _ in range(300):
        pair.sleep(40_000_000)
        moved = 0
        for line in lines:
            while not isinstance(got := line.recv.take(), int):
                line.got.append(got)
                moved += 1
            settle(line)
        if not moved:
            break
    for line in lines:
        line.send.ask(taken=len(line.sent))
    pair.sleep(100_000_000)
    for line in lines:
        check(line)
        twin = next(other for other in lines if other.send is line.recv)
        if line.aborted or twin.aborted:
            continue
        if line.offers:
            settle(line)
            assert line.gone == set(range(len(line.sent)))
            took = {int.from_bytes(v[:4], "big") for v in line.got}
            assert took | line.back == set(range(len(line.sent)))
        elif line.lossy:
            if line.sent:  # the newest is never dropped, and all are accounted for
                assert line.got[-1] == line.sent[-1]
                lost = line.send.out()["dropped"] + line.recv.in_()["dropped"]
                assert len(line.got) + lost == len(line.sent)
        else:
            assert line.got == line.sent
            assert line.send.out()["taken"] == len(line.sent)
            if line.closed:
                assert line.recv.take() == ECLOSED
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
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        try:
            a, b = play(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        cuts, resent = cuts + a, resent + b
    assert cuts > 0 and resent > 0
