"""Facts about the machine and what else runs on it (Linux: /proc), so that a figure is never without its conditions."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.e2e import peers

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).parents[2]


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def cpu_model() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def facts() -> dict[str, Any]:
    """Return what identifies a machine and its software, without names of hosts or users."""
    versions: dict[str, str] = {}
    for name in peers.NAMES:
        try:
            peer = peers.find(name)
            if peer.missing() is None:
                versions |= peer.versions()
        except ImportError:
            continue
    return {
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libc": " ".join(platform.libc_ver()),
        "versions": versions,
        "provider": peers.find(peers.OURS).versions().get("provider", "none: netchan is not built"),
    }


def commit() -> str:
    """Return the commit the benchmark ran from, with ``+`` when the tree differs from it."""
    head = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def same_machine(one: dict[str, Any], two: dict[str, Any]) -> bool:
    """Say whether two results may be compared (same processor, count, kernel, Python)."""
    return all(one[key] == two[key] for key in ("cpu", "cpus", "kernel", "python"))


@dataclass(frozen=True)
class Load:
    """CPU seconds of the whole machine so far: used by programs, and stolen by the hypervisor.

    Interrupt time is left out: on loopback it is ours. The kernel counts in ticks, so differences over less than half a
    second mean little.
    """

    used_s: float
    stolen_s: float

    @classmethod
    def now(cls) -> Load:
        """Read /proc/stat."""
        user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
        return cls((user + nice + system) * _TICK_S, steal * _TICK_S)
