"""What a listener says to a datagram of a path that it does not know: that the process which had it is gone.

Layer: net (L3), sans-IO: time and randomness are arguments. One ``Resets`` for each listener, used on the worker's
thread. A process that is started again at the same address, with the same identity, has lost all sessions of the one
before; those who still talk to it would find out by silence. Each of them was told, inside the session, a connection id
for its path and a token; a datagram that ends with that token can only come from who has the identity. Both are made
from a key of the identity, so nothing is stored.

What keeps it from being turned against living paths, or against the silence of a listener:

1. Half of the connection id is a code under that key. A datagram whose id does not bear it is not answered, so who has
   never seen a datagram of a path gets nothing: strangers, scanners, garbage.
2. Code and token hang on the address to which the datagram came: a process of the same identity elsewhere cannot be
   asked for them. Who may answer at an address is the listener's to decide (Listening): one that shares it with another
   process, or with a hand-over, does not.
3. The answer is shorter than what asked for it and is bounded in number, so nobody is flooded and two listeners that
   answer each other soon fall silent.

Spec: docs/spec/handshake.md section 2.5.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from typing import Any, Final

from netchan.net.limits import TokenBuckets, address_group
from netchan.net.moved import CID
from netchan.net.secret import SecureBytes

CID_BYTES: Final = 8
NONCE_BYTES: Final = 4
"""Of a connection id these are random, the others are a code."""
TOKEN_BYTES: Final = 16
TRIES: Final = 8
"""Connection ids that are drawn until one is free; if none is, two paths share one, and one of them cannot move."""
RESET_LEAST: Final = 40
"""Bytes of a reset at least: no datagram of a path is shorter."""
RESET_SPREAD: Final = 24
"""Of so many lengths, beginning with that, one is drawn."""
RESET_RATE: Final = 1_000
"""Resets a second of one listener, ``RESET_BURST`` at once."""
RESET_BURST: Final = 200
RESET_SOURCE_RATE: Final = 50
"""Resets a second to one IPv4 address or IPv6 /64, ``RESET_SOURCE_BURST`` at once."""
RESET_SOURCE_BURST: Final = 50
RESET_SOURCES: Final = 1_024
"""Addresses whose resets are counted, least recently used out."""
_LABEL: Final = b"netchan reset v1"
_ALL: Final = "all"
_LOCAL: Final = "loopback"


class Resets:
    """See the module head.

    Args:
        key: 32 bytes, of the identity (``Identity.reset_key``); wiped by ``wipe``.
    """

    def __init__(self, key: SecureBytes) -> None:
        self._key = key
        self._all = TokenBuckets(RESET_RATE, RESET_BURST, 1)
        self._sources = TokenBuckets(RESET_SOURCE_RATE, RESET_SOURCE_BURST, RESET_SOURCES)

    def name(self, there: Any, rng: Callable[[int], bytes], taken: Callable[[bytes], bool]) -> bytes:
        """A connection id for a path, 8 bytes, and its token, 16.

        Args:
            there: our socket address, to which its datagrams come.
            rng: gives so many random bytes.
            taken: True of an id that another path has.
        """
        place = _packed(there)
        made = self._make(rng(NONCE_BYTES), place)
        for _ in range(TRIES):
            if not taken(made[:CID_BYTES]):
                break
            made = self._make(rng(NONCE_BYTES), place)
        return made

    def _make(self, nonce: bytes, place: bytes) -> bytes:
        mac = hmac.digest(self._key, _LABEL + bytes((len(place),)) + place + nonce, "sha256")
        return nonce + mac[: CID_BYTES - NONCE_BYTES] + mac[-TOKEN_BYTES:]

    def answer(self, data: bytes, there: Any, peer: Any, now_ns: int, rng: Callable[[int], bytes]) -> bytes | None:
        """What to say to a datagram that looks like one of a path and names one that is not here; None: nothing.

        Args:
            data: the datagram. Untrusted.
            there: the address to which it came.
            peer: where it came from.
            now_ns: monotonic ns.
            rng: gives so many random bytes.
        """
        if len(data) <= RESET_LEAST:
            return None  # it may be a reset itself, and there is no shorter answer
        cid = data[CID]
        known = self._make(cid[:NONCE_BYTES], _packed(there))
        if not hmac.compare_digest(known[:CID_BYTES], cid):
            return None
        source = address_group(str(peer[0])) or _LOCAL
        if not self._all.has_token(_ALL, now_ns) or not self._sources.has_token(source, now_ns):
            return None
        self._all.take(_ALL, now_ns)
        self._sources.take(source, now_ns)
        drawn = rng(RESET_LEAST + RESET_SPREAD)
        size = min(len(data) - 1, RESET_LEAST + drawn[-1] % RESET_SPREAD)
        # as any other datagram looks: what is behind the first two bits is masked there
        head = bytes((0x40 | drawn[0] & 0x3F,)) + drawn[1 : size - TOKEN_BYTES]
        return head + known[CID_BYTES:]

    def wipe(self) -> None:
        """Forget the key; nothing is made any more. Idempotent."""
        self._key.wipe()


def _packed(there: Any) -> bytes:
    """Address and port of a socket address; what else it has is the host's own business."""
    host = ipaddress.ip_address(str(there[0]).partition("%")[0])
    return host.packed + int(there[1]).to_bytes(2, "big")
