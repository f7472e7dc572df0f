"""Buffer pool of the core: bound, reuse, sharing, head- and tailroom, faulty releases."""

import signal
import subprocess
import sys
import threading

import pytest

from netchan._core import _selftest_mem as core

HEAD = core.POOL_HEADROOM
TAIL = core.POOL_TAILROOM
CLASSES = [1024, 4096, 16384, 65536]
EXTRA = core.POOL_BLOCK_HEAD + HEAD + TAIL


class TestGetAndPut:
    @pytest.mark.parametrize(
        ("payload", "cls"),
        [(0, 0), (1, 0), (1024, 0), (1025, 1), (4096, 1), (4097, 2), (16384, 2), (16385, 3), (65536, 3)],
    )
    def test_get_gives_the_smallest_class_that_fits_empty_and_owned(self, payload: int, cls: int) -> None:
        p = core.Pool(10**6, 0)
        assert p.get(0, payload) == 1
        assert p.info(0) == {
            "refs": 1, "sole": 1, "len": 0, "head": HEAD, "tail": CLASSES[cls] + TAIL,
            "cap": HEAD + CLASSES[cls] + TAIL, "cls": cls, "next_is_null": True, "aligned": True,
        }  # fmt: skip
        st = p.stats()
        assert st["used"][cls] == 1
        assert st["bytes"] == CLASSES[cls] + EXTRA

    @pytest.mark.parametrize("payload", [65537, 2**31, 2**32 - 1])
    def test_get_above_the_largest_class_is_refused_and_counted(self, payload: int) -> None:
        p = core.Pool(10**9, 0)
        assert p.get(0, payload) == 0
        assert p.stats()["n_failed"] == 1

    def test_get_stops_exactly_at_the_byte_bound(self) -> None:
        block = 1024 + EXTRA
        p = core.Pool(3 * block, 0)
        assert [p.get(i, 100) for i in range(4)] == [1, 1, 1, 0]
        assert p.stats()["bytes"] == 3 * block
        assert p.put(1)
        assert p.get(1, 100) == 1
        assert p.get(4, 100) == 0
        assert p.stats()["n_failed"] == 2

    def test_get_one_byte_below_the_bound_of_a_block_is_refused(self) -> None:
        p = core.Pool(65536 + EXTRA - 1, 0)
        assert p.get(0, 65536) == 0
        assert p.get(0, 16384) == 1

    def test_bound_zero_is_refused(self) -> None:
        assert core.Pool(0, 0).init_rc < 0

    def test_put_keeps_blocks_up_to_the_cache_bound_and_get_takes_them_again(self) -> None:
        p = core.Pool(10**6, 2 * (1024 + EXTRA))
        for i in range(3):
            assert p.get(i, 1) == 1
        for i in range(3):
            assert p.put(i)
        st = p.stats()
        assert (st["used"][0], st["cached"][0], st["bytes"]) == (0, 2, 2 * (1024 + EXTRA))
        assert [p.get(i, 1) for i in range(3)] == [1, 1, 1]
        st = p.stats()
        assert (st["n_reused"], st["n_made"], st["cached"][0]) == (2, 4, 0)

    def test_kept_blocks_of_other_classes_give_way_to_the_bound(self) -> None:
        p = core.Pool(65536 + EXTRA, 10**6)
        for i in range(10):
            assert p.get(i, 4096) == 1
        for i in range(10):
            p.put(i)
        assert p.stats()["cached"][1] == 10
        assert p.get(0, 65536) == 1
        st = p.stats()
        assert (st["cached"], st["bytes"]) == ([0, 0, 0, 0], 65536 + EXTRA)

    def test_put_of_an_empty_slot_does_nothing(self) -> None:
        p = core.Pool(10**6, 0)
        assert p.put(0)
        assert p.stats()["n_bad_puts"] == 0

    def test_reused_block_comes_back_empty(self) -> None:
        p = core.Pool(10**6, 10**6)
        p.get(0, 1)
        p.push_tail(0, b"secret")
        p.push_head(0, b"head")
        p.put(0)
        p.get(0, 1)
        assert p.stats()["n_reused"] == 1
        assert (p.data(0), p.info(0)["head"], p.info(0)["refs"]) == (b"", HEAD, 1)

    def test_trim_gives_kept_blocks_back_and_leaves_used_ones(self) -> None:
        p = core.Pool(10**6, 10**6)
        for i in range(3):
            p.get(i, 5000)
        p.put(0)
        p.put(1)
        assert p.trim() == 2 * (16384 + EXTRA)
        assert p.stats()["bytes"] == 16384 + EXTRA
        assert p.trim() == 0


