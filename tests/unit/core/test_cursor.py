"""Cursors and varints of the core: every size, every cut, every value at the edge of a form."""

import pytest

from netchan._core import _selftest as core

OK, ETRUNC, ESPACE, EINVAL, ELIMIT = (core.RC[k] for k in ("OK", "ETRUNC", "ESPACE", "EINVAL", "ELIMIT"))

# (value, size) around every change of form; the first four are the samples of RFC 9000, appendix A.1.
EDGES = [
    (151288809941952652, 8),
    (494878333, 4),
    (15293, 2),
    (37, 1),
    (0, 1),
    (63, 1),
    (64, 2),
    (16383, 2),
    (16384, 4),
    (2**30 - 1, 4),
    (2**30, 8),
    (2**62 - 1, 8),
]


class TestVarintRfc9000Section16:
    @pytest.mark.parametrize(("value", "size"), EDGES)
    def test_varint_at_edge_takes_shortest_form_and_reads_back(self, value: int, size: int) -> None:
        data = core.varint_write(value)
        assert len(data) == size == core.varint_len(value)
        reader = core.Reader(data + b"\xff")
        assert reader.varint() == (OK, value)
        assert reader.pos == size

    @pytest.mark.parametrize(
        ("wire", "value"),
        [
            ("c2197c5eff14e88c", 151288809941952652),
            ("9d7f3e7d", 494878333),
            ("7bbd", 15293),
            ("25", 37),
            ("4025", 37),
        ],
    )
    def test_varint_sample_of_appendix_a1_reads_as_stated(self, wire: str, value: int) -> None:
        assert core.Reader(bytes.fromhex(wire)).varint() == (OK, value)

    @pytest.mark.parametrize("value", [2**62, 2**63, 2**64 - 1])
    def test_varint_above_maximum_has_no_form(self, value: int) -> None:
        assert core.varint_len(value) == 0
        assert core.varint_write(value) == b""
        writer = core.Writer(16)
        assert writer.varint(value) == EINVAL
        assert writer.bytes() == b""
        assert all(core.varint_write_n(value, n) == b"" for n in range(10))

    @pytest.mark.parametrize(("value", "size"), EDGES)
    def test_varint_cut_anywhere_is_truncated_and_moves_nothing(self, value: int, size: int) -> None:
        data = core.varint_write(value)
        for cut in range(size):
            reader = core.Reader(data[:cut])
            assert reader.varint() == (ETRUNC, 0)
            assert reader.pos == 0

    @pytest.mark.parametrize(("value", "size"), EDGES)
    def test_varint_fixed_size_writes_only_where_it_fits(self, value: int, size: int) -> None:
        for n in range(10):
            data = core.varint_write_n(value, n)
            if n in (1, 2, 4, 8) and n >= size:
                assert len(data) == n
                assert core.Reader(data).varint() == (OK, value)
            else:
                assert data == b""


class TestReadCursor:
    def test_fixed_fields_are_big_endian(self) -> None:
        reader = core.Reader(bytes(range(1, 16)))
        assert reader.u8() == (OK, 0x01)
        assert reader.u16() == (OK, 0x0203)
        assert reader.u32() == (OK, 0x04050607)
        assert reader.u64() == (OK, 0x08090A0B0C0D0E0F)
        assert reader.left == 0

    def test_fixed_fields_with_all_bits_set_keep_them(self) -> None:
        reader = core.Reader(b"\xff" * 15)
        assert [reader.u8()[1], reader.u16()[1], reader.u32()[1], reader.u64()[1]] == [
            2**8 - 1,
            2**16 - 1,
            2**32 - 1,
            2**64 - 1,
        ]

    @pytest.mark.parametrize(("name", "size"), [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)])
    def test_fixed_field_cut_anywhere_is_truncated_and_moves_nothing(self, name: str, size: int) -> None:
        for have in range(size):
            reader = core.Reader(b"\x80" * have)
            assert getattr(reader, name)() == (ETRUNC, 0)
            assert reader.left == have

    @pytest.mark.parametrize("n", [4, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
    def test_bytes_longer_than_input_is_truncated_and_moves_nothing(self, n: int) -> None:
        reader = core.Reader(b"abc")
        assert reader.take(n) == (ETRUNC, b"")
        assert reader.pos == 0
        assert reader.take(3) == (OK, b"abc")
        assert reader.take(0) == (OK, b"")

    def test_vbytes_within_limit_gives_the_bytes(self) -> None:
        reader = core.Reader(b"\x03abcd")
        assert reader.vtake(3) == (OK, b"abc")
        assert reader.pos == 4

    def test_vbytes_above_limit_is_refused_before_the_bytes_are_needed(self) -> None:
        reader = core.Reader(core.varint_write(2**62 - 1))
        assert reader.vtake(2**20) == (ELIMIT, b"")
        assert reader.pos == 0
        assert reader.vtake(2**64 - 1) == (ETRUNC, b"")
        assert reader.pos == 0

    @pytest.mark.parametrize("cut", range(6))
    def test_vbytes_cut_anywhere_moves_nothing(self, cut: int) -> None:
        reader = core.Reader(b"\x40\x04abcd"[:cut])
        assert reader.vtake(100) == (ETRUNC, b"")
        assert reader.pos == 0


class TestWriteCursor:
    def test_fields_written_in_order_are_big_endian(self) -> None:
        writer = core.Writer(64)
        assert [writer.u8(1), writer.u16(0x0203), writer.u32(0x04050607), writer.u64(0x08090A0B0C0D0E0F)] == [OK] * 4
        assert [writer.varint(15293), writer.put(b"xyz"), writer.vput(b"ab"), writer.put(b"")] == [OK] * 4
        assert writer.bytes() == bytes(range(1, 16)) + bytes.fromhex("7bbd") + b"xyz" + b"\x02ab"

    @pytest.mark.parametrize(("name", "size"), [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)])
    def test_fixed_field_without_room_writes_nothing(self, name: str, size: int) -> None:
        for cap in range(size):
            writer = core.Writer(cap)
            assert getattr(writer, name)(1) == ESPACE
            assert writer.bytes() == b""
        writer = core.Writer(size)
        assert getattr(writer, name)(2 ** (8 * size) - 1) == OK
        assert writer.left == 0

    @pytest.mark.parametrize(("value", "size"), EDGES)
    def test_varint_needs_exactly_its_size(self, value: int, size: int) -> None:
        for cap in range(size):
            writer = core.Writer(cap)
            assert writer.varint(value) == ESPACE
            assert writer.bytes() == b""
        writer = core.Writer(size)
        assert writer.varint(value) == OK
        assert writer.bytes() == core.varint_write(value)

    def test_bytes_without_room_writes_nothing(self) -> None:
        writer = core.Writer(3)
        assert writer.put(b"abcd") == ESPACE
        assert writer.vput(b"abc") == ESPACE
        assert writer.bytes() == b""
        assert writer.vput(b"ab") == OK
        assert writer.bytes() == b"\x02ab"
        assert writer.put(b"") == OK
        assert writer.vput(b"") == ESPACE
