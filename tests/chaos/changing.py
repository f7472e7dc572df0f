"""The programs at the ends of links that come and go: a value every 2 ms each way, and when each one arrived.

    python -m tests.chaos.changing take tcp|udp LINKS          at 10.77.LINK.2; prints its addresses, then what it saw
    python -m tests.chaos.changing send ADDRESSES MODE         from the other namespace, until a line of input comes

    python -m tests.chaos.changing echo tcp|udp                answers 20 questions at 10.77.0.2
    python -m tests.chaos.changing ask tcp|udp                 asks them, and prints how many seconds each one took

The first two print one line of JSON at the end: ``arrivals`` (seconds of the monotonic clock, which is that of the
machine), ``events`` (time, kind, path), and the dialler ``attempts`` (when each connection was begun).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

import netchan
from netchan.net import redial
from tests.chaos.ends import PORT, host

EVERY = 0.002
QUESTIONS = 20
Seen = dict[str, list[Any]]


async def run(peer: netchan.Peer, over: asyncio.Event, seen: Seen, *, up: bool) -> None:
    """Send one way and take the other, until ``over`` or the end of the session."""
    tx, rx = (peer.open(name, int, capacity=8192) for name in (("up", "down") if up else ("down", "up")))

    async def send() -> None:
        n = 0
        while not over.is_set():
            await tx.send(n)
            n += 1
            await asyncio.sleep(EVERY)
        tx.close()

    async def take() -> None:
        n = 0
        async for value in rx:
            if value != n:
                raise AssertionError(f"value {value} instead of {n}")
            n += 1
            seen["arrivals"].append(time.monotonic())

    async def watch() -> None:
        async for event in peer.events:
            seen["events"].append((time.monotonic(), event.kind, event.path))

    watching = asyncio.create_task(watch())
    await asyncio.gather(send(), take())
    watching.cancel()


async def take(carrier: str, links: int, seen: Seen) -> None:
    places = [f"{carrier}://{host(link)}:{PORT}" for link in range(links)]
    async with netchan.listen(places, identity=netchan.Identity.generate(), trust="any") as listener:
        print(" ".join(listener.addresses), flush=True)
        peer = await listener.recv()
        over = asyncio.Event()

        async def until_other_side_ends() -> None:
            await peer.wait_closed()

        running = asyncio.create_task(run(peer, over, seen, up=False))
        stop = peer.open("stop", bytes)
        async for _ in stop:
            pass
        over.set()
        await running
        await until_other_side_ends()


async def send(addresses: list[str], mode: str, seen: Seen) -> None:
    plain = redial.Redial._connect

    def connect(self: Any, *arguments: Any) -> None:
        seen["attempts"].append(time.monotonic())
        plain(self, *arguments)

    redial.Redial._connect = connect  # type: ignore[method-assign]
    config = netchan.Config(dial_timeout=30, watch_network=mode != "unwatched")
    async with netchan.dial(addresses, identity=netchan.Identity.generate(), config=config) as peer:
        while peer.path_count < len(addresses):
            await asyncio.sleep(0.01)
        peer.redundancy = "failover" if mode == "unwatched" else mode
        print("ready", flush=True)
        over = asyncio.Event()
        running = asyncio.create_task(run(peer, over, seen, up=True))
        await asyncio.to_thread(sys.stdin.readline)
        over.set()
        stop = peer.open("stop", bytes)
        stop.close()
        await running


def echo(carrier: str) -> None:
    """Answer a question on a new connection, or in a datagram: what the network itself takes for it."""
    kind = socket.SOCK_STREAM if carrier == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as sock:
        sock.bind((host(0), PORT + 1))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        print("ready", flush=True)
        for _ in range(QUESTIONS):
            if kind == socket.SOCK_DGRAM:
                sock.sendto(*sock.recvfrom(100))
                continue
            conn, _ = sock.accept()
            with conn:
                conn.sendall(conn.recv(100))


def ask(carrier: str) -> list[float]:
    """Seconds from the beginning of a connection to the answer over it."""
    found = []
    for _ in range(QUESTIONS):
        with socket.socket(type=socket.SOCK_STREAM if carrier == "tcp" else socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            begun = time.monotonic()
            sock.connect((host(0), PORT + 1))
            sock.send(b"?")
            sock.recv(100)
            found.append(time.monotonic() - begun)
    return found


def main() -> None:
    """See the module head."""
    if sys.argv[1] == "echo":
        echo(sys.argv[2])
        return
    if sys.argv[1] == "ask":
        print(json.dumps(ask(sys.argv[2])))
        return
    seen: Seen = {"arrivals": [], "events": [], "attempts": []}
    role, what, *rest = sys.argv[1:]
    asyncio.run(take(what, int(rest[0]), seen) if role == "take" else send(what.split(), rest[0], seen))
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
