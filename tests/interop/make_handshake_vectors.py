"""Write tests/interop/vectors/handshake.json with the second implementation (run from the root of the repository).

    python -m tests.interop.make_handshake_vectors          # write the file again
    python -m tests.interop.make_handshake_vectors --check  # exit 1 if the file differs from what would be written

Every input is the SHA-256 of its own name, so the file is a function of this program, with one exception: the library
has no ML-KEM encapsulation with chosen randomness. The ciphertext and the shared secret are therefore inputs; they are
taken over from the file in place if it has them for the same encapsulation key, else made fresh, once.
A change of the file is a change of the protocol: it belongs in the same commit as the page that demands it.

Layout: a list of cases. Bytes are lower-case hex, items are [type, hex] in the order of the payload; LIVE_SIG items
hold the signature. `first_hello`, `cookie_frame`, `cookie_secret` and `address` stand in the case with a cookie only;
there `initiator.first_*` are the keys of the first HELLO.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.interop import second_handshake as second

FILE = Path(__file__).resolve().parent / "vectors" / "handshake.json"
NOW = 1_790_000_000
ISSUED = NOW - 1_000
NETWORK, OTHER_NETWORK = b"lab", b""
PSK = sha256(b"psk").digest() + b"more than 32 bytes"
ADDRESS = "192.0.2.7:40000"

INITIATOR_PARAMS = [(0x02, 1400), (0x14, 120), (0x16, 30), (0x18, 4), (0x1A, 1), (0x1C, 1)]
RESPONDER_PARAMS = [(0x04, 16384), (0x14, 600), (0x18, 16), (0x1A, 1)]


def made(name: str, size: int = 32) -> bytes:
    """Bytes that are a function of their name."""
    return (sha256(name.encode() + b" 1").digest() + sha256(name.encode() + b" 2").digest())[:size]


def statement(record: bytes, ciphers: bytes, caps: list[int], params: list[tuple[int, int]]) -> second.Items:
    """The items that REPLY and FINISH must have."""
    return [
        (second.RECORD, record),
        (second.VERSIONS, b"\x01"),
        (second.CIPHERS, ciphers),
        (second.CAPS, b"".join(c.to_bytes(2, "big") for c in caps)),
        (second.PARAMS, second.write_items([(kind, second.varint(value)) for kind, value in params])),
    ]


class Recorded:
    """Encapsulation whose results are looked up in the file in place."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = json.loads(FILE.read_text())["encapsulations"] if FILE.exists() else {}
        self.used: dict[str, list[str]] = {}

    def __call__(self, public: bytes) -> tuple[bytes, bytes]:
        """(ciphertext, shared secret) for this key."""
        name = sha256(public).hexdigest()
        if name not in self.known:
            self.known[name] = [part.hex() for part in second.encapsulate(public)]
        self.used[name] = self.known[name]
        ciphertext, shared = (bytes.fromhex(part) for part in self.known[name])
        return ciphertext, shared


