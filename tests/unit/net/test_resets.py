"""What a listener says to datagrams of paths that it does not know (docs/spec/handshake.md §2.5)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from netchan import ConfigError, Identity
from netchan.net import resets
from netchan.net.moved import is_of_a_path
from netchan.net.resets import CID_BYTES, RESET_BURST, RESET_LEAST, RESET_SOURCE_BURST, RESET_SPREAD, Resets

HERE, THERE = ("192.0.2.7", 7000), ("198.51.100.9", 50_000)
HERE6 = ("2001:db8::7", 7000, 0, 0)
S = 10**9


def rng_of(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def free(_: bytes) -> bool:
    return False


def datagram(name: bytes, size: int, seed: int = 1) -> bytes:
    rng = random.Random(seed)
    return bytes([0x40 | rng.getrandbits(6)]) + name[:CID_BYTES] + rng.randbytes(size - 1 - CID_BYTES)


def of(identity: Identity) -> Resets:
    return Resets(identity.reset_key())


class TestName:
    @pytest.mark.parametrize("here", [HERE, HERE6])
    def test_another_process_of_the_identity_knows_it(self, tmp_path: Path, here: tuple[str, int]) -> None:
        path = tmp_path / "id"
        name = of(Identity.load_or_create(path)).name(here, rng_of(1), free)
        assert len(name) == 24
        again = of(Identity.load_or_create(path))
        said = again.answer(datagram(name, 60), here, THERE, 0, rng_of(2))
        assert said is not None and said[-16:] == name[8:]

    def test_scope_of_a_link_is_the_hosts_own_business(self) -> None:
        me = Identity.generate()
        name = of(me).name(("fe80::1%eth0", 7000, 0, 3), rng_of(1), free)
        said = of(me).answer(datagram(name, 60), ("fe80::1", 7000, 0, 5), THERE, 0, rng_of(2))
        assert said is not None and said[-16:] == name[8:]

    @pytest.mark.parametrize("where", [("192.0.2.8", 7000), ("192.0.2.7", 7001), HERE6])
    def test_at_another_address_it_is_nothing(self, where: tuple[str, int]) -> None:
        me = Identity.generate()
        name = of(me).name(HERE, rng_of(1), free)
        assert of(me).answer(datagram(name, 60), where, THERE, 0, rng_of(2)) is None

    def test_to_another_identity_it_is_nothing(self) -> None:
        name = of(Identity.generate()).name(HERE, rng_of(1), free)
        assert of(Identity.generate()).answer(datagram(name, 60), HERE, THERE, 0, rng_of(2)) is None

    def test_two_paths_have_two_names_and_two_tokens(self) -> None:
        mine, rng = of(Identity.generate()), rng_of(3)
        names = [mine.name(HERE, rng, free) for _ in range(1_000)]
        assert len({name[:8] for name in names}) == len({name[8:] for name in names}) == 1_000

    def test_a_name_that_is_taken_is_drawn_again_for_a_bounded_time(self) -> None:
        mine = of(Identity.generate())
        first = mine.name(HERE, rng_of(3), free)
        assert mine.name(HERE, rng_of(3), lambda cid: cid == first[:8]) != first
        asked: list[bytes] = []
        mine.name(HERE, rng_of(3), lambda cid: not asked.append(cid))  # type: ignore[func-returns-value]
        assert len(asked) == resets.TRIES

    def test_a_closed_identity_has_no_key(self) -> None:
        me = Identity.generate()
        me.close()
        with pytest.raises(ConfigError, match="closed"):
            me.reset_key()

    def test_a_wiped_key_is_zeros(self) -> None:
        key = Identity.generate().reset_key()
        mine = Resets(key)
        mine.wipe()
        mine.wipe()
        assert bytes(key) == bytes(32)


class TestAnswer:
    def test_it_is_shorter_than_what_asked_for_it_and_looks_like_a_datagram(self) -> None:
        mine = of(Identity.generate())
        name = mine.name(HERE, rng_of(1), free)
        sizes = set()
        for n in range(RESET_LEAST + 1, 1_453):
            said = mine.answer(datagram(name, n, n), HERE, THERE, n * S, rng_of(n))
            assert said is not None
            assert RESET_LEAST <= len(said) < n and len(said) < RESET_LEAST + RESET_SPREAD
            assert is_of_a_path(said) and said[-16:] == name[8:]
            assert said[1:9] != name[:8]
            sizes.add(len(said))
        assert len(sizes) == RESET_SPREAD

    @pytest.mark.parametrize("size", [9, 24, RESET_LEAST - 1, RESET_LEAST])
    def test_what_may_be_a_reset_gets_none(self, size: int) -> None:
        mine = of(Identity.generate())
        name = mine.name(HERE, rng_of(1), free)
        assert mine.answer(datagram(name, size), HERE, THERE, 0, rng_of(2)) is None

    def test_a_stranger_gets_none(self) -> None:
        mine, rng = of(Identity.generate()), random.Random(5)
        name = mine.name(HERE, rng.randbytes, free)
        for n in range(5_000):
            data = bytes([0x40 | rng.getrandbits(6)]) + rng.randbytes(rng.randrange(40, 200))
            assert mine.answer(data, HERE, THERE, n * S, rng.randbytes) is None
        for bit in range(64):
            wrong = (int.from_bytes(name[:8], "big") ^ 1 << bit).to_bytes(8, "big")
            assert mine.answer(datagram(wrong, 60), HERE, THERE, 0, rng.randbytes) is None
        assert mine.answer(datagram(name, 60), HERE, THERE, 0, rng.randbytes) is not None

    def test_two_listeners_that_answer_each_other_soon_fall_silent(self) -> None:
        """As if each answer named a path of the other one."""
        one, other = of(Identity.generate()), of(Identity.generate())
        for seed in range(50):
            rng, now = random.Random(seed), seed * 1_000 * S
            data, size, turns = b"x" * 1_452, 1_452, 0
            pair = [(one, one.name(HERE, rng.randbytes, free)), (other, other.name(THERE, rng.randbytes, free))]
            while True:
                side, name = pair[turns % 2]
                said = side.answer(datagram(name, len(data), turns), (HERE, THERE)[turns % 2], HERE, now, rng.randbytes)
                if said is None:
                    break
                assert len(said) < size
                data, size, turns = said, len(said), turns + 1
            assert 1 <= turns <= 1 + RESET_SPREAD

    def test_so_many_to_one_address_and_then_more_with_time(self) -> None:
        mine = of(Identity.generate())
        name = mine.name(HERE, rng_of(1), free)

        def said(n: int, now: int) -> int:
            return sum(
                mine.answer(datagram(name, 60), HERE, (THERE[0], port), now, rng_of(port)) is not None
                for port in range(n)
            )

        assert said(1_000, 0) == RESET_SOURCE_BURST
        assert said(1_000, S) == resets.RESET_SOURCE_RATE
        assert said(1_000, 100 * S) == RESET_SOURCE_BURST

    def test_so_many_in_all(self) -> None:
        mine = of(Identity.generate())
        name = mine.name(HERE, rng_of(1), free)
        peers = [(f"198.51.{n >> 8}.{n & 255}", 9) for n in range(3_000)]
        said = [mine.answer(datagram(name, 60), HERE, peer, 0, rng_of(2)) for peer in peers]
        assert sum(each is not None for each in said) == RESET_BURST
        assert len(mine._sources) <= resets.RESET_SOURCES
        said = [mine.answer(datagram(name, 60), HERE, peer, S // 10, rng_of(2)) for peer in peers]
        assert sum(each is not None for each in said) == resets.RESET_RATE // 10

    def test_one_network_of_ipv6_is_one_source(self) -> None:
        mine = of(Identity.generate())
        name = mine.name(HERE6, rng_of(1), free)
        said = [mine.answer(datagram(name, 60), HERE6, (f"2001:db8::{n:x}", 9, 0, 0), 0, rng_of(2)) for n in range(500)]
        assert sum(each is not None for each in said) == RESET_SOURCE_BURST

    def test_strangers_use_up_nothing(self) -> None:
        mine = of(Identity.generate())
        name = mine.name(HERE, rng_of(1), free)
        for n in range(10 * RESET_BURST):
            assert mine.answer(datagram(bytes(8), 60, n), HERE, THERE, 0, rng_of(2)) is None
        assert mine.answer(datagram(name, 60), HERE, THERE, 0, rng_of(2)) is not None
