"""Offers of a capacity-0 direction: who has them, who may have them back (docs/spec/session.md §4.1)."""

import random

import pytest

from netchan._core import _selftest_session as st

OK, EAGAIN, ECLOSED = (st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED"))
OUT, TAKEN, WITHDRAWN = range(3)
MOST = 16


def joined(**given: int | None) -> tuple[st.Pair, st.End, st.End]:
    """A pair of sessions with a rendezvous "x" that both sides have opened."""
    p = st.Pair()
    a, b = p.a.open("x", capacity=given.get("ours", 0)), p.b.open("x", capacity=given.get("theirs", 0))
    p.run()
    return p, a, b


class TestOffers:
    def test_nothing_is_accepted_only_offered(self) -> None:
        p, a, b = joined()
        assert a.capacity == b.capacity == 0
        assert a.send(b"v") == EAGAIN and a.offer(b"v") == 0
        p.run()
        assert a.offer_state(0) == OUT
        assert b.take() == b"v"
        p.run()
        assert a.offer_state(0) == TAKEN

    def test_offers_are_numbered_and_bounded_until_they_are_let_go(self) -> None:
        p, a, b = joined()
        assert [a.offer(b"%d" % i) for i in range(MOST + 1)] == [*range(MOST), EAGAIN]
        p.run()
        assert [b.take() for _ in range(MOST)] == [b"%d" % i for i in range(MOST)]
        p.run()
        assert a.offer(b"more") == EAGAIN  # their callers have not looked yet
        a.let_go(3)
        assert a.offer(b"more") == EAGAIN
        for n in (0, 1, 2):
            a.let_go(n)
        assert [a.offer(b"more") for _ in range(5)] == [16, 17, 18, 19, EAGAIN]

    def test_before_the_other_side_opened_nothing_is_offered(self) -> None:
        p = st.Pair()
        a = p.a.open("x", capacity=0)
        p.run()
        assert a.offer(b"v") == EAGAIN and a.send(b"v") == EAGAIN

    def test_values_accepted_before_the_capacity_was_known_stay_accepted(self) -> None:
        p = st.Pair()
        a = p.a.open("x", capacity=None)
        assert [a.send(b"%d" % i) for i in range(40)] == [OK] * 40
        p.run()
        b = p.b.open("x", capacity=0)
        p.run()
        assert a.send(b"late") == EAGAIN
        assert a.offer(b"early") == EAGAIN  # 16 beyond what was taken, no more
        assert b.take_all() == [b"%d" % i for i in range(40)]
        p.run()
        assert a.offer(b"offer") == 40
        p.run()
        assert b.take() == b"offer"

    def test_long_body_waits_for_a_parked_receiver(self) -> None:
        p, a, b = joined()
        long = bytes(16385)
        assert a.offer(long) == EAGAIN and a.offer(bytes(16384)) == 0
        b.park(1)
        p.run()
        assert a.offer(long) == 1
        b.park(0)
        p.run()
        assert a.offer(long) == EAGAIN


class TestWithdraw:
    def test_offer_that_nobody_took_comes_back(self) -> None:
        p, a, b = joined()
        assert a.offer(b"v") == 0
        p.run()
        a.withdraw(0)
        assert a.offer_state(0) == OUT
        p.run()
        assert a.offer_state(0) == WITHDRAWN
        assert b.take() == EAGAIN  # it is here, and nobody's

    def test_offer_that_was_taken_first_stays_taken(self) -> None:
        p, a, b = joined()
        assert a.offer(b"v") == 0
        p.run()
        assert b.take() == b"v"
        a.withdraw(0)  # before POS has told
        assert a.offer_state(0) == OUT
        p.run()
        assert a.offer_state(0) == TAKEN

    def test_withdrawn_ones_are_passed_over_wherever_they_stand(self) -> None:
        p, a, b = joined()
        for i in range(6):
            assert a.offer(b"%d" % i) == i
        p.run()
        for n in (0, 2, 3, 5):
            a.withdraw(n)
        p.run()
        assert b.take_all() == [b"1", b"4"]
        p.run()
        assert [a.offer_state(n) for n in range(6)] == [
            WITHDRAWN, TAKEN, WITHDRAWN, WITHDRAWN, TAKEN, WITHDRAWN,
        ]  # fmt: skip

    def test_taken_passes_withdrawn_messages_and_does_not_settle_them(self) -> None:
        p, a, b = joined()
        assert [a.offer(b"0"), a.offer(b"1")] == [0, 1]
        p.run()
        a.withdraw(0)
        p.run()
        assert b.take() == b"1"
        p.run()
        assert (a.offer_state(0), a.offer_state(1)) == (WITHDRAWN, TAKEN)

    def test_caller_that_left_in_doubt_holds_its_number_until_the_answer(self) -> None:
        p, a, b = joined()
        for i in range(MOST):
            assert a.offer(b"%d" % i) == i
        for n in range(MOST):
            a.withdraw(n)
            a.let_go(n)
        assert a.offer(b"x") == EAGAIN
        p.run()
        assert b.take_all() == []
        p.run()
        assert a.offer(b"x") == MOST

    def test_stop_settles_what_was_taken_and_nothing_else(self) -> None:
        p, a, b = joined()
        for i in range(3):
            assert a.offer(b"%d" % i) == i
        p.run()
        assert b.take() == b"0"
        b.stop()
        p.run()
        assert [a.offer_state(n) for n in range(3)] == [TAKEN, OUT, OUT]
        assert a.offer(b"x") == ECLOSED


@pytest.mark.parametrize("seed", range(200))
def test_every_offer_is_taken_or_withdrawn_and_never_both(seed: int) -> None:
    """Offers, withdrawals, takes and deliveries in any order: what the sender believes is what the receiver did."""
    rng = random.Random(seed)
    p, a, b = joined()
    out: dict[int, bytes] = {}
    asked: set[int] = set()
    taken: list[bytes] = []
    told: list[tuple[int, int]] = []
    count = 0
    for _ in range(300):
        step = rng.randrange(6)
        if step <= 1:
            value = b"%d" % count
            n = a.offer(value)
            if n >= 0:
                assert n == count
                out[n] = value
                count += 1
        elif step == 2 and out:
            n = rng.choice(list(out))
            a.withdraw(n)
            asked.add(n)
        elif step == 3:
            got = b.take()
            if isinstance(got, bytes):
                taken.append(got)
        elif step == 4:
            p.run()
        else:
            for n in list(out):
                state = a.offer_state(n)
                if state != OUT:
                    told.append((n, state))
                    a.let_go(n)
                    del out[n]
    for n in out:
        a.withdraw(n)
    p.run()
    taken += b.take_all()
    p.run()
    told += [(n, a.offer_state(n)) for n in out]
    assert len(told) == count
    assert sorted(b"%d" % n for n, state in told if state == TAKEN) == sorted(taken)
    assert taken == sorted(taken, key=int)
    assert {n for n, state in told if state == WITHDRAWN} <= asked | set(out)
