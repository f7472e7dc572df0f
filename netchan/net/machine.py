"""What both handshake machines share: configuration, events, the frame loop, the checks of the peer, the end.

Layer: net (L3), sans-IO: no socket, no thread, no await, no clock; randomness is an argument (`rng`).
handshake.py holds the two machines and is what other modules import. Cold code.
Ownership: one machine per connection, used by one thread at a time; it wipes its keys at the end.
Spec: docs/spec/handshake.md §2.3, §3.3, §4, §6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from netchan.errors import AuthError, ConfigError, DialError, DialTimeout, HandshakeError
from netchan.net import gate as g
from netchan.net import params as p
from netchan.net.doubts import GRACE_NS, Doubts, Reason
from netchan.net.identity import DEFAULT_NETWORK, Identity, StaticKey
from netchan.net.noise import (
    TAG_LEN,
    Ahead,
    HandshakeState,
    Kem,
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
_OFFER_ITEMS = frozenset(
    {p.RECORD, p.MEMBERSHIP, p.LIVE_SIG, p.VERSIONS, p.CIPHERS, p.CAPS, p.REQUIRED, p.PARAMS, p.PADDING}
)
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
        if str(self.pq) not in ("require", "off"):
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
    """Both sides accepted. `root` belongs to the receiver of the event; `leftover`: stream bytes behind the end.

    `by_ticket`: identities were taken from a ticket; `predecessor`: its id, if the session that gave it is over at the
    side that dialled (at the responder only).
    """

    initiator: bool
    claim: Claim
    root: SecureBytes = field(repr=False)
    binding: bytes
    agreement: p.Agreement
    local: p.Offer
    remote: p.Offer
    live: bool
    leftover: bytes = field(repr=False)
    by_ticket: bool = False
    predecessor: bytes = b""

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
    """The gate was not proved: send nothing, drain until the drain deadline. `reason` is for counters only."""

    reason: str


class Joinable(Protocol):
    """The session behind a JOIN, as the engine has it."""

    def join_mac(self, data: bytes) -> bytes:
        """32 bytes under the join key."""

    def join(self, path_id: int, last: int) -> int | None:
        """All paths are over. Records received on the last one; None: this session cannot mean these paths."""

    def may_add(self, path_id: int) -> bool:
        """True if a path of this id may come beside those that live."""


@dataclass(frozen=True)
class Joined:
    """A session has a new path.

    Attributes:
        session: the one that the responder found; None at the dialler, which knows.
        path_id: of the new path.
        beside: it comes beside others; False: instead of all of them.
        last: the path before it, where it comes instead.
        received: records of it that the other side has got.
        binding: 32 bytes for the first record of each direction.
        leftover: bytes of the stream behind the exchange.
    """

    session: Joinable | None
    path_id: int
    beside: bool
    last: int
    received: int
    binding: bytes
    leftover: bytes


Event = Send | Ask | Established | Joined | Failed | Drain


EARLY_MAX: Final = 16_384
"""Bytes behind a JOIN that waits for its session."""


class State(Enum):
    """Where a machine stands (§2.3)."""

    NEW = "not started"
    WAIT_HELLO = "waits for HELLO"
    WAIT_REPLY = "waits for REPLY"
    WAIT_RESUMED = "waits for RESUMED"
    WAIT_FINISH = "waits for FINISH"
    WAIT_SESSION = "waits for a session from another process"
    ASKING = "waits for the trust policy"
    WAIT_ACCEPT = "waits for ACCEPT"
    DONE = "established"
    FAILED = "failed"
    DRAINING = "silent"


class Refused(Exception):
    """A check of the peer failed; carries the code for the wire and the reason for our own error."""

    def __init__(self, code: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Peer:
    """What the checks of §6 made of the peer's payload."""

    claim: Claim
    offer: p.Offer
    agreement: p.Agreement
    live: bool


