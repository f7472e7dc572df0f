"""Node records and memberships: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from netchan.net import record
from tests.fuzz.inputs.first_frames import NODE
from tests.fuzz.inputs.offers import NETWORK, NOW_S

_SIGNER = Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
_SIGNER_PUB = _SIGNER.public_key().public_bytes_raw()


def _record(network_id: bytes = NETWORK, wall_s: float = NOW_S, **changed: Any) -> bytes:
    fields = {"id_pub": _SIGNER_PUB, "static_pub": NODE, "seq": 3, "caps": 3} | changed
    return record.build_record(_SIGNER.sign, wall_s=wall_s, network_id=network_id, **fields).raw


def _member(groups: tuple[str, ...] = ("a", "bb"), not_after: int = NOW_S + 5, id_pub: bytes = NODE) -> bytes:
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
        record.verify_membership(data, _SIGNER_PUB, NODE, NOW_S)
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
