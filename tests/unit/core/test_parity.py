"""Parity over the bytes of a stream (parity.md §2): what is made up for, what it costs, what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core import parity_model as model
from tests.unit.core.streams import AT, OK, msg, receiver, vint
from tests.unit.core.test_paths import MS, STRIPE, Two
from tests.unit.core.test_record import HEAD, PROTOCOL, hosted, verdict

ECREDIT, ESTATE = st.RC["ECREDIT"], st.RC["ESTATE"]
PARITY = 3
BUDGET = 1 << 22


def frame(start: int, size: int, data: bytes, m: int, j: int) -> bytes:
    """The frame of symbol j of m over `data`, which begins at `start`."""
    symbol = model.parity(data, m, size)[j][: min(size, len(data))]
    head = b"".join(map(vint, (start, size, len(data), m, j)))
    return b"\x29" + head + vint(len(symbol)) + symbol


def announcement(start: int, size: int, n: int, m: int = 1) -> bytes:
    return b"\x29" + b"".join(map(vint, (start, size, n, m, 0, 0)))


def group(n: int, length: int = 40) -> tuple[list[bytes], bytes]:
    """n values and the bytes of the stream that they are."""
    values = [bytes([(65 + i) % 256]) * (length - 2) for i in range(n)]
    return values, b"".join(map(msg, values))


def taken(s: st.In) -> list[bytes]:
    out = []
    while isinstance(got := s.take(), tuple):
        out.append(got[0])
    return out


class TestReceiver:
    def test_symbol_makes_up_for_what_did_not_come(self) -> None:
        s = receiver(budget=BUDGET)
        values, data = group(3)
        assert s.symbol(announcement(AT, 40, 120)) == 0
        assert s.data(AT, data[:40]) == OK
        assert s.data(AT + 80, data[80:]) == OK
        assert taken(s) == values[:1]
        assert s.symbol(frame(AT, 40, data, 1, 0)) == 1
        assert taken(s) == values[1:]
        assert s.held()[0] == 0

    def test_what_was_taken_before_still_counts_where_a_group_was_announced(self) -> None:
        for announced in (True, False):
            s = receiver(budget=BUDGET)
            values, data = group(2)
            if announced:
                s.symbol(announcement(AT, 40, 80))
            s.data(AT, data[:40])
            assert taken(s) == values[:1]
            assert s.symbol(frame(AT, 40, data, 1, 0)) == int(announced)
            assert taken(s) == (values[1:] if announced else [])

    def test_symbol_that_came_first_waits_for_data(self) -> None:
        s = receiver(budget=BUDGET)
        values, data = group(3)
        assert s.symbol(frame(AT, 40, data, 1, 0)) == 0
        s.data(AT + 40, data[40:80])
        assert s.rebuild() == 0 and taken(s) == []
        s.data(AT + 80, data[80:])
        assert s.rebuild() == 1
        assert taken(s) == values
        assert s.rebuild() is None

    def test_the_stream_goes_on_behind_a_short_group(self) -> None:
        s = receiver(budget=BUDGET)
        values, data = group(5, 31)
        first, rest = data[:93], data[93:]  # symbols of 40, 40, 13
        s.symbol(announcement(AT, 40, 120))
        s.data(AT + 93, rest)  # is here, and belongs to another group
        s.data(AT, data[:80])
        assert s.symbol(frame(AT, 40, first, 1, 0)) == 1
        assert taken(s) == values

    def test_pieces_of_symbols_are_enough(self) -> None:
        s = receiver(budget=BUDGET)
        values, data = group(3)
        s.symbol(announcement(AT, 40, 120))
        s.data(AT + 10, data[10:55])  # missing: 10 bytes of symbol 0, 20 of symbol 1 at other columns, all of symbol 2
        s.data(AT + 75, data[75:80])
        assert s.symbol(frame(AT, 40, data, 2, 1)) == 0
        assert s.symbol(frame(AT, 40, data, 2, 0)) == 1
        assert taken(s) == values

    def test_same_symbol_twice_is_one(self) -> None:
        s = receiver(budget=BUDGET)
        values, data = group(3)
        s.symbol(announcement(AT, 40, 120))
        s.data(AT, data[:40])
        assert s.symbol(frame(AT, 40, data, 2, 1)) == 0
        assert s.symbol(frame(AT, 40, data, 2, 1)) == 0
        assert s.symbol(frame(AT, 40, data, 2, 0)) == 1
        assert taken(s) == values

    def test_group_beyond_credit_or_end_is_refused_but_may_be_announced(self) -> None:
        s = receiver(budget=BUDGET, bytes_=100)
        _, data = group(3)
        assert s.symbol(frame(AT, 40, data, 1, 0)) == ECREDIT
        assert s.symbol(announcement(AT, 40, 120)) == 0
        s = receiver(budget=BUDGET)
        s.data(AT, data[:40], True)
        assert s.symbol(frame(AT, 40, data, 1, 0)) == ESTATE
        assert s.symbol(announcement(AT, 40, 120)) == 0

    def test_without_budget_nothing_is_kept(self) -> None:
        s = receiver(budget=1000)
        _, data = group(3)
        s.symbol(announcement(AT, 40, 120))
        s.data(AT, data[:40])
        assert s.symbol(frame(AT, 40, data, 1, 0)) == 0
        assert s.held() == (0, 0, 0) and s.budget == 1000

    def test_short_frames_draw_what_they_need_and_a_session_has_a_limit(self) -> None:
        s = receiver(budget=BUDGET)
        s.symbol(frame(AT, 1, b"xy", 16, 0))
        assert s.held()[0] == 1 and s.held()[2] < 1300  # a ring of 1 KiB, 16 rows of one byte
        s.symbol(announcement(AT, 16_384, 31 * 16_384))
        assert s.budget == BUDGET - s.held()[2] and s.held()[2] < 1300  # no room for a ring of 1 MiB beside it
        s.symbol(announcement(AT, 16_384, 15 * 16_384))
        assert 1 << 19 < s.held()[2] <= 1 << 20
        s.give_back()
        assert s.budget == BUDGET

    def test_oldest_of_too_many_groups_goes_and_all_comes_back_to_the_budget(self) -> None:
        s = receiver(budget=BUDGET, bytes_=1 << 20, msgs=1000)
        values, data = group(780)
        groups = [(AT + 120 * i, data[120 * i : 120 * (i + 1)]) for i in range(260)]
        s.symbol(announcement(AT, 40, 120))
        for start, part in groups:
            s.symbol(frame(start, 40, part, 1, 0))
        assert s.held()[0] == 256
        for place, (start, part) in enumerate(groups):
            assert s.data(start, part[:80]) == OK
            known = place >= 4  # of the first four groups the rest has to come again
            assert s.rebuild(start, start + 80) == known
            assert taken(s) == values[3 * place : 3 * place + 2 + known]
            if not known:
                assert s.data(start + 80, part[80:]) == OK
                assert taken(s) == values[3 * place + 2 : 3 * place + 3]
        s.give_back()
        assert s.budget == BUDGET and s.held() is None

    def test_group_is_looked_at_so_often_and_no_more(self) -> None:
        for pieces, known in ((62, 1), (63, 0)):
            s = receiver(budget=BUDGET)
            _, data = group(9)
            s.symbol(announcement(AT, 40, 360))
            assert s.symbol(frame(AT, 40, data, 1, 0)) == 0
            for i in range(pieces):
                assert s.data(AT + 40 + i * 5, data[40 + i * 5 : 45 + i * 5]) == OK
                assert s.rebuild(AT + 40 + i * 5, AT + 45 + i * 5) == 0
                assert i or s.rebuild(AT + 360, AT + 400) == 0  # of another group: this one is not looked at
            s.data(AT + 40, data[40:])
            assert s.rebuild() == (1 if known else None)

    def test_stopped_stream_makes_up_for_nothing(self) -> None:
        s = receiver(budget=BUDGET)
        _, data = group(3)
        s.symbol(announcement(AT, 40, 120))
        s.data(AT, data[:40])
        s.stop()
        s.data(AT + 80, data[80:])
        assert s.symbol(frame(AT, 40, data, 1, 0)) == 0

    @pytest.mark.parametrize("seed", range(60))
    def test_any_losses_within_reach_in_any_order_and_cut(self, seed: int) -> None:
        rng = random.Random(seed)
        s = receiver(budget=BUDGET)
        values, stream, at, events = [], b"", AT, []
        size = rng.choice([1, 7, 40, 300])
        s.symbol(announcement(AT, size, 31 * size, 1))
        for _ in range(rng.randrange(1, 6)):
            m = rng.randrange(1, 5)
            k = rng.randrange(1, 9)
            data = b""
            while len(data) < k * size and (not data or rng.random() < 0.9):
                value = rng.randbytes(rng.choice([0, 1, 5, 60, 500]))
                values.append(value)
                data += msg(value)
            parts = [data[i : i + k * size] for i in range(0, len(data), k * size)]
            for part in parts:
                symbols = range(-(-len(part) // size))
                lost = set(rng.sample([*symbols, *(-1 - j for j in range(m))], min(m, len(symbols) + m)))
                for i in symbols:
                    if i not in lost:
                        events.append((at + i * size, part[i * size : (i + 1) * size], None))
                for j in range(m):
                    if -1 - j not in lost:
                        events.append((0, b"", frame(at, size, part, m, j)))
                at += len(part)
            stream += data
        if len(events) < 16:  # in no order at all, as long as no group has to go for another
            rng.shuffle(events)
        got: list[bytes] = []
        for offset, data, symbol in events:
            if symbol is not None:
                assert s.symbol(symbol) >= 0
                continue
            cut = rng.randrange(len(data) + 1)
            for start, piece in rng.sample([(offset, data[:cut]), (offset + cut, data[cut:])], 2):
                assert s.data(start, piece) == OK
            assert s.rebuild() in (None, 0, 1)
            if rng.random() < 0.5:
                got += taken(s)
        assert got + taken(s) == values


def pair_of(paths: int, k: int, m: int, **options: Any) -> Two:
    """Two sides with so many stream paths, whose first sends with parity; the channel has been used."""
    two = Two(capacity=None, parity=True, **options)
    for number in range(4, 2 * paths, 2):
        two.add(number)
    two.a.mode(PARITY, k, m)
    two.x.send(bytes(100))
    two.quiet()
    two.a.now += 2 * MS
    two.a.on_deadline()
    two.quiet()
    assert two.y.take_all() == [bytes(100)]
    return two


def said(two: Two) -> dict[int, bytes]:
    """All that a has to say, by path."""
    out = dict.fromkeys(two.a.paths()[0], b"")
    for _ in range(1000):
        moved = False
        for path in out:
            data = two.a.send(65536, path)
            if isinstance(data, bytes) and data:
                out[path] += data
                moved = True
        if not moved:
            break
    return out


class TestSession:
    @pytest.mark.parametrize("lost", [0, 2, 4])
    def test_loss_of_a_path_costs_no_wait(self, lost: int) -> None:
        two = pair_of(3, 2, 1)
        before = two.b.state()["rebuilt"]
        for i in range(6):  # more than one group: on each path there is something else than parity
            value = bytes([i]) * 9000
            assert two.x.send(value) == OK
            data = said(two)
            two.a.now += 2 * MS
            two.a.on_deadline()  # quiet: the group ends
            for path, more in said(two).items():
                data[path] += more
            for path in data:
                if path != lost:
                    two.b.recv(data[path], path)
            assert two.y.take_all() == [value]
        assert two.b.state()["rebuilt"] > before and two.a.state()["resent"] == 0
        two.free()

    def test_two_paths_make_it_a_mirror(self) -> None:
        two = pair_of(2, 4, 1)
        assert two.x.send(bytes(60_000)) == OK
        data = said(two)
        assert min(map(len, data.values())) > 45_000
        two.b.recv(data[2], 2)
        two.a.on_deadline()
        two.free()

    @pytest.mark.parametrize("full", [0, 2])
    def test_full_path_does_not_hold_the_stream_and_gets_its_symbols_when_it_takes_more(self, full: int) -> None:
        two = pair_of(2, 1, 1)
        free = 2 - full
        values = [bytes([i]) * 9000 for i in range(60)]
        got: list[bytes] = []
        kept = b""  # on its way, on the path that is full
        for value in values:
            assert two.x.send(value) == OK
            data = said(two)
            kept += data[full]
            two.b.recv(data[free], free)
            two.b.now += 30 * MS
            two.quiet(free)
            got += two.y.take_all()
        groups, held = two.a.late()
        assert got == values  # what the full path has in flight was not needed
        assert two.a.state()["resent"] == 0 and held <= 1 << 20 and groups * 16_000 <= held
        two.b.recv(kept, full)
        two.quiet()
        assert two.a.late()[0] == 0 and two.y.take_all() == []
        two.free()

    def test_more_losses_than_symbols_are_sent_again(self) -> None:
        two = pair_of(3, 2, 1)
        values = [bytes([i]) * 9000 for i in range(5)]
        for value in values:
            two.x.send(value)
        data = said(two)
        two.b.recv(data[2], 2)
        for path in (0, 4):
            two.a.path_lost(path)
            two.b.path_lost(path)
        two.quiet()
        two.a.now += 2 * MS
        two.a.on_deadline()
        two.quiet()
        assert two.y.take_all() == values
        two.free()

    def test_one_stream_path_has_none(self) -> None:
        two = pair_of(2, 2, 1)
        two.a.path_lost(2)
        two.b.path_lost(2)
        two.quiet()
        before = two.a.state()["parity_sent"]
        two.x.send(bytes(50_000))
        two.quiet()
        two.a.now += 2 * MS
        two.a.on_deadline()
        two.quiet()
        assert two.y.take_all() == [bytes(50_000)] and two.a.state()["parity_sent"] == before
        two.free()

    def test_group_ends_when_the_stream_is_quiet_and_asks_for_that_time(self) -> None:
        two = pair_of(3, 2, 1)
        before = two.a.state()["parity_sent"]
        two.x.send(b"one")
        said(two)
        assert two.a.state()["parity_sent"] == before
        assert two.a.deadline() <= two.a.now + MS
        two.a.now += MS
        two.a.on_deadline()
        data = said(two)
        assert two.a.state()["parity_sent"] == before + 1 and sum(map(len, data.values())) < 100
        assert two.a.deadline() > two.a.now + MS
        two.free()

    def test_end_of_the_stream_ends_its_group(self) -> None:
        two = pair_of(3, 2, 1)
        before = two.a.state()["parity_sent"]
        two.x.send(b"last")
        two.x.close()
        data = said(two)
        assert two.a.state()["parity_sent"] == before + 1 and sum(bool(part) for part in data.values()) == 2
        two.free()

    @pytest.mark.parametrize("lost", [0, 2, 4])
    def test_end_of_a_stream_comes_although_its_last_bytes_were_made_up_for(self, lost: int) -> None:
        two = pair_of(3, 2, 1)
        values = [bytes([i]) * 9000 for i in range(2)]
        for value in values:
            assert two.x.send(value) == OK
        two.x.close()
        for path, data in said(two).items():
            if path != lost:
                two.b.recv(data, path)
        # What is here, and that it is, is known over there. No copy of that is said where records are missing.
        two.quiet(*(path for path in (0, 2, 4) if path == 0 or path != lost))
        for side in (two.a, two.b):
            side.path_lost(lost)
        two.quiet()
        assert two.y.take_all() == values
        assert two.y.take() == st.RC["ECLOSED"]
        two.free()

    def test_another_mode_drops_what_was_begun(self) -> None:
        two = pair_of(3, 2, 1)
        two.x.send(b"one")
        two.quiet()
        two.a.mode(STRIPE)
        two.a.now += 5 * MS
        two.a.on_deadline()
        two.x.send(b"two")
        two.quiet()
        assert two.y.take_all() == [b"one", b"two"]
        two.free()

    def test_peer_that_did_not_say_it_knows_gets_none_and_sends_none(self) -> None:
        two = Two(capacity=None)
        two.a.mode(PARITY, 2, 1)
        two.x.send(bytes(50_000))
        two.quiet()
        two.a.now += 5 * MS
        two.a.on_deadline()
        two.quiet()
        assert two.y.take_all() == [bytes(50_000)] and two.a.state()["parity_sent"] == 0
        two.free()

    @pytest.mark.parametrize("capacity", [0, 5])
    def test_symbols_where_there_can_be_none_end_the_session(self, capacity: int) -> None:
        side, peer, _ = hosted(capacity=capacity, parity=True)
        side.recv(peer.seal(16, frame(HEAD, 40, bytes(60), 1, 0)))
        assert verdict(side) == (None if capacity else PROTOCOL)
        side.recv(peer.seal(18, frame(0, 40, bytes(60), 1, 0)))  # of a stream that nobody has opened
        assert verdict(side) == PROTOCOL
