"""Very many of the same: channels, offers, selects that are cancelled; and an end in the middle of every verb.

``NETCHAN_LONG=1`` runs the full sizes (a million channels, offers and selects: ``make storms``); otherwise each test is
a small form of itself. The seed in a failure's message replays the choices, not the interleaving of threads.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import netchan
from netchan import sync
from netchan._core import _selftest_session as core
from netchan._engine.engine_handle import Engine
from netchan.channel.fronts import Channel
from netchan.errors import ChannelAborted, ChannelClosed, ChannelEnded, SessionLost
from netchan.net.manager import loop_engine
from netchan.testing.pair import Side, joined
from tests.integration.kit import BOSS, TCP, until
from tests.integration.rawpeer import CONTROL, RawPeer, message
from tests.integration.slope import Slope

FULL = os.environ.get("NETCHAN_LONG") == "1"
PATIENCE = 30.0
OFFERS_MAX = 16
"""docs/reference/limits.md: offers of one direction that are open at once."""
pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def on_pair(body: Callable[[Side, Side], Any]) -> None:
    """Run a coroutine function on two joined sessions that one loop drives."""

    async def run() -> None:
        engine = await loop_engine()
        pair = joined(engines=(engine, engine))
        try:
            await body(*pair)
        finally:
            for side in pair:
                side.session.close(0)

    asyncio.run(run())


class TestMillion:
    def test_channels_of_a_pair_opened_and_closed_leave_nothing(self) -> None:
        # the cache of cipher contexts is full after 2 048 channels, so the short run counts its second half only
        total, warm = (1_000_000, 100_000) if FULL else (12_000, 6_000)

        async def body(near: Side, far: Side) -> None:
            slope = Slope(total, warm)
            for number in range(total):
                slope.look(number)
                mine: Channel[int] = Channel(near.open(f"c{number}", int, number % 3))
                theirs: Channel[int] = Channel(far.open(f"c{number}", int, number % 3))
                if number % 3:
                    await mine.send(number)
                    mine.close()
                    assert await theirs.recv() == number
                else:
                    _, got = await asyncio.gather(mine.send(number), theirs.recv())
                    assert got == number
                    mine.close()
                theirs.close()
                assert [value async for value in theirs] == []
                assert [value async for value in mine] == []
            slope.end("channels of a pair")

        on_pair(body)

    def test_offers_made_and_taken_back_leave_nothing_and_the_channel_goes_on(self) -> None:
        total = 1_000_000 if FULL else 4_000

        async def body(near: Side, far: Side) -> None:
            mine: Channel[int] = Channel(near.open("r", int, 0))
            theirs: Channel[int] = Channel(far.open("r", int, 0))
            await until(lambda: mine._ep.paired and theirs._ep.paired)
            slope = Slope(total)
            done = back = 0
            while done < total:
                slope.look(done)
                sends = [asyncio.create_task(mine.send(-1)) for _ in range(OFFERS_MAX)]
                while mine._ep.offers_out < OFFERS_MAX:
                    await asyncio.sleep(0)
                for task in sends:
                    task.cancel()
                ends = await asyncio.gather(*sends, return_exceptions=True)
                back += sum(isinstance(end, asyncio.CancelledError) for end in ends)
                done += OFFERS_MAX
                # what was taken back is passed over by the next receive; until then its sender has no room for more
                with pytest.raises(netchan.WouldBlock):
                    theirs.recv_nowait()
                if done % (64 * OFFERS_MAX) == 0:
                    _, got = await asyncio.gather(mine.send(done), theirs.recv())
                    assert got == done
            slope.end("offers taken back")
            assert back == done
            assert mine.stats().senders_waiting == 0
            assert mine.stats().sent == theirs.stats().taken == done // (64 * OFFERS_MAX)
            mine.close()
            theirs.close()

        on_pair(body)

    def test_peer_that_never_answers_an_offer_holds_sixteen_and_no_more(self) -> None:
        total = 1_000_000 if FULL else 4_000

        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust="any") as listener:
                raw = await asyncio.to_thread(RawPeer, listener.addresses[0])
                here = await listener.recv()
                raw.open(b"r", capacity=0)
                raw.say(CONTROL, core.put("pos", 17, 0, 0, 1 << 20, 1 << 30))  # all the credit there is, and no more
                tx = here.open("r", bytes, capacity=0)
                await until(lambda: tx._ep.paired and tx._ep.offer_room)
                slope = Slope(total)
                done = 0
                while done < total:
                    slope.look(done)
                    sends = [asyncio.create_task(tx.send(b"offer")) for _ in range(2 * OFFERS_MAX)]
                    for _ in range(3):
                        await asyncio.sleep(0)
                    for _ in range(2):  # the second time while it waits for the answer: raised at once
                        for task in sends:
                            task.cancel()
                        await asyncio.sleep(0)
                    ends = await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), PATIENCE)
                    assert {type(end) for end in ends} == {asyncio.CancelledError}, ends
                    done += len(sends)
                    if done % 6_400 == 0:
                        await asyncio.to_thread(raw.read, 0.01)
                slope.end("offers to a peer that never answers")
                await asyncio.to_thread(raw.read, 0.3)
                walked = [(tag, f) for tag, frames in raw.frames for f in core.parse(frames, tag)[0]]
                theirs = b"".join(f["data"] for tag, f in walked if tag == 17 and f["type"] == 0x20)
                assert theirs.count(message(b"offer")) == OFFERS_MAX
                assert sum(f["type"] == 0x05 for _, f in walked) == OFFERS_MAX  # WITHDRAW, once for each
                assert tx.stats().sent == 0
                tx.abort()
                raw.close()
                here.close()

        asyncio.run(body())


class Tally:
    """Values that went in and came out, over threads and tasks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fresh = count(1)
        self.open: Counter[int] = Counter()
        self.selects = self.wins = 0

    def note(self, won: Any, values: dict[Any, int]) -> None:
        """A select has returned this arm."""
        with self.lock:
            self.selects += 1
            if isinstance(won, netchan.SendOp):
                self.add(values[won], 1)
            elif isinstance(won, netchan.RecvOp):
                self.add(won.value, -1)

    def add(self, value: int, by: int) -> None:
        """Sent: +1, received: -1; what comes to 0 is forgotten."""
        self.wins += 1
        self.open[value] += by
        if not self.open[value]:
            del self.open[value]


