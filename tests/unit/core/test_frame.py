"""Frames: every writer against the reader, every cut, every bound (docs/spec/wire.md §5, §6, §9)."""

from collections.abc import Callable
from typing import Any

import pytest

from netchan._core import _selftest_session as st

EAGAIN, ETRUNC, EFRAME, EUNKNOWN, ESPACE, EINVAL = (
    st.RC[k] for k in ("EAGAIN", "ETRUNC", "EFRAME", "EUNKNOWN", "ESPACE", "EINVAL")
)
CONTROL, TRUNK, STREAM = 0, 1, 16
TOP = 2**62 - 1


def vint(v: int, size: int = 0) -> bytes:
    """A varint written by hand, so that the reader is not checked with its own writer."""
    for n, bits in ((1, 6), (2, 14), (4, 30), (8, 62)):
        if v < 1 << bits and n >= size:
            return (v | {1: 0, 2: 1, 4: 2, 8: 3}[n] << (8 * n - 2)).to_bytes(n, "big")
    raise ValueError(v)


def vints(*values: int) -> bytes:
    return b"".join(vint(v) for v in values)


def one(data: bytes, tag: int = CONTROL) -> dict[str, Any]:
    frames, rc = st.parse(data, tag)
    assert rc == EAGAIN and len(frames) == 1, (frames, rc)
    return dict(frames[0])


def refused(data: bytes, tag: int = CONTROL) -> int:
    frames, rc = st.parse(data, tag)
    assert frames == []
    return int(rc)


# (bytes, tag, fields that the reader must give); one per row of the tables of wire.md §5 and §6
LAYOUTS: list[tuple[bytes, int, dict[str, Any]]] = [
    (b"\x00", CONTROL, {"type": 0, "eliciting": 0}),
    (b"\x01", CONTROL, {"type": 1, "eliciting": 1}),
    (
        b"\x02" + vints(4) + b"\0" + vints(900, 25, 0, 900),
        0,
        {"type": 2, "a": 4, "b": 900, "c": 25, "d": 900, "eliciting": 0},
    ),
    (
        b"\x02" + vints(4) + b"\3" + vints(900, 25, 1, 3, 2, 5) + vints(1, 2, 3) + b"\0\0\0\7",
        0,
        {"type": 2, "n": 1, "flags": 3},
    ),
    (
        b"\x03" + vints(16, 70, 7, 80, 90000, 0),
        0,
        {"type": 3, "stream": 16, "a": 70, "b": 7, "c": 80, "d": 90000, "eliciting": 1},
    ),
    (b"\x03" + vints(16, 70, 7, 80, 90000, 2, 1, 2, 3, 400), 17, {"type": 3, "stream": 16, "n": 2}),
    (b"\x04" + vints(16, 5, 6), 0, {"type": 4, "stream": 16, "a": 5, "b": 6}),
    (b"\x05" + vints(16, 5), 0, {"type": 5, "stream": 16, "a": 5}),
    (b"\x06" + vints(16, 5) + b"\1", 0, {"type": 6, "stream": 16, "a": 5, "flags": 1}),
    (
        b"\x07" + vints(16) + b"\3" + vints(70, 100, 2) + b"no",
        0,
        {"type": 7, "flags": 3, "a": 70, "b": 100, "data": b"no"},
    ),
    (b"\x08" + vints(16, 2**30, 7), 0, {"type": 8, "stream": 16, "a": 2**30, "b": 7}),
    (b"\x09" + vints(512), 0, {"type": 9, "a": 512}),
    (b"\x0a12345678", 0, {"type": 10, "data": b"12345678"}),
    (b"\x0b12345678", 0, {"type": 11, "data": b"12345678"}),
    (b"\x0c" + vints(2, 3) + b"\1" + vints(9), 0, {"type": 12, "a": 2, "b": 3, "flags": 1, "c": 9}),
    (b"\x0d" + vints(2, 13), 0, {"type": 13, "a": 2, "b": 13}),
    (
        b"\x0e" + vints(2, 3, 1) + b"c" * 8 + b"t" * 16,
        0,
        {"type": 14, "a": 2, "b": 3, "c": 1, "data": b"c" * 8 + b"t" * 16},
    ),
    (b"\x0f" + vints(2, 3), 0, {"type": 15, "a": 2, "b": 3}),
    (b"\x10" + vints(5, 2, 3) + b"one" + vints(0), 0, {"type": 16, "a": 5, "b": 2}),
    (b"\x11" + vints(2, 3, 4) + b"addr", 0, {"type": 17, "a": 2, "b": 3, "data": b"addr"}),
    (b"\x12\x01" + vints(3) + b"m" * 32, 0, {"type": 18, "flags": 1, "a": 3, "data": b"m" * 32}),
    (b"\x12\x02" + vints(3, 8), 0, {"type": 18, "flags": 2, "a": 3, "b": 8}),
    (b"\x13" + vints(8) + b"\2" + vints(3) + b"abc", 0, {"type": 19, "a": 8, "flags": 2, "data": b"abc"}),
    (b"\x14" + vints(2) + b"l" * 32, 0, {"type": 20, "a": 2, "data": b"l" * 32}),
    (b"\x15" + vints(600, 3) + b"tkt", 0, {"type": 21, "a": 600, "data": b"tkt"}),
    (b"\x16" + vints(1500), 0, {"type": 22, "a": 1500}),
    (b"\x17\x01\x02" + vints(3) + b"bye", 0, {"type": 23, "a": 258, "data": b"bye", "eliciting": 0}),
    (b"\x18" + vints(16, 500, 5), 0, {"type": 24, "stream": 16, "a": 500, "b": 5}),
    (b"\x20" + vints(77) + b"xyz", 16, {"type": 0x20, "stream": 16, "a": 77, "flags": 0, "data": b"xyz"}),
    (b"\x21" + vints(77), 16, {"type": 0x20, "a": 77, "flags": 1, "data": b""}),
    (b"\x27" + vints(77, 6, 3) + b"xyz", 16, {"type": 0x20, "a": 77, "b": 6, "flags": 7, "data": b"xyz"}),
    (b"\x28" + vints(5, 2) + b"\1" + vints(100, 30), 16, {"type": 0x28, "a": 5, "b": 2, "c": 100, "d": 30, "flags": 1}),
    (
        b"\x29" + vints(0, 100, 3, 2, 1, 3) + b"sym",
        16,
        {"type": 0x29, "b": 100, "c": 3, "d": 2, "n": 1, "data": b"sym"},
    ),
    (b"\x2a" + vints(3) + b"dgm", 16, {"type": 0x2A, "data": b"dgm"}),
    (
        b"\x37" + vints(20, 77, 6, 3) + b"xyz",
        TRUNK,
        {"type": 0x30, "stream": 20, "a": 77, "b": 6, "flags": 7, "data": b"xyz"},
    ),
    (vints(64, 3) + b"ext", 0, {"type": 64, "data": b"ext"}),
    (vints(TOP - 1, 3) + b"ext", 16, {"type": TOP - 1, "data": b"ext"}),
]
IDS = [f"{data[0]:02x}-{i}" for i, (data, _, _) in enumerate(LAYOUTS)]


