"""What a process gives to the one that takes its place, and what that one makes of it: listeners and sessions as items.

Layer 6: waits for nothing but the worker; no sockets of its own. The giver's side is called on the thread of
net.handover.Giving, the taker's ``keep`` and ``act`` on that of Taking.
Spec: docs/spec/handover.md §2, §3.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from netchan.errors import ConfigError, HandoverError
from netchan.net import moved, resume
from netchan.net.address import Address, parse_address
from netchan.net.dial import DialPlan, Link, connecting
from netchan.net.handover import Item, on_worker
from netchan.net.listen import Inherited
from netchan.net.manager import CARRIER_NUMBERS, Home, ratchet_number, tend, turn_ratchet
from netchan.net.redial import Redial
from netchan.net.secret import wipe
from netchan.node.session import PeerCore

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.node.hall import Hall

SETTLE_S: Final = 1.0
"""Handshakes that are going on may end before everything is held; the others are cut, and dial again."""
CLOSE_HANDED_OVER: Final = 3
"""SESSION_CLOSE code for a session that was moved to a process that did not take it over."""


class Estate:
    """The listeners and sessions of one hand-over, on the giver's side (net.handover.Source)."""

    def __init__(self, halls: Iterable[Hall], cores: Iterable[PeerCore]) -> None:
        self._halls, self._dialled = list(halls), list(cores)
        self._held: list[Session] = []
        self._paused: list[Hall] = []

    def hold(self) -> list[Item]:
        """See Source."""
        for hall in self._halls:
            self._paused.append(hall)
            on_worker(hall.listening.pause)
        until = time.monotonic() + SETTLE_S
        while any(hall.listening.busy for hall in self._halls) and time.monotonic() < until:
            time.sleep(0.005)
        answered = on_worker(resume.numbers)
        items: list[Item] = []
        for place, hall in enumerate(self._halls):
            doors = on_worker(hall.listening.sockets)
            about = {"node_id": hall.node_id, "doors": [door[:2] for door in doors]}
            items.append(Item({"listener": about}, fds=[door[2] for door in doors]))
            for core in hall.living():
                self._hold(core, place, answered, items)
        for core in self._dialled:
            self._hold(core, -1, answered, items)
        return items

    def _hold(self, core: PeerCore, place: int, answered: dict[int, int], items: list[Item]) -> None:
        from netchan._engine import handover_handle

        session, link = core.session, core.link
        if core.left:
            return  # it is being left: this process does that to its end
        self._held.append(session)
        found = handover_handle.hold(session, list(core.endpoints()))
        if found is None:
            self._held.remove(session)
            return
        state, cipher, links = found
        try:
            about = {
                "session": place,
                "cipher": cipher,
                "link": [link.carrier, link.local, link.remote, link.node_id, link.max_message, link.keeps],
                "links": [[path_id, pend, answer] for path_id, _, pend, answer in links],
                "where": session.where or {},
                "ratchet": ratchet_number(session),
                "answered": answered.get(id(session), 0),
                "known": moved.known_of(session),
                "redial": session.maker.about() if isinstance(session.maker, Redial) else None,
                "channels": core.about_channels(),
            }
        except BaseException:
            wipe(state)
            raise
        items.append(Item(about, state, [fd for _, fd, _, _ in links]))

    def take_back(self) -> None:
        """See Source."""
        from netchan._engine import handover_handle

        for session in self._held:
            handover_handle.unhold(session)
        for hall in self._paused:
            on_worker(hall.listening.go_on)
        self._held, self._paused = [], []

    def moved(self) -> None:
        """See Source."""
        from netchan._engine import handover_handle

        for session in self._held:
            handover_handle.moved(session)
        for hall in self._halls:
            on_worker(hall.moved)


