# Made from netchan/channel/sender.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``Sender``: the sending half of a channel.

Layer 5; netchan/sync/sender.py is made from this file by tools/async_to_sync.py. A value is prepared at the call, so
that a wrong one raises there, and accepted by ``try_send`` in the caller's own step; only what finds no room, or others
waiting, goes to waits.py.

Ready calls complete without suspending; ``THREAD.budget`` makes every 129th, or one after 0.5 ms, yield to the loop.
Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    Iterable,
)
from importlib import import_module
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeVar, cast

from netchan.channel.base import Level
from netchan.channel.checks import check_certain, check_code, check_level, check_reason, check_still_certain
from netchan.channel.handle import Handle
from netchan.channel.ops import SendOp
from netchan.sync.permit import Reservation
from netchan.sync.waits import (
    new_waiter,
    wait_arrived,
    wait_reached,
    wait_send,
    wait_send_many,
)
from netchan.errors import WouldBlock, channel_closed
from netchan.markers import EMPTY


if TYPE_CHECKING:
    from netchan.channel.redundancy import Redundancy, RedundancyInfo
    from netchan.sync.peer import Peer
    from netchan.channel import sender as awaited

S_contra = TypeVar("S_contra", contravariant=True)

_NONE: Final[Any] = EMPTY
_EXACT_LENGTH: Final[tuple[type, ...]] = (list, tuple, range, dict, set, frozenset, deque, str, bytes, bytearray)
_EXACT_HINT: Final[tuple[type, ...]] = (type(iter([])), type(iter(())), type(iter(range(0))))


