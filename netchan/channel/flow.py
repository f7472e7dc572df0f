"""One direction of a channel in process: accepted values in a bounded queue, or the outstanding offers of a rendezvous.

Layer 5: no I/O, no waiting. A ``Flow`` is what the endpoints (local.py) act on: they append, take, and end it.
Capacity 0: nothing is ever appended; an offer stays the sender's until a receiver's own step takes its value.

Threads: every change happens under the flow's lock, which is a leaf: no user code runs under it (values are dropped and
iterators advanced outside), wake-ups follow after it. Spec: docs/spec/channel-end.md.
"""

# ruff: noqa: D102 - the contract of these methods is written once, at what they implement

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from netchan.markers import EMPTY
from netchan.net.wait import Waiter, WaitQueue, leaf_lock, run_aside

if TYPE_CHECKING:
    from netchan.channel.local import LocalEndpoint
    from netchan.errors import SessionLost

CLEAN: Final = 1
"""``Flow.end``: closed; otherwise 0 while open, or the ``Code`` that receivers get behind the values."""


class Flow:
    """One direction: a bounded queue of accepted values, or the outstanding offers of a rendezvous.

    Attributes:
        capacity: as given. room: the bound in force (a waiting ``recv_many(min=n)`` may lift it).
        values: accepted, not taken. offers: outstanding, oldest first. reserved: places held by a running send_many,
            whose items come whatever ends the direction meanwhile. permits: places held by permits.
        sent, taken, discarded: counts since the start; sent = taken + discarded + len(values).
        end: 0 open, CLEAN closed, else the code behind the values; ended_by: the endpoint that did it.
        lost: the last sender or receiver was held over there, and the session with it is gone.
        stopped: the receiving side takes no more. aborted: (code, reason, endpoint) or None.
        over_tx: end or stopped or aborted: no further value is accepted.
    """

    __slots__ = (
        "aborted",
        "ack_waiters",
        "capacity",
        "discarded",
        "end",
        "end_waiters",
        "ended_by",
        "lock",
        "lost",
        "offers",
        "over_tx",
        "permits",
        "reserved",
        "room",
        "rx_waiters",
        "sent",
        "stopped",
        "taken",
        "tx_waiters",
        "values",
        "wants",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.room = capacity
        self.lock = leaf_lock()
        self.values: deque[Any] = deque()
        self.offers: OrderedDict[LocalOffer, None] = OrderedDict()
        self.reserved = 0
        self.permits = 0
        self.wants: list[int] = []
        self.sent = 0
        self.taken = 0
        self.discarded = 0
        self.end = 0
        self.ended_by: LocalEndpoint | None = None
        self.stopped = False
        self.lost: SessionLost | None = None
        self.aborted: tuple[int, str, LocalEndpoint] | None = None
        self.over_tx = False
        self.tx_waiters = WaitQueue()
        self.rx_waiters = WaitQueue()
        self.ack_waiters = WaitQueue()
        self.end_waiters = WaitQueue()

    def over_rx(self) -> bool:
        """True when there is nothing to take and never will be."""
        return self.over_tx and not self.values and not self.reserved and not self.offers

    def finish(self, mark: Callable[[], None], *, discard: bool, blocking: bool = True) -> None:
        """End this direction: run ``mark`` under the lock, take back the offers, wake everybody.

        Args:
            mark: sets ``end``, ``stopped`` or ``aborted``.
            discard: also drop and count what was accepted and not taken.
            blocking: False in a finaliser: what meets a lock in use is finished on a thread of its own.
        """
        if not self.lock.acquire(blocking):
            run_aside(partial(self.finish, mark, discard=discard))
            return
        dropped: deque[Any] | None = None
        try:
            mark()
            self.over_tx = True
            offers, self.offers = self.offers, OrderedDict()
            if discard:
                dropped, self.values = self.values, deque()
                self.discarded += len(dropped)
        finally:
            self.lock.release()
        del dropped  # user objects may run code when they go: not under the lock
        for offer in offers:
            offer.waiter.wake()
        for queue in (self.tx_waiters, self.rx_waiters, self.ack_waiters, self.end_waiters):
            queue.wake_all()

    def took(self) -> None:
        """Wake those whom a taken value concerns."""
        if self.tx_waiters.waiting:
            self.tx_waiters.wake()
        if self.ack_waiters.waiting:
            self.ack_waiters.wake_all()


class Token:
    """What the offers of one select share: one of them wins, the others are stale from then on.

    Attributes:
        won: the offer that was claimed, or None.
    """

    __slots__ = ("won",)

    def __init__(self) -> None:
        self.won: LocalOffer | None = None

    def claim(self, offer: LocalOffer) -> bool:
        """True if this offer is the one; it may be asked for several by several receivers at once."""
        with _claims:
            if self.won is None:
                self.won = offer
            return self.won is offer


_claims: Final = leaf_lock()
"""Taken inside a flow's lock, and nothing inside it: receivers on two flows may want offers of one select."""
OUT: Final = 0
CLAIMED: Final = 1
TAKEN: Final = 2
BACK: Final = 3
EXHAUSTED: Final = 4


class LocalOffer:
    """One value, or the next item of an iterator, that a sender holds out (contract: base.Offer)."""

    __slots__ = ("claim", "endpoint", "error", "many", "number", "source", "state", "token", "waiter")

    def __init__(
        self, endpoint: LocalEndpoint, source: Any, waiter: Waiter, many: bool, token: Token | None = None
    ) -> None:
        self.endpoint = endpoint
        self.source = source
        self.waiter = waiter
        self.many = many
        self.number = 0
        self.state = OUT
        self.error: BaseException | None = None
        self.claim = leaf_lock() if many else None
        self.token = token

    def settled(self) -> bool:
        if self.state == TAKEN:
            return True
        if self.state == EXHAUSTED:
            if self.error is not None:
                raise self.error
            return True
        if self.state == OUT:
            self.endpoint.check_send()
        return False

    @property
    def stranded(self) -> bool:
        """Never: the answer is immediate."""
        return False

    def let_go(self) -> None:
        """Nothing is left to settle in process."""

    def withdraw(self) -> bool:
        flow = self.endpoint.tx
        with flow.lock:
            if self.state == OUT:
                flow.offers.pop(self, None)
                self.state = BACK
        if self.state == CLAIMED and self.claim is not None:
            with self.claim:  # a receiver on another thread is inside the sender's iterator: its outcome decides
                pass
        return self.state != TAKEN

    def advance(self) -> Any:
        """Fetch the value for the receiver that has claimed this offer; EMPTY if the iterator gave none.

        Runs the sender's iterator on the receiver's thread, outside every lock but the offer's own.
        """
        try:
            value = next(self.source)
        except StopIteration:
            self.state = EXHAUSTED
        except BaseException as error:
            self.error = error  # the sender raises it: it is the sender's iterator
            self.state = EXHAUSTED
            if not isinstance(error, Exception):
                self.waiter.wake()
                raise
        else:
            return value
        self.waiter.wake()
        return EMPTY
