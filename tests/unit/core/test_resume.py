"""What a session accepts as its next path, and what a resume leaves behind (session.md §5.2, handshake.md §11)."""

from __future__ import annotations

from typing import Any

import pytest

from netchan._core import _selftest_session as st
from tests.integration.slope import in_use

OK, EAGAIN, EFRAME, ESTATE, EINVAL = (st.RC[k] for k in ("OK", "EAGAIN", "EFRAME", "ESTATE", "EINVAL"))
S = 1_000_000_000
LEASE = {"lease_ns": 300 * S}
OVER, SUSPENDED, UP = 2, 3, 0
PROTOCOL = 4
BINDING = bytes(range(32))


def opened(capacity: int | None = 1000, trunk: bool = False, **limits: Any) -> tuple[st.Pair, st.End, st.End]:
    p = st.Pair(mine=LEASE, peer=LEASE, limits=limits)
    a, b = p.a.open("x", capacity=capacity, trunk=trunk), p.b.open("x", capacity=capacity, trunk=trunk)
    p.run()
    p.a.ready(), p.b.ready()
    assert a.paired and b.paired
    return p, a, b


def lose(p: st.Pair) -> None:
    """Both have noticed; what was on its way is gone."""
    p.a.path_lost()
    p.b.path_lost()
    p.ab.clear()
    p.ba.clear()


def resume(p: st.Pair, path: int, binding: bytes = BINDING) -> None:
    lose(p)
    last, got = p.a.state()["path"], p.a.state()["rx"]
    there = p.b.join(path, last)
    assert p.b.resume(path, last, got, binding) == OK
    assert p.a.resume(path, last, there, binding) == OK


def test_what_came_on_a_path_is_known_when_others_have_followed() -> None:
    p, _, _ = opened()
    lose(p)
    got, there = p.a.state()["rx"], p.b.join(2, 0)
    assert there == p.b.state()["rx"] > 0
    assert p.b.resume(2, 0, got, BINDING) == OK
    assert p.b.join(4, 0) == there  # the answer may have been lost
    assert p.b.join(4, 2) == 0
    assert p.a.resume(2, 0, there, BINDING) == OK
    p.collect()
    p.deliver(ba=0)  # the dialler's first record shows that it has the answer; nothing of this side is acknowledged yet
    assert p.b.state()["rx"] > 0 == p.b.state()["acked"]
    assert p.b.join(4, 2) == p.b.state()["rx"]
    p.run()
    resume(p, 6)
    p.run()
    resume(p, 8)
    assert (p.b.join(10, 0), p.b.join(10, 4)) == (there, 0)  # of 4 nothing came: it may never have been
    p.free()


def test_figures_that_cannot_be_leave_the_session_suspended() -> None:
    p, a, b = opened()
    for _ in range(3):
        a.send(b"v")
        p.a.send()  # on its way for ever
    lose(p)
    state = p.a.state()
    assert 0 < state["acked"] < state["tx"]
    for wrong in (state["acked"] - 1, state["tx"] + 1, 2**64 - 1):
        assert p.a.resume(2, 0, wrong, BINDING) == EFRAME
        assert p.a.state()["state"] == SUSPENDED
    there = p.b.join(2, 0)
    assert p.b.resume(2, 0, p.a.state()["rx"], BINDING) == OK
    assert p.a.resume(2, 0, there, BINDING) == OK
    p.run()
    assert b.take_all() == [b"v"] * 3
    p.free()


def test_second_request_about_the_same_path_changes_nothing() -> None:
    """Its answer was lost; what it says of that path has had its effect, and cannot have another."""
    p, a, b = opened()
    b.send(b"v")
    p.b.send()
    lose(p)
    got, there = p.a.state()["rx"], p.b.join(2, 0)
    assert got + 1 <= p.b.state()["tx"]
    assert p.b.resume(2, 0, got, BINDING) == OK
    p.b.path_lost()
    assert p.b.join(4, 0) == there
    assert p.b.resume(4, 0, got + 7, BINDING) == OK
    assert p.a.resume(4, 0, there, BINDING) == OK
    p.run()
    assert p.a.state()["state"] == p.b.state()["state"] == UP
    assert a.take_all() == [b"v"]
    assert p.a.state()["in_order"] and p.b.state()["in_order"]
    p.free()


def test_path_id_is_used_once() -> None:
    p, _, _ = opened()
    resume(p, 2)
    p.run()
    lose(p)
    for used in (0, 2):
        assert p.b.join(used, 2) == EINVAL
        assert p.b.resume(used, 2, p.a.state()["rx"], BINDING) == EINVAL
    assert p.b.join(4, 2) >= 0
    p.free()


