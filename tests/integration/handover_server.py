"""A server that can be handed over, as a process of its own (test_handover.py).

``python handover_server.py address key hand-over-path first|next [fds]``. Lines on standard input: "give [path]" hands
everything over and ends, or goes on if that fails. Lines on standard output are JSON: {"ready":
address}, {"gave": report}, {"kept": error}. The report says, by the client's name, which values came in this process
(first, last) and how many it sent and had accepted.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from typing import Any

import netchan


class Server:
    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {}
        self.sent: dict[str, int] = {}
        self.breaks: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, peer: netchan.Peer) -> None:
        up, down = peer.open("up", Any), peer.open("down", Any)
        name = ""
        try:
            async with asyncio.TaskGroup() as group:
                named: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                group.create_task(self.listen(up, named))
                name = await named
                await self.talk(down, name)
        except* netchan.ChannelError:
            pass  # the session has moved, or the client has left

    async def listen(self, up: netchan.Channel[Any], named: asyncio.Future[str]) -> None:
        async for name, n in up:
            known = self.heard.setdefault(name, [n, n - 1])
            if n != known[1] + 1:
                self.breaks.append(f"{name}: {n} after {known[1]}")
            known[1] = n
            if not named.done():
                named.set_result(name)

    async def talk(self, down: netchan.Channel[Any], name: str) -> None:
        self.sent[name] = 0
        while True:
            await down.send((os.getpid(), self.sent[name], "x" * 50))
            self.sent[name] += 1
            await asyncio.sleep(PAUSE)

    def report(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "heard": self.heard, "sent": self.sent, "breaks": self.breaks}


PAUSE = float(os.environ.get("HANDOVER_PAUSE", "0.002"))


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


async def main(address: str, key: str, path: str, which: str, fds: str = "") -> None:
    server = Server()
    if fds:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(fds), int(fds)))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    config = netchan.Config(lease=20)
    async with netchan.take_over(path, wait=20 if which == "next" else 0) as before:
        assert before.happened == (which == "next")
        identity = netchan.Identity.load_or_create(key)
        listener = await before.listen(address, identity=identity, trust="any", config=config)
    say(ready=listener.addresses[0])

    async def serve() -> None:
        async for peer in listener:
            server.tasks.add(asyncio.create_task(server.handle(peer)))

    serving = asyncio.create_task(serve())
    while True:
        line = (await reader.readline()).decode().split()
        if not line:
            os._exit(0)
        where = line[1] if len(line) > 1 else path
        try:
            await netchan.hand_over(where, listener, wait=20)
        except netchan.HandoverError as error:
            say(kept=str(error))
            continue
        break
    await serving
    await asyncio.gather(*server.tasks, return_exceptions=True)
    say(gave=server.report())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
