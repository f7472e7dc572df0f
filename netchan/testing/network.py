"""A network in virtual time: hosts' addresses, the links between them, and what is on its way.

Layer: testing. Knows no event loop and no netchan node; hosts give it the network's ends of their sockets.

1. ``collect`` takes what programs have written and puts it, with the time at which it comes, into the queue.
2. ``advance`` delivers what is due. Whoever runs it moves the clock (simulation.py).

Everything that is drawn comes from one generator, so a run replays from its seed. Spec: docs/spec/simulation.md §3.
"""

from __future__ import annotations

import heapq
import select
import socket
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from netchan.testing.faults import Faults, Line, changed, flipped
from netchan.testing.trace import Trace
from netchan.testing.wires import Conn

if TYPE_CHECKING:
    from netchan.testing.host import Host
    from netchan.testing.sockets import SimSocket

Place = tuple[str, int]
"""An address and a port."""
SYN_BYTES: Final = 60
SYN_AGAIN_NS: Final = 1_000_000_000
"""First pause before a connection is asked for again; doubles."""
DOOR_MAX: Final = 1024
"""Datagrams that wait in the socket of a listener."""
PORT_FIRST: Final = 40_000
"""Ports that nobody chose begin here."""


class Watcher(Protocol):
    """Who looks at all datagrams and streams: a checker."""

    def on_sent(self, source: Place, target: Place, data: bytes) -> None:
        """A host has given a datagram to a link."""

    def on_arrived(self, source: Place, target: Place, data: bytes) -> None:
        """A datagram has come to a host, as a link has left it."""

    def on_stream(self, label: str, data: bytes) -> None:
        """A host has given bytes of a stream to a link."""


class Link:
    """What joins two hosts; made by ``Simulation.link``. Each has an address of its own on each link.

    Attributes:
        name: "a-b", as the trace writes it.
        hosts: the two.
        addresses: theirs.
    """

    def __init__(
        self,
        net: Network,
        hosts: tuple[Host, Host],
        addresses: tuple[str, str],
        faults: tuple[Faults, Faults],
        name: str,
    ):
        self.net, self.hosts, self.addresses, self.name = net, hosts, addresses, name
        self.lines = (Line(faults[0], net.rng), Line(faults[1], net.rng))
        self.conns: list[Conn] = []
        self._outer: dict[Place, Place] = {}
        self._inner: dict[Place, Place] = {}
        self._forgets: set[str] = set()

    def address_of(self, host: Host) -> str:
        """Of this host, on this link. ValueError: it is not on it."""
        return self.addresses[self._side(host)]

    def set(self, *, towards: Host | None = None, **faults: Any) -> None:
        """Change some settings (see Faults) of both directions, or of the one that leads to a host.

        Raises:
            TypeError: no setting of that name. ValueError: a value that is none, or a host that is not on the link.
        """
        for side, line in enumerate(self.lines):
            if towards is None or self._side(towards) == 1 - side:
                line.faults = changed(line.faults, faults)
        self._revive()

    def cut(self, *, towards: Host | None = None) -> None:
        """Nothing comes through any more, and nobody is told; ``towards`` a host: one direction only."""
        self.set(towards=towards, down=True)

    def cut_after(self, units: int, *, towards: Host) -> None:
        """Take so much more in one direction, bytes of streams and datagrams together, and then no more in both.

        What was taken arrives. To find out what becomes of an exchange that is cut anywhere: one unit later each time.
        """
        side = 1 - self._side(towards)
        self.lines[side].left = units
        self.lines[side].other = self.lines[1 - side]

    def heal(self) -> None:
        """From here on nothing goes wrong; how fast and how long the link is does not change."""
        for line in self.lines:
            line.faults = line.faults.sound()
            line.left = None
        self._revive()

    def rebind(self, host: Host) -> None:
        """A NAT before this host forgets what it knew: its next datagrams come from other ports, streams are reset."""
        address = self.address_of(host)
        self._forgets.add(address)
        for inner in [place for place in self._outer if place[0] == address]:
            del self._inner[self._outer.pop(inner)]
        for conn in self.conns:
            conn.forgotten = True

    def reset(self) -> None:
        """Every stream over the link ends at once, as if something on the way had refused it."""
        for conn in list(self.conns):
            conn.close(0)
            conn.close(1)

    @property
    def lost(self) -> int:
        """Datagrams that were lost so far, in both directions."""
        return sum(line.lost for line in self.lines)

    # --- by the network -----------------------------------------------------------------------------------------------

    def _side(self, host: Host) -> int:
        if host not in self.hosts:
            raise ValueError(f"host {host.name!r} is not on link {self.name}")
        return self.hosts.index(host)

    def _revive(self) -> None:
        self.conns = [conn for conn in self.conns if not all(conn.closed)]
        for conn in self.conns:
            conn.revive()

    def outside(self, place: Place) -> Place:
        """How the other side sees where a datagram comes from. Where a host listens is told to the NAT for good."""
        if place[0] not in self._forgets or self._listens(place):
            return place
        if place not in self._outer:
            outer = (place[0], self.net.next_port())
            self._outer[place], self._inner[outer] = outer, place
        return self._outer[place]

    def inside(self, place: Place) -> Place | None:
        """For whom a datagram to this place is; None: the NAT knows nobody."""
        if place[0] not in self._forgets or place in self._inner:
            return self._inner.get(place, place)
        # what it has asked from is forgotten
        return place if self._listens(place) else None

    def _listens(self, place: Place) -> bool:
        """True if a host waits for strangers there."""
        for host, address in zip(self.hosts, self.addresses, strict=True):
            if address == place[0] and host.door(place) is not None:
                return True
        return False


