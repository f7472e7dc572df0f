"""JOIN, both sides, without sockets (docs/spec/handshake.md §11)."""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from netchan.net import gate as g
from netchan.net import join as j
from netchan.net.doubts import GRACE_NS
from netchan.net.handshake import Drain, Failed, HandshakeConfig, Responder, Send, State
from netchan.net.identity import Identity
from netchan.net.machine import EARLY_MAX, Joined
from netchan.net.params import Refusal
from netchan.net.responder import PARKED_NS
from netchan.net.trust import make_policy

WALL = 1_900_000_000.0
BOSS = Identity.from_seed(bytes(range(32))) if hasattr(Identity, "from_seed") else Identity.generate()
CONFIG = HandshakeConfig(identity=BOSS)
KEYS = g.named_keys(BOSS.id_pub, CONFIG.network_id)


class Fake:
    """A session for JOIN: a key, and what it says of its paths."""

    def __init__(self, key: bytes = b"k" * 32, received: int | None = 7) -> None:
        self.key, self.received = key, received
        self.joins: list[tuple[int, int]] = []

    def join_mac(self, data: bytes) -> bytes:
        return hmac.digest(self.key, hashlib.sha256(data).digest(), "sha256")

    def join(self, path_id: int, last: int) -> int | None:
        self.joins.append((path_id, last))
        return self.received


class Table:
    """Finds one session by two names."""

    def __init__(self, session: Fake) -> None:
        self.names = {j.locator(session, n): session for n in range(2)}
        self.used_names: list[bytes] = []
        self.over: bytes | None = None
        self.more = False

    def may_come(self, name: bytes) -> bool:
        return self.more and name not in self.names

    def proof(self, name: bytes) -> bytes | None:
        return self.over

    def find(self, name: bytes) -> Fake | None:
        return self.names.get(name)

    def used(self, name: bytes) -> None:
        self.used_names.append(name)


def joiner(session: Fake, **given: Any) -> j.Joiner:
    options: dict[str, Any] = {"number": 0, "path_id": 2, "last": 0, "received": 5, "where": "tcp://there:1"}
    return j.Joiner(session, CONFIG.primitives, KEYS, os.urandom, **(options | {"timeout_ns": 10**9} | given))


def responder(table: Table | None, psks: list[bytes] | None = None) -> Responder:
    gate = g.Gate(CONFIG.network_id, BOSS.id_pub, CONFIG.primitives, psks=psks or [])
    policy = make_policy("any", own_id=BOSS.id_pub, dialling=False)
    return Responder(CONFIG, policy, gate, os.urandom, 0, reach=table)


def asked(machine: j.Joiner) -> bytes:
    (sent,) = machine.start(WALL, 0)
    return sent.data


def test_both_sides_agree() -> None:
    near, far = Fake(received=9), Fake(received=11)
    a, b = joiner(near), responder(table := Table(far))
    reply, there = b.feed(asked(a) + b"", WALL, 1)
    assert isinstance(reply, Send) and isinstance(there, Joined)
    assert b.state is State.DONE and far.joins == [(2, 0)] and len(table.used_names) == 1
    (here,) = a.feed(reply.data + b"early", WALL, 2)
    assert isinstance(here, Joined) and a.state is State.DONE and a.deadline_ns is None
    assert (here.path_id, here.last, here.received, here.leftover) == (2, 0, 11, b"early")
    assert (there.path_id, there.last, there.received, there.session) == (2, 0, 5, far)
    assert here.binding == there.binding and len(here.binding) == 32
    assert near.joins == []  # the dialler has ended its path itself


def test_any_cut_of_the_bytes_gives_the_same() -> None:
    far = Fake()
    a, b = joiner(Fake()), responder(Table(far))
    events: list[Any] = []
    for byte in asked(a):
        events += b.feed(bytes((byte,)), WALL, 1)
    got: list[Any] = []
    for byte in events[0].data:
        got += a.feed(bytes((byte,)), WALL, 1)
    assert isinstance(got[0], Joined) and got[0].binding == events[1].binding


@pytest.mark.parametrize("number", [0, 1])
def test_names_of_this_and_of_the_next_resume_are_known(number: int) -> None:
    b = responder(Table(Fake()))
    assert isinstance(b.feed(asked(joiner(Fake(), number=number)), WALL, 1)[1], Joined)


