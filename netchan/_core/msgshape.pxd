# Structure check of MessagePack bytes. Layer: _core, rung b; sans-IO, no state, any thread.

# One complete value of the closed domain (spec: docs/spec/channel-end.md)?
# data: borrowed until return, n bytes. most: containers that may be open at a time, 0 … 64.
# Returns 0, or NC_ETRUNC (ends early, or a header declares more than the bytes left can hold), NC_EFRAME (extension or
# reserved byte, key that is no str, bytes or int, bytes after the value), NC_ELIMIT (nested deeper than `most`),
# NC_EUNKNOWN (more than `ends` references to channel ends, wire.md §8).
cdef int shape_check(const unsigned char* data, size_t n, int most, int ends) noexcept nogil
