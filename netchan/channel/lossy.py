"""A channel in process whose values may be dropped: overflow policies and ``ttl``.

Layer 5: no I/O, no waiting; local.py with another answer to "no room", and an age on each value. Values lie in the flow
as (when they are over, value); the time is ``time.monotonic()``.

Threads: as in local.py. Spec: docs/spec/channel-end.md §8.
"""

# ruff: noqa: D102 - the contract of these methods is written once, at what they implement

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple

from netchan.channel.base import ChannelStats, Level
from netchan.channel.flow import Flow
from netchan.channel.local import LocalEndpoint
from netchan.channel.overflow import BLOCK, DISCONNECT, DROP_NEW, LATEST, may_drop
from netchan.errors import Code
from netchan.markers import EMPTY, Empty

TOO_SLOW: Final = "overflow='disconnect': the other side did not keep up"


class Aged(NamedTuple):
    """A value and when it is over."""

    due: float
    value: Any


class LossyFlow(Flow):
    """A direction with a policy.

    Attributes:
        overflow: number of ``channel.overflow``. keep: values that stay when more come.
        ttl: seconds, ``inf``: no limit.
        dropped: accepted values that were dropped, by either. refused: values that ``drop_new`` never accepted.
    """

    __slots__ = ("dropped", "keep", "overflow", "refused", "ttl")

    def __init__(self, capacity: int, overflow: int, ttl_ms: int) -> None:
        super().__init__(capacity)
        self.overflow = overflow or BLOCK
        self.keep = 1 if overflow == LATEST else capacity
        self.ttl = ttl_ms / 1000 if ttl_ms else inf
        self.dropped = self.refused = 0


class LossyEndpoint(LocalEndpoint):
    """One side of a channel whose directions have policies (contract: base.Endpoint)."""

    __slots__ = ()

    tx: LossyFlow
    rx: LossyFlow

    @property
    def lossy(self) -> bool:  # type: ignore[override]
        return may_drop(self.tx.overflow) or self.tx.ttl != inf

    @property
    def waits(self) -> bool:  # type: ignore[override]
        return self.tx.overflow == BLOCK

    def _aged(self, value: Any) -> Aged:
        return Aged(monotonic() + self.tx.ttl, value)

    # --- sending -----------------------------------------------------------------------------------------------------

    def try_send(self, prepared: Any) -> int:
        flow = self.tx
        if flow.overflow == BLOCK:
            return super().try_send(self._aged(prepared))
        gone: list[Any] = []  # user objects may run code when they go: not under the lock
        with flow.lock:
            if flow.over_tx:
                self.check_send()
            room = flow.keep if flow.overflow == LATEST else max(flow.keep, flow.room)
            free = len(flow.values) + flow.reserved + flow.permits < room
            if not free and flow.overflow == DROP_NEW:
                flow.refused += 1
                return flow.sent or 1
            if free or flow.overflow != DISCONNECT:
                while len(flow.values) >= room:
                    gone.append(flow.values.popleft())
                    flow.dropped += 1
                flow.values.append(self._aged(prepared))
                flow.sent = position = flow.sent + 1
                free = True
        if not free:
            self.abort(int(Code.LIMIT), TOO_SLOW)
            self.check_send()
        if flow.rx_waiters.waiting:
            flow.rx_waiters.wake()
        if gone and flow.ack_waiters.waiting:
            flow.ack_waiters.wake_all()
        return position

    def send_reserved(self, prepared: Any) -> int:
        return super().send_reserved(self._aged(prepared))

    def try_send_many(self, values: Iterator[Any], limit: int) -> tuple[int, bool]:
        if self.tx.overflow == BLOCK:
            return super().try_send_many(map(self._aged, values), limit)
        for done in range(limit):
            if self.tx.over_tx:
                if done:
                    break
                self.check_send()
            value = next(values, EMPTY)
            if value is EMPTY:
                return done, True
            self.try_send(value)
        else:
            done = limit
        return done, False

    def can_send(self) -> bool:
        return self.tx.overflow != BLOCK or super().can_send()

    def reached(self, level: Level, position: int) -> bool:
        return position <= self.tx.taken + self.tx.dropped or super().reached(level, position)

    def put_back(self, value: Any) -> None:
        super().put_back(Aged(monotonic() + self.rx.ttl, value))

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Drop what is over at the head."""
        flow = self.rx
        if flow.ttl == inf:
            return
        gone: list[Any] = []
        now = monotonic()
        with flow.lock:
            while flow.values and flow.values[0].due <= now:
                gone.append(flow.values.popleft())
                flow.dropped += 1
        if gone:
            flow.tx_waiters.wake(len(gone))
            flow.ack_waiters.wake_all()

    def try_recv(self) -> Any:
        self._expire()
        got = super().try_recv()
        return got if got is EMPTY else got.value

    def try_recv_many(self, limit: int) -> list[Any]:
        self._expire()
        # try_recv, which the method of the base calls when it has nothing, gives values that are bare already.
        return [got.value if isinstance(got, Aged) else got for got in super().try_recv_many(limit)]

    def try_recv_into(self, buffer: memoryview) -> int | Empty:
        self._expire()
        return super().try_recv_into(buffer)

    @property
    def most_at_once(self) -> int | None:  # type: ignore[override]
        return 1 if self.rx.overflow == LATEST else None

    def _bare(self, held: Any) -> Any:
        return held.value

    def can_recv(self) -> bool:
        self._expire()
        return super().can_recv()

    @property
    def recv_over(self) -> bool:
        self._expire()
        return super().recv_over

    def pending(self) -> int:
        self._expire()
        return super().pending()

    def stats(self) -> ChannelStats:
        flows = {id(flow): flow for flow in (self.tx, self.rx)}.values()
        return replace(super().stats(), dropped=sum(flow.dropped + flow.refused for flow in flows))