@pytest.mark.parametrize(
    ("session", "options"),
    [
        (Fake(b"x" * 32), {}),  # of another session
        (Fake(), {"number": 2}),  # a name that is not good yet
    ],
)
def test_who_is_not_of_the_session_hears_gone(session: Fake, options: dict[str, Any]) -> None:
    far = Fake()
    a, b = joiner(session, **options), responder(Table(far))
    close, failed = b.feed(asked(a), WALL, 1)
    assert isinstance(failed, Failed) and failed.code is Refusal.GONE and far.joins == []
    assert isinstance(close, Send)
    (heard,) = a.feed(close.data, WALL, 2)
    assert isinstance(heard, Failed) and heard.code is Refusal.GONE and heard.remote and heard.error.transient


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("key", [b"k" * 32, b"x" * 32])
def test_only_the_other_side_can_show_that_the_session_is_over(known: bool, key: bytes) -> None:
    table = Table(Fake(received=None))
    if not known:
        table.names.clear()
    table.over = j.gone(Fake(key))
    a, b = joiner(Fake()), responder(table)
    close = b.feed(asked(a), WALL, 1)[0]
    assert isinstance(close, Send)
    (heard,) = a.feed(close.data, WALL, 2)
    assert isinstance(heard, Failed) and heard.code is Refusal.GONE
    assert a.over == (key == b"k" * 32)


def test_session_that_cannot_mean_these_paths_is_gone() -> None:
    b = responder(Table(Fake(received=None)))
    assert b.feed(asked(joiner(Fake())), WALL, 1)[1].code is Refusal.GONE  # type: ignore[union-attr]


def test_without_sessions_or_gate_there_is_silence() -> None:
    assert isinstance(responder(None).feed(asked(joiner(Fake())), WALL, 1)[0], Drain)
    guarded = responder(Table(Fake()), psks=[b"p" * 32])
    assert isinstance(guarded.feed(asked(joiner(Fake())), WALL, 1)[0], Drain)


def test_with_a_psk_its_holders_pass() -> None:
    keys = g.psk_keys(b"p" * 32, CONFIG.network_id)
    a = j.Joiner(
        Fake(),
        CONFIG.primitives,
        keys,
        os.urandom,
        number=0,
        path_id=2,
        last=0,
        received=0,
        where="x",
        timeout_ns=10**9,
    )
    b = responder(Table(Fake()), psks=[b"p" * 32])
    reply, there = b.feed(asked(a), WALL, 1)
    assert isinstance(there, Joined) and isinstance(reply, Send)
    assert isinstance(a.feed(reply.data, WALL, 2)[0], Joined)


def test_replayed_join_is_met_with_silence() -> None:
    gate = g.Gate(CONFIG.network_id, BOSS.id_pub, CONFIG.primitives)
    policy = make_policy("any", own_id=BOSS.id_pub, dialling=False)
    far = Fake()
    table = Table(far)
    frame = asked(joiner(Fake()))
    first = Responder(CONFIG, policy, gate, os.urandom, 0, reach=table)
    second = Responder(CONFIG, policy, gate, os.urandom, 0, reach=table)
    assert isinstance(first.feed(frame, WALL, 1)[1], Joined)
    assert isinstance(second.feed(frame, WALL, 1)[0], Drain)
    assert len(far.joins) == 1


@given(at=hs.integers(0, 150), flip=hs.integers(1, 255))
def test_no_changed_byte_of_a_join_is_accepted(at: int, flip: int) -> None:
    far = Fake()
    b = responder(Table(far))
    frame = bytearray(asked(joiner(Fake())))
    frame[at] ^= flip
    events = b.feed(bytes(frame), WALL, 1)
    assert not any(isinstance(event, Joined) for event in events) and far.joins == []


@given(at=hs.integers(0, 134), flip=hs.integers(1, 255))
def test_no_changed_byte_of_the_answer_is_accepted(at: int, flip: int) -> None:
    a, b = joiner(Fake()), responder(Table(Fake()))
    reply = b.feed(asked(a), WALL, 1)[0]
    assert isinstance(reply, Send)
    frame = bytearray(reply.data)
    frame[at] ^= flip
    assert not any(isinstance(event, Joined) for event in a.feed(bytes(frame), WALL, 2))


@given(body=hs.binary(max_size=300))
def test_parser_takes_any_bytes(body: bytes) -> None:
    header = g.Header(g.JOIN, g.VERSION, 0, g.MODE_XX_NAMED << 4 | CONFIG.primitives, 0, bytes(8), 1)
    frame = g.seal_frame(header, body, KEYS.to_responder)
    try:
        request = j.parse_request(frame)
    except g.FrameError:
        return
    assert len(body) == 97 and request.paths == 1


