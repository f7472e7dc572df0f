"""The second implementation of docs/spec/handshake.md, §12: tickets and the handshake with one.

Written from that page alone, on top of second_handshake.py; it imports nothing of netchan. Every key, time and random
number is an argument. No table of used ids, no policy, no clock.
"""

import hmac
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, ChaCha20Poly1305

from tests.interop.second_handshake import (
    CAPS,
    CIPHERS,
    NO_NONCE,
    PARAMS,
    REQUIRED,
    VERSIONS,
    Items,
    Noise,
    Outcome,
    Refused,
    capabilities,
    close_frame,
    dh,
    expand,
    gate_key,
    header,
    hkdf,
    mac,
    outcome,
    public_of,
    read_items,
    read_params,
    sha,
    verdict_of,
    write_items,
)

RESUME, RESUMED, NO_TICKET = 7, 10, 11
LARGEST = {RESUME: 2048, RESUMED: 1024, NO_TICKET: 55}
MEMBERSHIP, PADDING, SINCE = 4, 0x14, 0x16


# ---------------------------------------------------------------------------------------------------- §12.1 the ticket
def secret_of(resumption: bytes, id16: bytes) -> bytes:
    """What a ticket of this session stands for."""
    return expand(resumption, b"netchan v1 ticket" + id16)


def bound(name: bytes, id16: bytes, giver: bytes, suite: int, network_id: bytes) -> bytes:
    return b"netchan ticket v1\0" + name + id16 + giver + bytes([suite, len(network_id)]) + network_id


def make_ticket(
    key: bytes, name: bytes, id16: bytes, place: tuple[bytes, int, bytes], secret: bytes, issued_ms: int,
    caps: list[int], record: bytes,
) -> bytes:  # fmt: skip
    """place: the giver's id_pub, suite and network id."""
    content = secret + issued_ms.to_bytes(8, "big") + bytes([len(caps)])
    content += b"".join(cap.to_bytes(2, "big") for cap in caps) + record
    return name + id16 + AESGCMSIV(key).encrypt(id16[:12], content, bound(name, id16, *place))


def read_ticket(key: bytes, ticket: bytes, place: tuple[bytes, int, bytes]) -> tuple[bytes, int, list[int], bytes]:
    """(secret, issued, capabilities, record)."""
    name, id16 = ticket[:8], ticket[8:24]
    try:
        content = AESGCMSIV(key).decrypt(id16[:12], ticket[24:], bound(name, id16, *place))
    except InvalidTag as error:
        raise Refused("NO_TICKET") from error
    end = 41 + 2 * content[40]
    return content[:32], int.from_bytes(content[32:40], "big"), capabilities(content[41:end]), content[end:]


# ---------------------------------------------------------------------------------------------------- §12.6 as stored
def mark_of(psk: bytes) -> bytes:
    return hkdf(psk, "netchan ticket psk v1", b"")[:16] if psk else bytes(16)


def store(
    seed: bytes, suite: int, received_ms: int, life_s: int, psk: bytes, secret: bytes, network_id: bytes,
    caps: list[int], record: bytes, membership: bytes, ticket: bytes,
) -> bytes:  # fmt: skip
    """What the initiator may write to a disk."""
    content = bytes([suite]) + received_ms.to_bytes(8, "big") + life_s.to_bytes(4, "big") + mark_of(psk) + secret
    content += bytes([len(network_id), len(caps), len(record)])
    content += len(membership).to_bytes(2, "big") + len(ticket).to_bytes(2, "big") + network_id
    content += b"".join(cap.to_bytes(2, "big") for cap in caps) + record + membership + ticket
    prefix = b"\x01" + ticket[8:24]
    key = hkdf(seed, "netchan ticket store v1", ticket[8:24])
    return prefix + ChaCha20Poly1305(key).encrypt(NO_NONCE, content, prefix)


# ---------------------------------------------------------------------------------------------------- §12.3 Noise
def check_frame(frame: bytes, kind: int, gate: bytes) -> bytes:
    """The body of a frame of this kind."""
    if not 55 <= len(frame) <= LARGEST[kind] or frame[0] != kind or int.from_bytes(frame[2:4], "big") != len(frame):
        raise Refused("PROTOCOL")
    if frame[5] or not hmac.compare_digest(mac(gate, frame[:-32])[:16], frame[-32:-16]):
        raise Refused("PROTOCOL")
    return frame[22:-32]


