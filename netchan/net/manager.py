"""Engines and what a session is started with: one engine per running loop, one for blocking callers, those with threads
of their own, and their end.

Layer: net (L3). Knows asyncio (with wait.py, bells.py and worker.py the only modules that do, or that know threads)
because an engine of a loop lives as long as that loop.

1. ``loop_home()`` / ``caller_home()`` say where the sessions of a dial or listen live; ``attach`` starts one there from
   a finished handshake.
2. A loop that ends takes its engine's driver away (``set_loop(None, None)``); the sessions go on under the guardian.
3. Engines with threads (``Config.io_threads``) are shared by all who ask for some, and last as long as the process.
4. At the exit of the process every ``Leaver`` says what is lost; the engine then ends all sessions, without waiting.

Spec: docs/spec/session.md §7; docs/spec/handshake.md §3.5, §4.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from netchan.config import Config
from netchan.errors import ConfigError, ForkError
from netchan.net.aside import be_ready, collect_from, collect_paths
from netchan.net.bells import keep
from netchan.net.datagrams import MTU_SAFE
from netchan.net.giving import Giver, wants
from netchan.net.handshake import Established, HandshakeConfig
from netchan.net.params import AES_256_GCM, CHACHA20_POLY1305, Offer, TransportParams
from netchan.net.ratchet import RATCHET_SECONDS, Ratchet
from netchan.net.secret import wipe
from netchan.net.stack import stack
from netchan.net.wait import trio_front, trio_runs
from netchan.net.worker import forks, instance, serve_first, stop_worker, worker

if TYPE_CHECKING:
    from netchan._engine.engine_handle import Engine
    from netchan._engine.session_handle import Session

CLOSE_CLEAN, CLOSE_EXCEPTION = 0, 1
"""Codes of SESSION_CLOSE that this side says."""
CARRIER_NUMBERS: Final = {"tcp": 1, "unix": 2, "udp": 3}
"""Carriers as the engine numbers them."""
TEND_NS: Final = 60_000_000_000
"""Living sessions are looked after this often."""
OFFERS_KEPT: Final = 16
"""Settings whose offer is remembered; most processes have one."""
MAX_INITIAL_BYTES: Final = 2**30
"""Largest ``initial_bytes`` that the wire carries."""

log: Final = logging.getLogger("netchan.session")
AskTrust = Callable[[Awaitable[object], float, Callable[[bool], None]], None]


class Leaver(Protocol):
    """A session that is told when the process exits."""

    def exit_process(self) -> None:
        """The engine is about to end it without waiting: say what is lost."""


# --- engines ---------------------------------------------------------------------------------------------------------


class Engines:
    """The engines of this process. ``lock`` guards the tables only."""

    __slots__ = (
        "caller",
        "driven",
        "exits",
        "graves",
        "keepers",
        "leavers",
        "lock",
        "loops",
        "ratchets",
        "tended",
        "tending",
        "threads",
    )

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.exits = False
        self.caller: Engine | None = None
        self.threads: list[Engine] = []
        self.driven: tuple[weakref.ref[Engine], ...] = ()
        self.loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Engine] = weakref.WeakKeyDictionary()
        self.keepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, object] = weakref.WeakKeyDictionary()
        self.leavers: weakref.WeakSet[Leaver] = weakref.WeakSet()
        self.graves: list[object] = []
        self.ratchets: weakref.WeakKeyDictionary[Session, Ratchet] = weakref.WeakKeyDictionary()
        self.tended: set[_Tended] = set()
        self.tending = False


_engines: Engines = Engines()


def become(engines: Engines) -> Engines:
    """Be the process that has these engines from here on, as worker.become; returns those of the one before."""
    global _engines
    before, _engines = _engines, engines
    return before


def engine_of(loop: asyncio.AbstractEventLoop) -> Engine | None:
    """The engine that this loop drives, if it has one."""
    return _engines.loops.get(loop)


def new_engine(kind: str) -> Engine:
    """A fresh engine; kind is "caller", "loop" or "threads"."""
    from netchan._engine.engine_handle import Engine

    if not _engines.exits:
        # behind the import, whose own handler is to run after ours
        _engines.exits = True
        atexit.register(_at_exit)
    return Engine(kind, stack().clock_ns())


def caller_engine() -> Engine:
    """The engine that blocking callers drive; one per process, made on first use."""
    with _engines.lock:
        if _engines.caller is None:
            _engines.caller = new_engine("caller")
            _note_driven(_engines.caller)
        return _engines.caller


@dataclass(frozen=True, slots=True)
class Home:
    """Where the sessions of one dial or listen live.

    Attributes:
        engine: whoever waits for the dial or for peers waits there.
        engines: one of these gets the session, for life.
    """

    engine: Engine
    engines: tuple[Engine, ...]

    def choose(self) -> Engine:
        """The engine with the fewest sessions. On the worker's thread, so that no two choose at the same time."""
        return min(self.engines, key=attrgetter("sessions"))


