"""Several values in one step: lists and tuples of bytes over a session, whatever their sizes and kinds (R15, R23)."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import netchan
from netchan import sync
from tests.integration.kit import BOSS, KEY

MAX_MESSAGE = 100_000


@contextmanager
def joined(capacity: int, type: Any = bytes) -> Iterator[tuple[sync.Channel[Any], sync.Channel[Any]]]:
    """Both ends of a channel over TCP, in one process, for blocking callers."""
    config = netchan.Config(max_message=MAX_MESSAGE)
    with (
        sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust=[KEY.node_id], config=config) as listener,
        sync.dial(listener.addresses[0], identity=KEY, config=config) as near,
    ):
        far = listener.recv(timeout=10)
        yield near.open("run", type, capacity=capacity), far.open("run", type, capacity=capacity)


def drain(rx: sync.Channel[Any]) -> list[Any]:
    got: list[Any] = []
    while True:
        try:
            got += rx.recv_many(64, timeout=10)
        except netchan.ChannelEnded:
            return got


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("capacity", [1, 3, 64, 1024])
def test_r23_sizes_of_every_kind_arrive_whole_and_in_order(kind: type, capacity: int) -> None:
    rng = random.Random(capacity)
    sizes = [0, 1, 62, 63, 64, 8190, 8191, 8192, 32_760, 32_768, 40_000, 65_536]
    values = kind(rng.randbytes(rng.choice(sizes) if rng.random() < 0.4 else rng.randrange(200)) for _ in range(1500))
    with joined(capacity) as (tx, rx):
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(drain(rx)))
        reader.start()
        assert tx.send_many(values, timeout=30) == len(values)
        tx.close()
        reader.join(30)
        assert got == list(values)
        assert tx.stats().sent == len(values)


def test_r15_no_more_than_the_capacity_is_accepted_in_one_step() -> None:
    with joined(10) as (tx, rx):
        tx.flush(timeout=10)
        with pytest.raises(TimeoutError):
            tx.send_many([b"x"] * 50, timeout=0.2)
        assert tx.stats().sent == 10
        assert rx.recv_many(64, min=10, timeout=10) == [b"x"] * 10


def test_r11_other_kinds_of_bytes_between_plain_ones_are_encoded() -> None:
    values: list[Any] = [b"a", bytearray(b"b"), b"c", memoryview(b"-d-")[1:2], b"e"]
    with joined(64) as (tx, rx):
        assert tx.send_many(values, timeout=10) == 5
        assert rx.recv_many(64, min=5, timeout=10) == [b"a", b"b", b"c", b"d", b"e"]


@pytest.mark.parametrize("bad", ["text", b"x" * (MAX_MESSAGE + 1)])
def test_r6_what_does_not_fit_stops_behind_those_before_it(bad: Any) -> None:
    with joined(64) as (tx, rx):
        with pytest.raises(netchan.CodecError):
            tx.send_many([b"1", b"2", b"3", bad, b"5"], timeout=10)
        assert tx.stats().sent == 3
        assert rx.recv_many(64, min=3, timeout=10) == [b"1", b"2", b"3"]


def test_r23_a_list_that_changes_while_it_is_sent_is_read_as_its_iterator_would() -> None:
    with joined(2) as (tx, rx):
        values = [b"0", b"1", b"2", b"3"]
        sender = threading.Thread(target=lambda: tx.send_many(values, timeout=10))
        sender.start()
        assert rx.recv(timeout=10) == b"0"
        values[3] = b"changed"
        rest = [rx.recv(timeout=10) for _ in range(3)]
        assert rest[:2] == [b"1", b"2"]
        assert rest[2] in (b"3", b"changed")
        sender.join(10)
        assert not sender.is_alive()


def test_r28_a_close_in_the_middle_of_a_run_leaves_the_rest_unsent() -> None:
    with joined(4) as (tx, rx):
        rx.stop()
        with pytest.raises(netchan.ChannelClosed):
            while True:
                tx.send_many([b"x"] * 100, timeout=10)


def test_r23_item_whose_iterator_used_up_the_credit_for_bytes_is_not_lost() -> None:
    """The place of an item is held while it is fetched; credit for bytes may be gone when it is here."""
    with joined(100_000) as (tx, rx):
        tx.flush(timeout=10)
        filled = 0
        exhausted = threading.Event()

        def items() -> Iterator[bytes]:
            nonlocal filled
            yield b"first"
            try:
                while True:
                    tx.send_nowait(bytes(8000))
                    filled += 1
            except netchan.WouldBlock:
                exhausted.set()
            yield b"second"
            yield b"third"

        got: list[bytes] = []
        sending = threading.Thread(target=lambda: tx.send_many(items(), timeout=30))
        sending.start()
        assert exhausted.wait(10)
        reader = threading.Thread(target=lambda: got.extend(drain(rx)))
        reader.start()
        sending.join(30)
        tx.close()
        reader.join(30)
        assert [value for value in got if len(value) < 100] == [b"first", b"second", b"third"]
        assert len(got) == 3 + filled
        assert filled


def test_r26_permit_sends_although_the_credit_for_bytes_is_used_up() -> None:
    with joined(100_000) as (tx, rx):
        tx.flush(timeout=10)
        with tx.reserve(timeout=10) as permit:
            filled = 0
            try:
                while True:
                    tx.send_nowait(bytes(8000))
                    filled += 1
            except netchan.WouldBlock:
                pass
            permit.send(b"held")
        reader: list[bytes] = []
        thread = threading.Thread(target=lambda: reader.extend(drain(rx)))
        thread.start()
        tx.close()
        thread.join(30)
        assert reader == [bytes(8000)] * filled + [b"held"]
