"""Pauses between the attempts to make a lost path again (docs/spec/handshake.md §11)."""

from __future__ import annotations

import random

import pytest

from netchan.net import redial


@pytest.mark.parametrize("most", [redial.FIRST_NS, redial.EAGER_NS, redial.LAZY_NS])
def test_pause_is_drawn_evenly_from_all_up_to_the_longest(most: int) -> None:
    state = random.getstate()
    try:
        random.seed(11)
        drawn = [redial.drawn_pause(most) for _ in range(20_000)]
    finally:
        random.setstate(state)
    assert min(drawn) >= redial.LEAST_NS and max(drawn) <= most
    width = most - redial.LEAST_NS
    tenths = [0] * 10
    for pause in drawn:
        tenths[min(9, (pause - redial.LEAST_NS) * 10 // width)] += 1
    assert all(1_800 < count < 2_200 for count in tenths)
