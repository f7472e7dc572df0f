"""One of the two measured processes: obeys the runner's commands and reports times, counts and CPU seconds.

Commands and answers are JSON lines on an inherited socket. The flow is written once, as a coroutine: on a blocking
front it never suspends and is driven by one ``send(None)``, on asyncio and uvloop it runs in the loop. Nothing is read
or written on the command socket while the clock runs. A failure is answered as ``{"error": ...}`` and ends the process.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.e2e import peers
from bench.e2e.contract import (
    BATCH,
    BLOCKING,
    FAN,
    TURNS,
    UVLOOP,
    Spec,
    await_send_to_all,
    in_threads,
    send_to_all,
)
from bench.e2e.values import Expected, Sources, batches, turns, values, wants


class Commands:
    """The command socket, readable with and without a loop."""

    def __init__(self, sock: socket.socket, *, blocking: bool) -> None:
        self._sock = sock
        self._blocking = blocking
        self._held = b""
        sock.setblocking(blocking)

    async def next(self, loop: asyncio.AbstractEventLoop | None) -> dict[str, Any]:
        """Return the next command; `{"do": "bye"}` when the runner has gone."""
        while b"\n" not in self._held:
            if loop is None:
                more = self._sock.recv(65536)
            else:  # the loop must go on: a peer may still have bytes to write
                more = await loop.sock_recv(self._sock, 65536)
            if not more:
                return {"do": "bye"}
            self._held += more
        line, _, self._held = self._held.partition(b"\n")
        command: dict[str, Any] = json.loads(line)
        return command

    def answer(self, **fields: Any) -> None:
        """Send one answer."""
        self._sock.setblocking(True)
        self._sock.sendall(json.dumps(fields).encode() + b"\n")
        self._sock.setblocking(self._blocking)


async def settle(result: Any) -> Any:
    """Return the result of a call that may or may not have to be awaited."""
    return await result if inspect.isawaitable(result) else result


def resident_bytes() -> int:
    """Return the resident set of this process in bytes (Linux)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Worker:
    """The commands, one method each; `do` in the command is the method's name."""

    def __init__(self, spec: Spec, peer: str, commands: Commands) -> None:
        self.spec = spec
        self.commands = commands
        self.joins = peers.find(peer).joins
        self.side = peers.find(peer).side(spec)
        self.links: list[Any] = []
        self.held: list[Any] = []

    async def listen(self) -> dict[str, Any]:
        return {"address": await settle(self.side.listen())}

    @property
    def link(self) -> Any:
        """The only link, or the first one."""
        return self.links[0]

    async def accept(self) -> dict[str, Any]:
        for _ in range(self._fan("w3b", joined="w3")):
            self.links.append(await settle(self.side.accept()))
        return {}

    async def dial(self, address: str) -> dict[str, Any]:
        for _ in range(self._fan("w3", joined="w3b")):
            self.links.append(await settle(self.side.dial(address)))
        return {}

    def _fan(self, apart: str, *, joined: str) -> int:
        """How many links this process has: in workload `joined` one if the library brings them together."""
        several = self.spec.workload == apart or (self.spec.workload == joined and not self.joins)
        return FAN if several else 1

    async def _at_once(self, calls: Sequence[Callable[[], Any]]) -> None:
        """Make all calls at the same time: in threads, or as tasks."""
        if self.spec.front == BLOCKING:
            in_threads(calls)
        else:
            await asyncio.gather(*(call() for call in calls))

    async def send(self, n: int) -> dict[str, Any]:
        size, link = self.spec.size, self.link
        todo: Any = batches(size, n) if self.spec.style == BATCH else values(size, n)
        loop = link.send_batches if self.spec.style == BATCH else link.send_each
        cpu, start = time.process_time(), time.monotonic_ns()
        await settle(loop(todo))
        await settle(link.flush())
        return {"start": start, "end": time.monotonic_ns(), "cpu": time.process_time() - cpu}

    async def recv(self, n: int) -> dict[str, Any]:
        size, link = self.spec.size, self.link
        expected, single = Expected(size), wants(size, n)
        self.commands.answer(ready=True)
        cpu = time.process_time()
        if self.spec.style == BATCH:
            await settle(link.recv_batches(expected, n))
        else:
            await settle(link.recv_each(single))
        return {"end": time.monotonic_ns(), "cpu": time.process_time() - cpu, "n": n}

    async def send_apart(self, n: int) -> dict[str, Any]:
        shares = [values(self.spec.size, n // FAN, source) for source in range(FAN)]
        calls = [partial(link.send_share, share) for link, share in zip(self.links, shares, strict=True)]
        cpu, start = time.process_time(), time.monotonic_ns()
        await self._at_once(calls)
        return {"start": start, "end": time.monotonic_ns(), "cpu": time.process_time() - cpu}

    async def recv_apart(self, n: int) -> dict[str, Any]:
        sources = Sources(self.spec.size, n // FAN, FAN)
        due = sources.mixed()
        calls = [partial(link.recv_each, sources.wants()) for link in self.links]
        self.commands.answer(ready=True)
        cpu = time.process_time()
        if self.joins:
            await settle(self.link.recv_mixed(due, n))
        else:
            await self._at_once(calls)
        return {"end": time.monotonic_ns(), "cpu": time.process_time() - cpu, "n": n}

    async def send_alike(self, n: int) -> dict[str, Any]:
        todo = values(self.spec.size, n // FAN)
        give: Any = send_to_all if self.spec.front == BLOCKING else await_send_to_all
        cpu, start = time.process_time(), time.monotonic_ns()
        await settle(give(self.links, todo))
        return {"start": start, "end": time.monotonic_ns(), "cpu": time.process_time() - cpu}

    async def recv_alike(self, n: int) -> dict[str, Any]:
        calls = [partial(link.recv_each, wants(self.spec.size, n // FAN)) for link in self.links]
        self.commands.answer(ready=True)
        cpu = time.process_time()
        await self._at_once(calls)
        return {"end": time.monotonic_ns(), "cpu": time.process_time() - cpu, "n": n}

    async def send_turns(self, n: int) -> dict[str, Any]:
        todo, each = turns(self.spec.size, n), TURNS[self.spec.workload].each
        before = self.link.records()
        cpu, start = time.process_time(), time.monotonic_ns()
        await settle(self.link.send_turns(todo, each))
        end, cpu = time.monotonic_ns(), time.process_time() - cpu
        sent = {name: count - before[name] for name, count in self.link.records().items()}
        return {"start": start, "end": end, "cpu": cpu} | sent

    async def recv_turns(self, n: int) -> dict[str, Any]:
        todo, each = turns(self.spec.size, n), TURNS[self.spec.workload].each
        self.commands.answer(ready=True)
        cpu = time.process_time()
        await settle(self.link.recv_turns(todo, each))
        return {"end": time.monotonic_ns(), "cpu": time.process_time() - cpu, "n": n}

    async def ping(self, n: int) -> dict[str, Any]:
        todo = values(self.spec.size, n)
        cpu, start = time.process_time(), time.monotonic_ns()
        trips = await settle(self.link.ping(todo))
        end, cpu = time.monotonic_ns(), time.process_time() - cpu
        return {"start": start, "end": end, "cpu": cpu, "trips": trips}

    async def pong(self, n: int) -> dict[str, Any]:
        self.commands.answer(ready=True)
        cpu = time.process_time()
        await settle(self.link.pong(n))
        return {"end": time.monotonic_ns(), "cpu": time.process_time() - cpu, "n": n}

    async def trips(self, n: int, address: str) -> dict[str, Any]:
        cpu, start = time.process_time(), time.monotonic_ns()
        for value in values(self.spec.size, n):
            link = await settle(self.side.dial(address))
            await settle(link.ping([value]))
            await settle(link.close())
        return {"start": start, "end": time.monotonic_ns(), "cpu": time.process_time() - cpu}

    async def serve(self, n: int) -> dict[str, Any]:
        self.commands.answer(ready=True)
        cpu = time.process_time()
        for _ in range(n):
            link = await settle(self.side.accept())
            await settle(link.pong(1))
            await settle(link.close())
        return {"end": time.monotonic_ns(), "cpu": time.process_time() - cpu, "n": n}

    async def hold(self, n: int, address: str) -> dict[str, Any]:
        for value in values(self.spec.size, n):
            link = await settle(self.side.dial(address))
            await settle(link.ping([value]))
            self.held.append(link)
        return {"rss": resident_bytes()}

    async def keep(self, n: int) -> dict[str, Any]:
        self.commands.answer(ready=True)
        for _ in range(n):
            link = await settle(self.side.accept())
            await settle(link.pong(1))
            self.held.append(link)
        return {"n": n}

    async def idle(self, seconds: float) -> dict[str, Any]:
        """Let the process come to rest, then measure what it holds."""
        rest = time.sleep if self.spec.front == BLOCKING else asyncio.sleep
        await settle(rest(seconds))
        return {"rss": resident_bytes()}

    async def open_more(self, n: int, first: bool) -> dict[str, Any]:
        if not first:
            self.commands.answer(ready=True)
        await settle(self.link.open_more(n, first))
        return {"rss": resident_bytes(), "n": n}

    async def stop(self) -> None:
        for link in self.held + self.links:
            await settle(link.close())
        await settle(self.side.stop())


async def obey(spec: Spec, peer: str, commands: Commands) -> None:
    """Run commands until told to leave."""
    loop = None if spec.front == BLOCKING else asyncio.get_running_loop()
    try:
        worker = Worker(spec, peer, commands)
        while True:
            command = await commands.next(loop)
            verb = command.pop("do")
            if verb == "bye":
                await worker.stop()
                return
            answer = await getattr(worker, verb)(**command)
            commands.answer(**answer)
    except Exception as failure:
        commands.answer(error=f"{type(failure).__name__}: {failure}")
        raise


def drive(flow: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    try:
        flow.send(None)
    except StopIteration:
        return
    raise RuntimeError("a blocking front suspended")


def main() -> None:
    """Entry: ``python -m bench.e2e.child FD JSON``."""
    order = json.loads(sys.argv[2])
    if order["cpus"]:
        os.sched_setaffinity(0, order["cpus"])
    spec = Spec(Path(order["folder"]), order["front"], order["workload"], order["style"], order["size"])
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        commands = Commands(sock, blocking=spec.front == BLOCKING)
        flow = obey(spec, order["peer"], commands)
        gc.collect()
        gc.freeze()
        if spec.front == BLOCKING:
            drive(flow)
        elif spec.front == UVLOOP:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(flow)
        else:
            asyncio.run(flow)


if __name__ == "__main__":
    main()
