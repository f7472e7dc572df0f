"""What is done to a UDP listener, its exchanges and its paths by networks, strangers and other programs."""

from __future__ import annotations

import os

import pytest

from netchan import Config, sync
from tests.integration.kit import BOSS, KEY
from tests.integration.test_udp import BOTH, UDP
from tests.integration.udp_proxy import Direction, Relay


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
                    with near.open("x", int) as a, listener.recv(timeout=5).open("x", int) as b:
                        a.send(1)
                        assert b.recv(timeout=5) == 1
