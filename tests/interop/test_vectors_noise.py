"""All published Noise vectors for 25519: cacophony, snow and noise-c-basic (spec handshake §3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from netchan.net.noise import HandshakeState

FILES = {"cacophony-25519": 256, "snow-25519": 216, "noise-c-basic-25519": 96}


def _load(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "noise" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no noise/{name}.json among the public vectors")
    vectors: list[dict[str, Any]] = json.loads(path.read_text())["vectors"]
    return vectors


def _side(vector: dict[str, Any], name: str, role: str) -> HandshakeState:
    def key(field: str) -> bytes | None:
        text = vector.get(f"{role}_{field}")
        return bytes.fromhex(text) if text is not None else None

    ephemeral, static = key("ephemeral"), key("static")
    return HandshakeState(
        name,
        role == "init",
        lambda size: (ephemeral or b"")[:size],
        prologue=key("prologue") or b"",
        s=X25519PrivateKey.from_private_bytes(static) if static else None,
        rs=key("remote_static"),
        psks=[bytes.fromhex(psk) for psk in vector.get(f"{role}_psks", [])],
    )


def run_vector(vector: dict[str, Any]) -> None:
    """Both sides compute every ciphertext and read the published one; the transport messages too."""
    name = vector.get("protocol_name") or vector["name"]
    initiator, responder = _side(vector, name, "init"), _side(vector, name, "resp")
    sender, receiver = initiator, responder
    handshake_messages = len(initiator.name.messages)
    for message in vector["messages"][:handshake_messages]:
        ciphertext = sender.write_message(bytes.fromhex(message["payload"]))
        assert ciphertext.hex() == message["ciphertext"], name
        assert receiver.read_message(ciphertext).hex() == message["payload"], name
        sender, receiver = receiver, sender
    assert initiator.done
    assert responder.done
    assert initiator.handshake_hash == responder.handshake_hash
    if "handshake_hash" in vector:
        assert initiator.handshake_hash.hex() == vector["handshake_hash"], name
    seal, open_ = initiator.split(), responder.split()
    one_way = handshake_messages == 1
    for i, message in enumerate(vector["messages"][handshake_messages:], handshake_messages):
        direction = 0 if one_way else i % 2
        ciphertext = seal[direction].seal(b"", bytes.fromhex(message["payload"]))
        assert ciphertext.hex() == message["ciphertext"], name
        assert open_[direction].open(b"", ciphertext).hex() == message["payload"], name


class TestPublishedVectors:
    @pytest.mark.parametrize("name", FILES)
    def test_noise_published_file_all_vectors_agree(self, vectors: Path, name: str) -> None:
        published = _load(vectors, name)
        assert len(published) == FILES[name]
        for vector in published:
            run_vector(vector)
        print(f"{name}: {len(published)} of {FILES[name]} vectors")

    @pytest.mark.parametrize("name", FILES)
    def test_noise_published_vector_changed_byte_fails(self, vectors: Path, name: str) -> None:
        vector = _load(vectors, name)[0]
        message = vector["messages"][1]
        message["ciphertext"] = ("0" if message["ciphertext"][0] != "0" else "1") + message["ciphertext"][1:]
        with pytest.raises(AssertionError):
            run_vector(vector)
