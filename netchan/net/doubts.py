"""What an exchange over datagrams makes of messages that somebody who only watches it may have sent.

Layer: net (L3), sans-IO. Used by the machines of both sides (machine.py, join.py); a stream has none of this, because
who can put bytes into it can end it as well. mac1 keeps out who does not know the node id, or the PSK; what it alone
vouches for is forged as easily as it is read. So nothing of that ends an exchange:

1. What leads nowhere is passed over, as if it had not come; the state is what it was.
2. What says that there will be no session is remembered, and the exchange goes on for ``GRACE_NS``. What comes in that
   time and can be opened wins; else the exchange ends with what was said first.
3. Opening costs something. ``LOOKS_MAX`` are tried in ``LOOKS_NS``.

Spec: docs/spec/handshake.md §2.4.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netchan.net.params import Refusal

GRACE_NS: Final = 1_000_000_000
"""How long a true answer may come behind a refusal that may be forged (RFC 6298 §2: the first RTO)."""
LOOKS_MAX: Final = 64
"""Messages that are tried to be opened within ``LOOKS_NS``: at 0.4 ms each a tenth of a core."""
LOOKS_NS: Final = 250_000_000


class Reason(NamedTuple):
    """Why there will be no session, if nothing better comes; ``remote``: the other side is said to have said so."""

    code: Refusal
    text: str
    remote: bool


class Doubts:
    """Of one exchange.

    Attributes:
        passed: messages that led nowhere.
        reason: how it will end, if nothing better comes.
        ending: it ends by that within ``GRACE_NS``, not only when its time is over.
    """

    __slots__ = ("_looks", "_since_ns", "ending", "passed", "reason")

    def __init__(self) -> None:
        self.passed = 0
        self.reason: Reason | None = None
        self.ending = False
        self._looks = 0
        self._since_ns = 0

    def note(self, reason: Reason, *, ends: bool) -> bool:
        """A message speaks against going on; ``ends``: it would say so at once if it were true. True: end it soon."""
        self.passed += 1
        if self.reason is None or (ends and not self.ending):
            self.reason = reason
        first = ends and not self.ending
        self.ending |= ends
        return first

    def clear(self) -> None:
        """The exchange goes on with somebody who has proved himself."""
        self.reason, self.ending = None, False

    def may_look(self, now_ns: int) -> bool:
        """True if one more may be tried to be opened now; counts it."""
        if not self._looks or now_ns - self._since_ns >= LOOKS_NS:
            self._looks, self._since_ns = 0, now_ns
        self._looks += 1
        return self._looks <= LOOKS_MAX
