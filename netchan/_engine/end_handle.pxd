# end_handle: one end of a channel over a session. Layer: _engine.
#
# Threads: holders of the GIL. Ownership: the end is shared with the session (nc_end.refs).

from libc.stdint cimport int64_t, uint32_t, uint64_t

from netchan._core.take cimport nc_msg
from netchan._core.state cimport nc_end
from netchan._engine.engine_handle cimport Engine, Listed
from netchan._engine.state cimport nc_engine, nc_slot
from netchan._engine.session_handle cimport Session

cdef class Items:
    cdef object source
    cdef Py_ssize_t at

cdef class StreamEnd(Listed):
    cdef nc_end* e
    cdef nc_engine* g                   # for the finaliser, which may find the objects gone
    cdef Engine engine
    cdef readonly Session session
    cdef public object tx_waiters
    cdef public object rx_waiters
    cdef public object ack_waiters
    cdef public object end_waiters
    cdef public object decode
    cdef public Py_ssize_t plain_max
    cdef bint writable                  # values are taken into bytearrays
    cdef uint64_t passed_over           # offers that their sender took back
    cdef readonly bint aborted_here     # abort_both ended it
    cdef uint64_t refused               # values that drop_new did not accept
    cdef list marks
    cdef list returned                  # values that were taken and came back; None: none
    cdef object failure
    cdef object __weakref__
    cdef int adopt(self, nc_slot* t, uint32_t place) except -1
    cdef int discard_aborted(self) except -1
    cdef int mark(self, uint64_t n) except -1
    cdef int request(self, uint32_t bits) except -1
    cdef int64_t append(self, value, int flags, int64_t age_ns=*) except -2
    cdef int64_t overflowed(self) except -2
    cdef list gone_ahead(self, uint64_t first, uint64_t upto)
    cdef split_run(self, bytearray run, uint64_t number, uint64_t begin, uint64_t first, list out)
    cdef int append_run(self, Items items, Py_ssize_t limit) except -1
    cdef bint received_now(self, uint64_t position)
    cdef note_mark(self)
    cdef int head(self, nc_msg* m) noexcept
    cdef void drop_expired(self) noexcept
    cdef object take(self, nc_msg* m, int* due)
    cdef int take_run(self, list out, Py_ssize_t limit, int* due) except -1
    cdef int took(self, int due) except -1
    cdef raise_failure(self)
    cdef decoded(self, object data)
    cdef bint has_returned(self)
    cdef bint recv_state(self)
    cdef bint lost(self)
    cpdef uint64_t pending(self)
    cdef wake(self, queue)
