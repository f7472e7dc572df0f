"""One running select: its arms, the queues that they stand in, and the offers that they have out.

Layer 5: no waiting (selecting.py and its blocking twin wait), no I/O. Used by one task or thread at a time.

1. ``look`` tries all arms in random order, in the caller's own step; the first that can go on wins.
2. If none can, ``lay`` puts out what a rendezvous needs. In process every send arm makes an offer, all with one token:
   the first that a receiver claims wins, the others are stale. Across a session it is one offer at a time, and only
   while somebody over there waits, since taking it back costs a round trip.
3. With an offer across a session out, ``look`` only asks whether it was taken; ``regrets`` says when it must be taken
   back, because another arm could go on or nobody waits over there any more. Two selects that have offers out to each
   other: the one of the lower rank keeps its own, the other takes.

Spec: docs/spec/channel-end.md §7, docs/spec/session.md §4.1.
"""

from __future__ import annotations

import random
from time import monotonic
from typing import Any, Final

from netchan.channel.base import Driver, Endpoint, Offer
from netchan.channel.flow import Token
from netchan.channel.ops import Op, RecvOp, SendOp, TimerOp
from netchan.errors import ChannelError
from netchan.net.wait import Drivers, Waiter, WaitQueue, earlier

QUIET_MIN: Final = 0.0005
QUIET_MAX: Final = 0.02
"""Seconds, at most, without a new offer after one was taken back for nothing; doubles, and is drawn at random, so that
two selects of equal rank do not give way to each other for ever."""


