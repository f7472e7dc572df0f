# provider: finds a crypto library, proves it, and hands out its function tables.
# Layer: _core, rung d. Python side only.
from libc.stdint cimport uint8_t

from netchan._core cimport crypto

# A proven library. Its tables are shared, read-only and valid for the process's life (libraries are never closed),
# so a C struct may keep the pointer of provider_table() after this object is gone.
cdef class Provider:
    cdef readonly str name                  # "ssl", "system", "nacl" or "path"
    cdef readonly str version               # as the library words it
    cdef readonly str path                  # file it was mapped from
    cdef readonly tuple ciphers             # of "aes-256-gcm", "chacha20-poly1305"
    cdef readonly tuple direct              # those of them that are called below EVP (direct.pxd)
    cdef crypto.nc_crypto *tables           # n_tables of them, never freed
    cdef crypto.nc_crypto *above            # the same ciphers, called through EVP; for tests
    cdef int n_tables
    cdef void *lib
    cdef bint is_evp

# Table of a nc_cipher_id, or NULL when the library lacks that cipher. Borrowed for the process's life.
cdef const crypto.nc_crypto *provider_table(Provider p, int cipher_id) noexcept
cdef int cipher_id_of(str cipher) except -1                     # name -> nc_cipher_id; ValueError

# RFC 5869 over a table's HMAC; the table's hkdf_extract and hkdf_expand point here.
cdef int hkdf_extract(crypto.nc_hash *h, const uint8_t *salt, size_t salt_len,
                      const uint8_t *ikm, size_t ikm_len, uint8_t *out) noexcept nogil
cdef int hkdf_expand(crypto.nc_hash *h, const uint8_t *prk, const uint8_t *info, size_t info_len,
                     uint8_t *out, size_t out_len) noexcept nogil
