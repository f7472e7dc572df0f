"""The dialler's side of a session without a path: new connections until one of them leads back to it.

Layer: net (L3). Runs on the worker's thread, but for ``on_path``, which any thread may call.

1. The first attempt starts at once, the next ones after growing pauses with jitter: at least one a second for a minute,
   then at most ten seconds apart, until the lease is over. Addresses take turns, names are looked up each time.
2. Attempts connect side by side, at most ``CONNECTS`` of them. Only one JOIN is under way at a time: the answer to one
   that was given up must not count, because the other side follows the last one it got.
3. A path that is silent where it should not be is left when another connection is up, and only then.
4. The JOIN that is answered wins; the session goes on over its connection, and a ratchet is started.

Spec: docs/spec/handshake.md §11; docs/spec/session.md §5.2.
"""

from __future__ import annotations

import os
import random
import socket
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from netchan.net import gate, resume
from netchan.net.address import Address
from netchan.net.connecting import Connecting, Dialling
from netchan.net.join import MAX_PATH, Joiner
from netchan.net.machine import Joined
from netchan.net.places import numeric, resolve
from netchan.net.worker import Timer, Worker, worker

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.net.dial import DialPlan

FIRST_NS: Final = 50_000_000
"""Pause behind the first attempt; doubled for each further one."""
EAGER_NS: Final = 1_000_000_000
"""Longest pause of the first minute (core of the promise: traffic soon after a path can be had)."""
EAGER_SPAN_NS: Final = 60_000_000_000
LAZY_NS: Final = 10_000_000_000
"""Longest pause afterwards."""
CONNECTS: Final = 3
"""Connections of one session that are being made at a time: bounds what a network that drops everything costs."""
CONNECT_NS: Final = 10_000_000_000
"""A connection that has not come up is given up for another one after this: TCP asks again after 1, 3 and 7 s."""
STEADY_NS: Final = 1_000_000_000
"""A path that was lost sooner than this behind its JOIN does not count as one: the pauses go on growing."""
ANSWER_NS: Final = 1_000_000_000
"""Least time for the answer to a JOIN; more where connecting took long."""


