"""The script language: text in, flat instructions out; and the traces that Go made of them.

README.md tells the words; go/script.go is the twin of this file. Nothing here knows netchan.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "scripts"
TRACES = HERE / "traces"

MAX_FILE_BYTES = 1 << 20
MAX_LINE_BYTES = 200
MAX_BLOCK_DEPTH = 16

ARITY = {
    "make": (2, 2), "send": (2, 4), "trysend": (3, 3), "recv": (1, 3), "tryrecv": (3, 3), "close": (1, 1),
    "range": (2, 2), "loop": (0, 0), "for": (3, 3), "if": (1, 3), "else": (0, 0), "end": (0, 0), "break": (0, 0),
    "return": (0, 0), "select": (0, 0), "case": (1, 5), "spawn": (1, 9), "join": (1, 9), "let": (2, 4),
    "settle": (0, 0), "sleep": (1, 1), "len": (2, 2), "cap": (2, 2), "print": (0, 40),
}  # fmt: skip
"""Least and most number of words behind each word of the language."""
ARM_ARITY = {"recv": (1, 3), "send": (2, 4), "after": (1, 1), "default": (0, 0)}


class ScriptError(Exception):
    """A line that is not of the language."""


@dataclass
class Arm:
    """One case of a select: kind is recv, send, after or default; ``to`` is where its body begins."""

    kind: str
    args: list[str]
    to: int


@dataclass
class Ins:
    """One instruction; ``to`` is where a jump goes, and where a select ends."""

    op: str
    args: list[str] = field(default_factory=list)
    to: int = 0
    arms: list[Arm] = field(default_factory=list)


@dataclass
class Proc:
    """The code of one kind of task."""

    name: str
    params: list[str]
    code: list[Ins] = field(default_factory=list)


@dataclass
class Script:
    """One script: its tasks by name, and its headers.

    Attributes:
        by_task: only the order inside each task is compared.
        needs: what not every carrier has: "one process" (across a session a receiver has no close) or "channels in
            values"; "" = nothing.
        handoff: netchan is allowed the traces without ``settle`` as well (scripts/handoff.txt says why).
    """

    name: str
    about: str = ""
    by_task: bool = False
    handoff: bool = False
    needs: str = ""
    tasks: dict[str, Proc] = field(default_factory=dict)

    @property
    def words(self) -> set[str]:
        """Every instruction that occurs, and every kind of arm as "case kind"."""
        code = [one for task in self.tasks.values() for one in task.code]
        return {one.op for one in code} | {f"case {arm.kind}" for one in code for arm in one.arms}

    @property
    def looks(self) -> bool:
        """True of a script that looks at what is here now: that needs a channel in process, where a sent value is."""
        return not self.words.isdisjoint(("len", "trysend", "tryrecv", "case default"))

    @property
    def selects(self) -> bool:
        """True of a script that needs ``netchan.select``."""
        return "select" in self.words


@dataclass
class _Block:
    word: str
    head: int
    exits: list[int] = field(default_factory=list)
    otherwise: int = -1


class _Reader:
    def __init__(self) -> None:
        self.done: list[Script] = []
        self.script: Script | None = None
        self.task: Proc | None = None
        self.blocks: list[_Block] = []
        self.hidden = 0

    def feed(self, line: str) -> None:
        if len(line.encode()) > MAX_LINE_BYTES:
            raise ScriptError(f"more than {MAX_LINE_BYTES} bytes in a line")
        line = line.strip()
        if not line or line.startswith("#"):
            return
        if line.startswith("== "):
            self.end_script()
            name = line[3:]
            if any(other.name == name for other in self.done):
                raise ScriptError(f"a second script {name!r}")
            self.script = Script(name)
            return
        if self.script is None:
            raise ScriptError("a line before the first ==")
        words = line.split()
        if self.task is None and words[0].endswith(":"):
            self._header(self.script, line)
        elif words[0] == "task":
            self.end_task()
            if len(words) < 2 or words[1] in self.script.tasks:
                raise ScriptError("a task needs a name of its own")
            self.task = self.script.tasks[words[1]] = Proc(words[1], words[2:])
        elif self.task is None:
            raise ScriptError(f"{words[0]!r} outside a task")
        else:
            self._statement(self.task.code, words[0], words[1:])

    @staticmethod
    def _header(script: Script, line: str) -> None:
        word, _, text = line.partition(":")
        match word, text.strip():
            case "about", about:
                script.about = about
            case "order", "tasks":
                script.by_task = True
            case "differs", "handoff":
                script.handoff = True
            case "needs", ("one process" | "channels in values") as need:
                script.needs = need
            case _:
                raise ScriptError(f"unknown header {line!r}")

    def end_task(self) -> None:
        if self.blocks:
            raise ScriptError(f"{self.blocks[-1].word} without end")
        if self.task is not None:
            self.task.code.append(Ins("return"))
        self.task = None

    def end_script(self) -> None:
        self.end_task()
        if self.script is None:
            return
        tasks = self.script.tasks
        if "main" not in tasks or tasks["main"].params:
            raise ScriptError(f"script {self.script.name!r} has no task main without parameters")
        for spawn in (one for task in tasks.values() for one in task.code if one.op == "spawn"):
            _, kind, *given = spawn.args
            if kind not in tasks or len(tasks[kind].params) != len(given):
                raise ScriptError(f"script {self.script.name!r}: spawn of {kind!r} does not fit")
        self.done.append(self.script)
        self.script = None

    def _open(self, block: _Block) -> None:
        if len(self.blocks) == MAX_BLOCK_DEPTH:
            raise ScriptError(f"more than {MAX_BLOCK_DEPTH} blocks in each other")
        self.blocks.append(block)

    def _hide(self, word: str) -> str:
        """A variable that no script can name."""
        self.hidden += 1
        return f"${word}{self.hidden}"

    def _statement(self, code: list[Ins], word: str, args: list[str]) -> None:
        least, most = ARITY.get(word, (1, 0))
        if not least <= len(args) <= most:
            raise ScriptError(f"unknown word or wrong number of words: {' '.join([word, *args])!r}")
        top = self.blocks[-1] if self.blocks else None
        if top and top.word == "select" and not code[top.head].arms and word not in ("case", "end"):
            raise ScriptError(f"{word!r} between select and its first case")

        def emit(op: str, *words: str, to: int = 0) -> int:
            code.append(Ins(op, list(words), to))
            return len(code) - 1

        match word:
            case "loop":
                self._open(_Block(word, len(code)))
            case "range":
                ok = self._hide("ok")
                head = emit("recv", args[0], args[1], ok)
                self._open(_Block(word, head, [emit("unless", ok)]))
            case "for":  # the end is computed once
                last, over = self._hide("last"), self._hide("over")
                emit("let", last, args[2])
                emit("let", args[0], args[1], "-", "1")
                head = emit("let", args[0], args[0], "+", "1")
                emit("let", over, args[0], "<=", last)
                self._open(_Block(word, head, [emit("unless", over)]))
            case "if":
                holds = self._hide("if")
                emit("let", holds, *args)
                self._open(_Block(word, 0, otherwise=emit("unless", holds)))
            case "else":
                if top is None or top.word != "if" or top.otherwise < 0:
                    raise ScriptError("else without if")
                top.exits.append(emit("jump"))
                code[top.otherwise].to = len(code)
                top.otherwise = -1
            case "select":
                self._open(_Block(word, emit("select")))
            case "case":
                least, most = ARM_ARITY.get(args[0], (1, 0))
                if top is None or top.word != "select" or not least <= len(args) - 1 <= most:
                    raise ScriptError(f"case without select, or no such arm: {' '.join(args)!r}")
                arms = code[top.head].arms
                if arms:
                    top.exits.append(emit("jump"))
                arms.append(Arm(args[0], args[1:], len(code)))
            case "break":
                inner = next((one for one in reversed(self.blocks) if one.word in ("loop", "range", "for")), None)
                if inner is None:
                    raise ScriptError("break outside a loop")
                inner.exits.append(emit("jump"))
            case "end":
                if top is None:
                    raise ScriptError("end without a block")
                if top.word in ("loop", "range", "for"):
                    emit("jump", to=top.head)
                if top.otherwise >= 0:
                    code[top.otherwise].to = len(code)
                if top.word == "select":
                    code[top.head].to = len(code)
                for exit in top.exits:
                    code[exit].to = len(code)
                self.blocks.pop()
            case "spawn":  # "spawn worker c" is short for "spawn worker = worker c"
                if len(args) < 3 or args[1] != "=":
                    args = [args[0], "=", *args]
                emit("spawn", args[0], *args[2:])
            case "print":
                emit("print", " ".join(args))
            case _:
                emit(word, *args)


def parse_scripts(text: str, name: str = "script") -> list[Script]:
    """Compile every script of one text, in order.

    Raises:
        ScriptError: with the place, ``name:line``.
    """
    if len(text.encode()) > MAX_FILE_BYTES:
        raise ScriptError(f"{name}: more than {MAX_FILE_BYTES} bytes")
    reader = _Reader()
    number = 0
    try:
        for number, line in enumerate(text.split("\n"), 1):  # noqa: B007 - the message needs it
            reader.feed(line)
        reader.end_script()
    except ScriptError as error:
        raise ScriptError(f"{name}:{number}: {error}") from None
    return reader.done


def read_scripts(folder: Path = SCRIPTS) -> list[Script]:
    """Every script of the folder, by file name and then in the order of the file."""
    return [one for path in sorted(folder.glob("*.txt")) for one in parse_scripts(path.read_text(), path.name)]


# --- values ----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"\$([A-Za-z0-9_]+)")


class Env(dict[str, Any]):
    """The variables of one task. A value is None ("nil"), an int, a str or a channel."""

    def atom(self, word: str) -> Any:
        if word.lstrip("+-").isdecimal():
            return int(word)
        if word == "nil":
            return None
        if len(word) >= 2 and word[0] == '"':
            return word.strip('"')
        if word not in self:
            raise ScriptError(f"no variable {word!r}")
        return self[word]

    def eval(self, words: list[str]) -> Any:
        """Compute "atom" or "atom operator atom"; a comparison gives 1 or 0."""
        left = self.atom(words[0])
        if len(words) == 1:
            return left
        right = self.atom(words[2])
        match words[1]:
            case "==":
                return int(left == right)
            case "!=":
                return int(left != right)
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "%":
                return left % right
            case "<":
                return int(left < right)
            case "<=":
                return int(left <= right)
        raise ScriptError(f"no operator {words[1]!r}")

    def fill(self, text: str) -> str:
        """Replace $name by the value of the variable."""
        return _NAME.sub(lambda found: show(self.atom(found[1])), text)

    def set(self, args: list[str], at: int, value: Any) -> None:
        """Keep a received value; "_" and a missing name keep nothing."""
        if at < len(args) and args[at] != "_":
            self[args[at]] = value


def show(value: Any) -> str:
    if value is None:
        return "nil"
    return str(value) if isinstance(value, int | str) else "channel"


# --- traces ----------------------------------------------------------------------------------------------------------

Trace = tuple[str, ...]
"""The lines of one outcome: "task: text" for each event, "blocked: task what" for each task that waits for ever."""


@dataclass
class Outcomes:
    """What Go can show of a script.

    Attributes:
        traces: all possible ones; one = the outcome is fixed.
        loose: more that are possible if ``settle`` says nothing; only of scripts that differ in the hand-off.
    """

    traces: list[Trace] = field(default_factory=list)
    loose: list[Trace] = field(default_factory=list)


def parse_traces(text: str) -> Iterator[tuple[str, Outcomes]]:
    """The scripts and their outcomes of one trace file.

    Raises:
        ScriptError: a line that Go's side does not write.
    """
    name: str | None = None
    outcomes = Outcomes()
    lines: list[str] | None = None
    into = outcomes.traces

    def close() -> None:
        nonlocal lines
        if lines is not None:
            into.append(tuple(lines))
        lines = None

    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        if line.startswith("== "):
            close()
            if name is not None:
                yield name, outcomes
            name, outcomes = line[3:], Outcomes()
        elif line.startswith("-- trace "):
            close()
            into, lines = outcomes.traces, []
        elif line.startswith("-- without settle "):
            close()
            into, lines = outcomes.loose, []
        elif lines is None or ": " not in line:
            raise ScriptError(f"not a line of a trace: {line!r}")
        else:
            lines.append(line)
    close()
    if name is not None:
        yield name, outcomes


def read_traces(folder: Path = TRACES) -> dict[str, Outcomes]:
    """All outcomes by script name."""
    return {name: one for path in sorted(folder.glob("*.txt")) for name, one in parse_traces(path.read_text())}


def digest(script_file: Path) -> str:
    """What the head of the trace file must name: the SHA-256 of the script file and the Go program's files by name."""
    own = sorted([*(HERE / "go").glob("*.go"), HERE / "go" / "go.mod"], key=lambda path: path.name)
    return hashlib.sha256(b"".join(path.read_bytes() for path in (script_file, *own))).hexdigest()


def arrange(events: list[tuple[str, str]], blocked: list[str], by_task: bool) -> Trace:
    """Give events (task, text) and blocked lines their final order: as they came, or task by task."""
    if by_task:
        events = sorted(events, key=lambda event: event[0])
    return (*(f"{task}: {text}" for task, text in events), *sorted(blocked))
