"""What a session does with several paths, step by step (session.md §5, §5.3); programs are in tests/property."""

from __future__ import annotations

from typing import Any

import pytest

from netchan._core import _selftest_session as st

OK, ECLOSED, ELIMIT, EINVAL, ESTATE = (st.RC[k] for k in ("OK", "ECLOSED", "ELIMIT", "EINVAL", "ESTATE"))
S, MS = 1_000_000_000, 1_000_000
LEASE = {"lease_ns": 300 * S, "max_paths": 3}
UP, CLOSING, OVER, SUSPENDED = range(4)
FAILOVER, STRIPE, MIRROR = range(3)


class Two:
    """Two sides with paths 0 and 2; what each has to say on a path is taken and given by hand."""

    def __init__(self, capacity: int | None = 1000, way: int = 0, parity: bool = False, **options: Any) -> None:
        self.way = way  # ms from one side to the other
        self.pair = st.Pair(mine=LEASE | {"parity": parity}, peer=LEASE | {"parity": parity}, **options)
        self.a, self.b = self.pair.a, self.pair.b
        self.x, self.y = (side.open("x", capacity=capacity) for side in (self.a, self.b))
        self.quiet()
        self.add(2)
        self.quiet()

    def add(self, number: int) -> None:
        for side in (self.b, self.a):
            assert side.add(number, bytes([number] * 32)) == OK

    def say(self, side: st.Side, path: int, most: int = 1 << 20) -> bytes:
        out = b""
        while len(out) < most and path in side.paths()[0]:
            got = side.send(65536, path)
            if isinstance(got, int) or not got:
                break
            out += got
        return out

    def quiet(self, *paths: int) -> None:
        """Everything arrives on these paths (none named: on all), and all is acknowledged."""
        for _ in range(20):
            for side in (self.a, self.b):
                side.now += 30 * MS
            moved = False
            for path in paths or tuple(self.a.paths()[0]):
                for here, there in ((self.a, self.b), (self.b, self.a)):
                    data = self.say(here, path)
                    if data and path in there.paths()[0]:
                        here.now += self.way * MS
                        there.now += self.way * MS
                        there.recv(data, path)
                        moved = True
            if not moved:
                return

    def free(self) -> None:
        self.pair.free()


def test_what_may_be_added() -> None:
    two = Two()
    assert two.a.add(2, bytes(32)) == EINVAL
    assert two.a.add(4, bytes(32)) == OK
    assert two.a.add(6, bytes(32)) == ELIMIT
    assert two.a.paths() == ([0, 2, 4], 0)
    two.a.path_lost(4)
    assert two.a.add(4, bytes(32)) == EINVAL  # its numbers would begin again under the same keys
    assert two.a.add(6, bytes(32)) == OK
    two.a.close(0)
    assert two.a.add(8, bytes(32)) == ECLOSED
    two.free()
    bare = st.Pair()
    assert bare.a.add(2, bytes(32)) == ESTATE
    bare.free()


def test_path_that_is_added_to_a_suspended_session_brings_it_back() -> None:
    two = Two()
    two.x.send(b"v")
    two.say(two.a, 0)  # on its way for ever
    for side in (two.a, two.b):
        side.path_lost(0), side.path_lost(2)
        assert side.state()["state"] == SUSPENDED
    two.add(4)
    two.quiet()
    assert two.y.take_all() == [b"v"] and two.a.state()["state"] == UP
    two.free()


def test_suspect_path_gives_way_and_does_not_take_over_again() -> None:
    two = Two()
    two.x.send(b"one")
    late = two.say(two.a, 0)
    assert late and two.a.paths()[1] == 0
    two.a.now += 49 * MS
    two.a.on_deadline()
    assert two.a.paths()[1] == 0
    two.a.now += 100 * MS
    two.a.on_deadline()
    assert two.a.paths()[1] == 2 and two.a.state()["again"] > 0
    two.b.recv(two.say(two.a, 2), 2)
    assert two.y.take_all() == [b"one"]
    two.b.recv(late, 0)  # it was only slow
    two.quiet()
    assert two.y.take_all() == [] and two.a.paths() == ([0, 2], 2)
    assert two.a.state()["again"] == two.b.state()["again"] == 0
    two.free()


def test_lost_path_is_made_good_by_the_other_one() -> None:
    two = Two()
    for n in range(5):
        two.x.send(bytes([n]))
    two.say(two.a, 0)
    two.a.path_lost(0)
    assert two.a.paths() == ([2], 2) and two.a.state()["state"] == UP
    two.quiet(2)
    assert two.y.take_all() == [bytes([n]) for n in range(5)]
    two.free()


