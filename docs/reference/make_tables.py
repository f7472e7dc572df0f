"""Writes the tables that stand in a page and in the code: the errors and the settings, from their docstrings, and the
states of a channel end, from the data that the tests run.

python docs/reference/make_tables.py

A table stands between ``<!-- table: NAME -->`` and ``<!-- /table -->``; everything else in a page is written by hand.
tests/unit/test_reference_tables.py fails when a page is older than the code.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from netchan import config, errors
from netchan.channel.base import states_markdown

HERE = Path(__file__).parent
PAGES = ("errors.md", "config.md", "../spec/channel-end.md")
MIB, KIB = 1 << 20, 1 << 10


def one_line(text: str | None) -> str:
    """A docstring as one table cell."""
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def first_paragraph(thing: object) -> str:
    """The first paragraph of a docstring as one cell."""
    return one_line((inspect.getdoc(thing) or "").split("\n\n")[0])


def field_notes(owner: type) -> dict[str, str]:
    """The docstring behind each assignment of a class body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    body = tree.body[0]
    assert isinstance(body, ast.ClassDef)
    notes = {}
    for item, following in zip(body.body, body.body[1:], strict=False):
        if not isinstance(item, ast.AnnAssign | ast.Assign) or not isinstance(following, ast.Expr):
            continue
        target = item.target if isinstance(item, ast.AnnAssign) else item.targets[0]
        said = following.value
        if isinstance(target, ast.Name) and isinstance(said, ast.Constant) and isinstance(said.value, str):
            notes[target.id] = one_line(said.value)
    return notes


def attributes(kind: type) -> str:
    """The names in the Attributes section of a docstring."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    return ", ".join(f"`.{name}`" for name in re.findall(r"^ {4}(\w+):", section, re.MULTILINE))


def errors_table() -> str:
    """One row per exception, in order of definition."""
    rows = ["| exception | below | also a | transient | attributes | what it means |", "|---|---|---|---|---|---|"]
    for kind in vars(errors).values():
        if not (isinstance(kind, type) and issubclass(kind, errors.NetchanError)):
            continue
        parent, *also = (f"`{base.__name__}`" for base in kind.__bases__)
        cells = (
            f"`{kind.__name__}`",
            parent,
            ", ".join(also),
            "yes" if kind.transient else "no",
            attributes(kind),
            first_paragraph(kind),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def codes_table() -> str:
    """One row per code of an abort that netchan itself says."""
    notes = field_notes(errors.Code)
    rows = ["| `netchan.Code` | number | meaning |", "|---|---|---|"]
    rows += [f"| `{code.name}` | 2^30 + {code - errors.CODE_BASE} | {notes[code.name]} |" for code in errors.Code]
    return "\n".join(rows)


def shown(value: object) -> str:
    """A default as people write it."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= MIB and value % MIB == 0:
            return f"{value // MIB} MiB"
        if value >= 4 * KIB and value % KIB == 0 and value != 65_536:
            return f"{value // KIB} KiB"
    if isinstance(value, frozenset) and not value:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table(owner: type) -> str:
    """One row per field of a settings class."""
    notes = field_notes(owner)
    rows = ["| setting | default | what it is, and why |", "|---|---|---|"]
    made = owner()
    for field in dataclasses.fields(owner):
        default = "`Limits()`" if field.name == "limits" else shown(getattr(made, field.name))
        rows.append(f"| `{field.name}` | {default} | {notes[field.name]} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "errors": errors_table,
    "codes": codes_table,
    "config": lambda: settings_table(config.Config),
    "limits": lambda: settings_table(config.Limits),
    "states": lambda: states_markdown().rstrip("\n"),
}


def fill(text: str) -> str:
    """A page with its tables made anew."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)",
        lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        path = HERE / page
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(page)
