"""The contract between a channel end and the fronts that people hold.

Layer 5: imports errors, config, markers and the wait queues; does no I/O and waits for nothing.

An ``Endpoint`` is one side of one channel. It never blocks, never calls the network and may be used from any thread;
whoever wants to wait queues up in one of its three wait queues and tries again when woken (wake-ups are hints and own
nothing). The fronts (sender.py, receiver.py, fronts.py, and netchan.sync made from them) add waiting, handles and the
with-statement; local.py is the endpoint in process, remote.py with _engine/end_handle.pyx the one over a session. Both
pass one suite (tests/unit/channel).

Spec: docs/spec/channel-end.md; its state table is ``STATES`` below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from netchan.markers import EMPTY as EMPTY
from netchan.markers import Empty as Empty
from netchan.net.wait import Driver as Driver
from netchan.net.wait import Waiter, WaitQueue

if TYPE_CHECKING:
    from netchan.channel.flow import Token
    from netchan.channel.redundancy import Redundancy, RedundancyInfo
    from netchan.errors import SessionLost

Level: TypeAlias = Literal["received", "taken"]
LEVELS: Final = ("received", "taken")


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """What ``stats()`` returns: a snapshot, all counts since the channel was opened on this side.

    Attributes:
        sent: values accepted here for sending.
        received: values that arrived here (one-queue channel: the same as ``sent``).
        taken: values that a receive call here has returned.
        discarded: values dropped by ``stop`` or ``abort`` before they were taken, those of both directions.
        pending: values here, not yet taken.
        dropped: values that an overflow policy or their ``ttl`` dropped, in both directions, as far as this side knows.
        on_disk, on_disk_bytes: values of this side that are in the file that they spilled to, and its bytes.
        spilled, spilled_bytes: the same, of all that ever were in it.
        capacity: values per direction, None while the other side has not said.
        senders_waiting, receivers_waiting: calls parked now.
        credit_limited: times a send found no room (None where it is not counted).
    """

    sent: int
    received: int
    taken: int
    discarded: int
    pending: int
    capacity: int | None
    senders_waiting: int
    receivers_waiting: int
    credit_limited: int | None = None
    dropped: int = 0
    on_disk: int = 0
    on_disk_bytes: int = 0
    spilled: int = 0
    spilled_bytes: int = 0


class Driven(Protocol):
    """What a waiter is made for: an endpoint, or the arms of a select."""

    @property
    def driver(self) -> Driver | None:
        """None in process; else what a blocking caller runs while it waits."""

    @property
    def rings(self) -> bool:
        """True if loops hear of it by their bells (net/bells.py)."""


class Offer(Protocol):
    """One outstanding offer on a capacity-0 direction: the value stays the sender's until a receiver takes it."""

    number: int
    """Position in its direction, from 1, once taken; 0 before."""

    def settled(self) -> bool:
        """True once taken. False while outstanding. Raises what ended the direction if it can no longer be taken."""

    def withdraw(self) -> bool | None:
        """Take the offer back: True = nobody has it or will, False = it was taken, the send happened. Idempotent.

        None = asked across the network, ask again when the waiter was woken; in process the answer is immediate.
        """

    @property
    def stranded(self) -> bool:
        """True while there is no way on which an answer to ``withdraw`` could come; the waiter is woken when so."""

    def let_go(self) -> None:
        """The call that made the offer ends; what is still unknown of it is settled without it."""


