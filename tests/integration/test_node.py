"""A node: several listeners with one queue, dials, the shared session, the pool, and one session for two nodes
(docs/spec/node.md).
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import netchan
import netchan.sync
from netchan import Config, DialError, Identity, Node, Peer, SessionLost
from netchan.node import pool, roster

CONFIG = Config(lease=30)
ANY = "tcp://127.0.0.1:0"


def run(body: Awaitable[object]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(body, 45)

    asyncio.run(bounded())


async def until(done: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end, "it has not happened in half a minute"
        await asyncio.sleep(0.005)


def node(**options: Any) -> Node:
    return Node(trust="any", config=CONFIG, **options)


@contextmanager
def nobody_answers() -> Iterator[int]:
    """A port at which the kernel takes connections, and nobody says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that listen; the first one has the smaller id."""
    ids = sorted((Identity.generate() for _ in range(2)), key=lambda one: one.node_id)
    async with node(identity=ids[0], **options) as a, node(identity=ids[1], **options) as b:
        await a.listen(ANY)
        await b.listen(ANY)
        yield a, b


# --- listening and dialling -------------------------------------------------------------------------------------------


def test_peers_of_all_listeners_come_out_of_the_node(tmp_path: Path) -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            tcp = await here.listen(ANY)
            unix = await here.listen(f"unix://{tmp_path}/sock")
            udp = await here.listen(["udp://127.0.0.1:0"])
            assert here.addresses == tcp + unix + udp and all(here.node_id in each for each in here.addresses)
            held = []  # a peer that nobody holds is left
            for address in here.addresses:
                mine = await there.dial(address)
                theirs = await here.recv()
                held += [mine, theirs]
                assert theirs.node_id == there.node_id and mine.node_id == here.node_id
                assert theirs in here.peers and mine in there.peers
                await mine.open("x", int).send(1)
                assert await theirs.open("x", int).recv() == 1
            stats = here.stats()
            assert stats.handshakes_ok == stats.peers == stats.taken == 3 and stats.dialled == 0
            assert there.stats().dialled == there.stats().dials == 3

    run(body())


def test_each_dial_is_a_session_of_its_own() -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            await here.listen(ANY)
            one, other = await there.dial(here.addresses[0]), await there.dial(here.addresses[0])
            came = [await here.recv(), await here.recv()]
            assert one is not other and set(came) == set(here.peers)

    run(body())


def test_serve_and_leaving_of_all_sessions() -> None:
    heard: list[int] = []

    async def handle(peer: Peer) -> None:
        async for n in peer.open("n", int):
            heard.append(n)

    async def body() -> None:
        async with node() as here:
            await here.listen(ANY)
            await here.listen(ANY)
            serving = asyncio.create_task(here.serve(handle))
            async with node() as there:
                dialled = [await there.dial(address) for address in here.addresses]
                for n, peer in enumerate(dialled):
                    await peer.open("n", int).send(n)
            await until(lambda: sorted(heard) == [0, 1] and not here.peers)
        await serving

    run(body())


def test_a_node_that_is_left_by_an_exception_ends_no_channel_cleanly() -> None:
    async def body() -> None:
        async with node() as here:
            await here.listen(ANY)
            with pytest.raises(KeyError):
                async with node() as there:
                    mine = await there.dial(here.addresses[0])
                    await mine.open("n", int).send(7)
                    raise KeyError
            rx = (await here.recv()).open("n", int)
            assert await rx.recv() == 7
            with pytest.raises(netchan.ChannelAborted):
                await rx.recv()

    run(body())


def test_a_closed_node_takes_and_makes_nothing() -> None:
    async def body() -> None:
        async with node() as here:
            await here.listen(ANY)
            there = node()
            dialled = await there.dial(here.addresses[0])
            await there.aclose()
            assert dialled._core.over
            with pytest.raises(DialError, match="node is closed"):
                await there.dial(here.addresses[0])
            with pytest.raises(DialError, match="node is closed"):
                await there.peer(here.addresses[0])
            with pytest.raises(netchan.ConfigError, match="node is closed"):
                await there.listen(ANY)
            with pytest.raises(netchan.ChannelClosed):
                await there.recv()

    run(body())


def test_a_listener_that_does_not_come_up_leaves_the_others_alone(tmp_path: Path) -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            await here.listen(ANY)
            with pytest.raises(netchan.ListenError):
                await here.listen(f"unix://{tmp_path}/no/such/folder")
            assert len(here.addresses) == 1
            mine, theirs = await there.dial(here.addresses[0]), await here.recv()
            assert theirs.node_id == there.node_id and mine.node_id == here.node_id

    run(body())


def test_more_than_32_listeners_are_refused() -> None:
    async def body() -> None:
        async with node() as here:
            for _ in range(roster.LISTENERS_MAX):
                await here.listen(ANY)
            with pytest.raises(netchan.ConfigError, match="32 listeners"):
                await here.listen(ANY)

    run(body())


def test_backlog_bounds_who_waits_for_each_listener() -> None:
    async def body() -> None:
        config = Config(lease=30, backlog=1, dial_timeout=30)
        async with Node(trust="any", config=config) as here, node() as there:
            await here.listen(ANY)
            await here.listen(ANY)
            dials = [asyncio.create_task(_dial(there, address)) for address in here.addresses for _ in range(3)]
            await until(lambda: here.stats().pending == 2)
            await asyncio.sleep(0.2)
            assert here.stats().pending == 2 and here.stats().peers == 2
            came = [await here.recv() for _ in dials]
            assert len(came) == len(set(await asyncio.gather(*dials))) == 6

    run(body())


async def _dial(there: Node, address: str) -> Peer:
    return await there.dial(address)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_node_that_is_collected_warns_and_leaves_its_peers() -> None:
    async def body() -> None:
        async with node() as here:
            await here.listen(ANY)
            there = node()
            dialled = await there.dial(here.addresses[0])
            theirs = await here.recv()
            with pytest.warns(ResourceWarning, match="garbage-collected without close"):
                del there
                gc.collect()
            await theirs.wait_closed()
            await dialled.wait_closed()

    run(body())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Node(pool_size=-1),
        lambda: Node(pool_size=True),
        lambda: Node(pool_idle="x"),  # type: ignore[arg-type]
        lambda: Node(psk="secret"),  # type: ignore[arg-type]
        lambda: Node(config={}),  # type: ignore[arg-type]
        lambda: node().peer("nobody"),
        lambda: node().peer("tcp://127.0.0.1:1"),
        lambda: node().listen("tcp://127.0.0.1"),
        lambda: Node().dial("tcp://127.0.0.1:1"),
    ],
)
def test_wrong_arguments_raise_from_the_call(wrong: Callable[[], object]) -> None:
    with pytest.raises(netchan.ConfigError):
        wrong()


# --- the living session, or a dial ------------------------------------------------------------------------------------


def test_who_asks_for_the_same_peer_gets_the_same_session() -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            await here.listen(ANY)
            found = await asyncio.gather(*(there.peer(here.addresses[0]) for _ in range(20)))
            assert len(set(found)) == 1 and there.stats().dials == 1
            assert await there.peer(here.node_id) is found[0]
            theirs = await here.recv()
            assert await here.peer(there.node_id) is theirs  # whoever has dialled
            assert here.stats().dials == 0 and there.stats().pooled == 1

    run(body())


def test_a_session_that_is_over_is_dialled_again_at_the_known_address() -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            await here.listen(ANY)
            first = await there.peer(here.addresses[0])
            await first.aclose()
            second = await there.peer(here.node_id)
            assert second is not first and there.stats().dials == 2

    run(body())


def test_addresses_that_nobody_has_said_are_not_invented() -> None:
    async def body() -> None:
        async with node() as there:
            with pytest.raises(DialError, match="no address of"):
                await there.peer(Identity.generate().node_id)

    run(body())


def test_addresses_are_remembered_for_so_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "KNOWN_MAX", 2)
    there = node()._roster
    for name in "abac":
        there.remember(name, ["x"])
    assert there.known("a") == there.known("c") == ("x",)
    with pytest.raises(DialError):
        there.known("b")


def test_all_who_wait_for_a_dial_hear_why_it_failed() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        async with node() as there:
            nowhere = f"tcp://{Identity.generate().node_id}@127.0.0.1:{port}"
            found = await asyncio.gather(*(there.peer(nowhere) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(each, DialError) for each in found)
            assert len({id(each) for each in found}) == 3 and len({str(each) for each in found}) == 1
            assert all(each.causes for each in found)  # type: ignore[union-attr]

    run(body())


def test_a_dial_goes_on_while_somebody_waits_and_ends_with_the_last() -> None:
    async def body() -> None:
        async with node() as there:
            place = f"tcp://{Identity.generate().node_id}@127.0.0.1:{silent}"
            tasks = [asyncio.create_task(_ask(there, place)) for _ in range(3)]
            await until(lambda: there.stats().dials == 1)
            tasks[0].cancel()
            await asyncio.sleep(0.05)
            assert not tasks[1].done() and len(there._roster._flights) == 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: not there._roster._flights and not there._roster._dials)
            again = asyncio.create_task(_ask(there, place))  # a new one, not the one that was given up
            await until(lambda: there.stats().dials == 2)
            again.cancel()

    with nobody_answers() as silent:
        run(body())


async def _ask(there: Node, where: str) -> Peer:
    return await there.peer(where)


def test_who_waits_for_a_dial_hears_that_the_node_was_closed() -> None:
    async def body() -> None:
        there = node()
        place = f"tcp://{Identity.generate().node_id}@127.0.0.1:{silent}"
        asking = [asyncio.create_task(_ask(there, place)) for _ in range(2)]
        asking.append(asyncio.create_task(_dial(there, place)))
        await until(lambda: there.stats().dials == 2)
        await there.aclose()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(each, DialError) for each in found), found

    with nobody_answers() as silent:
        run(body())


def test_a_listener_that_is_cancelled_leaves_nothing_open() -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            await here.listen(ANY)
            opening = asyncio.create_task(here.listen("tcp://localhost:0"))
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            assert len(here.addresses) == (1 if opening.cancelled() else 2)  # it may have been up already
            mine, theirs = await there.dial(here.addresses[0]), await here.recv()
            assert theirs.node_id == there.node_id and mine.node_id == here.node_id

    run(body())


def test_a_child_is_told_that_the_node_is_its_parents() -> None:
    async def body() -> None:
        async with node() as here, node() as there:
            await here.listen(ANY)
            mine = await there.peer(here.addresses[0])
            theirs = await here.recv()
            child = os.fork()
            if not child:
                calls = (there.close, lambda: there._roster.find(here.node_id), lambda: there._roster.stop())
                told = 0
                for call in calls:
                    try:
                        call()
                    except netchan.ForkError:
                        told += 1
                os._exit(0 if told == len(calls) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            await mine.open("n", int).send(1)  # and here nothing has happened
            assert await theirs.open("n", int).recv() == 1

    run(body())


# --- the pool ---------------------------------------------------------------------------------------------------------


def test_a_session_that_nobody_uses_is_left_and_one_in_use_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_S", 2.0)  # for a channel to be opened in, on any machine

    async def body() -> None:
        async with node() as one, node() as other, node(pool_idle=0.05) as there:
            await one.listen(ANY)
            await other.listen(ANY)
            used, unused = await there.peer(one.addresses[0]), await there.peer(other.addresses[0])
            channel = used.open("n", int)
            theirs = await other.recv()
            await unused.wait_closed()
            await theirs.wait_closed()
            assert theirs._core.end_error() is None  # cleanly
            assert not used._core.left and there.stats().left_unused == 1 and there.stats().pooled == 1
            await channel.aclose()
            near = await one.recv()
            near.open("n", int).close()
            await used.wait_closed()
            assert there.stats().pooled == 0
            again = await there.peer(other.node_id)
            assert again is not unused and near._core.end_error() is None

    run(body())


def test_beyond_its_size_the_pool_leaves_those_unused_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_S", 0.0)

    async def body() -> None:
        async with node() as a, node() as b, node() as c, node(pool_size=2) as there:
            for each in (a, b, c):
                await each.listen(ANY)
            first, second = await there.peer(a.addresses[0]), await there.peer(b.addresses[0])
            assert await there.peer(a.node_id) is first  # so the second one is unused longer
            third = await there.peer(c.addresses[0])
            await second.wait_closed()
            assert set(there.peers) == {first, third}

    run(body())


def test_sessions_in_use_are_kept_beyond_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_S", 2.0)

    async def body() -> None:
        async with node() as a, node() as b, node(pool_size=0, pool_idle=0.02) as there:
            channels = []
            for each in (a, b):
                await each.listen(ANY)
                channels.append((await there.peer(each.addresses[0])).open("n", int))
            await asyncio.sleep(2.5)
            assert len(there.peers) == 2
            for channel in channels:
                await channel.send(1)

    run(body())


# --- one session for two nodes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
def test_of_two_sessions_the_one_that_the_smaller_id_began_is_kept(swap: bool) -> None:
    async def body() -> None:
        async with two(single_session=True) as (small, great):
            first, second = (small, great) if swap else (great, small)
            mine = await first.peer(second.addresses[0])
            theirs = await second.recv()
            # the other side dials as if it knew nothing
            again = await _dial_beside(second, first)
            if first is small:  # what it began is kept, and given
                assert again is theirs and await second.peer(first.node_id) is theirs
                assert first.peers == (mine,)
                tx, rx = mine.open("n", int), theirs.open("n", int)
            else:
                assert again is not theirs
                other = await first.recv()
                assert first.peers == (other,) and second.peers == (again,)
                for lost in (mine, theirs):
                    with pytest.raises(SessionLost, match="another one with the same node"):
                        await lost.open("n", int).recv()
                tx, rx = other.open("n", int), again.open("n", int)
            await tx.send(5)
            assert await rx.recv() == 5

    run(body())


async def _dial_beside(one: Node, other: Node) -> Peer:
    """A dial that does not look whether there is a session."""
    found, one._roster.find_single = one._roster.find_single, lambda plan: None  # type: ignore[method-assign]
    try:
        return await one.dial(other.addresses[0])
    finally:
        one._roster.find_single = found  # type: ignore[method-assign]


def test_what_the_session_that_was_not_kept_had_accepted_is_reported() -> None:
    async def body() -> None:
        async with two(single_session=True) as (small, great):
            mine = await great.dial(small.addresses[0])
            tx = mine.open("n", int, capacity=8)
            for n in range(8):
                await tx.send(n)
            again = await _dial_beside(small, great)
            assert again in small.peers
            await mine.wait_closed()
            (report,) = mine.lost
            assert [*report.undelivered, *(doubt.value for doubt in report.in_doubt)] == list(range(8))
            assert isinstance(report.__cause__, ConnectionResetError) and "both sides" in str(report.__cause__)

    run(body())


def test_nodes_that_dial_each_other_at_once_end_with_one_session() -> None:
    async def body() -> None:
        for _ in range(20):
            async with two(single_session=True) as (small, great):
                await asyncio.gather(
                    *(_ask(one, other.addresses[0]) for one, other in ((small, great), (great, small)) for _ in "ab")
                )
                await until(lambda small=small, great=great: len(small.peers) == len(great.peers) == 1)
                (mine,), (theirs,) = small.peers, great.peers
                assert await small.peer(great.node_id) is mine and await great.peer(small.node_id) is theirs
                assert mine._core.session.initiator != theirs._core.session.initiator
                await mine.open("n", int).send(1)
                assert await theirs.open("n", int).recv() == 1

    run(body())


def test_a_session_that_comes_in_while_we_dial_waits_for_the_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dial is to an address where nobody answers, so what came in comes out in the end."""
    monkeypatch.setattr(roster, "HOLD_S", 4.0)

    async def body() -> None:
        async with two(single_session=True) as (small, great):
            place = f"tcp://{great.node_id}@127.0.0.1:{silent}"
            asking = asyncio.create_task(_ask(small, place))
            await until(lambda: small.stats().dials == 1)
            mine = await great.dial(small.addresses[0])
            await until(lambda: great.node_id in small._roster._held)
            assert small.stats().pending == 0
            theirs = await small.recv()  # HOLD_S later
            assert await asking is theirs  # whoever waited for the dial gets it, too
            await mine.open("n", int).send(1)
            assert await theirs.open("n", int).recv() == 1

    with nobody_answers() as silent:
        run(body())


