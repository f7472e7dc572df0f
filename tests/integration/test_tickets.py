"""Sessions that begin with a ticket of an earlier one (docs/spec/handshake.md §12)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import AuthError, Config, ConfigError, ForkError, Identity, SessionLost, sync
from netchan.net import gate, giving, kept, manager, ticket
from netchan.net.handshake import HandshakeConfig, Initiator, Send
from netchan.net.trust import make_policy
from tests.integration.kit import BOSS, KEY, TCP, joined, program, until
from tests.integration.proxy import Direction, Link, Proxy
from tests.integration.udp_proxy import Relay

_numbers = count()
AT_ONCE = 2.0
"""Seconds; the lease is 300."""


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """Each test begins like a process that has dialled nobody."""
    kept._after_fork()
    yield
    kept._after_fork()


@asynccontextmanager
async def node(place: str = TCP, **options: Any) -> AsyncIterator[netchan.Listener]:
    async with netchan.listen(place, **({"identity": BOSS, "trust": [KEY.node_id]} | options)) as listener:
        yield listener


@asynccontextmanager
async def visit(
    listener: netchan.Listener, address: Any = None, **options: Any
) -> AsyncIterator[tuple[netchan.Peer, netchan.Peer]]:
    """A session: the peer that dialled, and the one that came out of the listener."""
    async with netchan.dial(address or listener.addresses[0], **({"identity": KEY} | options)) as near:
        async with await listener.recv() as far:
            yield near, far


async def spoken(near: netchan.Peer, far: netchan.Peer) -> None:
    """A value each way."""
    there, here = await joined(near, far, f"n{next(_numbers)}")
    for tx, rx in ((there, here), (here, there)):
        await tx.send(7)
        assert await rx.recv() == 7


async def stored(listener: netchan.Listener, **options: Any) -> bytes:
    """A ticket as a program keeps it, of a session that was left."""
    async with visit(listener, **options) as (near, _):
        found = await near.wait_ticket()
    assert found is not None
    return found


def other_process() -> None:
    """The listener's process is started again: its keys are others."""
    ticket._keys.clear()


# --- the same process again -------------------------------------------------------------------------------------------
@program
async def test_next_dial_of_the_same_process_begins_with_a_ticket() -> None:
    async with node() as listener:
        for n in range(4):
            async with visit(listener) as (near, far):
                assert near.by_ticket is far.by_ticket is (n > 0)
                assert far.node_id == KEY.node_id
                assert near.node_id == BOSS.node_id
                await spoken(near, far)
        stats = listener.stats()
        assert (stats.handshakes_ok, stats.by_ticket, stats.tickets_refused) == (4, 3, {})


@pytest.mark.parametrize("carrier", ["unix", "udp"])
@program
async def test_over_other_carriers(carrier: str) -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        place = "udp://127.0.0.1:0" if carrier == "udp" else f"unix://{Path(folder, 'node.sock')}"
        async with node(place) as listener:
            for n in range(3):
                async with visit(listener) as (near, far):
                    assert near.by_ticket is far.by_ticket is (n > 0)
                    await spoken(near, far)
            other_process()
            async with visit(listener) as (near, far):
                assert not near.by_ticket
                await spoken(near, far)
            assert listener.stats().tickets_refused == {"unknown key": 1}


@program
async def test_listener_may_speak_first_over_udp_and_waits_for_no_beat() -> None:
    # until something of the dialler has come it may say 256 bytes; the dialler here says nothing of its own accord
    config = Config(heartbeat=600)
    async with node("udp://127.0.0.1:0", config=config) as listener:
        for again in (False, True):
            async with visit(listener, config=config) as (near, far):
                assert near.by_ticket is again
                await far.open("news", bytes).send(bytes(3_000))
                channel = await anext(near)
                assert len(await channel.recv()) == 3_000
                await near.wait_ticket()


def test_over_a_network_that_loses_a_third() -> None:
    with sync.listen("udp://127.0.0.1:0", identity=BOSS, trust="any") as listener, contextlib.ExitStack() as stack:
        relays = [stack.enter_context(Relay(listener.addresses[0], seed)) for seed in range(8)]
        nodes = [Identity.generate() for _ in relays]

        def visit(relay: Relay, me: Identity, loss: float) -> sync.Peer:
            relay.loss = loss
            peer = sync.dial(relay.address, identity=me)
            relay.loss = 0.0
            peer.wait_ticket(timeout=10)
            return peer

        for n in range(2):
            peers: list[sync.Peer] = []
            for half in (slice(4), slice(4, 8)):
                if n and peers:
                    other_process()  # the other half find their ticket refused
                with ThreadPoolExecutor(4) as pool:
                    peers += pool.map(visit, relays[half], nodes[half], [0.33 * n] * 4)
            assert [peer.by_ticket for peer in peers] == [bool(n)] * 4 + [False] * 4
            for peer in [*peers, *(listener.recv(timeout=10) for _ in relays)]:
                peer.close()


