"""Payload items, transport parameters, negotiation (spec handshake §3.4, §3.5, §4)."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netchan.net import params as p

ALL = frozenset(range(200))


class TestItems:
    @given(st.integers(0, 2**62 - 1), st.binary(max_size=4))
    def test_varint_round_trip_is_identity(self, value: int, tail: bytes) -> None:
        data = p.encode_varint(value)
        assert p.decode_varint(data + tail, 0) == (value, len(data))

    @pytest.mark.parametrize(
        ("value", "text"),
        [(37, "25"), (15293, "7bbd"), (494878333, "9d7f3e7d"), (151288809941952652, "c2197c5eff14e88c")],
    )
    def test_varint_rfc9000_a1_examples(self, value: int, text: str) -> None:
        assert p.encode_varint(value).hex() == text

    @pytest.mark.parametrize("data", ["", "40", "4025", "80000001", "c0", "c000000000000001", "803fff"])
    def test_varint_short_or_not_shortest_is_refused(self, data: str) -> None:
        with pytest.raises(p.ParamError):
            p.decode_varint(bytes.fromhex(data), 0)

    @pytest.mark.parametrize("value", [-1, 2**62])
    def test_varint_out_of_range_raises(self, value: int) -> None:
        with pytest.raises(ValueError, match="range"):
            p.encode_varint(value)

    @given(st.dictionaries(st.integers(0, 199), st.binary(max_size=20), max_size=20))
    def test_items_round_trip_is_identity(self, items: dict[int, bytes]) -> None:
        assert p.decode_items(p.encode_items(items), ALL) == items

    @given(st.binary(max_size=100))
    def test_items_any_bytes_parse_or_raise_the_one_error(self, data: bytes) -> None:
        try:
            items = p.decode_items(data, ALL)
        except p.ParamError:
            return
        again = p.encode_items(items)
        assert len(again) <= len(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"\x02\x00\x02\x00",  # twice
            b"\x04\x00\x02\x00",  # descending
            b"\x02\x05abc",  # ends early
            b"\x02",
            b"\x02\xc0\xff\xff\xff\xff\xff\xff\xff",  # length 2^62 - 1
        ],
    )
    def test_items_malformed_are_refused(self, data: bytes) -> None:
        with pytest.raises(p.ParamError):
            p.decode_items(data, ALL)

    def test_items_unknown_even_skipped_odd_refused(self) -> None:
        assert p.decode_items(p.encode_items({2: b"a", 300: b"b"}), frozenset({2})) == {2: b"a"}
        with pytest.raises(p.ParamError, match="critical"):
            p.decode_items(p.encode_items({2: b"a", 301: b"b"}), frozenset({2}))

    def test_items_count_and_size_are_bounded(self) -> None:
        assert len(p.decode_items(p.encode_items(dict.fromkeys(range(64), b"")), ALL)) == 64
        with pytest.raises(p.ParamError):
            p.decode_items(p.encode_items(dict.fromkeys(range(65), b"")), ALL)
        with pytest.raises(p.ParamError):
            p.decode_items(p.encode_items({2: bytes(p.MAX_PAYLOAD)}), ALL)

    def test_grease_is_now_and_then_and_always_even_unknown(self) -> None:
        rng, kinds = random.Random(3).randbytes, []
        for _ in range(400):
            items: dict[int, bytes] = {}
            p.grease(items, rng)
            kinds += items
            assert all(len(value) <= 7 for value in items.values())
        assert 60 < len(kinds) < 140
        assert all(kind % 2 == 0 and 0x4000 <= kind <= 0x7FFE for kind in kinds)


class TestTransportParams:
    def test_defaults_encode_to_nothing(self) -> None:
        assert p.TransportParams().encode() == b""
        assert p.TransportParams.decode(b"") == p.TransportParams()

    @given(st.data())
    def test_params_round_trip_is_identity(self, data: st.DataObject) -> None:
        values = {name: data.draw(st.integers(rule.low, rule.high), name) for name, rule in p._RULES.items()}
        params = p.TransportParams(**values)
        assert p.TransportParams.decode(params.encode(random.Random(1).randbytes)) == params

    def test_instance_is_sixteen_bytes_or_absent(self) -> None:
        params = p.TransportParams(instance=bytes(range(16)))
        assert params.encode() == b"\x24\x10" + bytes(range(16))
        assert p.TransportParams.decode(params.encode()) == params
        for length in (1, 15, 17):
            with pytest.raises(ValueError, match="instance"):
                p.TransportParams(instance=bytes(length))
        for length in (0, 15, 17):
            with pytest.raises(p.ParamError, match="instance"):
                p.TransportParams.decode(p.encode_items({0x24: bytes(length)}))

    @pytest.mark.parametrize("name", list(p._RULES))
    def test_param_out_of_range_is_refused_both_ways(self, name: str) -> None:
        rule = p._RULES[name]
        for value in (rule.low - 1, rule.high + 1):
            with pytest.raises(ValueError, match=name):
                p.TransportParams(**{name: value})
            if value >= 0:
                with pytest.raises(p.ParamError, match=name):
                    p.TransportParams.decode(p.encode_items({rule.kind: p.encode_varint(value)}))

    def test_param_with_trailing_byte_is_refused(self) -> None:
        with pytest.raises(p.ParamError):
            p.TransportParams.decode(p.encode_items({0x14: b"\x05\x00"}))


class TestNegotiate:
    def test_cipher_chosen_follows_the_rule_for_all_orders(self) -> None:
        orders = [(1,), (2,), (1, 2), (2, 1), (9, 1), (9, 2, 1)]
        for mine, theirs in product(orders, orders):
            first, second = p.Offer(ciphers=mine), p.Offer(ciphers=theirs)
            common = set(mine) & set(theirs) & {1, 2}
            if not common:
                with pytest.raises(p.CapabilityError):
                    p.negotiate(first, second)
                continue
            expected = 2 if 2 in common and 2 in (mine[0], theirs[0]) else next(c for c in theirs if c in common)
            assert p.negotiate(first, second).cipher == expected

    @given(st.frozensets(st.integers(0, 9)), st.frozensets(st.integers(0, 9)), st.data())
    def test_caps_are_the_intersection_or_refused(
        self, mine: frozenset[int], theirs: frozenset[int], data: st.DataObject
    ) -> None:
        need = data.draw(st.frozensets(st.sampled_from(sorted(mine)))) if mine else frozenset()
        first, second = p.Offer(caps=mine, required=need), p.Offer(caps=theirs)
        if need <= theirs:
            assert p.negotiate(first, second).caps == mine & theirs
        else:
            with pytest.raises(p.CapabilityError):
                p.negotiate(first, second)

    def test_missing_is_said_with_its_side_and_not_without_end(self) -> None:
        asks, lacks = (
            p.Offer(caps=frozenset({0x8001, 5}), required=frozenset({0x8001, 5})),
            p.Offer(caps=frozenset({5})),
        )
        with pytest.raises(p.CapabilityError, match="the listener lacks 0x8001, which the dialler requires"):
            p.negotiate(asks, lacks)
        with pytest.raises(p.CapabilityError, match="the dialler lacks 0x8001, which the listener requires"):
            p.negotiate(lacks, asks)
        many = frozenset(range(p.MAX_CAPS))
        with pytest.raises(p.CapabilityError, match=r"lacks 0x0000, .* 0x0007 and 56 more, which") as caught:
            p.negotiate(p.Offer(caps=many, required=many), p.Offer())
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(("a", "b", "idle"), [(0, 0, 0), (0, 9, 9), (9, 0, 9), (4, 9, 4)])
    def test_idle_zero_counts_as_infinite(self, a: int, b: int, idle: int) -> None:
        pair = p.Offer(p.TransportParams(idle_s=a)), p.Offer(p.TransportParams(idle_s=b))
        assert p.negotiate(*pair).idle_s == idle

    def test_agreement_bytes_are_frozen(self) -> None:
        # literal bytes of the spec: cipher 1, caps {5}, lease 300, idle 0, max_paths 8, parity 0, trunk 0, datagrams 0
        offer = p.Offer(caps=frozenset({5}))
        assert p.negotiate(offer, offer).encoded.hex() == "0a01010c02000510131402412c1601001801081a01001c01001e0100"

    @given(st.binary(max_size=60))
    def test_offer_from_any_items_parses_or_raises_the_one_error(self, data: bytes) -> None:
        items = {
            p.VERSIONS: b"\x01",
            p.CIPHERS: data[:9],
            p.CAPS: data[9:21],
            p.REQUIRED: data[21:25],
            p.PARAMS: data[25:],
        }
        try:
            offer = p.Offer.from_items(items)
        except p.ParamError:
            return
        assert offer.required <= offer.caps

    @pytest.mark.parametrize("versions", [b"", b"\x02\x01", b"\x01\x01", bytes(range(1, 18))])
    def test_version_list_malformed_is_refused(self, versions: bytes) -> None:
        items = p.Offer().items(random.Random(1).randbytes) | {p.VERSIONS: versions}
        with pytest.raises(p.ParamError):
            p.Offer.from_items(items)

    @pytest.mark.parametrize("left_out", [p.VERSIONS, p.CIPHERS, p.CAPS, p.PARAMS])
    def test_offer_that_leaves_out_a_needed_item_is_refused(self, left_out: int) -> None:
        items = p.Offer().items(random.Random(1).randbytes)
        assert p.Offer.from_items(items).caps == frozenset()
        del items[left_out]
        with pytest.raises(p.ParamError, match="lacks"):
            p.Offer.from_items(items)

    def test_refusal_unknown_code_counts_as_protocol(self) -> None:
        assert p.Refusal.read(0x46) is p.Refusal.UNTRUSTED
        assert p.Refusal.read(0xFFFF) is p.Refusal.PROTOCOL
