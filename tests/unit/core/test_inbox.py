"""What the receiver of one direction keeps (docs/spec/session.md §2, §4, §6, docs/spec/value.md)."""

import random

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.streams import AT, DELIVER, OK, PREFACE, msg, receiver, vint

EAGAIN, ECLOSED, EFRAME, ELIMIT, ESTATE, ECREDIT, ESPACE, EUNKNOWN = (
    st.RC[k] for k in ("EAGAIN", "ECLOSED", "EFRAME", "ELIMIT", "ESTATE", "ECREDIT", "ESPACE", "EUNKNOWN")
)
FIN, ABORT_AFTER, ABORT, STOPPED, LOST, LEFT = range(1, 7)


def filling(n: int) -> bytes:
    """n bytes of fields that may be skipped; n = 0, or 2 and more."""
    if n in (0, 1):
        return b""
    if n < 60:
        return vint(8) + vint(n - 2) + bytes(n - 2)
    return vint(0x42) + vint(n - 4).rjust(2, b"\x40") + bytes(n - 4)


class TestPreface:
    @pytest.mark.parametrize("length", [1, 63, 64, 1024])
    def test_preface_arrives_however_it_is_cut(self, length: int) -> None:
        body = bytes(range(256)) * 4
        data = vint(length) + body[:length]
        for step in (1, 2, 3, len(data)):
            s = st.In(capacity=0)
            for at in range(0, len(data), step):
                assert s.preface() is None
                assert s.data(at, data[at : at + step]) == OK
            assert s.preface() == body[:length] and s.state()["received"] == len(data)
            assert s.state()["msgs"] == 0

    @pytest.mark.parametrize("length", [0, 1025, 2**30, 2**62 - 1])
    def test_preface_of_no_or_too_great_length_is_refused(self, length: int) -> None:
        assert st.In(capacity=0).data(0, vint(length) + b"x" * 20) == EFRAME

    def test_stream_that_ends_before_its_preface_is_malformed(self) -> None:
        assert st.In(capacity=0).data(0, b"", True) == EFRAME
        assert st.In(capacity=0).data(0, PREFACE[:3], True) == EFRAME
        assert st.In(capacity=0).data(0, PREFACE, True) == OK


def cut(rng: random.Random, data: bytes, base: int) -> list[tuple[int, bytes]]:
    """The bytes in pieces that overlap, repeat and come in any order."""
    out = []
    at = 0
    while at < len(data):
        n = rng.choice([1, 2, 7, 30, 400, 5000])
        out.append((base + at, data[at : at + n]))
        if rng.random() < 0.3:
            lo = rng.randint(0, at)
            out.append((base + lo, data[lo : lo + rng.randint(0, 600)]))
        at += n
    return out


