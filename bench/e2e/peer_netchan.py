"""Ours: the rows of netchan, written as the README writes programs: defaults of the library, mutual trust, no tuning.

The receiver listens and trusts one client id, the sender dials ``listener.addresses[0]`` with that client's key. The
blocking front is ``netchan.sync``, the others ``netchan``; the calls have the same names (api R2, R25, R41, R53, R56).
W3c and W5c open their channels by name on both sides, ``STEP`` at a time, because only so many may wait unopened (api
R17). Values of W3c are sent over them in turn and received in the same turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module, metadata
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

from bench.e2e.contract import BLOCKING, TURNS, AsyncLink, Link, Miscount, Side, Spec

SERVER_KEY, CLIENT_KEY = "netchan-server.key", "netchan-client.key"
ADDRESS, UDP = "tcp://127.0.0.1:0", "udp://127.0.0.1:0"
STEP = 128
TAKE_MSGS = 1024  # recv_many's own default, said here because the loop depends on nothing else


def _open(peer: Any, workload: str, number: int) -> Any:
    return peer.open(f"{workload}-{number}", bytes, trunk=workload in TURNS and TURNS[workload].trunk)


class SyncLink(Link):
    """A peer and one channel of it, blocking."""

    def __init__(self, peer: Any, workload: str) -> None:
        self._peer = peer
        self._workload = workload
        self._channel = channel = peer.open(workload, bytes)
        self._more: list[Any] = []
        self.send, self.recv = channel.send, channel.recv

    def send_batch(self, values: list[bytes]) -> None:
        self._channel.send_many(values)

    def recv_batch(self) -> Sequence[object]:
        values: Sequence[object] = self._channel.recv_many(TAKE_MSGS)
        return values

    def flush(self) -> None:
        self._channel.flush()

    def open_more(self, n: int, first: bool) -> None:
        """Open n more channels; both sides go on together."""
        for at in range(0, n, STEP):
            self._more += [_open(self._peer, self._workload, number) for number in range(at, min(n, at + STEP))]
            self.ping([b"turn"]) if first else self.pong(1)

    def send_turns(self, values: Iterable[bytes], each: int) -> None:
        """W3c: `each` values on a channel, then on to the next one."""
        sends = [channel.send for channel in self._more for _ in range(each)]
        for send, value in zip(cycle(sends), values):
            send(value)
        self._more[-1].flush()  # of every channel it would be a record each

    def recv_turns(self, wants: Iterable[object], each: int) -> None:
        """W3c: the same turns; every message is compared with what was sent."""
        recvs = [channel.recv for channel in self._more for _ in range(each)]
        for recv, want in zip(cycle(recvs), wants):
            if recv() != want:
                raise Miscount(f"expected {want!r:.80}")

    def records(self) -> dict[str, int]:
        """Encrypted records that this side has sent so far, and how many of them several channels shared."""
        stats = self._peer.stats()
        return {"records": int(stats["records_sent"]), "shared": int(stats["trunk_records"])}

    def close(self) -> None:
        self._peer.aclose()


class AwaitLink(AsyncLink):
    """A peer and one channel of it on a loop."""

    def __init__(self, peer: Any, workload: str) -> None:
        self._peer = peer
        self._workload = workload
        self._channel = channel = peer.open(workload, bytes)
        self._more: list[Any] = []
        self.send, self.recv = channel.send, channel.recv

    async def send_batch(self, values: list[bytes]) -> None:
        await self._channel.send_many(values)

    async def recv_batch(self) -> Sequence[object]:
        values: Sequence[object] = await self._channel.recv_many(TAKE_MSGS)
        return values

    async def flush(self) -> None:
        await self._channel.flush()

    async def open_more(self, n: int, first: bool) -> None:
        """Open n more channels; both sides go on together."""
        for at in range(0, n, STEP):
            self._more += [_open(self._peer, self._workload, number) for number in range(at, min(n, at + STEP))]
            await (self.ping([b"turn"]) if first else self.pong(1))

    async def send_turns(self, values: Iterable[bytes], each: int) -> None:
        """W3c: `each` values on a channel, then on to the next one."""
        sends = [channel.send for channel in self._more for _ in range(each)]
        for send, value in zip(cycle(sends), values):
            await send(value)
        await self._more[-1].flush()  # of every channel it would be a record each

    async def recv_turns(self, wants: Iterable[object], each: int) -> None:
        """W3c: the same turns; every message is compared with what was sent."""
        recvs = [channel.recv for channel in self._more for _ in range(each)]
        for recv, want in zip(cycle(recvs), wants):
            if await recv() != want:
                raise Miscount(f"expected {want!r:.80}")

    def records(self) -> dict[str, int]:
        """Encrypted records that this side has sent so far, and how many of them several channels shared."""
        stats = self._peer.stats()
        return {"records": int(stats["records_sent"]), "shared": int(stats["trunk_records"])}

    async def close(self) -> None:
        await self._peer.aclose()


class Tickets:
    """Sees to it that the sessions of W4c, but for the first, begin with a ticket, and no others of W4."""

    def __init__(self, workload: str) -> None:
        self._due = {"w4": False, "w4c": True}.get(workload)
        self._first = True

    def check(self, peer: Any) -> Any:
        """Give the peer back."""
        if self._due is not None and peer.by_ticket is not (self._due and not self._first):
            raise Miscount(f"a session of this row began {'with' if peer.by_ticket else 'without'} a ticket")
        self._first = False
        return peer


def _options(netchan: Any, spec: Spec, settings: dict[str, Any]) -> dict[str, Any]:
    """Defaults everywhere; the row with ten thousand channels asks for room, and full handshakes for no tickets."""
    room = {"w5c": {"max_channels": 16384}, "w4": {"tickets": 0}}.get(spec.workload, {})
    return {"config": netchan.Config(**room, **settings)} if room or settings else {}


class SyncSide:
    """Blocking listener or dialler."""

    def __init__(self, spec: Spec, settings: dict[str, Any], address: str) -> None:
        netchan: Any = import_module("netchan")
        self._sync: Any = import_module("netchan.sync")
        self._spec = spec
        self._server = netchan.Identity.load_or_create(spec.folder / SERVER_KEY)
        self._client = netchan.Identity.load_or_create(spec.folder / CLIENT_KEY)
        self._options, self._address = _options(netchan, spec, settings), address
        self._tickets = Tickets(spec.workload)
        self._listener: Any = None

    def listen(self) -> str:
        trust = [self._client.node_id]
        self._listener = self._sync.listen(self._address, identity=self._server, trust=trust, **self._options)
        return str(self._listener.addresses[0])

    def accept(self) -> Link:
        return SyncLink(self._listener.recv(), self._spec.workload)

    def dial(self, address: str) -> Link:
        peer = self._sync.dial(address, identity=self._client, **self._options)
        return SyncLink(self._tickets.check(peer), self._spec.workload)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.aclose()


class AwaitSide:
    """Listener or dialler on a loop."""

    def __init__(self, spec: Spec, settings: dict[str, Any], address: str) -> None:
        self._netchan: Any = import_module("netchan")
        self._spec = spec
        self._server = self._netchan.Identity.load_or_create(spec.folder / SERVER_KEY)
        self._client = self._netchan.Identity.load_or_create(spec.folder / CLIENT_KEY)
        self._options, self._address = _options(self._netchan, spec, settings), address
        self._tickets = Tickets(spec.workload)
        self._listener: Any = None

    async def listen(self) -> str:
        trust = [self._client.node_id]
        self._listener = await self._netchan.listen(self._address, identity=self._server, trust=trust, **self._options)
        return str(self._listener.addresses[0])

    async def accept(self) -> AsyncLink:
        return AwaitLink(await self._listener.recv(), self._spec.workload)

    async def dial(self, address: str) -> AsyncLink:
        peer = await self._netchan.dial(address, identity=self._client, **self._options)
        return AwaitLink(self._tickets.check(peer), self._spec.workload)

    async def stop(self) -> None:
        if self._listener is not None:
            await self._listener.aclose()


class NetchanPeer:
    """netchan as it comes."""

    name = "netchan"
    encrypted = True
    mutual = True
    joins = False
    settings: ClassVar[dict[str, Any]] = {}
    address = ADDRESS

    def missing(self) -> str | None:
        try:
            netchan: Any = import_module("netchan")
            blocking: Any = import_module("netchan.sync")
        except ImportError as failure:
            return f"netchan cannot be imported: {failure}"
        for module in (netchan, blocking):
            for verb in ("listen", "dial"):
                if not hasattr(module, verb):
                    return f"{module.__name__}.{verb} does not exist yet"
        return None

    def versions(self) -> dict[str, str]:
        try:
            made = {"netchan": metadata.version("netchan")}
        except metadata.PackageNotFoundError:
            made = {"netchan": "from the source tree"}
        try:
            provider: Any = import_module("netchan._core.provider").load()
        except ImportError:
            return made  # not built
        return made | {"provider": f"{provider.name} ({provider.version})"}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return front == BLOCKING if workload == "w5c" else True

    def prepare(self, folder: Path) -> None:
        netchan: Any = import_module("netchan")
        for name in (SERVER_KEY, CLIENT_KEY):
            netchan.Identity.load_or_create(folder / name)

    def side(self, spec: Spec) -> Side:
        make: Any = SyncSide if spec.front == BLOCKING else AwaitSide
        side: Side = make(spec, self.settings, self.address)
        return side


class ThreadsPeer(NetchanPeer):
    """netchan with a thread for input and output on both sides; measured when it is asked for."""

    name = "netchan-threads"
    settings: ClassVar[dict[str, Any]] = {"io_threads": 1}


class UdpPeer(NetchanPeer):
    """netchan over UDP; measured when it is asked for."""

    name = "netchan-udp"
    address = UDP


PEERS = {"netchan": NetchanPeer(), "netchan-threads": ThreadsPeer(), "netchan-udp": UdpPeer()}
