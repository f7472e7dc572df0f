"""A session of four paths under everything that may happen to it, for as long as one likes; flat in memory at the end.

    python -m tests.long.soak [seconds [seed]]

One process has both sides, another one the relays in between (TCP, TCP, UDP, Unix). Values go both ways all the time,
channels come and go, the modes of redundancy change, keys change, paths are cut, silenced, restored, removed and added.
Each value is checked. Ends with status 1 if the resident set has grown by more than 1 MiB since a tenth of the time was
over, or if there are more descriptors (of runs of at least LONG seconds), or if a value is missing. In that first tenth
all buffers are filled to their limits a few times, in each mode, so that what is measured behind it is growth, not a
peak that comes later than others.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import itertools
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import netchan
from netchan.net.manager import turn_ratchet
from tests.integration.slope import SLOPE, descriptors, in_use, rss

ROOT = Path(__file__).resolve().parents[2]
LONG = 120.0
"""Runs from here on are held to the bounds."""
MODES = ("failover", "stripe", "mirror", "parity(2, 1)", "parity(3, 1)")
KINDS = ("tcp", "tcp", "udp", "unix")
CAPACITY = 16
FILL = 0.5
"""Seconds that paths live and do not, while buffers are filled."""
STILL = 1.0
"""Seconds in which nothing is sent, before memory is looked at for the bounds."""


def relay_module() -> ModuleType:
    """The relays of the demo."""
    spec = importlib.util.spec_from_file_location("relay", ROOT / "examples" / "demo_parts" / "relay.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def relays(places: list[str]) -> None:
    """The other process: one relay for each place, and commands ``cut n`` and ``restore n`` on standard input."""
    kit = relay_module()
    made: list[Any] = []
    for number, place in enumerate(places):
        kind, _, target = place.partition("://")
        if kind == "unix":
            made.append(kit.StreamRelay(f"{target}.{number}", target))
        else:
            host, _, port = target.rpartition(":")
            maker = kit.DatagramRelay if kind == "udp" else kit.StreamRelay
            made.append(maker(("127.0.0.1", 0), (host, int(port))))
        await made[-1].restore()
    print(json.dumps([r.place for r in made]), flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        verb, number_ = line.decode().split()
        await getattr(made[int(number_)], verb)()
    for each in made:
        await each.close()


class Soak:
    """Both sides, and what happens to them."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seconds, self.began = seconds, time.monotonic()
        self.over = False
        self.still = asyncio.Event()
        self.still.set()
        self.counts = dict.fromkeys(("values", "channels", "cuts", "modes", "keys", "removed", "suspended"), 0)
        self.cut: set[int] = set()
        self.filling = False
        self.rows: list[tuple[float, int, int, int]] = []

    @property
    def share(self) -> float:
        """How much of the time is over."""
        return (time.monotonic() - self.began) / self.seconds

    async def stream(self, near: netchan.Peer, far: netchan.Peer, name: str, sizes: tuple[int, ...]) -> None:
        """Numbered values, one way, until the end."""
        tx, rx = near.open(name, bytes, capacity=CAPACITY), far.open(name, bytes, capacity=CAPACITY)
        rng = random.Random(name)

        async def send() -> None:
            n = 0
            while not self.over:
                await self.still.wait()
                await tx.send(n.to_bytes(8, "big") + bytes(rng.choice(sizes)))
                n += 1
                if n % 16 == 0 and not self.filling:
                    await asyncio.sleep(rng.random() * 0.02)
            tx.close()

        async def take() -> None:
            expected = 0
            async for value in rx:
                assert int.from_bytes(value[:8], "big") == expected, f"{name}: {value[:8]!r}, not {expected}"
                expected += 1
                self.counts["values"] += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            group.create_task(take())
        rx.close()

    async def turn_over(self, near: netchan.Peer, far: netchan.Peer, who: int) -> None:
        """Channels that are opened, used and closed."""
        rng = random.Random(who)
        n = 0
        while not self.over:
            await self.still.wait()
            sides = [near, far]
            rng.shuffle(sides)
            a, b = (side.open(f"{who}.{n}", bytes, capacity=rng.choice([0, 1, 8])) for side in sides)
            values = [bytes(rng.choice([0, 10, 5000])) for _ in range(rng.randrange(5))]

            async def give(end: Any = a, values: list[bytes] = values) -> None:
                for value in values:
                    await end.send(value)
                end.close()

            giving = asyncio.create_task(give())
            assert [len(v) async for v in b] == [len(v) for v in values]
            await giving
            b.close()
            assert [v async for v in a] == []
            n += 1
            self.counts["channels"] += 1
            await asyncio.sleep(rng.random() * 0.02)

    async def trouble(self, near: netchan.Peer, far: netchan.Peer, places: list[str], tell: Any) -> None:
        """What happens to paths, modes and keys."""
        rng = self.rng
        await self.fill(near, far, tell)
        while not self.over:
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            await self.still.wait()
            what = rng.random()
            if what < 0.3:
                at = rng.choice([n for n in range(len(KINDS)) if n not in self.cut] or [0])
                self.cut.add(at)
                tell("cut", at)
                self.counts["cuts"] += 1
                self.counts["suspended"] += len(self.cut) == len(KINDS)
            elif what < 0.65 and self.cut:
                at = rng.choice(sorted(self.cut))
                self.cut.discard(at)
                tell("restore", at)
            elif what < 0.8:
                rng.choice([near, far]).redundancy = rng.choice(MODES)
                self.counts["modes"] += 1
            elif what < 0.9:
                if rng.random() < 0.2:
                    turn_ratchet(near._core.session)
                else:
                    rng.choice([near, far])._core.session.rekey()
                self.counts["keys"] += 1
            else:
                paths = near.paths
                if len(paths) < 2:
                    continue
                path = rng.choice(paths)
                with contextlib.suppress(netchan.ConfigError):  # it was lost meanwhile
                    near.remove_path(path)
                    self.counts["removed"] += 1
                    address = next(p for p in places if p.endswith(path.address.partition("://")[2]))
                    adding = asyncio.ensure_future(near.add_path(address))
                    await asyncio.sleep(0.05)
                    adding.cancel()  # it is wanted all the same
                    await asyncio.gather(adding, return_exceptions=True)
            if len(self.cut) == len(KINDS):
                await asyncio.sleep(rng.uniform(0.1, 0.5))
                at = rng.randrange(len(KINDS))
                self.cut.discard(at)
                tell("restore", at)

    async def fill(self, near: netchan.Peer, far: netchan.Peer, tell: Any) -> None:
        """All buffers to their limits, in each mode, and no path; for half of the time that is not measured."""
        self.filling = True
        for mode in itertools.cycle(MODES):
            near.redundancy = far.redundancy = mode
            for verb in ("cut", "restore"):
                await asyncio.sleep(FILL)
                for at in range(len(KINDS)):
                    tell(verb, at)
            self.counts["cuts"] += len(KINDS)
            if self.share > 0.06:
                break
        self.filling = False

    def look(self) -> tuple[float, int, int, int]:
        """Note and print where memory stands."""
        row = (time.monotonic() - self.began, rss(), in_use(), descriptors())
        self.rows.append(row)
        return row

    async def rest(self, near: netchan.Peer, far: netchan.Peer, tell: Any) -> tuple[int, int]:
        """Everything restored and quiet: resident set and descriptors."""
        self.still.clear()
        for at in sorted(self.cut):
            tell("restore", at)
        self.cut.clear()
        end = time.monotonic() + (60 if self.seconds >= LONG else 5)
        while not near.path_count == far.path_count == len(KINDS):
            if time.monotonic() > end:
                assert self.seconds < LONG, f"paths do not come back: {near.paths}, {far.paths}"
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(STILL)
        gc.collect()
        found = []
        for _ in range(5):
            found.append(rss())
            await asyncio.sleep(0.1)
        got = int(statistics.median(found)), descriptors()
        self.still.set()
        return got

    async def measure(self, near: netchan.Peer, far: netchan.Peer, tell: Any) -> tuple[int, int]:
        """Look every now and then; what has grown between a tenth of the time and its end."""
        first: tuple[int, int] | None = None
        step = max(1.0, self.seconds / 60)
        while self.share < 1.0:
            await asyncio.sleep(min(step, self.seconds / 10))
            at, size, given, fds = self.look()
            print(
                f"{at:6.1f} s  rss {size / 2**20:7.2f} MiB  in use {given / 2**20:7.2f} MiB  descriptors {fds:3}  "
                f"paths {near.path_count} {far.path_count}  {self.counts}",
                flush=True,
            )
            if first is None and self.share >= 0.1:
                first = await self.rest(near, far, tell)
        assert first is not None
        last = await self.rest(near, far, tell)
        self.over = True
        print(f"after a tenth {first}, at the end {last}", flush=True)
        return last[0] - first[0], last[1] - first[1]


