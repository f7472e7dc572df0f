"""Values on disk: one file of one channel, sealed, without a name, as a ring of bounded length.

Layer 5: the only module of the layer that does I/O, on files only; waits for nothing but the disk. Not thread-safe: its
owner (spilling.py) calls it under the channel's lock. Spec: docs/spec/channel-end.md §8.1.

A record is number u64, length u32, stamp f64, tag over these and of the value, sealed value. Records follow one another
and wrap around at the end of the ring. A number is used for one seal only: one whose write failed is passed over, and
the reader, which knows those, takes no other than the next.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netchan.errors import ForkError

_HEAD: Final = struct.Struct("<QId")
_TAG_BYTES: Final = 16
OVERHEAD: Final = _HEAD.size + _TAG_BYTES
"""Bytes of a record beside those of its value."""
VALUE_MAX: Final = (1 << 31) - 1 - OVERHEAD
"""Longest value that one seal takes."""
KEEP_BYTES: Final = 64 << 10
"""What an empty file may keep, so that a channel that is full now and then does not cut its file each time."""


class SpoolFault(Exception):
    """What was written cannot be read back: the disk failed, or somebody changed the file."""


class Spool:
    """Values in order, on disk.

    Args:
        directory: where the file is made, with the first value.
        max_bytes: most that it holds, and longest that it gets.

    Attributes:
        count: values in it. used: bytes of them, with what each has beside its value.
        written, written_bytes: the same, of all that ever were in it.
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_burnt",
        "_cipher",
        "_fd",
        "_forked",
        "_long",
        "_next",
        "_number",
        "_wrap",
        "count",
        "directory",
        "max_bytes",
        "used",
        "written",
        "written_bytes",
    )

    def __init__(self, directory: str, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.count = self.used = 0
        self.written = self.written_bytes = 0
        self._fd = -1
        self._cipher: AESGCM | None = None
        self._forked = False
        self._at = 0  # where the oldest begins
        self._wrap = max_bytes  # where the ring ends
        self._long = 0  # how long the file is, at most
        self._next = 0  # number of the oldest
        self._number = 0  # of the next seal
        self._burnt: deque[list[int]] = deque()  # [number, how many]: seals that are in no record
        _spools.add(self)

    def fits(self, n: int) -> bool:
        """True when a value of ``n`` bytes has room."""
        most = self.max_bytes if self._straight() else self._wrap
        return self.used + n + OVERHEAD <= most

    def append(self, data: Any, stamp: float) -> None:
        """Write a value behind the others; it must fit.

        Args:
            data: bytes-like; not kept.
            stamp: goes with it.

        Raises:
            OSError: it is not in the file, and everything else is as before.
            ForkError.
        """
        self.check_fork()
        if self._fd < 0:
            self._fd = _nameless(self.directory)
            self._cipher = AESGCM(AESGCM.generate_key(256))
        cipher = self._cipher
        assert cipher is not None, "made with the file"
        number = self._number
        self._number = number + 1
        head = _HEAD.pack(number, len(data), stamp)
        sealed = cipher.encrypt(_nonce(number), data, head)
        size = len(head) + len(sealed)
        try:
            self._place((head, sealed), size)
        except OSError:
            if self._burnt and sum(self._burnt[-1]) == number:
                self._burnt[-1][1] += 1
            else:
                self._burnt.append([number, 1])
            raise
        self.used += size
        self.count += 1
        self.written += 1
        self.written_bytes += size

    def head(self) -> tuple[bytes, float]:
        """The oldest value and its stamp; there must be one. Raises SpoolFault, ForkError."""
        data, stamp, _, _ = self._record(self._at, self._expected(self._next, self._burnt))
        return data, stamp

    def drop_head(self, n: int) -> None:
        """The oldest value, of ``n`` bytes, has gone on."""
        size = n + OVERHEAD
        self._next = self._expected(self._next, self._burnt) + 1
        while self._burnt and sum(self._burnt[0]) <= self._next:
            self._burnt.popleft()
        self.count -= 1
        self.used -= size
        self._at = (self._at + size) % self._wrap
        if not self.count:
            self._cut()

    def clear(self) -> None:
        """Throw everything away."""
        self.count = self.used = 0
        self._next = self._number
        self._burnt.clear()
        self._cut()

    def each(self) -> Iterator[bytes]:
        """The values, oldest first, which stay. Raises SpoolFault, ForkError; nothing may be changed meanwhile."""
        at, number = self._at, self._next
        burnt = deque(self._burnt)
        for _ in range(self.count):
            data, _, at, number = self._record(at, self._expected(number, burnt))
            yield data

    def close(self) -> None:
        """Close the file, which ends it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: the file is the parent's."""
        if self._fd >= 0:
            self._forked = True
            self.close()

    def check_fork(self) -> None:
        """Raise ForkError where the file is that of another process."""
        if self._forked:
            raise ForkError("the file of this channel belongs to the parent process; make a new channel here")

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:  # getattr: it was never made
            self.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _expected(self, number: int, burnt: deque[list[int]]) -> int:
        """The number that comes next, from ``number`` on."""
        for first, n in burnt:
            if first > number:
                break
            if number < first + n:
                number = first + n
        return number

    def _record(self, at: int, number: int) -> tuple[bytes, float, int, int]:
        """(value, stamp, where the next record begins, the number after) of the record there, which has this number."""
        self.check_fork()
        cipher = self._cipher
        assert cipher is not None, "made with the first record"
        try:
            head = self._read(at, _HEAD.size)
            found, n, stamp = _HEAD.unpack(head)
            if found != number or n + OVERHEAD > self.used:
                raise SpoolFault("a record is not the one that was written there")
            at = (at + _HEAD.size) % self._wrap
            data = cipher.decrypt(_nonce(number), self._read(at, n + _TAG_BYTES), head)
        except InvalidTag:
            raise SpoolFault("a record was changed on the disk") from None
        except OSError as error:
            raise SpoolFault(f"the disk failed: {error.strerror}") from error
        return data, stamp, (at + n + _TAG_BYTES) % self._wrap, number + 1

    def _straight(self) -> bool:
        """True when the records do not wrap around, so that the ring may get another length."""
        return self._at + self.used <= self._wrap

    def _place(self, parts: tuple[bytes, bytes], size: int) -> None:
        """Write a record; on a disk that is full in the place of records that have left, if they were as long."""
        straight = self._straight()
        if straight:
            self._wrap = self.max_bytes
        try:
            self._write(parts)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not straight or size > self._at:
                raise
            self._wrap = self._at + self.used
            try:
                self._write(parts)
            except OSError:
                self._wrap = self.max_bytes
                raise

    def _write(self, parts: tuple[bytes, bytes]) -> None:
        at = (self._at + self.used) % self._wrap
        left = [memoryview(part) for part in parts]
        while left:
            room = self._wrap - at
            now: list[memoryview] = []
            for view in left:
                if room:
                    now.append(view[:room])
                    room -= len(now[-1])
            done = os.pwritev(self._fd, now, at)
            if not done:
                raise OSError(errno.EIO, "nothing was written")
            self._long = max(self._long, at + done)
            at = (at + done) % self._wrap
            while left and done >= len(left[0]):
                done -= len(left[0])
                del left[0]
            if done:
                left[0] = left[0][done:]

    def _read(self, at: int, n: int) -> bytes:
        out = b""
        while len(out) < n:
            part = os.pread(self._fd, min(n - len(out), self._wrap - at), at)
            if not part:
                raise OSError(errno.EIO, "the file is shorter than what was written")
            at = (at + len(part)) % self._wrap
            out = out + part if out else part
        return out

    def _cut(self) -> None:
        """Nothing is in it: begin at its start again, and give the disk back."""
        self._at = 0
        self._wrap = self.max_bytes
        if self._long > KEEP_BYTES and self._fd >= 0:
            os.ftruncate(self._fd, 0)
            self._long = 0


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _nameless(directory: str) -> int:
    """A descriptor of a fresh file that has no name, or has none any more."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # what a kernel or a file system says that does not know it
        if error.errno not in (errno.EISDIR, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
            raise
    name = Path(directory, f".netchan-{secrets.token_hex(16)}")
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    name.unlink()
    return fd


_spools: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()


def _after_fork() -> None:
    for spool in list(_spools):
        spool.forget()


os.register_at_fork(after_in_child=_after_fork)
