"""The session's side of tickets: carries them to the peer, and ends a session whose successor has shown one.

Layer: _core, rung i. Baton. What a ticket holds is made above (net/ticket.py). Spec: docs/spec/handshake.md §12.
"""

from libc.stdint cimport uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.cursor cimport nc_wr
from netchan._core.ends cimport fail, session_close
from netchan._core.frame cimport frame_put_ticket, nc_frame
from netchan._core.state cimport SESSION_SUSPENDED, SESSION_UP, nc_session


cdef int session_ticket_send(nc_session* s, uint64_t life_s, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t* copy
    if n == 0 or n > <size_t>defs.TICKET_MAX or s.role != 1 or life_s >> 62:
        return defs.NC_EINVAL
    copy = <uint8_t*>malloc(n)
    if copy is NULL:
        return defs.NC_ENOMEM
    memcpy(copy, p, n)
    free(s.ticket_out)
    s.ticket_out = copy
    s.ticket_out_len = n
    s.ticket_out_life = life_s
    return defs.NC_OK


cdef size_t session_ticket_take(nc_session* s, uint64_t* life_s, uint8_t** p) noexcept nogil:
    cdef size_t n = s.ticket_in_len
    if s.ticket_in is NULL:
        return 0
    p[0] = s.ticket_in
    life_s[0] = s.ticket_in_life
    s.ticket_in = NULL
    s.ticket_in_len = 0
    return n


cdef void session_replaced(nc_session* s) noexcept nogil:
    if s.state == SESSION_UP or s.state == SESSION_SUSPENDED:
        s.abrupt = 1
        session_close(s, defs.CLOSE_REPLACED, NULL, 0)


cdef void ticket_free(nc_session* s) noexcept nogil:
    free(s.ticket_out)
    free(s.ticket_in)
    s.ticket_out = NULL
    s.ticket_in = NULL


cdef void on_ticket(nc_session* s, nc_frame* f) noexcept nogil:
    cdef uint8_t* copy
    if s.role != 0 or f.len == 0:
        fail(s, defs.CLOSE_PROTOCOL)
        return
    copy = <uint8_t*>malloc(f.len)
    if copy is NULL:
        return                                  # a ticket only saves time
    memcpy(copy, f.data, f.len)
    free(s.ticket_in)
    s.ticket_in = copy
    s.ticket_in_len = f.len
    s.ticket_in_life = f.a
    s.ready_any = 1


cdef void put_ticket(nc_session* s, nc_wr* w, int* eliciting) noexcept nogil:
    if s.ticket_out is not NULL and frame_put_ticket(w, s.ticket_out_life, s.ticket_out, s.ticket_out_len) >= 0:
        free(s.ticket_out)
        s.ticket_out = NULL
        eliciting[0] = 1
