"""Tickets as their owner keeps them, in memory and as stored bytes (spec handshake §12.4, §12.6)."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from netchan.errors import ConfigError
from netchan.net import kept
from netchan.net.identity import Identity
from netchan.net.secret import SecureBytes

WALL_S = 1_800_000_000.0
ME, OTHER = Identity(SecureBytes(b"\1" * 32)), Identity(SecureBytes(b"\2" * 32))
GIVER = Identity(SecureBytes(b"\3" * 32))
TICKET = b"keyname." + b"0123456789abcdef" + bytes(200)


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept, "_table", OrderedDict())
    monkeypatch.setattr(kept, "_sessions", type(kept._sessions)())
    yield
    gc.collect()


def made(**changed: Any) -> kept.Kept:
    fields: dict[str, Any] = {
        "ticket": TICKET,
        "secret": SecureBytes(b"s" * 32),
        "record": GIVER.record(WALL_S, b"net"),
        "membership": b"m" * 300,
        "caps": frozenset({1, 500}),
        "suite": 1,
        "network_id": b"net",
        "psk_mark": b"p" * 16,
        "received_ms": int(WALL_S * 1000),
        "life_s": 3_600,
        "identity": ME,
    }
    return kept.Kept(**fields | changed)


class Session:
    """What the table asks of a session."""

    def __init__(self, *tickets: tuple[int, bytes]) -> None:
        self.over = self.lost = False
        self.tickets = list(tickets)
        self.kept: Any = None
        self.on_ticket: Any = None

    def take_ticket(self) -> tuple[int, bytes] | None:
        return self.tickets.pop(0) if self.tickets else None

    def ticket_secret(self, id16: bytes) -> bytearray:
        return bytearray(b"of " + id16 + bytes(13))


def watched(session: Session, most: int = 5, location: str = "tcp://127.0.0.1:1") -> kept.Place:
    place = kept.Place(ME.id_pub, b"net", 1, kept.NO_PSK, location, None)
    claim = SimpleNamespace(record=GIVER.record(WALL_S, b"net"), membership=None)
    event: Any = SimpleNamespace(claim=claim, agreement=SimpleNamespace(caps=frozenset({7})))
    kept.watch(session, event, ME, place, most, lambda: WALL_S)  # type: ignore[arg-type]
    return place


class TestStored:
    @pytest.mark.parametrize("changed", [{}, {"membership": None}, {"caps": frozenset()}, {"network_id": b""}])
    def test_stored_ticket_comes_back(self, changed: dict[str, Any]) -> None:
        one = made(**changed)
        if "network_id" in changed:
            one = dataclasses.replace(one, record=GIVER.record(WALL_S, b""))
        data = one.pack()
        again = kept.unpack(data, ME)
        for field in dataclasses.fields(one):
            assert getattr(again, field.name) == (field.name == "stored" or getattr(one, field.name))
        assert again.pack() == data == one.pack()
        assert len(data) <= kept.STORED_MAX

    def test_stored_ticket_shows_nothing(self) -> None:
        data = made().pack()
        for secret in (b"s" * 8, TICKET[:8], GIVER.id_pub, b"m" * 8, b"net", b"p" * 8):
            assert secret not in data

    def test_stored_ticket_is_of_no_use_to_another_identity(self) -> None:
        with pytest.raises(kept.TicketError, match="another identity"):
            kept.unpack(made().pack(), OTHER)

    def test_stored_ticket_changed_or_cut_anywhere_is_refused(self) -> None:
        data = made().pack()
        for at in range(len(data)):
            with pytest.raises(kept.TicketError):
                kept.unpack(data[:at], ME)
            with pytest.raises(kept.TicketError):
                kept.unpack(data[:at] + bytes((data[at] ^ 0x40,)) + data[at + 1 :], ME)
        for more in (data + b"\0", data + bytes(kept.STORED_MAX), b""):
            with pytest.raises(kept.TicketError):
                kept.unpack(more, ME)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            bytes(kept._HEAD.size - 1),
            bytes(kept._HEAD.size),
            b"\xff" * kept._HEAD.size,
            b"\xff" * 3_000,
        ],
    )
    def test_content_that_no_pack_has_made_is_refused(self, content: bytes) -> None:
        with pytest.raises(kept.TicketError):
            kept._parse(content, bytes(16), ME)

    def test_ticket_under_the_id_of_another_one_is_refused(self) -> None:
        data = made().pack()
        prefix = data[:17]
        with ME.ticket_key(prefix[1:]) as key:
            content = kept.ChaCha20Poly1305(key).decrypt(bytes(12), data[17:], prefix)
        assert kept._parse(content, prefix[1:], ME).ticket == TICKET
        with pytest.raises(kept.TicketError):
            kept._parse(content, bytes(16), ME)

    def test_closed_identity_neither_seals_nor_opens(self) -> None:
        gone = Identity(SecureBytes(b"\4" * 32))
        one = made(identity=gone)
        data = one.pack()
        gone.close()
        with pytest.raises(ConfigError, match="closed"):
            one.pack()
        with pytest.raises(ConfigError, match="closed"):
            kept.unpack(data, gone)

    def test_life_of_a_stored_ticket_is_bounded(self) -> None:
        assert kept.unpack(made(life_s=2**32 - 1).pack(), ME).life_s == kept.LIFE_MAX_S


class TestUse:
    def test_age_counts_from_its_arrival_until_its_end(self) -> None:
        one = made()
        assert one.age_ms(WALL_S) == 0
        assert one.age_ms(WALL_S + 3_599.999) == 3_599_999
        assert one.age_ms(WALL_S + 3_600) is None

    def test_clock_that_went_back_before_its_arrival_leaves_it_unused(self) -> None:
        assert made().age_ms(WALL_S - 0.001) is None

    def test_ticket_is_for_dials_of_its_kind_only(self) -> None:
        one = made()
        good: tuple[Any, ...] = (ME, b"net", 1, b"p" * 16, GIVER.id_pub)
        assert one.is_for(*good)
        assert one.is_for(*good[:4], None)
        for place, other in enumerate((OTHER, b"lan", 2, bytes(16), OTHER.id_pub)):
            assert not one.is_for(*good[:place], other, *good[place + 1 :])

    def test_marks_tell_psks_apart_and_do_not_show_them(self) -> None:
        marks = {kept.mark_of(psk) for psk in (None, bytes(32), b"\1" + bytes(31))}
        assert len(marks) == 3
        assert kept.mark_of(None) == bytes(16)
        assert all(len(mark) == 16 for mark in marks)


class TestTable:
    def test_newest_ticket_of_a_place_counts_and_is_taken_once(self) -> None:
        place = watched(Session((60, TICKET), (60, TICKET[:8] + bytes(300))))
        first = kept.take(place)
        assert first is not None
        assert first.ticket == TICKET
        assert kept.take(place) is None

    def test_what_a_ticket_is_kept_with(self) -> None:
        session = Session((60, TICKET))
        found = kept.take(watched(session))
        assert found is not None
        assert found.secret == b"of " + TICKET[8:24] + bytes(13)
        assert (found.life_s, found.received_ms, found.caps) == (60, int(WALL_S * 1000), frozenset({7}))
        assert session.kept.newest is found

    def test_later_ticket_takes_the_place_and_is_told(self) -> None:
        session = Session((60, TICKET))
        place = watched(session)
        told = []
        session.kept.told = lambda: told.append(1)
        session.tickets.append((60, TICKET[:8] + bytes(300)))
        session.on_ticket()
        session.on_ticket()  # nothing new
        assert told == [1]
        assert session.kept.newest.ticket == TICKET[:8] + bytes(300)
        assert kept.take(place) is session.kept.newest

    def test_table_has_a_bound_and_the_oldest_goes(self) -> None:
        places = [watched(Session((60, TICKET)), most=3, location=f"tcp://127.0.0.1:{n}") for n in range(1, 6)]
        assert [kept.take(place) is not None for place in places] == [False, False, True, True, True]

    def test_ticket_that_a_program_uses_is_not_used_by_the_table_as_well(self) -> None:
        session = Session((60, TICKET))
        place = watched(session)
        kept.forget(kept.unpack(session.kept.newest.pack(), ME))
        assert kept.take(place) is None

    def test_flood_of_tickets_costs_nothing_beyond_a_few(self) -> None:
        session = Session()
        watched(session)
        made_secrets = []
        original = session.ticket_secret
        session.ticket_secret = lambda id16: made_secrets.append(id16) or original(id16)  # type: ignore[method-assign,func-returns-value]
        for n in range(100):
            session.tickets.append((60, TICKET[:8] + bytes((n,)) * 200))
            session.on_ticket()
        assert len(made_secrets) == kept.AT_ONCE

    @pytest.mark.parametrize("bad", [(60, b""), (60, bytes(kept.TICKET_MIN - 1)), (0, TICKET)])
    def test_ticket_that_cannot_be_one_is_passed_over(self, bad: tuple[int, bytes]) -> None:
        session = Session(bad)
        assert kept.take(watched(session)) is None
        assert session.kept.newest is None

    def test_giver_that_says_for_ever_is_not_believed(self) -> None:
        found = kept.take(watched(Session((2**62 - 1, TICKET))))
        assert found is not None
        assert found.life_s == kept.LIFE_MAX_S

    def test_session_left_behind_is_one_of_another_process_or_one_that_was_lost(self) -> None:
        session = Session((60, TICKET))
        watched(session)
        mine = session.kept.newest
        stored = kept.unpack(mine.pack(), ME)
        for over, lost, behind in ((False, False, False), (True, False, False), (True, True, True)):
            session.over, session.lost = over, lost
            assert kept.leaves_behind(mine) is kept.leaves_behind(stored) is behind
        session.kept = session.on_ticket = None
        del session
        gc.collect()
        assert not kept.leaves_behind(mine)  # it has said its leave
        assert kept.leaves_behind(stored)  # perhaps of a process that was killed

    def test_forked_child_begins_with_an_empty_table(self) -> None:
        place = watched(Session((60, TICKET)))
        child = os.fork()
        if not child:
            os._exit(0 if kept.take(place) is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert kept.take(place) is not None
