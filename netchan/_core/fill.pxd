# fill: what goes into a record. Layer: _core, rung l. docs/spec/wire.md §3, §5, §6; docs/spec/parity.md §2.1.
# Threads: baton. Each function gives the size of the sealed record, 0 if there is nothing to say, or a negative code.

from libc.stdint cimport int64_t, uint8_t

from netchan._core.cursor cimport nc_wr
from netchan._core.state cimport nc_end, nc_group, nc_path, nc_session

cdef enum:
    CONTROL_ROOM = 640              # least room in which a control record is begun
    CLOSE_COPIES = 3                # datagrams that say CLOSE: nothing would tell that one was lost

cdef int put_ack(nc_session* s, nc_path* p, nc_wr* w, int64_t now) noexcept nogil
# Control frames of one end. NC_ESPACE: the rest later. Returns 1 if something was written.
cdef int put_end_control(nc_session* s, nc_end* e, nc_wr* w) noexcept nogil
# What a path says for itself; not open: nothing that asks for an answer.
cdef int64_t send_own(nc_session* s, nc_path* p, uint8_t* out, int open, int64_t now) noexcept nogil
# The control record, if something is due.
cdef int64_t send_control(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil
# A path beside it: POS that is due and that the one that carries control has not taken yet. Lost, it is not sent again.
cdef int64_t send_positions_first(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil
cdef int positions_wait(nc_session* s) noexcept nogil                   # 1: it would say something
# Data of one stream, at most `share` bytes of it.
cdef int64_t send_data(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, size_t share,
                       int64_t now) noexcept nogil
# A parity symbol of a group. It is not kept: lost, it is not sent again.
cdef int64_t send_symbol(nc_session* s, nc_path* p, nc_group* g, uint8_t* out, size_t cap, int64_t now) noexcept nogil
# Small data of e and of those behind it in the line, each of which leaves it: the line's reference goes here.
cdef int64_t send_trunk(nc_session* s, nc_path* p, nc_end* e, uint8_t* out, size_t cap, int64_t now) noexcept nogil


cdef inline int close_copies(const nc_path* p) noexcept nogil:
    return 1 if p.d is NULL else CLOSE_COPIES
