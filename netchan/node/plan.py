"""The arguments of ``dial`` and ``listen``, checked: a mistake raises from the call itself.

Layer 6; opens nothing and waits for nothing; reads the known-nodes file of trust="tofu".
Spec: docs/spec/handshake.md §5, §7.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from netchan.config import Config
from netchan.errors import ConfigError
from netchan.net import kept
from netchan.net.address import Address, parse_addresses
from netchan.net.dial import DialPlan
from netchan.net.gate import MAX_PSKS, Gate, check_psk
from netchan.net.handshake import HandshakeConfig
from netchan.net.identity import Identity, parse_node_id
from netchan.net.listen import ListenPlan
from netchan.net.manager import log, offer_for
from netchan.net.record import MAX_NETWORK_ID, Membership, RecordCache
from netchan.net.trust import Policy, Trust, make_policy

NETWORK: Final = "netchan"
"""Name of the network that nodes are in unless they say another."""
Pq = Literal["require", "off"]
_DEFAULTS: Final = Config()
_records: Final = RecordCache()
"""Records with a good signature, of all dials and listeners: a node that is dialled again need not be verified again.
Used on the worker's thread only."""


def plan_dial(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None,
    trust: Trust | None,
    psk: bytes | None,
    config: Config | None,
    network: str,
    pq: Pq,
    membership: Membership | bytes | None,
    known_nodes: str | os.PathLike[str] | None,
    ticket: bytes | None,
) -> DialPlan:
    """Check what ``dial`` got. ConfigError, with the line to write; OSError: the known-nodes file cannot be read."""
    places = parse_addresses(addresses)
    settings = _config(config)
    me = _identity(identity)
    node_id = next((address.node_id for address in places if address.node_id), None)
    key = None if psk is None else _psk(psk)
    if trust == "tofu" and known_nodes is None:
        known_nodes = default_known_nodes()
    policies = _policies(
        places,
        trust,
        me,
        dialling=True,
        psk=key is not None,
        expected_id=None if node_id is None else parse_node_id(node_id),
        known_nodes=known_nodes,
    )
    settings = _with_datagrams(settings, places)
    # a fresh identity is gone with this dial, and so is what a ticket could vouch for
    tickets = settings.tickets if identity is not None else 0
    handshake = _handshake(me, settings, network, pq, membership, tickets=tickets > 0)
    return DialPlan(places, handshake, policies, key, settings, tickets, _ticket(ticket, identity))


def plan_listen(
    addresses: str | Sequence[str],
    *,
    identity: Identity | None,
    trust: Trust | None,
    psk: bytes | Sequence[bytes] | None,
    config: Config | None,
    network: str,
    pq: Pq,
    membership: Membership | bytes | None,
    stealth: bool,
) -> ListenPlan:
    """Check what ``listen`` got. ConfigError, with the line to write."""
    places = parse_addresses(addresses, listening=True)
    settings = _config(config)
    me = _identity(identity)
    for place in places:
        if place.node_id is not None and place.node_id != me.node_id:
            raise ConfigError(f"address {place} names another node than identity=; leave the node id out to listen")
    keys = _psks(psk)
    settings = _with_datagrams(settings, places)
    handshake = _handshake(me, settings, network, pq, membership)
    policies = _policies(places, trust, me, dialling=False, psk=bool(keys), expected_id=None, known_nodes=None)
    gate = Gate(handshake.network_id, me.id_pub, handshake.primitives, psks=keys, stealth=bool(stealth))
    return ListenPlan(tuple(place.with_id(None) for place in places), handshake, policies, gate, settings)


def check_node(
    identity: Identity | None, psk: bytes | Sequence[bytes] | None, config: Config | None
) -> tuple[Identity, list[bytes], Config]:
    """What a Node got, but for what ``plan_dial`` and ``plan_listen`` look at. ConfigError, with the line to write."""
    return _identity(identity), _psks(psk), _config(config)


