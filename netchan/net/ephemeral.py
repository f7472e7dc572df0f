"""Ephemeral keys made ahead: while the worker waits for the peer it makes the ones of the next handshake.

Layer: net (L3). Lives on the worker's thread. Half of what a dialler computes before its first byte is on the way is
the making of two keys that depend on nothing.

A key is given out once. One that nobody wants is forgotten after ``KEEP_NS``: what lies in memory opens no session that
was, only perhaps the next. A forked child has a worker of its own, and so an empty stock.
Spec: docs/spec/handshake.md §1.1, §10.
"""

from __future__ import annotations

import os
import time
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from netchan.net.noise import MlKem768, make_dh
from netchan.net.worker import Timer, Worker

KEEP_NS: Final = 60_000_000_000
"""How long a key that was made ahead may wait."""


class Stock:
    """At most one key pair of each kind; see noise.Ahead."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._dh: tuple[X25519PrivateKey, bytes] | None = None
        self._kem: tuple[object, bytes] | None = None
        self._want_dh = self._want_kem = self._waits = False
        self._timer: Timer | None = None

    def dh(self) -> tuple[X25519PrivateKey, bytes] | None:
        """A pair for X25519, or None: make it now. One for next time will be made."""
        found, self._dh = self._dh, None
        self._want_dh = True
        self._ask()
        return found

    def kem(self) -> tuple[object, bytes] | None:
        """A pair for ML-KEM-768, or None: make it now. One for next time will be made."""
        found, self._kem = self._kem, None
        self._want_kem = True
        self._ask()
        return found

    def _ask(self) -> None:
        if not self._waits:
            self._waits = True
            self.worker.when_idle(self._fill)

    def _fill(self) -> None:
        """Make one key: between two of them the worker looks whether there is something to do."""
        self._waits = False
        if self._want_dh:
            self._want_dh = False
            self._dh = make_dh(os.urandom)
        elif self._want_kem:
            self._want_kem = False
            self._kem = MlKem768().generate(os.urandom)
        if self._want_dh or self._want_kem:
            self._ask()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.worker.at(time.monotonic_ns() + KEEP_NS, self._forget)

    def _forget(self) -> None:
        self._timer = None
        self._dh = self._kem = None


_stocks: list[Stock] = []


def stock_of(worker: Worker) -> Stock:
    """The stock of this worker; made on first use. On the worker's thread."""
    if not _stocks or _stocks[0].worker is not worker:
        _stocks[:] = [Stock(worker)]
    return _stocks[0]


os.register_at_fork(after_in_child=_stocks.clear)