async def soak(seconds: float, seed: int) -> int:
    logging.getLogger("netchan.session").setLevel(logging.ERROR)  # of paths that are not there yet
    us, them = netchan.Identity.generate(), netchan.Identity.generate()
    config = netchan.Config(datagrams=True, lease=60.0)
    with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
        where = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", f"unix://{folder}/s"]
        async with netchan.listen(where, identity=us, trust=[them.node_id], config=config) as listener:
            bare = {a.partition("://")[0]: a.partition("@")[2] for a in listener.addresses}
            relaying = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.long.soak",
                "relays",
                *(f"{kind}://{bare[kind]}" for kind in KINDS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert relaying.stdin is not None and relaying.stdout is not None
            pipe = relaying.stdin

            def tell(verb: str, at: int) -> None:
                pipe.write(f"{verb} {at}\n".encode())

            made = json.loads(await relaying.stdout.readline())
            places = [
                f"{kind}://{us.node_id}@{place if kind == 'unix' else ':'.join(map(str, place))}"
                for kind, place in zip(KINDS, made, strict=True)
            ]
            try:
                async with netchan.dial(places, identity=them, config=config) as near:
                    far = await listener.recv()
                    run = Soak(seconds, seed)
                    async with asyncio.TaskGroup() as group:
                        for name, a, b in (("to", near, far), ("fro", far, near)):
                            group.create_task(run.stream(a, b, f"small {name}", (0, 30, 200)))
                            group.create_task(run.stream(a, b, f"large {name}", (0, 3000, 60_000)))
                        for who in range(3):
                            group.create_task(run.turn_over(near, far, who))
                        group.create_task(run.trouble(near, far, places, tell))
                        result = group.create_task(run.measure(near, far, tell))
                    grown, more = result.result()
                    stats = near.stats()
                await far.wait_closed()
            finally:
                pipe.close()
                await relaying.wait()
    print(f"{run.counts}, {stats['resumes']} resumptions, {stats['resent']} records again")
    print(f"soak: {seconds:g} s, resident set {grown / 1024:+.0f} KiB, descriptors {more:+d}")
    return 1 if seconds >= LONG and (grown > SLOPE or more > 0) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["relays"]:
        asyncio.run(relays(sys.argv[2:]))
    else:
        time_, number = float(sys.argv[1]) if sys.argv[1:] else 600.0, int(sys.argv[2]) if sys.argv[2:] else 1
        os.environ.setdefault("PYTHONUNBUFFERED", "1")
        sys.exit(asyncio.run(soak(time_, number)))
