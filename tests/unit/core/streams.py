"""Bytes of messages, and a receiver that has its preface: for the tests of outbox and inbox."""

from typing import Any

from netchan._core import _selftest_session as st

OK = st.RC["OK"]
PREFACE = b"\x05hello"


def vint(v: int) -> bytes:
    for n, bits in ((1, 6), (2, 14), (4, 30), (8, 62)):
        if v < 1 << bits:
            return (v | {1: 0, 2: 1, 4: 2, 8: 3}[n] << (8 * n - 2)).to_bytes(n, "big")
    raise ValueError(v)


def msg(body: bytes, ext: bytes | None = None) -> bytes:
    if ext is None:
        return vint(len(body) * 2) + body
    return vint(len(body) * 2 + 1) + vint(len(ext)) + ext + body


DELIVER = b"\x01\x00"


def receiver(**given: Any) -> st.In:
    """A receiver whose preface is here."""
    s = st.In(**given)
    assert s.data(0, PREFACE) == OK and s.preface() == b"hello"
    return s


AT = len(PREFACE)
