"""Properties of streams and sessions (docs/spec/session.md §8): a sender against a model, and what is conserved."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from netchan._core import _selftest_session as st

OK, EAGAIN, ECLOSED, EFRAME = (st.RC[k] for k in ("OK", "EAGAIN", "ECLOSED", "EFRAME"))
SIZES = hs.one_of(hs.sampled_from([0, 1, 31, 32, 511, 512, 513, 8191, 8192, 32768, 32769]), hs.integers(0, 2000))


def head(n: int, deliver: bool) -> bytes:
    value = 2 * n + deliver
    size = next(k for k, bits in ((1, 6), (2, 14), (4, 30)) if value < 1 << bits)
    raw = (value | {1: 0, 2: 1, 4: 2}[size] << (8 * size - 2)).to_bytes(size, "big")
    return raw + (b"\x02\x01\x00" if deliver else b"")


class Sender(RuleBasedStateMachine):
    """A sender and the plain byte string that it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.o = st.Out(msgs=8, bytes_=3000)
        self.stream = b""
        self.starts: list[int] = []
        self.msgs, self.bytes = 8, 3000
        self.sent = self.acked = self.received = self.taken = 0
        self.closed = self.over = self.fin = False
        self.pinned: list[int] = []  # offsets behind pinned values that were not seen to come out

    @rule(n=SIZES, deliver=hs.booleans(), pin=hs.booleans())
    def append(self, n: int, deliver: bool, pin: bool) -> None:
        body = bytes([len(self.starts) % 251]) * n
        rc = self.o.append(body, deliver, pin)
        if self.closed or self.over:
            assert rc == ECLOSED
        elif len(self.starts) >= self.msgs or len(self.stream) >= self.bytes:
            assert rc == EAGAIN
        else:
            assert rc == OK
            self.starts.append(len(self.stream))
            self.stream += head(n, deliver) + body
            if pin:
                self.pinned.append(len(self.stream))

    def sealable(self) -> int:
        return min(len(self.stream), self.bytes) - self.sent

    @rule(share=hs.integers(0, 1 << 30))
    def read(self, share: int) -> None:
        n = share % (self.sealable() + 1)
        assert self.o.read(n) == self.stream[self.sent : self.sent + n]
        self.sent += n

    @rule(share=hs.integers(1, 70000))
    def span(self, share: int) -> None:
        want = min(share, self.sealable())
        if want:
            got = self.o.span(want)
            assert got and got == self.stream[self.sent : self.sent + len(got)] and len(got) <= want
            self.o.pass_(len(got))
            self.sent += len(got)

    @rule()
    def say_fin(self) -> None:
        n, fin = self.o.ready()
        assert n == self.sealable()
        assert fin == (self.closed and not self.fin and len(self.stream) <= self.bytes)
        if fin and n == 0:
            self.o.fin_was_sent()
            self.fin = True

    @rule(at=hs.integers(0, 1 << 30))
    def ack(self, at: int) -> None:
        at %= self.sent + 1
        self.o.ack(at)
        self.acked = max(self.acked, at)

    @rule(at=hs.integers(0, 1 << 30), taken=hs.integers(0, 1 << 30), msgs=hs.integers(0, 40), more=hs.integers(0, 9000))
    def pos(self, at: int, taken: int, msgs: int, more: int) -> None:
        at %= self.sent + 1
        taken %= sum(s < self.sent for s in self.starts) + 1
        rc = self.o.pos(at, taken, msgs, at + more)
        assert rc in (0, 1)
        self.received, self.taken = max(self.received, at), max(self.taken, taken)
        self.msgs, self.bytes = max(self.msgs, msgs), max(self.bytes, at + more)
        self.acked = max(self.acked, at)

    @rule(beyond=hs.integers(1, 100))
    def lie(self, beyond: int) -> None:
        assert self.o.pos(self.sent + beyond, 0, 10**6, 10**9) == EFRAME
        assert self.o.pos(0, len(self.starts) + beyond, 10**6, 10**9) == EFRAME

    @precondition(lambda self: len(self.starts) > 2)
    @rule()
    def close(self) -> None:
        assert self.o.close() == (ECLOSED if self.closed or self.over else OK)
        self.closed = self.closed or not self.over

    @precondition(lambda self: len(self.starts) > 4)
    @rule()
    def end(self) -> None:
        self.o.end(2)
        self.over = True

    @invariant()
    def agrees(self) -> None:
        s = self.o.state()
        assert (s["appended"], s["accepted"], s["sent"], s["acked"]) == (
            len(self.stream),
            len(self.starts),
            self.sent,
            self.acked,
        )
        assert (s["received"], s["taken"], s["max_msgs"], s["max_bytes"]) == (
            self.received,
            self.taken,
            self.msgs,
            self.bytes,
        )
        assert s["fin_acked"] <= self.fin
        if s["boundary"]:
            assert self.sent in (*self.starts, len(self.stream)) and s["sent_msgs"] == sum(
                x < self.sent for x in self.starts
            )
        out = self.o.released()
        due = [at for at in self.pinned if at <= self.acked]
        assert out == len(due)
        self.pinned = [at for at in self.pinned if at > self.acked]
        assert s["pinned_bytes"] <= len(self.stream) - self.acked + 32769

    def teardown(self) -> None:
        self.o.free()
        assert self.o.released() == len(self.pinned)


