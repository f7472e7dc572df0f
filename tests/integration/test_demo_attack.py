"""Two processes and somebody who kills one of them, or changes a bit between them, in the middle of a stream.

The accounts must agree: received ∪ undelivered ∪ in_doubt = accepted, received ∩ undelivered = ∅ (session.md §8).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import netchan
from netchan import Code, Config, Identity, sync
from tests.integration.proxy import Edit, Proxy

BOSS = Identity.generate()
CONFIG = Config(lease=0.0)
ROOT = Path(__file__).resolve().parents[2]

RECEIVER = """
import os, sys, time
from netchan import Config, sync
address, pause, capacity = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
peer = sync.dial(address, config=Config(lease=0.0))
numbers = peer.open("numbers", int, capacity=capacity)
try:
    for n in numbers:
        os.write(1, b"%d\\n" % n)
        if pause:
            time.sleep(pause)
    os.write(1, b"end\\n")
except BaseException as error:
    os.write(1, f"{type(error).__name__}\\n".encode())
"""

EXITS = """
import os, sys
from netchan import sync
peer = sync.dial(sys.argv[1])
numbers = peer.open("numbers", int)
for n in range(20):
    numbers.send(n)
numbers.flush()
os.write(1, b"ready\\n")
sys.stdin.read(1)
"""


@contextmanager
def child(code: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


class Account:
    """A stream of numbers to a process that gets killed, and what became of each number."""

    def __init__(self, peer: sync.Peer, capacity: int) -> None:
        self.accepted: list[int] = []
        self.error: netchan.NetchanError | None = None
        self.lost_at = 0.0
        self.channel = peer.open("numbers", int, capacity=capacity)
        self.thread = threading.Thread(target=self._send)
        self.thread.start()

    def _send(self) -> None:
        number = 0
        try:
            while True:
                self.channel.send(number, timeout=20)
                self.accepted.append(number)
                number += 1
        except netchan.NetchanError as error:
            self.error = error
            self.lost_at = time.monotonic()

    def settle(self, received: list[int], *, killed: bool = False) -> str:
        """Check the account; one line about it."""
        assert isinstance(self.error, netchan.SessionLost), self.error
        for call in (lambda: self.channel.send(1, timeout=5), lambda: self.channel.recv(timeout=5)):
            with pytest.raises(netchan.SessionLost):
                call()
        accepted, undelivered = set(self.accepted), list(self.error.undelivered)
        doubted = [item.number for item in self.error.in_doubt]
        for item in self.error.in_doubt:
            try:
                assert item.value == item.number
            except LookupError:
                pass
        assert received == list(range(len(received))), "lost in the middle, doubled or out of order"
        assert len(undelivered) == len(set(undelivered))
        assert len(doubted) == len(set(doubted))
        assert not set(received) & set(undelivered), "received, and reported as never sent"
        told = set(received) | set(undelivered) | set(doubted)
        assert told <= accepted, f"too many: {sorted(told - accepted)[:10]}"
        # taken by the program over there, which was killed before it could write it down
        in_hand = {len(received)} if killed else set()
        assert accepted - told <= in_hand, f"missing: {sorted(accepted - told)[:10]}"
        assert not isinstance(self.error.cause, netchan.ProtocolError) or not killed, "nobody broke the protocol"
        return (
            f"accepted {len(accepted)} = received {len(received)} ∪ undelivered {len(undelivered)} ∪ "
            f"in doubt {len(doubted)} ({len(set(doubted) & set(received))} of them received)"
        )


class TestKill:
    @pytest.mark.parametrize(
        ("pause", "capacity", "after"),
        [(0.0, 1024, 0.3), (0.0, 16, 0.2), (0.002, 64, 0.3), (0.05, 1024, 0.2), (0.0, 1, 0.2), (0.5, 4, 0.1)],
    )
    def test_killed_receiver_leaves_an_account_without_a_gap(self, pause: float, capacity: int, after: float) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=CONFIG) as listener:
            with child(RECEIVER, listener.addresses[0], str(pause), str(capacity)) as process:
                peer = listener.recv(timeout=20)
                account = Account(peer, capacity)
                assert process.stdout is not None
                first = process.stdout.readline()
                time.sleep(after)
                process.send_signal(signal.SIGKILL)
                killed = time.monotonic()
                received = [int(line) for line in (first + process.stdout.read()).split(b"\n") if line]
                account.thread.join(20)
                assert not account.thread.is_alive()
                line = account.settle(received, killed=True)
                assert account.lost_at - killed < 3
                assert isinstance(peer.loss_cause, ConnectionError)
                print(
                    f"\npause {pause} capacity {capacity}: {line}; told {(account.lost_at - killed) * 1e3:.0f} ms after"
                )
            with pytest.raises(netchan.SessionLost):
                next(iter(peer))
            account.channel.abort()

    def test_flipped_bit_between_two_processes_leaves_an_account_without_a_gap(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=CONFIG) as listener:
            for unit in (3, 40, 200):
                with Proxy(listener.addresses[0], Edit("flip", "down", unit, 9)) as proxy:
                    with child(RECEIVER, proxy.address, "0", "256") as process:
                        peer = listener.recv(timeout=20)
                        account = Account(peer, 256)
                        account.thread.join(20)
                        assert process.stdout is not None
                        lines = process.stdout.read().split()
                        assert lines[-1] == b"SessionLost"
                        line = account.settle([int(item) for item in lines[:-1]])
                        print(f"\nbit changed in record {unit - 2}: {line}")
                        account.channel.abort()

    def test_other_peers_of_the_listener_see_nothing_of_it(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=CONFIG) as listener:
            with sync.dial(listener.addresses[0], config=CONFIG) as good:
                here = listener.recv(timeout=5)
                mine, theirs = good.open("x", int), here.open("x", int)
                for _ in range(3):
                    with child(RECEIVER, listener.addresses[0], "0", "64") as process:
                        account = Account(listener.recv(timeout=20), 64)
                        assert process.stdout is not None
                        process.stdout.readline()
                        process.kill()
                        for number in range(200):
                            mine.send(number, timeout=1)
                            assert theirs.recv(timeout=1) == number
                        account.thread.join(10)
                        assert isinstance(account.error, netchan.SessionLost)
                        account.channel.abort()
                mine.close()
                theirs.close()
                here.close()


class TestExit:
    def test_process_that_exits_without_closing_aborts_with_process_exit(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", config=CONFIG) as listener:
            with child(EXITS, listener.addresses[0]) as process:
                peer = listener.recv(timeout=20)
                numbers = peer.open("numbers", int)
                assert process.stdout is not None
                assert process.stdin is not None
                assert process.stdout.readline() == b"ready\n"
                assert [numbers.recv(timeout=5) for _ in range(5)] == list(range(5))
                process.stdin.close()
                process.wait(10)
                # what had arrived comes first, then the reason
                assert [numbers.recv(timeout=5) for _ in range(15)] == list(range(5, 20))
                with pytest.raises(netchan.ChannelAborted) as caught:
                    numbers.recv(timeout=5)
                assert caught.value.code == Code.PROCESS_EXIT
                assert not caught.value.by_us
                with pytest.raises(netchan.ChannelAborted) as sent:
                    numbers.send(1, timeout=5)
                assert sent.value.code == Code.PROCESS_EXIT
                peer.wait_closed(timeout=5)
                assert isinstance(peer.error, netchan.ChannelAborted)
                assert peer.error.code == Code.PROCESS_EXIT
                process.stdin = None
