# outbound: the turns of what is to be sent. Layer: _core, rung m. docs/spec/wire.md §3; docs/spec/session.md §5.
# Threads: baton.

from libc.stdint cimport int64_t, uint8_t

from netchan._core.state cimport nc_path, nc_session

cdef int session_wants_send(nc_session* s) noexcept nogil                # 1: session_send would give something
# Fills out with sealed records for this path (NULL: none, only acts on what was asked); returns bytes (0: nothing to
# send), or a negative code when the session is over. The path that carries control comes first.
cdef int64_t session_send(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil
# The same for a datagram path: one datagram, at most `cap` bytes; to be called until it gives 0.
cdef int64_t session_send_datagram(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil
# A datagram of `cap` bytes with PATH_CHALLENGE for an address of the peer that is not proved yet. Its size; 0: none.
cdef int64_t session_send_probe(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil
# Each path had its turn: a session that is being closed ends if CLOSE was said on one.
cdef void session_said(nc_session* s) noexcept nogil
