# poller: wait for readiness or a deadline. Layer: _engine.
#
# One epoll set; level-triggered; a slot pointer per descriptor.
#
# A platform without epoll gets a clear error at import (engine.pyx); there is no second implementation without a test.
# Threads: poller_wait may run in one thread while others add, change and remove.

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    POLL_IN = 1
    POLL_OUT = 2
    POLL_ONCE = 4                   # disarmed after one report, until poller_change
    POLL_BATCH = 64                 # reports of one wait

ctypedef struct nc_report:
    void* slot
    uint32_t bits                   # POLL_IN, POLL_OUT; hang-up and error read as POLL_IN

cdef int poller_open() noexcept nogil                                           # descriptor, or NC_ESYS
cdef int poller_add(int poller, int fd, uint32_t bits, void* slot) noexcept nogil       # NC_OK or NC_ESYS
cdef int poller_change(int poller, int fd, uint32_t bits, void* slot) noexcept nogil
cdef int poller_remove(int poller, int fd) noexcept nogil
# Reports, 0 on timeout, NC_EAGAIN when a signal came, NC_ESYS. timeout_ms < 0: none.
cdef int poller_wait(int poller, nc_report* out, int n, int timeout_ms) noexcept nogil
