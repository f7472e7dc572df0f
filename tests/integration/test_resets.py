"""A UDP path whose process is gone is known to be so by what the next process there says (handshake.md §2.5)."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import Config, Identity, SessionLost, sync
from netchan.net import resume
from netchan.net.handover import on_worker
from netchan.net.listen import Listening
from netchan.net.resets import RESET_LEAST, Resets
from tests.integration.kit import BOSS, KEY
from tests.integration.programs import Program
from tests.integration.test_udp import BOTH, UDP
from tests.integration.udp_proxy import Direction, Relay

WAIT = 30.0
SILENCE = 0.3
"""Seconds in which what is not said would have come."""


def wait_for(condition: Callable[[], bool], what: str = "it never happened") -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def quiet(lease: float = 300.0) -> Config:
    """Says nothing unasked, so a path over which nothing is owed lasts while the process there is gone."""
    return Config(datagrams=True, heartbeat=60, lease=lease, close_timeout=0.1)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def place_of(address: str) -> str:
    """Without the node id."""
    return f"udp://{address.rpartition('@')[2]}"


def listening(listener: Any) -> Listening:
    found = listener._hall.listening
    assert isinstance(found, Listening)
    return found


def sent(peer: Any) -> int | None:
    """Datagrams on the one path that it has; None: it has none."""
    paths = peer._core.session.paths()
    return int(paths[0]["sent"]) if paths else None


def knows_the_token(peer: Any) -> bool:
    """And owes nothing, nor is owed an acknowledgement: no silence is counted from now on."""
    return all(path["token"] for path in peer._core.session.paths()) and peer._core.session.at_rest()


def echoed(channel: Any, value: int) -> None:
    channel.send(value)
    assert channel.recv(timeout=WAIT) == value


class TestRestart:
    @pytest.mark.parametrize("lease", [300.0, 0.0])
    def test_path_to_a_process_that_was_killed_is_lost_when_the_next_one_is_there(
        self, tmp_path: Path, lease: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "netchan.session")
        identity = str(tmp_path / "id")
        with Program("node", identity, str(lease), UDP) as old:
            address = old.line()
            near = sync.dial(address, identity=KEY, config=quiet(lease))
            events, channel = near.events, near.open("x", int, capacity=100)
            echoed(channel, 1)
            wait_for(lambda: knows_the_token(near))
            old.signal(signal.SIGKILL)
            old.wait(WAIT)
        with Program("node", identity, str(lease), place_of(address)) as new:
            assert new.line() == address
            assert near.stats()["resets"] == 0
            channel.send(2)  # it asks for an answer, and gets one
            wait_for(lambda: near.stats()["resets"] == 1)
            seen: list[netchan.PeerEvent] = []
            last = "suspended" if lease else "lost"
            wait_for(lambda: seen.extend(iter(events.take, None)) or any(event.kind == last for event in seen))
            seen = [event for event in seen if event.kind in ("path_lost", "suspended", "resumed", "lost")]
            new.say()
            assert int(new.line()) >= 1
            assert [event.kind for event in seen] == ["path_lost", last]
            if lease:
                wait_for(lambda: "stateless reset" in caplog.text)
                assert near._core.session.suspended and near.error is None  # the session is not over by that
                channel.send(3)
            else:
                with pytest.raises(SessionLost):
                    channel.recv(timeout=WAIT)
            with sync.dial(address, identity=KEY, config=quiet(lease)) as again:
                echoed(again.open("x", int, capacity=100), 4)
        near.close()

    def test_on_all_kinds_of_addresses_and_over_several_paths(self, tmp_path: Path) -> None:
        identity = str(tmp_path / "id")
        asked = ["udp://127.0.0.1:0", "udp://0.0.0.0:0", "udp://[::1]:0", "udp://[::]:0"]
        with Program("node", identity, "300", *asked) as old:
            addresses = old.line().split()
            me, _, _ = addresses[0].removeprefix("udp://").partition("@")
            one, all4, one6, all6 = map(port_of, addresses)
            ways = [f"127.0.0.1:{one}", f"127.0.0.2:{all4}", f"[::1]:{one6}", f"[::1]:{all6}"]
            nears = [sync.dial(f"udp://{me}@{way}", identity=KEY, config=quiet()) for way in ways]
            nears[0].add_path(f"udp://{me}@{ways[1]}")
            wait_for(lambda: nears[0].path_count == 2)
            channels = [near.open("x", int, capacity=100) for near in nears]
            for channel in channels:
                echoed(channel, 1)
            wait_for(lambda: all(map(knows_the_token, nears)))
            old.signal(signal.SIGKILL)
            old.wait(WAIT)
        with Program("node", identity, "300", *(place_of(address) for address in addresses)) as new:
            assert new.line().split() == addresses
            for channel in channels:
                channel.send(2)
            # of two paths the second is found out when what was on its way goes over it
            wait_for(lambda: [near.stats()["resets"] for near in nears] == [2, 1, 1, 1])
            wait_for(lambda: all(near._core.session.suspended for near in nears))
            assert all(near.error is None for near in nears)
        for near in nears:
            near.close()

    def test_another_identity_at_the_address_loses_nothing(self, tmp_path: Path) -> None:
        with Program("node", str(tmp_path / "id"), "300", UDP) as old:
            address = old.line()
            near = sync.dial(address, identity=KEY, config=quiet())
            channel = near.open("x", int, capacity=100)
            echoed(channel, 1)
            wait_for(lambda: knows_the_token(near))
            old.signal(signal.SIGKILL)
            old.wait(WAIT)
        with Program("node", str(tmp_path / "other"), "300", place_of(address)) as new:
            new.line()
            before = sent(near) or 0
            channel.send(2)
            wait_for(lambda: (sent(near) or 1 << 62) > before + 2)
            new.say()
            assert new.line() == "0" and near.stats()["resets"] == 0
        near.close()


class TestTelling:
    def test_token_gets_through_a_network_that_loses_much(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            with Relay(listener.addresses[0]) as relay:
                lost: list[bytes] = []
                first = lambda data: data[0] >= 0x40 and len(lost) < 2 and not lost.append(data)  # type: ignore[func-returns-value] # noqa: E731
                relay.tap = lambda way, n, data: way == "up" or not first(data)
                with sync.dial(relay.address, identity=KEY, config=BOTH) as near:
                    wait_for(lambda: knows_the_token(near))
                    assert len(lost) == 2 and near.stats()["resets"] == 0

    def test_path_that_was_told_its_name_goes_on_from_another_address(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            with Relay(listener.addresses[0]) as relay:
                with sync.dial(relay.address, identity=KEY, config=BOTH) as near:
                    far = listener.recv(timeout=WAIT)
                    tx, rx = near.open("x", int, capacity=9), far.open("x", int, capacity=9)
                    tx.send(1)
                    assert rx.recv(timeout=WAIT) == 1
                    wait_for(lambda: knows_the_token(near))
                    relay.move()
                    tx.send(2)
                    assert rx.recv(timeout=WAIT) == 2
                    wait_for(lambda: listener.stats().moved >= 1)
                    assert listener.stats().resets == 0 and near.stats()["resets"] == 0


class Wire:
    """A session whose datagrams somebody has seen, who can say anything to both sides."""

    def __init__(self, near: sync.Peer, far: sync.Peer, relay: Relay, caught: dict[Direction, list[bytes]]) -> None:
        self.near, self.far, self.relay, self.caught = near, far, relay, caught
        self.tx, self.rx = near.open("x", int, capacity=9), far.open("x", int, capacity=9)

    def works(self, value: int) -> None:
        self.tx.send(value)
        assert self.rx.recv(timeout=WAIT) == value

    def toward_dialler(self, data: bytes) -> None:
        self.relay._door.sendto(data, next(iter(self.relay._out)))


@contextmanager
def wire(identity: Identity = BOSS) -> Iterator[Wire]:
    caught: dict[Direction, list[bytes]] = {"up": [], "down": []}
    with sync.listen(UDP, identity=identity, trust="any", config=BOTH) as listener:
        with Relay(listener.addresses[0]) as relay:
            relay.tap = lambda way, n, data: not caught[way].append(data)  # type: ignore[func-returns-value]
            with sync.dial(relay.address, identity=KEY, config=BOTH) as near:
                seen = Wire(near, listener.recv(timeout=WAIT), relay, caught)
                seen.works(1)
                wait_for(lambda: knows_the_token(near))
                seen.works(2)
                yield seen


class TestAttack:
    def test_nobody_without_the_token_can_say_so(self) -> None:
        rng = random.Random(9)
        with wire() as seen:
            old = [data for data in seen.caught["down"] if data[0] >= 0x40]
            for n in range(3_000):
                like = rng.choice(old)
                seen.toward_dialler(bytes([0x40 | rng.getrandbits(6)]) + rng.randbytes(rng.randrange(39, 200)))
                seen.toward_dialler(like[: max(RESET_LEAST, len(like)) - 16] + rng.randbytes(16))
                if n % 100 == 0:
                    seen.toward_dialler(like)
                    seen.works(n)
            seen.works(-1)
            assert seen.near.stats()["resets"] == 0 and seen.near.path_count == 1

    def test_the_living_process_gives_the_token_to_nobody(self) -> None:
        with wire() as seen:
            names = {data[1:9] for data in seen.caught["up"] if data[0] >= 0x40}
            assert 1 <= len(names) <= 2  # that of the exchange, then the one that was told
            answers = said_to(seen.relay._target, [data for data in seen.caught["up"] if data[0] >= 0x40])
            # a challenge, if one was newer than what had come; the path is not lost by any of it
            tokens = {tail(BOSS, seen.relay._target, name) for name in names}
            assert all(answer[-16:] not in tokens for answer in answers)
            for answer in answers:
                seen.toward_dialler(answer)
            seen.works(3)
            assert seen.near.stats()["resets"] == 0

    def test_another_process_of_the_same_identity_gives_the_token_to_nobody(self, tmp_path: Path) -> None:
        identity = tmp_path / "id"
        with wire(Identity.load_or_create(identity)) as seen, Program("node", str(identity), "300", UDP) as other:
            port = port_of(other.line())
            flying = [data for data in seen.caught["up"] if data[0] >= 0x40]
            assert said_to(("127.0.0.1", port), flying) == []
            other.say()
            assert other.line() == "0"
            seen.works(3)


def tail(identity: Identity, there: tuple[str, int], name: bytes) -> bytes:
    """The token of a path by this name."""
    said = Resets(identity.reset_key()).answer(b"\x40" + name + bytes(60), there, ("192.0.2.1", 1), 0, os.urandom)
    return said[-16:] if said else os.urandom(16)


def said_to(there: tuple[str, int], datagrams: list[bytes], wait: float = SILENCE) -> list[bytes]:
    """What a stranger gets for these."""
    found: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(there)
        for data in datagrams:
            stranger.send(data)
        stranger.settimeout(wait)
        try:
            while True:
                found.append(stranger.recv(2_000))
        except TimeoutError:
            return found


class TestListener:
    """What one says of a name that it, or a process before it, may have given."""

    @staticmethod
    def named(listener: Any, size: int = 60) -> tuple[bytes, bytes]:
        """A datagram of a path that nobody has, and its token."""
        there = ("127.0.0.1", port_of(listener.addresses[0]))
        name = Resets(BOSS.reset_key()).name(there, os.urandom, lambda _: False)
        return bytes([0x47]) + name[:8] + os.urandom(size - 9), name[8:]

    def ask(self, listener: Any, n: int = 1, size: int = 60) -> list[bool]:
        """Whether each answer is the one."""
        asked = [self.named(listener, size) for _ in range(n)]
        there = ("127.0.0.1", port_of(listener.addresses[0]))
        got = said_to(there, [data for data, _ in asked])
        return [any(said.endswith(token) for _, token in asked) and len(said) < size for said in got]

    def test_it_answers_unless_the_datagram_is_too_short(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", psk=b"p" * 32, config=BOTH) as listener:
            assert self.ask(listener) == [True]
            assert self.ask(listener, size=RESET_LEAST + 1) == [True]
            assert self.ask(listener, size=RESET_LEAST) == []
            assert listener.stats().resets == 2

    def test_it_does_not_while_sessions_may_be_on_their_way_to_it(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            on_worker(resume.expect)
            try:
                assert self.ask(listener) == []
            finally:
                on_worker(resume.expected)
            assert self.ask(listener) == [True]

    def test_it_never_does_again_when_sessions_may_have_gone_elsewhere(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            on_worker(listening(listener).pause)
            assert self.ask(listener) == []
            on_worker(listening(listener).go_on)
            assert self.ask(listener) == []
            with sync.dial(listener.addresses[0], identity=KEY, config=BOTH) as near:
                wait_for(lambda: knows_the_token(near))  # the next process there may be another one

    def test_it_does_not_where_sessions_of_a_closed_one_have_the_address(self) -> None:
        listener = sync.listen(UDP, identity=BOSS, trust="any", config=BOTH)
        with sync.dial(listener.addresses[0], identity=KEY, config=BOTH), listener.recv(timeout=WAIT):
            listener.close()

            def free() -> bool:
                try:
                    again.append(sync.listen(place_of(listener.addresses[0]), identity=BOSS, trust="any", config=BOTH))
                except netchan.ListenError:
                    return False
                return True

            again: list[sync.Listener] = []
            wait_for(free)
            with again[0]:
                assert [door.alone for door in listening(again[0])._doors] == [False]
                assert self.ask(again[0]) == []

    def test_sockets_that_were_passed(self) -> None:
        from netchan.net.doors import is_alone

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            door.bind(("127.0.0.1", 0))
            assert is_alone(door)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as path:
                path.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                path.bind(door.getsockname())
                path.connect(("127.0.0.1", 9))
                assert not is_alone(door)
            assert is_alone(door)

    def test_answers_to_a_flood_are_bounded(self) -> None:
        with sync.listen(UDP, identity=BOSS, trust="any", config=BOTH) as listener:
            before = time.monotonic()
            got = self.ask(listener, 2_000)
            took = time.monotonic() - before
            assert 1 <= len(got) <= 50 + 50 * took + 1 and all(got)


def test_two_listeners_that_answer_each_other_fall_silent() -> None:
    """Somebody makes each answer look as if it named a path of the other one."""

    async def run() -> None:
        other = Identity.generate()
        async with (
            netchan.listen(UDP, identity=BOSS, trust="any", config=BOTH) as a,
            netchan.listen(UDP, identity=other, trust="any", config=BOTH) as b,
        ):
            places = [("127.0.0.1", port_of(listener.addresses[0])) for listener in (a, b)]
            makers = [Resets(identity.reset_key()) for identity in (BOSS, other)]
            data, sizes = os.urandom(1_400), [1_400]
            for turn in range(200):
                there, maker = places[turn % 2], makers[turn % 2]
                name = maker.name(there, os.urandom, lambda _: False)
                asked = b"\x40" + name[:8] + data[9:]
                got = await asyncio.to_thread(said_to, there, [asked])
                if not got:
                    break
                data = got[0]
                sizes.append(len(data))
            assert 2 <= len(sizes) <= 26
            assert all(later < earlier for earlier, later in itertools.pairwise(sizes))
            assert a.stats().resets + b.stats().resets == len(sizes) - 1

    asyncio.run(run())
