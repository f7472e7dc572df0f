"""What a type checker knows of the exceptions and what they carry; checked by ``make lint``, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

import netchan


async def what_ends_a_channel(ch: netchan.Channel[int]) -> None:
    try:
        await ch.recv()
    except netchan.ChannelEnded as ended:
        eof: EOFError = ended
        assert_type(ended.channel, str)
        assert_type(ended.peer, str)
        assert_type(eof.args, tuple[Any, ...])
    except netchan.ChannelClosed as closed:
        assert_type(closed.op, object)
    except netchan.ChannelAborted as aborted:
        assert_type(aborted.code, int)
        assert_type(aborted.reason, str)
        assert_type(aborted.by_us, bool)
    except netchan.SessionLost as lost:
        connection: ConnectionError = lost
        assert_type(lost.undelivered, Sequence[Any])
        assert_type(lost.in_doubt, Sequence[netchan.InDoubt])
        assert_type(lost.cause, BaseException | None)
        assert_type(connection.errno, int | None)
        for one in lost.in_doubt:
            assert_type(one.number, int)
            assert_type(one.value, Any)
    except netchan.ChannelError as other:
        assert_type(other.transient, bool)


async def what_ends_a_dial(address: str) -> None:
    try:
        await netchan.dial(address)
    except netchan.AuthError as refused:
        handshake: netchan.HandshakeError = refused
        assert_type(handshake.causes, tuple[BaseException, ...])
    except netchan.DialTimeout as late:
        timeout: TimeoutError = late
        failed: netchan.DialError = late
        assert_type(failed.causes, tuple[BaseException, ...])
        assert_type(timeout.errno, int | None)
    except netchan.DialError as nobody:
        connection: ConnectionError = nobody
        assert_type(connection.errno, int | None)
    except netchan.ListenError as taken:
        os_error: OSError = taken
        assert_type(os_error.errno, int | None)


async def what_a_disk_does(tx: netchan.Sender[int]) -> None:
    try:
        await tx.send(1)
    except netchan.SpillError as full:
        os_error: OSError = full
        assert_type(os_error.errno, int | None)
        assert_type(full.transient, bool)


def what_is_the_callers_fault(error: netchan.NetchanError) -> None:
    assert_type(error.transient, bool)
    if isinstance(error, netchan.MessageTooLarge):
        codec: netchan.CodecError = error
        value: ValueError = codec
        assert_type(error.needed, int)
        assert_type(error.limit, int)
        assert_type(value.args, tuple[Any, ...])
    elif isinstance(error, netchan.ProtocolError):
        assert_type(error.remote, bool)
    elif isinstance(error, netchan.ConfigError):
        value = error
    elif isinstance(error, netchan.ForkError):
        run_time: RuntimeError = error
        assert_type(run_time.args, tuple[Any, ...])
    elif isinstance(error, netchan.WouldBlock):
        base: netchan.NetchanError = error
        assert_type(base.transient, bool)


def codes() -> None:
    number: int = netchan.Code.LEFT_BY_EXCEPTION.value
    every: list[netchan.Code] = [
        netchan.Code.DROPPED,
        netchan.Code.TYPE_MISMATCH,
        netchan.Code.LIMIT,
        netchan.Code.PROCESS_EXIT,
        netchan.Code.HANDED_OVER,
    ]
    assert_type(every, list[netchan.Code])
    every.append(number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.Code.UNHEARD_OF  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def made_by_hand() -> None:
    netchan.ChannelAborted("gone", code=1, reason="enough", by_us=True)
    netchan.SessionLost("gone", undelivered=[1], in_doubt=[netchan.InDoubt(0, 1)])
    netchan.ChannelAborted("gone", code="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    netchan.SessionLost("gone", in_doubt=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
