"""Marks of congestion on a datagram path (docs/spec/session.md §5.7; RFC 9000 §13.4, RFC 3168)."""

from __future__ import annotations

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.datagrams import MS, OK, PATH, PING, Ends, S, ack, opened, pair_on_datagrams, settle
from tests.unit.core.test_record import vint

TESTING, WAITING, CAPABLE, FAILED = range(4)
NONE, ECT1, ECT0, CE = range(4)
TESTS = 10


def told(largest: int, first: int, *counts: int) -> bytes:
    """An ACK of ``first`` + 1 datagrams up to ``largest``, with its counts of ECT(0), ECT(1) and CE."""
    plain = ack(PATH, largest, first)
    at = 1 + len(vint(PATH))
    return plain[:at] + b"\1" + plain[at + 1 :] + b"".join(vint(count) for count in counts)


def ecn(ends: Ends) -> dict[str, object]:
    found: dict[str, object] = ends.side.ecn(PATH)
    return found


def say(ends: Ends, n: int = 1) -> list[int]:
    """Numbers of n datagrams that leave each by itself; the carrier asks for their mark before."""
    out = []
    for _ in range(n):
        ends.side.marks(PATH)
        ends.side.path_ping(PATH)
        out += [number for number, _, _ in ends.hear()]
    return out


def quiet() -> Ends:
    """A path of which nothing is known but its round trip; nothing that was sent so far had a mark."""
    ends = Ends()
    settle(ends)
    assert ecn(ends) == {"state": TESTING, "sent": 0, "said": [0, 0], "got": [0, 0, 0], "told": 0}
    return ends


def capable() -> tuple[Ends, int]:
    """A path on which marks are used; how many there were."""
    ends = quiet()
    sent = say(ends, TESTS)
    ends.sleep(40 * MS)
    ends.say(told(sent[-1], sent[-1] - sent[0], TESTS, 0, 0))
    assert ecn(ends)["state"] == CAPABLE
    return ends, TESTS