class TestSharing:
    def test_block_returns_when_the_last_holder_lets_go(self) -> None:
        p = core.Pool(10**6, 10**6)
        p.get(0, 1)
        p.push_tail(0, b"abc")
        p.ref(0, 1)
        p.ref(1, 2)
        assert (p.info(0)["refs"], p.info(0)["sole"]) == (3, 0)
        p.put(0)
        p.put(2)
        assert p.stats()["used"][0] == 1
        assert (p.data(1), p.info(1)["sole"]) == (b"abc", 1)
        p.put(1)
        st = p.stats()
        assert (st["used"][0], st["cached"][0]) == (0, 1)

    @pytest.mark.skipif(core.POOL_DEBUG == 1, reason="a debug build aborts here; see the next test")
    def test_double_release_in_a_release_build_is_counted_and_harmless(self) -> None:
        p = core.Pool(10**6, 10**6)
        p.get(0, 1)
        p.put_twice(0)
        st = p.stats()
        assert (st["n_bad_puts"], st["used"][0], st["cached"][0]) == (1, 0, 1)
        assert (p.get(0, 1), p.get(1, 1)) == (1, 1)
        p.push_tail(0, b"a")
        p.push_tail(1, b"b")
        assert (p.data(0), p.data(1)) == (b"a", b"b")

    @pytest.mark.skipif(core.POOL_DEBUG == 0, reason="only a debug build (NETCHAN_DEBUG=1) aborts")
    def test_double_release_in_a_debug_build_aborts(self) -> None:
        code = "from netchan._core._selftest_mem import Pool; p = Pool(10**6, 10**6); p.get(0, 1); p.put_twice(0)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGABRT


class TestRoom:
    def test_header_and_tag_are_written_around_the_payload(self) -> None:
        p = core.Pool(10**6, 0)
        p.get(0, 1024)
        assert p.push_tail(0, b"p" * 1024) == 1
        assert p.push_head(0, b"h" * HEAD) == 1
        assert p.push_tail(0, b"t" * TAIL) == 1
        assert (p.info(0)["head"], p.info(0)["tail"]) == (0, 0)
        assert p.push_head(0, b"x") == 0
        assert p.push_tail(0, b"x") == 0
        assert p.data(0) == b"h" * HEAD + b"p" * 1024 + b"t" * TAIL
        assert p.pull_head(0, HEAD) == 1
        assert p.pull_tail(0, TAIL) == 1
        assert p.data(0) == b"p" * 1024

    def test_pull_beyond_the_bytes_in_use_is_refused(self) -> None:
        p = core.Pool(10**6, 0)
        p.get(0, 1024)
        p.push_tail(0, b"abc")
        for n in (4, 2**31, 2**32 - 1):
            assert p.pull_head(0, n) == 0
            assert p.pull_tail(0, n) == 0
        assert p.data(0) == b"abc"
        assert p.pull_head(0, 3) == 1
        p.reset(0)
        assert (p.data(0), p.info(0)["head"]) == (b"", HEAD)


class TestClose:
    def test_close_tells_what_is_out_and_takes_it_back_later(self) -> None:
        p = core.Pool(10**6, 10**6)
        p.get(0, 1)
        p.get(1, 1)
        p.put(1)
        assert p.close() == 1
        assert p.stats()["cached"] == [0, 0, 0, 0]
        assert p.get(2, 1) == 0
        p.put(0)
        assert p.close() == 0
        assert p.stats()["bytes"] == 0


class TestThreads:
    def test_four_threads_never_share_a_block_by_mistake(self) -> None:
        p = core.Pool(4 * (4096 + EXTRA), 2 * (4096 + EXTRA))
        bad: list[int] = []
        threads = [threading.Thread(target=lambda m=m: bad.append(p.hammer(4000, 4000, m))) for m in range(1, 5)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert bad == [0, 0, 0, 0]
        st = p.stats()
        assert st["used"] == [0, 0, 0, 0]
        assert st["n_made"] + st["n_reused"] + st["n_failed"] == 16000
