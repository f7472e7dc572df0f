# session_handle: a session as Python holds it. Layer: _engine.
#
# Threads: holders of the GIL. Ownership: the slot is the engine's; letting go of the handle marks it an orphan.

from libc.stdint cimport uint32_t, uint64_t

from netchan._core.state cimport nc_auto, nc_figures
from netchan._engine.engine_handle cimport Engine, Listed
from netchan._engine.state cimport nc_slot

cdef told_of(int mode, int k, int m, const nc_figures* now, const nc_auto* a)

cdef class Session(Listed):
    cdef nc_slot* t
    cdef readonly Engine engine
    cdef public object on_offers
    cdef public object on_over
    cdef public object on_ratchet
    cdef public object on_path
    cdef public object on_events
    cdef public object on_ticket
    cdef public object kept
    cdef public dict where
    cdef public object maker
    cdef bint told
    cdef list loose                 # ends that the session has forgotten, while it is held (handover_handle.pyx)
    cdef bint new_path(self, int fd, int carrier, uint32_t path_id, bint beside, uint32_t last, uint64_t received,
                       bytes binding, bytes early, uint32_t mtu, bytes answer, bytes token) except -1
    cdef object __weakref__
