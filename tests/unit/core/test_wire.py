"""One test for each frame, each code of SESSION_CLOSE and each code of ABORT, which it names (``make wire-names``).

What a session does when the frame comes, or who says the code and what the other side makes of it; the layouts, cuts
and bounds of all frames are in test_frame.py. Spec: docs/spec/wire.md §5, §6, docs/spec/session.md §9.
"""

from collections.abc import Callable
from typing import Any

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.test_record import (
    CREDIT,
    CRYPTO,
    FINAL_SIZE,
    HEAD,
    MESSAGE_SIZE,
    OVER,
    PROTOCOL,
    STREAMS,
    UNSUPPORTED,
    UP,
    data,
    hosted,
    msg,
    preface,
    verdict,
    vint,
)
from tests.unit.core.test_session import ABORT, ABORT_AFTER, LEFT, LOST, MS, STOPPED, opened, settled

OK, EAGAIN, ECLOSED, EEXHAUSTED = (st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED", "EEXHAUSTED"))
THEIRS, OURS = 16, 17
"""Streams of the channel of ``hosted``: the peer's and ours."""
FIN = 1
CONTROL, TRUNK = 0, 1
ACK, POS, WITHDRAW, WITHDRAWN, SESSION_CLOSE, DATA = 0x02, 0x03, 0x05, 0x06, 0x17, 0x20


def heard(side: st.Side, peer: st.Peer) -> list[dict[str, Any]]:
    """All frames that the side has to say now."""
    return [f for tag, frames in peer.open(side.send()) for f in st.parse(frames, tag)[0]]


def refused(tag: int, frame: bytes) -> int | None:
    """What a session that is up makes of a frame: the code that it closes with, and says."""
    side, peer, end = hosted()
    side.recv(peer.seal(tag, frame))
    code = verdict(side)
    said = [f["a"] for f in heard(side, peer) if f["type"] == SESSION_CLOSE]
    assert said == ([] if code is None else [code])
    if code is not None:
        assert side.state()["state"] == OVER
        assert end.send(b"late") == ECLOSED
    return code


def offering() -> tuple[st.Side, st.Peer, st.End]:
    """``hosted`` with capacity 0: values are offered."""
    side, peer, end = hosted(capacity=0)
    side.recv(peer.seal(CONTROL, st.put("pos", OURS, 0, 0, 16, 1 << 20)))
    return side, peer, end


class TestFrames:
    """wire.md §5, §6, §9: what acts on a session, and what does nothing to it."""

    def test_wire_frame_padding_asks_for_nothing(self) -> None:
        side, peer, _ = hosted()
        side.now += 100 * MS
        side.on_deadline()
        heard(side, peer)
        side.recv(peer.seal(CONTROL, bytes(50)))
        side.now += 100 * MS
        side.on_deadline()
        assert heard(side, peer) == []
        assert verdict(side) is None

    def test_wire_frame_ping_is_acknowledged(self) -> None:
        side, peer, _ = hosted()
        side.recv(peer.seal(CONTROL, st.put("ping")))
        assert [f for f in heard(side, peer) if f["type"] == ACK] == []
        side.now += 25 * MS
        side.on_deadline()
        assert [(f["b"], f["d"]) for f in heard(side, peer) if f["type"] == ACK] == [(peer.tx - 1, peer.tx - 1)]

    def test_wire_frame_ack_settles_the_records_up_to_its_number(self) -> None:
        side, peer, end = hosted()
        for _ in range(3):
            end.send(b"v")
            heard(side, peer)
        sent = side.state()["tx"]
        side.recv(peer.seal(CONTROL, st.put("ack", 0, sent - 2, 0, sent - 2)))
        assert side.state()["acked"] == sent - 1
        assert refused(CONTROL, st.put("ack", 0, 50, 0, 50)) == PROTOCOL

    def test_wire_frame_pos_moves_all_four_positions(self) -> None:
        side, peer, end = hosted(capacity=2)
        assert [end.send(b"v") for _ in range(3)] == [OK, OK, EAGAIN]
        heard(side, peer)
        sent = end.out()["sent"]
        side.recv(peer.seal(CONTROL, st.put("pos", OURS, sent, 1, 900, 70_000)))
        out = end.out()
        assert (out["received"], out["taken"], out["max_msgs"], out["max_bytes"]) == (sent, 1, 900, 70_000)
        assert [end.send(b"v") for _ in range(2)] == [OK, EAGAIN]
        assert refused(CONTROL, st.put("pos", OURS, 10**6, 0, 0, 0)) == PROTOCOL

    def test_wire_frame_want_lets_a_long_offer_go(self) -> None:
        side, peer, end = offering()
        long = bytes(16_385)
        assert end.offer(long) == EAGAIN
        side.recv(peer.seal(CONTROL, b"\x04" + vint(OURS) + vint(1) + vint(1)))
        assert end.offer(long) == 0
        side.recv(peer.seal(CONTROL, b"\x04" + vint(OURS) + vint(0) + vint(0)))  # older than what is known
        assert end.offer(long) == 1
        assert refused(CONTROL, b"\x04" + vint(99) + vint(1) + vint(1)) == PROTOCOL

    @pytest.mark.parametrize("taken", [False, True])
    def test_wire_frame_withdraw_is_answered_with_what_became_of_the_offer(self, taken: bool) -> None:
        side, peer, end = offering()
        side.recv(peer.seal(THEIRS, data(HEAD, msg(b"offer"))))
        assert end.take() == b"offer" if taken else end.in_()["msgs"] == 1
        side.recv(peer.seal(CONTROL, b"\x05" + vint(THEIRS) + vint(0)))
        answers = [(f["stream"], f["a"], f["flags"]) for f in heard(side, peer) if f["type"] == WITHDRAWN]
        assert answers == [(THEIRS, 0, int(taken))]
        assert end.take() == EAGAIN

    @pytest.mark.parametrize("outcome", [0, 1])
    def test_wire_frame_withdrawn_settles_an_offer_that_is_wanted_back(self, outcome: int) -> None:
        side, peer, end = offering()
        assert end.offer(b"offer") == 0
        heard(side, peer)
        end.withdraw(0)
        assert [(f["stream"], f["a"]) for f in heard(side, peer) if f["type"] == WITHDRAW] == [(OURS, 0)]
        assert end.offer_state(0) == 0
        side.recv(peer.seal(CONTROL, b"\x06" + vint(OURS) + vint(0) + bytes((outcome,))))
        assert end.offer_state(0) == (1 if outcome else 2)
        assert refused(CONTROL, b"\x06" + vint(OURS) + vint(0) + b"\0") == PROTOCOL  # nobody asked

    def test_wire_frame_abort_ends_the_channel_with_its_code_and_reason(self) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(THEIRS, data(HEAD, msg(b"lost"))))
        side.recv(peer.seal(CONTROL, st.put("abort", THEIRS, 2, 70, HEAD + 5, b"why")))
        assert end.take() == ECLOSED
        assert end.state() == (ABORT, ABORT, 70, False)
        assert verdict(side) is None

    def test_wire_frame_stop_ends_what_we_send_and_is_answered(self) -> None:
        side, peer, end = hosted()
        end.send(b"v")
        heard(side, peer)
        side.recv(peer.seal(CONTROL, st.put("stop", OURS, 0x40000007, 1)))
        assert end.send(b"v") == ECLOSED
        assert end.state()[0] == STOPPED
        assert end.out()["taken"] == 1
        assert verdict(side) is None

    def test_wire_frame_max_streams_lets_waiting_channels_open(self) -> None:
        side, peer = st.Side(1, peer={"max_streams": 1}), st.Peer(0)
        ends = [side.open(name) for name in "abc"]
        heard(side, peer)
        assert [end.id for end in ends] == [OURS, 0, 0]
        side.recv(peer.seal(CONTROL, st.put("max_streams", 2)))
        assert [end.id for end in ends] == [OURS, OURS + 2, 0]
        side.recv(peer.seal(CONTROL, st.put("max_streams", 1)))  # never less than before
        assert [end.id for end in ends] == [OURS, OURS + 2, 0]

    def test_wire_frame_rekey_announces_the_next_epoch_and_no_other(self) -> None:
        assert refused(CONTROL, st.put("rekey", 1, 1, 0, b"m" * 32)) is None
        assert refused(CONTROL, st.put("rekey", 1, 7, 0, b"m" * 32)) == PROTOCOL
        assert refused(CONTROL, st.put("rekey", 2, 1, 5, b"")) == PROTOCOL  # of a ratchet that never was

    def test_wire_frame_ratchet_is_kept_for_the_handshake_and_changes_nothing_here(self) -> None:
        side, peer, end = hosted()
        before = side.state()
        side.recv(peer.seal(CONTROL, st.put("ratchet", 6, 1, b"n" * 1024)))
        after = side.state()
        assert (after["epoch"], after["updates"], after["state"]) == (before["epoch"], before["updates"], UP)
        side.now += 25 * MS
        side.on_deadline()
        assert [f["type"] for f in heard(side, peer)] == [ACK]
        side.recv(peer.seal(THEIRS, data(HEAD, msg(b"goes on"))))
        assert end.take() == b"goes on"

    def test_wire_frame_ticket_is_kept_for_the_application_and_comes_from_the_side_that_was_dialled(self) -> None:
        side, peer = st.Side(0), st.Peer(1)
        for number in (3, 4):
            side.recv(peer.seal(CONTROL, st.put("ticket", number, bytes((number,)) * 1024)))
        assert side.ticket_take() == (4, b"\4" * 1024)  # the newest
        assert side.ticket_take() is None
        assert refused(CONTROL, st.put("ticket", 9, b"t" * 100)) == PROTOCOL

    def test_wire_frame_session_close_ends_the_session_with_its_code_and_reason(self) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(THEIRS, data(HEAD, msg(b"here"))))
        side.recv(peer.seal(CONTROL, st.put("session_close", 300, b"enough")))
        state = side.state()
        assert (state["state"], state["code"], state["reason"], state["by_us"]) == (OVER, 300, b"enough", False)
        assert end.take() == b"here"
        assert end.take() == ECLOSED
        assert side.send() == ECLOSED

    def test_wire_frame_ask_is_answered_when_its_position_is_reached(self) -> None:
        side, peer, _ = hosted()
        heard(side, peer)
        side.recv(peer.seal(CONTROL, st.put("ask", THEIRS, HEAD + 2, 0)))
        assert [f for f in heard(side, peer) if f["type"] == POS] == []
        side.recv(peer.seal(THEIRS, data(HEAD, msg(b"v"))))
        assert [(f["stream"], f["a"]) for f in heard(side, peer) if f["type"] == POS] == [(THEIRS, HEAD + 2)]

    def test_wire_frame_data_gives_its_values_and_the_end_behind_them(self) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(THEIRS, data(HEAD, msg(b"one") + msg(b"two"), True)))
        assert end.take_all() == [b"one", b"two"]
        assert end.take() == ECLOSED
        assert end.state()[1] == FIN
        assert verdict(side) is None

    def test_wire_frame_skip_passes_over_values_where_they_may_be_lost_and_only_there(self) -> None:
        side, peer = st.Side(1), st.Peer(0)
        end = side.open("x")
        heard(side, peer)
        side.recv(peer.seal(THEIRS, data(0, preface(flags=1))))
        side.recv(peer.seal(THEIRS, b"\x28" + vint(0) + vint(3) + b"\1" + vint(HEAD) + vint(30)))
        side.recv(peer.seal(THEIRS, data(HEAD + 30, msg(b"fourth"))))
        assert end.take_all() == [b"fourth"]
        assert verdict(side) is None
        assert refused(THEIRS, b"\x28" + vint(0) + vint(3) + b"\1" + vint(HEAD) + vint(30)) == PROTOCOL

    def test_wire_frame_path_status_says_where_another_path_is_wanted(self) -> None:
        side, peer, _ = hosted(lease_ns=10**10, max_paths=2)
        side.recv(peer.seal(CONTROL, b"\x0c" + vint(0) + vint(3) + b"\1" + vint(9)))
        assert side.state_of(0)["standby"] == 2 and verdict(side) is None
        side.recv(peer.seal(CONTROL, b"\x0c" + vint(0) + vint(4) + b"\0" + vint(0)))
        assert side.state_of(0)["standby"] == 0
        side.standby(0, True)
        assert {"a": 0, "b": 1, "flags": 1, "c": 0}.items() <= next(
            f for f in heard(side, peer) if f["type"] == 12
        ).items()

    def test_wire_frame_extension_is_skipped_when_even_and_refused_when_odd(self) -> None:
        for kind in (64, 1 << 20):
            assert refused(CONTROL, st.put("extension", kind, b"x" * 9)) is None
            assert refused(THEIRS, st.put("extension", kind, b"x" * 9)) is None
            assert refused(CONTROL, st.put("extension", kind + 1, b"x" * 9)) == UNSUPPORTED


