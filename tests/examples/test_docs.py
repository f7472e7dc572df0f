"""The programs in the README, the tutorial, the how-to pages and the explanations run, and print what the pages say.

A fenced block marked ``python`` is a whole program: it is executed in an empty folder. If the next fenced block is
marked ``text``, it is what the program prints. Fragments are marked ``py`` and are compiled only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
    *sorted((ROOT / "docs/explanation").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE_S = 60


def blocks(kind: str) -> Iterator[tuple[str, str, str | None]]:
    """(where, code, what it prints or None) of every block of a kind."""
    for page in PAGES:
        text = page.read_text()
        found = list(FENCE.finditer(text))
        for here, following in zip_longest(found, found[1:]):
            if here[1] == kind:
                line = text.count("\n", 0, here.start()) + 1
                printed = following[2] if following is not None and following[1] == "text" else None
                yield f"{page.relative_to(ROOT)}:{line}", here[2], printed


PROGRAMS, FRAGMENTS = list(blocks("python")), list(blocks("py"))


RUNNER = """
import runpy, sys
import netchan
for name in netchan.__all__:  # loaded on demand: in a loop that debugs itself, the first use would count as a slow step
    getattr(netchan, name)
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, *command: str) -> str:
    """What a program prints; fails if it does not end well, or writes to stderr."""
    (folder / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", RUNNER, *command],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("where", "code", "printed"), PROGRAMS, ids=[item[0] for item in PROGRAMS])
def test_program_of_a_page_run_prints_what_the_page_says(
    where: str, code: str, printed: str | None, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(code)
    got = run(tmp_path, "program.py")
    if printed is not None:
        assert got == printed


@pytest.mark.parametrize(("where", "code", "printed"), FRAGMENTS, ids=[item[0] for item in FRAGMENTS])
def test_fragment_of_a_page_compiled_is_python(where: str, code: str, printed: str | None) -> None:
    body = textwrap.indent(code, "    ")
    compile(f"async def fragment():\n{body}\n    return\n", where, "exec")


def test_tutorial_boss_and_worker_as_processes_print_five_squares(tmp_path: Path) -> None:
    programs = ROOT / "docs/tutorial"
    worker_id = run(tmp_path, str(programs / "worker.py")).strip()
    boss = subprocess.Popen(
        [sys.executable, str(programs / "boss.py"), worker_id],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert boss.stdout is not None
        word, address = boss.stdout.readline().split()
        assert word == "dial"
        assert run(tmp_path, str(programs / "worker.py"), address) == "no more jobs\n"
        rest, _ = boss.communicate(timeout=PATIENCE_S)
    finally:
        boss.kill()
        boss.wait()
    assert rest == "".join(f"{n} * {n} = {n * n}\n" for n in range(1, 6)) + "the worker has left\n"
    assert boss.returncode == 0
