"""Addresses: ``tcp://[node-id@]host:port``, ``udp://`` likewise, ``unix://[node-id@]/path``; parsed and written.

Layer: net (L3), pure functions; resolves no names and opens nothing. An address is what a user writes down and copies:
everything in it is checked at the call, so a typing mistake is reported where it was made.
Spec: docs/spec/handshake.md §1.2, §7.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from netchan.errors import ConfigError
from netchan.net.identity import parse_node_id

MAX_ADDRESSES: Final = 32
"""Addresses of one ``dial`` or ``listen``: bounds the sockets that one call opens."""
MAX_HOST: Final = 253
"""Longest host name (RFC 1035 section 2.3.4, without the root's dot)."""
MAX_UNIX_PATH: Final = 107
"""Longest path of a Unix socket in bytes: the kernel's 108 with a zero at the end."""
ADDRESSES_KEPT: Final = 256
"""Addresses that are remembered as they were read: who dials one dials it again."""
CARRIERS: Final = ("tcp://host:port", "udp://host:port", "unix:///path")
"""Forms that exist, for messages."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address.

    Attributes:
        carrier: "tcp", "udp" or "unix".
        host: IP address without brackets (an IPv6 zone stays) or host name; "" for unix.
        port: 0 to 65535; 0 for unix, and for "any free port" at listen.
        path: absolute path of a Unix socket; "" for others.
        node_id: who must answer (dial) or who answers (listen), 52 characters; None = not said.
    """

    carrier: Literal["tcp", "udp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""
    node_id: str | None = None

    @property
    def location(self) -> str:
        """The address without the node id."""
        return str(replace(self, node_id=None))

    @property
    def is_numeric(self) -> bool:
        """True when nothing has to be resolved."""
        return self.carrier == "unix" or _ip(self.host) is not None

    def with_id(self, node_id: str | None) -> Address:
        """The same place with another node id."""
        return replace(self, node_id=node_id)

    def __str__(self) -> str:
        who = f"{self.node_id}@" if self.node_id else ""
        if self.carrier == "unix":
            return f"unix://{who}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.carrier}://{who}{host}:{self.port}"


def parse_address(text: object, *, listening: bool = False) -> Address:
    """Read one address.

    Args:
        text: as a user wrote it.
        listening: port 0 is allowed (any free port).

    Raises:
        ConfigError: not a str, an unknown carrier, a malformed part; the message names it.
    """
    if not isinstance(text, str):
        raise ConfigError(f"an address is a str such as {CARRIERS[0]!r}, not {type(text).__name__}")
    return _parse(text, listening)


@lru_cache(ADDRESSES_KEPT)
def _parse(text: str, listening: bool) -> Address:
    scheme, found, rest = text.partition("://")
    if not found or scheme not in ("tcp", "udp", "unix"):
        forms = f"{', '.join(CARRIERS[:-1])} and {CARRIERS[-1]}"
        raise ConfigError(f"address {_shown(text)} is not understood; there are {forms}")
    node_id: str | None = None
    place = rest
    # a path may hold "@" too: only what stands before the first "/" can be a node id
    head, slash, tail = rest.partition("/")
    if "@" in head:
        node_id, _, head = head.partition("@")
        parse_node_id(node_id)
        place = head + slash + tail
    if scheme == "unix":
        return _unix(text, place, node_id)
    return _host_port(text, "udp" if scheme == "udp" else "tcp", place, node_id, listening)


def parse_addresses(addresses: object, *, listening: bool = False) -> tuple[Address, ...]:
    """Read what ``dial`` or ``listen`` got: one address or a sequence of them, without repeats.

    Raises:
        ConfigError: none, more than 32, one that is malformed, or node ids that differ.
    """
    if isinstance(addresses, str):
        addresses = (addresses,)
    if not isinstance(addresses, Sequence) or isinstance(addresses, bytes | bytearray):
        raise ConfigError(f"addresses is a {type(addresses).__name__}; give one address or a list of them")
    if not 1 <= len(addresses) <= MAX_ADDRESSES:
        raise ConfigError(f"{len(addresses)} addresses were given; give 1 to {MAX_ADDRESSES}")
    parsed = tuple(dict.fromkeys(parse_address(item, listening=listening) for item in addresses))
    ids = {address.node_id for address in parsed} - {None}
    if len(ids) > 1:
        raise ConfigError("the addresses name different nodes; dial each node with a call of its own")
    return parsed


def _shown(text: str) -> str:
    return ascii(text[:120])


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _unix(text: str, path: str, node_id: str | None) -> Address:
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigError(f"address {_shown(text)}: the path of a Unix socket is absolute; write unix:///run/name.sock")
    if "\0" in path or not path.isprintable():
        raise ConfigError(f"address {_shown(text)}: the path holds a character that cannot be printed; choose another")
    size = len(os.fsencode(path))
    if size > MAX_UNIX_PATH:
        raise ConfigError(
            f"address {_shown(text)}: the path has {size} bytes, a Unix socket takes {MAX_UNIX_PATH}; "
            "choose a shorter one"
        )
    return Address("unix", path=path, node_id=node_id)


def _host_port(text: str, carrier: Literal["tcp", "udp"], place: str, node_id: str | None, listening: bool) -> Address:
    if place.startswith("["):
        host, closed, port = place[1:].partition("]")
        address = _ip(host)
        if not closed or address is None or address.version != 6 or not port.startswith(":"):
            raise ConfigError(
                f"address {_shown(text)}: in brackets stands an IPv6 address; write {carrier}://[::1]:7000"
            )
        port = port[1:]
    else:
        host, _, port = place.rpartition(":")
        if ":" in host:
            raise ConfigError(
                f"address {_shown(text)}: an IPv6 address stands in brackets; write {carrier}://[::1]:7000"
            )
        if not _is_host(host):
            raise ConfigError(f"address {_shown(text)}: the host is missing or malformed; write {carrier}://host:port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > 65_535:
        raise ConfigError(
            f"address {_shown(text)}: the port is missing or no number from 0 to 65535; write {carrier}://host:port"
        )
    number = int(port)
    if number == 0 and not listening:
        raise ConfigError(f"address {_shown(text)}: port 0 cannot be dialled; take one of listener.addresses")
    return Address(carrier, host=host, port=number, node_id=node_id)


def _is_host(host: str) -> bool:
    if _ip(host) is not None:
        return True
    if not 1 <= len(host) <= MAX_HOST or not host.isascii():
        return False
    labels = host.removesuffix(".").split(".")
    # a last label of digits is a malformed IPv4 address, which a resolver would read in ways nobody meant
    if labels[-1].isdigit():
        return False
    return all(
        1 <= len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum() and label[0] != "-" != label[-1]
        for label in labels
    )
