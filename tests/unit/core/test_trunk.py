"""Small DATA of several streams in records of the trunk (docs/spec/wire.md §6.4)."""

import random
from typing import Any

import pytest

from netchan._core import _selftest_session as st
from tests.property.core_net import MS
from tests.unit.core.stalls import RTT, session
from tests.unit.core.streams import vint

OK = st.RC["OK"]
PROTOCOL, UP, CLOSING = 4, 0, 1
DROP_OLD = 3
TRUNK, STREAM = 1, 16
SHARE = 1024
S = 1_000_000_000


def several(
    n: int, mine: bool = True, theirs: bool = True, params: Any = None
) -> tuple[st.Pair, list[st.End], list[st.End]]:
    """A pair with n channels open on both sides."""
    p = st.Pair(mine=params, peer=params)
    ours = [p.a.open(f"c{i}", trunk=mine) for i in range(n)]
    other = [p.b.open(f"c{i}", trunk=theirs) for i in range(n)]
    p.run()
    p.a.ready(), p.b.ready()
    assert all(e.paired for e in (*ours, *other))
    return p, ours, other


def records(p: st.Pair, send: Any) -> tuple[int, int]:
    """Records that ``send`` costs the first side: of all kinds, of the trunk."""
    before = p.a.state()
    send()
    p.run()
    after = p.a.state()
    return after["records_sent"] - before["records_sent"], after["trunk_records"] - before["trunk_records"]


class TestSending:
    def test_values_of_many_channels_share_a_record(self) -> None:
        p, ours, other = several(50)

        def send() -> None:
            for i, e in enumerate(ours):
                assert e.send(b"value %d" % i) == OK

        sent, of_trunk = records(p, send)
        assert of_trunk == 1 and sent <= 3
        assert [e.take_all() for e in other] == [[b"value %d" % i] for i in range(50)]

    @pytest.mark.parametrize(("mine", "theirs"), [(False, True), (True, False), (False, False)])
    def test_both_sides_must_want_it(self, mine: bool, theirs: bool) -> None:
        p, ours, other = several(5, mine, theirs)
        _, of_trunk = records(p, lambda: [e.send(b"v") for e in ours])
        assert of_trunk == 0 and [e.take_all() for e in other] == [[b"v"]] * 5

    def test_session_that_does_not_know_the_trunk_does_without(self) -> None:
        p, ours, other = several(5, params={"trunk": False})
        _, of_trunk = records(p, lambda: [e.send(b"v") for e in ours])
        assert of_trunk == 0 and [e.take_all() for e in other] == [[b"v"]] * 5

    def test_what_is_longer_has_a_record_of_its_own(self) -> None:
        p, ours, other = several(2)
        long = bytes(SHARE)
        _, of_trunk = records(p, lambda: ours[0].send(long))
        assert of_trunk == 0 and other[0].take_all() == [long]
        short = bytes(SHARE - 2)  # with the head of the message 1 024
        _, of_trunk = records(p, lambda: ours[1].send(short))
        assert of_trunk == 1 and other[1].take_all() == [short]

    def test_stream_that_may_lose_values_does_not_ride(self) -> None:
        p = st.Pair()
        a, b = p.a.open("x", trunk=True, overflow=DROP_OLD), p.b.open("x", trunk=True)
        p.run()
        _, of_trunk = records(p, lambda: a.send(b"v"))
        assert of_trunk == 0 and b.take_all() == [b"v"]

    def test_end_of_a_stream_rides_too(self) -> None:
        p, ours, other = several(20)

        def send() -> None:
            for e in ours:
                assert e.send(b"last") == OK
                e.close()

        _, of_trunk = records(p, send)
        assert of_trunk == 1
        for e in other:
            assert e.take_all() == [b"last"] and e.state()[1] == 1
            e.close()
        p.run()
        p.a.ready(), p.b.ready()
        assert all(e.forgotten() for e in (*ours, *other))

    def test_what_was_acknowledged_is_released_and_forgotten(self) -> None:
        p, ours, other = several(30)
        for turn in range(200):
            for e in ours:
                assert e.send(b"%d" % turn) == OK
            p.run()
            for e in other:
                assert e.take_all() == [b"%d" % turn]
        p.sleep(S)
        p.run()
        assert p.a.state()["trunk_waits"] == 0
        assert all(e.out()["acked"] == e.out()["appended"] for e in ours)

    def test_acknowledgement_of_one_record_is_for_what_it_held(self) -> None:
        p, ours, _ = several(3)
        for e in ours:
            assert e.send(b"first") == OK
        p.collect()
        of_first = len(p.ab)
        ends = [e.out()["appended"] for e in ours]
        for e in ours:
            assert e.send(b"second") == OK
        p.collect()
        p.deliver(of_first, 0)
        p.b.now += S  # an ACK is due
        p.b.on_deadline()
        p.collect(0)
        p.ba += p.b.send()
        p.deliver(0)
        assert [e.out()["acked"] for e in ours] == ends and p.a.state()["trunk_waits"] == 3

    @pytest.mark.parametrize("max_record", [1024, 1200, 65535])
    def test_records_are_no_longer_than_the_other_side_takes(self, max_record: int) -> None:
        p, ours, other = several(40, params={"max_record": max_record})
        for e in ours:
            assert e.send(bytes(1000)) == OK
        p.collect()
        while p.ab:
            size = 2 + int.from_bytes(p.ab[:2], "big")
            assert size <= max_record
            p.deliver(size, 0)
        p.run()
        assert [e.take_all() for e in other] == [[bytes(1000)]] * 40


