"""A dialler that shakes hands as it should and then says whatever a test wants, sealed with the right keys.

The handshake is netchan's own machine over a blocking socket; the session behind it is the tests' extension.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from netchan import Identity
from netchan._core import _selftest_session as core
from netchan.channel.codec import codec_for
from netchan.net.handshake import Established, Failed, HandshakeConfig, Initiator, Send
from netchan.net.identity import parse_node_id
from netchan.net.trust import make_policy

BYTES = codec_for(bytes)
CONTROL = 0
FIRST_STREAM = 16
DATA_LEN = 0x24


def varint(n: int) -> bytes:
    """RFC 9000 section 16, shortest form."""
    for log, limit in enumerate((1 << 6, 1 << 14, 1 << 30, 1 << 62)):
        if n < limit:
            return (n | log << (8 << log) - 2).to_bytes(1 << log, "big")
    raise ValueError(n)


def preface(name: bytes, *, capacity: int | None = None) -> bytes:
    """Stream preface of wire.md section 6.3, for a channel of bytes."""
    figure = 0 if capacity is None else capacity + 1
    body = (
        b"\0" + varint(len(name)) + name + varint(BYTES.id) + BYTES.schema_hash + varint(figure) + b"\x01\0" + varint(0)
    )
    return varint(len(body)) + body


def message(body: bytes) -> bytes:
    """wire.md section 7."""
    return varint(2 * len(body)) + body


def data_frame(offset: int, data: bytes, *, number: int | None = None, fin: bool = False) -> bytes:
    """A DATA frame that names its length."""
    kind = DATA_LEN | (2 if number is not None else 0) | (1 if fin else 0)
    return varint(kind) + varint(offset) + (varint(number) if number is not None else b"") + varint(len(data)) + data


def connect(address: str) -> tuple[socket.socket, str]:
    """A plain connection to a netchan address, TCP or Unix, and its node id."""
    if address.startswith("unix://"):
        node_id, _, place = address.removeprefix("unix://").rpartition("@")
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(place)
        return sock, node_id
    node_id, _, place = address.removeprefix("tcp://").rpartition("@")
    host, _, port = place.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, node_id


def machine(
    address: str, identity: Identity, *, psk: bytes | None = None, config: HandshakeConfig | None = None
) -> Initiator:
    """The dialling machine for an address."""
    node_id = address.partition("://")[2].rpartition("@")[0]
    config = config or HandshakeConfig(identity)
    policy = make_policy(
        None if node_id or psk else "any",
        own_id=identity.id_pub,
        dialling=True,
        psk=psk is not None,
        expected_id=parse_node_id(node_id) if node_id else None,
    )
    return Initiator(config, policy, os.urandom, psk=psk)


class RawPeer:
    """A session in the hands of a test.

    Attributes:
        sock: the connection; established: what the handshake gave; frames: (tag, frames) of all that came.
    """

    def __init__(self, address: str, identity: Identity | None = None, **options: Any) -> None:
        identity = identity or Identity.generate()
        self.sock, _ = connect(address)
        step = machine(address, identity, **options)
        self.established = shake(self.sock, step)
        root = bytes(self.established.root)
        self.core = core.Peer(0, root, self.established.binding)
        self.frames: list[tuple[int, bytes]] = []
        self.ended = False
        self._offset: dict[int, int] = {}
        self._next = FIRST_STREAM
        self.take(self.established.leftover)

    def take(self, data: bytes) -> None:
        """Open records."""
        if data:
            self.frames += self.core.open(data)

    def read(self, seconds: float) -> None:
        """Take what comes for so long; never answers with credit, only acknowledges records."""
        end = time.monotonic() + seconds
        while not self.ended and (left := end - time.monotonic()) > 0:
            self.sock.settimeout(max(left, 0.001))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            self.take(data)
            self.say(CONTROL, core.put("ack", 0, self.core.rx - 1, 0, self.core.rx - 1))

    def say(self, tag: int, frames: bytes) -> None:
        """Seal and send one record."""
        try:
            self.sock.sendall(self.core.seal(tag, frames))
        except OSError:
            self.ended = True

    def open(self, name: bytes, **options: Any) -> int:
        """Open a channel; its stream id."""
        stream = self._next
        self._next += 2
        head = preface(name, **options)
        self._offset[stream] = len(head)
        self.say(stream, data_frame(0, head))
        return stream

    def send(self, stream: int, body: bytes, number: int) -> None:
        """Send a value whether or not there is credit."""
        data = message(body)
        self.say(stream, data_frame(self._offset[stream], data, number=number))
        self._offset[stream] += len(data)

    def close_code(self) -> int | None:
        """Code of the SESSION_CLOSE that came."""
        for tag, frames in self.frames:
            if tag == CONTROL:
                for frame in core.parse(frames, tag)[0]:
                    if frame["type"] == 0x17:
                        return int(frame["a"])
        return None

    def close(self) -> None:
        """Go without a word."""
        self.sock.close()


def shake(sock: socket.socket, step: Initiator, *, wall_s: float | None = None) -> Established:
    """Run the dialling machine over a socket; raises what it failed with."""
    start = time.time() if wall_s is None else wall_s
    events = step.start(start, time.monotonic_ns())
    while True:
        for event in events:
            if isinstance(event, Send):
                sock.sendall(event.data)
            elif isinstance(event, Failed):
                raise event.error
            elif isinstance(event, Established):
                return event
        data = sock.recv(65536)
        events = step.feed(data, time.time(), time.monotonic_ns()) if data else step.eof()
