"""What went over the wires of a simulation: a hash of all of it, and the last events for whoever looks for a fault.

Layer: testing. Two runs of one seed have the same digest: every byte, at the same virtual time, with the same fate.
Spec: docs/spec/simulation.md §5.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Final

KEPT: Final = 1000
"""Events that are kept to be looked at."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the network.

    Attributes:
        at: seconds since the simulation began.
        where: the link and its direction.
        what: one word or two: "datagram", "lost", "corrupted", "stream", "refused", "reset", ...
        size: bytes.
    """

    at: float
    where: str
    what: str
    size: int


class Trace:
    """The events of one simulation.

    Attributes:
        events: how many there were.
        last: the newest of them, at most ``KEPT``.
    """

    def __init__(self) -> None:
        self.events = 0
        self.last: deque[Event] = deque(maxlen=KEPT)
        self._hash = hashlib.sha256()

    def note(self, at_ns: int, where: str, what: str, data: bytes = b"") -> None:
        """Add one; ``at_ns`` since the beginning."""
        self.events += 1
        self.last.append(Event(at_ns / 1e9, where, what, len(data)))
        self._hash.update(f"{at_ns} {where} {what} {len(data)}\n".encode())
        self._hash.update(data)

    def digest(self) -> str:
        """Of all events so far: 64 hexadecimal digits."""
        return self._hash.hexdigest()
