"""A connection that takes nothing more, because nobody reads it over there, stops nobody but what goes over it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

import netchan
from netchan import Config
from tests.integration.kit import BOSS, KEY, TCP, program, until
from tests.integration.proxy import Direction, Link, Proxy

BULK = bytes(60_000)


@contextlib.contextmanager
def narrow(target: str) -> Iterator[tuple[Proxy, threading.Event]]:
    """A proxy that reads little ahead, and reads nothing from the dialler while the event is clear."""
    passes = threading.Event()
    passes.set()

    def tap(link: Link, direction: Direction, number: int, unit: bytes) -> bytes:
        if direction == "up":
            passes.wait(30)
        return unit

    with Proxy(target, tap=tap) as proxy:
        proxy._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            yield proxy, passes
        finally:
            passes.set()


@pytest.mark.parametrize("paths", [1, 2])
@program
async def test_acknowledgement_that_is_due_and_cannot_be_sent_stops_nobody(paths: int) -> None:
    """Both sides live in one loop: an engine that tries again and again would keep the other side from reading."""
    config = Config(close_timeout=0.5)  # the proxy may be gone before the last word is through
    async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=config) as listener:
        with narrow(listener.addresses[0]) as (proxy, passes):
            async with netchan.dial(proxy.address, identity=KEY) as near:
                far = await listener.recv()
                for n in range(1, paths):
                    await near.add_path(proxy.address)
                    await until(lambda n=n: near.path_count == far.path_count == n + 1)  # type: ignore[misc]
                sides = [[peer.open(f"c{i}", bytes) for i in range(16)] for peer in (near, far)]
                for a, b in zip(*sides, strict=True):
                    await asyncio.gather(a.send(b""), b.recv())
                passes.clear()
                for a in sides[0]:
                    a.send_nowait(BULK)  # more than the connection takes
                for n in range(8):
                    await sides[1][n].send(b"%d" % n)
                    assert await sides[0][n].recv() == b"%d" % n
                    await asyncio.sleep(0.04)  # longer than an acknowledgement may wait
                passes.set()
                for b in sides[1]:
                    assert await b.recv() == BULK
