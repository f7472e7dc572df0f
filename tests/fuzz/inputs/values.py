"""Values of untyped channels: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from netchan.channel import msgpack
from netchan.errors import CodecError
from netchan.markers import CarriesEnds

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
