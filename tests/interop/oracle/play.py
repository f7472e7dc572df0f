"""Playing a script on netchan: one interpreter, a driver for coroutines and one for threads, and the table of R58.

The interpreter is a generator: it does what cannot wait by itself and yields what can, as (word, arguments), for the
driver to perform with the method of that name of a ``Front``. So a new front (another event loop, another carrier) is
one small class (fronts.py), and a script means the same everywhere.

A script is over when every task is done or waits for ever; then its channels are aborted, which ends those that wait.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

from netchan.errors import ChannelClosed, ChannelEnded, WouldBlock
from tests.interop.oracle.script import Env, Ins, Outcomes, Proc, Script, Trace, arrange

PATIENCE = 20.0
"""Seconds after which a script that is not over is a failure."""
MAX_TASK_STEPS = 100_000
MAX_PAUSES = 2

PANIC_SEND = "panic: send on closed channel"
PANIC_CLOSE = "panic: close of closed channel"
NO_LIVE_ARM = "select without a live arm"

SECOND_CLOSE, CLOSED_RAISES, NO_ARM_RAISES = "second close", "ChannelClosed", "ValueError"
"""The differences to Go that R58 names, as far as a trace can show them."""


def translate(trace: Trace) -> Trace:
    """What netchan shows where Go shows ``trace``: the rules of R58 and no other.

    A second close is no error; ChannelClosed is raised instead of a panic; a select without a live arm raises, where Go
    waits for ever.
    """
    events = [line for line in trace if not line.startswith("blocked: ")]
    blocked = [line for line in trace if line.startswith("blocked: ")]
    return (
        *(line.replace(PANIC_SEND, CLOSED_RAISES) for line in events if not line.endswith(": " + PANIC_CLOSE)),
        *sorted(line.replace("blocked: ", f"{NO_ARM_RAISES}: ") if NO_LIVE_ARM in line else line for line in blocked),
    )


def allowed(script: Script, outcomes: Outcomes) -> set[Trace]:
    """Every trace that netchan may show of the script."""
    return {translate(trace) for trace in outcomes.traces + (outcomes.loose if script.handoff else [])}


@dataclass(eq=False)
class Chan:
    """A channel of a script: where sends go, where receives come from, and what ends it all."""

    tx: Any
    rx: Any
    closed: bool = False

    def abort(self) -> None:
        self.tx.abort()
        self.rx.abort()


@dataclass(eq=False)
class Task:
    """One running task.

    Attributes:
        waits: it is inside an operation that can wait, with this word; "" while it runs.
        joins: the tasks that it joins or has joined last.
        timed: what it waits for includes a timer.
        live: the select it is in has an arm that can win.
        over: an event of the front, set when it is done.
        handle: what the front keeps of it.
    """

    name: str
    proc: Proc
    env: Env
    over: Any
    pc: int = 0
    waits: str = ""
    joins: list[Task] = field(default_factory=list)
    timed: bool = False
    live: bool = True
    done: bool = False
    handle: Any = None

    @property
    def at(self) -> Ins:
        return self.proc.code[self.pc]

    def blocked_line(self) -> str:
        what = self.at.op
        if what == "select" and not self.live:
            what = NO_LIVE_ARM
        elif what in ("send", "recv", "join"):
            what += " " + self.at.args[0]
        return f"blocked: {self.name} {what}"


class Front(Protocol):
    """What a front gives the player; the marked methods are coroutines where the front has a loop.

    Attributes:
        tick: seconds of one unit of ``sleep`` and ``after``: far more than a script computes.
    """

    tick: float

    def make(self, capacity: int) -> Chan:
        """A new channel."""

    def event(self) -> Any:
        """Something with ``set()``, for ``join``."""

    def spawn(self, run: Run, task: Task) -> None:
        """Start the task's driver."""

    def after(self, seconds: float) -> Any:
        """A timer arm."""

    def send(self, chan: Chan, value: Any) -> Any:
        """(waits) Send."""

    def recv(self, chan: Chan) -> Any:
        """(waits) Receive; raises ChannelEnded."""

    def next(self, chan: Chan, default: Any) -> Any:
        """(waits) Receive as iteration does; ``default`` at the end."""

    def select(self, *arms: Any, **default: Any) -> Any:
        """(waits) As ``netchan.select``."""

    def join(self, *tasks: Task) -> Any:
        """(waits) Until all are done."""

    def sleep(self, seconds: float) -> Any:
        """(waits) That long."""

    def settle(self, run: Run, me: Task | None) -> Any:
        """(waits) Until every task but ``me`` is done or waits, and stays so."""

    def pause(self) -> Any:
        """(waits) Let others run."""

    def play(self, script: Script, seed: int | None = None) -> Result:
        """Play it to its end; ``seed`` makes tasks pause at random, None not at all."""


