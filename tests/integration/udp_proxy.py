"""A datagram proxy between a dialler and a listener: loses, doubles, delays and reorders as a test says.

One thread for all; nothing here is netchan's code.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Literal

Direction = Literal["up", "down"]
"""up: from the dialler to the listener."""


class Relay:
    """See the module head; ``with`` closes it.

    Args:
        target: address of the listener, ``udp://[id@]host:port``.
        seed: of the dice.

    Attributes:
        loss, twice: share of the datagrams that is lost, or comes twice.
        delay, jitter: seconds on the way.
        silent: nothing passes.
        tap: (direction, its number, datagram) -> False: it is lost.
        seen: datagrams that came, by direction.
    """

    def __init__(self, target: str, seed: int = 1) -> None:
        node_id, _, place = target.removeprefix("udp://").rpartition("@")
        host, _, port = place.rpartition(":")
        self._target = (host, int(port))
        self.loss = self.twice = self.delay = self.jitter = 0.0
        self.silent = False
        self.tap: Callable[[Direction, int, bytes], bool] | None = None
        self.seen: dict[Direction, int] = {"up": 0, "down": 0}
        self._rng = random.Random(seed)
        self._door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._door.bind(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._door.getsockname()[1]}"
        self.address = f"udp://{node_id}@{self.place}" if node_id else f"udp://{self.place}"
        self._out: dict[tuple[str, int], socket.socket] = {}
        self._queue: list[tuple[float, int, socket.socket, tuple[str, int], bytes]] = []
        self._n = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._door.sendto(b"", self._door.getsockname())  # so that the thread looks
        self._thread.join()
        for sock in (self._door, *self._out.values()):
            sock.close()

    def move(self) -> None:
        """From now on the dialler comes from other addresses, as behind a NAT that has forgotten it."""
        old, self._out = self._out, {}
        for sock in old.values():
            sock.close()

    def _run(self) -> None:
        while not self._closed:
            patience = 0.05
            if self._queue:
                patience = max(0.0, min(patience, self._queue[0][0] - time.monotonic()))
            out = dict(self._out)
            by_socket = {sock: peer for peer, sock in out.items()}
            ready, _, _ = select.select([self._door, *by_socket], [], [], patience)
            for sock in ready:
                for _ in range(64):
                    try:
                        data, peer = sock.recvfrom(65_535, socket.MSG_DONTWAIT)
                    except OSError:
                        break
                    if not data:
                        continue
                    if sock is self._door:
                        self._pass("up", self._toward(peer), self._target, data)
                    else:
                        self._pass("down", self._door, by_socket[sock], data)
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, sock, to, data = heapq.heappop(self._queue)
                try:
                    sock.sendto(data, to)
                except OSError:
                    pass

    def _toward(self, peer: tuple[str, int]) -> socket.socket:
        sock = self._out.get(peer)
        if sock is None:
            sock = self._out[peer] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind(("127.0.0.1", 0))
        return sock

    def _pass(self, direction: Direction, sock: socket.socket, to: tuple[str, int], data: bytes) -> None:
        number = self.seen[direction]
        self.seen[direction] += 1
        if self.tap is not None and not self.tap(direction, number, data):
            return
        if self.silent or self._rng.random() < self.loss:
            return
        for _ in range(2 if self._rng.random() < self.twice else 1):
            self._n += 1
            at = time.monotonic() + self.delay + self.jitter * self._rng.random()
            heapq.heappush(self._queue, (at, self._n, sock, to, data))
