"""Every stored fuzz input once more through its target, without a fuzzer; no stored input may fail a check."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "netchan" / "_core"


def fuzz_modules() -> list[ModuleType]:
    return [importlib.import_module(f"netchan._core.{p.stem}") for p in sorted(CORE.glob("_fuzz*.pyx"))]


TARGETS = [(module, name) for module in fuzz_modules() for name in module.TARGETS]


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    folders = {p.name for p in (HERE / "corpus").iterdir() if p.is_dir()}
    assert folders == {name for _, name in TARGETS}
    assert all(any(p.is_file() for p in (HERE / "corpus" / name).iterdir()) for name in folders)


def test_every_listed_target_is_declared_for_the_fuzzer() -> None:
    for module in fuzz_modules():
        assert {f"fuzz_{name}" for name in module.TARGETS} == set(module.__pyx_capi__)


@pytest.mark.parametrize(("module", "name"), TARGETS, ids=[name for _, name in TARGETS])
def test_stored_input_passes_every_check_of_its_target(module: ModuleType, name: str) -> None:
    failed = {}
    for path in sorted((HERE / "corpus" / name).iterdir()):
        rc = module.run(name, path.read_bytes())
        if rc:
            failed[path.name] = rc
    assert failed == {}


@pytest.mark.parametrize(("module", "name"), TARGETS, ids=[name for _, name in TARGETS])
def test_stored_input_cut_at_every_byte_passes_too(module: ModuleType, name: str) -> None:
    """The first 200 cuts of each input: an early end is where readers go wrong."""
    for path in sorted((HERE / "corpus" / name).iterdir()):
        data = path.read_bytes()
        assert [cut for cut in range(min(len(data), 200)) if module.run(name, data[:cut])] == [], path.name


def test_stored_states_of_sessions_are_of_the_layout_of_today() -> None:
    """Otherwise they test nothing: ``python -m tests.fuzz.states`` writes them anew."""
    module = importlib.import_module("netchan._core._fuzz_handover")
    refused = [p.name for p in (HERE / "corpus" / "handover").glob("state-*") if not module.accepts(p.read_bytes())]
    assert refused == []
