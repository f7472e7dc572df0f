"""The arms of a select: reusable objects that say what one of them may do, and then what it did.

Layer 5; both fronts use this file as it is. An op holds its handle and, for a send, the next value; between selects it
stands in no queue and holds no value that was taken for nobody. Spec: docs/spec/channel-end.md §7; api rules R33-R38.
"""

from __future__ import annotations

from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

from netchan.errors import ChannelError, CodecError, ConfigError
from netchan.markers import EMPTY

if TYPE_CHECKING:
    from netchan.channel.base import Endpoint

R_co = TypeVar("R_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)

SECONDS_MAX: Final = 10.0 * 365 * 86_400
"""Longest timer: beyond it a clock in nanoseconds may overflow somewhere below."""


class HandleLike(Protocol):
    """What an op needs of a receiving handle, of either front."""

    _ep: Endpoint


class SendHandleLike(HandleLike, Protocol):
    """What an op needs of a sending handle."""

    @property
    def closed(self) -> bool:
        """True when a send would raise."""

    def _check(self) -> None: ...


class Op:
    """One arm of a select."""

    __slots__ = ("__weakref__", "busy")

    def __init__(self) -> None:
        self.busy = False
        """True while a select works with it."""

    def begin(self) -> None:
        """A select starts with this arm: forget the outcome of the last one."""


class RecvOp(Op, Generic[R_co]):
    """A receive; made by ``Receiver.recv_op``. Read the outcome on it when ``select`` has returned it."""

    __slots__ = ("_error", "_value", "handle")

    def __init__(self, handle: HandleLike) -> None:
        super().__init__()
        self.handle = handle
        self._value: Any = EMPTY
        self._error: BaseException | None = None

    @property
    def value(self) -> R_co:
        """What this arm received.

        Raises:
            LookupError: it did not win the last select.
            ChannelEnded, ChannelAborted, ChannelClosed, SessionLost: it won because its channel is over (``closed``).
            CodecError: it won with bytes that are no value of the channel's type; they are consumed.
        """
        if self._error is not None:
            raise self._error
        if self._value is EMPTY:
            raise LookupError(f"this arm of {self.handle!r} did not win the last select; ask the op that it returned")
        return self._value  # type: ignore[no-any-return]

    @property
    def closed(self) -> bool:
        """True if it won because its channel has nothing more to give; ``error`` says why."""
        return isinstance(self._error, ChannelError)

    @property
    def error(self) -> BaseException | None:
        """What ``value`` raises when the arm won without a value, else None."""
        return self._error

    @property
    def endpoint(self) -> Endpoint:
        """The channel end it receives from."""
        return self.handle._ep

    def begin(self) -> None:
        """See Op."""
        self._value, self._error = EMPTY, None

    def attempt(self) -> bool:
        """Take a value or the reason why there is none and never will be; True: this arm has won."""
        try:
            self._value = self.endpoint.try_recv()
        except (ChannelError, CodecError) as error:
            self._error = error
            return True
        return self._value is not EMPTY

    def __repr__(self) -> str:
        return f"<RecvOp of {self.handle!r}>"


class SendOp(Op, Generic[S_contra]):
    """A send; made by ``Sender.send_op``. It sends the same value in every select until ``set`` gives another."""

    __slots__ = ("handle", "prepared")

    def __init__(self, handle: SendHandleLike) -> None:
        super().__init__()
        self.handle = handle
        self.prepared: Any = EMPTY

    def set(self, value: S_contra, /) -> Self:
        """The value to send from the next select on; returns this op.

        Raises:
            CodecError, MessageTooLarge: it does not fit the channel.
            RuntimeError: a select works with this op now.
        """
        if self.busy:
            raise RuntimeError("this op is in a select now; set its next value when that has returned")
        prepare = self.endpoint.prepare
        self.prepared = value if prepare is None else prepare(value)
        return self

    @property
    def closed(self) -> bool:
        """True when a send on this channel would raise."""
        return self.handle.closed

    @property
    def endpoint(self) -> Endpoint:
        """The channel end it sends to."""
        return self.handle._ep

    def begin(self) -> None:
        """See Op. TypeError: no value was given."""
        if self.prepared is EMPTY:
            raise TypeError(f"a send arm of {self.handle!r} has no value; write send_op(value), or op.set(value)")

    def attempt(self) -> bool:
        """Send if there is room; True: it was accepted. Raises, as a send does, when that can never be."""
        self.handle._check()
        endpoint = self.endpoint
        if endpoint.capacity == 0 and not endpoint.send_over:
            return False
        return endpoint.try_send(self.prepared) != 0

    def __repr__(self) -> str:
        return f"<SendOp of {self.handle!r}>"


class TimerOp(Op):
    """A time that passes; made by ``after``, and armed again by each select."""

    __slots__ = ("due", "seconds")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = check_seconds("after", seconds)
        self.due = 0.0

    def begin(self) -> None:
        """See Op."""
        self.due = monotonic() + self.seconds

    def attempt(self) -> bool:
        """True when the time has passed."""
        return monotonic() >= self.due

    def __repr__(self) -> str:
        return f"<TimerOp of {self.seconds:g} s>"


def after(seconds: float) -> TimerOp:
    """A timer arm: ready that long after each select began.

    Args:
        seconds: 0 or more.

    Raises:
        ConfigError: negative, not finite, or more than ten years.
    """
    return TimerOp(seconds)


def check_seconds(what: str, seconds: Any, least: float = 0.0) -> float:
    """``seconds`` as a float, or ConfigError."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isfinite(seconds):
        raise ConfigError(f"{what}({seconds!r}): give a number of seconds")
    if not least <= seconds <= SECONDS_MAX:
        raise ConfigError(f"{what}({seconds!r}): give {least:g} to {SECONDS_MAX:g} seconds")
    return float(seconds)