def test_a_node_that_is_closed_leaves_the_session_that_waits_for_its_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "HOLD_S", 600.0)

    async def body() -> None:
        async with two(single_session=True) as (small, great):
            asking = asyncio.create_task(_ask(small, f"tcp://{great.node_id}@127.0.0.1:{silent}"))
            await until(lambda: small.stats().dials == 1)
            mine = await great.dial(small.addresses[0])
            await until(lambda: great.node_id in small._roster._held)
            await small.aclose()
            await mine.wait_closed()
            with pytest.raises(DialError):
                await asking
            assert not small._roster._held and not small._roster._dials

    with nobody_answers() as silent:
        run(body())


def test_a_process_that_begins_again_takes_the_place_of_the_one_before() -> None:
    async def body() -> None:
        me = Identity.generate()
        async with node(single_session=True) as here:
            await here.listen(ANY)
            before, after = node(identity=me), node(identity=me)
            first, old = await before.dial(here.addresses[0]), await here.recv()
            second, new = await after.dial(here.addresses[0]), await here.recv()
            assert here.peers == (new,) and second in after.peers
            await first.wait_closed()
            await old.wait_closed()
            assert here.stats().duplicates == 1
            await before.aclose()
            await after.aclose()

    run(body())


def test_without_it_two_sessions_of_a_pair_are_two_sessions() -> None:
    async def body() -> None:
        async with two() as (small, great):
            dialled = await small.dial(great.addresses[0]), await great.dial(small.addresses[0])
            came = await small.recv(), await great.recv()
            assert len({*dialled, *came}) == 4
            await until(lambda: len(small.peers) == len(great.peers) == 2)
            assert small.stats().duplicates == great.stats().duplicates == 0

    run(body())


