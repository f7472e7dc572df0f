"""Checkers of the house rules for the source tree: each takes a root folder and returns a list of violations.

A violation is one line of text, ``path: what is wrong``. The rules themselves are told in .github/CONTRIBUTING.md.
Nothing here imports netchan; files are read as text, so a broken build cannot hide a broken rule.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Layers of the package, lowest first; a module imports its own package and lower ranks only.
RANKS = {
    "errors": 0.0,
    "markers": 0.25,
    "config": 0.5,
    "_core": 1.0,
    "_engine": 2.0,
    "net": 3.0,
    "route": 4.0,
    "channel": 5.0,
    "node": 6.0,
    "gateway": 7.0,
    "store": 7.0,
    "sync": 7.0,
    "cli": 8.0,
}
TESTING = "testing"  # imports everything below cli; nothing of the package imports it
FOR_TYPES = {
    ("netchan/channel/sender.py", "netchan.node.peer"),
    ("netchan/channel/receiver.py", "netchan.node.peer"),
    ("netchan/channel/sender.py", "netchan.sync.sender"),
    ("netchan/channel/receiver.py", "netchan.sync.receiver"),
    ("netchan/channel/fronts.py", "netchan.sync.fronts"),
}
"""May look up, for type checkers only: a channel says which Peer it goes to and what its blocking view is, and meets
neither when it runs."""
RUNGS = "abcdefghijklmno"
TEST_ONLY = ("_selftest", "_fuzz")  # begin the names of compiled modules that are built for tests only

TOP_FILES = {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "pyproject.toml", "setup.py", "MANIFEST.in"}
TOP_FOLDERS = {"netchan", "tests", "bench", "docs", "tools", "examples"}
UNTRACKED = {"build", "dist", "__pycache__"}

SOURCE_SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".c", ".h"}

# What a sans-IO core must not name. Leaf locks and the look-up of the crypto library at run time are allowed (so no
# OpenSSL header is); clock, randomness, descriptors and new threads are arguments or belong to the engine.
CORE_BANNED = re.compile(
    r"\b(?:sys/socket\.h|netinet/in\.h|sys/epoll\.h|poll\.h|time\.h|posix\.time|libc\.time|posix\.unistd"
    r"|socket|recv(?:from|msg|mmsg)|send(?:to|msg|mmsg)|epoll_\w+|eventfd"
    r"|clock_gettime|clock_nanosleep|nanosleep|gettimeofday|usleep|monotonic_ns|perf_counter\w*"
    r"|pthread_create|thrd_create|PyThread_start_new_thread|start_new_thread"
    r"|openssl/\w+\.h"
    r"|getrandom|getentropy|arc4random\w*|urandom)\b"
    r"|^\s*(?:import|from)\s+(?:time|socket|select|selectors|threading|asyncio|random|secrets|concurrent)\b",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Import:
    """One imported module, dotted, with the names taken from it (empty for a plain import)."""

    line: int
    module: str
    names: tuple[str, ...]
    cimport: bool
    for_types: bool = False  # under ``if TYPE_CHECKING``


# ------------------------------------------------------------------------------------------------------- reading
_VERBATIM = re.compile(r"extern\s+from\s+[^\n]*:\s*\n?\s*$")
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*', re.DOTALL
)
_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def blank(text: str) -> str:
    """``text`` as white space with the same line breaks."""
    return re.sub(r"[^\n]", " ", text)


def code_only(text: str, *, keep_verbatim_c: bool = False) -> str:
    """Cython or Python text without comments and strings; line numbers stay.

    Strings of an ``extern from`` line (header names) and, if wanted, the C text under it are kept.
    """

    def keep(match: re.Match[str]) -> str:
        token = match.group()
        if token.startswith("#"):
            return blank(token)
        before = text[: match.start()].rstrip(" ")
        if keep_verbatim_c and (before.endswith("extern from") or _VERBATIM.search(text[: match.start()][-200:])):
            return _C_COMMENT.sub(lambda c: blank(c.group()), token)
        return blank(token)

    return _TOKEN.sub(keep, text)


def files(root: Path, *suffixes: str, under: str = "netchan") -> list[Path]:
    """Source files below ``root/under``, sorted, without what the build generates."""
    found = (path for path in (root / under).rglob("*") if path.suffix in suffixes and path.is_file())
    return sorted(
        path
        for path in found
        if "__pycache__" not in path.parts and not (path.suffix == ".c" and not path.name.startswith("k_"))
    )


def where(root: Path, path: Path, line: int = 0) -> str:
    """``path`` relative to ``root``, with the line when there is one."""
    return f"{path.relative_to(root)}{f':{line}' if line else ''}"


def head(path: Path) -> str:
    """The head of a file: the docstring of a module, or the comment lines at the start of a header."""
    text = path.read_text()
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    if path.suffix == ".pyx":
        match = re.match(r'(?:\s*#[^\n]*\n)*\s*"""(.*?)"""', text, re.DOTALL)
        return match.group(1) if match else ""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return "\n".join(lines)


def package_of(root: Path, path: Path) -> str:
    """The dotted package in which the module of ``path`` lies."""
    return ".".join(path.relative_to(root).parent.parts)


def imports(root: Path, path: Path) -> Iterator[Import]:
    """All imports and cimports of one file, inside functions and ``if TYPE_CHECKING`` too; relative ones resolved."""
    if path.suffix == ".py":
        tree = ast.parse(path.read_text())
        typing = {id(inner) for node in tree.body if is_type_checking(node) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (Import(node.lineno, alias.name, (), False, id(node) in typing) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package_of(root, path).split(".")[: -node.level + 1 or None] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                names = tuple(alias.name for alias in node.names)
                yield Import(node.lineno, module, names, False, id(node) in typing)
        return
    code = code_only(path.read_text())
    for match in re.finditer(r"^[ \t]*from\s+([\w.]+)\s+(c?import)\s+(\([^)]*\)|[^\n;]*)", code, re.MULTILINE):
        names = tuple(part.split()[0] for part in match.group(3).strip("() \n").split(",") if part.split())
        yield Import(code.count("\n", 0, match.start()) + 1, match.group(1), names, match.group(2) == "cimport")
    for match in re.finditer(r"^[ \t]*(c?import)\s+([^\n;]+)", code, re.MULTILINE):
        for part in match.group(2).split(","):
            if part.split():
                line = code.count("\n", 0, match.start()) + 1
                yield Import(line, part.split()[0], (), match.group(1) == "cimport")


def targets(root: Path, imported: Import) -> list[str]:
    """The modules an import reaches: ``from netchan._core cimport ring`` reaches ``netchan._core.ring``."""
    folder = root.joinpath(*imported.module.split("."))
    if not imported.names or not folder.is_dir():
        return [imported.module]
    ends = (".py", ".pyx", ".pxd", "")
    inner = [
        name
        for name in imported.names
        if name.startswith(TEST_ONLY) or any((folder / (name + e)).exists() for e in ends)
    ]
    return [f"{imported.module}.{name}" for name in inner] or [imported.module]


# ------------------------------------------------------------------------------------------------------- checkers
def check_layers(root: Path) -> list[str]:
    """Imports point down, never up, never sideways to a sibling, never at the package root."""
    bad = []
    for path in files(root, ".py", ".pyx", ".pxd"):
        parts = path.relative_to(root / "netchan").with_suffix("").parts
        mine = parts[0]
        if mine != "__init__" and mine != TESTING and mine not in RANKS:
            bad.append(f"{where(root, path)}: '{mine}' is no layer of the tree")
            continue
        for imported in imports(root, path):
            at = where(root, path, imported.line)
            if "*" in imported.names:
                bad.append(f"{at}: star import of {imported.module}")
            if imported.module == "netchan" and mine != "__init__":
                bad.append(f"{at}: imports the package root")
                continue
            for target in targets(root, imported):
                names = target.split(".")
                if names[0] != "netchan" or len(names) < 2 or names[1] == mine or mine == "__init__":
                    continue
                if imported.for_types and (str(path.relative_to(root)), target) in FOR_TYPES:
                    continue
                other = names[1]
                if any(name.startswith(TEST_ONLY) for name in names):
                    bad.append(f"{at}: imports the test-only module {target}")
                if other == TESTING:
                    bad.append(f"{at}: imports the test tools ({target})")
                elif mine == TESTING:
                    if RANKS.get(other, 9) >= RANKS["cli"]:
                        bad.append(f"{at}: the test tools import {target}")
                elif RANKS.get(other, 9) >= RANKS[mine]:
                    bad.append(f"{at}: layer {mine} imports {target}")
    return bad


def check_rungs(root: Path) -> list[str]:
    """Inside _core every file states its rung, and cimports strictly lower ones only."""
    core = root / "netchan" / "_core"
    sources = [
        path
        for path in files(root, ".pyx", ".pxd", under="netchan/_core")
        if not path.stem.startswith(("__init__", *TEST_ONLY))
    ]
    rung: dict[str, str] = {}
    bad = []
    for path in sources:
        match = re.search(r"rung ([a-z])\b", head(path))
        if match is None or match.group(1) not in RUNGS:
            bad.append(f"{where(root, path)}: the head states no rung (rung a … rung o)")
        elif rung.setdefault(path.stem, match.group(1)) != match.group(1):
            bad.append(f"{where(root, path)}: .pyx and .pxd state different rungs")
    for path in sources:
        for imported in imports(root, path):
            for target in targets(root, imported):
                name = target.split(".")[-1]
                if not target.startswith("netchan._core.") or name == path.stem:
                    continue
                at = where(root, path, imported.line)
                if name.startswith(TEST_ONLY):
                    bad.append(f"{at}: imports the test-only module")
                elif path.stem in rung and rung.get(name, "z") >= rung[path.stem]:
                    bad.append(f"{at}: rung {rung[path.stem]} imports {name} of rung {rung.get(name, '?')}")
    bad += [
        f"{where(root, path)}: no .pyx owns this kernel"
        for path in files(root, ".c", under="netchan/_core")
        if not owner(core, path)
    ]
    return bad


def owner(folder: Path, kernel: Path) -> bool:
    """Whether a k_*.c file belongs to a .pyx by its name, as setup.py sees it."""
    name = kernel.stem.removeprefix("k_")
    return any(name == pyx.stem or name.startswith(pyx.stem + "_") for pyx in folder.glob("*.pyx"))


def check_core_is_sans_io(root: Path) -> list[str]:
    """Nothing in _core names a socket, a clock, a source of randomness or the creation of a thread."""
    bad = []
    for path in files(root, ".py", ".pyx", ".pxd", ".c", ".h", under="netchan/_core"):
        if path.stem.startswith(TEST_ONLY):
            continue
        text = path.read_text()
        code = (
            _C_COMMENT.sub(lambda c: blank(c.group()), text)
            if path.suffix in (".c", ".h")
            else code_only(text, keep_verbatim_c=True)
        )
        for match in CORE_BANNED.finditer(code):
            line = code.count("\n", 0, match.start() + len(match.group()) - len(match.group().lstrip())) + 1
            bad.append(f"{where(root, path, line)}: the core names {match.group().strip()}")
    return bad


def check_core_constructs(root: Path) -> list[str]:
    """No include, DEF, IF, assert, star-cimport or typed memoryview in compiled code."""
    rules = {
        "include": re.compile(r"^[ \t]*include\s+", re.MULTILINE),
        "DEF or IF": re.compile(r"^[ \t]*(?:DEF|IF|ELIF)\s+\w", re.MULTILINE),
        "assert": re.compile(r"^[ \t]*assert\b", re.MULTILINE),
        "star-cimport": re.compile(r"\bcimport\s+\*"),
        "typed memoryview": re.compile(r"\b(?:char|short|int|long|float|double|u?int\d+_t|object)\s*\[\s*:"),
        "C++": re.compile(r"^[ \t]*(?:cdef\s+cppclass|from\s+libcpp)\b", re.MULTILINE),
    }
    bad = []
    for path in [
        *files(root, ".pyx", ".pxd", under="netchan/_core"),
        *files(root, ".pyx", ".pxd", under="netchan/_engine"),
    ]:
        code = code_only(path.read_text())
        for name, rule in rules.items():
            bad += [f"{where(root, path, code.count(chr(10), 0, m.start()) + 1)}: {name}" for m in rule.finditer(code)]
    return bad


def check_heads(root: Path) -> list[str]:
    """Every module and every header begins with words about itself; an empty __init__.pxd needs none."""
    return [
        f"{where(root, path)}: no head"
        for path in files(root, ".py", ".pyx", ".pxd")
        if not head(path).strip() and not (path.name == "__init__.pxd" and not path.read_text().strip())
    ]


def check_pairs(root: Path) -> list[str]:
    """A .pyx has a .pxd beside it, or it is a pure facade: no other file cimports from it."""
    bad = []
    cimported = {
        target: where(root, path, imported.line)
        for path in files(root, ".pyx", ".pxd")
        for imported in imports(root, path)
        if imported.cimport
        for target in targets(root, imported)
    }
    for path in files(root, ".pyx"):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        if not path.with_suffix(".pxd").exists() and module in cimported:
            bad.append(f"{where(root, path)}: has no .pxd, yet {cimported[module]} cimports it")
        if not path.with_suffix(".pxd").exists() and re.search(
            r"^cdef\s[^\n]*\)[^\n]*\bapi\b", code_only(path.read_text()), re.MULTILINE
        ):
            bad.append(f"{where(root, path)}: has no .pxd, yet offers C functions")
    return bad


def dunder_all(tree: ast.Module) -> list[str] | None:
    """The names in ``__all__``, or None when there is none."""
    for node in tree.body:
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if (
            isinstance(target, ast.Name)
            and target.id == "__all__"
            and isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value
        ):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def is_type_checking(node: ast.stmt) -> bool:
    """True for ``if TYPE_CHECKING:``, whose imports say where a name is loaded from on demand."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def check_exports(root: Path) -> list[str]:
    """The root has one explicit __all__; each name in it comes from one place, and no second module offers it."""
    init = root / "netchan" / "__init__.py"
    tree = ast.parse(init.read_text())
    bound: dict[str, list[str]] = {}
    body = [inner for node in tree.body for inner in (node.body if is_type_checking(node) else [node])]
    hidden = {"annotations", "import_module", "ModuleType", "TYPE_CHECKING", "Any"}  # what loading on demand needs
    for node in body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in hidden:
                    continue
                bound.setdefault(alias.asname or alias.name, []).append(node.module or "")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.setdefault(node.name, []).append("here")
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    bound.setdefault(target.id, []).append("here")
    public = {name for name in bound if not name.startswith("_")}
    exported = dunder_all(tree)
    at = where(root, init)
    if exported is None:
        return [f"{at}: public names but no __all__"] if public else []
    bad = [f"{at}: '{name}' twice in __all__" for name in sorted({n for n in exported if exported.count(n) > 1})]
    bad += [f"{at}: '{name}' in __all__ is not bound here" for name in exported if name not in bound]
    bad += [f"{at}: '{name}' is bound from {bound[name]}" for name in exported if len(bound.get(name, [])) > 1]
    bad += [f"{at}: '{name}' is public but not in __all__" for name in sorted(public - set(exported))]
    offers: dict[str, list[str]] = {}
    for path in files(root, ".py"):
        # netchan.sync has the same names on purpose: it is the blocking twin of the root.
        if path == init or path.relative_to(root / "netchan").parts[0].removesuffix(".py") == "sync":
            continue
        for name in dunder_all(ast.parse(path.read_text())) or []:
            offers.setdefault(name, []).append(where(root, path))
    bad += [f"{name}: offered by {' and '.join(offers[name])}" for name in exported if len(offers.get(name, [])) > 1]
    return bad


