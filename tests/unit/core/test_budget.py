"""What the streams of a session may hold beyond their floors (docs/spec/session.md §4.3, api R16)."""

import random

import pytest

from netchan._core import _selftest_session as st

OK = st.RC["OK"]
KIB, MIB = 1 << 10, 1 << 20
FLOOR, LOW = 64 * KIB, 4 * KIB


def joined(n: int, session_bytes: int, node_bytes: int = 1 << 40) -> tuple[st.Pair, list[st.End], list[st.End]]:
    """A pair with n channels; the second side takes values and has the budgets."""
    p = st.Pair(
        peer={"session_bytes": session_bytes, "node_bytes": node_bytes, "max_channels": 4096},
        mine={"max_channels": 4096},
    )
    ours, theirs = [], []
    for i in range(n):
        ours.append(p.a.open(f"c{i}"))
        theirs.append(p.b.open(f"c{i}"))
        if i % 100 == 99:
            p.run(5000)
    p.run(5000)
    assert all(e.paired for e in (*ours, *theirs))
    return p, ours, theirs


def here(e: st.End) -> int:
    return int(e.in_()["msgs"] - e.in_()["taken"])


class TestLongValues:
    def test_value_longer_than_everything_gets_through(self) -> None:
        p, (a,), (b,) = joined(1, 0)
        value = random.Random(1).randbytes(3 * MIB)
        assert a.send(value) == OK
        p.run(5000)
        assert b.take_all() == [value]
        p.run(5000)
        assert p.b.state()["budget"] == 0 and p.b.state()["turn"] == 0

    def test_two_halves_that_together_exceed_the_budget_both_get_through(self) -> None:
        p, (x, y), (bx, by) = joined(2, 2 * MIB)
        for a in (x, y):
            assert a.send(bytes(3 * MIB)) == OK
        p.run(5000)
        assert here(bx) == here(by) == 1  # the second one though nobody took the first
        assert bx.take_all() == by.take_all() == [bytes(3 * MIB)]
        p.run(5000)
        assert p.b.state()["budget"] == 2 * MIB and p.b.state()["drawn"] == 0

    def test_short_budget_is_one_value_after_the_other(self) -> None:
        """While one that has the turn comes, the others hold no more than two windows each."""
        p, ours, theirs = joined(8, 256 * KIB)
        for a in ours:
            assert a.send(bytes(MIB)) == OK
        most = 0
        while True:
            p.collect(20_000)
            p.deliver(20_000)
            part = [e.in_()["received"] for e in theirs if here(e) == 0]
            most = max(most, sum(n > 2 * FLOOR + 20_000 for n in part))
            if not part:
                break
        assert most <= 1
        assert [len(e.take_all()[0]) for e in theirs] == [MIB] * 8
        p.run(5000)
        assert p.b.state()["budget"] == 256 * KIB and p.b.state()["waiting"] == 0

    def test_who_waited_longest_is_next(self) -> None:
        p, ours, theirs = joined(5, 0)
        order = [3, 1, 4, 0, 2]
        for n in order:
            assert ours[n].send(bytes(MIB)) == OK
            while theirs[n].in_()["received"] < FLOOR:
                p.collect(20_000)
                p.deliver(20_000)
        finished: list[int] = []
        while len(finished) < 5:
            p.collect(20_000)
            p.deliver(20_000)
            finished += [n for n in range(5) if here(theirs[n]) and n not in finished]
        assert finished == order

    def test_stream_of_long_values_does_not_keep_the_turn(self) -> None:
        p, (x, y), (bx, by) = joined(2, 0)
        assert x.send(bytes(MIB)) == OK
        while p.b.state()["turn"] == 0:
            p.collect(20_000)
            p.deliver(20_000)
        assert y.send(bytes(MIB)) == OK
        for _ in range(1000):
            if here(by):
                break
            x.send(bytes(MIB))
            p.collect(20_000)
            p.deliver(20_000)
            bx.take_all()
        assert here(by) == 1 and bx.in_()["taken"] <= 2

    @pytest.mark.parametrize("how", ["stop", "abort", "peer aborts"])
    def test_value_that_nobody_wants_any_more_gives_its_turn_away(self, how: str) -> None:
        p, (x, y), (bx, by) = joined(2, 0)
        assert x.send(bytes(3 * MIB)) == OK
        while p.b.state()["turn"] == 0:
            p.collect(20_000)
            p.deliver(20_000)
        assert y.send(bytes(3 * MIB)) == OK
        while p.b.state()["waiting"] == 0:
            p.collect(20_000)
            p.deliver(20_000)
        if how == "peer aborts":
            x.abort(0x40000001)
        else:
            bx.stop() if how == "stop" else bx.abort(0x40000001)
        p.run(5000)
        assert by.take_all() == [bytes(3 * MIB)]
        p.run(5000)
        assert p.b.state()["drawn"] == 0 == p.b.state()["budget"]

    def test_waiting_value_does_not_hold_up_short_ones_elsewhere(self) -> None:
        p, (x, y, z), (_, _, bz) = joined(3, 0)
        for a in (x, y):
            assert a.send(bytes(8 * MIB)) == OK
        for n in range(40):
            assert z.send(b"%d" % n) == OK
            for _ in range(4):
                p.collect(20_000)
                p.deliver(20_000)
            assert bz.take_all() == [b"%d" % n]

    def test_waiting_stream_does_not_say_its_position_in_every_record(self) -> None:
        p, (x, y), (_, by) = joined(2, 0)
        assert x.send(bytes(8 * MIB)) == y.send(bytes(8 * MIB)) == OK
        while p.b.state()["waiting"] == 0:
            p.collect(20_000)
            p.deliver(20_000)
        sizes = []
        for _ in range(5):
            assert by.send(b"v") == OK
            sizes.append(len(p.b.send()))
        assert max(sizes[1:]) <= min(sizes) + 2  # offsets grow; a POS would be 9 bytes and more


