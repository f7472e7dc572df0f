"""The endpoint of a channel over a session that spills to disk.

Layer 5. What the session has no room for goes to a file (backlog.py), and from there into the session, in short steps
on the worker's thread (net/worker.py), posted when there is room: whatever the program does, as forward.py does it.

1. While the backlog holds anything every value goes there, so the order is that of acceptance. A value's position is
   what the session has accepted, and what lies here before it.
2. The mover stands aside in ``tx_waiters``: it is woken like the head, and the head is the first sender that waits for
   room in the file.
3. An end of the direction is put off until the backlog is through; an abort is not, and the mover clears up behind it.

The lock is held around the file and the step into the session, never around user code. Spec: docs/spec/channel-end.md
§8.1.
"""

# ruff: noqa: D102 - the contract of these methods is written once, at what they implement

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from time import monotonic
from typing import Any, Final, cast

from netchan._engine.engine_handle import Engine
from netchan.channel.backlog import Backlog, Undelivered, refuse_ends
from netchan.channel.base import ChannelStats, Level
from netchan.channel.forward import STEP_VALUES, StepWaiter, running
from netchan.channel.overflow import BLOCK, Terms
from netchan.channel.remote import RemoteEndpoint
from netchan.channel.spool import SpoolFault
from netchan.errors import ChannelError, Code
from netchan.markers import EMPTY, CarriesEnds
from netchan.net.aside import collect_from
from netchan.net.manager import check_fork
from netchan.net.wait import READY_SECONDS_MAX, Waiter, leaf_lock, run_aside
from netchan.net.worker import forks

PERMITS_MAX: Final = 1024
"""Permits that are out at once while nobody has said a capacity."""
_LOST: Final = 5
"""Of nc_over, as in remote.py."""
_log = logging.getLogger("netchan.session")


class Accepted:
    """What ``offer`` gives where the other side wants a rendezvous: the value is accepted, as everywhere here."""

    def __init__(self, number: int) -> None:
        self.number = number

    def settled(self) -> bool:
        return True

    @property
    def stranded(self) -> bool:
        return False

    def withdraw(self) -> bool:
        return False

    def let_go(self) -> None:
        return None