@dataclass
class Result:
    """What a run showed, and which differences of R58 it met."""

    trace: Trace
    differences: Counter[str]


@dataclass(eq=False)
class Run:
    """One run of one script."""

    script: Script
    front: Front
    rng: random.Random | None
    tasks: dict[str, Task] = field(default_factory=dict)
    chans: list[Chan] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    differences: Counter[str] = field(default_factory=Counter)
    moves: int = 0
    failure: BaseException | None = None
    over: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE)

    def start(self, name: str, kind: str, env: Env) -> None:
        if name in self.tasks:
            raise AssertionError(f"a second task {name}")
        task = self.tasks[name] = Task(name, self.script.tasks[kind], env, self.front.event())
        self.front.spawn(self, task)

    def finish(self, task: Task, failure: BaseException | None) -> None:
        """The task's driver ends, with what nothing foresaw or None."""
        if failure is not None and not self.over and self.failure is None:
            self.failure = failure
        task.done = True
        self.moves += 1
        task.over.set()

    def waiting(self, me: Task | None) -> bool:
        """True if every task but ``me`` is done or inside an operation that can wait."""
        return all(task.done or task is me or task.waits not in ("", "settle", "pause") for task in self.open())

    def open(self) -> list[Task]:
        return [task for task in list(self.tasks.values()) if not task.done]

    @property
    def ending(self) -> bool:
        """True when nothing more is to be waited for."""
        return self.over or self.failure is not None

    def stuck(self) -> bool:
        """True if nobody will go on by itself; meaningful right after ``settle``."""
        return self.failure is not None or (self.waiting(None) and not any(task.timed for task in self.open()))

    def result(self) -> Result:
        """The trace; raises what nothing foresaw."""
        if self.failure is not None:
            raise self.failure
        blocked = [task.blocked_line() for task in self.open()]
        trace = arrange(self.events, blocked + self.raised, self.script.by_task)
        return Result(trace, self.differences)

    def end(self) -> None:
        """End what still waits: its tasks leave by themselves."""
        self.over = True
        for task in self.open():
            task.over.set()
        for chan in self.chans:
            chan.abort()

    def emit(self, task: Task, text: str) -> None:
        self.events.append((task.name, text))


Steps = Generator[tuple[str, tuple[Any, ...], dict[str, Any]], Any, None]


