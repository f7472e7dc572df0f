"""Records taken from the wire and put in again elsewhere: other place, direction, session, channel, epoch, path.

Nothing of it opens, nothing is delivered twice, and the session ends with CRYPTO (wire.md §3, keys.md §1).
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
from netchan._core._selftest_crypto import Keys, Store

import netchan
from netchan import Config, Identity, sync
from netchan._core import _selftest_session as core
from netchan._core import provider
from tests.integration.proxy import Direction, Link, Proxy, Tap

BOSS, KEY = Identity.generate(), Identity.generate()
CRYPTO = 9
CONFIG = Config(lease=0.0)
VALUES = 60
FIRST = 2
"""Units before the first record: two messages of the handshake in each direction."""


def value(number: int) -> bytes:
    return b"%04d" % number


class Talk:
    """Values up and their echo, through a proxy with a tap; what both sides got and how their sessions ended."""

    def __init__(self, tap: Tap | None) -> None:
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.errors: list[str] = []
        begun = time.monotonic()
        with sync.listen("tcp://127.0.0.1:0", identity=BOSS, trust=[KEY.node_id], config=CONFIG) as listener:
            with Proxy(listener.addresses[0], tap=tap) as proxy:
                there = sync.dial(proxy.address, identity=KEY, config=CONFIG)
                here = listener.recv(timeout=5)
                thread = threading.Thread(target=self._echo, args=(here,))
                thread.start()
                mine = there.open("x", bytes)
                try:
                    for number in range(VALUES):
                        mine.send(value(number), timeout=5)
                        self.down.append(mine.recv(timeout=5))
                    mine.close()
                except netchan.NetchanError as error:
                    self._note("dialler", error)
                thread.join(10)
                mine.abort()
                self.codes = sorted({there._core.session.close_code, here._core.session.close_code})
                self.over = (there._core.session.over, here._core.session.over)
                there.close()
                there.wait_closed(timeout=5)
                here.close()
                here.wait_closed(timeout=5)
                self.link = proxy.links[0]
        self.seconds = time.monotonic() - begun

    def _echo(self, peer: sync.Peer) -> None:
        channel = peer.open("x", bytes)
        try:
            for got in channel:
                self.up.append(got)
                channel.send(got, timeout=5)
            channel.close()
        except netchan.NetchanError as error:
            self._note("listener", error)
            channel.abort()

    def _note(self, who: str, error: netchan.NetchanError) -> None:
        cause = getattr(error, "__cause__", None)
        self.errors.append(f"{who}: {type(error).__name__} ({cause})")

    def check(self) -> None:
        for got in (self.up, self.down):
            assert got == [value(number) for number in range(len(got))], "delivered twice, or out of order"
        assert len(self.up) < VALUES or len(self.down) < VALUES, "it went unnoticed"
        assert CRYPTO in self.codes
        assert any("SessionLost" in error and "code 9" in error for error in self.errors)
        assert self.seconds < 4


def at(direction: Direction, number: int, change: Any) -> Tap:
    """A tap that changes one unit."""

    def tap(link: Link, where: Direction, unit: int, data: bytes) -> bytes | None:
        return change(link, data) if (where, unit) == (direction, number) else data

    return tap


class TestSplicedRecords:
    def test_untouched_talk_goes_through(self) -> None:
        talk = Talk(None)
        assert talk.up == talk.down == [value(number) for number in range(VALUES)]
        assert talk.errors == []

    @pytest.mark.parametrize("direction", ["up", "down"])
    @pytest.mark.parametrize(
        "kind", ["again", "older again", "left out", "exchanged", "other direction", "own direction"]
    )
    def test_record_at_another_place_ends_the_session(self, direction: Direction, kind: str) -> None:
        other: Direction = "down" if direction == "up" else "up"
        held: list[bytes] = []

        def exchanged(link: Link, where: Direction, unit: int, data: bytes) -> bytes | None:
            # the next record of a talk in turns comes only when this one has arrived: an older one takes its place
            if (where, unit) == (direction, 12):
                return link.units[direction][10] + data
            return data

        def reflected(link: Link, where: Direction, unit: int, data: bytes) -> bytes | None:
            if (where, unit) == (direction, 12):
                held.append(data)
                link.inject(other, data)
            return data

        taps: dict[str, Tap] = {
            "again": at(direction, 12, lambda link, data: data + data),
            "older again": at(direction, 20, lambda link, data: link.units[direction][FIRST + 1] + data),
            "left out": at(direction, 12, lambda link, data: link.units[direction][11]),
            "exchanged": exchanged,
            "other direction": reflected,
            "own direction": at(
                direction, 12, lambda link, data: link.units[other][min(11, len(link.units[other]) - 1)]
            ),
        }
        talk = Talk(taps[kind])
        talk.check()
        print(
            f"\n{kind} ({direction}): up {len(talk.up)} down {len(talk.down)} codes {talk.codes} {talk.seconds:.2f} s"
        )

    @pytest.mark.parametrize("direction", ["up", "down"])
    @pytest.mark.parametrize("place", [FIRST, FIRST + 1, 15])
    def test_record_of_an_earlier_session_of_the_same_pair_ends_the_session(
        self, direction: Direction, place: int
    ) -> None:
        before = Talk(None).link.units[direction]
        same = at(direction, place, lambda link, data: before[place])
        talk = Talk(same)
        talk.check()
        more = Talk(at(direction, place, lambda link, data: before[place] + data))
        more.check()
        print(f"\nsession 1, record {place - FIRST} ({direction}) in session 2: codes {talk.codes} {more.codes}")

    def test_whole_earlier_session_replayed_after_the_handshake_delivers_nothing(self) -> None:
        before = Talk(None).link.units["up"]
        talk = Talk(at("up", FIRST, lambda link, data: b"".join(before[FIRST:])))
        talk.check()
        assert talk.up == []


class TestSealedElsewhere:
    """The holder of all keys seals for one place; every other place refuses it."""

    def test_ten_thousand_records_open_only_where_they_belong(self) -> None:
        rng = random.Random(11)
        cipher = provider.load().ciphers[0]
        store = Store(provider.load(), cipher, slots=4096, sessions=64)
        roots = [rng.randbytes(32) for _ in range(3)]
        tags = [0, 1, *range(16, 40)]
        paths = [0, 2, 3, 9]

        def side(session: int, role: int, epoch: int) -> Keys:
            keys = Keys(store, bytearray(roots[session]), role)
            for path in paths:
                assert keys.path_add(path, 1) >= 0
            for step in range(1, epoch + 1):
                assert keys.update() >= 0
                keys.update_acked(step)
            return keys

        sealers = {(s, r, e): side(s, r, e) for s in range(3) for r in (0, 1) for e in (0, 1, 2)}
        openers = {(s, r): side(s, r, 0) for s in range(3) for r in (0, 1)}
        numbers = itertools.count(1)
        accepted: Counter[str] = Counter()
        controls = tried = 0
        kinds: Counter[str] = Counter()
        while tried < 10_000:
            s, r, e = rng.choice(list(sealers))
            tag, path, number = rng.choice(tags), rng.randrange(len(paths)), next(numbers)
            aad = b"head"
            record = sealers[s, r, e].seal(path, number, tag, b"payload %d" % number, aad)
            assert isinstance(record, bytes)
            byte = sealers[s, r, e].epoch_byte()
            here = openers[s, 1 - r]
            others = {
                "channel": (here, path, number, byte, rng.choice([t for t in tags if t != tag]), aad),
                "path": (here, rng.choice([p for p in range(len(paths)) if p != path]), number, byte, tag, aad),
                "number": (here, path, number + rng.choice((-1, 1, 1000)), byte, tag, aad),
                "epoch": (here, path, number, (byte + rng.choice((1, 2, 255))) % 256, tag, aad),
                "direction": (openers[s, r], path, number, byte, tag, aad),
                "session": (openers[rng.choice([o for o in range(3) if o != s]), 1 - r], path, number, byte, tag, aad),
                "binding": (here, path, number, byte, tag, aad + bytes(32)),
            }
            for kind, (keys, *where, head) in others.items():
                got = keys.open(*where[:4], record, head)  # type: ignore[arg-type, call-arg]
                accepted[kind] += isinstance(got, bytes)
                kinds[kind] += 1
                tried += 1
            if e == 0:  # where it belongs it opens: the sealing itself is right
                assert here.open(path, number, byte, tag, record, aad) == b"payload %d" % number
                controls += 1
        for keys in (*sealers.values(), *openers.values()):
            keys.close()
        store.close()
        print(
            f"\n{tried} records re-sealed elsewhere ({dict(kinds)}): {accepted.total()} accepted; "
            f"{controls} controls opened"
        )
        assert accepted.total() == 0
        assert controls > 300

    def test_record_under_the_key_of_another_channel_ends_the_session_and_delivers_nothing(self) -> None:
        """The whole receiving side, with an attacker who can seal under one channel's key but names another."""
        for tag, claimed in ((16, 18), (18, 16), (16, 0), (0, 16)):
            pair = core.Pair()
            first, second = pair.a.open("a"), pair.a.open("b")
            there = [pair.b.open("a"), pair.b.open("b")]
            first.send(b"1")
            second.send(b"2")
            pair.run()
            assert [end.take() for end in there] == [b"1", b"2"]
            first.send(b"3")
            pair.a.on_deadline()
            data = bytearray(pair.a.send())
            assert data[4] in (16, 18, 0)
            forged = bytearray(data)
            forged[4] = claimed if forged[4] == tag else tag
            if forged == data:
                forged[4] ^= 2
            pair.b.recv(bytes(forged))
            state = pair.b.state()
            assert state["code"] == CRYPTO, (tag, claimed, state)
            assert [isinstance(end.take(), int) for end in there] == [True, True]
            pair.free()
