"""The lowest rungs of the core against simple oracles: a dict, a set, a deque do the same thing slowly."""

import itertools
from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netchan._core import _selftest as core
from netchan._core import _selftest_mem as mem

OK, EAGAIN, EINVAL, ELIMIT, ETRUNC, ESPACE, EREPLAY = (
    core.RC[k] for k in ("OK", "EAGAIN", "EINVAL", "ELIMIT", "ETRUNC", "ESPACE", "EREPLAY")
)
U64 = 2**64 - 1
VMAX = core.VARINT_MAX
END = core.RANGES_END
NEVER = core.TIMER_NEVER
LAST = core.REPLAY_LAST

edges = st.sampled_from(
    [e + d for e in (0, 2**6, 2**14, 2**30, 2**32, 2**62, 2**63) for d in (-1, 0, 1) if e + d >= 0] + [U64]
)
u64 = st.one_of(edges, st.integers(0, U64), st.integers(0, 300))
quick = settings(max_examples=150, deadline=None)


class TestCursor:
    @quick
    @given(st.lists(u64, max_size=30))
    def test_varints_written_then_read_are_the_same(self, values: list[int]) -> None:
        writer = core.Writer(8 * len(values))
        kept = []
        for v in values:
            rc = writer.varint(v)
            assert rc == (OK if v <= VMAX else EINVAL)
            if rc == OK:
                kept.append(v)
        data = writer.bytes()
        assert len(data) == sum(core.varint_len(v) for v in kept)
        reader = core.Reader(data)
        assert [reader.varint() for _ in kept] == [(OK, v) for v in kept]
        assert reader.varint() == (ETRUNC, 0)

    @quick
    @given(st.binary(max_size=64))
    def test_any_bytes_read_as_varints_write_back_to_themselves(self, data: bytes) -> None:
        reader = core.Reader(data)
        out = b""
        while True:
            at = reader.pos
            rc, v = reader.varint()
            if rc != OK:
                break
            assert 0 <= v <= VMAX
            out += core.varint_write_n(v, reader.pos - at)
        assert rc == ETRUNC
        assert out == data[:at]
        assert at == reader.pos
        assert at == len(data) or 1 << (data[at] >> 6) > len(data) - at

    steps = st.one_of(
        st.tuples(st.just("u8"), st.integers(0, 2**8 - 1)),
        st.tuples(st.just("u16"), st.integers(0, 2**16 - 1)),
        st.tuples(st.just("u32"), st.integers(0, 2**32 - 1)),
        st.tuples(st.just("u64"), u64),
        st.tuples(st.just("varint"), st.one_of(edges, st.integers(0, VMAX)).filter(lambda v: v <= VMAX)),
        st.tuples(st.just("put"), st.binary(max_size=20)),
        st.tuples(st.just("vput"), st.binary(max_size=70)),
    )

    @quick
    @given(st.lists(steps, max_size=20), st.integers(0, 300), st.integers(0, 300))
    def test_fields_written_into_any_room_read_back_up_to_any_cut(
        self, program: list[tuple[str, int | bytes]], cap: int, cut: int
    ) -> None:
        writer = core.Writer(cap)
        want = b""
        done = []
        for name, v in program:
            if isinstance(v, bytes):
                piece = (core.varint_write(len(v)) if name == "vput" else b"") + v
            else:
                piece = core.varint_write(v) if name == "varint" else v.to_bytes(int(name[1:]) // 8, "big")
            fits = len(want) + len(piece) <= cap
            assert getattr(writer, name)(v) == (OK if fits else ESPACE)
            if fits:
                want += piece
                done.append((name, v, len(piece)))
        assert writer.bytes() == want
        reader = core.Reader(want[:cut])
        for name, v, size in done:
            at = reader.pos
            if name == "put":
                got = reader.take(size)
            else:
                got = reader.vtake(70) if name == "vput" else getattr(reader, name)()
            if at + size > cut:
                assert got[0] == ETRUNC
                assert reader.pos == at
                break
            assert got == (OK, v)
            assert reader.pos == at + size


class TestRanges:
    ops = st.lists(
        st.tuples(st.sampled_from(["add", "add", "add", "remove", "below"]), st.integers(0, 60), st.integers(0, 60)),
        max_size=60,
    )

    @settings(max_examples=300, deadline=None)
    @given(ops, st.sampled_from([0, END - 60]), st.sampled_from([1, 3, core.RANGES_MAX]))
    def test_any_steps_leave_what_a_set_would_hold(
        self, ops: list[tuple[str, int, int]], base: int, bound: int
    ) -> None:
        r = core.Ranges(bound)
        model: set[int] = set()
        for op, x, y in ops:
            after, rc = set(model), None
            if op == "below":
                after = {v for v in model if v >= x}
                assert r.remove_below(base + x) == len(model) - len(after)
            elif x > y:
                assert getattr(r, op)(base + x, base + y) == EINVAL
            else:
                after = model | set(range(x, y)) if op == "add" else model - set(range(x, y))
                rc = getattr(r, op)(base + x, base + y)
                if sum(v + 1 not in after for v in after) > bound:
                    assert rc == ELIMIT
                    after = model
                else:
                    assert rc == abs(len(after) - len(model))
            model = after
            pairs = r.list()
            assert {v - base for lo, hi in pairs for v in range(lo, hi)} == model
            assert all(a[1] < b[0] for a, b in itertools.pairwise(pairs))
            assert r.total == len(model)
            assert r.first_gap(base + x) == base + next(v for v in range(x, 62) if v not in model)
            assert r.contains(base + x) == (x in model)
            assert r.covered(base + x, base + y) == (set(range(x, y)) <= model)

    @quick
    @given(st.lists(st.tuples(u64, u64), max_size=20))
    def test_any_numbers_at_all_are_taken_or_refused_whole(self, pairs: list[tuple[int, int]]) -> None:
        r = core.Ranges()
        total = 0
        for lo, hi in pairs:
            rc = r.add(lo, hi)
            assert rc == EINVAL if lo > hi or hi > END else 0 <= rc <= hi - lo
            total += max(rc, 0)
            assert r.total == total == sum(b - a for a, b in r.list())
            if rc >= 0:
                assert r.covered(lo, hi) == 1


class TestTimer:
    times = st.one_of(st.integers(-5, 30), st.sampled_from([-(2**63), 2**63 - 2, NEVER]))

    @quick
    @given(st.lists(st.tuples(st.sampled_from(["set", "pop"]), st.integers(0, 9), times), max_size=60), st.booleans())
    def test_tables_give_what_a_dict_would_give(self, ops: list[tuple[str, int, int]], heap: bool) -> None:
        t = core.Theap(8) if heap else core.Timers()
        model: dict[int, int] = {}
        for op, i, at in ops:
            if op == "set":
                assert t.set(i, at) == (OK if i < 8 else EINVAL)
                if i < 8:
                    model.pop(i, None)
                    if at != NEVER:
                        model[i] = at
            else:
                got = t.pop_due(at)
                due = [k for k, v in model.items() if v <= at]
                if not due:
                    assert got == EAGAIN
                else:
                    assert got in due
                    assert model[got] == min(model.values())
                    if not heap:
                        assert got == min(k for k in due if model[k] == model[got])
                    del model[got]
            assert t.next() == min(model.values(), default=NEVER)
            assert [t.at(k) for k in range(9)] == [model.get(k, NEVER) for k in range(9)]


class TestReplay:
    ops = st.lists(
        st.one_of(
            st.tuples(st.just("near"), st.integers(-300, 300)),
            st.tuples(st.just("far"), u64),
            st.tuples(st.just("grow"), st.sampled_from([64, 128, 256])),
            st.tuples(st.just("forged"), u64),
        ),
        max_size=80,
    )

    @settings(max_examples=300, deadline=None)
    @given(ops)
    @example([("far", LAST - 1), ("near", -1), ("near", 0), ("far", LAST), ("near", -63), ("near", -64)])
    @example([("far", 0), ("far", 64), ("grow", 256), ("far", 0), ("far", 1)])
    def test_no_number_twice_and_none_refused_inside_the_window(self, ops: list[tuple[str, int]]) -> None:
        w = core.Replay(64)
        seen: set[int] = set()
        top, floor, bits = 0, 0, 64
        for op, x in ops:
            if op == "grow":
                assert w.grow(x) == OK
                bits = max(bits, x)
                continue
            n = min(max(top + x, 0), U64) if op == "near" else x
            fresh = n < LAST and n >= floor and n not in seen
            assert w.check(n) == fresh
            assert w.next == top
            if op == "forged":
                continue
            assert w.commit(n) == (OK if fresh else EREPLAY)
            if fresh:
                seen.add(n)
                top = max(top, n + 1)
                floor = max(floor, top - bits)
            assert w.next == top


class TestPool:
    ops = st.lists(
        st.tuples(
            st.sampled_from(["get", "get", "ref", "put", "put", "trim"]), st.integers(0, 11), st.integers(0, 70000)
        ),
        max_size=60,
    )

    @quick
    @given(ops, st.integers(1, 300_000), st.integers(0, 200_000))
    def test_bytes_stay_bounded_and_every_block_comes_back(
        self, ops: list[tuple[str, int, int]], max_bytes: int, cache_bytes: int
    ) -> None:
        extra = mem.POOL_BLOCK_HEAD + mem.POOL_HEADROOM + mem.POOL_TAILROOM
        sizes = [1024, 4096, 16384, 65536]
        p = mem.Pool(max_bytes, cache_bytes, 12)
        held: dict[int, tuple[int, bytes]] = {}  # slot -> (class, mark)
        marks: dict[bytes, int] = {}  # mark -> holders
        serial = 0
        for op, i, x in ops:
            if op == "get" and i not in held:
                cls = next((k for k, s in enumerate(sizes) if s >= x), None)
                classes = {mark: c for c, mark in held.values()}
                in_use = sum(sizes[c] + extra for c in classes.values())
                possible = cls is not None and in_use + sizes[cls] + extra <= max_bytes
                assert p.get(i, x) == possible
                if possible:
                    assert cls is not None
                    serial += 1
                    mark = serial.to_bytes(4, "big")
                    assert p.push_tail(i, mark) == 1
                    held[i] = (cls, mark)
                    marks[mark] = 1
            elif op == "ref" and held and i not in held:
                src = min(held)
                p.ref(src, i)
                held[i] = held[src]
                marks[held[i][1]] += 1
            elif op == "put":
                assert p.put(i)
                if i in held:
                    marks[held.pop(i)[1]] -= 1
            elif op == "trim":
                p.trim()
                assert p.stats()["cached"] == [0, 0, 0, 0]
            stats = p.stats()
            live = {mark: c for c, mark in held.values()}
            assert stats["used"] == [sum(c == k for c in live.values()) for k in range(4)]
            assert stats["bytes"] <= max_bytes
            assert stats["bytes"] == sum((stats["used"][k] + stats["cached"][k]) * (sizes[k] + extra) for k in range(4))
            assert all(stats["cached"][k] * (sizes[k] + extra) <= cache_bytes for k in range(4))
            for slot, (_, mark) in held.items():
                assert p.data(slot) == mark
                assert p.info(slot)["refs"] == marks[mark]
        for slot in list(held):
            p.put(slot)
        assert p.close() == 0
        assert p.stats()["bytes"] == 0


class TestRing:
    @pytest.mark.parametrize("kind", [mem.Spsc, mem.Mpsc])
    @quick
    @given(ops=st.lists(st.one_of(st.none(), st.tuples(u64, u64)), max_size=100), slots=st.sampled_from([2, 4, 16]))
    def test_rings_do_what_a_bounded_deque_does(
        self, kind: type, ops: list[tuple[int, int] | None], slots: int
    ) -> None:
        r = kind(slots)
        model: deque[tuple[int, int]] = deque()
        for op in ops:
            if op is None:
                assert r.pop() == ((OK, *model.popleft()) if model else (EAGAIN, 0, 0))
            else:
                assert r.push(*op) == (OK if len(model) < slots else EAGAIN)
                if len(model) < slots:
                    model.append(op)
            assert len(r) == len(model)