class TestReceiving:
    @pytest.mark.parametrize("order", ["in order", "near", "any"])
    def test_values_are_whole_whatever_way_the_bytes_come(self, order: str) -> None:
        for seed in range(60):
            rng = random.Random(f"{order}{seed}")
            values = [rng.randbytes(rng.choice([0, 1, 31, 32, 100, 3000])) for _ in range(rng.randint(1, 20))]
            marks = [rng.random() < 0.3 for _ in values]
            data = b"".join(msg(v, DELIVER if m else None) for v, m in zip(values, marks, strict=True))
            pieces = cut(rng, data, AT)
            if order == "any":
                rng.shuffle(pieces)
            elif order == "near":
                pieces = [p for _, p in sorted((i + rng.randint(0, 3), p) for i, p in enumerate(pieces))]
            s = receiver(bytes_=1 << 20)
            got: list[tuple[bytes, bool]] = []
            for offset, piece in pieces:
                assert s.data(offset, piece) == OK, seed
                if rng.random() < 0.5:
                    while not isinstance(one := s.take(), int):
                        got.append(one[:2])
                assert s.state()["gaps"] <= 1024
            assert s.data(AT + len(data), b"", True) == OK
            while not isinstance(one := s.take(), int):
                got.append(one[:2])
            assert one == ECLOSED and got == list(zip(values, marks, strict=True)), seed
            state = s.state()
            assert (state["gaps"], state["early_bytes"], state["over"]) == (0, 0, FIN) and state["held_bytes"] <= 65536

    @pytest.mark.parametrize("size", [65535, 65536, 70_000, 1_000_000])
    def test_long_value(self, size: int) -> None:
        value = random.Random(size).randbytes(size)
        data = msg(b"before") + msg(value) + msg(b"behind")
        s = receiver(bytes_=1 << 30)
        for at in range(0, len(data), 9999):
            assert s.data(AT + at, data[at : at + 9999]) == OK
        assert [s.take()[0] for _ in range(3)] == [b"before", value, b"behind"]
        assert s.take() == EAGAIN and s.state()["held_bytes"] <= 65536

    def test_receiver_with_nothing_to_take_holds_one_small_segment(self) -> None:
        s, at = receiver(bytes_=1 << 30, msgs=1 << 20), AT
        for i in range(50):
            data = msg(bytes(40 if i % 2 else 30_000))
            assert s.data(at, data) == OK and s.take()[0] == bytes(40 if i % 2 else 30_000)
            at += len(data)
            assert s.state()["held_bytes"] <= 512

    def test_value_is_not_seen_before_its_last_byte(self) -> None:
        data = msg(b"abc", DELIVER)
        s = receiver()
        for i, x in enumerate(data):
            assert s.take() == EAGAIN and s.pending() == 0
            assert s.data(AT + i, bytes([x])) == OK
        assert s.take()[:2] == (b"abc", True)

    @pytest.mark.parametrize("block", [2, 4, 5, 20, 21, 22, 23, 24, 100, 1024])
    def test_block_with_fields_of_even_types_is_skipped(self, block: int) -> None:
        for deliver in (b"", DELIVER):
            whole = deliver + filling(block - len(deliver))
            data = msg(b"body", whole)
            for step in (1, 10, len(data)):
                s = receiver()
                for at in range(0, len(data), step):
                    assert s.data(AT + at, data[at : at + step]) == OK
                assert s.take()[:2] == (b"body", deliver == DELIVER)

    @pytest.mark.parametrize("fields", [0, 2, 19, 20, 21, 100, 700, 1022])
    def test_deliver_is_seen_wherever_it_stands_in_the_block(self, fields: int) -> None:
        data = msg(b"body", filling(fields) + DELIVER) + msg(b"next")
        for step in (1, 2, 3, 300, len(data)):
            s = receiver()
            for at in range(0, len(data), step):
                assert s.data(AT + at, data[at : at + step]) == OK
            assert s.take()[:2] == (b"body", True) and s.take()[:2] == (b"next", False)

    def test_fields_of_a_discarded_message_are_checked_too(self) -> None:
        s = receiver()
        s.stop()
        assert s.data(AT, msg(b"x", filling(20))) == OK
        assert s.data(s.state()["received"], msg(b"x", b"\x07\x00")) == EUNKNOWN

    def test_value_longer_than_the_window_is_granted_to_its_end_behind_its_block(self) -> None:
        s = receiver(capacity=4, window=65536)
        s.pos()
        data = msg(bytes(200_000), filling(1000))
        at = 0
        while at < len(data):
            piece = data[at : s.state()["granted_bytes"] - AT]
            assert piece and s.data(AT + at, piece) == OK
            at += len(piece)
            s.pos()
        assert len(s.take()[0]) == 200_000

    @pytest.mark.parametrize("step", [1, 2, 100])
    @pytest.mark.parametrize(
        ("block", "code"),
        [
            (b"\x03\x00", EUNKNOWN),  # references: their capability is not announced
            (vint(65) + b"\x01x", EUNKNOWN),
            (b"\x04\x01x" + vint(2**61 + 1) + b"\x00", EUNKNOWN),
            (b"\x02\x00", EFRAME),  # a deadline without a figure
            (b"\x02\x01x", EFRAME),  # half a figure
            (b"\x02\x02\x05\x05", EFRAME),  # more than a figure
            (b"\x02\x09" + bytes(9), EFRAME),
            (b"\x01\x01x", EFRAME),  # deliver has no value
            (b"\x06\x02\x01\x05", EFRAME),  # compressed, though no preface agreed
            (b"\x02", EFRAME),  # a type without its length
            (b"\x02\x05abc", EFRAME),  # a value longer than the block
            (b"\x40", EFRAME),  # half a type
            (b"\x02" + vint(2**61), EFRAME),
        ],
    )
    def test_block_that_cannot_be_understood_is_refused(self, block: bytes, code: int, step: int) -> None:
        for before in (b"", DELIVER, filling(40)):
            data = msg(b"body", before + block)
            s = receiver()
            codes = [s.data(AT + at, data[at : at + step]) for at in range(0, len(data), step)]
            first = next(rc for rc in codes if rc != OK)
            assert first == code
            assert s.take() == EAGAIN

    @pytest.mark.parametrize("step", [1, 100])
    @pytest.mark.parametrize(
        ("data", "code"),
        [(vint(1) + vint(1025), EFRAME), (vint(2 * 101), ELIMIT), (vint(2 * (2**61 - 1)), ELIMIT)],
    )
    def test_too_long_block_or_body_is_refused(self, data: bytes, code: int, step: int) -> None:
        s = receiver()
        codes = [s.data(AT + at, data[at : at + step], max_message=100) for at in range(0, len(data), step)]
        assert codes[-1] == code and set(codes[:-1]) <= {OK}
        assert receiver().data(AT, vint(200) + b"x" * 100, max_message=100) == OK


