# Made from netchan/node/listener.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``Listener``: a receiver of peers.

Layer 6; netchan/sync/listener.py is made from this file by tools/async_to_sync.py. The peers wait in a queue like that
of ``netchan.channel``, so everything a Receiver can do works: iteration, several tasks, other loops and threads.
Spec: docs/spec/session.md §7; docs/spec/handshake.md §9.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import (
    Callable,
)
from types import TracebackType
from typing import Self

from netchan.channel.making import channel_endpoint
from netchan.sync.receiver import Receiver
from netchan.errors import ChannelError
from netchan.net.manager import log

from netchan.net.tasks import ThreadGroup
from netchan.node.hall import Hall, ListenerStats
from netchan.node.lobby import Lobby
from netchan.sync.peer import Peer
from netchan.node.roster import Roster
from netchan.node.session import PeerCore
from netchan.sync.node_waits import new_waiter, wait_until


class Listener(Receiver[Peer]):
    """Peers that have dialled this node, in order of arrival; from ``listen``.

    ``with`` closes it, and with it every peer that came out of it. In a child after ``fork`` its calls raise
    ForkError.
    """

    __slots__ = ("_hall",)

    _hall: Hall | Roster

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        endpoint = channel_endpoint(Peer, hall.config.backlog)
        hall.give_to(Lobby(endpoint, Peer))
        super().__init__(endpoint)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be dialled, node id and port included: ``netchan.dial(listener.addresses[0], ...)``."""
        return self._hall.addresses

    @property
    def node_id(self) -> str:
        """Who we are to those who dial."""
        return self._hall.node_id

    def stats(self) -> ListenerStats:
        """A frozen snapshot: handshakes by result, refused strangers, failed accepts, peers waiting and alive."""
        return self._hall.stats(super().stats())

    # --- serving -----------------------------------------------------------------------------------------------------

    def serve(self, handler: Callable[[Peer], object], /, *, timeout: float | None = None) -> None:
        """Run ``handler(peer)`` on a thread of its own for every peer that comes.

        A handler that returns closes its peer; one that raises leaves it as by an exception and is logged;
        a ChannelError that escapes is an ordinary departure. Returns when the listener is closed and all
        handlers are done.

        TimeoutError: nobody came for ``timeout`` seconds; the handlers go on.
        """
        tasks = ThreadGroup()
        while True:
            try:
                peer = self.recv(timeout=timeout)
            except ChannelError:
                break
            tasks.start(_handle, handler, peer)
            del peer
        tasks.join()

    # --- leaving -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop accepting and begin to leave every peer. Returns at once. Idempotent.

        Raises:
            ForkError: the listener belongs to the parent process.
        """
        self._hall.leave()

    def stop(self) -> None:
        """The same as ``close``."""
        self.close()

    def aclose(self, *, timeout: float | None = None) -> None:
        """``close``, then wait until every peer's session is over, at most ``Config.close_timeout``.

        Raises:
            ForkError: the listener belongs to the parent process.

        TimeoutError after ``timeout`` seconds: the leaving goes on.
        """
        self.close()
        hall = self._hall
        wait_until(hall.is_empty, hall.end_waiters, new_waiter(hall.engine, timeout))

    def abort(self, code: int = 0, reason: str = "") -> None:
        """Stop accepting and leave every peer as by an exception; ``code`` and ``reason`` are for ``recv`` here.

        Arguments and errors as ``Sender.abort``; ForkError: the listener belongs to the parent process.
        """
        super().abort(code, reason)
        self._hall.leave_by_exception()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.aclose()
        else:
            self._hall.leave_by_exception()

    def _moves(self) -> tuple[list[Hall], list[PeerCore]]:
        """What a hand-over of it gives: listeners, and sessions that were dialled."""
        return [self._hall] if isinstance(self._hall, Hall) else [], []

    def __repr__(self) -> str:
        state = "closed" if self._hall.closed else "open"
        return f"<Listener {state} {' '.join(self.addresses)}>"

    def __del__(self) -> None:
        hall: Hall | None = getattr(self, "_hall", None)
        if hall is not None and hall.collected() and not sys.is_finalizing():
            warnings.warn(
                f"the listener at {' '.join(hall.addresses)} was garbage-collected without close(): its peers are left "
                "as by an exception; call close() or use 'async with'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        super().__del__()


def _handle(handler: Callable[[Peer], object], peer: Peer) -> None:
    try:
        with peer:
            handler(peer)
    except ChannelError as error:
        log.debug("peer %s departed: %s", peer.node_id, error)
    except Exception:
        log.exception("the handler of peer %s failed; its session is left as by an exception", peer.node_id)
