"""Paths that stand by or are doubted, and what the program hears of them (session.md §5.3, §5.9, §5.10)."""

from __future__ import annotations

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.test_paths import MIRROR, MS, STRIPE, UP, S, Two
from tests.unit.core.test_record import PROTOCOL, hosted, verdict, vint

NEW, ACTIVE, STANDBY, SUSPECT, LOST, SUSPENDED, RESUMED = range(7)
OURS, THEIRS = 1, 2
CONTROL, PATH_STATUS = 0, 0x0C


def states(two: Two) -> list[dict[int, int]]:
    """Path -> its state, of both sides."""
    return [{path: side.state_of(path)["state"] for path in side.paths()[0]} for side in (two.a, two.b)]


def status(path: int, seq: int, standby: bool) -> bytes:
    return bytes([PATH_STATUS]) + vint(path) + vint(seq) + bytes([standby]) + vint(7)


class TestStandby:
    """PATH_STATUS, said and heard."""

    def test_both_sides_leave_a_path_that_one_wants_to_stand_by(self) -> None:
        two = Two()
        two.a.standby(0, True)
        two.quiet()
        assert two.a.state_of(0)["standby"] == OURS
        assert two.b.state_of(0)["standby"] == THEIRS
        assert two.a.paths()[1] == two.b.paths()[1] == 2
        assert states(two) == [{0: STANDBY, 2: ACTIVE}] * 2
        two.x.send(b"v")
        assert two.say(two.a, 0) == b""
        two.quiet()
        assert two.y.take_all() == [b"v"]
        two.a.standby(0, False)
        two.quiet()
        assert two.b.state_of(0)["standby"] == 0 and two.b.paths()[1] == 2  # where it is, control stays
        two.free()

    def test_what_was_in_flight_comes_once_and_in_order(self) -> None:
        two = Two()
        for n in range(20):
            two.x.send(bytes([n]))
        late = two.say(two.a, 0)
        two.a.standby(0, True)
        for n in range(20, 40):
            two.x.send(bytes([n]))
        early = two.say(two.a, 2)
        two.b.recv(early, 2)
        two.b.recv(late, 0)
        two.quiet()
        assert two.y.take_all() == [bytes([n]) for n in range(40)]
        two.free()

    def test_standby_takes_over_from_a_suspect_path_and_gives_way_when_it_is_heard(self) -> None:
        two = Two()
        two.a.standby(2, True)
        two.quiet()
        two.x.send(b"one")
        late = two.say(two.a, 0)
        two.a.now += 200 * MS
        two.a.on_deadline()
        assert two.a.paths()[1] == 2 and two.a.state_of(2)["state"] == ACTIVE
        two.b.recv(two.say(two.a, 2), 2)
        assert two.y.take_all() == [b"one"]
        two.b.recv(late, 0)
        two.b.now += 30 * MS
        two.b.on_deadline()
        two.a.recv(two.say(two.b, 0), 0)  # the acknowledgement of what was late
        assert two.a.paths()[1] == 0 and two.a.state_of(2)["state"] == STANDBY
        two.x.send(b"two")
        two.quiet()
        assert two.y.take_all() == [b"two"]
        two.free()

    def test_standby_takes_over_from_a_lost_path_and_gives_way_to_a_new_one(self) -> None:
        two = Two()
        two.a.standby(2, True)
        two.quiet()
        two.x.send(b"one")
        two.say(two.a, 0)
        two.a.path_lost(0), two.b.path_lost(0)
        two.quiet()
        assert two.y.take_all() == [b"one"] and two.a.paths() == ([2], 2)
        two.add(4)
        two.quiet()
        assert two.a.paths() == two.b.paths() == ([2, 4], 4)
        two.free()

    def test_of_paths_that_all_stand_by_one_is_used(self) -> None:
        two = Two()
        two.a.standby(0, True)
        two.b.standby(2, True)
        two.quiet()
        assert all(side.state_of(path)["standby"] for side in (two.a, two.b) for path in (0, 2))
        two.x.send(b"v")
        two.quiet()
        assert two.y.take_all() == [b"v"]
        two.free()

    @pytest.mark.parametrize("mode", [STRIPE, MIRROR])
    def test_nothing_is_striped_or_mirrored_there(self, mode: int) -> None:
        two = Two()
        two.x.send(b"first")
        two.quiet()
        two.y.take_all()
        two.a.mode(mode)
        two.a.standby(2, True)
        two.quiet()
        for _ in range(30):
            two.x.send(bytes(1000))
        assert two.say(two.a, 0)
        assert two.say(two.a, 2) == b""
        two.a.standby(2, False)
        for _ in range(30):
            two.x.send(bytes(1000))
        assert len(two.say(two.a, 2)) > 1000
        two.free()

    def test_version_of_before_changes_nothing(self) -> None:
        side, peer, _ = hosted(lease_ns=300 * S, max_paths=3)
        side.recv(peer.seal(CONTROL, status(0, 5, True)))
        assert side.state_of(0)["standby"] == THEIRS
        for seq in (0, 4, 5):
            side.recv(peer.seal(CONTROL, status(0, seq, False)))
            assert side.state_of(0)["standby"] == THEIRS
        side.recv(peer.seal(CONTROL, status(0, 6, False)))
        assert side.state_of(0)["standby"] == 0
        side.recv(peer.seal(CONTROL, status(44, 7, True)))  # of a path that is no more
        assert verdict(side) is None

    def test_path_that_cannot_be_is_refused(self) -> None:
        side, peer, _ = hosted(lease_ns=300 * S, max_paths=3)
        side.recv(peer.seal(CONTROL, status(1 << 32, 0, True)))
        assert verdict(side) == PROTOCOL

    @pytest.mark.parametrize("options", [{"lease_ns": 0, "max_paths": 3}, {"lease_ns": 300 * S, "max_paths": 1}])
    def test_session_of_one_path_refuses_it(self, options: dict[str, int]) -> None:
        side, peer, _ = hosted(**options)
        side.recv(peer.seal(CONTROL, status(0, 0, True)))
        assert verdict(side) == PROTOCOL

    def test_lost_datagram_of_it_does_no_harm(self) -> None:
        """Said before the other side has the path: it is said again when something is heard there."""
        pair = st.Pair(
            mine={"datagrams": True, "lease_ns": 300 * S, "max_paths": 3},
            peer={"datagrams": True, "lease_ns": 300 * S, "max_paths": 3},
        )
        a, b = pair.a, pair.b
        for side in (b, a):
            assert side.add(2, bytes([2] * 32), 1200) == 0
        a.standby(2, True)
        assert a.send_datagram(2)  # lost
        b.path_ping(2)
        for _ in range(6):
            for here, there in ((b, a), (a, b)):
                while data := here.send_datagram(2):
                    there.recv_datagram(data, 2)
                here.now += 5 * MS
        assert b.state_of(2)["standby"] == THEIRS
        pair.free()


