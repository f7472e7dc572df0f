"""Sessions that another path may still reach: found by locator for those who were dialled, bounded for all.

Layer: net (L3). One table for the process, used on the worker's thread; what the collector does to it is one step under
the interpreter's lock. A forked child begins with an empty one. Spec: docs/spec/handshake.md §11.

While sessions move between processes a JOIN may come for one that is not here yet: its connection is parked until the
session comes (``park``, ``expect``). One that is on its way to the other process is not found (``hide``).
Spec: docs/spec/handover.md §3.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from netchan.net import changes
from netchan.net.datagrams import MTU_SAFE
from netchan.net.departed import Departed
from netchan.net.gate import FrameError
from netchan.net.join import gone, locator, parse_request

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.net.machine import Joined

_log: Final = logging.getLogger("netchan.session")
AHEAD: Final = 2
"""Locators that name a session at a time: the one of the last resume, whose answer may have been lost, and the next."""
SUSPENDED_MAX: Final = 4_096
"""Sessions without a path that a process keeps: beyond it the one that was suspended first is lost early."""
PARKED_MAX: Final = 256
"""JOINs that wait for a session from another process; the others are told to try again."""


class _Entry:
    """A session that was dialled from elsewhere."""

    __slots__ = ("__weakref__", "hidden", "names", "number", "proof", "session")

    def __init__(self, session: Session, number: int) -> None:
        self.session = weakref.ref(session, self._collected)
        self.number = number
        self.proof = gone(session)
        self.hidden = False
        self.names: list[bytes] = []
        for ahead in range(AHEAD):
            self.add(session, number + ahead)

    def add(self, session: Session, number: int) -> None:
        name = locator(session, number)
        self.names.append(name)
        _table[name] = self

    def _collected(self, _: object) -> None:
        for name in self.names:
            _table.pop(name, None)
            _gone.add(name, self.proof)


_table: Final[dict[bytes, _Entry]] = {}
_entry_of: Final[weakref.WeakKeyDictionary[Session, _Entry]] = weakref.WeakKeyDictionary()
_parked: Final[dict[bytes, list[Callable[[], object]]]] = {}
_comings: Final[list[None]] = []
"""One for each hand-over that still brings sessions here."""
_gone: Final = Departed()
"""Those that are over and forgotten, whose other side can still be told so."""
_suspended: Final[OrderedDict[int, weakref.ref[Session]]] = OrderedDict()


def keep_reachable(session: Session, number: int = 0) -> None:
    """JOINs find this session from now on; ``number`` of them were answered before. Those that wait for it go on."""
    entry = _entry_of[session] = _Entry(session, number)
    for name in entry.names:
        for again in _parked.pop(name, ()):
            again()


def find(name: bytes) -> Session | None:
    """The session that a locator names, or None."""
    entry = _table.get(name)
    return None if entry is None or entry.hidden else entry.session()


def used(name: bytes) -> None:
    """A genuine JOIN has come with this locator: it stays good for another try, the one before it does not."""
    entry = _table.get(name)
    session = None if entry is None else entry.session()
    if entry is None or session is None or name == entry.names[0]:
        return
    _table.pop(entry.names.pop(0), None)
    entry.number += 1
    entry.add(session, entry.number + AHEAD - 1)


def proof(name: bytes) -> bytes | None:
    """What shows the other side that the session of this locator is over; None: it is not, or is not known."""
    entry = _table.get(name)
    if entry is None:
        return _gone.get(name)
    if entry.hidden:
        return None
    session = entry.session()
    return entry.proof if session is None or session.over else None


def nowhere(frame: bytes) -> bytes | None:
    """What the answer to a JOIN shows besides its code, if its session is not here and will not come.

    None: it has to be looked at. The frame has passed the gate.
    """
    try:
        name = parse_request(frame).locator
    except FrameError:
        return b""  # it names none
    return None if name in _table or may_come(name) else proof(name) or b""


def note(reference: weakref.ref[Session], node_id: str, where: str, news: str) -> None:
    """What became of the path of a session; see ``Session.on_path``."""
    session = reference()
    if session is None or news not in ("lost", "up"):
        return
    if news == "up":
        resumed(session)
        _log.info("the session with %s goes on: there is a path again, at %s", node_id, where)
    else:
        suspended(session)
        why = ": the process there does not know it any more (stateless reset)" if session.forgotten else ""
        _log.info("the path to %s at %s was lost%s; its session is kept for %g s", node_id, where, why, session.lease)


def take_path(
    session: Session,
    fd: int,
    carrier: int,
    event: Joined,
    where: str,
    *,
    mtu: int = MTU_SAFE,
    answer: bytes = b"",
    token: bytes = b"",
) -> bool:
    """Put the connection behind an answered JOIN into use; the descriptor is the engine's, also if this gives False.

    Args:
        session: gets the path.
        fd: the descriptor.
        carrier: number of its kind.
        event: what was agreed.
        where: the other end of the connection, for messages.
        mtu: of a datagram path: bytes of a datagram at most.
        answer: of a datagram path: our last word, which the peer may have to hear again.
        token: of a datagram path: what the peer is to know a reset by.
    """
    living = {path["id"] for path in session.paths()}
    session.where = {number: there for number, there in (session.where or {}).items() if number in living}
    session.where[event.path_id] = where
    if event.beside:
        done = session.add(
            fd,
            carrier=carrier,
            path_id=event.path_id,
            binding=event.binding,
            early=event.leftover,
            mtu=mtu,
            answer=answer,
            token=token,
        )
        changes.note(session)
        return done
    done = session.resume(
        fd,
        carrier=carrier,
        path_id=event.path_id,
        last=event.last,
        received=event.received,
        binding=event.binding,
        early=event.leftover,
        mtu=mtu,
        answer=answer,
        token=token,
    )
    changes.note(session)
    return done


def suspended(session: Session) -> None:
    """This session has lost its path: of too many the one that waits longest is lost."""
    _suspended.pop(id(session), None)  # of another one, that is gone
    _suspended[id(session)] = weakref.ref(session)
    if len(_suspended) > SUSPENDED_MAX:
        for key, reference in list(_suspended.items()):
            waiting = reference()
            if waiting is None or not waiting.suspended:
                _suspended.pop(key, None)
    while len(_suspended) > SUSPENDED_MAX:
        _, reference = _suspended.popitem(last=False)
        oldest = reference()
        if oldest is not None and oldest.suspended:
            oldest.lose()


def any_coming() -> bool:
    """True while sessions may be on their way here from another process."""
    return bool(_comings)


def resumed(session: Session) -> None:
    """It has one again, or is over."""
    _suspended.pop(id(session), None)


def any_suspended() -> bool:
    """True if a session of this process, or one that comes to it, may wait for a path.

    Those that are gone are forgotten on the way.
    """
    if _comings:
        return True
    for key, reference in list(_suspended.items()):
        session = reference()
        if session is not None and session.suspended:
            return True
        _suspended.pop(key, None)
    return False


# --- to and from another process --------------------------------------------------------------------------------------


def hide(sessions: Iterable[Session]) -> list[int]:
    """JOINs do not find these until ``show``; how many of each were answered, for ``keep_reachable`` over there."""
    numbers = []
    for session in sessions:
        entry = _entry_of.get(session)
        if entry is not None:
            entry.hidden = True
        numbers.append(0 if entry is None else entry.number)
    return numbers


def show(sessions: Iterable[Session]) -> None:
    """They have not moved."""
    for session in sessions:
        entry = _entry_of.get(session)
        if entry is not None:
            entry.hidden = False


def forget(sessions: Iterable[Session]) -> None:
    """They have moved: nobody may be told here that they are over."""
    for session in sessions:
        entry = _entry_of.pop(session, None)
        if entry is not None:
            names, entry.names = entry.names, []
            for name in names:
                _table.pop(name, None)


def expect() -> None:
    """Sessions come from another process from now on; ``expected`` once."""
    _comings.append(None)


def expected() -> None:
    """No more come from there: who waits for one that did not come is answered."""
    if _comings:
        _comings.pop()
    if not _comings:
        waiting = [again for name in list(_parked) for again in _parked.pop(name)]
        for again in waiting:
            again()


def may_come(name: bytes) -> bool:
    """True if the session of this locator is not here, and may be on its way."""
    return bool(_comings) and name not in _table and name not in _gone


def park(name: bytes, again: Callable[[], object]) -> bool:
    """Call ``again`` when the session of this locator is here, or will not come; False: too many wait."""
    if parked() >= PARKED_MAX:
        return False
    _parked.setdefault(name, []).append(again)
    return True


def unpark(name: bytes, again: Callable[[], object]) -> None:
    """It waits no more."""
    waiting = _parked.get(name, [])
    if again in waiting:
        waiting.remove(again)
    if not waiting:
        _parked.pop(name, None)


def parked() -> int:
    """How many JOINs wait."""
    return sum(map(len, _parked.values()))


def _after_fork() -> None:
    _table.clear()
    _entry_of.clear()
    _parked.clear()
    _comings.clear()
    _gone.clear()
    _suspended.clear()


os.register_at_fork(after_in_child=_after_fork)
