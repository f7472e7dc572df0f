"""Buffers for secrets that overwrite themselves, and the key derivation that fills them.

Layer: net (L3); no I/O, no clock, no randomness. Imports nothing of ours.
Rule: a secret is held as SecureBytes by exactly one owner, which wipes it; it never becomes str, int or hex.
Results of hashlib and hmac are immutable objects: they are copied into SecureBytes at once and released.
Spec: docs/spec/handshake.md §1.1, §10.
"""

from __future__ import annotations

import hmac
from types import TracebackType
from typing import NoReturn, Self

HASH_LEN = 32


class SecureBytes(bytearray):
    """A bytearray that is overwritten with zeros when it is left, wiped or collected.

    Never resize one: a resize may leave the old memory behind. Comparison takes constant time for equal lengths,
    the representation shows no content, copying by pickle is refused.
    """

    __slots__ = ()

    def wipe(self) -> None:
        """Overwrite the content with zeros; the length stays. May be called any number of times."""
        self[:] = bytes(len(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __del__(self) -> None:
        self[:] = bytes(len(self))

    def __repr__(self) -> str:
        return f"<SecureBytes of {len(self)}>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, bytes | bytearray | memoryview):
            return NotImplemented
        return hmac.compare_digest(self, other)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secrets are not serialised")


def wipe(*buffers: bytearray | None) -> None:
    """Overwrite each buffer with zeros; None is skipped."""
    for buffer in buffers:
        if buffer is not None:
            buffer[:] = bytes(len(buffer))


def hkdf_extract(salt: bytes | bytearray, ikm: bytes | bytearray) -> SecureBytes:
    """HKDF-Extract with SHA-256 (RFC 5869 §2.2); 32 bytes."""
    return SecureBytes(hmac.digest(salt, ikm, "sha256"))


def hkdf_expand(prk: bytes | bytearray, info: bytes, length: int = HASH_LEN) -> SecureBytes:
    """HKDF-Expand with SHA-256 (RFC 5869 §2.3).

    Args:
        prk: the extracted key, 32 bytes or more.
        info: label and context.
        length: bytes wanted, 1 to 8160.

    Raises:
        ValueError: length out of range.
    """
    if not 1 <= length <= 255 * HASH_LEN:
        raise ValueError(f"HKDF gives 1 to {255 * HASH_LEN} bytes, not {length}")
    out = SecureBytes(length)
    block = b""
    for counter, start in enumerate(range(0, length, HASH_LEN), 1):
        block = hmac.digest(prk, block + info + bytes((counter,)), "sha256")
        end = min(start + HASH_LEN, length)
        out[start:end] = block[: end - start]
    return out


def derive(ikm: bytes | bytearray, label: bytes, info: bytes) -> SecureBytes:
    """The `HKDF(ikm, label, info)` of the spec: 32 bytes, salt = label."""
    with hkdf_extract(label, ikm) as prk:
        return hkdf_expand(prk, info)
