"""Starts the link and the programs at its ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Wire:
    """One link, or several; ``with`` takes them down. See link.Spec for the figures."""

    def __init__(self, *links: dict[str, float], **link: float) -> None:
        self._name = f"nct{os.getpid() % 10_000}"
        self._links = list(links) or [link]
        self._link: subprocess.Popen[str] | None = None

    def __enter__(self) -> Wire:
        command = [sys.executable, "-m", "tests.chaos.link", self._name, json.dumps(self._links)]
        self._link = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1
        )
        if self._link.stdout is None or self._link.stdout.readline() != "ready\n":
            raise RuntimeError("the link did not come up")
        return self

    def __exit__(self, *_: object) -> None:
        if self._link is not None and self._link.stdin is not None:
            self._link.stdin.close()
            self._link.wait(10)
            if self._link.stdout is not None:
                self._link.stdout.close()

    def set(self, link: int = 0, **spec: float) -> None:
        """From now on this link is so; what is not named is as at the beginning, on all of them."""
        if self._link is None or self._link.stdin is None:
            raise RuntimeError("there is no link")
        self._link.stdin.write(
            json.dumps([was | spec if i == link else was for i, was in enumerate(self._links)]) + "\n"
        )
        self._link.stdin.flush()

    def _run(self, side: str, *arguments: str) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", f"{self._name}-{side}", sys.executable, "-m", "tests.chaos.ends", *arguments]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)

    def count(self) -> list[tuple[int, int, int]]:
        """For each link: bytes that side a gave to it, of these what came out, and bytes that side b gave to it."""
        if self._link is None or self._link.stdin is None or self._link.stdout is None:
            raise RuntimeError("there is no link")
        self._link.stdin.write("count\n")
        self._link.stdin.flush()
        return [(given, out, back) for given, out, back in json.loads(self._link.stdout.readline())]

    def ask(self, kind: str, role: str, value: float, seconds: float) -> tuple[int, dict[str, Any]]:
        """Run the program ``role`` against one that answers; its exit code, and what it printed."""
        server = self._run("b", "answer", kind)
        try:
            address = server.stdout.readline().strip() if server.stdout is not None else ""
            client = self._run("a", role, address, str(value))
            try:
                said = client.communicate(timeout=seconds)[0]
            finally:
                client.kill()
                client.wait()
        finally:
            server.kill()
            server.communicate()
        return client.returncode, json.loads(said.splitlines()[-1]) if said else {}

    def transfer(
        self, *kinds: str, seconds: float, meanwhile: Callable[[Wire], None] | None = None
    ) -> list[dict[str, Any]]:
        """Values from one end to the other, over each of the kinds at a time; what the receivers say."""
        takers = [self._run("b", "take", kind) for kind in kinds]
        addresses = [taker.stdout.readline().strip() for taker in takers if taker.stdout is not None]
        senders = [self._run("a", "send", address, str(seconds)) for address in addresses]
        try:
            if meanwhile is not None:
                threading.Thread(target=meanwhile, args=(self,), daemon=True).start()
            end = time.monotonic() + seconds + 90
            said = [process.communicate(timeout=max(1, end - time.monotonic()))[0] for process in (*senders, *takers)]
        finally:
            for process in (*senders, *takers):
                if process.poll() is None:
                    process.kill()
        results = [json.loads(text.splitlines()[-1]) for text in said]
        return [
            sent | taken | {"sent": sent["bytes"], "goodput": 8 * taken["bytes"] / taken["seconds"]}
            for sent, taken in zip(results[: len(kinds)], results[len(kinds) :], strict=True)
        ]
