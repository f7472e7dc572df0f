"""Messages of rtnetlink, as the kernel said them and as it never would (session.md §5.10)."""

from __future__ import annotations

import socket
import struct

import pytest

from netchan.net import netlink
from netchan.net.netlink import AddressChange, Done, LinkChange, NetlinkError, Route, RouteChange
from tests.unit.net import recorded

TEN = bytes((10, 9, 0, 1))
FD = bytes.fromhex("fd090000000000000000000000000001")


@pytest.mark.parametrize(
    ("data", "change"),
    [
        (recorded.ADDRESS_COMES, AddressChange(3, TEN, False)),
        (recorded.ADDRESS_GOES, AddressChange(3, TEN, True)),
        (recorded.SIX_COMES, AddressChange(3, FD, False)),
        (recorded.SIX_TENTATIVE, AddressChange(2, bytes.fromhex("fe800000000000001c76fefffeada3bc"), True)),
        (recorded.ROUTE_COMES, RouteChange(bytes((10, 10, 0, 0)), 16, 3, False)),
        (recorded.ROUTE_GOES, RouteChange(bytes((10, 10, 0, 0)), 16, 3, True)),
        (recorded.DEFAULT_COMES, RouteChange(b"", 0, 3, False)),
        (recorded.link(3, up=True), LinkChange(3, True, False, "v0")),
        (recorded.link(3, up=True, carrier=False), LinkChange(3, False, False, "v0")),
        (recorded.link(3, up=False), LinkChange(3, False, False, "v0")),
        (recorded.link(3, up=True, gone=True), LinkChange(3, False, True, "v0")),
        (recorded.DUMP_ENDS, Done(0, 8)),
    ],
)
def test_one_message(data: bytes, change: object) -> None:
    assert netlink.parse(data) == [change]


def test_several_messages_in_their_order() -> None:
    found = netlink.parse(recorded.DUMP + recorded.DUMP_ENDS + recorded.ADDRESS_GOES)
    assert found == [
        AddressChange(1, bytes((127, 0, 0, 1)), False),
        AddressChange(1, bytes(15) + b"\1", False),
        Done(0, 8),
        AddressChange(3, TEN, True),
    ]


def test_what_says_nothing_of_a_way_is_passed_over() -> None:
    unknown = struct.pack("=IHHII", 20, 99, 0, 0, 0) + b"\xff" * 4
    tentative = recorded.SIX_COMES[:-4] + struct.pack("=I", 0x40)
    clone = bytearray(recorded.ROUTE_COMES)
    struct.pack_into("=I", clone, 24, 0x200)
    bridge = bytes((*recorded.link(3, up=True)[:16], 7, *recorded.link(3, up=True)[17:]))
    for data in (b"", unknown, recorded.OWN_ROUTE, tentative, bytes(clone), bridge):
        assert netlink.parse(data) == []


@pytest.mark.parametrize("kind", [6, 7, 8, 9])
def test_route_to_nowhere_takes_a_way_and_gives_it_back(kind: int) -> None:
    for data, gone in ((recorded.ROUTE_COMES, True), (recorded.ROUTE_GOES, False)):
        nowhere = data[:23] + bytes((kind,)) + data[24:]
        assert netlink.parse(nowhere) == [RouteChange(bytes((10, 10, 0, 0)), 16, 3, gone)]


def test_refused_request_tells_its_code() -> None:
    assert netlink.parse(recorded.NO_WAY) == [Done(-101, 3)]


@pytest.mark.parametrize(
    "data", [recorded.ADDRESS_COMES, recorded.ROUTE_COMES, recorded.link(3, up=True), recorded.NO_WAY]
)
def test_cut_anywhere_it_is_refused(data: bytes) -> None:
    for n in range(1, len(data)):
        with pytest.raises(NetlinkError):
            netlink.parse(data[:n])


@pytest.mark.parametrize("data", [recorded.ADDRESS_COMES, recorded.ROUTE_COMES, recorded.link(3, up=True)])
def test_lengths_that_lie_are_refused(data: bytes) -> None:
    for length in (0, 3, 15, len(data) + 1, 1 << 31):
        with pytest.raises(NetlinkError):
            netlink.parse(struct.pack("=I", length) + data[4:])
    inner = 16 + (16 if data[4] == 16 else 8 if data[4] == 20 else 12)
    for length in (0, 3, len(data), 0xFFFF):
        with pytest.raises(NetlinkError):
            netlink.parse(data[:inner] + struct.pack("=H", length) + data[inner + 2 :])


def test_number_of_messages_is_bounded() -> None:
    one = struct.pack("=IHHII", 16, 99, 0, 0, 0)
    assert netlink.parse(one * netlink.MESSAGES_MAX) == []
    with pytest.raises(NetlinkError, match="at once"):
        netlink.parse(one * (netlink.MESSAGES_MAX + 1))


def test_way_and_no_way() -> None:
    assert netlink.parse_route(recorded.WAY) == Route(5, True)
    assert netlink.parse_route(recorded.NO_WAY) is None
    down = bytearray(recorded.WAY)
    down[24] |= 0x10
    assert netlink.parse_route(bytes(down)) == Route(5, False)
    prohibited = bytearray(recorded.WAY)
    prohibited[23] = 8
    assert netlink.parse_route(bytes(prohibited)) is None
    with pytest.raises(NetlinkError):
        netlink.parse_route(recorded.DUMP)


def test_requests_are_laid_out_as_the_kernel_wants_them() -> None:
    assert netlink.dump_request(netlink.RTM_GETLINK, 7) == struct.pack("=IHHII", 32, 18, 0x301, 7, 0) + bytes(16)
    asked = netlink.route_request(bytes((10, 9, 0, 2)), TEN, 3)
    assert asked[:16] == struct.pack("=IHHII", 44, 26, 1, 3, 0)
    assert asked[16:20] == bytes((socket.AF_INET, 32, 32, 0))
    assert asked[28:] == b"\x08\0\1\0" + bytes((10, 9, 0, 2)) + b"\x08\0\2\0" + TEN


def test_address_of_a_socket() -> None:
    raw = struct.pack("=H", socket.AF_INET) + struct.pack(">H", 80) + TEN + bytes(8)
    assert netlink.socket_address(raw) == TEN
    raw = struct.pack("=H", socket.AF_INET6) + bytes(6) + FD + bytes(4)
    assert netlink.socket_address(raw) == FD
    mapped = struct.pack("=H", socket.AF_INET6) + bytes(6) + bytes(10) + b"\xff\xff" + TEN + bytes(4)
    assert netlink.socket_address(mapped) == TEN
    for raw in (b"", b"\1", struct.pack("=H", socket.AF_UNIX) + b"/tmp/x", struct.pack("=H", socket.AF_INET) + b"\0"):
        assert netlink.socket_address(raw) == b""
    assert netlink.address_text(TEN) == "10.9.0.1" and netlink.address_text(FD) == "fd09::1"
