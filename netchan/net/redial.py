"""The dialler's side of a session that loses paths: new connections until each wanted address has its path again.

Layer: net (L3). Runs on the worker's thread, but for ``on_path``, ``add`` and ``remove``, which any thread may call.

1. A session has a place for each address to which it wants a path: those of the dial and those that were added. A place
   whose path is lost makes another one. The first attempt starts at once, the next ones after pauses that grow and are
   drawn from all up to the longest (full jitter): at least one a second for a minute, then at most ten seconds apart.
   Names are looked up each time, and what they give takes turns.
2. Attempts of a place connect side by side, at most ``CONNECTS`` of them. Of a session only one JOIN is under way at a
   time: the answer to one that was given up must not count, because the other side follows the last one it got. One
   over UDP makes way for one over a connection that has come up: a network that drops UDP does not hold up TCP.
3. With paths that live the new one comes beside them. Without one it comes instead of all others, the session goes on
   over it, and a ratchet is started.
4. While all paths are silent where they should not be each place makes another one; that one takes its place. So does a
   place whose path is suspect because the network has changed (net/changes.py).
5. A link, address or route that comes ends all pauses, and what was begun before it: an attempt starts at once.

Spec: docs/spec/handshake.md §11; docs/spec/session.md §5.2, §5.3.
"""

from __future__ import annotations

import logging
import os
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from netchan._engine import path_handle
from netchan.errors import ConfigError, DialError, DialTimeout
from netchan.net import changes, gate, resume
from netchan.net.address import Address
from netchan.net.connecting import Connecting, Dialling, Owner
from netchan.net.datagrams import MTU_SAFE, Exchange, mtu_to
from netchan.net.join import MAX_PATH, Joiner
from netchan.net.machine import Joined
from netchan.net.places import numeric, resolve
from netchan.net.worker import Timer, Worker, worker

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.net.dial import DialPlan, Outcome

FIRST_NS: Final = 50_000_000
"""Longest pause behind the first attempt; doubled for each further one."""
LEAST_NS: Final = 10_000_000
"""Shortest pause."""
EAGER_NS: Final = 1_000_000_000
"""Longest pause of the first minute (core of the promise: traffic soon after a path can be had)."""
EAGER_SPAN_NS: Final = 60_000_000_000
LAZY_NS: Final = 10_000_000_000
"""Longest pause afterwards."""
CONNECTS: Final = 3
"""Connections of one place that are being made at a time: bounds what a network that drops everything costs."""
CONNECT_NS: Final = 10_000_000_000
"""A connection that has not come up is given up for another one after this: TCP asks again after 1, 3 and 7 s."""
STEADY_NS: Final = 1_000_000_000
"""A path that was lost sooner than this behind its JOIN does not count as one: the pauses go on growing."""
SAID_AT: Final = 5
"""Attempts after which the log says that an address of a session gives no path, and why."""
UNSURE_NS: Final = 200_000_000
"""Behind this a JOIN over UDP, where nothing may listen, makes way for one over a connection that has come up."""
_log: Final = logging.getLogger("netchan.session")
HURRY_NS: Final = 200_000_000
"""A change of the network so soon behind another one starts no further attempt: the pauses are short by then."""
OLD_NS: Final = 100_000_000
"""A JOIN that was asked so long before a change of the network is given up for an attempt behind it."""
ANSWER_NS: Final = 1_000_000_000
"""Least time for the answer to a JOIN; more where connecting took long, and over UDP, which does not connect, where no
answer came in time: twice, or up to eight times where no other address waits for its turn."""


def drawn_pause(most_ns: int) -> int:
    """A pause of at most ``most_ns``, from the whole range: what was lost together does not come back in step.

    The bounds on pauses are those of the longest one, so drawing shorter ones breaks none of them. On average it is
    half of that, so the floor is only there for two that are drawn short one after the other.
    """
    return int(random.uniform(LEAST_NS, most_ns))  # noqa: S311 - no secret


