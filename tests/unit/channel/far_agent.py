"""The far end of a case in two processes: ``python -m tests.unit.channel.far_agent <front>``, a child of the tests.

1. Commands come on standard input, answers go to standard output, both as far_data.py has them:
   ``[number, what, gone, ...]`` there, ``[number, ok, value or exception]`` back; a cancelled call answers with None.
2. "call", "get", "lose", "end" and the others are answered at once, in the thread that runs the front's loop (blocking:
   in the main thread). "run" begins a call that may wait, as a task (blocking: on a thread); its answer comes when it
   ends. "cancel" cancels such a call; a blocking one goes on until its timeout.
3. What cannot travel is kept here under a number, until the other side has let go of each reference it was given.
4. The end of standard input ends the process.

Warnings, and exceptions that nobody waited for, are noted and answered to the "end" of the case, which then fails.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import os
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import netchan
from netchan import Receiver, Sender, sync
from netchan.channel.handle import Handle
from tests.unit.channel.far_data import METHOD, Plain
from tests.unit.channel.verbs import AsyncVerbs, BlockingVerbs

CHUNK = 1 << 16


class Agent:
    """See the module head.

    Args:
        verbs: of the front.
        out: descriptor for the answers.

    Attributes:
        spawn: begins a call by number; set by the front's main function.
        running: calls that were begun, by number, and how to cancel each.
    """

    spawn: Callable[[int, Callable[[], Any]], None]

    def __init__(self, verbs: AsyncVerbs | BlockingVerbs, out: int) -> None:
        self.verbs = verbs
        self.running: dict[int, Callable[[], object]] = {}
        self._out = out
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._objects: dict[int, Any] = {}
        self._number: dict[int, int] = {}
        self._given: Counter[int] = Counter()
        self._plain = Plain(self._keep, lambda number, _kind: self._objects[number])
        self._unpacker = self._plain.unpacker()
        self._complaints: list[str] = []
        self._warned: list[str] = []
        self._losing = False
        warnings.simplefilter("always")
        warnings.showwarning = self._note_warning
        sys.unraisablehook = lambda hook: self.complain(f"unraisable in {hook.object!r}: {hook.exc_value!r}")
        threading.excepthook = lambda hook: self.complain(f"a thread ended by {hook.exc_value!r}")

    # --- commands ----------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Obey what has come whole."""
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._obey(*message)

    def _obey(self, number: int, what: str, gone: list[list[int]], *rest: Any) -> None:
        for kept, count in gone:
            self._let_go(kept, count)
        if what == "cancel":
            self.running.get(rest[0], lambda: None)()
        elif what == "run":
            target, verb, args, options = rest
            self.spawn(number, lambda: self._waiting(target, verb, args, options))
        else:
            try:
                value = getattr(self, f"_do_{what}")(*rest)
            except Exception as error:
                self.answer(number, False, error)
            else:
                self.answer(number, True, value)

    def answer(self, number: int, ok: bool, value: Any) -> None:
        """Send the answer to one command; from any thread."""
        with self._lock:
            data = self._plain.pack([number, ok, value])
            while data:
                data = data[os.write(self._out, data) :]

    def _waiting(self, target: Any, verb: str, args: list[Any], options: dict[str, Any]) -> Any:
        """The result of a call, or what to await for it. ``recv_into`` fills a copy of the buffer, given back too."""
        if verb != "recv_into":
            return self.verbs.named(target, verb)(*args, **options)
        buffer = bytearray(args[0])
        got = self.verbs.named(target, verb)(buffer, **options)
        if not inspect.iscoroutine(got):
            return got, bytes(buffer)

        async def filled() -> tuple[int, bytes]:
            return await got, bytes(buffer)

        return filled()

    def _do_call(self, target: Any, name: str, args: list[Any], options: dict[str, Any]) -> Any:
        """Call what does not wait; of one that waits, only what it refuses in the call itself is seen."""
        value = getattr(self.verbs if target is None else target, name)(*args, **options)
        if inspect.iscoroutine(value):
            value.close()
            return None
        return value

    def _do_get(self, target: Any, name: str) -> Any:
        value = getattr(target, name)
        return METHOD if callable(value) and not isinstance(value, Handle) else value

    def _do_lose(self, *handles: Any) -> None:
        """Forget handles without closing them, as a program does that drops its references."""
        self._losing = True
        for handle in handles:
            self._let_go(self._number[id(handle)], 1 << 30)

    def _do_collect(self) -> None:
        """Run the collector, after the arguments of "lose" are gone too."""
        gc.collect()

    def _do_kept(self) -> int:
        """How many objects are kept for the other side."""
        return len(self._objects)

    def _do_warned(self) -> list[str]:
        """The warnings so far of this case."""
        return list(self._warned)

    def _do_end(self) -> list[str]:
        """End everything that is left of a case; what nobody has asked for and should not have happened."""
        for kept in list(self._objects.values()):
            if isinstance(kept, Sender | Receiver | sync.Sender | sync.Receiver):
                kept.abort()
            elif isinstance(kept, netchan.Peer | sync.Peer):
                kept._core.leave_by_exception()
        for cancel in list(self.running.values()):
            cancel()
        self._objects.clear()
        self._number.clear()
        self._given.clear()
        found = self._complaints + ([] if self._losing else self._warned)
        self._complaints, self._warned, self._losing = [], [], False
        return found

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _keep(self, thing: Any) -> tuple[int, str]:
        number = self._number.get(id(thing))
        if number is None:
            number = self._number[id(thing)] = next(self._numbers)
            self._objects[number] = thing
        self._given[number] += 1
        return number, type(thing).__name__

    def _let_go(self, number: int, count: int) -> None:
        with self._lock:
            self._given[number] -= count
            if self._given[number] <= 0:
                del self._given[number]
                thing = self._objects.pop(number, None)
                self._number.pop(id(thing), None)

    # --- what went wrong ---------------------------------------------------------------------------------------------

    def complain(self, text: str) -> None:
        """Note something that fails the case."""
        self._complaints.append(text)

    def _note_warning(self, message: Warning | str, category: type[Warning], *_place: Any, **_text: Any) -> None:
        self._warned.append(f"{category.__name__}: {message}")

    # --- calls that wait ---------------------------------------------------------------------------------------------

    async def perform(self, number: int, call: Callable[[], Any]) -> None:
        """Await a call and answer for it; a cancelled one (each library has its own exception) goes on being so."""
        try:
            value = await call()
        except Exception as error:
            self.answer(number, False, error)
        except BaseException:
            self.answer(number, False, None)
            raise
        else:
            self.answer(number, True, value)
        finally:
            self.running.pop(number, None)

    def perform_blocking(self, number: int, call: Callable[[], Any]) -> None:
        """Make a call on this thread and answer for it."""
        try:
            value = call()
        except Exception as error:
            self.answer(number, False, error)
        else:
            self.answer(number, True, value)


