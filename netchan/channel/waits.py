"""The waits behind the fronts: join a queue, try, sleep, try again; each cancellable, none loses or doubles a value.

Layer 5; netchan/sync/waits.py is made from this file by tools/async_to_sync.py. An operation happens in one step of
the caller itself (``try_*``) or has not happened; only a capacity-0 send can happen while its caller is cancelled, and
then the waiter says what becomes of the cancellation (net/wait.py). Here too is what a call brings along: its waiter,
and its place in the budget of ready calls. Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic  # async-only
from typing import Any

from netchan.channel.base import Driven, Endpoint, Level, Offer
from netchan.channel.checks import check_min
from netchan.errors import ChannelAborted, ChannelClosed, ChannelError, ConfigError
from netchan.markers import EMPTY
from netchan.net.wait import (
    READY_CALLS_MAX,
    READY_SECONDS_MAX,  # async-only
    THREAD,  # async-only
    AsyncWaiter,
    # sync-only: blocking_waiter,
    pause,  # async-only
    task_waiter,  # async-only
)

# async-only: begin


def new_waiter(endpoint: Driven) -> AsyncWaiter:
    """A waiter for the running task."""
    return task_waiter(rings=endpoint.rings)


forever = new_waiter


async def count_call() -> None:
    """Count one call against the budget; yields to the loop when it is used up."""
    budget = THREAD.budget
    budget.calls = calls = budget.calls + 1
    if calls == 1:
        budget.start()
    elif calls > READY_CALLS_MAX or monotonic() - budget.since > READY_SECONDS_MAX:
        await pause()


# async-only: end
# sync-only:
# sync-only: def new_waiter(endpoint: Driven, timeout: float | None) -> BlockingWaiter:
# sync-only:     """A waiter for this thread."""
# sync-only:     return blocking_waiter(endpoint.driver, timeout)
# sync-only:
# sync-only:
# sync-only: def forever(endpoint: Driven) -> BlockingWaiter:
# sync-only:     """A waiter for this thread, without a deadline."""
# sync-only:     return blocking_waiter(endpoint.driver, None)


async def wait_recv(endpoint: Endpoint, attempt: Callable[[], Any], waiter: AsyncWaiter) -> Any:
    """Take in order of arrival with ``attempt`` (one of the endpoint's ``try_recv*``; EMPTY = nothing yet)."""
    queue = endpoint.rx_waiters
    queue.join(waiter)
    try:
        while True:
            if queue.may_try(waiter):
                got = attempt()
                if got is not EMPTY:
                    return got
            if endpoint.capacity == 0:
                endpoint.parked(queue.waiting)
            due = endpoint.due
            await waiter.park(due if due is None or queue.turn(waiter) else None)
    finally:
        queue.leave(waiter, endpoint.can_recv)
        if endpoint.capacity == 0:
            endpoint.parked(queue.waiting)


async def wait_recv_min(endpoint: Endpoint, limit: int, least: int, waiter: AsyncWaiter) -> list[Any]:
    """Take ``least`` to ``limit`` values in one step, or what is left before the end.

    Nothing is taken before enough is here, so that a cancelled call leaves all values at the head.
    """
    queue = endpoint.rx_waiters
    queue.join(waiter)
    endpoint.want(least)
    try:
        while True:
            if queue.may_try(waiter):
                check_min(endpoint, least)
                if endpoint.has(least) or endpoint.recv_ending:
                    got = endpoint.try_recv_many(limit)
                    if got:
                        return got
            await waiter.park()
    finally:
        endpoint.unwant(least)
        queue.leave(waiter, endpoint.can_recv)


async def wait_send(endpoint: Endpoint, check: Callable[[], object], prepared: Any, waiter: AsyncWaiter) -> int:
    """Send in order of arrival; returns the value's position. ``check`` raises when the handle was closed."""
    queue = endpoint.tx_waiters
    queue.join(waiter)
    try:
        while True:
            turn = queue.may_try(waiter)  # takes the wake-up away, so everything is looked at after it
            check()
            if endpoint.capacity == 0:
                offer = endpoint.offer(prepared, waiter)
                if offer is not None:
                    await _settle(offer, check, waiter)
                    return offer.number
                check()  # an offer that finds no room takes the wake-up away, too
            elif turn:
                position = endpoint.try_send(prepared)
                if position:
                    return position
            await waiter.park()
    finally:
        queue.leave(waiter, lambda: _may_follow(endpoint))


async def wait_reserve(endpoint: Endpoint, check: Callable[[], object], waiter: AsyncWaiter) -> None:
    """Hold a place, in order of arrival with other senders. ConfigError: there is none to hold, or to wait for."""
    if not endpoint.waits:
        raise ConfigError(
            "reserve() waits for room, and a send on this channel never waits (overflow=); use send(), or open the "
            "channel with overflow='block'"
        )
    queue = endpoint.tx_waiters
    queue.join(waiter)
    try:
        while True:
            turn = queue.may_try(waiter)
            check()
            if endpoint.capacity == 0:
                raise ConfigError(
                    "reserve() holds a place of the capacity, and capacity 0 has none; use send(), or give a capacity"
                )
            if turn and endpoint.try_reserve():
                return
            await waiter.park()
    finally:
        queue.leave(waiter, lambda: _may_follow(endpoint))


async def _settle(offer: Offer, check: Callable[[], object], waiter: AsyncWaiter) -> None:
    """Wait until the offer is taken; on any error take it back, unless it was taken already.

    Args:
        offer: outstanding.
        check: raises when the handle it came from was closed.
        waiter: woken when the offer is settled.
    """
    try:
        while not offer.settled():
            check()
            await waiter.park()
            waiter.rearm()
    except BaseException as error:
        withdrawn = await give_up(offer, waiter, error)
        # Taken after all: the send has happened, and a direction that is over is no error any more.
        if withdrawn is not False or not (isinstance(error, ChannelError) or waiter.excuse(error)):
            raise
    finally:
        offer.let_go()


async def get_back(offer: Offer, waiter: AsyncWaiter) -> bool:
    """Take an offer back, which across a session takes a round trip; False: it was taken."""
    withdrawn = offer.withdraw()
    while withdrawn is None:
        waiter.rearm()
        withdrawn = offer.withdraw()
        if withdrawn is None:
            await waiter.park()
    return withdrawn


async def give_up(offer: Offer, waiter: AsyncWaiter, error: BaseException) -> bool | None:
    """As ``get_back``, for a call that ``error`` ends. None: the value is in doubt: no answer in ``ANSWER_SECONDS``, or
    no path on which one could come.

    A second error meanwhile is raised at once, and the value is in doubt then, too.
    """
    if isinstance(error, GeneratorExit):
        return offer.withdraw()
    waiter.persist()
    try:
        withdrawn = offer.withdraw()
        while withdrawn is None and not offer.stranded:
            waiter.rearm()
            withdrawn = offer.withdraw()
            if withdrawn is None and not offer.stranded:
                await waiter.park()
        return withdrawn
    except TimeoutError:
        return None


async def wait_send_many(
    endpoint: Endpoint,
    check: Callable[[], object],
    values: Iterator[Any],
    left: int | None,
    new: Callable[[], AsyncWaiter],
) -> int:
    """Send all of ``values`` in order of arrival with other senders, batch by batch.

    Args:
        endpoint: where to.
        check: raises when the handle was closed.
        values: the next item is taken only when there is room for it (capacity 0: when a receiver takes it).
        left: number of items if it is known, so that the call need not wait for room to learn that there is no more.
        new: makes a waiter.
    """
    total = 0
    queue = endpoint.tx_waiters
    waiter: AsyncWaiter | None = None
    while left is None or total < left:
        check()
        limit = READY_CALLS_MAX if left is None else min(READY_CALLS_MAX, left - total)
        if not queue.waiting and endpoint.capacity != 0:
            accepted, exhausted = endpoint.try_send_many(values, limit)
            total += accepted
            if exhausted:
                break
            if accepted:
                await _count_values(accepted, total == left)  # async-only
                continue
        if waiter is None:
            waiter = new()
        queue.join(waiter)
        try:
            accepted, exhausted = await _send_some(endpoint, check, values, limit, waiter)
        finally:
            queue.leave(waiter, lambda: _may_follow(endpoint))
        total += accepted
        if exhausted:
            break
        await _count_values(accepted, total == left)  # async-only
    return total


# async-only: begin
async def _count_values(n: int, last: bool) -> None:
    """Count so many values of one call against the budget; yields to the loop when it is used up.

    Not behind the ``last``: a cancellation there would say of a call that has done all that it did not.
    """
    budget = THREAD.budget
    budget.calls += n
    if last:
        return
    if budget.calls > READY_CALLS_MAX or monotonic() - budget.since > READY_SECONDS_MAX:
        await pause()


# async-only: end
async def _send_some(
    endpoint: Endpoint, check: Callable[[], object], values: Iterator[Any], limit: int, waiter: AsyncWaiter
) -> tuple[int, bool]:
    queue = endpoint.tx_waiters
    while True:
        turn = queue.may_try(waiter)
        check()
        if endpoint.capacity == 0:
            offer = endpoint.offer(values, waiter, many=True)
            if offer is not None:
                await _settle(offer, check, waiter)
                return (1, False) if offer.number else (0, True)
            check()
        elif turn:
            accepted, exhausted = endpoint.try_send_many(values, limit)
            if accepted or exhausted:
                return accepted, exhausted
        await waiter.park()


async def wait_reached(endpoint: Endpoint, level: Level, position: int, waiter: AsyncWaiter) -> None:
    """Wait until the first ``position`` values have got to ``level``; cancelled = the values stay sent."""
    queue = endpoint.ack_waiters
    queue.join(waiter)
    try:
        endpoint.ask(level, position)
        while not endpoint.reached(level, position):
            await waiter.park()
            waiter.rearm()
    finally:
        queue.leave(waiter, _nothing_more)


async def wait_arrived(endpoint: Endpoint, waiter: AsyncWaiter) -> None:
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


def _may_follow(endpoint: Endpoint) -> bool:
    """True when the sender behind one that leaves has to look.

    At capacity 0 ``can_send`` says nothing of the room for an offer, which the one that leaves may not have used.
    """
    return endpoint.capacity == 0 or endpoint.can_send()


def _nothing_more() -> bool:
    return False
