"""Who does not prove the gate gets no byte and no quick end (handshake.md §2.2, §5), over real TCP."""

from __future__ import annotations

import gc
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import netchan
from netchan import Config, Identity, sync
from netchan.net.gate import HEADER_LEN, TRAILER_LEN, parse_header, psk_keys, seal_frame
from netchan.net.handshake import Send
from netchan.net.identity import DEFAULT_NETWORK
from netchan.net.limits import DRAIN_MAX_NS, DRAIN_MIN_NS, MAX_DEAD_SOCKETS
from tests.integration.proxy import Proxy
from tests.integration.rawpeer import connect, machine, shake

PSK, OTHER = secrets.token_bytes(32), secrets.token_bytes(32)
BOSS, KEY = Identity.generate(), Identity.generate()
WAIT_S = 2.0


def hello(address: str, psk: bytes | None, wall_s: float | None = None) -> bytes:
    """A whole HELLO as a dialler sends it."""
    now = time.time() if wall_s is None else wall_s
    events = machine(address, Identity.generate(), psk=psk).start(now, 0)
    assert isinstance(events[0], Send)
    return events[0].data


def edited(frame: bytes, **fields: int) -> bytes:
    """The frame with other fields in its head and a first mac that holds."""
    header = parse_header(frame)._replace(**fields)
    return seal_frame(header, frame[HEADER_LEN:-TRAILER_LEN], psk_keys(PSK, DEFAULT_NETWORK).to_responder)


def until(condition: object, what: str, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.005)


def echo(listener: sync.Listener, address: str, psk: bytes | None) -> float:
    """Dial, send one value both ways; seconds it took."""
    begun = time.monotonic()
    with sync.dial(address, identity=KEY, psk=psk) as there:
        here = listener.recv(timeout=5)
        mine, theirs = there.open("x", bytes), here.open("x", bytes)
        mine.send(b"in", timeout=5)
        assert theirs.recv(timeout=5) == b"in"
        theirs.send(b"out", timeout=5)
        assert mine.recv(timeout=5) == b"out"
        mine.close()
        theirs.close()
        here.close()
        return time.monotonic() - begun


@contextmanager
def silent(socks: dict[str, socket.socket], seconds: float) -> Iterator[None]:
    """Nothing comes back on any of these connections for so long, no byte, no end, no reset."""
    end = time.monotonic() + seconds
    yield
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select(list(socks.values()), [], [], left)
        for name, sock in socks.items():
            if sock in ready:
                pytest.fail(f"{name}: the listener answered with {sock.recv(100)!r}")


