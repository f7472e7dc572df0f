"""``import netchan`` is cheap, and its names are there when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import netchan

LIMIT_MS = 100.0


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


class TestImport:
    def test_import_takes_less_than_the_limit_and_loads_nothing_heavy(self) -> None:
        program = (
            "import time; t = time.process_time(); import netchan; ms = (time.process_time() - t) * 1000; import sys;"
            "print(ms, *(m for m in ('numpy', 'msgspec', 'asyncio', 'cryptography', 'msgpack') if m in sys.modules))"
        )
        seen = [run(program).split() for _ in range(5)]
        assert min(float(words[0]) for words in seen) < LIMIT_MS
        assert all(words[1:] == [] for words in seen)

    def test_using_it_needs_neither_numpy_nor_msgspec(self) -> None:
        program = (
            "import sys; sys.modules['numpy'] = sys.modules['msgspec'] = None; import netchan;"
            "[getattr(netchan, name) for name in netchan.__all__]; print('ok')"
        )
        assert run(program) == "ok"

    def test_every_public_name_is_there_and_listed(self) -> None:
        for name in netchan.__all__:
            assert getattr(netchan, name) is not None
        assert set(netchan.__all__) <= set(dir(netchan))

    def test_channel_is_the_function_also_after_its_layer_was_imported(self) -> None:
        assert run("import netchan.channel.fronts, netchan; print(netchan.channel.__name__)") == "channel"
        assert run("from netchan import sync; import netchan; print(callable(netchan.channel))") == "True"

    @pytest.mark.parametrize("name", ["Record"])
    def test_name_that_is_not_built_does_not_exist(self, name: str) -> None:
        with pytest.raises(AttributeError, match=name):
            getattr(netchan, name)
