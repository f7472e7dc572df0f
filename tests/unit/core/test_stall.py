"""Values go on when a path falls silent, in virtual time: no longer wait than the best round trip (parity.md §2.1)."""

from __future__ import annotations

import pytest

from tests.property.core_net import MS, OK
from tests.unit.core.stalls import RTT, session, stall

ROOM = 160 * 1024  # of a session beyond the floors: a window of 128 KiB, and what parity keeps
FAILOVER, STRIPE, MIRROR, PARITY = range(4)
TAKEN = 1  # what became of an offer


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


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("seed", [0, 6, 8])
@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize("rtts", [(RTT, RTT), (RTT, 2 * RTT), (RTT, RTT, RTT)], ids=["equal", "longer", "three"])
def test_parity_costs_none_at_ten_megabytes_a_second(
    rtts: tuple[int, ...], datagrams: bool, seed: int, cut: int
) -> None:
    # The windows are full every now and then: a symbol and its parity must not go on one path for that.
    net, x, y = session(datagrams, rtts, seed)
    for side in net.sides:
        side.mode(PARITY, len(rtts) - 1, 1)
    net.run(net.now + 100 * MS)
    turns = 1600 + 7 * seed
    longest = stall(net, x, y, sorted(net.paths)[cut], size=2500, every=MS // 4, turns=turns, credit=False)
    assert longest <= min(rtt for place, rtt in enumerate(rtts) if place != cut)
    net.pair.free()


@pytest.mark.parametrize("datagrams", [False, True])
def test_slow_path_does_not_set_the_pace_of_parity(datagrams: bool) -> None:
    net, x, y = session(datagrams, (RTT, RTT), 1)
    slow = max(net.paths)
    net.paths[slow].links[0].fate.rate = 1_000_000  # of 4 MB/s it brings the copies of a quarter
    net.sides[0].mode(PARITY, 1, 1)
    net.run(net.now + 100 * MS)
    assert stall(net, x, y, None, size=1000, every=MS // 4, turns=1600, credit=False) <= RTT
    net.run(net.now + 200 * MS)
    groups, held = net.sides[0].late()
    assert groups == 0 and held < 64 * 1024
    net.pair.free()


@pytest.mark.parametrize("what", ["preface", "offer", "asked", "trunk"])
@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize("mode", [MIRROR, PARITY])
def test_what_comes_in_order_goes_on_too_when_the_path_of_control_is_silent(
    mode: int, datagrams: bool, what: str
) -> None:
    net, x, y = session(datagrams, (RTT, RTT), 1)
    for side in net.sides:
        side.mode(mode, 1, 1)
    capacity, trunk = 0 if what == "offer" else 10, what == "trunk"
    if what != "preface":
        x, y = (side.open(what, capacity=capacity, trunk=trunk) for side in net.sides)
    net.run(net.now + 50 * MS)
    if what == "trunk":
        assert x.send(b"") == OK  # the first bytes of a stream do not ride there
    net.run(net.now + 50 * MS)
    y.take()
    for link in net.paths[net.sides[0].paths()[1]].links:
        link.fate.dead = True
    if what == "preface":
        x, y = (side.open(what, capacity=10) for side in net.sides)
    y.park(1)
    assert (x.offer(b"v") if what == "offer" else x.send(b"v", deliver=what == "asked")) == OK
    if what == "asked":
        x.ask(received=2, taken=1)
    cut_at = net.now
    while y.take() != b"v":
        assert net.now < cut_at + RTT
        net.run(net.now + MS // 4)
    while not (x.offer_state(0) == TAKEN if what == "offer" else x.out()["taken"] or what != "asked"):
        assert net.now < cut_at + 2 * RTT
        net.run(net.now + MS // 4)
    net.pair.free()


def test_only_path_beside_one_that_stands_by_carries_whole_groups() -> None:
    net, x, y = session(True, (RTT, RTT), 1)
    a = net.sides[0]
    a.mode(PARITY, 8, 1)
    a.standby(max(net.paths), True)
    net.run(net.now + 100 * MS)
    before = a.state()["parity_sent"]
    sent = 0
    for _ in range(40):
        while x.send(bytes(9000)) == OK:
            sent += 9000
        net.run(net.now + 5 * MS)
        y.take_all()
    assert 0 < a.state()["parity_sent"] - before < sent / 1000 / 6  # one for eight symbols of less than 1.2 kB
    net.pair.free()


def test_failover_waits_until_the_path_is_suspect() -> None:
    net, x, y = session(False, (RTT, RTT), 1)
    assert stall(net, x, y, 0) > 2 * RTT
    net.pair.free()
