"""Peers ``aioquic`` and ``qh3``: length-framed messages on one QUIC stream, asyncio and uvloop.

Both libraries have the same calls (qh3 began as aioquic); what differs is looked up once, in ``Library``. Datagrams may
be as long and socket buffers as large as netchan's. QUIC authenticates the server only here, as such programs do.

``drain()`` does not help: aioquic's never waits, and qh3's writer has none that works. Nor is a reader ever paused. So
that neither end holds whatever comes, the receiver says on a stream of its own how many bytes the program has taken;
the sender keeps ``WINDOW_BYTES`` on their way. While it waits the loop sends; until then small messages gather.
(The last window leaves after the sender's clock has stopped: a hundredth of its CPU time at 50 MB/s and one second.)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, FANS, AsyncLink, Side, Spec
from bench.e2e.peers import HOST, certificate, free_port, installed
from bench.e2e.peers.framing import APART_BYTES, LENGTH, join, lacking, pack, split

ALPN = "bench"
DATAGRAM_BYTES = 1452
SOCKET_BYTES = 4 << 20
READ_BYTES = 256 << 10
WINDOW_BYTES = 512 << 10  # at least two messages, so that one is on its way while the other is taken
TOLD_BYTES = 128 << 10
TAKEN_BYTES = 8
HERE = b"!"  # a stream exists over there when its first byte comes
UNIDIRECTIONAL = 2  # bit of a stream's number


class Library:
    """The modules of one of the two."""

    def __init__(self, name: str) -> None:
        self.asyncio: Any = import_module(f"{name}.asyncio")
        self.configuration: Any = import_module(f"{name}.quic.configuration")
        self.suite: Any = import_module(f"{name}.tls").CipherSuite.AES_256_GCM_SHA384
        self.protocol = _protocol(import_module(f"{name}.asyncio.protocol").QuicConnectionProtocol)

    def settings(self, **role: Any) -> Any:
        """Return the configuration of a side: the one suite that all encrypted rows are compared with."""
        made = self.configuration.QuicConfiguration(alpn_protocols=[ALPN], max_datagram_size=DATAGRAM_BYTES, **role)
        made.cipher_suites = [self.suite]
        return made


def _protocol(base: Any) -> Any:
    class Protocol(base):  # type: ignore[misc]
        """A connection; asks for the socket buffers that netchan asks for."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, which, SOCKET_BYTES)
            super().connection_made(transport)

    return Protocol


