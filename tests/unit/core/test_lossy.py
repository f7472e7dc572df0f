"""Directions whose values may be dropped: overflow, time to live, SKIP (docs/spec/session.md §4.2)."""

from __future__ import annotations

import random
import sys
from itertools import product

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.streams import AT, msg, receiver, vint

OK, EAGAIN, ECLOSED = (st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED"))
BLOCK, DROP_NEW, DROP_OLD, LATEST, DISCONNECT = range(1, 6)
MS = 1_000_000
UP, CLOSING = 0, 1
PROTOCOL = 4


def opened(
    overflow: int = 0, *, ttl_ms: int = 0, capacity: int | None = 4, theirs: int = 0, other: int | None = None
) -> tuple[st.Pair, st.End, st.End]:
    """A pair with one channel; ``a`` gives the policy, ``b`` gives ``theirs``."""
    p = st.Pair()
    a = p.a.open("x", capacity=capacity, overflow=overflow, ttl_ms=ttl_ms)
    b = p.b.open("x", capacity=other, overflow=theirs)
    p.run()
    assert a.paired and b.paired
    return p, a, b


def tick(p: st.Pair, ns: int) -> None:
    """Time goes by and nobody does anything."""
    p.a.now += ns
    p.b.now += ns


def values(*numbers: int) -> list[bytes]:
    return [b"%d" % n for n in numbers]


class TestDroppingTheOldest:
    @pytest.mark.parametrize(("overflow", "kept"), [(DROP_OLD, 4), (LATEST, 1)])
    def test_the_newest_stay_when_the_receiver_does_not_take(self, overflow: int, kept: int) -> None:
        p, a, b = opened(overflow)
        for n in range(50):
            assert a.send(b"%d" % n) == OK
            p.run()
        assert b.in_()["pending"] == kept and b.in_()["dropped"] == 50 - kept
        assert b.take_all() == values(*range(50 - kept, 50))

    @pytest.mark.parametrize(("overflow", "kept"), [(DROP_OLD, 4), (LATEST, 1)])
    def test_the_newest_stay_when_nothing_is_sent_meanwhile(self, overflow: int, kept: int) -> None:
        p, a, b = opened(overflow)
        for n in range(50):
            assert a.send(b"%d" % n) == OK
        assert a.out()["dropped"] == a.out()["gap"] == 50 - kept and a.out()["segments"] <= kept + 1
        p.run()
        assert b.in_()["skipped"] == 50 - kept and b.in_()["dropped"] == 0
        assert b.take_all() == values(*range(50 - kept, 50))
        p.run()
        assert a.out()["taken"] == 50 or b.in_()["told_taken"] < 50

    def test_a_value_that_was_begun_is_sent_to_its_end(self) -> None:
        p, a, b = opened(LATEST)
        big = bytes(100_000)
        assert a.send(big) == OK
        p.ab += p.a.send(17_000)  # one record of it
        for n in range(5):
            assert a.send(b"%d" % n) == OK
        p.run()
        assert b.take_all() == values(4) and b.in_()["dropped"] == 1
        assert b.in_()["skipped"] == 4

    def test_end_comes_behind_what_is_left(self) -> None:
        p, a, b = opened(DROP_OLD)
        for n in range(9):
            a.send(b"%d" % n)
        assert a.close() == OK
        p.run()
        assert b.take_all() == values(5, 6, 7, 8) and b.take() == ECLOSED
        assert a.send(b"late") == ECLOSED
        b.close()
        p.run()
        p.a.ready(), p.b.ready()
        assert a.forgotten() and b.forgotten()

    def test_memory_of_both_sides_stays_bounded(self) -> None:
        p, a, b = opened(DROP_OLD, capacity=3)
        for n in range(3000):
            a.send(bytes(1000) + b"%d" % n)
            if n % 7 == 0:
                p.run()
        p.run()
        assert a.out()["own_bytes"] < 70_000 and b.in_()["held_bytes"] < 140_000
        assert [v[1000:] for v in b.take_all()] == values(2997, 2998, 2999)

    def test_large_values_push_out_older_ones_before_the_budget_is_broken(self) -> None:
        p = st.Pair(peer={"session_bytes": 0})
        a, b = p.a.open("x", capacity=100, overflow=DROP_OLD), p.b.open("x")
        p.run()
        for n in range(60):
            assert a.send(b"%d" % n + bytes(30_000)) == OK
            p.run()
        assert b.in_()["held_bytes"] < 200_000
        got = [int(v.rstrip(b"\0")) for v in b.take_all()]
        assert got == list(range(60 - len(got), 60)) and 2 <= len(got) <= 4

    def test_the_window_grows_for_what_is_to_stay(self) -> None:
        p, a, b = opened(DROP_OLD, capacity=20)
        for n in range(60):
            assert a.send(b"%d" % n + bytes(30_000)) == OK
            p.run()
        assert [int(v.rstrip(b"\0")) for v in b.take_all()] == list(range(40, 60))

    def test_pinned_values_that_are_dropped_come_out(self) -> None:
        p, a, b = opened(LATEST)
        big = bytes(50_000) + b"!"
        before = sys.getrefcount(big)
        for _ in range(4):
            a.send(big, pin=True)
        assert p.a.released() == 3 and sys.getrefcount(big) == before + 1
        p.run()
        assert b.take_all() == [big]

    def test_before_the_other_side_opens_credit_holds(self) -> None:
        p = st.Pair()
        a = p.a.open("x", capacity=200, overflow=DROP_OLD)
        for n in range(500):
            assert a.send(b"%d" % n) == OK
        p.run()
        assert p.a.state()["state"] == 0, "no more than the initial credit was sent"
        b = p.b.open("x")
        p.run()
        got = [int(v) for v in b.take_all()]
        assert got == sorted(got) and got[-1] == 499 and len(got) <= 200


class TestWhoseWordCounts:
    def test_side_that_says_nothing_takes_the_word_of_the_other(self) -> None:
        p, a, b = opened(DROP_OLD, capacity=2)
        for n in range(9):
            assert b.send(b"%d" % n) == OK  # b gave no policy of its own
            p.run()
        assert a.take_all() == values(7, 8)

    def test_side_that_says_block_blocks(self) -> None:
        p, _, b = opened(DROP_OLD, capacity=2, theirs=BLOCK)
        assert [b.send(b"%d" % n) for n in range(3)] == [OK, OK, EAGAIN]
        assert p.a.state()["state"] == 0

    def test_rendezvous_of_the_other_side_becomes_one_place(self) -> None:
        p, a, b = opened(DROP_OLD, capacity=5, other=0)
        assert a.capacity == b.capacity == 1
        for n in range(4):
            assert a.send(b"%d" % n) == OK
        p.run()
        assert b.take_all() == values(3)

    @pytest.mark.parametrize("overflow", [DROP_NEW, DISCONNECT])
    def test_policies_of_the_sender_alone_change_nothing_on_the_wire(self, overflow: int) -> None:
        p, a, b = opened(overflow, capacity=2)
        assert [a.send(b"%d" % n) for n in range(3)] == [OK, OK, EAGAIN]
        p.run()
        assert b.take_all() == values(0, 1) and not b.in_()["lossy"]


class TestTimeToLive:
    def test_value_that_was_not_sent_in_time_is_skipped(self) -> None:
        p, a, b = opened(ttl_ms=50)
        a.send(b"old")
        tick(p, 60 * MS)
        a.send(b"new")
        p.run()
        assert b.take_all() == [b"new"] and b.in_()["skipped"] == 1

    def test_skipped_values_give_their_credit_back(self) -> None:
        p, a, b = opened(ttl_ms=50, capacity=2)
        for _ in range(5):
            assert [a.send(b"x"), a.send(b"y"), a.send(b"z")] == [OK, OK, EAGAIN]
            tick(p, 60 * MS)
            p.run()
            assert b.take() == EAGAIN
            p.run()
        assert b.in_()["skipped"] == 10

    def test_value_that_is_not_taken_in_time_is_dropped_there(self) -> None:
        p, a, b = opened(ttl_ms=50)
        a.send(b"old")
        p.run()
        tick(p, 30 * MS)
        a.send(b"new")
        p.run()
        tick(p, 30 * MS)
        assert b.take_all() == [b"new"] and b.in_()["dropped"] == 1
        p.run()
        assert a.out()["taken"] <= 2

    def test_time_on_the_way_to_the_path_counts(self) -> None:
        p, a, b = opened(ttl_ms=50)
        a.send(b"v")
        tick(p, 40 * MS)
        p.run()
        assert b.in_()["pending"] == 1
        tick(p, 20 * MS)
        assert b.take() == EAGAIN

    def test_deadline_cut_at_every_byte_is_read(self) -> None:
        for cut in range(12):
            s = receiver()
            s.lossy()
            data = msg(b"v", b"\x02\x04\x80\x00\x00\x32")
            assert s.data(AT, data[:cut], now=0) == OK and s.data(AT + cut, data[cut:], now=0) == OK
            assert not s.expire(49 * MS) and s.state()["dropped"] == 0
            s.expire(50 * MS)
            assert s.state()["dropped"] == 1 and s.take() == EAGAIN

    def test_deadlines_of_many_values_are_kept_apart(self) -> None:
        p, a, b = opened(ttl_ms=100, capacity=1000)
        for n in range(300):
            a.send(b"%d" % n)
            p.run()
            tick(p, MS)
        got = [int(v) for v in b.take_all()]
        assert got == list(range(300 - len(got), 300)) and 95 <= len(got) <= 100

    def test_values_without_a_deadline_do_not_take_over_that_of_another(self) -> None:
        most = 65536  # DUE_MAX
        s = receiver(capacity=1 << 20, msgs=1 << 20, bytes_=1 << 24)
        s.lossy()
        early = msg(b"", b"\x02\x04\x80\x00\x03\xe8")  # one second
        late = msg(b"late", b"\x02\x04\x80\x01\x86\xa0")  # 100 s, and no room for it
        assert s.data(AT, early * most, now=0) == OK
        assert s.data(AT + most * len(early), late, now=900 * MS) == OK
        for _ in range(most):
            assert s.take()[0] == b""
        s.expire(1001 * MS)
        assert s.take()[0] == b"late" and s.state()["dropped"] == 0

    def test_all_that_is_over_goes_however_many(self) -> None:
        s = receiver(capacity=1 << 20, msgs=1 << 20, bytes_=1 << 24)
        s.lossy()
        assert s.data(AT, msg(b"", b"\x02\x04\x80\x00\x00\x32") * 2000, now=0) == OK
        assert s.skip(2000, 7, s.state()["received"], 9) == OK
        assert s.data(s.state()["received"], msg(b"v")) == OK
        s.expire(50 * MS)
        assert s.state()["dropped"] == 2000 and s.take()[0] == b"v" and s.state()["taken"] == 2008


def test_end_behind_values_that_ran_out_of_credit_is_an_end() -> None:
    p = st.Pair()
    a = p.a.open("x", capacity=60, overflow=DROP_OLD, ttl_ms=50)
    p.run()
    room = a.out()["max_bytes"] - a.out()["appended"]
    assert a.send(bytes(room - 11)) == OK
    p.run()
    assert a.out()["sent"] == a.out()["max_bytes"], "to the last byte of the credit"
    for n in range(10):
        a.send(b"%d" % n)
    tick(p, 60 * MS)
    a.close()
    p.run()
    assert p.a.state()["state"] == p.b.state()["state"] == UP
    b = p.b.open("x")
    p.run()
    tick(p, -60 * MS)
    assert [len(v) for v in b.take_all()] == [room - 11] and b.take() == ECLOSED


class TestHostileSkip:
    """What no conforming peer says ends the session."""

    def skip(self, first: int, n: int, offset: int, size: int, *, lossy: bool = True) -> int:
        s = receiver(msgs=64)
        if lossy:
            s.lossy()
        return int(s.skip(first, n, offset, size))

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ((0, 1, 6, 10), "OK"),
            ((0, 0, 6, 10), "EFRAME"),
            ((0, 1, 6, 0), "EFRAME"),
            ((1, 1, 6, 10), "EFRAME"),
            ((0, 1, 7, 10), "EFRAME"),
            ((0, 1, 5, 10), "EFRAME"),
            ((0, 65, 6, 10), "ECREDIT"),
            ((0, 2**62 - 1, 6, 10), "ECREDIT"),
            ((2**62 - 1, 2**62 - 1, 6, 10), "EFRAME"),
            ((0, 1, 6, 2**62 - 1), "EFRAME"),
            ((0, 1, 0, 6), "EFRAME"),
        ],
    )
    def test_only_what_comes_next_may_be_skipped(self, fields: tuple[int, int, int, int], code: str) -> None:
        assert self.skip(*fields) == st.RC[code]

    def test_skip_said_twice_is_harmless(self) -> None:
        s = receiver()
        s.lossy()
        assert s.skip(0, 3, AT, 30) == s.skip(0, 3, AT, 30) == OK
        assert s.state()["taken"] == 3 and s.data(AT + 30, msg(b"v")) == OK
        assert s.take()[0] == b"v" and s.state()["skipped"] == 3

    def test_skip_inside_a_message_is_refused(self) -> None:
        s = receiver()
        s.lossy()
        assert s.data(AT, msg(b"value")[:3]) == OK
        assert s.skip(1, 1, AT + 3, 3) == st.RC["EFRAME"]

    def test_skip_beyond_the_end_is_refused(self) -> None:
        s = receiver()
        s.lossy()
        s.final(AT + 10)
        assert s.skip(0, 1, AT, 11) == st.RC["ESTATE"]
        assert s.skip(0, 1, AT, 10) == OK and s.take() == ECLOSED

    def test_mark_of_the_inbox_is_no_field_of_the_wire(self) -> None:
        s = receiver()
        s.lossy()
        assert s.data(AT, msg(b"", b"\x3d\x01\x05")) == st.RC["EUNKNOWN"]

    @pytest.mark.parametrize(("flags", "state"), [(0, CLOSING), (1, UP)])
    def test_only_a_stream_that_said_so_has_skip(self, flags: int, state: int) -> None:
        side, peer = st.Side(1), st.Peer(0)
        end = side.open("x")
        body = b"\0\1x" + vint(1) + bytes(16) + vint(0) + bytes([1, flags, 0])
        preface = vint(len(body)) + body
        side.recv(peer.seal(16, b"\x20" + vint(0) + preface))
        side.send()
        assert end.paired
        side.recv(peer.seal(16, b"\x28" + vint(0) + vint(1) + b"\1" + vint(len(preface)) + vint(9)))
        assert side.state()["state"] == state
        if state == CLOSING:
            assert side.state()["code"] == PROTOCOL

    def test_stream_that_may_lose_values_is_no_rendezvous(self) -> None:
        # found by fuzzing: the flag alone, with capacity 0, made a stream with offers and SKIP at once
        side, peer = st.Side(1), st.Peer(0)
        end = side.open("x", capacity=0)
        body = b"\0\1x" + vint(1) + bytes(16) + vint(1) + bytes([1, 1, 0])
        preface = vint(len(body)) + body
        side.recv(peer.seal(16, b"\x20" + vint(0) + preface))
        side.send()  # which gives room for one value
        assert end.paired and end.capacity == 1
        side.recv(peer.seal(16, b"\x22" + vint(len(preface)) + vint(0) + msg(b"v")))
        assert side.state()["state"] == UP and end.take_all() == [b"v"]

    def test_step_over_a_skip_reports_what_was_asked_of_one(self) -> None:
        s = receiver(capacity=1000, msgs=1 << 40)
        s.lossy()
        assert s.data(AT, msg(b"v") + msg(b"w")) == OK and s.skip(2, 5, AT + 4, 5) == OK
        s.pos()
        s.ask(0, 4)
        assert s.take()[0] == b"v"
        assert s.take()[2] == 1 and s.state()["taken"] == 7  # the fourth was skipped behind it

    @pytest.mark.parametrize("keep", [0, 1])
    def test_skips_behind_a_value_that_nobody_takes_fill_no_memory(self, keep: int) -> None:
        s = receiver(msgs=1 << 40)
        s.lossy(keep)
        assert s.data(AT, msg(b"v")) == OK
        for n in range(20_000):
            assert s.skip(1 + n, 1, AT + 2 + n, 1) == OK
        state = s.state()
        assert state["held_bytes"] <= 512 and state["skip_ahead"] == 20_000 and state["pending"] == 1
        received, taken, _, max_bytes = s.pos()
        assert (received, taken) == (AT + 2 + 20_000, 0) and received <= max_bytes < 1 << 62
        assert s.data(AT + 2 + 20_000, msg(b"w")) == OK
        got = s.take()
        assert got[0] == (b"w" if keep else b"v") and (keep or s.state()["taken"] == 20_001)

    def test_mark_longer_than_what_it_stands_for_takes_no_credit_back(self) -> None:
        s = receiver(msgs=1 << 40)
        s.lossy()
        at = AT
        for n in range(0, 14_000, 2):
            assert s.data(at, msg(b"")) == OK and s.skip(n + 1, 1, at + 1, 1) == OK
            at += 2
        assert s.state()["end"] > 5 * s.state()["received"]
        received, _, _, max_bytes = s.pos()
        assert received == at <= max_bytes <= at + s.state()["window"]

    def test_skip_of_nearly_all_offsets_leaves_the_session_talking(self) -> None:
        side, peer = st.Side(1), st.Peer(0)
        end = side.open("x", overflow=DROP_OLD)
        other = side.open("y")
        body = b"\0\1x" + vint(1) + bytes(16) + vint(0) + bytes([1, 1, 0])
        preface = vint(len(body)) + body
        side.recv(peer.seal(16, b"\x20" + vint(0) + preface))
        side.send()
        at = len(preface)
        side.recv(peer.seal(16, b"\x28" + vint(0) + vint(1) + b"\1" + vint(at) + vint(2**62 - 1 - at)))
        assert end.in_()["taken"] == 1
        other.ask(taken=1)
        end.ask(taken=1)
        assert side.send() and not side.wants_send() and side.state()["state"] == UP

    @pytest.mark.parametrize(
        "fields", [b"\x40\x40\0", b"\x40\x40\1\0", b"\x40\x40\1\6", b"\x40\x42\0", b"\x40\x42\1\0", b"\x40\x42\2\1\1"]
    )
    def test_policy_that_cannot_be_meant_is_refused(self, fields: bytes) -> None:
        side, peer = st.Side(1), st.Peer(0)
        body = b"\0\1x" + vint(1) + bytes(16) + vint(0) + bytes([1, 1, 0]) + fields
        side.recv(peer.seal(16, b"\x20" + vint(0) + vint(len(body)) + body))
        assert side.state()["code"] == PROTOCOL


