"""The frame before the session and the gate in front of it: who may get any byte back.

Layer: net (L3), sans-IO; clocks, randomness and addresses are arguments. Knows no Noise.
Flow of a HELLO: parse_header -> Gate.check (mac1, timestamp, replay set, cookie) -> Verdict; all that is not NOISE,
COOKIE or REFUSE means silence. Of a datagram Gate.look says the same first, before anything is kept for it. Later
messages: open_frame with the keys the HELLO proved.
Ownership: one Gate per listener, used under the caller's lock. Spec: docs/spec/handshake.md §2, §5.
"""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from netchan.net.secret import SecureBytes, derive
from netchan.net.seen import SeenSet

VERSION = 1
HELLO, REPLY, FINISH, COOKIE, VERSIONS, JOIN, RESUME, CLOSE, ACCEPT, RESUMED, NO_TICKET = range(1, 12)
MODE_XX_OPEN, MODE_XX_NAMED, MODE_XK = 0, 1, 2
SUITE_HYBRID, SUITE_CLASSICAL = 1, 2
HEADER_LEN = 22
MAC_LEN = 16
TRAILER_LEN = 2 * MAC_LEN
MIN_FRAME = HEADER_LEN + TRAILER_LEN + 1
MAX_FRAME = {
    HELLO: 2_048,
    REPLY: 4_096,
    FINISH: 4_096,
    COOKIE: 70,
    VERSIONS: 71,
    JOIN: 151,
    RESUME: 2_048,
    CLOSE: 88,
    ACCEPT: 1_024,
    RESUMED: 1_024,
    NO_TICKET: 55,
}
MAX_PSKS = 16
MIN_PSK_LEN = 32
MAX_CLOCK_DIFF_MS = 30_000
FLOOR_AHEAD_MS = 60_000
REPLAY_WINDOW_NS = 65_000_000_000
MAX_REPLAY = 65_536
MAX_ASKED = 1_024
"""HELLOs that were asked for a cookie and are remembered with their address, where replays get no answer."""
COOKIE_LIFE_NS = 120_000_000_000
MAX_TS = 2**63
PUBLIC_KEYS_KEPT = 256
"""Nodes whose gate keys are remembered by those who dial them without a PSK."""
_TO_RESPONDER, _TO_INITIATOR = b"\x01", b"\x02"
_NO_MAC = bytes(MAC_LEN)
_HEADER = struct.Struct(">BBHBB8sQ")
Rng = Callable[[int], bytes]


class FrameError(Exception):
    """Bytes that are not the frame they should be."""


class Header(NamedTuple):
    """The 22 clear bytes in front of every message before the session."""

    kind: int
    version: int
    length: int
    suite: int
    frag: int
    scid: bytes
    ts: int

    @property
    def mode(self) -> int:
        """XX-open, XX-named or XK."""
        return self.suite >> 4

    @property
    def primitives(self) -> int:
        """The suite of §3.2."""
        return self.suite & 15

    def pack(self) -> bytes:
        """The bytes on the wire."""
        return _HEADER.pack(*self)


def parse_header(data: bytes | bytearray | memoryview) -> Header:
    """Read the first 22 bytes and check type, length and frag. Untrusted input. FrameError: not a frame we read."""
    if len(data) < HEADER_LEN:
        raise FrameError("frame ends early")
    header = Header._make(_HEADER.unpack_from(data))
    limit = MAX_FRAME.get(header.kind)
    if limit is None:
        raise FrameError(f"unknown message type {header.kind:#x}")
    if not MIN_FRAME <= header.length <= limit:
        raise FrameError("length out of bounds")
    if header.frag:
        raise FrameError("fragments are not used here")
    if header.ts >= MAX_TS:
        raise FrameError("time out of bounds")
    return header


class GateKeys:
    """The two mac1 keys that one secret gives, one for each direction; wipe() when the owner is done.

    Without a PSK they come from what anybody may know, and those who use them share them: then nothing is wiped.
    """

    def __init__(self, secret: bytes | bytearray, label: bytes, context: bytes, psk: bytes | None = None) -> None:
        self.to_responder = derive(secret, label, context + _TO_RESPONDER)
        self.to_initiator = derive(secret, label, context + _TO_INITIATOR)
        self.psk0 = SecureBytes(32) if psk is None else derive(secret, b"netchan psk0 v1", psk)
        self._public = psk is None

    def wipe(self) -> None:
        """Overwrite all keys."""
        if self._public:
            return
        self.to_responder.wipe()
        self.to_initiator.wipe()
        self.psk0.wipe()


