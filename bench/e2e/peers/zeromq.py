"""Peers ``zmq`` and ``zmq-curve``: pyzmq, plain and with CURVE, blocking and through zmq.asyncio.

W1 is PUSH/PULL, W2 PAIR, W4 and W5 DEALER sessions into one ROUTER. High-water marks hold some 64 MiB and block, as
these patterns do; messages from 64 KiB on go without copies. A batch is 64 messages joined behind their lengths in one
ZeroMQ message, because the library has no call for many. CURVE seals with XSalsa20-Poly1305, not AES, and without an
authenticator accepts any client key, which favours these rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, AsyncLink, Link, Side, Spec
from bench.e2e.peers import installed
from bench.e2e.peers.framing import join, split

HELD_BYTES = 64 << 20
NOCOPY_BYTES = 65536
KEYS = "curve.json"


class SocketLink(Link):
    """A PUSH, PULL, PAIR or DEALER socket."""

    def __init__(self, sock: Any, *, copy: bool, keep: bool) -> None:
        self._sock = sock
        self._keep = keep
        if copy:
            self.send, self.recv = sock.send, sock.recv
        else:
            self.send, self.recv = self._send_nocopy, self._recv_nocopy

    def _send_nocopy(self, value: bytes) -> None:
        self._sock.send(value, copy=False)

    def _recv_nocopy(self) -> Any:
        return self._sock.recv(copy=False).buffer

    def send_batch(self, values: list[bytes]) -> None:
        self._sock.send(join(values))

    def recv_batch(self) -> Sequence[object]:
        return split(self._sock.recv())[0]

    def close(self) -> None:
        if not self._keep:
            self._sock.close()


class RouterLink(Link):
    """A session as the ROUTER sees it: the sender of the last message."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._who = b""

    def send(self, value: bytes) -> None:
        self._sock.send_multipart((self._who, value))

    def recv(self) -> bytes:
        self._who, value = self._sock.recv_multipart()
        return bytes(value)

    def close(self) -> None:
        """Nothing to close: the sessions share one socket."""


class AsyncSocketLink(AsyncLink):
    """The same through zmq.asyncio."""

    def __init__(self, sock: Any, *, copy: bool, keep: bool) -> None:
        self._sock = sock
        self._keep = keep
        if copy:
            self.send, self.recv = sock.send, sock.recv
        else:
            self.send, self.recv = self._send_nocopy, self._recv_nocopy

    async def _send_nocopy(self, value: bytes) -> None:
        await self._sock.send(value, copy=False)

    async def _recv_nocopy(self) -> Any:
        return (await self._sock.recv(copy=False)).buffer

    async def send_batch(self, values: list[bytes]) -> None:
        await self._sock.send(join(values))

    async def recv_batch(self) -> Sequence[object]:
        return split(await self._sock.recv())[0]

    async def close(self) -> None:
        if not self._keep:
            self._sock.close()


class AsyncRouterLink(AsyncLink):
    """The same through zmq.asyncio."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._who = b""

    async def send(self, value: bytes) -> None:
        await self._sock.send_multipart((self._who, value))

    async def recv(self) -> bytes:
        self._who, value = await self._sock.recv_multipart()
        return bytes(value)

    async def close(self) -> None:
        """Nothing to close: the sessions share one socket."""


class SocketSide:
    """One context; binds one socket or connects many."""

    def __init__(self, spec: Spec, *, curve: bool) -> None:
        zmq: Any = import_module("zmq")
        self._zmq = zmq
        self._spec = spec
        self._blocking = spec.front == BLOCKING
        module = zmq if self._blocking else import_module("zmq.asyncio")
        self._context = module.Context()
        self._keys = json.loads((spec.folder / KEYS).read_text()) if curve else None
        self._server: Any = None

    def _socket(self, kind: int) -> Any:
        sock = self._context.socket(kind)
        each = self._spec.size * (64 if self._spec.style == "batch" else 1)
        sock.sndhwm = sock.rcvhwm = max(16, min(100_000, HELD_BYTES // each))
        sock.linger = 0
        return sock

    def listen(self) -> str:
        zmq = self._zmq
        self._server = self._socket({"w1": zmq.PULL, "w2": zmq.PAIR}.get(self._spec.workload, zmq.ROUTER))
        if self._keys:
            self._server.curve_server = True
            self._server.curve_secretkey = self._keys["server"][1].encode()
        self._server.bind("tcp://127.0.0.1:*")
        address: bytes = self._server.last_endpoint
        return address.decode().rstrip("\0")

    def accept(self) -> Any:
        if self._spec.workload in ("w1", "w2"):
            return self._link(self._server, keep=True)
        return RouterLink(self._server) if self._blocking else AsyncRouterLink(self._server)

    def dial(self, address: str) -> Any:
        zmq = self._zmq
        sock = self._socket({"w1": zmq.PUSH, "w2": zmq.PAIR}.get(self._spec.workload, zmq.DEALER))
        if self._keys:
            sock.curve_serverkey = self._keys["server"][0].encode()
            sock.curve_publickey, sock.curve_secretkey = (key.encode() for key in self._keys["client"])
        sock.connect(address)
        return self._link(sock, keep=False)

    def _link(self, sock: Any, *, keep: bool) -> Any:
        copy = self._spec.size < NOCOPY_BYTES
        return (SocketLink if self._blocking else AsyncSocketLink)(sock, copy=copy, keep=keep)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._context.destroy(linger=0)


class ZmqPeer:
    """`zmq` or `zmq-curve`."""

    mutual = False

    def __init__(self, name: str, *, curve: bool) -> None:
        self.name = name
        self.encrypted = curve

    def missing(self) -> str | None:
        reason = installed("zmq")
        if reason is None and self.encrypted and not import_module("zmq").has("curve"):
            return "libzmq was built without CURVE"
        return reason

    def versions(self) -> dict[str, str]:
        zmq: Any = import_module("zmq")
        return {"pyzmq": zmq.pyzmq_version(), "libzmq": zmq.zmq_version()}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return workload in ("w1", "w2", "w4", "w5")

    def prepare(self, folder: Path) -> None:
        if self.encrypted:
            zmq: Any = import_module("zmq")
            pairs = {role: [key.decode() for key in zmq.curve_keypair()] for role in ("server", "client")}
            (folder / KEYS).write_text(json.dumps(pairs))

    def side(self, spec: Spec) -> Side:
        return SocketSide(spec, curve=self.encrypted)


PEERS = {"zmq": ZmqPeer("zmq", curve=False), "zmq-curve": ZmqPeer("zmq-curve", curve=True)}
