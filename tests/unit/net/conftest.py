"""A pair of handshake machines on a virtual wire, for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from netchan.net import handshake as hs
from netchan.net.gate import Gate
from netchan.net.identity import Identity
from netchan.net.secret import SecureBytes
from netchan.net.trust import make_policy

WALL_S = 1_800_000_000.0
Tamper = Callable[[int, bytes], bytes]


@dataclass
class Outcome:
    """What each side ended with, and each message as it was sent."""

    initiator: list[hs.Event] = field(default_factory=list)
    responder: list[hs.Event] = field(default_factory=list)
    wire: list[bytes] = field(default_factory=list)

    def end(self, side: str) -> hs.Event | None:
        """The last event of a side that is no Send."""
        events = [event for event in getattr(self, side) if not isinstance(event, hs.Send)]
        return events[-1] if events else None

    @property
    def established(self) -> tuple[hs.Established, hs.Established]:
        """Both results; AssertionError if there are not two."""
        first, second = self.end("initiator"), self.end("responder")
        assert isinstance(first, hs.Established), first
        assert isinstance(second, hs.Established), second
        return first, second

    def failed(self, side: str) -> hs.Failed:
        """The failure of a side."""
        event = self.end(side)
        assert isinstance(event, hs.Failed), event
        return event


class World:
    """Builds machines with seeded randomness and drives them against each other."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed).randbytes
        self.alice, self.bob = (Identity(SecureBytes(self.rng(32))) for _ in range(2))
        self.wall_s = WALL_S

    def config(self, identity: Identity, **options: Any) -> hs.HandshakeConfig:
        options.setdefault("pq", "off")
        return hs.HandshakeConfig(identity, **options)

    def gate(self, config: hs.HandshakeConfig, **options: Any) -> Gate:
        return Gate(config.network_id, config.identity.id_pub, config.primitives, **options)

    def initiator(
        self,
        *,
        identity: Identity | None = None,
        named: bool = True,
        know: bool = False,
        config: Any = None,
        **options: Any,
    ) -> hs.Initiator:
        """A dialler of bob. `named`: knows the id; `know`: holds the record; the rest goes to policy or machine."""
        config = config or {}
        who = identity or self.alice
        trust = options.pop("trust", "any")
        expected = options.pop("expected_id", self.bob.id_pub if named or know else None)
        policy = make_policy(
            trust,
            own_id=who.id_pub,
            dialling=True,
            psk=options.get("psk") is not None,
            expected_id=expected,
            allow_self=options.pop("allow_self", False),
            known_nodes=options.pop("known_nodes", None),
        )
        conf = self.config(who, **config)
        if know:
            options.setdefault("record", self.bob.record(self.wall_s, conf.network_id))
        return hs.Initiator(conf, policy, self.rng, **options)

    def responder(self, *, config: Any = None, gate: Any = None, **options: Any) -> hs.Responder:
        """Bob. `gate`: a Gate, or options for one."""
        conf = self.config(options.pop("identity", self.bob), **(config or {}))
        policy = make_policy(
            options.pop("trust", "any"),
            own_id=conf.identity.id_pub,
            dialling=False,
            blocked=options.pop("blocked", None),
            allow_self=options.pop("allow_self", False),
        )
        return hs.Responder(
            conf, policy, gate if isinstance(gate, Gate) else self.gate(conf, **(gate or {})), self.rng, 0, **options
        )

    def run(
        self,
        initiator: hs.Initiator,
        responder: hs.Responder,
        tamper: Tamper | None = None,
        resp_wall_s: float | None = None,
    ) -> Outcome:
        """Carry every message across, through `tamper(index, bytes)`; then let the clock run out."""
        out = Outcome()
        wall = self.wall_s if resp_wall_s is None else resp_wall_s
        out.initiator += initiator.start(self.wall_s, 0)
        pending = [(True, event.data) for event in out.initiator if isinstance(event, hs.Send)]
        while pending:
            to_responder, data = pending.pop(0)
            out.wire.append(data)
            data = tamper(len(out.wire) - 1, data) if tamper else data
            events = responder.feed(data, wall, 1) if to_responder else initiator.feed(data, self.wall_s, 1)
            (out.responder if to_responder else out.initiator).extend(events)
            pending += [(not to_responder, event.data) for event in events if isinstance(event, hs.Send)]
        for machine, events in ((initiator, out.initiator), (responder, out.responder)):
            if machine.deadline_ns is not None:
                events += machine.tick(machine.deadline_ns)
        return out


@pytest.fixture
def world() -> World:
    """A world with a fixed seed."""
    seed = 20_260
    print(f"seed {seed}")
    return World(seed)
