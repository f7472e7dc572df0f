"""Steps that forward values run on the worker, behind those who serve channels (docs/explanation/ownership.md)."""

from __future__ import annotations

import threading

import pytest

from netchan.channel.forward import StepWaiter
from netchan.net import worker as w


def test_those_who_serve_channels_go_before_a_step_that_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    done = threading.Event()

    def wait(limit: float) -> float:
        order.append("waited")
        return 0.0

    def step() -> None:
        order.append("step")
        done.set()

    monkeypatch.setattr(w._process, "served", [wait])
    StepWaiter(step).wake()
    assert done.wait(5)
    assert order[order.index("step") - 1] == "waited"
