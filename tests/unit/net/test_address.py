"""Addresses: handshake.md §1.2 (node ids in them), §7 (a node id is checked whatever the policy)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netchan.errors import ConfigError
from netchan.net.address import MAX_ADDRESSES, Address, parse_address, parse_addresses
from netchan.net.identity import format_node_id

ID = format_node_id(bytes(range(32)))
OTHER = format_node_id(bytes(32))


class TestGood:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("tcp://127.0.0.1:7000", Address("tcp", "127.0.0.1", 7000)),
            ("tcp://[::1]:7000", Address("tcp", "::1", 7000)),
            ("tcp://[fe80::1%eth0]:1", Address("tcp", "fe80::1%eth0", 1)),
            ("tcp://node-7.example.org:65535", Address("tcp", "node-7.example.org", 65535)),
            ("tcp://my_box:1", Address("tcp", "my_box", 1)),
            (f"tcp://{ID}@[::1]:7000", Address("tcp", "::1", 7000, node_id=ID)),
            ("unix:///run/a.sock", Address("unix", path="/run/a.sock")),
            (f"unix://{ID}@/run/a.sock", Address("unix", path="/run/a.sock", node_id=ID)),
            ("unix:///run/a@b.sock", Address("unix", path="/run/a@b.sock")),
        ],
    )
    def test_address_good_is_read_and_written_back(self, text: str, expected: Address) -> None:
        address = parse_address(text)
        assert address == expected
        assert str(address) == text

    def test_location_leaves_the_node_id_out(self) -> None:
        assert parse_address(f"tcp://{ID}@localhost:5").location == "tcp://localhost:5"

    def test_port_zero_is_for_listening_only(self) -> None:
        assert parse_address("tcp://127.0.0.1:0", listening=True).port == 0
        with pytest.raises(ConfigError, match="port 0 cannot be dialled"):
            parse_address("tcp://127.0.0.1:0")

    @given(
        host=st.one_of(st.ip_addresses().map(str), st.from_regex(r"\A[a-z]([a-z0-9-]{0,20}[a-z0-9])?\Z")),
        port=st.integers(1, 65_535),
        key=st.none() | st.binary(min_size=32, max_size=32),
    )
    def test_address_written_is_read_back(self, host: str, port: int, key: bytes | None) -> None:
        address = Address("tcp", host, port, node_id=None if key is None else format_node_id(key))
        assert parse_address(str(address)) == address


class TestBad:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "not understood"),
            ("127.0.0.1:7000", "there are tcp://host:port, udp://host:port and unix:///path"),
            ("ws://127.0.0.1:7000", "there are tcp://host:port, udp://host:port and unix:///path"),
            ("udp://127.0.0.1", "write udp://host:port"),
            ("udp://::1:7000", "an IPv6 address stands in brackets; write udp"),
            ("udp://127.0.0.1:0", "port 0 cannot be dialled"),
            ("TCP://127.0.0.1:7000", "not understood"),
            ("tcp://", "host is missing"),
            ("tcp://:7000", "host is missing"),
            ("tcp://127.0.0.1", "host is missing"),
            ("tcp://127.0.0.1:", "port is missing"),
            ("tcp://127.0.0.1:x", "port is missing"),
            ("tcp://127.0.0.1:65536", "port is missing"),
            ("tcp://127.0.0.1:-1", "port is missing"),
            ("tcp://127.0.0.1:٧", "port is missing"),
            ("tcp://::1:7000", "stands in brackets"),
            ("tcp://[127.0.0.1]:7000", "in brackets stands an IPv6 address"),
            ("tcp://[::1]7000", "in brackets stands an IPv6 address"),
            ("tcp://[::1:7000", "in brackets stands an IPv6 address"),
            ("tcp://1.2.3:7000", "malformed"),
            ("tcp://127.0.0.300:7000", "malformed"),
            ("tcp://a..b:7000", "malformed"),
            ("tcp://-a:7000", "malformed"),
            ("tcp://a b:7000", "malformed"),
            ("tcp://h:1/path", "port is missing"),
            ("tcp://nobody@127.0.0.1:1", "not a node id"),
            (f"tcp://{ID.upper()}@127.0.0.1:1", "not a node id"),
            (f"tcp://{ID}", "host is missing"),
            ("unix://run/a.sock", "absolute"),
            ("unix://", "absolute"),
            ("unix:///run/", "absolute"),
            ("unix:///" + "x" * 107, "a Unix socket takes 107"),
            ("unix:///a\0b", "cannot be printed"),
            ("unix:///a\nb", "cannot be printed"),
        ],
    )
    def test_address_bad_raises_at_the_call_and_says_what(self, text: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse_address(text)

    @pytest.mark.parametrize("value", [None, 7, b"tcp://127.0.0.1:1"])
    def test_address_of_another_type_raises(self, value: object) -> None:
        with pytest.raises(ConfigError, match="an address is a str"):
            parse_address(value)

    @given(st.text(max_size=60))
    def test_any_text_is_an_address_or_a_config_error(self, text: str) -> None:
        for form in (text, "tcp://" + text, "unix://" + text):
            try:
                address = parse_address(form, listening=True)
            except ConfigError:
                continue
            assert parse_address(str(address), listening=True) == address


class TestSeveral:
    def test_repeats_are_left_out_and_order_is_kept(self) -> None:
        parsed = parse_addresses(["tcp://b:1", "tcp://a:1", "tcp://b:1"])
        assert [a.host for a in parsed] == ["b", "a"]

    def test_one_text_is_one_address(self) -> None:
        assert parse_addresses("tcp://a:1") == (Address("tcp", "a", 1),)

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ([], "give 1 to"),
            (["tcp://a:1"] * (MAX_ADDRESSES + 1), "give 1 to"),
            (7, "give one address or a list"),
            (b"tcp://a:1", "give one address or a list"),
            ([f"tcp://{ID}@a:1", f"tcp://{OTHER}@a:2"], "different nodes"),
        ],
    )
    def test_bad_lists_raise(self, value: object, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse_addresses(value)
