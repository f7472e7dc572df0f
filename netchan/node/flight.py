"""One dial for all who want the same peer at the same time.

Layer 6: no waiting, no sockets. ``join`` and ``part`` on any thread, the rest on the worker's.
Spec: docs/spec/node.md §3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from netchan.net.dial import Dial
from netchan.net.wait import WaitQueue, leaf_lock
from netchan.node.hints import Hint


class Flight:
    """See the module head.

    Args:
        attempt: the dial; it makes what all of them get.
        instead: asked for a peer when the dial has failed; None: there is none.
        over: called once, when its result is there and before anybody hears of it.

    Attributes:
        waiters: woken when ``done``.
        done: ``result`` gives it.
    """

    def __init__(self, attempt: Dial[Any], instead: Callable[[], Any], over: Callable[[], object]) -> None:
        self.attempt, self.waiters = attempt, WaitQueue()
        self.done = False
        self._instead, self._over = instead, over
        self._lock = leaf_lock()
        self._joined = 0
        self._peer: Any = None
        self._error: BaseException | None = None
        self._hint = Hint(self._finish)

    def start(self) -> None:
        """Begin."""
        self.attempt.outcome.queue.join(self._hint)
        self.attempt.start()

    def join(self) -> bool:
        """One more waits; False: it is over, or was given up."""
        with self._lock:
            if self._joined < 0 or self.done:
                return False
            self._joined += 1
            return True

    def part(self) -> bool:
        """One waits no more; True: it was the last one, and the dial is given up if it still goes on."""
        with self._lock:
            self._joined -= 1
            if self._joined or self.done:
                return False
            self._joined = -1
        self.attempt.cancel()
        return True

    def is_done(self) -> bool:
        """``done`` as a function."""
        return self.done

    def result(self) -> Any:
        """The peer. Raises what the dial failed with, a copy for each."""
        if self._error is not None:
            raise copy.copy(self._error)
        return self._peer

    def settle(self, peer: object) -> None:
        """There is a session without it: the dial is given up."""
        with self._lock:
            if self.done:
                return
            self._peer, self.done = peer, True
        self.attempt.cancel_here()
        self._over()
        self.waiters.wake_all()

    def _finish(self) -> None:
        peer = error = None
        if self.done:
            return
        try:
            peer = self.attempt.outcome.take()
        except BaseException as why:
            peer, error = self._instead(), why
        with self._lock:
            self._peer, self._error = peer, None if peer is not None else error
            self.done = True
        self._over()
        self.waiters.wake_all()
