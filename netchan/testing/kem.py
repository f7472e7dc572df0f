"""A stand-in for the post-quantum half of the handshakes of a simulation.

Layer: testing. The library draws the randomness of ML-KEM's encapsulation itself, so no run could be had again. Here
the secret and a ciphertext of the same size are drawn from the simulation's generator, and the other side, which is in
the same process, finds the secret in a table. Everything else of the handshake is what it is.

Spec: docs/spec/simulation.md §4.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from netchan.net.noise import MlKem768
from netchan.net.secret import SecureBytes

CIPHERTEXT_LEN: Final = 1088
"""Of ML-KEM-768."""
KEPT: Final = 4096
"""Ciphertexts that may still be opened."""


@contextmanager
def stand_in() -> Iterator[None]:
    """Meanwhile encapsulation draws from ``os.urandom``."""
    known: OrderedDict[bytes, bytes] = OrderedDict()

    def encapsulate(_: MlKem768, public: bytes) -> tuple[SecureBytes, bytes]:
        shared, ciphertext = os.urandom(32), os.urandom(CIPHERTEXT_LEN)
        known[ciphertext] = shared
        if len(known) > KEPT:
            known.popitem(last=False)
        return SecureBytes(shared), ciphertext

    def decapsulate(_: MlKem768, private: object, ciphertext: bytes) -> SecureBytes:
        return SecureBytes(known.get(ciphertext) or sha256(ciphertext).digest())

    before = MlKem768.encapsulate, MlKem768.decapsulate
    MlKem768.encapsulate, MlKem768.decapsulate = encapsulate, decapsulate  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        MlKem768.encapsulate, MlKem768.decapsulate = before  # type: ignore[method-assign]
