"""The poller interface over epoll.

Layer: _engine; owns nothing but the descriptor it returns. See poller.pxd for the contract.
"""

from libc.stdint cimport uint32_t

from netchan._core cimport defs
from netchan._engine cimport sys


cdef inline uint32_t to_epoll(uint32_t bits) noexcept nogil:
    cdef uint32_t e = 0
    if bits & POLL_IN:
        e |= <uint32_t>sys.EPOLLIN
    if bits & POLL_OUT:
        e |= <uint32_t>sys.EPOLLOUT
    if bits & POLL_ONCE:
        e |= sys.EPOLLONESHOT
    return e


cdef int poller_open() noexcept nogil:
    cdef int fd = sys.epoll_create1(sys.EPOLL_CLOEXEC)
    return fd if fd >= 0 else defs.NC_ESYS


cdef int poller_ctl(int poller, int op, int fd, uint32_t bits, void* slot) noexcept nogil:
    cdef sys.epoll_event e
    e.events = to_epoll(bits)
    e.data.ptr = slot
    return defs.NC_OK if sys.epoll_ctl(poller, op, fd, &e) == 0 else defs.NC_ESYS


cdef int poller_add(int poller, int fd, uint32_t bits, void* slot) noexcept nogil:
    return poller_ctl(poller, sys.EPOLL_CTL_ADD, fd, bits, slot)


cdef int poller_change(int poller, int fd, uint32_t bits, void* slot) noexcept nogil:
    return poller_ctl(poller, sys.EPOLL_CTL_MOD, fd, bits, slot)


cdef int poller_remove(int poller, int fd) noexcept nogil:
    return poller_ctl(poller, sys.EPOLL_CTL_DEL, fd, 0, NULL)


cdef int poller_wait(int poller, nc_report* out, int n, int timeout_ms) noexcept nogil:
    cdef sys.epoll_event[64] e
    cdef int got, i
    if n > POLL_BATCH:
        n = POLL_BATCH
    got = sys.epoll_wait(poller, e, n, timeout_ms)
    if got < 0:
        return defs.NC_EAGAIN if sys.last_errno() == sys.EINTR else defs.NC_ESYS
    for i in range(got):
        out[i].slot = e[i].data.ptr
        out[i].bits = 0
        if e[i].events & <uint32_t>(sys.EPOLLIN | sys.EPOLLHUP | sys.EPOLLERR):
            out[i].bits |= POLL_IN
        if e[i].events & <uint32_t>sys.EPOLLOUT:
            out[i].bits |= POLL_OUT
    return got
