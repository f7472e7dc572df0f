"""The field GF(2^8) in each form of the kernel that runs here, against a slow model (docs/spec/parity.md §1.1)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from netchan._core import _selftest_erasure as core
from netchan._core import gf256
from tests.unit.core import parity_model as model

FORMS = gf256.forms()
GUARD, LINE = 64, 32
ALL = bytes(range(256))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    before = gf256.form()
    gf256.use(request.param)
    yield request.param
    gf256.use(before)


def noise(seed: int, n: int) -> bytes:
    return random.Random(seed).randbytes(n)


class TestScalar:
    def test_all_products_are_those_of_the_model(self) -> None:
        for a in range(256):
            assert bytes(core.mul(a, b) for b in range(256)) == model.table(a)

    def test_inverse_times_its_number_is_one_and_that_of_zero_is_zero(self) -> None:
        assert core.inv(0) == 0
        assert [model.mul(a, core.inv(a)) for a in range(1, 256)] == [1] * 255


class TestChoice:
    def test_forms_end_with_the_one_that_runs_everywhere(self) -> None:
        assert FORMS[-1] == "portable"
        assert set(FORMS) <= {"gfni", "avx2", "ssse3", "portable"}
        assert len(set(FORMS)) == len(FORMS)

    def test_fastest_form_is_in_use_at_first(self) -> None:
        assert gf256.form() == FORMS[0]

    def test_use_changes_the_form_that_is_named(self, form: str) -> None:
        assert gf256.form() == form

    @pytest.mark.parametrize("name", ["", "GFNI", "avx512"])
    def test_use_of_a_form_that_does_not_run_here_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="portable"):
            gf256.use(name)
        assert gf256.form() == FORMS[0]


class TestMulAdd:
    def test_all_65536_products_in_this_form(self, form: str) -> None:
        for c in range(256):
            out = core.mul_add(c, ALL, bytes(256))
            assert out[GUARD:-GUARD] == model.table(c), c

    @pytest.mark.parametrize("c", [0, 1, 2, 0x8E, 0xFF])
    def test_any_length_and_alignment_adds_and_touches_nothing_beside(self, form: str, c: int) -> None:
        guard = b"\xa5" * GUARD
        for n in range(131):
            src, dst = noise(n, n), noise(1000 + n, n)
            want = guard + model.xor(dst, src.translate(model.table(c))) + guard
            for shift in range(LINE):
                assert core.mul_add(c, src, dst, shift, (shift * 7 + n) % LINE) == want, (n, shift)

    def test_long_buffers_agree_with_the_model(self, form: str) -> None:
        rng = random.Random(5)
        for _ in range(20):
            n, c = rng.randrange(16384), rng.randrange(256)
            src, dst = rng.randbytes(n), rng.randbytes(n)
            want = model.xor(dst, src.translate(model.table(c)))
            assert core.mul_add(c, src, dst, rng.randrange(LINE), rng.randrange(LINE))[GUARD:-GUARD] == want


class TestMulAddRows:
    @pytest.mark.parametrize("rows", [*range(10), 31])
    def test_rows_together_are_as_one_by_one(self, form: str, rows: int) -> None:
        rng = random.Random(rows)
        for n in (0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 100, 1100):
            at = rng.randrange(LINE)
            src = rng.randbytes(n)
            # A row whose coefficient is 1 is treated apart when it comes first, here or behind the first four.
            c = bytes(rng.choice((0, 1, 1, rng.randrange(256))) for _ in range(rows))
            before = [rng.randbytes(at + n + 40) for _ in range(rows)]
            got = [bytearray(row) for row in before]
            core.mul_add_rows(c, src, got, at)
            for row, was, factor in zip(got, before, c, strict=True):
                assert row[at : at + n] == model.xor(was[at : at + n], src.translate(model.table(factor)))
                assert row[:at] == was[:at]
                assert row[at + n :] == was[at + n :]
