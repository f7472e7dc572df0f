"""Markers that layers without a common module pass to each other.

Layer 0: imports nothing of ours.
"""

from enum import Enum
from typing import Any, Final


class Empty(Enum):
    """Type of ``EMPTY``: one member of an Enum, so that ``x is EMPTY`` narrows types."""

    EMPTY = 0


EMPTY: Final = Empty.EMPTY
"""What ``Endpoint.try_recv`` and ``try_recv_into`` return when nothing is to be taken now: no object that could be a
value."""


class CarriesEnds(Exception):
    """A value holds channels or ends of channels: the codec alone cannot encode it, or decode it."""


class Carrying(bytes):
    """The bytes of a value that holds channel ends, and what becomes of them once it is accepted."""

    given: list[Any]