def test_r33_storm_of_selects_in_tasks_and_threads_keeps_every_value() -> None:
    """Tasks that are cancelled and threads that time out select over channels in process and across a session."""
    total = 1_000_000 if FULL else 6_000
    tasks, threads = 12, 3
    random.seed(7)

    async def body(near: Side, far: Side) -> None:
        tally = Tally()
        sides: list[list[Any]] = [[], []]
        for n in range(12):
            for side, end in zip(sides, (near, far), strict=True):
                side.append(Channel(end.open(f"c{n}", int, (0, 1, 8)[n % 3])))
        await until(lambda: all(end._ep.paired for side in sides for end in side))
        for n in range(6):
            for side, half in zip(sides, netchan.pipe(int, capacity=(0, 1, 8)[n % 3]), strict=True):
                side.append(half)
        handles = {netchan: sides, sync: [[sync.Channel(end._ep) for end in side] for side in sides]}
        failures: list[BaseException] = []
        over = threading.Event()

        def arms(front: Any, who: int, rng: random.Random) -> tuple[list[Any], dict[Any, int]]:
            chosen = rng.sample(handles[front][who % 2], 4)
            gives = {one.send_op(): next(tally.fresh) for one in chosen[:2]}
            for give, value in gives.items():
                give.set(value)
            return [one.recv_op() for one in chosen], gives

        async def play(who: int) -> None:
            rng = random.Random(who)
            while not over.is_set():
                takes, gives = arms(netchan, who, rng)
                tally.note(await netchan.select(*takes, *gives, netchan.after(0.05)), gives)

        def play_blocking(who: int) -> None:
            rng = random.Random(who)
            try:
                while not over.is_set():
                    takes, gives = arms(sync, who, rng)
                    try:
                        won = sync.select(*takes, *gives, timeout=rng.choice((0.0, 0.0005, 0.01)))
                    except TimeoutError:
                        continue
                    tally.note(won, gives)
            except BaseException as error:
                failures.append(error)

        crew = [threading.Thread(target=play_blocking, args=(100 + n,)) for n in range(threads)]
        for thread in crew:
            thread.start()
        running = {asyncio.create_task(play(n)): n for n in range(tasks)}
        rng = random.Random(7)
        slope = Slope(total)
        cancelled = 0
        while tally.selects < total and not failures:
            slope.look(tally.selects)
            await asyncio.sleep(rng.random() * 0.004)
            for victim in rng.sample(list(running), 2):
                who = running.pop(victim)
                victim.cancel()
                try:
                    await asyncio.wait_for(asyncio.shield(victim), PATIENCE)
                except asyncio.CancelledError:
                    cancelled += 1
                running[asyncio.create_task(play(who))] = who
        over.set()
        await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
        for thread in crew:
            await asyncio.to_thread(thread.join, PATIENCE)
        assert not any(thread.is_alive() for thread in crew)
        assert not failures, failures
        slope.end(f"selects of a storm ({tally.wins} values in or out, {cancelled} tasks cancelled)")
        ends = [end for side in sides for end in side]
        for end in ends:
            end.close()
        for end in ends:
            async for value in end:
                tally.add(value, -1)
            assert (end.stats().receivers_waiting, end.stats().senders_waiting) == (0, 0)
        assert not tally.open, f"lost (1) or doubled (-1): {dict(tally.open)}"
        assert cancelled > total // 500

    on_pair(body)