class TestFramesOfLaterVersions:
    """Laid out, read to their end, and refused: this version has not said that it knows what to do with them."""

    def check(self, frame: bytes, tag: int = CONTROL, **fields: Any) -> None:
        frames, rc = st.parse(frame, tag)
        assert rc == EAGAIN
        assert len(frames) == 1
        assert {name: frames[0][name] for name in fields} == fields
        assert refused(tag, frame) == PROTOCOL

    def test_wire_frame_path_challenge_is_refused(self) -> None:
        self.check(b"\x0a12345678", data=b"12345678")

    def test_wire_frame_path_response_is_refused(self) -> None:
        self.check(b"\x0b12345678", data=b"12345678")

    def test_wire_frame_path_status_is_refused(self) -> None:
        self.check(b"\x0c" + vint(2) + vint(3) + b"\1" + vint(9), a=2, b=3, flags=1, c=9)

    def test_wire_frame_path_close_is_refused(self) -> None:
        self.check(b"\x0d" + vint(2) + vint(13), a=2, b=13)

    def test_wire_frame_new_cid_is_refused(self) -> None:
        self.check(b"\x0e" + vint(2) + vint(3) + vint(1) + bytes(24), a=2, b=3, c=1, data=bytes(24))

    def test_wire_frame_retire_cid_is_refused(self) -> None:
        self.check(b"\x0f" + vint(2) + vint(3), a=2, b=3)

    def test_wire_frame_addresses_is_refused(self) -> None:
        self.check(b"\x10" + vint(5) + vint(1) + vint(3) + b"one", a=5, b=1)

    def test_wire_frame_observed_address_is_refused(self) -> None:
        self.check(b"\x11" + vint(2) + vint(3) + vint(4) + b"addr", a=2, b=3, data=b"addr")

    def test_wire_frame_locators_is_refused(self) -> None:
        self.check(b"\x14" + vint(2) + b"l" * 32, a=2, data=b"l" * 32)

    def test_wire_frame_ticket_is_refused(self) -> None:
        self.check(b"\x15" + vint(600) + vint(3) + b"tkt", a=600, data=b"tkt")

    def test_wire_frame_drain_is_refused(self) -> None:
        self.check(b"\x16" + vint(1500), a=1500)

    def test_wire_frame_parity_is_refused(self) -> None:
        self.check(b"\x29" + b"".join(map(vint, (0, 100, 3, 2, 1, 3))) + b"sym", THEIRS, b=100, c=3, d=2, n=1)

    def test_wire_frame_datagram_is_refused(self) -> None:
        self.check(b"\x2a" + vint(3) + b"dgm", THEIRS, data=b"dgm")

    def test_wire_frame_trunk_data_is_refused(self) -> None:
        self.check(b"\x30" + vint(THEIRS) + vint(HEAD) + msg(b"v"), TRUNK, stream=THEIRS, a=HEAD, data=msg(b"v"))


