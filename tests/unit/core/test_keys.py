"""netchan._core.keys: epochs, limits, retention of one session (docs/spec/keys.md §2, §3)."""

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from netchan._core import _selftest_crypto as core
from netchan._core import provider

STREAM, DATAGRAM = 1, 2
ELIMIT, ECRYPTO, EINVAL, ESTATE, EEXHAUSTED, EFORK = -4, -5, -9, -11, -13, -15
ROOT = bytes(range(32))
P = provider.load()
SECOND = 1_000_000_000


class Pair:
    """Initiator and responder of one session, each with its own store; numbers are counted here."""

    def __init__(
        self, kind: int = STREAM, paths: int = 1, slots: int = 256, cipher: str = P.ciphers[0], **limits: int
    ) -> None:
        self.stores = [core.Store(P, cipher, slots=slots), core.Store(P, cipher, slots=slots)]
        self.a, self.b = (core.Keys(s, bytearray(ROOT), role, **limits) for role, s in enumerate(self.stores))
        for path in range(paths):
            assert self.a.path_add(path * 2, kind) == path
            assert self.b.path_add(path * 2, kind) == path
        self.number = [0] * 16

    def seal(self, path: int = 0, tag: int = 16, plain: bytes = b"x", now: int = 0) -> tuple[Any, ...]:
        """(path, number, epoch byte, tag, sealed) of one record of the initiator."""
        number = self.number[path]
        self.number[path] += 1
        epoch = self.a.epoch_byte()
        sealed = self.a.seal(path, number, tag, plain, b"head", now)
        assert isinstance(sealed, bytes), sealed
        return path, number, epoch, tag, sealed

    def open(self, record: tuple[Any, ...], now: int = 0, old_until: int = 0) -> bytes | int:
        return self.b.open(*record, b"head", now, old_until)

    def bump(self, mix: bytes = b"") -> None:
        if mix:
            assert self.b.mix_announced(self.a.state()["send_epoch"] + 1, mix) == 0
        assert self.a.update(mix) == 0
        assert self.a.update_acked(self.a.state()["send_epoch"]) == 0


