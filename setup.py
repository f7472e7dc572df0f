"""Compiled modules of netchan; all metadata is in pyproject.toml.

Every ``netchan/_core/*.pyx`` and ``netchan/_engine/*.pyx`` becomes one extension module.
``NETCHAN_DEBUG=1`` builds with checks, counters and line tracing (see docs/howto/debug-build.md).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
DEBUG = os.environ.get("NETCHAN_DEBUG") == "1"
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


def extensions() -> list[Extension]:
    sources = sorted([*ROOT.glob("netchan/_core/*.pyx"), *ROOT.glob("netchan/_engine/*.pyx")])
    flags = ["-O1", "-g"] if DEBUG else ["-O3", "-fvisibility=hidden"]
    return [
        Extension(
            ".".join(path.relative_to(ROOT).with_suffix("").parts),
            [str(path.relative_to(ROOT))],
            extra_compile_args=["-std=gnu11", "-fno-math-errno", *flags],
            extra_link_args=["-Wl,-z,now"],
            define_macros=[("NETCHAN_DEBUG", "1" if DEBUG else "0")],
            libraries=["pthread", "dl"],
        )
        for path in sources
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        nthreads=os.cpu_count() or 1,
        compiler_directives=COMMON | (CHECKED if DEBUG else RELEASE),
    ),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