def check_spec_citations(root: Path) -> list[str]:
    """Every page and section of docs/spec that code, tests or docs cite exists; foreign sections are not ours."""
    spec = root / "docs" / "spec"
    sections = {
        page.stem: set(re.findall(r"^#+ (?:§ ?)?(\d+(?:\.\d+)*)\b", page.read_text(), re.MULTILINE))
        for page in sorted(spec.glob("*.md"))
    }
    everywhere = set().union(*sections.values())
    pages = "|".join(sorted(sections)) or "(?!)"
    number = r"§+ ?(\d+(?:\.\d+)*)"
    cited = re.compile(rf"(?:(?:docs/)?spec/)?\b(?P<page>{pages})(?:\.md)?`?,? {number}")
    bare = re.compile(rf"\bspec,? {number}")
    paths = re.compile(r"docs/spec/([\w-]+)\.md")
    bad = []
    sources = [
        path
        for folder in ("netchan", "tests", "bench", "tools", "examples", "docs/spec")
        for path in files(root, *SOURCE_SUFFIXES, ".md", under=folder)
    ]
    for path in sources:
        if path.name == "test__layout.py":  # holds wrong citations on purpose
            continue
        for i, line in enumerate(path.read_text().splitlines(), 1):
            at = where(root, path, i)
            bad += [f"{at}: docs/spec/{name}.md does not exist" for name in paths.findall(line) if name not in sections]
            bad += [
                f"{at}: {m['page']} has no §{m[2]}" for m in cited.finditer(line) if m[2] not in sections[m["page"]]
            ]
            bad += [f"{at}: no page of the spec has §{n}" for n in bare.findall(line) if n not in everywhere]
    return bad


