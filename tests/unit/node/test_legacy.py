"""What a process says about a session that it gives away, as the other one reads it."""

from __future__ import annotations

from typing import Any

import pytest

from netchan import HandoverError
from netchan.node.legacy import Heir

LINK = ["tcp", "tcp://192.0.2.1:7000", "tcp://192.0.2.2:50000", "node", 1024, True]


def heir(**about: Any) -> Heir:
    return Heir({"link": [*LINK, True]} | about, None, [])  # type: ignore[arg-type]


class TestLink:
    def test_capabilities_and_the_ticket_are_as_they_were(self) -> None:
        link = heir(caps=[0x8000, 0xFFFF]).link
        assert link.caps == frozenset({0x8000, 0xFFFF})
        assert link.by_ticket

    def test_process_that_knew_no_capabilities_has_agreed_on_none(self) -> None:
        link = heir(link=LINK).link
        assert link.caps == frozenset()
        assert not link.by_ticket

    @pytest.mark.parametrize(
        "caps",
        [
            None,
            5,
            "ab",
            {},
            [0x7FFF],
            [0x1_0000],
            [-1],
            ["1"],
            [None],
            [32768.0],
            [32768.5],
            [[]],
            list(range(0x8000, 0x8041)),
        ],
    )
    def test_capabilities_that_cannot_be_are_refused(self, caps: Any) -> None:
        with pytest.raises(HandoverError, match="not what it says"):
            _ = heir(caps=caps).link
