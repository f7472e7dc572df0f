"""Channels in process: the endpoint over plain Python objects, by reference and not validated.

Layer 5: no I/O, no waiting. One ``Flow`` (flow.py) is one direction; a one-queue channel has one flow that is both, a
pipe has two. Way of a value: try_send appends under the flow's lock -> rx queue is woken -> a receiver's own step takes
it. Capacity 0: an offer is laid out instead, and a receiver's own step takes its value.

Threads: see flow.py; user code and wake-ups come after its lock is left. Spec: docs/spec/channel-end.md.
"""

# ruff: noqa: D102 - the contract of these methods is written once, at what they implement

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, NoReturn

from netchan.channel.base import ChannelStats, Handles, Level
from netchan.channel.flow import CLAIMED, CLEAN, TAKEN, Flow, LocalOffer, Token
from netchan.errors import (
    Code,
    CodecError,
    ConfigError,
    MessageTooLarge,
    SessionLost,
    channel_aborted,
    channel_closed,
    channel_ended,
)
from netchan.markers import EMPTY, Empty
from netchan.net.wait import Driver, Waiter, run_aside

_PLAIN_ITERATORS: Final[tuple[type, ...]] = (type(iter([])), type(iter(())), type(iter(range(0))))
"""Iterators whose ``next`` runs no Python code: they may be advanced under the lock."""


