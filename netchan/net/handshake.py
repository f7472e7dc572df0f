"""The two handshake machines: bytes and clock values in, bytes and events out.

Layer: net (L3), sans-IO: no socket, no thread, no await, no clock; randomness is an argument (`rng`). Cold code.
Flow: Initiator.start -> feed ... -> Established | Failed; Responder.feed ... -> Established | Failed | Drain.
The caller writes every Send at once and in order, closes after Failed (behind a Send that came with it), and after Drain
reads and throws away until limits.drain_deadline. Ask: the policy gave an awaitable; await it, then call resolve().
Ownership: one machine per connection, used by one thread at a time; it wipes its keys at the end. The root in
Established belongs to the receiver of that event. Spec: docs/spec/handshake.md §2.3, §3, §4, §6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from netchan.errors import AuthError, ConfigError, DialError, DialTimeout, HandshakeError
from netchan.net import gate as g
from netchan.net import params as p
from netchan.net.identity import DEFAULT_NETWORK, Identity, StaticKey, format_node_id
from netchan.net.noise import (
    KEM_PUBLIC_LEN,
    TAG_LEN,
    HandshakeState,
    Kem,
    NoiseError,
    Payload,
    ProtocolName,
)
from netchan.net.params import Refusal
from netchan.net.record import (
    CAP_CLASSICAL,
    CAP_HYBRID,
    MAX_MEMBERSHIP,
    MAX_NETWORK_ID,
    NodeRecord,
    RecordCache,
    RecordError,
    RecordExpiredError,
    check_signature,
)
from netchan.net.secret import SecureBytes, hkdf_expand, hkdf_extract, wipe
from netchan.net.trust import Claim, Decision, Policy

HANDSHAKE_TIMEOUT_NS = 10_000_000_000
MAX_COOKIES = 2
_LABELS = {g.MODE_XX_OPEN: b"XX-open", g.MODE_XX_NAMED: b"XX-named", g.MODE_XK: b"XK"}
_NAMES = {
    (g.SUITE_HYBRID, "XX"): ProtocolName("Noise_XXhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256"),
    (g.SUITE_HYBRID, "XK"): ProtocolName("Noise_XKhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256"),
    (g.SUITE_CLASSICAL, "XX"): ProtocolName("Noise_XXpsk0_25519_ChaChaPoly_SHA256"),
    (g.SUITE_CLASSICAL, "XK"): ProtocolName("Noise_XKpsk0_25519_ChaChaPoly_SHA256"),
}
_AUTH_CODES = frozenset(
    {Refusal.RECORD, Refusal.EXPIRED, Refusal.UNTRUSTED, Refusal.SELF, Refusal.WRONG_ID, Refusal.LIVE}
)
_OFFER_ITEMS = frozenset({p.RECORD, p.MEMBERSHIP, p.LIVE_SIG, p.VERSIONS, p.CIPHERS, p.CAPS, p.REQUIRED, p.PARAMS, p.PADDING})
_LIVE_LABEL = b"netchan/live/v1\0"
_INITIATOR_ROLE, _RESPONDER_ROLE = b"\x01", b"\x02"
Rng = Callable[[int], bytes]


@dataclass(frozen=True)
class HandshakeConfig:
    """What one node says and wants in every handshake; shared by all machines of the node.

    Attributes:
        identity: who we are.
        network_id: at most 64 bytes; both sides need the same.
        pq: "require" (ML-KEM-768 and X25519) or "off" (X25519); both sides need the same.
        offer: parameters, ciphers, capabilities.
        membership: ours, from an authority, at most 1024 bytes.
        live_identity: sign each handshake with the identity.
        require_live: refuse peers that do not.
        timeout_ns: for the whole handshake.
        records: the table of verified records.
        kem: the KEM provider; None = ML-KEM-768 of `cryptography`.

    Raises:
        ConfigError: a value out of range.
    """

    identity: Identity
    network_id: bytes = DEFAULT_NETWORK
    pq: Literal["require", "off"] = "require"
    offer: p.Offer = field(default_factory=p.Offer)
    membership: bytes | None = None
    live_identity: bool = False
    require_live: bool = False
    timeout_ns: int = HANDSHAKE_TIMEOUT_NS
    records: RecordCache = field(default_factory=RecordCache)
    kem: Kem | None = None

    def __post_init__(self) -> None:
        if self.pq not in ("require", "off"):
            raise ConfigError(f'pq={self.pq!r} is not understood; write pq="require" or pq="off"')
        if len(self.network_id) > MAX_NETWORK_ID:
            raise ConfigError(f"network id is {len(self.network_id)} bytes, at most {MAX_NETWORK_ID}")
        if self.membership is not None and len(self.membership) > MAX_MEMBERSHIP:
            raise ConfigError(f"membership is {len(self.membership)} bytes, at most {MAX_MEMBERSHIP}")

    @property
    def primitives(self) -> int:
        """The suite number of §3.2."""
        return g.SUITE_HYBRID if self.pq == "require" else g.SUITE_CLASSICAL

    def static_key(self, wall_s: float) -> StaticKey:
        """Our static key and record at `wall_s` (Unix seconds)."""
        caps = CAP_HYBRID if self.pq == "require" else CAP_CLASSICAL
        return self.identity.static_key(wall_s, self.network_id, caps)


@dataclass(frozen=True)
class Send:
    """Write these bytes now."""

    data: bytes


@dataclass(frozen=True)
class Ask:
    """Await `pending`, then call resolve(result is True); an exception counts as False."""

    claim: Claim
    pending: Awaitable[object]


@dataclass(frozen=True)
class Established:
    """Both sides accepted. `root` belongs to the receiver of this event; `leftover` are stream bytes behind the handshake."""

    initiator: bool
    claim: Claim
    root: SecureBytes = field(repr=False)
    binding: bytes
    agreement: p.Agreement
    local: p.Offer
    remote: p.Offer
    live: bool
    leftover: bytes = field(repr=False)

    @property
    def node_id(self) -> str:
        """The peer's node id."""
        return self.claim.node_id


