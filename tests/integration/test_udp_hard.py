"""What is done to a UDP listener, its exchanges and its paths by networks, strangers and other programs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import netchan
from netchan import AuthError, Config, ForkError, HandshakeError, Identity, ListenError, SessionLost, sync
from netchan.net import moved
from netchan.net.connecting import Phase
from netchan.net.datagrams import Exchange
from tests.integration.kit import BOSS, KEY, TCP
from tests.integration.proxy import Proxy
from tests.integration.slope import descriptors
from tests.integration.test_udp import BOTH, UDP, only
from tests.integration.udp_proxy import Direction, Relay


def port_of(listener: sync.Listener) -> int:
    return int(listener.addresses[0].rpartition(":")[2])


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def open_udp_ports() -> list[int]:
    """Ports on which this process takes datagrams from anybody."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/self/fd/{name}"))
    lines = Path("/proc/self/net/udp").read_text(encoding="ascii").splitlines()[1:]
    return [
        int(fields[1].rpartition(":")[2], 16)
        for fields in map(str.split, lines)
        if f"socket:[{fields[9]}]" in inodes and fields[3] != "01"
    ]


def works(near: sync.Peer, far: sync.Peer, name: str = "x") -> None:
    """A value goes each way."""
    with near.open(name, int) as a, far.open(name, int) as b:
        a.send(1)
        assert b.recv(timeout=5) == 1
        b.send(2)
        assert a.recv(timeout=5) == 2


def toward_dialler(relay: Relay, data: bytes) -> None:
    relay._door.sendto(data, next(iter(relay._out)))


def toward_listener(relay: Relay, data: bytes) -> None:
    next(iter(relay._out.values())).sendto(data, relay._target)


