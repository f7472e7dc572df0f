"""Peer ``grpc-tls``: grpcio over TLS with raw bytes; W1 is one client-streaming call, W2, W4 and W5 unary calls.

W3 and W3b are eight streams on eight connections. W3b is on a loop only: a blocking stream takes its messages from an
iterator, so that one sender to eight would be eight queues of ours.

The blocking front is grpcio's threads, asyncio is grpc.aio (which has its own poller, so there is no uvloop row).
Subchannels are not shared, so that every dial of W4 and W5 is a connection. The cipher is the library's own choice.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from bench.e2e.contract import ASYNCIO, BLOCKING, FAN, FANS, ONE, AsyncLink, Link, Miscount, Side, Spec
from bench.e2e.peers import certificate, installed

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.so_reuseport", 0),
)
THREADS = 4
SERVICE, UP, ECHO = "bench", "up", "echo"
MESSAGES_MAX = 4  # calls that may wait for the receiver


def _credentials(folder: Path, *, server: bool) -> Any:
    grpc: Any = import_module("grpc")
    if server:
        pair = ((folder / certificate.KEY).read_bytes(), (folder / certificate.CERT).read_bytes())
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_channel_credentials((folder / certificate.CA).read_bytes())


class CallingLink(Link):
    """The dialling side."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._up = channel.stream_unary(f"/{SERVICE}/{UP}")
        self._echo = channel.unary_unary(f"/{SERVICE}/{ECHO}")
        self._last = b""

    def send_each(self, values: Iterable[bytes]) -> None:
        self._up(iter(values))

    def send(self, value: bytes) -> None:
        self._last = self._echo(value)

    def recv(self) -> bytes:
        return self._last

    def close(self) -> None:
        self._channel.close()


class ServingLink(Link):
    """The listening side; handlers hand the stream of a call, or the fact of one, to the waiting main thread."""

    def __init__(self) -> None:
        self._streams: queue.Queue[tuple[Iterator[bytes], threading.Event]] = queue.Queue(MESSAGES_MAX)
        self._echoes = threading.Semaphore(0)

    def up(self, stream: Iterator[bytes], _context: object) -> bytes:
        """Handle W1."""
        done = threading.Event()
        self._streams.put((stream, done))
        done.wait()
        return b""

    def echo(self, value: bytes, _context: object) -> bytes:
        """Handle a round trip."""
        self._echoes.release()
        return value

    def recv_each(self, wants: Iterable[object]) -> None:
        stream, done = self._streams.get()
        try:
            for want in wants:
                if next(stream) != want:
                    raise Miscount(f"expected {want!r:.80}")
        finally:
            done.set()

    def pong(self, n: int) -> None:
        for _ in range(n):
            self._echoes.acquire()

    def close(self) -> None:
        """The server ends it."""


class ThreadSide:
    """grpcio with threads."""

    def __init__(self, spec: Spec) -> None:
        self._folder = spec.folder
        self._threads = FAN if spec.workload in FANS else THREADS
        self._server: Any = None
        self._link = ServingLink()

    def listen(self) -> str:
        grpc: Any = import_module("grpc")
        self._server = grpc.server(ThreadPoolExecutor(self._threads), options=OPTIONS)
        handlers = {
            UP: grpc.stream_unary_rpc_method_handler(self._link.up),
            ECHO: grpc.unary_unary_rpc_method_handler(self._link.echo),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = self._server.add_secure_port("127.0.0.1:0", _credentials(self._folder, server=True))
        self._server.start()
        return f"127.0.0.1:{port}"

    def accept(self) -> Link:
        return self._link

    def dial(self, address: str) -> Link:
        grpc: Any = import_module("grpc")
        return CallingLink(grpc.secure_channel(address, _credentials(self._folder, server=False), options=OPTIONS))

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None)


