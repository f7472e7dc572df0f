"""Handshake payloads: the item list, transport parameters, and what two sides make of their offers.

Layer: net (L3), pure functions; randomness for grease is an argument. No keys, no clock.
Flow: Offer.items -> encode_items -> wire -> decode_items -> Offer.from_items -> negotiate -> Agreement, whose `encoded`
bytes go into the root.
Spec: docs/spec/handshake.md §3.4, §3.5, §4.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

MAX_PAYLOAD = 3_072
MAX_ITEMS = 64
MAX_CIPHERS = 8
MAX_CAPS = 64
MAX_VERSIONS = 16
VERSION = 1
AES_256_GCM, CHACHA20_POLY1305 = 1, 2
CAPS_SHOWN = 8
"""Missing capabilities that are named in an error: some may come from a stranger."""
PARAMS_KEPT = 64
"""Parameters and agreements that are remembered, at most MAX_PAYLOAD bytes each: most peers of a node say the same."""

RECORD, MEMBERSHIP, LIVE_SIG, VERSIONS, CIPHERS = 0x02, 0x04, 0x06, 0x08, 0x0A
CAPS, REQUIRED, PARAMS, KNOWN_SEQ, PADDING, SINCE = 0x0C, 0x0E, 0x10, 0x12, 0x14, 0x16
KNOWN_ITEMS = frozenset(
    {RECORD, MEMBERSHIP, LIVE_SIG, VERSIONS, CIPHERS, CAPS, REQUIRED, PARAMS, KNOWN_SEQ, PADDING, SINCE}
)
_GREASE_FIRST, _GREASE_LAST = 0x4000, 0x7FFE
Rng = Callable[[int], bytes]


class Refusal(IntEnum):
    """Why a handshake ends without a session; the numbers of §8."""

    PROTOCOL = 0x40
    VERSION = 0x41
    SUITE = 0x42
    CRYPTO = 0x43
    RECORD = 0x44
    EXPIRED = 0x45
    UNTRUSTED = 0x46
    SELF = 0x47
    WRONG_ID = 0x48
    LIVE = 0x49
    CAPABILITY = 0x4A
    PARAMETER = 0x4B
    BUSY = 0x4C
    TIMEOUT = 0x4D
    CLOSING = 0x4E
    GONE = 0x4F

    @classmethod
    def read(cls, code: int) -> Refusal:
        """The refusal of a code from the wire; an unknown one counts as PROTOCOL."""
        return cls(code) if code in cls._value2member_map_ else cls.PROTOCOL


class ParamError(Exception):
    """A payload, item or parameter that no conforming peer sends, or an unknown critical one."""


class CapabilityError(Exception):
    """The two sides lack a capability that one requires, or have no cipher in common."""


class VersionError(Exception):
    """A better common version was hidden on the way."""


def encode_varint(value: int) -> bytes:
    """QUIC varint (RFC 9000 §16) in its shortest form; ValueError outside 0 to 2^62 - 1."""
    if 0 <= value < 64:  # most of them
        return value.to_bytes(1, "big")
    if value < 0 or value >= 1 << 62:
        raise ValueError(f"varint out of range: {value}")
    for log, limit in ((1, 1 << 14), (2, 1 << 30), (3, 1 << 62)):
        if value < limit:
            return (value | log << (8 << log) - 2).to_bytes(1 << log, "big")
    raise AssertionError("unreachable")


def decode_varint(data: bytes, place: int) -> tuple[int, int]:
    """(value, place behind it); ParamError if the bytes end early or the form is not the shortest."""
    if place >= len(data):
        raise ParamError("item ends early")
    log = data[place] >> 6
    if not log:  # most of them
        return data[place], place + 1
    size = 1 << log
    if len(data) - place < size:
        raise ParamError("item ends early")
    value = int.from_bytes(data[place : place + size], "big") & ((1 << (8 << log) - 2) - 1)
    if value < 1 << ((8 << log - 1) - 2):
        raise ParamError("number is not in its shortest form")
    return value, place + size


def encode_items(items: Mapping[int, bytes]) -> bytes:
    """The item list of a mapping type -> value, ascending by type."""
    return b"".join(encode_varint(kind) + encode_varint(len(items[kind])) + items[kind] for kind in sorted(items))


def decode_items(data: bytes, known: frozenset[int], limit: int = MAX_PAYLOAD) -> dict[int, bytes]:
    """Read an item list. Untrusted input.

    Args:
        data: the whole list.
        known: types the caller knows; other even ones are left out of the result.
        limit: most bytes that are read.

    Raises:
        ParamError: too long, too many items, not strictly ascending, ends early, or an unknown odd type.
    """
    if len(data) > limit:
        raise ParamError("payload is too long")
    out: dict[int, bytes] = {}
    place, last, count = 0, -1, 0
    while place < len(data):
        kind, place = decode_varint(data, place)
        size, place = decode_varint(data, place)
        count += 1
        if kind <= last or count > MAX_ITEMS:
            raise ParamError("items are not ascending or too many")
        if size > len(data) - place:
            raise ParamError("item ends early")
        if kind in known:
            out[kind] = data[place : place + size]
        elif kind % 2:
            raise ParamError(f"unknown critical item {kind:#x}")
        place, last = place + size, kind
    return out


def grease(items: dict[int, bytes], rng: Rng) -> None:
    """Add, one time in four, an item of a random even unknown type, so that skipping stays exercised."""
    draw = rng(12)
    if draw[0] % 4 == 0:
        span = (_GREASE_LAST - _GREASE_FIRST) // 2 + 1
        kind = _GREASE_FIRST + 2 * (int.from_bytes(draw[1:4], "big") % span)
        items[kind] = draw[5 : 5 + draw[4] % 8]


class _Rule(NamedTuple):
    kind: int
    low: int
    high: int
    combine: str


_RULES: dict[str, _Rule] = {
    "max_datagram": _Rule(0x02, 1_200, 65_527, "stated"),
    "max_record": _Rule(0x04, 1_024, 65_535, "stated"),
    "ack_delay_us": _Rule(0x06, 0, 1_000_000, "stated"),
    "ack_interval": _Rule(0x08, 1_024, 2**30, "stated"),
    "initial_msgs": _Rule(0x0A, 0, 2**20, "stated"),
    "initial_bytes": _Rule(0x0C, 0, 2**30, "stated"),
    "max_streams": _Rule(0x0E, 0, 2**30, "stated"),
    "max_message": _Rule(0x10, 1, 2**40, "stated"),
    "reorder_bytes": _Rule(0x12, 65_536, 2**40, "stated"),
    "lease_s": _Rule(0x14, 0, 2**31, "min"),
    "idle_s": _Rule(0x16, 0, 2**31, "min"),
    "max_paths": _Rule(0x18, 1, 64, "min"),
    "parity": _Rule(0x1A, 0, 1, "and"),
    "trunk": _Rule(0x1C, 0, 1, "and"),
    "datagrams": _Rule(0x1E, 0, 1, "and"),
    "tickets": _Rule(0x26, 0, 1, "stated"),
}
_INSTANCE = 0x24
INSTANCE_LEN = 16
_KNOWN_PARAMS = frozenset(rule.kind for rule in _RULES.values()) | {_INSTANCE}


@dataclass(frozen=True)
class TransportParams:
    """What one side takes and wants; units and ranges in the spec, §3.5. ValueError when out of range.

    Attributes:
        instance: 16 random bytes that tell the processes of one identity apart, or none: the rank of a select.
        (the others: see the table of the spec)
    """

    max_datagram: int = 1_452
    max_record: int = 65_535
    ack_delay_us: int = 25_000
    ack_interval: int = 262_144
    initial_msgs: int = 64
    initial_bytes: int = 16_384
    max_streams: int = 256
    max_message: int = 67_108_864
    reorder_bytes: int = 8_388_608
    lease_s: int = 300
    idle_s: int = 0
    max_paths: int = 8
    parity: int = 0
    trunk: int = 0
    datagrams: int = 0
    instance: bytes = b""
    tickets: int = 0

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            if not rule.low <= getattr(self, name) <= rule.high:
                raise ValueError(f"{name} must be {rule.low} to {rule.high}, not {getattr(self, name)}")
        if len(self.instance) not in (0, INSTANCE_LEN):
            raise ValueError(f"instance must have {INSTANCE_LEN} bytes, not {len(self.instance)}")

    def encode(self, rng: Rng | None = None) -> bytes:
        """The item list; parameters at their default are left out. With `rng` grease may be added."""
        stated = _stated(self)
        items = dict(stated)
        if rng is not None:
            grease(items, rng)
        return _encoded(self) if len(items) == len(stated) else encode_items(items)

    @classmethod
    def decode(cls, data: bytes) -> TransportParams:
        """Read the item list. Untrusted input. ParamError: malformed, out of range, unknown critical."""
        return _decode_params(data)


@lru_cache(PARAMS_KEPT)
def _stated(params: TransportParams) -> Mapping[int, bytes]:
    """What is not at its default, as items."""
    items = {
        _RULES[f.name].kind: encode_varint(getattr(params, f.name))
        for f in fields(params)
        if f.name in _RULES and getattr(params, f.name) != f.default
    }
    if params.instance:
        items[_INSTANCE] = params.instance
    return items


@lru_cache(PARAMS_KEPT)
def _encoded(params: TransportParams) -> bytes:
    return encode_items(_stated(params))


@lru_cache(PARAMS_KEPT)
def _decode_params(data: bytes) -> TransportParams:
    items = decode_items(data, _KNOWN_PARAMS)
    values: dict[str, int] = {}
    for name, rule in _RULES.items():
        if rule.kind in items:
            values[name], end = decode_varint(items[rule.kind], 0)
            if end != len(items[rule.kind]) or not rule.low <= values[name] <= rule.high:
                raise ParamError(f"parameter {name} is out of range")
    instance = items.get(_INSTANCE, b"")
    if _INSTANCE in items and len(instance) != INSTANCE_LEN:
        raise ParamError("parameter instance has a wrong length")
    return TransportParams(**values, instance=instance)


@dataclass(frozen=True)
class Offer:
    """What one side says about itself in REPLY or FINISH."""

    params: TransportParams = field(default_factory=TransportParams)
    ciphers: tuple[int, ...] = (AES_256_GCM, CHACHA20_POLY1305)
    caps: frozenset[int] = frozenset()
    required: frozenset[int] = frozenset()
    versions: tuple[int, ...] = (VERSION,)

    def __post_init__(self) -> None:
        if not self.ciphers or len(set(self.ciphers)) != len(self.ciphers) or len(self.ciphers) > MAX_CIPHERS:
            raise ValueError("one to eight different ciphers are needed")
        if not self.required <= self.caps or len(self.caps) > MAX_CAPS or any(not 0 <= c <= 0xFFFF for c in self.caps):
            raise ValueError("required capabilities must be among the at most 64 offered ones, each 0 to 65535")

    def items(self, rng: Rng | None) -> dict[int, bytes]:
        """The items of this offer; with `rng` grease may be among the parameters."""
        out = {
            VERSIONS: bytes(self.versions),
            CIPHERS: bytes(self.ciphers),
            CAPS: _encode_caps(self.caps),
            PARAMS: self.params.encode(rng),
        }
        if self.required:
            out[REQUIRED] = _encode_caps(self.required)
        return out

    @classmethod
    def from_items(cls, items: Mapping[int, bytes]) -> Offer:
        """Read an offer out of a payload. ParamError: a part is missing or malformed."""
        try:
            versions, ciphers, caps = items[VERSIONS], items[CIPHERS], _decode_caps(items[CAPS])
            params = TransportParams.decode(items[PARAMS])
        except KeyError:
            raise ParamError("payload lacks a needed item") from None
        required = _decode_caps(items.get(REQUIRED, b""))
        if not 1 <= len(versions) <= MAX_VERSIONS or any(a >= b for a, b in itertools.pairwise(versions)):
            raise ParamError("version list is malformed")
        try:
            return cls(params, tuple(ciphers), caps, required, tuple(versions))
        except ValueError as error:
            raise ParamError(str(error)) from None


def _encode_caps(caps: frozenset[int]) -> bytes:
    return b"".join(cap.to_bytes(2, "big") for cap in sorted(caps))


def _decode_caps(data: bytes) -> frozenset[int]:
    if len(data) % 2 or len(data) > 2 * MAX_CAPS:
        raise ParamError("capability list is malformed")
    caps = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    if any(a >= b for a, b in itertools.pairwise(caps)):
        raise ParamError("capability list is malformed")
    return frozenset(caps)


def _lacks(side: str, numbers: frozenset[int], other: str) -> str:
    """Words for capabilities that the side lacks."""
    shown = ", ".join(f"{number:#06x}" for number in sorted(numbers)[:CAPS_SHOWN])
    more = f" and {len(numbers) - CAPS_SHOWN} more" if len(numbers) > CAPS_SHOWN else ""
    return (
        f"the {side} lacks {shown}{more}, which the {other} requires: add to Config(capabilities=...) of the {side}, "
        f"or take out of required_capabilities of the {other}"
    )


@dataclass(frozen=True)
class Agreement:
    """What both sides computed from the two offers; `encoded` is what ACCEPT carries and the root binds."""

    cipher: int
    caps: frozenset[int]
    lease_s: int
    idle_s: int
    max_paths: int
    parity: bool
    trunk: bool
    datagrams: bool
    encoded: bytes


@lru_cache(PARAMS_KEPT)
def negotiate(initiator: Offer, responder: Offer) -> Agreement:
    """Combine two offers; both sides get the same result.

    Raises:
        VersionError: both speak a higher version than the one in use.
        CapabilityError: a required capability or a common cipher is missing.
    """
    common_versions = set(initiator.versions) & set(responder.versions)
    if VERSION not in common_versions or max(common_versions) != VERSION:
        raise VersionError("a better common version was hidden")
    caps = initiator.caps & responder.caps
    missing = [
        _lacks(side, required - caps, other)
        for side, required, other in (
            ("listener", initiator.required, "dialler"),
            ("dialler", responder.required, "listener"),
        )
        if required - caps
    ]
    if missing:
        raise CapabilityError("; ".join(missing))
    ours = (AES_256_GCM, CHACHA20_POLY1305)
    common = [c for c in responder.ciphers if c in initiator.ciphers and c in ours]
    if not common:
        raise CapabilityError("no cipher in common")
    cipher = common[0]
    if CHACHA20_POLY1305 in common and CHACHA20_POLY1305 in (initiator.ciphers[0], responder.ciphers[0]):
        cipher = CHACHA20_POLY1305
    mine, theirs = initiator.params, responder.params
    combined: dict[str, int] = {}
    for name, rule in _RULES.items():
        if rule.combine != "stated":
            both = getattr(mine, name), getattr(theirs, name)
            combined[name] = max(both) if name == "idle_s" and 0 in both else min(both)
    encoded = encode_items(
        {
            CIPHERS: bytes((cipher,)),
            CAPS: _encode_caps(caps),
            PARAMS: encode_items({_RULES[name].kind: encode_varint(value) for name, value in combined.items()}),
        }
    )
    return Agreement(
        cipher,
        caps,
        combined["lease_s"],
        combined["idle_s"],
        combined["max_paths"],
        bool(combined["parity"]),
        bool(combined["trunk"]),
        bool(combined["datagrams"]),
        encoded,
    )
