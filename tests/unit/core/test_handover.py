"""A session as one string of bytes (docs/spec/handover.md §2-§4): held, written, read back, taken back."""

from __future__ import annotations

import struct

import pytest

from netchan._core import _selftest_session as st

OK, EAGAIN, ECLOSED, ESTATE = (st.RC[name] for name in ("OK", "EAGAIN", "ECLOSED", "ESTATE"))
EFRAME, ETRUNC, EUNKNOWN = (st.RC[name] for name in ("EFRAME", "ETRUNC", "EUNKNOWN"))
LEASE = {"lease_ns": 10**11}
REKEY = 0x12


def pair(**options: object) -> tuple[st.Pair, st.End, st.End]:
    """Two sides with a channel on which values have been said both ways."""
    both = st.Pair(mine=LEASE, peer=LEASE, **options)
    a, b = both.a.open("c"), both.b.open("c")
    both.run()
    for end in (a, b):
        assert end.send(b"one") == OK
    both.run()
    return both, a, b


def read(side: st.Side, **options: object) -> st.Side:
    side.hold()
    state = side.write()
    assert isinstance(state, bytes)
    fresh = st.Side.read(state, now=side.now, **options)
    assert isinstance(fresh, st.Side), fresh
    return fresh


class TestHeld:
    """§2."""

    def test_application_of_a_held_session_waits_and_of_one_taken_back_goes_on(self) -> None:
        both, a, b = pair()
        both.a.hold()
        assert a.send(b"two") == EAGAIN and not a.has_room()
        assert a.take() == EAGAIN and a.in_()["pending"] == 0
        both.a.unhold()
        assert a.send(b"two") == OK and a.take() == b"one"
        both.run()
        assert b.take_all() == [b"one", b"two"]

    def test_end_that_is_known_is_not_told_before_the_values_while_held(self) -> None:
        both, a, b = pair()
        b.close()
        both.run()
        both.a.hold()
        assert a.take() == EAGAIN  # neither the value nor the end
        both.a.unhold()
        assert (a.take(), a.take()) == (b"one", ECLOSED)

    def test_end_that_the_application_made_while_held_stays_when_it_is_taken_back(self) -> None:
        both, a, b = pair()
        both.a.hold()
        a.close()
        a.stop()
        both.a.unhold()
        both.run()
        assert a.take() == ECLOSED and b.take_all() == [b"one"] and b.take() == ECLOSED

    def test_session_that_is_being_closed_or_is_over_is_not_written(self) -> None:
        both, _, _ = pair()
        both.a.close(0)
        both.a.hold()
        assert both.a.write() == ESTATE
        both.run()
        assert both.a.write() == ESTATE

    def test_moved_session_is_over_without_a_word_and_its_secrets_are_wiped(self) -> None:
        both, a, _ = pair()
        fresh = read(both.a)
        assert any(both.a.secrets()) and any(fresh.secrets())
        both.a.moved()
        assert not any(both.a.secrets()) and any(fresh.secrets())
        assert both.a.send() == ECLOSED
        assert a.send(b"x") == ECLOSED and a.take() == ECLOSED
        assert both.a.state()["abrupt"]


class TestFirstAct:
    """§3: a new epoch with fresh randomness, behind what was sealed before; numbers go on."""

    def test_first_control_record_announces_an_epoch_with_the_random_bytes(self) -> None:
        mine, other = st.Side(0), st.Peer(1)
        other.open(mine.send())
        fresh = read(mine, mix=b"r" * 32)
        assert fresh.state()["tx"] == mine.state()["tx"]
        records = other.open(fresh.send())
        frames = [frame for tag, body in records for frame in st.parse(body, tag)[0]]
        (rekey,) = [frame for frame in frames if frame["type"] == REKEY]
        assert (rekey["flags"], rekey["a"], rekey["data"]) == (1, 1, b"r" * 32)

    def test_two_that_were_read_from_one_state_use_different_keys_after_it(self) -> None:
        both, _, _ = pair()
        both.a.hold()
        state = both.a.write()
        said = []
        for mix in (b"1" * 32, b"2" * 32):
            twin = st.Pair(mine=LEASE, peer=LEASE)
            twin.b = both.b
            twin.a = st.Side.read(state, now=both.a.now, mix=mix)
            both.b.hold()
            kept = both.b.write()
            both.b.unhold()
            twin.b = st.Side.read(kept, now=both.b.now, mix=b"b" * 32)
            twin.sleep(100_000_000)
            assert twin.a.state()["epoch"] == 1
            end = twin.a.adopt(0)
            assert end.send(b"same bytes, same number") == OK
            said.append((twin.a.state()["tx"], twin.a.send()))
        assert said[0][0] == said[1][0] and said[0][1] != said[1][1]

    def test_announcement_under_way_is_finished_first_and_a_ratchet_waits(self) -> None:
        both, _, _ = pair()
        secret = b"s" * 32
        both.b.ratchet(1, secret)
        both.a.ratchet(1, secret)
        both.ab += both.a.send()  # its announcement is on its way
        both.a = read(both.a)
        both.run()
        both.sleep(100_000_000)
        state = both.a.state()
        assert (state["epoch"], state["ratchets"], state["rekey"]) == (2, 1, 0)
        assert both.b.state()["ratchets"] == 1

    def test_bump_and_ratchet_at_once_both_come_to_pass(self) -> None:
        both, _, _ = pair()
        both.a = read(both.a)
        secret = b"s" * 32
        both.ab += both.a.send()
        both.b.ratchet(1, secret)
        both.a.ratchet(1, secret)
        both.run()
        both.sleep(100_000_000)
        assert (both.a.state()["epoch"], both.a.state()["ratchets"]) == (2, 1)
        assert (both.b.state()["epoch"], both.b.state()["ratchets"]) == (1, 1)


