# segment: pieces of memory in a list, in which both halves of a stream keep their bytes. Layer: _core, rung d; inline.
#
# Ownership: segments are owned by the list they are on. A pinned segment holds a reference to its owner object, which
# no C thread may drop: it is handed out through `pins` for a holder of the GIL.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

cdef enum:
    SEG_FIRST = 512                 # bytes of a stream's first segment; doubled for each full one
    SEG_MAX = 65536                 # up to this
    COPY_MAX = 32768                # longest copy under a leaf lock; longer values get a segment of their own

ctypedef struct nc_seg:
    nc_seg* next
    uint64_t start                  # stream offset of data[0]
    uint64_t first_off              # offset at which the first message of this segment starts; ~0: none starts here
    uint64_t first_num              # its number
    uint64_t len                    # bytes in use; the inbox's is an atomic
    size_t cap                      # bytes allotted (0 for a pinned segment)
    const uint8_t* data             # own bytes right behind this struct, or borrowed from `pin`
    void* pin                       # object that owns data; NULL: own bytes
    int64_t due                     # when its one message is over (lossy.pyx); 0: never


# NULL: no memory. The bytes lie right behind the struct.
cdef inline nc_seg* seg_new(size_t cap, uint64_t start) noexcept nogil:
    cdef nc_seg* s = <nc_seg*>malloc(sizeof(nc_seg) + cap)
    if s is NULL:
        return NULL
    s.next = NULL
    s.start = start
    s.first_off = ~<uint64_t>0
    s.first_num = 0
    s.len = 0
    s.cap = cap
    s.data = <const uint8_t*>(s + 1)
    s.pin = NULL
    s.due = 0
    return s


cdef inline void seg_free_list(nc_seg* s) noexcept nogil:
    cdef nc_seg* following
    while s is not NULL:
        following = s.next
        free(s)
        s = following


cdef inline uint8_t* seg_room(nc_seg* s) noexcept nogil:
    return <uint8_t*>(s + 1) + s.len


# Frees an own segment; a pinned one goes to the list for a holder of the GIL.
cdef inline void seg_release(nc_seg* s, nc_seg** pins) noexcept nogil:
    if s.pin is NULL:
        free(s)
    else:
        s.next = pins[0]
        pins[0] = s