@dataclass(frozen=True)
class Failed:
    """No session. `error` is ready to be raised; `remote`: the other side said so."""

    code: Refusal
    error: DialError
    remote: bool = False


@dataclass(frozen=True)
class Drain:
    """The gate was not proved: send nothing, read and throw away until the drain deadline. `reason` is for counters only."""

    reason: str


Event = Send | Ask | Established | Failed | Drain


class State(Enum):
    """Where a machine stands (§2.3)."""

    NEW = "not started"
    WAIT_HELLO = "waits for HELLO"
    WAIT_REPLY = "waits for REPLY"
    WAIT_FINISH = "waits for FINISH"
    ASKING = "waits for the trust policy"
    WAIT_ACCEPT = "waits for ACCEPT"
    DONE = "established"
    FAILED = "failed"
    DRAINING = "silent"


class _Refused(Exception):
    """A check of the peer failed; carries the code for the wire and the reason for our own error."""

    def __init__(self, code: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class _Peer:
    """What the checks of §6 made of the peer's payload."""

    claim: Claim
    offer: p.Offer
    agreement: p.Agreement
    live: bool


class _Machine:
    """What both sides share: the stream buffer, the frame loop, the checks of §6, the end."""

    _initiator = False

    def __init__(self, config: HandshakeConfig, policy: Policy, rng: Rng, address: str | None, same_user: bool) -> None:
        self._config, self._policy, self._rng = config, policy, rng
        self._address, self._same_user = address, same_user
        self._buffer = bytearray()
        self._noise: HandshakeState | None = None
        self._keys: g.GateKeys | None = None
        self._hello: g.Header | None = None
        self._peer: _Peer | None = None
        self._binding = b""
        self._prk: SecureBytes | None = None
        self.state = State.NEW
        self.deadline_ns: int | None = None

    # --- driven by the caller -------------------------------------------------------------------------------

    def feed(self, data: bytes, wall_s: float, now_ns: int) -> list[Event]:
        """Take bytes from the carrier, in any cut.

        Args:
            data: what was read, as it came.
            wall_s: Unix seconds, for gate and records.
            now_ns: monotonic nanoseconds, for the deadline.

        Returns:
            Events in order; never raises for what the peer sent.
        """
        if self.state in (State.DONE, State.FAILED, State.DRAINING):
            return []
        late = self.tick(now_ns)
        if late:
            return late
        self._buffer += data
        events: list[Event] = []
        while self.state not in (State.DONE, State.FAILED, State.DRAINING) and self._buffer:
            if self.state is State.ASKING:
                events += self._refuse(Refusal.PROTOCOL, "the peer sent before its turn")
                break
            try:
                frame = self._next_frame()
            except g.FrameError as error:
                events += self._bad_frame(str(error))
                break
            if frame is None:
                break
            events += self._on_frame(frame, wall_s, now_ns)
        return events

    def tick(self, now_ns: int) -> list[Event]:
        """To be called at deadline_ns (monotonic); gives the events of a handshake that took too long."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return []
        return self._timed_out()

    def eof(self) -> list[Event]:
        """The carrier has ended: nothing more will come."""
        if self.state in (State.DONE, State.FAILED, State.DRAINING):
            return []
        return self._fail(Refusal.PROTOCOL, "the connection was closed during the handshake")

    def resolve(self, allowed: bool, wall_s: float, now_ns: int) -> list[Event]:
        """The answer to Ask. RuntimeError if nothing was asked; nothing happens if the handshake has ended meanwhile."""
        if self.state in (State.FAILED, State.DRAINING):
            return []
        if self.state is not State.ASKING:
            raise RuntimeError("nothing was asked")
        late = self.tick(now_ns)
        if late:
            return late
        return self._decided(Decision(allowed, reason="" if allowed else "refused by the trust callable"), wall_s)

    def close(self) -> None:
        """Give up and wipe all keys. Idempotent."""
        if self.state is not State.DONE:
            self.state = State.FAILED
        self._wipe()

    # --- shared steps ---------------------------------------------------------------------------------------

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < g.HEADER_LEN:
            return None
        length = g.parse_header(self._buffer).length
        if len(self._buffer) < length:
            return None
        frame = bytes(self._buffer[:length])
        del self._buffer[:length]
        return frame

    def _on_frame(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        raise NotImplementedError

    def _bad_frame(self, reason: str) -> list[Event]:
        return self._refuse(Refusal.PROTOCOL, reason)

    def _timed_out(self) -> list[Event]:
        raise NotImplementedError

    def _decided(self, decision: Decision, wall_s: float) -> list[Event]:
        raise NotImplementedError

    def _frame(self, kind: int, body: bytes, cookie: bytes | None = None) -> bytes:
        if self._hello is None or self._keys is None:
            raise RuntimeError("no HELLO yet")
        key = self._keys.to_responder if self._initiator else self._keys.to_initiator
        return g.seal_frame(self._hello._replace(kind=kind), body, key, cookie)

    def _open(self, frame: bytes) -> g.Header:
        if self._hello is None or self._keys is None:
            raise g.FrameError("message before HELLO")
        return g.open_frame(frame, self._keys.to_initiator if self._initiator else self._keys.to_responder, self._hello)

    def _make_noise(self, mode: int, header: g.Header, static: X25519PrivateKey, psk0: SecureBytes, **keys: bytes | None) -> None:
        responder_id = keys.get("responder_id") if mode != g.MODE_XX_OPEN else None
        if self._noise is not None:
            self._noise.wipe()
        self._noise = HandshakeState(
            _NAMES[self._config.primitives, "XK" if mode == g.MODE_XK else "XX"],
            self._initiator,
            self._rng,
            prologue=prologue(header, self._config.network_id, mode, responder_id),
            s=static,
            rs=keys.get("rs"),
            psks=[psk0],
            kem=self._config.kem,
        )

    def _offer_payload(self, static: StaticKey, with_record: bool) -> Payload:
        config = self._config
        items = config.offer.items(self._rng)
        if with_record:
            items[p.RECORD] = static.record.raw
        if config.membership is not None:
            items[p.MEMBERSHIP] = config.membership
        p.grease(items, self._rng)
        if not config.live_identity:
            return p.encode_items(items)
        role = _INITIATOR_ROLE if self._initiator else _RESPONDER_ROLE

        def signed(h: bytes) -> bytes:
            items[p.LIVE_SIG] = config.identity.sign(_LIVE_LABEL + role + h)
            return p.encode_items(items)

        return signed

    def _check_peer(self, payload: bytes, noise: HandshakeState, in_hand: NodeRecord | None, wall_s: float) -> _Peer:
        """The checks of §6 up to the trust policy. _Refused: one failed."""
        config = self._config
        try:
            items = p.decode_items(payload, p.KNOWN_ITEMS)
            if not items.keys() <= _OFFER_ITEMS:
                raise p.ParamError("an item stands where it must not")
            offer = p.Offer.from_items(items)
        except p.ParamError as error:
            raise _Refused(Refusal.PARAMETER, str(error)) from None
        raw = items.get(p.RECORD)
        if raw is None and in_hand is None:
            raise _Refused(Refusal.PARAMETER, "the payload holds no record")
        try:
            record = in_hand if raw is None else config.records.verify(raw, config.network_id, wall_s)
        except RecordExpiredError as error:
            raise _Refused(Refusal.EXPIRED, f"{error}; if that clock is wrong, set it") from None
        except RecordError as error:
            raise _Refused(Refusal.RECORD, str(error)) from None
        if record is None or (in_hand is None and record.static_pub != noise.rs):
            raise _Refused(Refusal.RECORD, "the record names another static key")
        if in_hand is not None and record.id_pub != in_hand.id_pub:
            raise _Refused(Refusal.RECORD, "the new record names another node")
        own = config.static_key(wall_s).record
        if not self._policy.allow_self and (record.id_pub == own.id_pub or noise.rs == own.static_pub):
            raise _Refused(Refusal.SELF, "our own identity came back")
        expected = self._policy.expected_id
        if expected is not None and record.id_pub != expected:
            raise _Refused(Refusal.WRONG_ID, f"dialled {format_node_id(expected)}, {format_node_id(record.id_pub)} answered")
        live = self._check_live(items.get(p.LIVE_SIG), record, noise.payload_hash)
        try:
            offers = (config.offer, offer) if self._initiator else (offer, config.offer)
            agreement = p.negotiate(*offers)
        except p.VersionError as error:
            raise _Refused(Refusal.VERSION, str(error)) from None
        except p.CapabilityError as error:
            raise _Refused(Refusal.CAPABILITY, str(error)) from None
        member = items.get(p.MEMBERSHIP)
        if member is not None and len(member) > MAX_MEMBERSHIP:
            raise _Refused(Refusal.PARAMETER, "membership is too long")
        claim = Claim(record.id_pub, record, member, self._address, self._initiator, self._same_user)
        return _Peer(claim, offer, agreement, live)

    def _check_live(self, signature: bytes | None, record: NodeRecord, h: bytes) -> bool:
        if signature is None:
            if self._config.require_live:
                raise _Refused(Refusal.LIVE, "the peer did not sign this handshake with its identity")
            return False
        role = _RESPONDER_ROLE if self._initiator else _INITIATOR_ROLE
        if not check_signature(record.id_pub, signature, _LIVE_LABEL + role + h):
            raise _Refused(Refusal.LIVE, "the signature over this handshake is wrong")
        return True

    def _ask_policy(self, peer: _Peer, wall_s: float) -> list[Event]:
        self._peer = peer
        self.state = State.ASKING
        decision = self._policy.decide(peer.claim, wall_s)
        if decision.pending is not None:
            return [Ask(peer.claim, decision.pending)]
        return self._decided(decision, wall_s)

    def _finish_noise(self, noise: HandshakeState) -> None:
        chaining_key, self._binding = noise.finish()
        with chaining_key:
            self._prk = hkdf_extract(b"netchan v1", chaining_key)
        self._noise = None

    def _accept_key(self) -> SecureBytes:
        if self._prk is None:
            raise RuntimeError("the handshake is not over")
        return hkdf_expand(self._prk, b"netchan accept v1" + self._binding)

    def _accept_ad(self, length: int) -> bytes:
        if self._hello is None:
            raise RuntimeError("no HELLO yet")
        frame_length = g.HEADER_LEN + length + TAG_LEN + g.TRAILER_LEN
        return self._hello._replace(kind=g.ACCEPT, length=frame_length).pack() + self._binding

    def _establish(self, verdict: bytes) -> Established:
        if self._prk is None or self._peer is None:
            raise RuntimeError("the handshake is not over")
        digest = hashlib.sha256(verdict).digest()
        root = hkdf_expand(self._prk, b"netchan root v1" + self._binding + digest)
        peer, leftover = self._peer, bytes(self._buffer)
        self.state, self.deadline_ns = State.DONE, None
        self._wipe()
        return Established(
            self._initiator,
            peer.claim,
            root,
            self._binding,
            peer.agreement,
            self._config.offer,
            peer.offer,
            peer.live,
            leftover,
        )

    def _refuse(self, code: Refusal, reason: str) -> list[Event]:
        """End it and tell the other side, which has proved the gate or is the one we dialled."""
        out: list[Event] = []
        if self._hello is not None and self._keys is not None:
            out.append(Send(self._frame(g.CLOSE, int(code).to_bytes(2, "big"))))
        return out + self._fail(code, reason)

    def _fail(self, code: Refusal, reason: str, remote: bool = False) -> list[Event]:
        self.state, self.deadline_ns = State.FAILED, None
        self._wipe()
        return [Failed(code, _error(code, reason, self._peer_name(), remote, self._initiator), remote)]

    def _peer_name(self) -> str:
        return self._address or "the peer"

    def _on_close(self, frame: bytes) -> list[Event]:
        body = g.frame_body(frame)
        if len(body) != 2:
            return self._refuse(Refusal.PROTOCOL, "CLOSE is malformed")
        code = Refusal.read(int.from_bytes(body, "big"))
        return self._fail(code, "the other side closed the handshake", remote=True)

    def _drain(self, reason: str) -> list[Event]:
        self.state, self.deadline_ns = State.DRAINING, None
        self._wipe()
        return [Drain(reason)]

    def _wipe(self) -> None:
        if self._noise is not None:
            self._noise.wipe()
            self._noise = None
        wipe(self._prk)
        self._prk = None
        self._buffer.clear()


class Initiator(_Machine):
    """The side that dials.

    Args:
        config: see HandshakeConfig.
        policy: from make_policy(..., dialling=True); its expected_id is the id in the address.
        rng: n random bytes from a cryptographic source.
        psk: 32 bytes or more, or None.
        record: what is known of the peer; used if it is valid and of the expected id (then XK, else XX).
        address: what was dialled, without the id; for messages and "tofu".
        same_user: the carrier has checked that the peer is the same user.

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
    ) -> None:
        super().__init__(config, policy, rng, address, same_user)
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
        except _Refused as refused:
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
        if code is Refusal.TIMEOUT and not remote:
            reason = (
                "the handshake took too long"
                if self._answered
                else "no answer: wrong node id, wrong PSK, or clocks more than 30 s apart"
            )
        return super()._fail(code, reason, remote)

    def _wipe(self) -> None:
        super()._wipe()
        wipe(self._psk)
        if self._keys is not None:
            self._keys.wipe()
            self._keys = None
        self._static = None