def case(name: str, mode: int, suite: int, psk: bytes, kem: Recorded, live: bool, cookie: bool) -> dict[str, Any]:
    """Run one handshake of the second implementation with itself and write down everything."""
    network = NETWORK if suite == 1 or psk else OTHER_NETWORK
    seeds = [made("initiator identity"), made("responder identity")]
    statics = [second.static_of(seed, ISSUED) for seed in seeds]
    records = [second.make_record(seed, ISSUED, ISSUED * 1000 + 7, 1 if suite == 1 else 2, network) for seed in seeds]
    initiator = second.Initiator(
        seed=seeds[0], static=statics[0], ephemeral=made(f"{name} initiator ephemeral"),
        kem_seed=made(f"{name} kem", 64), mode=mode, suite=suite, network_id=network, psk=psk,
        scid=made(f"{name} scid", 8), ts=NOW * 1000 + 5, now=NOW,
        responder_id=second.identity_of(seeds[1]) if mode else b"", responder_record=records[1] if mode == 2 else b"",
    )  # fmt: skip
    responder = second.Responder(
        seed=seeds[1], static=statics[1], ephemeral=made(f"{name} responder ephemeral"), record=records[1],
        encapsulate=kem, suite=suite, network_id=network, psk=psk, now=NOW,
    )  # fmt: skip
    hello_items: second.Items = [(second.KNOWN_SEQ, records[1][65:73])] if mode == 2 else []
    if psk:
        hello_items += [(0x4444, b"odd")]  # an unknown item, as senders add them
    reply_items = statement(records[1], b"\x01\x02" if suite == 1 else b"\x01", [1, 5, 900], RESPONDER_PARAMS)
    if mode == 2:
        reply_items = reply_items[1:]
    finish_items = statement(records[0], b"\x02\x01" if psk else b"\x01\x02", [1, 2, 900], INITIATOR_PARAMS)
    if mode == 1:
        reply_items.insert(4, (second.REQUIRED, b"\x00\x01"))
        finish_items += [(0x14, b"padding"), (0x7FFE, b"")]
    if live:
        at = 1 if mode != 2 else 0
        reply_items.insert(at, (second.LIVE_SIG, b""))
        finish_items.insert(1, (second.LIVE_SIG, b""))
    out: dict[str, Any] = {
        "name": name,
        "mode": mode,
        "suite": suite,
        "network_id": network.hex(),
        "psk": psk.hex(),
        "now": NOW,
    }
    first: dict[str, str] = {}
    if cookie:
        secret = made("cookie secret")
        first = {"first_ephemeral": initiator.ephemeral.hex(), "first_kem_seed": initiator.kem_seed.hex()}
        first["first_ts"] = f"{initiator.ts:016x}"
        first_hello = initiator.hello(hello_items)
        answer = responder.cookie_frame(first_hello, secret, ADDRESS)
        out |= {
            "cookie_secret": secret.hex(),
            "address": ADDRESS,
            "first_hello": first_hello.hex(),
            "cookie_frame": answer.hex(),
        }
        initiator.cookie = initiator.cookie_from(answer)
        initiator.ephemeral, initiator.kem_seed = made(f"{name} second ephemeral"), made(f"{name} second kem", 64)
        initiator.ts += 250
    hello = initiator.hello(hello_items)
    reply = responder.reply(hello, reply_items, initiator.cookie)
    finish = initiator.finish(reply, finish_items)
    accept, result = responder.accept(finish)
    assert initiator.established(accept) == second.Outcome(
        result.root, result.h, second.identity_of(seeds[1]), result.verdict
    )
    assert initiator.noise.ck == responder.noise.ck
    out |= {
        "scid": initiator.scid.hex(),
        "ts": f"{initiator.ts:016x}",
        "initiator": {
            "identity_seed": seeds[0].hex(),
            "static": statics[0].hex(),
            "static_unix_s": ISSUED,
            "record": records[0].hex(),
            "ephemeral": initiator.ephemeral.hex(),
            "kem_seed": initiator.kem_seed.hex() if suite == 1 else "",
            **first,
        },
        "responder": {
            "identity_seed": seeds[1].hex(),
            "id_pub": second.identity_of(seeds[1]).hex(),
            "static": statics[1].hex(),
            "static_unix_s": ISSUED,
            "record": records[1].hex(),
            "ephemeral": responder.ephemeral.hex(),
        },
        "hello_items": [[kind, value.hex()] for kind, value in hello_items],
        "reply_items": [[kind, value.hex()] for kind, value in responder.said],
        "finish_items": [[kind, value.hex()] for kind, value in initiator.said],
        "gate_to_responder": initiator.gate(to_initiator=False).hex(),
        "gate_to_initiator": initiator.gate(to_initiator=True).hex(),
        "hello": hello.hex(),
        "reply": reply.hex(),
        "finish": finish.hex(),
        "accept": accept.hex(),
        "verdict": result.verdict.hex(),
        "ck": initiator.noise.ck.hex(),
        "k_accept": second.accept_key(initiator.noise)[1].hex(),
        "h": result.h.hex(),
        "root": result.root.hex(),
    }
    return out


def build() -> str:
    """The text of the file."""
    kem = Recorded()
    cases = [
        case(f"{label} suite {suite}{' psk' if psk else ''}", mode, suite, psk, kem, live=False, cookie=False)
        for mode, label in enumerate(second.LABELS)
        for suite in (1, 2)
        for psk in (b"", PSK)
    ]
    cases.append(case("XX-named suite 1 live", 1, 1, b"", kem, live=True, cookie=False))
    cases.append(case("XK suite 1 psk cookie", 2, 1, PSK, kem, live=False, cookie=True))
    whole = {"page": "docs/spec/handshake.md", "version": 1, "encapsulations": kem.used, "cases": cases}
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FILE.exists() and FILE.read_text() == text else f"{FILE.name} is not what this program writes")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
