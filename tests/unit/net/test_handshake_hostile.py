"""What an attacker on the wire can do to a handshake: nothing but end it (spec handshake §2.2, §2.3, §5.2)."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

import pytest

from netchan.net import gate as g
from netchan.net import handshake as hs
from netchan.net import params as p
from netchan.net.identity import Identity

KEY = bytes(range(32))
NAMES = ["HELLO", "REPLY", "FINISH", "ACCEPT"]


def reseal(world: Any, frame: bytes, psk: bytes | None = None) -> bytes:
    """As an attacker who knows the gate key would: put a right mac1 onto changed bytes."""
    keys = g.psk_keys(psk, b"netchan") if psk else g.named_keys(world.bob.id_pub, b"netchan")
    key = keys.to_responder if frame[0] in (g.HELLO, g.FINISH) else keys.to_initiator
    end = len(frame) - g.TRAILER_LEN
    return frame[:end] + hmac.digest(key, frame[:end], "sha256")[: g.MAC_LEN] + frame[-g.MAC_LEN :]


def flip(frame: bytes, bit: int) -> bytes:
    """One bit changed."""
    return frame[: bit // 8] + bytes((frame[bit // 8] ^ 1 << bit % 8,)) + frame[bit // 8 + 1 :]


def judge(out: Any, index: int, what: str) -> str:
    """Fail or identical, never weaker: assert it, and say which."""
    first, second = out.end("initiator"), out.end("responder")
    if isinstance(first, hs.Established):
        assert isinstance(second, hs.Established), what
        assert first.root == second.root, what
        assert first.binding == second.binding, what
        assert first.agreement == second.agreement, what
        return "identical"
    # only ACCEPT itself may be lost after the responder is done; the dialler then reports a failure
    assert index == 3 or not isinstance(second, hs.Established), what
    return "failed"


class TestBitFlips:
    # libzmq CVE-2014-7202 and 9721: a changed greeting must never lead to a weaker session
    @pytest.mark.parametrize("index", range(4), ids=NAMES)
    @pytest.mark.parametrize("psk", [None, KEY], ids=["open", "psk"])
    def test_classical_every_bit_of_each_message_fails_or_is_identical(
        self, world: Any, index: int, psk: bytes | None
    ) -> None:
        options: dict[str, Any] = {"psk": psk} if psk else {}
        gate = {"psks": [psk]} if psk else {}
        size = len(world.run(world.initiator(**options), world.responder(gate=gate)).wire[index])
        identical = []
        # an attacker without the key cannot get past mac1, so there every eighth bit will do
        for bit in range(0, size * 8, 8 if psk else 1):

            def tamper(i: int, data: bytes, bit: int = bit) -> bytes:
                if i != index or bit >= len(data) * 8:
                    return data
                return flip(data, bit) if psk else reseal(world, flip(data, bit))

            out = world.run(world.initiator(**options), world.responder(gate=gate), tamper)
            if judge(out, index, f"{NAMES[index]} bit {bit}") == "identical":
                identical.append(bit // 8)
        # only mac1 (made right again) and the unused mac2 of HELLO may change without effect
        free = g.TRAILER_LEN if not psk else g.MAC_LEN
        allowed = g.TRAILER_LEN if index == 0 else free - g.MAC_LEN
        assert all(place >= size - 24 - g.TRAILER_LEN for place in identical), identical
        assert len(set(identical)) <= max(allowed, 24 + g.TRAILER_LEN)

    @pytest.mark.parametrize("mode", ["XX", "XK"])
    @pytest.mark.parametrize("index", range(4), ids=NAMES)
    def test_hybrid_sampled_bits_fail_or_are_identical(self, world: Any, index: int, mode: str) -> None:
        config = {"pq": "require"}
        out = world.run(world.initiator(config=config, know=mode == "XK"), world.responder(config=config))
        size = len(out.wire[index])
        failed = 0
        for bit in range(index, size * 8, 131):

            def tamper(i: int, data: bytes, bit: int = bit) -> bytes:
                return reseal(world, flip(data, bit)) if i == index and bit < len(data) * 8 else data

            out = world.run(world.initiator(config=config, know=mode == "XK"), world.responder(config=config), tamper)
            failed += judge(out, index, f"{NAMES[index]} bit {bit}") == "failed"
        assert failed >= (size * 8 // 131) * 0.6

    @pytest.mark.parametrize("psk", [None, KEY], ids=["open", "psk"])
    @pytest.mark.parametrize("field", ["ts", "scid", "suite"])
    def test_header_rewritten_on_the_way_there_and_back_fails(self, world: Any, field: str, psk: bytes | None) -> None:
        # each side sees a consistent handshake; only the prologue knows that the two differ
        old: list[g.Header] = []

        def rewrite(i: int, data: bytes) -> bytes:
            header = g.parse_header(data)
            if i == 0:
                old.append(header)
            changed = {"ts": header.ts ^ 1, "scid": bytes(8), "suite": g.MODE_XX_OPEN << 4 | g.SUITE_CLASSICAL}[field]
            value = getattr(old[0], field) if header.kind in (g.REPLY, g.ACCEPT) else changed
            return reseal(world, header._replace(**{field: value}).pack() + data[g.HEADER_LEN :], psk)

        gate = {"psks": [psk]} if psk else {}
        out = world.run(world.initiator(psk=psk), world.responder(gate=gate), rewrite)
        assert judge(out, 0, field) == "failed"

    def test_suite_changed_on_the_way_never_gives_a_session(self, world: Any) -> None:
        for suite in range(256):

            def tamper(i: int, data: bytes, suite: int = suite) -> bytes:
                return reseal(world, data[:4] + bytes((suite,)) + data[5:]) if i == 0 else data

            out = world.run(world.initiator(), world.responder(), tamper)
            assert isinstance(out.end("initiator"), hs.Established) == (
                suite == g.MODE_XX_NAMED << 4 | g.SUITE_CLASSICAL
            )


class TestTruncation:
    @pytest.mark.parametrize("index", range(4), ids=NAMES)
    def test_message_cut_at_every_length_fails(self, world: Any, index: int) -> None:
        size = len(world.run(world.initiator(), world.responder()).wire[index])
        for length in range(size - 24):
            out = world.run(
                world.initiator(), world.responder(), lambda i, data, n=length: data[:n] if i == index else data
            )
            assert judge(out, index, f"cut at {length}") == "failed"

    @pytest.mark.parametrize("index", range(4), ids=NAMES)
    def test_message_shortened_with_right_length_and_mac_fails(self, world: Any, index: int) -> None:
        # OpenVPN CVE-2014-8104: an assert on a short control packet
        size = len(world.run(world.initiator(), world.responder()).wire[index]) - 24

        def cut(data: bytes, keep: int) -> bytes:
            body = g.frame_body(data)[:keep]
            header = g.Header._make(g._HEADER.unpack_from(data))
            return reseal(world, header._replace(length=g.HEADER_LEN + keep + g.TRAILER_LEN).pack() + body + bytes(32))

        for keep in range(size - g.HEADER_LEN - g.TRAILER_LEN):
            out = world.run(
                world.initiator(), world.responder(), lambda i, data, k=keep: cut(data, k) if i == index else data
            )
            assert judge(out, index, f"body of {keep}") == "failed"

    @pytest.mark.parametrize("length", [0, 1, 22, 54, 4097, 2**15, 2**16 - 1])
    def test_length_field_out_of_bounds_is_silence_at_once(self, world: Any, length: int) -> None:
        hello = world.initiator().start(world.wall_s, 0)[0].data
        events = world.responder().feed(hello[:2] + length.to_bytes(2, "big") + hello[4:22], world.wall_s, 1)
        assert [type(e) for e in events] == [hs.Drain]


class TestReplay:
    def messages(self, world: Any) -> list[bytes]:
        wire: list[bytes] = world.run(world.initiator(), world.responder()).wire
        return wire

    def test_each_old_message_at_each_state_of_the_responder_fails(self, world: Any) -> None:
        # libzmq CVE-2014-7203: what is old must not be taken for new
        for old in self.messages(world):
            for state in ("WAIT_HELLO", "WAIT_FINISH"):
                responder = world.responder()
                if state == "WAIT_FINISH":
                    responder.feed(world.initiator().start(world.wall_s, 0)[0].data, world.wall_s, 1)
                assert responder.state.name == state
                events = responder.feed(old, world.wall_s, 1)
                if old[0] == g.HELLO and state == "WAIT_HELLO":
                    # another gate has not seen it, and without PSK a replay may be answered: but it leads nowhere
                    assert responder.state is hs.State.WAIT_FINISH
                    continue
                assert isinstance(events[-1], hs.Drain if state == "WAIT_HELLO" else hs.Failed)

    def test_each_old_message_at_each_state_of_the_initiator_fails(self, world: Any) -> None:
        for old in self.messages(world):
            for state in ("WAIT_REPLY", "WAIT_ACCEPT"):
                initiator = world.initiator()
                hello = initiator.start(world.wall_s, 0)[0].data
                if state == "WAIT_ACCEPT":
                    initiator.feed(world.responder().feed(hello, world.wall_s, 1)[0].data, world.wall_s, 1)
                assert initiator.state.name == state
                assert isinstance(initiator.feed(old, world.wall_s, 1)[-1], hs.Failed)

    def test_same_hello_again_is_silence_with_and_without_psk(self, world: Any) -> None:
        for psk in (None, KEY):
            config = world.config(world.bob)
            gate = world.gate(config, psks=[psk] if psk else [])
            hello = world.initiator(psk=psk).start(world.wall_s, 0)[0].data
            assert isinstance(world.responder(gate=gate).feed(hello, world.wall_s, 1)[0], hs.Send)
            assert [type(e) for e in world.responder(gate=gate).feed(hello, world.wall_s, 2)] == [hs.Drain]

    def test_messages_repeated_in_one_handshake_fail(self, world: Any) -> None:
        # KRACK: a message that comes twice must never set keys again
        for index in range(3):
            out = world.run(
                world.initiator(), world.responder(), lambda i, data, n=index: data + data if i == n else data
            )
            assert judge(out, index, "doubled") == "failed"

    def test_messages_of_two_handshakes_cannot_be_mixed(self, world: Any) -> None:
        other = self.messages(world)
        for index in range(1, 4):
            out = world.run(world.initiator(), world.responder(), lambda i, data, n=index: other[i] if i == n else data)
            assert judge(out, index, "mixed") == "failed"

            def dressed(i: int, data: bytes, n: int = index) -> bytes:
                # with header and mac1 of the running handshake, so that only Noise stands in the way
                if i != n:
                    return data
                header = g.parse_header(data)
                body = g.frame_body(other[i])
                length = g.HEADER_LEN + len(body) + g.TRAILER_LEN
                return reseal(world, header._replace(length=length).pack() + body + bytes(32))

            assert judge(world.run(world.initiator(), world.responder(), dressed), index, "dressed") == "failed"


class TestProber:
    def probes(self, world: Any) -> Iterator[tuple[str, bytes, float]]:
        good = world.initiator(psk=KEY).start(world.wall_s, 0)[0].data
        yield "wrong psk", world.initiator(psk=bytes(32)).start(world.wall_s, 0)[0].data, 0
        yield "no psk", world.initiator().start(world.wall_s, 0)[0].data, 0
        yield "no id", world.initiator(named=False).start(world.wall_s, 0)[0].data, 0
        yield "wrong clock", good, 31
        yield "wrong clock back", good, -31
        yield "garbage", world.rng(3000), 0
        yield "http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4, 0
        yield "tls", b"\x16\x03\x01\x02\x00\x01" + world.rng(512), 0
        yield "changed", flip(good, 400), 0
        for kind in (g.REPLY, g.FINISH, g.COOKIE, g.VERSIONS, g.JOIN, g.RESUME, g.CLOSE, g.ACCEPT, 0x3F, 0):
            yield f"type {kind}", bytes((kind,)) + good[1:], 0

    def test_prober_without_the_psk_gets_no_byte(self, world: Any) -> None:
        count = 0
        for what, data, shift in self.probes(world):
            for cut in (len(data), 1, 21, 22, 23, len(data) - 1):
                responder = world.responder(gate={"psks": [KEY]})
                events = responder.feed(data[:cut], world.wall_s + shift, 1)
                events += responder.tick(responder.deadline_ns or 0)
                assert [type(e) for e in events] == [hs.Drain], what
                assert responder.feed(data, world.wall_s, 2) == []
                assert responder.eof() == []
                count += 1
        assert count == 114

    def test_stealth_without_psk_answers_only_who_knows_the_id(self, world: Any) -> None:
        for named, answered in ((True, True), (False, False)):
            hello = world.initiator(named=named).start(world.wall_s, 0)[0].data
            events = world.responder(gate={"stealth": True}).feed(hello, world.wall_s, 1)
            assert isinstance(events[0], hs.Send) == answered

    def test_garbage_after_a_good_hello_ends_it_with_bounded_memory(self, world: Any) -> None:
        responder = world.responder()
        responder.feed(world.initiator().start(world.wall_s, 0)[0].data, world.wall_s, 1)
        frame = bytes((g.FINISH, 1)) + (4096).to_bytes(2, "big") + bytes(18)
        for chunk in (frame, bytes(2000), bytes(2000), bytes(2000)):
            responder.feed(chunk, world.wall_s, 1)
            assert len(responder._buffer) <= 4096
        assert responder.state is hs.State.FAILED

    def test_random_bytes_into_each_state_never_raise(self, world: Any) -> None:
        for _ in range(300):
            junk = world.rng(1 + world.rng(1)[0] * 8)
            initiator, responder = world.initiator(), world.responder()
            hello = initiator.start(world.wall_s, 0)[0].data
            world.responder().feed(junk, world.wall_s, 1)
            responder.feed(hello, world.wall_s, 1)
            responder.feed(junk, world.wall_s, 1)
            responder.feed(bytes((g.FINISH, 1, 1, 0)) + junk, world.wall_s, 1)
            initiator.feed(bytes((g.REPLY, 1, 1, 0)) + junk, world.wall_s, 1)
            initiator.tick(10**18)
            assert responder.state is not hs.State.DONE
            assert initiator.state is hs.State.FAILED


class TestHostilePeer:
    """A peer that speaks Noise well but lies inside."""

    def finish_with(self, world: Any, change: Any) -> Any:
        initiator, responder = world.initiator(), world.responder()
        original = initiator._offer_payload

        def payload(static: Any, with_record: bool) -> bytes:
            items = p.decode_items(original(static, with_record), p.KNOWN_ITEMS)
            result = change(items)
            return result if isinstance(result, bytes) else p.encode_items(items)

        initiator._offer_payload = payload
        return world.run(initiator, responder)

    @pytest.mark.parametrize(
        ("what", "code"),
        [
            ("no record", "PARAMETER"),
            ("foreign record", "RECORD"),
            ("broken record", "RECORD"),
            ("no params", "PARAMETER"),
            ("odd item", "PARAMETER"),
            ("seq item", "PARAMETER"),
            ("empty", "PARAMETER"),
            ("trailing", "PARAMETER"),
            ("unknown ciphers", "CAPABILITY"),
        ],
    )
    def test_lie_in_finish_refused_with_code(self, world: Any, what: str, code: str) -> None:
        def change(items: dict[int, bytes]) -> bytes | None:
            if what == "no record":
                del items[p.RECORD]
            elif what == "foreign record":
                items[p.RECORD] = Identity.generate().record(world.wall_s).raw
            elif what == "broken record":
                items[p.RECORD] = flip(items[p.RECORD], 700)
            elif what == "no params":
                del items[p.PARAMS]
            elif what == "odd item":
                items[0x4001] = b""
            elif what == "seq item":
                items[p.KNOWN_SEQ] = bytes(8)
            elif what == "empty":
                return b""
            elif what == "trailing":
                return p.encode_items(items) + b"\x3f"
            elif what == "unknown ciphers":
                items[p.CIPHERS] = b"\x09"
            return None

        out = self.finish_with(world, change)
        assert out.failed("responder").code.name == code
        assert out.failed("initiator").code.name == code
        assert out.failed("initiator").remote

    def test_unknown_even_item_is_skipped(self, world: Any) -> None:
        out = self.finish_with(world, lambda items: items.__setitem__(0x4002, b"future"))
        assert isinstance(out.end("initiator"), hs.Established)

    def test_accept_that_differs_from_the_offers_refused(self, world: Any) -> None:
        responder = world.responder()
        original = responder._sealed_verdict
        responder._sealed_verdict = lambda verdict: original(verdict[:-1] + bytes((verdict[-1] ^ 1,)))
        assert world.run(world.initiator(), responder).failed("initiator").code.name == "PARAMETER"

    def test_low_order_point_in_hello_refused(self, world: Any) -> None:
        def tamper(i: int, data: bytes) -> bytes:
            return reseal(world, data[:22] + bytes(32) + data[54:]) if i == 0 else data

        out = world.run(world.initiator(know=True), world.responder(), tamper)
        assert out.failed("responder").code.name == "CRYPTO"