# --- an end in the middle of every verb -------------------------------------------------------------------------------


def numbers() -> Any:
    """Values that say their place: no two are alike."""
    return (n.to_bytes(4, "big") for n in count())


class Sending:
    """A thread's verbs that send; ``accepted`` is what the calls say, ``doubtful`` what a failed call may have sent."""

    def __init__(self, tx: Any, verb: str, ahead: bool) -> None:
        self.tx, self.verb, self.source, self.ahead = tx, verb, numbers(), ahead
        self.accepted: list[bytes] = []
        self.doubtful: list[bytes] = []

    def step(self) -> None:
        tx, verb = self.tx, self.verb
        if verb == "send_many":
            batch = [next(self.source) for _ in range(9)]
            left = iter(batch)
            try:
                tx.send_many(left, timeout=PATIENCE)
            except BaseException:
                gone = len(batch) - len(list(left))
                # an offer across a session holds an item that was fetched and may not be taken
                sure = max(0, gone - self.ahead)
                self.accepted += batch[:sure]
                self.doubtful = batch[sure:gone]
                raise
            self.accepted += batch
            return
        value = next(self.source)
        self.doubtful = [value]
        if verb == "send":
            tx.send(value, timeout=PATIENCE)
        elif verb == "deliver":
            tx.deliver(value, timeout=PATIENCE)
        elif verb == "flush":
            tx.send(value, timeout=PATIENCE)
            self.accepted.append(value)
            self.doubtful = []
            tx.flush("taken", timeout=PATIENCE)
            return
        elif verb == "reserve":
            with tx.reserve(timeout=PATIENCE) as permit:
                permit.send(value)
        else:
            sync.select(tx.send_op(value), timeout=PATIENCE)
        self.accepted.append(value)
        self.doubtful = []


class Receiving:
    """A thread's verbs that receive."""

    def __init__(self, rx: Any, verb: str) -> None:
        self.rx, self.verb = rx, verb
        self.got: list[bytes] = []

    def step(self) -> None:
        rx, verb = self.rx, self.verb
        if verb == "recv":
            self.got.append(rx.recv(timeout=PATIENCE))
        elif verb == "recv_many":
            self.got += rx.recv_many(5, timeout=PATIENCE)
        elif verb == "recv_into":
            buffer = bytearray(8)
            self.got.append(bytes(buffer[: rx.recv_into(buffer, timeout=PATIENCE)]))
        elif verb == "iterate":
            self.got.append(next(rx))
        else:
            self.got.append(sync.select(rx.recv_op(), timeout=PATIENCE).value)


SENDS = ("send", "send_many", "deliver", "flush", "reserve", "select")
RECEIVES = ("recv", "recv_many", "recv_into", "iterate", "select")
ENDS = ("close", "stop", "abort", "abort over there", "stop over there", "aclose", "session", "session over there")
FAIR = (ChannelClosed, ChannelEnded, ChannelAborted, SessionLost, StopIteration)


