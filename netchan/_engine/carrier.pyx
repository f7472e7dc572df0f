"""Stream carriers: connected TCP and Unix sockets (docs/spec/wire.md §1).

Layer: _engine. The sockets are made, connected and accepted by the layer above; here they carry bytes. See carrier.pxd.
"""

from libc.stdint cimport int64_t, uint8_t

from netchan._core cimport defs
from netchan._engine cimport sys
from netchan._engine.batch cimport batch_setup
from netchan._engine.poller cimport poller_remove


cdef void set_int(int fd, int level, int name, int value) noexcept nogil:
    sys.setsockopt(fd, level, name, &value, sizeof(int))


cdef int carrier_setup(int fd, int kind) noexcept nogil:
    if kind == CARRIER_UDP:
        batch_setup(fd)
    elif kind == CARRIER_TCP:
        set_int(fd, sys.IPPROTO_TCP, sys.TCP_NODELAY, 1)
        set_int(fd, sys.IPPROTO_TCP, sys.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        set_int(fd, sys.SOL_SOCKET, sys.SO_KEEPALIVE, 1)
    else:
        set_int(fd, sys.SOL_SOCKET, sys.SO_SNDBUF, UNIX_SNDBUF)
    return defs.NC_OK


cdef int64_t carrier_read(int fd, uint8_t* p, size_t n) noexcept nogil:
    cdef ssize_t got = sys.recv(fd, p, n, sys.MSG_DONTWAIT)
    cdef int e
    if got >= 0:
        return got
    e = sys.last_errno()
    return defs.NC_EAGAIN if e == sys.EAGAIN or e == sys.EINTR else defs.NC_ESYS


cdef int64_t carrier_write(int fd, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t done = 0
    cdef ssize_t k
    cdef int e
    while done < n:
        k = sys.send(fd, p + done, n - done, sys.MSG_DONTWAIT | sys.MSG_NOSIGNAL)
        if k < 0:
            e = sys.last_errno()
            if e == sys.EINTR:
                continue
            return <int64_t>done if e == sys.EAGAIN else defs.NC_ESYS
        done += <size_t>k
    return <int64_t>done


cdef void carrier_leave(int fd) noexcept nogil:
    sys.close(fd)


cdef void carrier_close(int poller, int fd) noexcept nogil:
    poller_remove(poller, fd)
    sys.shutdown(fd, sys.SHUT_RDWR)
    sys.close(fd)
