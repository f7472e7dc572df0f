"""The list of ``make mutants`` fits the code: a fault whose text has changed would be found only when they are run."""

from __future__ import annotations

import pytest

from tests.mutants import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_text_of_each_fault_stands_once_in_its_file(fault: Fault) -> None:
    text = (ROOT / "netchan" / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1
    assert fault.new != fault.old


def test_faults_are_told_apart_by_their_names() -> None:
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)