def test_stripe_keeps_to_the_path_of_control_what_has_to_be_in_order() -> None:
    two = Two(capacity=None)
    two.a.mode(STRIPE)
    two.a.open("new", capacity=1000)
    rendezvous = two.a.open("r", capacity=0)
    assert two.say(two.a, 2) == b""  # prefaces wait for the path that carries control
    assert two.say(two.a, 0)
    del rendezvous
    two.quiet()
    two.x.send(bytes(60_000))
    assert len(two.say(two.a, 2)) > 15_000
    two.free()


class Links:
    """Two.a sends; path 0 and 2 deliver so many bytes a ms, after so many ms each way, in order."""

    def __init__(self, two: Two, rates: dict[int, int], delays: dict[int, int]) -> None:
        self.two, self.rates, self.delays = two, rates, delays
        self.queues: dict[int, bytes] = dict.fromkeys(rates, b"")
        self.there: dict[int, list[tuple[int, bytes]]] = {path: [] for path in rates}
        self.back: dict[int, list[tuple[int, bytes]]] = {path: [] for path in rates}
        self.carried = dict.fromkeys(rates, 0)
        self.ms = 0

    def tick(self) -> None:
        """One ms passes."""
        two = self.two
        self.ms += 1
        for side in (two.a, two.b):
            side.now += MS
            if side.now >= side.deadline():
                side.on_deadline()
        for path, delay in self.delays.items():
            self.queues[path] += two.say(two.a, path)
            passes, self.queues[path] = self.queues[path][: self.rates[path]], self.queues[path][self.rates[path] :]
            self.carried[path] += len(passes)
            if passes:
                self.there[path].append((self.ms + delay, passes))
            while self.there[path] and self.there[path][0][0] <= self.ms:
                two.b.recv(self.there[path].pop(0)[1], path)
            answer = two.say(two.b, path)
            if answer:
                self.back[path].append((self.ms + delay, answer))
            while self.back[path] and self.back[path][0][0] <= self.ms:
                two.a.recv(self.back[path].pop(0)[1], path)
        two.y.take_all()


def striped(rates: dict[int, int], delays: dict[int, int], ms: int) -> Links:
    """The paths are kept busy for so many ms."""
    two = Two(capacity=100_000, way=100)
    two.a.mode(STRIPE)
    links = Links(two, rates, delays)
    for _ in range(ms):
        while two.x.send(bytes(1000)) == OK:
            pass
        links.tick()
    return links


def test_stripe_fills_unequal_paths_and_finds_out_what_they_deliver() -> None:
    rates, delays = {0: 3000, 2: 1500}, {0: 5, 2: 40}
    links = striped(rates, delays, 1500)
    before = dict(links.carried)
    for _ in range(500):
        while links.two.x.send(bytes(1000)) == OK:
            pass
        links.tick()
    for path, rate in rates.items():
        assert links.carried[path] - before[path] >= 0.97 * 500 * rate
        found, shortest, flying = links.two.a.measured(path)
        assert 0.9 * rate <= found / 1000 <= 1.3 * rate
        assert 2 * delays[path] * MS <= shortest <= (2 * delays[path] + 15) * MS
        assert flying <= 65_536 + 2 * found * shortest // S  # no more than one queue of its own
    links.two.free()


def test_new_path_gets_no_more_at_first_than_shows_what_it_delivers() -> None:
    links = striped({0: 3000, 2: 1500}, {0: 5, 2: 40}, 500)
    two = links.two
    while two.x.send(bytes(1000)) == OK:
        pass
    two.add(4)
    assert 100_000 < len(two.say(two.a, 4)) < 131_072 + 17_000
    two.free()


def test_what_a_faster_path_brings_earlier_does_not_go_on_a_slow_one() -> None:
    links = striped({0: 3000, 2: 1500}, {0: 5, 2: 80}, 500)
    two = links.two
    for _ in range(400):
        links.tick()
    before = dict(links.carried)
    for _ in range(20):  # more than path 0 may have in flight; all is there after 50 ms, by path 2 the rest after 80
        for _ in range(160):
            assert two.x.send(bytes(1000)) == OK
        for _ in range(100):
            links.tick()
    assert links.carried[0] - before[0] > 20 * 160_000
    assert links.carried[2] - before[2] < 3000  # acknowledgements and PING
    two.free()


def test_slow_path_that_was_not_measured_gets_nothing_that_is_sooner_over_there_by_another() -> None:
    two = Two(capacity=100_000, way=200)
    links = Links(two, {0: 3000, 2: 1500}, {0: 5, 2: 100})
    two.a.now += 6 * S
    two.a.on_deadline()  # PING on both: their round trips are known
    for mode in (FAILOVER, STRIPE):
        before = dict(links.carried)
        two.a.mode(mode)
        for _ in range(600):
            while two.x.out()["appended"] - two.x.out()["sent"] < 90_000 and two.x.send(bytes(1000)) == OK:
                pass
            links.tick()
        for _ in range(900):
            links.tick()
        assert links.carried[0] - before[0] > 1_000_000
        assert links.carried[2] - before[2] < 3000
    assert two.a.measured(0)[0] > 0 and two.a.measured(2)[0] == 0
    two.free()