def check_psk(psk: object) -> bytes:
    """ConfigError-free check of a PSK: TypeError unless bytes-like, ValueError if shorter than 32 bytes."""
    if not isinstance(psk, bytes | bytearray):
        raise TypeError("psk must be bytes")
    if len(psk) < MIN_PSK_LEN:
        raise ValueError(f"psk has {len(psk)} bytes, at least {MIN_PSK_LEN} are needed")
    return bytes(psk)


def psk_keys(psk: bytes | bytearray, network_id: bytes) -> GateKeys:
    """Gate keys and psk0 of a PSK."""
    net = bytes((len(network_id),)) + network_id
    return GateKeys(psk, b"netchan gate v1", net, network_id)


@lru_cache(PUBLIC_KEYS_KEPT)
def named_keys(responder_id: bytes, network_id: bytes) -> GateKeys:
    """Gate keys without a PSK for a dialler that knows the responder's id."""
    return GateKeys(responder_id, b"netchan gate open v1", bytes((len(network_id),)) + network_id)


@lru_cache(PUBLIC_KEYS_KEPT)
def open_keys(network_id: bytes) -> GateKeys:
    """Gate keys without a PSK for a dialler that knows nothing."""
    return GateKeys(network_id, b"netchan gate tofu v1", b"")


def seal_frame(header: Header, body: bytes, key: bytes | bytearray, cookie: bytes | None = None) -> bytes:
    """Build a frame; the header's length is set here. With a cookie mac2 is made too."""
    length = HEADER_LEN + len(body) + TRAILER_LEN
    kind, version, _, suite, frag, scid, ts = header
    data = _HEADER.pack(kind, version, length, suite, frag, scid, ts) + body
    data += hmac.digest(key, data, "sha256")[:MAC_LEN]
    return data + (hmac.digest(cookie, data, "sha256")[:MAC_LEN] if cookie is not None else _NO_MAC)


def mac1_holds(frame: bytes, key: bytes | bytearray) -> bool:
    """True if mac1 of a whole frame holds under `key`; constant time in the compared bytes."""
    end = len(frame) - TRAILER_LEN
    return hmac.compare_digest(hmac.digest(key, frame[:end], "sha256")[:MAC_LEN], frame[end : end + MAC_LEN])


def is_from(frame: bytes, key: bytes | bytearray) -> bool:
    """True if this is one whole frame that was made with ``key``, whatever it says."""
    try:
        header = parse_header(frame)
    except FrameError:
        return False
    return header.length == len(frame) and mac1_holds(frame, key)


def frame_body(frame: bytes) -> bytes:
    """What stands between header and macs."""
    return frame[HEADER_LEN : len(frame) - TRAILER_LEN]


def open_frame(frame: bytes, key: bytes | bytearray, hello: Header) -> Header:
    """Check a later message: mac1, empty mac2, and that it repeats what the HELLO said. FrameError if not."""
    header = parse_header(frame)
    if header.length != len(frame) or not mac1_holds(frame, key) or frame[-MAC_LEN:] != _NO_MAC:
        raise FrameError("message is not of this handshake")
    if header[4:] != hello[4:] or header.suite != hello.suite or header.version != hello.version:
        raise FrameError("message is not of this handshake")
    return header


class Verdict(Enum):
    """What to do with a HELLO."""

    NOISE = "run Noise"
    SILENCE = "send nothing, drain"
    COOKIE = "send the cookie, keep no state"
    VERSIONS = "send the version list and end"
    SUITE = "send CLOSE(SUITE) and end"
    BUSY = "send CLOSE(BUSY) and end"


@dataclass(frozen=True)
class GateResult:
    """The verdict with what the caller needs for its answer; `reason` is for counters, never for the wire."""

    verdict: Verdict
    reason: str
    header: Header | None = None
    keys: GateKeys | None = None
    cookie: bytes = b""


