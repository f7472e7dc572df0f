"""Checked arguments of dial and listen: what calls of one process share (spec handshake §9)."""

from __future__ import annotations

from netchan.config import Config
from netchan.net.identity import Identity
from netchan.net.manager import offer_for
from netchan.node.plan import NETWORK, plan_dial, plan_listen

ME, OTHER = Identity.generate(), Identity.generate()


def test_records_that_were_verified_once_count_for_all_dials_and_listeners() -> None:
    dials = [
        plan_dial(
            f"tcp://{OTHER.node_id}@127.0.0.1:7000",
            identity=ME,
            trust=None,
            psk=None,
            config=None,
            network=NETWORK,
            pq="require",
            membership=None,
            known_nodes=None,
            ticket=None,
        )
        for _ in range(2)
    ]
    listen = plan_listen(
        "tcp://127.0.0.1:0",
        identity=ME,
        trust="any",
        psk=None,
        config=None,
        network=NETWORK,
        pq="require",
        membership=None,
        stealth=False,
    )
    records = {id(plan.handshake.records) for plan in (*dials, listen)}
    assert len(records) == 1


def test_offer_is_that_of_the_settings() -> None:
    plain, other = offer_for(Config()), offer_for(Config(max_message=1 << 20))
    assert plain is offer_for(Config())
    assert plain.params.max_message == Config().max_message
    assert other.params.max_message == 1 << 20
    assert (plain.caps, plain.required) == (frozenset(), frozenset())


def test_offer_has_the_capabilities_of_the_settings() -> None:
    offer = offer_for(Config(capabilities={0x8000}, required_capabilities=[0x8001]))
    assert (offer.caps, offer.required) == (frozenset({0x8000, 0x8001}), frozenset({0x8001}))
