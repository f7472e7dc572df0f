"""What a process does for an end that it gave away in a value: it forwards.

Layer 5. The channel stays here; the other process has one end of ``far``, a channel of its own (moving.py). ``Inward``
brings values from there into the channel, and takes one only when there is room for it: nothing is held in between.
``Outward`` offers the head of the channel while somebody over there waits, one value at a time, by the rule of capacity
0; what is not taken goes back to the head.

Everything runs in short steps on the worker's thread (net/worker.py), posted by the wake-ups of the queues it stands
in, so it goes on whatever the program does and needs no lock of its own. Spec: docs/spec/channel-end.md §9.
"""

# ruff: noqa: D102 - the contract of the parts' methods is written once, at _Part

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from netchan._engine.waitq import Waiter
from netchan.channel.base import Endpoint
from netchan.channel.flow import LocalOffer
from netchan.errors import (
    ChannelAborted,
    ChannelClosed,
    ChannelEnded,
    ChannelError,
    Code,
    CodecError,
    SessionLost,
)
from netchan.markers import EMPTY
from netchan.net.aside import collect_from
from netchan.net.worker import worker

if TYPE_CHECKING:
    from netchan._engine.engine_handle import Engine
    from netchan.channel.base import Offer
    from netchan.channel.remote import RemoteEndpoint

STEP_VALUES: Final = 64
"""Values that one step forwards before others have their turn."""

_log = logging.getLogger("netchan.session")
running: set[object] = set()
"""Forwards and watches that are not through: nobody else holds them."""


class StepWaiter(Waiter):
    """A waiter whose wake-up posts a step to the worker."""

    __slots__ = ("_step",)

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__(None)
        self._step = step

    def _notify(self) -> None:
        worker().post(self._run)

    def _run(self) -> None:
        worker().give_way()  # a step may move many values, and those who serve channels go first
        self._step()


class Kept:
    """The place of a handle that was given away, among the handles of its channel.

    Args:
        endpoint: of the channel.
        kind: bits of channel.moving: 1 it sends, 2 it receives.
        counted: it was a ``Sender`` half.
    """

    def __init__(self, endpoint: Endpoint, kind: int, *, counted: bool) -> None:
        self.endpoint = endpoint
        self.counted = counted
        handles = endpoint.handles
        if kind & 1:
            handles.sending.add(id(self))
        if kind & 2:
            handles.receiving.add(id(self))
        if counted:
            handles.counted.add(id(self))

    def _leave(self) -> tuple[bool, bool]:
        """Give the places up: (no sender is left, no receiver is left), of those that there were here."""
        handles, me = self.endpoint.handles, id(self)
        sent, received = me in handles.sending, me in handles.receiving
        for holders in (handles.sending, handles.receiving, handles.counted):
            holders.discard(me)
        return sent and not handles.sending, received and not handles.receiving

    def close(self, *, clean: bool) -> None:
        """The holder over there closed it, or left it by an exception."""
        endpoint, handles = self.endpoint, self.endpoint.handles
        if not clean:
            handles.unclean = True
        handles.counted.discard(id(self))
        if not self.counted or not handles.counted:
            if handles.unclean:
                endpoint.close_unclean()
            else:
                endpoint.close_send()

    def drop(self) -> None:
        """The holder over there lost it, or never got it: as if it had been collected here."""
        sender, receiver = self._leave()
        if sender:
            self.endpoint.drop_send()
        if receiver:
            self.endpoint.drop_recv()

    def lose(self, error: SessionLost) -> None:
        """The session of the holder is lost: whoever waits for it here gets that, not an end."""
        sender, receiver = self._leave()
        if sender or receiver:
            self.endpoint.lose(error, send=sender, recv=receiver)