class TestExchange:
    @pytest.mark.parametrize("cut", [None, 40, 100])
    @pytest.mark.parametrize(("direction", "number"), [("up", 0), ("down", 0), ("up", 1), ("down", 1)])
    def test_forged_or_cut_message_with_the_right_id_ends_no_handshake(
        self, direction: Direction, number: int, cut: int | None
    ) -> None:
        with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
            with Relay(listener.addresses[0]) as relay:

                def tap(way: Direction, n: int, data: bytes) -> bool:
                    if (way, n) == (direction, number):
                        for _ in range(12):
                            bad = data[:cut] if cut else data[:40] + os.urandom(len(data) - 40)
                            (toward_listener if way == "up" else toward_dialler)(relay, bad)
                        (toward_listener if way == "up" else toward_dialler)(relay, data + bytes(4_096))
                    return True

                relay.tap = tap
                with sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=5)) as near:
                    works(near, listener.recv(timeout=5))

    def test_refusal_that_was_lost_is_said_again(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust=[BOSS.node_id], config=BOTH) as listener:
            with Relay(listener.addresses[0]) as relay:
                relay.tap = lambda way, n, data: way == "up" or n not in (1, 2)
                with pytest.raises(AuthError, match="UNTRUSTED"):
                    sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=5))
            assert listener.stats().handshakes_failed == {"untrusted": 1}

    def test_refusal_in_the_shortest_message_is_heard(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", pq="off") as listener:
            with pytest.raises(HandshakeError, match="SUITE"):  # CLOSE with a code and nothing else
                sync.dial(listener.addresses[0], identity=KEY)

    def test_refusals_hold_a_bounded_number_of_sockets_for_a_bounded_time(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust=[BOSS.node_id], config=BOTH) as listener:
            before = descriptors()
            for _ in range(300):
                with pytest.raises(AuthError):
                    sync.dial(listener.addresses[0], identity=KEY, config=BOTH)
            assert listener.stats().held <= 256 and descriptors() - before <= 260
            time.sleep(3.2)
            assert listener.stats().held == 0 and descriptors() <= before

    def test_handshake_gets_through_a_network_that_loses_a_third(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            with contextlib.ExitStack() as stack:
                relays = [stack.enter_context(Relay(listener.addresses[0], seed)) for seed in range(25)]
                for relay in relays:
                    relay.loss = 0.33
                with ThreadPoolExecutor(len(relays)) as pool:
                    dials = [
                        pool.submit(sync.dial, r.address, identity=Identity.generate(), config=BOTH) for r in relays
                    ]
                    peers = [dial.result() for dial in dials]
                for relay in relays:
                    relay.loss = 0.0
                for peer in [*peers, *(listener.recv(timeout=5) for _ in relays)]:
                    peer.close()


class TestDoor:
    def test_second_listener_of_a_port_is_refused(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
            for live in (False, True):
                if live:
                    near = sync.dial(listener.addresses[0], identity=KEY, config=BOTH)
                    far = listener.recv(timeout=5)
                for host in ("127.0.0.1", "0.0.0.0"):
                    with pytest.raises(ListenError, match="already in use"):
                        sync.listen(f"udp://{host}:{port_of(listener)}", identity=BOSS, trust="any", config=BOTH)
            works(near, far)
            near.close()

    def test_listener_gets_its_port_back_at_once_with_sessions_going_on(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as first:
            place, port = first.addresses[0], port_of(first)
            peers = [sync.dial(place, identity=Identity.generate(), config=BOTH) for _ in range(5)]
            peers += [first.recv(timeout=5) for _ in range(5)]
            first.close()
            with sync.listen(f"udp://127.0.0.1:{port}", identity=BOSS, trust="any", config=BOTH) as second:
                with sync.dial(place, identity=KEY, config=BOTH) as near:
                    works(near, second.recv(timeout=5))
            for peer in peers:
                peer.close()

    @pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
    @pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
    def test_program_of_another_user_gets_no_datagram_of_a_listener(self, option: int) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            pid = os.fork()
            if pid == 0:
                code = 2
                try:
                    os.setuid(65_534)
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
                        thief.setsockopt(socket.SOL_SOCKET, option, 1)
                        thief.bind(("127.0.0.1", port_of(listener)))
                        code = 1
                except OSError:
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_listener_of_all_addresses_answers_from_the_one_that_was_dialled(self) -> None:
        with sync.listen("udp://0.0.0.0:0", identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
            for host in ("127.0.0.1", "127.0.0.2", "127.3.2.1"):
                place = f"udp://{BOSS.node_id}@{host}:{port_of(listener)}"
                with sync.dial(place, identity=KEY, config=Config(datagrams=True, dial_timeout=2)) as near:
                    far = listener.recv(timeout=5)
                    works(near, far)
                    assert far.local_address == f"udp://{host}:{port_of(listener)}"

    def test_listener_without_descriptors_rests_and_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with (
            sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener,
            Relay(listener.addresses[0]) as relay,
        ):
            firsts: list[bytes] = []
            relay.tap = lambda way, n, data: bool(firsts.append(data)) if way == "up" else True
            with pytest.raises(TimeoutError):
                sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=0.1))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                held: list[int] = []
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 8, hard))
                try:
                    try:
                        while True:
                            held.append(os.dup(stranger.fileno()))
                    except OSError:
                        pass
                    used = time.process_time()
                    stranger.sendto(firsts[0], ("127.0.0.1", port_of(listener)))
                    time.sleep(0.3)
                    assert listener.stats().accept_errors == 1
                    assert time.process_time() - used < 0.15
                finally:
                    for fd in held:
                        os.close(fd)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with sync.dial(listener.addresses[0], identity=Identity.generate(), config=BOTH) as near:
                works(near, listener.recv(timeout=5))
        assert not caplog.records

    def test_full_listener_lets_paths_move_and_takes_who_waits_as_soon_as_there_is_room(self) -> None:
        config = Config(datagrams=True, backlog=1)
        with sync.listen(UDP, identity=BOSS, trust="any", config=config) as listener:
            with Relay(listener.addresses[0]) as relay, sync.dial(relay.address, identity=KEY, config=BOTH) as near:
                far = listener.recv(timeout=5)
                works(near, far)
                with sync.dial(listener.addresses[0], identity=Identity.generate(), config=BOTH):
                    late: list[float] = []

                    def third() -> None:
                        with sync.dial(listener.addresses[0], identity=Identity.generate(), config=BOTH):
                            late.append(time.monotonic())

                    thread = threading.Thread(target=third)
                    thread.start()
                    time.sleep(0.3)
                    relay.move()
                    begun = time.monotonic()
                    works(near, far, "moved")
                    assert time.monotonic() - begun < 3 and listener.stats().moved >= 1 and not late
                    begun = time.monotonic()
                    for _ in range(2):
                        listener.recv(timeout=5).close()
                    thread.join(5)
                    assert late[0] - begun < 0.2


class TestSession:
    def test_path_with_a_round_trip_above_a_second_is_joined(self) -> None:
        with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
            with Relay(only(listener.addresses, "udp")) as relay:
                relay.delay = 0.55
                with sync.dial(only(listener.addresses, "tcp"), identity=KEY, config=BOTH) as near:
                    far = listener.recv(timeout=5)
                    works(near, far)
                    near.add_path(relay.address)
                    assert near.path_count == 2

    def test_address_that_drops_udp_does_not_hold_up_the_one_over_tcp(self) -> None:
        down = False
        with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
            with (
                Proxy(only(listener.addresses, "tcp"), tap=lambda link, way, n, data: None if down else data) as proxy,
                Relay(only(listener.addresses, "udp")) as relay,
            ):
                relay.silent = True
                with sync.dial([proxy.address, relay.address], identity=KEY, config=BOTH) as near:
                    far = listener.recv(timeout=5)
                    a, b = (peer.open("x", int, capacity=100) for peer in (near, far))
                    waits: list[float] = []
                    for n in range(4):
                        a.send(n)
                        assert b.recv(timeout=20) == n
                        down = True
                        for link in proxy.links:
                            link.cut()
                        time.sleep(1.2 + 0.17 * n)
                        down = False
                        begun = time.monotonic()
                        a.send(-n)
                        assert b.recv(timeout=20) == -n
                        waits.append(time.monotonic() - begun)
                    assert sum(waits) < 6 and max(waits) < 3, waits  # 17 and 8 s were seen

    def test_paths_that_are_over_are_forgotten(self) -> None:
        class Session:
            def __init__(self) -> None:
                self.ids: list[int] = []

            def paths(self) -> list[dict[str, int]]:
                return [{"id": number} for number in self.ids]

        cids, sessions = set(moved._table), set(moved._of)  # of tests before; they may go meanwhile
        one, other = Session(), Session()
        for number in range(1_000):
            for session in (one, other):
                session.ids = [0, number]
                moved.keep_findable(cast("Any", session), number, (os.urandom(8), os.urandom(8)))
        assert len(moved._table.keys() - cids) <= 8
        del session, other
        gc.collect()
        assert len(moved._table.keys() - cids) <= 4
        del one
        gc.collect()
        assert not moved._table.keys() - cids and not moved._of.keys() - sessions

    def test_peer_whose_process_was_killed_is_lost_with_a_reason(self) -> None:
        config = Config(datagrams=True, lease=0)
        with sync.listen(UDP, identity=BOSS, trust="any", config=config) as listener:
            body = (
                "import sys, time, netchan.sync as s, netchan as n\n"
                "p = s.dial(sys.argv[1], identity=n.Identity.generate(), config=n.Config(datagrams=True, lease=0))\n"
                "c = p.open('x', int); c.send(1); time.sleep(60)\n"
            )
            child = subprocess.Popen([sys.executable, "-c", body, listener.addresses[0]])
            far = listener.recv(timeout=10)
            channel = far.open("x", int)
            assert channel.recv(timeout=10) == 1
            child.kill()
            child.wait()
            with pytest.raises(SessionLost, match="silent too long"):
                channel.recv(timeout=15)
            assert isinstance(far.error, SessionLost)

    def test_last_word_of_a_program_that_does_nothing_more_is_said_again(self) -> None:
        calm = Config(datagrams=True, heartbeat=60)
        with sync.listen(UDP, identity=BOSS, trust="any", config=calm) as listener:
            with Relay(listener.addresses[0]) as relay:
                with sync.dial(relay.address, identity=KEY, config=calm) as near, listener.recv(timeout=10) as far:
                    tx, rx = near.open("x", int, capacity=9), far.open("x", int, capacity=9)
                    tx.send(1)
                    assert rx.recv(timeout=10) == 1
                    wait_for(lambda: near._core.session.at_rest() and far._core.session.at_rest())
                    relay.silent = True
                    before = relay.seen["up"]
                    tx.send(2)
                    end = time.monotonic() + 30
                    while relay.seen["up"] < before + 3:  # nobody looks at the session meanwhile
                        assert time.monotonic() < end, "what was lost was not sent again"
                        time.sleep(0.01)
                    relay.silent = False
                    assert rx.recv(timeout=30) == 2

    def test_close_that_was_lost_is_said_again_to_who_still_talks(self) -> None:
        def heard() -> bool:
            with (
                sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener,
                Relay(listener.addresses[0]) as relay,
            ):
                near = sync.dial(relay.address, identity=KEY, config=BOTH)
                far = listener.recv(timeout=10)
                works(near, far)
                passes = True
                relay.tap = lambda way, n, data: passes or way == "down"
                talk = far.open("talk", int, capacity=10_000)
                passes = False
                near.close()
                time.sleep(0.1)  # so said three times, and lost as often
                passes = True
                try:
                    for n in range(80):
                        talk.send(n, timeout=5)
                        time.sleep(0.05)
                except netchan.ChannelError:
                    return True
                return False

        assert any(heard() for _ in range(4)), "a session that was closed is only noticed by its silence"

    def test_child_of_a_fork_takes_nothing_from_the_sessions_of_its_parent(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            with sync.dial(listener.addresses[0], identity=KEY, config=BOTH) as near:
                far = listener.recv(timeout=5)
                a, b = near.open("x", int, capacity=100), far.open("x", int, capacity=100)
                a.send(0)
                assert b.recv(timeout=5) == 0
                port = port_of(listener)
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        with pytest.raises(ForkError):
                            a.send(1)
                        with sync.dial(listener.addresses[0], identity=Identity.generate(), config=BOTH):
                            time.sleep(0.5)
                        assert port not in open_udp_ports()
                        code = 0
                    finally:
                        os._exit(code)
                new = listener.recv(timeout=5)
                for n in range(200):
                    a.send(n)
                    assert b.recv(timeout=5) == n
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                new.close()
                b.close()

    def test_replayed_exchange_gets_no_answer_and_leaves_nothing(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            caught: list[bytes] = []
            with Relay(listener.addresses[0]) as relay:
                relay.tap = lambda way, n, data: not caught.append(data)  # type: ignore[func-returns-value]
                with sync.dial(relay.address, identity=KEY, config=BOTH) as near:
                    far = listener.recv(timeout=5)
                    near.add_path(relay.address)
                    works(near, far)
                    before = descriptors()
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
                        thief.connect(("127.0.0.1", port_of(listener)))
                        thief.settimeout(0.3)
                        for data in [*caught, *reversed(caught)]:
                            thief.send(data)
                        with pytest.raises(TimeoutError):
                            thief.recv(2_000)
                        wait_for(lambda: descriptors() <= before + 1)  # a route that is asked for has a socket, too
                    works(near, far, "y")
                    assert listener.stats().half_open == 0 and listener.stats().moved == 0

    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
    def test_session_with_its_own_io_thread_and_a_secret(self, host: str) -> None:
        config = Config(datagrams=True, io_threads=1)
        with sync.listen(f"udp://{host}:0", identity=BOSS, trust="any", psk=b"p" * 32, config=config) as listener:
            with sync.dial(listener.addresses[0], identity=KEY, psk=b"p" * 32, config=config) as near:
                far = listener.recv(timeout=5)
                works(near, far)
                assert near.remote_address == far.local_address == "udp://" + listener.addresses[0].rpartition("@")[2]
                assert [path.address for path in far.paths] == [near.local_address]

    def test_dials_that_are_cancelled_leave_nothing(self) -> None:
        def alive() -> list[Exchange]:
            return [
                found for found in gc.get_objects() if isinstance(found, Exchange) and found.phase is not Phase.OVER
            ]

        async def body() -> None:
            async with netchan.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
                with Relay(listener.addresses[0]) as relay:
                    relay.delay = 0.02
                    for n in range(40):
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(0.003 * n):
                                await (await netchan.dial(relay.address, identity=KEY, config=BOTH)).aclose()
                    relay.delay = 0.0
                    while listener.stats().pending:
                        await (await listener.recv()).aclose()

        asyncio.run(body())
        wait_for(lambda: not alive())
        before = descriptors()
        asyncio.run(body())
        gc.collect()
        wait_for(lambda: not alive() and descriptors() <= before)

    def test_program_under_trio(self) -> None:
        trio = pytest.importorskip("trio")

        async def body() -> None:
            with trio.fail_after(10):
                async with netchan.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
                    async with netchan.dial(listener.addresses[0], identity=KEY, config=BOTH) as near:
                        far = await listener.recv()
                        a, b = near.open("x", int, capacity=10), far.open("x", int, capacity=10)
                        for n in range(100):
                            await a.send(n)
                            assert await b.recv() == n

        trio.run(body)


class TestAmplification:
    """Who asks may stand under another's address: it gets at most three times what was asked with (RFC 9000 §8)."""

    @pytest.mark.parametrize("mode", ["failover", "stripe", "mirror", "parity(1, 1)"])
    def test_join_whose_address_is_not_proved_is_sent_little(self, mode: str) -> None:
        with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
            with Relay(only(listener.addresses, "udp")) as relay:
                passed = {"up": 0, "down": 0}

                def tap(way: Direction, n: int, data: bytes) -> bool:
                    asks = data[0] < 0x40
                    if way == "down" or asks:
                        passed[way] += len(data)
                    return asks and way == "up"  # no answer arrives, and no datagram of a path does

                relay.tap = tap
                with sync.dial(only(listener.addresses, "tcp"), identity=KEY, config=BOTH) as near:
                    far = listener.recv(timeout=10)
                    far.redundancy = mode
                    with near.open("x", bytes, capacity=64) as a, far.open("x", bytes, capacity=64) as b:
                        with pytest.raises(TimeoutError):
                            near.add_path(relay.address, timeout=0.05)
                        for _ in range(200):
                            b.send(bytes(9_000), timeout=10)
                            assert len(a.recv(timeout=10)) == 9_000
                            time.sleep(0.002)
                        assert passed["up"] > 0 and passed["down"] > 0
                        assert passed["down"] <= 3 * passed["up"], passed
