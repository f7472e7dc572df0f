"""Datagrams of a path in few system calls. Layer: _engine. See batch.pxd."""

from libc.stdint cimport int64_t, uint8_t

from netchan._core cimport defs
from netchan._engine cimport sys

cdef int no_segments = 0            # 1: this kernel has no UDP_SEGMENT


cpdef bint allow_segments(bint allowed) noexcept:
    """Whether datagrams may leave several in one call; returns what held before. For links that are no UDP sockets."""
    global no_segments
    cdef bint before = not no_segments
    no_segments = not allowed
    return before


cdef void batch_setup(int fd) noexcept nogil:
    cdef int size = SOCKET_BUFFER
    cdef int on = 1
    sys.setsockopt(fd, sys.SOL_SOCKET, sys.SO_SNDBUF, &size, sizeof(int))
    sys.setsockopt(fd, sys.SOL_SOCKET, sys.SO_RCVBUF, &size, sizeof(int))
    sys.setsockopt(fd, sys.SOL_UDP, sys.UDP_GRO, &on, sizeof(int))
    # The marks of congestion that routers make (RFC 3168) come with what is received.
    sys.setsockopt(fd, sys.IPPROTO_IP, sys.IP_RECVTOS, &on, sizeof(int))
    sys.setsockopt(fd, sys.IPPROTO_IPV6, sys.IPV6_RECVTCLASS, &on, sizeof(int))
    # No fragments, and no length that ICMP has told: the path finds out what goes through (RFC 8899).
    size = sys.IP_PMTUDISC_PROBE
    sys.setsockopt(fd, sys.IPPROTO_IP, sys.IP_MTU_DISCOVER, &size, sizeof(int))
    sys.setsockopt(fd, sys.IPPROTO_IPV6, sys.IPV6_MTU_DISCOVER, &size, sizeof(int))


cdef void batch_mark(int fd, int mark) noexcept nogil:
    sys.setsockopt(fd, sys.IPPROTO_IP, sys.IP_TOS, &mark, sizeof(int))
    sys.setsockopt(fd, sys.IPPROTO_IPV6, sys.IPV6_TCLASS, &mark, sizeof(int))


cdef int batch_send(int fd, const uint8_t* p, const int* sizes, int n) noexcept nogil:
    global no_segments
    cdef int done = 0
    cdef int run, e
    cdef size_t total
    while done < n:
        run = 1
        total = <size_t>sizes[done]
        if not no_segments:
            # The last one of a run may be shorter.
            while done + run < n and sizes[done + run - 1] == sizes[done] and sizes[done + run] <= sizes[done] \
                    and total + <size_t>sizes[done + run] <= <size_t>BATCH_MOST:
                total += <size_t>sizes[done + run]
                run += 1
        if sys.send_segments(fd, p, total, sizes[done] if run > 1 else 0) < 0:
            e = sys.last_errno()
            if e == sys.EINTR:
                continue
            if e == sys.EAGAIN:
                return done
            if run > 1 and (e == sys.EIO or e == sys.EINVAL or e == sys.ENOPROTOOPT):
                no_segments = 1                 # or the device has no checksums: one by one from now on
                continue
            run = 1                             # lost
            total = <size_t>sizes[done]
        p += total
        done += run
    return done


cdef int64_t batch_recv(int fd, uint8_t* p, size_t room, int* size, uint8_t* mark) noexcept nogil:
    cdef int traffic = 0
    cdef long got = sys.recv_segments(fd, p, room, size, &traffic)
    cdef int e
    mark[0] = <uint8_t>(traffic & 3)
    if got >= 0:
        if size[0] <= 0:
            size[0] = <int>got
        return got
    e = sys.last_errno()
    return defs.NC_EAGAIN if e == sys.EAGAIN or e == sys.EINTR else defs.NC_ESYS
