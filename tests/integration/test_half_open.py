"""Connections that begin and never finish: they hold up nobody, are bounded, leave nothing (handshake.md §9)."""

from __future__ import annotations

import gc
import os
import socket
import statistics
import struct
import threading
import time

import pytest

from netchan import Config, Identity, Limits, sync
from netchan.net.gate import CLOSE
from netchan.net.handshake import Refusal, Send
from netchan.net.limits import MAX_HALF_OPEN
from tests.integration.rawpeer import connect, machine

BOSS, KEY = Identity.generate(), Identity.generate()
TCP = "tcp://127.0.0.1:0"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def until(condition: object, what: str, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.005)


def echo(listener: sync.Listener) -> float:
    """Dial, send one value both ways; seconds it took."""
    begun = time.monotonic()
    with sync.dial(listener.addresses[0], identity=KEY) as there:
        here = listener.recv(timeout=5)
        mine, theirs = there.open("x", bytes), here.open("x", bytes)
        mine.send(b"in", timeout=5)
        assert theirs.recv(timeout=5) == b"in"
        theirs.send(b"out", timeout=5)
        assert mine.recv(timeout=5) == b"out"
        took = time.monotonic() - begun
        for end in (mine, theirs, here):
            end.close()
    return took


def p50(listener: sync.Listener, count: int = 15) -> float:
    return statistics.median(echo(listener) for _ in range(count))


def half(address: str) -> socket.socket:
    """A connection that proves the gate, takes the REPLY and never goes on."""
    sock, _ = connect(address)
    events = machine(address, Identity.generate()).start(time.time(), 0)
    assert isinstance(events[0], Send)
    sock.sendall(events[0].data)
    return sock


