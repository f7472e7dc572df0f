"""A network in virtual time between the two sides of a session: datagram links that lose, double, corrupt and reorder,
stream links that only stall. Everything comes from one random generator, so a run replays from its seed.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

from netchan._core import _selftest_session as st

OK = st.RC["OK"]
MS = 1_000_000


@dataclass
class Fate:
    """What a link does to what it is given."""

    delay: int = 10 * MS
    jitter: int = 0
    loss: float = 0.0
    twice: float = 0.0
    corrupt: float = 0.0
    old: float = 0.0  # an old datagram comes again
    burst: float = 0.0  # a datagram begins a burst, in which ``burst_length`` are lost on average
    burst_length: float = 5.0
    rate: int = 0  # bytes a second; 0: no limit
    queue: int = 60_000  # bytes that wait for the rate
    most: int = 1 << 16  # bytes of a datagram that goes through
    dead: bool = False


class Link:
    """One direction of a path."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.free_at = 0
        self.last_at = 0  # of a stream: nothing overtakes
        self.held: list[bytes] = []  # of a stream that is dead: what it will bring
        self.seen: list[bytes] = []  # of datagrams: some that an attacker has kept
        self.burst = 0  # datagrams that this one still takes

    def loses(self, rng: random.Random) -> bool:
        fate = self.fate
        if self.burst:
            self.burst -= 1
            return True
        if fate.burst and rng.random() < fate.burst:
            while rng.random() >= 1 / fate.burst_length:
                self.burst += 1
            return True
        return rng.random() < fate.loss

    def when(self, now: int, size: int, rng: random.Random) -> int | None:
        """When ``size`` bytes given to it now come out; None: never."""
        fate = self.fate
        at = now
        if fate.rate:
            if self.free_at < now:
                self.free_at = now
            if (self.free_at - now) * fate.rate // 1_000_000_000 > fate.queue:
                return None
            self.free_at += size * 1_000_000_000 // fate.rate
            at = self.free_at
        return at + fate.delay + (rng.randrange(fate.jitter) if fate.jitter else 0)


class Path:
    def __init__(self, number: int, mtu: int | None, fates: tuple[Fate, Fate]) -> None:
        self.number, self.mtu = number, mtu
        self.links = (Link(fates[0]), Link(fates[1]))  # 0: from a to b


