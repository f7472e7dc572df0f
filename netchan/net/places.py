"""Where an address leads, and where a socket came from: names looked up, socket addresses, texts, credentials.

Layer: net (L3). ``resolve`` runs on threads of its own (net/stack.py), because the system's resolver blocks; its answer
comes on the worker's thread. The rest waits for nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, Literal

from netchan.net.address import Address
from netchan.net.stack import Found, stack
from netchan.net.worker import worker

_UCRED: Final = struct.Struct("3i")


def resolve(host: str, port: int, done: Callable[[Found], None]) -> None:
    """Look a name up on a thread of its own; (family, sockaddr) pairs or the error are posted to the worker."""
    stack().resolve(host, port, lambda found: worker().post(lambda: done(found)))


def numeric(address: Address) -> tuple[int, Any]:
    """(family, sockaddr) of an address that needs no look-up. OSError: an IPv6 zone that does not exist."""
    if address.carrier == "unix":
        return socket.AF_UNIX, address.path
    info = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return int(info[0][0]), info[0][4]


def socket_text(family: int, sockaddr: Any, carrier: Literal["tcp", "udp"] = "tcp") -> str:
    """A socket's address as an ``Address`` would be written; "" where a Unix socket has no name."""
    if family == socket.AF_UNIX:
        return str(Address("unix", path=sockaddr)) if isinstance(sockaddr, str) and sockaddr else "unix://"
    return str(Address(carrier, host=sockaddr[0], port=sockaddr[1]))


def same_user(sock: socket.socket) -> bool:
    """True if the process at the other end of a Unix socket runs as our user."""
    _pid, uid, _gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return bool(uid == os.geteuid())
