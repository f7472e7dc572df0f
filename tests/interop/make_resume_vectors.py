"""Write tests/interop/vectors/resume.json with the second implementation (run from the root of the repository).

    python -m tests.interop.make_resume_vectors          # write the file again
    python -m tests.interop.make_resume_vectors --check  # exit 1 if the file differs from what would be written

Every input is the SHA-256 of its own name, as in make_handshake_vectors.py, so the file is a function of this program.
A change of the file is a change of the protocol: it belongs in the same commit as the page that demands it.

Layout: a list of cases. Bytes are lower-case hex, items are [type, hex] in the order of the payload. `issued_ms` and
`now_ms` are of the responder's monotonic clock, `received_ms` and `sent_ms` of the initiator's wall clock.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.interop import second_handshake as second
from tests.interop import second_resume as resume
from tests.interop.make_handshake_vectors import (
    INITIATOR_PARAMS,
    ISSUED,
    NETWORK,
    NOW,
    OTHER_NETWORK,
    PSK,
    RESPONDER_PARAMS,
    made,
    statement,
)

FILE = Path(__file__).resolve().parent / "vectors" / "resume.json"
CAPS = [1, 5, 900]
LIFE_S = 80_000


def case(name: str, named: bool, suite: int, psk: bytes, more: bool) -> dict[str, Any]:
    """One session by ticket of the second implementation with itself; more: the items that need not stand."""
    network = NETWORK if suite == 1 or psk else OTHER_NETWORK
    seeds = [made("initiator identity"), made("responder identity")]
    ids = [second.identity_of(seed) for seed in seeds]
    records = [second.make_record(seed, ISSUED, ISSUED * 1000 + 7, 1 if suite == 1 else 2, network) for seed in seeds]
    key, key_name, id16 = made(f"{name} ticket key"), made(f"{name} key name", 8), made(f"{name} id", 16)
    secret = resume.secret_of(made(f"{name} resumption"), id16)
    issued_ms, age_ms = 123_456, 3_600_000
    ticket = resume.make_ticket(key, key_name, id16, (ids[1], suite, network), secret, issued_ms, CAPS, records[0])
    member = b"membership of the dialler" if more else b""
    stored = resume.store(
        seeds[0], suite, NOW * 1000 - age_ms, LIFE_S, psk, secret, network, CAPS, records[1], member, ticket
    )
    asked = statement(b"", b"\x02\x01" if psk else b"\x01\x02", CAPS, INITIATOR_PARAMS)[1:]
    given = statement(b"", b"\x01\x02" if suite == 1 else b"\x01", [*CAPS, 901], RESPONDER_PARAMS)[1:]
    asked.append(resume.since(age_ms, replaces=more))
    if more:
        asked.insert(0, (resume.MEMBERSHIP, member))
        asked.append((0x4444, b"odd"))
        given.insert(3, (second.REQUIRED, b"\x00\x01"))
    initiator = resume.Initiator(
        made(f"{name} initiator ephemeral"), named, suite, network, psk, made(f"{name} scid", 8), NOW * 1000, ids[1],
        secret, ticket,
    )  # fmt: skip
    responder = resume.Responder(
        made(f"{name} responder ephemeral"), ids[1], suite, network, psk, key, issued_ms + age_ms + 20
    )
    frame = initiator.resume(asked)
    answer, result = responder.answer(frame, given)
    assert initiator.resumed(answer) == second.Outcome(result.root, result.h, ids[1], result.verdict)
    assert result.peer_id == ids[0]
    return {
        "name": name,
        "named": named,
        "suite": suite,
        "network_id": network.hex(),
        "psk": psk.hex(),
        "scid": initiator.scid.hex(),
        "identity_seeds": [seed.hex() for seed in seeds],
        "records": [record.hex() for record in records],
        "record_unix_s": ISSUED,
        "ticket_key": key.hex(),
        "ticket_key_name": key_name.hex(),
        "ticket_id": id16.hex(),
        "resumption": made(f"{name} resumption").hex(),
        "secret": secret.hex(),
        "issued_ms": issued_ms,
        "now_ms": responder.now_ms,
        "received_ms": NOW * 1000 - age_ms,
        "sent_ms": NOW * 1000,
        "life_s": LIFE_S,
        "caps": CAPS,
        "membership": member.hex(),
        "replaces": more,
        "ticket": ticket.hex(),
        "stored": stored.hex(),
        "ephemerals": [initiator.ephemeral.hex(), responder.ephemeral.hex()],
        "resume_items": [[kind, value.hex()] for kind, value in asked],
        "resumed_items": [[kind, value.hex()] for kind, value in given],
        "resume": frame.hex(),
        "resumed": answer.hex(),
        "verdict": result.verdict.hex(),
        "ck": responder.noise.ck.hex(),
        "h": result.h.hex(),
        "root": result.root.hex(),
    }


def build() -> str:
    """The text of the file."""
    cases = [
        case(f"{'named' if named else 'open'} suite {suite}{' psk' if psk else ''}", named, suite, psk, more=False)
        for named in (True, False)
        for suite in (1, 2)
        for psk in (b"", PSK)
    ]
    cases.append(case("named suite 1 psk, all items", True, 1, PSK, more=True))
    return json.dumps({"page": "docs/spec/handshake.md", "version": 1, "cases": cases}, indent=1) + "\n"


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FILE.exists() and FILE.read_text() == text else f"{FILE.name} is not what this program writes")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
