"""Tickets as the node that was dialled makes and reads them: sealed under a key of this process, good for one use.

Layer: net (L3), sans-IO: monotonic time and randomness are arguments. Used on the worker's thread only.
Flow: issue -> TICKET -> the peer keeps it -> RESUME -> open -> (its secret has opened the message) strike.
A key seals for twelve hours and opens for twelve more; with it goes the set of the ids that were used. Nothing of a
ticket is kept beside that: it holds all that is needed. A forked child and the next process begin with other keys.
Spec: docs/spec/handshake.md §12.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, ChaCha20Poly1305

from netchan.net.record import NodeRecord, parse_record
from netchan.net.secret import SecureBytes, hkdf_expand
from netchan.net.seen import SLOTS, SeenSet

ROTATE_NS: Final = 12 * 3_600 * 10**9
"""A key seals tickets for this long."""
KEEP_NS: Final = 2 * ROTATE_NS
"""And opens them until it is so old: the longest life of a ticket."""
KEYS_KEPT: Final = 2
STRIKES_MAX: Final = SLOTS // 2
"""Tickets of one key that can be used: bounds what is remembered of them (512 KiB). Then the next key begins."""
NAME_LEN: Final = 8
ID_LEN: Final = 16
SECRET_LEN: Final = 32
TICKET_MAX: Final = 1_024
"""What TICKET may carry."""
_TAG_LEN: Final = 16
_NONCE_LEN: Final = 12
_ID: Final = slice(NAME_LEN, NAME_LEN + ID_LEN)
_HEAD: Final = struct.Struct(f">{SECRET_LEN}sQB")
_LABEL: Final = b"netchan ticket v1\0"
TICKET_MIN: Final = NAME_LEN + ID_LEN + _HEAD.size + _TAG_LEN
_MS: Final = 1_000_000
Rng = Callable[[int], bytes]


class NoTicketError(Exception):
    """This ticket begins no session; a full handshake may. The text is one of a few, for counters."""


class Context(NamedTuple):
    """What a ticket is good for besides its peer: it opens nowhere else.

    Attributes:
        id_pub: the identity that gives it, 32 bytes.
        network_id: at most 64 bytes.
        suite: primitives of the handshake.
    """

    id_pub: bytes
    network_id: bytes
    suite: int


class Content(NamedTuple):
    """What stands in a ticket.

    Attributes:
        secret: what the session was resumed with, 32 bytes; the caller wipes them.
        issued_ms: monotonic milliseconds of this process.
        caps: capabilities that were agreed.
        record: of the peer, whose signature was good when it was sealed.
    """

    secret: SecureBytes
    issued_ms: int
    caps: frozenset[int]
    record: NodeRecord


class _Cipher(Protocol):
    """Seals each ticket once; the id tells the tickets of a key apart."""

    def seal(self, id16: bytes, data: bytearray, ad: bytes) -> bytes:
        """The sealed bytes, 16 longer."""

    def open(self, id16: bytes, data: bytes, ad: bytes) -> bytes:
        """What was sealed. InvalidTag."""


class SivCipher:
    """AES-256-GCM-SIV (RFC 8452): two equal nonces would tell no more than that two tickets are equal."""

    def __init__(self, key: SecureBytes) -> None:
        self._aead = AESGCMSIV(key)

    def seal(self, id16: bytes, data: bytearray, ad: bytes) -> bytes:
        """See _Cipher."""
        return self._aead.encrypt(id16[:_NONCE_LEN], data, ad)

    def open(self, id16: bytes, data: bytes, ad: bytes) -> bytes:
        """See _Cipher."""
        return self._aead.decrypt(id16[:_NONCE_LEN], data, ad)


class KeyedCipher:
    """Where the crypto library has no AES-GCM-SIV: ChaCha20-Poly1305 with a key for each ticket, made with its id."""

    def __init__(self, key: SecureBytes) -> None:
        self._key = SecureBytes(key)

    def _aead(self, id16: bytes) -> ChaCha20Poly1305:
        with hkdf_expand(self._key, b"netchan ticket key v1" + id16) as key:
            return ChaCha20Poly1305(key)

    def seal(self, id16: bytes, data: bytearray, ad: bytes) -> bytes:
        """See _Cipher."""
        return self._aead(id16).encrypt(bytes(_NONCE_LEN), data, ad)

    def open(self, id16: bytes, data: bytes, ad: bytes) -> bytes:
        """See _Cipher."""
        return self._aead(id16).decrypt(bytes(_NONCE_LEN), data, ad)


def best_cipher(key: SecureBytes) -> _Cipher:
    """AES-256-GCM-SIV if the crypto library has it, else a key for each ticket."""
    try:
        return SivCipher(key)
    except UnsupportedAlgorithm:
        return KeyedCipher(key)


class _Key:
    """One key, and which of its tickets were used."""

    __slots__ = ("born_ns", "cipher", "name", "strikes")

    def __init__(self, rng: Rng, now_ns: int, cipher: Callable[[SecureBytes], _Cipher]) -> None:
        self.name = rng(NAME_LEN)
        with SecureBytes(rng(32)) as key:
            self.cipher = cipher(key)
        self.born_ns = now_ns
        self.strikes = SeenSet()


def ticket_id(ticket: bytes) -> bytes:
    """The id of a ticket of ``TICKET_MIN`` bytes or more, from which both sides make its secret."""
    return ticket[_ID]


class TicketKeys:
    """The keys of this process; see the module head.

    Args:
        rng: n random bytes from a cryptographic source.
        cipher: how a key seals.
        strikes_max: tickets of one key that can be used.
    """

    def __init__(
        self, rng: Rng, cipher: Callable[[SecureBytes], _Cipher] = best_cipher, strikes_max: int = STRIKES_MAX
    ) -> None:
        self._rng, self._cipher, self._strikes_max = rng, cipher, strikes_max
        self._keys: list[_Key] = []

    def _turn(self, now_ns: int) -> None:
        self._keys = [key for key in self._keys if now_ns - key.born_ns < KEEP_NS]

    def _begin_key(self, now_ns: int) -> _Key:
        key = _Key(self._rng, now_ns, self._cipher)
        self._keys = [key, *self._keys[: KEYS_KEPT - 1]]
        return key

    def issue(
        self,
        id16: bytes,
        secret: bytes | bytearray,
        record: NodeRecord,
        caps: frozenset[int],
        context: Context,
        now_ns: int,
    ) -> tuple[int, bytes]:
        """Make a ticket.

        Args:
            id16: 16 fresh random bytes.
            secret: what it stands for, 32 bytes.
            record: of the peer; its signature was checked.
            caps: what was agreed.
            context: what the ticket is good for.
            now_ns: monotonic nanoseconds.

        Returns:
            (seconds that it lives, ticket), from 12 to 24 hours and 120 to 480 bytes.
        """
        self._turn(now_ns)
        key = self._keys[0] if self._keys else None
        if key is None or now_ns - key.born_ns >= ROTATE_NS:
            key = self._begin_key(now_ns)
        listed = b"".join(cap.to_bytes(2, "big") for cap in sorted(caps))
        with SecureBytes(_HEAD.pack(secret, now_ns // _MS, len(caps)) + listed + record.raw) as content:
            sealed = key.cipher.seal(id16, content, _bound(key.name, id16, context))
        return (key.born_ns + KEEP_NS - now_ns) // 10**9, key.name + id16 + sealed

    def open(self, ticket: bytes, context: Context, now_ns: int) -> Content:
        """Read a ticket that somebody sent. Untrusted input.

        Raises:
            NoTicketError: not one of ours, changed, used already, or for something else.
        """
        if not TICKET_MIN <= len(ticket) <= TICKET_MAX:
            raise NoTicketError("malformed")
        key, id16 = self._key_of(ticket, now_ns), ticket[_ID]
        if id16 in key.strikes:
            raise NoTicketError("used")
        try:
            data = key.cipher.open(id16, ticket[_ID.stop :], _bound(key.name, id16, context))
        except InvalidTag:
            raise NoTicketError("does not open") from None
        secret, issued_ms, n_caps = _HEAD.unpack_from(data)
        end = _HEAD.size + 2 * n_caps
        caps = frozenset(int.from_bytes(data[at : at + 2], "big") for at in range(_HEAD.size, end, 2))
        return Content(SecureBytes(secret), issued_ms, caps, parse_record(data[end:]))

    def strike(self, ticket: bytes, now_ns: int) -> None:
        """Its owner has used a ticket that was opened: not again.

        Raises:
            NoTicketError: it was used meanwhile, or so many of its key were that no further one can be remembered.
        """
        key, id16 = self._key_of(ticket, now_ns), ticket[_ID]
        if id16 in key.strikes:
            raise NoTicketError("used")
        if len(key.strikes) >= self._strikes_max or not key.strikes.add(id16):
            if key is self._keys[0]:
                self._begin_key(now_ns)
            raise NoTicketError("full")

    def _key_of(self, ticket: bytes, now_ns: int) -> _Key:
        self._turn(now_ns)
        for key in self._keys:
            if key.name == ticket[:NAME_LEN]:
                return key
        raise NoTicketError("unknown key")


def _bound(name: bytes, id16: bytes, context: Context) -> bytes:
    """What a ticket is sealed together with, and is not sent."""
    network = context.network_id
    return _LABEL + name + id16 + context.id_pub + bytes((context.suite, len(network))) + network


_keys: list[TicketKeys] = []


def ticket_keys() -> TicketKeys:
    """Those of this process; made on first use."""
    if not _keys:
        _keys.append(TicketKeys(os.urandom))
    return _keys[0]


os.register_at_fork(after_in_child=_keys.clear)
