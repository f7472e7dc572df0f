"""What the sender of one direction keeps (docs/spec/session.md §2, §4, §6, docs/spec/value.md)."""

import random

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.streams import DELIVER, OK, PREFACE, msg

EAGAIN, ECLOSED, EFRAME = (st.RC[k] for k in ("EAGAIN", "ECLOSED", "EFRAME"))
FIN, ABORT_AFTER, ABORT, STOPPED, LOST, LEFT = range(1, 7)


class TestAppend:
    def test_bytes_are_head_and_body(self) -> None:
        o = st.Out()
        want = b""
        for body in (b"", b"a", b"b" * 31, b"c" * 32, b"d" * 8191, b"e" * 8192, b"f" * 40000):
            for deliver in (False, True):
                for pin in (False, True):
                    assert o.append(body, deliver, pin) == OK
                    want += msg(body, DELIVER) if deliver else msg(body)
        assert o.ready() == (len(want), False)
        assert o.read(len(want)) == want
        assert o.state()["accepted"] == 28

    @pytest.mark.parametrize("pin", [False, True])
    def test_credit_counts_messages_and_the_first_byte(self, pin: bool) -> None:
        o = st.Out(msgs=3, bytes_=10)
        assert o.append(b"x" * 8, pin=pin) == OK  # 9 bytes: the next first byte still fits
        assert o.append(b"y" * 50_000, pin=pin) == OK
        assert o.append(b"", pin=pin) == EAGAIN and not o.has_room()
        assert o.ready() == (10, False)
        o.read(10)
        assert o.ready() == (0, False)
        assert o.pos(10, 0, 3, 100_000) == 1 and o.append(b"", pin=pin) == OK
        assert o.append(b"", pin=pin) == EAGAIN  # messages
        assert o.pos(10, 0, 4, 0) == 1 and o.append(b"", pin=pin) == OK

    def test_run_is_what_its_values_are_one_by_one(self) -> None:
        for seed in range(60):
            rng = random.Random(seed)
            msgs, bytes_ = rng.choice([3, 40, 1 << 40]), rng.choice([0, 1, 66, 1000, 1 << 40])
            one, run = st.Out(msgs=msgs, bytes_=bytes_), st.Out(msgs=msgs, bytes_=bytes_)
            for _ in range(rng.randint(1, 5)):
                bodies = [
                    rng.randbytes(rng.choice([0, 1, 31, 32, 64, 500, 8191, 8192]))
                    for _ in range(rng.choice([1, 2, 64]))
                ]
                if rng.random() < 0.3:
                    assert one.reserve() == run.reserve()
                accepted = [body for body in bodies if one.append(body) == OK]
                assert accepted == bodies[: len(accepted)]
                size = sum(len(msg(body)) for body in accepted)
                assert run.append_run(bodies) == ((len(accepted), size) if accepted else (EAGAIN, 0)), seed
                n = rng.randint(0, one.ready()[0])
                assert run.ready() == one.ready() and run.read(n) == one.read(n)
                assert [run.state()[k] for k in ("accepted", "boundary", "sent_msgs")] == [
                    one.state()[k] for k in ("accepted", "boundary", "sent_msgs")
                ], seed

    def test_run_behind_a_pinned_value_has_memory_of_its_own(self) -> None:
        o = st.Out()
        pinned, bodies = b"p" * 40_000, [bytes([n]) * 50 for n in range(64)]
        assert o.append(b"first") == OK and o.append(pinned, pin=True) == OK
        whole = msg(b"first") + msg(pinned) + b"".join(map(msg, bodies))
        assert o.append_run(bodies) == (64, sum(len(msg(body)) for body in bodies))
        assert pinned == b"p" * 40_000
        ready = o.ready()[0]
        assert ready == len(whole) and o.read(ready) == whole

    def test_no_run_is_accepted_after_close_or_end(self) -> None:
        for end in (lambda o: o.close(), lambda o: o.end(ABORT)):
            o = st.Out()
            assert o.append_run([b"a", b"b"]) == (2, 4)
            end(o)
            assert o.append_run([b"x", b"y"]) == (ECLOSED, 0) and o.state()["accepted"] == 2

    def test_credit_never_shrinks(self) -> None:
        o = st.Out(msgs=5, bytes_=500)
        assert o.pos(0, 0, 2, 100) == 0
        assert (o.state()["max_msgs"], o.state()["max_bytes"]) == (5, 500)

    def test_nothing_is_accepted_after_close_or_end(self) -> None:
        for end in (lambda o: o.close(), lambda o: o.end(ABORT)):
            o = st.Out()
            end(o)
            assert o.append(b"x") == ECLOSED == o.append(b"x", pin=True) and o.has_room()
            assert o.close() == ECLOSED