class Endpoint(Protocol):
    """One side of one channel; see the module head.

    Thread rule: every method may be called from any thread at any time, also from a finaliser, and returns without
    waiting for anything but a leaf lock. Order of events on one direction is the order of the calls.

    Wake-up rule: when a change makes progress possible the endpoint calls ``wake(n)`` on the queue concerned (n values
    or places became available); ``wake_all()`` on each queue concerned when a direction is over or the
    capacity changed. It may wake too often (wake-ups are hints), never too rarely, and only after the change is visible
    to ``try_*``. The three queues may be given to the endpoint by whoever makes it.
    ``can_send``/``can_recv`` must never be False when the matching ``try_*`` would not come back empty-handed.

    Attributes:
        name: the channel's name, "" in process.
        peer: the Peer object over there, None in process.
        peer_id: node id for messages, "" in process.
        type: the type form it was opened with (``Any`` if none).
        one_queue: True where both halves are one queue (``netchan.channel``): ``aclose`` is then just ``close_send``.
        driver: None in process; else what a blocking caller runs while it waits.
        rings: loops hear of it by their bells; False in process.
        handles: the count of handles that users hold; made by the endpoint, used by the fronts only.
        tx_waiters: senders waiting for room, or for the direction to be over.
        rx_waiters: receivers waiting for a value, or for the direction to be over.
        ack_waiters: callers waiting for progress of "received" or "taken"; always woken with ``wake_all()``.
        end_waiters: those that only want to hear when the sending direction is over; the same.
        close_timeout: seconds that ``aclose`` waits at most (``Config.close_timeout``).
    """

    name: str
    peer: Any
    peer_id: str
    type: Any
    one_queue: bool
    driver: Driver | None
    rings: bool
    handles: Handles
    tx_waiters: WaitQueue
    rx_waiters: WaitQueue
    ack_waiters: WaitQueue
    end_waiters: WaitQueue
    close_timeout: float

    @property
    def due(self) -> float | None:
        """When to look again although nobody wakes: seconds of ``time.monotonic()``; None = never.

        A ticker has it, and there ``can_recv`` only says that whoever comes next has to look: ``pending`` says more.
        """

    @property
    def far(self) -> bool:
        """True where taking an offer back costs a round trip: a select has one such offer out at a time."""

    @property
    def keeps(self) -> bool:
        """``far``: of two selects that have offers out to each other, the one on this side keeps its own."""

    @property
    def wanted(self) -> int:
        """``far``: receivers that wait over there; a change wakes ``tx_waiters``."""

    @property
    def prepare(self) -> Callable[[Any], Any] | None:
        """None, or a function run once per value by the sending call itself, before anything waits.

        It checks and encodes, and returns what ``try_send`` and ``offer`` want (the value itself where that is enough).
        Raises CodecError, MessageTooLarge.
        """

    @property
    def capacity(self) -> int | None:
        """Values per direction accepted and not yet received; None while unknown; 0 = rendezvous."""

    @property
    def send_over(self) -> bool:
        """True when ``try_send`` would raise."""

    @property
    def lossy(self) -> bool:
        """True where a value that ``try_send`` accepted may be dropped: nobody can wait until it is taken."""

    @property
    def waits(self) -> bool:
        """True where a value without room waits for it (overflow "block"); else ``try_send`` never says 0."""

    @property
    def recv_over(self) -> bool:
        """True when ``try_recv`` would raise (so never while a value can still be taken)."""

    @property
    def most_at_once(self) -> int | None:
        """Largest ``recv_many(min=n)`` that can be served; None: ``want`` makes room for any."""

    @property
    def recv_ending(self) -> bool:
        """True when no further value will arrive: what is pending is all there will be (or nothing is left at all)."""

    @property
    def redundancy(self) -> Redundancy | None:
        """What several paths are used for by what is sent here; None: what the peer says, or there are no paths."""

    @redundancy.setter
    def redundancy(self, mode: Any) -> None: ...

    @property
    def redundancy_info(self) -> RedundancyInfo | None:
        """What is in force, and why; None in process."""

    def check_send(self) -> None:
        """Raise what a send gets now; nothing while the direction is open."""

    def can_send(self) -> bool:
        """True when ``try_send`` would accept or raise now. Always False on a capacity-0 direction that is not over."""

    def can_recv(self) -> bool:
        """True when ``try_recv`` would give a value or raise now."""

    def try_send(self, prepared: Any) -> int:
        """Accept a value if there is room.

        Args:
            prepared: what ``prepare`` returned (the value itself if ``prepare`` is None).

        Returns:
            The position of the value in this direction, from 1, so that ``reached(level, position)`` asks for exactly
            this one; 0 = no room now (always 0 on capacity 0: a rendezvous goes through ``offer``).

        Raises:
            ChannelClosed: this direction is over (``close_send`` here, ``stop_recv`` there, the session was left).
            ChannelAborted, SessionLost: the channel is gone.
        """

    def try_reserve(self) -> bool:
        """Hold a place of the capacity until ``send_reserved`` or ``unreserve``; False: no room now.

        Never called at capacity 0. Raises as ``try_send``.
        """

    def unreserve(self) -> None:
        """Give a held place back; may be called by a finaliser."""

    def send_reserved(self, prepared: Any) -> int:
        """As ``try_send``, in a place that is held, which is gone afterwards also when this raises; never 0."""

    def iterate(self, values: Iterable[Any]) -> Iterator[Any]:
        """An iterator over ``values`` for ``try_send_many``, which may be faster with it than with ``iter(values)``.

        Raises:
            TypeError: not iterable.
        """

    def try_send_many(self, values: Iterator[Any], limit: int) -> tuple[int, bool]:
        """Accept up to ``limit`` values; the next item is taken from the iterator only when there is room for it.

        Values are prepared here. An exception of the iterator or of ``prepare`` leaves those before it accepted; the
        item that fails to encode is lost to the iterator. ``values`` may run any Python code, so no lock is held around
        it; room is reserved before, given back after.

        Returns:
            (accepted now, True if the iterator is exhausted). On capacity 0: (0, False).

        Raises:
            as ``try_send``, but only when nothing was accepted in this call; plus whatever the iterator raises.
        """

    def offer(self, source: Any, waiter: Waiter, *, many: bool = False) -> Offer | None:
        """Capacity 0 only: put an offer at the tail; ``waiter`` is woken when it was taken or never can be.

        Args:
            source: a prepared value; with ``many`` an iterator whose next item is fetched only in the step in which a
                receiver takes it, so that what is withdrawn was never taken from the iterator.
            waiter: its ``wake()`` is called at least once after the offer is settled.
            many: the source is an iterator.

        Returns:
            The offer, or None where the capacity is not 0: wait in ``tx_waiters`` then.

        Raises:
            as ``try_send``.
        """

    def offer_arm(self, prepared: Any, waiter: Waiter, token: Token | None) -> Offer | None:
        """As ``offer``, for an arm of a select.

        Args:
            prepared: the value.
            waiter: of the select.
            token: shared by all offers of the select that are out; not used where ``far``.

        Returns:
            The offer, or None: nobody over there waits, or others are before us.
        """

    def parked(self, n: int) -> None:
        """``n`` receivers wait in ``rx_waiters`` now: a hint for the senders of a rendezvous over there."""

    def has(self, n: int) -> bool:
        """True when ``n`` values are here, not yet taken; if not, ``rx_waiters`` are woken when more have come."""

    def want(self, n: int) -> None:
        """A ``recv_many(min=n)`` waits: let at least ``n`` values be here, whatever capacity and byte budgets say.

        Paired with ``unwant(n)``; several may be outstanding, the largest counts. Never called with capacity 0.
        """

    def unwant(self, n: int) -> None:
        """Take ``want(n)`` back: the capacity holds again for later sends; what is here stays."""

    def try_recv(self) -> Any:
        """Take the value at the head, or return ``EMPTY``.

        Raises (only when no value is left that may still be taken):
            ChannelEnded: the other side closed. ChannelClosed: this side stopped.
            ChannelAborted, SessionLost: the channel is gone.
            CodecError: the bytes at the head are no value of this type; that message is consumed.
        """

    def try_recv_many(self, limit: int) -> list[Any]:
        """Take up to ``limit`` values; [] = none now. Raises as ``try_recv``, only if there is nothing to return."""

    def try_recv_into(self, buffer: memoryview) -> int | Empty:
        """Copy the bytes at the head into ``buffer`` (writable, C-contiguous, format B) and take them.

        Returns:
            Bytes written, or ``EMPTY``.

        Raises:
            MessageTooLarge: (.needed) the buffer is too small; the value stays at the head.
            CodecError: the value at the head is not bytes-like (in process only); it stays.
            otherwise as ``try_recv``.
        """

    def sent(self) -> int:
        """Number of values accepted on this side's sending direction so far."""

    def reached(self, level: Level, position: int) -> bool:
        """True when the first ``position`` values of the sending direction have got that far.

        Args:
            level: "received" = the other process has them; "taken" = its receive calls returned them.
            position: a count of values, as from ``try_send`` or ``sent``; 0 is always reached.

        Raises:
            ChannelClosed: it never will (the other side stopped), ChannelAborted, SessionLost.
        """

    def ask(self, level: Level, position: int) -> None:
        """Ask the other side to report promptly that ``position`` values got to this level; nothing in process."""

    def close_send(self) -> None:
        """End the sending direction behind its values. Idempotent. Parked senders raise ChannelClosed."""

    def stop_recv(self) -> None:
        """Take no more: discard and count what is here; the other side's sends raise ChannelClosed. Idempotent."""

    def abort(self, code: int, reason: str) -> None:
        """End both directions at once, discard and count queued values. First one wins; later calls do nothing."""

    def drop_send(self) -> bool:
        """Last sending handle collected unclosed: values accepted are delivered, then ChannelAborted(DROPPED) there.

        Runs in a finaliser: may only mark and wake, must not wait for a lock, and must tolerate being called inside any
        other method of this endpoint on the same thread.

        Returns:
            True when that cuts somebody off (the direction was open and the other side had not ended its own): the
            front warns then.
        """

    def drop_recv(self) -> None:
        """Last receiving handle collected: like ``stop_recv``; same rules as ``drop_send``."""

    def left_by_exception(self) -> None:
        """An ``async with`` was left by an exception: ``close_unclean``, and ``stop_recv`` unless one queue."""

    def close_unclean(self) -> None:
        """Like ``close_send``, but the end behind the values is ChannelAborted(LEFT_BY_EXCEPTION) over there."""

    def put_back(self, value: Any) -> None:
        """Make a value that ``try_recv`` gave the head again; only what forwards it may (channel/forward.py)."""

    def lose(self, error: SessionLost, *, send: bool, recv: bool) -> None:
        """End directions because the process that held their last handle is out of reach: both sides get ``error``."""

    def retype(self, form: Any) -> None:
        """Give an end that came in a value its type. CodecError: it carries another."""

    def pending(self) -> int:
        """Values here, not yet taken."""

    def stats(self) -> ChannelStats:
        """A snapshot."""


