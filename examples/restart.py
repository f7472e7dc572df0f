"""A server that is restarted by a signal and whose clients notice nothing but a pause.

``python restart.py``: starts a server and a client of it, sends the server SIGHUP three times while the client is
counting, and stops it by SIGTERM. The server of a real program is ``python restart.py serve address key path``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import netchan


class Server:
    """Answers every number. What was taken is this process's to answer, so it takes nothing while it hands over."""

    def __init__(self) -> None:
        self.stop: netchan.Channel[None] = netchan.channel()
        self.go_on = asyncio.Event()
        self.rested = asyncio.Event()
        self.working = 0

    async def handle(self, peer: netchan.Peer) -> None:
        """One client."""
        numbers = peer.open("numbers", int)
        answers = peer.open("answers", tuple[int, int])
        self.working += 1
        with contextlib.suppress(netchan.SessionLost):  # the session has moved: somebody else goes on
            while True:
                got = numbers.recv_op()
                if await netchan.select(got, self.stop.recv_op()) is not got:
                    self.rest()
                    await self.go_on.wait()
                    self.working += 1
                elif got.closed:
                    break
                else:
                    await answers.send((os.getpid(), got.value))
        self.rest()

    def rest(self) -> None:
        """One client less is being worked for."""
        self.working -= 1
        self.rested.set()

    async def hand_over(self, path: str, listener: netchan.Listener) -> bool:
        """True: another process goes on with everything; False: this one does."""
        self.go_on.clear()
        self.stop.close()
        while self.working:
            self.rested.clear()
            await self.rested.wait()
        try:
            await netchan.hand_over(path, listener, wait=20)
        except netchan.HandoverError as error:  # what has not moved is still here
            print(error, file=sys.stderr)
            return False
        finally:
            self.stop = netchan.channel()
            self.go_on.set()
        return True


def start(*arguments: str, stdout: int = 1) -> int:
    """Start this program as a server; its process id."""
    command = [sys.executable, __file__, "serve", *arguments]
    return os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1)])


async def serve(address: str, key: str, path: str, *rest: str) -> None:
    """Serve until SIGTERM; on SIGHUP start this program again and give it everything."""
    identity = netchan.Identity.load_or_create(key)
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGTERM):
        loop.add_signal_handler(number, signals.put_nowait, number)
    # The first time nobody gives anything, and listen() makes what is not there. A process that was started to take
    # over waits until the old one gives.
    async with netchan.take_over(path, wait=20 if rest else 0) as before:
        listener = await before.listen(address, identity=identity, trust="any")
    server = Server()
    serving = asyncio.create_task(listener.serve(server.handle))  # while sessions still come from the old one
    await before.finished()
    print(os.getpid(), listener.addresses[0], flush=True)
    while await signals.get() == signal.SIGHUP:
        start(address, key, path, "next")
        if await server.hand_over(path, listener):
            break
    listener.close()
    await serving


async def main(folder: Path) -> None:
    """Three restarts under the eyes of a client."""
    here = (f"unix://{folder}/node.sock", str(folder / "node.key"), str(folder / "hand-over"))
    read, write = os.pipe()
    first = start(*here, stdout=write)
    os.close(write)
    said = os.fdopen(read)  # all server processes write there
    pid, address = (await asyncio.to_thread(said.readline)).split()
    answered: list[tuple[int, int]] = []
    sent, restarted, news = 0, asyncio.Event(), asyncio.Event()
    async with netchan.dial(address, trust="any") as peer:
        numbers = peer.open("numbers", int)
        answers = peer.open("answers", tuple[int, int])

        async def count() -> None:
            nonlocal sent
            while sent < 3000 or not restarted.is_set():
                await numbers.send(sent)
                sent += 1
                if sent % 20 == 0:
                    await asyncio.sleep(0.01)
            numbers.close()

        async def listen() -> None:
            async for answer in answers:
                answered.append(answer)
                news.set()

        async def at_work() -> None:
            while not answered or answered[-1][0] != int(pid):
                news.clear()
                await news.wait()

        async def restart() -> None:
            nonlocal pid
            await at_work()
            for _ in range(3):
                os.kill(int(pid), signal.SIGHUP)
                pid, _ = (await asyncio.to_thread(said.readline)).split()
                await at_work()
            restarted.set()

        async with asyncio.TaskGroup() as group:
            for work in (count(), listen(), restart()):
                group.create_task(work)
    os.kill(int(pid), signal.SIGTERM)
    await asyncio.to_thread(said.read)  # until the last one has ended
    said.close()
    await asyncio.to_thread(os.waitpid, first, 0)
    print("every number once and in order:", [number for _, number in answered] == list(range(sent)))
    print("processes that answered:", len({pid for pid, _ in answered}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(main(Path(folder)))
