"""What users hold: ``Sender``, ``Receiver``, ``Channel``, and the two channels in process.

Layer 5; netchan/sync/fronts.py is made from this file by tools/async_to_sync.py. A handle adds three things to an
endpoint (base.py): waiting (waits.py), the count of handles that decides when the last one is gone (handle.py), and
``async with``.

Ready calls complete without suspending; ``THREAD.budget`` makes every 129th, or one after 0.5 ms, yield to the loop.
Handles may be used from any task, loop and thread.
Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    Coroutine,  # async-only
    Iterable,
)
from operator import length_hint
from time import monotonic  # async-only
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Self, TypeVar, cast, overload

from netchan.channel.base import Endpoint, Level
from netchan.channel.checks import check_batch, check_buffer, check_code, check_level, check_reason
from netchan.channel.handle import Handle
from netchan.channel.local import channel_endpoint, pipe_endpoints

# async-only: begin
from netchan.channel.waits import wait_reached, wait_recv, wait_recv_min, wait_send, wait_send_many

# async-only: end
from netchan.errors import ChannelAborted, ChannelClosed, ChannelEnded, WouldBlock, channel_closed
from netchan.markers import EMPTY

# async-only: begin
from netchan.net.wait import READY_CALLS_MAX, READY_SECONDS_MAX, THREAD, AsyncWaiter, pause

# async-only: end
# sync-only: from netchan.net.wait import ThreadWaiter
# sync-only: from netchan.sync.waits import wait_reached, wait_recv, wait_recv_min, wait_send, wait_send_many

T = TypeVar("T")
S_contra = TypeVar("S_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

BATCH_DEFAULT: Final = 1024
"""``recv_many()`` without a number: as many as the default capacity."""

_EXACT_LENGTH: Final[tuple[type, ...]] = (list, tuple, range, dict, set, frozenset, deque, str, bytes, bytearray)
_EXACT_HINT: Final[tuple[type, ...]] = (type(iter([])), type(iter(())), type(iter(range(0))))


class Sender(Handle, Generic[S_contra]):
    """The sending half of a channel, made by ``Channel.split`` and ``clone``; the last close ends the direction."""

    __slots__ = ()
    _sends = True
    _counted = True

    # --- sending -----------------------------------------------------------------------------------------------------

    # async-only: begin
    def send(self, value: S_contra, /) -> Coroutine[Any, Any, None]:
        """Send one value; returns when it is accepted (capacity 0: when a receiver has taken it).

        Args:
            value: fits the channel's type; checked by the call itself. In process it passes by reference.

        Raises:
            ChannelClosed: this direction is over. ChannelAborted, SessionLost: the channel is gone.
            CodecError: the value does not fit (from the call, before any await).

        Cancelled: the value was not accepted and the place in the queue passes on. A capacity-0 send that a receiver
        took while it was being cancelled returns, and the cancellation is raised at the task's next step.
        """
        prepare = self._ep.prepare
        return self._send(value if prepare is None else prepare(value))

    async def _send(self, prepared: Any) -> None:
        budget = THREAD.budget
        budget.calls = calls = budget.calls + 1
        if calls == 1:
            budget.since = monotonic()
        elif calls > READY_CALLS_MAX or monotonic() - budget.since > READY_SECONDS_MAX:
            await pause()
        if self._txq.waiting or not self._try_send(prepared):
            await wait_send(self._ep, self._check, prepared, AsyncWaiter())

    _send.__name__, _send.__qualname__ = "send", "Sender.send"
    # async-only: end
    # sync-only: def send(self, value: S_contra, /, *, timeout: float | None = None) -> None:
    # sync-only:     """Send one value; returns when it is accepted (capacity 0: when a receiver has taken it).
    # sync-only:
    # sync-only:     Args:
    # sync-only:         value: fits the channel's type. In process it passes by reference.
    # sync-only:         timeout: seconds to wait, 0 = try once, None = no limit.
    # sync-only:
    # sync-only:     Raises:
    # sync-only:         ChannelClosed: this direction is over. ChannelAborted, SessionLost: the channel is gone.
    # sync-only:         CodecError: the value does not fit. TimeoutError: not accepted in time; nothing was sent.
    # sync-only:     """
    # sync-only:     prepare = self._ep.prepare
    # sync-only:     if prepare is not None:
    # sync-only:         value = prepare(value)
    # sync-only:     if self._txq.waiting or not self._try_send(value):
    # sync-only:         wait_send(self._ep, self._check, value, ThreadWaiter(self._ep.driver, timeout))

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

    # async-only: begin
    def send_many(self, values: Iterable[S_contra], /) -> Coroutine[Any, Any, int]:
        """Send all items, in order; returns their number.

        Args:
            values: the next item is taken only when there is room for it, so after a cancellation or an error an
                iterator holds exactly what was not accepted. At capacity 0 the item is fetched in the step of the
                receiver that takes it (an iterator of another thread's sender then runs there). An iterator that
                cannot tell its length is asked for the item after the last one too, and that waits for room.

        Raises:
            TypeError: not iterable (from the call). Otherwise as ``send``, and what the iterator raises.
        """
        return self._send_many(values, self._ep.iterate(values))

    # async-only: end
    async def _send_many(self, values: Iterable[Any], items: Any) -> int:  # + timeout
        # async-only: begin
        await _ready()
        # async-only: end
        kind = type(values)
        left: int | None = None
        if kind in _EXACT_LENGTH:
            left = len(cast("list[Any]", values))
        elif kind in _EXACT_HINT:
            left = length_hint(values)
        return await wait_send_many(self._ep, self._check, items, left, lambda: new_waiter(self._ep))

    # async-only: begin
    _send_many.__name__, _send_many.__qualname__ = "send_many", "Sender.send_many"

    def deliver(self, value: S_contra, /) -> Coroutine[Any, Any, None]:
        """Send one value and wait until a receive call over there has returned it.

        Raises:
            ChannelClosed: the other side stopped before it took the value. Otherwise as ``send``.

        Cancelled while sending: as ``send``. Cancelled after acceptance: the value stays sent.
        """
        prepare = self._ep.prepare
        return self._deliver(value if prepare is None else prepare(value))

    # async-only: end
    async def _deliver(self, prepared: Any) -> None:  # + timeout
        # async-only: begin
        await _ready()
        # async-only: end
        ep = self._ep
        waiter = new_waiter(ep)
        position = 0 if self._txq.waiting else self._try_send(prepared)
        if not position:
            position = await wait_send(ep, self._check, prepared, waiter)
        if not ep.reached("taken", position):
            await wait_reached(ep, "taken", position, waiter)

    # async-only: begin
    _deliver.__name__, _deliver.__qualname__ = "deliver", "Sender.deliver"

    def flush(self, level: Level = "received", /) -> Coroutine[Any, Any, None]:
        """Wait until everything accepted so far has arrived over there.

        Args:
            level: "received" = the other process has it (in process: at once); "taken" = its receive calls returned it.

        Raises:
            ConfigError: no such level (from the call). ChannelClosed: the other side stopped first.
            ChannelAborted, SessionLost: the channel is gone. Not raised for what had arrived before.
        """
        return self._flush(check_level(level))

    # async-only: end
    # sync-only: def send_many(self, values: Iterable[S_contra], /, *, timeout: float | None = None) -> int:
    # sync-only:     """Send all items, in order; returns their number.
    # sync-only:
    # sync-only:     The next item is taken only when there is room for it: after an error, a timeout included, an
    # sync-only:     iterator holds exactly what was not accepted. At capacity 0 the item is fetched in the step of the
    # sync-only:     receiver that takes it, on that receiver's thread.
    # sync-only:     """
    # sync-only:     return self._send_many(values, self._ep.iterate(values), timeout=timeout)
    # sync-only:
    # sync-only: def deliver(self, value: S_contra, /, *, timeout: float | None = None) -> None:
    # sync-only:     """Send one value and wait until a receive call over there has returned it.
    # sync-only:
    # sync-only:     TimeoutError after acceptance: the value stays sent.
    # sync-only:     """
    # sync-only:     prepare = self._ep.prepare
    # sync-only:     self._deliver(value if prepare is None else prepare(value), timeout=timeout)
    # sync-only:
    # sync-only: def flush(self, level: Level = "received", /, *, timeout: float | None = None) -> None:
    # sync-only:     """Wait until everything accepted so far was "received" by the other process, or "taken" there."""
    # sync-only:     self._flush(check_level(level), timeout=timeout)

    async def _flush(self, level: Level) -> None:  # + timeout
        # async-only: begin
        await _ready()
        # async-only: end
        ep = self._ep
        position = ep.sent()
        if not ep.reached(level, position):
            await wait_reached(ep, level, position, new_waiter(ep))

    # async-only: begin
    _flush.__name__, _flush.__qualname__ = "flush", "Sender.flush"
    # async-only: end

    # --- handles and ending ------------------------------------------------------------------------------------------

    def clone(self) -> Sender[S_contra]:
        """Another sending half of the same channel: the direction ends when all of them are closed.

        Raises:
            ChannelClosed: this handle is closed.
        """
        self._check()
        return Sender(self._ep)

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

    async def aclose(self) -> None:  # + timeout
        """Close this handle, then wait (at most ``Config.close_timeout``) until what was accepted has arrived.

        Raises:
            ChannelAborted, SessionLost: accepted values were lost with the channel.

        Cancelled: the handle is closed all the same.
        """
        self.close()
        await _arrived(self._ep, new_waiter(self._ep))

    def abort(self, code: int = 0, reason: str = "") -> None:
        """End both directions at once; every later operation on both sides raises ChannelAborted(code, reason).

        Args:
            code: the program's own, 0 to 2**30 - 1.
            reason: at most 256 bytes of UTF-8.

        Raises:
            ConfigError: code or reason out of range.
        """
        self._ep.abort(check_code(code), check_reason(reason))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
        else:
            self._close(clean=False)

    def _check(self) -> None:
        if self._shut:
            self._refuse(None)

    def _refuse(self, prepared: Any) -> NoReturn:
        raise channel_closed(
            self._ep.name, self._ep.peer_id, "this Sender was closed", "use another one, or clone() before you close"
        )


