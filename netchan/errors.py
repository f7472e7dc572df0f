"""The exceptions that identity and handshake raise; every one derives from NetchanError.

Layer: L0, imports nothing of ours.
"""


class NetchanError(Exception):
    """Base of all errors of this package."""


class ConfigError(NetchanError, ValueError):
    """An argument or setting that cannot work; raised before anything is sent."""


class DialError(NetchanError, ConnectionError):
    """No usable session with the other side."""


class DialTimeout(DialError, TimeoutError):
    """No answer in time."""


class HandshakeError(DialError):
    """The handshake failed."""


class AuthError(HandshakeError):
    """One side refused the other."""


class ProtocolError(NetchanError):
    """The other side broke the protocol."""
