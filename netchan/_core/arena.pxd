# arena: pages for secrets. Layer: _core, rung c. Python side only for map and unmap; the bytes belong to the mapper.
cdef struct nc_arena:
    unsigned char *p                # owned, n bytes of zeros at first, between two pages that fault
    size_t n                        # as asked
    size_t mapped                   # with the guard pages
    int locked                      # 1 = never written to swap
    int wiped_on_fork               # 1 = a forked child reads zeros

# Maps n > 0 bytes, left out of core dumps and zero in forked children; locked in memory if lock is 1 and the system
# allows it. NC_OK, NC_EINVAL or NC_ENOMEM (then *a is all zero).
cdef int arena_map(nc_arena *a, size_t n, int lock) noexcept nogil
# Overwrites and unmaps; a zeroed arena is allowed.
cdef void arena_unmap(nc_arena *a) noexcept nogil
