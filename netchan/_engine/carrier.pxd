# carrier: bytes of a stream path: TCP and Unix sockets. Layer: _engine. Non-blocking; never raises a signal.
#
# Descriptors are owned by the engine's slot. Threads: the holder of the baton.

from libc.stdint cimport int64_t, uint8_t

cdef enum:
    CARRIER_TCP = 1
    CARRIER_UNIX = 2
    CARRIER_UDP = 3
    NOTSENT_LOWAT = 131072          # bytes in the kernel that control may wait for (TCP)
    UNIX_SNDBUF = 262144            # the same for Unix sockets

# Options of a connected socket: no delay, bounded unsent bytes, keep-alive; of a datagram one its buffers. Best effort:
# NC_OK always.
cdef int carrier_setup(int fd, int kind) noexcept nogil
# Bytes read (> 0), 0: the other side has ended, NC_EAGAIN: none now, NC_ESYS: broken.
cdef int64_t carrier_read(int fd, uint8_t* p, size_t n) noexcept nogil
# Bytes written (>= 0; fewer than n when the kernel takes no more), NC_ESYS: broken.
cdef int64_t carrier_write(int fd, const uint8_t* p, size_t n) noexcept nogil
# Closed, but not shut down: another process goes on with it.
cdef void carrier_leave(int fd) noexcept nogil
# In this order: out of the poller, shut down, closed (a forked child may still hold the file).
cdef void carrier_close(int poller, int fd) noexcept nogil
