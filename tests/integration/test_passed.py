"""Listeners on sockets that systemd has opened (docs/spec/handover.md §6), by fork and exec as systemd does it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netchan import sync
from netchan.net.passed import PASSED_MAX, Passed

PROGRAM = """
import os, sys
from netchan import sync
listener = sync.listen(sys.argv[1], trust="any")
print(listener.addresses[0], os.environ.get("LISTEN_FDS"), flush=True)
peer = listener.recv(timeout=20)
channel = peer.open("c", int)
channel.send(channel.recv(timeout=20) + 1)
peer.wait_closed(timeout=20)
listener.close()
"""


def activate(sock: socket.socket, address: str, *, pid: bool = True) -> subprocess.Popen[str]:
    """Start the program as systemd would: the socket is descriptor 3 and LISTEN_PID the process itself."""
    launcher = (
        f"import os, sys\\nos.dup2({sock.fileno()}, 3)\\nos.set_inheritable(3, True)\\n"
        f"os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid() + {0 if pid else 1}))\\n"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], sys.argv[2]])\\n"
    ).replace("\\n", "\n")
    return subprocess.Popen(
        [sys.executable, "-c", launcher, PROGRAM, address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[sock.fileno()],
    )


def bound(carrier: str, folder: Path) -> tuple[socket.socket, str]:
    if carrier == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(folder / "s"))
        sock.listen()
        return sock, f"unix://{folder / 's'}"
    kind = socket.SOCK_DGRAM if carrier == "udp" else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    if carrier == "tcp":
        sock.listen()
    return sock, f"{carrier}://127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("carrier", ["tcp", "unix", "udp"])
def test_listener_uses_the_socket_that_was_passed_for_its_address(carrier: str, tmp_path: Path) -> None:
    sock, address = bound(carrier, tmp_path)
    with sock, activate(sock, address) as process:
        assert process.stdout is not None
        where, left = process.stdout.readline().split()
        assert left == "None"  # no child of it takes them
        with sync.dial(where, trust="any") as peer:
            channel = peer.open("c", int)
            channel.send(41)
            assert channel.recv(timeout=20) == 42
        assert process.wait(20) == 0
    assert carrier != "unix" or (tmp_path / "s").exists()  # whoever made the file removes it


def test_sockets_that_were_passed_to_another_process_are_not_used(tmp_path: Path) -> None:
    sock, address = bound("tcp", tmp_path)
    with sock, activate(sock, address, pid=False) as process:
        assert process.stderr is not None
        assert "address already in use" in process.stderr.read()
        assert process.wait(20) != 0


def test_wrong_figures_cost_nothing() -> None:
    me = str(os.getpid())
    for count in ("", "-1", "x", "0", str(10**9)):
        environment = {"LISTEN_FDS": count, "LISTEN_PID": me, "LISTEN_FDNAMES": "a"}
        found = Passed(environment, first=1 << 20)  # no such descriptors are open
        assert environment == {} and found.take(socket.SOCK_STREAM, ("127.0.0.1", 1)) is None
    assert PASSED_MAX == 1_024
