"""Peers ``zenoh-tls`` and ``zenoh-quic``: eclipse-zenoh over a TLS or QUIC link, publisher to subscriber, blocking.

Shared memory is off (it would be another carrier), discovery is off, publishers block when queues are full (they drop
by default). W3 is eight sessions that publish to one with a subscriber, W3b one that publishes to eight. No batch rows:
zenoh packs small messages itself and has no call for many.
"""

from __future__ import annotations

import json
import socket
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from bench.e2e.contract import BLOCKING, FAN, FANS, ONE, Link, Side, Spec
from bench.e2e.peers import HOST, certificate, free_port, installed

QUEUE_MSGS = 1024
UP, DOWN = "bench/up", "bench/down"
HERE = b"here"
TLS, QUIC = "tls", "quic"
MATCH_S = 10.0


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
    """The zenoh sessions of one process: one, or ``FAN`` where it is the side with many."""

    def __init__(self, spec: Spec, carrier: str) -> None:
        self._spec, self._carrier = spec, carrier
        self._sessions: list[Any] = []
        self._waiting: list[TopicLink] = []

    def _open(self, **endpoints: list[str]) -> Any:
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
        for key, addresses in endpoints.items():
            config.insert_json5(f"{key}/endpoints", json.dumps(addresses))
        session = zenoh.open(config)
        self._sessions.append(session)
        return session

    def listen(self) -> str:
        addresses = []
        for _ in range(FAN if self._spec.workload == "w3b" else 1):
            kind = socket.SOCK_DGRAM if self._carrier == QUIC else socket.SOCK_STREAM
            addresses.append(f"{self._carrier}/{HOST}:{free_port(kind)}")
            session = self._open(listen=addresses[-1:])
            self._waiting.append(TopicLink(session, DOWN, UP, express=self._spec.workload == "w2"))
        return " ".join(addresses)

    def accept(self) -> Link:
        link = self._waiting.pop()
        link.matched()
        if self._spec.workload == "w3b":
            link.send(HERE)
        return link

    def dial(self, address: str) -> Link:
        session = self._open(connect=address.split())
        link = TopicLink(session, UP, DOWN, express=self._spec.workload == "w2")
        link.matched()
        if self._spec.workload == "w3b":  # one subscriber is a match; each of them says that it is there
            for _ in range(FAN):
                if link.recv() != HERE:
                    raise ValueError("a subscriber said something else")
        return link

    def stop(self) -> None:
        for session in self._sessions:
            session.close()


class ZenohPeer:
    """eclipse-zenoh over TLS or QUIC."""

    encrypted = True
    mutual = False
    joins = True

    def __init__(self, carrier: str) -> None:
        self.name = f"zenoh-{carrier}"
        self._carrier = carrier

    def missing(self) -> str | None:
        return installed("zenoh") or installed("cryptography")

    def versions(self) -> dict[str, str]:
        return {"eclipse-zenoh": metadata.version("eclipse-zenoh")}

    def offers(self, front: str, workload: str, style: str, size: int) -> bool:
        return front == BLOCKING and style == ONE and workload in ("w1", "w2", *FANS)

    def prepare(self, folder: Path) -> None:
        certificate.write(folder)

    def side(self, spec: Spec) -> Side:
        return SessionSide(spec, self._carrier)


PEERS = {peer.name: peer for peer in (ZenohPeer(TLS), ZenohPeer(QUIC))}
