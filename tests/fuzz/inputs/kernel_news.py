"""What the kernel says of the network: inputs, and what must hold for any bytes; for parsers.py."""

from __future__ import annotations

from netchan.net import affected, netlink
from tests.unit.net import recorded


def check_netlink(data: bytes) -> None:
    """What is accepted is in range, and a picture of the machine takes it."""
    try:
        found = netlink.parse(data)
    except netlink.NetlinkError:
        found = []
    assert len(found) <= netlink.MESSAGES_MAX
    picture = affected.Picture()
    for message in found:
        if isinstance(message, netlink.Done):
            assert message.code <= 0
            continue
        if isinstance(message, netlink.LinkChange):
            assert message.index > 0 and not (message.up and message.gone) and len(message.name) <= 15
        elif isinstance(message, netlink.AddressChange):
            assert len(message.address) in (4, 16) and message.index > 0
        else:
            assert message.length <= 8 * (len(message.destination) or 16)
        picture.apply(message)
    assert len(picture.links) <= len(found) and len(picture.addresses) <= len(found)
    try:
        way = netlink.parse_route(data)
    except netlink.NetlinkError:
        way = None
    assert way is None or way.index >= 0
    assert len(netlink.socket_address(data)) in (0, 4, 16)


NETLINK = [
    recorded.ADDRESS_COMES,
    recorded.ADDRESS_GOES,
    recorded.SIX_COMES,
    recorded.SIX_TENTATIVE,
    recorded.SIX_COMES[:-4] + b"\x40\0\0\0",
    recorded.SIX_COMES[:4] + b"\x14\0" + recorded.SIX_COMES[6:20] + bytes(4) + recorded.SIX_COMES[24:],
    recorded.ROUTE_COMES,
    recorded.ROUTE_GOES,
    recorded.DEFAULT_COMES,
    recorded.OWN_ROUTE,
    recorded.ROUTE_COMES[:24] + b"\0\2\0\0" + recorded.ROUTE_COMES[28:],
    recorded.ROUTE_COMES[:16] + b"\x07" + recorded.ROUTE_COMES[17:],
    recorded.DUMP + recorded.DUMP_ENDS,
    recorded.WAY,
    recorded.WAY[:23] + b"\x08" + recorded.WAY[24:],
    recorded.NO_WAY,
    recorded.NO_WAY[:16],
    b"\x10\0\0\0" + recorded.NO_WAY[4:16],
    recorded.link(3, up=True),
    recorded.link(3, up=False, gone=True),
    recorded.link(3, up=True)[:16] + b"\x07" + recorded.link(3, up=True)[17:],
    b"\x10\0\0\0\x63\0" + bytes(10),
    (b"\x10\0\0\0\x63\0" + bytes(10)) * (netlink.MESSAGES_MAX + 1),
    b"\x14\0\0\0\x14\0" + bytes(14),
    b"\x02\0" + bytes(14),
    b"\x0a\0" + bytes(26),
    b"\x0a\0" + bytes(16) + b"\xff\xff" + bytes(8),
]
