"""netchan: Go channels for Python over any wire.

The names are loaded when they are first used (PEP 562): ``import netchan`` alone costs a few milliseconds, and a
program that only asks for its version never meets asyncio or a crypto library.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netchan.channel.fronts import Channel, channel, pipe, ticker
    from netchan.channel.ops import Op, RecvOp, SendOp, TimerOp, after
    from netchan.channel.overflow import spill
    from netchan.channel.receiver import Receiver
    from netchan.channel.redundancy import RedundancyInfo
    from netchan.channel.selecting import merge, select
    from netchan.channel.sender import Sender
    from netchan.config import Config, Limits
    from netchan.errors import (
        AuthError,
        ChannelAborted,
        ChannelClosed,
        ChannelEnded,
        ChannelError,
        Code,
        CodecError,
        ConfigError,
        DialError,
        DialTimeout,
        ForkError,
        HandoverError,
        HandshakeError,
        InDoubt,
        ListenError,
        MessageTooLarge,
        NetchanError,
        ProtocolError,
        SessionLost,
        SpillError,
        WouldBlock,
    )
    from netchan.net.identity import Identity
    from netchan.net.trust import CA
    from netchan.node.events import PeerEvent
    from netchan.node.handover import TakenOver, hand_over, take_over
    from netchan.node.listener import Listener
    from netchan.node.node import Node
    from netchan.node.opening import dial, listen
    from netchan.node.paths import PathInfo
    from netchan.node.peer import Peer
    from netchan.node.watching import PeerEvents

__all__ = [
    "CA",
    "AuthError",
    "Channel",
    "ChannelAborted",
    "ChannelClosed",
    "ChannelEnded",
    "ChannelError",
    "Code",
    "CodecError",
    "Config",
    "ConfigError",
    "DialError",
    "DialTimeout",
    "ForkError",
    "HandoverError",
    "HandshakeError",
    "Identity",
    "InDoubt",
    "Limits",
    "ListenError",
    "Listener",
    "MessageTooLarge",
    "NetchanError",
    "Node",
    "Op",
    "PathInfo",
    "Peer",
    "PeerEvent",
    "PeerEvents",
    "ProtocolError",
    "Receiver",
    "RecvOp",
    "RedundancyInfo",
    "SendOp",
    "Sender",
    "SessionLost",
    "SpillError",
    "TakenOver",
    "TimerOp",
    "WouldBlock",
    "after",
    "channel",
    "dial",
    "hand_over",
    "listen",
    "merge",
    "pipe",
    "select",
    "spill",
    "take_over",
    "ticker",
]

__version__ = "0.1.0.dev0"

_HOMES = {
    "netchan.channel.fronts": (
        "Channel",
        "channel",
        "pipe",
        "ticker",
    ),
    "netchan.channel.ops": (
        "Op",
        "RecvOp",
        "SendOp",
        "TimerOp",
        "after",
    ),
    "netchan.channel.overflow": ("spill",),
    "netchan.channel.receiver": ("Receiver",),
    "netchan.channel.selecting": (
        "merge",
        "select",
    ),
    "netchan.channel.sender": ("Sender",),
    "netchan.config": (
        "Config",
        "Limits",
    ),
    "netchan.errors": (
        "AuthError",
        "ChannelAborted",
        "ChannelClosed",
        "ChannelEnded",
        "ChannelError",
        "Code",
        "CodecError",
        "ConfigError",
        "DialError",
        "DialTimeout",
        "ForkError",
        "HandoverError",
        "HandshakeError",
        "InDoubt",
        "ListenError",
        "MessageTooLarge",
        "NetchanError",
        "ProtocolError",
        "SessionLost",
        "SpillError",
        "WouldBlock",
    ),
    "netchan.net.identity": ("Identity",),
    "netchan.net.trust": ("CA",),
    "netchan.node.events": ("PeerEvent",),
    "netchan.node.handover": (
        "TakenOver",
        "hand_over",
        "take_over",
    ),
    "netchan.node.listener": ("Listener",),
    "netchan.node.node": ("Node",),
    "netchan.node.opening": (
        "dial",
        "listen",
    ),
    "netchan.channel.redundancy": ("RedundancyInfo",),
    "netchan.node.paths": ("PathInfo",),
    "netchan.node.peer": ("Peer",),
    "netchan.node.watching": ("PeerEvents",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


class _Root(ModuleType):
    """The package itself. ``netchan.channel`` is the function, though a layer of the package has the same name.

    The import system binds a subpackage on its parent when it is loaded; for this one name the function stays.
    """

    def __getattr__(self, name: str) -> Any:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'netchan' has no attribute {name!r}")
        value = getattr(import_module(home), name)
        if name != "channel":
            self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if name != "channel":
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Root
