"""What an observer says to a dial over UDP: any type and body, sealed with the keys of the gate; for parsers.py."""

from __future__ import annotations

from netchan.net import gate
from netchan.net.handshake import HandshakeConfig, Initiator, Send, State
from netchan.net.identity import Identity
from netchan.net.params import Refusal
from netchan.net.secret import SecureBytes
from netchan.net.trust import make_policy
from tests.fuzz.inputs.first_frames import NODE
from tests.fuzz.inputs.offers import NETWORK, NOW_S

_CONFIG = HandshakeConfig(Identity(SecureBytes(b"i" * 32)), network_id=NETWORK, pq="off")
_POLICY = make_policy("any", own_id=_CONFIG.identity.id_pub, dialling=True, expected_id=NODE)
_KEY = gate.named_keys(NODE, NETWORK).to_initiator
_TIMES = 70
"""More than are tried to be opened in a time."""


def check_forgery(data: bytes) -> None:
    """``data``: type and body. Nothing ends the dial before its time is over, and it says two HELLOs more at most."""
    machine = Initiator(_CONFIG, _POLICY, lambda n: b"\x40" * n, datagrams=True)
    (first,) = machine.start(NOW_S, 1)
    assert isinstance(first, Send)
    header = gate.parse_header(first.data)
    kind, body, said = data[0] if data else 0, data[1 : gate.MAX_FRAME[gate.REPLY]], 0
    for now in range(1, _TIMES if kind == gate.REPLY else 4):
        frame = gate.seal_frame(header._replace(kind=kind), body, _KEY)
        if not machine.fits(frame):
            break
        events = machine.feed(frame, NOW_S, now)
        assert all(isinstance(event, Send) and event.data[0] == gate.HELLO for event in events)
        said += len(events)
        if events:
            header = gate.parse_header(events[-1].data)  # type: ignore[union-attr]
    assert said <= 2 and machine.state is State.WAIT_REPLY and machine.deadline_ns is not None
    machine.close()


FORGERIES = [
    bytes((gate.REPLY,)) + bytes(range(250)),
    bytes((gate.CLOSE,)) + int(Refusal.BUSY).to_bytes(2, "big"),
    bytes((gate.CLOSE,)) + bytes(34),
    bytes((gate.VERSIONS, 1, 7)),
    bytes((gate.COOKIE,)) + bytes(16),
    bytes((gate.COOKIE,)) + bytes(15),
    bytes((gate.NO_TICKET, 0)),
    bytes((gate.RESUMED,)) + bytes(90),
    bytes((gate.ACCEPT,)) + bytes(40),
    bytes((gate.JOIN,)) + bytes(81),
]
