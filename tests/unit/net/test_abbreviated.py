"""The handshake with a ticket: what begins with one, what it falls back from, what is refused (spec handshake §12)."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest

from netchan.errors import AuthError
from netchan.net import abbreviated as short
from netchan.net import gate as g
from netchan.net import handshake as hs
from netchan.net import kept as kp
from netchan.net import params as p
from netchan.net import ticket as tk
from netchan.net.identity import Identity
from netchan.net.noise import NoiseError
from netchan.net.params import Refusal
from netchan.net.secret import SecureBytes, hkdf_expand
from netchan.net.trust import CA

KEY = bytes(range(32))
CAPS = frozenset({3, 9})
NOW_NS = 1


class Tickets:
    """Bob's tickets, and one of them given to alice in a session that ended well."""

    def __init__(self, world: Any, **options: Any) -> None:
        self.world = world
        self.keys = tk.TicketKeys(random.Random(7).randbytes, **options)

    def give(
        self,
        *,
        pq: str = "off",
        psk: bytes | None = None,
        network_id: bytes = b"netchan",
        caps: Any = CAPS,
        **changed: Any,
    ) -> kp.Kept:
        world = self.world
        suite = g.SUITE_HYBRID if pq == "require" else g.SUITE_CLASSICAL
        id16 = world.rng(16)
        secret = hkdf_expand(b"resumption of the session", b"netchan v1 ticket" + id16)
        records = [who.record(world.wall_s, network_id) for who in (world.alice, world.bob)]
        context = tk.Context(world.bob.id_pub, network_id, suite)
        life_s, ticket = self.keys.issue(id16, secret, records[0], caps, context, NOW_NS)
        fields: dict[str, Any] = {
            "ticket": ticket,
            "secret": secret,
            "record": records[1],
            "membership": None,
            "caps": caps,
            "suite": suite,
            "network_id": network_id,
            "psk_mark": kp.mark_of(psk),
            "received_ms": int(world.wall_s * 1000),
            "life_s": life_s,
            "identity": world.alice,
        }
        return kp.Kept(**fields | changed)


def offer(**changed: Any) -> p.Offer:
    return p.Offer(**{"caps": CAPS, "required": frozenset({3})} | changed)


def sides(world: Any, tickets: Tickets, kept: kp.Kept, **options: Any) -> tuple[hs.Initiator, hs.Responder]:
    """A dialler with the ticket and a listener; options begin with i_ or r_, or are those of both configurations."""
    both = {name: value for name, value in options.items() if name[:2] not in ("i_", "r_")}
    mine = {name[2:]: value for name, value in options.items() if name[:2] == "i_"}
    theirs = {name[2:]: value for name, value in options.items() if name[:2] == "r_"}
    config = {"offer": offer()} | both
    i_config, r_config = config | mine.pop("config", {}), config | theirs.pop("config", {})
    theirs.setdefault("tickets", tickets.keys)
    return (
        world.initiator(config=i_config, kept=kept, **mine),
        world.responder(config=r_config, **theirs),
    )


def kinds(out: Any) -> list[int]:
    return [data[0] for data in out.wire]


FULL = [g.HELLO, g.REPLY, g.FINISH, g.ACCEPT]
SHORT = [g.RESUME, g.RESUMED]


