"""Channels that spill to disk, with sessions, processes, threads and both loops (docs/spec/channel-end.md §8.1)."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio

import netchan
from netchan import sync
from netchan.channel import forward, spill_remote
from netchan.channel.spool import OVERHEAD
from netchan.errors import ChannelAborted, ChannelClosed, ChannelEnded, Code, ConfigError, SessionLost
from tests.integration.kit import TCP, at_steps, program, session, until
from tests.integration.programs import ROOT, Program
from tests.unit.channel.test_cancel import CountingLoop

pytestmark = pytest.mark.timeout(120)
FACTOR = int(os.environ.get("NETCHAN_SEEDS", "1"))


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Any:
    """No file has a name, and no mover is left behind."""
    yield
    assert not list(tmp_path.iterdir())
    end = time.monotonic() + 5
    while forward.running and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert not forward.running


def spill(folder: Path, max_bytes: int = 1 << 20) -> Any:
    return netchan.spill(folder, max_bytes)


@program
async def test_policy_is_part_of_the_name_that_is_bound(tmp_path: Path) -> None:
    async with session() as (near, far):
        mine = near.open("x", int, capacity=2, overflow=spill(tmp_path))
        assert near.open("x", int) == mine == near.open("x", int, overflow=spill(tmp_path))
        for other in ("block", "drop_old", spill(tmp_path, 5000)):
            with pytest.raises(ConfigError, match="another overflow"):
                near.open("x", int, overflow=other)
        theirs = far.open("x", int)
        await until(lambda: theirs.capacity == 2)
        await mine.send_many(range(50))
        assert mine.stats().on_disk >= 40 and theirs.stats().on_disk == 0
        await theirs.send_many([1, 2])
        with pytest.raises(netchan.WouldBlock):
            theirs.send_nowait(3)
        mine.close()
        assert near.open("x", int) != mine, "a closed direction ends the name's binding, whatever lies on disk"
        assert [n async for n in theirs] == list(range(50))


@pytest.mark.parametrize("theirs", [0, 1, None])
@program
async def test_channel_is_opened_over_there_later_with_any_capacity(tmp_path: Path, theirs: int | None) -> None:
    async with session() as (near, far):
        tx = near.open("x", int, overflow=spill(tmp_path))
        await tx.send_many(range(300))
        assert tx.stats().on_disk > 200
        rx = far.open("x", int, capacity=theirs)
        await until(lambda: rx._ep.paired and tx._ep.paired)
        await tx.send_many(range(300, 400))
        arm = tx.send_op(0)
        for n in range(400, 420):
            await tx.send(n)
            await netchan.select(arm.set(n + 100))
        delivering = asyncio.create_task(tx.deliver(999))
        got = [await rx.recv() for _ in range(440)]
        assert got[:400] == list(range(400)) and sorted(got[400:]) == [*range(400, 420), *range(500, 520)]
        assert not delivering.done()
        assert await rx.recv() == 999
        await delivering
        await tx.flush("taken")
        assert tx.stats().sent == 441 and tx.stats().on_disk == tx.stats().senders_waiting == 0
        tx.close()
        with pytest.raises(ChannelEnded):
            await rx.recv()


@program
async def test_leaving_the_peer_waits_for_what_is_on_disk(tmp_path: Path) -> None:
    async with session(close_timeout=60) as (near, far):
        tx, rx = near.open("x", int, capacity=8, overflow=spill(tmp_path)), far.open("x", int)
        await tx.send_many(range(2000))
        leaving = asyncio.create_task(near.aclose())
        got = [n async for n in rx]
        await leaving
        assert got == list(range(2000))


@program
async def test_leaving_waits_for_a_channel_that_is_opened_late(tmp_path: Path) -> None:
    async with session(close_timeout=60) as (near, far):
        tx = near.open("x", int, overflow=spill(tmp_path))
        await tx.send_many(range(500))
        leaving = asyncio.create_task(near.aclose())
        await asyncio.sleep(0.1)
        assert not leaving.done()
        assert [n async for n in far.open("x", int)] == list(range(500))
        await leaving


@program
async def test_leaving_ends_in_time_when_nobody_takes_anything(tmp_path: Path) -> None:
    async with session(close_timeout=0.3) as (near, far):
        tx, _rx = near.open("x", int, capacity=8, overflow=spill(tmp_path)), far.open("x", int)
        await tx.send_many(range(500))
        begun = time.monotonic()
        await near.aclose()
        assert 0.25 < time.monotonic() - begun < 5
        await until(lambda: tx.stats().on_disk == 0)


@program
async def test_aclose_waits_for_what_is_on_disk(tmp_path: Path) -> None:
    async with session(close_timeout=60) as (near, far):
        rx = far.open("x", int)
        async with near.open("x", int, capacity=4, overflow=spill(tmp_path)) as tx:
            await tx.send_many(range(100))
            taking = asyncio.create_task(drain(rx))
        assert tx.stats().on_disk == 0 and await taking == list(range(100))


@program
async def test_lost_handle_ends_the_channel_behind_its_values(tmp_path: Path) -> None:
    async with session() as (near, far):
        rx = far.open("x", int)
        tx = near.open("x", int, capacity=4, overflow=spill(tmp_path))
        await tx.send_many(range(100))
        with pytest.warns(ResourceWarning, match="without close") as warned:
            del tx
            gc.collect()
            await until(lambda: len(warned) > 0)
        got: list[int] = []
        with pytest.raises(ChannelAborted) as caught:
            while True:
                got.append(await rx.recv())
        assert got == list(range(100)) and caught.value.code == Code.DROPPED


@program
async def test_lost_session_reports_what_is_on_disk(tmp_path: Path) -> None:
    async with session() as (near, far):
        tx, rx = near.open("x", int, capacity=8, overflow=spill(tmp_path)), far.open("x", int)
        await tx.send_many(range(3000))
        got = [await rx.recv() for _ in range(100)]
        tx.close()
        far._core.session.close(4)  # as for a breach of the protocol: neither side left
        await until(lambda: near.closed)
        with pytest.raises(SessionLost) as caught:
            await tx.flush()
        lost = caught.value
        assert len(lost.undelivered) > 2700 and f"{len(lost.undelivered)} accepted values" in str(lost)
        assert not isinstance(lost.undelivered, list), "it is read when it is looked at"
        numbers = [one.number for one in lost.in_doubt]
        first = 3000 - len(lost.undelivered)
        assert list(lost.undelivered) == list(range(first, 3000)) == list(lost.undelivered)
        assert sorted({*got, *numbers, *lost.undelivered}) == list(range(3000))
        assert lost.undelivered[-1] == 2999 and lost.undelivered[5] == first + 5
        assert tx.stats().sent == 3000


@program
async def test_abort_while_values_move(tmp_path: Path) -> None:
    async with session() as (near, far):
        for n in range(30):
            tx, rx = near.open(f"x{n}", int, capacity=4, overflow=spill(tmp_path)), far.open(f"x{n}", int)
            await tx.send_many(range(200))
            await rx.recv()
            await asyncio.sleep(0.001 * (n % 4))
            (tx.abort, rx.abort)[n % 2](n)
            with pytest.raises((ChannelAborted, ChannelClosed)):
                while True:
                    await rx.recv()
            await until(lambda tx=tx: tx.stats().on_disk == 0)  # type: ignore[misc]


@program
async def test_sender_over_there_spills_here(tmp_path: Path) -> None:
    """An end of a channel that spills, in process or of another session, is given away."""
    async with session() as (near, far), session() as (onward, sink):
        carrier, other = near.open("ends"), far.open("ends")
        local = netchan.channel(int, capacity=2, overflow=spill(tmp_path))
        remote = onward.open("x", int, capacity=2, overflow=spill(tmp_path))
        end = sink.open("x", int)
        await carrier.send([local.split()[0], remote.split()[0]])
        for tx, rx, here in zip(await other.recv(), (local, end), (local, remote), strict=True):
            async with asyncio.timeout(10):
                await tx.send_many(range(300))
                await tx.flush("taken")
            assert here.stats().on_disk > 250
            tx.close()
            assert [n async for n in rx] == list(range(300))
        local.close()
        remote.close()


@program
async def test_receiver_over_there_gets_what_is_on_disk_here(tmp_path: Path) -> None:
    async with session() as (near, far):
        carrier, other = near.open("ends"), far.open("ends")
        local = netchan.channel(int, capacity=2, overflow=spill(tmp_path))
        await local.send_many(range(200))
        tx, rx = local.split()
        del local
        await carrier.send(rx)
        tx.close()
        there = await other.recv()
        assert [n async for n in there] == list(range(200))


async def drain(rx: Any) -> list[Any]:
    return [value async for value in rx]


class TestThreads:
    def test_values_move_while_the_program_does_something_else(self, tmp_path: Path) -> None:
        """After its last send the sender makes no call, and its loop does not run."""
        config = netchan.Config(close_timeout=0.2)  # the program is killed, and answers nothing

        def move(kind: str) -> None:
            with sync.listen(TCP, trust="any", config=config) as listener:
                with Program("stuck", listener.addresses[0], str(tmp_path), "2000", kind) as child:
                    peer = listener.recv(timeout=20)
                    rx = peer.open("x", int)
                    assert int(child.line()) > 1900, kind
                    assert [rx.recv(timeout=20) for _ in range(2000)] == list(range(2000)), kind

        kinds = ["blocking", "asyncio", "uvloop", "trio"]
        with ThreadPoolExecutor(len(kinds)) as pool:  # each waits for most of its time
            list(pool.map(move, kinds))

    def test_several_threads_send_and_keep_their_order(self, tmp_path: Path) -> None:
        with sync.listen(TCP, trust="any") as listener, sync.dial(listener.addresses[0], trust="any") as near:
            far = listener.recv(timeout=10)
            tx, rx = near.open("x", capacity=8, overflow=spill(tmp_path, 20_000)), far.open("x")
            threads, each = 4, 1500

            def send(k: int, mine: Any) -> None:
                rng = random.Random(k)
                n = 0
                while n < each:
                    how = rng.randrange(4)
                    if how == 0:
                        m = min(each - n, rng.randrange(1, 40))
                        mine.send_many([[k, i] for i in range(n, n + m)], timeout=30)
                        n += m
                        continue
                    if how == 1:
                        with mine.reserve(timeout=30) as permit:
                            permit.send([k, n])
                    elif how == 2:
                        try:
                            mine.send_nowait([k, n])
                        except netchan.WouldBlock:
                            continue
                    else:
                        mine.send([k, n], timeout=30)
                    n += 1
                mine.close()

            workers = [threading.Thread(target=send, args=(k, tx.split()[0])) for k in range(threads)]
            for worker in workers:
                worker.start()
            got = list(rx)
            for worker in workers:
                worker.join(10)
            assert len(got) == threads * each
            for k in range(threads):
                assert [n for who, n in got if who == k] == list(range(each))
            assert tx.stats().spilled > 100 and tx.stats().on_disk == 0

    def test_child_of_fork_has_no_part_in_the_files(self, tmp_path: Path) -> None:
        code = f"""
