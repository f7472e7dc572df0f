"""Checkers for what came of a simulation: values, amplification, nonces, memory.

Layer: testing; public. Each is told what happened, or watches a simulation's links (``Simulation.watch``), and raises
AssertionError in ``check`` with what is wrong. Liveness is ``Simulation.run`` with a limit after ``heal``.

Spec: docs/spec/simulation.md §7.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from netchan.errors import SessionLost

if TYPE_CHECKING:
    from netchan.node.peer import Peer
    from netchan.testing.network import Place

AMPLIFICATION: Final = 3
"""Times what has come from an address may go there before it has shown that it hears us (RFC 9000 section 8.1)."""
UNIT_LEAST: Final = 48
"""Bytes of a datagram or a piece of a stream that are compared; shorter ones may be equal by chance."""
UNITS_MAX: Final = 1 << 20
"""Datagrams and pieces that ``Nonces`` remembers."""


@dataclass
class ExactlyOnce:
    """The values of one direction of a channel: each once, in order, or named in the report of a lost session.

    Values must differ from each other, or nobody could say which one is missing.

    Attributes:
        name: for messages.
        accepted: what ``send`` took, in order.
        received: what ``recv`` gave, in order.
        undelivered: what the report says was never sent.
        in_doubt: what it says may have come or not: numbers of accepted values, from 0.
    """

    name: str = "channel"
    accepted: list[Hashable] = field(default_factory=list)
    received: list[Hashable] = field(default_factory=list)
    undelivered: list[Hashable] = field(default_factory=list)
    in_doubt: set[int] = field(default_factory=set)

    def sent(self, value: Hashable) -> None:
        """``send`` returned."""
        self.accepted.append(value)

    def got(self, value: Hashable) -> None:
        """``recv`` returned."""
        self.received.append(value)

    def lost(self, error: SessionLost) -> None:
        """The session is lost: what the sender's error says of its values counts, too."""
        self.undelivered += error.undelivered
        self.in_doubt.update(doubt.number for doubt in error.in_doubt)

    def check(self, *, whole: bool = True) -> None:
        """AssertionError unless each value came once and in order; ``whole``: and all, but for those in a report."""
        place = {value: n for n, value in enumerate(self.accepted)}
        if len(place) != len(self.accepted):
            raise AssertionError(f"{self.name}: two values that were sent are equal; give each a number")
        seen: set[Hashable] = set()
        last = -1
        for value in self.received:
            if value not in place:
                raise AssertionError(f"{self.name}: {value!r} came and was never accepted")
            if value in seen:
                raise AssertionError(f"{self.name}: value {place[value]} came twice")
            if place[value] < last:
                raise AssertionError(f"{self.name}: value {place[value]} came after {last}")
            seen.add(value)
            last = place[value]
        both = seen & set(self.undelivered)
        if both:
            raise AssertionError(f"{self.name}: {len(both)} values came that the report calls undelivered")
        if whole:
            known = seen | set(self.undelivered) | {self.accepted[n] for n in self.in_doubt if n < len(self.accepted)}
            missing = [n for n, value in enumerate(self.accepted) if value not in known]
            if missing:
                raise AssertionError(f"{self.name}: {len(missing)} values are lost without a word: {missing[:10]}")


class Amplification:
    """Nobody who has not shown that he hears us is sent more than three times what came from his address.

    An address has shown it when it sends a second datagram after the first one of ours to it: before, it may be forged.
    Give it to ``Simulation.watch``; ``listeners``: the addresses and ports whose answers are looked at.
    """

    def __init__(self, listeners: Iterable[Place]) -> None:
        self._listeners = set(listeners)
        self._came: dict[tuple[Place, Place], int] = {}
        self._went: dict[tuple[Place, Place], int] = {}
        self._proved: set[tuple[Place, Place]] = set()
        self._worst: tuple[float, Place] | None = None

    def on_sent(self, source: Place, target: Place, data: bytes) -> None:
        """See Watcher."""
        if source in self._listeners and (source, target) not in self._proved:
            went = self._went[source, target] = self._went.get((source, target), 0) + len(data)
            factor = went / max(1, self._came.get((source, target), 0))
            if self._worst is None or factor > self._worst[0]:
                self._worst = factor, target

    def on_arrived(self, source: Place, target: Place, data: bytes) -> None:
        """See Watcher."""
        if target in self._listeners:
            if (target, source) in self._went:
                self._proved.add((target, source))
            self._came[target, source] = self._came.get((target, source), 0) + len(data)

    def on_stream(self, label: str, data: bytes) -> None:
        """See Watcher: a stream's address is proved by the system."""

    @property
    def worst(self) -> float:
        """The highest factor so far; 0.0 without any."""
        return 0.0 if self._worst is None else self._worst[0]

    def check(self) -> None:
        """AssertionError if somebody was sent too much."""
        if self._worst is not None and self._worst[0] > AMPLIFICATION:
            raise AssertionError(f"{self._worst[1]} was sent {self._worst[0]:.1f} times what had come from there")


class Nonces:
    """No key and number seal two records.

    Give it to ``Simulation.watch``: no sealed bytes may be given to the network twice, for what goes again is sealed
    anew under another number and looks like nothing that went before. And ``look`` at peers: on a checked build
    (``NETCHAN_DEBUG=1``) each session counts numbers that did not grow, whatever was sealed with them.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._twice = self._counted = 0

    def look(self, peer: Peer) -> None:
        """Take what the session of this peer has counted."""
        self._counted = max(self._counted, peer.stats()["nonce_repeats"])

    def on_sent(self, source: Place, target: Place, data: bytes) -> None:
        """See Watcher."""
        if data[0] & 0xC0 == 0x40:
            self._look(data)

    def on_arrived(self, source: Place, target: Place, data: bytes) -> None:
        """See Watcher: what a link doubles is its own affair."""

    def on_stream(self, label: str, data: bytes) -> None:
        """See Watcher."""
        self._look(data)

    def check(self) -> None:
        """AssertionError if some did."""
        if self._twice or self._counted:
            raise AssertionError(
                f"{self._twice} sealed datagrams or pieces of streams went twice, {self._counted} numbers used again"
            )

    def _look(self, data: bytes) -> None:
        if len(data) < UNIT_LEAST or len(self._seen) >= UNITS_MAX:
            return
        end = data[-UNIT_LEAST:]  # the tag and what is before it
        if end in self._seen:
            self._twice += 1
        self._seen.add(end)


class Memory:
    """What sessions keep stays under their limit. ``look`` from time to time, from a program of their host.

    Attributes:
        most: the largest figure seen, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.most = limit, 0

    def look(self, peer: Peer) -> None:
        """Take what the session of this peer says it holds."""
        stats = peer.stats()
        self.most = max(self.most, stats["held_bytes"])

    def check(self) -> None:
        """AssertionError if it was too much."""
        if self.most > self.limit:
            raise AssertionError(f"a session held {self.most} bytes; its limit is {self.limit}")
