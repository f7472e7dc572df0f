"""Channels of one session that have modes of their own, on sockets (docs/spec/session.md §5.3)."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable

import pytest
import trio

import netchan
from netchan import ConfigError, sync
from tests.integration.kit import BOSS, KEY, TCP, program, until
from tests.integration.proxy import Direction, Link
from tests.integration.test_paths import joined

MODES = ("failover", "stripe", "mirror", "parity(2, 1)", "auto")


def values_of(rng: random.Random, n: int) -> list[bytes]:
    return [i.to_bytes(4, "big") + bytes(rng.choice([0, 60, 3000, 40_000])) for i in range(n)]


def silent(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
    return b""


@pytest.mark.parametrize("whole", ["failover", "mirror"])
@program
async def test_channels_of_all_modes_share_a_session_whose_paths_are_cut(whole: str) -> None:
    rng = random.Random(whole)
    async with joined(3) as (near, far, proxies):
        near.redundancy = far.redundancy = whole
        pairs = [
            (near.open(mode, bytes, capacity=32, redundancy=mode), far.open(mode, bytes, capacity=32)) for mode in MODES
        ]
        values = {mode: values_of(rng, 150) for mode in MODES}

        async def send(channel: netchan.Channel[bytes]) -> None:
            for n, value in enumerate(values[channel.name]):
                await channel.send(value)
                if n % 40 == 39:  # while values are under way
                    channel.redundancy = rng.choice([*MODES, None])
            channel.close()

        async def take(channel: netchan.Channel[bytes]) -> list[bytes]:
            return [value async for value in channel]

        async def cut() -> None:
            for _ in range(5):
                await asyncio.sleep(rng.uniform(0.01, 0.1))
                rng.choice(proxies).links[-1].cut()

        got = await asyncio.gather(*(take(b) for _, b in pairs), *(send(a) for a, _ in pairs), cut())
        assert got[: len(MODES)] == list(values.values())


@program
async def test_mirror_of_one_channel_goes_on_while_another_one_waits_for_its_path() -> None:
    async with joined(2) as (near, far, proxies):
        a, b = (peer.open("twice", int, capacity=64) for peer in (near, far))
        c, d = (peer.open("once", int, capacity=64) for peer in (near, far))
        a.redundancy = "mirror"
        for n in range(20):
            await a.send(n)
            await c.send(n)
            assert (await b.recv(), await d.recv()) == (n, n)
        proxies[0].tap = silent
        before = near.stats()["resent"]
        await c.send(20)
        await a.send(20)
        assert await b.recv() == 20
        assert d.pending == 0 or near.stats()["resent"] > before  # a copy of it there was none
        assert await d.recv() == 20
        assert near.stats()["resent"] > before


@program
async def test_what_is_asked_and_what_is_in_force() -> None:
    async with joined(2) as (near, far, _proxies):
        ch = near.open("x", int, redundancy="parity(4, 1)")
        assert ch.redundancy == "parity(4, 1)"
        info = ch.redundancy_info
        assert info is not None
        assert (info.asked, info.in_force, info.since, info.paths) == ("parity(4, 1)", "parity(1, 1)", None, 2)
        assert "the channel is set to it" in info.why and "1 data symbols" in info.why
        ch.redundancy = None
        assert ch.redundancy is None
        info = ch.redundancy_info
        assert info is not None and info.in_force == "failover" and "the peer is set" in info.why
        near.redundancy = "auto"
        assert near.redundancy == "auto" and ch.redundancy is None
        assert near.redundancy_info.asked == "auto" and near.redundancy_info.since is not None
        other = far.open("x", int)
        for n in range(20):
            await ch.send(n)
            assert await other.recv() == n
        await until(lambda: near.redundancy_info.why != "nothing was measured yet")
        assert near.redundancy_info.paths == 2 and near.stats()["redundancy_picks"] >= 0
        with pytest.raises(ConfigError, match="not known; it is one of"):
            ch.redundancy = "raid0"
        with pytest.raises(ConfigError, match="not known"):
            near.open("y", int, redundancy="parity")
        assert near.open("x", int, redundancy="stripe") == ch and ch.redundancy == "stripe"
        with pytest.raises(ConfigError, match="is open with redundancy='stripe'"):
            near.open("x", int, redundancy="mirror")
        tx, _rx = ch.split()
        assert tx.redundancy == "stripe"
        tx.redundancy = "mirror"
        assert tx.sync_view().redundancy == "mirror"
        with pytest.raises(ConfigError, match="a channel in process has none"):
            netchan.channel(int, capacity=1).redundancy = "mirror"
        assert netchan.channel(int, capacity=1).redundancy_info is None


def test_blocking_front_has_the_same() -> None:
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with sync.dial(listener.addresses[0], identity=KEY) as near:
            far = listener.recv(timeout=10)
            near.add_path(listener.addresses[0], timeout=10)
            a = near.open("x", bytes, capacity=8, redundancy="parity(1, 1)")
            b = far.open("x", bytes, capacity=8, redundancy="mirror")
            done: list[bytes] = []

            def take() -> None:
                done.extend(b)

            taking = threading.Thread(target=take)
            taking.start()
            values = values_of(random.Random(1), 100)
            for n, value in enumerate(values):
                a.send(value, timeout=10)
                if n == 50:
                    a.redundancy = "stripe"
            a.close()
            taking.join(30)
            assert done == values and b.redundancy == "mirror" and a.redundancy == "stripe"
            assert near.stats()["parity_sent"] > 0


def test_trio_has_the_same() -> None:
    async def main() -> None:
        async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
            async with netchan.dial(listener.addresses[0], identity=KEY) as near:
                far = await listener.recv()
                await near.add_path(listener.addresses[0])
                a, b = near.open("x", bytes, redundancy="mirror"), far.open("x", bytes)
                values = values_of(random.Random(2), 60)

                async def send(items: Iterable[bytes]) -> None:
                    for item in items:
                        await a.send(item)
                    a.close()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send, values)
                    assert [value async for value in b] == values

    trio.run(main)


@pytest.mark.parametrize("options", [{"capacity": 0}, {"capacity": 8, "overflow": "drop_old"}, {"trunk": True}])
@program
async def test_channels_that_keep_to_one_path_take_the_word_all_the_same(options: dict[str, object]) -> None:
    async with joined(2) as (near, far, proxies):
        a = near.open("x", int, redundancy="parity(1, 1)", **options)  # type: ignore[call-overload]
        b = far.open("x", int, **options)  # type: ignore[call-overload]
        for n in range(30):
            sending = asyncio.ensure_future(a.send(n))
            assert await b.recv() == n
            await sending
            if n == 10:
                proxies[0].links[0].cut()


@program
async def test_end_that_came_in_a_value_has_a_mode_of_its_own() -> None:
    async with joined(2) as (near, far, _proxies):
        a, b = near.open("ends"), far.open("ends")
        tx, rx = netchan.channel(bytes, capacity=4).split()
        await a.send(rx)
        far_rx = await b.recv()
        tx.redundancy = None
        for n in range(10):
            await tx.send(bytes([n]))
            assert await far_rx.recv() == bytes([n])
