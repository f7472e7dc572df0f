"""Node identity: the Ed25519 key, its text form, its file, the static keys and the signed record made from it.

Layer: net (L3). Touches the file system only in load_or_create; the wall clock is an argument of everything else.
Must not know about trust or sessions. An Identity may be shared by threads: after construction only the record
changes, and it is replaced in one step. Spec: docs/spec/handshake.md §1.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import stat
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from netchan.errors import ConfigError
from netchan.net.record import CAP_HYBRID, RECORD_LIFE_S, NodeRecord, build_record
from netchan.net.secret import SecureBytes, derive, wipe

NODE_ID_LEN = 52
NODE_IDS_KEPT = 1024
"""Node ids whose two forms are remembered: base 32 in Python costs 30 µs."""
STATIC_PERIOD_S = 30 * 86_400
MAX_KEPT_STATICS = 4
MAX_KEPT_RECORDS = 16
DEFAULT_NETWORK = b"netchan"
_STATIC_LABEL = b"netchan static v1"
_MAGIC = b"nc-ident"
_FILE_LEN = 112
_KDF_NONE, _KDF_SCRYPT = 0, 1
_SCRYPT_LOG_N, _SCRYPT_R, _SCRYPT_P = 15, 8, 1
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")


@lru_cache(NODE_IDS_KEPT)
def format_node_id(id_pub: bytes) -> str:
    """The 52 characters that name an Ed25519 public key of 32 bytes."""
    return base64.b32encode(id_pub).decode("ascii").rstrip("=").lower()


def parse_node_id(text: str) -> bytes:
    """The 32 key bytes behind a node id.

    Raises:
        ConfigError: not 52 characters of a–z2–7, or not the one spelling of its key.
    """
    id_pub = _read_node_id(text) if len(text) == NODE_ID_LEN else None
    if id_pub is None:
        raise ConfigError(f"not a node id: {text[:80]!r}; a node id is the 52 characters of identity.node_id")
    return id_pub


@lru_cache(NODE_IDS_KEPT)
def _read_node_id(text: str) -> bytes | None:
    if not _ALPHABET.issuperset(text):
        return None
    id_pub = base64.b32decode(text.upper() + "====")
    return id_pub if format_node_id(id_pub) == text else None


@dataclass(frozen=True)
class StaticKey:
    """An X25519 key pair with the signed record that names it."""

    private: X25519PrivateKey
    record: NodeRecord


class Identity:
    """Who this node is. Make one with `generate` (lives in memory) or `load_or_create` (lives in a file)."""

    def __init__(self, seed: SecureBytes) -> None:
        """Take over a 32-byte Ed25519 seed; it is wiped when the identity is closed or collected."""
        if len(seed) != 32:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self._seed = seed
        self._key: Ed25519PrivateKey | None = Ed25519PrivateKey.from_private_bytes(seed)
        self.id_pub = self._key.public_key().public_bytes_raw()
        self._records: dict[tuple[int, bytes, int], NodeRecord] = {}
        self._seq = 0
        self._statics: dict[int, tuple[X25519PrivateKey, bytes]] = {}

    @classmethod
    def generate(cls) -> Identity:
        """A fresh identity from the system's randomness."""
        return cls(SecureBytes(os.urandom(32)))

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str], passphrase: str | bytes | None = None) -> Identity:
        """Read the identity in `path`, or make one and write it there, readable by the owner only.

        Args:
            path: file of 112 bytes, mode 0600; its folder must exist.
            passphrase: seals the key in the file (scrypt, 32 MiB and about 0.1 s); needed again at each load.

        Raises:
            ConfigError: the file is damaged, open to group or others, needs a passphrase, or does not open with it.
            OSError: the file cannot be read or written.
        """
        target = Path(path)
        secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
        if secret is not None and not secret:
            raise ConfigError("the passphrase is empty; leave it out or give one")
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                return cls(_read_file(target, secret))
            identity = cls.generate()
            # another process may have won the race: then its file counts, and ours is thrown away
            if _write_file(target, identity, secret):
                return identity
        raise ConfigError(f"identity file {str(target)!r} comes and goes; check who else writes it")

    @property
    def node_id(self) -> str:
        """The public name of this node, 52 characters."""
        return format_node_id(self.id_pub)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 signature of the bytes of `data`, 64 bytes; callers put a label of their own in front.

        Raises:
            ConfigError: the identity is closed.
        """
        if self._key is None:
            raise ConfigError("the identity is closed; load it again, or close it after its last use")
        return self._key.sign(data)

    def static_key(self, wall_s: float, network_id: bytes = DEFAULT_NETWORK, caps: int = CAP_HYBRID) -> StaticKey:
        """The static key to use now, with its record.

        Args:
            wall_s: Unix seconds.
            network_id: the network the record is for, at most 64 bytes.
            caps: capability bits of the record.
        """
        period = max(int(wall_s), 0) // STATIC_PERIOD_S
        private, public = self._derive_static(period)
        slot = (period, network_id, caps)
        record = self._records.get(slot)
        # renew at half of the life, and when the clock went back before the record's start
        if record is None or not record.not_before <= wall_s <= record.not_after - RECORD_LIFE_S // 2:
            self._seq = max(self._seq + 1, int(wall_s * 1000))
            record = build_record(
                self.sign,
                id_pub=self.id_pub,
                static_pub=public,
                seq=self._seq,
                wall_s=wall_s,
                caps=caps,
                network_id=network_id,
            )
            if len(self._records) >= MAX_KEPT_RECORDS:
                self._records.clear()
            self._records[slot] = record
        return StaticKey(private, record)

    def record(self, wall_s: float, network_id: bytes = DEFAULT_NETWORK, caps: int = CAP_HYBRID) -> NodeRecord:
        """The record to show now (see static_key)."""
        return self.static_key(wall_s, network_id, caps).record

    def static_candidates(self, wall_s: float) -> list[X25519PrivateKey]:
        """Private keys that a valid record may still name: this period's, then the one before."""
        period = max(int(wall_s), 0) // STATIC_PERIOD_S
        return [self._derive_static(p)[0] for p in (period, period - 1) if p >= 0]

    def _derive_static(self, period: int) -> tuple[X25519PrivateKey, bytes]:
        if self._key is None:
            raise ConfigError("the identity is closed; load it again, or close it after its last use")
        if period in self._statics:
            return self._statics[period]
        with derive(self._seed, _STATIC_LABEL, struct.pack(">Q", period)) as raw:
            private = X25519PrivateKey.from_private_bytes(raw)
        if len(self._statics) >= MAX_KEPT_STATICS:
            self._statics.clear()
        self._statics[period] = private, private.public_key().public_bytes_raw()
        return self._statics[period]

    def ticket_key(self, id16: bytes) -> SecureBytes:
        """The key under which a ticket with this id is kept outside of the process, 32 bytes; the caller wipes them.

        Raises:
            ConfigError: the identity is closed.
        """
        if self._key is None:
            raise ConfigError("the identity is closed; load it again, or close it after its last use")
        return derive(self._seed, b"netchan ticket store v1", id16)

    def reset_key(self) -> SecureBytes:
        """The key of the reset tokens of this node's listeners, 32 bytes, the same in each process that has the
        identity; the caller wipes them.

        Raises:
            ConfigError: the identity is closed.
        """
        if self._key is None:
            raise ConfigError("the identity is closed; load it again, or close it after its last use")
        return derive(self._seed, b"netchan reset v1", b"")

    def close(self) -> None:
        """Wipe the seed; the identity can no longer sign. Idempotent."""
        self._seed.wipe()
        self._statics.clear()
        self._key = None

    def __repr__(self) -> str:
        return f"<Identity {self.node_id}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("identities are not serialised; use load_or_create")


