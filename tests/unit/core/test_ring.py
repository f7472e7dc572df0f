"""Rings, leaf lock and atomics of the core: order, bounds, and several threads at once."""

import threading
from collections.abc import Callable

import pytest

from netchan._core import _selftest as rungs
from netchan._core import _selftest_mem as core

OK, EAGAIN, EINVAL = (rungs.RC[k] for k in ("OK", "EAGAIN", "EINVAL"))
M = 2**64 - 1


def run_all(*jobs: Callable[[], object]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


@pytest.mark.parametrize("kind", [core.Spsc, core.Mpsc])
class TestBothRings:
    def test_ring_is_first_in_first_out_and_bounded(self, kind: type) -> None:
        r = kind(4)
        assert r.pop() == (EAGAIN, 0, 0)
        assert [r.push(i, M - i) for i in range(5)] == [OK, OK, OK, OK, EAGAIN]
        assert len(r) == 4
        assert [r.pop() for _ in range(5)] == [(OK, i, M - i) for i in range(4)] + [(EAGAIN, 0, 0)]
        assert len(r) == 0

    def test_ring_passes_every_bit_round_after_round(self, kind: type) -> None:
        r = kind(2)
        for i in range(100):
            assert r.push(M, i) == OK
            assert r.push(0, M) == OK
            assert r.push(1, 1) == EAGAIN
            assert r.pop() == (OK, M, i)
            assert r.push(7, 7) == OK
            assert [r.pop(), r.pop(), r.pop()] == [(OK, 0, M), (OK, 7, 7), (EAGAIN, 0, 0)]

    @pytest.mark.parametrize("n", [0, 1, 3, 6, 1000, core.RING_SLOTS_MAX * 2, 2**32 - 1])
    def test_ring_size_that_is_no_power_of_two_in_range_is_refused(self, kind: type, n: int) -> None:
        assert kind(n).init_rc == EINVAL

    def test_ring_of_the_largest_size_holds_as_many(self, kind: type) -> None:
        r = kind(core.RING_SLOTS_MAX)
        assert r.init_rc == OK
        for i in range(core.RING_SLOTS_MAX):
            assert r.push(i, 0) == OK
        assert r.push(0, 0) == EAGAIN
        assert len(r) == core.RING_SLOTS_MAX


class TestSpsc:
    @pytest.mark.parametrize("start", [2**32 - 2, 2**63 - 2, 2**64 - 2])
    def test_indices_that_wrap_keep_order_and_bound(self, start: int) -> None:
        r = core.Spsc(4)
        r.start_at(start)
        for i in range(10):
            assert [r.push(i, j) for j in range(5)] == [OK] * 4 + [EAGAIN]
            assert len(r) == 4
            assert [r.pop() for j in range(5)] == [(OK, i, j) for j in range(4)] + [(EAGAIN, 0, 0)]

    @pytest.mark.parametrize("slots", [2, 64])
    def test_two_threads_see_every_descriptor_once_in_order(self, slots: int) -> None:
        r = core.Spsc(slots)
        n = 200_000
        bad: list[int] = []
        run_all(lambda: r.hammer_push(n), lambda: bad.append(r.hammer_pop(n)))
        assert bad == [0]
        assert len(r) == 0


class TestMpsc:
    def test_claimed_slot_that_is_not_filled_holds_back_later_ones(self) -> None:
        r = core.Mpsc(4)
        pos = r.claim_only()
        assert r.push(2, 2) == OK
        assert r.pop() == (EAGAIN, 0, 0)
        assert len(r) == 2
        r.fill(pos, 1, 1)
        assert [r.pop(), r.pop(), r.pop()] == [(OK, 1, 1), (OK, 2, 2), (EAGAIN, 0, 0)]

    @pytest.mark.parametrize("slots", [2, 64])
    def test_three_producers_lose_nothing_and_keep_each_ones_order(self, slots: int) -> None:
        r = core.Mpsc(slots)
        n = 60_000
        bad: list[int] = []
        run_all(*(lambda who=who: r.hammer_push(who, n) for who in range(3)), lambda: bad.append(r.hammer_pop(3, n)))
        assert bad == [0]
        assert len(r) == 0


class TestLeafLock:
    def test_lock_states_follow_lock_trylock_unlock(self) -> None:
        lock = core.Leaf()
        assert (lock.held, lock.word) == (0, 0)
        lock.lock()
        assert (lock.held, lock.word) == (1, 1)
        assert lock.trylock() == 0
        lock.unlock()
        assert lock.trylock() == 1
        lock.unlock()
        assert lock.word == 0

    def test_waiter_sleeps_until_the_holder_leaves(self) -> None:
        lock = core.Leaf()
        lock.lock()
        got = threading.Event()

        def wait() -> None:
            lock.lock()
            got.set()

        t = threading.Thread(target=wait)
        t.start()
        while lock.word != 2:  # the waiter says that it goes to sleep
            assert not got.is_set()
        lock.unlock()
        t.join()
        assert got.is_set()
        assert lock.held == 1
        lock.unlock()
        assert lock.word == 0

    @pytest.mark.parametrize("copy_bytes", [0, 4096])
    def test_four_threads_are_never_inside_together(self, copy_bytes: int) -> None:
        lock = core.Leaf()
        torn: list[int] = []
        run_all(*(lambda: torn.append(lock.hammer(50_000, copy_bytes)) for _ in range(4)))
        assert torn == [0] * 4
        assert lock.counts == (200_000, 200_000)
        assert lock.word == 0


class TestAtomics:
    @pytest.mark.parametrize(("bits", "fn"), [(32, core.atomics_u32), (64, core.atomics_u64)])
    @pytest.mark.parametrize(("start", "v"), [(5, 3), (0, 1), (-1, 1), (-1, -1), (0, -1), (2**31, 2**31)])
    def test_helpers_return_the_value_before_and_wrap(
        self, bits: int, fn: Callable[[int, int], dict[str, tuple[int, int]]], start: int, v: int
    ) -> None:
        m = 2**bits
        start, v = start % m, v % m
        want = {
            "add": (start, (start + v) % m), "sub": (start, (start - v) % m), "or": (start, start | v),
            "and": (start, start & v), "xchg": (start, v), "cas_hit": (1, v), "cas_miss": (0, start),
            "rlx": (v, v), "rel": (start, start), "seq": (v, v),
        }  # fmt: skip
        got = fn(start, v)
        assert got == {k: want[k] for k in got}
        assert len(got) == (10 if bits == 32 else 8)
