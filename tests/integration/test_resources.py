"""Peers that break the rules of credit and channels, and what a node keeps after many sessions and channels.

``NETCHAN_LONG=1`` runs the last part at full size: 10 000 sessions instead of 1 000, 100 000 channels.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import netchan
from netchan import Config, Identity, sync
from netchan._core import _selftest_session as core
from netchan.net.manager import new_engine
from tests.integration.rawpeer import CONTROL, RawPeer, data_frame, message, varint
from tests.integration.slope import Slope, rss

BOSS, KEY = Identity.generate(), Identity.generate()
TCP = "tcp://127.0.0.1:0"
FULL = os.environ.get("NETCHAN_LONG") == "1"
CREDIT, STREAMS, FINAL_SIZE, MESSAGE_SIZE, PROTOCOL = 5, 6, 7, 8, 4


class Good:
    """A well-behaved peer of the same listener, whose values go round all the time."""

    def __init__(self, listener: sync.Listener) -> None:
        self.there = sync.dial(listener.addresses[0], identity=KEY)
        self.here = listener.recv(timeout=5)
        self.mine, self.theirs = self.there.open("good", bytes), self.here.open("good", bytes)

    def round_trip(self) -> float:
        begun = time.perf_counter()
        self.mine.send(b"ping", timeout=5)
        assert self.theirs.recv(timeout=5) == b"ping"
        return time.perf_counter() - begun

    def p50(self, count: int = 200) -> float:
        return statistics.median(self.round_trip() for _ in range(count))

    def close(self) -> None:
        for part in (self.mine, self.theirs, self.here, self.there):
            part.close()


@contextmanager
def scene(**config: Any) -> Iterator[tuple[sync.Listener, Good]]:
    """A listener with a good peer."""
    with sync.listen(TCP, identity=BOSS, trust="any", config=Config(**config)) as listener:
        good = Good(listener)
        try:
            yield listener, good
            good.round_trip()
        finally:
            good.close()


def pos(stream: int, taken: int, msgs: int, received: int, most: int) -> bytes:
    return core.put("pos", stream, received, taken, msgs, most)


class TestCredit:
    def test_peer_that_never_grants_credit_stalls_its_own_channel_only(self) -> None:
        with scene() as (listener, good):
            idle = good.p50()
            raw = RawPeer(listener.addresses[0])
            peer = listener.recv(timeout=5)
            raw.open(b"stuck")
            raw.open(b"free")
            stuck, free = peer.open("stuck", bytes), peer.open("free", bytes)
            accepted = 0
            with pytest.raises(TimeoutError):
                while True:
                    stuck.send(bytes(100), timeout=0.3)
                    accepted += 1
            raw.read(0.2)
            assert 0 < accepted <= 1024
            before = rss()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    stuck.send(bytes(100), timeout=0.05)
            free.send(b"still goes", timeout=1)
            raw.read(0.2)
            body = b"".join(f["data"] for tag, frames in raw.frames if tag >= 16 for f in core.parse(frames, tag)[0])
            assert b"still goes" in body
            crowded = good.p50()
            assert not peer.closed
            assert rss() - before < 4 << 20
            assert crowded < 3 * idle + 0.005
            stuck.abort()
            free.abort()
            peer.close()
            raw.close()
            print(
                f"\nnever any credit: {accepted} values accepted, then the channel waits; "
                f"good peer p50 {idle * 1e6:.0f} -> {crowded * 1e6:.0f} us"
            )

    def test_peer_that_sends_beyond_its_credit_is_closed_with_credit(self) -> None:
        with scene() as (listener, _good):
            for size, opened in ((10, False), (3000, False), (10, True), (3000, True)):
                raw = RawPeer(listener.addresses[0])
                peer = listener.recv(timeout=5)
                before = rss()
                stream = raw.open(b"flood", capacity=32)
                channel = peer.open("flood", bytes, capacity=32) if opened else None
                for number in range(3000):
                    raw.send(stream, bytes(size), number)
                    if raw.ended:
                        break
                    if number % 50 == 0:
                        raw.read(0.01)
                raw.read(2.0)
                assert raw.close_code() == CREDIT, (size, opened, raw.close_code())
                assert raw.ended
                peer.wait_closed(timeout=5)
                assert isinstance(peer.error, netchan.SessionLost)
                assert isinstance(peer.error.cause, netchan.ProtocolError)
                assert peer.error.cause.remote
                assert rss() - before < 8 << 20
                if channel is not None:
                    kept = 0
                    with pytest.raises(netchan.SessionLost):
                        while True:
                            channel.recv(timeout=1)
                            kept += 1
                    assert kept <= 64
                    channel.abort()
                raw.close()

    def test_peer_that_opens_too_many_channels_is_closed_with_streams(self) -> None:
        with scene() as (listener, _good):
            raw = RawPeer(listener.addresses[0])
            peer = listener.recv(timeout=5)
            before = rss()
            for number in range(2000):
                raw.open(b"c%d" % number)
                if raw.ended:
                    break
                if number % 100 == 0:
                    raw.read(0.01)
            raw.read(2.0)
            assert raw.close_code() == STREAMS
            peer.wait_closed(timeout=5)
            assert isinstance(peer.error, netchan.SessionLost)
            assert rss() - before < 8 << 20
            raw.close()

    @pytest.mark.parametrize(
        ("what", "code"),
        [
            ("wrong parity", STREAMS),
            ("out of sequence", STREAMS),
            ("reserved tag", 9),
            ("control frame in a stream's record", PROTOCOL),
            ("end moved", FINAL_SIZE),
            ("bytes behind the end", FINAL_SIZE),
            ("value above max_message", MESSAGE_SIZE),
            ("unknown frame", PROTOCOL),
            ("unknown odd extension", 11),
            ("POS beyond what was sent", PROTOCOL),
            ("acknowledged what was never sent", PROTOCOL),
            ("bad name", PROTOCOL),
            ("record that does not open", 9),
        ],
    )
    def test_frames_that_break_the_rules_close_the_session_with_their_code(self, what: str, code: int) -> None:
        with scene(max_message=1 << 16, lease=0) as (listener, _good):
            raw = RawPeer(listener.addresses[0])
            peer = listener.recv(timeout=5)
            stream = raw.open(b"x")
            here = peer.open("x", bytes)
            raw.send(stream, b"first", 0)
            assert here.recv(timeout=5) == b"first"
            at = raw._offset[stream]
            if what == "wrong parity":
                raw.say(19, data_frame(0, b"x"))
            elif what == "out of sequence":
                raw.say(40, data_frame(0, b"x"))
            elif what == "reserved tag":
                raw.say(7, core.put("ping"))
            elif what == "control frame in a stream's record":
                raw.say(stream, core.put("ping"))
            elif what == "end moved":
                raw.say(stream, data_frame(at, b"", fin=True))
                raw.say(stream, data_frame(at + 1, b"", fin=True))
            elif what == "bytes behind the end":
                raw.say(stream, data_frame(at, b"", fin=True))
                raw.say(stream, data_frame(at, message(b"more"), number=1))
            elif what == "value above max_message":
                raw.say(stream, data_frame(at, varint(2 * ((1 << 16) + 1)), number=1))
            elif what == "unknown frame":
                raw.say(CONTROL, varint(0x3F))
            elif what == "unknown odd extension":
                raw.say(CONTROL, core.put("extension", 65, b"x"))
            elif what == "POS beyond what was sent":
                raw.say(CONTROL, pos(17, 5, 100, 10_000, 100_000))
            elif what == "acknowledged what was never sent":
                raw.say(CONTROL, core.put("ack", 0, 10_000, 0, 10_000))
            elif what == "bad name":
                raw.open(b"tab\there")
            else:
                record = bytearray(raw.core.seal(stream, data_frame(at, message(b"second"), number=1)))
                record[-1] ^= 1
                raw.sock.sendall(record)
            raw.read(2.0)
            assert raw.close_code() == code, f"{what}: {raw.close_code()}"
            peer.wait_closed(timeout=5)
            assert isinstance(peer.error, netchan.SessionLost)
            with pytest.raises((netchan.SessionLost, netchan.ChannelEnded)):
                here.recv(timeout=2)
            here.abort()
            raw.close()


class TestValues:
    """What cannot be sent is told to the sender, at the call, and nothing of it travels."""

    def test_values_too_large_too_deep_or_of_a_wrong_type_raise_at_the_call(self) -> None:
        deep: Any = 1
        for _ in range(40):
            deep = [deep]
        with scene(max_message=1 << 16) as (_listener, good):
            there, here = good.there, good.here
            raw, any_, ints, text = (
                there.open("raw", bytes),
                there.open("any"),
                there.open("ints", int),
                there.open("text", str),
            )
            ends = [here.open("raw", bytes), here.open("any"), here.open("ints", int), here.open("text", str)]
            for channel, value, error in (
                (raw, bytes((1 << 16) + 1), netchan.MessageTooLarge),
                (any_, "x" * (1 << 16), netchan.MessageTooLarge),
                (any_, deep, netchan.CodecError),
                (any_, object(), netchan.CodecError),
                (any_, 1 << 64, netchan.CodecError),
                (any_, {1.5: 1}, netchan.CodecError),
                (raw, "text", netchan.CodecError),
                (ints, "7", netchan.CodecError),
                (ints, 1 << 70, netchan.CodecError),
                (text, 7, netchan.CodecError),
                (text, "\ud800", netchan.CodecError),
            ):
                with pytest.raises(error):
                    channel.send(value, timeout=1)
            for channel, value in ((raw, bytes(1 << 16)), (any_, [1, "a", None]), (ints, -5), (text, "ä")):
                channel.send(value, timeout=1)
            assert [end.recv(timeout=2) for end in ends] == [bytes(1 << 16), [1, "a", None], -5, "ä"]
            assert not here.closed
            for part in (raw, any_, ints, text, *ends):
                part.close()


class TestFlat:
    @pytest.mark.timeout(600)
    def test_sessions_opened_and_closed_in_sequence_leave_nothing(self, tmp_path: Path) -> None:
        total, warm = (10_000, 1_000) if FULL else (1_000, 100)

        async def body() -> None:
            address = f"unix://{tmp_path / 's'}"
            slope = Slope(total, warm)
            async with netchan.listen(address, identity=BOSS, pq="off") as listener:
                for number in range(total):
                    slope.look(number)
                    async with netchan.dial(address, identity=KEY, pq="off") as there:
                        here = await listener.recv()
                        async with there.open("x", int) as mine, here.open("x", int) as theirs:
                            await mine.send(number)
                            assert await theirs.recv() == number
                    await here.wait_closed()
                slope.end("sessions")

        asyncio.run(body())

    @pytest.mark.timeout(600)
    def test_loops_that_end_give_their_memory_back(self) -> None:
        """An engine has a megabyte or two of keys, contexts and buffers; each ``asyncio.run`` has an engine."""
        total = 1_000 if FULL else 100
        slope = Slope(total, 30)

        async def body() -> None:
            async with (
                netchan.listen("tcp://127.0.0.1:0", identity=BOSS, trust="any", pq="off") as listener,
                netchan.dial(listener.addresses[0], identity=KEY, pq="off") as there,
            ):
                here = await listener.recv()
                mine, theirs = there.open("x", int), here.open("x", int)
                await mine.send(1)
                assert await theirs.recv() == 1

        for number in range(total):
            slope.look(number)
            asyncio.run(body())
            gc.collect()
        slope.end("loops")

    def test_engine_whose_loop_has_ended_waits_for_no_collector(self) -> None:
        """The worker may let go of it last, behind the program's last collection."""
        gc.collect()
        gc.disable()
        try:
            engine = new_engine("loop")
            engine.set_loop(threading.get_ident(), lambda call: None)
            engine.set_loop(None, None)
            reference = weakref.ref(engine)
            del engine
            assert reference() is None
        finally:
            gc.enable()

    def test_session_that_was_left_leaves_no_cycle_to_the_collector(self, tmp_path: Path) -> None:
        async def body() -> list[str]:
            address = f"unix://{tmp_path / 's'}"
            async with netchan.listen(address, identity=BOSS, pq="off") as listener:

                async def one() -> None:
                    async with netchan.dial(address, identity=KEY, pq="off") as there:
                        here = await listener.recv()
                        async with there.open("x", int) as mine, here.open("x", int) as theirs:
                            await mine.send(1)
                            assert await theirs.recv() == 1
                    await here.wait_closed()

                await one()
                gc.collect()
                gc.disable()
                gc.set_debug(gc.DEBUG_SAVEALL)
                try:
                    for _ in range(5):
                        await one()
                    await asyncio.sleep(0.1)  # the worker's last references
                    gc.collect()
                    return [type(o).__name__ for o in gc.garbage if type(o).__module__.startswith("netchan")]
                finally:
                    gc.set_debug(0)
                    gc.garbage.clear()
                    gc.enable()

        assert asyncio.run(body()) == []

    @pytest.mark.timeout(600)
    def test_channels_opened_and_closed_on_one_session_leave_nothing(self) -> None:
        # the cache of cipher contexts is full after 2 048 channels, so the short run counts its second half only
        total, warm = (100_000, 10_000) if FULL else (12_000, 6_000)

        async def body() -> None:
            async with netchan.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
                async with netchan.dial(listener.addresses[0], identity=KEY) as there:
                    here = await listener.recv()
                    slope = Slope(total, warm)
                    for number in range(total):
                        slope.look(number)
                        mine, theirs = there.open(f"c{number}", int), here.open(f"c{number}", int)
                        await mine.send(number)
                        mine.close()
                        assert await theirs.recv() == number
                        theirs.close()
                        assert [v async for v in theirs] == []
                        assert [v async for v in mine] == []
                    slope.end("channels")
                    assert there.stats()["channels"] < 100
                    assert len(there._core._names) < 300
                    assert len(here._core._names) < 300
                here.close()

        asyncio.run(body())

    def test_refused_handshakes_leave_nothing(self) -> None:
        total = 200
        with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
            slope = Slope(total, spare=2)
            for number in range(total):
                slope.look(number)
                with pytest.raises(netchan.AuthError):
                    sync.dial(listener.addresses[0])
            time.sleep(1.2)  # refused connections linger for a second
            slope.end("refused handshakes")
