"""The talk between the process that gives its sessions away and the one that takes them, over a Unix socket.

Layer: net (L3). Both sides run on a thread of their own, which may wait; what is given and what becomes of it is the
callers' (node/estate.py, node/legacy.py). The packets are those of handover_talk.py.

    taker                               giver
    HELLO(version)          ->          same user? then its listeners accept nothing more
                            <-          BEGIN(version)
    ... and for each group, the listeners first:
                            <-          GROUP(sizes) FDS ... DATA ...        from here on the group stands still
    READY, or REFUSED(why)  ->          it is in the taker's hands, and does nothing yet
                            <-          RELEASE, or CANCEL(why)
    NEXT                    ->          it goes on at the taker
                            <-          DONE, when there is no further group

Until RELEASE was sent the giver may take the group back, and does when anything goes wrong; what was released before
has moved. The taker acts when RELEASE has come; or, once it has said READY, when the socket ends without a CANCEL: then
the giver is dead. Spec: docs/spec/handover.md §3.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Protocol, TypeVar

from netchan.errors import HandoverError
from netchan.net.dial import Outcome
from netchan.net.handover_talk import (
    GROUP_MAX,
    HELD_S,
    LOOK_S,
    VERSION,
    Item,
    Kind,
    Wire,
    pack_version,
    parse_version,
    refusal,
    words_of,
)
from netchan.net.places import same_user
from netchan.net.secret import wipe
from netchan.net.worker import worker

T = TypeVar("T")
_log: Final = logging.getLogger("netchan.session")

GROUP_FIRST: Final = 4
"""Sessions of the first group."""
GROUP_LEAST: Final = 4
"""And of a later one at least: their work is no more than that of the talk about them."""
GROUP_S: Final = 0.03
"""How long it may take from one group to the next: it is made as large as that allows."""
SWITCH_S: Final = 0.000_5
"""While sessions move, a thread of this process that wants the interpreter has it so soon; the default is 5 ms."""
PATIENCE_S: Final = 4 * HELD_S
"""How long the taker waits for the next packet while it holds nothing."""
_ENDS: Final = (HandoverError, OSError, EOFError, ValueError, MemoryError)


class Source(Protocol):
    """What is given away. All calls come from the giver's thread."""

    def begin(self) -> list[Item]:
        """Accept nothing more; the listeners."""

    def group(self, most: int) -> list[Item]:
        """Hold at most so many of the sessions that are left; none: there are no more.

        ``take_back`` or ``moved`` follows, also when this raises.
        """

    def take_back(self) -> None:
        """The group goes on here."""

    def moved(self) -> int:
        """The group is in the other process; how many sessions have moved so far."""

    def end(self, all_moved: bool) -> None:
        """Nothing more moves. If not all has, what is left goes on here, and its listeners accept again."""


class Taker(Protocol):
    """What is made of what comes. All calls come from the taker's thread."""

    def keep(self, item: Item) -> None:
        """One item of a group, which does not act; its descriptors are its own from ``act`` on.

        What it raises refuses the group.
        """

    def act(self) -> None:
        """The group is ours."""

    def drop(self) -> None:
        """It is not; gives back what ``keep`` got of it."""

    def end(self) -> None:
        """Nothing more comes."""


# --- the giver --------------------------------------------------------------------------------------------------------


