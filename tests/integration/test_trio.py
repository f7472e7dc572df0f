"""The async front on trio: scopes that cancel, the engine of a run, sessions, serve, threads (R4, R5, R21, R33, R44).

The conformance suite and that of ``select`` run on trio too (tests/unit/channel); here is what only trio has.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import netchan
from netchan import sync
from netchan.channel.fronts import Channel
from netchan.errors import AuthError, ChannelEnded, WouldBlock
from netchan.net.manager import loop_engine
from netchan.testing.pair import joined
from tests.integration.kit import BOSS, KEY, TCP
from tests.integration.test_cancellation import Ledger

FACTOR = int(os.environ.get("NETCHAN_SEEDS", "1"))
SEEDS = 60 * FACTOR
PATIENCE = 20.0
pytestmark = pytest.mark.timeout(120 * FACTOR)


@pytest.mark.parametrize("verb", ["send", "recv", "send_many", "deliver", "select"])
@pytest.mark.parametrize("capacity", [0, 1, 64])
def test_r20_r21_scopes_that_cancel_lose_and_double_nothing(capacity: int, verb: str) -> None:
    """Senders and receivers over a socket pair, each call in a scope that ends after a random moment."""
    cancelled = 0

    async def one(seed: int, tx: Channel[int], rx: Channel[int], where: str) -> None:
        nonlocal cancelled
        rng = random.Random(seed)
        book = Ledger()
        total, parts = 12, 2

        async def cut(call: Any, *args: Any) -> tuple[bool, Any]:
            """(it returned, what it gave); a call that a scope ended has not happened."""
            nonlocal cancelled
            out: list[Any] = []
            with trio.move_on_after(rng.choice((0.0, 0.0001, 0.001, 0.01))):
                out.append(await call(*args))
            cancelled += not out
            return bool(out), out[0] if out else None

        async def send(values: list[int]) -> None:
            arm = tx.send_op(0)
            for value in values:
                while True:
                    if verb == "select":
                        done, _ = await cut(netchan.select, arm.set(value))
                    elif verb == "send_many" and capacity == 0:
                        # an item on offer cannot go back into an iterator; one of a list is simply sent again
                        done, _ = await cut(tx.send_many, [value])
                    elif verb == "send_many":
                        source = iter([value])
                        await cut(tx.send_many, source)
                        done = next(source, None) is None
                    elif verb == "deliver":
                        done, _ = await cut(tx.deliver, value)
                        if not done:
                            book.doubtful.append(value)  # may have been accepted; never sent again
                            break
                    else:
                        done, _ = await cut(tx.send, value)
                    if done:
                        book.sent.append(value)
                        break

        async def receive(finished: trio.Event) -> None:
            mine: list[int] = []
            book.got.append(mine)
            arm = rx.recv_op()
            try:
                while True:
                    if verb == "select":
                        done, won = await cut(netchan.select, arm)
                        if done:
                            mine.append(won.value)
                    else:
                        done, value = await cut(rx.recv)
                        if done:
                            mine.append(value)
            except ChannelEnded:
                finished.set()

        ends = [trio.Event(), trio.Event()]
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for end in ends:
                    nursery.start_soon(receive, end)
                async with trio.open_nursery() as senders:
                    for k in range(parts):
                        senders.start_soon(send, [*range(k, total, parts)])
                tx.close()
        book.check(where, parts)
        rx.close()

    async def main() -> None:
        engine = await loop_engine()
        pair = joined(engines=(engine, engine))
        for seed in range(SEEDS):
            near, far = (Channel(side.open(f"c{seed}", int, capacity)) for side in pair)
            while not (near._ep.paired and far._ep.paired):
                await trio.sleep(0)
            await one(seed, near, far, f"seed={seed} capacity={capacity} verb={verb}")
        for side in pair:
            side.session.close(0)

    trio.run(main)
    assert cancelled > SEEDS


def test_r5_call_in_a_cancelled_scope_raises_before_it_has_done_anything() -> None:
    async def main() -> None:
        channel: netchan.Channel[int] = netchan.channel(int, capacity=4)
        await channel.send(1)
        for call in (channel.send, channel.deliver):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call(2)
            assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.recv()
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await netchan.select(channel.recv_op())
        assert scope.cancelled_caught
        assert channel.pending == 1
        assert channel.stats().sent == 1

    trio.run(main)


def test_r5_ready_calls_let_others_run_and_deadlines_fire() -> None:
    async def main() -> None:
        channel: netchan.Channel[int] = netchan.channel(int, capacity=1)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with trio.move_on_after(0.1) as scope:
                while True:
                    await channel.send(1)
                    await channel.recv()
            assert scope.cancelled_caught
            assert turns > 20
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_r21_send_that_was_taken_while_cancelled_returns_and_the_next_checkpoint_raises() -> None:
    async def main() -> None:
        channel: netchan.Channel[int] = netchan.channel(int)
        steps: list[str] = []

        async def send() -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await channel.send(1)
                steps.append("returned")
                await channel.recv()
                steps.append("never")
            assert scope.cancelled_caught

        scopes: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert channel.recv_nowait() == 1
            scopes[0].cancel()
        assert steps == ["returned"]
        with pytest.raises(WouldBlock):
            channel.recv_nowait()

    trio.run(main)


def test_r44_serve_and_an_async_trust_callable(tmp_path: Path) -> None:
    async def main() -> None:
        async def trust(node_id: str) -> bool:
            await trio.sleep(0.01)
            return node_id == KEY.node_id

        async def handler(peer: netchan.Peer) -> None:
            channel = peer.open("echo", str)
            async for value in channel:
                await channel.send(value.upper())

        with trio.fail_after(PATIENCE):
            async with netchan.listen(TCP, identity=BOSS, trust=trust) as listener:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listener.serve, handler)
                    async with netchan.dial(listener.addresses[0], identity=KEY) as peer:
                        channel = peer.open("echo", str)
                        await channel.send("a")
                        assert await channel.recv() == "A"
                    with pytest.raises(AuthError):
                        await netchan.dial(listener.addresses[0])
                    async with netchan.dial(listener.addresses[0], identity=KEY) as peer:
                        channel = peer.open("echo", str)
                        await channel.send("b")
                        assert await channel.recv() == "B"
                        nursery.cancel_scope.cancel()
                assert listener.closed

    trio.run(main)


def test_r1_trio_asyncio_and_threads_share_a_process_and_a_channel() -> None:
    """Two runs of trio one after the other, a loop of asyncio and a thread, all at one channel and one listener."""
    shared: sync.Channel[Any] = sync.channel(capacity=2)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(shared))
    reader.start()
    front = Channel(shared._ep)

    async def on_trio(address: str) -> None:
        with trio.fail_after(PATIENCE):
            for n in range(200):
                await front.send(("trio", n))
            async with netchan.dial(address, identity=KEY) as peer:
                channel = peer.open("t", int)
                await channel.send(1)
                await channel.flush()

    async def on_asyncio(address: str) -> None:
        async with asyncio.timeout(PATIENCE):
            for n in range(200):
                await front.send(("asyncio", n))
            async with netchan.dial(address, identity=KEY) as peer:
                channel = peer.open("t", int)
                await channel.send(2)
                await channel.flush()

    got: list[int] = []
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        for run in (trio.run, lambda call, address: asyncio.run(call(address)), trio.run):
            runner = threading.Thread(
                target=run, args=(on_asyncio if run is not trio.run else on_trio, listener.addresses[0])
            )
            runner.start()
            with listener.recv(timeout=PATIENCE) as peer:
                got.append(peer.open("t", int).recv(timeout=PATIENCE))
            runner.join(PATIENCE)
            assert not runner.is_alive()
    shared.close()
    reader.join(PATIENCE)
    assert got == [1, 2, 1]
    assert [n for kind, n in seen if kind == "trio"] == [*range(200)] * 2
    assert [n for kind, n in seen if kind == "asyncio"] == [*range(200)]


def test_r38_ticker_and_timers_on_trio() -> None:
    async def main() -> None:
        with trio.fail_after(PATIENCE):
            async with netchan.ticker(0.01) as ticks:
                first, second = await ticks.recv(), await ticks.recv()
                assert second > first
                late = netchan.after(0.03)
                idle: netchan.Channel[int] = netchan.channel(int)
                assert await netchan.select(idle.recv_op(), late) is late

    trio.run(main)


def test_guest_run_shares_the_thread_of_a_loop() -> None:
    """Trio as a guest of asyncio: both use channels, those of a session and one that leads from one to the other."""
    across = netchan.channel(int, capacity=2)
    tx, rx = across.split()

    async def guest() -> tuple[int, bool]:
        async with netchan.listen(TCP, trust="any") as listener, netchan.dial(listener.addresses[0], trust="any") as a:
            b = await listener.recv()
            out, back = a.open("x", int, capacity=4), b.open("x", int)

            async def send() -> None:
                async with out:
                    for n in range(300):
                        await out.send(n)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                total = 0
                async for n in back:
                    total += n
                    if n % 100 == 0:
                        await tx.send(n)
            tx.close()
            with trio.move_on_after(0.02) as scope:
                await b.open("never", int).recv()
            return total, scope.cancelled_caught

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        async with asyncio.timeout(PATIENCE):
            assert [n async for n in rx] == [0, 100, 200]
            assert (await done).unwrap() == (sum(range(300)), True)

    asyncio.run(host())
