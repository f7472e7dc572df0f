"""Frozen answers of the erasure code, each form of the kernel against them (docs/spec/parity.md §1.4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from netchan._core import _selftest_erasure as core
from netchan._core import gf256
from tests.interop import make_parity_vectors as maker

FROZEN = json.loads(maker.FILE.read_text())
GROUPS: list[dict[str, Any]] = FROZEN["groups"]
each_group = pytest.mark.parametrize("group", GROUPS, ids=[f"{g['k']},{g['m']}" for g in GROUPS])


@pytest.fixture(params=gf256.forms())
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    before = gf256.form()
    gf256.use(request.param)
    yield request.param
    gf256.use(before)


def test_the_model_still_writes_this_file() -> None:
    assert maker.build() == maker.FILE.read_text()


def test_coefficients_are_the_frozen_ones() -> None:
    for j, row in enumerate(FROZEN["coefficients"]):
        assert bytes(core.coefficient(j, i) for i in range(len(row) // 2)).hex() == row


@each_group
def test_parity_symbols_are_the_frozen_ones(group: dict[str, Any], form: str) -> None:
    rows = [bytearray(group["symbol_bytes"]) for _ in range(group["m"])]
    assert core.add(rows, group["symbol_bytes"], 0, bytes.fromhex(group["data"])) == core.OK
    assert [row.hex() for row in rows] == group["parity"]


@each_group
def test_first_symbols_come_back_out_of_the_last_parity_symbols(group: dict[str, Any], form: str) -> None:
    k, m, size = group["k"], group["m"], group["symbol_bytes"]
    e = min(k, m)
    data = bytes.fromhex(group["data"]).ljust(k * size, b"\0")
    held = bytes(range(m - e, m))
    rows = [bytearray.fromhex(group["parity"][j]) for j in held]
    assert core.add(rows, size, e * size, data[e * size :], held) == core.OK
    assert core.solve(rows, core.invert(bytes(range(e)), held), 0, size) == core.OK
    assert b"".join(rows) == data[: e * size]
