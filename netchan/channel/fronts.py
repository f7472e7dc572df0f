"""What users hold: ``Channel``, which is a ``Sender`` and a ``Receiver`` in one, and the two channels in process.

Layer 5; netchan/sync/fronts.py is made from this file by tools/async_to_sync.py. A handle (sender.py, receiver.py,
this) adds three things to an endpoint (base.py): waiting (waits.py), the count of handles that decides when the last
one is gone (handle.py), and ``async with``. Handles may be used from any task, loop and thread.
Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from netchan.channel.making import channel_endpoint, pipe_endpoints
from netchan.channel.overflow import Overflow
from netchan.channel.receiver import Receiver
from netchan.channel.sender import Sender
from netchan.channel.tick import tick_endpoint
from netchan.channel.waits import new_waiter, wait_arrived

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from netchan.sync import fronts as blocking  # async-only
    # sync-only: from netchan.channel import fronts as awaited

T = TypeVar("T")


class Channel(Sender[T], Receiver[T]):
    """Both halves: one queue (``netchan.channel``) or one end of two (``netchan.pipe``, ``peer.open``).

    One across a session belongs to its process: in a child after ``fork`` its calls raise ForkError.
    """

    __slots__ = ()
    _counted = False

    def split(self) -> tuple[Sender[T], Receiver[T]]:
        """The two halves as handles of their own; this channel stays usable."""
        return Sender(self._ep), Receiver(self._ep)

    # async-only: begin
    def sync_view(self) -> blocking.Channel[T]:
        """The same channel for blocking code, as a handle of its own: give it to a thread.

        Its calls wait in place, with ``timeout=``. On the thread of the loop that drives this channel they raise
        RuntimeError; in process, where nobody has to drive, they would block that loop.
        """
        view: blocking.Channel[T] = import_module("netchan.sync.fronts").Channel(self._ep)
        return view

    # async-only: end
    # sync-only: def async_view(self) -> awaited.Channel[T]:
    # sync-only:     """The same channel for asyncio and trio, as a handle of its own: await its calls."""
    # sync-only:     view: awaited.Channel[T] = import_module("netchan.channel.fronts").Channel(self._ep)
    # sync-only:     return view
    # sync-only:
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
            await wait_arrived(self._ep, new_waiter(self._ep))
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


FRONT: Final = (Sender, Receiver, Channel)
"""The classes of this front, for ends that come in a value."""


@overload
def channel(*, capacity: int = ..., overflow: Overflow | None = ..., ttl: float | None = ...) -> Channel[Any]: ...
@overload
def channel(
    type: TypeForm[T], *, capacity: int = ..., overflow: Overflow | None = ..., ttl: float | None = ...
) -> Channel[T]: ...
def channel(
    type: Any = Any, *, capacity: int = 0, overflow: Overflow | None = None, ttl: float | None = None
) -> Channel[Any]:
    """One Go channel in process: one queue, whatever anyone sends any receiver takes.

    Args:
        type: for the type checker and ``repr``; values pass by reference and are not validated.
        capacity: values that can be accepted and not yet received; 0 = ``send`` returns when a receiver took the value.
        overflow: what happens to a value for which there is no room: "block" (None) = the sender waits; "drop_new" =
            it is dropped; "drop_old" = the oldest that nobody took is; "latest" = only the newest stays; "disconnect" =
            the channel is aborted with ``Code.LIMIT``; ``spill(path, max_bytes)`` = it goes to a file (values are then
            encoded by their type, and what is received is a copy). Dropped ones are counted in ``stats().dropped``.
        ttl: seconds (0.001 to 12 days) after which a value that nobody took is dropped.

    Raises:
        ConfigError: capacity is no int from 0 to 2**30; no such policy; a policy or ttl with capacity 0; a type whose
            values cannot be spilled.
    """
    return Channel(channel_endpoint(type, capacity, overflow, ttl))


@overload
def pipe(
    *, capacity: int = ..., overflow: Overflow | None = ..., ttl: float | None = ...
) -> tuple[Channel[Any], Channel[Any]]: ...
@overload
def pipe(
    type: TypeForm[T], *, capacity: int = ..., overflow: Overflow | None = ..., ttl: float | None = ...
) -> tuple[Channel[T], Channel[T]]: ...
def pipe(
    type: Any = Any, *, capacity: int = 0, overflow: Overflow | None = None, ttl: float | None = None
) -> tuple[Channel[Any], Channel[Any]]:
    """Two joined ends in process: what one sends the other receives. The twin of a channel across the network.

    Arguments and errors as ``channel``; they hold for each direction.
    """
    a, b = pipe_endpoints(type, capacity, overflow, ttl)
    return Channel(a), Channel(b)


def ticker(seconds: float) -> Receiver[float]:
    """A receiver that gets a tick every ``seconds``: the time it was due, in seconds of ``time.monotonic()``.

    It holds one tick; those that come while it is not taken are dropped, and the rhythm stays. ``stop`` ends it, and so
    does leaving ``async with``.

    Raises:
        ConfigError: ``seconds`` is no number from 1e-6 to ten years.
    """
    return Receiver(tick_endpoint(seconds))
