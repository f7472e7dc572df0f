"""The exchange that makes a datagram path: a handshake or a JOIN over a UDP socket that is connected to its peer.

Layer: net (L3). As Connecting, on the worker's thread; what the machines say does not change, each flight is one
datagram.

1. The side that dials says its last flight again, after growing pauses, until an answer comes. The other side never
   speaks unasked, so nobody can be made to send more to a stranger than the stranger has sent.
2. A datagram that has come before is answered with what was said to it, and looked at no more.
3. What does not belong to the exchange (another id, cut short, not made with a key of the gate) is dropped, and so are
   errors of the socket: anybody can forge them. So a port where nobody listens looks like one that does not answer.
4. A message that led the machine nowhere (net/doubts.py) counts as not having come. While one is looked at the next
   ones wait in the kernel, so that a forged one does not push out the true one behind it.
5. Who dials and has to begin anew (COOKIE, NO_TICKET) says its first messages again together, until one is answered.
6. The last flight goes to the engine with the socket: it says it again until the first datagram of the path has come.

Spec: docs/spec/handshake.md §2.4.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any, Final

from netchan.net.connecting import Connecting, Owner, Phase
from netchan.net.gate import HELLO, JOIN, MIN_FRAME, RESUME
from netchan.net.handshake import Responder
from netchan.net.stack import stack
from netchan.net.worker import READ, Worker

AGAIN_NS: Final = 200_000_000
"""First pause before a flight is said again; doubled each time."""
AGAIN_MAX_NS: Final = 500_000_000
"""Of a network that loses a third of the datagrams one exchange in a thousand fails within Config.dial_timeout."""
LINGER_NS: Final = 3_000_000_000
"""How long a refusal is said again."""
ANSWERS_MAX: Final = 16
"""And how often."""
SEEN_MAX: Final = 8
"""Datagrams of one exchange that are remembered; it has six at most."""
FRAME_MIN: Final = MIN_FRAME
"""Nothing shorter is a message."""
FRAME_MAX: Final = 4_096
SESSION_BYTE: Final = 0x40
"""First byte of datagrams of an established path, and above."""
MTU_SAFE: Final = 1_200
"""Bytes of a datagram that every path carries (RFC 9000 section 14)."""
MTU_LOCAL: Final = 1_452
"""On the loopback interface."""
_FIRST: Final = frozenset((HELLO, JOIN, RESUME))
_ID: Final = slice(6, 14)


def is_first(data: bytes) -> bool:
    """True if a datagram may be the first message of an exchange."""
    return FRAME_MIN <= len(data) <= FRAME_MAX and data[0] in _FIRST


def open_socket(family: int) -> socket.socket:
    """A datagram socket."""
    return stack().socket(family, socket.SOCK_DGRAM)


def mtu_to(sockaddr: Any) -> int:
    """How long datagrams to this socket address may be."""
    try:
        local = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]).is_loopback
    except ValueError:
        local = False
    return MTU_LOCAL if local else MTU_SAFE


class Exchange(Connecting):
    """See the module head; arguments as Connecting.

    Attributes:
        peer: socket address of the other side, for the listener.
    """

    def __init__(self, worker: Worker, sock: socket.socket, owner: Owner, where: str) -> None:
        super().__init__(worker, sock, owner, where)
        self.peer: Any = None
        self._seen: list[bytes] = []
        self._last = b""
        self._said: list[bytes] = []
        self._answers = 0
        self._id = b""
        self._pause_ns = AGAIN_NS
        self._again_at = 0
        self._ends_ns: int | None = None

    @property
    def answer(self) -> bytes:
        """Our last flight, if the other side may have to hear it again."""
        return self._last if isinstance(self.machine, Responder) else b""

    def connect_to(self, sockaddr: Any) -> None:
        """The kernel notes the peer; nothing is sent yet. OSError: no way there."""
        self.sock.connect(sockaddr)
        self.phase = Phase.HANDSHAKE
        self._watch(0)
        self._queue()

    def take_first(self, data: bytes) -> None:
        """A datagram for this exchange that came to the socket of the listener."""
        self._take(data)

    # --- inside -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """See worker.Job."""
        machine, data = self.machine, bytes(self._input)
        before = 0 if machine is None else machine.passed
        super().step()
        if machine is not None and machine.passed != before:
            self._seen.remove(data)

    def _read(self) -> None:
        if self._input and self.phase is Phase.HANDSHAKE:
            self._watch_more()
            return
        try:
            data = self.sock.recv(FRAME_MAX + 1)
        except OSError:
            return
        self._take(data)
        self._watch_more()

    def _take(self, data: bytes) -> None:
        if len(data) < FRAME_MIN or data[0] >= SESSION_BYTE or (self._id and data[_ID] != self._id):
            return
        if self.phase is Phase.LINGER and self._answers < ANSWERS_MAX:
            self._answers += 1
            self._say(self._last)
        if self.phase is not Phase.HANDSHAKE:
            return
        if data in self._seen:
            if self._last and isinstance(self.machine, Responder):
                self._say(self._last)
            return
        # one flight at a time: what comes behind another one by the listener's socket is said again
        if len(self._seen) >= SEEN_MAX or self._input or self.machine is None or not self.machine.fits(data):
            return
        self._id = bytes(data[_ID])
        self._seen.append(data)
        self._input += data
        self._queue()

    def _write(self) -> None:
        if self._out:
            self._last = bytes(self._out)
            self._out.clear()
            self._id = self._last[_ID]
            self._say(self._last)
            if self._last[0] not in _FIRST:
                self._said.clear()
            self._said.append(self._last)
            self._pause_ns = AGAIN_NS
            if not isinstance(self.machine, Responder):
                self._again_at = time.monotonic_ns() + self._pause_ns
                self._worker.at(self._again_at, self._again)
        if self.phase is Phase.SENDING:
            self._sent_all()
        elif self.phase is Phase.HANDSHAKE:
            self._watch_more()

    def _again(self) -> None:
        """Nothing came for the last flight."""
        now = time.monotonic_ns()
        if self.phase is not Phase.HANDSHAKE or now < self._again_at:
            return
        for data in self._said:
            self._say(data)
        self._pause_ns = min(2 * self._pause_ns, AGAIN_MAX_NS)
        self._again_at = now + self._pause_ns
        self._worker.at(self._again_at, self._again)

    def _say(self, data: bytes) -> None:
        try:
            self.sock.send(data, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # lost, as on any network

    def _watch_more(self) -> None:
        if self.phase is Phase.HANDSHAKE:
            self._watch(0 if self._input else READ)
            machine = self.machine
            if machine is not None and machine.deadline_ns != self._ends_ns:
                self._ends_ns = machine.deadline_ns
                self._set_deadline()

    def _linger(self) -> None:
        """A refusal that was lost is said again while its dialler still asks."""
        if not self.answer:
            self.close()
            return
        self.phase = Phase.LINGER
        self._watch(READ)
        self._set_timer(time.monotonic_ns() + LINGER_NS, self.close)

    def _drain(self, reason: str) -> None:
        self.owner.on_drain(self, reason)
        self.close()