def check_top_level(root: Path) -> list[str]:
    """At the top lie only the files and folders of the tree (dotfiles apart)."""
    listing = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        names = {line.split("/")[0] for line in listing.stdout.splitlines()}
    else:
        names = {path.name for path in root.iterdir() if path.name not in UNTRACKED and path.suffix != ".egg-info"} - {
            "PKG-INFO",
            "setup.cfg",
        }
    return [
        f"{name}: has no place at the top of the tree"
        for name in sorted(names)
        if name[0] != "." and name not in TOP_FILES | TOP_FOLDERS
    ]


def check_version(root: Path) -> list[str]:
    """The version in pyproject.toml and in the package are the same."""
    find = re.compile(r'^(?:version|__version__) = "([^"]+)"', re.MULTILINE)
    found = [find.findall((root / name).read_text())[:1] for name in ("pyproject.toml", "netchan/__init__.py")]
    return (
        []
        if found[0] and found[0] == found[1]
        else [f"version: pyproject.toml says {found[0]}, the package {found[1]}"]
    )


def file_sizes(root: Path) -> list[tuple[int, str]]:
    """Lines and path of every source file, largest first."""
    everything = [
        path
        for folder in ("netchan", "tests", "bench", "tools", "examples")
        for path in files(root, *SOURCE_SUFFIXES, under=folder)
    ]
    return sorted(((len(path.read_text().splitlines()), where(root, path)) for path in everything), reverse=True)
