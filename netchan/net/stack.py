"""What this layer asks of the operating system where a simulation has to answer instead: sockets, names, engines' time.

Layer: net (L3), below all that opens sockets. ``Stack`` is the system's; ``netchan.testing`` has one for each host of a
simulated network and says whose turn it is (``use``). Everything else that a run depends on is asked of ``time``,
``os.urandom`` and ``random``, which a simulation replaces for the thread that runs it.

Threads: one stack for the process; only the thread of a simulation calls ``use``.
Spec: docs/spec/simulation.md §2.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, Final

MAX_RESOLVERS: Final = 16
"""Threads that resolve names at the same time: the system's resolver blocks, for up to half a minute."""
Found = list[tuple[int, Any]] | OSError
"""(family, sockaddr) pairs, or why there are none."""

_resolvers: Final = threading.BoundedSemaphore(MAX_RESOLVERS)


class Stack:
    """The operating system's."""

    has_netlink = True
    """It may tell of links, addresses and routes that come and go (net/netlink.py)."""

    def clock_ns(self) -> int:
        """What time it is for a new engine whose clock somebody moves; 0: engines ask the system."""
        return 0

    def socket(self, family: int, kind: int) -> socket.socket:
        """A fresh socket that does not block and is not inherited. OSError: descriptors are used up."""
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def resolve(self, host: str, port: int, done: Callable[[Found], None]) -> None:
        """Look a name up, on a thread of its own; ``done`` is called there, once."""

        def run() -> None:
            result: Found
            with _resolvers:
                try:
                    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
                    result = list(dict.fromkeys((int(item[0]), item[4]) for item in found))
                except (OSError, UnicodeError) as error:
                    result = error if isinstance(error, OSError) else OSError(str(error))
            done(result)

        threading.Thread(target=run, name="netchan-resolver", daemon=True).start()


_SYSTEM: Final = Stack()
_current: Stack = _SYSTEM


def stack() -> Stack:
    """The one in use."""
    return _current


def use(other: Stack | None) -> None:
    """Ask this one from here on; None: the operating system."""
    global _current
    _current = _SYSTEM if other is None else other