@dataclass
class Heir:
    """A session from another process.

    Attributes:
        about: what the core does not know of it.
        session: of this process; held until ``start``.
        fds: descriptors of its paths, until then.
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
        """As the handshake gave it."""
        return Link(*self.about["link"])

    def start(self) -> None:
        """It goes on here."""
        from netchan._engine import handover_handle

        known = [(path_id, bytes(cid)) for path_id, cid in self.about["known"]]
        if known:
            on_worker(lambda: moved.keep_known(self.session, known))
        links = [(row[0], fd, row[1], row[2]) for row, fd in zip(self.about["links"], self.fds, strict=True)]
        self.fds = []
        self.session.where = dict(self.about["where"]) or None
        handover_handle.start(self.session, links)
        tend(self.session, int(self.about["ratchet"]))

    def drop(self) -> None:
        """It does not: its peer hears nothing."""
        from netchan._engine import handover_handle

        for fd in self.fds:
            os.close(fd)
        self.fds = []
        handover_handle.abandon(self.session)

    def core(self, config: Any) -> PeerCore:
        """Its core for a front that is about to be made."""
        core = PeerCore(self.session.engine, self.session, self.link, config)
        core.inherit(self.about["channels"])
        return core


@dataclass
class Legacy:
    """What came from another process, on the taker's side."""

    home: Home
    listeners: list[tuple[dict[str, Any], list[socket.socket]]] = field(default_factory=list)
    heirs: list[Heir] = field(default_factory=list)

    # --- net.handover.Taking ---

    def keep(self, item: Item) -> None:
        """One item; nothing acts yet."""
        from netchan._engine import handover_handle

        try:
            if "listener" in item.about:
                socks = [socket.socket(fileno=fd) for fd in item.fds]
                self.listeners.append((item.about["listener"], socks))
                return
            session = handover_handle.read(self.home.choose(), item.state, int(item.about["cipher"]))
            heir = Heir(item.about, session, item.fds)
            self.heirs.append(heir)
            if len(item.about["links"]) != len(item.fds) or heir.listener >= len(self.listeners):
                raise HandoverError("the other process sent a session that is not what it says")
            _ = heir.link, item.about["channels"]["accepted"], item.about["channels"]["returned"]
        except (KeyError, TypeError, AttributeError) as error:
            raise HandoverError(f"the other process sent an item without {error}") from None
        finally:
            wipe(item.state)

    def act(self) -> None:
        """All of it is ours."""
        for heir in self.heirs:
            heir.start()

    def drop(self) -> None:
        """None of it is."""
        for heir in self.heirs:
            heir.drop()
        for _, socks in self.listeners:
            for sock in socks:
                sock.close()
        self.heirs, self.listeners = [], []

    # --- claims ---

    def claim_listener(self, addresses: Iterable[Address], node_id: str) -> tuple[Inherited, list[Heir]]:
        """The sockets for these addresses, and the sessions that came in by them.

        Raises:
            ConfigError: the process before was another node.
        """
        wanted = {str(address) for address in addresses}
        sockets: Inherited = {}
        heirs: list[Heir] = []
        for number, (about, socks) in enumerate(self.listeners):
            if not socks or not any(asked in wanted or place in wanted for asked, place in about["doors"]):
                continue
            if about["node_id"] != node_id:
                raise ConfigError(
                    f"the process before listened as {about['node_id']}; give listen() the same identity, or its "
                    "sessions cannot be resumed"
                )
            for (asked, place), sock in zip(about["doors"], socks, strict=True):
                key = asked if asked in wanted else place
                sockets.setdefault(key, []).append((parse_address(place), sock))
            self.listeners[number] = (about, [])
            heirs += [heir for heir in self.heirs if heir.listener == number]
        self.heirs = [heir for heir in self.heirs if heir not in heirs]
        return sockets, heirs

    def claim_dialled(self, plan: DialPlan) -> Heir | None:
        """The session that was dialled at one of these addresses, with its paths as they are wanted."""
        wanted = {address.location for address in plan.addresses}
        for heir in self.heirs:
            redial = heir.about["redial"]
            places = [parse_address(place) for place, _ in redial["places"]] if redial else []
            remote = {address.location for address in places} or {heir.link.remote}
            if heir.listener < 0 and (wanted & remote) and _may_be(plan, heir.link.node_id):
                self.heirs.remove(heir)
                self._make_paths(heir, plan, places)
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
        from netchan.net.aside import collect_paths

        collect_paths(session.engine)
        maker.on_path("lost" if session.suspended else "")

    def leave(self) -> None:
        """What nobody has claimed ends: sessions are closed, sockets are."""
        for heir in self.heirs:
            heir.session.close(CLOSE_HANDED_OVER)
        for _, socks in self.listeners:
            for sock in socks:
                sock.close()
        self.heirs, self.listeners = [], []


def _may_be(plan: DialPlan, node_id: str) -> bool:
    named = {address.node_id for address in plan.addresses} - {None}
    return not named or node_id in named
