"""Model A: one stream of capacity n >= 1 over a network that loses, repeats, reorders, breaks and resumes.

Layer: specification only. Section: docs/spec/model.md, "Model A".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .checker import Step

#: DATA n | POS received taken limit | FIN final | ABORT final discard | STOP
Frame = tuple[str, int, int, int]

OPEN, CLOSED, ABORTED, STOPPED = "open", "closed", "aborted", "stopped"


class Net(NamedTuple):
    """Sender half, receiver half, frames in flight, path state and what the environment may still do."""

    tries: int  # sends the application has begun
    accepted: int
    put: int  # messages below it have been on some path
    miss: int  # bit n: message n is to be sent (again)
    s_recv: int
    s_taken: int
    s_limit: int
    s_end: str
    end_due: bool  # FIN or ABORT is to be sent (again)
    discard: bool  # ABORT drops what the receiver still holds
    r_recv: int
    early: int  # bit n: message n is here but an earlier one is not
    inbox: tuple[int, ...]
    out: tuple[int, ...]  # what the application got, in its order
    r_limit: int
    r_final: int  # -1: unknown
    r_end: str
    pos_due: bool
    stop_due: bool
    frames: frozenset[Frame]
    up: bool
    loss: int
    repeat: int
    cuts: int
    cancels: int


class Stream:
    """One direction of a channel with capacity >= 1.

    Args:
        capacity: messages accepted and not yet taken, at most.
        messages: sends the application begins.
        initial: credit before the receiver has spoken (transport parameter), in messages.
        loss: frames that may vanish on a living path.
        repeat: frames that may arrive twice.
        cuts: times the path breaks.
        cancels: sends that may be cancelled before they are accepted.
        ends: subset of "close", "drop", "abort", "stop": how the stream may end.
        broken: names of rules to break (see `mutants`).
        pos_in_flight: POS frames in flight at once, at most.
    """

    name = "A stream"

    def __init__(
        self,
        capacity: int = 1,
        messages: int = 3,
        *,
        initial: int | None = None,
        loss: int = 1,
        repeat: int = 1,
        cuts: int = 1,
        cancels: int = 1,
        ends: tuple[str, ...] = ("close",),
        broken: frozenset[str] = frozenset(),
        pos_in_flight: int = 2,
    ) -> None:
        self.capacity = capacity
        self.messages = messages
        self.first_credit = capacity if initial is None else initial
        self.budget = (loss, repeat, cuts, cancels)
        self.ends = ends
        self.broken = broken
        self.pos_in_flight = pos_in_flight
        self.params = (
            f"cap={capacity} msgs={messages} credit0={self.first_credit} loss={loss} rep={repeat} "
            f"cut={cuts} cancel={cancels} {'+'.join(ends)}"
        )

    def initial(self) -> Net:
        return Net(
            tries=0, accepted=0, put=0, miss=0, s_recv=0, s_taken=0, s_limit=self.first_credit, s_end=OPEN,
            end_due=False, discard=False, r_recv=0, early=0, inbox=(), out=(), r_limit=self.first_credit, r_final=-1,
            r_end=OPEN, pos_due=False, stop_due=False, frames=frozenset(), up=True, loss=self.budget[0],
            repeat=self.budget[1], cuts=self.budget[2], cancels=self.budget[3],
        )  # fmt: skip

    # -- what can happen -------------------------------------------------------------------------------------------

    def steps(self, s: Net) -> Iterable[Step[Net]]:
        yield from self._sender(s)
        yield from self._receiver(s)
        yield from self._network(s)

    def _sender(self, s: Net) -> Iterable[Step[Net]]:
        if s.s_end == OPEN:
            if s.tries < self.messages:
                if s.accepted < s.s_limit:
                    n = s.accepted
                    yield (
                        f"send accepted as {n}",
                        "accept",
                        s._replace(tries=s.tries + 1, accepted=n + 1, miss=s.miss | 1 << n),
                    )
                if s.cancels:
                    yield "send cancelled before acceptance", None, s._replace(tries=s.tries + 1, cancels=s.cancels - 1)
            if "close" in self.ends:
                fair = "close" if s.tries == self.messages else None
                yield "sender closes", fair, s._replace(s_end=CLOSED, end_due=True)
            if "drop" in self.ends:
                yield "sender dropped: ABORT after what was accepted", None, s._replace(s_end=ABORTED, end_due=True)
            if "abort" in self.ends:
                yield "sender aborts", None, s._replace(s_end=ABORTED, end_due=True, discard=True, miss=0)
        if not s.up:
            return
        if s.miss:
            n = (s.miss & -s.miss).bit_length() - 1
            t = s._replace(miss=s.miss & s.miss - 1, put=max(s.put, n + 1), frames=s.frames | {("DATA", n, 0, 0)})
            yield f"-> DATA({n})", "put DATA", t
        if s.end_due:
            kind = "FIN" if s.s_end == CLOSED else "ABORT"
            frame = (kind, s.accepted, int(s.discard), 0)
            yield f"-> {kind}({s.accepted})", "put end", s._replace(end_due=False, frames=s.frames | {frame})

    def _receiver(self, s: Net) -> Iterable[Step[Net]]:
        if s.inbox and s.r_end == OPEN:
            limit = s.r_limit
            if "credit on received" not in self.broken:
                limit = max(limit, len(s.out) + 1 + self.capacity)
            t = s._replace(out=(*s.out, s.inbox[0]), inbox=s.inbox[1:], r_limit=limit, pos_due=True)
            yield f"take {s.inbox[0]}", "take", self._settle_end(t)
        if "stop" in self.ends and s.r_end == OPEN:
            yield "receiver stops", None, s._replace(r_end=STOPPED, stop_due=True, inbox=())
        if not s.up:
            return
        if s.pos_due and sum(f[0] == "POS" for f in s.frames) < self.pos_in_flight:
            frame = ("POS", s.r_recv, len(s.out), s.r_limit)
            yield f"<- POS{frame[1:]}", "put POS", s._replace(pos_due=False, frames=s.frames | {frame})
        if s.stop_due:
            yield "<- STOP", "put STOP", s._replace(stop_due=False, frames=s.frames | {("STOP", 0, 0, 0)})

    def _network(self, s: Net) -> Iterable[Step[Net]]:
        if s.up:
            for f in s.frames:
                rest = s._replace(frames=s.frames - {f})
                text = f"{f[0]}{f[1:]}"
                yield f"{text} arrives", "get " + f[0], self._arrive(rest, f)
                if s.repeat:
                    yield f"{text} arrives, a copy follows", None, self._arrive(s._replace(repeat=s.repeat - 1), f)
                if s.loss:
                    yield f"{text} lost", None, self._missed(rest._replace(loss=s.loss - 1), f)
            if s.cuts:
                t = s._replace(up=False, cuts=s.cuts - 1)
                yield "path breaks, frames lost", None, t._replace(frames=frozenset())
                if s.frames:
                    yield "path breaks, frames arrive late", None, t
        else:
            yield "path resumes", "resume", self._resume(s._replace(up=True))

    def _missed(self, s: Net, f: Frame) -> Net:
        """The transport tells the owner of a lost frame; DATA is sent again, control is made anew from state."""
        kind = f[0]
        if kind == "DATA":
            return s._replace(miss=s.miss | 1 << f[1]) if not s.discard else s
        if kind == "POS":
            return s._replace(pos_due=True)
        if kind == "STOP":
            return s._replace(stop_due=True)
        return s._replace(end_due=True)

    def _resume(self, s: Net) -> Net:
        """Each side tells its positions; the sender goes on from its own last acknowledgement."""
        start = s.put if "resume from put" in self.broken else s.s_recv
        again = 0 if s.discard else sum(1 << n for n in range(start, s.accepted))
        return s._replace(
            miss=s.miss | again,
            end_due=s.s_end in (CLOSED, ABORTED),
            pos_due="no POS at resume" not in self.broken,
            stop_due=s.r_end == STOPPED,
        )

    def _arrive(self, s: Net, f: Frame) -> Net:
        kind = f[0]
        if kind == "DATA":
            return self._data(s, f[1])
        if kind == "POS":
            if "POS without max" in self.broken:
                t = s._replace(s_recv=f[1], s_taken=f[2], s_limit=f[3])
            else:
                t = s._replace(s_recv=max(s.s_recv, f[1]), s_taken=max(s.s_taken, f[2]), s_limit=max(s.s_limit, f[3]))
            return t._replace(miss=t.miss & ~((1 << t.s_recv) - 1))
        if kind == "STOP":
            return s._replace(s_end=STOPPED, miss=0, end_due=False)
        if s.r_end != OPEN:
            return s
        if kind == "FIN" or not f[2]:
            t = s._replace(r_final=f[1] if "FIN without offset" not in self.broken else len(s.out) + len(s.inbox))
            return self._settle_end(t)
        return s._replace(r_end=ABORTED, inbox=())

    def _data(self, s: Net, n: int) -> Net:
        # Even a repeated or refused frame is answered: the sender may not have heard the answer.
        s = s._replace(pos_due=True)
        if s.r_end == STOPPED:
            return s
        if "no dedup" in self.broken and n < s.r_recv and s.r_end == OPEN:
            return s._replace(inbox=(*s.inbox, n))
        if n < s.r_recv or s.early >> n & 1:
            return s
        if "no order" in self.broken:
            return s._replace(inbox=(*s.inbox, n), early=s.early | 1 << n)
        early, here, inbox = s.early | 1 << n, s.r_recv, s.inbox
        while early >> here & 1:
            early &= ~(1 << here)
            inbox = (*inbox, here)
            here += 1
        if s.r_end != OPEN:
            inbox = ()
        limit = s.r_limit
        if "credit on received" in self.broken:
            limit = max(limit, here + self.capacity)
        return self._settle_end(s._replace(early=early, r_recv=here, inbox=inbox, r_limit=limit))

    def _settle_end(self, s: Net) -> Net:
        """The application meets the end only behind everything that was accepted before it."""
        if s.r_end == OPEN and s.r_final >= 0 and len(s.out) >= s.r_final:
            return s._replace(r_end=CLOSED)
        return s

    # -- what must hold --------------------------------------------------------------------------------------------

    def bad(self, s: Net) -> str | None:
        got = len(s.out)
        if s.out != tuple(range(got)):
            return f"not exactly once in order: {s.out}"
        if got > s.accepted:
            return "taken but never accepted"
        if s.accepted > max(self.first_credit, got + self.capacity):
            return f"{s.accepted} accepted, {got} taken: more than the capacity between"
        if s.s_limit > s.r_limit:
            return "sender believes in credit that was never given"
        if s.s_taken > got or s.s_recv > s.r_recv:
            return "sender believes in more than was taken or received"
        if s.r_end == CLOSED and got != s.accepted:
            return f"end of stream after {got} of {s.accepted}"
        if s.r_end != OPEN and s.inbox:
            return "values kept behind the end"
        return self._loss_report(s)

    def _loss_report(self, s: Net) -> str | None:
        """The session could be lost here: what would each side say?"""
        got = set(s.out)
        undelivered = set(range(s.put, s.accepted))
        if "unacked is undelivered" in self.broken:
            undelivered = set(range(s.s_recv, s.accepted))
        known = s.s_recv if "received is delivered" in self.broken else s.s_taken
        in_doubt = set(range(known, s.accepted)) - undelivered
        everything = set(range(s.accepted))
        if got | undelivered | in_doubt != everything:
            return f"loss report names too little: got {got}, undelivered {undelivered}, in doubt {in_doubt}"
        if got & undelivered:
            return f"loss report calls {got & undelivered} undelivered, but they were taken"
        if len(got & in_doubt) > max(self.capacity, self.first_credit):
            return "loss report doubts more than the credit"
        return None

    def bad_step(self, s: Net, t: Net) -> str | None:
        if t.s_limit < s.s_limit or t.s_recv < s.s_recv or t.s_taken < s.s_taken:
            return "a position shrank at the sender"
        if t.r_limit < s.r_limit:
            return "the receiver took credit back"
        if len(t.out) > len(s.out) and s.r_end != OPEN:
            return "taken after the end"
        return None

    def bad_menu(self, s: Net, labels: set[str]) -> str | None:
        return None

    def goal(self, s: Net) -> bool:
        if s.r_end == STOPPED:
            return s.s_end in (STOPPED, CLOSED, ABORTED)
        if s.r_end == ABORTED:
            return True
        if s.r_end == CLOSED:
            return s.discard or s.s_taken == s.accepted
        return False


def mutants() -> list[tuple[str, Stream]]:
    """Return (name of the broken rule, small model in which the checker must find trouble)."""

    def one(rule: str, **options: object) -> tuple[str, Stream]:
        given: dict[str, object] = {"capacity": 2, "messages": 2, "cancels": 0, **options}
        return rule, Stream(broken=frozenset({rule}), **given)  # type: ignore[arg-type]

    return [
        one("POS without max", capacity=1),
        one("no dedup"),
        one("no order"),
        one("credit on received", capacity=1),
        one("resume from put"),
        one("no POS at resume", capacity=1),
        one("FIN without offset"),
        one("unacked is undelivered"),
        one("received is delivered"),
    ]