class QuicLink(AsyncLink):
    """One stream of a connection, and what the other side says it has taken."""

    def __init__(self, connection: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        self._connection, self._reader, self._writer = connection, reader, writer
        self._window = max(WINDOW_BYTES, 2 * size)
        self._sent = self._taken_there = 0
        self._taken = self._told = 0
        self._room = asyncio.Event()
        self._teller: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._here: deque[bytes] = deque()
        self._rest = b""

    def hear(self, reader: asyncio.StreamReader) -> None:
        """Take from `reader` how many bytes the program over there has taken."""
        self._listening = asyncio.create_task(self._hear(reader))

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                self._taken_there = int.from_bytes(await reader.readexactly(TAKEN_BYTES), "big")
                self._room.set()

    async def _wait_room(self) -> None:
        while self._sent - self._taken_there >= self._window:
            self._room.clear()
            await self._room.wait()

    async def send(self, value: bytes) -> None:
        if self._sent - self._taken_there >= self._window:
            await self._wait_room()
        writer = self._writer
        if len(value) < APART_BYTES:
            writer.write(pack(len(value)) + value)
        else:
            writer.write(pack(len(value)))
            writer.write(value)
        self._sent += len(value)

    async def send_batch(self, values: list[bytes]) -> None:
        if self._sent - self._taken_there >= self._window:
            await self._wait_room()
        self._writer.write(join(values))
        self._sent += sum(map(len, values))

    async def recv(self) -> bytes:
        here = self._here
        if not here:
            here.extend(await self._read())
        value = here.popleft()
        self._taken += len(value)
        if self._taken - self._told >= TOLD_BYTES:
            await self._tell()
        return value

    async def recv_batch(self) -> Sequence[object]:
        values = await self._read()
        self._taken += sum(map(len, values))
        if self._taken - self._told >= TOLD_BYTES:
            await self._tell()
        return values

    async def _read(self) -> list[bytes]:
        """Return the messages that are here, at least one."""
        buffer = self._rest
        if lacking(buffer):
            parts, length = [buffer], len(buffer)
            while True:
                part = await self._reader.read(READ_BYTES)
                if not part:
                    raise EOFError("the other side left")
                parts.append(part)
                length += len(part)
                if length < LENGTH.size:
                    continue
                if len(parts[0]) < LENGTH.size:
                    parts = [b"".join(parts)]
                if length >= LENGTH.size + LENGTH.unpack_from(parts[0])[0]:
                    break
            buffer = b"".join(parts)
        values, self._rest = split(buffer)
        return values

    async def _tell(self) -> None:
        if self._teller is None:
            _, self._teller = await self._connection.create_stream(is_unidirectional=True)
        self._teller.write(self._taken.to_bytes(TAKEN_BYTES, "big"))
        self._told = self._taken

    async def close(self) -> None:
        """End the streams; the connection is the dialler's to end: that discards what was not sent yet, an echo."""
        if self._listening is not None:
            self._listening.cancel()
        for writer in (self._writer, self._teller):
            if writer is not None:
                writer.close()


class DialledLink(QuicLink):
    """The side that dialled; it alone ends the connection."""

    leave: Callable[[], None]

    async def close(self) -> None:
        await super().close()
        self._connection.close()
        self.leave()


class QuicSide:
    """Listener or dialler."""

    def __init__(self, spec: Spec, name: str) -> None:
        self._library = Library(name)
        self._spec = spec
        self._links: dict[Any, QuicLink] = {}
        self._came: asyncio.Queue[QuicLink] = asyncio.Queue()
        self._open: dict[DialledLink, contextlib.AsyncExitStack] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Any = None

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A stream that the other side opened."""
        connection = writer.transport.protocol  # type: ignore[attr-defined]
        if writer.get_extra_info("stream_id") & UNIDIRECTIONAL:
            writer.close()
            self._links[connection].hear(reader)
            return
        self._links[connection] = link = QuicLink(connection, reader, writer, self._spec.size)

        async def begin() -> None:
            await reader.readexactly(len(HERE))
            self._came.put_nowait(link)

        self._do(begin())

    async def listen(self) -> str:
        settings = self._library.settings(is_client=False)
        settings.load_cert_chain(self._spec.folder / certificate.CERT, self._spec.folder / certificate.KEY)
        port = free_port(socket.SOCK_DGRAM)
        self._server = await self._library.asyncio.serve(
            HOST, port, configuration=settings, create_protocol=self._library.protocol, stream_handler=self._stream
        )
        return str(port)

    async def accept(self) -> AsyncLink:
        return await self._came.get()

    async def dial(self, address: str) -> AsyncLink:
        settings = self._library.settings(is_client=True)
        settings.load_verify_locations(str(self._spec.folder / certificate.CA))
        stack = contextlib.AsyncExitStack()
        connection = await stack.enter_async_context(
            self._library.asyncio.connect(
                HOST,
                int(address),
                configuration=settings,
                create_protocol=self._library.protocol,
                stream_handler=self._stream,
            )
        )
        reader, writer = await connection.create_stream()
        writer.write(HERE)
        self._links[connection] = link = DialledLink(connection, reader, writer, self._spec.size)
        self._open[link] = stack
        link.leave = lambda: self._do(self._open.pop(link).aclose())  # waits three probe timeouts: nobody else does
        return link

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        while self._tasks:
            await asyncio.wait(self._tasks)


class QuicPeer:
    """`aioquic` or `qh3`."""

    encrypted = True
    mutual = False
    joins = False

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        return installed(f"{self.name}.asyncio") or installed("cryptography")

    def versions(self) -> dict[str, str]:
        return {self.name: metadata.version(self.name)}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return front != BLOCKING and workload in ("w1", "w2", "w4", "w5", *FANS)

    def prepare(self, folder: Path) -> None:
        certificate.write(folder)

    def side(self, spec: Spec) -> Side:
        side: Side = QuicSide(spec, self.name)
        return side


PEERS = {name: QuicPeer(name) for name in ("aioquic", "qh3")}
