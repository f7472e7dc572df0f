"""Write the stored inputs of the target ``handover`` anew: ``python -m tests.fuzz.states``, for a new layout.

They are states of sessions of the random programs of test_core_handover.py, a choice of the smaller ones.
``offers-let-go-beyond-what-was-accepted`` is one with the four bytes of ``offers.let_go`` all ones, which is searched
for by what the reader says to other values there.
"""

from __future__ import annotations

import random
from pathlib import Path

from netchan._core import _fuzz_handover
from netchan._core import _selftest_session as st
from tests.property.core_lines import Line
from tests.property.test_core_handover import PROGRAMS, Mover

HERE = Path(__file__).parent / "corpus" / "handover"
CHOSEN, LONGEST = 24, 9000
MASK = 0xFFFFFFFF


class Taker(Mover):
    """Writes sessions at random moments, and lets them go on."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.states: list[bytes] = []

    def __call__(self, pair: st.Pair, lines: list[Line], rng: random.Random) -> None:
        side: st.Side = getattr(pair, rng.choice("ab"))
        side.hold()
        state = side.write()
        side.unhold()
        if isinstance(state, bytes) and len(state) < LONGEST and _fuzz_handover.accepts(state):
            self.states.append(state)


def let_go_at(state: bytes) -> int | None:
    """Where ``offers.let_go`` of a rendezvous with k values not answered is: there the bit k alone is refused."""

    def fits(at: int, value: int) -> bool:
        return bool(_fuzz_handover.accepts(state[:at] + value.to_bytes(4, "big") + state[at + 4 :]))

    for at in range(500, len(state) - 24):
        if state[at : at + 4] != bytes(4) or fits(at, MASK):
            continue
        for k in range(1, 6):
            if not fits(at, 1 << k) and fits(at, 2 << k) and fits(at, (2 << k) - 1 ^ MASK) and fits(at, (1 << k) - 1):
                return at
    return None


def main() -> None:
    """Replaces the stored inputs."""
    taker = Taker()
    for play in PROGRAMS.values():
        for seed in range(60):
            play(seed, taker)
    rng = random.Random(1)
    rng.shuffle(taker.states)
    for number, state in enumerate(taker.states[:CHOSEN]):
        (HERE / f"state-{number:02d}").write_bytes(state)
    for state in taker.states:
        at = let_go_at(state)
        if at is not None:
            beyond = state[:at] + MASK.to_bytes(4, "big") + state[at + 4 :]
            (HERE / "offers-let-go-beyond-what-was-accepted").write_bytes(beyond)
            return
    raise SystemExit("no rendezvous among the states")


if __name__ == "__main__":
    main()
