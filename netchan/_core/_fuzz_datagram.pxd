# _fuzz_datagram: fuzz target over a session on a datagram path. Test-only, never in a wheel. The contract of a target
# is in _fuzz.pxd.

from libc.stdint cimport uint8_t

cdef int fuzz_datagram_frames(const uint8_t* data, size_t n) noexcept nogil
