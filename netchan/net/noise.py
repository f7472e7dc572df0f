"""The Noise protocol engine: a table of patterns, the modifiers psk and hfs, and the three state objects.

Layer: net (L3), sans-IO; no clock, no socket. Randomness for private keys is an argument (`rng`); only the KEM's
encapsulation draws its own, because its provider takes none.
Flow: HandshakeState.write_message / read_message in turn -> finish() gives the chaining key, split() two ciphers.
Ownership: a HandshakeState owns every secret given to or made by it and wipes them in wipe(); a failed read changes
nothing.
Not thread-safe. Spec: docs/spec/handshake.md §3; Noise Protocol Framework rev 34; Noise HFS draft rev 1.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from netchan._core.transcript import Transcript, has_transcript
from netchan.net.secret import SecureBytes, wipe

MAX_MESSAGE = 65_535  # Noise §3
MAX_NONCE = 2**64 - 1  # reserved, never used for a message (Noise §5.1)
TAG_LEN = 16
DH_LEN = 32
KEM_PUBLIC_LEN = 1184
KEM_CIPHERTEXT_LEN = 1088
KEM_SEED_LEN = 64
Rng = Callable[[int], bytes]
Payload = bytes | Callable[[bytes], bytes]


class NoiseError(Exception):
    """A message that cannot be accepted or written; the state is as before the call."""


class NoiseOrderError(NoiseError):
    """A call that the state does not allow: wrong turn, already finished, nonce used up."""


# Each pattern: pre-messages of the initiator and of the responder, then the messages in turn (Noise §7.4, §7.5).
_PATTERNS: dict[str, tuple[str, str, str]] = {
    "N": ("", "s", "e es"),
    "K": ("s", "s", "e es ss"),
    "X": ("", "s", "e es s ss"),
    "NN": ("", "", "e / e ee"),
    "NK": ("", "s", "e es / e ee"),
    "NX": ("", "", "e / e ee s es"),
    "XN": ("", "", "e / e ee / s se"),
    "XK": ("", "s", "e es / e ee / s se"),
    "XX": ("", "", "e / e ee s es / s se"),
    "KN": ("s", "", "e / e ee se"),
    "KK": ("s", "s", "e es ss / e ee se"),
    "KX": ("s", "", "e / e ee se s es"),
    "IN": ("", "", "e s / e ee se"),
    "IK": ("", "s", "e es s ss / e ee se"),
    "IX": ("", "", "e s / e ee se s es"),
    "NK1": ("", "s", "e / e ee es"),
    "XK1": ("", "s", "e / e ee es / s se"),
}
_HASHES = {"SHA256": ("sha256", 32), "SHA512": ("sha512", 64), "BLAKE2s": ("blake2s", 32), "BLAKE2b": ("blake2b", 64)}
_DH_TOKENS = frozenset({"ee", "es", "se", "ss"})


class Kem(Protocol):
    """The key encapsulation that `hfs` uses; sizes are those of ML-KEM-768."""

    def generate(self, rng: Rng) -> tuple[object, bytes]:
        """Return (private key object, public key bytes)."""

    def encapsulate(self, public: bytes) -> tuple[SecureBytes, bytes]:
        """Return (shared secret, ciphertext); ValueError if the public key is not valid."""

    def decapsulate(self, private: object, ciphertext: bytes) -> SecureBytes:
        """Return the shared secret; ValueError if the size is wrong (a forged one gives an unrelated secret)."""


class MlKem768:
    """ML-KEM-768 (FIPS 203) from the `cryptography` package, 48 or newer."""

    def generate(self, rng: Rng) -> tuple[object, bytes]:
        """A key pair from a seed of 64 bytes."""
        with SecureBytes(rng(KEM_SEED_LEN)) as seed:
            private = MLKEM768PrivateKey.from_seed_bytes(seed)
        return private, private.public_key().public_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[SecureBytes, bytes]:
        """A secret and its ciphertext; the randomness is the provider's own."""
        shared, ciphertext = MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        return SecureBytes(shared), ciphertext

    def decapsulate(self, private: object, ciphertext: bytes) -> SecureBytes:
        """The secret of a ciphertext."""
        if not isinstance(private, MLKEM768PrivateKey):
            raise TypeError("not a key of this KEM")
        return SecureBytes(private.decapsulate(ciphertext))


class Ahead(Protocol):
    """Ephemeral keys that were made before they were wanted; each is given out once."""

    def dh(self) -> tuple[X25519PrivateKey, bytes] | None:
        """A private key with its public bytes, or None."""

    def kem(self) -> tuple[object, bytes] | None:
        """A private key of ML-KEM-768 with its public bytes, or None."""


