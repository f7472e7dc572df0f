"""Compiled modules of netchan; all metadata is in pyproject.toml.

Every ``netchan/_core/x.pyx`` and ``netchan/_engine/x.pyx`` becomes one extension module. Hand-written C beside it,
named ``k_x.c`` or ``k_x_<part>.c``, is compiled into the module ``x``.

Switches (environment variables, see docs/howto/debug-build.md):

- ``NETCHAN_DEBUG=1``: run-time checks, counters, line tracing, annotated HTML.
- ``NETCHAN_SANITIZE=address,undefined`` or ``thread``: compile with those sanitizers.
- ``NETCHAN_WERROR=1``: warnings and performance hints of Cython are errors.
- ``NETCHAN_BUILD_EXT=0``: no compiled modules; used by the Makefile to install metadata before it builds in place.

The modules ``_selftest…`` and ``_fuzz…`` open internals to the tests; they are built in place only, never for a wheel.
"""

import json
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

import Cython
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("NETCHAN_DEBUG") == "1"
COVERAGE = os.environ.get("NETCHAN_COVERAGE") == "1"
SANITIZE = os.environ.get("NETCHAN_SANITIZE", "")
WERROR = os.environ.get("NETCHAN_WERROR") == "1"
BUILD_EXT = os.environ.get("NETCHAN_BUILD_EXT") != "0"
INPLACE = "--inplace" in sys.argv or "-i" in sys.argv
LINUX = sys.platform.startswith("linux")
JOBS = os.cpu_count() or 1
TEST_ONLY = ("_selftest", "_fuzz")

