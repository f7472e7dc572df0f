"""What a handle holds after its end was sent away in a value: an endpoint on which nothing can happen.

Layer 5. Spec: docs/spec/channel-end.md §9.
"""

from __future__ import annotations

from typing import Any, NoReturn

from netchan.channel.flow import CLEAN, Flow
from netchan.channel.local import LocalEndpoint
from netchan.errors import channel_closed

WHY = "it was sent away in a value"
ADVICE = "send tx.clone() to keep a sender of your own, or share the whole Channel"


class GoneEndpoint(LocalEndpoint):
    """Both directions over; every verb says that the end has moved."""

    __slots__ = ()

    def __init__(self, name: str, type: Any) -> None:
        flow = Flow(1)
        flow.end = CLEAN
        flow.over_tx = True
        super().__init__(type, flow, flow)
        self.name = name

    def check_send(self) -> None:
        """Raise what a send gets now."""
        raise channel_closed(self.name, self.peer_id, WHY, ADVICE)

    def _raise_recv(self, flow: Flow) -> NoReturn:
        raise channel_closed(self.name, self.peer_id, WHY, ADVICE)