class Gate:
    """The checks of §5.2 for one listener.

    Args:
        network_id: at most 64 bytes.
        id_pub: the responder's identity, 32 bytes.
        primitives: the one suite this node speaks.
        psks: none, or up to 16 of 32 bytes or more; then only their holders pass.
        stealth: without PSK, answer only diallers that know the id and have a clock.
        floor_s: the value of `highest_s` that was stored before the last restart; 0 = none.

    Raises:
        ValueError, TypeError: a PSK that is too short or of a wrong type, or more than 16.
    """

    def __init__(
        self,
        network_id: bytes,
        id_pub: bytes,
        primitives: int,
        *,
        psks: Sequence[bytes | bytearray] = (),
        stealth: bool = False,
        floor_s: int = 0,
    ) -> None:
        if len(psks) > MAX_PSKS:
            raise ValueError(f"{len(psks)} PSKs, at most {MAX_PSKS}")
        self._psk_keys = [psk_keys(check_psk(psk), network_id) for psk in psks]
        self._named = None if psks else named_keys(id_pub, network_id)
        self._open = None if psks or stealth else open_keys(network_id)
        self._primitives = primitives
        self.timed = bool(psks) or stealth
        self._floor_ms = floor_s * 1000 + 999 if floor_s else -1
        self._dropped_ms = -1
        self._windows = (SeenSet(), SeenSet())
        self._window_top_ms = [-1, -1]
        self._window_start_ns: int | None = None
        self._asked: OrderedDict[bytes, bytes] = OrderedDict()
        self._secrets: list[SecureBytes] = []
        self._secret_made_ns = 0
        self.highest_s = 0

    @property
    def shared(self) -> bool:
        """True if holders of a PSK pass, and they only: then passing does not show that they mean this node."""
        return bool(self._psk_keys)

    def find_keys(self, header: Header, frame: bytes) -> GateKeys | None:
        """The keys whose mac1 holds and whose form fits the mode; None: silence."""
        # PSK and id prove themselves in any mode, so who sends one that we do not know is told, not left in silence
        if self._psk_keys:
            candidates = self._psk_keys
        elif header.mode == MODE_XX_OPEN:
            candidates = [self._open] if self._open else []
        else:
            candidates = [self._named] if self._named else []
        found = None
        for keys in candidates:
            if mac1_holds(frame, keys.to_responder) and found is None:
                found = keys
        return found

    def knows(self, frame: bytes) -> bool:
        """True if whoever made this message holds a key of the gate; notes nothing."""
        try:
            header = parse_header(frame)
        except FrameError:
            return False
        return header.length == len(frame) and self.find_keys(header, frame) is not None

    def look(
        self,
        frame: bytes,
        wall_s: float,
        now_ns: int,
        rng: Rng,
        *,
        address: bytes | None = None,
        busy: bool = False,
        kind: int = HELLO,
        full: bool = False,
    ) -> GateResult:
        """Judge a HELLO, or a JOIN or RESUME, which come first like one.

        Nothing is kept of it, but with a PSK or ``stealth`` where it came from if it is asked for a cookie.

        Args:
            frame: one whole frame.
            wall_s: Unix seconds.
            now_ns: monotonic nanoseconds.
            rng: random bytes, for cookie secrets.
            address: text of the sender on a datagram carrier; None on a stream, which has proved its address.
            busy: the limits say that this node is under load.
            kind: HELLO, JOIN or RESUME.
            full: the replay set has no place for it.
        """
        try:
            header = parse_header(frame)
        except FrameError as error:
            return GateResult(Verdict.SILENCE, str(error))
        if header.kind != kind or header.length != len(frame):
            return GateResult(Verdict.SILENCE, "not a HELLO")
        keys = self.find_keys(header, frame)
        if keys is None:
            return GateResult(Verdict.SILENCE, "mac1 does not hold")
        if address is None and frame[-MAC_LEN:] != _NO_MAC:
            # no cookie is ever given out on a stream, so somebody changed these bytes, which nothing else covers
            return GateResult(Verdict.SILENCE, "mac2 on a stream")
        if self.timed and not self._time_is_good(header.ts, wall_s):
            return GateResult(Verdict.SILENCE, "timestamp too far or below the floor")
        mac1 = frame[-TRAILER_LEN:-MAC_LEN]
        self._turn_windows(now_ns)
        old, new = self._windows
        if mac1 in old or mac1 in new:
            return GateResult(Verdict.SILENCE, "replayed")
        full = full or len(old) + len(new) >= MAX_REPLAY
        if full and self.timed:
            return GateResult(Verdict.SILENCE, "replay set is full")
        if header.version != VERSION:
            return GateResult(Verdict.VERSIONS, "unknown version", header, keys)
        if header.mode > MODE_XK or header.primitives != self._primitives:
            return GateResult(Verdict.SUITE, "another suite", header, keys)
        if full and address is None:
            return GateResult(Verdict.BUSY, "replay set is full", header, keys)
        if (busy or full) and address is not None and not self._cookie_holds(frame, header, address, now_ns):
            if self.timed and not self._may_ask(mac1, address):
                return GateResult(Verdict.SILENCE, "replayed from another address")
            return GateResult(Verdict.COOKIE, "under load", header, keys, self._cookie(header, address, now_ns, rng))
        return GateResult(Verdict.NOISE, "", header, keys)

    def check(
        self,
        frame: bytes,
        wall_s: float,
        now_ns: int,
        rng: Rng,
        *,
        address: bytes | None = None,
        busy: bool = False,
        kind: int = HELLO,
    ) -> GateResult:
        """As ``look``, and remember it, so that it passes once; but not what is answered with a cookie.

        That is said again to who asks again, and a flood of what gets no further fills no table.
        """
        result = self.look(frame, wall_s, now_ns, rng, address=address, busy=busy, kind=kind)
        header = result.header
        if header is None or result.verdict is Verdict.COOKIE:
            return result
        old, new = self._windows
        if len(old) + len(new) >= MAX_REPLAY or not new.add(frame[-TRAILER_LEN:-MAC_LEN]):
            return self.look(frame, wall_s, now_ns, rng, address=address, busy=busy, kind=kind, full=True)
        self._window_top_ms[1] = max(self._window_top_ms[1], header.ts)
        if self.timed:
            self.highest_s = max(self.highest_s, header.ts // 1000)
        return result

    def _may_ask(self, mac1: bytes, address: bytes) -> bool:
        """True if this HELLO is asked for a cookie: again at the address where it came from first, at no other one.

        Only where a replay is to get no byte at all; those who can make HELLOs there hold the PSK, or know the id.
        """
        if self._asked.setdefault(mac1, address) != address:
            return False
        if len(self._asked) > MAX_ASKED:
            self._windows[1].add(self._asked.popitem(last=False)[0])
        return True

    def _time_is_good(self, ts: int, wall_s: float) -> bool:
        now_ms = int(wall_s * 1000)
        if abs(ts - now_ms) > MAX_CLOCK_DIFF_MS:
            return False
        # a floor far ahead comes from a clock that was wrong: it must not lock everyone out
        return all(ts > floor or floor > now_ms + FLOOR_AHEAD_MS for floor in (self._floor_ms, self._dropped_ms))

    def _turn_windows(self, now_ns: int) -> None:
        if self._window_start_ns is None:
            self._window_start_ns = now_ns
        turns = (now_ns - self._window_start_ns) // REPLAY_WINDOW_NS
        for _ in range(min(turns, 2)):
            self._dropped_ms = max(self._dropped_ms, self._window_top_ms[0])
            self._windows = (self._windows[1], SeenSet())
            self._window_top_ms = [self._window_top_ms[1], -1]
        self._window_start_ns += turns * REPLAY_WINDOW_NS

    def _rotate_secrets(self, now_ns: int, rng: Rng) -> None:
        if self._secrets and now_ns - self._secret_made_ns < COOKIE_LIFE_NS:
            return
        stale = now_ns - self._secret_made_ns >= 2 * COOKIE_LIFE_NS
        self._secrets = [SecureBytes(rng(32)), *([] if stale else self._secrets[:1])]
        self._secret_made_ns = now_ns

    def _cookie(self, header: Header, address: bytes, now_ns: int, rng: Rng) -> bytes:
        self._rotate_secrets(now_ns, rng)
        return _make_cookie(self._secrets[0], header, address)

    def _cookie_holds(self, frame: bytes, header: Header, address: bytes, now_ns: int) -> bool:
        if now_ns - self._secret_made_ns >= 2 * COOKIE_LIFE_NS:
            return False
        signed, mac2 = frame[:-MAC_LEN], frame[-MAC_LEN:]
        good = False
        for secret in self._secrets:
            cookie = _make_cookie(secret, header, address)
            good |= hmac.compare_digest(hmac.digest(cookie, signed, "sha256")[:MAC_LEN], mac2)
        return good

    def wipe(self) -> None:
        """Overwrite all keys; the gate passes nobody afterwards."""
        for keys in (*self._psk_keys, self._named, self._open):
            if keys is not None:
                keys.wipe()
        for secret in self._secrets:
            secret.wipe()
        self._psk_keys, self._named, self._open, self._secrets = [], None, None, []


def _make_cookie(secret: SecureBytes, header: Header, address: bytes) -> bytes:
    text = address[:255]
    return hmac.digest(secret, bytes((len(text),)) + text + header.scid, "sha256")[:MAC_LEN]