class TestRead:
    """§4."""

    @pytest.fixture
    def state(self) -> bytes:
        both, _, _ = pair()
        both.a.hold()
        return both.a.write()  # type: ignore[no-any-return]

    def test_another_version_or_magic_is_refused(self, state: bytes) -> None:
        assert st.Side.read(b"ncht" + state[4:], now=10**9) == EUNKNOWN
        assert st.Side.read(state[:4] + struct.pack("!I", 2) + state[8:], now=10**9) == EUNKNOWN

    def test_another_clock_is_refused(self, state: bytes) -> None:
        assert st.Side.read(state, now=10**9 + 3600 * 10**9) == ESTATE
        assert isinstance(st.Side.read(state, now=10**9 + 3599 * 10**9), st.Side)

    def test_state_cut_at_any_byte_or_with_one_more_is_refused(self, state: bytes) -> None:
        for cut in range(len(state)):
            assert st.Side.read(state[:cut], now=10**9) in (ETRUNC, EFRAME), cut
        assert st.Side.read(state + b"\0", now=10**9) == EFRAME

    def test_reading_the_same_twice_gives_the_same(self, state: bytes) -> None:
        side = st.Side.read(state, now=10**9)
        side.hold()
        again = side.write()
        assert len(again) == len(state)
        fresh = st.Side.read(again, now=10**9)
        fresh.hold()
        assert fresh.write() == again

    def test_values_on_both_sides_of_a_channel_are_there(self) -> None:
        both, a, b = pair()
        a.send(b"not sent yet")
        both.a = read(both.a)
        fresh = both.a.adopt(0)
        assert (fresh.name, fresh.id, fresh.take_all()) == (b"c", a.id, [b"one"])
        both.run()
        assert b.take_all() == [b"one", b"not sent yet"]

    def test_channel_that_was_offered_is_offered_again(self) -> None:
        both = st.Pair(mine=LEASE, peer=LEASE)
        theirs = [both.b.open(name) for name in ("x", "y", "x")]
        both.run()
        assert [name for name, _, _ in both.a.offers()] == [b"x", b"y", b"x"]
        theirs[2].send(b"second of its name")
        both.run()
        both.a = read(both.a)
        assert [name for name, _, _ in both.a.offers()] == [b"x", b"y", b"x"]
        mine = [both.a.open("x") for _ in range(2)]
        both.run()
        assert [end.take_all() for end in mine] == [[], [b"second of its name"]]

    def test_channel_that_waits_for_its_turn_is_there(self) -> None:
        both = st.Pair(mine=LEASE | {"max_streams": 1}, peer=LEASE | {"max_streams": 1})
        both.a.open("first"), both.a.open("second")
        both.run()
        both.a = read(both.a)
        assert [(name, number) for _, name, number in both.a.adopted()] == [(b"first", 16), (b"second", 0)]
        x = both.b.open("first")
        both.run()
        y = both.b.open("second")
        both.run()
        assert (x.paired, y.paired) == (True, True)

    def test_what_was_to_be_said_is_said(self) -> None:
        both, a, b = pair()
        a.stop()
        both.a = read(both.a)
        both.run()
        assert b.send(b"x") == ECLOSED

    def test_receivers_that_waited_over_there_wait_no_more(self) -> None:
        both = st.Pair(mine=LEASE, peer=LEASE)
        a, b = both.a.open("c", capacity=0), both.b.open("c", capacity=0)
        both.run()
        a.park(1)
        both.run()
        assert b.offer(bytes(20_000)) == 0  # a long one goes only to somebody who waits
        both.a = read(both.a)
        both.run()
        assert b.offer(bytes(20_000)) == EAGAIN

    def test_values_of_a_channel_that_the_session_has_forgotten_are_there(self) -> None:
        both, a, b = pair()
        for n in range(3):
            b.send(b"%d" % n)
        b.end_after(7)
        a.close()
        both.run()
        assert b.take_all() == [b"one"]
        both.run()
        assert not a.bound and a.in_()["pending"] == 4
        both.a = read(both.a)
        assert both.a.adopt(0).take_all() == [b"one", b"0", b"1", b"2"]

    def test_channel_under_a_token_is_aborted_and_its_other_side_hears_of_it(self) -> None:
        both = st.Pair(mine=LEASE, peer=LEASE)
        a, b = (side.open(b"t" * 16, kind=1) for side in (both.a, both.b))
        both.run()
        assert a.paired and b.paired
        both.a = read(both.a)
        both.run()
        assert b.state()[2] == (1 << 30) + 5  # Code.HANDED_OVER
