"""The frame before a session, and its gate: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from typing import Any

from netchan.net import gate
from tests.fuzz.inputs.offers import NETWORK, NOW_S

_PSK = b"a shared secret of thirty-two or more bytes"
NODE = bytes(range(32))
HELLO = gate.Header(
    gate.HELLO, gate.VERSION, 0, gate.MODE_XX_NAMED << 4 | gate.SUITE_CLASSICAL, 0, b"scid" * 2, NOW_S * 1000
)
_GIVEN = bytes(range(16))


def _keys(psk: bool) -> gate.GateKeys:
    return gate.psk_keys(_PSK, NETWORK) if psk else gate.named_keys(NODE, NETWORK)


def _hello(psk: bool = False, cookie: bytes | None = None, **changed: Any) -> bytes:
    return gate.seal_frame(HELLO._replace(**changed), b"noise", _keys(psk).to_responder, cookie)


def _gate(kind: int) -> gate.Gate:
    suite = gate.SUITE_CLASSICAL
    if kind == 0:
        return gate.Gate(NETWORK, NODE, suite)
    if kind == 1:
        return gate.Gate(NETWORK, NODE, suite, psks=[_PSK, b"x" * 32])
    return gate.Gate(NETWORK, NODE, suite, stealth=True, floor_s=NOW_S - 20)


def check_header(data: bytes) -> None:
    """A header that is accepted has one spelling."""
    try:
        got = gate.parse_header(data)
    except gate.FrameError:
        return
    assert got.pack() == data[: gate.HEADER_LEN]
    assert gate.MIN_FRAME <= got.length <= max(gate.MAX_FRAME.values())


def check_reply(data: bytes) -> None:
    """No byte of a later message can be changed."""
    try:
        gate.open_frame(data, _keys(False).to_initiator, HELLO)
    except gate.FrameError:
        return
    assert data in REPLIES[:2]
    assert gate.frame_body(data) == b"reply"


def check_hello(data: bytes) -> None:
    """Nobody gets a byte back who has no key: what is answered is a frame that was sealed, but for its mac2."""
    sealed = {frame[: -gate.MAC_LEN] for frame in HELLOS}
    for kind in range(3):
        for where in (None, b"192.0.2.1:5"):
            one = _gate(kind)
            one.check(FIRST, NOW_S, 10**9, lambda n: bytes(n), address=where, busy=True)
            for seconds, busy in ((1, True), (131, True), (131, False), (400, True), (600, False)):
                now_ns = seconds * 10**9
                got = one.check(data, NOW_S, now_ns, lambda n: bytes(n), address=where, busy=busy)
                assert got.verdict is gate.Verdict.SILENCE or data[: -gate.MAC_LEN] in sealed
            one.wipe()
            assert one.check(data, NOW_S, 0, bytes).verdict is gate.Verdict.SILENCE
        # what was asked for a cookie at one address gets no byte at another one, where strangers get none
        one = _gate(kind)
        mine, other = (
            one.look(data, NOW_S, 1, lambda n: bytes(n), address=where, busy=True) for where in (b"mine", b"other")
        )
        assert not one.timed or gate.Verdict.COOKIE not in (mine.verdict, other.verdict) or other.cookie == b""


def _cookie_for(frame: bytes) -> bytes:
    """A HELLO with the cookie that a busy gate of kind 0 gives for ``frame``."""
    given = _gate(0).check(frame, NOW_S, 10**9, lambda n: bytes(n), address=b"192.0.2.1:5", busy=True)
    return _hello(cookie=given.cookie)


REPLIES = [
    gate.seal_frame(HELLO._replace(kind=gate.REPLY), b"reply", _keys(False).to_initiator),
    gate.seal_frame(HELLO._replace(kind=gate.ACCEPT), b"reply", _keys(False).to_initiator),
    gate.seal_frame(HELLO._replace(kind=gate.REPLY, ts=5), b"reply", _keys(False).to_initiator),
    gate.seal_frame(HELLO._replace(kind=gate.REPLY), b"reply", _keys(True).to_initiator),
]
FIRST = _hello(ts=NOW_S * 1000 + 1)
HELLOS = [
    _hello(),
    _hello(psk=True),
    _hello(cookie=_GIVEN),
    _cookie_for(_hello()),
    _hello(psk=True, ts=1),
    _hello(psk=True, ts=(NOW_S - 25) * 1000),
    _hello(ts=(NOW_S - 25) * 1000),
    _hello(version=2),
    _hello(suite=gate.MODE_XX_NAMED << 4 | gate.SUITE_HYBRID),
    _hello(suite=3 << 4 | gate.SUITE_CLASSICAL),
    gate.seal_frame(HELLO._replace(suite=gate.SUITE_CLASSICAL), b"noise", gate.open_keys(NETWORK).to_responder),
    _hello(kind=gate.REPLY),
    _hello()[:-1],
]
HEADERS = [
    *HELLOS[:2],
    b"",
    HELLO._replace(kind=99).pack(),
    HELLO._replace(length=3).pack(),
    HELLO._replace(length=100, frag=1).pack(),
    HELLO._replace(length=100, ts=gate.MAX_TS).pack(),
]
