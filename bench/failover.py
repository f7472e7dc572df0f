"""How long values stop when one of two paths falls silent: ``python -m bench.failover``.

Two relays between a dialler and a listener delay everything by half a round trip. A value goes every 2 ms; at a random
moment one relay swallows everything without a word, as a cable does. The stall is the longest gap between two arrivals
behind that moment, less the 2 ms. With ``--event`` the side that sends is told of it 5 ms later, as by its own link
(net/changes.py; `make changes` has real ones, and what happens when all links come back). With ``--rate`` values are so
long that so many bytes a second go, which may use a window up; with ``--one-sided`` only the side that sends has the
mode. Everything runs in one process; figures of a loaded machine are worth nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import threading
import time
from itertools import pairwise

import netchan
from netchan._engine import path_handle

EVERY = 0.002
EVENT = 0.005


class Relay:
    """Passes bytes on to a port of this machine after a delay, until it is told to swallow them; on its own thread."""

    def __init__(self, port: int, delay: float) -> None:
        self._target, self._delay, self.silent = port, delay, False
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.suppress(asyncio.CancelledError):  # asyncio would write it to the log
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if not self.silent:
                self._loop.call_later(self._delay, self._give, writer, data)
        self._loop.call_later(self._delay, writer.close)

    def _give(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not self.silent and not writer.is_closing():
            writer.write(data)


async def stall(mode: str, rtt: float, rng: random.Random, event: bool, rate: int, one_sided: bool) -> float:
    """Seconds for which values stopped."""
    value = bytes(max(int(rate * EVERY), 8))
    us, them = netchan.Identity.generate(), netchan.Identity.generate()
    with contextlib.ExitStack() as over_all:  # the last words of a session go through the relays, too
        async with netchan.listen("tcp://127.0.0.1:0", identity=us, trust=[them.node_id]) as listener:
            node, _, place = listener.addresses[0].removeprefix("tcp://").partition("@")
            port = int(place.rpartition(":")[2])
            relays = [Relay(port, rtt / 2) for _ in range(2)]
            for relay in relays:
                over_all.callback(relay.close)
            addresses = [f"tcp://{node}@127.0.0.1:{relay.port}" for relay in relays]
            async with netchan.dial(addresses[0], identity=them) as dialler:
                peer = await listener.recv()
                await dialler.add_path(addresses[1])
                dialler.redundancy = mode
                if not one_sided:
                    peer.redundancy = mode
                tx, rx = dialler.open("n", bytes, capacity=4096), peer.open("n", bytes, capacity=4096)
                over = asyncio.Event()

                async def send() -> None:
                    while not over.is_set():
                        await tx.send(value)
                        await asyncio.sleep(EVERY)

                sending = asyncio.create_task(send())
                arrivals: list[float] = []
                begun = time.monotonic()
                cut = begun + rng.uniform(0.3, 0.5)
                while time.monotonic() < cut + 0.8:
                    await rx.recv()
                    arrivals.append(time.monotonic())
                    if arrivals[-1] >= cut and not relays[0].silent:
                        relays[0].silent = True
                        if event:
                            asyncio.get_running_loop().call_later(EVENT, path_handle.doubt, dialler._core.session, [0])
                over.set()
                await sending
    after = [now for now in arrivals if now >= cut - 0.01]
    return max(b - a for a, b in pairwise(after)) - EVERY


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="cuts for each kind of redundancy")
    parser.add_argument("--rtt", type=float, default=0.02, help="round trip in seconds")
    parser.add_argument("--event", action="store_true", help="the network says so")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second; 0: 8 bytes in each value")
    parser.add_argument("--one-sided", action="store_true", help="the side that receives keeps to failover")
    options = parser.parse_args()
    rng = random.Random(1)
    for mode in ("failover", "stripe", "mirror", "parity(1, 1)"):
        how = options.rtt, rng, options.event, options.rate, options.one_sided
        found = sorted(asyncio.run(stall(mode, *how)) * 1e3 for _ in range(options.rounds))
        p99 = found[min(len(found) - 1, int(0.99 * len(found)))]
        print(
            f"{mode:12} round trip {options.rtt * 1e3:g} ms, {len(found)} cuts: "
            f"stall p50 {statistics.median(found):.0f} ms, p99 {p99:.0f} ms, longest {found[-1]:.0f} ms"
        )


if __name__ == "__main__":
    main()
