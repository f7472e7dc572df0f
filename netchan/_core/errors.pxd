# errors: the one door from return code to exception. Layer: _core, rung b. GIL held; cold.

cdef int check(long long rc) except -1      # rc >= 0: returns 0. rc < 0: raises the exception of that code.
