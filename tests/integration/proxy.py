"""A byte proxy between a dialler and a listener: records what passes, and changes it as a test says.

It knows where messages of the handshake and records begin and end (docs/spec/handshake.md §2.1, docs/spec/wire.md §3),
so that a change can be named as (direction, unit, offset). Two threads per connection; nothing here is netchan's code.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]
"""up: from the dialler to the listener."""
Tap = Callable[["Link", Direction, int, bytes], bytes | None]
"""(link, direction, number of the unit, its bytes) -> bytes to pass on; None: end the connection instead."""

FINISH, JOIN, RESUME, ACCEPT, RESUMED = 3, 6, 7, 9, 10
LAST = {"up": (JOIN, FINISH), "down": (JOIN, ACCEPT, RESUMED)}
HEADER = struct.Struct(">BBHBB8sQ")


@dataclass(frozen=True)
class Edit:
    """One change of one unit (message of the handshake or record).

    Attributes:
        kind: flip, zero, drop, insert, repeat, swap, cut (end the connection
            there) or lose (pass nothing from there on).
        direction: whose bytes.
        unit: number of the unit in its direction, from 0.
        at: offset in the unit; taken modulo its length.
        n: bytes that are changed, where that has a meaning.
    """

    kind: str
    direction: Direction
    unit: int
    at: int
    n: int = 1

    def apply(self, data: bytes) -> tuple[bytes, bool]:
        """(changed bytes, end the connection behind them?)"""
        at, n = self.at % len(data), self.n
        head, mid, rest = data[:at], data[at : at + n], data[at + n :]
        if self.kind == "flip":
            return head + bytes((mid[0] ^ 1 << self.at % 8,)) + mid[1:] + rest, False
        if self.kind == "zero":
            return head + bytes((mid[0] ^ 0xFF,)) + bytes(len(mid) - 1) + rest, False
        if self.kind == "drop":
            return head + rest, False
        if self.kind == "insert":
            return head + b"\xa5" * n + mid + rest, False
        if self.kind == "repeat":
            return head + mid + mid + rest, False
        if self.kind == "swap":
            return head + rest[:n] + mid + rest[n:], False
        if self.kind == "cut":
            return head, True
        raise ValueError(self.kind)


@dataclass(eq=False)
class Link:
    """One proxied connection.

    Attributes:
        units: what came, by direction, one entry per message or record, before any change.
        edit: the change to make, once.
        applied: it was made.
    """

    client: socket.socket
    server: socket.socket
    edit: Edit | None
    units: dict[Direction, list[bytes]] = field(default_factory=lambda: {"up": [], "down": []})
    applied: threading.Event = field(default_factory=threading.Event)
    lock: dict[Direction, threading.Lock] = field(
        default_factory=lambda: {"up": threading.Lock(), "down": threading.Lock()}
    )

    def wire(self, direction: Direction) -> bytes:
        """All bytes of a direction."""
        return b"".join(self.units[direction])

    def inject(self, direction: Direction, data: bytes) -> None:
        """Send bytes of our own, between two units."""
        with self.lock[direction]:
            (self.server if direction == "up" else self.client).sendall(data)

    def cut(self) -> None:
        """End it on both sides."""
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Proxy:
    """See the module head; ``with`` closes it.

    Args:
        target: address of the listener, ``tcp://[id@]host:port``.
        edit: for every connection through it.
        tap: sees every unit; ``edit`` is applied to what it gives.
    """

    def __init__(self, target: str, edit: Edit | None = None, tap: Tap | None = None) -> None:
        node_id, _, place = target.removeprefix("tcp://").rpartition("@")
        host, _, port = place.rpartition(":")
        self._target = (host, int(port))
        self.edit, self.tap = edit, tap
        self.links: list[Link] = []
        self._closed = False
        self._door = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._door.getsockname()[1]}"
        self.address = f"tcp://{node_id}@{self.place}" if node_id else f"tcp://{self.place}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything and wait for the threads."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for link in self.links:
            link.cut()
        for thread in self._threads:
            thread.join(5)
        for link in self.links:
            link.client.close()
            link.server.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._door.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server, self.edit)
            self.links.append(link)
            for direction, source, drain in (("up", client, server), ("down", server, client)):
                thread = threading.Thread(target=self._pump, args=(link, direction, source, drain), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, link: Link, direction: Direction, source: socket.socket, drain: socket.socket) -> None:
        try:
            for number, unit in enumerate(_units(source, direction)):
                link.units[direction].append(unit)
                data: bytes | None = unit
                if self.tap is not None:
                    data = self.tap(link, direction, number, unit)
                edit = link.edit
                end = data is None
                lose = False
                if data and edit is not None and (edit.direction, edit.unit) == (direction, number):
                    if edit.kind == "lose":
                        data, lose = data[: edit.at % len(data)], True
                    else:
                        data, end = edit.apply(data)
                    if data != unit:
                        link.applied.set()
                if data:
                    with link.lock[direction]:
                        drain.sendall(data)
                if end:
                    link.cut()
                    return
                if lose:
                    while source.recv(65536):
                        pass
                    break
            with contextlib.suppress(OSError):
                drain.shutdown(socket.SHUT_WR)
        except OSError:
            link.cut()


def _units(source: socket.socket, direction: Direction) -> Iterator[bytes]:
    """Whole units of a stream; what is left at its end comes last, as it is."""
    data = bytearray()
    handshake, asked = True, False
    while True:
        if asked and len(data) >= 4:  # behind RESUME: a HELLO, or the first record, whose epoch and flags are 0
            handshake, asked = data[:2] == b"\1\1" and any(data[2:4]), False
        need = (22 if handshake else 2) if len(data) < (22 if handshake else 2) else _size(data, handshake)
        if len(data) >= max(need, 2):
            unit = bytes(data[:need])
            del data[:need]
            if handshake and unit[0] in LAST[direction]:
                handshake = False
            asked = handshake and unit[0] == RESUME
            yield unit
            continue
        more = source.recv(65536)
        if not more:
            break
        data += more
    if data:
        yield bytes(data)


def _size(data: bytes | bytearray, handshake: bool) -> int:
    """Bytes of the unit that begins here."""
    if handshake:
        return max(22, int(HEADER.unpack_from(data)[2]))
    return 2 + int.from_bytes(data[:2], "big")
