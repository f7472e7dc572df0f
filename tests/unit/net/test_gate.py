"""The gate: frames, keys, timestamps, replay set, cookies (spec handshake §2, §5)."""

from __future__ import annotations

import hmac
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netchan.net import gate as g

KEY, OTHER = bytes(range(32)), bytes(32)
ID, NET, NOW = b"\x07" * 32, b"netchan", 1_800_000_000.0
RNG = random.Random(1).randbytes
NAMED = g.MODE_XX_NAMED << 4 | g.SUITE_CLASSICAL


def hello(keys: g.GateKeys, *, ts: float = NOW, suite: int = NAMED, body: bytes = b"body", **fields: Any) -> bytes:
    """A HELLO with a right mac1."""
    header = g.Header(g.HELLO, 1, 0, suite, 0, b"scidscid", int(ts * 1000))._replace(**fields)
    return g.seal_frame(header, body, keys.to_responder)


def make(**options: Any) -> g.Gate:
    """A gate of the classical suite."""
    return g.Gate(NET, ID, g.SUITE_CLASSICAL, **options)


def check(gate: g.Gate, frame: bytes, wall_s: float = NOW, now_ns: int = 0, **options: Any) -> g.Verdict:
    """The verdict alone."""
    return gate.check(frame, wall_s, now_ns, RNG, **options).verdict


class TestFrame:
    def test_frame_layout_is_that_of_the_spec(self) -> None:
        keys = g.psk_keys(KEY, NET)
        frame = hello(keys, ts=1.0)
        assert frame[:22].hex() == "0101003a12007363696473636964" + "00000000000003e8"
        assert frame[22:26] == b"body"
        assert frame[26:42] == hmac.digest(keys.to_responder, frame[:26], "sha256")[:16]
        assert frame[42:] == bytes(16)
        assert g.parse_header(frame).mode == 1
        assert g.frame_body(frame) == b"body"

    @given(st.binary(max_size=80))
    def test_header_any_bytes_parse_or_raise_the_one_error(self, data: bytes) -> None:
        try:
            header = g.parse_header(data)
        except g.FrameError:
            return
        assert header.pack() == data[:22]

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": 0},
            {"kind": 6, "length": 152},
            {"kind": 12},
            {"kind": 7, "length": 2049},
            {"kind": 10, "length": 1025},
            {"kind": 11, "length": 56},
            {"length": 54},
            {"length": 2049},
            {"frag": 1},
            {"ts": 2**63},
        ],
    )
    def test_header_out_of_bounds_is_refused(self, change: dict[str, int]) -> None:
        header = g.Header(g.HELLO, 1, 100, 1, 0, bytes(8), 0)
        g.parse_header(header.pack())
        with pytest.raises(g.FrameError):
            g.parse_header(header._replace(**change).pack())

    def test_later_message_must_repeat_the_hello(self) -> None:
        keys = g.psk_keys(KEY, NET)
        first = g.parse_header(hello(keys))
        good = first._replace(kind=g.REPLY)
        g.open_frame(g.seal_frame(good, b"x", keys.to_initiator), keys.to_initiator, first)
        for change in ({"version": 2}, {"suite": 2}, {"scid": bytes(8)}, {"ts": 5}):
            frame = g.seal_frame(good._replace(**change), b"x", keys.to_initiator)
            with pytest.raises(g.FrameError):
                g.open_frame(frame, keys.to_initiator, first)
        for frame in (
            g.seal_frame(good, b"x", keys.to_responder),
            g.seal_frame(good, b"x", keys.to_initiator)[:-1] + b"\1",
            g.seal_frame(good, b"x", keys.to_initiator, cookie=bytes(16)),
        ):
            with pytest.raises(g.FrameError):
                g.open_frame(frame, keys.to_initiator, first)


