"""The parsers of outside bytes that are written in Python: their inputs, a mutator, and what must hold for any bytes.

``PARSERS`` is for test_parsers.py, which mutates the inputs, and for lines.py, which counts the lines they reach.
A check of a parser raises nothing for any bytes at all, or AssertionError: what a parser may raise is named in it, and
what it accepts is written again and compared.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from netchan.channel import moving, msgpack
from netchan.channel.codec import Codec, codec_by_id, codec_for
from netchan.channel.fronts import Channel
from netchan.channel.handle import Handle
from netchan.channel.local import LocalEndpoint
from netchan.channel.making import pipe_endpoints
from netchan.channel.receiver import Receiver
from netchan.channel.sender import Sender
from netchan.errors import CodecError, ConfigError
from netchan.markers import CarriesEnds
from netchan.net import abbreviated, address, affected, gate, kept, moved, netlink, params, record, resets, ticket
from netchan.net.identity import Identity, format_node_id
from netchan.net.noise import HandshakeState
from netchan.net.secret import SecureBytes
from tests.fuzz import handover_packets
from tests.unit.net import recorded

if TYPE_CHECKING:
    from netchan.channel.remote import RemoteEndpoint

NOW_S = 1_800_000_000
NETWORK = b"lan"
Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        name: for messages.
        check: see the module head.
        inputs: whole inputs, good and bad, from which mutations start.
        reads: the functions that read the bytes: file below netchan, names inside it.
    """

    name: str
    check: Check
    inputs: list[bytes]
    reads: dict[str, tuple[str, ...]] = field(default_factory=dict)


# --- item lists, parameters, offers -----------------------------------------------------------------------------------


class _Everything(frozenset[int]):
    def __contains__(self, kind: object) -> bool:
        return True


def check_items(data: bytes) -> None:
    """A list that is accepted has one spelling."""
    try:
        items = params.decode_items(data, _Everything())
    except params.ParamError:
        pass
    else:
        assert params.encode_items(items) == data
    try:
        known = params.decode_items(data, params.KNOWN_ITEMS)
    except params.ParamError:
        return
    assert set(known) <= params.KNOWN_ITEMS
    assert len(params.encode_items(known)) <= len(data)


def check_params(data: bytes) -> None:
    """What is accepted is in range, and comes back from its own encoding."""
    try:
        got = params.TransportParams.decode(data)
    except params.ParamError:
        return
    assert params.TransportParams.decode(got.encode()) == got


def check_offer(data: bytes) -> None:
    """As check_params, for a whole payload."""
    try:
        got = params.Offer.from_items(params.decode_items(data, params.KNOWN_ITEMS))
    except params.ParamError:
        return
    assert params.Offer.from_items(got.items(bytes)) == got
    assert 1 <= len(got.versions) <= params.MAX_VERSIONS
    assert 1 <= len(got.ciphers) <= params.MAX_CIPHERS
    assert len(got.caps) <= params.MAX_CAPS
    for other in (got, params.Offer()):
        try:
            agreed = params.negotiate(got, other)
        except (params.VersionError, params.CapabilityError):
            continue
        assert agreed.cipher in got.ciphers
        assert agreed.cipher in other.ciphers


def _items(**changed: bytes) -> bytes:
    """The items of an offer, some of them replaced by name; b"-" leaves one out."""
    items = params.Offer(caps=frozenset({1, 2}), required=frozenset({2})).items(lambda n: b"\1" * n)
    for name, value in changed.items():
        kind = getattr(params, name)
        items.pop(kind)
        if value != b"-":
            items[kind] = value
    return params.encode_items(items)


def _item(kind: int, value: bytes) -> bytes:
    return params.encode_varint(kind) + params.encode_varint(len(value)) + value