def test_join_that_was_given_up_and_comes_late_is_refused() -> None:
    """The dialler has sent one for path 2, given it up, and got the answer to that for path 4."""
    p, _, _ = opened()
    lose(p)
    got, there = p.a.state()["rx"], p.b.join(4, 0)
    assert p.b.resume(4, 0, got, BINDING) == OK
    assert p.b.join(2, 0) == EINVAL
    assert p.a.resume(4, 0, there, BINDING) == OK
    p.run()
    assert p.a.state()["state"] == p.b.state()["state"] == UP
    p.free()


def test_keys_that_are_used_up_wait_for_the_epoch_that_was_announced() -> None:
    """A deadline that has passed and that nobody acts on would keep a driver busy for ever."""
    p, a, _ = opened(use_ns=S)
    p.b.ratchet(1, bytes(32)), p.a.ratchet(1, bytes(32))
    a.send(b"v")
    p.a.send()  # the announcement is on its way, and so is its acknowledgement
    assert p.a.state()["rekey"] == 2
    p.a.now += 2 * S
    p.a.on_deadline()
    p.a.send()
    assert p.a.deadline() > p.a.now
    p.free()


def test_peer_that_takes_back_what_it_had_got_is_told_and_left() -> None:
    """It said with POS that the bytes had come, so they are not held any more, and denies the record they came in."""
    side, peer = st.Side(0, mine=LEASE, peer=LEASE), st.Peer(1)
    end = side.open("x", capacity=1000)
    assert end.send(bytes(3000)) == OK
    peer.open(side.send())
    side.recv(peer.seal(0, st.put("pos", 16, end.out()["sent"], 1, 100, 100_000)))
    assert end.out()["segments"] == 0
    side.path_lost()
    assert side.resume(2, 0, 0, BINDING) == OK
    assert side.send()
    state = side.state()
    assert (state["state"], state["code"], state["abrupt"]) == (OVER, PROTOCOL, True)
    side.free()


@pytest.mark.parametrize("first", ["suspect", "close"])
def test_session_that_closes_looks_for_no_other_path(first: str) -> None:
    """Suspect means that another path is wanted; CLOSE goes over this one, and may arrive late."""
    p, a, _ = opened()
    a.send(b"v")
    p.collect()  # on its way, not there yet
    if first == "close":
        p.a.close(0)
    p.a.now += 3 * S
    p.a.on_deadline()
    assert p.a.state()["suspect"] is (first == "suspect")
    if first == "suspect":
        p.a.close(0)
    for _ in range(2):
        assert p.a.state()["suspect"] is False
        p.a.on_deadline()
    p.collect()
    assert (p.a.state()["state"], p.a.state()["suspect"]) == (OVER, False)
    p.deliver()
    assert p.b.state()["state"] == OVER
    p.free()


def test_path_is_bound_to_its_exchange() -> None:
    p, _, _ = opened()
    lose(p)
    got, there = p.a.state()["rx"], p.b.join(2, 0)
    assert p.b.resume(2, 0, got, BINDING) == OK
    assert p.a.resume(2, 0, there, bytes(32)) == OK
    p.collect()
    p.deliver()
    assert p.a.state()["rx"] == p.b.state()["rx"] == 0
    assert not p.a.state()["alive"] or not p.b.state()["alive"]
    p.free()


def test_without_a_lease_there_is_no_join() -> None:
    p = st.Pair()
    assert p.b.join(2, 0) == ESTATE
    p.free()


def test_resumes_leave_no_memory_behind() -> None:
    p, a, b = opened(capacity=None, trunk=True)
    base = 0
    for n in range(400):
        if n == 100:
            base = in_use()
        for _ in range(4):
            a.send(b"v" * 400)
            b.send(b"w" * 400)
            p.a.send(), p.b.send()
        resume(p, 2 * n + 2)
        p.run()
        a.take_all(), b.take_all()
        p.run()
    assert in_use() - base < 64 * 1024
    p.free()


@pytest.mark.parametrize("sides", ["a", "b", "ab"])
def test_half_of_a_record_is_thrown_away(sides: str) -> None:
    p, a, b = opened()
    a.send(b"v" * 300)
    b.send(b"w" * 300)
    p.collect()
    p.deliver(len(p.ab) - 5 if "b" in sides else 0, len(p.ba) - 5 if "a" in sides else 0)
    resume(p, 2)
    p.run()
    assert b.take_all() == [b"v" * 300]
    assert a.take_all() == [b"w" * 300]
    p.free()


def test_resent_records_are_acknowledged_and_the_log_is_empty_again() -> None:
    p, a, b = opened(capacity=None, trunk=True)
    for _ in range(20):
        a.send(b"v" * 200)
        p.a.send()
    resume(p, 2)
    p.run()
    p.sleep(S)
    state = p.a.state()
    assert state["resent"] >= 20 and state["again"] == 0 and state["trunk_waits"] == 0
    assert state["log"] < 100 and state["tx"] - state["acked"] <= 2
    assert a.out()["acked"] == a.out()["sent"]
    assert len(b.take_all()) == 20
    p.free()
