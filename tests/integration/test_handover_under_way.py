"""A hand-over that is interrupted, or meets others, while sessions are on their way (docs/spec/handover.md §3).

Wherever it breaks off, each session is in exactly one process and goes on there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import netchan
from netchan import Code, HandoverError, SessionLost
from netchan.net import gate, resume
from netchan.net.handover import on_worker
from netchan.net.handover_talk import Kind
from netchan.net.handshake import HandshakeConfig
from netchan.net.identity import parse_node_id
from netchan.net.join import Joiner
from netchan.net.params import Refusal
from netchan.node.plan import NETWORK
from tests.integration.handover_kit import (
    CONFIG,
    WAIT,
    Between,
    Client,
    Process,
    check,
    giving,
    pass_on,
    restart,
    run,
    served,
    settle,
    until,
)
from tests.integration.proxy import JOIN, Direction, Link, Proxy

pytestmark = pytest.mark.timeout(2 * WAIT)
PLACE = "tcp://127.0.0.1:0"
FIRST, SECOND = 4, 8
"""Sessions of the groups behind that of the listeners, at most; the second depends on how fast the first was."""


class Gate:
    """For Between: whoever comes there waits until somebody opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> bool:
        self.reached.set()
        assert self.opened.wait(30)
        return True


@asynccontextmanager
async def between(folder: Path, *arguments: Any) -> AsyncIterator[tuple[Path, Path, Between]]:
    """Where to give, where to take, and who stands between."""
    middle = Between(folder / "hand", folder / "asked", *arguments)
    passing = asyncio.create_task(pass_on(middle))
    try:
        yield folder / "hand", folder / "asked", middle
    finally:
        if isinstance(middle.before, Gate):
            middle.before.opened.set()
        await passing


async def check_each_is_in_one_place(clients: list[Any], old: list[Any], fresh: list[Any]) -> int:
    """Values go in both directions of every session, wherever it is; how many have moved."""
    gone = [peer for peer in old if peer._core.session.handed_over]
    assert len(fresh) == len(gone)
    here = [peer.open("c", str) for peer in [*(peer for peer in old if peer not in gone), *fresh]]
    there = [client.open("c", str) for client in clients]
    for n, channel in enumerate(there):
        await channel.send(f"up {n}")
    for channel in here:
        await channel.send(await channel.recv())
    for n, channel in enumerate(there):
        assert await channel.recv() == f"up {n}"
    for peer in gone:
        with pytest.raises(SessionLost) as caught:
            await peer.open("c", str).recv()
        assert caught.value.cause is not None and caught.value.cause.code == Code.HANDED_OVER
        assert not caught.value.undelivered and not caught.value.in_doubt
    return len(gone)


async def check_new_ones_come_in(listener: Any) -> None:
    async with netchan.dial(listener.addresses[0], trust="any") as client:
        async with await listener.recv() as peer:
            await client.open("new", int).send(1)
            assert await peer.open("new", int).recv() == 1


# --- it breaks off: both ends of the connection see that, whichever process has died ----------------------------------