@program
async def test_with_a_psk() -> None:
    async with node(psk=b"p" * 32, trust=None) as listener:
        for n in range(2):
            async with visit(listener, psk=b"p" * 32) as (near, far):
                assert near.by_ticket is (n > 0)
                await spoken(near, far)


@program
async def test_sessions_side_by_side_leave_each_other_alone() -> None:
    async with node() as listener, visit(listener) as (near, far):
        first = await near.wait_ticket()
        async with visit(listener) as (second, there):
            assert second.by_ticket
            await spoken(second, there)
            await spoken(near, far)
        async with visit(listener, ticket=first) as (third, there):  # used up by the second
            assert not third.by_ticket
            await spoken(near, far)
        async with visit(listener, ticket=near.ticket) as (fourth, there):
            assert not fourth.by_ticket
        assert far.error is None


@program
async def test_one_session_comes_of_a_dial_with_several_addresses() -> None:
    async with netchan.listen([TCP, TCP], identity=BOSS, trust=[KEY.node_id]) as listener:
        for n in range(3):
            async with visit(listener, list(listener.addresses)) as (near, far):
                assert near.by_ticket is (n > 0)
                await spoken(near, far)
        assert listener.stats().handshakes_ok == 3


@program
async def test_answer_to_a_ticket_that_is_slow_is_waited_for() -> None:
    # the next address is tried meanwhile: it must not come to two sessions
    def slow(link: Link, direction: Direction, number: int, unit: bytes) -> bytes:
        if direction == "down" and number == 0:
            time.sleep(0.8)
        return unit

    async with node() as listener:
        found = await stored(listener)
        with Proxy(listener.addresses[0], tap=slow) as proxy:
            async with visit(listener, [proxy.address, listener.addresses[0]], ticket=found) as (near, far):
                assert near.by_ticket
                await spoken(near, far)
                assert listener.stats().handshakes_ok == 2


@program
async def test_ticket_does_not_wait_for_udp_where_there_is_tcp() -> None:
    async with netchan.listen([TCP, "udp://127.0.0.1:0"], identity=BOSS, trust=[KEY.node_id]) as listener:
        found = await stored(listener, config=Config(datagrams=True))
        gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with gone:  # a port that never answers, first in the list
            gone.bind(("127.0.0.1", 0))
            dead = f"udp://{BOSS.node_id}@127.0.0.1:{gone.getsockname()[1]}"
            begun = time.monotonic()
            async with visit(listener, [dead, listener.addresses[0]], ticket=found) as (near, _):
                assert near.by_ticket
                assert near.remote_address.startswith("tcp:")
            assert time.monotonic() - begun < 4


@program
async def test_node_that_was_started_again_is_dialled_in_full_on_the_same_connection() -> None:
    async with node() as listener:
        await stored(listener)
        other_process()
        async with visit(listener) as (near, far):
            assert not near.by_ticket
            await spoken(near, far)
        stats = listener.stats()
        assert (stats.accepted, stats.handshakes_ok, stats.tickets_refused) == (2, 2, {"unknown key": 1})


@program
async def test_other_node_at_the_address_is_dialled_in_full() -> None:
    # no node id in the address: whoever is there is welcome
    async with node() as listener:
        place = f"tcp://{listener.addresses[0].partition('@')[2]}"
        await stored(listener, address=place, trust="any")
    async with node(place, identity=Identity.generate()) as listener:
        async with visit(listener, place, trust="any") as (near, far):
            assert near.node_id == listener.node_id
            assert not near.by_ticket
            await spoken(near, far)


@program
async def test_peer_that_is_not_trusted_any_more_is_refused() -> None:
    allowed = {KEY.node_id}
    async with node(trust=allowed.__contains__) as listener:
        found = await stored(listener)
        allowed.clear()
        for options in ({}, {"ticket": found}):
            with pytest.raises(AuthError, match="UNTRUSTED"):
                await netchan.dial(listener.addresses[0], identity=KEY, **options)
        await until(lambda: listener.stats().tickets_refused == {"policy": 1, "used": 1})


