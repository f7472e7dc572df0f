"""What came from another process: listeners at once, then sessions, a few at a time, until the last one is here.

Layer 6: waits for nothing but the worker. ``keep``, ``act``, ``drop`` and ``end`` are called on the thread of
net.handover.Taking, the claims by the program, at any time: what is claimed before it comes is given out as it comes.
What the other process does is node/estate.py. Spec: docs/spec/handover.md §3, §5.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from netchan.config import CAPABILITY_FIRST
from netchan.errors import ConfigError, HandoverError
from netchan.net import moved, resume
from netchan.net.address import Address, parse_address
from netchan.net.dial import DialPlan, Link, connecting
from netchan.net.handover import on_worker
from netchan.net.handover_talk import Item
from netchan.net.listen import Inherited
from netchan.net.manager import CARRIER_NUMBERS, Home, tend, turn_ratchet
from netchan.net.params import MAX_CAPS
from netchan.net.redial import Redial
from netchan.net.wait import WaitQueue, leaf_lock
from netchan.node.session import PeerCore

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.node.hall import Hall

_log: Final = logging.getLogger("netchan.session")
CLOSE_HANDED_OVER: Final = 3
"""SESSION_CLOSE code for a session that was moved to a process that did not take it over."""
PACE_S: Final = 1.0
"""How long the next sessions wait until the program has taken the last ones from its listener."""
PACE_LOOK_S: Final = 0.001
_CAPS: Final = range(CAPABILITY_FIRST, 1 << 16)


@dataclass
class Heir:
    """A session from another process.

    Attributes:
        about: what the core does not know of it.
        session: of this process; held until ``start``.
        fds: descriptors of its paths, its own from then on.
    """

    about: dict[str, Any]
    session: Session
    fds: list[int]

    @property
    def listener(self) -> int:
        """Number of the listener by which it came in; -1: it was dialled."""
        return int(self.about["session"])

    @property
    def answered(self) -> int:
        """JOINs that were answered before."""
        return int(self.about["answered"])

    @property
    def link(self) -> Link:
        """As the handshake gave it. A process before capabilities says none, and has agreed on none.

        HandoverError: it says what cannot be.
        """
        caps = self.about.get("caps", [])
        fits = isinstance(caps, list) and len(caps) <= MAX_CAPS
        if not fits or not all(type(cap) is int and cap in _CAPS for cap in caps):
            raise HandoverError("the other process sent a session that is not what it says")
        return replace(Link(*self.about["link"]), caps=frozenset(caps))

    def start(self) -> None:
        """It goes on here."""
        from netchan._engine import handover_handle

        links = [(row[0], fd, row[1], row[2]) for row, fd in zip(self.about["links"], self.fds, strict=True)]
        self.fds = []
        self.session.where = dict(self.about["where"]) or None
        handover_handle.start(self.session, links)
        tend(self.session, int(self.about["ratchet"]))

    def drop(self) -> None:
        """It does not, and its descriptors are somebody else's: its peer hears nothing."""
        from netchan._engine import handover_handle

        handover_handle.abandon(self.session)

    def core(self, config: Any) -> PeerCore:
        """Its core for a front that is about to be made."""
        core = PeerCore(self.session.engine, self.session, self.link, config)
        core.inherit(self.about["channels"])
        return core


class Door:
    """A listener of the other process.

    Attributes:
        about: node id and addresses.
        fds: of its sockets, until ``open``.
        socks: the sockets, until they are claimed.
        hall: of the listener that has claimed them.
    """

    def __init__(self, about: dict[str, Any], fds: list[int]) -> None:
        self.about, self.fds = about, fds
        self.socks: list[socket.socket] = []
        self.hall: Hall | None = None

    def open(self) -> None:
        """The sockets are ours."""
        self.socks = [socket.socket(fileno=fd) for fd in self.fds]

    def close(self) -> None:
        """Nobody has claimed them."""
        socks, self.socks = self.socks, []
        for sock in socks:
            sock.close()


@dataclass
class Claim:
    """What a new listener gets of what came from another process: sockets now, sessions when it is up."""

    legacy: Legacy
    doors: list[Door]
    sockets: Inherited

    def settle(self, hall: Hall) -> None:
        """Its sessions go there, also those that come later."""
        self.legacy.settle(self.doors, hall)