def test_mirror_says_everything_twice_and_it_counts_once() -> None:
    two = Two()
    two.a.mode(MIRROR)
    for n in range(3):
        two.x.send(bytes([n]))
    first, second = two.say(two.a, 0), two.say(two.a, 2)
    assert len(first) == len(second) > 20
    two.b.recv(second, 2)
    assert two.y.take_all() == [bytes([n]) for n in range(3)]
    two.b.recv(first, 0)
    assert two.y.take_all() == []
    two.x.send(b"next")
    two.b.recv(two.say(two.a, 0), 0)
    two.quiet(0)  # acknowledged before its turn came on the other path
    assert two.say(two.a, 2) == b""
    two.free()


def test_mirror_goes_on_where_the_path_of_control_takes_nothing() -> None:
    two = Two()
    assert two.a.pass_control(2) == 0  # not in this mode
    two.a.mode(MIRROR)
    two.x.send(b"1")
    stuck = two.say(two.a, 0)
    assert two.a.pass_control(2) == 0  # it has not got all yet
    copied = two.say(two.a, 2)
    assert two.a.pass_control(2) == 1 and two.a.paths()[1] == 2
    two.x.send(b"2")
    two.b.recv(copied + two.say(two.a, 2), 2)
    assert two.y.take_all() == [b"1", b"2"]
    two.a.path_lost(2)  # it answered for what it had taken over
    two.b.path_lost(2)
    two.b.recv(stuck, 0)
    two.quiet(0)
    assert two.y.take_all() == [] and two.a.state()["again"] == 0
    two.free()


def test_close_is_said_on_every_path_and_the_first_one_counts() -> None:
    two = Two()
    two.a.close(0, b"bye")
    first = two.say(two.a, 0)
    assert two.a.state()["state"] == CLOSING
    second = two.say(two.a, 2)
    assert first and second and two.a.state()["state"] == OVER
    two.b.recv(second, 2)
    assert (two.b.state()["state"], two.b.state()["reason"]) == (OVER, b"bye")
    two.free()


def test_close_does_not_wait_for_a_path_that_cannot_say_it() -> None:
    two = Two()
    two.a.close(0)
    assert two.say(two.a, 2) and two.a.state()["state"] == CLOSING
    two.a.said()  # the other one had its turn, and its carrier took nothing
    assert two.a.state()["state"] == OVER
    two.free()


def test_second_announcement_of_a_mix_and_second_withdrawal_change_nothing() -> None:
    two = Two(capacity=0)
    two.b.ratchet(1, bytes(32)), two.a.ratchet(1, bytes(32))
    two.x.offer(b"v")
    two.b.recv(two.say(two.a, 0), 0)
    two.x.withdraw(0)
    late = two.say(two.a, 0)
    two.a.now += 200 * MS
    two.a.on_deadline()
    again = two.say(two.a, 2)
    two.b.recv(again, 2), two.b.recv(late, 0)
    two.quiet()
    assert two.b.state()["state"] == two.a.state()["state"] == UP
    assert two.a.state()["epoch"] >= 1 and two.x.offer_state(0) == 2
    two.free()


def test_record_for_which_there_is_no_room_costs_the_path_and_counts_as_not_received() -> None:
    """More runs out of order than are kept: what cannot be kept comes again on another path."""
    side, peer = st.Side(1, mine=LEASE, peer=LEASE), st.Peer(0)
    raw = bytes([0, 1]) + b"x" + b"\x01" + bytes(16) + bytes([0, 1, 0, 0])  # a preface, wire.md §6.3
    head = bytes([len(raw)]) + raw
    side.recv(peer.seal(16, st.put("data", 0, False, 0, 0, len(head)) + head))
    assert side.add(2, bytes(32)) == OK
    end = side.open("x")
    side.ready(), peer.open(side.send(path=0))
    run = 0
    while 0 in side.paths()[0]:
        assert run <= 1024  # GAPS_MAX
        before = side.state()["rx"]
        side.recv(peer.seal(16, st.put("data", len(head) + 1 + 3 * run, False, 0, 0, 1) + b"x"), 0)
        run += 1
    assert run == 1025 and before == 1 + 1024
    assert side.join(4, 0) == before  # what the other side hears of that path when it asks
    assert side.state()["state"] == UP and end.in_()["gaps"] == 1024
    side.free()


