"""Sockets that systemd, or whoever started this process, has opened for it (sd_listen_fds(3)).

Layer: net (L3). Read once, when the first listener binds; used on the worker's thread. The variables are removed from
the environment then, so that no child takes what is not meant for it. Spec: docs/spec/handover.md §6.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Any, Final

FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START."""
PASSED_MAX: Final = 1_024
"""Descriptors that are looked at: bounds what a wrong figure costs."""
_log: Final = logging.getLogger("netchan.session")


class Passed:
    """The sockets that were passed and are not in use yet.

    Args:
        environment: of the process; LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are removed.
        first: the number of the first descriptor.
    """

    def __init__(self, environment: MutableMapping[str, str], first: int = FIRST_FD) -> None:
        self._socks: list[socket.socket] = []
        count, pid = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
        environment.pop("LISTEN_FDNAMES", None)
        if pid != str(os.getpid()) or not count.isdecimal():
            return
        for fd in range(first, first + min(int(count), PASSED_MAX)):
            try:
                sock = socket.socket(fileno=fd)
            except OSError as error:
                _log.warning("descriptor %d was passed by LISTEN_FDS and is no socket: %s", fd, error)
                continue
            os.set_inheritable(fd, False)
            self._socks.append(sock)

    def take(self, kind: int, sockaddr: Any) -> socket.socket | None:
        """The socket of this kind that is bound to exactly this address; None: there is none."""
        for sock in self._socks:
            name = sock.getsockname()
            same = name == sockaddr if isinstance(name, str) else name[:2] == tuple(sockaddr[:2])
            if same and sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == kind:
                self._socks.remove(sock)
                return sock
        return None


_here: dict[int, Passed] = {}


def passed() -> Passed:
    """Those of this process; a forked child has none."""
    found = _here.get(os.getpid())
    if found is None:
        _here.clear()
        found = _here[os.getpid()] = Passed(os.environ)
    return found
