"""Leaving a session whose last values are still on their way over several paths or UDP (docs/spec/session.md §7)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import netchan
from netchan import Config
from tests.integration.kit import BOSS, KEY, TCP, program, until
from tests.integration.proxy import Direction, Link, Proxy
from tests.integration.udp_proxy import Relay

BOTH = Config(datagrams=True)
N = 40


async def offered(far: netchan.Peer, n: int = N) -> None:
    """All values of the one channel that the other side has opened, and its end."""
    values = [value async for channel in far async for value in channel]
    assert values == list(range(n))
    assert far.error is None


async def send(near: netchan.Peer, n: int = N) -> None:
    """Into a channel that nobody over there has opened, so that nothing is ever said of what was taken."""
    tx = near.open("x", int, capacity=1000)
    for i in range(n):
        tx.send_nowait(i)
    tx.close()


def losing(relay: Relay, most: int) -> Callable[[Direction, int, bytes], bool]:
    """The next so many datagrams of the side that leaves are lost."""
    begun = relay.seen["up"]
    return lambda way, n, data: way == "down" or n >= begun + most


class Hold:
    """A way that brings nothing from the listener's side of a proxy until it is let go; and all of it then."""

    def __init__(self) -> None:
        self.passes = threading.Event()
        self.passes.set()

    def __call__(self, link: Link, direction: Direction, number: int, unit: bytes) -> bytes:
        if direction == "up":
            self.passes.wait(20)
        return unit


@asynccontextmanager
async def over_udp() -> AsyncIterator[tuple[netchan.Peer, netchan.Peer, Relay]]:
    async with netchan.listen("udp://127.0.0.1:0", identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:
            near = await netchan.dial(relay.address, identity=KEY, config=BOTH)
            with contextlib.closing(near):
                yield near, await listener.recv(), relay


@program
async def test_values_whose_datagrams_are_lost_come_before_the_farewell() -> None:
    async with over_udp() as (near, far, relay):
        await asyncio.sleep(0.1)
        relay.tap = losing(relay, 3)
        await send(near)
        await near.aclose()
        await offered(far)


@program
async def test_values_over_udp_come_before_the_farewell_whatever_overtakes_them() -> None:
    async with over_udp() as (near, far, relay):
        relay.delay, relay.jitter = 0.005, 0.03
        await send(near)
        await near.aclose()
        await offered(far)


@pytest.mark.parametrize("mode", ["failover", "stripe", "mirror", "parity(1, 1)"])
@program
async def test_values_on_a_path_that_is_held_up_come_before_a_farewell_on_another(mode: str) -> None:
    hold = Hold()
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with Proxy(listener.addresses[0]) as slow, Proxy(listener.addresses[0]) as other:
            slow.tap = hold
            near = await netchan.dial(slow.address, identity=KEY)
            far = await listener.recv()
            await near.add_path(other.address)
            await until(lambda: far.path_count == 2)
            near.redundancy = mode
            hold.passes.clear()
            await send(near)
            near.close()
            threading.Timer(0.04, hold.passes.set).start()
            await near.wait_closed()
            await offered(far)


@program
async def test_what_was_taken_is_told_before_the_farewell() -> None:
    """The last word of the side that leaves is about what it has taken; the other one waits for it."""
    async with over_udp() as (near, far, relay):
        tx, rx = far.open("x", int, capacity=4), near.open("x", int, capacity=4)
        await tx.send(0)
        assert await rx.recv() == 0
        await asyncio.sleep(0.1)
        told = asyncio.ensure_future(tx.deliver(1))
        await until(lambda: rx._ep.pending() == 1)
        relay.tap = losing(relay, 2)
        assert rx.recv_nowait() == 1
        await near.aclose()
        await told


@program
async def test_leaving_that_nobody_acknowledges_ends_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(datagrams=True, close_timeout=0.3)
    async with netchan.listen("udp://127.0.0.1:0", identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        with Relay(listener.addresses[0]) as relay:
            near = await netchan.dial(relay.address, identity=KEY, config=config)
            far = await listener.recv()
            await asyncio.sleep(0.1)
            relay.silent = True
            await send(near)
            await near.aclose()
            assert "before all that was sent to it was acknowledged" in caplog.text
            await far.aclose()


@program
async def test_peer_lost_names_what_is_not_known_to_be_taken_on_any_channel() -> None:
    config = Config(lease=0.0)
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        with Proxy(listener.addresses[0]) as proxy:
            near = await netchan.dial(proxy.address, identity=KEY, config=config)
            far = await listener.recv()
            names = ("open", "closed", "done", "aborted", "stopped")
            mine, theirs = ({name: peer.open(name, int, capacity=8) for name in names} for peer in (near, far))
            for name in names:
                await asyncio.gather(mine[name].deliver(0), theirs[name].recv())
            for name in ("open", "closed", "aborted"):
                for value in (1, 2):
                    await mine[name].send(value)
            mine["closed"].close()
            mine["done"].close()
            with pytest.raises(netchan.ChannelEnded):
                await theirs["done"].recv()
            mine["aborted"].abort()
            theirs["stopped"].stop()
            await until(lambda: mine["stopped"]._ep.send_over)
            assert near.lost == far.lost == ()
            proxy.links[0].cut()
            await near.wait_closed()
            await far.wait_closed()
            for _ in range(2):
                found = {error.channel: error for error in near.lost}
                assert {name: len(e.undelivered) + len(e.in_doubt) for name, e in found.items()} == {
                    "open": 2,
                    "closed": 2,
                }
            with pytest.raises(netchan.SessionLost) as raised:
                await mine["open"].send(3)
            assert raised.value is found["open"]
            assert [d.number for d in raised.value.in_doubt] + [*raised.value.undelivered] == [1, 2]
            assert far.lost == ()


@program
async def test_peer_lost_is_empty_after_a_clean_end() -> None:
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        async with netchan.dial(listener.addresses[0], identity=KEY) as near:
            far = await listener.recv()
            await send(near, 5)
        assert near.lost == ()
        await far.wait_closed()
        assert far.lost == ()
