"""Tickets that a session carries, and a session whose successor has shown one (handshake.md §12.2, §12.5)."""

from __future__ import annotations

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.test_resume import OK, OVER, SUSPENDED, lose, opened, resume

EINVAL, ECLOSED = st.RC["EINVAL"], st.RC["ECLOSED"]
CLOSING, REPLACED = 1, 16


class TestGiving:
    def test_ticket_travels_from_the_side_that_was_dialled(self) -> None:
        p, _, _ = opened()
        assert p.b.ticket_send(86_400, b"ticket" * 60) == OK
        p.run()
        assert p.a.ticket_take() == (86_400, b"ticket" * 60)
        assert p.a.ticket_take() is None
        p.sleep(10**9)
        assert p.a.ticket_take() is None  # it was said once
        p.free()

    def test_side_that_dialled_gives_none(self) -> None:
        p, _, _ = opened()
        assert p.a.ticket_send(1, b"ticket") == EINVAL
        p.free()

    @pytest.mark.parametrize(("size", "code"), [(0, EINVAL), (1, OK), (1_024, OK), (1_025, EINVAL)])
    def test_lengths(self, size: int, code: int) -> None:
        p, _, _ = opened()
        assert p.b.ticket_send(1, b"t" * size) == code
        p.run()
        assert p.a.ticket_take() == ((1, b"t" * size) if code == OK else None)
        p.free()

    def test_life_that_no_varint_holds_is_refused(self) -> None:
        p, _, _ = opened()
        assert p.b.ticket_send(1 << 62, b"t") == EINVAL
        assert p.b.ticket_send((1 << 62) - 1, b"t") == OK
        p.free()

    def test_newer_ticket_takes_the_place_of_one_that_waits_on_either_side(self) -> None:
        p, _, _ = opened()
        for n in range(3):
            p.b.ticket_send(n, b"here")
        p.run()
        p.b.ticket_send(7, b"there")
        p.run()
        assert p.a.ticket_take() == (7, b"there")
        p.free()

    def test_ticket_that_was_lost_with_its_path_is_said_again(self) -> None:
        p, _, _ = opened()
        p.b.ticket_send(5, b"ticket")
        p.collect()
        resume(p, 2)
        p.run()
        assert p.a.ticket_take() == (5, b"ticket")
        p.free()

    def test_ticket_given_without_a_path_waits_for_one(self) -> None:
        p, _, _ = opened()
        lose(p)
        p.b.ticket_send(5, b"ticket")
        resume(p, 2)
        p.run()
        assert p.a.ticket_take() == (5, b"ticket")
        p.free()

    def test_what_was_neither_sent_nor_taken_is_freed_with_its_session(self) -> None:
        for sent in (True, False):
            p, _, _ = opened()
            p.b.ticket_send(5, b"ticket")
            if sent:
                p.run()
            p.free()


class TestReplaced:
    def test_session_with_a_path_is_lost_and_says_why(self) -> None:
        p, a, b = opened()
        b.send(b"never there")
        p.b.replaced()
        p.run()
        for side, by_us in ((p.b, True), (p.a, False)):
            state = side.state()
            assert (state["state"], state["code"], state["abrupt"], state["by_us"]) == (OVER, REPLACED, True, by_us)
        for end in (a, b):
            assert end.take() == ECLOSED
        p.free()

    def test_session_without_a_path_is_lost_at_once(self) -> None:
        p, _, b = opened()
        lose(p)
        assert p.b.state()["state"] == SUSPENDED
        p.b.replaced()
        state = p.b.state()
        assert (state["state"], state["code"], state["abrupt"]) == (OVER, REPLACED, True)
        assert b.take() == ECLOSED
        p.free()

    def test_session_that_is_being_left_or_over_stays_as_it_is(self) -> None:
        p, _, _ = opened()
        p.b.close(0)
        p.b.replaced()
        assert (p.b.state()["state"], p.b.state()["code"], p.b.state()["abrupt"]) == (CLOSING, 0, False)
        p.run()
        p.b.replaced()
        assert (p.b.state()["state"], p.b.state()["code"], p.b.state()["abrupt"]) == (OVER, 0, False)
        p.free()
