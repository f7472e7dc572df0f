"""Remove bounds checks one at a time and see how long a fuzz target takes to find each (``make fuzz-mutants``).

Each fault is one replacement in one file of a copy of netchan/_core. The modules that it changes are built anew with
clang's fuzzer, address and undefined-behaviour checks, and the target runs for at most ``LIMIT_S`` seconds, from an
empty corpus unless the list says "stored": the stored inputs show the checks of most parsers at once, so nothing would
be learnt from them. One line per fault; one that is not found is SURVIVED, and the status is 1. A fault whose text is
not in the file, or in more than one place, is an error here: mend the list with the code.

    python -m tests.fuzz.mutants [word...]       only faults with one of these words in their line

Environment: CLANG (default clang-14), SEED (default 1), JOBS. Exit: 0 all found, 1 one survived, 3 the build failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60


@dataclass(frozen=True)
class Fault:
    """What check is missing, where, the text with and without it, what is to be built, and who finds it."""

    what: str
    file: str
    old: str
    new: str
    modules: str
    target: str
    start: str = "empty"


FAULTS = [
    Fault(
        "a varint of two bytes is read of one",
        "cursor.pxd",
        "        if left < 2:\n            return defs.NC_ETRUNC\n",
        "",
        "_fuzz",
        "varint",
    ),
    Fault(
        "eight bytes are read of fewer",
        "cursor.pxd",
        "    if rd_left(r) < 8:\n        return defs.NC_ETRUNC\n",
        "",
        "_fuzz",
        "cursor",
    ),
    Fault(
        "a byte string is as long as it says",
        "cursor.pxd",
        "    if n > <uint64_t>rd_left(r):\n        return defs.NC_ETRUNC\n",
        "",
        "_fuzz",
        "cursor",
    ),
    Fault(
        "POS has as many ranges as it says", "frame.pyx", "    if n > limit:\n", "    if n > 4096:\n", "frame", "frame"
    ),
    Fault(
        "the end of DATA may be above 62 bits",
        "frame.pyx",
        "    if rc >= 0 and f.a + length > <uint64_t>0x3FFFFFFFFFFFFFFF:\n        return defs.NC_EFRAME\n",
        "",
        "frame",
        "frame",
    ),
    Fault("a name ends inside three bytes of UTF-8", "frame.pyx", "if n < 3 or ", "if ", "frame", "name"),
    Fault(
        "a name ends inside two bytes of UTF-8",
        "frame.pyx",
        "if c < 0xC2 or n < 2 or ",
        "if c < 0xC2 or ",
        "frame",
        "name",
    ),
    Fault(
        "a number field of a value is cut",
        "msgshape.pyx",
        "            if <size_t>head > n - i:\n                return defs.NC_ETRUNC\n",
        "",
        "msgshape",
        "msgshape",
    ),
    Fault(
        "a value nests as deep as it likes",
        "msgshape.pyx",
        "            if depth >= most:\n                return defs.NC_ELIMIT\n",
        "",
        "msgshape",
        "msgshape",
    ),
    Fault(
        "a reference is cut behind its first byte",
        "msgshape.pyx",
        "elif b == 0xC7 and n - i >= 2 and data[i]",
        "elif b == 0xC7 and data[i]",
        "msgshape",
        "msgshape",
    ),
    Fault(
        "a set holds more ranges than it may",
        "ranges.pyx",
        "    if r.len >= r.max:\n        return defs.NC_ELIMIT\n",
        "",
        "ranges",
        "ranges",
    ),
    Fault(
        "a number below the window is taken for new",
        "replay.pyx",
        "if n < w.floor or (n < w.next and w.next - n > w.n_bits):",
        "if n < w.floor:",
        "replay",
        "replay",
    ),
    Fault(
        "a stream has more messages than were granted",
        "inbox.pyx",
        "            if s.started >= s.granted_msgs:\n                return defs.NC_ECREDIT\n",
        "",
        "inbox",
        "stream_in",
    ),
    Fault(
        "a field is longer than the block it is in",
        "inbox.pyx",
        "        if v > s.block_left:\n            return defs.NC_EFRAME\n",
        "",
        "inbox",
        "stream_in",
    ),
    Fault(
        "a deadline is as long as it says",
        "inbox.pyx",
        "if s.field == defs.FIELD_DEADLINE and (v == 0 or v > 8):",
        "if s.field == defs.FIELD_DEADLINE and v == 0:",
        "inbox",
        "stream_in",
    ),
    Fault(
        "a block of fields is as long as it says, when it is read again",
        "take.pyx",
        "        if rd_varint(&r, &block) < 0 or block > <uint64_t>rd_left(&r):\n            return 0\n",
        "        rd_varint(&r, &block)\n",
        "take",
        "take",
    ),
    Fault(
        "a preface is as long as it says",
        "inbox.pyx",
        "if length == 0 or length > <uint64_t>defs.PREFACE_MAX:",
        "if length == 0:",
        "inbox",
        "stream_in",
    ),
    Fault(
        "a record is opened before all of it is here",
        "inbound.pyx",
        "        if <size_t>size > n:\n            break\n",
        "",
        "inbound",
        "session_raw",
    ),
    Fault(
        "a record is shorter than its own head",
        "record.pyx",
        "return n + defs.RECORD_LEN_SIZE if n >= 3 + defs.AEAD_TAG_SIZE else defs.NC_EFRAME",
        "return n + defs.RECORD_LEN_SIZE",
        "record",
        "session_raw",
    ),
    Fault(
        "the begun record outgrows its buffer",
        "inbound.pyx",
        "    if p.left_cap < need:\n",
        "    if p.left_cap == 0:\n",
        "inbound",
        "session_raw",
    ),
    Fault(
        "a peer sends beyond its credit for bytes",
        "inbox.pyx",
        "    if end > s.granted_bytes:                   # after a stop, too: what comes too early would be kept\n"
        "        return defs.NC_ECREDIT\n",
        "",
        "inbox",
        "session_frames",
        "stored",
    ),
    Fault(
        "messages beyond their credit are skipped",
        "inbox.pyx",
        "    if first + n > s.granted_msgs:\n        return defs.NC_ECREDIT\n",
        "",
        "inbox",
        "session_frames",
        "stored",
    ),
    Fault(
        "an acknowledgement of what was never sent",
        "inbound.pyx",
        "    if f.b >= p.tx_number or f.n != 0 or f.d != f.b:\n",
        "    if f.n != 0 or f.d != f.b:\n",
        "inbound",
        "session_frames",
        "stored",
    ),
]


class BuildError(Exception):
    """The instrumented build failed; its output is the message."""


def build(folder: Path, *targets: str, modules: str = "") -> None:
    """Run build.sh of a tree; ``modules``: these only."""
    done = subprocess.run(
        [folder / "tests" / "fuzz" / "build.sh", *targets],
        env={**os.environ, "PYTHON": sys.executable, "MODULES": modules},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(done.stdout + done.stderr)


def hunt(folder: Path, fault: Fault) -> tuple[float | None, str]:
    """Seconds until the target found something, None: nothing in LIMIT_S; and in a few words what."""
    out = folder / "build" / "fuzz"
    corpus = out / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    env = {
        **os.environ,
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": str(out / "lib"),
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=0",
    }
    command = [
        str(out / "bin" / f"fuzz_{fault.target}"),
        f"-max_total_time={LIMIT_S}",
        "-max_len=512",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-seed={os.environ.get('SEED', '1')}",
        f"-artifact_prefix={out}/",
        str(corpus),
    ]
    if fault.start == "stored":
        command.append(str(ROOT / "tests" / "fuzz" / "corpus" / fault.target))
    begun = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", cwd=out, check=False)
    seconds = time.monotonic() - begun
    if done.returncode == 0:
        return None, ""
    said = re.search(
        r"AddressSanitizer: (requested allocation size|[\w-]+)|runtime error: ([^\n(]{0,60})|"
        r"(check \d+ does not hold)|libFuzzer: ([\w-]+)",
        done.stderr,
    )
    if said is None:
        raise BuildError(f"the target did not run: {done.stderr[-2000:]}")
    return seconds, next(part for part in said.groups() if part)


def main() -> int:
    """Print a line per fault."""
    words = sys.argv[1:]
    faults = [
        one for one in FAULTS if not words or any(word in f"{one.what} {one.file} {one.target}" for word in words)
    ]
    begun, survived = time.monotonic(), 0
    try:
        build(ROOT)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "netchan").mkdir()
            (folder / "netchan" / "__init__.py").touch()  # Cython looks for a package
            suffix = sysconfig.get_config_var("EXT_SUFFIX")
            for part in ("netchan/_core", "tests/fuzz", "build/fuzz/lib", "build/fuzz/bin"):
                shutil.copytree(
                    ROOT / part,
                    folder / part,
                    ignore=shutil.ignore_patterns("__pycache__", "corpus"),
                    dirs_exist_ok=True,
                )
            for fault in faults:
                path = folder / "netchan" / "_core" / fault.file
                text = path.read_text()
                if text.count(fault.old) != 1:
                    raise LookupError(f"{fault}: its text stands {text.count(fault.old)} times in the file")
                path.write_text(text.replace(fault.old, fault.new))
                build(folder, fault.target, modules=fault.modules)
                seconds, how = hunt(folder, fault)
                path.write_text(text)
                for module in fault.modules.split():
                    whole = Path("build", "fuzz", "lib", "netchan", "_core", module + suffix)
                    shutil.copyfile(ROOT / whole, folder / whole)
                survived += seconds is None
                found = "SURVIVED" if seconds is None else f"{seconds:5.1f} s, {how}"
                print(f"{fault.target:15} {fault.start:6} {fault.file:13} {fault.what}: {found}", flush=True)
    except BuildError as error:
        print(error)
        return 3
    print(f"{len(faults)} checks removed, {survived} survived, {time.monotonic() - begun:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
