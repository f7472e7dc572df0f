"""Which paths a change of the network concerns (session.md §5.10): pure, with a made-up kernel to ask for ways."""

from __future__ import annotations

import socket
import struct

import pytest

from netchan.net import affected as module
from netchan.net.affected import NOTHING, Effect, End, Lookup, Picture, affected, learn
from netchan.net.netlink import AddressChange, LinkChange, Route, RouteChange

HERE, THERE = bytes((10, 9, 0, 1)), bytes((10, 9, 0, 2))
OTHER, FAR = bytes((10, 8, 0, 1)), bytes((192, 0, 2, 7))


def name(address: bytes) -> bytes:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return struct.pack("=H", family) + (
        bytes(2) + address + bytes(8) if len(address) == 4 else bytes(6) + address + bytes(4)
    )


def end(path: int, local: bytes = HERE, remote: bytes = THERE) -> End:
    return End(path, "active", name(local), name(remote))


class Kernel:
    """Answers for ways, and counts what it is asked."""

    def __init__(self) -> None:
        self.ways: dict[bytes, Route | None] = {THERE: Route(3, True), FAR: Route(4, True)}
        self.asked = 0

    def ask(self, remote: bytes, local: bytes) -> Route | None:
        self.asked += 1
        return self.ways[remote]

    def lookup(self) -> Lookup:
        return Lookup(self.ask)


@pytest.fixture
def picture() -> Picture:
    found = Picture()
    for change in (LinkChange(3, True, False), LinkChange(4, True, False), AddressChange(3, HERE, False)):
        found.apply(change)
    found.apply(AddressChange(4, OTHER, False))
    return found


def test_effects(picture: Picture) -> None:
    went, came = Effect(True, False), Effect(False, True)
    assert picture.apply(LinkChange(3, True, False)) == NOTHING
    assert picture.apply(LinkChange(3, False, False)) == went
    assert picture.apply(LinkChange(3, False, False)) == NOTHING
    assert picture.apply(LinkChange(3, True, False)) == came
    assert picture.apply(LinkChange(9, False, False)) == NOTHING
    assert picture.apply(LinkChange(9, True, False)) == came
    assert picture.apply(AddressChange(3, HERE, False)) == NOTHING
    assert picture.apply(AddressChange(3, HERE, True)) == went
    assert picture.apply(AddressChange(3, HERE, True)) == NOTHING
    assert picture.apply(AddressChange(3, HERE, False)) == came
    assert picture.apply(RouteChange(b"", 0, 3, True)) == went
    assert picture.apply(RouteChange(b"", 0, 3, False)) == Effect(True, True)
    assert picture.apply(LinkChange(4, False, True)) == went
    assert picture.has_gone(OTHER) and not picture.has_gone(HERE)


def test_path_whose_link_is_down(picture: Picture) -> None:
    kernel = Kernel()
    ends = [end(0), end(2, OTHER, FAR)]
    assert affected(ends, picture, kernel.lookup(), {}) == set()
    picture.apply(LinkChange(3, False, False))
    assert affected(ends, picture, kernel.lookup(), {}) == {0}


def test_path_whose_address_is_gone_and_comes_back(picture: Picture) -> None:
    kernel = Kernel()
    picture.apply(AddressChange(3, HERE, True))
    assert affected([end(0), end(2, OTHER, FAR)], picture, kernel.lookup(), {}) == {0}
    picture.apply(AddressChange(3, HERE, False))
    assert affected([end(0)], picture, kernel.lookup(), {}) == set()


def test_address_that_was_never_seen_is_no_sign(picture: Picture) -> None:
    """127.0.0.5, or one of a local route: it stands on no link."""
    kernel = Kernel()
    kernel.ways[bytes((127, 0, 0, 5))] = Route(1, True)
    assert affected([end(0, bytes((127, 0, 0, 6)), bytes((127, 0, 0, 5)))], picture, kernel.lookup(), {}) == set()


def test_address_on_two_links_is_gone_with_both(picture: Picture) -> None:
    kernel = Kernel()
    picture.apply(AddressChange(4, HERE, False))
    picture.apply(AddressChange(3, HERE, True))
    assert affected([end(0)], picture, kernel.lookup(), {}) == set()
    picture.apply(LinkChange(4, False, False))
    assert affected([end(0)], picture, kernel.lookup(), {}) == {0}


