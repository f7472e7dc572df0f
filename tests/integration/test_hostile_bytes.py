"""Somebody on the wire changes, cuts, adds, repeats and reorders bytes, at hundreds of places of handshake and session.

Each place: the dialler gets a typed error in time or the session is lost on the side that reads the change; a counter
moves; nothing is received that was not sent, or twice; a good peer is served meanwhile (handshake.md §2.2, wire.md §3).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import netchan
from netchan import Config, Identity, Listener
from tests.integration.proxy import Direction, Edit, Proxy

BOSS, KEY = Identity.generate(), Identity.generate()
QUICK = Config(dial_timeout=2.0, handshake_timeout=1.0, lease=0.0)
LIMIT_S = 3.0
AT_ONCE = 24
VALUES = 120
STALL_S = 12.0
"""A record that claims to be longer than all that follows is told from silence only by a path's time limit."""
KINDS = ("flip", "zero", "drop", "insert", "repeat", "swap", "cut", "lose")


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Outcome:
    """What one case ended in."""

    edit: Edit
    dial: str = ""
    seconds: float = 0.0
    applied: bool = False
    up: list[bytes] = field(default_factory=list)
    down: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    problem: str = ""


def value(number: int) -> bytes:
    return b"%04d" % number + bytes(1000 + number % 997)


class Field:
    """A listener that answers every value, and the cases run against it."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.heard: dict[str, Outcome] = {}
        self.served = asyncio.create_task(self._serve())
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self) -> None:
        try:
            async for peer in self.listener:
                task = asyncio.create_task(self._answer(peer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except netchan.ChannelClosed:
            pass  # our own end

    async def _answer(self, peer: netchan.Peer) -> None:
        case = self.heard.get(peer.node_id)
        channel = peer.open("x", bytes)
        try:
            async for got in channel:
                if case is not None:
                    case.up.append(got)
                await channel.send(got)
            channel.close()
        except netchan.NetchanError as error:
            if case is not None:
                case.ends.append(type(error).__name__)
            channel.abort()
        finally:
            peer.close()
            await peer.wait_closed()

    async def run(self, edit: Edit) -> Outcome:
        """Dial through a proxy that makes one change, and talk."""
        case = Outcome(edit)
        me = Identity.generate()
        self.heard[me.node_id] = case
        proxy = Proxy(self.listener.addresses[0], edit)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(STALL_S + 2):
                peer = await netchan.dial(proxy.address, identity=me, config=QUICK)
                case.dial = "session"
                try:
                    await self._talk(peer, case)
                finally:
                    peer.close()
                    await peer.wait_closed()
        except netchan.NetchanError as error:
            case.dial = case.dial or type(error).__name__
            case.ends.append(type(error).__name__)
        except TimeoutError:
            case.problem = "nothing happened in time"
        case.seconds = time.monotonic() - begun
        case.applied = bool(proxy.links) and proxy.links[0].applied.is_set()
        await asyncio.to_thread(proxy.close)
        return case

    async def _talk(self, peer: netchan.Peer, case: Outcome) -> None:
        channel = peer.open("x", bytes)

        async def send() -> None:
            for number in range(VALUES):
                await channel.send(value(number))
                await asyncio.sleep(0)
            channel.close()

        sending = asyncio.create_task(send())
        try:
            async for got in channel:
                case.down.append(got)
            await sending
        except netchan.NetchanError:
            await asyncio.gather(sending, return_exceptions=True)
            channel.abort()
            raise

    async def run_all(self, edits: list[Edit]) -> list[Outcome]:
        """All of them, some at a time."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(edit: Edit) -> Outcome:
            async with gate:
                return await self.run(edit)

        return await asyncio.gather(*(one(edit) for edit in edits))

    async def good(self) -> float:
        """A good peer, not through a proxy; seconds."""
        begun = time.monotonic()
        async with netchan.dial(self.listener.addresses[0], identity=KEY) as peer:
            channel = peer.open("x", bytes)
            await channel.send(b"good")
            assert await channel.recv() == b"good"
            channel.close()
            assert [got async for got in channel] == []
        return time.monotonic() - begun

    async def end(self) -> None:
        """Stop serving."""
        self.listener.close()
        await self.served
        await asyncio.gather(*self._tasks)


def prefix(got: list[bytes]) -> bool:
    """Received exactly what was sent, in order, each once, up to some point."""
    return got == [value(number) for number in range(len(got))]


def spread(rng: random.Random, direction: Direction, unit: int, size: int, dense: int, stride: int) -> list[Edit]:
    """Edits all over a unit: every byte of its first `dense`, then every `stride`, then the last ones."""
    places = [*range(min(dense, size)), *range(dense, size - 1, stride), size - 33, size - 17, size - 16, size - 1]
    out = []
    for order, at in enumerate(sorted({place for place in places if 0 <= place < size})):
        kind = "flip" if order % 3 == 0 else KINDS[(order * 5 + unit + (direction == "down")) % len(KINDS)]
        out.append(Edit(kind, direction, unit, at, rng.choice((1, 2, 7, 16, 40))))
    return out