class Receiver(Handle, Generic[R_co]):
    """The receiving half of a channel. Iterate over it, or call ``recv``."""

    __slots__ = ()
    _receives = True

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def recv(self) -> R_co:  # + timeout
        """Take the value at the head; waits for one if there is none.

        Raises:
            ChannelEnded: the other side closed and everything was taken. ChannelClosed: this side stopped.
            ChannelAborted, SessionLost: the channel is gone (after the values that could still be taken).

        Cancelled: nothing was taken, the place in the queue passes on.
        """
        # async-only: begin
        budget = THREAD.budget
        budget.calls = calls = budget.calls + 1
        if calls == 1:
            budget.since = monotonic()
        elif calls > READY_CALLS_MAX or monotonic() - budget.since > READY_SECONDS_MAX:
            await pause()
        # async-only: end
        if not self._rxq.waiting:
            value = self._try_recv()
            if value is not EMPTY:
                return value  # type: ignore[no-any-return]
        return cast("R_co", await wait_recv(self._ep, self._try_recv, new_waiter(self._ep)))

    def recv_nowait(self) -> R_co:
        """Take the value at the head if there is one now.

        Raises:
            WouldBlock: none, or others wait for it. Otherwise as ``recv``.
        """
        if not self._rxq.reserved() or self._ep.recv_over:
            value = self._try_recv()
            if value is not EMPTY:
                return value  # type: ignore[no-any-return]
        raise WouldBlock(f"{self!r} has no value now; use recv(), or try again later")

    # async-only: begin
    def recv_many(self, max: int = BATCH_DEFAULT, /, *, min: int = 1) -> Coroutine[Any, Any, list[R_co]]:
        """Take up to ``max`` values in one step, waiting until there are ``min`` or what is left before the end.

        Never an empty list. Raises as ``recv``; ConfigError (from the call) for numbers that cannot be met.

        Cancelled: nothing was taken.
        """
        return self._recv_many(*check_batch(self._ep, max, min))

    # async-only: end
    # sync-only: def recv_many(self, max: int = BATCH_DEFAULT, /, *, min: int = 1, timeout: float | None = None) -> list[R_co]:  # noqa: E501
    # sync-only:     """Take up to ``max`` values in one step, waiting for ``min`` or what is left before the end.
    # sync-only:
    # sync-only:     Never an empty list. TimeoutError: nothing was taken. Otherwise raises as ``recv``.
    # sync-only:     """
    # sync-only:     return self._recv_many(*check_batch(self._ep, max, min), timeout=timeout)

    async def _recv_many(self, most: int, least: int) -> list[R_co]:  # + timeout
        # async-only: begin
        await _ready()
        # async-only: end
        ep = self._ep
        if not self._rxq.waiting and (least == 1 or ep.pending() >= least):
            got = ep.try_recv_many(most)
            if got:
                return got
        if least > 1:
            return await wait_recv_min(ep, most, least, new_waiter(ep))
        got = await wait_recv(ep, lambda: ep.try_recv_many(most) or EMPTY, new_waiter(ep))
        return cast("list[R_co]", got)

    # async-only: begin
    _recv_many.__name__, _recv_many.__qualname__ = "recv_many", "Receiver.recv_many"

    def recv_into(self: Receiver[bytes], buffer: Any, /) -> Coroutine[Any, Any, int]:
        """Copy the bytes at the head into ``buffer`` and take them; returns their number.

        Args:
            buffer: writable and contiguous.

        Raises:
            MessageTooLarge: (.needed) it is too small; the value stays at the head. CodecError: the value is not bytes.
            TypeError: not a writable, contiguous buffer (from the call). Otherwise as ``recv``.
        """
        return self._recv_into(check_buffer(buffer))

    # async-only: end
    # sync-only: def recv_into(self: Receiver[bytes], buffer: Any, /, *, timeout: float | None = None) -> int:
    # sync-only:     """Copy the bytes at the head into ``buffer`` (writable, contiguous); returns their number.
    # sync-only:
    # sync-only:     MessageTooLarge (.needed): too small, the value stays at the head. Otherwise raises as ``recv``.
    # sync-only:     """
    # sync-only:     return self._recv_into(check_buffer(buffer), timeout=timeout)

    async def _recv_into(self, buffer: memoryview) -> int:  # + timeout
        # async-only: begin
        await _ready()
        # async-only: end
        ep = self._ep
        if not self._rxq.waiting:
            n = ep.try_recv_into(buffer)
            if n is not EMPTY:
                return n
        return cast("int", await wait_recv(ep, lambda: ep.try_recv_into(buffer), new_waiter(ep)))

    # async-only: begin
    _recv_into.__name__, _recv_into.__qualname__ = "recv_into", "Receiver.recv_into"
    # async-only: end

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        # async-only: begin
        budget = THREAD.budget
        budget.calls = calls = budget.calls + 1
        if calls == 1:
            budget.since = monotonic()
        elif calls > READY_CALLS_MAX or monotonic() - budget.since > READY_SECONDS_MAX:
            await pause()
        # async-only: end
        try:
            if not self._rxq.waiting:
                value = self._try_recv()
                if value is not EMPTY:
                    return value  # type: ignore[no-any-return]
            return cast("R_co", await wait_recv(self._ep, self._try_recv, forever(self._ep)))
        except ChannelEnded:
            raise StopAsyncIteration from None

    # --- ending ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """True when ``recv`` would raise."""
        return self._ep.recv_over

    def stop(self) -> None:
        """Take no more: what is here is dropped and counted, the other side's sends raise ChannelClosed. Idempotent."""
        self._ep.stop_recv()

    async def aclose(self) -> None:  # + timeout
        """The same as ``stop``."""
        self.stop()

    def abort(self, code: int = 0, reason: str = "") -> None:
        """As ``Sender.abort``."""
        self._ep.abort(check_code(code), check_reason(reason))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Channel(Sender[T], Receiver[T]):
    """Both halves: one queue (``netchan.channel``) or one end of two (``netchan.pipe``, ``peer.open``)."""

    __slots__ = ()
    _counted = False

    def split(self) -> tuple[Sender[T], Receiver[T]]:
        """The two halves as handles of their own; this channel stays usable."""
        return Sender(self._ep), Receiver(self._ep)

    @property
    def closed(self) -> bool:
        """True when both ``send`` and ``recv`` would raise."""
        return self._ep.send_over and self._ep.recv_over

    def close(self) -> None:
        """No more values from this side, for all its handles; the other side drains, then ends. Idempotent."""
        ep = self._ep
        if ep.handles.unclean:
            ep.close_unclean()
        else:
            ep.close_send()

    async def aclose(self) -> None:  # + timeout
        """Close, wait (at most ``Config.close_timeout``) until what was accepted has arrived, stop receiving.

        On a one-queue channel the same as ``close``.

        Raises:
            ChannelAborted, SessionLost: accepted values were lost with the channel.

        Cancelled: both directions are ended all the same.
        """
        self.close()
        if self._ep.one_queue:
            return
        try:
            await _arrived(self._ep, new_waiter(self._ep))
        finally:
            self._ep.stop_recv()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
        else:
            self._ep.left_by_exception()


