"""The two handshake machines: bytes and clock values in, bytes and events out; here the initiator's (responder.py).

Layer: net (L3), sans-IO: no socket, no thread, no await, no clock; randomness is an argument (`rng`). Cold code.
Flow: Initiator.start -> feed ... -> Established | Failed; Responder.feed ... -> Established | Failed | Drain.
With a ticket both begin with the abbreviated handshake, and go on with the full one if the ticket is refused.
The caller writes every Send at once and in order, closes after Failed (behind a Send that came with it), and after
Drain reads and throws away until limits.drain_deadline. Ask: the policy gave an awaitable; await it, then resolve().
Ownership: one machine per connection, used by one thread at a time; it wipes its keys at the end. The root in
Established belongs to the receiver of that event. Spec: docs/spec/handshake.md §2.3, §3, §4, §6, §12.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from netchan.errors import ConfigError
from netchan.net import abbreviated as short
from netchan.net import gate as g
from netchan.net import params as p
from netchan.net.identity import StaticKey, format_node_id
from netchan.net.kept import Kept, leaves_behind, mark_of
from netchan.net.machine import (
    HANDSHAKE_TIMEOUT_NS,
    Ask,
    Drain,
    Established,
    Event,
    Failed,
    HandshakeConfig,
    Joined,
    Machine,
    Peer,
    Refused,
    Rng,
    Send,
    State,
)
from netchan.net.noise import DH_LEN, KEM_PUBLIC_LEN, TAG_LEN, Ahead, HandshakeState, NoiseError, no_pause
from netchan.net.params import Refusal
from netchan.net.record import NodeRecord, RecordError
from netchan.net.responder import Responder
from netchan.net.secret import SecureBytes, wipe
from netchan.net.trust import Claim, Decision, Policy

__all__ = [
    "HANDSHAKE_TIMEOUT_NS",
    "Ask",
    "Drain",
    "Established",
    "Event",
    "Failed",
    "HandshakeConfig",
    "Initiator",
    "Joined",
    "Refusal",
    "Responder",
    "Send",
    "State",
]

MAX_COOKIES = 2
REFUSED_KEPT = 16
"""Answers over datagrams that were refused, and are not judged again when they are said again."""
_PASSING = frozenset({Refusal.BUSY, Refusal.CLOSING})
_SAME_VERSION = "run the same version on both sides, and see that nothing on the way changes bytes"
_ADVICE = {
    Refusal.PROTOCOL: _SAME_VERSION,
    Refusal.VERSION: "update the older side",
    Refusal.CRYPTO: _SAME_VERSION,
    Refusal.RECORD: "say the same network= on both sides",
    Refusal.SELF: "give each node an identity of its own",
    Refusal.WRONG_ID: "take the address that its listener shows now, node id included",
    Refusal.LIVE: _SAME_VERSION,
    Refusal.CAPABILITY: "if one side is older, update it",
    Refusal.PARAMETER: _SAME_VERSION,
    Refusal.BUSY: "dial again in a moment",
    Refusal.TIMEOUT: "raise Config.handshake_timeout where the way is slow",
    Refusal.CLOSING: "dial again when it is back",
    Refusal.GONE: _SAME_VERSION,
}
"""What a dialler can do; machine.py knows it for EXPIRED, SUITE and UNTRUSTED, the policy for its own refusals."""
_SAID = {
    Refusal.WRONG_ID: "another node answers there",
    Refusal.SELF: "it has the identity that we show",
    Refusal.BUSY: "too many handshakes at once over there",
    Refusal.CLOSING: "its listener is leaving",
    Refusal.TIMEOUT: "it waited too long for us",
}
"""What a code from the other side means, where that is more than the refusal."""


@dataclass
class _Said:
    """A first message of ours, and what is needed to read its answer; ``kept``: the ticket of a RESUME."""

    hello: g.Header
    noise: HandshakeState
    static: StaticKey | None
    kept: Kept | None


class Initiator(Machine):
    """The side that dials.

    Args:
        config: see HandshakeConfig.
        policy: from make_policy(..., dialling=True); its expected_id is the id in the address.
        rng: n random bytes from a cryptographic source.
        psk: 32 bytes or more, or None.
        record: what is known of the peer; used if it is valid and of the expected id (then XK, else XX).
        address: what was dialled, without the id; for messages and "tofu".
        same_user: the carrier has checked that the peer is the same user.
        pause: called between costly steps; the caller's thread may do something else there.
        ahead: ephemeral keys that are there already; None: each is made when it is wanted, from ``rng``.
        kept: a ticket to begin with, if it fits; else, and when it is refused, the handshake is a full one.
        datagrams: the carrier is one of datagrams, into which others can put messages without stopping ours.

    Raises:
        ConfigError: the PSK is no bytes or too short.
    """

    _initiator = True

    def __init__(
        self,
        config: HandshakeConfig,
        policy: Policy,
        rng: Rng,
        *,
        psk: bytes | bytearray | None = None,
        record: NodeRecord | None = None,
        address: str | None = None,
        same_user: bool = False,
        pause: Callable[[], object] = no_pause,
        ahead: Ahead | None = None,
        kept: Kept | None = None,
        datagrams: bool = False,
    ) -> None:
        super().__init__(config, policy, rng, address, same_user, pause, ahead, datagrams)
        self._kept = kept
        self._said: list[_Said] = []
        self._last_ts = -1
        self._without_ticket = False
        self._digest = b""
        self._refused: deque[bytes] = deque(maxlen=REFUSED_KEPT)
        try:
            self._psk = None if psk is None else SecureBytes(g.check_psk(psk))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{error}; write psk=secrets.token_bytes(32)") from None
        self._record = record
        self._static: StaticKey | None = None
        self._scid = b""
        self._cookies = 0
        self._answered = False

    def start(self, wall_s: float, now_ns: int) -> list[Event]:
        """Make the HELLO. Call once, with the connection up. RuntimeError: called twice."""
        if self.state is not State.NEW:
            raise RuntimeError("already started")
        self.deadline_ns = self._whole_ns = now_ns + self._config.timeout_ns
        self._scid = self._rng(8)
        expected = self._policy.expected_id
        if self._record is not None:
            try:
                self._record = self._config.records.verify(self._record.raw, self._config.network_id, wall_s)
            except RecordError:
                self._record = None
        if self._record is not None and self._record.id_pub != expected:
            self._record = None
        if self._psk is not None:
            self._keys = g.psk_keys(self._psk, self._config.network_id)
        elif expected is not None:
            self._keys = g.named_keys(expected, self._config.network_id)
        else:
            self._keys = g.open_keys(self._config.network_id)
        return self._ask_for_ticket(wall_s) or self._begin_full(wall_s, None)

    def _begin_full(self, wall_s: float, cookie: bytes | None) -> list[Event]:
        self._set_aside()
        self._kept = self._peer = None
        self.state = State.WAIT_REPLY
        return [Send(self._make_hello(wall_s, cookie))]

    # --- what was said before ---------------------------------------------------------------------------------------

    @property
    def may_begin(self) -> bool:
        """A RESUME was said that may still be answered: the other side begins a session as soon as it hears it."""
        return self.state is State.WAIT_RESUMED or any(said.kept is not None for said in self._said)

    def _set_aside(self) -> None:
        """Another first message follows.

        Over datagrams it may be a forgery that has asked for it, so the answer to this one counts as well.
        """
        if self._noise is None or self._hello is None:
            return
        if self._doubts is None:
            self._noise.wipe()
        else:
            self._said.append(_Said(self._hello, self._noise, self._static, self._kept))
        self._noise = None

    def _meant(self, frame: bytes) -> tuple[g.Header, _Said]:
        """Which of our first messages this one answers. FrameError: none."""
        if self._hello is None or self._noise is None or self._keys is None:
            raise g.FrameError("message before HELLO")
        now = _Said(self._hello, self._noise, self._static, self._kept)
        for said in (now, *self._said):
            try:
                header = g.open_frame(frame, self._keys.to_initiator, said.hello)
            except g.FrameError:
                continue
            if said is now or header.kind in (g.REPLY, g.RESUMED):
                return header, said
        raise g.FrameError("message is not of this handshake")

    def _take_up(self, said: _Said) -> None:
        """It is this one that the other side has answered."""
        if said.noise is self._noise:
            return
        self._set_aside()
        self._said.remove(said)
        self._hello, self._noise, self._static, self._kept = said.hello, said.noise, said.static, said.kept
        self.state = State.WAIT_REPLY if said.kept is None else State.WAIT_RESUMED

    def _forget_said(self) -> None:
        said, self._said = self._said, []
        for one in said:
            one.noise.wipe()

    def _next_ts(self, wall_s: float) -> int:
        """Time of a first message; over datagrams it tells which one an answer is for."""
        ts = max(int(wall_s * 1000), 0)
        self._last_ts = ts if self._doubts is None else max(ts, self._last_ts + 1)
        return self._last_ts

    # --- with a ticket ----------------------------------------------------------------------------------------------

    def _ask_for_ticket(self, wall_s: float) -> list[Event]:
        """Our policy judges the node that gave the ticket as if it had answered now. Nothing: not with this ticket."""
        kept, config = self._kept, self._config
        if kept is None or config.require_live or kept.age_ms(wall_s) is None:
            return []
        mark = mark_of(self._psk)
        if not kept.is_for(config.identity, config.network_id, config.primitives, mark, self._policy.expected_id):
            return []
        try:
            record = config.records.verify(kept.record.raw, config.network_id, wall_s)
        except RecordError:
            return []
        claim = Claim(record.id_pub, record, kept.membership, self._address, True, self._same_user)
        decision = self._policy.decide(claim, wall_s)
        if decision.pending is not None:
            self.state = State.ASKING
            return [Ask(claim, decision.pending)]
        return self._make_resume(wall_s, None) if decision.allowed else []

    def _make_resume(self, wall_s: float, cookie: bytes | None) -> list[Event]:
        kept, config, keys = self._kept, self._config, self._keys
        if kept is None or keys is None:
            raise RuntimeError("not started")
        age_ms = kept.age_ms(wall_s)
        if age_ms is None:
            return []
        payload = short.asking(config.offer, config.membership, age_ms, leaves_behind(kept), self._rng)
        body = len(short.pack_body(kept.ticket, b"")) + DH_LEN + len(payload) + TAG_LEN
        length = g.HEADER_LEN + body + g.TRAILER_LEN
        if length > g.MAX_FRAME[g.RESUME]:
            return []
        mode = g.MODE_XX_OPEN if self._policy.expected_id is None else g.MODE_XX_NAMED
        self._set_aside()
        ts = self._next_ts(wall_s)
        self._hello = g.Header(g.RESUME, g.VERSION, length, mode << 4 | config.primitives, 0, self._scid, ts)
        self._noise = short.begin_noise(
            self._hello,
            config.network_id,
            kept.record.id_pub,
            kept.ticket,
            kept.secret,
            keys.psk0,
            initiator=True,
            rng=self._rng,
            pause=self._pause,
            ahead=self._ahead,
        )
        self.state = State.WAIT_RESUMED
        return [Send(self._frame(g.RESUME, short.pack_body(kept.ticket, self._noise.write_message(payload)), cookie))]

    def _on_resumed(self, said: _Said, body: bytes) -> list[Event]:
        noise, kept, config = said.noise, said.kept, self._config
        if kept is None:
            raise RuntimeError("not a RESUME")
        try:
            payload = noise.read_message(body)
        except NoiseError as error:
            return self._doubt(Refusal.CRYPTO, str(error), ends=False)
        self._take_up(said)
        try:
            offer = short.read_given(payload)
            agreement = p.negotiate(config.offer, offer)
        except p.ParamError as error:
            return self._refuse(Refusal.PARAMETER, str(error))
        except p.VersionError as error:
            return self._refuse(Refusal.VERSION, str(error))
        except p.CapabilityError as error:
            return self._refuse(Refusal.CAPABILITY, str(error))
        self._finish_noise(noise)
        claim = Claim(kept.record.id_pub, kept.record, kept.membership, self._address, True, self._same_user)
        self._peer = Peer(claim, offer, agreement, False)
        return [self._establish(bytes(2) + agreement.encoded, by_ticket=True)]

    # --- in full ----------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> int:
        """XX-open, XX-named or XK; settled by start()."""
        if self._record is not None:
            return g.MODE_XK
        return g.MODE_XX_OPEN if self._policy.expected_id is None else g.MODE_XX_NAMED

    def _make_hello(self, wall_s: float, cookie: bytes | None) -> bytes:
        mode, hybrid = self.mode, self._config.primitives == g.SUITE_HYBRID
        items: dict[int, bytes] = {}
        if self._record is not None:
            items[p.KNOWN_SEQ] = self._record.seq.to_bytes(8, "big")
        p.grease(items, self._rng)
        payload = p.encode_items(items)
        # the prologue holds the header, and so the length, before the message exists
        body = 32 + (KEM_PUBLIC_LEN + TAG_LEN if hybrid else 0) + len(payload) + TAG_LEN
        self._hello = g.Header(
            g.HELLO,
            g.VERSION,
            g.HEADER_LEN + body + g.TRAILER_LEN,
            mode << 4 | self._config.primitives,
            0,
            self._scid,
            self._next_ts(wall_s),
        )
        self._static = self._config.static_key(wall_s)
        if self._keys is None:
            raise RuntimeError("not started")
        self._make_noise(
            mode,
            self._hello,
            self._static.private,
            self._keys.psk0,
            responder_id=self._policy.expected_id,
            rs=self._record.static_pub if self._record is not None else None,
        )
        if self._noise is None:
            raise RuntimeError("not started")
        return self._frame(g.HELLO, self._noise.write_message(payload), cookie)

    def _on_frame(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        try:
            if self.state is State.WAIT_ACCEPT:
                return self._behind_finish(self._open(frame), frame)
            header, said = self._meant(frame)
        except g.FrameError as error:
            return self._pass_over(str(error))
        self._answered = True
        if header.kind == g.CLOSE:
            return self._on_close(frame)
        if header.kind == (g.REPLY if said.kept is None else g.RESUMED) and self._may_look():
            body = g.frame_body(frame)
            return self._on_reply(said, body, wall_s) if said.kept is None else self._on_resumed(said, body)
        if header.kind == g.NO_TICKET and self.state is State.WAIT_RESUMED and not self._without_ticket:
            self._without_ticket = True
            self._wait_on()
            return self._begin_full(wall_s, None)
        if header.kind == g.COOKIE:
            return self._on_cookie(g.frame_body(frame), wall_s)
        if header.kind == g.VERSIONS:
            return self._doubt(Refusal.VERSION, "the other side speaks other versions", remote=True)
        return self._pass_over(f"message {header.kind:#x} came out of order")

    def _behind_finish(self, header: g.Header, frame: bytes) -> list[Event]:
        if header.kind == g.CLOSE:
            return self._on_close(frame)
        if header.kind == g.ACCEPT:
            return self._on_accept(g.frame_body(frame))
        return self._pass_over(f"message {header.kind:#x} came out of order")

    def _wait_on(self) -> None:
        """We say something more: if the end is near, its answer has as much time."""
        if self._doubts is not None and self._doubts.ending:
            self._end_soon()

    def _on_cookie(self, cookie: bytes, wall_s: float) -> list[Event]:
        if len(cookie) != g.MAC_LEN or self._cookies >= MAX_COOKIES:
            return self._pass_over("cookie is malformed or one too many")
        self._cookies += 1
        self._wait_on()
        again = self._make_resume(wall_s, cookie) if self.state is State.WAIT_RESUMED else []
        return again or self._begin_full(wall_s, cookie)

    def _on_reply(self, said: _Said, body: bytes, wall_s: float) -> list[Event]:
        noise, digest = said.noise, sha256(body).digest()
        if digest in self._refused:
            return self._pass_over("a refused answer came again")
        try:
            payload = noise.read_message(body)
        except NoiseError as error:
            return self._doubt(Refusal.CRYPTO, str(error), ends=False)
        self._take_up(said)
        self._digest = digest
        if self._buffer:
            return self._refuse(Refusal.PROTOCOL, "the other side sent before its turn")
        try:
            peer = self._check_peer(payload, noise, self._record, wall_s)
        except Refused as refused:
            return self._doubt_reply(noise, refused.code, refused.reason)
        self._whole_time()
        return self._ask_policy(peer, wall_s)

    def _whole_time(self) -> None:
        """The policy may take what is left of the handshake's time; what was doubted stays."""
        if self._doubts is not None:
            self.deadline_ns = self._whole_ns

    def _doubt_reply(self, noise: HandshakeState, code: Refusal, reason: str) -> list[Event]:
        """Somebody has answered with whom we want no session.

        That may be an observer with an identity of his own: over datagrams the one whom we mean is still waited for.
        """
        if self._doubts is None:
            return self._refuse(code, reason)
        noise.unread()
        self._refused.append(self._digest)
        self._peer, self.state = None, State.WAIT_REPLY
        self._doubt(code, reason)
        self._end_soon()
        return []

    def _decided(self, decision: Decision, wall_s: float) -> list[Event]:
        if self._kept is not None:
            return (self._make_resume(wall_s, None) if decision.allowed else []) or self._begin_full(wall_s, None)
        noise, static = self._noise, self._static
        if noise is None or static is None:
            raise RuntimeError("not started")
        if not decision.allowed:
            return self._doubt_reply(noise, decision.code, decision.reason)
        self._go_on()
        self._forget_said()
        message = noise.write_message(self._offer_payload(static, with_record=True))
        self._finish_noise(noise)
        self.state = State.WAIT_ACCEPT
        return [Send(self._frame(g.FINISH, message))]

    def fits(self, datagram: bytes) -> bool:
        """As Machine.fits; what looks like an ACCEPT and does not open was damaged or forged: the true one may come."""
        if not super().fits(datagram):
            return False
        return self.state is not State.WAIT_ACCEPT or datagram[0] != g.ACCEPT or self._opens(g.frame_body(datagram))

    def _opens(self, sealed: bytes) -> bool:
        if self._peer is None or len(sealed) < TAG_LEN + 2:
            return False
        with self._accept_key() as key:
            try:
                ChaCha20Poly1305(key).decrypt(bytes(12), sealed, self._accept_ad(len(sealed) - TAG_LEN))
            except InvalidTag:
                return False
        return True

    def _on_accept(self, sealed: bytes) -> list[Event]:
        peer = self._peer
        if peer is None or len(sealed) < TAG_LEN + 2:
            return self._refuse(Refusal.PROTOCOL, "ACCEPT is malformed")
        with self._accept_key() as key:
            try:
                verdict = ChaCha20Poly1305(key).decrypt(bytes(12), sealed, self._accept_ad(len(sealed) - TAG_LEN))
            except InvalidTag:
                return self._refuse(Refusal.CRYPTO, "ACCEPT does not open")
        code = int.from_bytes(verdict[:2], "big")
        if code:
            if len(verdict) != 2:
                return self._refuse(Refusal.PROTOCOL, "refusal is malformed")
            return self._fail(Refusal.read(code), "the other side refused us", remote=True)
        if verdict[2:] != peer.agreement.encoded:
            return self._refuse(Refusal.PARAMETER, "the other side agreed to something else")
        return [self._establish(verdict)]

    def _timed_out(self) -> list[Event]:
        return self._out_of_time() or self._fail(Refusal.TIMEOUT, "")

    def _peer_name(self) -> str:
        expected = self._policy.expected_id
        parts = (format_node_id(expected) if expected is not None else "", self._address or "")
        return "@".join(part for part in parts if part) or "the peer"

    def _fail(self, code: Refusal, reason: str, remote: bool = False) -> list[Event]:
        advice = _ADVICE.get(code, "")
        if remote:
            reason = _SAID.get(code, reason)
        elif code is Refusal.TIMEOUT and self._answered:
            reason = "the handshake took too long"
        elif code is Refusal.TIMEOUT:
            reason = "no answer: wrong node id, wrong PSK, or clocks more than 30 s apart"
            advice = "compare them with the listener's"
        events = super()._fail(code, f"{reason}; {advice}" if advice else reason, remote)
        for event in events:
            if isinstance(event, Failed) and code in _PASSING:
                event.error.transient = True
        return events

    def _wipe(self) -> None:
        super()._wipe()
        self._forget_said()
        wipe(self._psk)
        self._kept = None
        if self._keys is not None:
            self._keys.wipe()
            self._keys = None
        self._static = None
