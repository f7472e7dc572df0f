# direct: the ciphers of libcrypto 3 without the EVP layer above them. Layer: _core, rung c.
from netchan._core cimport crypto

# Fills `t` from `evp`, a table of the libcrypto behind the dlopen handle, with the functions of the provider that has
# its cipher. 1; 0: this libcrypto shows none (1.1.1), and `t` is as it was. What is made for it lives as long as the
# process. The caller looks after this thread's error queue (evp_mark). Python side only.
cdef int direct_load(void *handle, const crypto.nc_crypto *evp, crypto.nc_crypto *t) noexcept nogil
