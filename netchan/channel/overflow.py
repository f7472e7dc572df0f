"""What a direction does with a value for which there is no room, how long a value counts, and whether it may share
records with other channels: names and checks.

Layer 5; both fronts use this file as it is. Spec: docs/spec/channel-end.md §8, docs/spec/session.md §4.2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from netchan.errors import ConfigError

MAX_BYTES_MIN: Final = 4096
"""Smallest file to spill to; in a smaller one hardly a value has room."""


@dataclass(frozen=True, slots=True)
class Spill:
    """A policy: values without room go to a file; made by ``netchan.spill``.

    Attributes:
        path: directory of the file.
        max_bytes: most that it holds.
    """

    path: str
    max_bytes: int


def spill(path: str | os.PathLike[str], max_bytes: int) -> Spill:
    """For ``overflow=``: values for which there is no room are written to a file, and go on from there, in order.

    A send waits only while the file is full. The file belongs to one channel, has no name, is sealed with a key that is
    only in memory, and is gone with the channel or the process, however that ends. Each channel that gets the policy
    has a file of its own; it is made with the first value that needs it.

    Args:
        path: an existing directory, on a disk (what is written to a tmpfs stays in memory).
        max_bytes: most bytes that the file holds, 4096 or more; a value takes 36 beside its own, and one that can never
            fit is refused.

    Raises:
        ConfigError: no directory that this process may write to, or no such number.
    """
    try:
        place = Path(os.fsdecode(path)).absolute()
    except TypeError:
        raise ConfigError(f"spill({path!r}): the path is a {type(path).__name__}; give a str or a Path") from None
    number: object = max_bytes  # callers may be untyped
    if isinstance(number, bool) or not isinstance(number, int) or not MAX_BYTES_MIN <= max_bytes < 2**63:
        raise ConfigError(f"spill(max_bytes={max_bytes!r}): give an int of at least {MAX_BYTES_MIN}")
    try:
        usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    except ValueError:  # a null byte
        usable = False
    if not usable:
        raise ConfigError(f"spill({str(place)!r}): no directory that this process may write to; make it first")
    return Spill(str(place), max_bytes)


Named: TypeAlias = Literal["block", "drop_new", "drop_old", "latest", "disconnect"]
Overflow: TypeAlias = Named | Spill
"""block: the sender waits. drop_new: the value that does not fit is dropped. drop_old: the oldest that nobody took is.
latest: only the newest stays. disconnect: the channel is aborted with ``Code.LIMIT``. spill(): it goes to a file."""

NAMES: Final[tuple[Named, ...]] = get_args(Named)
BLOCK: Final = 1
"""Numbers on the wire: the place in ``NAMES``, from 1; 0 = nothing was said."""
DROP_NEW: Final = 2
DROP_OLD: Final = 3
LATEST: Final = 4
DISCONNECT: Final = 5
SPILL: Final = 6
"""Not on the wire, where such a direction says ``BLOCK``."""

TTL_MIN_SECONDS: Final = 0.001
TTL_MAX_SECONDS: Final = (2**30 - 1) / 1000
"""12.4 days: what the four bytes of a deadline say in milliseconds."""


class Terms(NamedTuple):
    """What one side says of a channel when it opens it, beside name, type and capacity.

    Attributes:
        overflow: number of the policy; 0 = nothing is said.
        ttl_ms: milliseconds; 0 = nothing is said.
        trunk: small values may share records, and the key of these, with those of other channels of which it is said.
        spill: where to, with the ``overflow`` of that name.
    """

    overflow: int = 0
    ttl_ms: int = 0
    trunk: bool = False
    spill: Spill | None = None


NO_TERMS: Final = Terms()


def check_trunk(trunk: Any) -> bool:
    """``trunk`` as it is.

    Raises:
        ConfigError: no bool.
    """
    if not isinstance(trunk, bool):
        raise ConfigError(f"trunk={trunk!r} is no choice; give True or False")
    return trunk


def check_overflow(overflow: Any, capacity: Any) -> int:
    """The number of a policy, 0 for None.

    Raises:
        ConfigError: no such policy, or one that needs a place together with capacity 0.
    """
    if overflow is None:
        return 0
    if isinstance(overflow, Spill):
        number = SPILL
    elif isinstance(overflow, str) and overflow in NAMES:
        number = NAMES.index(overflow) + 1
    else:
        raise ConfigError(
            f"overflow={overflow!r} is no policy; give one of {', '.join(map(repr, NAMES))}, or netchan.spill(...)"
        )
    if capacity == 0 and number != BLOCK:
        raise ConfigError(
            f"overflow={overflow!r} says what happens to a value without room, and capacity 0 has no room at all; "
            "give a capacity of at least 1"
        )
    return number


def check_ttl(ttl: Any, capacity: Any) -> int:
    """How long a value counts, in milliseconds; 0 for None.

    Raises:
        ConfigError: no number of seconds from 0.001 to 1 073 741, or together with capacity 0.
    """
    if ttl is None:
        return 0
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not isfinite(ttl):
        raise ConfigError(f"ttl={ttl!r} is not a number; give seconds as int or float, or None")
    if not TTL_MIN_SECONDS <= ttl <= TTL_MAX_SECONDS:
        raise ConfigError(f"ttl={ttl!r} is out of range; give {TTL_MIN_SECONDS:g} to {TTL_MAX_SECONDS:.0f} seconds")
    if capacity == 0:
        raise ConfigError(
            "ttl= bounds how long a value may wait to be received, and at capacity 0 none waits; "
            "give a capacity of at least 1"
        )
    return ceil(ttl * 1000)


def spill_of(overflow: Any) -> Spill | None:
    """The policy if it is to spill, else None."""
    return overflow if isinstance(overflow, Spill) else None


def may_drop(overflow: int) -> bool:
    """True where ``send`` may return although the value is dropped."""
    return overflow in (DROP_NEW, DROP_OLD, LATEST)
