# _fuzz: fuzz targets over the lowest rungs. Test-only, never in a wheel; used by tests/fuzz.
#
# A target takes any bytes and returns 0, or the number of the check that did not hold (then the fuzzer aborts and the
# corpus test fails). It must not keep state between calls. Declared here, it is reached by name through the module's
# __pyx_capi__; tests/fuzz/build.sh finds targets by the lines "cdef int fuzz_<name>(".

from libc.stdint cimport uint8_t

cdef int fuzz_varint(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_cursor(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_ranges(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_replay(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_name(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_msgshape(const uint8_t* data, size_t n) noexcept nogil
