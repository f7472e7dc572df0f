"""The programs at the ends of the link: one sends values for a while, the other takes them and counts.

    python -m tests.chaos.ends take udp|tcp|kernel     at 10.77.0.2; prints its address, then what came, as JSON
    python -m tests.chaos.ends send ADDRESS SECONDS    from the other namespace; prints what was sent
    python -m tests.chaos.ends answer udp|tcp          at 10.77.0.2: takes sessions and gives each value back
    python -m tests.chaos.ends ask ADDRESS COUNT       so many sessions after each other, a value there and back in each
    python -m tests.chaos.ends dial ADDRESS COUNT      the same; the first dial that fails is the end
    python -m tests.chaos.ends join ADDRESS SECONDS    one session to the first address, a path to the second one

``kernel`` is a plain TCP socket with the kernel's CUBIC, for comparison. Several kinds joined by ``+`` are paths of one
session, the i-th over link i, and what is sent is striped over them.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from contextlib import suppress
from hashlib import sha256

import netchan
from netchan import sync

PORT = 7000
SIZE = 8_000
ATTEMPTS = 5
"""Dials of one session: the kernel waits up to two minutes before it says again what was lost some times in a row."""
DIAL_S = 60.0
"""Time for a session to come up, and for an answer: a packet can be lost many times in a row."""


def body(n: int) -> bytes:
    """Value number n."""
    return sha256(n.to_bytes(8, "big")).digest() * (SIZE // 32)


def host(link: int) -> str:
    """Where the side that takes is reached over this link."""
    return f"10.77.{link}.2"


def take(kind: str) -> dict[str, float]:
    if kind == "kernel":
        with socket.create_server((host(0), PORT)) as door:
            print("kernel://", flush=True)
            sock, _ = door.accept()
            got, first = 0, 0.0
            while data := sock.recv(1 << 20):
                first = first or time.monotonic()
                got += len(data)
            return {"bytes": got, "seconds": time.monotonic() - first}
    places = [f"{each}://{host(link)}:{PORT}" for link, each in enumerate(kind.split("+"))]
    with sync.listen(places, identity=netchan.Identity.generate(), trust="any") as listener:
        print(" ".join(map(str, listener.addresses)), flush=True)
        peer = listener.recv(timeout=30)
        count, first = 0, 0.0
        longest, last = 0.0, time.monotonic()
        with peer.open("x", bytes, capacity=4096) as channel:
            for value in channel:
                now = time.monotonic()
                first = first or now
                longest, last = max(longest, now - last) if count else 0.0, now
                if value != body(count):
                    raise AssertionError(f"value {count} is another one")
                count += 1
        return {"bytes": count * SIZE, "seconds": last - first, "longest_s": longest, "values": count}


def send(address: str, seconds: float) -> dict[str, float]:
    begun = time.monotonic()
    if address.startswith("kernel://"):
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
            sock.connect((host(0), PORT))
            sent = 0
            while time.monotonic() - begun < seconds:
                sent += sock.send(bytes(65_536))
            return {"bytes": sent}
    count = 0
    config = netchan.Config(close_timeout=60, dial_timeout=30)
    addresses = address.split()
    with sync.dial(addresses, identity=netchan.Identity.generate(), config=config) as peer:
        channel = peer.open("x", bytes, capacity=4096)
        if len(addresses) > 1:
            peer.redundancy = "stripe"
            while peer.path_count < len(addresses) and time.monotonic() - begun < seconds:
                time.sleep(0.01)
            begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            channel.send(body(count))
            count += 1
        paths = peer.paths
        channel.close()
        peer.aclose()
        stats = peer.stats()
    seen = {
        "ecn": all(path.ecn for path in paths),
        "marks": sum(path.marks for path in paths),
        "lost": sum(path.loss for path in paths),
    }
    return {"bytes": count * SIZE, "values": count, "resent": stats["resent"], "rtt_us": stats["rtt_us"], **seen}


def answer(kind: str) -> dict[str, float]:
    """Until the link goes down; a session that fails is one that the side that asks makes again."""
    places = [f"{each}://{host(link)}:{PORT}" for link, each in enumerate(kind.split("+"))]
    config = netchan.Config(handshake_timeout=DIAL_S)
    with sync.listen(places, identity=netchan.Identity.generate(), trust="any", config=config) as listener:
        print(" ".join(map(str, listener.addresses)), flush=True)
        for peer in listener:
            threading.Thread(target=give_back, args=(peer,), daemon=True).start()
    return {}


def give_back(peer: sync.Peer) -> None:
    with suppress(netchan.NetchanError), peer.open("x", bytes) as channel:
        for value in channel:
            channel.send(value)


def ask(address: str, count: float, attempts: int = ATTEMPTS) -> dict[str, float]:
    config = netchan.Config(dial_timeout=DIAL_S, handshake_timeout=20.0, close_timeout=5)
    identity = netchan.Identity.generate()
    took = []
    again = 0
    for n in range(int(count)):
        begun = time.monotonic()
        for attempt in range(attempts):
            try:
                peer = sync.dial(address, identity=identity, config=config)
                break
            except netchan.DialTimeout:
                again += 1
                if attempt + 1 == attempts:
                    raise
        with peer, peer.open("x", bytes) as channel:
            channel.send(body(n))
            if channel.recv(timeout=DIAL_S) != body(n):
                raise AssertionError(f"value {n} came back as another one")
            took.append(time.monotonic() - begun)
    return {"sessions": len(took), "again": again, "longest_s": max(took), "seconds": sum(took)}


def dial(address: str, count: float) -> dict[str, float]:
    """As ``ask``, and a dial that fails is the end."""
    return ask(address, count, attempts=1)


def join(addresses: str, seconds: float) -> dict[str, float]:
    first, second = addresses.split()
    with sync.dial(first, identity=netchan.Identity.generate(), config=netchan.Config(datagrams=True)) as peer:
        with suppress(netchan.NetchanError):
            peer.add_path(second, timeout=seconds)
        with peer.open("x", bytes) as channel:  # the session itself is none the worse
            channel.send(body(0))
            if channel.recv(timeout=DIAL_S) != body(0):
                raise AssertionError("the value came back as another one")
        return {"paths": peer.path_count}


if __name__ == "__main__":
    role, what, *rest = sys.argv[1:]
    roles = {"take": take, "send": send, "answer": answer, "ask": ask, "dial": dial, "join": join}
    print(json.dumps(roles[role](what, *map(float, rest))), flush=True)
