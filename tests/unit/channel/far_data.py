"""Values between a test and the far end's process: MessagePack, with references to what cannot travel.

Plain values, tuples, type forms, statistics and exceptions are copied; an exception comes out as the same type with its
text and what it says besides. Anything else stays where it is and travels as a number with the name of its class.
"""

from __future__ import annotations

import asyncio
import builtins
import traceback
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import msgpack

from netchan import errors
from netchan.channel.base import ChannelStats

FORMS = {"Any": Any, "bool": bool, "bytes": bytes, "float": float, "int": int, "str": str}
SAID = ("code", "reason", "by_us", "needed", "limit", "channel", "peer", "op")
"""Attributes of an exception that travel with it."""
VALUE_MAX = 64 << 20
"""Bytes of one message; bounds nothing but a mistake."""
_REF, _TUPLE, _ERROR, _STATS, _FORM, _METHOD = range(6)


class FarError(Exception):
    """An exception of the far process whose type is not known here."""


class Method:
    """Stands for a method of a far object: there is nothing to copy, it can only be called."""


METHOD = Method()


class Plain:
    """Packs and unpacks.

    Args:
        number_of: number and class name of an object that travels as a reference; TypeError if it cannot.
        object_of: the object of a number and a class name.
    """

    def __init__(self, number_of: Callable[[Any], tuple[int, str]], object_of: Callable[[int, str], Any]) -> None:
        self._number_of, self._object_of = number_of, object_of

    def pack(self, value: Any) -> bytes:
        return msgpack.packb(value, default=self._stands_for, strict_types=True)  # type: ignore[no-any-return]

    def unpacker(self) -> Any:
        """Fed with bytes, an iterator over whole messages."""
        return msgpack.Unpacker(
            ext_hook=self._from, strict_map_key=False, max_buffer_size=VALUE_MAX, max_ext_len=VALUE_MAX
        )

    def _stands_for(self, value: Any) -> msgpack.ExtType:
        if isinstance(value, tuple):
            return self._ext(_TUPLE, list(value))
        if isinstance(value, BaseException):
            return self._ext(_ERROR, self._of_error(value))
        if isinstance(value, ChannelStats):
            return self._ext(_STATS, list(astuple(value)))
        if value is METHOD:
            return self._ext(_METHOD, None)
        for name, form in FORMS.items():
            if value is form:
                return self._ext(_FORM, name)
        return self._ext(_REF, list(self._number_of(value)))

    def _ext(self, kind: int, value: Any) -> msgpack.ExtType:
        return msgpack.ExtType(kind, self.pack(value))

    def _from(self, kind: int, data: bytes) -> Any:
        value = msgpack.unpackb(data, ext_hook=self._from, strict_map_key=False, max_ext_len=VALUE_MAX)
        match kind:
            case 0:
                return self._object_of(*value)
            case 1:
                return tuple(value)
            case 2:
                return _error_of(*value)
            case 3:
                return ChannelStats(*value)
            case 4:
                return FORMS[value]
        return METHOD

    def _of_error(self, error: BaseException) -> list[Any]:
        said = {name: getattr(error, name) for name in SAID if hasattr(error, name)}
        if "code" in said:
            said["code"] = int(said["code"])
        trace = "" if isinstance(error, errors.NetchanError) else "".join(traceback.format_exception(error))
        return [type(error).__name__, str(error), said, trace]


def _error_of(name: str, text: str, said: dict[str, Any], trace: str) -> BaseException:
    kind = getattr(errors, name, None) or getattr(builtins, name, None) or FarError
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        kind = FarError
    error: BaseException = kind.__new__(kind)
    error.args = (f"{name}: {text}" if kind is FarError else text,)
    for key, value in said.items():
        setattr(error, key, value)
    if trace:
        error.add_note(f"In the far process:\n{trace}")
    return error


def cancelled() -> BaseException:
    """What a call that was cancelled over there raises here."""
    return asyncio.CancelledError("the far call was cancelled")