import os
import netchan
from netchan import sync
disk = netchan.spill({str(tmp_path)!r}, 1 << 20)
with sync.listen("tcp://127.0.0.1:0", trust="any") as listener:
    with sync.dial(listener.addresses[0], trust="any") as near:
        far = listener.recv(timeout=10)
        tx, rx = near.open("x", int, capacity=4, overflow=disk), far.open("x", int)
        local = netchan.channel(int, capacity=2, overflow=disk)
        tx.send_many(range(500), timeout=10)
        for n in range(500):
            local.send_nowait(n)
        pid = os.fork()
        if pid == 0:
            failed = 0
            calls = (
                tx.send_nowait, lambda _: tx.send_many([1, 2], timeout=1), lambda _: tx.reserve(timeout=1).__enter__(),
                local.send_nowait, lambda _: local.recv_nowait(),
            )
            for call in calls:
                try:
                    call(1)
                except netchan.ForkError:
                    failed += 1
            os._exit(failed)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        tx.close()
        assert list(rx) == list(range(500))
        local.close()
        for n in range(500):
            assert local.recv_nowait() == n
print("good")
"""
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr


class TestCancellation:
    @pytest.mark.parametrize("place", ["process", "session"])
    def test_call_that_was_cancelled_has_not_happened(self, tmp_path: Path, place: str) -> None:
        """Senders that are cancelled between any two steps, on a file that is nearly always full."""
        loop = CountingLoop()
        step = at_steps(loop, 40, 4)
        cancelled = 0

        async def one(seed: int, tx: Any, rx: Any) -> None:
            nonlocal cancelled
            rng = random.Random(seed)
            accepted: list[bytes] = []
            got: list[bytes] = []

            async def send(k: int) -> None:
                nonlocal cancelled
                for n in range(12):
                    values = [b"%d:%d:%d." % (k, n, i) + b"." * rng.randrange(900) for i in range(3)]
                    verb = rng.choice(["send", "send_many", "reserve", "select"])
                    try:
                        if verb == "send_many":
                            items = iter(values)
                            try:
                                await tx.send_many(items)
                            finally:
                                accepted.extend(values[: 3 - len(list(items))])
                        elif verb == "reserve":
                            async with tx.reserve() as permit:
                                permit.send(values[0])
                                accepted.append(values[0])
                        elif verb == "select":
                            await netchan.select(tx.send_op(values[0]))
                            accepted.append(values[0])
                        else:
                            await tx.send(values[0])
                            accepted.append(values[0])
                    except asyncio.CancelledError:
                        cancelled += 1

            async def take() -> None:
                async for value in rx:
                    got.append(value)
                    if rng.random() < 0.3:
                        await asyncio.sleep(0)

            taking = asyncio.create_task(take())
            sending = [asyncio.create_task(send(k)) for k in range(3)]
            while any(not task.done() for task in sending):
                step(rng, lambda: rng.choice(sending).cancel())
                await asyncio.sleep(0.002)
            step(None, None)
            tx.close()
            async with asyncio.timeout(20):
                await taking
            assert sorted(got) == sorted(accepted), f"{seed=}"
            stats = tx.stats()
            assert stats.sent == len(got) and stats.on_disk == stats.on_disk_bytes == stats.senders_waiting == 0

        async def main() -> None:
            async with session() as (near, far):
                for seed in range(25 * FACTOR):
                    capacity, disk = seed % 3 + 1, spill(tmp_path, 4096)
                    if place == "process":
                        channel = netchan.channel(bytes, capacity=capacity, overflow=disk)
                        await one(seed, channel, channel)
                    else:
                        tx = near.open(f"x{seed}", bytes, capacity=capacity, overflow=disk)
                        await one(seed, tx, far.open(f"x{seed}", bytes))

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
        print(f"\n{cancelled} cancelled")
        assert cancelled > 20

    def test_scopes_of_trio(self, tmp_path: Path) -> None:
        async def main() -> int:
            late = 0
            async with netchan.listen(TCP, trust="any") as listener:
                async with netchan.dial(listener.addresses[0], trust="any") as near:
                    far = await listener.recv()
                    tx, rx = near.open("x", bytes, capacity=2, overflow=spill(tmp_path, 4096)), far.open("x", bytes)
                    sent: list[bytes] = []
                    got: list[bytes] = []

                    async def take() -> None:
                        async for value in rx:
                            got.append(value)
                            await trio.sleep(0.001)

                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(take)
                        for n in range(300):
                            value = b"%d" % n + bytes(500)
                            with trio.move_on_after(0.0005) as scope:
                                await tx.send(value)
                                sent.append(value)
                            late += scope.cancelled_caught
                        tx.close()
                    assert got == sent
            return late

        assert trio.run(main) > 0


class TestProcesses:
    def test_killed_process_leaves_no_file(self, tmp_path: Path) -> None:
        with sync.listen(TCP, trust="any", config=netchan.Config(lease=0)) as listener:
            with Program("spiller", listener.addresses[0], str(tmp_path), "3000", "1000", "stay") as child:
                peer = listener.recv(timeout=20)
                rx = peer.open("x", bytes)
                while not (line := child.line()).startswith("sent"):
                    assert line, "it died"
                assert int(line.split()[2]) > 2800
                held = [os.readlink(fd) for fd in Path(f"/proc/{child._process.pid}/fd").iterdir()]
                assert any(name.startswith(str(tmp_path)) for name in held)
                before = os.statvfs(tmp_path).f_bfree
                child.signal(signal.SIGKILL)
                assert child.wait(10) == -signal.SIGKILL
                assert not list(tmp_path.iterdir()) and os.statvfs(tmp_path).f_bfree >= before - 4096
                with pytest.raises(SessionLost):
                    while True:
                        rx.recv(timeout=10)

    def test_slow_receiver_of_many_values(self, tmp_path: Path) -> None:
        """100 000 values, taken when all were sent: the sender's memory stays flat, order and number hold."""
        n, size = 100_000, 256
        with sync.listen(TCP, trust="any", config=netchan.Config(close_timeout=120)) as listener:
            with Program("spiller", listener.addresses[0], str(tmp_path), str(n), str(size), "go") as child:
                peer = listener.recv(timeout=20)
                rx = peer.open("x", bytes)
                resident: list[int] = []
                on_disk = 0
                while True:
                    words = child.line().split()
                    if words[0] == "sent":
                        took = float(words[1])
                        on_disk = int(words[2])
                        break
                    resident.append(int(words[1]))
                begun = time.monotonic()
                for number, value in enumerate(rx):
                    assert int(value[:10]) == number and len(value) == size
                assert number == n - 1
                drained = time.monotonic() - begun
                assert child.line() == "left" and child.wait(20) == 0
        assert on_disk == n - 64
        growth = max(resident[2:]) - resident[1]
        print(
            f"\n{n} values of {size} bytes: {n / took:.0f} values/s to disk, {n / drained:.0f} values/s from it; "
            f"resident set of the sender {resident[1] >> 20} MiB, grown by {growth >> 10} KiB"
        )
        assert growth < 4 << 20, "what is on disk takes no memory"


def test_full_name_of_the_limits_is_what_the_page_says() -> None:
    """§8.1: 36 bytes beside each value."""
    assert OVERHEAD == 36 and spill_remote.STEP_VALUES == 64