class TestSender:
    def test_the_first_ten_have_a_mark_and_then_it_waits(self) -> None:
        ends = quiet()
        for _ in range(TESTS):
            assert ends.side.marks(PATH) == 1
            ends.side.path_ping(PATH)
            assert ends.hear()
        for _ in range(3):
            assert ends.side.marks(PATH) == 0 and ecn(ends)["state"] == WAITING
            ends.side.path_ping(PATH)
            ends.hear()
        assert ecn(ends)["sent"] == TESTS

    def test_counts_that_fit_prove_the_way(self) -> None:
        ends, n = capable()
        for _ in range(100):
            assert ends.side.marks(PATH) == 1
            (number,) = say(ends)
            n += 1
            ends.say(told(number, 0, n, 0, 0))
        assert ecn(ends)["state"] == CAPABLE and ecn(ends)["told"] == 0 and ends.verdict() is None

    @pytest.mark.parametrize(
        "counts",
        [
            (),
            (TESTS - 1, 0, 0),
            (TESTS - 1, 1, 0),
            (TESTS, 1, 0),
            (TESTS + 1, 0, 0),
            (0, 0, TESTS + 1),
            (2**62 - 1, 0, 0),
        ],
        ids=["none", "too few", "ECT(1)", "one more that is ECT(1)", "too many", "too many marks", "far too many"],
    )
    def test_counts_that_cannot_be_end_the_use_of_marks(self, counts: tuple[int, ...]) -> None:
        ends = quiet()
        sent = say(ends, TESTS)
        cwnd = ends.flying["cwnd"]
        span = sent[-1] - sent[0]
        ends.say(told(sent[-1], span, *counts) if counts else ack(PATH, sent[-1], span))
        assert ecn(ends)["state"] == FAILED and ends.side.marks(PATH) == 0
        assert ends.flying["cwnd"] >= cwnd and ecn(ends)["told"] == 0
        (number,) = say(ends)
        ends.say(told(number, 0, TESTS, 0, TESTS))  # not looked at any more
        assert ends.side.marks(PATH) == 0 and ends.verdict() is None

    def test_counts_that_shrink_end_it(self) -> None:
        ends, n = capable()
        (number,) = say(ends)
        ends.say(told(number, 0, n - 1, 0, 2))
        assert ecn(ends)["state"] == FAILED

    def test_marks_that_are_washed_away_later_end_it(self) -> None:
        """The way has changed: what arrives there is not marked any more."""
        ends, n = capable()
        (number,) = say(ends)
        ends.say(told(number, 0, n, 0, 0))
        assert ecn(ends)["state"] == FAILED

    def test_an_acknowledgement_that_was_overtaken_says_nothing(self) -> None:
        ends, n = capable()
        first, second = say(ends, 2)
        ends.say(told(second, 0, n + 1, 0, 0))
        ends.say(told(first, 0, n, 0, 0))
        assert ecn(ends)["state"] == CAPABLE
        (number,) = say(ends)
        ends.say(told(number, number - first, n + 3, 0, 0))
        assert ecn(ends)["state"] == CAPABLE and ecn(ends)["said"] == [n + 3, 0]

    def test_a_lost_acknowledgement_is_made_up_for_by_the_next(self) -> None:
        ends, n = capable()
        sent = say(ends, 6)
        ends.say(told(sent[-1], 0, n + 5, 0, 0))  # of the others the ACK was lost; one of them did not arrive
        assert ecn(ends)["state"] == CAPABLE

    def test_where_all_that_is_marked_is_lost_nothing_is_marked(self) -> None:
        ends = quiet()
        say(ends, TESTS)
        ends.side.marks(PATH)
        ends.at(2 * S)
        ends.say(ack(PATH, say(ends)[-1]))
        assert ecn(ends)["state"] == FAILED and ends.side.marks(PATH) == 0

    def test_after_two_timeouts_nothing_is_marked_until_something_is_heard(self) -> None:
        ends, n = capable()
        say(ends)
        assert ends.side.marks(PATH) == 1
        while ends.flying["pto_count"] < 2:
            ends.side.now = ends.side.deadline()
            ends.side.on_deadline()
            ends.hear()
        assert ends.side.marks(PATH) == 0
        sent = say(ends)
        ends.say(ack(PATH, sent[-1]))  # had no mark, so its ACK needs no counts
        assert ecn(ends)["state"] == CAPABLE and ends.side.marks(PATH) == 1
        sent = say(ends)
        ends.say(told(sent[-1], 0, n + 1, 0, 0))
        assert ecn(ends)["state"] == CAPABLE


class TestCongestion:
    def busy(self) -> tuple[Ends, list[int], int]:
        """A path in the middle of a long value, with marks in use."""
        ends, end = opened()
        sent = say(ends, TESTS)
        ends.sleep(40 * MS)
        ends.say(told(sent[-1], sent[-1] - sent[0], TESTS, 0, 0))
        ends.side.marks(PATH)
        assert end.send(bytes(200_000)) == OK
        out = [number for number, _, _ in ends.hear()]
        assert len(out) > 6
        ends.sleep(40 * MS)
        return ends, out, TESTS

    def test_a_mark_slows_it_down_once_a_round_trip(self) -> None:
        ends, out, n = self.busy()
        before = ends.flying["cwnd"]
        ends.say(told(out[1], 1, n + 1, 0, 1))
        after = ends.flying["cwnd"]
        assert 0.65 * before < after < 0.85 * before and ecn(ends)["told"] == 1
        ends.say(told(out[3], 1, n + 1, 0, 3))  # sent before that: the same congestion
        assert ends.flying["cwnd"] == after and ecn(ends)["told"] == 2 and ends.flying["lost"] == 0

    def test_no_mark_no_change(self) -> None:
        ends, out, n = self.busy()
        before = ends.flying["cwnd"]
        ends.say(told(out[3], 3, n + 4, 0, 0))
        assert ends.flying["cwnd"] >= before and ecn(ends)["told"] == 0

    def test_a_loss_that_was_none_does_not_take_back_what_a_mark_said(self) -> None:
        ends, out, n = self.busy()
        ends.say(told(out[5], 4, n + 4, 0, 1))  # the first one is missing, and counts as lost
        threshold = ends.flying["ssthresh"]
        assert threshold == ends.flying["cwnd"] and ends.flying["lost"] == 1
        ends.say(told(out[6], 6, n + 6, 0, 1))
        assert ends.flying["found"] == 1 and ends.flying["ssthresh"] == threshold

    def test_it_is_taken_back_where_nothing_was_marked(self) -> None:
        ends, out, n = self.busy()
        before = ends.flying["ssthresh"]
        ends.say(told(out[5], 4, n + 5, 0, 0))
        assert ends.flying["ssthresh"] == ends.flying["cwnd"] < before
        ends.say(told(out[6], 6, n + 7, 0, 0))
        assert ends.flying["found"] == 1 and ends.flying["ssthresh"] == before