def make_dh(rng: Rng) -> tuple[X25519PrivateKey, bytes]:
    """A key pair for X25519 from 32 random bytes."""
    with SecureBytes(rng(DH_LEN)) as raw:
        private = X25519PrivateKey.from_private_bytes(raw)
    return private, private.public_key().public_bytes_raw()


class ProtocolName:
    """A parsed Noise protocol name such as `Noise_XXhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256`.

    Raises:
        ValueError: the name is malformed or names something this engine does not have.
    """

    def __init__(self, name: str) -> None:
        parts = name.split("_")
        if len(parts) != 5 or parts[0] != "Noise":
            raise ValueError(f"not a Noise protocol name: {name!r}")
        self.raw = name.encode("ascii")
        size = len(parts[1]) - len(parts[1].lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
        self.pattern, modifiers = parts[1][:size], [m for m in parts[1][size:].split("+") if m]
        if self.pattern not in _PATTERNS:
            raise ValueError(f"unknown pattern {self.pattern!r}")
        if parts[3] not in ("ChaChaPoly", "AESGCM") or parts[4] not in _HASHES:
            raise ValueError(f"unknown cipher or hash in {name!r}")
        self.cipher, (self.hash, self.hash_len) = parts[3], _HASHES[parts[4]]
        self.hfs = "hfs" in modifiers
        if parts[2] != ("25519+MLKEM768" if self.hfs else "25519"):
            raise ValueError(f"unknown key exchange {parts[2]!r}")
        initiator_pre, responder_pre, body = _PATTERNS[self.pattern]
        self.pre = (initiator_pre.split(), responder_pre.split())
        self.messages = [message.split() for message in body.split(" / ")]
        if self.hfs:
            _apply_hfs(self.messages)
            modifiers.remove("hfs")
        self.psks = len(modifiers)
        for modifier in modifiers:
            place = modifier.removeprefix("psk")
            if (
                place == modifier
                or not place.isdecimal()
                or int(place) > len(self.messages)
                or modifiers.count(modifier) > 1
            ):
                raise ValueError(f"unknown modifier {modifier!r}")
        for index in sorted((int(m[3:]) for m in modifiers), reverse=True):
            if index == 0:
                self.messages[0].insert(0, "psk")
            else:
                self.messages[index - 1].append("psk")


def _apply_hfs(messages: list[list[str]]) -> None:
    # HFS draft §5: e1 goes behind the first e and the DH tied to it, ekem1 behind the first ee
    first = messages[0]
    place = first.index("e") + 1
    if place < len(first) and first[place] in _DH_TOKENS:
        place += 1
    first.insert(place, "e1")
    for message in messages:
        if "ee" in message:
            message.insert(message.index("ee") + 1, "ekem1")
            return
    raise ValueError("hfs needs a pattern with ee")


def no_pause() -> None:
    """For callers that have nothing else to do."""


class CipherState:
    """A key and its counter (Noise §5.1). The counter moves only when a message was sealed or opened.

    The key lives in the cipher object of the provider, which clears it when it is freed; the argument is not kept.
    """

    __slots__ = ("_aead", "_big_endian", "n")

    def __init__(self, cipher: str, key: bytes | bytearray | None = None, n: int = 0) -> None:
        self._big_endian = cipher == "AESGCM"
        self._aead: AESGCM | ChaCha20Poly1305 | None = None
        if key is not None:
            self._aead = AESGCM(key) if self._big_endian else ChaCha20Poly1305(key)
        self.n = n

    @property
    def has_key(self) -> bool:
        """True once a key was set."""
        return self._aead is not None

    def _nonce(self) -> bytes:
        if self.n >= MAX_NONCE:
            raise NoiseOrderError("all nonces of this key are used")
        return bytes(4) + self.n.to_bytes(8, "big" if self._big_endian else "little")

    def seal(self, ad: bytes, plaintext: bytes) -> bytes:
        """Encrypt; without a key the text passes as it is. NoiseOrderError when the counter is used up."""
        if self._aead is None:
            return plaintext
        out = self._aead.encrypt(self._nonce(), plaintext, ad)
        self.n += 1
        return out

    def open(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Decrypt; NoiseError when the tag does not hold, the counter then stays where it is."""
        if self._aead is None:
            return ciphertext
        nonce = self._nonce()
        try:
            out = self._aead.decrypt(nonce, ciphertext, ad)
        except InvalidTag:
            raise NoiseError("message does not open") from None
        self.n += 1
        return out

    def wipe(self) -> None:
        """Forget the key."""
        self._aead = None


class SymmetricState:
    """Chaining key, transcript hash and current cipher (Noise §5.2), for any cipher and hash.

    What sessions use, ChaCha20-Poly1305 with SHA-256, has the same methods in _core/transcript.pyx and is faster there.
    """

    def __init__(self, name: ProtocolName) -> None:
        self._name = name
        self._new_hash: Callable[[bytes], hashlib._Hash] = getattr(hashlib, name.hash)
        self.h = name.raw.ljust(name.hash_len, b"\0") if len(name.raw) <= name.hash_len else self._hash(name.raw)
        self.ck = SecureBytes(self.h)
        self.cipher = CipherState(name.cipher)
        self._kept: tuple[SecureBytes, bytes, CipherState, int] | None = None

    @property
    def has_key(self) -> bool:
        """True once a key was mixed in: from then on texts are sealed."""
        return self.cipher.has_key

    @property
    def n(self) -> int:
        """Messages sealed or opened with the present key."""
        return self.cipher.n

    def _hash(self, data: bytes) -> bytes:
        return self._new_hash(data).digest()

    def _hkdf(self, ikm: bytes | bytearray, count: int) -> list[bytes]:
        # what hmac gives is immutable, so only what is held longer than a step is copied into a buffer of ours
        digest = self._name.hash
        temp, out = hmac.digest(self.ck, ikm, digest), [b""]
        for i in range(1, count + 1):
            out.append(hmac.digest(temp, out[-1] + bytes((i,)), digest))
        return out[1:]

    def mix_hash(self, data: bytes) -> None:
        """H = HASH(h || data)."""
        self.h = self._hash(self.h + data)

    def mix_key(self, ikm: bytes | bytearray) -> None:
        """New chaining key and cipher key from `ikm`."""
        chaining_key, key = self._hkdf(ikm, 2)
        self.ck, self.cipher = SecureBytes(chaining_key), CipherState(self._name.cipher, key[:32])

    def mix_key_and_hash(self, ikm: bytes | bytearray) -> None:
        """As mix_key, and binds `ikm` into h (psk token)."""
        chaining_key, temp, key = self._hkdf(ikm, 3)
        self.mix_hash(temp)
        self.ck, self.cipher = SecureBytes(chaining_key), CipherState(self._name.cipher, key[:32])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal with h as associated data, then mix the result into h."""
        out = self.cipher.seal(self.h, plaintext)
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes | None:
        """Open with h as associated data, then mix the ciphertext into h. None: it does not open; nothing changed."""
        try:
            out = self.cipher.open(self.h, ciphertext)
        except NoiseOrderError:
            raise
        except NoiseError:
            return None
        self.mix_hash(ciphertext)
        return out

    def split(self) -> tuple[bytes, bytes]:
        """The two keys of Noise §5.2 Split, from the initiator to the responder first."""
        first, second = self._hkdf(b"", 2)
        return first[:32], second[:32]

    def keep(self) -> None:
        """Remember the present state for ``go_back``.

        Later steps replace its objects and never change them, but for the counter.
        """
        self._kept = self.ck, self.h, self.cipher, self.cipher.n

    def go_back(self) -> None:
        """Return to the state that was kept. RuntimeError: none was."""
        if self._kept is None:
            raise RuntimeError("no state was kept")
        self.ck, self.h, self.cipher, n = self._kept
        self.cipher.n = n

    def wipe(self) -> None:
        """Forget the chaining key and the cipher key."""
        self._kept = None
        self.ck.wipe()
        self.cipher.wipe()


@cache
def _compiled() -> bool:
    return has_transcript()


def symmetric_state(name: ProtocolName) -> SymmetricState | Transcript:
    """The symmetric state for a protocol: the compiled one where it fits and the crypto library has its cipher."""
    if name.cipher == "ChaChaPoly" and name.hash == "sha256" and _compiled():
        return Transcript(name.raw)
    return SymmetricState(name)


class HandshakeState:
    """One side of one handshake (Noise §5.3).

    Args:
        name: protocol name, parsed or text.
        initiator: True for the side that writes first.
        rng: gives n random bytes; asked for ephemeral keys only.
        prologue: bytes both sides must agree on.
        s: own static key, where the pattern has one.
        rs: static public key of the peer, 32 bytes, where the pattern has it as pre-message.
        psks: 32 bytes each, in the order of their tokens; copied.
        kem: the KEM for `hfs`.
        pause: called between costly tokens; the caller's thread may do something else there.
        ahead: asked for ephemeral keys first; of ML-KEM-768, so leave it out with another ``kem``.

    Raises:
        ValueError: a key that the pattern needs is missing or has the wrong size.
    """

    def __init__(
        self,
        name: ProtocolName | str,
        initiator: bool,
        rng: Rng,
        *,
        prologue: bytes = b"",
        s: X25519PrivateKey | None = None,
        rs: bytes | None = None,
        psks: Sequence[bytes | bytearray] = (),
        kem: Kem | None = None,
        pause: Callable[[], object] = no_pause,
        ahead: Ahead | None = None,
    ) -> None:
        self.name = ProtocolName(name) if isinstance(name, str) else name
        if len(psks) != self.name.psks or any(len(psk) != 32 for psk in psks):
            raise ValueError(f"the pattern takes {self.name.psks} pre-shared keys of 32 bytes")
        self.initiator = initiator
        self._rng = rng
        self._pause = pause
        self._kem: Kem = kem or MlKem768()
        self._ahead = ahead
        self._psks = [SecureBytes(psk) for psk in psks]
        self._psks_used = 0
        self._s = s
        self._s_public = s.public_key().public_bytes_raw() if s is not None else None
        self._e: X25519PrivateKey | None = None
        self._e1: object = None
        self.rs = rs
        self._re: bytes | None = None
        self._re1: bytes | None = None
        self._turn = 0
        self._before: tuple[bytes | None, bytes | None, bytes | None, int] | None = None
        self._sym = symmetric_state(self.name)
        self.payload_hash = b""
        self._sym.mix_hash(prologue)
        for side, pre in enumerate(self.name.pre):
            if pre:
                key = self._s_public if (side == 0) == initiator else rs
                if key is None or len(key) != DH_LEN:
                    raise ValueError(
                        f"pattern {self.name.pattern} needs the static key of the {('initiator', 'responder')[side]}"
                    )
                self._sym.mix_hash(key)

    @property
    def done(self) -> bool:
        """True when all messages of the pattern have passed."""
        return self._turn == len(self.name.messages)

    @property
    def handshake_hash(self) -> bytes:
        """The transcript hash h; after the last message the channel binding."""
        return self._sym.h

    def _take_turn(self, writing: bool) -> list[str]:
        if self.done:
            raise NoiseOrderError("the handshake is over")
        if (self._turn % 2 == 0) != (self.initiator == writing):
            raise NoiseOrderError("not the turn of this side")
        return self.name.messages[self._turn]

    def write_message(self, payload: Payload = b"") -> bytes:
        """Write the next message.

        Args:
            payload: the bytes, or a function that gets h as it stands before the payload and gives the bytes.

        Raises:
            NoiseOrderError: not this side's turn.
            NoiseError: a key of the peer cannot be used, or the message would exceed 65535 bytes.
        """
        tokens = self._take_turn(writing=True)
        self._before = None
        sym, out = self._sym, []
        for step in tokens:
            self._pause()
            if step == "e":
                ready = self._ahead.dh() if self._ahead is not None else None
                self._e, public = make_dh(self._rng) if ready is None else ready
                self._mix_ephemeral(public)
                out.append(public)
            elif step == "s":
                if self._s_public is None:
                    raise ValueError(f"pattern {self.name.pattern} needs a static key")
                out.append(sym.encrypt_and_hash(self._s_public))
            elif step == "e1":
                made = self._ahead.kem() if self._ahead is not None else None
                self._e1, public = self._kem.generate(self._rng) if made is None else made
                out.append(sym.encrypt_and_hash(public))
            elif step == "ekem1":
                if self._re1 is None:
                    raise NoiseOrderError("no KEM key of the peer")
                try:
                    shared, ciphertext = self._kem.encapsulate(self._re1)
                except ValueError:
                    raise NoiseError("KEM key of the peer is not valid") from None
                self._pause()
                out.append(sym.encrypt_and_hash(ciphertext))
                sym.mix_key(shared)
                shared.wipe()
            else:
                self._mix_token(step)
        self._pause()
        self.payload_hash = sym.h
        out.append(sym.encrypt_and_hash(payload if isinstance(payload, bytes) else payload(sym.h)))
        message = b"".join(out)
        if len(message) > MAX_MESSAGE:
            raise NoiseError(f"message of {len(message)} bytes is longer than {MAX_MESSAGE}")
        self._turn += 1
        return message

    def read_message(self, message: bytes) -> bytes:
        """Read the next message and return its payload.

        Raises:
            NoiseOrderError: not the peer's turn.
            NoiseError: too short, too long, does not open, or holds a key that cannot be used. The state is unchanged
                and the right message can still be read.
        """
        tokens = self._take_turn(writing=False)
        if len(message) > MAX_MESSAGE:
            raise NoiseError(f"message of {len(message)} bytes is longer than {MAX_MESSAGE}")
        saved = self.rs, self._re, self._re1, self._psks_used
        self._sym.keep()
        try:
            payload = self._read_tokens(tokens, message)
        except NoiseError:
            self.rs, self._re, self._re1, self._psks_used = saved
            self._sym.go_back()
            raise
        self._before = saved
        self._turn += 1
        return payload

    def unread(self) -> None:
        """As if the message that was read last had not come: another one may be read in its place.

        RuntimeError: the step before this one was no ``read_message``.
        """
        if self._before is None:
            raise RuntimeError("no message was read")
        self.rs, self._re, self._re1, self._psks_used = self._before
        self._before = None
        self._sym.go_back()
        self._turn -= 1

    def _read_tokens(self, tokens: list[str], message: bytes) -> bytes:
        sym, place = self._sym, 0

        def take(size: int) -> bytes:
            nonlocal place
            if len(message) - place < size:
                raise NoiseError("message is too short")
            place += size
            return message[place - size : place]

        def opened(ciphertext: bytes) -> bytes:
            plaintext = sym.decrypt_and_hash(ciphertext)
            if plaintext is None:
                raise NoiseError("message does not open")
            return plaintext

        for step in tokens:
            self._pause()
            tag = TAG_LEN if sym.has_key else 0
            if step == "e":
                self._re = take(DH_LEN)
                self._mix_ephemeral(self._re)
            elif step == "s":
                self.rs = opened(take(DH_LEN + tag))
            elif step == "e1":
                self._re1 = opened(take(KEM_PUBLIC_LEN + tag))
            elif step == "ekem1":
                ciphertext = opened(take(KEM_CIPHERTEXT_LEN + tag))
                try:
                    shared = self._kem.decapsulate(self._e1, ciphertext)
                except ValueError:
                    raise NoiseError("KEM ciphertext is not valid") from None
                self._pause()
                sym.mix_key(shared)
                shared.wipe()
            else:
                self._mix_token(step)
        self._pause()
        rest = message[place:]
        if sym.has_key and len(rest) < TAG_LEN:
            raise NoiseError("message is too short")
        self.payload_hash = sym.h
        return opened(rest)

    def _mix_ephemeral(self, public: bytes) -> None:
        self._sym.mix_hash(public)
        if self.name.psks:
            self._sym.mix_key(public)

    def _mix_token(self, step: str) -> None:
        if step == "psk":
            self._sym.mix_key_and_hash(self._psks[self._psks_used])
            self._psks_used += 1
            return
        # "es": the initiator's e with the responder's s; so our key is named by the letter of our side
        mine, theirs = (step[0], step[1]) if self.initiator else (step[1], step[0])
        private = self._e if mine == "e" else self._s
        public = self._re if theirs == "e" else self.rs
        if private is None or public is None:
            raise ValueError(f"pattern {self.name.pattern} needs a static key")
        try:
            shared = SecureBytes(private.exchange(X25519PublicKey.from_public_bytes(public)))
        except ValueError:
            raise NoiseError("Diffie-Hellman with a point of low order") from None
        self._pause()
        self._sym.mix_key(shared)
        shared.wipe()

    def finish(self) -> tuple[SecureBytes, bytes]:
        """Chaining key at the position of Split, now the caller's, and h; wipes the rest. NoiseOrderError too early."""
        if not self.done:
            raise NoiseOrderError("the handshake is not over")
        chaining_key, h = SecureBytes(self._sym.ck), self._sym.h
        self.wipe()
        return chaining_key, h

    def split(self) -> tuple[CipherState, CipherState]:
        """The two transport ciphers of plain Noise. NoiseOrderError before the end."""
        if not self.done:
            raise NoiseOrderError("the handshake is not over")
        first, second = self._sym.split()
        return CipherState(self.name.cipher, first), CipherState(self.name.cipher, second)

    def wipe(self) -> None:
        """Forget all secrets; the object is of no use afterwards."""
        wipe(*self._psks)
        self._sym.wipe()
        self._s = self._e = None
        self._e1 = None
