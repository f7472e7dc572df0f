# waitq: queues of waiting calls, first come first served. Layer: _engine; knows no loop, no thread, no channel.
#
# A waiter may stand in several queues (a select does); in each it has one place. Places form a list per queue and a
# list per waiter.
# Threads: any that holds the GIL. Nothing between two looks at the links runs Python code, so the GIL is all the lock
# there is, and a finaliser may wake whomever it likes.

cdef class Place:                   # of one waiter in one queue
    cdef Waiter waiter
    cdef WaitQueue queue
    cdef Place before
    cdef Place behind
    cdef Place other                # the waiter's next place, in another queue
    cdef bint aside                 # woken like the head, but not waited for by those behind

cdef class Waiter:
    cdef Place places               # its places, in any order
    cdef public bint woken
    cdef public bint bounded
    cdef public bint mortal         # gone() is to be asked
    cdef public object deadline
    cdef object __weakref__

cdef class BlockingWaiter(Waiter):
    cdef readonly object driver
    cdef void* sleeper              # nc_sleeper of desk.pxd while its thread is in a THREADS engine

cdef class WaitQueue:
    cdef Place first
    cdef Place last
    cdef readonly Py_ssize_t waiting
    cdef Py_ssize_t asides          # how many of them stand aside
    cdef Waiter head(self)
    cdef wake_asides(self, Waiter but)
    cdef Place find(self, Waiter waiter)
    cdef void unlink(self, Place place) noexcept
