"""The far process does what a case relies on: it is another process, it answers truly, and its faults are not lost."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

from netchan.errors import ChannelAborted, Code, CodecError, MessageTooLarge
from tests.unit.channel.far import Child, ChildDied, Far
from tests.unit.channel.far_data import FarError, Plain
from tests.unit.channel.harness import LIBRARIES, Front
from tests.unit.channel.test_conformance import program

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=LIBRARIES)
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    front = Front("unix", request.param)
    yield front
    front.end_all()
    front.child.close()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child("asyncio")
    yield child
    child.close()


def no_reference(thing: Any) -> tuple[int, str]:
    raise TypeError(f"{thing!r} cannot travel")


def there_and_back(value: Any) -> Any:
    plain = Plain(no_reference, lambda number, kind: None)
    unpacker = plain.unpacker()
    unpacker.feed(plain.pack(value))
    return next(iter(unpacker))


class TestTwoProcesses:
    @program
    async def test_far_half_is_in_a_child_that_serves_several_cases_and_comes_back(front: Front) -> None:  # noqa: N805
        ends = await front.make(1)
        assert isinstance(ends.rx, Far)
        assert not isinstance(ends.tx, Far)
        first = front.child
        assert first.process.pid != os.getpid()
        assert ends.tx.peer.node_id != ends.rx.peer.node_id
        front.end_all()
        ends = await front.make(1)
        assert front.child is first
        first.process.kill()
        first.process.wait()
        with pytest.raises(ChildDied):
            ends.rx.pending
        front.end_all()
        ends = await front.make(1)
        assert front.child is not first
        await front.do(ends.tx, "send", "again")
        assert await front.do(ends.rx, "recv") == "again"

    @program
    async def test_what_lives_here_is_refused_over_there(front: Front) -> None:  # noqa: N805
        one, other = await front.make(1), await front.make(1)
        with pytest.raises(TypeError, match="lives in this process"):
            await front.do(None, "select", one.rx.recv_op(), other.tx.send_op(1))


class TestObjects:
    def test_same_far_object_is_the_same_here_until_it_is_let_go(self, child: Child) -> None:
        ticks = child.call(None, "ticker", 5)
        arm = ticks.recv_op()
        assert arm.handle is ticks
        before = child.ask("kept")
        del arm
        gc.collect()
        assert child.ask("kept") == before - 1
        assert ticks.recv_op().handle is ticks

    def test_attribute_that_is_not_there_is_an_attribute_error(self, child: Child) -> None:
        assert not hasattr(child.call(None, "after", 5), "nothing")


class TestFaults:
    def test_warning_that_nobody_asked_for_is_told_at_the_end_of_the_case(self, child: Child) -> None:
        ends = child.call(None, "pipe", 1)
        del ends
        gc.collect()
        assert [text for text in child.ask("end") if "without close" in text]
        assert child.ask("end") == []

    def test_loss_on_purpose_is_no_fault(self, child: Child) -> None:
        ends = child.call(None, "pipe", 1)
        child.ask("lose", *ends)
        child.ask("collect")
        assert [text for text in child.ask("warned") if "without close" in text]
        assert child.ask("end") == []

    def test_call_that_hangs_ends_the_child_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        child = Child("blocking")
        _, far = child.call(None, "pipe", 1)
        far.pending
        monkeypatch.setattr("tests.unit.channel.far.PATIENCE", 0.1)
        with pytest.raises(TimeoutError, match="no answer to 'call'"):
            far.recv()
        assert not child.alive

    def test_waiting_calls_fail_when_the_child_dies(self, child: Child) -> None:
        async def main() -> None:
            _, far = child.call(None, "pipe", 1)
            job = asyncio.create_task(child.run(far, "recv"))
            while not far.stats().receivers_waiting:
                await asyncio.sleep(0)
            child.process.kill()
            with pytest.raises(ChildDied):
                await job

        asyncio.run(main())


class TestData:
    @pytest.mark.parametrize("value", [None, 1, -(1 << 63), "é", b"\0", [1, (2, [3])], {"a": (1,)}, (), int, Any])
    def test_plain_value_comes_back_as_it_was(self, value: Any) -> None:
        got = there_and_back(value)
        assert got == value
        assert type(got) is type(value)

    def test_exception_comes_back_with_its_type_text_and_attributes(self) -> None:
        error = ChannelAborted("gone", code=Code.DROPPED, reason="r", by_us=True, channel="c", peer="p")
        got = there_and_back(error)
        assert type(got) is ChannelAborted
        assert str(got) == "gone"
        assert (got.code, got.reason, got.by_us, got.channel, got.peer) == (Code.DROPPED, "r", True, "c", "p")
        large = there_and_back(MessageTooLarge("large", needed=5, limit=4))
        assert (large.needed, large.limit) == (5, 4)
        assert isinstance(large, CodecError)

    def test_exception_of_an_unknown_type_says_what_it_was(self) -> None:
        class Odd(Exception):
            pass

        got = there_and_back(Odd("why"))
        assert type(got) is FarError
        assert str(got) == "Odd: why"

    def test_what_cannot_travel_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="cannot travel"):
            there_and_back([object()])
