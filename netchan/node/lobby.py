"""Where peers that came in wait for the program: one queue for the halls of one receiver of peers.

Layer 6: no waiting, no sockets. ``put`` runs on the worker's thread, ``took`` on that of whoever takes a peer. Each
hall has as many places as its ``Config.backlog``; a peer that is taken gives its place back to the hall it came by.
Spec: docs/spec/session.md §7.
"""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from netchan.net.wait import Waiter, leaf_lock

if TYPE_CHECKING:
    from netchan.channel.local import LocalEndpoint
    from netchan.node.hall import Hall
    from netchan.node.session import PeerCore


class Lobby:
    """See the module head.

    Args:
        endpoint: the queue, with room for all.
        make: makes of a session what the program takes.
    """

    def __init__(self, endpoint: LocalEndpoint, make: Callable[[PeerCore], Any]) -> None:
        self.endpoint, self.make = endpoint, make
        endpoint.name = "listener"
        endpoint.tx_waiters.join(_Room(weakref.ref(self)))
        self._lock = leaf_lock()
        self._order: deque[Hall] = deque()  # whose peers wait, oldest first
        self._waits: Counter[Hall] = Counter()
        self._taken = 0

    def put(self, hall: Hall, peer: object) -> bool:
        """A peer waits; False: the places of its hall are taken.

        Raises:
            ChannelError: the program takes no more.
        """
        with self._lock:
            if self._waits[hall] >= hall.config.backlog:
                return False
            self._waits[hall] += 1
            self._order.append(hall)
        sent = False
        try:
            sent = bool(self.endpoint.try_send(peer))
        finally:
            if not sent:
                with self._lock:
                    self._waits[hall] -= 1
                    self._order.remove(hall)  # any place of its own is as good
        return sent

    def waiting(self, hall: Hall) -> int:
        """Peers of this hall that the program has not taken yet."""
        return self._waits[hall]

    def took(self) -> None:
        """Peers were taken out of the queue."""
        halls: Counter[Hall] = Counter()
        with self._lock:
            fresh = self.endpoint.tx.taken - self._taken
            self._taken += fresh
            for _ in range(min(fresh, len(self._order))):
                halls[self._order.popleft()] += 1
            self._waits -= halls
        for hall, n in halls.items():
            hall.took(n)

    def empty(self) -> None:
        """Forget who waits, and let nobody in any more: another process has them."""
        while self.endpoint.pending():
            self.endpoint.try_recv_many(self.endpoint.pending())
        self.endpoint.close_send()

    def end(self) -> None:
        """The program takes no more; who waits is let go of."""
        self.endpoint.stop_recv()


class _Room(Waiter):
    """Stands in the queue's line of senders for ever: woken when a peer was taken."""

    __slots__ = ("_lobby",)

    def __init__(self, lobby: weakref.ref[Lobby]) -> None:
        super().__init__()
        self._lobby = lobby

    def excuse(self, error: BaseException) -> bool:
        """Never asked."""
        return False

    def _notify(self) -> None:
        self.woken = False
        lobby = self._lobby()
        if lobby is not None:
            lobby.took()