@program
async def test_node_that_we_do_not_trust_any_more_gets_no_ticket() -> None:
    async with node() as listener:
        place = f"tcp://{listener.addresses[0].partition('@')[2]}"
        await stored(listener, address=place, trust="any")
        with pytest.raises(AuthError):
            await netchan.dial(place, identity=KEY, trust=[KEY.node_id])
        assert listener.stats().tickets_refused == {}
        assert listener.stats().by_ticket == 0


@program
async def test_async_policies_are_asked_on_both_sides() -> None:
    asked = []

    def policy(side: str) -> Any:
        async def allow(node_id: str) -> bool:
            await asyncio.sleep(0)
            asked.append((side, node_id))
            return True

        return allow

    async with node(trust=policy("listener")) as listener:
        for n in range(2):
            asked.clear()
            async with visit(listener, trust=policy("dialler")) as (near, far):
                assert near.by_ticket is (n > 0)
                await spoken(near, far)
            assert sorted(asked) == [("dialler", BOSS.node_id), ("listener", KEY.node_id)]


@program
async def test_ticket_that_an_async_policy_refuses_gives_its_place_back() -> None:
    allowed = [True, False]

    async def policy(node_id: str) -> bool:
        await asyncio.sleep(0)
        return allowed.pop(0) if allowed else True

    async with node(trust=policy, config=Config(backlog=1)) as listener:
        found = await stored(listener)
        host, _, port = listener.addresses[0].rpartition("@")[2].rpartition(":")
        kept._after_fork()
        with socket.create_connection((host, int(port))) as sock:
            loop, mine = asyncio.get_running_loop(), kept.unpack(found, KEY)
            config = HandshakeConfig(KEY)
            trust = make_policy(None, own_id=KEY.id_pub, dialling=True, expected_id=BOSS.id_pub)
            (first,) = Initiator(config, trust, os.urandom, kept=mine).start(time.time(), 0)
            assert isinstance(first, Send)
            sock.sendall(first.data)
            assert (await loop.run_in_executor(None, sock.recv, 100))[0] == gate.NO_TICKET  # and says nothing more
            async with visit(listener) as (near, far):
                await spoken(near, far)


@program
async def test_peer_by_ticket_takes_its_place_in_the_backlog() -> None:
    async with node(config=Config(backlog=1)) as listener:
        await stored(listener)
        waiting = await netchan.dial(listener.addresses[0], identity=KEY)
        second = asyncio.ensure_future(_dial(listener))
        await asyncio.sleep(0.2)
        assert not second.done()
        assert listener.stats().pending == 1
        await (await listener.recv()).aclose()
        await (await second).aclose()
        await waiting.aclose()


async def _dial(listener: netchan.Listener) -> netchan.Peer:
    return await netchan.dial(listener.addresses[0], identity=KEY)


# --- stored tickets ---------------------------------------------------------------------------------------------------
@program
async def test_stored_ticket_begins_one_session() -> None:
    async with node() as listener:
        found = await stored(listener)
        kept._after_fork()
        for n in range(2):
            async with visit(listener, ticket=found, config=Config(tickets=0)) as (near, far):
                assert near.by_ticket is (n == 0)
                await spoken(near, far)
        assert listener.stats().tickets_refused == {"used": 1}


@program
async def test_session_that_was_left_cleanly_is_no_loss_when_its_ticket_is_used() -> None:
    async with node() as listener:
        for _ in range(20):
            near = await netchan.dial(listener.addresses[0], identity=KEY)
            far = await listener.recv()
            found = await near.wait_ticket()
            kept._after_fork()  # as if it were another process: it says that the session is over
            await near.aclose()
            after = await netchan.dial(listener.addresses[0], identity=KEY, ticket=found)
            assert after.by_ticket
            await far.wait_closed()
            assert far.error is None
            await (await listener.recv()).aclose()
            await after.aclose()


@pytest.mark.parametrize("damage", ["cut", "flipped", "another identity", "another node", "another network"])
@program
async def test_ticket_that_cannot_be_used_makes_no_difference(damage: str) -> None:
    async with node(trust="any") as listener, node(identity=Identity.generate(), trust="any") as other:
        found = await stored(listener)
        kept._after_fork()
        who, where, options = KEY, listener, {}
        if damage == "cut":
            found = found[:100]
        elif damage == "flipped":
            found = found[:50] + bytes((found[50] ^ 1,)) + found[51:]
        elif damage == "another identity":
            who = Identity.generate()
        elif damage == "another node":
            where = other
        else:
            options = {"network": "lan"}
            where = await netchan.listen(TCP, identity=BOSS, trust="any", network="lan")
        async with visit(where, identity=who, ticket=found, **options) as (near, far):
            assert not near.by_ticket
            await spoken(near, far)
        assert where.stats().tickets_refused == {}
        if where not in (listener, other):
            await where.aclose()


