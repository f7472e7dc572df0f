# transcript: chaining key, transcript hash and cipher of one handshake. Layer: _core, rung e. Python side only.
from libc.stdint cimport uint8_t, uint64_t

from netchan._core cimport crypto

# What a message that does not open must not change.
cdef struct nc_transcript:
    uint8_t ck[crypto.NC_HASH_BYTES]    # chaining key
    uint8_t key[crypto.NC_KEY_BYTES]    # cipher key, when keyed
    uint64_t n                          # messages of that key so far
    int keyed

cdef class Transcript:
    cdef crypto.nc_hash* mac            # owned
    cdef crypto.nc_ctx* sealer          # owned
    cdef crypto.nc_ctx* opener          # owned
    cdef nc_transcript now
    cdef nc_transcript kept
    cdef readonly bytes h               # transcript hash, 32 bytes; public
    cdef bytes kept_h

    cdef int mix(self, object ikm, uint8_t* out, int count) except -1
    cdef void rekey(self, const uint8_t* ck, const uint8_t* key) noexcept
    cdef int nonce(self, uint8_t* out) except -1
