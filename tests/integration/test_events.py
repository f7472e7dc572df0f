"""``peer.events``, ``peer.set_standby``: what a program hears and says of paths (docs/spec/session.md §5.3, §5.9)."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import netchan
from netchan import Config, ConfigError, PeerEvent, sync
from netchan.node import events as module
from netchan.node.events import EventLog
from tests.integration.kit import BOSS, KEY, TCP, program, session, until
from tests.integration.proxy import Proxy
from tests.integration.test_paths import joined, place

WAIT = 30.0


async def up_to(events: netchan.PeerEvents, kind: str) -> list[PeerEvent]:
    """The events up to the first of this kind."""
    found = []
    async with asyncio.timeout(WAIT):
        async for event in events:
            found.append(event)
            if event.kind == kind:
                return found
    raise AssertionError(found)


@program
async def test_events_of_paths_that_come_fall_and_go() -> None:
    async with joined(2) as (near, far, proxies):
        events = near.events
        before = time.time()
        assert [(e.kind, e.path) for e in await up_to(events, "path_standby")] == [
            ("path_added", 2),
            ("path_standby", 2),
        ]
        proxies[0].links[0].cut()
        found = await up_to(events, "path_added")
        assert [(e.kind, e.path) for e in found[:2]] == [("path_lost", 0), ("path_active", 2)]
        assert found[0].address == place(proxies[0].address) and found[1].address == place(proxies[1].address)
        assert found[-1].path == 4 and found[-1].address == place(proxies[0].address)
        assert {e.peer_id for e in found} == {near.node_id} and all(e.at >= before - 60 for e in found)
        assert found[0].cause is None and found[0].dropped == 0
        far.close()
        assert (await up_to(events, "closed"))[-1].cause is None
        assert [event async for event in events] == []
        assert events.take() is None and await events.get() is None


@program
async def test_suspended_and_resumed() -> None:
    async with joined(1) as (near, _far, proxies):
        events = near.events
        proxies[0].links[0].cut()
        found = [(e.kind, e.path) for e in await up_to(events, "path_active")]
        assert found == [
            ("path_lost", 0),
            ("suspended", 0),
            ("resumed", found[2][1]),
            ("path_added", found[2][1]),
            ("path_active", found[2][1]),
        ]


@program
async def test_lost_session_is_the_last_event_and_says_why() -> None:
    async with session("tcp", lease=0.0) as (near, far):
        events = far.events
        near._core.session.close(4, b"on purpose")  # PROTOCOL
        event = (await up_to(events, "lost"))[-1]
        assert isinstance(event.cause, netchan.ProtocolError) and event.path is None
        assert [kind async for kind in events] == []


@program
async def test_waiting_for_an_event_can_be_cancelled_and_loses_none() -> None:
    async with joined(1) as (near, far, proxies):
        events = near.events
        waiting = asyncio.create_task(events.get())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await near.add_path(proxies[0].address)
        assert [e.kind for e in await up_to(events, "path_standby")] == ["path_added", "path_standby"]
        assert far.path_count == 2


@program
async def test_oldest_events_go_when_nobody_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 4)
    async with joined(2) as (near, _far, _proxies):
        events = near.events
        while events.take() is not None:
            pass
        for standby in (True, False) * 4:
            near.set_standby(2, standby)
            near.redundancy = "mirror" if not standby else "failover"
            near._core._on_events()
        overflow = await events.get()
        assert overflow is not None and overflow.kind == "overflow"
        rest = []
        while (event := events.take()) is not None:
            rest.append(event)
        assert len(rest) == 4 and overflow.dropped > 0 and overflow.path is None


@program
async def test_path_that_stands_by_is_left_by_both_sides_takes_over_and_gives_way() -> None:
    async with joined(2) as (near, far, proxies):
        near.set_standby(near.paths[0])
        await until(lambda: [p.state for p in far.paths] == ["standby", "active"] == [p.state for p in near.paths])
        near.redundancy = "stripe"
        far.redundancy = "mirror"
        await until(lambda: [p.state for p in far.paths] == ["standby", "active"] == [p.state for p in near.paths])
        a, b = (peer.open("x", int, capacity=100) for peer in (near, far))
        for n in range(50):
            await a.send(n)
        assert [await b.recv() for _ in range(50)] == list(range(50))
        proxies[1].close()
        await until(lambda: near.paths and near.paths[0].state == "active" and near.path_count == 1)
        await a.send(50)
        assert await b.recv() == 50
        near.set_standby(0, False)
        await until(lambda: far.path_count == 1 and far.paths[0].state == "active")


@program
async def test_path_made_in_the_place_of_one_that_stood_by_stands_by_too() -> None:
    async with joined(2) as (near, far, proxies):
        near.set_standby(2)
        proxies[1].links[0].cut()
        await until(lambda: [p.id for p in near.paths] == [0, 4] == [p.id for p in far.paths])
        far.redundancy = near.redundancy = "stripe"
        await until(lambda: [p.state for p in far.paths] == ["active", "standby"] == [p.state for p in near.paths])


@program
async def test_what_cannot_stand_by() -> None:
    async with joined(2) as (near, _far, _proxies):
        for wrong in (4, "2", True):
            with pytest.raises(ConfigError, match="no path"):
                near.set_standby(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="not a bool"):
            near.set_standby(2, 1)  # type: ignore[arg-type]
    async with session("tcp", lease=0.0) as (near, _):
        with pytest.raises(ConfigError, match="only one"):
            near.set_standby(0)


def test_blocking_front_has_the_same() -> None:
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener, Proxy(listener.addresses[0]) as proxy:
        near = sync.dial(proxy.address, identity=KEY, timeout=WAIT)
        far = listener.recv(timeout=WAIT)
        events = near.events
        with pytest.raises(TimeoutError):
            events.get(timeout=0.01)
        added = near.add_path(listener.addresses[0], timeout=WAIT)
        event = events.get(timeout=WAIT)
        assert event is not None and (event.kind, event.path) == ("path_added", added.id)
        near.set_standby(added)
        kinds: list[str] = []

        def gather() -> None:
            for event in near.events:
                kinds.append(event.kind)

        other = threading.Thread(target=gather)
        other.start()
        proxy.close()
        end = time.monotonic() + WAIT
        while "path_active" not in kinds:
            assert time.monotonic() < end, kinds
            time.sleep(0.002)
        far.aclose(timeout=WAIT)
        other.join(WAIT)
        assert not other.is_alive()
        assert kinds[0] == "path_standby" and kinds[-1] == "closed" and "path_active" in kinds
        near.close()


def test_log_counts_what_the_core_had_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id], config=Config()) as listener:
        near = sync.dial(listener.addresses[0], identity=KEY, timeout=WAIT)
        far = listener.recv(timeout=WAIT)
        near.add_path(listener.addresses[0], timeout=WAIT)
        for _ in range(12):  # nobody looks: sixteen are kept
            near.redundancy = "mirror"
            near.redundancy = "failover"
        log = EventLog(near._core.session, near.node_id, "")
        log.look()
        first = log.take()
        assert first is not None and first.kind == "overflow" and first.dropped == 1 + 24 - 16
        assert len(list(iter(log.take, None))) == 16
        near.close(), far.close()