@pytest.mark.parametrize("cut", [Kind.BEGIN, Kind.GROUP], ids=lambda kind: kind.name)
def test_connection_that_ends_before_the_listeners_are_released_has_changed_nothing(cut: Kind, tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(clients=6) as (_, listener, clients, peers), between(tmp_path, cut) as (hand, asked, middle):
            handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
            with pytest.raises(HandoverError):
                async with netchan.take_over(asked, wait=30):
                    raise AssertionError("nothing was there to take")
            with pytest.raises(HandoverError):
                await handing
            assert middle.seen[cut] == 1
            assert await check_each_is_in_one_place(clients, peers, []) == 0
            await check_new_ones_come_in(listener)

    run(body())


@pytest.mark.parametrize(
    ("cut", "nth", "groups"),
    [
        (Kind.NEXT, 1, 0),
        (Kind.GROUP, 2, 0),
        (Kind.RELEASE, 2, 1),
        (Kind.NEXT, 2, 1),
        (Kind.GROUP, 3, 1),
        (Kind.RELEASE, 3, 2),
    ],
    ids=lambda part: part.name if isinstance(part, Kind) else str(part),
)
def test_connection_that_ends_later_leaves_each_session_where_its_group_is(
    cut: Kind, nth: int, groups: int, tmp_path: Path
) -> None:
    async def body() -> None:
        async with giving(clients=FIRST + SECOND + 1) as (me, listener, clients, peers):
            async with between(tmp_path, cut, nth) as (hand, asked, middle):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                before = await netchan.take_over(asked, wait=30)
                second = await before.listen(PLACE, identity=me, trust="any", config=CONFIG)
                with pytest.raises(HandoverError):
                    await before.finished()
                with pytest.raises(HandoverError, match="had moved by then" if groups else None):
                    await handing
            assert middle.seen[cut] == nth
            gone = sum(peer._core.session.handed_over for peer in peers)
            async with second:
                fresh = [await second.recv() for _ in range(gone)]
                moved = await check_each_is_in_one_place(clients, peers, fresh)
                assert moved == (0, FIRST)[groups] if groups < 2 else FIRST < moved <= FIRST + SECOND
            await check_new_ones_come_in(listener)  # the giver listens again

    run(body())


@pytest.mark.parametrize(("nth", "moves"), [(2, False), (4, False), (0, True)])
def test_sessions_with_much_in_them_move_in_many_packets_or_not_at_all(nth: int, moves: bool, tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(clients=2) as (me, listener, clients, peers):
            value = bytes(range(256)) * 600
            ends: list[Any] = []
            for client, peer in zip(clients, peers, strict=True):
                held = peer.open("much", bytes), client.open("much", bytes)
                ends.append(held)
                await held[1].send(value)
                await held[1].flush("received")
            async with between(tmp_path, Kind.DATA, nth) as (hand, asked, middle):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                before = await netchan.take_over(asked, wait=30)
                second = await before.listen(PLACE, identity=me, trust="any", config=CONFIG)
                ended = await asyncio.gather(handing, before.finished(), return_exceptions=True)
            assert [type(error) for error in ended] == ([type(None)] * 2 if moves else [HandoverError] * 2)
            assert middle.seen[Kind.DATA] >= 4 if moves else middle.seen[Kind.DATA] == nth
            async with second:
                fresh = [await second.recv() for _ in peers] if moves else []
                for peer in fresh or peers:
                    assert await peer.open("much", bytes).recv() == value
                assert await check_each_is_in_one_place(clients, peers, fresh) == len(fresh)

    run(body())


def test_end_behind_the_last_release_loses_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with giving(clients=2) as (me, listener, clients, peers):
            async with between(tmp_path, Kind.DONE) as (hand, asked, _):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                before = await netchan.take_over(asked, wait=30)
                second = await before.listen(PLACE, identity=me, trust="any", config=CONFIG)
                await handing
                with pytest.raises(HandoverError):
                    await before.finished()
            async with second:
                fresh = [await second.recv() for _ in peers]
                assert await check_each_is_in_one_place(clients, peers, fresh) == 2
                await check_new_ones_come_in(second)

    run(body())


def test_giver_that_is_cancelled_keeps_what_has_not_moved(tmp_path: Path) -> None:
    async def body() -> None:
        gate = Gate()
        async with giving(clients=6) as (me, listener, clients, peers):
            async with between(tmp_path, Kind.NEXT, 1, gate) as (hand, asked, _):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                before = await netchan.take_over(asked, wait=30)
                second = await before.listen(PLACE, identity=me, trust="any", config=CONFIG)
                await until(gate.reached.is_set)
                handing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await handing
                gate.opened.set()
                with pytest.raises(HandoverError, match="given up"):
                    await before.finished()
            await second.aclose()
            assert await check_each_is_in_one_place(clients, peers, []) == 0
            await check_new_ones_come_in(listener)

    run(body())


def test_taker_whose_program_fails_takes_no_more(tmp_path: Path) -> None:
    async def body() -> None:
        gate = Gate()
        async with giving(clients=6) as (_, listener, clients, peers):
            async with between(tmp_path, Kind.NEXT, 1, gate) as (hand, asked, _):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                with pytest.raises(ZeroDivisionError):
                    async with netchan.take_over(asked, wait=30):
                        await until(gate.reached.is_set)
                        raise ZeroDivisionError
                gate.opened.set()
                with pytest.raises(HandoverError, match="given up"):
                    await handing
            assert await check_each_is_in_one_place(clients, peers, []) == 0
            await check_new_ones_come_in(listener)

    run(body())


# --- the processes themselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2], ids=["listeners", "sessions"])
def test_taker_that_is_killed_before_it_is_ready_costs_nothing(nth: int, tmp_path: Path) -> None:
    async def body() -> None:
        async with served("tcp", tmp_path, 4) as (place, old, clients):
            old.say("give")
            middle = Between(tmp_path / "hand", tmp_path / "asked", Kind.READY, nth)
            new = await Process.start(place, tmp_path, "next", hand="asked")
            middle.before = new.process.kill
            await pass_on(middle)
            assert middle.seen[Kind.READY] == nth
            await old.hear("kept")
            await new.process.wait()
            await settle(clients)
            assert len({pid for client in clients for pid in client.came}) == 1
            process, report = await restart(place, tmp_path, old)
            await settle(clients)
            for client in clients:
                client.stopping = True
            await asyncio.sleep(0.5)
            last, final = await restart(place, tmp_path, process)
        await last.kill()
        check(clients, [report, final])

    run(body())


@pytest.mark.parametrize("forked", [False, True], ids=["", "with a child"])
def test_giver_that_is_killed_when_the_taker_is_ready_is_followed_by_it(forked: bool, tmp_path: Path) -> None:
    """Also when the giver has forked meanwhile: the child does not keep the connection open."""

    async def body() -> None:
        children = []

        def kill() -> bool:
            if forked:
                old.process.send_signal(signal.SIGUSR1)
                children.append(asyncio.run_coroutine_threadsafe(old.hear("forked"), loop).result(30))
            old.process.kill()
            return True

        loop = asyncio.get_running_loop()
        async with served("tcp", tmp_path, 4) as (place, old, clients):
            for client in clients:
                client.at.clear()
            middle = Between(tmp_path / "hand", tmp_path / "asked", Kind.READY, 2, kill)
            old.say("give")
            new = await Process.start(place, tmp_path, "next", hand="asked")
            await pass_on(middle)
            assert middle.seen[Kind.RELEASE] == 1
            await new.hear("ready")
            assert await new.hear("all")
            await settle(clients)
            assert {len(client.came) for client in clients} == {2}
            for client in clients:
                client.stopping = True
            await asyncio.sleep(0.5)
        await new.kill()
        for child in children:
            os.kill(child, signal.SIGKILL)

    run(body())


@pytest.mark.parametrize("most", [26, 28, 30])
def test_taker_that_may_open_no_more_descriptors_leaves_the_rest_with_the_giver(most: int, tmp_path: Path) -> None:
    """All go on, wherever they are; those that moved, too, when their paths took the last descriptor."""

    async def body() -> None:
        async with served("tcp", tmp_path, 20, whole=False) as (place, old, clients):
            old.say("give")
            new = await Process.start(place, tmp_path, "next", str(most))
            await new.hear("ready")
            assert "descriptors" in await old.hear("kept")
            assert "descriptors" in await new.hear("all")
            await settle(clients)
            for process in (old, new):
                process.say("report")
            first, second = [await process.hear("report") for process in (old, new)]
            assert not first["breaks"] and not second["breaks"]
            for client in clients:
                assert first["heard"][client.name][0] == 0
                if client.name in second["heard"]:
                    assert second["heard"][client.name][0] == first["heard"][client.name][1] + 1
        await new.kill()

    run(body())


# --- others come meanwhile --------------------------------------------------------------------------------------------


def test_new_listener_takes_strangers_in_while_sessions_are_on_their_way(tmp_path: Path) -> None:
    async def body() -> None:
        gate = Gate()
        async with giving(clients=3) as (me, listener, clients, peers):
            async with between(tmp_path, Kind.NEXT, 1, gate) as (hand, asked, _):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                before = await netchan.take_over(asked, wait=30)
                second = await before.listen(PLACE, identity=me, trust="any", config=CONFIG)
                await until(gate.reached.is_set)
                await check_new_ones_come_in(second)
                for n, (client, peer) in enumerate(zip(clients, peers, strict=True)):
                    await client.open("d", int).send(n)  # what has not moved goes on over there
                    assert await peer.open("d", int).recv() == n
                gate.opened.set()
                await before.finished()
                await handing
            async with second:
                fresh = [await second.recv() for _ in peers]
                assert await check_each_is_in_one_place(clients, peers, fresh) == 3

    run(body())


def test_dial_of_the_new_process_waits_for_its_session(tmp_path: Path) -> None:
    async def body() -> None:
        gate = Gate()
        async with giving(clients=2) as (_, listener, clients, peers):
            async with between(tmp_path, Kind.NEXT, 1, gate) as (hand, asked, _):
                handing = asyncio.create_task(netchan.hand_over(hand, *clients, wait=30))
                async with netchan.take_over(asked, wait=30) as before:
                    dialling = [
                        asyncio.create_task(before.dial(listener.addresses[0], trust="any", config=CONFIG))
                        for _ in clients
                    ]
                    await until(gate.reached.is_set)
                    assert not any(task.done() for task in dialling)
                    gate.opened.set()
                    fresh = await asyncio.gather(*dialling)
                await handing
            for client in fresh:
                await client.open("c", int).send(1)
            for peer in peers:
                assert await peer.open("c", int).recv() == 1
            for client in fresh:
                await client.aclose()
            assert listener.stats().handshakes_ok == 2

    run(body())


def test_process_that_still_takes_over_gives_when_it_has_all(tmp_path: Path) -> None:
    async def body() -> None:
        gate = Gate()
        async with giving(clients=3) as (me, listener, clients, peers):
            async with between(tmp_path, Kind.NEXT, 1, gate) as (hand, asked, _):
                handing = asyncio.create_task(netchan.hand_over(hand, listener, wait=30))
                before = await netchan.take_over(asked, wait=30)
                second = await before.listen(PLACE, identity=me, trust="any", config=CONFIG)
                await until(gate.reached.is_set)
                further = asyncio.create_task(netchan.hand_over(hand, second, wait=30))  # the same place
                taking = asyncio.create_task(_take(hand, me))
                await asyncio.sleep(0.2)
                assert not taking.done()
                gate.opened.set()
                await handing
                last, third = await taking
                await last.finished()
                await further
            async with third:
                fresh = [await third.recv() for _ in peers]
                assert await check_each_is_in_one_place(clients, peers, fresh) == 3

    run(body())


async def _take(path: Path, me: Any) -> tuple[Any, Any]:
    before = await netchan.take_over(path, wait=30)
    return before, await before.listen(PLACE, identity=me, trust="any", config=CONFIG)


# --- sessions that lose their path meanwhile --------------------------------------------------------------------------


async def parked(process: Process) -> int:
    """JOINs that wait in that process."""
    process.say("report")
    return int((await process.hear("report"))["parked"])


@pytest.mark.parametrize("pieces", [1, 2])
def test_join_that_comes_before_its_session_is_answered_when_that_is_there(pieces: int, tmp_path: Path) -> None:
    """The path is cut while the session is still in the old process; the new one already listens."""

    async def body() -> None:
        rest = threading.Event()
        joins: list[Link] = []

        def tap(link: Link, way: Direction, number: int, data: bytes) -> bytes:
            if way == "up" and number == 0 and data[0] == JOIN:
                joins.append(link)
                if pieces == 2 and len(joins) == 1:
                    link.server.sendall(data[:50])
                    assert rest.wait(30)
                    return data[50:]
            return data

        gate = Gate()
        old = await Process.start(PLACE, tmp_path, "first")
        middle = Between(tmp_path / "hand", tmp_path / "asked", Kind.NEXT, 1, gate)
        with Proxy(await old.hear("ready"), tap=tap) as proxy:
            client = Client()
            running = asyncio.create_task(client.run(proxy.address))
            await until(lambda: client.at)
            passing = asyncio.create_task(pass_on(middle))
            old.say("give")
            new = await Process.start(PLACE, tmp_path, "next", hand="asked")
            await new.hear("ready")
            await until(gate.reached.is_set)
            proxy.links[0].cut()
            await until(lambda: joins)
            if pieces == 1:
                while not await parked(new):
                    await asyncio.sleep(0.05)
            gate.opened.set()  # now it moves
            if pieces == 2:
                assert await new.hear("all") == ""
                rest.set()
            else:
                assert await new.hear("all") == ""
            report = await old.hear("gave")
            await until(lambda: len(client.came) == 2)  # it hears the new process
            assert client.peer is not None and client.peer._core.session.stats()["resumes"] >= 1
            assert await parked(new) == 0
            client.stopping = True
            await running
            new.say("report")
            check([client], [report, await new.hear("report")])
            await passing
        for process in (old, new):
            await process.kill()

    run(body())


def test_overloaded_listener_parks_so_many_and_tells_the_others_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PARKED_MAX", 3)

    class Stranger:
        """A session that is not here."""

        def join_mac(self, data: bytes) -> bytes:
            return os.urandom(32)

    async def ask(address: str) -> tuple[Joiner, asyncio.StreamReader, asyncio.StreamWriter]:
        node_id, _, place = address.removeprefix("tcp://").partition("@")
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        keys = gate.named_keys(parse_node_id(node_id), NETWORK.encode())
        joiner = Joiner(
            cast("Any", Stranger()),
            HandshakeConfig(identity=netchan.Identity.generate()).primitives,
            keys,
            os.urandom,
            number=0,
            path_id=2,
            last=0,
            received=0,
            where=address,
            timeout_ns=1 << 60,
        )
        (sent,) = joiner.start(time.time(), 0)
        writer.write(sent.data)
        return joiner, reader, writer

    async def answer(asked: tuple[Joiner, asyncio.StreamReader, asyncio.StreamWriter]) -> Any:
        joiner, reader, writer = asked
        (event,) = joiner.feed(await reader.read(4096), time.time(), 0)
        writer.close()
        return event.code

    async def body() -> None:
        async with giving() as (_, listener, [client], [peer]):
            await asyncio.to_thread(on_worker, resume.expect)
            try:
                waiting = []
                for n in range(3):
                    waiting.append(await ask(listener.addresses[0]))
                    await until(lambda n=n: resume.parked() == n + 1)
                for _ in range(5):
                    assert await answer(await ask(listener.addresses[0])) is Refusal.BUSY
                waiting.pop()[2].close()  # one gives up, and makes room
                await until(lambda: resume.parked() == 2)
                waiting.append(await ask(listener.addresses[0]))
                await until(lambda: resume.parked() == 3)
                await check_new_ones_come_in(listener)
            finally:
                await asyncio.to_thread(on_worker, resume.expected)
            assert [await answer(one) for one in waiting] == [Refusal.GONE] * 3
            assert resume.parked() == 0
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1

    run(body())
