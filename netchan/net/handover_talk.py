"""The packets of a hand-over: what two processes of one user say to each other over a SOCK_SEQPACKET socket.

Layer: net (L3). One byte of kind, then the body; descriptors ride on GROUP and FDS. Both sides use a ``Wire`` on a
thread of their own, which may wait. Who says what when is net/handover.py.

A group is a GROUP, which says how many items there are and how long each is, with their descriptors and bytes as far as
they fit; more descriptors follow on FDS packets, more bytes on DATA packets. So most groups are one packet, and each
side has to get its interpreter back once: between busy threads that takes milliseconds.

A forked child closes its copies of what is on the way here: else the other process would not notice the end of this
one. Spec: docs/spec/handover.md §3.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgpack

from netchan.errors import HandoverError
from netchan.net.secret import wipe

VERSION: Final = 2
GROUP_MAX: Final = 256
"""Items of one group."""
GROUP_BYTES: Final = 4 << 20
"""Once a group is so long nothing more is put into it."""
FDS_MAX: Final = 253
"""Descriptors on one packet: SCM_MAX_FD of Linux."""
GROUP_FDS: Final = 65_536
"""Descriptors of one group: 256 listeners with as many sockets each."""
ABOUT_MAX: Final = 64 << 20
"""Bytes that say of one item what the core does not know."""
STATE_MAX: Final = 256 << 20
"""Bytes of the state of one session."""
CHUNK: Final = 65_535
HELD_S: Final = 5.0
"""A group is held so long at most: then it is taken back."""
LOOK_S: Final = 0.05
"""How often somebody who waits for the other process looks whether he should go on."""
_WORDS_MAX: Final = 1_000

_VERSION: Final = struct.Struct("!H")
_GROUP: Final = struct.Struct("!IH")
_SIZES: Final = struct.Struct("!HII")
_FD: Final = struct.Struct("i")


class Kind(IntEnum):
    """The first byte of a packet. HELLO, REFUSED and CANCEL are the same in every version."""

    HELLO = 1
    BEGIN = 2
    GROUP = 3
    DATA = 4
    FDS = 5
    READY = 6
    REFUSED = 7
    RELEASE = 8
    CANCEL = 9
    NEXT = 10
    DONE = 11


class PacketError(HandoverError):
    """The other process sent what is no packet of a hand-over."""


class Sizes(NamedTuple):
    """Of one item: descriptors, bytes of what goes beside the state, bytes of the state."""

    fds: int
    about: int
    state: int


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


# --- bodies -----------------------------------------------------------------------------------------------------------


def pack_version() -> bytes:
    """The body of HELLO and BEGIN."""
    return _VERSION.pack(VERSION)


def parse_version(body: bytes | memoryview) -> int:
    """The version that a HELLO or BEGIN says. Untrusted input. PacketError."""
    if len(body) < _VERSION.size:
        raise PacketError("the other process sent a beginning without a version")
    return int(_VERSION.unpack_from(body)[0])


def pack_group(number: int, sizes: Sequence[Sizes]) -> bytes:
    """The body of GROUP."""
    return _GROUP.pack(number, len(sizes)) + b"".join(_SIZES.pack(*one) for one in sizes)


def parse_group(body: bytes | memoryview, number: int) -> tuple[list[Sizes], int]:
    """How long the items are. Untrusted input.

    Args:
        body: of the packet.
        number: which one is due, from 0.

    Returns:
        (sizes, where in the body the bytes of the items begin).

    Raises:
        PacketError: malformed, out of turn, or beyond a limit.
    """
    if len(body) < _GROUP.size:
        raise PacketError("the other process sent a group that is cut off")
    said, n = _GROUP.unpack_from(body)
    if said != number:
        raise PacketError(f"the other process sent group {said} where {number} is due")
    end = _GROUP.size + n * _SIZES.size
    if not (n or not number) or n > GROUP_MAX or len(body) < end:
        raise PacketError(f"the other process sent a group of {n} items that is not what it says")
    sizes = [Sizes(*row) for row in _SIZES.iter_unpack(body[_GROUP.size : end])]
    if any(one.about > ABOUT_MAX or one.state > STATE_MAX for one in sizes):
        raise PacketError("the other process sent an item that is longer than items are")
    if sum(one.about + one.state for one in sizes[:-1]) > GROUP_BYTES or sum(one.fds for one in sizes) > GROUP_FDS:
        raise PacketError("the other process sent a group that is longer than groups are")
    if len(body) - end > sum(one.about + one.state for one in sizes):
        raise PacketError("the other process sent more of a group than it said")
    return sizes, end


def parse_about(data: bytes) -> dict[str, Any]:
    """What goes beside the state. Untrusted input. PacketError: it is not a map."""
    try:
        about = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        raise PacketError("the other process sent an item that cannot be read") from None
    if not isinstance(about, dict):
        raise PacketError("the other process sent an item that says nothing of itself")
    return about


def words_of(error: BaseException) -> str:
    """What to tell of it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def refusal(body: bytes) -> str:
    """What the other one said at last."""
    return f"the other process says: {body[:_WORDS_MAX].decode('utf-8', 'replace')}"