def check_number(name: str, value: object, low: int, high: float) -> None:
    """ConfigError unless it is a number in this range; an int where ``high`` is one."""
    kinds = (int,) if isinstance(high, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} cannot be; give {low} to {high:g}")


def default_known_nodes() -> Path:
    """``$XDG_CONFIG_HOME/netchan/known_nodes``, by default under ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "netchan" / "known_nodes"


def _with_datagrams(settings: Config, places: tuple[Address, ...]) -> Config:
    """Who names a udp:// address wants sessions that may have such paths."""
    wanted = any(place.carrier == "udp" for place in places)
    return replace(settings, datagrams=True) if wanted and not settings.datagrams else settings


def _policies(places: tuple[Address, ...], trust: Trust | None, me: Identity, **options: Any) -> dict[str, Policy]:
    carriers = dict.fromkeys(place.carrier for place in places)
    return {
        carrier: make_policy(trust, own_id=me.id_pub, same_user=carrier == "unix", **options) for carrier in carriers
    }


def _handshake(
    me: Identity,
    config: Config,
    network: object,
    pq: Pq,
    membership: Membership | bytes | None,
    *,
    tickets: bool = True,
) -> HandshakeConfig:
    if not isinstance(network, str) or not network.isprintable():
        raise ConfigError(f"network={network!r} is no printable str; leave it out, or give one name to all your nodes")
    try:
        network_id = network.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"network={network!a} holds a lone surrogate; give text for UTF-8") from None
    if len(network_id) > MAX_NETWORK_ID:
        raise ConfigError(f"network= has {len(network_id)} bytes, at most {MAX_NETWORK_ID}; give a shorter name")
    if membership is not None and not isinstance(membership, Membership | bytes):
        raise ConfigError(f"membership is a {type(membership).__name__}; give what the authority's issue() returned")
    return HandshakeConfig(
        me,
        network_id=network_id,
        pq=pq,
        offer=offer_for(config, tickets=tickets),
        membership=membership.raw if isinstance(membership, Membership) else membership,
        timeout_ns=int(config.handshake_timeout * 1e9),
        records=_records,
    )


def _ticket(ticket: object, identity: Identity | None) -> kept.Kept | None:
    """A stored ticket; None if there is none that can be used: then the handshake is a full one."""
    if ticket is None:
        return None
    if not isinstance(ticket, bytes) or len(ticket) > kept.STORED_MAX:
        raise ConfigError(
            f"ticket is {f'{len(ticket)} bytes' if isinstance(ticket, bytes) else f'a {type(ticket).__name__}'}; give "
            "the bytes of peer.ticket, or None"
        )
    if identity is None:
        raise ConfigError("ticket= is good only with the identity= that it was given to; give both, or leave it out")
    try:
        return kept.unpack(ticket, identity)
    except kept.TicketError as error:
        log.warning("the ticket for this dial is not used: %s; the handshake is a full one", error)
        return None


def _config(config: object) -> Config:
    if config is None:
        return _DEFAULTS
    if not isinstance(config, Config):
        raise ConfigError(f"config is a {type(config).__name__}; write config=netchan.Config(...)")
    return config


def _identity(identity: object) -> Identity:
    if identity is None:
        return Identity.generate()
    if not isinstance(identity, Identity):
        raise ConfigError(
            f"identity is a {type(identity).__name__}; write identity=netchan.Identity.load_or_create('node.key')"
        )
    return identity


def _psk(psk: object) -> bytes:
    try:
        return check_psk(psk)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{error}; write psk=secrets.token_bytes(32) once and give both sides the same") from None


def _psks(psk: object) -> list[bytes]:
    if psk is None:
        return []
    if not isinstance(psk, list | tuple):
        return [_psk(psk)]
    if not 1 <= len(psk) <= MAX_PSKS:
        raise ConfigError(f"{len(psk)} PSKs were given; give 1 to {MAX_PSKS}")
    return [_psk(item) for item in psk]
