"""netchan._core.aead and ctxcache: records in place, nonces, counters, contexts (docs/spec/keys.md §4, §6)."""

import random
import time

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from netchan._core import _selftest_crypto as selftest
from netchan._core import provider

SEAL, OPEN = 1, 2
EINVAL, ESTATE, EEXHAUSTED = -9, -11, -13
NUMBER_MAX = 2**62 - 1
ORACLE = {"aes-256-gcm": AESGCM, "chacha20-poly1305": ChaCha20Poly1305}
PAIRS = [pytest.param(p, c, id=f"{p.name}-{c}") for p in provider.available() for c in p.ciphers]
both = pytest.mark.parametrize(("p", "cipher"), PAIRS)


def context(p: provider.Provider, cipher: str, key: bytes, direction: int) -> selftest.Context:
    made = selftest.Context(p, cipher)
    assert made.key(key, direction) == 0
    return made


class TestNonce:
    def test_nonce_is_iv_xor_path_and_number(self) -> None:
        assert selftest.nonce(bytes(12), 0x01020304, 0x05060708090A0B0C) == bytes(range(1, 13))
        assert selftest.nonce(b"\xff" * 12, 0, 0) == b"\xff" * 12

    @given(st.binary(min_size=12, max_size=12), st.integers(0, 2**32 - 1), st.integers(0, NUMBER_MAX))
    def test_nonce_of_any_path_and_number_matches_the_definition(self, iv: bytes, path: int, number: int) -> None:
        expect = int.from_bytes(iv, "big") ^ (path << 64 | number)
        assert selftest.nonce(iv, path, number) == expect.to_bytes(12, "big")


