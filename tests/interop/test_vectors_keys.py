"""The worked examples of docs/spec/keys.md §8: the page, an independent derivation, and the core agree.

Run as a program it prints the table of the page. Uses only `cryptography`, nothing of netchan, to derive.
"""

import re
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec" / "keys.md"
ROOT = bytes(range(32))
MIX = bytes(range(0xA0, 0xC0))
AAD = bytes.fromhex("0018000010")  # the header of wire.md §3 for five bytes of frames
PLAIN = b"hello"


def expand(prk: bytes, label: str, context: bytes = b"", n: int = 32) -> bytes:
    return HKDFExpand(SHA256(), n, b"netchan v1 " + label.encode() + context).derive(prk)


def master(root: bytes, direction: int) -> bytes:
    return expand(root, "master", bytes([direction]))


def next_master(before: bytes, epoch: int, mix: bytes = b"") -> bytes:
    return expand(before, "ku", epoch.to_bytes(4, "big") + mix)


def channel_key(of: bytes, direction: int, tag: int) -> bytes:
    return expand(of, "ch", bytes([direction]) + tag.to_bytes(8, "big"), 44)


def nonce(iv: bytes, path: int, number: int) -> bytes:
    return (int.from_bytes(iv, "big") ^ (path << 64 | number)).to_bytes(12, "big")


def examples() -> dict[str, bytes]:
    m0, m1 = master(ROOT, 0), master(ROOT, 1)
    control, stream = channel_key(m0, 0, 0), channel_key(m0, 0, 16)
    fourth = nonce(stream[32:], 2, 3)
    exporter = expand(ROOT, "exporter")
    return {
        "root": ROOT,
        "master[0, 0]": m0,
        "master[1, 0]": m1,
        "master[0, 1], empty mix": next_master(m0, 1),
        "mix": MIX,
        "master[0, 1], with mix": next_master(m0, 1, MIX),
        "ch[0, 0, tag 0] key": control[:32],
        "ch[0, 0, tag 0] iv": control[32:],
        "ch[0, 0, tag 16] key": stream[:32],
        "ch[0, 0, tag 16] iv": stream[32:],
        "ch[1, 0, tag 16] key": channel_key(m1, 1, 16)[:32],
        "hp[0]": expand(ROOT, "hp", b"\0"),
        "hp[1]": expand(ROOT, "hp", b"\1"),
        "exporter": exporter,
        "join": expand(ROOT, "join"),
        "resumption": expand(ROOT, "resumption"),
        "reset": expand(ROOT, "reset"),
        "export(example, 0102, 32)": expand(exporter, "export", b"\x07example\x02\x01\x02"),
        "nonce of tag 16, path 2, number 3": fourth,
        "associated data": AAD,
        "plaintext": PLAIN,
        "sealed, aes-256-gcm": AESGCM(stream[:32]).encrypt(fourth, PLAIN, AAD),
        "sealed, chacha20-poly1305": ChaCha20Poly1305(stream[:32]).encrypt(fourth, PLAIN, AAD),
    }


def rows() -> str:
    return "\n".join(f"| {name} | `{value.hex()}` |" for name, value in examples().items())


class TestWorkedExamples:
    """docs/spec/keys.md §8."""

    def test_page_shows_the_examples(self) -> None:
        shown = dict(re.findall(r"^\| ([^|]+) \| `([0-9a-f]+)` \|$", PAGE.read_text(), re.MULTILINE))
        assert shown == {name: value.hex() for name, value in examples().items()}

    def test_core_derives_the_examples(self) -> None:
        from netchan._core import _selftest_crypto as core
        from netchan._core import provider

        want = examples()
        for found in provider.available():
            for cipher in found.ciphers:
                store = core.Store(found, cipher)
                keys = core.Keys(store, bytearray(ROOT), 0)
                peer = core.Keys(store, bytearray(ROOT), 1)
                assert keys.masters()[0] == want["master[0, 0]"]
                assert keys.masters()[2] == want["master[1, 0]"]
                assert peer.masters()[0] == want["master[1, 0]"]
                assert peer.masters()[2] == want["master[0, 0]"]
                for which, name in enumerate(("hp[0]", "hp[1]", "exporter", "join", "resumption", "reset")):
                    assert keys.secret(which) == want[name]
                assert keys.export(b"example", b"\1\2", 32) == want["export(example, 0102, 32)"]
                assert [keys.path_add(n, 1) for n in (0, 1, 2)] == [0, 1, 2]
                assert keys.seal(2, 3, 16, PLAIN, AAD) == want[f"sealed, {cipher}"]
                assert keys.update() == 0
                assert keys.masters()[0] == want["master[0, 1], empty mix"]
                assert peer.mix_announced(1, MIX) == 0
                keys.close()
                keys = core.Keys(store, bytearray(ROOT), 0)
                assert keys.update(MIX) == 0
                assert keys.masters()[0] == want["master[0, 1], with mix"]

    def test_labels_are_prefix_free_under_each_secret(self) -> None:
        """No input of one derivation is the input of another one."""
        under_root = [b"master\0", b"master\1", b"hp\0", b"hp\1", b"exporter", b"join", b"resumption", b"reset"]
        assert not any(a != b and b.startswith(a) for a in under_root for b in under_root)
        assert not b"ku".startswith(b"ch")
        assert not b"ch".startswith(b"ku")


if __name__ == "__main__":
    print(rows())