@pytest.mark.parametrize("bad", ["text", 7, b"x" * 4_097, bytearray(100)])
def test_ticket_that_is_no_ticket_is_a_mistake(bad: Any) -> None:
    with pytest.raises(ConfigError, match="ticket"):
        netchan.dial("tcp://127.0.0.1:1", identity=KEY, trust="any", ticket=bad)


def test_ticket_without_its_identity_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="identity="):
        netchan.dial("tcp://127.0.0.1:1", trust="any", ticket=b"x" * 100)


@pytest.mark.parametrize("off", ["dialler", "listener"])
@program
async def test_without_tickets_there_is_none(off: str) -> None:
    none = Config(tickets=0)
    async with node(config=none if off == "listener" else None) as listener:
        for _ in range(2):
            async with visit(listener, config=none if off == "dialler" else None) as (near, far):
                assert near.ticket is far.ticket is None
                assert await near.wait_ticket() is await far.wait_ticket() is None
                assert not near.by_ticket
                await spoken(near, far)


@program
async def test_without_an_identity_there_is_none() -> None:
    async with node(trust="any") as listener, visit(listener, identity=None) as (near, _):
        assert await near.wait_ticket() is None
        assert near.ticket is None


@program
async def test_session_that_ends_first_has_none() -> None:
    async with node() as listener, visit(listener) as (near, far):
        box = near._core.session.kept
        await near.wait_ticket()
        box.newest = None
        waiting = asyncio.ensure_future(near.wait_ticket())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await far.aclose()
        assert await waiting is None


@program
async def test_session_gets_a_newer_ticket_in_time() -> None:
    async with node() as listener, visit(listener) as (near, _):
        first = await near.wait_ticket()
        before = giving.RENEW_S
        try:
            giving.RENEW_S = 0.0  # type: ignore[misc]
            for tended in list(manager._engines.tended):
                tended.look()
        finally:
            giving.RENEW_S = before  # type: ignore[misc]
        await until(lambda: near.ticket != first)
        for found in (near.ticket, first):  # each is good once
            async with visit(listener, ticket=found, config=Config(tickets=0)) as (second, _):
                assert second.by_ticket


def test_blocking_front() -> None:
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with sync.dial(listener.addresses[0], identity=KEY) as near, listener.recv(timeout=10):
            found = near.wait_ticket(timeout=10)
            assert found == near.ticket
        kept._after_fork()
        with sync.dial(listener.addresses[0], identity=KEY, ticket=found) as near, listener.recv(timeout=10) as far:
            assert near.by_ticket
            assert far.by_ticket
            assert far.wait_ticket(timeout=10) is None


@program
async def test_child_after_fork_has_neither_peer_nor_table() -> None:
    async with node() as listener, visit(listener) as (near, _):
        await near.wait_ticket()
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    near.ticket
                except ForkError:
                    code = len(kept._table)
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(kept._table) == 1


HOLDER = """
    import sys
    import time
    import netchan
    from netchan import sync

    me = netchan.Identity.load_or_create(sys.argv[2])
    peer = sync.dial(sys.argv[1], identity=me, config=netchan.Config(lease=300))
    channel = peer.open("n", int, capacity=4)
    print(peer.wait_ticket(timeout=20).hex(), flush=True)
    try:
        while True:
            channel.recv()
    except netchan.SessionLost as error:
        print(type(error.cause).__name__, "with a ticket" in str(error), flush=True)
"""