class TestSenderPositions:
    def test_fin_is_ready_only_with_the_last_byte(self) -> None:
        o = st.Out(bytes_=5)
        o.append(b"1234567")
        o.close()
        assert o.ready() == (5, False)
        o.read(5)
        o.pos(5, 0, 1 << 40, 8)
        assert o.ready() == (3, True)
        o.read(3)
        assert o.ready() == (0, True)
        o.fin_was_sent()
        assert o.ready() == (0, False)

    @pytest.mark.parametrize("early", [False, True])
    def test_end_counts_as_reached_whenever_the_bytes_were(self, early: bool) -> None:
        """Found: a FIN behind bytes that had all been reported was never settled."""
        o = st.Out()
        o.append(b"abc")
        o.read(4)
        if early:
            o.pos(4, 1, 10, 10)
        o.close()
        o.fin_was_sent()
        assert not o.state()["fin_acked"]
        assert o.pos(4, 1, 10, 10) == 1 and o.state()["fin_acked"]

    def test_positions_beyond_what_was_sent_are_refused(self) -> None:
        o = st.Out()
        o.append(b"abc")
        o.append(b"def")
        o.read(4)
        assert o.pos(5, 0, 10, 10) == EFRAME and o.pos(4, 3, 10, 10) == EFRAME
        assert o.pos(2**62 - 1, 2**62 - 1, 0, 0) == EFRAME  # finished, before the end was said
        o.read(4)
        o.append(b"ghi")
        assert o.pos(8, 3, 10, 10) == EFRAME  # accepted, but not sent
        assert o.pos(8, 2, 10, 10) == 1
        o.close()
        o.read(4)
        o.fin_was_sent()
        assert o.pos(2**62 - 1, 2**62 - 1, 0, 0) == 1
        s = o.state()
        assert (s["received"], s["taken"], s["fin_acked"]) == (12, 3, 1)

    def test_numbers_at_boundaries(self) -> None:
        o = st.Out()
        o.preface(PREFACE)
        assert (o.state()["boundary"], o.state()["sent_msgs"]) == (1, 0)
        o.read(len(PREFACE))
        o.append(b"abc")
        o.append(b"def")
        o.read(2)
        assert o.state()["boundary"] == 0
        o.read(6)
        assert (o.state()["boundary"], o.state()["sent_msgs"]) == (1, 2)
        o.append(b"")
        assert (o.state()["boundary"], o.state()["sent_msgs"]) == (1, 2)


class TestSenderMemory:
    def test_every_pinned_value_comes_out_exactly_once(self) -> None:
        for seed in range(60):
            rng = random.Random(seed)
            o, pinned, released = st.Out(), 0, 0
            for _ in range(rng.randint(1, 30)):
                size = rng.choice([0, 1, 100, 40000])
                pin = rng.random() < 0.5
                pinned += pin
                assert o.append(bytes(size), pin=pin) == OK
                if rng.random() < 0.5:
                    o.read(rng.randint(0, o.ready()[0]))
                if rng.random() < 0.5:
                    o.ack(rng.randint(0, o.state()["sent"]))
                    released += o.released()
            assert released <= pinned
            if rng.random() < 0.5:
                o.read(o.ready()[0])
                o.ack(1 << 60)
                released += o.released()
                assert o.state()["segments"] <= 1, seed
            o.free()
            assert released + o.released() == pinned, seed

    def test_value_that_was_not_accepted_stays_the_callers(self) -> None:
        o = st.Out(msgs=0)
        assert o.append(b"x" * 9, pin=True) == EAGAIN and o.released() == 0

    def test_acknowledged_bytes_are_freed(self) -> None:
        o = st.Out()
        for _ in range(300):
            for _ in range(20):
                o.append(b"x" * 700)
            o.read(o.ready()[0])
            o.ack(o.state()["sent"])
        assert o.state()["own_bytes"] <= 65536

    def test_small_idle_stream_keeps_one_small_segment(self) -> None:
        o = st.Out()
        for _ in range(200):
            o.append(b"x" * 30)
            o.read(o.ready()[0])
            o.ack(o.state()["sent"])
        assert o.state()["own_bytes"] <= 1024

    def test_ack_beyond_what_was_sent_frees_no_unsent_byte(self) -> None:
        o = st.Out()
        o.append(b"abc", pin=True)
        o.ack(100)
        assert o.released() == 0 and o.read(4) == b"\x06abc"
