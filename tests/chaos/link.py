"""The links: a process that carries packets between two network namespaces, over a pair of TUN devices for each link.

    python -m tests.chaos.link NAME '[{"rate": 10e6, "delay": 0.015, "queue": 25, "loss": 0.01}]'

It makes the namespaces NAME-a and NAME-b, joined by link number i from 10.77.i.1 to 10.77.i.2, prints "ready", and
takes all down when its input ends. A line of input is other specifications, which count from then on; the line "count"
has it print, as JSON, for each link the bytes that side a gave to it, those of them that side b got, and the bytes that
side b gave to it. Both directions are alike where nothing else is said; IPv6 does not pass.

Specification: rate (bit/s, 0: no limit), delay (s, each way), queue (packets that wait for the rate), loss (share),
burst (mean length of a row of losses; 1: each by itself), flip (share of packets with one bit changed behind the
headers), twice (share), late (share that is 5 ms late, and so overtaken), dead (nothing passes), mark (a router that
marks instead of dropping: packets that wait while it does; 0: it does not), nat (how the side a looks to the side b: 0
as it is; another number is another binding of a translator, with other ports, and what is sent to an older one is
lost), moves (a translator's binding has another address, too), first (so many packets of side a pass, and no other; 0:
all).
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

from tests.chaos.nat import Translator, adjusted

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
HEADERS = 28
"""Bytes that are not changed by ``flip``: IP and UDP; the kernel would drop the packet, which is a loss."""
LATE_S = 0.005


@dataclass
class Spec:
    """See the module head."""

    rate: float = 0.0
    delay: float = 0.0
    queue: int = 1000
    loss: float = 0.0
    burst: float = 1.0
    flip: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    dead: bool = False
    nat: int = 0
    moves: bool = False
    mark: int = 0
    first: int = 0


class Way:
    """One direction."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._free_at = 0.0
        self._bad = False
        self.full = False

    def pass_on(self, spec: Spec, size: int, now: float) -> float | None:
        """When a packet of this size comes out; None: never. Whether it is one to be marked: ``full``."""
        self.full = False
        rng = self._rng
        if spec.dead or self._lost(spec):
            return None
        at = now
        if spec.rate:
            self._free_at = max(self._free_at, now)
            waiting = (self._free_at - now) * spec.rate / 8
            if waiting > spec.queue * 1500:
                return None
            self.full = 0 < spec.mark * 1500 < waiting
            self._free_at += size * 8 / spec.rate
            at = self._free_at
        return at + spec.delay + (LATE_S if rng.random() < spec.late else 0.0)

    def _lost(self, spec: Spec) -> bool:
        """Two states (Gilbert): in the bad one all is lost; ``burst`` is its mean length in packets."""
        if spec.burst <= 1:
            return self._rng.random() < spec.loss
        leave = 1 / spec.burst
        if self._bad:
            self._bad = self._rng.random() >= leave
        else:
            self._bad = self._rng.random() < spec.loss * leave / max(1e-9, 1 - spec.loss)
        return self._bad


def marked(packet: bytes) -> bytes:
    """With the mark of congestion (RFC 3168 §5), if its sender says that it understands it."""
    if packet[1] & 3 == 0:
        return packet
    (checksum,) = struct.unpack_from("!H", packet, 10)
    new = bytes((packet[0], packet[1] | 3))
    checksum = adjusted(checksum, packet[:2], new)
    return new + packet[2:10] + struct.pack("!H", checksum) + packet[12:]


def sh(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def device(name: str, namespace: str, address: str) -> int:
    """The descriptor of a TUN device that was put into the namespace."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    sh("ip", "link", "set", name, "netns", namespace)
    inside = ("ip", "netns", "exec", namespace, "ip")
    sh(*inside, "address", "add", f"{address}/24", "dev", name)
    sh(*inside, "link", "set", name, "up", "txqueuelen", "1000")
    return fd


def read_specs(text: str) -> list[Spec]:
    return [Spec(**spec) for spec in json.loads(text)]


def main() -> None:
    name, specs = sys.argv[1], read_specs(sys.argv[2])
    rng = random.Random(7)
    namespaces = (f"{name}-a", f"{name}-b")
    try:
        for namespace in namespaces:
            sh("ip", "netns", "add", namespace)
            sh("ip", "netns", "exec", namespace, "ip", "link", "set", "lo", "up")
        fds = [
            device(f"{name}{'ab'[side]}{i}", namespaces[side], f"10.77.{i}.{side + 1}")
            for i in range(len(specs))
            for side in range(2)
        ]
        print("ready", flush=True)
        serve(fds, specs, rng)
    finally:
        for namespace in namespaces:
            subprocess.run(("ip", "netns", "del", namespace), check=False, stderr=subprocess.DEVNULL)


def serve(fds: list[int], specs: list[Spec], rng: random.Random) -> None:
    """Until the input ends. The two ends of a link are next to each other in `fds`."""
    ways = [Way(rng) for _ in fds]
    translators = [Translator() for _ in specs]
    entered = [0] * len(fds)
    packets = [0] * len(fds)
    came_out = [0] * len(fds)
    queue: list[tuple[float, int, int, bytes]] = []
    n = 0
    poll = select.poll()
    for fd in (*fds, 0):
        poll.register(fd, select.POLLIN)
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) * 1000 if queue else 1000.0
        for fd, _ in poll.poll(wait if wait >= 0.2 else 0):
            if fd == 0:
                line = sys.stdin.readline()
                if not line:
                    return
                if line == "count\n":
                    told = [(entered[2 * i], came_out[2 * i + 1], entered[2 * i + 1]) for i in range(len(specs))]
                    print(json.dumps(told), flush=True)
                    continue
                specs = read_specs(line)
                continue
            place = fds.index(fd)
            spec = specs[place // 2]
            for _ in range(64):
                try:
                    packet = os.read(fd, 2048)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4:
                    continue
                entered[place] += len(packet)
                packets[place] += 1
                if place % 2 == 0 and spec.first and packets[place] > spec.first:
                    continue
                translated = translators[place // 2].translate(packet, place % 2 == 0, spec.nat, spec.moves)
                now = time.monotonic()
                at = ways[place].pass_on(spec, len(packet), now)
                if at is None or translated is None:
                    continue
                packet = marked(translated) if ways[place].full else translated
                if len(packet) > HEADERS and rng.random() < spec.flip:
                    bad = rng.randrange(HEADERS, len(packet))
                    packet = packet[:bad] + bytes((packet[bad] ^ 1 << rng.randrange(8),)) + packet[bad + 1 :]
                for _ in range(2 if rng.random() < spec.twice else 1):
                    n += 1
                    heapq.heappush(queue, (at, n, place ^ 1, packet))
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, to, packet = heapq.heappop(queue)
            try:
                came_out[to] += os.write(fds[to], packet)
            except OSError:
                pass  # the device's queue is full, or it is gone


if __name__ == "__main__":
    main()
