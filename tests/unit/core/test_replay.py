"""Anti-replay window (RFC 6479; core decision 25): seen or too old is refused, nothing moves before commit."""

import pytest

from netchan._core import _selftest as core

OK, EINVAL, EREPLAY = (core.RC[k] for k in ("OK", "EINVAL", "EREPLAY"))
BITS = core.REPLAY_BITS
LAST = core.REPLAY_LAST


class TestWindow:
    def test_number_committed_once_is_refused_afterwards(self) -> None:
        w = core.Replay()
        for n in (0, 1, 5, 3):
            assert w.check(n) == 1
            assert w.commit(n) == OK
            assert w.check(n) == 0
            assert w.commit(n) == EREPLAY
        assert [w.check(n) for n in range(7)] == [0, 0, 1, 0, 1, 0, 1]
        assert w.next == 6

    def test_check_does_not_advance_the_window(self) -> None:
        w = core.Replay()
        w.commit(10)
        for n in (LAST - 1, 10**9, 11):
            assert w.check(n) == 1
        assert w.next == 11
        assert w.check(0) == 1  # a forged far number has moved nothing
        assert w.counters == (0, 0, 0)

    @pytest.mark.parametrize("bits", [64, 128, BITS, core.REPLAY_BITS_MAX])
    def test_window_reaches_back_exactly_its_size(self, bits: int) -> None:
        w = core.Replay(bits)
        top = 10 * bits + 7
        assert w.commit(top) == OK
        assert w.check(top - bits) == 0
        assert w.counters == (1, 0, 0)
        assert w.check(top - bits + 1) == 1
        assert w.commit(top - bits + 1) == OK
        assert w.check(top - bits + 1) == 0
        assert w.counters == (1, 1, 0)

    @pytest.mark.parametrize("jump", [1, 2, 63, 64, 65, 127, 128, 129, BITS - 1, BITS, BITS + 1, 3 * BITS + 5])
    def test_jump_of_any_length_forgets_nothing_inside_and_keeps_nothing_stale(self, jump: int) -> None:
        w = core.Replay()
        seen = set(range(0, BITS, 3))
        for n in seen:
            assert w.commit(n) == OK
        top = w.next - 1 + jump
        assert w.commit(top) == OK
        seen.add(top)
        for n in range(max(0, top - BITS - 2), top + 3):
            assert w.check(n) == (n not in seen and n > top - BITS), n

    def test_reordering_within_8000_is_never_refused(self) -> None:
        w = core.Replay()
        assert all(w.commit(n) == OK for block in range(0, 32000, 8000) for n in range(block + 7999, block - 1, -1))

    def test_last_number_is_refused_and_one_below_is_the_end(self) -> None:
        w = core.Replay()
        for n in (LAST, LAST + 1, 2**63, 2**64 - 1):
            assert w.check(n) == 0
            assert w.commit(n) == EREPLAY
        assert w.counters == (0, 0, 8)
        assert w.commit(LAST - 1) == OK
        assert w.next == LAST == 2**62 - 1
        assert w.check(LAST - 1) == 0
        assert w.check(LAST) == 0
        assert w.check(LAST - BITS) == 1
        assert w.check(LAST - 1 - BITS) == 0

    @pytest.mark.parametrize("bits", [0, 1, 32, 63, 65, 8191, 8193, core.REPLAY_BITS_MAX * 2, 2**31])
    def test_size_that_is_no_power_of_two_in_range_is_refused(self, bits: int) -> None:
        assert core.Replay(bits).init_rc == EINVAL
        assert core.Replay().grow(bits) == EINVAL


class TestGrow:
    def test_grown_window_remembers_and_reaches_further_later(self) -> None:
        w = core.Replay(64)
        seen = {n for n in range(1000) if n % 3}
        for n in sorted(seen):
            w.commit(n)
        top = max(seen)
        assert w.grow(256) == OK
        assert w.n_bits == 256
        for n in range(top + 2):  # behind the old window stays refused, although the new one would reach it
            assert w.check(n) == (n not in seen and n > top - 64), n
        w.commit(top + 150)
        assert w.check(top + 1) == 1
        assert w.check(top - 64) == 0
        missing = max(n for n in range(top - 63, top) if n not in seen)
        assert w.check(missing) == 1

    def test_grow_before_the_first_number_loses_nothing(self) -> None:
        w = core.Replay(64)
        assert w.grow(core.REPLAY_BITS_MAX) == OK
        assert w.commit(core.REPLAY_BITS_MAX - 1) == OK
        assert w.commit(0) == OK
        assert w.commit(0) == EREPLAY

    def test_grow_to_smaller_or_same_changes_nothing(self) -> None:
        w = core.Replay(256)
        w.commit(100)
        assert w.grow(64) == OK
        assert w.grow(256) == OK
        assert w.n_bits == 256
        assert w.check(100) == 0

    def test_freed_window_refuses_everything(self) -> None:
        w = core.Replay()
        w.free()
        assert [w.check(n) for n in (0, 5, LAST - 1, LAST)] == [0, 0, 0, 0]
        assert w.commit(7) == EREPLAY
