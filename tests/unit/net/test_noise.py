"""The Noise engine: order, counters, failed reads, key checks, hfs (spec handshake §3; Noise §5)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from netchan.net.noise import (
    MAX_NONCE,
    CipherState,
    HandshakeState,
    NoiseError,
    NoiseOrderError,
    ProtocolName,
)
from netchan.net.secret import SecureBytes

XX = "Noise_XX_25519_ChaChaPoly_SHA256"
HYBRID = "Noise_XXhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256"
PSK = bytes(range(32))


def pair(name: str, **both: Any) -> tuple[HandshakeState, HandshakeState]:
    """Two ends of one handshake with fixed keys."""
    rng: Callable[[int], bytes] = random.Random(7).randbytes
    pattern = ProtocolName(name)
    statics = [X25519PrivateKey.from_private_bytes(rng(32)) for _ in range(2)]
    publics = [key.public_key().public_bytes_raw() for key in statics]
    psks = [PSK] * pattern.psks
    sides = [
        HandshakeState(
            pattern,
            side == 0,
            rng,
            s=statics[side],
            rs=publics[1 - side] if pattern.pre[1 - side] else None,
            psks=psks,
            **both,
        )
        for side in range(2)
    ]
    return sides[0], sides[1]


def finish(first: HandshakeState, second: HandshakeState) -> None:
    """Run what is left of a handshake."""
    while not first.done:
        second.read_message(first.write_message(b"payload"))
        first, second = second, first


class TestPatterns:
    @pytest.mark.parametrize("pattern", ["N", "K", "X", "NN", "NK", "XX", "XK", "IK", "IX", "KK", "XK1"])
    @pytest.mark.parametrize("modifier", ["", "psk0"])
    def test_handshake_each_pattern_both_ends_agree(self, pattern: str, modifier: str) -> None:
        first, second = pair(f"Noise_{pattern}{modifier}_25519_AESGCM_BLAKE2s")
        assert not first.done
        one, two = first, second
        while not one.done or not two.done:
            assert two.read_message(one.write_message(b"x")) == b"x"
            one, two = two, one
        assert first.handshake_hash == second.handshake_hash
        assert first.finish() == second.finish()

    @pytest.mark.parametrize("pattern", ["NN", "NK", "XX", "XK", "IK", "KK", "IX"])
    def test_hybrid_each_pattern_both_ends_agree(self, pattern: str) -> None:
        first, second = pair(f"Noise_{pattern}hfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256")
        finish(first, second)
        assert first.finish() == second.finish()

    def test_hybrid_tokens_stand_as_in_the_spec(self) -> None:
        names = {p: ProtocolName(f"Noise_{p}hfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256").messages for p in ("XX", "XK")}
        assert [" ".join(m) for m in names["XX"]] == ["psk e e1", "e ee ekem1 s es", "s se"]
        assert [" ".join(m) for m in names["XK"]] == ["psk e es e1", "e ee ekem1", "s se"]

    def test_hybrid_sizes_are_those_of_the_spec(self) -> None:
        first, second = pair(HYBRID)
        one = first.write_message(b"")
        second.read_message(one)
        two = second.write_message(b"")
        first.read_message(two)
        assert (len(one), len(two), len(first.write_message(b""))) == (1248, 1200, 64)

    def test_hybrid_secret_is_in_the_result(self) -> None:
        # the same handshake with another KEM secret on one side must not open
        class Liar:
            def __init__(self, real: Any) -> None:
                self.generate, self.encapsulate, self._real = real.generate, real.encapsulate, real

            def decapsulate(self, private: object, ciphertext: bytes) -> SecureBytes:
                good: SecureBytes = self._real.decapsulate(private, ciphertext)
                good[0] ^= 1
                return good

        first, second = pair(HYBRID)
        first._kem = Liar(first._kem)
        second.read_message(first.write_message(b""))
        with pytest.raises(NoiseError):
            first.read_message(second.write_message(b""))

    def test_hybrid_ephemeral_keys_are_encrypted(self) -> None:
        first, _ = pair(HYBRID)
        message = first.write_message(b"")
        public = first._e1.public_key().public_bytes_raw()  # type: ignore[attr-defined]
        assert public not in message

    @pytest.mark.parametrize(
        "name",
        [
            "Noise_ZZ_25519_ChaChaPoly_SHA256",
            "Noise_XX_448_ChaChaPoly_SHA256",
            "Noise_XX_25519_AES_SHA256",
            "Noise_XX_25519_ChaChaPoly_MD5",
            "Noise_XXpsk9_25519_ChaChaPoly_SHA256",
            "Noise_XXpsk0+psk0_25519_ChaChaPoly_SHA256",
            "Noise_XXhfs_25519_ChaChaPoly_SHA256",
            "Noise_Nhfs_25519+MLKEM768_ChaChaPoly_SHA256",
            "Noise_XXfallback_25519_ChaChaPoly_SHA256",
            "noise",
        ],
    )
    def test_protocol_name_unknown_part_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"unknown|not a|hfs needs"):
            ProtocolName(name)

    @pytest.mark.parametrize("psks", [[], [bytes(31)], [PSK, PSK]])
    def test_wrong_psks_are_refused(self, psks: list[bytes]) -> None:
        with pytest.raises(ValueError, match="pre-shared"):
            HandshakeState("Noise_NNpsk0_25519_ChaChaPoly_SHA256", True, bytes, psks=psks)

    def test_missing_static_is_refused(self) -> None:
        with pytest.raises(ValueError, match="static key"):
            HandshakeState("Noise_NK_25519_ChaChaPoly_SHA256", True, bytes)
        with pytest.raises(ValueError, match="static key"):
            HandshakeState("Noise_XK_25519_ChaChaPoly_SHA256", False, bytes)


class TestOrder:
    def test_calls_out_of_turn_are_refused(self) -> None:
        first, second = pair(XX)
        with pytest.raises(NoiseOrderError):
            second.write_message(b"")
        with pytest.raises(NoiseOrderError):
            first.read_message(bytes(64))
        message = first.write_message(b"")
        with pytest.raises(NoiseOrderError):
            first.write_message(b"")
        second.read_message(message)
        with pytest.raises(NoiseOrderError):
            second.read_message(message)
        with pytest.raises(NoiseOrderError):
            first.finish()
        with pytest.raises(NoiseOrderError):
            first.split()

    def test_nothing_after_the_end(self) -> None:
        first, second = pair(XX)
        finish(first, second)
        for state in (first, second):
            with pytest.raises(NoiseOrderError):
                state.write_message(b"")
            with pytest.raises(NoiseOrderError):
                state.read_message(bytes(100))


class TestFailedRead:
    # snow RUSTSEC-2024-0011, flynn/noise GHSA-g9mp-8g3h-3c5c: one injected message must not spoil the state
    @pytest.mark.parametrize("name", [XX, HYBRID, "Noise_XKpsk0_25519_AESGCM_SHA512"])
    def test_garbage_between_all_messages_changes_nothing(self, name: str) -> None:
        first, second = pair(name)
        keep = first, second
        while not first.done or not second.done:
            message = first.write_message(b"data")
            before = bytes(second._sym.ck), second._sym.h, second._sym.n, second.rs
            changed = message[:-1] + bytes((message[-1] ^ 1,))
            for bad in (b"", message[:20], message[:-1], bytes(len(message)), changed, message + b"x", message * 2):
                if bad == message[:-1] and not second._sym.has_key and len(keep[0].name.messages[0]) == 1:
                    continue  # an unencrypted payload may have any length
                try:
                    second.read_message(bad)
                except NoiseError:
                    after = bytes(second._sym.ck), second._sym.h, second._sym.n, second.rs
                    assert after == before
                else:
                    # only message 1 of a pattern without psk carries no tag
                    assert name == XX
                    assert second._turn == 1
                    return
            assert second.read_message(message) == b"data"
            first, second = second, first
        assert keep[0].finish() == keep[1].finish()

    @pytest.mark.parametrize("name", [XX, HYBRID, "Noise_XKpsk0_25519_AESGCM_SHA512"])
    def test_message_that_was_read_can_be_taken_back(self, name: str) -> None:
        first, second = pair(name)
        other, _ = pair(name)
        keep = first, second
        with pytest.raises(RuntimeError, match="no message"):
            first.unread()
        while not first.done or not second.done:
            message = first.write_message(b"data")
            before = bytes(second._sym.ck), second._sym.h, second._sym.n, second.rs
            for _ in range(3):
                assert second.read_message(message) == b"data"
                second.unread()
                assert (bytes(second._sym.ck), second._sym.h, second._sym.n, second.rs) == before
                with pytest.raises(RuntimeError, match="no message"):
                    second.unread()
                if second is keep[1] and second._turn == 0:
                    assert second.read_message(other.write_message(b"else") if other._turn == 0 else message)
                    second.unread()
            assert second.read_message(message) == b"data"
            first, second = second, first
        with pytest.raises(NoiseError, match="over"):
            keep[0].write_message()
        assert keep[0].finish() == keep[1].finish()

    def test_message_beyond_65535_is_refused_both_ways(self) -> None:
        first, second = pair(XX)
        with pytest.raises(NoiseError):
            second.read_message(bytes(65_536))
        with pytest.raises(NoiseError):
            first.write_message(bytes(65_535))

    @pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
    def test_point_of_low_order_is_refused(self, point: bytes) -> None:
        _, second = pair("Noise_NK_25519_ChaChaPoly_SHA256")
        with pytest.raises(NoiseError, match="low order"):
            second.read_message(point + bytes(16))

    def test_kem_key_beyond_the_modulus_is_refused(self) -> None:
        _, second = pair("Noise_NNhfs_25519+MLKEM768_ChaChaPoly_SHA256")
        second.read_message(bytes(31) + b"\x09" + b"\xff" * 1184)
        with pytest.raises(NoiseError, match="KEM"):
            second.write_message(b"")


class TestCipherState:
    @pytest.mark.parametrize("cipher", ["ChaChaPoly", "AESGCM"])
    def test_counter_moves_only_with_a_good_tag(self, cipher: str) -> None:
        seal, open_ = (CipherState(cipher, SecureBytes(PSK)) for _ in range(2))
        one, two = seal.seal(b"ad", b"1"), seal.seal(b"ad", b"2")
        assert one != two
        for bad in (two, one[:-1], b"", one[:-1] + bytes((one[-1] ^ 1,))):
            with pytest.raises(NoiseError):
                open_.open(b"ad", bad)
            assert open_.n == 0
        with pytest.raises(NoiseError):
            open_.open(b"other", one)
        assert (open_.open(b"ad", one), open_.open(b"ad", two), open_.n) == (b"1", b"2", 2)

    def test_last_nonce_is_never_used(self) -> None:
        # snow issue 150: off by one at the end of the counter
        state = CipherState("ChaChaPoly", SecureBytes(PSK), MAX_NONCE - 1)
        sealed = state.seal(b"", b"last")
        with pytest.raises(NoiseOrderError):
            state.seal(b"", b"one more")
        reader = CipherState("ChaChaPoly", SecureBytes(PSK), MAX_NONCE - 1)
        assert reader.open(b"", sealed) == b"last"
        with pytest.raises(NoiseOrderError):
            reader.open(b"", sealed)

    def test_without_key_text_passes(self) -> None:
        state = CipherState("AESGCM")
        assert state.open(b"", state.seal(b"", b"clear")) == b"clear"
        assert not state.has_key


class TestWipe:
    def test_finish_wipes_what_is_left(self) -> None:
        first, second = pair(HYBRID)
        psks, ck = first._psks, first._sym
        finish(first, second)
        chaining_key, h = first.finish()
        assert any(chaining_key)
        assert len(h) == 32
        assert not any(psks[0])
        assert not any(ck.ck)
        assert first._s is None
        assert first._e is None
        assert first._e1 is None
