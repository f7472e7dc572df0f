"""Model B: capacity 0. Offers, taking them, WITHDRAW and its answer, cancellation, suspension and STOP.

Layer: specification only. Section: docs/spec/model.md, "Model B".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .checker import Step

#: DATA n | POS received taken limit | WITHDRAW n | WITHDRAWN n outcome | STOP taken
Frame = tuple[str, int, int, int]

# A send, seen by its sender. The last seven are final.
WAITING, LEAVING, DOUBT = "waiting", "leaving", "doubt"
RETURNED, OWED, CANCELLED, DOUBT_TAKEN, DOUBT_GONE, REFUSED = (
    "returned", "returned, cancellation owed", "cancelled", "doubt: was taken", "doubt: was withdrawn", "closed",
)  # fmt: skip
SAYS_TAKEN = (RETURNED, OWED, DOUBT_TAKEN)
SAYS_NOT = (CANCELLED, DOUBT_GONE, REFUSED)
UNSETTLED = (WAITING, LEAVING, DOUBT)

# The fate of a message at the receiver.
UNKNOWN, TAKEN, GONE = 0, 1, 2


class Net(NamedTuple):
    """Sender half, receiver half, frames in flight, path state and what the environment may still do."""

    sends: tuple[str, ...]  # one entry for each message that was offered; its index is the message number
    miss: int  # bit n: DATA n is to be sent (again)
    ask: int  # bit n: WITHDRAW n is to be sent (again)
    s_recv: int
    s_taken: int
    s_limit: int
    s_end: bool
    parked: bool
    r_recv: int
    early: int
    inbox: tuple[int, ...]
    fate: tuple[int, ...]  # ghost: what really became of each message
    twice: bool  # ghost: something was taken twice or after it was withdrawn
    high: int  # numbers below it are known to exist
    answer: int  # bit n: WITHDRAWN n is to be sent
    r_limit: int
    r_end: bool
    pos_due: bool
    stop_due: bool
    frames: frozenset[Frame]
    up: bool
    loss: int
    repeat: int
    cuts: int
    cancels: int
    leaves: int


class Offers:
    """One direction of a channel with capacity 0.

    Args:
        window: offers that may be unsettled at once (16 on the wire), which is also what the receiver remembers.
        messages: sends the application makes, any number of them at once.
        loss, repeat, cuts: as in `stream.Stream`.
        cancels: cancellations of sends; a second one of the same send is one of them.
        leaves: cancellations of receives.
        stop: the receiver may say that it takes no more.
        broken: names of rules to break (see `mutants`).
        control_in_flight: POS frames, and WITHDRAWN frames, in flight at once, at most.
    """

    name = "B offers"

    def __init__(
        self,
        window: int = 1,
        messages: int = 2,
        *,
        loss: int = 1,
        repeat: int = 1,
        cuts: int = 1,
        cancels: int = 1,
        leaves: int = 1,
        stop: bool = False,
        broken: frozenset[str] = frozenset(),
        control_in_flight: int = 2,
    ) -> None:
        self.window = window
        self.messages = messages
        self.budget = (loss, repeat, cuts, cancels, leaves)
        self.stop = stop
        self.broken = broken
        self.control_in_flight = control_in_flight
        self.params = (
            f"window={window} msgs={messages} loss={loss} rep={repeat} cut={cuts} cancel={cancels} leave={leaves}"
            + (" stop" if stop else "")
        )

    def initial(self) -> Net:
        return Net(
            sends=(), miss=0, ask=0, s_recv=0, s_taken=0, s_limit=self.window, s_end=False, parked=False,
            r_recv=0, early=0, inbox=(), fate=(UNKNOWN,) * self.messages, twice=False, high=0, answer=0,
            r_limit=self.window, r_end=False, pos_due=False, stop_due=False, frames=frozenset(), up=True,
            loss=self.budget[0], repeat=self.budget[1], cuts=self.budget[2], cancels=self.budget[3],
            leaves=self.budget[4],
        )  # fmt: skip

    # -- what can happen -------------------------------------------------------------------------------------------

    def steps(self, s: Net) -> Iterable[Step[Net]]:
        yield from self._sender(s)
        yield from self._receiver(s)
        yield from self._network(s)

    def _room(self, s: Net) -> bool:
        n = len(s.sends)
        lowest = next((i for i, state in enumerate(s.sends) if state in UNSETTLED), n)
        return n < s.s_limit and (n < lowest + self.window or "no window rule" in self.broken)

    def _sender(self, s: Net) -> Iterable[Step[Net]]:
        n = len(s.sends)
        # A send gets its number only when it goes on a path; before that, cancelling it is local (not shown).
        if s.up and not s.s_end and n < self.messages and self._room(s):
            t = s._replace(sends=(*s.sends, WAITING), frames=s.frames | {("DATA", n, 0, 0)})
            yield f"-> DATA({n}), offered", "offer", t
        if s.cancels:
            for i, state in enumerate(s.sends):
                t = s._replace(cancels=s.cancels - 1)
                if state == WAITING:
                    if not s.up and "suspended cancel says withdrawn" in self.broken:
                        yield f"send {i} cancelled without a path", None, _set(t, i, CANCELLED)
                        continue
                    t = _set(t, i, LEAVING if s.up else DOUBT)
                    yield f"send {i} cancelled", None, t._replace(ask=t.ask | 1 << i)
                elif state == LEAVING:
                    yield f"send {i} cancelled again: in doubt", None, _set(t, i, DOUBT)
        if not s.up:
            return
        if s.miss:
            i = (s.miss & -s.miss).bit_length() - 1
            t = s._replace(miss=s.miss & s.miss - 1, frames=s.frames | {("DATA", i, 0, 0)})
            yield f"-> DATA({i}) again", "put DATA", t
        for i in _bits(s.ask):
            t = s._replace(ask=s.ask & ~(1 << i), frames=s.frames | {("WITHDRAW", i, 0, 0)})
            yield f"-> WITHDRAW({i})", f"put WITHDRAW {i}", t

    def _receiver(self, s: Net) -> Iterable[Step[Net]]:
        if not s.r_end:
            if not s.parked and self._taken(s) < self.messages:
                yield "recv parks", "park", s._replace(parked=True)
            if s.parked and s.inbox and (s.up or "take needs a path" not in self.broken):
                n = s.inbox[0]
                t = s._replace(parked=False, inbox=s.inbox[1:], pos_due=True, twice=s.twice or s.fate[n] != UNKNOWN)
                yield f"recv takes {n}", "take", self._settled(t, n, TAKEN)
            if s.parked and s.leaves:
                yield "recv cancelled", None, s._replace(parked=False, leaves=s.leaves - 1)
            if self.stop:
                t = s._replace(r_end=True, parked=False, inbox=(), stop_due=True)
                yield "receiver stops", None, t
        if not s.up:
            return
        if s.pos_due and self._few(s, "POS"):
            frame = ("POS", s.r_recv, self._taken(s), s.r_limit)
            yield f"<- POS{frame[1:]}", "put POS", s._replace(pos_due=False, frames=s.frames | {frame})
        if s.answer and self._few(s, "WITHDRAWN"):
            for i in _bits(s.answer):
                frame = ("WITHDRAWN", i, self._recall(s, i), 0)
                t = s._replace(answer=s.answer & ~(1 << i), frames=s.frames | {frame})
                yield f"<- WITHDRAWN({i}, {'gone' if frame[2] == GONE else 'taken'})", f"put WITHDRAWN {i}", t
        if s.stop_due:
            taken = self._taken(s) if "STOP without taken" not in self.broken else 0
            yield f"<- STOP({taken})", "put STOP", s._replace(stop_due=False, frames=s.frames | {("STOP", taken, 0, 0)})

    def _few(self, s: Net, kind: str) -> bool:
        return sum(f[0] == kind for f in s.frames) < self.control_in_flight

    def _network(self, s: Net) -> Iterable[Step[Net]]:
        if s.up:
            for f in s.frames:
                rest = s._replace(frames=s.frames - {f})
                text = f"{f[0]}{f[1:]}"
                yield f"{text} arrives", f"get {f[0]} {f[1]}", self._arrive(rest, f)
                if s.repeat:
                    yield f"{text} arrives, a copy follows", None, self._arrive(s._replace(repeat=s.repeat - 1), f)
                if s.loss:
                    yield f"{text} lost", None, self._missed(rest._replace(loss=s.loss - 1), f)
            if s.cuts:
                t = s._replace(up=False, cuts=s.cuts - 1)
                t = t._replace(sends=tuple(DOUBT if x == LEAVING else x for x in t.sends))
                yield "path breaks, frames lost", None, t._replace(frames=frozenset())
                if s.frames:
                    yield "path breaks, frames arrive late", None, t
        else:
            yield "path resumes", "resume", self._resume(s._replace(up=True))

    def _missed(self, s: Net, f: Frame) -> Net:
        kind, n = f[0], f[1]
        if kind == "DATA":
            return s._replace(miss=s.miss | 1 << n) if n >= s.s_recv and self._keeps(s, n) else s
        if kind == "WITHDRAW":
            return s._replace(ask=s.ask | 1 << n) if s.sends[n] in UNSETTLED else s
        if kind == "WITHDRAWN":
            return s._replace(answer=s.answer | 1 << n)
        if kind == "POS":
            return s._replace(pos_due=True)
        return s._replace(stop_due=True)

    def _resume(self, s: Net) -> Net:
        """Made anew from state: DATA from the last ack, WITHDRAW for each unsettled send that asked, POS, STOP.

        WITHDRAWN is not repeated here: the repeated WITHDRAW asks for it again.
        """
        data = 0 if s.s_end else sum(1 << n for n in range(s.s_recv, len(s.sends)) if self._keeps(s, n))
        ask = sum(1 << n for n, state in enumerate(s.sends) if state in (LEAVING, DOUBT))
        if "WITHDRAW not repeated" in self.broken:
            ask = 0
        return s._replace(miss=data, ask=ask, answer=0, pos_due=True, stop_due=s.r_end)

    def _keeps(self, s: Net, n: int) -> bool:
        """A withdrawn message keeps its place: its bytes (or a SKIP of them) are sent until `received` passes it."""
        return "withdrawn bytes dropped" not in self.broken or s.sends[n] not in SAYS_NOT

    def _arrive(self, s: Net, f: Frame) -> Net:
        kind, n = f[0], f[1]
        if kind == "DATA":
            return self._data(s, n)
        if kind == "WITHDRAW":
            return self._withdraw(s, n)
        if kind == "WITHDRAWN":
            return self._withdrawn(s, n, f[2])
        if kind == "STOP":
            t = s._replace(s_end=True, miss=0)
            for i, state in enumerate(t.sends):
                if state == WAITING:
                    t = _set(t, i, RETURNED if i < n else REFUSED)
            return t
        t = s._replace(s_recv=max(s.s_recv, n), s_taken=max(s.s_taken, f[2]), s_limit=max(s.s_limit, f[3]))
        t = t._replace(miss=t.miss & ~((1 << t.s_recv) - 1))
        for i in range(min(t.s_taken, len(t.sends))):
            state = t.sends[i]
            if state == WAITING:
                t = _set(t, i, RETURNED)
            elif "taken settles all" in self.broken and state in (LEAVING, DOUBT):
                t = _set(t, i, OWED if state == LEAVING else DOUBT_TAKEN)
        return t

    def _data(self, s: Net, n: int) -> Net:
        s = s._replace(pos_due=True, high=max(s.high, n + 1))
        if "late copy offered again" in self.broken and n < s.r_recv and s.fate[n] == GONE and not s.r_end:
            return s._replace(inbox=(*s.inbox, n))
        if n < s.r_recv or s.early >> n & 1:
            return s
        early, here, inbox = s.early | 1 << n, s.r_recv, s.inbox
        while early >> here & 1:
            early &= ~(1 << here)
            if s.fate[here] == UNKNOWN and not s.r_end:
                inbox = (*inbox, here)
            here += 1
        return s._replace(early=early, r_recv=here, inbox=inbox)

    def _withdraw(self, s: Net, n: int) -> Net:
        s = s._replace(answer=s.answer | 1 << n, high=max(s.high, n + 1))
        if "WITHDRAWN without checking taken" in self.broken and s.fate[n] == TAKEN:
            return s._replace(frames=s.frames | {("WITHDRAWN", n, GONE, 0)}, answer=s.answer & ~(1 << n))
        if s.fate[n] != UNKNOWN:
            return s
        if "take after WITHDRAWN" in self.broken:
            return s._replace(frames=s.frames | {("WITHDRAWN", n, GONE, 0)}, answer=s.answer & ~(1 << n))
        if "WITHDRAW before DATA forgotten" in self.broken and n >= s.r_recv:
            return s._replace(frames=s.frames | {("WITHDRAWN", n, GONE, 0)}, answer=s.answer & ~(1 << n))
        return self._settled(s._replace(inbox=tuple(i for i in s.inbox if i != n), pos_due=True), n, GONE)

    def _settled(self, s: Net, n: int, fate: int) -> Net:
        t = s._replace(fate=(*s.fate[:n], fate, *s.fate[n + 1 :]))
        return t._replace(r_limit=max(t.r_limit, self._taken(t) + self.window))

    def _taken(self, s: Net) -> int:
        """Position `taken`: every message below it was taken or withdrawn."""
        n = 0
        while n < self.messages and s.fate[n] != UNKNOWN:
            n += 1
        return n

    def _recall(self, s: Net, n: int) -> int:
        """What the receiver still knows of n: withdrawn numbers of the last window; all other settled ones as taken."""
        if n < s.high - self.window or "no memory of withdrawn" in self.broken:
            return TAKEN
        return s.fate[n]

    def _withdrawn(self, s: Net, n: int, outcome: int) -> Net:
        state = s.sends[n]
        t = s._replace(ask=s.ask & ~(1 << n))
        if state == LEAVING:
            return _set(t, n, OWED if outcome == TAKEN else CANCELLED)
        if state == DOUBT:
            return _set(t, n, DOUBT_TAKEN if outcome == TAKEN else DOUBT_GONE)
        return t

    # -- what must hold --------------------------------------------------------------------------------------------

    def bad(self, s: Net) -> str | None:
        if s.twice:
            return "a value was taken twice, or after it was withdrawn"
        for n in range(self.messages):
            state = s.sends[n] if n < len(s.sends) else ""
            if state in SAYS_TAKEN and s.fate[n] != TAKEN:
                return f"send {n} says {state!r}, but nobody took it"
            if state in SAYS_NOT and s.fate[n] == TAKEN:
                return f"send {n} says {state!r}, but it was taken"
            if s.fate[n] == TAKEN and state not in SAYS_TAKEN and state not in UNSETTLED:
                return f"{n} was taken but would be in no loss report"
        if list(s.inbox) != sorted(set(s.inbox)):
            return f"inbox out of order: {s.inbox}"
        if sum(x in UNSETTLED for x in s.sends) > self.window and "no window rule" not in self.broken:
            return "more unsettled offers than the window"
        if s.s_limit > s.r_limit or s.s_taken > self._taken(s) or s.s_recv > s.r_recv:
            return "sender believes in a position that the receiver never had"
        return None

    def bad_step(self, s: Net, t: Net) -> str | None:
        for old, new in zip(s.fate, t.fate, strict=True):
            if old != new and old != UNKNOWN:
                return "the fate of a message changed"
        for before, after in zip(s.sends, t.sends, strict=False):
            if before != after and before not in UNSETTLED:
                return f"a send that was {before!r} became {after!r}"
        if t.s_limit < s.s_limit or t.r_limit < s.r_limit:
            return "credit shrank"
        return None

    def bad_menu(self, s: Net, labels: set[str]) -> str | None:
        if s.parked and s.inbox and f"recv takes {s.inbox[0]}" not in labels:
            return "a parked receiver with an offer here must be able to take it without the network"
        if s.parked and s.leaves and "recv cancelled" not in labels:
            return "cancelling a receive needed the network"
        return None

    def goal(self, s: Net) -> bool:
        if any(state in UNSETTLED for state in s.sends):
            return False
        return len(s.sends) == self.messages or s.s_end


def _set(s: Net, n: int, state: str) -> Net:
    return s._replace(sends=(*s.sends[:n], state, *s.sends[n + 1 :]))


def _bits(mask: int) -> list[int]:
    return [n for n in range(mask.bit_length()) if mask >> n & 1]


def mutants() -> list[tuple[str, Offers]]:
    """Return (name of the broken rule, small model in which the checker must find trouble)."""

    def one(rule: str, **options: object) -> tuple[str, Offers]:
        given: dict[str, object] = {"window": 1, "messages": 1, "leaves": 0, **options}
        return rule, Offers(broken=frozenset({rule}), **given)  # type: ignore[arg-type]

    return [
        one("taken settles all"),
        one("WITHDRAWN without checking taken"),
        one("take after WITHDRAWN"),
        one("WITHDRAW before DATA forgotten"),
        one("late copy offered again"),
        one("no memory of withdrawn"),
        one("no window rule", messages=2),
        one("withdrawn bytes dropped", messages=2, cuts=0, repeat=0),
        one("WITHDRAW not repeated"),
        one("suspended cancel says withdrawn"),
        one("STOP without taken", stop=True),
        one("take needs a path"),
    ]
