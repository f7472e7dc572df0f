"""The list of ``make fuzz-mutants`` fits the code: a check whose text has changed is missed here, not after minutes."""

from __future__ import annotations

import importlib

import pytest

from tests.fuzz.mutants import FAULTS, ROOT, Fault

CORE = ROOT / "netchan" / "_core"


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_text_of_each_check_stands_once_in_its_file(fault: Fault) -> None:
    assert (CORE / fault.file).read_text(encoding="utf-8").count(fault.old) == 1
    assert fault.new != fault.old


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_fault_names_a_target_that_is_there_and_modules_that_hold_the_check(fault: Fault) -> None:
    targets = {
        name
        for path in CORE.glob("_fuzz*.pyx")
        for name in importlib.import_module(f"netchan._core.{path.stem}").TARGETS
    }
    assert fault.target in targets
    assert fault.start in ("empty", "stored")
    for module in fault.modules.split():
        assert (CORE / f"{module}.pyx").exists()
    assert fault.file.endswith(".pxd") or fault.file.removesuffix(".pyx") in fault.modules.split()


def test_removed_checks_are_told_apart_by_their_names_and_lie_in_several_parsers() -> None:
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 5
    assert len({fault.file for fault in FAULTS}) >= 5
