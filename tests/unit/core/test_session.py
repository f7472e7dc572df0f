"""Two sessions in virtual time over byte pipes: opening, moving, ending, time, loss (docs/spec/session.md)."""

import random
from itertools import pairwise, product
from typing import Any

import pytest

from netchan._core import _selftest_session as st

OK, EAGAIN, ECLOSED = (st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED"))
FIN, ABORT_AFTER, ABORT, STOPPED, LOST, LEFT = range(1, 7)
UP, CLOSING, OVER = range(3)
MS = 1_000_000
S = 1000 * MS
NONE, EXCEPTION, PROCESS_EXIT, HANDED_OVER, PROTOCOL, CREDIT, STREAMS = range(7)
CRYPTO, TIMEOUT = 9, 13
CODE_STOPPED = 0x40000007


def opened(
    capacity: int | None = None, pair: st.Pair | None = None, name: str = "x", **given: Any
) -> tuple[st.Pair, st.End, st.End]:
    """A pair with one channel open on both sides."""
    p = pair or st.Pair(**given)
    a, b = p.a.open(name, capacity=capacity), p.b.open(name)
    p.run()
    assert a.paired and b.paired
    news(p)
    return p, a, b


def news(p: st.Pair) -> None:
    p.a.ready()
    p.b.ready()


def settled(p: st.Pair, *ends: st.End) -> bool:
    """True when neither session has a stake in the ends any more."""
    p.run()
    news(p)
    return all(e.forgotten() for e in ends)


class TestOpening:
    def test_channel_opened_by_both_is_paired_whoever_is_first(self) -> None:
        for first in "ab":
            p = st.Pair()
            x = p.a.open("x") if first == "a" else p.b.open("x")
            p.run()
            assert not x.paired
            y = p.b.open("x") if first == "a" else p.a.open("x")
            p.run()
            assert x.paired and y.paired and {x.id, y.id} == {16, 17}

    def test_crossing_opens_pair(self) -> None:
        p = st.Pair()
        x, y = p.a.open("x"), p.b.open("x")
        p.collect()  # both say it before either has heard
        p.run()
        assert x.paired and y.paired

    def test_equal_names_pair_by_order_of_opening(self) -> None:
        rng = random.Random(7)
        for _ in range(60):
            p = st.Pair()
            ends: dict[tuple[int, str], list[st.End]] = {}
            plan = [(side, name) for side in (0, 1) for name in "pq" for _ in range(4)]
            rng.shuffle(plan)
            for side, name in plan:
                ends.setdefault((side, name), []).append((p.b if side else p.a).open(name))
                if rng.random() < 0.5:
                    p.collect()
                    p.deliver(rng.choice([0, 40, 1 << 20]), rng.choice([0, 40, 1 << 20]))
            p.run()
            for name in "pq":
                for k, (x, y) in enumerate(zip(ends[0, name], ends[1, name], strict=True)):
                    assert x.send(f"{name}{k}".encode()) == OK
                    p.run()
                    assert y.take_all() == [f"{name}{k}".encode()]

    @pytest.mark.parametrize(
        ("ours", "theirs", "settled_at"),
        [
            (a, b, min((v for v in (a, b) if v is not None), default=1024))
            for a, b in product((None, 0, 1, 5, 1024, 70000), repeat=2)
        ],
    )
    def test_capacity_is_the_smaller_figure_that_was_given(
        self, ours: int | None, theirs: int | None, settled_at: int
    ) -> None:
        p = st.Pair()
        a, b = p.a.open("x", capacity=ours), p.b.open("x", capacity=theirs)
        p.run()
        assert a.capacity == b.capacity == settled_at
        for end, figure in ((a, ours), (b, theirs)):  # what was granted before the other side opened is not taken back
            assert end.out()["max_msgs"] == max(
                settled_at or 16, 64 if figure is None else min(64, figure)
            )  # 16 offers

    def test_token_pairs_with_the_same_token_and_is_offered_to_nobody(self) -> None:
        p = st.Pair()
        token, name = bytes(range(16)), "x"
        a = p.a.open(token, kind=1)
        p.run()
        assert p.b.offers() == [] and p.b.state()["n_offers"] == 1
        named, other = p.b.open(name), p.b.open(bytes(16), kind=1)
        p.run()
        assert not named.paired and not other.paired and not a.paired
        b = p.b.open(token, kind=1)
        p.run()
        assert a.paired and b.paired and a.send(b"v") == OK
        p.run()
        assert b.take_all() == [b"v"]

    def test_token_that_is_opened_by_the_receiver_first_pairs_too(self) -> None:
        p = st.Pair()
        b = p.b.open(bytes(range(16)), kind=1)
        p.run()
        a = p.a.open(bytes(range(16)), kind=1)
        p.run()
        assert a.paired and b.paired

    def test_name_of_sixteen_bytes_is_no_token(self) -> None:
        p = st.Pair()
        a, b = p.a.open("0123456789abcdef"), p.b.open(b"0123456789abcdef", kind=1)
        p.run()
        assert not a.paired and not b.paired

    def test_tokens_that_are_taken_back_are_forgotten_on_both_sides(self) -> None:
        p = st.Pair()
        for n in range(1000):
            a = p.a.open(n.to_bytes(16, "big"), kind=1)
            p.run()
            a.abort(0x40000001)
            p.run()
            news(p)
            assert a.forgotten(), n
        assert p.b.state()["n_offers"] == 0 and p.a.state()["outs"] == 0
        x, y = p.a.open("x"), p.b.open("x")
        p.run()
        assert x.paired and y.paired

    def test_token_that_was_aborted_for_another_reason_is_told_to_who_opens_it(self) -> None:
        p = st.Pair()
        a = p.a.open(bytes(16), kind=1)
        p.run()
        a.abort(7)
        p.run()
        b = p.b.open(bytes(16), kind=1)
        p.run()
        assert b.paired and b.take() == ECLOSED and b.state()[2] == 7

    def test_values_may_go_before_the_other_side_opens(self) -> None:
        p = st.Pair()
        a = p.a.open("x", capacity=3)
        assert [a.send(b"v%d" % i) for i in range(4)] == [OK, OK, OK, EAGAIN]
        p.run()
        assert p.b.offers() == [(b"x", 3, 1)]
        b = p.b.open("x")
        p.run()
        assert b.take_all() == [b"v0", b"v1", b"v2"]
        p.run()
        assert a.has_room()

    def test_initial_credit_is_that_of_the_parameters(self) -> None:
        p = st.Pair(peer={"initial_msgs": 5, "initial_bytes": 2000})
        a = p.a.open("x")
        assert [a.send(b"v") for _ in range(6)] == [OK] * 5 + [EAGAIN]
        c = p.a.open("y")
        assert c.send(b"w" * 5000) == OK and c.send(b"more") == EAGAIN
        p.run()
        assert c.out()["sent"] == 2000 and p.b.state()["state"] == UP

    def test_offers_are_told_once_and_in_order(self) -> None:
        p = st.Pair()
        for i in range(5):
            p.a.open(f"n{i}")
        p.run()
        assert [o[0] for o in p.b.offers()] == [b"n%d" % i for i in range(5)]
        assert p.b.offers() == []
        p.a.open("mine")
        q = p.b.open("mine")
        p.run()
        assert q.paired and p.b.offers() == []

    def test_opens_beyond_max_streams_wait_until_it_rises(self) -> None:
        p = st.Pair(peer={"max_streams": 3})
        mine = [p.a.open(f"n{i}") for i in range(8)]
        p.run()
        assert [e.id for e in mine] == [16, 18, 20, 0, 0, 0, 0, 0] and p.b.state()["n_offers"] == 3
        theirs = [p.b.open(f"n{i}") for i in range(8)]
        p.run()
        assert all(e.paired for e in mine + theirs) and p.a.state()["state"] == p.b.state()["state"] == UP
        assert not p.a.wants_send() and not p.b.wants_send()

    @pytest.mark.parametrize("how", ["abort", "close", "stop", "end_after"])
    def test_channel_ended_while_it_waits_for_max_streams_keeps_its_turn(self, how: str) -> None:
        """Found: its preface was never sent, the next id was a gap, and the peer closed the session (STREAMS)."""
        p = st.Pair(peer={"max_streams": 1})
        p.a.open("n0")
        blocked, later = p.a.open("n1"), p.a.open("n2")
        if how == "close":
            blocked.close()
        elif how == "stop":
            blocked.stop()
        else:
            getattr(blocked, how)(7)
        p.run()
        assert not p.a.wants_send()
        theirs = [p.b.open(f"n{i}") for i in range(3)]
        p.run()
        assert later.paired and theirs[2].paired and p.b.state()["state"] == UP
        assert theirs[1].paired

    def test_more_channels_than_our_own_limit_end_at_once(self) -> None:
        p = st.Pair(mine={"max_channels": 2})
        ends = [p.a.open(f"n{i}") for i in range(4)]
        p.run()
        assert [e.state()[1] for e in ends] == [0, 0, ABORT, ABORT] and p.a.state()["state"] == UP

    def test_types_that_do_not_fit_abort_both_ways(self) -> None:
        p = st.Pair()
        a, b = p.a.open("x", codec=1), p.b.open("x", codec=2)
        p.run()
        assert a.state()[:3] == (ABORT, ABORT, 0x40000002) and b.state()[:3] == (ABORT, ABORT, 0x40000002)
        assert settled(p, a, b)


class TestMoving:
    @pytest.mark.parametrize("most", [1, 3, 20, 700, 65536])
    def test_values_cross_whole_and_in_order_however_the_bytes_are_cut(self, most: int) -> None:
        rng = random.Random(most)
        p, a, b = opened()
        sent: dict[str, list[bytes]] = {"a": [], "b": []}
        got: dict[str, list[bytes]] = {"a": [], "b": []}
        big = 200 if most < 4 else 40000
        for i in range(12 if most == 1 else 60):
            for name, end in (("a", a), ("b", b)):
                value = rng.randbytes(rng.choice([0, 1, 5, 23, 24, 25, 63, 64, rng.randrange(big)]))
                if end.send(value, pin=rng.random() < 0.2) == OK:
                    sent[name].append(value)
            if i % 3 == 0:
                p.run(chunk=lambda: rng.randint(1, most))
            got["b"] += a.take_all()
            got["a"] += b.take_all()
        p.run()
        got["b"] += a.take_all()
        got["a"] += b.take_all()
        assert got == sent and len(sent["a"]) > 10

    @pytest.mark.parametrize("size", [65536, 300_000, 3_000_000])
    def test_value_larger_than_the_window_gets_through(self, size: int) -> None:
        p, a, b = opened()
        value = random.Random(size).randbytes(size)
        assert a.send(value, pin=True) == OK
        p.run(rounds=500)
        assert b.take() == value
        p.run()
        assert p.a.released() == 1 and a.out()["segments"] == 0

    def test_sender_stops_at_capacity_and_goes_on_when_values_are_taken(self) -> None:
        p, a, b = opened(capacity=8)
        room = 8
        while a.send(b"v") == OK:
            room -= 1
        assert room == 0
        p.run()
        assert not a.has_room() and b.in_()["msgs"] == 8
        for _ in range(3):
            b.take()
        p.run()
        assert a.has_room() and a.out()["max_msgs"] in (10, 11)

    def test_receiver_that_does_not_take_holds_no_more_than_the_window(self) -> None:
        p, a, b = opened()
        n = 0
        while n < 2000:
            while a.send(b"x" * 999) == OK:
                n += 1
            before = b.in_()["received"]
            p.run()
            if b.in_()["received"] == before:
                break
        assert b.in_()["received"] <= 65536 + 1100 and b.in_()["held_bytes"] <= 2 * 65536
        assert not a.has_room()
        p.sleep(60 * S)
        assert p.a.state()["state"] == UP and b.in_()["received"] <= 65536 + 1100

    def test_window_grows_while_the_receiver_keeps_up_and_draws_on_the_budget(self) -> None:
        for budget, most in ((1 << 26, 4 << 20), (200_000, 262144), (0, 65536)):
            p, a, b = opened(peer={"session_bytes": budget})
            for _ in range(60):
                while a.send(b"x" * 16000) == OK:
                    pass
                p.run()
                b.take_all()
                p.run()
                if b.in_()["window"] == most:
                    break
            s = b.in_()
            assert s["window"] <= most and s["window"] == 65536 + s["grown"]
            assert p.b.state()["budget"] == budget - s["grown"] >= 0
            assert s["window"] == most or (budget == 1 << 26 and s["window"] > 1 << 20)
            a.close()
            b.close()
            p.run()
            b.take_all()
            assert settled(p, a, b)
            assert p.b.state()["budget"] == budget  # given back; found: it never was

    def test_many_channels_share_the_path(self) -> None:
        p = st.Pair()
        ends = [(p.a.open(f"c{i}"), p.b.open(f"c{i}")) for i in range(20)]
        p.run()
        for i, (a, _) in enumerate(ends):
            for k in range(10):
                assert a.send(b"%d:%d:" % (i, k) + b"z" * 3000) == OK
        p.run()
        for i, (_, b) in enumerate(ends):
            assert [v.split(b":")[:2] for v in b.take_all()] == [[b"%d" % i, b"%d" % k] for k in range(10)]

    @pytest.mark.parametrize("sizes", [[40_000] * 10, [60_000] + [3_000] * 20, [9_000, 17_000, 33_000, 50_000]])
    def test_channels_with_data_take_turns_of_equal_bytes(self, sizes: list[int]) -> None:
        p = st.Pair()
        ends = [(p.a.open(f"c{i}"), p.b.open(f"c{i}")) for i in range(len(sizes))]
        p.run()
        begun = [b.in_()["received"] for _, b in ends]
        for (a, _), size in zip(ends, sizes, strict=True):
            assert a.send(bytes(size)) == OK
        turn = max(1024, min(16384, 65536 // (len(sizes) - 1)))
        while p.a.wants_send() or p.ab:
            record = p.a.send(17_000)
            p.ab += record if isinstance(record, bytes) else b""
            p.deliver(1 << 30, 0)
            got = [b.in_()["received"] - at for (_, b), at in zip(ends, begun, strict=True)]
            unfinished = [n for n, size in zip(got, sizes, strict=True) if n < size]
            if unfinished:
                assert max(got) - min(unfinished) <= 2 * turn, got
        assert [len(b.take_all()[0]) for _, b in ends] == sizes

    def test_asked_position_is_reported_as_soon_as_it_is_reached(self) -> None:
        p, a, b = opened()
        a.send(b"one")
        a.ask(taken=1)
        p.run()
        assert a.out()["taken"] == 0
        b.take()
        p.run()
        assert a.out()["taken"] == 1

    def test_each_of_several_asked_positions_is_reported(self) -> None:
        """Found: only the last one was, so a deliver waited for values that others had sent behind its own."""
        p, a, b = opened()
        for i in range(3):
            a.send(b"%d" % i)
        a.ask(taken=3)
        p.run()
        for taken in (1, 2, 3):
            b.take()
            p.run()
            assert a.out()["taken"] == taken

    def test_question_before_the_preface_was_sent_is_answered(self) -> None:
        """Found: ASK went out ahead of the preface and was lost there."""
        p = st.Pair()
        b = p.b.open("x")
        p.run()
        a = p.a.open("x")
        a.send(b"one")
        a.ask(received=a.out()["appended"], taken=1)
        p.run()
        assert b.in_()["received"] == a.out()["received"]
        b.take()
        p.run()
        assert a.out()["taken"] == 1

    def test_marked_message_is_reported_when_taken(self) -> None:
        p, a, b = opened()
        a.send(b"0")
        a.send(b"1", deliver=True)
        a.send(b"2")
        p.run()
        b.take()
        p.run()
        assert a.out()["taken"] == 0
        b.take()
        p.run()
        assert a.out()["taken"] == 2

    def test_ends_are_told_what_they_wait_for(self) -> None:
        p, a, b = opened(capacity=1)
        b.wait(1)
        a.send(b"v")
        p.run()
        assert [(e, bits) for e, bits in p.b.ready()] == [(b, 1)]
        a.wait(2 | 4)
        b.take()
        p.run()
        assert p.a.ready() == [(a, 2 | 4)] and p.b.ready() == []

    @pytest.mark.parametrize("chunk", [1 << 30, 7])
    def test_messages_are_counted_each_way_over_all_channels(self, chunk: int) -> None:
        p = st.Pair()
        ends = [opened(pair=p, name=f"n{i}")[1:] for i in range(3)]
        for i, (a, b) in enumerate(ends):
            for _ in range(i + 2):
                assert a.send(b"v" * 3000, deliver=i == 1) == OK
            assert b.send(b"back") == OK
        p.run(chunk=lambda: chunk, rounds=10_000)
        for side, other in ((p.a, p.b), (p.b, p.a)):
            assert side.state()["messages_sent"] == other.state()["messages_received"] == (9 if side is p.a else 3)
        a, b = ends[0]
        b.take_all()
        a.close()
        b.close()
        p.run()
        assert a.send(b"late") == ECLOSED and p.a.state()["messages_sent"] == 9

    def test_message_that_waits_for_credit_is_counted_as_sent_once(self) -> None:
        p, a, b = opened()
        while a.send(b"w" * 30_000) == OK:
            pass
        accepted = a.out()["accepted"]
        p.collect()
        p.deliver(ba=0)
        assert a.out()["sent"] < a.out()["appended"]
        assert p.a.state()["messages_sent"] == accepted > p.b.state()["messages_received"] > 0
        while b.take_all():
            p.run()
        assert p.a.state()["messages_sent"] == p.b.state()["messages_received"] == accepted

    def test_messages_after_a_stop_are_no_received_ones(self) -> None:
        p, a, b = opened()
        assert a.send(b"v") == OK
        b.stop()
        p.run()
        assert (p.a.state()["messages_sent"], p.b.state()["messages_received"]) == (1, 0)


class TestEndingStreams:
    @pytest.mark.parametrize("take", ["before", "after", "never"])
    @pytest.mark.parametrize("values", [0, 1, 30])
    def test_close_ends_behind_the_values_and_both_sides_forget(self, values: int, take: str) -> None:
        """Found: a FIN after everything had been reported was never settled, and the ends stayed for ever."""
        p, a, b = opened()
        for i in range(values):
            a.send(b"%d" % i)
        got = []
        if take == "before":
            p.run()
            got += b.take_all()
            p.run()
        a.close()
        assert a.send(b"late") == ECLOSED and a.close() == ECLOSED
        p.run()
        b.close()
        if take == "after":
            got += b.take_all()
        p.run()
        assert a.take() == ECLOSED and a.state()[1] == FIN
        if take == "never" and values:
            assert not settled(p, a, b)
            b.stop()
        else:
            assert got == [b"%d" % i for i in range(values)] and b.take() == ECLOSED and b.state()[1] == FIN
        assert settled(p, a, b)
        assert p.a.state()["outs"] == p.a.state()["ins"] == p.b.state()["outs"] == p.b.state()["ins"] == 0

    def test_closed_before_the_other_side_opened(self) -> None:
        p = st.Pair()
        a = p.a.open("x")
        a.send(b"only")
        a.close()
        p.run()
        b = p.b.open("x")
        p.run()
        assert b.take_all() == [b"only"] and b.take() == ECLOSED
        b.close()
        assert settled(p, a, b)

    def test_stop_discards_and_ends_the_sender(self) -> None:
        p, a, b = opened()
        for _ in range(5):
            a.send(b"v")
        p.run()
        b.take()
        b.stop()
        p.run()
        assert a.send(b"w") == ECLOSED and a.state()[0] == STOPPED and b.take() == ECLOSED
        assert b.in_()["discarded"] == 4
        b.close()
        assert settled(p, a, b)

    def test_stop_before_the_other_side_opened_is_said_when_it_opens(self) -> None:
        p = st.Pair()
        a = p.a.open("x")
        a.stop()
        p.run()
        b = p.b.open("x")
        b.send(b"v")
        p.run()
        assert b.send(b"w") == ECLOSED and a.take() == ECLOSED

    def test_stop_while_values_are_on_the_way_counts_the_late_bytes(self) -> None:
        p, a, b = opened()
        for _ in range(5):
            a.send(b"v" * 100)
        p.collect()
        b.stop()
        p.run()
        assert b.in_()["dropped_bytes"] > 0 and a.send(b"w") == ECLOSED

    @pytest.mark.parametrize(
        "moment", ["idle", "values", "untaken", "closed", "closed_taken", "peer_closed", "both_closed", "on_the_way"]
    )
    def test_abort_of_the_channel_ends_both_directions_in_every_state(self, moment: str) -> None:
        p, a, b = opened()
        if moment in ("values", "untaken", "on_the_way"):
            a.send(b"v")
            b.send(b"w")
            if moment != "values":
                p.collect() if moment == "on_the_way" else p.run()
        if moment in ("closed", "closed_taken", "both_closed"):
            a.send(b"v")
            a.close()
        if moment in ("peer_closed", "both_closed"):
            b.send(b"w")
            b.close()
        if "closed" in moment:
            p.run()
        if moment == "closed_taken":
            b.take_all()
            p.run()
        a.abort(70, b"why")
        p.run()
        assert a.take() == ECLOSED and a.send(b"x") == ECLOSED
        assert b.take() == ECLOSED or moment == "both_closed"
        assert b.send(b"x") == ECLOSED
        if moment in ("idle", "values", "untaken", "on_the_way"):
            assert b.state()[2] == 70 and not b.state()[3] and a.state()[2:] == (70, True)
            assert b.in_()["reason"] == b"why"
        if moment == "both_closed":
            b.stop()
        assert settled(p, a, b), (a.state(), b.state(), a.in_(), b.in_(), a.out(), b.out())

    def test_abort_of_both_at_once_is_harmless(self) -> None:
        p, a, b = opened()
        a.abort(1)
        b.abort(2)
        assert settled(p, a, b) and a.state()[2] == 1 and b.state()[2] == 2

    @pytest.mark.parametrize("when", ["before_bind", "before_pair"])
    def test_abort_before_the_other_side_opened_reaches_it(self, when: str) -> None:
        p = st.Pair()
        a = p.a.open("x")
        if when == "before_pair":
            p.run()
        a.abort(9)
        p.run()
        assert p.b.offers() == [(b"x", None, 1)]
        b = p.b.open("x")
        b.send(b"v")
        p.run()
        assert a.take() == ECLOSED and b.take() == ECLOSED and b.send(b"x") == ECLOSED and b.state()[2] == 9
        assert a.in_()["over"] == ABORT  # found: what the other side had sent could be taken after the abort
        assert settled(p, a, b)

    @pytest.mark.parametrize("values", [0, 1, 40])
    @pytest.mark.parametrize("sent_before", [False, True])
    def test_end_after_data_delivers_everything_and_then_aborts(self, values: int, sent_before: bool) -> None:
        """Found: nothing ever settled an end that had left behind its data."""
        p, a, b = opened()
        for i in range(values):
            a.send(b"%d" % i * 50)
        if sent_before:
            p.run()
        a.end_after(0x40000000)
        assert a.send(b"late") == ECLOSED
        p.run()
        assert b.take_all() == [b"%d" % i * 50 for i in range(values)] and b.take() == ECLOSED
        assert b.state()[1:3] == (ABORT_AFTER, 0x40000000) and b.send(b"still open") == OK
        p.run()
        assert a.take() == b"still open"
        b.close()
        p.sleep(100 * MS)
        assert settled(p, a, b)

    def test_end_after_data_that_waits_for_credit(self) -> None:
        p, a, b = opened(capacity=4)
        for _ in range(4):
            assert a.send(b"y" * 60000) == OK or a.out()["appended"] > 65536
        a.end_after(5)
        got: list[bytes] = []
        for _ in range(20):
            p.run()
            got += b.take_all()
        assert len(got) == a.out()["accepted"] and b.take() == ECLOSED and b.state()[2] == 5

    def test_released_ends_do_no_harm_to_the_session(self) -> None:
        """The application lets go in every state; the session's own references keep what it still needs."""
        rng = random.Random(3)
        for turn in range(80):
            p = st.Pair()
            ends = []
            for name in "abc":
                for side in rng.sample([p.a, p.b], rng.choice([1, 2, 2])):
                    ends.append(side.open(name))
            for _ in range(12):
                end = rng.choice(ends)
                act = rng.choice(["send", "close", "stop", "abort", "end_after", "take", "run", "release"])
                if act == "run":
                    p.collect()
                    p.deliver(rng.randint(0, 300), rng.randint(0, 300))
                elif act == "release":
                    ends.remove(end)
                    rng.choice([end.close, end.stop, lambda e=end: e.abort(1), lambda: None])()
                    end.release()
                    if not ends:
                        break
                elif act == "send":
                    end.send(b"v" * rng.choice([1, 5000]), pin=True)
                elif act in ("abort", "end_after"):
                    getattr(end, act)(turn)
                else:
                    getattr(end, act)()
            p.run()
            news(p)
            assert p.a.state()["state"] == p.b.state()["state"] == UP
            p.free()


class TestEndingSessions:
    @pytest.mark.parametrize("code", [NONE, EXCEPTION, PROCESS_EXIT, HANDED_OVER, PROTOCOL, CREDIT, TIMEOUT, 256, 70])
    def test_each_end_sees_what_the_code_says(self, code: int) -> None:
        p, a, b = opened()
        a.send(b"one")
        a.send(b"two")
        p.run()
        p.a.close(code, b"reason")
        p.run()
        said = {EXCEPTION: 0x40000000, PROCESS_EXIT: 0x40000004, HANDED_OVER: 0x40000005}.get(code)
        sa, sb = p.a.state(), p.b.state()
        assert (sa["state"], sa["code"], sa["by_us"]) == (OVER, code, True)
        assert (sb["state"], sb["code"], sb["by_us"], sb["reason"]) == (OVER, code, False, b"reason")
        assert b.take_all() == [b"one", b"two"] and b.take() == ECLOSED and b.send(b"x") == ECLOSED
        assert a.take() == ECLOSED and a.send(b"x") == ECLOSED
        if said:
            assert b.state() == (ABORT, ABORT_AFTER, said, False) and a.state() == (ABORT, ABORT_AFTER, said, True)
        else:
            left = LEFT if code == NONE else LOST
            assert a.state()[:2] == b.state()[:2] == (left, LOST)

    def test_finished_channels_stay_finished_and_aborted_ones_keep_their_code(self) -> None:
        p = st.Pair()
        x, y = p.a.open("x"), p.b.open("x")
        v, _w = p.a.open("v"), p.b.open("v")
        p.run()
        x.send(b"1")
        x.close()
        p.run()
        v.abort(70)
        p.a.close(EXCEPTION)
        p.run()
        assert y.take_all() == [b"1"] and y.state()[1] == FIN
        assert v.state() == (ABORT, ABORT, 70, True)  # found: the code of the session went over it

    @pytest.mark.parametrize("code", [EXCEPTION, PROTOCOL])
    def test_end_after_data_whose_data_never_came_does_not_wait_for_ever(self, code: int) -> None:
        """Found: with a code of its own the session's end left the receiver waiting for bytes of a dead session."""
        p, a, b = opened(capacity=4)
        a.send(b"first")
        a.send(b"y" * 200000)
        a.end_after(5)
        p.collect()
        p.deliver()
        assert b.take() == b"first" and b.in_()["final"] > b.in_()["received"]
        p.a.close(code)
        p.run()
        assert b.take() == ECLOSED

    def test_end_after_data_that_is_complete_stays_so_when_the_session_is_lost(self) -> None:
        p, a, b = opened()
        a.send(b"all")
        a.end_after(5)
        p.run()
        p.b.path_lost()
        assert b.take() == b"all" and b.take() == ECLOSED and b.state()[1:3] == (ABORT_AFTER, 5)

    def test_lost_path_ends_everything_and_what_is_here_can_be_taken(self) -> None:
        p, a, b = opened()
        a.send(b"here")
        p.run()
        a.send(b"on the way")
        p.collect()
        p.a.path_lost()
        p.b.path_lost()
        assert (
            b.take_all() == [b"here"]
            and b.take() == ECLOSED
            and b.state()[:2] == (LOST, LOST)
            and a.state()[:2] == (LOST, LOST)
        )
        assert p.a.send() == ECLOSED and p.a.recv(b"z" * 50) == ECLOSED

    def test_channel_opened_after_the_end_is_over(self) -> None:
        p, _, _ = opened()
        p.a.path_lost()
        late = p.a.open("late")
        p.a.send()
        assert late.send(b"x") == ECLOSED and late.take() == ECLOSED

    def test_freeing_a_session_in_the_middle_of_everything_releases_all(self) -> None:
        p, a, b = opened()
        pinned = 0
        for i in range(20):
            pinned += a.send(b"%d" % i * 9000, pin=True) == OK
            p.a.open(f"y{i}")
        p.collect()
        a.wait()
        p.deliver(5000, 10)
        p.free()
        assert a.refs() == b.refs() == 1
        before = p.a.released()
        a.release()
        assert before + p.a.released() == pinned > 5


class TestTime:
    def test_acknowledgement_comes_after_25_ms_at_the_latest(self) -> None:
        p, a, _b = opened()
        p.sleep(100 * MS)
        acks = p.b.state()["acks"]
        a.send(b"v")
        p.run()
        assert p.b.state()["acks"] == acks and p.b.deadline() - p.b.now == 25 * MS
        p.sleep(24 * MS)
        assert p.b.state()["acks"] == acks
        p.sleep(1 * MS)
        assert p.b.state()["acks"] == acks + 1 and p.a.state()["acked"] == p.a.state()["tx"]
        assert a.out()["acked"] == a.out()["sent"] and a.out()["segments"] <= 1

    def test_acknowledgement_comes_after_256_kib_at_once(self) -> None:
        p, a, b = opened()
        for _ in range(30):
            a.send(b"x" * 60000)
            p.run()
            b.take_all()
        p.run()
        acks = p.b.state()["acks"]
        assert acks >= 30 * 60000 // 262144
        assert p.a.state()["tx"] - p.a.state()["acked"] < 40

    def test_round_trip_time_leaves_the_delay_of_the_acknowledgement_out(self) -> None:
        p, a, _ = opened()
        for _ in range(30):
            a.send(b"v")
            p.collect()
            p.a.now += 4 * MS
            p.b.now += 4 * MS
            p.run()
            p.sleep(40 * MS)
        assert p.a.state()["srtt"] < 8 * MS

    def test_idle_path_is_tried_after_the_heartbeat_doubled_up_to_60_s(self) -> None:
        """Found: the answer to a PING counted as traffic, so that the time never doubled."""
        p, a, b = opened(peer={"heartbeat_ns": 10**6 * S}, limits={"use_ns": 10**6 * S})  # an epoch's end pings, too
        for _ in range(2):
            a.send(b"traffic begins anew")
            p.sleep(100 * MS)
            b.take_all()
            start, seen, when = p.a.now, p.a.state()["pings"], []
            while p.a.now - start < 400 * S:
                p.sleep(S // 10)
                if p.a.state()["pings"] > seen:
                    seen = p.a.state()["pings"]
                    when.append(round((p.a.now - start) / S))
            gaps = [y - x for x, y in pairwise(when)]
            assert when[0] in (5, 6) and gaps[:3] == [10, 20, 40] and set(gaps[3:]) == {60}, when
            b.send(b"from the other side")
            p.sleep(100 * MS)
        assert p.a.state()["state"] == p.b.state()["state"] == UP

    def test_silent_peer_ends_the_session_after_the_limit(self) -> None:
        p, a, _ = opened()
        p.sleep(100 * MS)
        a.send(b"v")
        p.a.send()
        start = p.a.now
        for _ in range(40):
            p.a.now = max(p.a.now, min(p.a.deadline(), start + 60 * S))
            p.a.on_deadline()
            p.a.send()
            if p.a.state()["state"] == OVER:
                break
        assert p.a.state()["code"] == TIMEOUT and 10 * S <= p.a.now - start <= 10 * S + MS
        assert a.send(b"w") == ECLOSED and a.state()[0] == LOST

    def test_idle_session_is_not_taken_for_dead(self) -> None:
        """Found: a record that asks for no acknowledgement was waited for."""
        p, a, b = opened()
        for end in (a, b):
            end.send(b"v")
            p.run()
        p.sleep(1000 * S)
        assert p.a.state()["state"] == p.b.state()["state"] == UP

    def test_deadline_lies_ahead_whenever_nothing_is_left_to_do(self) -> None:
        """A deadline in the past with nothing to send would keep the engine busy."""
        p, a, b = opened()
        a.send(b"v")
        a_side = p.a
        for _ in range(50):  # the peer talks on but acknowledges nothing
            a_side.now += S
            a_side.on_deadline()
            a_side.send()
            peer_talk = b.send(b"w") == OK and p.b.send()
            if isinstance(peer_talk, bytes) and a_side.state()["state"] == UP:
                a_side.recv(peer_talk)
                a_side.send()
                a.take_all()
            assert a_side.state()["state"] == OVER or a_side.deadline() > a_side.now

    def test_new_epochs_come_by_blocks_during_traffic(self) -> None:
        p, a, b = opened(limits={"soft_blocks": 200, "hard_blocks": 100_000})
        rng = random.Random(5)
        sent, got = [], []
        for _ in range(60):
            value = rng.randbytes(3000)
            if a.send(value) == OK:
                sent.append(value)
            if b.send(value) == OK:
                pass
            p.run(chunk=lambda: rng.randint(1, 4000))
            got += b.take_all()
            a.take_all()
        p.run()
        got += b.take_all()
        assert got == sent and p.a.state()["updates"] > 5 and p.b.state()["updates"] > 5
        assert not p.a.wants_send() and p.a.state()["state"] == UP

    def test_new_epoch_comes_by_time(self) -> None:
        p, a, b = opened(limits={"use_ns": 2 * S})
        for _ in range(10):
            a.send(b"v")
            p.sleep(S)
        assert p.a.state()["updates"] >= 3 and b.take_all() == [b"v"] * 10

    def test_wish_for_a_new_epoch_that_must_wait_is_no_work(self) -> None:
        """Found: wants_send stayed true while the last update was not acknowledged."""
        p, a, _ = opened(limits={"soft_blocks": 50, "hard_blocks": 100_000})
        p.sleep(S)
        for _ in range(6):
            a.send(b"x" * 2000)
            p.a.send()
        assert not p.a.wants_send()


class TestCarelessUse:
    def test_small_room_for_sending_still_moves_control(self) -> None:
        p, a, _ = opened()
        a.stop()
        assert len(p.a.send(1024)) > 20

    def test_a_hundred_thousand_values_leave_nothing_behind(self) -> None:
        p, a, b = opened(capacity=1000)
        n = 0
        for _ in range(100):
            while a.send(b"v" * 10) == OK:
                n += 1
            p.run()
            assert len(b.take_all()) <= 1000
            p.run()
        assert n >= 99_000 and a.out()["own_bytes"] <= 65536 * 2 and b.in_()["held_bytes"] <= 65536 * 2
        assert p.a.state()["sent_cap"] <= 1024