class Arms:
    """See the module head.

    Args:
        ops: as given to ``select``; None = an arm that is off.
        default: True if the call has a default, so that it never waits.

    Raises:
        ValueError: no live arm and no default.
        TypeError: something that is no op, or a send without a value.
        RuntimeError: an op that is in a select already, or was given twice.
    """

    def __init__(self, ops: tuple[Op | None, ...], *, default: bool) -> None:
        self._ops: list[Op] = []
        try:
            for op in ops:
                if op is None:
                    continue
                if not isinstance(op, Op):
                    raise TypeError(f"select takes ops (recv_op, send_op, after) and None, not {op!r}")
                if op.busy:
                    raise RuntimeError(f"{op!r} is in a select already; make one op for each place it is used in")
                op.begin()
                op.busy = True
                self._ops.append(op)
            if not self._ops and not default:
                raise ValueError("select has no live arm and no default, so nothing could ever end it")
        except BaseException:
            self.release()
            raise
        self._waiter: Waiter | None = None
        self._rx: dict[WaitQueue, Endpoint] = {}
        self._tx: dict[WaitQueue, Endpoint] = {}
        self._token = Token()
        self._laid: list[tuple[SendOp[Any], Offer]] = []
        self.offer: Offer | None = None
        """Out across a session; at most one."""
        self.offered: SendOp[Any] | None = None
        self._vain = 0
        self._quiet_until = 0.0
        self._hushed = False

    def release(self) -> None:
        """The select is over: its ops may be used again."""
        for op in self._ops:
            op.busy = False

    @property
    def driver(self) -> Driver | None:
        """What a blocked thread runs meanwhile. RuntimeError: this thread's loop drives one of the channels."""
        found: list[Driver] = []
        for op in self._ops:
            if isinstance(op, RecvOp | SendOp):
                driver = op.endpoint.driver
                if driver is not None and driver not in found:
                    driver.check_blocking()
                    found.append(driver)
        ours = [driver for driver in found if not driver.has_loop] or found[:1]
        return Drivers(ours) if len(ours) > 1 else ours[0] if ours else None

    @property
    def rings(self) -> bool:
        """True if one of the channels is heard of by the loop's bell."""
        return any(op.endpoint.rings for op in self._ops if isinstance(op, RecvOp | SendOp))

    # --- without waiting ---------------------------------------------------------------------------------------------

    def now(self, *, polling: bool) -> Op | None:
        """What can go on at once, not overtaking anybody; ``polling``: this call waits for nothing afterwards."""
        for op in self._shuffled():
            if isinstance(op, RecvOp):
                queue, over = op.endpoint.rx_waiters, op.endpoint.recv_over
            elif isinstance(op, SendOp):
                queue, over = op.endpoint.tx_waiters, op.endpoint.send_over
            else:
                if op.seconds == 0.0:  # type: ignore[attr-defined]
                    return op
                continue
            if queue.waiting and not over and (queue.reserved() if polling else not queue.vacant()):
                continue
            if self._attempt(op):
                return op
        return None

    # --- standing in the queues --------------------------------------------------------------------------------------

    def join(self, waiter: Waiter) -> None:
        """Queue up everywhere."""
        self._waiter = waiter
        for op in self._ops:
            if isinstance(op, RecvOp):
                end = op.endpoint
                if end.rx_waiters not in self._rx:
                    end.rx_waiters.join(waiter)
                    self._rx[end.rx_waiters] = end
            elif isinstance(op, SendOp):
                end = op.endpoint
                if end.tx_waiters not in self._tx:
                    end.tx_waiters.join(waiter)
                    self._tx[end.tx_waiters] = end

    def leave(self) -> None:
        """Leave the queues; whatever was there for another arm goes to the next in line."""
        waiter = self._waiter
        if waiter is None:
            return
        for queue, end in self._rx.items():
            queue.leave(waiter, end.can_recv)
            if end.capacity == 0:
                end.parked(queue.waiting)
        for queue, end in self._tx.items():
            queue.leave(waiter, end.can_send)

    def look(self) -> Op | None:
        """The arm that has won, or None.

        Raises:
            ChannelError: a send arm can never go on (``.op``).
        """
        waiter = self._waiting()
        waiter.rearm()
        if self.offer is not None:
            return self._asked()
        won = self.take_back()
        if won is not None:
            return won
        for queue in self._rx:
            queue.stand_aside(waiter, False)
        for queue, end in self._tx.items():
            queue.stand_aside(waiter, end.capacity == 0)
        for op in self._shuffled():
            if isinstance(op, RecvOp):
                end = op.endpoint
                if not end.rx_waiters.turn(waiter) and not end.recv_over:
                    continue
            elif isinstance(op, SendOp):
                end = op.endpoint
                if end.capacity != 0 and not end.tx_waiters.turn(waiter) and not end.send_over:
                    continue
            if self._attempt(op):
                return op
        return None

    def lay(self) -> bool:
        """Nothing can go on: say that we wait, and make the offers of a rendezvous.

        Returns:
            True: look again before you sleep, an offer has just gone out across a session.
        """
        waiter = self._waiting()
        for queue, end in self._rx.items():
            if end.capacity == 0:
                end.parked(queue.waiting)
        if self.offer is not None:
            return False
        sends = [op for op in self._shuffled() if isinstance(op, SendOp) and op.endpoint.capacity == 0]
        self._hushed = False
        if monotonic() < self._quiet_until:
            self._hushed = True
        else:
            for op in sends:
                if op.endpoint.far:
                    offer = self._place(op, waiter, None)
                    if offer is not None:
                        self.offer, self.offered = offer, op
                        for queue in self._rx:
                            queue.stand_aside(waiter)
                            queue.nudge(waiter)
                        return True
        self._token = Token()
        for op in sends:
            end = op.endpoint
            if not end.far:
                if end.rx_waiters in self._rx:
                    end.rx_waiters.stand_aside(waiter)  # nobody takes from itself
                offer = self._place(op, waiter, self._token)
                if offer is not None:
                    self._laid.append((op, offer))
        return False

    def take_back(self) -> Op | None:
        """Take the offers in process back; the arm whose offer was taken before, or None."""
        laid, self._laid = self._laid, []
        won = None
        for op, offer in laid:
            if offer.withdraw() is False:
                won = op
        return won

    @property
    def due(self) -> float | None:
        """When an arm may be ready without anybody's waking us: seconds of ``time.monotonic()``."""
        first = self._quiet_until if self._hushed else None
        for op in self._ops:
            if isinstance(op, TimerOp):
                first = earlier(first, op.due)
            elif isinstance(op, RecvOp) and op.endpoint.rx_waiters.turn(self._waiting()):
                # behind others there is nothing to look for: who leaves wakes the next one
                first = earlier(first, op.endpoint.due)
        return first

    # --- an offer across a session -----------------------------------------------------------------------------------

    def regrets(self) -> bool:
        """True when the offer that is out across a session has to be taken back."""
        offered = self.offered
        if self.offer is None or offered is None:
            return False
        if not offered.endpoint.wanted or offered.handle.closed:
            return True
        return any(self._could(op) for op in self._ops if op is not offered)

    def settle(self, taken: bool) -> Op | None:
        """The offer across a session was taken, or taken back: forget it; the arm if it has won."""
        offer, op, waiter = self.offer, self.offered, self._waiting()
        self.offer = self.offered = None
        if offer is None or op is None:
            return None
        offer.let_go()
        if taken:
            return op
        queue = op.endpoint.tx_waiters
        queue.join(waiter)  # an offer that is out has given its place up
        queue.stand_aside(waiter)
        self._vain = min(self._vain + 1, 10)
        most = min(QUIET_MAX, QUIET_MIN * 2**self._vain)
        self._quiet_until = monotonic() + random.uniform(0.0, most)  # noqa: S311 - no secret
        return None

    # --- inside ------------------------------------------------------------------------------------------------------

    def _waiting(self) -> Waiter:
        if self._waiter is None:
            raise RuntimeError("this select stands in no queue")
        return self._waiter

    def _shuffled(self) -> list[Op]:
        return random.sample(self._ops, len(self._ops)) if len(self._ops) > 1 else self._ops

    def _attempt(self, op: Any) -> bool:
        try:
            return bool(op.attempt())
        except ChannelError as error:
            error.op = op
            raise

    def _place(self, op: SendOp[Any], waiter: Waiter, token: Token | None) -> Offer | None:
        try:
            op.handle._check()
            return op.endpoint.offer_arm(op.prepared, waiter, token)
        except ChannelError as error:
            error.op = op
            raise

    def _asked(self) -> Op | None:
        offer, op = self.offer, self.offered
        try:
            return op if offer is not None and offer.settled() else None
        except ChannelError as error:
            error.op = op
            raise

    def _could(self, op: Op) -> bool:
        """True if this arm could go on, were no offer out."""
        if isinstance(op, RecvOp):
            end = op.endpoint
            if not (end.can_recv() if end.due is None else end.pending()):
                return False
            return not (end.far and end.capacity == 0 and end.keeps) or end.recv_over
        if isinstance(op, SendOp):
            return op.handle.closed or op.endpoint.can_send()
        return isinstance(op, TimerOp) and op.attempt()
