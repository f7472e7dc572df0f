"""What a type checker knows of select and merge; checked by ``make lint``, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import netchan


async def select_of_all_kinds(ch: netchan.Channel[int], words: netchan.Receiver[str]) -> None:
    number, word, give, late = ch.recv_op(), words.recv_op(), ch.send_op(1), netchan.after(0.5)
    assert_type(number, netchan.RecvOp[int])
    assert_type(give, netchan.SendOp[int])
    assert_type(late, netchan.TimerOp)
    hit = await netchan.select(number, word, give, late, None)
    assert_type(hit, netchan.Op)
    if hit is number:
        assert_type(number.value, int)
        assert_type(number.closed, bool)
        assert_type(number.error, BaseException | None)
    elif hit is word:
        assert_type(word.value, str)
    elif hit is give:
        assert_type(give.set(2), netchan.SendOp[int])
        assert_type(give.closed, bool)


async def select_with_default(ch: netchan.Channel[int], off: netchan.RecvOp[int] | None) -> None:
    assert_type(await netchan.select(ch.recv_op(), off, default=None), netchan.Op | None)
    assert_type(await netchan.select(ch.recv_op(), default="none"), netchan.Op | str)
    assert_type(await netchan.select(default=0), netchan.Op | int)
    arms: list[netchan.Op | None] = [ch.recv_op(), netchan.after(1), None]
    assert_type(await netchan.select(*arms), netchan.Op)


def ops_have_the_variance_of_their_halves(give: netchan.SendOp[object], take: netchan.RecvOp[bool]) -> None:
    narrower: netchan.SendOp[int] = give
    wider: netchan.RecvOp[int] = take
    any_of_them: list[netchan.Op] = [narrower, wider, netchan.after(1)]
    assert_type(any_of_them, list[netchan.Op])


async def select_wrong(ch: netchan.Channel[int], give: netchan.SendOp[int], take: netchan.RecvOp[int]) -> None:
    await netchan.select(ch)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await netchan.select(ch.recv())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await netchan.select(take, timeout=1.0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    netchan.select(take)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    hit = await netchan.select(take)
    hit.value  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    give.set("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    give.value  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    take.value = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    netchan.after("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def ticks() -> None:
    assert_type(netchan.ticker(0.1), netchan.Receiver[float])
    async with netchan.ticker(0.1) as beat:
        assert_type(beat, netchan.Receiver[float])
        assert_type(await beat.recv(), float)
    netchan.ticker("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def merged(a: netchan.Receiver[int], b: netchan.Channel[str], c: netchan.Receiver[bytes]) -> None:
    assert_type(netchan.merge(a), AsyncIterator[tuple[netchan.Receiver[int], int]])
    async for pair in netchan.merge(a, b):
        assert_type(pair, tuple[netchan.Receiver[int], int] | tuple[netchan.Receiver[str], str])
    async for three in netchan.merge(a, b, c):
        assert_type(
            three,
            tuple[netchan.Receiver[int], int]
            | tuple[netchan.Receiver[str], str]
            | tuple[netchan.Receiver[bytes], bytes],
        )
    async for many in netchan.merge(a, a, a, a):
        assert_type(many, tuple[netchan.Receiver[int], int])
    some = [a, a]
    async for receiver, value in netchan.merge(*some):
        assert_type(receiver, netchan.Receiver[int])
        assert_type(value, int)


async def merged_wrong(a: netchan.Receiver[int], tx: netchan.Sender[int]) -> None:
    netchan.merge(a, tx)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    netchan.merge([a, a])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    for _ in netchan.merge(a):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
