# Made from netchan/node/watching.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``PeerEvents``: what becomes of a session and its paths, to iterate over.

Layer 6; netchan/sync/watching.py is made from this file by tools/async_to_sync.py. All state is in events.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from netchan.node.events import PeerEvent
from netchan.sync.node_waits import new_waiter, wait_until

if TYPE_CHECKING:
    from netchan.node.session import PeerCore


class PeerEvents:
    """The events of one peer, oldest first; comes from ``Peer.events``.

    At most 256 wait to be taken; of more the oldest go, and an event "overflow" says how many. Each is given once: two
    that iterate share them. May be used from any task, loop and thread.
    """

    __slots__ = ("_core",)

    def __init__(self, core: PeerCore) -> None:
        self._core = core

    def take(self) -> PeerEvent | None:
        """The next event, or None if there is none now. Never waits. ForkError: of the parent process."""
        log = self._core.events()
        return log.take()

    def get(self, *, timeout: float | None = None) -> PeerEvent | None:
        """As ``netchan.PeerEvents.get``. TimeoutError: none has come within ``timeout`` seconds."""
        log = self._core.events()
        waiter = new_waiter(self._core.engine, timeout)
        while True:
            event = log.take()
            if event is not None or log.over:
                return event
            wait_until(log.is_ready, log.waiters, waiter)
            waiter.rearm()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PeerEvent:
        """As ``netchan.PeerEvents.__anext__``; waits without limit, and StopIteration ends it."""
        event = self.get()
        if event is None:
            raise StopIteration
        return event
