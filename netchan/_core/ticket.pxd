# ticket: carries the tickets of a session. Layer: _core, rung i. docs/spec/handshake.md §12. Threads: baton.

from libc.stdint cimport uint64_t, uint8_t

from netchan._core.cursor cimport nc_wr
from netchan._core.frame cimport nc_frame
from netchan._core.state cimport nc_session


# 1: a ticket waits to be sent.
cdef inline int ticket_due(const nc_session* s) noexcept nogil:
    return 1 if s.ticket_out is not NULL else 0


# The side that was dialled gives a ticket, n bytes that are copied; one that still waits is forgotten.
# NC_OK, NC_EINVAL (n, or the wrong side), NC_ENOMEM.
cdef int session_ticket_send(nc_session* s, uint64_t life_s, const uint8_t* p, size_t n) noexcept nogil
# The newest ticket that came: *p is the caller's from now on. Its length; 0: none.
cdef size_t session_ticket_take(nc_session* s, uint64_t* life_s, uint8_t** p) noexcept nogil
# The peer has shown that this session is over there: it is lost at once; the peer is told where a path takes it.
cdef void session_replaced(nc_session* s) noexcept nogil
cdef void ticket_free(nc_session* s) noexcept nogil
cdef void on_ticket(nc_session* s, nc_frame* f) noexcept nogil
cdef void put_ticket(nc_session* s, nc_wr* w, int* eliciting) noexcept nogil
