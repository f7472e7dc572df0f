"""Model C: select on several nodes at once; WANT, one offer out per select, the ring rule, cancel, loss and resume.

Layer: specification only. Section: docs/spec/model.md, "Model C".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .checker import Step

#: ("s" or "r" or "plain", stream): send arm, receive arm, or a send outside select, which offers without a hint.
Arm = tuple[str, int]
Select = tuple[Arm, ...]

NONE, OUT, BACK, DOUBT = "", "out", "withdrawing", "doubt"
UNKNOWN, HERE, TAKEN, GONE = "", "here", "taken", "gone"
READY, PENDING, LEAVING = "ready", "pending", "leaving"


class End(NamedTuple):
    """One stream: the current offer at its sender (`offer`, `owner`), at its receiver (`fate`), and WANT."""

    offer: str = NONE
    owner: tuple[int, int] = (0, 0)  # (task, round) of the select that made the offer
    fate: str = UNKNOWN
    frames: frozenset[tuple[str, str]] = frozenset()  # of the current offer
    due: frozenset[str] = frozenset()  # control or data to be sent (again)
    want: int = 0  # parked receivers, at the receiver
    version: int = 0
    hint: int = 0  # the same, as the sender heard it
    heard: int = 0
    wants: frozenset[tuple[int, int]] = frozenset()  # WANT frames in flight: (version, parked)
    sent: int = 0
    received: int = 0


class Net(NamedTuple):
    """All tasks, streams and paths, and what the environment may still do."""

    tasks: tuple[tuple[int, str], ...]  # (rounds finished, phase)
    ends: tuple[End, ...]
    up: tuple[bool, ...]
    twice: bool  # ghost: a select completed two arms
    loss: int
    repeat: int
    cuts: int
    cancels: int


class Meet:
    """Selects of several nodes that meet over capacity-0 streams, one offer at a time on each stream.

    Args:
        streams: (source node, target node) of each stream.
        scripts: for each task the selects it runs, one after the other.
        home: node of each task; one task on each node unless given.
        ids: rank of each node in the ring rule.
        loss, repeat, cuts, cancels: budgets of the environment; a cancel ends a pending select.
        broken: names of rules to break (see `mutants`).
    """

    name = "C select"

    def __init__(
        self,
        streams: tuple[tuple[int, int], ...],
        scripts: tuple[tuple[Select, ...], ...],
        *,
        home: tuple[int, ...] | None = None,
        ids: tuple[int, ...] | None = None,
        loss: int = 0,
        repeat: int = 0,
        cuts: int = 0,
        cancels: int = 0,
        broken: frozenset[str] = frozenset(),
        note: str = "",
    ) -> None:
        self.streams = streams
        self.scripts = scripts
        self.home = home if home is not None else tuple(range(len(scripts)))
        self.ids = ids if ids is not None else tuple(range(1, max(self.home) + 2))
        self.sessions = sorted({(min(a, b), max(a, b)) for a, b in streams})
        self.path = tuple(self.sessions.index((min(a, b), max(a, b))) for a, b in streams)
        self.budget = (loss, repeat, cuts, cancels)
        self.broken = broken
        self.params = f"{note} loss={loss} rep={repeat} cut={cuts} cancel={cancels}".strip()

    def initial(self) -> Net:
        return Net(
            tasks=((0, READY),) * len(self.scripts),
            ends=(End(),) * len(self.streams),
            up=(True,) * len(self.sessions),
            twice=False,
            loss=self.budget[0],
            repeat=self.budget[1],
            cuts=self.budget[2],
            cancels=self.budget[3],
        )

    # -- the selects -----------------------------------------------------------------------------------------------

    def _arms(self, s: Net, task: int) -> Select:
        """Return the arms of the running select, empty if none runs."""
        finished, phase = s.tasks[task]
        return () if phase == READY else self.scripts[task][finished]

    def _park(self, s: Net, task: int, change: int) -> Net:
        for kind, e in self._arms(s, task):
            if kind == "r":
                end = s.ends[e]
                s = _end(s, e, want=end.want + change, version=end.version + 1, due=end.due | {"WANT"})
        return s

    def _finish(self, s: Net, task: int) -> Net:
        s = self._park(s, task, -1)
        return _task(s, task, s.tasks[task][0] + 1, READY)

    def steps(self, s: Net) -> Iterable[Step[Net]]:
        for task in range(len(self.scripts)):
            yield from self._select(s, task)
        for e in range(len(self.streams)):
            yield from self._wire(s, e)
        for p, session in enumerate(self.sessions):
            if not s.up[p]:
                yield f"path {session} resumes", f"resume {p}", self._resume(_path(s, p, True), p)
            elif s.cuts:
                t = _path(s, p, False)._replace(cuts=s.cuts - 1)
                mine = [e for e in range(len(self.streams)) if self.path[e] == p]
                late = any(s.ends[e].frames or s.ends[e].wants for e in mine)
                for e in mine:
                    task = t.ends[e].owner[0]
                    if t.ends[e].offer == BACK and t.tasks[task][1] == LEAVING:
                        t = self._finish(_end(t, e, offer=DOUBT), task)
                if late:
                    yield f"path {session} breaks, frames arrive late", None, t
                for e in mine:
                    t = _end(t, e, frames=frozenset(), wants=frozenset())
                yield f"path {session} breaks, frames lost", None, t

    def _select(self, s: Net, task: int) -> Iterable[Step[Net]]:
        finished, phase = s.tasks[task]
        if phase == READY:
            if finished < len(self.scripts[task]):
                yield f"task {task} selects", f"start {task}", self._park(_task(s, task, finished, PENDING), task, 1)
            return
        arms = self._arms(s, task)
        me = (task, finished)
        mine = [e for kind, e in arms if kind != "r" and s.ends[e].offer in (OUT, BACK) and s.ends[e].owner == me]
        here = [e for kind, e in arms if kind == "r" and s.ends[e].fate == HERE]
        if phase == PENDING:
            early = "take before the answer" in self.broken
            if not mine or early:
                for e in here:
                    end = s.ends[e]
                    t = _end(s, e, fate=TAKEN, received=end.received + 1, due=end.due | {"POS"})
                    yield f"task {task} takes from stream {e}", f"take {task} {e}", self._finish(t, task)
            ready = here and "offers while a receive is ready" not in self.broken
            if (not mine or "offers on every arm" in self.broken) and not ready:
                for kind, e in arms:
                    end = s.ends[e]
                    if kind == "r" or end.offer != NONE or not s.up[self.path[e]]:
                        continue
                    if end.hint or kind == "plain" or "offer without a hint" in self.broken:
                        t = _end(s, e, offer=OUT, owner=(task, finished), frames=end.frames | {("DATA", "")})
                        yield f"task {task} offers on stream {e}", f"offer {task} {e}", t
            for e in mine:
                if s.ends[e].offer == OUT and self._gives_way(s, task, e, here, arms):
                    yield f"task {task} wants its offer on {e} back", f"back {task}", self._ask(s, e)
        if s.cancels and phase == PENDING:
            t = s._replace(cancels=s.cancels - 1)
            if not mine:
                yield f"task {task} cancelled", None, self._finish(t, task)
            elif len(mine) == 1:
                e = mine[0]
                if s.up[self.path[e]]:
                    t = _task(t, task, finished, LEAVING)
                    yield f"task {task} cancelled, offer out", None, self._ask(t, e) if s.ends[e].offer == OUT else t
                else:
                    t = _end(t, e, offer=DOUBT, due=t.ends[e].due | {"WITHDRAW"})
                    yield f"task {task} cancelled without a path", None, self._finish(t, task)

    def _ask(self, s: Net, e: int) -> Net:
        return _end(s, e, offer=BACK, due=s.ends[e].due | {"WITHDRAW"})

    def _gives_way(self, s: Net, task: int, e: int, here: list[int], arms: Select) -> bool:
        """The ring rule, and: an offer that nobody waits for any more is withdrawn."""
        node = self.home[task]
        last = node == len(self.ids) - 1
        kind = next(k for k, i in arms if i == e)
        if kind == "s" and not s.ends[e].hint and "unwanted offer stays" not in self.broken:
            return True
        for i in here:
            owner = self.streams[i][0]
            mine, theirs = self.ids[node], self.ids[owner]
            if "nobody gives way" in self.broken:
                continue
            if "the last node compares the wrong way" in self.broken and last:
                mine, theirs = theirs, mine
            if "all give way" in self.broken or not mine < theirs:
                return True
        return False

    # -- the wire --------------------------------------------------------------------------------------------------

    def _wire(self, s: Net, e: int) -> Iterable[Step[Net]]:
        end = s.ends[e]
        if not s.up[self.path[e]]:
            return
        for kind in sorted(end.due):
            rest = end.due - {kind}
            if kind == "WANT":
                t = _end(s, e, due=rest, wants=end.wants | {(end.version, end.want)})
                yield f"<- WANT({e}, v{end.version}, {end.want})", f"put WANT {e}", t
            else:
                detail = ("gone" if end.fate == GONE else "taken") if kind == "WITHDRAWN" else ""
                t = _end(s, e, due=rest, frames=end.frames | {(kind, detail)})
                yield f"{kind}({e}) {detail} sent", f"put {kind} {e}", t
        for want in end.wants:
            text = f"WANT({e}, v{want[0]}, {want[1]})"
            t = self._hear(_end(s, e, wants=end.wants - {want}), e, want)
            yield f"{text} arrives", f"get WANT {e}", t
            if s.loss:
                t = _end(s, e, wants=end.wants - {want}, due=end.due | {"WANT"})
                yield f"{text} lost", None, t._replace(loss=s.loss - 1)
        for frame in end.frames:
            text = f"{frame[0]}({e}) {frame[1]}"
            gone = _end(s, e, frames=end.frames - {frame})
            yield f"{text} arrives", f"get {frame[0]} {e}", self._arrive(gone, e, frame)
            if s.repeat:
                yield f"{text} arrives, a copy follows", None, self._arrive(s._replace(repeat=s.repeat - 1), e, frame)
            if s.loss:
                t = _end(gone, e, due=end.due | {frame[0]})
                yield f"{text} lost", None, t._replace(loss=s.loss - 1)

    def _hear(self, s: Net, e: int, want: tuple[int, int]) -> Net:
        end = s.ends[e]
        if "WANT without version" in self.broken:
            return _end(s, e, hint=want[1])
        if want[0] <= end.heard:
            return s
        newer = frozenset(w for w in end.wants if w[0] > want[0])
        return _end(s, e, hint=want[1], heard=want[0], wants=newer)

    def _arrive(self, s: Net, e: int, frame: tuple[str, str]) -> Net:
        end = s.ends[e]
        kind = frame[0]
        if kind == "DATA":
            return _end(s, e, fate=HERE) if end.fate == UNKNOWN else s
        if kind == "WITHDRAW":
            fate = GONE if end.fate in (UNKNOWN, HERE) else end.fate
            return _end(s, e, fate=fate, due=end.due | {"WITHDRAWN"})
        if kind == "POS":
            return self._complete(s, e) if end.offer == OUT else s
        if frame[1] == "taken":
            return self._complete(s, e)
        task, made = end.owner
        t = self._forget(s, e)
        if end.offer == BACK and s.tasks[task] == (made, LEAVING):
            t = self._finish(t, task)
        return t

    def _complete(self, s: Net, e: int) -> Net:
        """The sender learns that its offer was taken."""
        end = s.ends[e]
        task, made = end.owner
        t = self._forget(_end(s, e, sent=end.sent + 1), e)
        if end.offer == DOUBT:
            return t
        if s.tasks[task][0] != made or s.tasks[task][1] == READY:
            return t._replace(twice=True)
        return self._finish(t, task)

    def _forget(self, s: Net, e: int) -> Net:
        """The offer is settled at its sender: by model B every frame of it is now without effect, so none is kept."""
        return _end(s, e, offer=NONE, fate=UNKNOWN, owner=(0, 0), frames=frozenset(), due=s.ends[e].due & {"WANT"})

    def _resume(self, s: Net, p: int) -> Net:
        for e in range(len(self.streams)):
            if self.path[e] != p:
                continue
            end = s.ends[e]
            due = set(end.due)
            if end.offer != NONE:
                due.add("DATA")
            if end.offer in (BACK, DOUBT):
                due.add("WITHDRAW")
            if end.fate == TAKEN:
                due.add("POS")
            if "WANT not repeated at resume" in self.broken:
                due.discard("WANT")
            elif end.version:
                due.add("WANT")
            s = _end(s, e, due=frozenset(due))
        return s

    # -- what must hold --------------------------------------------------------------------------------------------

    def bad(self, s: Net) -> str | None:
        if s.twice:
            return "a select completed two arms"
        for e, end in enumerate(s.ends):
            if end.received - end.sent != (end.fate == TAKEN):
                return f"stream {e}: {end.sent} sent, {end.received} received"
        return None

    def bad_step(self, s: Net, t: Net) -> str | None:
        return None

    def bad_menu(self, s: Net, labels: set[str]) -> str | None:
        for task in range(len(self.scripts)):
            arms = self._arms(s, task)
            if any(kind != "r" for kind, _ in arms) or s.tasks[task][1] != PENDING:
                continue
            for _, e in arms:
                if s.ends[e].fate == HERE and f"task {task} takes from stream {e}" not in labels:
                    return "a receiver with an offer here must be able to take it without the network"
        return None

    def goal(self, s: Net) -> bool:
        """All selects were started, none is leaving, and no two of those that wait could meet."""
        for task, (finished, phase) in enumerate(s.tasks):
            if phase == LEAVING or (phase == READY and finished < len(self.scripts[task])):
                return False
        if any(end.offer in (BACK, DOUBT) or end.fate == TAKEN for end in s.ends):
            return False
        waiting = [(self.home[task], arm) for task in range(len(self.scripts)) for arm in self._arms(s, task)]
        sends = {e for node, (kind, e) in waiting if kind != "r" and self.streams[e][0] == node}
        return not any(kind == "r" and e in sends for _, (kind, e) in waiting)


def _end(s: Net, e: int, **changes: object) -> Net:
    return s._replace(ends=(*s.ends[:e], s.ends[e]._replace(**changes), *s.ends[e + 1 :]))  # type: ignore[arg-type]


def _task(s: Net, task: int, finished: int, phase: str) -> Net:
    return s._replace(tasks=(*s.tasks[:task], (finished, phase), *s.tasks[task + 1 :]))


def _path(s: Net, p: int, up: bool) -> Net:
    return s._replace(up=(*s.up[:p], up, *s.up[p + 1 :]))


# Two nodes, a stream each way; three nodes in a ring.
PAIR = ((0, 1), (1, 0))
RING = ((0, 1), (1, 2), (2, 0))


def pair(rounds: int = 1, **options: object) -> Meet:
    """Two nodes, each with a select that sends to and receives from the other, `rounds` times."""
    first: Select = (("s", 0), ("r", 1))
    second: Select = (("s", 1), ("r", 0))
    return Meet(PAIR, ((first,) * rounds, (second,) * rounds), note=f"pair x{rounds}", **options)  # type: ignore[arg-type]


def ring(rounds: int = 1, **options: object) -> Meet:
    """Three nodes, each with a select that sends to the next and receives from the one before, `rounds` times."""
    scripts = tuple(((("s", i), ("r", (i - 1) % 3)),) * rounds for i in range(3))
    return Meet(RING, scripts, note=f"ring x{rounds}", **options)  # type: ignore[arg-type]


def fork(**options: object) -> Meet:
    """One select with two send arms against two plain receivers on two nodes."""
    sender: Select = (("s", 0), ("s", 1))
    first: Select = (("r", 0),)
    second: Select = (("r", 1),)
    return Meet(((0, 1), (0, 2)), ((sender,), (first,), (second,)), note="fork", **options)  # type: ignore[arg-type]


def crowd(**options: object) -> Meet:
    """Two tasks on one node with the same select against one on the other node, which selects twice."""
    near: Select = (("s", 0), ("r", 1))
    far: Select = (("s", 1), ("r", 0))
    return Meet(PAIR, ((near,), (near,), (far, far)), home=(0, 0, 1), note="crowd", **options)  # type: ignore[arg-type]


def every_pair() -> Iterable[Meet]:
    """Every two selects of one or two arms over two streams one way and one back, with one cancel."""
    streams = ((0, 1), (0, 1), (1, 0))
    near: list[Arm] = [("s", 0), ("s", 1), ("r", 2)]
    far: list[Arm] = [("r", 0), ("r", 1), ("s", 2)]
    for i, first in enumerate(_menus(near)):
        for j, second in enumerate(_menus(far)):
            yield Meet(streams, ((first,), (second,)), cancels=1, note=f"all pairs {i}.{j}")


def every_ring() -> Iterable[Meet]:
    """Every three selects of one or two arms on three nodes with a stream from each to each."""
    streams = ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))
    menus = []
    for node in range(3):
        arms: list[Arm] = [("s", e) for e, (a, _) in enumerate(streams) if a == node]
        menus.append(_menus(arms + [("r", e) for e, (_, b) in enumerate(streams) if b == node]))
    for i, first in enumerate(menus[0]):
        for j, second in enumerate(menus[1]):
            for k, third in enumerate(menus[2]):
                yield Meet(streams, ((first,), (second,), (third,)), note=f"all rings {i}.{j}.{k}")


def _menus(arms: list[Arm]) -> list[Select]:
    pairs = [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]
    return [*((a,) for a in arms), *pairs]


def mutants() -> list[tuple[str, Meet]]:
    """Return (name of the broken rule, small model in which the checker must find trouble)."""

    def broken(rule: str) -> frozenset[str]:
        return frozenset({rule})

    return [
        ("nobody gives way", pair(broken=broken("nobody gives way"))),
        ("all give way", pair(broken=broken("all give way"))),
        ("the last node compares the wrong way", pair(broken=broken("the last node compares the wrong way"))),
        ("nobody gives way, ring", ring(broken=broken("nobody gives way"))),
        ("equal ids", pair(ids=(1, 1))),
        ("take before the answer", pair(broken=broken("take before the answer"))),
        ("offers on every arm", fork(broken=broken("offers on every arm"))),
        ("offers while a receive is ready", pair(broken=broken("offers while a receive is ready"))),
        ("unwanted offer stays", fork(cancels=1, broken=broken("unwanted offer stays"))),
        ("WANT without version", pair(2, broken=broken("WANT without version"))),
        ("WANT not repeated at resume", pair(cuts=1, broken=broken("WANT not repeated at resume"))),
    ]
