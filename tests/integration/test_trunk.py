"""Channels on the trunk, from the public side (docs/spec/wire.md §6.4, ``Peer.open(trunk=True)``)."""

from __future__ import annotations

from typing import Any

import pytest

from netchan import sync
from netchan.errors import ConfigError
from tests.integration.kit import program, session

pytestmark = pytest.mark.timeout(60)


async def exchange(near: Any, far: Any, count: int, **terms: bool) -> int:
    """Records of the trunk that a value on each of ``count`` channels cost the sending side."""
    ours = [near.open(f"c{n}", int, capacity=4, **terms) for n in range(count)]
    theirs = [far.open(f"c{n}", int, capacity=4, **terms) for n in range(count)]
    for value in range(20):
        for tx in ours:
            await tx.send(value)
        assert [await rx.recv() for rx in theirs] == [value] * count
    for tx in ours:
        tx.close()
    for rx in theirs:
        assert [value async for value in rx] == []
    return int(near._core.session.stats()["trunk_records"])


@program
async def test_channels_share_records_when_both_sides_say_so() -> None:
    async with session() as (near, far):
        assert 20 <= await exchange(near, far, 100, trunk=True) < 20 * 100 / 2


@program
async def test_channels_have_records_of_their_own_otherwise() -> None:
    async with session() as (near, far):
        assert await exchange(near, far, 20) == 0


@program
async def test_open_again_says_the_same_or_nothing() -> None:
    async with session() as (near, _):
        one = near.open("x", trunk=True)
        assert near.open("x").name == one.name
        other = near.open("y")
        with pytest.raises(ConfigError, match="another overflow, ttl or trunk"):
            near.open(other.name, trunk=True)
        with pytest.raises(ConfigError, match="give True or False"):
            near.open("z", trunk=1)


def test_blocking_front_has_it_too() -> None:
    with (
        sync.listen("tcp://127.0.0.1:0", trust="any") as listener,
        sync.dial(listener.addresses[0], trust="any") as near,
        listener.recv(timeout=10) as far,
    ):
        pairs = [(near.open(f"c{n}", int, trunk=True), far.open(f"c{n}", int, trunk=True)) for n in range(20)]
        for n, (tx, rx) in enumerate(pairs):
            tx.send(n, timeout=10)
            assert rx.recv(timeout=10) == n
