"""The bytes of one simulated connection: out of a socket, over a link, into another.

Layer: testing. A program's socket is one end of a real pair of Unix sockets, so that engines read and write as always;
the other end is the network's, and this is where it is emptied and filled.

1. What a program has written is taken from the pair (``Way.take``), at most ``WINDOW`` bytes that have not arrived.
2. The link says when it comes; over a link that is down a stream waits, and tries again at growing intervals.
3. It is put into the other pair; what does not fit waits until the program has read.

Spec: docs/spec/simulation.md §3.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from netchan.testing.faults import STREAM_AGAIN_MAX_NS, STREAM_AGAIN_NS, Line, flipped

if TYPE_CHECKING:
    from netchan.testing.network import Network

WINDOW: Final = 256 * 1024
"""Bytes of one direction of a stream that are on their way or wait for their reader."""
PIECE: Final = 16 * 1024
"""Bytes of a stream that travel together."""


class Mark(Enum):
    """What ends a direction of a stream."""

    END = "end"
    RESET = "reset"


Item = bytes | Mark


class Way:
    """One direction of a stream."""

    def __init__(self, conn: Conn, side: int, line: Line, label: str) -> None:
        self.conn, self.side, self.line, self.label = conn, side, line, label
        self.flying = 0  # bytes
        self.last_ns = 0  # nothing overtakes
        self.waiting: deque[Item] = deque()  # arrived, and the reader has no room
        self.held: deque[Item] = deque()  # the link is down
        self.held_ns = 0
        self.early = 0  # of ``held``: those that were on their way when the link went down
        self.ended = self.done = False  # taken, and delivered

    @property
    def reads(self) -> bool:
        """More is taken from the one who writes."""
        return not self.ended and self.flying < WINDOW

    def take(self) -> None:
        """The source has something, or its end."""
        net = self.conn.net
        while self.reads:
            try:
                data = self.conn.ends[self.side].recv(min(PIECE, WINDOW - self.flying))
            except BlockingIOError:
                return
            except OSError:
                self.ended = True
                self.push(Mark.RESET)
                return
            if not data:
                self.ended = True
                self.push(Mark.END)
                return
            self.flying += len(data)
            net.trace.note(net.since_ns, self.label, "stream", data)
            net.saw_stream(self.label, data)
            taken = self.line.takes(len(data))
            for part, sent in ((data[:taken], True), (data[taken:], False)):
                if part:
                    self.push(part, sent=sent)

    def push(self, item: Item, *, sent: bool | None = None) -> None:
        """Give it to the link; ``sent``: whether the link takes it."""
        net = self.conn.net
        if self.conn.forgotten:
            net.post(net.now_ns + 2 * int(self.line.faults.delay * 1e9), lambda: self.conn.close(self.side))
            return
        if self.line.faults.down or self.held or not (self.line.left != 0 if sent is None else sent):
            if not self.held:
                self.held_ns = net.now_ns
            self.held.append(item)
            return
        size = len(item) if isinstance(item, bytes) else 40
        if isinstance(item, bytes):
            bit = self.line.bit(size)
            if bit is not None:
                item = flipped(item, bit)
                net.trace.note(net.since_ns, self.label, "corrupted")
        self.last_ns = max(self.last_ns, self.line.stream(net.now_ns, size))
        arrived = item
        net.post(self.last_ns, lambda: self.arrive(arrived))

    def arrive(self, item: Item) -> None:
        """It has come to the end of the link."""
        net = self.conn.net
        if self.line.faults.down:
            if not self.held:
                self.held_ns = net.now_ns
            self.held.insert(self.early, item)
            self.early += 1
            return
        if item is Mark.RESET:
            net.trace.note(net.since_ns, self.label, "reset")
            self.conn.close(1 - self.side)
            return
        self.waiting.append(item)
        self.give()

    def revive(self) -> None:
        """The link is up: the sender tries again when its next attempt is due."""
        if not self.held or self.line.faults.down:
            return
        net = self.conn.net
        at, pause = self.held_ns, STREAM_AGAIN_NS
        while at < net.now_ns:
            at += pause
            pause = min(2 * pause, STREAM_AGAIN_MAX_NS)
        self.last_ns = max(self.last_ns, at)
        held, self.held, self.early = self.held, deque(), 0
        for item in held:
            self.push(item)

    def give(self) -> None:
        """Put into the target what it takes."""
        target = self.conn.ends[1 - self.side]
        while self.waiting:
            item = self.waiting.popleft()
            if isinstance(item, Mark):
                self.done = True
                try:
                    target.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has closed meanwhile
                continue
            try:
                sent = target.send(item, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.conn.refuse(1 - self.side)
                return
            self.flying -= sent
            if sent < len(item):
                self.waiting.appendleft(item[sent:])
                break
        self.conn.watch()


class Conn:
    """A stream between two sockets.

    Args:
        ends: the network's ends of both pairs; owned.
        lines: from the first to the second, and back.
    """

    def __init__(self, net: Network, ends: tuple[socket.socket, socket.socket], lines: tuple[Line, Line], label: str):
        self.net, self.ends = net, ends
        self.ways = (Way(self, 0, lines[0], f"{label} >"), Way(self, 1, lines[1], f"{label} <"))
        self.closed = [False, False]
        self.forgotten = False  # by a NAT on the way
        self.watch()

    def watch(self) -> None:
        """Look at both ends for what is wanted of them."""
        for side, end in enumerate(self.ends):
            if self.closed[side]:
                continue
            out = bool(self.ways[1 - side].waiting)
            mask = (select.EPOLLIN if self.ways[side].reads else 0) | (select.EPOLLOUT if out else 0)
            self.net.watch(end, mask, self._ready(side))
        if all(way.done for way in self.ways):
            self.close(0)
            self.close(1)

    def _ready(self, side: int) -> Callable[[], None]:
        def ready() -> None:
            if not self.closed[side]:
                self.ways[side].take()
            if not self.closed[side] and self.ways[1 - side].waiting:
                self.ways[1 - side].give()
            self.watch()

        return ready

    def refuse(self, side: int) -> None:
        """Nobody reads at this end any more: the other one hears of it."""
        if not self.closed[side]:
            self.close(side)
            self.ways[side].ended = True
            self.ways[side].push(Mark.RESET)

    def close(self, side: int) -> None:
        """Close one end: whoever has the socket reads the end, or an error if it has written what nobody took."""
        if not self.closed[side]:
            self.closed[side] = True
            self.net.watch(self.ends[side], 0, _nothing)
            self.ends[side].close()
        if all(self.closed):
            self.net.conns.discard(self)

    def revive(self) -> None:
        """A link on the way is up."""
        for way in self.ways:
            way.revive()


def _nothing() -> None:
    """Never called."""
