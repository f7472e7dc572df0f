"""The programs at the ends of the link: one sends values for a while, the other takes them and counts.

    python -m tests.chaos.ends take udp|tcp|kernel     at 10.77.0.2; prints its address, then what came, as JSON
    python -m tests.chaos.ends send ADDRESS SECONDS    from the other namespace; prints what was sent

``kernel`` is a plain TCP socket with the kernel's CUBIC, for comparison. Several kinds joined by ``+`` are paths of one
session, the i-th over link i, and what is sent is striped over them.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from hashlib import sha256

PORT = 7000
SIZE = 8_000
SEED = b"\7" * 32


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
    import netchan
    from netchan import sync

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
    import netchan
    from netchan import sync

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
        channel.close()
        peer.aclose()
        stats = peer.stats()
    return {"bytes": count * SIZE, "values": count, "resent": stats["resent"], "rtt_us": stats["rtt_us"]}


if __name__ == "__main__":
    role, what, *rest = sys.argv[1:]
    print(json.dumps(take(what) if role == "take" else send(what, float(rest[0]))), flush=True)