class TestRecords:
    @pytest.mark.parametrize("cipher", P.ciphers)
    def test_both_directions_round_trip_and_differ(self, cipher: str) -> None:
        pair = Pair(cipher=cipher)
        one = pair.a.seal(0, 0, 16, b"same", b"h")
        two = pair.b.seal(0, 0, 16, b"same", b"h")
        assert one != two
        assert pair.b.open(0, 0, 0, 16, one, b"h") == b"same"
        assert pair.a.open(0, 0, 0, 16, two, b"h") == b"same"
        assert pair.b.open(0, 1, 0, 16, two, b"h") == 0  # reflected

    def test_record_moved_to_another_tag_path_number_epoch_or_session_fails(self) -> None:
        pair = Pair(paths=2)
        other = Pair()
        stranger = core.Keys(other.stores[0], bytearray(b"\xff" * 32), 1)
        stranger.path_add(0, STREAM)
        path, number, epoch, tag, sealed = pair.seal()
        assert pair.open((path, number, epoch, tag + 1, sealed)) == 0
        assert pair.open((1, number, epoch, tag, sealed)) == 0
        assert pair.open((path, number + 1, epoch, tag, sealed)) == 0
        assert pair.open((path, number, epoch + 1, tag, sealed)) == 0
        assert stranger.open(path, number, epoch, tag, sealed, b"head") == 0
        assert pair.open((path, number, epoch, tag, sealed)) == b"x"
        assert pair.b.state()["failed"] == 4

    def test_two_segments_equal_one(self) -> None:
        one, two = Pair(), Pair()
        plain = random.Random(5).randbytes(1000)
        for split in (0, 1, 16, 999, 1000):
            number = one.number[0]
            one.number[0] += 1
            assert one.a.seal(0, number, 16, plain) == two.a.seal(0, number, 16, plain, split=split)

    def test_trunk_and_control_tags_have_their_own_keys(self) -> None:
        pair = Pair(kind=DATAGRAM)
        sealed = {tag: pair.a.seal(0, 0, tag, b"same") for tag in (0, 1, 16, 17, 2**62 - 1)}
        assert len(set(sealed.values())) == 5
        for tag, record in sealed.items():
            assert pair.b.open(0, 0, 0, tag, record) == b"same"

    def test_unknown_path_is_refused(self) -> None:
        pair = Pair()
        for path in (-1, 1, 64, 99):
            assert pair.a.seal(path, 0, 16, b"x") == EINVAL
            assert pair.b.open(path, 0, 0, 16, bytes(20)) == EINVAL

    def test_number_that_does_not_grow_is_refused(self) -> None:
        """Never two records under one (key, path, number)."""
        pair = Pair()
        assert isinstance(pair.a.seal(0, 5, 16, b"x"), bytes)
        for number in (0, 4, 5):
            assert pair.a.seal(0, number, 16, b"x") == EINVAL
            assert pair.a.seal(0, number, 17, b"x") == EINVAL
        assert isinstance(pair.a.seal(0, 6, 16, b"x"), bytes)

    def test_datagram_number_may_be_shared_by_tags_but_not_go_back(self) -> None:
        pair = Pair(kind=DATAGRAM)
        assert isinstance(pair.a.seal(0, 5, 16, b"x"), bytes)
        assert isinstance(pair.a.seal(0, 5, 17, b"x"), bytes)
        assert pair.a.seal(0, 4, 18, b"x") == EINVAL

    def test_number_does_not_restart_with_an_epoch(self) -> None:
        pair = Pair()
        pair.a.seal(0, 5, 16, b"x")
        pair.bump()
        assert pair.a.seal(0, 5, 16, b"x") == EINVAL

    def test_roots_and_secrets_agree_and_differ_from_each_other(self) -> None:
        pair = Pair()
        assert pair.a.secret(0) == pair.b.secret(1)
        assert pair.a.secret(1) == pair.b.secret(0)
        secrets = [pair.a.secret(which) for which in range(6)]
        assert [pair.b.secret(which) for which in (1, 0, 2, 3, 4, 5)] == secrets
        assert len(set(secrets)) == 6
        assert all(s and len(s) == 32 for s in secrets)
        assert pair.a.secret(6) is None

    def test_export_depends_on_label_context_and_length_boundaries(self) -> None:
        pair = Pair()
        made = {
            pair.a.export(*args, 32) for args in ((b"a", b"b"), (b"ab", b""), (b"b", b"a"), (b"a", b""), (b"a", b"\0"))
        }
        assert len(made) == 5
        assert pair.a.export(b"a", b"b", 100) == pair.b.export(b"a", b"b", 100)
        assert pair.a.export(b"", b"", 32) == EINVAL
        assert pair.a.export(b"l" * 65, b"", 32) == EINVAL
        assert pair.a.export(b"l", b"c" * 49, 32) == EINVAL
        assert pair.a.export(b"l", b"c", 8161) == EINVAL


class TestPaths:
    def test_path_id_is_never_used_twice(self) -> None:
        pair = Pair()
        assert pair.a.path_add(0, STREAM) == EINVAL
        assert pair.a.path_remove(0) == 0
        assert pair.a.path_add(0, STREAM) == EINVAL
        assert pair.a.path_add(4, STREAM) == 0
        assert pair.a.path_add(2, STREAM) == 1  # late, but new
        assert pair.a.path_add(2, STREAM) == EINVAL
        assert pair.a.path_add(1, STREAM) == 2  # the other side's numbers are apart
        assert pair.a.path_add(2**32 - 2, STREAM) == 3
        assert pair.a.path_add(6, STREAM) == EINVAL  # far below the newest: cannot be known to be new
        assert pair.a.path_add(2**32 - 128, STREAM) == 4
        assert pair.a.path_add(2**32 - 128, STREAM) == EINVAL

    def test_paths_and_kinds_are_bounded(self) -> None:
        pair = Pair()
        assert [pair.a.path_add(2 * n, STREAM) for n in range(1, 65)] == [*range(1, 64), ELIMIT]
        assert pair.a.path_add(200, 0) == EINVAL
        assert pair.a.path_add(200, 3) == EINVAL
        assert pair.a.path_remove(64) == EINVAL
        assert pair.a.path_remove(-1) == EINVAL
        assert pair.a.path_remove(3) == 0
        assert pair.a.path_remove(3) == EINVAL
        assert pair.a.path_add(200, STREAM) == 3


