"""How long values stop when one of two paths falls silent, in virtual time; used by test_stall.py."""

from __future__ import annotations

import random

from netchan._core import _selftest_session as st
from tests.property.core_net import MS, Fate, Net, Path

OK = st.RC["OK"]
RTT = 20 * MS
PARAMS = {"lease_ns": 300_000 * MS, "max_paths": 4, "parity": True}


def session(datagrams: bool, rtts: tuple[int, ...], seed: int, **more: int) -> tuple[Net, st.End, st.End]:
    """Two sides, a path for each round trip, and the two ends of a channel that was used on all of them."""
    params = PARAMS | ({"datagrams": True} if datagrams else {}) | more
    pair = st.Pair(mine=params, peer=params, seed=seed)
    net = Net(random.Random(seed), pair)
    net.add(Path(0, None, (Fate(delay=rtts[0] // 2), Fate(delay=rtts[0] // 2))))
    first = 2 if datagrams else 0
    for place, rtt in enumerate(rtts):
        number = first + 2 * place
        if number == 0:
            continue
        mtu = 1200 if datagrams else None
        net.add(Path(number, mtu, (Fate(delay=rtt // 2), Fate(delay=rtt // 2))))
        pair.a.several_paths()
        for side in (pair.b, pair.a):
            assert side.add(number, bytes([number] * 32), mtu) == OK
    if datagrams:
        for side in net.sides:
            side.path_lost(0)
        del net.paths[0]
    x, y = (side.open("x", capacity=4096) for side in (pair.a, pair.b))
    net.run(net.now + 500 * MS)
    return net, x, y


def stall(
    net: Net,
    x: st.End,
    y: st.End,
    cut: int | None,
    *,
    size: int = 10,
    every: int = 2 * MS,
    turns: int = 300,
    credit: bool = True,
) -> int:
    """The longest time between two arrivals after path ``cut`` has fallen silent, less ``every``: in ns.

    A value of ``size`` bytes goes every so many ns; the cut comes in the middle, or not at all (None). Without
    ``credit`` a value may have to wait for some, and goes as soon as it can.
    """
    silent_at, last, longest, expected, said = turns // 2, net.now, 0, 0, 0
    step = MS // 4
    for turn in range(turns + 400):
        while said <= turn and said < turns and x.send(said.to_bytes(4, "big") + bytes(size)) == OK:
            said += 1
        assert not credit or said > turn or said == turns
        if turn == silent_at and cut is not None:
            for link in net.paths[cut].links:
                link.fate.dead = True
        until = net.now + every
        while net.now < until:
            net.run(net.now + step)
            got = y.take_all()
            if got:
                assert [int.from_bytes(v[:4], "big") for v in got] == list(range(expected, expected + len(got)))
                expected += len(got)
                if turn >= silent_at:
                    longest = max(longest, net.now - last)
                last = net.now
        if expected == turns:
            return longest - every
    raise AssertionError(f"{expected} of {turns} have come")
