# Made from netchan/channel/receiver.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``Receiver``: the receiving half of a channel.

Layer 5; netchan/sync/receiver.py is made from this file by tools/async_to_sync.py. A value is taken by ``try_recv`` in
the caller's own step; only what finds nothing, or others waiting, goes to waits.py.

Ready calls complete without suspending; ``THREAD.budget`` makes every 129th, or one after 0.5 ms, yield to the loop.
Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from importlib import import_module
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Final,
    Generic,
    Self,
    TypeVar,
    cast,
)

from netchan.channel.checks import check_batch, check_buffer, check_code, check_reason
from netchan.channel.handle import Handle
from netchan.channel.ops import RecvOp
from netchan.sync.waits import (
    forever,
    new_waiter,
    wait_recv,
    wait_recv_min,
)
from netchan.errors import ChannelEnded, WouldBlock
from netchan.markers import EMPTY

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from netchan.sync.peer import Peer
    from netchan.channel import receiver as awaited

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

    def recv(self, *, timeout: float | None = None) -> R_co:
        """Take the value at the head; waits for one if there is none.

        Raises:
            ChannelEnded: the other side closed and everything was taken. ChannelClosed: this side stopped.
            ChannelAborted, SessionLost: the channel is gone (after the values that could still be taken).

        TimeoutError after ``timeout`` seconds: nothing was taken, the place in the queue passes on.
        """
        if not self._rxq.waiting:
            value = self._try_recv()
            if value is not EMPTY:
                return value  # type: ignore[no-any-return]
        return cast("R_co", wait_recv(self._ep, self._try_recv, new_waiter(self._ep, timeout)))

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

    def recv_many(self, max: int = BATCH_DEFAULT, /, *, min: int = 1, timeout: float | None = None) -> list[R_co]:
        """Take up to ``max`` values in one step, waiting for ``min`` or what is left before the end.

        Never an empty list.

        Args:
            max: most values, 1 or more.
            min: least values; at most ``max``, and what the channel can hold untaken (capacity 0: 1).
            timeout: seconds to wait, 0 = try once, None = no limit.

        Raises:
            ConfigError: numbers that cannot be met. TimeoutError: nothing was taken.
            Otherwise as ``recv``.
        """
        return self._recv_many(*check_batch(self._ep, max, min), timeout=timeout)

    def _recv_many(self, most: int, least: int, *, timeout: float | None = None) -> list[R_co]:
        ep = self._ep
        if not self._rxq.waiting and (least == 1 or ep.pending() >= least):
            got = ep.try_recv_many(most)
            if got:
                return got
        if least > 1:
            return wait_recv_min(ep, most, least, new_waiter(ep, timeout))
        got = wait_recv(ep, lambda: ep.try_recv_many(most) or EMPTY, new_waiter(ep, timeout))
        return cast("list[R_co]", got)

    def recv_into(self: Receiver[bytes], buffer: Buffer, /, *, timeout: float | None = None) -> int:
        """Copy the bytes at the head into ``buffer`` and take them; returns their number.

        Args:
            buffer: writable and contiguous.
            timeout: seconds to wait, 0 = try once, None = no limit.

        Raises:
            MessageTooLarge: (.needed) it is too small; the value stays at the head. CodecError: no bytes.
            TypeError: not a writable, contiguous buffer. TimeoutError: nothing was taken.
            Otherwise as ``recv``.
        """
        return self._recv_into(check_buffer(buffer), timeout=timeout)

    def _recv_into(self, buffer: memoryview, *, timeout: float | None = None) -> int:
        ep = self._ep
        if not self._rxq.waiting:
            n = ep.try_recv_into(buffer)
            if n is not EMPTY:
                return n
        return cast("int", wait_recv(ep, lambda: ep.try_recv_into(buffer), new_waiter(ep, timeout)))

    def recv_op(self) -> RecvOp[R_co]:
        """An arm for ``select`` that receives; read its ``value`` when select has returned it."""
        return RecvOp(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R_co:
        try:
            if not self._rxq.waiting:
                value = self._try_recv()
                if value is not EMPTY:
                    return value  # type: ignore[no-any-return]
            return cast("R_co", wait_recv(self._ep, self._try_recv, forever(self._ep)))
        except ChannelEnded:
            raise StopIteration from None

    # --- handles and ending ------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer | None:
        """The ``Peer`` on the other side; None in process."""
        peer: Peer | None = self._ep.peer
        return peer

    def async_view(self) -> awaited.Receiver[R_co]:
        """The same receiving half for asyncio and trio, as a handle of its own: await its calls."""
        view: awaited.Receiver[R_co] = import_module("netchan.channel.receiver").Receiver(self._ep)
        return view

    @property
    def closed(self) -> bool:
        """True when ``recv`` would raise."""
        return self._ep.recv_over

    def stop(self) -> None:
        """Take no more: what is here is dropped and counted, the other side's sends raise ChannelClosed. Idempotent."""
        self._ep.stop_recv()

    def aclose(self, *, timeout: float | None = None) -> None:
        """The same as ``stop``; never waits, so ``timeout`` (seconds) never ends in TimeoutError."""
        self.stop()

    def abort(self, code: int = 0, reason: str = "") -> None:
        """As ``Sender.abort``."""
        self._ep.abort(check_code(code), check_reason(reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