async def loop_home(config: Config) -> Home:
    """For a dial or listen of the running loop."""
    if config.io_threads:
        return _threads_home(config.io_threads)
    return _home_in(await loop_engine())


def caller_home(config: Config) -> Home:
    """For a dial or listen of the blocking front."""
    if config.io_threads:
        return _threads_home(config.io_threads)
    return _home_in(caller_engine())


def _home_in(engine: Engine) -> Home:
    # before there is a session: where descriptors are used up it is who dials or listens that hears of it
    collect_paths(engine)
    return Home(engine, (engine,))


def _threads_home(n: int) -> Home:
    with _engines.lock:
        while len(_engines.threads) < n:
            be_ready()  # first: an engine that is there is one that is listened to
            engine = new_engine("threads")
            _engines.threads.append(engine)
            _note_driven(engine)
            collect_from(engine)
            collect_paths(engine)
        engines = tuple(_engines.threads[:n])
    return Home(engines[0], engines)


def _serve_first(limit: float) -> float:
    left = limit
    for reference in _engines.driven:
        engine = reference()
        if engine is not None and left > 0 and engine.sessions:  # without a session it has nobody to serve
            left -= engine.give_way(left)
    return limit - left


def _note_driven(engine: Engine) -> None:
    # replaced whole, so that it can be read without the lock
    _engines.driven = (*(ref for ref in _engines.driven if ref() is not None), weakref.ref(engine))


async def loop_engine() -> Engine:
    """The engine of the running loop; made on first use and watched by the loop until the loop ends."""
    if trio_runs():
        return trio_front().run_engine(_new_run_engine)  # type: ignore[no-any-return]
    loop = asyncio.get_running_loop()
    with _engines.lock:
        engine = _engines.loops.get(loop)
    if engine is not None:
        # the same loop may run on another thread this time
        engine.set_loop(threading.get_ident(), loop.call_soon)
        return engine
    engine = new_engine("loop")
    engine.set_loop(threading.get_ident(), loop.call_soon)
    loop.add_reader(engine.fd, engine.pump)
    keeper = keep(_ended(weakref.ref(loop), engine))
    with _engines.lock:
        _engines.loops[loop] = engine
        _note_driven(engine)
        _engines.keepers[loop] = keeper
    weakref.finalize(loop, engine.set_loop, None, None)
    return engine


def _new_run_engine() -> Engine:
    engine = new_engine("loop")
    with _engines.lock:
        _note_driven(engine)
    return engine


def _ended(reference: weakref.ref[asyncio.AbstractEventLoop], engine: Engine) -> Callable[[], None]:
    def ended() -> None:
        ending = reference()
        if ending is not None:
            with _engines.lock:
                _engines.loops.pop(ending, None)
                _engines.keepers.pop(ending, None)
            if not ending.is_closed():
                ending.remove_reader(engine.fd)
        engine.set_loop(None, None)

    return ended


