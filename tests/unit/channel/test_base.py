"""The state table of a channel end: the page, the data, the end in process and the end over a session agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from netchan import errors
from netchan._engine.engine_handle import Engine
from netchan.channel.base import STATES, VERBS, states_markdown
from netchan.net.manager import CLOSE_CLEAN
from netchan.node.session import PROTOCOL
from netchan.sync import Channel, pipe
from netchan.testing.pair import Side, joined

PAGE = Path(__file__).resolve().parents[3] / "docs" / "spec" / "channel-end.md"
BY_SESSION = {"session suspended", "session lost"}
"""States that an end in process cannot be in."""
NOT_YET = {"session suspended"}
"""States that no end can be in yet: a session ends with its path."""
PATIENCE = 10.0


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


def ends(state: str) -> tuple[Channel[int], Channel[int]]:
    a, b = pipe(int, capacity=2)
    b.send_nowait(0)
    put(state, a, b)
    return a, b


@pytest.fixture(scope="module")
def engines() -> tuple[Engine, Engine]:
    return Engine("caller"), Engine("caller")


@pytest.fixture
def sides(engines: tuple[Engine, Engine]) -> Iterator[tuple[Side, Side]]:
    made = joined(engines=engines)
    yield made
    for side in made:
        side.session.close(CLOSE_CLEAN)


def session_ends(sides: tuple[Side, Side], state: str) -> tuple[Channel[int], Channel[int]]:
    """The same over a session, when all that the other side did has come over."""
    near, far = sides
    a, b = Channel[int](near.open("name", int, 2)), Channel[int](far.open("name", int, 2))
    b.send_nowait(0)
    wait(lambda: a.pending == 1 and a.capacity == b.capacity == 2)
    if state == "session lost":
        far.session.close(PROTOCOL)
    else:
        put(state, a, b)
    over, ending = STATES[state][0] != "accepts, waits", not STATES[state][1].endswith("waits")
    # our own end must be on its way too: an abort that catches up with it tells another story
    wait(lambda: a._ep.send_over == bool(a._ep.state[0]) == over and a._ep.recv_ending == ending)
    return a, b


def wait(done: Callable[[], bool]) -> None:
    end = monotonic() + PATIENCE
    while not done():
        assert monotonic() < end
        sleep(0.0005)


def check(a: Channel[int], b: Channel[int], state: str, verb: str, cell: str) -> None:
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
        check_state(a, target, emptied=cell != "nothing" and verb in ("stop", "abort"))
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
    check(*ends(state), state, verb, STATES[state][VERBS.index(verb)])


def over_a_session() -> Iterator[Any]:
    for state in STATES:
        for verb in VERBS:
            if state not in NOT_YET:
                yield state, verb


@pytest.mark.parametrize(("state", "verb"), list(over_a_session()))
def test_end_over_a_session_does_what_the_table_says(sides: tuple[Side, Side], state: str, verb: str) -> None:
    check(*session_ends(sides, state), state, verb, STATES[state][VERBS.index(verb)])


def test_page_shows_the_table() -> None:
    assert states_markdown() in PAGE.read_text(encoding="utf-8")
