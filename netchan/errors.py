"""Every exception of netchan, and the codes that travel with an abort.

Layer 0: imports nothing of ours, holds no state, does no I/O.

::

    NetchanError                     .transient: the same call may work later
    ├─ ConfigError(ValueError)       an argument or a setting cannot be used
    ├─ CodecError(ValueError)        a value does not fit the channel's type
    │  └─ MessageTooLarge            .needed: bytes
    ├─ WouldBlock                    a _nowait call had nothing to do now
    ├─ ForkError(RuntimeError)       a handle of the parent process, used in the child
    ├─ ListenError(OSError)          the address cannot be bound
    ├─ HandoverError                 sessions did not move to another process: they go on where they were
    ├─ SpillError(OSError)           a value could not be written to the file of its channel
    ├─ DialError(ConnectionError)    .causes: one per address
    │  ├─ DialTimeout(TimeoutError)
    │  └─ HandshakeError
    │     └─ AuthError               one side does not accept the other
    ├─ ProtocolError                 .remote; only ever the __cause__ of a SessionLost
    └─ ChannelError                  .channel .peer
       ├─ ChannelClosed              send on a direction that is over
       ├─ ChannelEnded(EOFError)     recv after the clean end
       ├─ ChannelAborted             .code .reason .by_us
       └─ SessionLost(ConnectionError)   .undelivered .in_doubt .cause

Messages say what happened, on which channel with which peer, and what to do next (docs/spec/channel-end.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

REASON_MAX_BYTES: Final = 256
"""Longest reason of an abort, in bytes of UTF-8; bounds what a peer can put into our log lines."""
QUOTE_MAX_CHARS: Final = 120
"""Longest peer-given text inside a message of ours, after escaping; keeps one error on one screen."""
CODE_BASE: Final = 1 << 30
"""Codes below are the program's; from here on they are netchan's own."""


class Code(IntEnum):
    """Why netchan itself ended a channel; a program's own codes are 0 … 2**30 - 1."""

    LEFT_BY_EXCEPTION = CODE_BASE
    """An ``async with`` over there was left by an exception or a cancellation."""
    DROPPED = CODE_BASE + 1
    """The last handle over there was garbage-collected without ``close()``."""
    TYPE_MISMATCH = CODE_BASE + 2
    """The two sides opened the name with types that do not fit."""
    LIMIT = CODE_BASE + 3
    """A limit that one side had stated was exceeded."""
    PROCESS_EXIT = CODE_BASE + 4
    """The process over there exited without closing."""
    HANDED_OVER = CODE_BASE + 5
    """The channel now belongs to another process."""


def quote(text: str | bytes, limit: int = QUOTE_MAX_CHARS) -> str:
    """Return text that a peer chose, safe to print: control and non-ASCII characters escaped, cut to ``limit``."""
    if isinstance(text, bytes):
        text = text[: limit + 1].decode("utf-8", "backslashreplace")
    shown = ascii(text[: limit + 1])[1:-1]
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


class NetchanError(Exception):
    """Base of everything that netchan raises on its own account.

    Attributes:
        transient: True when the same call may work later without a change in the program.
    """

    transient: bool = False


class ConfigError(NetchanError, ValueError):
    """An argument, an address or a setting cannot be used; raised by the call itself."""


class CodecError(NetchanError, ValueError):
    """A value does not fit the channel's type, or bytes are no value of it; raised before anything waits."""


