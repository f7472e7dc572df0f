"""Endpoints of channels in process, with or without a policy about overflow.

Layer 5. Spec: docs/spec/channel-end.md.
"""

from __future__ import annotations

from typing import Any

from netchan.channel.flow import Flow
from netchan.channel.local import LocalEndpoint
from netchan.channel.lossy import LossyEndpoint, LossyFlow
from netchan.channel.overflow import BLOCK, check_overflow, check_ttl, spill_of
from netchan.config import check_capacity
from netchan.errors import ConfigError


def channel_endpoint(type: Any, capacity: Any, overflow: Any = None, ttl: Any = None) -> LocalEndpoint:
    """One queue: whatever anyone sends, any receiver takes.

    Raises:
        ConfigError: capacity is no int from 0 to 2**30, or overflow or ttl is none that goes with it.
    """
    kind, flow = _flows(capacity, overflow, ttl, 1)
    return kind(type, *flow, *flow)


def pipe_endpoints(
    type: Any, capacity: Any, overflow: Any = None, ttl: Any = None
) -> tuple[LocalEndpoint, LocalEndpoint]:
    """Two joined ends: what one sends the other receives. Raises as ``channel_endpoint``."""
    kind, (there, back) = _flows(capacity, overflow, ttl, 2)
    a, b = kind(type, there, back), kind(type, back, there)
    a.other, b.other = b, a
    return a, b


def _flows(capacity: Any, overflow: Any, ttl: Any, count: int) -> tuple[type[LocalEndpoint], list[Flow]]:
    checked = check_capacity(capacity)
    if checked is None:
        raise ConfigError("capacity=None is for channels across the network; give a number of values, 0 = rendezvous")
    policy, ttl_ms = check_overflow(overflow, checked), check_ttl(ttl, checked)
    spill = spill_of(overflow)
    if spill is not None:
        from netchan.channel.spill_local import SpillEndpoint, SpillFlow  # who does not spill loads no codec

        return SpillEndpoint, [SpillFlow(checked, spill, ttl_ms) for _ in range(count)]
    if policy in (0, BLOCK) and not ttl_ms:
        return LocalEndpoint, [Flow(checked) for _ in range(count)]
    return LossyEndpoint, [LossyFlow(checked, policy, ttl_ms) for _ in range(count)]