class TestOurEpoch:
    def test_second_update_waits_for_the_acknowledgement(self) -> None:
        pair = Pair()
        assert pair.a.may_update()
        assert pair.a.update() == 0
        assert not pair.a.may_update()
        assert pair.a.update() == ESTATE
        assert pair.a.update_acked(0) == 0
        assert not pair.a.may_update()
        assert pair.a.update_acked(2) == EINVAL
        assert not pair.a.may_update()
        assert pair.a.update_acked(1) == 0
        assert pair.a.may_update()
        assert pair.a.update(b"short") == EINVAL

    def test_blocks_are_counted_per_key_and_soft_limit_asks_for_an_update(self) -> None:
        # 32 bytes of text, 4 of associated data: 2 + 0 + 2 blocks
        pair = Pair(kind=DATAGRAM, soft_blocks=40, hard_blocks=80)
        for number in range(9):
            pair.a.seal(0, number, 16, bytes(32), b"head")
            pair.a.seal(0, number, 17, bytes(32), b"head")
        assert not pair.a.state()["wants_update"]
        pair.a.seal(0, 9, 17, bytes(32), b"head")
        assert pair.a.state()["wants_update"]
        assert pair.a.tick(0) == 1
        assert pair.a.state()["send_epoch"] == 1
        assert not pair.a.state()["wants_update"]
        assert pair.a.tick(0) == 0

    def test_hard_limit_stops_sealing_until_the_update_is_allowed(self) -> None:
        pair = Pair(soft_blocks=8, hard_blocks=16)
        assert pair.a.update() == 0  # not acknowledged: no second one yet
        for number in range(8):
            assert isinstance(pair.a.seal(0, number, 16, b""), bytes)
        assert pair.a.seal(0, 8, 16, b"") == EEXHAUSTED
        assert isinstance(pair.a.seal(0, 8, 17, b""), bytes)  # another key
        assert pair.a.tick(0) == 0
        pair.a.update_acked(1)
        assert pair.a.tick(0) == 1
        assert isinstance(pair.a.seal(0, 9, 16, b""), bytes)

    def test_hard_limit_counts_the_record_that_would_cross_it(self) -> None:
        pair = Pair(hard_blocks=10)
        assert pair.a.seal(0, 0, 16, bytes(16 * 9)) == EEXHAUSTED  # 9 + 2
        assert isinstance(pair.a.seal(0, 0, 16, bytes(16 * 8)), bytes)
        assert pair.a.seal(0, 1, 16, b"") == EEXHAUSTED

    def test_use_of_an_evicted_key_is_not_forgotten(self) -> None:
        pair = Pair(hard_blocks=100)
        numbers = iter(range(10_000))
        for _ in range(30):
            assert isinstance(pair.a.seal(0, next(numbers), 16, b""), bytes)
        for tag in range(100, 1100):  # 256 places: 16 is out long since
            assert isinstance(pair.a.seal(0, next(numbers), tag, b""), bytes)
        assert pair.stores[0].stats()["evicted"] > 700
        more = sum(isinstance(pair.a.seal(0, next(numbers), 16, b""), bytes) for _ in range(60))
        assert more <= 20

    def test_age_asks_for_an_update_and_gives_the_deadline(self) -> None:
        pair = Pair()
        assert pair.a.deadline() == -1
        assert pair.a.tick(10**18) == 0
        pair.seal(now=5 * SECOND)
        assert pair.a.deadline() == 125 * SECOND
        assert pair.a.tick(125 * SECOND - 1) == 0
        assert pair.a.tick(125 * SECOND) == 1
        assert pair.a.deadline() == -1
        pair.a.update_acked(1)
        pair.seal(now=130 * SECOND)
        pair.seal(now=250 * SECOND)
        assert pair.a.state()["wants_update"]

    def test_warning_comes_once_with_its_figures(self) -> None:
        pair = Pair(kind=DATAGRAM, warn_messages=3)
        pair.seal(tag=20)
        pair.seal(tag=16)
        assert pair.a.warning() is None
        pair.seal(tag=16)
        assert pair.a.warning() == (3, 2, 16, 0)
        pair.seal(tag=16)
        assert pair.a.warning() is None

    def test_default_limits_do_not_bind_at_small_use(self) -> None:
        pair = Pair()
        for _ in range(1000):
            pair.seal(plain=bytes(1000))
        assert not pair.a.state()["wants_update"]
        assert pair.a.warning() is None