class LocalEndpoint:
    """One side of a channel in process (contract: base.Endpoint)."""

    __slots__ = (
        "__weakref__",
        "ack_waiters",
        "close_timeout",
        "driver",
        "end_waiters",
        "handles",
        "name",
        "one_queue",
        "other",
        "peer",
        "peer_id",
        "prepare",
        "rx",
        "rx_waiters",
        "tx",
        "tx_waiters",
        "type",
    )

    due: float | None = None
    lossy = False
    waits = True
    rings = False
    far: Final = False
    keeps: Final = False
    wanted: Final = 0
    redundancy_info: Final = None

    @property
    def redundancy(self) -> None:
        """As in base.Endpoint: there are no paths."""
        return None

    @redundancy.setter
    def redundancy(self, mode: Any) -> None:
        if mode is not None:
            raise ConfigError(
                f"redundancy={mode!r} says what several connections are used for, and a channel in process has none; "
                "only channels of a peer have it"
            )

    def __init__(self, type: Any, tx: Flow, rx: Flow) -> None:
        self.name = ""
        self.peer: Any = None
        self.peer_id = ""
        self.type = type
        self.tx = tx
        self.rx = rx
        self.one_queue = tx is rx
        self.other: LocalEndpoint = self
        self.driver: Driver | None = None
        self.handles = Handles()
        self.close_timeout = 0.0
        self.prepare: Callable[[Any], Any] | None = None
        self.tx_waiters = tx.tx_waiters
        self.rx_waiters = rx.rx_waiters
        self.ack_waiters = tx.ack_waiters
        self.end_waiters = tx.end_waiters

    # --- sending -----------------------------------------------------------------------------------------------------

    def try_send(self, prepared: Any) -> int:
        flow = self.tx
        with flow.lock:
            if flow.over_tx:
                self.check_send()
            if len(flow.values) + flow.reserved + flow.permits >= flow.room:
                return 0
            flow.values.append(prepared)
            flow.sent = position = flow.sent + 1
        if flow.rx_waiters.waiting:
            flow.rx_waiters.wake()
        return position

    def try_reserve(self) -> bool:
        flow = self.tx
        with flow.lock:
            if flow.over_tx:
                self.check_send()
            if len(flow.values) + flow.reserved + flow.permits >= flow.room:
                return False
            flow.permits += 1
        return True

    def unreserve(self) -> None:
        flow = self.tx
        if not flow.lock.acquire(blocking=False):  # it may be a finaliser
            run_aside(self.unreserve)
            return
        try:
            flow.permits -= 1
        finally:
            flow.lock.release()
        flow.tx_waiters.wake()

    def send_reserved(self, prepared: Any) -> int:
        flow = self.tx
        with flow.lock:
            flow.permits -= 1
            if flow.over_tx:
                self.check_send()
            flow.values.append(prepared)
            flow.sent = position = flow.sent + 1
        if flow.rx_waiters.waiting:
            flow.rx_waiters.wake()
        return position

    def parked(self, n: int) -> None:
        """Nobody to tell: offers of a local channel are seen by whoever receives."""

    def iterate(self, values: Iterable[Any]) -> Iterator[Any]:
        return iter(values)

    def try_send_many(self, values: Iterator[Any], limit: int) -> tuple[int, bool]:
        flow = self.tx
        if type(values) in _PLAIN_ITERATORS:
            with flow.lock:
                if flow.over_tx:
                    self.check_send()
                n = min(limit, flow.room - len(flow.values) - flow.reserved - flow.permits)
                if n <= 0:
                    return 0, False
                before = len(flow.values)
                flow.values.extend(islice(values, n))
                accepted = len(flow.values) - before
                flow.sent += accepted
            if flow.rx_waiters.waiting:
                flow.rx_waiters.wake(accepted)
            return accepted, accepted < n
        accepted = 0
        while accepted < limit:
            with flow.lock:
                if flow.over_tx:
                    if accepted:
                        break
                    self.check_send()
                if len(flow.values) + flow.reserved + flow.permits >= flow.room:
                    break
                flow.reserved += 1
            try:
                value = next(values, EMPTY)
            except BaseException:
                self._give_place_back(flow)
                raise
            if value is EMPTY:
                self._give_place_back(flow)
                return accepted, True
            with flow.lock:
                # The place was held when the item left the iterator, so it is accepted even if we were closed since.
                flow.reserved -= 1
                flow.sent += 1
                if flow.stopped or flow.aborted is not None:
                    flow.discarded += 1
                else:
                    flow.values.append(value)
            accepted += 1
            if flow.rx_waiters.waiting:
                flow.rx_waiters.wake()
        return accepted, False

    def _give_place_back(self, flow: Flow) -> None:
        with flow.lock:
            flow.reserved -= 1
            over = flow.over_tx
        flow.tx_waiters.wake()
        if over:
            flow.rx_waiters.wake_all()

    def offer(
        self, source: Any, waiter: Waiter, *, many: bool = False, token: Token | None = None
    ) -> LocalOffer | None:
        flow = self.tx
        if flow.capacity != 0:
            return None
        offer = LocalOffer(self, source, waiter, many, token)
        with flow.lock:
            if flow.over_tx:
                self.check_send()
            flow.offers[offer] = None
        if flow.rx_waiters.waiting:
            flow.rx_waiters.nudge(waiter)  # a select that may receive here too does not meet itself
        return offer

    def offer_arm(self, prepared: Any, waiter: Waiter, token: Token | None) -> LocalOffer | None:
        return self.offer(prepared, waiter, token=token)

    def can_send(self) -> bool:
        flow = self.tx
        return flow.over_tx or len(flow.values) + flow.reserved + flow.permits < flow.room

    @property
    def send_over(self) -> bool:
        return self.tx.over_tx

    def check_send(self) -> None:
        """Raise what a send gets now; nothing while the direction is open."""
        flow = self.tx
        if flow.aborted is not None:
            self._raise_aborted(flow)
        if flow.lost is not None:
            raise flow.lost
        if flow.end:
            raise channel_closed(self.name, self.peer_id, "it is closed for sending", "make a new channel")
        if flow.stopped:
            raise channel_closed(self.name, self.peer_id, "the receiving side takes no more", "stop sending")

    # --- receiving ---------------------------------------------------------------------------------------------------

    def try_recv(self) -> Any:
        flow = self.rx
        with flow.lock:
            if flow.values:
                value = flow.values.popleft()
                flow.taken += 1
            elif flow.offers:
                value = EMPTY
            elif flow.over_tx and not flow.reserved:
                self._raise_recv(flow)
            else:
                return EMPTY
        if value is EMPTY:
            value = self._take_offer(flow)
            if value is EMPTY:
                return EMPTY if not flow.over_rx() else self.try_recv()
        if flow.tx_waiters.waiting or flow.ack_waiters.waiting:
            flow.took()
        return value

    def _take_offer(self, flow: Flow) -> Any:
        while True:
            with flow.lock:
                if not flow.offers:
                    return EMPTY
                offer, _ = flow.offers.popitem(last=False)
                if offer.token is not None and not offer.token.claim(offer):
                    continue
                if offer.claim is None:
                    flow.sent += 1
                    flow.taken += 1
                    offer.number = flow.sent
                    offer.state = TAKEN
                    value = offer.source
                else:
                    offer.state = CLAIMED
                    offer.claim.acquire()
            if offer.claim is not None:
                try:
                    value = offer.advance()
                    if value is EMPTY:
                        continue
                    with flow.lock:
                        flow.sent += 1
                        flow.taken += 1
                        offer.number = flow.sent
                        offer.state = TAKEN
                finally:
                    offer.claim.release()
            offer.waiter.wake()
            return value

    def try_recv_many(self, limit: int) -> list[Any]:
        flow = self.rx
        with flow.lock:
            values = flow.values
            n = min(limit, len(values))
            if n == len(values):
                got = list(values)
                values.clear()
            else:
                got = [values.popleft() for _ in range(n)]
            flow.taken += n
        while len(got) < limit and flow.offers:
            value = self._take_offer(flow)
            if value is EMPTY:
                break
            got.append(value)
        if not got:
            first = self.try_recv()
            if first is EMPTY:
                return []
            got.append(first)
            return got
        if flow.tx_waiters.waiting:
            flow.tx_waiters.wake(len(got))
        if flow.ack_waiters.waiting:
            flow.ack_waiters.wake_all()
        return got

    def try_recv_into(self, buffer: memoryview) -> int | Empty:
        flow = self.rx
        with flow.lock:
            offer = None
            while not flow.values and flow.offers:
                offer = next(iter(flow.offers))
                if offer.token is None or offer.token.won is None:
                    break
                del flow.offers[offer]  # another offer of the same select was taken
                offer = None
            if flow.values:
                value = self._bare(flow.values[0])
            elif offer is not None:
                if offer.many:
                    raise CodecError("recv_into cannot take from a send_many of a capacity-0 channel; use recv()")
                value = offer.source
            elif flow.over_tx and not flow.reserved:
                self._raise_recv(flow)
            else:
                return EMPTY
            try:
                view = memoryview(value).cast("B")
            except (TypeError, BufferError):
                raise CodecError(
                    f"recv_into wants bytes, but the next value is a {type(value).__name__}; take it with recv()"
                ) from None
            if view.nbytes > buffer.nbytes:
                raise MessageTooLarge(
                    f"the next value has {view.nbytes} bytes, the buffer {buffer.nbytes}; "
                    "give a larger one (the value is still there)",
                    needed=view.nbytes,
                    limit=buffer.nbytes,
                )
            if offer is not None and offer.token is not None and not offer.token.claim(offer):
                del flow.offers[offer]  # taken on another channel just now
                return self.try_recv_into(buffer)
            buffer[: view.nbytes] = view
            if offer is None:
                flow.values.popleft()
            else:
                del flow.offers[offer]
                flow.sent += 1
                offer.number = flow.sent
                offer.state = TAKEN
            flow.taken += 1
        if offer is not None:
            offer.waiter.wake()
        flow.took()
        return view.nbytes

    def _bare(self, held: Any) -> Any:
        """The value that a place of the flow holds."""
        return held

    def can_recv(self) -> bool:
        flow = self.rx
        return bool(flow.values) or bool(flow.offers) or flow.over_rx()

    @property
    def recv_over(self) -> bool:
        return self.rx.over_rx()

    most_at_once: int | None = None
    """As in base.Endpoint: ``want`` makes room for any number."""

    @property
    def recv_ending(self) -> bool:
        return self.rx.over_tx and not self.rx.reserved

    def has(self, n: int) -> bool:
        return self.pending() >= n

    def want(self, n: int) -> None:
        flow = self.rx
        with flow.lock:
            flow.wants.append(n)
            flow.room = max(flow.capacity, *flow.wants)
        flow.tx_waiters.wake(n)

    def unwant(self, n: int) -> None:
        flow = self.rx
        with flow.lock:
            flow.wants.remove(n)
            flow.room = max(flow.capacity, *flow.wants) if flow.wants else flow.capacity

    def _raise_recv(self, flow: Flow) -> NoReturn:
        if flow.aborted is not None:
            self._raise_aborted(flow)
        if flow.lost is not None:
            raise flow.lost
        if flow.stopped:
            raise channel_closed(self.name, self.peer_id, "this side stopped receiving", "make a new channel to go on")
        if flow.end != CLEAN:
            raise channel_aborted(self.name, self.peer_id, code=flow.end, reason="", by_us=flow.ended_by is self)
        raise channel_ended(self.name, self.peer_id)

    def _raise_aborted(self, flow: Flow) -> NoReturn:
        code, reason, by = flow.aborted or (0, "", self)
        raise channel_aborted(self.name, self.peer_id, code=code, reason=reason, by_us=by is self)

    # --- progress ----------------------------------------------------------------------------------------------------

    def sent(self) -> int:
        return self.tx.sent

    def reached(self, level: Level, position: int) -> bool:
        flow = self.tx
        if position <= flow.taken:
            return True
        if flow.aborted is not None:
            self._raise_aborted(flow)
        if level == "received":
            return True
        if flow.stopped:
            raise channel_closed(
                self.name, self.peer_id, "the receiving side stopped and dropped what was accepted", "stop sending"
            )
        return False

    def ask(self, level: Level, position: int) -> None:
        return None

    # --- ending ------------------------------------------------------------------------------------------------------

    def close_send(self) -> None:
        self._end(CLEAN)

    def close_unclean(self) -> None:
        self._end(Code.LEFT_BY_EXCEPTION)

    def _end(self, how: int, *, blocking: bool = True) -> None:
        flow = self.tx

        def mark() -> None:
            if not flow.end:
                flow.end = int(how)
                flow.ended_by = self

        if not flow.end:
            flow.finish(mark, discard=False, blocking=blocking)

    def stop_recv(self) -> None:
        self._stop(blocking=True)

    def _stop(self, *, blocking: bool) -> None:
        flow = self.rx

        def mark() -> None:
            flow.stopped = True

        if not flow.stopped and flow.aborted is None:
            flow.finish(mark, discard=True, blocking=blocking)

    def abort(self, code: int, reason: str) -> None:
        for flow in (self.tx,) if self.one_queue else (self.tx, self.rx):
            self._abort_flow(flow, code, reason)

    def _abort_flow(self, flow: Flow, code: int, reason: str) -> None:
        def mark() -> None:
            if flow.aborted is None:
                flow.aborted = (code, reason, self)

        if flow.aborted is None:
            flow.finish(mark, discard=True)

    def drop_send(self) -> bool:
        flow = self.tx
        if flow.over_tx:
            return False
        noticed = bool(self.other.handles.receiving)
        self._end(Code.DROPPED, blocking=False)
        return noticed

    def drop_recv(self) -> None:
        self._stop(blocking=False)

    def lose(self, error: SessionLost, *, send: bool, recv: bool) -> None:
        for flow, ends in ((self.tx, send), (self.rx, recv)):

            def mark(flow: Flow = flow) -> None:
                flow.lost = error

            if ends and not flow.over_tx:
                flow.finish(mark, discard=False)

    def put_back(self, value: Any) -> None:
        flow = self.rx
        with flow.lock:
            if flow.stopped or flow.aborted is not None:
                flow.discarded += 1
            else:
                flow.values.appendleft(value)
            flow.taken -= 1
        flow.rx_waiters.nudge()

    def retype(self, form: Any) -> None:
        """Values of a channel in process are not validated."""

    def left_by_exception(self) -> None:
        self.close_unclean()
        if not self.one_queue:
            self.stop_recv()

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int | None:
        return self.tx.capacity

    def pending(self) -> int:
        return len(self.rx.values)

    def stats(self) -> ChannelStats:
        tx, rx = self.tx, self.rx
        return ChannelStats(
            sent=tx.sent,
            received=rx.sent,
            taken=rx.taken,
            discarded=tx.discarded if self.one_queue else tx.discarded + rx.discarded,
            pending=len(rx.values),
            capacity=tx.capacity,
            senders_waiting=len(tx.tx_waiters),
            receivers_waiting=len(rx.rx_waiters),
        )
