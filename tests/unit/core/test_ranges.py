"""Range sets of the core: joins, cuts, edges of the number space, the bound."""

import pytest

from netchan._core import _selftest as core

OK, EINVAL, ELIMIT = (core.RC[k] for k in ("OK", "EINVAL", "ELIMIT"))
END = core.RANGES_END


def made(*pairs: tuple[int, int], bound: int = core.RANGES_MAX) -> core.Ranges:
    out = core.Ranges(bound)
    for lo, hi in pairs:
        assert out.add(lo, hi) == hi - lo
    return out


class TestAdd:
    @pytest.mark.parametrize(
        ("lo", "hi", "new", "after"),
        [
            (0, 5, 5, [(0, 5), (10, 20), (30, 40), (50, 60)]),  # before all, apart
            (0, 10, 10, [(0, 20), (30, 40), (50, 60)]),  # touches the first from below
            (20, 25, 5, [(10, 25), (30, 40), (50, 60)]),  # touches from above
            (20, 30, 10, [(10, 40), (50, 60)]),  # closes a gap
            (21, 29, 8, [(10, 20), (21, 29), (30, 40), (50, 60)]),  # inside a gap, apart by one
            (12, 18, 0, [(10, 20), (30, 40), (50, 60)]),  # inside a range
            (10, 20, 0, [(10, 20), (30, 40), (50, 60)]),  # the same
            (15, 35, 10, [(10, 40), (50, 60)]),  # from range to range
            (5, 65, 30, [(5, 65)]),  # over everything
            (9, 60, 21, [(9, 60)]),
            (40, 50, 10, [(10, 20), (30, 60)]),  # closes the last gap
            (60, 61, 1, [(10, 20), (30, 40), (50, 61)]),  # extends the end
            (55, 70, 10, [(10, 20), (30, 40), (50, 70)]),
            (61, 70, 9, [(10, 20), (30, 40), (50, 60), (61, 70)]),  # after all, apart
            (7, 7, 0, [(10, 20), (30, 40), (50, 60)]),  # nothing
        ],
    )
    def test_add_returns_new_values_and_joins_neighbours(
        self, lo: int, hi: int, new: int, after: list[tuple[int, int]]
    ) -> None:
        r = made((10, 20), (30, 40), (50, 60))
        assert r.add(lo, hi) == new
        assert r.list() == after
        assert r.total == sum(b - a for a, b in after)

    def test_add_at_the_end_of_the_number_space_is_exact(self) -> None:
        r = core.Ranges()
        assert r.add(END - 1, END) == 1
        assert r.contains(END - 1) == 1
        assert r.contains(END) == 0
        assert r.first_gap(END - 1) == END
        assert r.add(0, END) == END - 1
        assert r.total == END
        assert r.list() == [(0, END)]

    @pytest.mark.parametrize(("lo", "hi"), [(5, 4), (0, 2**62 + 1), (0, 2**64 - 1), (2**64 - 1, 2**64 - 1), (1, 0)])
    def test_add_outside_the_number_space_is_refused(self, lo: int, hi: int) -> None:
        r = made((10, 20))
        assert r.add(lo, hi) == EINVAL
        assert r.remove(lo, hi) == EINVAL
        assert r.list() == [(10, 20)]

    def test_add_beyond_the_bound_is_refused_and_changes_nothing(self) -> None:
        r = made((0, 1), (10, 11), (20, 21), bound=3)
        for lo in (2, 12, 30):  # first gap, middle gap, append
            assert r.add(lo, lo + 1) == ELIMIT
        assert r.remove(0, 1) == 1
        assert r.add(30, 35) == 5
        assert r.remove(31, 32) == ELIMIT  # a cut would make a fourth
        assert r.list() == [(10, 11), (20, 21), (30, 35)]
        assert r.total == 7
        assert r.add(11, 20) == 9  # joining needs no room

    def test_add_up_to_the_absolute_bound_holds_all(self) -> None:
        r = core.Ranges()
        for i in range(core.RANGES_MAX):
            assert r.add(i * 2, i * 2 + 1) == 1
        assert r.add(core.RANGES_MAX * 2, core.RANGES_MAX * 2 + 1) == ELIMIT
        assert r.cap == core.RANGES_MAX
        assert r.add(0, core.RANGES_MAX * 2) == core.RANGES_MAX
        assert r.list() == [(0, core.RANGES_MAX * 2)]

    @pytest.mark.parametrize(
        ("bound", "rc"), [(0, EINVAL), (core.RANGES_MAX + 1, EINVAL), (1, OK), (core.RANGES_MAX, OK)]
    )
    def test_init_takes_bounds_in_range_only(self, bound: int, rc: int) -> None:
        assert core.Ranges(bound).init_rc == rc