class TestKeys:
    def test_keys_are_frozen_and_all_different(self) -> None:
        forms = [
            g.psk_keys(KEY, NET),
            g.named_keys(KEY, NET),
            g.open_keys(NET),
            g.psk_keys(KEY, b"other"),
            g.psk_keys(OTHER, NET),
        ]
        keys = [bytes(k) for form in forms for k in (form.to_responder, form.to_initiator)]
        assert len(set(keys)) == len(keys)
        prk = hmac.digest(b"netchan gate v1", KEY, "sha256")
        assert forms[0].to_responder == hmac.digest(prk, b"\x07netchan\x01\x01", "sha256")
        psk0 = hmac.digest(hmac.digest(b"netchan psk0 v1", KEY, "sha256"), NET + b"\x01", "sha256")
        assert forms[0].psk0 == psk0
        assert forms[1].psk0 == forms[2].psk0 == bytes(32)

    def test_each_of_sixteen_psks_passes_and_no_seventeenth(self) -> None:
        psks = [bytes([i]) * 32 for i in range(16)]
        gate = make(psks=psks)
        for psk in psks:
            assert check(gate, hello(g.psk_keys(psk, NET))) is g.Verdict.NOISE
        assert check(gate, hello(g.psk_keys(b"\x10" * 32, NET))) is g.Verdict.SILENCE
        with pytest.raises(ValueError, match="at most 16"):
            make(psks=[*psks, KEY])

    @pytest.mark.parametrize("psk", [bytes(31), "x" * 32, None])
    def test_bad_psk_is_refused(self, psk: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="psk"):
            make(psks=[psk])

    def test_form_must_fit_mode_and_configuration(self) -> None:
        forms = {"psk": g.psk_keys(KEY, NET), "named": g.named_keys(ID, NET), "open": g.open_keys(NET)}
        gates = {"psk": {"psks": [KEY]}, "plain": {}, "stealth": {"stealth": True}}
        expected = {("psk", "psk", m) for m in range(3)}
        expected |= {("plain", "named", 1), ("plain", "named", 2), ("plain", "open", 0)}
        expected |= {("stealth", "named", 1), ("stealth", "named", 2)}
        for gate, options in gates.items():
            for form, keys in forms.items():
                for mode in range(4):
                    verdict = check(make(**options), hello(keys, suite=mode << 4 | g.SUITE_CLASSICAL))
                    assert (verdict is g.Verdict.NOISE) == ((gate, form, mode) in expected), (gate, form, mode)

    def test_wiped_gate_passes_nobody(self) -> None:
        gate = make(psks=[KEY])
        gate.wipe()
        assert check(gate, hello(g.psk_keys(KEY, NET))) is g.Verdict.SILENCE


class TestTime:
    @pytest.mark.parametrize(
        ("shift", "good"), [(0, True), (30, True), (-30, True), (30.1, False), (-30.1, False), (-NOW, False)]
    )
    def test_timestamp_is_enforced_with_psk_and_stealth_only(self, shift: float, good: bool) -> None:
        expected = g.Verdict.NOISE if good else g.Verdict.SILENCE
        assert check(make(psks=[KEY]), hello(g.psk_keys(KEY, NET), ts=NOW + shift)) is expected
        assert check(make(stealth=True), hello(g.named_keys(ID, NET), ts=NOW + shift)) is expected
        assert check(make(), hello(g.named_keys(ID, NET), ts=NOW + shift)) is g.Verdict.NOISE

    def test_after_restart_replay_is_refused_and_a_fresh_hello_passes(self) -> None:
        keys, gate = g.psk_keys(KEY, NET), make(psks=[KEY])
        recorded = hello(keys, ts=NOW)
        assert check(gate, recorded) is g.Verdict.NOISE
        again = make(psks=[KEY], floor_s=gate.highest_s)
        assert check(again, recorded, NOW + 2) is g.Verdict.SILENCE
        assert check(again, hello(keys, ts=NOW + 0.9), NOW + 2) is g.Verdict.SILENCE
        assert check(again, hello(keys, ts=NOW + 2), NOW + 2) is g.Verdict.NOISE

    def test_clock_once_in_the_future_locks_nobody_out(self) -> None:
        # WireGuard CVE-2021-46873
        keys, years = g.psk_keys(KEY, NET), 10 * 366 * 86_400
        gate = make(psks=[KEY])
        assert check(gate, hello(keys, ts=NOW + years), NOW + years) is g.Verdict.NOISE
        for now_ns in (0, g.REPLAY_WINDOW_NS, 3 * g.REPLAY_WINDOW_NS):
            assert check(gate, hello(keys, body=b"%d" % now_ns), NOW, now_ns) is g.Verdict.NOISE
        again = make(psks=[KEY], floor_s=gate.highest_s)
        assert check(again, hello(keys), NOW) is g.Verdict.NOISE

    def test_clock_set_back_revives_no_recorded_hello(self) -> None:
        keys, gate = g.psk_keys(KEY, NET), make(psks=[KEY])
        recorded = hello(keys, ts=NOW)
        assert check(gate, recorded, NOW, 0) is g.Verdict.NOISE
        later = 4 * g.REPLAY_WINDOW_NS
        assert check(gate, hello(keys, ts=NOW + 260), NOW + 260, later) is g.Verdict.NOISE
        assert check(gate, recorded, NOW, later + 1) is g.Verdict.SILENCE


