"""Node records and memberships (spec handshake §1.3, §1.4)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netchan.net import record as r
from netchan.net.identity import Identity
from netchan.net.secret import SecureBytes

NOW = 1_800_000_000.0
NET = b"netchan"
SIGNER = Identity(SecureBytes(bytes(range(32))))


def make(**change: Any) -> r.NodeRecord:
    """A record of SIGNER."""
    fields = {"id_pub": SIGNER.id_pub, "static_pub": bytes(32), "seq": 5, "wall_s": NOW, "caps": 1, "network_id": NET}
    return r.build_record(SIGNER.sign, **(fields | change))


def signed(body: bytes) -> bytes:
    """Any body with a good signature."""
    return body + SIGNER.sign(r.RECORD_LABEL + body)


class TestRecord:
    def test_record_layout_is_that_of_the_spec(self) -> None:
        raw = make().raw
        assert len(raw) == 162 + len(NET)
        assert raw[0] == 1
        assert raw[1:33] == SIGNER.id_pub
        assert raw[33:65] == bytes(32)
        assert struct.unpack(">QQQQ", raw[65:97]) == (5, 1_799_996_400, 1_800_604_800, 1)
        assert raw[97:105] == b"\x07netchan"

    def test_record_parse_is_the_inverse_of_build(self) -> None:
        for network in (b"", NET, bytes(64)):
            record = make(network_id=network)
            assert r.parse_record(record.raw) == record

    def test_record_every_bit_counts(self) -> None:
        raw = make().raw
        for bit in range(len(raw) * 8):
            changed = raw[: bit // 8] + bytes((raw[bit // 8] ^ 1 << bit % 8,)) + raw[bit // 8 + 1 :]
            with pytest.raises(r.RecordError):
                r.RecordCache().verify(changed, NET, NOW)

    def test_record_wrong_length_is_refused(self) -> None:
        raw = make().raw
        for data in (*(raw[:n] for n in range(len(raw))), raw + b"\0", raw + bytes(200)):
            with pytest.raises(r.RecordError):
                r.parse_record(data)

    def test_record_well_signed_but_not_canonical_is_refused(self) -> None:
        body = make().raw[:-64]
        year = 366 * 86_400
        for bad in (
            body + b"\0",
            b"\x02" + body[1:],
            body[:97] + b"\x41" + bytes(65),
            body[:73] + struct.pack(">QQ", int(NOW), int(NOW)) + body[89:],
            body[:73] + struct.pack(">QQ", int(NOW) - year, int(NOW) + 1) + body[89:],
            body[:73] + struct.pack(">QQ", 0, 2**64 - 1) + body[89:],
        ):
            with pytest.raises(r.RecordError):
                r.RecordCache().verify(signed(bad), NET, NOW)

    @pytest.mark.parametrize("shift", [-3_601, 7 * 86_400 + 1])
    def test_record_outside_its_time_is_refused_also_from_the_cache(self, shift: int) -> None:
        cache, record = r.RecordCache(), make()
        with pytest.raises(r.RecordExpiredError):
            cache.verify(record.raw, NET, NOW + shift)
        cache.verify(record.raw, NET, NOW)
        with pytest.raises(r.RecordExpiredError):
            cache.verify(record.raw, NET, NOW + shift)

    def test_record_of_other_network_is_refused_also_from_the_cache(self) -> None:
        cache, record = r.RecordCache(), make()
        for _ in range(2):
            with pytest.raises(r.RecordError, match="network"):
                cache.verify(record.raw, b"other", NOW)
            cache.verify(record.raw, NET, NOW)

    def test_equal_record_is_had_once_and_an_unknown_one_is_not_remembered(self) -> None:
        cache, record = r.RecordCache(), make()
        again = r.parse_record(record.raw)
        assert cache.shared(again) is again
        assert len(cache) == 0
        known = cache.verify(record.raw, NET, NOW)
        assert cache.shared(again) is known

    def test_record_signature_of_a_membership_is_no_record(self) -> None:
        body = make().raw[:-64]
        with pytest.raises(r.RecordError, match="signature"):
            r.RecordCache().verify(body + SIGNER.sign(r.MEMBER_LABEL + body), NET, NOW)

    def test_cache_is_bounded_and_holds_only_good_ones(self) -> None:
        cache = r.RecordCache(limit=3)
        for seq in range(6):
            cache.verify(make(seq=seq).raw, NET, NOW)
            with pytest.raises(r.RecordError):
                cache.verify(make(seq=seq).raw[:-64] + bytes(64), NET, NOW)
        assert len(cache) == 3

    @pytest.mark.parametrize("change", [{"network_id": bytes(65)}, {"life_s": 0}, {"life_s": 31 * 86_400}])
    def test_build_out_of_range_raises(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"network id|life"):
            make(**change)

    @given(st.binary(max_size=300))
    def test_parse_any_bytes_gives_the_one_error(self, data: bytes) -> None:
        for parse in (r.parse_record, r.parse_membership):
            with pytest.raises(r.RecordError):
                parse(data)


class TestMembership:
    def make(self, groups: tuple[str, ...] = ("b", "a")) -> r.Membership:
        return r.build_membership(
            SIGNER.sign,
            ca_pub=SIGNER.id_pub,
            id_pub=bytes(32),
            not_before=int(NOW),
            not_after=int(NOW) + 9,
            groups=groups,
        )

    def test_membership_parse_is_the_inverse_and_groups_are_sorted(self) -> None:
        for groups in ((), ("b", "a"), tuple(f"{i:02}" + "ä" * 15 for i in range(16))):
            member = self.make(groups)
            assert member.groups == tuple(sorted(groups))
            assert r.verify_membership(member.raw, SIGNER.id_pub, bytes(32), NOW) == member

    def test_membership_every_bit_counts(self) -> None:
        raw = self.make().raw
        for bit in range(len(raw) * 8):
            changed = raw[: bit // 8] + bytes((raw[bit // 8] ^ 1 << bit % 8,)) + raw[bit // 8 + 1 :]
            with pytest.raises(r.RecordError):
                r.verify_membership(changed, SIGNER.id_pub, bytes(32), NOW)

    def test_membership_of_other_authority_node_or_time_is_refused(self) -> None:
        raw = self.make().raw
        for ca, node, now in (
            (bytes(32), bytes(32), NOW),
            (SIGNER.id_pub, b"\1" * 32, NOW),
            (SIGNER.id_pub, bytes(32), NOW + 10),
        ):
            with pytest.raises(r.RecordError):
                r.verify_membership(raw, ca, node, now)

    def test_membership_well_signed_but_not_canonical_is_refused(self) -> None:
        head = struct.pack(">B32s32sQQ", 1, SIGNER.id_pub, bytes(32), 1, 2)
        bodies = (
            b"\x02\x01b\x01a",
            b"\x02\x01a\x01a",
            b"\x01\x00",
            b"\x01\x05a",
            b"\x00x",
            b"\x01\x01\xff",
            b"\x11",
            b"\x01\x21" + b"a" * 33,
        )
        for bad in bodies:
            body = head + bad
            with pytest.raises(r.RecordError):
                r.parse_membership(body + SIGNER.sign(r.MEMBER_LABEL + body))

    @pytest.mark.parametrize("groups", [("",), ("x" * 33,), tuple(str(i) for i in range(17))])
    def test_build_out_of_range_raises(self, groups: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="groups"):
            self.make(groups)
