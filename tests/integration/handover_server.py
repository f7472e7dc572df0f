"""A server that can be handed over, as a process of its own (test_handover.py).

``python handover_server.py address key hand-over-path first|next [fds]``. Lines on standard input: "give [path]" hands
everything over and ends, or goes on with what has not moved if that fails; "report" says what it would at the end.
Lines on standard output are JSON: {"ready": address}, {"all": error or ""} when all has been taken over, {"gave":
report}, {"kept": error}, {"report": report}. The report says, by the client's name, which values came in this process
(first, last) and how many it sent and had accepted, and how many numbers were used again under a key (debug builds
look).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from typing import Any

import netchan
from netchan.net import resume


class Server:
    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {}
        self.sent: dict[str, int] = {}
        self.breaks: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.peers: set[netchan.Peer] = set()

    async def handle(self, peer: netchan.Peer) -> None:
        up, down = peer.open("up", Any), peer.open("down", Any)
        self.peers.add(peer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.talk(down, peer.node_id))
                group.create_task(self.listen(up, peer.node_id))
        except* netchan.ChannelError:
            pass  # the session has moved, or the client has left
        finally:
            self.peers.discard(peer)

    async def listen(self, up: netchan.Channel[Any], name: str) -> None:
        async for n in up:
            known = self.heard.setdefault(name, [n, n - 1])
            if n != known[1] + 1:
                self.breaks.append(f"{name}: {n} after {known[1]}")
            known[1] = n

    async def talk(self, down: netchan.Channel[Any], name: str) -> None:
        self.sent[name] = 0
        while True:
            await down.send((os.getpid(), self.sent[name], "x" * 50))
            self.sent[name] += 1
            await asyncio.sleep(PAUSE)

    def report(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "heard": self.heard,
            "sent": self.sent,
            "breaks": self.breaks,
            "nonce_repeats": self.repeats,
            "parked": resume.parked(),
        }

    @property
    def repeats(self) -> int:
        """Of the living sessions, in all their processes."""
        return sum(peer._core.session.stats()["nonce_repeats"] for peer in self.peers)


PAUSE = float(os.environ.get("HANDOVER_PAUSE", "0.002"))


def fork(*_: object) -> None:
    """A child that holds what it has got for a minute: {"forked": its id}."""
    child = os.fork()
    if not child:
        os.close(0)
        os.close(1)
        time.sleep(60)
        os._exit(0)
    say(forked=child)


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


async def main(address: str, key: str, path: str, which: str, fds: str = "") -> None:
    server = Server()
    if fds:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(fds), int(fds)))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    config = netchan.Config(lease=60, handshake_timeout=30)
    async with netchan.take_over(path, wait=20 if which == "next" else 0) as before:
        assert before.happened == (which == "next")
        identity = netchan.Identity.load_or_create(key)
        listener = await before.listen(address, identity=identity, trust="any", config=config)
    say(ready=listener.addresses[0])
    signal.signal(signal.SIGUSR1, fork)

    async def serve() -> None:
        async for peer in listener:
            server.tasks.add(asyncio.create_task(server.handle(peer)))

    async def finish() -> None:
        try:
            await before.finished()
        except netchan.HandoverError as error:
            say(all=str(error))
        else:
            say(all="")

    serving = asyncio.create_task(serve())
    finishing = asyncio.create_task(finish()) if before.happened else None
    while True:
        line = (await reader.readline()).decode().split()
        if not line:
            os._exit(0)
        if line[0] == "report":
            say(report=server.report())
            continue
        where = line[1] if len(line) > 1 else path
        repeats = server.repeats
        try:
            await netchan.hand_over(where, listener, wait=20)
        except netchan.HandoverError as error:
            say(kept=str(error))
            continue
        break
    await serving
    if finishing is not None:
        await finishing
    await asyncio.gather(*server.tasks, return_exceptions=True)
    say(gave=server.report() | {"nonce_repeats": repeats})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