@contextmanager
def holder(address: str, key: Path) -> Iterator[tuple[subprocess.Popen[str], bytes]]:
    """A process with a session, and its ticket."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), address, str(key)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, bytes.fromhex(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# --- who comes in the place of another --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "stopped"])
@program
async def test_session_of_a_process_that_is_gone_is_lost_at_once(how: str) -> None:
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        key = Path(folder, "node.key")
        me = Identity.load_or_create(key)
        async with node(trust=[me.node_id]) as listener:
            made = asyncio.get_running_loop().run_in_executor
            holding = holder(listener.addresses[0], key)
            process, found = await made(None, holding.__enter__)
            try:
                old = await listener.recv()
                channel = old.open("n", int, capacity=4)
                await until(lambda: channel._ep.paired)
                for n in range(3):
                    await channel.deliver(n)
                process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
                if how == "killed":
                    await made(None, process.wait)
                    await until(lambda: old.path_count == 0)
                for n in range(3, 6):
                    await channel.send(n)
                waiting = asyncio.ensure_future(channel.recv())
                begun = time.monotonic()
                async with visit(listener, identity=me, ticket=found) as (near, far):
                    assert near.by_ticket
                    with pytest.raises(SessionLost, match="a new one was begun with a ticket of it") as caught:
                        await waiting
                    assert time.monotonic() - begun < AT_ONCE
                    lost = caught.value
                    values = [*(item.value for item in lost.in_doubt), *lost.undelivered]
                    assert values == [3, 4, 5]
                    assert isinstance(lost.cause, ConnectionResetError)
                    assert isinstance(old.error, SessionLost)
                    assert isinstance(old.loss_cause, ConnectionResetError)
                    assert far is not old
                    await spoken(near, far)
                    if how == "stopped":
                        # it runs on after all: nothing goes on there either
                        process.send_signal(signal.SIGCONT)
                        assert process.stdout is not None
                        said = await made(None, process.stdout.readline)
                        assert said.split() == ["ConnectionResetError", "True"]
                        await spoken(near, far)
            finally:
                await made(None, holding.__exit__, None, None, None)


def resume_frame(body: bytes, number: int) -> bytes:
    """A RESUME that passes the gate of BOSS."""
    header = gate.Header(
        gate.RESUME, gate.VERSION, 0, gate.MODE_XX_NAMED << 4 | gate.SUITE_HYBRID, 0, number.to_bytes(8, "big"), 1
    )
    return gate.seal_frame(header, body, gate.named_keys(BOSS.id_pub, b"netchan").to_responder)


# --- floods -----------------------------------------------------------------------------------------------------------
@program
async def test_bogus_tickets_are_counted_refused_and_hold_nobody_up() -> None:
    async with node() as listener:
        host, _, port = listener.addresses[0].rpartition("@")[2].rpartition(":")
        address = (host, int(port))

        def flood() -> list[int]:
            kinds = []
            for number in range(300):
                with socket.create_connection(address) as sock:
                    sock.sendall(resume_frame(b"\1\x40" + os.urandom(320 + 48), number))
                    kinds.append(sock.recv(100)[0])
            return kinds

        flooding = asyncio.get_running_loop().run_in_executor(None, flood)
        for _ in range(5):
            async with visit(listener) as (near, far):
                await spoken(near, far)
        assert set(await flooding) == {gate.NO_TICKET}
        await until(lambda: listener.stats().tickets_refused == {"unknown key": 300})
        await until(lambda: listener.stats().half_open == 0)
        assert listener.stats().handshakes_ok == 5


@program
async def test_resume_that_is_none_gives_its_place_back() -> None:
    frame = resume_frame(bytes(300), 1)
    async with node(config=Config(backlog=1)) as listener:
        host, _, port = listener.addresses[0].rpartition("@")[2].rpartition(":")
        for parts in ([frame[:100]], [frame[:100], frame[100:-40] + bytes(40)], [frame[:-40] + bytes(40)]):
            with socket.create_connection((host, int(port))) as sock:
                for part in parts:  # the last two are not sealed as they should be: nobody answers, nobody closes
                    sock.sendall(part)
                    await asyncio.sleep(0.1)
                async with visit(listener) as (near, far):
                    await spoken(near, far)


@pytest.mark.parametrize("cut", [None, 100])
@program
async def test_peers_by_ticket_that_a_policy_looks_at_have_taken_their_places(cut: int | None) -> None:
    may, asked = asyncio.Event(), []

    async def policy(node_id: str) -> bool:
        asked.append(node_id)
        await may.wait()
        return True

    async with node(trust=policy, config=Config(backlog=1)) as listener:
        nodes = [Identity.generate() for _ in range(2)]
        may.set()
        tickets = [await stored(listener, identity=me) for me in nodes]
        may.clear()
        asked.clear()

        def in_parts(link: Link, direction: Direction, number: int, unit: bytes) -> bytes:
            if cut is None or direction == "down" or number:
                return unit
            link.inject("up", unit[:cut])
            time.sleep(0.05)
            return unit[cut:]

        with Proxy(listener.addresses[0], tap=in_parts) as proxy:
            dials = [
                asyncio.ensure_future(_dial_at(proxy.address, me, found))
                for me, found in zip(nodes, tickets, strict=True)
            ]
            await until(lambda: len(asked) == 1)
            await asyncio.sleep(0.2)
            assert len(asked) == 1  # the other one waits for the place
            may.set()
            for _ in dials:
                await (await listener.recv()).aclose()
            for dial in dials:
                await (await dial).aclose()


async def _dial_at(address: str, me: Identity, found: bytes) -> netchan.Peer:
    return await netchan.dial(address, identity=me, ticket=found)
