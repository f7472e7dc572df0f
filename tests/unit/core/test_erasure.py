"""The erasure code of parity: coefficients, sums in any cut, inverses, missing symbols (docs/spec/parity.md §1)."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from typing import Any

import pytest

from netchan._core import _selftest_erasure as core
from tests.unit.core import parity_model as model

INDICES = range(core.INDEX_MAX + 1)
Ranges = list[tuple[int, int]]


def blank(m: int, size: int) -> list[bytearray]:
    return [bytearray(size) for _ in range(m)]


def summed(data: bytes, m: int, size: int) -> list[bytes]:
    """The parity symbols of data, added at once."""
    rows = blank(m, size)
    assert core.add(rows, size, 0, data) == core.OK
    return [bytes(row) for row in rows]


class TestCoefficient:
    def test_bounds_are_those_of_the_page(self) -> None:
        assert (core.SYMBOLS_MAX, core.BYTES_MAX) == (32, 16384)
        assert (core.INDEX_MAX, core.MISSING_MAX) == (30, 16)

    def test_all_are_those_of_the_model(self) -> None:
        assert [[core.coefficient(j, i) for i in INDICES] for j in INDICES] == [
            [model.coefficient(j, i) for i in INDICES] for j in INDICES
        ]

    def test_ones_stand_in_the_first_row_and_column_only(self) -> None:
        assert {core.coefficient(0, i) for i in INDICES} == {core.coefficient(j, 0) for j in INDICES} == {1}
        assert all(core.coefficient(j, i) not in (0, 1) for j in INDICES[1:] for i in INDICES[1:])

    @pytest.mark.parametrize(("j", "i"), [(-1, 0), (0, -1), (31, 0), (0, 31)])
    def test_index_out_of_range_has_none(self, j: int, i: int) -> None:
        assert core.coefficient(j, i) == 0


class TestAdd:
    @pytest.mark.parametrize(
        ("k", "m", "size"), [(1, 1, 1), (4, 1, 100), (4, 2, 1100), (8, 3, 333), (31, 1, 17), (1, 31, 9), (16, 16, 40)]
    )
    def test_rows_are_the_parity_of_the_model(self, k: int, m: int, size: int) -> None:
        data = random.Random(k * m).randbytes(k * size)
        assert summed(data, m, size) == model.parity(data, m, size)

    def test_largest_symbols_and_the_last_byte_of_the_largest_group(self) -> None:
        size = core.BYTES_MAX
        rows = blank(1, size)
        assert core.add(rows, size, 31 * size - 1, b"\x42") == core.OK
        assert rows[0] == bytes(size - 1) + b"\x42"
        assert core.add(rows, size, 31 * size, b"") == core.OK

    def test_one_parity_symbol_is_the_xor_of_the_data(self) -> None:
        assert summed(b"\x01\x02\x10\x20\x40\x80", 1, 2) == [b"\x51\xa2"]

    def test_one_data_symbol_has_copies_for_parity(self) -> None:
        assert summed(b"abc", 31, 3) == [b"abc"] * 31

    @pytest.mark.parametrize("seed", range(20))
    def test_bytes_in_any_cut_and_order_give_the_same(self, seed: int) -> None:
        rng = random.Random(seed)
        k = rng.randint(1, 31)
        m, size = rng.randint(1, 32 - k), rng.choice((1, 2, 7, 16, 31, 100, 257))
        data = rng.randbytes(k * size)
        edges = [0, *sorted(rng.choices(range(len(data) + 1), k=rng.randrange(40))), len(data)]
        cuts = list(pairwise(edges))
        rng.shuffle(cuts)
        rows = blank(m, size)
        for lo, hi in cuts:
            assert core.add(rows, size, lo, data[lo:hi]) == core.OK
        assert [bytes(row) for row in rows] == model.parity(data, m, size)

    def test_short_group_is_the_code_with_the_rest_zero(self) -> None:
        data = random.Random(1).randbytes(3 * 50 - 20)
        assert summed(data, 3, 50) == summed(data.ljust(8 * 50, b"\0"), 3, 50) == model.parity(data, 3, 50)

    def test_rows_with_an_index_are_those_symbols(self) -> None:
        data = random.Random(2).randbytes(400)
        whole = model.parity(data, 20, 100)
        rows = blank(4, 100)
        assert core.add(rows, 100, 0, data, bytes((7, 0, 19, 7))) == core.OK
        assert [bytes(row) for row in rows] == [whole[j] for j in (7, 0, 19, 7)]

    @pytest.mark.parametrize(
        ("rows", "size", "at", "n", "index"),
        [
            (0, 4, 0, 4, None),
            (32, 4, 0, 4, None),
            (1, 0, 0, 0, None),
            (1, 16385, 0, 4, None),
            (1, 4, 31 * 4, 1, None),
            (1, 4, 31 * 4 + 1, 0, None),
            (1, 4, 0, 31 * 4 + 1, None),
            (1, 4, 2**64 - 2, 4, None),
            (2, 4, 0, 4, b"\x00\x1f"),
        ],
    )
    def test_out_of_range_is_refused_and_adds_nothing(
        self, rows: int, size: int, at: int, n: int, index: bytes | None
    ) -> None:
        before = blank(rows, max(size, 4))
        assert core.add(before, size, at, b"\xff" * n, index) == core.EINVAL
        assert before == blank(rows, max(size, 4))


def turned(flat: list[bytes]) -> list[list[int]]:
    """What parity_invert writes, as the matrix it is: a row for each missing symbol."""
    return [list(column) for column in zip(*flat, strict=True)]


def some(rng: random.Random, e: int, below: int = 31) -> bytes:
    return bytes(rng.sample(range(below), e))


class TestInvert:
    @pytest.mark.parametrize("e", range(1, 17))
    def test_inverse_is_that_of_elimination(self, e: int) -> None:
        rng = random.Random(e)
        for _ in range(3):
            missing, held = some(rng, e), some(rng, e)
            matrix = [[model.coefficient(j, i) for i in missing] for j in held]
            assert turned(core.invert(missing, held)) == model.inverse(matrix)

    def test_last_indices_are_allowed(self) -> None:
        assert turned(core.invert(b"\x1e", b"\x1e")) == [[model.inv(model.coefficient(30, 30))]]

    @pytest.mark.parametrize(
        ("missing", "held"),
        [
            (b"", b""),
            (bytes(range(17)), bytes(range(17))),
            (b"\x01\x01", b"\x00\x01"),
            (b"\x00\x01", b"\x02\x02"),
            (b"\x05\x03\x05", b"\x00\x01\x02"),
            (b"\x1f", b"\x00"),
            (b"\x00", b"\x1f"),
            (b"\xff", b"\xff"),
        ],
    )
    def test_what_has_no_inverse_is_refused(self, missing: bytes, held: bytes) -> None:
        assert core.invert(missing, held) == core.EINVAL


def recovered(data: bytes, size: int, missing: bytes, held: bytes, parity: list[bytes]) -> list[bytes]:
    """The missing symbols, out of the others and the parity symbols that are held."""
    rows = [bytearray(parity[j]) for j in held]
    for i, at in enumerate(range(0, len(data), size)):
        if i not in missing:
            assert core.add(rows, size, at, data[at : at + size], held) == core.OK
    assert core.solve(rows, core.invert(missing, held), 0, size) == core.OK
    return [bytes(row) for row in rows]


def symbols(data: bytes, size: int, which: bytes) -> list[bytes]:
    return [data[i * size : (i + 1) * size] for i in which]


class TestSolve:
    @pytest.mark.parametrize("total", range(2, 9))
    def test_any_k_of_up_to_eight_symbols_are_enough(self, total: int) -> None:
        size, patterns = 5, 0
        for k in range(1, total):
            m = total - k
            data = random.Random(k).randbytes(k * size)
            parity = model.parity(data, m, size)
            for e in range(1, min(k, m) + 1):
                for missing in map(bytes, combinations(range(k), e)):
                    for held in map(bytes, combinations(range(m), e)):
                        assert recovered(data, size, missing, held, parity) == symbols(data, size, missing)
                        patterns += 1
        assert patterns == 2**total - 2 - (total - 1)

    @pytest.mark.parametrize("seed", range(60))
    def test_any_k_of_up_to_32_symbols_are_enough(self, seed: int) -> None:
        rng = random.Random(seed)
        k = 16 if seed == 0 else rng.randint(1, 31)
        m = 32 - k if seed < 20 else rng.randint(1, 32 - k)
        e = 16 if seed == 0 else rng.randint(1, min(k, m))
        size = rng.choice((1, 16, 33))
        data = rng.randbytes(k * size)
        missing, held = some(rng, e, k), some(rng, e, m)
        assert recovered(data, size, missing, held, model.parity(data, m, size)) == symbols(data, size, missing)

    @pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 511, 512, 513, 1100])
    @pytest.mark.parametrize("e", [1, 2, 5])
    def test_columns_of_any_number_are_solved_and_those_beside_stay(self, n: int, e: int) -> None:
        rng = random.Random(n)
        missing, held = some(rng, e), some(rng, e)
        before = [rng.randbytes(n + 40) for _ in range(e)]
        rows = [bytearray(row) for row in before]
        matrix = core.invert(missing, held)
        assert core.solve(rows, matrix, 13, n) == core.OK
        for b, row in enumerate(rows):
            want = bytes(n)
            for a in range(e):
                want = model.xor(want, before[a][13 : 13 + n].translate(model.table(matrix[a][b])))
            assert row == before[b][:13] + want + before[b][13 + n :]

    def test_one_missing_symbol_by_plain_xor_is_there_at_once(self) -> None:
        rows = [bytearray(b"abcd")]
        assert core.solve(rows, core.invert(b"\x07", b"\x00"), 0, 4) == core.OK
        assert rows == [b"abcd"]

    @pytest.mark.parametrize("e", [0, 17])
    def test_number_out_of_range_is_refused(self, e: int) -> None:
        rows = [bytearray(b"abcd") for _ in range(e)]
        assert core.solve(rows, [bytes(e)] * e, 0, 4) == core.EINVAL
        assert rows == [b"abcd"] * e


def missing_at(column: int, here: set[int], start: int, end: int, size: int) -> bytes:
    return bytes(i for i, x in enumerate(range(start + column, end, size)) if x not in here)


class TestGaps:
    @pytest.mark.parametrize(
        ("got", "received", "column", "found"),
        [
            ([], 0, 0, (b"\x00\x01\x02", 4)),  # 100 .. 124 in symbols of 10: the last one has 4 bytes
            ([], 0, 4, (b"\x00\x01", 10)),
            ([], 124, 0, (b"", 4)),
            ([], 124, 4, (b"", 10)),
            ([], 500, 9, (b"", 10)),
            ([(100, 124)], 0, 3, (b"", 4)),
            ([], 113, 0, (b"\x02", 3)),  # in order up to the middle of symbol 1
            ([], 113, 3, (b"\x01\x02", 4)),
            ([(115, 200)], 110, 0, (b"\x01", 4)),
            ([(115, 200)], 110, 4, (b"\x01", 5)),
            ([(115, 200)], 110, 5, (b"", 10)),
            ([(90, 103), (108, 112)], 50, 0, (b"\x02", 2)),
            ([(90, 103), (108, 112)], 50, 2, (b"\x01\x02", 3)),
            ([(90, 103), (108, 112)], 50, 3, (b"\x00\x01\x02", 4)),
            ([(90, 103), (108, 112)], 50, 8, (b"\x01", 10)),
        ],
    )
    def test_symbols_missing_from_a_column_on(
        self, got: Ranges, received: int, column: int, found: tuple[bytes, int]
    ) -> None:
        assert core.gaps(got, received, 100, 124, 10, column) == found

    def test_group_without_bytes_misses_nothing(self) -> None:
        assert core.gaps([], 0, 100, 100, 10, 0) == (b"", 10)

    def test_largest_group_may_miss_all(self) -> None:
        assert core.gaps([], 0, 0, 31 * 16384, 16384, 0) == (bytes(range(31)), 16384)

    def test_far_offsets_are_counted_as_near_ones(self) -> None:
        end = 2**62
        assert core.gaps([(end - 5, end)], 0, end - 25, end, 10, 0) == (b"\x00\x01", 5)

    @pytest.mark.parametrize(
        ("start", "end", "size", "column"),
        [(0, 10, 0, 0), (0, 10, 16385, 0), (0, 10, 10, 10), (0, 10, 10, 2**64 - 1), (11, 10, 10, 0), (0, 311, 10, 0)],
    )
    def test_out_of_range_is_refused(self, start: int, end: int, size: int, column: int) -> None:
        assert core.gaps([], 0, start, end, size, column) == core.EINVAL

    @pytest.mark.parametrize("seed", range(40))
    def test_intervals_cover_all_columns_and_are_as_long_as_they_can_be(self, seed: int) -> None:
        rng = random.Random(seed)
        size, start = rng.randint(1, 24), rng.randint(0, 50)
        end = start + rng.randint(0, min(31 * size, 120))
        received = rng.randint(0, end + 5)
        spots = sorted(rng.sample(range(received + 1, received + 140), 2 * rng.randrange(8)))
        got = list(zip(spots[::2], spots[1::2], strict=True))
        here = set(range(received)).union(*(range(lo, hi) for lo, hi in got))
        column = 0
        while column < size:
            missing, stop = core.gaps(got, received, start, end, size, column)
            assert column < stop <= size
            assert {missing_at(c, here, start, end, size) for c in range(column, stop)} == {missing}
            # Where two intervals meet, something changes: a symbol comes, goes, or is over.
            if stop < size:
                assert any(
                    (x in here, x < end) != (x - 1 in here, x - 1 < end)
                    for x in range(start + stop, start + 31 * size, size)
                )
            column = stop


class Receiver:
    """A group at the receiver: bytes that are here, and a row for each parity symbol that came.

    ``eager``: rows stand ready from the start and are filled while data come, so the data need not be kept for them.
    """

    def __init__(self, end: int, m: int, size: int, eager: bool) -> None:
        self.end, self.size, self.eager = end, size, eager
        self.data: dict[int, int] = {}
        self.index = bytes(range(m)) if eager else b""
        self.rows = blank(m, size) if eager else []
        self.held: list[int] = []

    def on_data(self, at: int, piece: bytes) -> None:
        fresh = [x for x in range(at, at + len(piece)) if x not in self.data]
        for x in fresh:
            self.data[x] = piece[x - at]
            if self.rows:
                assert core.add(self.rows, self.size, x, piece[x - at : x - at + 1], self.index) == core.OK

    def on_parity(self, j: int, symbol: bytes) -> None:
        if not self.eager:
            row = bytearray(self.size)
            for x, value in self.data.items():
                assert core.add([row], self.size, x, bytes((value,)), bytes((j,))) == core.OK
            self.rows.append(row)
            self.index += bytes((j,))
        slot = self.index.index(j)
        self.rows[slot][:] = model.xor(self.rows[slot], symbol)
        self.held.append(slot)

    def got(self) -> Ranges:
        return [(x, x + 1) for x in self.data]

    def solve(self) -> set[int]:
        """Solve what can be; returns the offsets that were won."""
        won: set[int] = set()
        column = 0
        while column < self.size:
            missing, stop = core.gaps(self.got(), 0, 0, self.end, self.size, column)
            e = len(missing)
            if 0 < e <= len(self.held):
                slots = self.held[:e]
                rows = [self.rows[slot] for slot in slots]
                matrix: Any = core.invert(missing, bytes(self.index[slot] for slot in slots))
                assert core.solve(rows, matrix, column, stop - column) == core.OK
                for i, row in zip(missing, rows, strict=True):
                    for c in range(column, stop):
                        self.data[i * self.size + c] = row[c]
                        won.add(i * self.size + c)
            column = stop
        return won


class TestReceiver:
    @pytest.mark.parametrize("eager", [True, False])
    @pytest.mark.parametrize("seed", range(25))
    def test_columns_with_different_sets_of_missing_symbols_are_solved_apart(self, seed: int, eager: bool) -> None:
        rng = random.Random(seed)
        k, m, size = rng.randint(1, 8), rng.randint(1, 4), rng.randint(1, 40)
        data = rng.randbytes(rng.randint((k - 1) * size + 1, k * size))
        parity = model.parity(data, m, size)
        r = Receiver(len(data), m, size, eager)
        events: list[tuple[int, bytes | None]] = [(j, None) for j in range(m) if rng.random() < 0.8]
        at = 0
        while at < len(data):
            n = rng.randint(1, size + 3)
            if rng.random() < 0.7:
                events.append((at, data[at : at + n]))
            at += n
        rng.shuffle(events)
        for place, piece in events:
            if piece is None:
                r.on_parity(place, parity[place])
            else:
                r.on_data(place, piece)
        before = set(r.data)
        want = {
            i * size + c
            for c in range(size)
            for i in missing_at(c, before, 0, len(data), size)
            if len(missing_at(c, before, 0, len(data), size)) <= len(r.held)
        }
        assert r.solve() == want
        assert all(data[x] == value for x, value in r.data.items())


def test_example_of_the_page() -> None:
    assert summed(bytes(range(1, 7)), 2, 2) == [b"\x07\x00", b"\xaf\x77"]
