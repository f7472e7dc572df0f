"""Node records and memberships: what an identity or an authority signed, parsed and verified.

Layer: net (L3), pure functions and one bounded table; no I/O, the wall clock is an argument.
Flow: parse (shape, canonical form) -> verify (signature, network) -> check_time at every use.
Must not decide about trust: that is trust.py. Spec: docs/spec/handshake.md §1.3, §1.4.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RECORD_VERSION = 1
RECORD_LABEL = b"netchan/record/v1\0"
MEMBER_LABEL = b"netchan/member/v1\0"
MAX_NETWORK_ID = 64
RECORD_LIFE_S = 7 * 86_400
RECORD_BACKDATE_S = 3_600
MAX_RECORD_SPAN_S = 31 * 86_400
MAX_MEMBERSHIP = 1_024
MAX_GROUPS = 16
MAX_GROUP_NAME = 32
MAX_CACHED_RECORDS = 4_096
CAP_HYBRID, CAP_CLASSICAL = 1, 2
_HEAD = struct.Struct(">B32s32sQQQQB")
_MEMBER = struct.Struct(">B32s32sQQB")
_SIG_LEN = 64
MAX_RECORD = _HEAD.size + MAX_NETWORK_ID + _SIG_LEN


class RecordError(Exception):
    """A record or membership that is malformed, wrongly signed or for another network."""


class RecordExpiredError(RecordError):
    """A good record or membership outside its time."""


@dataclass(frozen=True)
class NodeRecord:
    """The parsed fields of a node record; `raw` is the exact signed form."""

    id_pub: bytes
    static_pub: bytes
    seq: int
    not_before: int
    not_after: int
    caps: int
    network_id: bytes
    raw: bytes

    def check_time(self, wall_s: float) -> None:
        """RecordExpiredError unless `wall_s` (Unix seconds) lies within the record's time."""
        if not self.not_before <= wall_s <= self.not_after:
            raise RecordExpiredError(
                f"record is valid from {self.not_before} to {self.not_after}, this clock says {int(wall_s)}"
            )


def build_record(
    sign: Callable[[bytes], bytes],
    *,
    id_pub: bytes,
    static_pub: bytes,
    seq: int,
    wall_s: float,
    caps: int,
    network_id: bytes,
    life_s: int = RECORD_LIFE_S,
) -> NodeRecord:
    """Make and sign a record that is valid from one hour ago until `life_s` seconds from now.

    Raises:
        ValueError: the network id is longer than 64 bytes or the life is not 1 s to 30 d.
    """
    if len(network_id) > MAX_NETWORK_ID:
        raise ValueError(f"network id is {len(network_id)} bytes, at most {MAX_NETWORK_ID}")
    if not 1 <= life_s <= MAX_RECORD_SPAN_S - 86_400:
        raise ValueError("record life must be 1 s to 30 d")
    now = max(int(wall_s), RECORD_BACKDATE_S)
    fields = (id_pub, static_pub, seq, now - RECORD_BACKDATE_S, now + life_s, caps)
    body = _HEAD.pack(RECORD_VERSION, *fields, len(network_id)) + network_id
    return NodeRecord(*fields, network_id, body + sign(RECORD_LABEL + body))


def parse_record(raw: bytes) -> NodeRecord:
    """Parse without checking the signature. Untrusted input.

    Raises:
        RecordError: not exactly one record in its canonical form.
    """
    if not _HEAD.size + _SIG_LEN <= len(raw) <= MAX_RECORD:
        raise RecordError("record has a wrong length")
    version, id_pub, static_pub, seq, not_before, not_after, caps, n = _HEAD.unpack_from(raw)
    if version != RECORD_VERSION:
        raise RecordError("record has an unknown version")
    if n > MAX_NETWORK_ID or len(raw) != _HEAD.size + n + _SIG_LEN:
        raise RecordError("record has a wrong length")
    if not not_before < not_after <= not_before + MAX_RECORD_SPAN_S:
        raise RecordError("record has an impossible time")
    return NodeRecord(id_pub, static_pub, seq, not_before, not_after, caps, raw[_HEAD.size : _HEAD.size + n], raw)