def ask_in_loop() -> AskTrust:
    """How a listener or dial of the running loop awaits an async trust callable: in that loop."""
    if trio_runs():
        return trio_front().ask_in_run(worker().post)  # type: ignore[no-any-return]
    loop = asyncio.get_running_loop()

    async def awaited(pending: Awaitable[object], timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                return (await pending) is True
        except Exception:  # the spec says: raising refuses, whatever is raised
            return False

    def ask(pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
        call = awaited(pending, timeout_s)
        try:
            future = asyncio.run_coroutine_threadsafe(call, loop)
        except RuntimeError:  # the loop is closed
            call.close()
            _discard(pending)
            answer(False)
            return

        def done(_: object) -> None:
            allowed = not future.cancelled() and future.exception() is None and future.result()
            worker().post(lambda: answer(allowed))

        future.add_done_callback(done)

    return ask


def refuse_awaitables(pending: Awaitable[object], timeout_s: float, answer: Callable[[bool], None]) -> None:
    """For the blocking front, which has no loop: an async trust callable refuses."""
    log.warning("trust callable of a blocking listen or dial is async: refused; give a plain function")
    _discard(pending)
    answer(False)


def _discard(pending: Awaitable[object]) -> None:
    if isinstance(pending, Coroutine):
        pending.close()


# --- a session from a handshake --------------------------------------------------------------------------------------


def offer_for(config: Config, *, tickets: bool = True) -> Offer:
    """What this node says about itself in a handshake, from its settings and the ciphers that it has.

    Without ``tickets`` none are wanted, whatever the settings say.
    """
    return _offer(config, instance(), record_ciphers(), tickets and config.tickets > 0)


@lru_cache(OFFERS_KEPT)
def _offer(config: Config, process: bytes, ciphers: tuple[int, ...], tickets: bool) -> Offer:
    limits = config.limits
    params = TransportParams(
        initial_msgs=limits.unopened_values,
        initial_bytes=min(limits.unopened_bytes, MAX_INITIAL_BYTES),
        max_streams=limits.unopened_channels,
        max_message=config.max_message,
        lease_s=ceil(config.lease),
        max_paths=limits.paths,
        parity=1,
        trunk=1,
        datagrams=int(config.datagrams),
        tickets=int(tickets),
        instance=process,
    )
    return Offer(
        params=params,
        ciphers=ciphers,
        caps=frozenset(config.capabilities),
        required=frozenset(config.required_capabilities),
    )


def record_ciphers() -> tuple[int, ...]:
    """Record ciphers that the crypto library of this process has, best first."""
    from netchan._core import provider

    known = {"aes-256-gcm": AES_256_GCM, "chacha20-poly1305": CHACHA20_POLY1305}
    return tuple(known[name] for name in provider.load().ciphers)


def _numbers(params: TransportParams) -> dict[str, int]:
    return {
        "max_record": params.max_record,
        "ack_delay": params.ack_delay_us,
        "ack_interval": params.ack_interval,
        "initial_msgs": params.initial_msgs,
        "initial_bytes": params.initial_bytes,
        "max_streams": params.max_streams,
        "max_message": params.max_message,
    }


def attach(
    engine: Engine,
    fd: int,
    carrier: str,
    event: Established,
    config: Config,
    *,
    mtu: int = MTU_SAFE,
    answer: bytes = b"",
    token: bytes = b"",
    gives: HandshakeConfig | None = None,
) -> Session:
    """Start the session of a finished handshake; takes the descriptor over and wipes the root, also on failure.

    Datagram paths: ``mtu`` bytes at most; ``answer``, our last word, that the peer may have to hear again; ``token``,
    by which it is to know a reset.
    ``gives``: of the listener, whose tickets the peer gets if both sides know them.
    """
    from netchan._engine import session_handle

    try:
        session = session_handle.attach(
            engine,
            fd,
            carrier=CARRIER_NUMBERS[carrier],
            initiator=event.initiator,
            root=event.root,
            binding=event.binding,
            cipher=event.agreement.cipher,
            mine=_numbers(event.local.params),
            peer=_numbers(event.remote.params),
            early=event.leftover,
            max_channels=config.max_channels,
            session_bytes=config.session_bytes,
            node_bytes=config.node_bytes,
            heartbeat=config.heartbeat,
            trunk=event.agreement.trunk,
            lease=event.agreement.lease_s,
            max_paths=event.agreement.max_paths,
            datagrams=event.agreement.datagrams,
            parity=event.agreement.parity,
            mtu=mtu,
            answer=answer,
            token=token,
            proved=event.initiator or not event.by_ticket,
        )
    finally:
        wipe(event.root)
    ratchet = Ratchet(session, initiator=event.initiator, rng=os.urandom)
    giver = None
    if gives is not None and wants(gives, event):
        giver = Giver(gives, event)
        giver.give(session)
    _tend(_Tended(session, ratchet if event.initiator else None, giver))
    if event.initiator:
        _engines.ratchets[session] = ratchet  # the other side only answers
    return session


def ratchet_number(session: Session) -> int:
    """Of the last ratchet that was begun here."""
    return int(getattr(getattr(session.on_ratchet, "__self__", None), "number", 0))


def tend(session: Session, ratchet_number: int) -> None:
    """Look after a session from another process, as ``attach`` does after one from a handshake."""
    ratchet = Ratchet(session, initiator=session.initiator, rng=os.urandom)
    ratchet.number = ratchet_number
    _tend(_Tended(session, ratchet if session.initiator else None, None))
    if session.initiator:
        _engines.ratchets[session] = ratchet
    ratchet.receive()  # what came before somebody looked


def turn_ratchet(session: Session) -> None:
    """Start a ratchet now; of a session that was dialled here."""
    ratchet = _engines.ratchets.get(session)
    if ratchet is not None:
        ratchet.start()


class _Tended:
    """A living session that is looked after once a minute. Forgotten when the session is collected."""

    __slots__ = ("giver", "ratchet", "session", "turned_at")

    def __init__(self, session: Session, ratchet: Ratchet | None, giver: Giver | None) -> None:
        self.session = weakref.ref(session, self._collected)
        self.ratchet, self.giver = ratchet, giver
        self.turned_at = time.monotonic()

    def _collected(self, _: object) -> None:
        # a finaliser: the set is replaced by nobody, and discarding is one step under the interpreter's lock
        _engines.tended.discard(self)

    def look(self) -> bool:
        """A ratchet or ticket when its time has come, the warning about much-used keys; False: the session is over."""
        session = self.session()
        if session is None or session.over:
            return False
        warning = session.take_usage_warning()
        if warning is not None:
            log.warning(
                "a session has sealed %d records, %d of them with one key (tag %d, epoch %d): "
                "see docs/explanation/security-model.md",
                *warning,
            )
        now = time.monotonic()
        if self.ratchet is not None and now - self.turned_at >= RATCHET_SECONDS:
            self.ratchet.start()
            self.turned_at = now
        if self.giver is not None:
            self.giver.renew(session)
        return True


def _tend(tended: _Tended) -> None:
    """Look after this session from now on; one timer serves all of them."""
    _engines.tended.add(tended)
    if not _engines.tending:
        worker().post(_tend_later)


def _tend_later() -> None:
    if not _engines.tending:
        _engines.tending = True
        worker().at(time.monotonic_ns() + TEND_NS, _tend_all)


def _tend_all() -> None:
    _engines.tending = False
    for tended in list(_engines.tended):
        if not tended.look():
            _engines.tended.discard(tended)
    if _engines.tended:
        _tend_later()


# --- exit and fork ---------------------------------------------------------------------------------------------------


def remember_leaver(leaver: Leaver) -> None:
    """Tell this session when the process exits, if it is still there."""
    with _engines.lock:
        _engines.leavers.add(leaver)


def check_fork(made: int) -> None:
    """Raise ForkError if what was made after ``made`` forks is used in a child of that process."""
    if made != forks():
        raise ForkError("this object belongs to the parent process; dial or listen again in the child")


def check_blocking_trust(trust: Any) -> None:
    """ConfigError for an async trust callable where there is no loop to await it in."""
    import inspect

    if inspect.iscoroutinefunction(trust):
        raise ConfigError("trust= is an async function, and a blocking call has no loop for it; give a plain function")


def _at_exit() -> None:
    """Runs before the engine's own exit, which says PROCESS_EXIT on every session that is left."""
    with _engines.lock:
        leavers = list(_engines.leavers)
    for leaver in leavers:
        leaver.exit_process()
    stop_worker()


def _after_fork() -> None:
    _engines.graves += [_engines.caller, *_engines.loops.values(), *_engines.leavers, *_engines.keepers.values()]
    _engines.graves += [_engines.tended, _engines.threads, _engines.ratchets]
    _engines.lock = threading.Lock()
    _engines.caller = None
    _engines.threads = []
    _engines.driven = ()
    _engines.loops = weakref.WeakKeyDictionary()
    _engines.keepers = weakref.WeakKeyDictionary()
    _engines.leavers = weakref.WeakSet()
    _engines.ratchets = weakref.WeakKeyDictionary()
    _engines.tended, _engines.tending = set(), False


serve_first(_serve_first)
os.register_at_fork(after_in_child=_after_fork)
