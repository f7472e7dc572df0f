"""The state table of a channel end: the page, the data and the endpoint in process agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netchan import errors
from netchan.channel.base import STATES, VERBS, states_markdown
from netchan.sync import Channel, pipe

PAGE = Path(__file__).resolve().parents[3] / "docs" / "spec" / "channel-end.md"
BY_SESSION = {"session suspended", "session lost"}
"""States that an end in process cannot be in; the suite over a session covers them."""


def we_left(a: Channel[int], b: Channel[int]) -> None:
    a._ep.left_by_exception()


def put(state: str, a: Channel[int], b: Channel[int]) -> None:
    steps: dict[str, list[Callable[[], Any]]] = {
        "open": [],
        "we closed": [a.close],
        "we stopped": [a.stop],
        "they closed": [b.close],
        "they stopped": [b.stop],
        "they left by exception": [b._ep.left_by_exception],
        "ended": [a.close, b.close],
        "closed": [a.close, a.stop],
        "aborted": [b.abort],
    }
    for step in steps[state]:
        step()


def ends(state: str, values: int = 1) -> tuple[Channel[int], Channel[int]]:
    a, b = pipe(int, capacity=2)
    for n in range(values):
        b.send_nowait(n)
    put(state, a, b)
    return a, b


def check(state: str, verb: str, cell: str) -> None:
    a, b = ends(state)
    if verb == "send":
        if cell == "accepts, waits":
            a.send_nowait(1)
            a.send_nowait(1)
            with pytest.raises(TimeoutError):
                a.send(1, timeout=0)
        else:
            with pytest.raises(getattr(errors, cell)):
                a.send(1, timeout=0)
    elif verb == "recv":
        first, _, then = cell.partition(", ")
        if first == "value":
            assert a.recv(timeout=0) == 0
            first = then
        with pytest.raises(TimeoutError if first == "waits" else getattr(errors, first)):
            a.recv(timeout=0)
    elif verb == "clone":
        half, _ = a.split()
        again = half.clone()
        assert again == half
        assert again.closed == half.closed
        half._close(clean=True)
        again._close(clean=True)
    else:
        {"close": a.close, "stop": a.stop, "abort": a.abort}[verb]()
        target = state if cell == "nothing" else cell.removeprefix("-> ")
        assert cell == "nothing" or cell.startswith("-> ")
        check_state(a, target, emptied=verb in ("stop", "abort"))
    a.abort()
    b.abort()


def check_state(a: Channel[int], state: str, *, emptied: bool) -> None:
    send, recv = STATES[state][0], STATES[state][1]
    if send == "accepts, waits":
        assert not a._ep.send_over
    else:
        with pytest.raises(getattr(errors, send)):
            a.send_nowait(1)
    first, _, then = recv.partition(", ")
    if first == "value":
        if not emptied:
            assert a.recv_nowait() == 0
        first = then
    with pytest.raises(errors.WouldBlock if first == "waits" else getattr(errors, first)):
        a.recv_nowait()


@pytest.mark.parametrize("state", [s for s in STATES if s not in BY_SESSION])
@pytest.mark.parametrize("verb", VERBS)
def test_pipe_end_does_what_the_table_says(state: str, verb: str) -> None:
    check(state, verb, STATES[state][VERBS.index(verb)])


def test_page_shows_the_table() -> None:
    assert states_markdown() in PAGE.read_text(encoding="utf-8")
