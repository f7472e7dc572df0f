"""How often a session that has lost its path tries to come back (docs/spec/handshake.md §11), in simulated networks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

import netchan
from netchan.net import redial
from netchan.testing import Faults, Simulation

CUT, LONG = 2.0, 200.0
SESSIONS = 6


def attempts_behind_a_cut(seed: int, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Virtual times of the attempts of each session; the link is cut once and for all, and all paths end with it."""
    times: dict[int, list[float]] = {}
    attempt: Callable[[Any, Any], None] = redial.Redial._attempt

    with Simulation(seed) as sim:

        def noted(self: Any, place: Any) -> None:
            if self._wanted(place) is not None:
                times.setdefault(id(self), []).append(sim.now)
            attempt(self, place)

        monkeypatch.setattr(redial.Redial, "_attempt", noted)
        server, client = sim.host("server"), sim.host("client")
        link = sim.link(client, server, Faults(delay=0.005))
        us, them = netchan.Identity.generate(), netchan.Identity.generate()
        config = netchan.Config(lease=1_000.0)
        held: list[netchan.Peer] = []

        async def serve() -> None:
            async with netchan.listen("tcp://0.0.0.0:7000", identity=us, trust=[them.node_id], config=config) as found:
                while True:
                    held.append(await found.recv())

        async def ask() -> None:
            for _ in range(SESSIONS):
                held.append(await netchan.dial(f"tcp://{us.node_id}@server:7000", identity=them, config=config))
            await asyncio.sleep(CUT + LONG)

        server.run(serve)
        task = client.run(ask)
        sim.run_for(CUT)
        link.cut()
        sim.run_for(LONG)
        del task
        monkeypatch.undo()
    return list(times.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_attempts_keep_their_bounds_and_no_step(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = attempts_behind_a_cut(seed, monkeypatch)
    assert len(sessions) == SESSIONS
    for times in sessions:
        since = times[0]
        gaps = [(begun - since, after - begun) for begun, after in itertools.pairwise(times)]
        eager = [gap for at, gap in gaps if at < redial.EAGER_SPAN_NS / 1e9]
        lazy = [gap for at, gap in gaps if at >= redial.EAGER_SPAN_NS / 1e9]
        assert max(eager) <= 1.0 and max(lazy) <= 10.0  # one a second for a minute, then at most ten apart
        assert min(eager + lazy) >= 0.01
        assert gaps[0][1] <= 0.05
        assert times[-1] > CUT + LONG - 10.0
        # from the whole range, not from its upper half
        assert min(lazy) < 3.0 and sum(gap < 0.5 for gap in eager[5:]) > len(eager) // 4
    # of what was lost at once nothing comes back at once
    assert len({round(times[8], 3) for times in sessions}) == SESSIONS


def test_same_seed_has_the_same_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts_behind_a_cut(5, monkeypatch) == attempts_behind_a_cut(5, monkeypatch)
