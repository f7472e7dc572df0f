"""Addresses as people write them: inputs, and what must hold for any text; for parsers.py."""

from __future__ import annotations

from typing import Any

from netchan.errors import ConfigError
from netchan.net import address
from netchan.net.identity import format_node_id


def check_address(data: bytes) -> None:
    """What is accepted comes back from its own spelling, and says so of what it was made from."""
    text = data.decode("utf-8", "surrogateescape")
    for listening in (False, True):
        try:
            got = address.parse_address(text, listening=listening)
        except ConfigError:
            continue
        assert address.parse_address(str(got), listening=listening) == got
        assert got.with_id(None).node_id is None
        assert address.parse_address(got.location, listening=listening) == got.with_id(None)
        assert got.is_numeric or got.carrier == "tcp"
    parts: Any = {b"\0": None, b"\1": data, b"\2": [data]}.get(data[:1], text.split("\n"))
    try:
        several = address.parse_addresses(text if len(parts or ()) == 1 and data[:1] > b"\2" else parts)
    except ConfigError:
        return
    assert 1 <= len(several) <= address.MAX_ADDRESSES
    assert len(set(several)) == len(several)


_ID, _ID2 = (format_node_id(bytes((n,)) * 32) for n in (1, 2))
ADDRESSES = [
    text.encode()
    for text in (
        "tcp://127.0.0.1:7000",
        f"tcp://{_ID}@[::1]:0",
        "tcp://[fe80::1%eth0]:65535",
        f"unix://{_ID}@/run/a@b.sock",
        "unix:///run/name.sock",
        "unix://name.sock",
        "unix:///run/",
        "unix:///run/a\x07",
        "unix:///" + "a" * 120,
        "tcp://a-b_c.example.:1",
        "tcp://-a.example:1",
        "tcp://" + "a" * 300 + ":1",
        "tcp://1.2.3.999:1",
        "tcp://bücher:1",
        "tcp://::1:80",
        "tcp://[127.0.0.1]:80",
        "tcp://:80",
        "tcp://a:",
        "tcp://a:99999",
        "tcp://a:0",
        "tcp://no@a:1",
        "http://a:1",
        "a:1",
        "",
        f"tcp://{_ID}@a:1\ntcp://{_ID}@b:1\ntcp://{_ID}@a:1",
        f"tcp://{_ID}@a:1\ntcp://{_ID2}@b:1",
        "\n".join(f"tcp://a:{n}" for n in range(1, 40)),
        "\0",
        "\1",
        "\2",
    )
]
