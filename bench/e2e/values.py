"""The messages that travel and what the receiver expects; both sides make them alike from a fixed seed.

A run sends a short ring of distinct messages round and round: building messages costs nothing while the clock runs, and
a lost, doubled or swapped message is noticed because neighbours differ. Up to ``WHOLE_BYTES`` the receiver compares the
whole message; a longer one by its length and its first 8 bytes, because reading it once more would be measured too.

Where several senders meet in one receiver (W3), every sender has a ring of its own: the last of the 8 bytes says whose.
Which connection is whose the receiver learns from the first message, because libraries may accept in any order.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, islice

WHOLE_BYTES = 4096
RING_BYTES = 8 << 20  # stays inside a common last-level cache and is more than the second level
RING_MSGS = 256
BATCH_MSGS = 64
BATCH_BYTES = 4 << 20  # a joined write of more than this is not what a program would do
SOURCE_AT = 7  # the byte of a message that says whose it is
TURN_MSGS = 1009  # W3c: a prime above the number of channels, so that no two channels carry the same in one turn


class Head:
    """Stands for a long message in comparisons: equal to any buffer of that length that begins like it."""

    __slots__ = ("head", "size")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        self.head = value[:8]
        self.size = len(value)

    def __eq__(self, other: object) -> bool:
        view = memoryview(other)  # type: ignore[arg-type]
        return view.nbytes == self.size and view[:8] == self.head

    def __repr__(self) -> str:
        return f"<{self.size} bytes beginning {self.head.hex()}>"


def batch_msgs(size: int) -> int:
    """Return how many messages of `size` bytes one batch call carries."""
    return max(1, min(BATCH_MSGS, BATCH_BYTES // size))


def ring(size: int, source: int = 0) -> list[bytes]:
    """Return the messages of one turn of sender `source`; their number is a multiple of ``batch_msgs(size)``.

    Raises:
        ValueError: `size` is below the 8 bytes of the sequence number.
    """
    if size < 8:
        raise ValueError("messages shorter than 8 bytes carry no sequence number")
    count = max(batch_msgs(size), min(RING_MSGS, RING_BYTES // size))
    count -= count % batch_msgs(size)
    return _numbered(size, source, count)


def _numbered(size: int, source: int, count: int) -> list[bytes]:
    tail = bytes([source]) + random.Random(size).randbytes(size - 8)
    return [number.to_bytes(SOURCE_AT, "little") + tail for number in range(count)]


def values(size: int, n: int, source: int = 0) -> Iterator[bytes]:
    """Return the n messages that sender `source` has in a run."""
    return islice(cycle(ring(size, source)), n)


def turns(size: int, n: int) -> Iterator[bytes]:
    """Return the n messages of a run over many channels in turn; the receiver compares them whole."""
    return islice(cycle(_numbered(size, 0, TURN_MSGS)), n)


def batches(size: int, n: int) -> Iterator[list[bytes]]:
    """Return the n messages of a run in batches; n is a multiple of ``batch_msgs(size)``."""
    each = batch_msgs(size)
    once = ring(size)
    parts = [once[at : at + each] for at in range(0, len(once), each)]
    return islice(cycle(parts), n // each)


def wants(size: int, n: int) -> Iterator[object]:
    """Return what to compare the n messages of a run with, one by one."""
    return islice(cycle(_comparable(size)), n)


def _comparable(size: int) -> list[object]:
    return [value if size <= WHOLE_BYTES else Head(value) for value in ring(size)]


class Expected:
    """What to compare batches with: ``take(k)`` is the next k messages as a list."""

    def __init__(self, size: int) -> None:
        self._turn = _comparable(size)
        self._base = list(self._turn)
        self._at = 0

    def take(self, k: int) -> list[object]:
        """Return the next k expected messages."""
        at = self._at
        while len(self._base) < at + k:
            self._base += self._turn
        self._at = (at + k) % len(self._turn)
        return self._base[at : at + k]


class Sources:
    """What the receivers of several senders expect, `each` messages from everyone.

    A receiver with a connection a sender takes ``wants()`` for every connection; one that gets all mixed, ``mixed()``.
    Connections may be read in different threads.
    """

    def __init__(self, size: int, each: int, count: int) -> None:
        self._each = each
        self._rings = [ring(size, source) for source in range(count)]
        self._unseen = {once[0]: once for once in self._rings}

    def wants(self) -> Iterator[object]:
        """Return what to compare the messages of one connection with, whosever it is; nobody's comes twice."""
        first = First(self._unseen)

        def parts() -> Iterator[Iterable[object]]:
            yield [first]
            yield islice(cycle(first.turn), 1, self._each)

        return chain.from_iterable(parts())

    def mixed(self) -> list[Iterator[bytes]]:
        """Return the messages that are to come of every sender, by the byte at ``SOURCE_AT``."""
        return [islice(cycle(once), self._each) for once in self._rings]


class First:
    """Stands for the first message of a connection: equal to that of any sender who was not seen before."""

    __slots__ = ("_unseen", "turn")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, unseen: dict[bytes, list[bytes]]) -> None:
        self._unseen = unseen
        self.turn: list[bytes] = []

    def __eq__(self, other: object) -> bool:
        self.turn = self._unseen.pop(bytes(other), [])  # type: ignore[call-overload]
        return bool(self.turn)

    def __repr__(self) -> str:
        return "<the first message of a sender>"
