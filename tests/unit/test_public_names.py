"""Every public name says its types and, in words, its errors, its units and what becomes of it when it is cancelled.

Walked are ``netchan``, ``netchan.sync`` and every class of ours that their signatures name.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import netchan
import netchan.sync

ROOT = Path(__file__).resolve().parents[2]
FRONTS = (netchan, netchan.sync)

INNER = {
    **dict.fromkeys(
        [f"{op}.{name}" for op in ("Op", "RecvOp", "SendOp", "TimerOp") for name in ("begin", "attempt", "endpoint")],
        "how a select works its arms",
    ),
    **dict.fromkeys(
        [
            "Identity.static_key",
            "Identity.record",
            "Identity.static_candidates",
            "Identity.ticket_key",
            "Identity.reset_key",
        ],
        "what a handshake needs of an identity",
    ),
    "Membership.check_time": "asked by whoever accepts it",
}
"""Without an underscore for the sake of other modules, and not on the page of public names."""

ANY = {
    "channel": "no type given: values of any (R12)",
    "pipe": "no type given: values of any (R12)",
    "Peer.open": "no type given: values of any (R12)",
    "Peer.__anext__": "the other side opened it, and its type is known when it is there (R19)",
    "Peer.__next__": "as __anext__",
    "SessionLost.__init__": "values of whatever channel it was: an exception cannot be generic (R51)",
    "InDoubt.__init__": "as SessionLost",
    "InDoubt.value": "as SessionLost",
    "Opening.send": "between a coroutine and its loop",
    "Opening.throw": "between a coroutine and its loop",
}
"""Where ``Any`` may stand in a signature, and why."""

SILENT = {
    "Channel.async_view",
    "Channel.close",
    "Channel.split",
    "Handle.stats",
    "Identity.close",
    "Identity.generate",
    "Listener.stats",
    "Node.stats",
    "CARoot.require",
    "Opening.close",
    "Peer.stats",
    "Peer.wait_closed",
    "Permit.release",
    "Receiver.async_view",
    "Receiver.recv_op",
    "Receiver.stop",
    "Sender.close",
    "TakenOver.close",
}
"""Calls that raise nothing, or nothing but the ForkError of a child process, which their class tells."""

SPECIAL = {
    *("__init__", "__await__"),
    *("__aenter__", "__aexit__", "__aiter__", "__anext__", "__enter__", "__exit__", "__iter__", "__next__"),
}
"""What a statement calls, or somebody who makes one by hand."""

UNITS = {
    "timeout": "seconds",
    "seconds": "seconds",
    "capacity": "values",
    "max": "values",
    "min": "values",
    "reason": "bytes",
    "psk": "bytes",
    "name": "bytes",
    "buffer": "bytes",
    "wall_s": "Unix seconds",
    "life_s": "seconds",
    "data": "bytes",
    "code": r"2\*\*30",
}
"""What the words on a parameter of that name must contain."""


@dataclass(frozen=True)
class Name:
    """One public name: a function, a class, or a member of a class."""

    front: ModuleType
    owner: type | None
    called: str
    thing: Any

    @property
    def key(self) -> str:
        return f"{self.owner.__name__}.{self.called}" if self.owner else self.called

    @property
    def function(self) -> FunctionType | None:
        """What runs, or None for a class."""
        thing = self.thing
        if isinstance(thing, property):
            thing = thing.fget
        elif isinstance(thing, classmethod | staticmethod):
            thing = thing.__func__
        return thing if isinstance(thing, FunctionType) else None

    @property
    def words(self) -> str:
        """The docstring, and with it those of the calls that it refers to: "otherwise as ``send``"."""
        said = self.thing.__doc__ or ""
        if isinstance(self.thing, type):
            return said
        for other in re.findall(r"\b[Aa]s ``([\w.]+)``", said):
            said += "\n\n" + (self.refer(other).__doc__ or "")
        return said

    def refer(self, name: str) -> Any:
        """The thing that a docstring names: a member of the same class, or a public name, or one of its members."""
        if self.owner is not None and hasattr(self.owner, name):
            return getattr(self.owner, name)
        found: Any = netchan if name.startswith("netchan.") else self.front
        for part in name.removeprefix("netchan.").split("."):
            found = getattr(found, part)
        return found

    def __str__(self) -> str:
        return f"{self.front.__name__}:{self.key}"


def is_ours(thing: object) -> bool:
    return isinstance(thing, type) and thing.__module__.split(".")[0] == "netchan"


def signatures(function: FunctionType) -> list[FunctionType]:
    """What a type checker sees of it: its overloads, if it has any."""
    return typing.cast("list[FunctionType]", list(typing.get_overloads(function))) or [function]


def types_of(function: FunctionType) -> dict[str, str]:
    return {name: str(said) for name, said in function.__annotations__.items()}


def names_in(annotation: str, function: FunctionType) -> Iterator[object]:
    """What the words of an annotation stand for, as far as they are known when the program runs."""
    for node in ast.walk(ast.parse(annotation, mode="eval")):
        if isinstance(node, ast.Name):
            yield function.__globals__.get(node.id, getattr(builtins, node.id, None))


def members(front: ModuleType, kind: type) -> Iterator[Name]:
    for base in kind.__mro__:
        if is_ours(base):
            for called, thing in vars(base).items():
                if isinstance(thing, FunctionType | property | classmethod | staticmethod):
                    yield Name(front, base, called, thing)


def walk(front: ModuleType) -> Iterator[Name]:
    seen: set[object] = set()
    todo: list[tuple[str, Any]] = [(name, getattr(front, name)) for name in front.__all__]
    while todo:
        called, thing = todo.pop()
        if thing in seen:
            continue
        seen.add(thing)
        name = Name(front, None, called, thing)
        yield name
        inside = [name] if not isinstance(thing, type) else list(members(front, thing))
        for one in inside:
            if one.owner is not None:
                if (one.owner, one.called) in seen or one.key in INNER:
                    continue
                seen.add((one.owner, one.called))
                yield one
            if one.function is None or (one.called[0] == "_" and one.called not in ("__aenter__", "__enter__")):
                continue
            for signature in signatures(one.function):
                for annotation in types_of(signature).values():
                    found = names_in(annotation, signature)
                    todo += [(kind.__name__, kind) for kind in found if is_ours(kind) and isinstance(kind, type)]


EVERY = [name for front in FRONTS for name in walk(front)]
CALLS = [name for name in EVERY if name.function and name.called[0] != "_" and not isinstance(name.thing, property)]
KINDS = [name for name in EVERY if isinstance(name.thing, type)]


def each(names: list[Name]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return pytest.mark.parametrize("name", names, ids=str)


# --- types ----------------------------------------------------------------------------------------------------------


def holds_any(annotation: str, function: FunctionType) -> bool:
    """True if ``Any`` stands in it, itself or behind an alias, other than as what a coroutine and its loop exchange."""
    tree = ast.parse(annotation, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Coroutine", "Generator"):
            node.slice = typing.cast("ast.Tuple", node.slice).elts[2]
    return any(
        (isinstance(node, ast.Name) and (node.id == "Any" or alias_holds_any(function.__globals__.get(node.id))))
        or (isinstance(node, ast.Attribute) and node.attr == "Any")
        for node in ast.walk(tree)
    )


def alias_holds_any(alias: object) -> bool:
    if isinstance(alias, list | tuple):
        return any(alias_holds_any(one) for one in alias)
    return alias is Any or (not isinstance(alias, type) and alias_holds_any(typing.get_args(alias)))


def loose(name: Name) -> list[str]:
    """The parameters (and "return") whose type is Any, or which have none."""
    if name.function is None:
        return []
    found = []
    for signature in signatures(name.function):
        said = types_of(signature)
        for parameter in [*inspect.signature(signature).parameters, "return"]:
            if parameter not in said:
                found += [] if parameter in ("self", "cls") else [parameter]
            elif holds_any(said[parameter], signature):
                found.append(parameter)
    return found


TYPED = [name for name in EVERY if name.function and (name.called[0] != "_" or name.called in SPECIAL)]


@each([name for name in TYPED if name.key not in ANY])
def test_signature_when_not_listed_holds_no_any(name: Name) -> None:
    assert loose(name) == []


def test_any_when_listed_is_needed() -> None:
    assert {name.key for name in TYPED if loose(name)} == set(ANY)


def test_inner_names_are_not_on_the_page_of_public_names() -> None:
    page = (ROOT / "docs/reference/api.md").read_text()
    found = re.findall(r"autoclass:: netchan[\w.]*\.(\w+)\n   :members: ([^\n]+)", page)
    on_page = {f"{kind}.{name}" for kind, named in found for name in named.split(", ")}
    assert {"RecvOp.value", "Identity.sign"} <= on_page
    assert on_page.isdisjoint(INNER)


@pytest.mark.parametrize(
    ("front", "files"),
    [(netchan, {"channels", "failures", "opening", "selecting", "tasks"}), (netchan.sync, {"blocking"})],
    ids=["async", "blocking"],
)
def test_programs_for_type_checkers_use_every_public_name(front: ModuleType, files: set[str]) -> None:
    texts = [(ROOT / "tests/typing" / f"{file}.py").read_text() for file in files]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.id for node in nodes if isinstance(node, ast.Name)}
    wanted = {name for name in EVERY if name.front is front and name.called[0] != "_"}
    if front is netchan.sync:
        wanted = {name for name in wanted if (name.function or name.thing).__module__.startswith("netchan.sync")}
    assert len(wanted) > 50
    assert {name.key for name in wanted if name.called not in used} - {"Opening.send", "Opening.throw"} == set()


# --- words ----------------------------------------------------------------------------------------------------------


@each([name for name in EVERY if name.called[0] != "_"])
def test_public_name_has_a_docstring(name: Name) -> None:
    assert (name.thing.__doc__ or "").strip()


@each([name for name in EVERY if name.called[0] != "_"])
def test_docstring_names_things_that_exist(name: Name) -> None:
    said = name.words  # follows the references, and fails on one that leads nowhere
    words = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", said))
    assert {word for word in words if not hasattr(netchan, word) and not hasattr(builtins, word)} == set()


ERRORS = re.compile(r"Raises|\b[A-Z]\w*(?:Error|Lost|Closed|Ended|Aborted|Timeout|Block|TooLarge|StopIteration)\b")


@each([name for name in CALLS if name.key not in SILENT])
def test_call_says_what_it_raises(name: Name) -> None:
    assert ERRORS.search(name.words)


@each([name for name in KINDS if name.called in ("Channel", "Listener", "Node", "Peer", "Receiver", "Sender")])
def test_handle_of_a_session_tells_of_fork(name: Name) -> None:
    assert re.search(r"``fork``.* ForkError", name.words, re.DOTALL)


def test_silent_calls_are_there() -> None:
    assert {name.key for name in CALLS} >= SILENT


@each([name for name in EVERY if isinstance(name.thing, property)])
def test_property_that_raises_says_what(name: Name) -> None:
    assert name.function is not None
    tree = ast.parse(textwrap.dedent(inspect.getsource(name.function)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
        assert ERRORS.search(name.words)


def waits(name: Name) -> bool:
    function = name.function
    return function is not None and any(
        inspect.iscoroutinefunction(one) or types_of(one).get("return", "").startswith(("Coroutine", "Opening"))
        for one in signatures(function)
    )


@each([name for name in CALLS if waits(name) and name.front is netchan])
def test_call_that_waits_says_what_cancelling_does(name: Name) -> None:
    assert re.search(r"[Cc]ancel", name.words)


@each([name for name in CALLS if name.function and "timeout" in inspect.signature(name.function).parameters])
def test_call_with_a_timeout_says_what_it_leaves(name: Name) -> None:
    assert "TimeoutError" in name.thing.__doc__


@each(CALLS)
def test_parameter_with_a_unit_says_it(name: Name) -> None:
    assert name.function is not None
    missing = [
        parameter
        for parameter in inspect.signature(name.function).parameters
        if parameter in UNITS and not says(name.words, parameter, UNITS[parameter])
    ]
    assert missing == []


def says(words: str, parameter: str, unit: str) -> bool:
    """True if a paragraph or an entry that names the parameter says the unit too."""
    entries = re.split(r"\n\s*\n|\n(?=\s+\w+: )", words)
    return any(re.search(rf"\b{parameter}\b", entry) and re.search(unit, entry) for entry in entries)


@each([name for name in KINDS if dataclasses.is_dataclass(name.thing)])
def test_field_of_a_data_class_is_told(name: Name) -> None:
    source = inspect.getsource(name.thing)
    for field in dataclasses.fields(name.thing):
        if field.name in name.thing.__annotations__:
            told = re.search(rf"^ +{field.name}: [^\n]*\n +\"\"\"", source, re.MULTILINE)
            assert told or re.search(rf"^ +(?:\w+, )*{field.name}(?:, \w+)*: ", name.thing.__doc__, re.MULTILINE), field


@each([name for name in KINDS if issubclass(name.thing, BaseException)])
def test_attribute_of_an_exception_is_told(name: Name) -> None:
    told = "\n".join(base.__doc__ or "" for base in name.thing.__mro__ if is_ours(base))
    for attribute in vars(name.thing("message")):
        assert re.search(rf"^ +{attribute}: ", told, re.MULTILINE), attribute


def test_walk_finds_what_only_signatures_name() -> None:
    found = {str(name) for name in EVERY}
    assert {"netchan:Permit.send", "netchan.sync:Permit.send", "netchan:ListenerStats", "netchan:CARoot"} <= found
    assert {"netchan:Handle.capacity", "netchan:Opening.send", "netchan:Membership"} <= found
    assert "netchan:RecvOp.attempt" not in found
    assert len(EVERY) > 250
    assert sys.modules["netchan.sync"] is netchan.sync