class Machine:
    """What both sides share: the stream buffer, the frame loop, the checks of §6, the end."""

    _initiator = False

    def __init__(
        self,
        config: HandshakeConfig,
        policy: Policy,
        rng: Rng,
        address: str | None,
        same_user: bool,
        pause: Callable[[], object],
        ahead: Ahead | None,
        datagrams: bool,
    ) -> None:
        self._doubts = Doubts() if datagrams else None
        self._whole_ns = self._now_ns = 0
        self._config, self._policy, self._rng, self._pause = config, policy, rng, pause
        self._ahead = ahead if config.kem is None else None
        self._address, self._same_user = address, same_user
        self._buffer = bytearray()
        self._noise: HandshakeState | None = None
        self._keys: g.GateKeys | None = None
        self._hello: g.Header | None = None
        self._peer: Peer | None = None
        self._binding = b""
        self._prk: SecureBytes | None = None
        self.state = State.NEW
        self.deadline_ns: int | None = None

    @property
    def passed(self) -> int:
        """Messages over datagrams that led nowhere: one that comes again is looked at again."""
        return 0 if self._doubts is None else self._doubts.passed

    @property
    def _ended(self) -> bool:
        return self.state in (State.DONE, State.FAILED, State.DRAINING)

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
        if self._ended:
            return []
        late = self.tick(now_ns)
        if late:
            return late
        self._now_ns = now_ns
        if self._doubts is not None and self.state in (State.ASKING, State.WAIT_SESSION):
            self._doubts.passed += 1
            return []
        self._buffer += data
        events: list[Event] = []
        while self._buffer and not self._ended:
            if self.state is State.WAIT_SESSION and len(self._buffer) <= EARLY_MAX:
                break  # of the path, and kept for it
            if self.state in (State.ASKING, State.WAIT_SESSION):
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

    def fits(self, datagram: bytes) -> bool:
        """True if a datagram is one whole message, made with a key of the gate; else it is not to be fed."""
        if self._keys is None or self.state in (State.ASKING, State.WAIT_SESSION):
            return False
        return g.is_from(datagram, self._keys.to_initiator if self._initiator else self._keys.to_responder)

    def tick(self, now_ns: int) -> list[Event]:
        """To be called at deadline_ns (monotonic); gives the events of a handshake that took too long."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return []
        return self._timed_out()

    def eof(self) -> list[Event]:
        """The carrier has ended: nothing more will come."""
        if self._ended:
            return []
        return self._fail(Refusal.PROTOCOL, "the connection was closed during the handshake")

    def resolve(self, allowed: bool, wall_s: float, now_ns: int) -> list[Event]:
        """The answer to Ask. RuntimeError if nothing was asked; no effect if the handshake has ended meanwhile."""
        if self.state in (State.FAILED, State.DRAINING):
            return []
        if self.state is not State.ASKING:
            raise RuntimeError("nothing was asked")
        late = self.tick(now_ns)
        if late:
            return late
        self._now_ns = now_ns
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

    def _pass_over(self, reason: str) -> list[Event]:
        """Not a message of this state. On a stream that is the end."""
        if self._doubts is None:
            return self._refuse(Refusal.PROTOCOL, reason)
        self._doubts.passed += 1
        return []

    def _doubt(self, code: Refusal, reason: str, *, remote: bool = False, ends: bool = True) -> list[Event]:
        """This message means the end, if it is what it seems to be. On a stream it is."""
        doubts = self._doubts
        if doubts is None:
            return self._fail(code, reason, remote=True) if remote else self._refuse(code, reason)
        if doubts.note(Reason(code, reason, remote), ends=ends):
            self._end_soon()
        return []

    def _end_soon(self) -> None:
        self.deadline_ns = min(self._whole_ns, self._now_ns + GRACE_NS)

    def _go_on(self) -> None:
        """Somebody has proved himself: it has all its time again."""
        if self._doubts is not None:
            self._doubts.clear()
            self.deadline_ns = self._whole_ns

    def _may_look(self) -> bool:
        return self._doubts is None or self._doubts.may_look(self._now_ns)

    def _out_of_time(self) -> list[Event]:
        """What was doubted is all that came; else it took too long."""
        reason = None if self._doubts is None else self._doubts.reason
        if reason is None:
            return []
        if reason.remote:
            return self._fail(reason.code, reason.text, remote=True)
        return self._refuse(reason.code, reason.text)

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

    def _make_noise(
        self, mode: int, header: g.Header, static: X25519PrivateKey, psk0: SecureBytes, **keys: bytes | None
    ) -> None:
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
            pause=self._pause,
            ahead=self._ahead,
        )

    def _offer_payload(self, static: StaticKey, with_record: bool) -> Payload:
        config = self._config
        # A REPLY with a KEM just fits into a datagram over IPv4 and Ethernet, 1 472 bytes.
        rng = None if not self._initiator and config.primitives == g.SUITE_HYBRID else self._rng
        items = config.offer.items(rng)
        if with_record:
            items[p.RECORD] = static.record.raw
        if config.membership is not None:
            items[p.MEMBERSHIP] = config.membership
        if rng is not None:
            p.grease(items, rng)
        if not config.live_identity:
            return p.encode_items(items)
        role = _INITIATOR_ROLE if self._initiator else _RESPONDER_ROLE

        def signed(h: bytes) -> bytes:
            items[p.LIVE_SIG] = config.identity.sign(_LIVE_LABEL + role + h)
            return p.encode_items(items)

        return signed

    def _check_peer(self, payload: bytes, noise: HandshakeState, in_hand: NodeRecord | None, wall_s: float) -> Peer:
        """The checks of §6 up to the trust policy, which also compares the ids. Refused: one failed."""
        config = self._config
        try:
            items = p.decode_items(payload, p.KNOWN_ITEMS)
            if not items.keys() <= _OFFER_ITEMS:
                raise p.ParamError("an item stands where it must not")
            offer = p.Offer.from_items(items)
        except p.ParamError as error:
            raise Refused(Refusal.PARAMETER, str(error)) from None
        self._pause()
        raw = items.get(p.RECORD)
        if raw is None and in_hand is None:
            raise Refused(Refusal.PARAMETER, "the payload holds no record")
        try:
            record = in_hand if raw is None else config.records.verify(raw, config.network_id, wall_s)
        except RecordExpiredError as error:
            raise Refused(Refusal.EXPIRED, f"{error}; if that clock is wrong, set it") from None
        except RecordError as error:
            raise Refused(Refusal.RECORD, str(error)) from None
        if record is None or (in_hand is None and record.static_pub != noise.rs):
            raise Refused(Refusal.RECORD, "the record names another static key")
        if in_hand is not None and record.id_pub != in_hand.id_pub:
            raise Refused(Refusal.WRONG_ID, "the new record names another node")
        ours = record.id_pub == config.identity.id_pub or noise.rs == config.static_key(wall_s).record.static_pub
        if ours and not self._policy.allow_self:
            raise Refused(Refusal.SELF, "our own identity came back")
        self._pause()
        live = self._check_live(items.get(p.LIVE_SIG), record, noise.payload_hash)
        self._pause()
        try:
            offers = (config.offer, offer) if self._initiator else (offer, config.offer)
            agreement = p.negotiate(*offers)
        except p.VersionError as error:
            raise Refused(Refusal.VERSION, str(error)) from None
        except p.CapabilityError as error:
            raise Refused(Refusal.CAPABILITY, str(error)) from None
        member = items.get(p.MEMBERSHIP)
        if member is not None and len(member) > MAX_MEMBERSHIP:
            raise Refused(Refusal.PARAMETER, "membership is too long")
        claim = Claim(record.id_pub, record, member, self._address, self._initiator, self._same_user)
        return Peer(claim, offer, agreement, live)

    def _check_live(self, signature: bytes | None, record: NodeRecord, h: bytes) -> bool:
        if signature is None:
            if self._config.require_live:
                raise Refused(Refusal.LIVE, "the peer did not sign this handshake with its identity")
            return False
        role = _RESPONDER_ROLE if self._initiator else _INITIATOR_ROLE
        if not check_signature(record.id_pub, signature, _LIVE_LABEL + role + h):
            raise Refused(Refusal.LIVE, "the signature over this handshake is wrong")
        return True

    def _ask_policy(self, peer: Peer, wall_s: float) -> list[Event]:
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

    def _establish(self, verdict: bytes, by_ticket: bool = False, predecessor: bytes = b"") -> Established:
        if self._prk is None or self._peer is None:
            raise RuntimeError("the handshake is not over")
        self._pause()
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
            by_ticket,
            predecessor,
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
            return self._pass_over("CLOSE is malformed")
        code = Refusal.read(int.from_bytes(body, "big"))
        return self._doubt(code, "the other side closed the handshake", remote=True)

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