class TestGood:
    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("pq", ["require", "off"])
    @pytest.mark.parametrize("psk", [None, KEY])
    def test_ticket_begins_a_session_in_one_round_trip(
        self, world: Any, named: bool, pq: str, psk: bytes | None
    ) -> None:
        tickets = Tickets(world)
        gate = {"psks": [psk] if psk else []}
        out = world.run(
            *sides(world, tickets, tickets.give(pq=pq, psk=psk), pq=pq, i_psk=psk, i_named=named, r_gate=gate)
        )
        first, second = out.established
        assert kinds(out) == SHORT
        assert first.root == second.root
        assert any(first.root)
        assert first.binding == second.binding
        assert first.agreement == second.agreement
        assert (first.node_id, second.node_id) == (world.bob.node_id, world.alice.node_id)
        assert first.by_ticket
        assert second.by_ticket
        assert all(len(data) <= g.MAX_FRAME[data[0]] for data in out.wire)
        assert len(out.wire[0]) < 700 < 3 * len(out.wire[0])
        assert len(out.wire[1]) < len(out.wire[0])

    def test_two_sessions_of_one_secret_have_nothing_in_common(self, world: Any) -> None:
        roots = set()
        for _ in range(3):
            tickets = Tickets(world)
            out = world.run(*sides(world, tickets, tickets.give()))
            roots |= {bytes(out.established[0].root), out.established[0].binding}
        assert len(roots) == 6

    def test_root_binds_what_both_said(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give())
        held: list[Any] = []
        original = responder._establish

        def spy(verdict: bytes, *rest: Any) -> Any:
            held.extend((bytes(responder._prk), verdict))
            return original(verdict, *rest)

        responder._establish = spy  # type: ignore[method-assign]
        _, second = world.run(initiator, responder).established
        prk, verdict = held
        info = b"netchan root v1" + second.binding + hashlib.sha256(verdict).digest()
        assert second.root == hmac.digest(prk, info + b"\x01", "sha256")
        assert verdict == bytes(2) + second.agreement.encoded

    def test_one_byte_at_a_time_ends_the_same(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give())
        queue, ends = bytearray(initiator.start(world.wall_s, 0)[0].data), []
        for machine in (responder, initiator):
            taken, queue = queue, bytearray()
            for byte in taken:
                for event in machine.feed(bytes((byte,)), world.wall_s, NOW_NS):
                    if isinstance(event, hs.Send):
                        queue += event.data
                    else:
                        ends.append(event)
        assert len(ends) == 2
        assert ends[0].root == ends[1].root

    def test_bytes_behind_resumed_are_kept(self, world: Any) -> None:
        tickets = Tickets(world)
        out = world.run(*sides(world, tickets, tickets.give()), lambda i, data: data + b"record" if i == 1 else data)
        assert out.established[0].leftover == b"record"

    def test_machines_hold_no_secret_afterwards(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give(psk=KEY), i_psk=KEY, r_gate={"psks": [KEY]})
        world.run(initiator, responder).established
        assert not any(initiator._psk)
        for machine in (initiator, responder):
            assert machine._noise is machine._prk is machine._keys is None
        assert initiator._kept is None

    def test_session_left_behind_is_named_to_the_giver(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for behind in (True, False):
            monkeypatch.setattr(hs, "leaves_behind", lambda kept, behind=behind: behind)
            tickets = Tickets(world)
            kept = tickets.give()
            first, second = world.run(*sides(world, tickets, kept)).established
            assert second.predecessor == (tk.ticket_id(kept.ticket) if behind else b"")
            assert first.predecessor == b""

    def test_claim_holds_the_record_that_was_proved_and_what_is_shown_now(self, world: Any) -> None:
        authority = CA(world.bob)
        member = authority.issue(world.alice.node_id, world.wall_s)
        tickets = Tickets(world)
        kept = tickets.give()
        out = world.run(*sides(world, tickets, kept, i_config={"membership": member.raw}, r_trust=authority))
        first, second = out.established
        assert kinds(out) == SHORT
        assert second.claim.record == world.alice.record(world.wall_s)
        assert second.claim.membership == member.raw
        assert first.claim.record == kept.record
        assert not second.live


class TestFallback:
    """Refused or not used: a full handshake on the same connection, or what that says."""

    def check(self, world: Any, machines: tuple[hs.Initiator, hs.Responder], why: str, **options: Any) -> Any:
        out = world.run(*machines, **options)
        assert kinds(out) == [g.RESUME, g.NO_TICKET, *FULL]
        assert machines[1].no_ticket == why
        first, second = out.established
        assert first.root == second.root
        assert not first.by_ticket
        assert not second.by_ticket
        return out

    @pytest.mark.parametrize("psk", [None, KEY])
    def test_ticket_that_was_used(self, world: Any, psk: bytes | None) -> None:
        tickets = Tickets(world)
        kept = tickets.give(psk=psk)
        options: dict[str, Any] = {"i_psk": psk, "r_gate": {"psks": [psk] if psk else []}}
        world.run(*sides(world, tickets, kept, **options)).established
        self.check(world, sides(world, tickets, dataclasses.replace(kept), **options), "used")

    def test_ticket_of_a_process_that_is_gone(self, world: Any) -> None:
        kept = Tickets(world).give()
        later = Tickets(world)
        later.keys = tk.TicketKeys(random.Random(8).randbytes)
        later.give()
        self.check(world, sides(world, later, kept), "unknown key")

    def test_ticket_of_another_node_behind_the_same_address(self, world: Any) -> None:
        # without a node id in the address: whoever answers there now is dialled in full
        tickets = Tickets(world)
        kept = tickets.give()
        stranger = Identity(SecureBytes(b"\x21" * 32))
        out = self.check(world, sides(world, tickets, kept, i_named=False, r_identity=stranger), "does not open")
        assert out.established[0].node_id == stranger.node_id

    def test_listener_without_tickets(self, world: Any) -> None:
        tickets = Tickets(world)
        self.check(world, sides(world, tickets, tickets.give(), r_tickets=None), "off")

    def test_listener_that_wants_each_handshake_signed(self, world: Any) -> None:
        tickets = Tickets(world)
        machines = sides(
            world, tickets, tickets.give(), i_config={"live_identity": True}, r_config={"require_live": True}
        )
        assert self.check(world, machines, "off").established[1].live

    @pytest.mark.parametrize("late_s", [-31, 31, 3_600])
    def test_ticket_held_back_or_of_a_clock_that_was_set(self, world: Any, late_s: int) -> None:
        tickets = Tickets(world)
        kept = tickets.give(received_ms=int((world.wall_s - 1_800 - late_s) * 1000))
        initiator, responder = sides(world, tickets, kept)
        frame = initiator.start(world.wall_s, 0)[0].data
        responder.deadline_ns = None
        events = responder.feed(frame, world.wall_s, NOW_NS + 1_800 * 10**9)
        assert [event.data[0] for event in events] == [g.NO_TICKET]
        assert responder.no_ticket == "age"

    @pytest.mark.parametrize("late_s", [-29, 0, 29])
    def test_age_may_differ_a_little(self, world: Any, late_s: int) -> None:
        tickets = Tickets(world)
        kept = tickets.give(received_ms=int((world.wall_s - 1_800 - late_s) * 1000))
        initiator, responder = sides(world, tickets, kept)
        frame = initiator.start(world.wall_s, 0)[0].data
        responder.deadline_ns = None
        events = responder.feed(frame, world.wall_s, NOW_NS + 1_800 * 10**9)
        assert [type(event) for event in events] == [hs.Send, hs.Established]

    def test_wall_clock_of_the_giver_does_not_matter(self, world: Any) -> None:
        # its record would be over 31 days on; a day is nothing to it
        tickets = Tickets(world)
        out = world.run(*sides(world, tickets, tickets.give()), resp_wall_s=world.wall_s + 86_400)
        assert kinds(out) == SHORT

    def test_ticket_behind_its_life_at_the_giver(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give())
        frame = initiator.start(world.wall_s, 0)[0].data
        responder.deadline_ns = None
        events = responder.feed(frame, world.wall_s, 25 * 3_600 * 10**9)
        assert [event.data[0] for event in events] == [g.NO_TICKET]
        assert responder.no_ticket == "unknown key"

    def test_record_that_has_expired(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give())
        frame = initiator.start(world.wall_s, 0)[0].data
        events = responder.feed(frame, world.wall_s + 8 * 86_400, NOW_NS)
        assert [event.data[0] for event in events] == [g.NO_TICKET]
        assert responder.no_ticket == "expired"

    @pytest.mark.parametrize(
        "changed",
        [
            {"caps": CAPS | {5}},
            {"caps": frozenset({3})},
        ],
    )
    def test_capabilities_that_both_have_now_are_not_those_of_then(self, world: Any, changed: dict[str, Any]) -> None:
        tickets = Tickets(world)
        now = offer(**changed)
        out = self.check(world, sides(world, tickets, tickets.give(), offer=now), "terms")
        assert out.established[0].agreement.caps == changed["caps"]

    def test_capability_of_one_side_alone_changes_nothing(self, world: Any) -> None:
        tickets = Tickets(world)
        out = world.run(*sides(world, tickets, tickets.give(), i_config={"offer": offer(caps=CAPS | {5})}))
        assert kinds(out) == SHORT

    def test_capability_that_is_required_now_and_missing_is_refused_by_the_full_handshake(self, world: Any) -> None:
        tickets = Tickets(world)
        machines = sides(
            world, tickets, tickets.give(), r_config={"offer": offer(caps=CAPS | {5}, required=frozenset({5}))}
        )
        out = world.run(*machines)
        assert kinds(out)[:2] == [g.RESUME, g.NO_TICKET]
        assert machines[1].no_ticket == "terms"
        assert out.failed("initiator").code is Refusal.CAPABILITY

    def test_better_version_that_both_speak_by_now(self, world: Any) -> None:
        tickets = Tickets(world)
        machines = sides(world, tickets, tickets.give(), offer=offer(versions=(1, 2)))
        out = world.run(*machines)
        assert machines[1].no_ticket == "terms"
        assert out.failed("initiator").code is Refusal.VERSION

    def test_peer_that_was_blocked_meanwhile_is_refused(self, world: Any) -> None:
        blocked: set[bytes] = set()
        tickets = Tickets(world)
        first = tickets.give()
        assert kinds(world.run(*sides(world, tickets, first, r_blocked=blocked))) == SHORT
        blocked.add(world.alice.id_pub)
        machines = sides(world, tickets, tickets.give(), r_blocked=blocked)
        out = world.run(*machines)
        assert kinds(out) == [g.RESUME, g.NO_TICKET, *FULL]
        assert machines[1].no_ticket == "policy"
        assert out.failed("initiator").code is Refusal.UNTRUSTED
        assert isinstance(out.failed("initiator").error, AuthError)

    def test_static_key_that_was_blocked_meanwhile_is_refused(self, world: Any) -> None:
        tickets = Tickets(world)
        blocked = {world.alice.record(world.wall_s).static_pub}
        out = world.run(*sides(world, tickets, tickets.give(), r_blocked=blocked))
        assert out.failed("initiator").code is Refusal.UNTRUSTED

    def test_ticket_of_one_listener_carries_no_right_to_another_one(self, world: Any) -> None:
        # same process, same identity, another policy
        tickets = Tickets(world)
        other = Identity(SecureBytes(b"\x22" * 32))
        machines = sides(world, tickets, tickets.give(), r_trust=[other.node_id])
        out = world.run(*machines)
        assert machines[1].no_ticket == "policy"
        assert out.failed("initiator").code is Refusal.UNTRUSTED

    def test_membership_that_is_not_shown_any_more_is_missed(self, world: Any) -> None:
        tickets = Tickets(world)
        machines = sides(world, tickets, tickets.give(), r_trust=CA(world.bob))
        out = world.run(*machines)
        assert machines[1].no_ticket == "policy"
        assert out.failed("initiator").code is Refusal.UNTRUSTED

    def test_giver_whose_record_of_the_first_handshake_is_over_is_dialled_in_full(self, world: Any) -> None:
        tickets = Tickets(world)
        kept = tickets.give(life_s=30 * 86_400)
        world.wall_s += 8 * 86_400
        out = world.run(*sides(world, tickets, kept))
        assert kinds(out) == FULL

    @pytest.mark.parametrize(
        "changed",
        [
            {"life_s": 0},
            {"received_ms": (1_800_000_001 * 1000)},
            {"network_id": b"other"},
            {"suite": g.SUITE_HYBRID},
            {"psk_mark": b"x" * 16},
            {"identity": Identity(SecureBytes(b"\x23" * 32))},
        ],
        ids=["over", "clock went back", "network", "suite", "psk", "identity"],
    )
    def test_ticket_that_does_not_fit_is_not_sent(self, world: Any, changed: dict[str, Any]) -> None:
        tickets = Tickets(world)
        out = world.run(*sides(world, tickets, tickets.give(**changed)))
        assert kinds(out) == FULL
        out.established

    def test_ticket_of_another_node_than_the_one_dialled_is_not_sent(self, world: Any) -> None:
        tickets = Tickets(world)
        stranger = Identity(SecureBytes(b"\x21" * 32))
        kept = tickets.give(record=stranger.record(world.wall_s))
        assert kinds(world.run(*sides(world, tickets, kept))) == FULL

    def test_record_with_a_wrong_signature_is_not_believed(self, world: Any) -> None:
        tickets = Tickets(world)
        kept = tickets.give()
        forged = dataclasses.replace(kept.record, raw=kept.record.raw[:-1] + bytes((kept.record.raw[-1] ^ 1,)))
        out = world.run(*sides(world, tickets, dataclasses.replace(kept, record=forged)))
        assert kinds(out) == FULL

    def test_dialler_that_refuses_the_giver_by_now_sends_no_ticket(self, world: Any) -> None:
        tickets = Tickets(world)
        other = Identity(SecureBytes(b"\x22" * 32))
        out = world.run(*sides(world, tickets, tickets.give(), i_trust=[other.node_id], i_named=False))
        assert kinds(out)[0] == g.HELLO
        assert out.failed("initiator").code is Refusal.UNTRUSTED

    def test_dialler_that_wants_each_handshake_signed_sends_no_ticket(self, world: Any) -> None:
        tickets = Tickets(world)
        machines = sides(
            world, tickets, tickets.give(), i_config={"require_live": True}, r_config={"live_identity": True}
        )
        out = world.run(*machines)
        assert kinds(out) == FULL
        assert out.established[0].live

    def test_ticket_that_makes_a_message_too_long_is_not_sent(self, world: Any) -> None:
        tickets = Tickets(world)
        kept = tickets.give()
        long = dataclasses.replace(kept, ticket=kept.ticket + bytes(1_024 - len(kept.ticket)))
        many = offer(caps=CAPS | frozenset(range(1_000, 1_060)))
        member = bytes(1_024)
        machines = sides(world, tickets, long, i_config={"offer": many, "membership": member})
        assert machines[0].start(world.wall_s, 0)[0].data[0] == g.HELLO


class TestPolicyThatWaits:
    async def answer(self, value: bool) -> bool:
        return value

    def pending(self, events: list[hs.Event]) -> Any:
        asked = [event for event in events if isinstance(event, hs.Ask)]
        assert len(asked) == 1
        assert inspect.iscoroutine(asked[0].pending)
        asked[0].pending.close()
        return asked[0]

    @pytest.mark.parametrize("allowed", [True, False])
    def test_dialler_asks_before_it_sends(self, world: Any, allowed: bool) -> None:
        tickets = Tickets(world)
        initiator, _ = sides(world, tickets, tickets.give(), i_trust=lambda node: self.answer(allowed))
        events = initiator.start(world.wall_s, 0)
        assert self.pending(events).claim.node_id == world.bob.node_id
        assert not [event for event in events if isinstance(event, hs.Send)]
        (sent,) = initiator.resolve(allowed, world.wall_s, 1)
        assert sent.data[0] == (g.RESUME if allowed else g.HELLO)

    @pytest.mark.parametrize("allowed", [True, False])
    def test_giver_asks_before_it_answers(self, world: Any, allowed: bool) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give(), r_trust=lambda node: self.answer(allowed))
        events = responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, NOW_NS)
        assert self.pending(events).claim.node_id == world.alice.node_id
        events = responder.resolve(allowed, world.wall_s, NOW_NS)
        assert events[0].data[0] == (g.RESUMED if allowed else g.NO_TICKET)
        assert responder.no_ticket == ("" if allowed else "policy")
        if allowed:
            first = initiator.feed(events[0].data, world.wall_s, NOW_NS)
            assert first[0].root == events[1].root

    def test_ticket_is_used_up_while_the_policy_is_asked(self, world: Any) -> None:
        tickets = Tickets(world)
        kept = tickets.give()
        initiator, responder = sides(world, tickets, kept, r_trust=lambda node: self.answer(True))
        self.pending(responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, NOW_NS))
        _, other = machines = sides(world, tickets, dataclasses.replace(kept))
        assert kinds(world.run(*machines))[:2] == [g.RESUME, g.NO_TICKET]
        assert other.no_ticket == "used"


