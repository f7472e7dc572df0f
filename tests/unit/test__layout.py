"""The rules for the source tree hold, and each checker of them catches a planted violation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import layout

ROOT = Path(__file__).resolve().parents[2]
CHECKERS: list[Callable[[Path], list[str]]] = [
    layout.check_layers,
    layout.check_rungs,
    layout.check_core_is_sans_io,
    layout.check_core_constructs,
    layout.check_heads,
    layout.check_pairs,
    layout.check_exports,
    layout.check_spec_citations,
    layout.check_top_level,
    layout.check_version,
]
CLEAN = {
    "pyproject.toml": 'version = "1.0"\n',
    "netchan/__init__.py": '"""Root."""\nfrom netchan.errors import Oops\n__version__ = "1.0"\n__all__ = ["Oops"]\n',
    "netchan/errors.py": '"""L0."""\n__all__ = ["Oops"]\nclass Oops(Exception):\n    pass\n',
    "netchan/_core/__init__.py": '"""L1."""\n',
    "netchan/_core/__init__.pxd": "",
    "netchan/_core/defs.pxd": "# Layer: _core, rung a. See docs/spec/wire.md, wire §3.1 and RFC 9000 §99.\n",
    "netchan/_core/ring.pxd": "# rung c\nfrom netchan._core cimport defs\ncdef int ring_push() noexcept nogil\n",
    "netchan/_core/ring.pyx": '"""A ring.\n\nLayer: _core, rung c.\n"""\nfrom netchan._core cimport defs\n',
    "netchan/_core/_selftest_ring.pyx": '"""Tests."""\nfrom posix.time cimport clock_gettime\n',
    "netchan/_core/k_ring.c": "int x; /* no socket here */\n",
    "netchan/channel/__init__.py": '"""L5."""\nfrom netchan.errors import Oops\nfrom netchan._core import ring\n',
    "netchan/testing/__init__.py": '"""Tools."""\nimport netchan.channel\n',
    "docs/spec/wire.md": "# Wire\n## 3. Record\n### 3.1 Head\n",
}


def plant(root: Path, extra: dict[str, str]) -> Path:
    """A small clean tree, with some files added or replaced."""
    for name, text in (CLEAN | extra).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.__name__)
def test_tree_as_it_is_obeys(checker: Callable[[Path], list[str]]) -> None:
    assert checker(ROOT) == []


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.__name__)
def test_checker_on_a_clean_small_tree_finds_nothing(checker: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert checker(plant(tmp_path, {})) == []


FOR_TYPES = '"""x"""\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from netchan.node.peer import Peer\n'

PLANTED = [
    (layout.check_layers, "netchan/errors.py", '"""x"""\nfrom netchan._core import ring\n', "layer errors imports"),
    (
        layout.check_layers,
        "netchan/net/dial.py",
        '"""x"""\ndef f():\n    from netchan.channel import base\n',
        "layer net imports",
    ),
    (layout.check_layers, "netchan/net/dial.py", '"""x"""\nfrom ..channel import base\n', "layer net imports"),
    (layout.check_layers, "netchan/store/a.py", '"""x"""\nimport netchan.gateway.base\n', "layer store imports"),
    (layout.check_layers, "netchan/net/dial.py", '"""x"""\nimport netchan\n', "package root"),
    (layout.check_layers, "netchan/net/dial.py", '"""x"""\nfrom netchan import Oops\n', "package root"),
    (layout.check_layers, "netchan/net/dial.py", '"""x"""\nfrom netchan.errors import *\n', "star import"),
    (layout.check_layers, "netchan/net/dial.py", '"""x"""\nimport netchan.testing.pair\n', "test tools"),
    (
        layout.check_layers,
        "netchan/net/dial.py",
        '"""x"""\nfrom netchan._core import _selftest\n',
        "test-only module",
    ),
    (layout.check_rungs, "netchan/_core/pool.pxd", "# rung c.\nfrom netchan._core cimport _fuzz\n", "test-only module"),
    (layout.check_layers, "netchan/testing/a.py", '"""x"""\nimport netchan.cli\n', "test tools import"),
    (
        layout.check_layers,
        "netchan/channel/sender.py",
        FOR_TYPES.replace("node.peer", "node.hall"),
        "layer channel imports",
    ),
    (layout.check_layers, "netchan/channel/base.py", FOR_TYPES, "layer channel imports"),
    (
        layout.check_layers,
        "netchan/channel/sender.py",
        '"""x"""\nfrom netchan.node.peer import Peer\n',
        "layer channel imports",
    ),
    (layout.check_layers, "netchan/channel/sender.py", FOR_TYPES, None),
    (layout.check_layers, "netchan/misc.py", '"""x"""\n', "no layer"),
    (
        layout.check_layers,
        "netchan/_core/ring.pyx",
        '"""x"""\nfrom netchan._engine cimport poller\n',
        "layer _core imports",
    ),
    (layout.check_layers, "netchan/_core/ring.pyx", '"""x"""\nfrom netchan.net import dial\n', "layer _core imports"),
    (
        layout.check_rungs,
        "netchan/_core/defs.pxd",
        "# Layer: _core, rung a.\nfrom netchan._core cimport ring\n",
        "rung a imports ring",
    ),
    (
        layout.check_rungs,
        "netchan/_core/pool.pxd",
        "# rung c.\nfrom netchan._core.ring cimport (\n    ring_push,\n)\n",
        "rung c imports",
    ),
    (layout.check_rungs, "netchan/_core/pool.pxd", "# rung c.\ncimport netchan._core.ring\n", "rung c imports"),
    (layout.check_rungs, "netchan/_core/pool.pxd", "# pool\n", "states no rung"),
    (layout.check_rungs, "netchan/_core/ring.pyx", '"""Layer: _core, rung d."""\n', "different rungs"),
    (layout.check_rungs, "netchan/_core/k_lost.c", "int x;\n", "no .pyx owns"),
    (layout.check_core_is_sans_io, "netchan/_core/ring.pyx", '"""x"""\nimport time\n', "names import time"),
    (layout.check_core_is_sans_io, "netchan/_core/k_ring.c", "#include <sys/socket.h>\n", "names sys/socket.h"),
    (
        layout.check_core_is_sans_io,
        "netchan/_core/ring.pxd",
        '# rung c\ncdef extern from *:\n    """\n    int go(void) { pthread_create(); }\n    """\n    int go()\n',
        "ring.pxd:4: the core names pthread_create",
    ),
    (
        layout.check_core_is_sans_io,
        "netchan/_core/ring.pxd",
        '# x\ncdef extern from "time.h":\n    pass\n',
        "names time.h",
    ),
    (layout.check_core_constructs, "netchan/_core/ring.pyx", '"""x"""\ninclude "a.pxi"\n', ":2: include"),
    (layout.check_core_constructs, "netchan/_core/ring.pyx", '"""x"""\nDEF A = 1\n', ":2: DEF"),
    (layout.check_core_constructs, "netchan/_core/ring.pyx", '"""x"""\ndef f(a):\n    assert a\n', ":3: assert"),
    (
        layout.check_core_constructs,
        "netchan/_core/ring.pyx",
        '"""x"""\nfrom netchan._core.defs cimport *\n',
        "star-cimport",
    ),
    (
        layout.check_core_constructs,
        "netchan/_core/ring.pyx",
        '"""x"""\ndef f(const char[::1] a):\n    pass\n',
        "memoryview",
    ),
    (layout.check_heads, "netchan/errors.py", "x = 1\n", "errors.py: no head"),
    (layout.check_heads, "netchan/_core/ring.pyx", "x = 1\n", "ring.pyx: no head"),
    (layout.check_heads, "netchan/_core/ring.pxd", "cdef int f()\n", "ring.pxd: no head"),
    (layout.check_heads, "netchan/_core/__init__.pxd", "cdef int f()\n", "__init__.pxd: no head"),
    (layout.check_pairs, "netchan/_core/pool.pyx", '"""x"""\ncdef int f() noexcept nogil:\n    return 1\n', None),
    (layout.check_exports, "netchan/__init__.py", '"""x"""\nfrom netchan.errors import Oops\n', "no __all__"),
    (
        layout.check_exports,
        "netchan/__init__.py",
        '"""x"""\nfrom netchan.errors import Oops, Other\n__all__ = ["Oops"]\n',
        "'Other' is public",
    ),
    (layout.check_exports, "netchan/__init__.py", '"""x"""\n__all__ = ["Oops"]\n', "not bound"),
    (
        layout.check_exports,
        "netchan/__init__.py",
        '"""x"""\nfrom netchan.errors import Oops\nfrom netchan.net import Oops\n__all__ = ["Oops"]\n',
        "is bound from",
    ),
    (layout.check_exports, "netchan/net/__init__.py", '"""x"""\n__all__ = ["Oops"]\n', "offered by"),
    (layout.check_spec_citations, "netchan/errors.py", '"""See wire §3.2."""\n', "wire has no §3.2"),
    (layout.check_spec_citations, "docs/spec/life.md", "# Life\nSee `wire.md` §8.\n", "wire has no §8"),
    (layout.check_spec_citations, "netchan/errors.py", '"""See docs/spec/wire.md §4."""\n', "wire has no §4"),
    (layout.check_spec_citations, "netchan/errors.py", '"""See spec §7."""\n', "no page of the spec has §7"),
    (layout.check_spec_citations, "tests/unit/test_a.py", '"""See docs/spec/gone.md."""\n', "gone.md does not exist"),
    (layout.check_top_level, "notes.txt", "x", "notes.txt: has no place"),
    (layout.check_top_level, "src/x.py", "x", "src: has no place"),
    (layout.check_version, "pyproject.toml", 'version = "2.0"\n', "version:"),
]


@pytest.mark.parametrize(
    ("checker", "name", "text", "says"),
    PLANTED,
    ids=[f"{row[0].__name__}-{row[3] or 'allowed'}".replace(" ", "_") for row in PLANTED],
)
def test_checker_on_a_planted_violation_names_it(
    checker: Callable[[Path], list[str]], name: str, text: str, says: str | None, tmp_path: Path
) -> None:
    found = checker(plant(tmp_path, {name: text}))
    if says is None:  # allowed: a .pyx without .pxd that nobody cimports, a layer above named for its type
        assert found == []
    else:
        assert any(says in line for line in found), found


def test_pairs_when_a_module_without_header_is_cimported_names_it(tmp_path: Path) -> None:
    user = '"""x"""\nfrom netchan._core.pool cimport pool_get\n'
    found = layout.check_pairs(
        plant(tmp_path, {"netchan/_core/pool.pyx": '"""x"""\n', "netchan/_core/stream.pyx": user})
    )
    assert found == ["netchan/_core/pool.pyx: has no .pxd, yet netchan/_core/stream.pyx:2 cimports it"]


def test_code_only_when_words_stand_in_comments_and_strings_drops_them(tmp_path: Path) -> None:
    text = '# assert\nx = "include"  # DEF\ny = """\nassert z\n"""\nassert z\n'
    assert layout.code_only(text).split() == ["x", "=", "y", "=", "assert", "z"]
    assert layout.code_only(text).count("\n") == text.count("\n")


def test_file_sizes_are_largest_first() -> None:
    sizes = layout.file_sizes(ROOT)
    assert sizes == sorted(sizes, reverse=True)
    assert any(path == "netchan/_core/errors.pyx" and lines > 10 for lines, path in sizes)
