"""A channel in process that spills to disk: lossy.py with a file behind the queue.

Layer 5: no waiting. Values are encoded by the sending call, and decoded by the receiving one, outside every lock; they
lie in the flow, and in the file, as bytes. Whoever takes a value brings the next one from the file in the same step
under the lock, so an empty queue means an empty file.

Threads: as in local.py, but the lock is also held around reads and writes of the file. Spec: docs/spec/channel-end.md
§8.1.
"""

# ruff: noqa: D102 - the contract of these methods is written once, at what they implement

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

from netchan.channel.backlog import Backlog, refuse_ends
from netchan.channel.base import ChannelStats
from netchan.channel.codec import ID_TYPED, codec_for
from netchan.channel.local import LocalEndpoint
from netchan.channel.lossy import Aged, LossyEndpoint, LossyFlow
from netchan.channel.overflow import BLOCK, Spill
from netchan.channel.spool import SpoolFault
from netchan.errors import Code
from netchan.markers import EMPTY, CarriesEnds, Empty
from netchan.net.wait import READY_SECONDS_MAX


class SpillFlow(LossyFlow):
    """A direction whose values go to a file when the queue is full.

    Attributes:
        backlog: behind ``values``.
        fault: it could not be read, and nobody was told yet; else "".
    """

    __slots__ = ("backlog", "fault")

    def __init__(self, capacity: int, policy: Spill, ttl_ms: int) -> None:
        super().__init__(capacity, BLOCK, ttl_ms)
        self.backlog = Backlog(policy)
        self.fault = ""

    def finish(self, mark: Callable[[], None], *, discard: bool, blocking: bool = True) -> None:
        def both() -> None:
            mark()
            if discard:
                self.discarded += self.backlog.close()

        super().finish(both, discard=discard, blocking=blocking)

    def has_room(self, n: int = 0) -> bool:
        """Under the lock: True when a value of ``n`` bytes can be accepted."""
        return (not self.backlog and len(self.values) < self.room) or self.backlog.has_room(n)

    def put(self, data: Any, *, anyway: bool) -> None:
        """Under the lock: accept a value that has room, or ``anyway``. SpillError: it is not accepted."""
        due = monotonic() + self.ttl
        if not self.backlog and len(self.values) < self.room:
            self.values.append(Aged(due, bytes(data)))
        elif anyway:
            self.backlog.put_anyway(data, due)
        else:
            self.backlog.put(data, due)
        self.sent += 1

    def refill(self, blame: LocalEndpoint) -> None:
        """Under the lock: what has room now comes from the file; what cannot be read ends the direction."""
        try:
            while self.backlog and len(self.values) < self.room:
                data, due = self.backlog.peek()
                self.backlog.pop()
                self.values.append(Aged(due, data))
        except SpoolFault as fault:
            # At once, so that nobody takes the empty queue for a clean end; settle() does the rest without the lock.
            self.fault = f"a value that was on disk is lost: {fault}"
            if self.aborted is None:
                self.aborted = (int(Code.DROPPED), self.fault, blame)
            self.over_tx = True
        if self.over_tx and not self.backlog and not self.reserved:
            self.backlog.close()


