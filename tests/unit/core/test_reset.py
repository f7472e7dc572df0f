"""A peer that does not know a path any more says so by a token (docs/spec/handshake.md §2.5, session.md §5.5)."""

from __future__ import annotations

import random

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.datagrams import BINDING, MS, PATH, PING, Ends, S, opened, pair_on_datagrams, settle
from tests.unit.core.test_record import PROTOCOL, vint

OK, ECLOSED = st.RC["OK"], st.RC["ECLOSED"]
TOKEN = bytes(range(100, 116))
NAME = b"new name"
"""The connection id by which a path is called from then on."""
OTHER = 4
NEW_CID = b"\x0e"
LOST, SUSPENDED = 4, 5
RESET_LEAST = 40


def told(path: int = PATH, token: bytes = TOKEN, *, seq: int = 1, retire: int = 1, name: bytes = NAME) -> bytes:
    return NEW_CID + vint(path) + vint(seq) + vint(retire) + name + token


def frames_of(said: list[tuple[int, int, bytes]]) -> bytes:
    return b"|".join(frames for _, _, frames in said)


def knowing(**given: int) -> Ends:
    """A session that was told the token of its path."""
    ends = Ends(**given)
    assert ends.say(told()) == OK
    settle(ends)
    return ends


def reset(size: int = 50, token: bytes = TOKEN, seed: int = 1) -> bytes:
    rng = random.Random(seed)
    return bytes([0x40 | rng.getrandbits(6)]) + rng.randbytes(size - 17) + token


class TestTelling:
    @pytest.mark.parametrize("role", [0, 1])
    def test_wire_frame_new_cid_is_said_once(self, role: int) -> None:
        ends = Ends(role=role)
        assert ends.say(PING) == OK
        settle(ends)
        ends.side.tell_token(PATH, NAME + TOKEN)
        assert ends.side.token_of(PATH) == (None, True)
        assert frames_of(ends.hear()).count(told()) == 1
        assert ends.side.token_of(PATH) == (None, False)
        settle(ends)
        for _ in range(20):
            ends.say(PING)
            assert told() not in frames_of(ends.hear())

    def test_it_waits_until_the_other_side_is_known_to_have_the_path(self) -> None:
        ends = Ends(role=1)
        ends.side.tell_token(PATH, NAME + TOKEN)
        said = frames_of(ends.hear())
        assert said and told() not in said
        assert ends.say(PING) == OK
        assert told() in frames_of(ends.hear())

    def test_it_is_said_until_it_is_acknowledged(self) -> None:
        ends = Ends()
        ends.say(PING)
        settle(ends)
        ends.side.tell_token(PATH, NAME + TOKEN)
        times = 0
        for _ in range(6):
            times += told() in frames_of(ends.hear())  # and it is lost
            ends.side.now = ends.side.deadline()
            ends.side.on_deadline()
        assert times >= 3
        for _ in range(10):
            settle(ends)
            if not ends.flying["eliciting"]:
                break
            ends.side.now = ends.side.deadline()
            ends.side.on_deadline()
        assert not ends.flying["eliciting"]
        ends.say(PING)
        assert told() not in frames_of(ends.hear())

    def test_both_sides_of_a_session_hear_it(self) -> None:
        pair, x, y = pair_on_datagrams()
        pair.a.tell_token(PATH, NAME + TOKEN)
        pair.b.tell_token(PATH, NAME[::-1] + TOKEN[::-1])
        assert x.send(b"second") == OK
        for _ in range(20):
            for side, twin in ((pair.a, pair.b), (pair.b, pair.a)):
                while data := side.send_datagram(PATH):
                    twin.recv_datagram(data, PATH)
                side.now += 10 * MS
                side.on_deadline()
        assert y.take() == b"second"
        assert (pair.a.token_of(PATH), pair.b.token_of(PATH)) == (
            (NAME[::-1] + TOKEN[::-1], False),
            (NAME + TOKEN, False),
        )


class TestHearing:
    def test_it_is_kept_and_may_come_again(self) -> None:
        ends = Ends()
        for _ in range(3):
            assert ends.say(told()) == OK
            assert ends.side.token_of(PATH)[0] == NAME + TOKEN
        assert ends.verdict() is None

    @pytest.mark.parametrize(
        "frame",
        [
            told(seq=0),
            told(seq=2),
            told(retire=0),
            told(retire=2),
            told(path=PATH | 1 << 32),
            told(path=0),  # a stream path has none
        ],
    )
    def test_what_cannot_be_is_refused(self, frame: bytes) -> None:
        params = {"datagrams": True, "lease_ns": 1000 * S, "max_paths": 4}
        side, peer = st.Side(1, mine=params, peer=params), st.Peer(0)
        assert side.add(PATH, BINDING, 1200) == OK
        peer.add_datagram_path(PATH, BINDING)
        side.recv_datagram(peer.quick_datagram(PATH, 0, frame), PATH)
        assert side.state()["code"] == PROTOCOL
        assert side.state()["state"] != 0

    def test_another_token_than_before_is_refused(self) -> None:
        ends = knowing()
        ends.say(told(token=TOKEN[:-1] + b"\0"))
        assert ends.verdict() == PROTOCOL

    def test_another_name_than_before_is_refused(self) -> None:
        ends = knowing()
        ends.say(told(name=NAME[:-1] + b"\0"))
        assert ends.verdict() == PROTOCOL

    def test_what_is_sent_from_then_on_has_the_new_name(self) -> None:
        ends, end = opened()
        assert end.send(b"before") == OK
        assert ends.side.send_datagram(PATH)[1:9] == bytes([PATH] * 8)
        assert ends.say(told()) == OK
        assert end.send(b"behind") == OK
        assert ends.side.send_datagram(PATH)[1:9] == NAME

    def test_of_a_path_that_is_not_there_it_changes_nothing(self) -> None:
        ends = Ends()
        assert ends.say(told(path=OTHER)) == OK
        assert ends.verdict() is None and ends.side.token_of(PATH)[0] is None


