"""Programs of several hosts in a network that exists in memory, in virtual time, from one seed.

Layer: testing; public. Asyncio programs that use netchan run unchanged: see docs/howto/simulate-a-network.md.

1. Every host does what it can do at this instant, by turns, until none can do anything.
2. What they have sent goes to the links, and what the links bring now goes to the hosts.
3. Nothing is left to do: the clock jumps to the next thing that is due.

One thread runs all of it, and all that is drawn comes from the seed, so a run can be had again, byte for byte.
Spec: docs/spec/simulation.md.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from netchan._engine.batch import allow_segments
from netchan.testing.clock import borrowed
from netchan.testing.faults import Faults
from netchan.testing.host import Host
from netchan.testing.kem import stand_in
from netchan.testing.network import Link, Network, Watcher
from netchan.testing.process import SimProcess
from netchan.testing.trace import Trace

START_NS: Final = 1_000_000_000_000
"""What monotonic clocks say at the beginning."""
WALL_S: Final = 1_800_000_000
"""What wall clocks say at the beginning: 2027-01-15."""
LIMIT: Final = 3_600.0
"""Virtual seconds after which ``run`` gives up."""
INSTANT_MAX: Final = 20_000
"""Rounds at one instant: more, and the programs wait for nothing but themselves."""


class SimulationError(Exception):
    """The simulation cannot go on: nothing will ever happen again, or time would not move."""


class Simulation:
    """A network and its hosts; a context manager, in whose block everything about it is done.

    Args:
        seed: everything that is drawn comes from it.
        wall: what wall clocks say at the beginning, in seconds since 1970.

    Attributes:
        seed: as given.
        trace: what went over the links; ``trace.digest()`` is the same for the same seed and programs.
    """

    def __init__(self, seed: int = 0, *, wall: float = WALL_S) -> None:
        self.seed, self.trace = seed, Trace()
        self._wall_ns = int(wall * 1e9)
        self._rng = Random(seed)  # noqa: S311 - no secret
        self._net = Network(self._another(), self.trace, START_NS)
        self._current: Host | None = None
        self._exit = ExitStack()
        self._entered = False

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self._net.since_ns / 1e9

    @property
    def rng(self) -> Random:
        """For faults that a test draws: the same numbers for the same seed."""
        return self._rng

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All of them, in the order in which they were made."""
        return tuple(self._net.hosts.values())

    @property
    def links(self) -> tuple[Link, ...]:
        """All links between hosts."""
        return tuple(self._net.links)

    def host(self, name: str) -> Host:
        """Another host.

        Raises:
            ValueError: there is one of this name. RuntimeError: outside the block of the simulation.
        """
        self._check()
        if name in self._net.hosts:
            raise ValueError(f"there is a host {name!r} already")
        made = self._net.hosts[name] = Host(self._net, name, self._wall_ns - START_NS)
        return made

    def link(self, a: Host, b: Host, faults: Faults | None = None, *, back: Faults | None = None) -> Link:
        """Join two hosts; each gets an address of its own for this link.

        Args:
            a: one host.
            b: the other.
            faults: how the link is; None: 10 ms each way, and nothing goes wrong.
            back: from ``b`` to ``a``, if that is otherwise.
        """
        self._check()
        number = len(self._net.links) + 1
        addresses = tuple(f"10.{number >> 8}.{number & 255}.{last}" for last in (1, 2))
        there = faults or Faults()
        names = f"{a.name}-{b.name}"
        same = sum(link.name.partition("#")[0] == names for link in self._net.links)
        made = Link(
            self._net,
            (a, b),
            (addresses[0], addresses[1]),
            (there, back or there),
            f"{names}#{same}" if same else names,
        )
        self._net.add_link(made)
        return made

    def watch(self, watcher: Watcher) -> None:
        """Show all that goes over links to a checker."""
        self._net.watchers.append(watcher)

    def at(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something so many virtual seconds from now: to change a link, most often."""
        self._check()
        self._net.post(self._net.now_ns + int(seconds * 1e9), call)

    def heal(self) -> None:
        """From here on nothing goes wrong on any link."""
        for link in self._net.links:
            link.heal()

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, *programs: asyncio.Task[Any], limit: float = LIMIT) -> list[Any]:
        """Let time pass until these programs are done; without any: all that were started.

        Args:
            programs: from ``Host.run``.
            limit: virtual seconds that this may take.

        Returns:
            What they returned.

        Raises:
            TimeoutError: the limit passed. SimulationError: nothing will ever happen again. And whatever a program of
            any host raised; the seed is in its notes.
        """
        self._check()
        waited = programs or tuple(task for host in self.hosts for task in host.programs)
        until = self._net.now_ns + int(limit * 1e9)
        try:
            while not all(task.done() for task in waited):
                self._instant()
                self._raise_failed()
                if all(task.done() for task in waited):
                    break
                if not self._move(until):
                    if self._net.now_ns >= until:
                        raise TimeoutError(f"the programs were not done within {limit:g} virtual seconds")
                    raise SimulationError("all programs wait, and nothing will ever happen again")
            return [task.result() for task in waited]
        except BaseException as error:
            error.add_note(f"simulation: seed {self.seed}, at {self.now:.6f} s")
            raise

    def run_for(self, seconds: float) -> None:
        """Let so many virtual seconds pass. Raises: as ``run``, but for TimeoutError."""
        self._check()
        until = self._net.now_ns + int(seconds * 1e9)
        try:
            while True:
                self._instant()
                self._raise_failed()
                if not self._move(until):
                    self._net.now_ns = until
                    break
        except BaseException as error:
            error.add_note(f"simulation: seed {self.seed}, at {self.now:.6f} s")
            raise

    # --- inside -------------------------------------------------------------------------------------------------------

    def _instant(self) -> None:
        """All that happens now."""
        net = self._net
        for _ in range(INSTANT_MAX):
            worked = net.advance()
            for host in self.hosts:
                self._current = host
                worked = host.step() or worked
                worked = net.collect() or worked
            self._leave()
            if not worked:
                return
        raise SimulationError("the programs never come to rest: one of them waits in a loop in which no time passes")

    def _move(self, until_ns: int) -> bool:
        """The clock jumps to what is due next; False: nothing is, up to then."""
        times = [self._net.next_ns(), *(host.next_ns() for host in self.hosts)]
        at = min((time for time in times if time is not None), default=None)
        if at is None:
            return False
        if at > until_ns:
            self._net.now_ns = until_ns
            return False
        self._net.now_ns = max(self._net.now_ns, at)
        return True

    def _raise_failed(self) -> None:
        for host in self.hosts:
            for task in host.programs:
                if task.done() and not task.cancelled():
                    error = task.exception()
                    if error is not None:
                        error.add_note(f"simulation: a program of host {host.name!r}")
                        raise error

    def _leave(self) -> None:
        """It is no host's turn."""
        self._current = None
        self._outside.enter()

    def _another(self) -> Random:
        return Random(self._rng.getrandbits(64))  # noqa: S311 - no secret

    def _check(self) -> None:
        if not self._entered:
            raise RuntimeError("a simulation is used in its with-block")

    def __enter__(self) -> Self:
        net = self._net
        self._exit.enter_context(
            borrowed(
                lambda: net.now_ns if self._current is None else self._current.now_ns,
                lambda: self._wall_ns + net.since_ns if self._current is None else self._current.wall_ns(),
                self._another(),
            )
        )
        self._exit.enter_context(stand_in())
        before = allow_segments(False)
        self._exit.callback(allow_segments, before)
        self._outside = SimProcess.real()
        self._exit.callback(self._leave)
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._exit:  # what was borrowed is given back whatever goes wrong here
            self._entered = False
            for host in self.hosts:
                self._current = host
                host.end()
            self._leave()
            self._net.close()
            self._net.hosts.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # what the programs left open when they were stopped
                gc.collect()
