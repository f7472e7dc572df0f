"""``netchan key new|show FILE``: make an identity file, or say whose it is.

Layer: cli (L8). A secret never comes from the command line, where other users could read it, and is never printed.
"""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from netchan.cli import common
from netchan.errors import ConfigError
from netchan.net.identity import Identity


def run(arguments: argparse.Namespace) -> int:
    """Print the node id.

    Raises:
        ConfigError: the file is there already (new), is not there (show), is damaged, or needs another passphrase.
        OSError: it cannot be read or written.
    """
    path = Path(arguments.file)
    new = arguments.verb == "new"
    if new and path.exists():
        raise ConfigError(f"{str(path)!r} exists and is left alone; see it with: netchan key show {str(path)!r}")
    if not new and not path.exists():
        raise ConfigError(f"{str(path)!r} is not there; make it with: netchan key new {str(path)!r}")
    identity = Identity.load_or_create(path, _passphrase(arguments.passphrase_file, twice=new))
    if arguments.json:
        common.print_json({"file": str(path), "node_id": identity.node_id})
    else:
        print(identity.node_id)
    identity.close()
    return common.OK


def _passphrase(source: str | None, *, twice: bool) -> str | None:
    if source is None:
        return None
    if source == "-":
        phrase = getpass.getpass("Passphrase: ")
        if twice and getpass.getpass("Again: ") != phrase:
            raise ConfigError("the two passphrases differ; nothing was written")
        return phrase
    with Path(source).open(encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")