def interpret(run: Run, task: Task) -> Steps:
    """The code of one task."""
    env, front = task.env, run.front
    for _ in range(MAX_TASK_STEPS):
        if run.over:
            return
        one = task.at
        args, next_pc = one.args, task.pc + 1
        if run.rng is not None:
            for _ in range(run.rng.randint(0, MAX_PAUSES)):
                yield "pause", (), {}
        match one.op:
            case "return":
                return
            case "jump":
                next_pc = one.to
            case "unless":
                next_pc = next_pc if env[args[0]] else one.to
            case "let":
                env[args[0]] = env.eval(args[1:])
            case "make":
                chan = env[args[0]] = front.make(env.atom(args[1]))
                run.chans.append(chan)
            case "spawn":
                name, kind, *given = args
                fresh = Env(zip(run.script.tasks[kind].params, map(env.atom, given), strict=True))
                run.start(env.fill(name), kind, fresh)
            case "join":
                task.joins = [run.tasks[env.fill(name)] for name in args]
                yield "join", tuple(task.joins), {}
            case "print":
                run.emit(task, env.fill(args[0]))
            case "settle":
                yield "settle", (run, task), {}
            case "sleep":
                yield "sleep", (env.atom(args[0]) * front.tick,), {}
            case "len":
                env[args[1]] = env.atom(args[0]).rx.pending
            case "cap":
                env[args[1]] = env.atom(args[0]).tx.capacity
            case "close":
                _close(run, env.atom(args[0]))
            case "send":
                try:
                    yield "send", (env.atom(args[0]), env.eval(args[1:])), {}
                except ChannelClosed:
                    _closed(run, task)
            case "recv" if len(args) < 3:  # Go's zero value: netchan raises, a script sees nil
                try:
                    env.set(args, 1, (yield "recv", (env.atom(args[0]),), {}))
                except ChannelEnded:
                    env.set(args, 1, None)
            case "recv":
                value = yield "next", (env.atom(args[0]), _END), {}
                env.set(args, 1, None if value is _END else value)
                env.set(args, 2, int(value is not _END))
            case "trysend":
                env[args[2]] = _try_send(run, task, env.atom(args[0]), env.atom(args[1]))
            case "tryrecv":
                env[args[1]], env[args[2]] = _try_recv(env.atom(args[0]))
            case "select":
                next_pc = yield from _select(run, task, one)
                if next_pc < 0:
                    return
        task.pc = next_pc
    raise AssertionError(f"{run.script.name}: {task.name} does not end")


_END = object()


def _closed(run: Run, task: Task) -> None:
    run.differences[CLOSED_RAISES] += 1
    run.emit(task, CLOSED_RAISES)


def _close(run: Run, chan: Chan) -> None:
    if chan.closed:
        run.differences[SECOND_CLOSE] += 1
    chan.closed = True
    chan.tx.close()


def _try_send(run: Run, task: Task, chan: Chan, value: Any) -> str:
    try:
        chan.tx.send_nowait(value)
    except WouldBlock:
        return "full"
    except ChannelClosed:
        _closed(run, task)
        return "panic"
    return "sent"


def _try_recv(chan: Chan) -> tuple[Any, str]:
    try:
        return chan.rx.recv_nowait(), "value"
    except WouldBlock:
        return None, "none"
    except ChannelEnded:
        return None, "closed"


def _select(run: Run, task: Task, one: Ins) -> Generator[tuple[str, tuple[Any, ...], dict[str, Any]], Any, int]:
    """Play one select (R33-R38); returns where to go on, or -1 if the task ends here."""
    env, front = task.env, run.front
    ops: list[Any] = []
    default: dict[str, Any] = {}
    for arm in one.arms:
        if arm.kind == "default":
            default = {"default": arm}
            ops.append(None)
        elif arm.kind == "after":
            ops.append(front.after(env.atom(arm.args[0]) * front.tick))
            task.timed = True
        elif (chan := env.atom(arm.args[0])) is None:
            ops.append(None)
        elif arm.kind == "recv":
            ops.append(chan.rx.recv_op())
        else:
            ops.append(chan.tx.send_op(env.eval(arm.args[1:])))
    task.live = any(op is not None for op in ops)
    try:
        hit = yield "select", tuple(ops), default
    except ChannelClosed:
        _closed(run, task)
        return one.to
    except ValueError:
        if task.live or default:
            raise
        run.differences[NO_ARM_RAISES] += 1
        run.raised.append(f"{NO_ARM_RAISES}: {task.name} {NO_LIVE_ARM}")
        return -1
    finally:
        task.timed = False
    if default and hit is default["default"]:
        return int(hit.to)
    op, arm = next((op, arm) for op, arm in zip(ops, one.arms, strict=True) if op is hit)
    if arm.kind == "recv":
        env.set(arm.args, 1, None if op.closed else op.value)
        env.set(arm.args, 2, int(not op.closed))
    return arm.to