class TestReplay:
    def test_replay_is_refused_for_as_long_as_its_time_is_good(self) -> None:
        keys = g.psk_keys(KEY, NET)
        for start in range(0, 65, 8):
            gate = make(psks=[KEY])
            check(gate, hello(keys, body=b"first"), NOW, 0)
            recorded, seen = hello(keys, ts=NOW + start + 30), start * 10**9
            assert check(gate, recorded, NOW + start, seen) is g.Verdict.NOISE
            for after in range(61):
                assert check(gate, recorded, NOW + start + after, seen + after * 10**9) is g.Verdict.SILENCE

    def test_full_set_fails_closed_with_psk_and_means_load_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(g, "MAX_REPLAY", 3)
        for options, keys, on_stream, on_datagram in (
            ({"psks": [KEY]}, g.psk_keys(KEY, NET), g.Verdict.SILENCE, g.Verdict.SILENCE),
            ({}, g.named_keys(ID, NET), g.Verdict.BUSY, g.Verdict.COOKIE),
        ):
            gate = make(**options)
            for i in range(3):
                assert check(gate, hello(keys, body=b"%d" % i)) is g.Verdict.NOISE
            assert check(gate, hello(keys, body=b"more")) is on_stream
            assert check(gate, hello(keys, body=b"more"), address=b"a") is on_datagram
            assert sum(map(len, gate._windows)) == 3
            assert check(gate, hello(keys, ts=NOW + 131, body=b"new"), NOW + 131, 131 * 10**9) is g.Verdict.NOISE

    def test_forged_hellos_do_not_enter_the_set(self) -> None:
        gate = make(psks=[KEY])
        for i in range(50):
            check(gate, hello(g.psk_keys(OTHER, NET), body=b"%d" % i))
            check(gate, hello(g.psk_keys(KEY, NET), ts=5, body=b"%d" % i))
        assert sum(map(len, gate._windows)) == 0
        assert gate.highest_s == 0


class TestVersionAndSuite:
    def test_other_version_or_suite_is_told_to_who_passed_the_gate(self) -> None:
        keys = g.named_keys(ID, NET)
        assert check(make(), hello(keys, version=2)) is g.Verdict.VERSIONS
        assert check(make(), hello(keys, suite=0x11)) is g.Verdict.SUITE
        assert check(make(), hello(keys, suite=0x32)) is g.Verdict.SUITE
        wrong = g.named_keys(OTHER, NET)
        assert check(make(), hello(wrong, version=2)) is g.Verdict.SILENCE
        assert check(make(), hello(wrong, suite=0x11)) is g.Verdict.SILENCE


