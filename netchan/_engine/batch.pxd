# batch: datagrams of a path in few system calls: UDP sockets that are connected to their peer. Layer: _engine.
# Threads: the holder of the baton. Non-blocking; never raises a signal.
#
# Where the kernel has them, datagrams of one size leave in one call (UDP_SEGMENT) and arrive in one (UDP_GRO).

from libc.stdint cimport int64_t, uint8_t

cdef enum:
    BATCH = 64                      # datagrams of one call: the kernel's limit of segments
    BATCH_MOST = 65487              # bytes of one call: a UDP length, less what IP puts in front
    BATCH_ROOM = 65536              # bytes that a call may bring
    SOCKET_BUFFER = 4194304         # asked of the kernel for both directions; it gives what its limits allow

# Whether datagrams may leave several in one call, in this process; what held before.
cpdef bint allow_segments(bint allowed) noexcept
cdef void batch_setup(int fd) noexcept nogil
cdef void batch_mark(int fd, int mark) noexcept nogil            # of what is sent from now on (nc_ecn_mark)
# n datagrams of these sizes that lie one behind the other. How many the kernel took; an error loses one, as a network
# does.
cdef int batch_send(int fd, const uint8_t* p, const int* sizes, int n) noexcept nogil
# Bytes of one or more datagrams, each of *size bytes but the last, which may be shorter. 0: an empty one; NC_EAGAIN:
# none now; NC_ESYS: an error that was waiting, which says nothing that can be trusted (ICMP).
# *mark: what the network says of congestion, for all of them (nc_ecn_mark).
cdef int64_t batch_recv(int fd, uint8_t* p, size_t room, int* size, uint8_t* mark) noexcept nogil