@pytest.mark.parametrize("paths", [2, 255])
def test_one_path_is_named_and_another_one_asked_for(paths: int) -> None:
    header = g.Header(g.JOIN, g.VERSION, 0, g.MODE_XX_NAMED << 4 | CONFIG.primitives, 0, bytes(8), 1)
    for n, path_id, last in ((paths, 2, 0), (1, 2, 2)):
        body = struct.pack(">16sI32sBIQ32s", bytes(16), path_id, bytes(32), n, last, 0, bytes(32))
        with pytest.raises(g.FrameError, match="malformed"):
            j.parse_request(g.seal_frame(header, body, KEYS.to_responder))


def test_time_and_end_of_the_carrier() -> None:
    a = joiner(Fake())
    asked(a)
    (late,) = a.feed(b"\0", WALL, 10**9)
    assert isinstance(late, Failed) and late.code is Refusal.TIMEOUT and late.error.transient
    assert a.tick(2 * 10**9) == [] and a.eof() == []
    b = joiner(Fake())
    asked(b)
    (ended,) = b.eof()
    assert isinstance(ended, Failed) and ended.code is Refusal.PROTOCOL
    c = joiner(Fake())
    c.close()
    assert c.feed(b"x", WALL, 1) == [] and c.state is State.FAILED


def test_what_is_no_answer_ends_the_attempt() -> None:
    for kind in (g.HELLO, g.REPLY, g.FINISH, g.ACCEPT):
        a = joiner(Fake())
        frame = asked(a)
        header = g.parse_header(frame)._replace(kind=kind)
        (failed,) = a.feed(g.seal_frame(header, bytes(81), KEYS.to_initiator), WALL, 1)
        assert isinstance(failed, Failed) and failed.code is Refusal.PROTOCOL


def test_locators_differ_and_tell_nothing() -> None:
    names = {j.locator(Fake(), n) for n in range(100)} | {j.locator(Fake(b"q" * 32), n) for n in range(100)}
    assert len(names) == 200 and all(len(name) == 16 for name in names)


def code(key: bytes, data: bytes) -> bytes:
    """mac(data) of docs/spec/keys.md §1, made here anew."""
    return hmac.digest(key, hashlib.sha256(data).digest(), "sha256")


def test_codes_are_those_of_the_spec() -> None:
    key = b"k" * 32
    a, b = joiner(Fake(received=5)), responder(Table(Fake(received=11)))
    frame = asked(a)
    reply, there = b.feed(frame, WALL, 1)
    assert isinstance(reply, Send) and isinstance(there, Joined)
    up, down = g.frame_body(frame), g.frame_body(reply.data)
    assert up[:16] == code(key, b"netchan locator v1\0" + bytes(8))[:16]
    assert up[16:20] == down[:4] == (2).to_bytes(4, "big")
    assert up[52:-32] == b"\x01" + bytes(4) + (5).to_bytes(8, "big")
    assert down[36:-32] == b"\x01" + bytes(4) + (11).to_bytes(8, "big")
    assert up[-32:] == code(key, b"netchan join v1\0" + frame[:22] + up[:-32])
    assert down[-32:] == code(key, b"netchan join v1\0" + reply.data[:22] + up + down[:-32])
    assert there.binding == hashlib.sha256(b"netchan path v1\0" + up + down).digest()
    assert j.gone(Fake(key)) == code(key, b"netchan gone v1\0")


def test_nonces_are_fresh() -> None:
    up = [g.frame_body(asked(joiner(Fake())))[20:52] for _ in range(4)]
    down = []
    for _ in range(4):
        reply = responder(Table(Fake())).feed(asked(joiner(Fake())), WALL, 1)[0]
        assert isinstance(reply, Send)
        down.append(g.frame_body(reply.data)[4:36])
    assert len({bytes(n) for n in up + down} - {bytes(32)}) == 8


