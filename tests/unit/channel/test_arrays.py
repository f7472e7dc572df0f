"""numpy arrays <-> bytes (docs/spec/wire.md §8.1; api: R11, R13)."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import msgpack
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from netchan.channel.arrays import ALIGN, DTYPE_MAX_BYTES, FIELDS_MAX, HEAD, MARK, NDIM_MAX, VERSION
from netchan.channel.codec import ID_ARRAY, codec_by_id, codec_for, fits
from netchan.errors import CodecError, ConfigError

ARRAYS = codec_for(np.ndarray)
PLAIN = "? i1 u1 <i2 >i2 <u4 >u4 <i8 >u8 <f2 >f4 <f8 <c8 >c16 g G S1 S7 <U3 >U3 V5 M8 <M8[ns] >M8[25s] <m8[D] >m8[as]"
POINT = np.dtype([("x", "<f4"), ("on", "?"), ("name", ">U3")], align=True)
RECORDS = {
    "packed": np.dtype([("a", "<i2"), ("b", ">f8")]),
    "aligned": POINT,
    "nested": np.dtype([("p", POINT, (2, 1)), ("t", "<M8[ms]"), ("d", "g")]),
    "spaced": np.dtype({"names": ["a", "b"], "formats": ["u1", "<c8"], "offsets": [3, 9], "itemsize": 40}),
    "ending early": np.dtype({"names": ["a"], "formats": ["u1"], "itemsize": 4}),
    "overlapping": np.dtype({"names": ["all", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]}),
    "odd names": np.dtype([("ä b", "u1"), ("c" * 300, "S0"), ("e", "u1")]),
}
DTYPES = [np.dtype(text) for text in PLAIN.split()] + list(RECORDS.values())
HERE = np.dtype(np.longdouble)


def through(value: Any, codec: Any = ARRAYS) -> Any:
    return codec.decode(bytearray(codec.encode(value)))


def filled(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int = 1) -> Any:
    """An array of any dtype whose elements differ."""
    value = np.zeros(shape, dtype)
    if dtype.names is None:
        numbers = (np.arange(value.size) + seed).reshape(shape) % 90
        if dtype.kind == "V":
            numbers = numbers.astype("S2")
        value[...] = numbers.astype(dtype)
    for at, name in enumerate(dtype.names or ()):
        inner = value[name]
        if inner.dtype.itemsize:
            inner[...] = filled(inner.dtype, inner.shape, seed + at)
    return value


def same(got: Any, sent: Any) -> None:
    """Equal, and what R11 promises of what comes out."""
    assert type(got) is np.ndarray
    assert got.dtype == sent.dtype
    assert got.dtype.isalignedstruct == sent.dtype.isalignedstruct
    assert got.shape == sent.shape
    assert got.flags.c_contiguous and got.flags.writeable and got.flags.aligned
    assert not np.shares_memory(got, sent)
    equal = got == sent if sent.dtype.kind not in "mMfc" else (got == sent) | ((got != got) & (sent != sent))
    assert np.all(equal)


def empty_fields(array: Any) -> None:
    """Every field is zero; what lies between stays as it is."""
    for name in array.dtype.names or ():
        empty_fields(array[name])
    if array.dtype.names is None:
        array[...] = np.zeros((), array.dtype)


def packed(text: Any, shape: tuple[int, ...] = (2,), elements: bytes = bytes(8), ndim: int | None = None) -> bytes:
    """A body made by hand."""
    described = text if type(text) is bytes else msgpack.packb(text)
    head = HEAD.pack(MARK, VERSION, len(shape) if ndim is None else ndim, 0, len(described))
    head += struct.pack(f">{len(shape)}Q", *shape) + described
    return head + bytes(-len(head) % ALIGN) + elements


class TestEveryDtype:
    @pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (3, 0, 2), (1, 2, 1, 2)], ids=str)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_array_comes_back_with_dtype_and_shape(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        value = filled(dtype, shape)
        same(through(value), value)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_any_strides_in_c_order_out(self, dtype: np.dtype[Any]) -> None:
        value = filled(dtype, (4, 6, 2))
        for view in (value.T, value[::-1, ::2], value[:, 1], np.asfortranarray(value), value[1:2].swapaxes(1, 2)):
            same(through(view), view)
        once = value[:1, :1]
        wide = np.broadcast_to(once, (3, *once.shape[1:]))
        same(through(wide), wide)

    @given(st.data())
    def test_every_value_of_numpy_comes_back(self, data: st.DataObject) -> None:
        dtype = data.draw(hnp.scalar_dtypes() | hnp.array_dtypes())
        assume(dtype.itemsize and not dtype.subdtype and "title" not in repr(dtype) and "((" not in repr(dtype))
        value = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
        view = data.draw(hnp.basic_indices(value.shape).map(lambda at: value[at]).filter(np.ndarray.__instancecheck__))
        got = through(view)
        assert (got.dtype, got.shape, got.tobytes()) == (view.dtype, view.shape, np.ascontiguousarray(view).tobytes())

    def test_longest_shape_comes_back(self) -> None:
        value = np.arange(2).reshape((1,) * (NDIM_MAX - 1) + (2,))
        same(through(value), value)

    def test_read_only_and_mapped_memory_come_back_writable(self, tmp_path: Path) -> None:
        value = np.arange(6.0)
        value.flags.writeable = False
        same(through(value), value)
        mapped = np.memmap(tmp_path / "file", np.float64, "w+", shape=(6,))
        mapped[:] = 3
        same(through(mapped), np.full(6, 3.0))

    def test_metadata_of_a_dtype_stays_behind(self) -> None:
        got = through(np.zeros(2, np.dtype("<f4", metadata={"unit": "m"})))
        assert got.dtype == np.dtype("<f4") and got.dtype.metadata is None


class TestWhatASenderRefuses:
    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (np.array([object()]), "cannot be sent; give it a dtype of numbers"),
            (np.zeros(2, [("a", "i4"), ("o", "O")]), "cannot be sent; give it a dtype of numbers"),
            (np.array(["text"], dtype=np.dtypes.StringDType()), "cannot be sent; give it a dtype of numbers"),
            (np.zeros(2, [(("title", "a"), "i4")]), "has a title"),
            (np.zeros(2, [(f"f{n}", "u1") for n in range(FIELDS_MAX + 1)]), "1025 fields"),
            (np.zeros(2, [(f"{n:030}", "u1") for n in range(500)]), "bytes to describe"),
            (np.zeros(2, [("\ud800", "u1")]), "cannot be sent untyped"),
            (np.zeros(2, HERE.newbyteorder()), "from this machine"),
            (np.ma.array([1, 2], mask=[0, 1]), "send numpy.asarray"),
            (np.float32(1.0), "a float32 does not fit"),
            ([1.0], "a list does not fit"),
            (b"bytes", "a bytes does not fit"),
            (np.array([0, 2], np.uint8).view(bool), "truth values"),
            (np.array([0x110000], "<u4").view("<U1"), "code point"),
            (np.array([0x110000], ">u4").view([("a", ">U1")]), "code point"),
        ],
        ids=lambda v: v if isinstance(v, str) else type(v).__name__,
    )
    def test_value_that_cannot_travel_is_a_codec_error(self, value: Any, why: str) -> None:
        with pytest.raises(CodecError, match=why):
            ARRAYS.encode(value)

    def test_records_nested_too_deep_are_refused(self) -> None:
        dtype = np.dtype("u1")
        for _ in range(12):
            dtype = np.dtype([("a", dtype)])
        with pytest.raises(CodecError, match="deeper than 32"):
            ARRAYS.encode(np.zeros(1, dtype))

    def test_element_without_bytes_is_refused_by_both(self) -> None:
        data = packed([0, False, []], (1 << 40,), b"")
        with pytest.raises(CodecError, match="no bytes"):
            ARRAYS.encode(np.zeros(2, np.dtype([])))
        with pytest.raises(CodecError, match="no bytes"):
            ARRAYS.decode(data)

    def test_record_renamed_between_two_sends_goes_with_its_new_names(self) -> None:
        value = np.zeros(2, [("a", "u1"), ("b", "u1")])
        through(value)
        value.dtype.names = ("c", "d")
        assert through(value).dtype.names == ("c", "d")


class TestMemory:
    """What a value does not own does not travel, and nothing is copied more often than said."""

    @pytest.mark.parametrize("name", ["aligned", "nested", "spaced", "ending early"])
    def test_space_between_fields_is_sent_as_zeros(self, name: str) -> None:
        dtype = RECORDS[name]
        dirty = np.frombuffer(bytearray(b"\xa5" * dtype.itemsize * 3), dtype)
        empty_fields(dirty)
        assert b"\xa5" in dirty.tobytes()
        assert not any(ARRAYS.encode(dirty)[-dirty.nbytes :])

    @pytest.mark.skipif(np.finfo(HERE).nmant != 63, reason="space inside a long double is of x87")
    @pytest.mark.parametrize("char", "gG")
    def test_space_inside_a_long_double_is_sent_as_zeros(self, char: str) -> None:
        raw = bytearray(np.array([1.5, 2.5], char).tobytes())
        for at in range(0, len(raw), 16):
            raw[at + 10 : at + 16] = b"secret"
        value = np.frombuffer(raw, char)
        assert b"secret" not in ARRAYS.encode(value)
        same(through(value), value)

    @pytest.mark.parametrize("view", [np.s_[:], np.s_[::2], np.s_[:, ::-1]], ids=str)
    def test_sending_makes_one_copy(self, view: Any) -> None:
        value = np.ones((512, 1024))[view]
        tracemalloc.start()
        try:
            data = ARRAYS.encode(value)
            assert tracemalloc.get_traced_memory()[1] < value.nbytes * 1.1
        finally:
            tracemalloc.stop()
        assert type(data) is bytes, "held by the outbox as it is, not copied again"

    def test_receiving_makes_none(self) -> None:
        data = bytearray(ARRAYS.encode(np.ones((512, 1024))))
        tracemalloc.start()
        try:
            got = ARRAYS.decode(data)
            assert tracemalloc.get_traced_memory()[1] < got.nbytes / 8
        finally:
            tracemalloc.stop()
        data[-1] = 0x7F
        assert got[-1, -1] != 1, "it lies in the bytes that were given"

    @pytest.mark.parametrize("kind", [bytes, memoryview], ids=lambda k: k.__name__)
    def test_other_bytes_are_copied(self, kind: Any) -> None:
        data = bytearray(ARRAYS.encode(np.arange(4)))
        got = ARRAYS.decode(kind(data))
        data[-8:] = bytes(8)
        assert got.tolist() == [0, 1, 2, 3] and got.flags.writeable


class TestHostileBytes:
    GOOD = packed("<f4")

    def test_body_made_by_hand_is_what_we_make(self) -> None:
        assert ARRAYS.encode(np.zeros(2, "<f4")) == self.GOOD
        assert self.GOOD.hex() == "c1010100000000040000000000000002a33c6634" + "00" * 12 + "00" * 8

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "end within the head"),
            (GOOD[:7], "end within the head"),
            (GOOD[:20], "end within the head"),
            (GOOD[:-1], "not those of shape"),
            (GOOD + b"\0", "not those of shape"),
            (b"\x92" + GOOD[1:], "begin otherwise"),
            (b"\xc1\x02" + GOOD[2:], "begin otherwise"),
            (GOOD[:3] + b"\1" + GOOD[4:], "begin otherwise"),
            (GOOD[:25] + b"\1" + GOOD[26:], "is not zero"),
            (packed("<f4", (1,) * (NDIM_MAX + 1), bytes(4)), "65 dimensions"),
            (packed("<f4", (), bytes(4), ndim=255), "255 dimensions"),
            (packed(b"", (1,), b""), "dtype of 0 bytes"),
            (packed(bytes(DTYPE_MAX_BYTES + 1), (1,), b""), "dtype of 16385 bytes"),
            (HEAD.pack(MARK, VERSION, 0, 0, (1 << 32) - 1), "dtype of 4294967295"),
            (packed("<f4", (1 << 62, 4), b""), "larger than any memory"),
            (packed("<f4", (1 << 32, 1 << 32), b""), "larger than any memory"),
            (packed("<f4", ((1 << 64) - 1,), b""), "larger than any memory"),
            (packed("<f4", (0, 1 << 62), b""), "larger than any memory"),
            (packed("<f4", (1 << 40,), bytes(8)), "not those of shape"),
            (packed("O"), "no element"),
            (packed("|O"), "no element"),
            (packed("<f4\n"), "no element"),
            (packed("f4"), "no element"),
            (packed("=f4"), "no element"),
            (packed("<f4,<f4"), "no element"),
            (packed("(2,)<f4"), "no element"),
            (packed("<f16"), "no element"),
            (packed("|S99999999999"), "no element"),
            (packed("|S01"), "no element"),
            (packed("<M8[3]"), "no element"),
            (packed("<M8[1D]"), "not described"),
            (packed("<M8[9999999999ns]"), "their dtype is none"),
            (packed("<q16" if np.finfo(HERE).nmant == 63 else "<x16"), "no such long double"),
            (packed("|V0"), "no bytes"),
            (packed(7), "list of 3"),
            (packed(None), "list of 3"),
            (packed({"names": []}), "list of 3"),
            (packed([4, False]), "list of 3"),
            (packed([True, False, []]), "no record"),
            (packed([-4, False, []]), "no record"),
            (packed([1 << 31, False, []]), "no record"),
            (packed([4, 1, []]), "no record"),
            (packed([4, False, "ab"]), "no record"),
            (packed([4, False, [["a", 0, []]]]), "list of 4"),
            (packed([4, False, [[b"a", 0, [], "<f4"]]]), "no field"),
            (packed([4, False, [["a", -1, [], "<f4"]]]), "no field"),
            (packed([4, False, [["a", 0, None, "<f4"]]]), "no field"),
            (packed([4, False, [["a", 0, [-1], "<f4"]]]), "no field"),
            (packed([4, False, [["a", 0, [1.0], "<f4"]]]), "no field"),
            (packed([4, False, [["a", 0, [1] * 65, "<f4"]]]), "no field"),
            (packed([4, False, [["a", 1, [], "<f4"]]]), "their dtype is none"),
            (packed([4, False, [["a", 0, [1 << 30, 1 << 30], "<f4"]]]), "their dtype is none"),
            (packed([4, False, [["a", 0, [], "O"]]]), "no element"),
            (packed([4, False, [["a", 0, [], "<u2"], ["a", 2, [], "<u2"]]]), "their dtype is none"),
            (packed([6, True, [["a", 2, [], "<f4"]]]), "their dtype is none"),
            (packed([4, False, [[f"{n}", 0, [], "|u1"] for n in range(FIELDS_MAX + 1)]]), "no record"),
            (packed(b"\x91" * 40 + b"\xc0"), "deeper than 32"),
            (packed(b"\xdd\xff\xff\xff\xff"), "untyped domain"),
            (packed(b"\xd9\x03<f4"), "not described"),
            (packed([4, False, [["a", 0, [3], "|b1"], ["b", 2, [2], "|b1"]]], (1,), bytes(4)), "overlap"),
            (packed("|b1", (2,), b"\1\2"), "truth values"),
            (packed("<U1", (1,), b"\0\0\x11\0"), "code point"),
            (packed([5, False, [["a", 1, [2], ">U1"]]], (1,), bytes(5)), "their dtype is none"),
            (packed([9, False, [["a", 1, [2], ">U1"]]], (1,), b"\0\0\0\0\0\xff\xff\xff\xff"), "code point"),
        ],
        ids=lambda v: v[:28] if isinstance(v, str) else v[:28].hex(),
    )
    def test_bytes_that_are_no_array_are_refused_without_allocating_for_them(self, data: bytes, why: str) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(CodecError, match=why):
                ARRAYS.decode(data)
            assert tracemalloc.get_traced_memory()[1] < 512 * 1024
        finally:
            tracemalloc.stop()

    @given(st.binary(max_size=80))
    def test_any_bytes_give_an_array_or_codec_error(self, data: bytes) -> None:
        for whole in (data, self.GOOD[:3] + data, packed(data[:24], (len(data[24:]),), data[24:])):
            try:
                got = ARRAYS.decode(whole)
            except CodecError:
                continue
            assert ARRAYS.encode(got)

    @given(
        st.recursive(
            st.sampled_from([*PLAIN.split(), "|u1", "<f4", "|b1", "<U2", "O", 4, True, "a"]),
            lambda inner: st.tuples(
                st.integers(-1, 64),
                st.booleans(),
                st.lists(st.tuples(st.text(max_size=2), st.integers(-1, 60), st.lists(st.integers(-1, 4)), inner)),
            ),
            max_leaves=8,
        ),
        st.lists(st.integers(0, 3), max_size=3),
        st.binary(max_size=128),
    )
    def test_any_description_gives_a_dtype_or_codec_error(self, item: Any, shape: list[int], data: bytes) -> None:
        try:
            got = ARRAYS.decode(packed(item, tuple(shape), data))
        except CodecError:
            return
        assert got.shape == tuple(shape) and not got.dtype.hasobject

    def test_valid_bytes_with_one_flip_give_an_array_or_codec_error(self) -> None:
        rng = random.Random(7)
        good = ARRAYS.encode(filled(RECORDS["nested"], (2, 2)))
        refused = 0
        for at in range(len(good)):
            for _ in range(8):
                data = bytearray(good)
                data[at] ^= 1 << rng.randrange(8)
                try:
                    got = ARRAYS.decode(data)
                except CodecError:
                    refused += 1
                    continue
                assert not got.dtype.hasobject
        assert refused > len(good)


class TestForms:
    @pytest.mark.parametrize(
        ("form", "takes", "refuses"),
        [
            (np.ndarray, [np.zeros(2), np.zeros((), "S3")], []),
            (npt.NDArray[Any], [np.zeros(2)], []),
            (npt.NDArray, [np.zeros(2)], []),
            (npt.NDArray[np.generic], [np.zeros(2)], []),
            (np.ndarray[Any, np.dtype], [np.zeros(2)], []),
            (npt.NDArray[np.float32], [np.zeros(2, "<f4"), np.zeros((), ">f4")], [np.zeros(2), np.zeros(2, "i4")]),
            (npt.NDArray[np.longlong], [np.zeros(2, np.int64)], [np.zeros(2, np.uint64)]),
            (npt.NDArray[np.str_], [np.zeros(2, "U3"), np.zeros(2, "U5")], [np.zeros(2, "S3")]),
            (npt.NDArray[np.datetime64], [np.zeros(2, "M8[s]"), np.zeros(2, "M8[D]")], [np.zeros(2, "m8[s]")]),
            (npt.NDArray[np.void], [np.zeros(2, POINT), np.zeros(2, "V3")], [np.zeros(2)]),
            (npt.NDArray[np.longdouble], [np.zeros(2, "g")], [np.zeros(2)]),
            (np.ndarray[tuple[int, int], np.dtype[np.uint8]], [np.zeros((1, 2), "u1")], [np.zeros(2, "u1")]),
            (np.ndarray[tuple[()], np.dtype[Any]], [np.zeros(())], [np.zeros(1)]),
            (np.ndarray[tuple[Any, ...], Any], [np.zeros(()), np.zeros((1, 2))], []),
        ],
        ids=str,
    )
    def test_form_decides_at_both_sides(self, form: Any, takes: list[Any], refuses: list[Any]) -> None:
        codec = codec_for(form)
        assert codec.id == ID_ARRAY
        for value in takes:
            same(through(value, codec), value)
        for value in refuses:
            with pytest.raises(
                CodecError, match=r"an array .* does not fit this channel, which carries numpy\.ndarray"
            ):
                codec.encode(value)
            with pytest.raises(CodecError, match=r"received an array .* on a channel of numpy\.ndarray"):
                codec.decode(ARRAYS.encode(value))

    @pytest.mark.parametrize(
        "form",
        [
            np.matrix,
            np.ma.MaskedArray,
            npt.NDArray[np.floating],
            npt.NDArray[np.object_],
            np.ndarray[Any, np.dtype[int]],
            np.ndarray[Any, int],
            np.ndarray[tuple[Literal[3]], np.dtype[np.uint8]],
            np.ndarray[int, np.dtype[np.uint8]],
        ],
        ids=str,
    )
    def test_form_that_cannot_be_kept_to_is_a_config_error(self, form: Any) -> None:
        with pytest.raises(ConfigError):
            codec_for(form)

    def test_forms_fit_when_they_say_the_same(self) -> None:
        forms = [np.ndarray, npt.NDArray[np.float32], npt.NDArray[np.float64], Any, bytes, list[int]]
        forms.append(np.ndarray[tuple[int, int], np.dtype[np.float32]])
        for a in forms:
            for b in forms:
                want = a == b or (Any in (a, b) and list[int] in (a, b))
                assert fits(codec_for(a), codec_for(b)) is want, (a, b)
        assert fits(ARRAYS, codec_for(npt.NDArray[np.generic]))
        assert codec_for(npt.NDArray[np.int64]).schema_hash == codec_for(npt.NDArray[np.longlong]).schema_hash
        assert ARRAYS.schema_hash.hex() == "84d3b9ee0a90f4875fd8a16a39ba6c0f"

    def test_offer_taken_without_a_type_is_kept_to(self) -> None:
        offered = codec_for(np.ndarray[tuple[int, int], np.dtype[np.float32]])
        codec = codec_by_id(ID_ARRAY, offered.schema_hash)
        assert codec is not None and fits(codec, offered) and codec.type_name == offered.type_name
        same(through(np.zeros((2, 2), "f4"), codec), np.zeros((2, 2), "f4"))
        with pytest.raises(CodecError, match="of f8"):
            codec.encode(np.zeros((2, 2)))
        with pytest.raises(CodecError, match="in 1 dimensions"):
            codec.encode(np.zeros(2, "f4"))

    def test_offer_of_a_form_unknown_here_is_taken_too(self) -> None:
        codec = codec_by_id(ID_ARRAY, b"x" * 16)
        assert codec is not None and codec.schema_hash == b"x" * 16
        same(through(np.zeros(2), codec), np.zeros(2))


def test_arrays_without_numpy_say_what_to_install() -> None:
    """In a fresh interpreter, where numpy cannot be imported; importing netchan does not ask for it."""
    program = """
import sys
sys.modules["numpy"] = None
import netchan
from netchan.channel.codec import codec_by_id, codec_for
for do in (lambda c: c.encode([1]), lambda c: c.decode(b"")):
    try:
        do(codec_by_id(8))
    except netchan.CodecError as error:
        print(error)
assert codec_for(int).id == 4
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.count("pip install 'netchan[numpy]'") == 2


def test_netchan_imported_leaves_numpy_alone() -> None:
    program = """
import sys, netchan, netchan.sync
from netchan.channel.codec import codec_by_id, codec_for
codec_for(int), codec_by_id(8)
print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"