class TestRemove:
    @pytest.mark.parametrize(
        ("lo", "hi", "gone", "after"),
        [
            (0, 10, 0, [(10, 20), (30, 40)]),
            (20, 30, 0, [(10, 20), (30, 40)]),
            (40, 99, 0, [(10, 20), (30, 40)]),
            (12, 15, 3, [(10, 12), (15, 20), (30, 40)]),
            (10, 15, 5, [(15, 20), (30, 40)]),
            (15, 20, 5, [(10, 15), (30, 40)]),
            (10, 20, 10, [(30, 40)]),
            (15, 35, 10, [(10, 15), (35, 40)]),
            (0, 35, 15, [(35, 40)]),
            (0, 99, 20, []),
            (33, 33, 0, [(10, 20), (30, 40)]),
        ],
    )
    def test_remove_returns_covered_values_and_cuts(
        self, lo: int, hi: int, gone: int, after: list[tuple[int, int]]
    ) -> None:
        r = made((10, 20), (30, 40))
        assert r.remove(lo, hi) == gone
        assert r.list() == after
        assert r.total == 20 - gone

    @pytest.mark.parametrize(
        ("x", "gone", "after"),
        [
            (0, 0, [(10, 20), (30, 40)]),
            (10, 0, [(10, 20), (30, 40)]),
            (11, 1, [(11, 20), (30, 40)]),
            (20, 10, [(30, 40)]),
            (25, 10, [(30, 40)]),
            (39, 19, [(39, 40)]),
            (40, 20, []),
            (2**64 - 1, 20, []),
        ],
    )
    def test_remove_below_keeps_what_is_above(self, x: int, gone: int, after: list[tuple[int, int]]) -> None:
        r = made((10, 20), (30, 40))
        assert r.remove_below(x) == gone
        assert r.list() == after
        assert r.total == 20 - gone

    def test_drop_first_forgets_the_lowest_range_only(self) -> None:
        r = made((10, 20), (30, 40))
        r.drop_first()
        assert r.list() == [(30, 40)]
        r.drop_first()
        r.drop_first()
        assert r.list() == []


class TestAsk:
    def test_questions_at_every_edge_answer_as_the_values_say(self) -> None:
        r = made((10, 20), (30, 40))
        inside = set(range(10, 20)) | set(range(30, 40))
        for x in range(45):
            assert r.contains(x) == (x in inside)
            gap = x
            while gap in inside:
                gap += 1
            assert r.first_gap(x) == gap
            for y in range(x, 45):
                assert r.covered(x, y) == (set(range(x, y)) <= inside), (x, y)
        assert r.covered(15, 12) == 1

    def test_questions_on_an_empty_set_say_no(self) -> None:
        r = core.Ranges()
        assert (r.contains(0), r.covered(0, 1), r.first_gap(7), r.find(0)) == (0, 0, 7, 0)
        assert (r.min, r.end, r.total) == (END, 0, 0)

    @pytest.mark.parametrize("x", [END, 2**63, 2**64 - 1])
    def test_questions_beyond_the_number_space_say_no(self, x: int) -> None:
        r = made((0, END))
        assert (r.contains(x), r.first_gap(x), r.find(x)) == (0, x, 1)
        assert r.covered(0, x) == (x == END)

    def test_min_and_end_are_the_outer_edges(self) -> None:
        r = made((10, 20), (30, 40))
        assert (r.min, r.end) == (10, 40)


class TestMemory:
    def test_reserve_allots_once_and_refuses_above_the_bound(self) -> None:
        r = core.Ranges(10)
        assert r.cap == 0
        assert r.reserve(10) == OK
        assert r.cap == 10
        assert r.reserve(11) == EINVAL
        assert r.reserve(3) == OK
        assert r.cap == 10

    def test_clear_keeps_memory_and_free_gives_it_back(self) -> None:
        r = made((0, 1), (2, 3))
        r.clear()
        assert (r.list(), r.total, r.cap > 0) == ([], 0, True)
        r.free()
        assert r.cap == 0
        assert r.add(5, 6) == 1
        assert r.list() == [(5, 6)]
