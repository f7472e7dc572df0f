# inbound: what a path received. Layer: _core, rung m. docs/spec/wire.md §3, §5, §6. Threads: baton.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.frame cimport nc_frame
from netchan._core.state cimport nc_offer, nc_path, nc_session

cdef void on_abort(nc_session* s, nc_frame* f) noexcept nogil
cdef void on_stop(nc_session* s, nc_frame* f) noexcept nogil
cdef void on_pos(nc_session* s, nc_frame* f) noexcept nogil
# The sender of a channel that nobody has opened here asks whether its bytes have come: they have, or it is said later.
cdef void answer_offer(nc_session* s, nc_offer* o) noexcept nogil
cdef void on_ask(nc_session* s, nc_frame* f) noexcept nogil
cdef void on_trunk(nc_session* s, nc_path* p, nc_frame* f, int64_t now) noexcept nogil
cdef void on_ack(nc_session* s, nc_frame* f, int64_t now) noexcept nogil
# A stream id of the peer that is not in a table: new, or closed.
cdef nc_offer* on_new_stream(nc_session* s, uint64_t id) noexcept nogil
cdef void on_data(nc_session* s, nc_path* p, nc_frame* f, int64_t now) noexcept nogil
cdef void on_session_close(nc_session* s, nc_frame* f) noexcept nogil
# All frames of one opened record. Returns 1 if an acknowledgement is due for it.
cdef int on_record(nc_session* s, nc_path* p, uint64_t tag, const uint8_t* body, size_t n, int64_t now) noexcept nogil
cdef int recv_record(nc_session* s, nc_path* p, uint8_t* rec, size_t size, int64_t now) noexcept nogil
cdef int keep_left(nc_path* p, const uint8_t* buf, size_t n, size_t need) noexcept nogil
# One datagram, changed in place. NC_OK; NC_EFRAME, NC_ECRYPTO, NC_EREPLAY: it was none, or came before; NC_EAGAIN:
# there is no room for what it brings; NC_ECLOSED: the session is over, or the path is: it ends with the peer's token.
cdef int session_recv_datagram(nc_session* s, nc_path* p, uint8_t* buf_untrusted, size_t n,
                               int64_t now_ns) noexcept nogil
# Bytes of the path's stream, changed in place. NC_OK; else the path is over (alive = 0), or the session, whose state
# says why.
cdef int session_recv(nc_session* s, nc_path* p, uint8_t* buf_untrusted, size_t n, int64_t now_ns) noexcept nogil