@pytest.mark.parametrize(("overflow", "ttl_ms"), list(product((0, DROP_OLD, LATEST), (0, 20))))
def test_what_is_taken_is_in_order_and_every_value_is_accounted_for(overflow: int, ttl_ms: int) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        p, a, b = opened(overflow, ttl_ms=ttl_ms, capacity=rng.choice([1, 3, 16]))
        sent: list[int] = []
        got: list[int] = []
        for n in range(rng.randrange(10, 200)):
            if a.send(b"%d" % n + bytes(rng.choice([0, 10, 3000, 40_000])), pin=rng.random() < 0.2) == OK:
                sent.append(n)
            if rng.random() < 0.5:
                p.collect(rng.choice([20_000, 1 << 20]))
            if rng.random() < 0.5:
                p.deliver(rng.choice([40, 1 << 20]), rng.choice([40, 1 << 20]))
            if rng.random() < 0.3:
                tick(p, rng.randrange(8) * MS)
            while rng.random() < 0.4 and not isinstance(v := b.take(), int):
                got.append(int(v.rstrip(b"\0")))
        a.close()
        p.run()
        got += [int(v.rstrip(b"\0")) for v in b.take_all()]
        assert b.take() == ECLOSED, (seed, b.in_(), a.out())
        assert got == sorted(set(got)) and set(got) <= set(sent)
        here = b.in_()
        assert len(sent) == len(got) + here["dropped"] + here["skipped"], (seed, here, a.out())
        assert here["skipped"] == a.out()["dropped"] and here["skip_ahead"] == 0
        if not ttl_ms:
            assert not overflow or got[-1] == sent[-1], "the newest is never the one that goes"
            assert overflow or got == sent
        p.run()
        assert p.a.state()["state"] == p.b.state()["state"] == 0
