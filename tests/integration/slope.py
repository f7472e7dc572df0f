"""What a long run leaves behind: resident set and descriptors, from a tenth of the way to its end."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time

from netchan.net import changes

PATIENCE = 5.0
"""Seconds for what is closed behind the end of a session."""
SLOPE = 1 << 20
"""Bytes by which the resident set may grow after the beginning of a run."""


def rss() -> int:
    """Resident set of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def in_use() -> int:
    """Bytes that the allocators have given out, of malloc and of Python (512 for each small block, the most it can be).

    Where threads come and go by ten thousands, the resident set grows by holes for a long while, and this does not.
    """
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return rss()
    ask.restype = _Mallinfo
    info = ask()
    return int(info.uordblks + info.hblkhd) + 512 * sys.getallocatedblocks()


def descriptors() -> int:
    """Open descriptors of this process, but for the one by which all sessions together hear of the network: it comes
    when a session has lived for a tenth of a second, and goes with the last one.
    """
    return len(os.listdir("/proc/self/fd")) - (changes._here.watcher is not None)


class Slope:
    """Resident set and descriptors over a long run; its beginning, in which caches fill up, is not counted.

    Args:
        total: steps of the run.
        warm: steps that are not counted; a tenth if not given.
        spare: descriptors that may be more at the end: what closes a moment later.
        given: what the allocators have given out is held to the limit, not the resident set.
    """

    def __init__(self, total: int, warm: int | None = None, *, spare: int = 0, given: bool = False) -> None:
        self.total, self.warm, self.spare = total, total // 10 if warm is None else warm, spare
        self.size, self.what = (in_use, "bytes in use") if given else (rss, "resident set")
        self.first: tuple[int, int] | None = None
        self.begun = time.monotonic()

    def look(self, done: int) -> None:
        """``done`` steps are done; the first call at or behind ``warm`` is where counting starts."""
        if self.first is None and done >= self.warm:
            gc.collect()
            self.first = self.size(), descriptors()

    def end(self, what: str) -> None:
        """Print the figures and check them."""
        assert self.first is not None
        gc.collect()
        until = time.monotonic() + PATIENCE
        while descriptors() - self.first[1] > self.spare and time.monotonic() < until:
            time.sleep(0.01)  # the worker may still be closing what belonged to the last session
        grown, left = self.size() - self.first[0], descriptors() - self.first[1]
        print(
            f"\n{what}: {self.total} in {time.monotonic() - self.begun:.1f} s, "
            f"{self.what} {grown / 1024:+.0f} KiB, descriptors {left:+d}"
        )
        assert grown <= SLOPE, f"{what}: {grown} bytes more"
        assert left <= self.spare, f"{what}: {left} descriptors more"
