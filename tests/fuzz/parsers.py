"""The parsers of outside bytes that are written in Python: their inputs, a mutator, and what must hold for any bytes.

``PARSERS`` is for test_parsers.py, which mutates the inputs, and for lines.py, which counts the lines they reach.
A check of a parser raises nothing for any bytes at all, or AssertionError: what a parser may raise is named in it, and
what it accepts is written again and compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.fuzz.inputs import (
    addresses,
    first_frames,
    forgeries,
    handover_packets,
    kernel_news,
    offers,
    records,
    references,
    reset_datagrams,
    tickets,
    values,
)

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        name: for messages.
        check: see the module head.
        inputs: whole inputs, good and bad, from which mutations start.
        reads: the functions that read the bytes: file below netchan, names inside it.
    """

    name: str
    check: Check
    inputs: list[bytes]
    reads: dict[str, tuple[str, ...]] = field(default_factory=dict)


PARSERS = [
    Parser("items", offers.check_items, offers.ITEMS, {"net/params.py": ("decode_varint", "decode_items")}),
    Parser("params", offers.check_params, offers.PARAMS, {"net/params.py": ("TransportParams.decode",)}),
    Parser(
        "offer", offers.check_offer, offers.OFFERS, {"net/params.py": ("Offer.from_items", "_decode_caps", "negotiate")}
    ),
    Parser("header", first_frames.check_header, first_frames.HEADERS, {"net/gate.py": ("parse_header",)}),
    Parser(
        "reply",
        first_frames.check_reply,
        first_frames.REPLIES,
        {"net/gate.py": ("open_frame", "mac1_holds", "frame_body")},
    ),
    Parser(
        "hello",
        first_frames.check_hello,
        first_frames.HELLOS,
        {
            "net/gate.py": (
                "Gate.find_keys",
                "Gate.check",
                "Gate.look",
                "Gate._may_ask",
                "Gate._time_is_good",
                "Gate._turn_windows",
                "Gate._rotate_secrets",
                "Gate._cookie",
                "Gate._cookie_holds",
                "_make_cookie",
            )
        },
    ),
    Parser(
        "forgery",
        forgeries.check_forgery,
        forgeries.FORGERIES,
        {"net/doubts.py": ("Doubts.note", "Doubts.may_look"), "net/handshake.py": ("Initiator._on_cookie",)},
    ),
    Parser(
        "netlink",
        kernel_news.check_netlink,
        kernel_news.NETLINK,
        {
            "net/netlink.py": (
                "parse",
                "parse_route",
                "_messages",
                "_fixed",
                "_attributes",
                "_u32",
                "_link",
                "_address",
                "_route",
                "socket_address",
            )
        },
    ),
    Parser(
        "reset",
        reset_datagrams.check_reset,
        reset_datagrams.RESETS,
        {"net/resets.py": ("Resets.answer",), "net/moved.py": ("is_of_a_path",)},
    ),
    Parser(
        "ticket",
        tickets.check_ticket,
        tickets.TICKETS,
        {"net/ticket.py": ("TicketKeys.open", "TicketKeys._key_of", "_bound")},
    ),
    Parser(
        "resume",
        tickets.check_resume,
        tickets.RESUMES,
        {"net/abbreviated.py": ("split_body", "read_asked"), "net/ticket.py": ("TicketKeys.strike",)},
    ),
    Parser("asked", tickets.check_asked, tickets.ASKED, {"net/abbreviated.py": ("_items", "read_given", "judge")}),
    Parser("stored", tickets.check_stored, tickets.STORED, {"net/kept.py": ("unpack", "_parse")}),
    Parser(
        "record",
        records.check_record,
        records.RECORDS,
        {"net/record.py": ("parse_record", "check_signature", "RecordCache.verify")},
    ),
    Parser(
        "member", records.check_member, records.MEMBERS, {"net/record.py": ("parse_membership", "verify_membership")}
    ),
    Parser(
        "address",
        addresses.check_address,
        addresses.ADDRESSES,
        {
            "net/address.py": ("parse_address", "parse_addresses", "_ip", "_unix", "_host_port", "_is_host"),
            "net/identity.py": ("parse_node_id",),
        },
    ),
    Parser("value", values.check_value, values.VALUES, {"channel/msgpack.py": ("decode_any", "_say")}),
    Parser(
        "reference",
        references.check_reference,
        references.REFERENCES,
        {"channel/moving.py": ("adopt",), "channel/codec.py": ("codec_by_id",)},
    ),
    Parser("typed", references.check_typed, references.TYPED, {"channel/codec.py": ("_fit",)}),
    Parser("group", handover_packets.check_group, handover_packets.GROUPS, {"net/handover_talk.py": ("parse_group",)}),
    Parser(
        "about",
        handover_packets.check_about,
        handover_packets.ABOUTS,
        {"net/handover_talk.py": ("parse_version", "parse_about")},
    ),
    Parser(
        "talk",
        handover_packets.check_talk,
        handover_packets.TALKS,
        {"net/handover_talk.py": ("Wire.recv_group", "Wire._recv_data", "_out_of_turn")},
    ),
]


def mutations(inputs: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """``count`` changed inputs, each one to four changes away from one of ``inputs``."""
    rng = random.Random(seed)
    edges = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x40", b"\xc0", b"\xff\xff", b"\xff" * 4, b"\xc0" + b"\xff" * 7)
    for _ in range(count):
        data = bytearray(rng.choice(inputs))
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(data))
            what = rng.randrange(7)
            if what == 0 and at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            elif what == 1 and at < len(data):
                data[at] = (data[at] + rng.choice((-1, 1))) & 0xFF
            elif what == 2:
                edge = rng.choice(edges)
                data[at : at + len(edge)] = edge
            elif what == 3:
                del data[at : at + rng.randint(1, 8)]
            elif what == 4:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            elif what == 5:
                other = rng.choice(inputs)
                begin = rng.randint(0, len(other))
                data[at:at] = other[begin : begin + rng.randint(1, 64)]
            else:
                del data[at:]
        yield bytes(data)
