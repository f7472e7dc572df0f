"""The second implementation of tickets and ours: frozen vectors, live runs (docs/spec/handshake.md §12)."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from netchan.net import gate as g
from netchan.net import handshake as hs
from netchan.net import kept as kp
from netchan.net import ticket as tk
from netchan.net.identity import Identity
from netchan.net.record import parse_record
from netchan.net.secret import SecureBytes, hkdf_expand
from netchan.net.trust import make_policy
from tests.interop import make_resume_vectors as maker
from tests.interop import second_handshake as second
from tests.interop import second_resume as resume
from tests.interop.test_vectors_handshake import Draws, established, grease_draw, offer_of, sent

FILE = Path(__file__).resolve().parent / "vectors" / "resume.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text())["cases"]
each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def raw(case: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(case[name])


def items_of(case: dict[str, Any], name: str) -> second.Items:
    return [(kind, bytes.fromhex(value)) for kind, value in case[name]]


def config_of(case: dict[str, Any], side: int) -> hs.HandshakeConfig:
    items = items_of(case, ("resume_items", "resumed_items")[side])
    return hs.HandshakeConfig(
        Identity(SecureBytes(bytes.fromhex(case["identity_seeds"][side]))), network_id=raw(case, "network_id"),
        pq="require" if case["suite"] == 1 else "off", offer=offer_of(items),
        membership=(raw(case, "membership") or None) if side == 0 else None,
    )  # fmt: skip


def our_initiator(case: dict[str, Any], draws: Any) -> hs.Initiator:
    config = config_of(case, 0)
    responder = second.identity_of(bytes.fromhex(case["identity_seeds"][1]))
    policy = make_policy(
        "any", own_id=config.identity.id_pub, dialling=True, expected_id=responder if case["named"] else None
    )
    kept = kp.unpack(raw(case, "stored"), config.identity)
    return hs.Initiator(config, policy, draws, psk=raw(case, "psk") or None, kept=kept)


def our_keys(case: dict[str, Any]) -> tk.TicketKeys:
    """Ours, whose one key is that of the case."""
    keys = tk.TicketKeys(Draws({8: [raw(case, "ticket_key_name")], 32: [raw(case, "ticket_key")]}))
    assert isinstance(keys._begin_key(0).cipher, tk.SivCipher)
    return keys


def our_responder(case: dict[str, Any], draws: Any, tickets: tk.TicketKeys) -> hs.Responder:
    config, psk = config_of(case, 1), raw(case, "psk")
    gate = g.Gate(config.network_id, config.identity.id_pub, config.primitives, psks=[psk] if psk else [])
    policy = make_policy("any", own_id=config.identity.id_pub, dialling=False)
    machine = hs.Responder(config, policy, gate, draws, 0, tickets=tickets)
    machine.deadline_ns = None  # the clock of a case begins when its ticket was given
    return machine


class TestFrozenVectors:
    def test_file_is_what_its_program_writes(self) -> None:
        assert maker.build() == FILE.read_text()

    @each_case
    def test_our_giver_makes_the_same_ticket(self, case: dict[str, Any]) -> None:
        keys, record = our_keys(case), parse_record(bytes.fromhex(case["records"][0]))
        context = tk.Context(
            second.identity_of(bytes.fromhex(case["identity_seeds"][1])), raw(case, "network_id"), case["suite"]
        )
        _, ticket = keys.issue(
            raw(case, "ticket_id"), raw(case, "secret"), record, frozenset(case["caps"]), context,
            case["issued_ms"] * 1_000_000,
        )  # fmt: skip
        assert ticket == raw(case, "ticket")
        got = keys.open(ticket, context, 0)
        assert (bytes(got.secret), got.issued_ms, got.record) == (raw(case, "secret"), case["issued_ms"], record)
        secret = hkdf_expand(raw(case, "resumption"), b"netchan v1 ticket" + tk.ticket_id(ticket))
        assert secret == raw(case, "secret")

    @each_case
    def test_our_stored_form_is_the_same(self, case: dict[str, Any]) -> None:
        identity = config_of(case, 0).identity
        kept = kp.unpack(raw(case, "stored"), identity)
        assert kept.pack() == raw(case, "stored")
        assert kept.ticket == raw(case, "ticket")
        assert kept.secret == raw(case, "secret")
        assert kept.record.raw == bytes.fromhex(case["records"][1])
        assert (kept.received_ms, kept.life_s) == (case["received_ms"], case["life_s"])
        assert kept.psk_mark == kp.mark_of(raw(case, "psk") or None)

    @each_case
    def test_our_initiator_writes_every_byte(self, case: dict[str, Any]) -> None:
        asked = grease_draw(items_of(case, "resume_items"))
        draws = Draws({8: [raw(case, "scid")], 12: [b"\x01" * 12, asked], 32: [bytes.fromhex(case["ephemerals"][0])]})
        machine = our_initiator(case, draws)
        if not case["replaces"]:
            # a stored ticket takes the place of its session; the case says that this one does not
            machine._kept = dataclasses.replace(machine._kept, stored=False)
        wall_s = case["sent_ms"] / 1000
        assert sent(machine.start(wall_s, 0)) == raw(case, "resume")
        end = established(machine.feed(raw(case, "resumed"), wall_s, 1))
        assert (bytes(end.root), end.binding) == (raw(case, "root"), raw(case, "h"))
        assert bytes(2) + end.agreement.encoded == raw(case, "verdict")

    @each_case
    def test_our_responder_writes_every_byte(self, case: dict[str, Any]) -> None:
        machine = our_responder(case, Draws({32: [bytes.fromhex(case["ephemerals"][1])]}), our_keys(case))
        events = machine.feed(raw(case, "resume"), case["sent_ms"] / 1000, case["now_ms"] * 1_000_000)
        assert sent(events) == raw(case, "resumed")
        end = established(events)
        assert (bytes(end.root), end.binding) == (raw(case, "root"), raw(case, "h"))
        assert end.predecessor == (raw(case, "ticket_id") if case["replaces"] else b"")
        assert end.claim.record.raw == bytes.fromhex(case["records"][0])
        assert (end.claim.membership or b"") == raw(case, "membership")


class TestLive:
    """Each against the other with fresh keys, grease included."""

    @each_case
    def test_second_initiator_our_responder_agree(self, case: dict[str, Any]) -> None:
        rng = random.Random(20_263).randbytes
        for _ in range(3):
            theirs = resume.Initiator(
                rng(32), case["named"], case["suite"], raw(case, "network_id"), raw(case, "psk"), rng(8),
                case["sent_ms"], second.identity_of(bytes.fromhex(case["identity_seeds"][1])), raw(case, "secret"),
                raw(case, "ticket"),
            )  # fmt: skip
            ours = our_responder(case, rng, our_keys(case))
            frame = theirs.resume(items_of(case, "resume_items"))
            events = ours.feed(frame, case["sent_ms"] / 1000, case["now_ms"] * 1_000_000)
            result, end = theirs.resumed(sent(events)), established(events)
            assert (result.root, result.h) == (bytes(end.root), end.binding)

    @each_case
    def test_our_initiator_second_responder_agree(self, case: dict[str, Any]) -> None:
        rng = random.Random(20_264).randbytes
        for _ in range(3):
            theirs = resume.Responder(
                rng(32), second.identity_of(bytes.fromhex(case["identity_seeds"][1])), case["suite"],
                raw(case, "network_id"), raw(case, "psk"), raw(case, "ticket_key"), case["now_ms"],
            )  # fmt: skip
            ours = our_initiator(case, rng)
            frame = sent(ours.start(case["sent_ms"] / 1000, 0))
            answer, result = theirs.answer(frame, items_of(case, "resumed_items"))
            end = established(ours.feed(answer, case["sent_ms"] / 1000, 1))
            assert (result.root, result.h) == (bytes(end.root), end.binding)
            assert result.peer_id == second.identity_of(bytes.fromhex(case["identity_seeds"][0]))

    @pytest.mark.parametrize("at", range(0, 343, 7))
    def test_changed_bit_is_refused_by_both(self, at: int) -> None:
        case = CASES[0]
        frame = raw(case, "resume")
        body = bytearray(frame[22:-32])
        body[at] ^= 1
        key = second.gate_key(b"", second.identity_of(bytes.fromhex(case["identity_seeds"][1])), b"lab", 1, False)
        changed = second.close_frame(frame[:22], bytes(body), key)
        theirs = resume.Responder(
            bytes(32), second.identity_of(bytes.fromhex(case["identity_seeds"][1])), 1, b"lab", b"",
            raw(case, "ticket_key"), case["now_ms"],
        )  # fmt: skip
        with pytest.raises((second.Refused, IndexError)):
            theirs.answer(changed, items_of(case, "resumed_items"))
        ours = our_responder(case, random.Random(1).randbytes, our_keys(case))
        events = ours.feed(changed, case["sent_ms"] / 1000, case["now_ms"] * 1_000_000)
        assert [event.data[0] for event in events if isinstance(event, hs.Send)] == [g.NO_TICKET]