class Giving:
    """One offer to another process. ``start`` it, then wait for ``outcome``; ``cancel`` it when nobody waits any more.

    Args:
        path: of the Unix socket, made here with mode 0600 and removed at the end.
        source: what is given.
        wait_s: how long to wait for the other process.
    """

    def __init__(self, path: str, source: Source, wait_s: float) -> None:
        self.outcome = Outcome[None]()
        self._path, self._source, self._wait_s = Path(path), source, wait_s
        self._given_up = False
        self._gone = 0
        self._began = 0.0
        self._door: socket.socket | None = None

    def start(self) -> None:
        """Begin; raises OSError if the socket cannot be bound."""
        self._door = _bind(self._path)
        threading.Thread(target=self._run, name="netchan-handover", daemon=True).start()

    def cancel(self) -> None:
        """Give no more than what has been given. Any thread."""
        self._given_up = True

    def _run(self) -> None:
        try:
            self._serve()
        except _ENDS as error:
            self.outcome.fail(self._told(error))
        except BaseException as error:
            self.outcome.fail(error)
            raise
        else:
            self.outcome.set(None)

    def _told(self, error: BaseException) -> HandoverError:
        if not self._gone:
            return error if isinstance(error, HandoverError) else HandoverError(words_of(error))
        return HandoverError(
            f"{words_of(error)}; {self._gone} sessions had moved by then and stay over there, all others go on here"
        )

    def _serve(self) -> None:
        assert self._door is not None
        try:
            conn = self._accept(self._door, time.monotonic() + self._wait_s)
        finally:
            # Before anything moves: the other process may offer it at the same place as soon as it has it.
            self._path.unlink(missing_ok=True)
            self._door.close()
        wire = Wire(conn, None)
        try:
            self._greet(wire)
            with quick_turns():
                self._give_all(wire)
        finally:
            wire.close()

    def _accept(self, door: socket.socket, until: float) -> socket.socket:
        door.settimeout(LOOK_S)
        while not self._given_up:
            if time.monotonic() >= until:
                raise HandoverError(
                    f"nobody came to {self._path} within {self._wait_s:g} s; start the program that takes over"
                )
            try:
                conn, _ = door.accept()
            except TimeoutError:
                continue
            if same_user(conn):
                return conn
            conn.close()  # another user: it learns nothing
        raise HandoverError("the hand-over was given up")

    @staticmethod
    def _greet(wire: Wire) -> None:
        wire.until = time.monotonic() + HELD_S
        _, hello = wire.recv(Kind.HELLO)
        version = parse_version(hello)
        if version != VERSION:
            error = HandoverError(
                f"the other process hands over in version {version} and this one in {VERSION}; run the same netchan in "
                "both, or start the new one without taking over"
            )
            wire.say_last(Kind.CANCEL, error)
            raise error

    def _give_all(self, wire: Wire) -> None:
        all_moved = False
        try:
            self._give(wire, 0, self._source.begin)
            number, size = 1, GROUP_FIRST
            while True:
                n = self._give(wire, number, lambda most=size: self._source.group(most))  # type: ignore[misc]
                if not n:
                    break
                size = max(
                    GROUP_LEAST, min(GROUP_MAX, 2 * size, int(n * GROUP_S / max(time.monotonic() - self._began, 1e-6)))
                )
                number += 1
            all_moved = True
        finally:
            self._source.end(all_moved)
        try:
            wire.until = time.monotonic() + HELD_S
            wire.send(Kind.DONE)
        except OSError:
            pass  # it has all

    def _give(self, wire: Wire, number: int, hold: Callable[[], Sequence[Item]]) -> int:
        """One group; how many items it had. None: there was nothing to give."""
        items: Sequence[Item] = ()
        try:
            if self._given_up:
                raise HandoverError("the hand-over was given up")
            items = hold()
            if number and not items:
                self._source.take_back()
                return 0
            self._began = time.monotonic()  # what is held waits from here on
            wire.until = self._began + HELD_S
            if not number:
                wire.send(Kind.BEGIN, pack_version())
            wire.send_group(number, items)
            wire.recv(Kind.READY)
            if self._given_up:
                raise HandoverError("the hand-over was given up")
            wire.send(Kind.RELEASE)
        except BaseException as error:
            why = _last_word(wire) if isinstance(error, OSError) else None
            wire.say_last(Kind.CANCEL, error)
            wire.sock.close()
            self._source.take_back()
            if why is not None:
                raise why from None
            raise
        finally:
            for item in items:
                wipe(item.state)
        self._gone = self._source.moved()
        wire.until = time.monotonic() + PATIENCE_S  # nothing is held here
        wire.recv(Kind.NEXT)
        return len(items)


def _last_word(wire: Wire) -> HandoverError | None:
    """Why the other process has gone, if it has said so."""
    data = b""
    for _ in range(2):
        try:
            wire.sock.settimeout(LOOK_S)
            data = wire.sock.recv(1_001)
            break
        except ConnectionResetError:
            continue  # it left packets of ours unread, which is told once, and before what it said
        except OSError:
            return None
    return HandoverError(refusal(data[1:])) if data[:1] == bytes((Kind.REFUSED,)) else None