class TestDoubt:
    """The program's side knows that the way of a path is gone."""

    def test_other_path_carries_on_at_once(self) -> None:
        two = Two()
        two.x.send(b"one")
        two.say(two.a, 0)  # swallowed
        two.a.doubt(0)
        assert two.a.paths()[1] == 2 and two.a.state_of(0)["state"] == SUSPECT
        two.b.recv(two.say(two.a, 2), 2)
        assert two.y.take_all() == [b"one"]
        assert not two.a.state()["suspect"]
        two.free()

    def test_path_is_asked_and_good_again_when_it_answers(self) -> None:
        two = Two()
        two.a.doubt(0)
        two.quiet(0)
        assert two.a.state_of(0)["state"] == STANDBY and two.a.paths()[1] == 2
        two.free()

    def test_all_paths_doubted_call_for_another(self) -> None:
        two = Two()
        two.a.doubt(0)
        assert not two.a.state()["suspect"]
        two.a.doubt(2)
        assert two.a.state()["suspect"] and two.a.state()["state"] == UP
        two.x.send(b"v")
        two.quiet()  # it was nothing
        assert not two.a.state()["suspect"] and two.y.take_all() == [b"v"]
        two.free()


class TestEvents:
    """What became of the paths, as kept for the program."""

    def test_each_change_once_and_in_order(self) -> None:
        two = Two()
        assert two.a.path_events() == ([(2, STANDBY, NEW)], 0)  # nobody needs to be told of the first path
        two.a.doubt(0)
        assert two.a.path_events() == ([(0, SUSPECT, ACTIVE), (2, ACTIVE, STANDBY)], 0)
        two.quiet()
        assert two.a.path_events() == ([(0, STANDBY, SUSPECT)], 0)
        two.a.mode(STRIPE)
        assert two.a.path_events() == ([(0, ACTIVE, STANDBY)], 0)
        two.a.path_lost(2)
        assert two.a.path_events() == ([(2, LOST, ACTIVE)], 0)
        two.a.path_lost(0)
        assert two.a.path_events() == ([(0, LOST, ACTIVE), (0, SUSPENDED, NEW)], 0)
        two.b.path_lost(0), two.b.path_lost(2)
        two.add(4)
        assert two.a.path_events() == ([(4, RESUMED, NEW), (4, ACTIVE, NEW)], 0)
        two.free()

    def test_oldest_are_counted_when_nobody_looks(self) -> None:
        two = Two()
        two.a.path_events()
        for _ in range(20):
            two.a.doubt(2)
            two.quiet()
        events, lost = two.a.path_events()
        assert len(events) == 16 and lost == 40 - 16
        assert events[-1] == (2, STANDBY, SUSPECT)
        two.free()
