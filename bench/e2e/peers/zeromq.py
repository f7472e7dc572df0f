"""Peers ``zmq`` and ``zmq-curve``: pyzmq, plain and with CURVE, blocking and through zmq.asyncio.

W1 is PUSH/PULL, W2 PAIR, W3 eight PUSH into one PULL, W3b one XPUB to eight SUB, W4 and W5 DEALER sessions into one
ROUTER. High-water marks hold some 64 MiB and block, as these patterns do (XPUB is told to); messages from 64 KiB on go
without copies. A batch is 64 messages joined behind their lengths in one ZeroMQ message, because the library has no
call for many. CURVE seals with XSalsa20-Poly1305, not AES, and without an authenticator accepts any client key, which
favours these rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, FAN, FANS, AsyncLink, Link, Side, Spec
from bench.e2e.peers import HOST, free_port, installed
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
        self._address = ""

    def _socket(self, kind: int) -> Any:
        sock = self._context.socket(kind)
        each = self._spec.size * (64 if self._spec.style == "batch" else 1)
        each *= FAN if self._spec.workload in FANS else 1  # a mark counts for every connection
        sock.sndhwm = sock.rcvhwm = max(16, min(100_000, HELD_BYTES // each))
        sock.linger = 0
        if kind == self._zmq.XPUB:
            sock.xpub_nodrop = True  # send waits at the high-water mark
            sock.xpub_verbose = True  # every subscription is told, not only the first
        return sock

    def _bind(self, kind: int, address: str) -> Any:
        sock = self._socket(kind)
        if self._keys:
            sock.curve_server = True
            sock.curve_secretkey = self._keys["server"][1].encode()
        sock.bind(address)
        return sock

    def _connect(self, kind: int, address: str) -> Any:
        sock = self._socket(kind)
        if self._keys:
            sock.curve_serverkey = self._keys["server"][0].encode()
            sock.curve_publickey, sock.curve_secretkey = (key.encode() for key in self._keys["client"])
        sock.connect(address)
        return sock

    def listen(self) -> str:
        zmq = self._zmq
        if self._spec.workload == "w3b":  # subscribers are those who connect: the sender binds, to a port found here
            self._address = f"tcp://{HOST}:{free_port()}"
            return self._address
        kinds = {"w1": zmq.PULL, "w2": zmq.PAIR, "w3": zmq.PULL}
        self._server = self._bind(kinds.get(self._spec.workload, zmq.ROUTER), f"tcp://{HOST}:*")
        address: bytes = self._server.last_endpoint
        return address.decode().rstrip("\0")

    def accept(self) -> Any:
        if self._spec.workload == "w3b":
            sock = self._connect(self._zmq.SUB, self._address)
            sock.subscribe(b"")
            return self._link(sock, keep=False)
        if self._spec.workload in ("w1", "w2", "w3"):
            return self._link(self._server, keep=True)
        return RouterLink(self._server) if self._blocking else AsyncRouterLink(self._server)

    def dial(self, address: str) -> Any:
        zmq = self._zmq
        if self._spec.workload == "w3b":
            return self._subscribed(self._bind(zmq.XPUB, address))
        kinds = {"w1": zmq.PUSH, "w2": zmq.PAIR, "w3": zmq.PUSH}
        return self._link(self._connect(kinds.get(self._spec.workload, zmq.DEALER), address), keep=False)

    def _subscribed(self, sock: Any) -> Any:
        """Return the link when all have subscribed (what is sent before is lost), on a loop a coroutine of it."""
        if self._blocking:
            for _ in range(FAN):
                sock.recv()
            return self._link(sock, keep=False)

        async def wait() -> Any:
            for _ in range(FAN):
                await sock.recv()
            return self._link(sock, keep=False)

        return wait()

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
    joins = True

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
        return workload in ("w1", "w2", "w4", "w5", *FANS)

    def prepare(self, folder: Path) -> None:
        if self.encrypted:
            zmq: Any = import_module("zmq")
            pairs = {role: [key.decode() for key in zmq.curve_keypair()] for role in ("server", "client")}
            (folder / KEYS).write_text(json.dumps(pairs))

    def side(self, spec: Spec) -> Side:
        return SocketSide(spec, curve=self.encrypted)


PEERS = {"zmq": ZmqPeer("zmq", curve=False), "zmq-curve": ZmqPeer("zmq-curve", curve=True)}
