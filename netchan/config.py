"""Settings of a node: frozen, every default with its unit and the reason for it.

Layer 0: imports the exceptions only. A ``Config`` is checked when it is made, so that a wrong figure is reported
where it was written and never from inside a session. Everything that can grow has its bound here or in ``Limits``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Final

from netchan.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB

IO_THREADS_MAX: Final = 64
"""Most threads for input and output: more than one for each processor only take turns."""
TICKETS_MAX: Final = 1 << 16
"""Most tickets that are kept in memory: 64 MiB."""
CAPABILITY_FIRST: Final = 0x8000
"""The first capability that is the application's, up to 0xFFFF; those below are netchan's own."""
CAPABILITIES_MAX: Final = 32
"""Most capabilities of an application: with as many of netchan's own they are the 64 of the wire."""
CAPACITY_MAX: Final = 1 << 30
"""Largest capacity; keeps positions plus credit far below the 62 bits of the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that a well-behaved program never meets; each names the cost or attack that it bounds."""

    unopened_channels: int = 256
    """Channels offered by the other side that wait for ``open`` here: bounds a stranger's memory (x 16 KiB)."""
    unopened_values: int = 64
    """Values accepted per channel before the other side has opened it; with the byte bound below."""
    unopened_bytes: int = 16 * KIB
    """Bytes accepted per channel before the other side has opened it."""
    half_open: int = 256
    """Handshakes in progress before the handshake rate limit is enforced: bounds memory under a flood."""
    half_open_per_address: int = 64
    """Handshakes in progress from one address; one that keeps us waiting is dropped for a newcomer."""
    handshake_rate: float = 20.0
    """Failed or unfinished handshakes per second from one /32 or /64 when under load: 2 % of a core at 1 ms each."""
    handshake_burst: int = 5
    """How many of those may come at once."""
    paths: int = 8
    """Paths per session: bounds what a peer can make us probe."""

    def __post_init__(self) -> None:
        for name in ("unopened_channels", "unopened_values", "half_open", "half_open_per_address", "handshake_burst"):
            _check_int(f"limits.{name}", getattr(self, name), 1, 1 << 20)
        _check_int("limits.unopened_bytes", self.unopened_bytes, 4 * KIB, 1 << 40)
        _check_int("limits.paths", self.paths, 1, 64)
        _check_seconds("limits.handshake_rate", self.handshake_rate, 0.001, 1e9, unit="per second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of a node, a listener or a dial. All times in seconds, all sizes in bytes.

    Raises:
        ConfigError: a figure is out of its range, or two contradict each other; the message names the field.
    """

    lease: float = 300.0
    """How long a session without a path is kept: a reboot of a router or a walk through a tunnel. The smaller wins."""
    dial_timeout: float = 10.0
    """Whole ``dial``, all addresses: three TCP SYN retries (1, 3, 7 s) of one lost path fit in."""
    handshake_timeout: float = 5.0
    """One handshake on one connection: four flights at a round trip of 1 s; bounds half-open state."""
    close_timeout: float = 5.0
    """``aclose`` and ``async with`` wait at most this long for what was accepted to arrive over there."""
    heartbeat: float = 5.0
    """Idle path is probed after this; doubled while quiet up to 60 s. Below the usual 30 s of NAT tables."""
    max_message: int = 64 * MIB
    """Longest single value, encoded: bounds the memory one value can ask for."""
    max_channels: int = 65_536
    """Channels open at a time in one session: at 1 KiB each 64 MiB."""
    backlog: int = 128
    """Peers that wait in a listener for ``recv``: like a socket's listen queue."""
    session_bytes: int = 8 * MIB
    """Received bytes of a session beyond its floors: one bandwidth-delay product at 1 Gbit/s and 64 ms."""
    node_bytes: int = 256 * MIB
    """The same for all sessions of the process together: 32 of them at full stretch."""
    await_spin: bool = True
    """``await recv()`` on an empty channel may poll for at most 20 µs before it parks; off saves CPU, costs latency."""
    io_threads: int = 0
    """Threads that move the sessions of this listener or dial, shared by the process; 0: the loop or the callers do."""
    datagrams: bool = False
    """Sessions may have UDP paths (both sides must say so); on by itself where an address of this call is udp://.
    Off by default: records that need their order have a number then, and are short, also over TCP."""
    tickets: int = 64
    """Tickets in memory for faster dials of nodes that were dialled before (with ``identity=``), 1 KiB each; the oldest
    goes first. A listener gives them. 0: neither asked for, nor given, nor taken."""
    watch_network: bool = True
    """Links, addresses and routes of this machine are watched (netlink) while sessions live: paths whose way is gone
    are replaced at once, lost ones made again as soon as there is a way. False: only what is heard on a path counts."""
    capabilities: Collection[int] = frozenset()
    """What the application can, told in each handshake: at most 32 numbers of its own choice, 0x8000 to 0xFFFF. What
    both sides have is `peer.capabilities`. Kept as a frozenset, with `required_capabilities`."""
    required_capabilities: Collection[int] = frozenset()
    """Of these what the other side must have too, or there is no session: `HandshakeError` for who dials."""
    limits: Limits = field(default_factory=Limits)
    """Bounds against floods and mistakes."""

    def __post_init__(self) -> None:
        _check_seconds("lease", self.lease, 0.0, 30 * 86_400.0)
        _check_seconds("dial_timeout", self.dial_timeout, 0.001, 3_600.0)
        _check_seconds("handshake_timeout", self.handshake_timeout, 0.001, 3_600.0)
        _check_seconds("close_timeout", self.close_timeout, 0.0, 3_600.0)
        _check_seconds("heartbeat", self.heartbeat, 0.01, 3_600.0)
        _check_int("max_message", self.max_message, 1 * KIB, 1 << 40)
        _check_int("max_channels", self.max_channels, 1, 1 << 24)
        _check_int("backlog", self.backlog, 1, 1 << 16)
        _check_int("session_bytes", self.session_bytes, 64 * KIB, 1 << 40)
        _check_int("node_bytes", self.node_bytes, 64 * KIB, 1 << 44)
        _check_int("io_threads", self.io_threads, 0, IO_THREADS_MAX)
        _check_int("tickets", self.tickets, 0, TICKETS_MAX)
        if self.await_spin is not True and self.await_spin is not False:
            raise ConfigError(f"await_spin={self.await_spin!r} is not a bool; write True or False")
        if self.datagrams is not True and self.datagrams is not False:
            raise ConfigError(f"datagrams={self.datagrams!r} is not a bool; write True or False")
        if self.watch_network is not True and self.watch_network is not False:
            raise ConfigError(f"watch_network={self.watch_network!r} is not a bool; write True or False")
        required = _capabilities("required_capabilities", self.required_capabilities)
        object.__setattr__(self, "required_capabilities", required)
        # who requires something can do it: to say it once is enough
        object.__setattr__(self, "capabilities", _capabilities("capabilities", self.capabilities, required))
        if not isinstance(self.limits, Limits):
            raise ConfigError(f"limits={self.limits!r} is not a Limits; write limits=Limits(...)")
        if self.node_bytes < self.session_bytes:
            raise ConfigError(
                f"node_bytes={self.node_bytes} is below session_bytes={self.session_bytes}: "
                "one session could never use its budget; raise the first or lower the second"
            )

    def __repr__(self) -> str:
        changed = [f.name for f in fields(self) if getattr(self, f.name) != getattr(_DEFAULT, f.name)]
        return f"Config({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"


def _check_seconds(name: str, value: Any, low: float, high: float, unit: str = "seconds") -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}={value!r} is not a number; give {unit} as int or float")
    if not isfinite(value) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} is out of range; give {low:g} to {high:g} {unit}")


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}={value!r} is not a whole number; give an int")
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} is out of range; give {low} to {high}")