def closed_by_them(code: int) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """State of a session and of an end after the peer has closed with this code."""
    side, peer, end = hosted()
    side.recv(peer.seal(CONTROL, st.put("session_close", code, b"reason")))
    state = side.state()
    assert (state["state"], state["code"], state["by_us"], state["reason"]) == (OVER, code, False, b"reason")
    assert end.take() == ECLOSED
    assert end.send(b"late") == ECLOSED
    return state, end.state()


def lost_by(code: int) -> None:
    """A peer that closes with this code has lost every channel, and says that it is a fault."""
    state, end = closed_by_them(code)
    assert state["abrupt"]
    assert end == (LOST, LOST, 0, False)


class TestCloseCodes:
    """session.md §9.1: who says the code, and what it makes of the channels."""

    def test_wire_close_none_leaves_cleanly(self) -> None:
        state, end = closed_by_them(0)
        assert not state["abrupt"]
        assert end[0] == LEFT

    def test_wire_close_exception_aborts_channels_behind_their_values(self) -> None:
        assert closed_by_them(1)[1] == (ABORT, ABORT_AFTER, 0x40000000, False)

    def test_wire_close_process_exit_aborts_channels_behind_their_values(self) -> None:
        assert closed_by_them(2)[1] == (ABORT, ABORT_AFTER, 0x40000004, False)

    def test_wire_close_handed_over_aborts_channels_behind_their_values(self) -> None:
        assert closed_by_them(3)[1] == (ABORT, ABORT_AFTER, 0x40000005, False)

    def test_wire_close_protocol_is_said_to_bytes_that_no_peer_sends(self) -> None:
        assert refused(CONTROL, b"\x19") == PROTOCOL
        lost_by(4)

    def test_wire_close_credit_is_said_to_values_beyond_the_credit(self) -> None:
        assert refused(THEIRS, data(HEAD, msg(b"") * 1100)) == CREDIT
        lost_by(5)

    def test_wire_close_streams_is_said_to_a_stream_out_of_turn(self) -> None:
        assert refused(THEIRS + 4, data(0, preface())) == STREAMS
        assert refused(OURS, data(0, preface())) == STREAMS
        lost_by(6)

    def test_wire_close_final_size_is_said_when_an_end_moves(self) -> None:
        assert refused(THEIRS, data(HEAD, b"", True) + data(HEAD + 1, b"", True)) == FINAL_SIZE
        lost_by(7)

    def test_wire_close_message_size_is_said_to_a_value_that_is_too_long(self) -> None:
        assert refused(THEIRS, data(HEAD, vint(2 * (1 << 24) + 2))) == MESSAGE_SIZE
        lost_by(8)

    def test_wire_close_crypto_is_said_to_a_record_that_does_not_open(self) -> None:
        side, peer, _ = hosted()
        record = bytearray(peer.seal(CONTROL, st.put("ping")))
        record[-1] ^= 1
        assert side.recv(record) < 0
        assert verdict(side) == CRYPTO
        assert [f["a"] for f in heard(side, peer) if f["type"] == SESSION_CLOSE] == [CRYPTO]
        lost_by(9)

    def test_wire_close_keys_is_for_keys_that_are_used_up(self) -> None:
        """No record can be sealed any more, so nobody hears it from who has the trouble; the engine notes it."""
        side = st.Side(0, limits={"soft_blocks": 100, "hard_blocks": 200})
        end = side.open("x")
        while not isinstance(said := side.send(), int):
            end.send(b"v" * 400)
            assert said or side.state()["tx"] < 100
        assert said == EEXHAUSTED
        side.close(10)
        side.path_lost()
        assert (side.state()["state"], side.state()["code"]) == (OVER, 10)
        assert end.state()[0] == LOST
        lost_by(10)

    def test_wire_close_unsupported_is_said_to_an_odd_type_that_is_not_known(self) -> None:
        assert refused(THEIRS, data(HEAD, b"\3\3\x40\x41\0")) == UNSUPPORTED
        lost_by(11)

    def test_wire_close_parameter_is_heard_as_a_fault(self) -> None:
        lost_by(12)

    def test_wire_close_timeout_is_noted_of_a_peer_that_is_silent(self) -> None:
        p, a, _ = opened()
        p.a.now += 10**13
        p.a.on_deadline()
        while verdict(p.a) is None and p.a.deadline() < 1 << 62:
            p.a.send()
            p.a.now = max(p.a.now, p.a.deadline())
            p.a.on_deadline()
        assert verdict(p.a) == 13
        assert a.state()[:2] == (LOST, LOST)
        lost_by(13)

    def test_wire_close_refused_is_heard_as_a_fault(self) -> None:
        lost_by(14)

    def test_wire_close_duplicate_is_heard_as_a_fault(self) -> None:
        lost_by(15)

    def test_wire_close_replaced_is_heard_as_a_fault(self) -> None:
        lost_by(16)

    def test_wire_close_internal_is_heard_as_a_fault(self) -> None:
        lost_by(17)


