"""Channels in process against a model, under any sequence of steps (docs/spec/channel-end.md §1, §2, §5)."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from netchan import sync
from netchan.errors import ChannelAborted, ChannelClosed, ChannelEnded, WouldBlock


class Direction:
    """What one direction should do."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.values: deque[int] = deque()
        self.sent = self.taken = self.discarded = 0
        self.closed = self.stopped = self.aborted = False

    def send(self) -> type[Exception] | None:
        if self.aborted:
            return ChannelAborted
        if self.closed or self.stopped:
            return ChannelClosed
        return WouldBlock if len(self.values) >= self.capacity else None

    def recv(self) -> type[Exception] | None:
        if self.aborted:
            return ChannelAborted
        if self.stopped:
            return ChannelClosed
        if self.values:
            return None
        return ChannelEnded if self.closed else WouldBlock

    def drop(self) -> None:
        self.discarded += len(self.values)
        self.values.clear()


class PipeMachine(RuleBasedStateMachine):
    """Both ends of a pipe, or the one queue of a channel as both."""

    @initialize(capacity=st.integers(1, 4), one_queue=st.booleans())
    def start(self, capacity: int, one_queue: bool) -> None:
        self.one_queue = one_queue
        if one_queue:
            ch = sync.channel(capacity=capacity)
            self.ends: list[Any] = [ch, ch]
            one = Direction(capacity)
            self.ways = [one, one]
        else:
            self.ends = list(sync.pipe(capacity=capacity))
            self.ways = [Direction(capacity), Direction(capacity)]
        self.number = 0

    @staticmethod
    def attempt(call: Any) -> Any:
        try:
            return None, call()
        except (ChannelAborted, ChannelClosed, ChannelEnded, WouldBlock) as error:
            return type(error), None

    @rule(side=st.integers(0, 1))
    def send(self, side: int) -> None:
        way = self.ways[side]
        want = way.send()
        self.number += 1
        assert self.attempt(lambda: self.ends[side].send_nowait(self.number))[0] is want
        if want is None:
            way.values.append(self.number)
            way.sent += 1

    @rule(side=st.integers(0, 1), n=st.integers(1, 6))
    def send_many(self, side: int, n: int) -> None:
        way = self.ways[side]
        want = way.send()
        items = iter([self.number + 1 + k for k in range(n)])
        self.number += n
        room = way.capacity - len(way.values)
        got = None
        try:
            assert self.ends[side].send_many((v for v in items), timeout=0) == n
        except (TimeoutError, ChannelAborted, ChannelClosed) as error:
            got = type(error)
        if want in (ChannelAborted, ChannelClosed):
            assert got is want
            assert len(list(items)) == n
            return
        accepted = min(n, room)
        assert got is (None if n < room else TimeoutError)
        assert len(list(items)) == n - accepted
        way.values.extend(range(self.number - n + 1, self.number - n + 1 + accepted))
        way.sent += accepted

    @rule(side=st.integers(0, 1))
    def recv(self, side: int) -> None:
        way = self.ways[1 - side]
        want = way.recv()
        kind, value = self.attempt(self.ends[side].recv_nowait)
        assert kind is want
        if want is None:
            assert value == way.values.popleft()
            way.taken += 1

    @rule(side=st.integers(0, 1), most=st.integers(1, 6))
    def recv_many(self, side: int, most: int) -> None:
        way = self.ways[1 - side]
        want = way.recv()
        try:
            got = self.ends[side].recv_many(most, timeout=0)
        except TimeoutError:
            assert want is WouldBlock
        except (ChannelAborted, ChannelClosed, ChannelEnded) as error:
            kind = type(error)
            assert kind is want
        else:
            assert want is None
            assert got == [way.values.popleft() for _ in range(min(most, len(way.values)))]
            way.taken += len(got)

    @rule(side=st.integers(0, 1))
    def close(self, side: int) -> None:
        self.ends[side].close()
        self.ways[side].closed = True

    @rule(side=st.integers(0, 1))
    def stop(self, side: int) -> None:
        self.ends[side].stop()
        way = self.ways[1 - side]
        if not way.aborted:
            way.stopped = True
            way.drop()

    @rule(side=st.integers(0, 1))
    def abort(self, side: int) -> None:
        self.ends[side].abort(1, "x")
        for way in self.ways:
            way.aborted = True
            way.drop()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "ways"):
            return
        for side in (0, 1):
            out, into = self.ways[side], self.ways[1 - side]
            end = self.ends[side]
            stats = end.stats()
            assert (stats.sent, stats.taken, stats.pending) == (out.sent, into.taken, len(into.values))
            assert out.sent == out.taken + out.discarded + len(out.values)
            assert stats.discarded == (out.discarded if self.one_queue else out.discarded + into.discarded)
            assert (stats.senders_waiting, stats.receivers_waiting) == (0, 0)
            send_over = out.send() in (ChannelAborted, ChannelClosed)
            recv_over = into.recv() in (ChannelAborted, ChannelClosed, ChannelEnded)
            assert end.closed == (send_over and recv_over)

    def teardown(self) -> None:
        if hasattr(self, "ends"):
            for end in self.ends:
                end.abort()


TestPipe = PipeMachine.TestCase
TestPipe.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