ITEMS = [
    b"",
    _items(),
    _item(2, b"a") + _item(0x4000, b"grease") + _item(1 << 40, b""),
    _item(2, b"a") + _item(2, b"b"),
    _item(3, b"critical"),
    b"".join(_item(2 * n, b"") for n in range(params.MAX_ITEMS + 1)),
    b"\x02\x05abc",
    b"\x02\x40\x01a",
    b"\x40",
    b"\x02",
    bytes(params.MAX_PAYLOAD + 1),
]
_FULL = params.TransportParams(1_300, 2_048, 9, 4_096, 3, 5, 7, 11, 70_000, 13, 15, 2, 1, 1, 1, b"i" * 16, 1)
PARAMS = [
    b"",
    _FULL.encode(),
    params.TransportParams().encode(lambda n: bytes(n)),
    _item(0x02, params.encode_varint(5)),
    _item(0x02, params.encode_varint(1_300) + b"x"),
    _item(0x24, b"short"),
    _item(0x25, b""),
]
OFFERS = [
    _items(),
    _items(VERSIONS=b"\1\2\3"),
    _items(VERSIONS=b""),
    _items(VERSIONS=bytes(range(params.MAX_VERSIONS + 1))),
    _items(VERSIONS=b"\2\1"),
    _items(CIPHERS=b"\2\1"),
    _items(CIPHERS=b"\3"),
    _items(CIPHERS=b""),
    _items(CIPHERS=b"\1\1"),
    _items(CAPS=b"-"),
    _items(CAPS=b"\0"),
    _items(CAPS=b"\0\2\0\1"),
    _items(REQUIRED=b"\0\7"),
    _items(REQUIRED=b"-"),
    _items(PARAMS=_item(0x02, b"\1")),
]


# --- the frame before the session, and its gate -----------------------------------------------------------------------

_PSK = b"a shared secret of thirty-two or more bytes"
_NODE = bytes(range(32))
_HELLO = gate.Header(
    gate.HELLO, gate.VERSION, 0, gate.MODE_XX_NAMED << 4 | gate.SUITE_CLASSICAL, 0, b"scid" * 2, NOW_S * 1000
)
_GIVEN = bytes(range(16))


def _keys(psk: bool) -> gate.GateKeys:
    return gate.psk_keys(_PSK, NETWORK) if psk else gate.named_keys(_NODE, NETWORK)


def _hello(psk: bool = False, cookie: bytes | None = None, **changed: Any) -> bytes:
    return gate.seal_frame(_HELLO._replace(**changed), b"noise", _keys(psk).to_responder, cookie)


def _gate(kind: int) -> gate.Gate:
    suite = gate.SUITE_CLASSICAL
    if kind == 0:
        return gate.Gate(NETWORK, _NODE, suite)
    if kind == 1:
        return gate.Gate(NETWORK, _NODE, suite, psks=[_PSK, b"x" * 32])
    return gate.Gate(NETWORK, _NODE, suite, stealth=True, floor_s=NOW_S - 20)


def check_header(data: bytes) -> None:
    """A header that is accepted has one spelling."""
    try:
        got = gate.parse_header(data)
    except gate.FrameError:
        return
    assert got.pack() == data[: gate.HEADER_LEN]
    assert gate.MIN_FRAME <= got.length <= max(gate.MAX_FRAME.values())


def check_reply(data: bytes) -> None:
    """No byte of a later message can be changed."""
    try:
        gate.open_frame(data, _keys(False).to_initiator, _HELLO)
    except gate.FrameError:
        return
    assert data in REPLIES[:2]
    assert gate.frame_body(data) == b"reply"


def check_hello(data: bytes) -> None:
    """Nobody gets a byte back who has no key: what is answered is a frame that was sealed, but for its mac2."""
    sealed = {frame[: -gate.MAC_LEN] for frame in HELLOS}
    for kind in range(3):
        for where in (None, b"192.0.2.1:5"):
            one = _gate(kind)
            one.check(FIRST, NOW_S, 10**9, lambda n: bytes(n), address=where, busy=True)
            for seconds, busy in ((1, True), (131, True), (131, False), (400, True), (600, False)):
                now_ns = seconds * 10**9
                got = one.check(data, NOW_S, now_ns, lambda n: bytes(n), address=where, busy=busy)
                assert got.verdict is gate.Verdict.SILENCE or data[: -gate.MAC_LEN] in sealed
            one.wipe()
            assert one.check(data, NOW_S, 0, bytes).verdict is gate.Verdict.SILENCE


