"""Sessions over UDP (docs/spec/session.md §5.4, §5.5; docs/spec/handshake.md §2.4)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import netchan
from netchan import Config, ConfigError, DialError, DialTimeout, sync
from tests.integration.kit import BOSS, KEY, TCP, program, until
from tests.integration.udp_proxy import Direction, Relay

UDP = "udp://127.0.0.1:0"
BOTH = Config(datagrams=True)


def only(addresses: tuple[str, ...], carrier: str) -> str:
    return next(address for address in addresses if address.startswith(carrier))


@asynccontextmanager
async def over_udp(seed: int = 1, config: Config = BOTH) -> AsyncIterator[tuple[netchan.Peer, netchan.Peer, Relay]]:
    """A session whose one path is UDP, over a relay."""
    async with netchan.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        with Relay(listener.addresses[0], seed) as relay:
            async with netchan.dial(relay.address, identity=KEY, config=config) as near:
                yield near, await listener.recv(), relay


async def exchange(near: netchan.Peer, far: netchan.Peer, name: str, n: int, size: int = 0) -> None:
    """n values each way, in order and whole."""
    a, b = (peer.open(name, bytes, capacity=256) for peer in (near, far))
    rng = random.Random(n)
    bodies = [i.to_bytes(4, "big") + rng.randbytes(rng.randrange(size + 1)) for i in range(n)]

    async def send(end: netchan.Channel[bytes]) -> None:
        for body in bodies:
            await end.send(body)
        end.close()

    async def receive(end: netchan.Channel[bytes]) -> None:
        assert [body async for body in end] == bodies

    await asyncio.gather(send(a), send(b), receive(a), receive(b))


@program
async def test_session_begins_lives_and_ends_over_udp() -> None:
    async with over_udp() as (near, far, _):
        assert [path.address.partition("://")[0] for path in near.paths] == ["udp"]
        assert near.node_id == BOSS.node_id and far.node_id == KEY.node_id
        await exchange(near, far, "x", 300, 5_000)
        zero_a, zero_b = (peer.open("zero", int, capacity=0) for peer in (near, far))
        taken, _ = await asyncio.gather(zero_b.recv(), zero_a.send(7))
        assert taken == 7
        begun = time.monotonic()
        await near.aclose()
        with pytest.raises(netchan.ChannelError):
            await far.open("late", int).recv()
        assert time.monotonic() - begun < 2


@pytest.mark.parametrize("address", [UDP, "udp://[::1]:0"], ids=["IPv4", "IPv6"])
def test_marks_of_congestion_are_used_where_they_pass(address: str) -> None:
    async def main() -> None:
        async with (
            netchan.listen(address, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener,
            netchan.dial(listener.addresses[0], identity=KEY, config=BOTH) as near,
        ):
            far = await listener.recv()
            await exchange(near, far, "x", 300, 5_000)
            for peer in (near, far):
                await until(lambda peer=peer: peer.paths[0].ecn, "marks in use")
                assert peer.paths[0].marks == 0
            await exchange(near, far, "y", 300, 5_000)
            assert near.paths[0].ecn and far.paths[0].ecn

    asyncio.run(main())


@program
async def test_marks_that_the_way_washes_away_are_not_used() -> None:
    async with over_udp() as (near, far, _):  # what a relay sends is without marks
        await exchange(near, far, "x", 300, 5_000)
        assert not near.paths[0].ecn and not far.paths[0].ecn and near.paths[0].marks == 0


@program
async def test_nothing_is_lost_over_a_network_that_loses_doubles_and_reorders() -> None:
    async with over_udp() as (near, far, relay):
        relay.loss, relay.twice, relay.delay, relay.jitter = 0.05, 0.02, 0.002, 0.004
        await exchange(near, far, "x", 400, 6_000)
        relay.loss = 0.0
        assert near.stats()["resent"] > 0 or far.stats()["resent"] > 0


@pytest.mark.parametrize(("direction", "number"), [("up", 0), ("down", 0), ("up", 1), ("down", 1)])
def test_each_message_of_the_handshake_may_be_lost(direction: Direction, number: int) -> None:
    with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:
            lost: list[int] = []

            def tap(way: Direction, n: int, data: bytes) -> bool:
                if way == direction and n == number and not lost:
                    lost.append(n)
                    return False
                return True

            relay.tap = tap
            with sync.dial(relay.address, identity=KEY, config=BOTH) as near:
                far = listener.recv(timeout=10)
                with near.open("x", int) as a, far.open("x", int) as b:
                    a.send(1)
                    assert b.recv(timeout=10) == 1
                assert lost == [number]
            assert listener.stats().handshakes_ok == 1


@program
async def test_path_is_kept_while_it_is_silent_for_a_while_and_the_session_longer() -> None:
    async with over_udp() as (near, far, relay):
        a, b = (peer.open("x", int, capacity=1000) for peer in (near, far))
        await a.send(0)
        assert await b.recv() == 0
        relay.silent = True
        for n in range(1, 50):
            await a.send(n)
        await asyncio.sleep(0.7)
        relay.silent = False
        assert [await b.recv() for _ in range(49)] == list(range(1, 50))


@program
async def test_udp_carries_on_where_tcp_is_cut_and_back() -> None:
    async with netchan.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        places = [only(listener.addresses, "tcp"), only(listener.addresses, "udp")]
        async with netchan.dial(places, identity=KEY, config=BOTH) as near:
            far = await listener.recv()
            await until(lambda: near.path_count == far.path_count == 2)
            a, b = (peer.open("x", bytes, capacity=64) for peer in (near, far))

            async def send() -> None:
                for n in range(600):
                    await a.send(n.to_bytes(4, "big") * 200)
                a.close()

            sending = asyncio.ensure_future(send())
            got = [await b.recv() for _ in range(100)]
            near.remove_path(near.paths[0])
            await until(lambda: len(near.paths) == 1)
            assert near.paths[0].address.startswith("udp://")
            got += [await b.recv() for _ in range(200)]
            await near.add_path(places[0])
            near.remove_path(next(path for path in near.paths if path.address.startswith("udp")))
            got += [body async for body in b]
            await sending
            assert got == [n.to_bytes(4, "big") * 200 for n in range(600)]


@pytest.mark.parametrize("mode", ["failover", "stripe", "mirror"])
def test_unlike_carriers_share_a_session_in_each_mode(mode: str) -> None:
    with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(only(listener.addresses, "udp")) as relay:
            relay.loss, relay.jitter = 0.02, 0.002
            with sync.dial(only(listener.addresses, "tcp"), identity=KEY, config=BOTH) as near:
                far = listener.recv(timeout=10)
                near.add_path(relay.address)
                near.redundancy = mode  # type: ignore[assignment]
                with near.open("x", bytes, capacity=16) as a, far.open("x", bytes, capacity=16) as b:
                    for n in range(300):
                        a.send(n.to_bytes(4, "big") * 2000)
                        assert b.recv(timeout=10) == n.to_bytes(4, "big") * 2000


@program
async def test_session_that_lost_its_udp_path_goes_on_over_another() -> None:
    async with netchan.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(only(listener.addresses, "udp")) as relay:
            async with netchan.dial(relay.address, identity=KEY, config=BOTH) as near:
                far = await listener.recv()
                a, b = (peer.open("x", int, capacity=100) for peer in (near, far))
                await a.send(1)
                assert await b.recv() == 1
                relay.silent = True
                for n in range(2, 20):
                    await a.send(n)
                await near.add_path(only(listener.addresses, "tcp"))
                assert [await b.recv() for _ in range(18)] == list(range(2, 20))


@program
async def test_path_moves_with_its_peer_behind_a_nat() -> None:
    async with netchan.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:
            async with netchan.dial(relay.address, identity=KEY, config=BOTH) as near:
                far = await listener.recv()
                a, b = (peer.open("x", int, capacity=1000) for peer in (near, far))
                for turn in range(5):
                    for n in range(50):
                        await a.send(n)
                        assert await b.recv() == n
                        await b.send(-n)
                        assert await a.recv() == -n
                    relay.move()
                    assert near.path_count == far.path_count == 1, turn
                await until(lambda: listener.stats().moved >= 4)
                assert (listener.stats().resumed, listener.stats().handshakes_ok) == (0, 1)
                assert [path.id for path in far.paths] == [0]


@program
async def test_copy_of_a_datagram_from_elsewhere_moves_nothing() -> None:
    async with netchan.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:
            async with netchan.dial(relay.address, identity=KEY, config=BOTH) as near:
                far = await listener.recv()
                a, b = (peer.open("x", int, capacity=1000) for peer in (near, far))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
                    thief.settimeout(0.05)
                    got: list[bytes] = []

                    def tap(way: Direction, n: int, data: bytes) -> bool:
                        if way == "up" and n % 3 == 0:  # it is quicker than the original
                            thief.sendto(data, relay._target)
                            time.sleep(0.002)
                        return True

                    relay.tap = tap
                    for n in range(60):
                        await a.send(n)
                        assert await b.recv() == n
                        await b.send(n)
                        assert await a.recv() == n
                    relay.tap = None
                    with contextlib.suppress(TimeoutError):
                        while True:
                            got.append(thief.recv(2_000))
                # What the thief got is challenges that it cannot read, no more than three times what it sent.
                assert relay.seen["down"] > 60
                assert sum(map(len, got)) <= 3 * 20 * 1_200
                for n in range(60):
                    await a.send(n)
                    assert await b.recv() == n


@program
async def test_many_sessions_share_the_port_of_a_listener() -> None:
    async with netchan.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        async with asyncio.TaskGroup() as group:
            dials = [group.create_task(_dialled(listener.addresses[0], n), name=f"dial {n}") for n in range(20)]
            for _ in dials:
                far = await listener.recv()
                group.create_task(_echo(far))


async def _dialled(address: str, n: int) -> None:
    async with netchan.dial(address, identity=KEY, config=BOTH) as near:
        channel = near.open("echo", int)
        for i in range(20):
            await channel.send(100 * n + i)
            assert await channel.recv() == 100 * n + i
        channel.close()


async def _echo(far: netchan.Peer) -> None:
    channel = far.open("echo", int)
    async for value in channel:
        await channel.send(value)
    await far.aclose()


@program
async def test_garbage_on_the_path_and_icmp_change_nothing() -> None:
    async with over_udp() as (near, far, relay):
        rng = random.Random(5)
        flying: list[bytes] = []

        def tap(way: Direction, n: int, data: bytes) -> bool:
            flying.append(data)
            return True

        relay.tap = tap
        a, b = (peer.open("x", int, capacity=100) for peer in (near, far))
        for n in range(100):
            await a.send(n)
            assert await b.recv() == n
            out = next(iter(relay._out.values()))
            for _ in range(5):
                old = bytearray(rng.choice(flying))
                old[rng.randrange(len(old))] ^= 1 << rng.randrange(8)
                out.sendto(bytes(old), relay._target)
                out.sendto(rng.choice(flying), relay._target)  # a replay
                out.sendto(rng.randbytes(rng.randrange(1, 1_400)), relay._target)
        await exchange(near, far, "y", 50, 3_000)


class TestStrangers:
    def test_nobody_without_a_key_gets_a_byte(self) -> None:
        rng = random.Random(3)
        with sync.listen(UDP, identity=BOSS, trust="any", psk=b"p" * 32, config=BOTH) as listener:
            host, _, port = listener.addresses[0].rpartition("@")[2].rpartition(":")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((host, int(port)))
                for kind in (0, 1, 3, 6, 7, 9, 0x3F, 0x40, 0x7F, 0xFF):
                    for size in (0, 1, 39, 40, 60, 61, 200, 1_300, 4_096, 5_000):
                        sock.send((bytes((kind, 1)) + size.to_bytes(2, "big") + rng.randbytes(size))[:size])
                sock.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    sock.recv(2_000)
            with pytest.raises(DialTimeout):
                sync.dial(
                    listener.addresses[0], identity=KEY, psk=b"q" * 32, config=Config(datagrams=True, dial_timeout=0.5)
                )
            assert listener.stats().accepted == 0


class TestMistakes:
    def test_path_of_a_session_without_datagrams_is_refused_with_the_line_to_write(self) -> None:
        with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id]) as listener:
            with sync.dial(only(listener.addresses, "tcp"), identity=KEY) as near:
                with pytest.raises(ConfigError, match=r"Config\(datagrams=True\)"):
                    near.add_path(only(listener.addresses, "udp"))

    def test_port_where_nobody_listens_does_not_answer(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        with pytest.raises(DialError) as caught:
            sync.dial(f"udp://{BOSS.node_id}@127.0.0.1:{port}", identity=KEY, config=Config(dial_timeout=0.5))
        assert isinstance(caught.value, DialTimeout)


def test_paths_that_are_given_up_make_room_at_once() -> None:
    with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with sync.dial(only(listener.addresses, "tcp"), identity=KEY, config=BOTH) as near:
            far = listener.recv(timeout=10)
            begun = time.monotonic()
            for _ in range(12):  # more than a session may have at a time
                path = near.add_path(only(listener.addresses, "udp"))
                near.remove_path(path)
            assert time.monotonic() - begun < 5
            while far.path_count > 1 and time.monotonic() - begun < 10:
                time.sleep(0.01)
            assert (near.path_count, far.path_count) == (1, 1)
