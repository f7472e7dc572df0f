"""Sessions that a node keeps for whoever asks for them next, and leaves when nobody uses them.

Layer 6: no waiting, no sockets. ``keep`` and ``use`` on any thread, the look at them on the worker's.
Spec: docs/spec/node.md §3.
"""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from netchan.net.wait import leaf_lock
from netchan.net.worker import worker
from netchan.node.session import PeerCore

GRACE_S: Final = 1.0
"""Who was given a session has so long to open a channel on it."""
LOOK_MIN_S: Final = 0.02
LOOK_MAX_S: Final = 5.0


@dataclass
class _Kept:
    """``peer``: its front, which nobody else need hold; ``until``: in use until then, monotonic seconds."""

    peer: Any
    until: float


class Pool:
    """See the module head.

    Args:
        size: so many without use are kept at most.
        idle: seconds after which one without use is left.
    """

    def __init__(self, size: int, idle: float) -> None:
        self.size, self.idle = size, idle
        self.left = 0  # since nobody used them
        self._look_s = min(LOOK_MAX_S, max(LOOK_MIN_S, idle / 4))
        self._lock = leaf_lock()
        self._kept: OrderedDict[PeerCore, _Kept] = OrderedDict()  # given out longest ago first
        self._leaves: weakref.WeakSet[PeerCore] = weakref.WeakSet()
        self._looks = False

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, core: PeerCore, peer: object) -> None:
        """One more."""
        with self._lock:
            self._kept[core] = _Kept(peer, time.monotonic() + GRACE_S)
            start, self._looks = not self._looks, True
        if start:
            self._look_later()
        if len(self._kept) > self.size:
            worker().post(self._look)

    def use(self, core: PeerCore) -> bool:
        """It is given out; False: too late, it is being left."""
        with self._lock:
            kept = self._kept.get(core)
            if kept is not None:
                kept.until = time.monotonic() + GRACE_S
                self._kept.move_to_end(core)
            return not core.left and core not in self._leaves

    def clear(self) -> None:
        """Hold none any more."""
        with self._lock:
            self._kept.clear()

    def _look_later(self) -> None:
        me = weakref.ref(self)

        def look() -> None:
            pool = me()
            if pool is not None:
                pool._look_again()

        worker().post(lambda: worker().at(time.monotonic_ns() + int(self._look_s * 1e9), look))

    def _look_again(self) -> None:
        self._look()
        with self._lock:
            self._looks = bool(self._kept)
            again = self._looks
        if again:
            self._look_later()

    def _look(self) -> None:
        """Leave those that nobody uses. On the worker's thread."""
        now = time.monotonic()
        with self._lock:
            for core, kept in list(self._kept.items()):
                if core.over or core.left:
                    del self._kept[core]
                elif core.in_use:
                    kept.until = max(kept.until, now)
            over = len(self._kept) - self.size
            out = []
            for core, kept in list(self._kept.items()):
                if now >= kept.until + (0.0 if over > 0 else self.idle) and not core.in_use:
                    del self._kept[core]
                    self._leaves.add(core)
                    out.append((core, kept))  # its front lives until it is being left
                    over -= 1
            self.left += len(out)
        for core, _ in out:
            core.leave()