class TestRun:
    """Many small values, taken where they lie."""

    def test_values_are_those_that_are_taken_one_by_one(self) -> None:
        for seed in range(60):
            rng = random.Random(seed)
            bodies = [rng.randbytes(rng.choice([0, 1, 31, 32, 64, 300, 8191, 8192])) for _ in range(60)]
            data = b"".join(msg(b, DELIVER if rng.random() < 0.1 else None) for b in bodies)
            s = receiver(msgs=100, bytes_=1 << 30)
            at, got, runs = 0, [], 0
            while len(got) < len(bodies):
                n = rng.choice([1, 50, 700, 20_000])
                assert s.data(AT + at, data[at : at + n]) == OK
                at = min(at + n, len(data))
                while len(got) < s.state()["msgs"] and rng.random() < 0.9:
                    values, _ = s.take_run(rng.choice([1, 5, 100]))
                    got += values
                    runs += len(values) > 1
                    assert s.state()["taken"] == len(got)
                    if not values:
                        got.append(s.take()[0])
            assert got == bodies and s.take() == EAGAIN and runs, seed
            assert s.state()["take_off"] == s.state()["end"] == AT + len(data) and s.state()["held_bytes"] <= 512

    def test_value_that_is_marked_or_not_whole_is_not_in_it(self) -> None:
        s = receiver()
        s.data(AT, msg(b"a") + msg(b"b") + msg(b"c", DELIVER) + msg(b"d") + msg(b"e" * 30)[:9])
        assert s.take_run(9)[0] == [b"a", b"b"] and s.take_run(9)[0] == []
        assert s.take()[:2] == (b"c", True)
        assert s.take_run(9)[0] == [b"d"] and s.take_run(9)[0] == [] and s.take() == EAGAIN

    @pytest.mark.parametrize("why", [ABORT, STOPPED])
    def test_nothing_is_taken_that_is_over(self, why: int) -> None:
        s = receiver()
        s.data(AT, msg(b"a") + msg(b"b"))
        s.over(why)
        assert s.take_run(9) == ([], 0) and s.state()["taken"] == 0

    def test_values_before_an_end_are_taken(self) -> None:
        s = receiver()
        s.data(AT, msg(b"a") + msg(b"b"), True)
        assert s.take_run(9) == ([b"a", b"b"], 1) and s.take() == ECLOSED

    def test_values_that_may_go_or_are_offers_are_taken_one_by_one(self) -> None:
        for other in (lambda s: s.lossy(), lambda s: s.rendezvous()):
            s = receiver()
            other(s)
            s.data(AT, msg(b"a") + msg(b"b"))
            assert s.take_run(9) == ([], 0) and s.take()[0] == b"a"

    @pytest.mark.parametrize("bad", [msg(b"x" * 40), msg(b"y" * 41, DELIVER)])
    def test_value_among_others_is_checked_like_a_first_one(self, bad: bytes) -> None:
        good = msg(b"1") + msg(b"2" * 39)
        assert receiver().data(AT, good + bad + good, max_message=39) == ELIMIT
        assert receiver(msgs=2).data(AT, good + bad) == ECREDIT
        s = receiver(msgs=3)
        assert s.data(AT, good + bad) == OK and s.state()["msgs"] == s.state()["started"] == 3