class TestFloors:
    def test_windows_never_take_the_floor_of_another(self) -> None:
        p, ours, theirs = joined(20, 256 * KIB)
        for a in ours[:10]:
            for _ in range(40):
                a.send(bytes(10_000))
        for _ in range(60):
            p.run(5000)
            for b in theirs[:10]:
                b.take()
            for a in ours[:10]:
                a.send(bytes(10_000))
        p.run(5000)
        for a in ours[10:]:
            assert a.send(bytes(60_000)) == OK
        p.run(5000)
        assert [here(b) for b in theirs[10:]] == [1] * 10

    def test_floor_is_lower_beyond_a_thousand_channels_and_all_goes_on(self) -> None:
        p, ours, theirs = joined(1100, 0)
        windows = [e.in_()["window"] for e in theirs]
        assert windows.count(FLOOR) == 1000 and windows.count(LOW) == 100
        low = windows.index(LOW)
        a, b = ours[low], theirs[low]
        sent, got = 0, []
        for _ in range(400):
            while sent < 300 and a.send(b"%d " % sent + bytes(500)) == OK:
                sent += 1
            p.run(5000)
            got += [int(v.split()[0]) for v in b.take_all()]
        assert got == list(range(300)) and b.in_()["held_bytes"] <= 2 * FLOOR

    def test_low_floor_grows_when_there_is_room(self) -> None:
        p, ours, theirs = joined(1100, 64 * MIB)
        low = [e.in_()["window"] for e in theirs].index(LOW)
        a, b = ours[low], theirs[low]
        for _ in range(100):
            while a.send(bytes(1000)) == OK:
                pass
            p.run(5000)
            b.take_all()
            p.run(5000)
        assert b.in_()["window"] > FLOOR and b.in_()["grown"] == b.in_()["window"] - LOW


class TestNode:
    def test_sessions_of_a_process_share_one_budget(self) -> None:
        begun = st.Pair().a.state()["node_used"]
        first = joined(1, 64 * MIB, begun + 300 * KIB)
        second = joined(1, 64 * MIB, begun + 300 * KIB)
        for p, (a,), (b,) in (first, second):
            for _ in range(60):
                while a.send(bytes(16000)) == OK:
                    pass
                p.run(5000)
                b.take_all()
                p.run(5000)
        grown = [s[2][0].in_()["grown"] for s in (first, second)]
        assert grown[0] == 192 * KIB and grown[1] == 64 * KIB
        assert first[0].b.state()["node_used"] == begun + sum(grown)
        first[0].free()
        assert second[0].b.state()["node_used"] == begun + grown[1]
        second[0].b.close(1)
        second[0].run(5000)
        assert second[0].b.state()["node_used"] == begun

    def test_value_longer_than_the_budget_of_the_process_gets_through(self) -> None:
        begun = st.Pair().a.state()["node_used"]
        p, (a,), (b,) = joined(1, 64 * MIB, 64 * KIB)
        assert a.send(bytes(2 * MIB)) == OK
        p.run(5000)
        assert b.take_all() == [bytes(2 * MIB)]
        p.run(5000)
        assert p.b.state()["node_used"] == begun


@pytest.mark.parametrize("seed", range(40))
def test_every_value_arrives_and_every_byte_of_the_budget_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    count, budget = rng.choice([2, 5, 12]), rng.choice([0, 100_000, MIB])
    p, ours, theirs = joined(count, budget)
    sent: list[list[int]] = [[] for _ in ours]
    got: list[list[int]] = [[] for _ in ours]
    stopped: set[int] = set()
    for _ in range(200):
        i = rng.randrange(count)
        if i not in stopped and rng.random() < 0.4:
            n = rng.choice([5, 1000, 70_000, 200_000, 700_000])
            if ours[i].send(bytes(n)) == OK:
                sent[i].append(n)
        p.collect(rng.choice([17_000, 65_536]))
        p.deliver(rng.choice([0, 5000, 1 << 20]), rng.choice([0, 40, 1 << 20]))
        j = rng.randrange(count)
        if rng.random() < 0.4 and j not in stopped:
            got[j] += [len(v) for v in theirs[j].take_all()]
        if rng.random() < 0.01:
            theirs[j].stop()
            stopped.add(j)
        state = p.b.state()
        assert state["budget"] + state["drawn"] == budget
    for _ in range(60):
        p.run(5000)
        for j in range(count):
            if j not in stopped:
                got[j] += [len(v) for v in theirs[j].take_all()]
    for j in range(count):
        assert j in stopped or got[j] == sent[j]
    lent = sum(e.in_()["grown"] for e in theirs)
    assert p.b.state()["drawn"] == lent and p.b.state()["turn"] == p.b.state()["waiting"] == 0
    for e in (*ours, *theirs):
        e.abort(0x40000001)
    p.run(5000)
    assert p.b.state()["drawn"] == 0 and p.b.state()["budget"] == budget
