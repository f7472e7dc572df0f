"""What strangers at the door cost those who are inside: ping-pong in one loop while another process shakes hands.

Prints the figures. NETCHAN_LATENCY=1 asserts that the loaded p99 stays below twice the idle one, which needs a machine
that does nothing else; without it the run must only be complete and its rate of handshakes real.
"""

from __future__ import annotations

import asyncio
import os
import time

import pytest

import netchan
from tests.integration.kit import BOSS, LOOPS, TCP
from tests.integration.programs import Program

SECONDS = 4.0
IDLE = SECONDS if os.environ.get("NETCHAN_LATENCY") else 1.0
"""Nothing is held to the idle figures without the variable."""
EVERY = 0.001
RATE = 200


async def ping(there: netchan.Channel[bytes], seconds: float) -> list[float]:
    """Round trips in seconds, one begun every millisecond."""
    loop = asyncio.get_running_loop()
    took = []
    due = loop.time()
    end = due + seconds
    while due < end:
        begun = time.perf_counter()
        await there.send(b"ping")
        await there.recv()
        took.append(time.perf_counter() - begun)
        due = max(due + EVERY, loop.time())
        await asyncio.sleep(due - loop.time())
    return took


async def pong(here: netchan.Channel[bytes]) -> None:
    async for value in here:
        await here.send(value)


def figures(took: list[float]) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    ordered = sorted(took)
    return 1e6 * ordered[len(ordered) // 2], 1e6 * ordered[len(ordered) * 99 // 100]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"] if os.environ.get("NETCHAN_LATENCY") else ["asyncio"])
@pytest.mark.timeout(60)
def test_r42_handshakes_at_the_door_leave_the_latency_inside_alone(kind: str) -> None:
    async def body() -> None:
        async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
            async with netchan.dial(listener.addresses[0]) as near:
                far = await listener.recv()
                there, here = near.open("p", bytes), far.open("p", bytes)
                answering = asyncio.create_task(pong(here))
                await ping(there, 0.3)
                idle = await ping(there, IDLE)
                with Program("hammer", listener.addresses[0], str(RATE), str(SECONDS + 1.0)) as other:
                    assert await asyncio.to_thread(other.line) == "hammering"
                    leaving = asyncio.create_task(_let_go(listener))
                    await asyncio.sleep(0.3)
                    before = listener.stats().handshakes_ok
                    loaded = await ping(there, SECONDS)
                    shaken = (listener.stats().handshakes_ok - before) / SECONDS
                    leaving.cancel()
                there.close()
                await answering
        (p50, p99), (q50, q99) = figures(idle), figures(loaded)
        print(f"\n{kind}: idle p50 {p50:.0f} us, p99 {p99:.0f} us ({len(idle)} round trips)")
        print(f"{kind}: loaded p50 {q50:.0f} us, p99 {q99:.0f} us ({len(loaded)}), {shaken:.0f} handshakes/s")
        assert shaken > 20, "the other process hardly shook hands"
        if os.environ.get("NETCHAN_LATENCY"):
            assert shaken > 0.8 * RATE
            assert q99 < 2 * p99

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(body())


async def _let_go(listener: netchan.Listener) -> None:
    async for peer in listener:
        peer.close()
