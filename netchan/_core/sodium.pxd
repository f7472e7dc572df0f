# sodium: fills the function table from a libsodium found by dlsym. Layer: _core, rung c.
from netchan._core cimport crypto

# As evp.evp_load; returns the number of ciphers (AES-256-GCM only where the processor has it), or -1 when this is no
# libsodium or its initialisation fails.
cdef int sodium_load(void *handle, crypto.nc_crypto *tables, void **lib_out) noexcept nogil
cdef const char *sodium_version(void *lib) noexcept nogil                # borrowed; NULL when it does not say
cdef void sodium_release(void *lib) noexcept nogil                       # a library whose tables are not used
