"""Threads over the shared-memory rungs, run under the thread sanitizer by ``tsan.sh``; exits 1 on a wrong result."""

import sys
import threading
from collections.abc import Callable

from netchan._core import _selftest_mem as core


def run_all(*jobs: Callable[[], object]) -> list[object]:
    """Runs the jobs at once, one thread each, and returns their results in order."""
    out: list[object] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def go(i: int) -> None:
        start.wait()
        out[i] = jobs[i]()

    threads = [threading.Thread(target=go, args=(i,)) for i in range(len(jobs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


def leaf() -> bool:
    lock = core.Leaf()
    torn = run_all(*(lambda: lock.hammer(20_000, 512) for _ in range(3)))
    return torn == [0] * 3 and lock.counts == (60_000, 60_000)


def pool() -> bool:
    p = core.Pool(3 * 5000, 2 * 5000)
    bad = run_all(*(lambda m=m: p.hammer(5_000, 4096, m) for m in range(1, 4)))
    return bad == [0] * 3 and p.stats()["used"] == [0, 0, 0, 0]


def spsc() -> bool:
    r = core.Spsc(64)
    return run_all(lambda: r.hammer_push(100_000), lambda: r.hammer_pop(100_000))[1] == 0


def mpsc() -> bool:
    r = core.Mpsc(64)
    return run_all(*(lambda w=w: r.hammer_push(w, 30_000) for w in range(3)), lambda: r.hammer_pop(3, 30_000))[3] == 0


def planted() -> bool:
    """Two producers on a ring made for one: what the sanitizer must report."""
    r = core.Spsc(65536)
    run_all(lambda: r.hammer_push(20_000), lambda: r.hammer_push(20_000))
    return True


def main() -> int:
    if sys.argv[1:] == ["planted"]:
        planted()
        return 0
    failed = 0
    for job in (leaf, pool, spsc, mpsc):
        ok = job()
        print(f"{job.__name__}: {'ok' if ok else 'WRONG RESULT'}")
        failed += not ok
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
