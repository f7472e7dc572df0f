"""Deadline tables of the core: fixed slots of a session, heap of an engine."""

import pytest

from netchan._core import _selftest as core

OK, EAGAIN, EINVAL = (core.RC[k] for k in ("OK", "EAGAIN", "EINVAL"))
NEVER = core.TIMER_NEVER
LOWEST = -(2**63)


class TestTimers:
    def test_timers_at_first_have_no_deadline(self) -> None:
        t = core.Timers()
        assert t.next() == NEVER == 2**63 - 1
        assert t.pop_due(NEVER) == EAGAIN
        assert [t.at(i) for i in range(core.TIMER_IDS + 1)] == [NEVER] * (core.TIMER_IDS + 1)

    def test_next_follows_set_move_and_clear(self) -> None:
        t = core.Timers()
        assert t.set(3, 100) == OK
        assert t.set(5, 50) == OK
        assert t.next() == 50
        assert t.set(5, 200) == OK  # the earliest moves back
        assert t.next() == 100
        assert t.set(3, 90) == OK
        assert t.next() == 90
        assert t.clear(3) == OK
        assert t.next() == 200
        assert t.set(5, NEVER) == OK
        assert t.next() == NEVER

    def test_pop_due_gives_earliest_first_and_each_once(self) -> None:
        t = core.Timers()
        for i, at in ((0, 30), (1, 10), (2, 20), (7, 10), (4, 99)):
            t.set(i, at)
        assert t.pop_due(9) == EAGAIN
        assert [t.pop_due(30) for _ in range(5)] == [1, 7, 2, 0, EAGAIN]
        assert t.next() == 99

    def test_pop_due_at_the_very_instant_is_due_and_one_before_is_not(self) -> None:
        t = core.Timers()
        t.set(0, 2**63 - 2)
        assert t.pop_due(2**63 - 3) == EAGAIN
        assert t.pop_due(2**63 - 2) == 0
        t.set(1, LOWEST)
        assert t.next() == LOWEST
        assert t.pop_due(LOWEST) == 1

    @pytest.mark.parametrize("bad", [core.TIMER_IDS, 2**31, 2**32 - 1])
    def test_id_out_of_range_is_refused(self, bad: int) -> None:
        t = core.Timers()
        assert t.set(bad, 1) == EINVAL
        assert t.clear(bad) == EINVAL
        assert t.next() == NEVER


class TestHeap:
    def test_heap_gives_indices_in_order_of_deadline(self) -> None:
        h = core.Theap(100)
        for i in range(100):
            assert h.set(i, (i * 37) % 101) == OK
        assert len(h) == 100
        assert h.pop_due(-1) == EAGAIN
        got = [h.pop_due(200) for _ in range(100)]
        assert got == sorted(range(100), key=lambda i: (i * 37) % 101)
        assert h.pop_due(200) == EAGAIN
        assert h.next() == NEVER

    def test_heap_entry_moves_instead_of_doubling(self) -> None:
        h = core.Theap(4)
        h.set(2, 50)
        h.set(2, 10)
        h.set(2, 70)
        h.set(1, 60)
        assert (len(h), h.at(2), h.next()) == (2, 70, 60)
        assert [h.pop_due(100) for _ in range(3)] == [1, 2, EAGAIN]

    def test_heap_clear_takes_out_any_place(self) -> None:
        for gone in range(7):
            h = core.Theap(7)
            for i in range(7):
                h.set(i, i * 10)
            assert h.clear(gone) == OK
            assert h.clear(gone) == OK  # twice is harmless
            assert h.at(gone) == NEVER
            assert [h.pop_due(100) for _ in range(7)] == [i for i in range(7) if i != gone] + [EAGAIN]

    def test_heap_last_one_that_fills_a_hole_may_have_to_rise(self) -> None:
        h = core.Theap(15)  # set in this order, each entry stays where it is put
        for i, at in enumerate([0, 100, 1, 101, 102, 2, 3, 103, 104, 105, 106, 4, 5, 6, 7]):
            h.set(i, at)
        h.clear(3)  # the last, 7, fills the place of 101 and belongs above 100
        assert [h.pop_due(7) for _ in range(9)] == [0, 2, 5, 6, 11, 12, 13, 14, EAGAIN]

    def test_heap_due_is_at_or_before_now(self) -> None:
        h = core.Theap(2)
        h.set(1, 1000)
        assert h.pop_due(999) == EAGAIN
        assert h.pop_due(1000) == 1

    def test_heap_bounds_are_kept(self) -> None:
        assert core.Theap(0).init_rc == EINVAL
        assert core.Theap(core.THEAP_MAX + 1).init_rc == EINVAL
        h = core.Theap(core.THEAP_MAX)
        assert h.init_rc == OK
        assert h.set(core.THEAP_MAX, 1) == EINVAL
        assert h.set(core.THEAP_MAX - 1, 1) == OK
        assert h.pop_due(1) == core.THEAP_MAX - 1

    def test_heap_reserve_keeps_what_is_set(self) -> None:
        h = core.Theap(2)
        h.set(1, 5)
        assert h.set(2, 1) == EINVAL
        assert h.reserve(1000) == OK
        assert h.at(999) == NEVER
        assert h.set(999, 3) == OK
        assert h.reserve(core.THEAP_MAX + 1) == EINVAL
        assert [h.pop_due(9), h.pop_due(9), h.pop_due(9)] == [999, 1, EAGAIN]
