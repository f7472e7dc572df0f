"""Untyped values as MessagePack, over a closed domain.

Layer 5: no I/O, no state. Both directions pass the compiled structure check (netchan/_core/msgshape): what we send is
in the domain whatever the packer would accept, and what we receive has every declared count covered by bytes that are
there and at most 32 open containers, before a decoder allocates for it. Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgpack

from netchan._core.msgshape import CARRIES, fault
from netchan.channel.handle import Handle
from netchan.errors import CodecError
from netchan.markers import CarriesEnds

DEPTH_MAX: Final = 32
"""Containers that may be open at a time: bounds the decoder's stack and what nested headers can cost."""

ENDS_MAX: Final = 16
"""Channels and ends that one value may carry: bounds what a message of a stranger opens here."""
REFERENCE: Final = 1
"""MessagePack extension type of a reference to a channel end (docs/spec/wire.md §8)."""
_NAMES: Final = re.compile(":[^:]*:")
"""Names of fields in the format of a buffer."""

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


def encode_any(value: Any, refer: Callable[[Handle], bytes] | None = None) -> bytes:
    """Encode a value of the untyped domain.

    Args:
        value: what is sent.
        refer: gives the reference to a channel or an end of one, which goes in its place.

    Raises:
        CodecError: it holds something else, an int outside -2**63 … 2**64-1, or more than 32 levels.
        CarriesEnds: it holds a channel or an end of one, and ``refer`` is None.
    """
    try:
        data: bytes = msgpack.packb(value, use_bin_type=True, default=_buffer if refer is None else _referring(refer))
    except (CodecError, CarriesEnds):
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
        raise CodecError(f"a {type(value).__name__} cannot be sent untyped: {_say(error)}") from None
    if type(value) not in _PLAIN:
        why = fault(data, DEPTH_MAX, 0 if refer is None else ENDS_MAX)
        if why:
            raise CodecError(
                f"a {type(value).__name__} cannot be sent untyped: {why}; convert it, or open the channel with a type"
            )
    return data


def decode_any(data: bytes | bytearray | memoryview, adopt: Callable[[bytes], Any] | None = None) -> Any:
    """Decode one untyped value; the result holds no reference to ``data``.

    Args:
        data: its bytes.
        adopt: makes a handle of a reference to a channel end.

    Raises:
        CodecError: malformed, outside the domain, deeper than 32 levels, or followed by more bytes.
        CarriesEnds: it holds references, and ``adopt`` is None.
    """
    why = fault(data, DEPTH_MAX, 0 if adopt is None else ENDS_MAX)
    if why:
        if why == CARRIES and adopt is None:
            raise CarriesEnds
        raise CodecError(f"received bytes are no value of the untyped domain: {why}")

    try:
        if adopt is not None:
            # the structure check has let no other extension type through
            return msgpack.unpackb(
                data, raw=False, use_list=True, strict_map_key=False, ext_hook=lambda _, payload: adopt(payload)
            )
        return msgpack.unpackb(data, raw=False, use_list=True, strict_map_key=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise CodecError(f"received bytes are no value of the untyped domain: {_say(error)}") from None


def _referring(refer: Callable[[Handle], bytes]) -> Callable[[Any], Any]:
    """What the packer calls for what it does not know, where ends may be carried."""

    def other(item: Any) -> Any:
        return msgpack.ExtType(REFERENCE, refer(item)) if isinstance(item, Handle) else _buffer(item)

    return other


def _buffer(value: Any) -> bytes:
    """Called by the packer for what it does not know: other buffers go as bytes."""
    if isinstance(value, Handle):
        raise CarriesEnds
    if isinstance(value, int):
        raise CodecError("an int outside -2**63 … 2**64-1 cannot be sent untyped; send it as str or bytes")
    try:
        view = memoryview(value)
    except TypeError:
        raise CodecError(
            f"a {type(value).__name__} cannot be sent untyped; convert it to None, bool, int, float, str, bytes, list "
            "or dict, or open the channel with a type"
        ) from None
    if holds_objects(view):
        raise CodecError(f"a {type(value).__name__} of Python objects cannot be sent: its bytes are addresses")
    return view.tobytes()


def holds_objects(view: memoryview) -> bool:
    """True when the items of a buffer are, or hold, references to Python objects."""
    return "O" in _NAMES.sub("", view.format)


def _say(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__