@pytest.mark.parametrize("which", [0, 2])
def test_silence_of_all_paths_is_told_once_and_ends_with_the_first_that_is_heard(which: int) -> None:
    two = Two()
    two.x.send(b"v")
    two.say(two.a, 0), two.say(two.a, 2)
    two.a.now += 6 * S
    two.a.on_deadline()  # PING on both
    two.say(two.a, 0), two.say(two.a, 2)
    two.a.now += 3 * S
    two.a.on_deadline()
    assert two.a.state()["suspect"]
    two.b.now = two.a.now
    two.b.on_deadline()
    data = two.say(two.b, which)
    assert data
    two.a.recv(data, which)
    assert not two.a.state()["suspect"] and two.a.paths()[1] == which
    two.free()


def test_acknowledged_bytes_behind_a_gap_do_not_vouch_for_the_gap() -> None:
    two = Two(capacity=None)
    two.a.mode(STRIPE)
    value = bytes(range(256)) * 200
    two.x.send(value)
    assert two.a.send(17_000, 0)  # its first bytes are lost with their path
    two.b.recv(two.say(two.a, 2), 2)
    for side in (two.b, two.a):
        side.now += 30 * MS
    two.a.recv(two.say(two.b, 2), 2)  # what came is acknowledged
    assert two.x.out()["acked"] < 1000
    two.a.path_lost(0)
    two.quiet(2)
    assert two.y.take_all() == [value]
    two.free()


def test_bytes_of_an_aborted_stream_that_come_late_harm_nobody() -> None:
    two = Two(capacity=None)
    other = [side.open("other", capacity=8) for side in (two.a, two.b)]
    two.quiet()
    two.x.send(bytes(50_000))
    late = two.a.send(17_000, 0)
    two.x.abort(7)
    two.a.now += 200 * MS
    two.a.on_deadline()
    two.b.recv(two.say(two.a, 2), 2)
    assert late
    two.b.recv(late, 0)
    two.quiet()
    assert two.b.state()["state"] == two.a.state()["state"] == UP
    other[0].send(b"on")
    two.quiet()
    assert other[1].take_all() == [b"on"]
    two.free()


def test_withdrawal_that_comes_twice_is_answered_once() -> None:
    two = Two(capacity=0)
    two.x.offer(b"v")
    two.b.recv(two.say(two.a, 0), 0)
    two.x.withdraw(0)
    asked = two.say(two.a, 0)
    two.a.now += 200 * MS
    two.a.on_deadline()
    again = two.say(two.a, 2)
    two.b.recv(asked, 0)
    answered = len(two.say(two.b, 0))
    two.b.recv(again, 2)
    assert answered > 20 and len(two.say(two.b, 0)) == 0
    two.free()


def test_figure_that_the_other_side_has_forgotten_costs_copies_and_not_the_session() -> None:
    two = Two()
    two.x.send(b"1")
    two.quiet()
    two.x.send(b"2")
    for path in (2, 0):
        two.say(two.a, path)
        two.a.path_lost(path)
        two.b.path_lost(path)
    assert two.a.state()["acked"] > 0 == two.b.join(4, 40)  # of a path that it does not know
    assert two.b.resume(4, 0, two.a.state()["rx"], bytes(32)) == OK
    assert two.a.resume(4, 0, 0, bytes(32)) == OK
    two.quiet()
    assert two.y.take_all() == [b"1", b"2"]
    two.free()


def test_path_on_which_a_side_only_acknowledges_is_never_mute() -> None:
    """Stripe, one way: beside the path of control the receiver says nothing but ACK, which nobody acknowledges."""
    two = Two(capacity=100)
    most = 0
    for _ in range(1000):  # as many records as are acknowledged one by one
        two.a.now += MS
        two.b.now += MS
        for side in (two.a, two.b):
            if side.deadline() <= side.now:
                side.on_deadline()
        two.b.recv(two.say(two.a, 2), 2)
        answer = two.say(two.b, 2)
        if answer:
            two.a.recv(answer, 2)
        two.a.path_ping(2)
        two.b.now += 30 * MS
        two.a.now += 30 * MS
        most = max(most, two.b.unacked(2))
    assert 100 < most <= 300
    two.free()


def test_stream_path_on_which_nothing_is_acknowledged_makes_nobody_busy() -> None:
    """A peer that only asks: the list of what was sent is full, and no deadline stays in the past."""
    side, peer = st.Side(1, mine=LEASE), st.Peer(0)
    for _ in range(66_000):
        side.now += 25 * MS
        side.recv(peer.seal(0, b"\x01"))
        side.now += 25 * MS
        if side.deadline() <= side.now:
            side.on_deadline()
        side.send()
    assert side.unacked(0) > 65_000
    for _ in range(10):
        if side.deadline() <= side.now:
            side.on_deadline()
        side.send()
    assert side.deadline() > side.now
    side.free()
