"""JOIN: a session that exists gets a path, without a second identity check (docs/spec/handshake.md §11).

The path comes instead of all others, when the side that dials has lost them, or beside those that live.

Layer: net (L3), sans-IO: clocks and randomness are arguments. Knows of a session only what ``Joined`` says.
Flow: Joiner.start -> JOIN -> Responder asks a ``Joinable`` -> JOIN back -> Joiner.feed -> Joined on both sides.
What proves the session is a code under its join key, which no one but its two sides can make. A path instead of all
others: these are over from then on, and of the last one each side says exactly how many records have arrived.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from netchan.errors import DialError, DialTimeout, HandshakeError
from netchan.net import gate as g
from netchan.net.doubts import GRACE_NS, Doubts, Reason
from netchan.net.machine import Failed, Joinable, Joined, Send, State
from netchan.net.params import Refusal

LOCATOR_LEN: Final = 16
NONCE_LEN: Final = 32
MAC_LEN: Final = 32
MAX_PATH: Final = 2**32 - 1
_LABEL: Final = b"netchan join v1\0"
_REQUEST: Final = struct.Struct(f">{LOCATOR_LEN}sI{NONCE_LEN}sBIQ{MAC_LEN}s")
_REPLY: Final = struct.Struct(f">I{NONCE_LEN}sBIQ{MAC_LEN}s")
Rng = Callable[[int], bytes]


class Reach(Protocol):
    """Where the sessions are that a JOIN may mean (net/resume.py)."""

    def find(self, name: bytes, /) -> Joinable | None:
        """The session of a locator."""

    def used(self, name: bytes, /) -> None:
        """A genuine JOIN has come with this locator."""

    def proof(self, name: bytes, /) -> bytes | None:
        """What shows the other side that the session of this locator is over; None: it is not, or is not known."""

    def may_come(self, name: bytes, /) -> bool:
        """True if the session is not here, and may be on its way from another process."""


class Request(NamedTuple):
    """The body of a JOIN from the side that dials."""

    locator: bytes
    path_id: int
    nonce: bytes
    paths: int
    last: int
    received: int
    mac: bytes


class Reply(NamedTuple):
    """The body of the answer."""

    path_id: int
    nonce: bytes
    paths: int
    last: int
    received: int
    mac: bytes


def locator(session: Joinable, number: int) -> bytes:
    """Names the session in its ``number``-th JOIN that was answered, to nobody but its two sides."""
    return session.join_mac(b"netchan locator v1\0" + number.to_bytes(8, "big"))[:LOCATOR_LEN]


def gone(session: Joinable) -> bytes:
    """What only the two sides can make, and say when the session is over."""
    return session.join_mac(b"netchan gone v1\0")


def parse_request(frame: bytes) -> Request:
    """The body of a JOIN. Untrusted input. FrameError: malformed."""
    body = g.frame_body(frame)
    if len(body) != _REQUEST.size:
        raise g.FrameError("JOIN has a wrong length")
    request = Request._make(_REQUEST.unpack(body))
    if request.paths > 1 or (request.paths and request.path_id == request.last):
        raise g.FrameError("JOIN is malformed")
    return request


def _parse_reply(frame: bytes) -> Reply:
    body = g.frame_body(frame)
    if len(body) != _REPLY.size:
        raise g.FrameError("the answer to JOIN has a wrong length")
    return Reply._make(_REPLY.unpack(body))


def _mac(session: Joinable, header: g.Header, *parts: bytes) -> bytes:
    return session.join_mac(_LABEL + header.pack() + b"".join(parts))


def _binding(request: bytes, reply: bytes) -> bytes:
    return sha256(b"netchan path v1\0" + request + reply).digest()


def _header(header: g.Header, size: int) -> g.Header:
    """The header as it stands on the wire in front of a body of ``size`` bytes."""
    return header._replace(kind=g.JOIN, length=g.HEADER_LEN + size + g.TRAILER_LEN)


def is_genuine(session: Joinable, header: g.Header, frame: bytes) -> bool:
    """True if the other side of this session made the JOIN."""
    body = g.frame_body(frame)
    return hmac.compare_digest(_mac(session, header, body[:-MAC_LEN]), body[-MAC_LEN:])


def answer(session: Joinable, header: g.Header, frame: bytes, request: Request, rng: Rng) -> tuple[bytes, bytes] | None:
    """End the paths that it is to come instead of, and make the answer to a genuine JOIN.

    Returns:
        (body of the answer, binding), or None: the session is over or cannot mean these paths.
    """
    if request.paths:
        received = session.join(request.path_id, request.last)
    else:
        received = 0 if session.may_add(request.path_id) else None
    if received is None:
        return None
    asked = g.frame_body(frame)
    body = _REPLY.pack(request.path_id, rng(NONCE_LEN), request.paths, request.last, received, bytes(MAC_LEN))[
        :-MAC_LEN
    ]
    body += _mac(session, _header(header, _REPLY.size), asked, body)
    return body, _binding(asked, body)


class Joiner:
    """The side that dials, on a fresh connection; the interface of handshake.Initiator.

    Args:
        session: gets the path.
        beside: the path comes beside those that live; else the session is suspended, and it comes instead of all.
        primitives: the suite of the session's handshake, for the gate.
        keys: of the gate of the node that holds the session.
        number: of this JOIN, from 0: names the locator.
        path_id: fresh.
        last: id of the session's last path; received: records received on it; both 0 if it comes beside them.
        rng: n random bytes from a cryptographic source.
        where: the address for messages.
        timeout_ns: for the whole exchange.
        datagrams: see handshake.Initiator.

    Attributes:
        over: the other side has shown that it has ended the session.
    """

    def __init__(
        self,
        session: Joinable,
        primitives: int,
        keys: g.GateKeys,
        rng: Rng,
        *,
        number: int,
        path_id: int,
        last: int,
        received: int,
        where: str,
        timeout_ns: int,
        beside: bool = False,
        datagrams: bool = False,
    ) -> None:
        self._doubts = Doubts() if datagrams else None
        self._now_ns = 0
        self._session, self._primitives, self._keys, self._rng = session, primitives, keys, rng
        self._number, self._path_id, self._last, self._received = number, path_id, last, received
        self._where, self._timeout_ns, self.beside = where, timeout_ns, beside
        self._buffer = bytearray()
        self._asked = b""
        self._header: g.Header | None = None
        self.state = State.NEW
        self.deadline_ns: int | None = None
        self.over = False

    def start(self, wall_s: float, now_ns: int) -> list[Send]:
        """Make the JOIN. Call once, with the connection up."""
        self.deadline_ns = now_ns + self._timeout_ns
        self._header = _header(
            g.Header(
                g.JOIN,
                g.VERSION,
                0,
                g.MODE_XX_NAMED << 4 | self._primitives,
                0,
                self._rng(8),
                max(int(wall_s * 1000), 0),
            ),
            _REQUEST.size,
        )
        body = _REQUEST.pack(
            locator(self._session, self._number),
            self._path_id,
            self._rng(NONCE_LEN),
            0 if self.beside else 1,
            self._last,
            self._received,
            bytes(MAC_LEN),
        )[:-MAC_LEN]
        self._asked = body + _mac(self._session, self._header, body)
        self.state = State.WAIT_REPLY
        return [Send(g.seal_frame(self._header, self._asked, self._keys.to_responder))]

    @property
    def passed(self) -> int:
        """As Machine.passed."""
        return 0 if self._doubts is None else self._doubts.passed

    def fits(self, datagram: bytes) -> bool:
        """As Machine.fits."""
        return g.is_from(datagram, self._keys.to_initiator)

    def feed(self, data: bytes, wall_s: float, now_ns: int) -> list[Joined | Failed]:
        """Take bytes from the carrier, in any cut; never raises for what the peer sent."""
        if self.state is not State.WAIT_REPLY or self._header is None:
            return []
        late = self.tick(now_ns)
        if late:
            return late
        self._now_ns = now_ns
        self._buffer += data
        try:
            if len(self._buffer) < g.HEADER_LEN:
                return []
            length = g.parse_header(self._buffer).length
            if len(self._buffer) < length:
                return []
            frame = bytes(self._buffer[:length])
            del self._buffer[:length]
            header = g.open_frame(frame, self._keys.to_initiator, self._header)
            if header.kind == g.CLOSE:
                return self._on_close(frame)
            if header.kind == g.VERSIONS:
                return self._doubt(Refusal.VERSION, "the other side speaks other versions", False)
            if header.kind != g.JOIN:
                raise g.FrameError(f"message {header.kind:#x} came out of order")
            return self._on_reply(header, frame)
        except g.FrameError as error:
            if self._doubts is not None:
                self._doubts.passed += 1
                self._buffer.clear()
                return []
            return self._fail(Refusal.PROTOCOL, str(error))

    def _doubt(self, code: Refusal, reason: str, remote: bool) -> list[Joined | Failed]:
        """As Machine._doubt."""
        if self._doubts is None or self.deadline_ns is None:
            return self._fail(code, reason, remote)
        if self._doubts.note(Reason(code, reason, remote), ends=True):
            self.deadline_ns = min(self.deadline_ns, self._now_ns + GRACE_NS)
        return []

    def _on_reply(self, header: g.Header, frame: bytes) -> list[Joined | Failed]:
        reply = _parse_reply(frame)
        body = g.frame_body(frame)
        good = hmac.compare_digest(_mac(self._session, header, self._asked, body[:-MAC_LEN]), reply.mac)
        if not good and self._doubts is not None:
            raise g.FrameError("the answer is not of this session")
        if not good or (reply.path_id, reply.paths, reply.last) != (self._path_id, int(not self.beside), self._last):
            return self._fail(Refusal.CRYPTO, "the answer is not of this session")
        self.state, self.deadline_ns = State.DONE, None
        leftover = bytes(self._buffer)
        self._buffer.clear()
        binding = _binding(self._asked, body)
        return [Joined(None, self._path_id, self.beside, self._last, reply.received, binding, leftover)]

    def _on_close(self, frame: bytes) -> list[Joined | Failed]:
        body = g.frame_body(frame)
        code = Refusal.read(int.from_bytes(body[:2], "big")) if len(body) in (2, 2 + MAC_LEN) else Refusal.PROTOCOL
        self.over = code is Refusal.GONE and hmac.compare_digest(body[2:], gone(self._session))
        if self.over:
            return self._fail(code, "the session is over there", remote=True)
        return self._doubt(code, "the other side refused", True)

    def tick(self, now_ns: int) -> list[Joined | Failed]:
        """To be called at deadline_ns (monotonic)."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return []
        reason = None if self._doubts is None else self._doubts.reason
        if reason is not None:
            return self._fail(reason.code, reason.text, reason.remote)
        return self._fail(Refusal.TIMEOUT, "no answer in time")

    def eof(self) -> list[Joined | Failed]:
        """The carrier has ended."""
        if self.state is not State.WAIT_REPLY:
            return []
        return self._fail(Refusal.PROTOCOL, "the connection was closed before an answer came")

    def close(self) -> None:
        """Give up. Idempotent."""
        if self.state is not State.DONE:
            self.state = State.FAILED
        self.deadline_ns = None

    def _fail(self, code: Refusal, reason: str, remote: bool = False) -> list[Joined | Failed]:
        self.state, self.deadline_ns = State.FAILED, None
        text = f"JOIN of a session at {self._where} failed: {code.name} ({reason})"
        error: DialError = DialTimeout(text) if code is Refusal.TIMEOUT else HandshakeError(text)
        error.transient = True
        return [Failed(code, error, remote)]
