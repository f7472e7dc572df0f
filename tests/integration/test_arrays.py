"""numpy arrays across a session: by type form, without one, on both fronts, in any size (api: R11, R13, R25)."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import netchan
from netchan import Code, sync
from tests.integration.kit import BOSS, KEY, TCP, WAIT, Wire, joined, listening, program, session, until

SHAPES = {"empty": (0, 3), "0-d": (), "small": (3, 2), "held": (128, 96), "many records": (700, 600)}


@pytest.mark.parametrize("carrier", ["tcp", "unix"])
@program
async def test_r11_arrays_arrive_as_their_own_writable_c_order_copies(carrier: str) -> None:
    async with session(carrier) as (near, far):
        there, here = await joined(near, far, "cam", np.ndarray, 4)
        for shape in SHAPES.values():
            value = np.arange(np.prod(shape), dtype=">f4").reshape(shape)
            for sent in (value, value.T, value[..., ::-1] if shape else value):
                await there.send(sent)
                got = await here.recv()
                assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
                assert np.array_equal(got, sent)
                assert got.flags.writeable and got.flags.c_contiguous and got.flags.aligned
                got[...] = 7


@program
async def test_r11_mutation_after_send_is_not_seen() -> None:
    async with session("tcp") as (near, far):
        there, here = await joined(near, far, "x", npt.NDArray[np.int64], 8)
        value = np.zeros(1 << 17, np.int64)

        async def send() -> None:
            for n in range(8):
                value[:] = n
                await there.send(value)
                value[:] = -1

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = [await here.recv() for _ in range(8)]
        assert [(a.min(), a.max()) for a in got] == [(n, n) for n in range(8)]
        got[0][:] = 99
        assert got[1].max() == 1, "no two share memory"


@program
async def test_large_array_is_copied_once_on_each_side() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", np.ndarray, 4)
        value = np.ones(1 << 19)
        for view in (value, value[::2]):
            tracemalloc.start()
            try:
                await there.send(view)
                sent = tracemalloc.get_traced_memory()[1]
                await until(lambda: here.pending == 1)
                tracemalloc.reset_peak()
                held = tracemalloc.get_traced_memory()[0]
                got = await here.recv()
                taken = tracemalloc.get_traced_memory()[1] - held
            finally:
                tracemalloc.stop()
            assert sent < view.nbytes * 1.2
            assert taken < view.nbytes * 1.2
            assert got.nbytes == view.nbytes


@program
async def test_r11_array_that_does_not_fit_raises_from_the_call() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", npt.NDArray[np.float32], 4)
        for value in (np.zeros(3), np.array([None]), [1.0], None):
            with pytest.raises(netchan.CodecError):
                there.send(value)
        with pytest.raises(netchan.MessageTooLarge):
            there.send(np.zeros((64 << 20) // 4, np.float32))
        assert await there.send_many([np.full(2, n, np.float32) for n in range(4)]) == 4
        assert [a.tolist() for a in await here.recv_many(4, min=4)] == [[n, n] for n in range(4)]


@program
async def test_r13_channel_accepted_without_a_type_gives_arrays_and_keeps_to_the_offer() -> None:
    async with session() as (near, far):
        there = near.open("cam", npt.NDArray[np.uint8], capacity=2)
        here = await anext(aiter(far))
        await there.send(np.arange(4, dtype=np.uint8))
        got = await here.recv()
        assert type(got) is np.ndarray and got.tolist() == [0, 1, 2, 3]
        await here.send(got[::-1])
        assert (await there.recv()).tolist() == [3, 2, 1, 0]
        with pytest.raises(netchan.CodecError, match="of f8"):
            here.send(np.zeros(2))
        typed = far.open("cam", npt.NDArray[np.uint8])
        assert typed == here
        with pytest.raises(netchan.ConfigError, match=r"numpy\.ndarray of u1"):
            far.open("cam", npt.NDArray[np.float32])


@pytest.mark.parametrize("other", [npt.NDArray[np.float64], np.ndarray, bytes, list[int]], ids=str)
@program
async def test_r13_other_types_do_not_fit_arrays_of_one_dtype(other: Any) -> None:
    async with session() as (near, far):
        there, here = near.open("x", npt.NDArray[np.float32]), far.open("x", other)
        for end in (there, here):
            with pytest.raises(netchan.ChannelAborted) as caught:
                await end.recv()
            assert caught.value.code == Code.TYPE_MISMATCH


@program
async def test_r25_recv_into_is_for_channels_of_bytes() -> None:
    async with session() as (near, far):
        for form, value in ((np.ndarray, np.zeros(2)), (int, 5)):
            there, here = await joined(near, far, str(form), form, 4)
            await there.send(value)
            with pytest.raises(netchan.CodecError, match="recv_into wants a channel of bytes"):
                await here.recv_into(bytearray(1000))
            assert np.array_equal(await here.recv(), value), "it stays"


@program
async def test_capacity_zero_hands_over_arrays() -> None:
    async with session() as (near, far):
        there, here = await joined(near, far, "x", np.ndarray, 0)
        value = np.arange(50_000.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(there.send(value))
            got = group.create_task(here.recv())
        assert np.array_equal(got.result(), value)


@program
async def test_lost_session_gives_back_arrays_that_never_left() -> None:
    async with listening(config=netchan.Config(lease=0)) as listener:
        wire, address = await Wire.to(listener.addresses[0])
        async with netchan.dial(address, identity=KEY) as near:
            far = await listener.recv()
            there, _here = await joined(near, far, "x", np.ndarray, 8)
            wire.hold()
            value = np.arange(1 << 20, dtype=np.uint16)
            await there.send(value)
            await wire.cut()
            with pytest.raises(netchan.SessionLost) as caught:
                await there.flush()
            lost = caught.value
            back = [*lost.undelivered, *(entry.value for entry in lost.in_doubt)]
            assert len(back) == 1 and np.array_equal(back[0], value)
            assert back[0].flags.writeable


def test_blocking_sender_and_async_receiver_share_a_stream() -> None:
    """One side is a thread of netchan.sync, the other a loop, over TCP."""
    frames = 40

    def camera(address: str) -> None:
        with sync.dial(address, identity=KEY) as peer:
            with peer.open("cam", np.ndarray, capacity=2) as cam:
                frame = np.zeros((120, 160, 3), np.uint8)
                for n in range(frames):
                    frame[:] = n
                    cam.send(frame[:, ::-1], timeout=WAIT)
            back = peer.open("back", np.ndarray)
            assert back.recv(timeout=WAIT).tolist() == [1.5]

    async def watch() -> None:
        async with asyncio.timeout(WAIT), netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
            thread = threading.Thread(target=camera, args=(listener.addresses[0],))
            thread.start()
            peer = await listener.recv()
            seen = [frame.mean() async for frame in peer.open("cam", np.ndarray, capacity=2)]
            await peer.open("back", np.ndarray).send(np.array([1.5]))
            await asyncio.to_thread(thread.join)
            assert seen == list(range(frames))

    asyncio.run(watch())


def test_r3_in_process_arrays_pass_by_reference_and_are_not_validated() -> None:
    async def main() -> None:
        channel = netchan.channel(npt.NDArray[np.float32], capacity=2)
        value = np.array([object()])
        await channel.send(value)
        assert await channel.recv() is value

    asyncio.run(main())
