# outbound: what is to be sent. Layer: _core, rung j. docs/spec/wire.md §3, §5, §6. Threads: baton.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.cursor cimport nc_wr
from netchan._core.state cimport nc_end, nc_path, nc_session

cdef int put_ack(nc_session* s, nc_wr* w, int64_t now) noexcept nogil
# Control frames of one end. NC_ESPACE: the rest later. Returns 1 if something was written.
cdef int put_end_control(nc_session* s, nc_end* e, nc_wr* w) noexcept nogil
# Seals the record that was built and notes it as sent. Returns its size or a negative code.
cdef int64_t finish_record(nc_session* s, uint8_t* rec, uint64_t tag, size_t body, const uint8_t* tail, size_t tail_len,
                           uint64_t upto, int eliciting, int64_t now) noexcept nogil
# Room in the list of sent records beside `spare` entries: 1 yes, 0 no (sending waits for an ACK).
cdef int sent_room(nc_path* p, uint64_t spare) noexcept nogil
# Writes the control record if something is due. Returns its size, 0, or a negative code.
cdef int64_t send_control(nc_session* s, uint8_t* out, size_t cap, int64_t now) noexcept nogil
# One record with data of one stream. Returns its size, 0 if there is nothing, or a negative code.
cdef int64_t send_data(nc_session* s, nc_end* e, uint8_t* out, size_t cap, size_t share, int64_t now) noexcept nogil
cdef int session_wants_send(nc_session* s) noexcept nogil                # 1: session_send would give something
# Fills out with sealed records; returns bytes (0: nothing to send), or a negative code when the session is over.
cdef int64_t session_send(nc_session* s, uint8_t* out, size_t cap, int64_t now_ns) noexcept nogil
