"""The sockets that programs of a simulated host get: what netchan's net layer asks of one, over a simulated network.

Layer: testing. Each is one end of a real pair of Unix sockets, whose descriptor an engine reads and writes like any
other; the network has the other end (wires.py). What a pair cannot say, that a connection is up or waits to be
accepted, ``readiness`` tells the host's worker instead.

Spec: docs/spec/simulation.md §2.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from netchan.testing.network import DOOR_MAX, Place

if TYPE_CHECKING:
    from netchan.testing.host import Host

_IP_PKTINFO: Final = 8  # Linux, <linux/in.h>; the socket module has it from Python 3.14 on
BUFFER: Final = 4 << 20
"""Bytes of datagrams that a program has not read, asked of the kernel."""


class SimSocket:
    """One socket of a host.

    Attributes:
        special: its readiness is not that of its descriptor.
    """

    def __init__(self, host: Host, family: int, kind: int) -> None:
        self.host, self.family, self.kind = host, family, kind
        self.local: Place | None = None
        self.peer: Place | None = None
        self.closed = self.special = False
        self.datagrams: deque[tuple[bytes, Place, Place]] = deque()  # of a door: with from where and to where
        self.arrived: deque[SimSocket] = deque()
        self._error = 0
        self._backlog = -1
        streams = kind == socket.SOCK_STREAM
        mine, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM if streams else socket.SOCK_SEQPACKET)
        for each in (mine, end):
            each.setblocking(False)
            host.net.opened.add(each)
            if not streams:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._sock, self.number = mine, mine.fileno()
        self._end: socket.socket | None = end
        self._wire: socket.socket | None = None  # of one that has a peer for datagrams: the same end

    # --- what the net layer asks --------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """As socket.socket; the number of a descriptor that nobody else has."""
        return -1 if self.closed else self.number

    def setblocking(self, flag: bool) -> None:
        """As socket.socket; it never blocks."""

    def setsockopt(self, *_: Any) -> None:
        """As socket.socket; the simulation has no use for any."""

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        """As socket.socket: errors of a connect, and who is at the other end of a Unix socket."""
        if name == socket.SO_ERROR:
            error, self._error = self._error, 0
            return error
        if name == socket.SO_PEERCRED:
            return struct.pack("3i", os.getpid(), os.geteuid(), os.getegid())
        return 0 if not size else bytes(size)

    def getsockname(self) -> Any:
        """As socket.socket."""
        if self.family == socket.AF_UNIX:
            return self.local[0] if self.local else ""
        return self.local or ("0.0.0.0", 0)  # noqa: S104 - as an unbound socket says

    def getpeername(self) -> Any:
        """As socket.socket. OSError: it has none."""
        if self.peer is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self.peer

    def bind(self, there: Any) -> None:
        """As socket.socket. OSError: somebody has it, or the host has no such address."""
        if self.family == socket.AF_UNIX:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
                holder.bind(there)  # the file: it is looked at, and removed at the end
            self.local = (there, 0)
            return
        address, port = there[:2]
        self.host.check_address(address)
        place = (address, port or self.host.net.next_port())
        if self.kind == socket.SOCK_STREAM and self.host.listener(place) is not None:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.local = place
        if self.kind == socket.SOCK_DGRAM:
            self.special = True
            self.host.doors.setdefault(place, self)  # one that is about to have a peer may share the address

    def listen(self, backlog: int) -> None:
        """As socket.socket."""
        self._backlog, self.special = max(1, backlog), True
        self.host.listeners[self.local or ("", 0)] = self

    def accept(self) -> tuple[SimSocket, Any]:
        """As socket.socket."""
        if not self.arrived:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        found = self.arrived.popleft()
        return found, "" if self.family == socket.AF_UNIX else found.peer

    def connect(self, there: Any) -> None:
        """As socket.socket, without waiting. OSError: refused at once, or no way there."""
        net = self.host.net
        if self.kind == socket.SOCK_DGRAM:
            place = (there[0], there[1])
            mine = net.route(self.host, place[0])[3]
            if self.local is not None and self.host.doors.get(self.local) is self:
                del self.host.doors[self.local]  # it hears no strangers
            self.special = False
            self.local, self.peer = self.local or (mine, net.next_port()), place
            end = self._wire = self.give_end()
            self.host.pairs[self.local, place] = (self, end)
            net.watch(end, select.EPOLLIN, lambda: self._say(end))
        elif self.family == socket.AF_UNIX:
            net.connect_unix(self, there)
        else:
            self.special = True
            self.peer = (there[0], there[1])
            net.connect(self, self.peer)
            raise BlockingIOError(errno.EINPROGRESS, "Operation now in progress")

    def send(self, data: bytes | bytearray, flags: int = 0) -> int:
        """As socket.socket."""
        return self._sock.send(data, flags)

    def recv(self, size: int) -> bytes:
        """As socket.socket."""
        return self._sock.recv(size)

    def recvmsg(self, size: int, _: int = 0) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """As socket.socket, of a door."""
        if not self.datagrams:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        data, source, target = self.datagrams.popleft()
        info = struct.pack("=I4s4s", 0, socket.inet_aton(target[0]), socket.inet_aton(target[0]))
        return data[:size], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, source

    def sendmsg(self, parts: list[bytes], about: list[tuple[int, int, bytes]], _: int, there: Any) -> int:
        """As socket.socket, of a door: from the address that is named in ``about``, or its own."""
        data = b"".join(parts)
        host, port = self.getsockname()
        for _level, _kind, raw in about:
            host = socket.inet_ntoa(struct.unpack("=I4s4s", raw)[1])
        self.host.net.send(self.host, (host, port), (there[0], there[1]), data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """As socket.socket."""
        self._sock.shutdown(how)

    def detach(self) -> int:
        """As socket.socket: the descriptor is the caller's."""
        if self._wire is not None:
            self._say(self._wire)  # what was said before may be cut into fragments; an engine forbids that
        self.closed = True
        self.host.specials.pop(self.number, None)
        return self._sock.detach()

    def close(self) -> None:
        """As socket.socket."""
        if self.closed:
            return
        self.closed = True
        self._sock.close()
        self.host.forget(self)
        if self._end is not None:
            self._end.close()
            self._end = None
        for other in self.arrived:
            other.close()

    # --- the network's ------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Nobody more may wait to be accepted."""
        return len(self.arrived) >= self._backlog

    def readiness(self) -> int:
        """Of a special one: what it is ready for, in bits of epoll."""
        if self._backlog >= 0:
            return select.EPOLLIN if self.arrived else 0
        if self.kind == socket.SOCK_DGRAM:
            return select.EPOLLIN if self.datagrams else 0
        return 0

    def give_end(self) -> socket.socket:
        """The network's end of the pair; the network closes it."""
        end = self._end
        if end is None:
            raise OSError(errno.EISCONN, "Transport endpoint is already connected")
        self._end = None
        return end

    def joined(self) -> None:
        """The connection is up."""
        if not self.closed:
            self.special = False
            self.host.worker.signal(self.number)

    def refused(self) -> None:
        """Nobody listens there."""
        if not self.closed:
            self.special = False
            self._error = errno.ECONNREFUSED
            self.host.worker.signal(self.number)

    def put(self, data: bytes, source: Place, target: Place) -> None:
        """A datagram for a door."""
        if len(self.datagrams) < DOOR_MAX:
            self.datagrams.append((data, source, target))

    def _say(self, end: socket.socket) -> None:
        """The program has written datagrams, or closed."""
        net = self.host.net
        while True:
            try:
                data = end.recv(65_536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:  # closed: nobody says an empty one
                net.watch(end, 0, lambda: None)
                self.host.forget(self)
                end.close()
                return
            if self.local is not None and self.peer is not None:
                net.send(self.host, self.local, self.peer, data, fragments=not self.closed)
