"""``select`` and ``merge``: wait for one of several channel operations.

Layer 5; netchan/sync/selecting.py is made from this file by tools/async_to_sync.py. What a running select does is in
arms.py; here is the waiting. Exactly one arm happens; a select that raises has done nothing, with the exception that
section 4 of the spec names for every offer. Spec: docs/spec/channel-end.md §7; api rules R33-R39.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Self, TypeVar, overload

from netchan.channel.arms import Arms
from netchan.channel.ops import Op, RecvOp
from netchan.channel.receiver import Receiver
from netchan.channel.waits import (
    count_call,  # async-only
    get_back,
    give_up,
    new_waiter,
)
from netchan.errors import ChannelEnded, ChannelError
from netchan.markers import EMPTY
from netchan.net.wait import AsyncWaiter

D = TypeVar("D")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")

_NONE: Final[Any] = EMPTY


# async-only: begin
@overload
async def select(*ops: Op | None) -> Op: ...
@overload
async def select(*ops: Op | None, default: D) -> Op | D: ...
async def select(*ops: Op | None, default: Any = _NONE) -> Any:
    """Wait until one of several operations can happen, let exactly that one happen, and return its op.

    Args:
        ops: from ``recv_op``, ``send_op`` and ``after``; each in one select at a time. None: an arm that is off.
        default: returned at once if nothing can happen now. At capacity 0 that finds a sender that waits, and no
            receiver that waits, as ``Sender.send_nowait`` does.

    Returns:
        The op that won; among several that could, each with the same chance. Read a receive's ``value`` on it. A
        receive on a channel that is over wins, with ``closed`` and ``error``.

    Raises:
        ChannelClosed, ChannelAborted, SessionLost: a send arm can never happen (``.op``); nothing was done.
        ValueError: no live arm and no default. TypeError: no op, or a send without a value.
        RuntimeError: an op is in another select.

    Cancelled: no arm happened. A send at capacity 0 that a receiver took meanwhile wins all the same, and the
    cancellation is raised at the task's next step.
    """
    arms = Arms(ops, default=default is not _NONE)
    try:
        await count_call()
        won = arms.now(polling=default is not _NONE)
        if won is not None:
            return won
        if default is not _NONE:
            return default
        return await _wait(arms, new_waiter(arms))
    finally:
        arms.release()


# async-only: end
# sync-only: @overload
# sync-only: def select(*ops: Op | None, timeout: float | None = None) -> Op: ...
# sync-only: @overload
# sync-only: def select(*ops: Op | None, default: D, timeout: float | None = None) -> Op | D: ...
# sync-only: def select(*ops: Op | None, default: Any = _NONE, timeout: float | None = None) -> Any:
# sync-only:     """As ``netchan.select``, on this thread.
# sync-only:
# sync-only:     Args:
# sync-only:         ops: from ``recv_op``, ``send_op`` and ``after``.
# sync-only:         default: returned at once if nothing can happen now.
# sync-only:         timeout: seconds to wait, None = no limit.
# sync-only:
# sync-only:     Raises:
# sync-only:         TimeoutError: no arm happened in time. Otherwise as ``netchan.select``.
# sync-only:     """
# sync-only:     arms = Arms(ops, default=default is not _NONE)
# sync-only:     try:
# sync-only:         won = arms.now(polling=default is not _NONE)
# sync-only:         if won is not None:
# sync-only:             return won
# sync-only:         if default is not _NONE:
# sync-only:             return default
# sync-only:         return _wait(arms, new_waiter(arms, timeout))
# sync-only:     finally:
# sync-only:         arms.release()


async def _wait(arms: Arms, waiter: AsyncWaiter) -> Op:
    try:
        arms.join(waiter)
        while True:
            won = arms.look()
            if won is not None:
                return won
            offer = arms.offer
            if offer is not None and arms.regrets():
                won = arms.settle(not await get_back(offer, waiter))
                if won is not None:
                    return won
                continue
            if not arms.lay():
                await waiter.park(arms.due)
    except BaseException as error:
        won = await _give_up(arms, waiter, error)
        if won is None:
            raise
        return won
    finally:
        arms.settle(True)
        arms.leave()


async def _give_up(arms: Arms, waiter: AsyncWaiter, error: BaseException) -> Op | None:
    """The select ends by an error: take all offers back; the arm that had happened before, if the error may wait."""
    won = arms.take_back()
    offer = arms.offer
    if offer is not None:
        won = arms.settle(await give_up(offer, waiter, error) is False) or won
    if won is not None and (isinstance(error, ChannelError) or waiter.excuse(error)):
        return won
    return None


class Merged(AsyncIterator[Any]):
    """What ``merge`` returns: an iterator over (receiver, value)."""

    def __init__(self, receivers: tuple[Receiver[Any], ...]) -> None:
        self._live: list[tuple[Receiver[Any], RecvOp[Any]]] = [(one, one.recv_op()) for one in receivers]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Receiver[Any], Any]:
        while self._live:
            won = await select(*[op for _, op in self._live])
            for at, (receiver, op) in enumerate(self._live):
                if op is won:
                    error = op.error
                    if error is None:
                        return receiver, op.value
                    if isinstance(error, ChannelError):
                        del self._live[at]
                    if not isinstance(error, ChannelEnded):
                        raise error
                    break
        raise StopAsyncIteration


@overload
def merge(r1: Receiver[A], /) -> AsyncIterator[tuple[Receiver[A], A]]: ...
@overload
def merge(r1: Receiver[A], r2: Receiver[B], /) -> AsyncIterator[tuple[Receiver[A], A] | tuple[Receiver[B], B]]: ...
@overload
def merge(
    r1: Receiver[A], r2: Receiver[B], r3: Receiver[C], /
) -> AsyncIterator[tuple[Receiver[A], A] | tuple[Receiver[B], B] | tuple[Receiver[C], C]]: ...
@overload
def merge(*receivers: Receiver[T]) -> AsyncIterator[tuple[Receiver[T], T]]: ...
def merge(*receivers: Receiver[Any]) -> AsyncIterator[tuple[Receiver[Any], Any]]:
    """All values of several receivers as they come: pairs of (the object given, value).

    Random among those that are ready. Nothing is taken before it is yielded, so ``break`` loses no value. A receiver
    that ended drops out, and when none is left the iteration ends. No receiver at all: an iteration that is over.

    Raises (while iterating; iterating again goes on with the rest):
        ChannelAborted, SessionLost, ChannelClosed: one of the receivers was aborted, lost, or stopped by us.
        CodecError: bytes that are no value of its type; they are consumed, and the receiver stays.
    """
    return Merged(receivers)
