"""Peers ``tcp`` and ``tls``: length-framed messages over the standard library, blocking, asyncio streams, uvloop.

No Nagle; one write a message up to 16 KiB and two beyond (the copy costs more); receivers read through a buffer, in
the batch style as much as is here. TLS authenticates the server only, as such programs do; that favours these rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, FANS, AsyncLink, Link, Side, Spec
from bench.e2e.peers import HOST, certificate, installed
from bench.e2e.peers.framing import APART_BYTES, LENGTH, join, lacking, pack, split

BACKLOG = 1024
LIMIT_BYTES = 16 << 20  # asyncio: a reader pauses at twice this; pausing within a message costs more than memory


READ_BYTES = 256 << 10
RECORD_BYTES = 16384  # a TLS read never gives more
BUFFER_BYTES = 64 << 10
PENDING_BYTES = 1 << 20  # asyncio: bytes that may wait in a transport before drain() waits


class SocketLink(Link):
    """One blocking socket."""

    read_bytes = RECORD_BYTES

    def __init__(self, sock: socket.socket, size: int) -> None:
        self._sock = sock
        self._read = sock.makefile("rb", BUFFER_BYTES).read
        self._rest = b""
        self._single = size >= APART_BYTES

    def send(self, value: bytes) -> None:
        if len(value) < APART_BYTES:
            self._sock.sendall(pack(len(value)) + value)
        else:
            self._sock.sendall(pack(len(value)))
            self._sock.sendall(value)

    def recv(self) -> bytes:
        head = self._read(4)
        if len(head) < 4:
            raise EOFError("the other side left")
        value: bytes = self._read(LENGTH.unpack(head)[0])
        return value

    def send_batch(self, values: list[bytes]) -> None:
        self._sock.sendall(join(values))

    def recv_batch(self) -> Sequence[object]:
        if self._single:
            return [self.recv()]
        buffer = self._rest
        if need := lacking(buffer):
            parts = [buffer]
            while need > 0:
                part = self._sock.recv(self.read_bytes)
                if not part:
                    raise EOFError("the other side left")
                parts.append(part)
                need -= len(part)
            buffer = b"".join(parts)
        values, self._rest = split(buffer)
        return values

    def close(self) -> None:
        self._sock.close()


class PlainSocketLink(SocketLink):
    """Without TLS one system call can gather length and message, and a read can take more than a record."""

    read_bytes = READ_BYTES

    def send(self, value: bytes) -> None:
        if len(value) < APART_BYTES:
            self._sock.sendall(pack(len(value)) + value)
            return
        sent = self._sock.sendmsg((pack(len(value)), value))
        if sent < len(value) + 4:
            self._sock.sendall(memoryview(value)[sent - 4 :])


class SocketSide:
    """Blocking listener or dialler, with or without TLS."""

    def __init__(self, spec: Spec, encrypted: bool) -> None:
        self._folder, self._size = spec.folder, spec.size
        self._encrypted = encrypted
        self._server: ssl.SSLContext | None = None
        self._client = certificate.client_context(spec.folder) if encrypted else None
        self._listener: socket.socket | None = None

    def listen(self) -> str:
        if self._encrypted:
            self._server = certificate.server_context(self._folder)
        self._listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        return str(self._listener.getsockname()[1])

    def accept(self) -> Link:
        assert self._listener is not None
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._server is None:
            return PlainSocketLink(sock, self._size)
        return SocketLink(self._server.wrap_socket(sock, server_side=True), self._size)

    def dial(self, address: str) -> Link:
        sock = socket.create_connection((HOST, int(address)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._client is None:
            return PlainSocketLink(sock, self._size)
        secure = self._client.wrap_socket(sock, server_hostname=HOST)
        certificate.check_suite(secure.cipher())
        return SocketLink(secure, self._size)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()


class StreamLink(AsyncLink):
    """One pair of asyncio streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        self._reader, self._writer = reader, writer
        self._single = size >= APART_BYTES
        self._rest = b""
        writer.transport.set_write_buffer_limits(high=PENDING_BYTES)

    async def send(self, value: bytes) -> None:
        writer = self._writer
        if len(value) < APART_BYTES:
            writer.write(pack(len(value)) + value)
        else:
            writer.write(pack(len(value)))
            writer.write(value)
        await writer.drain()

    async def recv(self) -> bytes:
        head = await self._reader.readexactly(4)
        return await self._reader.readexactly(LENGTH.unpack(head)[0])

    async def send_batch(self, values: list[bytes]) -> None:
        self._writer.write(join(values))
        await self._writer.drain()

    async def recv_batch(self) -> Sequence[object]:
        if self._single:
            return [await self.recv()]
        buffer = self._rest
        if need := lacking(buffer):
            parts = [buffer]
            while need > 0:
                part = await self._reader.read(READ_BYTES)
                if not part:
                    raise EOFError("the other side left")
                parts.append(part)
                need -= len(part)
            buffer = b"".join(parts)
        values, self._rest = split(buffer)
        return values

    async def flush(self) -> None:
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


class StreamSide:
    """asyncio or uvloop listener or dialler, with or without TLS."""

    def __init__(self, spec: Spec, encrypted: bool) -> None:
        self._folder, self._size = spec.folder, spec.size
        self._encrypted = encrypted
        self._client = certificate.client_context(spec.folder) if encrypted else None
        self._came: asyncio.Queue[StreamLink] = asyncio.Queue(BACKLOG)
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        context = certificate.server_context(self._folder) if self._encrypted else None

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._came.put(StreamLink(reader, writer, self._size))

        self._server = await asyncio.start_server(take, HOST, 0, ssl=context, backlog=BACKLOG, limit=LIMIT_BYTES)
        return str(self._server.sockets[0].getsockname()[1])

    async def accept(self) -> AsyncLink:
        return await self._came.get()

    async def dial(self, address: str) -> AsyncLink:
        name = HOST if self._encrypted else None
        reader, writer = await asyncio.open_connection(
            HOST, int(address), ssl=self._client, server_hostname=name, limit=LIMIT_BYTES
        )
        if self._encrypted:
            certificate.check_suite(writer.get_extra_info("cipher"))
        return StreamLink(reader, writer, self._size)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()


class StreamPeer:
    """`tcp` or `tls`."""

    mutual = False
    joins = False

    def __init__(self, name: str, *, encrypted: bool) -> None:
        self.name = name
        self.encrypted = encrypted

    def missing(self) -> str | None:
        return installed("cryptography") if self.encrypted else None

    def versions(self) -> dict[str, str]:
        return {"ssl": ssl.OPENSSL_VERSION}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return workload in ("w1", "w2", "w4", "w5", *FANS)

    def prepare(self, folder: Path) -> None:
        if self.encrypted:
            certificate.write(folder)

    def side(self, spec: Spec) -> Side:
        make: Any = SocketSide if spec.front == BLOCKING else StreamSide
        side: Side = make(spec, self.encrypted)
        return side


PEERS = {"tcp": StreamPeer("tcp", encrypted=False), "tls": StreamPeer("tls", encrypted=True)}
