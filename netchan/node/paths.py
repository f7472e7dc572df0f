"""The paths of a session as a program sees them: what there is, one more, one less, and what several are used for.

Layer 6, beside session.py. Any thread; nothing here waits. Paths are made by the side that dialled (net/redial.py);
each side decides for itself over which of them it sends. Spec: docs/spec/session.md §5, §5.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from netchan._engine import path_handle
from netchan.channel.redundancy import info_of, mode_name, read_mode
from netchan.errors import ConfigError
from netchan.net.address import parse_address
from netchan.net.dial import Outcome
from netchan.net.manager import check_fork

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.channel.redundancy import Redundancy, RedundancyInfo
    from netchan.net.redial import Redial
    from netchan.node.session import PeerCore

PathState = Literal["active", "standby", "suspect"]


@dataclass(frozen=True)
class PathInfo:
    """One connection of a session, as it is now.

    Attributes:
        id: number of the path in the session; never used again.
        address: the other end: what was dialled, or where the connection came from.
        state: "active" = carries what this side sends; "standby" = ready to take over; "suspect" = an acknowledgement
            is overdue and nothing is heard, or its way is gone, so what was sent there goes again over another path,
            where there is one.
        rtt: seconds of a round trip, smoothed; 0.0 without a measurement.
        rate: bytes a second that it delivers, records and all, as far as this side has found out: over a stream by the
            data that is striped, over datagrams by the window of its congestion control; 0.0 without a measurement.
        loss: share of the records sent there that were lost, 0.0 to 1.0; 0.0 over a stream, which hides it.
        in_flight: records sent there and not acknowledged yet.
        ecn: whether routers can mark what this side sends there instead of dropping it (RFC 3168): over datagrams, as
            soon as it is known that the way keeps the marks; over a stream the kernel sees to it, and this is False.
        marks: acknowledgements that told of such a mark, each of which slowed the path down as a loss would.
    """

    id: int
    address: str
    state: PathState
    rtt: float
    rate: float
    loss: float
    in_flight: int
    ecn: bool
    marks: int


def paths_of(session: Session, first: str) -> tuple[PathInfo, ...]:
    """The paths that are up, oldest first; empty while there is none. ``first``: address of the first of all."""
    all_carry = session.spreads
    where = session.where or {}
    return tuple(
        PathInfo(
            path["id"],
            where.get(path["id"], first if path["id"] == 0 else ""),
            "suspect"
            if path["suspect"]
            else "active"
            if path["control"] or (all_carry and not path["aside"])
            else "standby",
            path["rtt_us"] / 1e6,
            float(path["rate"]),
            path["lost"] / max(1, path["sent"]),
            path["in_flight"],
            path["ecn"] != 0,
            path["marks"],
        )
        for path in session.paths()
    )


def set_redundancy(session: Session, mode: object) -> None:
    """What several paths are used for from now on, in the direction of this side."""
    session.mode = read_mode(mode)


def redundancy_of(session: Session) -> Redundancy:
    """What they are used for."""
    return mode_name(session.mode)


def redundancy_info(session: Session) -> RedundancyInfo:
    """The same, and why."""
    return info_of(session.mode, session.redundancy(), "peer")


def add_path(core: PeerCore, address: object) -> Outcome[int]:
    """Begin to make another path; the outcome is its id."""
    check_fork(core.made)
    maker = _maker(core)
    place = parse_address(address)
    if place.node_id not in (None, core.link.node_id):
        raise ConfigError(f"{place} names another node than the session's, {core.link.node_id}: dial it")
    outcome = Outcome[int]()
    maker.add(place, outcome)
    return outcome


def remove_path(core: PeerCore, path: PathInfo | int) -> None:
    """End a path, and want it no more."""
    number = path.id if isinstance(path, PathInfo) else path
    maker = _maker(core)
    living = [each["id"] for each in core.session.paths()]
    if number not in living:
        raise ConfigError(f"there is no path {number!r}; peer.paths has those that are up")
    if len(living) == 1:
        raise ConfigError(f"path {number} is the only one; add another first, or close the peer")
    maker.remove(number)


def set_standby(core: PeerCore, path: PathInfo | int, standby: bool) -> None:
    """Use a path only where no other one lives, or as the others."""
    check_fork(core.made)
    number = path.id if isinstance(path, PathInfo) else path
    if standby is not True and standby is not False:
        raise ConfigError(f"standby={standby!r} is not a bool; write True or False")
    if isinstance(number, bool) or number not in [each["id"] for each in core.session.paths()]:
        raise ConfigError(f"there is no path {number!r}; peer.paths has those that are up")
    if not path_handle.set_standby(core.session, number, standby):
        raise ConfigError(f"path {number} is the only one that this session can have, or it is gone by now")
    if core.session.maker is not None:
        core.session.maker.set_standby(number, standby)


def _maker(core: PeerCore) -> Redial:
    maker: Redial | None = core.session.maker
    if maker is None:
        if core.session.lease == 0:
            raise ConfigError("a session with lease 0 has one path; give both sides a Config(lease=...) above 0")
        raise ConfigError(f"paths to {core.link.node_id} are made by that side: it has dialled this session")
    return maker
