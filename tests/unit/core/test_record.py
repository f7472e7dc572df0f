"""Records of a stream path, and a session against a peer that does anything (docs/spec/wire.md §3, §5)."""

import random
from collections.abc import Callable, Iterable

import pytest

from netchan._core import _selftest_session as st

OK, EAGAIN, ECLOSED, ECRYPTO, EFRAME, EINVAL = (
    st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED", "ECRYPTO", "EFRAME", "EINVAL")
)
UP, CLOSING, OVER = range(3)
PROTOCOL, CREDIT, STREAMS, FINAL_SIZE, MESSAGE_SIZE, CRYPTO, UNSUPPORTED = 4, 5, 6, 7, 8, 9, 11
S = 10**9
TOP = 2**62 - 1


def vint(v: int) -> bytes:
    for n, bits in ((1, 6), (2, 14), (4, 30), (8, 62)):
        if v < 1 << bits:
            return (v | {1: 0, 2: 1, 4: 2, 8: 3}[n] << (8 * n - 2)).to_bytes(n, "big")
    raise ValueError(v)


def preface(
    name: bytes = b"x", capacity: int = 0, codec: int = 1, rest: bytes = b"", flags: int = 0, klass: int = 1
) -> bytes:
    body = b"\0" + vint(len(name)) + name + vint(codec) + bytes(16) + vint(capacity) + bytes([klass, flags, 0]) + rest
    return vint(len(body)) + body


def data(offset: int, body: bytes, fin: bool = False) -> bytes:
    return st.put("data", offset, fin, 0, 0, len(body)) + body


def msg(body: bytes) -> bytes:
    return vint(2 * len(body)) + body


def verdict(side: st.Side) -> int | None:
    """The code with which the session closed, None while it is up; what it says must be what it means."""
    state = side.state()
    return None if state["state"] == UP else int(state["code"])


def hosted(capacity: int | None = None, **mine: int) -> tuple[st.Side, st.Peer, st.End]:
    """A responder that has opened "x", paired with stream 16 of a peer in our hands."""
    side = st.Side(1, mine=mine)
    peer = st.Peer(0)
    end = side.open("x", capacity=capacity)
    assert side.recv(peer.seal(16, data(0, preface()))) == OK
    peer.open(side.send())
    assert end.paired
    return side, peer, end


HEAD = len(preface())