def test_request_with_a_known_name_and_a_wrong_code_is_gone() -> None:
    """Who has seen a locator knows the name, and who knows the node's key makes a good gate."""
    far = Fake()
    table = Table(far)
    frame = asked(joiner(Fake()))
    body = bytearray(g.frame_body(frame))
    for at in (17, 30, 52, 60, len(body) - 1):
        bad = bytearray(body)
        bad[at] ^= 1 if at != 52 else 0
        if at == 52:
            bad[-1] ^= 1
        forged = g.seal_frame(g.parse_header(frame)._replace(scid=bytes([at] * 8)), bytes(bad), KEYS.to_responder)
        close, failed = responder(table).feed(forged, WALL, 1)
        assert isinstance(failed, Failed) and failed.code is Refusal.GONE
        assert isinstance(close, Send)
    assert far.joins == [] and table.used_names == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"key": b"x" * 32}, id="code of another key"),
        pytest.param({"path_id": 4}, id="another path"),
        pytest.param({"last": 8}, id="another last path"),
        pytest.param({"paths": 2}, id="two paths"),
        pytest.param({"asked": b"other"}, id="answer to another request"),
        pytest.param({"flip": 40}, id="changed behind the code"),
    ],
)
def test_answer_that_the_gate_lets_through_is_checked(change: dict[str, Any]) -> None:
    a = joiner(Fake())
    frame = asked(a)
    key = change.get("key", b"k" * 32)
    body = bytearray(
        change.get("path_id", 2).to_bytes(4, "big")
        + b"n" * 32
        + bytes((change.get("paths", 1),))
        + change.get("last", 0).to_bytes(4, "big")
        + (7).to_bytes(8, "big")
    )
    header = g.parse_header(frame)
    size = g.HEADER_LEN + len(body) + 32 + g.TRAILER_LEN
    up = change.get("asked", g.frame_body(frame))
    body += code(key, b"netchan join v1\0" + header._replace(length=size).pack() + up + body)
    if "flip" in change:
        body[change["flip"]] ^= 1
    (event,) = a.feed(g.seal_frame(header, bytes(body), KEYS.to_initiator), WALL, 2)
    assert isinstance(event, Failed) and event.code is Refusal.CRYPTO and not a.over


def test_answer_made_by_hand_is_good() -> None:
    a = joiner(Fake())
    frame = asked(a)
    header = g.parse_header(frame)
    body = (2).to_bytes(4, "big") + b"n" * 32 + b"\x01" + bytes(4) + (7).to_bytes(8, "big")
    size = g.HEADER_LEN + len(body) + 32 + g.TRAILER_LEN
    body += code(b"k" * 32, b"netchan join v1\0" + header._replace(length=size).pack() + g.frame_body(frame) + body)
    (event,) = a.feed(g.seal_frame(header, body, KEYS.to_initiator), WALL, 2)
    assert isinstance(event, Joined) and event.received == 7


def test_proof_counts_only_behind_gone() -> None:
    a = joiner(Fake())
    frame = asked(a)
    header = g.parse_header(frame)._replace(kind=g.CLOSE)
    body = int(Refusal.BUSY).to_bytes(2, "big") + j.gone(Fake())
    (event,) = a.feed(g.seal_frame(header, body, KEYS.to_initiator), WALL, 2)
    assert isinstance(event, Failed) and not a.over


def test_bytes_behind_the_request_belong_to_the_path() -> None:
    b = responder(Table(Fake()))
    there = b.feed(asked(joiner(Fake())) + b"early", WALL, 1)[1]
    assert isinstance(there, Joined) and there.leftover == b"early"


# --- while sessions come from another process (docs/spec/handover.md §3) ----------------------------------------------


