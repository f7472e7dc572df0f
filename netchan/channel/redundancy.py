"""What several paths are used for: the words for it, and what a program is told about a mode that is picked.

Layer 5; both fronts use this file as it is. Spec: docs/spec/session.md §5.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from netchan.errors import ConfigError

if TYPE_CHECKING:
    Told = tuple[int, int, int, int, int, int, int, int, int, int, int, bool]
    Mode = tuple[int, int, int]

Redundancy = str
"""``"failover"``, ``"stripe"``, ``"mirror"``, ``"parity(k, m)"`` or ``"auto"``."""
_MODES: Final = ("failover", "stripe", "mirror", "parity", "auto")
"""By number of the core (nc_mode)."""
_PARITY: Final = re.compile(r"parity\(([0-9]{1,2}), ?([0-9]{1,2})\)", re.ASCII)
_SYMBOLS_MAX: Final = 32
"""Data and parity symbols of one group (docs/spec/parity.md §1.1)."""
_WHY: Final = (
    "nothing was measured yet",
    "there is one path",
    "paths lose nothing, and values are no more than one of them brings",
    "more is sent than one path brings",
    "datagrams are lost",
    "a path fell silent or was lost not long ago",
)
"""By number of the core (nc_auto_why)."""


@dataclass(frozen=True, slots=True)
class RedundancyInfo:
    """What several paths are used for now in the direction of this side, and why.

    Attributes:
        asked: what the program said: of the channel, or else of the peer.
        in_force: what it comes to: what "auto" picked, and "parity(k, m)" with k as far as there are paths for it.
        why: the reason, in words.
        since: moment on the clock of ``time.monotonic`` at which "auto" picked it; None where the program said it.
        paths: paths that are not suspect.
        loss: share of the datagrams that were lost of late, 0.0 to 1.0, on the path that lost most.
        rtt: seconds of the shortest round trip; 0.0 without a measurement.
        rate: bytes of values a second; 0.0 where nothing is picked.
        size: bytes of a value on average; 0 where nothing is picked.
        waits: bytes that waited to be sent.

    The figures are those from which "auto" has picked it, else those of now.
    """

    asked: Redundancy
    in_force: Redundancy
    why: str
    since: float | None
    paths: int
    loss: float
    rtt: float
    rate: float
    size: int
    waits: int


def read_mode(mode: Any) -> Mode:
    """Number, k and m of a word.

    Raises:
        ConfigError: no such word, or k and m that cannot be.
    """
    if isinstance(mode, str):
        if mode in _MODES and mode != "parity":
            return _MODES.index(mode), 0, 0
        symbols = _PARITY.fullmatch(mode)
        if symbols is not None:
            k, m = int(symbols[1]), int(symbols[2])
            if k and m and k + m <= _SYMBOLS_MAX:
                return _MODES.index("parity"), k, m
            raise ConfigError(f"redundancy={mode!r}: k and m are 1 or more, and at most {_SYMBOLS_MAX} together")
    raise ConfigError(f"redundancy={mode!r} is not known; it is one of failover, stripe, mirror, parity(k, m), auto")


def mode_name(mode: Mode) -> Redundancy:
    """The word for number, k and m."""
    number, k, m = mode
    return f"parity({k}, {m})" if _MODES[number] == "parity" else _MODES[number]


def info_of(asked: Mode, told: Told, whose: str) -> RedundancyInfo:
    """``told``: of the core (session_handle.told_of). ``whose``: who asked for what is not picked."""
    number, k, m, why, since, paths, loss, rtt, rate, size, waits, _trouble = told
    in_force = mode_name((number, k, m))
    reason = f"the {whose} is set to it" if why < 0 else _WHY[why]
    if why < 0 and asked[0] == _MODES.index("parity") and k != asked[1]:
        reason += f"; with {paths} paths one may vanish with no more than {k} data symbols to {m}"
    return RedundancyInfo(
        mode_name(asked),
        in_force,
        reason,
        None if since < 0 else since / 1e9,
        paths,
        loss / 1e6,
        rtt / 1e9,
        float(rate),
        size,
        waits,
    )