class TestEnd:
    def test_end_may_be_repeated_but_not_moved(self) -> None:
        s = receiver()
        assert s.data(AT, msg(b"abc"), True) == OK
        assert s.data(AT, msg(b"abc"), True) == OK == s.data(AT + 4, b"", True)
        assert s.data(AT + 3, b"", True) == ESTATE == s.data(AT + 4, b"x")
        assert s.data(AT + 5, b"", True) == ESTATE
        assert s.take()[0] == b"abc" and s.take() == ECLOSED

    def test_end_below_what_is_here_is_refused(self) -> None:
        s = receiver()
        assert s.data(AT, msg(b"abc")) == OK and s.data(AT + 1, b"", True) == ESTATE
        s = receiver()
        assert s.data(AT + 50, b"xyz") == OK and s.data(AT + 40, b"", True) == ESTATE

    def test_end_known_before_its_bytes(self) -> None:
        s = receiver()
        assert s.data(AT + 4, b"", True) == OK and s.take() == EAGAIN and s.state()["over"] == 0
        assert s.data(AT, msg(b"abc")) == OK
        assert s.take()[0] == b"abc" and s.take() == ECLOSED

    @pytest.mark.parametrize("part", [b"\x08abc", b"\x40", b"\x01", b"\x03\x40", b"\x03\x02\x01"])
    def test_end_inside_a_message_is_malformed(self, part: bytes) -> None:
        assert receiver().data(AT, part, True) == EFRAME


class TestCredit:
    def test_messages_beyond_the_grant_are_refused(self) -> None:
        for step in (1, 50):
            s = receiver(msgs=2)
            data = msg(b"a") + msg(b"b") + msg(b"c" * 40)
            codes = [s.data(AT + at, data[at : at + step]) for at in range(0, len(data), step)]
            first_bad = codes.index(ECREDIT)
            assert first_bad == (4 if step == 1 else 0)

    def test_bytes_beyond_the_grant_are_refused_even_before_their_turn_and_after_a_stop(self) -> None:
        """Found: after a stop bytes at any offset were kept without a bound."""
        s = receiver(bytes_=100)
        assert s.data(99, b"x") == OK and s.data(100, b"x") == ECREDIT and s.data(2**61, b"x") == ECREDIT
        assert s.data(AT, b"x" * 96) == ECREDIT
        s.stop()
        assert s.data(100, b"x") == ECREDIT and s.data(2**61, b"x" * 5) == ECREDIT

    def test_gap_table_is_bounded(self) -> None:
        s = receiver()
        codes = [s.data(AT + 1 + 2 * i, b"x") for i in range(1100)]
        assert codes == [OK] * 1024 + [EAGAIN] * 76
        assert s.data(AT + 1, b"x") == OK and s.data(AT, b"x" * 2200) == OK and s.state()["early"] == 0

    def test_bytes_behind_a_gap_take_few_pieces_and_little_room(self) -> None:
        """One lost datagram, and all that came after it, byte by byte at worst."""
        s = receiver(bytes_=1 << 20, capacity=100)
        data = msg(bytes(60_000)) + msg(b"behind")
        for at in range(1, len(data)):
            assert s.data(AT + at, data[at : at + 1]) == OK
        state = s.state()
        assert state["early"] <= 20 and state["early_bytes"] <= 2 * len(data) and state["gaps"] == 1
        assert s.data(AT, data[:1]) == OK
        assert s.take()[0] == bytes(60_000) and s.take()[0] == b"behind" and s.state()["early"] == 0

    def test_pieces_that_come_backwards_are_bounded(self) -> None:
        """Each lies before the one that came last, so none has room at its end; one run only, so no gap counts them."""
        s = receiver()
        codes = [s.data(AT + 4000 - i, b"x") for i in range(3000)]
        assert codes == [OK] * 2048 + [EAGAIN] * 952 and s.state()["early"] == 2048 and s.state()["gaps"] == 1


