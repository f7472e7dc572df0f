"""``numpy.ndarray`` <-> bytes: codec 8.

Layer 5: no I/O. numpy is imported when the first array is encoded or decoded, never by importing netchan.

1. The dtype is told by a closed description (``_describe``), read back by ``_dtype``; nothing of it is run.
2. Sending makes one ``bytes`` of head and elements: the only copy, since the outbox holds large ``bytes`` as they are.
3. Receiving builds the array over the ``bytearray`` that the value was taken into: writable, aligned, without a copy.

What is read is hostile: every length is compared with the bytes that are there before anything is made, and truth
values and code points are looked at, because numpy relies on them. Spec: docs/spec/wire.md §8.1.
"""

from __future__ import annotations

import io
import math
import re
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, get_args, get_origin

from netchan.channel.msgpack import decode_any, encode_any
from netchan.errors import CodecError, ConfigError

MARK: Final = 0xC1
VERSION: Final = 1
HEAD: Final = struct.Struct(">BBBBI")
ALIGN: Final = 16
"""The elements begin at a multiple of this; no type of numpy wants more."""

NDIM_MAX: Final = 64
"""numpy's own limit; bounds the head."""
DTYPE_MAX_BYTES: Final = 16_384
"""Longest description of a dtype; bounds the time that a made-up one costs."""
FIELDS_MAX: Final = 1024
"""Fields of one record, for the same reason."""
SPAN_MAX: Final = 1 << 63
"""Bytes of an array, sizes of 0 not counted, are fewer: numpy computes with that figure."""
CODE_POINT_MAX: Final = 0x10FFFF