class TestLayouts:
    @pytest.mark.parametrize(("data", "tag", "want"), LAYOUTS, ids=IDS)
    def test_layout_of_the_table_reads_into_its_fields(self, data: bytes, tag: int, want: dict[str, Any]) -> None:
        got = one(data, tag)
        assert {k: got[k] for k in want} == want

    @pytest.mark.parametrize(("data", "tag", "want"), LAYOUTS, ids=IDS)
    def test_every_cut_is_truncated_or_a_shorter_payload(self, data: bytes, tag: int, want: dict[str, Any]) -> None:
        """Only DATA without LEN has a shorter form: its bytes run to the end of the record."""
        for cut in range(1, len(data)):
            frames, rc = st.parse(data[:cut], tag)
            if data[0] in (0x20, 0x21) and cut >= len(data) - len(want["data"]):
                assert rc == EAGAIN and len(frames) == 1
            else:
                assert (frames, rc) == ([], ETRUNC), cut

    @pytest.mark.parametrize(("data", "tag", "want"), LAYOUTS, ids=IDS)
    def test_next_frame_starts_right_behind(self, data: bytes, tag: int, want: dict[str, Any]) -> None:
        frames, rc = st.parse(data + b"\x00", tag)
        if data[0] in (0x20, 0x21):
            assert frames[0]["data"] == want["data"] + b"\x00" and len(frames) == 1
        else:
            assert [f["type"] for f in frames] == [want["type"], 0]
        assert rc == EAGAIN

    def test_longer_varint_forms_are_accepted(self) -> None:
        assert one(vint(9, 8) + vint(5, 8))["a"] == 5
        assert one(vint(0x20, 4) + vint(1, 2) + b"z", 16)["data"] == b"z"

    def test_ranges_of_pos_are_walked_to_their_end(self) -> None:
        body = b"".join(vints(i, i * 1000) for i in range(32))
        got = one(b"\x03" + vints(16, 1, 1, 1, 1, 32) + body)
        assert st.ranges(got["data"]) == [(i, i * 1000) for i in range(32)]