def parked(pieces: int = 1, early: bytes = b"") -> tuple[j.Joiner, Responder, Table, Fake]:
    """A JOIN for a session that is not here yet, after it has come in so many pieces."""
    far = Fake(received=11)
    table = Table(far)
    names, table.names = table.names, {}
    table.more = True
    a, b = joiner(Fake()), responder(table)
    data = asked(a)
    for at in range(pieces):
        part = data[at * len(data) // pieces : (at + 1) * len(data) // pieces]
        assert b.waits_for == b"" and b.feed(part, WALL, 1) == []
    assert b.state is State.WAIT_SESSION and b.waits_for == j.locator(far, 0) and b.heard
    assert b.feed(early, WALL, 2) == []
    table.names = names
    return a, b, table, far


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_join_waits_for_a_session_that_is_on_its_way(pieces: int) -> None:
    a, b, _, far = parked(pieces, b"early")
    assert far.joins == []
    reply, there = b.go_on(3)
    assert isinstance(reply, Send) and isinstance(there, Joined) and there.leftover == b"early"
    assert far.joins == [(2, 0)] and b.state is State.DONE and b.go_on(4) == []
    (here,) = a.feed(reply.data, WALL, 4)
    assert isinstance(here, Joined) and here.received == 11 and here.binding == there.binding


def test_join_whose_session_does_not_come_hears_gone() -> None:
    a, b, table, _ = parked()
    table.names.clear()
    table.more = False
    close, failed = b.go_on(3)
    assert isinstance(close, Send) and isinstance(failed, Failed) and failed.code is Refusal.GONE
    (heard,) = a.feed(close.data, WALL, 4)
    assert isinstance(heard, Failed) and heard.error.transient and not a.over


def test_join_waits_for_its_session_so_long_and_no_longer() -> None:
    a, b, _, far = parked()
    assert b.deadline_ns == 1 + PARKED_NS and b.tick(PARKED_NS) == []
    close, failed = b.tick(1 + PARKED_NS)
    assert isinstance(close, Send) and isinstance(failed, Failed) and failed.code is Refusal.BUSY
    assert b.go_on(2 + PARKED_NS) == [] and far.joins == []
    (heard,) = a.feed(close.data, WALL, 4)
    assert isinstance(heard, Failed) and heard.error.transient and not a.over


def test_join_that_finds_no_room_to_wait_is_told_to_try_again() -> None:
    _, b, _, far = parked()
    _, failed = b.no_room()
    assert isinstance(failed, Failed) and failed.code is Refusal.BUSY
    assert b.no_room() == b.go_on(3) == [] and far.joins == []


def test_join_that_waits_may_say_so_much_and_no_more() -> None:
    _, b, _, _ = parked(early=bytes(EARLY_MAX))
    failed = b.feed(b"x", WALL, 3)[-1]
    assert isinstance(failed, Failed) and failed.code is Refusal.PROTOCOL


def test_join_that_waits_and_is_given_up_is_over() -> None:
    _, b, _, far = parked()
    (failed,) = b.eof()
    assert isinstance(failed, Failed) and b.go_on(3) == [] and far.joins == []


class TestForged:
    """Over datagrams whoever sees an exchange can answer a JOIN with all that hangs on mac1 only (§2.4)."""

    def forged(self, request: bytes, kind: int, body: bytes) -> bytes:
        return g.seal_frame(g.parse_header(request)._replace(kind=kind), body, KEYS.to_initiator)

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            (g.JOIN, os.urandom(81)),
            (g.JOIN, b"x"),
            (g.CLOSE, int(Refusal.GONE).to_bytes(2, "big")),
            (g.CLOSE, int(Refusal.GONE).to_bytes(2, "big") + os.urandom(32)),
            (g.CLOSE, b"x"),
            (g.VERSIONS, b"\x01\x02"),
            (g.REPLY, os.urandom(90)),
            (g.COOKIE, os.urandom(16)),
        ],
        ids=["JOIN", "short JOIN", "GONE", "GONE and no proof", "short CLOSE", "VERSIONS", "REPLY", "COOKIE"],
    )
    def test_forgery_ahead_of_the_answer_ends_no_join(self, kind: int, body: bytes) -> None:
        a, b = joiner(Fake(), datagrams=True), responder(Table(Fake()))
        request = asked(a)
        reply, _ = b.feed(request, WALL, 1)
        for _ in range(5):
            assert a.feed(self.forged(request, kind, body), WALL, 2) == []
        assert a.passed == 5 and not a.over
        (joined,) = a.feed(reply.data, WALL, 3)
        assert isinstance(joined, Joined)
        # a stream ends by it
        a = joiner(Fake())
        (failed,) = a.feed(self.forged(asked(a), kind, body), WALL, 2)
        assert isinstance(failed, Failed)

    def test_refusal_counts_when_nothing_better_comes(self) -> None:
        a = joiner(Fake(), datagrams=True, timeout_ns=10**11)
        request = asked(a)
        close = self.forged(request, g.CLOSE, int(Refusal.GONE).to_bytes(2, "big"))
        for now in range(7, 20):
            assert a.feed(close, WALL, now) == []
        assert a.deadline_ns == 7 + GRACE_NS and a.tick(6 + GRACE_NS) == []
        (failed,) = a.tick(7 + GRACE_NS)
        assert failed.code is Refusal.GONE and failed.remote and not a.over

    def test_other_side_that_shows_that_the_session_is_over_is_believed_at_once(self) -> None:
        a = joiner(Fake(), datagrams=True)
        request = asked(a)
        (failed,) = a.feed(
            self.forged(request, g.CLOSE, int(Refusal.GONE).to_bytes(2, "big") + j.gone(Fake())), WALL, 2
        )
        assert failed.code is Refusal.GONE and a.over
