"""Sessions that another path may still reach: found by locator for those who were dialled, bounded for all.

Layer: net (L3). One table for the process, used on the worker's thread; what the collector does to it is one step under
the interpreter's lock. A forked child begins with an empty one. Spec: docs/spec/handshake.md §11.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from netchan.net.datagrams import MTU_SAFE
from netchan.net.join import gone, locator

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.net.machine import Joined

_log: Final = logging.getLogger("netchan.session")
AHEAD: Final = 2
"""Locators that name a session at a time: the one of the last resume, whose answer may have been lost, and the next."""
SUSPENDED_MAX: Final = 4_096
"""Sessions without a path that a process keeps: beyond it the one that was suspended first is lost early."""
GONE_MAX: Final = 8_192
"""Locators of sessions that are over and forgotten, whose other side can still be told so."""


class _Entry:
    """A session that was dialled from elsewhere."""

    __slots__ = ("__weakref__", "names", "number", "proof", "session")

    def __init__(self, session: Session, number: int) -> None:
        self.session = weakref.ref(session, self._collected)
        self.number = number
        self.proof = gone(session)
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
            _gone[name] = self.proof
        while len(_gone) > GONE_MAX:
            _gone.popitem(last=False)


_table: Final[dict[bytes, _Entry]] = {}
_gone: Final[OrderedDict[bytes, bytes]] = OrderedDict()
_suspended: Final[OrderedDict[int, weakref.ref[Session]]] = OrderedDict()


def keep_reachable(session: Session, number: int = 0) -> None:
    """JOINs find this session from now on; ``number`` of them were answered before."""
    _Entry(session, number)


def numbers() -> dict[int, int]:
    """How many JOINs were answered, by the ``id`` of the session: what ``keep_reachable`` wants in another process."""
    found = {id(entry.session()): entry.number for entry in _table.values()}
    found.pop(id(None), None)
    return found


def find(name: bytes) -> Session | None:
    """The session that a locator names, or None."""
    entry = _table.get(name)
    return None if entry is None else entry.session()


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
    session = entry.session()
    return entry.proof if session is None or session.over else None


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
        _log.info("the path to %s at %s was lost; its session is kept for %g s", node_id, where, session.lease)


def take_path(
    session: Session, fd: int, carrier: int, event: Joined, where: str, *, mtu: int = MTU_SAFE, answer: bytes = b""
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
    """
    living = {path["id"] for path in session.paths()}
    session.where = {number: there for number, there in (session.where or {}).items() if number in living}
    session.where[event.path_id] = where
    if event.beside:
        return session.add(
            fd,
            carrier=carrier,
            path_id=event.path_id,
            binding=event.binding,
            early=event.leftover,
            mtu=mtu,
            answer=answer,
        )
    return session.resume(
        fd,
        carrier=carrier,
        path_id=event.path_id,
        last=event.last,
        received=event.received,
        binding=event.binding,
        early=event.leftover,
        mtu=mtu,
        answer=answer,
    )


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


def resumed(session: Session) -> None:
    """It has one again, or is over."""
    _suspended.pop(id(session), None)


def any_suspended() -> bool:
    """True if a session of this process may wait for a path; those that are gone are forgotten on the way."""
    for key, reference in list(_suspended.items()):
        session = reference()
        if session is not None and session.suspended:
            return True
        _suspended.pop(key, None)
    return False


def _after_fork() -> None:
    _table.clear()
    _gone.clear()
    _suspended.clear()


os.register_at_fork(after_in_child=_after_fork)