WRITERS: list[tuple[str, tuple[Any, ...], int, dict[str, Any]]] = [
    ("ack", (3, TOP, 9, 8), 0, {"type": 2, "a": 3, "b": TOP, "c": 9, "d": 8, "n": 0}),
    ("pos", (TOP, 1, 2, 3, 4), 0, {"type": 3, "stream": TOP, "a": 1, "b": 2, "c": 3, "d": 4, "n": 0}),
    ("ask", (16, 1, 2), 0, {"type": 24, "stream": 16, "a": 1, "b": 2}),
    (
        "abort",
        (16, 2, 7, 1000, b"r" * 256),
        0,
        {"type": 7, "stream": 16, "flags": 2, "a": 7, "b": 1000, "data": b"r" * 256},
    ),
    ("stop", (16, TOP, 5), 0, {"type": 8, "stream": 16, "a": TOP, "b": 5}),
    ("max_streams", (70000,), 0, {"type": 9, "a": 70000}),
    ("ping", (), 0, {"type": 1}),
    ("rekey", (1, 5, 0, b"k" * 32), 0, {"type": 18, "flags": 1, "a": 5, "data": b"k" * 32}),
    ("rekey", (2, 5, 6, b""), 0, {"type": 18, "flags": 2, "a": 5, "b": 6}),
    ("ratchet", (6, 1, b"n" * 1024), 0, {"type": 19, "a": 6, "flags": 1, "data": b"n" * 1024}),
    ("ticket", (TOP, b"t" * 1024), 0, {"type": 21, "a": TOP, "data": b"t" * 1024}),
    ("session_close", (65535, b"why"), 0, {"type": 23, "a": 65535, "data": b"why"}),
    ("extension", (1000, b"x" * 70), 0, {"type": 1000, "data": b"x" * 70}),
    ("data", (100, 1, 1, 9, 0), 16, {"type": 0x20, "a": 100, "b": 9, "flags": 7}),
    ("data", (TOP, 0, 0, 0, -1), 16, {"type": 0x20, "a": TOP, "flags": 0}),
]


class TestWriters:
    @pytest.mark.parametrize(
        ("name", "args", "tag", "want"), WRITERS, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRITERS)]
    )
    def test_what_is_written_reads_back(self, name: str, args: tuple[Any, ...], tag: int, want: dict[str, Any]) -> None:
        got = one(st.put(name, *args), tag)
        assert {k: got[k] for k in want} == want

    @pytest.mark.parametrize(
        ("name", "args", "tag", "want"), WRITERS, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRITERS)]
    )
    def test_too_little_room_writes_nothing(
        self, name: str, args: tuple[Any, ...], tag: int, want: dict[str, Any]
    ) -> None:
        size = len(st.put(name, *args))
        assert {st.put(name, *args, room=room) for room in range(size)} == {ESPACE}
        assert len(st.put(name, *args, room=size)) == size

    def test_value_above_the_largest_varint_is_our_mistake(self) -> None:
        assert st.put("stop", 16, 2**62, 0) == EINVAL
        assert st.put("pos", 16, 1, 2, 2**64 - 1, 3) == EINVAL
        assert st.put("data", 2**63, 0, 0, 0, -1) == EINVAL


BIG = (2**31, 2**32, 2**61, TOP)


