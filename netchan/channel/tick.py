"""The channel behind ``ticker``: a queue of one that time fills.

Layer 5: no thread, no task and no timer of its own. Whoever looks computes what has become due meanwhile, and whoever
waits sleeps until ``due``; a ticker that nobody asks costs nothing. Spec: docs/spec/channel-end.md §7; api rule R38.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from netchan.channel.flow import Flow
from netchan.channel.local import LocalEndpoint
from netchan.channel.ops import check_seconds
from netchan.markers import Empty

PERIOD_MIN: Final = 1e-6
"""Shortest period in seconds: below it nothing but ticks would happen."""


class TickEndpoint(LocalEndpoint):
    """Its receiving side has at most one tick, the first that became due since the last was taken.

    Args:
        period: seconds between two ticks; they are due at the start plus whole multiples of it, however late they are
            taken.
        clock: seconds, never going back.
    """

    __slots__ = ("_clock", "_number", "_period", "_start")

    def __init__(self, period: float, clock: Callable[[], float] = monotonic) -> None:
        flow = Flow(1)
        super().__init__(float, flow, flow)
        self._clock, self._period = clock, period
        self._start = clock()
        self._number = 1

    def _fill(self) -> None:
        flow = self.rx
        with flow.lock:
            passed = int((self._clock() - self._start) / self._period)
            if passed < self._number:
                return
            if not flow.values and not flow.over_tx:
                flow.values.append(self._start + self._number * self._period)
                flow.sent += 1
            # those that found the queue full are dropped
            self._number = passed + 1

    @property
    def due(self) -> float | None:  # type: ignore[override]
        """When the next tick comes, beside the one that may be here."""
        if self.rx.over_tx:
            return None
        return self._start + self._number * self._period

    def try_recv(self) -> Any:
        """See base.Endpoint."""
        self._fill()
        return super().try_recv()

    def try_recv_many(self, limit: int) -> list[Any]:
        """See base.Endpoint."""
        self._fill()
        return super().try_recv_many(limit)

    def try_recv_into(self, buffer: memoryview) -> int | Empty:
        """See base.Endpoint."""
        self._fill()
        return super().try_recv_into(buffer)

    def can_recv(self) -> bool:
        """True always: the next in line has to look when it is due, so it is woken when the one before it leaves."""
        return True

    def has(self, n: int) -> bool:
        """See base.Endpoint."""
        self._fill()
        return super().has(n)

    def pending(self) -> int:
        """See base.Endpoint."""
        self._fill()
        return super().pending()


def tick_endpoint(seconds: Any) -> TickEndpoint:
    """The endpoint of ``ticker(seconds)``, which starts now. ConfigError: no number from 1e-6 to ten years."""
    return TickEndpoint(check_seconds("ticker", seconds, PERIOD_MIN))
