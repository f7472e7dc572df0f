"""A set of authentication tags that costs four bytes each: what the gate remembers of a window.

Layer: net (L3), sans-IO. Knows neither time nor frames; gate.py turns the windows.

One table of fixed size with open addressing, in pages that the kernel gives as they are touched: it grows to its bound
within the first thousand entries and not any more, never stops to be rebuilt, and holds no object per entry. The place
of a tag is chosen by Python's keyed hash of it, since strangers choose tags; runs are bounded all the same.
Only 32 bits of a tag are kept, and compared with the few that stand where it belongs: a fresh tag is taken for a known
one about once in 2**31, and its sender dials again.
Spec: docs/spec/handshake.md §5.
"""

from __future__ import annotations

import mmap
from typing import Final

SLOTS: Final = 1 << 17
"""Places; the gate keeps at most half of them in use."""
RUN_MAX: Final = 256
"""Places looked at for one tag: bounds what a crowded run can cost (at half load a run of 64 is hardly ever seen)."""


class SeenSet:
    """See the module head. At most ``SLOTS`` // 2 entries may be added."""

    __slots__ = ("_count", "_pages", "_slots")

    def __init__(self) -> None:
        self._count = 0
        self._pages: mmap.mmap | None = None
        self._slots: memoryview | None = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, tag: bytes) -> bool:
        slots = self._slots
        if slots is None:
            return False
        place = _place(slots, tag)
        return place >= 0 and slots[place] != 0

    def add(self, tag: bytes) -> bool:
        """Remember a tag of 4 bytes or more; False: no place is left for it (nothing was changed)."""
        slots = self._slots
        if slots is None:
            self._pages = mmap.mmap(-1, 4 * SLOTS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            slots = self._slots = memoryview(self._pages).cast("I")
        place = _place(slots, tag)
        if place < 0:
            return False
        if not slots[place]:
            slots[place] = _key(tag)
            self._count += 1
        return True


def _key(tag: bytes) -> int:
    return int.from_bytes(tag[:4], "big") or 1  # 0 stands for an empty place


def _place(slots: memoryview, tag: bytes) -> int:
    """Where the tag stands, or the empty place where it belongs; -1: neither within ``RUN_MAX``."""
    key, place = _key(tag), hash(tag) % SLOTS
    for _ in range(RUN_MAX):
        found = slots[place]
        if not found or found == key:
            return place
        place = (place + 1) % SLOTS
    return -1