@overload
def channel(*, capacity: int = ...) -> Channel[Any]: ...
@overload
def channel(type: type[T], *, capacity: int = ...) -> Channel[T]: ...
@overload
def channel(type: Any, *, capacity: int = ...) -> Channel[Any]: ...
def channel(type: Any = Any, *, capacity: int = 0) -> Channel[Any]:
    """One Go channel in process: one queue, whatever anyone sends any receiver takes.

    Args:
        type: for the type checker and ``repr``; values pass by reference and are not validated.
        capacity: values that can be accepted and not yet received; 0 = ``send`` returns when a receiver took the value.

    Raises:
        ConfigError: capacity is no int from 0 to 2**30.
    """
    return Channel(channel_endpoint(type, capacity))


@overload
def pipe(*, capacity: int = ...) -> tuple[Channel[Any], Channel[Any]]: ...
@overload
def pipe(type: type[T], *, capacity: int = ...) -> tuple[Channel[T], Channel[T]]: ...
@overload
def pipe(type: Any, *, capacity: int = ...) -> tuple[Channel[Any], Channel[Any]]: ...
def pipe(type: Any = Any, *, capacity: int = 0) -> tuple[Channel[Any], Channel[Any]]:
    """Two joined ends in process: what one sends the other receives. The twin of a channel across the network.

    Arguments and errors as ``channel``; the capacity holds for each direction.
    """
    a, b = pipe_endpoints(type, capacity)
    return Channel(a), Channel(b)


