"""The table of sessions that another path may still reach (docs/spec/handshake.md §11)."""

from __future__ import annotations

import gc
import hashlib
import hmac
import os
from collections.abc import Iterator
from typing import Any

import pytest

from netchan.net import resume
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
    for name in ("_table", "_gone", "_suspended"):
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
    monkeypatch.setattr(resume, "GONE_MAX", 6)
    names = []
    for n in range(5):
        session: Any = Fake(bytes([n]) * 32)
        resume.keep_reachable(session)
        names.append(locator(session, 0))
        del session
        gc.collect()
    assert [resume.proof(name) is not None for name in names] == [False, False, True, True, True]


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