class Net:
    """Two sides, the paths between them, and the clock."""

    def __init__(self, rng: random.Random, pair: st.Pair) -> None:
        self.rng, self.pair = rng, pair
        self.now = pair.a.now
        self.rates = [1.0, 1.0]  # how fast the clock of each side runs
        self._met = (self.now, [self.now, self.now])  # when its rate began, and what it said then
        self.paths: dict[int, Path] = {}
        self.queue: list[tuple[int, int, int, int, bytes]] = []
        self.events = 0
        self.sent = [0, 0]
        self.counts = dict.fromkeys(("dropped", "doubled", "corrupted", "reordered", "replayed"), 0)

    def skew(self, way: int, rate: float) -> None:
        """The clock of one side runs at this rate from now on."""
        self._met = self.now, [self.said(0), self.said(1)]
        self.rates[way] = rate

    def said(self, way: int) -> int:
        """What the clock of a side says now."""
        since, base = self._met
        return base[way] + int((self.now - since) * self.rates[way])

    def due(self) -> int:
        """When the first side has something to do, by the true clock."""
        since, base = self._met
        return min(
            since + math.ceil((side.deadline() - base[way]) / self.rates[way]) for way, side in enumerate(self.sides)
        )

    @property
    def sides(self) -> tuple[st.Side, st.Side]:
        return self.pair.a, self.pair.b

    def add(self, path: Path) -> None:
        self.paths[path.number] = path

    def has(self, way: int, number: int) -> bool:
        return number in self.sides[way].paths()[0]

    def post(self, at: int, way: int, number: int, data: bytes) -> None:
        self.events += 1
        heapq.heappush(self.queue, (at, self.events, way, number, data))

    def give(self, path: Path, way: int, data: bytes) -> None:
        """A side hands bytes to a path."""
        link, rng = path.links[way], self.rng
        fate = link.fate
        self.sent[way] += len(data)
        if path.mtu is None:
            if fate.dead:
                link.held.append(data)
                return
            at = link.when(self.now, len(data), rng)
            while at is None:  # a stream waits
                link.free_at += 0
                at = link.free_at + fate.delay
                link.free_at += len(data) * 1_000_000_000 // fate.rate
            link.last_at = max(link.last_at, at)
            self.post(link.last_at, way, path.number, data)
            return
        if fate.old:
            if len(link.seen) < 100 or rng.random() < 0.02:
                link.seen.append(data)
            if rng.random() < fate.old:
                self.counts["replayed"] += 1
                self.post(self.now + rng.randrange(1, 50 * MS), way, path.number, rng.choice(link.seen))
        at = link.when(self.now, len(data), rng)
        if fate.dead or at is None or len(data) > fate.most or link.loses(rng):
            self.counts["dropped"] += 1
            return
        if rng.random() < fate.corrupt:
            self.counts["corrupted"] += 1
            place = rng.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        if at < link.last_at:
            self.counts["reordered"] += 1
        link.last_at = max(link.last_at, at)
        self.post(at, way, path.number, data)
        if rng.random() < fate.twice:
            self.counts["doubled"] += 1
            self.post(at + rng.randrange(1, 20 * MS), way, path.number, data)

    def revive(self, path: Path) -> None:
        """A stream path brings what it held."""
        for way, link in enumerate(path.links):
            held, link.held = link.held, []
            for data in held:
                self.give(path, way, data)

    def collect(self) -> bool:
        """Each side says what it can; whether anything was said."""
        said = False
        for way, side in enumerate(self.sides):
            numbers, control = side.paths()
            for number in sorted(numbers, key=lambda n: n != control):
                path = self.paths.get(number)
                if path is None:  # the other side has given it up
                    for _ in range(4000):
                        said = side.send_datagram(number) if self.has(way, number) else b""
                        if isinstance(said, int) or not said:
                            break
                    continue
                for _ in range(4000):
                    if not self.has(way, number):
                        break
                    data = side.send(65_536, number) if path.mtu is None else side.send_datagram(number)
                    if isinstance(data, int) or not data:
                        break
                    said = True
                    self.give(path, way, data)
                else:
                    raise AssertionError("a side never ends to talk")
            if not numbers:
                side.send(1000)
            side.said()
        return said

    def arrive(self, way: int, number: int, data: bytes) -> None:
        side = self.sides[1 - way]
        path = self.paths.get(number)
        if path is None or not self.has(1 - way, number):
            return
        if path.mtu is None:
            side.recv(data, number)
        else:
            side.recv_datagram(data, number)

    def reconcile(self) -> None:
        """Where one side has ended a stream path the other one finds out; of a datagram path nothing tells it here."""
        for number in list(self.paths):
            here = [self.has(way, number) for way in (0, 1)]
            if not all(here):
                for way in (0, 1):
                    if here[way] and self.paths[number].mtu is None:
                        self.sides[way].path_lost(number)
                del self.paths[number]

    def tell(self, side: st.Side) -> str:
        flying = {n: side.flying(n) for n in side.paths()[0]}
        return f"{side.deadline() - self.now} {side.paths()} {side.state()} {flying} {side.order()}"

    def run(self, until: int, steps: int = 30_000) -> None:
        """Everything that happens up to then."""
        self.collect()
        for _ in range(steps):
            at = self.due()
            if self.queue:
                at = min(at, self.queue[0][0])
            if at > until:
                break
            self.now = max(self.now, at)
            for way, side in enumerate(self.sides):
                side.now = self.said(way)
            while self.queue and self.queue[0][0] <= self.now:
                _, _, way, number, data = heapq.heappop(self.queue)
                self.arrive(way, number, data)
            for side in self.sides:
                if side.deadline() <= side.now:
                    side.on_deadline()
            self.reconcile()
            self.collect()
        else:
            raise AssertionError(f"the clock does not move on at {self.now}: {[self.tell(s) for s in self.sides]}")
        self.now = until
        for way, side in enumerate(self.sides):
            side.now = self.said(way)