class TestRecord:
    @pytest.mark.parametrize("tag", [0, 1, 16, 63, 64, 2**14, 2**30, TOP])
    @pytest.mark.parametrize("split", [False, True])
    def test_what_is_sealed_opens(self, tag: int, split: bool) -> None:
        a, b = st.Peer(0), st.Peer(1)
        for n in (0, 1, 15, 16, 17, 1000, 16384, 65508):
            body = bytes(n)
            rec = a.seal(tag, body[: n // 3], tail=body[n // 3 :]) if split else a.seal(tag, body)
            assert (
                rec[:2] == (len(rec) - 2).to_bytes(2, "big")
                and rec[2:4] == b"\0\0"
                and rec[4 : 4 + len(vint(tag))] == vint(tag)
            )
            assert len(rec) == 4 + len(vint(tag)) + n + 16
            assert b.open(rec) == [(tag, body)]

    def test_body_above_the_largest_is_refused(self) -> None:
        assert st.Peer(0).seal(16, bytes(65509)) == EINVAL

    @pytest.mark.parametrize("n", [0, 1, 17, 18])
    def test_length_below_the_minimum_is_refused(self, n: int) -> None:
        side = st.Side(1)
        side.recv(n.to_bytes(2, "big") + bytes(100))
        assert verdict(side) == CRYPTO

    def test_tags_2_to_15_and_flags_are_refused(self) -> None:
        for tag in (2, 15):
            side = st.Side(1)
            side.recv(st.Peer(0).seal(tag, b"\x01"))
            assert verdict(side) in (PROTOCOL, CRYPTO)
        rec = bytearray(st.Peer(0).seal(0, b"\x01"))
        rec[3] = 1
        side = st.Side(1)
        side.recv(rec)
        assert verdict(side) in (PROTOCOL, CRYPTO)


class TestBinding:
    def test_first_record_needs_the_hash_of_the_handshake(self) -> None:
        for make in (
            lambda: st.Peer(0, binding=b"c" * 32).seal(0, b"\x01"),
            lambda: st.Peer(0).seal(0, b"\x01", binding=False),
        ):
            side = st.Side(1)
            side.recv(make())
            assert verdict(side) == CRYPTO

    @pytest.mark.parametrize("n", [1, 2, 5, 16, 64])
    def test_bytes_cut_or_inserted_before_the_first_record_are_refused(self, n: int) -> None:
        peer = st.Peer(0)
        stream = peer.seal(0, b"\x01" * 100) + peer.seal(0, b"\x01" * 100)
        for wrong in (stream[n:], bytes(n) + stream, b"\x7f" * n + stream):
            side = st.Side(1)
            side.recv(wrong + bytes(70000))
            assert verdict(side) == CRYPTO and side.state()["records_received"] == 0

    def test_first_record_dropped_whole_is_refused(self) -> None:
        peer, side = st.Peer(0), st.Side(1)
        peer.seal(0, b"\x01")
        side.recv(peer.seal(0, b"\x01"))
        assert verdict(side) == CRYPTO


def talk(seed: int = 1) -> tuple[list[bytes], list[bytes]]:
    """The records of a real conversation from the initiator, and the values in them."""
    p = st.Pair(seed=seed)
    values = [b"value %d " % i * (i % 7 + 1) for i in range(30)]
    ends = [p.a.open(n) for n in "xyz"]
    raw = bytearray()
    for i, v in enumerate(values):
        assert ends[i % 3].send(v) == OK
        raw += p.a.send()
    records = []
    while raw:
        n = int.from_bytes(raw[:2], "big") + 2
        records.append(bytes(raw[:n]))
        del raw[:n]
    return records, values


def listen() -> tuple[st.Side, list[st.End]]:
    side = st.Side(1, seed=2)
    ends = [side.open(n) for n in "xyz"]
    side.send()
    return side, ends


def taken(ends: Iterable[st.End]) -> list[list[bytes]]:
    return [e.take_all() for e in ends]


class TestTampering:
    """Whatever is done to the bytes: the session is over with CRYPTO and what was delivered is a prefix, once."""

    def check(self, raw: bytes, values: list[bytes], step: int = 1 << 20) -> int:
        side, ends = listen()
        for at in range(0, len(raw), step):
            side.recv(raw[at : at + step])
        got = taken(ends)
        for k in range(3):
            assert got[k] == values[k::3][: len(got[k])]
        before = [len(g) for g in got]
        side.recv(raw)
        side.send()
        assert taken(ends) == [[], [], []]
        assert sum(before) < len(values)
        assert (
            verdict(side) == CRYPTO or side.state()["left_cap"] > 0
        )  # or it waits for the rest of a record that never ends
        return sum(before)

    def test_untouched_conversation_is_delivered_whole(self) -> None:
        records, values = talk()
        side, ends = listen()
        side.recv(b"".join(records))
        assert taken(ends) == [values[k::3] for k in range(3)] and verdict(side) is None

    def test_any_flipped_bit_ends_the_session(self) -> None:
        records, values = talk()
        raw = b"".join(records)
        for at in range(len(raw)):
            flipped = bytearray(raw)
            flipped[at] ^= 1 << (at % 8)
            self.check(bytes(flipped) + bytes(66000), values)

    def test_any_record_dropped_repeated_or_swapped_ends_the_session(self) -> None:
        records, values = talk()
        for i in range(len(records) - 1):
            dropped = records[:i] + records[i + 1 :]
            repeated = records[: i + 1] + records[i:]
            swapped = [*records[:i], records[i + 1], records[i], *records[i + 2 :]]
            assert self.check(b"".join(dropped), values) <= i
            assert self.check(b"".join(swapped), values) <= i
            side, ends = listen()
            side.recv(b"".join(repeated))
            assert verdict(side) == CRYPTO and sum(map(len, taken(ends))) <= i + 1

    def test_records_moved_between_tag_number_direction_path_and_session_are_refused(self) -> None:
        """Thousands of splices: every record under every other number, tag, direction and root."""
        rng = random.Random(11)
        records, _ = talk()
        cases = 0
        for i, rec in enumerate(records):
            for n in range(25):  # another number: the listener has opened the first n records
                if n == i:
                    continue
                b = st.Peer(1)
                for r in records[:n]:
                    b.open(r)
                with pytest.raises(ValueError):
                    b.open(rec)
                cases += 1
        for i, rec in enumerate(records):
            for _ in range(40):
                other = bytearray(rec)
                other[4] = rng.choice([t for t in (0, 1, 16, 17, 18, 20, 22, 63) if t != rec[4]])
                b = st.Peer(1)
                b.rx = i
                with pytest.raises(ValueError):
                    b.open(other)
                cases += 1
        for i, rec in enumerate(records):
            for listener in (
                st.Peer(0),
                st.Peer(1, root=b"r" * 32),
                st.Peer(1, binding=b"o" * 32) if i == 0 else st.Peer(0),
            ):
                listener.rx = i
                with pytest.raises(ValueError):
                    listener.open(rec)
                cases += 1
            good = st.Peer(1)
            good.rx = i
            assert len(good.open(rec)) == 1
        assert cases > 1900

    def test_old_or_far_epochs_are_refused(self) -> None:
        side, peer, end = hosted()
        for epochs, want in ((1, None), (2, CRYPTO)):
            side, peer, end = hosted()
            first = peer.seal(0, b"\x01")
            for _ in range(epochs):
                peer.update()
            side.recv(first)
            rec = peer.seal(16, data(HEAD, msg(b"new epoch")))
            if epochs == 2:
                assert rec[2] in (1, 2)
            side.recv(rec)
            assert verdict(side) in (want, None if rec[2] == 1 else want)
            if verdict(side) is None:
                assert end.take() == b"new epoch"


FRAMES = {
    "want": b"\x04\x10\0\0",
    "withdraw": b"\x05\x10\0",
    "withdrawn": b"\x06\x10\0\0",
    "challenge": b"\x0a12345678",
    "response": b"\x0b12345678",
    "status": b"\x0c\0\0\0\0",
    "path close": b"\x0d\0\0",
    "new cid": b"\x0e\0\0\0" + bytes(24),
    "retire": b"\x0f\0\0",
    "addresses": b"\x10\0\0",
    "observed": b"\x11\0\0\0",
    "rekey with no ratchet": b"\x12\2\1\0",
    "rekey out of turn": b"\x12\1\7" + bytes(32),
    "locators": b"\x14\0",
    "ticket": b"\x15\0\0",
    "drain": b"\x16\0",
}


class TestRefused:
    """Everything that no conforming peer sends, and the code it is refused with."""

    @pytest.mark.parametrize(
        ("tag", "frames", "code"),
        [
            (0, b"\x19", PROTOCOL),
            (0, b"\x3f", PROTOCOL),
            (0, b"\x20\0", PROTOCOL),
            (16, b"\x01", PROTOCOL),
            (16, b"\x07\x10\0\0\0\0", PROTOCOL),
            (16, b"\x17\0\0\0", PROTOCOL),
            (16, b"\x28\0\0\1\0\0", PROTOCOL),
            (16, b"\x2a\0", PROTOCOL),
            (1, b"\x30\x10\0", PROTOCOL),
            (0, b"\x40\x41\0", UNSUPPORTED),
            (0, b"\x02", PROTOCOL),
            (0, b"\x00" * 4097, PROTOCOL),
            (0, st.put("ack", 0, 50, 0, 50), PROTOCOL),  # a number never sent
            (0, st.put("ack", 0, 0, 0, 0)[:-2] + b"\1\0\0\0", PROTOCOL),  # ranges on a stream path
            (0, st.put("pos", 17, 10**6, 0, 0, 0), PROTOCOL),  # received beyond what was sent
            (0, st.put("pos", 17, 0, 9, 0, 0), PROTOCOL),  # taken beyond what was sent
            (0, st.put("pos", 99, 0, 0, 0, 0), PROTOCOL),  # a stream that we never opened
            (0, st.put("pos", 16, 0, 0, 0, 0), PROTOCOL),  # their own
            (17, data(0, preface()), STREAMS),  # wrong parity
            (20, data(0, preface()), STREAMS),  # out of sequence
            (TOP - 1, data(0, preface()), STREAMS),
            (18, data(0, b"\0"), PROTOCOL),
            (18, data(0, vint(1025)), PROTOCOL),
            (18, data(0, preface(name=b"\n")), PROTOCOL),
            (18, data(0, preface(name=b"n" * 256)), PROTOCOL),
            (18, data(0, preface(klass=3)), PROTOCOL),
            (18, data(0, preface(flags=8)), PROTOCOL),
            (18, data(0, preface(capacity=2**50)), PROTOCOL),
            (18, data(0, preface(rest=b"\x05\0")), PROTOCOL),
            (18, data(0, preface(rest=b"\x40\x41\0")), UNSUPPORTED),
            (18, data(0, b"\3\0\1x"), PROTOCOL),  # a preface that ends early
            (18, data(0, preface(name=b"y", capacity=3) + msg(b"v") * 3), CREDIT),  # beyond its own figure
            (16, data(HEAD, b"\x80\xff\xff\xff" + bytes(10)), None),
            (16, data(HEAD, vint(2 * (1 << 24) + 2)), MESSAGE_SIZE),
            (16, data(HEAD, vint(3) + vint(1025)), PROTOCOL),  # a block that is too long
            (16, data(HEAD, b"\3\3\x40\x41\0"), UNSUPPORTED),  # an odd message field
            (16, data(HEAD, b"\3\3\x40\x40\0x"), None),
            (16, data(HEAD, b"\3\4\6\2\1\5x"), PROTOCOL),  # compressed, though no preface agreed
            (16, data(HEAD + 1, b"x"), PROTOCOL),  # a gap on the only path
            (16, data(HEAD + 1, b"", True), PROTOCOL),
            (16, data(HEAD, b"", True) + data(HEAD + 1, b"", True), FINAL_SIZE),  # whose code says more than the gap's
            (16, data(HEAD, b"", True) + data(HEAD + 3, b"x"), FINAL_SIZE),
            (16, st.put("data", HEAD, False, 1, 1, 2) + msg(b"v"), PROTOCOL),  # it is message 0
            (16, st.put("data", 0, False, 1, 0, 5) + preface()[:5], PROTOCOL),  # the preface is none
            (18, st.put("data", 0, False, 1, 0, HEAD) + preface(name=b"y"), PROTOCOL),
            (10**6 * 2, data(5, b"x"), STREAMS),
            (16, data(10**6, b"x"), CREDIT),
            (16, data(HEAD, msg(b"") * 1100), CREDIT),
            (16, data(0, b"", True), FINAL_SIZE),
            (16, data(HEAD, b"\x08ab", True), PROTOCOL),
            (16, data(HEAD, msg(b"a"), True) + data(HEAD, msg(b"a") + b"\0"), FINAL_SIZE),
            (0, st.put("abort", 16, 1, 0, 3, b""), FINAL_SIZE),  # ends before what is here
        ]
        + [(0, raw, PROTOCOL) for raw in FRAMES.values()],
    )
    def test_record_is_refused_with_its_code(self, tag: int, frames: bytes, code: int | None) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(tag, frames))
        assert verdict(side) == code
        out = peer.open(side.send())
        if code is None:
            assert all(f["type"] != 0x17 for t, b in out for f in st.parse(b, t)[0])
        else:
            said = [f for t, b in out for f in st.parse(b, t)[0] if f["type"] == 0x17]
            assert [f["a"] for f in said] == [code]
            end.take_all()
            assert side.state()["state"] == OVER and end.take() == ECLOSED and end.send(b"x") == ECLOSED
            assert side.send() == ECLOSED

    def test_more_streams_than_allowed(self) -> None:
        side, peer = st.Side(1, mine={"max_streams": 5}), st.Peer(0)
        for i in range(5):
            side.recv(peer.seal(16 + 2 * i, data(0, preface())))
        assert verdict(side) is None and side.state()["n_offers"] == 5
        side.recv(peer.seal(26, data(0, preface())))
        assert verdict(side) == STREAMS

    def test_aborted_offers_still_count(self) -> None:
        side, peer = st.Side(1, mine={"max_streams": 5}), st.Peer(0)
        for i in range(5):
            side.recv(peer.seal(16 + 2 * i, data(0, preface())))
            side.recv(peer.seal(0, st.put("abort", 16 + 2 * i, 2, 1, HEAD, b"")))
        side.recv(peer.seal(26, data(0, preface())))
        assert verdict(side) == STREAMS

    def test_thirty_thousand_offers_leave_memory_bounded(self) -> None:
        """Each is opened, aborted and forgotten; tables keep their size."""
        side, peer = st.Side(1, peer={"max_streams": 1 << 20}), st.Peer(0)
        for i in range(30_000):
            sid = 16 + 2 * i
            side.recv(peer.seal(sid, data(0, preface())) + peer.seal(0, st.put("abort", sid, 2, 1, HEAD, b"")))
            assert side.offers() == [(b"x", None, 1)]
            end = side.open("x")
            side.send()
            side.ready()
            end.release()
            if i % 50 == 49:
                side.recv(peer.seal(0, st.put("ack", 0, side.state()["tx"] - 1, 0, side.state()["tx"] - 1)))
        s = side.state()
        assert verdict(side) is None and (s["outs"], s["ins"], s["offers"], s["n_offers"], s["n_new"]) == (
            0,
            0,
            0,
            0,
            0,
        )
        assert s["sent_cap"] <= 512


class TestHarmless:
    """Repeated, late and reordered control frames change nothing (wire.md §5)."""

    def test_repeated_and_late_control_frames(self) -> None:
        side, peer, end = hosted(capacity=10)
        for _ in range(3):
            assert end.send(b"v") == OK
        peer.open(side.send())
        sent = end.out()["sent"]
        frames = [
            st.put("pos", 17, sent, 3, 13, 70000),
            st.put("pos", 17, sent - 2, 2, 12, 65536),
            st.put("pos", 17, 0, 0, 0, 0),
            st.put("ask", 16, 0, 0),
            st.put("ask", 16, TOP, TOP),
            st.put("max_streams", 300),
            st.put("max_streams", 0),
            st.put("ack", 0, side.state()["tx"] - 1, 0, side.state()["tx"] - 1),
            st.put("ack", 0, 0, 0, 0),
            st.put("ack", 5, 2**40, 0, 2**40),
            st.put("ack", 0, 0, TOP, 0),
            st.put("stop", 16, 0, 0),
            st.put("stop", 999, 0, 0),
            st.put("abort", 999, 2, 0, 0, b""),
            b"\x01",
            b"\0" * 40,
            b"\x40\x40\x05hello",
            st.put("ask", 999, 1, 1),
        ]
        rng = random.Random(4)
        for _ in range(300):
            side.recv(peer.seal(0, b"".join(rng.choices(frames, k=rng.randint(1, 5)))))
            peer.open(side.send() or b"")
        assert verdict(side) is None
        s = end.out()
        assert (s["received"], s["taken"], s["max_msgs"], s["max_bytes"], s["over"]) == (sent, 3, 13, 70000, 0)
        assert end.send(b"w") == OK and side.state()["max_streams"] == 300

    @pytest.mark.parametrize(
        "frame",
        [st.put("stop", 17, 0, 0), st.put("abort", 16, 2, 9, HEAD, b"r"), st.put("abort", 16, 1, 9, HEAD, b"r")],
    )
    def test_repeated_ends(self, frame: bytes) -> None:
        side, peer, end = hosted()
        for _ in range(5):
            side.recv(peer.seal(0, frame * 3))
            peer.open(side.send() or b"")
        assert verdict(side) is None and (end.send(b"x") == ECLOSED) == (frame[2:3] != b"\1" or frame[0] == 8)

    def test_peer_that_never_grants_credit(self) -> None:
        side, peer = st.Side(1, peer={"initial_msgs": 3}), st.Peer(0)
        end = side.open("x")
        assert [end.send(b"v") for _ in range(4)] == [OK, OK, OK, EAGAIN]
        for _ in range(100):
            side.recv(peer.seal(0, b"\x01"))
            side.send()
            side.now += S
        assert end.send(b"v") == EAGAIN and verdict(side) is None and side.deadline() > side.now - S

    def test_peer_that_acknowledges_nothing_stops_us_at_a_bound(self) -> None:
        """Found: with a full list of unacknowledged records not even an acknowledgement went out."""
        side, peer, end = hosted(capacity=1 << 20)
        side.recv(peer.seal(0, st.put("pos", 17, 0, 0, 1 << 40, 1 << 40)))
        n = 0
        for _ in range(70_000):
            end.send(b"v")
            got = side.send(20_000)
            if not got:
                break
            n += 1
        assert 64_000 < n <= 65_536 and side.state()["sent_cap"] == 65_536
        side.recv(peer.seal(0, b"\x01"))
        side.now += S
        got = side.send()
        assert isinstance(got, bytes) and len(got) > 20
        assert verdict(side) is None

    def test_echo_forcing_flood_has_one_answer(self) -> None:
        side, peer, _ = hosted()
        for _ in range(50):
            side.recv(peer.seal(0, (st.put("ask", 16, 0, 0) + b"\x01") * 800))
        records = peer.open(side.send())
        assert sum(len(st.parse(b, t)[0]) for t, b in records) <= 3

    @pytest.mark.parametrize("step", [0, 1])
    def test_number_of_a_message_is_checked_against_the_count(self, step: int) -> None:
        side, peer, end = hosted()
        first, second = msg(b"first"), msg(b"second")
        side.recv(peer.seal(16, data(HEAD, first)))
        said = st.put("data", HEAD + len(first), False, 1, 1 + step, len(second)) + second
        side.recv(peer.seal(16, said))
        assert verdict(side) == (PROTOCOL if step else None)
        assert end.take_all() == ([b"first"] if step else [b"first", b"second"])

    @pytest.mark.parametrize(
        ("offset", "number", "fits"), [(0, 0, True), (0, 1, True), (0, 2, False), (50, 2, True), (50, 1, False)]
    )
    def test_number_away_from_the_last_byte_is_held_against_what_is_known(
        self, offset: int, number: int, fits: bool
    ) -> None:
        side, peer, _ = hosted()
        side.several_paths()
        whole = msg(b"first") + msg(b"second")
        side.recv(peer.seal(16, data(HEAD, whole)))
        side.recv(peer.seal(16, st.put("data", HEAD + offset, False, 1, number, 1) + whole[:1]))
        assert verdict(side) == (None if fits else PROTOCOL)

    def test_number_inside_a_message_is_refused(self) -> None:
        side, peer, _ = hosted()
        side.recv(peer.seal(16, data(HEAD, msg(b"first")[:3])))
        side.recv(peer.seal(16, st.put("data", HEAD + 3, False, 1, 1, 3) + b"rst"))
        assert verdict(side) == PROTOCOL

    def test_part_of_a_head_that_is_said_again_with_its_number_is_what_it_was(self) -> None:
        """A record may end within a head of four bytes, and come twice before the rest does."""
        side, peer, end = hosted()
        first, second = msg(b"first"), msg(bytes(9000))
        side.recv(peer.seal(16, data(HEAD, first)))
        at = HEAD + len(first)
        for n in (0, 1, 1, 2, 2, 3, 0, 3):
            side.recv(peer.seal(16, st.put("data", at, False, 1, 1, n) + second[:n]))
            assert verdict(side) is None
        side.recv(peer.seal(16, data(at + 3, second[3:])))
        assert verdict(side) is None and end.take_all() == [b"first", bytes(9000)]

    @pytest.mark.parametrize(("back", "number"), [(0, 2), (1, 1), (-1, 1)])
    def test_number_that_does_not_fit_the_part_of_a_head_is_refused(self, back: int, number: int) -> None:
        side, peer, _ = hosted()
        first, second = msg(b"first"), msg(bytes(9000))
        side.recv(peer.seal(16, data(HEAD, first + second[:2])))
        at = HEAD + len(first) - back
        side.recv(peer.seal(16, st.put("data", at, False, 1, number, 1) + second[:1]))
        assert verdict(side) == PROTOCOL

    def test_message_with_a_field_that_must_be_understood_closes_the_session(self) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(16, data(HEAD, msg(b"first"))))
        side.recv(peer.seal(16, data(HEAD + len(msg(b"first")), vint(2 * 4 + 1) + b"\x02\x03\x00" + b"body")))
        assert verdict(side) == UNSUPPORTED and end.take() == b"first"

    def test_gap_on_a_single_stream_path_is_refused(self) -> None:
        side, peer, end = hosted()
        side.recv(peer.seal(16, data(HEAD, msg(b"first"))))
        assert verdict(side) is None
        side.recv(peer.seal(16, data(HEAD + len(msg(b"first")) + 1, b"x")))
        assert verdict(side) == PROTOCOL and end.take() == b"first"

    def test_out_of_order_and_repeated_data_is_delivered_once(self) -> None:
        side, peer, end = hosted()
        side.several_paths()
        whole = b"".join(msg(b"%d" % i * 20) for i in range(40))
        rng = random.Random(8)
        pieces = [(at, whole[at : at + 37]) for at in range(0, len(whole), 37)] * 2
        rng.shuffle(pieces)
        for at, piece in pieces:
            side.recv(peer.seal(16, data(HEAD + at, piece)))
        assert end.take_all() == [b"%d" % i * 20 for i in range(40)] and verdict(side) is None

    def test_preface_in_single_bytes(self) -> None:
        side, peer = st.Side(1), st.Peer(0)
        raw = preface(name=b"slow") + msg(b"v")
        for at in range(len(raw)):
            side.recv(peer.seal(16, data(at, raw[at : at + 1])))
        assert side.offers() == [(b"slow", None, 1)]
        end = side.open("slow")
        side.send()
        assert end.take() == b"v"