class Forward:
    """One end that was given away.

    Args:
        kept: its place here.
        far: our end of the channel whose other end the receiver of the value gets.
        inward: values come from there. outward: values go there.
    """

    def __init__(self, kept: Kept, far: RemoteEndpoint, *, inward: bool, outward: bool) -> None:
        self.kept, self.far = kept, far
        self.parts: list[Inward | Outward] = []
        if inward:
            self.parts.append(Inward(self))
        if outward:
            self.parts.append(Outward(self))
        self.over = False

    def start(self) -> None:
        """Begin; from any thread, once."""
        running.add(self)
        for endpoint in (self.far, self.kept.endpoint):
            if endpoint.far:
                collect_from(cast("Engine", endpoint.driver))
        for part in self.parts:
            part.waiter.wake()

    def finish(self) -> None:
        """Both directions are through, or one ended the whole."""
        if self.over:
            return
        self.over = True
        for part in self.parts:
            part.leave()
        running.discard(self)

    def part_over(self, part: Inward | Outward) -> None:
        """One direction is through."""
        part.leave()
        self.parts.remove(part)
        if not self.parts:
            self.over = True
            # A holder that only sends gets nothing from us; our direction stayed open to tell it of an abort.
            self.far.close_send()
            self.kept._leave()
            running.discard(self)

    def aborted(self, error: ChannelAborted) -> None:
        """The holder over there aborted it, or lost it."""
        self.finish()
        if error.code == Code.DROPPED:
            self.kept.drop()
        elif error.code == Code.LEFT_BY_EXCEPTION:
            self.kept.close(clean=False)
            self.kept._leave()
        else:
            self.kept.endpoint.abort(error.code, error.reason)

    def lost(self, error: SessionLost) -> None:
        """The session of the holder is lost."""
        self.finish()
        self.kept.lose(error)

    def forget(self) -> None:
        """In a forked child: what is forwarded is the parent's, and nobody here waits behind it."""
        self.over = True
        for part in self.parts:
            part.forget()
        self.kept._leave()

    def misfit(self, error: CodecError) -> None:
        """A value cannot go the way that it should: the holder over there is told, and has nothing here any more."""
        self.finish()
        self.far.abort(int(Code.TYPE_MISMATCH), str(error)[:200])
        self.kept.drop()

    def broken(self) -> None:
        """A fault of ours: nobody is left waiting for what does not come."""
        _log.exception("channel %r: a value could not be forwarded", self.far.name)
        self.finish()
        self.far.abort(int(Code.DROPPED), "the process between could not forward")
        self.kept.drop()

    def never_received(self) -> None:
        """The value that carried it will not be received."""

        def give_up() -> None:
            if not self.over:
                self.finish()
                self.far.abort(int(Code.DROPPED), "")
                self.kept.drop()

        worker().post(give_up)

    def local_over(self, error: ChannelError) -> None:
        """The channel here is over: the holder over there is told why."""
        if isinstance(error, ChannelAborted):
            self.finish()
            self.far.abort(error.code, error.reason)
        else:  # the session behind it was lost, for a channel of another session
            self.finish()
            self.far.abort(int(Code.DROPPED), "the session of the channel behind this one is lost")
        self.kept._leave()


