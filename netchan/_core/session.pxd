# session: life and clock of one session. Layer: _core, rung n. docs/spec/session.md §1, §5, §8. Threads: baton.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.state cimport nc_dgram, nc_params, nc_session
from netchan._core.timer cimport TIMER_NEVER

cdef int64_t session_deadline(nc_session* s) noexcept nogil              # ns; TIMER_NEVER if none
cdef void session_on_deadline(nc_session* s, int64_t now_ns) noexcept nogil
# 1: nothing waits to be sent, and a CLOSE that is said now cannot come before something that was.
cdef int session_at_rest(nc_session* s) noexcept nogil
# The same without a path. NC_OK or NC_ENOMEM.
cdef int session_bare(nc_session* s, int role, const nc_params* mine, const nc_params* peer,
                      uint64_t seed) noexcept nogil
# Fills a zeroed struct. sealer.keys and .cache are set by the caller before. NC_OK or NC_ENOMEM.
# d: of the first path, if that is a datagram path; the session's from then on.
cdef int session_init(nc_session* s, int role, const nc_params* mine, const nc_params* peer, const uint8_t* binding32,
                      nc_dgram* d, uint64_t seed, int64_t now_ns) noexcept nogil
# Frees what the engine holds; ends live on while the application refers to them. Pins come out through s.pins.
cdef void session_free(nc_session* s) noexcept nogil
