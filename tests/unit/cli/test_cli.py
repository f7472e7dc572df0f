"""The command line: what it prints, to whom, with which status, and what it does not load."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import netchan
from netchan._core import gf256, provider
from netchan.cli import cmd_doctor, common
from netchan.cli.__main__ import main

NODE_ID = re.compile(r"[a-z2-7]{52}")
ESCAPE = "\x1b["


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "netchan.cli", *arguments], capture_output=True, text=True, timeout=30)


class TestCommand:
    def test_version_prints_name_and_version(self) -> None:
        done = run("--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"netchan {netchan.__version__}\n", "")

    @pytest.mark.parametrize("arguments", [(), ("fly",), ("key",), ("key", "new"), ("doctor", "--loud")])
    def test_wrong_arguments_end_with_status_2_and_usage_on_stderr(self, arguments: tuple[str, ...]) -> None:
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("usage: netchan")

    def test_start_loads_no_command_and_nothing_optional(self) -> None:
        code = (
            "import sys, netchan; before = set(sys.modules)\n"
            "from netchan.cli.__main__ import parser; parser().parse_args(['doctor'])\n"
            "print(*sorted(set(sys.modules) - before))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        loaded = {name for name in done.stdout.split() if name.startswith("netchan")}
        assert loaded == {"netchan.cli", "netchan.cli.__main__", "netchan.cli.common", "netchan.errors"}
        heavy = {"click", "getpass", "numpy", "resource", "rich", "uvloop"}
        assert heavy.isdisjoint(done.stdout.split())

    def test_reader_that_goes_away_costs_no_traceback(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "netchan.cli", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            errors = process.stderr.read()
        assert (process.returncode, errors) == (common.FAILED, "")


class TestKey:
    def test_new_writes_a_private_file_and_prints_the_node_id(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "node.key"
        assert main(["key", "new", str(path)]) == 0
        printed = capsys.readouterr().out.strip()
        assert NODE_ID.fullmatch(printed)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert netchan.Identity.load_or_create(path).node_id == printed
        assert main(["key", "show", str(path)]) == 0
        assert capsys.readouterr().out.strip() == printed

    def test_json_names_file_and_node_id(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "node.key"
        assert main(["key", "new", "--json", str(path)]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said == {"file": str(path), "node_id": netchan.Identity.load_or_create(path).node_id}

    def test_new_over_an_existing_file_fails_and_leaves_it_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "node.key"
        main(["key", "new", str(path)])
        before = path.read_bytes()
        capsys.readouterr()
        assert main(["key", "new", str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "exists and is left alone" in err
        assert path.read_bytes() == before

    def test_show_of_a_missing_file_fails_and_makes_none(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "node.key"
        assert main(["key", "show", str(path)]) == 1
        assert "netchan key new" in capsys.readouterr().err
        assert not path.exists()

    @pytest.mark.parametrize(
        ("content", "mode", "reason"),
        [(b"x" * 112, 0o600, "damaged"), (b"", 0o600, "damaged"), (b"x" * 112, 0o644, "chmod 600")],
    )
    def test_show_of_an_unusable_file_says_why_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, mode: int, reason: str
    ) -> None:
        path = tmp_path / "node.key"
        path.write_bytes(content)
        path.chmod(mode)
        assert main(["key", "show", str(path)]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err.startswith("netchan: error: ")
        assert reason in err

    def test_sealed_file_opens_with_its_passphrase_only(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path, right, wrong = tmp_path / "node.key", tmp_path / "right", tmp_path / "wrong"
        right.write_text("open sesame\n")
        wrong.write_text("open barley\n")
        assert main(["key", "new", str(path), "--passphrase-file", str(right)]) == 0
        node_id = capsys.readouterr().out
        assert main(["key", "show", str(path), "--passphrase-file", str(right)]) == 0
        assert capsys.readouterr().out == node_id
        assert main(["key", "show", str(path), "--passphrase-file", str(wrong)]) == 1
        assert main(["key", "show", str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "sesame" not in err


class TestDoctor:
    def test_json_says_what_the_library_uses(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        library = provider.load()
        assert said["usable"] is True
        assert said["netchan"] == netchan.__version__
        assert said["crypto"] == {"provider": library.name, "version": library.version, "path": library.path}
        assert set(said["ciphers"]) == set(library.ciphers)
        for rates in said["ciphers"].values():
            assert set(rates) == {"64", "1024", "16384"}
            assert all(rate > 0 for rate in rates.values())
        assert said["ml_kem"] is True
        assert said["parity"] == {"form": gf256.form(), "forms": list(gf256.forms())}
        assert said["epoll"] is True
        assert said["cpus"]["usable"] == len(os.sched_getaffinity(0))
        assert set(said["packages"]) == {"msgspec", "numpy", "uvloop", "nacl"}

    def test_lines_when_piped_hold_no_escapes(self) -> None:
        done = run("doctor", "--no-speed")
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1] == "netchan can run here"
        assert "GB/s" not in done.stdout
        assert ESCAPE not in done.stdout
        assert done.stderr == ""

    def test_form_of_the_erasure_code_in_use_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        before = gf256.form()
        gf256.use("portable")
        try:
            assert main(["doctor", "--no-speed"]) == 0
        finally:
            gf256.use(before)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if " parity " in line]
        assert line.split()[:4] == ["ok", "parity", "by", "portable,"]

    def test_without_a_crypto_library_it_says_so_with_status_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("NETCHAN_CRYPTO", str(tmp_path / "nowhere.so"))
        assert main(["doctor", "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert said["usable"] is False
        assert said["crypto"] is None
        assert main(["doctor"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("bad") and "pip install" in line for line in lines)
        assert lines[-1].startswith("netchan cannot run here")

    def test_missing_package_is_named_and_no_reason_to_fail(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(cmd_doctor.importlib.util, "find_spec", lambda name: None)
        assert main(["doctor", "--no-speed"]) == 0
        assert "uvloop is not installed" in capsys.readouterr().out

    @pytest.mark.parametrize(("limit", "state"), [(None, "ok"), (1 << 20, "ok"), ((1 << 20) - 1, "warn")])
    def test_small_memlock_limit_is_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limit: int | None, state: str
    ) -> None:
        monkeypatch.setattr(cmd_doctor, "_memlock", lambda: limit)
        assert main(["doctor", "--no-speed"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if " memlock " in line]
        assert line.split()[0] == state


class TestColour:
    @pytest.mark.parametrize(
        ("settings", "coloured"),
        [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    )
    def test_terminal_shows_colours_unless_told_not_to(self, settings: dict[str, str], coloured: bool) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")} | settings
        ours, theirs = pty.openpty()
        try:
            command = [sys.executable, "-m", "netchan.cli", "doctor", "--no-speed"]
            subprocess.run(command, stdout=theirs, env=environment, timeout=30, check=True)
            text = os.read(ours, 65536).decode()
        finally:
            os.close(ours)
            os.close(theirs)
        assert "python" in text
        assert (ESCAPE in text) is coloured
