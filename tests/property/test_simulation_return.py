"""A session that has lost all its paths: how many round trips behind the first attempt that can succeed values come.

In virtual time computing takes none, so these are the round trips of the protocol and nothing else (core-decisions 22);
what a real machine takes beside them is measured by ``make changes``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import netchan
from netchan import Config, Identity
from netchan.net import connecting
from netchan.testing import Faults, Simulation

PORT = 7000
RTT = 0.02
EVERY = 0.005
"""Seconds between two values, each way; what is sent while there is no path waits for one."""
SLACK = 0.000_2
"""Turns of the hosts at one instant, 10 µs each."""
MOST = {"tcp": (2.0, 2.5), "udp": (2.0, 1.5)}
"""Round trips to the first value for the dialler, and to the first one of the dialler.

TCP: SYN and its answer; JOIN and its answer, with the first values behind it; those of the dialler go when it has come.
UDP: JOIN and its answer; the dialler's values are half a round trip more, and show that it is where it says, so that
more than 256 bytes may go there.
"""


class Attempts:
    """When the dialler asked. Over UDP each datagram is an attempt; over TCP it is the SYN that was answered."""

    def __init__(self, sim: Simulation, addresses: tuple[str, ...], patch: pytest.MonkeyPatch) -> None:
        self.sim, self.addresses = sim, addresses
        self.at: list[float] = []
        plain = connecting.Connecting._connected

        def connected(conn: connecting.Connecting) -> None:
            self.at.append(sim.now - RTT)  # the kernel asks again on its own, so when it asked shows in the answer
            plain(conn)

        patch.setattr(connecting.Connecting, "_connected", connected)
        sim.watch(self)

    def on_sent(self, source: Any, target: Any, data: bytes) -> None:
        if source[0] in self.addresses:
            self.at.append(self.sim.now)

    def on_arrived(self, source: Any, target: Any, data: bytes) -> None:
        """Of no interest."""

    def on_stream(self, label: str, data: bytes) -> None:
        """Of no interest."""


@pytest.mark.parametrize("away", [14.0, 240.0])
@pytest.mark.parametrize("carrier", ["tcp", "udp"])
@pytest.mark.parametrize("waiting", [True, False], ids=["values-wait", "nothing-to-say"])
def test_values_come_within_two_round_trips(
    carrier: str, away: float, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where both sides have something to say only when the link is there again."""
    heard: dict[str, list[float]] = {"dialler": [], "listener": []}
    config = Config(datagrams=True)
    here, there = Identity.generate(), Identity.generate()
    speaks_at, over = 0.0, False

    async def talk(peer: netchan.Peer, name: str, tx: str, rx: str) -> None:
        out, into = peer.open(tx, int, capacity=100_000), peer.open(rx, int, capacity=100_000)

        async def send() -> None:
            n = 0
            while not over:
                await asyncio.sleep(max(EVERY, speaks_at - sim.now))
                await out.send(n)
                n += 1
            out.close()

        async def take() -> None:
            n = 0
            async for value in into:
                assert value == n
                n += 1
                heard[name].append(sim.now)

        await asyncio.gather(send(), take())
        await asyncio.sleep(0.5)

    async def listen() -> None:
        place = f"{carrier}://0.0.0.0:{PORT}"
        async with netchan.listen(place, identity=here, trust=[there.node_id], config=config) as listener:
            async with await listener.recv() as peer:
                await talk(peer, "listener", "down", "up")

    async def dial() -> None:
        place = f"{carrier}://{here.node_id}@b:{PORT}"
        async with netchan.dial(place, identity=there, config=config) as peer:
            await talk(peer, "dialler", "up", "down")

    with Simulation(7) as sim:
        a, b = sim.host("a"), sim.host("b")
        link = sim.link(a, b, Faults(delay=RTT / 2))
        attempts = Attempts(sim, a.addresses, monkeypatch)
        programs = b.run(listen), a.run(dial)
        sim.run_for(1.0)
        assert heard["dialler"] and heard["listener"]
        link.cut()
        back = sim.now + away
        speaks_at = 0.0 if waiting else back
        sim.run_for(away)
        link.heal()
        while not all(heard[who][-1] > back for who in heard):
            assert sim.now < back + 20.0
            sim.run_for(EVERY)
        sim.run_for(1.0)  # and it goes on
        over = True
        sim.run(*programs, limit=60.0)
    begun = next(at for at in attempts.at if at >= back)
    trips = [(next(at for at in heard[who] if at > back) - begun) / RTT for who in ("dialler", "listener")]
    print(f"\n  {carrier}, {away:g} s: round trips to the dialler {trips[0]:.3f}, from it {trips[1]:.3f}")
    for found, most in zip(trips, MOST[carrier], strict=True):
        assert found <= most + SLACK / RTT
