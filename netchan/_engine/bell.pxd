# bell: the bell of one loop, as Python holds it. Layer: _engine.
#
# Threads: holders of the GIL. Ownership: owns its struct, which hangs on the desk until it is closed.

from netchan._engine.desk cimport nc_bell, nc_desk

cdef class Bell:
    cdef nc_bell* bell
    cdef nc_desk* desk
    cdef take_down(self)
