"""Whole programs in simulated networks (docs/spec/simulation.md): whatever links do, every value comes once and in
order, and all is over soon after they are sound again.

``NETCHAN_SIMULATION_SEEDS`` asks for more; a seed that fails shows the same run again, byte for byte.
"""

from __future__ import annotations

import os

import pytest

from tests.property.core_lines import block_of, noting
from tests.property.sim_programs import MODES, Run

SEEDS = int(os.environ.get("NETCHAN_SIMULATION_SEEDS", "100"))
FOUND = (112, 206, 307)
"""What simulations have found: the answer to a challenge of a path said again on another one, the end of a stream lost
with a record whose bytes parity had brought."""


@pytest.mark.parametrize("block", range(10))
def test_programs_of_two_hosts_lose_nothing(block: int) -> None:
    outcomes = []
    for seed in block_of(SEEDS, block):
        with noting(seed):
            outcomes.append(Run(seed).go())
    assert sum(one.values for one in outcomes) > 10 * len(outcomes)
    if len(outcomes) >= 100:  # of few none may have had it
        assert len({mode for one in outcomes for mode in one.modes}) == len(MODES)
        assert {carrier for one in outcomes for carrier in one.carriers} == {"tcp", "udp", "unix"}
        assert sum(one.lost for one in outcomes) and sum(one.moved for one in outcomes)


@pytest.mark.parametrize("seed", FOUND)
def test_what_simulations_have_found_stays_found(seed: int) -> None:
    with noting(seed):
        Run(seed).go()


def test_same_seed_is_the_same_run() -> None:
    for seed in (3, 7, 11):
        assert Run(seed).go().digest == Run(seed).go().digest
