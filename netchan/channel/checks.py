"""Arguments of the fronts' methods, looked at before anything happens: a wrong one raises at the call.

Layer 5; both fronts use this file as it is. Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from typing import Any, cast

from netchan.channel.base import LEVELS, Endpoint, Level
from netchan.errors import CODE_BASE, REASON_MAX_BYTES, ConfigError


def check_level(level: Any) -> Level:
    """The level of a ``flush``, or ConfigError."""
    if level not in LEVELS:
        raise ConfigError(f"flush({level!r}): no such level; give 'received' or 'taken'")
    return cast("Level", level)


def check_certain(endpoint: Endpoint) -> None:
    """Raise ConfigError where nobody can wait until a value is taken: it may be dropped."""
    if endpoint.lossy:
        raise ConfigError(
            "deliver() waits until the value is taken, and this channel may drop it (overflow=, ttl=); use send(), or "
            "open the channel without them"
        )


def check_still_certain(endpoint: Endpoint) -> None:
    """The same after the wait: that may have been said meanwhile, as a rule by the other side when it opened."""
    if endpoint.lossy:
        raise ConfigError(
            "deliver() cannot tell whether the value was taken: the channel was opened on the other side since with "
            "overflow= or ttl=, or was given one here, so it may have been dropped; use send(), or do without them"
        )


def check_code(code: Any) -> int:
    """The code of an ``abort``, or ConfigError."""
    if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code < CODE_BASE:
        raise ConfigError(f"abort code {code!r} is not an int from 0 to 2**30 - 1")
    return code


def check_reason(reason: Any) -> str:
    """The reason of an ``abort``, or ConfigError."""
    if not isinstance(reason, str):
        raise ConfigError(f"abort reason is a {type(reason).__name__}; give a str")
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        raise ConfigError("abort reason holds a lone surrogate; give text that UTF-8 can carry") from None
    if size > REASON_MAX_BYTES:
        raise ConfigError(f"abort reason has {size} bytes of UTF-8; at most {REASON_MAX_BYTES} travel")
    return reason


def check_batch(endpoint: Endpoint, most: Any, least: Any) -> tuple[int, int]:
    """``max`` and ``min`` of a ``recv_many``, or ConfigError for numbers that cannot be met."""
    for name, number in (("max", most), ("min", least)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"recv_many({name}={number!r}): give an int of at least 1")
    if least > most:
        raise ConfigError(f"recv_many(max={most}, min={least}): min is above max")
    check_min(endpoint, least)
    return most, least


def check_min(endpoint: Endpoint, least: int) -> None:
    """Raise ConfigError if ``recv_many(min=least)`` can never be served: so many values cannot be here untaken."""
    if least == 1:
        return
    if endpoint.capacity == 0:
        raise ConfigError("recv_many(min=...) above 1 cannot work on a capacity-0 channel; use min=1 or a capacity")
    most = endpoint.most_at_once
    if most is not None and least > most:
        raise ConfigError(
            f"recv_many(min={least}) cannot work: this channel's capacity is {most} and no more values travel ahead; "
            "use a smaller min or a larger capacity"
        )


def check_buffer(buffer: Any) -> memoryview:
    """The bytes of what ``recv_into`` may write to, or TypeError."""
    view = memoryview(buffer)
    if view.readonly:
        raise TypeError("recv_into needs a writable buffer, such as a bytearray")
    if not view.c_contiguous:
        raise TypeError("recv_into needs a contiguous buffer")
    return view.cast("B")
