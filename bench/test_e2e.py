"""Tests of the benchmark itself: a row must be void when a message is lost, and the report must not flatter.

Not part of the default test run: ``pytest bench/test_e2e.py``. Real processes over loopback in the last class.
"""

from __future__ import annotations

from collections import deque
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from bench.e2e import peers, report
from bench.e2e.contract import Link, Miscount
from bench.e2e.peers import framing
from bench.e2e.runner import Bench, Row, RunFailed
from bench.e2e.values import Expected, Head, batch_msgs, batches, ring, values, wants

MACHINE = {"cpu": "c", "cpus": 2, "kernel": "k", "python": "p", "provider": "x", "versions": {}}
SIZES = (64, 1024, 65536, 1 << 20)


class Scripted(Link):
    """A link that receives what it was given."""

    def __init__(self, todo: list[bytes]) -> None:
        self._todo = deque(todo)
        self.recv = self._todo.popleft

    def recv_batch(self) -> list[bytes]:
        return [self._todo.popleft() for _ in range(min(10, len(self._todo)))]


class TestCounting:
    @pytest.mark.parametrize("size", SIZES)
    def test_ring_any_size_holds_distinct_messages_in_whole_batches(self, size: int) -> None:
        once = ring(size)
        assert {len(value) for value in once} == {size}
        assert len(set(once)) == len(once)
        assert len(once) % batch_msgs(size) == 0

    @pytest.mark.parametrize("size", SIZES)
    def test_receiver_sequence_as_sent_accepts(self, size: int) -> None:
        n = 3 * batch_msgs(size)
        sent = [value for batch in batches(size, n) for value in batch]
        assert sent == list(values(size, n))
        Scripted(sent).recv_each(wants(size, n))
        Scripted(sent).recv_batches(Expected(size), n)

    @pytest.mark.parametrize("size", [64, 65536])
    @pytest.mark.parametrize("fault", ["lost", "doubled", "swapped", "short"])
    def test_receiver_sequence_with_fault_voids(self, size: int, fault: str) -> None:
        sent = list(values(size, 40))
        if fault == "lost":
            del sent[17]
        elif fault == "doubled":
            sent.insert(17, sent[17])
        elif fault == "swapped":
            sent[17], sent[18] = sent[18], sent[17]
        else:
            sent[17] = sent[17][:-1]
        with pytest.raises(Miscount):
            Scripted(sent).recv_each(wants(size, 39))
        with pytest.raises(Miscount):
            Scripted(sent).recv_batches(Expected(size), 39)

    def test_expected_more_than_a_turn_goes_round(self) -> None:
        expected = Expected(64)
        want = list(islice(cycle(ring(64)), 5000))
        assert expected.take(3) + expected.take(4000) + expected.take(997) == want

    def test_head_other_buffer_kinds_compares_length_and_beginning(self) -> None:
        value = ring(65536)[3]
        assert memoryview(value) == Head(value)
        assert bytearray(value) == Head(value)
        assert value + b"x" != Head(value)


class TestFraming:
    def test_split_any_cut_gives_what_was_joined(self) -> None:
        sent = [b"", b"a", b"bc" * 300, b"def"]
        stream = framing.join(sent)
        for cut in range(len(stream) + 1):
            first, rest = framing.split(stream[:cut])
            assert framing.lacking(rest) > 0
            second, rest = framing.split(rest + stream[cut:])
            assert first + second == sent
            assert rest == b""


class TestReport:
    def _row(self, peer: str, median: float, **more: Any) -> dict[str, Any]:
        row = {"id": f"w1/64/one/blocking/{peer}", "workload": "w1", "size": 64, "style": "one", "front": "blocking"}
        row |= {"peer": peer, "encrypted": True, "unit": "msg/s", "more_is_better": True, "spread": 0.0, "runs": []}
        return row | {"median": median, "min": median, "max": median, "warnings": [], "failed": []} | more

    def _result(self, *rows: dict[str, Any], **machine: Any) -> report.Result:
        return {"rows": list(rows), "machine": MACHINE | machine, "options": {"pin": "free"}, "commit": "0", "when": ""}

    def test_ratio_plaintext_peer_is_faster_takes_best_encrypted(self) -> None:
        rows = [self._row("zmq", 9.0, encrypted=False), self._row("netchan", 6.0), self._row("tls", 3.0)]
        assert report.ratio(rows, lambda row: True) == "blocking: 2.00 x tls (blocking)"

    def test_compare_latency_rows_counts_less_as_better(self) -> None:
        fields = {"workload": "w2", "more_is_better": False, "unit": "us"}
        now, base = self._result(self._row("a", 5.0, **fields)), self._result(self._row("a", 10.0, **fields))
        text, allowed = report.compare(now, base)
        assert allowed
        assert text.endswith("2.00 x")

    def test_compare_other_machine_refuses(self) -> None:
        text, allowed = report.compare(self._result(self._row("a", 1.0)), self._result(self._row("a", 1.0), cpu="d"))
        assert not allowed
        assert text.startswith("not compared")


class TestProcesses:
    def test_run_over_sockets_counts_at_the_receiver(self, tmp_path: Path) -> None:
        with Bench(Row("w1", 64, "batch", "blocking", "tcp"), tmp_path, "free") as bench:
            run = bench.measure(0.02)
        assert run.n >= 64
        assert run.n % 64 == 0
        assert run.value == pytest.approx(run.n / run.wall_s)

    def test_run_child_dies_raises_and_leaves_no_process(self, tmp_path: Path) -> None:
        with pytest.raises(RunFailed), Bench(Row("w2", 64, "one", "asyncio", "tls"), tmp_path, "free") as bench:
            children = [bench._sender._process, bench._receiver._process]
            bench.measure(0.02)  # no certificate was written, so no side can be made
        assert [child.poll() is not None for child in children] == [True, True]

    def test_peers_every_name_is_that_peer(self) -> None:
        for name in peers.NAMES:
            assert peers.find(name).name == name
