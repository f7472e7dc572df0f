"""What the commands share: exit statuses, colour, and how results and complaints are printed.

Layer: cli (L8). Loads nothing beyond the standard library.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130
"""As a shell says it of a program that SIGINT ended."""

_COLOURS: Final = {"ok": "32", "warn": "33", "bad": "31"}


def version() -> str:
    """The version of the package. Its root is loaded before any module of it, and no layer imports the root by name."""
    return str(sys.modules["netchan"].__version__)


def colours(stream: TextIO) -> bool:
    """True if ``stream`` is a terminal and NO_COLOR is not set to anything (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, state: str, stream: TextIO) -> str:
    """``text`` in the colour of a state ("ok", "warn", "bad") where the stream shows colours."""
    return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m" if colours(stream) else text


def print_json(what: Mapping[str, Any]) -> None:
    """One object, indented for reading."""
    print(json.dumps(what, indent=2))


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"netchan: {paint('error', 'bad', sys.stderr)}: {text}", file=sys.stderr)
