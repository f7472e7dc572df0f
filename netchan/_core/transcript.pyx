"""The symmetric state of a handshake, for ChaCha20-Poly1305 and SHA-256, which every session of netchan uses.

Layer: _core, rung e. Python side only; one object per handshake, used by one thread at a time.
Noise §5.2 (Protocol Framework, revision 34). net/noise.py has the same for the other ciphers and hashes, and the two
are held against each other and against published vectors: what Python does here in 25 µs a key takes 5.

The chaining key and the cipher key live in this object and nowhere else; they are overwritten by wipe() and at the end.
The transcript hash is public.
"""

from hashlib import sha256

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from netchan._core cimport crypto
from netchan._core.crypto cimport nc_crypto
from netchan._core.provider cimport provider_table
from netchan._core.provider import load

cdef enum:
    HASH = crypto.NC_HASH_BYTES
    TAG = crypto.NC_TAG_BYTES
    KEYS_MAX = 3                    # outputs of one HKDF (Noise §4.3)

cdef uint64_t _NONCE_END = 0xFFFFFFFFFFFFFFFF           # reserved, never used for a message (Noise §5.1)


def has_transcript():
    """True if the crypto library of this process has ChaCha20-Poly1305 (one in FIPS mode has not)."""
    return provider_table(load(), crypto.NC_CIPHER_CHACHA20POLY1305) is not NULL


