"""Epochs and ratchets under traffic, over real sockets (docs/spec/keys.md §2)."""

from __future__ import annotations

import os
import threading
import time

import pytest

from netchan import Identity, sync
from netchan.net import manager
from netchan.net.noise import HandshakeState
from netchan.net.ratchet import Ratchet
from netchan.sync.fronts import Channel
from netchan.testing.pair import Side, joined


def stream_numbers(tx: Channel[bytes], rx: Channel[bytes], until: threading.Event) -> tuple[int, int]:
    """Send numbered values until told to stop; returns (sent, received in order)."""
    sent = 0

    def send() -> None:
        nonlocal sent
        while not until.is_set():
            tx.send(sent.to_bytes(8, "big") + b"." * (sent % 200), timeout=10)
            sent += 1
        tx.close()

    sender = threading.Thread(target=send)
    sender.start()
    got = 0
    for value in rx:
        assert int.from_bytes(value[:8], "big") == got
        got += 1
    sender.join()
    rx.close()
    return sent, got


def wait_for(what: str, condition: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.002)


@pytest.fixture
def sides() -> tuple[Side, Side]:
    return joined()


class TestRekeyUnderTraffic:
    def test_sixty_updates_of_each_direction_lose_nothing(self, sides: tuple[Side, Side]) -> None:
        a, b = sides
        tx, rx = Channel(a.open("n")), Channel(b.open("n"))
        stop = threading.Event()

        def rekey() -> None:
            for side in (a, b):
                for _ in range(60):
                    before = side.session.stats()["rekeys"]
                    wait_for("an update", side.session.rekey)
                    wait_for("the next epoch", lambda s=side, n=before: s.session.stats()["rekeys"] > n)
            stop.set()

        helper = threading.Thread(target=rekey)
        helper.start()
        sent, got = stream_numbers(tx, rx, stop)
        helper.join()
        assert sent == got > 0
        for side in (a, b):
            stats = side.session.stats()
            assert stats["rekeys"] >= 60
            assert stats["nonce_repeats"] == 0


class TestRatchet:
    def test_ten_ratchets_change_both_directions_and_lose_nothing(self, sides: tuple[Side, Side]) -> None:
        a, b = sides
        first = Ratchet(a.session, initiator=True, rng=os.urandom)
        second = Ratchet(b.session, initiator=False, rng=os.urandom)
        tx, rx = Channel(a.open("n")), Channel(b.open("n"))
        stop = threading.Event()

        def turn() -> None:
            for n in range(1, 11):
                (first if n % 2 else second).start()
                for side in (a, b):
                    wait_for(f"ratchet {n}", lambda s=side, n=n: s.session.stats()["ratchets"] == n)
            stop.set()

        helper = threading.Thread(target=turn)
        helper.start()
        sent, got = stream_numbers(tx, rx, stop)
        helper.join()
        assert sent == got > 0
        assert first.refused == second.refused == 0
        assert a.session.stats()["epoch"] >= 10
        assert b.session.stats()["epoch"] >= 10
        for side in (a, b):  # the secret is wiped once both directions have it, in whichever order that was
            wait_for("secret wiped", lambda s=side: not s.session.ratchet_pending)

    def test_none_is_begun_between_the_answer_to_one_and_its_secret(
        self, sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b = sides
        first = Ratchet(a.session, initiator=True, rng=os.urandom)
        second = Ratchet(b.session, initiator=False, rng=os.urandom)
        finish, others, stop = first._finish, list[threading.Thread](), threading.Event()

        def meanwhile(state: HandshakeState, number: int) -> None:
            others.append(threading.Thread(target=first.start))
            others[-1].start()
            others[-1].join(0.3)  # it waits for this one
            assert first.number == number
            finish(state, number)

        monkeypatch.setattr(first, "_finish", meanwhile)
        tx, rx = Channel(a.open("n")), Channel(b.open("n"))

        def turn() -> None:
            try:
                assert first.start()
                for side in (a, b):  # more than one: the first was over before the thread had its turn
                    wait_for("the ratchet", lambda s=side: s.session.stats()["ratchets"] >= 1)
            finally:
                stop.set()

        helper = threading.Thread(target=turn)
        helper.start()
        sent, got = stream_numbers(tx, rx, stop)
        helper.join()
        for other in others:
            other.join()
        assert sent == got > 0 and others
        assert first.refused == second.refused == 0
        assert a.session.stats()["ratchets"] >= 1 <= b.session.stats()["ratchets"]

    def test_message_at_the_wrong_time_is_counted_and_changes_nothing(self, sides: tuple[Side, Side]) -> None:
        a, b = sides
        first = Ratchet(a.session, initiator=True, rng=os.urandom)
        second = Ratchet(b.session, initiator=False, rng=os.urandom)
        a.session.ratchet_send(7, 1, b"x" * 48)  # not the next number
        b.session.ratchet_send(1, 2, b"y" * 48)  # nobody asked
        tx, rx = Channel(a.open("n")), Channel(b.open("n"))
        tx.send(b"still here", timeout=5)
        assert rx.recv(timeout=5) == b"still here"
        rx.send(b"and back", timeout=5)
        assert tx.recv(timeout=5) == b"and back"
        assert (first.refused, second.refused) == (1, 1)
        assert a.session.stats()["ratchets"] == b.session.stats()["ratchets"] == 0
        tx.close()
        rx.close()


class TestTending:
    def test_session_whose_time_has_come_is_ratcheted_by_the_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(manager, "TEND_NS", 20_000_000)
        monkeypatch.setattr(manager._engines, "tending", False)  # a timer of an earlier test may be a minute away
        monkeypatch.setattr(manager, "RATCHET_SECONDS", 0.1)
        here, there = Identity.generate(), Identity.generate()
        with (
            sync.listen("tcp://127.0.0.1:0", identity=here, trust=[there.node_id]) as listener,
            sync.dial(listener.addresses[0], identity=there) as dialled,
        ):
            accepted = listener.recv(timeout=10)
            tx, rx = dialled.open("n", int), accepted.open("n", int)
            for n in range(1_000_000):
                tx.send(n, timeout=10)
                assert rx.recv(timeout=10) == n
                if dialled.stats()["ratchets"] >= 2 <= accepted.stats()["ratchets"]:
                    break
                time.sleep(0.001)
            assert dialled.stats()["ratchets"] >= 2
            tx.close()
            rx.close()