def _bind(path: Path) -> socket.socket:
    """A socket on which only this user can connect; what a dead process has left there is removed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        try:
            sock.bind(os.fspath(path))
        except OSError:
            if not _is_stale(path):
                raise
            path.unlink()
            sock.bind(os.fspath(path))
        path.chmod(0o600)  # nobody can connect before listen()
        sock.listen(4)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_stale(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


# --- the taker --------------------------------------------------------------------------------------------------------


class Taking:
    """Takes over what another process gives.

    ``start`` it, then wait for ``outcome``: False: nobody gives; True: the listeners are here, and the sessions follow,
    until ``finished`` is done.

    Args:
        path: where the other process offers.
        wait_s: how long to wait until it does; 0: not at all.
        taker: makes something of it.
    """

    def __init__(self, path: str, wait_s: float, taker: Taker) -> None:
        self.outcome = Outcome[bool]()
        self.finished = Outcome[None]()
        self._path, self._wait_s = path, wait_s
        self._taker = taker
        self._given_up = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="netchan-handover", daemon=True).start()

    def cancel(self) -> None:
        """Take no more than what has come. Any thread."""
        self._given_up = True

    def _run(self) -> None:
        try:
            try:
                sock = self._connect(time.monotonic() + self._wait_s)
                if sock is not None:
                    wire = Wire(sock, time.monotonic() + PATIENCE_S)
                    try:
                        with quick_turns():
                            self._take(wire)
                    finally:
                        wire.close()
            finally:
                self._taker.end()
        except BaseException as error:
            told = error if isinstance(error, HandoverError) or not isinstance(error, _ENDS) else None
            self._end(told or HandoverError(words_of(error)))
            if not isinstance(error, _ENDS):
                raise
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        if error is None:
            self.finished.set(None)
            if not self.outcome.is_done():
                self.outcome.set(False)
        elif self.outcome.is_done():
            _log.warning("no more sessions come from the other process: %s; those that came go on here", error)
            self.finished.fail(error)
        else:
            self.finished.fail(error)
            self.outcome.fail(error)

    def _connect(self, until: float) -> socket.socket | None:
        while not self._given_up:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            try:
                sock.connect(self._path)
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                if time.monotonic() >= until:
                    return None
                time.sleep(LOOK_S)
                continue
            except BaseException:
                sock.close()
                raise
            if not same_user(sock):
                sock.close()
                raise HandoverError(f"{self._path} belongs to another user; nothing is taken from there")
            return sock
        raise HandoverError("the hand-over was given up")

    def _take(self, wire: Wire) -> None:
        wire.send(Kind.HELLO, pack_version())
        number = 0
        while True:
            try:
                body = self._next(wire, number)
                if body is None:
                    return
                for item in wire.recv_group(body, number):
                    try:
                        self._taker.keep(item)
                    finally:
                        wipe(item.state)
                if self._given_up:
                    raise HandoverError("the hand-over was given up")
            except BaseException as error:
                self._taker.drop()
                wire.say_last(Kind.REFUSED, error)
                raise
            self._decide(wire)
            if not number:
                self.outcome.set(True)
            wire.until = time.monotonic() + PATIENCE_S
            wire.send(Kind.NEXT)
            number += 1

    @staticmethod
    def _next(wire: Wire, number: int) -> memoryview | None:
        """The body of the next GROUP; None: there is none."""
        if not number:
            _, begin = wire.recv(Kind.BEGIN)
            version = parse_version(begin)
            if version != VERSION:
                raise HandoverError(f"the other process hands over in version {version} and this one in {VERSION}")
            return wire.recv(Kind.GROUP)[1]
        kind, body = wire.recv(Kind.GROUP, Kind.DONE)
        return body if kind is Kind.GROUP else None

    def _decide(self, wire: Wire) -> None:
        """All of a group is here: ours, or not."""
        try:
            wire.until = time.monotonic() + HELD_S
            wire.send(Kind.READY)
            wire.until = None  # only one of us may act, and the other one knows which
            try:
                wire.recv(Kind.RELEASE)
            except (EOFError, ConnectionResetError):
                pass  # it died: whoever takes back says so
        except BaseException:
            self._taker.drop()
            raise
        wire.fds = []  # the taker's
        self._taker.act()


class quick_turns:  # noqa: N801 - used like a function
    """While this is entered threads pass the interpreter on sooner: what is held waits for each turn of ours."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _entered: ClassVar[int] = 0
    _before: ClassVar[float] = 0.0

    def __enter__(self) -> None:
        kind = type(self)
        with kind._lock:
            kind._entered += 1
            if kind._entered == 1 and sys.getswitchinterval() > SWITCH_S:
                kind._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_S)

    def __exit__(self, *_: object) -> None:
        kind = type(self)
        with kind._lock:
            kind._entered -= 1
            if not kind._entered and kind._before:
                sys.setswitchinterval(kind._before)
                kind._before = 0.0


def on_worker(call: Callable[[], T]) -> T:
    """Run ``call`` on the worker's thread and wait for it; from any other thread."""
    done = threading.Event()
    result: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as caught:
            error.append(caught)
        finally:
            done.set()

    worker().post(run)
    if not done.wait(HELD_S):
        raise HandoverError("the worker of this process is busy; try again")
    if error:
        raise error[0]
    return result[0]
