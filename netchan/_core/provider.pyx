"""Finds the crypto library of the record layer, proves it by known answers, and hands out its function tables.

Layer: _core, rung d; cold, Python side only. It touches no socket, clock or thread and keeps no key.

1. Order: the libcrypto that CPython's ``ssl`` has mapped already, then the system's by versioned soname, then the
   libsodium inside PyNaCl (``netchan[sodium]``). ``NETCHAN_CRYPTO=<path>|ssl|system|nacl`` replaces the order (and is
   then not softened: if that one fails, so does ``load``); it is ignored in a set-user-id process.
2. dlopen with RTLD_NOW|RTLD_LOCAL; never RTLD_GLOBAL, never an unversioned soname, never dlclose.
3. Every function that the core will call answers known vectors first (``prove``): in place and across, with and
   without associated data, empty, two segments, wrong tag then right tag on one context, changed key and direction.
   A cipher that fails is not offered; a library with no cipher left is refused.
4. Of libcrypto 3 the functions below EVP are used (direct.pyx), if they give the known answers as well; else EVP is.
5. Errors that probing left in the calling thread's OpenSSL queue are taken away again.

Spec: docs/spec/keys.md §7.
"""

import importlib
import os
import sys

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from netchan._core cimport crypto, defs, direct, evp, sodium
from netchan._core.crypto cimport nc_crypto, nc_ctx, nc_hash

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE 1
    #endif
    #include <dlfcn.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sys/auxv.h>
    static int nc_at_secure(void) { return getauxval(AT_SECURE) != 0; }
    #else
    static int nc_at_secure(void) { return issetugid() != 0; }
    #endif
    static int nc_file_of(void *symbol, const char **name)
    {
        Dl_info info;
        if (dladdr(symbol, &info) == 0) return 0;
        *name = info.dli_fname;
        return 1;
    }
    """
    int nc_at_secure()
    int nc_file_of(void *symbol, const char **name)
    void *dlopen(const char *path, int flags)
    void *dlsym(void *handle, const char *name)
    int RTLD_NOW
    int RTLD_LOCAL
    int RTLD_NOLOAD

ENV = "NETCHAN_CRYPTO"
_SONAMES = (
    ("libcrypto.4.dylib", "libcrypto.3.dylib", "libcrypto.1.1.dylib")
    if sys.platform == "darwin"
    else ("libcrypto.so.4", "libcrypto.so.3", "libcrypto.so.1.1")
)
_CIPHERS = {"aes-256-gcm": crypto.NC_CIPHER_AES256GCM, "chacha20-poly1305": crypto.NC_CIPHER_CHACHA20POLY1305}
_ADVICE = (
    "netchan found no usable crypto library (OpenSSL 1.1.1 to 4.x behind Python's ssl or as a system library, or "
    "libsodium). Run `pip install netchan[sodium]` to get one."
)
_SPEED_SIZES = (64, 1024, 16384)


class ProviderError(Exception):
    """No crypto library of the asked kind is usable; the text says what was tried and what to install."""


cdef dict _chosen = {}              # what NETCHAN_CRYPTO says -> what load() found for it
cdef dict _proven = {}              # (file, base symbol) -> Provider: a library is proven once per process


cdef class Provider:
    """A proven crypto library; made by :func:`load` and :func:`available` only."""

    def __init__(self):
        raise TypeError("providers come from load() and available()")

    def __repr__(self):
        return f"<Provider {self.name}: {self.version} at {self.path}, {', '.join(self.ciphers)}>"


def load(prefer=None):
    """Return the crypto library that the record layer will use.

    Args:
        prefer: ``"ssl"``, ``"system"``, ``"nacl"`` or a file path: only that one is tried. None: what
            ``NETCHAN_CRYPTO`` says, else the first usable one in the order of this module.

    Returns:
        A :class:`Provider`; the same object for the same library.

    Raises:
        ProviderError: nothing usable; the text lists each attempt and names ``pip install netchan[sodium]``.
    """
    kind = prefer if prefer is not None else choice(os.environ, nc_at_secure() != 0)
    if prefer is None and kind in _chosen:
        return _chosen[kind]                         # nothing is ever unmapped, and finding the file again costs 60 us
    tried = []
    for name in (kind,) if kind is not None else ("ssl", "system", "nacl"):
        for found in _find(name, tried):
            if prefer is None:
                _chosen[kind] = found
            return found
    raise ProviderError(f"{_ADVICE} Tried: {'; '.join(tried) or 'nothing'}.")


def available():
    """Return every usable library once, in the order of :func:`load` (for tests and ``netchan doctor``).

    A library reached twice (``ssl`` and ``system`` are often one file) is listed under its first name.
    """
    seen = []
    for name in ("ssl", "system", "nacl"):
        for found in _find(name, []):
            if found not in seen:
                seen.append(found)
    return seen


def choice(environ, secure):
    """Return what ``NETCHAN_CRYPTO`` in ``environ`` asks for, or None; always None when ``secure`` (AT_SECURE)."""
    return None if secure else (environ.get(ENV) or None)


def speed(name, clock_ns, cipher="aes-256-gcm"):
    """Measure sealing plus opening in place with one context, the GIL released.

    Args:
        name: as ``prefer`` of :func:`load`.
        clock_ns: a monotonic clock in nanoseconds (the core has none).
        cipher: one of the provider's ``ciphers``.

    Returns:
        GB/s (1e9 plaintext bytes each sealed and opened, per second) by plaintext size: 64, 1024 and 16384 bytes.
        About 20 ms per size.

    Raises:
        ProviderError: no such library, or it lacks the cipher.
        ValueError: unknown cipher name.
    """
    cdef Provider p = load(name)
    cdef const nc_crypto *t = provider_table(p, cipher_id_of(cipher))
    cdef nc_ctx *s = NULL
    cdef nc_ctx *o = NULL
    cdef uint8_t *buf = NULL
    cdef uint8_t fixed[44]
    cdef int rounds, good
    cdef size_t size
    if t == NULL:
        raise ProviderError(f"{p.path} has no {cipher}")
    memset(fixed, 7, sizeof(fixed))
    result = {}
    try:
        buf = <uint8_t *>calloc(1, 16384 + crypto.NC_TAG_BYTES)
        s = t.ctx_new(t)
        o = t.ctx_new(t)
        if buf == NULL or s == NULL or o == NULL:
            raise MemoryError("netchan core: out of memory")
        t.ctx_key(s, fixed, crypto.NC_DIR_SEAL)
        t.ctx_key(o, fixed, crypto.NC_DIR_OPEN)
        for py_size in _SPEED_SIZES:
            size = py_size
            rounds = 100
            while True:
                good = 0
                start = clock_ns()
                with nogil:
                    for _ in range(rounds):
                        t.seal(s, fixed + 32, fixed, 8, buf, size, buf, buf + size)
                        good += t.open(o, fixed + 32, fixed, 8, buf, size, buf, buf + size)
                spent = clock_ns() - start
                if good != rounds:
                    raise ProviderError(f"{p.path}: {cipher} failed under load")
                if spent >= 10_000_000 or rounds > 1_000_000:
                    break
                rounds *= 4
            result[py_size] = py_size * rounds / max(spent, 1)
    finally:
        if t != NULL:
            t.ctx_free(s)
            t.ctx_free(o)
        free(buf)
    return result


cdef const nc_crypto *provider_table(Provider p, int cipher_id) noexcept:
    cdef int i
    for i in range(p.n_tables):
        if p.tables[i].cipher_id == cipher_id:
            return &p.tables[i]
    return NULL


cdef int cipher_id_of(str cipher) except -1:
    if cipher not in _CIPHERS:
        raise ValueError(f"unknown cipher {cipher!r}; known: {', '.join(_CIPHERS)}")
    return _CIPHERS[cipher]


# --- finding ------------------------------------------------------------------------------------------------------

def _find(name, tried):
    """Yield the proven libraries of one kind; append what failed and why to ``tried``."""
    if name == "ssl":
        files = _mapped(tried)
    elif name == "system":
        files = [(soname, 0) for soname in _SONAMES]
    elif name == "nacl":
        files = _nacl(tried)
    else:
        files = [(os.path.abspath(name), 0)]
        name = "path"
    for path, no_load in files:
        found = _open(name, path, no_load, tried)
        if found is not None:
            yield found


def _mapped(tried):
    """Files through which CPython's own libcrypto can be reached without mapping anything new."""
    try:
        module = importlib.import_module("_ssl")
    except ImportError:
        tried.append("ssl: this Python has none")
        return []
    file = getattr(module, "__file__", None)         # absent when _ssl is built into the interpreter
    return ([(file, 1)] if file else []) + [(soname, 1) for soname in _SONAMES]