class TestFirstAndLast:
    def test_abort_in_front_of_the_preface_ends_with_the_pairing(self) -> None:
        """The application has let its end go by then: nothing of it may be touched afterwards."""
        for close in (True, False):
            side, peer = st.Side(1), st.Peer(0)
            end = side.open("x")
            if close:
                end.close()
            peer.open(side.send())
            end.stop()
            side.send()
            side.ready()
            end.release()
            side.recv(peer.seal(16, data(0, preface()[:3])))
            side.recv(peer.seal(0, st.put("abort", 16, 2, 1, HEAD, b"")))
            side.recv(peer.seal(16, data(3, preface()[3:])))
            side.send()
            side.ready()
            assert verdict(side) is None and side.state()["offers"] == 0

    def test_end_after_everything_else_is_over_touches_nothing_freed(self) -> None:
        side, peer, end = hosted()
        end.close()
        peer.open(side.send())
        sent = end.out()["sent"]
        side.recv(peer.seal(0, st.put("pos", 17, sent, 0, 10, 70000)))
        side.ready()
        end.release()
        assert side.state()["outs"] == 1
        side.recv(peer.seal(16, data(HEAD, b"", True)))
        side.send()
        side.ready()
        assert side.state()["outs"] == 0 and verdict(side) is None
        for late in (data(HEAD, b"", True), data(0, b"abc"), st.put("pos", 17, 0, 0, 0, 0)):
            side.recv(peer.seal(16, late))
        assert verdict(side) is None

    def test_session_close_from_the_peer_in_every_cut(self) -> None:
        for cut in range(1, 30):
            side, peer, end = hosted()
            rec = peer.seal(0, st.put("session_close", 1, b"bye"))
            side.recv(rec[:cut])
            side.recv(rec[cut:])
            assert side.state()["state"] == OVER and end.take() == ECLOSED

    @pytest.mark.parametrize("make", [bytes, lambda n: b"\xff" * n, random.Random(3).randbytes])
    def test_any_bytes_end_in_a_verdict_and_never_deliver(self, make: Callable[[int], bytes]) -> None:
        for n in (1, 2, 20, 21, 22, 100, 65537, 200_000):
            side, ends = listen()
            for _ in range(3):
                side.recv(make(n))
            assert taken(ends) == [[], [], []] and verdict(side) in (None, CRYPTO)
            assert side.state()["left_cap"] <= 65_537
