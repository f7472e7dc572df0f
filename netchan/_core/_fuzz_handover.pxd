# _fuzz_handover: the fuzz target over the state of a session from another process. Test-only, never in a wheel.
#
# The contract of a target is in _fuzz.pxd.

from libc.stdint cimport uint8_t

cdef int fuzz_handover(const uint8_t* data, size_t n) noexcept nogil
