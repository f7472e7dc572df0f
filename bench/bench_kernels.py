"""Kernel suites for pytest-benchmark: the pieces that every value passes, each alone.

Run: ``python -m pytest bench/bench_kernels.py`` (group ``bench``; bench/README.md tells how to read this).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netchan import sync
from netchan._core import gf256, provider
from netchan.channel.codec import codec_for
from netchan.markers import EMPTY
from netchan.testing.pair import Side, joined

RECORD = {"id": 7, "name": "reading", "value": 21.5, "ok": True, "tags": ["a", "b"]}


@pytest.fixture(scope="module")
def sides() -> tuple[Side, Side]:
    return joined()


@pytest.mark.parametrize("size", [64, 1024, 16384])
def test_aead_speed_of_the_provider_in_use(benchmark: Any, size: int) -> None:
    import time

    name = provider.load().name
    speeds = benchmark.pedantic(provider.speed, (name, time.perf_counter_ns), rounds=3)
    benchmark.extra_info["GB/s"] = speeds[size]


def test_frames_of_a_record_are_read(benchmark: Any) -> None:
    from netchan._core import _selftest_session as core

    body = b"".join((core.put("pos", 16, 1000, 10, 74, 66_536), core.put("ping"), core.put("ack", 0, 99, 25, 99))) * 8

    def walk() -> int:
        return len(core.parse(body, 0)[0])

    assert benchmark(walk) == 24


@pytest.mark.parametrize("kind", ["Spsc", "Mpsc"])
def test_ring_passes_descriptors(benchmark: Any, kind: str) -> None:
    from netchan._core import _selftest_mem as mem

    ring = getattr(mem, kind)(1024)
    rounds = 100_000
    ns = benchmark.pedantic(ring.bench, (rounds,), rounds=5)
    benchmark.extra_info["ns a push and a pop"] = ns
    assert len(ring) == 0


@pytest.fixture(params=gf256.forms())
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    before = gf256.form()
    gf256.use(request.param)
    yield request.param
    gf256.use(before)


def least(benchmark: Any, nanoseconds: Callable[..., float], *arguments: Any) -> float:
    """The least of what eleven rounds give: everything else on the machine only adds to it."""
    seen: list[float] = []
    benchmark.pedantic(lambda: seen.append(nanoseconds(*arguments)), rounds=11)
    return min(seen)


@pytest.mark.parametrize("c", [1, 0x8E])
@pytest.mark.parametrize("size", [1100, 16384])
def test_bytes_times_a_constant_are_added(benchmark: Any, form: str, size: int, c: int) -> None:
    from netchan._core import _selftest_erasure as core

    ns = least(benchmark, core.bench_mul_add, size, c, 40_000_000 // size)
    benchmark.extra_info["GB/s"] = size / ns


@pytest.mark.parametrize(("k", "m"), [(4, 1), (4, 2), (8, 3)])
def test_parity_of_a_group_is_made(benchmark: Any, form: str, k: int, m: int) -> None:
    from netchan._core import _selftest_erasure as core

    size = 1100
    ns = least(benchmark, core.bench_add, k, m, size, size, 40_000_000 // (k * m * size))
    benchmark.extra_info["GB/s of data"] = k * size / ns


@pytest.mark.parametrize("e", [1, 3, 16])
def test_missing_symbols_are_solved(benchmark: Any, form: str, e: int) -> None:
    from netchan._core import _selftest_erasure as core

    ns = least(benchmark, core.bench_solve, e, 1100, 20_000 // (e * e))
    benchmark.extra_info["us a solution"] = ns / 1000


@pytest.mark.parametrize("kind", ["any", "int", "str", "bytes"])
def test_codec_round_trip(benchmark: Any, kind: str) -> None:
    form: Any = {"any": Any, "int": int, "str": str, "bytes": bytes}[kind]
    value: Any = {"any": RECORD, "int": 2**40, "str": "a short text", "bytes": os.urandom(64)}[kind]
    codec = codec_for(form)
    assert benchmark(lambda: codec.decode(codec.encode(value))) == value


@pytest.mark.parametrize("size", [64, 1024, 65536])
def test_endpoint_accepts_seals_opens_and_gives_a_batch(benchmark: Any, sides: tuple[Side, Side], size: int) -> None:
    a, b = sides
    tx, rx = a.open(f"batch {size}"), b.open(f"batch {size}")
    batch = [os.urandom(size)] * (512 if size < 65536 else 8)

    def turn() -> int:
        sent = got = 0
        values = iter(batch)
        while got < len(batch):
            n, _ = tx.try_send_many(values, len(batch) - sent)
            sent += n
            a.engine.flush()
            b.engine.pump()
            got += len(rx.try_recv_many(1024))
            b.engine.flush()
            a.engine.pump()
        return got

    assert benchmark(turn) == len(batch)
    tx.close_send()
    rx.close_send()


def test_ready_blocking_send_and_recv_in_process(benchmark: Any) -> None:
    ch = sync.channel(int, capacity=1)

    def turn() -> int:
        ch.send(1)
        return ch.recv()

    assert benchmark(turn) == 1


def test_endpoint_receive_without_a_value(benchmark: Any, sides: tuple[Side, Side]) -> None:
    rx = sides[1].open("empty")
    assert benchmark(rx.try_recv) is EMPTY
    rx.close_send()