def one_ending(seed: int, engines: tuple[Engine, Engine] | None) -> str:
    """One channel, a thread that sends and one that receives, and a third that ends it; "" or what was wrong.

    ``engines``: of a new session, whose channel it is; None: in process.
    """
    far = engines is not None
    rng = random.Random(seed)
    capacity = rng.choice((0, 1, 64))
    sends = [verb for verb in SENDS if capacity or verb != "reserve"]
    send, receive, how = rng.choice(sends), rng.choice(RECEIVES), rng.choice(ENDS)
    sides: tuple[Side, Side] | None = None
    if far:
        sides = joined(engines=engines)
        here, there = (sync.Channel(side.open("x", bytes, capacity)) for side in sides)
    else:
        here, there = sync.pipe(bytes, capacity=capacity)
    if send == "send_many" and receive == "recv_into" and not capacity and not far:
        receive = "recv"  # it is refused there: the item is fetched when its receiver has taken it
    where = f"seed={seed} far={far} {send} {receive} {how!r} capacity={capacity}"
    sender, receiver = Sending(here, send, far and capacity == 0), Receiving(there, receive)
    errors: dict[str, BaseException] = {}

    def work(name: str, step: Callable[[], None]) -> None:
        try:
            while True:
                step()
        except BaseException as error:
            errors[name] = error

    def end() -> None:
        if how == "close":
            here.close()
        elif how == "stop":
            here.split()[1].stop()
            here.close()
        elif how == "abort":
            here.abort(7, "enough")
        elif how == "abort over there":
            there.abort(7, "enough")
        elif how == "stop over there":
            there.stop()
        elif how == "aclose":
            here.aclose(timeout=PATIENCE)
        elif sides is None:
            here.abort()
        else:
            sides[how == "session over there"].session.close(0)

    threads = [
        threading.Thread(target=work, args=("send", sender.step)),
        threading.Thread(target=work, args=("recv", receiver.step)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(rng.choice((0.0, 0.0002, 0.001, 0.004)) * rng.random())
    try:
        end()
    except (ChannelAborted, SessionLost):
        pass
    for thread in threads:
        thread.join(PATIENCE)
    if any(thread.is_alive() for thread in threads):
        return f"{where}: hangs, ended so far: {errors}, {here.stats()}, {there.stats()}"
    for part in (here, there):
        part.abort()
    for side in sides or ():
        side.session.close(0)
    for name, error in errors.items():
        if not isinstance(error, FAIR):
            return f"{where}: {name} ended with {error!r}"
    got, sent = receiver.got, [*sender.accepted, *sender.doubtful]
    if got != sent[: len(got)]:
        return f"{where}: received {got[-3:]} of {len(got)}, sent {sent[-3:]} of {len(sent)}"
    if how in ("close", "aclose", "stop") and len(got) < len(sender.accepted):
        return f"{where}: {len(sender.accepted)} accepted, {len(got)} received before the clean end"
    return ""


def settle(engines: tuple[Engine, Engine] | None) -> None:
    """Wait until no session is on its way out: each of them holds some 60 KiB until its close is answered.

    Collects first: the errors that a step noted hold the frames of its threads, and so its session.
    """
    gc.collect()
    patience = time.monotonic() + PATIENCE
    while any(engine.sessions for engine in engines or ()):
        assert time.monotonic() < patience, "sessions that do not end"
        time.sleep(0.01)


@pytest.mark.parametrize("far", [False, True], ids=["in process", "session"])
def test_end_from_another_thread_in_the_middle_of_every_verb(far: bool) -> None:
    seeds = 20_000 if FULL else 150
    engines = (Engine("caller"), Engine("caller")) if far else None
    before = threading.active_count()
    slope = Slope(seeds, given=True)
    for seed in range(seeds):
        if seed == slope.warm:
            settle(engines)
        slope.look(seed)
        wrong = one_ending(seed, engines)
        assert not wrong, wrong
    assert threading.active_count() == before
    settle(engines)
    slope.end(f"ends in the middle of a verb, {'session' if far else 'in process'}")
    for engine in engines or ():
        engine.close()


@pytest.mark.parametrize("far", [False, True], ids=["in process", "session"])
def test_r37_op_that_a_thread_waits_with_is_refused_to_all_others(far: bool) -> None:
    sides = joined() if far else None
    if sides:
        here, there = (sync.Channel(side.open("x", int, 1)) for side in sides)
    else:
        here, there = sync.pipe(int, capacity=1)
    here.send(0, timeout=PATIENCE)
    takes, gives, timer = here.recv_op(), here.send_op(1), netchan.after(PATIENCE)
    won: list[Any] = []
    waiting = threading.Thread(target=lambda: won.append(sync.select(takes, gives, timer, timeout=PATIENCE)))
    waiting.start()
    while not timer.busy:
        time.sleep(0.001)
    for op in (takes, gives, timer):
        for again in ([op], [here.recv_op(), op]):
            with pytest.raises(RuntimeError, match="in a select already"):
                sync.select(*again, timeout=0)
    with pytest.raises(RuntimeError, match="in a select now"):
        gives.set(2)
    assert not won
    assert there.recv(timeout=PATIENCE) == 0
    waiting.join(PATIENCE)
    assert won == [gives]
    assert there.recv(timeout=PATIENCE) == 1
    for op in (takes, gives, timer):
        with pytest.raises(RuntimeError, match="in a select already"):
            sync.select(op, op, timeout=0)
    gives.set(3)
    assert sync.select(gives, timeout=PATIENCE) is gives
    assert there.recv(timeout=PATIENCE) == 3
    for part in (here, there):
        part.abort()
    for side in sides or ():
        side.session.close(0)
        side.engine.close()
