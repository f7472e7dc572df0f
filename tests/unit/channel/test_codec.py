"""Values <-> bytes (docs/spec/channel-end.md; api: R11 to R13)."""

from __future__ import annotations

import builtins
import ctypes
import enum
import json
import math
import random
import re
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netchan
from netchan.channel.codec import ID_BYTES, ID_TYPED, codec_by_id, codec_for, fits
from netchan.channel.msgpack import DEPTH_MAX, decode_any, encode_any
from netchan.errors import CodecError, ConfigError
from netchan.markers import CarriesEnds

INTS = st.integers(-(1 << 63), (1 << 64) - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | INTS | st.floats(allow_nan=False) | TEXTS | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS | st.binary() | INTS, inner), max_leaves=30
)


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def shown(value: object) -> str:
    """A name for a case that is the same in each process: no addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


class Colour(enum.IntEnum):
    RED = 1


class TestUntyped:
    @given(VALUES)
    def test_every_value_of_the_domain_comes_back(self, value: Any) -> None:
        assert decode_any(encode_any(value)) == value

    def test_tuples_arrive_as_lists_and_buffers_as_bytes(self) -> None:
        value = {"t": (1, (2,)), b"b": bytearray(b"x"), 3: memoryview(b"yz"), "a": array("B", [1, 2])}
        assert decode_any(encode_any(value)) == {"t": [1, [2]], b"b": b"x", 3: b"yz", "a": b"\x01\x02"}
        assert decode_any(encode_any(math.inf)) == math.inf
        assert math.isnan(decode_any(encode_any(math.nan)))
        assert type(decode_any(encode_any(Colour.RED))) is int

    @pytest.mark.parametrize(
        "value",
        [
            object(),
            {1.5: 1},
            {None: 1},
            {True: 1},
            {(1, 2): 1},
            1 << 64,
            -(1 << 63) - 1,
            [1 << 64],
            "\ud800",
            {"k": {1, 2}},
            msgpack.ExtType(1, b"x"),
            [msgpack.Timestamp(1)],
            memoryview(b"abcdef")[::2],
            1j,
            int,
        ],
        ids=shown,
    )
    def test_all_else_is_refused_at_the_sender(self, value: Any) -> None:
        with pytest.raises(CodecError, match="cannot be sent untyped"):
            encode_any(value)

    def test_depth_is_bounded_on_both_sides(self) -> None:
        assert decode_any(encode_any(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
        with pytest.raises(CodecError, match="deeper than 32"):
            encode_any(nested(DEPTH_MAX + 1))
        with pytest.raises(CodecError, match="deeper than 32"):
            decode_any(b"\x91" * (DEPTH_MAX + 1) + b"\xc0")
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(CodecError):
            encode_any(loop)


class TestHostileBytes:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xdd\xff\xff\xff\xff" * 15_000,
            b"\x9f" * 100_000,
            b"\xdc\x7f\xff" * 30_000,
            b"\x91" * 100_000,
            b"\x81" * 100_000,
            b"\xc0\xc0",
            b"\x81\xc0\xc0",
            b"\x81\xcb" + bytes(8) + b"\xc0",
            b"\x81\x90\xc0",
            b"\xd4\x01\x02",
            b"\xc7\x00\x01",
            b"\xa1\xff",
            b"\x82\xa1a\xc0",
        ],
        ids=lambda d: f"{d[:6].hex()}x{len(d)}",
    )
    def test_malformed_input_is_refused_without_allocating_for_it(self, data: bytes) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(CodecError, match="received bytes"):
                decode_any(data)
            assert tracemalloc.get_traced_memory()[1] < 64 * 1024
        finally:
            tracemalloc.stop()

    def test_memory_of_a_decode_is_linear_in_its_input(self) -> None:
        data = b"\xdd" + (50_000).to_bytes(4, "big") + b"\x90" * 50_000
        tracemalloc.start()
        try:
            assert len(decode_any(data)) == 50_000
            assert tracemalloc.get_traced_memory()[1] < 80 * len(data)
        finally:
            tracemalloc.stop()

    @given(st.binary(max_size=200))
    def test_any_bytes_give_a_value_or_codec_error(self, data: bytes) -> None:
        for form in (Any, bytes, str, int, float, bool, dict[str, list[int]]):
            try:
                codec_for(form).decode(data)
            except CodecError:
                continue

    def test_valid_bytes_with_one_flip_give_a_value_or_codec_error(self) -> None:
        rng = random.Random(7)
        value = {"a": [1, 2.5, None, True, "text", b"bytes"], b"k": {5: [[[]]]}, -3: 1 << 63}
        good = encode_any(value)
        refused = 0
        for at in range(len(good)):
            for _ in range(20):
                bad = bytearray(good)
                bad[at] ^= rng.randrange(1, 256)
                try:
                    decode_any(bytes(bad))
                except CodecError:
                    refused += 1
            with pytest.raises(CodecError):
                decode_any(good[:at])
        assert refused > len(good)

    def test_result_holds_no_reference_to_its_input(self) -> None:
        for form, value in ((Any, b"x" * 100), (bytes, b"y" * 100), (Any, [b"z" * 50])):
            data = bytearray(codec_for(form).encode(value))
            got = codec_for(form).decode(memoryview(data))
            data[:] = bytes(len(data))
            data.append(0)  # no export is left
            assert got == value


def test_public_vectors_decode_as_stated(vectors: Path) -> None:
    suite = json.loads((vectors / "encoding" / "msgpack-test-suite.json").read_text(encoding="utf-8"))
    seen = refused = 0
    for group in suite.values():
        for case in group:
            kind = next(key for key in case if key != "msgpack")
            for text in case["msgpack"]:
                data = bytes.fromhex(text.replace("-", ""))
                seen += 1
                if kind in ("ext", "timestamp"):
                    refused += 1
                    with pytest.raises(CodecError):
                        decode_any(data)
                    continue
                want = case[kind]
                if kind == "binary":
                    want = bytes.fromhex(want.replace("-", ""))
                elif kind == "bignum":
                    want = int(want)
                got = decode_any(data)
                assert got == want, (kind, text)
                assert decode_any(encode_any(got)) == want
    assert seen > 100
    assert refused > 10


class TestBuiltInTypes:
    @given(st.binary())
    def test_bytes_take_any_contiguous_buffer(self, value: bytes) -> None:
        codec = codec_for(bytes)
        for form in (value, bytearray(value), memoryview(value), array("B", value)):
            assert codec.decode(codec.encode(form)) == value
        assert codec.decode(codec.encode(array("I", [1, 2]))) == array("I", [1, 2]).tobytes()

    @pytest.mark.parametrize("form", [bytes, Any])
    def test_buffers_of_objects_do_not_give_away_their_addresses(self, form: Any) -> None:
        record = np.zeros(2, [("a", "i4"), ("o", "O")])
        for value in (np.array([object()]), record, (ctypes.py_object * 2)()):
            with pytest.raises(CodecError, match="of Python objects cannot be sent"):
                codec_for(form).encode(value)
        with pytest.raises(CodecError):
            codec_for(form).encode(np.zeros(2, "M8[s]"))
        named = np.ones(2, [("O", "i4"), ("no", "u1")])
        assert codec_for(form).decode(codec_for(form).encode(named)) == named.tobytes()

    @given(TEXTS, INTS, st.floats(allow_nan=False), st.booleans())
    def test_values_come_back_with_their_type(self, text: str, number: int, real: float, flag: bool) -> None:
        for form, value in ((str, text), (int, number), (float, real), (bool, flag)):
            codec = codec_for(form)
            got = codec.decode(codec.encode(value))
            assert (got, type(got)) == (value, form)

    @pytest.mark.parametrize(
        ("form", "value"),
        [
            (bytes, "text"),
            (bytes, 3),
            (bytes, memoryview(b"abcd")[::2]),
            (str, b"bytes"),
            (str, "\udc80"),
            (int, True),
            (int, 1.0),
            (int, 1 << 64),
            (float, True),
            (float, "1"),
            (float, 10**400),
            (bool, 1),
            (bool, None),
        ],
        ids=shown,
    )
    def test_misfits_are_refused_at_the_sender(self, form: Any, value: Any) -> None:
        with pytest.raises(CodecError):
            codec_for(form).encode(value)

    def test_received_misfits_name_the_type(self) -> None:
        for form, value in ((str, 1), (int, "1"), (int, True), (bool, 1), (float, "x")):
            with pytest.raises(CodecError, match=form.__name__):
                codec_for(form).decode(encode_any(value))
        assert codec_for(float).decode(encode_any(3)) == 3.0

    def test_unhashable_form_is_a_config_error(self) -> None:
        with pytest.raises(ConfigError, match="not a type"):
            codec_for([int])


class TestTyped:
    def test_dataclass_values_are_checked_at_both_sides(self) -> None:
        import msgspec

        class Job(msgspec.Struct):
            n: int

        class Other(msgspec.Struct):
            n: str

        codec = codec_for(Job)
        assert codec.id == ID_TYPED
        assert codec.decode(codec.encode(Job(3))) == Job(3)
        with pytest.raises(CodecError, match="does not fit"):
            codec.encode(Job("three"))  # type: ignore[arg-type]
        with pytest.raises(CodecError, match="does not fit"):
            codec.encode(object())
        with pytest.raises(CodecError, match="are no Job"):
            codec.decode(codec_for(Other).encode(Other("x")))
        assert decode_any(codec.encode(Job(3))) == {"n": 3}

    def test_without_msgspec_the_pip_line_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(name: str, *args: Any, **options: Any) -> Any:
            if name == "msgspec":
                raise ImportError(name)
            return real(name, *args, **options)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ConfigError, match="pip install"):
            codec_for(list[int])
        assert codec_for(int).decode(codec_for(int).encode(1)) == 1

    def test_types_without_a_schema_are_a_config_error(self) -> None:
        with pytest.raises(ConfigError, match="cannot be the type"):
            codec_for(lambda: None)


class TestFits:
    def test_same_structure_fits_and_any_fits_all_messagepack(self) -> None:
        names = [Any, bytes, str, int, float, bool, list[int], dict[str, int]]
        for a in names:
            for b in names:
                want = a == b or (Any in (a, b) and bytes not in (a, b))
                assert fits(codec_for(a), codec_for(b)) is want, (a, b)

    def test_schema_hash_is_by_structure_and_stable(self) -> None:
        assert len(codec_for(int).schema_hash) == 16
        assert codec_for(list[int]).schema_hash == codec_for(list[int]).schema_hash
        assert codec_for(list[int]).schema_hash != codec_for(list[str]).schema_hash
        import msgspec

        plain = msgspec.defstruct("Item", [("n", int)])
        with_text = msgspec.defstruct("Item", [("n", int), ("description", str, "")])
        documented = msgspec.defstruct("Item", [("n", int)], namespace={"__doc__": "Said for people."})
        assert codec_for(plain).schema_hash != codec_for(with_text).schema_hash
        assert codec_for(plain).schema_hash == codec_for(documented).schema_hash
        assert codec_for(Any).schema_hash.hex() == "0d3b5cccb9e824dbb045007e6a067f3d"

    def test_codec_by_id_serves_channels_accepted_without_a_type(self) -> None:
        found = codec_by_id(ID_BYTES)
        assert found is not None
        assert found.decode(b"x") == b"x"
        typed = codec_by_id(ID_TYPED)
        assert typed is not None
        assert typed.decode(codec_for(list[int]).encode([1])) == [1]
        assert codec_by_id(99) is None


class TestReferences:
    """Ends of channels in values: 42 bytes of MessagePack extension type 1 (docs/spec/wire.md §8)."""

    REFERENCE = b"\xc7\x2a\x01" + bytes([1, 0]) + bytes(40)

    def test_value_with_an_end_is_left_to_who_can_open_it(self) -> None:
        for data in (self.REFERENCE, b"\x91" + self.REFERENCE, b"\x81\xa1k" + self.REFERENCE):
            with pytest.raises(CarriesEnds):
                decode_any(data)
            adopted: list[bytes] = []
            decode_any(data, lambda payload, adopted=adopted: adopted.append(payload))  # type: ignore[misc]
            assert adopted == [self.REFERENCE[3:]]

    @pytest.mark.parametrize(
        "data",
        [
            b"\xc7\x29\x01" + bytes(41),
            b"\xc7\x2b\x01" + bytes(43),
            b"\xc7\x2a\x02" + bytes(42),
            b"\xc7\x2a",
            b"\xc7\x2a\x01" + bytes(41),
            b"\xd8\x01" + bytes(16),
            b"\xc8\x00\x2a\x01" + bytes(42),
            b"\x81" + REFERENCE + b"\xc0",
            REFERENCE + b"\xc0",
            b"\xdc\x00\x11" + REFERENCE * 17,
        ],
    )
    def test_other_extensions_and_wrong_places_are_refused(self, data: bytes) -> None:
        for adopt in (None, lambda _: pytest.fail("nothing may be opened for it")):
            with pytest.raises((CodecError, CarriesEnds)) as caught:
                decode_any(data, adopt)
            assert adopt is None or caught.type is CodecError

    def test_sixteen_ends_fit(self) -> None:
        assert decode_any(b"\xdc\x00\x10" + self.REFERENCE * 16, len) == [42] * 16

    def test_handle_in_a_value_is_seen_before_anything_is_sent(self) -> None:
        ch = netchan.channel(capacity=1)
        for value in (ch, [ch], {"reply": ch.split()[0]}):
            with pytest.raises(CarriesEnds):
                encode_any(value)
        ch.close()
