"""The names and files that the explanations lead to exist: a page is not to outlive the code that it explains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# layers.md names layers that are still to come
PAGES = [
    page for page in sorted((ROOT / "docs/explanation").glob("*.md")) if page.name not in ("index.md", "layers.md")
]
NAME = re.compile(r"`(?:[\w/]+\.(?:py|pyx|pxd):\s)?((?:\w+\.)*\w*[A-Za-z]\w*)(?:\([^`]*\))?`")
FILE = re.compile(r"`(?:netchan/)?([\w/]+\.(?:py|pyx|pxd))(?::[^`]*)?`")
SOURCES = [path for kind in ("py", "pyx", "pxd") for path in (ROOT / "netchan").rglob(f"*.{kind}")]
# words of other people's libraries
FOREIGN = {
    "asyncio",
    "run",
    "add_reader",
    "call_soon",
    "epoll_wait",
    "pthread_atfork",
    "cryptography",
    "await_spin",
    "long",
    "make",
}


def words() -> set[str]:
    return {word for path in SOURCES for word in re.findall(r"\w+", path.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_names_of_an_explanation_are_in_the_source(page: Path) -> None:
    known = words() | FOREIGN
    text = " ".join(page.read_text().split())
    parts = {part for found in NAME.findall(text) for part in found.split(".")} - {"py", "pyx", "pxd"}
    assert parts
    assert sorted(parts - known) == []


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_of_an_explanation_exist(page: Path) -> None:
    known = {str(path.relative_to(ROOT / "netchan")) for path in SOURCES}
    tails = {name.rpartition("/")[2] for name in known}
    missing = [name for name in FILE.findall(page.read_text()) if name not in known and name not in tails]
    assert [name for name in missing if not (ROOT / name).exists()] == []


def test_walk_names_files_of_every_layer_that_a_value_crosses() -> None:
    found = set(FILE.findall((ROOT / "docs/explanation/walk-of-a-value.md").read_text()))
    for folder in ("node", "channel", "net", "_engine", "_core"):
        assert any(name.startswith(f"{folder}/") for name in found), folder


def test_figures_of_the_engine_are_those_of_the_code() -> None:
    header = "".join((ROOT / "netchan/_engine" / name).read_text() for name in ("state.pxd", "desk.pxd"))
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (\d+) \|", (ROOT / "docs/explanation/ownership.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 12
    assert rows == [(name, "".join(re.findall(rf"^ +{name} = (\d+)", header, re.MULTILINE))) for name, _ in rows]
