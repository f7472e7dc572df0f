"""Exhaustive explicit-state checker: invariants, dead ends, unreachable goals and fair cycles, with a trace for each.

Layer: specification only; the library never imports it. Pure Python, one thread, memory about 1 KiB a state.
See docs/spec/model.md for what each verdict means.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
#: (label for the trace, weak-fairness class or None for what nobody promises to do, next state)
Step = tuple[str, str | None, S]


class Model(Protocol[S]):
    """What the checker needs of a model; states are hashable and never changed in place."""

    name: str
    params: str

    def initial(self) -> S:
        """Return the only initial state."""

    def steps(self, s: S) -> Iterable[Step[S]]:
        """Yield every step that is possible in `s`."""

    def bad(self, s: S) -> str | None:
        """Return what is wrong in `s`, or None."""

    def bad_step(self, s: S, t: S) -> str | None:
        """Return what is wrong in the change from `s` to `t`, or None."""

    def bad_menu(self, s: S, labels: set[str]) -> str | None:
        """Return what `s` must allow but does not, given the labels of all steps of `s`."""

    def goal(self, s: S) -> bool:
        """Say whether nothing more is owed in `s`."""


@dataclass
class Result:
    """Verdict of one run: `problem` is None when every property holds."""

    name: str
    params: str
    states: int = 0
    edges: int = 0
    goals: int = 0
    seconds: float = 0.0  # of this process on the CPU
    problem: str | None = None
    trace: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the verdict and, if it is bad, the shortest way there, one step a line."""
        if self.problem is None:
            return "all properties hold"
        return "\n".join([self.problem, *(f"  {i:3d}. {label}" for i, label in enumerate(self.trace, 1))])


class LimitReached(Exception):
    """The state space is larger than the limit given, so nothing was proven."""


