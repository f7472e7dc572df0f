"""The watcher of links, addresses and routes: one for the process, while a session lives that asked for it.

Layer: net (L3). A job of the worker; everything runs on its thread, but for ``watch`` and ``ended``, which any thread
may call. Without netlink, as in some containers, nothing is watched and all works as it would: slower.

1. ``watch`` names a session. The first one opens the socket and asks for what is there (a dump); then changes come.
2. A change that may concern paths is acted on at once, further ones ``SETTLE_NS`` later together, and never for more
   than about a tenth of the time: routes may change by the thousand.
3. To act: ask of each session which paths are affected (net/affected.py) and tell the engine, which gives what was
   sent there to another path; wake the session's dialler (net/redial.py); ask suspect paths whether they are back.
4. The kernel had no room for what it had to tell (ENOBUFS), or said what cannot be: anything may have changed, so what
   is there is asked for anew.

Spec: docs/spec/session.md §5.10; decision 0012.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
import weakref
from typing import TYPE_CHECKING, Final

from netchan.net import netlink
from netchan.net.affected import NOTHING, Effect, End, Lookup, Picture, affected, learn
from netchan.net.netlink import Done, NetlinkError
from netchan.net.stack import stack
from netchan.net.worker import READ, Timer, Worker, running_worker, worker

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session

SETTLE_NS: Final = 20_000_000
"""Least time between two looks at all sessions; ten times what the last one took, if that is more."""
LEARN_NS: Final = 100_000_000
"""So long after a path was made it is noted by which link it leaves; a change before that has nothing to compare."""
SOON_NS: Final = 100_000_000
"""A session that is over before is not watched: where many short ones follow each other that would cost each a dump."""
READS: Final = 64
"""Reads of one turn of the worker."""
SWEEP_NS: Final = 60_000_000_000
"""Sessions that are over are forgotten at the latest after this, and with the last one the socket."""
_log: Final = logging.getLogger("netchan.session")


class _Watched:
    """A session, and the links on which the packets of its paths leave."""

    __slots__ = ("session", "ways")

    def __init__(self, session: Session) -> None:
        # No callback: it would run in the session's finaliser, which must not let another thread run.
        self.session = weakref.ref(session)
        self.ways: dict[int, int] = {}


class Watcher:
    """See the module head."""

    def __init__(self, at: Worker, sock: socket.socket) -> None:
        self._worker, self._sock, self._fd = at, sock, sock.fileno()
        self.sessions: dict[int, _Watched] = {}
        self.picture = Picture()
        self._fresh: Picture | None = None
        self._to_learn: list[_Watched] = []
        self._stage = 0
        self._sequence = 0
        self._effect = NOTHING
        self._timer: Timer | None = None
        self._later: dict[str, Timer] = {}
        self._quiet_until_ns = 0
        self._complained = False
        at.watch(self._fd, READ, self)
        self._begin()
        self._sweep_later()

    # --- sessions -----------------------------------------------------------------------------------------------------

    def add(self, session: Session) -> None:
        """Look after this session, too; or: it has another path."""
        found = self.sessions.get(id(session))
        if found is None or found.session() is not session:
            found = self.sessions[id(session)] = _Watched(session)
        if not self._to_learn:
            self._later["learn"] = self._worker.at(time.monotonic_ns() + LEARN_NS, self._learn)
        self._to_learn.append(found)

    def _learn(self) -> None:
        """Note on which links the packets of new paths leave; together, since many go the same way."""
        lookup = Lookup(netlink.ask_route)
        to_learn, self._to_learn = self._to_learn, []
        for watched in to_learn:
            session = watched.session()
            if session is not None and not session.over and self._fd >= 0:
                learn(_ends(session), lookup, watched.ways)

    def forget_dead(self) -> None:
        """Sessions that are over; without one left the watcher ends."""
        for key, watched in list(self.sessions.items()):
            session = watched.session()
            if session is None or session.over:
                del self.sessions[key]
        if not self.sessions:
            self.close()

    def close(self) -> None:
        """End it. Idempotent."""
        if _here.watcher is self:
            _here.watcher = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for timer in self._later.values():
            timer.cancel()  # or it would keep this one, and what it knows, for a minute
        if self._fd >= 0:
            self._worker.watch(self._fd, 0, self)
            self._fd = -1
            self._sock.close()

    def _sweep_later(self) -> None:
        def sweep() -> None:
            if self._fd >= 0:
                self.forget_dead()
            if self._fd >= 0:
                self._sweep_later()

        self._later["sweep"] = self._worker.at(time.monotonic_ns() + SWEEP_NS, sweep)

    # --- what the kernel says -----------------------------------------------------------------------------------------

    def on_io(self, mask: int) -> None:
        """See worker.Job."""
        for _ in range(READS):
            try:
                data = self._sock.recv(netlink.READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost_some(error)
                continue
            self.feed(data)
            if self._fd < 0:
                return
        self._act_soon()

    def feed(self, data: bytes) -> None:
        """Bytes of the kernel; what they mean for the paths is done later, by ``act``."""
        try:
            messages = netlink.parse(data)
        except NetlinkError as error:
            self._lost_some(error)
            return
        for message in messages:
            if isinstance(message, Done):
                self._dumped(message)
                continue
            effect = (self._fresh or self.picture).apply(message)
            if self._fresh is None:
                self._effect = Effect(self._effect.went or effect.went, self._effect.came or effect.came)

    def _lost_some(self, error: Exception) -> None:
        if not (isinstance(error, OSError) and error.errno == errno.ENOBUFS) and not self._complained:
            self._complained = True
            _log.warning("changes of the network: what the kernel said could not be read (%s); asking anew", error)
        self._begin()

    def _begin(self) -> None:
        """Ask for all that is there."""
        self._fresh, self._stage = Picture(), 0
        self._ask(netlink.RTM_GETLINK)

    def _ask(self, kind: int) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        try:
            self._sock.send(netlink.dump_request(kind, self._sequence))
        except OSError as error:
            # BlockingIOError: another dump is under way, whose end comes here, too
            if not isinstance(error, BlockingIOError):
                _log.debug("changes of the network are not watched: %s", error)
                self.close()

    def _dumped(self, end: Done) -> None:
        fresh = self._fresh
        if fresh is None or end.sequence != self._sequence:
            return
        if end.code:
            if end.code == -errno.EBUSY:
                self._ask(netlink.RTM_GETADDR if self._stage else netlink.RTM_GETLINK)
            return
        if self._stage == 0:
            self._stage = 1
            self._ask(netlink.RTM_GETADDR)
            return
        fresh.after(self.picture)
        if self.picture.links:  # else it is the first one
            self._effect = Effect(went=True, came=True)
        self.picture, self._fresh = fresh, None

    # --- what it means ------------------------------------------------------------------------------------------------

    def _act_soon(self) -> None:
        if self._effect == NOTHING or self._timer is not None:
            return
        now = time.monotonic_ns()
        if now >= self._quiet_until_ns:
            self._act()
        else:
            self._timer = self._worker.at(self._quiet_until_ns, self._act)

    def _act(self) -> None:
        self._timer = None
        if self._fd < 0:
            return
        began = time.monotonic_ns()
        effect, self._effect = self._effect, NOTHING
        self.act(effect, Lookup(netlink.ask_route))
        now = time.monotonic_ns()
        self._quiet_until_ns = now + max(SETTLE_NS, 10 * (now - began))

    def act(self, effect: Effect, lookup: Lookup) -> None:
        """Tell all sessions."""
        for watched in list(self.sessions.values()):
            session = watched.session()
            if session is None or session.over:
                continue
            try:
                self._tell(session, watched, effect, lookup)
            except Exception:  # one session must not keep the others from hearing of it
                _log.exception("a change of the network could not be told to a session")

    def _tell(self, session: Session, watched: _Watched, effect: Effect, lookup: Lookup) -> None:
        from netchan._engine import path_handle

        ends = _ends(session)
        suspect = {end.path for end in ends if end.state == "suspect"}
        gone = affected(ends, self.picture, lookup, watched.ways) if effect.went else set[int]()
        asked = gone | (suspect if effect.came else set())
        if asked:
            path_handle.doubt(session, asked)
        if gone - suspect:
            _log.info("the network has changed: %d of %d paths of a session are suspect", len(gone), len(ends))
        maker = session.maker
        if maker is not None and (gone or effect.came):
            maker.on_change(gone | suspect, effect.came)

    # --- the rest of worker.Job ---------------------------------------------------------------------------------------

    def step(self) -> None:
        """Never asked for."""

    def on_fault(self, error: BaseException) -> None:
        """Without it all works as before: slower."""
        self.close()

    def close_copy(self) -> None:
        """See worker.Job."""
        self._fd = -1
        self._sock.close()

    def on_stop(self) -> None:
        """See worker.Job."""
        self.close()


class _Here:
    """The watcher of this process."""

    __slots__ = ("graves", "looking", "off", "watcher")

    def __init__(self) -> None:
        self.watcher: Watcher | None = None
        self.off = self.looking = False
        self.graves: list[object] = []


_here: Final = _Here()


def watch(session: Session) -> None:
    """Look after the paths of this session for as long as it lives, from ``SOON_NS`` on. Any thread; never waits."""
    if not stack().has_netlink:
        return
    reference = weakref.ref(session)

    def begin() -> None:
        found = reference()
        if found is None or found.over or _here.off:
            return
        if _here.watcher is None:
            try:
                sock = netlink.open_socket()
            except (OSError, AttributeError) as error:  # no netlink, or no such family of sockets
                # descriptors that are used up may be free when the next session asks
                _here.off = getattr(error, "errno", None) not in (errno.EMFILE, errno.ENFILE)
                _log.debug("changes of the network are not watched: %s", error)
                return
            _here.watcher = Watcher(worker(), sock)
        _here.watcher.add(found)

    worker().post(lambda: worker().at(time.monotonic_ns() + SOON_NS, begin))


def note(session: Session) -> None:
    """A session has another path; one that is not watched is not meant. On the worker's thread."""
    watcher = _here.watcher
    if watcher is not None and id(session) in watcher.sessions:
        watcher.add(session)


def ended() -> None:
    """A session is over: with the last one the watcher ends. Any thread; never waits."""
    at = running_worker() if stack().has_netlink else None
    if at is not None and _here.watcher is not None and not _here.looking:
        _here.looking = True
        at.post(_look)


def watching() -> int:
    """Sessions that are looked after in this process; 0: none, and there is no socket."""
    watcher = _here.watcher
    return 0 if watcher is None else len(watcher.sessions)


def _look() -> None:
    _here.looking = False
    if _here.watcher is not None:
        _here.watcher.forget_dead()


def _ends(session: Session) -> list[End]:
    from netchan._engine import path_handle

    return [End(*row) for row in path_handle.endpoints(session)]


def _after_fork() -> None:
    _here.graves.append(_here.watcher)  # no finaliser may run in the child
    _here.watcher, _here.off, _here.looking = None, False, False


os.register_at_fork(after_in_child=_after_fork)
