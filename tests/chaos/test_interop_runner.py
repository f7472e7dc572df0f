"""The rest of the table of the QUIC interop runner, with its figures (``make chaos``).

10 Mbit/s, 15 ms, a queue of 25 packets. Its cases of one long transfer under loss and corruption are in test_chaos.py.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.chaos.test_chaos import tell
from tests.chaos.wire import Wire

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(900),
]

LINK: dict[str, float] = {"rate": 10e6, "delay": 0.015, "queue": 25}
HANDSHAKES = 50


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("fault", ["loss", "flip"])
def test_fifty_handshakes_where_three_of_ten_packets_are_spoilt(fault: str, kind: str) -> None:
    """Loss in rows of three. The kernel drops what was corrupted on the way to a TCP socket, so there it is loss."""
    spec = {fault: 0.3} | ({"burst": 3} if fault == "loss" else {})
    with Wire(**LINK, **spec) as wire:
        code, said = wire.ask(kind, "ask", HANDSHAKES, 850)
    print(f"\n  30 % {fault}, {kind}: {said}")
    assert code == 0 and said["sessions"] == HANDSHAKES
    assert kind == "tcp" or said["again"] == 0  # what is lost there is said again by us


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_silence_of_two_seconds_in_seven(kind: str) -> None:
    def meanwhile(wire: Wire) -> None:
        for _ in range(2):
            time.sleep(5)
            wire.set(dead=True)
            time.sleep(2)
            wire.set()

    with Wire(**LINK) as wire:
        result = wire.transfer(kind, seconds=18, meanwhile=meanwhile)[0]
    tell(f"silent for 2 of 7 s, {kind}", result)
    assert result["bytes"] == result["sent"] > 10e6


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_round_trip_of_a_second_and_a_half(kind: str) -> None:
    with Wire(rate=10e6, delay=0.75, queue=25) as wire:
        result = wire.transfer(kind, seconds=12)[0]
    tell(f"750 ms each way, {kind}", result)
    assert result["bytes"] == result["sent"] > 0


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("moves", [False, True], ids=["port", "address"])
def test_a_translator_that_forgets_its_bindings(moves: bool, kind: str) -> None:
    """After a second, and then each 5 s. A TCP connection does not live through it: the session makes another one."""

    def meanwhile(wire: Wire) -> None:
        for binding, pause in ((2, 1), (3, 5), (4, 5)):
            time.sleep(pause)
            wire.set(nat=binding, moves=moves)

    with Wire(**LINK, nat=1, moves=moves) as wire:
        result = wire.transfer(kind, seconds=14, meanwhile=meanwhile)[0]
    tell(f"translator that forgets, {kind}", result)
    assert result["bytes"] == result["sent"] > (10e6 if kind == "udp" else 0)


def test_who_did_not_prove_its_address_is_sent_no_more_than_three_times_what_came() -> None:
    """One datagram of a dialler passes, and no other: all that the listener says is for an address without proof."""
    with Wire(**LINK, first=1) as wire:
        code, _ = wire.ask("udp", "dial", 1, 90)
        ((given, passed, back),) = wire.count()
    print(f"\n  given {given}, passed {passed}, sent back {back} bytes: {back / passed:.2f} times")
    assert code != 0 and given > passed > 0
    assert 0 < back <= 3 * passed


def test_who_joins_without_proof_of_its_address_is_sent_no_more_than_three_times_what_came() -> None:
    """The session is over TCP; of the datagrams of the path that joins one passes."""
    with Wire(dict(LINK), LINK | {"first": 1}) as wire:
        code, said = wire.ask("tcp+udp", "join", 10, 90)
        _, (given, passed, back) = wire.count()
    print(f"\n  given {given}, passed {passed}, sent back {back} bytes: {back / passed:.2f} times, {said}")
    assert code == 0 and given > passed > 0
    assert back <= 3 * passed
