"""Programs for the simulator that a seed makes: two nodes, links that go wrong, channels in both directions, and what
must have come of it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from random import Random

import netchan
from netchan import Config, Identity, NetchanError, Peer
from netchan.testing import Faults, Host, Link, Simulation

MODES = ("failover", "stripe", "mirror", "parity(2, 1)", "parity(4, 2)")
TROUBLE = 6.0
"""Virtual seconds in which links go wrong."""
SOON = 60.0
"""And in which all must have arrived once they are healed."""
PORT = 7000


@dataclass
class Flow:
    """One direction of a channel: what was sent and what came."""

    name: str
    capacity: int
    sent: list[bytes] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)


@dataclass
class Outcome:
    """What a run was and did."""

    digest: str
    seconds: float
    modes: tuple[str, str]
    carriers: tuple[str, ...]
    events: list[str]
    values: int
    resumes: int
    lost: int
    moved: int


def faults(rng: Random) -> Faults:
    """Any that a link may have while it works."""
    return Faults(
        delay=rng.choice([0.000_5, 0.005, 0.02, 0.08]),
        jitter=rng.choice([0.0, 0.0, 0.001, 0.02]),
        rate=rng.choice([None, None, 100_000.0, 2_000_000.0]),
        queue=rng.choice([20_000, 65_536]),
        loss=rng.choice([0.0, 0.0, 0.01, 0.1, 0.3]),
        burst=rng.choice([0.0, 0.0, 0.02]),
        reorder=rng.choice([0.0, 0.0, 0.1]),
        duplicate=rng.choice([0.0, 0.0, 0.1]),
        corrupt=rng.choice([0.0, 0.0, 0.01]),
        mtu=rng.choice([1280, 1400, 1500, 1500]),
    )


class Run:
    """One simulation."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, Random(seed)
        rng = self.rng
        self.events: list[str] = []
        self.flows = [
            Flow(f"c{n}", rng.choice([0, 1, 8, 64]), [self._value(n, i) for i in range(rng.randrange(1, 40))])
            for n in range(rng.randrange(1, 4))
        ]
        self.back = [Flow(f"c{n}", flow.capacity) for n, flow in enumerate(self.flows)]
        for n, flow in enumerate(self.back):
            if rng.random() < 0.5:
                flow.sent += [self._value(100 + n, i) for i in range(rng.randrange(1, 20))]
        self.modes = (rng.choice(MODES), rng.choice(MODES))
        self.finished = 0
        self.peers: list[Peer] = []
        self.taken: list[Peer] = []

    def _value(self, flow: int, number: int) -> bytes:
        size = self.rng.choice([0, 1, 30, 500, 1500, 5000])
        return flow.to_bytes(2, "big") + number.to_bytes(4, "big") + self.rng.randbytes(size)

    def go(self) -> Outcome:
        """Run it to its end, and check."""
        with Simulation(self.seed) as sim:
            self.sim = sim
            self.me, self.them = Identity.generate(), Identity.generate()
            carriers = self._build(sim)
            listening = self.b.run(self.listen())
            dialling = self.a.run(self.dial())
            self._trouble()
            sim.run_for(TROUBLE)
            self._heal()
            sim.run(listening, dialling, limit=SOON)
            self._check()
            stats = [peer.stats() for peer in self.peers]
            links = {*self.links}
            return Outcome(
                sim.trace.digest(),
                sim.now,
                self.modes,
                carriers,
                self.events,
                sum(len(flow.sent) for flow in self.flows + self.back),
                sum(each["resumes"] for each in stats),
                sum(link.lost for link in links),
                sum("rebind" in event for event in self.events),
            )

    def _build(self, sim: Simulation) -> tuple[str, ...]:
        rng = self.rng
        self.a = sim.host("a")
        if rng.random() < 0.2:  # two programs of one host
            self.b = self.a
            carriers = tuple(rng.sample(["tcp", "udp", "unix"], rng.randrange(1, 4)))
            self.links = [self.a.local if carrier == "unix" else self.a.loopback for carrier in carriers]
            where = ["127.0.0.1"] * len(carriers)
        else:
            self.b = sim.host("b")
            carriers = tuple(rng.choice(["tcp", "udp"]) for _ in range(rng.randrange(1, 4)))
            self.links = [sim.link(self.a, self.b) for _ in carriers]
            where = [link.address_of(self.b) for link in self.links]
        path = f"/tmp/netchan-sim-{os.getpid()}-{self.seed}.sock"
        self.places = [
            f"unix://{path}" if carrier == "unix" else f"{carrier}://{address}:{PORT + n}"
            for n, (carrier, address) in enumerate(zip(carriers, where, strict=True))
        ]
        return carriers

    def _trouble(self) -> None:
        sim, rng = self.sim, self.rng
        for link in self.links:
            for towards in link.hosts:
                settings = faults(rng)
                if link.hosts[0] is link.hosts[1]:
                    settings.mtu = 65_535
                if rng.random() < 0.7:
                    begin = rng.choice([0.0, 0.0, 0.3])
                    sim.at(begin, lambda link=link, to=towards, s=settings: link.set(towards=to, **vars(s)))
        for _ in range(rng.randrange(5)):
            link, at = rng.choice(self.links), rng.uniform(0.0, TROUBLE)
            self._event(rng.choice(["cut", "one way", "rebind", "reset", "up", "fast", "slow", "step"]), link, at)

    def _event(self, what: str, link: Link, at: float) -> None:
        sim, rng = self.sim, self.rng
        host: Host = rng.choice(link.hosts)
        self.events.append(f"{at:.3f} {what} {link.name}")
        if what == "cut":
            sim.at(at, link.cut)
            sim.at(at + rng.choice([0.05, 1.0, 4.0]), lambda: link.set(down=False))
        elif what == "one way":
            sim.at(at, lambda: link.cut(towards=host))
        elif what == "rebind":
            sim.at(at, lambda: link.rebind(self.a))
        elif what == "reset":
            sim.at(at, link.reset)
        elif what == "up":
            sim.at(at, lambda: link.set(down=False))
        elif what == "step":
            sim.at(at, lambda: host.skew(step=rng.choice([-5.0, 5.0, 3600.0])))
        else:
            sim.at(at, lambda: host.skew(rate=1.1 if what == "fast" else 0.9))

    def _heal(self) -> None:
        for link in {*self.links}:
            link.heal()

    async def listen(self) -> None:
        """The program of the side that listens."""
        config = Config(datagrams=True, heartbeat=1.0)
        async with netchan.listen(self.places, identity=self.me, trust=[self.them.node_id], config=config) as listener:
            async with asyncio.TaskGroup() as group:
                while not self.finished:  # of a dial that failed late a session is left, which serves nobody
                    try:
                        async with asyncio.timeout(0.2):
                            peer = await listener.recv()
                    except TimeoutError:
                        continue
                    self.taken.append(peer)
                    group.create_task(self._serve(peer))
                while self.finished < 2:
                    await asyncio.sleep(0.1)
                for peer in self.taken:
                    peer.close()

    async def _serve(self, peer: Peer) -> None:
        try:
            await self._channels(peer, self.modes[1], self.back, self.flows)
        except* NetchanError:
            if self.finished < 2:
                raise

    async def dial(self) -> None:
        """The program of the side that dials."""
        config = Config(datagrams=True, heartbeat=1.0, dial_timeout=4.0)
        places = [place.replace("://", f"://{self.me.node_id}@", 1) for place in self.places]
        while True:
            try:
                peer = await netchan.dial(places, identity=self.them, config=config)
            except NetchanError:
                if self.sim.now > TROUBLE + SOON:
                    raise
                continue
            self.peers.append(peer)
            await self._channels(peer, self.modes[0], self.flows, self.back)
            return

    async def _channels(self, peer: Peer, mode: str, outward: list[Flow], inward: list[Flow]) -> None:
        async with peer:
            peer.redundancy = mode
            async with asyncio.TaskGroup() as group:
                for out, back in zip(outward, inward, strict=True):
                    channel = peer.open(out.name, bytes, capacity=out.capacity)
                    tx, rx = channel.split()
                    group.create_task(self._send(tx, out))
                    group.create_task(self._recv(rx, back))
            self.finished += 1
            while self.finished < 2:  # who leaves at once takes the other one's last word with it
                await asyncio.sleep(0.1)

    async def _send(self, tx: netchan.Sender[bytes], flow: Flow) -> None:
        rng = Random(len(flow.sent) + self.seed)
        for value in flow.sent:
            await tx.send(value)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice([0.0, 0.01, rng.uniform(0.0, 2 * TROUBLE / len(flow.sent))]))
        tx.close()

    async def _recv(self, rx: netchan.Receiver[bytes], flow: Flow) -> None:
        async for value in rx:
            flow.got.append(value)

    def _check(self) -> None:
        for flow in self.flows + self.back:
            assert flow.got == flow.sent, f"{flow.name}: {len(flow.got)} of {len(flow.sent)}"
