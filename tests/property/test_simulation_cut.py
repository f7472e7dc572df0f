"""A scripted exchange that is cut after every byte (TCP) and every datagram (UDP), in the simulator: what was accepted
was received, or the report names it; nothing that was received is called undelivered (docs/spec/session.md §7).

``NETCHAN_CUT_STEP``: how many bytes apart; 1: all.
"""

from __future__ import annotations

import asyncio
import os

import pytest

import netchan
from netchan import Config, Identity, NetchanError, SessionLost
from netchan.testing import ExactlyOnce, Faults, Simulation

STEP = int(os.environ.get("NETCHAN_CUT_STEP", "401"))
FAST = Config(lease=0.0, heartbeat=0.5, close_timeout=1.0, datagrams=True, tickets=0)
VALUES = [bytes([n]) * (10 + 60 * n) for n in range(10)]


class Cut:
    """The exchange, cut after so many units of the direction towards one side; None: not at all."""

    def __init__(self, carrier: str, units: int | None, to_listener: bool) -> None:
        self.carrier, self.units, self.to_listener = carrier, units, to_listener
        self.there, self.back = ExactlyOnce("there"), ExactlyOnce("back")
        self.sent = [0, 0]
        self.up = 0.0
        self.done = 0

    def on_sent(self, source: tuple[str, int], target: tuple[str, int], data: bytes) -> None:
        """See Watcher."""
        self.sent[target[1] == 7000] += 1

    def on_arrived(self, source: tuple[str, int], target: tuple[str, int], data: bytes) -> None:
        """See Watcher."""

    def on_stream(self, label: str, data: bytes) -> None:
        """See Watcher."""
        self.sent[label.endswith(">")] += len(data)

    def go(self) -> None:
        with Simulation(1) as sim:
            a, b = sim.host("a"), sim.host("b")
            link = sim.link(a, b, Faults(delay=0.01))
            sim.watch(self)
            if self.units is not None:
                link.cut_after(self.units, towards=b if self.to_listener else a)
            self.me, self.them = Identity.generate(), Identity.generate()
            listening, dialling = b.run(self.listen), a.run(self.dial)
            sim.run(dialling, limit=60.0)
            sim.run_for(20.0)
            listening.cancel()
        self.there.check(), self.back.check()

    async def listen(self) -> None:
        where = f"{self.carrier}://0.0.0.0:7000"
        async with netchan.listen(where, identity=self.me, trust=[self.them.node_id], config=FAST) as listener:
            peer = await listener.recv()
            await self.exchange(peer, self.back, self.there)
            await asyncio.sleep(60.0)

    async def dial(self) -> None:
        try:
            peer = await netchan.dial(f"{self.carrier}://{self.me.node_id}@b:7000", identity=self.them, config=FAST)
        except NetchanError:
            return  # nothing was accepted
        await self.exchange(peer, self.there, self.back)

    async def exchange(self, peer: netchan.Peer, out: ExactlyOnce, back: ExactlyOnce) -> None:
        channel = peer.open("n", bytes, capacity=3)

        async def send() -> None:
            for value in VALUES:
                await channel.send(value)
                out.sent(value)
            await channel.flush("taken")
            channel.close()

        async def recv() -> None:
            async for value in channel:
                back.got(value)

        ended = await asyncio.gather(send(), recv(), return_exceptions=True)
        lost = [error for error in ended if isinstance(error, SessionLost)]
        if lost:
            out.lost(lost[0])
            peer.close()
            return
        assert ended == [None, None], ended
        self.done += 1
        while self.units is None and self.done < 2:
            await asyncio.sleep(0.1)
        peer.close()


@pytest.mark.parametrize("to_listener", [True, False], ids=["there", "back"])
@pytest.mark.parametrize("carrier", ["tcp", "udp"])
def test_exchange_that_is_cut_anywhere_is_accounted_for(carrier: str, to_listener: bool) -> None:
    whole = Cut(carrier, None, to_listener)
    whole.go()
    assert whole.there.received == whole.back.received == VALUES
    units = whole.sent[to_listener]
    some = 0
    for n in range(0, units + 1, STEP if carrier == "tcp" else 1):
        cut = Cut(carrier, n, to_listener)
        try:
            cut.go()
        except BaseException as error:
            error.add_note(f"cut after {n} of {units}")
            raise
        some += 0 < len(cut.there.received) < len(VALUES)
    assert some, units
