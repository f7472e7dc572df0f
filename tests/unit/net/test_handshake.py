"""Handshake machines: what good and refused handshakes end with (spec handshake §2.3, §3, §4, §6, §8)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from netchan.errors import AuthError, ConfigError, DialTimeout, HandshakeError
from netchan.net import gate as g
from netchan.net import handshake as hs
from netchan.net import params as p
from netchan.net.dial import link_of
from netchan.net.identity import Identity, StaticKey
from netchan.net.machine import prologue
from netchan.net.params import Refusal
from netchan.net.record import CAP_CLASSICAL, build_record
from netchan.net.trust import CA, make_policy

KEY = bytes(range(32))
MODES: dict[str, dict[str, Any]] = {"XX-open": {"named": False}, "XX-named": {"named": True}, "XK": {"know": True}}


class TestGoodHandshake:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("pq", ["require", "off"])
    @pytest.mark.parametrize("psk", [None, KEY])
    def test_handshake_each_mode_both_sides_agree(self, world: Any, mode: str, pq: str, psk: bytes | None) -> None:
        initiator = world.initiator(**MODES[mode], psk=psk, config={"pq": pq})
        responder = world.responder(config={"pq": pq}, gate={"psks": [psk] if psk else []})
        first, second = world.run(initiator, responder).established
        assert first.root == second.root
        assert len(first.root) == 32
        assert any(first.root)
        assert first.binding == second.binding
        assert len(first.binding) == 32
        assert first.agreement == second.agreement
        assert (first.node_id, second.node_id) == (world.bob.node_id, world.alice.node_id)
        assert first.initiator
        assert not second.initiator
        assert initiator.mode == list(MODES).index(mode)

    def test_handshake_two_runs_give_different_roots(self, world: Any) -> None:
        roots = {bytes(world.run(world.initiator(), world.responder()).established[0].root) for _ in range(4)}
        assert len(roots) == 4

    def test_handshake_sizes_stay_in_their_bounds(self, world: Any) -> None:
        for mode in MODES.values():
            out = world.run(
                world.initiator(**mode, config={"pq": "require"}), world.responder(config={"pq": "require"})
            )
            assert [data[0] for data in out.wire] == [g.HELLO, g.REPLY, g.FINISH, g.ACCEPT]
            assert all(len(data) <= g.MAX_FRAME[data[0]] for data in out.wire)
            assert 1302 <= len(out.wire[0]) <= 1340

    def test_reply_with_a_kem_fits_into_a_datagram_whatever_is_drawn(self, world: Any) -> None:
        sizes = set()
        for _ in range(24):
            out = world.run(world.initiator(config={"pq": "require"}), world.responder(config={"pq": "require"}))
            sizes.add(len(out.wire[1]))
        assert len(sizes) == 1 and max(sizes) <= 1472  # 1500 less the heads of IPv4 and UDP

    def test_accept_that_does_not_open_does_not_fit(self, world: Any) -> None:
        """Over datagrams it is dropped; whoever knows the node id can make its mac."""
        initiator, responder = world.initiator(), world.responder()
        asked = []

        def tamper(i: int, data: bytes) -> bytes:
            if data[0] == g.ACCEPT:
                header, body = g.parse_header(data), g.frame_body(data)
                key = initiator._keys.to_initiator
                for at in range(len(body)):
                    bad = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
                    asked.append(initiator.fits(g.seal_frame(header, bad, key)))
                asked.append(initiator.fits(g.seal_frame(header, b"", key)))
                assert initiator.fits(g.seal_frame(header, body, key))
            return data

        out = world.run(initiator, responder, tamper)
        assert len(out.established) == 2
        assert len(asked) > 16 and not any(asked)

    def test_handshake_one_byte_at_a_time_ends_the_same(self, world: Any) -> None:
        initiator, responder = world.initiator(), world.responder()
        hello = initiator.start(world.wall_s, 0)[0].data
        to_responder, to_initiator, ends = bytearray(hello), bytearray(), []
        while to_responder or to_initiator:
            machine, queue = (responder, to_responder) if to_responder else (initiator, to_initiator)
            events = machine.feed(bytes((queue.pop(0),)), world.wall_s, 1)
            for event in events:
                if isinstance(event, hs.Send):
                    (to_initiator if machine is responder else to_responder).extend(event.data)
                else:
                    ends.append(event)
        assert len(ends) == 2
        assert ends[0].root == ends[1].root

    def test_established_initiator_keeps_bytes_behind_accept(self, world: Any) -> None:
        out = world.run(world.initiator(), world.responder(), lambda i, data: data + b"record" if i == 3 else data)
        assert out.established[0].leftover == b"record"
        assert out.established[1].leftover == b""

    def test_root_depends_on_verdict(self, world: Any) -> None:
        # the same derivation as in the spec, written out with hmac, from what the machine held before the end
        responder, initiator = world.responder(), world.initiator()
        held: list[bytes] = []
        original = responder._establish

        def spy(verdict: bytes) -> Any:
            held.extend((bytes(responder._prk), verdict))
            return original(verdict)

        responder._establish = spy
        _, second = world.run(initiator, responder).established
        prk, verdict = held
        info = b"netchan root v1" + second.binding + hashlib.sha256(verdict).digest()
        assert second.root == hmac.digest(prk, info + b"\x01", "sha256")
        assert verdict == bytes(2) + second.agreement.encoded

    def test_machines_after_the_end_hold_no_secret(self, world: Any) -> None:
        initiator, responder = world.initiator(psk=KEY), world.responder(gate={"psks": [KEY]})
        world.run(initiator, responder).established
        assert not any(initiator._psk)
        for machine in (initiator, responder):
            assert machine._noise is None
            assert machine._prk is None
            assert machine._keys is None

    def test_live_identity_required_and_given_is_reported(self, world: Any) -> None:
        first, second = world.run(
            world.initiator(config={"live_identity": True}), world.responder(config={"require_live": True})
        ).established
        assert second.live
        assert not first.live

    def test_xk_new_record_reaches_the_dialler(self, world: Any) -> None:
        old = world.bob.record(world.wall_s, caps=CAP_CLASSICAL)
        world.wall_s += 5 * 86_400
        first, _ = world.run(world.initiator(know=True, record=old), world.responder()).established
        assert first.claim.record.seq > old.seq

    def test_xk_static_of_last_period_still_opens(self, world: Any) -> None:
        world.wall_s = 600 * 30 * 86_400 - 60.0
        old = world.bob.record(world.wall_s, caps=CAP_CLASSICAL)
        world.wall_s += 120
        new = world.bob.record(world.wall_s, caps=CAP_CLASSICAL)
        assert old.static_pub != new.static_pub
        first, _ = world.run(world.initiator(know=True, record=old), world.responder()).established
        assert first.claim.record.static_pub == new.static_pub

    def test_initiator_expired_record_falls_back_to_xx(self, world: Any) -> None:
        old = world.bob.record(world.wall_s)
        world.wall_s += 8 * 86_400
        initiator = world.initiator(know=True, record=old)
        world.run(initiator, world.responder()).established
        assert initiator.mode == g.MODE_XX_NAMED

    def test_handshake_clock_wrong_without_psk_still_connects(self, world: Any) -> None:
        out = world.run(world.initiator(), world.responder(), resp_wall_s=world.wall_s + 3_000)
        out.established


class TestPrologue:
    def test_prologue_bytes_are_frozen(self, world: Any) -> None:
        header = g.Header(g.HELLO, 1, 102, 0x12, 0, b"scidscid", 1000)
        head = "6e65746368616e2f68616e647368616b652f763100010100661200736369647363696400000000000003e8"
        assert prologue(header, b"net", g.MODE_XX_NAMED, KEY).hex() == head + "036e65740858582d6e616d656420" + KEY.hex()
        assert prologue(header, b"", g.MODE_XX_OPEN, None).hex() == head + "000758582d6f70656e00"
        assert prologue(header, b"", g.MODE_XK, KEY).hex() == head + "0002584b20" + KEY.hex()


class TestNegotiation:
    def test_offers_both_sides_read_the_same_agreement(self, world: Any) -> None:
        mine = p.Offer(
            p.TransportParams(lease_s=20, parity=1, max_record=2_000), (2, 1), frozenset({1, 9}), frozenset({9})
        )
        theirs = p.Offer(p.TransportParams(lease_s=40, parity=1, idle_s=7), (1, 2), frozenset({9, 70}))
        first, second = world.run(
            world.initiator(config={"offer": mine}), world.responder(config={"offer": theirs})
        ).established
        assert first.agreement.caps == {9}
        assert first.agreement.lease_s == 20
        assert first.agreement.idle_s == 7
        assert first.agreement.cipher == p.CHACHA20_POLY1305
        assert first.agreement.parity
        assert first.remote == theirs
        assert second.remote == mine

    def test_program_sees_the_capabilities_of_programs_only(self, world: Any) -> None:
        offer = {"offer": p.Offer(caps=frozenset({0, 9, 0x7FFF, 0x8000, 0xFFFF}))}
        for event in world.run(world.initiator(config=offer), world.responder(config=offer)).established:
            assert len(event.agreement.caps) == 5
            assert link_of("tcp", "here", "there", event).caps == {0x8000, 0xFFFF}

    @pytest.mark.parametrize("side", ["initiator", "responder"])
    def test_required_capability_missing_refuses_both(self, world: Any, side: str) -> None:
        need = {"offer": p.Offer(caps=frozenset({5}), required=frozenset({5}))}
        out = world.run(
            world.initiator(config=need if side == "initiator" else {}),
            world.responder(config=need if side == "responder" else {}),
        )
        assert out.failed("initiator").code is Refusal.CAPABILITY
        assert out.failed("responder").code is Refusal.CAPABILITY

    def test_hidden_higher_version_refuses(self, world: Any) -> None:
        both = {"offer": p.Offer(versions=(1, 2))}
        out = world.run(world.initiator(config=both), world.responder(config=both))
        assert out.failed("initiator").code is Refusal.VERSION

    def test_suites_differ_refused_with_code_and_never_retried(self, world: Any) -> None:
        for mine, theirs in (("require", "off"), ("off", "require")):
            out = world.run(world.initiator(config={"pq": mine}), world.responder(config={"pq": theirs}))
            assert out.failed("initiator").code is Refusal.SUITE
            assert out.failed("initiator").remote
            assert "pq=" in str(out.failed("initiator").error)
            assert len(out.wire) == 2

    def test_unknown_version_gets_the_list(self, world: Any) -> None:
        initiator, responder = world.initiator(), world.responder()
        keys = g.named_keys(world.bob.id_pub, b"netchan")
        hello = initiator.start(world.wall_s, 0)[0].data
        header = g.parse_header(hello)._replace(version=9)
        events = responder.feed(g.seal_frame(header, g.frame_body(hello), keys.to_responder), world.wall_s, 1)
        assert events[0].data[0] == g.VERSIONS
        assert g.frame_body(events[0].data) == b"\x01\x01"
        assert events[1].code is Refusal.VERSION

    def test_version_list_reply_ends_the_dial(self, world: Any) -> None:
        initiator = world.initiator()
        header = g.parse_header(initiator.start(world.wall_s, 0)[0].data)
        keys = g.named_keys(world.bob.id_pub, b"netchan")
        answer = g.seal_frame(header._replace(kind=g.VERSIONS), b"\x01\x02", keys.to_initiator)
        events = initiator.feed(answer, world.wall_s, 1)
        assert [type(e) for e in events] == [hs.Failed]
        assert events[0].code is Refusal.VERSION


class TestMessages:
    @pytest.mark.parametrize("code", list(Refusal))
    def test_refusal_from_the_other_side_says_what_where_and_what_to_do(self, world: Any, code: Refusal) -> None:
        initiator, responder = world.initiator(), world.responder()
        responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, 1)
        frame = responder._frame(g.CLOSE, int(code).to_bytes(2, "big"))
        (failed,) = initiator.feed(frame, world.wall_s, 2)
        text = str(failed.error)
        assert failed.code is code
        assert f"{world.bob.node_id}" in text.partition(" refused: ")[0]
        assert code.name in text
        said, _, advice = text.partition("; ")
        assert said
        assert len(advice) > 10
        assert failed.error.transient is (code in (Refusal.BUSY, Refusal.CLOSING, Refusal.TIMEOUT))

    def test_refusal_of_ours_says_what_to_do(self, world: Any) -> None:
        out = world.run(world.initiator(trust=[world.alice.node_id]), world.responder())
        assert "is not in trust=; add it if it is the right node" in str(out.failed("initiator").error)
        for code in Refusal:
            initiator = world.initiator()
            initiator.start(world.wall_s, 0)
            (failed,) = initiator._fail(code, "why")
            if code not in (Refusal.UNTRUSTED, Refusal.EXPIRED):  # their reasons come with it
                assert "; " in str(failed.error), code


class TestRefusals:
    def test_policy_of_listener_refuses_sealed_and_dialler_gets_autherror(self, world: Any) -> None:
        out = world.run(world.initiator(), world.responder(trust=[world.bob.node_id]))
        failed = out.failed("initiator")
        assert failed.code is Refusal.UNTRUSTED
        assert failed.remote
        assert isinstance(failed.error, AuthError)
        assert out.wire[-1][0] == g.ACCEPT
        assert out.failed("responder").code is Refusal.UNTRUSTED

    def test_policy_of_dialler_refuses_before_finish(self, world: Any) -> None:
        out = world.run(world.initiator(trust=[world.alice.node_id]), world.responder())
        assert out.failed("initiator").code is Refusal.UNTRUSTED
        assert [data[0] for data in out.wire] == [g.HELLO, g.REPLY, g.CLOSE]
        assert out.failed("responder").remote

    def test_wrong_node_behind_known_psk_is_told_wrong_id_before_anything_of_the_dialler_is_sent(
        self, world: Any
    ) -> None:
        # with a PSK the gate does not tell nodes apart: the prologue does (spec handshake §5.2, §6)
        out = world.run(
            world.initiator(expected_id=world.alice.id_pub, identity=Identity.generate(), psk=KEY),
            world.responder(gate={"psks": [KEY]}),
        )
        failed = out.failed("initiator")
        assert failed.code is Refusal.WRONG_ID
        assert failed.remote
        assert isinstance(failed.error, AuthError)
        assert not failed.error.transient
        assert "another node answers there; take the address that its listener shows now" in str(failed.error)
        assert world.alice.node_id in str(failed.error)
        assert [data[0] for data in out.wire] == [g.HELLO, g.CLOSE]
        assert out.failed("responder").code is Refusal.WRONG_ID

    def test_hello_of_a_psk_holder_that_is_too_short_is_not_taken_for_another_id(self, world: Any) -> None:
        def shorten(i: int, data: bytes) -> bytes:
            if i:
                return data
            key = g.psk_keys(KEY, hs.HandshakeConfig(world.bob).network_id).to_responder
            return g.seal_frame(g.parse_header(data), data[g.HEADER_LEN : g.HEADER_LEN + 40], key)

        out = world.run(world.initiator(psk=KEY), world.responder(gate={"psks": [KEY]}), shorten)
        assert out.failed("responder").code is Refusal.CRYPTO

    def test_refusal_that_passes_by_itself_is_transient_at_the_dialler(self, world: Any) -> None:
        initiator, responder = world.initiator(), world.responder()
        hello = initiator.start(world.wall_s, 0)[0].data
        assert responder.turn_away() == []
        reply = responder.feed(hello, world.wall_s, 1)
        assert len(reply) == 1
        sent, failed = responder.turn_away()
        assert failed.code is Refusal.BUSY
        told = initiator.feed(sent.data, world.wall_s, 2)[-1]
        assert told.code is Refusal.BUSY
        assert told.error.transient
        assert "dial again in a moment" in str(told.error)
        assert responder.turn_away() == []

    def test_dial_of_another_id_is_silence(self, world: Any) -> None:
        out = world.run(world.initiator(expected_id=Identity.generate().id_pub), world.responder())
        assert isinstance(out.end("responder"), hs.Drain)
        assert len(out.wire) == 1

    def test_xx_open_with_pinned_id_other_answers_wrong_id(self, world: Any) -> None:
        initiator = world.initiator(named=False)
        hello = initiator.start(world.wall_s, 0)[0].data
        initiator._policy.expected_id = Identity.generate().id_pub
        reply = world.responder().feed(hello, world.wall_s, 1)[0].data
        events = initiator.feed(reply, world.wall_s, 1)
        assert events[-1].code is Refusal.WRONG_ID
        assert isinstance(events[-1].error, AuthError)

    def test_expired_record_of_dialler_refused(self, world: Any) -> None:
        out = world.run(world.initiator(), world.responder(), resp_wall_s=world.wall_s + 8 * 86_400)
        assert {out.failed("initiator").code, out.failed("responder").code} == {Refusal.EXPIRED}

    def test_reflected_own_identity_refused_unless_allowed(self, world: Any) -> None:
        for named in (True, False):
            mirror = {"identity": world.bob, "named": named}
            out = world.run(world.initiator(**mirror), world.responder())
            assert out.failed("initiator").code is Refusal.SELF
        out = world.run(world.initiator(identity=world.bob, allow_self=True), world.responder(allow_self=True))
        out.established

    @pytest.mark.parametrize("cut", ["hello", "reply"])
    def test_own_messages_mirrored_are_not_accepted(self, world: Any, cut: str) -> None:
        initiator = world.initiator(psk=KEY)
        hello = initiator.start(world.wall_s, 0)[0].data
        if cut == "reply":
            hello = bytes((g.REPLY,)) + hello[1:]
        events = initiator.feed(hello, world.wall_s, 1)
        assert isinstance(events[-1], hs.Failed)
        assert events[-1].code is Refusal.PROTOCOL

    def test_other_network_is_silence(self, world: Any) -> None:
        out = world.run(world.initiator(config={"network_id": b"other"}), world.responder())
        assert isinstance(out.end("responder"), hs.Drain)
        assert len(out.wire) == 1
        assert isinstance(out.failed("initiator").error, DialTimeout)
        assert "wrong node id" in str(out.failed("initiator").error)

    def test_live_identity_missing_refused(self, world: Any) -> None:
        out = world.run(world.initiator(), world.responder(config={"require_live": True}))
        assert out.failed("initiator").code is Refusal.LIVE

    def test_live_identity_of_other_handshake_refused(self, world: Any) -> None:
        initiator = world.initiator(config={"live_identity": True})
        good = initiator._config.identity.sign

        def other(data: bytes) -> bytes:
            return good(data[:-1] + bytes((data[-1] ^ 1,)) if data.startswith(b"netchan/live") else data)

        initiator._config.identity.sign = other
        out = world.run(initiator, world.responder())
        assert out.failed("initiator").code is Refusal.LIVE

    def test_own_static_key_under_another_identity_refused(self, world: Any) -> None:
        thief, stolen = world.initiator(), world.bob.static_key(world.wall_s, caps=CAP_CLASSICAL)
        record = build_record(
            world.alice.sign,
            id_pub=world.alice.id_pub,
            static_pub=stolen.record.static_pub,
            seq=1,
            wall_s=world.wall_s,
            caps=CAP_CLASSICAL,
            network_id=b"netchan",
        )
        thief._config.identity.static_key = lambda *_: StaticKey(stolen.private, record)
        assert world.run(thief, world.responder()).failed("initiator").code is Refusal.SELF

    def test_membership_lets_in_and_its_absence_does_not(self, world: Any) -> None:
        authority = CA(Identity.generate())
        member = authority.issue(world.alice.node_id, world.wall_s, groups=["worker"]).raw
        root = authority.root.require("worker")
        world.run(world.initiator(config={"membership": member}), world.responder(trust=root)).established
        out = world.run(world.initiator(), world.responder(trust=root))
        assert out.failed("initiator").code is Refusal.UNTRUSTED

    def test_blocked_key_refused(self, world: Any) -> None:
        blocked: set[bytes] = set()
        responder = world.responder(blocked=blocked)
        blocked.add(world.alice.id_pub)
        assert world.run(world.initiator(), responder).failed("initiator").code is Refusal.UNTRUSTED

    def test_record_with_other_static_refused(self, world: Any) -> None:
        # a node that shows somebody's good record, but proves another static key
        other = Identity.generate().static_key(world.wall_s)
        initiator = world.initiator()
        original = initiator._make_noise
        initiator._make_noise = lambda mode, header, private, psk0, **keys: original(
            mode, header, other.private, psk0, **keys
        )
        assert world.run(initiator, world.responder()).failed("initiator").code is Refusal.RECORD


class TestAsk:
    @pytest.mark.parametrize("answer", [True, False])
    def test_async_policy_waits_for_resolve(self, world: Any, answer: bool) -> None:
        async def judge(node_id: str) -> bool:
            return answer

        initiator, responder = world.initiator(), world.responder(trust=judge)
        hello = initiator.start(world.wall_s, 0)[0].data
        reply = responder.feed(hello, world.wall_s, 1)[0].data
        finish = initiator.feed(reply, world.wall_s, 1)[0].data
        (ask,) = responder.feed(finish, world.wall_s, 1)
        assert isinstance(ask, hs.Ask)
        assert ask.claim.node_id == world.alice.node_id
        ask.pending.close()
        events = responder.resolve(answer, world.wall_s, 2)
        assert isinstance(events[-1], hs.Established if answer else hs.Failed)
        end = initiator.feed(events[0].data, world.wall_s, 2)[-1]
        assert isinstance(end, hs.Established if answer else hs.Failed)
        with pytest.raises(RuntimeError):
            (responder if answer else world.responder()).resolve(True, world.wall_s, 3)

    def test_bytes_while_asking_end_the_handshake(self, world: Any) -> None:
        async def judge(node_id: str) -> bool:
            return True

        initiator, responder = world.initiator(), world.responder(trust=judge)
        reply = responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, 1)[0].data
        finish = initiator.feed(reply, world.wall_s, 1)[0].data
        responder.feed(finish, world.wall_s, 1)[0].pending.close()
        events = responder.feed(b"x", world.wall_s, 1)
        assert events[-1].code is Refusal.PROTOCOL
        assert responder.resolve(True, world.wall_s, 2) == []

    def test_policy_that_raises_refuses(self, world: Any) -> None:
        def judge(node_id: str) -> bool:
            raise KeyError("no such node")

        assert world.run(world.initiator(), world.responder(trust=judge)).failed("initiator").code is Refusal.UNTRUSTED


class TestTimeAndEnd:
    def test_initiator_no_answer_times_out_once(self, world: Any) -> None:
        initiator = world.initiator(address="tcp://x:1")
        initiator.start(world.wall_s, 5)
        assert initiator.deadline_ns == 5 + hs.HANDSHAKE_TIMEOUT_NS
        assert initiator.tick(initiator.deadline_ns - 1) == []
        (failed,) = initiator.tick(5 + hs.HANDSHAKE_TIMEOUT_NS)
        assert isinstance(failed.error, DialTimeout)
        assert "clocks more than 30 s apart" in str(failed.error)
        assert initiator.tick(10**18) == []
        assert initiator.feed(b"x", 0, 10**18) == []

    def test_responder_before_hello_times_out_in_silence(self, world: Any) -> None:
        responder = world.responder()
        assert responder.feed(b"\x01", world.wall_s, 1) == []
        assert [type(e) for e in responder.feed(b"\x01", world.wall_s, responder.deadline_ns)] == [hs.Drain]

    def test_responder_after_hello_times_out_with_close(self, world: Any) -> None:
        responder = world.responder()
        responder.feed(world.initiator().start(world.wall_s, 0)[0].data, world.wall_s, 1)
        close, failed = responder.tick(responder.deadline_ns)
        assert close.data[0] == g.CLOSE
        assert failed.code is Refusal.TIMEOUT
        assert isinstance(failed.error, HandshakeError)

    def test_eof_in_each_state_ends_once(self, world: Any) -> None:
        initiator, responder = world.initiator(), world.responder()
        reply = responder.feed(initiator.start(world.wall_s, 0)[0].data, world.wall_s, 1)
        assert isinstance(initiator.eof()[0], hs.Failed)
        assert initiator.eof() == []
        assert isinstance(reply[0], hs.Send)
        assert isinstance(responder.eof()[0], hs.Failed)
        assert isinstance(world.responder().eof()[0], hs.Drain)

    def test_start_twice_raises(self, world: Any) -> None:
        initiator = world.initiator()
        initiator.start(world.wall_s, 0)
        with pytest.raises(RuntimeError):
            initiator.start(world.wall_s, 0)

    def test_close_wipes_and_silences(self, world: Any) -> None:
        initiator = world.initiator(psk=KEY)
        initiator.start(world.wall_s, 0)
        initiator.close()
        assert initiator.feed(b"x", 0, 1) == []
        assert not any(initiator._psk)

    @pytest.mark.parametrize("psk", ["text", b"short", 5])
    def test_initiator_bad_psk_is_config_error(self, world: Any, psk: Any) -> None:
        with pytest.raises(ConfigError, match="token_bytes"):
            policy = make_policy(None, own_id=world.alice.id_pub, dialling=True, psk=True)
            hs.Initiator(world.config(world.alice), policy, world.rng, psk=psk)

    @pytest.mark.parametrize("options", [{"pq": "maybe"}, {"network_id": bytes(65)}, {"membership": bytes(1025)}])
    def test_config_out_of_range_is_config_error(self, world: Any, options: Any) -> None:
        with pytest.raises(ConfigError):
            world.config(world.alice, **options)


class TestCookie:
    def test_datagram_source_under_load_needs_a_cookie(self, world: Any) -> None:
        initiator, responder = world.initiator(), world.responder(datagram_source=b"198.51.100.7:9", busy=lambda: True)
        out = world.run(initiator, responder)
        assert [data[0] for data in out.wire] == [g.HELLO, g.COOKIE, g.HELLO, g.REPLY, g.FINISH, g.ACCEPT]
        assert len(out.wire[1]) <= 70 < len(out.wire[0])
        out.established

    def test_third_cookie_ends_the_dial(self, world: Any) -> None:
        initiator = world.initiator()
        header = g.parse_header(initiator.start(world.wall_s, 0)[0].data)
        keys = g.named_keys(world.bob.id_pub, b"netchan")
        for i in range(3):
            frame = g.seal_frame(initiator._hello._replace(kind=g.COOKIE), bytes(16), keys.to_initiator)
            events = initiator.feed(frame, world.wall_s, i)
        assert header.scid == g.parse_header(events[0].data).scid
        assert events[-1].code is Refusal.PROTOCOL
