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
    "zenoh-tls": "bench.e2e.peers.zenoh",
    "zenoh-quic": "bench.e2e.peers.zenoh",
    "aioquic": "bench.e2e.peers.quic",
    "qh3": "bench.e2e.peers.quic",
    "c-udp": "bench.limits.udp",
    "grpc-tls": "bench.e2e.peers.grpc_tls",
}
OURS = "netchan"
HOST = "127.0.0.1"
NAMES = tuple(_MODULES)
LIMITS = ("c-udp",)
"""No libraries: programs in C that say what the machine allows."""
USUAL = tuple(name for name in NAMES if name not in ("netchan-threads", "netchan-udp", *LIMITS))
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


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of ``HOST`` that nobody holds now, for a library that cannot tell which one it was given."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