class TestReceiver:
    def says(self, ends: Ends) -> list[bytes]:
        return [frames for _, tag, frames in ends.hear() if tag == 0 and frames.lstrip(b"\0")[:1] == b"\2"]

    def test_it_counts_what_it_got_and_says_so(self) -> None:
        ends = quiet()
        for mark in (ECT0, ECT0, ECT1, CE, NONE, CE, ECT0):
            assert ends.side.recv_datagram(ends.peer.quick_datagram(PATH, 0, PING), PATH, mark) == OK
        assert ecn(ends)["got"] == [3, 1, 2]
        acks = self.says(ends)
        assert acks and acks[-1].rstrip(b"\0").endswith(vint(3) + vint(1) + vint(2))
        assert acks[-1].lstrip(b"\0")[1 + len(vint(PATH))] == 1

    def test_without_marks_it_says_nothing_of_them(self) -> None:
        ends = quiet()
        for _ in range(4):
            ends.say(PING)
        acks = self.says(ends)
        assert acks and all(frames.lstrip(b"\0")[1 + len(vint(PATH))] == 0 for frames in acks)

    def test_what_comes_again_or_does_not_open_does_not_count(self) -> None:
        ends = quiet()
        datagram = ends.peer.quick_datagram(PATH, 0, PING)
        assert ends.side.recv_datagram(datagram, PATH, CE) == OK
        assert ends.side.recv_datagram(datagram, PATH, CE) != OK
        forged = bytearray(ends.peer.quick_datagram(PATH, 0, PING))
        forged[-1] ^= 1
        assert ends.side.recv_datagram(forged, PATH, CE) != OK
        assert ecn(ends)["got"] == [0, 0, 1]

    def test_many_ranges_leave_room_for_the_counts(self) -> None:
        ends = quiet()
        for n in range(120):
            datagram = ends.peer.quick_datagram(PATH, 0, PING)
            if n % 2:
                ends.side.recv_datagram(datagram, PATH, CE)
        acks = self.says(ends)
        assert acks and acks[-1].rstrip(b"\0").endswith(vint(0) + vint(0) + vint(60))


def test_two_ends_find_out_and_slow_down() -> None:
    """Both sides are ours; the way marks what it likes."""
    pair, _, _ = pair_on_datagrams()
    for n in range(60):
        for here, there in ((pair.a, pair.b), (pair.b, pair.a)):
            here.path_ping(PATH)
            marked = here.marks(PATH)
            while data := here.send_datagram(PATH):
                assert not isinstance(data, int)
                there.recv_datagram(data, PATH, (CE if n == 40 else ECT0) if marked else NONE)
        pair.a.now += 10 * MS
        pair.b.now += 10 * MS
    for side in (pair.a, pair.b):
        assert side.ecn(PATH)["state"] == CAPABLE and side.ecn(PATH)["told"] == 1
        assert side.flying(PATH)["ssthresh"] < 2**62


def test_a_session_that_is_handed_over_goes_on_with_its_counts() -> None:
    ends, n = capable()
    ends.side.recv_datagram(ends.peer.quick_datagram(PATH, 0, PING), PATH, CE)
    say(ends)
    before = ecn(ends)
    ends.side.hold()
    state = ends.side.write()
    assert isinstance(state, bytes)
    taken = st.Side.read(state, now=ends.side.now, seed=5, mix=bytes(32))
    assert isinstance(taken, st.Side)
    assert taken.ecn(PATH)["got"] == before["got"] == [0, 0, 1]
    assert taken.ecn(PATH)["said"] == [n, 0] and taken.ecn(PATH)["sent"] >= n + 1
    assert taken.ecn(PATH)["state"] == CAPABLE