class SpillingEndpoint(RemoteEndpoint):
    """One end of a named channel of a peer, whose values go to a file where there is no room; see the module head.

    Attributes:
        backlogged: the mover is not through with the file.
    """

    def __init__(self, *args: Any, terms: Terms, **options: Any) -> None:
        assert terms.spill is not None
        self._backlog = Backlog(terms.spill, options["name"], options["peer_id"])
        self._held = leaf_lock()
        self._made = forks()
        self._mover = StepWaiter(self._step)
        self._permits = 0
        self._ending: int | None = None  # the end that was put off: 0 clean, else its code
        self._asked: list[tuple[int, Level]] = []
        self._offered = 0  # position of the value that is on offer
        super().__init__(*args, terms=terms._replace(overflow=BLOCK), **options)
        self.terms = terms
        self.plain_max = min(self.plain_max, self._backlog.longest)
        _ends.add(self)

    def encode(self, value: Any) -> Any:
        try:
            data = self.codec.encode(value)
        except CarriesEnds:
            raise refuse_ends() from None
        if len(data) > self.max_message:
            self._too_large(len(data))
        self._backlog.check_size(len(data))
        return data

    # --- sending -----------------------------------------------------------------------------------------------------

    def try_send(self, prepared: Any) -> int:
        check_fork(self._made)
        with self._held:
            return self._accept(prepared, anyway=False)

    def _accept(self, prepared: Any, *, anyway: bool) -> int:
        """Under the lock: the value's position; 0: no room, never so with ``anyway``. Raises as ``try_send``."""
        backlog = self._backlog
        if self._ending is not None:
            raise self.send_error()
        if not backlog:
            position = super().try_send(prepared)
            if position:
                return position
        else:
            self.check_send()
        if anyway:
            backlog.put_anyway(prepared, monotonic())
        elif backlog.has_room(len(prepared)):
            backlog.put(prepared, monotonic())
        else:
            return 0
        self._start()
        return super().sent() + len(backlog)

    def try_reserve(self) -> bool:
        check_fork(self._made)
        with self._held:
            self.check_send()
            capacity = super().capacity
            if self._permits >= (PERMITS_MAX if capacity is None else max(1, capacity)) or not self._room():
                return False
            self._permits += 1
        return True

    def unreserve(self) -> None:
        if not self._held.acquire(blocking=False):  # it may be a finaliser
            run_aside(self.unreserve)
            return
        try:
            self._permits -= 1
        finally:
            self._held.release()
        self.tx_waiters.nudge()

    def send_reserved(self, prepared: Any) -> int:
        with self._held:
            self._permits -= 1
            position = self._accept(prepared, anyway=True)
        if self.tx_waiters.waiting:
            self.tx_waiters.nudge()  # for another permit
        return position

    def try_send_many(self, values: Iterator[Any], limit: int) -> tuple[int, bool]:
        check_fork(self._made)
        done = 0
        until = monotonic() + READY_SECONDS_MAX  # a file takes longer than memory: others have their turn
        while done < limit and not (done and monotonic() > until):
            try:
                with self._held:
                    self.check_send()
                    if not self._room():
                        if not done:
                            self._backlog.tell_failure()
                        break
            except ChannelError:
                if done:
                    break
                raise
            value = next(values, EMPTY)
            if value is EMPTY:
                return done, True
            prepared = self.prepare(value)
            try:
                with self._held:
                    self._accept(prepared, anyway=True)
            except ChannelError:
                if done:
                    break
                raise
            done += 1
        return done, False

    def offer(self, source: Any, waiter: Waiter, *, many: bool = False) -> Accepted | None:  # type: ignore[override]
        if not self.tx_waiters.may_try(waiter):
            return None
        if many:
            done, over = self.try_send_many(source, 1)
            return Accepted(self.sent() if done else 0) if done or over else None
        return self._accepted(source)

    def offer_arm(self, prepared: Any, waiter: Waiter, token: Any) -> Accepted | None:  # type: ignore[override]
        return self._accepted(prepared) if self.tx_waiters.vacant() else None

    def _accepted(self, prepared: Any) -> Accepted | None:
        position = self.try_send(prepared)
        return Accepted(position) if position else None

    def can_send(self) -> bool:
        return self.send_over or self._room()

    def _room(self) -> bool:
        return (not self._backlog and super().can_send()) or self._backlog.has_room()

    @property
    def send_over(self) -> bool:
        return self._ending is not None or super().send_over

    @property
    def state(self) -> tuple[int, int, bool, int, bool, bytes]:
        over, rx, closing, code, by_us, reason = super().state
        return over, rx, closing or self._ending is not None, code, by_us, reason

    # --- progress ----------------------------------------------------------------------------------------------------

    def sent(self) -> int:
        with self._held:
            return super().sent() + len(self._backlog)

    def ask(self, level: Level, position: int) -> None:
        with self._held:
            there = super().sent()
            if position > there and (position, level) not in self._asked:
                heappush(self._asked, (position, level))
        if there:
            super().ask(level, min(position, there))

    def _ask_again(self) -> None:
        """What was asked for values that were here then."""
        with self._held:
            there = super().sent()
            due = []
            while self._asked and self._asked[0][0] <= there:
                due.append(heappop(self._asked))
        for position, level in due:
            super().ask(level, position)

    # --- ending ------------------------------------------------------------------------------------------------------

    def close_send(self) -> None:
        self._end(0)

    def end_after(self, code: int) -> None:
        self._end(code)

    def _end(self, code: int) -> None:
        """End the direction behind what is here. Finalisers come here, too."""
        if self.send_over:
            return
        if self._held.acquire(blocking=False):
            try:
                if not self.backlogged:
                    self._backlog.close()
                    self._end_now(code)
                    return
            finally:
                self._held.release()
        self._ending = code
        for queue in (self.tx_waiters, self.ack_waiters, self.end_waiters):
            queue.wake_all()
        self._mover.wake()  # also if the mover is not running: a sender may just be about to start it

    def _end_now(self, code: int) -> None:
        if code:
            super().end_after(code)
        else:
            super().close_send()

    def _undelivered(self, values: list[Any]) -> Sequence[Any]:
        return Undelivered(values, self._backlog, self._decode_own) if self._backlog else values

    # --- the mover ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Under the lock: something lies here."""
        if self.backlogged:
            return
        self.backlogged = True
        running.add(self)
        collect_from(cast("Engine", self.driver))
        self.tx_waiters.join(self._mover)
        self.tx_waiters.stand_aside(self._mover)
        self._mover.wake()  # room that came before it stood there was told to nobody

    def _stop(self) -> None:
        """Under the lock: nothing lies here any more, or nobody wants it."""
        if self.backlogged:
            self.backlogged = False
            running.discard(self)
            self.tx_waiters.leave(self._mover, _yes)
            self.ack_waiters.leave(self._mover, _no)

    def _step(self) -> None:
        """On the worker's thread: move what can be moved now."""
        self._mover.rearm()
        moved = 0
        try:
            with self._held:
                if super().send_over:
                    self._gone()
                    return
            while moved < STEP_VALUES and self._move():
                moved += 1
            if moved == STEP_VALUES:
                self._mover.wake()
        except ChannelError:
            with self._held:
                self._gone()
        except SpoolFault as fault:
            self._broken(f"a value that was on disk is lost: {fault}")
        except Exception:
            _log.exception("channel %r: a value could not be moved from the disk", self.name)
            self._broken("a value that was on disk could not be moved")
        if moved:
            if self._asked:
                self._ask_again()
            self.tx_waiters.nudge(self._mover)

    def _move(self) -> bool:
        """Move one value; False: nothing to do until somebody wakes us. Raises what ended the direction there."""
        with self._held:
            backlog = self._backlog
            if self._offered:
                if self.offer_state(self._offered) == 0:
                    return False
                self.offer_let_go(self._offered)
                self._offered = 0
                self.ack_waiters.leave(self._mover, _no)
            if not backlog:
                self._stop()
                if self._ending is not None and not super().send_over:
                    self._backlog.close()
                    self._end_now(self._ending)
                return False
            offers = super().capacity == 0
            if not (self.offer_room if offers else super().can_send()):
                return False
            data, stamp = backlog.peek()
            if offers:
                self._offered = position = self.try_offer(data)
                if position:
                    self.ack_waiters.join(self._mover)
            else:
                position = self.try_send_aged(data, int((monotonic() - stamp) * 1e9))
            if position:
                backlog.pop()
            return position != 0

    def _gone(self) -> None:
        """Under the lock: the direction is over. What lies here is for the report of a lost session, or for nobody."""
        self._stop()
        if self.state[0] != _LOST:
            self._backlog.close()

    def _broken(self, reason: str) -> None:
        self.abort(int(Code.DROPPED), reason[:200])
        with self._held:
            self._gone()

    # --- looking -----------------------------------------------------------------------------------------------------

    def stats(self) -> ChannelStats:
        with self._held:
            found = super().stats()
            spool = self._backlog.spool
            return replace(
                found,
                sent=found.sent + len(self._backlog),
                senders_waiting=found.senders_waiting - self.backlogged,
                on_disk=spool.count,
                on_disk_bytes=spool.used,
                spilled=spool.written,
                spilled_bytes=spool.written_bytes,
            )


_ends: Final[weakref.WeakSet[SpillingEndpoint]] = weakref.WeakSet()


def _after_fork() -> None:
    for end in list(_ends):
        end._held = leaf_lock()  # another thread may have held it, and there is none here


os.register_at_fork(after_in_child=_after_fork)


def _yes() -> bool:
    return True


def _no() -> bool:
    return False
