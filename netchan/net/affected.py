"""Which paths of a session a change of links, addresses and routes concerns; pure, for net/changes.py.

Layer: net (L3). ``Picture`` is what is known of this machine's links and addresses; ``affected`` compares the paths
with it and with the ways that their packets take now. Its answer is a suspicion and not a verdict: a path that it names
is asked (PING), and is as good as before when it answers.
Spec: docs/spec/session.md §5.10; decision 0012.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from netchan.net.netlink import AddressChange, Change, LinkChange, Route, socket_address

LINKS_MAX: Final = 4_096
"""Links of one machine that are kept; one that is not known concerns no path."""
ADDRESSES_MAX: Final = 16_384
"""Addresses that are kept, and as many that are gone."""
LOOKUPS_MAX: Final = 1_024
"""Ways that the kernel is asked for after one change; paths beyond that are judged by links and addresses alone."""


class Effect(NamedTuple):
    """What a change may mean: a path may be worse (``went``), or one may be had where there was none (``came``)."""

    went: bool
    came: bool


NOTHING: Final = Effect(False, False)


class Picture:
    """Links and addresses of this machine, as far as the kernel has told."""

    __slots__ = ("addresses", "links", "missing")

    def __init__(self) -> None:
        self.links: dict[int, bool] = {}
        self.addresses: dict[bytes, set[int]] = {}
        self.missing: dict[bytes, None] = {}

    def apply(self, change: Change) -> Effect:
        """Enter a change; what it may mean."""
        if isinstance(change, LinkChange):
            return self._link(change)
        if isinstance(change, AddressChange):
            return self._address(change)
        return Effect(went=True, came=not change.gone)  # a new route may lead elsewhere

    def _link(self, change: LinkChange) -> Effect:
        was = self.links.get(change.index, False)
        if change.gone:
            self.links.pop(change.index, None)
            for address in [each for each, on in self.addresses.items() if change.index in on]:
                self._address(AddressChange(change.index, address, True))
        elif change.index in self.links or len(self.links) < LINKS_MAX:
            self.links[change.index] = change.up
        return Effect(went=was and not change.up, came=change.up and not was)

    def _address(self, change: AddressChange) -> Effect:
        on = self.addresses.get(change.address)
        if change.gone:
            if on is None or change.index not in on:
                return NOTHING
            on.discard(change.index)
            if not on:
                del self.addresses[change.address]
                self.missing[change.address] = None
                while len(self.missing) > ADDRESSES_MAX:
                    del self.missing[next(iter(self.missing))]
            return Effect(went=True, came=False)
        if on is None:
            if len(self.addresses) >= ADDRESSES_MAX:
                return NOTHING
            on = self.addresses[change.address] = set()
        self.missing.pop(change.address, None)
        known = change.index in on
        on.add(change.index)
        return NOTHING if known else Effect(went=False, came=True)

    def after(self, before: Picture) -> None:
        """This one was made anew: addresses that ``before`` had and this one has not are missing."""
        for address in (*before.missing, *before.addresses):
            if address not in self.addresses and len(self.missing) < ADDRESSES_MAX:
                self.missing[address] = None

    def is_down(self, index: int) -> bool:
        """True if this link is known and cannot carry."""
        return not self.links.get(index, True)

    def has_gone(self, address: bytes) -> bool:
        """True if this machine had the address and has it no more, or only on links that cannot carry."""
        on = self.addresses.get(address)
        if on is None:
            return address in self.missing
        return all(self.is_down(index) for index in on)


@dataclass(frozen=True, slots=True)
class End:
    """A path: its id, its state (path_handle.STATES), and its socket's addresses as the kernel has them."""

    path: int
    state: str
    local: bytes
    remote: bytes


Ways = MutableMapping[int, int]
"""Path id -> the link on which its packets leave, when that was looked up last."""


class Lookup:
    """The ways of one moment: each is asked for once, and no more than ``LOOKUPS_MAX`` are."""

    def __init__(self, ask: Callable[[bytes, bytes], Route | None]) -> None:
        self._ask = ask
        self._found: dict[tuple[bytes, bytes], Route | None] = {}
        self._failed = False

    def way(self, local: bytes, remote: bytes) -> Route | bool | None:
        """The way, None where there is none; False: it is not known."""
        key = (local, remote)
        if key not in self._found:
            if self._failed or len(self._found) >= LOOKUPS_MAX:
                return False
            try:
                self._found[key] = self._ask(remote, local)
            except OSError:
                self._failed = True
                return False
        return self._found[key]


def learn(ends: Iterable[End], lookup: Lookup, ways: Ways) -> None:
    """Note the ways of paths that are new, to compare with; what is known of others stays."""
    for end in ends:
        local, remote = socket_address(end.local), socket_address(end.remote)
        if end.path not in ways and local and len(local) == len(remote):
            way = lookup.way(local, remote)
            if isinstance(way, Route):
                ways[end.path] = way.index


def affected(ends: Iterable[End], picture: Picture, lookup: Lookup, ways: Ways) -> set[int]:
    """Ids of the paths whose way is gone or is another one now; ``ways`` is brought up to date."""
    found: set[int] = set()
    living: set[int] = set()
    for end in ends:
        living.add(end.path)
        local, remote = socket_address(end.local), socket_address(end.remote)
        if not local or len(local) != len(remote):
            continue  # a Unix socket; or it has been shut down, which the engine hears of
        if picture.has_gone(local):
            found.add(end.path)
        way = lookup.way(local, remote)
        if way is False:
            continue
        if not isinstance(way, Route) or not way.usable or picture.is_down(way.index):
            found.add(end.path)
            continue
        if ways.setdefault(end.path, way.index) != way.index:
            found.add(end.path)
            ways[end.path] = way.index
    for path in [each for each in ways if each not in living]:
        del ways[path]
    return found