def _nacl(tried):
    try:
        return [(importlib.import_module("nacl._sodium").__file__, 1)]
    except ImportError:
        tried.append("nacl: PyNaCl is not installed")
        return []


cdef Provider _open(str name, str path, int no_load, list tried):
    cdef bytes raw = os.fsencode(path)
    cdef const char *c_path = raw
    cdef void *handle
    cdef void *symbol
    cdef const char *c_file = NULL
    cdef bint is_evp = True
    handle = dlopen(c_path, RTLD_NOW | RTLD_LOCAL | (RTLD_NOLOAD if no_load else 0))
    if handle == NULL:
        tried.append(f"{name}: {path} is not {'mapped' if no_load else 'there'}")
        return None
    symbol = dlsym(handle, "EVP_CIPHER_CTX_new")
    if symbol == NULL:
        is_evp = False
        symbol = dlsym(handle, "crypto_auth_hmacsha256_init")
    if symbol == NULL:
        tried.append(f"{name}: {path} shows neither EVP nor libsodium functions")
        return None
    file = os.fsdecode(<bytes>c_file) if nc_file_of(symbol, &c_file) and c_file != NULL else path
    key = (file, <size_t>symbol)
    if key not in _proven:
        _proven[key] = _prove_library(name, file, handle, is_evp, tried)
    return _proven[key]