def _capabilities(name: str, value: Any, more: frozenset[int] = frozenset()) -> frozenset[int]:
    """The numbers in ``value`` and ``more``. Stops at the first that is wrong or too much: a range may be huge."""
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Collection):
        raise ConfigError(f"{name}={value!r} is not a collection of numbers; give a set of ints")
    found = set(more)
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int):
            raise ConfigError(f"{name} has {number!r}, which is not a whole number; give ints")
        if 0 <= number < CAPABILITY_FIRST:
            raise ConfigError(
                f"{name} has {number:#06x}: the capabilities below {CAPABILITY_FIRST:#06x} are netchan's own; "
                f"give {CAPABILITY_FIRST:#06x} to 0xffff"
            )
        if not 0 <= number <= 0xFFFF:
            raise ConfigError(f"{name} has {number}, which is out of range; give {CAPABILITY_FIRST:#06x} to 0xffff")
        found.add(int(number))
        if len(found) > CAPABILITIES_MAX:
            raise ConfigError(
                f"{name} has too many numbers; give at most {CAPABILITIES_MAX}, the required ones among them"
            )
    return frozenset(found)


_DEFAULT: Final = Config()


def check_capacity(capacity: Any, *, none_ok: bool = False) -> int | None:
    """Return ``capacity`` if it is a usable one (0 … 2**30 values; None where the other side may decide).

    Raises:
        ConfigError: anything else.
    """
    if capacity is None and none_ok:
        return None
    _check_int("capacity", capacity, 0, CAPACITY_MAX)
    return int(capacity)
