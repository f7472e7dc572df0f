"""The ``netchan`` command: parse the arguments, load the one module that the command needs, run it.

Layer: cli (L8). argparse only; whatever a command needs beyond that is imported by its own module when it runs.
Exit status: 0 done, 1 the answer is no or it failed (one line on stderr: cause and next step), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from netchan.cli import common
from netchan.errors import NetchanError


def parser() -> argparse.ArgumentParser:
    """All commands and their options; loads none of them."""
    top = argparse.ArgumentParser(prog="netchan", description="Go channels for Python over any wire.")
    top.add_argument("--version", action="version", version=f"netchan {common.version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what netchan finds on this machine, and whether it can run")
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    doctor.add_argument("--no-speed", action="store_true", help="do not measure the ciphers (saves about 0.2 s)")
    doctor.set_defaults(module="netchan.cli.cmd_doctor")

    key = commands.add_parser("key", help="identity files").add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs = {"new": "make an identity file and print its node id", "show": "print the node id of an identity file"}
    for verb, what in verbs.items():
        sub = key.add_parser(verb, help=what)
        sub.add_argument("file", metavar="FILE", help="holds the secret key; readable by its owner only")
        sub.add_argument("--json", action="store_true", help="one JSON object instead of a line")
        sub.add_argument(
            "--passphrase-file", metavar="PATH", help="the first line seals the key; '-' asks at the terminal"
        )
        sub.set_defaults(module="netchan.cli.cmd_key")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. ``argv`` without the program's name; None = that of the process."""
    arguments = parser().parse_args(argv)
    command: Any = importlib.import_module(arguments.module)
    try:
        status: int = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # who read us has enough: point stdout elsewhere, so that the interpreter's own flush stays quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return common.FAILED
    except KeyboardInterrupt:
        return common.INTERRUPTED
    except (NetchanError, OSError) as error:
        common.complain(str(error))
        return common.FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
