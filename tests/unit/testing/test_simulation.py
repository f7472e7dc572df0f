"""The simulator: each fault has its effect on whole programs, time is virtual, and a run can be had again
(docs/spec/simulation.md).
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

import netchan
from netchan import Config, Identity
from netchan.testing import Amplification, ExactlyOnce, Faults, Host, Link, Memory, Nonces, Simulation, SimulationError

PORT = 7000


@dataclass
class Pair:
    """A program on each of two hosts that sends so many numbers over, and what is known of it."""

    sim: Simulation
    carrier: str = "tcp"
    n: int = 100
    gap: float = 0.01
    name: str = "b"
    config: Config = field(default_factory=lambda: Config(datagrams=True))
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.a, self.b = self.sim.host("a"), self.sim.host("b")
        self.link = self.sim.link(self.a, self.b, self.faults)
        self.values = ExactlyOnce()
        self.times: list[float] = []
        self.done = False
        self.memory = Memory(self.config.session_bytes)
        self.me, self.them = Identity.generate(), Identity.generate()

    async def listen(self) -> None:
        async with netchan.listen(
            f"{self.carrier}://0.0.0.0:{PORT}", identity=self.me, trust=[self.them.node_id], config=self.config
        ) as listener:
            async with await listener.recv() as peer:
                channel = peer.open("n", int, capacity=8)
                async for value in channel:
                    self.values.got(value)
                    self.times.append(self.sim.now)
                    self.memory.look(peer)
                channel.close()
                self.done = True
                await asyncio.sleep(1.0)

    async def dial(self) -> None:
        place = f"{self.carrier}://{self.me.node_id}@{self.name}:{PORT}"
        async with netchan.dial(place, identity=self.them, config=self.config) as peer:
            channel = peer.open("n", int, capacity=8)
            for n in range(self.n):
                await channel.send(n)
                self.values.sent(n)
                await asyncio.sleep(self.gap)
            channel.close()
            while not self.done:  # who leaves while the link loses may take the end of the channel with it
                await asyncio.sleep(0.1)

    def start(self) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        return self.b.run(self.listen), self.a.run(self.dial)

    def go(self, limit: float = 120.0) -> None:
        self.sim.run(*self.start(), limit=limit)
        self.values.check()


# --- effects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["tcp", "udp"])
def test_programs_run_unchanged_and_in_virtual_time(carrier: str) -> None:
    with Simulation(1) as sim:
        began = time.monotonic()
        pair = Pair(sim, carrier, gap=10.0)
        pair.go(limit=2000.0)
        assert 1000 < sim.now < 1100 and time.monotonic() - began == pytest.approx(sim.now)


@pytest.mark.parametrize("carrier", ["tcp", "udp"])
@pytest.mark.parametrize(
    "faults",
    [
        Faults(loss=0.2),
        Faults(burst=0.02, burst_length=6.0),
        Faults(reorder=0.3),
        Faults(duplicate=0.3),
        Faults(jitter=0.05),
        Faults(rate=20_000.0, queue=3_000),
        Faults(mtu=1280),
        Faults(corrupt=0.01),
    ],
    ids=["loss", "burst", "reorder", "duplicate", "jitter", "rate", "mtu", "corrupt"],
)
def test_everything_comes_over_a_link_with(carrier: str, faults: Faults) -> None:
    with Simulation(3) as sim:
        pair = Pair(sim, carrier)
        started = pair.start()
        sim.run_for(0.5)
        pair.link.set(**vars(faults))
        sim.run(*started, limit=300.0)
        pair.values.check()


@pytest.mark.parametrize("carrier", ["tcp", "udp"])
def test_delay_is_what_a_round_trip_takes(carrier: str) -> None:
    with Simulation(1) as sim:
        pair = Pair(sim, carrier, n=1, faults=Faults(delay=0.5))
        pair.go()
        assert pair.times[0] >= 2.5  # a handshake is two round trips or more, and the value half of one


def test_loss_over_datagrams_costs_datagrams() -> None:
    with Simulation(1) as sim:
        pair = Pair(sim, "udp", faults=Faults(loss=0.2))
        pair.go()
        assert pair.link.lost > 5


@pytest.mark.parametrize("carrier", ["tcp", "udp"])
def test_cut_stops_everything_and_healing_brings_it_back(carrier: str) -> None:
    with Simulation(1) as sim:
        pair = Pair(sim, carrier)
        started = pair.start()
        sim.run_for(0.5)
        pair.link.cut()
        sim.run_for(0.1)
        had = len(pair.times)
        sim.run_for(100.0)
        assert len(pair.times) == had
        sim.heal()
        sim.run(*started, limit=60.0)
        pair.values.check()


def test_one_way_cut_stops_one_direction() -> None:
    with Simulation(1) as sim:
        pair = Pair(sim, "udp")
        started = pair.start()
        sim.run_for(0.5)
        pair.link.cut(towards=pair.a)
        had = len(pair.times)
        sim.run_for(0.1)
        assert len(pair.times) > had  # what is sent comes, until its acknowledgements are missed
        sim.run_for(60.0)
        had = len(pair.times)
        sim.run_for(60.0)
        assert len(pair.times) == had < 100
        sim.heal()
        sim.run(*started, limit=60.0)
        pair.values.check()


def test_nat_that_forgets_makes_the_peer_come_from_elsewhere() -> None:
    with Simulation(1) as sim:
        pair = Pair(sim, "udp")
        sim.at(0.5, lambda: pair.link.rebind(pair.a))
        sim.at(0.8, lambda: pair.link.rebind(pair.a))
        pair.go()
        ports = {event.where.split()[2] for event in sim.trace.last if event.where.startswith("a-b >")}
        assert len(ports) >= 3


def test_nat_that_forgets_leaves_a_listener_of_its_own_host_reachable() -> None:
    """Seed 832 of tests/property/sim_programs.py: on the loopback nobody came to the listener any more."""
    with Simulation(1) as sim:
        pair = Pair(sim, "udp")
        pair.b, pair.name = pair.a, "localhost"
        sim.at(0.5, lambda: pair.a.loopback.rebind(pair.a))
        pair.go()
        assert len(pair.times) == pair.n


def test_reset_streams_are_dialled_again() -> None:
    with Simulation(1) as sim:
        pair = Pair(sim)
        sim.at(0.5, pair.link.reset)
        pair.go()
        assert sum(event.what == "stream" for event in sim.trace.last) and sim.now > 1.0


def test_clocks_of_a_host_may_be_wrong() -> None:
    said: list[tuple[float, float, float]] = []

    async def tell() -> None:
        begin = time.monotonic()
        await asyncio.sleep(10.0)
        said.append((time.monotonic() - begin, time.time(), asyncio.get_running_loop().time()))

    with Simulation(1) as sim:
        a, b, c = sim.host("a"), sim.host("b"), sim.host("c")
        b.skew(rate=2.0)
        c.skew(step=-3600.0)
        sim.run(b.run(tell))
        assert sim.now == pytest.approx(5.0)
        sim.run(a.run(tell), c.run(tell))
        assert [pytest.approx(10.0)] * 3 == [one[0] for one in said]
        assert said[1][1] - said[2][1] == pytest.approx(3600.0)


def test_skewed_nodes_talk_all_the_same() -> None:
    with Simulation(1) as sim:
        pair = Pair(sim, "udp")
        pair.a.skew(rate=1.1, step=10.0)
        pair.b.skew(rate=0.9)
        pair.go()


def test_checkers_watch_a_whole_run() -> None:
    with Simulation(5) as sim:
        pair = Pair(sim, "udp", faults=Faults(loss=0.1, duplicate=0.1, reorder=0.1))
        amplification, nonces = Amplification([(pair.link.address_of(pair.b), PORT)]), Nonces()
        sim.watch(amplification)
        sim.watch(nonces)
        pair.go()
        amplification.check(), nonces.check(), pair.memory.check()
        assert 0 < amplification.worst <= 3 and pair.memory.most >= 0


# --- several links, several hosts -------------------------------------------------------------------------------------


def test_session_over_two_links_survives_the_loss_of_one() -> None:
    with Simulation(1) as sim:
        a, b = sim.host("a"), sim.host("b")
        links = [sim.link(a, b), sim.link(a, b, Faults(delay=0.03))]
        assert b.addresses == ("10.0.1.2", "10.0.2.2") and [link.name for link in links] == ["a-b", "a-b#1"]
        me, them = Identity.generate(), Identity.generate()
        got: list[int] = []

        async def listen() -> None:
            async with netchan.listen(f"tcp://0.0.0.0:{PORT}", identity=me, trust=[them.node_id]) as listener:
                async with await listener.recv() as peer:
                    channel = peer.open("n", int)
                    async for value in channel:
                        got.append(value)
                    channel.close()

        async def dial() -> None:
            places = [f"tcp://{me.node_id}@{address}:{PORT}" for address in b.addresses]
            async with netchan.dial(places, identity=them) as peer:
                channel = peer.open("n", int)
                await asyncio.sleep(1.0)
                assert len(peer.paths) == 2
                links[0].cut()
                for n in range(50):
                    await channel.send(n)
                channel.close()

        sim.run(b.run(listen), a.run(dial), limit=60.0)
        assert got == list(range(50)) and sim.now < 20


def test_hosts_without_a_link_do_not_reach_each_other() -> None:
    with Simulation(1) as sim:
        a, b, c = sim.host("a"), sim.host("b"), sim.host("c")
        sim.link(a, b), sim.link(b, c)
        me = Identity.generate()

        async def dial(name: str) -> str:
            try:
                await netchan.dial(f"tcp://{me.node_id}@{name}:1", identity=Identity.generate())
            except netchan.DialError as error:
                return str(error)
            return "up"

        assert "no host 'c'" in sim.run(a.run(dial("c")))[0]
        assert "refused" in sim.run(a.run(dial("b")))[0]
        assert "unreachable" in sim.run(a.run(dial("10.0.2.2")))[0]


def test_unix_sockets_and_loopback_join_programs_of_one_host(tmp_path: object) -> None:
    with Simulation(1) as sim:
        a = sim.host("a")
        me, them = Identity.generate(), Identity.generate()
        places = [f"unix://{tmp_path}/n.sock", f"tcp://127.0.0.1:{PORT}", f"udp://127.0.0.1:{PORT}"]

        async def listen() -> int:
            async with netchan.listen(places, identity=me, trust=[them.node_id]) as listener:
                async with await listener.recv() as peer:
                    channel = peer.open("n", int)
                    total = sum([value async for value in channel])
                    channel.close()
                    return total

        async def dial() -> int:
            to = [place.replace("://", f"://{me.node_id}@", 1) for place in places]
            async with netchan.dial(to, identity=them) as peer:
                await asyncio.sleep(1.0)
                channel = peer.open("n", int)
                for n in range(10):
                    await channel.send(n)
                channel.close()
                return len(peer.paths)

        assert sim.run(a.run(listen), a.run(dial), limit=60.0) == [45, 3]


# --- again ------------------------------------------------------------------------------------------------------------

AGAIN = """
from tests.unit.testing.test_simulation import digest
print(digest(9))
"""


def digest(seed: int) -> str:
    """Of a run with most faults."""
    with Simulation(seed) as sim:
        pair = Pair(sim, "udp", faults=Faults(loss=0.1, jitter=0.01, duplicate=0.1, reorder=0.1, corrupt=0.02))
        sim.at(0.5, lambda: pair.link.rebind(pair.a))
        pair.go()
        return sim.trace.digest()


def test_same_seed_is_the_same_run_in_this_process_and_in_another() -> None:
    here = digest(9)
    assert here == digest(9) != digest(10)
    for hashes in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", AGAIN],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hashes},
        )
        assert other.stdout.strip() == here


def test_what_is_drawn_comes_from_the_seed_and_is_given_back() -> None:
    def draw(seed: int) -> tuple[object, ...]:
        with Simulation(seed):
            return os.urandom(4), random.random(), uuid.uuid4()

    state = random.getstate()
    assert draw(1) == draw(1) != draw(2)
    assert random.getstate() == state and os.urandom(8) != os.urandom(8)
    before = time.time()
    with Simulation(1):
        assert time.time() == 1_800_000_000 and time.monotonic() == 1000
    assert before <= time.time() < before + 3600


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_program_that_raises_ends_the_run_and_says_the_seed() -> None:
    async def fail() -> None:
        await asyncio.sleep(1.0)
        raise LookupError("no")

    with Simulation(77) as sim, pytest.raises(LookupError, match="no") as caught:
        sim.host("a").run(fail)
        sim.run()
    assert any("seed 77" in note for note in caught.value.__notes__)


def test_programs_that_take_too_long_or_wait_for_ever_are_told() -> None:
    with Simulation(1) as sim:
        a = sim.host("a")
        with pytest.raises(TimeoutError, match="5 virtual seconds"):
            sim.run(a.run(asyncio.sleep(10.0)), limit=5.0)
    with Simulation(1) as sim, pytest.raises(SimulationError, match="nothing will ever happen"):

        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        sim.run(sim.host("a").run(wait))


def test_loop_that_never_sleeps_does_not_stop_time() -> None:
    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    with Simulation(1) as sim:
        a, b = sim.host("a"), sim.host("b")
        a.run(busy)
        sim.run(b.run(asyncio.sleep(0.01)))
        assert sim.now == pytest.approx(0.01, abs=0.001)


def test_sleep_of_the_thread_is_refused() -> None:
    async def block() -> None:
        time.sleep(1.0)

    with Simulation(1) as sim, pytest.raises(RuntimeError, match=r"asyncio\.sleep"):
        sim.run(sim.host("a").run(block))
    time.sleep(0.0)


def test_executors_run_in_the_programs_own_turn() -> None:
    async def aside() -> tuple[int, float]:
        return await asyncio.to_thread(lambda: 4), await asyncio.to_thread(time.monotonic)

    with Simulation(1) as sim:
        assert sim.run(sim.host("a").run(aside)) == [(4, 1000.0)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda sim, a, link: sim.host("a"), "already"),
        (lambda sim, a, link: link.cut(towards=sim.host("x")), "not on link"),
        (lambda sim, a, link: a.skew(rate=9.0), "0.5 to 2"),
        (lambda sim, a, link: link.set(loss=2.0), "no probability"),
    ],
)
def test_mistakes_are_named(call: Callable[[Simulation, Host, Link], object], says: str) -> None:
    with Simulation(1) as sim:
        a, b = sim.host("a"), sim.host("b")
        link = sim.link(a, b)
        with pytest.raises(ValueError, match=says):
            call(sim, a, link)


def test_one_simulation_at_a_time_and_only_in_its_block() -> None:
    with Simulation(1), pytest.raises(RuntimeError, match="one at a time"), Simulation(2):
        pass
    with Simulation(2) as sim:
        pass
    with pytest.raises(RuntimeError, match="with-block"):
        sim.host("a")


def test_nothing_is_left_open() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    digest(9)
    before = opened()
    for _ in range(4):
        digest(9)
    assert opened() <= before
