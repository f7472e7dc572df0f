"""``Receiver``: the receiving half of a channel.

Layer 5; netchan/sync/receiver.py is made from this file by tools/async_to_sync.py. A value is taken by ``try_recv`` in
the caller's own step; only what finds nothing, or others waiting, goes to waits.py.

Ready calls complete without suspending; ``THREAD.budget`` makes every 129th, or one after 0.5 ms, yield to the loop.
Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from collections.abc import Coroutine  # async-only
from importlib import import_module
from time import monotonic  # async-only
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,  # async-only
    Final,
    Generic,
    Self,
    TypeVar,
    cast,
)

from netchan.channel.checks import check_batch, check_buffer, check_code, check_reason
from netchan.channel.handle import Handle
from netchan.channel.ops import RecvOp
from netchan.channel.waits import (
    count_call,  # async-only
    forever,
    new_waiter,
    wait_recv,
    wait_recv_min,
)
from netchan.errors import ChannelEnded, WouldBlock
from netchan.markers import EMPTY
from netchan.net.wait import READY_CALLS_MAX, READY_SECONDS_MAX, THREAD, pause  # async-only

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from netchan.node.peer import Peer
    from netchan.sync import receiver as blocking  # async-only
    # sync-only: from netchan.channel import receiver as awaited

R_co = TypeVar("R_co", covariant=True)

BATCH_DEFAULT: Final = 1024
"""``recv_many()`` without a number: as many as the default capacity."""


class Receiver(Handle, Generic[R_co]):
    """The receiving half of a channel. Iterate over it, or call ``recv``.

    One across a session belongs to its process: in a child after ``fork`` its calls raise ForkError.
    """

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
            budget.start()
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

        Never an empty list.

        Args:
            max: most values, 1 or more.
            min: least values; at most ``max``, and what the channel can hold untaken (capacity 0: 1).

        Raises:
            ConfigError: numbers that cannot be met (from the call). Otherwise as ``recv``.

        Cancelled: nothing was taken.
        """
        return self._recv_many(*check_batch(self._ep, max, min))

    # async-only: end
    # sync-only: def recv_many(self, max: int = BATCH_DEFAULT, /, *, min: int = 1, timeout: float | None = None) -> list[R_co]:  # noqa: E501
    # sync-only:     """Take up to ``max`` values in one step, waiting for ``min`` or what is left before the end.
    # sync-only:
    # sync-only:     Never an empty list.
    # sync-only:
    # sync-only:     Args:
    # sync-only:         max: most values, 1 or more.
    # sync-only:         min: least values; at most ``max``, and what the channel can hold untaken (capacity 0: 1).
    # sync-only:         timeout: seconds to wait, 0 = try once, None = no limit.
    # sync-only:
    # sync-only:     Raises:
    # sync-only:         ConfigError: numbers that cannot be met. TimeoutError: nothing was taken.
    # sync-only:         Otherwise as ``recv``.
    # sync-only:     """
    # sync-only:     return self._recv_many(*check_batch(self._ep, max, min), timeout=timeout)

    async def _recv_many(self, most: int, least: int) -> list[R_co]:  # + timeout
        # async-only: begin
        await count_call()
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

    def recv_into(self: Receiver[bytes], buffer: Buffer, /) -> Coroutine[Any, Any, int]:
        """Copy the bytes at the head into ``buffer`` and take them; returns their number.

        Args:
            buffer: writable and contiguous.

        Raises:
            MessageTooLarge: (.needed) it is too small; the value stays at the head. CodecError: the value is not bytes.
            TypeError: not a writable, contiguous buffer (from the call). Otherwise as ``recv``.

        Cancelled: nothing was taken, and nothing written.
        """
        return self._recv_into(check_buffer(buffer))

    # async-only: end
    # sync-only: def recv_into(self: Receiver[bytes], buffer: Buffer, /, *, timeout: float | None = None) -> int:
    # sync-only:     """Copy the bytes at the head into ``buffer`` and take them; returns their number.
    # sync-only:
    # sync-only:     Args:
    # sync-only:         buffer: writable and contiguous.
    # sync-only:         timeout: seconds to wait, 0 = try once, None = no limit.
    # sync-only:
    # sync-only:     Raises:
    # sync-only:         MessageTooLarge: (.needed) it is too small; the value stays at the head. CodecError: no bytes.
    # sync-only:         TypeError: not a writable, contiguous buffer. TimeoutError: nothing was taken.
    # sync-only:         Otherwise as ``recv``.
    # sync-only:     """
    # sync-only:     return self._recv_into(check_buffer(buffer), timeout=timeout)

    async def _recv_into(self, buffer: memoryview) -> int:  # + timeout
        # async-only: begin
        await count_call()
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

    def recv_op(self) -> RecvOp[R_co]:
        """An arm for ``select`` that receives; read its ``value`` when select has returned it."""
        return RecvOp(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        # async-only: begin
        budget = THREAD.budget
        budget.calls = calls = budget.calls + 1
        if calls == 1:
            budget.start()
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

    # --- handles and ending ------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer | None:
        """The ``Peer`` on the other side; None in process."""
        peer: Peer | None = self._ep.peer
        return peer

    # async-only: begin
    def sync_view(self) -> blocking.Receiver[R_co]:
        """The same receiving half for blocking code, as a handle of its own: give it to a thread.

        Its calls wait in place, with ``timeout=``. On the thread of the loop that drives this channel they raise
        RuntimeError; in process, where nobody has to drive, they would block that loop.
        """
        view: blocking.Receiver[R_co] = import_module("netchan.sync.receiver").Receiver(self._ep)
        return view

    # async-only: end
    # sync-only: def async_view(self) -> awaited.Receiver[R_co]:
    # sync-only:     """The same receiving half for asyncio and trio, as a handle of its own: await its calls."""
    # sync-only:     view: awaited.Receiver[R_co] = import_module("netchan.channel.receiver").Receiver(self._ep)
    # sync-only:     return view
    # sync-only:
    @property
    def closed(self) -> bool:
        """True when ``recv`` would raise."""
        return self._ep.recv_over

    def stop(self) -> None:
        """Take no more: what is here is dropped and counted, the other side's sends raise ChannelClosed. Idempotent."""
        self._ep.stop_recv()

    async def aclose(self) -> None:  # + timeout
        # async-only: begin
        """The same as ``stop``; never waits, so nothing can be cancelled."""
        # async-only: end
        # sync-only: """The same as ``stop``; never waits, so ``timeout`` (seconds) never ends in TimeoutError."""
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