class TestRecord:
    @both
    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_record_equals_an_independent_implementation(
        self, p: provider.Provider, cipher: str, data: st.DataObject
    ) -> None:
        key, iv = data.draw(st.binary(min_size=32, max_size=32)), data.draw(st.binary(min_size=12, max_size=12))
        path, number = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, NUMBER_MAX))
        aad, plain = data.draw(st.binary(max_size=40)), data.draw(st.binary(max_size=300))
        split = data.draw(st.integers(-1, len(plain)))
        expect = ORACLE[cipher](key).encrypt(selftest.nonce(iv, path, number), plain, aad)
        sealed = context(p, cipher, key, SEAL).record_seal(iv, path, number, aad, plain, split)
        assert sealed == expect
        opener = context(p, cipher, key, OPEN)
        assert opener.record_open(iv, path, number, aad, sealed) == (1, plain)
        assert opener.record_open(iv, path, number ^ 1, aad, sealed)[0] == 0
        assert opener.record_open(iv, path ^ 1, number, aad, sealed)[0] == 0
        assert opener.record_open(iv, path, number, aad + b"x", sealed)[0] == 0

    @both
    def test_every_flipped_bit_fails_and_leaves_no_plaintext(self, p: provider.Provider, cipher: str) -> None:
        plain = bytes(range(1, 41))
        sealed = context(p, cipher, bytes(32), SEAL).record_seal(bytes(12), 0, 0, b"aad", plain)
        assert isinstance(sealed, bytes)
        opener = context(p, cipher, bytes(32), OPEN)
        for bit in range(8 * len(sealed)):
            broken = bytearray(sealed)
            broken[bit // 8] ^= 1 << bit % 8
            assert opener.record_open(bytes(12), 0, 0, b"aad", bytes(broken)) == (0, bytes(40))
        assert opener.record_open(bytes(12), 0, 0, b"aad", sealed) == (1, plain)
        assert opener.stats()["failed"] == 8 * len(sealed)
        assert opener.stats()["opened"] == 1

    @both
    @pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 16384, 65519, 65535])
    def test_sizes_from_nothing_to_the_limit_round_trip(self, p: provider.Provider, cipher: str, size: int) -> None:
        plain = random.Random(size).randbytes(size)
        for split in (-1, 0, size // 3, size):
            sealed = context(p, cipher, b"k" * 32, SEAL).record_seal(b"i" * 12, 7, 9, b"", plain, split)
            assert context(p, cipher, b"k" * 32, OPEN).record_open(b"i" * 12, 7, 9, b"", sealed) == (1, plain)

    @both
    def test_lengths_over_the_limit_are_refused(self, p: provider.Provider, cipher: str) -> None:
        sealer = context(p, cipher, bytes(32), SEAL)
        assert sealer.record_seal(bytes(12), 0, 0, b"", bytes(65536)) == EINVAL
        assert sealer.record_seal(bytes(12), 0, 0, b"", bytes(65536), 1) == EINVAL
        assert sealer.record_seal(bytes(12), 0, 0, bytes(65536), b"") == EINVAL
        assert sealer.stats() == {
            "sealed": 0,
            "sealed_bytes": 0,
            "opened": 0,
            "opened_bytes": 0,
            "failed": 0,
            "errors": 3,
        }
        opener = context(p, cipher, bytes(32), OPEN)
        for short in range(16):
            assert opener.record_open(bytes(12), 0, 0, b"", bytes(short))[0] == 0
        assert opener.record_open(bytes(12), 0, 0, b"", bytes(65552))[0] == 0
        assert opener.stats()["errors"] == 17

    @both
    def test_last_number_works_and_the_next_is_refused(self, p: provider.Provider, cipher: str) -> None:
        sealer = context(p, cipher, bytes(32), SEAL)
        sealed = sealer.record_seal(bytes(12), 0, NUMBER_MAX, b"", b"last")
        opener = context(p, cipher, bytes(32), OPEN)
        assert opener.record_open(bytes(12), 0, NUMBER_MAX, b"", sealed) == (1, b"last")
        assert sealer.record_seal(bytes(12), 0, NUMBER_MAX + 1, b"", b"one more") == EEXHAUSTED
        assert opener.record_open(bytes(12), 0, NUMBER_MAX + 1, b"", sealed)[0] == 0

    @both
    def test_context_keyed_for_one_direction_refuses_the_other(self, p: provider.Provider, cipher: str) -> None:
        assert context(p, cipher, bytes(32), OPEN).record_seal(bytes(12), 0, 0, b"", b"x") == ESTATE
        assert selftest.Context(p, cipher).record_seal(bytes(12), 0, 0, b"", b"x") == ESTATE
        sealer = context(p, cipher, bytes(32), SEAL)
        sealed = sealer.record_seal(bytes(12), 0, 0, b"", b"x")
        assert sealer.record_open(bytes(12), 0, 0, b"", sealed)[0] == 0

    @both
    def test_counters_add_up(self, p: provider.Provider, cipher: str) -> None:
        sealer = context(p, cipher, bytes(32), SEAL)
        for n in range(10):
            sealer.record_seal(bytes(12), 0, n, b"", bytes(n))
        assert (sealer.stats()["sealed"], sealer.stats()["sealed_bytes"]) == (10, 45)


class TestContextCache:
    P = provider.load("ssl")
    CIPHER = P.ciphers[0]

    def cache(self, capacity: int = 64) -> selftest.Cache:
        return selftest.Cache(self.P, self.CIPHER, capacity, 0x1234567)

    def key(self, n: int) -> bytes:
        return n.to_bytes(32, "big")

    def test_contexts_grow_in_blocks_up_to_the_capacity(self) -> None:
        cache = self.cache(130)
        assert cache.stats()["ready"] == 64
        assert cache.stats()["capacity"] == 192
        assert not cache.wants_grow()
        for tag in range(64):
            cache.seal(1, tag, 0, self.key(tag))
        assert cache.wants_grow()
        assert [cache.grow() for _ in range(3)] == [128, 192, 192]
        for tag in range(300):
            cache.seal(1, tag, 0, self.key(tag))
        assert not cache.wants_grow()
        assert cache.stats()["used"] == 192

    def test_same_stream_hits_and_the_oldest_is_evicted(self) -> None:
        cache = self.cache()
        for tag in range(64):
            cache.seal(1, tag, 0, self.key(tag))
        cache.seal(1, 0, 0, self.key(0))  # 0 is the newest again, 1 the oldest
        assert cache.stats()["hits"] == 1
        cache.seal(1, 64, 0, self.key(64))
        assert cache.stats()["evicted"] == 1
        cache.seal(1, 0, 0, self.key(0))
        assert cache.stats()["misses"] == 65
        cache.seal(1, 1, 0, self.key(1))
        assert cache.stats()["misses"] == 66

    def test_any_order_of_use_seals_as_a_fresh_context_would(self) -> None:
        seed = 20261120
        rng = random.Random(seed)
        cache = self.cache()
        for _ in range(4000):
            session, tag, epoch = rng.randrange(3), rng.choice((rng.randrange(200), 2**62 - 1)), rng.randrange(3)
            key = self.key(session << 80 | tag << 8 | epoch)
            expect = ORACLE[self.CIPHER](key).encrypt(bytes(12), b"\1" * 16, None)
            assert cache.seal(session, tag, epoch, key) == expect, f"seed {seed}"
            assert cache.open(session, tag, epoch, key, expect), f"seed {seed}"
            if rng.random() < 0.01:
                cache.forget(rng.randrange(3), rng.randrange(3), rng.choice((-1, 0, 1)))
        assert cache.stats()["used"] <= 64

    def test_forged_tags_use_the_side_room_and_evict_nothing(self) -> None:
        cache = self.cache()
        for tag in range(64):
            cache.seal(1, tag, 0, self.key(tag))
        before = cache.stats()
        for tag in range(1000, 3000):
            assert not cache.open(1, tag, 0, self.key(tag), bytes(32))
        after = cache.stats()
        assert after["side_loads"] == 2000
        assert (after["evicted"], after["misses"], after["promoted"]) == (before["evicted"], before["misses"], 0)
        for tag in range(64):
            cache.seal(1, tag, 0, self.key(tag))
        assert cache.stats()["misses"] == before["misses"]

    def test_opened_tag_moves_out_of_the_side_room_without_another_load(self) -> None:
        cache = self.cache()
        sealed = ORACLE[self.CIPHER](self.key(5)).encrypt(bytes(12), b"\1" * 16, None)
        assert cache.open(1, 5, 0, self.key(5), sealed)
        assert cache.stats()["promoted"] == 1
        for tag in range(100, 110):
            cache.open(1, tag, 0, self.key(tag), bytes(32))
        loads = cache.stats()["side_loads"]
        assert cache.open(1, 5, 0, self.key(5), sealed)
        assert cache.stats()["side_loads"] == loads
        assert cache.stats()["hits"] == 1

    def test_repeated_forgery_of_one_tag_loads_once(self) -> None:
        cache = self.cache()
        for _ in range(100):
            assert not cache.open(1, 5, 0, self.key(5), bytes(32))
        assert cache.stats()["side_loads"] == 1

    def test_forgotten_contexts_are_loaded_anew(self) -> None:
        cache = self.cache()
        for epoch in range(2):
            for session in range(2):
                cache.seal(session, 3, epoch, self.key(3))
        assert cache.forget(0, SEAL, 1) == 1
        assert cache.forget(0, OPEN, -1) == 0
        assert cache.forget(0, 0, -1) == 1
        assert cache.stats()["used"] == 2
        assert cache.seal(0, 3, 1, self.key(99)) == ORACLE[self.CIPHER](self.key(99)).encrypt(
            bytes(12), b"\1" * 16, None
        )

    def test_capacity_out_of_range_is_refused(self) -> None:
        for capacity in (0, -1, 65537):
            with pytest.raises(ValueError):
                selftest.Cache(self.P, self.CIPHER, capacity, 1)


class TestCost:
    @both
    def test_cost_of_a_record_is_printed_and_bounded(self, p: provider.Provider, cipher: str) -> None:
        """Shown by ``pytest -s``; the bound only catches a context that is rebuilt for each record."""
        cost = {size: selftest.Context(p, cipher).time(size, 2000, time.perf_counter_ns) for size in (64, 1024, 16384)}
        print(f"{p.name} {cipher}: " + ", ".join(f"{n} B {a:.0f} + {b:.0f} ns" for n, (a, b) in cost.items()))
        assert sum(cost[64]) < 50_000