class TestPeersEpoch:
    def test_next_epoch_is_derived_on_sight_and_committed_after_a_tag(self) -> None:
        pair = Pair()
        assert pair.open((0, 0, 1, 16, bytes(40))) == 0  # forged: nothing moves
        state = pair.b.state()
        assert (state["recv_epoch"], state["has_next"], state["has_prev"], state["failed"]) == (0, 1, 0, 1)
        pair.bump()
        assert pair.open(pair.seal()) == b"x"
        state = pair.b.state()
        assert (state["recv_epoch"], state["has_next"]) == (1, 0)

    def test_epoch_out_of_reach_is_refused_without_a_derivation(self) -> None:
        pair = Pair()
        before = pair.stores[1].stats()["derived"]
        for byte in (2, 3, 128, 254, 255):
            assert pair.open((0, 0, byte, 16, bytes(40))) == ECRYPTO
        assert pair.b.state()["refused"] == 5
        assert pair.stores[1].stats()["derived"] == before

    def test_stream_path_refuses_the_old_epoch_after_the_first_new_record(self) -> None:
        pair = Pair()
        old = pair.seal()
        pair.bump()
        assert pair.open(pair.seal()) == b"x"
        assert pair.b.state()["has_prev"] == 0  # the only path has moved: wiped at once
        assert pair.b.masters()[1] == bytes(32)
        assert pair.open(old) == ECRYPTO

    def test_other_stream_path_keeps_the_old_epoch_until_it_moves_too(self) -> None:
        pair = Pair(paths=2)
        old = [pair.seal(1), pair.seal(1)]
        pair.bump()
        assert pair.open(pair.seal(0)) == b"x"
        assert pair.b.state()["has_prev"] == 1
        assert pair.open(old[0]) == b"x"
        assert pair.open(pair.seal(1)) == b"x"
        assert pair.b.state()["has_prev"] == 0
        assert pair.open(old[1]) == ECRYPTO

    def test_datagram_path_keeps_the_old_epoch_until_its_deadline(self) -> None:
        pair = Pair(kind=DATAGRAM)
        old = [pair.seal() for _ in range(3)]
        pair.bump()
        assert pair.open(pair.seal(), 100, 400) == b"x"
        assert pair.open(old[0], 399) == b"x"
        assert pair.b.deadline() == 400
        assert pair.open(old[1], 400) == ECRYPTO
        assert pair.b.tick(400) == 0
        assert pair.b.state()["has_prev"] == 0
        assert pair.b.deadline() == -1
        assert pair.open(old[2], 0) == ECRYPTO

    def test_removed_path_does_not_hold_old_keys(self) -> None:
        pair = Pair(paths=2)
        pair.bump()
        pair.open(pair.seal(0))
        assert pair.b.state()["has_prev"] == 1
        pair.b.path_remove(1)
        assert pair.b.state()["has_prev"] == 0

    def test_third_epoch_drops_the_first_even_on_a_silent_path(self) -> None:
        pair = Pair(paths=2)
        old = pair.seal(1)
        pair.bump()
        assert pair.open(pair.seal(0)) == b"x"
        pair.bump()
        assert pair.open(pair.seal(0)) == b"x"
        assert pair.open(old) == ECRYPTO
        assert pair.open(pair.seal(1)) == b"x"

    def test_path_added_later_may_still_carry_the_old_epoch(self) -> None:
        pair = Pair(paths=2)
        pair.a.path_add(4, STREAM)
        old = pair.seal(2)
        pair.bump()
        pair.open(pair.seal(0))
        assert pair.b.path_add(4, STREAM) == 2
        assert pair.open(old) == b"x"

    def test_mix_changes_the_epoch_for_both_and_beats_a_forged_sight(self) -> None:
        pair = Pair()
        plain, mixed = Pair(), pair
        assert mixed.open((0, 0, 1, 16, bytes(40))) == 0  # derived on sight, without the mix
        mixed.bump(mix=b"m" * 32)
        plain.bump()
        assert mixed.a.masters()[0] != plain.a.masters()[0]
        assert mixed.open(mixed.seal()) == b"x"
        assert mixed.b.masters()[2] == mixed.a.masters()[0]
        mixed.bump()
        assert mixed.open(mixed.seal()) == b"x"  # the mix is used once

    def test_mix_for_a_wrong_epoch_or_of_a_wrong_length_is_refused(self) -> None:
        pair = Pair()
        assert pair.b.mix_announced(0, b"m" * 32) == ESTATE
        assert pair.b.mix_announced(2, b"m" * 32) == ESTATE
        assert pair.b.mix_announced(1, b"m" * 31) == EINVAL

    def test_both_ends_may_update_at_once(self) -> None:
        pair = Pair()
        pair.a.update()
        pair.b.update(b"r" * 32)
        pair.a.mix_announced(1, b"r" * 32)
        assert pair.open(pair.seal()) == b"x"
        assert pair.a.open(0, 0, 1, 16, pair.b.seal(0, 0, 16, b"y")) == b"y"

    def test_epoch_byte_wraps(self) -> None:
        pair = Pair()
        for _ in range(300):
            pair.bump()
            assert pair.open(pair.seal()) == b"x"
        assert pair.a.epoch_byte() == 300 % 256
        assert pair.b.state()["recv_epoch"] == 300

    def test_failed_opens_are_bounded_per_session(self) -> None:
        pair = Pair(failed_max=3)
        good = pair.seal()
        for _ in range(3):
            assert pair.open((0, 0, 0, 16, bytes(40))) == 0
        assert pair.open(good) == EEXHAUSTED

    def test_garbage_between_records_moves_nothing(self) -> None:
        pair = Pair()
        rng = random.Random(11)
        for _ in range(200):
            assert pair.open((0, rng.randrange(9), rng.choice((0, 1)), rng.choice((0, 16)), rng.randbytes(40))) == 0
            assert pair.open(pair.seal()) == b"x"

    def test_forged_tags_evict_neither_keys_nor_contexts(self) -> None:
        pair = Pair()
        for tag in range(16, 32):
            assert pair.open(pair.seal(tag=tag)) == b"x"
        derived = pair.stores[1].stats()["derived"]
        for tag in range(1000, 2000):
            assert pair.open((0, 99, 0, tag, bytes(40))) == 0
        after = pair.stores[1].stats()
        assert (after["evicted"], after["cache_evicted"]) == (0, 0)
        assert after["derived"] == derived + 1000
        for tag in range(16, 32):
            assert pair.open(pair.seal(tag=tag)) == b"x"
        assert pair.stores[1].stats()["derived"] == after["derived"]


