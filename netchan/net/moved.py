"""Datagrams of a path that come from an address where its peer was not before: a NAT has forgotten it, most often.

Layer: net (L3). One table for the process, used on the worker's thread; what the collector does to it is one step under
the interpreter's lock. The connection id in the datagram names the path; the engine finds out whether the datagram is
sound and newer than all others, and proves the address before the path goes there. Spec: docs/spec/session.md §5.6.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

    from netchan._engine.session_handle import Session

CID: Final = slice(1, 9)
LEAST_BYTES: Final = 40
"""No datagram of a path is shorter."""
PAUSE_NS: Final = 50_000_000
"""A path is asked once in so long on average: bounds what somebody who has seen its connection id can make us do."""
BURST: Final = 4
"""And so many times at once."""


class _Entry:
    """A datagram path that somebody else has dialled."""

    __slots__ = ("__weakref__", "cids", "free_ns", "owner", "path_id", "session")

    def __init__(self, session: Session, path_id: int, cids: tuple[bytes, ...]) -> None:
        self.session, self.path_id, self.cids = weakref.ref(session, self._collected), path_id, cids
        self.owner = id(session)
        self.free_ns = 0  # when all of the burst is allowed again

    def _collected(self, _: object) -> None:
        self.forget()
        mine = _of.get(self.owner)
        if mine is not None and self in mine:  # else the number is another session's by now
            del _of[self.owner]

    def forget(self) -> None:
        for cid in self.cids:
            _table.pop(cid, None)


_table: Final[dict[bytes, _Entry]] = {}
_of: Final[dict[int, list[_Entry]]] = {}
"""Those of a session, so that the ones of its lost paths go."""


def cid_of(binding: bytes) -> bytes:
    """The connection id by which a path that somebody else has dialled is called here, by what it is bound to."""
    return sha256(b"netchan cid v1\0\0" + binding).digest()[:8]


def keep_findable(session: Session, path_id: int, cids: tuple[bytes, ...]) -> None:
    """Datagrams of this path are known from now on, wherever they come from.

    Args:
        session: has the path.
        path_id: of the path.
        cids: how it is called: first ``cid_of`` what it is bound to, then what its peer is told (net/resets.py).
    """
    living = {path["id"] for path in session.paths()}
    mine = [entry for entry in _of.get(id(session), []) if entry.session() is session]
    for entry in mine:
        if entry.path_id not in living:
            entry.forget()
    entry = _Entry(session, path_id, cids)
    for cid in cids:
        _table[cid] = entry
    _of[id(session)] = [*(other for other in mine if other.path_id in living), entry]


def known_of(session: Session) -> list[tuple[int, bytes]]:
    """(path id, connection id) of its paths: what ``keep_known`` wants in another process."""
    mine = [entry for entry in _of.get(id(session), []) if entry.session() is session]
    return [(entry.path_id, cid) for entry in mine for cid in entry.cids]


def keep_known(session: Session, known: list[tuple[int, bytes]]) -> None:
    """As ``keep_findable``, of a session from another process."""
    ids = dict.fromkeys(path_id for path_id, _ in known)
    mine = [_Entry(session, path_id, tuple(cid for its, cid in known if its == path_id)) for path_id in ids]
    _table.update((cid, entry) for entry in mine for cid in entry.cids)
    if mine:
        _of[id(session)] = mine


def is_of_a_path(data: bytes) -> bool:
    """True if a datagram looks like one of a path."""
    return len(data) >= LEAST_BYTES and data[0] >> 6 == 1


def knows(cid: bytes) -> bool:
    """True if this is the id of a path of a session of this process, perhaps of one that was lost. Untrusted input."""
    return cid in _table


def follow(data: bytes, open_to_peer: Callable[[], socket.socket | None]) -> bool:
    """Let the path of this datagram go to the address from which it came, if it is what it seems.

    Args:
        data: the datagram. Untrusted.
        open_to_peer: makes a socket that is connected to that address, or None.
    """
    entry = _table.get(data[CID])
    session = None if entry is None else entry.session()
    now = time.monotonic_ns()
    if entry is None or session is None or entry.free_ns - now > (BURST - 1) * PAUSE_NS:
        return False
    if session.over:
        entry.forget()
        return False
    entry.free_ns = max(entry.free_ns, now) + PAUSE_NS
    sock = open_to_peer()
    if sock is None:
        return False
    if not session.move(entry.path_id, sock.fileno(), data):
        sock.close()
        return False
    sock.detach()
    return True


def _after_fork() -> None:
    _table.clear()
    _of.clear()


os.register_at_fork(after_in_child=_after_fork)