class _Part:
    """One direction of a forward: short steps, and one offer that may be out."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.far = forward.far
        self.here = forward.kept.endpoint
        self.waiter = StepWaiter(self.step)
        self.offer: Offer | None = None
        self.value: Any = EMPTY  # what it offers, where this process has the value meanwhile
        self.queued = False  # in the line of the channel here

    def step(self) -> None:
        """Forward what can be forwarded now."""
        self.waiter.rearm()
        if self.forward.over or self not in self.forward.parts:
            return
        try:
            for _ in range(STEP_VALUES):
                if not self._one():
                    return
        except ChannelError as error:
            self._over_there(error)
        except CodecError as error:
            self.forward.misfit(error)
        except Exception:
            self.forward.broken()
        else:
            self.waiter.wake()

    def leave(self) -> None:
        """Stand in no queue any more, with nothing on offer."""
        raise NotImplementedError

    def forget(self) -> None:
        """In a forked child: out of the queues of the channel."""
        raise NotImplementedError

    def _one(self) -> bool:
        """Forward one value; False: nothing to do until somebody wakes us. Raises what ended the direction there."""
        raise NotImplementedError

    def _over_there(self, error: ChannelError) -> None:
        """The direction is over on the side of the holder."""
        raise NotImplementedError


class Inward(_Part):
    """Values from over there into the channel."""

    def __init__(self, forward: Forward) -> None:
        super().__init__(forward)
        self.far.rx_waiters.join(self.waiter)
        self.here.end_waiters.join(self.waiter)

    def leave(self) -> None:
        self.far.rx_waiters.leave(self.waiter, _no)
        self.here.end_waiters.leave(self.waiter, _no)
        self._unqueue()
        if self.offer is not None:
            self.offer.withdraw()
            self.offer.let_go()
            self.offer = None

    def forget(self) -> None:
        self.here.end_waiters.leave(self.waiter, _no)
        self.here.tx_waiters.leave(self.waiter, _no)
        if isinstance(self.offer, LocalOffer):
            self.offer.endpoint.tx.offers.pop(self.offer, None)

    def _unqueue(self) -> None:
        if self.queued:
            self.queued = False
            self.here.tx_waiters.leave(self.waiter, self.here.can_send)

    def _one(self) -> bool:
        here, far = self.here, self.far
        if self.offer is not None and not self._settled():
            return False
        if far.recv_over:
            far.try_recv()  # raises
        if here.send_over:  # told at once, also to a holder that sends nothing
            self._over_here()
            return False
        if not far.can_recv():
            self._unqueue()
            return False
        if here.capacity == 0:
            return self._offer_on() if here.far else self._lay_out()
        waits = here.waits
        if waits and not self._place():
            return False
        prepared = EMPTY
        try:
            value = far.try_recv()
            if value is EMPTY:
                return True
            prepare = here.prepare
            prepared = value if prepare is None else prepare(value)
        finally:
            if waits and prepared is EMPTY:
                here.unreserve()
        if waits:
            here.send_reserved(prepared)
        else:
            here.try_send(prepared)
        return True

    def _place(self) -> bool:
        """Hold a place here, in the order of the senders."""
        here, queue = self.here, self.here.tx_waiters
        if not self.queued and not queue.vacant():
            queue.join(self.waiter)
            self.queued = True
        if self.queued and not queue.turn(self.waiter):
            return False
        if not here.try_reserve():
            if not self.queued:
                queue.join(self.waiter)
                self.queued = True
                return here.can_send()
            return False
        self._unqueue()
        return True

    def _lay_out(self) -> bool:
        """Offer what is offered there; it is taken there in the step in which somebody takes it here."""
        self.offer = offer = self.here.offer(self._items(), self.waiter, many=True)
        return offer is not None and offer.settled()

    def _offer_on(self) -> bool:
        """Offer the next value over the network, once somebody waits for one; untaken it is the next one again."""
        here, far, queue = cast("RemoteEndpoint", self.here), self.far, self.here.tx_waiters
        if not self.queued:
            queue.join(self.waiter)
            self.queued = True
        queue.stand_aside(self.waiter, False)
        # Asked first: it is what has us told of a change.
        if not here.wanted or not here.offer_room or not queue.turn(self.waiter):
            return False
        value = far.try_recv()
        if value is EMPTY:
            return True
        offer = here.offer(here.prepare(value), self.waiter)
        if offer is None:
            far.put_back(value)
            return False
        queue.join(self.waiter)  # an offer that is out has left the queue; this one hears when nobody waits any more
        queue.stand_aside(self.waiter)
        self.offer, self.value = offer, value
        return True

    def _items(self) -> Iterator[Any]:
        try:
            value = self.far.try_recv()
        except ChannelError:
            return
        if value is not EMPTY:
            yield value

    def _settled(self) -> bool:
        offer = self.offer
        assert offer is not None
        back: bool | None = False
        try:
            done = offer.settled()
        except ChannelError:
            done = True  # the channel here is over: the next look sees it
        if not done and not (self.here.wanted if self.here.far else self.far.can_recv()):
            back = offer.withdraw()
            done = back is not None
        if done:
            offer.let_go()
            self.offer = None
            value, self.value = self.value, EMPTY
            if back and value is not EMPTY:
                self.far.put_back(value)
        return done

    def _over_there(self, error: ChannelError) -> None:
        forward = self.forward
        if not forward.far.paired and isinstance(error, (ChannelEnded, ChannelClosed)):
            forward.finish()  # the other side left, and had never got it
            forward.far.close_send()
            forward.kept.drop()
        elif isinstance(error, ChannelEnded):
            forward.kept.close(clean=True)
            forward.part_over(self)
        elif isinstance(error, ChannelAborted):
            forward.aborted(error)
        elif isinstance(error, SessionLost):
            forward.lost(error)
        else:
            forward.kept.drop()
            forward.part_over(self)

    def _over_here(self) -> None:
        try:
            self.here.check_send()
        except ChannelClosed:
            self.far.stop_recv()
            self.forward.part_over(self)
        except ChannelError as error:
            self.forward.local_over(error)


class Outward(_Part):
    """Values of the channel to whoever waits for them over there."""

    def __init__(self, forward: Forward) -> None:
        super().__init__(forward)
        self.far.tx_waiters.join(self.waiter)  # to be told when somebody waits over there

    def leave(self) -> None:
        self._unqueue()
        self.far.tx_waiters.leave(self.waiter, _no)
        if self.offer is not None:
            offer, self.offer = self.offer, None
            taken = offer.withdraw() is False
            offer.let_go()
            if not taken:
                self._give_back()

    def forget(self) -> None:
        self.here.rx_waiters.leave(self.waiter, _no)

    def _unqueue(self) -> None:
        if self.queued:
            self.queued = False
            self.here.rx_waiters.leave(self.waiter, self.here.can_recv)
            self.here.parked(len(self.here.rx_waiters))

    def _give_back(self) -> None:
        value, self.value = self.value, EMPTY
        self.here.put_back(value)

    def _one(self) -> bool:
        far = self.far
        if self.offer is not None:
            return self._settled(self.offer)
        if far.send_over:
            raise far.send_error()
        if not far.wanted or not far.paired:  # asked first: it is what has us told of a change
            self._unqueue()
            return False
        return self._next()

    def _settled(self, offer: Offer) -> bool:
        """True when the offer is out no more."""
        if offer.settled():
            self.value = EMPTY
        elif self.far.wanted:
            return False
        else:
            answer = offer.withdraw()
            if answer is None:
                return False
            if answer:
                self._give_back()
            else:
                self.value = EMPTY
        self.offer = None
        offer.let_go()
        return True

    def _next(self) -> bool:
        """Offer the head of the channel here, in the order of the receivers."""
        here = self.here
        if not self.queued:
            here.rx_waiters.join(self.waiter)
            self.queued = True
            here.parked(len(here.rx_waiters))
        if not here.rx_waiters.turn(self.waiter):
            return False
        try:
            value = here.try_recv()
        except ChannelError as error:
            self._over_here(error)
            return False
        if value is EMPTY:
            return False
        self._unqueue()
        self.value = value
        try:
            prepared = self.far.prepare(value)
        except CodecError:
            self._give_back()
            raise
        offer = self.far.offer(prepared, self.waiter)
        if offer is None:
            self._give_back()
            return False
        self.far.tx_waiters.join(self.waiter)  # an offer that is out has left it; this one hears when nobody waits
        self.offer = offer
        return True

    def _over_there(self, error: ChannelError) -> None:
        forward = self.forward
        if isinstance(error, SessionLost):
            forward.lost(error)
        elif isinstance(error, ChannelAborted):
            forward.aborted(error)
        else:  # it stopped, or was collected
            forward.part_over(self)
            handles, me = forward.kept.endpoint.handles, id(forward.kept)
            handles.receiving.discard(me)
            if not handles.receiving:
                forward.kept.endpoint.drop_recv()

    def _over_here(self, error: ChannelError) -> None:
        far = self.far
        if isinstance(error, ChannelAborted) and error.code in (Code.DROPPED, Code.LEFT_BY_EXCEPTION):
            far.end_after(error.code)
            self.forward.part_over(self)
        elif isinstance(error, (ChannelEnded, ChannelClosed)):
            far.close_send()
            self.forward.part_over(self)
        else:
            self.forward.local_over(error)


class Watch:
    """Sees to it that ends whose value is never received are dropped.

    Args:
        parent: what carries the value.
        position: of the value.
        forwards: of its ends.
    """

    def __init__(self, parent: RemoteEndpoint, position: int, forwards: list[Forward]) -> None:
        self._parent, self._position, self._forwards = parent, position, forwards
        self._waiter = StepWaiter(self.step)

    def start(self) -> None:
        """Begin; from any thread, once."""
        running.add(self)
        self._parent.ack_waiters.join(self._waiter)
        self._parent.ask("taken", self._position)
        self._waiter.wake()

    def step(self) -> None:
        """Look whether the value was taken."""
        self._waiter.rearm()
        if self not in running:
            return
        try:
            if not self._parent.reached("taken", self._position):
                return
        except ChannelError:
            for forward in self._forwards:
                forward.never_received()
        running.discard(self)
        self._parent.ack_waiters.leave(self._waiter, _no)


def _no() -> bool:
    return False


def _after_fork() -> None:
    for one in list(running):
        if isinstance(one, Forward):
            one.forget()
    running.clear()


os.register_at_fork(after_in_child=_after_fork)