async def on_asyncio(agent: Agent) -> None:
    """Obey in a loop of asyncio or uvloop."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: agent.complain(f"the loop's handler got {context!r}"))
    over = asyncio.Event()

    def readable() -> None:
        data = os.read(0, CHUNK)
        if data:
            agent.feed(data)
        else:
            loop.remove_reader(0)
            over.set()

    def spawn(number: int, call: Callable[[], Any]) -> None:
        agent.running[number] = loop.create_task(agent.perform(number, call)).cancel

    agent.spawn = spawn
    loop.add_reader(0, readable)
    await over.wait()


async def on_trio(agent: Agent) -> None:
    """Obey in a trio run."""
    import trio

    async def scoped(number: int, scope: trio.CancelScope, call: Callable[[], Any]) -> None:
        with scope:
            await agent.perform(number, call)

    async with trio.open_nursery() as nursery:

        def spawn(number: int, call: Callable[[], Any]) -> None:
            scope = trio.CancelScope()
            agent.running[number] = scope.cancel
            nursery.start_soon(scoped, number, scope, call)

        agent.spawn = spawn
        while True:
            await trio.lowlevel.wait_readable(0)
            data = os.read(0, CHUNK)
            if not data:
                break
            agent.feed(data)
        nursery.cancel_scope.cancel()


def on_threads(agent: Agent) -> None:
    """Obey in this thread, and wait in one thread per call."""

    def spawn(number: int, call: Callable[[], Any]) -> None:
        threading.Thread(target=agent.perform_blocking, args=(number, call), daemon=True).start()

    agent.spawn = spawn
    while data := os.read(0, CHUNK):
        agent.feed(data)


def main(library: str) -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what else is printed must not get between the answers
    agent = Agent(BlockingVerbs() if library == "blocking" else AsyncVerbs(), out)
    agent.answer(0, True, netchan.__file__)
    try:
        if library == "blocking":
            on_threads(agent)
        elif library == "trio":
            import trio

            trio.run(on_trio, agent)
        else:
            import uvloop

            factory = uvloop.new_event_loop if library == "uvloop" else None
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(on_asyncio(agent))
    except BrokenPipeError:
        traceback.print_exc()  # the tests have gone


if __name__ == "__main__":
    main(sys.argv[1])
