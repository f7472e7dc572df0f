"""A day of one session in virtual time, and what it leaves behind: nothing.

Hour after hour channels are opened, used and closed over paths that lose, fall silent, come and go, as in
test_core_datagrams; keys are changed; then it is quiet for minutes. ``NETCHAN_LONG=1`` runs 24 hours and holds memory
to its bound; otherwise it is a part of an hour, and what is counted is the same.
"""

from __future__ import annotations

import gc
import os

import pytest

from tests.integration.slope import Slope
from tests.property.core_lines import check, finish, more, noting, settle, steps, take_rest
from tests.property.core_net import MS
from tests.property.test_core_datagrams import MODES, UP, World

FULL = os.environ.get("NETCHAN_LONG") == "1"
HOUR = 3600 * 1000 * MS
SPAN = 24 * HOUR if FULL else HOUR // 3
QUIET = 150 * 1000 * MS
"""Between two busy times."""
# What a session holds when all channels are over; paths and keys stay.
NOTHING = ("outs", "ins", "offers", "n_offers", "n_new", "again", "turn", "waiting", "drawn")


def steady(seed: int) -> World:
    """One whose keys change when they are told to."""
    world = World(seed)
    while world.busy:
        seed += 1000
        world = World(seed)
    return world


def busy_time(world: World, number: int) -> int:
    """Some channels from their beginning to their end; how many values they carried."""
    rng, net = world.rng, world.net
    world.healed = False
    lines: list = []  # type: ignore[type-arg]
    for i in range(rng.randrange(1, 4)):
        more(world.pair, lines, f"{number}.{i}", rng)
    for side in net.sides:
        side.mode(rng.choice(MODES))
    for _ in range(rng.randrange(4, 12)):
        steps(world.pair, lines, rng)
        what = rng.random()
        if what < 0.2:
            world.add(rng.random() < 0.7)
        elif what < 0.3:
            world.lose()
        elif what < 0.45:
            world.toggle(True)
        elif what < 0.6:
            world.toggle(False)
        elif what < 0.65:
            for path in list(net.paths.values()):
                net.sides[0].path_lost(path.number)
            net.reconcile()
        elif what < 0.75:
            world.ratchet()
        elif what < 0.8:
            world.ticket()
        world.run(rng.choice([0, 5 * MS, 40 * MS, 300 * MS, 2000 * MS]))
        for side in net.sides:
            side.ready()
            assert side.state()["state"] == UP, side.state()
        for line in lines:
            settle(line)
            if not line.aborted:
                check(line)
    world.heal()
    world.run(12_000 * MS)  # what is far away from its next probe, and paths that only one side still has
    finish(lines, lambda ns: world.run(10 * ns))
    for line in lines:
        if not line.closed:
            line.send.close()
            line.closed = True
    for _ in range(20):
        world.run(500 * MS)
        take_rest(lines)
    for side in net.sides:
        side.ready()
    for line in lines:
        line.send.release()
    world.take_ticket()
    return sum(len(line.got) for line in lines)


@pytest.mark.timeout(7200 if FULL else 60)
@pytest.mark.parametrize("seed", range(1, 4 if FULL else 3))
def test_day_of_a_session_leaves_nothing_behind(seed: int) -> None:
    with noting(seed):
        world = steady(seed)
        net = world.net
        begun, values, number = net.now, 0, 0
        slope = Slope(100, given=True)
        while net.now - begun < SPAN:
            slope.look((net.now - begun) * 100 // SPAN)
            values += busy_time(world, number)
            number += 1
            world.run(QUIET)
            for path in net.paths.values():
                for link in path.links:
                    link.seen.clear()  # this test's own
            for side in net.sides:
                side.released()
                state = side.state()
                assert {name: state[name] for name in NOTHING} == dict.fromkeys(NOTHING, 0), (number, state)
                named, held = side.groups()
                assert named == held == 0
                assert state["log"] < 4000 and state["log_cap"] <= 1 << 16  # a heartbeat may be on its way
            gc.collect(0)
        hours = (net.now - begun) / HOUR
        print(f"\n{hours:.1f} hours, {number} busy times, {values} values, paths {world.counts}")
        if FULL:
            slope.end("a day of a session")
        world.pair.free()
