"""The two handshake machines: bytes and clock values in, bytes and events out.

Layer: net (L3), sans-IO: no socket, no thread, no await, no clock; randomness is an argument (`rng`). Cold code.
Flow: Initiator.start -> feed ... -> Established | Failed; Responder.feed ... -> Established | Failed | Drain.
The caller writes every Send at once and in order, closes after Failed (behind a Send that came with it), and after
Drain reads and throws away until limits.drain_deadline. Ask: the policy gave an awaitable; await it, then resolve().
Ownership: one machine per connection, used by one thread at a time; it wipes its keys at the end. The root in
Established belongs to the receiver of that event. Spec: docs/spec/handshake.md §2.3, §3, §4, §6.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from netchan.errors import ConfigError
from netchan.net import gate as g
from netchan.net import params as p
from netchan.net.identity import StaticKey, format_node_id
from netchan.net.join import Reach, answer, is_genuine, parse_request
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
    Refused,
    Rng,
    Send,
    State,
)
from netchan.net.noise import KEM_PUBLIC_LEN, TAG_LEN, Ahead, NoiseError, no_pause
from netchan.net.params import Refusal
from netchan.net.record import NodeRecord, RecordError
from netchan.net.secret import SecureBytes, wipe
from netchan.net.trust import Decision, Policy

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
    Refusal.CAPABILITY: "update the older side",
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
    ) -> None:
        super().__init__(config, policy, rng, address, same_user, pause, ahead)
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
        self.deadline_ns = now_ns + self._config.timeout_ns
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
        self.state = State.WAIT_REPLY
        return [Send(self._make_hello(wall_s, None))]

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
            max(int(wall_s * 1000), 0),
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
            header = self._open(frame)
        except g.FrameError as error:
            return self._refuse(Refusal.PROTOCOL, str(error))
        self._answered = True
        if header.kind == g.CLOSE:
            return self._on_close(frame)
        if self.state is State.WAIT_REPLY:
            if header.kind == g.REPLY:
                return self._on_reply(g.frame_body(frame), wall_s)
            if header.kind == g.COOKIE:
                return self._on_cookie(g.frame_body(frame), wall_s)
            if header.kind == g.VERSIONS:
                return self._fail(Refusal.VERSION, "the other side speaks other versions", remote=True)
        if self.state is State.WAIT_ACCEPT and header.kind == g.ACCEPT:
            return self._on_accept(g.frame_body(frame))
        return self._refuse(Refusal.PROTOCOL, f"message {header.kind:#x} came out of order")

    def _on_cookie(self, cookie: bytes, wall_s: float) -> list[Event]:
        self._cookies += 1
        if len(cookie) != g.MAC_LEN or self._cookies > MAX_COOKIES:
            return self._refuse(Refusal.PROTOCOL, "cookie is malformed or one too many")
        return [Send(self._make_hello(wall_s, cookie))]

    def _on_reply(self, body: bytes, wall_s: float) -> list[Event]:
        noise = self._noise
        if noise is None:
            raise RuntimeError("not started")
        try:
            payload = noise.read_message(body)
        except NoiseError as error:
            return self._refuse(Refusal.CRYPTO, str(error))
        if self._buffer:
            return self._refuse(Refusal.PROTOCOL, "the other side sent before its turn")
        try:
            peer = self._check_peer(payload, noise, self._record, wall_s)
        except Refused as refused:
            return self._refuse(refused.code, refused.reason)
        return self._ask_policy(peer, wall_s)

    def _decided(self, decision: Decision, wall_s: float) -> list[Event]:
        if not decision.allowed:
            return self._refuse(decision.code, decision.reason)
        noise, static = self._noise, self._static
        if noise is None or static is None:
            raise RuntimeError("not started")
        message = noise.write_message(self._offer_payload(static, with_record=True))
        self._finish_noise(noise)
        self.state = State.WAIT_ACCEPT
        return [Send(self._frame(g.FINISH, message))]

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
        return self._fail(Refusal.TIMEOUT, "")

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
        wipe(self._psk)
        if self._keys is not None:
            self._keys.wipe()
            self._keys = None
        self._static = None


class Responder(Machine):
    """The side that listens; made when a connection is accepted.

    Args:
        config: see HandshakeConfig.
        policy: from make_policy(..., dialling=False).
        gate: the listener's gate.
        rng: n random bytes from a cryptographic source.
        now_ns: monotonic nanoseconds at the accept.
        address: text of the peer's address, for messages.
        datagram_source: the sender's address on a datagram carrier (then cookies are used); None on a stream.
        same_user: the carrier has checked that the peer is the same user.
        busy: asked at the HELLO; True while the limits say that the node is under load.
        pause, ahead: as for Initiator.
        reach: the sessions that a JOIN may resume; None: none.
    """

    def __init__(
        self,
        config: HandshakeConfig,
        policy: Policy,
        gate: g.Gate,
        rng: Rng,
        now_ns: int,
        *,
        address: str | None = None,
        datagram_source: bytes | None = None,
        same_user: bool = False,
        busy: Callable[[], bool] | None = None,
        pause: Callable[[], object] = no_pause,
        ahead: Ahead | None = None,
        reach: Reach | None = None,
    ) -> None:
        super().__init__(config, policy, rng, address, same_user, pause, ahead)
        self._gate, self._source, self._busy, self._reach = gate, datagram_source, busy, reach
        self.state = State.WAIT_HELLO
        self.deadline_ns = now_ns + config.timeout_ns

    @property
    def heard(self) -> bool:
        """True once a HELLO passed the gate: tell HalfOpen.heard."""
        return self._hello is not None

    def fits(self, datagram: bytes) -> bool:
        """As Machine.fits; before a HELLO has passed any key of the gate will do."""
        return self._gate.knows(datagram) if self._keys is None else super().fits(datagram)

    def turn_away(self) -> list[Event]:
        """A newcomer gets its place: CLOSE(BUSY) while it owes us a FINISH; without effect otherwise."""
        if self.state is not State.WAIT_FINISH:
            return []
        return self._refuse(Refusal.BUSY, "no FINISH came, and its place was wanted")

    def _bad_frame(self, reason: str) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._drain(reason)
        return super()._bad_frame(reason)

    def _timed_out(self) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._drain("no HELLO in time")
        return self._refuse(Refusal.TIMEOUT, "the handshake took too long")

    def eof(self) -> list[Event]:
        """The carrier has ended; before a HELLO that is only worth a counter."""
        if self.state is State.WAIT_HELLO:
            return self._drain("closed before a HELLO")
        return super().eof()

    def _on_frame(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return (self._on_join if frame[0] == g.JOIN else self._on_hello)(frame, wall_s, now_ns)
        try:
            header = self._open(frame)
        except g.FrameError as error:
            return self._refuse(Refusal.PROTOCOL, str(error))
        if header.kind == g.CLOSE:
            return self._on_close(frame)
        if header.kind == g.FINISH:
            return self._on_finish(g.frame_body(frame), wall_s)
        return self._refuse(Refusal.PROTOCOL, f"message {header.kind:#x} came out of order")

    def _on_join(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        """§11: a session that is here gets a path. No policy is asked: both sides have accepted each other."""
        if self._reach is None:
            return self._drain("no session can be resumed here")
        result = self._gate.check(frame, wall_s, now_ns, self._rng, kind=g.JOIN)
        header = result.header
        if header is None or result.keys is None:
            return self._drain(result.reason)
        self._hello, self._keys = header, result.keys
        ended = self._judged(result)
        if ended is not None:
            return ended
        try:
            request = parse_request(frame)
        except g.FrameError as error:
            return self._refuse(Refusal.PROTOCOL, str(error))
        session = self._reach.find(request.locator)
        made = None
        if session is not None and is_genuine(session, header, frame):
            self._reach.used(request.locator)
            made = answer(session, header, frame, request, self._rng)
        if made is None:
            code = int(Refusal.GONE).to_bytes(2, "big")
            said = Send(self._frame(g.CLOSE, code + (self._reach.proof(request.locator) or b"")))
            return [said, *self._fail(Refusal.GONE, "JOIN of a session that is not here, or is over")]
        body, binding = made
        reply = Send(self._frame(g.JOIN, body))
        leftover = bytes(self._buffer)
        self.state, self.deadline_ns = State.DONE, None
        self._wipe()
        return [
            reply,
            Joined(session, request.path_id, not request.paths, request.last, request.received, binding, leftover),
        ]

    def _judged(self, result: g.GateResult) -> list[Event] | None:
        """What to answer to a first message that proved the gate and goes no further; None: it goes on."""
        if result.verdict is g.Verdict.VERSIONS:
            versions = self._config.offer.versions
            said = Send(self._frame(g.VERSIONS, bytes((len(versions), *versions))))
            version = result.header.version if result.header is not None else 0
            return [said, *self._fail(Refusal.VERSION, f"the peer speaks version {version}")]
        if result.verdict is g.Verdict.SUITE:
            return self._refuse(Refusal.SUITE, "the peer uses another suite")
        if result.verdict is g.Verdict.BUSY:
            return self._refuse(Refusal.BUSY, result.reason)
        return None

    def _on_hello(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        busy = self._busy is not None and self._busy()
        result = self._gate.check(frame, wall_s, now_ns, self._rng, address=self._source, busy=busy)
        if result.header is None or result.keys is None:
            return self._drain(result.reason)
        self._hello, self._keys = result.header, result.keys
        if result.verdict is g.Verdict.COOKIE:
            answer = Send(self._frame(g.COOKIE, result.cookie))
            self._hello = self._keys = None
            return [answer]
        ended = self._judged(result)
        if ended is not None:
            return ended
        self._pause()
        return self._run_noise(g.frame_body(frame), result.header, result.keys, wall_s)

    def _run_noise(self, body: bytes, header: g.Header, keys: g.GateKeys, wall_s: float) -> list[Event]:
        config, mode = self._config, header.mode
        static = config.static_key(wall_s)
        candidates = config.identity.static_candidates(wall_s) if mode == g.MODE_XK else [static.private]
        payload: bytes | None = None
        for private in candidates:
            self._make_noise(mode, header, private, keys.psk0, responder_id=config.identity.id_pub)
            if self._noise is None:
                raise RuntimeError("no state")
            try:
                payload = self._noise.read_message(body)
                break
            except NoiseError:
                continue
        noise = self._noise
        if payload is None or noise is None:
            if self._means_another(body, mode):
                return self._refuse(Refusal.WRONG_ID, "the peer holds our PSK and dialled another node id")
            return self._refuse(Refusal.CRYPTO, "HELLO does not open")
        try:
            items = p.decode_items(payload, p.KNOWN_ITEMS)
            seq = items.pop(p.KNOWN_SEQ, None)
            items.pop(p.PADDING, None)
            if items or (seq is not None) != (mode == g.MODE_XK) or (seq is not None and len(seq) != 8):
                raise p.ParamError("an item stands where it must not, or is missing")
        except p.ParamError as error:
            return self._refuse(Refusal.PARAMETER, str(error))
        with_record = seq is None or int.from_bytes(seq, "big") != static.record.seq
        self._pause()
        try:
            offer = self._offer_payload(static, with_record)
            self._pause()
            message = noise.write_message(offer)
        except NoiseError as error:
            return self._refuse(Refusal.CRYPTO, str(error))
        self.state = State.WAIT_FINISH
        return [Send(self._frame(g.REPLY, message))]

    def _means_another(self, body: bytes, mode: int) -> bool:
        """True if a HELLO that does not open was made for another node id.

        A PSK vouches for every byte of it, and its keys hang on nothing besides the PSK and the prologue; so in mode
        XX-named only the id in the prologue is left. Without a PSK the gate would have been silent. In XK a stale
        record gives the same picture.
        """
        hybrid = self._config.primitives == g.SUITE_HYBRID
        whole = 32 + (KEM_PUBLIC_LEN + TAG_LEN if hybrid else 0) + TAG_LEN
        return self._gate.shared and mode == g.MODE_XX_NAMED and len(body) >= whole

    def _on_finish(self, body: bytes, wall_s: float) -> list[Event]:
        noise = self._noise
        if noise is None:
            raise RuntimeError("no state")
        try:
            payload = noise.read_message(body)
        except NoiseError as error:
            return self._refuse(Refusal.CRYPTO, str(error))
        self._finish_noise(noise)
        self._pause()
        try:
            peer = self._check_peer(payload, noise, None, wall_s)
        except Refused as refused:
            return self._refuse_sealed(refused.code, refused.reason)
        if self._buffer:
            return self._refuse_sealed(Refusal.PROTOCOL, "the peer sent before its turn")
        return self._ask_policy(peer, wall_s)

    def _decided(self, decision: Decision, wall_s: float) -> list[Event]:
        peer = self._peer
        self._pause()
        if not decision.allowed or peer is None:
            return self._refuse_sealed(decision.code, decision.reason)
        verdict = bytes(2) + peer.agreement.encoded
        sealed = Send(self._sealed_verdict(verdict))
        self._pause()
        return [sealed, self._establish(verdict)]

    def _sealed_verdict(self, verdict: bytes) -> bytes:
        with self._accept_key() as key:
            return self._frame(
                g.ACCEPT, ChaCha20Poly1305(key).encrypt(bytes(12), verdict, self._accept_ad(len(verdict)))
            )

    def _refuse_sealed(self, code: Refusal, reason: str) -> list[Event]:
        sealed = self._sealed_verdict(int(code).to_bytes(2, "big"))
        return [Send(sealed), *self._fail(code, reason)]

    def _refuse(self, code: Refusal, reason: str) -> list[Event]:
        # behind FINISH the refusal is sealed, so only the peer it concerns can read it
        if self._prk is not None:
            return self._refuse_sealed(code, reason)
        return super()._refuse(code, reason)

    def _wipe(self) -> None:
        # the gate keys are the listener's: only let go of
        super()._wipe()
        self._keys = None
