"""What becomes of a session and its paths, as events for a program: made here, kept here until somebody takes them.

Layer 6, beside session.py; any thread; nothing here waits (watching.py and its blocking twin do). The core notes what
became of the paths (docs/spec/session.md §5.9), session.py says when the session ends.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from netchan._engine import path_handle
from netchan.net.wait import WaitQueue, leaf_lock

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

EVENTS_MAX: Final = 256
"""Events of one session that wait to be taken; of more than that the oldest go, and are counted."""
EventKind = Literal[
    "path_added",
    "path_lost",
    "path_active",
    "path_standby",
    "path_suspect",
    "suspended",
    "resumed",
    "lost",
    "closed",
    "overflow",
]


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """Something that became of a session, or of one of its paths.

    Attributes:
        kind: "path_added" = there is another path; "path_lost" = one is no more; "path_active" = it carries what this
            side sends; "path_standby" = it is ready to take over; "path_suspect" = nothing is heard on it where
            something should be, or its way is gone; "suspended" = the last path is lost, and the session waits for
            another; "resumed" = it has one; "lost" = the session is over by a fault; "closed" = it is over, and was
            left by a side; "overflow" = events are missing here, because nobody took them in time.
        peer_id: node id of the other side.
        path: id of the path, as in ``Peer.paths``; of a session that is suspended or resumed the last or the new one;
            None where no path is meant.
        address: the other end of that path; "" where it is not known any more.
        at: when it was noticed here, as of ``time.time()``.
        cause: why the session was lost; else None.
        dropped: of "overflow": how many events are missing; else 0.
    """

    kind: EventKind
    peer_id: str
    path: int | None = None
    address: str = ""
    at: float = 0.0
    cause: BaseException | None = None
    dropped: int = 0


_KINDS: Final[dict[str, EventKind]] = {
    "active": "path_active",
    "standby": "path_standby",
    "suspect": "path_suspect",
    "lost": "path_lost",
    "suspended": "suspended",
    "resumed": "resumed",
}


class EventLog:
    """The events of one session that nobody has taken yet.

    Attributes:
        waiters: callers that wait for the next one.
        over: the last one is here.
    """

    def __init__(self, session: Session, peer_id: str, first: str) -> None:
        self.waiters = WaitQueue()
        self.over = False
        self._session, self._peer_id, self._first = session, peer_id, first
        self._kept: deque[PeerEvent] = deque()
        self._dropped = 0
        self._where: dict[int, str] = {0: first}
        self._lock = leaf_lock()

    def look(self) -> None:
        """Enter what the core has noted since the last time."""
        found, missing = path_handle.take_events(self._session)
        now = time.time()
        events: list[PeerEvent] = []
        self._where |= self._session.where or {}
        for path, what, before in found:
            where = self._where.get(path, "")
            if before == "new" and what in ("active", "standby", "suspect"):
                events.append(PeerEvent("path_added", self._peer_id, path, where, now))
            if what in _KINDS:
                events.append(PeerEvent(_KINDS[what], self._peer_id, path, where, now))
            if what == "lost" and path:
                self._where.pop(path, None)
        self._enter(events, missing)

    def end(self, cause: BaseException | None) -> None:
        """The session is over; ``cause``: None where a side left it. Only the first call counts."""
        if self.over:
            return
        self.look()
        kind: EventKind = "closed" if cause is None else "lost"
        self._enter([PeerEvent(kind, self._peer_id, None, self._first, time.time(), cause)], 0)
        self.over = True
        self.waiters.wake_all()

    def _enter(self, events: list[PeerEvent], missing: int) -> None:
        with self._lock:
            if self.over:
                return
            if missing:  # the core had room for the newest ones only
                self._kept.append(PeerEvent("overflow", self._peer_id, at=time.time(), dropped=missing))
            self._kept.extend(events)
            while len(self._kept) > EVENTS_MAX:
                self._dropped += self._kept.popleft().dropped or 1
        if events or missing:
            self.waiters.wake_all()

    def take(self) -> PeerEvent | None:
        """The oldest event; where some are missing before it, that first. None: there is none now."""
        with self._lock:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return PeerEvent("overflow", self._peer_id, at=time.time(), dropped=dropped)
            return self._kept.popleft() if self._kept else None

    def is_ready(self) -> bool:
        """True when ``take`` would give one, or none will come any more."""
        return bool(self._kept or self._dropped or self.over)