def _scrypt_key(passphrase: bytes, salt: bytes, log_n: int, r: int, p: int) -> SecureBytes:
    key = SecureBytes(32)
    Scrypt(salt=salt, length=32, n=1 << log_n, r=r, p=p).derive_into(passphrase, key)
    return key


def _read_file(path: Path, passphrase: bytes | None) -> SecureBytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file, SecureBytes(_FILE_LEN + 1) as data:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
            raise ConfigError(f"identity file {str(path)!r} is open to group or others; run: chmod 600 {str(path)!r}")
        size = file.readinto(data)
        return _parse_file(path, data, size or 0, passphrase)


def _parse_file(path: Path, data: SecureBytes, size: int, passphrase: bytes | None) -> SecureBytes:
    damaged = ConfigError(f"identity file {str(path)!r} is damaged or not an identity file; restore it from a copy")
    if size != _FILE_LEN or data[:8] != _MAGIC or data[8] != 1 or any(data[13:16]):
        raise damaged
    kdf, log_n, r, p = data[9:13]
    head, salt = bytes(data[:64]), bytes(data[16:32])
    if kdf == _KDF_NONE:
        if any(data[10:32]) or not hmac.compare_digest(hashlib.sha256(data[:96]).digest()[:16], data[96:112]):
            raise damaged
        seed = SecureBytes(data[64:96])
    elif kdf == _KDF_SCRYPT:
        if not (10 <= log_n <= 20 and 1 <= r <= 16 and 1 <= p <= 4):
            raise damaged
        if passphrase is None:
            raise ConfigError(f"identity file {str(path)!r} is sealed: give its passphrase=")
        seed = SecureBytes(32)
        with _scrypt_key(passphrase, salt, log_n, r, p) as key:
            try:
                ChaCha20Poly1305(key).decrypt_into(bytes(12), data[64:112], head, seed)
            except InvalidTag:
                raise ConfigError(f"identity file {str(path)!r} does not open: wrong passphrase, or damaged") from None
    else:
        raise damaged
    if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != head[32:64]:
        wipe(seed)
        raise damaged
    if kdf == _KDF_NONE and passphrase is not None:
        wipe(seed)
        raise ConfigError(f"identity file {str(path)!r} is not sealed, but a passphrase was given; leave it out")
    return seed


def _build_file(identity: Identity, passphrase: bytes | None) -> SecureBytes:
    data = SecureBytes(_FILE_LEN)
    data[0:9] = _MAGIC + b"\x01"
    data[32:64] = identity.id_pub
    seed = identity._seed
    if passphrase is None:
        data[64:96] = seed
        data[96:112] = hashlib.sha256(data[:96]).digest()[:16]
        return data
    data[9:13] = bytes((_KDF_SCRYPT, _SCRYPT_LOG_N, _SCRYPT_R, _SCRYPT_P))
    data[16:32] = os.urandom(16)
    with _scrypt_key(passphrase, bytes(data[16:32]), _SCRYPT_LOG_N, _SCRYPT_R, _SCRYPT_P) as key:
        data[64:112] = ChaCha20Poly1305(key).encrypt(bytes(12), seed, bytes(data[:64]))
    return data


def _write_file(path: Path, identity: Identity, passphrase: bytes | None) -> bool:
    """Create the file in one step; False if somebody else created it first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file, _build_file(identity, passphrase) as data:
            if file.write(data) != _FILE_LEN:
                raise OSError(f"short write to {str(temporary)!r}")
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