# --- shared by the methods above -------------------------------------------------------------------------------------

# async-only: begin


def new_waiter(endpoint: Endpoint) -> AsyncWaiter:
    """A waiter for the running task."""
    return AsyncWaiter()


forever = new_waiter


async def _ready() -> None:
    """Count one call against the budget; yields to the loop when it is used up."""
    budget = THREAD.budget
    budget.calls = calls = budget.calls + 1
    if calls == 1:
        budget.since = monotonic()
    elif calls > READY_CALLS_MAX or monotonic() - budget.since > READY_SECONDS_MAX:
        await pause()


# async-only: end
# sync-only:
# sync-only: def new_waiter(endpoint: Endpoint, timeout: float | None) -> ThreadWaiter:
# sync-only:     """A waiter for this thread."""
# sync-only:     return ThreadWaiter(endpoint.driver, timeout)
# sync-only:
# sync-only:
# sync-only: def forever(endpoint: Endpoint) -> ThreadWaiter:
# sync-only:     """A waiter for this thread, without a deadline."""
# sync-only:     return ThreadWaiter(endpoint.driver, None)


async def _arrived(endpoint: Endpoint, waiter: AsyncWaiter) -> None:
    """Wait until what was accepted has arrived, at most ``close_timeout``; not for a side that wants no more."""
    position = endpoint.sent()
    try:
        if not endpoint.reached("received", position):
            waiter.at_most(endpoint.close_timeout)
            await wait_reached(endpoint, "received", position, waiter)
    except ChannelClosed:
        pass  # they stopped: nothing that we accepted is wanted any more
    except ChannelAborted as error:
        if not error.by_us:
            raise
    except TimeoutError:
        if not waiter.bounded:
            raise
