"""What a session does when the network changes (docs/spec/session.md §5.9, §5.10), with a kernel played by the test.

Real sessions over loopback; only the socket on which the kernel would speak is the test's, so that it says what it is
told to, when it is told to. Nothing here asks how long something took: tests/chaos/test_changes.py does, with links.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import netchan
from netchan import Config, sync
from netchan.net import changes, netlink, redial
from netchan.net.netlink import Route
from netchan.net.worker import worker
from tests.integration.kit import BOSS, KEY, TCP
from tests.integration.proxy import Proxy
from tests.unit.net import recorded

WAIT = 30.0
FOUR, SIX = socket.inet_aton("127.0.0.1"), bytes(15) + b"\1"
V4, V6 = 7, 8
"""Numbers of the links on which the addresses stand."""


def address(index: int, value: bytes, *, gone: bool = False) -> bytes:
    """As the kernel says it."""
    family = socket.AF_INET if len(value) == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, 8 * len(value), 0x80, 0, index)
    body += struct.pack("=HH", 4 + len(value), 2) + value
    return struct.pack("=IHHII", 16 + len(body), 21 if gone else 20, 0, 0, 0) + body


def route(*, gone: bool = False) -> bytes:
    """A default route of IPv4."""
    return recorded.DEFAULT_COMES[:4] + bytes((25 if gone else 24,)) + recorded.DEFAULT_COMES[5:]


class Full(socket.socket):
    """A socket that had no room for something, when it is told so."""

    full = False

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self.full:
            self.full = False
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return super().recv(size, flags)


class Kernel:
    """Speaks netlink; answers requests for lists by what it has."""

    def __init__(self) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.near = Full(fileno=theirs.detach())
        self.near.setblocking(False)
        self._sock = mine
        self.links = {V4: True, V6: True}
        self.addresses = {V4: FOUR, V6: SIX}
        self.ways: dict[bytes, Route | None] = {FOUR: Route(V4, True), SIX: Route(V6, True)}
        self.asked = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                request = self._sock.recv(65_536)
            except OSError:
                return
            if not request:
                return
            _, kind, _, sequence, _ = struct.unpack_from("=IHHII", request)
            self.asked += 1
            if kind == netlink.RTM_GETLINK:
                said = b"".join(recorded.link(n, up=up) for n, up in self.links.items())
            else:
                said = b"".join(address(n, value) for n, value in self.addresses.items())
            self.say(said + struct.pack("=IHHIIi", 20, 3, 2, sequence, 0, 0))

    def say(self, data: bytes) -> None:
        self._sock.send(data)

    def way(self, remote: bytes, local: bytes) -> Route | None:
        """For ``netlink.ask_route``."""
        return self.ways.get(remote)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()
        self.near.close()


def on_worker(call: Callable[[], object]) -> None:
    """Wait until this has run there."""
    done = threading.Event()
    worker().post(lambda: (call(), done.set()))
    assert done.wait(WAIT)


def forget() -> None:
    """As in a process that has watched nothing yet."""
    watcher = changes._here.watcher
    if watcher is not None:
        watcher.close()
    changes._here.off = False


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """The one that the watcher of this process hears."""
    on_worker(forget)
    found = Kernel()
    monkeypatch.setattr(netlink, "open_socket", lambda: found.near)
    monkeypatch.setattr(netlink, "ask_route", found.way)
    yield found
    on_worker(forget)
    found.close()


class Pair:
    """A session over IPv4, and over IPv6 where ``two``; both sides in this process."""

    def __init__(self, two: bool = True, config: Config | None = None) -> None:
        places = [TCP, "tcp://[::1]:0"] if two else [TCP]
        config = config or Config()
        self.listener = sync.listen(places, identity=BOSS, trust=[KEY.node_id], config=config)
        self.near = sync.dial(self.listener.addresses[0], identity=KEY, config=config, timeout=WAIT)
        self.far = self.listener.recv(timeout=WAIT)
        if two:
            self.near.add_path(self.listener.addresses[1], timeout=WAIT)
            wait(lambda: self.far.path_count == 2)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.near.aclose(timeout=WAIT)
        self.far.wait_closed(timeout=WAIT)
        self.listener.close()


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def watched(n: int) -> None:
    """Both ends of the session are looked after, and what there is is known."""
    wait(lambda: changes.watching() == n)
    wait(lambda: (watcher := changes._here.watcher) is not None and watcher._fresh is None and not watcher._to_learn)


def next_kinds(events: sync.PeerEvents, *wanted: str) -> list[netchan.PeerEvent]:
    """The events up to those that are wanted, which come in this order, others between them."""
    found: list[netchan.PeerEvent] = []
    for kind in wanted:
        while True:
            event = events.get(timeout=WAIT)
            assert event is not None, (kind, found)
            found.append(event)
            if event.kind == kind:
                break
    return found


def test_link_that_goes_down_makes_its_path_suspect_on_both_sides_and_the_other_one_carry_on(kernel: Kernel) -> None:
    with Pair() as pair:
        watched(2)
        events = [peer.events for peer in (pair.near, pair.far)]
        a, b = (peer.open("x", int, capacity=10) for peer in (pair.near, pair.far))
        kernel.say(recorded.link(V4, up=False))
        for each in events:
            suspect, active = (next_kinds(each, kind)[-1] for kind in ("path_suspect", "path_active"))
            assert (suspect.path, active.path) == (0, 2)
        a.send(1, timeout=WAIT)
        assert b.recv(timeout=WAIT) == 1
        # the address works after all: an answer makes the path good, or another one takes its place
        next_kinds(events[0], "path_standby")
        kernel.say(recorded.link(V4, up=True))


def test_address_that_is_gone_and_a_route_that_leads_elsewhere(kernel: Kernel) -> None:
    with Pair() as pair:
        watched(2)
        events = pair.near.events
        kernel.say(address(V6, SIX, gone=True))
        assert next_kinds(events, "path_suspect")[-1].path == 2
        kernel.say(address(V6, SIX))
        next_kinds(events, "path_standby")
        first = next(path.id for path in pair.near.paths if path.state == "active")
        watched(2)
        kernel.ways[FOUR] = Route(V6, True)
        kernel.say(route())
        assert next_kinds(events, "path_suspect")[-1].path == first


def test_only_path_that_is_doubted_is_made_again_beside_it(kernel: Kernel) -> None:
    with Pair(two=False) as pair:
        watched(2)
        events = pair.near.events
        kernel.ways[FOUR] = None
        kernel.say(route(gone=True))
        found = next_kinds(events, "path_suspect")
        kernel.ways[FOUR] = Route(V4, True)
        assert [event.path for event in found if event.kind == "path_suspect"] == [0]
        a, b = (peer.open("x", int, capacity=10) for peer in (pair.near, pair.far))
        a.send(1, timeout=WAIT)
        assert b.recv(timeout=WAIT) == 1


@pytest.mark.parametrize(
    "news",
    [recorded.link(9, up=True), address(V4, socket.inet_aton("10.0.0.9")), route()],
    ids=["link", "address", "route"],
)
def test_what_comes_ends_the_pause_between_attempts(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, news: bytes
) -> None:
    """The pause would take an hour."""
    for name in ("FIRST_NS", "EAGER_NS", "LAZY_NS"):
        monkeypatch.setattr(redial, name, 3600 * 10**9)
    with sync.listen(TCP, identity=BOSS, trust=[KEY.node_id]) as listener:
        with Proxy(listener.addresses[0]) as proxy:
            near = sync.dial(proxy.address, identity=KEY, timeout=WAIT)
            far = listener.recv(timeout=WAIT)
            watched(2)
            port = proxy._door.getsockname()
            proxy._door.shutdown(socket.SHUT_RDWR)
            proxy._door.close()
            proxy._threads[0].join(5)
            for link in proxy.links:
                link.cut()
            wait(lambda: near.path_count == 0 and far.path_count == 0)
            # the first attempt has failed when its pause runs, and nothing else does
            wait(lambda: (place := near._core.session.maker._places[0]).timer is not None and not place.live)
            proxy._door = socket.create_server(port[:2])
            again = threading.Thread(target=proxy._accept, daemon=True)
            again.start()
            kernel.say(news)
            wait(lambda: near.path_count == 1)
            assert near.stats()["resumes"] == 1
            near.close(), far.close()
        again.join(5)


def test_kernel_that_had_to_leave_something_out_is_asked_anew(kernel: Kernel) -> None:
    with Pair() as pair:
        watched(2)
        events, asked = pair.near.events, kernel.asked
        del kernel.addresses[V6]
        kernel.near.full = True
        kernel.say(recorded.OWN_ROUTE)  # something to read
        assert next_kinds(events, "path_suspect")[-1].path == 2
        assert kernel.asked == asked + 2


def test_kernel_that_says_what_cannot_be_is_asked_anew(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    with Pair() as pair:
        watched(2)
        events = pair.near.events
        del kernel.addresses[V6]
        kernel.say(b"\xff" * 30)
        assert next_kinds(events, "path_suspect")[-1].path == 2
        kernel.say(b"\xff" * 30)
        watched(2)
        assert sum("could not be read" in record.message for record in caplog.records) == 1


def test_watcher_lives_as_long_as_sessions_do(kernel: Kernel) -> None:
    assert changes.watching() == 0
    with Pair(two=False) as first:
        watched(2)
        with Pair(two=False):
            watched(4)
        wait(lambda: changes.watching() == 2)
        assert first.near.path_count == 1 and kernel.near.fileno() >= 0
    wait(lambda: changes.watching() == 0)
    assert kernel.near.fileno() == -1


def test_watcher_that_has_ended_is_kept_by_nobody(kernel: Kernel) -> None:
    """Its timers would: a minute long, for each of many sessions that follow each other."""
    with Pair(two=False):
        watched(2)
        ended = weakref.ref(changes._here.watcher)
    wait(lambda: changes._here.watcher is None)
    wait(lambda: gc.collect() >= 0 and ended() is None)


def test_nobody_is_watched_who_does_not_want_it(kernel: Kernel) -> None:
    with Pair(two=False, config=Config(watch_network=False)) as pair:
        time.sleep(3 * changes.SOON_NS / 1e9)
        on_worker(lambda: None)
        assert changes.watching() == 0 and kernel.asked == 0
        assert pair.near.path_count == 1


def test_without_netlink_all_works_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> socket.socket:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    on_worker(forget)
    monkeypatch.setattr(netlink, "open_socket", refused)
    with Pair() as pair:
        wait(lambda: changes._here.off)
        assert changes.watching() == 0
        a, b = (peer.open("x", int, capacity=10) for peer in (pair.near, pair.far))
        pair.near.remove_path(0)
        a.send(1, timeout=WAIT)
        assert b.recv(timeout=WAIT) == 1
    on_worker(forget)


FORKED = """
import os, sys
import netchan
from netchan import sync
from netchan.net import changes
from netchan.net.worker import worker
import threading
us, them = netchan.Identity.generate(), netchan.Identity.generate()
with sync.listen("tcp://127.0.0.1:0", identity=us, trust=[them.node_id]) as listener:
    near = sync.dial(listener.addresses[0], identity=them, timeout=30)
    far = listener.recv(timeout=30)
    done = threading.Event()
    worker().post(done.set)
    assert done.wait(30)
    watcher = changes._here.watcher
    if watcher is not None:
        fd = watcher._sock.fileno()
        pid = os.fork()
        if not pid:
            os._exit(0 if changes.watching() == 0 and watcher._sock.fileno() == -1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert changes.watching() == 2 and watcher._sock.fileno() == fd
    near.close(), far.close()
print("good")
"""


def test_forked_child_watches_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(netchan.__file__).parents[1])},
    )
    assert done.stdout.strip() == "good", done.stderr
