"""Two joined sessions in one process over a real socket pair, without a handshake: for tests of what lies above it.

Layer: testing; may import all layers, imported by tests only. The root is random, so nothing here is a way into a real
session.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, Final

from netchan._engine.engine_handle import Engine
from netchan._engine.session_handle import Session, attach
from netchan.channel.overflow import Overflow, Terms, check_overflow, check_ttl, spill_of
from netchan.channel.remote import RemoteEndpoint, open_endpoint

UNIX: Final = 2
PARAMS: Final = {
    "max_record": 65535,
    "ack_delay": 25_000,
    "ack_interval": 262_144,
    "initial_msgs": 64,
    "initial_bytes": 16_384,
    "max_streams": 256,
    "max_message": 64 << 20,
}


@dataclass
class Side:
    """One side of the pair."""

    engine: Engine
    session: Session

    def open(
        self,
        name: str,
        type: Any = bytes,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        ttl: float | None = None,
        trunk: bool = False,
    ) -> RemoteEndpoint:
        """Open a channel by name on this side."""
        return open_endpoint(
            self.session,
            name=name,
            type=type,
            capacity=capacity,
            peer=None,
            peer_id="peer",
            driver=self.engine,
            close_timeout=5.0,
            max_message=64 << 20,
            terms=Terms(check_overflow(overflow, capacity), check_ttl(ttl, capacity), trunk, spill_of(overflow)),
        )


def joined(
    *,
    cipher: int = 1,
    params: dict[str, int] | None = None,
    engines: tuple[Engine, Engine] | None = None,
    **limits: Any,
) -> tuple[Side, Side]:
    """Two sessions of one association.

    Args:
        cipher: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
        params: transport parameters that differ from the defaults, for both sides.
        engines: of the two sides, may be one and the same; None: each side has a blocking engine of its own.
        limits: max_channels, session_bytes, heartbeat, dead, trunk.
    """
    ends = socket.socketpair()
    root, binding = bytearray(os.urandom(32)), os.urandom(32)
    known = PARAMS | (params or {})
    settings = {"max_channels": 65_536, "session_bytes": 8 << 20, "heartbeat": 5.0, "trunk": True} | limits
    sides = []
    drivers = engines or (Engine("caller"), Engine("caller"))
    for initiator, end, engine in zip((True, False), ends, drivers, strict=True):
        end.setblocking(False)
        session = attach(
            engine,
            end.detach(),
            carrier=UNIX,
            initiator=initiator,
            root=root,
            binding=binding,
            cipher=cipher,
            mine=known,
            peer=known,
            early=b"",
            **settings,
        )
        sides.append(Side(engine, session))
    return sides[0], sides[1]