class _Place:
    """An address to which a path is wanted.

    Attributes:
        path: id of the path that leads there, or None.
        live: its connections that are being made, and when each began.
        asked: who waits for the first path of this place.
        error: of the last attempt that failed.
        unanswered: JOINs in a row to which no answer came in time.
        shaky: the path is suspect because the network has changed.
        was: id of the path before it.
        standby: the path is to be used only where no other one lives, and so is the next one.
        hurried_ns: when a change of the network started an attempt last.
    """

    __slots__ = (
        "address",
        "asked",
        "attempts",
        "error",
        "hurried_ns",
        "live",
        "looking",
        "path",
        "shaky",
        "since_ns",
        "standby",
        "timer",
        "unanswered",
        "up_ns",
        "was",
    )

    def __init__(self, address: Address, path: int | None) -> None:
        self.address, self.path = address, path
        self.live: dict[Connecting, int] = {}
        self.asked: Outcome[int] | None = None
        self.error: BaseException | None = None
        self.timer: Timer | None = None
        self.looking = False
        self.attempts = self.unanswered = 0
        self.since_ns = 0
        self.up_ns = self.hurried_ns = -STEADY_NS
        self.shaky = self.standby = False
        self.was: int | None = None


class Redial(Dialling):
    """Makes the paths of one session that was dialled.

    Args:
        session: held weakly.
        plan: of the dial; node: the other side's identity, 32 bytes, and node_id its name.
        first: the address to which path 0 leads.
        carriers: carrier name -> the engine's number.
        turn: starts a ratchet of the session.
        open_: begins a connection to an address.
    """

    def __init__(
        self,
        session: Session,
        plan: DialPlan,
        first: Address,
        node: bytes,
        node_id: str,
        carriers: dict[str, int],
        turn: Callable[[Session], object],
        open_: Callable[[Worker, Address, int, Owner], Connecting],
    ) -> None:
        self._session = weakref.ref(session)
        self._plan, self._node, self._node_id, self._carriers, self._turn = plan, node, node_id, carriers, turn
        self._open = open_
        self._worker: Worker = worker()
        self._places = [_Place(first, 0)]
        self._places += [_Place(address, None) for address in plan.addresses if address != first]
        self._joining: Connecting | None = None
        self._resumes = 0
        self._path_id = 0

    def about(self) -> dict[str, Any]:
        """What another process needs to go on where this one stands: for ``resume_from``."""
        return {
            "places": [(str(place.address), place.path) for place in self._places if place.asked is None],
            "resumes": self._resumes,
            "path_id": self._path_id,
            "node": self._node,
        }

    def resume_from(self, places: list[tuple[Address, int | None]], resumes: int, path_id: int) -> None:
        """Go on where another process stood. Before anything else is asked of this one."""
        self._places = [_Place(address, path) for address, path in places]
        self._resumes, self._path_id = resumes, path_id
        self._watch()

    def _watch(self) -> None:
        session = self._session()
        if session is not None and self._plan.config.watch_network:
            changes.watch(session)

    def on_path(self, news: str) -> None:
        """See Session.on_path; any thread."""
        self._worker.post(partial(self._look, news))

    def begin(self) -> None:
        """Make the paths that are not there; any thread."""
        self._watch()
        if len(self._places) > 1:
            self._worker.post(partial(self._look, ""))

    def add(self, address: Address, outcome: Outcome[int]) -> None:
        """Want a path to this address, too; ``outcome`` gets its id. Any thread."""
        self._worker.post(partial(self._add, address, outcome))

    def set_standby(self, path_id: int, standby: bool) -> None:
        """The path stands by, or no more, and so do those that are made in its place; any thread."""
        self._worker.post(partial(self._set_standby, path_id, standby))

    def remove(self, path_id: int) -> None:
        """The path ends and is not made again; any thread."""
        self._worker.post(partial(self._remove, path_id))

    # --- the worker's thread ------------------------------------------------------------------------------------------

    def _add(self, address: Address, outcome: Outcome[int]) -> None:
        session = self._session()
        if session is None or session.over:
            outcome.fail(DialError(f"{address.location}: the session has ended; dial again"))
            return
        if address.carrier == "udp" and not session.datagrams:
            outcome.fail(
                ConfigError(
                    f"{address.location}: this session was begun without datagram paths; "
                    "give both sides a Config(datagrams=True)"
                )
            )
            return
        place = _Place(address, None)
        place.asked = outcome
        self._places.append(place)
        self._begin(place)
        limit = time.monotonic_ns() + int(self._plan.config.dial_timeout * 1e9)
        self._worker.at(limit, partial(self._out_of_time, place))

    def _out_of_time(self, place: _Place) -> None:
        if place.asked is not None:
            seconds = self._plan.config.dial_timeout
            why = f" ({place.error})" if place.error is not None else ""
            error = DialTimeout(
                f"{place.address.location}: no path within {seconds:g} s{why}; check the address and that the node of "
                "the session listens there"
            )
            self._give_up(place, error)

    def _give_up(self, place: _Place, error: BaseException) -> None:
        """A place that never had a path is wanted no more."""
        outcome, place.asked = place.asked, None
        self._rest(place)
        if place in self._places:
            self._places.remove(place)
        if outcome is not None:
            outcome.fail(error)

    def _set_standby(self, path_id: int, standby: bool) -> None:
        session = self._session()
        for place in self._places:
            if path_id not in (place.path, place.was):
                continue
            place.standby = standby
            if place.path not in (None, path_id) and session is not None:
                path_handle.set_standby(session, place.path, standby)  # it was lost, and made again, meanwhile

    def on_change(self, suspect: Collection[int], came: bool) -> None:
        """The network has changed: these paths are suspect, and ``came``: there may be a way where there was none."""
        session = self._session()
        if session is None or session.over:
            return
        now = time.monotonic_ns()
        for place in list(self._places):
            place.shaky = place.path in suspect
            if not (came or place.shaky) or self._wanted(place) is None:
                continue
            if now - place.hurried_ns >= HURRY_NS:
                self._hurry(place, now)
            elif place.timer is None:
                self._begin(place)
            # else the pauses are short still

    def _hurry(self, place: _Place, now: int) -> None:
        """An attempt as if it were the first one; what was begun on the ways of before is given up."""
        if place.timer is not None:
            place.timer.cancel()
        place.hurried_ns = place.since_ns = now
        place.attempts = 0
        for conn in list(place.live):
            if conn is not self._joining or now - conn.made_ns >= OLD_NS:
                conn.close()
        self._attempt(place)

    def _remove(self, path_id: int) -> None:
        session = self._session()
        for place in list(self._places):
            if place.path == path_id and session is not None and session.drop(path_id):
                self._rest(place)
                self._places.remove(place)

    def _look(self, news: str) -> None:
        """Something has happened to the paths of the session."""
        session = self._session()
        if session is None or session.over:
            self._stop()
            return
        if news == "lost":
            resume.note(self._session, self._node_id, self._places[0].address.location, "lost")
        mine = path_handle.standbys(session)[0]  # first: of a path that is lost meanwhile the wish stays
        living = {path["id"] for path in session.paths()}
        for place in self._places:
            if place.path in living:
                place.standby = place.path in mine
            if place.path is not None and place.path not in living:
                place.was, place.path = place.path, None
            if place.timer is None and self._wanted(place) is not None:
                self._begin(place)

    def _begin(self, place: _Place) -> None:
        now = time.monotonic_ns()
        if now - place.up_ns < STEADY_NS:
            place.timer = self._worker.at(now + self._pause(place, now), partial(self._attempt, place))
            return
        place.attempts = 0
        place.since_ns = now
        self._attempt(place)

    def _wanted(self, place: _Place) -> Session | None:
        session = self._session()
        if session is None or session.over:
            return None
        if place.shaky and place.path is not None:
            place.shaky = any(path["suspect"] and path["id"] == place.path for path in session.paths())
        wanted = place.path is None or place.shaky or session.suspended or session.suspect
        return session if wanted else None

    def _attempt(self, place: _Place) -> None:
        """Start one attempt, and the timer of the next."""
        place.timer = None
        if self._wanted(place) is None:
            session = self._session()
            if session is None or session.over:
                self._stop()
            self._rest(place)
            return
        now = time.monotonic_ns()
        place.timer = self._worker.at(now + self._pause(place, now), partial(self._attempt, place))
        place.attempts += 1
        if place.attempts == SAID_AT and place.path is None and place.asked is None:
            why = place.error or "no connection came up"
            where = place.address.location
            _log.warning("no path to %s at %s yet: %s; further attempts follow", self._node_id, where, why)
        joining = self._joining
        if joining is not None and joining in place.live and joining.machine is not None:
            if joining.machine.deadline_ns is not None and joining.machine.deadline_ns > now:
                return  # an answer may be on its way
            joining.close()
        address = place.address
        if address.is_numeric:
            try:
                self._connect(place, *numeric(address))
            except OSError:
                pass  # the next attempt
        elif not place.looking:
            place.looking = True
            resolve(address.host, address.port, partial(self._resolved, place))

    def _pause(self, place: _Place, now: int) -> int:
        if now - place.since_ns < EAGER_SPAN_NS:
            return drawn_pause(min(EAGER_NS, FIRST_NS << min(place.attempts, 10)))
        return drawn_pause(LAZY_NS)

    def _resolved(self, place: _Place, found: list[tuple[int, Any]] | OSError) -> None:
        place.looking = False
        if self._wanted(place) is None or isinstance(found, OSError) or not found:
            return
        family, sockaddr = found[place.attempts % len(found)]
        self._connect(place, family, sockaddr)

    def _connect(self, place: _Place, family: int, sockaddr: Any) -> None:
        began = time.monotonic_ns()
        if len(place.live) >= CONNECTS:
            oldest = next(iter(place.live))
            if began - place.live[oldest] < CONNECT_NS:
                return
            oldest.close()
        try:
            conn = self._open(self._worker, place.address, family, self)
        except OSError:
            return
        conn.begin = partial(self._join, place, conn, began)
        place.live[conn] = began
        try:
            conn.connect_to(sockaddr)
        except OSError:
            conn.close()

    def _join(self, place: _Place, conn: Connecting, began: int) -> Joiner | None:
        """A connection is up: the JOIN goes over this one, and over no other any more. None: it is not needed."""
        joining = self._joining
        if joining is not None and joining.machine is not None and joining.machine.deadline_ns is not None:
            asked_ns = time.monotonic_ns() - joining.made_ns
            if not isinstance(joining, Exchange) or isinstance(conn, Exchange) or asked_ns < UNSURE_NS:
                return None  # an answer may be on its way
            joining.close()
        session = self._wanted(place)
        if session is None:
            return None  # the path has answered after all
        self._joining = conn
        self._path_id += 2
        if self._path_id > MAX_PATH:
            raise OverflowError("a session has no further path ids")
        beside = not session.suspended
        last, received = (0, 0) if beside else session.path()
        if beside:
            session.expect_more()
        took = time.monotonic_ns() - began
        least = ANSWER_NS
        if place.address.carrier == "udp":
            least <<= min(place.unanswered, 1 if len(self._places) > 1 else 3)
        plan = self._plan
        network = plan.handshake.network_id
        keys = gate.named_keys(self._node, network) if plan.psk is None else gate.psk_keys(plan.psk, network)
        return Joiner(
            session,
            plan.handshake.primitives,
            keys,
            os.urandom,
            number=self._resumes,
            path_id=self._path_id,
            last=last,
            received=received,
            where=conn.where,
            timeout_ns=max(least, min(4 * took + ANSWER_NS // 4, plan.handshake.timeout_ns)),
            beside=beside,
            datagrams=isinstance(conn, Exchange),
        )

    def _rest(self, place: _Place) -> None:
        """No path is wanted here now."""
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        for conn in list(place.live):
            conn.close()

    def _stop(self) -> None:
        for place in list(self._places):
            self._rest(place)
            if place.asked is not None:
                self._give_up(place, DialError(f"{place.address.location}: the session has ended; dial again"))
        self._joining = None

    def _place_of(self, conn: Connecting) -> _Place | None:
        return next((place for place in self._places if conn in place.live), None)

    # --- Connecting's owner -------------------------------------------------------------------------------------------

    def on_joined(self, conn: Connecting, event: Joined) -> None:
        """The session has another path over this connection."""
        place = self._place_of(conn)
        session = self._session()
        if place is None or session is None or self._joining is not conn:
            conn.close()
            return
        self._resumes += 1
        address = place.address
        mtu = mtu_to(conn.sock.getpeername()) if address.carrier == "udp" else MTU_SAFE
        carrier = self._carriers[address.carrier]
        if not resume.take_path(session, conn.take_fd(), carrier, event, address.location, mtu=mtu):
            return  # the timer tries again
        place.unanswered = 0
        before, place.path = place.path, event.path_id
        if before is not None:
            place.was = before
        place.shaky = False
        if place.standby:
            path_handle.set_standby(session, event.path_id, True)
        place.up_ns = time.monotonic_ns()
        self._rest(place)
        if before is not None and event.beside:
            session.drop(before)  # it was silent; what was sent on it goes over this one
        if not event.beside:
            resume.note(self._session, self._node_id, address.location, "up")
            self._turn(session)
        outcome, place.asked = place.asked, None
        if outcome is not None:
            outcome.set(event.path_id)

    def on_failed(self, conn: Connecting, error: BaseException, reason: str) -> None:
        """The timer tries again, unless the other side has ended the session."""
        session = self._session()
        place = self._place_of(conn)
        if place is not None:
            place.error = error
            place.unanswered += conn.machine is not None and isinstance(error, DialTimeout)
        if isinstance(conn.machine, Joiner) and conn.machine.over and session is not None:
            session.lose()
            self._stop()

    def on_over(self, conn: Connecting) -> None:
        """Forget it."""
        for place in self._places:
            place.live.pop(conn, None)
        if self._joining is conn:
            self._joining = None

    def ask(self, pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        """Never: no policy is asked here."""
        answer(False)
