"""Handshakes over datagrams while an observer forges all that he can (docs/spec/handshake.md §2.4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from netchan.errors import AuthError, DialTimeout, HandshakeError
from netchan.net import doubts
from netchan.net import gate as g
from netchan.net import handshake as hs
from netchan.net.params import Refusal
from tests.unit.net.observer import DOWN, UNTRUSTED, UP, Observer
from tests.unit.net.test_abbreviated import Tickets, sides

SECOND = 1_000_000_000
MODES: dict[str, dict[str, Any]] = {"XX-named": {"named": True}, "XK": {"know": True}}


@dataclass
class Line:
    """Two machines over datagrams, and an observer who sees each message first and may send his own ahead of it.

    ``forge``: (True for those to the responder, message) -> what comes ahead of it.
    """

    world: Any
    near: hs.Initiator
    far: hs.Responder
    forge: Callable[[bool, bytes], list[bytes]] = lambda up, data: []
    ends: dict[str, list[hs.Event]] = field(default_factory=lambda: {"near": [], "far": []})
    said: list[tuple[bool, bytes]] = field(default_factory=list)
    now: int = 1

    def take(self, up: bool, data: bytes) -> list[bytes]:
        """One datagram to one side: what it answers."""
        machine = self.far if up else self.near
        if not machine.fits(data):
            return []
        events = machine.feed(data, self.world.wall_s, self.now)
        self.ends["far" if up else "near"] += [event for event in events if not isinstance(event, hs.Send)]
        return [event.data for event in events if isinstance(event, hs.Send)]

    def carry(self, up: bool, data: bytes) -> None:
        """A message of the exchange, and all that follows from it; what it says again is not played."""
        queue = [(up, data)]
        while queue:
            up, data = queue.pop(0)
            self.said.append((up, data))
            for one in [*self.forge(up, data), data]:
                queue += [(not up, answer) for answer in self.take(up, one)]

    def run(self) -> Line:
        (first,) = self.near.start(self.world.wall_s, 0)
        self.carry(True, first.data)
        return self

    def until(self, now: int) -> None:
        """Let the time of both pass."""
        self.now = now
        for name, machine in (("near", self.near), ("far", self.far)):
            self.ends[name] += [event for event in machine.tick(now) if not isinstance(event, hs.Send)]

    def established(self) -> None:
        (near,), (far,) = self.ends["near"], self.ends["far"]
        assert isinstance(near, hs.Established) and isinstance(far, hs.Established)
        assert near.root == far.root and near.binding == far.binding


@pytest.fixture
def line(world: Any) -> Callable[..., Line]:
    def make(trust: Any = "any", **options: Any) -> Line:
        near = world.initiator(datagrams=True, trust=trust, **options)
        return Line(world, near, world.responder(datagram_source=b"192.0.2.1:5"))

    return make


def observing(world: Any) -> Observer:
    config = world.config(world.alice)
    return Observer(world.bob.id_pub, config.network_id, config.pq)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", DOWN)
def test_forgery_ahead_of_each_answer_ends_no_dial(line: Any, world: Any, mode: str, what: str) -> None:
    observer, talk = observing(world), line(**MODES[mode])
    kind, body = DOWN[what]

    def forge(up: bool, data: bytes) -> list[bytes]:
        observer.note(up, data)
        return [] if up else [observer.make(False, kind, body)] * 3

    talk.forge = forge
    talk.run().established()
    assert talk.near.passed >= 3


@pytest.mark.parametrize("what", UP)
def test_forgery_ahead_of_finish_ends_no_handshake(line: Any, world: Any, what: str) -> None:
    observer, talk = observing(world), line()
    kind, body = UP[what]

    def forge(up: bool, data: bytes) -> list[bytes]:
        observer.note(up, data)
        return [observer.make(True, kind, body)] * 3 if up and data[0] == g.FINISH else []

    talk.forge = forge
    talk.run().established()
    assert talk.far.passed == 3


def test_every_bit_of_reply_may_be_flipped_ahead_of_the_true_one(line: Any, world: Any) -> None:
    observer, talk = observing(world), line()

    def forge(up: bool, data: bytes) -> list[bytes]:
        observer.note(up, data)
        if data[0] != g.REPLY:
            return []
        body = g.frame_body(data)
        places = range(0, len(body), len(body) // 40)
        return [observer.make(False, g.REPLY, body[:i] + bytes((body[i] ^ 1,)) + body[i + 1 :]) for i in places]

    talk.forge = forge
    talk.run().established()
    assert talk.near.passed >= 40


def test_observer_who_answers_as_himself_does_not_end_the_dial(line: Any, world: Any) -> None:
    """Over XX whoever has seen HELLO can make a REPLY that opens; its identity is another one."""
    observer, talk = observing(world), line()

    def forge(up: bool, data: bytes) -> list[bytes]:
        observer.note(up, data)
        return [observer.own_reply(world.wall_s)] if data[0] == g.REPLY else []

    talk.forge = forge
    talk.run().established()
    assert talk.near.passed == 1
    # nothing was said to anybody because of him
    assert [data[0] for _, data in talk.said] == [g.HELLO, g.REPLY, g.FINISH, g.ACCEPT]


def refused(talk: Line) -> hs.Failed:
    (event,) = talk.ends["near"]
    assert isinstance(event, hs.Failed)
    return event


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (g.CLOSE, UNTRUSTED, Refusal.UNTRUSTED),
        (g.CLOSE, int(Refusal.BUSY).to_bytes(2, "big"), Refusal.BUSY),
        (g.VERSIONS, b"\x01\x07", Refusal.VERSION),
    ],
)
def test_refusal_counts_when_nothing_better_comes(line: Any, world: Any, kind: int, body: bytes, code: Refusal) -> None:
    observer, talk = observing(world), line()
    (first,) = talk.near.start(world.wall_s, 0)
    observer.note(True, first.data)
    talk.now = SECOND // 2
    for _ in range(40):  # said again and again, it takes no longer
        assert not talk.take(False, observer.make(False, kind, body)) and not talk.ends["near"]
        talk.now += 1
    assert talk.near.deadline_ns == SECOND // 2 + doubts.GRACE_NS
    talk.until(talk.near.deadline_ns)
    assert refused(talk).code is code and refused(talk).remote


def test_refusal_never_takes_longer_than_the_handshake(line: Any, world: Any) -> None:
    observer, talk = observing(world), line()
    (first,) = talk.near.start(world.wall_s, 0)
    observer.note(True, first.data)
    talk.now = hs.HANDSHAKE_TIMEOUT_NS - 5
    talk.take(False, observer.make(False, g.CLOSE, UNTRUSTED))
    assert talk.near.deadline_ns == hs.HANDSHAKE_TIMEOUT_NS


def test_true_answer_behind_a_forged_refusal_has_all_its_time(line: Any, world: Any) -> None:
    observer, talk = observing(world), line()
    (hello,) = talk.near.start(world.wall_s, 0)
    observer.note(True, hello.data)
    (reply,) = talk.take(True, hello.data)
    talk.take(False, observer.make(False, g.CLOSE, UNTRUSTED))
    talk.take(True, observer.make(True, g.CLOSE, UNTRUSTED))
    assert talk.near.deadline_ns == talk.far.deadline_ns == 1 + doubts.GRACE_NS
    (finish,) = talk.take(False, reply)
    assert talk.near.deadline_ns == hs.HANDSHAKE_TIMEOUT_NS
    (accept,) = talk.take(True, finish)
    talk.take(False, observer.make(False, g.CLOSE, UNTRUSTED))
    assert talk.near.deadline_ns == 1 + doubts.GRACE_NS
    talk.take(False, accept)
    talk.established()


def test_policy_of_the_listener_has_all_its_time_behind_a_forged_refusal(world: Any) -> None:
    async def trusted(claim: Any) -> bool:
        return True

    observer = observing(world)
    talk = Line(world, world.initiator(datagrams=True), world.responder(datagram_source=b"a", trust=trusted))
    (hello,) = talk.near.start(world.wall_s, 0)
    observer.note(True, hello.data)
    (reply,) = talk.take(True, hello.data)
    (finish,) = talk.take(False, reply)
    talk.take(True, observer.make(True, g.CLOSE, UNTRUSTED))
    assert talk.far.deadline_ns == 1 + doubts.GRACE_NS
    assert not talk.take(True, finish)
    assert talk.far.deadline_ns == hs.HANDSHAKE_TIMEOUT_NS
    (ask,) = talk.ends["far"]
    ask.pending.close()  # type: ignore[union-attr]
    talk.ends["far"].clear()
    accept, end = talk.far.resolve(True, world.wall_s, 5 * SECOND)
    talk.ends["far"].append(end)
    talk.take(False, accept.data)
    talk.established()


def test_answers_that_do_not_open_end_it_with_their_reason_when_its_time_is_over(line: Any, world: Any) -> None:
    observer, talk = observing(world), line()
    (first,) = talk.near.start(world.wall_s, 0)
    observer.note(True, first.data)
    talk.take(False, observer.make(False, g.REPLY, os.urandom(500)))
    talk.until(hs.HANDSHAKE_TIMEOUT_NS - 1)
    assert not talk.ends["near"]
    talk.until(hs.HANDSHAKE_TIMEOUT_NS)
    assert refused(talk).code is Refusal.CRYPTO and isinstance(refused(talk).error, HandshakeError)


def test_silence_still_is_a_timeout(line: Any, world: Any) -> None:
    talk = line()
    talk.near.start(world.wall_s, 0)
    talk.until(hs.HANDSHAKE_TIMEOUT_NS)
    assert refused(talk).code is Refusal.TIMEOUT and isinstance(refused(talk).error, DialTimeout)


def test_another_node_at_the_address_is_told_and_named_soon(line: Any, world: Any) -> None:
    observer, talk = observing(world), line()
    (first,) = talk.near.start(world.wall_s, 0)
    observer.note(True, first.data)
    reply = observer.own_reply(world.wall_s)
    for _ in range(20):  # it is said again: judged once
        talk.take(False, reply)
        talk.now += 10_000_000
    assert talk.near.deadline_ns == 1 + doubts.GRACE_NS
    said = talk.near.tick(talk.near.deadline_ns)
    assert [type(event) for event in said] == [hs.Send, hs.Failed] and said[0].data[0] == g.CLOSE
    assert said[1].code is Refusal.WRONG_ID and isinstance(said[1].error, AuthError) and not said[1].remote


class TestCookie:
    def cookie(self, observer: Observer) -> bytes:
        return observer.make(False, g.COOKIE, os.urandom(16))

    def test_forged_cookies_make_two_more_hellos_and_the_first_answer_still_counts(self, line: Any, world: Any) -> None:
        observer, talk = observing(world), line()
        (hello,) = talk.near.start(world.wall_s, 0)
        observer.note(True, hello.data)
        (reply,) = talk.take(True, hello.data)
        more: list[bytes] = []
        for _ in range(50):
            said = talk.take(False, self.cookie(observer))
            more += said
            for one in said:
                observer.note(True, one)
                assert not talk.take(True, one)  # not of its handshake
        assert len(more) == hs.MAX_COOKIES and all(one[0] == g.HELLO for one in more)
        (finish,) = talk.take(False, reply)
        (accept,) = talk.take(True, finish)
        assert not talk.take(False, accept)
        talk.established()
        assert talk.near._said == []

    def test_true_cookie_behind_a_forged_one_is_answered(self, line: Any, world: Any) -> None:
        observer, talk = observing(world), line()
        talk.far._busy = lambda: True
        (hello,) = talk.near.start(world.wall_s, 0)
        observer.note(True, hello.data)
        (true,) = talk.take(True, hello.data)
        (wrong,) = talk.take(False, self.cookie(observer))
        assert not talk.take(False, true)  # of a message before; what is said again gets another one
        (cookie,) = talk.take(True, wrong)
        (right,) = talk.take(False, cookie)
        talk.carry(True, right)
        talk.established()

    def test_each_first_message_has_another_time(self, line: Any, world: Any) -> None:
        observer, talk = observing(world), line()
        (hello,) = talk.near.start(world.wall_s, 0)
        times = [g.parse_header(hello.data).ts]
        observer.note(True, hello.data)
        for _ in range(2):
            (said,) = talk.take(False, self.cookie(observer))
            observer.note(True, said)
            times.append(g.parse_header(said).ts)
        assert times == [times[0], times[0] + 1, times[0] + 2]


def test_what_is_tried_to_be_opened_is_bounded_in_a_time_and_not_in_all(line: Any, world: Any) -> None:
    observer, talk = observing(world), line()
    looked = 0
    (hello,) = talk.near.start(world.wall_s, 0)
    observer.note(True, hello.data)
    read = talk.near._noise.read_message

    def count(message: bytes) -> bytes:
        nonlocal looked
        looked += 1
        return read(message)

    talk.near._noise.read_message = count
    (reply,) = talk.take(True, hello.data)
    for _ in range(300):
        talk.take(False, observer.make(False, g.REPLY, os.urandom(200)))
    assert looked == doubts.LOOKS_MAX
    assert not talk.take(False, reply)  # not looked at; it is said again
    talk.now += doubts.LOOKS_NS
    (finish,) = talk.take(False, reply)
    talk.carry(True, finish)
    talk.established()
    assert talk.near.passed == 301


def test_streams_end_as_ever(world: Any) -> None:
    for kind, body in DOWN.values():
        observer = observing(world)
        near = world.initiator()
        (hello,) = near.start(world.wall_s, 0)
        observer.note(True, hello.data)
        if (kind, len(body)) == (g.COOKIE, 16):
            continue
        events = near.feed(observer.make(False, kind, body), world.wall_s, 1)
        assert isinstance(events[-1], hs.Failed), kind


def test_messages_come_to_nothing_while_the_policy_is_asked(world: Any) -> None:
    async def trusted(claim: Any) -> bool:
        return True

    observer = observing(world)
    talk = Line(world, world.initiator(datagrams=True, trust=trusted), world.responder(datagram_source=b"a"))
    (hello,) = talk.near.start(world.wall_s, 0)
    observer.note(True, hello.data)
    (reply,) = talk.take(True, hello.data)
    assert not talk.take(False, reply)
    (ask,) = talk.ends["near"]
    assert isinstance(ask, hs.Ask)
    ask.pending.close()  # type: ignore[attr-defined]
    for kind, body in DOWN.values():
        forged = observer.make(False, kind, body)
        assert not talk.near.fits(forged)
        assert not talk.near.feed(forged, world.wall_s, 2)
    talk.ends["near"].clear()
    (said,) = talk.near.resolve(True, world.wall_s, 3)
    talk.carry(True, said.data)
    talk.established()


def test_refusal_of_the_policy_is_remembered_and_the_next_answer_is_read(world: Any) -> None:
    asked: list[Any] = []

    async def trusted(claim: Any) -> bool:
        asked.append(claim)
        return False

    observer = observing(world)
    talk = Line(world, world.initiator(datagrams=True, trust=trusted), world.responder(datagram_source=b"a"))
    (hello,) = talk.near.start(world.wall_s, 0)
    observer.note(True, hello.data)
    (reply,) = talk.take(True, hello.data)
    talk.take(False, reply)
    (ask,) = talk.ends["near"]
    ask.pending.close()  # type: ignore[union-attr]
    talk.ends["near"].clear()
    later = 3 * SECOND
    assert not talk.near.resolve(False, world.wall_s, later)
    assert talk.near.state is hs.State.WAIT_REPLY and talk.near.deadline_ns == later + doubts.GRACE_NS
    talk.now = later + 1
    assert not talk.take(False, reply) and not talk.ends["near"]  # not asked again
    talk.until(talk.near.deadline_ns)
    assert refused(talk).code is Refusal.UNTRUSTED


class TestTicket:
    def line(self, world: Any) -> Line:
        tickets = Tickets(world)
        near, far = sides(world, tickets, tickets.give(), i_datagrams=True, r_datagram_source=b"192.0.2.1:5")
        return Line(world, near, far)

    @pytest.mark.parametrize("what", [name for name in DOWN if name != "NO_TICKET"])
    def test_forgery_ahead_of_the_answer_changes_nothing(self, world: Any, what: str) -> None:
        observer, talk = observing(world), self.line(world)
        kind, body = DOWN[what]

        def forge(up: bool, data: bytes) -> list[bytes]:
            observer.note(up, data)
            return [] if up else [observer.make(False, kind, body)] * 3

        talk.forge = forge
        talk.run().established()
        assert talk.near.passed == 3 and [data[0] for _, data in talk.said] == [g.RESUME, g.RESUMED]

    def test_refused_ticket_that_was_taken_begins_the_session_all_the_same(self, world: Any) -> None:
        observer, talk = observing(world), self.line(world)
        (resume,) = talk.near.start(world.wall_s, 0)
        observer.note(True, resume.data)
        (resumed,) = talk.take(True, resume.data)
        said = [one for _ in range(20) for one in talk.take(False, observer.make(False, g.NO_TICKET, bytes(1)))]
        assert [one[0] for one in said] == [g.HELLO] and talk.near.may_begin
        assert not talk.take(True, said[0])  # the session is there
        assert not talk.take(False, resumed)
        talk.established()
        assert talk.ends["near"][0].by_ticket

    def test_refused_ticket_that_never_came_is_followed_by_a_full_handshake(self, world: Any) -> None:
        observer, talk = observing(world), self.line(world)
        (resume,) = talk.near.start(world.wall_s, 0)
        observer.note(True, resume.data)
        (hello,) = talk.take(False, observer.make(False, g.NO_TICKET, bytes(1)))
        (reply,) = talk.take(True, hello)
        assert not talk.take(True, resume.data)  # late
        (finish,) = talk.take(False, reply)
        talk.carry(True, finish)
        talk.established()
        assert not talk.near.may_begin

    def test_second_ticket_ends_no_handshake(self, world: Any) -> None:
        observer, talk = observing(world), self.line(world)
        talk.far._tickets = None
        observer.asked = talk.near.start(world.wall_s, 0)[0].data
        (refused_it,) = talk.take(True, observer.asked)
        (hello,) = talk.take(False, refused_it)
        assert not talk.take(True, observer.make(True, g.RESUME, os.urandom(300)))
        talk.carry(True, hello)
        talk.established()
        assert talk.far.passed == 1
