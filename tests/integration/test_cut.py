"""A connection that ends inside a record: both sides know at once (docs/spec/session.md §5)."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from pathlib import Path

import pytest

import netchan
from netchan import Config, sync
from tests.integration.kit import BOSS, KEY, program
from tests.integration.proxy import Direction, Edit, Proxy
from tests.integration.rawpeer import RawPeer, data_frame, message, preface

AT_ONCE = 2.0
"""Seconds; silence is believed to be an end after 10 only."""


async def over(*peers: netchan.Peer) -> float:
    """Seconds until these sessions are over."""
    begun = time.monotonic()
    async with asyncio.timeout(5):
        while not all(peer.closed for peer in peers):
            await asyncio.sleep(0.001)
    return time.monotonic() - begun


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("there", [1, 2, 3, 20, -1])
@program
async def test_record_half_read_does_not_hide_the_end(how: str, there: int) -> None:
    async with netchan.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=Config(lease=0.0)) as listener:
        raw = await asyncio.to_thread(RawPeer, listener.addresses[0])
        peer = await listener.recv()
        name = raw.open(b"x")
        raw.send(name, b"whole", 0)
        channel = peer.open("x", bytes)
        assert await channel.recv() == b"whole"
        at = len(preface(b"x")) + len(message(b"whole"))
        raw.sock.sendall(raw.core.seal(name, data_frame(at, message(b"half" * 100), number=1))[:there])
        await asyncio.sleep(0.05)
        assert not peer.closed
        if how == "reset":
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        assert await over(peer) < AT_ONCE
        with pytest.raises(netchan.SessionLost):
            await channel.recv()


@program
async def test_peer_that_takes_nothing_any_more_is_left_and_keeps_nobody_busy(tmp_path: Path) -> None:
    """Its half that reads is shut, the other one stays open and silent: each write fails, and no end ever comes."""
    config = Config(lease=0.0)
    async with netchan.listen(f"unix://{tmp_path / 's'}", identity=BOSS, trust="any", config=config) as listener:
        raw = await asyncio.to_thread(RawPeer, listener.addresses[0])
        peer = await listener.recv()
        name = raw.open(b"x")
        raw.send(name, b"whole", 0)
        channel = peer.open("x", bytes)
        assert await channel.recv() == b"whole"
        raw.sock.shutdown(socket.SHUT_RD)
        at = len(preface(b"x")) + len(message(b"whole"))
        raw.say(name, data_frame(at, message(b"last words"), number=1))  # asks for an acknowledgement, too
        begun, busy = time.monotonic(), time.process_time()
        channel.send_nowait(b"into the void")
        await asyncio.sleep(0.2)
        assert await channel.recv() == b"last words"
        while not peer.closed:
            assert time.monotonic() - begun < 5.0
            await asyncio.sleep(0.01)
        assert time.process_time() - busy < 1.0
        with pytest.raises(netchan.SessionLost):
            await channel.recv()
        raw.close()


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(("unit", "at"), [(2, 1), (2, 2), (6, 30), (12, 700)])
@program
async def test_both_sides_know_of_a_cut_inside_a_record_also_while_they_send(
    direction: Direction, unit: int, at: int
) -> None:
    async def busy(channel: netchan.Channel[bytes]) -> None:
        with pytest.raises(netchan.SessionLost):
            while True:
                await channel.send(bytes(1000))

    config = Config(lease=0.0)
    async with netchan.listen("tcp://127.0.0.1:0", identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        with Proxy(listener.addresses[0], Edit("cut", direction, unit, at)) as proxy:
            near = await netchan.dial(proxy.address, identity=KEY, config=config)
            far = await listener.recv()
            pairs = [peer.open("x", bytes) for peer in (near, far)]
            tasks = [asyncio.create_task(busy(channel)) for channel in pairs]
            async with asyncio.timeout(5):
                while not proxy.links[0].applied.is_set():
                    for channel in pairs:
                        while channel.pending:
                            channel.recv_nowait()
                    await asyncio.sleep(0.001)
            assert await over(near, far) < AT_ONCE
            await asyncio.gather(*tasks)


def test_blocked_program_knows_of_it_too() -> None:
    with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=Config(lease=0.0)) as listener:
        raw = RawPeer(listener.addresses[0])
        peer = listener.recv(timeout=5)
        raw.open(b"x")
        channel = peer.open("x", bytes)
        raw.sock.sendall(raw.core.seal(16, b"\x00" * 50)[:30])
        begun = time.monotonic()
        raw.close()
        with pytest.raises(netchan.SessionLost):
            channel.recv(timeout=8)
        assert time.monotonic() - begun < AT_ONCE
