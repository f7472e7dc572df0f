"""Peer ``zenoh-tls``: eclipse-zenoh over a TLS link, publisher to subscriber, blocking.

Shared memory is off (it would be another carrier), discovery is off, publishers block when queues are full (they drop
by default). Only W1 one at a time and W2: zenoh packs small messages itself and has no call for many.
"""

from __future__ import annotations

import json
import socket
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, ONE, Link, Side, Spec
from bench.e2e.peers import certificate, installed

QUEUE_MSGS = 1024
UP, DOWN = "bench/up", "bench/down"
MATCH_S = 10.0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class TopicLink(Link):
    """A publisher out and a subscriber in."""

    def __init__(self, session: Any, out: str, into: str, *, express: bool) -> None:
        zenoh: Any = import_module("zenoh")
        queue = zenoh.handlers.FifoChannel(QUEUE_MSGS)
        self._subscriber = session.declare_subscriber(into, queue)
        block = zenoh.CongestionControl.BLOCK
        self._publisher = session.declare_publisher(out, congestion_control=block, express=express)
        self.send = self._publisher.put
        self._take = self._subscriber.recv

    def recv(self) -> bytes:
        value: bytes = self._take().payload.to_bytes()
        return value

    def matched(self) -> None:
        """Wait until the other side subscribes: what is published before is lost."""
        until = time.monotonic() + MATCH_S
        while not self._publisher.matching_status.matching:
            if time.monotonic() > until:
                raise TimeoutError("no subscriber on the other side")
            time.sleep(0.005)

    def close(self) -> None:
        self._publisher.undeclare()
        self._subscriber.undeclare()


class SessionSide:
    """One zenoh session."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._session: Any = None
        self._link: TopicLink | None = None

    def _open(self, **endpoints: str) -> Any:
        zenoh: Any = import_module("zenoh")
        folder = self._spec.folder
        config = zenoh.Config()
        for key, value in {
            "mode": "peer",
            "listen/endpoints": [],
            "scouting/multicast/enabled": False,
            "scouting/gossip/enabled": False,
            "transport/shared_memory/enabled": False,
            "transport/link/tls/root_ca_certificate": str(folder / certificate.CA),
            "transport/link/tls/listen_certificate": str(folder / certificate.CERT),
            "transport/link/tls/listen_private_key": str(folder / certificate.KEY),
        }.items():
            config.insert_json5(key, json.dumps(value))
        for key, address in endpoints.items():
            config.insert_json5(f"{key}/endpoints", json.dumps([address]))
        return zenoh.open(config)

    def listen(self) -> str:
        address = f"tls/127.0.0.1:{_free_port()}"
        self._session = self._open(listen=address)
        self._link = TopicLink(self._session, DOWN, UP, express=self._spec.workload == "w2")
        return address

    def accept(self) -> Link:
        assert self._link is not None
        self._link.matched()
        return self._link

    def dial(self, address: str) -> Link:
        self._session = self._open(connect=address)
        link = TopicLink(self._session, UP, DOWN, express=self._spec.workload == "w2")
        link.matched()
        return link

    def stop(self) -> None:
        if self._session is not None:
            self._session.close()


class ZenohPeer:
    """eclipse-zenoh over TLS."""

    name = "zenoh-tls"
    encrypted = True
    mutual = False

    def missing(self) -> str | None:
        return installed("zenoh") or installed("cryptography")

    def versions(self) -> dict[str, str]:
        return {"eclipse-zenoh": metadata.version("eclipse-zenoh")}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return front == BLOCKING and style == ONE and workload in ("w1", "w2")

    def prepare(self, folder: Path) -> None:
        certificate.write(folder)

    def side(self, spec: Spec) -> Side:
        return SessionSide(spec)


PEERS = {"zenoh-tls": ZenohPeer()}
