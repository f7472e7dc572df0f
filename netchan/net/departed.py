"""Sessions that are over and forgotten: their locators, and what proves it to the other side. Flat and bounded.

Layer: net (L3), sans-IO. A locator is the beginning of a MAC, so its first bytes spread as if drawn: each belongs to
one of ``ROWS`` rows, whose oldest record makes way for a new one. A record is 48 bytes in a bytearray; as objects of
their own its parts would take four times as much, in every process that many peers leave.
Spec: docs/spec/handshake.md §11.
"""

from __future__ import annotations

from typing import Final

NAME_LEN: Final = 16
PROOF_LEN: Final = 32
ROWS: Final = 1_024
ROW_MAX: Final = 8
"""Records of one row."""
DEPARTED_MAX: Final = ROWS * ROW_MAX
_RECORD: Final = NAME_LEN + PROOF_LEN


class Departed:
    """Locator -> proof, 16 and 32 bytes, of the sessions that were forgotten last: up to ``DEPARTED_MAX`` of them."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[int, bytearray] = {}

    def add(self, name: bytes, proof: bytes) -> None:
        """Keep one; the oldest of its row makes way. ValueError: a wrong length."""
        if len(name) != NAME_LEN or len(proof) != PROOF_LEN:
            raise ValueError(
                f"a locator has {NAME_LEN} bytes and a proof {PROOF_LEN}, not {len(name)} and {len(proof)}"
            )
        # Each step leaves the row whole: the collector calls this on any thread, between any two of them.
        row = self._rows.setdefault(_row_of(name), bytearray())
        if len(row) >= ROW_MAX * _RECORD:
            del row[:_RECORD]
        row += name + proof

    def get(self, name: bytes) -> bytes | None:
        """The proof that was added last for this locator, or None."""
        row = bytes(self._rows.get(_row_of(name), b""))  # a copy: the collector may add on another thread
        for at in range(len(row) - _RECORD, -1, -_RECORD):
            if row[at : at + NAME_LEN] == name:
                return bytes(row[at + NAME_LEN : at + _RECORD])
        return None

    def __contains__(self, name: bytes) -> bool:
        return self.get(name) is not None

    def __len__(self) -> int:
        return sum(map(len, self._rows.values())) // _RECORD

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()


def _row_of(name: bytes) -> int:
    return int.from_bytes(name[:2], "big") % ROWS
