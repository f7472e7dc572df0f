"""What the applications of both sides can do, told in the handshake (docs/spec/handshake.md §3.4)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import AuthError, Config, HandshakeError, Identity, sync
from netchan.net import kept
from tests.integration.handover_kit import run
from tests.integration.kit import BOSS, KEY, TCP, program, until

OLD, NEW, OTHER = 0x8000, 0x8001, 0xFFFF
CARRIERS = ["tcp", "unix", "udp"]


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """Each test begins like a process that has dialled nobody."""
    kept._after_fork()
    yield
    kept._after_fork()


def place(carrier: str, folder: str) -> str:
    return {"tcp": TCP, "unix": f"unix://{Path(folder, 'node.sock')}", "udp": "udp://127.0.0.1:0"}[carrier]


def having(*numbers: int, required: tuple[int, ...] = (), **more: Any) -> Config:
    return Config(capabilities=numbers, required_capabilities=required, **more)


def node(where: str, config: Config, **options: Any) -> Any:
    return netchan.listen(where, **({"identity": BOSS, "trust": [KEY.node_id], "config": config} | options))


def dial(listener: Any, config: Config, **options: Any) -> Any:
    return netchan.dial(listener.addresses[0], **({"identity": KEY, "config": config} | options))


# --- what both have ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("carrier", CARRIERS)
@program
async def test_both_sides_see_what_both_have(carrier: str) -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        async with node(place(carrier, folder), having(OLD, NEW)) as listener:
            for mine, common in (((NEW, OTHER), {NEW}), ((NEW, OLD), {NEW, OLD}), ((OTHER,), set()), ((), set())):
                async with dial(listener, having(*mine)) as near, await listener.recv() as far:
                    assert near.capabilities == far.capabilities == common
                    assert isinstance(near.capabilities, frozenset)


@pytest.mark.parametrize("carrier", CARRIERS)
@program
async def test_as_many_as_there_may_be_on_both_sides_and_all_required(carrier: str) -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        everything = Config(required_capabilities=range(0x8000, 0x8020))
        async with node(place(carrier, folder), everything) as listener:
            for again in (False, True):
                async with dial(listener, everything) as near, await listener.recv() as far:
                    assert near.capabilities == far.capabilities == frozenset(range(0x8000, 0x8020))
                    assert near.by_ticket is again
                    await near.wait_ticket()


def test_blocking_front() -> None:
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=having(OLD, NEW)) as listener:
        with sync.dial(listener.addresses[0], identity=KEY, config=having(required=(NEW,))) as near:
            with listener.recv(timeout=20) as far:
                assert near.capabilities == far.capabilities == {NEW}
        with pytest.raises(HandshakeError, match="the listener lacks 0xffff, which the dialler requires"):
            sync.dial(listener.addresses[0], identity=KEY, config=having(required=(OTHER,)))


# --- what one requires ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("requires", ["listener", "dialler"])
@program
async def test_what_one_side_requires_and_the_other_lacks_is_said_to_the_dialler(requires: str, carrier: str) -> None:
    lacks = "dialler" if requires == "listener" else "listener"
    asking, plain, able = having(required=(NEW,)), having(OLD), having(OLD, NEW)
    configs = (asking, plain) if requires == "listener" else (plain, asking)
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        async with node(place(carrier, folder), configs[0]) as listener:
            with pytest.raises(HandshakeError) as caught:
                await dial(listener, configs[1])
            error = caught.value
            assert not isinstance(error, AuthError) and not error.transient
            assert f"the {lacks} lacks 0x8001, which the {requires} requires" in str(error)
            assert f"Config(capabilities=...) of the {lacks}" in str(error)
            assert f"required_capabilities of the {requires}" in str(error)
            await until(lambda: listener.stats().handshakes_failed == {"capability": 1})
            if requires == "listener":  # who has it comes in all the same
                async with dial(listener, able) as near, await listener.recv() as far:
                    assert near.capabilities == far.capabilities == {NEW}
            await until(lambda: listener.stats().handshakes_ok == (requires == "listener"))


@program
async def test_nodes_say_them_in_every_session_of_theirs() -> None:
    able, plain = having(OLD, NEW), having(OLD)
    async with netchan.Node(trust="any", config=able) as a, netchan.Node(trust="any", config=plain) as b:
        (address,) = await a.listen(TCP)
        near = await b.dial(address)
        far = await a.recv()
        assert near.capabilities == far.capabilities == {OLD}
        async with netchan.Node(trust="any", config=having(required=(OTHER,))) as c:
            with pytest.raises(HandshakeError, match="the listener lacks 0xffff, which the dialler requires"):
                await c.dial(address)
            await until(lambda: a.stats().handshakes_failed == {"capability": 1})


@program
async def test_both_sides_lack_what_the_other_one_requires() -> None:
    async with node(TCP, having(required=(NEW,))) as listener:
        with pytest.raises(HandshakeError) as caught:
            await dial(listener, having(required=(OLD, OTHER)))
        assert "the listener lacks 0x8000, 0xffff, which the dialler requires" in str(caught.value)
        assert "the dialler lacks 0x8001, which the listener requires" in str(caught.value)


@program
async def test_of_several_addresses_the_one_that_has_it_is_dialled() -> None:
    async with node(TCP, having(OLD)) as old, node(TCP, having(OLD, NEW)) as new:
        async with netchan.dial([*old.addresses, *new.addresses], identity=KEY, config=having(required=(NEW,))) as near:
            assert near.capabilities == {NEW}
            async with await new.recv() as far:
                assert far.node_id == KEY.node_id


@program
async def test_change_in_two_steps_refuses_nobody_who_went_along() -> None:
    before, has, needs = Config(), having(NEW), having(required=(NEW,))
    allowed = [(before, has), (has, before), (has, has), (has, needs), (needs, has), (needs, needs)]
    for listens, dials in allowed:
        async with node(TCP, listens) as listener, dial(listener, dials) as near, await listener.recv() as far:
            assert near.capabilities == far.capabilities == (set() if before in (listens, dials) else {NEW})
    for listens, dials in ((before, needs), (needs, before)):
        async with node(TCP, listens) as listener:
            with pytest.raises(HandshakeError, match="CAPABILITY"):
                await dial(listener, dials)


# --- with tickets -----------------------------------------------------------------------------------------------------
@program
async def test_ticket_begins_a_session_only_while_both_have_the_same_in_common() -> None:
    async with node(TCP, having(OLD, NEW)) as listener:
        steps = [
            ((OLD,), False, {OLD}),
            ((OLD,), True, {OLD}),
            ((OLD, OTHER), True, {OLD}),  # of one side alone: nothing has changed
            ((OLD, NEW), False, {OLD, NEW}),
            ((OLD, NEW), True, {OLD, NEW}),
            ((NEW,), False, {NEW}),
            ((), False, set()),
        ]
        for n, (mine, by_ticket, common) in enumerate(steps):
            async with dial(listener, having(*mine)) as near, await listener.recv() as far:
                assert near.capabilities == far.capabilities == common, n
                assert near.by_ticket is far.by_ticket is by_ticket, n
                await near.wait_ticket()
        await until(lambda: listener.stats().by_ticket == 3)
        await until(lambda: listener.stats().tickets_refused == {"terms": 3})


@program
async def test_stored_ticket_does_not_vouch_for_what_a_side_can_now() -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        where = place("unix", folder)
        async with node(where, having(OLD, NEW)) as listener:
            async with dial(listener, having(NEW)) as near, await listener.recv():
                ticket = await near.wait_ticket()
        kept._after_fork()
        async with node(where, having(OLD)) as listener:  # the same process, which can less
            async with dial(listener, having(NEW), ticket=ticket) as near, await listener.recv() as far:
                assert near.capabilities == far.capabilities == set()
                assert not near.by_ticket
            await until(lambda: listener.stats().tickets_refused == {"terms": 1})


@pytest.mark.parametrize("requires", ["listener", "dialler"])
@program
async def test_with_a_ticket_what_is_required_now_and_missing_is_refused(requires: str) -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        where = place("unix", folder)
        async with node(where, having(OLD)) as listener:
            async with dial(listener, having(OLD)) as near, await listener.recv():
                await near.wait_ticket()
        asking = having(OLD, required=(NEW,))
        async with node(where, asking if requires == "listener" else having(OLD)) as listener:
            with pytest.raises(HandshakeError, match=f"lacks 0x8001, which the {requires} requires"):
                await dial(listener, asking if requires == "dialler" else having(OLD))
            await until(lambda: listener.stats().handshakes_failed == {"capability": 1})
            await until(lambda: listener.stats().tickets_refused == {"terms": 1})


# --- in another process (here: the same one as giver and taker) -------------------------------------------------------
def test_session_that_is_handed_over_keeps_them_and_how_it_began(tmp_path: Path) -> None:
    async def body() -> None:
        me, you = Identity.generate(), Identity.generate()
        async with netchan.listen(TCP, identity=me, trust="any", config=having(OLD, NEW)) as listener:
            for by_ticket in (False, True):
                near = await netchan.dial(listener.addresses[0], identity=you, config=having(NEW, OTHER))
                far = await listener.recv()
                assert near.by_ticket is by_ticket
                await near.wait_ticket()
                if not by_ticket:
                    near.close()
                    await far.wait_closed()
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=30))
            before = await netchan.take_over(tmp_path / "hand", wait=30)
            # what was agreed stays: nobody is asked again what he can, or what he requires
            other = having(required=(OTHER,))
            async with await before.listen(TCP, identity=me, trust="any", config=other) as listener2:
                moved = await listener2.recv()
                assert moved.capabilities == near.capabilities == {NEW}
                assert moved.by_ticket and near.by_ticket
                await before.finished()
                await handing  # until then the process before may not know that its peer is over
                assert far.closed
                await near.aclose()
                await moved.wait_closed()

    run(body())


def test_dialled_session_that_is_handed_over_keeps_them(tmp_path: Path) -> None:
    async def body() -> None:
        async with netchan.listen(TCP, trust="any", config=having(OLD, NEW)) as listener:
            config = having(NEW)
            client = await netchan.dial(listener.addresses[0], trust="any", config=config)
            far = await listener.recv()
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", client, wait=30))
            async with netchan.take_over(tmp_path / "hand", wait=30) as before:
                other = await before.dial(listener.addresses[0], trust="any", config=config)
                assert other.capabilities == far.capabilities == {NEW}
                await handing
            await other.aclose()

    run(body())
