"""Tests of the benchmark itself: a row must be void when a message is lost, and the report must not flatter.

Not part of the default test run: ``pytest bench/test_e2e.py``. Real processes over loopback in the last class.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from bench import udp
from bench.e2e import peers, report
from bench.e2e.__main__ import CELLS, arguments, choose
from bench.e2e.contract import ASYNCIO, CHANNELS, FAN, FANS, TURNS, Link, Miscount, Spec, in_threads
from bench.e2e.peer_netchan import SyncLink
from bench.e2e.peers import framing, quic
from bench.e2e.runner import Bench, Row, RunFailed
from bench.e2e.values import Expected, Head, Sources, batch_msgs, batches, ring, turns, values, wants
from bench.limits.udp import DATAGRAM_BYTES, OVERHEAD_BYTES, Program

MACHINE = {"cpu": "c", "cpus": 2, "kernel": "k", "python": "p", "provider": "x", "versions": {}}
SIZES = (64, 1024, 65536, 1 << 20)
QUIC = [name for name in quic.PEERS if peers.find(name).missing() is None]


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


class TestFan:
    EACH = 300  # more than a ring

    def _shares(self) -> list[list[bytes]]:
        return [list(values(1024, self.EACH, source)) for source in range(FAN)]

    def _read(self, shares: Sequence[list[bytes]]) -> None:
        sources = Sources(1024, self.EACH, FAN)
        for share in shares:
            Scripted(share).recv_each(sources.wants())

    def _read_mixed(self, shares: Sequence[list[bytes]]) -> None:
        mixed = [value for turn in zip(*shares, strict=True) for value in turn]
        Scripted(mixed).recv_mixed(Sources(1024, self.EACH, FAN).mixed(), len(mixed))

    def test_receivers_connections_in_any_order_accept(self) -> None:
        self._read(self._shares()[::-1])
        self._read_mixed(self._shares()[::-1])

    @pytest.mark.parametrize("read", ["_read", "_read_mixed"])
    @pytest.mark.parametrize("fault", ["swapped", "doubled", "another's", "stranger"])
    def test_receivers_share_with_fault_void(self, read: str, fault: str) -> None:
        shares = self._shares()
        if fault == "swapped":
            shares[3][17], shares[3][18] = shares[3][18], shares[3][17]
        elif fault == "doubled":
            shares[3][17] = shares[3][16]
        elif fault == "another's":
            shares[3] = shares[4]
        else:
            shares[3][0] = ring(1024, FAN)[0]
        with pytest.raises(Miscount):
            getattr(self, read)(shares)

    def test_receiver_one_sender_says_more_than_its_share_voids(self) -> None:
        with pytest.raises(Miscount):
            Scripted(list(values(1024, self.EACH + 1))).recv_mixed(Sources(1024, self.EACH, FAN).mixed(), self.EACH + 1)

    @pytest.mark.timeout(20)
    def test_threads_one_fails_raises_at_once(self) -> None:
        never = threading.Event()

        def fail() -> None:
            raise Miscount("this one")

        with pytest.raises(Miscount, match="this one"):
            in_threads([never.wait, fail])
        never.set()


class TestTurns:
    def _link(self, channels: Sequence[Any]) -> SyncLink:
        link = SyncLink.__new__(SyncLink)
        link._more = list(channels)
        return link

    @pytest.mark.parametrize("each", [1, 8])
    def test_turns_as_sent_accepts_and_two_channels_swapped_voids(self, each: int) -> None:
        channels = [Loop() for _ in range(CHANNELS)]
        n = CHANNELS * each * 2
        self._link(channels).send_turns(turns(64, n), each)
        assert [len(channel.held) for channel in channels] == [2 * each] * CHANNELS
        assert [channel.held[0] for channel in channels] == list(turns(64, n))[: CHANNELS * each : each]
        channels[3].held, channels[259].held = channels[259].held, channels[3].held
        with pytest.raises(Miscount):
            self._link(channels).recv_turns(turns(64, n), each)

    @pytest.mark.parametrize("each", [1, 8])
    def test_turns_any_two_channels_carry_different_messages(self, each: int) -> None:
        once = list(turns(64, CHANNELS * each))[::each]
        assert len(set(once)) == CHANNELS


class Loop:
    """A channel of which both ends are one object."""

    def __init__(self) -> None:
        self.held: deque[bytes] = deque()
        self.send = self.held.append

    def recv(self) -> bytes:
        return self.held.popleft()

    def flush(self) -> None:
        pass


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

    def test_ratio_limit_is_no_peer(self) -> None:
        rows = [self._row("c-udp", 9.0), self._row("netchan", 6.0), self._row("tls", 3.0)]
        assert report.ratio(rows, lambda row: True) == "blocking: 2.00 x tls (blocking)"

    def test_udp_table_rows_stand_beside_limit_and_best_quic(self) -> None:
        run = {"n": 1_000_000, "cpu_sender_s": 0.1, "cpu_receiver_s": 0.028}
        rows = [
            self._row("c-udp", 8e6),
            self._row("netchan-udp", 6e6),
            self._row("qh3", 2e6),
            self._row("aioquic", 1e6),
        ]
        for row in rows:
            row |= {"size": 64, "runs": [run]}
        lines = udp.table(self._result(*rows) | {"skipped": {}}).splitlines()
        words = {line.split()[0]: line.split() for line in lines if line.startswith("  ") and "blocking" in line}
        assert words["netchan-udp"][-3:] == ["0.75", "3.00", "2.00"]
        assert words["qh3"][-3:-1] == ["0.25", "1.00"]
        assert words["aioquic"][-3:-1] == ["0.12", "0.50"]

    def test_udp_table_times_less_is_better_and_limit_failed_leaves_it_out(self) -> None:
        fields = {"workload": "w2", "more_is_better": False, "unit": "us"}
        rows = [self._row(peer, value, **fields) for peer, value in (("netchan-udp", 50.0), ("qh3", 200.0))]
        limit = self._row("c-udp", 10.0, **fields)
        text = udp.table(self._result(limit, *rows) | {"skipped": {}})
        (ours,) = [line for line in text.splitlines() if "netchan-udp" in line]
        assert ours.split()[-2:] == ["0.20", "4.00"]
        for name in ("median", "min", "max", "spread"):
            del limit[name]
        text = udp.table(self._result(limit | {"failed": ["it did"]}, *rows) | {"skipped": {}})
        assert "failed: it did" in text
        (ours,) = [line for line in text.splitlines() if "netchan-udp" in line]
        assert ours.split()[-2:] == ["-", "4.00"]

    @pytest.mark.parametrize("workload", [*FANS, *TURNS])
    def test_table_rate_rows_say_messages_and_cpu(self, workload: str) -> None:
        run = {
            "n": 9,
            "wall_s": 2.0,
            "cpu_sender_s": 1.0,
            "cpu_receiver_s": 0.5,
            "extra": {"values/record": 14.04, "shared": 0.25},
        }
        size = 64 if workload in TURNS else 1024
        fields = {"workload": workload, "size": size, "id": f"{workload}/{size}/one/blocking/netchan", "runs": [run]}
        rows = [self._row("netchan", 2_500_000.0, **fields), self._row("netchan", 5_000_000.0, runs=[run])]
        text = report.table(self._result(*rows) | {"skipped": {}})
        assert "2.500 M msg/s" in text
        assert "cpu 0.50+0.25" in text
        assert ("14.0 values/record, 25% shared" in text) == (workload in TURNS)
        assert ("ratio blocking: 0.50 x w1 of one channel" in text) == (workload in TURNS)
        assert Row(workload, size, "one", "blocking", "netchan").more_is_better

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


class TestRows:
    def _rows(self, *words: str) -> set[str]:
        return {row.id for group in choose(arguments(words), peers.NAMES) for row in group}

    def test_quick_has_none_of_the_longer_workloads_unless_asked(self) -> None:
        assert {row.split("/")[0] for row in self._rows("--quick")} == {"w1", "w2", "w4", "w5", "w5c"}
        assert "w3/1024/one/blocking/netchan" in self._rows("--quick", "--workloads", "w3")

    def test_sizes_choice_leaves_fixed_sizes_alone(self) -> None:
        rows = self._rows("--sizes", "65536")
        assert {"w3/1024/one/blocking/tls", "w3c/64/one/asyncio/netchan"} <= rows

    def test_sessions_by_ticket_are_ours_alone(self) -> None:
        assert {row.split("/")[-1].partition("-")[0] for row in self._rows("--workloads", "w4c")} == {"netchan"}

    @pytest.mark.parametrize("workload", TURNS)
    def test_turns_are_ours_alone(self, workload: str) -> None:
        assert {row.split("/")[-1] for row in self._rows("--workloads", workload)} == {
            "netchan",
            "netchan-threads",
            "netchan-udp",
        }

    def test_cells_every_one_has_a_unit(self) -> None:
        assert all(Row(*cell, "blocking", "netchan").unit for cell in CELLS)


class TestProcesses:
    def test_run_over_sockets_counts_at_the_receiver(self, tmp_path: Path) -> None:
        with Bench(Row("w1", 64, "batch", "blocking", "tcp"), tmp_path, "free") as bench:
            run = bench.measure(0.02)
        assert run.n >= 64
        assert run.n % 64 == 0
        assert run.value == pytest.approx(run.n / run.wall_s)

    @pytest.mark.parametrize("workload", FANS)
    @pytest.mark.parametrize("peer", [name for name in peers.NAMES if peers.find(name).missing() is None])
    @pytest.mark.parametrize("front", ["blocking", "asyncio"])
    def test_fan_any_peer_counts_in_whole_rounds(self, workload: str, peer: str, front: str, tmp_path: Path) -> None:
        library = peers.find(peer)
        if not library.offers(front, workload, "one", 1024):
            assert peer in ("zenoh-tls", "zenoh-quic", "grpc-tls", *quic.PEERS, *peers.LIMITS)
            return
        library.prepare(tmp_path)
        with Bench(Row(workload, 1024, "one", front, peer), tmp_path, "free") as bench:
            run = bench.measure(0.02)
        assert run.n >= FAN
        assert run.n % FAN == 0

    @pytest.mark.parametrize("peer", QUIC)
    @pytest.mark.parametrize("size", [64, 65536])
    def test_batch_over_quic_counts_at_the_receiver(self, peer: str, size: int, tmp_path: Path) -> None:
        peers.find(peer).prepare(tmp_path)
        with Bench(Row("w1", size, "batch", "asyncio", peer), tmp_path, "free") as bench:
            run = bench.measure(0.02)
        assert run.n % batch_msgs(size) == 0

    @pytest.mark.skipif(peers.find("c-udp").missing() is not None, reason="no C compiler or no libcrypto")
    def test_limit_of_udp_is_bytes_by_the_size_and_trips(self, tmp_path: Path) -> None:
        peers.find("c-udp").prepare(tmp_path)
        with Program(Row("w1", 1024, "one", "blocking", "c-udp"), tmp_path, "free") as program:
            run = program.measure(0.05)
        assert run.value * 1024 == pytest.approx(run.extra["MB/s"] * 1e6)
        assert -run.n * 1024 % (DATAGRAM_BYTES - OVERHEAD_BYTES) < 1024  # whole messages in whole datagrams
        with Program(Row("w2", 64, "one", "blocking", "c-udp"), tmp_path, "one") as program:
            run = program.measure(0.05)
        assert 0 < run.value <= run.extra["p99"]
        assert run.n > 1

    @pytest.mark.parametrize("workload", TURNS)
    @pytest.mark.parametrize("front", ["blocking", "asyncio"])
    def test_turns_records_hold_what_the_row_says(self, workload: str, front: str, tmp_path: Path) -> None:
        peers.find("netchan").prepare(tmp_path)
        with Bench(Row(workload, 64, "one", front, "netchan"), tmp_path, "free") as bench:
            run = bench.measure(0.02)
        assert run.n % (CHANNELS * TURNS[workload].each) == 0
        packed, shared = run.extra["values/record"], run.extra["shared"]
        assert packed < 4 if workload == "w3c" else packed > 4
        assert shared > 0.1 if TURNS[workload].trunk else shared == 0

    def test_run_first_short_run_stalls_is_not_taken_for_the_rate(self) -> None:
        bench = Bench.__new__(Bench)
        asked: list[int] = []

        def both(_receiver: str, _sender: str, n: int) -> tuple[dict[str, Any], dict[str, Any], float]:
            asked.append(n)
            took = 200_000_000 if len(asked) == 1 else n * 1000  # ns
            return {"end": took, "cpu": 0.0, "n": n}, {"start": 0, "cpu": 0.0}, 0.0

        bench._both = both  # type: ignore[method-assign, assignment]
        run = bench._timed(("recv", "send"), 1.0, 8, 8)
        assert asked[:2] == [8, 8]
        assert run.n == pytest.approx(1_000_000, rel=0.01)
        assert run.value == pytest.approx(1e6)

    def test_run_child_dies_raises_and_leaves_no_process(self, tmp_path: Path) -> None:
        with pytest.raises(RunFailed), Bench(Row("w2", 64, "one", "asyncio", "tls"), tmp_path, "free") as bench:
            children = [bench._sender._process, bench._receiver._process]
            bench.measure(0.02)  # no certificate was written, so no side can be made
        assert [child.poll() is not None for child in children] == [True, True]

    def test_peers_every_name_is_that_peer(self) -> None:
        for name in peers.NAMES:
            assert peers.find(name).name == name


@pytest.mark.parametrize("peer", QUIC)
class TestQuic:
    SIZE = 65536

    def _side(self, folder: Path, peer: str) -> Any:
        peers.find(peer).prepare(folder)
        return peers.find(peer).side(Spec(folder, ASYNCIO, "w1", "one", self.SIZE))

    @pytest.mark.timeout(60)
    def test_sender_nobody_takes_stops_at_the_window_and_goes_on_after(self, peer: str, tmp_path: Path) -> None:
        todo = list(values(self.SIZE, 40))

        async def flow() -> None:
            server, client = self._side(tmp_path, peer), self._side(tmp_path, peer)
            link = await client.dial(await server.listen())
            there = await server.accept()
            sent: list[bytes] = []

            async def send() -> None:
                for value in todo:
                    await link.send(value)
                    sent.append(value)

            sending = asyncio.create_task(send())
            await asyncio.sleep(0.5)
            assert len(sent) == quic.WINDOW_BYTES // self.SIZE
            assert [await there.recv() for _ in todo] == todo
            await sending
            for end in (link, there, client, server):
                await (end.close() if end in (link, there) else end.stop())

        asyncio.run(flow())

    @pytest.mark.timeout(60)
    def test_dial_certificate_of_another_authority_is_refused(self, peer: str, tmp_path: Path) -> None:
        (tmp_path / "us").mkdir()
        (tmp_path / "them").mkdir()

        async def flow() -> None:
            server, client = self._side(tmp_path / "us", peer), self._side(tmp_path / "them", peer)
            address = await server.listen()
            with pytest.raises(ConnectionError):
                await client.dial(address)
            await server.stop()

        asyncio.run(flow())
