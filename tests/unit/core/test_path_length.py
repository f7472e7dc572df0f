"""The search for the length of datagrams that a path carries (docs/spec/session.md §5.5; RFC 8899)."""

import pytest

from netchan._core import _selftest_session as st
from tests.unit.core.datagrams import pair_on_datagrams

OK = st.RC["OK"]
MS = 1_000_000


def run(pair: st.Pair, carries: int, ms: int) -> list[int]:
    """Both sides talk for a while over a path that carries so much each way; what a has sent."""
    sent = []
    for _ in range(ms // 10):
        for side, twin in ((pair.a, pair.b), (pair.b, pair.a)):
            while data := side.send_datagram(2):
                if side is pair.a:
                    sent.append(len(data))
                if len(data) <= carries:
                    twin.recv_datagram(data, 2)
        for side in (pair.a, pair.b):
            side.now += 10 * MS
            side.on_deadline()
    return sent


@pytest.mark.parametrize(
    ("carries", "found"), [(1500, 1452), (1452, 1452), (1451, 1392), (1391, 1320), (1319, 1200), (1200, 1200)]
)
def test_the_longest_that_goes_through_is_found(carries: int, found: int) -> None:
    pair, x, y = pair_on_datagrams(search=True)
    sent = run(pair, carries, 10_000)
    assert pair.a.flying(2)["mtu"] == pair.b.flying(2)["mtu"] == found
    assert sum(size > found for size in sent) <= 6  # two of each length, and none of them brings anything
    before = pair.a.flying(2)["cwnd"]
    assert pair.a.flying(2)["ssthresh"] > 1 << 40, "a search is no congestion"
    assert x.send(bytes(20_000)) == OK
    sent = run(pair, carries, 1_000)
    assert found - 3 <= max(sent) <= found and y.take() == bytes(20_000)
    assert pair.a.flying(2)["cwnd"] >= before


def test_a_path_that_carries_less_from_now_on_is_noticed() -> None:
    pair, x, y = pair_on_datagrams(search=True)
    run(pair, 1500, 2_000)
    assert pair.a.flying(2)["mtu"] == 1452
    assert x.send(bytes(20_000)) == OK
    run(pair, 1300, 30_000)
    assert pair.a.flying(2)["mtu"] == 1200 and y.take() == bytes(20_000)


def test_it_is_tried_again_after_ten_minutes() -> None:
    pair, _, _ = pair_on_datagrams(search=True)
    run(pair, 1200, 10_000)
    assert pair.a.flying(2)["mtu"] == 1200
    for side in (pair.a, pair.b):
        side.now += 600_000 * MS
        side.on_deadline()
    run(pair, 1500, 2_000)
    assert pair.a.flying(2)["mtu"] == 1452