BASE = 1 << 30


class TestAbortCodes:
    """session.md §9.2: who says the code of a channel that was aborted."""

    def both(self, act: Callable[[st.Pair, st.End], object]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        p, a, b = opened()
        act(p, a)
        p.run()
        assert b.take() == ECLOSED
        return a.state(), b.state()

    def test_wire_code_left_by_exception_is_that_of_a_session_left_so(self) -> None:
        ours, theirs = self.both(lambda p, _: p.a.close(1))
        assert ours[2:] == (BASE, True)
        assert theirs[2:] == (BASE, False)

    def test_wire_code_dropped_comes_behind_the_values(self) -> None:
        p, a, b = opened()
        a.send(b"last")
        a.end_after(BASE + 1)
        p.run()
        assert b.take_all() == [b"last"]
        assert b.take() == ECLOSED
        assert b.state()[1:3] == (ABORT_AFTER, BASE + 1)

    def test_wire_code_dropped_takes_a_token_back_that_nobody_opened(self) -> None:
        p = st.Pair()
        a = p.a.open(bytes(16), kind=1)
        p.run()
        assert p.b.state()["n_offers"] == 1
        a.abort(BASE + 1)
        assert settled(p, a)
        assert p.b.state()["n_offers"] == 0

    def test_wire_code_type_mismatch_is_said_by_both_of_types_that_do_not_fit(self) -> None:
        p = st.Pair()
        a, b = p.a.open("x", codec=1), p.b.open("x", codec=2)
        p.run()
        assert a.state()[:3] == b.state()[:3] == (ABORT, ABORT, BASE + 2)

    def test_wire_code_limit_is_that_of_a_channel_too_many(self) -> None:
        p = st.Pair(mine={"max_channels": 1})
        a, b = p.a.open("a"), p.a.open("b")
        p.run()
        assert (a.state()[1], b.state()[1]) == (0, ABORT)
        assert b.state()[2] == BASE + 3

    def test_wire_code_process_exit_is_that_of_a_process_that_ended(self) -> None:
        ours, theirs = self.both(lambda p, _: p.a.close(2))
        assert ours[2] == theirs[2] == BASE + 4

    def test_wire_code_handed_over_is_that_of_a_session_that_was(self) -> None:
        ours, theirs = self.both(lambda p, _: p.a.close(3))
        assert ours[2] == theirs[2] == BASE + 5

    def test_wire_code_unsupported_is_heard_as_it_was_said(self) -> None:
        _, theirs = self.both(lambda _, a: a.abort(BASE + 6, b"no"))
        assert theirs == (ABORT, ABORT, BASE + 6, False)

    def test_wire_code_stopped_answers_a_stop_before_all_was_sent(self) -> None:
        side, peer, end = hosted()
        end.send(b"v")
        side.recv(peer.seal(CONTROL, st.put("stop", OURS, BASE + 7, 0)))
        said = [f for f in heard(side, peer) if f["type"] == 0x07]
        assert [(f["stream"], f["a"]) for f in said] == [(OURS, BASE + 7)]
