# Made from netchan/node/peer.py by tools/async_to_sync.py: edit that file, then run the tool.
# ruff: noqa: I001, RUF100 - the order is that of the source
"""``Peer``: the node at the other end of a session, as an object to open channels on.

Layer 6; netchan/sync/peer.py is made from this file by tools/async_to_sync.py. All state is in session.py; this adds
waiting, iteration and the with-statement. May be used from any task, loop and thread.
Spec: docs/spec/session.md §3, §7.
"""

from __future__ import annotations

import sys
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

from netchan.sync.fronts import FRONT, Channel
from netchan.channel.overflow import Overflow
from netchan.sync.receiver import Receiver
from netchan.channel.redundancy import Redundancy, RedundancyInfo
from netchan.sync.sender import Sender
from netchan.errors import DialError
from netchan.node.paths import (
    PathInfo,
    add_path,
    paths_of,
    redundancy_info,
    redundancy_of,
    remove_path,
    set_redundancy,
    set_standby,
)
from netchan.node.session import PeerCore
from netchan.sync.node_waits import new_waiter, wait_until
from netchan.sync.watching import PeerEvents

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from netchan.errors import NetchanError, SessionLost

T = TypeVar("T")


class Peer:
    """The other side of one session; comes from ``dial`` or out of a listener.

    Iterate over it for the channels that the other side opens. ``with`` closes it: cleanly when the block ends,
    and so that the other side sees ChannelAborted when the block is left by an exception. In a child after ``fork`` its
    calls raise ForkError.
    """

    __slots__ = ("__weakref__", "_core")

    def __init__(self, core: PeerCore) -> None:
        self._core = core
        core.begin(self)

    # --- who and where -----------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        """Who it is: the 52 characters of its identity, proved in the handshake."""
        return self._core.link.node_id

    @property
    def local_address(self) -> str:
        """Our end of the path, such as ``tcp://192.0.2.1:40212``."""
        return self._core.link.local

    @property
    def remote_address(self) -> str:
        """The other end of the path."""
        return self._core.link.remote

    @property
    def by_ticket(self) -> bool:
        """True if the session began with a ticket of an earlier one (``dial(..., ticket=)``), not a full handshake."""
        return self._core.link.by_ticket

    @property
    def capabilities(self) -> frozenset[int]:
        """What both sides can of the application's capabilities: the numbers that both ``Config(capabilities=)`` have.

        Agreed when the session began, and the same for all of its life, in a process that takes it over, too.
        """
        return self._core.link.caps

    @property
    def ticket(self) -> bytes | None:
        """What lets the next dial of this node be shorter, from another process too: ``dial(..., ticket=)``.

        300 to 2500 bytes, good for one dial within about a day, by the same ``identity=`` only, whose key seals them.
        None: none has come yet (``wait_ticket``), or none will: the other side has dialled, one side has
        ``Config(tickets=0)``, or the dial was without ``identity=``. A newer one comes now and then; each is good once.

        Raises:
            ConfigError: the identity was closed. ForkError: the session belongs to the parent process.
        """
        return self._core.ticket()

    def wait_ticket(self, *, timeout: float | None = None) -> bytes | None:
        """As ``netchan.Peer.wait_ticket``. TimeoutError: none has come within ``timeout`` seconds."""
        core = self._core
        wait_until(core.has_ticket, core.ticket_waiters, new_waiter(core.engine, timeout))
        return core.ticket()

    @property
    def path_count(self) -> int:
        """Paths that are up; 0 while the session waits for another one, and once it is over."""
        return 0 if self._core.over else len(self._core.session.paths())

    @property
    def paths(self) -> tuple[PathInfo, ...]:
        """The paths that are up, oldest first; empty while the session waits for one, and once it is over."""
        return () if self._core.over else paths_of(self._core.session, self._core.link.remote)

    @property
    def redundancy(self) -> Redundancy:
        """What several paths are used for in the direction of this side; may be set at any time.

        "failover" (the default): one path carries everything, the others stand by. "stripe": what is sent in bulk goes
        over all of them at once; small and ordered traffic stays on one. "mirror": everything goes over all of them,
        and what arrives first counts. "parity(k, m)": bulk data goes over all of them in groups of up to k symbols,
        with m more (k + m at most 32) that make up for any m that are lost, without a wait; on P paths k is
        m * (P - 1) at most, so that one path may vanish. "auto": one of these, as paths and traffic are; see
        ``redundancy_info``. What is sent on a path that falls silent or is lost goes again over another, in any case. A
        channel may have a mode of its own. ConfigError: another word, or k and m that cannot be.
        """
        return redundancy_of(self._core.session)

    @redundancy.setter
    def redundancy(self, mode: Redundancy) -> None:
        set_redundancy(self._core.session, mode)

    @property
    def redundancy_info(self) -> RedundancyInfo:
        """What several paths are used for now, why, and what is known of them.

        Raises:
            ForkError: the session belongs to the parent process.
        """
        return redundancy_info(self._core.session)

    def add_path(self, address: str, *, timeout: float | None = None) -> PathInfo:
        """As ``netchan.Peer.add_path``. TimeoutError after ``timeout`` seconds: it may still come up."""
        outcome = add_path(self._core, address)
        wait_until(outcome.is_done, outcome.queue, new_waiter(self._core.engine, timeout))
        number = outcome.take()
        found = [path for path in self.paths if path.id == number]
        if not found:
            raise DialError(f"the path to {address} was lost as soon as it was made; it is made again, see peer.paths")
        return found[0]

    def remove_path(self, path: PathInfo | int) -> None:
        """End one of several paths; what was sent on it goes again over another. Returns at once.

        Args:
            path: one of ``paths``, or its ``id``.

        Raises:
            ConfigError: there is no such path, it is the only one, or the session was dialled by the other side.
            ForkError: the session belongs to the parent process.
        """
        remove_path(self._core, path)

    def set_standby(self, path: PathInfo | int, standby: bool = True) -> None:
        """Use a path only where no other one lives, such as one that costs money, or no more so. Returns at once.

        Both sides then send nothing over it but what shows that it is there, in every mode. It takes over when the last
        other path is suspect or lost, and gives way when one is heard again. It holds for the path; on the side that
        dialled also for those that are made in its place.

        Args:
            path: one of ``paths``, or its ``id``.
            standby: False takes back what this side said; what the other side said stays.

        Raises:
            ConfigError: there is no such path, or the session can have only one.
            ForkError: the session belongs to the parent process.
        """
        set_standby(self._core, path, standby)

    @property
    def events(self) -> PeerEvents:
        """What becomes of the session and its paths, to iterate over; kept from the first use of this on.

        ForkError: the session belongs to the parent process.
        """
        self._core.events()
        return PeerEvents(self._core)

    @property
    def closed(self) -> bool:
        """True when the session is over or is being left."""
        return self._core.left or self._core.over

    @property
    def loss_cause(self) -> BaseException | None:
        """The fault that ended the session; None while it lives and after a clean end."""
        return self._core.loss_cause()

    @property
    def lost(self) -> tuple[SessionLost, ...]:
        """What was lost with the session: one report for each channel with values that are not known to be taken.

        Each says which ``channel`` it is of, and has ``undelivered`` and ``in_doubt``: the same that its calls raise.
        Empty while the session lives, after a clean end, and where everything is known to be taken.
        """
        return self._core.lost()

    @property
    def error(self) -> NetchanError | None:
        """What iteration raises at the end: None while the session lives and after a clean end."""
        return self._core.end_error() if self._core.over else None

    def stats(self) -> dict[str, int]:
        """Counts of the session so far: messages, records, bytes, ``rtt_us`` (0 without a sample), channels, rekeys."""
        return dict(self._core.session.stats())

    # --- channels ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _handles() -> tuple[type[Sender[Any]], type[Receiver[Any]], type[Channel[Any]]]:
        """The classes of this front, for ends that come in a value."""
        return FRONT

    @overload
    def open(
        self,
        name: str,
        *,
        capacity: int | None = ...,
        overflow: Overflow | None = ...,
        ttl: float | None = ...,
        trunk: bool = ...,
        redundancy: Redundancy | None = ...,
    ) -> Channel[Any]: ...
    @overload
    def open(
        self,
        name: str,
        type: TypeForm[T],
        *,
        capacity: int | None = ...,
        overflow: Overflow | None = ...,
        ttl: float | None = ...,
        trunk: bool = ...,
        redundancy: Redundancy | None = ...,
    ) -> Channel[T]: ...
    def open(
        self,
        name: str,
        type: Any = Any,
        *,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        ttl: float | None = None,
        trunk: bool = False,
        redundancy: Redundancy | None = None,
    ) -> Channel[Any]:
        """Open one end of a channel by name. A plain call: never waits, never fails for want of a network.

        The k-th channel of a name that one side opens is the k-th of that name on the other. Until this side has
        closed its sending direction, aborted, or taken the other side's end, ``open`` gives the same channel again.

        Args:
            name: 1 to 255 bytes of UTF-8 without control characters; ``netchan.`` is reserved.
            type: what it carries; bytes, str, int, float, bool, Any, numpy.ndarray, or a type that msgspec takes.
            capacity: values per direction accepted and not yet received, 0 = rendezvous; the smaller of the two sides'
                figures holds; None = the other side decides, neither: 1024.
            overflow: what happens to a value that this side sends and for which there is no room: "block" = the sender
                waits; "drop_new" = it is dropped; "drop_old" = the oldest that nobody took is, on either side of the
                network; "latest" = only the newest stays; "disconnect" = the channel is aborted with ``Code.LIMIT``;
                ``spill(path, max_bytes)`` = it goes to a file of this side, and from there over the network in order.
                None = what the other side says of its direction, else "block". Dropped values are counted in
                ``stats().dropped``.
            ttl: seconds (0.001 to 12 days) after which a value that nobody took is dropped, on its way too; None = what
                the other side says, else none.
            trunk: True on both sides = values up to 1 KiB may share encrypted records with those of other such
                channels: cheaper where many channels carry little each. Channels on the trunk share one key, the others
                have one each. Where only one side says so nothing is shared.
            redundancy: what several paths are used for by what this side sends here; None = what ``Peer.redundancy``
                says. May be changed: ``Sender.redundancy``.

        Raises:
            ConfigError: a name, type, capacity, overflow, ttl, trunk or redundancy that cannot be used, or another one
                than the channel is open with.
            ForkError: the session belongs to the parent process.
        """
        return Channel(self._core.open(name, type, capacity, overflow, ttl, trunk, redundancy))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Channel[Any]:
        """As ``netchan.Peer.__anext__``; waits without limit, and StopIteration ends it."""
        core = self._core
        while True:
            endpoint = core.next_offer()
            if endpoint is not None:
                return Channel(endpoint)
            if core.over:
                error = core.end_error()
                if error is not None:
                    raise error
                raise StopIteration
            wait_until(core.has_offer, core.offer_waiters, new_waiter(core.engine, None))

    # --- leaving -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Begin to leave: each open channel ends behind its values, then the session. Returns at once. Idempotent.

        At most ``Config.close_timeout`` is spent on values that are under way; what is left then is logged.

        Raises:
            ForkError: the session belongs to the parent process.
        """
        self._core.leave()

    def aclose(self, *, timeout: float | None = None) -> None:
        """``close``, then wait until the session is over.

        Raises:
            ForkError: the session belongs to the parent process.

        TimeoutError after ``timeout`` seconds: the leaving goes on.
        """
        self._core.leave()
        self.wait_closed(timeout=timeout)

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until the session is over, whoever ends it, and however; why is in ``error``, and is not raised.

        TimeoutError after ``timeout`` seconds: nothing has changed.
        """
        core = self._core
        wait_until(core.is_over, core.end_waiters, new_waiter(core.engine, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.aclose()
        else:
            self._core.leave_by_exception()

    # --- the object --------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "over" if self._core.over else "closing" if self._core.left else "up"
        return f"<Peer {self.node_id} {state} {self.remote_address}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Peer cannot be pickled: it belongs to this process; dial again over there")

    def __del__(self) -> None:
        core: PeerCore | None = getattr(self, "_core", None)
        # the engine notices that the session is let go of and leaves it as by an exception; here is only the warning
        if core is not None and core.must_warn() and not sys.is_finalizing():
            warnings.warn(
                f"the peer {core.link.node_id} was garbage-collected without close(): its session is left as by an "
                "exception; call close() or use 'async with'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
