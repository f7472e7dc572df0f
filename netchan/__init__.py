"""netchan: Go channels for Python over any wire."""

from netchan.channel.fronts import Channel, Receiver, Sender, channel, pipe
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
    HandshakeError,
    InDoubt,
    ListenError,
    MessageTooLarge,
    NetchanError,
    ProtocolError,
    SessionLost,
    WouldBlock,
)
from netchan.net.identity import Identity
from netchan.net.trust import CA
from netchan.node.listener import Listener
from netchan.node.opening import dial, listen
from netchan.node.peer import Peer

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
    "HandshakeError",
    "Identity",
    "InDoubt",
    "Limits",
    "ListenError",
    "Listener",
    "MessageTooLarge",
    "NetchanError",
    "Peer",
    "ProtocolError",
    "Receiver",
    "Sender",
    "SessionLost",
    "WouldBlock",
    "channel",
    "dial",
    "listen",
    "pipe",
]

__version__ = "0.1.0.dev0"
