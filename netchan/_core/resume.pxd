# resume: a session without a path, and how it gets the next one. Layer: _core, rung k. docs/spec/session.md §1, §5.2;
# docs/spec/handshake.md §11. Threads: baton.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from netchan._core.state cimport nc_session

# The carrier reported its end, or was silent too long. The session is suspended, or lost where it has no lease.
cdef void session_path_lost(nc_session* s, int64_t now_ns) noexcept nogil
# A JOIN names a new path and the last one that its sender knows. How many records were received here on that one;
# NC_ECLOSED: the session is over or being closed; NC_ESTATE: it cannot mean that path; NC_EINVAL: the new id was used.
cdef int64_t session_join(nc_session* s, uint32_t path_id, uint32_t last) noexcept nogil
# Goes on over a new path: the other side has received `received` records of path `last`. binding: 32 bytes, for the
# first record each way. NC_OK; as session_join, also NC_ESTATE: not suspended; NC_EFRAME: a figure that cannot be;
# NC_ENOMEM.
cdef int session_resume(nc_session* s, uint32_t path_id, uint32_t last, uint64_t received, const uint8_t* binding32,
                        int64_t now_ns) noexcept nogil
