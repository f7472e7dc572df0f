"""The file behind a channel that spills (docs/spec/channel-end.md §8.1)."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from netchan.channel import spool as module
from netchan.channel.backlog import Backlog, Undelivered
from netchan.channel.overflow import Spill, spill
from netchan.channel.spool import KEEP_BYTES, OVERHEAD, Spool, SpoolFault
from netchan.errors import ConfigError, ForkError, MessageTooLarge, SpillError


@pytest.fixture
def made(tmp_path: Path) -> Any:
    spools: list[Spool] = []

    def make(max_bytes: int = 4096) -> Spool:
        spools.append(Spool(str(tmp_path), max_bytes))
        return spools[-1]

    yield make
    for one in spools:
        one.close()


def size(spool: Spool) -> int:
    return os.fstat(spool._fd).st_size


class TestRing:
    def test_values_come_back_in_order_with_their_stamps(self, made: Any) -> None:
        spool = made()
        for n in range(20):
            spool.append(b"%d" % n, float(n))
        assert list(spool.each()) == [b"%d" % n for n in range(20)]
        for n in range(20):
            assert spool.head() == (b"%d" % n, float(n))
            spool.drop_head(len(b"%d" % n))
        assert spool.count == spool.used == 0 and spool.written == 20

    def test_file_is_never_longer_than_it_may_be_and_wraps(self, made: Any) -> None:
        spool, inside, rng = made(4096), deque[bytes](), random.Random(7)
        for n in range(3000):
            data = bytes([n % 251]) * rng.randrange(0, 700)
            while not spool.fits(len(data)):
                assert spool.head()[0] == inside[0]
                spool.drop_head(len(inside.popleft()))
            spool.append(data, 0.5)
            inside.append(data)
            assert spool.used <= 4096 and size(spool) <= 4096
            if n % 100 == 0:
                assert list(spool.each()) == list(inside)
        assert spool.written_bytes > 100 * 4096

    def test_value_that_fills_it_fits_and_one_byte_more_does_not(self, made: Any) -> None:
        spool = made(4096)
        assert spool.fits(4096 - OVERHEAD) and not spool.fits(4096 - OVERHEAD + 1)
        spool.append(bytes(4096 - OVERHEAD), 0)
        assert not spool.fits(0) and size(spool) == 4096
        assert spool.head()[0] == bytes(4096 - OVERHEAD)

    def test_empty_file_gives_the_disk_back(self, made: Any) -> None:
        spool = made(1 << 20)
        for _ in range(4):
            spool.append(bytes(KEEP_BYTES), 0)
        assert size(spool) > 4 * KEEP_BYTES
        for _ in range(4):
            spool.drop_head(KEEP_BYTES)
        assert size(spool) == 0
        spool.append(bytes(KEEP_BYTES), 0)
        spool.append(bytes(KEEP_BYTES), 0)
        spool.clear()
        assert size(spool) == 0 and spool.count == 0
        spool.append(b"again", 1.5)
        assert spool.head() == (b"again", 1.5)


class TestSecrecy:
    def test_no_value_is_on_the_disk_in_the_clear_and_equal_ones_differ(self, made: Any) -> None:
        spool = made()
        spool.append(b"secret" * 20, 0)
        spool.append(b"secret" * 20, 0)
        raw = os.pread(spool._fd, 4096, 0)
        assert b"secret" not in raw
        assert raw[20:156] != raw[176:312] and len(raw) == 2 * (120 + OVERHEAD)

    def test_two_files_have_two_keys(self, made: Any) -> None:
        one, other = made(), made()
        one.append(b"value", 0)
        other.append(b"value", 0)
        assert os.pread(one._fd, 99, 20) != os.pread(other._fd, 99, 20)
        os.pwrite(one._fd, os.pread(other._fd, 99, 0), 0)
        with pytest.raises(SpoolFault):
            one.head()

    @pytest.mark.parametrize("at", [0, 8, 12, 20, 30, 45])
    def test_changed_byte_is_found(self, made: Any, at: int) -> None:
        spool = made()
        spool.append(bytes(10), 3.0)
        byte = os.pread(spool._fd, 1, at)
        os.pwrite(spool._fd, bytes([byte[0] ^ 1]), at)
        with pytest.raises(SpoolFault):
            spool.head()

    def test_records_cannot_change_places_nor_come_again(self, made: Any) -> None:
        spool = made()
        spool.append(b"one", 0)
        spool.append(b"two", 0)
        one = os.pread(spool._fd, 3 + OVERHEAD, 0)
        os.pwrite(spool._fd, one, 3 + OVERHEAD)
        assert spool.head()[0] == b"one"
        spool.drop_head(3)
        with pytest.raises(SpoolFault):
            spool.head()

    def test_file_has_no_name_and_is_for_its_user_alone(self, made: Any, tmp_path: Path) -> None:
        spool = made()
        assert spool._fd == -1, "nothing is made before it is needed"
        spool.append(b"x", 0)
        stat = os.fstat(spool._fd)
        assert stat.st_nlink == 0 and stat.st_mode & 0o777 == 0o600 and not list(tmp_path.iterdir())
        assert not os.get_inheritable(spool._fd)

    def test_where_there_are_no_nameless_files_the_name_is_taken_away(
        self, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = os.open, []

        def refuse(path: Any, flags: int, *rest: Any) -> int:
            asked.append(flags)
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "not here")
            return real(path, flags, *rest)

        monkeypatch.setattr(module.os, "open", refuse)
        spool = made()
        spool.append(b"x", 0)
        stat = os.fstat(spool._fd)
        assert len(asked) == 2 and asked[1] & os.O_EXCL and asked[1] & os.O_NOFOLLOW
        assert stat.st_nlink == 0 and stat.st_mode & 0o777 == 0o600 and not list(tmp_path.iterdir())


class TestFaults:
    def test_failed_write_leaves_everything_as_it_was_and_its_number_is_not_used_again(
        self, made: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool, real = made(), os.pwritev
        numbers: list[int] = []
        nonce = module._nonce
        monkeypatch.setattr(module, "_nonce", lambda n: numbers.append(n) or nonce(n))
        spool.append(b"before", 0)

        def half(fd: int, parts: Any, at: int) -> int:
            if len(numbers) % 2 == 0:
                raise OSError(errno.ENOSPC, "no space")
            return real(fd, parts, at)

        monkeypatch.setattr(module.os, "pwritev", half)
        for n in range(3):
            with pytest.raises(OSError, match="no space"):
                spool.append(b"failed", 0)
            spool.append(b"%d" % n, 0)
        with pytest.raises(OSError, match="no space"):
            spool.append(b"failed", 0)
        assert spool.count == 4 and len(numbers) == len(set(numbers)) == 8
        assert list(spool.each()) == [b"before", b"0", b"1", b"2"]
        for data in (b"before", b"0", b"1", b"2"):
            assert spool.head()[0] == data
            spool.drop_head(len(data))
        assert spool.count == 0

    def test_many_failures_in_a_row_cost_no_memory(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        spool = made()
        spool.append(b"before", 0)
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "pwritev", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
            for _ in range(100):
                with pytest.raises(OSError):
                    spool.append(b"failed", 0)
        assert len(spool._burnt) == 1
        spool.append(b"after", 0)
        assert list(spool.each()) == [b"before", b"after"]

    def test_full_disk_lends_the_place_of_what_has_left(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk with room for 2 000 bytes under a file that may be longer: no more is needed, and none is lost."""
        spool, real, inside = made(1 << 20), os.pwritev, deque[bytes]()
        room, rng, refused = 2000, random.Random(3), 0

        def small(fd: int, parts: Any, at: int) -> int:
            if at >= room:
                raise OSError(errno.ENOSPC, "no space")
            left, some = room - at, []
            for part in parts:
                some.append(part[:left])
                left -= len(some[-1])
            return real(fd, some, at)

        monkeypatch.setattr(module.os, "pwritev", small)
        for n in range(2000):
            data = bytes([n % 251]) * rng.randrange(0, 200)
            if n == 1000:
                room = 3000  # somebody has tidied up
            while True:
                try:
                    if spool.fits(len(data)):
                        spool.append(data, 0)
                        break
                except OSError:
                    refused += 1
                assert spool.head()[0] == inside[0]
                spool.drop_head(len(inside.popleft()))
            inside.append(data)
            assert size(spool) <= room
            if n % 50 == 0:
                assert list(spool.each()) == list(inside)
        assert refused > 10 and spool.written == 2000

    def test_short_writes_are_gone_on_with(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        spool, real = made(), os.pwritev
        monkeypatch.setattr(module.os, "pwritev", lambda fd, parts, at: real(fd, [parts[0][:7]], at))
        for n in range(200):
            if not spool.fits(100):
                spool.drop_head(100)
            spool.append(bytes([n]) * 100, 0)
        assert [value[0] for value in spool.each()] == list(range(200 - spool.count, 200))

    def test_file_that_somebody_cut_is_a_fault(self, made: Any) -> None:
        spool = made()
        spool.append(bytes(100), 0)
        os.ftruncate(spool._fd, 50)
        with pytest.raises(SpoolFault, match="the disk failed"):
            spool.head()

    def test_child_has_no_part_in_the_file_of_its_parent(self, made: Any) -> None:
        spool = made()
        for _ in range(3):
            spool.append(bytes(1000), 0)
        child = os.fork()
        if not child:
            code = 1
            try:
                for call in (spool.head, lambda: spool.append(b"x", 0)):
                    try:
                        call()
                    except ForkError:
                        code += 10
                spool.clear()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 21
        assert len(list(spool.each())) == 3


class TestBacklog:
    def backlog(self, tmp_path: Path, max_bytes: int = 4096) -> Backlog:
        return Backlog(Spill(str(tmp_path), max_bytes), "jobs", "peer")

    def test_what_was_accepted_anyway_stays_behind_and_takes_its_room_later(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.put(bytes(4000), 1.0)
        backlog.put_anyway(bytearray(b"a" * 100), 2.0)
        backlog.put_anyway(b"b" * 3990, 3.0)
        assert len(backlog) == 3 and len(backlog.tail) == 2 and not backlog.has_room()
        backlog.pop()
        assert backlog.spool.count == 1 and len(backlog.tail) == 1
        assert [len(value) for value in backlog.each()] == [100, 3990]
        assert backlog.peek() == (b"a" * 100, 2.0)
        backlog.pop()
        assert backlog.spool.count == 1 and not backlog.tail
        assert backlog.peek() == (b"b" * 3990, 3.0)
        backlog.pop()
        assert len(backlog) == 0 and backlog.has_room()

    def test_value_in_memory_is_a_copy(self, tmp_path: Path) -> None:
        backlog, buffer = self.backlog(tmp_path), bytearray(b"x" * 10)
        backlog.put(bytes(4050), 0)
        backlog.put_anyway(buffer, 0)
        buffer[:] = b"y" * 10
        assert list(backlog.each())[1] == b"x" * 10

    def test_size_is_refused_with_figures(self, tmp_path: Path) -> None:
        with pytest.raises(MessageTooLarge, match=r"'jobs'.*max_bytes") as caught:
            self.backlog(tmp_path).check_size(4096 - OVERHEAD + 1)
        assert (caught.value.needed, caught.value.limit) == (4096 - OVERHEAD + 1, 4096 - OVERHEAD)

    def test_error_of_the_disk_says_where_and_why(self, tmp_path: Path) -> None:
        backlog = Backlog(Spill(str(tmp_path / "gone"), 4096), "jobs", "peer")
        with pytest.raises(SpillError, match=r"'jobs' with peer.*gone.*No such file") as caught:
            backlog.put(b"x", 0)
        assert isinstance(caught.value, OSError) and caught.value.errno == errno.ENOENT and caught.value.transient
        backlog.put_anyway(b"x", 0)
        assert list(backlog.each()) == [b"x"]
        with pytest.raises(SpillError):
            backlog.tell_failure()
        backlog.tell_failure()

    def test_report_reads_when_it_is_looked_at(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        for n in range(50):
            backlog.put(b"%d" % n, 0)
        report = Undelivered([-2, -1], backlog, int)
        everything = [-2, -1, *range(50)]
        assert len(report) == 52 and list(report) == list(report) == everything
        assert [report[i] for i in (51, 0, 20, 19, -1, -52)] == [49, -2, 18, 17, 49, -2]
        assert report[1:5] == everything[1:5] and report[::-7] == everything[::-7]
        assert 30 in report and 77 not in report
        with pytest.raises(IndexError):
            report[52]
        assert sys.getsizeof(report) < 200 and "52" in repr(report)
        os.ftruncate(backlog.spool._fd, 100)
        with pytest.raises(OSError, match="the disk failed"):
            list(report)


class TestPolicy:
    def test_path_is_a_directory_of_any_kind_of_name(self, tmp_path: Path) -> None:
        assert spill(tmp_path, 4096) == spill(str(tmp_path), 4096) == Spill(str(tmp_path), 4096)
        assert spill(os.fsencode(tmp_path), 1 << 40).path == str(tmp_path)

    @pytest.mark.parametrize("path", ["/no/such/directory", __file__, 3, None, "a\0b"])
    def test_path_that_is_none_is_refused(self, path: Any) -> None:
        with pytest.raises(ConfigError):
            spill(path, 4096)

    @pytest.mark.parametrize("max_bytes", [0, -1, 4095, True, 5000.0, "5000", None, 2**63])
    def test_length_that_cannot_be_meant_is_refused(self, tmp_path: Path, max_bytes: Any) -> None:
        with pytest.raises(ConfigError, match="at least 4096"):
            spill(tmp_path, max_bytes)
