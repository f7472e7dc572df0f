"""The compiled symmetric state does what the general one in net/noise.py does (Noise §5.2), step by step."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from netchan._core.transcript import Transcript, has_transcript
from netchan.net import noise
from netchan.net.noise import HandshakeState, ProtocolName, SymmetricState

SHORT, LONG = "Noise_NN_25519_ChaChaPoly_SHA256", "Noise_XXhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256"


def state(one: Transcript | SymmetricState) -> tuple[bytes, bytes, bool, int]:
    """All that two of them must agree on."""
    return bytes(one.ck), one.h, one.has_key, one.n


def step(one: Transcript | SymmetricState, what: str, data: bytes) -> object:
    """One step, and what it gives."""
    call: Any = getattr(one, what)
    return call(data) if what not in ("keep", "go_back", "split") else call()


@pytest.mark.parametrize("name", [SHORT, LONG])
@pytest.mark.parametrize("seed", range(20))
def test_both_agree_after_every_step(name: str, seed: int) -> None:
    rng = random.Random(seed)
    parsed = ProtocolName(name)
    compiled, general = Transcript(parsed.raw), SymmetricState(parsed)
    assert state(compiled) == state(general)
    both: list[Transcript | SymmetricState] = [compiled, general]
    for one in both:
        one.keep()
    steps = ["mix_hash", "mix_key", "mix_key_and_hash", "encrypt_and_hash", "decrypt_and_hash", "keep", "go_back"]
    for _ in range(60):
        what = rng.choice(steps)
        data = rng.randbytes(rng.choice([0, 1, 15, 16, 17, 32, 64, 1184]))
        if what == "decrypt_and_hash" and rng.random() < 0.7:
            twin = SymmetricState(parsed)  # what the other side would send now
            twin.ck, twin.h, twin.cipher = general.ck, general.h, noise.CipherState(parsed.cipher)
            twin.cipher._aead, twin.cipher.n = general.cipher._aead, general.cipher.n
            data = twin.encrypt_and_hash(data)
            if rng.random() < 0.3 and data:
                data = data[:-1] + bytes([data[-1] ^ 1])
        assert step(compiled, what, data) == step(general, what, data), what
        assert state(compiled) == state(general), what
    assert [bytes(key) for key in compiled.split()] == [bytes(key) for key in general.split()]


def test_what_does_not_open_changes_nothing() -> None:
    writer, reader = Transcript(LONG.encode()), Transcript(LONG.encode())
    for one in (writer, reader):
        one.mix_key(b"secret")
    sealed = writer.encrypt_and_hash(b"value")
    before = state(reader)
    for bad in (b"", sealed[:15], sealed[:-1], sealed + b"x", bytes(len(sealed))):
        assert reader.decrypt_and_hash(bad) is None
        assert state(reader) == before
    assert reader.decrypt_and_hash(sealed) == b"value"


def test_keys_are_taken_from_any_buffer() -> None:
    results = []
    for key in (b"k" * 32, bytearray(b"k" * 32), memoryview(b"k" * 32)):
        one = Transcript(SHORT.encode())
        one.mix_key(key)  # type: ignore[arg-type]
        results.append(state(one))
    assert results[0] == results[1] == results[2]
    with pytest.raises(TypeError):
        Transcript(SHORT.encode()).mix_key("text")  # type: ignore[arg-type]


def test_wiped_it_holds_no_key() -> None:
    one = Transcript(SHORT.encode())
    one.mix_key(b"secret")
    one.keep()
    h = one.h
    one.wipe()
    assert not any(one.ck)
    assert not one.has_key
    one.go_back()
    assert not any(one.ck)
    assert one.h == h


def test_going_back_needs_a_kept_state() -> None:
    for one in (Transcript(SHORT.encode()), SymmetricState(ProtocolName(SHORT))):
        with pytest.raises(RuntimeError):
            one.go_back()


def test_secrets_are_not_serialised() -> None:
    with pytest.raises(TypeError):
        copy.copy(Transcript(SHORT.encode()))


def test_without_the_cipher_the_general_one_is_used_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_transcript()
    first = HandshakeState(SHORT, True, random.Random(1).randbytes)
    monkeypatch.setattr(noise, "_compiled", lambda: False)
    second = HandshakeState(SHORT, False, random.Random(2).randbytes)
    assert isinstance(first._sym, Transcript)
    assert isinstance(second._sym, SymmetricState)
    assert second.read_message(first.write_message(b"one")) == b"one"
    assert first.read_message(second.write_message(b"two")) == b"two"
    assert bytes(first.finish()[0]) == bytes(second.finish()[0])


@pytest.mark.parametrize("name", ["Noise_NN_25519_AESGCM_SHA256", "Noise_NN_25519_ChaChaPoly_BLAKE2s"])
def test_other_ciphers_and_hashes_use_the_general_one(name: str) -> None:
    assert isinstance(HandshakeState(name, True, random.Random(1).randbytes)._sym, SymmetricState)
