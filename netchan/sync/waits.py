# Made from netchan/channel/waits.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""The waits behind the fronts: join a queue, try, sleep, try again; each with a timeout, none loses or doubles a value.

Layer 5; netchan/sync/waits.py is made from this file by tools/async_to_sync.py. An operation happens in one step of
the caller itself (``try_*``) or has not happened; only a capacity-0 send can happen while its caller is cancelled, and
then the waiter says what becomes of the cancellation (net/wait.py). Here too is what a call brings along: its waiter,
and its place in the budget of ready calls. Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from netchan.channel.base import Driven, Endpoint, Level, Offer
from netchan.channel.checks import check_min
from netchan.errors import ChannelAborted, ChannelClosed, ChannelError, ConfigError
from netchan.markers import EMPTY
from netchan.net.wait import (
    READY_CALLS_MAX,
    BlockingWaiter,
    blocking_waiter,
)


def new_waiter(endpoint: Driven, timeout: float | None) -> BlockingWaiter:
    """A waiter for this thread."""
    return blocking_waiter(endpoint.driver, timeout)


def forever(endpoint: Driven) -> BlockingWaiter:
    """A waiter for this thread, without a deadline."""
    return blocking_waiter(endpoint.driver, None)


def wait_recv(endpoint: Endpoint, attempt: Callable[[], Any], waiter: BlockingWaiter) -> Any:
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
            waiter.park(due if due is None or queue.turn(waiter) else None)
    finally:
        queue.leave(waiter, endpoint.can_recv)
        if endpoint.capacity == 0:
            endpoint.parked(queue.waiting)


def wait_recv_min(endpoint: Endpoint, limit: int, least: int, waiter: BlockingWaiter) -> list[Any]:
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
            waiter.park()
    finally:
        endpoint.unwant(least)
        queue.leave(waiter, endpoint.can_recv)


def wait_send(endpoint: Endpoint, check: Callable[[], object], prepared: Any, waiter: BlockingWaiter) -> int:
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
                    _settle(offer, check, waiter)
                    return offer.number
                check()  # an offer that finds no room takes the wake-up away, too
            elif turn:
                position = endpoint.try_send(prepared)
                if position:
                    return position
            waiter.park()
    finally:
        queue.leave(waiter, lambda: _may_follow(endpoint))


def wait_reserve(endpoint: Endpoint, check: Callable[[], object], waiter: BlockingWaiter) -> None:
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
            waiter.park()
    finally:
        queue.leave(waiter, lambda: _may_follow(endpoint))


def _settle(offer: Offer, check: Callable[[], object], waiter: BlockingWaiter) -> None:
    """Wait until the offer is taken; on any error take it back, unless it was taken already.

    Args:
        offer: outstanding.
        check: raises when the handle it came from was closed.
        waiter: woken when the offer is settled.
    """
    try:
        while not offer.settled():
            check()
            waiter.park()
            waiter.rearm()
    except BaseException as error:
        withdrawn = give_up(offer, waiter, error)
        # Taken after all: the send has happened, and a direction that is over is no error any more.
        if withdrawn is not False or not (isinstance(error, ChannelError) or waiter.excuse(error)):
            raise
    finally:
        offer.let_go()


def get_back(offer: Offer, waiter: BlockingWaiter) -> bool:
    """Take an offer back, which across a session takes a round trip; False: it was taken."""
    withdrawn = offer.withdraw()
    while withdrawn is None:
        waiter.rearm()
        withdrawn = offer.withdraw()
        if withdrawn is None:
            waiter.park()
    return withdrawn


def give_up(offer: Offer, waiter: BlockingWaiter, error: BaseException) -> bool | None:
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
                waiter.park()
        return withdrawn
    except TimeoutError:
        return None


def wait_send_many(
    endpoint: Endpoint,
    check: Callable[[], object],
    values: Iterator[Any],
    left: int | None,
    new: Callable[[], BlockingWaiter],
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
    waiter: BlockingWaiter | None = None
    while left is None or total < left:
        check()
        limit = READY_CALLS_MAX if left is None else min(READY_CALLS_MAX, left - total)
        if not queue.waiting and endpoint.capacity != 0:
            accepted, exhausted = endpoint.try_send_many(values, limit)
            total += accepted
            if exhausted:
                break
            if accepted:
                continue
        if waiter is None:
            waiter = new()
        queue.join(waiter)
        try:
            accepted, exhausted = _send_some(endpoint, check, values, limit, waiter)
        finally:
            queue.leave(waiter, lambda: _may_follow(endpoint))
        total += accepted
        if exhausted:
            break
    return total


def _send_some(
    endpoint: Endpoint, check: Callable[[], object], values: Iterator[Any], limit: int, waiter: BlockingWaiter
) -> tuple[int, bool]:
    queue = endpoint.tx_waiters
    while True:
        turn = queue.may_try(waiter)
        check()
        if endpoint.capacity == 0:
            offer = endpoint.offer(values, waiter, many=True)
            if offer is not None:
                _settle(offer, check, waiter)
                return (1, False) if offer.number else (0, True)
            check()
        elif turn:
            accepted, exhausted = endpoint.try_send_many(values, limit)
            if accepted or exhausted:
                return accepted, exhausted
        waiter.park()


def wait_reached(endpoint: Endpoint, level: Level, position: int, waiter: BlockingWaiter) -> None:
    """Wait until the first ``position`` values have got to ``level``; cancelled = the values stay sent."""
    queue = endpoint.ack_waiters
    queue.join(waiter)
    try:
        endpoint.ask(level, position)
        while not endpoint.reached(level, position):
            waiter.park()
            waiter.rearm()
    finally:
        queue.leave(waiter, _nothing_more)


def wait_arrived(endpoint: Endpoint, waiter: BlockingWaiter) -> None:
    """Wait until what was accepted has arrived, at most ``close_timeout``; not for a side that wants no more."""
    position = endpoint.sent()
    try:
        if not endpoint.reached("received", position):
            waiter.at_most(endpoint.close_timeout)
            wait_reached(endpoint, "received", position, waiter)
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
