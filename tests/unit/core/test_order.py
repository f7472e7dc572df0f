"""Records with a number in the order of the session (docs/spec/session.md §5.4), said by a peer that a test holds."""

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.test_record import PROTOCOL, data, msg, preface, vint

OK, ECLOSED = st.RC["OK"], st.RC["ECLOSED"]
UP = 0
ORDER, PING = b"\x19", b"\x01"
WINDOW, BODY = 1024, 1100


def numbered(n: int, frames: bytes) -> bytes:
    return ORDER + vint(n) + frames


def hosted(datagrams: bool = True) -> tuple[st.Side, st.Peer, st.End]:
    """A responder with one open channel, and the other end of its session."""
    side = st.Side(1, mine={"datagrams": datagrams, "lease_ns": 10**10})
    end = side.open("c", codec=1)
    side.send()
    return side, st.Peer(0), end


def opening(n: int) -> bytes:
    """The record that opens stream 16 for the channel, number n."""
    return numbered(n, data(0, preface(b"c")))


def value(n: int, offset: int, body: bytes) -> bytes:
    return numbered(n, data(offset, msg(body)))


class TestReceiver:
    def test_wire_frame_order_is_acted_on_in_its_order(self) -> None:
        side, peer, end = hosted()
        first = preface(b"c")
        side.recv(peer.seal(16, value(1, len(first), b"one")))
        assert not end.paired and side.order()[2:] == (0, 1)
        side.recv(peer.seal(16, opening(0)))
        assert end.paired and side.order()[2:] == (2, 0)
        assert end.take() == b"one"

    def test_a_number_that_was_here_is_passed_over(self) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(16, opening(0)))
        for _ in range(3):
            side.recv(peer.seal(16, value(1, len(preface(b"c")), b"one")))
        assert [end.take(), end.take()] == [b"one", st.RC["EAGAIN"]]
        side.recv(peer.seal(0, numbered(3, PING)))
        side.recv(peer.seal(0, numbered(3, PING)))  # kept already
        assert side.order()[2:] == (2, 1)
        assert side.state()["state"] == UP

    def test_it_may_stand_behind_padding_only(self) -> None:
        side, peer, _ = hosted()
        side.recv(peer.seal(0, bytes(9) + numbered(0, PING)))
        assert side.order()[2] == 1 and side.state()["state"] == UP
        side.recv(peer.seal(0, PING + numbered(1, PING)))
        assert side.state()["code"] == PROTOCOL

    @pytest.mark.parametrize(
        "frames",
        [
            numbered(WINDOW, PING),  # beyond what a sender may have open
            numbered(1 << 40, PING),
            numbered(0, bytes(BODY)),  # longer than what fits into every datagram
            ORDER,  # cut
            ORDER + b"\xc0",
        ],
    )
    def test_what_no_sender_says_ends_the_session(self, frames: bytes) -> None:
        side, peer, _ = hosted()
        side.recv(peer.seal(0, frames))
        assert side.state()["code"] == PROTOCOL

    def test_all_of_a_window_is_kept(self) -> None:
        side, peer, _ = hosted()
        for n in range(WINDOW - 1, 0, -1):
            side.recv(peer.seal(0, numbered(n, PING)))
        assert side.order()[2:] == (0, WINDOW - 1) and side.state()["state"] == UP
        side.recv(peer.seal(0, numbered(0, PING)))
        assert side.order()[2:] == (WINDOW, 0)

    def test_a_session_without_datagrams_knows_no_numbers(self) -> None:
        side, peer, _ = hosted(datagrams=False)
        side.recv(peer.seal(0, numbered(0, PING)))
        assert side.state()["code"] == PROTOCOL

    def test_a_gap_holds_up_nothing_that_has_no_number(self) -> None:
        side, peer, end = hosted()
        first = len(preface(b"c"))
        side.recv(peer.seal(16, opening(0)))
        side.recv(peer.seal(0, numbered(2, PING)))
        side.recv(peer.seal(16, data(first, msg(b"one"))))
        assert end.take() == b"one" and side.order()[2:] == (1, 1)


class TestSender:
    def pair(self) -> st.Pair:
        params = {"datagrams": True, "lease_ns": 10**10, "max_paths": 4}
        return st.Pair(mine=params, peer=params)

    def test_numbers_stop_at_the_window_and_go_on_with_an_acknowledgement(self) -> None:
        pair = self.pair()
        x, y = pair.a.open("c", capacity=1, overflow=3), pair.b.open("c", capacity=1, overflow=3)
        pair.run()
        said, floor = pair.a.order()[:2]
        assert said == floor
        for _ in range(WINDOW + 50):  # of a direction that may lose messages each record has one; nothing comes back
            assert x.send(b"v") == OK
            pair.ab += pair.a.send(65536)
        assert pair.a.order()[:2] == (said + WINDOW, said)
        pair.run()
        pair.sleep(100_000_000)
        said, floor = pair.a.order()[:2]
        assert said == floor and pair.b.order()[2] == said
        assert y.take() == b"v"

    def test_a_stream_loses_its_number_when_its_preface_is_there(self) -> None:
        pair = self.pair()
        x, y = pair.a.open("c", capacity=100), pair.b.open("c", capacity=100)
        pair.run()
        pair.sleep(100_000_000)
        before = pair.a.order()[0]
        for _ in range(20):
            assert x.send(bytes(3000)) == OK
        pair.run()
        assert pair.a.order()[0] == before
        assert len(y.take_all()) == 20

    def test_small_values_of_many_streams_share_a_record(self) -> None:
        """The trunk: a record with a number is short, but not so short that each stream has one for itself."""
        params = {"datagrams": True, "lease_ns": 10**10, "trunk": 1}
        pair = st.Pair(mine=params, peer=params)
        ends = [[side.open(f"c{i}", trunk=True) for i in range(50)] for side in (pair.a, pair.b)]
        pair.run()
        pair.sleep(100_000_000)
        before = pair.a.state()["trunk_records"]
        for end in ends[0]:
            assert end.send(bytes(20)) == OK
        pair.run()
        assert pair.a.state()["trunk_records"] - before <= 4
        assert [end.take() for end in ends[1]] == [bytes(20)] * 50
        for end in ends[0]:
            assert end.send(bytes(600)) == OK
        pair.run()
        assert [end.take() for end in ends[1]] == [bytes(600)] * 50
        pair.free()
