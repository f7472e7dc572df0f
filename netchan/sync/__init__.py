"""The blocking front: the same names as ``netchan``, ``timeout=`` on every call that can wait.

Layer 5; fronts.py and waits.py here are made by tools/async_to_sync.py, never edited. Every call may be used from any
thread; Ctrl-C leaves a wait at once.
"""

from netchan.sync.fronts import Channel, Receiver, Sender, channel, pipe

__all__ = ["Channel", "Receiver", "Sender", "channel", "pipe"]
