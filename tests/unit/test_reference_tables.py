"""The generated tables of the reference pages are those of the code (docs/reference/make_tables.py)."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import netchan
from netchan import errors
from netchan.channel.base import STATES, VERBS

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tables", REFERENCE / "make_tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["errors.md", "config.md", "../spec/channel-end.md"])
def test_page_made_anew_is_the_same(tables: ModuleType, page: str) -> None:
    text = (REFERENCE / page).read_text()
    assert tables.fill(text) == text, "run: python docs/reference/make_tables.py"


def test_pages_together_use_every_table(tables: ModuleType) -> None:
    text = "".join((REFERENCE / page).read_text() for page in tables.PAGES)
    assert all(text.count(f"<!-- table: {name} -->") == 1 for name in tables.TABLES)


def test_states_table_has_a_row_for_each_state_and_a_cell_for_each_verb(tables: ModuleType) -> None:
    head, _, *rows = [line.strip("| ").split(" | ") for line in tables.TABLES["states"]().splitlines()]
    assert tuple(head[1:]) == VERBS
    assert {row[0]: tuple(row[1:]) for row in rows} == STATES


def test_errors_table_names_every_exception_once(tables: ModuleType) -> None:
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, errors.NetchanError)]
    rows = tables.errors_table()
    assert len(kinds) >= 17
    assert all(rows.count(f"\n| `{kind.__name__}` |") == 1 for kind in kinds)


def test_codes_table_names_every_code_with_its_number(tables: ModuleType) -> None:
    rows = tables.codes_table().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| `{code.name}`" for code in errors.Code]
    assert [int(row.split("+ ")[1].split(" ")[0]) for row in rows] == [code - 2**30 for code in errors.Code]


@pytest.mark.parametrize("owner", [netchan.Config, netchan.Limits])
def test_settings_table_says_something_of_every_field(tables: ModuleType, owner: type) -> None:
    rows = tables.settings_table(owner).splitlines()[2:]
    names = [field.name for field in dataclasses.fields(owner)]
    assert [row.split("`")[1] for row in rows] == names
    assert all(len(row.split(" | ")[2]) > 20 for row in rows)


def test_api_page_names_every_public_name() -> None:
    pages = "".join((REFERENCE / page).read_text() for page in ("api.md", "errors.md", "config.md"))
    missing = [name for name in netchan.__all__ if f"netchan.{name}" not in pages and f"`{name}`" not in pages]
    assert missing == []
