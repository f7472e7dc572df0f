"""Tickets as the node that dialled keeps them: in memory for its next dial, and as bytes that a program may store.

Layer: net (L3). One table for the process, on any thread: each step on it is one step under the interpreter's lock, and
a ticket that two dials want goes to one of them. The bytes are sealed under a key of the identity to which the ticket
was given: who finds them, and not the identity, has nothing. A forked child begins with an empty table, because a
ticket is good once. Spec: docs/spec/handshake.md §12.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from netchan.net.identity import Identity
from netchan.net.params import MAX_CAPS
from netchan.net.record import MAX_MEMBERSHIP, MAX_NETWORK_ID, NodeRecord, RecordError, parse_record
from netchan.net.secret import SecureBytes, derive
from netchan.net.ticket import ID_LEN, SECRET_LEN, TICKET_MAX, TICKET_MIN, ticket_id

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.net.machine import Established

LIFE_MAX_S: Final = 7 * 86_400
"""A ticket is not kept for longer, whatever its giver says (RFC 8446 section 4.6.1)."""
AT_ONCE: Final = 8
"""Tickets that one session may give at any time; beyond that one an hour is looked at."""
STORED_MAX: Final = 4_096
"""Bytes that may be given as a stored ticket."""
MARK_LEN: Final = 16
NO_PSK: Final = bytes(MARK_LEN)
_VERSION: Final = 1
_HEAD: Final = struct.Struct(f">BQI{MARK_LEN}s{SECRET_LEN}sBBBHH")
_PREFIX: Final = 1 + ID_LEN


class TicketError(Exception):
    """Bytes that are no ticket of this identity; the text says why."""


class Place(NamedTuple):
    """For which dials a ticket is kept."""

    id_pub: bytes
    network_id: bytes
    suite: int
    psk_mark: bytes
    location: str
    expected_id: bytes | None


@dataclass(frozen=True, eq=False)
class Kept:
    """One ticket with what its owner must know of it.

    Attributes:
        ticket: for the node that gave it.
        secret: what it stands for, 32 bytes.
        record: of that node.
        membership: that it showed, or None.
        caps: capabilities that were agreed.
        suite: primitives of the handshake.
        network_id: of the session.
        psk_mark: names the PSK of the session, 16 bytes.
        received_ms: when it came, in Unix milliseconds.
        life_s: how long it lives from then, in seconds.
        identity: to whom it was given.
        stored: it comes from a program, and perhaps from another process.
    """

    ticket: bytes
    secret: SecureBytes = field(repr=False)
    record: NodeRecord
    membership: bytes | None
    caps: frozenset[int]
    suite: int
    network_id: bytes
    psk_mark: bytes
    received_ms: int
    life_s: int
    identity: Identity
    stored: bool = False

    def age_ms(self, wall_s: float) -> int | None:
        """Milliseconds since it came; None: it is over, or the clock stands before that time."""
        age = int(wall_s * 1000) - self.received_ms
        return age if 0 <= age < self.life_s * 1000 else None

    def is_for(
        self, identity: Identity, network_id: bytes, suite: int, psk_mark: bytes, expected_id: bytes | None
    ) -> bool:
        """True if it may be tried in a dial of this identity."""
        return (
            self.identity.id_pub == identity.id_pub
            and (self.network_id, self.suite, self.psk_mark) == (network_id, suite, psk_mark)
            and expected_id in (None, self.record.id_pub)
        )

    def pack(self) -> bytes:
        """The bytes for a program to store; the same each time.

        Raises:
            ConfigError: the identity is closed.
        """
        member = self.membership or b""
        content = SecureBytes(
            _HEAD.pack(
                self.suite,
                self.received_ms,
                self.life_s,
                self.psk_mark,
                self.secret,
                len(self.network_id),
                len(self.caps),
                len(self.record.raw),
                len(member),
                len(self.ticket),
            )
            + self.network_id
            + b"".join(cap.to_bytes(2, "big") for cap in sorted(self.caps))
            + self.record.raw
            + member
            + self.ticket
        )
        prefix = bytes((_VERSION,)) + ticket_id(self.ticket)
        with content, self.identity.ticket_key(prefix[1:]) as key:
            # one content for each key: a ticket never changes, and its id is random
            return prefix + ChaCha20Poly1305(key).encrypt(bytes(12), content, prefix)


def unpack(data: bytes, identity: Identity) -> Kept:
    """Read what ``pack`` has made. Untrusted input.

    Raises:
        TicketError: damaged, of another identity or version.
        ConfigError: the identity is closed.
    """
    if not _PREFIX < len(data) <= STORED_MAX or data[0] != _VERSION:
        raise TicketError("it is damaged, or of another version")
    prefix = data[:_PREFIX]
    with identity.ticket_key(prefix[1:]) as key:
        try:
            content = ChaCha20Poly1305(key).decrypt(bytes(12), data[_PREFIX:], prefix)
        except InvalidTag:
            raise TicketError("it is damaged, or was given to another identity") from None
    return _parse(content, prefix[1:], identity)


def _parse(content: bytes, id16: bytes, identity: Identity) -> Kept:
    damaged = TicketError("it is damaged, or of another version")
    if len(content) < _HEAD.size:
        raise damaged
    suite, received, life, mark, secret, n_network, n_caps, n_record, n_member, n_ticket = _HEAD.unpack_from(content)
    ends = [_HEAD.size]
    for size in (n_network, 2 * n_caps, n_record, n_member, n_ticket):
        ends.append(ends[-1] + size)
    network, caps, record, member, ticket = (content[a:b] for a, b in itertools.pairwise(ends))
    good = ends[-1] == len(content) and n_network <= MAX_NETWORK_ID and n_caps <= MAX_CAPS
    good = good and n_member <= MAX_MEMBERSHIP and TICKET_MIN <= n_ticket <= TICKET_MAX and ticket_id(ticket) == id16
    if not good:
        raise damaged
    try:
        parsed = parse_record(record)
    except RecordError:
        raise damaged from None
    numbers = frozenset(int.from_bytes(caps[at : at + 2], "big") for at in range(0, len(caps), 2))
    return Kept(
        ticket,
        SecureBytes(secret),
        parsed,
        member or None,
        numbers,
        suite,
        network,
        mark,
        received,
        min(life, LIFE_MAX_S),
        identity,
        stored=True,
    )


def mark_of(psk: bytes | bytearray | None) -> bytes:
    """What tells the PSKs of tickets apart, 16 bytes."""
    if psk is None:
        return NO_PSK
    with derive(psk, b"netchan ticket psk v1", b"") as mark:
        return bytes(mark[:MARK_LEN])


# --- the table --------------------------------------------------------------------------------------------------------

_table: Final[OrderedDict[Place, Kept]] = OrderedDict()
_sessions: Final[weakref.WeakValueDictionary[bytes, Session]] = weakref.WeakValueDictionary()


def remember(place: Place, kept: Kept, most: int) -> None:
    """Keep it for the next dial of this kind, in the place of an older one; at most ``most`` in all, oldest out."""
    _table.pop(place, None)
    _table[place] = kept
    while len(_table) > most:
        _table.popitem(last=False)


def take(place: Place) -> Kept | None:
    """The ticket for a dial of this kind, which is the caller's now; None: there is none."""
    return _table.pop(place, None)


