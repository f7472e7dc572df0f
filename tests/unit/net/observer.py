"""Who sees the datagrams of a handshake, knows the node id and has an identity of his own: what he can make of it."""

from __future__ import annotations

import os
from typing import Any

from netchan.net import gate as g
from netchan.net import handshake as hs
from netchan.net.gate import Gate
from netchan.net.identity import DEFAULT_NETWORK, Identity
from netchan.net.params import Refusal
from netchan.net.trust import make_policy

UNTRUSTED = int(Refusal.UNTRUSTED).to_bytes(2, "big")
GONE = int(Refusal.GONE).to_bytes(2, "big")
DOWN: dict[str, tuple[int, bytes]] = {
    "REPLY": (g.REPLY, os.urandom(1_300)),
    "short REPLY": (g.REPLY, b"x"),
    "CLOSE": (g.CLOSE, UNTRUSTED),
    "CLOSE with a false proof": (g.CLOSE, GONE + os.urandom(32)),
    "VERSIONS": (g.VERSIONS, b"\x01\x07"),
    "malformed COOKIE": (g.COOKIE, b"12345"),
    "ACCEPT": (g.ACCEPT, os.urandom(80)),
    "RESUMED": (g.RESUMED, os.urandom(200)),
    "NO_TICKET": (g.NO_TICKET, b"\0"),
    "FINISH": (g.FINISH, os.urandom(300)),
    "HELLO": (g.HELLO, os.urandom(300)),
    "JOIN": (g.JOIN, os.urandom(81)),
}
"""Name -> (type, body) of what he can say to the side that dials; COOKIE is a case of its own."""
UP: dict[str, tuple[int, bytes]] = {
    "FINISH": (g.FINISH, os.urandom(400)),
    "short FINISH": (g.FINISH, b"x"),
    "CLOSE": (g.CLOSE, UNTRUSTED),
    "HELLO": (g.HELLO, os.urandom(400)),
    "RESUME": (g.RESUME, os.urandom(400)),
    "REPLY": (g.REPLY, os.urandom(400)),
}


class Observer:
    """See the module head.

    Args:
        id_pub: of the node that is dialled by its id.
        network_id: of both.
        pq: of both.

    Attributes:
        asked: the first message of the exchange that he saw last.
    """

    def __init__(self, id_pub: bytes, network_id: bytes = DEFAULT_NETWORK, pq: Any = "require") -> None:
        self._id_pub = id_pub
        self._keys = g.named_keys(id_pub, network_id)
        self._config = hs.HandshakeConfig(Identity.generate(), network_id=network_id, pq=pq)
        self.asked = b""

    def note(self, up: bool, data: bytes) -> None:
        """He sees a datagram."""
        if up and data[0] in (g.HELLO, g.RESUME, g.JOIN):
            self.asked = data

    def make(self, up: bool, kind: int, body: bytes, scid: bytes = b"") -> bytes:
        """A message of the exchange, or of another one."""
        header = g.parse_header(self.asked)._replace(kind=kind)
        if scid:
            header = header._replace(scid=scid)
        return g.seal_frame(header, body, self._keys.to_responder if up else self._keys.to_initiator)

    def own_reply(self, wall_s: float) -> bytes:
        """A REPLY to a HELLO of mode XX that opens: gate key and prologue are public, and it names his own identity."""
        config = self._config
        policy = make_policy("any", own_id=config.identity.id_pub, dialling=False)
        gate = Gate(config.network_id, self._id_pub, config.primitives)
        me = hs.Responder(config, policy, gate, os.urandom, 0)
        make = me._make_noise

        def named(mode: int, header: g.Header, static: Any, psk0: Any, **keys: Any) -> None:
            make(mode, header, static, psk0, **(keys | {"responder_id": self._id_pub}))

        me._make_noise = named  # type: ignore[method-assign]
        (event,) = me.feed(self.asked, wall_s, 1)
        assert isinstance(event, hs.Send) and event.data[0] == g.REPLY
        return event.data