COMMON = {
    "language_level": 3,
    "binding": True,
    "embedsignature": True,
    "embedsignature.format": "python",
    "auto_pickle": False,
    "autotestdict": False,
}
RELEASE = {"boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False}
CHECKED = {"boundscheck": True, "wraparound": False, "cdivision": True, "initializedcheck": True}

PROFILE = (
    f"debug={DEBUG} coverage={COVERAGE} sanitize={SANITIZE} python={sys.version_info[:2]} cython={Cython.__version__}"
)
PROFILES = ROOT / "build" / "profiles.json"  # which profile the files lying about were made with


def last_profile(what: str) -> str:
    """The profile with which ``what`` (``c``, ``inplace`` or ``lib``) was last built, empty when never."""
    try:
        return str(json.loads(PROFILES.read_text()).get(what, ""))
    except (OSError, ValueError):
        return ""


def note_profile(*names: str) -> None:
    """Remember that ``names`` are now built with this profile."""
    try:
        known = json.loads(PROFILES.read_text())
    except (OSError, ValueError):
        known = {}
    PROFILES.parent.mkdir(exist_ok=True)
    PROFILES.write_text(json.dumps(known | dict.fromkeys(names, PROFILE)))


def kernel_sources(pyx: Path) -> list[Path]:
    """The ``k_*.c`` files of one module: the longest module name that fits a file owns it."""
    stems = sorted((path.stem for path in pyx.parent.glob("*.pyx")), key=len, reverse=True)

    def owner(kernel: Path) -> str | None:
        name = kernel.stem.removeprefix("k_")
        return next((stem for stem in stems if name == stem or name.startswith(stem + "_")), None)

    return [kernel for kernel in sorted(pyx.parent.glob("k_*.c")) if owner(kernel) == pyx.stem]


def compile_flags() -> list[str]:
    """C compiler flags of the chosen profile."""
    flags = ["-std=gnu11", "-fno-math-errno"]
    if SANITIZE:
        return [*flags, "-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    return [*flags, "-O1", "-g"] if DEBUG else [*flags, "-O3", "-fvisibility=hidden"]


def headers_changed() -> bool:
    """True if a .pxd is newer than a generated .c: Cython overlooks those behind ``from netchan._core cimport x``."""
    headers = [path.stat().st_mtime for path in ROOT.glob("netchan/_*/*.pxd")]
    made = [path.with_suffix(".c") for path in ROOT.glob("netchan/_*/*.pyx")]
    return any(not path.exists() or path.stat().st_mtime < max(headers) for path in made)


def extensions() -> list[Extension]:
    """One extension per .pyx file, with the C files that belong to it."""
    folders = [ROOT / "netchan" / "_core", ROOT / "netchan" / "_engine"]
    pyx_files = [pyx for folder in folders for pyx in sorted(folder.glob("*.pyx"))]
    headers = [str(path.relative_to(ROOT)) for folder in folders for path in sorted(folder.glob("*.h"))]
    macros = [("NETCHAN_DEBUG", "1" if DEBUG else "0")]
    if COVERAGE:
        # Line events of nogil functions; sys.monitoring gives Cython's coverage plugin no lines on 3.13 and later.
        macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
    link = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
    return [
        Extension(
            ".".join(pyx.relative_to(ROOT).with_suffix("").parts),
            [str(path.relative_to(ROOT)) for path in (pyx, *kernel_sources(pyx))],
            depends=headers,
            include_dirs=[str(folder.relative_to(ROOT)) for folder in folders],
            extra_compile_args=compile_flags(),
            extra_link_args=[*link, *(["-Wl,-z,now"] if LINUX else [])],
            define_macros=macros,
            libraries=["pthread", "dl"] if LINUX else [],
        )
        for pyx in pyx_files
        if INPLACE or not pyx.stem.startswith(TEST_ONLY)
    ]


class HintCatcher:
    """Passes everything on to stderr and keeps the performance hints."""

    def __init__(self) -> None:
        self.hints: list[str] = []

    def write(self, text: str) -> int:
        self.hints += [line for line in text.splitlines() if line.startswith("performance hint:")]
        return sys.__stderr__.write(text)

    def flush(self) -> None:
        sys.__stderr__.flush()


def cython_modules() -> list[Extension]:
    """Translate to C; with NETCHAN_WERROR=1 a warning or a performance hint ends the build."""
    Options.warning_errors = WERROR
    catcher = HintCatcher()
    if WERROR:
        sys.stderr = catcher
    try:
        modules = cythonize(
            extensions(),
            nthreads=0 if WERROR else JOBS,  # in one process, so that the hints pass through the catcher
            annotate=DEBUG,
            force=True if WERROR or last_profile("c") != PROFILE or headers_changed() else None,
            compiler_directives=COMMON | (CHECKED if DEBUG else RELEASE) | {"linetrace": COVERAGE},
        )
    finally:
        sys.stderr = sys.__stderr__
    if catcher.hints:
        raise SystemExit(f"netchan: {len(catcher.hints)} performance hint(s) from Cython, and NETCHAN_WERROR=1 is set")
    note_profile("c")
    return modules


class BuildExt(build_ext):
    """build_ext that says in one line what a machine lacks and never mixes two profiles."""

    def build_extensions(self) -> None:
        if os.name == "posix":
            compiler = self.compiler.compiler_so[0] if self.compiler.compiler_so else "cc"
            header = Path(sysconfig.get_path("include"), "Python.h")
            missing = [] if shutil.which(shlex.split(compiler)[0]) else [f"a C compiler ({compiler})"]
            missing += [] if header.exists() else [f"the headers of Python ({header})"]
            if missing:
                need = " and ".join(missing)
                raise SystemExit(
                    f"netchan: building needs {need}; on Debian or Ubuntu: apt-get install gcc python3-dev"
                )
        kind = "inplace" if INPLACE else "lib"
        self.force = self.force or last_profile(kind) != PROFILE
        super().build_extensions()
        note_profile(kind)


setup(
    ext_modules=cython_modules() if BUILD_EXT else [],
    cmdclass={"build_ext": BuildExt},
    # Built in place or for a wheel: apart, so that neither a test-only module nor another profile slips into a wheel.
    options={"build_ext": {"parallel": JOBS}, "build": {"build_base": "build/inplace" if INPLACE else "build"}},
)