def forget(kept: Kept) -> None:
    """It is used: the table has it no more."""
    for place, other in list(_table.items()):
        if other.ticket == kept.ticket:
            _table.pop(place, None)


def leaves_behind(kept: Kept) -> bool:
    """True if the session that gave it is over on our side, and the other side may not know.

    One of this process that is over has said so, unless it was lost; of other processes nobody knows.
    """
    session = _sessions.get(ticket_id(kept.ticket))
    if session is None:
        return kept.stored
    return session.over and session.lost


class Box:
    """The tickets of one session that was dialled here: the newest counts.

    Attributes:
        newest: or None.
        told: called without arguments when another one has come; None: nobody listens.
    """

    __slots__ = ("_begun", "_count", "_make", "newest", "told")

    def __init__(self, make: Callable[[int, bytes, SecureBytes], Kept]) -> None:
        self.newest: Kept | None = None
        self.told: Callable[[], object] | None = None
        self._make = make
        self._begun = time.monotonic()
        self._count = 0

    def receive(self, session: Session) -> None:
        """Look whether a ticket has come."""
        got = session.take_ticket()
        if got is None:
            return
        life_s, ticket = got
        self._count += 1
        # the giver alone could make us work with them
        if self._count > AT_ONCE + (time.monotonic() - self._begun) / 3_600 or len(ticket) < TICKET_MIN or not life_s:
            return
        secret = session.ticket_secret(ticket_id(ticket))
        self.newest = self._make(min(life_s, LIFE_MAX_S), ticket, SecureBytes(secret))
        secret[:] = bytes(len(secret))
        _sessions[ticket_id(ticket)] = session
        if self.told is not None:
            self.told()


def watch(
    session: Session, event: Established, identity: Identity, place: Place, most: int, wall: Callable[[], float]
) -> None:
    """Keep the tickets that come in this session.

    Args:
        session: dialled here.
        event: its handshake.
        identity: ours.
        place: for which dials they are.
        most: tickets kept in all.
        wall: Unix seconds.
    """
    record, member, caps = event.claim.record, event.claim.membership, event.agreement.caps

    def make(life_s: int, ticket: bytes, secret: SecureBytes) -> Kept:
        came_ms = int(wall() * 1000)
        kept = Kept(
            ticket,
            secret,
            record,
            member,
            caps,
            place.suite,
            place.network_id,
            place.psk_mark,
            came_ms,
            life_s,
            identity,
        )
        remember(place, kept, most)
        return kept

    box = Box(make)
    me = weakref.ref(session)

    def came() -> None:
        found = me()
        if found is not None:
            box.receive(found)

    session.kept = box
    session.on_ticket = came
    came()  # before anybody listened


def _after_fork() -> None:
    _table.clear()
    _sessions.clear()


os.register_at_fork(after_in_child=_after_fork)