def drop(socks: list[socket.socket]) -> None:
    """Close with a reset, so that nothing lingers."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    socks.clear()


class TestBlockingDial:
    def test_blocking_dial_is_woken_when_its_session_is_there(self) -> None:
        """A caller that drives the engine must hear of what another thread did at once, not at its next look (1 s)."""
        with sync.listen(TCP, identity=BOSS, trust="any") as listener:
            took = p50(listener, 5)
            assert took < 0.6
            print(f"\nblocking dial and echo: p50 {took * 1e3:.1f} ms")


class TestCrowd:
    def test_four_hundred_silent_and_a_hundred_half_open_hold_up_nobody(self) -> None:
        config = Config(handshake_timeout=30.0)
        with sync.listen(TCP, identity=BOSS, trust="any", config=config) as listener:
            p50(listener, 3)
            idle = p50(listener)
            gc.collect()
            before = descriptors()
            socks: list[socket.socket] = []
            try:
                socks += [connect(listener.addresses[0])[0] for _ in range(400)]
                socks += [half(listener.addresses[0]) for _ in range(100)]
                until(lambda: listener.stats().half_open == 500, "not all came in")
                crowded = p50(listener)
                assert listener.stats().half_open == 500
            finally:
                drop(socks)
            until(lambda: listener.stats().half_open == 0, "half-open connections are left")
            until(lambda: descriptors() <= before + 2, "descriptors are left")
            after = p50(listener)
            print(
                f"\ndial and echo p50: idle {idle * 1e3:.1f} ms, beside 400 silent and 100 half-open "
                f"{crowded * 1e3:.1f} ms, "
                f"after {after * 1e3:.1f} ms; descriptors {before} -> {descriptors()}"
            )
            assert crowded < 2 * idle + 0.02

    def test_half_open_that_never_finish_are_ended_at_the_time_limit(self) -> None:
        config = Config(backlog=8, handshake_timeout=0.6)
        with sync.listen(TCP, identity=BOSS, trust="any", config=config) as listener:
            socks = [half(listener.addresses[0]) for _ in range(8)]
            try:
                until(lambda: listener.stats().handshakes_failed.get("timeout") == 8, "not counted")
                assert listener.stats().half_open == 0
            finally:
                drop(socks)

    def test_more_than_the_backlog_that_proved_the_gate_and_say_no_more_hold_up_nobody(self) -> None:
        """A place in the backlog is taken by a FINISH: silence after the HELLO costs the others nothing."""
        config = Config(backlog=8, handshake_timeout=30.0)
        with sync.listen(TCP, identity=BOSS, trust="any", config=config) as listener:
            idle = p50(listener, 5)
            socks = [half(listener.addresses[0]) for _ in range(40)]
            try:
                # the last ones have sent the first byte of a FINISH, which takes no place either
                for sock in socks[20:]:
                    assert sock.recv(4096)
                    sock.sendall(b"\x03")
                until(lambda: listener.stats().half_open == 40, "not all came in")
                crowded = p50(listener, 5)
                assert listener.stats().half_open == 40
            finally:
                drop(socks)
            assert crowded < 2 * idle + 0.05
            print(f"\necho p50 {idle * 1e3:.1f} ms, beside 40 unfinished at a backlog of 8 {crowded * 1e3:.1f} ms")

    def test_backlog_is_never_exceeded_and_those_who_waited_come_in_one_by_one(self) -> None:
        config = Config(backlog=2, handshake_timeout=20.0, dial_timeout=20.0)
        with sync.listen(TCP, identity=BOSS, trust="any", config=config) as listener:
            address, made, errors = listener.addresses[0], [], []

            def dial() -> None:
                try:
                    made.append(sync.dial(address, identity=Identity.generate(), config=config))
                except Exception as error:
                    errors.append(error)

            threads = [threading.Thread(target=dial) for _ in range(12)]
            socks = [half(address) for _ in range(6)]
            try:
                for thread in threads:
                    thread.start()
                until(lambda: listener.stats().pending == 2, "nobody came")
                time.sleep(0.3)
                assert listener.stats().handshakes_ok == 2
                came = []
                for taken in range(12):
                    came.append(listener.recv(timeout=10))
                    assert listener.stats().handshakes_ok <= taken + 1 + 2
                for thread in threads:
                    thread.join(10)
                assert errors == []
                assert len(made) == 12
                for peer in (*came, *made):
                    peer.close()
            finally:
                drop(socks)

    def test_full_table_of_those_that_proved_the_gate_takes_a_newcomer_after_a_second(self) -> None:
        """They cost as much as can be had: all places, each with an answered HELLO. The oldest is told BUSY."""
        config = Config(handshake_timeout=60.0, dial_timeout=20.0)
        with sync.listen(TCP, identity=BOSS, trust="any", config=config) as listener:
            socks: list[socket.socket] = []
            try:
                for _ in range(MAX_HALF_OPEN):
                    socks.append(half(listener.addresses[0]))
                    assert socks[-1].recv(4096)
                assert listener.stats().half_open == MAX_HALF_OPEN
                time.sleep(1.0)
                took = echo(listener)
                assert took < 1
                assert listener.stats().half_open == MAX_HALF_OPEN - 1
                assert listener.stats().handshakes_failed == {"busy": 1}
                end = socks[0].recv(4096)
                assert end[0] == CLOSE
                assert int.from_bytes(end[22:24], "big") == Refusal.BUSY
                assert socks[0].recv(1) == b""
            finally:
                drop(socks)
            print(f"\n{MAX_HALF_OPEN} that never finish: good peer after {took * 1e3:.1f} ms")

    def test_table_is_bounded_and_the_oldest_silent_connection_is_dropped(self) -> None:
        count = MAX_HALF_OPEN + 40
        config = Config(handshake_timeout=60.0)
        with sync.listen(TCP, identity=BOSS, trust="any", config=config) as listener:
            echo(listener)
            gc.collect()
            before = descriptors()
            socks: list[socket.socket] = []
            try:
                for number in range(count):
                    socks.append(connect(listener.addresses[0])[0])
                    if number % 64 == 63:
                        until(lambda n=number: listener.stats().accepted == n + 2, "not accepted")
                until(lambda: listener.stats().accepted == count + 1, "not accepted")
                stats = listener.stats()
                assert stats.half_open == MAX_HALF_OPEN
                assert stats.refused == count - MAX_HALF_OPEN
                ended = []
                for number, sock in enumerate(socks):
                    sock.setblocking(False)
                    try:
                        assert sock.recv(1) == b""
                    except BlockingIOError:
                        continue
                    except ConnectionResetError:
                        pass
                    ended.append(number)
                assert ended == list(range(count - MAX_HALF_OPEN))
                took = echo(listener)
                assert took < 3
            finally:
                drop(socks)
            until(lambda: listener.stats().half_open == 0, "half-open connections are left")
            until(lambda: descriptors() <= before + 2, "descriptors are left")
            print(f"\n{count} silent: {MAX_HALF_OPEN} held, {len(ended)} oldest dropped; good peer {took * 1e3:.1f} ms")

    def test_one_address_of_the_network_gets_sixty_four_places(self) -> None:
        host = outside_address()
        if host is None:
            pytest.skip("this machine has no address besides the loopback")
        with sync.listen(f"tcp://{host}:0", identity=BOSS, trust="any") as listener:
            socks = [connect(listener.addresses[0])[0] for _ in range(100)]
            try:
                until(lambda: listener.stats().accepted == 100, "not accepted")
                stats = listener.stats()
                assert stats.half_open == 64
                assert stats.refused == 36
                took = echo(listener)
            finally:
                drop(socks)
            assert took < 3
            print(f"\n100 silent from one address: 64 held, 36 dropped; echo {took * 1e3:.1f} ms")

    def test_one_address_of_the_network_gets_a_newcomer_in_beside_sixty_four_that_proved_the_gate(self) -> None:
        host = outside_address()
        if host is None:
            pytest.skip("this machine has no address besides the loopback")
        with sync.listen(f"tcp://{host}:0", identity=BOSS, trust="any") as listener:
            socks: list[socket.socket] = []
            try:
                for _ in range(64):
                    # one after the other: a queue that waits for 50 ms is load, and then the rate of an address counts
                    socks.append(half(listener.addresses[0]))
                    assert socks[-1].recv(4096)
                time.sleep(1.0)
                took = echo(listener)
                assert listener.stats().handshakes_failed == {"busy": 1}
            finally:
                drop(socks)
            assert took < 3

    def test_rate_and_burst_of_the_configuration_hold_under_load(self) -> None:
        host = outside_address()
        if host is None:
            pytest.skip("this machine has no address besides the loopback")
        limits = Limits(half_open=1, handshake_burst=3, handshake_rate=1.0)
        config = Config(limits=limits, handshake_timeout=20.0)
        with sync.listen(f"tcp://{host}:0", identity=BOSS, trust="any", config=config) as listener:
            begun = time.monotonic()
            socks = [connect(listener.addresses[0])[0] for _ in range(20)]
            try:
                until(lambda: listener.stats().accepted == 20, "not accepted")
                assert time.monotonic() - begun < 1
                assert listener.stats().half_open == 3
                assert listener.stats().refused == 17
            finally:
                drop(socks)


def outside_address() -> str | None:
    """An IPv4 address of ours that is not the loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.99", 9))
        except OSError:
            return None
        host = str(sock.getsockname()[0])
    return None if host.startswith("127.") else host
