"""Sessions with several paths (docs/spec/session.md §5, §5.3; docs/spec/handshake.md §11)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import netchan
from netchan import Config, ConfigError, DialError, DialTimeout, sync
from tests.integration.kit import BOSS, KEY, TCP, program, until
from tests.integration.proxy import Direction, Link, Proxy


def place(address: str) -> str:
    """An address without the node id."""
    scheme, rest = address.split("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


@asynccontextmanager
async def joined(
    n: int = 2, config: Config | None = None
) -> AsyncIterator[tuple[netchan.Peer, netchan.Peer, list[Proxy]]]:
    """A session with n paths, each over a proxy of its own, in order.

    The dialler leaves first, and the proxies may be gone before its last word is through: the listener waits for no
    more.
    """
    settings = config or Config()
    far_settings = replace(settings, close_timeout=0.5)
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=far_settings) as listener:
        with contextlib.ExitStack() as stack:
            proxies = [stack.enter_context(Proxy(listener.addresses[0])) for _ in range(n)]
            async with netchan.dial(proxies[0].address, identity=KEY, config=settings) as near:
                far = await listener.recv()
                for proxy in proxies[1:]:
                    await near.add_path(proxy.address)
                await until(lambda: near.path_count == far.path_count == n)
                yield near, far, proxies


@program
async def test_second_path_stands_by_and_takes_over_when_the_first_is_cut() -> None:
    async with joined() as (near, far, proxies):
        assert [path.state for path in near.paths] == ["active", "standby"]
        assert [path.address for path in near.paths] == [place(proxy.address) for proxy in proxies]
        a, b = (peer.open("x", int, capacity=64) for peer in (near, far))
        for n in range(10):
            await a.send(n)
        assert [await b.recv() for _ in range(10)] == list(range(10))
        proxies[0].links[0].cut()
        begun = time.monotonic()
        for n in range(10):
            await a.send(n)
            await b.send(n)
        assert [await b.recv() for _ in range(10)] == list(range(10))
        assert [await a.recv() for _ in range(10)] == list(range(10))
        assert time.monotonic() - begun < 1.0
        assert near.stats()["resumes"] == far.stats()["resumes"] == 0
        await until(lambda: near.path_count == far.path_count == 2)  # what was lost is made again
        assert sorted(path.address for path in near.paths) == sorted(place(proxy.address) for proxy in proxies)


@program
async def test_silence_of_one_path_costs_round_trips_and_not_seconds() -> None:
    stop = threading.Event()

    def silent(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        return b"" if stop.is_set() else unit

    async with joined() as (near, far, proxies):
        a, b = (peer.open("x", int, capacity=64) for peer in (near, far))
        for n in range(50):
            await a.send(n)
            assert await b.recv() == n
        proxies[0].tap = silent
        stop.set()
        begun = time.monotonic()
        await a.send(50)
        assert await b.recv() == 50
        assert time.monotonic() - begun < 0.5
        assert near.path_count == 2 and near.paths[0].state == "suspect"
        assert near.stats()["resent"] > 0


@program
async def test_mirror_waits_for_no_path_that_falls_silent() -> None:
    stop = threading.Event()

    def silent(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        return b"" if stop.is_set() else unit

    async with joined() as (near, far, proxies):
        near.redundancy = far.redundancy = "mirror"
        assert [path.state for path in near.paths] == ["active", "active"]
        a, b = (peer.open("x", int, capacity=64) for peer in (near, far))
        slowest = 0.0
        for n in range(300):
            if n == 100:
                proxies[0].tap = silent
                stop.set()
            begun = time.monotonic()
            await a.send(n)
            assert await b.recv() == n
            await b.send(n)
            assert await a.recv() == n
            slowest = max(slowest, time.monotonic() - begun) if n >= 100 else 0.0
        assert slowest < 0.045  # a path is suspect after 50 ms at the least
        assert near.path_count == 2


@pytest.mark.parametrize("mode", ["failover", "stripe", "mirror", "parity(2, 1)"])
@program
async def test_values_survive_whatever_becomes_of_three_paths(mode: str) -> None:
    rng = random.Random(mode)
    async with joined(3) as (near, far, proxies):
        near.redundancy = far.redundancy = mode
        values = [n.to_bytes(4, "big") + bytes(rng.choice([0, 60, 3000, 70_000])) for n in range(400)]
        a, b = (peer.open("x", bytes, capacity=64) for peer in (near, far))

        async def send(channel: netchan.Channel[bytes]) -> None:
            for value in values:
                await channel.send(value)
            channel.close()

        async def take(channel: netchan.Channel[bytes]) -> list[bytes]:
            return [value async for value in channel]

        async def cut() -> None:
            for _ in range(12):
                await asyncio.sleep(rng.uniform(0.01, 0.1))
                rng.choice(proxies).links[-1].cut()

        got = await asyncio.gather(send(a), send(b), take(a), take(b), cut())
        assert got[2] == got[3] == values
        await until(lambda: near.path_count == far.path_count == 3)


@program
async def test_parity_waits_for_no_path_that_falls_silent() -> None:
    def silent(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        return b""

    async with joined(3) as (near, far, proxies):
        near.redundancy = "parity(2,1)"
        assert near.redundancy == "parity(2, 1)"
        a, b = (peer.open("x", bytes, capacity=64) for peer in (near, far))
        for n in range(100):
            await a.send(n.to_bytes(2, "big"))
            assert await b.recv() == n.to_bytes(2, "big")
        await asyncio.sleep(0.1)  # all is acknowledged: each path takes what is due there
        await until(lambda: all(path.state == "active" for path in near.paths))
        for n in range(300):
            if n == 3:
                proxies[1].tap = silent
                before, begun = (near.stats()["resent"], far.stats()["rebuilt"]), time.monotonic()
            for part in range(2):  # a group: one path has its symbol, the next one the parity, in turn
                await a.send(bytes([part]) * 3000)
            for part in range(2):
                assert await b.recv() == bytes([part]) * 3000
            if n >= 3 and far.stats()["rebuilt"] > before[1]:
                break
        # Nothing was sent again: a path is suspect after 50 ms at the least, which a slow machine may take for this.
        late = time.monotonic() - begun > 0.045
        assert late or near.stats()["resent"] == before[0]
        assert far.stats()["rebuilt"] > before[1] or near.stats()["resent"] > before[0]
        assert near.stats()["parity_sent"] > 0
        for n in range(100):
            await a.send(n.to_bytes(2, "big"))
            assert await b.recv() == n.to_bytes(2, "big")


@program
async def test_stripe_adds_up_what_slow_paths_carry() -> None:
    def slow(link: Link, direction: Direction, number: int, unit: bytes) -> bytes | None:
        time.sleep(len(unit) / 8e6)  # 8 MB/s
        return unit

    async with joined(2) as (near, far, proxies):
        for proxy in proxies:
            proxy.tap = slow
        a, b = (peer.open("x", bytes, capacity=256) for peer in (near, far))
        block = bytes(60_000)

        async def took(n: int) -> float:
            begun = time.monotonic()

            async def send() -> None:
                for _ in range(n):
                    await a.send(block)

            sending = asyncio.ensure_future(send())
            for _ in range(n):
                assert await b.recv() == block
            await sending
            return time.monotonic() - begun

        await took(100)  # buffers on the way are full, windows have grown
        one = min(await took(150), await took(150))
        near.redundancy = "stripe"
        assert near.redundancy == "stripe" and far.redundancy == "failover"
        assert [path.state for path in near.paths] == ["active", "active"]
        both = min(await took(150), await took(150))
        assert 1.4 < one / both < 2.5, (one, both)


@program
async def test_path_over_another_carrier(tmp_path: Path) -> None:
    places = [TCP, f"unix://{tmp_path}/n.sock"]
    async with netchan.listen(places, identity=BOSS, trust=[KEY.node_id]) as listener:
        tcp, unix = sorted(listener.addresses)
        async with netchan.dial(tcp, identity=KEY) as near:
            far = await listener.recv()
            path = await near.add_path(unix)
            assert (path.id, path.address, path.state) == (2, place(unix), "standby")
            a, b = (peer.open("x", int) for peer in (near, far))
            near.remove_path(near.paths[0])
            await until(lambda: [p.address for p in near.paths] == [place(unix)])
            await a.send(1)
            assert await b.recv() == 1
            await until(lambda: far.path_count == 1)
            await asyncio.sleep(0.3)
            assert near.path_count == 1  # it is not made again


@program
async def test_dial_with_several_addresses_has_a_path_to_each(tmp_path: Path) -> None:
    places = [TCP, f"unix://{tmp_path}/n.sock"]
    async with netchan.listen(places, identity=BOSS, trust=[KEY.node_id]) as listener:
        async with netchan.dial(list(listener.addresses), identity=KEY) as near:
            far = await listener.recv()
            await until(lambda: near.path_count == far.path_count == 2)
            assert sorted(path.address for path in near.paths) == sorted(map(place, listener.addresses))
            assert far.stats()["resumes"] == 0


@program
async def test_what_cannot_be_said_or_reached() -> None:
    config = Config(dial_timeout=0.5)
    async with joined(1, config) as (near, far, proxies):
        with pytest.raises(ConfigError, match="made by that side"):
            await far.add_path(proxies[0].address)
        with pytest.raises(ConfigError, match="is the only one"):
            near.remove_path(0)
        with pytest.raises(ConfigError, match="there is no path 7"):
            near.remove_path(7)
        with pytest.raises(ConfigError, match="failover, stripe, mirror"):
            near.redundancy = "raid0"
        with pytest.raises(ConfigError, match="names another node"):
            await near.add_path(f"tcp://{KEY.node_id}@127.0.0.1:9")
        with pytest.raises(DialTimeout, match=r"no path within 0\.5 s"):
            await near.add_path("tcp://127.0.0.1:9")
        assert near.path_count == 1
        await near.aclose()
        assert near.paths == () and near.path_count == 0
        with pytest.raises(DialError, match="has ended"):
            await near.add_path(proxies[0].address)


@program
async def test_session_without_a_lease_has_one_path() -> None:
    async with joined(1, Config(lease=0)) as (near, _, proxies):
        with pytest.raises(ConfigError, match="lease 0 has one path"):
            await near.add_path(proxies[0].address)


@program
async def test_more_paths_than_were_agreed_are_refused() -> None:
    config = Config(limits=netchan.Limits(paths=2), dial_timeout=0.5)
    async with joined(2, config) as (near, far, proxies):
        with pytest.raises(DialTimeout):
            await near.add_path(proxies[0].address)
        assert near.path_count == far.path_count == 2


@program
async def test_leaving_with_several_paths_says_so_on_one_at_the_least() -> None:
    async with joined(3) as (near, far, proxies):
        proxies[0].links[0].cut()
        await near.aclose()
        begun = time.monotonic()
        await far.wait_closed()
        assert time.monotonic() - begun < 1.0 and far.error is None


def test_blocking_front_has_the_same() -> None:
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with Proxy(listener.addresses[0]) as proxy, sync.dial(listener.addresses[0], identity=KEY) as near:
            far = listener.recv()
            path = near.add_path(proxy.address, timeout=5)
            assert path.state == "standby" and near.path_count == 2
            a, b = (peer.open("x", int, capacity=8) for peer in (near, far))
            near.remove_path(0)
            a.send(1, timeout=5)
            assert b.recv(timeout=5) == 1


@program
async def test_address_that_gives_no_path_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with socket.create_server(("127.0.0.1", 0)) as other:  # accepts, and says nothing
            deaf = f"tcp://127.0.0.1:{other.getsockname()[1]}"
            async with netchan.dial([listener.addresses[0], deaf, "tcp://127.0.0.1:9"], identity=KEY) as near:
                far = await listener.recv()
                await until(lambda: "127.0.0.1:9 yet" in caplog.text)
                assert near.path_count == far.path_count == 1
    said = [record.getMessage() for record in caplog.records if "yet" in record.getMessage()]
    assert len([line for line in said if ":9 yet" in line]) == 1 and "no path to " in said[0]


@program
async def test_path_that_is_waited_for_ends_with_its_session() -> None:
    async with joined(1) as (near, _, _proxies):
        adding = asyncio.ensure_future(near.add_path("tcp://127.0.0.1:9"))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await near.aclose()
        with pytest.raises(DialError, match="has ended"):
            await adding
        assert time.monotonic() - begun < 3.0  # and not Config.dial_timeout


@program
async def test_add_path_that_is_cancelled_leaves_its_path_wanted() -> None:
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with Proxy(listener.addresses[0]) as proxy:
            async with netchan.dial(listener.addresses[0], identity=KEY) as near:
                far = await listener.recv()
                adding = asyncio.ensure_future(near.add_path(proxy.address))
                await asyncio.sleep(0)
                adding.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await adding
                await until(lambda: near.path_count == far.path_count == 2)
