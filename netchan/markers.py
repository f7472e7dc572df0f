"""The marker that says "no value here now", so that every Python object stays a possible value.

Layer 0: imports nothing of ours. One member of an Enum, so that ``x is EMPTY`` narrows types.
"""

from enum import Enum
from typing import Final


class Empty(Enum):
    """Type of ``EMPTY``."""

    EMPTY = 0


EMPTY: Final = Empty.EMPTY
"""What ``Endpoint.try_recv`` and ``try_recv_into`` return when there is nothing to take now."""
