"""What a channel that spills has accepted beyond its room: values in its file, and what the file had no room for.

Layer 5. Not thread-safe: used under the channel's lock. The values in memory (``tail``) are those of permits and of
``send_many`` alone, which were accepted before their length was known; while there are any, nothing else is accepted.
Spec: docs/spec/channel-end.md §8.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from netchan.channel.overflow import Spill
from netchan.channel.spool import OVERHEAD, VALUE_MAX, Spool, SpoolFault
from netchan.errors import CodecError, MessageTooLarge, SpillError, spill_error

CARRIES_NONE = "a channel that spills to disk carries no channels: open it without overflow=spill(...)"


class Backlog:
    """See the module head.

    Args:
        policy: as given.
        name, peer_id: of the channel, for messages.

    Attributes:
        spool: the file. tail: (value, stamp) in memory, behind those of the file.
        failure: a write that failed after its value was accepted, to be told to who comes next.
    """

    __slots__ = ("_head", "_name", "_peer_id", "failure", "longest", "policy", "spool", "tail")

    def __init__(self, policy: Spill, name: str = "", peer_id: str = "") -> None:
        self.policy = policy
        self.spool = Spool(policy.path, policy.max_bytes)
        self.longest = min(policy.max_bytes - OVERHEAD, VALUE_MAX)
        self.tail: deque[tuple[bytes, float]] = deque()
        self.failure: SpillError | None = None
        self._head: tuple[bytes, float] | None = None
        self._name, self._peer_id = name, peer_id

    def __len__(self) -> int:
        return self.spool.count + len(self.tail)

    def check_size(self, n: int) -> None:
        """Raise MessageTooLarge for a value that the file could not hold if it were empty."""
        if n > self.longest:
            raise MessageTooLarge(
                f"channel {self._name!r}: a value of {n} bytes has no room in the file that this channel spills to, "
                f"which takes {self.longest} at most; send it in parts, or give spill() a larger max_bytes",
                needed=n,
                limit=self.longest,
            )

    def has_room(self, n: int = 0) -> bool:
        """True when ``put`` of ``n`` bytes has room."""
        return not self.tail and self.spool.fits(n)

    def put(self, data: Any, stamp: float) -> None:
        """Accept a value that has room. SpillError: it is not accepted."""
        try:
            self.spool.append(data, stamp)
        except OSError as error:
            raise spill_error(self._name, self._peer_id, self.policy.path, error) from error
        self.failure = None

    def put_anyway(self, data: Any, stamp: float) -> None:
        """Accept a value, whether it has room or not; never fails."""
        if self.has_room(len(data)):
            try:
                self.put(data, stamp)
                return
            except SpillError as error:
                self.failure = error
        self.tail.append((bytes(data), stamp))

    def tell_failure(self) -> None:
        """Raise what nobody was told yet, once."""
        failure, self.failure = self.failure, None
        if failure is not None and self.tail:
            raise failure

    def peek(self) -> tuple[bytes, float]:
        """The oldest value and its stamp; there must be one. SpoolFault: it cannot be read."""
        if self._head is None:
            self._head = self.spool.head() if self.spool.count else self.tail[0]
        return self._head

    def pop(self) -> None:
        """The oldest value has gone on; what was in memory takes its room in the file."""
        data, _ = self.peek()
        self._head = None
        if self.spool.count:
            self.spool.drop_head(len(data))
        else:
            self.tail.popleft()
        while self.tail and self.spool.fits(len(self.tail[0][0])):
            try:
                self.spool.append(*self.tail[0])
            except OSError:
                break  # it is safe where it is
            self.tail.popleft()

    def clear(self) -> int:
        """Throw everything away; how many values that were."""
        n = len(self)
        self._head = None
        self.tail.clear()
        self.spool.clear()
        return n

    def close(self) -> int:
        """Throw everything away, the file too: nothing comes any more. How many values that were."""
        n = self.clear()
        self.spool.close()
        return n

    def each(self) -> Iterator[bytes]:
        """All values, oldest first, which stay; nothing may be changed meanwhile. SpoolFault."""
        yield from self.spool.each()
        for data, _ in self.tail:
            yield data


class Undelivered(Sequence[Any]):
    """Values that were accepted and never sent: some at hand, the rest read from the file when they are looked at.

    Args:
        first: at hand.
        backlog: behind them; it does not change any more.
        decode: of its bytes.
    """

    def __init__(self, first: list[Any], backlog: Backlog, decode: Callable[[bytes], Any]) -> None:
        self._first, self._backlog, self._decode = first, backlog, decode
        self._at = 0
        self._rest: Iterator[bytes] | None = None

    def __len__(self) -> int:
        return len(self._first) + len(self._backlog)

    def __iter__(self) -> Iterator[Any]:
        """OSError: the file cannot be read any more."""
        yield from self._first
        try:
            for data in self._backlog.each():
                yield self._decode(data)
        except SpoolFault as fault:
            raise OSError(str(fault)) from fault

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Going forwards reads each value once; going back begins at the first. OSError as iteration."""
        if isinstance(index, slice):
            wanted = range(len(self))[index]
            found = {i: self[i] for i in sorted(wanted)}
            return [found[i] for i in wanted]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"no value number {index}: there are {len(self)}")
        if index < len(self._first):
            return self._first[index]
        index -= len(self._first)
        if self._rest is None or index < self._at:
            self._rest, self._at = self._backlog.each(), 0
        try:
            while True:
                data = next(self._rest)
                self._at += 1
                if self._at > index:
                    return self._decode(data)
        except SpoolFault as fault:
            self._rest = None
            raise OSError(str(fault)) from fault

    def __repr__(self) -> str:
        return f"<{len(self)} values that were never sent>"


def refuse_ends() -> CodecError:
    """The error for a value that holds channels or ends of them."""
    return CodecError(CARRIES_NONE)
