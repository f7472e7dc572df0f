"""Datagrams of paths that are not known: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from netchan.net import moved, resets
from netchan.net.secret import SecureBytes

_RESETS = resets.Resets(SecureBytes(bytes(range(32))))
_DOOR, _FROM = ("192.0.2.7", 7_000), ("198.51.100.9", 50_000)


def _named(nonce: bytes, size: int) -> bytes:
    """A datagram of a path that the listener has named once."""
    name = _RESETS.name(_DOOR, lambda n: nonce, lambda cid: False)
    return b"\x47" + name[: resets.CID_BYTES] + bytes(max(0, size - 9))


def check_reset(data: bytes) -> None:
    """Only a name that was given is answered, with less than came and with the token of that name, and not for ever."""
    if not moved.is_of_a_path(data):
        return
    cid = data[moved.CID]
    name = _RESETS.name(_DOOR, lambda n: cid[:n], lambda _: False)
    listener = resets.Resets(_RESETS._key)
    said, *others = (
        listener.answer(data, _DOOR, _FROM, 0, lambda n: b"\xa5" * n) for _ in range(resets.RESET_SOURCE_BURST + 1)
    )
    if name[: resets.CID_BYTES] != cid or len(data) <= resets.RESET_LEAST:
        assert said is None and not any(others)
        return
    assert said is not None and moved.is_of_a_path(said)
    assert resets.RESET_LEAST <= len(said) < len(data) and said.endswith(name[resets.CID_BYTES :])
    assert all(others[:-1]) and others[-1] is None


RESETS = [_named(bytes([n] * 4), size) for n in range(3) for size in (40, 41, 44, 63, 1_200)] + [b"", b"\x40" * 60]