class Sender(Handle, Generic[S_contra]):
    """The sending half of a channel, made by ``Channel.split`` and ``clone``; the last close ends the direction.

    One across a session belongs to its process: in a child after ``fork`` its calls raise ForkError.
    """

    __slots__ = ()
    _sends = True
    _counted = True

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self, value: S_contra, /, *, timeout: float | None = None) -> None:
        """Send one value; returns when it is accepted (capacity 0: when a receiver has taken it).

        Args:
            value: fits the channel's type. In process it passes by reference.
            timeout: seconds to wait, 0 = try once, None = no limit.

        Raises:
            ChannelClosed: this direction is over. ChannelAborted, SessionLost: the channel is gone.
            CodecError: the value does not fit. TimeoutError: not accepted in time; nothing was sent.
            SpillError: it had to go to the disk (``overflow=spill(...)``), and that failed.
        """
        prepare = self._ep.prepare
        if prepare is not None:
            value = prepare(value)
        if self._txq.waiting or not self._try_send(value):
            wait_send(self._ep, self._check, value, new_waiter(self._ep, timeout))

    def send_nowait(self, value: S_contra, /) -> None:
        """Send one value if there is room now.

        Raises:
            WouldBlock: no room, or others wait for it. Always on capacity 0, where only a waiting receiver's own step
                can take a value.
            otherwise as ``send``.
        """
        prepare = self._ep.prepare
        prepared = value if prepare is None else prepare(value)
        if (self._txq.reserved() and not self._ep.send_over) or not self._try_send(prepared):
            raise WouldBlock(f"{self!r} has no room now; use send(), or try again after others have received")

    def _send_many(self, values: Iterable[Any], items: Any, *, timeout: float | None = None) -> int:
        kind = type(values)
        left: int | None = None
        if kind in _EXACT_LENGTH:
            left = len(cast("list[Any]", values))
        elif kind in _EXACT_HINT:
            left = length_hint(values)
        return wait_send_many(self._ep, self._check, items, left, lambda: new_waiter(self._ep, timeout))

    def _deliver(self, prepared: Any, *, timeout: float | None = None) -> None:
        ep = self._ep
        waiter = new_waiter(ep, timeout)
        position = 0 if self._txq.waiting else self._try_send(prepared)
        if not position:
            position = wait_send(ep, self._check, prepared, waiter)
        if not ep.reached("taken", position):
            wait_reached(ep, "taken", position, waiter)
        check_still_certain(ep)

    def send_many(self, values: Iterable[S_contra], /, *, timeout: float | None = None) -> int:
        """Send all items, in order; returns their number.

        The next item is taken only when there is room for it: after an error, a timeout included, an
        iterator holds exactly what was not accepted. At capacity 0 the item is fetched in the step of the
        receiver that takes it, on that receiver's thread.

        Args:
            values: see above.
            timeout: seconds to wait for room, None = no limit.

        Raises:
            TypeError: not iterable. TimeoutError: what was accepted stays sent.
            Otherwise as ``send``, and what the iterator raises.
        """
        return self._send_many(values, self._ep.iterate(values), timeout=timeout)

    def deliver(self, value: S_contra, /, *, timeout: float | None = None) -> None:
        """Send one value and wait until a receive call over there has returned it.

        Args:
            value: as for ``send``.
            timeout: seconds for both, None = no limit.

        Raises:
            ConfigError: values of this channel may be dropped (overflow, ttl). After the wait, where the
                other side says so when it opens the channel: the value is sent then, and may be dropped.
            TimeoutError: before acceptance nothing was sent, after it the value stays sent.
            ChannelClosed: the other side stopped before it took the value. Otherwise as ``send``.
        """
        check_certain(self._ep)
        prepare = self._ep.prepare
        self._deliver(value if prepare is None else prepare(value), timeout=timeout)

    def flush(self, level: Level = "received", /, *, timeout: float | None = None) -> None:
        """Wait until everything accepted so far has arrived over there.

        Args:
            level: "received" = the other process has it (in process: at once); "taken" = its receive calls
                returned it.
            timeout: seconds to wait, None = no limit.

        Raises:
            ConfigError: no such level. ChannelClosed: the other side stopped first. TimeoutError: not yet.
            ChannelAborted, SessionLost: the channel is gone. Not raised for what had arrived before.
        """
        self._flush(check_level(level), timeout=timeout)

    def _flush(self, level: Level, *, timeout: float | None = None) -> None:
        ep = self._ep
        position = ep.sent()
        if not ep.reached(level, position):
            wait_reached(ep, level, position, new_waiter(ep, timeout))

    def reserve(self, *, timeout: float | None = None) -> Reservation[S_contra]:
        """Wait for room first, give the value later: ``with tx.reserve() as permit: permit.send(value)``.

        Args:
            timeout: seconds to wait for room, on entering; TimeoutError then.

        Raises (on entering):
            ConfigError: capacity 0, where there is no place to hold. Otherwise as ``send``.
        """
        return Reservation(self._ep, self._check, timeout)

    def send_op(self, value: S_contra = _NONE, /) -> SendOp[S_contra]:
        """An arm for ``select`` that sends ``value``; without one, give it by ``op.set(value)`` before the select.

        Raises:
            CodecError, MessageTooLarge: the value does not fit.
        """
        op: SendOp[S_contra] = SendOp(self)
        return op if value is _NONE else op.set(value)

    # --- handles and ending ------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer | None:
        """The ``Peer`` on the other side; None in process."""
        peer: Peer | None = self._ep.peer
        return peer

    @property
    def redundancy(self) -> Redundancy | None:
        """What several paths of the session are used for by what is sent here; None = what ``Peer.redundancy`` says.

        May be set at any time, to one of the words of ``Peer.redundancy`` or None; each side says it for what it sends.
        It holds for values that need no order beside that of their channel: those of capacity 0, those that may be
        dropped (``overflow``, ``ttl``), and those that share records (``trunk``, up to 1 KiB), go as those of the peer
        do. ConfigError: another word, or a channel in process, which has no paths.
        """
        return self._ep.redundancy

    @redundancy.setter
    def redundancy(self, mode: Redundancy | None) -> None:
        self._ep.redundancy = mode

    @property
    def redundancy_info(self) -> RedundancyInfo | None:
        """What several paths are used for now by what is sent here, and why; None in process.

        Raises:
            ForkError: the session belongs to the parent process.
        """
        return self._ep.redundancy_info

    def clone(self) -> Sender[S_contra]:
        """Another sending half of the same channel: the direction ends when all of them are closed.

        Raises:
            ChannelClosed: this handle is closed.
        """
        self._check()
        return Sender(self._ep)

    def async_view(self) -> awaited.Sender[S_contra]:
        """The same sending half for asyncio and trio, as a handle of its own: await its calls.

        Raises:
            ChannelClosed: this handle is closed.
        """
        self._check()
        view: awaited.Sender[S_contra] = import_module("netchan.channel.sender").Sender(self._ep)
        return view

    @property
    def closed(self) -> bool:
        """True when ``send`` would raise."""
        return self._shut or self._ep.send_over

    def close(self) -> None:
        """No more values from this handle; the last handle closed ends the direction behind its values. Idempotent."""
        self._close(clean=True)

    def _close(self, *, clean: bool) -> None:
        if self._shut:
            return
        self._shut = True
        self._try_send = self._refuse
        ep = self._ep
        handles, me = ep.handles, id(self)
        if not clean:
            handles.unclean = True
        handles.sending.discard(me)
        handles.counted.discard(me)
        if not handles.counted:
            if handles.unclean:
                ep.close_unclean()
            else:
                ep.close_send()
        ep.tx_waiters.wake_all()
        ep.ack_waiters.wake_all()  # offers that are out across a session

    def aclose(self, *, timeout: float | None = None) -> None:
        """Close this handle, then wait (at most ``Config.close_timeout``) until what was accepted has arrived.

        Raises:
            ChannelAborted, SessionLost: accepted values were lost with the channel.

        TimeoutError after ``timeout`` seconds: the handle is closed all the same.
        """
        self.close()
        wait_arrived(self._ep, new_waiter(self._ep, timeout))

    def abort(self, code: int = 0, reason: str = "") -> None:
        """End both directions at once; every later operation on both sides raises ChannelAborted(code, reason).

        Args:
            code: the program's own, 0 to 2**30 - 1.
            reason: at most 256 bytes of UTF-8.

        Raises:
            ConfigError: code or reason out of range.
        """
        self._ep.abort(check_code(code), check_reason(reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.aclose()
        else:
            self._close(clean=False)

    def _check(self) -> None:
        if self._shut:
            self._refuse(None)

    def _refuse(self, prepared: Any) -> NoReturn:
        raise channel_closed(
            self._ep.name, self._ep.peer_id, "this Sender was closed", "use another one, or clone() before you close"
        )
