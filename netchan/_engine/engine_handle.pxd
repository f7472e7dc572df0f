# engine_handle: the handle of an engine, and what its news is given to. Layer: _engine.
#
# Threads: holders of the GIL. Ownership: the engine's struct outlives its handle, see Engine.__dealloc__.

from libc.stdint cimport uint32_t

from netchan._core.segment cimport nc_seg
from netchan._engine.state cimport nc_engine
from netchan._engine.waitq cimport BlockingWaiter

cdef int check_fork(nc_engine* g) except -1     # ForkError in a child of the process that made g
cdef void drop_pins(nc_seg* s)                  # a list of pinned segments, with their owners; owned by the callee
cdef int collect_threads() except -1            # hands out the news of all THREADS engines

cdef class Listed:
    cdef on_ready(self, uint32_t bits)          # an end: nc_event bits; a session: 1 = it is over

cdef class Engine:
    cdef nc_engine* g
    cdef unsigned long loop_thread
    cdef object schedule
    cdef object flush_later
    cdef dict providers
    cdef readonly str kind
    cdef object __weakref__
    cdef tell(self)
    cdef drive_threads(self, BlockingWaiter waiter, deadline)
    cdef release_pins(self)
    cdef int prepare_cipher(self, int cipher) except -1
