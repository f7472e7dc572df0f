# outbound: what is to be sent. Layer: _core, rung l. docs/spec/wire.md §3, §5, §6. Threads: baton.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.cursor cimport nc_wr
from netchan._core.state cimport nc_end, nc_path, nc_session

cdef int put_ack(nc_session* s, nc_path* p, nc_wr* w, int64_t now) noexcept nogil
# Control frames of one end. NC_ESPACE: the rest later. Returns 1 if something was written.
cdef int put_end_control(nc_session* s, nc_end* e, nc_wr* w) noexcept nogil
# Writes the control record if something is due. Returns its size, 0, or a negative code.
cdef int64_t send_control(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil
# One record with data of one stream. Returns its size, 0 if there is nothing, or a negative code.
cdef int64_t send_data(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, size_t share,
                       int64_t now) noexcept nogil
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