class TestPositions:
    def test_positions_only_grow_and_the_grant_keeps_its_bounds(self) -> None:
        for seed in range(40):
            rng = random.Random(seed)
            capacity = rng.choice([1, 2, 10, 1000])
            s = receiver(
                capacity=capacity, window=65536, budget=rng.choice([0, 100_000, 1 << 24]), msgs=rng.choice([1, 64])
            )
            budget = s.budget
            pending, at, last = b"", AT, (0, 0, 0, 0)
            for _ in range(300):
                state = s.state()
                if not pending and state["started"] < state["granted_msgs"]:
                    pending = msg(bytes(rng.choice([0, 10, 3000, 200_000])))
                room = state["granted_bytes"] - at
                n = min(len(pending), room, rng.choice([1, 1000, 30000]))
                assert s.data(at, pending[:n]) == OK
                pending, at = pending[n:], at + n
                if rng.random() < 0.6:
                    s.take()
                due = s.due()
                got = s.pos(force=rng.random() < 0.2)
                if got is not None:
                    assert all(x >= y for x, y in zip(got, last, strict=True)), seed
                    last = got
                else:
                    assert not due
                state = s.state()
                in_message = len(pending)
                assert state["granted_msgs"] <= max(64, state["taken"] + capacity)
                assert state["granted_bytes"] <= max(16384, state["take_off"] + state["window"], at + in_message)
                assert state["window"] == 65536 + state["grown"] <= 4 << 20
                assert state["grown"] + state["lent"] + s.budget == budget

    def test_pos_is_due_after_a_quarter_of_the_capacity(self) -> None:
        s = receiver(capacity=100, msgs=1000)
        s.pos()
        data = msg(b"v") * 60
        assert s.data(AT, data) == OK and not s.due()
        for i in range(50):
            assert s.due() == (i >= 25) and s.take()[0] == b"v"
        assert s.pos(force=False)[1:3] == (50, 1000) and not s.due()

    def test_pos_is_due_at_once_when_the_sender_can_send_no_more(self) -> None:
        s = receiver(capacity=100, msgs=10)
        s.pos()
        granted = s.state()["granted_msgs"]
        assert s.data(AT, msg(b"v") * granted) == OK and not s.due()
        assert s.take()[2] in (1, 2) and s.due()

    def test_pos_that_does_not_fit_changes_nothing(self) -> None:
        s = receiver()
        s.data(AT, msg(b"v") * 3)
        before = s.state()
        assert s.pos(room=6) == ESPACE and s.state() == before

    def test_marked_value_and_asked_position_are_due(self) -> None:
        s = receiver(capacity=100)
        s.pos()
        s.data(AT, msg(b"a") + msg(b"b", DELIVER) + msg(b"c") * 2)
        assert s.take()[2] == 0 and not s.due()
        assert s.take()[2] == 1 and s.due()
        s.pos()
        s.ask(0, 3)
        assert not s.due() and s.take()[2] == 1 and s.due()
        s.pos()
        assert not s.due() and s.state()["asked"] == 0

    def test_step_over_several_values_reports_what_was_asked_of_one(self) -> None:
        s = receiver(capacity=1000, msgs=100)
        s.data(AT, msg(b"x") * 9)
        s.pos()
        s.ask(0, 3)
        assert s.take_run(2) == ([b"x"] * 2, 1)
        assert s.take_run(5) == ([b"x"] * 5, 1)  # among them the one that was asked for
        assert s.take_run(1) == ([b"x"], 0)

    def test_last_take_is_reported(self) -> None:
        s = receiver(capacity=100)
        s.pos()
        s.data(AT, msg(b"a") + msg(b"b"), True)
        assert not s.due() and s.take()[2] == 0
        assert s.take()[2] == 1 and s.due() and s.pos(force=False)[:2] == (AT + 4, 2)
        assert not s.due()

    def test_nothing_is_granted_before_we_opened_or_after_a_stop(self) -> None:
        s = st.In(capacity=0)
        s.data(0, PREFACE + msg(b"a") * 64)
        assert not s.due()
        s = receiver()
        s.stop()
        assert not s.due() and s.pos() is None


