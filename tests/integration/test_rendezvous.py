"""Capacity 0 across a session: who has the value when something comes between (docs/spec/session.md §4.1)."""

from __future__ import annotations

import asyncio
import gc

import pytest

import netchan
from netchan import sync
from tests.integration.kit import BOSS, KEY, program, session


@program
async def test_r21_send_returns_when_the_value_was_taken_and_not_before() -> None:
    async with session() as (near, far):
        tx, rx = near.open("r", int, capacity=0), far.open("r", int)
        sending = asyncio.create_task(tx.send(1))
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert (tx.capacity, rx.capacity, rx.pending) == (0, 0, 0)
        assert await rx.recv() == 1
        await sending
        assert (tx.stats().sent, rx.stats().taken) == (1, 1)


@program
async def test_r21_nowait_never_accepts() -> None:
    async with session() as (near, far):
        tx, rx = near.open("r", int, capacity=0), far.open("r", int)
        waiting = asyncio.create_task(rx.recv())
        await tx.flush()
        await asyncio.sleep(0.05)
        with pytest.raises(netchan.WouldBlock):
            tx.send_nowait(1)
        await tx.send(2)
        assert await waiting == 2


@program
async def test_r21_cancelled_send_comes_back_and_the_next_value_is_not_it() -> None:
    async with session() as (near, far):
        tx, rx = near.open("r", int, capacity=0), far.open("r", int)
        for n in range(20):
            lost = asyncio.create_task(tx.send(-n))
            await asyncio.sleep(0.002 * (n % 3))
            lost.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lost
            kept = asyncio.create_task(tx.send(n))
            assert await rx.recv() == n
            await kept
        assert tx.stats().sent == rx.stats().taken == 20


def test_r21_blocking_send_times_out_only_if_nobody_has_the_value() -> None:
    with (
        sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust=[KEY.node_id]) as listener,
        sync.dial(listener.addresses[0], identity=KEY) as near,
    ):
        far = listener.recv(timeout=10)
        tx, rx = near.open("r", int, capacity=0), far.open("r", int)
        with pytest.raises(TimeoutError):
            tx.send(1, timeout=0.05)
        with pytest.raises(TimeoutError):
            rx.recv(timeout=0.05)
        assert tx.stats().sent == 0


@program
async def test_r28_close_behind_a_taken_value_does_not_hit_its_send() -> None:
    """Found by the Go scripts: the news "taken" was on its way, and the send raised ChannelClosed."""
    async with session() as (near, far):
        for n in range(30):
            tx, rx = near.open(f"r{n}", int, capacity=0), far.open(f"r{n}", int)
            sending = asyncio.create_task(tx.send(n))
            assert await rx.recv() == n
            tx.close()
            await sending


@program
async def test_r28_close_takes_back_what_nobody_took() -> None:
    async with session() as (near, far):
        tx, rx = near.open("r", int, capacity=0), far.open("r", int)
        sending = [asyncio.create_task(tx.send(n)) for n in range(5)]
        await asyncio.sleep(0.05)
        taken = await rx.recv()
        tx.close()
        ends = await asyncio.gather(*sending, return_exceptions=True)
        assert [n for n, end in enumerate(ends) if end is None] == [taken]
        assert sum(isinstance(end, netchan.ChannelClosed) for end in ends) == 4
        with pytest.raises(netchan.ChannelEnded):
            await rx.recv()


@program
async def test_r29_stop_settles_every_offer() -> None:
    async with session() as (near, far):
        tx, rx = near.open("r", int, capacity=0), far.open("r", int)
        sending = [asyncio.create_task(tx.send(n)) for n in range(40)]
        got = [await rx.recv() for _ in range(7)]
        rx.stop()
        ends = await asyncio.gather(*sending, return_exceptions=True)
        assert [n for n, end in enumerate(ends) if end is None] == sorted(got)
        assert sum(isinstance(end, netchan.ChannelClosed) for end in ends) == 33


@program
async def test_r51_lost_session_reports_the_offer_as_in_doubt() -> None:
    async with session() as (near, far):
        tx = near.open("r", int, capacity=0)
        rx = far.open("r", int)
        sending = asyncio.create_task(tx.send(7))
        await asyncio.sleep(0.05)
        assert rx.capacity == 0
        far._core.session.close(4, b"as if broken")
        with pytest.raises(netchan.SessionLost) as caught:
            await sending
        assert [doubt.value for doubt in caught.value.in_doubt] == [7]
        gc.collect()


@program
async def test_long_values_wait_for_a_receiver_that_waits() -> None:
    async with session() as (near, far):
        tx, rx = near.open("r", bytes, capacity=0), far.open("r", bytes)
        value = bytes(300_000)
        sending = asyncio.create_task(tx.send(value))
        await asyncio.sleep(0.05)
        assert near.stats()["bytes_sent"] < 10_000
        assert await rx.recv() == value
        await sending
