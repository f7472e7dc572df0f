# Made from netchan/channel/selecting.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``select`` and ``merge``: wait for one of several channel operations.

Layer 5; netchan/sync/selecting.py is made from this file by tools/async_to_sync.py. What a running select does is in
arms.py; here is the waiting. Exactly one arm happens; a select that raises has done nothing, with the exception that
section 4 of the spec names for every offer. Spec: docs/spec/channel-end.md §7; api rules R33-R39.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self, TypeVar, overload

from netchan.channel.arms import Arms
from netchan.channel.ops import Op, RecvOp
from netchan.sync.receiver import Receiver
from netchan.sync.waits import (
    get_back,
    give_up,
    new_waiter,
)
from netchan.errors import ChannelEnded, ChannelError
from netchan.markers import EMPTY
from netchan.net.wait import BlockingWaiter

D = TypeVar("D")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")

_NONE: Final[Any] = EMPTY


@overload
def select(*ops: Op | None, timeout: float | None = None) -> Op: ...
@overload
def select(*ops: Op | None, default: D, timeout: float | None = None) -> Op | D: ...
def select(*ops: Op | None, default: Any = _NONE, timeout: float | None = None) -> Any:
    """As ``netchan.select``, on this thread.

    Args:
        ops: from ``recv_op``, ``send_op`` and ``after``.
        default: returned at once if nothing can happen now.
        timeout: seconds to wait, None = no limit.

    Raises:
        TimeoutError: no arm happened in time. Otherwise as ``netchan.select``.
    """
    arms = Arms(ops, default=default is not _NONE)
    try:
        won = arms.now(polling=default is not _NONE)
        if won is not None:
            return won
        if default is not _NONE:
            return default
        return _wait(arms, new_waiter(arms, timeout))
    finally:
        arms.release()


def _wait(arms: Arms, waiter: BlockingWaiter) -> Op:
    try:
        arms.join(waiter)
        while True:
            won = arms.look()
            if won is not None:
                return won
            offer = arms.offer
            if offer is not None and arms.regrets():
                won = arms.settle(not get_back(offer, waiter))
                if won is not None:
                    return won
                continue
            if not arms.lay():
                waiter.park(arms.due)
    except BaseException as error:
        won = _give_up(arms, waiter, error)
        if won is None:
            raise
        return won
    finally:
        arms.settle(True)
        arms.leave()


def _give_up(arms: Arms, waiter: BlockingWaiter, error: BaseException) -> Op | None:
    """The select ends by an error: take all offers back; the arm that had happened before, if the error may wait."""
    won = arms.take_back()
    offer = arms.offer
    if offer is not None:
        won = arms.settle(give_up(offer, waiter, error) is False) or won
    if won is not None and (isinstance(error, ChannelError) or waiter.excuse(error)):
        return won
    return None


class Merged(Iterator[Any]):
    """What ``merge`` returns: an iterator over (receiver, value)."""

    def __init__(self, receivers: tuple[Receiver[Any], ...]) -> None:
        self._live: list[tuple[Receiver[Any], RecvOp[Any]]] = [(one, one.recv_op()) for one in receivers]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Receiver[Any], Any]:
        while self._live:
            won = select(*[op for _, op in self._live])
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
        raise StopIteration


@overload
def merge(r1: Receiver[A], /) -> Iterator[tuple[Receiver[A], A]]: ...
@overload
def merge(r1: Receiver[A], r2: Receiver[B], /) -> Iterator[tuple[Receiver[A], A] | tuple[Receiver[B], B]]: ...
@overload
def merge(
    r1: Receiver[A], r2: Receiver[B], r3: Receiver[C], /
) -> Iterator[tuple[Receiver[A], A] | tuple[Receiver[B], B] | tuple[Receiver[C], C]]: ...
@overload
def merge(*receivers: Receiver[T]) -> Iterator[tuple[Receiver[T], T]]: ...
def merge(*receivers: Receiver[Any]) -> Iterator[tuple[Receiver[Any], Any]]:
    """All values of several receivers as they come: pairs of (the object given, value).

    Random among those that are ready. Nothing is taken before it is yielded, so ``break`` loses no value. A receiver
    that ended drops out, and when none is left the iteration ends. No receiver at all: an iteration that is over.

    Raises (while iterating; iterating again goes on with the rest):
        ChannelAborted, SessionLost, ChannelClosed: one of the receivers was aborted, lost, or stopped by us.
        CodecError: bytes that are no value of its type; they are consumed, and the receiver stays.
    """
    return Merged(receivers)
