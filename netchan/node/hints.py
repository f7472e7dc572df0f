"""A waiter whose wake-up is a call.

Layer 6.
"""

from __future__ import annotations

from collections.abc import Callable

from netchan.net.wait import Waiter


class Hint(Waiter):
    """Joins a queue to have something called when it is woken; nothing waits with it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call: Callable[[], object] | None = call

    def forget(self) -> None:
        """Call nothing any more."""
        self._call = None

    def excuse(self, error: BaseException) -> bool:
        """Never asked: nothing waits with it."""
        return False

    def _notify(self) -> None:
        call = self._call
        if call is not None:
            call()
