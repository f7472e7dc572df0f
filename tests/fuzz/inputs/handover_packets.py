"""The packets of a hand-over: their inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

import socket

from netchan.errors import HandoverError
from netchan.net import handover_talk as talk


def check_group(data: bytes) -> None:
    """A GROUP that is accepted says what it says in one way, and no more than the limits allow."""
    number = data[0] if data else 0
    try:
        sizes, start = talk.parse_group(data[1:], number)
    except talk.PacketError:
        return
    assert talk.pack_group(number, sizes) == data[1 : 1 + start]
    assert len(sizes) <= talk.GROUP_MAX and (sizes or not number)
    assert sum(one.state + one.about for one in sizes) <= (talk.GROUP_BYTES + talk.STATE_MAX + talk.ABOUT_MAX)


def check_about(data: bytes) -> None:
    """A version is two bytes; what goes beside a state is a map."""
    try:
        assert 0 <= talk.parse_version(data) < 1 << 16
    except talk.PacketError:
        assert len(data) < 2
    try:
        assert isinstance(talk.parse_about(data), dict)
    except talk.PacketError:
        pass


CUT = b"\xfe\xfd"
"""Between two packets of an input."""


def check_talk(data: bytes) -> None:
    """Whatever packets come: groups as they say of themselves, or an error, and nothing is waited for."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire = talk.Wire(ours, None)
    try:
        for packet in data.split(CUT)[:40]:
            if packet:
                theirs.send(packet[:4096])
        theirs.close()
        for number in range(40):
            kind, body = wire.recv(talk.Kind.GROUP, talk.Kind.DONE)
            if kind is talk.Kind.DONE:
                break
            sizes, _ = talk.parse_group(body, number)
            items = wire.recv_group(body, number)
            assert [len(item.state) for item in items] == [one.state for one in sizes]
    except (HandoverError, EOFError):
        pass
    finally:
        wire.close()
        theirs.close()


def _packets() -> list[bytes]:
    kind, sizes = talk.Kind, talk.Sizes
    group = [bytes((kind.GROUP,)) + talk.pack_group(n, [sizes(0, 4, 3), sizes(0, 1, 0)]) for n in range(2)]
    whole = bytes((kind.DATA,)) + b"\x81\xa1a\1key\x80"
    pieces = [whole[:4], bytes((kind.DATA,)) + whole[4:]]
    empty = bytes((kind.GROUP,)) + talk.pack_group(0, [])
    return [
        CUT.join([group[0], whole, group[1], *pieces, bytes((kind.DONE,))]),
        CUT.join([group[0] + whole[1:], group[1] + pieces[0][1:], pieces[1], bytes((kind.DONE,))]),
        group[0] + whole[1:] + b"more",
        CUT.join([empty, group[1], whole]),
        CUT.join([group[0], bytes((kind.FDS,)), whole]),
        CUT.join([group[0], bytes((kind.CANCEL,)) + "nein, ü".encode()]),
        CUT.join([group[0], whole[:-1], bytes((kind.DONE,))]),
        CUT.join([group[0], whole + b"more"]),
        CUT.join([group[0], bytes((kind.DATA,)) + b"\xc1\xa1a\1key\x80"]),
        bytes((kind.DONE,)),
    ]


GROUPS = [
    b"\0" + talk.pack_group(0, []),
    b"\1" + talk.pack_group(1, []),
    b"\7" + talk.pack_group(7, [talk.Sizes(1, 500, 70_000)] * 3),
    b"\1" + talk.pack_group(1, [talk.Sizes(0, 1, 1)] * talk.GROUP_MAX),
    b"\1" + talk.pack_group(1, [talk.Sizes(0, talk.ABOUT_MAX, talk.STATE_MAX)]),
    b"\1" + talk.pack_group(1, [talk.Sizes(65_535, talk.GROUP_BYTES, 0)] * 2),
]
ABOUTS = [
    talk.pack_version(),
    b"\0\1",
    b"\x81\xa1a\1",
    b"\x80",
    b"\x90",
    b"\x82\x81\1\2\3",
    b"",
    b"\x81\1" * 2_000,
    b"\xdf" + b"\xff" * 4,
]
TALKS = _packets()
