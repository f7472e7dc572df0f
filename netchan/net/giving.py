"""The tickets that this node gives to those who dial it: one in the first records of each session, newer ones later.

Layer: net (L3). On the worker's thread. Which session gave a ticket is known for as long as the session lives: who
begins another one with it, and says that the old one is over there, ends what is left of it here at once.
A forked child begins with an empty table. Spec: docs/spec/handshake.md §12.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Final

from netchan.net.secret import wipe
from netchan.net.ticket import ID_LEN, Context, ticket_keys

if TYPE_CHECKING:
    from netchan._engine.session_handle import Session
    from netchan.net.machine import Established, HandshakeConfig

RENEW_S: Final = 6 * 3_600.0
"""A session gets a newer ticket after this: what its peer holds always has some hours left."""

_given: Final[weakref.WeakValueDictionary[bytes, Session]] = weakref.WeakValueDictionary()


class Giver:
    """Gives tickets to the peer of one session.

    Args:
        config: what this node says and wants.
        event: the handshake of the session.
    """

    __slots__ = ("_caps", "_config", "_record", "given_at")

    def __init__(self, config: HandshakeConfig, event: Established) -> None:
        self._config, self._record, self._caps = config, event.claim.record, event.agreement.caps
        self.given_at = time.monotonic()

    def give(self, session: Session) -> None:
        """Send one more ticket; of the older ones each is still good for one use."""
        config, id16 = self._config, os.urandom(ID_LEN)
        context = Context(config.identity.id_pub, config.network_id, config.primitives)
        secret = session.ticket_secret(id16)
        life_s, ticket = ticket_keys().issue(id16, secret, self._record, self._caps, context, time.monotonic_ns())
        wipe(secret)
        session.ticket_send(life_s, ticket)
        _given[id16] = session
        self.given_at = time.monotonic()

    def renew(self, session: Session) -> None:
        """Give another one if it is time; asked now and then."""
        if time.monotonic() - self.given_at >= RENEW_S:
            self.give(session)


def wants(config: HandshakeConfig, event: Established) -> bool:
    """True if both sides know tickets, and this one takes what it would give."""
    both = event.local.params.tickets and event.remote.params.tickets
    return bool(both) and not event.initiator and not config.require_live


def replaced(id16: bytes) -> bool:
    """A ticket with this id has begun a session, and the one that gave it is over at its peer; True: here too, now."""
    session = _given.pop(id16, None)
    return session is not None and session.replaced()


os.register_at_fork(after_in_child=_given.clear)
