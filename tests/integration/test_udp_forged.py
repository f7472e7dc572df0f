"""An attacker who sees the datagrams of an exchange, or knows its addresses, and says more than he should (§2.4).

He cannot stop the true ones; what he says comes ahead of each of them. Spec: docs/spec/handshake.md §2.4.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from netchan import AuthError, Config, Identity, sync
from netchan.net import gate as g
from netchan.net.connecting import Phase
from netchan.net.datagrams import Exchange
from netchan.net.handshake import Initiator
from netchan.net.worker import READ, worker
from tests.integration.kit import BOSS, KEY, TCP
from tests.integration.test_udp import BOTH, UDP, only
from tests.integration.test_udp_hard import toward_dialler, toward_listener, wait_for, works
from tests.integration.udp_proxy import Direction, Relay
from tests.unit.net.observer import DOWN, GONE, UNTRUSTED, UP, Observer

TIMES = 3
"""Each forgery, ahead of each true message."""
Forge = Callable[[bool, bytes], list[bytes]]


@contextmanager
def watched(listener: sync.Listener, observer: Observer, forge: Forge, address: str = "") -> Iterator[Relay]:
    """A way to the listener beside which the observer sits; what he sends is bounded by what passes."""
    with Relay(address or listener.addresses[0]) as relay:

        def tap(way: Direction, _: int, data: bytes) -> bool:
            if data[0] < 0x40:
                observer.note(way == "up", data)
                for forged in forge(way == "up", data):
                    (toward_listener if way == "up" else toward_dialler)(relay, forged)
            return True

        relay.tap = tap
        yield relay


@pytest.mark.parametrize("what", [*DOWN, "COOKIE", "a REPLY of his own", "all"])
def test_nothing_that_an_observer_says_to_the_dialler_ends_its_dial(what: str) -> None:
    observer = Observer(BOSS.id_pub)

    def forge(up: bool, data: bytes) -> list[bytes]:
        if up:
            return []
        if what == "COOKIE":
            return [observer.make(False, g.COOKIE, os.urandom(16)) for _ in range(TIMES)]
        if what == "a REPLY of his own":
            return [observer.own_reply(time.time())] if data[0] == g.REPLY else []
        names = DOWN if what == "all" else [what]
        return [observer.make(False, *DOWN[name]) for name in names] * TIMES

    with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with (
            watched(listener, observer, forge) as relay,
            sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=5)) as near,
            listener.recv(timeout=5) as far,
        ):
            works(near, far)
        assert listener.stats().handshakes_ok == 1 and not listener.stats().handshakes_failed


@pytest.mark.parametrize("what", [*UP, "all"])
def test_nothing_that_an_observer_says_to_the_listener_ends_a_handshake(what: str) -> None:
    observer = Observer(BOSS.id_pub)

    def forge(up: bool, data: bytes) -> list[bytes]:
        if not up or data[0] == g.HELLO:
            return []
        return [observer.make(True, *UP[name]) for name in (UP if what == "all" else [what])] * TIMES

    with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with (
            watched(listener, observer, forge) as relay,
            sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=5)) as near,
            listener.recv(timeout=5) as far,
        ):
            works(near, far)
        assert listener.stats().handshakes_ok == 1 and not listener.stats().handshakes_failed


def test_who_does_not_see_the_id_of_an_exchange_changes_nothing() -> None:
    """He knows the node id and both addresses, so mac1 holds and the kernel lets him through."""
    observer = Observer(BOSS.id_pub)

    def forge(up: bool, data: bytes) -> list[bytes]:
        return [] if up else [observer.make(False, *DOWN[name], os.urandom(8)) for name in DOWN] * 5

    with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with (
            watched(listener, observer, forge) as relay,
            sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=5)) as near,
            listener.recv(timeout=5) as far,
        ):
            works(near, far)


def test_hello_before_a_forged_cookie_is_said_again_too() -> None:
    """The listener waits for what follows the first one; its answer was lost."""
    observer = Observer(BOSS.id_pub)
    with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:

            def tap(way: Direction, number: int, data: bytes) -> bool:
                if data[0] < 0x40:
                    observer.note(way == "up", data)
                if (way, number) == ("down", 0):
                    toward_dialler(relay, observer.make(False, g.COOKIE, os.urandom(16)))
                    return False
                return True

            relay.tap = tap
            with (
                sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=4)) as near,
                listener.recv(timeout=5) as far,
            ):
                works(near, far)


def test_forged_answer_does_not_push_out_the_true_one_right_behind_it() -> None:
    observer = Observer(BOSS.id_pub)
    held: list[bytes] = []
    found: list[bytes] = []

    def tap(way: Direction, _: int, data: bytes) -> bool:
        observer.note(way == "up", data)
        if data[0] != g.REPLY or found:
            return True
        held.append(data)
        return False

    def both() -> None:
        """On the thread of handshakes, so nothing is looked at between the two."""
        alive = [one for one in gc.get_objects() if isinstance(one, Exchange) and one.phase is Phase.HANDSHAKE]
        (conn,) = (one for one in alive if isinstance(one.machine, Initiator))
        toward_dialler(relay, observer.make(False, *DOWN["REPLY"]))
        toward_dialler(relay, held[0])
        for _ in range(3):
            select.select([conn.fd], [], [], 5)
            conn.on_io(READ)
        assert conn.fd not in worker()._watched  # nor does it turn in circles till then
        found.append(conn.sock.recv(4_096, socket.MSG_PEEK))

    with sync.listen(UDP, identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay, ThreadPoolExecutor(1) as pool:
            relay.tap = tap
            config = Config(datagrams=True, dial_timeout=8)
            dial = pool.submit(sync.dial, relay.address, identity=KEY, config=config)
            wait_for(lambda: bool(held))
            worker().post(both)
            with dial.result() as near, listener.recv(timeout=5) as far:
                works(near, far)
    assert found == held[:1]


def test_refusal_is_reported_when_nothing_better_comes() -> None:
    observer = Observer(BOSS.id_pub)
    with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:

            def tap(way: Direction, _: int, data: bytes) -> bool:
                observer.note(way == "up", data)
                toward_dialler(relay, observer.make(False, g.CLOSE, UNTRUSTED))
                return False

            relay.tap = tap
            begun = time.monotonic()
            with pytest.raises(AuthError, match="UNTRUSTED"):
                sync.dial(relay.address, identity=KEY, config=Config(datagrams=True, dial_timeout=30))
            assert 0.9 < time.monotonic() - begun < 4.5  # not when the time of the handshake is over


def test_forged_answers_over_udp_do_not_hold_up_a_dial_over_tcp() -> None:
    observer = Observer(BOSS.id_pub)
    with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with Relay(only(listener.addresses, "udp")) as relay:

            def tap(way: Direction, _: int, data: bytes) -> bool:
                observer.note(way == "up", data)
                toward_dialler(relay, observer.make(False, *DOWN["REPLY"]))
                return False

            relay.tap = tap
            config = Config(datagrams=True, dial_timeout=15, handshake_timeout=14)
            begun = time.monotonic()
            with sync.dial([relay.address, only(listener.addresses, "tcp")], identity=KEY, config=config) as near:
                assert time.monotonic() - begun < 10
                with listener.recv(timeout=5) as far:
                    works(near, far)


@pytest.mark.parametrize("what", ["JOIN", "CLOSE with a false proof", "gone", "VERSIONS", "REPLY"])
def test_path_is_joined_beside_forged_answers(what: str) -> None:
    observer = Observer(BOSS.id_pub)
    kind, body = (g.CLOSE, GONE) if what == "gone" else DOWN[what]

    def forge(up: bool, data: bytes) -> list[bytes]:
        return [] if up else [observer.make(False, kind, body)] * TIMES

    with sync.listen([TCP, UDP], identity=BOSS, trust=[KEY.node_id], config=BOTH) as listener:
        with (
            watched(listener, observer, forge, only(listener.addresses, "udp")) as relay,
            sync.dial(only(listener.addresses, "tcp"), identity=KEY, config=BOTH) as near,
            listener.recv(timeout=5) as far,
        ):
            near.add_path(relay.address, timeout=10)
            assert near.path_count == 2
            works(near, far)


@pytest.mark.parametrize("what", ["NO_TICKET", "RESUMED", "CLOSE", "all"])
def test_ticket_begins_a_session_beside_forged_answers(what: str) -> None:
    observer, key = Observer(BOSS.id_pub), Identity.generate()

    def forge(up: bool, data: bytes) -> list[bytes]:
        return [] if up else [observer.make(False, *DOWN[name]) for name in (DOWN if what == "all" else [what])] * TIMES

    with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
        with sync.dial(listener.addresses[0], identity=key, config=BOTH) as near, listener.recv(timeout=5) as far:
            works(near, far)
            wait_for(lambda: bool(near.ticket))
            ticket = near.ticket
        with (
            watched(listener, observer, forge) as relay,
            sync.dial(relay.address, identity=key, config=BOTH, ticket=ticket) as near,
            listener.recv(timeout=5) as far,
        ):
            works(near, far)
            assert near.by_ticket and far.by_ticket