class Responder(_Machine):
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
    ) -> None:
        super().__init__(config, policy, rng, address, same_user)
        self._gate, self._source, self._busy = gate, datagram_source, busy
        self.state = State.WAIT_HELLO
        self.deadline_ns = now_ns + config.timeout_ns

    @property
    def heard(self) -> bool:
        """True once a HELLO passed the gate: tell HalfOpen.heard."""
        return self._hello is not None

    def _bad_frame(self, reason: str) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._drain(reason)
        return super()._bad_frame(reason)

    def _timed_out(self) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._drain("no HELLO in time")
        return self._refuse(Refusal.TIMEOUT, "the handshake took too long")

    def eof(self) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._drain("closed before a HELLO")
        return super().eof()

    def _on_frame(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._on_hello(frame, wall_s, now_ns)
        try:
            header = self._open(frame)
        except g.FrameError as error:
            return self._refuse(Refusal.PROTOCOL, str(error))
        if header.kind == g.CLOSE:
            return self._on_close(frame)
        if header.kind == g.FINISH:
            return self._on_finish(g.frame_body(frame), wall_s)
        return self._refuse(Refusal.PROTOCOL, f"message {header.kind:#x} came out of order")

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
        if result.verdict is g.Verdict.VERSIONS:
            versions = self._config.offer.versions
            answer = Send(self._frame(g.VERSIONS, bytes((len(versions), *versions))))
            return [answer, *self._fail(Refusal.VERSION, f"the peer speaks version {result.header.version}")]
        if result.verdict is g.Verdict.SUITE:
            return self._refuse(Refusal.SUITE, "the peer uses another suite")
        if result.verdict is g.Verdict.BUSY:
            return self._refuse(Refusal.BUSY, result.reason)
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
        try:
            message = noise.write_message(self._offer_payload(static, with_record))
        except NoiseError as error:
            return self._refuse(Refusal.CRYPTO, str(error))
        self.state = State.WAIT_FINISH
        return [Send(self._frame(g.REPLY, message))]

    def _on_finish(self, body: bytes, wall_s: float) -> list[Event]:
        noise = self._noise
        if noise is None:
            raise RuntimeError("no state")
        try:
            payload = noise.read_message(body)
        except NoiseError as error:
            return self._refuse(Refusal.CRYPTO, str(error))
        self._finish_noise(noise)
        try:
            peer = self._check_peer(payload, noise, None, wall_s)
        except _Refused as refused:
            return self._refuse_sealed(refused.code, refused.reason)
        if self._buffer:
            return self._refuse_sealed(Refusal.PROTOCOL, "the peer sent before its turn")
        return self._ask_policy(peer, wall_s)

    def _decided(self, decision: Decision, wall_s: float) -> list[Event]:
        peer = self._peer
        if not decision.allowed or peer is None:
            return self._refuse_sealed(decision.code, decision.reason)
        verdict = bytes(2) + peer.agreement.encoded
        return [Send(self._sealed_verdict(verdict)), self._establish(verdict)]

    def _sealed_verdict(self, verdict: bytes) -> bytes:
        with self._accept_key() as key:
            return self._frame(g.ACCEPT, ChaCha20Poly1305(key).encrypt(bytes(12), verdict, self._accept_ad(len(verdict))))

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


def prologue(header: g.Header, network_id: bytes, mode: int, responder_id: bytes | None) -> bytes:
    """The Noise prologue of §3.3."""
    parts = (network_id, _LABELS[mode], responder_id or b"")
    return b"netchan/handshake/v1\0" + header.pack() + b"".join(bytes((len(part),)) + part for part in parts)


def _error(code: Refusal, reason: str, peer: str, remote: bool, initiator: bool) -> DialError:
    who = f"{peer} refused" if remote else f"handshake with {peer} failed"
    text = f"{who}: {code.name}{f' ({reason})' if reason else ''}"
    if remote and code is Refusal.UNTRUSTED:
        text += "; add our node id to its trust="
    elif code is Refusal.SUITE:
        text += "; say the same pq= on both sides"
    elif remote and code is Refusal.EXPIRED:
        text += "; compare the clocks of both sides"
    if code in _AUTH_CODES:
        return AuthError(text)
    if code is Refusal.TIMEOUT and initiator:
        return DialTimeout(text)
    return HandshakeError(text)