KINDS: Final = (
    *("", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"),
    *("x16", "x32", "q16", "q32", "S", "U", "V", "M", "m"),
)
"""What a type form can fix; "" fixes nothing. Any length or unit of S, U, V, M and m; V also names records."""

_OBJECT, _HALF = 17, 23  # numpy's numbers: objects; the last type that is not made by a user or holds pointers
_LONG: Final = {(63, 16): "x", (112, 16): "q"}  # bits of the mantissa, bytes: x87, IEEE 754 quad
_TEXT: Final = re.compile(
    r"\|b1|\|[iu]1|[<>](?:[iu][248]|f[248]|c8|c16|[xq]16|[xq]32|U(?:0|[1-9][0-9]{0,8}))|\|[SV](?:0|[1-9][0-9]{0,9})"
    r"|[<>][Mm]8(?:\[(?:[1-9][0-9]{0,9})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)


class Layout(NamedTuple):
    """What is to be known of a dtype.

    Attributes:
        dtype: of numpy.
        text: its description as it travels.
        kind: one of KINDS.
        bare: the same bytes as records of what a value owns, where it does not own all; else None.
        doubtful: bytes of one element that may be no value: truth values, code points.
    """

    dtype: Any
    text: bytes
    kind: str
    bare: Any
    doubtful: int


class ArrayForm:
    """How arrays of one type form travel.

    Args:
        kind: of KINDS; "" takes every dtype without objects.
        ndim: dimensions; None: any number.
    """

    __slots__ = ("_got", "_sent", "kind", "ndim")

    def __init__(self, kind: str = "", ndim: int | None = None) -> None:
        self.kind = kind
        self.ndim = ndim
        # The last dtype of each direction, as long as it is no record: those can be changed by whoever holds one.
        self._sent: Layout | None = None
        self._got: Layout | None = None

    @property
    def name(self) -> str:
        """For messages."""
        kind = f" of {self.kind}" if self.kind else ""
        ndim = "" if self.ndim is None else f" in {self.ndim} dimensions"
        return f"numpy.ndarray{kind}{ndim}"

    @property
    def schema(self) -> bytes:
        """What two sides compare."""
        return f"{self.kind} {'' if self.ndim is None else self.ndim}".encode()

    def encode(self, value: Any) -> bytes:
        """The bytes of an array, a copy of it.

        Raises:
            CodecError: not an array, of a subclass, of another dtype than the form says, or of one that cannot travel;
                numpy is missing.
        """
        np = _numpy()
        if type(value) is not np.ndarray and type(value) is not np.memmap:
            more = "; send numpy.asarray(value)" if isinstance(value, np.ndarray) else ""
            raise CodecError(f"a {type(value).__name__} does not fit this channel, which carries {self.name}{more}")
        layout = self._sent
        if layout is None or layout.dtype is not value.dtype:
            layout = _layout(np, value.dtype)
            self._sent = layout if layout.dtype.names is None else None
        why = self._misfit(layout, value.ndim)
        if why:
            raise CodecError(f"an array {why} does not fit this channel, which carries {self.name}")
        if layout.doubtful:
            _look(np, value)
        head = HEAD.pack(MARK, VERSION, value.ndim, 0, len(layout.text))
        head += struct.pack(f">{value.ndim}Q", *value.shape) + layout.text
        head += bytes(-len(head) % ALIGN)
        if layout.bare is None and value.flags.c_contiguous:
            return b"".join((head, value.reshape(-1).view(np.uint8)))
        # Written into the bytes object itself: BytesIO hands out the one it was given, as long as nobody else has it.
        room = io.BytesIO(bytes(len(head) + value.nbytes))
        _write(np, room.getbuffer(), head, value, layout)
        return room.getvalue()

    def decode(self, data: bytes | bytearray | memoryview) -> Any:
        """The array in ``data``. It keeps a bytearray, of which the caller then has no more use; all else is copied.

        Raises:
            CodecError: the bytes are no array, or none of this form; numpy is missing.
        """
        np = _numpy()
        own = data if type(data) is bytearray else bytearray(data)
        if len(own) < HEAD.size:
            _refuse("they end within the head")
        mark, version, ndim, zero, n_text = HEAD.unpack_from(own)
        if (mark, version, zero) != (MARK, VERSION, 0):
            _refuse("they begin otherwise; open both sides with one type")
        if ndim > NDIM_MAX or not 0 < n_text <= DTYPE_MAX_BYTES:
            _refuse(f"{ndim} dimensions and a dtype of {n_text} bytes are beyond {NDIM_MAX} and {DTYPE_MAX_BYTES}")
        at = HEAD.size + 8 * ndim
        begin = at + n_text + -(at + n_text) % ALIGN
        if len(own) < begin:
            _refuse("they end within the head")
        if any(own[at + n_text : begin]):
            _refuse("the space before the elements is not zero")
        shape = struct.unpack_from(f">{ndim}Q", own, HEAD.size)
        text = bytes(memoryview(own)[at : at + n_text])
        layout = self._got
        if layout is None or layout.text != text:
            layout = _read(np, text)
            self._got = layout if layout.dtype.names is None else None
        if len(own) - begin != _span(shape, layout.dtype.itemsize):
            _refuse(f"{len(own) - begin} bytes of elements are not those of shape {_short(shape)}")
        why = self._misfit(layout, ndim)
        if why:
            raise CodecError(f"received an array {why} on a channel of {self.name}")
        array = np.ndarray(shape, layout.dtype, buffer=own, offset=begin)
        if layout.doubtful:
            _look(np, array)
        return array if array.flags.aligned else array.copy()

    def _misfit(self, layout: Layout, ndim: int) -> str:
        if self.kind and layout.kind != self.kind:
            return f"of {layout.kind}"
        if self.ndim is not None and ndim != self.ndim:
            return f"in {ndim} dimensions"
        return ""


def array_form(form: Any) -> ArrayForm | None:
    """What a type form says of arrays; None: it is not about arrays.

    Args:
        form: ``numpy.ndarray``, ``numpy.typing.NDArray[numpy.float32]``, ``numpy.ndarray[tuple[int, int], ...]``.

    Raises:
        ConfigError: it is about arrays, but nothing that can be kept to.
    """
    np: Any = sys.modules.get("numpy")  # nobody has such a form without it
    whole = get_origin(form) or form
    if np is None or not isinstance(whole, type) or not issubclass(whole, np.ndarray):
        return None
    if whole is not np.ndarray:
        raise ConfigError(f"{whole.__name__} cannot be the type of a channel; use numpy.ndarray")
    shape, dtype = get_args(form) or (Any, Any)
    return ArrayForm(_form_kind(np, dtype, form), _form_ndim(shape, form))


def _form_kind(np: Any, dtype: Any, form: Any) -> str:
    if _open(dtype) or dtype is np.dtype:
        return ""
    (scalar,) = get_args(dtype) if get_origin(dtype) is np.dtype else (None,)
    if _open(scalar) or scalar is np.generic:
        return ""
    if scalar in np.sctypeDict.values() and scalar is not np.object_:
        return _kind(_describe(np, np.dtype(scalar))[0])
    raise ConfigError(f"{form} does not name one dtype without objects, as numpy.dtype[numpy.float32] does")


def _form_ndim(shape: Any, form: Any) -> int | None:
    sizes = get_args(shape)
    if _open(shape) or (get_origin(shape) is tuple and len(sizes) == 2 and sizes[1] is ...):
        return None
    if get_origin(shape) is tuple and all(size is int or _open(size) for size in sizes) and len(sizes) <= NDIM_MAX:
        return len(sizes)
    raise ConfigError(f"{form} fixes more of the shape than the number of dimensions; use tuple[int, int] for two")


def _open(form: Any) -> bool:
    return form is Any or isinstance(form, TypeVar)


# --- dtypes ----------------------------------------------------------------------------------------------------------


def _layout(np: Any, dtype: Any) -> Layout:
    if not dtype.itemsize:
        raise CodecError("an array whose elements have no bytes cannot be sent")
    item, bare, doubtful = _describe(np, dtype)
    text = encode_any(item)
    if len(text) > DTYPE_MAX_BYTES:
        raise CodecError(f"the dtype takes {len(text)} bytes to describe; at most {DTYPE_MAX_BYTES} are allowed")
    return Layout(dtype, text, _kind(item), bare, doubtful)


def _kind(item: Any) -> str:
    """The kind of a description."""
    if type(item) is not str:
        return "V"
    return item[1] if item[1] in "SUVMm" else item[1:]


def _describe(np: Any, dtype: Any) -> tuple[Any, Any, int]:
    """(description, ``Layout.bare``, ``Layout.doubtful``) of a dtype."""
    if dtype.names is None:
        return _describe_plain(np, dtype)
    if len(dtype.names) > FIELDS_MAX:
        raise CodecError(f"a record of {len(dtype.names)} fields cannot be sent; at most {FIELDS_MAX} are allowed")
    fields, formats, ends = [], [], []
    holes = False
    doubtful = 0
    for name in dtype.names:
        whole, offset, *title = dtype.fields[name]
        if title:
            raise CodecError(f"field {name!r} of the dtype has a title, which cannot be sent")
        base, sizes = whole.subdtype or (whole, ())
        item, bare, doubt = _describe(np, base)
        fields.append([name, offset, list(sizes), item])
        formats.append((base if bare is None else bare, sizes))
        ends.append((offset, offset + whole.itemsize))
        holes |= bare is not None
        doubtful += doubt * math.prod(sizes)
    if doubtful > dtype.itemsize:  # each is looked at: fields in one place would multiply the work
        raise CodecError("a record whose truth values or texts overlap cannot be sent")
    reached = 0
    for begin, end in sorted(ends):
        holes |= begin > reached
        reached = max(reached, end)
    bare = None
    if holes or reached < dtype.itemsize:
        offsets = [begin for begin, _ in ends]
        bare = np.dtype({"names": dtype.names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
    return [dtype.itemsize, bool(dtype.isalignedstruct), fields], bare, doubtful


def _describe_plain(np: Any, dtype: Any) -> tuple[str, Any, int]:
    if dtype.num == _OBJECT or dtype.num > _HALF:
        raise CodecError(f"an array of {dtype} cannot be sent; give it a dtype of numbers, S, U, V or records of these")
    if dtype.char not in "gG":
        return dtype.str, None, dtype.itemsize if dtype.kind in "bU" else 0
    kind, parts = _long(np), 1 if dtype.char == "g" else 2
    if not kind or not dtype.isnative:
        raise CodecError(f"an array of {dtype} cannot be sent from this machine; use float64 or complex128")
    bare = None
    if kind == "x":
        names, offsets = ["re", "im"][:parts], [0, 16][:parts]
        bare = np.dtype({"names": names, "formats": ["V10"] * parts, "offsets": offsets, "itemsize": dtype.itemsize})
    return f"{'<' if sys.byteorder == 'little' else '>'}{kind}{16 * parts}", bare, 0


def _long(np: Any) -> str:
    """Format of this machine's long double: x, q, or "" for one that cannot travel."""
    return _LONG.get((np.finfo(np.longdouble).nmant, np.dtype(np.longdouble).itemsize), "")


def _read(np: Any, text: bytes) -> Layout:
    """The layout that a description from outside means."""
    try:
        dtype = _dtype(np, decode_any(text))
        layout = _layout(np, dtype)
    except (CodecError, TypeError, ValueError, OverflowError, MemoryError) as error:  # numpy's own checks
        _refuse(f"their dtype is none: {str(error)[:200]}")
    if layout.text != text:
        _refuse("their dtype is not described as it should be")
    return layout


def _dtype(np: Any, item: Any) -> Any:
    if type(item) is str:
        if not _TEXT.fullmatch(item):
            raise ValueError("no element is described so")
        if item[1] not in "xq":
            return np.dtype(item)
        if item[1] != _long(np):
            raise ValueError("this machine has no such long double")
        return np.dtype(np.longdouble if item[2:] == "16" else np.clongdouble)
    size, aligned, fields = _list(item, 3)
    names, formats, offsets = [], [], []
    if not _is_size(size) or type(aligned) is not bool or type(fields) is not list or len(fields) > FIELDS_MAX:
        raise ValueError("no record is described so")
    for field in fields:
        name, offset, sizes, inner = _list(field, 4)
        if type(name) is not str or not _is_size(offset) or type(sizes) is not list or len(sizes) > NDIM_MAX:
            raise ValueError("no field is described so")
        if not all(map(_is_size, sizes)):
            raise ValueError("no field is described so")
        names.append(name)
        offsets.append(offset)
        formats.append((_dtype(np, inner), tuple(sizes)) if sizes else _dtype(np, inner))
    table = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    return np.dtype(table, align=aligned)


def _list(item: Any, n: int) -> list[Any]:
    if type(item) is not list or len(item) != n:
        raise ValueError(f"a list of {n} is expected")
    return item


def _is_size(n: Any) -> bool:
    return type(n) is int and 0 <= n < 1 << 31


# --- elements --------------------------------------------------------------------------------------------------------


def _span(shape: Sequence[int], itemsize: int) -> int:
    """Bytes of an array."""
    span = itemsize
    for n in shape:
        span *= n or 1
        if span >= SPAN_MAX:
            _refuse(f"shape {_short(shape)} is larger than any memory")
    return 0 if 0 in shape else span


def _write(np: Any, room: memoryview, head: bytes, value: Any, layout: Layout) -> None:
    """Head and elements into ``room``, which is zeros so far."""
    room[: len(head)] = head
    if layout.bare is None:
        np.copyto(np.ndarray(value.shape, layout.dtype, buffer=room, offset=len(head)), value)
    else:
        _write_fields(np, np.ndarray(value.shape, layout.bare, buffer=room, offset=len(head)), value.view(layout.bare))


def _write_fields(np: Any, to: Any, value: Any) -> None:
    """Field by field: a copy of whole records would take along what lies between the fields."""
    if to.dtype.names is None:
        np.copyto(to, value)
        return
    for name in to.dtype.names:
        _write_fields(np, to[name], value[name])


def _look(np: Any, array: Any) -> None:
    """Refuse truth values other than 0 and 1, which numpy counts with, and code points that are none."""
    dtype = array.dtype
    if not array.size or not dtype.itemsize:
        return
    if dtype.names is not None:
        for name in dtype.names:
            _look(np, array[name])
    elif dtype.kind == "b":
        if array.view(np.uint8).max() > 1:
            raise CodecError("an array of truth values holds a byte other than 0 and 1")
    elif dtype.kind == "U":
        points = np.dtype((f"{dtype.str[0]}u4", (dtype.itemsize // 4,)))
        if array.view(points).max() > CODE_POINT_MAX:
            raise CodecError("an array of text holds a code point beyond U+10FFFF")


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise CodecError(
            "arrays need numpy; run: pip install 'netchan[numpy]' (or pip install numpy), on this side too"
        ) from None
    return numpy


def _short(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape[:8]))}{', …' if len(shape) > 8 else ''})"


def _refuse(why: str) -> NoReturn:
    raise CodecError(f"received bytes are no array: {why}")
