"""No (key, path, number) is ever sealed twice: ten million records over a hundred sessions, with updates and ratchets.

Run by ``make long`` on a debug build (NETCHAN_DEBUG=1), whose core checks every seal in C: per (epoch, tag, path) the
number must grow (docs/spec/keys.md §4). Prints one line and exits 1 on a repeat, on too few seals, or if the build has
no checker.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from netchan.net.ratchet import Ratchet
from netchan.testing.pair import Side, joined


def settle(a: Side, b: Side, turns: int = 4) -> None:
    """Let both sides read and answer."""
    for _ in range(turns):
        b.engine.pump()
        a.engine.pump()


def wait_for(a: Side, b: Side, done: object) -> None:
    """Turn both engines until ``done()``."""
    end = time.monotonic() + 10
    while not done():  # type: ignore[operator]
        settle(a, b, 1)
        if time.monotonic() > end:
            raise SystemExit("a change of epoch did not end within 10 s")


def run_session(records: int, updates: int, ratchet: bool) -> dict[str, int]:
    """One session that seals about ``records`` records; returns summed counters of both sides."""
    a, b = joined()
    first = Ratchet(a.session, initiator=True, rng=os.urandom)
    second = Ratchet(b.session, initiator=False, rng=os.urandom)
    tx, rx = a.open("n"), b.open("n")
    settle(a, b)
    done = 0
    every = max(1, records // (updates + 1))
    while done < records:
        for _ in range(200):
            if not tx.try_send(b"x"):
                break
            a.engine.flush()
            done += 1
        b.engine.pump()
        rx.try_recv_many(10_000)
        settle(a, b, 1)
        if updates and done % every < 200:
            updates -= 1
            for side in (a, b):
                before = side.session.stats()["rekeys"]
                wait_for(a, b, side.session.rekey)
                wait_for(a, b, lambda s=side, n=before: s.session.stats()["rekeys"] > n)
        if ratchet and done > records // 2:
            ratchet = False
            first.start()
            wait_for(a, b, lambda: a.session.stats()["ratchets"] == b.session.stats()["ratchets"] == 1)
    total: dict[str, int] = {}
    for side in (a, b):
        for name, value in side.session.stats().items():
            total[name] = total.get(name, 0) + value
    tx.close_send()
    rx.close_send()
    a.session.close(0)
    assert second.refused == first.refused == 0
    return total


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seals", type=int, default=10_000_000)
    parser.add_argument("--sessions", type=int, default=100)
    args = parser.parse_args()
    if not joined()[0].session.stats()["nonce_checked"]:
        print("nonce check: this build has no checker; build with NETCHAN_DEBUG=1 (make long does)")
        return 1
    began = time.monotonic()
    sealed = rekeys = ratchets = repeats = 0
    for n in range(args.sessions):
        got = run_session(args.seals // args.sessions, 2, n % 10 == 0)
        sealed += got["sealed"]
        rekeys += got["rekeys"]
        ratchets += got["ratchets"]
        repeats += got["nonce_repeats"]
    ok = repeats == 0 and sealed >= args.seals and rekeys >= 50 and ratchets >= 10
    print(
        f"nonce check: {'ok' if ok else 'FAILED'} seals={sealed} sessions={args.sessions} rekeys={rekeys} "
        f"ratchets={ratchets} repeats={repeats} seconds={time.monotonic() - began:.0f}"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
