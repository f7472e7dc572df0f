"""Tickets, and what is said and stored with them: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from typing import Any

from netchan.net import abbreviated, gate, kept, params, record, ticket
from netchan.net.identity import Identity
from netchan.net.noise import HandshakeState
from netchan.net.secret import SecureBytes
from tests.fuzz.inputs.first_frames import HELLO
from tests.fuzz.inputs.offers import ITEMS, NETWORK, NOW_S, OFFERS, item

_OWNER, _GIVER = Identity(SecureBytes(b"\6" * 32)), Identity(SecureBytes(b"\7" * 32))
_SECRET = bytes(range(32))
_CONTEXT = ticket.Context(_GIVER.id_pub, NETWORK, gate.SUITE_CLASSICAL)
_TICKET_CAPS = frozenset({1, 2})
_REFUSALS = frozenset(("malformed", "unknown key", "used", "full", "does not open", "age", "expired", "terms"))


def _ticket_keys() -> ticket.TicketKeys:
    return ticket.TicketKeys(lambda n: bytes(range(n)))


def _ticket(id16: bytes = b"0123456789abcdef", **context: Any) -> bytes:
    theirs = _OWNER.record(NOW_S, NETWORK)
    return _ticket_keys().issue(id16, _SECRET, theirs, _TICKET_CAPS, _CONTEXT._replace(**context), 0)[1]


def _with_keys() -> ticket.TicketKeys:
    keys = _ticket_keys()
    keys.issue(bytes(16), _SECRET, _OWNER.record(NOW_S, NETWORK), _TICKET_CAPS, _CONTEXT, 0)
    return keys


def check_ticket(data: bytes) -> None:
    """What opens is what was sealed, once, and what does not is refused in a word that is on the list."""
    keys = ticket.TicketKeys(lambda n: bytes(range(n)), strikes_max=1)
    keys.issue(bytes(16), _SECRET, _OWNER.record(NOW_S, NETWORK), _TICKET_CAPS, _CONTEXT, 0)
    try:
        got = keys.open(data, _CONTEXT, 0)
    except ticket.NoTicketError as error:
        assert str(error) in _REFUSALS  # noqa: PT017
        return
    assert data in TICKETS
    assert (bytes(got.secret), got.caps) == (_SECRET, _TICKET_CAPS)
    keys.strike(TICKETS[0], 0)
    reason = "used" if data == TICKETS[0] else "full"
    try:
        keys.strike(data, 0)
    except ticket.NoTicketError as error:
        assert str(error) == reason  # noqa: PT017
    else:
        raise AssertionError("a ticket that was used is used again")
    try:
        keys.open(data, _CONTEXT, 0)
    except ticket.NoTicketError as error:
        assert str(error) == reason == "used"  # noqa: PT017
    else:
        assert reason == "full"


def _resume_header(body: bytes) -> gate.Header:
    return HELLO._replace(kind=gate.RESUME, length=gate.HEADER_LEN + len(body) + gate.TRAILER_LEN)


def _resume_noise(body: bytes, sealed: bytes, initiator: bool) -> HandshakeState:
    return abbreviated.begin_noise(
        _resume_header(body),
        NETWORK,
        _GIVER.id_pub,
        sealed,
        _SECRET,
        bytes(32),
        initiator=initiator,
        rng=lambda n: b"\5" * n,
        pause=lambda: None,
        ahead=None,
    )


def _resume(payload: bytes | None = None, sealed: bytes | None = None) -> bytes:
    sealed = _ticket() if sealed is None else sealed
    if payload is None:
        payload = abbreviated.asking(_TICKET_OFFER, b"member", 0, True, lambda n: b"\1" * n)
    blank = abbreviated.pack_body(sealed, bytes(32 + len(payload) + 16))
    return abbreviated.pack_body(sealed, _resume_noise(blank, sealed, True).write_message(payload))


def check_resume(data: bytes) -> None:
    """The body of RESUME: only who has the secret uses a ticket up, and what it says is judged like an offer."""
    keys = _with_keys()
    used = False
    try:
        sealed, message = abbreviated.split_body(data)
        assert abbreviated.pack_body(sealed, message) == data
        content = keys.open(sealed, _CONTEXT, 0)
        items = abbreviated.read_asked(_resume_noise(data, sealed, False), message, sealed, keys, content, 0)
        used = True
        try:
            abbreviated.judge(items, content, _TICKET_OFFER, NOW_S + 40 * 86_400)
        except ticket.NoTicketError as error:
            assert str(error) == "expired"  # noqa: PT017
        else:
            raise AssertionError("an expired record is accepted")
        asked = abbreviated.judge(items, content, _TICKET_OFFER, NOW_S)
    except ticket.NoTicketError as error:
        assert str(error) in _REFUSALS  # noqa: PT017
        assert data in RESUMES or not used
        return
    assert data in RESUMES
    assert asked.agreement.caps == _TICKET_CAPS


def check_asked(data: bytes) -> None:
    """The payload of RESUME, from somebody who has the secret."""
    check_resume_payload(data)
    try:
        offer = abbreviated.read_given(data)
    except params.ParamError:
        return
    assert params.Offer.from_items(offer.items(bytes)) == offer


def check_resume_payload(data: bytes) -> None:
    """As check_asked, for the way up."""
    keys, sealed = _with_keys(), _ticket()
    body = _resume(data, sealed)
    if len(body) > gate.MAX_FRAME[gate.RESUME]:
        return
    content = keys.open(sealed, _CONTEXT, 0)
    try:
        items = abbreviated.read_asked(
            _resume_noise(body, sealed, False), abbreviated.split_body(body)[1], sealed, keys, content, 0
        )
        asked = abbreviated.judge(items, content, _TICKET_OFFER, NOW_S)
    except ticket.NoTicketError as error:
        assert str(error) in _REFUSALS - {"unknown key", "used", "full", "does not open"}  # noqa: PT017
        return
    assert asked.agreement.caps == _TICKET_CAPS
    assert asked.membership is None or len(asked.membership) <= record.MAX_MEMBERSHIP


def check_stored(data: bytes) -> None:
    """Bytes of a file: what is accepted was made by ``pack``, and comes back from it."""
    try:
        got = kept.unpack(data, _OWNER)
    except kept.TicketError:
        pass
    else:
        assert data in STORED
        assert got.pack() == data
    for content in (data, data[kept._PREFIX :]):
        try:
            parsed = kept._parse(content, data[1 : kept._PREFIX], _OWNER)
        except kept.TicketError:
            continue
        assert parsed.life_s <= kept.LIFE_MAX_S
        assert len(parsed.ticket) <= ticket.TICKET_MAX


def _stored(**changed: Any) -> kept.Kept:
    fields: dict[str, Any] = {
        "ticket": _ticket(),
        "secret": SecureBytes(_SECRET),
        "record": _GIVER.record(NOW_S, NETWORK),
        "membership": b"member",
        "caps": _TICKET_CAPS,
        "suite": 2,
        "network_id": NETWORK,
        "psk_mark": kept.NO_PSK,
        "received_ms": NOW_S * 1000,
        "life_s": 3_600,
        "identity": _OWNER,
    }
    return kept.Kept(**fields | changed)


def _content(one: kept.Kept) -> bytes:
    """What stands sealed in a stored ticket, behind as many bytes as its prefix has."""
    data = one.pack()
    prefix = data[: kept._PREFIX]
    with one.identity.ticket_key(prefix[1:]) as key:
        return prefix + kept.ChaCha20Poly1305(key).decrypt(bytes(12), data[kept._PREFIX :], prefix)


_TICKET_OFFER = params.Offer(caps=_TICKET_CAPS)
_ASKED = abbreviated.asking(_TICKET_OFFER, b"member", 0, True, lambda n: b"\1" * n)
TICKETS = [
    _ticket(),
    _ticket(b"another ticket.."),
    _ticket(network_id=b"wan"),
    _ticket(id_pub=bytes(32)),
    bytes(ticket.TICKET_MIN),
    b"",
    bytes(ticket.TICKET_MAX + 1),
    _ticket()[: ticket.TICKET_MIN],
]
RESUMES = [
    _resume(),
    _resume(abbreviated.asking(_TICKET_OFFER, None, 31_000, False, lambda n: bytes(n))),
    _resume(b""),
    _resume(sealed=TICKETS[2]),
    b"",
    b"\xff\xff" + bytes(2_000),
    b"\0\0",
]
ASKED = [
    _ASKED,
    b"",
    params.encode_items({params.SINCE: bytes(9)}),
    _ASKED + item(0x4001, b""),
    abbreviated.asking(params.Offer(), None, 0, False, lambda n: b"\1" * n),
    abbreviated.asking(_TICKET_OFFER, bytes(1_025), 0, False, lambda n: b"\1" * n),
    abbreviated.giving(_TICKET_OFFER, lambda n: b"\1" * n),
    *ITEMS,
    *OFFERS,
]
STORED = [
    _stored().pack(),
    _stored(membership=None, caps=frozenset()).pack(),
    _content(_stored()),
    _content(_stored(membership=bytes(record.MAX_MEMBERSHIP))),
    b"",
    bytes((1,)) + bytes(60),
    bytes(kept.STORED_MAX + 1),
]
