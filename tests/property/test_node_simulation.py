"""Two nodes that dial each other at moments and over links that a seed makes end with one session, and nothing is left
of the other one (docs/spec/node.md §4). NETCHAN_NODE_SEEDS enlarges it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from random import Random

import pytest

import netchan
from netchan import Config, Identity, Node, Peer
from netchan.testing import Faults, Simulation

SEEDS = int(os.environ.get("NETCHAN_NODE_SEEDS", "60"))
PORT = 7000


class Run:
    """One simulation: each node asks for the other one some times, and says a word over what it gets."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.channels: list[netchan.Channel[int]] = []
        self.done = 0

    def go(self) -> None:
        rng = self.rng
        with Simulation(self.seed) as sim:
            self.sim = sim
            hosts = [sim.host("a"), sim.host("b")]
            faults = Faults(delay=rng.choice([0.0005, 0.02, 0.2]), jitter=rng.choice([0.0, 0.01]))
            link = sim.link(*hosts, faults)
            self.ids = [Identity.generate() for _ in range(2)]
            carrier = rng.choice(["tcp", "udp"])
            self.places = [f"{carrier}://{link.address_of(host)}:{PORT}" for host in hosts]
            tasks = [host.run(self.program(side)) for side, host in enumerate(hosts)]
            sim.run(*tasks, limit=120.0)

    async def program(self, side: int) -> None:
        rng = Random(2 * self.seed + side)
        config = Config(datagrams=True)
        async with Node(identity=self.ids[side], trust="any", config=config, single_session=True) as node:
            await node.listen(self.places[side])
            other = self.places[1 - side].replace("://", f"://{self.ids[1 - side].node_id}@")
            serving = asyncio.create_task(node.serve(lambda peer: peer.wait_closed()))
            for _ in range(rng.randrange(1, 4)):
                await asyncio.sleep(rng.choice([0.0, rng.uniform(0.0, 0.05), rng.uniform(0.0, 1.0)]))
                await self._use(node, other, rng)
            await asyncio.sleep(5.0)
            (peer,) = node.peers
            assert await node.peer(self.ids[1 - side].node_id) is peer
            # it is the same session on both sides: what one says here the other one hears
            end = peer.open("end", int)
            await end.send(side)
            assert await end.recv() == 1 - side
            self.done += 1
            while self.done < 2:
                await asyncio.sleep(0.1)
            serving.cancel()

    async def _use(self, node: Node, other: str, rng: Random) -> None:
        while True:  # a dial meets nobody until the other side listens
            try:
                peer: Peer = await (node.peer(other) if rng.random() < 0.7 else node.dial(other))
                break
            except netchan.DialError:
                await asyncio.sleep(0.05)
        channel = peer.open(f"word {len(self.channels)}", int)
        self.channels.append(channel)  # one that is dropped would be ended
        with contextlib.suppress(netchan.SessionLost):  # of the one that is not kept
            await channel.send(1)


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_two_nodes_that_dial_each_other_end_with_one_session(first: int) -> None:
    for seed in range(first, min(first + 20, SEEDS)):
        try:
            Run(seed).go()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