class TestBounds:
    @pytest.mark.parametrize(
        ("make", "most"),
        [
            (lambda n: b"\x07" + vints(16) + b"\0" + vints(1, 1) + n, 256),
            (lambda n: b"\x17\0\0" + n, 256),
            (lambda n: b"\x13" + vints(1) + b"\0" + n, 1024),
            (lambda n: b"\x15" + vints(1) + n, 1024),
            (lambda n: b"\x11" + vints(1, 1) + n, 255),
            (lambda n: b"\x10" + vints(1, 1) + n, 255),
        ],
        ids=["abort", "close", "ratchet", "ticket", "observed", "addresses"],
    )
    def test_length_field_up_to_its_limit_and_not_beyond(self, make: Callable[[bytes], bytes], most: int) -> None:
        for n in (0, 1, most):
            one(make(vint(n)) + b"z" * n)
            if n:
                assert refused(make(vint(n)) + b"z" * (n - 1)) == ETRUNC
        for n in (most + 1, *BIG):
            assert refused(make(vint(n)) + b"z" * (most + 1)) == EFRAME

    @pytest.mark.parametrize("n", [2**31, 2**32, 2**61, TOP])
    def test_length_of_data_beyond_the_record_is_truncated(self, n: int) -> None:
        assert refused(b"\x24" + vints(0, n) + b"abc", 16) == ETRUNC
        assert refused(b"\x2a" + vints(n) + b"abc", 16) in (ETRUNC, EFRAME)
        assert refused(vints(64, n) + b"abc") == EFRAME

    def test_data_reaches_the_last_offset_and_not_beyond(self) -> None:
        assert one(b"\x20" + vints(TOP - 3) + b"abc", 16)["a"] == TOP - 3
        assert refused(b"\x20" + vints(TOP - 2) + b"abc", 16) == EFRAME
        assert refused(b"\x20" + vints(TOP) + b"a", 16) == EFRAME

    @pytest.mark.parametrize(
        ("most", "head", "each"), [(64, b"\x02\0\0" + vints(TOP, 0), 2), (32, b"\x03" + vints(16, 1, 1, 1, 1), 2)]
    )
    def test_count_of_ranges_is_bounded(self, most: int, head: bytes, each: int) -> None:
        first = vints(0) if head[0] == 2 else b""
        for n in (0, 1, most):
            assert one(head + vint(n) + first + b"\0" * (each * n))["n"] == n
        for n in (most + 1, *BIG):
            assert refused(head + vint(n) + first + b"\0" * (2 * most + 2)) == EFRAME

    def test_counts_of_lists_are_bounded(self) -> None:
        assert one(b"\x10" + vints(1, 16) + b"\0" * 16)["b"] == 16
        assert one(b"\x14" + vints(8) + b"l" * 128)["a"] == 8
        for n in (17, *BIG):
            assert refused(b"\x10" + vints(1, n) + b"\0" * 20) == EFRAME
        for n in (9, *BIG):
            assert refused(b"\x14" + vints(n) + b"l" * 160) == EFRAME

    def test_fields_with_few_values_refuse_others(self) -> None:
        assert refused(b"\x02\0\4" + vints(1, 1, 0, 1)) == EFRAME  # flags of ACK
        assert refused(b"\x02" + vints(2**32) + b"\0" + vints(1, 1, 0, 1)) == EFRAME  # path is a u32
        assert refused(b"\x02\0\0" + vints(1, 1, 0, 2)) == EFRAME  # first beyond largest
        assert refused(b"\x07" + vints(16) + b"\4" + vints(1, 1, 0)) == EFRAME  # flags of ABORT
        assert refused(b"\x06" + vints(16, 5) + b"\2") == EFRAME  # outcome of WITHDRAWN
        assert refused(b"\x0c" + vints(1, 1) + b"\2" + vints(1)) == EFRAME  # status
        assert refused(b"\x12\0" + vints(1, 1)) == EFRAME  # kind of REKEY
        assert refused(b"\x12\3" + vints(1, 1)) == EFRAME
        assert refused(b"\x13" + vints(1) + b"\3" + vints(0)) == EFRAME  # step
        assert refused(b"\x29" + vints(0, 10, 0, 1, 0, 0), 16) == EFRAME  # parity over nothing
        assert refused(b"\x29" + vints(0, 10, 4, 2, 2, 0), 16) == EFRAME  # symbol 2 of 2
        assert refused(b"\x29" + vints(0, 0, 4, 2, 0, 0), 16) == EFRAME  # symbols of no bytes
        assert refused(b"\x29" + vints(0, 16_385, 4, 2, 0, 0), 16) == EFRAME  # and of too many
        assert refused(b"\x29" + vints(0, 10, 301, 2, 0, 0), 16) == EFRAME  # 31 symbols and 2
        assert refused(b"\x29" + vints(0, 10, 2**61, 2, 0, 0), 16) == EFRAME
        assert refused(b"\x29" + vints(0, 10, 10, 2**61, 0, 0), 16) == EFRAME
        assert refused(b"\x29" + vints(2**62 - 5, 10, 10, 2, 0, 0), 16) == EFRAME  # beyond all offsets
        assert refused(b"\x29" + vints(0, 10, 4, 2, 0, 3) + b"sym", 16) == EFRAME  # shorter than its group
        assert refused(b"\x29" + vints(0, 2, 9, 2, 0, 3) + b"sym", 16) == EFRAME  # longer than a symbol
        for reason in (0, 4, 255):
            assert refused(b"\x28" + vints(1, 1) + bytes([reason]) + vints(1, 1), 16) == EFRAME  # reason of SKIP
        assert refused(b"\x30" + vints(15, 0) + b"a", TRUNK) == EFRAME  # a trunk frame names a stream


