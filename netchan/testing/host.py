"""One host of a simulated network: an event loop, a worker and engines of its own, as if it were a process.

Layer: testing. ``step`` lets the host do what it can do now; between two hosts' steps the simulation says whose turn it
is (``enter``). Programs are ordinary asyncio programs on ``loop``.

Spec: docs/spec/simulation.md §2.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import math
import selectors
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from netchan.net import manager, stack, worker
from netchan.testing.faults import Faults
from netchan.testing.network import Link, Network, Place
from netchan.testing.process import SimProcess
from netchan.testing.sockets import SimSocket

if TYPE_CHECKING:
    from netchan._engine.engine_handle import Engine

T = TypeVar("T")

TURNS_MAX: Final = 200
"""Turns of a loop that never sleeps before the other hosts have theirs and the clock moves on."""
END_TURNS: Final = 50
"""Turns that a program has to end once it is cancelled."""
TURN_NS: Final = 10_000
"""By which it moves on then."""
LOCAL: Final = Faults(delay=0.000_02, mtu=65_535)
"""Of connections within a host."""
ANY: Final = "0.0.0.0"  # noqa: S104 - nothing is bound outside the simulation


class _Selector(selectors.EpollSelector):
    """Never waits: a loop that has nothing to do gives its turn back."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self.turns = 0
        self.wake_ns: int | None = None

    def select(self, timeout: float | None = None) -> Any:
        """As selectors.BaseSelector, but it returns at once."""
        ready = super().select(0)
        self.turns += 1
        if (ready or (timeout is not None and timeout <= 0)) and self.turns < TURNS_MAX:
            return ready
        host = self._host
        now = host.now_ns
        if ready or (timeout is not None and timeout <= 0):
            self.wake_ns = now + TURN_NS
        else:
            self.wake_ns = None if timeout is None else now + math.ceil(timeout * 1e9)
        host.loop.stop()
        return ready