class TestReset:
    @pytest.mark.parametrize("size", [RESET_LEAST, RESET_LEAST + 1, 63, 200, 1200])
    def test_it_loses_the_path_and_nothing_else(self, size: int) -> None:
        ends, end = opened()
        ends.say(told())
        settle(ends)
        failed = ends.side.state()["failed"]
        assert end.send(b"kept") == OK
        ends.hear()
        ends.side.path_events()
        assert ends.side.recv_datagram(reset(size), PATH) == ECLOSED
        state = ends.side.state()
        assert state["suspended"] and state["resets"] == 1
        assert state["failed"] == failed  # it is no forgery
        assert [event[:2] for event in ends.side.path_events()[0]] == [(PATH, LOST), (PATH, SUSPENDED)]
        assert end.send(b"more") == OK
        other = bytes(32)
        assert ends.side.add(OTHER, other, 1200) == OK
        ends.peer.add_datagram_path(OTHER, other)
        assert ends.say(PING, path=OTHER) == OK
        assert b"kept" in b"".join(frames for _, _, frames in ends.hear(OTHER))

    @pytest.mark.parametrize("size", [16, 17, 24, RESET_LEAST - 1])
    def test_a_short_one_is_none(self, size: int) -> None:
        ends = knowing()
        assert ends.side.recv_datagram(reset(max(size, 17))[-size:], PATH) < 0
        assert not ends.side.state()["suspended"] and ends.side.state()["resets"] == 0

    def test_a_wrong_token_is_a_forgery_like_any(self) -> None:
        ends, plain = knowing(), Ends()
        settle(plain)
        wrong = [TOKEN[:i] + bytes([TOKEN[i] ^ 1 << bit]) + TOKEN[i + 1 :] for i in range(16) for bit in range(8)]
        wrong += [bytes(16), TOKEN[::-1], TOKEN[1:] + TOKEN[:1]]
        before = ends.side.state()["failed"], plain.side.state()["failed"]
        for n, token in enumerate(wrong):
            assert ends.side.recv_datagram(reset(60, token, n), PATH) != OK
            plain.side.recv_datagram(reset(60, token, n), PATH)
        assert not ends.side.state()["suspended"] and ends.side.state()["resets"] == 0
        counted = ends.side.state()["failed"] - before[0], plain.side.state()["failed"] - before[1]
        assert counted[0] == counted[1]
        assert ends.flying["refused"] == len(wrong)
        assert ends.say(PING) == OK

    def test_who_guesses_does_not_find_it(self) -> None:
        ends = knowing()
        rng = random.Random(7)
        for _ in range(20_000):
            ends.side.recv_datagram(bytes([0x40]) + rng.randbytes(rng.choice([39, 40, 62])), PATH)
        assert not ends.side.state()["suspended"]
        assert ends.say(PING) == OK

    def test_without_a_token_there_is_none_to_match(self) -> None:
        ends = Ends()
        for token in (bytes(16), TOKEN):
            assert ends.side.recv_datagram(reset(50, token), PATH) != OK
        assert not ends.side.state()["suspended"] and ends.side.state()["resets"] == 0

    def test_a_token_elsewhere_in_a_datagram_is_none(self) -> None:
        ends = knowing()
        for tail in (1, 8, 16, 100):
            ends.side.recv_datagram(reset(60) + bytes(tail), PATH)
        assert not ends.side.state()["suspended"]

    def test_the_token_of_another_path_does_nothing(self) -> None:
        ends = Ends(others=(OTHER,))
        theirs = bytes([9] * 16)
        assert ends.say(told()) == ends.say(told(OTHER, theirs), path=OTHER) == OK
        assert ends.side.recv_datagram(reset(token=theirs), PATH) != OK
        assert ends.side.recv_datagram(reset(), OTHER) != OK
        assert sorted(ends.side.paths()[0]) == [PATH, OTHER]
        assert ends.side.recv_datagram(reset(token=theirs), OTHER) == ECLOSED
        assert ends.side.paths()[0] == [PATH]
        assert ends.verdict() is None and not ends.side.state()["suspended"]
        assert b"\x0d" + vint(OTHER) in frames_of(ends.hear())  # PATH_CLOSE: should that process know the session
        assert ends.say(PING) == OK

    def test_while_the_session_is_being_closed_nobody_is_left_to_hear_of_it(self) -> None:
        ends = knowing()
        ends.side.close(0)
        assert ends.side.recv_datagram(reset(), PATH) == ECLOSED
        assert ends.side.state()["state"] == 2
