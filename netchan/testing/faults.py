"""What a link does to what it carries: the settings, and the fate of one datagram or piece of a stream.

Layer: testing, sans-IO: time and randomness are arguments.

A datagram that meets no room, is too long or is lost is gone. A piece of a stream is never lost: what a real TCP would
send again comes later instead, and what is behind it waits. Spec: docs/spec/simulation.md §3.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random
from typing import Any, Final

NS: Final = 1_000_000_000
IP_UDP_BYTES: Final = 28
"""What a datagram has in front of it on the wire, for ``mtu``."""
STREAM_AGAIN_NS: Final = 200_000_000
"""First pause after which a stream tries again; doubles."""
STREAM_AGAIN_MAX_NS: Final = 60 * NS
REORDER_NS: Final = 20_000_000
"""A datagram that is overtaken comes up to so much later."""


@dataclass
class Faults:
    """The settings of one direction of a link; they may be changed while the simulation runs.

    Attributes:
        delay: seconds on the way.
        jitter: up to so many seconds more, drawn anew for each datagram.
        rate: bytes a second; None: no limit.
        queue: bytes that wait for the rate; a datagram that finds the queue full is lost, a stream waits.
        loss: probability that a datagram is lost.
        burst: probability that a datagram begins a burst, in which all are lost.
        burst_length: datagrams of a burst, on average; 1 or more.
        reorder: probability that a datagram comes up to 20 ms later than its time, and others overtake it.
        duplicate: probability that a datagram comes twice.
        corrupt: probability that one bit of a datagram, or of a piece of a stream, is another.
        mtu: bytes of an IP packet that go through. Longer datagrams of a session are lost; those of a handshake may be
            cut into fragments, as their sockets allow it.
        down: nothing comes through, and nobody is told.
    """

    delay: float = 0.01
    jitter: float = 0.0
    rate: float | None = None
    queue: int = 64 * 1024
    loss: float = 0.0
    burst: float = 0.0
    burst_length: float = 5.0
    reorder: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    mtu: int = 1500
    down: bool = False

    def __post_init__(self) -> None:
        for name in ("loss", "burst", "reorder", "duplicate", "corrupt"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)!r} is no probability; give 0 to 1")
        for name in ("delay", "jitter", "queue"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r} is negative; give 0 or more")
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"rate={self.rate!r} lets nothing through; give more than 0, None, or down=True")
        if self.burst_length < 1 or self.mtu < 68:
            raise ValueError("burst_length is 1 or more, and mtu 68 or more (RFC 791)")

    def sound(self) -> Faults:
        """As fast and as far as this, without anything that goes wrong."""
        return Faults(delay=self.delay, rate=self.rate, queue=self.queue, mtu=self.mtu)


def changed(faults: Faults, settings: dict[str, Any]) -> Faults:
    """Other faults, but for these settings as before. TypeError: a name that is none."""
    return Faults(**{field.name: getattr(faults, field.name) for field in fields(faults)} | settings)


@dataclass
class Fate:
    """What becomes of one datagram.

    Attributes:
        at_ns: when it comes, each time that it does; nothing: it is lost.
        why: one word.
        bit: of the datagram, that is another; None: it is whole.
    """

    at_ns: list[int]
    why: str = "datagram"
    bit: int | None = None


class Line:
    """One direction of a link: its faults and what it remembers."""

    def __init__(self, faults: Faults, rng: Random) -> None:
        self.faults, self.rng = faults, rng
        self.other: Line | None = None  # which takes no more either, then
        self._free_ns = 0
        self._burst = 0
        self.sent = self.lost = 0
        self.left: int | None = None  # bytes of streams and datagrams that it takes before it takes no more; None: all

    def takes(self, size: int) -> int:
        """How many of so many bytes it takes; a datagram is one."""
        if self.left is None:
            return size
        taken = min(size, self.left)
        self.left -= taken
        if not self.left and self.other is not None:
            self.other.left = 0
        return taken

    def datagram(self, now_ns: int, size: int, *, fragments: bool = False) -> Fate:
        """Of a datagram of so many bytes that is given to the link now; ``fragments``: it may be cut to fit."""
        faults, rng = self.faults, self.rng
        self.sent += 1
        why = self._why_lost(now_ns, size, fragments=fragments)
        if why:
            self.lost += 1
            return Fate([], why)
        at = self._through(now_ns, size)
        fate = Fate([at])
        if faults.corrupt and size and rng.random() < faults.corrupt:
            fate.bit, fate.why = rng.randrange(8 * size), "corrupted"
        if faults.reorder and rng.random() < faults.reorder:
            fate.at_ns[0] += 1 + rng.randrange(REORDER_NS)
            fate.why = "late"
        if faults.duplicate and rng.random() < faults.duplicate:
            fate.at_ns.append(at + 1 + rng.randrange(REORDER_NS))
            fate.why = "doubled"
        return fate

    def stream(self, now_ns: int, size: int) -> int:
        """When a piece of a stream comes that is given to the link now, which is up."""
        at = self._through(now_ns, size)
        pause = STREAM_AGAIN_NS
        while self._lost(pieces=1 + size // self.faults.mtu):
            at += pause
            pause = min(2 * pause, STREAM_AGAIN_MAX_NS)
        return at

    def bit(self, size: int) -> int | None:
        """Which bit of a piece of a stream is another, if one is."""
        corrupt = self.faults.corrupt
        return self.rng.randrange(8 * size) if corrupt and self.rng.random() < corrupt else None

    def _why_lost(self, now_ns: int, size: int, *, fragments: bool) -> str:
        faults = self.faults
        if faults.down or not self.takes(1):
            return "cut"
        if size + IP_UDP_BYTES > faults.mtu and not fragments:
            return "too long"
        if faults.rate is not None and (self._free_ns - now_ns) * faults.rate / NS + size > faults.queue:
            return "queue full"
        return "lost" if self._lost(pieces=1 + (size + IP_UDP_BYTES) // (faults.mtu + 1)) else ""

    def _lost(self, pieces: int = 1) -> bool:
        faults, rng = self.faults, self.rng
        if self._burst:
            self._burst -= 1
            return True
        if faults.burst and rng.random() < faults.burst:
            # how many follow is drawn as if each had the same chance to be the last
            while rng.random() >= 1.0 / faults.burst_length:
                self._burst += 1
            return True
        return bool(faults.loss) and rng.random() >= (1.0 - faults.loss) ** pieces

    def _through(self, now_ns: int, size: int) -> int:
        faults = self.faults
        at = now_ns
        if faults.rate is not None:
            self._free_ns = max(self._free_ns, now_ns) + int(size * NS / faults.rate)
            at = self._free_ns
        at += int(faults.delay * NS)
        if faults.jitter:
            at += self.rng.randrange(1 + int(faults.jitter * NS))
        return at


def flipped(data: bytes, bit: int | None) -> bytes:
    """The same bytes but for one bit."""
    if bit is None:
        return data
    place = bit // 8
    return data[:place] + bytes([data[place] ^ 1 << bit % 8]) + data[place + 1 :]
