"""What a direction does with a value for which there is no room, how long a value counts, and whether it may share
records with other channels: names and checks.

Layer 5; both fronts use this file as it is. Spec: docs/spec/channel-end.md §8, docs/spec/session.md §4.2.
"""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from netchan.errors import ConfigError

Overflow: TypeAlias = Literal["block", "drop_new", "drop_old", "latest", "disconnect"]
"""block: the sender waits. drop_new: the value that does not fit is dropped. drop_old: the oldest that nobody took is.
latest: only the newest stays. disconnect: the channel is aborted with ``Code.LIMIT``."""

NAMES: Final[tuple[Overflow, ...]] = get_args(Overflow)
BLOCK: Final = 1
"""Numbers on the wire: the place in ``NAMES``, from 1; 0 = nothing was said."""
DROP_NEW: Final = 2
DROP_OLD: Final = 3
LATEST: Final = 4
DISCONNECT: Final = 5

TTL_MIN_SECONDS: Final = 0.001
TTL_MAX_SECONDS: Final = (2**30 - 1) / 1000
"""12.4 days: what the four bytes of a deadline say in milliseconds."""


class Terms(NamedTuple):
    """What one side says of a channel when it opens it, beside name, type and capacity.

    Attributes:
        overflow: number of the policy; 0 = nothing is said.
        ttl_ms: milliseconds; 0 = nothing is said.
        trunk: small values may share records, and the key of these, with those of other channels of which it is said.
    """

    overflow: int = 0
    ttl_ms: int = 0
    trunk: bool = False


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
    if not isinstance(overflow, str) or overflow not in NAMES:
        raise ConfigError(f"overflow={overflow!r} is no policy; give one of {', '.join(map(repr, NAMES))}")
    number = NAMES.index(overflow) + 1
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


def may_drop(overflow: int) -> bool:
    """True where ``send`` may return although the value is dropped."""
    return overflow in (DROP_NEW, DROP_OLD, LATEST)
