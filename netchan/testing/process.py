"""What a process has one of: each simulated host has its own, and whose turn it is has them in place.

Layer: testing. Sessions that may come back, tickets, connection ids, engines and the worker are tables of modules; two
hosts that shared them would find each other's sessions where two processes would not.

Spec: docs/spec/simulation.md §2.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from netchan.net import giving, kept, manager, moved, resume, stack, ticket, worker

TABLES: Final[tuple[tuple[str, str], ...]] = (
    (giving.__name__, "_given"),
    (kept.__name__, "_table"),
    (kept.__name__, "_sessions"),
    (moved.__name__, "_table"),
    (moved.__name__, "_of"),
    (resume.__name__, "_table"),
    (resume.__name__, "_gone"),
    (resume.__name__, "_suspended"),
    (ticket.__name__, "_keys"),
)
"""(module, name) of tables that begin empty in each process."""


class SimProcess:
    """The tables, worker and engines of one process, and what it asks of the operating system."""

    def __init__(self, system: stack.Stack | None) -> None:
        self._system = system
        self.process, self.engines = worker.Process(), manager.Engines()
        self._tables: list[Any] = [type(getattr(sys.modules[module], name))() for module, name in TABLES]

    def enter(self) -> None:
        """Be this one."""
        stack.use(self._system)
        worker.become(self.process)
        manager.become(self.engines)
        for (module, name), table in zip(TABLES, self._tables, strict=True):
            setattr(sys.modules[module], name, table)

    @classmethod
    def real(cls) -> SimProcess:
        """The one that we are."""
        found = cls.__new__(cls)
        found._system = None
        found.process = worker.become(worker.Process())
        found.engines = manager.become(manager.Engines())
        found._tables = [getattr(sys.modules[module], name) for module, name in TABLES]
        found.enter()
        return found
