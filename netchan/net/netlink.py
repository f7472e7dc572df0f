"""What the kernel says of links, addresses and routes, and what it is asked: rtnetlink, bytes in and out.

Layer: net (L3). Sans-IO but for ``open_socket`` and ``ask_route``, which do not wait. The kernel is trusted no more
than a peer: a message that is not what it should be raises ``NetlinkError``, nothing is longer than what was read, and
what is not known is passed over. Flow: ``open_socket`` -> bytes -> ``parse`` -> changes, for net/changes.py.
Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, in the byte order of the machine.
Spec: docs/spec/session.md §5.10.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

READ_BYTES: Final = 65_536
"""Bytes of one read: the kernel cuts no message of this family shorter, and sends none longer."""
RECEIVE_BYTES: Final = 262_144
"""Room in the kernel for what was not read yet; what is too much is ENOBUFS, and then anything may have changed."""
MESSAGES_MAX: Final = 4_096
"""Messages of one read; a shortest one has 16 bytes."""
ATTRIBUTES_MAX: Final = 256
"""Attributes of one message that are looked at."""

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""Links, IPv4 addresses and routes, IPv6 addresses and routes."""
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFLA_IFNAME, _IFLA_OPERSTATE = 3, 16
_OPER_UNKNOWN, _OPER_UP = 0, 6
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_TENTATIVE = 0x40
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTN_NOWHERE: Final = (6, 7, 8, 9)
"""Blackhole, unreachable, prohibited, thrown away: such a route takes a way, and gives it back when it goes."""
_RTNH_F_DEAD, _RTNH_F_LINKDOWN = 0x1, 0x10
_RTM_F_CLONED = 0x200

_HEAD: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDR: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTR: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_CODE: Final = struct.Struct("=i")
_LENGTHS: Final[dict[int, int]] = {socket.AF_INET: 4, socket.AF_INET6: 16}


class NetlinkError(Exception):
    """A message that cannot be."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A network interface is there (``up``: it can carry), or is gone."""

    index: int
    up: bool
    gone: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class AddressChange:
    """An interface has this address, or has it no more."""

    index: int
    address: bytes
    gone: bool


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A way was made or has gone; ``length`` bits of ``destination``, which may be empty (the default route)."""

    destination: bytes
    length: int
    index: int
    gone: bool


@dataclass(frozen=True, slots=True)
class Route:
    """The answer to ``ask_route``: the interface, 0 for none, and whether it can carry."""

    index: int
    usable: bool


@dataclass(frozen=True, slots=True)
class Done:
    """A dump has ended, or a request has failed: ``code`` is a negative errno, 0 at the end of a dump."""

    code: int
    sequence: int = 0


Change = LinkChange | AddressChange | RouteChange
Message = Change | Done


def open_socket() -> socket.socket:
    """A socket that hears of all changes and takes requests; non-blocking. OSError: there is no netlink here."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        sock.bind((0, _GROUPS))
    except BaseException:
        sock.close()
        raise
    return sock


def dump_request(kind: int, sequence: int) -> bytes:
    """A request for all links (``RTM_GETLINK``) or addresses (``RTM_GETADDR``)."""
    body = bytes(_LINK.size if kind == RTM_GETLINK else _ADDR.size)
    return _HEAD.pack(_HEAD.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0) + body


def route_request(remote: bytes, local: bytes, sequence: int) -> bytes:
    """A request for the way to an address, 4 or 16 bytes, from another of the same length (b"": any)."""
    family = socket.AF_INET if len(remote) == 4 else socket.AF_INET6
    bits = 8 * len(remote)
    body = _ROUTE.pack(family, bits, 8 * len(local), 0, 0, 0, 0, 0, 0)
    body += _ATTR.pack(_ATTR.size + len(remote), _RTA_DST) + remote
    if local:
        body += _ATTR.pack(_ATTR.size + len(local), _RTA_SRC) + local
    return _HEAD.pack(_HEAD.size + len(body), RTM_GETROUTE, _NLM_F_REQUEST, sequence, 0) + body