class TestMonotonicCheck:
    def test_repeat_or_step_back_is_seen_per_key_and_path(self) -> None:
        mono = core.Mono()
        assert [mono.check(0, 16, 0, n) for n in (0, 1, 5, 5, 4, 6)] == [1, 1, 1, 0, 0, 1]
        assert mono.check(0, 17, 0, 0) == 1
        assert mono.check(0, 16, 2, 0) == 1

    def test_new_epoch_is_a_new_key(self) -> None:
        mono = core.Mono()
        assert mono.check(0, 16, 0, 9) == 1
        assert mono.check(1, 16, 0, 0) == 1
        assert mono.check(1, 16, 0, 0) == 0

    def test_table_is_bounded_and_survives_many_pairs(self) -> None:
        mono = core.Mono()
        assert all(mono.check(0, tag, tag % 7, 0) for tag in range(20_000))

    def test_debug_build_refuses_a_repeat_under_one_key(self) -> None:
        pair = Pair(kind=DATAGRAM)
        if not pair.a.state()["mono"]:
            pytest.skip("needs a build with NETCHAN_DEBUG=1")
        assert isinstance(pair.a.seal(0, 1, 16, b"x"), bytes)
        assert pair.a.seal(0, 1, 16, b"x") == EINVAL
        assert pair.a.state()["mono_violations"] == 1


