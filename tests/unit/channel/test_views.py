"""Views between the fronts: one half held by a loop and by threads (api R3, R57)."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import netchan
from netchan import sync
from netchan.errors import ChannelClosed, ChannelEnded

pytestmark = pytest.mark.timeout(30)
PATIENCE = 10


@asynccontextmanager
async def ends(maker: str, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two joined ends of the async front."""
    if maker == "pipe":
        yield netchan.pipe(**options)
        return
    async with (
        netchan.listen("tcp://127.0.0.1:0", trust="any") as listener,
        netchan.dial(listener.addresses[0], trust="any") as dialled,
    ):
        peer = await listener.recv()
        yield dialled.open("x", **options), peer.open("x", **options)


@pytest.mark.parametrize("maker", ["pipe", "tcp"])
class TestSyncView:
    def test_r57_thread_sends_what_the_loop_receives(self, maker: str) -> None:
        async def main() -> None:
            async with ends(maker, capacity=2) as (near, far):

                def camera(tx: sync.Sender[int]) -> None:
                    with tx:
                        for n in range(500):
                            tx.send(n, timeout=PATIENCE)

                working = asyncio.create_task(asyncio.to_thread(camera, near.split()[0].sync_view()))
                assert [n async for n in far] == list(range(500))
                await working

        asyncio.run(main())

    def test_r57_thread_receives_what_the_loop_sends(self, maker: str) -> None:
        async def main() -> None:
            async with ends(maker, capacity=2) as (near, far):
                view = far.sync_view()
                assert isinstance(view, sync.Channel) and isinstance(far.split()[1].sync_view(), sync.Receiver)
                working = asyncio.create_task(asyncio.to_thread(list, view))
                await near.send_many(range(500))
                near.close()
                assert await working == list(range(500))

        asyncio.run(main())

    def test_r3_view_of_a_sender_is_counted_like_a_clone(self, maker: str) -> None:
        async def main() -> None:
            async with ends(maker, capacity=2) as (near, far):
                tx = near.split()[0]
                view = tx.sync_view()
                tx.close()
                await asyncio.to_thread(view.send, 1, timeout=PATIENCE)
                assert await far.recv() == 1
                view.close()
                with pytest.raises(ChannelEnded):
                    await asyncio.wait_for(far.recv(), PATIENCE)
                with pytest.raises(ChannelClosed):
                    tx.sync_view()

        asyncio.run(main())

    def test_r3_temporary_half_may_go_when_its_view_is_there(self, maker: str) -> None:
        async def main() -> None:
            async with ends(maker, capacity=2) as (near, far):
                view = near.split()[0].sync_view()
                gc.collect()
                await asyncio.to_thread(view.send, "v", timeout=PATIENCE)
                assert await asyncio.wait_for(far.recv(), PATIENCE) == "v"

        asyncio.run(main())


def test_r57_blocking_on_the_thread_of_the_driving_loop_is_refused() -> None:
    async def main() -> None:
        async with ends("tcp", capacity=1) as (near, far):
            with pytest.raises(RuntimeError, match="await"):
                far.sync_view().recv(timeout=1)
            near.sync_view().send(1, timeout=0)  # there is room: nothing waits

    asyncio.run(main())


def test_r57_loop_awaits_the_view_of_a_blocking_channel() -> None:
    with sync.listen("tcp://127.0.0.1:0", trust="any") as listener:

        def client() -> None:
            with sync.dial(listener.addresses[0], trust="any", timeout=PATIENCE) as peer, peer.open("x", int) as ch:
                for n in range(200):
                    ch.send(n, timeout=PATIENCE)

        thread = threading.Thread(target=client)
        thread.start()
        peer = listener.recv(timeout=PATIENCE)
        view = peer.open("x", int).async_view()
        assert isinstance(view, netchan.Channel)

        async def main() -> None:
            async with asyncio.timeout(PATIENCE):
                assert [n async for n in view] == list(range(200))

        asyncio.run(main())
        thread.join(PATIENCE)


def test_r57_view_goes_round() -> None:
    ch = netchan.channel(int, capacity=1)
    again = ch.sync_view().async_view()
    assert again == ch and type(again) is netchan.Channel
    assert ch.split()[1].sync_view().async_view() == ch.split()[1]
    ch.close()
