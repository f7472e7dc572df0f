"""Settings: names, defaults and ranges (api: R55)."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from typing import Any

import pytest

from netchan.config import CAPABILITIES_MAX, IO_THREADS_MAX, Config, Limits, check_capacity
from netchan.errors import ConfigError


class TestConfig:
    def test_fields_and_defaults_are_those_users_rely_on(self) -> None:
        values = dataclasses.asdict(Config())
        values.pop("limits")
        assert values == {
            "lease": 300.0,
            "dial_timeout": 10.0,
            "handshake_timeout": 5.0,
            "close_timeout": 5.0,
            "heartbeat": 5.0,
            "max_message": 64 << 20,
            "max_channels": 65_536,
            "backlog": 128,
            "session_bytes": 8 << 20,
            "node_bytes": 256 << 20,
            "await_spin": True,
            "io_threads": 0,
            "datagrams": False,
            "tickets": 64,
            "watch_network": True,
            "capabilities": frozenset(),
            "required_capabilities": frozenset(),
        }

    def test_config_is_frozen_hashable_and_by_keyword(self) -> None:
        config = Config(lease=1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.lease = 2  # type: ignore[misc]
        assert hash(config) == hash(Config(lease=1))
        with pytest.raises(TypeError):
            Config(1)  # type: ignore[misc]
        assert repr(config) == "Config(lease=1)"
        assert repr(Config()) == "Config()"

    @pytest.mark.parametrize("name", ["lease", "dial_timeout", "handshake_timeout", "close_timeout", "heartbeat"])
    @pytest.mark.parametrize("value", [-1, math.nan, math.inf, "5", True, None])
    def test_seconds_out_of_range_are_refused_by_name(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=name):
            Config(**{name: value})

    @pytest.mark.parametrize("name", ["max_message", "max_channels", "backlog", "session_bytes", "node_bytes"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, None, 1 << 50])
    def test_numbers_out_of_range_are_refused_by_name(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=name):
            Config(**{name: value})

    @pytest.mark.parametrize("value", [0, 1, "yes", None])
    def test_watch_network_is_a_bool(self, value: Any) -> None:
        assert not Config(watch_network=False).watch_network
        with pytest.raises(ConfigError, match="watch_network"):
            Config(watch_network=value)

    @pytest.mark.parametrize("value", [-1, 65, 1.0, "1", True, None])
    def test_io_threads_is_a_number_up_to_its_bound(self, value: Any) -> None:
        assert Config(io_threads=IO_THREADS_MAX).io_threads == 64
        with pytest.raises(ConfigError, match="io_threads"):
            Config(io_threads=value)

    def test_contradictions_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="node_bytes"):
            Config(session_bytes=1 << 20, node_bytes=1 << 19)
        with pytest.raises(ConfigError, match="limits"):
            Config(limits={})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="await_spin"):
            Config(await_spin=1)  # type: ignore[arg-type]

    @pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda f: f.name)
    def test_every_limit_refuses_zero(self, field: Any) -> None:
        with pytest.raises(ConfigError, match=field.name):
            Limits(**{field.name: 0})


class TestCapabilities:
    @pytest.mark.parametrize("kind", [set, frozenset, list, tuple, dict.fromkeys], ids=lambda kind: kind.__name__)
    def test_any_collection_of_ints_is_kept_as_a_frozenset(self, kind: Any) -> None:
        given = kind([0x8000, 0xFFFF, 0x8000])
        config = Config(capabilities=given)
        assert config.capabilities == frozenset({0x8000, 0xFFFF})
        assert isinstance(config.capabilities, frozenset)
        assert config == Config(capabilities=(0xFFFF, 0x8000))
        assert hash(config) == hash(Config(capabilities=[0xFFFF, 0x8000]))
        assert config != Config()

    def test_own_names_for_them_are_kept_as_plain_numbers(self) -> None:
        class Can(enum.IntEnum):
            ZIP = 0x8001

        config = Config(capabilities=Can)
        assert repr(config) == "Config(capabilities=frozenset({32769}))"
        assert [type(number) for number in config.capabilities] == [int]

    def test_what_is_required_is_had(self) -> None:
        config = Config(capabilities={0x8000}, required_capabilities=[0x8001])
        assert config.capabilities == frozenset({0x8000, 0x8001})
        assert config.required_capabilities == frozenset({0x8001})
        assert isinstance(config.required_capabilities, frozenset)
        assert dataclasses.replace(config, lease=1).required_capabilities == frozenset({0x8001})

    def test_later_changes_of_the_collection_change_nothing(self) -> None:
        given = {0x8000}
        config = Config(capabilities=given)
        given.add(0x8001)
        assert config.capabilities == frozenset({0x8000})

    @pytest.mark.parametrize("name", ["capabilities", "required_capabilities"])
    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (None, "collection"),
            (0x8000, "collection"),
            ("ab", "collection"),
            (b"ab", "collection"),
            (bytearray(2), "collection"),
            (itertools.repeat(0x8000), "collection"),
            ([True], "whole number"),
            ([32768.0], "whole number"),
            (["32768"], "whole number"),
            ([None], "whole number"),
            ([0], "netchan's own"),
            ([0x8000, 0x7FFF], "0x7fff: the capabilities below 0x8000 are netchan's own"),
            ([-1], "out of range"),
            ([0x1_0000], "out of range"),
            (range(0x8000, 0x8021), "at most 32"),
            (range(0x8000, 1 << 60), "at most 32"),
        ],
    )
    def test_other_values_are_refused_by_name(self, name: str, value: Any, why: str) -> None:
        with pytest.raises(ConfigError, match=f"^{name}.*{why}"):
            Config(**{name: value})

    def test_bound_is_for_both_together(self) -> None:
        assert CAPABILITIES_MAX == 32
        assert len(Config(capabilities=range(0x8000, 0x8020)).capabilities) == 32
        Config(capabilities=range(0x8000, 0x8020), required_capabilities=range(0x8000, 0x8020))
        with pytest.raises(ConfigError, match=r"capabilities .* at most 32"):
            Config(capabilities=range(0x8000, 0x8020), required_capabilities=[0x9000])


class TestCapacity:
    def test_capacity_is_an_int_from_zero(self) -> None:
        assert [check_capacity(n) for n in (0, 1, 1 << 30)] == [0, 1, 1 << 30]
        assert check_capacity(None, none_ok=True) is None

    @pytest.mark.parametrize("value", [-1, (1 << 30) + 1, 1.0, "1", True, None])
    def test_other_capacities_are_refused(self, value: Any) -> None:
        with pytest.raises(ConfigError, match="capacity"):
            check_capacity(value)
