"""Opens the record-layer cryptography to pytest; test-only, never in wheels.

Layer: _core, rung g: above all that it opens; nothing imports it but tests. Each class is a thin handle around one C
struct.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netchan._core cimport crypto
from netchan._core.aead cimport aead_open, aead_seal, aead_seal2, nc_aead_stats, nonce_make
from netchan._core.crypto cimport nc_crypto, nc_ctx, nc_hash
from netchan._core.ctxcache cimport (cache_confirm, cache_forget, cache_free, cache_grow, cache_new, cache_open,
                                     cache_seal, cache_wants_grow, nc_cache)
from netchan._core.keys cimport (KEYS_MONO, keys_deadline, keys_epoch_byte, keys_export, keys_free, keys_limits_default,
                                 keys_may_update, keys_mix_announced, keys_new, keys_open, keys_path_add,
                                 keys_path_remove, keys_seal, keys_seal2, keys_secret, keys_take_warning, keys_tick,
                                 keys_update, keys_update_acked, mono_check, nc_keys, nc_keys_limits, nc_keys_mono,
                                 nc_keys_warning)
from netchan._core.keystore cimport ks_alive, ks_free, ks_new, nc_keystore
from netchan._core.provider cimport Provider, cipher_id_of, provider_table

cdef extern from * nogil:
    """
    #if defined(__x86_64__)
    #define NC_HAVE_XMM 1
    static __attribute__((noinline, target("avx512f"))) void read_zmm(unsigned char *out) {
        #define NC_ONE(i) __asm__ volatile("vmovdqu64 %%zmm" #i ", %0" \
                                           : "=m"(*(unsigned char (*)[64])(out + 64 * (i - 16))));
        NC_ONE(16) NC_ONE(17) NC_ONE(18) NC_ONE(19) NC_ONE(20) NC_ONE(21) NC_ONE(22) NC_ONE(23)
        NC_ONE(24) NC_ONE(25) NC_ONE(26) NC_ONE(27) NC_ONE(28) NC_ONE(29) NC_ONE(30) NC_ONE(31)
        #undef NC_ONE
    }
    static __attribute__((noinline)) void read_xmm(unsigned char *out) {
        #define NC_ONE(i) __asm__ volatile("movdqu %%xmm" #i ", %0" : "=m"(*(unsigned char (*)[16])(out + 16 * i)));
        NC_ONE(0) NC_ONE(1) NC_ONE(2) NC_ONE(3) NC_ONE(4) NC_ONE(5) NC_ONE(6) NC_ONE(7)
        NC_ONE(8) NC_ONE(9) NC_ONE(10) NC_ONE(11) NC_ONE(12) NC_ONE(13) NC_ONE(14) NC_ONE(15)
        #undef NC_ONE
        if (__builtin_cpu_supports("avx512f")) read_zmm(out + 256);
    }
    #else
    #define NC_HAVE_XMM 0
    static void read_xmm(unsigned char *out) { (void)out; }
    #endif
    """
    const int NC_HAVE_XMM
    void read_xmm(uint8_t *out) noexcept

HAVE_XMM = bool(NC_HAVE_XMM)

cdef const nc_crypto *table_of(Provider p, str cipher, bint above=False) except NULL:
    cdef const nc_crypto *t = provider_table(p, cipher_id_of(cipher))
    cdef int i
    if t == NULL:
        raise ValueError(f"{p.name} has no {cipher}")
    for i in range(p.n_tables):
        if above and p.above[i].cipher_id == t.cipher_id:
            return &p.above[i]
    return t


cdef class Context:
    """One cipher context of the table; above: of the one that goes through EVP."""

    cdef nc_ctx *c
    cdef nc_aead_stats st

    def __cinit__(self, Provider provider, str cipher, bint above=False):
        cdef const nc_crypto *t = table_of(provider, cipher, above)
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

    def registers_after(self, str call, bytes key):
        """The vector registers right after a call that worked with this key; x86-64 only."""
        cdef uint8_t regs[256 + 16 * 64]
        cdef uint8_t buf[96]
        cdef uint8_t nonce[12]
        cdef const uint8_t *k = key
        cdef int which = ("key", "seal", "open").index(call)
        cdef int direction = crypto.NC_DIR_OPEN if which == 2 else crypto.NC_DIR_SEAL
        memset(buf, 0, sizeof(buf))
        memset(nonce, 0, sizeof(nonce))
        with nogil:
            memset(regs, 0, sizeof(regs))
            self.c.t.ctx_key(self.c, k, direction)
            if which == 0:
                read_xmm(regs)
            elif which == 1:
                self.c.t.seal(self.c, nonce, nonce, 12, buf, 64, buf, buf + 64)
                read_xmm(regs)
            else:
                self.c.t.open(self.c, nonce, nonce, 12, buf, 64, buf, buf + 64)
                read_xmm(regs)
        return bytes(regs[:sizeof(regs)])

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
                for _ in range(rounds):
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


cdef uint64_t done_count = 0


def seal_for_ever(Provider provider, str cipher, int n):
    """Re-key, seal and open without the GIL until the process ends; every context is made before the loop."""
    global done_count
    cdef const nc_crypto *t = table_of(provider, cipher)
    cdef nc_ctx *ctx[16]
    cdef uint8_t key[32]
    cdef uint8_t buf[272]
    cdef int i
    if n < 1 or n > 16:
        raise ValueError("1 to 16 contexts")
    for i in range(n):
        ctx[i] = t.ctx_new(t)
    memset(key, 3, sizeof(key))
    memset(buf, 0, sizeof(buf))
    i = 0
    with nogil:
        while True:
            key[0] += 1
            t.ctx_key(ctx[i], key, crypto.NC_DIR_SEAL)
            t.seal(ctx[i], key, key, 8, buf, 256, buf, buf + 256)
            t.ctx_key(ctx[i], key, crypto.NC_DIR_OPEN)
            t.open(ctx[i], key, key, 8, buf, 256, buf, buf + 256)
            i = (i + 1) % n
            done_count += 1


def seals_done():
    """Rounds of the endless loop so far."""
    return done_count


cdef class Store:
    """A key store with a context cache: what one engine owns."""

    cdef nc_keystore *s
    cdef nc_cache *c

    def __cinit__(self, Provider provider, str cipher, size_t slots=256, size_t sessions=4, uint64_t seed=99,
                  size_t lock_bytes_max=0, int contexts=64):
        cdef const nc_crypto *t = table_of(provider, cipher)
        self.s = ks_new(t, slots, sessions, seed, lock_bytes_max)
        self.c = cache_new(t, contexts, seed)
        if self.s == NULL or self.c == NULL:
            raise ValueError("range or memory")

    def __dealloc__(self):
        ks_free(self.s)
        cache_free(self.c)

    def stats(self):
        return {"slots": self.s.n_slots, "derived": self.s.derived, "keys_rederived": self.s.keys_rederived,
                "evicted": self.s.evicted, "locked": self.s.key_pages.locked,
                "secrets_locked": self.s.secrets_pages.locked, "wiped_on_fork": self.s.secrets_pages.wiped_on_fork,
                "contexts_used": self.c.n_used, "side_loads": self.c.side_loads, "cache_evicted": self.c.evicted}

    def alive(self):
        return ks_alive(self.s) == 1

    def pages(self):
        """(address, length) of the two areas of secrets."""
        return [(<size_t>self.s.secrets_pages.p, self.s.secrets_pages.n),
                (<size_t>self.s.key_pages.p, self.s.key_pages.n)]

    def close(self):
        ks_free(self.s)
        cache_free(self.c)
        self.s = NULL
        self.c = NULL


cdef class Keys:
    """The keys of one session."""

    cdef nc_keys *k
    cdef Store store

    def __cinit__(self, Store store, bytearray root, int role, **limits):
        cdef nc_keys_limits l
        keys_limits_default(&l)
        l.soft_blocks = limits.pop("soft_blocks", l.soft_blocks)
        l.hard_blocks = limits.pop("hard_blocks", l.hard_blocks)
        l.failed_max = limits.pop("failed_max", l.failed_max)
        l.warn_messages = limits.pop("warn_messages", l.warn_messages)
        l.use_ns = limits.pop("use_ns", l.use_ns)
        if limits or len(root) != 32:
            raise ValueError(f"unknown limits {limits} or root not of 32 bytes")
        self.store = store
        self.k = keys_new(store.s, root, role, &l)
        if self.k == NULL:
            raise MemoryError("no session block")

    def __dealloc__(self):
        self.close()

    def close(self):
        if self.k != NULL:
            keys_free(self.k, self.store.c)
            self.k = NULL

    def secret(self, int which):
        cdef const uint8_t *p = keys_secret(self.k, which)
        return None if p == NULL else (<const char *>p)[:32]

    def masters(self):
        """(send, recv_prev, recv, recv_next), for vectors and wiping tests only."""
        return ((<char *>self.k.x.send)[:32], (<char *>self.k.x.recv_prev)[:32], (<char *>self.k.x.recv)[:32],
                (<char *>self.k.x.recv_next)[:32])

    def export(self, bytes label, bytes context, size_t n):
        cdef bytearray out = bytearray(n + 1)
        rc = keys_export(self.k, label, len(label), context, len(context), out, n)
        return rc if rc < 0 else bytes(out[:n])

    def path_add(self, uint32_t path_id, int kind):
        return keys_path_add(self.k, path_id, kind)

    def path_remove(self, int path, int64_t now_ns=0):
        return keys_path_remove(self.k, self.store.c, path, now_ns)

    def may_update(self):
        return keys_may_update(self.k) == 1

    def update(self, bytes mix=b""):
        return keys_update(self.k, self.store.c, mix, len(mix))

    def update_acked(self, uint32_t epoch):
        return keys_update_acked(self.k, epoch)

    def mix_announced(self, uint32_t epoch, bytes mix):
        return keys_mix_announced(self.k, self.store.c, epoch, mix, len(mix))

    def tick(self, int64_t now_ns):
        return keys_tick(self.k, self.store.c, now_ns)

    def deadline(self):
        return keys_deadline(self.k)

    def warning(self):
        cdef nc_keys_warning w
        if keys_take_warning(self.k, &w) == 0:
            return None
        return w.session_messages, w.key_messages, w.tag, w.epoch

    def epoch_byte(self):
        return keys_epoch_byte(self.k)

    def seal(self, int path, uint64_t number, uint64_t tag, bytes plain, bytes aad=b"", int64_t now_ns=0, int split=-1):
        cdef const uint8_t *p = plain
        cdef size_t n = len(plain)
        cdef bytearray out = bytearray(n + 16)
        cdef uint8_t *o = out
        cdef int rc
        if split < 0:
            memcpy(o, p, n)
            rc = keys_seal(self.k, self.store.c, path, number, tag, aad, len(aad), o, n, now_ns)
        else:
            rc = keys_seal2(self.k, self.store.c, path, number, tag, aad, len(aad), p, split, p + split, n - split, o,
                            now_ns)
        return rc if rc < 0 else bytes(out)

    def open(self, int path, uint64_t number, int epoch_byte, uint64_t tag, bytes sealed, bytes aad=b"",
             int64_t now_ns=0, int64_t old_until_ns=0):
        cdef bytearray buf = bytearray(sealed)
        rc = keys_open(self.k, self.store.c, path, number, <uint8_t>epoch_byte, tag, aad, len(aad), buf, len(sealed),
                       now_ns, old_until_ns)
        return bytes(buf[:len(sealed) - 16]) if rc == 1 else rc

    def state(self):
        return {"send_epoch": self.k.owner.send_epoch, "recv_epoch": self.k.recv_epoch, "has_prev": self.k.has_prev,
                "has_next": self.k.has_next, "wants_update": self.k.wants_update, "sealed": self.k.sealed,
                "opened": self.k.st.opened, "failed": self.k.st.failed, "refused": self.k.refused,
                "updates": self.k.updates, "mono": self.k.mono != NULL, "mono_violations": self.k.mono_violations}

    def time(self, Keys peer, size_t size, int rounds, clock_ns):
        """Nanoseconds per record of ``size`` bytes: sealed here on path 0, opened by ``peer``; 5 bytes of header."""
        cdef uint8_t *buf = <uint8_t *>calloc(1, size + 16)
        cdef uint8_t head[5]
        cdef int good = 0
        cdef uint64_t first = self.k.paths[0].send_next
        cdef uint64_t i
        memset(head, 1, sizeof(head))
        start = clock_ns()
        with nogil:
            for i in range(first, first + <uint64_t>rounds):
                keys_seal(self.k, self.store.c, 0, i, 16, head, 5, buf, size, 0)
                good += keys_open(
                    peer.k, peer.store.c, 0, i, keys_epoch_byte(self.k), 16, head, 5, buf, size + 16, 0, 0
                )
        end = clock_ns()
        free(buf)
        if good != rounds:
            raise ValueError("a tag did not hold")
        return (end - start) / rounds


cdef class Mono:
    """The check of the debug build by itself."""

    cdef nc_keys_mono table[KEYS_MONO]

    def check(self, uint32_t epoch, uint64_t tag, uint32_t path_id, uint64_t number):
        return mono_check(self.table, epoch, tag, path_id, number)
