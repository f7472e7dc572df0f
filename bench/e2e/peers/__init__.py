"""The libraries under test: one small module each; adding one here is all it takes to have its rows.

A module is imported only when its peer is asked for, so that a library that is not installed costs nothing and one
library's import never weighs on another's rows.
"""

from __future__ import annotations

import socket
from importlib import import_module

from bench.e2e.contract import Peer

_MODULES = {
    "netchan": "bench.e2e.peer_netchan",
    "netchan-threads": "bench.e2e.peer_netchan",
    "netchan-udp": "bench.e2e.peer_netchan",
    "zmq": "bench.e2e.peers.zeromq",
    "zmq-curve": "bench.e2e.peers.zeromq",
    "tcp": "bench.e2e.peers.stream",
    "tls": "bench.e2e.peers.stream",
    "zenoh-tls": "bench.e2e.peers.zenoh_tls",
    "grpc-tls": "bench.e2e.peers.grpc_tls",
}
OURS = "netchan"
HOST = "127.0.0.1"
NAMES = tuple(_MODULES)
USUAL = tuple(name for name in NAMES if name not in ("netchan-threads", "netchan-udp"))
"""Those that are measured when none are named: one setting of ours, the defaults."""


def find(name: str) -> Peer:
    """Return the peer of that name.

    Raises:
        KeyError: there is none.
    """
    peer: Peer = import_module(_MODULES[name]).PEERS[name]
    return peer


def installed(module: str) -> str | None:
    """Return why a module cannot be imported, or None."""
    try:
        import_module(module)
    except ImportError as failure:
        return f"{module}: {failure}"
    return None


def free_port() -> int:
    """Return a port of ``HOST`` that nobody holds now, for a library that cannot tell which one it was given."""
    with socket.create_server((HOST, 0)) as sock:
        return int(sock.getsockname()[1])
