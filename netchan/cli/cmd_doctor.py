"""``netchan doctor``: what netchan finds on this machine, how fast the ciphers are, and whether it can run at all.

Layer: cli (L8). Looks only: opens no connection, writes no file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import select
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

from netchan._core import gf256, provider
from netchan.cli import common

OPTIONAL: Final = {
    "msgspec": "channels typed with your own classes",
    "numpy": "for channels of arrays, planned",
    "uvloop": "a faster event loop",
    "nacl": "libsodium, where no OpenSSL is usable",
}
PYTHON_MIN: Final = (3, 11)
MEMLOCK_MIN: Final = 1 << 20
"""Bytes of memory that should be lockable: the secrets of a few thousand sessions."""


@dataclass
class Findings:
    """What was found, for reading by programs, and the lines for people: (state, subject, text)."""

    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, fact: Any, text: str, state: str = "ok") -> None:
        """Note one fact; state "bad" means that netchan cannot run."""
        self.facts[name] = fact
        self.lines.append((state, name, text))


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; FAILED if one of them keeps netchan from running."""
    found = Findings()
    _python(found)
    _crypto(found, measure=not arguments.no_speed)
    _parity(found)
    _system(found)
    _packages(found)
    usable = not any(state == "bad" for state, _, _ in found.lines)
    if arguments.json:
        common.print_json({"usable": usable} | found.facts)
    else:
        for state, name, text in found.lines:
            print(f"{common.paint(f'{state:4}', state, sys.stdout)} {name:10} {text}")
        print("netchan can run here" if usable else "netchan cannot run here: see the lines that begin with 'bad'")
    return common.OK if usable else common.FAILED


def _python(found: Findings) -> None:
    version = platform.python_version()
    found.add("netchan", common.version(), common.version())
    found.add(
        "python",
        {"version": version, "implementation": platform.python_implementation(), "path": sys.executable},
        f"{platform.python_implementation()} {version} at {sys.executable}",
        "ok" if sys.version_info >= PYTHON_MIN else "bad",
    )
    linux = sys.platform == "linux"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    found.add(
        "platform", system, system if linux else f"{system}: only Linux is supported yet", "ok" if linux else "bad"
    )


def _crypto(found: Findings, *, measure: bool) -> None:
    try:
        library = provider.load()
    except provider.ProviderError as error:
        found.add("crypto", None, str(error), "bad")
    else:
        facts: dict[str, Any] = {"provider": library.name, "version": library.version, "path": library.path}
        found.add("crypto", facts, f"{library.version}, provider {library.name!r}, {library.path}")
        ciphers: dict[str, dict[str, float]] = {}
        for cipher in library.ciphers:
            speed = provider.speed(library.name, time.monotonic_ns, cipher) if measure else {}
            ciphers[cipher] = {str(size): round(rate, 4) for size, rate in speed.items()}
        found.facts["ciphers"] = ciphers
        for cipher, rates in ciphers.items():
            text = ", ".join(f"{rate:.2f} GB/s at {_size(int(size))}" for size, rate in rates.items())
            found.lines.append(("ok", "cipher", f"{cipher}{': ' if text else ''}{text}"))
    hybrid = _ml_kem()
    text = "X25519 with ML-KEM-768" if hybrid else "no ML-KEM-768: update 'cryptography', or say pq='off' on both sides"
    found.add("ml_kem", hybrid, text, "ok" if hybrid else "warn")


def _parity(found: Findings) -> None:
    used, forms = gf256.form(), gf256.forms()
    found.add("parity", {"form": used, "forms": list(forms)}, f"by {used}, of {', '.join(forms)} that run here")


def _system(found: Findings) -> None:
    epoll = hasattr(select, "epoll")
    found.add("epoll", epoll, "there" if epoll else "missing: the engine waits with it", "ok" if epoll else "bad")
    limit = _memlock()
    enough = limit is None or limit >= MEMLOCK_MIN
    shown = "no limit" if limit is None else _size(limit)
    advice = "" if enough else ": keys may reach the swap; raise it with `ulimit -l`"
    found.add("memlock", limit, f"{shown} of memory can be locked{advice}", "ok" if enough else "warn")
    count = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    spin = usable > 1
    found.add(
        "cpus",
        {"count": count, "usable": usable, "spin": spin},
        f"{usable} of {count} usable; a waiting call {'may' if spin else 'must not'} spin before it sleeps",
    )


def _packages(found: Findings) -> None:
    versions: dict[str, str | None] = {}
    for module, use in OPTIONAL.items():
        version = None
        if importlib.util.find_spec(module) is not None:
            version = importlib.metadata.version("pynacl" if module == "nacl" else module)
        versions[module] = version
        found.lines.append(("ok", "optional", f"{module} {version or 'is not installed'} ({use})"))
    found.facts["packages"] = versions


def _ml_kem() -> bool:
    """True if the installed ``cryptography`` can make an ML-KEM-768 key: its OpenSSL decides."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    except ImportError:
        return False
    try:
        MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        return False
    return True


def _memlock() -> int | None:
    """Bytes that may be locked; None = no limit."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _size(n: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.4g} {unit}"
    return f"{n} B"
