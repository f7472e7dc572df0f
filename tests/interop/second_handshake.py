"""A second implementation of docs/spec/handshake.md, written from that page alone, for tests only.

It shares no line with netchan and imports nothing of it. It reads from top to bottom like the page: primitives (§1.1),
records (§1.3), frames and gate (§2, §5), Noise (§3), payloads (§3.4), verdict (§4), and the two sides. Every key and
random number is an argument, so a run is a function of its inputs. It keeps no secret safe and no clock: one handshake,
no trust policy, no cookies of its own making except by `cookie_frame`.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

HELLO, REPLY, FINISH, COOKIE, CLOSE, ACCEPT = 1, 2, 3, 4, 8, 9
LARGEST = {HELLO: 2048, REPLY: 4096, FINISH: 4096, COOKIE: 70, CLOSE: 56, ACCEPT: 1024}
LABELS = ["XX-open", "XX-named", "XK"]
RECORD, LIVE_SIG, VERSIONS, CIPHERS, CAPS, REQUIRED, PARAMS, KNOWN_SEQ = 2, 6, 8, 10, 12, 14, 16, 18
NO_NONCE = bytes(12)
Items = list[tuple[int, bytes]]


class Refused(Exception):
    """What the page refuses; the text is the name of the code in §8, or "silence" for §5.2 1-4."""


# ---------------------------------------------------------------------------------------------------- §1.1 primitives
def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def expand(prk: bytes, info: bytes, n: int = 32) -> bytes:
    out, block = b"", b""
    while len(out) < n:
        block = mac(prk, block + info + bytes([len(out) // 32 + 1]))
        out += block
    return out[:n]


def hkdf(ikm: bytes, label: str, info: bytes) -> bytes:
    return expand(mac(label.encode(), ikm), info)


def dh(private: bytes, public: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # the all-zero result
        raise Refused("CRYPTO") from error


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def identity_of(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, data: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(data)


def verify(public: bytes, signature: bytes, data: bytes, code: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature as error:
        raise Refused(code) from error


def static_of(seed: bytes, unix_s: int) -> bytes:
    """The X25519 private key of the period that holds this time."""
    return hkdf(seed, "netchan static v1", (unix_s // 2_592_000).to_bytes(8, "big"))


# ---------------------------------------------------------------------------------------------------- §1.3 record
def make_record(seed: bytes, issued: int, seq: int, caps: int, network_id: bytes) -> bytes:
    body = b"\x01" + identity_of(seed) + public_of(static_of(seed, issued))
    body += seq.to_bytes(8, "big") + (issued - 3600).to_bytes(8, "big") + (issued + 7 * 86_400).to_bytes(8, "big")
    body += caps.to_bytes(8, "big") + bytes([len(network_id)]) + network_id
    return body + sign(seed, b"netchan/record/v1\0" + body)


def read_record(record: bytes, network_id: bytes, now: int) -> tuple[bytes, bytes, int]:
    """(id_pub, static_pub, seq) of a record that holds now; checks in the order of the page."""
    if not 162 <= len(record) <= 226 or record[0] != 1 or record[97] > 64 or len(record) != 162 + record[97]:
        raise Refused("RECORD")
    before, after = int.from_bytes(record[73:81], "big"), int.from_bytes(record[81:89], "big")
    if not before < after <= before + 31 * 86_400 or record[98:-64] != network_id:
        raise Refused("RECORD")
    verify(record[1:33], record[-64:], b"netchan/record/v1\0" + record[:-64], "RECORD")
    if not before <= now <= after:
        raise Refused("EXPIRED")
    return record[1:33], record[33:65], int.from_bytes(record[65:73], "big")


# ---------------------------------------------------------------------------------------------------- §5.1, §2 frames
def gate_key(psk: bytes, responder_id: bytes, network_id: bytes, mode: int, to_initiator: bool) -> bytes:
    direction, net = bytes([2 if to_initiator else 1]), bytes([len(network_id)]) + network_id
    if psk:
        return hkdf(psk, "netchan gate v1", net + direction)
    if mode:
        return hkdf(responder_id, "netchan gate open v1", net + direction)
    return hkdf(network_id, "netchan gate tofu v1", direction)


def header(kind: int, body: int, mode: int, suite: int, scid: bytes, ts: int) -> bytes:
    """The 22 bytes before the body; `body` is its length."""
    return (
        bytes([kind, 1]) + (22 + body + 32).to_bytes(2, "big") + bytes([mode << 4 | suite, 0]) + scid
        + ts.to_bytes(8, "big")
    )  # fmt: skip


def close_frame(head: bytes, body: bytes, gate: bytes, cookie: bytes = b"") -> bytes:
    frame = head + body
    frame += mac(gate, frame)[:16]
    return frame + (mac(cookie, frame)[:16] if cookie else bytes(16))


def check_frame(frame: bytes, kind: int, gate: bytes) -> bytes:
    """The body of a frame of this kind; length, frag and mac1 are checked."""
    if not 55 <= len(frame) <= LARGEST[kind] or frame[0] != kind or int.from_bytes(frame[2:4], "big") != len(frame):
        raise Refused("silence" if kind == HELLO else "PROTOCOL")
    if frame[5] or not hmac.compare_digest(mac(gate, frame[:-32])[:16], frame[-32:-16]):
        raise Refused("silence" if kind == HELLO else "PROTOCOL")
    if kind != HELLO and any(frame[-16:]):
        raise Refused("PROTOCOL")
    return frame[22:-32]


def cookie_of(secret: bytes, address: str, scid: bytes) -> bytes:
    return mac(secret, bytes([len(address)]) + address.encode() + scid)[:16]


# ---------------------------------------------------------------------------------------------------- §3 Noise
@dataclass
class Noise:
    """Chaining key, hash and cipher of Noise; no Split, because the page replaces it by §4."""

    ck: bytes
    h: bytes
    key: bytes = b""
    count: int = 0

    def mix_hash(self, data: bytes) -> None:
        self.h = sha(self.h + data)

    def mix_key(self, ikm: bytes) -> None:
        prk = mac(self.ck, ikm)
        self.ck = mac(prk, b"\x01")
        self.key, self.count = mac(prk, self.ck + b"\x02"), 0

    def mix_psk(self, psk: bytes) -> None:
        prk = mac(self.ck, psk)
        self.ck = mac(prk, b"\x01")
        middle = mac(prk, self.ck + b"\x02")
        self.mix_hash(middle)
        self.key, self.count = mac(prk, middle + b"\x03"), 0

    def mix_ephemeral(self, public: bytes) -> None:
        self.mix_hash(public)
        self.mix_key(public)

    def seal(self, plain: bytes) -> bytes:
        nonce = bytes(4) + self.count.to_bytes(8, "little")
        sealed = ChaCha20Poly1305(self.key).encrypt(nonce, plain, self.h)
        self.count += 1
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        nonce = bytes(4) + self.count.to_bytes(8, "little")
        try:
            plain = ChaCha20Poly1305(self.key).decrypt(nonce, sealed, self.h)
        except InvalidTag as error:
            raise Refused("CRYPTO") from error
        self.count += 1
        self.mix_hash(sealed)
        return plain


def begin(head: bytes, network_id: bytes, psk: bytes, responder_id: bytes, responder_static: bytes) -> Noise:
    """After the prologue, the pre-message of XK and the token `psk`."""
    mode, suite = head[4] >> 4, head[4] & 15
    pattern = "XK" if mode == 2 else "XX"
    name = {
        1: f"Noise_{pattern}hfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256",
        2: f"Noise_{pattern}psk0_25519_ChaChaPoly_SHA256",
    }[suite]
    h = sha(name.encode())  # all four names are longer than 32 bytes
    noise = Noise(ck=h, h=h)
    named = responder_id if mode else b""
    prologue = b"netchan/handshake/v1\0" + head
    for part in (network_id, LABELS[mode].encode(), named):
        prologue += bytes([len(part)]) + part
    noise.mix_hash(prologue)
    if mode == 2:
        noise.mix_hash(responder_static)
    noise.mix_psk(hkdf(psk, "netchan psk0 v1", network_id) if psk else bytes(32))
    return noise


# ---------------------------------------------------------------------------------------------------- §3.4 payloads
def varint(n: int) -> bytes:
    for log, limit in enumerate((1 << 6, 1 << 14, 1 << 30, 1 << 62)):
        if n < limit:
            size = 1 << log
            return (n | log << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(n)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    size = 1 << (data[at] >> 6) if at < len(data) else 1
    raw = data[at : at + size]
    value = int.from_bytes(raw, "big") & ((1 << (8 * size - 2)) - 1)
    if len(raw) != size or varint(value) != raw:
        raise Refused("PARAMETER")
    return value, at + size


def write_items(items: Items) -> bytes:
    return b"".join(varint(kind) + varint(len(value)) + value for kind, value in items)


def read_items(data: bytes) -> dict[int, bytes]:
    if len(data) > 3072:
        raise Refused("PARAMETER")
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, at = read_varint(data, at)
        size, at = read_varint(data, at)
        if at + size > len(data) or kind <= max(found, default=-1) or kind % 2 or len(found) == 64:
            raise Refused("PARAMETER")
        found[kind], at = data[at : at + size], at + size
    return found


RANGES = {
    0x02: (1200, 65527), 0x04: (1024, 65535), 0x06: (0, 10**6), 0x08: (1024, 2**30), 0x0A: (0, 2**20), 0x0C: (0, 2**30),
    0x0E: (0, 2**30), 0x10: (1, 2**40), 0x12: (65536, 2**40), 0x14: (0, 2**31), 0x16: (0, 2**31), 0x18: (1, 64),
    0x1A: (0, 1), 0x1C: (0, 1), 0x1E: (0, 1),
}  # fmt: skip
COMBINED_DEFAULTS = {0x14: 300, 0x16: 0, 0x18: 8, 0x1A: 0, 0x1C: 0, 0x1E: 0}


def read_params(data: bytes) -> dict[int, int]:
    found = {}
    for kind, value in read_items(data).items():
        if kind in RANGES:
            number, end = read_varint(value, 0)
            if end != len(value) or not RANGES[kind][0] <= number <= RANGES[kind][1]:
                raise Refused("PARAMETER")
            found[kind] = number
    return found


def check_statement(found: dict[int, bytes], record_needed: bool) -> None:
    """A payload of REPLY or FINISH: all items that must stand, and their sizes."""
    needed = {VERSIONS, CIPHERS, CAPS, PARAMS} | ({RECORD} if record_needed else set())
    if needed - found.keys() or KNOWN_SEQ in found or len(found.get(LIVE_SIG, bytes(64))) != 64:
        raise Refused("PARAMETER")
    versions, ciphers = found[VERSIONS], found[CIPHERS]
    if not 1 <= len(versions) <= 16 or sorted(set(versions)) != list(versions):
        raise Refused("PARAMETER")
    if not 1 <= len(ciphers) <= 8 or len(set(ciphers)) != len(ciphers):
        raise Refused("PARAMETER")
    for kind in (CAPS, REQUIRED):
        numbers = capabilities(found.get(kind, b""))
        if len(found.get(kind, b"")) % 2 or len(numbers) > 64 or sorted(set(numbers)) != numbers:
            raise Refused("PARAMETER")
    read_params(found[PARAMS])


def capabilities(value: bytes) -> list[int]:
    return [int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2)]


def with_live(items: Items, seed: bytes, role: int, h: bytes) -> Items:
    """An empty LIVE_SIG in the list stands for the signature, which needs h."""
    text = b"netchan/live/v1\0" + bytes([role]) + h
    return [(kind, sign(seed, text) if kind == LIVE_SIG else value) for kind, value in items]


def check_live(found: dict[int, bytes], id_pub: bytes, role: int, h: bytes) -> None:
    if LIVE_SIG in found:
        verify(id_pub, found[LIVE_SIG], b"netchan/live/v1\0" + bytes([role]) + h, "LIVE")


# ---------------------------------------------------------------------------------------------------- §4 verdict
def verdict_of(initiator: dict[int, bytes], responder: dict[int, bytes]) -> bytes:
    """What both sides compute for code 0 from the items of FINISH and REPLY."""
    both = [c for c in responder[CIPHERS] if c in initiator[CIPHERS] and c in (1, 2)]
    if max(set(initiator[VERSIONS]) & set(responder[VERSIONS]), default=0) > 1:
        raise Refused("VERSION")
    i_caps, r_caps = capabilities(initiator[CAPS]), capabilities(responder[CAPS])
    i_needs, r_needs = capabilities(initiator.get(REQUIRED, b"")), capabilities(responder.get(REQUIRED, b""))
    if not both or set(i_needs) - set(r_caps) or set(r_needs) - set(i_caps):
        raise Refused("CAPABILITY")
    if 2 in both and 2 in (initiator[CIPHERS][0], responder[CIPHERS][0]):
        cipher = 2
    else:
        cipher = both[0]
    ours = COMBINED_DEFAULTS | read_params(initiator[PARAMS])
    theirs = COMBINED_DEFAULTS | read_params(responder[PARAMS])
    combined = {kind: min(ours[kind], theirs[kind]) for kind in COMBINED_DEFAULTS}
    combined[0x16] = min((t for t in (ours[0x16], theirs[0x16]) if t), default=0)
    caps = b"".join(c.to_bytes(2, "big") for c in i_caps if c in r_caps)
    params = write_items([(kind, varint(value)) for kind, value in combined.items()])
    return bytes(2) + write_items([(CIPHERS, bytes([cipher])), (CAPS, caps), (PARAMS, params)])


@dataclass
class Outcome:
    root: bytes
    h: bytes
    peer_id: bytes
    verdict: bytes


def accept_key(noise: Noise) -> tuple[bytes, bytes]:
    prk = mac(b"netchan v1", noise.ck)
    return prk, expand(prk, b"netchan accept v1" + noise.h)


def outcome(noise: Noise, prk: bytes, verdict: bytes, peer_id: bytes) -> Outcome:
    return Outcome(expand(prk, b"netchan root v1" + noise.h + sha(verdict)), noise.h, peer_id, verdict)


# ---------------------------------------------------------------------------------------------------- the two sides
@dataclass
class Initiator:
    """One handshake of the dialling side: hello, finish, established, in this order."""

    seed: bytes
    static: bytes
    ephemeral: bytes
    kem_seed: bytes
    mode: int
    suite: int
    network_id: bytes
    psk: bytes
    scid: bytes
    ts: int
    now: int
    responder_id: bytes = b""  # modes 1 and 2
    responder_record: bytes = b""  # mode 2
    cookie: bytes = b""
    noise: Noise = field(default_factory=lambda: Noise(b"", b""))
    said: Items = field(default_factory=list)
    heard: dict[int, bytes] = field(default_factory=dict)
    peer_id: bytes = b""

    def gate(self, to_initiator: bool) -> bytes:
        return gate_key(self.psk, self.responder_id, self.network_id, self.mode, to_initiator)

    def head(self, kind: int, body: int) -> bytes:
        return header(kind, body, self.mode, self.suite, self.scid, self.ts)

    def hello(self, items: Items) -> bytes:
        payload = write_items(items)
        body = 32 + (1184 + 16 if self.suite == 1 else 0) + len(payload) + 16
        head = self.head(HELLO, body)
        n = self.noise = begin(head, self.network_id, self.psk, self.responder_id, self.responder_record[33:65])
        message = public_of(self.ephemeral)
        n.mix_ephemeral(message)
        if self.mode == 2:
            n.mix_key(dh(self.ephemeral, self.responder_record[33:65]))
        if self.suite == 1:
            kem = MLKEM768PrivateKey.from_seed_bytes(self.kem_seed)
            message += n.seal(kem.public_key().public_bytes_raw())
        message += n.seal(payload)
        return close_frame(head, message, self.gate(False), self.cookie)

    def cookie_from(self, frame: bytes) -> bytes:
        body = check_frame(frame, COOKIE, self.gate(True))
        self.check_repeated(frame)
        if len(body) != 16:
            raise Refused("PROTOCOL")
        return body

    def check_repeated(self, frame: bytes) -> None:
        if frame[1] != 1 or frame[4:5] + frame[6:22] != self.head(0, 0)[4:5] + self.head(0, 0)[6:22]:
            raise Refused("PROTOCOL")

    def finish(self, reply: bytes, items: Items) -> bytes:
        body = check_frame(reply, REPLY, self.gate(True))
        self.check_repeated(reply)
        n, at = self.noise, 32
        remote = body[:32]
        n.mix_ephemeral(remote)
        n.mix_key(dh(self.ephemeral, remote))
        if self.suite == 1:
            ciphertext = n.open(body[at : at + 1088 + 16])
            n.mix_key(MLKEM768PrivateKey.from_seed_bytes(self.kem_seed).decapsulate(ciphertext))
            at += 1088 + 16
        if self.mode == 2:
            static = self.responder_record[33:65]
        else:
            static = n.open(body[at : at + 48])
            at += 48
            n.mix_key(dh(self.ephemeral, static))
        before = n.h
        found = self.heard = read_items(n.open(body[at:]))
        check_statement(found, record_needed=self.mode != 2)
        if RECORD in found:
            self.peer_id, stated, _ = read_record(found[RECORD], self.network_id, self.now)
        else:
            self.peer_id, stated, _ = read_record(self.responder_record, self.network_id, self.now)
        if stated != static and self.mode != 2:  # §6: in XK the static of a record that replaces may be a newer one
            raise Refused("RECORD")
        check_live(found, self.peer_id, 2, before)
        if self.responder_id and self.peer_id != self.responder_id:
            raise Refused("WRONG_ID")
        # message 3: s, se
        message = n.seal(public_of(self.static))
        n.mix_key(dh(self.static, remote))
        self.said = with_live(items, self.seed, 1, n.h)
        message += n.seal(write_items(self.said))
        return close_frame(self.head(FINISH, len(message)), message, self.gate(False))

    def established(self, accept: bytes) -> Outcome:
        body = check_frame(accept, ACCEPT, self.gate(True))
        self.check_repeated(accept)
        prk, key = accept_key(self.noise)
        try:
            verdict = ChaCha20Poly1305(key).decrypt(NO_NONCE, body, accept[:22] + self.noise.h)
        except InvalidTag as error:
            raise Refused("CRYPTO") from error
        if verdict != verdict_of(dict(self.said), self.heard):
            raise Refused("PARAMETER")
        return outcome(self.noise, prk, verdict, self.peer_id)


@dataclass
class Responder:
    """One handshake of the listening side: reply, accept, in this order."""

    seed: bytes
    static: bytes
    ephemeral: bytes
    record: bytes
    encapsulate: Callable[[bytes], tuple[bytes, bytes]]  # encapsulation key -> ciphertext, shared secret
    suite: int
    network_id: bytes
    psk: bytes
    now: int
    noise: Noise = field(default_factory=lambda: Noise(b"", b""))
    hello: bytes = b""
    remote: bytes = b""
    said: Items = field(default_factory=list)

    def gate(self, to_initiator: bool) -> bytes:
        return gate_key(self.psk, identity_of(self.seed), self.network_id, self.hello[4] >> 4, to_initiator)

    def head(self, kind: int, body: int) -> bytes:
        mode, ts = self.hello[4] >> 4, int.from_bytes(self.hello[14:22], "big")
        return header(kind, body, mode, self.suite, self.hello[6:14], ts)

    def cookie_frame(self, hello: bytes, secret: bytes, address: str) -> bytes:
        """The answer under load."""
        self.hello = hello
        check_frame(hello, HELLO, self.gate(False))
        return close_frame(self.head(COOKIE, 16), cookie_of(secret, address, hello[6:14]), self.gate(True))

    def reply(self, hello: bytes, items: Items, cookie: bytes = b"") -> bytes:
        self.hello = hello
        if len(hello) < 55 or hello[4] >> 4 > 2:
            raise Refused("silence")
        body = check_frame(hello, HELLO, self.gate(False))
        if hello[1] != 1:
            raise Refused("VERSION")
        if hello[4] & 15 != self.suite:
            raise Refused("SUITE")
        if cookie and not hmac.compare_digest(mac(cookie, hello[:-16])[:16], hello[-16:]):
            raise Refused("COOKIE")
        mode, at = hello[4] >> 4, 32
        n = self.noise = begin(hello[:22], self.network_id, self.psk, identity_of(self.seed), public_of(self.static))
        self.remote = body[:32]
        n.mix_ephemeral(self.remote)
        if mode == 2:
            n.mix_key(dh(self.static, self.remote))
        kem_public = b""
        if self.suite == 1:
            kem_public = n.open(body[at : at + 1184 + 16])
            at += 1184 + 16
        found = read_items(n.open(body[at:]))
        if {RECORD, 4, LIVE_SIG, VERSIONS, CIPHERS, CAPS, REQUIRED, PARAMS} & found.keys():
            raise Refused("PARAMETER")
        if (mode == 2) != (KNOWN_SEQ in found) or len(found.get(KNOWN_SEQ, bytes(8))) != 8:
            raise Refused("PARAMETER")
        if mode == 2 and found[KNOWN_SEQ] == self.record[65:73]:
            items = [item for item in items if item[0] != RECORD]
        # message 2: e, ee, [ekem1], XX: s, es
        message = public_of(self.ephemeral)
        n.mix_ephemeral(message)
        n.mix_key(dh(self.ephemeral, self.remote))
        if self.suite == 1:
            ciphertext, shared = self.encapsulate(kem_public)
            message += n.seal(ciphertext)
            n.mix_key(shared)
        if mode != 2:
            message += n.seal(public_of(self.static))
            n.mix_key(dh(self.static, self.remote))
        self.said = with_live(items, self.seed, 2, n.h)
        message += n.seal(write_items(self.said))
        return close_frame(self.head(REPLY, len(message)), message, self.gate(True))

    def accept(self, finish: bytes) -> tuple[bytes, Outcome]:
        body = check_frame(finish, FINISH, self.gate(False))
        if finish[1] != 1 or finish[4:5] + finish[6:22] != self.hello[4:5] + self.hello[6:22]:
            raise Refused("PROTOCOL")
        n = self.noise
        static = n.open(body[:48])
        n.mix_key(dh(self.ephemeral, static))
        before = n.h
        found = read_items(n.open(body[48:]))
        check_statement(found, record_needed=True)
        peer_id, stated, _ = read_record(found[RECORD], self.network_id, self.now)
        if stated != static:
            raise Refused("RECORD")
        check_live(found, peer_id, 1, before)
        verdict = verdict_of(found, dict(self.said))
        prk, key = accept_key(n)
        head = self.head(ACCEPT, len(verdict) + 16)
        sealed = ChaCha20Poly1305(key).encrypt(NO_NONCE, verdict, head + n.h)
        return close_frame(head, sealed, self.gate(True)), outcome(n, prk, verdict, peer_id)


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """(ciphertext, shared secret) with fresh randomness of the library."""
    shared, ciphertext = MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    return ciphertext, shared