def begin(head: bytes, network_id: bytes, psk: bytes, responder_id: bytes, secret: bytes, ticket: bytes) -> Noise:
    """After the prologue and the token psk of NNpsk0."""
    h = sha(b"Noise_NNpsk0_25519_ChaChaPoly_SHA256")
    noise = Noise(ck=h, h=h)
    prologue = b"netchan/handshake/v1\0" + head
    for part in (network_id, b"NN-ticket", responder_id):
        prologue += bytes([len(part)]) + part
    noise.mix_hash(prologue + len(ticket).to_bytes(2, "big") + ticket)
    psk0 = hkdf(psk, "netchan psk0 v1", network_id) if psk else bytes(32)
    noise.mix_psk(hkdf(secret + psk0, "netchan resume v1", b""))
    return noise


def statement(found: dict[int, bytes], up: bool) -> None:
    """The items that must and may stand."""
    needed = {VERSIONS, CIPHERS, CAPS, PARAMS} | ({SINCE} if up else set())
    may = {REQUIRED, PADDING} | ({MEMBERSHIP} if up else set())
    if needed - found.keys() or {kind for kind in found if kind < 0x4000} - needed - may:
        raise Refused("PARAMETER")
    read_params(found[PARAMS])


def since(age_ms: int, replaces: bool) -> tuple[int, bytes]:
    """The item SINCE."""
    return SINCE, age_ms.to_bytes(8, "big") + bytes([replaces])


def ended(noise: Noise, verdict: bytes, peer_id: bytes) -> Outcome:
    return outcome(noise, mac(b"netchan v1", noise.ck), verdict, peer_id)


@dataclass
class Initiator:
    """The dialling side: resume, resumed."""

    ephemeral: bytes
    named: bool
    suite: int
    network_id: bytes
    psk: bytes
    scid: bytes
    ts: int
    responder_id: bytes
    secret: bytes
    ticket: bytes
    noise: Noise = field(default_factory=lambda: Noise(b"", b""))
    said: Items = field(default_factory=list)

    def gate(self, to_initiator: bool) -> bytes:
        return gate_key(self.psk, self.responder_id, self.network_id, int(self.named), to_initiator)

    def resume(self, items: Items) -> bytes:
        self.said = items
        payload = write_items(items)
        lead = len(self.ticket).to_bytes(2, "big") + self.ticket
        head = header(RESUME, len(lead) + 32 + len(payload) + 16, int(self.named), self.suite, self.scid, self.ts)
        n = self.noise = begin(head, self.network_id, self.psk, self.responder_id, self.secret, self.ticket)
        message = public_of(self.ephemeral)
        n.mix_ephemeral(message)
        return close_frame(head, lead + message + n.seal(payload), self.gate(False))

    def resumed(self, frame: bytes) -> Outcome:
        body = check_frame(frame, RESUMED, self.gate(True))
        remote = body[:32]
        self.noise.mix_ephemeral(remote)
        self.noise.mix_key(dh(self.ephemeral, remote))
        found = read_items(self.noise.open(body[32:]))
        statement(found, up=False)
        return ended(self.noise, verdict_of(dict(self.said), found), self.responder_id)


@dataclass
class Responder:
    """The side that gave the ticket: answer."""

    ephemeral: bytes
    responder_id: bytes
    suite: int
    network_id: bytes
    psk: bytes
    key: bytes
    now_ms: int
    noise: Noise = field(default_factory=lambda: Noise(b"", b""))

    def gate(self, mode: int, to_initiator: bool) -> bytes:
        return gate_key(self.psk, self.responder_id, self.network_id, mode, to_initiator)

    def answer(self, frame: bytes, items: Items) -> tuple[bytes, Outcome]:
        mode, ts = frame[4] >> 4, int.from_bytes(frame[14:22], "big")
        body = check_frame(frame, RESUME, self.gate(mode, False))
        end = 2 + int.from_bytes(body[:2], "big")
        ticket, message = body[2:end], body[end:]
        place = (self.responder_id, self.suite, self.network_id)
        secret, issued_ms, caps, record = read_ticket(self.key, ticket, place)
        n = self.noise = begin(frame[:22], self.network_id, self.psk, self.responder_id, secret, ticket)
        remote = message[:32]
        n.mix_ephemeral(remote)
        found = read_items(n.open(message[32:]))
        statement(found, up=True)
        if abs(self.now_ms - issued_ms - int.from_bytes(found[SINCE][:8], "big")) > 30_000 or found[SINCE][8] > 1:
            raise Refused("NO_TICKET")
        verdict = verdict_of(found, dict(items))
        if capabilities(read_items(verdict[2:])[CAPS]) != caps:
            raise Refused("NO_TICKET")
        said = public_of(self.ephemeral)
        n.mix_ephemeral(said)
        n.mix_key(dh(self.ephemeral, remote))
        said += n.seal(write_items(items))
        head = header(RESUMED, len(said), mode, self.suite, frame[6:14], ts)
        return close_frame(head, said, self.gate(mode, True)), ended(n, verdict, record[1:33])