cdef class Transcript:
    """Chaining key, transcript hash and cipher of one handshake.

    Args:
        name: the protocol name.

    Raises:
        RuntimeError: no ChaCha20-Poly1305 in this process (``has_transcript``).
        MemoryError: the crypto library gave no context.
    """

    def __cinit__(self, bytes name):
        cdef const nc_crypto* table = provider_table(load(), crypto.NC_CIPHER_CHACHA20POLY1305)
        if table is NULL:
            raise RuntimeError("netchan core: the crypto library has no ChaCha20-Poly1305")
        self.mac = table.hash_new(table)
        self.sealer = table.ctx_new(table)
        self.opener = table.ctx_new(table)
        if self.mac is NULL or self.sealer is NULL or self.opener is NULL:
            raise MemoryError("netchan core: out of memory")
        self.h = name.ljust(HASH, b"\0") if len(name) <= HASH else sha256(name).digest()
        memcpy(self.now.ck, PyBytes_AS_STRING(self.h), HASH)

    def __dealloc__(self):
        cdef const nc_crypto* table
        if self.mac is not NULL:
            table = self.mac.t
            table.cleanse(&self.now, sizeof(self.now))
            table.cleanse(&self.kept, sizeof(self.kept))
            table.hash_free(self.mac)
            table.ctx_free(self.sealer)
            table.ctx_free(self.opener)

    @property
    def ck(self):
        """A copy of the chaining key, 32 bytes; wipe it."""
        return bytearray(self.now.ck[:HASH])

    @property
    def has_key(self):
        """True once a key was mixed in: from then on texts are sealed."""
        return self.now.keyed != 0

    @property
    def n(self):
        """Messages sealed or opened with the present key."""
        return self.now.n

    cdef int mix(self, object ikm, uint8_t* out, int count) except -1:
        """HKDF of the chaining key and `ikm` (Noise §4.3): `count` keys of 32 bytes into `out`."""
        cdef Py_buffer view
        cdef uint8_t temp[HASH]
        cdef const nc_crypto* table = self.mac.t
        cdef int rc
        PyObject_GetBuffer(ikm, &view, PyBUF_SIMPLE)
        rc = table.hkdf_extract(self.mac, self.now.ck, HASH, <const uint8_t*>view.buf, <size_t>view.len, temp)
        PyBuffer_Release(&view)
        if rc >= 0:
            rc = table.hkdf_expand(self.mac, temp, temp, 0, out, <size_t>(count * HASH))
        table.cleanse(temp, sizeof(temp))
        if rc < 0:
            raise RuntimeError("netchan core: the crypto library failed in a handshake")
        return 0

    cdef void rekey(self, const uint8_t* ck, const uint8_t* key) noexcept:
        memcpy(self.now.ck, ck, HASH)
        memcpy(self.now.key, key, crypto.NC_KEY_BYTES)
        self.now.keyed = 1
        self.now.n = 0

    cdef int nonce(self, uint8_t* out) except -1:
        cdef int i
        if self.now.n == _NONCE_END:
            raise OverflowError("all nonces of this key are used")
        memset(out, 0, crypto.NC_IV_BYTES)
        for i in range(8):
            out[4 + i] = <uint8_t>(self.now.n >> (8 * i))
        return 0

    def mix_hash(self, data):
        """H = HASH(h || data)."""
        self.h = sha256(self.h + data).digest()

    def mix_key(self, ikm):
        """New chaining key and cipher key from `ikm` (bytes-like)."""
        cdef uint8_t keys[KEYS_MAX * HASH]
        self.mix(ikm, keys, 2)
        self.rekey(keys, keys + HASH)
        self.mac.t.cleanse(keys, sizeof(keys))

    def mix_key_and_hash(self, ikm):
        """As mix_key, and binds `ikm` into h (psk token)."""
        cdef uint8_t keys[KEYS_MAX * HASH]
        self.mix(ikm, keys, 3)
        self.rekey(keys, keys + 2 * HASH)
        self.mix_hash(PyBytes_FromStringAndSize(<char*>keys + HASH, HASH))
        self.mac.t.cleanse(keys, sizeof(keys))

    def encrypt_and_hash(self, bytes plaintext not None):
        """Seal with h as associated data, then mix the result into h. OverflowError: the key is used up.

        Raises:
            RuntimeError: the crypto library failed, or the text is longer than 65535 bytes.
        """
        cdef uint8_t nonce[crypto.NC_IV_BYTES]
        cdef Py_ssize_t size = len(plaintext)
        cdef bytes out
        cdef uint8_t* at
        cdef int rc
        if not self.now.keyed:
            self.mix_hash(plaintext)
            return plaintext
        self.nonce(nonce)
        out = PyBytes_FromStringAndSize(NULL, size + TAG)
        at = <uint8_t*>PyBytes_AS_STRING(out)
        rc = self.sealer.t.ctx_key(self.sealer, self.now.key, crypto.NC_DIR_SEAL)
        if rc >= 0:
            rc = self.sealer.t.seal(self.sealer, nonce, <const uint8_t*>PyBytes_AS_STRING(self.h), HASH,
                                    <const uint8_t*>PyBytes_AS_STRING(plaintext), <size_t>size, at, at + size)
        if rc < 0:
            raise RuntimeError("netchan core: the crypto library failed in a handshake")
        self.now.n += 1
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, bytes ciphertext not None):
        """Open with h as associated data, then mix the ciphertext into h. None: it does not open; nothing changed.

        Raises:
            OverflowError: the key is used up.
        """
        cdef uint8_t nonce[crypto.NC_IV_BYTES]
        cdef Py_ssize_t size = len(ciphertext) - TAG
        cdef const uint8_t* source = <const uint8_t*>PyBytes_AS_STRING(ciphertext)
        cdef bytes out
        if not self.now.keyed:
            self.mix_hash(ciphertext)
            return ciphertext
        if size < 0:
            return None
        self.nonce(nonce)
        out = PyBytes_FromStringAndSize(NULL, size)
        if (self.opener.t.ctx_key(self.opener, self.now.key, crypto.NC_DIR_OPEN) < 0
                or self.opener.t.open(self.opener, nonce, <const uint8_t*>PyBytes_AS_STRING(self.h), HASH,
                                      source, <size_t>size, <uint8_t*>PyBytes_AS_STRING(out), source + size) != 1):
            return None
        self.now.n += 1
        self.mix_hash(ciphertext)
        return out

    def split(self):
        """The two keys of Noise §5.2 Split, from the initiator to the responder first; 32 bytes each, to be wiped."""
        cdef uint8_t keys[KEYS_MAX * HASH]
        self.mix(b"", keys, 2)
        pair = bytearray(keys[:HASH]), bytearray((keys + HASH)[:HASH])
        self.mac.t.cleanse(keys, sizeof(keys))
        return pair

    def keep(self):
        """Remember the present state for ``go_back``; what was kept before is overwritten."""
        self.kept = self.now
        self.kept_h = self.h

    def go_back(self):
        """Return to the state that was kept. RuntimeError: none was."""
        if self.kept_h is None:
            raise RuntimeError("netchan core: no state was kept")
        self.now = self.kept
        self.h = self.kept_h

    def wipe(self):
        """Forget the chaining key and the cipher key; the object is of no use afterwards, but for h."""
        cdef const nc_crypto* table = self.mac.t
        cdef uint8_t zero[crypto.NC_KEY_BYTES]
        table.cleanse(&self.now, sizeof(self.now))
        table.cleanse(&self.kept, sizeof(self.kept))
        memset(zero, 0, sizeof(zero))
        # the library's contexts hold the last keys
        table.ctx_key(self.sealer, zero, crypto.NC_DIR_SEAL)
        table.ctx_key(self.opener, zero, crypto.NC_DIR_OPEN)

    def __reduce__(self):
        raise TypeError("secrets are not serialised")
