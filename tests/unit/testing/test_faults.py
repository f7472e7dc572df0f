"""What a link does to one datagram and to one piece of a stream (docs/spec/simulation.md §3)."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from netchan.testing.faults import Faults, Line, changed, flipped

MS = 1_000_000


def fates(
    n: int = 1000, size: int = 1000, seed: int = 1, step: int = MS, **faults: float | None
) -> list[tuple[int, list[int], str]]:
    """(when it was given, when it comes, why) of many datagrams, a millisecond apart."""
    line = Line(changed(Faults(), faults), Random(seed))
    found = []
    for i in range(n):
        fate = line.datagram(i * step, size)
        found.append((i * step, fate.at_ns, fate.why))
    return found


def test_sound_link_brings_all_after_its_delay() -> None:
    assert all(came == [at + 10 * MS] and why == "datagram" for at, came, why in fates())


def test_jitter_delays_by_up_to_its_length() -> None:
    late = [came[0] - at - 10 * MS for at, came, _ in fates(jitter=0.02)]
    assert 0 <= min(late) < 2 * MS and 18 * MS < max(late) <= 20 * MS


def test_rate_makes_datagrams_wait_and_a_full_queue_loses_them() -> None:
    found = fates(100, step=0, rate=100_000.0, queue=20_000)
    came = [at[0] for _, at, _ in found if at]
    assert came == [10 * MS + 10 * MS * (i + 1) for i in range(len(came))]  # 1 000 bytes take 10 ms each
    assert len(came) == 20 and {why for _, at, why in found if not at} == {"queue full"}


def test_loss_loses_as_many_as_it_says() -> None:
    assert 240 < sum(not came for _, came, _ in fates(loss=0.3)) < 360


def test_burst_loses_several_in_a_row() -> None:
    gone = "".join("x" if not came else "." for _, came, _ in fates(5000, burst=0.01, burst_length=8.0))
    runs = [len(run) for run in gone.split(".") if run]
    assert len(runs) > 20 and 5 < sum(runs) / len(runs) < 12


def test_reorder_lets_others_overtake() -> None:
    came = [at[0] for _, at, _ in fates(reorder=0.1)]
    assert sum(a > b for a, b in pairwise(came)) > 30


def test_duplicate_comes_twice() -> None:
    assert 60 < sum(len(came) == 2 for _, came, _ in fates(duplicate=0.1)) < 140


def test_corrupt_changes_one_bit() -> None:
    line = Line(Faults(corrupt=1.0), Random(1))
    data = bytes(range(200))
    other = flipped(data, line.datagram(0, len(data)).bit)
    assert sum((a ^ b).bit_count() for a, b in zip(data, other, strict=True)) == 1
    assert flipped(data, None) == data


def test_mtu_loses_what_is_longer_but_not_fragments() -> None:
    line = Line(Faults(mtu=1280), Random(1))
    assert line.datagram(0, 1252).at_ns and line.datagram(0, 1253).why == "too long"
    assert line.datagram(0, 1478, fragments=True).at_ns


def test_link_that_is_down_loses_all() -> None:
    assert all(not came and why == "cut" for _, came, why in fates(10, down=True))


def test_stream_loses_nothing_and_is_later_instead() -> None:
    line = Line(Faults(loss=0.3), Random(1))
    late = [line.stream(0, 1000) - 10 * MS for _ in range(200)]
    assert 0 in late and 200 * MS in late and 600 * MS in late


@pytest.mark.parametrize("wrong", [{"loss": 1.5}, {"delay": -1.0}, {"rate": 0.0}, {"burst_length": 0.5}, {"mtu": 20}])
def test_faults_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        changed(Faults(), wrong)


def test_same_seed_has_the_same_fates() -> None:
    faults = {"loss": 0.1, "jitter": 0.01, "duplicate": 0.1, "reorder": 0.1}
    assert fates(seed=7, **faults) == fates(seed=7, **faults) != fates(seed=8, **faults)