class TestPlaces:
    """wire.md §2, §5: which frame may stand in a record of which tag."""

    @pytest.mark.parametrize(("data", "tag", "want"), LAYOUTS, ids=IDS)
    def test_frame_in_a_record_of_another_tag_is_refused(self, data: bytes, tag: int, want: dict[str, Any]) -> None:
        kind = want["type"]
        for other in (CONTROL, TRUNK, STREAM):
            anywhere = kind in (0, 2, 3) or kind >= 64
            own = (kind >= 0x20) if other != CONTROL else (kind < 0x20)
            fits = anywhere or (own and (other == CONTROL or (other == TRUNK) == (kind == 0x30)))
            if fits:
                one(data, other)
            else:
                assert refused(data, other) == EFRAME, other

    @pytest.mark.parametrize("kind", [*range(0x19, 0x20), *range(0x2B, 0x30), *range(0x38, 0x40)])
    def test_free_types_are_refused_everywhere(self, kind: int) -> None:
        for tag in (CONTROL, TRUNK, STREAM):
            assert refused(bytes([kind]) + b"\0" * 40, tag) == EFRAME
            assert refused(vint(kind, 8) + b"\0" * 40, tag) == EFRAME


class TestGrowth:
    """wire.md §9."""

    @pytest.mark.parametrize("kind", [64, 66, 1 << 20, TOP - 1])
    def test_unknown_even_type_is_skipped(self, kind: int) -> None:
        frames, rc = st.parse(vints(kind, 5) + b"?????" + b"\x01", CONTROL)
        assert rc == EAGAIN and [f["type"] for f in frames] == [kind, 1]

    @pytest.mark.parametrize("kind", [65, 67, (1 << 20) + 1, TOP])
    def test_unknown_odd_type_refuses_as_unsupported(self, kind: int) -> None:
        assert refused(vints(kind, 5) + b"?????") == EUNKNOWN
        assert refused(vints(kind, 5) + b"????") == ETRUNC


class TestMessageHead:
    def test_head_gives_length_and_ext_bit(self) -> None:
        assert st.head_of(vint(10)) == (1, 5, False)
        assert st.head_of(vint(11)) == (1, 5, True)
        assert st.head_of(vint(TOP)) == (8, TOP >> 1, True)

    def test_cut_head_asks_for_more(self) -> None:
        for v in (64, 2**14, 2**30, TOP):
            data = vint(v)
            assert {st.head_of(data[:n]) for n in range(len(data))} == {EAGAIN}


class TestNames:
    """wire.md §6.3: UTF-8 of 1-255 bytes without control characters."""

    @pytest.mark.parametrize("name", ["a", "a" * 255, "ä€𐍈", "with space", "\u00a0", "\ud7ff", "\ue000", "\U0010ffff"])
    def test_name_is_accepted(self, name: str) -> None:
        assert st.name_valid(name.encode())

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"a" * 256,
            b"\0",
            b"a\n",
            b"\x1f",
            b"\x7f",
            b"\xc2\x80",
            b"\xc2\x9f",
            b"\xff",
            b"\x80",
            b"\xc0\x80",
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"a\xc3",
            b"a\xe2\x82",
            b"a\xf0\x90\x8d",
            b"\xc3(",
            b"\xe2(\xa1",
            b"\xe2\x82(",
            b"\xf0(\x8c\xbc",
            b"\xf0\x90(\xbc",
            b"\xf0\x90\x8c(",
        ],
    )
    def test_name_is_refused(self, raw: bytes) -> None:
        assert not st.name_valid(raw)

    def test_verdict_agrees_with_python_on_all_short_strings(self) -> None:
        for lead in range(256):
            for tail in (
                b"",
                b"\x80",
                b"\xbf",
                b"\xa0\x80",
                b"\x80\x80",
                b"\x90\x80\x80",
                b"\x80\x80\x80",
                b"\xbf\xbf\xbf",
                b"a",
            ):
                raw = bytes([lead]) + tail
                try:
                    text = raw.decode()
                    want = all(ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 for c in text)
                except UnicodeDecodeError:
                    want = False
                assert st.name_valid(raw) == want, raw
