"""The table of sessions that another path may still reach (docs/spec/handshake.md §11)."""

from __future__ import annotations

import gc
import hashlib
import hmac
import os
from collections.abc import Iterator
from typing import Any

import pytest

from netchan.net import departed, resume
from netchan.net.join import gone, locator


class Fake:
    """A session for the table."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self.key, self.over, self.suspended, self.lost = key, False, True, 0

    def join_mac(self, data: bytes) -> bytes:
        return hmac.digest(self.key, hashlib.sha256(data).digest(), "sha256")

    def lose(self) -> None:
        self.lost += 1
        self.suspended = False


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_table", "_gone", "_suspended", "_entry_of", "_parked", "_comings"):
        monkeypatch.setattr(resume, name, type(getattr(resume, name))())
    yield
    gc.collect()


def known(session: Any, n: int) -> bool:
    return resume.find(locator(session, n)) is session


def test_two_names_at_a_time_are_good() -> None:
    session: Any = Fake()
    resume.keep_reachable(session)
    assert [known(session, n) for n in range(4)] == [True, True, False, False]
    resume.used(locator(session, 0))  # of the present resume: nothing moves on
    assert [known(session, n) for n in range(4)] == [True, True, False, False]
    for k in range(1, 5):
        resume.used(locator(session, k))
        assert [n for n in range(8) if known(session, n)] == [k, k + 1]
        assert len(resume._table) == 2
    resume.used(b"?" * 16)


def test_proof_is_said_of_a_session_that_is_over_or_forgotten() -> None:
    session: Any = Fake()
    resume.keep_reachable(session)
    resume.used(locator(session, 1))
    good, proof = locator(session, 2), gone(session)
    assert resume.proof(good) is None and resume.proof(b"?" * 16) is None
    session.over = True
    assert resume.proof(good) == proof
    del session
    gc.collect()
    assert not resume._table and resume.find(good) is None
    assert resume.proof(good) == proof


def test_forgotten_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departed, "ROWS", 1)
    monkeypatch.setattr(departed, "ROW_MAX", 6)
    names = []
    for n in range(5):
        session: Any = Fake(bytes([n]) * 32)
        resume.keep_reachable(session)
        names.append(locator(session, 0))
        del session
        gc.collect()
    assert [resume.proof(name) is not None for name in names] == [False, False, True, True, True]
    assert len(resume._gone) == 6


def test_the_one_that_waits_longest_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SUSPENDED_MAX", 2)
    sessions: list[Any] = [Fake(bytes([n]) * 32) for n in range(4)]
    for session in sessions[:3]:
        resume.suspended(session)
    assert [s.lost for s in sessions] == [1, 0, 0, 0]
    resume.resumed(sessions[2])  # not the oldest: it must not be counted any more
    sessions[2].suspended = False
    resume.suspended(sessions[3])
    assert [s.lost for s in sessions] == [1, 0, 0, 0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_can_bring_nothing_back() -> None:
    session: Any = Fake()
    resume.keep_reachable(session)
    resume.suspended(session)
    pid = os.fork()
    if pid == 0:
        os._exit(len(resume._table) + len(resume._suspended) + len(resume._gone))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert known(session, 0) and resume.any_suspended()


# --- while sessions move (docs/spec/handover.md §3) -------------------------------------------------------------------


def test_session_that_moves_is_hidden_and_said_to_be_gone_by_nobody() -> None:
    session: Any = Fake()
    other: Any = Fake()
    resume.keep_reachable(session, 3)
    assert resume.hide([session, other]) == [3, 0]
    assert not known(session, 3) and resume.proof(locator(session, 3)) is None
    resume.show([session])
    assert known(session, 3)
    resume.hide([session])
    session.over = True  # in this process
    resume.forget([session, other])
    assert not resume._table and resume.proof(locator(session, 3)) is None
    name = locator(session, 3)
    del session
    gc.collect()
    assert resume.proof(name) is None and not resume._gone


def test_join_waits_until_its_session_has_come() -> None:
    session: Any = Fake()
    heard: list[str] = []
    calls = [lambda n=n: heard.append(n) for n in "abc"]  # type: ignore[misc]
    name = locator(session, 1)
    assert not resume.may_come(name)
    resume.expect()
    assert resume.may_come(name) and resume.any_suspended()
    for call in calls:
        assert resume.park(name, call)
    resume.unpark(name, calls[1])
    resume.unpark(name, calls[1])
    assert resume.parked() == 2 and not heard
    resume.keep_reachable(session)
    assert heard == ["a", "c"] and resume.parked() == 0 and not resume.may_come(name)
    resume.expected()
    assert not resume.may_come(b"?" * 16) and not resume.any_suspended()


def test_who_waits_is_answered_when_no_more_sessions_come() -> None:
    heard: list[int] = []
    resume.expect()
    resume.expect()
    assert resume.park(b"a" * 16, lambda: heard.append(1)) and resume.park(b"b" * 16, lambda: heard.append(2))
    resume.expected()
    assert not heard  # from another process they may
    resume.expected()
    assert sorted(heard) == [1, 2] and resume.parked() == 0
    resume.expected()  # once too often


def test_so_many_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PARKED_MAX", 3)
    resume.expect()
    assert [resume.park(bytes((n,)) * 16, print) for n in (1, 2, 1, 3)] == [True, True, True, False]
    resume.unpark(b"\1" * 16, print)
    assert resume.park(b"\3" * 16, print)
    assert resume.parked() == 3