cdef Provider _prove_library(str name, str file, void *handle, bint is_evp, list tried):
    cdef Provider p
    cdef int n, i
    cdef int kept = 0
    cdef int failed
    cdef void *lib = NULL
    cdef const char *text
    cdef nc_crypto *tables = <nc_crypto *>calloc(2, sizeof(nc_crypto))
    cdef nc_crypto *below = <nc_crypto *>calloc(2, sizeof(nc_crypto))
    cdef list directly = []
    if tables == NULL or below == NULL:
        free(tables)
        free(below)
        raise MemoryError("netchan core: out of memory")
    n = evp.evp_load(handle, tables, &lib) if is_evp else sodium.sodium_load(handle, tables, &lib)
    names = {value: key for key, value in _CIPHERS.items()}
    for i in range(max(n, 0)):
        tables[i].hkdf_extract = hkdf_extract
        tables[i].hkdf_expand = hkdf_expand
        failed = _prove_table(&tables[i], is_evp)
        if failed == 0:
            tables[kept] = tables[i]
            below[kept] = tables[i]
            if is_evp and _go_below(handle, &tables[kept], &below[kept]):
                directly.append(names[tables[kept].cipher_id])
            kept += 1
        else:
            tried.append(f"{name}: {file} fails known answer {failed} of cipher {tables[i].cipher_id}")
    if kept == 0:
        if n <= 0:
            tried.append(f"{name}: {file} is not usable (reason {n})")
        # contexts of the proof are gone; nothing points to these any more
        free(tables)
        free(below)
        if lib != NULL:
            if is_evp:
                evp.evp_release(lib)
            else:
                sodium.sodium_release(lib)
        return None
    p = Provider.__new__(Provider)
    p.name, p.path, p.tables, p.n_tables, p.lib, p.is_evp = name, file, below, kept, lib, is_evp
    p.above = tables
    p.direct = tuple(directly)
    text = evp.evp_version(lib) if is_evp else sodium.sodium_version(lib)
    p.version = (<bytes>text).decode("utf-8", "replace") if text != NULL else "libsodium"
    p.ciphers = tuple(names[tables[i].cipher_id] for i in range(kept))
    return p


cdef int _prove_table(const nc_crypto *t, bint is_evp):
    """0, the number of the known answer that it does not give, or 99."""
    cdef unsigned long newest = evp.evp_mark(<void *>t.lib) if is_evp else 0
    cdef int failed = prove(t)
    # The hot path does not clear the queue after a failed tag check, so that check must not add to it.
    if is_evp and evp.evp_unmark(<void *>t.lib) != newest and failed == 0:
        failed = 99
    return failed


cdef bint _go_below(void *handle, const nc_crypto *table, nc_crypto *below):
    """Whether `below` has become the table of the functions under EVP; else it is as it was."""
    cdef int good
    evp.evp_mark(<void *>table.lib)
    good = direct.direct_load(handle, table, below)
    evp.evp_unmark(<void *>table.lib)
    if good and _prove_table(below, True) == 0:
        return True
    below[0] = table[0]
    return False


