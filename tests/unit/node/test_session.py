"""Which offers come out of iteration (session.md §3): the bookkeeping of names, against an engine played by hand."""

from __future__ import annotations

from typing import Any

import pytest

from netchan.config import Config
from netchan.errors import ConfigError
from netchan.net.dial import Link
from netchan.node import session as node_session
from netchan.node.session import PeerCore, check_name

Offer = tuple[bytes, int, bytes, int | None, int]


class Session:
    """Offers are put in by the test; nothing else happens."""

    over = False

    def __init__(self) -> None:
        self.offers: list[Offer] = []
        self.closed: list[int] = []

    def take_offers(self) -> list[Offer]:
        taken, self.offers = self.offers, []
        return taken

    def offer(self, name: bytes) -> None:
        self.offers.append((name, 4, bytes(16), None, 0))

    def close(self, code: int, reason: bytes = b"") -> None:
        self.closed.append(code)


class End:
    """What the bookkeeping looks at."""

    paired = False
    send_over = False
    recv_over = False
    state = (0, 0, False, 0, False, b"")

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = PeerCore(object(), Session(), Link("tcp", "", "", "", 1024, False), Config())  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_make", lambda name, *_: End(name))
    return made


class TestOffers:
    def test_offer_of_a_channel_opened_here_before_is_not_given_out(self, core: Any) -> None:
        core.open("x", int, None)
        core.session.offer(b"x")
        assert core.next_offer() is None

    def test_second_offer_of_the_name_is_given_out(self, core: Any) -> None:
        core.open("x", int, None)
        core.session.offer(b"x")
        core.session.offer(b"x")
        assert core.next_offer().name == "x"
        assert core.next_offer() is None

    def test_offer_after_a_pair_that_the_engine_made_silently_is_given_out(self, core: Any) -> None:
        core.open("x", int, None).paired = True
        core.session.offer(b"x")
        assert core.next_offer().name == "x"

    def test_open_takes_the_oldest_offer_of_its_name(self, core: Any) -> None:
        for name in (b"a", b"x", b"b", b"x"):
            core.session.offer(name)
        core.open("x", int, None)
        assert [core.next_offer().name for _ in range(3)] == ["a", "b", "x"]

    def test_news_that_crossed_the_open_belongs_to_it(self, core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def make(name: str, *_: object) -> End:
            core.session.offer(name.encode())
            end = End(name)
            end.paired = True
            return end

        monkeypatch.setattr(core, "_make", make)
        core.open("x", int, None)
        assert core.next_offer() is None

    def test_name_that_is_no_utf8_closes_the_session_as_a_protocol_fault(self, core: Any) -> None:
        core.session.offer(b"\xff")
        core.take_offers()
        assert core.session.closed == [node_session.PROTOCOL]


class TestNames:
    @pytest.mark.parametrize("name", ["a", "é" * 127, "jobs/7 of 9", "x" * 255])
    def test_good_names_pass(self, name: str) -> None:
        check_name(name)

    @pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "a\nb", "netchan.", "\udc80", 5, None, b"x"])
    def test_bad_names_raise(self, name: object) -> None:
        with pytest.raises(ConfigError, match="channel name"):
            check_name(name)
