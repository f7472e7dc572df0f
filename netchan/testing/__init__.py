"""Public test tools: a network in virtual time for programs that use netchan, and checkers for what came of it."""

from netchan.testing.faults import Faults
from netchan.testing.host import Host
from netchan.testing.network import Link
from netchan.testing.simulation import Simulation, SimulationError
from netchan.testing.trace import Trace

__all__ = ["Faults", "Host", "Link", "Simulation", "SimulationError", "Trace"]
