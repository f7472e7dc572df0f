"""A translator of addresses between the two sides of a link (RFC 3022); it forgets its bindings when it is told to."""

from __future__ import annotations

import struct

TCP, UDP = 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}
FIRST_PORT = 20_000
FIRST_HOST = 100
"""Last byte of the first address of a binding that has one of its own; the addresses of a link end in 1 and 2."""


def adjusted(checksum: int, old: bytes, new: bytes) -> int:
    """The checksum after some 16-bit words it covers were changed (RFC 1624, equation 3)."""
    total = ~checksum & 0xFFFF
    for was, now in zip(
        struct.unpack(f"!{len(old) // 2}H", old), struct.unpack(f"!{len(new) // 2}H", new), strict=True
    ):
        total += (~was & 0xFFFF) + now
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Translator:
    """What leaves the inner side gets other ports, and another address if wanted; what comes back gets the old ones."""

    def __init__(self) -> None:
        self._binding = 0
        self._out: dict[tuple[bytes, int, bytes], tuple[bytes, bytes]] = {}
        self._back: dict[tuple[bytes, int, bytes], tuple[bytes, bytes]] = {}
        self._next = FIRST_PORT

    def translate(self, packet: bytes, outwards: bool, binding: int, moves: bool) -> bytes | None:
        """The packet as it goes on; None: it is for a binding that is no more. Binding 0 changes nothing."""
        if binding != self._binding:
            self._binding = binding
            self._out.clear()
            self._back.clear()
        if not binding or packet[9] not in CHECKSUM_AT:
            return packet
        start = 4 * (packet[0] & 15)
        protocol = packet[9]
        address_at, port_at = (12, start) if outwards else (16, start + 2)
        address, port = packet[address_at : address_at + 4], packet[port_at : port_at + 2]
        key = (address, protocol, port)
        if outwards:
            place = self._out.get(key)
            if place is None:
                host = address[:3] + bytes((FIRST_HOST + binding % 100,)) if moves else address
                place = (host, struct.pack("!H", self._next))
                self._next = FIRST_PORT + (self._next + 1 - FIRST_PORT) % FIRST_PORT
                self._out[key] = place
                self._back[place[0], protocol, place[1]] = (address, port)
        else:
            place = self._back.get(key)
            if place is None:
                return None
        changed = bytearray(packet)
        changed[address_at : address_at + 4], changed[port_at : port_at + 2] = place
        (header,) = struct.unpack_from("!H", packet, 10)
        struct.pack_into("!H", changed, 10, adjusted(header, address, place[0]))
        at = start + CHECKSUM_AT[protocol]
        (payload,) = struct.unpack_from("!H", packet, at)
        if payload or protocol == TCP:  # a checksum of 0 says that a datagram has none
            struct.pack_into("!H", changed, at, adjusted(payload, address + port, place[0] + place[1]))
        return bytes(changed)
