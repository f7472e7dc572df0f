"""Records of data that have to come again on a path whose datagrams are shorter (docs/spec/session.md §5.4)."""

import pytest

from netchan._core import _selftest_session as st

OK, ECLOSED, EAGAIN = st.RC["OK"], st.RC["ECLOSED"], st.RC["EAGAIN"]
MS = 1_000_000
BINDINGS = {2: b"2" * 32, 4: b"4" * 32}


def joined() -> tuple[st.Pair, st.End, st.End]:
    """A session with a channel on which nothing needs an order any more, and two datagram paths beside the first."""
    params = {"datagrams": True, "lease_ns": 10**11, "max_paths": 4}
    pair = st.Pair(mine=params, peer=params)
    x, y = pair.a.open("c", capacity=100), pair.b.open("c", capacity=100)
    x.wait(), y.wait()
    pair.run()
    assert x.send(b"first") == OK
    pair.sleep(100 * MS)
    assert y.take() == b"first"
    for number, binding in BINDINGS.items():
        assert pair.b.add(number, binding, 1200) == OK and pair.a.add(number, binding, 1200) == OK
    return pair, x, y


def all_of(side: st.Side, path: int) -> list[bytes]:
    out = []
    while data := side.send_datagram(path):
        assert isinstance(data, bytes) and len(data) <= 1200
        out.append(data)
    return out


def lose_first(pair: st.Pair) -> None:
    """What was sent on the stream path is lost with it."""
    pair.a.send()
    pair.a.path_lost(0)
    pair.b.path_lost(0)


def exchange(pair: st.Pair, path: int, rounds: int = 60) -> int:
    """All that is said on a path arrives, both ways; datagrams of a."""
    said = 0
    for _ in range(rounds):
        for data in (up := all_of(pair.a, path)):
            pair.b.recv_datagram(data, path)
        for data in (down := all_of(pair.b, path)):
            pair.a.recv_datagram(data, path)
        said += len(up)
        pair.a.now += 30 * MS
        pair.b.now += 30 * MS
        pair.a.on_deadline(), pair.b.on_deadline()
        if not up and not down:
            break
    return said


@pytest.mark.parametrize("size", [600, 1200, 5_000, 16_000, 40_000])
@pytest.mark.parametrize("pin", [False, True])
def test_value_and_end_arrive_over_shorter_datagrams(size: int, pin: bool) -> None:
    pair, x, y = joined()
    body = bytes(i & 0xFF for i in range(size))
    assert x.send(body, pin=pin) == OK
    x.close()
    lose_first(pair)
    exchange(pair, 2)
    assert [y.take(), y.take()] == [body, ECLOSED]


def test_pieces_that_arrived_do_not_come_again_and_the_others_do() -> None:
    pair, x, y = joined()
    body = bytes(i & 0xFF for i in range(15_000))
    assert x.send(body) == OK
    x.close()
    lose_first(pair)
    pieces = all_of(pair.a, 2)
    assert len(pieces) >= 9
    for data in pieces[:6]:
        assert pair.b.recv_datagram(data, 2) == OK
    for data in all_of(pair.b, 2):
        pair.a.recv_datagram(data, 2)
    pair.a.path_lost(2)
    pair.b.path_lost(2)
    assert exchange(pair, 4) < 11  # 9 000 bytes are left, and acknowledgements
    assert [y.take(), y.take()] == [body, ECLOSED]


@pytest.mark.parametrize("lost", range(8))
def test_each_piece_may_be_the_one_that_is_lost(lost: int) -> None:
    pair, x, y = joined()
    body = bytes(i & 0xFF for i in range(9_000))
    assert x.send(body) == OK
    x.close()
    lose_first(pair)
    pieces = all_of(pair.a, 2)
    for n, data in enumerate(pieces):
        if n != lost:
            pair.b.recv_datagram(data, 2)
    for data in all_of(pair.b, 2):
        pair.a.recv_datagram(data, 2)
    pair.a.path_lost(2)
    pair.b.path_lost(2)
    exchange(pair, 4)
    assert [y.take(), y.take()] == [body, ECLOSED]
