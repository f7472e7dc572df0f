"""Sockets of a UDP listener: the one to which strangers speak, and one for each of its peers, all with one address.

Layer: net (L3). SO_REUSEPORT lets sockets of one user share an address; SO_REUSEADDR, which lets those of all users, is
never set. So nobody else gets datagrams of a listener, and of the same user's programs the second one is refused.
Spec: docs/spec/handshake.md §2.4.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from netchan.net.datagrams import FRAME_MAX, open_socket

_IP_PKTINFO: Final = 8  # Linux, <linux/in.h>; the socket module has it from Python 3.14 on
_INFO4: Final = struct.Struct("=I4s4s")
_INFO6: Final = struct.Struct("=16sI")
_CONNECTED: Final = "01"
_ANC_BYTES: Final = 128


def bind_door(sock: socket.socket, sockaddr: Any) -> bool:
    """Bind the socket of a listener. OSError: EADDRINUSE also where another one of this user has the address.

    Returns:
        True if nobody else had the address, not even the sessions of a listener that was closed.
    """
    alone = True
    try:
        sock.bind(sockaddr)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _only_paths(sock.family, sockaddr):
            raise
        # sessions of a listener that was closed go on with its port; they do not get what is not of their peer
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(sockaddr)
        alone = False
    open_door(sock)
    return alone


def open_door(sock: socket.socket) -> None:
    """Make a bound socket that of a listener: others may share its address, and it tells to which a datagram came."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if ipaddress.ip_address(str(sock.getsockname()[0]).partition("%")[0]).is_unspecified:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def recv_from(sock: socket.socket) -> tuple[bytes, Any, Any]:
    """A datagram, the address to which it was sent (of all addresses: the very one), and where it came from."""
    data, extra, _, peer = sock.recvmsg(FRAME_MAX + 1, _ANC_BYTES)
    there = sock.getsockname()
    for level, kind, value in extra:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(value) >= _INFO4.size:
            there = (socket.inet_ntop(socket.AF_INET, _INFO4.unpack_from(value)[1]), there[1])
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(value) >= _INFO6.size:
            raw, index = _INFO6.unpack_from(value)
            scope = index if ipaddress.IPv6Address(raw).is_link_local else 0
            there = (socket.inet_ntop(socket.AF_INET6, raw), there[1], 0, scope)
    return data, there, peer


def reply(sock: socket.socket, data: bytes, there: Any, peer: Any) -> None:
    """Say this to ``peer`` from the address ``there`` of a listener; it may be lost. OSError: it was not sent."""
    about: list[tuple[int, int, bytes]] = []
    if ipaddress.ip_address(str(sock.getsockname()[0]).partition("%")[0]).is_unspecified:
        host = str(there[0]).partition("%")[0]
        if sock.family == socket.AF_INET6:
            raw = _INFO6.pack(socket.inet_pton(socket.AF_INET6, host), there[3])
            about = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, raw)]
        else:
            raw = _INFO4.pack(0, socket.inet_pton(socket.AF_INET, host), bytes(4))
            about = [(socket.IPPROTO_IP, _IP_PKTINFO, raw)]
    sock.sendmsg([data], about, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, peer)


def is_alone(sock: socket.socket) -> bool:
    """True if no other UDP socket has the port of this one; False also where the system does not say."""
    port = f"{sock.getsockname()[1]:04X}"
    mine = str(os.fstat(sock.fileno()).st_ino)
    try:
        for name in ("udp", "udp6"):
            with Path("/proc/self/net", name).open() as table:
                if any(fields[9] != mine for fields in _lines(table, port)):
                    return False
    except (OSError, IndexError):
        return False
    return True


def open_to_peer(there: Any, peer: Any, family: int) -> socket.socket:
    """A socket of the address ``there`` that has this peer only. OSError: none."""
    sock = open_socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(there)
        sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock


def _only_paths(family: int, sockaddr: Any) -> bool:
    """True if every UDP socket that stands in the way has a peer; False also where the system does not say."""
    port = f"{sockaddr[1]:04X}"
    try:
        with Path("/proc/self/net/udp6" if family == socket.AF_INET6 else "/proc/self/net/udp").open() as table:
            return all(fields[3] == _CONNECTED for fields in _lines(table, port))
    except (OSError, IndexError):
        return False


def _lines(table: Iterator[str], port: str) -> Iterator[list[str]]:
    next(table, None)  # its heading
    for line in table:
        fields = line.split()
        if fields[1].rpartition(":")[2] == port:
            yield fields
