"""Streams of one session that have modes of their own (session.md §5.3): what goes where, and changes at any moment."""

from __future__ import annotations

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.test_parity import PARITY, said
from tests.unit.core.test_paths import MIRROR, MS, OK, STRIPE, SUSPENDED, Two

FAILOVER = 0
PEER = -1
BIG = bytes(5000)


def sizes(data: dict[int, bytes]) -> dict[int, int]:
    """By path how many values of BIG, about, went there."""
    return {path: len(part) // len(BIG) for path, part in data.items()}


def more(two: Two, name: str, **options: object) -> tuple[st.End, st.End]:
    """Another channel, paired and used."""
    x, y = (side.open(name, capacity=1000, **options) for side in (two.a, two.b))
    two.quiet()
    assert x.send(b"first") == OK
    two.quiet()
    assert y.take_all() == [b"first"]
    return x, y


@pytest.fixture
def two() -> Two:
    made = Two(parity=True)
    made.x.send(b"used")
    made.quiet()
    assert made.y.take_all() == [b"used"]
    return made


def test_stream_that_mirrors_goes_on_all_paths_and_others_on_one(two: Two) -> None:
    other, there = more(two, "other")
    two.x.mode(MIRROR)
    assert two.x.send(BIG) == OK and other.send(BIG) == OK
    data = said(two)
    assert sizes(data) == {0: 2, 2: 1}
    two.b.recv(data[2], 2)  # path 0 has fallen silent
    assert two.y.take_all() == [BIG] and there.take_all() == []
    two.b.recv(data[0], 0)
    assert two.y.take_all() == [] and there.take_all() == [BIG]
    two.quiet()
    assert two.a.state()["resent"] == 0
    two.free()


def test_copies_of_a_stream_answer_for_nothing_and_are_not_sent_again(two: Two) -> None:
    two.x.mode(MIRROR)
    two.x.send(BIG)
    assert sizes(said(two)) == {0: 1, 2: 1}  # neither arrives
    two.a.path_lost(2), two.b.path_lost(2)
    assert two.a.state()["again"] == 0
    two.add(4)
    data = said(two)
    assert sizes(data)[4] == 1  # what is in flight is mirrored to a path that is new
    two.b.recv(data[4], 4)
    assert two.y.take_all() == [BIG]
    two.a.path_lost(0), two.b.path_lost(0)
    two.quiet()
    assert two.y.take_all() == [] and two.a.state()["again"] == 0
    two.free()


def test_stream_of_its_own_mode_has_no_copies_in_a_session_that_mirrors(two: Two) -> None:
    other, there = more(two, "other")
    two.a.mode(MIRROR)
    two.x.mode(FAILOVER)
    two.x.send(BIG)
    other.send(BIG)
    data = said(two)
    assert sizes(data) == {0: 2, 2: 1}
    two.b.recv(data[2], 2)
    assert there.take_all() == [BIG] and two.y.take_all() == []
    # The one that has the copies answers for them; what was not copied is sent again by it.
    two.a.path_lost(0), two.b.path_lost(0)
    assert two.a.state()["again"] == 1
    two.quiet()
    assert two.y.take_all() == [BIG] and there.take_all() == []
    two.free()


def test_stream_that_mirrors_in_a_session_that_does_is_as_all_others(two: Two) -> None:
    two.a.mode(MIRROR)
    two.x.mode(MIRROR)
    two.x.send(BIG)
    data = said(two)
    assert sizes(data) == {0: 1, 2: 1}
    two.a.path_lost(0), two.b.path_lost(0)
    assert two.a.state()["again"] == 0
    two.b.recv(data[2], 2)
    assert two.y.take_all() == [BIG]
    two.free()


@pytest.mark.parametrize("session", [FAILOVER, STRIPE, MIRROR])
def test_parity_is_over_the_streams_that_have_it(two: Two, session: int) -> None:
    other, _there = more(two, "other")
    two.a.mode(session)
    two.x.mode(PARITY, 1, 1)
    before = two.a.state()["parity_sent"]
    other.send(BIG)
    two.quiet()
    assert two.a.state()["parity_sent"] == before
    two.x.send(BIG)
    data = said(two)
    two.a.now += 5 * MS
    two.a.on_deadline()
    more_data = said(two)
    assert two.a.state()["parity_sent"] == before + 1
    two.b.recv(data[2] + more_data[2], 2)
    assert two.y.take_all() == [BIG]
    two.free()


def test_striped_stream_leaves_the_others_where_they_were(two: Two) -> None:
    other, there = more(two, "other")
    two.x.mode(STRIPE)
    values = [bytes([n]) * 9000 for n in range(5)]
    for value in values:
        assert other.send(value) == OK
    for _ in range(3):
        two.x.send(bytes(16_000))
    data = said(two)
    assert len(data[2]) > 10_000
    two.b.recv(data[0], 0)
    assert there.take_all() == values
    two.b.recv(data[2], 2)
    assert two.y.take_all() == [bytes(16_000)] * 3
    two.free()


def test_mode_of_the_session_again(two: Two) -> None:
    two.x.mode(MIRROR)
    two.x.mode(PEER)
    two.x.send(BIG)
    assert sizes(said(two)) == {0: 1, 2: 0}
    assert two.a.modes() == (FAILOVER, {})
    two.free()


@pytest.mark.parametrize("later", [PEER, FAILOVER, STRIPE, MIRROR])
def test_change_in_the_middle_of_a_value_and_of_a_group(two: Two, later: int) -> None:
    two.x.mode(PARITY, 4, 2)
    value = bytes(range(256)) * 150
    two.x.send(value)
    part = two.a.send(20_000, 0)
    assert isinstance(part, bytes)
    two.b.recv(part, 0)
    two.x.mode(later)
    two.x.send(b"behind it")
    two.quiet()
    assert two.y.take_all() == [value, b"behind it"]
    two.x.mode(PARITY, 1, 1)
    two.x.send(value)
    two.quiet()
    assert two.y.take_all() == [value]
    two.free()


def test_change_while_the_session_is_suspended_and_a_path_is_lost_at_the_same_moment(two: Two) -> None:
    two.x.mode(MIRROR)
    two.x.send(BIG)
    said(two)
    two.a.path_lost(0), two.b.path_lost(0)
    two.x.mode(STRIPE)
    two.x.send(b"later")
    two.a.path_lost(2), two.b.path_lost(2)
    assert two.a.state()["state"] == SUSPENDED
    two.x.mode(PARITY, 2, 1)
    two.x.send(b"even later")
    two.add(4), two.add(6)
    two.quiet()
    assert two.y.take_all() == [BIG, b"later", b"even later"]
    two.free()


@pytest.mark.parametrize("options", [{"capacity": 0}, {"capacity": 8, "overflow": 3}, {"capacity": 8, "trunk": True}])
def test_what_has_to_come_in_order_goes_as_the_session_does(options: dict[str, object]) -> None:
    two = Two(parity=True)
    x, y = (side.open("z", **options) for side in (two.a, two.b))
    two.quiet()
    for mode in (MIRROR, STRIPE, PARITY):
        x.mode(mode)
        for session, copied in ((FAILOVER, False), (MIRROR, True)):
            two.a.mode(session)
            y.park(1)
            two.quiet()
            assert (x.offer(b"v" * 300) if options["capacity"] == 0 else x.send(b"v" * 300)) >= 0
            data = said(two)
            assert len(data[0]) > 300 and (len(data[2]) > 300) == copied
            for path, part in data.items():
                two.b.recv(part, path)
            assert y.take_all() == [b"v" * 300]
            two.quiet()
    two.free()


@pytest.mark.parametrize("lost", [0, 2])  # one of them has the data, the other one the parity
def test_end_of_a_stream_comes_though_its_bytes_were_made_up_for(two: Two, lost: int) -> None:
    two.x.mode(PARITY, 1, 1)
    two.x.send(b"v")
    two.quiet()
    assert two.y.take_all() == [b"v"]
    two.x.send(BIG)
    two.x.close()
    data = said(two)
    two.a.now += 5 * MS
    two.a.on_deadline()
    for path, part in said(two).items():
        data[path] += part
    other = 2 - lost
    two.b.recv(data[other], other)
    assert two.y.take_all() == [BIG]
    for path in (0, 2):
        two.a.recv(two.say(two.b, path), path)
    assert two.x.out()["acked"] == two.x.out()["sent"]  # so the outbox holds them no more
    two.a.path_lost(lost), two.b.path_lost(lost)
    two.quiet()
    assert two.y.take_all() == [] and two.y.in_()["has_final"] == 1
    two.free()