class MessageTooLarge(CodecError):
    """A value is longer than allowed, or a buffer is shorter than the value.

    Attributes:
        needed: bytes that the value takes.
        limit: bytes that were allowed, or the size of the buffer.
    """

    def __init__(self, message: str, *, needed: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.needed = needed
        self.limit = limit


class WouldBlock(NetchanError):
    """A ``_nowait`` call found no room or no value; ``send`` and ``recv`` would wait."""

    transient = True


class ForkError(NetchanError, RuntimeError):
    """A handle made before ``fork`` was used in the child; open a new one there."""


class ListenError(NetchanError, OSError):
    """An address could not be bound at ``listen``."""


class SpillError(NetchanError, OSError):
    """A value could not be written to the file that its channel spills to; it stays with the caller.

    Attributes:
        errno: why, as the system says (``ENOSPC``: the disk is full).
    """

    transient = True


class DialError(NetchanError, ConnectionError):
    """No address given to ``dial`` led to a session.

    Attributes:
        causes: one exception per address tried, in their order.
    """

    transient = True

    def __init__(self, message: str, causes: Sequence[BaseException] = ()) -> None:
        super().__init__(message)
        self.causes: tuple[BaseException, ...] = tuple(causes)


class DialTimeout(DialError, TimeoutError):
    """No answer within ``Config.dial_timeout``."""


class HandshakeError(DialError):
    """The other side answered, but no session came of it."""

    transient = False


class AuthError(HandshakeError):
    """One of the two sides does not accept the other's identity or key."""


class HandoverError(NetchanError):
    """Not all sessions moved to another process. Each goes on where it is; the text says how many moved."""


class ProtocolError(NetchanError):
    """Bytes that break the protocol; only ever the ``__cause__`` of a ``SessionLost``.

    Attributes:
        remote: True when the other side is at fault, False when we are.
    """

    def __init__(self, message: str, *, remote: bool = True) -> None:
        super().__init__(message)
        self.remote = remote


class ChannelError(NetchanError):
    """Base of what ends a channel.

    Attributes:
        channel: name of the channel, "" for one without.
        peer: node id of the other side, "" in process.
        op: raised by ``select``: the send arm that can never happen; else None.
    """

    def __init__(self, message: str = "", *, channel: str = "", peer: str = "") -> None:
        super().__init__(message)
        self.channel = channel
        self.peer = peer
        self.op: object = None


class ChannelClosed(ChannelError):
    """This direction is over for us: we closed it, they stopped taking, or a handle was used after its close."""


class ChannelEnded(ChannelError, EOFError):
    """The other side closed and every value was taken; ends iteration."""


class ChannelAborted(ChannelError):
    """One side aborted the channel.

    Attributes:
        code: the program's own, or a ``Code``.
        reason: what the aborting side said, at most 256 bytes of UTF-8; peer-given text.
        by_us: True when this side aborted.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: int = 0,
        reason: str = "",
        by_us: bool = False,
        channel: str = "",
        peer: str = "",
    ) -> None:
        super().__init__(message, channel=channel, peer=peer)
        self.code: int = Code(code) if code in _OWN_CODES else code
        self.reason = reason
        self.by_us = by_us


class SessionLost(ChannelError, ConnectionError):
    """The session is gone: its lease ran out, the other process died, or it broke the protocol.

    Reading the two reports again gives the same; accepted = received ∪ undelivered ∪ in_doubt.

    Attributes:
        undelivered: values of this channel that were never put on any path.
        in_doubt: ``InDoubt`` of those sent and not known to be taken.
        cause: what ended the session, or None.
    """

    transient = True

    def __init__(
        self,
        message: str = "",
        *,
        undelivered: Sequence[Any] = (),
        in_doubt: Sequence[InDoubt] = (),
        cause: BaseException | None = None,
        channel: str = "",
        peer: str = "",
    ) -> None:
        super().__init__(message, channel=channel, peer=peer)
        self.undelivered: Sequence[Any] = undelivered
        self.in_doubt: Sequence[InDoubt] = in_doubt
        self.cause = cause
        self.__cause__ = cause


class InDoubt:
    """One value that was sent and is not known to be taken.

    Attributes:
        number: position of the value in its direction, counted from 0.
    """

    __slots__ = ("_held", "_value", "number")

    def __init__(self, number: int, *value: Any) -> None:
        # At most one value: none given means that it is no longer held.
        if len(value) > 1:
            raise TypeError("InDoubt() takes a number and at most one value")
        self.number = number
        self._held = bool(value)
        self._value: Any = value[0] if value else None

    @property
    def value(self) -> Any:
        """The value; raises LookupError when it is no longer held (its bytes had arrived, its taking is unknown)."""
        if not self._held:
            raise LookupError(f"value number {self.number} is no longer held here; only its number is known")
        return self._value

    def __repr__(self) -> str:
        return f"InDoubt({self.number}, {self._value!r})" if self._held else f"InDoubt({self.number})"


_OWN_CODES: Final = frozenset(int(c) for c in Code)


def _where(channel: str, peer: str) -> str:
    name = f"channel '{quote(channel)}'" if channel else "channel"
    return f"{name} with {quote(peer)}" if peer else name


def channel_closed(channel: str, peer: str, why: str, advice: str) -> ChannelClosed:
    """Build a ChannelClosed: ``why`` ("we closed it") and ``advice`` are our own words, names are escaped."""
    return ChannelClosed(f"{_where(channel, peer)}: {why}; {advice}", channel=channel, peer=peer)


def channel_ended(channel: str, peer: str) -> ChannelEnded:
    """Build the ChannelEnded of a drained, cleanly closed direction."""
    return ChannelEnded(
        f"{_where(channel, peer)}: the sending side closed and every value was taken; "
        "stop receiving (iteration ends by itself here)",
        channel=channel,
        peer=peer,
    )


_ADVICE: Final = {
    Code.LEFT_BY_EXCEPTION: "look at the other program's error, then open a new channel",
    Code.DROPPED: "close() or 'async with' the sender over there",
    Code.TYPE_MISMATCH: "open the name with the same type on both sides",
    Code.LIMIT: "keep to the limit named, or raise it in the Config of the side that stated it",
    Code.PROCESS_EXIT: "wait for the other program to come back and dial again",
    Code.HANDED_OVER: "go on in the process that took the channel over",
}


def channel_aborted(channel: str, peer: str, *, code: int, reason: str, by_us: bool) -> ChannelAborted:
    """Build a ChannelAborted; ``reason`` may come from the peer and is escaped in the message, kept in ``.reason``."""
    who = "this side" if by_us else "the other side"
    shown = f" ({quote(reason)})" if reason else ""
    named = Code(code).name if code in _OWN_CODES else str(code)
    advice = _ADVICE[Code(code)] if code in _OWN_CODES else "open a new channel to go on"
    return ChannelAborted(
        f"{_where(channel, peer)}: aborted by {who} with code {named}{shown}; {advice}",
        code=code,
        reason=reason,
        by_us=by_us,
        channel=channel,
        peer=peer,
    )


def spill_error(channel: str, peer: str, path: str, cause: OSError) -> SpillError:
    """Build a SpillError for a file in the directory ``path``."""
    error = SpillError(
        f"{_where(channel, peer)}: a value could not be written to a file in {path}: {cause.strerror or cause}; it was "
        "not sent, and the channel is as before: make room there, or send it again when values have been received"
    )
    error.errno = cause.errno
    error.__cause__ = cause
    return error


def session_lost(
    channel: str,
    peer: str,
    why: str,
    *,
    undelivered: Sequence[Any] = (),
    in_doubt: Sequence[InDoubt] = (),
    cause: BaseException | None = None,
) -> SessionLost:
    """Build a SessionLost whose message counts what was lost; ``why`` is our own words."""
    return SessionLost(
        f"{_where(channel, peer)}: the session is lost ({why}); {len(undelivered)} accepted values were never sent, "
        f"{len(in_doubt)} are in doubt (see .undelivered and .in_doubt); dial again",
        undelivered=undelivered,
        in_doubt=in_doubt,
        cause=cause,
        channel=channel,
        peer=peer,
    )


def handed_over(channel: str, peer: str) -> SessionLost:
    """Build the SessionLost of a call in a process whose session has moved to another one: nothing is lost."""
    return SessionLost(
        f"{_where(channel, peer)}: the session lives on in another process, with all that was accepted and not taken; "
        "go on there",
        cause=channel_aborted(channel, peer, code=Code.HANDED_OVER, reason="", by_us=True),
        channel=channel,
        peer=peer,
    )
