"""A UDP listener under load: who asks shows first where it is, and costs nothing till then (handshake.md §2.4, §5)."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from netchan import Config, Identity, Limits, sync
from netchan.net import gate as g
from netchan.net.datagrams import Exchange
from netchan.net.handshake import HandshakeConfig, Initiator, Send
from netchan.net.identity import DEFAULT_NETWORK
from netchan.net.trust import make_policy
from tests.integration.kit import BOSS, KEY
from tests.integration.slope import descriptors
from tests.integration.test_udp import BOTH, UDP
from tests.integration.test_udp_hard import port_of, wait_for, works
from tests.integration.udp_proxy import Direction, Relay

BUSY = 4
"""Handshakes that go on before cookies are asked for."""
KEYS = g.named_keys(BOSS.id_pub, DEFAULT_NETWORK)
Stranger = socket.socket


def stranger(listener: sync.Listener) -> Stranger:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port_of(listener)))
    sock.settimeout(8)
    return sock


def dialler() -> Initiator:
    """A genuine one without a carrier."""
    policy = make_policy("any", own_id=KEY.id_pub, dialling=True, expected_id=BOSS.id_pub)
    return Initiator(HandshakeConfig(KEY), policy, os.urandom)


def first_word(machine: Initiator) -> bytes:
    (event,) = machine.start(time.time(), time.monotonic_ns())
    assert isinstance(event, Send)
    return event.data


def next_word(machine: Initiator, data: bytes) -> bytes:
    (event,) = machine.feed(data, time.time(), time.monotonic_ns())
    assert isinstance(event, Send)
    return event.data


def begin(sock: Stranger) -> None:
    """A handshake that stands before its FINISH. A machine that is busy by itself may ask for a cookie, too."""
    machine = dialler()
    said = first_word(machine)
    while True:
        sock.send(said)
        answer = sock.recv(2_000)
        if answer[0] == g.REPLY:
            return
        assert answer[0] == g.COOKIE
        said = next_word(machine, answer)


def forged(kind: int = g.HELLO, size: int = 1_280) -> bytes:
    """What anybody can make who knows the node id: it passes mac1, and nothing in it is true."""
    header = g.Header(
        kind, g.VERSION, 0, g.MODE_XX_NAMED << 4 | g.SUITE_HYBRID, 0, os.urandom(8), int(time.time() * 1000)
    )
    return g.seal_frame(header, os.urandom(size), KEYS.to_responder)


def dial_and_talk(listener: sync.Listener, address: str) -> None:
    with (
        sync.dial(address, identity=Identity.generate(), config=BOTH) as near,
        listener.recv(timeout=5) as far,
    ):
        works(near, far)


def exchanges() -> int:
    return sum(isinstance(found, Exchange) for found in gc.get_objects())


@contextmanager
def under_load() -> Iterator[sync.Listener]:
    """A listener with more handshakes under way than it takes without a cookie; they go on till the end."""
    config = Config(datagrams=True, handshake_timeout=60, limits=Limits(half_open=BUSY))
    with sync.listen(UDP, identity=BOSS, trust="any", config=config) as listener, ExitStack() as stack:
        for _ in range(BUSY + 1):
            sock = stack.enter_context(stranger(listener))
            begin(sock)
        assert listener.stats().half_open == BUSY + 1
        yield listener


def test_dial_goes_through_by_a_cookie() -> None:
    with under_load() as listener, Relay(listener.addresses[0]) as relay:
        kinds: list[tuple[Direction, int]] = []

        def tap(way: Direction, _: int, data: bytes) -> bool:
            kinds.append((way, data[0]))
            return True

        relay.tap = tap
        dial_and_talk(listener, relay.address)
        said = [kind for _, kind in kinds if kind < 0x40]
        assert said[:6] == [g.HELLO, g.COOKIE, g.HELLO, g.REPLY, g.FINISH, g.ACCEPT] or said.count(g.HELLO) > 2
        assert listener.stats().cookies >= 1


def test_dial_whose_cookie_was_lost_gets_it_again() -> None:
    with under_load() as listener, Relay(listener.addresses[0]) as relay:
        relay.tap = lambda way, n, data: way == "up" or n > 1
        dial_and_talk(listener, relay.address)
        assert listener.stats().cookies >= 3


@pytest.mark.parametrize("kind", [g.HELLO, g.RESUME])
def test_flood_of_first_messages_costs_no_socket_and_gets_less_than_it_sent(kind: int) -> None:
    with under_load() as listener, ExitStack() as stack:
        socks = [stack.enter_context(stranger(listener)) for _ in range(50)]
        fds, before, told = descriptors(), exchanges(), listener.stats()
        most = 0
        for _ in range(40):
            for sock in socks:
                sock.send(forged(kind))
            for sock in socks:
                said = sock.recv(2_000)
                assert said[0] == g.COOKIE and len(said) == 70
            most = max(most, descriptors())
        now = listener.stats()
        assert now.cookies - told.cookies == 2_000
        assert most < fds + 5 and exchanges() <= before
        assert (now.half_open, now.held, now.accepted) == (told.half_open, told.held, told.accepted)
        for sock in socks:  # and nobody is told more
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(2_000)
        # what was sent under other names has used up nothing
        dial_and_talk(listener, listener.addresses[0])


def test_cookie_is_good_for_the_address_it_was_given_to() -> None:
    with under_load() as listener, stranger(listener) as mine, stranger(listener) as other:
        machine = dialler()
        mine.send(first_word(machine))
        again = next_word(machine, mine.recv(2_000))
        told = listener.stats()
        other.send(again)
        assert other.recv(2_000)[0] == g.COOKIE
        assert (listener.stats().half_open, listener.stats().accepted) == (told.half_open, told.accepted)
        mine.send(again)
        assert mine.recv(2_000)[0] == g.REPLY
        assert listener.stats().half_open == told.half_open + 1
        other.send(again)  # it has passed: a replay, which is not answered at all
        wait_for(lambda: listener.stats().drained == told.drained + 1)


def test_joins_of_no_session_cost_no_socket() -> None:
    with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener, ExitStack() as stack:
        socks = [stack.enter_context(stranger(listener)) for _ in range(50)]
        fds, before = descriptors(), exchanges()
        for _ in range(4):
            for sock in socks:
                sock.send(forged(g.JOIN, g.MAX_FRAME[g.JOIN] - g.HEADER_LEN - g.TRAILER_LEN))
            for sock in socks:
                said = sock.recv(2_000)
                assert said[0] == g.CLOSE and len(said) == 56
            assert descriptors() < fds + 5
        assert exchanges() <= before
        assert listener.stats().accepted == 0 and listener.stats().handshakes_failed == {"gone": 200}
