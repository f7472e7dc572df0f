"""References to channel ends in values: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from netchan.channel import moving, msgpack
from netchan.channel.codec import Codec, codec_by_id, codec_for
from netchan.channel.fronts import Channel
from netchan.channel.handle import Handle
from netchan.channel.local import LocalEndpoint
from netchan.channel.making import pipe_endpoints
from netchan.channel.receiver import Receiver
from netchan.channel.sender import Sender
from netchan.errors import CodecError
from netchan.markers import CarriesEnds

if TYPE_CHECKING:
    from netchan.channel.remote import RemoteEndpoint
from tests.fuzz.inputs.values import REFERENCE_HEAD


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
