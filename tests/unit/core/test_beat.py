"""Beats: when a path on which nothing is heard is tried (session.md §5.8), in virtual time."""

from __future__ import annotations

from netchan._core import _selftest_session as st
from tests.unit.core.test_paths import LEASE, MS, S, Two

LIMITS = {"use_ns": 10**6 * S}  # an epoch's end asks for an acknowledgement, too


def pass_time(two: Two, seconds: float, use_every: float = 0.0) -> dict[str, int]:
    """Nothing is lost; ``use_every`` seconds a value goes. PINGs of both sides, and moments at which one had to act."""
    before = [side.state()["pings"] for side in (two.a, two.b)]
    woken = 0
    end, use_at = two.a.now + int(seconds * S), two.a.now
    while two.a.now < end:
        acted = False
        for side in (two.a, two.b):
            side.now += 10 * MS
            if side.now >= side.deadline():
                side.on_deadline()
                acted = True
        if use_every and two.a.now >= use_at:
            two.x.send(b"v")
            use_at += int(use_every * S)
        for path in two.a.paths()[0]:
            for here, there in ((two.a, two.b), (two.b, two.a), (two.a, two.b)):
                data = two.say(here, path)
                if data:
                    there.recv(data, path)
        two.y.take_all()
        woken += acted
    after = [side.state()["pings"] for side in (two.a, two.b)]
    return {"pings": sum(after) - sum(before), "woken": woken}


def rested(two: Two) -> None:
    """All that follows the making of a session is over."""
    pass_time(two, 1)


def test_path_beside_others_is_tried_while_the_session_is_used_and_seldom_while_it_rests() -> None:
    two = Two(limits=LIMITS)
    rested(two)
    pass_time(two, 20, use_every=0.1)
    gap = min(side.state_of(2)["ping_gap"] for side in (two.a, two.b))
    assert S <= gap < 5 * S
    used = pass_time(two, 60, use_every=0.1)["pings"]
    assert 60 * S / (gap + S) - 1 <= used <= 60 * S / (gap - S / 2) + 2
    pass_time(two, 200)
    rests = pass_time(two, 600)["pings"]
    assert rests <= 24  # of two paths at most every 60 s, both sides together
    again = pass_time(two, 60, use_every=0.1)["pings"]
    assert again >= used - 3  # at once as before
    two.free()


def test_path_that_is_alone_has_no_beat_under_traffic() -> None:
    two = Two(limits=LIMITS)
    for side in (two.a, two.b):
        side.path_lost(2)
    pass_time(two, 2, use_every=0.1)
    assert pass_time(two, 60, use_every=0.1)["pings"] == 0
    two.free()


def test_beats_follow_the_round_trip() -> None:
    two = Two(limits=LIMITS)
    quick = two.a.state_of(2)
    assert quick["srtt"] > 0 and quick["ping_gap"] <= 5 * S
    slow = Two(way=400, limits=LIMITS)
    for _ in range(6):
        slow.x.send(b"v")
        slow.quiet()
        slow.a.path_ping(2), slow.b.path_ping(2)
        slow.quiet()
    state = slow.a.state_of(2)
    slow.a.now = slow.b.now = max(slow.a.now, slow.b.now)
    while slow.a.now < state["ping_at"]:
        slow.a.now = min(slow.a.deadline(), state["ping_at"])
        slow.a.on_deadline()
    after = slow.a.state_of(2)
    trips = 8 * (after["srtt"] + 4 * after["rttvar"])
    assert trips > 5 * S and after["ping_gap"] >= min(trips, 2 * state["ping_gap"])
    two.free(), slow.free()


def test_beats_of_many_sessions_fall_on_the_same_moments() -> None:
    moments: set[int] = set()
    pairs = []
    for n in range(20):
        pair = st.Pair(mine=LEASE, peer=LEASE, limits=LIMITS)
        pair.a.now += n * 37 * MS
        pair.b.now = pair.a.now
        two = Two.__new__(Two)
        two.pair, two.a, two.b, two.way = pair, pair.a, pair.b, 0
        two.x, two.y = (side.open("x", capacity=10) for side in (pair.a, pair.b))
        pairs.append(two)
        pass_time(two, 12)
        moments.add(two.a.state_of(0)["ping_at"] % S)
        assert two.b.state_of(0)["ping_at"] % S == S // 2
    assert moments == {0}
    for two in pairs:
        two.free()


def test_beat_of_one_side_is_one_of_the_other() -> None:
    two = Two(limits=LIMITS)
    for side in (two.a, two.b):
        side.path_lost(2)
    pass_time(two, 600)
    before = [side.state()["pings"] for side in (two.a, two.b)]
    pass_time(two, 1200)
    after = [side.state()["pings"] for side in (two.a, two.b)]
    assert 18 <= sum(after) - sum(before) <= 22  # one a minute, whoever sends it
    two.free()
