"""Public test tools: a network in virtual time for programs that use netchan, and checkers for what came of it."""

from netchan.testing.checkers import Amplification, ExactlyOnce, Memory, Nonces
from netchan.testing.faults import Faults
from netchan.testing.host import Host
from netchan.testing.network import Link, Watcher
from netchan.testing.simulation import Simulation, SimulationError
from netchan.testing.trace import Event, Trace

__all__ = [
    "Amplification",
    "Event",
    "ExactlyOnce",
    "Faults",
    "Host",
    "Link",
    "Memory",
    "Nonces",
    "Simulation",
    "SimulationError",
    "Trace",
    "Watcher",
]
