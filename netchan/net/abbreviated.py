"""The abbreviated handshake: what RESUME and RESUMED hold, and whether a ticket still begins a session.

Layer: net (L3), sans-IO: clocks and randomness are arguments. handshake.py has the two machines that use it.
Flow: the dialler asks its policy, then RESUME -> the responder opens the ticket, then the message under its secret,
and looks at everything else afresh (``judge``), then its policy -> RESUMED -> both have the session's root.
What a ticket vouches for is the identity, nothing more: what is not as it was when it was given ends in NoTicketError,
and a full handshake follows on the same connection.
Spec: docs/spec/handshake.md §12.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from netchan.net import gate as g
from netchan.net import params as p
from netchan.net.noise import Ahead, HandshakeState, NoiseError, ProtocolName
from netchan.net.record import MAX_MEMBERSHIP, NodeRecord, RecordError
from netchan.net.secret import SecureBytes, derive
from netchan.net.ticket import TICKET_MAX, Content, NoTicketError, TicketKeys

NAME: Final = ProtocolName("Noise_NNpsk0_25519_ChaChaPoly_SHA256")
LABEL: Final = b"NN-ticket"
AGE_DIFF_MS: Final = 30_000
"""Most by which both sides' ideas of a ticket's age may differ: a RESUME that was held back longer begins nothing."""
REPLACES: Final = 1
"""Flag of SINCE: the session that gave the ticket is over at the dialler."""
_SINCE: Final = struct.Struct(">QB")
_LENGTH: Final = struct.Struct(">H")
_ASKED: Final = frozenset({p.MEMBERSHIP, p.VERSIONS, p.CIPHERS, p.CAPS, p.REQUIRED, p.PARAMS, p.PADDING, p.SINCE})
_GIVEN: Final = frozenset({p.VERSIONS, p.CIPHERS, p.CAPS, p.REQUIRED, p.PARAMS, p.PADDING})
Rng = Callable[[int], bytes]


@dataclass(frozen=True)
class Asked:
    """What a good RESUME says, before the policy was asked.

    Attributes:
        record: of the dialler, as it proved it to get the ticket.
        membership: that it shows now, or None.
        offer: what it says of itself now.
        agreement: what comes of it.
        replaces: the session that gave the ticket is over there.
    """

    record: NodeRecord
    membership: bytes | None
    offer: p.Offer
    agreement: p.Agreement
    replaces: bool


def pack_body(ticket: bytes, message: bytes) -> bytes:
    """The body of RESUME."""
    return _LENGTH.pack(len(ticket)) + ticket + message


def split_body(body: bytes) -> tuple[bytes, bytes]:
    """(ticket, Noise message) of the body of RESUME. Untrusted input. NoTicketError: malformed."""
    if len(body) < _LENGTH.size:
        raise NoTicketError("malformed")
    end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    if end > min(len(body), _LENGTH.size + TICKET_MAX):
        raise NoTicketError("malformed")
    return body[_LENGTH.size : end], body[end:]


def begin_noise(
    header: g.Header,
    network_id: bytes,
    responder_id: bytes,
    ticket: bytes,
    secret: bytes | bytearray,
    psk0: bytes | bytearray,
    *,
    initiator: bool,
    rng: Rng,
    pause: Callable[[], object],
    ahead: Ahead | None,
) -> HandshakeState:
    """One side of the Noise handshake under the secret of a ticket and the PSK."""
    parts = (network_id, LABEL, responder_id)
    prologue = b"netchan/handshake/v1\0" + header.pack() + b"".join(bytes((len(part),)) + part for part in parts)
    with SecureBytes(bytes(secret) + psk0) as both, derive(both, b"netchan resume v1", b"") as psk:
        return HandshakeState(
            NAME,
            initiator,
            rng,
            prologue=prologue + _LENGTH.pack(len(ticket)) + ticket,
            psks=[psk],
            pause=pause,
            ahead=ahead,
        )


def asking(offer: p.Offer, membership: bytes | None, age_ms: int, replaces: bool, rng: Rng) -> bytes:
    """The payload of RESUME."""
    items = offer.items(rng)
    if membership is not None:
        items[p.MEMBERSHIP] = membership
    items[p.SINCE] = _SINCE.pack(age_ms, REPLACES if replaces else 0)
    p.grease(items, rng)
    return p.encode_items(items)


def giving(offer: p.Offer, rng: Rng) -> bytes:
    """The payload of RESUMED."""
    items = offer.items(rng)
    p.grease(items, rng)
    return p.encode_items(items)


def read_given(payload: bytes) -> p.Offer:
    """The responder's offer in RESUMED. ParamError: malformed."""
    return p.Offer.from_items(_items(payload, _GIVEN))


def _items(payload: bytes, allowed: frozenset[int]) -> dict[int, bytes]:
    items = p.decode_items(payload, p.KNOWN_ITEMS)
    if not items.keys() <= allowed:
        raise p.ParamError("an item stands where it must not")
    return items


def read_asked(
    noise: HandshakeState, message: bytes, ticket: bytes, keys: TicketKeys, content: Content, now_ns: int
) -> dict[int, bytes]:
    """The items of RESUME, whose sender has the secret of the ticket, which is used up by that.

    Raises:
        NoTicketError: the sender has not, the ticket was used meanwhile, or the items are malformed.
    """
    try:
        payload = noise.read_message(message)
    except NoiseError:
        raise NoTicketError("does not open") from None
    keys.strike(ticket, now_ns)
    try:
        items = _items(payload, _ASKED)
        age_ms, flags = _SINCE.unpack(items[p.SINCE])
    except (p.ParamError, KeyError, struct.error):
        raise NoTicketError("malformed") from None
    if abs(now_ns // 1_000_000 - content.issued_ms - age_ms) > AGE_DIFF_MS or flags > REPLACES:
        raise NoTicketError("age")
    return items


def judge(items: dict[int, bytes], content: Content, ours: p.Offer, wall_s: float) -> Asked:
    """Look at all but the policy as if there had been no ticket.

    Args:
        items: of ``read_asked``.
        content: of the ticket.
        ours: what we say of ourselves now.
        wall_s: Unix seconds.

    Raises:
        NoTicketError: the record has expired, or versions, ciphers or capabilities are not as they were.
    """
    try:
        content.record.check_time(wall_s)
    except RecordError:
        raise NoTicketError("expired") from None
    try:
        offer = p.Offer.from_items(items)
        agreement = p.negotiate(offer, ours)
    except (p.ParamError, p.VersionError, p.CapabilityError):
        raise NoTicketError("terms") from None
    member = items.get(p.MEMBERSHIP)
    if agreement.caps != content.caps or (member is not None and len(member) > MAX_MEMBERSHIP):
        raise NoTicketError("terms")
    _, flags = _SINCE.unpack(items[p.SINCE])
    return Asked(content.record, member, offer, agreement, flags == REPLACES)
