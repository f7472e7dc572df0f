"""netchan._core.keystore and arena: retained keys, locked pages, fork, wiping (docs/spec/keys.md §5)."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from netchan._core import _selftest_crypto as core
from netchan._core import provider
from tests.interop.test_vectors_keys import channel_key, master
from tests.unit.core.test_keys import ROOT, STREAM, P, Pair


class TestStore:
    def test_small_table_derives_again_and_counts_it(self) -> None:
        pair = Pair()
        for _turn in range(2):
            for tag in range(16, 816):
                assert pair.open(pair.seal(tag=tag)) == b"x"
        for store in pair.stores:
            stats = store.stats()
            assert stats["keys_rederived"] > 300
            assert stats["keys_rederived"] <= stats["evicted"]

    def test_big_table_derives_once(self) -> None:
        pair = Pair(slots=8192)
        for _turn in range(2):
            for tag in range(16, 816):
                assert pair.open(pair.seal(tag=tag)) == b"x"
        assert [s.stats()["keys_rederived"] for s in pair.stores] == [0, 0]
        assert [s.stats()["derived"] for s in pair.stores] == [800, 800]

    def test_slots_shrink_to_what_may_be_locked(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if limit != resource.RLIM_INFINITY and limit < 256 * 1024:
            pytest.skip(f"RLIMIT_MEMLOCK is {limit}: nothing can be locked here")
        store = core.Store(P, P.ciphers[0], slots=4096, lock_bytes_max=50_000)
        assert store.stats()["slots"] == 1024
        assert store.stats()["locked"] == 1
        assert core.Store(P, P.ciphers[0], slots=4096).stats()["slots"] == 4096

    def test_store_without_any_locked_memory_keeps_the_smallest_table(self) -> None:
        store = core.Store(P, P.ciphers[0], slots=4096, lock_bytes_max=1)
        assert (store.stats()["slots"], store.stats()["locked"], store.stats()["secrets_locked"]) == (256, 0, 0)
        keys = core.Keys(store, bytearray(ROOT), 0)
        keys.path_add(0, STREAM)
        assert isinstance(keys.seal(0, 0, 16, b"x"), bytes)

    def test_sessions_are_bounded_and_blocks_return(self) -> None:
        store = core.Store(P, P.ciphers[0], sessions=2)
        made = [core.Keys(store, bytearray(ROOT), 0) for _ in range(2)]
        with pytest.raises(MemoryError):
            core.Keys(store, bytearray(ROOT), 0)
        made.pop().close()
        core.Keys(store, bytearray(ROOT), 0)

    def test_session_in_a_returned_block_starts_clean(self) -> None:
        store = core.Store(P, P.ciphers[0], sessions=1)
        first = core.Keys(store, bytearray(ROOT), 0)
        first.path_add(0, STREAM)
        one = first.seal(0, 0, 16, b"x")
        first.close()
        second = core.Keys(store, bytearray(b"z" * 32), 0)
        second.path_add(0, STREAM)
        assert second.seal(0, 0, 16, b"x") != one
        assert second.masters()[1] == bytes(32)
        assert second.masters()[3] == bytes(32)

    def test_ranges_are_checked(self) -> None:
        for kwargs in ({"sessions": 0}, {"sessions": 65537}, {"slots": 1048577}):
            with pytest.raises(ValueError):
                core.Store(P, P.ciphers[0], **kwargs)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=50)


PAIRS = [pytest.param(p, c, id=f"{p.name}-{c}") for p in provider.available() for c in p.ciphers]
SHADOW = 1 << 36
"""Mappings above this hold no data: a sanitizer keeps terabytes of address space for its notes."""


def copies(pid: int, needle: bytes) -> int:
    """How often ``needle`` stands in the readable memory of another process."""
    found = 0
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            span, mode = line.split()[:2]
            if "r" not in mode or "[v" in line:
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            if end - start > SHADOW:
                continue
            try:
                found += os.pread(mem.fileno(), end - start, start).count(needle)
            except OSError:
                continue
    return found


class TestWiping:
    @pytest.mark.parametrize("p", [pytest.param(p.name, id=p.name) for p in provider.available()])
    def test_keys_are_gone_from_memory_after_the_session(self, p: str) -> None:
        """Seen from outside: masters and channel keys are there while the session lives and nowhere afterwards."""
        code = """
            import sys
            from netchan._core import _selftest_crypto as core, provider
            p = provider.load(sys.argv[1])
            store = core.Store(p, "aes-256-gcm")
            root = bytearray(range(32))
            keys = core.Keys(store, root, 0)
            keys.path_add(0, 1)
            for n in range(50):
                keys.seal(0, n, 16, b"x")
            keys.open(0, 0, 0, 16, bytes(40))
            print("alive", flush=True)
            sys.stdin.readline()
            keys.close()
            print("closed", flush=True)
            sys.stdin.readline()
        """
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), p], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            secrets = [master(ROOT, 0), master(ROOT, 1), channel_key(master(ROOT, 0), 0, 16)[:32]]
            secrets.append(channel_key(master(ROOT, 1), 1, 16)[:32])
            assert child.stdout.readline() == "alive\n"
            assert all(copies(child.pid, secret) >= 1 for secret in secrets)
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "closed\n"
            assert [copies(child.pid, secret) for secret in secrets] == [0, 0, 0, 0]
            child.stdin.write("\n")
            child.stdin.flush()
        assert child.returncode == 0

    @pytest.mark.skipif(not core.HAVE_XMM, reason="reads the vector registers of x86-64")
    @pytest.mark.parametrize("call", ["key", "seal", "open"])
    @pytest.mark.parametrize(("p", "cipher"), PAIRS)
    def test_no_key_stays_in_a_vector_register(self, p: provider.Provider, cipher: str, call: str) -> None:
        """What stays there is written to the stack by the next lazily bound call of any library, and not wiped."""
        key = bytes(range(1, 33))
        registers = core.Context(p, cipher).registers_after(call, key)
        for start in range(0, 32, 8):
            assert key[start : start + 8] not in registers

    def test_forked_child_reads_zeros_and_is_refused(self) -> None:
        done = run("""
            import ctypes, os, sys
            from netchan._core import _selftest_crypto as core, provider
            p = provider.load()
            store = core.Store(p, p.ciphers[0])
            keys = core.Keys(store, bytearray(range(32)), 0)
            keys.path_add(0, 1)
            assert isinstance(keys.seal(0, 0, 16, b"x"), bytes)
            pages = store.pages()
            assert all(any(ctypes.string_at(*page)) for page in pages)
            pid = os.fork()
            if pid == 0:
                zero = not any(any(ctypes.string_at(*page)) for page in pages)
                refused = (keys.seal(0, 1, 16, b"x"), keys.open(0, 0, 0, 16, bytes(40)), keys.update(), keys.tick(0),
                           keys.export(b"l", b"", 32), keys.mix_announced(1, bytes(32)))
                os._exit(0 if zero and not store.alive() and set(refused) == {-15} else 1)
            status = os.waitpid(pid, 0)[1]
            assert store.alive() and isinstance(keys.seal(0, 1, 16, b"x"), bytes)
            print(status)
        """)
        assert done.stdout.strip() == "0", done.stderr

    def test_secrets_stay_out_of_core_dumps_and_swap(self) -> None:
        store = core.Store(P, P.ciphers[0])
        flags: dict[int, str] = {}
        start = 0
        with Path("/proc/self/smaps").open() as smaps:
            for line in smaps:
                if "-" in line.split()[0] and ":" not in line.split()[0]:
                    start = int(line.split("-")[0], 16)
                elif line.startswith("VmFlags:"):
                    flags[start] = line
        for address, _length in store.pages():
            assert " dd" in flags[address]
            assert " wf" in flags[address]
            # AddressSanitizer makes mlock do nothing, and says that it worked
            if store.stats()["locked"] and "libasan" not in Path("/proc/self/maps").read_text():
                assert " lo" in flags[address]
