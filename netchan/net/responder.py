"""The responder's machine: who listens, with a full handshake, a ticket, or a session that comes back.

Layer: net (L3), sans-IO: no socket, no thread, no await, no clock; randomness is an argument (`rng`). Cold code.
Flow, events and ownership: handshake.py, by which other modules import it. Spec: docs/spec/handshake.md §2.3, §4, §5,
§6, §11, §12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from netchan.net import abbreviated as short
from netchan.net import gate as g
from netchan.net import params as p
from netchan.net.join import Reach, Request, answer, is_genuine, parse_request
from netchan.net.machine import Event, HandshakeConfig, Joined, Machine, Peer, Refused, Rng, Send, State
from netchan.net.noise import KEM_PUBLIC_LEN, TAG_LEN, Ahead, NoiseError, no_pause
from netchan.net.params import Refusal
from netchan.net.ticket import Context, NoTicketError, TicketKeys, ticket_id
from netchan.net.trust import Claim, Decision, Policy

PARKED_NS: Final = 5_000_000_000
"""A JOIN waits so long for its session to come from another process."""


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
        tickets: the keys of the tickets that a RESUME may begin with; None: each is refused.

    Attributes:
        no_ticket: why a ticket was refused in this handshake, in a word or two; "" = none was.
        waits_for: locator of the session for which a JOIN waits or has waited; b"" = none.
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
        tickets: TicketKeys | None = None,
    ) -> None:
        super().__init__(config, policy, rng, address, same_user, pause, ahead, datagram_source is not None)
        self._gate, self._source, self._busy, self._reach = gate, datagram_source, busy, reach
        self._tickets = tickets
        self._predecessor: bytes | None = None
        self.no_ticket = ""
        self.waits_for = b""
        self._join: tuple[bytes, Request] | None = None
        self.state = State.WAIT_HELLO
        self.deadline_ns = self._whole_ns = now_ns + config.timeout_ns

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
        if self.state is State.WAIT_SESSION:
            return self._refuse(Refusal.BUSY, "the session did not come from the other process in time")
        return self._out_of_time() or self._refuse(Refusal.TIMEOUT, "the handshake took too long")

    def eof(self) -> list[Event]:
        """The carrier has ended; before a HELLO that is only worth a counter."""
        if self.state is State.WAIT_HELLO:
            return self._drain("closed before a HELLO")
        return super().eof()

    def _on_frame(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        if self.state is State.WAIT_HELLO:
            return self._first.get(frame[0], Responder._on_hello)(self, frame, wall_s, now_ns)
        try:
            header = self._open(frame)
        except g.FrameError as error:
            return self._pass_over(str(error))
        if header.kind == g.CLOSE:
            return self._on_close(frame)
        if header.kind == g.FINISH and self._may_look():
            return self._on_finish(g.frame_body(frame), wall_s)
        return self._pass_over(f"message {header.kind:#x} came out of order")

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
        if self._reach.may_come(request.locator):
            self.state, self.waits_for = State.WAIT_SESSION, request.locator
            self._join = frame, request
            self.deadline_ns = min(self.deadline_ns or now_ns, now_ns + PARKED_NS)
            return []
        return self._answer_join(frame, request)

    def go_on(self, now_ns: int) -> list[Event]:
        """The session that a JOIN waits for is here, or will not come. Without effect if nothing waits."""
        if self.state is not State.WAIT_SESSION or self._join is None:
            return []
        late = self.tick(now_ns)
        return late or self._answer_join(*self._join)

    def no_room(self) -> list[Event]:
        """Too many JOINs wait for sessions from another process: this one has to try again."""
        if self.state is not State.WAIT_SESSION:
            return []
        return self._refuse(Refusal.BUSY, "too many wait for sessions that are on their way here")

    def _answer_join(self, frame: bytes, request: Request) -> list[Event]:
        header, self._join = self._hello, None
        if self._reach is None or header is None:
            raise RuntimeError("no JOIN yet")
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

    def _pass_gate(self, frame: bytes, wall_s: float, now_ns: int, kind: int) -> list[Event] | None:
        """The checks of §5.2 up to 6: what is to be said if it goes no further, or None."""
        busy = self._busy is not None and self._busy()
        result = self._gate.check(frame, wall_s, now_ns, self._rng, address=self._source, busy=busy, kind=kind)
        if result.header is None or result.keys is None:
            return self._drain(result.reason)
        self._hello, self._keys = result.header, result.keys
        if result.verdict is g.Verdict.COOKIE:
            answer = Send(self._frame(g.COOKIE, result.cookie))
            self._hello = self._keys = None
            return [answer]
        return self._judged(result)

    def _on_hello(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        stopped = self._pass_gate(frame, wall_s, now_ns, g.HELLO)
        if stopped is not None:
            return stopped
        if self._hello is None or self._keys is None:
            raise RuntimeError("no HELLO yet")
        self._pause()
        return self._run_noise(g.frame_body(frame), self._hello, self._keys, wall_s)

    # --- with a ticket ----------------------------------------------------------------------------------------------

    def _on_resume(self, frame: bytes, wall_s: float, now_ns: int) -> list[Event]:
        """§12: the abbreviated handshake, or the word that it has to be a full one."""
        stopped = self._pass_gate(frame, wall_s, now_ns, g.RESUME)
        if stopped is not None:
            return stopped
        if self.no_ticket:
            if self._doubts is not None:
                self._hello = self._keys = None
            return self._pass_over("a second ticket came")
        try:
            return self._open_ticket(g.frame_body(frame), wall_s, now_ns)
        except NoTicketError as error:
            return self._refuse_ticket(str(error))

    def _open_ticket(self, body: bytes, wall_s: float, now_ns: int) -> list[Event]:
        config, tickets, header, keys = self._config, self._tickets, self._hello, self._keys
        if header is None or keys is None:
            raise RuntimeError("no RESUME yet")
        if tickets is None or config.require_live:
            raise NoTicketError("off")
        ticket, message = short.split_body(body)
        me = config.identity.id_pub
        content = tickets.open(ticket, Context(me, config.network_id, config.primitives), now_ns)
        with content.secret as secret:
            self._noise = short.begin_noise(
                header,
                config.network_id,
                me,
                ticket,
                secret,
                keys.psk0,
                initiator=False,
                rng=self._rng,
                pause=self._pause,
                ahead=self._ahead,
            )
        items = short.read_asked(self._noise, message, ticket, tickets, content, now_ns)
        asked = short.judge(items, content, config.offer, wall_s)
        if self._buffer:
            return self._refuse(Refusal.PROTOCOL, "the peer sent before its turn")
        record = config.records.shared(asked.record)
        claim = Claim(record.id_pub, record, asked.membership, self._address, False, self._same_user)
        self._predecessor = ticket_id(ticket) if asked.replaces else b""
        return self._ask_policy(Peer(claim, asked.offer, asked.agreement, False), wall_s)

    def _refuse_ticket(self, reason: str) -> list[Event]:
        """The dialler has to begin again, in full; nothing of this is kept but the reason."""
        said = Send(self._frame(g.NO_TICKET, bytes(1)))
        if self._noise is not None:
            self._noise.wipe()
        self._noise = self._hello = self._keys = self._peer = self._predecessor = None
        self.no_ticket = reason
        self.state = State.WAIT_HELLO
        return [said]

    def _resumed(self, decision: Decision, predecessor: bytes) -> list[Event]:
        peer, noise = self._peer, self._noise
        if peer is None or noise is None:
            raise RuntimeError("no RESUME yet")
        if not decision.allowed:
            return self._refuse_ticket("policy")
        try:
            message = noise.write_message(short.giving(self._config.offer, self._rng))
        except NoiseError:
            return self._refuse_ticket("does not open")
        said = Send(self._frame(g.RESUMED, message))
        self._pause()
        self._finish_noise(noise)
        return [said, self._establish(bytes(2) + peer.agreement.encoded, True, predecessor)]

    # --- in full ----------------------------------------------------------------------------------------------------

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
            return self._doubt(Refusal.CRYPTO, str(error), ends=False)
        self._go_on()
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
        if self._predecessor is not None:
            return self._resumed(decision, self._predecessor)
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

    _first: ClassVar[dict[int, Callable[[Responder, bytes, float, int], list[Event]]]] = {
        g.JOIN: _on_join,
        g.RESUME: _on_resume,
    }