def check_signature(public: bytes, signature: bytes, data: bytes) -> bool:
    """True if `signature` (64 bytes) of `data` holds under the Ed25519 key `public` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class RecordCache:
    """Remembers which records had a good signature, by SHA-256; bounded, oldest first out. Not thread-safe."""

    def __init__(self, limit: int = MAX_CACHED_RECORDS) -> None:
        self._limit = limit
        self._good: OrderedDict[bytes, NodeRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._good)

    def shared(self, record: NodeRecord) -> NodeRecord:
        """The remembered one that is equal, so that sessions of one peer have it once; else this one."""
        return self._good.get(hashlib.sha256(record.raw).digest(), record)

    def verify(self, raw: bytes, network_id: bytes, wall_s: float) -> NodeRecord:
        """Parse and check everything about a record but trust.

        Raises:
            RecordError: malformed, another network, wrong signature.
            RecordExpiredError: not valid at `wall_s` (Unix seconds).
        """
        key = hashlib.sha256(raw).digest()
        record = self._good.get(key)
        if record is None:
            record = parse_record(raw)
            if record.network_id != network_id:
                raise RecordError("record is for another network")
            if not check_signature(record.id_pub, raw[-_SIG_LEN:], RECORD_LABEL + raw[:-_SIG_LEN]):
                raise RecordError("record has a wrong signature")
            self._good[key] = record
            if len(self._good) > self._limit:
                self._good.popitem(last=False)
        elif record.network_id != network_id:
            raise RecordError("record is for another network")
        record.check_time(wall_s)
        return record


@dataclass(frozen=True)
class Membership:
    """What an authority signed for one node; give it as ``membership=``.

    Attributes:
        ca_pub: key of the authority, 32 bytes.
        id_pub: key of the node, 32 bytes.
        not_before: valid from, in Unix seconds.
        not_after: valid until, in Unix seconds.
        groups: names.
        raw: the exact signed form, for a file.
    """

    ca_pub: bytes
    id_pub: bytes
    not_before: int
    not_after: int
    groups: tuple[str, ...]
    raw: bytes

    def check_time(self, wall_s: float) -> None:
        """RecordExpiredError unless `wall_s` (Unix seconds) lies within the membership's time."""
        if not self.not_before <= wall_s <= self.not_after:
            raise RecordExpiredError(
                f"membership is valid from {self.not_before} to {self.not_after}, this clock says {int(wall_s)}"
            )


def build_membership(
    sign: Callable[[bytes], bytes],
    *,
    ca_pub: bytes,
    id_pub: bytes,
    not_before: int,
    not_after: int,
    groups: tuple[str, ...],
) -> Membership:
    """Make and sign a membership. ValueError: more than 16 groups, or a name that is not 1 to 32 bytes."""
    names = sorted({group.encode() for group in groups})
    if len(names) > MAX_GROUPS or any(not 1 <= len(name) <= MAX_GROUP_NAME for name in names):
        raise ValueError(f"at most {MAX_GROUPS} groups of 1 to {MAX_GROUP_NAME} bytes")
    body = _MEMBER.pack(1, ca_pub, id_pub, not_before, not_after, len(names))
    body += b"".join(bytes((len(name),)) + name for name in names)
    return parse_membership(body + sign(MEMBER_LABEL + body))


def parse_membership(raw: bytes) -> Membership:
    """Parse without checking the signature. Untrusted input. RecordError: not one membership in canonical form."""
    if not _MEMBER.size + _SIG_LEN <= len(raw) <= MAX_MEMBERSHIP:
        raise RecordError("membership has a wrong length")
    version, ca_pub, id_pub, not_before, not_after, count = _MEMBER.unpack_from(raw)
    if version != 1 or count > MAX_GROUPS or not not_before < not_after:
        raise RecordError("membership is malformed")
    place, end, names = _MEMBER.size, len(raw) - _SIG_LEN, []
    for _ in range(count):
        if place >= end or not 1 <= raw[place] <= MAX_GROUP_NAME or end - place - 1 < raw[place]:
            raise RecordError("membership is malformed")
        names.append(raw[place + 1 : place + 1 + raw[place]])
        place += 1 + raw[place]
    if place != end or any(a >= b for a, b in itertools.pairwise(names)):
        raise RecordError("membership is malformed")
    try:
        groups = tuple(name.decode() for name in names)
    except UnicodeDecodeError:
        raise RecordError("membership is malformed") from None
    return Membership(ca_pub, id_pub, not_before, not_after, groups, raw)


def verify_membership(raw: bytes, ca_pub: bytes, id_pub: bytes, wall_s: float) -> Membership:
    """Parse and check that the authority `ca_pub` vouches for `id_pub` at `wall_s` (Unix seconds).

    Raises:
        RecordError: malformed, another authority, another identity, wrong signature.
        RecordExpiredError: not valid at `wall_s`.
    """
    member = parse_membership(raw)
    if member.ca_pub != ca_pub or member.id_pub != id_pub:
        raise RecordError("membership names another authority or another node")
    if not check_signature(ca_pub, raw[-_SIG_LEN:], MEMBER_LABEL + raw[:-_SIG_LEN]):
        raise RecordError("membership has a wrong signature")
    member.check_time(wall_s)
    return member