class _Graph(Generic[S]):
    """All reachable states with their edges in flat arrays."""

    def __init__(self, model: Model[S], limit: int) -> None:
        self.model = model
        self.limit = limit
        self.states: list[S] = []
        self.parent = array("q")
        self.first = array("q")
        self.target = array("q")
        self.fair = array("h")
        self.classes: dict[str, int] = {}
        self.is_goal = bytearray()
        self.problem: tuple[str, int, str | None] | None = None

    def explore(self) -> None:
        """Breadth first, so the first trouble found has the shortest trace. Raises LimitReached."""
        model = self.model
        start = model.initial()
        index: dict[S, int] = {start: 0}
        self.states.append(start)
        self.parent.append(-1)
        todo = deque([0])
        classes = self.classes
        while todo:
            here = todo.popleft()
            s = self.states[here]
            self.first.append(len(self.target))
            wrong = model.bad(s)
            if wrong:
                self.problem = (wrong, here, None)
                return
            self.is_goal.append(model.goal(s))
            labels: set[str] = set()
            moved = False
            for label, cls, t in model.steps(s):
                labels.add(label)
                if t == s:
                    continue
                moved = True
                wrong = model.bad_step(s, t)
                if wrong:
                    self.problem = (wrong, here, label)
                    return
                there = index.get(t)
                if there is None:
                    there = len(self.states)
                    if there >= self.limit:
                        raise LimitReached(f"{model.name} {model.params}: more than {self.limit} states")
                    index[t] = there
                    self.states.append(t)
                    self.parent.append(here)
                    todo.append(there)
                self.target.append(there)
                self.fair.append(-1 if cls is None else classes.setdefault(cls, len(classes)))
            wrong = model.bad_menu(s, labels)
            if wrong:
                self.problem = (wrong, here, None)
                return
            if not moved and not self.is_goal[here]:
                self.problem = ("deadlock: nothing can happen and something is still owed", here, None)
                return
        self.first.append(len(self.target))

    def out(self, here: int) -> range:
        return range(self.first[here], self.first[here + 1])

    def trace(self, here: int, last: str | None = None) -> list[str]:
        way: list[str] = [] if last is None else [last]
        while self.parent[here] >= 0:
            before = self.parent[here]
            s, t = self.states[before], self.states[here]
            way.append(next(label for label, _, u in self.model.steps(s) if u == t))
            here = before
        return way[::-1]

    def unreachable_goal(self) -> int | None:
        """Return a state from which promised steps alone never reach a goal (backward search from the goals)."""
        count = len(self.states)
        head = array("q", [-1]) * count
        link = array("q", [-1]) * len(self.target)
        origin = array("q", [0]) * len(self.target)
        for here in range(count):
            for edge in self.out(here):
                if self.fair[edge] >= 0:
                    there = self.target[edge]
                    origin[edge] = here
                    link[edge] = head[there]
                    head[there] = edge
        seen = bytearray(self.is_goal)
        todo = [i for i in range(count) if seen[i]]
        while todo:
            edge = head[todo.pop()]
            while edge >= 0:
                if not seen[origin[edge]]:
                    seen[origin[edge]] = 1
                    todo.append(origin[edge])
                edge = link[edge]
        lost = seen.find(0)
        return None if lost < 0 else lost

    def fair_cycle(self) -> list[int] | None:
        """Return a set of non-goal states in which a weakly fair run can stay for ever (Tarjan, iterative)."""
        count = len(self.states)
        number = array("q", [0]) * count
        low = array("q", [0]) * count
        on_stack = bytearray(count)
        stack: list[int] = []
        clock = 0
        for root in range(count):
            if number[root] or self.is_goal[root]:
                continue
            clock += 1
            number[root] = low[root] = clock
            stack.append(root)
            on_stack[root] = 1
            work = [(root, self.first[root])]
            while work:
                here, edge = work.pop()
                end = self.first[here + 1]
                while edge < end:
                    there = self.target[edge]
                    edge += 1
                    if self.is_goal[there]:
                        continue
                    if not number[there]:
                        work.append((here, edge))
                        clock += 1
                        number[there] = low[there] = clock
                        stack.append(there)
                        on_stack[there] = 1
                        work.append((there, self.first[there]))
                        break
                    if on_stack[there]:
                        low[here] = min(low[here], number[there])
                else:
                    if low[here] == number[here]:
                        part: list[int] = []
                        while True:
                            node = stack.pop()
                            on_stack[node] = 0
                            part.append(node)
                            if node == here:
                                break
                        if len(part) > 1 and self._is_fair(part):
                            return part
                    if work:
                        above = work[-1][0]
                        low[above] = min(low[above], low[here])
        return None

    def _is_fair(self, part: list[int]) -> bool:
        """A run may stay in `part` if each class is taken inside it or impossible somewhere in it."""
        inside = set(part)
        taken: set[int] = set()
        always: set[int] | None = None
        for here in part:
            possible: set[int] = set()
            for edge in self.out(here):
                cls = self.fair[edge]
                if cls >= 0:
                    possible.add(cls)
                    if self.target[edge] in inside:
                        taken.add(cls)
            always = possible if always is None else always & possible
        return not (always or set()) - taken

    def walk(self, part: list[int]) -> list[str]:
        """Return the labels of one cycle inside `part`, starting at its first-found state."""
        inside = set(part)
        start = min(part)
        back: dict[int, tuple[int, str]] = {}
        todo = deque([start])
        while todo:
            here = todo.popleft()
            s = self.states[here]
            for edge, (label, _, _t) in zip(
                self.out(here), (x for x in self.model.steps(s) if x[2] != s), strict=True
            ):
                there = self.target[edge]
                if there == start:
                    way = [label]
                    while here != start:
                        here, label = back[here]
                        way.append(label)
                    return way[::-1]
                if there in inside and there not in back:
                    back[there] = (here, label)
                    todo.append(there)
        return []


def check(model: Model[S], limit: int = 3_000_000) -> Result:
    """Explore everything that `model` can do and return the verdict.

    Raises:
        LimitReached: the model has more than `limit` states.
    """
    began = time.process_time()
    graph = _Graph(model, limit)
    graph.explore()
    result = Result(model.name, model.params, len(graph.states), len(graph.target), sum(graph.is_goal))
    if graph.problem is not None:
        result.problem, here, last = graph.problem
        result.trace = graph.trace(here, last)
    else:
        lost = graph.unreachable_goal()
        part = graph.fair_cycle() if lost is None else None
        if lost is not None:
            result.problem = "dead end: no promised step leads to a state in which nothing is owed"
            result.trace = graph.trace(lost)
        elif part is not None:
            result.problem = f"endless: a fair run can stay in {len(part)} states without progress"
            result.trace = [*graph.trace(min(part)), "-- and then for ever --", *graph.walk(part)]
    result.seconds = time.process_time() - began
    return result
