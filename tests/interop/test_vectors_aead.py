"""Published vectors through our function table, every available library in turn.

Wycheproof: AES-GCM, ChaCha20-Poly1305, HMAC-SHA256, HKDF-SHA256. Our table knows keys of 32 bytes, nonces of 12 and
tags of 16 only: other cases are counted as not applicable, with the reason.
"""

import collections
import json
import os
import pathlib
from typing import Any

import pytest

from netchan._core import _selftest_crypto as selftest
from netchan._core import provider

VECTORS = pathlib.Path(
    os.environ.get("NETCHAN_VECTORS", pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "vectors")
)
pytestmark = pytest.mark.skipif(
    not (VECTORS / "wycheproof").is_dir(), reason=f"no public vectors at {VECTORS} (set NETCHAN_VECTORS)"
)
PROVIDERS = [pytest.param(p, id=p.name) for p in provider.available()]
PAIRS = [pytest.param(p, c, id=f"{p.name}-{c}") for p in provider.available() for c in p.ciphers]
FILES = {"aes-256-gcm": "aes_gcm_test.json", "chacha20-poly1305": "chacha20_poly1305_test.json"}
NUMBERS = {"aes-256-gcm": (39, 27), "chacha20-poly1305": (256, 60)}  # valid, refused; counted from the files


def cases(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    data = json.loads((VECTORS / "wycheproof" / name).read_text())
    return [(group, test) for group in data["testGroups"] for test in group["tests"]]


def report(what: str, counts: collections.Counter[str]) -> None:
    print(f"{what}: " + ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))


class TestAead:
    @pytest.mark.parametrize(("p", "cipher"), PAIRS)
    def test_wycheproof_aead_cases_all_agree(self, p: provider.Provider, cipher: str) -> None:
        counts: collections.Counter[str] = collections.Counter()
        sealer, opener = selftest.Context(p, cipher), selftest.Context(p, cipher)
        for group, test in cases(FILES[cipher]):
            if group["keySize"] != 256:
                counts["not applicable (key is not 32 bytes)"] += 1
                continue
            if group["ivSize"] != 96:
                counts["not applicable (nonce is not 12 bytes)"] += 1
                continue
            if group["tagSize"] != 128:
                counts["not applicable (tag is not 16 bytes)"] += 1
                continue
            key, iv, aad, msg = (bytes.fromhex(test[k]) for k in ("key", "iv", "aad", "msg"))
            sealed = bytes.fromhex(test["ct"] + test["tag"])
            assert opener.key(key, 2) == 0
            rc, plain = opener.open(iv, aad, sealed)
            if test["result"] == "valid":
                assert sealer.key(key, 1) == 0
                assert sealer.seal(iv, aad, msg) == sealed, test["tcId"]
                for split in (0, len(msg) // 2, len(msg)):
                    assert sealer.seal(iv, aad, msg, split) == sealed, test["tcId"]
                assert (rc, plain) == (1, msg), test["tcId"]
                counts["valid"] += 1
            else:
                assert (rc, plain) == (0, bytes(len(plain))), test["tcId"]
                counts["refused"] += 1
        report(f"{p.name} {cipher}", counts)
        assert (counts["valid"], counts["refused"]) == NUMBERS[cipher]


class TestHash:
    @pytest.mark.parametrize("p", PROVIDERS)
    def test_wycheproof_hmac_cases_all_agree(self, p: provider.Provider) -> None:
        counts: collections.Counter[str] = collections.Counter()
        hasher = selftest.Hash(p)
        for group, test in cases("hmac_sha256_test.json"):
            key, msg, tag = (bytes.fromhex(test[k]) for k in ("key", "msg", "tag"))
            if len(key) > 64:
                assert hasher.hmac(key, msg) == -9
                counts["not applicable (key over one block: refused)"] += 1
                continue
            made = hasher.hmac(key, msg)
            assert isinstance(made, bytes)
            same = made[: group["tagSize"] // 8] == tag
            assert same == (test["result"] == "valid"), test["tcId"]
            counts[test["result"]] += 1
        report(f"{p.name} HMAC", counts)
        assert counts["valid"] >= 40
        assert counts["invalid"] >= 60

    @pytest.mark.parametrize("p", PROVIDERS)
    def test_wycheproof_hkdf_cases_all_agree(self, p: provider.Provider) -> None:
        counts: collections.Counter[str] = collections.Counter()
        hasher = selftest.Hash(p)
        for _group, test in cases("hkdf_sha256_test.json"):
            ikm, salt, info, okm = (bytes.fromhex(test[k]) for k in ("ikm", "salt", "info", "okm"))
            if len(salt) > 64:
                assert hasher.extract(salt, ikm) == -9
                counts["not applicable (salt over one block: refused)"] += 1
                continue
            prk = hasher.extract(salt, ikm)
            assert isinstance(prk, bytes)
            made = hasher.expand(prk, info, test["size"])
            if test["result"] == "valid":
                assert made == okm, test["tcId"]
            else:
                assert made == -9, test["tcId"]
            counts[test["result"]] += 1
        report(f"{p.name} HKDF", counts)
        assert counts["valid"] >= 70
        assert counts["invalid"] >= 1
