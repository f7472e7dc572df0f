# resume: the paths of a session, and a session without one. Layer: _core, rung l. docs/spec/session.md §1, §5.2, §5.3;
# docs/spec/handshake.md §11. Threads: baton.
#
# A path that is over has alive = 0 and stays until session_forget_gone, which its carrier's owner calls when it has let
# go of it.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from netchan._core.state cimport nc_dgram, nc_path, nc_session

cdef nc_path* path_find(nc_session* s, uint32_t path_id) noexcept nogil                 # one that lives, or NULL
# A path that was agreed upon, behind the others. NULL: no memory, max_paths are there, or the id was used.
# d: what a datagram path has beside, the path's from then on; NULL: a stream path.
cdef nc_path* path_new(nc_session* s, uint32_t path_id, const uint8_t* binding32, nc_dgram* d,
                       int64_t now_ns) noexcept nogil
# What several paths are used for from now on, nc_mode; MODE_AUTO: as is measured (session_on_deadline).
cdef void session_mode(nc_session* s, int mode, int k, int m, int64_t now_ns) noexcept nogil
cdef void session_use(nc_session* s, int mode, int k, int m) noexcept nogil             # what was picked
# Mirror: the path that carries control takes nothing now; p, which has all that it has, carries on. 1 done, 0: cannot.
cdef int session_pass(nc_session* s, nc_path* p) noexcept nogil
# The same where that one is a datagram path which is late and full. 1: done.
cdef int session_pass_late(nc_session* s, nc_path* p) noexcept nogil
# Something came on it; or it owes an acknowledgement (how: nc_silence): which path carries is decided anew.
cdef void session_path_heard(nc_session* s, nc_path* p) noexcept nogil
cdef void session_path_silent(nc_session* s, nc_path* p, int how, int64_t now_ns) noexcept nogil
# Somebody knows that its way is gone: silent from now on, until something comes. PING asks.
cdef void session_path_doubt(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil
# The path is to be used only where no other one lives (1), or as the others (0): said by us; heard of the other side.
cdef void session_standby(nc_session* s, nc_path* p, int standby) noexcept nogil
cdef void on_path_status(nc_session* s, uint64_t path_id, uint64_t seq, int standby) noexcept nogil
# The carrier reported its end, or was silent too long. What was sent on it is sent again on another one; without one
# the session is suspended, or lost where it has no lease.
cdef void session_path_lost(nc_session* s, nc_path* p, int64_t now_ns) noexcept nogil
cdef void session_forget_gone(nc_session* s) noexcept nogil
# May a path of this id be added beside those that live? NC_OK; NC_ECLOSED: the session is over or being closed;
# NC_ESTATE: it has no lease; NC_ELIMIT: max_paths are there; NC_EINVAL: the id was used.
cdef int session_may_add(nc_session* s, uint32_t path_id) noexcept nogil
# Adds it. binding: 32 bytes, for the first record each way. NC_OK, as session_may_add, NC_ENOMEM.
# d as path_new, and the caller's where the answer is not NC_OK; NC_ESTATE also: this session has no datagram paths.
cdef int session_add(nc_session* s, uint32_t path_id, const uint8_t* binding32, nc_dgram* d, int64_t now_ns,
                     nc_path** out) noexcept nogil
# A JOIN names a new path instead of all others, and the last one that its sender knows. How many records were received
# here on that one; NC_ECLOSED: the session is over or being closed; NC_ESTATE: it has no lease; NC_EINVAL: the new id
# is not above all others.
cdef int64_t session_join(nc_session* s, uint32_t path_id, uint32_t last) noexcept nogil
# Goes on over a new path: the other side has received `received` records of path `last`. NC_OK; as session_join, also
# NC_ESTATE: not suspended; NC_EFRAME: a figure that cannot be; NC_ENOMEM.
cdef int session_resume(nc_session* s, uint32_t path_id, uint32_t last, uint64_t received, const uint8_t* binding32,
                        nc_dgram* d, int64_t now_ns, nc_path** out) noexcept nogil