# --- the connection ---------------------------------------------------------------------------------------------------


class Wire:
    """Packets of one connection.

    Args:
        sock: connected; closed by ``close``.

    Attributes:
        until: monotonic seconds at which whoever waits here gives up; None: never.
        fds: descriptors that came and belong to nobody yet.
    """

    def __init__(self, sock: socket.socket, until: float | None) -> None:
        self.sock, self.until = sock, until
        self.fds: list[int] = []
        self._buffer = bytearray(1 + CHUNK)
        _open.add(self)

    def close(self) -> None:
        """End the connection, and what came over it and was not taken out of ``fds``."""
        self.sock.close()
        fds, self.fds = self.fds, []
        close_all(fds)

    def _wait(self) -> None:
        left = None if self.until is None else self.until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("the other process did not answer in time")
        self.sock.settimeout(left)

    def send(self, kind: Kind, *parts: bytes | bytearray | memoryview, fds: Sequence[int] = ()) -> None:
        """One packet. OSError: the other process has gone."""
        self._wait()
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([bytes((kind,)), *parts], extra)

    def say_last(self, kind: Kind, error: BaseException) -> None:
        """Say why it ends, if the other one still hears it."""
        self.until = time.monotonic() + LOOK_S
        try:
            self.send(kind, words_of(error).encode()[:_WORDS_MAX])
        except OSError:
            pass  # it has gone, or finds out by the end of the connection

    def recv(self, *kinds: Kind) -> tuple[Kind, memoryview]:
        """The next packet: kind and body, which is good until the next call.

        Raises:
            HandoverError: none of these kinds, or the other one says that it ends. EOFError: the other process has
                gone. OSError.
        """
        self._wait()
        room = socket.CMSG_SPACE(FDS_MAX * _FD.size)
        n, extra, flags, _ = self.sock.recvmsg_into([self._buffer], room, socket.MSG_CMSG_CLOEXEC)
        came = [fd for _, _, data in extra for (fd,) in _FD.iter_unpack(data[: len(data) // _FD.size * _FD.size])]
        self.fds += came
        if flags & socket.MSG_CTRUNC:
            raise HandoverError("not all descriptors have come: this process may not open more; raise its limit")
        if not n:
            raise EOFError("the other process has gone")
        body = memoryview(self._buffer)[1:n]
        kind = self._buffer[0]
        if kind in kinds and not flags & socket.MSG_TRUNC and (not came or kind in (Kind.GROUP, Kind.FDS)):
            return Kind(kind), body
        raise _out_of_turn(kind, body)

    # --- groups -------------------------------------------------------------------------------------------------------

    def send_group(self, number: int, items: Sequence[Item]) -> None:
        """All of a group. HandoverError: an item is too large. OSError: the other process has gone."""
        packed = [msgpack.packb(item.about) for item in items]
        sizes = [Sizes(len(item.fds), len(about), len(item.state)) for item, about in zip(items, packed, strict=True)]
        for one in sizes:
            if one.about > ABOUT_MAX or one.state > STATE_MAX or one.fds > FDS_MAX:
                raise HandoverError("a session is too large to be handed over")
        head = pack_group(number, sizes)
        fds = [fd for item in items for fd in item.fds]
        parts = [part for item, about in zip(items, packed, strict=True) for part in (about, item.state)]
        packets = _packets(parts, CHUNK - len(head))
        self.send(Kind.GROUP, head, *next(packets, ()), fds=fds[:FDS_MAX])
        for at in range(FDS_MAX, len(fds), FDS_MAX):
            self.send(Kind.FDS, fds=fds[at : at + FDS_MAX])
        for packet in packets:
            self.send(Kind.DATA, *packet)

    def recv_group(self, body: memoryview, number: int) -> list[Item]:
        """All of a group whose GROUP has just come; its descriptors are in ``fds``, too, until the caller clears that.

        Raises:
            HandoverError: it is not what it says, or not all descriptors have come. EOFError, OSError.
        """
        sizes, start = parse_group(body, number)
        whole, at = bytearray(sum(one.about + one.state for one in sizes)), len(body) - start
        items: list[Item] = []
        with memoryview(whole) as view:
            try:
                view[:at] = body[start:]
                body[start:] = bytes(at)
                self._recv_fds(sum(one.fds for one in sizes))
                while at < len(view):
                    at += self._recv_data(view[at : at + CHUNK])
                fds, begin = iter(self.fds), 0
                for one in sizes:
                    about, state = begin + one.about, begin + one.about + one.state
                    items.append(Item({}, bytearray(view[about:state]), [next(fds) for _ in range(one.fds)]))
                    items[-1].about = parse_about(bytes(view[begin:about]))
                    begin = state
            except BaseException:
                for item in items:
                    wipe(item.state)
                raise
            finally:
                view[:at] = bytes(at)  # what did not come was never memory
        return items

    def _recv_fds(self, wanted: int) -> None:
        """Until so many are here."""
        while (came := len(self.fds)) < wanted:
            self.recv(Kind.FDS)
            if len(self.fds) == came:
                raise PacketError("the other process sent a packet of descriptors without one")
        if came > wanted:
            raise PacketError("the other process sent more descriptors than it said")

    def _recv_data(self, view: memoryview) -> int:
        """The bytes of one DATA packet, without a copy that could not be wiped; how many."""
        kind = bytearray(1)
        self._wait()
        n, _, flags, _ = self.sock.recvmsg_into([kind, view])
        if n > 1 and kind[0] == Kind.DATA and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            return n - 1
        if not n:
            raise EOFError("the other process has gone")
        raise _out_of_turn(kind[0], view[: n - 1])


def _out_of_turn(kind: int, body: bytes | memoryview) -> HandoverError:
    """A packet that may not be here; perhaps the last one."""
    if kind in (Kind.REFUSED, Kind.CANCEL):
        return HandoverError(refusal(bytes(body[:_WORDS_MAX])))
    return PacketError(f"the other process sent a packet of kind {kind} where none may be")


def _packets(parts: Sequence[bytes | bytearray], room: int) -> Iterator[list[memoryview]]:
    """Cut at ``room`` bytes, then at CHUNK, whatever part they belong to."""
    packet: list[memoryview] = []
    for part in parts:
        rest = memoryview(part)
        while len(rest):
            packet.append(rest[:room])
            room -= len(packet[-1])
            rest = rest[len(packet[-1]) :]
            if not room:
                yield packet
                packet, room = [], CHUNK
    if packet:
        yield packet


def close_all(fds: Sequence[int]) -> None:
    """Descriptors of ours."""
    for fd in fds:
        os.close(fd)


_open: Final[weakref.WeakSet[Wire]] = weakref.WeakSet()


def _after_fork() -> None:
    for wire in list(_open):
        wire.close()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