class TestHostile:
    def counted(self, world: Any) -> list[int]:
        """Sizes that the machines made from now on draw."""
        sizes: list[int] = []
        rng = world.rng

        def draw(size: int) -> bytes:
            sizes.append(size)
            return bytes(rng(size))

        world.rng = draw
        return sizes

    def test_each_changed_bit_of_resume_gives_a_full_handshake_or_none(self, world: Any) -> None:
        # an attacker without the PSK cannot make mac1: here he can, and changes only what is inside
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_responder
        tickets = Tickets(world)
        frame = sides(world, tickets, tickets.give())[0].start(world.wall_s, 0)[0].data
        header = g.parse_header(frame)
        reasons = set()
        for at in range(len(g.frame_body(frame))):
            body = bytearray(g.frame_body(frame))
            body[at] ^= 1 << at % 8
            initiator, responder = sides(world, tickets, tickets.give())
            initiator.start(world.wall_s, 0)
            events = responder.feed(g.seal_frame(header, bytes(body), keys), world.wall_s, NOW_NS)
            assert [event.data[0] for event in events] == [g.NO_TICKET]
            reasons.add(responder.no_ticket)
        assert reasons == {"unknown key", "does not open", "malformed"}
        # none of them has used the ticket up
        events = sides(world, tickets, tickets.give())[1].feed(frame, world.wall_s, NOW_NS)
        assert isinstance(events[-1], hs.Established)

    def test_each_changed_bit_on_the_wire_without_the_gate_is_silent(self, world: Any) -> None:
        tickets = Tickets(world)
        frame = sides(world, tickets, tickets.give())[0].start(world.wall_s, 0)[0].data
        for at in range(0, len(frame), 3):
            responder = sides(world, tickets, tickets.give())[1]
            changed = frame[:at] + bytes((frame[at] ^ 1 << at % 8,)) + frame[at + 1 :]
            events = responder.feed(changed + bytes(2_048), world.wall_s, NOW_NS)
            assert not [event for event in events if isinstance(event, hs.Send)], at

    def test_each_changed_bit_of_resumed_ends_the_dial(self, world: Any) -> None:
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_initiator
        for at in range(150):
            tickets = Tickets(world)

            def tamper(index: int, data: bytes, at: int = at) -> bytes:
                if index != 1 or at >= len(g.frame_body(data)):
                    return data
                body = bytearray(g.frame_body(data))
                body[at] ^= 1 << at % 8
                return g.seal_frame(g.parse_header(data), bytes(body), keys)

            out = world.run(*sides(world, tickets, tickets.give()), tamper)
            end = out.end("initiator")
            if at < len(g.frame_body(out.wire[1])):
                assert isinstance(end, hs.Failed)
                assert end.code is Refusal.CRYPTO

    def test_resume_cut_at_any_byte_waits_or_is_refused(self, world: Any) -> None:
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_responder
        tickets = Tickets(world)
        frame = sides(world, tickets, tickets.give())[0].start(world.wall_s, 0)[0].data
        body = g.frame_body(frame)
        for end in range(1, len(body), 5):
            responder = sides(world, tickets, tickets.give())[1]
            short_frame = g.seal_frame(g.parse_header(frame)._replace(length=0), body[:end], keys)
            events = responder.feed(short_frame, world.wall_s, NOW_NS)
            assert [event.data[0] for event in events] == [g.NO_TICKET]

    @pytest.mark.parametrize(
        "body", [b"\0", b"\0\0", b"\xff\xff", b"\xff\xff" + bytes(1_990), b"\x04\x01" + bytes(1_990)]
    )
    def test_ticket_lengths_that_cannot_be_are_refused(self, world: Any, body: bytes) -> None:
        with pytest.raises(tk.NoTicketError, match="malformed"):
            tk.TicketKeys(random.Random(1).randbytes).open(short.split_body(body)[0], tk.Context(bytes(32), b"", 1), 0)

    def test_recorded_resume_is_answered_once(self, world: Any) -> None:
        tickets = Tickets(world)
        gate = world.gate(world.config(world.bob))
        initiator, responder = sides(world, tickets, tickets.give(), r_gate=gate)
        frame = initiator.start(world.wall_s, 0)[0].data
        assert isinstance(responder.feed(frame, world.wall_s, NOW_NS)[-1], hs.Established)
        again = sides(world, tickets, tickets.give(), r_gate=gate)[1]
        assert [type(event) for event in again.feed(frame, world.wall_s, NOW_NS)] == [hs.Drain]
        # when the gate has forgotten it: its ticket is used
        later = sides(world, tickets, tickets.give(), r_gate=gate)[1]
        later.deadline_ns = None
        assert later.feed(frame, world.wall_s, 200 * 10**9)[0].data[0] == g.NO_TICKET
        assert later.no_ticket == "used"

    def test_forged_resume_costs_no_key_of_ours_and_a_forged_hello_does(self, world: Any) -> None:
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_responder
        tickets = Tickets(world)
        kept = tickets.give()
        frame = sides(world, tickets, kept)[0].start(world.wall_s, 0)[0].data
        header, body = g.parse_header(frame), g.frame_body(frame)
        cut = 2 + len(kept.ticket)
        forged = {
            "unknown key": body[:2] + bytes(8) + body[10:],
            "does not open": body[:30] + bytes((body[30] ^ 1,)) + body[31:],
            "does not open ": body[:cut] + bytes(32) + body[cut + 32 :],  # a genuine ticket, without its secret
        }
        hello = sides(world, tickets, kept)[0]
        hello._kept = None
        greeting = hello.start(world.wall_s, 0)[0].data
        sizes = self.counted(world)
        for reason, bad in forged.items():
            responder = sides(world, tickets, kept)[1]
            events = responder.feed(g.seal_frame(header, bad, keys), world.wall_s, NOW_NS)
            assert events[0].data[0] == g.NO_TICKET
            assert responder.no_ticket == reason.strip()
            assert 32 not in sizes
        assert sides(world, tickets, kept)[1].feed(greeting, world.wall_s, NOW_NS)[0].data[0] == g.REPLY
        assert 32 in sizes

    def test_second_ticket_on_one_connection_ends_it(self, world: Any) -> None:
        tickets = Tickets(world)
        responder = sides(world, tickets, tickets.give(), r_tickets=None)[1]
        frames = [sides(world, tickets, tickets.give())[0].start(world.wall_s, 0)[0].data for _ in range(2)]
        assert responder.feed(frames[0], world.wall_s, NOW_NS)[0].data[0] == g.NO_TICKET
        events = responder.feed(frames[1], world.wall_s, NOW_NS)
        assert events[-1].code is Refusal.PROTOCOL

    def test_bytes_behind_resume_end_the_handshake(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give())
        events = responder.feed(initiator.start(world.wall_s, 0)[0].data + b"early", world.wall_s, NOW_NS)
        assert events[-1].code is Refusal.PROTOCOL

    @pytest.mark.parametrize("psk", [None, KEY])
    def test_ticket_does_not_stand_for_the_psk(self, world: Any, psk: bytes | None) -> None:
        tickets = Tickets(world)
        kept = tickets.give(psk_mark=kp.mark_of(psk))
        machines = sides(world, tickets, kept, i_psk=psk, r_gate={"psks": [b"another secret of 32 bytes......"]})
        out = world.run(*machines)
        assert kinds(out) == [g.RESUME]
        assert isinstance(out.end("responder"), hs.Drain)

    def test_psk_is_part_of_the_keys_and_not_of_the_gate_alone(self, world: Any) -> None:
        tickets = Tickets(world)
        kept = tickets.give()
        header = g.Header(g.RESUME, 1, 100, 0x12, 0, bytes(8), 1)
        first, second = (
            short.begin_noise(
                header, b"n", world.bob.id_pub, kept.ticket, kept.secret, psk0,
                initiator=initiator, rng=world.rng, pause=lambda: None, ahead=None,
            )
            for initiator, psk0 in ((True, bytes(32)), (False, b"\1" + bytes(31)))
        )  # fmt: skip
        with pytest.raises(NoiseError):
            second.read_message(first.write_message(b""))

    def test_answer_that_is_no_answer_to_resume_ends_the_dial(self, world: Any) -> None:
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_initiator
        for kind in (g.REPLY, g.ACCEPT, g.JOIN, g.HELLO):
            tickets = Tickets(world)
            initiator = sides(world, tickets, tickets.give())[0]
            header = g.parse_header(initiator.start(world.wall_s, 0)[0].data)
            events = initiator.feed(g.seal_frame(header._replace(kind=kind), bytes(97), keys), world.wall_s, 1)
            assert events[-1].code is Refusal.PROTOCOL

    @pytest.mark.parametrize("kind", [g.RESUMED, g.NO_TICKET])
    def test_answers_to_resume_end_a_full_handshake(self, world: Any, kind: int) -> None:
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_initiator
        initiator = world.initiator()
        header = g.parse_header(initiator.start(world.wall_s, 0)[0].data)
        events = initiator.feed(g.seal_frame(header._replace(kind=kind), b"\0", keys), world.wall_s, 1)
        assert events[-1].code is Refusal.PROTOCOL

    def test_second_no_ticket_ends_the_dial(self, world: Any) -> None:
        tickets = Tickets(world)
        initiator, responder = sides(world, tickets, tickets.give(), r_tickets=None)
        said = responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, NOW_NS)[0].data
        hello = initiator.feed(said, world.wall_s, NOW_NS)[0].data
        assert hello[0] == g.HELLO
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_initiator
        again = g.seal_frame(g.parse_header(hello)._replace(kind=g.NO_TICKET), b"\0", keys)
        assert initiator.feed(again, world.wall_s, NOW_NS)[-1].code is Refusal.PROTOCOL

    def test_items_that_are_missing_or_stand_elsewhere_refuse_the_ticket(
        self, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = short.asking

        def changed(kind: int, value: bytes | None) -> Callable[..., bytes]:
            def made(*arguments: Any) -> bytes:
                items = p.decode_items(whole(*arguments), p.KNOWN_ITEMS)
                items.pop(kind, None)
                return p.encode_items(items if value is None else items | {kind: value})

            return made

        cases: list[tuple[int, bytes | None, str]] = [
            (p.SINCE, None, "malformed"),
            (p.SINCE, bytes(8), "malformed"),
            (p.SINCE, bytes(8) + b"\2", "age"),
            (p.SINCE, b"\xff" * 8 + b"\0", "age"),
            (p.RECORD, bytes(162), "malformed"),
            (p.KNOWN_SEQ, bytes(8), "malformed"),
            (p.CAPS, None, "terms"),
            (p.PARAMS, b"\x02\x01\x05", "terms"),
            (p.MEMBERSHIP, bytes(1_025), "terms"),
            (0x4001, b"", "malformed"),
        ]
        for kind, value, reason in cases:
            monkeypatch.setattr(short, "asking", changed(kind, value))
            tickets = Tickets(world)
            machines = sides(world, tickets, tickets.give())
            assert kinds(world.run(*machines)) == [g.RESUME, g.NO_TICKET, *FULL]
            assert machines[1].no_ticket == reason, (kind, value)


class TestUnderLoad:
    def test_over_datagrams_a_cookie_is_asked_for_and_the_ticket_still_good(self, world: Any) -> None:
        tickets = Tickets(world)
        gate = world.gate(world.config(world.bob))
        machines = sides(
            world, tickets, tickets.give(), r_gate=gate, r_datagram_source=b"192.0.2.1:9", r_busy=lambda: True
        )
        out = world.run(*machines)
        assert kinds(out) == [g.RESUME, g.COOKIE, *SHORT]
        assert out.established[0].by_ticket
        assert out.wire[0][6:14] == out.wire[2][6:14]

    def test_cookie_for_a_ticket_that_is_over_by_then_leads_to_a_full_handshake(self, world: Any) -> None:
        tickets = Tickets(world)
        gate = world.gate(world.config(world.bob))
        initiator, responder = sides(
            world, tickets, tickets.give(life_s=10), r_gate=gate, r_datagram_source=b"192.0.2.1:9", r_busy=lambda: True
        )
        cookie = responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, NOW_NS)[0].data
        assert initiator.feed(cookie, world.wall_s + 11, 2)[0].data[0] == g.HELLO

    def test_cookies_are_bounded_for_both_messages_together(self, world: Any) -> None:
        tickets = Tickets(world)
        keys = g.named_keys(world.bob.id_pub, b"netchan").to_initiator
        initiator = sides(world, tickets, tickets.give())[0]
        sent = initiator.start(world.wall_s, 0)[0].data
        for _ in range(2):
            cookie = g.seal_frame(g.parse_header(sent)._replace(kind=g.COOKIE), bytes(16), keys)
            sent = initiator.feed(cookie, world.wall_s, 1)[0].data
            assert sent[0] == g.RESUME
        cookie = g.seal_frame(g.parse_header(sent)._replace(kind=g.COOKIE), bytes(16), keys)
        assert initiator.feed(cookie, world.wall_s, 1)[-1].code is Refusal.PROTOCOL
