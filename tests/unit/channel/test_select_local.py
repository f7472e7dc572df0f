"""What ``select`` and ``ticker`` do in process only, or by themselves (R33, R38)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import netchan
from netchan import sync
from netchan.channel.arms import Arms
from netchan.channel.local import LocalEndpoint
from netchan.channel.tick import TickEndpoint
from netchan.errors import ChannelEnded, ConfigError, ForkError, WouldBlock
from netchan.markers import EMPTY
from tests.unit.channel.harness import PATIENCE
from tests.unit.net.test_wait import Bell

pytestmark = pytest.mark.timeout(60)


class TestTicker:
    def test_r38_ticker_counts_from_its_start_and_holds_one(self) -> None:
        now = 100.0
        end = TickEndpoint(1.0, lambda: now)
        assert end.due == 101.0
        assert end.pending() == 0
        now = 100.999
        assert end.try_recv() is EMPTY
        now = 103.5
        assert end.pending() == 1
        assert end.due == 104.0
        assert end.try_recv() == 101.0
        assert end.pending() == 0
        now = 104.0
        assert end.try_recv_many(5) == [104.0]
        now = 1e6 + 100.5
        assert end.try_recv() == 105.0
        assert end.due == 1e6 + 101.0
        assert end.stats().taken == 3

    def test_r38_several_waiters_of_a_ticker_share_its_ticks(self) -> None:
        async def main() -> None:
            ticks = netchan.ticker(0.01)
            async with asyncio.timeout(PATIENCE):
                got = await asyncio.gather(*(ticks.recv() for _ in range(4)))
            assert len(set(got)) == 4
            ticks.stop()

        asyncio.run(main())

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", True, 1e12])
    def test_r38_times_that_cannot_be_are_refused(self, seconds: Any) -> None:
        for make in (netchan.after, netchan.ticker, sync.ticker):
            with pytest.raises(ConfigError, match="seconds"):
                make(seconds)
        with pytest.raises(ConfigError):
            netchan.ticker(0)


class TestOffers:
    def test_cancelled_select_whose_offer_was_taken_returns_and_owes_the_cancellation(self) -> None:
        async def main() -> None:
            channel: netchan.Channel[int] = netchan.channel(int)
            arm = channel.send_op(1)
            won: list[Any] = []

            async def send() -> None:
                won.append(await netchan.select(arm))
                await channel.recv()

            job = asyncio.create_task(send())
            for _ in range(20):
                await asyncio.sleep(0)
            assert channel.recv_nowait() == 1
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            assert won == [arm]
            with pytest.raises(WouldBlock):
                channel.recv_nowait()

        asyncio.run(main())

    def test_offers_of_one_select_are_taken_once_by_receivers_on_several_channels(self) -> None:
        """Threads race for the two offers of each select; each select sends exactly one value."""
        first, second = sync.channel(int), sync.channel(int)
        got: list[int] = []
        rounds = 300

        def take(channel: sync.Channel[int]) -> None:
            try:
                while True:
                    got.append(channel.recv(timeout=PATIENCE))
            except ChannelEnded:
                pass

        threads = [threading.Thread(target=take, args=(channel,)) for channel in (first, second, first, second)]
        for thread in threads:
            thread.start()
        for n in range(rounds):
            sync.select(first.send_op(n), second.send_op(n), timeout=PATIENCE)
        first.close()
        second.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(got) == list(range(rounds))


class TestTickerBehindOthers:
    def test_select_behind_a_waiter_that_does_not_run_sleeps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever stands before it takes the tick; until then there is nothing to look for."""
        looks = 0
        real = Arms.look

        def look(self: Arms) -> Any:
            nonlocal looks
            looks += 1
            return real(self)

        monkeypatch.setattr(Arms, "look", look)

        async def main() -> None:
            ticks = netchan.ticker(0.01)
            asleep = Bell()
            ticks._ep.rx_waiters.join(asleep)
            late = netchan.after(0.1)
            assert await netchan.select(ticks.recv_op(), late) is late
            assert looks < 10
            ticks._ep.rx_waiters.leave(asleep, lambda: False)
            ticks.stop()

        asyncio.run(main())


class TestErrors:
    def test_only_ends_and_bad_bytes_are_outcomes_of_an_arm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            channel: netchan.Channel[int] = netchan.channel(int, capacity=1)
            arm = channel.recv_op()

            def fails() -> Any:
                raise ForkError("in a child")

            monkeypatch.setattr(LocalEndpoint, "try_recv", lambda self: fails())
            with pytest.raises(ForkError):
                await netchan.select(arm)
            assert channel.stats().receivers_waiting == 0

        asyncio.run(main())
