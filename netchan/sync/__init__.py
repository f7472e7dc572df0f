"""The blocking front: the same names as ``netchan``, ``timeout=`` on every call that can wait.

Layer 7; the other modules here are made by tools/async_to_sync.py, never edited. Every call may be used from any
thread; Ctrl-C leaves a wait at once.
"""

from netchan.channel.ops import Op, RecvOp, SendOp, TimerOp, after
from netchan.channel.overflow import spill
from netchan.sync.fronts import Channel, channel, pipe, ticker
from netchan.sync.handover import TakenOver, hand_over, take_over
from netchan.sync.listener import Listener
from netchan.sync.node import Node
from netchan.sync.opening import dial, listen
from netchan.sync.peer import Peer
from netchan.sync.receiver import Receiver
from netchan.sync.selecting import merge, select
from netchan.sync.sender import Sender
from netchan.sync.watching import PeerEvents

__all__ = [
    "Channel",
    "Listener",
    "Node",
    "Op",
    "Peer",
    "PeerEvents",
    "Receiver",
    "RecvOp",
    "SendOp",
    "Sender",
    "TakenOver",
    "TimerOp",
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
