"""Each checker goes red when what it looks for is put in (docs/spec/simulation.md §7)."""

from __future__ import annotations

import pytest

from netchan.errors import InDoubt, SessionLost
from netchan.testing import Amplification, ExactlyOnce, Memory, Nonces

HERE, THERE = ("10.0.1.2", 7000), ("10.0.1.1", 40001)


def fed(sent: list[int], got: list[int]) -> ExactlyOnce:
    made = ExactlyOnce()
    for value in sent:
        made.sent(value)
    for value in got:
        made.got(value)
    return made


def test_values_that_came_once_and_in_order_are_right() -> None:
    fed([1, 2, 3], [1, 2, 3]).check()
    fed([1, 2, 3], [1, 2]).check(whole=False)


@pytest.mark.parametrize(
    ("got", "says"),
    [
        ([1, 2, 2, 3], "came twice"),
        ([1, 3, 2], "came after"),
        ([1, 2, 3, 4], "never accepted"),
        ([1, 3], "lost without a word"),
    ],
)
def test_wrong_values_are_named(got: list[int], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        fed([1, 2, 3], got).check()


def test_equal_values_cannot_be_told_apart() -> None:
    with pytest.raises(AssertionError, match="give each a number"):
        fed([1, 1], [1, 1]).check()


def test_report_of_a_lost_session_counts() -> None:
    lost = fed([1, 2, 3], [1])
    lost.lost(SessionLost("gone", undelivered=[3], in_doubt=[InDoubt(1)]))
    lost.check()
    lost.got(3)
    with pytest.raises(AssertionError, match="calls undelivered"):
        lost.check()


def test_amplification_of_an_address_that_may_be_forged_is_found() -> None:
    watch = Amplification([HERE])
    watch.on_arrived(THERE, HERE, bytes(1300))
    for _ in range(3):
        watch.on_sent(HERE, THERE, bytes(1300))
    watch.check()
    watch.on_sent(HERE, THERE, bytes(1))
    with pytest.raises(AssertionError, match="40001"):
        watch.check()


def test_address_that_answers_may_be_sent_more() -> None:
    watch = Amplification([HERE])
    for _ in range(2):
        watch.on_arrived(THERE, HERE, bytes(100))
        watch.on_sent(HERE, THERE, bytes(100))
    for _ in range(100):
        watch.on_sent(HERE, THERE, bytes(1300))
    watch.check()
    assert watch.worst == 1.0


@pytest.mark.parametrize("stream", [False, True])
def test_sealed_bytes_that_go_twice_are_found(stream: bool) -> None:
    watch = Nonces()
    for byte in (0x40, 0x41, 0x40):
        watch.check()
        data = bytes([byte]) * 100
        watch.on_stream("a", data) if stream else watch.on_sent(HERE, THERE, data)
    with pytest.raises(AssertionError, match="twice"):
        watch.check()


def test_messages_of_a_handshake_may_be_said_again() -> None:
    watch = Nonces()
    for _ in range(2):
        watch.on_sent(HERE, THERE, b"\x01" * 100)
    watch.check()


class _Peer:
    """What the checkers ask of a peer."""

    def __init__(self, **figures: int) -> None:
        self._figures = figures

    def stats(self) -> dict[str, int]:
        return self._figures


def test_memory_and_numbers_that_sessions_report_are_looked_at() -> None:
    memory, nonces = Memory(1000), Nonces()
    memory.look(_Peer(held_bytes=1000))  # type: ignore[arg-type]
    nonces.look(_Peer(nonce_repeats=0))  # type: ignore[arg-type]
    memory.check(), nonces.check()
    memory.look(_Peer(held_bytes=1001))  # type: ignore[arg-type]
    nonces.look(_Peer(nonce_repeats=1))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="1001 bytes"):
        memory.check()
    with pytest.raises(AssertionError, match="1 numbers used"):
        nonces.check()