TestSender = Sender.TestCase
TestSender.settings = settings(max_examples=60, stateful_step_count=40)


STEPS = hs.lists(
    hs.tuples(
        hs.sampled_from(["send a", "send b", "take a", "take b", "talk", "carry", "sleep"]), hs.integers(0, 1 << 20)
    ),
    max_size=60,
)


def undelivered_and_in_doubt(out: dict[str, int], starts: list[int]) -> tuple[set[int], set[int]]:
    """The report of session.md §8 from the sender's positions alone."""
    never = {k for k, at in enumerate(starts) if at >= out["sent"]}
    return never, set(range(out["taken"], len(starts))) - never


class TestConservation:
    @given(steps=STEPS, lose=hs.booleans(), capacity=hs.sampled_from([None, 0, 1, 3, 100]), small=hs.booleans())
    @settings(max_examples=150)
    def test_every_accepted_value_is_taken_here_or_reported(
        self, steps: list[tuple[str, int]], lose: bool, capacity: int | None, small: bool
    ) -> None:
        limits = {"soft_blocks": 60, "hard_blocks": 1 << 30} if small else {}
        p = st.Pair(limits=limits, mine={"session_bytes": 1 << 17}, peer={"session_bytes": 0})
        ends = {"a": p.a.open("x", capacity=capacity), "b": p.b.open("x")}
        other = {"a": "b", "b": "a"}
        values: dict[str, list[bytes]] = {"a": [], "b": []}
        starts: dict[str, list[int]] = {"a": [], "b": []}
        got: dict[str, list[bytes]] = {"a": [], "b": []}  # by who sent it
        for what, x in steps:
            who = what[-1]
            if what.startswith("send"):
                value = b"%d:" % len(values[who]) + bytes(x % [3, 300, 3000, 90000][x % 4])
                at = ends[who].out()["appended"]
                if ends[who].send(value, deliver=bool(x & 64), pin=bool(x & 32)) == OK:
                    values[who].append(value)
                    starts[who].append(at)
            elif what.startswith("take"):
                one = ends[who].take()
                if not isinstance(one, int):
                    got[other[who]].append(one)
            elif what == "talk":
                p.collect()
            elif what == "carry":
                p.deliver(x % 20000, x // 7 % 20000)
            else:
                p.sleep(x * 100)
            for who in "ab":
                o, i = ends[who].out(), ends[other[who]].in_()
                assert o["acked"] <= o["sent"] <= o["max_bytes"] and o["received"] <= o["sent"] <= o["appended"]
                if i is not None:
                    assert (
                        o["taken"] <= i["taken"] <= i["msgs"] <= o["accepted"]
                        and o["received"] <= i["received"] <= o["sent"]
                    )
                    assert o["max_msgs"] <= max(i["granted_msgs"], 64) and o["max_bytes"] <= max(
                        i["granted_bytes"], 16384
                    )
        if lose:
            p.a.path_lost()
            p.b.path_lost()
        else:
            for _ in range(300):
                p.run(rounds=400)
                if all(len(got[w]) == len(values[w]) for w in "ab"):
                    break
                for who in "ab":
                    got[other[who]] += ends[who].take_all()
            assert got == values
        for who in "ab":
            here = ends[other[who]].take_all()
            received = got[who] + here
            assert received == values[who][: len(received)]
            never, doubt = undelivered_and_in_doubt(ends[who].out(), starts[who])
            taken = set(range(len(received)))
            assert taken | never | doubt | set(range(ends[who].out()["taken"])) == set(range(len(values[who])))
            assert not taken & never and ends[who].out()["taken"] <= len(received)
        p.free()
        for end in ends.values():
            end.release()


class TestChunking:
    @given(
        cuts=hs.lists(hs.integers(1, 3000), min_size=1, max_size=30), names=hs.lists(hs.sampled_from("pqr"), max_size=6)
    )
    @settings(max_examples=80)
    def test_pairing_does_not_depend_on_how_the_bytes_are_cut(self, cuts: list[int], names: list[str]) -> None:
        p = st.Pair()
        mine = [(n, p.a.open(n)) for n in names]
        theirs = [(n, p.b.open(n)) for n in sorted(names)]
        for i, (_, end) in enumerate(mine):
            end.send(b"%d" % i)
        turn = iter(cuts * 4000)
        p.run(chunk=lambda: next(turn))
        for n in "pqr":
            want = [b"%d" % i for i, (name, _) in enumerate(mine) if name == n]
            assert [end.take() for name, end in theirs if name == n] == want
