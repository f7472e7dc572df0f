"""Bounds on connections that have not finished a handshake: half-open table, rate per address, held dead sockets.

Layer: net (L3), sans-IO; times and random draws are arguments. Knows no sockets: connections are keys of the caller.
Flow: HalfOpen.admit on accept -> heard when a HELLO passed the gate -> went_on at FINISH -> done at the end;
DeadSockets.hold for silence.
Ownership: one of each per node, used under the caller's lock. Spec: docs/spec/handshake.md §2.2, §9.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

MAX_HALF_OPEN_PER_ADDRESS = 64
MAX_HALF_OPEN = 1_024
LOAD_HALF_OPEN = 256
YIELD_NS = 1_000_000_000
LOAD_WAIT_NS = 50_000_000
RATE_PER_S = 20
RATE_BURST = 5
MAX_BUCKETS = 8_192
MAX_DEAD_SOCKETS = 256
DRAIN_MIN_NS, DRAIN_MAX_NS = 30_000_000_000, 90_000_000_000
_NS = 1_000_000_000


def address_group(host: str | None) -> str | None:
    """What counts as one source: an IPv4 address, an IPv6 /64; None (exempt) for loopback, Unix and in-process.

    Args:
        host: textual IP address, an IPv6 zone allowed; None for carriers without one. Other text counts as itself.
    """
    if host is None:
        return None
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:255]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not address.is_loopback:
            return f"{ipaddress.ip_network((int(address) >> 64 << 64, 64))}"
    return None if address.is_loopback else str(address)


class TokenBuckets:
    """20 tokens a second, burst 5, for each group; a token is given back when its handshake ended well."""

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: int = RATE_BURST, limit: int = MAX_BUCKETS) -> None:
        self._step_ns, self._burst, self._limit = max(1, int(_NS / rate_per_s)), burst, limit
        # group -> time at which the bucket is (or will be) full: one number says all (a GCRA)
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def has_token(self, group: str, now_ns: int) -> bool:
        """True if a handshake of this group may start now."""
        return self._full_at.get(group, now_ns) - now_ns <= (self._burst - 1) * self._step_ns

    def take(self, group: str, now_ns: int) -> None:
        """Count a handshake; may go below zero by one burst, no further."""
        full_at = max(self._full_at.get(group, now_ns), now_ns) + self._step_ns
        self._full_at[group] = min(full_at, now_ns + 2 * self._burst * self._step_ns)
        self._full_at.move_to_end(group)
        if len(self._full_at) > self._limit:
            self._full_at.popitem(last=False)

    def give_back(self, group: str) -> None:
        """The handshake ended well: it does not count."""
        if group in self._full_at:
            self._full_at[group] -= self._step_ns


@dataclass(frozen=True)
class Admission:
    """Whether a new connection may stay, and which older ones the caller must drop for it."""

    admitted: bool
    drop: tuple[Hashable, ...] = ()
    reason: str = ""


class _Line:
    """Connections that have kept us waiting, oldest first, with the time since when."""

    __slots__ = ("_all", "_of")

    def __init__(self) -> None:
        # one table in all and one per group, so a victim is found without a search
        self._all: OrderedDict[Hashable, int] = OrderedDict()
        self._of: dict[str, OrderedDict[Hashable, int]] = {}

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._all)

    def add(self, key: Hashable, group: str | None, now_ns: int) -> None:
        self._all[key] = now_ns
        if group is not None:
            self._of.setdefault(group, OrderedDict())[key] = now_ns

    def discard(self, key: Hashable, group: str | None) -> bool:
        if self._all.pop(key, None) is None:
            return False
        if group is not None:
            mine = self._of[group]
            del mine[key]
            if not mine:
                del self._of[group]
        return True

    def oldest(self, group: str | None, before_ns: int | None = None) -> tuple[Hashable] | None:
        """The one that waits longest, of this group or (None) of all; only if it has since ``before_ns`` or longer."""
        line = self._all if group is None else self._of.get(group)
        if not line:
            return None
        key, since = next(iter(line.items()))
        return (key,) if before_ns is None or since <= before_ns else None


class HalfOpen:
    """Connections whose handshake has not ended, with the limits of §9.

    Who keeps us waiting gives up its place for a newcomer when the table is full: first who has said nothing for a
    second since it was accepted, then who has said nothing for a second since our REPLY, then the oldest that has not
    proved the gate. Who has sent its FINISH is never dropped.
    """

    def __init__(
        self,
        per_address: int = MAX_HALF_OPEN_PER_ADDRESS,
        total: int = MAX_HALF_OPEN,
        load: int = LOAD_HALF_OPEN,
        rate_per_s: float = RATE_PER_S,
        burst: int = RATE_BURST,
    ) -> None:
        self._per_address, self._total, self._load = per_address, total, load
        self._groups: dict[Hashable, str | None] = {}
        self._silent, self._heard = _Line(), _Line()
        self._count_of: dict[str, int] = {}
        self._buckets = TokenBuckets(rate_per_s, burst)

    def __len__(self) -> int:
        return len(self._groups)

    def under_load(self, queue_wait_ns: int = 0) -> bool:
        """True when rates are enforced and cookies asked for."""
        return len(self._groups) > self._load or queue_wait_ns > LOAD_WAIT_NS

    def admit(self, key: Hashable, host: str | None, now_ns: int, queue_wait_ns: int = 0) -> Admission:
        """Enter a new connection.

        Args:
            key: names the connection, unique among half-open ones.
            host: textual address, None for Unix and in-process.
            now_ns: monotonic nanoseconds.
            queue_wait_ns: how long the oldest connection waits for the acceptor.

        Returns:
            Not admitted: close it in silence. `drop`: older ones to close first; they are out of the table.

        Raises:
            ValueError: the key is in the table already.
        """
        if key in self._groups:
            raise ValueError("connection is in the table already")
        group = address_group(host)
        if group is not None and self.under_load(queue_wait_ns) and not self._buckets.has_token(group, now_ns):
            return Admission(False, (), "rate per address")
        drop: list[Hashable] = []
        if group is not None and self._count_of.get(group, 0) >= self._per_address:
            mine = self._victim(group, now_ns)
            if mine is None:
                return Admission(False, (), "half-open per address")
            drop.append(self._remove(mine[0]))
        if len(self._groups) >= self._total:
            any_of_all = self._victim(None, now_ns)
            if any_of_all is None:
                return Admission(False, tuple(drop), "half-open in all")
            drop.append(self._remove(any_of_all[0]))
        self._groups[key] = group
        self._silent.add(key, group, now_ns)
        if group is not None:
            self._count_of[group] = self._count_of.get(group, 0) + 1
            self._buckets.take(group, now_ns)
        return Admission(True, tuple(drop))

    def heard(self, key: Hashable, now_ns: int) -> None:
        """The connection passed the gate and gets its REPLY now. Unknown keys are ignored."""
        if key in self._groups:
            group = self._groups[key]
            if self._silent.discard(key, group):
                self._heard.add(key, group, now_ns)

    def went_on(self, key: Hashable) -> None:
        """Its FINISH came: it is not dropped for newer ones any more. Unknown keys are ignored."""
        self._heard.discard(key, self._groups.get(key))

    def done(self, key: Hashable, established: bool) -> None:
        """The handshake ended; one that was established gives its token back. Unknown keys are ignored."""
        group = self._groups.get(key)
        if key in self._groups:
            self._remove(key)
            if established and group is not None:
                self._buckets.give_back(group)

    def _victim(self, group: str | None, now_ns: int) -> tuple[Hashable] | None:
        late = now_ns - YIELD_NS
        return self._silent.oldest(group, late) or self._heard.oldest(group, late) or self._silent.oldest(group)

    def _remove(self, key: Hashable) -> Hashable:
        group = self._groups.pop(key)
        self._silent.discard(key, group)
        self._heard.discard(key, group)
        if group is not None:
            self._count_of[group] -= 1
            if not self._count_of[group]:
                del self._count_of[group]
        return key


def drain_deadline(accepted_ns: int, rng: Callable[[int], bytes]) -> int:
    """When to close a connection that gets no answer: a random time 30–90 s after it was accepted (monotonic ns)."""
    return accepted_ns + DRAIN_MIN_NS + int.from_bytes(rng(8), "big") % (DRAIN_MAX_NS - DRAIN_MIN_NS + 1)


class DeadSockets:
    """Connections that are only drained until their time is over; at most 256, the oldest is closed for a new one."""

    def __init__(self, limit: int = MAX_DEAD_SOCKETS) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, key: Hashable, deadline_ns: int) -> Hashable | None:
        """Keep a connection until `deadline_ns`; returns the one to close for it, or None."""
        self._held[key] = deadline_ns
        return self._held.popitem(last=False)[0] if len(self._held) > self._limit else None

    def forget(self, key: Hashable) -> None:
        """The other side closed it."""
        self._held.pop(key, None)

    def next_deadline(self) -> int | None:
        """The earliest deadline, or None."""
        return min(self._held.values(), default=None)

    def expired(self, now_ns: int) -> list[Hashable]:
        """Take out those whose time is over; the caller closes them."""
        keys = [key for key, deadline in self._held.items() if deadline <= now_ns]
        for key in keys:
            del self._held[key]
        return keys
