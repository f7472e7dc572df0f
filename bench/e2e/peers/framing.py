"""Messages on a byte stream: four bytes of length, big-endian, then the message; shared by the TCP and TLS peers.

This is what a program writes that has only a socket, done with the fewest calls Python allows.
"""

from __future__ import annotations

from struct import Struct

LENGTH = Struct("!I")
pack = LENGTH.pack
APART_BYTES = 16384  # from here on one more write costs less than copying the message behind its length


def join(values: list[bytes]) -> bytes:
    """Return all values, each behind its length, as one buffer."""
    parts: list[bytes] = []
    add = parts.append
    for value in values:
        add(pack(len(value)))
        add(value)
    return b"".join(parts)


def split(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole messages at the head of `buffer` and the bytes that are left."""
    values: list[bytes] = []
    add, unpack = values.append, LENGTH.unpack_from
    at, end = 0, len(buffer)
    while end - at >= 4:
        stop = at + 4 + unpack(buffer, at)[0]
        if stop > end:
            break
        add(buffer[at + 4 : stop])
        at = stop
    return values, buffer[at:]


def lacking(buffer: bytes) -> int:
    """Return how many bytes the first message of `buffer` still needs (0: it is whole)."""
    if len(buffer) < 4:
        return 4 - len(buffer)
    return max(0, int(LENGTH.unpack_from(buffer)[0]) + 4 - len(buffer))