class AsyncCallingLink(AsyncLink):
    """The dialling side on a loop."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._up = channel.stream_unary(f"/{SERVICE}/{UP}")
        self._echo = channel.unary_unary(f"/{SERVICE}/{ECHO}")
        self._last = b""

    async def send_each(self, values: Iterable[bytes]) -> None:
        call = self._up()
        write = call.write
        for value in values:
            await write(value)
        await call.done_writing()
        await call

    async def send(self, value: bytes) -> None:
        self._last = await self._echo(value)

    async def recv(self) -> bytes:
        return self._last

    async def close(self) -> None:
        await self._channel.close()


class AsyncStreamLink(AsyncCallingLink):
    """The dialling side of W3b: ``send`` goes into a stream that ``flush`` ends."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        self._call: Any = None

    async def send(self, value: bytes) -> None:
        if self._call is None:
            self._call = self._up()
        await self._call.write(value)

    async def flush(self) -> None:
        call, self._call = self._call, None
        await call.done_writing()
        await call


class AsyncServingLink(AsyncLink):
    """The listening side on a loop."""

    def __init__(self) -> None:
        self._streams: asyncio.Queue[tuple[AsyncIterator[bytes], asyncio.Event]] = asyncio.Queue(MESSAGES_MAX)
        self._echoes = asyncio.Semaphore(0)

    async def up(self, stream: AsyncIterator[bytes], _context: object) -> bytes:
        """Handle W1."""
        done = asyncio.Event()
        await self._streams.put((stream, done))
        await done.wait()
        return b""

    async def echo(self, value: bytes, _context: object) -> bytes:
        """Handle a round trip."""
        self._echoes.release()
        return value

    async def recv_each(self, wants: Iterable[object]) -> None:
        stream, done = await self._streams.get()
        take = aiter(stream).__anext__
        try:
            for want in wants:
                if await take() != want:
                    raise Miscount(f"expected {want!r:.80}")
        finally:
            done.set()

    async def pong(self, n: int) -> None:
        for _ in range(n):
            await self._echoes.acquire()

    async def close(self) -> None:
        """The server ends it."""


class LoopSide:
    """grpc.aio."""

    def __init__(self, spec: Spec) -> None:
        self._folder = spec.folder
        self._dialled = AsyncStreamLink if spec.workload == "w3b" else AsyncCallingLink
        self._server: Any = None
        self._link = AsyncServingLink()

    async def listen(self) -> str:
        grpc: Any = import_module("grpc")
        aio: Any = import_module("grpc.aio")
        self._server = aio.server(options=OPTIONS)
        handlers = {
            UP: grpc.stream_unary_rpc_method_handler(self._link.up),
            ECHO: grpc.unary_unary_rpc_method_handler(self._link.echo),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = self._server.add_secure_port("127.0.0.1:0", _credentials(self._folder, server=True))
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def accept(self) -> AsyncLink:
        return self._link

    async def dial(self, address: str) -> AsyncLink:
        aio: Any = import_module("grpc.aio")
        return self._dialled(aio.secure_channel(address, _credentials(self._folder, server=False), options=OPTIONS))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)


class GrpcPeer:
    """grpcio over TLS."""

    name = "grpc-tls"
    encrypted = True
    mutual = False
    joins = False

    def missing(self) -> str | None:
        return installed("grpc") or installed("cryptography")

    def versions(self) -> dict[str, str]:
        return {"grpcio": metadata.version("grpcio")}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        fronts = (ASYNCIO,) if workload == "w3b" else (BLOCKING, ASYNCIO)
        return front in fronts and style == ONE and workload in ("w1", "w2", "w4", "w5", *FANS)

    def prepare(self, folder: Path) -> None:
        certificate.write(folder)

    def side(self, spec: Spec) -> Side:
        make: Any = ThreadSide if spec.front == BLOCKING else LoopSide
        side: Side = make(spec)
        return side


PEERS = {"grpc-tls": GrpcPeer()}