class TestReceiving:
    def two(self, flags: int = 2, trunk: bool = True) -> tuple[st.Side, st.Peer, st.End, int]:
        """A side with an end that is paired with stream 16 of a peer in our hands, and the length of its preface."""
        side, peer = st.Side(1), st.Peer(0)
        end = side.open("x", trunk=trunk)
        body = b"\0\1x" + vint(1) + bytes(16) + vint(0) + bytes([1, flags, 0])
        preface = vint(len(body)) + body
        side.recv(peer.seal(STREAM, b"\x20" + vint(0) + preface))
        side.send()
        assert end.paired
        return side, peer, end, len(preface)

    def test_data_in_a_record_of_the_trunk_is_that_of_its_stream(self) -> None:
        side, peer, end, at = self.two()
        side.recv(peer.seal(TRUNK, b"\x34" + vint(STREAM) + vint(at) + vint(2) + b"\2v"))
        assert end.take_all() == [b"v"] and side.state()["state"] == UP

    @pytest.mark.parametrize(("flags", "trunk"), [(0, True), (2, False)])
    def test_stream_that_one_side_did_not_want_there_is_refused(self, flags: int, trunk: bool) -> None:
        side, peer, _, at = self.two(flags, trunk)
        side.recv(peer.seal(TRUNK, b"\x34" + vint(STREAM) + vint(at) + vint(2) + b"\2v"))
        assert side.state()["state"] == CLOSING and side.state()["code"] == PROTOCOL

    @pytest.mark.parametrize("stream", [17, 18, 20, 1 << 40], ids=["ours", "the next", "later", "never"])
    def test_stream_that_is_not_open_is_refused(self, stream: int) -> None:
        side, peer, _, _ = self.two()
        side.recv(peer.seal(TRUNK, b"\x34" + vint(stream) + vint(0) + vint(2) + b"\2v"))
        assert side.state()["state"] == CLOSING and side.state()["code"] == PROTOCOL

    def test_stream_that_was_offered_and_not_opened_is_refused(self) -> None:
        side, peer = st.Side(1), st.Peer(0)
        body = b"\0\1x" + vint(1) + bytes(16) + vint(0) + bytes([1, 2, 0])
        side.recv(peer.seal(STREAM, b"\x20" + vint(0) + vint(len(body)) + body))
        at = 1 + len(body)
        side.recv(peer.seal(TRUNK, b"\x34" + vint(STREAM) + vint(at) + vint(2) + b"\2v"))
        assert side.state()["state"] == CLOSING and side.state()["code"] == PROTOCOL

    def test_stream_that_is_forgotten_here_is_passed_over(self) -> None:
        side, peer, end, at = self.two()
        end.abort(0x40000001)
        side.send()
        side.recv(peer.seal(0, b"\x07" + vint(STREAM) + b"\2" + vint(0x40000001) + vint(at) + vint(0)))
        side.send()
        side.ready()
        assert end.forgotten()
        side.recv(peer.seal(TRUNK, b"\x34" + vint(STREAM) + vint(at) + vint(2) + b"\2v"))
        assert side.state()["state"] == UP and side.state()["dropped_bytes"] == 2

    def test_data_of_a_trunk_record_obeys_credit(self) -> None:
        side, peer, _, at = self.two()
        side.recv(peer.seal(TRUNK, b"\x34" + vint(STREAM) + vint(at + 5_000_000) + vint(2) + b"\2v"))
        assert side.state()["state"] == CLOSING and side.state()["code"] != PROTOCOL


@pytest.mark.parametrize("seed", range(60))
def test_values_of_all_sizes_in_all_orders_arrive_once_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([2, 7, 40])
    p = st.Pair(peer={"max_record": rng.choice([1024, 4096, 65535])})
    ours, other = [], []
    for i in range(count):
        trunk, capacity = rng.random() < 0.8, rng.choice([None, 1, 8])
        ours.append(p.a.open(f"c{i}", trunk=trunk, capacity=capacity))
        other.append(p.b.open(f"c{i}", trunk=trunk or rng.random() < 0.5))
    sent: list[list[bytes]] = [[] for _ in range(count)]
    got: list[list[bytes]] = [[] for _ in range(count)]
    for step in range(300):
        i = rng.randrange(count)
        if rng.random() < 0.8:
            value = b"%d/%d " % (i, step) + bytes(rng.choice([0, 0, 10, 500, 1000, 1030, 3000]))
            if ours[i].send(value) == OK:
                sent[i].append(value)
        if rng.random() < 0.4:
            p.collect(rng.choice([17_000, 65536]))
            p.deliver(rng.choice([0, 30, 1000, 1 << 20]), rng.choice([0, 30, 1 << 20]))
        if rng.random() < 0.3:
            j = rng.randrange(count)
            got[j] += other[j].take_all()
    for e in ours:
        e.close()
    for _ in range(50):
        p.run()
        for j in range(count):
            got[j] += other[j].take_all()
    assert got == sent
    assert all(e.state()[1] == 1 for e in other) and p.a.state()["state"] == p.b.state()["state"] == UP


def test_record_that_only_acknowledges_asks_for_no_answer() -> None:
    net, _, _ = session(False, (RTT, RTT), 1)
    x, y = (side.open("t", capacity=10, trunk=True) for side in net.sides)
    x.send(b"v")
    net.run(net.now + 15 * MS)
    before = [side.state()["trunk_records"] for side in net.sides]
    net.run(net.now + 400 * MS)
    assert [side.state()["trunk_records"] for side in net.sides] > before  # each was given a turn with nothing to say
    assert [side.paths()[1] for side in net.sides] == [0, 0]  # nobody has waited for what does not come
    assert y.take() == b"v"
    net.pair.free()