def _cookie_for(frame: bytes) -> bytes:
    """A HELLO with the cookie that a busy gate of kind 0 gives for ``frame``."""
    given = _gate(0).check(frame, NOW_S, 10**9, lambda n: bytes(n), address=b"192.0.2.1:5", busy=True)
    return _hello(cookie=given.cookie)


REPLIES = [
    gate.seal_frame(_HELLO._replace(kind=gate.REPLY), b"reply", _keys(False).to_initiator),
    gate.seal_frame(_HELLO._replace(kind=gate.ACCEPT), b"reply", _keys(False).to_initiator),
    gate.seal_frame(_HELLO._replace(kind=gate.REPLY, ts=5), b"reply", _keys(False).to_initiator),
    gate.seal_frame(_HELLO._replace(kind=gate.REPLY), b"reply", _keys(True).to_initiator),
]
FIRST = _hello(ts=NOW_S * 1000 + 1)
HELLOS = [
    _hello(),
    _hello(psk=True),
    _hello(cookie=_GIVEN),
    _cookie_for(_hello()),
    _hello(psk=True, ts=1),
    _hello(psk=True, ts=(NOW_S - 25) * 1000),
    _hello(ts=(NOW_S - 25) * 1000),
    _hello(version=2),
    _hello(suite=gate.MODE_XX_NAMED << 4 | gate.SUITE_HYBRID),
    _hello(suite=3 << 4 | gate.SUITE_CLASSICAL),
    gate.seal_frame(_HELLO._replace(suite=gate.SUITE_CLASSICAL), b"noise", gate.open_keys(NETWORK).to_responder),
    _hello(kind=gate.REPLY),
    _hello()[:-1],
]
HEADERS = [
    *HELLOS[:2],
    b"",
    _HELLO._replace(kind=99).pack(),
    _HELLO._replace(length=3).pack(),
    _HELLO._replace(length=100, frag=1).pack(),
    _HELLO._replace(length=100, ts=gate.MAX_TS).pack(),
]


# --- tickets ----------------------------------------------------------------------------------------------------------

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
    return _HELLO._replace(kind=gate.RESUME, length=gate.HEADER_LEN + len(body) + gate.TRAILER_LEN)


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
    _ASKED + _item(0x4001, b""),
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


# --- node records and memberships -------------------------------------------------------------------------------------

_SIGNER = Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
_SIGNER_PUB = _SIGNER.public_key().public_bytes_raw()


def _record(network_id: bytes = NETWORK, wall_s: float = NOW_S, **changed: Any) -> bytes:
    fields = {"id_pub": _SIGNER_PUB, "static_pub": _NODE, "seq": 3, "caps": 3} | changed
    return record.build_record(_SIGNER.sign, wall_s=wall_s, network_id=network_id, **fields).raw


def _member(groups: tuple[str, ...] = ("a", "bb"), not_after: int = NOW_S + 5, id_pub: bytes = _NODE) -> bytes:
    return record.build_membership(
        _SIGNER.sign, ca_pub=_SIGNER_PUB, id_pub=id_pub, not_before=NOW_S - 5, not_after=not_after, groups=groups
    ).raw


def check_record(data: bytes) -> None:
    """A record that parses has one spelling; one that is good was signed."""
    try:
        got = record.parse_record(data)
    except record.RecordError:
        pass
    else:
        again = record._HEAD.pack(
            record.RECORD_VERSION,
            got.id_pub,
            got.static_pub,
            got.seq,
            got.not_before,
            got.not_after,
            got.caps,
            len(got.network_id),
        )
        assert again + got.network_id + data[-record._SIG_LEN :] == data == got.raw
    cache = record.RecordCache(1)
    for network in (NETWORK, NETWORK, b"wan"):
        try:
            cache.verify(RECORDS[0], NETWORK, NOW_S)
            cache.verify(data, network, NOW_S)
            cache.verify(data, network, NOW_S)
        except record.RecordError:
            continue
        assert data in RECORDS
        assert network == NETWORK
    assert len(cache) <= 1


