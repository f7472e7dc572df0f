"""Little programs that tests run as processes of their own, with signals and a clean-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]

SOURCES = {
    # Sends back what comes on "echo"; "exit" ends the process without closing anything.
    "echo": """
import sys
from netchan import sync
peer = sync.dial(sys.argv[1])
channel = peer.open("echo", str)
for value in channel:
    if value == "exit":
        sys.exit(0)
    channel.send(value)
""",
    # Opens "x" with the capacity of the second argument, says so, and sleeps.
    "opener": """
import sys, time
from netchan import sync
channel = sync.dial(sys.argv[1]).open("x", int, capacity=int(sys.argv[2]))
print("open", flush=True)
time.sleep(60)
""",
    # Sends n values of k bytes on "x", which spills to a folder, and closes it; prints its resident set now and then,
    # and how long the sends took. "stay" as the last argument: sleeps before it closes.
    "spiller": """
import sys, time
import netchan
from netchan import sync
address, folder, n, k, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
def resident():
    with open("/proc/self/statm") as figures:
        return int(figures.read().split()[1]) * 4096
with sync.dial(address, config=netchan.Config(close_timeout=120)) as peer:
    channel = peer.open("x", bytes, capacity=64, overflow=netchan.spill(folder, 1 << 30))
    begun = time.monotonic()
    for number in range(n):
        channel.send(b"%010d" % number + bytes(k - 10))
        if number % 5000 == 4999:
            print("resident", resident(), channel.stats().on_disk, flush=True)
    print("sent", time.monotonic() - begun, channel.stats().on_disk, flush=True)
    if last == "stay":
        time.sleep(60)
    channel.close()
print("left", flush=True)
""",
    # Sends n numbers on "x", which spills to a folder, and does nothing any more: its loop, or only thread, is stuck.
    "stuck": """
import asyncio, sys, time
import netchan, trio
from netchan import sync
address, folder, n, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
disk = netchan.spill(folder, 1 << 24)
if kind == "blocking":
    channel = sync.dial(address).open("x", int, capacity=8, overflow=disk)
    channel.send_many(range(n))
    print(channel.stats().on_disk, flush=True)
    time.sleep(60)
async def main():
    async with netchan.dial(address) as peer:
        channel = peer.open("x", int, capacity=8, overflow=disk)
        await channel.send_many(range(n))
        print(channel.stats().on_disk, flush=True)
        time.sleep(60)
if kind == "uvloop":
    import uvloop
    uvloop.run(main())
elif kind == "trio":
    trio.run(main)
else:
    asyncio.run(main())
""",
    # One node of a ring: listens on <folder>/<n>, dials the next one, selects for a while, and prints what it did.
    "ring": """
import sys, time
import netchan
from netchan import sync
folder, n, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with sync.listen(f"unix://{folder}/{n}") as listener:
    begun = time.monotonic()
    while True:
        try:
            peer = sync.dial(f"unix://{folder}/{(n + 1) % count}")
            break
        except netchan.DialError:
            if time.monotonic() - begun > 10:
                raise
            time.sleep(0.02)
    give = peer.open("ring", int, capacity=0).send_op(n)
    take = listener.recv(timeout=10).open("ring", int, capacity=0).recv_op()
    print("joined", flush=True)
    sent = received = 0
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        at = time.monotonic()
        won = sync.select(give, take, netchan.after(1.0))
        sent += won is give
        received += won is take
        if won is give or won is take:  # at the end the others may have left
            longest = max(longest, time.monotonic() - at)
    print(sent, received, longest, flush=True)
    sys.stdin.readline()
""",
    # Listens on the addresses behind the first three arguments, with the identity in a file; takes peers, and says for
    # each line that it reads how many datagrams of unknown paths it has answered.
    "node": """
import sys, threading
import netchan
from netchan import sync
identity, lease, places = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
me = netchan.Identity.load_or_create(identity)
config = netchan.Config(datagrams=True, lease=lease)
listener = sync.listen(places, identity=me, trust="any", config=config)
print(*listener.addresses, flush=True)
peers = []
def echo(channel):
    for n in channel:
        channel.send(n)
def take():
    for peer in listener:
        channel = peer.open("x", int, capacity=100)
        peers.append((peer, channel))
        threading.Thread(target=echo, args=(channel,), daemon=True).start()
threading.Thread(target=take, daemon=True).start()
for line in sys.stdin:
    print(listener.stats().resets, flush=True)
""",
    # Waits in a call named by the second argument and says when Ctrl-C got it out.
    "wait": """
import sys, time
from netchan import sync
address, verb = sys.argv[1:]
peer = sync.dial(address)
channel = peer.open("wait", bytes, capacity=1)
channel.send(b"ready")
calls = {
    "recv": channel.recv,
    "send": lambda: [channel.send(b"x") for _ in range(3)],
    "next": lambda: next(peer),
    "wait_closed": peer.wait_closed,
    "flush": lambda: channel.flush("taken"),
    "listen": lambda: sync.listen("tcp://127.0.0.1:0", trust="any").recv(),
    "dial": lambda: sync.dial(address.replace(address[6:58], "a" * 51 + "q"), trust="any"),
}
print("waiting", flush=True)
try:
    calls[verb]()
except KeyboardInterrupt:
    print("interrupted", time.monotonic(), flush=True)
    peer.close()
    sys.exit(0)
except BaseException as error:
    print(repr(error), flush=True)
    sys.exit(1)
sys.exit(3)
""",
    # Shakes hands as often as the second argument says per second, until it is ended.
    "hammer": """
import asyncio, os, sys, time
import netchan
if os.environ.get("NETCHAN_LATENCY"):
    # It stands for other machines: it takes no processor from the one that is measured.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
async def main():
    address, rate = sys.argv[1], float(sys.argv[2])
    done = failed = 0
    begun = time.monotonic()
    async def one():
        nonlocal done, failed
        try:
            async with netchan.dial(address, identity=key):
                done += 1
        except netchan.NetchanError:
            failed += 1
    key = netchan.Identity.generate()
    print("hammering", flush=True)
    tasks = set()
    started = 0
    while time.monotonic() - begun < float(sys.argv[3]):
        while started < (time.monotonic() - begun) * rate and len(tasks) < 32:
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            started += 1
        await asyncio.sleep(0.002)
    print(done, failed, flush=True)
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
asyncio.run(main())
""",
}


CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A test run that was started in the background passes an ignored SIGINT on; a program of ours answers it anyway."""


class Program:
    """A running program of SOURCES; killed and reaped at the end of the with-block."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CTRL_C + SOURCES[name], *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        """The next line that it prints; blocks."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def say(self) -> None:
        """Give it an empty line to read."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
