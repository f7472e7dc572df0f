"""The table of sessions that are over and forgotten (net/departed.py) beside a plain one."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from netchan.net.departed import DEPARTED_MAX, ROW_MAX, ROWS, Departed


def test_each_row_keeps_its_newest() -> None:
    rng = random.Random(5)
    table = Departed()
    rows: dict[int, list[tuple[bytes, bytes]]] = {}
    for _ in range(3 * DEPARTED_MAX):
        name, proof = rng.randbytes(16), rng.randbytes(32)
        table.add(name, proof)
        row = rows.setdefault(int.from_bytes(name[:2], "big") % ROWS, [])
        row.append((name, proof))
        del row[:-ROW_MAX]
    assert len(table) == sum(map(len, rows.values())) <= DEPARTED_MAX
    for row in rows.values():
        for name, proof in row:
            assert table.get(name) == proof and name in table
    assert rng.randbytes(16) not in table and table.get(b"") is None
    table.clear()
    assert not len(table)


def test_what_is_said_twice_of_a_name_counts_last() -> None:
    table = Departed()
    for proof in (b"a" * 32, b"b" * 32):
        table.add(b"n" * 16, proof)
    assert table.get(b"n" * 16) == b"b" * 32


@pytest.mark.parametrize(("name", "proof"), [(b"n" * 15, b"p" * 32), (b"n" * 16, b"p" * 31)])
def test_wrong_lengths_are_refused(name: bytes, proof: bytes) -> None:
    with pytest.raises(ValueError, match="locator has 16 bytes"):
        Departed().add(name, proof)


def test_full_table_takes_less_than_768_kib() -> None:
    rng = random.Random(6)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = Departed()
        for _ in range(3 * DEPARTED_MAX):
            table.add(rng.randbytes(16), rng.randbytes(32))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    print(f"\n  {len(table)} names, {grown / 1024:.0f} KiB")
    assert len(table) > 0.9 * DEPARTED_MAX
    assert grown < 768 * 1024