class Network:
    """See the module head."""

    def __init__(self, rng: Random, trace: Trace, start_ns: int) -> None:
        self.rng, self.trace, self.start_ns = rng, trace, start_ns
        self.now_ns = start_ns
        self.hosts: dict[str, Host] = {}
        self.links: list[Link] = []
        self.conns: set[Conn] = set()
        self.watchers: list[Watcher] = []
        self._addresses: dict[str, tuple[Host, Link]] = {}
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._order = self._port = 0
        self.opened: WeakSet[socket.socket] = WeakSet()
        self._epoll = select.epoll()
        self._ends: dict[int, tuple[int, int, Callable[[], object]]] = {}

    @property
    def since_ns(self) -> int:
        """Nanoseconds since the simulation began."""
        return self.now_ns - self.start_ns

    # --- time ---------------------------------------------------------------------------------------------------------

    def post(self, at_ns: int, call: Callable[[], object]) -> None:
        """Call it then, or as soon as possible if that is past."""
        self._order += 1
        heapq.heappush(self._queue, (max(at_ns, self.now_ns), self._order, call))

    def next_ns(self) -> int | None:
        """When something is due; None: never."""
        return self._queue[0][0] if self._queue else None

    def advance(self) -> bool:
        """Do what is due; False: nothing was."""
        worked = False
        while self._queue and self._queue[0][0] <= self.now_ns:
            heapq.heappop(self._queue)[2]()
            worked = True
        return worked

    # --- the network's ends of sockets --------------------------------------------------------------------------------

    def watch(self, end: socket.socket, mask: int, call: Callable[[], object]) -> None:
        """Call it when the end is ready; ``mask`` 0: not any more."""
        fd = end.fileno()
        known = self._ends.get(fd)
        if known is not None and known[1] == mask:
            return
        if not mask:
            if known is not None:
                del self._ends[fd]
                self._epoll.unregister(fd)
            return
        if known is None:
            self._order += 1
            self._epoll.register(fd, mask)
            self._ends[fd] = (self._order, mask, call)
        else:
            self._epoll.modify(fd, mask)
            self._ends[fd] = (known[0], mask, call)

    def collect(self) -> bool:
        """Take what programs have written; False: nothing."""
        worked = False
        while ready := self._epoll.poll(0):
            found = sorted(self._ends[fd][0] for fd, _ in ready)
            calls = {number: call for number, _, call in self._ends.values()}
            for number in found:
                calls[number]()
            worked = True
        return worked

    def close(self) -> None:
        """Close all that is left."""
        for conn in list(self.conns):
            conn.close(0)
            conn.close(1)
        for end in list(self.opened):
            end.close()
        self._epoll.close()
        self._queue.clear()

    # --- addresses ----------------------------------------------------------------------------------------------------

    def next_port(self) -> int:
        """One that nobody has."""
        self._port += 1
        return PORT_FIRST + self._port % 20_000

    def add_link(self, link: Link) -> None:
        """Its addresses lead somewhere from now on."""
        self.links.append(link)
        for host, address in zip(link.hosts, link.addresses, strict=True):
            self._addresses[address] = host, link
            host.links.append(link)

    def route(self, host: Host, address: str) -> tuple[Host, Link, int, str]:
        """(host, link, direction, our address there). OSError: no way."""
        if address.startswith("127."):
            return host, host.loopback, 0, address
        found = self._addresses.get(address)
        if found is None:
            raise OSError(101, "Network is unreachable")
        there, link = found
        if there is host:
            return host, host.loopback, 0, address
        if host not in link.hosts:
            raise OSError(101, "Network is unreachable")
        side = link.hosts.index(host)
        return there, link, side, link.addresses[side]

    def lookup(self, host: Host, name: str) -> Iterable[str]:
        """Addresses under which a host finds another."""
        if name in (host.name, "localhost"):
            return ["127.0.0.1"]
        return [link.address_of(self.hosts[name]) for link in host.links if self.hosts.get(name) in link.hosts]

    # --- streams ------------------------------------------------------------------------------------------------------

    def connect(self, sock: SimSocket, there: Place) -> None:
        """Ask for a connection. OSError: no way there."""
        host, link, side, mine = self.route(sock.host, there[0])
        sock.local = (mine, self.next_port())
        self._ask(sock, host, link, side, there, SYN_AGAIN_NS)

    def _ask(self, sock: SimSocket, host: Host, link: Link, side: int, there: Place, pause_ns: int) -> None:
        line = link.lines[side]

        def again() -> None:
            self.post(self.now_ns + pause_ns, lambda: self._ask(sock, host, link, side, there, 2 * pause_ns))

        def arrive() -> None:
            listener = host.listener(there)
            if sock.closed:
                return
            if line.faults.down or (listener is not None and listener.full):
                again()
            elif listener is None:
                self.trace.note(self.since_ns, link.name, "refused")
                self._answer(link, side, sock.refused)
            else:
                listener.arrived.append(self._join(sock, host, link, side, there))
                self._answer(link, side, sock.joined)

        if sock.closed:
            return
        if line.faults.down:
            again()
        else:
            self.post(line.stream(self.now_ns, SYN_BYTES), arrive)

    def _answer(self, link: Link, side: int, call: Callable[[], object]) -> None:
        back = link.lines[1 - side]
        # over a link that is down the answer is as late as any part of a stream
        self.post(back.stream(self.now_ns, SYN_BYTES), lambda: self._when_up(link, 1 - side, call))

    def _when_up(self, link: Link, side: int, call: Callable[[], object]) -> None:
        if link.lines[side].faults.down:
            self.post(self.now_ns + SYN_AGAIN_NS, lambda: self._when_up(link, side, call))
        else:
            call()

    def _join(self, sock: SimSocket, host: Host, link: Link, side: int, there: Place) -> SimSocket:
        other = host.accepted(there, sock.local or ("", 0), sock.family)
        lines = (link.lines[side], link.lines[1 - side])
        conn = Conn(self, (sock.give_end(), other.give_end()), lines, f"{link.name} {sock.host.name}")
        self.conns.add(conn)
        link.conns.append(conn)
        return other

    def connect_unix(self, sock: SimSocket, path: str) -> None:
        """Join a listener of the same host. OSError: none there, or its queue is full."""
        listener = sock.host.listener((path, 0))
        if listener is None:
            raise ConnectionRefusedError(111, "Connection refused")
        if listener.full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        listener.arrived.append(self._join(sock, sock.host, sock.host.local, 0, (path, 0)))

    def saw_stream(self, label: str, data: bytes) -> None:
        """Tell the checkers."""
        for watcher in self.watchers:
            watcher.on_stream(label, data)

    # --- datagrams ----------------------------------------------------------------------------------------------------

    def send(self, host: Host, source: Place, target: Place, data: bytes, *, fragments: bool = False) -> None:
        """A host says a datagram, which may travel in fragments or not; where no way leads it is lost."""
        try:
            there, link, side, _ = self.route(host, target[0])
        except OSError:
            return
        for watcher in self.watchers:
            watcher.on_sent(source, target, data)
        self.carry(there, link, side, source, target, data, fragments=fragments)

    def carry(
        self, there: Host, link: Link, side: int, source: Place, target: Place, data: bytes, *, fragments: bool = False
    ) -> None:
        """A link gets a datagram."""
        line = link.lines[side]
        source = link.outside(source)
        fate = line.datagram(self.now_ns, len(data), fragments=fragments)
        self.trace.note(self.since_ns, f"{link.name} {'><'[side]} {source[1]} {target[1]}", fate.why, data)
        data = flipped(data, fate.bit)
        for at in fate.at_ns:
            self.post(at, lambda: self._arrive(there, link, side, source, target, data))

    def _arrive(self, there: Host, link: Link, side: int, source: Place, target: Place, data: bytes) -> None:
        inner = link.inside(target)
        if link.lines[side].faults.down or inner is None:
            link.lines[side].lost += 1
            self.trace.note(self.since_ns, link.name, "nobody")
            return
        for watcher in self.watchers:
            watcher.on_arrived(source, inner, data)
        there.take_datagram(source, inner, data)