class SimLoop(asyncio.SelectorEventLoop):
    """The event loop of a host."""

    def __init__(self, host: Host) -> None:
        self.waits = _Selector(host)
        self._host = host
        super().__init__(self.waits)

    def time(self) -> float:
        """Virtual seconds."""
        return self._host.now_ns / 1e9

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Runs it here and now: threads would not run in the same order twice."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class SimWorker(worker.Worker):
    """The handshake worker of a host, without a thread."""

    def __init__(self, host: Host) -> None:
        super().__init__(threaded=False)
        self._host = host
        self._special: set[int] = set()  # watched, but not by their descriptors
        self._signals: list[int] = []
        self._found: list[tuple[int, int]] = []

    def watch(self, fd: int, mask: int, job: worker.Job) -> None:
        """As Worker."""
        sock = self._host.specials.get(fd)
        if fd in self._special or (mask and sock is not None and sock.special):
            if mask:
                self._special.add(fd)
                self._watched[fd] = (mask, job)
            else:
                self._special.discard(fd)
                self._watched.pop(fd, None)
            return
        super().watch(fd, mask, job)

    def signal(self, fd: int) -> None:
        """What this descriptor's job waits for has happened."""
        self._signals.append(fd)

    def run(self) -> bool:
        """Do all that there is to do now; False: nothing was."""
        worked = False
        while True:
            self._found = self._look()
            if not self._found and self._patience() != 0.0:
                return worked
            self.turn(0.0)
            worked = True

    def next_ns(self) -> int | None:
        """When the next timer is due, by the host's clock; None: none."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _look(self) -> list[tuple[int, int]]:
        signals, self._signals = self._signals, []
        found = [(fd, worker.WRITE) for fd in signals if fd in self._special]
        for fd in sorted(self._special - set(signals)):
            sock = self._host.specials.get(fd)
            if sock is not None and (bits := sock.readiness() & self._watched[fd][0]):
                found.append((fd, bits))
        return found + self._epoll.poll(0)

    def _poll(self, patience: float | None) -> list[tuple[int, int]]:
        found, self._found = self._found, []
        return found


class Host(stack.Stack):
    """One host; made by ``Simulation.host``.

    Attributes:
        name: under which the others find it.
        links: to other hosts.
        loopback: what its connections with itself go over; its settings may be changed like those of any link.
        local: the same for Unix sockets.
        loop: the event loop of its programs.
    """

    has_netlink = False

    def __init__(self, net: Network, name: str, wall_ns: int) -> None:
        self.net, self.name = net, name
        self.links: list[Link] = []
        self.loopback = Link(net, (self, self), ("127.0.0.1", "127.0.0.1"), (LOCAL, LOCAL), f"{name}-loopback")
        self.local = Link(net, (self, self), ("", ""), (LOCAL, LOCAL), f"{name}-local")
        self.listeners: dict[Place, SimSocket] = {}
        self.doors: dict[Place, SimSocket] = {}
        self.pairs: dict[tuple[Place, Place], tuple[SimSocket, socket.socket]] = {}
        self.specials: dict[int, SimSocket] = {}
        self.programs: list[asyncio.Task[Any]] = []
        self.now_ns = net.now_ns  # of its monotonic clock, in its turn
        self._true_ns = self._mine_ns = net.now_ns  # where both clocks met
        self._wall_ns = wall_ns  # of the host's clock 0
        self._rate = 1.0
        self._process = SimProcess(self)
        self.loop = SimLoop(self)
        self.worker = SimWorker(self)
        self._process.process.worker = self.worker

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    # --- for the user -------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, one for each link, in the order in which they were made."""
        return tuple(link.address_of(self) for link in self.links)

    def run(self, program: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a program on this host; it runs while ``Simulation.run`` does.

        Args:
            program: a coroutine, or a function that gives one.

        Returns:
            The task: ``Simulation.run`` waits for it and raises what it raises.
        """
        call = program() if callable(program) else program
        task = self.loop.create_task(call)
        self.programs.append(task)
        return task

    def skew(self, *, rate: float | None = None, step: float = 0.0) -> None:
        """Let the host's clocks go wrong.

        Args:
            rate: how fast they run from now on, 0.5 to 2; 1 is right.
            step: seconds by which the wall clock is set forward, or back if negative.

        Raises:
            ValueError: a rate outside its range.
        """
        if rate is not None:
            if not 0.5 <= rate <= 2.0:
                raise ValueError(f"rate={rate!r} is no clock's; give 0.5 to 2")
            self._mine_ns, self._true_ns, self._rate = self.mine_ns(), self.net.now_ns, rate
        self._wall_ns += int(step * 1e9)

    # --- for the simulation -------------------------------------------------------------------------------------------

    def mine_ns(self) -> int:
        """What its monotonic clock says now."""
        return self._mine_ns + int((self.net.now_ns - self._true_ns) * self._rate)

    def wall_ns(self) -> int:
        """What its wall clock says."""
        return self._wall_ns + self.now_ns

    def enter(self) -> None:
        """It is this host's turn."""
        self.now_ns = max(self.now_ns, self.mine_ns())
        self._process.enter()
        engine = self.engine()
        if engine is not None:
            engine.set_now(self.now_ns)

    def step(self) -> bool:
        """Do all that can be done now; False: nothing could."""
        self.enter()
        worked = self.worker.run()
        engine = self.engine()
        if engine is not None:
            due = engine.deadline()
            if due is not None and due <= self.now_ns:
                engine.pump()
                worked = True
        waits = self.loop.waits
        before = waits.wake_ns
        waits.turns = 0
        self.loop.run_forever()
        if waits.turns >= TURNS_MAX:
            return worked  # it goes on later
        return worked or waits.turns > 1 or (before is None) != (waits.wake_ns is None)

    def next_ns(self) -> int | None:
        """When it has something to do of itself, in the network's time; None: never."""
        engine = self.engine()
        times = [self.loop.waits.wake_ns, self.worker.next_ns(), engine.deadline() if engine is not None else None]
        mine = min((at for at in times if at is not None), default=None)
        if mine is None:
            return None
        return self._true_ns + math.ceil((mine - self._mine_ns) / self._rate)

    def engine(self) -> Engine | None:
        """The one of its loop, once it has any."""
        return self._process.engines.loops.get(self.loop)

    def end(self) -> None:
        """Its programs are cancelled; everything is closed."""
        self.enter()
        self.loop.set_exception_handler(lambda *_: None)  # of tasks that do not want to end
        self._finish(self._cancel())
        engine = self.engine()
        self._finish(self.loop.shutdown_asyncgens())
        if engine is not None:
            engine.leave_all(manager.CLOSE_EXCEPTION)
            engine.pump()
        self.loop.close()
        self.worker.end()
        aside = self._process.process.things.get("aside")
        if aside is not None:
            aside.close_copy()

    def _finish(self, call: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(call)
        for _ in range(TURNS_MAX):
            if task.done():
                break
            self.loop.waits.turns = 0
            self.loop.run_forever()

    async def _cancel(self) -> None:
        rest = [task for task in asyncio.all_tasks(self.loop) if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        for _ in range(END_TURNS):
            if all(task.done() for task in rest):
                break
            await asyncio.sleep(0)

    # --- as Stack -----------------------------------------------------------------------------------------------------

    def clock_ns(self) -> int:
        """As Stack."""
        return self.now_ns

    def socket(self, family: int, kind: int) -> socket.socket:
        """A simulated one. OSError: IPv6, which is not simulated."""
        if family not in (socket.AF_INET, socket.AF_UNIX):
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by the simulation")
        made = SimSocket(self, family, kind)
        self.specials[made.number] = made
        return cast("socket.socket", made)

    def resolve(self, host: str, port: int, done: Callable[[stack.Found], None]) -> None:
        """Names of hosts; answered at once."""
        found: stack.Found = [(int(socket.AF_INET), (address, port)) for address in self.net.lookup(self, host)]
        self.worker.post(partial(done, found or OSError(f"no host {host!r} has a link with {self.name!r}")))

    # --- for the network ----------------------------------------------------------------------------------------------

    def check_address(self, address: str) -> None:
        """OSError unless a socket of this host may have it."""
        if address != ANY and not address.startswith("127.") and address not in self.addresses:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    def listener(self, place: Place) -> SimSocket | None:
        """Who takes connections to this place."""
        return self.listeners.get(place) or self.listeners.get((ANY, place[1]))

    def door(self, place: Place) -> SimSocket | None:
        """Who hears strangers' datagrams to this place."""
        return self.doors.get(place) or self.doors.get((ANY, place[1]))

    def accepted(self, there: Place, peer: Place, family: int) -> SimSocket:
        """The socket of a connection that has come in."""
        made = SimSocket(self, family, socket.SOCK_STREAM)
        made.local, made.peer = there, peer
        return made

    def take_datagram(self, source: Place, target: Place, data: bytes) -> None:
        """One has come."""
        pair = self.pairs.get((target, source))
        if pair is not None:
            try:
                pair[1].send(data, socket.MSG_NOSIGNAL)
            except OSError:
                pass  # the program does not read, or has closed: lost
            return
        door = self.door(target)
        if door is not None:
            door.put(data, source, target)

    def forget(self, sock: SimSocket) -> None:
        """It hears nothing more."""
        if self.specials.get(sock.number) is sock:
            del self.specials[sock.number]
        tables: tuple[dict[Any, Any], ...] = (self.listeners, self.doors)
        for table in tables:
            for key in [key for key, value in table.items() if value is sock]:
                del table[key]
        for pair in [pair for pair, value in self.pairs.items() if value[0] is sock]:
            del self.pairs[pair]
