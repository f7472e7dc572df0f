"""Wycheproof against exactly the calls of ours that the handshake uses (spec handshake §1, §3)."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from netchan.net.noise import HandshakeState, MlKem768, NoiseError
from netchan.net.record import check_signature
from netchan.net.secret import hkdf_expand, hkdf_extract


def cases(vectors: Path, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, test) pairs of a Wycheproof file."""
    path = vectors / "wycheproof" / name
    if not path.is_file():
        pytest.skip(f"no {name} among the public vectors")
    groups = json.loads(path.read_text())["testGroups"]
    return [(group, test) for group in groups for test in group["tests"]]


def raw(test: dict[str, Any], field: str) -> bytes:
    """A field given in hex."""
    return bytes.fromhex(test[field])


def exchange(private: bytes, public: bytes) -> bytes:
    """X25519 as the handshake engine does it: through the `es` token of pattern K, seen by the chaining key's input."""
    key = X25519PrivateKey.from_private_bytes(private)
    state = HandshakeState("Noise_NN_25519_ChaChaPoly_SHA256", True, lambda n: private)
    seen: list[bytes] = []
    state._sym = SimpleNamespace(mix_key=lambda ikm: seen.append(bytes(ikm)))  # type: ignore[assignment]
    state._e, state._re = key, public
    state._mix_token("ee")
    return seen[0]


class TestWycheproof:
    def test_x25519_all_cases_agree_and_zero_results_are_refused(self, vectors: Path) -> None:
        count: Counter[str] = Counter()
        for _, test in cases(vectors, "x25519_test.json"):
            shared = raw(test, "shared")
            if not any(shared):
                with pytest.raises(NoiseError):
                    exchange(raw(test, "private"), raw(test, "public"))
                count["zero refused"] += 1
            else:
                assert test["result"] in ("valid", "acceptable")
                assert exchange(raw(test, "private"), raw(test, "public")) == shared, test["tcId"]
                count["agree"] += 1
        print(f"x25519: {dict(count)}")
        assert count == {"agree": 487, "zero refused": 31}

    def test_ed25519_all_cases_agree(self, vectors: Path) -> None:
        count: Counter[str] = Counter()
        for group, test in cases(vectors, "ed25519_test.json"):
            public = bytes.fromhex(group["publicKey"]["pk"])
            assert check_signature(public, raw(test, "sig"), raw(test, "msg")) == (test["result"] == "valid"), test[
                "tcId"
            ]
            count[test["result"]] += 1
        print(f"ed25519: {dict(count)}")
        assert sum(count.values()) == 151
        assert count["invalid"] > 50

    def test_hkdf_sha256_all_cases_agree(self, vectors: Path) -> None:
        count: Counter[str] = Counter()
        for _, test in cases(vectors, "hkdf_sha256_test.json"):
            prk = hkdf_extract(raw(test, "salt"), raw(test, "ikm"))
            if test["result"] == "valid":
                assert hkdf_expand(prk, raw(test, "info"), test["size"]) == raw(test, "okm"), test["tcId"]
            else:
                with pytest.raises(ValueError, match="HKDF"):
                    hkdf_expand(prk, raw(test, "info"), test["size"])
            count[test["result"]] += 1
        print(f"hkdf: {dict(count)}")
        assert sum(count.values()) == 86

    def test_hmac_sha256_all_cases_agree(self, vectors: Path) -> None:
        count: Counter[str] = Counter()
        for group, test in cases(vectors, "hmac_sha256_test.json"):
            tag = hmac.digest(raw(test, "key"), raw(test, "msg"), "sha256")[: group["tagSize"] // 8]
            assert hmac.compare_digest(tag, raw(test, "tag")) == (test["result"] == "valid"), test["tcId"]
            count[test["result"]] += 1
        print(f"hmac: {dict(count)}")
        assert sum(count.values()) == 174

    def test_chacha20_poly1305_all_cases_agree(self, vectors: Path) -> None:
        count: Counter[str] = Counter()
        for group, test in cases(vectors, "chacha20_poly1305_test.json"):
            if group["ivSize"] != 96:
                with pytest.raises(ValueError, match=r"[Nn]once"):
                    ChaCha20Poly1305(raw(test, "key")).encrypt(raw(test, "iv"), raw(test, "msg"), raw(test, "aad"))
                count["other nonce size refused"] += 1
                continue
            aead, sealed = ChaCha20Poly1305(raw(test, "key")), raw(test, "ct") + raw(test, "tag")
            if test["result"] == "valid":
                assert aead.decrypt(raw(test, "iv"), sealed, raw(test, "aad")) == raw(test, "msg"), test["tcId"]
                assert aead.encrypt(raw(test, "iv"), raw(test, "msg"), raw(test, "aad")) == sealed, test["tcId"]
            else:
                with pytest.raises(InvalidTag):
                    aead.decrypt(raw(test, "iv"), sealed, raw(test, "aad"))
            count[test["result"]] += 1
        print(f"chacha20-poly1305: {dict(count)}")
        assert sum(count.values()) == 325

    def test_mlkem768_decapsulation_all_cases_agree(self, vectors: Path) -> None:
        count: Counter[str] = Counter()
        kem = MlKem768()
        for _, test in cases(vectors, "mlkem_768_test.json"):
            seed, ciphertext = raw(test, "seed"), raw(test, "c")
            if test["result"] == "valid":
                key, public = kem.generate(lambda n, seed=seed: seed[:n])
                assert kem.decapsulate(key, ciphertext) == raw(test, "K"), test["tcId"]
                assert "ek" not in test or public == raw(test, "ek"), test["tcId"]
            else:
                with pytest.raises(ValueError):
                    kem.decapsulate(MLKEM768PrivateKey.from_seed_bytes(seed), ciphertext)
            count[test["result"]] += 1
        print(f"ml-kem-768 decapsulation: {dict(count)}")
        assert sum(count.values()) == 193

    def test_mlkem768_keygen_all_cases_agree(self, vectors: Path) -> None:
        kem, count = MlKem768(), 0
        for _, test in cases(vectors, "mlkem_768_keygen_seed_test.json"):
            assert test["result"] == "valid"
            seed = raw(test, "seed")
            _, public = kem.generate(lambda n, seed=seed: seed[:n])
            assert public == raw(test, "ek"), test["tcId"]
            count += 1
        print(f"ml-kem-768 keygen: {count}")
        assert count == 100

    def test_mlkem768_encapsulation_key_check_all_cases_agree(self, vectors: Path) -> None:
        # encapsulation takes no seed here, so only acceptance of the key can be compared
        count: Counter[str] = Counter()
        kem = MlKem768()
        for _, test in cases(vectors, "mlkem_768_encaps_test.json"):
            if test["result"] == "valid":
                shared, ciphertext = kem.encapsulate(raw(test, "ek"))
                assert len(shared) == 32
                assert len(ciphertext) == 1088
            else:
                with pytest.raises(ValueError):
                    kem.encapsulate(raw(test, "ek"))
            count[test["result"]] += 1
        print(f"ml-kem-768 encapsulation key: {dict(count)}")
        assert sum(count.values()) == 265