class Redial(Dialling):
    """Brings one session back whenever it has lost its path; made when it was dialled.

    Args:
        session: held weakly.
        plan: of the dial; node: the other side's identity, 32 bytes, and node_id its name.
        carriers: carrier name -> the engine's number.
        turn: starts a ratchet of the session.
    """

    def __init__(
        self,
        session: Session,
        plan: DialPlan,
        node: bytes,
        node_id: str,
        carriers: dict[str, int],
        turn: Callable[[Session], object],
    ) -> None:
        self._session = weakref.ref(session)
        self._plan, self._node, self._node_id, self._carriers, self._turn = plan, node, node_id, carriers, turn
        self._worker: Worker = worker()
        self._live: dict[Connecting, tuple[Address, int]] = {}
        self._joining: Connecting | None = None
        self._timer: Timer | None = None
        self._looking = False
        self._attempts = 0
        self._since_ns = 0
        self._up_ns = -STEADY_NS
        self._resumes = 0
        self._path_id = 0

    def on_path(self, news: str) -> None:
        """See Session.on_path; any thread."""
        if news != "up":
            self._worker.post(self._begin)

    # --- the worker's thread ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        session = self._wanted()
        if session is None:
            return
        if session.suspended:
            resume.note(self._session, self._node_id, self._plan.addresses[0].location, "lost")
        if self._timer is not None:
            return
        now = time.monotonic_ns()
        if now - self._up_ns < STEADY_NS:
            self._timer = self._worker.at(now + self._pause(now), self._attempt)
            return
        self._attempts = 0
        self._since_ns = now
        self._attempt()

    def _wanted(self) -> Session | None:
        session = self._session()
        return session if session is not None and (session.suspended or session.suspect) else None

    def _attempt(self) -> None:
        """Start one attempt, and the timer of the next."""
        self._timer = None
        if self._wanted() is None:
            self._stop()
            return
        now = time.monotonic_ns()
        self._timer = self._worker.at(now + self._pause(now), self._attempt)
        address = self._plan.addresses[self._attempts % len(self._plan.addresses)]
        self._attempts += 1
        joining = self._joining
        if joining is not None and joining.machine is not None and joining.machine.deadline_ns is not None:
            if joining.machine.deadline_ns > now:
                return  # an answer may be on its way
            joining.close()
        if address.is_numeric:
            try:
                self._connect(address, *numeric(address))
            except OSError:
                pass  # the next attempt
        elif not self._looking:
            self._looking = True
            resolve(address.host, address.port, partial(self._resolved, address))

    def _pause(self, now: int) -> int:
        if now - self._since_ns < EAGER_SPAN_NS:
            most = min(EAGER_NS, FIRST_NS << min(self._attempts, 10))
            return int(most * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        return int(random.uniform(EAGER_NS, LAZY_NS))  # noqa: S311

    def _resolved(self, address: Address, found: list[tuple[int, Any]] | OSError) -> None:
        self._looking = False
        if self._wanted() is None or self._joining is not None or isinstance(found, OSError) or not found:
            return
        family, sockaddr = found[(self._attempts // len(self._plan.addresses)) % len(found)]
        self._connect(address, family, sockaddr)

    def _connect(self, address: Address, family: int, sockaddr: Any) -> None:
        began = time.monotonic_ns()
        if len(self._live) >= CONNECTS:
            oldest = next(iter(self._live))
            if began - self._live[oldest][1] < CONNECT_NS:
                return
            oldest.close()
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            return
        conn = Connecting(self._worker, sock, self, address.location)
        conn.begin = partial(self._join, conn, began)
        self._live[conn] = (address, began)
        try:
            conn.connect_to(sockaddr)
        except OSError:
            conn.close()

    def _join(self, conn: Connecting, began: int) -> Joiner | None:
        """A connection is up: the JOIN goes over this one, and over no other any more. None: it is not needed."""
        joining = self._joining
        if joining is not None and joining.machine is not None and joining.machine.deadline_ns is not None:
            return None  # an answer may be on its way
        session = self._wanted()
        if session is None or not (session.suspended or session.part()):
            return None  # the path has answered after all
        self._joining = conn
        self._path_id += 2
        if self._path_id > MAX_PATH:
            raise OverflowError("a session has no further path ids")
        last, received = session.path()
        took = time.monotonic_ns() - began
        plan = self._plan
        network = plan.handshake.network_id
        keys = gate.named_keys(self._node, network) if plan.psk is None else gate.psk_keys(plan.psk, network)
        return Joiner(
            session,
            plan.handshake.primitives,
            keys,
            os.urandom,
            number=self._resumes,
            path_id=self._path_id,
            last=last,
            received=received,
            where=conn.where,
            timeout_ns=max(ANSWER_NS, min(4 * took + ANSWER_NS // 4, plan.handshake.timeout_ns)),
        )

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for conn in list(self._live):
            conn.close()
        self._joining = None

    # --- Connecting's owner -------------------------------------------------------------------------------------------

    def on_joined(self, conn: Connecting, event: Joined) -> None:
        """The session goes on over this connection."""
        entry = self._live.get(conn)
        session = self._wanted()
        if entry is None or session is None or self._joining is not conn:
            conn.close()
            return
        address, _ = entry
        self._resumes += 1
        done = session.resume(
            conn.take_fd(),
            carrier=self._carriers[address.carrier],
            path_id=event.path_id,
            last=event.last,
            received=event.received,
            binding=event.binding,
            early=event.leftover,
        )
        if not done:
            return  # the timer tries again
        self._stop()
        self._up_ns = time.monotonic_ns()
        resume.note(self._session, self._node_id, address.location, "up")
        self._turn(session)

    def on_failed(self, conn: Connecting, error: BaseException, reason: str) -> None:
        """The timer tries again, unless the other side has ended the session."""
        session = self._session()
        if isinstance(conn.machine, Joiner) and conn.machine.over and session is not None:
            session.lose()
            self._stop()

    def on_over(self, conn: Connecting) -> None:
        """Forget it."""
        self._live.pop(conn, None)
        if self._joining is conn:
            self._joining = None

    def ask(self, pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        """Never: no policy is asked here."""
        answer(False)
