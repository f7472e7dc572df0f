# _fuzz_session: fuzz targets over frames, streams, records and sessions. Test-only, never in a wheel.
#
# The contract of a target is in _fuzz.pxd. The session targets share one key store and one context cache of the
# process, made at import; every run begins and ends its own sessions in them.

from libc.stdint cimport uint8_t

cdef int fuzz_frame(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_stream_in(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_take(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_session_frames(const uint8_t* data, size_t n) noexcept nogil
cdef int fuzz_session_raw(const uint8_t* data, size_t n) noexcept nogil