def ask_route(remote: bytes, local: bytes) -> Route | None:
    """The way that packets from ``local`` to ``remote`` take now; None: there is none.

    The kernel answers in the same call. OSError: it was not asked (no netlink, too many descriptors).
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0) as sock:
        sock.send(route_request(remote, local, 1))
        data = sock.recv(READ_BYTES)
    try:
        return parse_route(data)
    except NetlinkError as error:
        raise OSError(errno.EBADMSG, str(error)) from None


def parse_route(data: bytes) -> Route | None:
    """The answer to ``route_request``. Untrusted input. NetlinkError: malformed."""
    for kind, _, body in _messages(data):
        if kind == RTM_NEWROUTE:
            row, attributes = _fixed(_ROUTE, body)
            index = 0
            for number, value in attributes:
                if number == _RTA_OIF:
                    index = _u32(value)
            if row[7] not in (_RTN_UNICAST, _RTN_LOCAL):
                return None  # unreachable, prohibited, thrown away
            return Route(index, not row[8] & (_RTNH_F_DEAD | _RTNH_F_LINKDOWN))
        if kind == _NLMSG_ERROR:
            return None
    raise NetlinkError("no answer to the request for a route")


def parse(data: bytes) -> list[Message]:
    """The changes in what was read, oldest first. Untrusted input. NetlinkError: malformed."""
    found: list[Message] = []
    for kind, sequence, body in _messages(data):
        message: Message | None = None
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            message = _link(body, kind == RTM_DELLINK)
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            message = _address(body, kind == RTM_DELADDR)
        elif kind in (RTM_NEWROUTE, RTM_DELROUTE):
            message = _route(body, kind == RTM_DELROUTE)
        elif kind == _NLMSG_DONE:
            message = Done(0, sequence)
        elif kind == _NLMSG_ERROR:
            if len(body) < _CODE.size:
                raise NetlinkError("an error without its code")
            message = Done(min(0, int(_CODE.unpack_from(body)[0])), sequence)
        if message is not None:
            found.append(message)
    return found


# --- inside -----------------------------------------------------------------------------------------------------------


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    for _ in range(MESSAGES_MAX):
        if at >= len(data):
            return
        if len(data) - at < _HEAD.size:
            raise NetlinkError("the head of a message is cut off")
        length, kind, _, sequence, _ = _HEAD.unpack_from(data, at)
        if not _HEAD.size <= length <= len(data) - at:
            raise NetlinkError(f"a message says that it has {length} bytes; {len(data) - at} are there")
        yield kind, sequence, data[at + _HEAD.size : at + length]
        at += _aligned(length)
    if at < len(data):
        raise NetlinkError(f"more than {MESSAGES_MAX} messages at once")


def _aligned(n: int) -> int:
    return (n + 3) & ~3


def _fixed(layout: struct.Struct, body: bytes) -> tuple[tuple[int, ...], Iterator[tuple[int, bytes]]]:
    if len(body) < layout.size:
        raise NetlinkError("a message ends inside its fixed part")
    return layout.unpack_from(body), _attributes(body, _aligned(layout.size))


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    for _ in range(ATTRIBUTES_MAX):
        if len(body) - at < _ATTR.size:
            return
        length, number = _ATTR.unpack_from(body, at)
        if not _ATTR.size <= length <= len(body) - at:
            raise NetlinkError(f"an attribute says that it has {length} bytes; {len(body) - at} are there")
        yield number & 0x3FFF, body[at + _ATTR.size : at + length]
        at += _aligned(length)


def _u32(value: bytes) -> int:
    if len(value) != _U32.size:
        raise NetlinkError("a number is not of 4 bytes")
    return int(_U32.unpack(value)[0])


def _link(body: bytes, gone: bool) -> LinkChange | None:
    (family, _, index, flags, _), attributes = _fixed(_LINK, body)
    if family != socket.AF_UNSPEC or index <= 0:
        return None  # of a bridge's ports and the like
    name, oper = "", _OPER_UNKNOWN
    for number, value in attributes:
        if number == _IFLA_IFNAME:
            name = value.rstrip(b"\0")[:15].decode("ascii", "replace")
        elif number == _IFLA_OPERSTATE and len(value) == 1:
            oper = value[0]
    up = bool(flags & _IFF_UP) and (oper == _OPER_UP or (oper == _OPER_UNKNOWN and bool(flags & _IFF_LOWER_UP)))
    return LinkChange(index, up and not gone, gone, name)


def _address(body: bytes, gone: bool) -> AddressChange | None:
    (family, _, flags, _, index), attributes = _fixed(_ADDR, body)
    size = _LENGTHS.get(family)
    address = local = b""
    for number, value in attributes:
        if number == _IFA_ADDRESS:
            address = value
        elif number == _IFA_LOCAL:
            local = value
        elif number == _IFA_FLAGS:
            flags = _u32(value)
    address = local or address  # of a point-to-point link the first is the other end's
    if size is None or len(address) != size or index == 0:
        return None
    if flags & _IFA_F_TENTATIVE and not gone:
        return None  # it is still being found out whether somebody else has it; it is said again then
    return AddressChange(index, address, gone)


def _route(body: bytes, gone: bool) -> RouteChange | None:
    row, attributes = _fixed(_ROUTE, body)
    size = _LENGTHS.get(row[0])
    destination, index = b"", 0
    for number, value in attributes:
        if number == _RTA_DST:
            destination = value
        elif number == _RTA_OIF:
            index = _u32(value)
    if size is None or len(destination) not in (0, size) or row[1] > 8 * size:
        return None
    if row[7] not in (_RTN_UNICAST, *_RTN_NOWHERE) or row[8] & _RTM_F_CLONED:
        return None  # those of our own addresses and broadcasts, and notes of the kernel for itself
    return RouteChange(destination, row[1], index, gone ^ (row[7] in _RTN_NOWHERE))


def socket_address(raw: bytes) -> bytes:
    """The address of a socket as the kernel has it (struct sockaddr), without port; b"": none, or of another family."""
    if len(raw) < 2:
        return b""
    family = int.from_bytes(raw[:2], sys.byteorder)
    if family == socket.AF_INET and len(raw) >= 8:
        return raw[4:8]
    if family == socket.AF_INET6 and len(raw) >= 24:
        mapped = raw[8:20] == bytes(10) + b"\xff\xff"
        return raw[20:24] if mapped else raw[8:24]
    return b""


def address_text(address: bytes) -> str:
    """As a person would write it, for messages."""
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))