# --- hand-over, and the blocking front --------------------------------------------------------------------------------


def test_a_node_is_handed_over_with_all_that_it_has(tmp_path: Path) -> None:
    async def body() -> None:
        me = Identity.generate()
        async with node(identity=Identity.generate()) as far, node(identity=me) as old, node(identity=me) as new:
            await far.listen(ANY)
            await old.listen(ANY)
            out = await old.peer(far.addresses[0])
            far_out = await far.recv()
            far_in = await far.dial(old.addresses[0])
            old_in = await old.recv()
            await out.open("n", int, capacity=4).send(1)
            await far_in.open("n", int, capacity=4).send(2)
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", old, wait=30))
            async with await netchan.take_over(tmp_path / "hand", wait=30) as before:
                assert await new.listen(
                    old.addresses[0].split("@")[0][:6] + old.addresses[0].split("@")[1], inherit=before
                )
                dialled = await new.dial(far.addresses[0], inherit=before)
                came = await new.recv()
                await before.finished()
            await handing
            assert {dialled, came} == set(new.peers) and old.peers == () and old_in._core.over
            dialled.open("n", int, capacity=4)
            assert await far_out.open("n", int).recv() == 1
            assert await came.open("n", int, capacity=4).recv() == 2
            assert await new.peer(far.node_id) in (dialled, came)

    run(body())


def test_the_blocking_node_is_the_same() -> None:
    with netchan.sync.Node(trust="any", config=CONFIG) as here, netchan.sync.Node(trust="any", config=CONFIG) as there:
        here.listen(ANY, timeout=30)
        mine = there.peer(here.addresses[0], timeout=30)
        assert there.peer(here.node_id) is mine
        theirs = here.recv(timeout=30)
        mine.open("n", int).send(3, timeout=30)
        assert theirs.open("n", int).recv(timeout=30) == 3
        with pytest.raises(TimeoutError):
            here.recv(timeout=0)
        with there.dial(here.addresses[0], timeout=30) as another:
            assert another is not mine
        assert there.stats().reused == 1