class TestSilence:
    def test_whoever_lacks_the_key_gets_no_byte_and_no_end_for_two_seconds(self) -> None:
        config = Config(close_timeout=0.5)  # the proxy may be gone before the last word is through
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK, config=config) as listener:
            address = listener.addresses[0]
            with Proxy(address) as proxy:
                echo(listener, proxy.address, PSK)
                captured_up, captured_down = proxy.links[0].units["up"], proxy.links[0].wire("down")
            good = hello(address, PSK)
            tries = {
                "wrong psk": hello(address, OTHER),
                "no psk": hello(address, None),
                "no psk, no id": hello("tcp://" + address.partition("@")[2], OTHER),
                "replayed HELLO": captured_up[0],
                "replayed HELLO and FINISH": captured_up[0] + captured_up[1],
                "replay of the whole session": b"".join(captured_up),
                "our own answers": captured_down,
                "31 s late": hello(address, PSK, time.time() - 31),
                "31 s early": hello(address, PSK, time.time() + 31),
                "truncated": good[:-1],
                "one byte changed": good[:300] + bytes((good[300] ^ 1,)) + good[301:],
                "mac of another version, unsealed": bytes((good[0], good[1] + 1)) + good[2:],
                "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),
                "zeros": bytes(5000),
                "random": os.urandom(5000),
                "header only": good[:22],
                "longest length": good[:2] + b"\xff\xff" + good[4:],
                "one byte": b"\x01",
                "REPLY": b"\x02" + good[1:],
                "CLOSE": struct.pack(">BBHBB8sQ", 8, 1, 56, 1, 0, bytes(8), 0) + bytes(34),
                "nothing": b"",
            }
            before = listener.stats()
            socks = {}
            for name, data in tries.items():
                socks[name] = connect(address)[0]
                socks[name].sendall(data)
            try:
                with silent(socks, WAIT_S):
                    # a good one gets in while all of them wait
                    took = echo(listener, address, PSK)
                stats = listener.stats()
                waiting = {"truncated", "header only", "one byte", "nothing"}
                assert stats.drained - before.drained == len(tries) - len(waiting)
                assert stats.half_open == len(waiting)
                assert stats.held == len(tries) - len(waiting)
                assert sum(stats.handshakes_failed.values()) == 0
                for sock in socks.values():  # what comes later is thrown away too, without an answer
                    sock.sendall(good)
                with silent({n: s for n, s in socks.items() if n not in waiting}, 0.3):
                    pass
            finally:
                for sock in socks.values():
                    sock.close()
            until(lambda: listener.stats().held == 0, "closed by the other side, and still held")
            print(
                f"\n{len(tries)} kinds of strangers: 0 bytes, all open after {WAIT_S} s; good psk {took * 1e3:.1f} ms"
            )

    def test_dial_with_the_wrong_key_or_none_is_a_dial_timeout_that_says_why(self) -> None:
        quick = Config(dial_timeout=1.0, handshake_timeout=0.6)
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK) as listener:
            for psk in (OTHER, None):
                with pytest.raises(netchan.DialTimeout, match="wrong PSK"):
                    sync.dial(listener.addresses[0], identity=KEY, psk=psk, config=quick)
            assert listener.stats().drained == 2
            assert listener.stats().handshakes_ok == 0
            echo(listener, listener.addresses[0], PSK)

    def test_replayed_hello_gets_nothing_from_its_own_listener_also_after_the_session(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK) as listener:
            with Proxy(listener.addresses[0]) as proxy:
                for _ in range(3):
                    echo(listener, proxy.address, PSK)
                hellos = [link.units["up"][0] for link in proxy.links]
            socks = {}
            for round_ in range(5):
                for number, data in enumerate(hellos):
                    sock = socks[f"{number} in round {round_}"] = connect(listener.addresses[0])[0]
                    sock.sendall(data)
            with silent(socks, 1.0):
                pass
            for sock in socks.values():
                sock.close()
            assert listener.stats().drained == 15
            assert listener.stats().handshakes_ok == 3

    def test_held_strangers_are_bounded_and_end_between_thirty_and_ninety_seconds(self) -> None:
        count = MAX_DEAD_SOCKETS + 60
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK) as listener:
            fds = len(os.listdir("/proc/self/fd"))
            socks = []
            begun = time.monotonic_ns()
            try:
                for number in range(count):
                    sock, _ = connect(listener.addresses[0])
                    sock.sendall(os.urandom(2000))
                    socks.append(sock)
                    until(lambda n=number: listener.stats().drained == n + 1, "not drained")
                assert listener.stats().held == MAX_DEAD_SOCKETS
                # the oldest were closed, without a byte; the others are open
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
                assert ended == list(range(count - MAX_DEAD_SOCKETS))
                deadlines = list(listener._hall.listening._dead._held.values())
                assert min(deadlines) >= begun + DRAIN_MIN_NS
                assert max(deadlines) <= time.monotonic_ns() + DRAIN_MAX_NS
                assert max(deadlines) - min(deadlines) > 30_000_000_000, "the deadlines are not spread"
                took = echo(listener, listener.addresses[0], PSK)
            finally:
                for sock in socks:
                    sock.close()
            until(lambda: listener.stats().held == 0, "still held")
            gc.collect()
            until(lambda: len(os.listdir("/proc/self/fd")) <= fds + 3, "descriptors are left")
            print(
                f"\n{count} strangers: {MAX_DEAD_SOCKETS} held, oldest {len(ended)} closed; they end in "
                f"{(min(deadlines) - begun) / 1e9:.0f} to {(max(deadlines) - begun) / 1e9:.0f} s; "
                f"echo {took * 1e3:.0f} ms"
            )

    def test_stranger_that_floods_a_held_connection_costs_no_memory(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK) as listener:
            sock, _ = connect(listener.addresses[0])
            sock.sendall(bytes(100))
            until(lambda: listener.stats().held == 1, "not held")
            before = rss()
            block = os.urandom(1 << 20)
            for _ in range(64):
                sock.sendall(block)
            echo(listener, listener.addresses[0], PSK)
            grown = rss() - before
            sock.close()
            assert grown < 8 << 20
            print(f"\n64 MiB thrown away, resident set + {grown >> 10} KiB")


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class TestProved:
    """Behind the gate there are answers, but only what the spec says."""

    def test_unknown_version_gets_the_version_list_and_nothing_else(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK) as listener:
            for version in (0, 2, 255):
                sock, _ = connect(listener.addresses[0])
                sock.sendall(edited(hello(listener.addresses[0], PSK), version=version))
                answer = read_all(sock)
                header = parse_header(answer)
                assert header.kind == 5
                assert header.length == len(answer)
                assert answer[HEADER_LEN:-TRAILER_LEN] == b"\x01\x01"
            assert listener.stats().handshakes_failed == {"version": 3}

    def test_unknown_suite_and_mode_get_close_suite(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK) as listener:
            for suite in (0x00, 0x02, 0x03, 0x0F, 0x12, 0x2F, 0x31, 0xF1):
                sock, _ = connect(listener.addresses[0])
                sock.sendall(edited(hello(listener.addresses[0], PSK), suite=suite))
                answer = read_all(sock)
                assert parse_header(answer).kind == 8, hex(suite)
                assert answer[HEADER_LEN:-TRAILER_LEN] == b"\x00\x42"
            assert listener.stats().handshakes_failed == {"suite": 8}

    def test_holder_of_the_key_is_still_a_stranger_without_trust(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, psk=PSK, trust=[KEY.node_id]) as listener:
            with pytest.raises(netchan.AuthError, match="UNTRUSTED"):
                sync.dial(listener.addresses[0], psk=PSK)
            assert listener.stats().handshakes_failed == {"untrusted": 1}
            echo(listener, listener.addresses[0], PSK)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side ends it."""
    out = bytearray()
    with sock:
        while data := sock.recv(4096):
            out += data
    return bytes(out)


class TestIdentity:
    """Wrong key in the trust list, wrong node id in the address, our own key back, a record that is over."""

    QUICK = Config(dial_timeout=1.0, handshake_timeout=0.6)

    def test_wrong_key_in_the_trust_list_is_an_auth_error_and_counted(self) -> None:
        other = Identity.generate()
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust=[other.node_id]) as listener:
            with pytest.raises(netchan.AuthError, match=r"UNTRUSTED.*add our node id"):
                sync.dial(listener.addresses[0], identity=KEY)
            until(lambda: listener.stats().handshakes_failed == {"untrusted": 1}, "not counted")
            assert listener.stats().handshakes_ok == 0
            with sync.dial(listener.addresses[0], identity=other):
                pass

    def test_wrong_node_id_in_the_address_is_silence_without_a_key_and_an_error_with_one(self) -> None:
        wrong = Identity.generate().node_id
        for psk in (None, PSK):
            with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", psk=psk) as listener:
                place = listener.addresses[0].partition("@")[2]
                with pytest.raises(netchan.DialError) as caught:
                    sync.dial(f"tcp://{wrong}@{place}", identity=KEY, psk=psk, config=self.QUICK)
                assert isinstance(caught.value, netchan.DialTimeout if psk is None else netchan.HandshakeError)
                stats = listener.stats()
                assert stats.handshakes_ok == 0
                assert stats.drained + sum(stats.handshakes_failed.values()) == 1
                print(f"\npsk {psk is not None}: {type(caught.value).__name__}: {caught.value}")

    def test_wrong_node_in_the_dialler_s_trust_list_is_an_auth_error(self) -> None:
        other = Identity.generate()
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any") as listener:
            place = "tcp://" + listener.addresses[0].partition("@")[2]
            with pytest.raises(netchan.AuthError):
                sync.dial(place, identity=KEY, trust=[other.node_id])
            until(lambda: listener.stats().handshakes_failed == {"untrusted": 1}, "not counted")

    def test_dialling_ourselves_through_a_proxy_is_an_auth_error(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any") as listener:
            with Proxy(listener.addresses[0]) as proxy:
                with pytest.raises(netchan.AuthError, match="SELF"):
                    sync.dial(proxy.address, identity=BOSS)
            until(lambda: sum(listener.stats().handshakes_failed.values()) == 1, "not counted")
            assert listener.stats().handshakes_ok == 0

    def test_own_bytes_sent_back_are_a_handshake_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mirror:

            def reflect() -> None:
                sock, _ = mirror.accept()
                with sock:
                    while data := sock.recv(65536):
                        sock.sendall(data)

            thread = threading.Thread(target=reflect, daemon=True)
            thread.start()
            address = f"tcp://{BOSS.node_id}@127.0.0.1:{mirror.getsockname()[1]}"
            with pytest.raises(netchan.HandshakeError) as caught:
                sync.dial(address, identity=KEY, config=self.QUICK)
            thread.join(3)
            assert not isinstance(caught.value, netchan.AuthError)

    def test_record_that_is_over_is_refused_on_either_side(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any") as listener:
            address = listener.addresses[0]
            for shift in (-9 * 86_400, 9 * 86_400):
                sock, _ = connect(address)
                with sock, pytest.raises(netchan.AuthError, match="EXPIRED"):
                    shake(sock, machine(address, KEY), wall_s=time.time() + shift)
            until(lambda: listener.stats().handshakes_failed == {"expired": 2}, "not counted")
            # and the listener's record in the eyes of a dialler whose clock is wrong
            sock, _ = connect(address)
            with sock:
                step = machine(address, KEY)
                late = time.time() + 9 * 86_400
                sock.sendall(step.start(late, 0)[0].data)  # type: ignore[union-attr]
                events = step.feed(sock.recv(65536), late, 0)
                error = next(event.error for event in events if hasattr(event, "error"))
                assert isinstance(error, netchan.AuthError)
                assert "EXPIRED" in str(error)

    def test_unknown_critical_item_is_refused_and_an_unknown_other_one_is_skipped(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any") as listener:
            address = listener.addresses[0]
            for kind, good in ((0x3FFFFFF1, False), (0x3FFFFFF2, True)):
                sock, _ = connect(address)
                step = machine(address, KEY)
                real = step._offer_payload

                def more(static: object, with_record: bool, kind: int = kind, real: object = real) -> bytes:
                    from netchan.net.params import encode_varint

                    return real(static, with_record) + encode_varint(kind) + b"\x01x"  # type: ignore[operator]

                step._offer_payload = more  # type: ignore[method-assign, assignment]
                with sock:
                    if good:
                        assert shake(sock, step).node_id == BOSS.node_id
                        listener.recv(timeout=5).close()
                    else:
                        with pytest.raises(netchan.HandshakeError, match="PARAMETER"):
                            shake(sock, step)
            assert listener.stats().handshakes_failed == {"parameter": 1}

    def test_other_suite_of_a_real_dialler_is_a_handshake_error_that_names_pq(self) -> None:
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", pq="off") as listener:
            with pytest.raises(netchan.HandshakeError, match="pq="):
                sync.dial(listener.addresses[0], identity=KEY)
            until(lambda: listener.stats().handshakes_failed == {"suite": 1}, "not counted")
