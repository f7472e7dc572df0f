"""What the kernel said over rtnetlink of a pair of virtual links v0 (number 3) and v1 (number 2); little-endian x86-64.

Recorded in a network namespace of Linux 6.18 with ``ip link set``, ``ip addr`` and ``ip route``; of the messages about
links, 1 492 bytes each, what is not read here was left out and the lengths were set anew.
"""

from __future__ import annotations

import struct

ADDRESS_COMES = bytes.fromhex(
    "4c00000014000000d1fa0d6b4e6400000218800003000000080001000a090001080002000a0900010700030076300000"
    "080008008000000014000600ffffffffffffffff9d7602009d760200"
)
"""10.9.0.1/24 on v0."""
ADDRESS_GOES = bytes.fromhex(
    "4c00000015000000d2fa0d6b746400000218800003000000080001000a090001080002000a0900010700030076300000"
    "080008008000000014000600ffffffffffffffff9d7602009d760200"
)
SIX_COMES = bytes.fromhex(
    "480000001400000000000000000000000a4082000300000014000100fd090000000000000000000000000001"
    "14000600ffffffffffffffffac760200ac7602000800080082000000"
)
"""fd09::1/64 on v0."""
SIX_TENTATIVE = bytes.fromhex(
    "500000001500000000000000000000000a40c0fd0200000014000100fe800000000000001c76fefffeada3bc"
    "14000600ffffffffffffffff8e7602008e76020008000800c000000005000b0003000000"
)
"""fe80::1c76:feff:fead:a3bc on v1 goes, while it was still being looked for somebody else who has it."""
ROUTE_COMES = bytes.fromhex(
    "3c00000018000006d1fa0d6b6264000002100000fe0300010000000008000f00fe000000080001000a0a0000"
    "080005000a0900020800040003000000"
)
"""10.10.0.0/16 via 10.9.0.2 on v0."""
ROUTE_GOES = bytes.fromhex(
    "3c00000019000000d2fa0d6b6c64000002100000fe0300010000000008000f00fe000000080001000a0a0000"
    "080005000a0900020800040003000000"
)
DEFAULT_COMES = bytes.fromhex(
    "3400000018000006d2fa0d6b6564000002000000fe0300010000000008000f00fe000000080005000a0900020800040003000000"
)
OWN_ROUTE = bytes.fromhex(
    "3c00000018000006000000000000000002200000ff02fe020000000008000f00ff000000080001000a090001"
    "080007000a0900010800040003000000"
)
"""That of an address of this machine: no way to anywhere."""
DUMP = bytes.fromhex(
    "4c00000014000200080000002d640000020880fe01000000080001007f000001080002007f000001070003006c6f0000"
    "080008008000000014000600ffffffffffffffff4476020044760200"
    + "4800000014000200080000002d6400000a8080fe010000001400010000000000000000000000000000000001"
    "14000600ffffffffffffffff44760200447602000800080080000000"
)
"""127.0.0.1 and ::1 on lo (number 1)."""
DUMP_ENDS = bytes.fromhex("1400000003000200080000002d64000000000000")
WAY = bytes.fromhex(
    "68000000180000000300000092405f8702202000fe0000010002000008000f00fe000000080001000a090002080002000a090001"
    "0800040005000000080019000000000024000c000200000000000000000000000000000000000000000000000000000000000000"
)
"""To 10.9.0.2 from 10.9.0.1: by link 5."""
NO_WAY = bytes.fromhex(
    "38000000020000000300000092405f879bffffff240000001a0001000300000000000000022000000000000000000000080001000b000001"
)
"""Network is unreachable."""


def link(index: int, *, up: bool, carrier: bool = True, gone: bool = False, name: bytes = b"v0") -> bytes:
    """As the kernel says it of an Ethernet link."""
    flags = 0x1003 & ~1 | (1 if up else 0) | (0x10040 if up and carrier else 0)
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0xFFFFFFFF if gone else 1)
    body += struct.pack("=HH", 4 + len(name) + 1, 3) + name + b"\0" + bytes(-(len(name) + 1) % 4)
    body += struct.pack("=HHB", 5, 16, 6 if up and carrier else 2) + bytes(3)
    return struct.pack("=IHHII", 16 + len(body), 17 if gone else 16, 0, 0, 0) + body
