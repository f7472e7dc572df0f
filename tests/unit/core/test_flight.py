"""What a datagram path has on its way: acknowledgements, loss, probes (docs/spec/session.md §5.5, RFC 9002)."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.datagrams import (
    BINDING,
    MS,
    NEVER,
    OK,
    PATH,
    PEER_DELAY,
    PING,
    Ends,
    S,
    ack,
    opened,
    pair_on_datagrams,
    settle,
)
from tests.unit.core.test_record import PROTOCOL, data, msg, vint

MTU = 1200
Said = list[tuple[int, int, bytes]]


def quiet_ends(rtt: int = 40 * MS) -> Ends:
    """A path whose round trip is known, and with nothing on its way."""
    ends = Ends()
    first = ends.hear()
    ends.sleep(rtt)
    for number, _, _ in first:
        ends.say(ack(PATH, number))
    assert ends.flying["srtt"] == rtt and not ends.flying["eliciting"]
    return ends


def bulk(ends: Ends, end: st.End, size: int) -> Said:
    """So many bytes are to be sent; what leaves at once."""
    assert end.send(bytes(size)) == OK
    return ends.hear()


def known(rtt: int = 40 * MS, **given: int) -> tuple[Ends, st.End]:
    """An open channel over a path whose round trip is known and whose pace is not behind."""
    ends, end = opened(**given)
    for _ in range(40):  # samples of `rtt` alone
        assert end.send(b"v") == OK
        said = ends.hear()
        ends.sleep(rtt)
        for number, _, _ in said:
            ends.say(ack(PATH, number))
        ends.hear()
    ends.sleep(S)
    assert abs(ends.flying["srtt"] - rtt) < rtt // 20
    return ends, end


def ask(ends: Ends) -> int:
    """The side sends one PING, and nothing else; its number."""
    before = ends.flying["tx"]
    ends.at(ends.side.deadline() - ends.side.now - 1)
    ends.sleep(1)
    ends.side.on_deadline()
    said = ends.hear()
    assert said and said[-1][2][:1] == PING, said
    assert ends.flying["tx"] > before
    return said[-1][0]


class TestAcknowledgements:
    def test_of_a_number_that_was_never_sent_is_refused(self) -> None:
        ends = Ends()
        sent = len(ends.hear())
        ends.say(ack(PATH, sent))
        assert ends.verdict() == PROTOCOL

    def test_of_all_that_was_sent_is_taken(self) -> None:
        ends = Ends()
        (number, _, frames), *rest = ends.hear()
        assert (number, frames[:1], rest) == (0, PING, [])
        ends.say(ack(PATH, 0))
        assert ends.verdict() is None
        assert ends.flying["eliciting"] == ends.flying["in_flight"] == 0

    @pytest.mark.parametrize("all_below", [False, True])
    def test_of_a_number_that_was_left_out_is_a_lie(self, all_below: bool) -> None:
        """Who acknowledges what it has not received finds out about it so (RFC 9000 §21.4)."""
        ends, end = opened()
        left_out = ends.flying["skip_at"]
        said: list[int] = []
        while not said or said[-1] < left_out:
            assert end.send(b"v") == OK
            said += [number for number, _, _ in ends.hear()]
            if said[-1] < left_out - 2:
                ends.say(ack(PATH, said[-1]))
            ends.sleep(5 * MS)
        assert left_out not in said and said[-1] == left_out + 1
        ends.say(ack(PATH, left_out + 1, 0, (0, 0)))  # around it
        assert ends.verdict() is None and ends.flying["acked"] <= left_out - 1
        ends.say(ack(PATH, left_out + 1, 2) if all_below else ack(PATH, left_out))
        assert ends.verdict() == PROTOCOL

    @pytest.mark.parametrize(
        "runs",
        [
            ack(PATH, 0, 1),  # one below 0
            ack(PATH, 5, 2, (2, 0)),  # the gap does
            ack(PATH, 5, 2, (0, 2)),  # the run does
            ack(PATH, 5, 2, (0, 0), (0, 0)),
            ack(PATH, 5, 0, (2**62 - 1, 0)),
            ack(PATH, 5, 0, (0, 2**62 - 1)),
            ack(PATH, 5, 2**62 - 1),
            ack(PATH, 2**62 - 1, 2**62 - 1),
        ],
    )
    def test_of_runs_below_zero_or_beyond_all_is_refused(self, runs: bytes) -> None:
        ends, end = opened()
        bulk(ends, end, 20_000)
        ends.say(runs)
        assert ends.verdict() == PROTOCOL

    def test_runs_are_read_as_the_rfc_lays_them_out(self) -> None:
        ends, end = opened()
        said = bulk(ends, end, 9000)
        asked = [number for number, _, frames in said if frames[:1] != b"\x02"]
        last = asked[-1]
        assert last - asked[0] >= 6
        before = ends.flying["eliciting"]
        # The last, one missing, two there, one missing, one there: three are further back than two numbers.
        ends.say(ack(PATH, last, 0, (0, 1), (0, 0)))
        now = ends.flying
        assert now["lost"] == sum(number < last - 5 for number in asked) + 1
        assert before - now["eliciting"] - now["lost"] == 4

    def test_of_another_path_is_for_that_one_alone(self) -> None:
        ends = Ends(others=(4,))
        ends.hear()
        other = ends.side.flying(4)
        ends.hear(4)
        ends.say(ack(4, 0))
        assert ends.flying["eliciting"] == 1 and ends.side.flying(4)["eliciting"] == 0
        assert other["tx"] == 0
        ends.say(ack(6, 12345))  # of one that is no more: passed over
        assert ends.verdict() is None

    def test_twice_changes_nothing(self) -> None:
        ends, end = opened()
        said = bulk(ends, end, 5000)
        frame = ack(PATH, said[-1][0], said[-1][0])
        ends.say(frame)
        before = {name: n for name, n in ends.flying.items() if name not in ("rx", "ack_at", "got_ranges")}
        for _ in range(5):
            ends.say(frame)
        assert before == {name: n for name, n in ends.flying.items() if name in before}

    def test_more_runs_than_are_kept_do_no_harm(self) -> None:
        """Every second datagram of thousands is acknowledged, in bursts of 64 runs, then all."""
        ends, end = opened()
        numbers: list[int] = []
        for _ in range(400):
            assert end.send(bytes(4000)) == OK
            said = [number for number, _, _ in ends.hear()]
            numbers += said
            ends.sleep(1 * MS)
            for number in said[::2]:
                ends.say(ack(PATH, number))
        assert ends.verdict() is None
        settle(ends)
        assert ends.flying["in_flight"] == 0

    def test_a_path_that_only_acknowledges_asks_for_one_now_and_then(self) -> None:
        """The list of what was sent would be full of datagrams that nobody acknowledges, and the path mute."""
        ends = quiet_ends()
        for _ in range(150_000):
            ends.sleep(MS // 10)
            if ends.side.deadline() <= ends.side.now:
                ends.side.on_deadline()
            ends.side.recv_datagram(ends.peer.quick_datagram(PATH, 0, PING), PATH)
            while data_ := ends.side.send_datagram(PATH):
                number, _, [(_, frames)] = ends.peer.open_datagram(PATH, data_)
                if PING in (frames[:1], frames.rstrip(b"\0")[-1:]):  # an honest peer acknowledges it
                    ends.say(ack(PATH, number, number if number < 60 else 0))
        assert ends.side.deadline() > ends.side.now
        assert ends.flying["tx"] - ends.flying["acked"] < 1000 and ends.flying["sent_cap"] <= 4096
        assert ends.verdict() is None

    def test_a_peer_that_acknowledges_nothing_does_not_make_us_busy(self) -> None:
        """The list of what was sent is full: no deadline stays in the past, and memory ends somewhere."""
        ends = Ends()
        ends.hear()
        for _ in range(140_000):
            ends.sleep(MS // 10)
            if ends.side.deadline() <= ends.side.now:
                ends.side.on_deadline()
            ends.side.recv_datagram(ends.peer.quick_datagram(PATH, 0, PING), PATH)
            while ends.side.send_datagram(PATH):
                pass
        ends.at(3 * S)
        assert ends.side.deadline() > ends.side.now

    def test_both_sides_fall_silent(self) -> None:
        """An acknowledgement is not acknowledged: no two idle sides talk for ever."""
        params = {"datagrams": True, "lease_ns": 1000 * S, "max_paths": 4, "heartbeat_ns": 1000 * S}
        pair = st.Pair(mine=params, peer=params)
        for side in (pair.b, pair.a):
            assert side.add(PATH, BINDING, MTU) == OK
        for side in (pair.a, pair.b):
            side.path_lost(0)
        x, y = (side.open("x") for side in (pair.a, pair.b))
        said = 0
        for step in range(2000):
            for here, there in ((pair.a, pair.b), (pair.b, pair.a)):
                here.now += MS
                if here.deadline() <= here.now:
                    here.on_deadline()
                while data_ := here.send_datagram(PATH):
                    assert step < 500, "still talking"
                    said += 1
                    there.recv_datagram(data_, PATH)
        assert 4 <= said < 40
        assert x.paired and y.paired
        pair.free()

    def test_what_is_received_out_of_order_is_acknowledged_at_once(self) -> None:
        ends = quiet_ends()
        seal = ends.peer.seal_datagram
        ends.sleep(S)
        ends.hear()
        start = ends.peer.number(PATH)
        sealed = [seal(PATH, [(0, PING)], number=start + i) for i in range(3)]
        ends.side.recv_datagram(sealed[0], PATH)
        assert ends.hear() == [] and ends.flying["ack_at"] == ends.side.now + PEER_DELAY
        ends.side.recv_datagram(sealed[2], PATH)
        [(_, _, frames)] = ends.hear()
        found = st.parse(frames, 0)[0][0]
        assert (found["b"], found["d"]) == (start + 2, 0) and st.ranges(found["data"])[0] == (0, start)
        ends.side.recv_datagram(sealed[1], PATH)
        [(_, _, frames)] = ends.hear()
        found = st.parse(frames, 0)[0][0]
        assert (found["b"], found["d"], found["n"]) == (start + 2, start + 2, 0)

    def test_every_second_datagram_is_acknowledged_else_after_a_while(self) -> None:
        ends = quiet_ends()
        ends.say(PING)
        ends.hear()
        ends.at(S // 10)
        ends.say(PING)
        assert ends.hear() == []
        ends.say(PING)
        assert len(ends.hear()) == 1
        ends.say(PING)
        ends.sleep(PEER_DELAY)
        assert len(ends.hear()) == 1

    def test_what_asks_for_no_answer_gets_none(self) -> None:
        ends = quiet_ends()
        ends.at(S // 10)
        for _ in range(50):
            ends.say(ack(PATH, 0))
        ends.at(S // 10)
        assert ends.flying["ack_at"] == NEVER and ends.hear() == []

    def test_ranges_received_are_bounded(self) -> None:
        ends = quiet_ends()
        start = ends.peer.number(PATH)
        sealed = [ends.peer.seal_datagram(PATH, [(0, PING)], number=start + 20 * i, size=4) for i in range(300)]
        for datagram in sealed[100:]:
            assert ends.side.recv_datagram(datagram, PATH) == OK
        assert ends.flying["got_ranges"] == 64
        [(_, _, frames)] = ends.hear()
        found = st.parse(frames, 0)[0][0]
        assert found["n"] == 31 and len(frames) < 200
        # behind all that is kept: received, not said, and nothing breaks
        for datagram in sealed[:100]:
            assert ends.side.recv_datagram(datagram, PATH) == OK
        assert ends.flying["got_ranges"] == 64 and ends.verdict() is None


class TestRoundTrip:
    def test_first_sample(self) -> None:
        ends = Ends()
        ends.hear()
        ends.sleep(80 * MS)
        ends.say(ack(PATH, 0, delay_us=20_000))  # the first one is not adjusted (RFC 9002 §5.3)
        found = ends.flying
        assert (found["srtt"], found["rttvar"], found["min_rtt"]) == (80 * MS, 40 * MS, 80 * MS)

    @pytest.mark.parametrize(
        ("took", "said_us", "counts"),
        [
            (60, 0, 60),
            (60, 10_000, 50),
            (60, 25_000, 60),  # would be below the shortest
            (80, 25_000, 55),
            (80, 60_000, 55),  # more than it agreed to is not believed
            (80, 16_777_215, 55),
            (80, 2**62 - 1, 80),
            (45, 25_000, 45),  # would be below the shortest
            (30, 0, 30),
        ],
    )
    def test_delay_is_taken_off_as_far_as_it_is_believed(self, took: int, said_us: int, counts: int) -> None:
        ends = quiet_ends(40 * MS)
        before = ends.flying
        number = ask(ends)
        ends.sleep(took * MS)
        ends.say(ack(PATH, number, delay_us=said_us))
        now = ends.flying
        assert now["latest_rtt"] == took * MS
        assert now["srtt"] == (7 * before["srtt"] + counts * MS) // 8
        assert now["rttvar"] == (3 * before["rttvar"] + abs(before["srtt"] - counts * MS)) // 4
        assert now["min_rtt"] == min(40, took) * MS

    def test_no_sample_from_what_is_not_the_largest(self) -> None:
        ends, end = known()
        said = bulk(ends, end, 3000)
        ends.sleep(40 * MS)
        ends.say(ack(PATH, said[-1][0]))
        before = ends.flying["srtt"]
        ends.sleep(400 * MS)
        ends.say(ack(PATH, said[0][0]))
        assert ends.flying["srtt"] == before

    def test_no_sample_from_what_asks_for_no_answer(self) -> None:
        ends = quiet_ends()
        ends.say(PING)
        ends.say(PING)
        [(number, _, _)] = ends.hear()
        before = ends.flying["srtt"]
        ends.sleep(300 * MS)
        ends.say(ack(PATH, number))
        assert ends.flying["srtt"] == before

    def test_a_path_without_any_delay_has_a_round_trip_all_the_same(self) -> None:
        """0 would mean that it was never measured, and a probe would wait for a second."""
        ends, end = opened()
        for _ in range(50):
            assert end.send(b"v") == OK
            for number, _, _ in ends.hear():
                ends.say(ack(PATH, number))
        assert ends.flying["srtt"] >= 1


class TestLoss:
    def test_three_numbers_behind_is_lost(self) -> None:
        ends, end = known()
        said = [number for number, _, _ in bulk(ends, end, 8000)]
        assert len(said) >= 6
        ends.sleep(40 * MS)
        ends.say(ack(PATH, said[2], 1))  # said[0] is two numbers behind
        assert ends.flying["lost"] == 0
        ends.say(ack(PATH, said[3], 2))
        assert ends.flying["lost"] == 1

    def test_what_is_late_by_time_is_lost(self) -> None:
        ends, end = known()
        said = [number for number, _, _ in bulk(ends, end, 2500)]
        ends.sleep(40 * MS)
        ends.say(ack(PATH, said[1]))
        found = ends.flying
        longest = max(found["srtt"], found["latest_rtt"])
        assert found["lost"] == 0
        assert found["loss_at"] == ends.side.now - 40 * MS + longest * 9 // 8
        assert ends.side.deadline() <= found["loss_at"]
        ends.sleep(found["loss_at"] - ends.side.now - 1)
        ends.side.on_deadline()
        assert ends.flying["lost"] == 0
        ends.sleep(1)
        ends.side.on_deadline()
        assert ends.flying["lost"] == 1 and ends.flying["loss_at"] == NEVER

    def test_it_comes_again_with_the_same_frames(self) -> None:
        ends, end = known()
        body = bytes(range(250)) * 20
        assert end.send(body) == OK
        said = ends.hear()
        ends.sleep(40 * MS)
        for number, _, _ in said[1:]:
            ends.say(ack(PATH, number))
        again = ends.hear()
        ends.at(200 * MS)
        assert ends.flying["lost"] >= 1
        told = {frames.lstrip(b"\0").rstrip(b"\0") for _, _, frames in again}
        assert said[0][2].lstrip(b"\0").rstrip(b"\0") in told

    def test_numbers_are_never_used_again(self) -> None:
        ends, end = known()
        numbers: list[int] = []
        for _ in range(20):
            numbers += [number for number, _, _ in bulk(ends, end, 5000)]
            ends.sleep(41 * MS)
            ends.say(ack(PATH, numbers[-1]))
            numbers += [number for number, _, _ in ends.hear()]
        assert numbers == sorted(set(numbers))

    def test_a_loss_that_was_none_gives_the_window_back(self) -> None:
        ends, end = known()
        said = [number for number, _, _ in bulk(ends, end, 12_000)]
        before = ends.flying["cwnd"]
        ends.sleep(40 * MS)
        ends.say(ack(PATH, said[4]))
        found = ends.flying
        assert found["lost"] == 2 and found["cwnd"] < before and found["losses"] == 2
        ends.say(ack(PATH, said[0]))
        assert ends.flying["found"] == 1 and ends.flying["cwnd"] < before
        ends.say(ack(PATH, said[1]))
        found = ends.flying
        assert found["found"] == 2 and found["cwnd"] >= before and found["ssthresh"] > before
        assert found["reordered"] > 3

    def test_one_that_was_lost_indeed_keeps_the_window_small(self) -> None:
        ends, end = known()
        said = [number for number, _, _ in bulk(ends, end, 12_000)]
        before = ends.flying["cwnd"]
        ends.sleep(40 * MS)
        ends.say(ack(PATH, said[4]))
        ends.say(ack(PATH, said[0]))
        ends.sleep(40 * MS)
        assert ends.flying["losses"] == 1 and ends.flying["cwnd"] < before

    def test_what_asks_for_no_answer_does_not_undo_a_loss(self) -> None:
        """An acknowledgement that was lost and came after all is not one of the losses of the window."""
        ends, end = known()
        ends.say(PING)
        ends.say(PING)
        [(bare, _, frames)] = ends.hear()
        assert frames[:1] == b"\x02"
        said = [number for number, _, _ in bulk(ends, end, 12_000)]
        ends.sleep(40 * MS)
        ends.say(ack(PATH, said[4], 3))  # said[0] and the acknowledgement before it are lost
        found = ends.flying
        assert found["lost"] == found["losses"] == 1
        ends.say(ack(PATH, bare))
        assert ends.flying["losses"] == 1 and ends.flying["cwnd"] == found["cwnd"]

    def test_the_threshold_grows_to_64_at_most(self) -> None:
        ends, end = known()
        for _ in range(200):
            said = [number for number, _, _ in bulk(ends, end, 5000)]
            if not said:
                break
            ends.sleep(10 * MS)
            ends.say(ack(PATH, said[-1]))
            for number in said[:-1]:
                ends.say(ack(PATH, number))
            ends.sleep(30 * MS)
        assert 3 < ends.flying["reordered"] <= 64
        assert ends.verdict() is None

    def test_persistent_congestion_makes_the_window_the_smallest(self) -> None:
        """RFC 9002 §7.6: two losses further apart than three probe timeouts, and nothing between them arrived."""
        ends, end = known()
        first = bulk(ends, end, 12_000)
        base = ends.flying["srtt"] + max(4 * ends.flying["rttvar"], MS) + PEER_DELAY
        numbers = [number for number, _, _ in first]
        until = ends.side.now + 4 * base
        while ends.side.now < until or ends.flying["pto_count"] < 3:  # nothing arrives
            ends.sleep(ends.side.deadline() - ends.side.now)
            ends.side.on_deadline()
            numbers += [number for number, _, _ in ends.hear()]
        assert ends.verdict() is None
        ends.sleep(40 * MS)
        ends.say(ack(PATH, numbers[-1]))
        ends.at(60 * MS)
        assert ends.flying["lost"] > 3
        assert ends.flying["cwnd"] == 2 * MTU

    def test_an_arrival_between_two_losses_is_no_persistent_congestion(self) -> None:
        ends, end = known()
        first = [number for number, _, _ in bulk(ends, end, 12_000)]
        base = ends.flying["srtt"] + max(4 * ends.flying["rttvar"], MS) + PEER_DELAY
        numbers: list[int] = []
        until = ends.side.now + 4 * base
        while ends.side.now < until:
            ends.sleep(ends.side.deadline() - ends.side.now)
            ends.side.on_deadline()
            numbers += [number for number, _, _ in ends.hear()]
        last, middle = numbers[-1], numbers[0]
        assert last - middle > 2 and middle - first[-1] > 0
        ends.say(ack(PATH, last, 0, (last - middle - 2, 0)))
        ends.at(60 * MS)
        assert ends.flying["lost"] > 3 and ends.flying["cwnd"] > 2 * MTU


class TestProbes:
    def test_timeouts_double_up_to_a_bound(self) -> None:
        ends = quiet_ends(40 * MS)
        ask(ends)
        found = ends.flying
        base = found["srtt"] + max(4 * found["rttvar"], MS) + PEER_DELAY
        last = ends.side.now
        gaps: list[int] = []
        for i in range(9):
            while ends.flying["timeouts"] == i:
                ends.sleep(ends.side.deadline() - ends.side.now)
                ends.side.on_deadline()
                if PATH not in ends.side.paths()[0]:
                    break
                ends.hear()
                ends.say(ack(PATH, 0))  # the peer lives, so the path does
            gaps.append(ends.side.now - last)
            last = ends.side.now
        assert gaps == [min(base << i, 5 * S) for i in range(9)]

    def test_before_anything_was_measured_it_waits_a_second(self) -> None:
        ends = Ends()
        ends.hear()
        start = ends.side.now
        ends.sleep(ends.side.deadline() - start)
        ends.side.on_deadline()
        while not ends.flying["timeouts"]:
            ends.sleep(ends.side.deadline() - ends.side.now)
            ends.side.on_deadline()
            ends.hear()
        assert ends.side.now - start == 999 * MS

    def test_a_probe_says_what_is_oldest_and_pings(self) -> None:
        ends, end = known()
        said = bulk(ends, end, 30_000)
        assert not ends.side.wants_send() or ends.hear() == []
        ends.sleep(ends.side.deadline() - ends.side.now)
        ends.side.on_deadline()
        while not ends.flying["timeouts"]:
            ends.sleep(ends.side.deadline() - ends.side.now)
            ends.side.on_deadline()
        probes = ends.hear()
        assert 2 <= len(probes) <= 3
        first = said[0][2].strip(b"\0")
        assert any(frames.strip(b"\0") == first for _, _, frames in probes)
        assert any(frames[:1] == PING for _, _, frames in probes)

    def test_an_acknowledgement_ends_the_doubling(self) -> None:
        ends = quiet_ends(40 * MS)
        ask(ends)
        ends.at(600 * MS)
        assert ends.flying["pto_count"] >= 2
        ends.say(ack(PATH, ends.flying["tx"] - 1))
        assert ends.flying["pto_count"] == 0

    def test_nothing_in_flight_needs_no_probe(self) -> None:
        ends = quiet_ends()
        timeouts = ends.flying["timeouts"]
        ends.sleep(3 * S)
        ends.side.on_deadline()
        assert ends.flying["timeouts"] == timeouts and ends.hear() == []

    def test_what_waits_to_be_sent_again_does_not_grow_by_probes(self) -> None:
        """The window is closed, the peer lives and acknowledges nothing: each timeout says the oldest again."""
        ends, end = known()
        for _ in range(10):
            bulk(ends, end, 30_000)
        again = []
        for _ in range(400):
            ends.sleep(max(ends.side.deadline() - ends.side.now, 0))
            ends.side.on_deadline()
            ends.say(ack(PATH, 0))
            again.append(ends.side.state()["again_cap"])
            ends.hear()
        assert max(again) <= 64

    def test_a_path_that_carries_only_short_datagrams_does_not_fill_memory(self) -> None:
        """PING comes through and nothing longer: what is lost waits to be sent again, over and over."""
        ends, end = known()
        for _ in range(20):
            assert end.send(bytes(30_000)) == OK
        most = 0
        for _ in range(20_000):
            said = ends.hear()
            short = [number for number, _, frames in said if len(frames) < 300]
            for number in short:
                ends.say(ack(PATH, number))
            if not short and said:
                ends.say(PING)
            ends.sleep(max(ends.side.deadline() - ends.side.now, MS))
            ends.side.on_deadline()
            most = max(most, ends.side.state()["again_cap"])
        assert ends.flying["lost"] > 1000
        assert most <= 64

    def test_long_datagrams_that_never_arrive_become_shorter(self) -> None:
        """The path carries 1200 bytes and no more, although both sides may send longer ones."""
        ends, end = opened(mtu=1452)
        for _ in range(10):
            assert end.send(bytes(20_000)) == OK
        long = 0
        for _ in range(600):
            while datagram := ends.side.send_datagram(PATH):
                if len(datagram) > 1200:
                    long += 1
                    continue
                number, _, _ = ends.peer.open_datagram(PATH, datagram)
                ends.say(ack(PATH, number))
            ends.sleep(max(min(ends.side.deadline() - ends.side.now, 10 * MS), 1))
            ends.side.on_deadline()
        assert 3 <= long < 60
        assert end.out()["acked"] == end.out()["appended"] > 200_000
        assert ends.flying["in_flight"] == 0

    def test_long_datagrams_of_which_some_arrive_stay(self) -> None:
        ends, end = opened(mtu=1452)
        for _ in range(20):
            assert end.send(bytes(20_000)) == OK
        rng = random.Random(1)
        for _ in range(3000):
            while datagram := ends.side.send_datagram(PATH):
                if len(datagram) > 1200 and rng.random() < 0.3:
                    continue
                number, _, _ = ends.peer.open_datagram(PATH, datagram)
                ends.say(ack(PATH, number))
            ends.sleep(max(min(ends.side.deadline() - ends.side.now, 10 * MS), 1))
            ends.side.on_deadline()
        assert end.out()["acked"] == end.out()["appended"]
        assert end.send(bytes(5000)) == OK
        assert max(len(frames) for _, _, frames in ends.hear()) > 1300


class TestWindow:
    def test_it_bounds_what_is_in_flight(self) -> None:
        ends, end = opened()
        for _ in range(20):
            assert end.send(bytes(10_000)) == OK
        ends.hear()
        found = ends.flying
        assert found["cwnd"] - MTU < found["in_flight"] <= found["cwnd"]
        assert found["cwnd"] == 10 * MTU

    def test_it_bounds_it_while_it_grows_and_shrinks(self) -> None:
        ends, end = known()
        flying: list[int] = []
        for turn in range(300):
            assert end.send(bytes(20_000)) == OK
            said = [number for number, _, _ in ends.hear()]
            flying += said
            found = ends.flying
            assert found["in_flight"] <= max(found["cwnd"], 2 * MTU) or found["probes"] or not said
            ends.sleep(10 * MS)
            if flying and turn % 3:
                ends.say(ack(PATH, flying[-1], 0 if turn % 7 == 0 else min(3, flying[-1])))
            if ends.verdict() is not None:
                break  # one of these had been left out
        assert ends.flying["in_flight"] < 1 << 30

    def test_what_asks_for_no_answer_goes_while_it_is_closed(self) -> None:
        ends, end = opened()
        for _ in range(20):
            assert end.send(bytes(10_000)) == OK
        ends.hear()
        before = ends.flying
        for _ in range(3):
            ends.say(PING)
            ends.say(PING)
            [(_, _, frames)] = ends.hear()
            assert frames[:1] == b"\x02"
        assert ends.flying["in_flight"] == before["in_flight"]

    def test_pace_spreads_a_window_over_a_round_trip(self) -> None:
        rtt = 100 * MS
        ends, end = known(rtt)
        for _ in range(60):
            assert end.send(bytes(20_000)) == OK
        start, window = ends.side.now, ends.flying["cwnd"]
        sent: list[int] = []
        seen: list[int] = []
        while ends.side.now < start + rtt // 2:
            said = ends.hear()
            seen += [number for number, _, _ in said]
            sent += [ends.side.now] * len(said)
            if not said and ends.flying["pace_at"] == NEVER:
                break
            at = ends.side.deadline()
            assert at > ends.side.now
            ends.sleep(at - ends.side.now)
            ends.side.on_deadline()
        first = sent.count(start)
        assert first <= 10  # what may leave together
        assert len(sent) * MTU <= window + MTU
        steps = [b - a for a, b in pairwise(sent) if b > a]
        assert all(step >= 250_000 for step in steps)

    def test_nothing_is_in_flight_when_all_was_acknowledged(self) -> None:
        ends, end = opened()
        for _ in range(30):
            assert end.send(bytes(3000)) == OK
        settle(ends)
        for _ in range(50):
            settle(ends)
        found = ends.flying
        assert found["in_flight"] == found["eliciting"] == found["log"] == 0
        assert found["acked"] == found["tx"] and found["oldest_at"] == 0
        assert ends.side.state()["again"] == 0


class TestNumbers:
    def test_a_number_is_as_long_as_its_distance_from_the_largest_acknowledged_needs(self) -> None:
        """Also where what was given up long ago was forgotten: the other side reckons from what it has received."""
        ends = Ends(others=(4,))
        peer, side = ends.peer, ends.side
        ends.hear()
        ends.hear(4)
        ends.say(ack(4, 0), path=4)  # it owes nothing, and takes the place of the other
        ends.say(ack(PATH, 0))
        known = 0
        for _ in range(150_000):
            side.now += MS // 100
            if side.deadline() <= side.now:
                side.on_deadline()
            side.recv_datagram(peer.quick_datagram(PATH, 0, PING), PATH)
            while data_ := side.send_datagram(PATH):
                if known < 30_000:
                    known, _, _ = peer.open_datagram(PATH, data_)
                    if known % 100 == 0:
                        side.recv_datagram(peer.quick_datagram(PATH, 0, ack(PATH, known)), PATH)
            if side.flying(PATH)["tx"] > 70_000:
                break
        assert known >= 30_000 and side.flying(PATH)["tx"] > 70_000
        ends.at(400 * MS)  # nothing is heard: the path is suspect, and what was sent is given up
        assert side.flying(PATH)["suspect"]
        ends.at(2 * S)
        side.recv_datagram(peer.quick_datagram(PATH, 0, ack(PATH, known - 1)), PATH)
        assert side.flying(PATH)["acked"] > 70_000  # forgotten
        for _ in range(2):
            side.recv_datagram(peer.quick_datagram(PATH, 0, PING), PATH)
        datagram = side.send_datagram(PATH)
        assert peer.open_datagram(PATH, datagram, known + 1)[0] > 70_000


class TestKept:
    def test_an_acknowledgement_does_not_wait_for_the_turn_of_its_record(self) -> None:
        """It says what has come on a path; the order of the session has nothing to do with that."""
        ends, end = known()
        said = bulk(ends, end, 3000)
        ends.sleep(40 * MS)
        number = ends.side.order()[2]
        assert ends.say(b"\x19" + vint(number + 1) + ack(PATH, said[-1][0], len(said) - 1) + PING) == OK
        assert ends.side.order()[3] == 1  # it waits
        assert ends.flying["eliciting"] == 0
        ends.say(b"\x19" + vint(number) + PING)
        assert ends.side.order()[2:] == (number + 2, 0) and ends.verdict() is None

    def test_what_else_is_in_it_does_wait(self) -> None:
        ends, end = known()
        number = ends.side.order()[2]
        at = end.in_()["received"]
        ends.say(b"\x19" + vint(number + 1) + data(at, msg(b"v")), tag=16)
        assert end.in_()["received"] == at
        ends.say(b"\x19" + vint(number) + PING)
        assert end.take() == b"v"


def test_acknowledgements_stay_short_though_numbers_are_left_out() -> None:
    pair, x, y = pair_on_datagrams()
    answers: list[int] = []
    for _ in range(1500):  # more than a dozen numbers are left out, and each leaves a gap
        assert x.send(bytes(3000)) == OK
        while data := pair.a.send_datagram(2):
            pair.b.recv_datagram(data, 2)
        assert y.take() == bytes(3000)
        while data := pair.b.send_datagram(2):
            answers.append(len(data))
            pair.a.recv_datagram(data, 2)
        for side in (pair.a, pair.b):
            side.now += 2 * MS
            side.on_deadline()
    assert max(answers[100:]) <= 64  # one run, or the two around a number that is left out, and credit
