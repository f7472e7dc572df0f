"""Values <-> bytes for channels across the network: one codec per type, chosen when the channel is opened.

Layer 5: no I/O, no state but a cache-free table of codecs. Encoding checks the whole value before anything waits;
decoding treats its input as hostile.

==========  ===  ==================================================================================================
type        id   bytes
==========  ===  ==================================================================================================
Any         1    MessagePack of the closed domain below
bytes       2    the bytes themselves; any contiguous buffer in, ``bytes`` out
str         3    MessagePack str; UTF-8, no surrogates
int         4    MessagePack int, -2**63 to 2**64-1
float       5    MessagePack float 64; received ints and floats 32 count as floats
bool        6    MessagePack bool
other       7    MessagePack of the type by msgspec
ndarray     8    dtype, shape, elements (netchan/channel/arrays.py); the form may fix dtype and number of dimensions
==========  ===  ==================================================================================================

All but bytes and arrays are MessagePack, so an untyped side and a typed one understand each other (``fits``). Untyped
domain: None, bool, int from -2**63 to 2**64-1, float, str, bytes-like, list, tuple (arrives as list), dict with str,
bytes or int keys, 32 levels deep at most. Memory of a decode is linear in its input. No codec runs
code that the bytes name; there is no pickle. Spec: docs/spec/channel-end.md, docs/spec/wire.md §8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NoReturn, TypeAlias, get_args, get_origin

from netchan._core.msgshape import CARRIES, fault
from netchan.channel.arrays import KINDS, NDIM_MAX, ArrayForm, array_form
from netchan.channel.handle import Handle
from netchan.channel.msgpack import DEPTH_MAX, ENDS_MAX, REFERENCE, decode_any, encode_any, holds_objects
from netchan.errors import CodecError, ConfigError
from netchan.markers import CarriesEnds

ID_ANY: Final = 1
ID_BYTES: Final = 2
ID_STR: Final = 3
ID_INT: Final = 4
ID_FLOAT: Final = 5
ID_BOOL: Final = 6
ID_TYPED: Final = 7
ID_ARRAY: Final = 8

SCHEMA_MAX_BYTES: Final = 1 << 20
"""Longest schema text that is hashed; bounds what a type with huge literals costs at ``open``."""

Encoded: TypeAlias = bytes | bytearray | memoryview
Refer: TypeAlias = Callable[[Handle], bytes]
Adopt: TypeAlias = Callable[[bytes], Any]


class Codec:
    """How one type travels.

    Attributes:
        id: number on the wire, 1 to 8.
        schema_hash: 16 bytes; equal where two sides mean the same type.
        type_name: for messages.
        encode: value -> bytes-like; raises CodecError if the value does not fit. The result may be the value's own
            buffer: copy it before the caller can change it.
        decode: bytes, bytearray or memoryview -> value, holding no reference to its input, but an array to a bytearray,
            which is its memory then; raises CodecError.
        encode_with, decode_with: the same for values that carry channels or ends of them, for which ``encode`` and
            ``decode`` raise CarriesEnds; with what turns a handle into a reference, and back. None: no value can.
    """

    __slots__ = ("decode", "decode_with", "encode", "encode_with", "id", "schema_hash", "type_name")

    def __init__(
        self,
        id: int,
        type_name: str,
        encode: Callable[[Any], Encoded],
        decode: Callable[[Encoded], Any],
        schema: bytes = b"",
        encode_with: Callable[[Any, Refer], Encoded] | None = None,
        decode_with: Callable[[Encoded, Adopt], Any] | None = None,
    ) -> None:
        self.id = id
        self.type_name = type_name
        self.encode = encode
        self.decode = decode
        self.encode_with = encode_with
        self.decode_with = decode_with
        self.schema_hash = hashlib.sha256(b"netchan schema 1\0" + bytes([id]) + schema).digest()[:16]

    def __repr__(self) -> str:
        return f"<Codec {self.type_name} id={self.id}>"


# --- built-in types --------------------------------------------------------------------------------------------------


def _encode_bytes(value: Any) -> Encoded:
    if type(value) is bytes:
        return value
    try:
        view = memoryview(value)
    except TypeError:
        raise _misfit(value, "bytes or another buffer") from None
    except (ValueError, BufferError) as error:
        raise CodecError(f"a {type(value).__name__} does not give its bytes: {str(error)[:200]}") from None
    if holds_objects(view):
        raise CodecError(f"a {type(value).__name__} of Python objects cannot be sent: its bytes are addresses")
    if not view.c_contiguous:
        raise CodecError("the buffer is not contiguous; send bytes(value)")
    return view.cast("B") if view.nbytes else b""


def _decode_bytes(data: Encoded) -> bytes:
    return bytes(data)


def _encode_str(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _misfit(value, "str")
    return encode_any(value)


def _decode_str(data: Encoded) -> str:
    value = decode_any(data)
    if type(value) is not str:
        raise _mismatch(value, "str")
    return value


def _encode_int(value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(value, "int")
    return encode_any(value)


def _decode_int(data: Encoded) -> int:
    value = decode_any(data)
    if type(value) is not int:
        raise _mismatch(value, "int")
    return value


def _encode_float(value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise _misfit(value, "float")
    try:
        return encode_any(float(value))
    except OverflowError:
        raise CodecError("the int is too large for a float channel") from None


def _decode_float(data: Encoded) -> float:
    value = decode_any(data)
    if type(value) not in (float, int):
        raise _mismatch(value, "float")
    return float(value)


def _encode_bool(value: Any) -> bytes:
    if value is True or value is False:
        return encode_any(value)
    raise _misfit(value, "bool")


def _decode_bool(data: Encoded) -> bool:
    value = decode_any(data)
    if value is True or value is False:
        return bool(value)
    raise _mismatch(value, "bool")


def _mismatch(value: Any, wanted: str) -> CodecError:
    return CodecError(f"received a {type(value).__name__} on a channel of {wanted}; open both sides with one type")


def _misfit(value: Any, wanted: str) -> CodecError:
    return CodecError(f"a {type(value).__name__} does not fit this channel, which carries {wanted}")


_BUILT_IN: Final[dict[Any, Codec]] = {
    Any: Codec(ID_ANY, "Any", encode_any, decode_any, encode_with=encode_any, decode_with=decode_any),
    bytes: Codec(ID_BYTES, "bytes", _encode_bytes, _decode_bytes),
    str: Codec(ID_STR, "str", _encode_str, _decode_str),
    int: Codec(ID_INT, "int", _encode_int, _decode_int),
    float: Codec(ID_FLOAT, "float", _encode_float, _decode_float),
    bool: Codec(ID_BOOL, "bool", _encode_bool, _decode_bool),
}


# --- arrays ----------------------------------------------------------------------------------------------------------


def _array(form: ArrayForm) -> Codec:
    return Codec(ID_ARRAY, form.name, form.encode, form.decode, form.schema)


@cache
def _array_forms() -> dict[bytes, tuple[str, int | None]]:
    """Kind and dimensions by schema hash, of all forms that there are: who accepts an offer keeps to what it says."""
    dimensions = (None, *range(NDIM_MAX + 1))
    return {_array(ArrayForm(kind, n)).schema_hash: (kind, n) for kind in KINDS for n in dimensions}


def _offered_array(schema: bytes | None) -> Codec:
    codec = _array(ArrayForm())
    if schema is not None and schema != codec.schema_hash:
        codec = _array(ArrayForm(*_array_forms().get(schema, ())))
        codec.schema_hash = schema  # also that of a form which is none of ours: every array says itself what it is
    return codec


# --- every other type, by msgspec ------------------------------------------------------------------------------------


def _typed(form: Any) -> Codec:
    name = getattr(form, "__name__", None) or str(form)
    try:
        import msgspec
    except ImportError:
        raise ConfigError(
            f"channels of {name} need msgspec; run: pip install 'netchan[typed]' (or pip install msgspec), "
            "or open the channel without a type"
        ) from None
    try:
        decoder = msgspec.msgpack.Decoder(form, dec_hook=_stand_in, ext_hook=_nothing)
        schema = msgspec.json.encode(_schema(form), order="sorted")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} cannot be the type of a channel: {error}") from None
    if len(schema) > SCHEMA_MAX_BYTES:
        raise ConfigError(f"the schema of {name} takes {len(schema)} bytes; at most {SCHEMA_MAX_BYTES} are allowed")
    encoder = msgspec.msgpack.Encoder(enc_hook=_refuse)
    errors = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError, UnicodeError)

    def checked(value: Any, write: Callable[[Any], bytes], ends: int) -> bytes:
        try:
            data = write(value)
            decoder.decode(data)  # the receiver's own check, made here: the error belongs to who made the value
            why = fault(data, DEPTH_MAX, ends)
        except errors as error:
            why = str(error)
        if why:
            raise CodecError(f"a {type(value).__name__} does not fit this channel, which carries {name}: {why}")
        return data

    def encode(value: Any) -> bytes:
        return checked(value, encoder.encode, 0)

    def encode_with(value: Any, refer: Refer) -> bytes:
        def other(item: Any) -> Any:
            return msgspec.msgpack.Ext(REFERENCE, refer(item)) if isinstance(item, Handle) else _refuse(item)

        return checked(value, msgspec.msgpack.Encoder(enc_hook=other).encode, ENDS_MAX)

    def decode(data: Encoded) -> Any:
        why = fault(data, DEPTH_MAX)
        if why == CARRIES:
            raise CarriesEnds
        return read(data, decoder, why)

    def decode_with(data: Encoded, adopt: Adopt) -> Any:
        reader = msgspec.msgpack.Decoder(form, dec_hook=_fit, ext_hook=lambda _, payload: adopt(bytes(payload)))
        return read(data, reader, fault(data, DEPTH_MAX, ENDS_MAX))

    def read(data: Encoded, reader: Any, why: str) -> Any:
        if not why:
            try:
                return reader.decode(data)
            except errors as error:
                why = str(error)
        raise CodecError(f"received bytes are no {name}: {why}")

    return Codec(ID_TYPED, name, encode, decode, schema, encode_with, decode_with)


# Fields whose type is a Sender, a Receiver or a Channel: what msgspec calls for types that it does not know.


def _refuse(item: Any) -> NoReturn:
    if isinstance(item, Handle):
        raise CarriesEnds
    raise TypeError(f"a {type(item).__name__} cannot be encoded")


def _nothing(_kind: int, _payload: memoryview) -> None:
    return None


def _stand_in(form: Any, _value: Any) -> Any:
    """For a check of the structure alone: a handle of the right class, of no channel."""
    return object.__new__(_end_class(form))


def _fit(form: Any, value: Any) -> Any:
    """A handle that was received, as the field says: its class, and the type of its values."""
    kind = _end_class(form)
    if not isinstance(value, Handle) or type(value).__name__ != kind.__name__:
        raise TypeError(f"expected a {kind.__name__}, got a {type(value).__name__}")
    for inner in get_args(form):
        if inner is not Any:
            value._ep.retype(inner)
    return value if type(value) is kind else kind(value._ep)


def _end_class(form: Any) -> type[Handle]:
    kind = get_origin(form) or form
    if not isinstance(kind, type) or not issubclass(kind, Handle):
        raise TypeError(f"values of type {kind!r} cannot be sent")
    return kind


def _schema(form: Any) -> Any:
    """What two sides compare: the structure of the type, without titles and descriptions."""
    import msgspec

    def bare(node: Any, named: bool = False) -> Any:
        if isinstance(node, dict):  # the keys below "properties" and "$defs" are names that the type gave
            return {
                key: bare(inner, not named and key in ("properties", "$defs"))
                for key, inner in node.items()
                if named or key not in ("description", "examples")
            }
        return [bare(inner) for inner in node] if isinstance(node, list) else node

    return bare(msgspec.json.schema(form, schema_hook=lambda kind: {"title": _end_class(kind).__name__}))


def codec_for(form: Any) -> Codec:
    """The codec of a type form.

    Args:
        form: ``Any``, bytes, str, int, float, bool, ``numpy.ndarray`` (parametrised ones too), or any type that
            msgspec takes.

    Raises:
        ConfigError: msgspec is needed and missing (with the pip line), or the form cannot be the type of a channel.
    """
    try:
        found = _BUILT_IN.get(form)
    except TypeError:  # unhashable: no type form
        raise ConfigError(f"{form!r} is not a type; give Any, bytes, str, int, float, bool or a class") from None
    if found is None:
        arrays = array_form(form)
        found = _typed(form) if arrays is None else _array(arrays)
    return found


def codec_by_id(number: int, schema: bytes | None = None) -> Codec | None:
    """The codec of a channel that was accepted without a type of our own; None: there is no such codec.

    Args:
        number: codec id of the offer.
        schema: its schema hash; an array codec takes it over. None: not known.
    """
    if number == ID_ARRAY:
        return _offered_array(schema)
    for codec in _BUILT_IN.values():
        if codec.id == number:
            return codec
    return _BUILT_IN[Any] if number == ID_TYPED else None


def fits(a: Codec, b: Codec) -> bool:
    """True when what ``a`` encodes ``b`` decodes, both ways: same codec and schema, or MessagePack with ``Any``."""
    return fits_offer(a, b.id, b.schema_hash)


def fits_offer(codec: Codec, number: int, schema: bytes) -> bool:
    """``fits`` with a codec of which only id and schema hash are known."""
    if codec.id == number:
        return codec.schema_hash == schema
    ids = (codec.id, number)
    return ID_ANY in ids and ID_BYTES not in ids and ID_ARRAY not in ids
