"""What the handles of a channel end share, whichever front they belong to: names and counts, and their own end.

Layer 5; both fronts use this file as it is. An endpoint counts its handles (``Endpoint.handles``): closing the last
one, or losing it to the collector, ends a direction. Finalisers mark and warn, and do nothing that could wait.
Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn

from netchan.channel.base import ChannelStats, Endpoint


class Handle:
    """What ``Sender``, ``Receiver`` and ``Channel`` share."""

    __slots__ = ("__weakref__", "_ep", "_rxq", "_shut", "_try_recv", "_try_send", "_txq")

    _sends = False
    _receives = False
    _counted = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._ep = endpoint
        self._txq = endpoint.tx_waiters
        self._rxq = endpoint.rx_waiters
        self._try_send = endpoint.try_send
        self._try_recv = endpoint.try_recv
        self._shut = False
        handles = endpoint.handles
        if self._sends:
            handles.sending.add(id(self))
        if self._receives:
            handles.receiving.add(id(self))
        if self._counted:
            handles.counted.add(id(self))

    @property
    def name(self) -> str:
        """The channel's name; "" in process."""
        return self._ep.name

    @property
    def capacity(self) -> int | None:
        """Values per direction that can be accepted and not yet received; None while the other side has not said."""
        return self._ep.capacity

    @property
    def pending(self) -> int:
        """Values here, not yet taken."""
        return self._ep.pending()

    def stats(self) -> ChannelStats:
        """A frozen snapshot of the counts."""
        return self._ep.stats()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return type(self) is type(other) and self._ep is other._ep
        return NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), id(self._ep)))

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: it belongs to this process; open one over there")

    def __repr__(self) -> str:
        ep = self._ep
        kind = getattr(ep.type, "__name__", None) or str(ep.type)
        over = [word for word, yes in (("send over", ep.send_over), ("recv over", ep.recv_over)) if yes]
        state = ", ".join(over) or "open"
        name = f" {ep.name!r}" if ep.name else ""
        peer = f" peer={ep.peer_id}" if ep.peer_id else ""
        return f"<{type(self).__name__}[{kind}]{name} {state}{peer} pending={ep.pending()}/{ep.capacity}>"

    def __del__(self) -> None:
        ep: Endpoint | None = getattr(self, "_ep", None)
        if ep is None:
            return
        handles, me = ep.handles, id(self)
        sent, received = me in handles.sending, me in handles.receiving
        handles.sending.discard(me)
        handles.receiving.discard(me)
        handles.counted.discard(me)
        if sent and not handles.sending and ep.drop_send() and not sys.is_finalizing():
            warnings.warn(
                f"the last sender of channel {ep.name!r} was garbage-collected without close(): the receiver gets "
                "ChannelAborted, not an end; call close() or use a with-block",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        if received and not handles.receiving:
            ep.drop_recv()
