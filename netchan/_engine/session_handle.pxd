# session_handle: a session as Python holds it. Layer: _engine.
#
# Threads: holders of the GIL. Ownership: the slot is the engine's; letting go of the handle marks it an orphan.

from netchan._engine.engine_handle cimport Engine, Listed
from netchan._engine.engine cimport nc_slot

cdef class Session(Listed):
    cdef nc_slot* t
    cdef readonly Engine engine
    cdef public object on_offers
    cdef public object on_over
    cdef public object on_ratchet
    cdef public object on_path
    cdef bint told
    cdef object __weakref__
