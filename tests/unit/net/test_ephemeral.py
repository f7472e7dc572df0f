"""Ephemeral keys that were made ahead: each is given out once, and none is kept for long (spec handshake §1.1)."""

from __future__ import annotations

import heapq
import itertools
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from netchan.net import ephemeral as e
from netchan.net.noise import HandshakeState, MlKem768
from netchan.net.worker import Timer


class Hand:
    """A worker whose time and idleness the test decides."""

    def __init__(self) -> None:
        self.idle: list[Callable[[], object]] = []
        self.timers: list[tuple[int, int, Timer]] = []
        self.order = itertools.count()

    def when_idle(self, call: Callable[[], object]) -> None:
        self.idle.append(call)

    def at(self, when_ns: int, call: Callable[[], object]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self.timers, (when_ns, next(self.order), timer))
        return timer

    def rest(self) -> int:
        """Be idle until nobody has a use for it; how many calls that were."""
        done = 0
        while self.idle:
            self.idle.pop(0)()
            done += 1
        return done

    def pass_time(self) -> None:
        """Let every timer come."""
        while self.timers:
            timer = heapq.heappop(self.timers)[2]
            if timer.call is not None:
                timer.call()


@pytest.fixture
def hand() -> Hand:
    return Hand()


def new_stock(hand: Hand) -> e.Stock:
    worker: Any = hand
    return e.Stock(worker)


def test_nothing_is_made_before_somebody_asks(hand: Hand) -> None:
    stock = new_stock(hand)
    assert hand.idle == []
    assert stock.dh() is None
    assert stock.kem() is None
    assert len(hand.idle) == 1, "one call, which makes one key and then asks again"


def test_a_key_is_made_ahead_and_given_out_once(hand: Hand) -> None:
    stock = new_stock(hand)
    stock.dh()
    stock.kem()
    assert hand.rest() == 2
    dh, kem = stock.dh(), stock.kem()
    assert dh is not None
    assert kem is not None
    assert dh[0].public_key().public_bytes_raw() == dh[1]
    secret, ciphertext = MlKem768().encapsulate(kem[1])
    assert MlKem768().decapsulate(kem[0], ciphertext) == secret
    assert stock.dh() is None
    assert stock.kem() is None
    hand.rest()
    again = stock.dh()
    assert again is not None
    assert again[1] != dh[1]


def test_who_needs_no_kem_key_makes_none(hand: Hand) -> None:
    stock = new_stock(hand)
    stock.dh()
    hand.rest()
    assert stock.kem() is None


def test_keys_that_nobody_wants_are_forgotten(hand: Hand) -> None:
    stock = new_stock(hand)
    stock.dh()
    stock.kem()
    hand.rest()
    hand.pass_time()
    assert stock.dh() is None
    assert stock.kem() is None


def test_time_counts_from_the_last_key_that_was_made(hand: Hand) -> None:
    stock = new_stock(hand)
    stock.dh()
    hand.rest()
    stock.kem()
    hand.rest()
    assert len([timer for _, _, timer in hand.timers if timer.call is not None]) == 1


def test_another_worker_has_another_stock(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    # a forked child has a worker of its own: what its parent made ahead must not be used twice
    monkeypatch.setattr(e, "_stocks", [])
    mine: Any = hand
    theirs: Any = Hand()
    first = e.stock_of(mine)
    assert e.stock_of(mine) is first
    assert e.stock_of(theirs) is not first


def test_a_handshake_uses_what_is_there_and_makes_the_rest(hand: Hand) -> None:
    stock = new_stock(hand)
    name = "Noise_XXhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256"
    asked: list[int] = []

    def rng(n: int) -> bytes:
        asked.append(n)
        return random.Random(n).randbytes(n)

    def hello() -> bytes:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        static = X25519PrivateKey.from_private_bytes(bytes(range(32)))
        return HandshakeState(name, True, rng, s=static, psks=[bytes(32)], ahead=stock).write_message()

    first = hello()
    assert asked == [32, 64], "nothing was there: both are made now"
    hand.rest()
    second = hello()
    assert asked == [32, 64], "both were there"
    assert first[:32] != second[:32]
    third = hello()
    assert third == first, "made now from the same randomness, and given out only once"


def test_forked_child_holds_none_of_its_parents_keys() -> None:
    code = """
        import os
        from netchan.net import ephemeral
        ephemeral._stocks.append(object())
        child = os.fork()
        if not child:
            os._exit(len(ephemeral._stocks))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(ephemeral._stocks))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]