class Legacy:
    """What came from another process, on the taker's side (net.handover.Taker).

    Args:
        home: where the sessions will live.

    Attributes:
        news: woken when sessions have come, or no more will.
        dialled_all: every session that the other process had dialled is here.
    """

    def __init__(self, home: Home) -> None:
        # Loaded before a session is here: its first use is no time to wait for it, and there may be no descriptor left.
        import netchan._engine.handover_handle
        import netchan.channel.remote  # noqa: F401

        self.home = home
        self.news = WaitQueue()
        self.dialled_all = False
        self._lock = leaf_lock()
        self._doors: list[Door] = []
        self._heirs: list[Heir] = []
        self._group: list[Heir] = []
        self._fresh: list[Door] = []
        self._pace_s = PACE_S
        self._acts = self._left = self._ended = self._expects = False

    # --- net.handover.Taker ---

    def keep(self, item: Item) -> None:
        """See Taker."""
        from netchan._engine import handover_handle

        try:
            if "listener" in item.about:
                about = item.about["listener"]
                if self._acts or len(about["doors"]) != len(item.fds):
                    raise HandoverError("the other process sent a listener that is not what it says")
                _ = about["node_id"], [(str(asked), str(place)) for asked, place in about["doors"]]
                self._fresh.append(Door(about, item.fds))
                return
            if not self._acts:
                raise HandoverError("the other process sent a session before its listeners")
            session = handover_handle.read(self.home.choose(), item.state, int(item.about["cipher"]))
            heir = Heir(item.about, session, item.fds)
            self._group.append(heir)
            if len(item.about["links"]) != len(item.fds) or heir.listener >= len(self._doors):
                raise HandoverError("the other process sent a session that is not what it says")
            _ = heir.link, heir.answered, item.about["channels"]["accepted"], item.about["channels"]["returned"]
        except (KeyError, TypeError, AttributeError) as error:
            raise HandoverError(f"the other process sent an item without {error}") from None

    def act(self) -> None:
        """See Taker."""
        if not self._acts:
            self._acts = True
            for door in self._fresh:
                door.open()
            self._doors, self._fresh = self._fresh, []
            on_worker(resume.expect)
            self._expects = True
            return
        group, self._group = self._group, []
        known = [heir for heir in group if heir.about["known"]]
        if known:
            on_worker(lambda: _keep_known(known))
        for heir in group:
            try:
                heir.start()
            except Exception:  # the others are ours, too
                _log.exception("a session from another process could not go on")
                heir.session.close(CLOSE_HANDED_OVER)
        halls = self._place(group)
        if any(heir.listener >= 0 for heir in group):
            self.dialled_all = True
        self.news.wake_all()
        self._pace(halls)

    def drop(self) -> None:
        """See Taker."""
        group, self._group, self._fresh = self._group, [], []
        for heir in group:
            heir.drop()

    def end(self) -> None:
        """See Taker."""
        if self._expects:
            on_worker(resume.expected)  # behind what was posted for the last session
        with self._lock:
            self._ended = self.dialled_all = True
            for door in self._doors:
                if door.hall is not None:
                    door.hall.arriving -= 1
        self.news.wake_all()

    def _pace(self, halls: set[Hall]) -> None:
        """The next sessions come when the program has taken these: who waits here for it stands still as well.

        A program that does not take them is waited for once; from then on they come as fast as they can.
        """
        until = time.monotonic() + self._pace_s
        while any(hall.queued() for hall in halls):
            if time.monotonic() >= until:
                self._pace_s = PACE_LOOK_S
                return
            time.sleep(PACE_LOOK_S)
        self._pace_s = PACE_S

    def _place(self, group: list[Heir]) -> set[Hall]:
        """Where they belong: at their listener, here until they are claimed, or nowhere. The listeners."""
        with self._lock:
            left = self._left
            halls = [self._doors[heir.listener].hall if heir.listener >= 0 else None for heir in group]
            if not left:
                self._heirs += [heir for heir, hall in zip(group, halls, strict=True) if hall is None]
        found = {hall for hall in halls if hall is not None}
        for hall in found:
            _give_to(hall, [heir for heir, its in zip(group, halls, strict=True) if its is hall])
        for heir, its in zip(group, halls, strict=True):
            if its is None and left:
                heir.session.close(CLOSE_HANDED_OVER)
        return found

    # --- claims ---

    def claim_listener(self, addresses: Iterable[Address], node_id: str) -> Claim:
        """The sockets for these addresses, and the sessions that came in by them.

        Raises:
            ConfigError: the process before was another node.
        """
        wanted = {str(address) for address in addresses}
        sockets: Inherited = {}
        mine: list[Door] = []
        for door in self._doors:
            doors = door.about["doors"]
            if not door.socks or not any(asked in wanted or place in wanted for asked, place in doors):
                continue
            if door.about["node_id"] != node_id:
                raise ConfigError(
                    f"the process before listened as {door.about['node_id']}; give listen() the same identity, or its "
                    "sessions cannot be resumed"
                )
            for (asked, place), sock in zip(doors, door.socks, strict=True):
                key = asked if asked in wanted else place
                sockets.setdefault(key, []).append((parse_address(place), sock))
            door.socks = []
            mine.append(door)
        return Claim(self, mine, sockets)

    def settle(self, doors: list[Door], hall: Hall) -> None:
        """The sessions of these go to this listener."""
        numbers = {number for number, door in enumerate(self._doors) if door in doors}
        with self._lock:
            heirs = [heir for heir in self._heirs if heir.listener in numbers]
            self._heirs = [heir for heir in self._heirs if heir.listener not in numbers]
            for door in doors:
                door.hall = hall
                if not self._ended:
                    hall.arriving += 1
        _give_to(hall, heirs)

    def may_claim(self, plan: DialPlan) -> bool:
        """True when ``claim_dialled`` gives its last word."""
        return self.dialled_all or self._find(plan) is not None

    def claim_dialled(self, plan: DialPlan) -> Heir | None:
        """The session that was dialled at one of these addresses, with its paths as they are wanted."""
        heir = self._find(plan)
        if heir is not None:
            with self._lock:
                self._heirs.remove(heir)
            self._make_paths(heir, plan, _places(heir))
        return heir

    def _find(self, plan: DialPlan) -> Heir | None:
        wanted = {address.location for address in plan.addresses}
        with self._lock:
            heirs = list(self._heirs)
        for heir in heirs:
            remote = {address.location for address in _places(heir)} or {heir.link.remote}
            if heir.listener < 0 and (wanted & remote) and _may_be(plan, heir.link.node_id):
                return heir
        return None

    @staticmethod
    def _make_paths(heir: Heir, plan: DialPlan, places: list[Address]) -> None:
        session, redial = heir.session, heir.about["redial"]
        if not redial or not places:
            return
        maker = Redial(
            session,
            plan,
            places[0],
            redial["node"],
            heir.link.node_id,
            CARRIER_NUMBERS,
            turn_ratchet,
            connecting,
        )
        paths = [path for _, path in redial["places"]]
        maker.resume_from(list(zip(places, paths, strict=True)), redial["resumes"], redial["path_id"])
        session.maker = maker
        session.on_path = maker.on_path
        maker.on_path("lost" if session.suspended else "")

    def leave(self) -> None:
        """What nobody has claimed ends: sessions are closed, also those that come later, sockets are."""
        with self._lock:
            self._left = True
            heirs, self._heirs = self._heirs, []
        for heir in heirs:
            heir.session.close(CLOSE_HANDED_OVER)
        for door in self._doors:
            door.close()


def _keep_known(heirs: list[Heir]) -> None:
    """Their datagram paths are found by their connection ids. On the worker's thread."""
    for heir in heirs:
        moved.keep_known(heir.session, [(path_id, bytes(cid)) for path_id, cid in heir.about["known"]])


def _give_to(hall: Hall, heirs: list[Heir]) -> None:
    hall.listening.reach([(heir.session, heir.link.node_id, heir.link.remote, heir.answered) for heir in heirs])
    hall.inherit([heir.core(hall.config) for heir in heirs])


def _places(heir: Heir) -> list[Address]:
    """Where its paths were dialled."""
    redial = heir.about["redial"]
    return [parse_address(place) for place, _ in redial["places"]] if redial else []


def _may_be(plan: DialPlan, node_id: str) -> bool:
    named = {address.node_id for address in plan.addresses} - {None}
    return not named or node_id in named
