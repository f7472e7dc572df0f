"""Congestion control of a datagram path: numbers against the formulae of RFC 9438, RFC 9406 and RFC 9002."""

from __future__ import annotations

import math

import pytest
from netchan._core._selftest_path import Cc

MS, S = 10**6, 10**9
MTU = 1200
C, BETA = 0.4, 0.7
ALPHA = 3 * (1 - BETA) / (1 + BETA)
UNLIMITED = 2**64 - 1


def avoiding(cwnd: int = 100, rtt: int = 100 * MS) -> Cc:
    """A path whose window was halved a moment ago, by an event at 10 s, and that is used up."""
    cc = Cc(MTU)
    cc.set(cwnd * MTU, 50 * MTU)
    cc.event(10 * S - rtt, 10 * S)
    return cc


def acked(cc: Cc, now: int, rtt: int, n: int = MTU) -> int:
    """One datagram, sent a round trip ago, was acknowledged while all of the window was used; the window in bytes."""
    cc.gone(cc.state()["in_flight"])
    cc.sent(cc.state()["cwnd"])
    cc.acked(n, now - rtt, now, rtt)
    return int(cc.state()["cwnd"])


class TestCubic:
    def test_an_event_multiplies_by_beta(self) -> None:
        cc = avoiding(100)
        state = cc.state()
        assert state["cwnd"] == state["ssthresh"] == 70 * MTU
        assert state["w_max"] == pytest.approx(100)
        assert state["k"] == pytest.approx(((100 - 70) / C) ** (1 / 3))

    def test_a_second_event_below_the_last_maximum_lets_go_faster(self) -> None:
        cc = avoiding(100)
        cc.event(11 * S, 11 * S)
        assert cc.state()["w_max"] == pytest.approx(70 * (1 + BETA) / 2)  # §4.7
        assert cc.state()["cwnd"] == pytest.approx(49 * MTU, abs=1)

    def test_one_event_a_round_trip(self) -> None:
        cc = avoiding(100)
        for at in (9 * S, 10 * S - 1, 10 * S):
            cc.event(at, 10 * S + 50 * MS)
        assert cc.state()["cwnd"] == 70 * MTU
        cc.event(10 * S + 1, 10 * S + 100 * MS)
        assert cc.state()["cwnd"] == pytest.approx(49 * MTU, abs=1)

    def test_window_is_never_below_two_datagrams(self) -> None:
        cc = avoiding(100)
        for i in range(30):
            cc.event((11 + i) * S, (11 + i) * S)
        assert cc.state()["cwnd"] == 2 * MTU

    def test_growth_follows_the_cubic(self) -> None:
        """A long round trip, so that Reno would be slower: W(t + rtt) a round trip ahead, in the mean of a window."""
        rtt = 200 * MS
        cc = avoiding(200, rtt)
        now = 10 * S + 2 * rtt
        begin = now
        k = ((200 - 140) / C) ** (1 / 3)
        for turn in range(30):
            window = cc.state()["cwnd"] // MTU
            for i in range(window):
                acked(cc, now + i * rtt // window, rtt)
            now += rtt
            t = (now - begin) / S
            want = C * (t - k) ** 3 + 200
            assert cc.state()["cwnd"] / MTU == pytest.approx(want, rel=0.03), turn
        assert t > k

    def test_reno_where_it_is_faster(self) -> None:
        """§4.3: short round trips; alpha a window until the last maximum, then one."""
        rtt = 1 * MS
        cc = avoiding(20, rtt)
        now = 10 * S + 2 * rtt
        w = 14.0
        for _ in range(30):
            window = cc.state()["cwnd"] // MTU
            for _ in range(window):
                before = cc.state()["cwnd"] / MTU
                acked(cc, now, rtt)
                w += (ALPHA if w < 20 else 1) / before
            now += rtt
        assert cc.state()["w_est"] == pytest.approx(w, rel=1e-6)
        assert w - 1.5 < cc.state()["cwnd"] / MTU <= w  # a round trip behind it

    def test_no_more_than_half_as_much_again_in_a_round_trip(self) -> None:
        rtt = 100 * MS
        cc = avoiding(100, rtt)
        acked(cc, 10 * S + 2 * rtt, rtt)
        now = 10_000 * S  # the cubic is far away
        before = cc.state()["cwnd"]
        window = before // MTU
        for _ in range(window):
            acked(cc, now, rtt)
        assert before < cc.state()["cwnd"] <= before * 1.7  # 1 + 1/2n to the n

    def test_after_slow_start_the_maximum_is_where_it_ended(self) -> None:
        cc = Cc(MTU)
        cc.set(50 * MTU, 50 * MTU)
        acked(cc, 2 * S, 10 * MS)
        assert cc.state()["w_max"] == pytest.approx(50) and cc.state()["k"] == 0

    def test_what_was_sent_before_the_event_makes_nothing_grow(self) -> None:
        cc = avoiding(100)
        cc.sent(70 * MTU)
        for _ in range(70):
            cc.acked(MTU, 10 * S, 10 * S + 90 * MS, 100 * MS)
        assert cc.state()["cwnd"] == 70 * MTU and cc.state()["in_flight"] == 0

    def test_a_window_that_is_not_used_up_does_not_grow(self) -> None:
        for cc in (Cc(MTU), avoiding(100)):
            before = cc.state()["cwnd"]
            for i in range(200):
                cc.sent(2 * MTU)
                for _ in range(2):
                    cc.acked(MTU, 11 * S + i, 11 * S + i + 10 * MS, 10 * MS)
            assert cc.state()["cwnd"] == before

    def test_time_that_passes_unused_is_no_time_of_growth(self) -> None:
        rtt = 100 * MS
        cc = avoiding(100, rtt)
        for i in range(70):
            acked(cc, 10 * S + 2 * rtt + i * MS, rtt)
        cc.gone(1 << 40)
        cc.sent(MTU)
        cc.acked(MTU, 11 * S, 11 * S + rtt, rtt)  # far from full
        before = cc.state()["cwnd"]
        after = acked(cc, 3600 * S, rtt)
        assert before <= after < before + MTU

    def test_held_back_by_the_pace_counts_as_used(self) -> None:
        cc = Cc(MTU)
        cc.sent(MTU)
        cc.limit()
        cc.acked(MTU, 1 * S, 1 * S + MS, MS)
        assert cc.state()["cwnd"] == 11 * MTU

    def test_bytes_in_flight_do_not_fall_below_none(self) -> None:
        cc = Cc(MTU)
        cc.sent(100)
        cc.gone(200)
        assert cc.state()["in_flight"] == 0
        assert cc.open(10 * MTU) and not cc.open(10 * MTU + 1)


class TestUndo:
    def test_when_all_losses_were_none_the_window_is_as_before(self) -> None:
        cc = Cc(MTU)
        cc.set(100 * MTU, UNLIMITED)
        cc.event(1 * S, 2 * S)
        for _ in range(3):
            cc.lost(1 * S)
        assert [cc.found(1 * S), cc.found(1 * S)] == [False, False]
        assert cc.state()["cwnd"] == 70 * MTU
        assert cc.found(1 * S)
        assert cc.state()["cwnd"] == 100 * MTU and cc.state()["ssthresh"] == UNLIMITED

    def test_one_more_than_were_lost_changes_nothing(self) -> None:
        cc = Cc(MTU)
        cc.event(1 * S, 2 * S)
        cc.lost(1 * S)
        assert cc.found(1 * S)
        before = cc.state()
        assert not cc.found(1 * S)
        assert cc.state() == before

    def test_a_loss_after_the_event_is_not_one_of_it(self) -> None:
        cc = Cc(MTU)
        cc.event(1 * S, 2 * S)
        cc.lost(1 * S)
        assert not cc.found(3 * S)
        cc.lost(3 * S)
        assert cc.state()["losses"] == 1

    def test_a_window_that_has_grown_beyond_is_left_alone(self) -> None:
        cc = Cc(MTU)
        cc.event(1 * S, 2 * S)
        cc.lost(1 * S)
        cc.set(50 * MTU, 20 * MTU)
        assert not cc.found(1 * S)
        assert cc.state()["cwnd"] == 50 * MTU

    def test_what_was_late_from_an_event_before_does_not_undo_a_newer_one(self) -> None:
        cc = Cc(MTU)
        cc.set(100 * MTU, UNLIMITED)
        cc.event(1 * S, 2 * S)
        cc.lost(1 * S)
        cc.event(3 * S, 4 * S)
        cc.lost(3 * S)
        assert not cc.found(1 * S)
        assert cc.state()["losses"] == 1 and cc.state()["cwnd"] == pytest.approx(49 * MTU, abs=1)
        assert cc.found(3 * S)

    def test_after_a_collapse_there_is_no_way_back(self) -> None:
        cc = Cc(MTU)
        cc.set(100 * MTU, UNLIMITED)
        cc.event(1 * S, 2 * S)
        cc.lost(1 * S)
        cc.collapse()
        assert not cc.found(1 * S)
        assert cc.state()["cwnd"] == 2 * MTU


class TestSlowStart:
    def test_doubles_in_a_round_trip(self) -> None:
        cc = Cc(MTU)
        assert cc.state()["cwnd"] == 10 * MTU
        for _ in range(10):
            acked(cc, 2 * S, 10 * MS)
        assert cc.state()["cwnd"] == 20 * MTU

    @staticmethod
    def rounds(cc: Cc, trips: list[int], each: int = 10) -> list[int]:
        """Rounds of so many samples with these round trips; the window after each."""
        number, out = 0, []
        for trip in trips:
            for i in range(each):
                cc.round_trip(trip, number + i, number + each)
                acked(cc, 2 * S, trip)
            number += each
            out.append(int(cc.state()["cwnd"]))
        return out

    def test_ends_some_rounds_after_round_trips_have_grown(self) -> None:
        """RFC 9406: a quarter as fast from there on, for five rounds."""
        cc = Cc(MTU)
        windows = self.rounds(cc, [100 * MS, 100 * MS, 113 * MS])
        assert cc.state()["css"] == 113 * MS and cc.state()["ssthresh"] == UNLIMITED
        windows += self.rounds(cc, [113 * MS])
        assert windows[-1] - windows[-2] == pytest.approx(10 * MTU // 4, rel=0.01)
        number = 40
        for _ in range(6):
            for i in range(10):
                cc.round_trip(120 * MS, number + i, number + 10)
            number += 10
        assert cc.state()["ssthresh"] == cc.state()["cwnd"]

    @pytest.mark.parametrize(
        ("base", "grown", "ends"), [(8, 11, 0), (8, 12, 1), (80, 89, 0), (80, 90, 1), (400, 415, 0), (400, 416, 1)]
    )
    def test_threshold_is_an_eighth_between_4_and_16_ms(self, base: int, grown: int, ends: int) -> None:
        cc = Cc(MTU)
        self.rounds(cc, [base * MS, base * MS, grown * MS])
        assert bool(cc.state()["css"]) == bool(ends)

    def test_eight_samples_are_needed(self) -> None:
        cc = Cc(MTU)
        self.rounds(cc, [50 * MS, 50 * MS])
        number = 20
        for i in range(7):
            cc.round_trip(100 * MS, number + i, number + 10)
        assert not cc.state()["css"]
        cc.round_trip(100 * MS, number + 7, number + 10)
        assert cc.state()["css"]

    def test_goes_on_when_it_was_no_queue(self) -> None:
        cc = Cc(MTU)
        self.rounds(cc, [50 * MS, 50 * MS, 60 * MS])
        assert cc.state()["css"]
        number = 30
        for i in range(10):
            cc.round_trip(51 * MS, number + i, number + 10)
        assert not cc.state()["css"] and cc.state()["ssthresh"] == UNLIMITED

    def test_begins_anew_after_a_collapse(self) -> None:
        """Nothing of the first slow start ends the second one after a round."""
        cc = Cc(MTU)
        self.rounds(cc, [50 * MS, 50 * MS, *[60 * MS] * 8])
        assert cc.state()["ssthresh"] < UNLIMITED
        cc.event(3 * S, 4 * S)
        cc.collapse()
        threshold = cc.state()["ssthresh"]
        assert threshold > 8 * MTU
        number = 200
        for i in range(10):
            cc.round_trip(50 * MS, number + i, number + 20)
        before = cc.state()["cwnd"]
        acked(cc, 5 * S, 50 * MS)
        assert cc.state()["cwnd"] == before + MTU and cc.state()["ssthresh"] == threshold


class TestPace:
    def test_ten_leave_together_then_a_window_in_four_fifths_of_a_round_trip(self) -> None:
        srtt = 100 * MS
        cc = Cc(MTU)
        cc.set(100 * MTU, 100 * MTU)
        now, sent = 5 * S, []
        while now < 5 * S + srtt:
            at = cc.pace(MTU, srtt, now)
            if at <= now:
                cc.paced(MTU)
                sent.append(now)
            else:
                assert at - now >= 250_000
                now = at
        assert sent.count(5 * S) == 10
        assert len(sent) - 10 == pytest.approx(125, abs=2)

    def test_twice_in_slow_start(self) -> None:
        srtt = 100 * MS
        cc = Cc(MTU)
        cc.set(100 * MTU, UNLIMITED)
        for _ in range(10):
            assert cc.pace(MTU, srtt, 5 * S) <= 5 * S
            cc.paced(MTU)
        assert cc.pace(MTU, srtt, 5 * S) - 5 * S == pytest.approx(srtt / 200, rel=0.01)

    def test_no_more_together_after_a_rest(self) -> None:
        cc = Cc(MTU)
        cc.set(100 * MTU, 100 * MTU)
        for now in (1 * S, 100 * S):
            n = 0
            while cc.pace(MTU, 100 * MS, now) <= now:
                cc.paced(MTU)
                n += 1
            assert n == 10

    def test_a_fast_path_may_send_2_ms_of_it_together(self) -> None:
        cc = Cc(MTU)
        cc.set(10_000 * MTU, 10_000 * MTU)
        n = 0
        while cc.pace(MTU, 10 * MS, 5 * S) <= 5 * S:
            cc.paced(MTU)
            n += 1
        assert n == pytest.approx(10_000 * 1.25 * 2 / 10, rel=0.01)

    @pytest.mark.parametrize("srtt", [1, 1000, 10 * S, 10_000 * S])
    def test_any_round_trip_gives_a_time(self, srtt: int) -> None:
        cc = Cc(MTU)
        cc.event(1, 2)
        for _ in range(100):
            at = cc.pace(MTU, srtt, 5 * S)
            assert 5 * S <= at < 10**6 * S
            cc.paced(MTU)

    def test_a_path_without_a_sample_is_not_held_back(self) -> None:
        cc = Cc(MTU)
        for _ in range(100):
            assert cc.pace(MTU, 0, 5 * S) == 5 * S
            cc.paced(MTU)
        assert math.isfinite(cc.state()["budget"])
