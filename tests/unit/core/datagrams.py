"""A datagram path whose other end a test holds, and the header of a datagram written by hand (docs/spec/wire.md §4)."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from netchan._core import _selftest_session as st
from tests.unit.core.test_record import vint

OK = st.RC["OK"]
MS, S = 10**6, 10**9
PATH, MTU = 2, 1200
BINDING = bytes(range(32))
PING, PADDING = b"\x01", b"\0"
NEVER = 2**63 - 1
PEER_DELAY = 25 * MS


def mask(cipher: str, key: bytes, data: bytes) -> bytes:
    """What covers the header of a datagram, from nothing but the cipher."""
    nonce = data[-12:]
    if cipher == "aes-256-gcm":
        block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return block.update(nonce + b"\0\0\0\2")
    stream = Cipher(algorithms.ChaCha20(key, (1).to_bytes(4, "little") + nonce), None).encryptor()
    return stream.update(bytes(16))


def masked(cipher: str, key: bytes, data: bytes) -> bytes:
    """The datagram with its mask put on, or taken off."""
    m = mask(cipher, key, data)
    return (
        bytes([data[0] ^ (m[0] & 0x3F)])
        + data[1:9]
        + bytes(x ^ y for x, y in zip(data[9:24], m[1:], strict=True))
        + data[24:]
    )


def ack(path: int, largest: int, first: int = 0, *runs: tuple[int, int], delay_us: int = 0) -> bytes:
    """An ACK frame: runs are (gap, length) pairs as on the wire."""
    frame = b"\x02" + vint(path) + b"\0" + vint(largest) + vint(delay_us) + vint(len(runs)) + vint(first)
    return frame + b"".join(vint(gap) + vint(length) for gap, length in runs)


class Ends:
    """A session with one datagram path and nothing else; the other end is a peer in our hands."""

    def __init__(self, mtu: int = MTU, role: int = 1, others: tuple[int, ...] = (), **mine: int) -> None:
        params = {"datagrams": True, "lease_ns": 1000 * S, "max_paths": 4} | mine
        self.side = st.Side(role, mine=params, peer=params)
        self.peer = st.Peer(1 - role)
        for number in (PATH, *others):
            assert self.side.add(number, BINDING, mtu) == OK
            self.peer.add_datagram_path(number, BINDING)
        self.side.path_lost(0)

    def say(self, frames: bytes, tag: int = 0, path: int = PATH) -> int:
        """The peer says this now."""
        return self.side.recv_datagram(self.peer.quick_datagram(path, tag, frames), path)

    def hear(self, path: int = PATH, most: int = 1000) -> list[tuple[int, int, bytes]]:
        """(number, tag, frames) of all that the side says now."""
        out = []
        while len(out) < most:
            data = self.side.send_datagram(path)
            assert not isinstance(data, int), data
            if not data:
                return out
            number, _, [(tag, frames)] = self.peer.open_datagram(path, data)
            out.append((number, tag, frames))
        raise AssertionError("it never ends to talk")

    def at(self, ns: int) -> None:
        """The clock moves on by so much, deadline by deadline; what is said meanwhile is lost."""
        until = self.side.now + ns
        for _ in range(100_000):
            at = self.side.deadline()
            if at > until:
                self.side.now = until
                return
            self.side.now = max(self.side.now, at)
            self.side.on_deadline()
            if PATH in self.side.paths()[0]:
                self.hear()
        raise AssertionError("deadlines do not move on")

    def sleep(self, ns: int) -> None:
        """The clock moves on and nothing else happens."""
        self.side.now += ns

    @property
    def flying(self) -> dict[str, int]:
        found: dict[str, int] = self.side.flying(PATH)
        return found

    def verdict(self) -> int | None:
        state = self.side.state()
        return None if state["state"] == 0 else int(state["code"])


def opened(**given: int) -> tuple[Ends, st.End]:
    """A session with a channel "x" that both ends have opened: capacity and credit for much; what was said so far was
    acknowledged.
    """
    from tests.unit.core.test_record import data, preface

    ends = Ends(**given)
    end = ends.side.open("x", capacity=10_000)
    ends.say(b"\x19" + vint(0) + data(0, preface(b"x")), tag=16)
    settle(ends)
    stream = 17 if end.id % 2 else 16
    ends.say(st.put("pos", stream, 0, 0, 10_000, 1 << 40))
    settle(ends)
    assert end.paired
    return ends, end


def settle(ends: Ends) -> None:
    """All that the side says is acknowledged, at once, until it says no more."""
    for _ in range(100):
        said = ends.hear()
        for number, _, _ in said:
            ends.say(ack(PATH, number))
        ends.sleep(30 * MS)
        if not said and not ends.flying["eliciting"]:
            return


def pair_on_datagrams(search: bool = False) -> tuple[st.Pair, st.End, st.End]:
    """Two sides with a channel and one datagram path; search: for how long its datagrams may be."""
    params = {"datagrams": True, "lease_ns": 10**11, "max_paths": 4}
    pair = st.Pair(mine=params, peer=params)
    x, y = pair.a.open("c", capacity=1000), pair.b.open("c", capacity=1000)
    pair.run()
    assert x.send(b"first") == OK
    pair.sleep(100 * MS)
    assert y.take() == b"first"
    for side in (pair.b, pair.a):
        assert side.add(PATH, b"2" * 32, MTU, search) == OK
    pair.a.path_lost(0)
    pair.b.path_lost(0)
    return pair, x, y