def check_member(data: bytes) -> None:
    """As check_record, for a membership."""
    try:
        got = record.parse_membership(data)
    except record.RecordError:
        pass
    else:
        names = [group.encode() for group in got.groups]
        again = record._MEMBER.pack(1, got.ca_pub, got.id_pub, got.not_before, got.not_after, len(names))
        again += b"".join(bytes((len(name),)) + name for name in names)
        assert again + data[-record._SIG_LEN :] == data == got.raw
    try:
        record.verify_membership(data, _SIGNER_PUB, _NODE, NOW_S)
    except record.RecordError:
        return
    assert data in MEMBERS


def _put(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes((value,)) + data[place + 1 :]


RECORDS = [
    _record(),
    _record(network_id=b""),
    _record(network_id=b"n" * record.MAX_NETWORK_ID),
    _record(wall_s=NOW_S - 40 * 86_400),
    _put(_record(), 0, 9),
    _put(_record(), record._HEAD.size - 1, 200),
    _put(_record(), record._HEAD.size - 10, 200),
    _put(_record(), len(_record()) - 1, 0),
    _record()[:-3],
    bytes(300),
]
_AT = record._MEMBER.size
MEMBERS = [
    _member(),
    _member(()),
    _member(tuple(f"group-{n}" for n in range(record.MAX_GROUPS))),
    _member(not_after=NOW_S - 1),
    _member(id_pub=bytes(32)),
    _put(_member(), 0, 2),
    _put(_member(), _AT - 1, 3),
    _put(_member(), _AT - 1, 1),
    _put(_member(), _AT - 1, 200),
    _put(_member(), _AT, 0),
    _put(_member(), _AT + 1, 0xFF),
    _put(_member(("a",)), _AT + 1, 0xFF),
    _put(_member(), _AT + 1, 0x7A),
    _put(_member(), len(_member()) - 1, 0),
    _put(_member(), _AT + 2, 40),
    bytes(30),
]


# --- addresses --------------------------------------------------------------------------------------------------------


def check_address(data: bytes) -> None:
    """What is accepted comes back from its own spelling, and says so of what it was made from."""
    text = data.decode("utf-8", "surrogateescape")
    for listening in (False, True):
        try:
            got = address.parse_address(text, listening=listening)
        except ConfigError:
            continue
        assert address.parse_address(str(got), listening=listening) == got
        assert got.with_id(None).node_id is None
        assert address.parse_address(got.location, listening=listening) == got.with_id(None)
        assert got.is_numeric or got.carrier == "tcp"
    parts: Any = {b"\0": None, b"\1": data, b"\2": [data]}.get(data[:1], text.split("\n"))
    try:
        several = address.parse_addresses(text if len(parts or ()) == 1 and data[:1] > b"\2" else parts)
    except ConfigError:
        return
    assert 1 <= len(several) <= address.MAX_ADDRESSES
    assert len(set(several)) == len(several)


_ID, _ID2 = (format_node_id(bytes((n,)) * 32) for n in (1, 2))
ADDRESSES = [
    text.encode()
    for text in (
        "tcp://127.0.0.1:7000",
        f"tcp://{_ID}@[::1]:0",
        "tcp://[fe80::1%eth0]:65535",
        f"unix://{_ID}@/run/a@b.sock",
        "unix:///run/name.sock",
        "unix://name.sock",
        "unix:///run/",
        "unix:///run/a\x07",
        "unix:///" + "a" * 120,
        "tcp://a-b_c.example.:1",
        "tcp://-a.example:1",
        "tcp://" + "a" * 300 + ":1",
        "tcp://1.2.3.999:1",
        "tcp://bücher:1",
        "tcp://::1:80",
        "tcp://[127.0.0.1]:80",
        "tcp://:80",
        "tcp://a:",
        "tcp://a:99999",
        "tcp://a:0",
        "tcp://no@a:1",
        "http://a:1",
        "a:1",
        "",
        f"tcp://{_ID}@a:1\ntcp://{_ID}@b:1\ntcp://{_ID}@a:1",
        f"tcp://{_ID}@a:1\ntcp://{_ID2}@b:1",
        "\n".join(f"tcp://a:{n}" for n in range(1, 40)),
        "\0",
        "\1",
        "\2",
    )
]


# --- values -----------------------------------------------------------------------------------------------------------

REFERENCE_HEAD = b"\xc7\x2a\x01"
"""An extension of 42 bytes, type 1."""


def check_value(data: bytes) -> None:
    """A value that is accepted can be sent, and is the same then; one with references is refused as such."""
    try:
        value = msgpack.decode_any(data)
    except CarriesEnds:
        assert REFERENCE_HEAD in data
        return
    except CodecError as error:
        assert "untyped domain" in str(error)  # noqa: PT017
        return
    again = msgpack.encode_any(value)
    assert repr(msgpack.decode_any(again)) == repr(value)


VALUES = [
    msgpack.encode_any(value)
    for value in (
        None,
        [True, False, -1, 127, -33, 255, 65_535, 1 << 31, (1 << 64) - 1, -(1 << 63), 1.5],
        {"a": {"b": [b"x" * 300, "y" * 40]}, 7: 0, b"k": []},
        "z" * 70_000,
        [[[[[[[[[[1]]]]]]]]]],
    )
] + [
    b"",
    b"\xc1",
    b"\xa1\xff",
    b"\x91",
    b"\x80\x80",
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 40 + b"\x01",
    b"\xd6\xff\0\0\0\0",
    b"\xca\x7f\xc0\0\0",
    b"\x82\x01\x02\x01\x03",
    b"\x92" + (REFERENCE_HEAD + bytes(42)) * 2,
    b"\x81" + REFERENCE_HEAD + bytes(42) + b"\x01",
    REFERENCE_HEAD + bytes(41),
]


# --- references to channel ends in values -----------------------------------------------------------------------------


class _Parent:
    """What adopt asks of the channel that a value came by; the ends that it opens are channels in process."""

    def __init__(self) -> None:
        self.opened: list[tuple[bytes, Any, Any]] = []
        self.ends: list[LocalEndpoint] = []

    def sibling(self, token: bytes, form: Any, codec: Codec, capacity: int | None) -> LocalEndpoint:
        end, _ = pipe_endpoints(form, 1)
        self.opened.append((token, form, codec))
        self.ends.append(end)
        return end

    def front(self) -> tuple[type[Handle], ...]:
        return (Sender, Receiver, Channel)


class Order(msgspec.Struct):
    """A value whose fields say what ends they are."""

    number: int
    reply: Sender[int]
    feed: Receiver[Any] | None = None
    shared: Channel[str] | None = None


_ORDER = codec_for(Order)


def _handles(value: Any) -> list[Handle]:
    """The handles in a value, in their order."""
    if isinstance(value, Handle):
        return [value]
    if isinstance(value, dict):
        return [found for inner in value.values() for found in _handles(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in _handles(inner)]
    if isinstance(value, Order):
        return _handles([value.reply, value.feed, value.shared])
    return []


def _references(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(kind, token, codec) at every place that looks like a reference."""
    at = data.find(REFERENCE_HEAD)
    while at >= 0:
        body = data[at + 3 : at + 45]
        if len(body) == 42 and body[1] == 0:
            yield body[0], body[2:18], int.from_bytes(body[34:])
        at = data.find(REFERENCE_HEAD, at + 1)


def _means(number: int, codec: Codec) -> bool:
    found = codec_by_id(number)
    return found is not None and found.id == codec.id


def _check_ends(data: bytes, decode: Callable[[bytes, Callable[[bytes], Handle]], Any]) -> None:
    parent = _Parent()
    adopt: Any = partial(moving.adopt, cast("RemoteEndpoint", parent))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # handles in a value that is refused are dropped
            handles = _handles(decode(data, adopt))
    except CodecError:
        handles = []
    assert len(parent.opened) <= msgpack.ENDS_MAX
    said = list(_references(data))
    for token, form, codec in parent.opened:
        assert any(one[1] == token and _means(one[2], codec) for one in said)
        assert form is Any or codec_for(form) is codec
    for handle in handles:
        end = cast("LocalEndpoint", handle._ep)
        kind = 1 + (Sender, Receiver, Channel).index(cast("Any", type(handle)))
        token, _, codec = parent.opened[parent.ends.index(end)]
        assert any(one[:2] == (kind, token) and _means(one[2], codec) for one in said)
        assert end.send_over == (kind == moving.RECEIVER)
    for end in parent.ends:
        end.abort(0, "")


def check_reference(data: bytes) -> None:
    """As many ends are opened as a value may carry, no more; each under a token that it holds, as it says."""
    _check_ends(data, msgpack.decode_any)


def check_typed(data: bytes) -> None:
    """As check_reference, for a value with a type."""
    try:
        _ORDER.decode(data)
    except (CodecError, CarriesEnds):
        pass
    assert _ORDER.decode_with is not None
    _check_ends(data, _ORDER.decode_with)


def _reference(kind: int = moving.SENDER, codec: int = 4, number: int = 0, zero: int = 0) -> bytes:
    return REFERENCE_HEAD + moving._LAYOUT.pack(kind, zero, b"token" + bytes(10) + bytes((number,)), bytes(16), codec)


def _order(**fields: bytes) -> bytes:
    packed = b"".join(msgpack.encode_any(name) + value for name, value in fields.items())
    return bytes((0x80 | len(fields),)) + packed


_SEVERAL = [_reference(1 + n % 3, 1 + n % 7, n) for n in range(msgpack.ENDS_MAX + 1)]
REFERENCES = [
    _reference(),
    b"\xdc\0\x10" + b"".join(_SEVERAL[:16]),
    b"\xdc\0\x11" + b"".join(_SEVERAL),
    b"\x82\xa1a" + _SEVERAL[1] + b"\xa1b\x91" + _SEVERAL[2],
    b"\x82\xa1a" + _SEVERAL[1] + b"\xa1a" + _SEVERAL[2],
    b"\x92" + _SEVERAL[3] + _reference(0),
    b"\x92" + _SEVERAL[3] + b"\xa1\xff",
    _reference(4),
    _reference(zero=1),
    _reference(codec=0),
    _reference(codec=8),
    _reference(codec=(1 << 64) - 1),
    b"\x81" + _reference() + b"\x01",
    REFERENCE_HEAD + bytes(41),
]
TYPED = [
    _order(number=b"\x07", reply=_SEVERAL[0]),
    _order(number=b"\x07", reply=_SEVERAL[0], feed=_SEVERAL[1], shared=_SEVERAL[2]),
    _order(number=b"\x07", reply=_SEVERAL[1]),
    _order(number=b"\x07", reply=_SEVERAL[0], feed=_SEVERAL[2]),
    _order(number=_SEVERAL[0], reply=_SEVERAL[3]),
    _order(reply=_SEVERAL[0]),
    _order(number=b"\x07", reply=b"\xc0"),
    _order(number=b"\x07", reply=_SEVERAL[0], other=_SEVERAL[3]),
    _order(number=b"\x07", reply=_SEVERAL[0])[:-1],
]


# --- what the kernel says of the network ------------------------------------------------------------------------------


def check_netlink(data: bytes) -> None:
    """What is accepted is in range, and a picture of the machine takes it."""
    try:
        found = netlink.parse(data)
    except netlink.NetlinkError:
        found = []
    assert len(found) <= netlink.MESSAGES_MAX
    picture = affected.Picture()
    for message in found:
        if isinstance(message, netlink.Done):
            assert message.code <= 0
            continue
        if isinstance(message, netlink.LinkChange):
            assert message.index > 0 and not (message.up and message.gone) and len(message.name) <= 15
        elif isinstance(message, netlink.AddressChange):
            assert len(message.address) in (4, 16) and message.index > 0
        else:
            assert message.length <= 8 * (len(message.destination) or 16)
        picture.apply(message)
    assert len(picture.links) <= len(found) and len(picture.addresses) <= len(found)
    try:
        way = netlink.parse_route(data)
    except netlink.NetlinkError:
        way = None
    assert way is None or way.index >= 0
    assert len(netlink.socket_address(data)) in (0, 4, 16)


NETLINK = [
    recorded.ADDRESS_COMES,
    recorded.ADDRESS_GOES,
    recorded.SIX_COMES,
    recorded.SIX_TENTATIVE,
    recorded.SIX_COMES[:-4] + b"\x40\0\0\0",
    recorded.SIX_COMES[:4] + b"\x14\0" + recorded.SIX_COMES[6:20] + bytes(4) + recorded.SIX_COMES[24:],
    recorded.ROUTE_COMES,
    recorded.ROUTE_GOES,
    recorded.DEFAULT_COMES,
    recorded.OWN_ROUTE,
    recorded.ROUTE_COMES[:24] + b"\0\2\0\0" + recorded.ROUTE_COMES[28:],
    recorded.ROUTE_COMES[:16] + b"\x07" + recorded.ROUTE_COMES[17:],
    recorded.DUMP + recorded.DUMP_ENDS,
    recorded.WAY,
    recorded.WAY[:23] + b"\x08" + recorded.WAY[24:],
    recorded.NO_WAY,
    recorded.NO_WAY[:16],
    b"\x10\0\0\0" + recorded.NO_WAY[4:16],
    recorded.link(3, up=True),
    recorded.link(3, up=False, gone=True),
    recorded.link(3, up=True)[:16] + b"\x07" + recorded.link(3, up=True)[17:],
    b"\x10\0\0\0\x63\0" + bytes(10),
    (b"\x10\0\0\0\x63\0" + bytes(10)) * (netlink.MESSAGES_MAX + 1),
    b"\x14\0\0\0\x14\0" + bytes(14),
    b"\x02\0" + bytes(14),
    b"\x0a\0" + bytes(26),
    b"\x0a\0" + bytes(16) + b"\xff\xff" + bytes(8),
]


# --- datagrams of paths that are not known ----------------------------------------------------------------------------


_RESETS = resets.Resets(SecureBytes(bytes(range(32))))
_DOOR, _FROM = ("192.0.2.7", 7_000), ("198.51.100.9", 50_000)


def _named(nonce: bytes, size: int) -> bytes:
    """A datagram of a path that the listener has named once."""
    name = _RESETS.name(_DOOR, lambda n: nonce, lambda cid: False)
    return b"\x47" + name[: resets.CID_BYTES] + bytes(max(0, size - 9))


def check_reset(data: bytes) -> None:
    """Only a name that was given is answered, with less than came and with the token of that name."""
    if not moved.is_of_a_path(data):
        return
    cid = data[moved.CID]
    name = _RESETS.name(_DOOR, lambda n: cid[:n], lambda _: False)
    said = resets.Resets(_RESETS._key).answer(data, _DOOR, _FROM, 0, lambda n: b"\xa5" * n)
    if name[: resets.CID_BYTES] != cid or len(data) <= resets.RESET_LEAST:
        assert said is None
        return
    assert said is not None and moved.is_of_a_path(said)
    assert resets.RESET_LEAST <= len(said) < len(data) and said.endswith(name[resets.CID_BYTES :])


RESETS = [_named(bytes([n] * 4), size) for n in range(3) for size in (40, 41, 44, 63, 1_200)] + [b"", b"\x40" * 60]


PARSERS = [
    Parser("items", check_items, ITEMS, {"net/params.py": ("decode_varint", "decode_items")}),
    Parser("params", check_params, PARAMS, {"net/params.py": ("TransportParams.decode",)}),
    Parser("offer", check_offer, OFFERS, {"net/params.py": ("Offer.from_items", "_decode_caps", "negotiate")}),
    Parser("header", check_header, HEADERS, {"net/gate.py": ("parse_header",)}),
    Parser("reply", check_reply, REPLIES, {"net/gate.py": ("open_frame", "mac1_holds", "frame_body")}),
    Parser(
        "hello",
        check_hello,
        HELLOS,
        {
            "net/gate.py": (
                "Gate.find_keys",
                "Gate.check",
                "Gate._time_is_good",
                "Gate._turn_windows",
                "Gate._rotate_secrets",
                "Gate._cookie",
                "Gate._cookie_holds",
                "_make_cookie",
            )
        },
    ),
    Parser(
        "netlink",
        check_netlink,
        NETLINK,
        {
            "net/netlink.py": (
                "parse",
                "parse_route",
                "_messages",
                "_fixed",
                "_attributes",
                "_u32",
                "_link",
                "_address",
                "_route",
                "socket_address",
            )
        },
    ),
    Parser("reset", check_reset, RESETS, {"net/resets.py": ("Resets.answer",), "net/moved.py": ("is_of_a_path",)}),
    Parser("ticket", check_ticket, TICKETS, {"net/ticket.py": ("TicketKeys.open", "TicketKeys._key_of", "_bound")}),
    Parser(
        "resume",
        check_resume,
        RESUMES,
        {"net/abbreviated.py": ("split_body", "read_asked"), "net/ticket.py": ("TicketKeys.strike",)},
    ),
    Parser("asked", check_asked, ASKED, {"net/abbreviated.py": ("_items", "read_given", "judge")}),
    Parser("stored", check_stored, STORED, {"net/kept.py": ("unpack", "_parse")}),
    Parser(
        "record", check_record, RECORDS, {"net/record.py": ("parse_record", "check_signature", "RecordCache.verify")}
    ),
    Parser("member", check_member, MEMBERS, {"net/record.py": ("parse_membership", "verify_membership")}),
    Parser(
        "address",
        check_address,
        ADDRESSES,
        {
            "net/address.py": ("parse_address", "parse_addresses", "_ip", "_unix", "_host_port", "_is_host"),
            "net/identity.py": ("parse_node_id",),
        },
    ),
    Parser("value", check_value, VALUES, {"channel/msgpack.py": ("decode_any", "_say")}),
    Parser(
        "reference",
        check_reference,
        REFERENCES,
        {"channel/moving.py": ("adopt",), "channel/codec.py": ("codec_by_id",)},
    ),
    Parser("typed", check_typed, TYPED, {"channel/codec.py": ("_fit",)}),
    Parser("group", handover_packets.check_group, handover_packets.GROUPS, {"net/handover_talk.py": ("parse_group",)}),
    Parser(
        "about",
        handover_packets.check_about,
        handover_packets.ABOUTS,
        {"net/handover_talk.py": ("parse_version", "parse_about")},
    ),
    Parser(
        "talk",
        handover_packets.check_talk,
        handover_packets.TALKS,
        {"net/handover_talk.py": ("Wire.recv_group", "Wire._recv_data", "_out_of_turn")},
    ),
]


def mutations(inputs: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """``count`` changed inputs, each one to four changes away from one of ``inputs``."""
    rng = random.Random(seed)
    edges = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x40", b"\xc0", b"\xff\xff", b"\xff" * 4, b"\xc0" + b"\xff" * 7)
    for _ in range(count):
        data = bytearray(rng.choice(inputs))
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(data))
            what = rng.randrange(7)
            if what == 0 and at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            elif what == 1 and at < len(data):
                data[at] = (data[at] + rng.choice((-1, 1))) & 0xFF
            elif what == 2:
                edge = rng.choice(edges)
                data[at : at + len(edge)] = edge
            elif what == 3:
                del data[at : at + rng.randint(1, 8)]
            elif what == 4:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            elif what == 5:
                other = rng.choice(inputs)
                begin = rng.randint(0, len(other))
                data[at:at] = other[begin : begin + rng.randint(1, 64)]
            else:
                del data[at:]
        yield bytes(data)