# --- HKDF ---------------------------------------------------------------------------------------------------------

cdef int hkdf_extract(nc_hash *h, const uint8_t *salt, size_t salt_len,
                      const uint8_t *ikm, size_t ikm_len, uint8_t *out) noexcept nogil:
    cdef int rc = h.t.hmac_begin(h, salt, salt_len)
    cdef int end
    if rc < 0:
        return rc
    rc = h.t.hmac_add(h, ikm, ikm_len)
    end = h.t.hmac_end(h, out)
    return rc if rc < 0 else end


cdef int hkdf_expand(nc_hash *h, const uint8_t *prk, const uint8_t *info, size_t info_len,
                     uint8_t *out, size_t out_len) noexcept nogil:
    cdef uint8_t block[crypto.NC_HASH_BYTES]
    cdef uint8_t counter = 0
    cdef size_t done = 0
    cdef size_t step
    cdef int rc = defs.NC_OK
    cdef int end
    if info_len > crypto.NC_HKDF_INFO_MAX or out_len == 0 or out_len > crypto.NC_HKDF_OUT_MAX:
        return defs.NC_EINVAL
    while done < out_len and rc >= 0:
        rc = h.t.hmac_begin(h, prk, crypto.NC_HASH_BYTES)
        if rc < 0:
            break
        if counter > 0:
            rc = h.t.hmac_add(h, block, crypto.NC_HASH_BYTES)
        counter += 1
        if rc >= 0:
            rc = h.t.hmac_add(h, info, info_len)
        if rc >= 0:
            rc = h.t.hmac_add(h, &counter, 1)
        end = h.t.hmac_end(h, block)
        if rc >= 0:
            rc = end
        step = out_len - done if out_len - done < crypto.NC_HASH_BYTES else crypto.NC_HASH_BYTES
        memcpy(out + done, block, step)
        done += step
    h.t.cleanse(block, sizeof(block))
    if rc < 0:
        h.t.cleanse(out, out_len)
    return rc


# --- known answers ------------------------------------------------------------------------------------------------
# AES-256-GCM: test case 16 of the GCM submission (60 bytes, 20 bytes of associated data). ChaCha20-Poly1305:
# RFC 8439 §2.8.2. HMAC: RFC 4231 case 2. HKDF: RFC 5869 A.1. Empty messages: tag only.

cdef bytes _AES_KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
cdef bytes _AES_NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
cdef bytes _AES_AAD = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
cdef bytes _AES_PLAIN = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
cdef bytes _AES_SEALED = bytes.fromhex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b")
cdef bytes _AES_EMPTY = bytes.fromhex("fd2caa16a5832e76aa132c1453eeda7e")
cdef bytes _CHA_KEY = bytes(range(0x80, 0xA0))
cdef bytes _CHA_NONCE = bytes.fromhex("070000004041424344454647")
cdef bytes _CHA_AAD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
cdef bytes _CHA_PLAIN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it.")
cdef bytes _CHA_SEALED = bytes.fromhex(
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
    "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
    "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691")
