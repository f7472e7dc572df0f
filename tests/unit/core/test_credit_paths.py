"""Which paths POS is said on, step by step (session.md §5.3, Credit); what that is worth is in test_stall.py."""

from __future__ import annotations

import pytest

from tests.unit.core.test_parity import PARITY, said
from tests.unit.core.test_paths import MIRROR, MS, OK, Two

FAILOVER = 0
BIG = bytes(5000)  # four of them are more than a quarter of a window: POS is due


@pytest.fixture
def two() -> Two:
    made = Two(parity=True)
    made.x.send(b"used")
    made.quiet()
    assert made.y.take_all() == [b"used"]
    return made


def bring(two: Two, values: int = 4, close: bool = False) -> None:
    """So many values of BIG arrive on all paths that they take, and are taken; with ``close`` they are the last."""
    for _ in range(values):
        assert two.x.send(BIG) == OK
    if close:
        two.x.close()
    for wait in (0, 5 * MS):  # a group of parity ends when nothing more comes
        two.a.now += wait
        two.a.on_deadline()
        for path, data in said(two).items():
            two.b.recv(data, path)
    assert two.y.take_all() == [BIG] * values


def credit(two: Two) -> int:
    found = two.x.out()["max_bytes"]
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("mode", [MIRROR, PARITY])
def test_pos_goes_where_the_data_come_from_as_well(two: Two, mode: int, session: bool) -> None:
    if session:
        two.a.mode(mode, 1, 1)  # the other side has none
    else:
        two.x.mode(mode, 1, 1)
    bring(two)
    before = credit(two)
    late = two.say(two.b, 0)
    two.a.recv(two.say(two.b, 2), 2)  # path 0 has fallen silent
    told = credit(two)
    assert told > before
    two.a.recv(late, 0)
    assert credit(two) == told  # it says the same
    two.free()


def test_pos_goes_on_one_path_where_the_data_do(two: Two) -> None:
    bring(two)
    before = credit(two)
    first = two.say(two.b, 0)
    assert two.say(two.b, 2) == b""
    two.a.recv(first, 0)
    assert credit(two) > before
    two.free()


def test_pos_leaves_the_other_path_a_window_after_the_data_have(two: Two) -> None:
    two.x.mode(MIRROR)
    bring(two)
    two.quiet()
    two.x.mode(FAILOVER)
    for _ in range(4):
        bring(two)
        two.quiet()
    bring(two)
    assert two.say(two.b, 0)
    assert two.say(two.b, 2) == b""
    two.free()


def test_copy_is_not_sent_again_and_what_it_is_of_is(two: Two) -> None:
    two.x.mode(MIRROR)
    bring(two)
    before = credit(two)
    two.say(two.b, 0), two.say(two.b, 2)  # neither arrives
    two.a.path_lost(2), two.b.path_lost(2)
    assert two.b.state()["again"] == 2  # what acknowledges, and no copy
    two.add(4)
    two.quiet(4)  # what is in flight is copied to a path that is new
    told = credit(two)
    assert told > before
    two.a.path_lost(0), two.b.path_lost(0)
    two.quiet()
    assert credit(two) == told and two.b.state()["again"] == 0
    two.free()


def test_pos_does_not_wait_for_a_carrier_that_is_full(two: Two) -> None:
    two.x.mode(MIRROR)
    bring(two)
    before = credit(two)
    two.a.recv(two.say(two.b, 2), 2)  # the engine asks for nothing on path 0
    told = credit(two)
    assert told > before
    assert two.say(two.b, 2) == b""  # once
    late = two.say(two.b, 0)
    assert len(late) > 20  # and still where somebody answers for it
    two.quiet()
    bring(two)
    two.a.recv(two.say(two.b, 2), 2)
    assert credit(two) > told
    two.free()


def test_pos_said_first_on_another_path_is_owed_all_the_same(two: Two) -> None:
    two.x.mode(MIRROR)
    bring(two)
    two.say(two.b, 2)  # lost; nothing was said on path 0
    two.x.close()  # the end brings no byte: all has been told, as far as the stream knows
    for path, data in said(two).items():
        if path == 0:
            two.b.recv(data, path)
    assert two.x.out()["taken"] == 0
    two.a.recv(two.say(two.b, 0), 0)
    assert two.x.out()["taken"] == 5
    two.free()


@pytest.mark.parametrize("first", [False, True])
def test_what_has_to_come_in_order_stays_behind_on_the_path_of_control(two: Two, first: bool) -> None:
    x, y = (side.open("other", capacity=1000) for side in (two.a, two.b))
    two.quiet()
    x.send(b"v")
    two.quiet()
    two.x.mode(MIRROR)
    if first:
        y.stop()
    for _ in range(4):
        assert two.x.send(BIG) == OK
    for path, data in said(two).items():
        two.b.recv(data, path)
    assert two.y.take_all() == [BIG] * 4
    if not first:
        y.stop()
    before = credit(two)
    late = two.say(two.b, 0)
    two.a.recv(two.say(two.b, 2), 2)
    assert credit(two) > before and x.state()[0] == 0
    two.a.recv(late, 0)
    assert x.state()[0] != 0
    two.free()


@pytest.mark.parametrize("trunk", [False, True])
def test_pos_rides_on_no_data_of_one_path(trunk: bool) -> None:
    two = Two(parity=True)
    x, y = (side.open("both", capacity=1000, trunk=trunk) for side in (two.a, two.b))
    two.quiet()
    x.send(b"used"), y.send(b"used")
    two.quiet()
    assert y.take_all() == x.take_all() == [b"used"]
    two.x, two.y = x, y
    x.mode(MIRROR)
    bring(two)
    assert y.send(b"reply") == OK
    before = credit(two)
    late = two.say(two.b, 0)
    two.a.recv(two.say(two.b, 2), 2)
    assert credit(two) > before and x.take_all() == []
    two.a.recv(late, 0)
    assert x.take_all() == [b"reply"]
    two.free()


def test_pos_of_a_stream_that_is_over_is_said_on_one_path(two: Two) -> None:
    two.x.mode(MIRROR)
    bring(two, close=True)
    late = two.say(two.b, 0)
    two.a.recv(two.say(two.b, 2), 2)
    assert two.x.out()["taken"] == 0
    two.a.recv(late, 0)
    assert two.x.out()["taken"] == 5
    two.free()


def test_pos_does_not_go_on_a_path_that_stands_by(two: Two) -> None:
    two.x.mode(MIRROR)
    bring(two)
    two.b.standby(2, True)
    two.quiet()
    bring(two)
    two.quiet(0)
    assert two.say(two.b, 2) == b""
    two.free()


def test_side_that_mirrors_says_it_as_everything(two: Two) -> None:
    two.x.mode(MIRROR)
    two.b.mode(MIRROR)
    two.quiet()
    bring(two)
    before, had = credit(two), two.b.state()["records_sent"]
    two.say(two.b, 0)
    two.a.recv(two.say(two.b, 2), 2)
    assert credit(two) > before
    assert two.b.state()["records_sent"] - had <= 4  # one on each path, and what each acknowledges for itself
    two.free()