class TestCookie:
    def ask(self, gate: g.Gate, frame: bytes, now_ns: int, address: bytes = b"192.0.2.1:5") -> g.GateResult:
        return gate.check(frame, NOW, now_ns, RNG, address=address, busy=True)

    def with_cookie(self, keys: g.GateKeys, cookie: bytes, body: bytes) -> bytes:
        return g.seal_frame(
            g.Header(g.HELLO, 1, 0, NAMED, 0, b"scidscid", int(NOW * 1000)), body, keys.to_responder, cookie
        )

    def test_cookie_opens_for_its_address_and_time_only(self) -> None:
        keys, gate = g.named_keys(ID, NET), make()
        first = self.ask(gate, hello(keys, body=b"0"), 0)
        assert first.verdict is g.Verdict.COOKIE
        assert len(first.cookie) == 16
        good, wrong = first.cookie, bytes(16)
        cases = (
            (wrong, b"192.0.2.1:5", 1, g.Verdict.COOKIE),
            (good, b"192.0.2.1:6", 1, g.Verdict.COOKIE),
            (good, b"192.0.2.1:5", 1, g.Verdict.NOISE),
            (good, b"192.0.2.1:5", g.COOKIE_LIFE_NS + 1, g.Verdict.NOISE),
            (good, b"192.0.2.1:5", 2 * g.COOKIE_LIFE_NS + 2, g.Verdict.COOKIE),
        )
        for i, (cookie, address, now_ns, verdict) in enumerate(cases):
            frame = self.with_cookie(keys, cookie, b"body%d" % i)
            assert self.ask(gate, frame, now_ns, address).verdict is verdict, i

    def test_who_gets_a_cookie_gets_it_again_and_is_no_replay(self) -> None:
        keys = g.named_keys(ID, NET)
        for options in ({}, {"stealth": True}):
            gate, frame = make(**options), hello(keys)
            said = {self.ask(gate, frame, n).cookie for n in range(3)}
            assert len(said) == 1 and b"" not in said
            assert sum(map(len, gate._windows)) == 0 and gate.highest_s == 0
            assert check(gate, frame) is g.Verdict.NOISE
            assert self.ask(gate, frame, 4).verdict is g.Verdict.SILENCE  # it has passed: a replay

    def test_replay_of_what_was_asked_for_a_cookie_gets_no_byte_where_the_gate_is_shut(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(g, "MAX_ASKED", 4)
        for options, keys in (({"psks": [KEY]}, g.psk_keys(KEY, NET)), ({"stealth": True}, g.named_keys(ID, NET))):
            gate = make(**options)
            frames = [hello(keys, body=b"%d" % n) for n in range(9)]
            for frame in frames:
                assert self.ask(gate, frame, 0).verdict is g.Verdict.COOKIE
                assert self.ask(gate, frame, 0, b"192.0.2.1:6").verdict is g.Verdict.SILENCE
            assert len(gate._asked) == 4
            for frame in frames[:5]:  # of another time: not answered any more, wherever it comes from
                assert self.ask(gate, frame, 0).verdict is g.Verdict.SILENCE
            assert self.ask(gate, frames[8], 0).verdict is g.Verdict.COOKIE

    def test_look_says_what_check_would_and_keeps_nothing(self) -> None:
        keys, gate = g.named_keys(ID, NET), make(stealth=True)
        for frame, verdict in (
            (hello(keys), g.Verdict.NOISE),
            (hello(keys, version=2), g.Verdict.VERSIONS),
            (hello(keys, ts=5), g.Verdict.SILENCE),
            (hello(g.named_keys(OTHER, NET)), g.Verdict.SILENCE),
        ):
            for _ in range(2):
                assert gate.look(frame, NOW, 0, RNG, address=b"a").verdict is verdict
            assert sum(map(len, gate._windows)) == 0 and gate.highest_s == 0
        assert check(gate, hello(keys)) is g.Verdict.NOISE
        assert gate.look(hello(keys), NOW, 0, RNG, address=b"a").verdict is g.Verdict.SILENCE

    def test_cookie_is_not_asked_for_without_load_or_on_a_stream(self) -> None:
        keys = g.named_keys(ID, NET)
        assert check(make(), hello(keys), address=b"a", busy=False) is g.Verdict.NOISE
        assert check(make(), hello(keys), busy=True) is g.Verdict.NOISE

    def test_cookie_secret_of_zero_or_another_gate_does_not_open(self) -> None:
        keys, gate, other = g.named_keys(ID, NET), make(), make()
        foreign = self.ask(other, hello(keys, body=b"0"), 0).cookie
        header = g.parse_header(hello(keys))
        zero = g._make_cookie(g.SecureBytes(32), header, b"192.0.2.1:5")
        for i, cookie in enumerate((foreign, zero)):
            assert self.ask(gate, self.with_cookie(keys, cookie, b"%d" % i), 1).verdict is g.Verdict.COOKIE
