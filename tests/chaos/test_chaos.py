"""Sessions over a link of a real network stack that loses, corrupts, reorders, falls silent (``make chaos``).

The scenarios are those of the QUIC interop runner, as far as they mean a path and not a handshake of QUIC. Every value
is compared with what was sent. Goodput is payload; beside it stands a plain TCP socket with the kernel's CUBIC.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.chaos.wire import Wire

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(300),
]

SCENARIOS: dict[str, dict[str, float]] = {
    "10 Mbit/s, 15 ms, 25 packets": {"rate": 10e6, "delay": 0.015, "queue": 25},
    "long round trip": {"rate": 10e6, "delay": 0.3, "queue": 600},
    "loss": {"rate": 10e6, "delay": 0.015, "queue": 25, "loss": 0.02},
    "heavy loss": {"rate": 10e6, "delay": 0.015, "queue": 25, "loss": 0.2},
    "burst loss": {"rate": 10e6, "delay": 0.015, "queue": 25, "loss": 0.03, "burst": 8},
    "corruption": {"rate": 10e6, "delay": 0.015, "queue": 25, "flip": 0.02},
    "twice and late": {"rate": 10e6, "delay": 0.015, "queue": 50, "twice": 0.05, "late": 0.05},
}


def tell(name: str, result: dict[str, Any]) -> None:
    figures = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
    print(f"\n  {name}: {result['goodput'] / 1e6:.2f} Mbit/s {figures}")


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_value_arrives(name: str, kind: str) -> None:
    with Wire(**SCENARIOS[name]) as wire:
        result = wire.transfer(kind, seconds=5)[0]
    tell(f"{name}, {kind}", result)
    assert result["bytes"] == result["sent"] > 0


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("silence", [0.5, 3.0, 14.0])
def test_a_silent_link_holds_up_and_loses_nothing(kind: str, silence: float) -> None:
    def meanwhile(wire: Wire) -> None:
        time.sleep(2)
        wire.set(dead=True)
        time.sleep(silence)
        wire.set()

    with Wire(rate=10e6, delay=0.015, queue=25) as wire:
        result = wire.transfer(kind, seconds=silence + 6, meanwhile=meanwhile)[0]
    tell(f"silent for {silence} s, {kind}", result)
    assert result["bytes"] == result["sent"] > 0
    assert result["longest_s"] < silence + 6


def test_a_link_without_loss_is_filled() -> None:
    with Wire(rate=20e6, delay=0.01, queue=60) as wire:
        shares = []
        for _ in range(3):
            result = wire.transfer("udp", seconds=8)[0]
            tell("20 Mbit/s, 10 ms", result)
            shares.append(result["goodput"] / 20e6)
    assert median(shares) >= 0.93, shares  # of the bytes on the wire 0.951 are payload at most


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.03])
def test_with_loss_it_is_no_slower_than_the_cubic_of_the_kernel(loss: float) -> None:
    ours, theirs = [], []
    with Wire(rate=20e6, delay=0.01, queue=60, loss=loss) as wire:
        for _ in range(3):  # in turn
            ours.append(wire.transfer("udp", seconds=10)[0]["goodput"])
            theirs.append(wire.transfer("kernel", seconds=10)[0]["goodput"])
    print(f"\n  loss {loss}: ours {median(ours) / 1e6:.2f}, kernel {median(theirs) / 1e6:.2f} Mbit/s {ours} {theirs}")
    assert median(ours) >= 0.9 * median(theirs)


def test_it_shares_a_link_with_the_cubic_of_the_kernel() -> None:
    indices = []
    with Wire(rate=20e6, delay=0.015, queue=60) as wire:
        for _ in range(3):
            rates = [result["goodput"] for result in wire.transfer("udp", "kernel", seconds=20)]
            indices.append(sum(rates) ** 2 / (2 * sum(rate**2 for rate in rates)))  # Jain's
            print(f"\n  ours {rates[0] / 1e6:.2f}, kernel {rates[1] / 1e6:.2f} Mbit/s: {indices[-1]:.3f}")
    assert median(indices) >= 0.9, indices


def test_a_router_that_marks_costs_no_datagram() -> None:
    """A deep queue, and marks from 30 packets on: nothing is lost, the queue stays short, the link is filled."""
    with Wire(rate=20e6, delay=0.01, queue=200, mark=30) as wire:
        result = wire.transfer("udp", seconds=10)[0]
    tell("20 Mbit/s, 10 ms, marks from 30 packets on", result)
    assert result["ecn"] and result["marks"] > 0 and result["lost"] == 0
    assert result["rtt_us"] < 60_000  # 20 ms and 30 packets are 38; the whole queue would be 140
    assert result["goodput"] >= 0.9 * 0.951 * 20e6  # of the bytes on the wire 0.951 are payload at most


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_stripe_adds_up_unequal_links(kind: str) -> None:
    links = [(30e6, 0.0025, 50), (15e6, 0.01, 25), (6e6, 0.04, 40)]  # a queue of 20 ms, or a round trip
    shares = []
    with Wire(*({"rate": rate, "delay": delay, "queue": queue} for rate, delay, queue in links)) as wire:
        for _ in range(3):
            result = wire.transfer("+".join([kind] * len(links)), seconds=20)[0]
            tell(f"30, 15 and 6 Mbit/s, {kind}", result)
            shares.append(result["goodput"] / sum(rate for rate, _, _ in links))
            assert result["bytes"] == result["sent"] > 0
    assert median(shares) >= 0.9, shares