cdef bytes _CHA_EMPTY = bytes.fromhex("a0784d7a4716f3feb4f64e7f4b39bf04")
cdef bytes _HMAC_OUT = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
cdef bytes _HKDF_SALT = bytes(range(13))
cdef bytes _HKDF_PRK = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
cdef bytes _HKDF_INFO = bytes(range(0xF0, 0xFA))
cdef bytes _HKDF_OUT = bytes.fromhex(
    "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


cdef int prove(const nc_crypto *t):
    """0 if every function of the table gives the known answers, else the number of the first that does not."""
    cdef bint aes = t.cipher_id == crypto.NC_CIPHER_AES256GCM
    cdef nc_hash *h = t.hash_new(t)
    cdef nc_ctx *c = t.ctx_new(t)
    cdef int failed
    failed = 1 if h == NULL or c == NULL else prove_hash(h)
    if failed == 0:
        if aes:
            failed = prove_cipher(c, _AES_KEY, _AES_NONCE, _AES_AAD, _AES_PLAIN, _AES_SEALED, _AES_EMPTY, _CHA_KEY)
        else:
            failed = prove_cipher(c, _CHA_KEY, _CHA_NONCE, _CHA_AAD, _CHA_PLAIN, _CHA_SEALED, _CHA_EMPTY, _AES_KEY)
    t.ctx_free(c)
    t.hash_free(h)
    return failed


cdef int prove_hash(nc_hash *h):
    cdef uint8_t out[42]
    cdef uint8_t ikm[22]
    memset(ikm, 0x0B, sizeof(ikm))
    for _ in range(2):              # twice on one object: reuse is what the core does
        if (h.t.hmac_begin(h, b"Jefe", 4) != 0 or h.t.hmac_add(h, b"what do ya want ", 16) != 0
                or h.t.hmac_add(h, b"for nothing?", 12) != 0 or h.t.hmac_end(h, out) != 0
                or memcmp(out, <const char *>_HMAC_OUT, 32) != 0):
            return 2
        if (h.t.hkdf_extract(h, _HKDF_SALT, 13, ikm, 22, out) != 0
                or memcmp(out, <const char *>_HKDF_PRK, 32) != 0):
            return 3
        if (h.t.hkdf_expand(h, _HKDF_PRK, _HKDF_INFO, 10, out, 42) != 0
                or memcmp(out, <const char *>_HKDF_OUT, 42) != 0):
            return 4
    return 0


cdef int prove_cipher(nc_ctx *c, const uint8_t *key, const uint8_t *nonce, bytes aad, bytes plain,
                      const uint8_t *sealed, const uint8_t *empty_tag, const uint8_t *other_key):
    cdef const nc_crypto *t = c.t
    cdef const uint8_t *a = aad
    cdef const uint8_t *p = plain
    cdef size_t a_len = len(aad)
    cdef size_t n = len(plain)
    cdef uint8_t buf[256]
    cdef uint8_t tag[16]
    cdef uint8_t wrong[16]
    cdef int turn
    if t.seal(c, nonce, a, a_len, p, n, buf, tag) >= 0 or t.open(c, nonce, a, a_len, p, n, buf, tag) != 0:
        return 10                   # a context without a key must refuse
    for turn in range(3):
        if t.ctx_key(c, key, crypto.NC_DIR_SEAL) != 0:
            return 11
        memcpy(buf, p, n)
        if (t.seal(c, nonce, a, a_len, buf, n, buf, tag) != 0 or memcmp(buf, sealed, n) != 0
                or memcmp(tag, sealed + n, 16) != 0):
            return 12               # in place
        memset(buf, 0, sizeof(buf))
        if (t.seal2(c, nonce, a, a_len, p, 13, p + 13, n - 13, buf, tag) != 0 or memcmp(buf, sealed, n) != 0
                or memcmp(tag, sealed + n, 16) != 0):
            return 13               # two segments, across
        if (t.seal(c, nonce, NULL, 0, p, 0, buf, tag) != 0 or memcmp(tag, empty_tag, 16) != 0):
            return 14               # nothing at all
        if t.open(c, nonce, a, a_len, sealed, n, buf, sealed + n) != 0:
            return 15               # keyed for the other direction
        if t.ctx_key(c, key, crypto.NC_DIR_OPEN) != 0:
            return 16
        if t.seal(c, nonce, a, a_len, p, n, buf, tag) >= 0:
            return 17
        memcpy(wrong, sealed + n, 16)
        wrong[turn * 7] ^= 0x80
        memcpy(buf, sealed, n)
        if (t.open(c, nonce, a, a_len, buf, n, buf, wrong) != 0 or memcmp(buf, p, n) == 0
                or buf[0] != 0 or buf[n - 1] != 0):
            return 18               # wrong tag, nothing of the plaintext left
        memcpy(buf, sealed, n)
        if t.open(c, nonce, a, a_len, buf, n, buf, sealed + n) != 1 or memcmp(buf, p, n) != 0:
            return 19               # right tag afterwards, in place
        if t.open(c, nonce, a, a_len - 1, sealed, n, buf, sealed + n) != 0:
            return 20
        if t.open(c, nonce, NULL, 0, p, 0, buf, empty_tag) != 1:
            return 21
        if t.ctx_key(c, other_key, crypto.NC_DIR_OPEN) != 0:
            return 22
        if t.open(c, nonce, a, a_len, sealed, n, buf, sealed + n) != 0:
            return 23               # another key must not open it
    return 0
