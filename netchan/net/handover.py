"""The talk between the process that gives its sessions away and the one that takes them, over a Unix socket.

Layer: net (L3). Both sides run on a thread of their own, which may wait; what is given and what becomes of it is the
callers' (node/handover.py). Packets of a SOCK_SEQPACKET socket: one byte of kind, then the rest; descriptors ride on
ITEM.

    taker                               giver
    HELLO(version)          ->          same user? then it stops what it gives
                            <-          BEGIN(version, how many) (ITEM(sizes, descriptors) DATA ...) ... END
    READY, or REFUSED(why)  ->          everything is in the taker's hands, and does nothing yet
                            <-          RELEASE, or CANCEL(why)

Until RELEASE was sent the giver may take everything back, and does when anything goes wrong. The taker acts when
RELEASE has come; or, once it has said READY, when the socket ends without a CANCEL: then the giver is dead.
Spec: docs/spec/handover.md §3.
"""

from __future__ import annotations

import array
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgpack

from netchan.errors import HandoverError
from netchan.net.dial import Outcome
from netchan.net.places import same_user
from netchan.net.secret import wipe
from netchan.net.worker import worker

T = TypeVar("T")

VERSION: Final = 1
ITEMS_MAX: Final = 65_536
"""Listeners and sessions of one hand-over."""
FDS_MAX: Final = 253
"""Descriptors on one packet: SCM_MAX_FD of Linux."""
ABOUT_MAX: Final = 64 << 20
"""Bytes that say of one item what the core does not know."""
STATE_MAX: Final = 256 << 20
"""Bytes of the state of one session."""
CHUNK: Final = 65_536
HELD_S: Final = 5.0
"""Sessions are held so long at most: then everything is taken back."""
LOOK_S: Final = 0.05
"""How often somebody who waits for the other process looks whether he should go on."""

_HELLO, _BEGIN, _ITEM, _DATA, _END, _READY, _REFUSED, _RELEASE, _CANCEL = range(1, 10)
_BEGIN_BODY: Final = struct.Struct("!HI")
_ITEM_BODY: Final = struct.Struct("!HQQ")


@dataclass
class Item:
    """A listener or a session on its way.

    Attributes:
        about: what goes beside the state, for ``msgpack``.
        state: of a session, from the core; wiped by whoever is done with it.
        fds: descriptors, borrowed from the giver; of the taker they are its own.
    """

    about: dict[str, Any]
    state: bytearray = field(default_factory=bytearray)
    fds: list[int] = field(default_factory=list)


class Source(Protocol):
    """What is given away. All calls come from the giver's thread."""

    def hold(self) -> list[Item]:
        """Stop everything and say what it is; ``take_back`` or ``moved`` follows, also when this raises."""

    def take_back(self) -> None:
        """Nothing has happened."""

    def moved(self) -> None:
        """It is all in the other process now."""


