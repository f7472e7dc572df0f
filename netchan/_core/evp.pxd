# evp: fills the function table from a libcrypto (OpenSSL 1.1.1 to 4.x) found by dlsym. Layer: _core, rung c.
from netchan._core cimport crypto

cdef enum evp_rc:
    EVP_NOT_LIBCRYPTO = -1          # symbols are missing: another kind of library
    EVP_BAD_VERSION = -2            # outside 1.1.1 ... 4.x (LibreSSL calls itself 2.0)
    EVP_NO_HASH = -3                # no SHA-256

# Fills `tables[0..1]` (AES-256-GCM, then ChaCha20-Poly1305) from the library behind the dlopen handle and returns the
# number of ciphers it has (0..2), or evp_rc < 0. *lib_out: owned by the caller for the process's life (never freed
# once a table is in use). Leaves this thread's error queue as it was. Python side only; serialised by the caller.
cdef int evp_load(void *handle, crypto.nc_crypto *tables, void **lib_out) noexcept nogil
cdef const char *evp_version(void *lib) noexcept nogil                   # borrowed from the library
cdef unsigned long evp_mark(void *lib) noexcept nogil      # marks this thread's error queue; newest error, 0 = none
cdef unsigned long evp_unmark(void *lib) noexcept nogil    # newest error now; then drops all behind the mark
cdef void evp_release(void *lib) noexcept nogil                          # a library whose tables are not used
