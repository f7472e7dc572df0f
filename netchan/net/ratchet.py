"""The in-band Diffie-Hellman ratchet: what was recorded before it stays closed even to a thief of today's keys.

Layer: net (L3). Sans-IO but for the session that carries the two messages; randomness is an argument; cold code.
Flow: initiator ``start`` -> RATCHET 1 -> responder answers RATCHET 2 and has the secret -> initiator has it, hands it
to the core, which announces it with REKEY and switches when that is acknowledged; the responder's direction follows.
Only the initiator starts.
Threads: called by the session's notification and by whoever starts it (a timer, a path that came back), in turn.
Spec: docs/spec/keys.md §2.1.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netchan.net.noise import HandshakeState, NoiseError
from netchan.net.secret import SecureBytes, hkdf_expand, hkdf_extract, wipe

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

PATTERN: Final = "Noise_NNpsk0_25519_ChaChaPoly_SHA256"
LABEL: Final = b"ratchet"
PROLOGUE: Final = b"netchan/ratchet/v1\0"
RATCHET_SECONDS: Final = 900.0
"""A ratchet is started after this much use of a session: bounds what a stolen epoch secret opens."""


class Ratchet:
    """The ratchet of one session.

    Args:
        session: carries the messages; its ``on_ratchet`` is set to ``receive``.
        initiator: True on the side that dialled.
        rng: gives n random bytes.

    Attributes:
        number: of the last ratchet begun here, from 1.
        refused: messages that did not open or came at the wrong time.
    """

    def __init__(self, session: Session, *, initiator: bool, rng: Callable[[int], bytes]) -> None:
        self._session_ref = weakref.ref(session)
        self._initiator = initiator
        self._rng = rng
        self._state: HandshakeState | None = None
        self._turn = threading.RLock()  # an answer may start one
        self.number = 0
        self.refused = 0
        session.on_ratchet = self.receive

    @property
    def _session(self) -> Session:
        """Held weakly: the session holds the ratchet, and must be collected when its peer is."""
        session = self._session_ref()
        if session is None:
            raise ReferenceError("the session of this ratchet is gone")
        return session

    def start(self) -> bool:
        """Begin a ratchet (initiator) or ask the other side to (responder).

        Returns:
            False if one is under way, or its secret is not in use yet in both directions.
        """
        if not self._initiator:
            self._session.ratchet_send(self.number + 1, 0, b"")
            return True
        # Between an answer and its secret in the core neither test would hold. One that begins there is heard of before
        # the last one is announced, and the other side, which knows one secret at a time, ends the session.
        with self._turn:
            if self._state is not None or self._session.ratchet_pending:
                return False
            self.number += 1
            self._state = self._machine(self.number)
            self._session.ratchet_send(self.number, 1, self._state.write_message())
            return True

    def receive(self) -> None:
        """Act on the message that came; a bad one is counted and changes nothing."""
        with self._turn:
            got = self._session.take_ratchet()
            if got is None:
                return
            number, step, message = got
            try:
                if self._initiator:
                    self._as_initiator(number, step, message)
                else:
                    self._as_responder(number, step, message)
            except NoiseError:
                self.refused += 1

    def _as_initiator(self, number: int, step: int, message: bytes) -> None:
        if step == 0:
            self.start()
            return
        state = self._state
        if step != 2 or state is None or number != self.number:
            self.refused += 1
            return
        state.read_message(message)
        self._state = None
        self._finish(state, number)

    def _as_responder(self, number: int, step: int, message: bytes) -> None:
        if step != 1 or number != self.number + 1:
            self.refused += 1
            return
        state = self._machine(number)
        state.read_message(message)
        answer = state.write_message()
        self.number = number
        # The secret first: the initiator's announcement may follow the answer at once.
        self._finish(state, number)
        self._session.ratchet_send(number, 2, answer)

    def _machine(self, number: int) -> HandshakeState:
        context = number.to_bytes(8, "big")
        psk = self._session.export(LABEL, context, 32)
        try:
            return HandshakeState(PATTERN, self._initiator, self._rng, prologue=PROLOGUE + context, psks=(psk,))
        finally:
            wipe(psk)

    def _finish(self, state: HandshakeState, number: int) -> None:
        ck, h = state.finish()
        prk: SecureBytes | None = None
        secret: SecureBytes | None = None
        try:
            prk = hkdf_extract(b"netchan v1", ck)
            secret = hkdf_expand(prk, b"netchan ratchet v1" + h, 32)
            self._session.ratchet_secret(number, secret)
        finally:
            for buffer in (ck, prk, secret):
                if buffer is not None:
                    wipe(buffer)
            state.wipe()
