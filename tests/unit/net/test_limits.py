"""Half-open table, rate per address, held dead sockets (spec handshake §2.2, §9)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netchan.net import limits as lim

S = 1_000_000_000


class TestAddressGroup:
    @pytest.mark.parametrize(
        ("host", "group"),
        [
            (None, None),
            ("127.0.0.1", None),
            ("127.9.9.9", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("name.example", "name.example"),
        ],
    )
    def test_address_group_is_ipv4_address_or_ipv6_64(self, host: str | None, group: str | None) -> None:
        assert lim.address_group(host) == group


class TestHalfOpen:
    def test_hundred_silent_of_one_address_do_not_keep_a_good_peer_out(self) -> None:
        # libzmq CVE-2020-15166: silent connections starve all others
        table, dropped = lim.HalfOpen(), []
        for i in range(100):
            admission = table.admit(i, "192.0.2.1", 0)
            assert admission.admitted
            dropped += admission.drop
        assert dropped == list(range(36))
        assert len(table) == 64
        assert table.admit("good", "192.0.2.1", 0).drop == (36,)

    def test_those_that_proved_the_gate_are_not_dropped_within_a_second(self) -> None:
        table = lim.HalfOpen()
        for i in range(64):
            table.admit(i, "192.0.2.1", 0)
            if i < 63:
                table.heard(i, 0)
        assert table.admit("a", "192.0.2.1", S - 1).drop == (63,)
        table.heard("a", S - 1)
        assert table.admit("b", "192.0.2.1", S - 1) == lim.Admission(False, (), "half-open per address")
        assert table.admit("c", "192.0.2.2", S - 1).admitted

    def test_those_that_proved_the_gate_and_went_silent_give_up_their_place_the_oldest_first(self) -> None:
        table = lim.HalfOpen()
        for i in range(64):
            table.admit(i, "192.0.2.1", 0)
            table.heard(i, i)
        assert table.admit("a", "192.0.2.1", S) == lim.Admission(True, (0,))
        assert table.admit("b", "192.0.2.1", S + 1) == lim.Admission(True, (1,))
        # a newcomer is not the one to go for the next newcomer while others have been silent for long
        assert table.admit("c", "192.0.2.1", S + 2) == lim.Admission(True, (2,))
        table.heard(3, S + 3)  # said twice: the time of the REPLY stays
        assert table.admit("d", "192.0.2.1", S + 3).drop == (3,)

    def test_those_that_sent_their_finish_stay(self) -> None:
        table = lim.HalfOpen(per_address=2)
        for i in range(2):
            table.admit(i, "192.0.2.1", 0)
            table.heard(i, 0)
        table.went_on(0)
        assert table.admit("a", "192.0.2.1", 9 * S).drop == (1,)
        table.heard("a", 9 * S)
        table.went_on("a")
        assert not table.admit("b", "192.0.2.1", 99 * S).admitted
        table.done(0, True)
        assert table.admit("b", "192.0.2.1", 99 * S).admitted

    def test_whoever_never_proved_the_gate_goes_before_those_who_did(self) -> None:
        table = lim.HalfOpen(total=3)
        table.admit("proved", None, 0)
        table.heard("proved", 0)
        table.admit("silent", None, 1)
        table.admit("fresh", None, 2 * S)
        assert table.admit("a", None, 2 * S).drop == ("silent",)
        assert table.admit("b", None, 2 * S).drop == ("proved",)
        assert table.admit("c", None, 2 * S).drop == ("fresh",)

    def test_total_is_bounded_oldest_silent_goes_first(self) -> None:
        table = lim.HalfOpen(total=4, load=100)
        for i in range(4):
            table.admit(i, f"192.0.2.{i}", 0)
        table.heard(0, 0)
        assert table.admit(4, None, 0).drop == (1,)
        for i in (2, 3, 4):
            table.heard(i, 0)
        assert not table.admit(5, "192.0.2.9", 0).admitted
        table.done(0, True)
        assert table.admit(5, "192.0.2.9", 0).admitted

    def test_loopback_and_unix_have_no_bound_per_address(self) -> None:
        table = lim.HalfOpen()
        for i in range(500):
            assert table.admit(i, "127.0.0.1" if i % 2 else None, 0, queue_wait_ns=S).admitted
        assert len(table) == 500

    def test_rate_counts_only_under_load(self) -> None:
        table = lim.HalfOpen()
        for i in range(50):
            assert table.admit(i, "192.0.2.1", 0).admitted
        assert not table.admit("x", "192.0.2.1", 0, queue_wait_ns=51_000_000).admitted
        assert table.admit("y", "192.0.2.2", 0, queue_wait_ns=51_000_000).admitted
        for i in range(300):
            table.admit(("fill", i), f"198.51.100.{i % 250}", 0)
        assert table.under_load()
        assert not table.admit("z", "192.0.2.1", 0).admitted

    def test_completed_handshakes_do_not_count(self) -> None:
        table = lim.HalfOpen()
        for i in range(1_000):
            assert table.admit(i, "192.0.2.1", 0, queue_wait_ns=S).admitted
            table.done(i, established=True)
        for i in range(5):
            assert table.admit(i, "192.0.2.1", 0, queue_wait_ns=S).admitted
            table.done(i, established=False)
        assert not table.admit(6, "192.0.2.1", 0, queue_wait_ns=S).admitted
        assert table.admit(6, "192.0.2.1", S // 20, queue_wait_ns=S).admitted

    def test_same_key_twice_is_our_mistake(self) -> None:
        table = lim.HalfOpen()
        table.admit(1, None, 0)
        with pytest.raises(ValueError, match="already"):
            table.admit(1, None, 0)
        table.done("unknown", True)
        table.heard("unknown", 0)
        table.went_on("unknown")

    def test_rate_and_burst_are_the_callers(self) -> None:
        table = lim.HalfOpen(rate_per_s=0.5, burst=2)
        for i in range(2):
            assert table.admit(i, "192.0.2.1", 0, queue_wait_ns=S).admitted
        assert not table.admit(2, "192.0.2.1", 2 * S - 1, queue_wait_ns=S).admitted
        assert table.admit(2, "192.0.2.1", 2 * S, queue_wait_ns=S).admitted

    @given(st.lists(st.tuples(st.sampled_from("ahfde"), st.integers(0, 30), st.integers(0, 3)), max_size=120))
    def test_table_counts_stay_right_under_any_schedule(self, steps: list[tuple[str, int, int]]) -> None:
        table, model = lim.HalfOpen(per_address=3, total=8, load=6), {}
        for turn, (verb, key, host) in enumerate(steps):
            now = turn * S // 4
            if verb == "a" and key not in model:
                admission = table.admit(key, f"192.0.2.{host}" if host else None, now)
                for gone in admission.drop:
                    _, state, since = model.pop(gone)
                    assert state == "silent" or (state == "heard" and now - since >= S)
                if admission.admitted:
                    model[key] = [host, "silent", now]
            elif verb == "h":
                table.heard(key, now)
                if key in model and model[key][1] == "silent":
                    model[key][1:] = "heard", now
            elif verb == "f":
                table.went_on(key)
                if key in model and model[key][1] == "heard":
                    model[key][1] = "on"
            elif verb in "de":
                table.done(key, verb == "e")
                model.pop(key, None)
            assert len(table) == len(model) <= 8
            assert set(table._silent) == {k for k, (_, state, _) in model.items() if state == "silent"}
            assert set(table._heard) == {k for k, (_, state, _) in model.items() if state == "heard"}
            for h in range(1, 4):
                assert sum(1 for a, _, _ in model.values() if a == h) == table._count_of.get(f"192.0.2.{h}", 0) <= 3


class TestTokenBuckets:
    def test_burst_then_rate_and_debt_is_bounded(self) -> None:
        buckets = lim.TokenBuckets()
        for _ in range(5):
            assert buckets.has_token("a", 0)
            buckets.take("a", 0)
        assert not buckets.has_token("a", 0)
        assert not buckets.has_token("a", S // 20 - 1)
        assert buckets.has_token("a", S // 20)
        for _ in range(10_000):
            buckets.take("a", 0)
        assert buckets.has_token("a", S)

    def test_number_of_buckets_is_bounded(self) -> None:
        buckets = lim.TokenBuckets(limit=10)
        for i in range(100):
            buckets.take(str(i), 0)
        assert len(buckets) == 10

    def test_give_back_of_unknown_is_ignored(self) -> None:
        lim.TokenBuckets().give_back("x")


class TestDeadSockets:
    def test_oldest_is_closed_for_a_new_one(self) -> None:
        held = lim.DeadSockets()
        assert [held.hold(i, 100 + i) for i in range(256)] == [None] * 256
        assert held.hold(256, 5) == 0
        assert len(held) == 256
        assert held.next_deadline() == 5
        assert held.expired(101) == [1, 256]
        held.forget(2)
        assert held.expired(102) == []

    def test_drain_deadline_is_spread_over_30_to_90_seconds(self) -> None:
        rng = random.Random(5).randbytes
        waits = [(lim.drain_deadline(7, rng) - 7) / S for _ in range(2_000)]
        assert 30 <= min(waits) < 31
        assert 89 < max(waits) <= 90
        assert 58 < sum(waits) / len(waits) < 62
