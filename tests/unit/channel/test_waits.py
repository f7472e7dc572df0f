"""No wake-up of a waiting call is lost: none that comes between two of its looks, none that one leaves unused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from netchan.channel.making import channel_endpoint
from netchan.channel.waits import new_waiter, wait_reserve, wait_send, wait_send_many
from netchan.errors import ChannelClosed

pytestmark = pytest.mark.timeout(60)
VERBS: dict[str, Any] = {
    "send": lambda end, check: wait_send(end, check, "v", new_waiter(end)),
    "send_many": lambda end, check: wait_send_many(end, check, iter(["v"]), 1, lambda: new_waiter(end)),
    "reserve": lambda end, check: wait_reserve(end, check, new_waiter(end)),
}


class LateRoom:
    """A rendezvous that has no room for an offer at the first look, and has it as soon as that is over.

    So does one across a session when another thread lets go of its own offer just then.
    """

    def __init__(self) -> None:
        self._end = channel_endpoint(Any, 0)
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._end, name)

    def offer(self, source: Any, waiter: Any, *, many: bool = False) -> Any:
        self.looks += 1
        if self.looks > 1:
            return self._end.offer(source, waiter, many=many)
        assert self._end.tx_waiters.may_try(waiter)
        self._end.tx_waiters.nudge()
        return None


class ClosedLater:
    """The check of a handle that is closed just after the first look at it, by another thread."""

    def __init__(self, end: Any) -> None:
        self._end = end
        self.looks = 0

    def __call__(self) -> None:
        self.looks += 1
        if self.looks > 1:
            raise ChannelClosed("closed meanwhile")
        self._end.tx_waiters.wake_all()


@pytest.mark.parametrize("verb", ["send", "send_many"])
def test_room_that_comes_just_after_the_look_is_not_missed(verb: str) -> None:
    async def main() -> None:
        end = LateRoom()
        sending = asyncio.create_task(VERBS[verb](end, lambda: None))
        async with asyncio.timeout(5):
            while end.looks < 2:
                await asyncio.sleep(0)
            assert end.try_recv() == "v"
            await sending

    asyncio.run(main())


@pytest.mark.parametrize("verb", list(VERBS))
def test_close_that_comes_just_after_the_look_is_not_missed(verb: str) -> None:
    async def main() -> None:
        end = channel_endpoint(Any, 1)
        end.try_send("fill")
        closed: Callable[[], None] = ClosedLater(end)
        end.tx_waiters.join(other := new_waiter(end))  # so that send_many does not look before it waits
        call = asyncio.create_task(VERBS[verb](end, closed))
        await asyncio.sleep(0)
        end.tx_waiters.leave(other, lambda: False)
        with pytest.raises(ChannelClosed):
            async with asyncio.timeout(5):
                await call

    asyncio.run(main())


class FullLine:
    """A rendezvous as across a session: who is first in line offers, if there is room; ``can_send`` is never true."""

    def __init__(self) -> None:
        self._end = channel_endpoint(Any, 0)
        self.room = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._end, name)

    def can_send(self) -> bool:
        return False

    def offer(self, source: Any, waiter: Any, *, many: bool = False) -> Any:
        if not self._end.tx_waiters.may_try(waiter) or not self.room:
            return None
        return self._end.offer(source, waiter, many=many)


@pytest.mark.parametrize("verb", ["send", "send_many"])
def test_place_of_a_sender_that_leaves_with_a_wake_up_unused_passes_on(verb: str) -> None:
    async def main() -> None:
        end = FullLine()
        first, second = (asyncio.create_task(VERBS[verb](end, lambda: None)) for _ in range(2))
        async with asyncio.timeout(5):
            while end.tx_waiters.waiting < 2:
                await asyncio.sleep(0)
            end.room = True
            end.tx_waiters.nudge()
            first.cancel()
            while not end.can_recv():
                await asyncio.sleep(0)
            assert end.try_recv() == "v"
            await second
        assert first.cancelled()

    asyncio.run(main())