class Handles:
    """Which handles users hold on one endpoint; decides when the last one is gone.

    Lock-free on purpose: finalisers run anywhere, also inside a lock's holder. Adding to and discarding from a set is
    one step, and when two last handles go at once both may see it empty: what they then call is idempotent.

    Attributes:
        sending: ids of living handles that can send (Sender, Channel) and were not closed.
        receiving: ids of living handles that can receive.
        counted: ids of open ``Sender`` halves from ``split``/``clone``: the last close ends the direction.
        unclean: a Sender half was left by an exception, so the last close is not a clean end.
    """

    __slots__ = ("counted", "receiving", "sending", "unclean")

    def __init__(self) -> None:
        self.sending: set[int] = set()
        self.receiving: set[int] = set()
        self.counted: set[int] = set()
        self.unclean = False


VERBS: Final = ("send", "recv", "close", "stop", "abort", "clone")
"""Columns of ``STATES``."""

STATES: Final[dict[str, tuple[str, str, str, str, str, str]]] = {
    "open": ("accepts, waits", "value, waits", "-> we closed", "-> we stopped", "-> aborted", "handle"),
    "we closed": ("ChannelClosed", "value, waits", "nothing", "-> closed", "-> aborted", "handle"),
    "we stopped": ("accepts, waits", "ChannelClosed", "-> closed", "nothing", "-> aborted", "handle"),
    "they closed": ("accepts, waits", "value, ChannelEnded", "-> ended", "-> we stopped", "-> aborted", "handle"),
    "they stopped": ("ChannelClosed", "value, waits", "nothing", "-> closed", "-> aborted", "handle"),
    "they left by exception": (
        "ChannelClosed",
        "value, ChannelAborted",
        "nothing",
        "-> closed",
        "-> aborted",
        "handle",
    ),
    "ended": ("ChannelClosed", "value, ChannelEnded", "nothing", "-> closed", "-> aborted", "handle"),
    "closed": ("ChannelClosed", "ChannelClosed", "nothing", "nothing", "-> aborted", "handle"),
    "aborted": ("ChannelAborted", "ChannelAborted", "nothing", "nothing", "nothing", "handle"),
    "session suspended": ("accepts, waits", "value, waits", "-> we closed", "-> we stopped", "-> aborted", "handle"),
    "session lost": ("SessionLost", "value, SessionLost", "nothing", "nothing", "nothing", "handle"),
}
"""What each verb does at one end of a duplex channel, by state.

"accepts, waits": accepts while there is room, else waits. "value, X": values that are here first, then X.
"-> state": the end is in that state afterwards. "handle": another handle in the same state (a closed ``Sender`` raises
ChannelClosed).
"""


def states_markdown() -> str:
    """``STATES`` as the table of docs/spec/channel-end.md."""
    lines = ["| state | " + " | ".join(VERBS) + " |", "|---" * (len(VERBS) + 1) + "|"]
    lines += [f"| {state} | {' | '.join(cells)} |" for state, cells in STATES.items()]
    return "\n".join(lines) + "\n"
