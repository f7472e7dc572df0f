"""What changes of a real network cost a session: links that go down and come, addresses, routes (``make changes``).

Two namespaces joined by links of a user-space emulator (tests/chaos/link.py), round trip 20 ms. Values go every 2 ms
each way; a *stall* is the longest gap between two arrivals behind a change, less these 2 ms. Both sides are processes
of one machine, so their clocks are one. Only the side that dials sees its links change; the other one hears nothing.
Every second change hits the path that is in use, about: of the stalls the longer half is counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.chaos.wire import ROOT, Wire

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(600),
]
EVERY = 0.002
RTT = 0.02
CUTS = int(os.environ.get("NETCHAN_CUTS", "12"))
DELAY = {"delay": RTT / 2}


class Session:
    """A dialler in namespace a, a listener in namespace b; ``end`` tells what both have seen."""

    def __init__(self, wire: Wire, carrier: str, links: int, mode: str) -> None:
        self.wire = wire
        self.taker = self._start("b", "take", carrier, str(links))
        assert self.taker.stdout is not None
        addresses = self.taker.stdout.readline().strip()
        self.sender = self._start("a", "send", addresses, mode)
        assert self.sender.stdout is not None
        assert self.sender.stdout.readline() == "ready\n"
        time.sleep(1)

    def _start(self, side: str, *arguments: str) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", f"{self.wire._name}-{side}", sys.executable, "-m", "tests.chaos.changing"]
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *arguments], cwd=ROOT, text=True, stdin=pipe, stdout=pipe)

    def floor(self, carrier: str) -> float:
        """ms that the network itself takes from the beginning of a connection to the first answer over it."""
        echo = self._start("b", "echo", carrier)
        try:
            assert echo.stdout is not None and echo.stdout.readline() == "ready\n"
            with self._start("a", "ask", carrier) as ask:
                return 1e3 * median(json.loads(ask.communicate(timeout=60)[0]))
        finally:
            echo.kill()
            echo.communicate()

    def ip(self, *arguments: str) -> float:
        """Change something on the dialler's side; when it was done."""
        subprocess.run(("ip", "-n", f"{self.wire._name}-a", *arguments), check=True)
        return time.monotonic()

    def device(self, link: int) -> str:
        return f"{self.wire._name}a{link}"

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the dialler saw, and the listener."""
        said = [self.sender.communicate("\n", timeout=60)[0], self.taker.communicate(timeout=60)[0]]
        near, far = (json.loads(text.splitlines()[-1]) for text in said)
        return near, far

    def kill(self) -> None:
        for process in (self.sender, self.taker):
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def session(carrier: str = "tcp", links: int = 2, mode: str = "failover") -> Iterator[Session]:
    with Wire(*([DELAY] * links)) as wire:
        one = Session(wire, carrier, links, mode)
        try:
            yield one
        finally:
            one.kill()


def stall(arrivals: list[float], since: float, until: float) -> float:
    """ms for which values stopped."""
    near = [at for at in arrivals if since - 0.05 <= at <= until]
    return 1e3 * (max(b - a for a, b in pairwise(near)) - EVERY)


def active(seen: dict[str, Any], at: float) -> int | None:
    return next((path for when, kind, path in reversed(seen["events"]) if kind == "path_active" and when <= at), None)


def tell(what: str, found: list[float]) -> float:
    found.sort()
    p99 = found[min(len(found) - 1, int(0.99 * len(found)))]
    print(f"\n  {what}: {len(found)} times, p50 {median(found):.0f} ms, p99 {p99:.0f} ms, longest {found[-1]:.0f} ms")
    return p99


CHANGES: dict[str, tuple[Callable[[Session, int], float], Callable[[Session, int], object], float]] = {
    "link down": (
        lambda s, n: s.ip("link", "set", s.device(n), "down"),
        lambda s, n: s.ip("link", "set", s.device(n), "up"),
        100,
    ),
    "address gone": (
        lambda s, n: s.ip("address", "del", f"10.77.{n}.1/24", "dev", s.device(n)),
        lambda s, n: s.ip("address", "add", f"10.77.{n}.1/24", "dev", s.device(n)),
        100,
    ),
    "route gone": (
        lambda s, n: s.ip("route", "add", "blackhole", f"10.77.{n}.2/32"),
        lambda s, n: s.ip("route", "del", "blackhole", f"10.77.{n}.2/32"),
        100,
    ),
    "silent cut": (
        lambda s, n: s.wire.set(n, dead=True) or time.monotonic(),
        lambda s, n: s.wire.set(n),
        300,
    ),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("carrier", ["tcp", "udp"])
def test_stall_when_the_path_that_carries_is_gone(what: str, carrier: str) -> None:
    """Both links in turn are cut while values go over one of them."""
    cut, mend, most = CHANGES[what]
    cuts: list[tuple[float, int]] = []
    with session(carrier) as one:
        for n in range(2 * CUTS):
            cuts.append((cut(one, n % 2), n % 2))
            time.sleep(0.7)
            mend(one, n % 2)
            time.sleep(1.8)
        near, far = one.end()
    up = [stall(far["arrivals"], at, at + 0.7) for at, _ in cuts]
    down = [stall(near["arrivals"], at, at + 0.7) for at, _ in cuts]
    used = sorted(up)[-CUTS:]
    p99 = tell(f"{what}, {carrier}, the side that sees it sends", used)
    tell(f"{what}, {carrier}, the other side sends", sorted(down)[-CUTS:])
    assert p99 < most
    assert len(far["arrivals"]) > 100 and len(near["arrivals"]) > 100


@pytest.mark.parametrize("gap", [3.0, 240.0])
@pytest.mark.parametrize("carrier", ["tcp", "udp"])
def test_traffic_after_all_links_have_come_back(carrier: str, gap: float) -> None:
    """From the first attempt that can succeed: the link is up when it begins."""
    found: dict[str, list[float]] = {"attempt": [], "down": [], "up": []}
    rounds = min(8, CUTS) if gap < 10 else 1
    backs: list[float] = []
    with session(carrier) as one:
        floor = one.floor(carrier)
        for _ in range(rounds):
            for n in range(2):
                one.ip("link", "set", one.device(n), "down")
            time.sleep(gap + 11 if gap < 10 else gap)  # paths are dead after 10 s
            for n in range(2):
                backs.append(one.ip("link", "set", one.device(n), "up"))
            time.sleep(4)
        near, far = one.end()
    for first, back in zip(backs[::2], backs[1::2], strict=True):
        begun = next(at for at in near["attempts"] if at >= first - 0.02)
        found["attempt"].append(1e3 * max(0.0, begun - back))
        found["down"].append(1e3 * (next(at for at in near["arrivals"] if at > begun) - begun))
        found["up"].append(1e3 * (next(at for at in far["arrivals"] if at > begun) - begun))
    tell(f"{carrier}, {gap:g} s without a link: attempt behind the return", found["attempt"])
    tell(f"{carrier}, {gap:g} s without a link: first value to the dialler, behind the attempt", found["down"])
    tell(f"{carrier}, {gap:g} s without a link: first value from the dialler, behind the attempt", found["up"])
    # Over TCP: SYN, its answer, JOIN, its answer with the first values behind it. Over UDP: JOIN, its answer; values of
    # the dialler half a round trip later; they prove its address, and only then come those of the other side.
    rounds_least = "2 and 2.5" if carrier == "tcp" else "2 and 1.5"
    print(
        f"  (round trips of {RTT * 1e3:g} ms at the least: {rounds_least}; over this link a plain {carrier} socket has"
    )
    print(f"  its first answer {floor:.1f} ms after it began, which is {2 if carrier == 'tcp' else 1} of them)")
    assert median(found["down"]) < 10 * RTT * 1e3  # the machine may be busy


def test_without_the_watcher_the_pauses_decide() -> None:
    with session(mode="unwatched") as one:
        for n in range(2):
            one.ip("link", "set", one.device(n), "down")
        time.sleep(14)
        for n in range(2):
            back = one.ip("link", "set", one.device(n), "up")
        time.sleep(4)
        near, _ = one.end()
    begun = next(at for at in near["attempts"] if at >= back)
    print(f"\n  unwatched: attempt {1e3 * (begun - back):.0f} ms behind the return")
    assert next(at for at in near["arrivals"] if at > begun)
