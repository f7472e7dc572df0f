"""``reserve``: room first, the value later.

Layer 5; netchan/sync/permit.py is made from this file by tools/async_to_sync.py. A reservation waits in the order of
the senders and then holds one place of the channel's capacity; its permit turns the place into a value in one step that
never waits. Spec: docs/spec/channel-end.md §2.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from netchan.channel.base import Endpoint
from netchan.channel.waits import (
    count_call,  # async-only
    new_waiter,
    wait_reserve,
)

S_contra = TypeVar("S_contra", contravariant=True)


class Permit(Generic[S_contra]):
    """One place, held for one value. Leave the ``async with`` of ``reserve``, or call ``release``, to give it back."""

    __slots__ = ("__weakref__", "_check", "_ep", "_held")

    def __init__(self, endpoint: Endpoint, check: Callable[[], object]) -> None:
        self._ep, self._check = endpoint, check
        self._held = True

    @property
    def held(self) -> bool:
        """True until the value was sent or the place was given back."""
        return self._held

    def send(self, value: S_contra, /) -> None:
        """Send one value in the place that is held; never waits.

        Raises:
            CodecError, MessageTooLarge: the value does not fit; the place is still held.
            ChannelClosed, ChannelAborted, SessionLost: the direction is over. RuntimeError: the place is gone.
        """
        if not self._held:
            raise RuntimeError("this permit was used or given back; reserve() again for the next value")
        self._check()
        prepare = self._ep.prepare
        prepared = value if prepare is None else prepare(value)
        self._held = False
        self._ep.send_reserved(prepared)

    def release(self) -> None:
        """Give the place back. Idempotent."""
        if self._held:
            self._held = False
            self._ep.unreserve()

    def __del__(self) -> None:
        if getattr(self, "_held", False):  # False: it was never made
            self.release()

    def __repr__(self) -> str:
        return f"<Permit {'held' if self._held else 'gone'} for channel {self._ep.name!r}>"


class Reservation(Generic[S_contra]):
    """What ``Sender.reserve`` returns: ``async with tx.reserve() as permit: permit.send(value)``. Enter it once."""

    __slots__ = ("_check", "_ep", "_permit")  # async-only
    # sync-only: __slots__ = ("_check", "_ep", "_permit", "_timeout")

    # async-only: begin
    def __init__(self, endpoint: Endpoint, check: Callable[[], object]) -> None:
        self._ep, self._check = endpoint, check
        self._permit: Permit[Any] | None = None

    # async-only: end
    # sync-only: def __init__(self, endpoint: Endpoint, check: Callable[[], object], timeout: float | None) -> None:
    # sync-only:     self._ep, self._check = endpoint, check
    # sync-only:     self._timeout = timeout
    # sync-only:     self._permit: Permit[Any] | None = None
    # sync-only:
    async def __aenter__(self) -> Permit[S_contra]:
        await count_call()  # async-only
        if self._permit is not None:
            raise RuntimeError("this reservation was entered before; call reserve() for each")
        self._check()
        ep = self._ep
        if ep.capacity == 0 or not ep.waits or ep.tx_waiters.waiting or not ep.try_reserve():
            waiter = new_waiter(self._ep)  # async-only
            # sync-only: waiter = new_waiter(self._ep, self._timeout)
            await wait_reserve(self._ep, self._check, waiter)
        permit = self._permit = Permit(self._ep, self._check)
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            self._permit.release()
