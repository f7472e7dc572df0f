"""Values go on when a path falls silent, in virtual time: no longer wait than the best round trip (parity.md §2.1)."""

from __future__ import annotations

import pytest

from tests.property.core_net import MS
from tests.unit.core.stalls import RTT, session, stall

ROOM = 160 * 1024  # of a session beyond the floors: a window of 128 KiB, and what parity keeps
FAILOVER, STRIPE, MIRROR, PARITY = range(4)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(("size", "every"), [(10, 2 * MS), (10, 15 * MS), (400, 2 * MS)])
@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize(
    ("mode", "k", "rtts"), [(MIRROR, 1, (RTT, RTT)), (PARITY, 1, (RTT, RTT)), (PARITY, 2, (RTT, RTT, RTT))]
)
def test_silent_path_costs_no_more_than_a_round_trip(
    mode: int, k: int, rtts: tuple[int, ...], datagrams: bool, size: int, every: int, cut: int, own: bool
) -> None:
    net, x, y = session(datagrams, rtts, 1)
    if own:
        x.mode(mode, k, 1)
    else:
        for side in net.sides:
            side.mode(mode, k, 1)
    net.run(net.now + 100 * MS)
    assert stall(net, x, y, sorted(net.paths)[cut], size=size, every=every, turns=200) <= RTT
    net.pair.free()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("cut", [0, 1])  # both sides say control on path 0
@pytest.mark.parametrize("every", [MS // 4, MS // 2, 2 * MS])
@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize(
    ("mode", "k", "rtts"), [(MIRROR, 1, (RTT, RTT)), (PARITY, 1, (RTT, RTT)), (PARITY, 2, (RTT, RTT, RTT))]
)
def test_credit_comes_by_the_paths_that_are_left(
    mode: int, k: int, rtts: tuple[int, ...], datagrams: bool, every: int, cut: int, own: bool
) -> None:
    # A window is used up long before a path is suspect. The receiver mirrors nothing: it says POS where it has to.
    net, x, y = session(datagrams, rtts, 1, session_bytes=ROOM)
    if own:
        x.mode(mode, k, 1)
    else:
        net.sides[0].mode(mode, k, 1)
    net.run(net.now + 100 * MS)
    longest = stall(net, x, y, sorted(net.paths)[cut], size=1000, every=every, turns=300 * MS // every, credit=False)
    assert longest <= RTT
    net.pair.free()


def test_failover_waits_until_the_path_is_suspect() -> None:
    net, x, y = session(False, (RTT, RTT), 1)
    assert stall(net, x, y, 0) > 2 * RTT
    net.pair.free()
