"""Many peers of one process, and what each of them costs. ``NETCHAN_PEERS=1000`` (make soak) holds it to the bound."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import netchan
from tests.integration.kit import BOSS, TCP
from tests.integration.slope import descriptors, rss

ROOT = Path(__file__).resolve().parents[2]
PEERS = int(os.environ.get("NETCHAN_PEERS", "50"))
EACH = 64 << 10
"""Bytes of the resident set for each peer with a channel, beside what waits in its buffers; held from 500 peers on."""
WARM = 20
"""Peers before memory is looked at: engine, caches and modules are there then."""

DIALS = """
import asyncio, sys
import netchan

async def main(address, n):
    key = netchan.Identity.generate()
    gate = asyncio.Semaphore(16)

    async def one(number):
        async with gate:
            peer = await netchan.dial(address, identity=key, trust="any")
            channel = peer.open("x", int)
            await channel.send(number)
        return peer, channel

    warm = [await one(i) for i in range(20)]
    print("warm", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    kept = await asyncio.gather(*(one(i) for i in range(n)))
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for peer, channel in [*warm, *kept]:
        await channel.send(7)
    await asyncio.to_thread(sys.stdin.readline)
    for peer, _ in [*warm, *kept]:
        peer.close()
    for peer, _ in [*warm, *kept]:
        await peer.wait_closed()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.timeout(600)
def test_many_peers_in_one_process_cost_little_each() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, PEERS + 500)), hard))
    process: subprocess.Popen[str] | None = None

    async def body() -> None:
        nonlocal process
        async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
            before = descriptors()
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", DIALS, listener.addresses[0], str(PEERS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
            )
            assert process.stdin is not None and process.stdout is not None
            kept = []

            async def take(n: int) -> None:
                for _ in range(n):
                    peer = await listener.recv()
                    channel = peer.open("x", int)
                    await channel.recv()
                    kept.append((peer, channel))

            said, tell = process.stdout, process.stdin

            async def go_on(expected: str) -> None:
                assert (await asyncio.to_thread(said.readline)).strip() == expected

            def next_step() -> None:
                tell.write("\n")
                tell.flush()

            await take(WARM)
            await go_on("warm")
            gc.collect()
            size = rss()
            next_step()
            await take(PEERS)
            await go_on("up")
            await asyncio.sleep(0.5)  # what was acknowledged late
            gc.collect()
            each = (rss() - size) / PEERS
            print(f"\n{PEERS} peers with a channel each: {each / 1024:.1f} KiB of the resident set each")
            next_step()
            for _, channel in kept:
                assert await channel.recv() == 7
            if PEERS >= 500:
                assert each <= EACH
            next_step()
            for peer, _ in kept:
                await peer.wait_closed()
            assert await asyncio.to_thread(process.wait, 60) == 0
            end = asyncio.get_running_loop().time() + 30
            while descriptors() > before + 4 and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.05)
            assert descriptors() <= before + 4  # the pipes of the other process

    try:
        asyncio.run(body())
    finally:
        if process is not None:
            process.kill()
            process.communicate()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