class _Wire:
    """Packets of one connection, with a deadline for all of them."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock, self.until = sock, until

    def _wait(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the other process did not answer in time")
        self.sock.settimeout(left)

    def send(self, kind: int, body: bytes | memoryview = b"", fds: list[int] | None = None) -> None:
        """One packet. OSError: the other process has gone."""
        self._wait()
        extra = []
        if fds:
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        self.sock.sendmsg([bytes((kind,)), body], extra)

    def recv(self, *kinds: int) -> tuple[int, bytes, list[int]]:
        """The next packet. HandoverError: none of these kinds; EOFError: the other process has gone."""
        self._wait()
        data, fds, flags, _ = socket.recv_fds(self.sock, CHUNK + 1, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
        if flags & socket.MSG_CTRUNC:
            _close_all(fds)
            raise HandoverError("not all descriptors have come: this process may not open more; raise its limit")
        if not data:
            raise EOFError("the other process has gone")
        kind = data[0]
        if kind not in kinds or (fds and kind != _ITEM):
            _close_all(fds)
            if kind in (_REFUSED, _CANCEL):
                raise HandoverError(_refusal(data))
            raise HandoverError(f"the other process sent a packet of kind {kind} where none may be")
        return kind, data[1:], fds


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
        self._door: socket.socket | None = None

    def start(self) -> None:
        """Begin; raises OSError if the socket cannot be bound."""
        self._door = _bind(self._path)
        threading.Thread(target=self._run, name="netchan-handover", daemon=True).start()

    def cancel(self) -> None:
        """Give nothing, if it has not happened yet. Any thread."""
        self._given_up = True

    def _run(self) -> None:
        try:
            self._serve()
        except (HandoverError, OSError, EOFError, MemoryError) as error:
            self.outcome.fail(error if isinstance(error, HandoverError) else HandoverError(_words(error)))
        except BaseException as error:
            self.outcome.fail(error)
            raise
        else:
            self.outcome.set(None)

    def _serve(self) -> None:
        assert self._door is not None
        try:
            conn = self._accept(self._door, time.monotonic() + self._wait_s)
            with conn:
                self._give(conn)
        finally:
            self._path.unlink(missing_ok=True)
            self._door.close()

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

    def _give(self, conn: socket.socket) -> None:
        wire = _Wire(conn, time.monotonic() + HELD_S)
        _, hello, _ = wire.recv(_HELLO)
        if len(hello) != 2 or int.from_bytes(hello, "big") != VERSION:
            wire.send(_CANCEL, b"this process hands over in another version")
            raise HandoverError("the other process hands over in another version; run the same one")
        items: list[Item] = []
        try:
            items = self._source.hold()
            wire.until = time.monotonic() + HELD_S  # what was held waits from here on
            self._send_all(wire, items)
            wire.recv(_READY)
            if self._given_up:
                raise HandoverError("the hand-over was given up")
            wire.send(_RELEASE)
        except BaseException as error:
            why = _last_word(conn) if isinstance(error, OSError) else None
            try:
                conn.settimeout(LOOK_S)
                conn.sendmsg([bytes((_CANCEL,)), _words(error).encode()[: CHUNK - 1]])
            except OSError:
                pass  # it has gone, or finds out by the end of the connection that it got not all
            conn.close()
            self._source.take_back()
            if why is not None:
                raise why from None
            raise
        finally:
            for item in items:
                wipe(item.state)
        self._source.moved()

    @staticmethod
    def _send_all(wire: _Wire, items: list[Item]) -> None:
        if len(items) > ITEMS_MAX:
            raise HandoverError(f"{len(items)} listeners and sessions are more than {ITEMS_MAX} at a time")
        wire.send(_BEGIN, _BEGIN_BODY.pack(VERSION, len(items)))
        for item in items:
            about = msgpack.packb(item.about)
            if len(about) > ABOUT_MAX or len(item.state) > STATE_MAX or len(item.fds) > FDS_MAX:
                raise HandoverError("a session is too large to be handed over")
            wire.send(_ITEM, _ITEM_BODY.pack(len(item.fds), len(about), len(item.state)), item.fds)
            for whole in (memoryview(about), memoryview(item.state)):
                for at in range(0, len(whole), CHUNK):
                    wire.send(_DATA, whole[at : at + CHUNK])
        wire.send(_END)


def _last_word(conn: socket.socket) -> HandoverError | None:
    """Why the other process has gone, if it has said so."""
    data = b""
    for _ in range(2):
        try:
            conn.settimeout(LOOK_S)
            data = conn.recv(CHUNK)
            break
        except ConnectionResetError:
            continue  # it left packets of ours unread, which is told once, and before what it said
        except OSError:
            return None
    return HandoverError(_refusal(data)) if data[:1] == bytes((_REFUSED,)) else None


def _refusal(data: bytes) -> str:
    return f"the other process says: {data[1:].decode('utf-8', 'replace')}"


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
    """Takes over what another process gives. ``start`` it, then wait for ``outcome``: True, or False: nobody gives.

    Args:
        path: where the other process offers.
        wait_s: how long to wait until it does; 0: not at all.
        keep: takes each item as it comes, without acting; its descriptors are its own then. What it raises refuses.
        act: the items are ours.
        drop: they are not, or no more; gives back what ``keep`` got.
    """

    def __init__(
        self,
        path: str,
        wait_s: float,
        keep: Callable[[Item], object],
        act: Callable[[], object],
        drop: Callable[[], object],
    ) -> None:
        self.outcome = Outcome[bool]()
        self._path, self._wait_s = path, wait_s
        self._keep, self._act, self._drop = keep, act, drop
        self._given_up = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="netchan-handover", daemon=True).start()

    def cancel(self) -> None:
        """Take nothing, if it has not happened yet. Any thread."""
        self._given_up = True

    def _run(self) -> None:
        try:
            conn = self._connect(time.monotonic() + self._wait_s)
            if conn is not None:
                with conn:
                    self._take(conn)
        except (HandoverError, OSError, EOFError, ValueError, MemoryError) as error:
            self.outcome.fail(error if isinstance(error, HandoverError) else HandoverError(_words(error)))
        except BaseException as error:
            self.outcome.fail(error)
            raise
        else:
            self.outcome.set(conn is not None)

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

    def _take(self, conn: socket.socket) -> None:
        wire = _Wire(conn, time.monotonic() + 4 * HELD_S)
        try:
            wire.send(_HELLO, VERSION.to_bytes(2, "big"))
            self._receive(wire)
            if self._given_up:
                raise HandoverError("the hand-over was given up")
        except BaseException as error:
            self._drop()
            try:
                wire.send(_REFUSED, _words(error).encode()[: CHUNK - 1])
            except OSError:
                pass
            raise
        try:
            wire.send(_READY)
            try:
                wire.recv(_RELEASE)
            except (EOFError, ConnectionResetError):
                pass  # it died: whoever takes back says so
        except BaseException:
            self._drop()
            raise
        self._act()

    def _receive(self, wire: _Wire) -> None:
        _, body, _ = wire.recv(_BEGIN)
        if len(body) != _BEGIN_BODY.size:
            raise HandoverError("the other process sent what is no begin of a hand-over")
        version, n = _BEGIN_BODY.unpack(body)
        if version != VERSION or n > ITEMS_MAX:
            raise HandoverError(f"the other process hands over {n} items in version {version}")
        for _ in range(n):
            self._keep(self._item(wire))
        wire.recv(_END)

    @staticmethod
    def _item(wire: _Wire) -> Item:
        _, body, fds = wire.recv(_ITEM)
        item = Item({}, fds=fds)
        try:
            if len(body) != _ITEM_BODY.size:
                raise HandoverError("the other process sent what is no item of a hand-over")
            n_fds, about_len, state_len = _ITEM_BODY.unpack(body)
            if n_fds != len(fds) or about_len > ABOUT_MAX or state_len > STATE_MAX:
                raise HandoverError("the other process sent an item that is not what it says")
            about = _data(wire, about_len)
            item.state = _data(wire, state_len)
            item.about = msgpack.unpackb(bytes(about), strict_map_key=False)
            if not isinstance(item.about, dict):
                raise HandoverError("the other process sent an item that says nothing of itself")
        except BaseException:
            wipe(item.state)
            _close_all(fds)
            raise
        return item


def _data(wire: _Wire, n: int) -> bytearray:
    out = bytearray()
    while len(out) < n:
        _, body, _ = wire.recv(_DATA)
        if not body or len(out) + len(body) > n:
            raise HandoverError("the other process sent more, or less, of an item than it said")
        out += body
    return out


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


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