class TestOver:
    def test_stop_discards_and_counts(self) -> None:
        s = receiver()
        s.data(AT, msg(b"abc") * 5 + msg(b"half")[:3])
        s.take()
        assert s.stop() == 4 and s.take() == ECLOSED and s.pending() == 0
        at = s.state()["received"]
        assert s.data(at, msg(b"half")[3:] + msg(b"late")) == OK
        state = s.state()
        assert state["discarded"] == 4 and state["dropped_bytes"] == 7 and state["received"] == at + 7
        assert state["msgs"] == 5

    @pytest.mark.parametrize("why", [ABORT, STOPPED])
    def test_what_is_discarded_is_not_reported_as_taken(self, why: int) -> None:
        s = receiver()
        s.data(AT, msg(b"a") + msg(b"b"))
        s.over(why)
        assert s.discard() == 2 and s.pos() is None  # the engine has not said yet that this is over

    def test_abort_gives_nothing_and_abort_after_gives_what_is_before_its_end(self) -> None:
        s = receiver()
        s.data(AT, msg(b"abc") * 2)
        s.over(ABORT, 7, b"why")
        assert s.take() == ECLOSED and s.pending() == 0 and (s.state()["code"], s.state()["reason"]) == (7, b"why")
        s = receiver()
        s.data(AT, msg(b"abc"))
        s.final(AT + 8)
        s.over(ABORT_AFTER, 8)
        assert s.take()[0] == b"abc" and s.take() == EAGAIN
        s.data(AT + 4, msg(b"def"))
        assert s.take()[0] == b"def" and s.take() == ECLOSED

    @pytest.mark.parametrize("why", [ABORT, STOPPED])
    def test_first_abort_or_stop_counts(self, why: int) -> None:
        for later in range(1, 7):
            s = receiver()
            s.over(why, 7)
            s.over(later, 8)
            assert (s.state()["over"], s.state()["code"]) == (why, 7)

    def test_complete_stream_stays_complete_when_the_session_goes(self) -> None:
        for later in (ABORT_AFTER, LOST, LEFT):
            s = receiver()
            s.data(AT, msg(b"abc"), True)
            s.over(later)
            assert s.state()["over"] == FIN and s.take()[0] == b"abc"
        for later in (LOST, LEFT):
            s = receiver()
            s.data(AT, msg(b"abc"))
            s.final(AT + 4)
            s.over(ABORT_AFTER, 5)
            s.over(later)
            assert s.state()["over"] == ABORT_AFTER  # found: it became lost
            s = receiver()
            s.final(AT + 4)
            s.over(ABORT_AFTER, 5)
            s.over(later)
            assert s.state()["over"] == later and s.take() == ECLOSED

    def test_reason_is_cut_to_its_field(self) -> None:
        s = receiver()
        s.over(ABORT, 1, b"r" * 300)
        assert s.state()["reason"] == b"r" * 256