def test_path_without_a_way_or_with_a_dead_one(picture: Picture) -> None:
    kernel = Kernel()
    kernel.ways[THERE] = None
    assert affected([end(0)], picture, kernel.lookup(), {}) == {0}
    kernel.ways[THERE] = Route(3, False)
    assert affected([end(0)], picture, kernel.lookup(), {}) == {0}
    picture.apply(LinkChange(4, False, False))
    kernel.ways[THERE] = Route(4, True)
    assert affected([end(0)], picture, kernel.lookup(), {}) == {0}


def test_path_whose_way_is_another_one_is_affected_once(picture: Picture) -> None:
    kernel, ways = Kernel(), dict[int, int]()
    assert affected([end(0)], picture, kernel.lookup(), ways) == set()
    kernel.ways[THERE] = Route(4, True)
    assert affected([end(0)], picture, kernel.lookup(), ways) == {0}
    assert affected([end(0)], picture, kernel.lookup(), ways) == set()
    assert ways == {0: 4}
    affected([end(2)], picture, kernel.lookup(), ways)
    assert ways == {2: 4}  # of paths that are no more nothing is kept


def test_what_is_learnt_of_a_new_path_hides_nothing_of_another(picture: Picture) -> None:
    kernel, ways = Kernel(), dict[int, int]()
    learn([end(0)], kernel.lookup(), ways)
    kernel.ways[THERE] = Route(4, True)
    learn([end(0), end(2, OTHER, FAR), End(4, "active", b"", b"")], kernel.lookup(), ways)
    assert ways == {0: 3, 2: 4}
    assert affected([end(0), end(2, OTHER, FAR)], picture, kernel.lookup(), ways) == {0}


def test_unix_sockets_and_closed_ones_concern_nobody(picture: Picture) -> None:
    kernel = Kernel()
    unix = End(0, "active", struct.pack("=H", socket.AF_UNIX), struct.pack("=H", socket.AF_UNIX) + b"/x")
    shut = End(2, "active", name(HERE), b"")
    assert affected([unix, shut], picture, kernel.lookup(), {}) == set()
    assert kernel.asked == 0


def test_each_way_is_asked_for_once_and_not_without_end(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    lookup = kernel.lookup()
    affected([end(n) for n in range(10)], picture, lookup, {})
    assert kernel.asked == 1
    monkeypatch.setattr(module, "LOOKUPS_MAX", 1)
    kernel.ways[FAR] = None
    assert affected([end(0), end(2, OTHER, FAR)], picture, lookup, {}) == set()
    assert kernel.asked == 1


def test_kernel_that_does_not_answer_is_no_sign(picture: Picture) -> None:
    def ask(remote: bytes, local: bytes) -> Route | None:
        raise OSError(24, "too many open files")

    picture.apply(LinkChange(3, False, False))
    assert affected([end(0), end(2, OTHER, FAR)], picture, Lookup(ask), {}) == {0}


def test_after_a_new_list_what_is_not_in_it_is_missing(picture: Picture) -> None:
    fresh = Picture()
    fresh.apply(LinkChange(4, True, False))
    fresh.apply(AddressChange(4, OTHER, False))
    fresh.after(picture)
    assert fresh.has_gone(HERE) and not fresh.has_gone(OTHER)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINKS_MAX", 4)
    monkeypatch.setattr(module, "ADDRESSES_MAX", 4)
    picture = Picture()
    for n in range(1, 20):
        picture.apply(LinkChange(n, True, False))
        picture.apply(AddressChange(n, n.to_bytes(4, "big"), False))
    assert len(picture.links) == 4 and len(picture.addresses) == 4
    assert not picture.is_down(19)  # not known: concerns nobody
    for n in range(1, 20):
        picture.apply(AddressChange(n, n.to_bytes(4, "big"), True))
        picture.apply(AddressChange(n + 100, (n + 100).to_bytes(4, "big"), False))
        picture.apply(AddressChange(n + 100, (n + 100).to_bytes(4, "big"), True))
    assert len(picture.missing) == 4
