"""Opens the record-layer cryptography to pytest; test-only, never in wheels.

Layer: beside _core; nothing imports it but tests. Each class is a thin handle around one C struct.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from netchan._core cimport crypto, defs
from netchan._core.aead cimport aead_open, aead_seal, aead_seal2, nc_aead_stats, nonce_make
from netchan._core.crypto cimport nc_crypto, nc_ctx, nc_hash
from netchan._core.ctxcache cimport (cache_confirm, cache_forget, cache_free, cache_grow, cache_new, cache_open,
                                     cache_seal, cache_wants_grow, nc_cache)
from netchan._core.provider cimport Provider, cipher_id_of, provider_table

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *t, void *attr, void *(*run)(void *) noexcept nogil, void *arg)


cdef const nc_crypto *table_of(Provider p, str cipher) except NULL:
    cdef const nc_crypto *t = provider_table(p, cipher_id_of(cipher))
    if t == NULL:
        raise ValueError(f"{p.name} has no {cipher}")
    return t


cdef class Context:
    """One cipher context of the table."""

    cdef nc_ctx *c
    cdef nc_aead_stats st

    def __cinit__(self, Provider provider, str cipher):
        cdef const nc_crypto *t = table_of(provider, cipher)
        self.c = t.ctx_new(t)
        if self.c == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.c != NULL:
            self.c.t.ctx_free(self.c)

    def key(self, bytes key, int direction):
        if len(key) != 32:
            raise ValueError("key of 32 bytes")
        return self.c.t.ctx_key(self.c, key, direction)

    def seal(self, bytes nonce, bytes aad, bytes plain, int split=-1):
        cdef const uint8_t *p = plain
        cdef size_t n = len(plain)
        cdef bytearray out = bytearray(n + 16)
        cdef uint8_t *o = out
        cdef int rc
        if len(nonce) != 12:
            raise ValueError("nonce of 12 bytes")
        if split < 0:
            memcpy(o, p, n)
            rc = self.c.t.seal(self.c, nonce, aad, len(aad), o, n, o, o + n)
        else:
            rc = self.c.t.seal2(self.c, nonce, aad, len(aad), p, split, p + split, n - split, o, o + n)
        if rc < 0:
            raise ValueError(f"rc {rc}")
        return bytes(out)

    def open(self, bytes nonce, bytes aad, bytes sealed):
        cdef bytearray out = bytearray(sealed)
        cdef uint8_t *o = out
        cdef size_t n = len(sealed) - 16
        if len(nonce) != 12 or len(sealed) < 16:
            raise ValueError("nonce of 12 bytes, tag of 16")
        rc = self.c.t.open(self.c, nonce, aad, len(aad), o, n, o, o + n)
        return rc, bytes(out[:n])

    def record_seal(self, bytes iv, uint32_t path_id, uint64_t number, bytes aad, bytes plain, int split=-1):
        cdef const uint8_t *p = plain
        cdef bytearray out = bytearray(len(plain) + 16)
        cdef uint8_t *o = out
        cdef int rc
        if split < 0:
            memcpy(o, p, len(plain))
            rc = aead_seal(self.c, iv, path_id, number, aad, len(aad), o, len(plain), &self.st)
        else:
            rc = aead_seal2(self.c, iv, path_id, number, aad, len(aad), p, split, p + split, len(plain) - split, o,
                            &self.st)
        return rc if rc < 0 else bytes(out)

    def record_open(self, bytes iv, uint32_t path_id, uint64_t number, bytes aad, bytes sealed):
        cdef bytearray out = bytearray(sealed)
        rc = aead_open(self.c, iv, path_id, number, aad, len(aad), out, len(sealed), &self.st)
        return rc, bytes(out[:max(0, len(sealed) - 16)])

    def stats(self):
        return {"sealed": self.st.sealed, "sealed_bytes": self.st.sealed_bytes, "opened": self.st.opened,
                "opened_bytes": self.st.opened_bytes, "failed": self.st.failed, "errors": self.st.errors}

    def time(self, size_t size, int rounds, clock_ns):
        """Nanoseconds per seal and per open of ``size`` bytes with 8 bytes of associated data."""
        cdef nc_ctx *o = self.c.t.ctx_new(self.c.t)
        cdef uint8_t *buf = <uint8_t *>calloc(1, size + 16)
        cdef uint8_t *keep = <uint8_t *>calloc(1, size + 16)
        cdef uint8_t fixed[44]
        cdef int i
        cdef int good = 0
        memset(fixed, 9, sizeof(fixed))
        try:
            self.c.t.ctx_key(self.c, fixed, crypto.NC_DIR_SEAL)
            self.c.t.ctx_key(o, fixed, crypto.NC_DIR_OPEN)
            start = clock_ns()
            with nogil:
                for i in range(rounds):
                    aead_seal(self.c, fixed + 32, 0, i, fixed, 8, buf, size, &self.st)
            middle = clock_ns()
            self.c.t.seal(self.c, fixed + 32, fixed, 8, buf, size, buf, buf + size)
            begin = clock_ns()
            with nogil:
                for i in range(rounds):
                    good += o.t.open(o, fixed + 32, fixed, 8, buf, size, keep, buf + size)
            end = clock_ns()
        finally:
            self.c.t.ctx_free(o)
            free(buf)
            free(keep)
        if good != rounds:
            raise ValueError("a tag did not hold")
        return (middle - start) / rounds, (end - begin) / rounds


cdef class Hash:
    """One hash object of the table."""

    cdef nc_hash *h

    def __cinit__(self, Provider provider):
        cdef const nc_crypto *t = table_of(provider, provider.ciphers[0])
        self.h = t.hash_new(t)
        if self.h == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.h != NULL:
            self.h.t.hash_free(self.h)

    def hmac(self, bytes key, bytes data):
        cdef uint8_t out[32]
        rc = self.h.t.hmac_begin(self.h, key, len(key))
        if rc < 0:
            return rc
        # in two pieces, as the core feeds it
        half = len(data) // 2
        self.h.t.hmac_add(self.h, data, half)
        self.h.t.hmac_add(self.h, <const uint8_t *><char *>data + <size_t>half, len(data) - half)
        rc = self.h.t.hmac_end(self.h, out)
        return rc if rc < 0 else (<char *>out)[:32]

    def extract(self, bytes salt, bytes ikm):
        cdef uint8_t out[32]
        rc = self.h.t.hkdf_extract(self.h, salt, len(salt), ikm, len(ikm), out)
        return rc if rc < 0 else (<char *>out)[:32]

    def expand(self, bytes prk, bytes info, size_t length):
        cdef bytearray out = bytearray(length + 1)
        if len(prk) != 32:
            raise ValueError("prk of 32 bytes")
        rc = self.h.t.hkdf_expand(self.h, prk, info, len(info), out, length)
        return rc if rc < 0 else bytes(out[:length])


cdef class Cache:
    """The context cache; seals and opens one fixed message under what it hands out."""

    cdef nc_cache *c

    def __cinit__(self, Provider provider, str cipher, int capacity, uint64_t seed):
        self.c = cache_new(table_of(provider, cipher), capacity, seed)
        if self.c == NULL:
            raise ValueError("capacity or memory")

    def __dealloc__(self):
        cache_free(self.c)

    def grow(self):
        return cache_grow(self.c)

    def wants_grow(self):
        return cache_wants_grow(self.c) == 1

    def seal(self, uint64_t session, uint64_t tag, uint32_t epoch, bytes key):
        cdef nc_ctx *x = cache_seal(self.c, session, tag, epoch, key)
        cdef uint8_t nonce[12]
        cdef uint8_t buf[32]
        if x == NULL:
            return None
        memset(nonce, 0, sizeof(nonce))
        memset(buf, 1, sizeof(buf))
        if x.t.seal(x, nonce, NULL, 0, buf, 16, buf, buf + 16) < 0:
            return None
        return (<char *>buf)[:32]

    def open(self, uint64_t session, uint64_t tag, uint32_t epoch, bytes key, bytes sealed, bint confirm=True):
        cdef nc_ctx *x = cache_open(self.c, session, tag, epoch, key)
        cdef uint8_t nonce[12]
        cdef uint8_t buf[32]
        if x == NULL or len(sealed) != 32:
            return False
        memset(nonce, 0, sizeof(nonce))
        memcpy(buf, <const char *>sealed, 32)
        if x.t.open(x, nonce, NULL, 0, buf, 16, buf, buf + 16) != 1:
            return False
        if confirm:
            cache_confirm(self.c, session, tag, epoch)
        return True

    def forget(self, uint64_t session, int direction, int64_t epoch):
        return cache_forget(self.c, session, direction, epoch)

    def stats(self):
        return {"capacity": self.c.capacity, "ready": self.c.n_ready, "used": self.c.n_used, "hits": self.c.hits,
                "misses": self.c.misses, "evicted": self.c.evicted, "side_loads": self.c.side_loads,
                "promoted": self.c.promoted}


def nonce(bytes iv, uint32_t path_id, uint64_t number):
    """The nonce of a record."""
    cdef uint8_t out[12]
    if len(iv) != 12:
        raise ValueError("iv of 12 bytes")
    nonce_make(out, iv, path_id, number)
    return (<char *>out)[:12]


# --- a C thread that never stops: what happens to it while the process exits ---------------------------------------

cdef struct endless:
    nc_ctx **ctx
    int n

cdef uint64_t done_count = 0


cdef void *seal_endlessly(void *arg) noexcept nogil:
    global done_count
    cdef endless *e = <endless *>arg
    cdef uint8_t key[32]
    cdef uint8_t buf[272]
    cdef int i = 0
    memset(key, 3, sizeof(key))
    memset(buf, 0, sizeof(buf))
    while True:
        key[0] += 1
        e.ctx[i].t.ctx_key(e.ctx[i], key, crypto.NC_DIR_SEAL)
        e.ctx[i].t.seal(e.ctx[i], key, key, 8, buf, 256, buf, buf + 256)
        e.ctx[i].t.ctx_key(e.ctx[i], key, crypto.NC_DIR_OPEN)
        e.ctx[i].t.open(e.ctx[i], key, key, 8, buf, 256, buf, buf + 256)
        i = (i + 1) % e.n
        done_count += 1
    return NULL


def seal_for_ever(Provider provider, str cipher, int n_contexts):
    """Start a C thread that re-keys, seals and opens until the process ends; its contexts are made here."""
    cdef const nc_crypto *t = table_of(provider, cipher)
    cdef endless *e = <endless *>malloc(sizeof(endless))
    cdef pthread_t thread
    cdef int i
    e.n = n_contexts
    e.ctx = <nc_ctx **>malloc(n_contexts * sizeof(nc_ctx *))
    for i in range(n_contexts):
        e.ctx[i] = t.ctx_new(t)
    if pthread_create(&thread, NULL, seal_endlessly, e) != 0:
        raise OSError("pthread_create")


def seals_done():
    """Records sealed by the endless thread so far."""
    return done_count