def check(cases: list[Outcome], *, dial_may_succeed: bool, stalls: int = 0) -> None:
    """What must hold for each case; all failures are shown at once."""
    bad = []
    slow = [case.edit for case in cases if case.seconds > LIMIT_S]
    assert len(slow) <= stalls, f"{len(slow)} stalled: {slow[:20]}"
    for case in cases:
        why = case.problem
        if not prefix(case.up) or not prefix(case.down):
            why = "received what was not sent, or twice"
        elif len(case.down) > len(case.up):
            why = "an answer without a question"
        elif case.seconds > (STALL_S if stalls else LIMIT_S):
            why = f"took {case.seconds:.1f} s"
        elif case.applied and not case.ends:
            why = "the change went unnoticed"
        elif case.applied and case.dial == "session" and not dial_may_succeed:
            why = "the dial succeeded"
        if why:
            bad.append((why, case))
    assert not bad, f"{len(bad)} of {len(cases)}: " + "; ".join(
        f"{why}: {c.edit} {c.dial} {c.ends} up {len(c.up)} down {len(c.down)}" for why, c in bad[:8]
    )


def tell(what: str, cases: list[Outcome], *rest: Any) -> None:
    kinds = Counter(case.edit.kind for case in cases)
    dials = Counter(case.dial for case in cases)
    ends = Counter(end for case in cases for end in case.ends)
    print(
        f"\n{what}: {len(cases)} places ({dict(kinds)}), {sum(c.applied for c in cases)} changed; dial: {dict(dials)}; "
        f"ends: {dict(ends)}; slowest {max(c.seconds for c in cases):.2f} s",
        *rest,
    )


class TestHandshakeBytes:
    def test_every_region_of_the_handshake_gives_a_typed_error_and_the_listener_goes_on(self) -> None:
        seed = 20240613
        rng = random.Random(seed)

        async def body() -> None:
            async with netchan.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=QUICK) as listener:
                there = Field(listener)
                await there.good()
                sizes = await measure(there)
                edits = [
                    *spread(rng, "up", 0, sizes["up"][0], 22, 47),
                    *spread(rng, "down", 0, sizes["down"][0], 22, 47),
                    *spread(rng, "up", 1, sizes["up"][1], 22, 29),
                    *spread(rng, "down", 1, sizes["down"][1], 22, 9),
                ]
                # The end of ACCEPT twice is ACCEPT and then bytes of the session, which are of the next test.
                end = sizes["down"][1]
                edits = [
                    e
                    for e in edits
                    if not (e.kind == "repeat" and e.direction == "down" and e.unit and e.at + e.n >= end)
                ]
                before, stats = rss(), listener.stats()
                goods = asyncio.create_task(good_ones(there))
                cases = await there.run_all(edits)
                goods.cancel()
                served = await goods
                after = listener.stats()
                moved = (
                    after.drained
                    - stats.drained
                    + sum(after.handshakes_failed.values())
                    - sum(stats.handshakes_failed.values())
                )
                lost = sum("SessionLost" in case.ends for case in cases)
                tell(f"handshake (seed {seed})", cases, f"; counters + {moved}, good peers meanwhile {served}")
                check(cases, dial_may_succeed=False)
                assert sum(case.applied for case in cases) >= 170  # a swap of equal bytes changes nothing
                assert len(cases) >= 180
                assert moved + lost >= len(cases) * 0.95, "changes that no counter shows"
                assert rss() - before < 48 << 20
                await there.good()
                await there.end()

        asyncio.run(body())


class TestSessionBytes:
    def test_every_region_of_the_records_ends_the_session_and_nothing_comes_twice(self) -> None:
        seed = 20240614
        rng = random.Random(seed)

        async def body() -> None:
            async with netchan.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=QUICK) as listener:
                there = Field(listener)
                await there.good()
                edits = []
                directions: tuple[Direction, Direction] = ("up", "down")
                for direction in directions:
                    for unit in (2, 3, 4, 7, 12, 20, 28):
                        places = (*range(8), *(rng.randrange(8, 60) for _ in range(3)))
                        for order, at in enumerate(places):
                            kind = "flip" if order % 2 == 0 else rng.choice(KINDS)
                            edits.append(Edit(kind, direction, unit, at, rng.choice((1, 2, 7, 16))))
                before = rss()
                goods = asyncio.create_task(good_ones(there))
                cases = await there.run_all(edits)
                goods.cancel()
                served = await goods
                tell(f"session (seed {seed})", cases, f"; good peers meanwhile {served}")
                check(cases, dial_may_succeed=True, stalls=len(cases) // 20)
                assert len(cases) >= 150
                assert sum(case.applied for case in cases) > 0.9 * len(cases)
                assert sum(len(case.up) for case in cases) > 0
                assert rss() - before < 48 << 20
                await there.good()
                await there.end()

        asyncio.run(body())


async def good_ones(there: Field) -> int:
    """Good peers one after the other until cancelled; how many were served."""
    count = 0
    try:
        while True:
            async with asyncio.timeout(LIMIT_S):
                await there.good()
            count += 1
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return count


async def measure(there: Field) -> dict[str, list[int]]:
    """Sizes of the messages of one handshake."""
    with Proxy(there.listener.addresses[0]) as proxy:
        async with netchan.dial(proxy.address, identity=KEY) as peer:
            channel = peer.open("x", bytes)
            channel.close()
            assert [got async for got in channel] == []
        link = proxy.links[0]
        return {"up": [len(u) for u in link.units["up"][:2]], "down": [len(u) for u in link.units["down"][:2]]}
