"""The bell of a loop: an eventfd that the loop watches, and that THREADS engines ring when there is news.

Layer: _engine; one Bell for each loop that awaits on a session of such an engine, made and closed by net/bells.py.
Threads: the GIL is released while the desk's lock is waited for. Ownership: the struct is freed when its bell is off
the desk; a forked child leaves both alone. Spec: docs/explanation/ownership.md.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from netchan._core.leaf cimport store_seq_u32
from netchan._engine cimport sys
from netchan._engine.desk cimport desk_drop, desk_hang, desk_here, nc_bell
from netchan._engine.engine cimport fork_count
from netchan._engine.engine_handle cimport collect_threads


cdef class Bell:
    """Hung where the THREADS engines see it, until ``close``.

    Raises:
        OSError: no descriptor is left.
    """

    def __cinit__(self):
        self.desk = desk_here(fork_count())
        self.bell = <nc_bell*>calloc(1, sizeof(nc_bell))
        if self.bell is NULL or self.desk is NULL:
            raise MemoryError("netchan bell")
        self.bell.fd = sys.eventfd(0, sys.EFD_CLOEXEC | sys.EFD_NONBLOCK)
        if self.bell.fd < 0:
            free(self.bell)
            self.bell = NULL
            raise OSError("netchan: no descriptor is left for the bell of an event loop")
        with nogil:
            desk_hang(self.desk, self.bell)

    def __dealloc__(self):
        if self.desk is not NULL and self.desk.forks == fork_count():
            self.take_down()

    cdef take_down(self):
        if self.bell is NULL:
            return
        with nogil:
            desk_drop(self.desk, self.bell)
        free(self.bell)
        self.bell = NULL

    @property
    def fd(self):
        """Descriptor that is readable when ``hear`` has something to do; -1 once closed."""
        return -1 if self.bell is NULL else self.bell.fd

    def hear(self):
        """Answer the bell: hand the news of all THREADS engines to the objects concerned."""
        cdef uint64_t got
        if self.bell is NULL or self.desk.forks != fork_count():
            return
        sys.read(self.bell.fd, &got, 8)         # first: a ring between the two would leave nothing to read
        store_seq_u32(&self.bell.rung, 0)
        collect_threads()

    def close(self):
        """Take it down, and hand on what it was rung for. Idempotent."""
        if self.bell is NULL or self.desk.forks != fork_count():
            return
        self.take_down()
        collect_threads()