class SpillEndpoint(LossyEndpoint):
    """One side of a channel that spills (contract: base.Endpoint)."""

    __slots__ = ("_codec",)

    tx: SpillFlow
    rx: SpillFlow

    def __init__(self, type: Any, tx: SpillFlow, rx: SpillFlow) -> None:
        super().__init__(type, tx, rx)
        self._codec = codec_for(type)
        self.prepare = self._encode

    def _encode(self, value: Any) -> Any:
        try:
            data = self._codec.encode(value)
        except CarriesEnds:
            raise refuse_ends() from None
        self.tx.backlog.check_size(len(data))
        return data

    # --- sending -----------------------------------------------------------------------------------------------------

    def try_send(self, prepared: Any) -> int:
        flow = self.tx
        with flow.lock:
            if flow.over_tx:
                self.check_send()
            if not flow.has_room(len(prepared)):
                return 0
            flow.put(prepared, anyway=False)
            position = flow.sent
        if flow.rx_waiters.waiting:
            flow.rx_waiters.wake()
        return position

    def try_reserve(self) -> bool:
        flow = self.tx
        with flow.lock:
            if flow.over_tx:
                self.check_send()
            if flow.permits >= flow.capacity or not flow.has_room():
                return False
            flow.permits += 1
        return True

    def send_reserved(self, prepared: Any) -> int:
        flow = self.tx
        with flow.lock:
            flow.permits -= 1
            if flow.over_tx:
                self.check_send()
            flow.put(prepared, anyway=True)
            position = flow.sent
        if flow.tx_waiters.waiting:
            flow.tx_waiters.wake()  # for another permit
        if flow.rx_waiters.waiting:
            flow.rx_waiters.wake()
        return position

    def try_send_many(self, values: Iterator[Any], limit: int) -> tuple[int, bool]:
        flow = self.tx
        done = 0
        until = monotonic() + READY_SECONDS_MAX  # a file takes longer than memory: others have their turn
        while done < limit and not (done and monotonic() > until):
            with flow.lock:
                if flow.over_tx:
                    if done:
                        break
                    self.check_send()
                if not flow.has_room():
                    if not done:
                        flow.backlog.tell_failure()
                    break
                flow.reserved += 1
            prepared: Any = EMPTY
            try:
                value = next(values, EMPTY)
                if value is EMPTY:
                    return done, True
                prepared = self._encode(value)
            finally:
                if prepared is EMPTY:
                    self._give_place_back(flow)
            with flow.lock:
                flow.reserved -= 1
                if flow.stopped or flow.aborted is not None:
                    flow.sent += 1
                    flow.discarded += 1
                else:
                    flow.put(prepared, anyway=True)
            done += 1
            if flow.rx_waiters.waiting:
                flow.rx_waiters.wake()
        return done, False

    def can_send(self) -> bool:
        return self.tx.over_tx or self.tx.has_room()

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """After values were taken, without the lock: whom a fault of the file concerns is told."""
        flow = self.rx
        if flow.fault:
            reason, flow.fault = flow.fault, ""
            flow.finish(_nothing, discard=True)
            self.other.abort(int(Code.DROPPED), reason)

    def _expire(self) -> None:
        flow = self.rx
        gone = 0
        with flow.lock:
            if flow.backlog:
                flow.backlog.spool.check_fork()
            now = monotonic()
            while flow.values and flow.values[0].due <= now:
                flow.values.popleft()
                flow.dropped += 1
                gone += 1
                flow.refill(self.other)
        self._settle()
        if gone:
            flow.tx_waiters.wake(gone)
            flow.ack_waiters.wake_all()

    def try_recv(self) -> Any:
        got = self._take(1)
        return self._codec.decode(got[0]) if got else EMPTY

    def try_recv_many(self, limit: int) -> list[Any]:
        return [self._codec.decode(data) for data in self._take(limit)]

    def _take(self, limit: int) -> list[bytes]:
        self._expire()
        flow = self.rx
        with flow.lock:
            n = min(limit, len(flow.values))
            if not n and flow.over_rx():
                self._raise_recv(flow)
            got = [flow.values.popleft().value for _ in range(n)]
            flow.taken += n
            flow.refill(self.other)
        self._settle()
        if n and flow.tx_waiters.waiting:
            flow.tx_waiters.wake(n)
        if n and flow.ack_waiters.waiting:
            flow.ack_waiters.wake_all()
        return got

    def try_recv_into(self, buffer: memoryview) -> int | Empty:
        with self.rx.lock:
            got = super().try_recv_into(buffer)
            self.rx.refill(self.other)
        self._settle()
        return got

    def _bare(self, held: Any) -> Any:
        # Under the lock, so no code of the program's types may run: none of those is bytes.
        return None if self._codec.id == ID_TYPED else self._codec.decode(held.value)

    def want(self, n: int) -> None:
        super().want(n)
        with self.rx.lock:
            self.rx.refill(self.other)
        self._settle()

    def put_back(self, value: Any) -> None:
        super().put_back(bytes(self._codec.encode(value)))

    # --- looking -----------------------------------------------------------------------------------------------------

    def pending(self) -> int:
        self._expire()
        flow = self.rx
        with flow.lock:
            return len(flow.values) + len(flow.backlog)

    def stats(self) -> ChannelStats:
        spool = self.tx.backlog.spool
        return replace(
            super().stats(),
            pending=self.pending(),
            on_disk=spool.count,
            on_disk_bytes=spool.used,
            spilled=spool.written,
            spilled_bytes=spool.written_bytes,
        )


def _nothing() -> None:
    """The direction is marked already."""