class EpochMachine(RuleBasedStateMachine):
    """Any order of updates, mixes, losses and late records: what may open opens, the rest never does."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(kind=DATAGRAM, paths=2)
        self.now = 0
        self.late: list[tuple[int, tuple[Any, ...]]] = []

    @rule(path=st.integers(0, 1), tag=st.integers(16, 20))
    def deliver(self, path: int, tag: int) -> None:
        record = self.pair.seal(path, tag, now=self.now)
        assert self.pair.open(record, self.now, self.now + 50) == b"x"
        assert self.pair.a.update_acked(self.pair.a.state()["send_epoch"]) == 0

    @rule(path=st.integers(0, 1))
    def hold(self, path: int) -> None:
        self.late.append((self.pair.a.state()["send_epoch"], self.pair.seal(path, now=self.now)))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not self.late:
            return
        epoch, record = self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))
        result = self.pair.open(record, self.now, self.now + 50)
        newest = self.pair.b.state()["recv_epoch"]
        if epoch == newest:
            assert result == b"x"
            self.pair.a.update_acked(epoch)
        elif epoch < newest - 1:
            assert result in (ECRYPTO, 0)
        else:
            assert result in (b"x", ECRYPTO)

    @rule(mix=st.sampled_from((b"", b"m" * 32)))
    def update(self, mix: bytes) -> None:
        state = self.pair.a.state()
        if self.pair.a.may_update() and self.pair.b.state()["recv_epoch"] == state["send_epoch"]:
            if mix:
                assert self.pair.b.mix_announced(state["send_epoch"] + 1, mix) == 0
            assert self.pair.a.update(mix) == 0

    @rule(step=st.integers(1, 100))
    def wait(self, step: int) -> None:
        self.now += step
        self.pair.b.tick(self.now)

    @rule(byte=st.integers(0, 255), tag=st.integers(16, 40))
    def forge(self, byte: int, tag: int) -> None:
        before = self.pair.b.state()["recv_epoch"]
        assert self.pair.open((0, 7, byte, tag, bytes(40)), self.now) in (0, ECRYPTO)
        assert self.pair.b.state()["recv_epoch"] == before

    @invariant()
    def wiped_masters_are_zero(self) -> None:
        state = self.pair.b.state()
        masters = self.pair.b.masters()
        assert (masters[1] == bytes(32)) == (state["has_prev"] == 0)
        assert (masters[3] == bytes(32)) == (state["has_next"] == 0)
        assert masters[2] != bytes(32)


TestEpochMachine = EpochMachine.TestCase
TestEpochMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
