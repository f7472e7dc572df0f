"""Item lists, transport parameters and offers: their inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from netchan.net import params

NOW_S = 1_800_000_000
NETWORK = b"lan"


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


def item(kind: int, value: bytes) -> bytes:
    return params.encode_varint(kind) + params.encode_varint(len(value)) + value


ITEMS = [
    b"",
    _items(),
    item(2, b"a") + item(0x4000, b"grease") + item(1 << 40, b""),
    item(2, b"a") + item(2, b"b"),
    item(3, b"critical"),
    b"".join(item(2 * n, b"") for n in range(params.MAX_ITEMS + 1)),
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
    item(0x02, params.encode_varint(5)),
    item(0x02, params.encode_varint(1_300) + b"x"),
    item(0x24, b"short"),
    item(0x25, b""),
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
    _items(PARAMS=item(0x02, b"\1")),
]
