"""What two sides of a session do in the property tests of its paths, and what must have come of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from netchan._core import _selftest_session as st

OK, ECLOSED = st.RC["OK"], st.RC["ECLOSED"]
LEASE_NS = 300_000_000_000
DROP_OLD, LATEST = 3, 4
BLOCKS = 10
MODES = (0, 1, 2, 3, 4)  # failover, stripe, mirror, parity, as is measured
OWN_MODES = (-1, *MODES)  # of a channel; -1: those of the session
SUSPECT = 3


def block_of(seeds: int, block: int) -> range:
    """The seeds of one of ``BLOCKS`` tests."""
    return range(block * seeds // BLOCKS, (block + 1) * seeds // BLOCKS)


@contextmanager
def noting(seed: int) -> Iterator[None]:
    """Whatever goes wrong, the seed that shows it again stands beside it."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def wish(sides: Sequence[st.Side], rng: random.Random) -> None:
    """Somebody wants a path to stand by, or no more, or knows that its way is gone; and what holds all the time."""
    for side in sides:
        numbers, _ = side.paths()
        if numbers and rng.random() < 0.1:
            side.standby(rng.choice(numbers), rng.random() < 0.6)
        if numbers and rng.random() < 0.05:
            side.doubt(rng.choice(numbers))
        numbers, control = side.paths()
        states = {number: side.state_of(number) for number in numbers}
        free = [n for n, state in states.items() if state["state"] != SUSPECT and not state["standby"]]
        if free:
            assert control in free, (states, control)
        if rng.random() < 0.2:
            side.path_events()


def agreed(a: st.Side, b: st.Side) -> None:
    """All has arrived: what one side wants of a path the other one knows."""
    for number in a.paths()[0]:
        here, there = a.state_of(number)["standby"], b.state_of(number)["standby"]
        assert (here & 1, here >> 1) == (there >> 1, there & 1), (number, here, there)


class Line:
    """One direction of a channel and what is known of it."""

    def __init__(self, send: st.End, recv: st.End, capacity: int) -> None:
        self.send, self.recv, self.offers = send, recv, capacity == 0
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.back: set[int] = set()
        self.gone: set[int] = set()
        self.closed = self.aborted = self.lossy = False


Also = Callable[[st.Pair, list[Line], random.Random], None]
"""What a program does beside its steps, once a turn; it may put another side into the pair."""


def nothing(pair: st.Pair, lines: list[Line], rng: random.Random) -> None:
    """See ``Also``."""


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


def change_modes(lines: list[Line], rng: random.Random) -> None:
    """Some channels get a mode of their own, another one, or that of the session again: at any moment of a value."""
    for line in rng.sample(lines, rng.randrange(1, len(lines) + 1)):
        line.send.mode(rng.choice(OWN_MODES), k=rng.choice([1, 2, 5]), m=rng.choice([1, 2]))


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


def more(pair: st.Pair, lines: list[Line], name: str, rng: random.Random) -> None:
    """Open another channel on both sides."""
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


def take_rest(lines: list[Line]) -> int:
    """Take what is there; how many values."""
    moved = 0
    for line in lines:
        while not isinstance(got := line.recv.take(), int):
            line.got.append(got)
            moved += 1
        settle(line)
    return moved


def check_whole(lines: list[Line]) -> None:
    """All that was sent has come, and each side knows what became of it."""
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


def finish(lines: list[Line], sleep: Callable[[int], None]) -> None:
    """All paths are sound again: everything arrives. ``sleep`` moves the clock by so many ns."""
    for line in lines:
        line.recv.park(3)
    for _ in range(300):
        sleep(40_000_000)
        if not take_rest(lines):
            break
    for line in lines:
        line.send.ask(taken=len(line.sent))
    sleep(100_000_000)
    check_whole(lines)
